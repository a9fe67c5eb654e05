// What of the workflows must agree with the project, or must not be lost. They themselves run only on GitHub.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { beforeAll, expect, test } from "vitest";
import { PLATFORMS } from "../../scripts/platforms.mjs";
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

test("a binary is handed on before tests run beside it", () => {
  const steps = ["build-all.mjs", "upload-artifact", "test.mjs vitest", "test.mjs rust"];
  const places = steps.map((step) => workflows.binaries.indexOf(step));
  expect(places).not.toContain(-1);
  expect(places).toEqual([...places].sort((a, b) => a - b));
});

test("each job of a release waits for what it needs", () => {
  const jobs = jobsOf(workflows.release);
  const needs = Object.entries(jobs).map(([name, job]) => [name, valuesOf("needs", job).join()]);
  const expected = { check: "", binaries: "check", rehearse: "binaries", publish: "binaries" };
  expect(Object.fromEntries(needs)).toEqual(expected);
  // A job whose need failed does not run, unless its condition says so.
  const conditions = Object.values(jobs).flatMap((job) => valuesOf("if", job));
  expect(conditions).toEqual(["github.event_name == 'workflow_dispatch'", "github.event_name == 'push'"]);
  expect(workflows.release).not.toContain("continue-on-error");
});

test("a workflow may only read, and only the job that publishes a tag may prove who it is", () => {
  for (const text of Object.values(workflows)) {
    expect(text).toMatch(/^permissions:\n {2}contents: read\n\n/m);
    const { publish = "", ...others } = jobsOf(text);
    expect(text.match(/permissions:/g)).toHaveLength(publish ? 2 : 1);
    expect(Object.values(others).join("")).not.toMatch(/: *write/);
    const checkouts = text.match(/actions\/checkout@/g)?.length ?? 0;
    expect(text.match(/persist-credentials: false/g) ?? []).toHaveLength(checkouts);
  }
  const { publish } = jobsOf(workflows.release);
  expect(publish.match(/: *write/g)).toEqual([": write"]);
  expect(publish).toMatch(/^ {6}id-token: write$/m);
  expect(valuesOf("environment", publish)).toEqual(["npm"]);
  expect(publish).toContain("npm ci --ignore-scripts");
});

test("every action is pinned by the commit of a version, which a comment names", () => {
  const uses = Object.values(workflows).flatMap((text) => [...text.matchAll(/uses: (?!\.\/)(.*)/g)]);
  expect(uses.length).toBeGreaterThan(5);
  for (const [, action] of uses) expect(action).toMatch(/^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
});

test("CI leaves no change out, since a job that is left out counts as passed", () => {
  for (const job of Object.values(jobsOf(workflows.ci))) expect(valuesOf("if", job)).toEqual([]);
});

/** The jobs of a workflow, by their names, as they are written. */
function jobsOf(text) {
  const [, ...parts] = text.slice(text.search(/^jobs:$/m)).split(/^ {2}([\w-]+):\n/m);
  return Object.fromEntries(parts.flatMap((name, at) => (at % 2 === 0 ? [[name, parts[at + 1]]] : [])));
}

/** What a job has under a name of its own, not of its steps. */
function valuesOf(name, job) {
  return [...job.matchAll(new RegExp(`^ {4}${name}: *(.*)`, "gm"))].map(([, value]) => value);
}
