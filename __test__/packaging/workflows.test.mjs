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

test("each job of a release waits for what it needs", () => {
  const jobs = jobsOf(workflows.release);
  expect(Object.keys(jobs)).toEqual(["check", "binaries", "try", "rehearse", "publish"]);
  const needs = Object.entries(jobs).map(([name, job]) => [name, valuesOf("needs", job)]);
  expect(Object.fromEntries(needs)).toEqual({
    check: [],
    binaries: ["check"],
    try: ["binaries"],
    rehearse: ["try"],
    publish: ["try"],
  });
  // Where a job has failed, nothing that needs it runs, unless its condition says so.
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
  }
  const { publish } = jobsOf(workflows.release);
  expect(workflows.release.match(/: *write/g)).toHaveLength(1);
  expect(publish).toMatch(
    /^ {4}permissions:\n {6}contents: read\n(?: {6}#.*\n)* {6}id-token: write\n {4}\w/m,
  );
  expect(valuesOf("environment", publish)).toEqual(["npm"]);
});

test("the job that publishes installs nothing, and packs with just one Node, as its rehearsal does", () => {
  const { publish, rehearse } = jobsOf(workflows.release);
  const programs = (job) => [...job.matchAll(/\brun: (.*)/g)].map(([, program]) => program);
  expect(programs(publish)).toEqual(['node scripts/publish.mjs "$TAG"']);
  expect(programs(rehearse)).toEqual(["node scripts/publish.mjs --dry-run"]);
  const nodes = [publish, rehearse].map((job) => /node-version: (.*)/.exec(job)[1]);
  expect(nodes[0]).toMatch(/^\d+\.\d+\.\d+$/);
  expect(nodes[1]).toBe(nodes[0]);
});

test("no release ends or holds up another", () => {
  const { publish } = jobsOf(workflows.release);
  expect(workflows.release.match(/concurrency:/g)).toHaveLength(1);
  expect(publish).toContain(
    "    concurrency:\n      group: publish-${{ github.ref }}\n      cancel-in-progress: false\n",
  );
});

test("CI leaves no change out: a job that is left out counts as passed", () => {
  for (const job of Object.values(jobsOf(workflows.ci))) expect(valuesOf("if", job)).toEqual([]);
});

test("cargo leaves the lockfile as it is", () => {
  const calls = Object.values(workflows).flatMap((text) => text.match(/cargo (test|build|clippy) .*/g) ?? []);
  expect(calls).toEqual([expect.stringContaining("--locked")]);
});

/**
 * The jobs of a workflow, by their names, as they are written.
 *
 * @param {string} text
 * @returns {Record<string, string>}
 */
function jobsOf(text) {
  const [, ...parts] = text.slice(text.search(/^jobs:$/m)).split(/^ {2}([\w-]+):\n/m);
  const jobs = parts.flatMap((name, index) => (index % 2 === 0 ? [[name, parts[index + 1]]] : []));
  return Object.fromEntries(jobs);
}

/**
 * What a job has under a name of its own, not of its steps.
 *
 * @param {string} name
 * @param {string} job
 */
function valuesOf(name, job) {
  return [...job.matchAll(new RegExp(`^ {4}${name}: *(.*)`, "gm"))].map(([, value]) => value);
}
