// A workspace that is a git checkout: what the agent did with git comes back, except what would run something locally.

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { prepareSandboxManagedRuntime, resumeSandboxManagedRuntime } from "../index.js";
import { keepTemporaryFilesIn, makeTree, temporaryFolder } from "./support/folders.mjs";
import { commandFolder, LocalSandbox, remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";

const execute = promisify(execFile);
const AUTHOR = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];

let home;
let workspace;
let remote;
let client;
let reports;

beforeEach(async () => {
  home = await temporaryFolder();
  workspace = path.join(home, "workspace");
  await makeTree(workspace, { "a.txt": "one\n", "src/b.txt": "two\n", ".gitignore": "ignored/\n" });
  await git("init", "-q", "-b", "main");
  await commit(workspace, "first");
  remote = await remoteWorkspace();
  client = new LocalSandbox();
  reports = [];
});

/** Runs git with a user's environment, in the local workspace unless a folder is given. */
async function gitIn(folder, ...args) {
  const env = { PATH: process.env.PATH, HOME: home, GIT_CONFIG_NOSYSTEM: "1" };
  const { stdout } = await execute("git", [...AUTHOR, "-c", "safe.directory=*", ...args], {
    cwd: folder,
    env,
  });
  return stdout.trimEnd();
}

/** Runs a script as a user would, with an author for commits. */
function user(folder, script) {
  const env = { PATH: process.env.PATH, HOME: home, GIT_CONFIG_NOSYSTEM: "1" };
  for (const who of ["AUTHOR", "COMMITTER"]) {
    Object.assign(env, { [`GIT_${who}_NAME`]: "T", [`GIT_${who}_EMAIL`]: "t@example.org" });
  }
  return execute("sh", ["-ec", script], { cwd: folder, env });
}

const git = (...args) => gitIn(workspace, ...args);

async function commit(folder, message, ...more) {
  await gitIn(folder, "add", "-A");
  await gitIn(folder, "commit", "-q", "-m", message, ...more);
  return gitIn(folder, "rev-parse", "HEAD");
}

const input = (more) => ({
  spec: specFor(remote),
  adapterKey: "test",
  client,
  workspaceLocalDir: workspace,
  onReport: (report) => void reports.push(report),
  ...more,
});
const prepare = (more) => prepareSandboxManagedRuntime(input(more));

const lastReport = () => reports.at(-1);
const held = () => lastReport().heldBack.map(({ path: where, what }) => (what ? `${where} ${what}` : where));

/** Makes a socket, which stays until the test is over. */
async function socketAt(at) {
  const server = createServer().listen(at);
  onTestFinished(() => void server.close());
  await once(server, "listening");
}

async function expectSound(folder = workspace) {
  expect(await gitIn(folder, "fsck", "--full", "--no-dangling")).toBe("");
  await expect(stat(path.join(folder, ".git/index.lock"))).rejects.toThrow("ENOENT");
}

describe("what an agent does with git", () => {
  it("comes back: commits, branches, tags, a stash, and what is staged", async () => {
    const { restoreWorkspace } = await prepare();
    await expectSound(remote);
    expect(await gitIn(remote, "status", "--porcelain")).toBe("");
    await writeFile(path.join(remote, "stashed.txt"), "later\n");
    await gitIn(remote, "stash", "-u");
    await writeFile(path.join(remote, "a.txt"), "the agent's\n");
    const theirs = await commit(remote, "by the agent");
    await gitIn(remote, "tag", "v1");
    await gitIn(remote, "branch", "topic");
    await writeFile(path.join(remote, "staged.txt"), "staged\n");
    await gitIn(remote, "add", "staged.txt");
    await restoreWorkspace();
    expect(await git("rev-parse", "main", "v1", "topic")).toBe([theirs, theirs, theirs].join("\n"));
    expect(await git("status", "--porcelain")).toBe("A  staged.txt");
    expect(await git("stash", "list")).toContain("stash@{0}");
    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("the agent's\n");
    expect(await git("reflog", "-1", "main")).toContain("restore");
    await expectSound();
    expect(lastReport().refsUpdated).toContainEqual({ repository: ".git", name: "refs/heads/main" });
  });

  describe.each(["auto", "full"])(
    "deletes nothing here that cannot be read there (transfer %s)",
    (transfer) => {
      it.each([
        ["packed-refs", "a folder"],
        ["packed-refs", "a pipe"],
        ["packed-refs", "a socket"],
        ["refs", "a pipe"],
        ["refs/heads", "a file"],
        ["refs/tags", "a socket"],
        ["refs/heads/later", "a pipe"],
      ])("where %s is %s", async (name, kind) => {
        await git("branch", "earlier");
        await git("tag", "v1");
        const { restoreWorkspace } = await prepare({ transfer });
        await gitIn(remote, "branch", "later");
        await gitIn(remote, "tag", "v2");
        await restoreWorkspace();
        const refs = await git("for-each-ref");
        expect(refs).toContain("refs/heads/later");
        const at = path.join(remote, ".git", name);
        await rm(at, { recursive: true });
        if (kind === "a folder") await mkdir(at);
        else if (kind === "a pipe") await execute("mkfifo", [at]);
        else if (kind === "a file") await writeFile(at, "x\n");
        else await socketAt(at);
        await restoreWorkspace();
        expect(lastReport().transfer).toBe(transfer === "full" ? "full" : "changes");
        expect(held().join("\n").replace(" ", "/")).toContain(`.git/${name}`);
        expect(await git("for-each-ref")).toBe(refs);
        await expectSound();
      });
    },
  );

  it("is told what of the repository does not go there, such as a reference that git cannot read", async () => {
    await writeFile(path.join(workspace, ".git/refs/heads/broken"), "garbage\n");
    const prepared = [];
    const { restoreWorkspace } = await prepare({ onPrepareReport: (report) => void prepared.push(report) });
    const reason = "it was not uploaded: git cannot read it";
    expect(prepared[0].archives[0].leftOut).toContainEqual({ path: ".git/refs/heads/broken", reason });
    await restoreWorkspace();
    expect(lastReport().heldBack).toContainEqual({ path: ".git", what: "refs/heads/broken", reason });
  });

  describe.each(["auto", "full"])("comes back whatever patterns exclude (transfer %s)", (transfer) => {
    it.each([
      ["a branch", "dist", ["branch", "dist"]],
      ["a branch in a folder", "build", ["branch", "fix/build"]],
      ["a branch by a suffix", "*.log", ["branch", "a.log"]],
      ["a tag", "cache", ["tag", "cache"]],
      ["all branches", "heads", ["branch", "other"]],
      ["packed references", "packed-refs", ["pack-refs", "--all"]],
    ])("%s, with the pattern %s %s", async (_what, pattern, act) => {
      await git("branch", "earlier");
      await git("pack-refs", "--all");
      const { restoreWorkspace } = await prepare({ transfer, workspaceExclude: [pattern] });
      await makeTree(remote, { "src/dist/made.txt": "made\n", "new/dist": "made\n" });
      const commitThere = await commit(remote, "there");
      await gitIn(remote, ...act);
      const refs = ["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"];
      const there = await gitIn(remote, ...refs);
      await restoreWorkspace();
      expect(await git(...refs)).toBe(there);
      expect(there).toContain(commitThere);
      await expectSound();
      const isExcluded = pattern === "dist";
      for (const name of ["src/dist", "new/dist"]) {
        const found = await lstat(path.join(workspace, name)).catch(() => undefined);
        expect(found === undefined, name).toBe(isExcluded);
      }
    });

    it("what is staged and a stash, with patterns of their names", async () => {
      const { restoreWorkspace } = await prepare({ transfer, workspaceExclude: ["stash", "index", "HEAD"] });
      await writeFile(path.join(remote, "a.txt"), "stashed\n");
      await gitIn(remote, "stash");
      await writeFile(path.join(remote, "a.txt"), "staged\n");
      await gitIn(remote, "add", "a.txt");
      await gitIn(remote, "checkout", "-q", "-b", "topic");
      await restoreWorkspace();
      expect(await git("stash", "list")).toContain("stash@{0}");
      expect(await git("status", "--porcelain", "-b")).toBe("## topic\nM  a.txt");
    });

    it.each([["."], ["*."], ["./src"], Array.from({ length: 3000 }, (_, number) => `name-${number}`)])(
      "with the pattern %s",
      async (...patterns) => {
        const { restoreWorkspace } = await prepare({ transfer, workspaceExclude: patterns });
        await writeFile(path.join(remote, "a.txt"), "theirs\n");
        const there = await commit(remote, "there");
        await restoreWorkspace();
        expect(await git("rev-parse", "HEAD")).toBe(there);
      },
    );

    it("where an excluded folder cannot be read there", async () => {
      remote = await remoteWorkspace({ unprivileged: true });
      client = new LocalSandbox({ unprivileged: true });
      const { restoreWorkspace } = await prepare({ transfer, workspaceExclude: ["./data", "made/x"] });
      await writeFile(path.join(remote, "a.txt"), "theirs\n");
      const there = await commit(remote, "there");
      for (const name of ["data", "made/x"]) {
        await mkdir(path.join(remote, name), { recursive: true });
        await chmod(path.join(remote, name), 0);
      }
      await client.own(remote);
      await restoreWorkspace();
      expect(await git("rev-parse", "HEAD")).toBe(there);
      expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("theirs\n");
      expect(lastReport().skipped).toEqual([]);
    });

    it("but not a repository that is excluded as a whole", async () => {
      const { restoreWorkspace } = await prepare({ transfer, workspaceExclude: ["vendor"] });
      await makeTree(remote, { "vendor/x/a.txt": "a\n", "other/a.txt": "a\n" });
      for (const name of ["vendor/x", "other"]) await gitIn(path.join(remote, name), "init", "-q");
      await commit(path.join(remote, "vendor/x"), "x");
      await commit(path.join(remote, "other"), "other");
      await restoreWorkspace();
      expect(await readdir(workspace)).not.toContain("vendor");
      expect(await gitIn(path.join(workspace, "other"), "log", "--format=%s")).toBe("other");
    });
  });

  it.each([
    ["by a pattern", { workspaceExclude: ["dist", "src/b.txt"] }],
    ["by an ignore file", { ignoreFiles: [".gitignore"] }],
    ["always", {}],
  ])("deletes no tracked file from the history that is left out %s", async (_how, input) => {
    await makeTree(workspace, {
      "dist/d.txt": "made\n",
      "ignored/i.txt": "i\n",
      "._x": "x\n",
      "gone.txt": "gone\n",
      "fixture.git/HEAD": "ref: refs/heads/main\n",
      "fixture.git/config": "[core]\n",
      "fixture.git/objects/x": "",
      "fixture.git/refs/x": "",
    });
    await git("add", "-A", "-f");
    await git("commit", "-q", "-m", "all");
    await rm(path.join(workspace, "gone.txt"));
    const tracked = await git("ls-files");
    for (let heartbeat = 0; heartbeat < 2; heartbeat++) {
      const { restoreWorkspace } = await prepare(input);
      expect(await gitIn(remote, "status", "--porcelain")).toBe(" D gone.txt");
      await writeFile(path.join(remote, "a.txt"), `theirs ${heartbeat}\n`);
      await gitIn(remote, "add", "-A", "--", ":!gone.txt");
      await gitIn(remote, "commit", "-q", "-m", "there");
      await restoreWorkspace();
      expect(await git("show", "--format=%s", "--name-only", "HEAD")).toBe("there\n\na.txt");
      expect(await git("ls-files")).toBe(tracked);
      expect(await git("status", "--porcelain")).toBe(" D gone.txt");
      await expectSound();
    }
  });

  it.each([
    ["by a pattern", { workspaceExclude: ["logs"] }, "logs/new.txt"],
    ["by an ignore file", { ignoreFiles: [".gitignore"] }, "ignored/new.txt"],
    ["always", {}, "._new"],
  ])("deletes no new file from the history that is excluded %s", async (_how, input, name) => {
    const first = await prepare(input);
    await makeTree(remote, { [name]: "new\n" });
    await gitIn(remote, "add", "-f", name);
    await gitIn(remote, "commit", "-q", "-m", "new");
    await first.restoreWorkspace();
    expect(await git("status", "--porcelain")).toBe(` D ${name}`);
    expect(lastReport().heldBack).toEqual([
      { path: name, reason: expect.stringContaining("it is excluded") },
    ]);
    const second = await prepare(input);
    expect(await gitIn(remote, "status", "--porcelain")).toBe("");
    await writeFile(path.join(remote, "a.txt"), "theirs\n");
    await commit(remote, "there");
    await second.restoreWorkspace();
    expect(await git("show", "--format=%s", "--name-only", "HEAD")).toBe("there\n\na.txt");
    expect(lastReport().heldBack).toEqual([]);
    await git("checkout", "--", name);
    expect(await git("status", "--porcelain")).toBe("");
    await expectSound();
  });

  it("shows no change of a file whose line ends were converted there", async () => {
    await makeTree(workspace, { ".gitattributes": "*.crlf text eol=crlf\n", "b.crlf": "one\ntwo\n" });
    await commit(workspace, "line ends");
    const { restoreWorkspace } = await prepare();
    await rm(path.join(remote, "b.crlf"));
    await gitIn(remote, "checkout", "--", "b.crlf");
    await restoreWorkspace();
    expect(lastReport().written).toEqual(["b.crlf"]);
    expect(await readFile(path.join(workspace, "b.crlf"), "utf8")).toBe("one\r\ntwo\r\n");
    expect(await git("status", "--porcelain")).toBe("");
  });

  it("keeps the commits of several worktrees of one repository apart", async () => {
    for (const name of ["one", "two"]) await git("worktree", "add", "-q", "--detach", `ignored/${name}`);
    const { restoreWorkspace } = await prepare();
    const commits = [];
    for (const name of ["one", "two"]) {
      for (const where of [workspace, remote]) {
        const folder = path.join(where, "ignored", name);
        await writeFile(path.join(folder, where === remote ? "theirs" : "ours"), name);
        const made = await commit(folder, name);
        if (where === remote) commits.push(made);
      }
    }
    await restoreWorkspace();
    for (const made of commits)
      expect(await git("for-each-ref", "--contains", made)).toContain("refs/paperclip/");
    const kept = lastReport().refsKept.map(({ keptAt }) => keptAt);
    expect(new Set(kept).size).toBe(kept.length);
  });

  it("is not staged by a prepare after a restore that git refused", async () => {
    const { restoreWorkspace } = await prepare();
    await writeFile(path.join(remote, "a.txt"), "theirs\n");
    await makeTree(remote, { "new.txt": "new\n" });
    await commit(remote, "there");
    const lock = path.join(workspace, ".git/refs/heads/main.lock");
    await writeFile(lock, "");
    await restoreWorkspace();
    const [{ keptAt }] = lastReport().refsKept;
    await rm(lock);
    // The person takes the commit over, and stages that it is undone.
    await git("reset", "-q", "--hard");
    await git("clean", "-fdq");
    await git("merge", "-q", "--ff-only", keptAt);
    await git("checkout", "-q", "HEAD~1", "--", "a.txt");
    await git("rm", "-q", "--cached", "new.txt");
    const staged = await git("ls-files", "--stage");
    await prepare();
    expect(await git("ls-files", "--stage")).toBe(staged);
  });

  it("causes no conflict if nothing was changed, over several heartbeats", async () => {
    const before = await git("rev-parse", "HEAD");
    for (let heartbeat = 0; heartbeat < 4; heartbeat++) {
      const { restoreWorkspace } = await prepare();
      await gitIn(remote, "status");
      await restoreWorkspace();
      expect(lastReport()).toMatchObject({
        written: [],
        deleted: [],
        conflicts: [],
        heldBack: [],
        refsUpdated: [],
        refsKept: [],
      });
    }
    expect(await git("rev-parse", "HEAD")).toBe(before);
    expect(await git("for-each-ref", "refs/paperclip")).toBe("");
    await expectSound();
  });

  it("is stored under another reference if both sides have committed, and later commits come with the next restore", async () => {
    const { restoreWorkspace } = await prepare();
    await writeFile(path.join(remote, "theirs.txt"), "theirs\n");
    const theirs = await commit(remote, "by the agent");
    await writeFile(path.join(workspace, "ours.txt"), "ours\n");
    const ours = await commit(workspace, "by a person");
    await restoreWorkspace();
    expect(await git("rev-parse", "main")).toBe(ours);
    const [{ name, keptAt }] = lastReport().refsKept;
    expect(name).toBe("refs/heads/main");
    expect(keptAt).toMatch(/^refs\/paperclip\/.+\/heads\/main$/);
    expect(await git("rev-parse", keptAt)).toBe(theirs);
    expect(await readFile(path.join(workspace, "theirs.txt"), "utf8")).toBe("theirs\n");
    await expectSound();
    await commit(workspace, "the files of both");
    await git("merge", "-q", "-m", "take it over", keptAt);

    await gitIn(remote, "branch", "more");
    await restoreWorkspace();
    expect(await git("rev-parse", "more")).toBe(theirs);
    expect(lastReport().refsKept).toStrictEqual([]);
  });

  it("does not break local commits, whatever git collected in the sandbox", async () => {
    const { restoreWorkspace } = await prepare();
    await writeFile(path.join(workspace, "staged.txt"), "staged here\n");
    await git("add", "staged.txt");
    await gitIn(remote, "gc", "-q", "--prune=now");
    await gitIn(remote, "pack-refs", "--all");
    await restoreWorkspace();
    expect(await git("status", "--porcelain")).toBe("A  staged.txt");
    await expectSound();
  });

  it("moves no branch below a commit whose message is being written here", async () => {
    const { restoreWorkspace } = await prepare();
    await makeTree(remote, { "a.txt": "the agent's\n", "new.txt": "new\n" });
    const theirs = await commit(remote, "by the agent");
    const before = await git("rev-parse", "main");
    await makeTree(workspace, { "src/b.txt": "mine\n" });
    const begun = path.join(home, "begun");
    const ended = path.join(home, "ended");
    const editor = `touch '${begun}'; until [ -e '${ended}' ]; do sleep 0.05; done; echo mine >`;
    const committing = user(workspace, `GIT_EDITOR="${editor}" git commit -qa`);
    await vi.waitUntil(() => existsSync(begun), 20_000);
    await restoreWorkspace();
    expect(await git("rev-parse", "main")).toBe(before);
    const [told] = lastReport().heldBack.filter(({ what }) => what === "refs/heads/main");
    expect(told.reason).toContain("index.lock");
    await writeFile(ended, "");
    await committing;
    expect(await git("show", "--format=%s", "--name-only")).toBe("mine\n\nsrc/b.txt");
    // The next ordinary commit has nothing of the sandbox's, and so reverts nothing of it.
    await makeTree(workspace, { "src/b.txt": "again\n" });
    await user(workspace, "git commit -qam again");
    expect(await git("show", "--format=%s", "--name-only")).toBe("again\n\na.txt\nsrc/b.txt");
    await restoreWorkspace();
    expect(lastReport().refsKept.map(({ keptAt }) => keptAt)).toHaveLength(1);
    const [{ keptAt }] = lastReport().refsKept;
    expect(await git("rev-parse", keptAt)).toBe(theirs);
    await expectSound();
  });

  it.each(["refs/heads/main.lock", "HEAD.lock", "index.lock", "config.lock", "packed-refs.lock"])(
    "comes back with the next restore if another git held %s meanwhile",
    async (lock) => {
      await git("branch", "old");
      const { restoreWorkspace } = await prepare();
      await writeFile(path.join(remote, "new.txt"), "the agent's\n");
      const theirs = await commit(remote, "by the agent");
      await gitIn(remote, "checkout", "-q", "-b", "topic");
      await gitIn(remote, "branch", "-D", "old");
      await gitIn(remote, "remote", "add", "up", "https://example.com/x.git");
      await writeFile(path.join(workspace, ".git", lock), "");
      await restoreWorkspace();
      await rm(path.join(workspace, ".git", lock));
      await restoreWorkspace();
      expect(await git("rev-parse", "main", "topic")).toBe(`${theirs}\n${theirs}`);
      expect(await git("symbolic-ref", "HEAD")).toBe("refs/heads/topic");
      expect(await git("branch", "--list", "old")).toBe("");
      expect(await git("remote")).toBe("up");
      expect(await git("status", "--porcelain")).toBe("");
      await expectSound();
      // Then only changes are transferred again.
      await restoreWorkspace();
      await writeFile(path.join(remote, "more.txt"), "more\n");
      await restoreWorkspace();
      expect(lastReport().transfer).toBe("changes");
    },
  );

  it("costs only the change in every heartbeat, also where the sandbox has many loose objects or fetches a pack", async () => {
    const { restoreWorkspace } = await prepare();
    // Enough for each directory of objects to be there already.
    const many = Object.fromEntries(Array.from({ length: 700 }, (_, at) => [`many/${at}`, `${at}`]));
    await makeTree(remote, many);
    await commit(remote, "many");
    await restoreWorkspace();
    for (const text of ["one", "two"]) {
      await writeFile(path.join(remote, "a.txt"), text);
      const theirs = await commit(remote, text);
      await restoreWorkspace();
      expect(lastReport().transfer).toBe("changes");
      expect(await git("rev-parse", "HEAD")).toBe(theirs);
    }
    const other = path.join(home, "other");
    await gitIn(home, "init", "-q", other);
    await gitIn(other, "commit", "-q", "--allow-empty", "-m", "of another repository");
    await gitIn(
      remote,
      "-c",
      "transfer.unpackLimit=1",
      "fetch",
      "-q",
      other,
      "+refs/heads/*:refs/heads/up/*",
    );
    await restoreWorkspace();
    expect(lastReport().transfer).toBe("changes");
    await expectSound();
  });

  it("comes back as nothing else than a repository: what is skipped in it is held back, and no file", async () => {
    const { restoreWorkspace } = await prepare();
    await execute("mkfifo", [path.join(remote, ".git/pipe")]);
    await symlink("HEAD", path.join(remote, ".git/link"));
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    const theirs = await commit(remote, "by the agent");
    await restoreWorkspace();
    expect(await git("rev-parse", "main")).toBe(theirs);
    expect(lastReport().skipped).toStrictEqual([]);
    expect(held()).toContain(".git/link");
    await expect(lstat(path.join(workspace, ".git/link"))).rejects.toThrow("ENOENT");
    await expect(lstat(path.join(workspace, ".git/pipe"))).rejects.toThrow("ENOENT");
    await expectSound();
  });

  it("does not change the local repository if the agent removed its own", async () => {
    const { restoreWorkspace } = await prepare();
    await rm(path.join(remote, ".git"), { recursive: true });
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    await restoreWorkspace();
    expect(await git("status", "--porcelain")).toBe(" M a.txt");
    await expectSound();
  });
});

