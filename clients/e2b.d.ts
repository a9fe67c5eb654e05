import type { SandboxManagedRuntimeClient } from "../index.js";
import type { TransferLimits } from "./limits.js";
import type { RefreshTimers } from "./timers.js";

/** What {@link createE2bClient} uses of a `Sandbox` of the `e2b` package (version 2). */
export interface E2bSandbox {
  setTimeout(timeoutMs: number, options?: { requestTimeoutMs?: number }): Promise<void>;
  readonly files: {
    makeDir(path: string, options?: E2bRequestOptions): Promise<boolean>;
    write(
      path: string,
      data: ArrayBuffer | ReadableStream,
      options?: E2bRequestOptions & { useOctetStream?: boolean; gzip?: boolean },
    ): Promise<unknown>;
    read(
      path: string,
      options: E2bRequestOptions & { format: "stream"; streamIdleTimeoutMs?: number; gzip?: boolean },
    ): Promise<ReadableStream<Uint8Array>>;
    /** Without it, the size of a download is not known in advance. */
    getInfo?(path: string, options?: E2bRequestOptions): Promise<{ size: number; symlinkTarget?: string }>;
    /** Without it, an upload goes to its place directly, and is removed if it fails. */
    rename?(oldPath: string, newPath: string, options?: E2bRequestOptions): Promise<unknown>;
    list(path: string, options?: E2bRequestOptions): Promise<{ name: string; type?: string }[]>;
    remove(path: string, options?: E2bRequestOptions): Promise<void>;
  };
  readonly commands: {
    run(
      command: string,
      options?: { timeoutMs?: number; user?: string; signal?: AbortSignal },
    ): Promise<{ exitCode: number; stderr: string }>;
  };
}

/** Options of a single request to an E2B sandbox. */
export interface E2bRequestOptions {
  user?: string;
  requestTimeoutMs?: number;
  signal?: AbortSignal;
}

/** Options of {@link createE2bClient}. */
export interface E2bClientOptions extends TransferLimits {
  /**
   * How long the sandbox may live from each refresh on, in milliseconds; at least 1000. It replaces what the
   * sandbox had left, so give the value that it was created with when that is more. Default: 3,600,000 (one hour, the most that E2B's free plan allows).
   */
  lifetimeMs?: number;
  /** The sandbox user that commands run as and files belong to. Default: the template's. */
  user?: string;
  /**
   * Have the SDK compress uploads and ask for compressed downloads, for workspaces that travel uncompressed.
   * Default: false.
   */
  gzip?: boolean;
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
 * Files travel as streams, both ways, without a second copy in memory: as `application/octet-stream` where the
 * sandbox takes it (envd 0.5.7 and later; the SDK buffers before), to a name beside the file's own, which is
 * renamed at the end. A temporary failure (429, 500, 503, 504, a connection that broke or on which nothing
 * moved for a minute) is retried up to five times, with growing pauses. The SDK does not tell the `Retry-After` of a sandbox's own
 * answers; it obeys that of E2B's API itself. A command is retried only where it was refused before it
 * began. An abort by `signal` stops the transfer, or the command and all that it started, and removes what had
 * arrived.
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute, and a `timeoutMs` that is no positive
 *   number,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command fails,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when it ran for longer than `timeoutMs`, or another call for longer than
 *   `deadlineMs`. What was started is stopped in the sandbox as well,
 * - `ERR_SANDBOX_TRANSFER_INCOMPLETE` when other than all bytes of a file arrived,
 * - `ERR_SANDBOX_CONNECTION_LOST` when nothing of an upload moved for a minute,
 * - `ERR_SANDBOX_DOWNLOAD_TOO_LARGE` for a file beyond `maxDownloadBytes`,
 * - the reason of a `signal` that aborted,
 * - the SDK's own errors otherwise.
 *
 * @throws `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` for a `sandbox` or an option that cannot be used.
 */
export function createE2bClient(sandbox: E2bSandbox, options?: E2bClientOptions): SandboxManagedRuntimeClient;
