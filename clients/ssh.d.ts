import type { SandboxManagedRuntimeClient } from "../index.js";

/** Options of {@link createSshClient}. */
export interface SshClientOptions {
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
}

/** A client over ssh. */
export interface SshClient extends SandboxManagedRuntimeClient {
  /**
   * Ends the connection, with whatever still runs over it, and removes its private folder. The client can't
   * be used after. Never rejects; closing twice is fine. It also happens when the process exits (but not when
   * a signal kills it: the connection then ends by itself after a minute without a session).
   */
  close(): Promise<void>;
}

/**
 * A client over the system's ssh. The other side needs a POSIX `sh` with the usual commands, and no scp or
 * sftp.
 *
 * All sessions share one connection, which opens with the first. It never asks for anything: keys and host
 * keys must be in order. A file is written under another name beside its own and renamed once all of its
 * bytes have arrived.
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute, and a `timeoutMs` that is no positive
 *   number,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command, a transfer or the
 *   connection fails; 255 is ssh's own exit code,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when a command was stopped, with everything it had started, after
 *   `timeoutMs`,
 * - `ERR_SANDBOX_TRANSFER_INCOMPLETE` when other than all bytes of a file arrived,
 * - Node's own error when ssh cannot be started.
 *
 * @throws `ERR_INVALID_ARG_VALUE` for a `host` that cannot be used.
 */
export function createSshClient(options: SshClientOptions): SshClient;
