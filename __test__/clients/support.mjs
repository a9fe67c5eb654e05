// What the suites of the clients share.

import { mkdtemp, readFile, realpath, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { onTestFinished, vi } from "vitest";
import { checkSandboxClient } from "../../clients/conformance.js";

/** For a test that runs all checks of conformance: hundreds of processes, and pauses of eight seconds. */
export const SLOW = { timeout: 300_000 };

/** How fast the clients try again. This is the module as they load it themselves. */
export const { pace } = createRequire(import.meta.url)("../../clients/attempts.js");

/** Lets the clients of a suite try again nearly at once. */
export function withQuickRetries() {
  pace.firstPauseMs = 20;
}

/**
 * A new folder that is removed when the test has ended. A test that runs beside others hands in its own
 * `onTestFinished`.
 */
export async function temporaryFolder(atEnd = onTestFinished) {
  const folder = await realpath(await mkdtemp(path.join(os.tmpdir(), "client-test-")));
  atEnd(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * Timers that fire when told to, as a client's `timers` option takes them.
 *
 * @returns {import("../../clients/timers.js").RefreshTimers & {
 *   intervals: number[],
 *   running: () => number,
 *   held: () => number,
 *   fire: () => void,
 * }}
 */
export function manualTimers() {
  const running = new Map();
  const intervals = [];
  let held = 0;
  return {
    setInterval(callback, intervalMs) {
      intervals.push(intervalMs);
      held += 1;
      const handle = { unref: () => void (held -= 1) };
      running.set(handle, callback);
      return handle;
    },
    clearInterval: (handle) => void running.delete(handle),
    /** The interval of each timer that was ever set, in milliseconds. */
    intervals,
    /** How many are set now. */
    running: () => running.size,
    /** How many of those ever set would keep the process alive. */
    held: () => held,
    /** Lets the interval of each timer pass once. */
    fire() {
      for (const callback of running.values()) callback();
    },
  };
}

/** Lets time limits pass only when the test advances the time, until it has ended. */
export function withManualTime() {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
}

/** A promise, and the functions that settle it. */
export function deferred() {
  let resolve, reject;
  const promise = new Promise((...settle) => ([resolve, reject] = settle));
  return { promise, resolve, reject };
}

// Kept from before a test replaces it.
const { setTimeout } = globalThis;

/** Waits until `condition` holds. It is the suite's own limit that ends a wait in vain. */
export async function until(condition) {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** The process ids in `file`, one a line, once there are as many as `count`. */
export async function processIds(file, count = 1) {
  let ids = [];
  await until(async () => {
    const text = await readFile(file, "utf8").catch((error) => {
      if (error.code === "ENOENT") return "";
      throw error;
    });
    ids = text.split("\n").slice(0, -1);
    return ids.length >= count;
  });
  return ids;
}

/** Whether the process still runs. One that has ended but was not collected yet does not. */
export async function isRunning(pid) {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "latin1");
    return !/\) [ZX] /.test(stat);
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes(error.code)) return false;
    throw error;
  }
}

/** Runs all checks, which may take as long as a test, and hands back what they found with what they printed. */
export async function conformance(client, options) {
  const printed = [];
  const log = (text) => printed.push(text);
  const result = await checkSandboxClient(client, { limitMs: SLOW.timeout, ...options, log });
  return { ...result, printed: printed.join("\n") };
}

/** Content in which no two parts are alike. */
export function distinct(length) {
  const words = Uint32Array.from(
    { length: Math.ceil(length / 4) },
    (_, index) => (index + 1) * 2_654_435_761,
  );
  return words.buffer.slice(0, length);
}

/**
 * A signal that aborts at the first progress of a transfer, the listener that makes it, and the reason.
 */
export function abortedByProgress() {
  const controller = new AbortController();
  const reason = new Error("no longer wanted");
  const onProgress = () => controller.abort(reason);
  return { reason, options: { signal: controller.signal, onProgress } };
}
