// How the binding calls a client: what is kept, what is repeated, and what is reported.

import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { prepareSandboxManagedRuntime } from "../index.js";
import { Abort } from "../js/abort.js";
import { ClientCalls } from "../js/calls.js";
import { LeaseKeeper } from "../js/lease.js";
import { transferProgress } from "../js/progress.js";
import { makeTree, temporaryFolder } from "./support/folders.mjs";
import { MemorySandbox } from "./support/memory.mjs";
import { runScript } from "./support/processes.mjs";
import { specFor } from "./support/spec.mjs";

const PART = { label: "workspace", number: 0, before: 0, size: 8, total: 8 };

const callsOf = (client, signal, listeners = {}) =>
  new ClientCalls({
    client,
    spec: specFor("/remote"),
    lease: new LeaseKeeper(),
    abort: new Abort(signal),
    listeners,
  });

const write = (calls, part = PART) =>
  calls.dispatch({ op: "writeFile", target: "/remote/a.tar", upload: 0, part });
const kept = (calls, { failure }) => calls.failure(new Error(JSON.stringify({ kept: failure.kept })));

describe("what a client throws", () => {
  const throwing = (value) => ({ run: async () => Promise.reject(value) });
  const hostile = {
    get retryable() {
      throw new Error("no");
    },
  };
  const trap = () => {
    throw new Error("no");
  };
  it.each([
    ["an error that says so", Object.assign(new Error("x"), { retryable: true }), true],
    ["an object that says so", { retryable: true }, true],
    ["one that inherits it", Object.create({ retryable: true }), true],
    ["an error that says nothing", new Error("x"), false],
    ["1", { retryable: 1 }, false],
    ["the text true", { retryable: "true" }, false],
    ["false", { retryable: false }, false],
    ["a getter that throws", hostile, false],
    [
      "a proxy that throws at each look",
      new Proxy({}, { get: trap, has: trap, getPrototypeOf: trap }),
      false,
    ],
    ["a text", "retryable", false],
    ["null", null, false],
    ["undefined", undefined, false],
  ])("passes only where it says so, and stays the very same value: %s", async (_, value, retryable) => {
    const calls = callsOf(throwing(value));
    const told = await calls.dispatch({ op: "run", target: "true" });
    expect(told).toStrictEqual({ failure: { kept: 0, retryable } });
    expect(Object.is(kept(calls, told), value)).toBe(true);
  });
});

describe("memory of an upload", () => {
  it("is passed again as the same buffer, until it is released", async () => {
    const seen = [];
    const first = new Error("first");
    const calls = callsOf({
      writeFile: async (_, bytes) => {
        seen.push(bytes);
        if (seen.length === 1) throw first;
      },
    });
    const { memory } = await calls.dispatch({ op: "allocate", upload: 0, size: 8 });
    expect(kept(calls, await write(calls))).toBe(first);
    expect(await write(calls)).toStrictEqual({ took: expect.any(Number) });
    expect(seen).toHaveLength(2);
    expect(seen[0]).toBe(memory.buffer);
    expect(seen[1]).toBe(memory.buffer);
    await calls.dispatch({ op: "release", upload: 0 });
    expect(await write(calls)).toMatchObject({ failure: { retryable: false } });
    expect(seen).toHaveLength(2);
  });

  it("that the client detached gives the earlier failure, and is not passed again", async () => {
    const first = Object.assign(new Error("first"), { retryable: true });
    let count = 0;
    const calls = callsOf({
      writeFile: async (_, bytes) => {
        count++;
        structuredClone(bytes, { transfer: [bytes] });
        throw first;
      },
    });
    await calls.dispatch({ op: "allocate", upload: 0, size: 8 });
    await write(calls);
    expect(kept(calls, await write(calls))).toBe(first);
    expect(count).toBe(1);
  });
});

describe("what removes the rest of a failed transfer", () => {
  const discard = (calls) => calls.dispatch({ op: "discard", target: "/remote/a.tar" });
  const clear = (calls) => calls.dispatch({ op: "clear", target: "rm -f /remote/a.tar" });
  let unhandled;
  const note = (reason) => unhandled.push(reason);
  beforeEach(() => {
    unhandled = [];
    process.on("unhandledRejection", note);
  });
  afterEach(() => void process.off("unhandledRejection", note));

  it("is made even after an abort, without the signal, unlike any other call", async () => {
    const reason = new Error("enough");
    const client = { remove: vi.fn(async () => {}), run: vi.fn(), makeDir: vi.fn() };
    const calls = callsOf(client, AbortSignal.abort(reason));
    expect(await discard(calls)).toStrictEqual({});
    expect(client.remove.mock.calls).toStrictEqual([["/remote/a.tar"]]);
    expect(await clear(calls)).toStrictEqual({});
    expect(client.run.mock.calls).toStrictEqual([
      ["rm -f /remote/a.tar", { timeoutMs: specFor("/remote").timeoutMs }],
    ]);
    for (const op of ["run", "makeDir", "remove"]) {
      expect(kept(calls, await calls.dispatch({ op, target: "/remote/a.tar" }))).toBe(reason);
    }
    expect(client.remove).toHaveBeenCalledTimes(1);
    expect(client.run).toHaveBeenCalledTimes(1);
    expect(client.makeDir).not.toHaveBeenCalled();
  });

  const failing = () => {
    throw new Error("no");
  };
  it.each([
    ["there is no such method", {}],
    ["it is no function", { remove: 5, run: 5 }],
    ["it throws", { remove: failing, run: failing }],
    [
      "it rejects",
      { remove: () => Promise.reject(new Error("no")), run: () => Promise.reject(new Error("no")) },
    ],
    ["looking it up throws", new Proxy({}, { get: failing })],
  ])("ends, and rejects nothing, where %s", async (_, client) => {
    await discard(callsOf(client, AbortSignal.abort()));
    await clear(callsOf(client, AbortSignal.abort()));
    await new Promise(setImmediate);
    expect(unhandled).toStrictEqual([]);
  });
});