describe("a sandbox from which the agent removed the mark, with all that git does not track", () => {
  it.each([
    [
      "and moved every file",
      "mkdir lib; git mv a.txt src .gitignore lib/; git commit -qm moved",
      "lib/a.txt",
    ],
    [
      "and began a branch with other files",
      "git checkout -q --orphan pages; git rm -rfq .; echo index >index.html; git add .; git commit -qm pages",
      "index.html",
    ],
  ])("%s is the same one", async (_what, script, file) => {
    const { restoreWorkspace } = await prepare();
    await user(remote, `git clean -qxfd; ${script}`);
    await restoreWorkspace();
    expect(await git("rev-parse", "HEAD")).toBe(await gitIn(remote, "rev-parse", "HEAD"));
    expect(existsSync(path.join(workspace, file))).toBe(true);
    expect(existsSync(path.join(workspace, "a.txt"))).toBe(false);
  });
});

describe("a workspace on another file system than the temporary files", () => {
  it("has its repository uploaded, and nothing is left in it", async () => {
    const elsewhere = await mkdtemp(path.join(await otherFileSystem(), "elsewhere-"));
    onTestFinished(() => rm(elsewhere, { recursive: true }));
    keepTemporaryFilesIn(elsewhere);
    const { restoreWorkspace } = await prepare();
    const packs = await readdir(path.join(workspace, ".git/objects/pack"));
    expect(packs.filter((name) => name.startsWith("tmp_"))).toStrictEqual([]);
    const theirs = await commit(remote, "by the agent", "--allow-empty");
    await restoreWorkspace();
    expect(held()).toStrictEqual([]);
    expect(await git("rev-parse", "HEAD")).toBe(theirs);
    await expectSound();
  });

  /** A directory that is on another file system than the workspace. */
  async function otherFileSystem() {
    const own = (await stat(workspace)).dev;
    for (const folder of ["/dev/shm", "/var/tmp"]) {
      if ((await stat(folder)).dev !== own) return folder;
    }
    throw new Error("this machine has one file system for everything");
  }
});

describe("what would run or redirect something", () => {
  it("stays as it is locally, and is reported", async () => {
    const canary = path.join(home, "canary");
    const { restoreWorkspace } = await prepare();
    const touch = `touch '${canary}'`;
    await gitIn(remote, "config", "core.fsmonitor", touch);
    await gitIn(remote, "config", "core.sshCommand", touch);
    await gitIn(remote, "config", "alias.st", `!${touch}`);
    await gitIn(remote, "config", "remote.origin.url", `ext::sh -c "${touch}"`);
    await mkdir(path.join(remote, ".git/hooks"), { recursive: true });
    await writeFile(path.join(remote, ".git/hooks/pre-commit"), `#!/bin/sh\n${touch}\n`);
    await chmod(path.join(remote, ".git/hooks/pre-commit"), 0o755);
    await mkdir(path.join(remote, ".git/info"), { recursive: true });
    await writeFile(path.join(remote, ".git/info/attributes"), "* filter=x\n");
    await mkdir(path.join(remote, "lib"), { recursive: true });
    await gitIn(path.join(remote, "lib"), "init", "-q", "--bare", "bare.git");
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    const config = await readFile(path.join(workspace, ".git/config"), "utf8");
    await restoreWorkspace();
    expect(await readFile(path.join(workspace, ".git/config"), "utf8")).toBe(config);
    await expect(stat(path.join(workspace, ".git/hooks/pre-commit"))).rejects.toThrow("ENOENT");
    await expect(stat(path.join(workspace, "lib/bare.git/HEAD"))).rejects.toThrow("ENOENT");
    const reported = held().join("\n");
    for (const what of [
      "core.fsmonitor",
      "core.sshcommand",
      "alias.st",
      "hooks/pre-commit",
      "info/attributes",
    ]) {
      expect(reported.toLowerCase()).toContain(what);
    }
    expect(reported).toContain("lib/bare.git");
    await git("status");
    await git("diff");
    await git("commit", "-a", "-q", "-m", "here");
    await expect(stat(canary)).rejects.toThrow("ENOENT");
    await expectSound();
  });

  it("is not uploaded either: hooks and credentials", async () => {
    await git("config", "credential.helper", "store --file=/secret");
    await git("config", "http.extraHeader", "Authorization: secret");
    await git("remote", "add", "origin", "https://user:secret@example.org/repo.git");
    await writeFile(path.join(workspace, ".git/hooks/pre-push"), "#!/bin/sh\nsecret\n");
    const { restoreWorkspace } = await prepare();
    const config = await readFile(path.join(remote, ".git/config"), "utf8");
    expect(config).not.toContain("secret");
    expect(config).toContain("example.org/repo.git");
    await expect(stat(path.join(remote, ".git/hooks/pre-push"))).rejects.toThrow("ENOENT");
    await restoreWorkspace();
    expect(await git("config", "credential.helper")).toBe("store --file=/secret");
    await prepare({ gitCredentials: true });
    expect(await readFile(path.join(remote, ".git/config"), "utf8")).toContain("Authorization: secret");
  });
});

