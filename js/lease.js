"use strict";

/** @import { SandboxLease } from "../index.js" */

const DEFAULT_INTERVAL_MS = 60_000;

/**
 * Refreshes a sandbox's lifetime, on a best-effort basis: no refresh delays or fails a call, and no second one starts while
 * one is running. Its timers never keep the process alive.
 */
class LeaseKeeper {
  #lease;
  #intervalMs;
  /** When the refresh that is under way began. @type {number | undefined} */
  #begun;
  #calls = 0;
  /** @type {(() => void) | undefined} */
  #stopTicking;
  /** @type {(() => void) | undefined} */
  #stopBetween;
  failed = 0;

  /** @param {SandboxLease} [lease] */
  constructor(lease) {
    this.#lease = lease;
    this.#intervalMs = lease?.intervalMs ?? DEFAULT_INTERVAL_MS;
  }

  /** How many refreshes failed or hang. One that has just begun does not count. */
  get failedOrHanging() {
    const hangs = this.#begun !== undefined && Date.now() - this.#begun >= this.#intervalMs;
    return this.failed + (hangs ? 1 : 0);
  }

  refresh() {
    const lease = this.#lease;
    if (!lease || this.#begun !== undefined) return;
    this.#begun = Date.now();
    // Started before the call that it is for. One that throws at once counts as failed.
    new Promise((resolve) => resolve(lease.refresh()))
      .catch(() => this.failed++)
      .finally(() => (this.#begun = undefined));
  }

  /**
   * Refreshes before a call and, until it settles, at every interval.
   *
   * @template T
   * @param {() => Promise<T>} call
   */
  async during(call) {
    if (!this.#lease) return call();
    this.refresh();
    if (this.#calls++ === 0) this.#stopTicking = every(this.#intervalMs, () => this.refresh());
    try {
      return await call();
    } finally {
      if (--this.#calls === 0) this.#stopTicking?.();
    }
  }

  /**
   * Refreshes between prepare and restore, if the caller asked for it, until {@link stop} or until `restore` is garbage-collected.
   *
   * @param {object} restore
   */
  keepBetween(restore) {
    if (!this.#lease?.keepAliveBetween) return;
    const held = new WeakRef(restore);
    const stop = every(this.#intervalMs, () => {
      if (held.deref()) this.refresh();
      else stop();
    });
    this.#stopBetween = stop;
  }

  stop() {
    this.#stopBetween?.();
  }
}

/**
 * Calls a function at intervals, until the returned function is called. It uses the timers that exist when it begins, also at
 * its end, because a test may replace them by fake ones meanwhile.
 *
 * @param {number} intervalMs
 * @param {() => void} tick
 */
function every(intervalMs, tick) {
  const { setInterval, clearInterval } = globalThis;
  const timer = setInterval(tick, intervalMs);
  timer.unref?.();
  return () => clearInterval(timer);
}

module.exports = { LeaseKeeper };
