// What a sandbox plants in a repository, and ordinary work with git on both sides: each case is run with this package and with
// the release on npm. The table in docs/git.md has the outcomes.

import { execFile } from "node:child_process";
import { chmod, mkdir, readFile, rm, stat, symlink } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import * as release from "@paperclipai/adapter-utils/sandbox-managed-runtime";
import { expect, it } from "vitest";
import * as own from "../index.js";
import { makeTree, temporaryFolder } from "./support/folders.mjs";
import { commandFolder, LocalSandbox, remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";

const execute = promisify(execFile);
const exists = (file) =>
  stat(file).then(
    () => true,
    () => false,
  );

/** One workspace and its sandbox. */
class Place {
  static async make() {
    const place = new Place();
    place.home = await temporaryFolder();
    place.here = path.join(place.home, "workspace");
    place.canary = path.join(place.home, "canary");
    await makeTree(place.here, {
      "a.txt": "one\n",
      "b.txt": "two\n",
      ".gitignore": "ignored/\n",
      ".gitattributes": "*.txt filter=x diff=x\n",
    });
    await place.git("init", "-q", "-b", "main");
    place.first = await place.commit("first");
    await place.git("branch", "feature");
    await place.git("tag", "v1");
    place.there = await remoteWorkspace();
    place.client = new LocalSandbox();
    /** Commits that must be reachable afterwards, and checks that must succeed. */
    place.kept = [place.first];
    place.checks = [];
    place.folders = ["."];
    return place;
  }

  async in(folder, ...args) {
    const env = { PATH: process.env.PATH, HOME: this.home, GIT_CONFIG_NOSYSTEM: "1", CANARY: this.canary };
    const options = ["user.name=T", "user.email=t@example.org", "commit.gpgsign=false", "safe.directory=*"];
    options.push("protocol.file.allow=always");
    const given = options.flatMap((option) => ["-c", option]);
    const { stdout } = await execute("git", [...given, ...args], { cwd: folder, env });
    return stdout.trimEnd();
  }

  git = (...args) => this.in(this.here, ...args);
  agent = (...args) => this.in(this.there, ...args);
  plant = (files) => makeTree(this.there, files);

  async commit(message, folder = this.here) {
    await this.in(folder, "add", "-A");
    await this.in(folder, "commit", "-q", "--no-verify", "-m", message);
    return this.in(folder, "rev-parse", "HEAD");
  }

  /** A commit of the agent, which must be restored. */
  async work(name = "work.txt", folder = this.there) {
    await makeTree(folder, { [name]: `${name}\n` });
    const commit = await this.commit(name, folder);
    if (folder === this.there) this.kept.push(commit);
    return commit;
  }

  /** The local value of an expression, which must be the same afterwards. */
  expect(what, value, ...args) {
    this.checks.push(async () => ((await this.git(...args).catch(() => "nothing")) === value ? null : what));
  }

  /** Returns what the user's git runs locally after a restore. */
  async outcome() {
    const found = [];
    const failed = [];
    for (const commit of this.kept) {
      const all = await this.git("log", "--all", "--format=%H").catch(() => "");
      const detached = await this.git("log", "--format=%H").catch(() => "");
      if (!`${all}\n${detached}`.includes(commit)) failed.push("a commit is on no branch");
    }
    for (const check of this.checks) failed.push(await check());
    const said = await this.git("fsck", "--full", "--no-dangling").catch((error) => error.stderr || "failed");
    if (said !== "") found.push("**breaks the repository**");
    if (failed.includes(CAME)) found.push(CAME);
    const lost = [...new Set(failed.filter((what) => what && what !== CAME))];
    if (lost.length > 0) found.push(`**loses**: ${lost.join(", ")}`);
    for (const folder of this.folders) {
      const at = path.join(this.here, folder);
      if (!(await exists(at))) continue;
      await makeTree(at, { "local.txt": "local\n", "a.txt": "edited\n" });
      for (const args of [
        ["status"],
        ["diff"],
        ["add", "-A"],
        ["commit", "-m", "local"],
        ["checkout", "-b", "another"],
        ["log", "-p", "-2"],
        ["show"],
        ["fetch", "--all"],
        ["stash"],
      ]) {
        await this.in(at, ...args).catch(() => {});
      }
    }
    if (await exists(this.canary)) found.push("**runs**");
    return found.join("; ") || "sound";
  }
}

/** Asserts that a file that would run something was restored. */
const CAME = "**comes here**";
const RUN = 'touch "$CANARY"';
const hook = async (place, file) => {
  await place.plant({ [file]: `#!/bin/sh\n${RUN}\n` });
  await chmod(path.join(place.there, file), 0o755);
};
const nested = async (place, folder, more = []) => {
  await mkdir(path.join(place.there, folder), { recursive: true });
  await place.in(path.join(place.there, folder), "init", "-q", "-b", "main", ...more);
  const config = more.length > 0 ? "config" : ".git/config";
  await place.agent("config", "--file", `${folder}/${config}`, "core.fsmonitor", RUN);
  if (more.length > 0) {
    await place.agent("config", "--file", `${folder}/config`, "core.bare", "false");
    await place.agent("config", "--file", `${folder}/config`, "core.worktree", ".");
  }
  await place.plant({ [`${folder}/a.txt`]: "a\n" });
  place.folders.push(folder);
};
const setting = (key, value = "./evil.sh") => ({
  agent: async (place) => {
    await hook(place, "evil.sh");
    await place.agent("config", "--file", ".git/config", key, value);
    await place.work();
  },
});

/** The cases: what is there before (`before`), what the agent does, and what a person does meanwhile (`here`). */
const CASES = {
  "`core.fsmonitor`": setting("core.fsmonitor"),
  "`core.hooksPath`": {
    agent: async (place) => {
      await hook(place, "hooks/pre-commit");
      await place.agent("config", "core.hooksPath", "hooks");
      await place.work();
    },
  },
  "`filter.x.clean`, `diff.external`": {
    agent: async (place) => {
      await setting("filter.x.clean").agent(place);
      await place.agent("config", "--file", ".git/config", "diff.external", "./evil.sh");
    },
  },
  "`include.path` into the tree": {
    agent: async (place) => {
      await place.plant({ "evil.config": `[core]\n\tfsmonitor = ${RUN.replaceAll('"', '\\"')}\n` });
      await place.agent("config", "--file", ".git/config", "include.path", "../evil.config");
      await place.work();
    },
  },
  "an `ext::` remote": setting("remote.evil.url", "ext::sh -c ./evil.sh"),
  "a hook": {
    agent: async (place) => {
      await place.work();
      await hook(place, ".git/hooks/pre-commit");
    },
  },
  "`.git` as a file that leads into the tree": {
    agent: async (place) => {
      await nested(place, "evil");
      await rm(path.join(place.there, ".git"), { recursive: true });
      await place.plant({ ".git": "gitdir: evil/.git\n" });
    },
  },
  "`.git` as a link": {
    agent: async (place) => {
      await nested(place, "evil");
      await rm(path.join(place.there, ".git"), { recursive: true });
      await symlink("evil/.git", path.join(place.there, ".git"));
    },
  },
  "a nested repository with a configuration of its own": { agent: (place) => nested(place, "lib") },
  "a bare repository as a directory": { agent: (place) => nested(place, "lib", ["--bare"]) },
  "`.git/modules/x/config`": {
    agent: async (place) => {
      await place.plant({ ".git/modules/x/config": "[core]\n\tfsmonitor = x\n" });
      await place.work();
    },
    after: async (place) => ((await exists(path.join(place.here, ".git/modules"))) ? CAME : null),
  },
  "`refs/replace`": {
    agent: async (place) => {
      const other = await place.work();
      await place.agent("update-ref", `refs/replace/${place.first}`, other);
      place.expect("a replacement came", "", "for-each-ref", "refs/replace");
    },
  },
  "a moved tag": {
    agent: async (place) => {
      await place.work();
      await place.agent("tag", "-f", "v1");
      place.expect("the tag moved", place.first, "rev-parse", "v1");
    },
  },
  "`skip-worktree`": {
    agent: async (place) => {
      await place.work();
      await place.agent("update-index", "--skip-worktree", "b.txt");
      place.expect("the flag came", "H b.txt", "ls-files", "-v", "b.txt");
    },
  },
  "`.hg/hgrc`": {
    agent: async (place) => {
      await place.plant({ ".hg/hgrc": "[hooks]\nupdate = x\n" });
      await place.work();
    },
    after: async (place) => ((await exists(path.join(place.here, ".hg/hgrc"))) ? CAME : null),
  },
  "nobody does anything": {
    before: async (place) => {
      await makeTree(place.here, { "staged.txt": "staged\n" });
      await place.git("add", "staged.txt");
      place.expect("what was staged here", "A  staged.txt", "status", "--porcelain");
    },
    agent: () => {},
  },
  "a commit of the agent": {
    agent: async (place) => {
      place.expect("the branch", await place.work(), "rev-parse", "main");
    },
  },
  "the agent commits, a file is staged here": {
    agent: async (place) => {
      place.expect("the branch", await place.work(), "rev-parse", "main");
    },
    here: async (place) => {
      await makeTree(place.here, { "staged.txt": "staged\n" });
      await place.git("add", "staged.txt");
      place.expect("what was staged here", "A  staged.txt", "status", "--porcelain");
    },
  },
  "the agent stages a file": {
    agent: async (place) => {
      await place.plant({ "staged.txt": "staged\n" });
      await place.agent("add", "staged.txt");
      place.expect("what was staged there", "A  staged.txt", "status", "--porcelain");
    },
  },
  "a commit on a new branch, back on `main`": {
    agent: async (place) => {
      await place.agent("checkout", "-q", "-b", "topic");
      place.expect("the new branch", await place.work(), "rev-parse", "topic");
      await place.agent("checkout", "-q", "main");
    },
  },
  "another branch is checked out there": {
    agent: async (place) => {
      await place.agent("checkout", "-q", "-b", "topic");
      const commit = await place.work();
      place.expect("the new branch", commit, "rev-parse", "topic");
      place.expect("`main`, which moves", place.first, "rev-parse", "main");
    },
  },
  "a tag and a stash of the agent": {
    agent: async (place) => {
      await place.agent("tag", "v2");
      await place.plant({ "a.txt": "later\n" });
      await place.agent("stash");
      place.expect("the tag", place.first, "rev-parse", "v2");
      place.expect("the stash", "1", "rev-list", "--count", "-g", "refs/stash");
    },
  },
  "both commit on `main`": {
    agent: (place) => place.work(),
    here: async (place) => {
      await makeTree(place.here, { "ours.txt": "ours\n" });
      place.kept.push(await place.commit("ours"));
    },
  },
  "both commit, with a conflict": {
    agent: (place) => place.work("a.txt"),
    here: async (place) => {
      await makeTree(place.here, { "a.txt": "ours\n" });
      place.kept.push(await place.commit("ours"));
    },
  },
  "the agent rewinds and commits": {
    before: async (place) => {
      await makeTree(place.here, { "second.txt": "2\n" });
      place.kept.push(await place.commit("second"));
    },
    agent: async (place) => {
      await place.agent("commit", "-q", "--amend", "-m", "amended");
      place.kept.push(await place.agent("rev-parse", "HEAD"));
    },
  },
  "a branch deleted there, with a commit here": {
    agent: async (place) => {
      await place.agent("branch", "-D", "feature").catch(() => {});
      await place.agent("gc", "-q", "--prune=now");
    },
    here: async (place) => {
      const tree = await place.git("rev-parse", "main^{tree}");
      const ours = await place.git("commit-tree", tree, "-p", "main", "-m", "ours");
      await place.git("update-ref", "refs/heads/feature", ours);
      place.kept.push(ours);
    },
  },
  "`gc` here meanwhile": {
    agent: async (place) => {
      place.expect("the branch", await place.work(), "rev-parse", "main");
    },
    here: (place) => place.git("gc", "-q", "--prune=now"),
  },
  "a nested repository": {
    before: async (place) => {
      await makeTree(path.join(place.here, "lib"), { "l.txt": "l\n" });
      await place.in(path.join(place.here, "lib"), "init", "-q", "-b", "main");
      await place.commit("nested", path.join(place.here, "lib"));
    },
    agent: async (place) => {
      const lib = path.join(place.there, "lib");
      if (!(await exists(path.join(lib, ".git")))) {
        place.checks.push(() => "the repository does not go up");
        return;
      }
      place.expect("its commit", await place.work("l.txt", lib), "-C", "lib", "rev-parse", "main");
    },
  },
  "a linked worktree as the workspace": {
    before: async (place) => {
      const main = place.here;
      place.here = path.join(place.home, "linked");
      await place.in(main, "worktree", "add", "-q", place.here, "-b", "topic");
    },
    agent: async (place) => {
      place.expect("its branch", await place.work(), "rev-parse", "topic");
    },
  },
  "an unborn `HEAD`": {
    before: async (place) => {
      await place.git("checkout", "-q", "--orphan", "fresh");
    },
    agent: async (place) => {
      place.expect("the first commit", await place.work(), "rev-parse", "fresh");
    },
  },
  "a detached `HEAD`": {
    before: (place) => place.git("checkout", "-q", "--detach"),
    agent: async (place) => {
      place.expect("the commit", await place.work(), "rev-parse", "HEAD");
    },
  },
  "a rebase in progress here": {
    before: async (place) => {
      await makeTree(place.here, { "a.txt": "main\n" });
      place.kept.push(await place.commit("main"));
      await place.git("checkout", "-q", "feature");
      await makeTree(place.here, { "a.txt": "feature\n" });
      place.kept.push(await place.commit("feature"));
      await place.git("rebase", "main").catch(() => {});
    },
    agent: (place) => place.agent("status"),
    after: async (place) => {
      await place.git("rebase", "--abort").catch(() => {});
      const head = await place.git("symbolic-ref", "HEAD").catch(() => "");
      return head === "refs/heads/feature" ? null : "the rebase";
    },
  },
  "the agent removes `.git`": {
    agent: (place) => rm(path.join(place.there, ".git"), { recursive: true }),
  },
  "a SHA-256 repository": {
    before: async (place) => {
      await rm(path.join(place.here, ".git"), { recursive: true });
      await place.git("init", "-q", "-b", "main", "--object-format=sha256");
      place.kept = [await place.commit("first")];
    },
    agent: async (place) => {
      place.expect("the branch", await place.work(), "rev-parse", "main");
    },
  },
  "a sandbox without git": {
    before: async (place) => {
      place.client = new LocalSandbox({ path: await commandFolder({ appletsOf: "busybox" }) });
    },
    agent: (place) => place.plant({ "a.txt": "changed\n" }),
    after: async (place) =>
      (await readFile(path.join(place.here, "a.txt"), "utf8")) === "changed\n" ? null : "the files",
  },
};

/** The outcome of a case with an implementation. */
async function outcome({ before, agent, here, after }, prepare) {
  const place = await Place.make();
  await before?.(place);
  let restore;
  try {
    ({ restoreWorkspace: restore } = await prepare({
      spec: specFor(place.there),
      adapterKey: "test",
      client: place.client,
      workspaceLocalDir: place.here,
    }));
  } catch {
    return "**refuses the workspace**";
  }
  try {
    await agent(place);
  } catch {
    return "**the agent has no working git**";
  }
  await here?.(place);
  // What has run so far ran in the sandbox.
  await rm(place.canary, { force: true });
  let refused = false;
  try {
    await restore();
  } catch {
    refused = true;
  }
  if (after) {
    const said = await after(place);
    if (said) place.checks.push(() => said);
  }
  const found = await place.outcome();
  if (!refused) return found;
  return found === "sound" ? "**the restore fails**" : `**the restore fails**; ${found}`;
}

it("loses and runs nothing with this package, and the page has the outcomes of both", async () => {
  const rows = [];
  for (const [name, what] of Object.entries(CASES)) {
    const theirs = await outcome(what, release.prepareSandboxManagedRuntime);
    const ours = await outcome(what, own.prepareSandboxManagedRuntime);
    rows.push([name, theirs, ours]);
  }
  const table = rows.map((row) => `| ${row.join(" | ")} |`);
  if (process.env.PRINT_TABLE) process.stdout.write(`${table.join("\n")}\n`);
  expect(rows.filter(([, , ours]) => ours !== "sound")).toStrictEqual([]);
  const page = await readFile(new URL("../docs/git.md", import.meta.url), "utf8");
  const [, section] = page.split("## Comparison with the release on npm\n");
  const [, , ...told] = section
    .split("\n## ")[0]
    .split("\n")
    .filter((line) => line.startsWith("|"));
  expect(told).toStrictEqual(table);
}, 600_000);
