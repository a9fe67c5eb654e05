// The exports as JavaScript code sees them.

import { constants } from "node:buffer";
import { lstat, mkdir, readFile, readdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import fs from "node:fs";
import { getEventListeners } from "node:events";
import path from "node:path";
import { inspect } from "node:util";
import { Worker } from "node:worker_threads";
import { beforeEach, describe, expect, it, vi } from "vitest";
import * as addon from "../index.js";
import { Abort } from "../js/abort.js";
import { ClientCalls } from "../js/calls.js";
import { fromNative } from "../js/errors.js";
import { LeaseKeeper } from "../js/lease.js";
import { describeTree, makeTree, temporaryFolder, watchTemporaryFiles } from "./support/folders.mjs";
import { MemorySandbox } from "./support/memory.mjs";
import { runScript } from "./support/processes.mjs";
import { specFor } from "./support/spec.mjs";
import { makeArchive, readArchive } from "./support/tar.mjs";

const ASYNCHRONOUS = [
  "captureDirectorySnapshot",
  "createTarballFromDirectory",
  "directoryEntryMatchesBaseline",
  "mergeDirectoryWithBaseline",
  "mirrorDirectory",
  "prepareSandboxManagedRuntime",
  "resumeSandboxManagedRuntime",
  "withDirectoryMergeLock",
];
const SYNCHRONOUS = [
  "buildSandboxExecutionSessionIdentity",
  "parseSandboxRemoteExecutionSpec",
  "sandboxExecutionSessionMatches",
];

/** Values that a client may throw, errors and others. */
const FAILURES = [
  new Error("boom"),
  Object.assign(new Error('{"kept":7}'), { code: "ENOENT" }),
  "text",
  "",
  undefined,
  null,
  0,
  NaN,
  false,
  10n,
  Symbol("boom"),
  { reason: "boom" },
  Object.create(null),
  [],
  () => {},
  Object.freeze(new TypeError("frozen")),
];

let workspace;

beforeEach(async () => {
  workspace = path.join(await temporaryFolder(), "workspace");
  await makeTree(workspace, { "a.txt": "a", "src/b.txt": "b" });
});

const inputFor = (client, more) => ({
  spec: specFor("/remote/workspace"),
  adapterKey: "test",
  client,
  workspaceLocalDir: workspace,
  ...more,
});

/** The content of the sandbox after an agent has edited `a.txt` in it. */
const edited = (content = "edited") =>
  makeArchive([
    { name: "./", type: "5", mode: 0o755 },
    { name: "./a.txt", content },
    { name: "./src/", type: "5", mode: 0o755 },
    { name: "./src/b.txt", content: "b" },
  ]);

describe("the package", () => {
  const NAMES = [...ASYNCHRONOUS, ...SYNCHRONOUS].sort();

  it("has the same names for ES modules and for CommonJS", async () => {
    const { stdout, stderr } = await runScript("names.mjs");
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toStrictEqual({ imported: NAMES, required: NAMES, same: true });
  });
});

describe("every asynchronous export", () => {
  const thrown = new Error("boom");
  const throws = () => {
    throw thrown;
  };
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  const JUNK = [
    ...[undefined, null, true, 0, NaN, -1.5, 10n, "", "\0", "a\0b", Symbol("junk"), () => {}, class {}],
    ...[{}, [], [[]], Object.create(null), new Date(), /x/, new Map(), new Proxy({}, {}), revoked.proxy],
    new Proxy({}, { get: throws, has: throws, ownKeys: throws, getOwnPropertyDescriptor: throws }),
    Object.defineProperties(
      {},
      Object.fromEntries(["localDir", "spec", "baseline", "client"].map((name) => [name, { get: throws }])),
    ),
  ];

  it.each(ASYNCHRONOUS)("%s rejects its promise for any invalid input", async (name) => {
    const argumentLists = [[], ...JUNK.flatMap((junk) => [[junk], [junk, junk], [junk, junk, junk]])];
    for (const args of argumentLists) {
      const promise = addon[name](...args);
      expect(promise).toBeInstanceOf(Promise);
      await expect(promise, inspect(args[0])).rejects.toBeInstanceOf(Error);
    }
  });

  it.each([
    ["createTarballFromDirectory", "input.localDir"],
    ["mergeDirectoryWithBaseline", "input.baseline"],
    ["prepareSandboxManagedRuntime", "input.spec"],
  ])("%s passes on what a getter throws, as it is", async (name, argument) => {
    const field = argument.slice("input.".length);
    for (const failure of FAILURES) {
      const input = {
        get [field]() {
          throw failure;
        },
      };
      const caught = await addon[name](input).then(
        () => "nothing",
        (error) => ({ error }),
      );
      expect(caught.error).toBe(failure);
    }
  });
});

describe("prepared", () => {
  it("is a plain object that can be spread, stringified and compared", async () => {
    const input = inputFor(new MemorySandbox(edited()), { assets: [{ key: "skills", localDir: workspace }] });
    const prepared = await addon.prepareSandboxManagedRuntime(input);

    const fields = {
      spec: input.spec,
      workspaceLocalDir: workspace,
      workspaceRemoteDir: "/remote/workspace",
      runtimeRootDir: "/remote/workspace/.paperclip-runtime/test",
      assetDirs: { skills: "/remote/workspace/.paperclip-runtime/test/skills" },
    };
    expect(Object.getPrototypeOf(prepared)).toBe(Object.prototype);
    expect(JSON.parse(JSON.stringify(prepared))).toStrictEqual(fields);
    expect({ ...prepared }).toStrictEqual({ ...fields, restoreWorkspace: expect.any(Function) });
    expect(Object.keys(prepared)).toStrictEqual([...Object.keys(fields), "restoreWorkspace"]);
    expect(prepared.spec).toBe(input.spec);
    for (const name of Object.keys(prepared)) {
      expect(Object.getOwnPropertyDescriptor(prepared, name)).toMatchObject({
        writable: true,
        configurable: true,
      });
    }
  });

  it("has a restoreWorkspace that works detached", async () => {
    const { restoreWorkspace } = await addon.prepareSandboxManagedRuntime(
      inputFor(new MemorySandbox(edited())),
    );

    await expect(restoreWorkspace()).resolves.toBeUndefined();
    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("edited");
  });

  it("does not depend on later changes to the caller's input", async () => {
    await makeTree(workspace, { "kept.log": "log" });
    const workspaceExclude = ["*.log"];
    const preparing = addon.prepareSandboxManagedRuntime(
      inputFor(new MemorySandbox(edited()), { workspaceExclude, onRuntimeProgress: async () => {} }),
    );
    workspaceExclude.length = 0;
    await (await preparing).restoreWorkspace();

    expect(await readdir(workspace)).toContain("kept.log");
  });
});

describe("a client's methods", () => {
  it("are called on the client, whose private fields they reach", async () => {
    const client = new MemorySandbox(edited());
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(client));
    await prepared.restoreWorkspace();

    expect(client.methods).toStrictEqual(["makeDir", "writeFile", "run", "run", "readFile", "remove"]);
  });

  it("are looked up at each call, so that a spy may come after prepare", async () => {
    const client = new MemorySandbox(edited());
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(client));
    const run = vi.spyOn(client, "run");
    client.readFile = async function () {
      expect(this).toBe(client);
      client.remove = vi.fn();
      return edited("by another method");
    };
    await prepared.restoreWorkspace();

    expect(run).toHaveBeenCalledTimes(1);
    expect(run.mock.contexts).toStrictEqual([client]);
    expect(client.remove).toHaveBeenCalledExactlyOnceWith(
      "/remote/workspace/.paperclip-runtime/test/workspace-download.tar",
    );
    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("by another method");
  });

  it.each([
    ["plain values", (value) => value],
    ["promises", (value) => Promise.resolve(value)],
    ["thenables", (value) => ({ then: (resolve) => resolve(value) })],
    ["thenables that answer late", (value) => ({ then: (resolve) => void setImmediate(resolve, value) })],
    [
      "thenables of thenables",
      (value) => ({ then: (resolve) => resolve({ then: (inner) => inner(value) }) }),
    ],
  ])("may answer with %s", async (_, answer) => {
    const client = {
      makeDir: () => answer(undefined),
      writeFile: () => answer("ignored"),
      run: () => answer({ exitCode: 0 }),
      readFile: () => answer(edited()),
      remove: () => answer(0),
    };
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(client));
    await prepared.restoreWorkspace();

    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("edited");
  });

  it("may be those of a function object, and inherited", async () => {
    const client = Object.setPrototypeOf(() => {}, new MemorySandbox(edited()));
    client.readFile = () => edited();
    for (const name of ["makeDir", "writeFile", "run", "remove"]) client[name] = () => {};
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(Object.create(client)));
    await prepared.restoreWorkspace();

    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("edited");
  });
});

