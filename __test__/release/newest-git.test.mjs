// What an agent does with git beside commits on its branch, with the entry for the newest release: what comes back, under
// which names, and what the log says of it.

import { execFile } from "node:child_process";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as releasedGit from "adapter-utils-2026.916.1/git-workspace-sync";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import * as own from "../../adapter-utils/index.js";
import { createLocalClient } from "../../clients/local.js";
import { file, makeTree, temporaryFolder } from "../support/folders.mjs";

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

describe.each(Object.keys(MODULES))("other branches, tags and stashes: %s", (whose) => {
  it("come back under references of their own, and the log names them", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(
      remote,
      `git checkout -qb side/n; echo n >n; git add n; git commit -qm side; git checkout -q main
       echo t >>a; git commit -qam there; git tag plain; git tag -m annotated noted side/n
       echo one >>a; git stash push -qm first; echo two >>a; git stash push -qm second`,
    );
    await restoreWorkspace();
    expect(await kept()).toEqual([
      "heads/side/n side",
      "stash/0 On main: second",
      "stash/1 On main: first",
      "tags/noted annotated",
      "tags/plain there",
    ]);
    const [line, ...more] = told();
    expect(more).toEqual([]);
    for (const name of ["heads/side/n", "stash/0", "stash/1", "tags/noted", "tags/plain"]) {
      expect(line).toMatch(new RegExp(` refs/paperclip/\\d{8}T\\d{6}Z/${name}(,|\\n)`));
    }
    expect(await sh(local, "git log --format=%s; git branch; git tag; git stash list")).toBe(
      "there\nbase\n* main",
    );
    const stash = await sh(local, "git for-each-ref --format='%(refname)' 'refs/paperclip/*/stash/*'");
    await sh(local, `git stash apply -q ${stash.split("\n")[0]}`);
    expect(await readFile(path.join(local, "a"), "utf8")).toBe("a\nt\ntwo\n");
    await isSound();
    // Nothing of the transfer is left behind.
    expect(
      await sh(
        remote,
        "git for-each-ref refs/paperclip/git-sync/export/others; ls -A .paperclip-runtime/test",
      ),
    ).toBe("");
  });

  it("come back though nothing was committed on the branch", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(
      remote,
      "git tag plain; git checkout -qb n; git commit -qm n --allow-empty; git checkout -q main",
    );
    await restoreWorkspace();
    expect(await kept()).toEqual(["heads/n n", "tags/plain base"]);
    await isSound();
  });

  it("come back once, and again when they move", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    const commit = "git checkout -q n; git commit -qm n --allow-empty; git checkout -q main";
    await sh(remote, `git branch n; ${commit}; git tag plain; git tag -m annotated noted n`);
    await restoreWorkspace();
    expect(told()).toHaveLength(1);
    await restoreWorkspace();
    expect(told()).toEqual([]);
    expect(await kept()).toHaveLength(3);
    await sh(remote, `${commit}; git tag -f plain n`);
    await restoreWorkspace();
    expect(told()).toHaveLength(1);
    const moved = await sh(remote, "git rev-parse n");
    expect(await sh(local, `git for-each-ref --points-at=${moved} refs/paperclip`)).not.toBe("");
  });
});

describe.each(Object.keys(MODULES))("other branches, tags and stashes: %s", (whose) => {
  it("come back whatever spaces are in a name", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    const spaces = ["a\u00a0b", "c\u3000d", "e\ufefff", "g\u2028h", "i\u0085j"];
    await sh(
      remote,
      `git checkout -qb n; git commit -qm n --allow-empty; git checkout -q main
       for name in ${spaces.join(" ")}; do git branch "$name" n; done`,
    );
    await restoreWorkspace();
    expect(await kept()).toEqual([...spaces, "n"].sort().map((name) => `heads/${name} n`));
  });

  it("come back if the branch there has no commit", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, "echo t >>a; git commit -qam there; git checkout -q --orphan new; git rm -qrf .");
    await restoreWorkspace();
    expect(told()).toEqual([
      expect.stringMatching(
        whose === "own"
          ? /are refused.* only its files .*: fatal: its branch has no commit\n/
          : /are refused/,
      ),
      expect.stringMatching(/ are kept as \S+heads\/main\n/),
    ]);
    expect(await kept()).toEqual(["heads/main there"]);
    await sh(remote, "git checkout -q main");
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s; git status --porcelain")).toBe("there");
  });
});

describe("other branches, tags and stashes", () => {
  it("cost no call where there is nothing new of them", async () => {
    await repository();
    await sh(local, "git tag here; git branch other");
    const { restoreWorkspace } = await prepare();
    await sh(remote, "git checkout -qb same; echo t >>a; git commit -qam there; git tag here main");
    calls.splice(0);
    await restoreWorkspace();
    const [compares, ...transfers] = calls;
    expect(compares).toBe("run");
    expect(transfers).toEqual([
      "run",
      "readFile",
      "remove",
      "readFile",
      "remove",
      "run",
      "readFile",
      "remove",
    ]);
    expect([await kept(), told()]).toEqual([[], []]);
  });

  it("write no other reference, whatever they are called", async () => {
    await repository();
    // A git that lists what no repository can have.
    const list = path.join(root, "list");
    await makeTree(root, {
      "bin/git": file(
        `#!/bin/sh
case "$*" in
*for-each-ref*objectname*) cat '${list}' ;;
*) PATH=$REAL exec git "$@" ;;
esac
`,
        0o755,
      ),
    });
    const env = { REAL: process.env.PATH, PATH: `${root}/bin:${process.env.PATH}` };
    const { restoreWorkspace } = await prepare("own", { client: createLocalClient({ env }) });
    const commit = await sh(remote, "git commit-tree -p HEAD -m hostile HEAD^{tree}");
    const names = [
      "heads/main",
      "heads/../../../heads/main",
      "heads/a..b",
      "heads/-d",
      "heads/c.lock",
      "tags/HEAD",
    ];
    await writeFile(list, names.map((name) => `${commit} refs/${name}\n`).join(""));
    const references = () =>
      sh(local, "git for-each-ref refs/heads refs/tags refs/remotes refs/stash; cat .git/HEAD");
    const before = await references();
    // A second passes with each look at the clock.
    let seconds = 10;
    const clock = vi.spyOn(Date.prototype, "toISOString");
    clock.mockImplementation(() => `2026-01-02T03:04:${(seconds += 1)}.000Z`);
    await restoreWorkspace().finally(() => clock.mockRestore());
    expect(await references()).toBe(before);
    expect(told()).toEqual([expect.stringMatching(/ are kept as (refs\/[^\s,]+,? ?){4}\n$/)]);
    expect(await kept()).toEqual([
      "heads/-d hostile",
      "heads/main hostile",
      `sandbox-${commit.slice(0, 12)} hostile`,
      "tags/HEAD hostile",
    ]);
    await isSound();
  });

  it("come back up to a limit, and the log has the number of the rest", async () => {
    await repository();
    const { restoreWorkspace } = await prepare();
    await sh(
      remote,
      `commit=$(git commit-tree -m tagged HEAD^{tree})
       for i in $(seq 503); do echo "create refs/tags/$i $commit"; done | git update-ref --stdin`,
    );
    await restoreWorkspace();
    expect(told()).toEqual([
      expect.stringMatching(/ are more than 500: 3 of them are not taken over\n$/),
      expect.stringMatching(/ are kept as (refs\/\S+, ){20}and 480 more\n$/),
    ]);
    expect(await kept()).toHaveLength(500);
    // Those that were taken over do not count again.
    await restoreWorkspace();
    expect(await kept()).toHaveLength(503);
  });

  it("are refused alone if git fsck complains", async () => {
    await repository();
    const { restoreWorkspace } = await prepare();
    await sh(
      remote,
      `echo t >>a; git commit -qam there
       git cat-file commit HEAD | sed 's/^author .*/author x <x> 1 +1/' >.git/forged
       git branch forged "$(git hash-object -t commit -w --literally .git/forged)"`,
    );
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s; git status --porcelain")).toBe("there\nbase");
    expect(await kept()).toEqual([]);
    const [line, ...more] = told();
    expect(more).toEqual([]);
    expect(line).toMatch(
      /other branches, tags and stashes are refused: .*; what came is at (.*\/others\.bundle)\n$/,
    );
    await isSound();
  });

  it("come back if the commits of the branch are refused", async () => {
    await repository();
    const { restoreWorkspace } = await prepare();
    await sh(
      remote,
      `git checkout -qb n; git commit -qm n --allow-empty; git checkout -q main; echo t >>a; git commit -qam there
       git cat-file commit HEAD | sed 's/^author .*/author x <x> 1 +1/' >.git/forged
       git update-ref HEAD "$(git hash-object -t commit -w --literally .git/forged)"`,
    );
    await restoreWorkspace();
    expect(told()).toEqual([
      expect.stringContaining("commits are refused"),
      expect.stringMatching(/are kept as \S*\/heads\/n\n/),
    ]);
    expect(await kept()).toEqual(["heads/n n"]);
    await isSound();
  });

  it("are named in the log if the sandbox does not list them", async () => {
    await repository();
    const { readFile: reads, ...methods } = createLocalClient();
    const readsNoStatus = async (file, options) => {
      if (file.endsWith("/workspace-status.txt")) throw new Error("cannot be read");
      return reads(file, options);
    };
    const { restoreWorkspace } = await prepare("own", { client: { ...methods, readFile: readsNoStatus } });
    await sh(remote, "git branch n; echo t >>a; git commit -qam there");
    await restoreWorkspace();
    expect(told()).toEqual([expect.stringContaining("could not be listed")]);
    expect(await sh(local, "git log --format=%s")).toBe("there\nbase");
  });
});

