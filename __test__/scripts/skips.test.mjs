// Which tests `npm test` leaves out where a program is missing that they need: asked of a cargo that tests nothing, on a
// search path that holds nothing else.

import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { putCargo } from "./cargo.mjs";

const root = path.join(import.meta.dirname, "..", "..");

let folder;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "skips-"));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** The call of `cargo test`, and the total, of a run with these words. */
async function npmTest(words, CI) {
  const result = "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1s";
  const calls = await putCargo(folder, result);
  const env = { ...process.env, CI, PATH: folder };
  const script = [path.join(root, "scripts", "test.mjs"), ...words];
  const { stdout, status } = spawnSync(process.execPath, script, { cwd: root, env, encoding: "utf8" });
  const call = (await calls()).find((line) => line.startsWith("test "));
  return { call, stdout, total: stdout.trimEnd().split("\n").at(-1), status };
}

it("a kind that is named leaves out, names and counts what needs a program that is missing", async () => {
  const { call, stdout, total, status } = await npmTest(["rust"], "");
  expect(call).toContain(" --skip=real_tars:: ");
  expect(stdout).toContain("Without toybox, these are skipped: real_tars:: heartbeats::");
  expect(stdout).toContain("2 skipped");
  expect([total, status]).toEqual(["7 passed, 0 failed", 0]);
});

it("with `all` nothing is left out, and each program that is missing is a failure", async () => {
  const { call, stdout, total, status } = await npmTest(["all", "rust"], "");
  expect(call).toBe("test --locked --no-fail-fast");
  const missing = stdout.match(/^Without /gm).length;
  expect(missing).toBeGreaterThanOrEqual(4);
  expect([total, status]).toEqual([`7 passed, ${missing} failed`, 1]);
});

it("with CI set nothing is left out", async () => {
  const { call, total } = await npmTest(["rust"], "true");
  expect([call, total]).toEqual(["test --locked --no-fail-fast", "7 passed, 0 failed"]);
});
