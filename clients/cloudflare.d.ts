import type { SandboxManagedRuntimeClient } from "../index.js";
import type { TransferLimits } from "./limits.js";
import type { RefreshTimers } from "./timers.js";

/** What {@link createCloudflareClient} uses of a sandbox of the `@cloudflare/sandbox` package. */
export interface CloudflareSandbox {
  exec(
    command: string,
    options?: { timeout?: number },
  ): Promise<{ exitCode: number; stdout: string; stderr: string }>;
  writeFile(
    path: string,
    content: string | ReadableStream<Uint8Array>,
    options?: { encoding?: string },
  ): Promise<unknown>;
  readFile(path: string, options: { encoding: "none" }): Promise<{ content: ReadableStream<Uint8Array> }>;
  readFile(path: string, options: { encoding: "base64" }): Promise<{ content: string }>;
  mkdir(path: string, options?: { recursive?: boolean }): Promise<unknown>;
  exists(path: string): Promise<{ exists: boolean }>;
  listFiles(
    path: string,
    options?: { includeHidden?: boolean },
  ): Promise<{ files: { name: string; type: string }[] }>;
  /**
   * The container's own way to say that it is in use. Without it, only the calls themselves keep it awake.
   */
  renewActivityTimeout?(): unknown;
  /** Without it, what a command that was given up started ends at the command's own limit only. */
  createSession?(options: {
    id?: string;
  }): Promise<{ exec(command: string, options?: { timeout?: number }): Promise<unknown> }>;
  deleteSession?(id: string): Promise<unknown>;
}

/** When a Cloudflare sandbox goes to sleep. */
export interface CloudflareSleepOptions {
  /** How long after the last activity: seconds, or a text like `"30s"`, `"5m"` or `"1h"`. Default: `"1h"`. */
  sleepAfter?: string | number;
  /** The sandbox never goes to sleep, and must be destroyed by hand. Default: false. */
  keepAlive?: boolean;
}

/** `T` with the `sleepAfter` that {@link cloudflareSandboxOptions} decided on. */
export type WithSleepAfter<T extends object> = Omit<T, "sleepAfter"> & {
  sleepAfter?: string | number;
};

/**
 * Options for the SDK's `getSandbox` that let a sandbox live through the pauses of an agent: `overrides`,
 * with a `sleepAfter` of `"1h"` (the SDK's own default is ten minutes) unless they have one. With `keepAlive:
 * true` it is left out, since the SDK ignores it then.
 *
 * ```js
 * const options = cloudflareSandboxOptions();
 * const client = createCloudflareClient(getSandbox(env.Sandbox, id, options), options);
 * ```
 */
export function cloudflareSandboxOptions<T extends object = {}>(
  overrides?: T & CloudflareSleepOptions,
): WithSleepAfter<T>;

/** Options of {@link createCloudflareClient}. Those of the SDK's `getSandbox` may be given as they are. */
export interface CloudflareClientOptions extends CloudflareSleepOptions, TransferLimits {
  /**
   * The largest number of bytes to send or fetch in one call; larger files travel in parts. Every call carries them as
   * base64, which is a third longer, and must stay below the 32 MiB that Cloudflare allows. Default:
   * 2,097,152 (2 MiB).
   */
  chunkBytes?: number;
  /**
   * Whether files beyond `chunkBytes` travel as streams of bytes. The sandbox must use the SDK's `rpc` transport
   * (`SANDBOX_TRANSPORT=rpc`); over another one the SDK refuses them. Default: false.
   */
  streams?: boolean;
  /** Of the SDK's `getSandbox`, as the four after it: taken, so that both can be given the same options, and not used. */
  containerTimeouts?: object;
  enableDefaultSession?: boolean;
  labels?: object;
  normalizeId?: boolean;
  transport?: string;
  /** For tests. Default: `globalThis`. */
  timers?: RefreshTimers;
}

