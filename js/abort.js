"use strict";

/** What waits for one signal. The signal has one listener while anything waits, and otherwise none. */
class Hub {
  #signal;
  /** @type {Set<() => void>} */
  #waiting = new Set();

  /** @param {AbortSignal} signal */
  constructor(signal) {
    this.#signal = signal;
  }

  /** @param {() => void} abort */
  add(abort) {
    if (this.#waiting.size === 0) this.#signal.addEventListener("abort", this.#abort, { once: true });
    this.#waiting.add(abort);
  }

  /** @param {() => void} abort */
  delete(abort) {
    this.#waiting.delete(abort);
    if (this.#waiting.size === 0) this.#signal.removeEventListener("abort", this.#abort);
  }

  #abort = () => {
    for (const abort of this.#waiting) abort();
  };
}

/**
 * The hub of each signal, shared by all runs that were given it: Node.js warns of more than ten listeners of one signal.
 *
 * @type {WeakMap<AbortSignal, Hub>}
 */
const hubs = new WeakMap();

/** @param {AbortSignal} signal */
function hubOf(signal) {
  let hub = hubs.get(signal);
  if (!hub) hubs.set(signal, (hub = new Hub(signal)));
  return hub;
}

/**
 * A caller's signal during one run. However many runs have the same signal and however much of them waits, the signal has
 * one listener at most, and none once nothing waits.
 */
class Abort {
  /** The caller's signal; `undefined` if there is none. */
  signal;

  /** @param {AbortSignal} [signal] */
  constructor(signal) {
    this.signal = signal;
  }

  throwIfAborted() {
    if (this.signal?.aborted) throw this.signal.reason;
  }

  /**
   * Settles like `call`, or, if the signal aborts first, calls `onAbort` and rejects with its reason at once.
   *
   * @template T
   * @param {() => Promise<T>} call
   * @param {() => void} [onAbort]
   * @returns {Promise<T>}
   */
  async until(call, onAbort) {
    const { signal } = this;
    if (!signal) return call();
    this.throwIfAborted();
    const hub = hubOf(signal);
    return new Promise((resolve, reject) => {
      const abort = () => {
        onAbort?.();
        reject(signal.reason);
      };
      hub.add(abort);
      call()
        .then(resolve, reject)
        .finally(() => hub.delete(abort));
    });
  }
}

module.exports = { Abort };
