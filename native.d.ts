// What the native addon exports. `npm run build` makes this of src/node/; `npm run lint` says where it is not what it would
// be now. Arguments and answers that are texts are JSON.

/** See src/node/promise.rs. */
type Promised<T> = Promise<T>;

/** Makes a client call for the binding. It never rejects: what the client throws is an answer. */
export type Dispatch = (request: Request) => Promise<Answer>;

/** A merge that holds its target's lock. */
export declare class BegunMerge {
  /** Inspects the target and merges. */
  apply(): Promised<undefined>
  /**
   * Cleans up and releases the lock. Resolves with what the incoming side had, in pieces, if the caller wants
   * it.
   */
  finish(wantsTheirs: boolean): Promised<Pieces | undefined | null>
}

/** Lets JavaScript cancel work, and cancels it when the environment ends. */
export declare class Canceller {
  constructor()
  cancel(): void
}

/** A held merge lock. */
export declare class HeldLock {
  /** Releases the lock. */
  release(): Promised<undefined>
}

/** A long result in pieces of JSON, so no turn of the event loop has to parse all of it. */
export declare class Pieces {
  /** The next piece; `null` after the last one. */
  read(): string | null
}

/** A workspace that was prepared in a sandbox. */
export declare class PreparedSession {
  /** The folder of this run in the sandbox. */
  runtimeRootDir(): string
  /** The report of the prepare, as JSON: see [`values::prepare_report`]. */
  prepareReport(): string
  /** Restores. Resolves with the report in pieces, if it is wanted: see [`values::report`]. */
  restore(dispatch: Dispatch, canceller: Canceller, wantsReport: boolean, dryRun: boolean): Promised<Pieces | undefined | null>
}

/** A snapshot that JavaScript passes in pieces. */
export declare class SnapshotWriter {
  constructor()
  /** Adds entries, as JSON pairs. */
  write(entries: string): void
}

/** A program that was started, or is about to be. */
export declare class StartedProgram {
  /**
   * The file descriptors of our ends of its standard input, output and error output. The caller has to close them.
   * Empty from the second call on.
   */
  takeStreams(): Array<number>
  /** Kills it, unless it has ended. */
  kill(): void
  /** Resolves once it has ended. Rejects if it could not be started. May be called once. */
  ended(): Promised<ProgramEnding>
}

export declare function acquireMergeLock(input: string): Promised<HeldLock>

/** The result of a [`Request`]: one of the fields, or none where there is nothing to return. */
export interface Answer {
  /** Zeroed memory for an upload, of `allocate`. */
  memory?: Uint8Array
  /** Returns the bytes that were read, of `readFile`. */
  read?: () => Uint8Array
  /** How many milliseconds the client took, of `makeDir` and `writeFile`. */
  took?: number
  /** The failure of any call. */
  failure?: Failure
}

export declare function beginMerge(input: string, baseline: SnapshotWriter): Promised<BegunMerge>

export declare function captureSnapshot(root: string, exclude: string): Promised<Pieces>

/**
 * Those of the objects `tips` in a repository of ours that are to be held back, since git would obey something of theirs once
 * it is checked out. `here` are commits that local references name. A JSON list; all of them if they cannot be searched.
 */
export declare function commitsToHold(input: string): Promised<string>

export declare function createTarballFromDirectory(input: string, canceller: Canceller): Promised<undefined>

/**
 * Stands for a value that the client threw. The value itself stays in JavaScript, and is never passed
 * between threads as an error.
 */
export interface Failure {
  /** The number under which `index.js` keeps the value. */
  kept: number
  /** Whether the value says that the same call may succeed later. */
  retryable: boolean
}

/** Which of some paths of files such a snapshot leaves out: their positions, as a JSON list. */
export declare function findLeftOut(paths: string, exclude: string): Promised<string>

export declare function mirrorDirectory(input: string, canceller: Canceller): Promised<undefined>

/** Settles in a later turn of the event loop, even if JavaScript's own timers were replaced. */
export declare function nextTurn(): Promised<undefined>

export declare function prepareSession(input: string, dispatch: Dispatch, canceller: Canceller): Promised<PreparedSession>

/** How a program ended: it has one of the two. */
export interface ProgramEnding {
  exitCode?: number
  signal?: number
}

/** The snapshot of an archive on this machine, in pieces. */
export declare function readArchive(archive: string, exclude: string): Promised<Pieces>

/** The entry at a path, as JSON; `null` if there is none that a snapshot would contain. */
export declare function readEntry(rootDir: string, relative: string): Promised<string | undefined | null>

/** A request to `index.js`. */
export interface Request {
  /** The operation. */
  op: "allocate" | "release" | "discard" | "clear" | "makeDir" | "writeFile" | "readFile" | "remove" | "run" | "step"
  /** The remote path or the command; for `step` the step's name. */
  target: string
  /** The number of an upload's memory, for `allocate`, `release` and `writeFile`. */
  upload: number
  /** How many bytes to allocate. */
  size: number
  /** For how many milliseconds a step has taken so far. */
  took: number
  /** The part of an archive that is transferred, or what a step works on; absent for other calls. */
  part?: RequestPart
}

/** A part of an archive, for progress: see [`Part`]. All sizes are those of the archive before compression. */
export interface RequestPart {
  /** What is transferred: `workspace`, or the key of an asset. */
  label: string
  /** The number of the part, counted from 0. */
  number: number
  /** How many bytes of the archive come before this part. */
  before: number
  /** How many bytes this part has; 0 if unknown. */
  size: number
  /** How many bytes the archive has; 0 if unknown. */
  total: number
}

/** The session of an earlier prepare, possibly by another process. Makes no call to the client. */
export declare function resumeSession(input: string): Promised<PreparedSession>

/** Starts a program in another thread, with pipes as its standard streams. */
export declare function startProgram(input: string): StartedProgram
