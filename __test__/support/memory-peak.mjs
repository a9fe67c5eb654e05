// node --expose-gc memory-peak.mjs FOLDER SANDBOX: everything of a folder goes into a sandbox and comes back. Prints how many
// bytes of memory each took at its peak, above what the process had when it was idle.

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
