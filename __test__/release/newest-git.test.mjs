// What an agent does with git beside commits on its branch, with the entry for the newest release: what comes back, under
// which names, and what the log says of it.

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import * as releasedGit from "adapter-utils-2026.916.1/git-workspace-sync";
import { beforeEach, describe, expect, it } from "vitest";
import * as own from "../../adapter-utils/index.js";
import { createLocalClient } from "../../clients/local.js";
import { makeTree, temporaryFolder } from "../support/folders.mjs";

const run = promisify(execFile);

/** The entry with its own git functions, and with the release's, as its shim files pass them. */
const MODULES = {
  own: own.prepareSandboxManagedRuntime,
  "own over the release's git functions": own.createAdapterUtils({ git: releasedGit })
    .prepareSandboxManagedRuntime,
};

/** @type {string} */
let root;
/** @type {string} */
let local;
/** @type {string} */
let remote;
/** @type {string[]} */
let lines;
/** @type {string[]} */
let calls;

beforeEach(async () => {
  root = await temporaryFolder();
  [local, remote] = ["local", "remote"].map((name) => path.join(root, name));
  lines = [];
  calls = [];
});

/**
 * Runs commands of a shell in a folder. Resolves with what they print.
 *
 * @param {string} cwd
 * @param {string} script
 */
async function sh(cwd, script) {
  const env = {
    ...process.env,
    ...Object.fromEntries(
      ["AUTHOR", "COMMITTER"].flatMap((who) => [
        [`GIT_${who}_NAME`, "Test"],
        [`GIT_${who}_EMAIL`, "test@example.com"],
      ]),
    ),
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_GLOBAL: "/dev/null",
  };
  const { stdout } = await run("sh", ["-ec", script], { cwd, env });
  return stdout.trimEnd();
}

/**
 * Makes a repository with one commit.
 *
 * @param {Record<string, string>} [files]
 */
async function repository(files = { a: "a\n" }) {
  await makeTree(local, files);
  await sh(local, "git init -q -b main; git add -Af; git commit -qm base");
}

/** A client that notes the names of its calls. */
function client() {
  const methods = createLocalClient();
  const noted = (name) => (first, second) => {
    calls.push(name);
    return methods[name](first, second);
  };
  const names = ["makeDir", "writeFile", "readFile", "listFiles", "remove", "run"];
  return Object.fromEntries(names.map((name) => [name, noted(name)]));
}

/**
 * Uploads the workspace.
 *
 * @param {keyof typeof MODULES} [whose]
 * @param {object} [input]
 */
const prepare = (whose = "own", input = {}) =>
  MODULES[whose]({
    spec: { transport: "sandbox", provider: "test", sandboxId: "1", remoteCwd: remote, timeoutMs: 60_000 },
    adapterKey: "test",
    client: client(),
    workspaceLocalDir: local,
    onProgress: (line) => void lines.push(line),
    ...input,
  });

/** What the log says beside the progress of transfers. */
const told = () => lines.splice(0).filter((line) => /^\[paperclip\] (The env|What)/.test(line));

/** Local references under `refs/paperclip` without the time, with the subject of what each names. */
async function kept() {
  const format = "--format=%(refname) %(subject)";
  const listed = await sh(local, `git for-each-ref '${format}' refs/paperclip`);
  return listed
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.replace(/^refs\/paperclip\/\d{8}T\d{6}Z\//, ""));
}

const isSound = async () => expect(await sh(local, "git fsck --full --strict --no-dangling 2>&1")).toBe("");

describe.each(Object.keys(MODULES))("what is staged here: %s", (whose) => {
  const change = "echo t >>a; git commit -qam there";

  it("is not reported if nothing is", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, change);
    await restoreWorkspace();
    expect([told(), await kept()]).toEqual([[], []]);
    expect(await sh(local, "git log --format=%s; git status --porcelain")).toBe("there\nbase");
  });

  it("is kept on top of the commit that it was staged on, beside commits of the agent", async () => {
    await repository({ a: "a\n", b: "b\n" });
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, change);
    await sh(local, "echo staged >>b; git add b; echo later >>b");
    await restoreWorkspace();
    const [line] = told();
    const [ref] = /refs\/paperclip\/\S*\/staged-\S*/.exec(line) ?? [];
    expect(await sh(local, `git diff --name-only main~1 ${ref}; git show ${ref}:b`)).toBe("b\nb\nstaged");
    expect(await sh(local, `git rev-parse ${ref}^`)).toBe(await sh(local, "git rev-parse main~1"));
    expect(await sh(local, "cat b; git log --format=%s")).toBe("b\nstaged\nlater\nthere\nbase");
  });

  it("is not kept if the agent has committed the same", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, change);
    await sh(local, "echo t >>a; git add a; echo later >>a");
    await restoreWorkspace();
    expect(await kept()).toEqual([]);
  });
});

describe.each(Object.keys(MODULES))("tracked files that are not uploaded: %s", (whose) => {
  it("stay in the history when the agent commits everything", async () => {
    const files = { a: "a\n", "._q": "q", "deep/._dir/x": "x", ".paperclip-runtime/y": "y" };
    await repository(files);
    const before = await sh(local, "git ls-files");
    const { restoreWorkspace } = await prepare(whose);
    expect(await sh(remote, "git status --porcelain")).toBe("");
    await sh(remote, "echo t >>a; git add -A; git commit -qm there");
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s --name-only")).toBe("there\n\na");
    expect(await sh(local, "git ls-files; git status --porcelain; git ls-files -v | grep -v ^H || :")).toBe(
      before,
    );
    expect(await readFile(path.join(local, "._q"), "utf8")).toBe("q");
  });

  it("stay in the history of a repository in the workspace", async () => {
    await repository();
    const inner = path.join(local, ".paperclip-repositories/one");
    await makeTree(inner, { b: "b\n", "._q": "q" });
    await sh(inner, "git init -q -b main; git add -Af; git commit -qm base");
    const { restoreWorkspace } = await prepare(whose);
    await sh(
      path.join(remote, ".paperclip-repositories/one"),
      "echo t >>b; git add -A; git commit -qm there",
    );
    await restoreWorkspace();
    expect(await sh(inner, "git log -1 --format=%s --name-only")).toBe("there\n\nb");
  });
});
