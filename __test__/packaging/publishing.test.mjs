// What is looked at before a release is published. Nothing here publishes anything.

import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { packMain } from "../../scripts/packaging/packages.mjs";
import {
  channelOf,
  integrityOf,
  lookUp,
  planPublishing,
  requireWorkflow,
  warn,
} from "../../scripts/packaging/publishing.mjs";
import { startRegistry } from "../../scripts/packaging/registry.mjs";
import { commitAll, layOutProject, run } from "./support.mjs";

let folder;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "publishing-"));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

test.each([
  ["the first", "0.1.0", undefined, "latest"],
  ["a newer one", "1.10.0", "1.9.3", "latest"],
  ["one that is partly published", "1.2.0", "1.2.0", "latest"],
  ["one that only a version before it was published of", "0.1.0", "0.1.0-names.0", "latest"],
  ["a late mend of an old line", "1.1.9", "1.2.0", "latest-1.1"],
  ["a late mend of an old line before 1.0", "0.1.3", "1.2.0", "latest-0.1"],
  ["one that is not finished", "2.0.0-beta.1", "1.2.0", "next"],
])("%s (%s, where latest is %s) goes to the tag %s", (_, version, latest, tag) => {
  expect(channelOf(version, latest)).toBe(tag);
});

describe("of a release", () => {
  const release = { name: "it", version: "1.0.0", integrity: "sha512-A" };

  test.each([
    ["what is not there is left", { latest: "0.9.0" }, ["it"]],
    ["what is there in the same bytes is not", { latest: "1.0.0", integrity: "sha512-A" }, []],
  ])("%s", (_, published, left) => {
    expect(planPublishing([{ release, published }])).toEqual({ left, faults: [], warnings: [] });
  });

  test("what is there in other bytes ends it, and so does a package that npm does not know", () => {
    const other = { latest: "1.0.0", integrity: "sha512-B" };
    expect(planPublishing([{ release, published: other }]).faults).toEqual([
      expect.stringMatching(
        /^it@1\.0\.0 is published already, with other content: sha512-B there, sha512-A here/,
      ),
    ]);
    expect(planPublishing([{ release, published: undefined }]).faults).toEqual([
      expect.stringMatching(/^npm has no package it, .*\n.*docs\/releasing\.md/),
    ]);
  });

  test("a rehearsal ends by the same, but that npm need not know the package yet", () => {
    const other = { latest: "1.0.0", integrity: "sha512-B" };
    expect(planPublishing([{ release, published: other }], { dryRun: true })).toMatchObject({
      faults: [expect.stringContaining("with other content")],
      warnings: [],
    });
    expect(planPublishing([{ release, published: undefined }], { dryRun: true })).toEqual({
      left: ["it"],
      faults: [],
      warnings: [expect.stringContaining("npm has no package it")],
    });
  });
});

describe("a registry", () => {
  let packed;
  let registry;
  const before = { ...process.env };

  beforeAll(async () => {
    packed = await packMain(folder);
    registry = await startRegistry([packed]);
    Object.assign(process.env, {
      npm_config_registry: registry.url,
      npm_config_cache: path.join(folder, "cache"),
      npm_config_userconfig: path.join(folder, "none"),
      no_proxy: "127.0.0.1",
      NO_PROXY: "127.0.0.1",
    });
  });

  afterAll(async () => {
    for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
    Object.assign(process.env, before);
    await registry.close();
  });

  test("says what it has of a package, and of which bytes", async () => {
    const { name, version } = packed.manifest;
    const integrity = await integrityOf(packed.tarball);
    expect(integrity).toMatch(/^sha512-.{86}==$/);
    expect(await lookUp(name, version)).toEqual({ latest: version, integrity });
    expect(await lookUp(name, "9.8.7")).toEqual({ latest: version, integrity: undefined });
    expect(await lookUp(`${name}-unknown`, version)).toBeUndefined();
  });
});

test.each([
  [{}, "Warning: one\ntwo"],
  [{ GITHUB_ACTIONS: "true" }, "::warning::one%0Atwo"],
])("a warning, where the environment is %j", (env, printed) => {
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  try {
    warn("one\ntwo", env);
    expect(log.mock.calls).toEqual([[printed]]);
  } finally {
    log.mockRestore();
  }
});

