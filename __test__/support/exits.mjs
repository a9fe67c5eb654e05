// node exits.mjs WHAT FOLDER: calls one export without awaiting it at the top, and prints "done" when it has settled.

import path from "node:path";
import * as addon from "../../index.js";
import { MemorySandbox } from "./memory.mjs";
import { makeArchive } from "./tar.mjs";

const [what, folder] = process.argv.slice(2);
const beside = (name) => path.join(path.dirname(folder), name);

const prepare = (more) =>
  addon.prepareSandboxManagedRuntime({
    spec: { remoteCwd: "/remote", timeoutMs: 1000 },
    adapterKey: "test",
    client: new MemorySandbox(makeArchive([{ name: "a.txt", content: "edited" }])),
    workspaceLocalDir: folder,
    ...more,
  });

const CALLS = {
  prepare,
  restore: async () => (await prepare()).restoreWorkspace(),
  keepAliveBetween: () =>
    prepare({ lease: { refresh: async () => {}, intervalMs: 5, keepAliveBetween: true } }),
  createTarballFromDirectory: () =>
    addon.createTarballFromDirectory({ localDir: folder, archivePath: beside("archive.tar") }),
  mirrorDirectory: () => addon.mirrorDirectory(folder, beside("mirror")),
  captureDirectorySnapshot: () => addon.captureDirectorySnapshot(folder),
  mergeDirectoryWithBaseline: () =>
    addon.mergeDirectoryWithBaseline({
      baseline: { exclude: [], entries: new Map() },
      sourceDir: folder,
      targetDir: beside("target"),
    }),
  withDirectoryMergeLock: () => addon.withDirectoryMergeLock(folder, () => new Promise(setImmediate)),
  directoryEntryMatchesBaseline: () => addon.directoryEntryMatchesBaseline(folder, "a.txt", { kind: "dir" }),
  unhandled: prepare,
};

CALLS[what]().then(() => console.log("done"));