describe("what the local configuration runs from the workspace", () => {
  it.each(["relative paths", "absolute paths", "absolute paths through a link"])(
    "is reported as sensitive if the sandbox changed it, and nothing else is (%s)",
    async (how) => {
      await makeTree(workspace, {
        ".githooks/pre-commit": "#!/bin/sh\n./scripts/lint.sh\n",
        "conf/git": "[alias]\n\tx = log\n",
        "scripts/lint.sh": "exit 0\n",
        "tools/clean.js": "1\n",
        "tools/target.sh": "1\n",
        "tools/other.js": "1\n",
        "linked/hook.sh": "exit 0\n",
      });
      await symlink("target.sh", path.join(workspace, "tools/merge.sh"));
      if (how.includes("link")) await symlink(".", path.join(home, "linked"));
      const start =
        how === "relative paths" ? "" : `${how.includes("link") ? `${home}/linked` : home}/workspace/`;
      await git("config", "core.hooksPath", `${start}.githooks`);
      await git("config", "include.path", start ? `${start}conf/git` : "../conf/git");
      await git("config", "filter.x.clean", `node ${start}tools/clean.js %f`);
      await git("config", "merge.x.driver", "./tools/merge.sh %A");
      await symlink("../../linked/hook.sh", path.join(workspace, ".git/hooks/post-merge"));
      const { restoreWorkspace } = await prepare();
      await makeTree(remote, {
        ".githooks/pre-commit": "changed\n",
        ".githooks/pre-push": "added\n",
        "conf/git": "changed\n",
        "scripts/lint.sh": "changed\n",
        "tools/clean.js": "changed\n",
        "tools/target.sh": "changed\n",
        "tools/other.js": "changed\n",
        "linked/hook.sh": "changed\n",
        "a.txt": "changed\n",
      });
      await restoreWorkspace();
      const told = new Map(lastReport().sensitive.map(({ path: where, reason }) => [where, reason]));
      expect([...told.keys()].sort()).toStrictEqual([
        ".githooks/pre-commit",
        ".githooks/pre-push",
        "conf/git",
        "linked/hook.sh",
        "scripts/lint.sh",
        "tools/clean.js",
        "tools/target.sh",
      ]);
      expect(told.get("conf/git")).toContain("includes");
      expect(told.get(".githooks/pre-push")).toContain("hooks");
      // What did not change is not reported again.
      await restoreWorkspace();
      expect(lastReport().sensitive).toStrictEqual([]);
    },
  );

  it("is reported by the restore that completes, where one that was killed has placed it", async () => {
    await git("config", "core.hooksPath", ".githooks");
    const { restoreWorkspace } = await prepare();
    const files = { ".githooks/pre-commit": "changed\n", ".envrc": "changed\n", "src/b.txt": "changed\n" };
    await makeTree(remote, files);
    await makeTree(workspace, files);
    await restoreWorkspace();
    expect(lastReport().written).toStrictEqual([]);
    const told = lastReport().sensitive.map(({ path: where }) => where);
    expect(told).toStrictEqual([".envrc", ".githooks/pre-commit"]);
    await restoreWorkspace();
    expect(lastReport().sensitive).toStrictEqual([]);
  });

  it.each([
    ["a branch", ["checkout -q -b side", "ADD", "checkout -q main"]],
    ["a tag", ["checkout -q --detach", "ADD", "tag planted", "checkout -q main"]],
    ["the stash", ["stash"]],
    ["the index", ["add -A", "checkout -q HEAD@FILES"]],
  ])("is reported too if only %s has another version", async (_where, commands) => {
    await makeTree(workspace, { ".githooks/pre-commit": "1\n", "conf/git": "[alias]\n\tx = log\n" });
    await git("config", "core.hooksPath", ".githooks");
    await git("config", "include.path", "../conf/git");
    await commit(workspace, "hooks");
    const { restoreWorkspace } = await prepare();
    const hook = path.join(remote, ".githooks/pre-commit");
    await writeFile(hook, "changed\n");
    await writeFile(path.join(remote, "conf/git"), "[alias]\n\ty = log\n");
    for (const command of commands) {
      if (command === "ADD") await commit(remote, "another version");
      else if (command.endsWith("FILES")) {
        await writeFile(hook, "1\n");
        await writeFile(path.join(remote, "conf/git"), "[alias]\n\tx = log\n");
      } else await gitIn(remote, ...command.split(" "));
    }
    await restoreWorkspace();
    expect(await readFile(path.join(workspace, ".githooks/pre-commit"), "utf8")).toBe("1\n");
    const told = lastReport().sensitive;
    expect(told.map((one) => one.path)).toStrictEqual([".githooks/pre-commit", "conf/git"]);
    expect(told[0].reason).toContain("checkout");
    await restoreWorkspace();
    expect(lastReport().sensitive).toStrictEqual([]);
  });

  it.each([
    ["hasconfig:remote.*.url:https://corp.invalid/**", "remote add corp https://corp.invalid/x", [".git"]],
    ["hasconfig:remote.*.url:https://corp.invalid/**", "remote add corp https://other.invalid/x", []],
    ["onbranch:work/**", "checkout -q -b work/x", [".git"]],
    ["onbranch:work/**", "checkout -q -b other", []],
  ])("is reported too if %s holds only now, by %s", async (condition, command, expected) => {
    await writeFile(path.join(home, "included"), "[alias]\n\tx = log\n");
    await git("config", `includeIf.${condition}.path`, path.join(home, "included"));
    const { restoreWorkspace } = await prepare();
    await gitIn(remote, ...command.split(" "));
    await restoreWorkspace();
    expect(lastReport().sensitive.map((told) => told.path)).toStrictEqual(expected);
    await restoreWorkspace();
    expect(lastReport().sensitive).toStrictEqual([]);
  });

  it("is reported too if the sandbox put a link in the place of a folder above it", async () => {
    await makeTree(workspace, { "tools/clean.js": "1\n", "hooks/more/pre-commit": "1\n", "other/x": "1\n" });
    await git("config", "core.hooksPath", "hooks/more");
    await git("config", "filter.x.clean", "node tools/clean.js %f");
    const { restoreWorkspace } = await prepare();
    await makeTree(remote, { "new/clean.js": "changed\n", "new/more/pre-commit": "changed\n" });
    for (const folder of ["tools", "hooks", "other"]) {
      await rm(path.join(remote, folder), { recursive: true });
      await symlink("new", path.join(remote, folder));
    }
    await restoreWorkspace();
    expect(lastReport().sensitive.map((told) => told.path)).toStrictEqual([
      "hooks",
      "new/clean.js",
      "new/more/pre-commit",
      "tools",
    ]);
  });

  it("is reported too if the folder of hooks is a link to another one", async () => {
    await makeTree(workspace, { "tools/hooks/pre-commit": "1\n", "tools/other": "1\n" });
    await symlink("tools/hooks", path.join(workspace, "hooks"));
    await git("config", "core.hooksPath", "hooks");
    const { restoreWorkspace } = await prepare();
    await makeTree(remote, { "tools/hooks/pre-push": "added\n", "tools/other": "changed\n" });
    await restoreWorkspace();
    expect(lastReport().sensitive.map((told) => told.path)).toStrictEqual(["tools/hooks/pre-push"]);
  });

  it("is reported too if the workspace is a folder inside a repository", async () => {
    const top = workspace;
    workspace = path.join(top, "packages/app");
    await makeTree(workspace, { "tools/filter.sh": "1\n", "tools/other.sh": "1\n" });
    await git("config", "filter.x.clean", "packages/app/tools/filter.sh");
    const { restoreWorkspace } = await prepare();
    await makeTree(remote, { "tools/filter.sh": "changed\n", "tools/other.sh": "changed\n" });
    await restoreWorkspace();
    expect(lastReport().sensitive.map((told) => told.path)).toStrictEqual(["tools/filter.sh"]);
  });
});

describe("a folder that git takes for a bare repository", () => {
  const bare = (file) => ({
    [`${file}HEAD`]: "ref: refs/heads/main\n",
    [`${file}objects`]: "",
    [`${file}refs`]: "",
    [`${file}config`]: "[core]\n\tbare = false\n\tworktree = .\n\tfsmonitor = touch canary\n",
  });
  const plant = async (file) => {
    await makeTree(remote, bare(file));
    await chmod(path.join(remote, `${file}objects`), 0o755);
    await chmod(path.join(remote, `${file}refs`), 0o755);
  };

  it.each(["merge", "off", "files"])(
    "is not transferred, even if its objects are files, with git: %j",
    async (mode) => {
      const { restoreWorkspace } = await prepare({ git: mode });
      await plant("evil/");
      // A volume may fold the case of these names.
      await makeTree(remote, {
        "folded/head": "ref: refs/heads/main\n",
        "folded/Objects": "",
        "folded/REFS": "",
      });
      await restoreWorkspace();
      for (const folder of ["evil", "folded"]) {
        await expect(stat(path.join(workspace, folder))).rejects.toThrow("ENOENT");
        expect(held()).toContain(folder);
      }
      await expectSound();
    },
  );

  it.each(["merge", "off", "files"])("is not made of the workspace itself, with git: %j", async (mode) => {
    await rm(path.join(workspace, ".git"), { recursive: true });
    const { restoreWorkspace } = await prepare({ git: mode });
    await plant("");
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    await restoreWorkspace();
    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("changed\n");
    await expect(stat(path.join(workspace, "HEAD"))).rejects.toThrow("ENOENT");
    await expect(git("status")).rejects.toThrow("not a git repository");
    expect(held()).toStrictEqual(["HEAD", "objects", "refs"]);
  });

  it("is not uploaded, and is reported", async () => {
    await gitIn(workspace, "init", "-q", "--bare", "lib/bare.git");
    const { restoreWorkspace } = await prepare();
    await expect(stat(path.join(remote, "lib/bare.git"))).rejects.toThrow("ENOENT");
    await restoreWorkspace();
    expect(held()).toStrictEqual(["lib/bare.git"]);
    await stat(path.join(workspace, "lib/bare.git/HEAD"));
  });

  const HEAD = "ref: refs/heads/main\n";
  const config = "[core]\n\tbare = false\n\tworktree = .\n\tfsmonitor = touch canary\n";

  it.each([
    ["by a HEAD", { "s/objects/x": "", "s/refs/x": "" }, { "s/HEAD": HEAD, "s/config": config }],
    ["by its references", { "s/objects/x": "", "s/HEAD": HEAD }, { "s/refs/x": "", "s/config": config }],
    [
      "before",
      { "s/objects/x": "", "s/refs/x": "", "s/HEAD": HEAD },
      { "s/config": config, "s/hooks/y": "" },
    ],
    ["at any depth", { "a/s/objects/x": "", "a/s/refs/x": "" }, { "a/s/HEAD": HEAD, "a/s/config": config }],
    ["by a common directory", { "s/HEAD": HEAD }, { "s/commondir": "../c\n", "s/config": config }],
  ])("is not completed %s, by entries that are local only", async (_how, local, theirs) => {
    const names = ["objects", "refs", "HEAD"].filter((name) =>
      Object.keys(local).some((at) => at.includes(name)),
    );
    for (const [more, before] of [
      [{}, false],
      [{ workspaceExclude: names }, true],
      [{ ignoreFiles: [".skipped"] }, true],
      [{ git: "off" }, false],
      [{ git: "files" }, false],
    ]) {
      await writeFile(path.join(workspace, ".skipped"), names.join("\n"));
      if (before) await makeTree(workspace, local);
      const { restoreWorkspace } = await prepare(more);
      await makeTree(remote, { ...theirs, "beside.txt": "theirs\n" });
      await makeTree(workspace, local);
      await restoreWorkspace();
      const folder = path.dirname(Object.keys(theirs).find((at) => at.endsWith("config")) ?? "");
      await expect(stat(path.join(workspace, folder, "config"))).rejects.toThrow("ENOENT");
      expect(lastReport().heldBack).not.toStrictEqual([]);
      expect(await readFile(path.join(workspace, "beside.txt"), "utf8")).toBe("theirs\n");
      for (const name of [folder, "beside.txt"]) {
        await rm(path.join(workspace, name), { recursive: true });
        await rm(path.join(remote, name), { recursive: true });
      }
    }
  });

  it.each([
    [
      "a branch",
      "HEAD config",
      ["checkout -q -b side", "ADD", "checkout -q main"],
      "OBJECTS",
      "checkout -q side",
    ],
    ["the commit that is checked out", "HEAD config", ["ADD"], "OBJECTS", "checkout -f -- ."],
    ["the index", "HEAD config", ["add -f s"], "OBJECTS", "checkout -f -- ."],
    [
      "files, with objects on a branch",
      "objects/x refs/x config",
      ["checkout -q -b side", "ADD", "checkout -q main"],
      "HEAD",
      "checkout -q side",
    ],
  ])("is not made of files and of %s together", async (_where, inGit, commands, inFiles, completing) => {
    const part = (/** @type {string} */ names) =>
      Object.fromEntries(
        names
          .split(" ")
          .map((name) => [`s/${name}`, name === "HEAD" ? HEAD : name === "config" ? config : ""]),
      );
    for (const restores of [1, 2]) {
      const { restoreWorkspace } = await prepare();
      await makeTree(remote, part(inGit));
      for (const command of commands) {
        if (command === "ADD") {
          await gitIn(remote, "add", "-f", "s");
          await gitIn(remote, "commit", "-q", "-m", "part");
        } else {
          await gitIn(remote, ...command.replace("side", `side${restores}`).split(" "));
        }
      }
      if (restores === 2) await restoreWorkspace();
      await makeTree(remote, part(inFiles === "OBJECTS" ? "objects/y refs/y" : inFiles));
      await restoreWorkspace();
      await git(...completing.replace("side", `side${restores}`).split(" ")).catch(() => "");
      const made = ["HEAD", "objects", "refs"].map((name) => existsSync(path.join(workspace, "s", name)));
      expect(made).not.toStrictEqual([true, true, true]);
      await rm(path.join(workspace, "s"), { recursive: true, force: true });
      await git("checkout", "-q", "-f", "main");
    }
  });

  it("is not changed in two steps where a fixture is tracked", async () => {
    await makeTree(workspace, {
      "s/HEAD": HEAD,
      "s/objects/x": "",
      "s/refs/x": "",
      "s/readme": "a fixture\n",
    });
    await git("add", "-f", "s");
    await git("commit", "-q", "-m", "fixture");
    const { restoreWorkspace } = await prepare();
    await makeTree(remote, { "s/readme": "changed\n" });
    await restoreWorkspace();
    await rm(path.join(workspace, "s/HEAD"));
    await makeTree(remote, { "s/config": config, "s/hooks/post-checkout": "" });
    await restoreWorkspace();
    expect(existsSync(path.join(workspace, "s/config"))).toBe(false);
    expect(existsSync(path.join(workspace, "s/hooks/post-checkout"))).toBe(false);
  });

  it("is not completed at the top of the workspace", async () => {
    await rm(path.join(workspace, ".git"), { recursive: true });
    const { restoreWorkspace } = await prepare();
    await makeTree(workspace, { "objects/x": "", "refs/x": "" });
    await makeTree(remote, { HEAD, config, "a.txt": "changed\n" });
    await restoreWorkspace();
    await expect(git("status")).rejects.toThrow("not a git repository");
    expect(held()).toStrictEqual(["HEAD", "config"]);
    await writeFile(path.join(workspace, "HEAD"), HEAD);
    await writeFile(path.join(remote, "config"), `${config}# again\n`);
    await restoreWorkspace();
    expect(held()).toContain("config");
  });

  it("keeps its configuration and hooks if it is the workspace", async () => {
    await rm(workspace, { recursive: true });
    await gitIn(home, "init", "-q", "--bare", "-b", "main", workspace);
    const config = await readFile(path.join(workspace, "config"), "utf8");
    const { restoreWorkspace } = await prepare();
    await makeTree(remote, { "hooks/pre-receive": "#!/bin/sh\n" });
    await writeFile(path.join(remote, "config"), `${config}[core]\n\tfsmonitor = touch canary\n`);
    await writeFile(path.join(remote, "description"), "theirs\n");
    await restoreWorkspace();
    expect(await readFile(path.join(workspace, "config"), "utf8")).toBe(config);
    expect(await readFile(path.join(workspace, "description"), "utf8")).toBe("theirs\n");
    expect(held()).toStrictEqual(["config", "hooks/pre-receive"]);
  });
});

