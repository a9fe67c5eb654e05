// Measures one operation once, in a process of its own: `node --expose-gc benches/one.mjs` with
//
//   <ours | release | tool> <operation> <folder of the workload> [--verify] [--ours <file>]
//
// and prints the sample as JSON. `--verify` also checks the outcome afterwards. `--ours` imports
// this package from another place.

import { rm } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { runMain } from "../scripts/process.mjs";
import { OPERATIONS } from "./operations.mjs";
import { placesIn } from "./places.mjs";
import { forgetGarbage, peakBytes, resetPeak, residentBytes, time } from "./probe.mjs";
import { shell } from "./shell.mjs";

/**
 * The figures of one run.
 *
 * @typedef {object} Sample
 * @property {number} ms How long it took, in milliseconds.
 * @property {number | null} stallMs The longest stall of the event loop; `null` for a tool.
 * @property {number | null} memoryBytes The peak of memory above that of the idle process; `null` for a tool.
 * @property {number | null} archiveBytes The size of the archive that the client got or returned, if there is one.
 */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { verify: { type: "boolean", default: false }, ours: { type: "string" } },
});
const [contestant, operation, folder] = positionals;
process.umask(0o022);
const at = placesIn(folder, contestant);
await runMain(async () => {
  // No state of an earlier run is used.
  const home = path.join(folder, `home-${process.pid}`);
  process.env.PAPERCLIP_HOME = home;
  try {
    const sample = await (contestant === "tool" ? measureTool() : measureProgram());
    console.log(JSON.stringify(sample));
  } finally {
    await rm(home, { recursive: true, force: true });
  }
});

/** @returns {Promise<Sample>} */
async function measureTool() {
  const { command, verify } = OPERATIONS[operation].tool(at);
  const { ms } = await time(() => shell(command));
  if (values.verify) await verify?.();
  return { ms, stallMs: null, memoryBytes: null, archiveBytes: null };
}

/** @returns {Promise<Sample>} */
async function measureProgram() {
  const api = await load();
  forgetGarbage();
  const idle = residentBytes();
  const { run, verify, archiveBytes } = await OPERATIONS[operation].program(api, at);
  resetPeak();
  const { ms, stallMs } = await time(run);
  const memoryBytes = Math.max(peakBytes() - idle, 0);
  const sample = { ms, stallMs, memoryBytes, archiveBytes: archiveBytes?.() ?? null };
  if (values.verify) await verify?.();
  return sample;
}

/** @returns {Promise<import("./operations.mjs").Api>} */
async function load() {
  if (contestant === "ours") {
    return import(values.ours ? pathToFileURL(path.resolve(values.ours)).href : "../index.js");
  }
  const runtime = await import("@paperclipai/adapter-utils/sandbox-managed-runtime");
  const merge = await import("@paperclipai/adapter-utils/workspace-restore-merge");
  // Functions that it does not export are not compared.
  return /** @type {any} */ ({ ...runtime, ...merge });
}
