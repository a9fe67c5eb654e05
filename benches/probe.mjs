// Measures this process: the peak of its memory, and the longest stall of its event loop.

import { readFileSync, writeFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";

/** How often the event loop is checked, in milliseconds, which is also the precision of a stall. */
const LOOK_EVERY = 1;

/** Collects garbage, so that it counts neither as idle nor as used. */
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

/** Sets the peak to the present use of memory. */
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
 * @returns {Promise<{ ms: number, stallMs: number }>} How long it took, and the longest stall of the event
 *   loop.
 */
export async function time(run) {
  const loop = monitorEventLoopDelay({ resolution: LOOK_EVERY });
  loop.enable();
  // It measures the time between two checks, so one must come first.
  await sleep(20 * LOOK_EVERY);
  loop.reset();
  const start = performance.now();
  await run();
  const ms = performance.now() - start;
  // And one last, if the loop was blocked until the end.
  await sleep(5 * LOOK_EVERY);
  loop.disable();
  return { ms, stallMs: loop.max / 1e6 };
}
