import type { SandboxManagedRuntimeClient } from "../index.js";
import type { TransferLimits } from "./limits.js";

/** Options of {@link createSshClient}. */
export interface SshClientOptions extends TransferLimits {
  /** A host name, an address, or an alias of ssh's own configuration, which applies as usual. */
  host: string;
  /** Default: ssh's own (22). */
  port?: number;
  /** The user to log in as. Default: ssh's own (the local user). */
  user?: string;
  /** The path of a private key to offer. Default: those that ssh offers by itself. */
  identityFile?: string;
  /** Further options as after ssh's `-o`, like `"StrictHostKeyChecking=accept-new"`. Default: none. */
  sshOptions?: string[];
  /** The ssh program, OpenSSH's: a name on the `PATH` or a path. Default: `"ssh"`. */
  sshCommand?: string;
  /**
   * How many sessions may share the connection at once; further calls wait for their turn. It must not exceed the
   * server's `MaxSessions`. Default: 8 (a server allows 10 unless it is told otherwise).
   */
  maxSessions?: number;
}

/** A client over ssh. */
export interface SshClient extends SandboxManagedRuntimeClient {
  /**
   * Ends the connection, with whatever still runs over it, and removes its private directory. The client can't
   * be used after. Never rejects; closing twice is fine. It also happens when the process exits (but not when
   * a signal kills it: the connection then ends by itself after a minute without a session).
   */
  close(): Promise<void>;
}

/**
 * A client over the system's ssh. The server needs a POSIX `sh` with the usual commands, and no scp or
 * sftp.
 *
 * All sessions share one connection, which opens with the first. It never asks for anything: keys and host
 * keys must be in order, and are checked as ssh does for the user. The login shell may be any that takes words
 * in single quotes, such as csh, tcsh, fish and zsh. A file is written under another name beside its own and
 * renamed once all of its bytes have arrived; what a cut or an abort leaves of it is removed.
 *
 * A server that no longer answers is noticed within 20 seconds (unless `sshOptions` or ssh's configuration of the user say
 * otherwise). A connection that was lost is opened again, and what was in progress over it is retried up to five
 * times, except for a command that had begun.
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute, and a `timeoutMs` that is no positive
 *   number,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command or a transfer fails, or
 *   the server refuses the connection (255, ssh's own exit code),
 * - `ERR_SANDBOX_CONNECTION_LOST` when the connection broke, or could not be made, also at further attempts,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when a command was stopped, with everything it had started, after
 *   `timeoutMs`, or another call after `deadlineMs`,
 * - `ERR_SANDBOX_TRANSFER_INCOMPLETE` when other than all bytes of a file arrived,
 * - `ERR_SANDBOX_DOWNLOAD_TOO_LARGE` for a file beyond `maxDownloadBytes`,
 * - the reason of a `signal` that aborted,
 * - Node's own error when ssh cannot be started.
 *
 * @throws `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` for an option that cannot be used.
 */
export function createSshClient(options: SshClientOptions): SshClient;