describe("an error of a client", () => {
  const fail = {
    "throws at once": (failure) => {
      throw failure;
    },
    rejects: (failure) => Promise.reject(failure),
    "rejects as a thenable": (failure) => ({ then: (_, reject) => reject(failure) }),
    "throws in `then`": (failure) => ({
      then: () => {
        throw failure;
      },
    }),
    "rejects late": async (failure) => {
      await new Promise(setImmediate);
      throw failure;
    },
  };

  /** A client that fails at its `nth` call of a method. */
  function failing(method, nth, how) {
    const client = new MemorySandbox(edited());
    const original = client[method];
    let count = 0;
    client[method] = function (...args) {
      return ++count < nth ? original.apply(client, args) : how();
    };
    return client;
  }

  const caught = (promise) =>
    promise.then(
      () => "nothing",
      (error) => ({ error }),
    );

  it.each([
    ["makeDir", 1],
    ["writeFile", 1],
    ["run", 1],
    ["writeFile", 2],
    ["run", 2],
    ["writeFile", 3],
    ["run", 3],
  ])("reaches the caller of prepare as the same value: %s, call %d", async (method, nth) => {
    const assets = ["first", "second"].map((key) => ({ key, localDir: workspace }));
    for (const how of Object.values(fail)) {
      for (const failure of FAILURES) {
        const client = failing(method, nth, () => how(failure));
        expect((await caught(addon.prepareSandboxManagedRuntime(inputFor(client, { assets })))).error).toBe(
          failure,
        );
      }
    }
  });

  it.each([
    ["run", 2],
    ["readFile", 1],
  ])("reaches the caller of restore as the same value: %s", async (method, nth) => {
    const before = await describeTree(workspace);
    for (const how of Object.values(fail)) {
      for (const failure of FAILURES) {
        const client = failing(method, nth, () => how(failure));
        // A known sandbox is asked first, and would get the failure.
        const input = { ...inputFor(client), transfer: "full" };
        const prepared = await addon.prepareSandboxManagedRuntime(input);
        expect((await caught(prepared.restoreWorkspace())).error).toBe(failure);
      }
    }
    expect(await describeTree(workspace)).toStrictEqual(before);
  });

  it("is ignored if it comes from the archive's removal", async () => {
    for (const how of Object.values(fail)) {
      for (const failure of FAILURES) {
        const prepared = await addon.prepareSandboxManagedRuntime(
          inputFor(failing("remove", 1, () => how(failure))),
        );
        await expect(prepared.restoreWorkspace()).resolves.toBeUndefined();
      }
    }
  });

  it("may come from a getter of the client", async () => {
    const failure = Symbol("boom");
    const client = new MemorySandbox(edited());
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(client));
    Object.defineProperty(client, "readFile", {
      get: () => {
        throw failure;
      },
    });
    expect((await caught(prepared.restoreWorkspace())).error).toBe(failure);
  });
});

