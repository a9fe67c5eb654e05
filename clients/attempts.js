// @ts-check
"use strict";

/**
 * How long a call may take, and when it is retried.
 *
 * @internal
 */

const { setTimeout: pause } = require("../js/node.js").timersPromises;

const { callTimedOut, connectionLost } = require("./errors.js");

/** How many attempts a call has, the first one included. */
const ATTEMPTS = 6;

/** The pauses and time limits, in milliseconds. Only tests change them. */
const pace = {
  /** The longest pause before the second attempt. It doubles with each further one. */
  firstPauseMs: 500,
  /** How long a transfer may make no progress before it counts as lost. */
  silenceMs: 60_000,
  /** How long an aborted attempt may take to clean up. */
  graceMs: 5_000,
  /** How often a running command prints something, so that its connection is not closed as idle. */
  heartbeatMs: 30_000,
};

/** The longest pause that this module chooses by itself, in milliseconds. */
const LONGEST_PAUSE_MS = 10_000;

/** The longest pause that a server may ask for, in milliseconds. Asked for more, the call fails. */
const LONGEST_REQUESTED_PAUSE_MS = 300_000;

/** The most errors in a chain of causes that are looked at. */
const LONGEST_CHAIN = 8;

/** HTTP statuses after which another attempt may succeed. After 501, 505 and 507 none will. */
const TEMPORARY_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);

/** HTTP statuses by which a server says that it did not begin. */
const NOT_BEGUN_STATUS = new Set([425, 429, 503]);

