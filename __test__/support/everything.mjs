// Makes every kind of call again and again, until it is stopped from outside.

import path from "node:path";
import * as addon from "../../index.js";
import { MemorySandbox } from "./memory.mjs";
import { specFor } from "./spec.mjs";
import { makeArchive } from "./tar.mjs";

/** @param {string} folder A workspace; other files are made beside it. */
export function everything(folder) {
  const beside = (name) => path.join(path.dirname(folder), name);
  const download = makeArchive([{ name: "large.bin", content: "y".repeat(1_000_000) }]);
  const work = [
    async () => {
      const prepared = await addon.prepareSandboxManagedRuntime({
        spec: specFor("/remote"),
        adapterKey: "test",
        client: new MemorySandbox(download, { marked: true }),
        workspaceLocalDir: folder,
        assets: ["a", "b", "c"].map((key) => ({ key, localDir: folder })),
        concurrency: 3,
        lease: { refresh: async () => {}, intervalMs: 1, keepAliveBetween: true },
        onProgress: () => {},
      });
      await prepared.restoreWorkspace();
    },
    () => addon.createTarballFromDirectory({ localDir: folder, archivePath: beside("archive.tar") }),
    () => addon.mirrorDirectory(folder, beside("mirror")),
    () => addon.captureDirectorySnapshot(folder),
    async () =>
      addon.mergeDirectoryWithBaseline({
        baseline: await addon.captureDirectorySnapshot(folder),
        sourceDir: folder,
        targetDir: beside("merged"),
      }),
    () => addon.withDirectoryMergeLock(beside("locked"), () => new Promise(setImmediate)),
    () => addon.directoryEntryMatchesBaseline(folder, "large.bin", { kind: "dir" }),
  ];
  for (const step of work) {
    const again = () => step().then(again, again);
    again();
  }
}