/** A commit of the agent that has nothing to do with what is staged here. */
const COMMIT_X = "echo x >x; git add x; git commit -qm x";

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

  describe.each([
    ["the agent does nothing", ":"],
    ["the agent commits another file", COMMIT_X],
    ["the agent changes another file", "echo x >x"],
  ])("stays staged if %s", (_what, act) => {
    it.each([
      ["new files", "echo n >n; git add n", "A  n"],
      ["new files that are gone", "echo n >n; git add n; rm n", "AD n"],
      ["a part of what was edited", "echo one >>a; git add a; echo two >>a", "MM a"],
      ["deletions", "git rm -q b; git rm -q --cached c", "D  b\nD  c\n?? c"],
      ["renames and modes", "git mv b e; chmod +x c; git add c", "M  c\nR  b -> e"],
      ["names that are to be added", "echo n >n; git add -N n", " A n"],
      ["a folder in the place of a file", "git rm -q b; mkdir b; echo n >b/n; git add b", "D  b\nA  b/n"],
    ])("%s", async (_staged, script, status) => {
      await repository({ a: "a\n", b: "b\nb\n", c: "c\n" });
      const { restoreWorkspace } = await prepare(whose);
      await sh(remote, act);
      await sh(local, script);
      const staged = "git diff --cached --raw --no-abbrev --ita-visible-in-index";
      const before = await sh(local, staged);
      await restoreWorkspace();
      expect(await sh(local, staged)).toBe(before);
      const others = act.startsWith("echo x >x") && !act.includes("commit") ? "\n?? x" : "";
      expect(await sh(local, "git status --porcelain")).toBe(status + others);
      expect([told(), await kept()]).toEqual([[], []]);
    });
  });

  it("is kept on top of the commit that it was staged on, if the agent has committed to the same file", async () => {
    await repository({ a: "a\n", b: "b\n", c: "c\n" });
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, change);
    await sh(local, "echo staged >>a; echo staged >>b; git add a b; echo later >>a; git rm -q c");
    await restoreWorkspace();
    const [line] = told();
    const [ref] = /refs\/paperclip\/\S*\/staged-\S*/.exec(line) ?? [];
    expect(await sh(local, `git diff --name-status main~1 ${ref}; git show ${ref}:a`)).toBe(
      "M\ta\nM\tb\nD\tc\na\nstaged",
    );
    expect(await sh(local, `git rev-parse ${ref}^`)).toBe(await sh(local, "git rev-parse main~1"));
    expect(await sh(local, "git log --format=%s; cat a; git status --porcelain")).toBe(
      "there\nbase\na\nt\nM  b\nD  c",
    );
  });

  it("is kept if the agent has committed a folder in its place, or a file in that of its folder", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, "mkdir n; echo t >n/t; echo t >m; git add -A; git commit -qm there");
    await sh(local, "echo n >n; mkdir m; echo m >m/m; echo o >o; git add n m o; rm -r n m o");
    await restoreWorkspace();
    const [ref] = /refs\/paperclip\/\S*\/staged-\S*/.exec(told()[0]) ?? [];
    expect(await sh(local, `git diff --name-only main~1 ${ref}`)).toBe("m/m\nn\no");
    expect(await sh(local, "git ls-files; git status --porcelain")).toBe("a\nm\nn/t\no\nAD o");
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

describe.each(Object.keys(MODULES))("an operation that is in progress here: %s", (whose) => {
  const conflict =
    "echo ours >a; git commit -qam ours; git checkout -qb two main~1; echo two >a; git commit -qam two";
  const OPERATIONS = {
    merge: `${conflict}; ! git merge -q main`,
    rebase: `${conflict}; ! git rebase -q main 2>/dev/null`,
    "rebase by patches": `${conflict}; ! git rebase -q --apply main >/dev/null 2>&1`,
    "cherry-pick": `${conflict}; ! git cherry-pick main >/dev/null 2>&1`,
    revert: `${conflict}; ! git revert --no-edit main >/dev/null 2>&1`,
    "merge without conflicts": `git checkout -qb two main~1; echo b >b; git add b; git commit -qm two
      git merge -q --no-commit main`,
    bisection: "git bisect start -q HEAD HEAD~2 >/dev/null",
    "conflict of a stash": `echo two >a; git stash -q; echo ours >a; git commit -qam ours; ! git stash pop -q`,
  };
  const state = () => sh(local, "git ls-files -s; cat .git/HEAD; git rev-parse HEAD; git reflog");

  describe.each(["at the prepare", "at the restore"])("%s", (when) => {
    it.each(Object.keys(OPERATIONS))("stays as it is: %s", async (operation) => {
      await repository();
      await sh(local, "echo b >>a; git commit -qam second; echo c >>a; git commit -qam third");
      const begin = () => sh(local, OPERATIONS[operation]);
      if (when === "at the prepare") await begin();
      const { restoreWorkspace } = await prepare(whose);
      if (when === "at the restore") await begin();
      const before = await state();
      await restoreWorkspace();
      expect([await state(), told(), await kept()]).toEqual([before, [], []]);
      await sh(remote, COMMIT_X);
      await restoreWorkspace();
      expect([await state(), await sh(local, "cat x")]).toEqual([before, "x"]);
      expect(await kept()).toEqual([expect.stringMatching(/^sandbox-[0-9a-f]{12} x$/)]);
      const [line, ...more] = told();
      expect(more).toEqual([]);
      expect(line).toMatch(
        / commits are kept as refs\/paperclip\/\S+\/sandbox-\S+ and not merged: .* here\n$/,
      );
      await isSound();
    });
  });

  it("concerns its own repository only", async () => {
    await repository();
    const inner = path.join(local, ".paperclip-repositories/one");
    await makeTree(inner, { a: "a\n" });
    await sh(
      inner,
      `git init -q -b main; git add -A; git commit -qm base; git commit -qm other --allow-empty
      ${OPERATIONS.merge}`,
    );
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, COMMIT_X);
    await sh(path.join(remote, ".paperclip-repositories/one"), COMMIT_X);
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s")).toBe("x\nbase");
    expect(await sh(inner, "git log -1 --format=%s; git status --porcelain")).toBe("two\nUU a\n?? x");
    expect(told()).toHaveLength(1);
  });

  it("no longer concerns commits that come after it has ended", async () => {
    await repository();
    await sh(local, "echo b >>a; git commit -qam second");
    const { restoreWorkspace } = await prepare(whose);
    await sh(local, OPERATIONS.merge);
    await sh(remote, COMMIT_X);
    await restoreWorkspace();
    await sh(local, "git merge --abort; rm x; git checkout -q main");
    await sh(remote, "git commit -qm y --allow-empty");
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s main | grep -x '[xy]'")).toBe("y\nx");
  });
});

describe.each(Object.keys(MODULES))("a branch without a commit here: %s", (whose) => {
  describe.each([
    ["what the branch before had", "", "A  a"],
    ["new content", "; echo st >a; git add a; echo wt >a", "AM a"],
    ["a file that is gone", "; echo n >n; git add n; rm n", "A  a\nAD n"],
    ["nothing", "; git rm -rfq .", ""],
  ])("with %s staged", (_what, more, status) => {
    it.each([false, true])("stays as it is (the agent commits: %s)", async (commits) => {
      await repository();
      const { restoreWorkspace } = await prepare(whose);
      if (commits) await sh(remote, COMMIT_X);
      await sh(local, `git checkout -q --orphan z${more}`);
      const before = await sh(local, "git ls-files -s; cat .git/HEAD");
      await restoreWorkspace();
      expect(await sh(local, "git ls-files -s; cat .git/HEAD")).toBe(before);
      const lines = [status, commits ? "?? x" : ""].filter((line) => line !== "");
      expect(await sh(local, "git status --porcelain")).toBe(lines.join("\n"));
      const named = commits ? [expect.stringMatching(/^sandbox-[0-9a-f]{12} x$/)] : [];
      expect(await kept()).toEqual(named);
      expect(told()).toHaveLength(named.length);
    });
  });
});