/** Codes of connections that could not be made. Nothing was sent over them. */
const NOT_CONNECTED = new Set([
  "EAI_AGAIN",
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** Codes of connections that broke. */
const BROKEN = new Set([
  "ECONNABORTED",
  "ECONNRESET",
  "EPIPE",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ETIMEDOUT",
  "UND_ERR_BODY_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_SOCKET",
]);

/**
 * The properties of an error that are looked at. The error may come from any SDK.
 *
 * @typedef {object} AnyError
 * @property {unknown} [name]
 * @property {unknown} [message]
 * @property {unknown} [code]
 * @property {unknown} [status]
 * @property {unknown} [statusCode]
 * @property {unknown} [retryable]
 * @property {unknown} [retryAfterMs]
 * @property {unknown} [headers]
 * @property {unknown} [cause]
 */

/**
 * `error` and what caused it.
 *
 * @param {unknown} error
 * @returns {AnyError[]}
 */
function chainOf(error) {
  /** @type {AnyError[]} */
  const chain = [];
  for (let next = error; typeof next === "object" && next !== null && chain.length < LONGEST_CHAIN;) {
    chain.push(next);
    next = /** @type {AnyError} */ (next).cause;
  }
  return chain;
}

/**
 * The HTTP status that an SDK's error means. E2B's SDK names some errors by their class, begins the message
 * of others with the status, and tells of calls over the Connect protocol by the codes of that.
 * Daytona's tells of a connection that broke by the class alone.
 *
 * @param {AnyError} error
 */
function statusOf({ name, message, status, statusCode }) {
  for (const given of [status, statusCode]) if (typeof given === "number") return given;
  if (name === "RateLimitError") return 429;
  if (name === "ServiceBusyError") return 503;
  if (/^DaytonaConnection/.test(String(name))) return 504;
  if (/^(\d+: )?\[unavailable\]/.test(String(message))) return 504;
  if (/^(\d+: )?\[unknown\]/.test(String(message))) return 500;
  const [, leading] = /^(\d{3}): /.exec(String(message)) ?? [];
  return leading === undefined ? undefined : Number(leading);
}

/**
 * @param {unknown} error
 * @param {Set<unknown>} statuses
 * @param {Set<unknown>[]} codes
 */
function isOneOf(error, statuses, ...codes) {
  for (const link of chainOf(error)) {
    if (typeof link.retryable === "boolean") return link.retryable;
    const status = statusOf(link);
    if (status !== undefined) return statuses.has(status);
    if (codes.some((set) => set.has(link.code))) return true;
  }
  return false;
}

/**
 * Whether an error is temporary: the same call may succeed when it is made again.
 *
 * @param {unknown} error
 */
function isTemporary(error) {
  return isOneOf(error, TEMPORARY_STATUS, NOT_CONNECTED, BROKEN);
}

/**
 * Whether the call did not begin in the sandbox, so that even a command may be tried again.
 *
 * @param {unknown} error
 */
function hasNotBegun(error) {
  const lost = chainOf(error).some(({ code }) => code === "ERR_SANDBOX_CONNECTION_LOST");
  return !lost && isOneOf(error, NOT_BEGUN_STATUS, NOT_CONNECTED);
}

/**
 * The milliseconds that a `Retry-After` of HTTP asks for: seconds, or a date.
 *
 * @param {unknown} header
 * @param {number} [now] in milliseconds
 */
function retryAfterMs(header, now = Date.now()) {
  if (typeof header !== "string" || header.trim() === "") return undefined;
  if (/^\s*\d+\s*$/.test(header)) return Number(header) * 1000;
  const until = Date.parse(header);
  return Number.isNaN(until) ? undefined : Math.max(0, until - now);
}

/**
 * How long the server asks to wait before the next attempt, in milliseconds, where it does.
 *
 * @param {unknown} error
 * @returns {number}
 */
function requestedPause(error) {
  for (const { retryAfterMs: given, headers } of chainOf(error)) {
    if (typeof given === "number") return given;
    if (typeof headers !== "object" || headers === null) continue;
    const { get, "retry-after": plain } = /** @type {{ get?: unknown, "retry-after"?: unknown }} */ (headers);
    const requested = retryAfterMs(typeof get === "function" ? get.call(headers, "retry-after") : plain);
    if (requested !== undefined) return requested;
  }
  return 0;
}

/**
 * How long to wait after a number of failures, in milliseconds; undefined where another attempt would be in vain.
 *
 * @param {number} failures
 * @param {unknown} error the last one
 * @param {() => number} [random] from 0 to 1. Clients that failed together do not come back together.
 */
function pauseAfter(failures, error, random = Math.random) {
  if (failures >= ATTEMPTS) return undefined;
  const requested = requestedPause(error);
  if (requested > LONGEST_REQUESTED_PAUSE_MS) return undefined;
  const longest = Math.min(pace.firstPauseMs * 2 ** (failures - 1), LONGEST_PAUSE_MS);
  return requested + longest * (0.5 + random() / 2);
}

/** Errors after which all attempts were made. Those of a part are not multiplied by those of the whole. */
const spent = new WeakSet();

/**
 * Has an error say whether the same call may be made again, by `retryable: true`. An error that cannot be changed
 * stays as it is: what the caller gets is what was thrown.
 *
 * @param {unknown} error
 * @param {boolean} retryable
 */
function mark(error, retryable) {
  if (typeof error !== "object" || error === null) return;
  const link = /** @type {AnyError} */ (error);
  if (link.retryable === retryable || (!retryable && link.retryable !== true)) return;
  try {
    link.retryable = retryable;
  } catch {
    // A frozen error, or one whose `retryable` is read-only.
  }
}

/**
 * Makes attempts until one succeeds, fails for good, or `signal` aborts. The error then says by `retryable` whether
 * the caller may make the call again later: where `passes` holds, and never otherwise.
 *
 * @template T
 * @param {AbortSignal} signal
 * @param {() => Promise<T>} attempt
 * @param {(error: unknown) => boolean} [passes] whether an error is worth another attempt
 * @param {boolean} [isWhole] whether these attempts are a call. Those of a part of one leave the error as it is: the whole
 *   may be worth another attempt where the part is not
 * @returns {Promise<T>}
 */
async function retried(signal, attempt, passes = isTemporary, isWhole = true) {
  for (let failures = 1; ; failures += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (signal.aborted) throw error;
      const mayRetry = passes(error);
      const isSpent = typeof error === "object" && error !== null && spent.has(error);
      const wait = mayRetry && !isSpent ? pauseAfter(failures, error) : undefined;
      if (wait === undefined) {
        if (mayRetry || isWhole) mark(error, mayRetry);
        if (mayRetry && !isSpent) spent.add(/** @type {object} */ (error));
        throw error;
      }
      await pause(wait, undefined, { signal });
    }
  }
}

/**
 * Settles as `work` does. Once `signal` aborts, `work` has a little time left to clean up.
 *
 * @template T
 * @param {AbortSignal} signal
 * @param {Promise<T>} work
 * @returns {Promise<T>}
 */
function endedSoonAfterAbort(signal, work) {
  return new Promise((resolve, reject) => {
    /** @type {NodeJS.Timeout | undefined} */
    let grace;
    const limit = () => {
      grace = setTimeout(() => reject(signal.reason), pace.graceMs);
    };
    signal.addEventListener("abort", limit, { once: true });
    work.then(resolve, reject).finally(() => {
      clearTimeout(grace);
      signal.removeEventListener("abort", limit);
    });
  });
}

/**
 * Settles as `work` does, which others wait for as well, or rejects once `signal` aborts.
 *
 * @template T
 * @param {AbortSignal} signal
 * @param {Promise<T> | undefined} work
 * @returns {Promise<T | undefined>}
 */
async function untilAborted(signal, work) {
  signal.throwIfAborted();
  /** @type {() => void} */
  let give = () => {};
  const aborted = new Promise((_, reject) => {
    give = () => reject(signal.reason);
  });
  signal.addEventListener("abort", give, { once: true });
  try {
    return await Promise.race([work, /** @type {Promise<never>} */ (aborted)]);
  } finally {
    signal.removeEventListener("abort", give);
  }
}

/**
 * One call of a client. `work` gets a signal that aborts when the caller's does and when the time is up; what
 * the call then rejects with is the reason, whatever `work` makes of it.
 *
 * @template T
 * @param {{ limitMs: number, signal?: AbortSignal, timedOut: () => Error }} options
 * @param {(signal: AbortSignal) => Promise<T>} work
 * @returns {Promise<T>}
 */
async function limited({ limitMs, signal, timedOut }, work) {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const forward = () => controller.abort(signal?.reason);
  signal?.addEventListener("abort", forward, { once: true });
  const timer = setTimeout(() => controller.abort(timedOut()), limitMs);
  try {
    return await endedSoonAfterAbort(controller.signal, work(controller.signal));
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", forward);
  }
}

/**
 * One call other than a command: within the client's deadline, and retried after a temporary failure.
 *
 * @template T
 * @param {{ call: string, deadlineMs: number, signal?: AbortSignal }} options `call` is what a failure names it
 * @param {(signal: AbortSignal) => Promise<T>} attempt
 * @returns {Promise<T>}
 */
function attempted({ call, deadlineMs, signal }, attempt) {
  const timedOut = () => callTimedOut(call, deadlineMs);
  return limited({ limitMs: deadlineMs, signal, timedOut }, (given) => retried(given, () => attempt(given)));
}

/**
 * A transfer that counts as lost once nothing has moved for a minute. `work` gets a signal, and says by
 * `moved` when something did, and by `stop` why it must end: some SDKs wait on when the source of an upload
 * fails.
 *
 * @template T
 * @param {AbortSignal} signal
 * @param {string} call what a failure names it
 * @param {(signal: AbortSignal, moved: () => void, stop: (reason: unknown) => void) => Promise<T>} work
 * @returns {Promise<T>}
 */
async function neverSilent(signal, call, work) {
  signal.throwIfAborted();
  const { silenceMs } = pace;
  /** @type {{ reason: unknown } | undefined} */
  let stopped;
  const controller = new AbortController();
  const stop = (/** @type {unknown} */ reason) => {
    stopped ??= { reason };
    controller.abort(reason);
  };
  const forward = () => stop(signal.reason);
  signal.addEventListener("abort", forward, { once: true });
  const timer = setTimeout(() => stop(connectionLost(call, `Nothing moved for ${silenceMs} ms.`)), silenceMs);
  try {
    const ended = work(controller.signal, () => void timer.refresh?.(), stop);
    return await endedSoonAfterAbort(controller.signal, ended);
  } catch (error) {
    throw stopped === undefined ? error : stopped.reason;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", forward);
  }
}

/**
 * A semaphore: lets up to `most` works run at once, the others in the order in which they came.
 *
 * @param {number} most
 */
function atMost(most) {
  let running = 0;
  /** @type {(() => void)[]} */
  const waiting = [];

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  return async (work) => {
    if (running < most) running += 1;
    // A work that ends hands its place over, so the number stays as it is.
    else await new Promise((resolve) => waiting.push(() => resolve(undefined)));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running -= 1;
    }
  };
}

