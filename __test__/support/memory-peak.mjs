// node --expose-gc memory-peak.mjs FOLDER SANDBOX: uploads a folder to a sandbox and restores it. Prints the peak of memory of each,
// in bytes, above that of the idle process.

import { appendFile } from "node:fs/promises";
import path from "node:path";
import { forgetGarbage, peakBytes, residentBytes, resetPeak } from "../../benches/probe.mjs";
import { createLocalClient } from "../../clients/local.js";
import * as addon from "../../index.js";
import { specFor } from "./spec.mjs";

const [folder, sandbox] = process.argv.slice(2);
forgetGarbage();
const idle = residentBytes();

/** @param {() => Promise<unknown>} work */
async function peakOf(work) {
  forgetGarbage();
  resetPeak();
  await work();
  return peakBytes() - idle;
}

const remote = path.join(sandbox, "work");
let prepared;
const up = await peakOf(async () => {
  prepared = await addon.prepareSandboxManagedRuntime({
    spec: { ...specFor(remote), timeoutMs: 3_600_000 },
    adapterKey: "test",
    client: createLocalClient({ root: sandbox }),
    workspaceLocalDir: folder,
    transfer: "full",
  });
});
await appendFile(path.join(remote, "large", "0"), "changed there");
const down = await peakOf(() => prepared.restoreWorkspace());
console.log(JSON.stringify({ up, down }));