/**
 * A client over a sandbox object of Cloudflare, for programs that have one: the `@cloudflare/sandbox` package
 * (0.12 or later, before 1) cannot be imported outside of a Worker. A Node host reaches such a sandbox with {@link
 * createCloudflareBridgeClient}.
 *
 * Such a sandbox goes to sleep, and loses its files, when nothing has happened for `sleepAfter`. This client
 * tells it that it is in use at the start of each command and transfer, and while one lasts every quarter of
 * `sleepAfter`, at least once a minute. This is best effort: a refresh that fails or hangs neither fails nor
 * delays anything. With `keepAlive: true` there is nothing to do.
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute, and a `timeoutMs` that is no positive
 *   number,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command fails,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when it ran for longer than `timeoutMs`. It is then stopped in the sandbox
 *   as well, at the latest about a second later, where the image has the usual `timeout` command; and when another
 *   call took longer than `deadlineMs`,
 * - `ERR_SANDBOX_TRANSFER_INCOMPLETE` when other than all bytes of a file arrived,
 * - `ERR_SANDBOX_DOWNLOAD_TOO_LARGE` for a file beyond `maxDownloadBytes`,
 * - the reason of a `signal` that aborted,
 * - the SDK's own errors otherwise.
 *
 * A temporary failure (by its status, or what the SDK calls `retryable`) is retried up to five times, part by part.
 *
 * `listFiles` is wrong for names that contain a line break: the SDK lists them wrongly.
 *
 * @throws `ERR_INVALID_ARG_VALUE` for a `sleepAfter` or `chunkBytes` that cannot be used.
 */
export function createCloudflareClient(
  sandbox: CloudflareSandbox,
  options?: CloudflareClientOptions,
): SandboxManagedRuntimeClient;

/** Options of {@link createCloudflareBridgeClient}. */
export interface CloudflareBridgeOptions extends TransferLimits {
  /** The address of the bridge Worker, such as `"https://sandbox-bridge.example.workers.dev"`. */
  url: string;
  /** The Worker's `SANDBOX_API_KEY`. Without one, as in local development, it asks for none. */
  token?: string;
  /** The sandbox's id, as the bridge's `POST /v1/sandbox` answered it. */
  sandboxId: string;
  /** The prefix of the bridge's routes. Default: `"/v1"`. */
  apiPrefix?: string;
  /** The directory to which the bridge restricts files. Default: `"/workspace"`. */
  workspace?: string;
  /**
   * The largest number of bytes that one request carries; larger files travel in parts. At most 33,554,432 (32 MiB, the bridge's
   * own limit). Default: 4,194,304 (4 MiB).
   */
  partBytes?: number;
  /** How many parts of a file travel at once, 1 to 16. Default: 4. */
  concurrency?: number;
}

/**
 * A client over a sandbox of Cloudflare for hosts outside of Cloudflare: it speaks to the bridge Worker of the
 * `@cloudflare/sandbox` package over HTTP. All remote paths must lie in the bridge's directory (`/workspace`), so
 * `remoteCwd` must as well.
 *
 * It is made from the bridge's documentation and source (version 0.12.10) and tested against a server on loopback
 * that answers as these say, not against a deployed Worker.
 *
 * Files travel in parts, up to four at once. Each is retried after a temporary failure (408, 425, 429, 500, 502, 503 and
 * 504 with their `Retry-After`, a connection that broke), up to five times, with growing pauses. A file appears in
 * its place only once all of its parts are there; what a failure or an abort leaves of it is removed.
 *
 * How long the sandbox lives without a request is up to the Worker (`sleepAfter`).
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute or not in `workspace`, and a `timeoutMs` that is
 *   no positive number,
 * - `ERR_SANDBOX_REQUEST_FAILED` (with `status`) when the bridge refuses a request,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command fails,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when a command was stopped, with everything it had started, after `timeoutMs`, or
 *   another call after `deadlineMs`,
 * - `ERR_SANDBOX_CONNECTION_LOST` when a connection broke or could not be made, also at further attempts,
 * - `ERR_SANDBOX_TRANSFER_INCOMPLETE` when other than all bytes of a file arrived,
 * - `ERR_SANDBOX_DOWNLOAD_TOO_LARGE` for a file beyond `maxDownloadBytes`,
 * - the reason of a `signal` that aborted.
 *
 * @throws `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` for an option that cannot be used.
 */
export function createCloudflareBridgeClient(options: CloudflareBridgeOptions): SandboxManagedRuntimeClient;
