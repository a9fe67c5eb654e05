import type { Readable } from "node:stream";
import type { SandboxManagedRuntimeClient } from "../index.js";
import type { TransferLimits } from "./limits.js";
import type { RefreshTimers } from "./timers.js";

/**
 * What {@link createDaytonaClient} uses of a `Sandbox` of the `@daytonaio/sdk` package (0.218 or later, before 1), which
 * is also published as `@daytona/sdk`.
 */
export interface DaytonaSandbox {
  /** Tells Daytona that the sandbox is in use. Without it, only the calls themselves do. */
  refreshActivity?(): Promise<void>;
  readonly fs: {
    uploadFileStream(
      source: Readable,
      remotePath: string,
      options?: { timeout?: number; signal?: AbortSignal },
    ): Promise<void>;
    downloadFileStream(
      remotePath: string,
      options?: { timeout?: number; signal?: AbortSignal },
    ): Promise<Readable>;
  };
  readonly process: {
    executeCommand(
      command: string,
      cwd?: string,
      env?: Record<string, string>,
      timeout?: number,
    ): Promise<{ exitCode: number; result?: string }>;
  };
}

/** Options of {@link createDaytonaClient}. */
export interface DaytonaClientOptions extends TransferLimits {
  /** For tests. Default: `globalThis`. */
  timers?: RefreshTimers;
}

/**
 * A client over a sandbox of Daytona.
 *
 * Daytona stops a sandbox that got no request for a while (its `autoStopInterval`, 15 minutes unless it was
 * created with another). This client tells it that the sandbox is in use at the start of each command and transfer, and
 * once a minute while one lasts. This is best effort: a refresh that fails or hangs neither fails nor delays anything.
 *
 * Files travel as streams, both ways, without a second copy in memory, to a name beside the file's own, which is
 * renamed at the end. A temporary failure (429 with its `Retry-After`, 500, 502, 503, 504, a connection that broke or on
 * which nothing moved for a minute) is retried up to five times, with growing pauses; a command only where it was refused before
 * it began. An abort by `signal` stops the transfer, or the command and all that it started, and removes what had
 * arrived.
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute, and a `timeoutMs` that is no positive number,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command fails,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when it ran for longer than `timeoutMs`, or another call for longer than `deadlineMs`,
 * - `ERR_SANDBOX_TRANSFER_INCOMPLETE` when other than all bytes of a file arrived,
 * - `ERR_SANDBOX_CONNECTION_LOST` when nothing of a transfer moved for a minute,
 * - `ERR_SANDBOX_DOWNLOAD_TOO_LARGE` for a file beyond `maxDownloadBytes`,
 * - the reason of a `signal` that aborted,
 * - the SDK's own errors otherwise.
 *
 * @throws `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` for a `sandbox` or an option that cannot be used.
 */
export function createDaytonaClient(
  sandbox: DaytonaSandbox,
  options?: DaytonaClientOptions,
): SandboxManagedRuntimeClient;