/**
 * Waits for a clean-up after a failure, and ignores a failure of the clean-up: the failure before it is the one to
 * report.
 *
 * @param {() => Promise<unknown>} work
 * @param {number} [limitMs]
 */
async function bestEffort(work, limitMs = pace.graceMs) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const limit = new Promise((resolve) => {
    timer = setTimeout(resolve, limitMs);
  });
  await Promise.race([work().catch(() => {}), limit]);
  clearTimeout(timer);
}

/**
 * Runs `work`, whose attempts add to `left` what they may have left in the sandbox and tried to remove, and removes
 * that once more at the end: a request whose connection broke may be taken up only after it was cleaned up.
 *
 * @template T
 * @param {(left: string[]) => Promise<T>} work
 * @param {(left: string[]) => Promise<unknown>} remove
 * @returns {Promise<T>}
 */
async function leavingNothing(work, remove) {
  /** @type {string[]} */
  const left = [];
  try {
    return await work(left);
  } finally {
    if (left.length > 0) await bestEffort(() => remove(left));
  }
}

module.exports = {
  atMost,
  attempted,
  ATTEMPTS,
  bestEffort,
  hasNotBegun,
  isTemporary,
  leavingNothing,
  limited,
  neverSilent,
  pace,
  pauseAfter,
  retried,
  retryAfterMs,
  untilAborted,
};
