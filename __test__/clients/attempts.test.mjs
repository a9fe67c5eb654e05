// What is tried again, how soon, and when a call is given up.

import { describe, expect, it, onTestFinished } from "vitest";
import attempts from "../../clients/attempts.js";
import { deferred } from "./support.mjs";

const { atMost, attempted, ATTEMPTS, bestEffort, hasNotBegun, isTemporary, neverSilent, pace } = attempts;
const { pauseAfter, retried, retryAfterMs } = attempts;

const failure = (fields) => Object.assign(new Error(fields.message ?? "failed"), fields);
const named = (name) => failure({ name });
const causedBy = (cause) => new TypeError("fetch failed", { cause });

describe("whether an error is temporary", () => {
  it.each([
    ["a 429", failure({ status: 429 }), true, true],
    ["a 503", failure({ statusCode: 503 }), true, true],
    ["a 500", failure({ status: 500 }), true, false],
    ["a 502", failure({ status: 502 }), true, false],
    ["a 404", failure({ status: 404 }), false, false],
    ["a 413", failure({ status: 413 }), false, false],
    ["a full disk", failure({ status: 507 }), false, false],
    ["a rate limit of E2B's", named("RateLimitError"), true, true],
    ["a busy service of E2B's", named("ServiceBusyError"), true, true],
    ["a status in E2B's message", failure({ message: "500: oops" }), true, false],
    ["a number in a message", failure({ message: "12: oops" }), false, false],
    ["an unavailable call of E2B's", failure({ message: "[unavailable] later" }), true, false],
    ["a reset", failure({ code: "ECONNRESET" }), true, false],
    ["a reset below fetch", causedBy(failure({ code: "UND_ERR_SOCKET" })), true, false],
    ["a refused connection", causedBy(failure({ code: "ECONNREFUSED" })), true, true],
    ["a missing file", failure({ code: "ENOENT" }), false, false],
    ["an error that says so itself", failure({ retryable: true }), true, true],
    ["what says that it stays", failure({ retryable: false, status: 503 }), false, false],
    ["a lost connection", failure({ code: "ERR_SANDBOX_CONNECTION_LOST", retryable: true }), true, false],
    ["a text", "ECONNRESET", false, false],
    ["nothing", undefined, false, false],
  ])("is known of %s", (_, error, temporary, notBegun) => {
    expect(isTemporary(error)).toBe(temporary);
    expect(hasNotBegun(error)).toBe(notBegun);
  });

  it("ends with a chain of causes that is a circle", () => {
    const error = failure({});
    error.cause = error;
    expect(isTemporary(error)).toBe(false);
  });
});

describe("how long to wait before the next attempt", () => {
  it("grows with the failures, with half of it at random, up to a limit", () => {
    const waits = (random) => [1, 2, 3].map((failures) => pauseAfter(failures, undefined, () => random));
    expect(waits(1)).toEqual([pace.firstPauseMs, pace.firstPauseMs * 2, pace.firstPauseMs * 4]);
    expect(waits(0)).toEqual(waits(1).map((wait) => wait / 2));
    expect(pauseAfter(ATTEMPTS - 1, undefined, () => 1)).toBeLessThanOrEqual(10_000);
    expect(pauseAfter(ATTEMPTS, undefined)).toBeUndefined();
  });

  it("is at least what the server asks for, and not more than five minutes", () => {
    for (const headers of [new Headers({ "retry-after": "7" }), { "retry-after": "7" }]) {
      expect(pauseAfter(1, failure({ headers }), () => 0)).toBe(7_000 + pace.firstPauseMs / 2);
    }
    expect(pauseAfter(1, causedBy(failure({ retryAfterMs: 50 })), () => 0)).toBe(50 + pace.firstPauseMs / 2);
    expect(pauseAfter(1, failure({ retryAfterMs: 300_001 }))).toBeUndefined();
  });

  it.each([
    ["0", 0],
    [" 12 ", 12_000],
    ["Thu, 01 Jan 1970 00:00:10 GMT", 9_000],
    ["Thu, 01 Jan 1970 00:00:00 GMT", 0],
    ["soon", undefined],
    ["", undefined],
    [null, undefined],
  ])("is read from a Retry-After of %j", (header, expected) => {
    expect(retryAfterMs(header, 1_000)).toBe(expected);
  });
});

