// A full run starts the files that are listed as the longest first, in that order, and every other file after them.

import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { LONGEST_SUITES } from "../longest.mjs";

const root = path.resolve(import.meta.dirname, "../..");

/** Prints the test files of this project in the order in which vitest starts them. */
const PROGRAM = `
  import { createVitest } from "vitest/node";
  const vitest = await createVitest("test", { watch: false });
  const { sequencer: Sequencer } = vitest.config.sequence;
  const sorted = await new Sequencer(vitest).sort(await vitest.globTestSpecifications());
  await vitest.close();
  console.log(JSON.stringify(sorted.map(({ moduleId }) => moduleId)));`;

it("every file that is listed as one of the longest is there, and starts before all others", async () => {
  const env = { ...process.env, VITEST: "", VITEST_POOL_ID: "", VITEST_WORKER_ID: "" };
  const words = ["--input-type=module", "--eval", PROGRAM];
  const { stdout } = await promisify(execFile)(process.execPath, words, { cwd: root, env });
  const files = JSON.parse(stdout.trim().split("\n").at(-1));
  const longest = LONGEST_SUITES.map((name) => path.join(root, "__test__", `${name}.test.mjs`));
  expect(files.slice(0, longest.length)).toEqual(longest);
  expect(files.length).toBeGreaterThan(2 * longest.length);
});
