// What a process says about itself: memory at its peak, and how long its event loop stood still.

import { readFileSync, writeFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";

/** How often the event loop is looked at, in milliseconds. A stall is known to about that. */
const LOOK_EVERY = 1;

/** Collects what nobody needs any more, so that it counts neither as idle nor as used. */
export function forgetGarbage() {
  if (!globalThis.gc) throw new Error("run node with --expose-gc");
  globalThis.gc();
}

/** Resident memory now, in bytes. */
export function residentBytes() {
  return statusBytes("VmRSS");
}

/** Resident memory at its peak since {@link resetPeak}, in bytes. */
export function peakBytes() {
  return statusBytes("VmHWM");
}

/** Makes the present use of memory the peak so far. */
export function resetPeak() {
  writeFileSync("/proc/self/clear_refs", "5");
}

/** @param {string} field */
function statusBytes(field) {
  const line = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(readFileSync("/proc/self/status", "utf8"));
  if (!line) throw new Error(`this kernel does not tell ${field}`);
  return Number(line[1]) * 1024;
}

/**
 * Measures one run.
 *
 * @param {() => Promise<unknown>} run
 * @returns {Promise<{ ms: number, stallMs: number }>} How long it took, and for how long at most the event loop did
 *   not turn meanwhile.
 */
export async function time(run) {
  const loop = monitorEventLoopDelay({ resolution: LOOK_EVERY });
  loop.enable();
  // It tells the time between two looks, so there must be one before.
  await sleep(20 * LOOK_EVERY);
  loop.reset();
  const start = performance.now();
  await run();
  const ms = performance.now() - start;
  // And one after, should the loop have stood still until the end.
  await sleep(5 * LOOK_EVERY);
  loop.disable();
  return { ms, stallMs: loop.max / 1e6 };
}