describe("a call", () => {
  const options = { call: "test", deadlineMs: 60_000 };

  it("rejects with the caller's reason, whatever its work makes of the abort", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const call = attempted({ ...options, signal: controller.signal }, async (signal) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw new Error("of the SDK");
    });
    controller.abort(reason);
    await expect(call).rejects.toBe(reason);
  });

  it("does not begin where the caller has aborted before", async () => {
    let begun = false;
    const signal = AbortSignal.abort("too late");
    await expect(attempted({ ...options, signal }, async () => (begun = true))).rejects.toBe("too late");
    expect(begun).toBe(false);
  });

  it("says that it may be made again once its own attempts have ended, and not of what stays", async () => {
    const { firstPauseMs } = pace;
    onTestFinished(() => void (pace.firstPauseMs = firstPauseMs));
    pace.firstPauseMs = 1;
    let attempts = 0;
    const fail = (error) => () => {
      attempts += 1;
      return Promise.reject(error);
    };
    const passing = failure({ status: 503 });
    // A part that was tried to the end is not tried to the end again for each attempt of the whole.
    const nested = (signal) => retried(signal, fail(passing));
    await expect(attempted(options, nested)).rejects.toBe(passing);
    expect(passing.retryable).toBe(true);
    expect(attempts).toBe(ATTEMPTS);
    const staying = failure({ status: 404 });
    await expect(attempted(options, fail(staying))).rejects.toBe(staying);
    expect(staying).not.toHaveProperty("retryable");
    const frozen = Object.freeze(failure({ status: 503 }));
    await expect(attempted(options, fail(frozen))).rejects.toBe(frozen);
    await expect(attempted(options, fail("text"))).rejects.toBe("text");
  });

  it("does not say so of a command that may have begun", async () => {
    const { signal } = new AbortController();
    const lost = failure({ code: "ERR_SANDBOX_CONNECTION_LOST", retryable: true });
    await expect(retried(signal, () => Promise.reject(lost), hasNotBegun)).rejects.toBe(lost);
    expect(lost.retryable).toBe(false);
  });

  it("does not wait between attempts once the caller aborts", async () => {
    const controller = new AbortController();
    const call = attempted({ ...options, signal: controller.signal }, async () => {
      queueMicrotask(() => controller.abort("enough"));
      throw failure({ status: 429, retryAfterMs: 299_000 });
    });
    await expect(call).rejects.toBe("enough");
  });

  it("counts as lost when nothing moves", async () => {
    const before = pace.silenceMs;
    onTestFinished(() => void (pace.silenceMs = before));
    pace.silenceMs = 50;
    const silent = neverSilent(new AbortController().signal, "test", async (signal, moved) => {
      moved();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw new Error("of the SDK");
    });
    await expect(silent).rejects.toMatchObject({ code: "ERR_SANDBOX_CONNECTION_LOST", retryable: true });
  });
});

it("runs at most the given number of works at once, in order, also after one fails", async () => {
  const limit = atMost(2);
  const works = Array.from({ length: 5 }, deferred);
  const begun = [];
  const ended = works.map((work, index) =>
    limit(() => {
      begun.push(index);
      return work.promise;
    }),
  );
  const settled = Promise.allSettled(ended);
  expect(begun).toEqual([0, 1]);
  works[1].reject(new Error("failed"));
  await expect(ended[1]).rejects.toThrow("failed");
  works[0].resolve();
  await ended[0];
  await Promise.resolve();
  expect(begun).toEqual([0, 1, 2, 3]);
  for (const work of works) work.resolve();
  expect((await settled).map(({ status }) => status)).toEqual([
    "fulfilled",
    "rejected",
    "fulfilled",
    "fulfilled",
    "fulfilled",
  ]);
});

it("cleaning up neither fails nor delays a call for long", async () => {
  await bestEffort(() => Promise.reject(new Error("gone")));
  await bestEffort(() => new Promise(() => {}), 20);
});