test.each([
  [{}, /published by its workflow .*\n.*--dry-run\n.*docs\/releasing\.md/],
  [{ GITHUB_ACTIONS: "true" }, /id-token: write/],
])("nothing is published where the environment is %j", (env, message) => {
  expect(() => requireWorkflow(env)).toThrow(message);
  expect(() =>
    requireWorkflow({ GITHUB_ACTIONS: "true", ACTIONS_ID_TOKEN_REQUEST_URL: "https://there.example" }),
  ).not.toThrow();
});

describe("the script", () => {
  let project;
  let version;
  const git = (...words) => run(["git", ...words], { cwd: project });

  beforeEach(async () => {
    project = path.join(folder, "project");
    await layOutProject(project);
    version = JSON.parse(await readFile(path.join(project, "package.json"), "utf8")).version;
    const changelog = path.join(project, "CHANGELOG.md");
    const undated = await readFile(changelog, "utf8");
    await writeFile(
      changelog,
      undated.replace(`## [${version}] - unreleased`, `## [${version}] - 2026-01-31`),
    );
    await commitAll(project);
    await git("update-ref", "refs/remotes/origin/main", "HEAD");
  });

  afterEach(async () => {
    await rm(project, { recursive: true });
  });

  /** What it prints, of both kinds. */
  async function publish(args, env = {}) {
    const options = { cwd: project, env: { GITHUB_ACTIONS: "", ...env } };
    return run([process.execPath, "scripts/publish.mjs", ...args], options).catch((error) => error.message);
  }

  async function commitMore() {
    await writeFile(path.join(project, "more"), "");
    await commitAll(project);
  }

  test("takes a tag of main that has the version of all files and a date", async () => {
    await git("tag", `v${version}`);
    await commitMore();
    await git("update-ref", "refs/remotes/origin/main", "HEAD");
    await git("checkout", "--quiet", `v${version}`);
    expect(await publish(["--check", `v${version}`])).toBe(`v${version} can be built\n`);
    expect(await publish(["--check"])).toBe(`${version} can be built\n`);
  });

  test("refuses a tag of another version", async () => {
    expect(await publish(["--check", "v9.8.7"])).toContain(
      `The tag is v9.8.7, and the version is ${version}.`,
    );
  });

  test("refuses a version without a date", async () => {
    await writeFile(path.join(project, "CHANGELOG.md"), `## [${version}] - unreleased\n`);
    expect(await publish(["--check", `v${version}`])).toContain(
      `CHANGELOG.md has no date beside ${version}.`,
    );
  });

  test("refuses a tag that is not there, or at another commit", async () => {
    expect(await publish(["--check", `v${version}`])).toContain(`There is no tag v${version} here.`);
    await git("tag", `v${version}`);
    await commitMore();
    expect(await publish(["--check", `v${version}`])).toMatch(
      /The tag v\S+ is at \w+, and this work tree is at/,
    );
  });

  test("refuses a tag that is not on main, or where that cannot be told", async () => {
    await commitMore();
    await git("tag", `v${version}`);
    expect(await publish(["--check", `v${version}`])).toContain("which is not on origin/main");
    await git("update-ref", "-d", "refs/remotes/origin/main");
    expect(await publish(["--check", `v${version}`])).toContain("git fetch origin --unshallow");
  });

  test("publishes nothing from here", async () => {
    await git("tag", `v${version}`);
    expect(await publish([`v${version}`])).toContain("A release is published by its workflow");
  });

  test("refuses an npm that is too old", async () => {
    const bin = path.join(folder, "old");
    await mkdir(bin, { recursive: true });
    await writeFile(path.join(bin, "npm"), "#!/bin/sh\necho 11.5.0\n");
    await chmod(path.join(bin, "npm"), 0o755);
    const env = { PATH: [bin, process.env.PATH].join(path.delimiter) };
    expect(await publish(["--dry-run"], env)).toContain("npm 11.5.1 or newer is needed");
  });

  test.each([
    [[], "Name the tag that is published"],
    [["--force"], 'There is no option "--force". There are: --check, --dry-run.'],
    [["v1.0.0", "v2.0.0"], "here are two: v1.0.0, v2.0.0"],
  ])("refuses the arguments %j", async (args, message) => {
    expect(await publish(args)).toContain(message);
  });
});