describe("the bytes of writeFile", () => {
  it("are an ArrayBuffer of exactly the archive's length, which may be transferred and kept", async () => {
    const received = [];
    const client = new MemorySandbox(edited());
    client.writeFile = (_, bytes, ...more) => {
      expect(bytes).toBeInstanceOf(ArrayBuffer);
      expect(bytes.resizable).toBe(false);
      expect(more).toStrictEqual([]);
      const moved = bytes.transfer ? bytes.transfer() : structuredClone(bytes, { transfer: [bytes] });
      expect(bytes.byteLength).toBe(0);
      received.push(moved);
    };
    const assets = [{ key: "empty", localDir: await temporaryFolder() }];
    await addon.prepareSandboxManagedRuntime(inputFor(client, { assets }));
    // Nobody else writes to it later.
    await addon.prepareSandboxManagedRuntime(inputFor(client));

    const [first, empty, again] = received.map((bytes) => Buffer.from(bytes));
    const { entries, end } = readArchive(first);
    expect(entries.map(({ name }) => name)).toStrictEqual(["a.txt", "src/", "src/b.txt"]);
    // The script for the sandbox follows the end-of-archive mark; apart from the upload's name it is the same
    // each time.
    expect(end.subarray(0, 1024)).toStrictEqual(Buffer.alloc(1024));
    expect(end.includes("control.sh")).toBe(true);
    expect(first.length % 512).toBe(0);
    expect(empty).toStrictEqual(Buffer.alloc(1024));
    const size = first.length - end.length;
    expect(again.length).toBe(first.length);
    expect(again.subarray(0, size)).toStrictEqual(first.subarray(0, size));
  });

  it("may go to a worker thread", async () => {
    const worker = new Worker(
      `const { parentPort } = require("node:worker_threads");
       parentPort.once("message", (bytes) => parentPort.postMessage(Buffer.from(bytes, 0, 5).toString()));`,
      { eval: true },
    );
    const client = new MemorySandbox(edited());
    client.writeFile = (_, bytes) =>
      new Promise((resolve, reject) => {
        worker.once("error", reject).once("message", (text) => {
          expect(text).toBe("a.txt");
          resolve();
        });
        worker.postMessage(bytes, [bytes]);
      });
    await addon.prepareSandboxManagedRuntime(inputFor(client));
    await worker.terminate();
  });
});

