// Cargo changes a lockfile that does not fit without a word, unless it is told not to: then a version that was forgotten
// there would show only in a release, which builds with `--locked`.

import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { run } from "../packaging/support.mjs";

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
  const calls = path.join(folder, "calls");
  const answers = `case "$1" in --version) echo "cargo 999.0.0";; test) echo "test result: ok. 1 passed; 0 failed; 0 ignored;";; esac`;
  const cargo = path.join(folder, "cargo");
  await writeFile(cargo, `#!/bin/sh\necho "$*" >> '${calls}'\n${answers}\n`);
  await chmod(cargo, 0o755);
  const env = { PATH: [folder, process.env.PATH].join(path.delimiter) };
  await run([process.execPath, ...script], { cwd: root, env });
  return (await readFile(calls, "utf8")).trim().split("\n");
}

it.each([
  ["clippy", ["scripts/lint.mjs", "clippy"]],
  ["doc", ["scripts/lint.mjs", "rustdoc"]],
  ["test", ["scripts/test.mjs", "rust"]],
])("cargo %s leaves the lockfile as it is", async (command, script) => {
  const calls = (await cargoCallsOf(...script)).filter((call) => call.startsWith(`${command} `));
  expect(calls).toEqual([expect.stringContaining(" --locked ")]);
});