describe("checkouts of other shapes", () => {
  it("a linked worktree is a repository of its own in the sandbox, and its commits arrive on its branch", async () => {
    const main = workspace;
    workspace = path.join(home, "linked");
    await gitIn(main, "worktree", "add", "-q", workspace, "-b", "topic");
    const { restoreWorkspace } = await prepare();
    expect((await stat(path.join(remote, ".git"))).isDirectory()).toBe(true);
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    const theirs = await commit(remote, "by the agent");
    await restoreWorkspace();
    expect(await gitIn(main, "rev-parse", "topic")).toBe(theirs);
    expect(await git("status", "--porcelain")).toBe("");
    await expectSound(main);
  });

  it("a nested repository is transferred by itself, and a new one comes without what runs", async () => {
    await makeTree(path.join(workspace, "vendor/lib"), { "c.txt": "c\n" });
    await gitIn(path.join(workspace, "vendor/lib"), "init", "-q", "-b", "main");
    await commit(path.join(workspace, "vendor/lib"), "nested");
    const { restoreWorkspace } = await prepare();
    await writeFile(path.join(remote, "vendor/lib/c.txt"), "changed\n");
    const theirs = await commit(path.join(remote, "vendor/lib"), "by the agent");
    await makeTree(path.join(remote, "fresh"), { "d.txt": "d\n" });
    await gitIn(path.join(remote, "fresh"), "init", "-q", "-b", "main");
    await gitIn(path.join(remote, "fresh"), "config", "core.fsmonitor", "false-canary");
    const fresh = await commit(path.join(remote, "fresh"), "fresh");
    await restoreWorkspace();
    expect(await gitIn(path.join(workspace, "vendor/lib"), "rev-parse", "main")).toBe(theirs);
    expect(await gitIn(path.join(workspace, "fresh"), "rev-parse", "main")).toBe(fresh);
    expect(await readFile(path.join(workspace, "fresh/.git/config"), "utf8")).not.toContain("canary");
  });

  it("a .git that is not a repository is not uploaded, and the files are", async () => {
    await rm(path.join(workspace, ".git"), { recursive: true });
    await makeTree(workspace, { ".git/notes": "not git's\n" });
    const { restoreWorkspace } = await prepare();
    await expect(stat(path.join(remote, ".git"))).rejects.toThrow("ENOENT");
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    await restoreWorkspace();
    expect(await readFile(path.join(workspace, ".git/notes"), "utf8")).toBe("not git's\n");
    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("changed\n");
    expect(held()).toStrictEqual([".git"]);
  });

  it("a folder whose repository was not uploaded stays if the agent deleted the folder", async () => {
    await makeTree(path.join(workspace, "vendor/lib"), { "c.txt": "c\n" });
    await gitIn(path.join(workspace, "vendor/lib"), "init", "-q", "-b", "main");
    const nested = await commit(path.join(workspace, "vendor/lib"), "nested");
    const { restoreWorkspace } = await prepare();
    await rm(path.join(remote, "vendor"), { recursive: true });
    await restoreWorkspace();
    expect(await gitIn(path.join(workspace, "vendor/lib"), "rev-parse", "main")).toBe(nested);
  });
});

describe("the other modes for repositories", () => {
  it("off: nothing that belongs to git is uploaded or comes back", async () => {
    const before = await git("rev-parse", "HEAD");
    const { restoreWorkspace } = await prepare({ git: "off" });
    await expect(stat(path.join(remote, ".git"))).rejects.toThrow("ENOENT");
    await gitIn(remote, "init", "-q");
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    await commit(remote, "by the agent");
    await restoreWorkspace();
    expect(await git("rev-parse", "HEAD")).toBe(before);
    expect(await git("status", "--porcelain")).toBe(" M a.txt");
    expect(lastReport().heldBack).toStrictEqual([]);
  });

  it("files: a .git is merged file by file, except what git runs or obeys", async () => {
    const { restoreWorkspace } = await prepare({ git: "files" });
    await gitIn(remote, "config", "core.fsmonitor", "false");
    await writeFile(path.join(remote, ".git/hooks/pre-commit"), "#!/bin/sh\n");
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    const theirs = await commit(remote, "by the agent");
    await restoreWorkspace();
    expect(await git("rev-parse", "main")).toBe(theirs);
    expect(await git("config", "--local", "--list")).not.toContain("fsmonitor");
    expect(held()).toContain(".git/config");
    expect(held()).toContain(".git/hooks/pre-commit");
    await expectSound();
  });

  it("files: a .git that is not a folder is held back, and so are other references than branches and tags", async () => {
    const before = await git("rev-parse", "HEAD");
    const { restoreWorkspace } = await prepare({ git: "files" });
    await gitIn(remote, "update-ref", `refs/replace/${before}`, before);
    await makeTree(remote, { "nested/.git": "gitdir: ../evil\n", "nested/x": "x\n" });
    await symlink("../evil", path.join(remote, "src/.git"));
    await restoreWorkspace();
    for (const file of ["nested/.git", "src/.git", ".git/refs/replace"]) {
      await expect(lstat(path.join(workspace, file)), file).rejects.toThrow("ENOENT");
    }
    expect(held()).toStrictEqual([
      ".git/refs/replace",
      `.git/refs/replace/${before}`,
      "nested/.git",
      "src/.git",
    ]);
    await rm(path.join(remote, ".git"), { recursive: true });
    await writeFile(path.join(remote, ".git"), "gitdir: evil\n");
    await restoreWorkspace();
    expect(await git("rev-parse", "HEAD")).toBe(before);
    await expectSound();
  });

  it.each([
    ["version 2", ["update-index --force-write-index --index-version 2"]],
    ["version 4", ["update-index --force-write-index --index-version 4"]],
    ["split", ["update-index --split-index"]],
    ["sparse", ["sparse-checkout set --cone --sparse-index src"]],
    [
      "with untracked names and flags",
      ["update-index --untracked-cache", "update-index --skip-worktree a.txt"],
    ],
    ["with blocks of entries", ["-c index.threads=2 update-index --force-write-index"]],
  ])("files: an index of git's is taken over: %s", async (_form, commands) => {
    const { restoreWorkspace } = await prepare({ git: "files" });
    await makeTree(remote, Object.fromEntries(Array.from({ length: 300 }, (_, at) => [`src/new/${at}`, ""])));
    await gitIn(remote, "add", "-A");
    for (const command of commands) await gitIn(remote, ...command.split(" "));
    await restoreWorkspace();
    expect(held()).not.toContain(".git/index");
    expect(await git("ls-files")).toBe(await gitIn(remote, "ls-files"));
  });

  it.each([".git/hooks/post-checkout", "../outside", "src/.GIT/config"])(
    "files: an index that names a path which git would write elsewhere is held back: %s",
    async (named) => {
      const { restoreWorkspace } = await prepare({ git: "files" });
      const harmless = named.replace(".git", "xgit").replace("../", "xx/").replace(".GIT", "xGIT");
      await makeTree(remote, { [harmless]: "#!/bin/sh\n" });
      await gitIn(remote, "add", "-Af");
      const index = path.join(remote, ".git/index");
      // Git does not check the checksum.
      const bytes = (await readFile(index)).toString("latin1").replace(harmless, named);
      await writeFile(index, bytes, "latin1");
      await restoreWorkspace();
      expect(held()).toStrictEqual([".git/index"]);
      expect(await git("ls-files")).not.toContain(path.posix.basename(named));
    },
  );

  it("files: objects that the sandbox collected stay, since a local branch may need them", async () => {
    const before = await git("rev-parse", "HEAD~1").catch(() => "");
    await writeFile(path.join(workspace, "a.txt"), "second\n");
    const second = await commit(workspace, "second");
    const { restoreWorkspace } = await prepare({ git: "files" });
    await gitIn(remote, "reset", "-q", "--hard", before || "HEAD~1");
    await gitIn(remote, "reflog", "expire", "--expire=now", "--all");
    await gitIn(remote, "gc", "-q", "--prune=now");
    await git("branch", "kept", second);
    await restoreWorkspace();
    expect(await git("log", "-1", "--format=%s", "kept")).toBe("second");
    await expectSound();
  });

  it.each(["rm -rf .git", "rm -rf .git/objects .git/refs", "rm -rf .git/HEAD .git/index .git/packed-refs"])(
    "files: what git never deletes stays, with the commits that it has: %s",
    async (command) => {
      await git("pack-refs", "--all");
      const commits = await git("log", "--all", "--format=%H");
      const { restoreWorkspace } = await prepare({ git: "files" });
      await execute("sh", ["-c", command], { cwd: remote });
      await restoreWorkspace();
      const named = command.split(" ").slice(2);
      expect(held()).toStrictEqual(named.sort());
      expect(await git("log", "--all", "--format=%H")).toBe(commits);
      expect(await git("status", "--porcelain")).toBe("");
      await expectSound();
    },
  );

  it("files: caches that name packs do not come, so that git collects what it no longer needs", async () => {
    for (const text of ["second", "third"]) {
      await git("repack", "-q", "-d");
      await commit(workspace, text, "--allow-empty");
    }
    await git("repack", "-q", "-d");
    const { restoreWorkspace } = await prepare({ git: "files" });
    await gitIn(remote, "multi-pack-index", "write");
    await gitIn(remote, "commit-graph", "write", "--reachable", "--split");
    await git("gc", "-q");
    await restoreWorkspace();
    await expectSound();
    expect(held()).toStrictEqual([]);
    expect(await git("status", "--porcelain")).toBe("");
  });

  it("files: a repository with a reftable stays as it is, which is reported", async () => {
    await rm(path.join(workspace, ".git"), { recursive: true });
    const made = await git("init", "-q", "-b", "main", "--ref-format=reftable").catch(() => undefined);
    if (made === undefined) return; // Debian's git does not know it.
    await commit(workspace, "first");
    const { restoreWorkspace } = await prepare({ git: "files" });
    await writeFile(path.join(remote, "a.txt"), "theirs\n");
    await commit(remote, "theirs");
    await restoreWorkspace();
    expect(held()).toStrictEqual([".git"]);
    expect(await git("status", "--porcelain")).toBe(" M a.txt");
    await expectSound();
  });

  it.each(["files", "workspace"])(
    "a bare repository that comes as files keeps objects that a local branch needs: %s",
    async (kind) => {
      const bare = kind === "files" ? path.join(workspace, "store.git") : workspace;
      if (kind === "workspace") {
        await rm(workspace, { recursive: true });
        await mkdir(workspace);
      }
      await gitIn(workspace, "init", "-q", "--bare", "-b", "main", bare);
      const there = kind === "files" ? path.join(remote, "store.git") : remote;
      const tree = (at) => gitIn(at, "hash-object", "-t", "tree", "-w", "/dev/null");
      const first = await gitIn(bare, "commit-tree", "-m", "first", await tree(bare));
      await gitIn(bare, "update-ref", "refs/heads/main", first);
      const { restoreWorkspace } = await prepare({ git: "files" });
      const anew = await gitIn(there, "commit-tree", "-m", "anew", await tree(there));
      await gitIn(there, "update-ref", "refs/heads/main", anew);
      await gitIn(there, "gc", "-q", "--prune=now");
      await gitIn(bare, "update-ref", "refs/heads/person", first);
      await restoreWorkspace();
      expect(await gitIn(bare, "log", "-1", "--format=%s", "person")).toBe("first");
      await gitIn(bare, "fsck", "--full");
    },
  );

  it.each(["auto", "full"])(
    "a commit comes though what it has was only staged here and was collected since: %s",
    async (transfer) => {
      await writeFile(path.join(workspace, "s.txt"), "staged\n");
      await git("add", "s.txt");
      const { restoreWorkspace } = await prepare({ transfer });
      await gitIn(remote, ...AUTHOR, "commit", "-qm", "first");
      await writeFile(path.join(remote, "z.txt"), "z\n");
      const theirs = await commit(remote, "second");
      await writeFile(path.join(workspace, "s.txt"), "changed\n");
      await git("add", "s.txt");
      await git("gc", "-q", "--prune=now");
      await restoreWorkspace();
      expect(await git("rev-parse", "main")).toBe(theirs);
      expect(await git("show", "main:s.txt")).toBe("staged");
      await expectSound();
    },
  );

  it("files: a .git that is a file and was removed in the sandbox is removed like any file", async () => {
    await makeTree(workspace, { "nested/.git": "gitdir: ../other\n", "nested/x": "x\n" });
    const { restoreWorkspace } = await prepare({ git: "files" });
    await rm(path.join(remote, "nested/.git"));
    await restoreWorkspace();
    expect(held()).toStrictEqual([]);
    await expect(lstat(path.join(workspace, "nested/.git"))).rejects.toThrow("ENOENT");
  });

  it("a submodule's commits come back after its repository was moved below the one above", async () => {
    const library = path.join(home, "library");
    await makeTree(library, { "l.txt": "l\n" });
    await gitIn(library, "init", "-q", "-b", "main");
    await commit(library, "library");
    await git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library, "lib");
    await commit(workspace, "with a submodule");
    vi.stubEnv("PAPERCLIP_HOME", path.join(home, "kept"));
    onTestFinished(() => void vi.unstubAllEnvs());
    let { restoreWorkspace } = await prepare();
    for (const round of ["one", "two"]) {
      await gitIn(remote, "submodule", "--quiet", "absorbgitdirs");
      expect((await lstat(path.join(remote, "lib/.git"))).isFile()).toBe(true);
      for (const text of ["first", "second"]) {
        await writeFile(path.join(remote, "lib/l.txt"), `${text} ${round}\n`);
        const theirs = await commit(path.join(remote, "lib"), text);
        await restoreWorkspace();
        expect(held()).toStrictEqual([]);
        expect(await gitIn(path.join(workspace, "lib"), "rev-parse", "main")).toBe(theirs);
        expect(await gitIn(path.join(workspace, "lib"), "status", "--porcelain")).toBe("");
      }
      ({ restoreWorkspace } = await prepare());
      expect((await lstat(path.join(remote, "lib/.git"))).isDirectory()).toBe(true);
      await expectSound(path.join(remote, "lib"));
    }
    await expectSound();
  });

  it("limits the history, and commits on top of it come back", async () => {
    for (const number of [1, 2, 3]) {
      await writeFile(path.join(workspace, "a.txt"), `${number}\n`);
      await commit(workspace, `${number}`);
    }
    const { restoreWorkspace } = await prepare({ gitDepth: 2 });
    expect(await gitIn(remote, "rev-list", "--count", "HEAD")).toBe("2");
    await writeFile(path.join(remote, "a.txt"), "changed\n");
    const theirs = await commit(remote, "by the agent");
    await restoreWorkspace();
    expect(await git("rev-parse", "main")).toBe(theirs);
    expect(await git("rev-list", "--count", "HEAD")).toBe("5");
    await expectSound();
  });

  it.each([
    [{ git: "yes" }, "input.git", "ERR_INVALID_ARG_VALUE"],
    [{ git: 1 }, "input.git", "ERR_INVALID_ARG_TYPE"],
    [{ gitDepth: 0 }, "input.gitDepth", "ERR_INVALID_ARG_VALUE"],
    [{ gitDepth: "2" }, "input.gitDepth", "ERR_INVALID_ARG_TYPE"],
  ])("%j is refused by name", async (options, name, code) => {
    await expect(prepare(options)).rejects.toMatchObject({ code, message: expect.stringContaining(name) });
    expect(client.calls).toStrictEqual([]);
  });
});