describe("the answer of readFile", () => {
  const SIZES = { small: "edited", large: "x".repeat(300_000) };

  /** The same bytes in every form that JavaScript has for them. */
  const SHAPES = {
    "a Buffer": (bytes) => Buffer.from(bytes),
    "a Buffer in the pool": (bytes) => {
      const pooled = Buffer.allocUnsafe(bytes.length);
      return bytes.copy(pooled) && pooled;
    },
    "a slice of a larger Buffer": (bytes) =>
      Buffer.concat([Buffer.alloc(100, "x"), bytes, Buffer.alloc(100, "x")]).subarray(
        100,
        100 + bytes.length,
      ),
    "a Uint8Array": (bytes) => new Uint8Array(bytes),
    "a Uint8Array at an odd offset": (bytes) => {
      const view = new Uint8Array(new ArrayBuffer(bytes.length + 8), 3, bytes.length);
      view.set(bytes);
      return view;
    },
    "an ArrayBuffer": (bytes) => Uint8Array.from(bytes).buffer,
    "a Uint8ClampedArray": (bytes) => new Uint8ClampedArray(bytes),
    "an Int8Array": (bytes) => new Int8Array(Uint8Array.from(bytes).buffer),
    "a Float64Array": (bytes) => new Float64Array(Uint8Array.from(bytes).buffer),
    "a BigInt64Array": (bytes) => new BigInt64Array(Uint8Array.from(bytes).buffer),
    "a DataView": (bytes) => new DataView(Uint8Array.from(bytes).buffer),
    "a SharedArrayBuffer": (bytes) => {
      const shared = new SharedArrayBuffer(bytes.length);
      new Uint8Array(shared).set(bytes);
      return shared;
    },
    "a view of a SharedArrayBuffer": (bytes) => {
      const view = new Uint8Array(new SharedArrayBuffer(bytes.length + 8), 8);
      view.set(bytes);
      return view;
    },
    "a resizable ArrayBuffer": (bytes) => {
      const resizable = new ArrayBuffer(bytes.length, { maxByteLength: bytes.length * 2 });
      new Uint8Array(resizable).set(bytes);
      return resizable;
    },
    "a view that follows a resizable ArrayBuffer": (bytes) => {
      const view = new Uint8Array(new ArrayBuffer(0, { maxByteLength: bytes.length * 2 }));
      view.buffer.resize(bytes.length);
      view.set(bytes);
      return view;
    },
    "an instance of a class of its own": (bytes) => new (class Bytes extends Uint8Array {})(bytes),
  };

  describe.each(Object.entries(SIZES))("%s", (_, content) => {
    it.each(Object.entries(SHAPES))("may be %s", async (_, shape) => {
      const answer = shape(edited(content));
      const client = new MemorySandbox(answer);
      const prepared = await addon.prepareSandboxManagedRuntime(inputFor(client));
      await prepared.restoreWorkspace();

      expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe(content);
      // The bytes belong to the client again.
      expect(answer.byteLength).toBe(edited(content).length);
    });
  });

  it.each([
    ["a small Buffer, which may lie in a pool", "small", "a Buffer in the pool"],
    ["a SharedArrayBuffer", "large", "a SharedArrayBuffer"],
    ["a resizable ArrayBuffer", "large", "a resizable ArrayBuffer"],
  ])("is taken as it is, before the client can write over %s", async (_, size, shape) => {
    const answer = SHAPES[shape](edited(SIZES[size]));
    const client = new MemorySandbox(answer);
    client.remove = () => {
      new Uint8Array(answer.buffer ?? answer, answer.byteOffset ?? 0, answer.byteLength).fill(255);
      if (answer.resizable) answer.resize(0);
    };
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(client));
    await prepared.restoreWorkspace();

    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe(SIZES[size]);
  });

  describe("of 64 MiB in memory that may change", () => {
    const SIZE = 64 * 2 ** 20;
    const LARGE = {
      "a SharedArrayBuffer": () => new SharedArrayBuffer(SIZE),
      "a view of a SharedArrayBuffer": () => new Uint8Array(new SharedArrayBuffer(SIZE + 8), 8),
      "a resizable ArrayBuffer": () => new ArrayBuffer(SIZE, { maxByteLength: SIZE * 2 }),
      "a view of a resizable ArrayBuffer": () =>
        new Uint8Array(new ArrayBuffer(SIZE + 8, { maxByteLength: SIZE * 2 }), 8, SIZE),
    };

    const asBytes = (answer) =>
      ArrayBuffer.isView(answer) ? answer : new Uint8Array(answer, 0, answer.byteLength);

    /** Reads `answer` as a restore does, and calls `inTurn` in each turn of the event loop meanwhile. */
    async function read(answer, { inTurn = () => {}, signal } = {}) {
      const calls = new ClientCalls({
        client: { readFile: async () => answer },
        spec: {},
        lease: new LeaseKeeper(),
        abort: new Abort(signal),
        listeners: {},
      });
      let turns = 0;
      const turn = () => {
        inTurn(++turns);
        immediate = setImmediate(turn);
      };
      let immediate = setImmediate(turn);
      const told = await calls.dispatch({
        op: "readFile",
        target: "/remote/workspace-download.tar",
        part: { label: "workspace", number: 0, before: 0, size: 0, total: 0 },
      });
      clearImmediate(immediate);
      if (told.failure) throw calls.failure(new Error(JSON.stringify(told.failure)));
      return { bytes: told.read(), turns };
    }

    describe.each(Object.entries(LARGE))("%s", (_, shape) => {
      it("is copied completely, with a turn of the event loop after every few megabytes", async () => {
        const answer = shape();
        const content = asBytes(answer);
        for (let at = 0; at < SIZE; at += 4093) content[at] = at / 4093;
        const { bytes, turns } = await read(answer);
        expect(bytes.buffer).toBeInstanceOf(ArrayBuffer);
        expect(bytes.buffer.resizable).toBe(false);
        expect(Buffer.compare(bytes, content)).toBe(0);
        // At most 4 MiB a turn.
        expect(turns).toBeGreaterThanOrEqual(15);
      });

      it("may be written to meanwhile", async () => {
        const answer = shape();
        const content = asBytes(answer);
        const { bytes } = await read(answer, { inTurn: () => (content[0] = content[SIZE - 1] = 1) });
        // The archive is damaged now, which its check reports.
        expect([bytes.length, bytes[0], bytes[SIZE - 1]]).toStrictEqual([SIZE, 0, 1]);
      });

      it("is copied no further once the caller aborts", async () => {
        const controller = new AbortController();
        const inTurn = (at) => at === 2 && controller.abort("stop");
        const reading = read(shape(), { inTurn, signal: controller.signal }).then(({ turns }) => ({ turns }));
        await expect(reading).rejects.toBe("stop");
      });
    });

    it.each(["a resizable ArrayBuffer", "a view of a resizable ArrayBuffer"])(
      "is refused where it shrinks meanwhile: %s",
      async (shape) => {
        for (const inTurn of [
          (buffer) => buffer.resize(0),
          (buffer) => buffer.byteLength && structuredClone(buffer, { transfer: [buffer] }),
        ]) {
          const answer = LARGE[shape]();
          const reading = read(answer, { inTurn: () => inTurn(answer.buffer ?? answer) });
          await expect(reading.then(({ turns }) => ({ turns }))).rejects.toMatchObject({
            code: "ERR_INVALID_RETURN_VALUE",
            message: expect.stringContaining("transferred or resized"),
          });
        }
      },
    );

    it("may grow meanwhile", async () => {
      const answer = LARGE["a resizable ArrayBuffer"]();
      const { bytes } = await read(answer, { inTurn: (at) => at === 1 && answer.resize(SIZE * 2) });
      expect(bytes.length).toBe(SIZE);
    });
  });

  const detached = new ArrayBuffer(4096);
  const views = {
    Uint8Array: new Uint8Array(detached),
    Buffer: Buffer.from(detached),
    DataView: new DataView(detached),
  };
  structuredClone(detached, { transfer: [detached] });

  const NO_BYTES = [
    ...[undefined, null, 5, 10n, true, "text", Symbol("bytes"), {}, [], [1, 2, 3], () => {}, new Date()],
    ...[{ byteLength: 5 }, { buffer: new ArrayBuffer(8), byteOffset: 0, byteLength: 8 }, new Blob(["text"])],
  ].map((value) => [inspect(value), value]);
  const TRANSFERRED = Object.entries(views).map(([name, view]) => [
    `a ${name} of a buffer that was transferred`,
    view,
  ]);

  it.each([
    ...NO_BYTES,
    ["an ArrayBuffer that was transferred", detached],
    ...TRANSFERRED,
    ["what merely inherits from Uint8Array", Object.create(Uint8Array.prototype)],
  ])("is refused where it is %s", async (_, nonsense) => {
    const left = await watchTemporaryFiles();
    const before = await describeTree(workspace);
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(new MemorySandbox(nonsense)));

    await expect(prepared.restoreWorkspace()).rejects.toMatchObject({
      name: "TypeError",
      code: "ERR_INVALID_RETURN_VALUE",
      message: expect.stringMatching(
        /client\.readFile\(\) must give a Buffer, Uint8Array or ArrayBuffer. Received /,
      ),
    });
    expect(await describeTree(workspace)).toStrictEqual(before);
    expect(await left()).toStrictEqual([]);
  });

  it("is refused as truncated if it is empty", async () => {
    const before = await describeTree(workspace);
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(new MemorySandbox(Buffer.alloc(0))));

    await expect(prepared.restoreWorkspace()).rejects.toMatchObject({
      code: "ERR_SANDBOX_ARCHIVE_TRUNCATED",
    });
    expect(await describeTree(workspace)).toStrictEqual(before);
  });
});

