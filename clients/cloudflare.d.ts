import type { SandboxManagedRuntimeClient } from "../index.js";
import type { RefreshTimers } from "./timers.js";

/** What {@link createCloudflareClient} uses of a sandbox of the `@cloudflare/sandbox` package. */
export interface CloudflareSandbox {
  exec(
    command: string,
    options?: { timeout?: number },
  ): Promise<{ exitCode: number; stdout: string; stderr: string }>;
  writeFile(path: string, content: string, options?: { encoding?: string }): Promise<unknown>;
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
}

/** When a Cloudflare sandbox goes to sleep. */
export interface CloudflareSleepOptions {
  /** How long after the last activity: seconds, or a text like `"30s"`, `"5m"` or `"1h"`. Default: `"1h"`. */
  sleepAfter?: string | number;
  /** Never. The sandbox must then be destroyed by hand. Default: false. */
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
export interface CloudflareClientOptions extends CloudflareSleepOptions {
  /**
   * The most bytes to send or fetch in one call; larger files travel in parts. Every call carries them as
   * base64, which is a third longer, and must stay below the 32 MiB that Cloudflare allows. Default:
   * 4,194,304 (4 MiB).
   */
  chunkBytes?: number;
  /** For tests. Default: `globalThis`. */
  timers?: RefreshTimers;
}

/**
 * A client over a sandbox of Cloudflare.
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
 *   as well, about a second later, where the image has the usual `timeout` command,
 * - `ERR_SANDBOX_TRANSFER_INCOMPLETE` when other than all bytes of a file arrived,
 * - the SDK's own errors otherwise.
 *
 * `listFiles` cannot tell names with a line break in them: the SDK cannot.
 *
 * @throws `ERR_INVALID_ARG_VALUE` for a `sleepAfter` or `chunkBytes` that cannot be used.
 */
export function createCloudflareClient(
  sandbox: CloudflareSandbox,
  options?: CloudflareClientOptions,
): SandboxManagedRuntimeClient;
