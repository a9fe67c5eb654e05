// Cargo changes a lockfile that does not fit without a word, unless it is told not to: then a version that was forgotten
// there would show only in a release, which builds with `--locked`.

import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { run } from "../packaging/support.mjs";
import { putCargo } from "./cargo.mjs";

const root = path.join(import.meta.dirname, "..", "..");

let folder;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "locked-"));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** The calls that a script makes of a cargo that does nothing, as lines. */
async function cargoCallsOf(...script) {
  const calls = await putCargo(folder, "test result: ok. 1 passed; 0 failed; 0 ignored;");
  const env = { PATH: [folder, process.env.PATH].join(path.delimiter) };
  await run([process.execPath, ...script], { cwd: root, env });
  return calls();
}

it.each([
  ["clippy", ["scripts/lint.mjs", "clippy"]],
  ["doc", ["scripts/lint.mjs", "rustdoc"]],
  ["test", ["scripts/test.mjs", "rust"]],
])("cargo %s leaves the lockfile as it is", async (command, script) => {
  const calls = (await cargoCallsOf(...script)).filter((call) => call.startsWith(`${command} `));
  expect(calls).toEqual([expect.stringContaining(" --locked ")]);
});
