// A sandbox's limited life, on a clock that moves only when a test moves it.

import { setImmediate as turn } from "node:timers/promises";
import { onTestFinished, vi } from "vitest";

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;

/** How far the clock moves at once. Whatever is due in between happens in its order. */
const STEP = 10 * SECOND;

/** Has time stand still until the test ends, but for what a {@link Lifetime} lets pass. */
export function stopClock() {
  // The time limits of commands go on by the real clock: they concern processes, which do as well.
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "Date"] });
  onTestFinished(() => void vi.useRealTimers());
}

/** A life that ends unless it is extended in time. */
export class Lifetime {
  #duration;
  #end;
  #extensions = new Set();
  /** What calls of the dead sandbox were answered with, in order. */
  failures = [];

  /** @param {number} duration From now on, and from each extension on. */
  constructor(duration) {
    this.#duration = duration;
    this.#end = Date.now() + duration;
  }

  extend() {
    this.mustLast();
    this.#end = Date.now() + this.#duration;
  }

  mustLast() {
    if (Date.now() < this.#end) return;
    const failure = new Error("sandbox not found: its life has ended");
    this.failures.push(failure);
    throw failure;
  }

  /** Has the clock wait for an extension that takes real time, over a network, say. */
  awaiting(extension) {
    this.#extensions.add(extension);
    const done = () => void this.#extensions.delete(extension);
    extension.then(done, done);
    return extension;
  }

  /** Lets time pass, whether the sandbox lives or not. */
  async elapse(duration, afterStep = () => {}) {
    for (let left = duration; left > 0; left -= STEP) {
      await vi.advanceTimersByTimeAsync(Math.min(STEP, left));
      while (this.#extensions.size > 0) await turn();
      afterStep();
    }
  }

  /** Lets time pass, as a call of the sandbox does, which fails once the sandbox has died. */
  async pass(duration) {
    this.mustLast();
    await this.elapse(duration, () => this.mustLast());
  }
}