it("what was reset here does not come back if the agent does nothing", async () => {
  await repository();
  await sh(local, "git commit -qm second --allow-empty");
  const { restoreWorkspace } = await prepare();
  await sh(local, "git reset -q --hard HEAD~1");
  await restoreWorkspace();
  expect(await sh(local, "git log --format=%s")).toBe("base");
});

describe.each(Object.keys(MODULES))("what git would obey once it is checked out: %s", (whose) => {
  /** Makes a bare repository whose configuration names a program. */
  const bare = (folder) =>
    `mkdir -p ${folder}/objects ${folder}/refs; touch ${folder}/objects/k ${folder}/refs/k
     echo 'ref: refs/heads/main' >${folder}/HEAD
     printf '[core]\\n\\tbare = false\\n\\tworktree = .\\n\\tfsmonitor = false\\n' >${folder}/config`;
  const WHY = "git would take a directory for a repository and obey what it has there";

  it.each([
    ["a whole bare repository", `${bare("sub")}; git add -A; git commit -qm hostile`],
    ["one that is gone from the files", `${bare("sub")}; git add -A; git commit -qm hostile; rm -r sub`],
    [
      "one of a commit before the last",
      `${bare("sub")}; git add -A; git commit -qm more; git rm -rq sub; git commit -qm hostile`,
    ],
    ["one in an amended commit", `${bare("sub")}; git add -A; git commit -q --amend -m hostile`],
    [
      "one in a merge",
      `git checkout -qb m; ${bare("sub")}; git add -A; git commit -qm m; git checkout -q main
       git commit -qm o --allow-empty; git merge -q -m hostile m; git branch -qD m`,
    ],
    [
      "a part of one, and the rest as files",
      `${bare("sub")}; git add sub/HEAD sub/config; git commit -qm hostile; rm sub/HEAD sub/config`,
    ],
  ])("is not merged: %s", async (_what, script) => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, `echo n >n; ${script}`);
    await restoreWorkspace();
    const unchanged = async () => {
      expect(await sh(local, "git log --format=%s; cat n")).toBe("base\nn");
      await sh(local, "git checkout -q -f -- .");
      expect(await sh(local, "ls sub/HEAD 2>/dev/null || :")).toBe("");
    };
    await unchanged();
    expect(await kept()).toEqual([expect.stringMatching(/^sandbox-[0-9a-f]{12} hostile$/)]);
    const line = expect.stringMatching(
      / commits are kept as refs\/paperclip\/\S+\/sandbox-\S+ and not merged: /,
    );
    expect(told()).toEqual([line]);
    // Nor is it with a commit on top.
    await sh(remote, "git commit -qm later --allow-empty");
    await restoreWorkspace();
    await unchanged();
    expect(told()).toEqual([expect.stringContaining(WHY)]);
    await isSound();
  });

  it("is not merged if files of the workspace make it a repository", async () => {
    await repository();
    await makeTree(local, { "sub/HEAD": "ref: refs/heads/main\n" });
    await sh(local, "git add -A; git commit -qm fixture");
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, "echo c >sub/config; git add -A; git commit -qm hostile");
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s; ls sub")).toBe("fixture\nbase\nHEAD");
    expect(told()).toEqual([expect.stringContaining(WHY)]);
  });

  it("is named in the log in any case", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, `${bare("sub")}; git add -A; git commit -qm hostile`);
    await sh(local, "git checkout -q --orphan z");
    await restoreWorkspace();
    expect(told()).toEqual([expect.stringContaining(WHY)]);
  });

  it.each([
    ["in a new commit", "echo t >>a; git commit -qam there"],
    ["in an amended commit", "echo t >>a; git commit -q --amend -am there"],
  ])("is merged if it was here before: %s", async (_what, script) => {
    await repository();
    await sh(local, `${bare("sub")}; git add -A; git commit -qm fixture`);
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, script);
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s; git status --porcelain")).toBe("there\nfixture\nbase");
  });

  it("is named in the log for other branches, tags and stashes", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(
      remote,
      `git checkout -qb n; ${bare("sub")}; git add -A; git commit -qm n; git tag t; git checkout -q main
       git checkout -qb good; git commit -qm good --allow-empty; git checkout -q main
       ${bare("stashed")}; git add -A; git stash -q; git tag tree "n^{tree}"`,
    );
    await restoreWorkspace();
    const names = (await kept()).map((line) => line.split(" ")[0]);
    expect(names).toEqual(["heads/good", "heads/n", "stash/0", "tags/t", "tags/tree"]);
    const [good, held, ...more] = told();
    expect(more).toEqual([]);
    expect(good).toMatch(/ are kept as refs\/paperclip\/\S+\/heads\/good\n$/);
    expect(held).toContain(WHY);
    for (const name of names.slice(1)) expect(held).toContain(`/${name}`);
  });

  it("is recognised in a shallow clone", async () => {
    await repository();
    const full = path.join(root, "full");
    await sh(root, "mv local full; git -C full commit -qm second --allow-empty");
    await sh(root, `git clone -q --depth 1 'file://${full}' local`);
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, COMMIT_X);
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s")).toBe("x\nsecond");
    await sh(remote, `${bare("sub")}; git add -A; git commit -qm hostile`);
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s")).toBe("x\nsecond");
  });
});

describe("programs of the local configuration", () => {
  it.each(["clean", "smudge", "process"])("do not run during a restore: a filter's %s", async (kind) => {
    const program = file("#!/bin/sh\ncat\n", 0o755);
    await repository({ a: "a\n", "filter.sh": program, ".gitattributes": "* filter=x\n" });
    await sh(local, `git config filter.x.${kind} ./filter.sh`);
    const { restoreWorkspace } = await prepare();
    const ran = path.join(root, "ran");
    await sh(
      remote,
      `printf '#!/bin/sh\\n: >"%s"; cat\\n' '${ran}' >filter.sh; echo t >>a; git commit -qam there`,
    );
    // An entry with a later time than the index is compared by its content.
    await sh(
      local,
      `echo s >>a; echo q >q; touch -t 203701010000 a q; git -c filter.x.${kind}= add a q; echo l >>a`,
    );
    await restoreWorkspace();
    expect(await kept()).toEqual([expect.stringContaining("What was staged")]);
    expect(await sh(root, "ls ran 2>/dev/null || :")).toBe("");
  });
});

describe("programs of the local configuration", () => {
  /** Whether the sandbox's program ran here. */
  const ran = () => sh(root, "ls ran 2>/dev/null || :");

  describe.each([
    ["a submodule", "git add sub 2>/dev/null; git commit -qm sub", ":"],
    [
      "a repository that a commit makes a submodule",
      ":",
      'git update-index --add --cacheinfo "160000,$SUB,sub"',
    ],
  ])("do not run in %s", (_what, here, there) => {
    it.each(["clean", "process"])("a filter's %s", async (kind) => {
      await repository();
      await sh(
        local,
        `git init -q sub; cd sub; echo '*.txt filter=x' >.gitattributes; echo 1 >1.txt
         printf '#!/bin/sh\ncat\n' >tool.sh; chmod +x tool.sh; git add .; git commit -qm s
         git config filter.x.${kind} ./tool.sh; cd ..; git config submodule.sub.ignore none; ${here}`,
      );
      const { restoreWorkspace } = await prepare();
      const commit = await sh(local, "git -C sub rev-parse HEAD");
      // The same size and another content: git compares it by the filter.
      await sh(
        remote,
        `printf '#!/bin/sh\n: >"%s"; cat\n' '${root}/ran' >sub/tool.sh; echo 2 >sub/1.txt; echo n >n; git add n
         SUB=${commit}; ${there}; git commit -qm there`,
      );
      await restoreWorkspace();
      expect(await sh(local, "git log -1 --format=%s; cat sub/1.txt")).toBe("there\n2");
      await prepare();
      expect(await ran()).toBe("");
      // This one runs it.
      await sh(local, "git status --ignore-submodules=none >/dev/null 2>&1 || :");
      expect(await ran()).toBe("ran");
    });
  });

  it("do not run in the place of a remote when commits are taken over", async () => {
    await repository({ a: "a\n", ".gitconfig": "" });
    await sh(local, "git config include.path ../.gitconfig");
    const { restoreWorkspace } = await prepare();
    const command = `ext::sh -c touch% ${root}/ran;exit% 1;`;
    const paths = ["/", "file://", "../", path.parse(root).root + root.split(path.sep)[1]];
    const instead = paths.map((name) => `\tinsteadOf = ${name}\n`).join("");
    await writeFile(
      path.join(remote, ".gitconfig"),
      `[protocol "ext"]\n\tallow = always\n[url "${command}"]\n${instead}`,
    );
    await sh(remote, "git commit -qam first");
    await restoreWorkspace();
    await sh(remote, "echo t >>a; git commit -qam second; git branch other; git tag -m x tag");
    await sh(remote, "git checkout -q other; git commit -qm other --allow-empty; git checkout -q main");
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s; git status --porcelain")).toBe("second\nfirst\nbase");
    expect(await kept()).toEqual(["heads/other other", "tags/tag x"]);
    await prepare();
    expect(await ran()).toBe("");
    await sh(local, "git fetch -q /nowhere 2>/dev/null || :");
    expect(await ran()).toBe("ran");
  });

  it("do not run in the place of a remote that has what is missing here", async () => {
    await repository({ a: "a\n", b: "1\n2\n3\n4\n", ".gitconfig": "" });
    await sh(local, "git config include.path ../.gitconfig");
    const { restoreWorkspace } = await prepare();
    await writeFile(
      path.join(remote, ".gitconfig"),
      `[protocol "ext"]\n\tallow = always\n[extensions]\n\tpartialClone = r
[remote "r"]\n\tpromisor = true\n\turl = "ext::sh -c touch% ${root}/ran;exit% 1;"\n`,
    );
    await sh(remote, "git commit -qam first");
    await restoreWorkspace();
    // The two are merged by a third version, which is missing.
    const missing = await sh(local, "git rev-parse HEAD:b");
    await sh(
      local,
      `echo here >>b; git commit -qam here; rm -f .git/objects/${missing.replace(/^../, "$&/")}`,
    );
    await sh(remote, "echo 0 >b; echo 2 >>b; git commit -qam second; git tag unknown HEAD~1");
    await restoreWorkspace();
    expect(told()).toContainEqual(expect.stringContaining("could not be merged and are kept"));
    expect(await ran()).toBe("");
    await sh(local, `git cat-file -p ${missing} 2>/dev/null || :`);
    expect(await ran()).toBe("ran");
  });
});

