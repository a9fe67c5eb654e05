// Invalid arguments are refused with an error that names them, before anything is done.

import path from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import * as addon from "../index.js";
import { differences, readTree } from "./support/tree.mjs";
import { makeTree, temporaryFolder, watchTemporaryFiles } from "./support/folders.mjs";
import { MemorySandbox } from "./support/memory.mjs";
import { specFor } from "./support/spec.mjs";
import { makeArchive } from "./support/tar.mjs";

const TYPE = "ERR_INVALID_ARG_TYPE";
const VALUE = "ERR_INVALID_ARG_VALUE";

let home;
let workspace;
let client;
let before;
let temporary;

// Once for all tests, because nothing here changes anything.
beforeAll(async () => {
  temporary = await watchTemporaryFiles(afterAll);
  home = await temporaryFolder(afterAll);
  workspace = path.join(home, "workspace");
  await makeTree(home, { "workspace/a.txt": "a", "workspace/sub/b.txt": "b", "other/c.txt": "c", file: "f" });
  before = await readTree(home);
});

beforeEach(() => {
  client = new MemorySandbox(
    makeArchive([
      { name: "a.txt", content: "a" },
      { name: "sub/", type: "5", mode: 0o755 },
      { name: "sub/b.txt", content: "b" },
    ]),
  );
});

const at = (...names) => path.join(home, ...names);

/**
 * Asserts that nothing was done: no local file changed, no temporary file is left, and the sandbox was not
 * called.
 */
async function expectUntouched() {
  expect(differences(before, await readTree(home), { exact: true })).toStrictEqual([]);
  // The folders that `temporaryFolder` made belong to this test.
  expect((await temporary()).filter((name) => !home.endsWith(name))).toStrictEqual([]);
  expect(client.methods).toStrictEqual([]);
}

/**
 * The promise rejects with that code, and the message names the argument.
 *
 * @param {Promise<unknown>} promise
 */
async function expectRefused(promise, code, argument) {
  const error = await promise.then(
    () => expect.unreachable("it was accepted"),
    (caught) => caught,
  );
  expect(error).toBeInstanceOf(code.startsWith("ERR_INVALID_ARG") ? TypeError : Error);
  expect(error).toMatchObject({ code, message: expect.stringContaining(argument) });
  await expectUntouched();
}

const NO_STRINGS = [
  undefined,
  null,
  5,
  true,
  {},
  [],
  ["text"],
  Symbol("text"),
  () => {},
  new String("text"),
  Buffer.from("x"),
];
const NO_OBJECTS = [undefined, null, 5, "text", true, Symbol("object"), () => {}];
const NO_LISTS = [5, "text", true, {}, new Set(["a"]), { length: 1, 0: "a" }];
const BAD_PATHS = ["", "a\0b", "\0"];

/** Each invalid value for a path: the value, the code, and a description. */
const badPaths = [...NO_STRINGS.map((value) => [value, TYPE]), ...BAD_PATHS.map((value) => [value, VALUE])];
/** The same for an optional path, where `undefined` and `null` are valid. */
const badLists = (argument) => [
  ...NO_LISTS.map((value) => [value, TYPE, argument]),
  [["good", 5], TYPE, `${argument}[1]`],
  [[undefined], TYPE, `${argument}[0]`],
  // eslint-disable-next-line no-sparse-arrays
  [[, "good"], TYPE, `${argument}[0]`],
  [["good", "a\0b"], VALUE, `${argument}[1]`],
];
const badSignals = [5, "text", true, {}, { aborted: true }, new EventTarget()];

const titled = (cases) => cases.map(([value, ...rest]) => [inspect(value), value, ...rest]);

describe("createTarballFromDirectory", () => {
  const pack = (more) =>
    addon.createTarballFromDirectory({ localDir: workspace, archivePath: at("x.tar"), ...more });

  it.each(titled(NO_OBJECTS.map((value) => [value])))("refuses %s for its input", (_, value) =>
    expectRefused(addon.createTarballFromDirectory(value), TYPE, '"input"'),
  );
  it.each(titled(badPaths))("refuses %s for localDir", (_, localDir, code) =>
    expectRefused(pack({ localDir }), code, "input.localDir"),
  );
  it.each(titled(badPaths))("refuses %s for archivePath", (_, archivePath, code) =>
    expectRefused(pack({ archivePath }), code, "input.archivePath"),
  );
  it.each(titled(badLists("input.exclude")))("refuses %s for exclude", (_, exclude, code, argument) =>
    expectRefused(pack({ exclude }), code, argument),
  );
  it.each(titled(badSignals.map((value) => [value])))("refuses %s for signal", (_, signal) =>
    expectRefused(pack({ signal }), TYPE, "input.signal"),
  );
  it.each([
    ["a folder that is missing", () => at("missing"), "ENOENT"],
    ["a file", () => at("file"), "ENOTDIR"],
    ["a path below a file", () => at("file", "below"), "ENOTDIR"],
    ["a path that is too long", () => at("x".repeat(300)), "ENAMETOOLONG"],
  ])("refuses %s for localDir", (_, localDir, code) =>
    expectRefused(pack({ localDir: localDir() }), code, localDir()),
  );
});