describe("a step that takes long", () => {
  const step = (target, label, size, took) => ({
    op: "step",
    target,
    took,
    part: { label, size, total: size },
  });
  const told = async (request, signal) => {
    const [lines, statuses] = [[], []];
    const calls = callsOf({}, signal, {
      onLine: (line) => void lines.push(line),
      onStatus: (status) => void statuses.push(status),
    });
    expect(await calls.dispatch(request)).toStrictEqual({});
    return { lines, statuses };
  };

  it.each([
    ["compare", "config_sync", "Looking for changes of workspace in sandbox"],
    ["pack", "config_sync", "Packing workspace for sandbox"],
    ["extract", "config_sync", "Extracting workspace in sandbox"],
    ["collect", "restore", "Packing workspace in sandbox"],
    ["check", "restore", "Checking workspace from sandbox"],
    ["apply", "restore", "Applying changes of workspace from sandbox"],
  ])(
    "is told as a line and as a status, with its bytes where they are known: %s",
    async (name, phase, text) => {
      for (const [size, amount] of [
        [0, ""],
        [12.04 * 1024 * 1024, " (12.0 MB)"],
      ]) {
        const { lines, statuses } = await told(step(name, "workspace", size, 15_012));
        const message = `${text}${amount}: 15 s so far`;
        expect(lines).toStrictEqual([`[paperclip] ${message}\n`]);
        expect(statuses).toStrictEqual([{ phase, message }]);
      }
    },
  );

  it("names an asset by its key", async () => {
    const { lines } = await told(step("pack", "skills", 0, 5000));
    expect(lines).toStrictEqual(["[paperclip] Packing skills for sandbox: 5 s so far\n"]);
  });

  it("is not reported once the caller has aborted", async () => {
    const { lines, statuses } = await told(step("pack", "workspace", 0, 5000), AbortSignal.abort());
    expect([lines, statuses]).toStrictEqual([[], []]);
  });

  it("fails nothing if a listener throws, or if there is no listener", async () => {
    const boom = () => {
      throw new Error("boom");
    };
    for (const listeners of [{}, { onLine: boom, onStatus: boom }]) {
      const calls = callsOf({}, undefined, listeners);
      expect(await calls.dispatch(step("apply", "workspace", 0, 5000))).toStrictEqual({});
    }
  });
});

describe("the lines of an archive in parts", () => {
  const MB = 1024 * 1024;
  const part = (number, size = 10 * MB, total = 40 * MB) => ({ number, before: number * size, size, total });
  let lines;
  let archive;

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["Date"], now: 0 });
    lines = [];
    const onLine = (line) => void lines.push(line);
    archive = transferProgress({
      phase: "Syncing",
      label: "workspace",
      direction: "to",
      onLine,
      statusPhase: "config_sync",
    });
  });
  afterEach(() => void vi.useRealTimers());

  const percents = () => lines.map((line) => Number(/: (\d+)%/.exec(line)[1]));
  const expectOneWay = () => expect(percents()).toStrictEqual([...percents()].sort((a, b) => a - b));

  it("begin as before, add up parallel parts, and never go back", async () => {
    const [first, second] = [archive.part(part(0), 10 * MB), archive.part(part(1), 10 * MB)];
    await second.options.onProgress(8 * MB, 10 * MB);
    await first.options.onProgress(10 * MB, 10 * MB);
    await second.options.onProgress(2 * MB, 10 * MB);
    await first.finish(10 * MB);
    await second.finish(10 * MB);
    for (const number of [2, 3]) await archive.part(part(number), 10 * MB).finish(10 * MB);
    expect(lines[0]).toBe("[paperclip] Syncing workspace to sandbox: 20% (8.0/40.0 MB)\n");
    expect(lines[1]).toBe("[paperclip] Syncing workspace to sandbox: 45% (18.0/40.0 MB)\n");
    expect(lines.at(-1)).toBe("[paperclip] Syncing workspace to sandbox: 100% (40.0/40.0 MB)\n");
    expect(percents().filter((percent) => percent === 100)).toHaveLength(1);
    expectOneWay();
  });

  it("count the archive's own bytes, not the compressed ones", async () => {
    // Half of a part that was compressed to a tenth.
    await archive.part(part(0), MB).options.onProgress(MB / 2, MB);
    expect(lines).toStrictEqual(["[paperclip] Syncing workspace to sandbox: 13% (5.0/40.0 MB)\n"]);
  });

  it.each([
    ["of several", part(0), 40],
    ["that is the whole archive", part(0, 10 * MB, 10 * MB), 10],
  ])("do not go back where a part %s is sent again", async (_, again, all) => {
    await archive.part(again, 10 * MB).options.onProgress(8 * MB, 10 * MB);
    const before = lines.length;
    const second = archive.part(again, 10 * MB);
    for (const done of [1, 4, 8, 9, 10]) {
      vi.setSystemTime(Date.now() + 3000);
      await second.options.onProgress(done * MB, 10 * MB);
    }
    expect(lines.length).toBeGreaterThan(before);
    expect(lines.at(-1)).toContain(`(10.0/${all}.0 MB)`);
    expectOneWay();
  });

  it("carry the rate and the time left once a second has passed", async () => {
    vi.setSystemTime(5000);
    await archive.part(part(0), 10 * MB).options.onProgress(10 * MB, 10 * MB);
    expect(lines).toStrictEqual([
      "[paperclip] Syncing workspace to sandbox: 25% (10.0/40.0 MB), 2.0 MB/s, 15 s left\n",
    ]);
  });
});