describe("a process", () => {
  it.each([
    "restore",
    "prepare",
    "keepAliveBetween",
    "createTarballFromDirectory",
    "mirrorDirectory",
    "captureDirectorySnapshot",
    "mergeDirectoryWithBaseline",
    "withDirectoryMergeLock",
    "directoryEntryMatchesBaseline",
  ])("waits for %s, and ends by itself afterwards", async (what) => {
    const ended = await runScript("exits.mjs", [what, workspace]);
    expect(ended).toStrictEqual({ stdout: "done\n", stderr: "", code: 0, signal: null });
  });

  it("with an unhandled promise gets a rejection, never a crash", async () => {
    const { signal, code, stderr } = await runScript("exits.mjs", [
      "unhandled",
      path.join(workspace, "missing"),
    ]);
    expect({ signal, code }).toStrictEqual({ signal: null, code: 1 });
    expect(stderr).toContain("ENOENT");
  });
});

describe("worker threads", () => {
  it("work, also several at the same time", async () => {
    const folders = await Promise.all(
      Array.from({ length: 4 }, async (_, index) => {
        const made = path.join(await temporaryFolder(), `workspace-${index}`);
        return makeTree(made, { "a.txt": "a", "b.txt": `${index}` });
      }),
    );
    const answers = await Promise.all(
      folders.map(
        (folder) =>
          new Promise((resolve, reject) => {
            const script = new URL("support/round-trips.mjs", import.meta.url);
            new Worker(script, { workerData: { folder, rounds: 10 } })
              .once("message", resolve)
              .once("error", reject);
          }),
      ),
    );
    expect(answers).toStrictEqual(folders.map(() => "10 rounds"));
    for (const folder of folders)
      expect(await describeTree(folder)).toMatchObject({ "a.txt": "644 round 9" });
  });
});

