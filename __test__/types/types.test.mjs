// The types: each TypeScript file beside this one is a test, passed when the compiler has nothing to say about it.

import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { beforeAll, expect, test } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");
const files = (await readdir(import.meta.dirname)).filter((name) => name.endsWith(".ts"));

/** What the compiler says, a line for each finding. */
let findings;

beforeAll(async () => {
  const compiler = [path.join(root, "node_modules/typescript/bin/tsc"), "--pretty", "false"];
  const words = [...compiler, "--project", import.meta.dirname];
  // It prints findings on standard output, and fails where there are any.
  const { stdout } = await promisify(execFile)(process.execPath, words, { cwd: root }).catch(
    (error) => error,
  );
  findings = stdout.split("\n").filter(Boolean);
});

const isIn = (name) => (finding) => finding.startsWith(`__test__/types/${name}(`);

test.each(files)("%s compiles", (name) => {
  expect(findings.filter(isIn(name))).toEqual([]);
});

test("the compiler says nothing else", () => {
  expect(files.length).toBeGreaterThan(3);
  expect(findings.filter((finding) => !files.some((name) => isIn(name)(finding)))).toEqual([]);
});