describe("mirrorDirectory", () => {
  it.each(titled(badPaths))("refuses %s for sourceDir", (_, value, code) =>
    expectRefused(addon.mirrorDirectory(value, workspace), code, "sourceDir"),
  );
  it.each(titled(badPaths))("refuses %s for targetDir", (_, value, code) =>
    expectRefused(addon.mirrorDirectory(workspace, value), code, "targetDir"),
  );
  it.each(
    titled(NO_OBJECTS.filter((value) => value !== undefined && value !== null).map((value) => [value])),
  )("refuses %s for its options", (_, value) =>
    expectRefused(addon.mirrorDirectory(workspace, at("other"), value), TYPE, '"options"'),
  );
  it.each(titled(badLists("options.preserveAbsent")))(
    "refuses %s for preserveAbsent",
    (_, value, code, argument) =>
      expectRefused(addon.mirrorDirectory(workspace, at("other"), { preserveAbsent: value }), code, argument),
  );
  it.each(titled(badSignals.map((value) => [value])))("refuses %s for signal", (_, signal) =>
    expectRefused(addon.mirrorDirectory(workspace, at("other"), { signal }), TYPE, "options.signal"),
  );
  it("refuses a file for a target", () =>
    expectRefused(addon.mirrorDirectory(workspace, at("file")), "EEXIST", at("file")));
});

