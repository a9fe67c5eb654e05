// What the native addon exports. `npm run build` makes this of src/node/; `npm run lint` says where it is not what it would
// be now. Arguments and answers that are texts are JSON.

/** See src/node/promise.rs. */
type Promised<T> = Promise<T>;

/**
 * Makes a client call for the binding. Resolves with the memory of an upload, with a function that gives what was read, with
 * nothing, or with what is known of a failure.
 */
export type Dispatch = (request: Request) => Promise<Uint8Array | (() => Uint8Array) | Failure | undefined>;
