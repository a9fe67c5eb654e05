// What the native addon exports. `npm run build` makes this of src/node/; `npm run lint` says where it is not what it would
// be now. Arguments and answers that are texts are JSON.

/** See src/node/promise.rs. */
type Promised<T> = Promise<T>;

/** Makes a client call for the binding. It never rejects: what the client throws is an answer. */
export type Dispatch = (request: Request) => Promise<Answer>;
