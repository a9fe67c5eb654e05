import type { SandboxManagedRuntimeClient } from "../index.js";

/** Options of {@link checkSandboxClient}. */
export interface ConformanceOptions {
  /**
   * An absolute path in the sandbox at which the client may create files. All happens in a new directory below
   * it, which is removed at the end. About 300 MB must be free there.
   */
  workDir: string;
  /** The names of the checks to run, as a failure gives them, to try those again. Default: all. */
  only?: string[];
  /** Gets what falls short, as text, a table of all checks, and a summary at the end. Default: `console.log`. */
  log?: (text: string) => void;
  /** How long one check may take, in milliseconds, before it counts as failed. Default: 120,000. */
  limitMs?: number;
}

/** Where a client falls short. */
export interface ConformanceFailure {
  /** What the client must do. */
  check: string;
  /** What it did instead. */
  problem: string;
  /** What to do about it. */
  advice: string;
}

/** What a client can do beyond what it must. */
export interface ClientAbilities {
  /** It calls `onProgress`. */
  progress: boolean;
  /** It says `allowConcurrentSyncOperations: true`. */
  partsAtOnce: boolean;
  /** A transfer or a command ended when its `signal` aborted. */
  signal: boolean;
  /** Its error for a missing file says `retryable: false`. Errors that pass cannot be provoked here. */
  retryable: boolean;
}

/** What {@link checkSandboxClient} found. */
export interface ConformanceResult {
  /** Whether the client does all that preparing and restoring a workspace need of it. */
  passed: boolean;
  /** Where it does not, in the order of the checks. */
  failures: ConformanceFailure[];
  /** The optional abilities that the checks that ran have found. */
  abilities: ClientAbilities;
}

/**
 * Tries a client out in its sandbox, call by call, and tells where it falls short of what preparing and
 * restoring a workspace need: files byte for byte, odd names, overlapping calls, failures that are reported,
 * commands that end in time, memory, aborts, a shell with the usual commands. What is optional may be missing, but
 * must be right where it is there.
 *
 * It never rejects on account of the client: what the client throws is a failed check.
 *
 * @param client The client, or a function that creates it.
 * @throws `ERR_INVALID_ARG_VALUE` (as a rejection) for a `workDir` that is not absolute, a `limitMs` that is
 *   no positive number, or an unknown name in `only`; and what the function that creates the client throws.
 */
export function checkSandboxClient(
  client:
    SandboxManagedRuntimeClient | (() => SandboxManagedRuntimeClient | Promise<SandboxManagedRuntimeClient>),
  options: ConformanceOptions,
): Promise<ConformanceResult>;
