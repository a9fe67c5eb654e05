// A sandbox's limited life, on a clock that moves only when a test moves it.

import { setImmediate as turn } from "node:timers/promises";
import { onTestFinished, vi } from "vitest";

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;

/** How far the clock moves at once. Timers that are due in between run in order. */
const STEP = 10 * SECOND;

/** Stops time until the test ends, except what a {@link Lifetime} lets pass. */
export function stopClock() {
  // The time limits of commands use the real clock, because processes do.
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "Date"] });
  onTestFinished(() => void vi.useRealTimers());
}

/** A lifetime that ends unless it is extended in time. */
export class Lifetime {
  #duration;
  #end;
  #extensions = new Set();
  /** The answers to calls of the dead sandbox, in order. */
  failures = [];

  /** @param {number} duration Counted from now, and from each extension. */
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

  /** Makes the clock wait for an extension that takes real time, for example over a network. */
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
