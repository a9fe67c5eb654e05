// @ts-check
"use strict";

/**
 * Keeping a sandbox alive while it is in use.
 *
 * @internal
 */

/** The longest wait between two refreshes, in milliseconds. */
const LONGEST_INTERVAL_MS = 60_000;

/**
 * How often to refresh a lifetime of `lifetimeMs`: four times within it, so that three refreshes may fail in
 * a row, and at least once a minute.
 *
 * @param {number} lifetimeMs
 */
function refreshInterval(lifetimeMs) {
  return Math.min(lifetimeMs / 4, LONGEST_INTERVAL_MS);
}

/**
 * A function that runs `work` and calls `refresh` as it starts and then every `intervalMs` until it ends.
 *
 * Refreshing is best effort: a refresh that fails or hangs neither fails nor delays the work, and no second
 * one starts while one is under way. Works that overlap share one timer, which never keeps the process alive
 * by itself.
 *
 * @param {{
 *   refresh: () => unknown,
 *   intervalMs: number,
 *   timers?: import("./timers.js").RefreshTimers,
 * }} options
 * @returns {<T>(work: () => Promise<T>) => Promise<T>}
 */
function keptAlive({ refresh, intervalMs, timers = globalThis }) {
  let underWay = false;
  let works = 0;
  /** @type {unknown} */
  let timer;

  async function refreshOnce() {
    if (underWay) return;
    underWay = true;
    try {
      await refresh();
    } catch {
      // The sandbox may well outlive the work without it. If it does not, the work itself fails and says so.
    } finally {
      underWay = false;
    }
  }

  return async (work) => {
    void refreshOnce();
    works += 1;
    if (works === 1) {
      timer = timers.setInterval(() => void refreshOnce(), intervalMs);
      /** @type {{ unref?: () => void }} */ (timer).unref?.();
    }
    try {
      return await work();
    } finally {
      works -= 1;
      if (works === 0) timers.clearInterval(timer);
    }
  };
}

module.exports = { keptAlive, refreshInterval };
