// What of the workflows is to agree with the project, or must not be lost. They themselves run only on GitHub.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { beforeAll, expect, test } from "vitest";
import { PLATFORMS } from "../../scripts/packaging/platforms.mjs";
import { root } from "./support.mjs";

const workflows = {};

beforeAll(async () => {
  for (const name of ["binaries", "ci", "release"]) {
    workflows[name] = await readFile(path.join(root, ".github", "workflows", `${name}.yml`), "utf8");
  }
});

test("every platform's binary is built, for a release just as in CI", () => {
  const built = [...workflows.binaries.matchAll(/platform: ([\w-]+)/g)].map(([, platform]) => platform);
  expect(built.sort()).toEqual([...PLATFORMS].sort());
  for (const name of ["ci", "release"])
    expect(workflows[name]).toContain("uses: ./.github/workflows/binaries.yml");
});

test("a binary is handed on with its stamp, before tests run beside it", () => {
  const { binaries } = workflows;
  expect(binaries).toContain("npm/${{ matrix.platform }}/build.json");
  const steps = ["build-all.mjs", "check-binaries.mjs", "upload-artifact", "cargo test", "test-binaries.mjs"];
  const places = steps.map((step) => binaries.indexOf(step));
  expect(places).toEqual([...places].sort((a, b) => a - b));
  expect(places).not.toContain(-1);
});

test("only the job that publishes a tag may do so, and it installs nothing", () => {
  const jobs = workflows.release.split(/^ {2}(?=\w+:$)/m);
  const able = jobs.filter((job) => job.includes("id-token: write"));
  expect(able).toHaveLength(1);
  expect(able[0]).toMatch(/^publish:\n {4}if: github\.event_name == 'push'\n {4}needs: try\n/);
  const programs = [...able[0].matchAll(/- run: (.*)/g)].map(([, program]) => program);
  expect(programs).toEqual(['node scripts/publish.mjs "$TAG"']);
});

test("cargo leaves the lockfile as it is", () => {
  const calls = Object.values(workflows).flatMap((text) => text.match(/cargo (test|build|clippy) .*/g) ?? []);
  expect(calls).toEqual([expect.stringContaining("--locked")]);
});