describe("with a workspace", () => {
  let workspace;
  beforeEach(async () => {
    workspace = path.join(await temporaryFolder(), "workspace");
    await makeTree(workspace, { "a.txt": "SECRET-UP".repeat(100) });
  });

  describe("NODE_DEBUG", () => {
    const trace = async (section) => {
      const { code, stderr } = await runScript("traced.mjs", [workspace], { env: { NODE_DEBUG: section } });
      expect(code).toBe(0);
      return stderr.split("\n").filter((line) => line.startsWith("PAPERCLIP-SANDBOX"));
    };

    it("prints each call in one line, with its bytes and time, and no content", async () => {
      const lines = await trace("paperclip-sandbox");
      const text = lines.map((line) => line.replace(/^PAPERCLIP-SANDBOX \d+: /, ""));
      expect(text.map((line) => line.split(" ")[0]).slice(0, 6)).toStrictEqual([
        "makeDir",
        "writeFile",
        "run",
        "run",
        "readFile",
        "remove",
      ]);
      expect(text[1]).toMatch(/^writeFile ".*\/workspace-upload\.tar": \d{4,} bytes in \d+\.\d ms$/);
      expect(text[4]).toMatch(/^readFile ".*\/workspace-download\.tar": \d{4,} bytes in \d+\.\d ms$/);
      expect(text[6]).toMatch(/^run ".*": failed in \d+\.\d ms$/);
      for (const line of text) {
        expect(line).not.toContain("SECRET");
        expect(JSON.parse(/^\w+ (".*"): /.exec(line)[1]).length).toBeLessThanOrEqual(201);
      }
    });

    it("prints nothing if it names something else, or nothing", async () => {
      expect(await trace("net")).toStrictEqual([]);
      expect(await trace("")).toStrictEqual([]);
    });
  });

  it("measures no call without NODE_DEBUG", async () => {
    const now = vi.spyOn(performance, "now");
    onTestFinished(() => void now.mockRestore());
    const client = new MemorySandbox(Buffer.from("text"));
    for (const op of ["makeDir", "readFile", "run", "remove", "discard"]) {
      await callsOf(client).dispatch({ op, target: "/remote/a" });
    }
    expect(client.methods).toStrictEqual(["makeDir", "readFile", "run", "remove", "remove"]);
    expect(now).not.toHaveBeenCalled();
  });

  it.each([
    ["nothing says that several may", {}, {}, 1],
    ["the client says so", { allowConcurrentSyncOperations: true }, {}, 4],
    ["the client says anything else", { allowConcurrentSyncOperations: "yes" }, {}, 1],
    ["the caller does", {}, { concurrency: 2 }, 4],
  ])("sends as many parts at once as may be, where %s", async (_, ability, options, most) => {
    await makeTree(
      workspace,
      Object.fromEntries([...Array(12).keys()].map((at) => [`f${at}`, "x".repeat(60_000)])),
    );
    const client = Object.assign(new MemorySandbox(), ability);
    let flying = 0;
    let seen = 0;
    let open;
    const full = new Promise((resolve) => (open = resolve));
    client.writeFile = async () => {
      seen = Math.max(seen, ++flying);
      if (seen === most) open();
      await full;
      await new Promise(setImmediate);
      flying--;
    };
    await prepareSandboxManagedRuntime({
      spec: specFor("/remote"),
      adapterKey: "test",
      client,
      workspaceLocalDir: workspace,
      partBytes: 65_536,
      compression: "none",
      ...options,
    });
    expect(seen).toBe(most);
  });
});