describe("prepareSandboxManagedRuntime", () => {
  const prepare = (more) =>
    addon.prepareSandboxManagedRuntime({
      spec: specFor("/remote/workspace"),
      adapterKey: "test",
      client,
      workspaceLocalDir: workspace,
      ...more,
    });
  const optional = (values) => values.filter((value) => value !== undefined && value !== null);

  it.each(titled(NO_OBJECTS.map((value) => [value])))("refuses %s for its input", (_, value) =>
    expectRefused(addon.prepareSandboxManagedRuntime(value), TYPE, '"input"'),
  );
  it.each(titled(NO_OBJECTS.map((value) => [value])))("refuses %s for spec", (_, spec) =>
    expectRefused(prepare({ spec }), TYPE, "input.spec"),
  );
  it.each(titled(NO_OBJECTS.filter((value) => typeof value !== "function").map((value) => [value])))(
    "refuses %s for client",
    (_, value) => expectRefused(prepare({ client: value }), TYPE, "input.client"),
  );
  it.each(["makeDir", "writeFile", "run"])("refuses a client without %s", async (method) => {
    for (const value of [undefined, null, 5, "text", {}]) {
      client[method] = value;
      await expectRefused(prepare(), TYPE, `input.client.${method}`);
    }
  });
  it.each(titled(badPaths))("refuses %s for workspaceLocalDir", (_, workspaceLocalDir, code) =>
    expectRefused(prepare({ workspaceLocalDir }), code, "input.workspaceLocalDir"),
  );
  it.each([
    ["a folder that is missing", "missing", "ENOENT"],
    ["a file", "file", "ENOTDIR"],
  ])("refuses %s for a workspace", (_, name, code) =>
    expectRefused(prepare({ workspaceLocalDir: at(name) }), code, at(name)),
  );

  const badRemotes = [
    "",
    "relative",
    "./relative",
    "../up",
    "~",
    "/",
    "//",
    "/.",
    "/..",
    "/a/..",
    "/a/../..",
    "/a\0b",
  ];
  it.each(titled(badRemotes.map((value) => [value])))("refuses %s for a remote folder", async (_, remote) => {
    await expectRefused(prepare({ workspaceRemoteDir: remote }), VALUE, "input.workspaceRemoteDir");
    await expectRefused(prepare({ spec: specFor(remote) }), VALUE, "input.spec.remoteCwd");
  });
  it.each(titled(optional(NO_STRINGS).map((value) => [value])))(
    "refuses %s for a remote folder's type",
    (_, value) => expectRefused(prepare({ workspaceRemoteDir: value }), TYPE, "input.workspaceRemoteDir"),
  );
  it.each(titled(NO_STRINGS.map((value) => [value])))("refuses %s for spec.remoteCwd", (_, remoteCwd) =>
    expectRefused(prepare({ spec: { ...specFor("/"), remoteCwd } }), TYPE, "input.spec.remoteCwd"),
  );

  const badKeys = [
    ...NO_STRINGS.map((value) => [value, TYPE]),
    ...["", ".", "..", "a/b", "/", "a\0b"].map((key) => [key, VALUE]),
  ];
  it.each(titled(badKeys))("refuses %s for adapterKey", (_, adapterKey, code) =>
    expectRefused(prepare({ adapterKey }), code, "input.adapterKey"),
  );
  it.each(titled(badKeys))("refuses %s for an asset's key", (_, key, code) =>
    expectRefused(
      prepare({
        assets: [
          { key: "good", localDir: workspace },
          { key, localDir: workspace },
        ],
      }),
      code,
      "input.assets[1].key",
    ),
  );
  it("refuses two assets with one key", () =>
    expectRefused(
      prepare({ assets: ["a", "b", "a"].map((key) => ({ key, localDir: workspace })) }),
      VALUE,
      "input.assets[2].key",
    ));
  it.each(titled(NO_LISTS.map((value) => [value])))("refuses %s for assets", (_, assets) =>
    expectRefused(prepare({ assets }), TYPE, "input.assets"),
  );
  it.each(titled([...NO_OBJECTS.map((value) => [[value]]), [[,]]]))(
    "refuses %s for a list of assets",
    (_, assets) => expectRefused(prepare({ assets }), TYPE, "input.assets[0]"),
  );
  it.each(titled(badPaths))("refuses %s for an asset's localDir", (_, localDir, code) =>
    expectRefused(prepare({ assets: [{ key: "a", localDir }] }), code, "input.assets[0].localDir"),
  );
  it.each([
    ["a folder that is missing", "missing", "ENOENT"],
    ["a file", "file", "ENOTDIR"],
  ])("refuses %s for an asset, before the first client call", (_, name, code) =>
    expectRefused(prepare({ assets: [{ key: "a", localDir: at(name) }] }), code, at(name)),
  );
  it.each(titled(badLists("input.assets[0].exclude")))(
    "refuses %s for an asset's exclude",
    (_, exclude, code, argument) =>
      expectRefused(prepare({ assets: [{ key: "a", localDir: workspace, exclude }] }), code, argument),
  );
  it.each(titled(badLists("input.workspaceExclude")))(
    "refuses %s for workspaceExclude",
    (_, value, code, argument) => expectRefused(prepare({ workspaceExclude: value }), code, argument),
  );
  it.each(titled(badLists("input.preserveAbsentOnRestore")))(
    "refuses %s for preserveAbsentOnRestore",
    (_, value, code, argument) => expectRefused(prepare({ preserveAbsentOnRestore: value }), code, argument),
  );
  it.each(["onProgress", "onRuntimeProgress", "onReport", "onPrepareReport"])(
    "refuses what is no function for %s",
    async (name) => {
      for (const value of [5, "text", true, {}, []])
        await expectRefused(prepare({ [name]: value }), TYPE, `input.${name}`);
    },
  );
  it("refuses a lease that cannot be refreshed", async () => {
    for (const lease of [5, "text", true]) await expectRefused(prepare({ lease }), TYPE, "input.lease");
    for (const refresh of [undefined, null, 5, {}]) {
      await expectRefused(prepare({ lease: { refresh } }), TYPE, "input.lease.refresh");
    }
    for (const intervalMs of [0, -1, NaN, Infinity, 2 ** 31, "5", null, {}]) {
      await expectRefused(prepare({ lease: { refresh() {}, intervalMs } }), VALUE, "input.lease.intervalMs");
    }
  });
  it("refuses a keepConflictsDays that is not a number of days", async () => {
    for (const keepConflictsDays of ["5", true, {}, 5n])
      await expectRefused(prepare({ keepConflictsDays }), TYPE, "input.keepConflictsDays");
    for (const keepConflictsDays of [-1, NaN, -Infinity]) {
      await expectRefused(prepare({ keepConflictsDays }), VALUE, "input.keepConflictsDays");
    }
  });

  it("refuses a concurrency that is not a number from 1 to 16", async () => {
    for (const concurrency of ["5", true, {}, 5n])
      await expectRefused(prepare({ concurrency }), TYPE, "input.concurrency");
    for (const concurrency of [0, -1, 17, 1.5, NaN, Infinity]) {
      await expectRefused(prepare({ concurrency }), VALUE, "input.concurrency");
    }
  });
  it("refuses a partBytes that is not a whole number from 64 KiB to 1 GiB", async () => {
    for (const partBytes of ["65536", true, {}, 65536n])
      await expectRefused(prepare({ partBytes }), TYPE, "input.partBytes");
    for (const partBytes of [0, -1, 65535, 65536.5, 2 ** 30 + 1, NaN, Infinity]) {
      await expectRefused(prepare({ partBytes }), VALUE, "input.partBytes");
    }
    for (const partBytes of [65536, 2 ** 30]) await prepare({ partBytes });
    client.methods.length = 0;
    await expectUntouched();
  });
  it("refuses an unknown compression", async () => {
    for (const compression of [5, true, {}, ["auto"]])
      await expectRefused(prepare({ compression }), TYPE, "input.compression");
    for (const compression of ["", "gzip", "Auto"]) {
      await expectRefused(prepare({ compression }), VALUE, "input.compression");
    }
    for (const compression of ["auto", "none"]) await prepare({ compression });
    client.methods.length = 0;
    await expectUntouched();
  });
  describe("a field of adapter-utils' newer releases that changes what happens to files", () => {
    const asset = (more) => ({ assets: [{ key: "a", localDir: workspace, ...more }] });
    const empty = { exclude: [], entries: new Map() };
    it.each([
      ["syncWorkspace", [false, 0, "", "true"], [true]],
      ["workspaceInboundMode", ["durable_seed", "adopt_remote", "other", 5], ["host_current"]],
      ["workspaceBaseline", [empty, false], []],
      ["workspaceDurableSeed", [{ workspaceArchivePath: "/a.tar" }, {}], []],
      ["workspaceGitSnapshot", [{ head: "a" }, {}], []],
      ["additionalSources", [[{ localPath: "/a", projectId: "p" }], {}], [[]]],
    ])("is refused, but where it asks for what is done anyhow: %s", async (name, refused, accepted) => {
      for (const value of refused) await expectRefused(prepare({ [name]: value }), VALUE, `input.${name}`);
      for (const value of [...accepted, undefined, null]) {
        client.methods.length = 0;
        await prepare({ [name]: value });
      }
    });

    it.each([
      [
        "provision",
        [{ postUploadCommand: () => "" }, { stageFiles: [{ name: "a", contents: "" }] }, "text"],
        [{}, { stageFiles: [] }, { postUploadCommand: undefined }],
      ],
      ["restore", [async () => {}, {}], []],
    ])("of an asset is refused, but where it asks for nothing: %s", async (name, refused, accepted) => {
      for (const value of refused) {
        await expectRefused(prepare(asset({ [name]: value })), VALUE, `input.assets[0].${name}`);
      }
      for (const value of [...accepted, undefined, null]) {
        client.methods.length = 0;
        await prepare(asset({ [name]: value }));
      }
    });

    it("is ignored if its value changes nothing", async () => {
      await prepare({ runtimeSpan: 5, anything: Symbol("else"), ...asset({ more: 1 }) });
      expect(client.methods).toContain("writeFile");
    });
  });

  it.each(titled(badSignals.map((value) => [value])))("refuses %s for signal", (_, signal) =>
    expectRefused(prepare({ signal }), TYPE, "input.signal"),
  );

  it("accepts undefined and null for everything optional", async () => {
    for (const nothing of [undefined, null]) {
      const prepared = await prepare({
        workspaceRemoteDir: nothing,
        workspaceExclude: nothing,
        preserveAbsentOnRestore: nothing,
        assets: nothing,
        onProgress: nothing,
        onRuntimeProgress: nothing,
        onReport: nothing,
        onPrepareReport: nothing,
        lease: nothing,
        signal: nothing,
        concurrency: nothing,
        partBytes: nothing,
        compression: nothing,
      });
      expect(prepared.workspaceRemoteDir).toBe("/remote/workspace");
      await prepared.restoreWorkspace(nothing, nothing);
    }
    client.methods.length = 0;
    await expectUntouched();
  });

  describe("its restoreWorkspace", () => {
    let prepared;

    beforeEach(async () => {
      prepared = await prepare();
      client.methods.length = 0;
    });

    it.each(["run", "readFile", "remove"])("refuses a client without %s", async (method) => {
      for (const value of [undefined, null, 5, "text", {}]) {
        client[method] = value;
        await expectRefused(prepared.restoreWorkspace(), TYPE, `input.client.${method}`);
      }
    });

    it("refuses an onProgress that is not a function, and options that are not an object", async () => {
      for (const value of [5, "text", true, {}])
        await expectRefused(prepared.restoreWorkspace(value), TYPE, "onProgress");
      for (const value of [5, "text", true, () => {}]) {
        await expectRefused(prepared.restoreWorkspace(undefined, value), TYPE, "options");
      }
      for (const signal of badSignals) {
        await expectRefused(prepared.restoreWorkspace(undefined, { signal }), TYPE, "options.signal");
      }
    });
  });
});

