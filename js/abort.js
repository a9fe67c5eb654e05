"use strict";

/**
 * A caller's signal during one run. However much of the run waits, the signal has one listener at most, and none once
 * nothing waits.
 */
class Abort {
  /** The caller's own; `undefined` where there is none, and nothing ever aborts. */
  signal;
  /** @type {Set<() => void>} */
  #waiting = new Set();

  /** @param {AbortSignal} [signal] */
  constructor(signal) {
    this.signal = signal;
  }

  throwIfAborted() {
    if (this.signal?.aborted) throw this.signal.reason;
  }

  /**
   * Settles as `call` does, or rejects with the signal's reason at once when that is sooner, after `onAbort`.
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
    return new Promise((resolve, reject) => {
      const abort = () => {
        onAbort?.();
        reject(signal.reason);
      };
      if (this.#waiting.size === 0) signal.addEventListener("abort", this.#abort, { once: true });
      this.#waiting.add(abort);
      call()
        .then(resolve, reject)
        .finally(() => {
          this.#waiting.delete(abort);
          if (this.#waiting.size === 0) signal.removeEventListener("abort", this.#abort);
        });
    });
  }

  #abort = () => {
    for (const abort of this.#waiting) abort();
  };
}

module.exports = { Abort };
