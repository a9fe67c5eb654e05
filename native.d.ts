// What the native addon exports. `npm run build` makes this of src/node/; `npm run lint` says where it is not what it would
// be now. Arguments and answers that are texts are JSON.

/** See src/node/promise.rs. */
type Promised<T> = Promise<T>;

/**
 * Makes a client call for the binding. Resolves with the memory of an upload, with a function that gives what was read, with
 * nothing, or with what is known of a failure.
 */
export type Dispatch = (request: Request) => Promise<Uint8Array | (() => Uint8Array) | Failure | undefined>;

/** A merge that holds its target's lock. */
export declare class BegunMerge {
  /** Looks at the target and merges. */
  apply(): Promised<undefined>
  /** Cleans up and releases the lock. Resolves with what the other side held, in pieces, where that is wanted. */
  finish(wantsTheirs: boolean): Promised<Pieces | undefined | null>
}

/** Lets JavaScript stop work that is under way, and stops it when its environment ends. */
export declare class Canceller {
  constructor()
  cancel(): void
}

/** A held merge lock. */
export declare class HeldLock {
  /** Gives the lock back. */
  release(): Promised<undefined>
}

/** A long answer on its way to JavaScript, in pieces of JSON, so that no turn of the event loop has to read all of it. */
export declare class Pieces {
  /** The next piece; `null` after the last. */
  read(): string | null
}

/** A workspace in its sandbox. */
export declare class PreparedSession {
  /** The run's folder in the sandbox. */
  runtimeRootDir(): string
  /** What the prepare did, as JSON: see [`values::prepare_report`]. */
  prepareReport(): string
  /** Resolves with the report, where it is wanted, in pieces: see [`values::report`]. */
  restore(dispatch: Dispatch, canceller: Canceller, wantsReport: boolean, lookOnly: boolean): Promised<Pieces | undefined | null>
}

/** A snapshot on its way from JavaScript, in pieces. */
export declare class SnapshotWriter {
  constructor()
  /** Takes further entries as JSON pairs. */
  write(entries: string): void
}

export declare function acquireMergeLock(input: string): Promised<HeldLock>

export declare function beginMerge(input: string, baseline: SnapshotWriter): Promised<BegunMerge>

export declare function captureSnapshot(root: string, exclude: string): Promised<Pieces>

export declare function createTarballFromDirectory(input: string, canceller: Canceller): Promised<undefined>

/** What the client threw. The value itself stays in JavaScript and never travels through other threads as an error. */
export interface Failure {
  /** The number under which `index.js` keeps the value. */
  kept: number
  /** Whether the value says that the same call may succeed later. */
  retryable: boolean
}

export declare function mirrorDirectory(input: string, canceller: Canceller): Promised<undefined>

/** Settles in another turn of the event loop, whatever was done to JavaScript's own timers. */
export declare function nextTurn(): Promised<undefined>

export declare function prepareSession(input: string, dispatch: Dispatch, canceller: Canceller): Promised<PreparedSession>

/** The snapshot of what an archive on this machine holds, in pieces. */
export declare function readArchive(archive: string, exclude: string): Promised<Pieces>

/** What stands at a path now, as a JSON entry; `null` where nothing that a snapshot would hold does. */
export declare function readEntry(rootDir: string, relative: string): Promised<string | undefined | null>

/** What `index.js` is asked for. */
export interface Request {
  /** What is to be done. */
  op: "allocate" | "release" | "discard" | "makeDir" | "writeFile" | "readFile" | "remove" | "run"
  /** The remote path or the command. */
  target: string
  /** The number of an upload's memory, for `allocate`, `release` and `writeFile`. */
  upload: number
  /** How many bytes are to be allocated. */
  size: number
  /** Which part of an archive is transferred; nothing for other calls. */
  part?: RequestPart
}

/** A part of an archive, for progress: see [`Part`]. All sizes are the archive's own, before anything is compressed. */
export interface RequestPart {
  /** What travels: `workspace` or the key of an asset. */
  label: string
  /** Counted from 0. */
  number: number
  /** How many bytes come before it. */
  before: number
  /** How many it has; 0 where that is not known. */
  size: number
  /** How many the archive has; 0 where that is not known. */
  total: number
}

/** The session of a prepare that another process may have made; without a call to the client. */
export declare function resumeSession(input: string): Promised<PreparedSession>