describe("what a person does while a restore runs", () => {
  const { PATH } = process.env;
  afterEach(() => {
    process.env.PATH = PATH;
  });

  /**
   * Has a script run once, in the workspace, before or after a command of git that this machine runs.
   *
   * @param {"before" | "after"} when
   * @param {string} pattern Of a shell's `case`, for the command's arguments.
   * @param {string} script
   */
  async function at(when, pattern, script) {
    const once = `case "$*" in ${pattern}) [ -e '${root}/done' ] || { : >'${root}/done'; person; } ;; esac`;
    await makeTree(root, {
      "bin/git": file(
        `#!/bin/sh
PATH='${PATH}'; export PATH
person() { (
  unset GIT_INDEX_FILE
  export GIT_AUTHOR_NAME=p GIT_AUTHOR_EMAIL=p@p GIT_COMMITTER_NAME=p GIT_COMMITTER_EMAIL=p@p
  cd '${local}'; ${script}
) </dev/null >/dev/null 2>&1; }
${when === "before" ? once : ""}
git "$@"
code=$?
${when === "after" ? once : ""}
exit $code
`,
        0o755,
      ),
    });
    process.env.PATH = `${root}/bin:${PATH}`;
  }

  const COMMANDS = [
    ["before", "*'for-each-ref'*"],
    ["before", "*'update-index -z --index-info'*"],
    ["before", "*'diff-index'*'--cached'*"],
    ["before", "*'update-ref -m paperclip: restore'*"],
    ["after", "*'update-ref -m paperclip: restore'*"],
    ["before", "*'ls-files --stage'*"],
    ["after", "*'update-index -z --index-info'*"],
    ["before", "*'update-index -q --refresh'*"],
    ["before", "*'diff --'*'--name-only HEAD'*"],
  ];
  const agent = "echo v2 >a; echo n >n; git rm -q b; git add -A; git commit -qm agent";

  it.each(COMMANDS)("stays staged, or is refused by git: %s %s", async (when, pattern) => {
    await repository({ a: "a\n", b: "b\n", l: "l\n" });
    const { restoreWorkspace } = await prepare("own", {
      client: createLocalClient({ env: { PATH } }),
    });
    await sh(remote, agent);
    await at(when, pattern, "echo staged >l; git add l && touch ../added; echo later >l");
    await restoreWorkspace();
    expect(await sh(root, "ls done")).toBe("done");
    const isAdded = (await sh(root, "ls added 2>/dev/null || :")) !== "";
    expect(await sh(local, "git show :l; cat l; git log --format=%s; git diff --cached --name-only")).toBe(
      isAdded ? "staged\nlater\nagent\nbase\nl" : "l\nlater\nagent\nbase",
    );
    expect(await sh(local, "find .git -name '*.lock'; ls .git | grep paperclip || :")).toBe("");
  });

  it.each(COMMANDS)("does not revert the agent's commit: %s %s", async (when, pattern) => {
    await repository({ a: "a\n", b: "b\n", l: "l\n" });
    const { restoreWorkspace } = await prepare("own", {
      client: createLocalClient({ env: { PATH } }),
    });
    await sh(remote, agent);
    await at(when, pattern, "echo mine >l; git add l && git commit -qm mine");
    await restoreWorkspace();
    expect(await sh(root, "ls done")).toBe("done");
    expect(await sh(local, "git ls-tree --name-only HEAD; git show HEAD:a; git diff --cached")).toBe(
      "a\nl\nn\nv2",
    );
    expect(["l", "l\nmine"]).toContain(
      await sh(local, "git log --format= --name-only main --grep=mine; git show HEAD:l"),
    );
    await isSound();
  });

  it("is refused if the index is a link", async () => {
    await repository({ a: "a\n", b: "b\n", l: "l\n" });
    await sh(local, "mv .git/index ../index; ln -s ../../index .git/index");
    const { restoreWorkspace } = await prepare("own", { client: createLocalClient({ env: { PATH } }) });
    await sh(remote, agent);
    await sh(local, "echo s >s; git add s");
    await at("after", "*'update-ref -m paperclip: restore'*", "git add -f l; git commit -qam mine");
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s; git status --porcelain; readlink .git/index")).toBe(
      "agent\nbase\nA  s\n../../index",
    );
  });

  it("is waited for if it locks the index just before the restore does", async () => {
    await repository({ a: "a\n", b: "b\n" });
    const { restoreWorkspace } = await prepare("own", {
      client: createLocalClient({ env: { PATH } }),
    });
    await sh(remote, agent);
    await at("before", COMMANDS[1][1], ": >.git/index.lock; { sleep 1; rm .git/index.lock; } &");
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s; git status --porcelain")).toBe("agent");
  });
});

it("a restore that is killed does not leave the index locked", async () => {
  await repository();
  const { restoreWorkspace } = await prepare();
  await sh(remote, "echo t >>a; git commit -qam there");
  const script = path.join(root, "restore.mjs");
  const entry = fileURLToPath(new URL("../../adapter-utils/index.js", import.meta.url));
  const clients = fileURLToPath(new URL("../../clients/local.js", import.meta.url));
  await writeFile(
    script,
    `import { createAdapterUtils } from ${JSON.stringify(entry)};
     import { createLocalClient } from ${JSON.stringify(clients)};
     import * as git from ${JSON.stringify(entry.replace(/index\.js$/, "git.js"))};
     import { existsSync } from "node:fs";
     const integrateImportedGitHead = async () => {
       if (existsSync(${JSON.stringify(path.join(local, ".git/index.lock"))})) process.kill(process.pid, "SIGKILL");
     };
     const { prepareSandboxManagedRuntime } = createAdapterUtils({ git: { ...git.default, integrateImportedGitHead } });
     const { restoreWorkspace } = await prepareSandboxManagedRuntime({
       spec: { transport: "sandbox", provider: "test", sandboxId: "1", remoteCwd: ${JSON.stringify(remote)}, timeoutMs: 60000 },
       adapterKey: "test", client: createLocalClient(), workspaceLocalDir: ${JSON.stringify(local)},
       workspaceInboundMode: "adopt_remote",
     });
     await restoreWorkspace();`,
  );
  await expect(run(process.execPath, [script])).rejects.toMatchObject({ signal: "SIGKILL" });
  // Git ends on its own, once nobody is there to tell it what to write.
  await sh(local, "while [ -e .git/index.lock ]; do sleep 0.1; done");
  expect(await sh(local, "git log -1 --format=%s; git status --porcelain")).toBe("base");
  await restoreWorkspace();
  expect(await sh(local, "git log -1 --format=%s; git status --porcelain")).toBe("there");
});

