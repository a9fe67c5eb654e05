import type { SandboxManagedRuntimeClient } from "../index.js";
import type { TransferLimits } from "./limits.js";

/** Options of {@link createLocalClient}. */
export interface LocalClientOptions extends TransferLimits {
  /**
   * The directory that every remote path must be, or lie below. It guards against mistakes, it is no jail:
   * commands and symbolic links reach what they like. Default: no restriction.
   */
  root?: string;
  /** The POSIX shell that runs the commands, with `-c`. A name on the `PATH` or a path. Default: `"sh"`. */
  shell?: string;
  /** Environment variables for the commands, on top of this process's own. Default: none. */
  env?: Record<string, string>;
}

/**
 * A client over the file system of this machine, for tests and demonstrations. Remote paths are used as they
 * are.
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute, and a `timeoutMs` that is no positive
 *   number,
 * - `ERR_SANDBOX_UNSAFE_PATH` for a path outside of `root`,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command fails,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when it was stopped, with everything it had started, after `timeoutMs`; and
 *   when a transfer took longer than `deadlineMs`,
 * - `ERR_SANDBOX_DOWNLOAD_TOO_LARGE` for a file beyond `maxDownloadBytes`,
 * - the reason of a `signal` that aborted: the command is stopped, and nothing is left of a file,
 * - Node's own file-system errors otherwise.
 *
 * A file is written under another name beside its own and renamed once it is complete; one that is read goes
 * straight into the buffer that `readFile` answers with.
 *
 * A command is over once it, and all that it left running with its error output, have ended.
 *
 * @throws `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` for an option that cannot be used.
 */
export function createLocalClient(options?: LocalClientOptions): SandboxManagedRuntimeClient;
