// Reading a spec: the same as the npm release's functions, value by value.

import * as release from "@paperclipai/adapter-utils/sandbox-managed-runtime";
import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import * as addon from "../index.js";

const complete = {
  transport: "sandbox",
  provider: "e2b",
  sandboxId: "sandbox-1",
  remoteCwd: "/home/user/workspace",
  timeoutMs: 30_000,
  apiKey: "secret",
};

/** Characters that `trim` treats as space, and others. */
const SPACES = [
  "\t",
  "\n",
  "\v",
  "\f",
  "\r",
  " ",
  "\u00a0",
  "\u1680",
  "\u2000",
  "\u2028",
  "\u2029",
  "\u202f",
];
const NO_SPACES = ["\0", "\u0085", "\u180e", "\u200b", "\u2060"];
const AROUND = [...SPACES, "\u205f", "\u3000", "\ufeff", ...NO_SPACES, "\udc80", "\ud83d", "é", "😀"];

const TEXTS = [
  ...AROUND.flatMap((space) => [space, `${space}sandbox${space}`, `sandbox${space}`, `a${space}b`]),
  "",
  "sandbox",
  "Sandbox",
  "ssh",
  "/",
  "x".repeat(10_000),
];

const OTHERS = [
  undefined,
  null,
  true,
  false,
  0,
  -0,
  7,
  NaN,
  10n,
  Symbol("sandbox"),
  [],
  ["sandbox"],
  {},
  new String("sandbox"),
  Object.assign(() => "sandbox", { toString: () => "sandbox" }),
  { toString: () => "sandbox", valueOf: () => 5 },
  new Date(5),
];

const NUMBERS = [
  ...[0, -0, 1, -1, 0.5, 1e-300, 1e21, Number.MAX_VALUE, Infinity, -Infinity, NaN, Number.MIN_VALUE],
  ...[
    "",
    " ",
    "5",
    " 5 ",
    "5.",
    ".5",
    "+5",
    "-5",
    "5e3",
    "5e400",
    "1_000",
    "1,000",
    "5ms",
    "0x10",
    "0b11",
    "0o17",
  ],
  ...[
    "Infinity",
    "infinity",
    "-Infinity",
    "NaN",
    "0",
    "-0",
    "\ufeff5",
    "\u180e5",
    "٥",
    "5\0",
    "00012",
    "1e-400",
  ],
  ...[[], [5], ["5"], [1, 2], [[7]], { valueOf: () => 5 }, { valueOf: () => "6" }, { toString: () => "7" }],
  ...[new Number(5), new String("5"), new Date(5), { [Symbol.toPrimitive]: () => 8 }],
];

/** The outcome of a call: its value, or the type and message of what it throws. */
function outcome(call) {
  try {
    return { value: call() };
  } catch (error) {
    return { threw: error.constructor.name, message: error.message };
  }
}

const shown = (value) => inspect(value).slice(0, 60);

describe("parseSandboxRemoteExecutionSpec", () => {
  const same = (value) => {
    const ours = outcome(() => addon.parseSandboxRemoteExecutionSpec(value));
    expect(ours, shown(value)).toStrictEqual(outcome(() => release.parseSandboxRemoteExecutionSpec(value)));
    return ours.value;
  };

  it("returns a complete spec with exactly its fields, in order", () => {
    const parsed = same({ ...complete, more: 1 });
    expect(parsed).toStrictEqual(complete);
    expect(Object.keys(parsed)).toStrictEqual(Object.keys(complete));
  });

  it.each(["transport", "provider", "sandboxId", "remoteCwd", "apiKey"])(
    "reads %s as the release does",
    (field) => {
      for (const value of [...TEXTS, ...OTHERS]) same({ ...complete, [field]: value });
      const { [field]: _, ...without } = complete;
      same(without);
    },
  );

  it("reads timeoutMs as the release does", () => {
    const accepted = [...NUMBERS, ...OTHERS, ...TEXTS].filter((value) =>
      same({ ...complete, timeoutMs: value }),
    );
    // The table reaches both outcomes.
    expect(accepted).toContain("0x10");
    expect(accepted).not.toContain("5ms");
  });

  it("accepts any value, as the release does", () => {
    const inherited = Object.create(complete);
    const hidden = Object.defineProperty({ ...complete }, "provider", { enumerable: false });
    const array = Object.assign([], complete);
    const callable = Object.assign(() => {}, complete);
    const proxied = new Proxy(complete, {});
    for (const value of [...OTHERS, ...TEXTS, inherited, hidden, array, callable, proxied]) same(value);
    expect(same(inherited)).toStrictEqual(complete);
    expect(same(array)).toBeNull();
  });

  it("passes on what a getter throws, as the release does", () => {
    const boom = new Error("boom");
    const value = {
      get transport() {
        throw boom;
      },
    };
    expect(() => addon.parseSandboxRemoteExecutionSpec(value)).toThrow(boom);
    expect(() => release.parseSandboxRemoteExecutionSpec(value)).toThrow(boom);
  });
});

describe("buildSandboxExecutionSessionIdentity", () => {
  it("identifies a session, without its key and timeout, as the release does", () => {
    for (const value of [
      complete,
      null,
      undefined,
      "",
      0,
      {},
      { provider: 5 },
      "text",
      Object.create(complete),
    ]) {
      const ours = outcome(() => addon.buildSandboxExecutionSessionIdentity(value));
      expect(ours, shown(value)).toStrictEqual(
        outcome(() => release.buildSandboxExecutionSessionIdentity(value)),
      );
    }
    const identity = addon.buildSandboxExecutionSessionIdentity(complete);
    expect(Object.keys(identity)).toStrictEqual(["transport", "provider", "sandboxId", "remoteCwd"]);
  });
});

describe("sandboxExecutionSessionMatches", () => {
  it("compares every field, exactly, as the release does", () => {
    const identity = addon.buildSandboxExecutionSessionIdentity(complete);
    const savings = [
      identity,
      complete,
      Object.create(identity),
      ...OTHERS,
      JSON.stringify(identity),
      [identity],
    ];
    for (const field of Object.keys(identity)) {
      for (const value of [...TEXTS, ...OTHERS, ` ${identity[field]}`])
        savings.push({ ...identity, [field]: value });
      const { [field]: _, ...without } = identity;
      savings.push(without);
    }
    const odd = { ...complete, provider: 5, sandboxId: undefined };
    const results = [];
    for (const current of [complete, null, undefined, odd, { ...complete, provider: "" }]) {
      for (const saved of savings) {
        const ours = outcome(() => addon.sandboxExecutionSessionMatches(saved, current));
        const theirs = outcome(() => release.sandboxExecutionSessionMatches(saved, current));
        expect(ours, `${shown(saved)} and ${shown(current)}`).toStrictEqual(theirs);
        results.push(ours.value);
      }
    }
    expect(new Set(results)).toStrictEqual(new Set([true, false]));
  });
});