describe("an upload to a sandbox that has the repository", () => {
  const packsThere = () =>
    gitIn(remote, "count-objects", "-v").then((text) => /^packs: (\d+)/mu.exec(text)[1]);
  const sentBytes = () =>
    client.calls.splice(0).reduce((sum, [name, , bytes]) => sum + (name === "writeFile" ? bytes : 0), 0);
  let upload;

  beforeEach(async () => {
    vi.stubEnv("PAPERCLIP_HOME", path.join(home, "kept"));
    await writeFile(path.join(workspace, "large"), randomBytes(1_000_000));
    await commit(workspace, "large");
    await rm(path.join(workspace, "large"));
    await commit(workspace, "in the history alone");
    client = new LocalSandbox();
    upload = () => prepare({ compression: "none" });
  });

  afterEach(() => vi.unstubAllEnvs());

  it("sends no object if the repository is unchanged, also after a restore", async () => {
    await upload();
    expect(sentBytes()).toBeGreaterThan(1_000_000);
    for (let heartbeat = 0; heartbeat < 3; heartbeat++) {
      const { restoreWorkspace } = await upload();
      expect(sentBytes()).toBeLessThan(60_000);
      await gitIn(remote, "status");
      await restoreWorkspace();
      client.calls.length = 0;
    }
    expect(await packsThere()).toBe("1");
    await expectSound(remote);
  });

  it("sends a commit of either side as a separate pack, and commits come back as before", async () => {
    await upload();
    for (const round of ["one", "two"]) {
      await writeFile(path.join(workspace, "a.txt"), `here ${round}\n`);
      await commit(workspace, "by a person");
      client.calls.length = 0;
      const { restoreWorkspace } = await upload();
      expect(sentBytes()).toBeLessThan(60_000);
      await expectSound(remote);
      await writeFile(path.join(remote, "src/b.txt"), `there ${round}\n`);
      const theirs = await commit(remote, "by the agent");
      await restoreWorkspace();
      expect(await git("rev-parse", "main")).toBe(theirs);
      expect(await git("status", "--porcelain")).toBe("");
      await expectSound();
    }
    client.calls.length = 0;
    await upload();
    expect(sentBytes()).toBeLessThan(60_000);
    expect(await packsThere()).toBe("4");
    expect(await gitIn(remote, "log", "--format=%s")).toBe(await git("log", "--format=%s"));
    await expectSound(remote);
  });

  it("transfers no pack again that git has only given another time", async () => {
    let { restoreWorkspace } = await upload();
    const folder = path.join(remote, ".git/objects/pack");
    const [pack] = (await readdir(folder)).filter((name) => name.endsWith(".pack"));
    const read = vi.spyOn(client, "readFile");
    /** Has git store an object that is in the pack. */
    const freshen = async () => {
      const { mtimeMs, size } = await stat(path.join(folder, pack));
      expect(size).toBeGreaterThan(1_000_000);
      await gitIn(remote, "hash-object", "-w", "a.txt");
      expect((await stat(path.join(folder, pack))).mtimeMs).not.toBe(mtimeMs);
    };
    for (const round of ["one", "two"]) {
      await freshen();
      await writeFile(path.join(remote, "src/b.txt"), `there ${round}\n`);
      const theirs = await commit(remote, "by the agent");
      read.mockClear();
      await restoreWorkspace();
      expect(await git("rev-parse", "main")).toBe(theirs);
      const answers = await Promise.all(read.mock.results.map(({ value }) => value));
      expect(answers.reduce((sum, { byteLength }) => sum + byteLength, 0)).toBeLessThan(60_000);
      await freshen();
      client.calls.length = 0;
      ({ restoreWorkspace } = await upload());
      expect(sentBytes()).toBeLessThan(60_000);
      expect(await readdir(folder)).toContain(pack);
      await expectSound(remote);
    }
    await restoreWorkspace();
    await expectSound();
  });

  it("brings an object that was in the sandbox before a reference led to it", async () => {
    const { restoreWorkspace } = await upload();
    const tree = await gitIn(remote, "rev-parse", "HEAD^{tree}");
    const later = await gitIn(remote, "commit-tree", tree, "-p", "HEAD", "-m", "for later");
    await restoreWorkspace();
    await gitIn(remote, "branch", "later", later);
    await restoreWorkspace();
    expect(await git("rev-parse", "later")).toBe(later);
    expect(held()).toStrictEqual([]);
    await expectSound();
  });

  it("removes from the sandbox what is no longer reachable locally, and keeps the rest", async () => {
    await upload();
    await git("checkout", "-q", "-b", "secret");
    await writeFile(path.join(workspace, "secret.txt"), "secret\n");
    const secret = await commit(workspace, "secret");
    await git("checkout", "-q", "main");
    await upload();
    expect(await gitIn(remote, "cat-file", "-t", secret)).toBe("commit");
    await git("branch", "-D", "secret");
    client.calls.length = 0;
    const { restoreWorkspace } = await upload();
    expect(sentBytes()).toBeLessThan(60_000);
    await expect(gitIn(remote, "cat-file", "-t", secret)).rejects.toThrow(secret);
    await restoreWorkspace();
    await expectSound(remote);
  });

  it.each([
    ["the sandbox collected its objects", () => gitIn(remote, "gc", "-q")],
    [
      "the sandbox lost a pack's index",
      async () => {
        const packs = path.join(remote, ".git/objects/pack");
        for (const name of await readdir(packs)) {
          if (name.endsWith(".idx")) await rm(path.join(packs, name));
        }
      },
    ],
    ["the sandbox removed its repository", () => rm(path.join(remote, ".git"), { recursive: true })],
    ["the sandbox was replaced", () => rm(remote, { recursive: true })],
    [
      "what is kept here is damaged",
      async () => {
        const kept = path.join(home, "kept");
        for (const entry of await readdir(kept, { recursive: true, withFileTypes: true })) {
          if (entry.isFile()) await writeFile(path.join(entry.parentPath, entry.name), "damaged");
        }
      },
    ],
    ["nothing is kept here", () => rm(path.join(home, "kept"), { recursive: true })],
  ])("is complete where %s", async (_, harm) => {
    await upload();
    await harm();
    const { restoreWorkspace } = await upload();
    await expectSound(remote);
    expect(await gitIn(remote, "rev-list", "--objects", "--all")).toBe(
      await git("rev-list", "--objects", "--all"),
    );
    await restoreWorkspace();
    expect(lastReport()).toMatchObject({ heldBack: [], conflicts: [], deleted: [] });
    await expectSound();
  });
});

it("a repository that the sandbox could not read completely stays as it is, and the files come back", async () => {
  client = new LocalSandbox({ unprivileged: true });
  remote = await remoteWorkspace({ unprivileged: true });
  const { restoreWorkspace } = await prepare();
  const before = await git("for-each-ref");
  await writeFile(path.join(remote, "a.txt"), "changed\n");
  const theirs = await commit(remote, "by the agent");
  await gitIn(remote, "branch", "topic");
  // Root's file, which the sandbox's user may not read: the branch looks as if it were gone.
  const unread = path.join(remote, ".git/refs/heads/topic");
  await chmod(unread, 0);
  await restoreWorkspace();
  expect(await git("for-each-ref")).toBe(before);
  expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("changed\n");
  expect(lastReport().heldBack).toStrictEqual([
    { path: ".git", reason: expect.stringContaining("may be incomplete") },
  ]);
  await chmod(unread, 0o644);
  await restoreWorkspace();
  expect(await git("rev-parse", "main", "topic")).toBe(`${theirs}\n${theirs}`);
  await expectSound();
});

it("a sandbox without git gets the repository too, and the files come back", async () => {
  const applets = await commandFolder({ appletsOf: "busybox" });
  client = new LocalSandbox({ path: applets });
  const { restoreWorkspace } = await prepare();
  await client.agent(`cd '${remote}' && echo changed > a.txt`);
  await restoreWorkspace();
  expect(await git("status", "--porcelain")).toBe(" M a.txt");
  expect(lastReport().heldBack).toStrictEqual([]);
  await expectSound();
});

