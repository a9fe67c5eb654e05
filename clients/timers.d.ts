/**
 * What refreshes a sandbox at intervals. Replaceable so that a test can decide when time passes.
 *
 * `globalThis` is one.
 */
export interface RefreshTimers {
  /** Calls `callback` every `intervalMs` milliseconds. If the handle has an `unref`, it is called. */
  setInterval(callback: () => void, intervalMs: number): unknown;
  /** Ends what `setInterval` returned `handle` for. */
  clearInterval(handle: unknown): void;
}
