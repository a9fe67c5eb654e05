// node few-threads.mjs FOLDER USER: makes every kind of call as that user, and prints how each settled. It waits for a
// line on standard input before the first round and before each further one, so that a limit may be set meanwhile.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import * as addon from "../../index.js";
import { MemorySandbox } from "./memory.mjs";
import { specFor } from "./spec.mjs";
import { makeArchive } from "./tar.mjs";

const [folder, user] = process.argv.slice(2);
process.setgroups([]);
process.setgid(Number(user));
process.setuid(Number(user));

const beside = (name) => path.join(path.dirname(folder), name);
const download = makeArchive([{ name: "large.bin", content: "y".repeat(100_000) }]);

const CALLS = {
  roundTrip: async () => {
    const prepared = await addon.prepareSandboxManagedRuntime({
      spec: specFor("/remote"),
      adapterKey: "test",
      client: new MemorySandbox(download, { marked: true }),
      workspaceLocalDir: beside("agent"),
      assets: ["a", "b", "c"].map((key) => ({ key, localDir: folder })),
      concurrency: 3,
    });
    await prepared.restoreWorkspace();
  },
  pack: () => addon.createTarballFromDirectory({ localDir: folder, archivePath: beside("archive.tar") }),
  mirror: () => addon.mirrorDirectory(folder, beside("mirror")),
  snapshot: () => addon.captureDirectorySnapshot(folder),
  merge: () =>
    addon.mergeDirectoryWithBaseline({
      baseline: { exclude: [], entries: new Map() },
      sourceDir: folder,
      targetDir: beside("merged"),
    }),
  lock: () => addon.withDirectoryMergeLock(beside("locked"), () => new Promise(setImmediate)),
  entry: () => addon.directoryEntryMatchesBaseline(folder, "sub/file-1", { kind: "dir" }),
};

/** An upload whose parts are compressed and copied by other threads than the one that packs them. */
const inParts = async () => {
  const prepared = await addon.prepareSandboxManagedRuntime({
    spec: specFor("/remote"),
    adapterKey: "test",
    client: Object.assign(new MemorySandbox(download, { marked: true }), {
      // So slow that compression pays.
      writeFile: () => new Promise((done) => setTimeout(done, 5)),
    }),
    workspaceLocalDir: beside("large"),
    partBytes: 65_536,
  });
  return prepared;
};

// Node makes four threads of its own with the first file, and aborts if it cannot.
await Promise.all(Array.from({ length: 8 }, () => readFile(import.meta.filename ?? process.argv[1])));
console.log("ready");

const outcome = (promise) =>
  promise.then(
    () => "done",
    ({ code, syscall, message }) => ({ code, syscall, message }),
  );
for await (const order of createInterface({ input: process.stdin })) {
  const settled = {};
  if (order === "in parts") {
    settled.inParts = await outcome(inParts());
  } else if (order === "one by one") {
    for (const [name, call] of Object.entries(CALLS)) settled[name] = await outcome(call());
  } else {
    const all = Object.entries(CALLS).map(async ([name, call]) => (settled[name] = await outcome(call())));
    await Promise.all(all);
  }
  console.log(JSON.stringify(settled));
}
