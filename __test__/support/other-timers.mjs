// node other-timers.mjs FOLDER HOW: makes every call that takes several turns of the event loop, with other timers
// than JavaScript's, and prints "done" when all have settled. HOW: `removed`, as in jsdom, or `still`: they never fire, nor
// do those of node:timers.

import timers from "node:timers";
import path from "node:path";
import { MemorySandbox } from "./memory.mjs";
import { specFor } from "./spec.mjs";
import { makeArchive } from "./tar.mjs";

const [folder, how] = process.argv.slice(2);
const NAMES = [
  "setImmediate",
  "setTimeout",
  "setInterval",
  "clearImmediate",
  "clearTimeout",
  "clearInterval",
];
for (const name of NAMES) {
  if (how === "removed" && name.endsWith("Immediate")) delete globalThis[name];
  if (how === "still") globalThis[name] = timers[name] = () => ({});
}
globalThis.queueMicrotask = () => {};
process.nextTick = how === "still" ? () => {} : process.nextTick;

// Loaded afterwards, as in a test whose environment exists already.
const addon = await import("../../index.js");

const entries = Array.from({ length: 2500 }, (_, at) => ({ name: `file-${at}`, content: `${at}` }));
let reported;
const prepared = await addon.prepareSandboxManagedRuntime({
  spec: specFor("/remote"),
  adapterKey: "test",
  client: new MemorySandbox(makeArchive(entries), { marked: true }),
  workspaceLocalDir: folder,
  lease: { refresh: async () => {}, intervalMs: 5, keepAliveBetween: true },
  onReport: (report) => (reported = report),
});
await prepared.restoreWorkspace();
const baseline = await addon.captureDirectorySnapshot(folder);
await addon.mergeDirectoryWithBaseline({
  baseline,
  sourceDir: folder,
  targetDir: path.join(path.dirname(folder), "merged"),
});
console.log(reported.written.length, baseline.entries.size);