describe("captureDirectorySnapshot", () => {
  it.each(titled(badPaths))("refuses %s for rootDir", (_, value, code) =>
    expectRefused(addon.captureDirectorySnapshot(value), code, "rootDir"),
  );
  it.each(titled([5, "text", true, () => {}].map((value) => [value])))(
    "refuses %s for its options",
    (_, value) => expectRefused(addon.captureDirectorySnapshot(workspace, value), TYPE, '"options"'),
  );
  it.each(titled(badLists("options.exclude")))("refuses %s for exclude", (_, exclude, code, argument) =>
    expectRefused(addon.captureDirectorySnapshot(workspace, { exclude }), code, argument),
  );
});

describe("mergeDirectoryWithBaseline", () => {
  const empty = { exclude: [], entries: new Map() };
  const merge = (more) =>
    addon.mergeDirectoryWithBaseline({
      baseline: empty,
      sourceDir: at("other"),
      targetDir: workspace,
      ...more,
    });

  it.each(titled(NO_OBJECTS.map((value) => [value])))("refuses %s for its input", (_, value) =>
    expectRefused(addon.mergeDirectoryWithBaseline(value), TYPE, '"input"'),
  );
  it.each(titled(NO_OBJECTS.map((value) => [value])))("refuses %s for baseline", (_, baseline) =>
    expectRefused(merge({ baseline }), TYPE, "input.baseline"),
  );
  it.each(titled([undefined, null, {}, [], "text", new WeakMap(), new Set()].map((value) => [value])))(
    "refuses %s for the baseline's entries",
    (_, entries) =>
      expectRefused(merge({ baseline: { exclude: [], entries } }), TYPE, "input.baseline.entries"),
  );
  it.each(titled(badLists("input.baseline.exclude")))(
    "refuses %s for the baseline's exclude",
    (_, exclude, code, argument) => expectRefused(merge({ baseline: { ...empty, exclude } }), code, argument),
  );
  it.each(titled(badPaths))("refuses %s for sourceDir", (_, sourceDir, code) =>
    expectRefused(merge({ sourceDir }), code, "input.sourceDir"),
  );
  it.each(titled(badPaths))("refuses %s for targetDir", (_, targetDir, code) =>
    expectRefused(merge({ targetDir }), code, "input.targetDir"),
  );
  it.each(["beforeApply", "afterApply"])("refuses what is no function for %s", async (name) => {
    for (const value of [5, "text", true, {}])
      await expectRefused(merge({ [name]: value }), TYPE, `input.${name}`);
  });

  const hash = "0".repeat(64);
  it.each(
    titled([
      [5, {}],
      ["a", undefined],
      ["a", null],
      ["a", "dir"],
      ["a", {}],
      ["a", { kind: "fifo" }],
      ["a", { kind: "file", hash }],
      ["a", { kind: "file", mode: "0644", hash }],
      ["a", { kind: "file", mode: 0o644 }],
      ["a", { kind: "file", mode: 0o644, hash: 5 }],
      ["a", { kind: "file", mode: 0o644, hash: "text" }],
      ["a", { kind: "file", mode: 0o644, hash: hash.slice(1) }],
      ["a", { kind: "symlink" }],
      ["a", { kind: "symlink", target: 5 }],
    ]),
  )("refuses the entry of %s", async (_, name, entry) => {
    await expectRefused(
      merge({ baseline: { exclude: [], entries: new Map([[name, entry]]) } }),
      VALUE,
      "entries",
    );
  });
  it.each(titled(["", ".", "..", "../up", "/absolute", "a/../b", "a\0b"].map((value) => [value])))(
    "refuses %s for an entry's path",
    (_, name) =>
      expectRefused(
        merge({ baseline: { exclude: [], entries: new Map([[name, { kind: "dir" }]]) } }),
        "ERR_SANDBOX_UNSAFE_PATH",
        "baseline",
      ),
  );
  it.each([
    ["a folder that is missing", "missing", "ENOENT"],
    ["a file", "file", "ENOTDIR"],
  ])("refuses %s for a source", (_, name, code) =>
    expectRefused(merge({ sourceDir: at(name) }), code, at(name)),
  );
  it("refuses a file for a target", () =>
    expectRefused(merge({ targetDir: at("file") }), "EEXIST", at("file")));
});