// Git takes a directory for a repository by its HEAD. An old commit may have one, which a later checkout writes.
describe("beside a HEAD of an old local commit, nothing comes that git would run", () => {
  const HEAD = `mkdir -p fx; echo 'ref: refs/heads/main' >fx/HEAD; echo r >fx/readme; git add -A; git commit -qm fixture`;
  const WITHOUT = `git rm -q fx/HEAD; git commit -qm without`;
  const parts = (folder = "fx") =>
    `mkdir -p ${folder}/objects ${folder}/refs; echo 1 >${folder}/objects/k; echo 1 >${folder}/refs/k
     printf '[core]\\n\\tbare = false\\n\\tworktree = ..\\n\\tfsmonitor = touch %s\\n' "$CANARY" >${folder}/config`;
  const CONFIG = `mkdir -p fx; printf '[core]\\n\\tbare = false\\n\\tworktree = ..\\n\\tfsmonitor = touch %s\\n' "$CANARY" >fx/config`;
  const STORE = "mkdir -p fx/objects fx/refs; touch fx/objects/o fx/refs/r";
  const hook = `mkdir -p fx/hooks; printf '#!/bin/sh\\ntouch %s\\n' "$CANARY" >fx/hooks/post-checkout; chmod +x fx/hooks/*`;
  const WHOLE = `mkdir -p fx/objects fx/refs; echo 1 >fx/objects/k; echo 1 >fx/refs/k; printf '[core]\\n\\tbare = false\\n\\tworktree = ..\\n' >fx/config; git add -f fx`;
  const LOOK = "git checkout -q .; cd fx; git status; git checkout -q -f HEAD -- . || :";
  const STASH = "echo q >>a.txt; git stash -q; cd fx; git status";

  it.each([
    ["the agent resets to it", `${HEAD}; ${WITHOUT}`, [parts(), "git reset -q --hard HEAD~1"], STASH],
    ["at once", `${HEAD}; ${WITHOUT}`, [`${parts()}; git reset -q --soft HEAD~1`], STASH],
    ["the agent removes it first", HEAD, [WITHOUT, parts(), "git reset -q --hard HEAD~1"], LOOK],
    [
      "the agent's new branch is at it",
      `${HEAD}; ${WITHOUT}; git commit -qm more --allow-empty`,
      [`${parts()}; git symbolic-ref HEAD refs/heads/x; git update-ref refs/heads/x main~2`],
      STASH,
    ],
    [
      "no branch is checked out",
      `${HEAD}; ${WITHOUT}`,
      [`${parts()}; git update-ref --no-deref HEAD HEAD~1`],
      STASH,
    ],
    [
      "another local branch has it",
      `git checkout -qb o; ${HEAD}; git checkout -q main`,
      [`${parts()}; git symbolic-ref HEAD refs/heads/o`],
      STASH,
    ],
    [
      "a new merge has it from a parent",
      `git checkout -qb o; ${HEAD}; git checkout -q main; git commit -qm m --allow-empty`,
      [parts(), "git merge -q --no-edit o"],
      LOOK,
    ],
    [
      "a person checks the branch out",
      `git checkout -qb o; ${HEAD}; git checkout -q main`,
      [parts()],
      "git checkout -qf o; cd fx; git status",
    ],
    [
      "a person reverts the commit that removed the parts",
      `${HEAD}; ${WITHOUT}`,
      [`${parts()}; git add -Af; git commit -qm parts; git rm -rqf fx; git commit -qm gone`],
      "git revert --no-edit HEAD || :; git checkout -q HEAD~1 -- fx || :; git checkout -q main~3 -- fx/HEAD || :; cd fx && git status || :",
    ],
    [
      "another HEAD is there first",
      `${HEAD}; ${WITHOUT}`,
      [
        "mkdir -p fx; echo no >fx/HEAD",
        `printf '[core]\\n\\tworktree = ..\\n\\tfsmonitor = touch %s\\n' "$CANARY" >fx/config`,
        "rm fx/HEAD",
        "mkdir -p fx/objects fx/refs; echo 1 >fx/objects/k; echo 1 >fx/refs/k",
      ],
      "git checkout -qf HEAD~1; cd fx; git status",
    ],
    [
      "only a stash has it",
      `mkdir fx; echo 'ref: refs/heads/main' >fx/HEAD; git add fx; git stash -q; git commit -qm m --allow-empty; git commit -qm n --allow-empty`,
      [parts()],
      "git stash apply -q; cd fx; git status",
    ],
    [
      "a submodule that is not checked out has it",
      `git init -q ../m; (cd ../m; mkdir fx; echo 'ref: refs/heads/main' >fx/HEAD; git add fx; git commit -qm fixture; git rm -q fx/HEAD; echo x >x; git add x; git commit -qm without)
       git -c protocol.file.allow=always submodule -q add ../m s; git commit -qm sub; git submodule -q deinit -f s`,
      [parts("s/fx")],
      "git -c protocol.file.allow=always submodule -q update --init; git -C s checkout -qf HEAD~1; cd s/fx; git status",
    ],
    [
      "a merge follows a renamed directory",
      `mkdir tests; echo t >tests/t; echo u >tests/u; git add tests; git commit -qm tests; git checkout -qb o; mkdir tests/fx; echo 'ref: refs/heads/main' >tests/fx/HEAD; git add tests; git commit -qm fixture; git checkout -q main`,
      [`git mv tests lib; git commit -qm moved; ${parts("lib/fx")}`],
      "git merge -q --no-edit o; cd lib/fx; git status",
    ],
    [
      "a new repository in the workspace has the rest in a commit",
      `mkdir -p n/fx; echo 'ref: refs/heads/main' >n/fx/HEAD; git add n; git commit -qm fixture; git rm -rqf n; git commit -qm without`,
      [
        `git init -q n; cd n; ${parts()}; git add -f fx; git commit -qm parts; git rm -rqf fx; git commit -qm gone`,
      ],
      "git -C n checkout -qf HEAD~1; git checkout -qf HEAD~1 -- n/fx/HEAD; cd n/fx; git status",
    ],
    [
      "only a tag of a tree has it",
      `${STORE}; ${HEAD}; git tag t HEAD^{tree}; git reset -q --hard HEAD~1; git reflog expire --all --expire=now`,
      [CONFIG],
      "git checkout -q t -- fx; cd fx; git status",
    ],
    [
      "only the stash of an operation in progress has it",
      `git checkout -qb o; echo o >a.txt; git commit -qam o; git checkout -q main; echo m >a.txt; git commit -qam m
       ${STORE}; echo 'ref: refs/heads/main' >fx/HEAD; git add fx; git rebase -q --autostash o || :; [ ! -e fx ]`,
      [CONFIG],
      "git reset -q --hard; git rebase --skip || :; cd fx; git status",
    ],
    [
      "a local filter makes it",
      `git config filter.r.smudge 'tr a-z n-za-m'; git config filter.r.clean 'tr a-z n-za-m'; echo HEAD filter=r >.gitattributes
       ${STORE}; ${HEAD}; git rm -rqf fx; git commit -qm without`,
      [CONFIG],
      "git checkout -qf HEAD~1 -- fx; cd fx; git status",
    ],
    [
      "another worktree has staged it",
      `git worktree add -qb o ../other; cd ../other; ${STORE}; echo 'ref: refs/heads/main' >fx/HEAD; git add fx`,
      [`${CONFIG}; git add -f fx; git commit -qm config`],
      "cd ../other; git merge -q --no-edit main || :; cd fx; git status",
    ],
    [
      "a merge follows a directory that the agent has renamed",
      `mkdir t; echo 1 >t/1; echo 2 >t/2; git add t; git commit -qm t; git checkout -qb o
       mkdir t/objects t/refs; touch t/objects/o t/refs/r; echo 'ref: refs/heads/main' >t/HEAD; git add t; git commit -qm fixture; git checkout -q main`,
      [`git mv t fx; git commit -qm moved; ${CONFIG}; git add -f fx; git commit -qm config`],
      "git merge -q --no-edit o || :; cd fx; git status",
    ],
    [
      "a nested repository has the hooks in a commit",
      `${HEAD}; ${WITHOUT}; git init -q -b main fx/hooks; git -C fx/hooks commit -qm n --allow-empty`,
      [
        `mkdir -p fx/objects fx/refs; touch fx/objects/o fx/refs/r; cd fx/hooks; git checkout -qb o
         printf '#!/bin/sh\ntouch %s\n' "$CANARY" >reference-transaction
         chmod +x reference-transaction; git add .; git commit -qm o; git checkout -q main`,
      ],
      "git -C fx/hooks checkout -q o; git checkout -q HEAD~1 -- fx; cd fx; git branch zz",
    ],
    [
      "only a hook is missing",
      `${HEAD}; ${WHOLE}; git commit -qm whole; git rm -rqf fx; git commit -qm gone`,
      [hook],
      "git checkout -qf HEAD~1 -- fx; cd fx; git status; git checkout -q -f HEAD -- . || :",
    ],
  ])("%s", async (_what, before, agent, person) => {
    const canary = path.join(home, "canary");
    await user(workspace, before);
    let restore;
    for (const script of agent) {
      ({ restoreWorkspace: restore } = await prepare({ provider: "x" }));
      await user(remote, `CANARY='${canary}'\n${script}`);
      await restore();
    }
    expect(existsSync(canary)).toBe(false);
    await user(workspace, person).catch(() => {
      // Where nothing was written, there is no such directory.
    });
    expect(existsSync(canary)).toBe(false);
    expect(reports.some((report) => report.heldBack.length > 0)).toBe(true);
    await expectSound();
  });

  it("nor with what a commit brings in the same restore, for any worktree of the repository", async () => {
    await user(workspace, "git worktree add -q wt -b side");
    const { restoreWorkspace } = await prepare();
    await user(
      remote,
      `mkdir -p fx/objects fx/refs; echo 1 >fx/objects/k; echo 1 >fx/refs/k; git add -f fx; git commit -qm stores
       git reset -q --hard HEAD~1; git branch stores HEAD@{1}; mkdir -p fx wt/fx; echo 1 >fx/config; echo 1 >wt/fx/config`,
    );
    await restoreWorkspace();
    expect(held()).toStrictEqual(["fx/config", "wt/fx/config"]);
  });

  it("what was moved to such a path stays where it was", async () => {
    await makeTree(workspace, { "keep.txt": "kept\n", "gone.txt": "gone\n" });
    const { restoreWorkspace } = await prepare();
    await user(remote, "mkdir fx; mv keep.txt fx/commondir; rm gone.txt; echo x >>a.txt");
    await restoreWorkspace();
    expect(await readFile(path.join(workspace, "keep.txt"), "utf8")).toBe("kept\n");
    expect(held()).toStrictEqual(["fx/commondir", "keep.txt"]);
    expect(lastReport().heldBack.map(({ reason }) => reason)).toStrictEqual([
      expect.stringContaining("the directory that it names"),
      expect.stringContaining("it stays where it was"),
    ]);
    expect(lastReport().deleted).toStrictEqual(["gone.txt"]);
    // Once nothing is held back, it is deleted.
    await user(remote, "mv fx/commondir fx/free");
    await restoreWorkspace();
    expect(await user(workspace, "ls . fx; cat fx/free").then(({ stdout }) => stdout)).toBe(
      ".:\na.txt\nfx\nsrc\n\nfx:\nfree\nkept\n",
    );
  });

  it("where no commit has one, such files come", async () => {
    const { restoreWorkspace } = await prepare();
    await makeTree(remote, { "fx/config": "a = b\n", "hooks/pre-commit": "x\n" });
    await restoreWorkspace();
    expect(lastReport()).toMatchObject({ heldBack: [], conflicts: [] });
    expect(await git("status", "--porcelain", "-uall")).toBe("?? fx/config\n?? hooks/pre-commit");
  });
});

// A commit's files are written by a later checkout or merge, and the configuration that then counts is not always today's.
describe("an upload", () => {
  it("is tried again if git finds something else than a moment ago", async () => {
    const folder = path.join(await temporaryFolder(), "bin");
    await mkdir(folder);
    const { stdout: git } = await execute("sh", ["-c", "command -v git"]);
    const once = `[ -e '${folder}/failed' ] || { : >'${folder}/failed'; echo gone >&2; exit 128; }`;
    const wrapper = `#!/bin/sh\ncase " $* " in *" for-each-ref "*) ${once} ;; esac\nexec ${git.trim()} "$@"\n`;
    await writeFile(path.join(folder, "git"), wrapper, { mode: 0o755 });
    vi.stubEnv("PATH", `${folder}:${process.env.PATH}`);
    await prepare();
    vi.unstubAllEnvs();
    expect(existsSync(path.join(folder, "failed"))).toBe(true);
    expect(await gitIn(remote, "log", "--format=%s", "-1")).toBe("first");
  });
});

describe("a local bare repository, which is not uploaded", () => {
  const commitInHub = async () => {
    await git("init", "-q", "--bare", "-b", "main", "hub/up.git");
    const hub = path.join(workspace, "hub/up.git");
    const tree = await gitIn(hub, "hash-object", "-t", "tree", "-w", "/dev/null");
    await gitIn(hub, "update-ref", "refs/heads/main", await gitIn(hub, "commit-tree", "-m", "only", tree));
    return () => gitIn(hub, "log", "-1", "--format=%s", "main");
  };

  it.each([
    ["merge", "rm -rf hub; ln -s src hub"],
    ["merge", "mkdir -p hub; echo x >hub/up.git"],
    ["off", "rm -rf hub; echo x >hub"],
    ["off", "mkdir -p hub; ln -s ../src hub/up.git"],
  ])("stays where the sandbox has something else in its place: %s, %s", async (mode, command) => {
    const subject = await commitInHub();
    const { restoreWorkspace } = await prepare({ git: mode });
    await execute("sh", ["-c", command], { cwd: remote });
    await restoreWorkspace();
    expect(await subject()).toBe("only");
    expect(lastReport().conflicts).toStrictEqual([]);
    expect(lastReport().skipped.map(({ path: where }) => where)).toStrictEqual([
      command.includes("up.git") ? "hub/up.git" : "hub",
    ]);
  });

  it.each(["hub", "hub/up.git"])("is deleted by no checkout of a branch that came: %s", async (name) => {
    await writeFile(path.join(workspace, ".gitignore"), "hub/\n");
    await commit(workspace, "ignore");
    const subject = await commitInHub();
    const { restoreWorkspace } = await prepare();
    await gitIn(remote, "checkout", "-q", "-b", "theirs");
    await rm(path.join(remote, "hub"), { recursive: true, force: true });
    await makeTree(remote, { [name]: "x\n" });
    await gitIn(remote, "add", "-f", name);
    await gitIn(remote, ...AUTHOR, "commit", "-qm", "theirs");
    await gitIn(remote, "checkout", "-q", "main");
    await restoreWorkspace();
    expect(await git("branch", "--list", "theirs")).toBe("");
    expect(lastReport().heldBack.map(({ what }) => what)).toContain("refs/heads/theirs");
    expect(await subject()).toBe("only");
  });
});

describe("a branch of a person's", () => {
  it.each([
    ["that was sent, in two restores", "main", "true", "fork"],
    ["that was sent, to this repository itself", "main", "true", "."],
    [
      "that was made meanwhile",
      "topic",
      "git checkout -qb topic; git commit -q --allow-empty -m mine",
      "fork",
    ],
  ])("is not directed to another remote: %s", async (_what, branch, meanwhile, remoteName) => {
    await git("remote", "add", "origin", "https://good.invalid/up.git");
    const { restoreWorkspace } = await prepare();
    await gitIn(remote, "remote", "add", "fork", "https://fork.invalid/up.git");
    if (branch === "main") await restoreWorkspace();
    await user(workspace, meanwhile);
    if (branch !== "main") await gitIn(remote, "checkout", "-q", "-b", branch);
    await commit(remote, "theirs", "--allow-empty");
    await gitIn(remote, "config", `branch.${branch}.remote`, remoteName);
    await restoreWorkspace();
    expect(await git("config", "--get", `branch.${branch}.remote`).catch(() => "none")).toBe("none");
    expect(held()).toContain(`.git branch.${branch}.remote`);
  });
});