describe.each(["with a repository", "without one"])("a download without any file: %s", (how) => {
  const begin =
    how === "with a repository"
      ? repository
      : (/** @type {Record<string, string>} */ files) => makeTree(local, files);
  const files = { a: "a\n", "d/b": "b\n" };
  const REFUSED = {
    code: "ERR_SANDBOX_REPLACED",
    message: expect.stringMatching(/nothing was changed in .*prepare it again/),
  };
  const unchanged = async () => {
    expect(await sh(local, "cat a d/b; find . -name '*conflicts*'")).toBe("a\nb");
  };

  it("is refused if the provider's own transfer does nothing", async () => {
    await begin(files);
    let transfers = false;
    const syncOut = async (/** @type {{ files: object[] }[]} */ [{ files: wanted }]) => {
      for (const { kind, sourcePath, targetPath } of wanted) {
        if (kind === "file") await copyFile(sourcePath, targetPath);
        else if (transfers) await sh(root, `cp -R '${sourcePath}/.' '${targetPath}'`);
      }
      return { operations: [] };
    };
    const { restoreWorkspace } = await prepare("own", { client: { ...client(), syncOut } });
    await sh(remote, "echo t >>a");
    await expect(restoreWorkspace()).rejects.toMatchObject(REFUSED);
    await unchanged();
    transfers = true;
    await restoreWorkspace();
    expect(await readFile(path.join(local, "a"), "utf8")).toBe("a\nt\n");
  });

  it("is refused if the sandbox was replaced by an empty one", async () => {
    await begin(files);
    const { restoreWorkspace } = await prepare();
    await sh(remote, "rm -rf ./* .git .paperclip-runtime");
    await expect(restoreWorkspace()).rejects.toMatchObject(REFUSED);
    await unchanged();
  });

  it("is nothing new if nothing was uploaded", async () => {
    await mkdir(local);
    if (how === "with a repository")
      await sh(local, "git init -q -b main; git commit -qm base --allow-empty");
    const { restoreWorkspace } = await prepare();
    await restoreWorkspace();
    await sh(remote, "echo n >n");
    await restoreWorkspace();
    expect(await readdir(local)).toContain("n");
  });
});

it.each(["git commit -qm deleted", "git branch deleted; git checkout -q --orphan new"])(
  "a workspace that the agent has emptied comes back empty: %s",
  async (commit) => {
    await repository({ a: "a\n", "d/b": "b\n" });
    const { restoreWorkspace } = await prepare();
    await sh(remote, `git rm -rq .; ${commit}`);
    await restoreWorkspace();
    expect(await sh(local, "ls")).toBe("");
  },
);

describe.each(["with a repository", "without one"])(
  "a sandbox that is adopted without a baseline: %s",
  (how) => {
    it("does not undo what was done here, or delete anything", async () => {
      const files = { a: "a\n", b: "b\n", c: "c\n", e: "e\n" };
      await (how === "with a repository" ? repository(files) : makeTree(local, files));
      await prepare();
      await sh(remote, "echo agent >b; rm e; echo x >x");
      await sh(local, "echo here >a; echo new >new; rm c");
      if (how === "with a repository") await sh(local, "echo committed >o; git add o; git commit -qm here");
      const { restoreWorkspace, workspaceSyncSnapshot } = await prepare("own", {
        workspaceInboundMode: "adopt_remote",
      });
      expect([...workspaceSyncSnapshot.baseline.entries]).toEqual([]);
      await restoreWorkspace();
      // Both sides have these, and which of them is older is not known.
      expect(await sh(local, "cat .paperclip-runtime/conflicts/*/a .paperclip-runtime/conflicts/*/b")).toBe(
        "here\nb",
      );
      expect(await sh(local, "cat a b c e new x; ls .paperclip-runtime/conflicts/*")).toBe(
        "a\nagent\nc\ne\nnew\nx\na\nb",
      );
      if (how === "with a repository")
        expect(await sh(local, "git log --format=%s; cat o")).toBe("here\nbase\ncommitted");
      // From now on it is known.
      await sh(remote, "rm x; echo more >>b");
      await sh(local, "echo here >>a");
      await restoreWorkspace();
      expect(await sh(local, "cat a b; ls x 2>/dev/null || :")).toBe("a\nhere\nagent\nmore");
    });
  },
);

