import type { SandboxManagedRuntimeClient } from "../index.js";
import type { RefreshTimers } from "./timers.js";

/** What {@link createE2bClient} uses of a `Sandbox` of the `e2b` package (version 2). */
export interface E2bSandbox {
  setTimeout(timeoutMs: number, options?: { requestTimeoutMs?: number }): Promise<void>;
  readonly files: {
    makeDir(path: string, options?: E2bRequestOptions): Promise<boolean>;
    write(path: string, data: ArrayBuffer, options?: E2bRequestOptions): Promise<unknown>;
    read(
      path: string,
      options: E2bRequestOptions & { format: "stream"; streamIdleTimeoutMs?: number },
    ): Promise<ReadableStream<Uint8Array>>;
    list(path: string, options?: E2bRequestOptions): Promise<{ name: string; type?: string }[]>;
    remove(path: string, options?: E2bRequestOptions): Promise<void>;
  };
  readonly commands: {
    run(
      command: string,
      options?: { timeoutMs?: number; user?: string },
    ): Promise<{ exitCode: number; stderr: string }>;
  };
}

/** Options of a single request to an E2B sandbox. */
export interface E2bRequestOptions {
  user?: string;
  requestTimeoutMs?: number;
}

/** Options of {@link createE2bClient}. */
export interface E2bClientOptions {
  /**
   * How long the sandbox may live from each refresh on, in milliseconds; at least 1000. It replaces what the
   * sandbox had left, so give the value that it was created with when that is more. A single transfer may
   * take as long, too. Default: 3,600,000 (one hour, the most that E2B's free plan allows).
   */
  lifetimeMs?: number;
  /** The sandbox user that commands run as and files belong to. Default: the template's. */
  user?: string;
  /** For tests. Default: `globalThis`. */
  timers?: RefreshTimers;
}

/**
 * A client over a sandbox of E2B.
 *
 * An E2B sandbox is killed when its lifetime ends, however busy it is, and nothing prolongs the lifetime by
 * itself. This client does: at the start of each command and transfer, and while one lasts every quarter of
 * the lifetime, at least once a minute. This is best effort: a refresh that fails or hangs neither fails nor
 * delays anything.
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute, and a `timeoutMs` that is no positive
 *   number,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command fails,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when it ran for longer than `timeoutMs`. It is then stopped in the sandbox
 *   as well, about a second later, where the template has the usual `timeout` command,
 * - the SDK's own errors otherwise.
 *
 * A download reports progress as it goes, with a total of null until its end; an upload reports its end.
 *
 * @throws `ERR_INVALID_ARG_VALUE` for a `lifetimeMs` that cannot be used.
 */
export function createE2bClient(sandbox: E2bSandbox, options?: E2bClientOptions): SandboxManagedRuntimeClient;