describe("a failed system call", () => {
  /** The error of Node's own call. */
  const nodes = (call) => {
    try {
      return call();
    } catch (error) {
      return error;
    }
  };

  it.each([
    ["createTarballFromDirectory", (missing, other) => [{ localDir: missing, archivePath: `${other}.tar` }]],
    ["mirrorDirectory", (missing, other) => [missing, other]],
    [
      "prepareSandboxManagedRuntime",
      (missing) => [inputFor(new MemorySandbox(edited()), { workspaceLocalDir: missing })],
    ],
    [
      "mergeDirectoryWithBaseline",
      (missing, other) => [
        { baseline: { exclude: [], entries: new Map() }, sourceDir: missing, targetDir: other },
      ],
    ],
  ])("of %s carries Node's code, errno, syscall and path", async (name, args) => {
    const missing = path.join(workspace, "missing");
    const expected = nodes(() => fs.readdirSync(missing));
    const error = await addon[name](...args(missing, path.join(workspace, "src"))).catch((caught) => caught);

    expect(error).toBeInstanceOf(Error);
    expect(Object.keys(error).sort()).toStrictEqual(["code", "errno", "path", "syscall"]);
    expect(error).toMatchObject({
      code: expected.code,
      errno: expected.errno,
      path: missing,
      syscall: expect.any(String),
    });
    expect(error.message.startsWith(`ENOENT: no such file or directory, ${error.syscall} '${missing}'`)).toBe(
      true,
    );
  });

  it("on a file instead of a folder is Node's ENOTDIR", async () => {
    const notFolder = path.join(workspace, "a.txt");
    const { errno } = nodes(() => fs.readdirSync(notFolder));
    const archivePath = path.join(workspace, "a.tar");
    const input = inputFor(new MemorySandbox(edited()), { workspaceLocalDir: notFolder });
    // One after another: a promise that rejects before it is awaited is an unhandled rejection.
    for (const call of [
      () => addon.captureDirectorySnapshot(notFolder),
      () => addon.createTarballFromDirectory({ localDir: notFolder, archivePath }),
      () => addon.mirrorDirectory(notFolder, path.join(workspace, "src")),
      () => addon.prepareSandboxManagedRuntime(input),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: "ENOTDIR", errno, path: notFolder });
    }
  });

  it("names a path that is not UTF-8 in a form that can be used again", async () => {
    const missing = path.join(workspace, "missing-\udcff");
    await expect(
      addon.createTarballFromDirectory({ localDir: missing, archivePath: path.join(workspace, "a.tar") }),
    ).rejects.toMatchObject({ code: "ENOENT", path: missing });
  });
});

describe("a relative path", () => {
  it("is resolved when the call is made", async () => {
    const before = process.cwd();
    const elsewhere = await temporaryFolder();
    try {
      process.chdir(path.dirname(workspace));
      const preparing = addon.prepareSandboxManagedRuntime(
        inputFor(new MemorySandbox(edited()), { workspaceLocalDir: "workspace" }),
      );
      const snapshot = addon.captureDirectorySnapshot("./workspace/src");
      process.chdir(elsewhere);
      expect([...(await snapshot).entries.keys()]).toStrictEqual(["b.txt"]);
      const prepared = await preparing;
      expect(prepared.workspaceLocalDir).toBe("workspace");
      await prepared.restoreWorkspace();
    } finally {
      process.chdir(before);
    }
    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("edited");
  });
});

describe("a workspace that is not there at restore", () => {
  const prepared = () => addon.prepareSandboxManagedRuntime(inputFor(new MemorySandbox(edited())));

  it("is not created again, and the restore works once it is back", async () => {
    const { restoreWorkspace } = await prepared();
    await rename(workspace, `${workspace}-away`);
    await expect(restoreWorkspace()).rejects.toMatchObject({ code: "ENOENT", path: workspace });
    await expect(lstat(workspace)).rejects.toMatchObject({ code: "ENOENT" });
    await rename(`${workspace}-away`, workspace);
    await restoreWorkspace();
    expect(await describeTree(workspace)).toMatchObject({ "a.txt": "644 edited" });
  });

  it.each([
    ["another folder", () => mkdir(workspace)],
    ["a link to the folder", () => symlink(`${workspace}-away`, workspace)],
  ])("is told from %s in its place, which stays as it is", async (_, replace) => {
    const { restoreWorkspace } = await prepared();
    await rename(workspace, `${workspace}-away`);
    await replace();
    const before = await readdir(workspace);
    await expect(restoreWorkspace()).rejects.toMatchObject({
      code: "ERR_WORKSPACE_REPLACED",
      path: workspace,
    });
    expect(await readdir(workspace)).toStrictEqual(before);
    await rm(workspace, { recursive: true });
    await rename(`${workspace}-away`, workspace);
    await restoreWorkspace();
    expect(await describeTree(workspace)).toMatchObject({ "a.txt": "644 edited" });
  });
});