describe.each(Object.keys(MODULES))("a folder for further repositories: %s", (whose) => {
  const NAME = ".paperclip-repositories";

  it.each([
    ["a file", `echo x >${NAME}`],
    ["a link", `ln -s . ${NAME}`],
    ["a folder that is no checkout", `mkdir -p ${NAME}/x; echo y >${NAME}/x/y`],
    ["a repository", `git init -q ${NAME}/x; cd ${NAME}/x; git commit -qm x --allow-empty`],
  ])("does not come back from a sandbox: %s", async (_what, script) => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, `echo n >n; ${script}`);
    await restoreWorkspace();
    expect(await sh(local, "ls -A")).toBe(".git\na\nn");
    await prepare(whose);
  });

  it.each([
    ["a file", `echo x >${NAME}`, NAME],
    ["a link", `ln -s . ${NAME}`, NAME],
    ["a folder that is no checkout", `mkdir -p ${NAME}/x; echo y >${NAME}/x/y`, `${NAME}/x`],
    ["a file in it", `mkdir -p ${NAME}; echo y >${NAME}/y`, `${NAME}/y`],
    ["a folder with another name", `mkdir -p '${NAME}/x y'`, `${NAME}/x y`],
    ["a repository without a commit", `git init -q ${NAME}/x`, `${NAME}/x`],
  ])("is left out of an upload, and the log says so: %s", async (_what, script, named) => {
    await repository();
    await sh(local, script);
    const before = await sh(local, `ls -lR ${NAME}`);
    const { restoreWorkspace } = await prepare(whose);
    expect(lines.splice(0).filter((line) => line.includes(NAME))).toEqual([
      expect.stringContaining(`[paperclip] ${named} is not uploaded: `),
    ]);
    expect(await sh(remote, `ls ${NAME} 2>/dev/null || :`)).toBe("");
    await sh(remote, COMMIT_X);
    await restoreWorkspace();
    // The release's function that merges commits insists on usable ones.
    const merged = whose === "own" ? "x\nbase" : "base";
    expect(await sh(local, `git log --format=%s; ls -lR ${NAME}`)).toBe(`${merged}\n${before}`);
    expect(await sh(local, "cat x; git log --all --format=%s | grep x")).toBe("x\nx");
  });

  it.each([
    ["a file", `echo x >${NAME}; git add -Af`],
    ["a link", `ln -s '${path.sep}tmp' ${NAME}; git add -Af`],
    ["a file in it", `mkdir ${NAME}; echo y >${NAME}/y; git add -Af`],
  ])("does not come back in a commit: %s", async (_what, script) => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, `echo n >n; ${script}; git commit -qm there`);
    await restoreWorkspace();
    expect(await sh(local, "git log --format=%s; ls -A; cat n")).toBe("base\n.git\na\nn\nn");
    expect(await kept()).toEqual([expect.stringMatching(/^sandbox-\S+ there$/)]);
    expect(told()).toEqual([expect.stringContaining(` and not merged: they have ${NAME}`)]);
  });

  it("is left out of an upload beside repositories that are uploaded", async () => {
    await repository();
    const inner = path.join(local, NAME, "one");
    await makeTree(path.join(local, NAME), { "one/b": "b\n", "other/y": "y" });
    await sh(inner, "git init -q -b main; git add -A; git commit -qm base; echo c >c; rm b");
    const { restoreWorkspace } = await prepare(whose);
    expect(await sh(remote, `ls ${NAME} ${NAME}/one; git status --porcelain`)).toBe(
      `${NAME}:\none\n\n${NAME}/one:\nc`,
    );
    await sh(
      path.join(remote, NAME, "one"),
      `git add -A; git commit -qm there; mkdir ../two; echo 2 >../two/2`,
    );
    await restoreWorkspace();
    expect(await sh(inner, "git log --format=%s; ls ..")).toBe("there\nbase\none\nother");
  });

  it("is not followed by an upload where the commit has a link", async () => {
    await repository();
    const outside = path.join(root, "outside");
    await makeTree(outside, { a: "a" });
    await sh(
      local,
      `ln -s '${outside}' ${NAME}; git add -Af; git commit -qm link; rm ${NAME}; mkdir -p ${NAME}/one
      cd ${NAME}/one; echo b >b; git init -q -b main; git add -A; git commit -qm base`,
    );
    // The release's function makes the clone.
    if (whose === "own") await prepare(whose);
    expect(await sh(root, "ls outside")).toBe("a");
  });

  it.each([
    ["no checkout", ":"],
    ["a checkout without a commit", "git init -q -b main"],
  ])("is left out of the upload of a directory that is %s, with its repositories", async (_what, script) => {
    await makeTree(local, { a: "a", [`${NAME}/one/b`]: "b" });
    await sh(path.join(local, NAME, "one"), "git init -q -b main; git add -A; git commit -qm base");
    await sh(local, script);
    const { restoreWorkspace } = await prepare(whose);
    expect(await sh(remote, "ls -A")).toBe(".paperclip-runtime\na");
    expect(lines.filter((line) => line.includes(NAME))).toEqual([
      `[paperclip] ${NAME}/one is not uploaded: the workspace itself is no checkout with a commit\n`,
    ]);
    await sh(remote, "echo b >b; rm a");
    await restoreWorkspace();
    expect(await sh(local, `ls; cat ${NAME}/one/b; git -C ${NAME}/one log --format=%s`)).toBe("b\nbbase");
  });

  it("is left out of the upload of a directory that is no checkout", async () => {
    await makeTree(local, { a: "a", [NAME]: "x" });
    const { restoreWorkspace } = await prepare(whose);
    expect(await sh(remote, "ls -A")).toBe(".paperclip-runtime\na");
    await sh(remote, `echo b >b; rm a; mkdir ${NAME}`);
    await restoreWorkspace();
    expect(await sh(local, `ls -A; cat ${NAME}`)).toBe(`${NAME}\nb\nx`);
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

describe.each(Object.keys(MODULES))("files that git takes for the same as here: %s", (whose) => {
  const edits = `git rm -q a d/d; git commit -qm deleted; rm b; echo t >>c; git commit -qm edited c; echo u >>e`;

  it.each(["umask 002", "umask 077", "umask 022; chmod 600 [a-f]; chmod 711 d"])(
    "are deleted and edited as in the sandbox: %s",
    async (modes) => {
      await mkdir(local);
      await sh(
        local,
        `umask 022; git init -q -b main; mkdir d
         for name in a b c d/d e f; do echo x >$name; done; git add -A; git commit -qm base
         ${modes}; git checkout-index --force --all --prefix=new/; rm -r a b c d e f; mv new/* .; rmdir new`,
      );
      await sh(local, `${modes.replace(/.*;(.*;)/, "$1")}; git update-index -q --refresh`);
      const before = await sh(local, "stat -c '%a %n' c e f .");
      const { restoreWorkspace } = await prepare(whose);
      await sh(remote, edits);
      await restoreWorkspace();
      expect(await sh(local, "git log -1 --format=%s; git status --porcelain; ls")).toBe(
        "edited\n D b\n M e\nc\ne\nf",
      );
      expect(await sh(local, "stat -c '%a %n' c e f .; find . -name '*conflicts*'")).toBe(before);
    },
  );

  it.each(["core.autocrlf true", "core.eol crlf"])("are so with other line ends: %s", async (setting) => {
    await mkdir(local);
    await sh(
      local,
      `git init -q -b main; git config ${setting}; mkdir d; echo '* text=auto' >.gitattributes
       for name in a b c d/d e f; do printf 'x\\r\\n' >$name; done; git add -A; git commit -qm base`,
    );
    const { restoreWorkspace } = await prepare(whose);
    expect(await sh(remote, "git status --porcelain; cat f; git cat-file -p HEAD:f")).toBe("x\r\nx");
    await sh(remote, edits);
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s; git status --porcelain; ls")).toBe(
      "edited\n D b\n M e\nc\ne\nf",
    );
    expect(await readFile(path.join(local, "e"), "utf8")).toBe("x\r\nu\n");
    expect(await readdir(local)).not.toContain(".paperclip-runtime");
  });
});

describe.each(Object.keys(MODULES))("the runtime directory: %s", (whose) => {
  it("does not get into the agent's commits", async () => {
    await repository();
    await makeTree(path.join(root, "skills"), { skill: "s" });
    const assets = [{ key: "skills", localDir: path.join(root, "skills") }];
    const { restoreWorkspace } = await prepare(whose, { assets });
    await sh(remote, "echo t >>a; git add -A; git commit -qm there");
    await restoreWorkspace();
    expect(told()).toEqual([]);
    expect(await sh(local, "git log -1 --format=%s --name-only; git status --porcelain")).toBe("there\n\na");
  });
});

describe("an index that another process has locked", () => {
  it("is waited for", async () => {
    await repository();
    const { restoreWorkspace } = await prepare();
    await sh(remote, "echo t >>a; git commit -qam there");
    const lock = path.join(local, ".git/index.lock");
    await writeFile(lock, "");
    const [, released] = await Promise.all([
      restoreWorkspace(),
      new Promise((resolve) => setTimeout(resolve, 1000)).then(() => rm(lock)),
    ]);
    expect([released, told()]).toEqual([undefined, []]);
    expect(await sh(local, "git log -1 --format=%s; git status --porcelain")).toBe("there");
  });

  it("stays as it is, with HEAD, and the log says so", async () => {
    await repository();
    const { restoreWorkspace } = await prepare();
    await sh(remote, "echo t >>a; git commit -qam there");
    const lock = path.join(local, ".git/index.lock");
    await writeFile(lock, "");
    await restoreWorkspace();
    expect(told()).toEqual([
      expect.stringMatching(/ are kept as \S+ and not merged: another git process has locked the index /),
    ]);
    await rm(lock);
    expect(await kept()).toEqual([expect.stringMatching(/^sandbox-\w+ there$/)]);
    expect(await sh(local, "git log -1 --format=%s; git status --porcelain")).toBe("base\n M a");
  });
});

describe("an index that a failed restore has left behind", () => {
  /** Moves the branch, and then lets nobody write the index. */
  const failing = () => {
    let fails = true;
    const integrateImportedGitHead = async (
      /** @type {{ localDir: string, importedHead: string }} */ input,
    ) => {
      await releasedGit.integrateImportedGitHead(input);
      if (fails) await sh(local, "mv .git/index .git/moved; mkdir .git/index");
      fails = false;
    };
    return own.createAdapterUtils({ git: { ...releasedGit, integrateImportedGitHead } });
  };
  const input = () => ({
    spec: { transport: "sandbox", provider: "test", sandboxId: "1", remoteCwd: remote, timeoutMs: 60_000 },
    adapterKey: "test",
    client: client(),
    workspaceLocalDir: local,
    onProgress: (/** @type {string} */ line) => void lines.push(line),
  });
  /**
   * Has a restore fail between branch and index, after the agent's commands. Resolves with what restores again.
   *
   * @param {string} agent
   */
  const restoreThatFails = async (agent) => {
    const { restoreWorkspace } = await failing().prepareSandboxManagedRuntime(input());
    await sh(remote, agent);
    await expect(restoreWorkspace()).rejects.toThrow(/index/);
    expect(await sh(local, "rmdir .git/index; mv .git/moved .git/index; ls .git")).not.toContain("lock");
    return restoreWorkspace;
  };

  describe.each([
    ["nothing is staged", ":", ""],
    ["a file is staged", "echo s >s; git add s", "A  s"],
    ["a deletion is staged", "git rm -q d", "D  d"],
  ])("%s", (_name, stage, status) => {
    it.each(["the next restore", "the next prepare", "the next prepare and restore"])(
      "follows in %s",
      async (then) => {
        await repository({ a: "a\n", b: "b\n", d: "d\n" });
        await sh(local, stage);
        const restoreWorkspace = await restoreThatFails(
          "echo t >>a; git rm -q b; echo n >n; git add n; git commit -qm there a b n",
        );
        expect(await sh(local, "git log -1 --format=%s")).toBe("there");
        if (then === "the next restore") await restoreWorkspace();
        else {
          const again = await prepare();
          expect(await sh(local, "git status --porcelain")).toBe(status);
          await sh(remote, "echo u >>a; git commit -qm more a");
          if (then.endsWith("restore")) await again.restoreWorkspace();
        }
        expect(await sh(local, "git status --porcelain; ls .git | grep paperclip || :")).toBe(status);
        expect(await kept()).toEqual([]);
      },
    );
  });

  it("does not unstage what a person has staged since then at the same paths", async () => {
    await repository({ a: "a\n", b: "b\n" });
    await restoreThatFails("echo t >>a; git commit -qam there");
    await sh(local, "git reset -q; echo mine >>a; git commit -qam mine; echo staged >>a; git add a");
    await prepare();
    expect(await sh(local, "git status --porcelain; git show :a")).toBe("M  a\na\nt\nmine\nstaged");
    expect(await kept()).toEqual([]);
  });

  it("is not taken for what somebody has staged since then", async () => {
    await repository({ a: "a\n", b: "b\n" });
    await restoreThatFails("echo t >>a; git commit -qam there");
    await sh(local, "git reset -q; echo mine >>b; git commit -qam mine; echo staged >s; git add s");
    await prepare();
    expect(await sh(local, "git log --format=%s; git status --porcelain")).toBe("mine\nthere\nbase\nA  s");
  });
});

describe("what is changed here when the workspace is uploaded", () => {
  it.each(["git mv a n", "mv a n; git add -N n", "mv a n; git add -A"])(
    "is there as it is here if a file is renamed: %s",
    async (rename) => {
      await repository({ a: "a line\n", b: "b\n" });
      await sh(local, rename);
      await prepare();
      expect(await sh(remote, "ls")).toBe("b\nn");
    },
  );

  it("is on the branch of that name, though a tag has the name too", async () => {
    await repository();
    await sh(local, "git tag main");
    const { restoreWorkspace } = await prepare();
    expect(await sh(remote, "git symbolic-ref HEAD")).toBe("refs/heads/main");
    await sh(remote, "echo t >>a; git commit -qam there");
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s refs/heads/main; git status --porcelain")).toBe("there");
  });

  it("is left out if the user's own configuration ignores it", async () => {
    await repository();
    const home = path.join(root, "home");
    await makeTree(home, { ".gitconfig": "[core]\n\texcludesFile = ~/ignored\n", ignored: "*.secret\n" });
    await makeTree(local, { "x.secret": "s", "y.open": "o" });
    const was = { HOME: process.env.HOME, GIT_CONFIG_GLOBAL: process.env.GIT_CONFIG_GLOBAL };
    delete process.env.GIT_CONFIG_GLOBAL;
    process.env.HOME = home;
    try {
      await prepare();
    } finally {
      for (const [name, value] of Object.entries(was)) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    }
    expect(await sh(remote, "ls")).toBe("a\ny.open");
  });

  it("is named in the log if a string cannot have its name", async () => {
    await repository();
    await sh(local, String.raw`echo x >"$(printf 'u\351')"`);
    const { restoreWorkspace } = await prepare();
    expect(lines.splice(0).filter((line) => line.includes("UTF-8"))).toEqual([
      "[paperclip] Not uploaded as they are now, since their names are not UTF-8: u\ufffd\n",
    ]);
    await restoreWorkspace();
    expect(await sh(local, "git status --porcelain")).toBe(String.raw`?? "u\351"`);
  });
});

describe("a restore", () => {
  it("brings what is staged and committed under a name that is not UTF-8", async () => {
    await repository();
    const name = String.raw`"$(printf 'u\351')"`;
    await sh(
      local,
      `echo x >${name}; echo y >b; git add -A; git commit -qm more; echo s >${name}; git add -A`,
    );
    const { restoreWorkspace } = await prepare();
    await sh(remote, `echo t >>${name}; git commit -qam there`);
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s; git status --porcelain")).toBe("there");
    expect(await kept()).toEqual([expect.stringMatching(/^staged-/)]);
  });

  it("brings files of commits that are in a directory with a heavy name", async () => {
    await repository();
    const { restoreWorkspace } = await prepare();
    await sh(
      remote,
      `mkdir -p src/build node_modules/x; echo 1 >src/build/rules; echo 2 >node_modules/x/i; echo 3 >src/build/new
       git add -f src/build/rules node_modules; git commit -qm there`,
    );
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s; git status --porcelain; cat src/build/*")).toBe(
      "there\n1",
    );
  });

  it.each(["ln -s ../elsewhere vendor", "ln -s nowhere vendor", "echo x >vendor"])(
    "says which files of commits it cannot write: %s",
    async (instead) => {
      await repository({ a: "a\n", ".gitignore": "vendor\n" });
      await sh(local, `mkdir ../elsewhere; ${instead}`);
      const { restoreWorkspace } = await prepare();
      await sh(remote, "mkdir vendor; echo 1 >vendor/x; git add -f vendor; git commit -qm there");
      lines.splice(0);
      await restoreWorkspace();
      expect(lines.splice(0).filter((line) => line.includes("not written"))).toEqual([
        expect.stringContaining("1 files of the environment's commits are not written, since above"),
      ]);
      expect(await sh(local, "git log -1 --format=%s; ls ../elsewhere")).toBe("there");
    },
  );

  it("brings files of commits that are in a directory which git ignores and does not transfer", async () => {
    await repository({
      a: "a\n",
      ".gitignore": "/logs\nbuild\n",
      "logs/old": "old\n",
      "logs/both": "here\n",
    });
    await sh(local, "git rm -q --cached -r logs; git commit -qm ignored; mkdir build; echo b >build/b");
    const { restoreWorkspace } = await prepare();
    await sh(
      remote,
      `mkdir logs build; echo 1 >logs/keep; echo there >logs/both; echo 2 >build/new; echo x >logs/untracked
       git add -f logs/keep logs/both build; git commit -qm there`,
    );
    lines.splice(0);
    await restoreWorkspace();
    expect(
      await sh(
        local,
        "git log -1 --format=%s; git status --porcelain; ls logs build; cat logs/keep logs/both",
      ),
    ).toBe("there\n M logs/both\nbuild:\nb\nnew\n\nlogs:\nboth\nkeep\nold\n1\nhere");
    expect(lines.splice(0).filter((line) => line.includes("not written"))).toEqual([
      expect.stringMatching(/1 files .* since other ones are here, which are not transferred: logs\/both\n/),
    ]);
    // What changes in them later stays, and is named.
    await sh(remote, "echo 3 >logs/keep; git rm -q build/new; git commit -qam more");
    await restoreWorkspace();
    expect(await sh(local, "cat logs/keep build/new; git status --porcelain")).toBe(
      "1\n2\n M logs/both\n M logs/keep",
    );
    expect(lines.splice(0).filter((line) => line.includes("not written"))).toEqual([
      expect.stringMatching(/1 files .*: logs\/keep\n/),
    ]);
  });

  it.each([
    ["workspaceExclude", ["*.log", "secret"]],
    ["preserveAbsentOnRestore", ["deep/x.log", "secret"]],
  ])("brings files of commits that an option names: %s", async (option, names) => {
    await repository({ a: "a\n", secret: "here\n", kept: "k\n" });
    const { restoreWorkspace } = await prepare("own", { [option]: names });
    await sh(
      remote,
      "mkdir deep; echo 1 >deep/x.log; echo there >secret; git add -Af deep secret; git commit -qm there",
    );
    lines.splice(0);
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s; git status --porcelain; cat deep/x.log secret")).toBe(
      "there\n M secret\n1\nhere",
    );
    expect(lines.splice(0).filter((line) => line.includes("not written"))).toEqual([
      expect.stringMatching(/1 files of .*: secret\n/),
    ]);
  });

  it.each(["old", "new"])("does not move another branch than that of the upload: %s", async (branch) => {
    await repository();
    await sh(local, "git branch old; git commit -qm more --allow-empty; git branch new");
    const { restoreWorkspace } = await prepare();
    await sh(remote, "echo t >>a; git commit -qam there");
    await sh(local, `git checkout -q ${branch}; git rev-parse old new main >../before`);
    await restoreWorkspace();
    expect(told()).toEqual([
      expect.stringContaining(
        `not merged: ${branch} is checked out here, and main was when the workspace was`,
      ),
    ]);
    expect(await sh(local, "git rev-parse old new main | cmp - ../before; git status --porcelain")).toBe(
      " M a",
    );
    expect(await kept()).toEqual([expect.stringMatching(/^sandbox-\w+ there$/)]);
  });

  it("keeps a file that is staged in the place of a directory which the sandbox still has", async () => {
    await repository({ a: "a\n", "d/x": "x\n" });
    const { restoreWorkspace } = await prepare();
    await sh(local, "git rm -qr d; echo staged >d; git add d; rm d");
    await sh(remote, "echo t >>d/x; git commit -qam there");
    await restoreWorkspace();
    expect(await kept()).toEqual([expect.stringMatching(/^staged-/)]);
    expect(await sh(local, "git show $(git for-each-ref --format='%(objectname)' refs/paperclip):d")).toBe(
      "staged",
    );
    expect(await sh(local, "git status --porcelain")).toBe("");
  });

  it("prints little of what the sandbox says, and no control characters", async () => {
    await repository();
    const long = `\u001b[31m\u202e${"x".repeat(400)}`;
    await makeTree(root, {
      "bin/git": file(
        `#!/bin/sh
case "$*" in
*rev-list*) printf 'fatal: %s\\n' '${long}' >&2; exit 1 ;;
*) PATH=$REAL exec git "$@" ;;
esac
`,
        0o755,
      ),
    });
    const env = { REAL: process.env.PATH, PATH: `${root}/bin:${process.env.PATH}` };
    const { restoreWorkspace } = await prepare("own", { client: createLocalClient({ env }) });
    await restoreWorkspace();
    const [line] = told();
    expect(line).toMatch(/fatal: \\u\{1b\}\[31m\\u\{202e\}x+…\n$/);
    expect(line?.length).toBeLessThan(350);
  });
});

describe.each(Object.keys(MODULES))("a repository in the workspace: %s", (whose) => {
  const NAME = ".paperclip-repositories/one";
  const there = () => path.join(remote, NAME);
  const here = () => path.join(local, NAME);

  async function upload() {
    await repository();
    await makeTree(here(), { b: "b\n" });
    await sh(here(), "git init -q -b main; git add -Af; git commit -qm inner");
    return prepare(whose);
  }

  it("takes nothing of the one around it if its `.git` is gone in the sandbox", async () => {
    const { restoreWorkspace } = await upload();
    await sh(there(), "rm -r .git; echo t >>b");
    await restoreWorkspace();
    expect(await sh(here(), "git log --format=%s; git ls-tree --name-only HEAD; cat b")).toBe(
      "inner\nb\nb\nt",
    );
  });

  it.each([
    ["in the sandbox", () => there()],
    ["here", () => here()],
  ])("that is gone %s does not prevent the restore of the workspace", async (_where, gone) => {
    const { restoreWorkspace } = await upload();
    await sh(remote, COMMIT_X);
    await rm(gone(), { recursive: true });
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s; cat x")).toBe(
      await sh(remote, "git log -1 --format=%s; cat x"),
    );
    expect(lines.filter((line) => line.includes(NAME))).toHaveLength(1);
    await isSound();
  });
});

describe.each(Object.keys(MODULES))("a directory in the sandbox: %s", (whose) => {
  it.each(["a checkout", "no checkout"])(
    "is not restored from if another workspace was uploaded there since: %s",
    async (kind) => {
      if (kind === "a checkout") await repository();
      else await makeTree(local, { a: "a\n" });
      const first = await prepare(whose);
      const other = path.join(root, "other");
      await makeTree(other, { b: "b\n" });
      if (kind === "a checkout") await sh(other, "git init -q -b main; git add -A; git commit -qm other");
      const second = await prepare(whose, { workspaceLocalDir: other, adapterKey: "another" });
      await expect(first.restoreWorkspace()).rejects.toMatchObject({
        code: "ERR_SANDBOX_REPLACED",
        message: expect.stringContaining(remote),
      });
      expect(await sh(local, "ls")).toBe("a");
      await sh(remote, "echo c >c");
      await second.restoreWorkspace();
      expect(await sh(other, "ls")).toBe("b\nc");
      // What the agent has deleted beside its files tells nothing.
      await sh(remote, "rm -rf .paperclip-runtime .git/paperclip-workspace; echo d >d");
      await second.restoreWorkspace();
      expect(await sh(other, "ls")).toBe("b\nc\nd");
    },
  );

  it("is restored from after another upload of the same workspace", async () => {
    await repository();
    const first = await prepare(whose);
    await prepare(whose);
    await sh(remote, COMMIT_X);
    await first.restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s")).toBe("x");
  });
});

describe.each(Object.keys(MODULES))("an upload: %s", (whose) => {
  it("takes a link in the place of a tracked directory as it is, where it leads to itself", async () => {
    await repository({ a: "a\n", "deep/b": "b\n", "deep/er/c": "c\n" });
    await sh(local, "rm -r deep; ln -s deep deep");
    const { restoreWorkspace } = await prepare(whose);
    expect(await sh(remote, "readlink deep; git status --porcelain")).toBe("deep\n?? deep");
    await sh(remote, "echo t >>a");
    await restoreWorkspace();
    expect(await sh(local, "readlink deep; cat a")).toBe("deep\na\nt");
  });

  it.each([
    ["input.spec.remoteCwd", { spec: { transport: "sandbox", remoteCwd: "/", timeoutMs: 1 } }],
    ["input.workspaceRemoteDir", { workspaceRemoteDir: "/a/../.." }],
    ["input.adapterKey", { adapterKey: "../.." }],
    ["input.adapterKey", { adapterKey: "a/b" }],
    ["input.adapterKey", { adapterKey: "." }],
    ["input.adapterKey", { adapterKey: "" }],
    ["asset key", { assets: [{ key: ".", localDir: "/" }] }],
  ])("is refused before the first call if it would empty another directory: %s %j", async (named, input) => {
    await repository();
    await expect(prepare(whose, input)).rejects.toThrow(named);
    expect(calls).toEqual([]);
  });
});

describe("the directory of an asset in the workspace", () => {
  it.each([
    ["skills", "skills"],
    ["skills/one", "skills"],
    ["skills/one", "skills/one"],
  ])("is refused if the agent has put a link in the way: %s, %s", async (asset, link) => {
    await repository();
    await makeTree(path.join(local, "skills"), { "one/skill": "s" });
    await makeTree(path.join(root, "outside"), { "one/secret": "t" });
    const assets = [{ key: "skills", localDir: path.join(local, asset) }];
    const { restoreWorkspace } = await prepare("own", { assets });
    await sh(remote, `rm -r ${link}; ln -s ${path.join(root, "outside")} ${link}`);
    await restoreWorkspace();
    await expect(prepare("own", { assets })).rejects.toThrow("is a symlink in the workspace");
    // A caller may want that.
    const followed = [{ ...assets[0], followSymlinks: true }];
    await prepare("own", { assets: followed });
  });
});

describe.each(Object.keys(MODULES))("the sandbox's commits: %s", (whose) => {
  it("do not come into another directory than was uploaded", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, COMMIT_X);
    const other = path.join(root, "other");
    await mkdir(other);
    await sh(root, "mv local former; ln -s other local");
    await expect(restoreWorkspace()).rejects.toMatchObject({ code: "ERR_WORKSPACE_REPLACED", path: local });
    expect(await readdir(other)).toEqual([]);
    await sh(root, "rm local; mv former local");
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s")).toBe("x");
  });

  it("are refused if what came leads to another repository of this machine", async () => {
    await repository();
    const other = path.join(root, "other");
    await mkdir(other);
    await sh(other, "git init -q -b main; git commit -qm secret --allow-empty");
    const methods = client();
    const { restoreWorkspace } = await prepare(whose, {
      client: {
        ...methods,
        // Its repository has the reference that the sandbox was asked for.
        readFile: async (file, options) => {
          if (!file.endsWith(".bundle")) return methods.readFile(file, options);
          return Buffer.from(`gitdir: ${path.join(other, ".git")}\n`);
        },
        run: async (command, options) => {
          const [ref] = /refs\/paperclip\/[\w/.-]+/.exec(command) ?? [];
          if (ref !== undefined) await sh(other, `git update-ref ${ref} HEAD`);
          return methods.run(command, options);
        },
      },
    });
    await sh(remote, COMMIT_X);
    await restoreWorkspace();
    expect(await sh(local, "git log --all --format=%s; cat x")).not.toContain("secret");
  });

  it("come back beside a file with the name of a reference", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, "echo t >>a; git commit -qam there; echo notes >HEAD");
    await restoreWorkspace();
    const expected = whose === "own" ? "there\n" : /^(there|base)\n/;
    expect(await sh(local, "git log -1 --format=%s; cat a HEAD")).toMatch(expected);
  });

  it("come back with the sandbox's tag on the uploaded commit, which was amended here", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(remote, `git tag before; git checkout -qb side; ${COMMIT_X}`);
    await sh(local, "git commit -q --amend -m amended");
    const before = await sh(remote, "git rev-parse before");
    await restoreWorkspace();
    expect((await kept()).map((line) => line.split(" ")[0])).toContain("tags/before");
    expect(await sh(local, "git for-each-ref --format='%(objectname)' 'refs/paperclip/*/tags/*'")).toBe(
      before,
    );
    await isSound();
  });

  it("come back with a file that has the name of a heavy directory", async () => {
    await repository();
    const { restoreWorkspace } = await prepare(whose);
    await sh(
      remote,
      "mkdir scripts; echo 1 >build; echo 2 >scripts/vendor; git add -Af; git commit -qm there",
    );
    await restoreWorkspace();
    expect(await sh(local, "cat build scripts/vendor; git status --porcelain")).toBe("1\n2");
  });
});

describe("a workspace", () => {
  it.each(["my%20project", "ends in a space ", 'control \u0001 and "quotes"'])(
    "may have any path, and its commits come back: %j",
    async (name) => {
      local = path.join(root, name);
      await repository();
      const { restoreWorkspace } = await prepare();
      await sh(remote, "echo t >a; git commit -qam there");
      await restoreWorkspace();
      expect(await sh(local, "git log -1 --format=%s; cat a; git status --porcelain")).toBe("there\nt");
      await isSound();
    },
  );

  it("may belong to another user, as in a container", async () => {
    await repository();
    // Git lets root work on what belongs to the user who called sudo.
    vi.stubEnv("SUDO_UID", "");
    const { restoreWorkspace } = await prepare();
    await sh(remote, "echo t >a; git commit -qam there");
    await sh(root, `chown -R 1234:1234 '${local}'`);
    await restoreWorkspace();
    await sh(root, `chown -R 1234:1234 '${local}'`);
    await prepare();
    vi.unstubAllEnvs();
    const trusting = ["-c", "safe.directory=*", "-C", local, "log", "-1", "--format=%s"];
    expect((await run("git", trusting)).stdout).toBe("there\n");
  });

  it("has a submodule that .gitmodules has ignored followed by the index", async () => {
    await repository();
    await sh(local, "git init -q lib; git -C lib commit -q --allow-empty -m lib");
    await sh(
      local,
      "git submodule --quiet add ./lib lib; git config -f .gitmodules submodule.lib.ignore all",
    );
    await sh(local, "git add -A; git commit -qm submodule");
    const { restoreWorkspace } = await prepare();
    await sh(remote, "git rm -q --cached lib; echo t >a; git update-index a; git commit -qm there");
    await restoreWorkspace();
    expect(await sh(local, "git log -1 --format=%s; git ls-tree HEAD lib; git ls-files -s lib")).toBe(
      "there",
    );
  });
});