describe("an asset in the workspace", () => {
  it.each(["link above", "dots"])("is not read through a link of the sandbox: %s", async (spelling) => {
    const linked = path.join(home, "linked");
    await symlink(path.dirname(workspace), linked);
    await makeTree(workspace, { "skills/a/f": "f\n" });
    const outside = path.join(home, "outside");
    await makeTree(outside, { "a/secret": "secret\n" });
    const name = path.basename(workspace);
    const localDir =
      spelling === "dots"
        ? `${workspace}/../${name}/skills/a`
        : path.join(linked, path.basename(workspace), "skills/a");
    const assets = [{ key: "skills", localDir }];
    const { restoreWorkspace } = await prepare({ assets });
    await rm(path.join(remote, "skills"), { recursive: true });
    await symlink(outside, path.join(remote, "skills"));
    await restoreWorkspace();
    await expect(prepare({ assets })).rejects.toThrow("symbolic link");
  });
});

describe("a session that is resumed", () => {
  it.each([undefined, "off"])("has the mode of its prepare, and deletes no repository: %s", async (mode) => {
    vi.stubEnv("PAPERCLIP_HOME", path.join(home, "kept"));
    onTestFinished(() => void vi.unstubAllEnvs());
    await prepare({ git: "files" });
    const theirs = await commit(remote, "agent", "--allow-empty");
    const { restoreWorkspace } = await resumeSandboxManagedRuntime(input({ git: mode }));
    await restoreWorkspace();
    expect(lastReport().deleted).toStrictEqual([]);
    expect(await git("rev-parse", "HEAD")).toBe(theirs);
    await expectSound();
  });
});

describe("a submodule that .gitmodules has ignored", () => {
  it("is followed by the index like any other", async () => {
    const library = path.join(home, "library");
    await makeTree(library, { "l.txt": "l\n" });
    await gitIn(library, "init", "-q", "-b", "main");
    await commit(library, "library");
    await git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library, "lib");
    await git("config", "-f", ".gitmodules", "submodule.lib.ignore", "all");
    await commit(workspace, "with a submodule");
    const { restoreWorkspace } = await prepare();
    const theirs = await commit(path.join(remote, "lib"), "in the submodule", "--allow-empty");
    await gitIn(remote, "update-index", "--cacheinfo", `160000,${theirs},lib`);
    await gitIn(remote, ...AUTHOR, "commit", "-qm", "another commit of the submodule");
    await rm(path.join(remote, ".git/index"));
    await restoreWorkspace();
    expect(await git("rev-parse", "HEAD:lib")).toBe(theirs);
    expect(await git("ls-files", "-s", "lib")).toContain(theirs);
  });
});

describe("a prepare while another sandbox is restored", () => {
  it("waits until the index belongs to the branch that was moved", async () => {
    const other = path.join(home, "other");
    const { restoreWorkspace } = await prepare();
    await writeFile(path.join(remote, "new.txt"), "new\n");
    const theirs = await commit(remote, "agent");
    const folder = path.join(await temporaryFolder(), "bin");
    await mkdir(folder);
    const { stdout: git } = await execute("sh", ["-c", "command -v git"]);
    const once = `[ -e '${folder}/between' ] || { : >'${folder}/between'; sleep 2; }`;
    const wrapper = `#!/bin/sh\n${git.trim()} "$@" || exit\ncase " $* " in *" update-ref "*) ${once} ;; esac\n`;
    await writeFile(path.join(folder, "git"), wrapper, { mode: 0o755 });
    vi.stubEnv("PATH", `${folder}:${process.env.PATH}`);
    const restored = restoreWorkspace();
    while (!existsSync(path.join(folder, "between"))) await setTimeout(10);
    vi.unstubAllEnvs();
    const client = new LocalSandbox();
    await prepareSandboxManagedRuntime({
      spec: specFor(other),
      client,
      adapterKey: "agent",
      workspaceLocalDir: workspace,
    });
    await restored;
    expect(await gitIn(other, "rev-parse", "HEAD")).toBe(theirs);
    expect(await gitIn(other, "status", "--porcelain", "-uno")).toBe("");
  });
});

describe("what the sandbox has as its stash", () => {
  it("is kept aside if it is no stash, and the local one can still be popped", async () => {
    await user(workspace, "echo mine >a.txt; git stash -q");
    const { restoreWorkspace } = await prepare();
    const theirs = await commit(remote, "ordinary", "--allow-empty");
    await user(remote, "git rev-parse HEAD >.git/refs/stash");
    await restoreWorkspace();
    const { heldBack, refsKept } = lastReport();
    expect(heldBack.map(({ what }) => what)).toContain("refs/stash");
    expect(await git("stash", "list", "--format=%gs")).toBe(
      "WIP on main: ".concat(await git("log", "-1", "--format=%h %s", "main~1")),
    );
    for (const { keptAt } of refsKept) expect(await git("rev-parse", keptAt)).toBe(theirs);
    await git("stash", "pop", "-q");
    expect(await readFile(path.join(workspace, "a.txt"), "utf8")).toBe("mine\n");
  });
});

describe("what a later checkout would run or replace is reported", () => {
  it.each([
    [
      "a hook that a merge moves with its renamed folder",
      "git config core.hooksPath .githooks",
      "mkdir scripts; echo 1 >scripts/post-checkout; git add scripts; git commit -qm new",
      ["scripts/post-checkout"],
    ],
    [
      "a file that a merge moves to the name of an included configuration",
      "git config include.path ../.gitconfig; git config core.fsmonitor tools/fsm.sh",
      "mkdir d e; echo 1 >d/.gitconfig; echo 1 >e/fsm.sh; echo 1 >e/other.sh; git add .; git commit -qm new",
      ["d/.gitconfig", "e/fsm.sh"],
    ],
    [
      "a submodule in the place of the folder of hooks",
      "git config core.hooksPath .githooks",
      "git checkout -qb x; git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),.githooks; git commit -qm link; git checkout -q main",
      [".githooks"],
    ],
    [
      "a hook in a new repository, by the user's configuration",
      "git config --global core.hooksPath .githooks",
      `git init -q -b main n; cd n; git commit -qm first --allow-empty; git checkout -qb x
       mkdir .githooks; echo 1 >.githooks/post-checkout; git add .; git commit -qm hook; git checkout -q main`,
      ["n/.git", "n/.githooks/post-checkout"],
    ],
    [
      "a program of a configuration that another branch includes",
      `git config includeIf.onbranch:other.path '~/other.config'; git config -f "$HOME/other.config" diff.external 'sh tools/d.sh'`,
      "mkdir tools; echo 1 >tools/d.sh",
      ["tools/d.sh"],
    ],
    [
      "a hook of another worktree",
      "git worktree add -q ../other -b other; git config extensions.worktreeConfig true; git -C ../other config --worktree core.hooksPath .gh",
      "mkdir .gh; echo 1 >.gh/post-checkout; git add .; git commit -qm hook",
      [".gh/post-checkout"],
    ],
    [
      "the address of the large files",
      ":",
      "printf '[lfs]\\n\\turl = https://example.org\\n' >.lfsconfig",
      [".lfsconfig"],
    ],
    [
      "a local file that is ignored, and in a branch of the sandbox",
      "mkdir ignored; echo secret >ignored/.env",
      "git checkout -qb x; mkdir ignored; echo 1 >ignored/.env; git add -f ignored; git commit -qm x; git checkout -q main",
      ["ignored/.env"],
    ],
    [
      "a local file that was uploaded and is ignored, and in a branch of the sandbox",
      "echo secret >s.txt; echo s.txt >.gitignore; git add .; git commit -qm ignored; echo secret >s.txt",
      "git checkout -qb x; echo 1 >s.txt; git add -f s.txt; git commit -qm x; git checkout -q main; echo secret >s.txt",
      ["s.txt"],
    ],
    [
      "a local folder that is ignored, where a branch of the sandbox has a file",
      "mkdir ignored; git init -q ignored/lib",
      "git checkout -qb x; echo 1 >ignored; git add -f ignored; git commit -qm x; git checkout -q main",
      ["ignored"],
    ],
    [
      "the end of a link that a local branch has in the place of a program",
      `mkdir gh tools; echo 1 >gh/diff; git add .; git commit -qm file; git checkout -qb old; ln -sf ../tools/other.sh gh/diff
       echo 1 >tools/other.sh; git add .; git commit -qm link; git checkout -q main; git config diff.external gh/diff`,
      "git checkout -q old; echo 2 >tools/other.sh; echo 2 >unrelated; git add .; git commit -qm x; git checkout -q main",
      ["tools/other.sh"],
    ],
    [
      "the end of a link that a local tag has in the folder of hooks",
      `mkdir gh tools; echo 1 >gh/x; git add .; git commit -qm file; git checkout -qb old; ln -s ../tools/other.sh gh/post-checkout
       echo 1 >tools/other.sh; git add .; git commit -qm link; git tag old-tag; git checkout -q main; git branch -qD old
       git config core.hooksPath gh`,
      "git checkout -qb new old-tag; echo 2 >tools/other.sh; git commit -qam x; git checkout -q main",
      ["tools/other.sh"],
    ],
  ])("%s", async (_what, before, agent, expected) => {
    vi.stubEnv("HOME", home);
    await user(workspace, before);
    const { restoreWorkspace } = await prepare({ workspaceExclude: ["ignored"] });
    await user(remote, agent);
    await restoreWorkspace();
    expect(lastReport().sensitive.map((told) => told.path)).toStrictEqual(expected);
  });

  it.each(["hk", "$PWD/hk"])(
    "a hook of the main worktree, where the workspace is another one (%s)",
    async (hooks) => {
      await user(
        workspace,
        `mkdir hk; echo 1 >hk/post-checkout; git add .; git commit -qm hook; git config core.hooksPath "${hooks}"
       git worktree add -q ../linked -b linked`,
      );
      workspace = path.join(home, "linked");
      const { restoreWorkspace } = await prepare();
      await user(
        remote,
        "git checkout -qb x; echo 2 >hk/post-checkout; git commit -qam x; git checkout -q linked",
      );
      await restoreWorkspace();
      expect(lastReport().sensitive.map((told) => told.path)).toStrictEqual(["hk/post-checkout"]);
    },
  );

  it.each([
    ["core.hooksPath", "app/hk", "hk/post-checkout"],
    ["filter.x.clean", "sh app/tools/clean.sh", "tools/clean.sh"],
  ])(
    "a file that a repository around names by %s, where the workspace has its own",
    async (key, value, expected) => {
      await user(
        workspace,
        `git init -q app; cd app; mkdir hk tools; echo 1 >hk/post-checkout; echo 1 >tools/clean.sh; git add .; git commit -qm first
       cd ..; git config ${key} '${value}'`,
      );
      workspace = path.join(workspace, "app");
      const { restoreWorkspace } = await prepare();
      await user(remote, "for f in hk/post-checkout tools/clean.sh; do echo 2 >$f; done");
      await restoreWorkspace();
      expect(lastReport().sensitive.map((told) => told.path)).toStrictEqual([expected]);
    },
  );

  it("and nothing is, where no configuration names it and nothing local is in its place", async () => {
    const { restoreWorkspace } = await prepare();
    await user(
      remote,
      "git checkout -qb x; mkdir d; echo 1 >d/post-checkout; echo 1 >new; git add .; git commit -qm x; git checkout -q main",
    );
    await restoreWorkspace();
    expect(lastReport().sensitive).toStrictEqual([]);
  });

  it("the folder of the backups is replaced by no merge, and by no checkout in another worktree", async () => {
    await user(workspace, "git worktree add -q wt -b side");
    const { restoreWorkspace } = await prepare();
    await user(
      remote,
      `mkdir scripts; ln -s /nowhere scripts/.paperclip-runtime; git add -f scripts; git commit -qm link
       cd wt; echo 1 >.paperclip-runtime; git add -f .paperclip-runtime; git commit -qm file`,
    );
    await restoreWorkspace();
    const told = lastReport().heldBack.filter(({ reason }) => reason.includes("local backups"));
    expect(told.map(({ what }) => what)).toContain("refs/heads/main");
    expect(told.map(({ what }) => what)).toContain("refs/heads/side");
  });
});

/** The commands of this machine, without git. */
async function pathWithoutGit() {
  const folder = path.join(home, "without-git");
  await mkdir(folder);
  for (const name of ["sh", "tar", "zstd", "gzip"]) {
    const { stdout } = await execute("sh", ["-c", `command -v ${name}`]);
    await symlink(stdout.trim(), path.join(folder, name));
  }
  return folder;
}

it.each(["auto", "full"])(
  "a commit that came while there was no git here is on its branch after the next restore (transfer %s)",
  async (transfer) => {
    const { restoreWorkspace } = await prepare({ transfer });
    await writeFile(path.join(remote, "a.txt"), "the agent's\n");
    const theirs = await commit(remote, "by the agent");
    vi.stubEnv("PATH", await pathWithoutGit());
    await restoreWorkspace();
    vi.unstubAllEnvs();
    expect(lastReport().heldBack[0].reason).toContain("there is no git on this machine");
    await restoreWorkspace();
    expect(await git("rev-parse", "main")).toBe(theirs);
    await expectSound();
  },
);

it("a local branch of very many parts goes up, stays, and is taken back changed; a new one is held back", async () => {
  const deep = `deep${"/x".repeat(40)}`;
  await git("branch", deep);
  const { restoreWorkspace } = await prepare();
  expect(await gitIn(remote, "rev-parse", deep)).toBe(await git("rev-parse", "main"));
  await gitIn(remote, "pack-refs", "--all");
  await restoreWorkspace();
  expect(await git("rev-parse", deep)).toBe(await git("rev-parse", "main"));
  await writeFile(path.join(remote, "a.txt"), "the agent's\n");
  const theirs = await commit(remote, "by the agent");
  await gitIn(remote, "branch", "-f", deep);
  await gitIn(remote, "branch", `new${"/x".repeat(40)}`);
  await restoreWorkspace();
  expect(await git("rev-parse", "main", deep)).toBe(`${theirs}\n${theirs}`);
  expect(held()).toStrictEqual([`.git refs/heads/new${"/x".repeat(40)}`]);
  expect(await git("for-each-ref", "refs/heads/new")).toBe("");
});