describe("timers", () => {
  it.each(["removed", "still"])("that a test's environment has %s are not needed", async (how) => {
    const { code, stdout, stderr } = await runScript("other-timers.mjs", [workspace, how]);
    expect({ code, stdout, stderr }).toStrictEqual({ code: 0, stdout: "2500 2500\n", stderr: "" });
  });

  it("that vitest fakes are not needed", async () => {
    vi.useFakeTimers({
      toFake: ["setImmediate", "setTimeout", "setInterval", "clearInterval", "Date", "queueMicrotask"],
    });
    try {
      const refresh = vi.fn(async () => {});
      const client = new MemorySandbox(edited());
      const prepared = await addon.prepareSandboxManagedRuntime(
        inputFor(client, { lease: { refresh, intervalMs: 1000, keepAliveBetween: true } }),
      );
      // The timers of a lease are for the test to drive.
      refresh.mockClear();
      await vi.advanceTimersByTimeAsync(3500);
      expect(refresh).toHaveBeenCalledTimes(3);
      await prepared.restoreWorkspace();
      const baseline = await addon.captureDirectorySnapshot(workspace);
      expect(baseline.entries.size).toBe(3);
      await addon.mergeDirectoryWithBaseline({ baseline, sourceDir: workspace, targetDir: `${workspace}-2` });
      refresh.mockClear();
      await vi.advanceTimersByTimeAsync(3500);
      expect(refresh).not.toHaveBeenCalled();
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("a caller's signal", () => {
  /** A signal that counts its listeners. */
  function counted() {
    const controller = new AbortController();
    const { signal } = controller;
    const listeners = new Set();
    const count = { most: 0, now: () => listeners.size };
    vi.spyOn(signal, "addEventListener").mockImplementation((type, listener, options) => {
      listeners.add(listener);
      count.most = Math.max(count.most, listeners.size);
      return EventTarget.prototype.addEventListener.call(signal, type, listener, options);
    });
    vi.spyOn(signal, "removeEventListener").mockImplementation((type, listener) => {
      listeners.delete(listener);
      return EventTarget.prototype.removeEventListener.call(signal, type, listener);
    });
    return { controller, signal, count };
  }

  it("has one listener for any number of transfers, and none afterwards", async () => {
    const { signal, count } = counted();
    const assets = Array.from({ length: 12 }, (_, at) => ({ key: `asset-${at}`, localDir: workspace }));
    const client = new MemorySandbox(edited());
    let together = 0;
    client.writeFile = async (remotePath) => {
      if (remotePath.includes("asset") && ++together < assets.length) {
        await vi.waitUntil(() => together === assets.length, { timeout: 50_000 });
      }
    };
    const prepared = await addon.prepareSandboxManagedRuntime(
      inputFor(client, { assets, concurrency: 12, signal }),
    );
    expect(together).toBe(12);
    await prepared.restoreWorkspace(undefined, { signal });
    expect([count.most, count.now()]).toStrictEqual([1, 0]);
  });

  describe("given to twelve calls at once", () => {
    const warnings = [];
    const warned = (warning) => warnings.push(warning);

    beforeEach(() => {
      warnings.length = 0;
      process.on("warning", warned);
      return () => process.off("warning", warned);
    });

    /** Twelve prepares with one signal, all of which are in `writeFile` at the same time. */
    async function prepareTogether(signal) {
      const writes = [];
      const runs = Array.from({ length: 12 }, () => {
        const client = new MemorySandbox(edited());
        client.writeFile = () => new Promise((resolve) => writes.push(resolve));
        return addon.prepareSandboxManagedRuntime(inputFor(client, { signal }));
      });
      await vi.waitUntil(() => writes.length === runs.length, { timeout: 50_000 });
      return { runs, finish: () => writes.forEach((resolve) => resolve()) };
    }

    it("has one listener in total, causes no warning, and has none at the end", async () => {
      const { signal, count } = counted();
      const { runs, finish } = await prepareTogether(signal);
      expect([count.most, getEventListeners(signal, "abort").length]).toStrictEqual([1, 1]);
      finish();
      const prepared = await Promise.all(runs);
      expect([count.now(), getEventListeners(signal, "abort").length]).toStrictEqual([0, 0]);

      // It listens again for later calls.
      const target = await temporaryFolder();
      await Promise.all([
        ...prepared.slice(0, 1).map((run) => run.restoreWorkspace(undefined, { signal })),
        ...Array.from({ length: 12 }, (_, at) =>
          addon.mirrorDirectory(path.join(workspace, "src"), path.join(target, `mirror-${at}`), { signal }),
        ),
        ...Array.from({ length: 12 }, (_, at) =>
          addon.createTarballFromDirectory({
            localDir: path.join(workspace, "src"),
            archivePath: path.join(target, `${at}.tar`),
            signal,
          }),
        ),
      ]);
      expect([count.most, count.now()]).toStrictEqual([1, 0]);
      expect(getEventListeners(signal, "abort")).toStrictEqual([]);
      // A warning comes in a later turn.
      await new Promise(setImmediate);
      expect(warnings).toStrictEqual([]);
    });

    it("stops all of them", async () => {
      const { controller, signal, count } = counted();
      const { runs } = await prepareTogether(signal);
      controller.abort("stop");
      const results = await Promise.allSettled(runs);
      expect(results).toStrictEqual(Array(12).fill({ status: "rejected", reason: "stop" }));
      expect(getEventListeners(signal, "abort")).toStrictEqual([]);
      expect(count.most).toBe(1);
    });

    it("stops only the calls that have it", async () => {
      const controller = new AbortController();
      const stopped = await prepareTogether(controller.signal);
      const other = await prepareTogether(new AbortController().signal);
      controller.abort("stop");
      other.finish();
      const results = await Promise.allSettled([...stopped.runs, ...other.runs]);
      expect(results.map(({ status }) => status)).toStrictEqual([
        ...Array(12).fill("rejected"),
        ...Array(12).fill("fulfilled"),
      ]);
    });
  });

  it("is passed to the calls that may take long, and nothing is passed without one", async () => {
    const calls = [];
    const client = Object.fromEntries(
      ["makeDir", "writeFile", "run", "readFile", "remove"].map((name) => [
        name,
        async (...args) => {
          calls.push([name, ...args.slice(name === "writeFile" ? 2 : 1)]);
          return name === "readFile" ? edited() : undefined;
        },
      ]),
    );
    const onProgress = () => {};
    const during = { timeoutMs: 12_345 };
    const { signal } = new AbortController();
    const later = new AbortController().signal;
    const progress = { onProgress: expect.any(Function) };

    await (await addon.prepareSandboxManagedRuntime(inputFor(client))).restoreWorkspace();
    expect(calls.splice(0)).toStrictEqual([
      ["makeDir"],
      ["writeFile"],
      ["run", during],
      ["run", during],
      ["readFile"],
      ["remove"],
    ]);

    let prepared = await addon.prepareSandboxManagedRuntime(inputFor(client, { signal }));
    await prepared.restoreWorkspace(undefined, { signal: later });
    expect(calls.splice(0)).toStrictEqual([
      ["makeDir"],
      ["writeFile", { signal }],
      ["run", { ...during, signal }],
      ["run", { ...during, signal: later }],
      ["readFile", { signal: later }],
      ["remove"],
    ]);

    prepared = await addon.prepareSandboxManagedRuntime(inputFor(client, { signal, onProgress }));
    await prepared.restoreWorkspace();
    const given = calls.splice(0);
    expect(given).toStrictEqual([
      ["makeDir"],
      ["writeFile", { ...progress, signal }],
      ["run", { ...during, signal }],
      ["run", during],
      ["readFile", progress],
      ["remove"],
    ]);
    expect(given[1][1].signal).toBe(signal);
  });

  it("stops all current work through one listener", async () => {
    const { controller, signal } = counted();
    const client = new MemorySandbox(edited());
    const stopped = [];
    client.writeFile = (_path, _bytes, options) =>
      new Promise((_, reject) => {
        options.signal.addEventListener("abort", () => {
          stopped.push(options.signal.reason);
          reject(new Error("another"));
        });
        controller.abort("stop");
      });
    await expect(addon.prepareSandboxManagedRuntime(inputFor(client, { signal }))).rejects.toBe("stop");
    expect(stopped).toStrictEqual(["stop"]);
  });
});

describe("memory for an archive", () => {
  it("that does not fit because the folder changed is released at once", async () => {
    await makeTree(workspace, { "large.bin": "x".repeat(2_000_000) });
    const { code, stdout, stderr } = await runScript("upload-given-back.mjs", [workspace], {
      execArgv: ["--expose-gc"],
    });
    expect({ code, stdout, stderr }).toStrictEqual({
      code: 0,
      stdout: "2 made, the first collected\n",
      stderr: "",
    });
  });

  it("larger than Node's largest buffer is not even requested", async () => {
    const calls = new ClientCalls({
      client: {},
      spec: {},
      lease: new LeaseKeeper(),
      abort: new Abort(),
      listeners: {},
    });
    const { failure } = await calls.dispatch({
      op: "allocate",
      upload: 0,
      size: constants.MAX_LENGTH + 2 ** 12,
    });
    const error = calls.failure(new Error(JSON.stringify(failure)));
    expect(error).toMatchObject({ code: "ERR_SANDBOX_UNSUPPORTED" });
    expect(error.message).toContain(`this Node's buffers end at ${constants.MAX_LENGTH} bytes`);
  });
});

describe("an error of the binding", () => {
  it.each([
    ["words", new Error("Closing")],
    ["nothing", new Error("")],
    ["JSON of its own", new Error("5")],
    ["null", new Error("null")],
    ["a list", new Error("[]")],
    ["no error", "text"],
    ["undefined", undefined],
  ])("of another form is an error of this package with the original as its cause: %s", (_, cause) => {
    expect(fromNative(cause)).toMatchObject({
      code: "ERR_SANDBOX_INTERNAL",
      message: expect.stringContaining("please report it"),
      cause,
    });
  });

  it("names the operation also if no system call failed", () => {
    const failure = {
      message: "EBUSY: it is a mount point, rename '/m'",
      code: "EBUSY",
      syscall: "rename",
      path: "/m",
    };
    const error = fromNative(new Error(JSON.stringify(failure)));
    expect({ ...error, message: error.message }).toEqual(failure);
  });

  it("has our code for text of any length", async () => {
    // More than a JavaScript string can hold, if it were reported in full.
    const name = Buffer.alloc(44_000_000, 0xff);
    const archive = makeArchive([{ name: "././@LongLink", type: "L", content: name }, { name: "a" }]);
    const client = new MemorySandbox(archive);
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(client));
    const error = await prepared.restoreWorkspace().then(
      () => expect.unreachable("it was accepted"),
      (caught) => caught,
    );
    expect(error.code).toMatch(/^ERR_SANDBOX_/);
    expect(error.message.length).toBeLessThanOrEqual(65_537);
  });
});

describe("the messages of a sandbox's tar", () => {
  it("are read up to 64 KiB, whatever the client returns", async () => {
    const reports = [];
    const client = new MemorySandbox();
    let runs = 0;
    client.run = async () => {
      if (++runs === 2) throw new Error("tar failed");
    };
    client.readFile = async (remotePath) =>
      remotePath.endsWith(".tar") ? edited() : Buffer.from(`2\n${"\u{1F600}\xff".repeat(30_000_000)}`);
    const onReport = (report) => reports.push(report);
    const prepared = await addon.prepareSandboxManagedRuntime(inputFor(client, { onReport }));
    await prepared.restoreWorkspace();
    expect(reports[0].tolerant).toBe(true);
    const length = Buffer.byteLength(reports[0].tarMessages);
    expect(length).toBeGreaterThan(60_000);
    expect(length).toBeLessThanOrEqual(65_536);
  });
});