describe("withDirectoryMergeLock", () => {
  it.each(titled(badPaths))("refuses %s for targetDir", (_, value, code) =>
    expectRefused(
      addon.withDirectoryMergeLock(value, () => expect.unreachable()),
      code,
      "targetDir",
    ),
  );
  it.each(titled([undefined, null, 5, "text", {}, Promise.resolve()].map((value) => [value])))(
    "refuses %s for fn, and takes no lock",
    (_, fn) => expectRefused(addon.withDirectoryMergeLock(workspace, fn), TYPE, '"fn"'),
  );
});

describe("directoryEntryMatchesBaseline", () => {
  it.each(titled(badPaths))("refuses %s for rootDir", (_, value, code) =>
    expectRefused(addon.directoryEntryMatchesBaseline(value, "a.txt", { kind: "dir" }), code, "rootDir"),
  );
  it.each(titled(NO_STRINGS.map((value) => [value])))("refuses %s for relative", (_, value) =>
    expectRefused(addon.directoryEntryMatchesBaseline(workspace, value, { kind: "dir" }), TYPE, "relative"),
  );
  const noEntries = NO_OBJECTS.filter((value) => value !== undefined && value !== null);
  it.each(titled(noEntries.map((value) => [value])))("refuses %s for baselineEntry", (_, value) =>
    expectRefused(addon.directoryEntryMatchesBaseline(workspace, "a.txt", value), TYPE, "baselineEntry"),
  );
  it("treats a missing entry of a map as matching nothing", async () => {
    expect(await addon.directoryEntryMatchesBaseline(workspace, "a.txt", new Map().get("a.txt"))).toBe(false);
    expect(await addon.directoryEntryMatchesBaseline(workspace, "a.txt", null)).toBe(false);
  });
  it.each(titled(["../file", "/etc", "a\0b"].map((value) => [value])))(
    "refuses to look at %s",
    (_, relative) =>
      expectRefused(
        addon.directoryEntryMatchesBaseline(workspace, relative, { kind: "dir" }),
        "ERR_SANDBOX_UNSAFE_PATH",
        "unsafe path",
      ),
  );
});