it("a packed-refs that is too large to be read deletes no branch here", async () => {
  await git("branch", "side");
  const before = await git("for-each-ref");
  const { restoreWorkspace } = await prepare();
  await user(remote, "git pack-refs --all; truncate -s 65M .git/packed-refs");
  await restoreWorkspace();
  expect(await git("for-each-ref")).toBe(before);
  expect(held()).toStrictEqual([".git packed-refs"]);
});

it("a nested repository stays that a checkout of the sandbox's commit in another worktree would delete", async () => {
  await user(
    workspace,
    `printf 'hub/\\nwt/\\n' >.gitignore; git commit -qam ignore; git worktree add -q wt --detach
     git init -q wt/hub/nested; git -C wt/hub/nested commit -q --allow-empty -m "on no other machine"`,
  );
  const { restoreWorkspace } = await prepare({ workspaceExclude: ["hub"] });
  await user(
    remote,
    "git checkout -qb file; echo 1 >hub; git add -f hub; git commit -qm file; git checkout -q main",
  );
  await restoreWorkspace();
  expect(held()).toContain(".git refs/heads/file");
  expect(await git("for-each-ref", "refs/heads/file")).toBe("");
});

it.each([
  ["the workspace", ".", "secret.env"],
  ["a linked worktree in it", "wt", "secret.env"],
  ["a repository in it", ".", "hub/nested/a.txt"],
])("what a checkout would replace is told: in %s", async (_, folder, file) => {
  const told = path.normalize(path.join(folder, file));
  await user(
    workspace,
    `printf 'secret.env\\nhub/\\nwt/\\n' >.gitignore; git commit -qam ignore; git worktree add -q wt --detach
     git clone -q . hub/nested; echo precious >>${told}`,
  );
  const { restoreWorkspace } = await prepare();
  await user(
    remote,
    `blob=$(echo 1 | git hash-object -w --stdin); git update-index --add --cacheinfo 100644,$blob,${file}
     git branch new $(git commit-tree $(git write-tree) -p HEAD -m new); git reset -q`,
  );
  await restoreWorkspace();
  expect(lastReport().sensitive.map((sensitive) => sensitive.path)).toContain(told);
});

it("many commits of worktrees that no reference has are kept in several restores", async () => {
  const { restoreWorkspace } = await prepare();
  await user(
    remote,
    `tree=$(git write-tree); for i in $(seq 502); do mkdir -p .git/worktrees/w$i
     echo $i | git commit-tree $tree >.git/worktrees/w$i/HEAD; done`,
  );
  const kept = async () =>
    (await git("for-each-ref", "--format=%(objectname)", "refs/paperclip")).split("\n");
  await restoreWorkspace();
  expect(await kept()).toHaveLength(500);
  await restoreWorkspace();
  expect(new Set(await kept()).size).toBe(502);
  await expectSound();
});

it.each(["a pipe", "a socket"])(
  "a local directory with %s stays where the sandbox has a file in its place",
  async (kind) => {
    const at = path.join(workspace, "src", "special");
    await (kind === "a pipe" ? execute("mkfifo", [at]) : socketAt(at));
    const before = await lstat(at);
    const { restoreWorkspace } = await prepare();
    await user(remote, "rm -r src; echo a file >src");
    await restoreWorkspace();
    expect((await lstat(at)).ino).toBe(before.ino);
    expect(lastReport().skipped.map((skipped) => skipped.path)).toContain("src");
  },
);

it("work on commits that are no longer here is held back in each restore, until git fetch --unshallow brings them", async () => {
  const origin = path.join(home, "origin");
  await user(
    home,
    `git clone -q workspace origin; cd origin; for i in 1 2 3; do git commit -q --allow-empty -m $i; done`,
  );
  workspace = path.join(home, "shallow");
  await user(home, `git clone -q --depth 3 file://${origin} shallow`);
  const { restoreWorkspace } = await prepare();
  await user(
    remote,
    `git branch other; git reset -q --hard HEAD~2; echo new >n.txt; git add n.txt; git commit -qm agent
     git checkout -q other; git commit -q --allow-empty -m other; git checkout -q main`,
  );
  const theirs = await gitIn(remote, "rev-parse", "main");
  await user(
    workspace,
    "git fetch -q --depth 1; git reflog expire --all --expire=now; git gc -q --prune=now",
  );
  for (const _ of ["once", "twice"]) {
    await restoreWorkspace();
    expect(held()).toContain(".git");
  }
  await user(workspace, "git fetch -q --unshallow");
  await restoreWorkspace();
  expect(held()).toStrictEqual([]);
  const kept = await git("for-each-ref", "--format=%(objectname)", "refs/paperclip", "refs/heads/main");
  expect(kept.split("\n")).toContain(theirs);
});

/** A `git` that runs this script first, in which `$real` is the real one; the client's `PATH` stays as it is. */
async function withGit(script) {
  const folder = path.join(home, "git-in-between");
  await mkdir(folder, { recursive: true });
  const { stdout } = await execute("sh", ["-c", "command -v git"]);
  await writeFile(
    path.join(folder, "git"),
    `#!/bin/sh\nreal=${stdout.trim()}\n${script}\nexec $real "$@"\n`,
    {
      mode: 0o755,
    },
  );
  vi.stubEnv("PATH", `${folder}:${process.env.PATH}`);
}

describe("what a person has staged on top of own commits stays, where the agent only stages another file", () => {
  it.each([
    ["the removal of a file that is new", "git rm -q --cached secret", "D\tsecret"],
    ["a former version", "git checkout -q HEAD~1 -- q", "M\tq"],
    ["a directory in the place of a file", "git rm -q q; mkdir q; echo 1 >q/in; git add q", "A\tq/in\nD\tq"],
  ])("%s", async (_, stage, expected) => {
    await user(workspace, "echo first >q; git add q; git commit -qm q");
    const { restoreWorkspace } = await prepare();
    await user(workspace, `echo second >q; echo 1 >secret; git add -A; git commit -qm mistake; ${stage}`);
    await user(remote, "echo new >other; git add other");
    await restoreWorkspace();
    const staged = await git("diff", "--cached", "--name-status", "--no-renames");
    expect(staged.split("\n").sort()).toStrictEqual([...expected.split("\n"), "A\tother"].sort());
  });
});

describe("a local object that is missing", () => {
  const broken = (name) => `echo ${"1".repeat(40)} >.git/refs/${name}`;

  it("of a branch makes no step fail for which git looks at all references", async () => {
    await user(workspace, broken("heads/broken"));
    const { restoreWorkspace } = await prepare();
    await user(
      remote,
      `git worktree add -q --detach ../wt; cd ../wt; git commit -q --allow-empty -m detached
       cd '${remote}'; echo new >a.txt; git commit -qam agent; git branch side`,
    );
    await restoreWorkspace();
    const former = await git("rev-parse", "main~1");
    await user(workspace, `git branch -qD side; git reset -q --hard ${former}`);
    await restoreWorkspace();
    expect(await git("rev-parse", "main")).toBe(former);
    expect(await git("for-each-ref", "refs/heads/side")).toBe("");
  });

  it("of a branch lets HEAD leave a detached commit, which is kept", async () => {
    await user(workspace, "git checkout -q --detach; git commit -q --allow-empty -m detached");
    const detached = await git("rev-parse", "HEAD");
    const { restoreWorkspace } = await prepare();
    await user(workspace, broken("heads/broken"));
    await user(remote, "git checkout -q main; echo new >a.txt; git commit -qam agent");
    await restoreWorkspace();
    expect(await git("symbolic-ref", "HEAD")).toBe("refs/heads/main");
    expect(await git("for-each-ref", "--points-at", detached, "refs/paperclip")).not.toBe("");
    expect(await git("status", "--porcelain")).toBe("");
  });

  it("of the stash keeps neither the repository nor the rest of a restore back", async () => {
    await user(workspace, "echo mine >a.txt; git stash -q");
    const lose = async () => {
      const stash = await git("rev-parse", "refs/stash");
      await rm(path.join(workspace, ".git/objects", stash.slice(0, 2), stash.slice(2)), { force: true });
    };
    const { restoreWorkspace } = await prepare();
    await lose();
    await user(
      remote,
      "echo new >n.txt; git add n.txt; git commit -qm agent; echo theirs >a.txt; git stash -q",
    );
    const theirs = await gitIn(remote, "rev-parse", "main", "refs/stash");
    await restoreWorkspace();
    const here = await git("for-each-ref", "--format=%(objectname)", "refs/heads/main", "refs/paperclip");
    expect(here.split("\n").sort()).toStrictEqual(theirs.split("\n").sort());
    expect(held()).toStrictEqual([".git refs/stash"]);
    await prepare();
    expect(await gitIn(remote, "rev-parse", "main")).toBe(theirs.split("\n")[0]);
  });
});

it("rules of a sparse checkout that was switched off hide no later edit", async () => {
  await user(
    workspace,
    "mkdir in out; echo 1 >in/x; echo 1 >out/y; git add -A; git commit -qm s; git sparse-checkout set in; git sparse-checkout disable",
  );
  const { restoreWorkspace } = await prepare();
  await user(remote, "echo n >out/n; git add out/n; git commit -qm agent; rm out/n");
  await restoreWorkspace();
  await writeFile(path.join(workspace, "out/n"), "the person's\n");
  expect(await git("status", "--porcelain")).toBe(" M out/n");
});

it("in a sparse checkout, what git refuses between two steps of the index leaves nothing that looks deleted", async () => {
  await user(
    workspace,
    "mkdir in out; echo 1 >in/x; echo 1 >out/y; git add -A; git commit -qm s; git sparse-checkout set in",
  );
  const { restoreWorkspace } = await prepare();
  await user(
    remote,
    `git checkout -q -b t; echo 2 >in/x; git sparse-checkout disable; echo 2 >out/y; git commit -qam agent
     git checkout -q main; git sparse-checkout set in; git merge -q t`,
  );
  await withGit(`case "$*" in *--skip-worktree*) exit 1 ;; esac`);
  await restoreWorkspace();
  vi.unstubAllEnvs();
  expect(held()).toContain(".git index");
  await restoreWorkspace();
  expect(await git("status", "--porcelain")).toBe("");
  expect(await git("ls-files", "-t", "out")).toBe("S out/y");
  expect(await git("rev-parse", "HEAD:out/y")).toBe(await git("rev-parse", ":out/y"));
});

it("a stash comes with the next restore, if another git had the stash locked", async () => {
  const { restoreWorkspace } = await prepare();
  await user(remote, "echo theirs >a.txt; git stash push -q -m work");
  const lock = path.join(workspace, ".git/refs/stash.lock");
  await writeFile(lock, "");
  await restoreWorkspace();
  expect(held()).toStrictEqual([".git refs/stash"]);
  await restoreWorkspace();
  await rm(lock);
  await restoreWorkspace();
  expect(await git("stash", "list", "--format=%gs")).toBe("On main: work");
  // It was kept under another name only once.
  expect(await git("for-each-ref", "--format=%(refname)", "refs/paperclip")).not.toContain("\n");
});

describe("a git that is killed has given no answer, so the next restore tries again", () => {
  it.each([
    ["rev-parse -q --verify HEAD^{commit}", ""],
    ["symbolic-ref -q HEAD", ""],
    ["log -c --raw", ""],
    ["--list -z --file", "git config remote.up.url https://example.org/x"],
    [
      "rev-parse -q --verify refs/heads/feat",
      "git checkout -q -b feat$(git rev-parse --short HEAD); git commit -q --allow-empty -m f",
    ],
  ])("git %s", async (call, more) => {
    for (let number = 1; number < 10; number++) {
      const { restoreWorkspace } = await prepare();
      await user(
        remote,
        `echo ${number} >a.txt; git commit -qam agent; echo ${number} >staged; git add staged; ${more}`,
      );
      const count = path.join(home, "count");
      await writeFile(count, "0");
      await withGit(
        `case "$*" in *'${call}'*) n=$(($(cat ${count}) + 1)); echo $n >${count}; [ $n != ${number} ] || kill -9 $$ ;; esac`,
      );
      // It may fail before anything is changed.
      await restoreWorkspace().catch((error) => expect(error.code).toBe("EAGAIN"));
      vi.unstubAllEnvs();
      const isLast = Number(await readFile(count, "utf8")) < number;
      await restoreWorkspace();
      for (const state of [
        ["rev-parse", "main", "HEAD"],
        ["symbolic-ref", "HEAD"],
        ["diff", "--cached", "--name-status"],
      ])
        expect(await git(...state), `${call}, call ${number}`).toBe(await gitIn(remote, ...state));
      if (more.includes("config")) expect(await git("config", "remote.up.url")).toContain("example.org");
      await expectSound();
      if (isLast) return;
    }
  });
});

it.each(["auto", "full"])(
  "a person who switches to another branch during a prepare gives no file of it to the former one (transfer %s)",
  async (transfer) => {
    await makeTree(
      workspace,
      Object.fromEntries(Array.from({ length: 20 }, (_, at) => [`f${at}`, randomBytes(50_000)])),
    );
    await user(
      workspace,
      "echo main >z; git add -A; git commit -qm files; git checkout -q -b other; echo other >z; git commit -qam other; git checkout -q main",
    );
    const write = client.writeFile.bind(client);
    let written = 0;
    client.writeFile = async (...args) => {
      if (++written === 1) await git("checkout", "-q", "other");
      return write(...args);
    };
    const prepares = [];
    await prepare({
      transfer,
      partBytes: 64 * 1024,
      compression: "none",
      onPrepareReport: (report) => void prepares.push(report),
    });
    expect(await gitIn(remote, "symbolic-ref", "HEAD")).toBe("refs/heads/other");
    expect(await gitIn(remote, "status", "--porcelain")).toBe("");
    expect(prepares[0].archives.map(({ label }) => label)).toStrictEqual(["workspace", "workspace"]);
  },
);