describe("a message", () => {
  it("states what was expected and what was received, in Node's words", async () => {
    const message = (promise) => promise.catch((error) => error.message);
    expect(await message(addon.createTarballFromDirectory({ localDir: 5 }))).toBe(
      'The "input.localDir" argument must be of type string. Received type number (5)',
    );
    expect(await message(addon.createTarballFromDirectory())).toBe(
      'The "input" argument must be of type object. Received undefined',
    );
    expect(await message(addon.withDirectoryMergeLock(workspace, new Map()))).toBe(
      'The "fn" argument must be of type function. Received an instance of Map',
    );
    expect(await message(addon.captureDirectorySnapshot(""))).toMatch(
      /^The argument 'rootDir' is invalid: .*Received ''$/,
    );
    expect(await message(addon.captureDirectorySnapshot(function named() {}))).toMatch(
      /Received function named$/,
    );
    await expectUntouched();
  });
});

it("a client that fails leaves no file behind", async () => {
  client.writeFile = () => Promise.reject(new Error("disk full"));
  const failed = addon.prepareSandboxManagedRuntime({
    spec: specFor("/remote/workspace"),
    adapterKey: "test",
    client,
    workspaceLocalDir: workspace,
    assets: [{ key: "a", localDir: at("other") }],
  });
  await expect(failed).rejects.toThrow("disk full");
  client.methods.length = 0;
  await expectUntouched();
});
