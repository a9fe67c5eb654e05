// The newest release and the entry for it, on the same workspaces: what the release loses and the entry does not. (What the
// release does is asserted as well: a case that it no longer gets wrong proves nothing.)

import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import * as releasedGit from "adapter-utils-2026.916.1/git-workspace-sync";
import * as released from "adapter-utils-2026.916.1/sandbox-managed-runtime";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import * as own from "../../adapter-utils/index.js";

const run = promisify(execFile);

/** The module that runs: the entry with its own git functions, and with the release's, as its shim files pass them. */
const MODULES = {
  released: released.prepareSandboxManagedRuntime,
  own: own.prepareSandboxManagedRuntime,
  "own over the release's git functions": own.createAdapterUtils({ git: releasedGit })
    .prepareSandboxManagedRuntime,
};

let place;
let home;
let count = 0;

beforeAll(async () => {
  place = await mkdtemp(path.join(os.tmpdir(), "beside-"));
  // Locks are in the instance's folder, which must not be that of the user who runs this.
  home = process.env.PAPERCLIP_HOME;
  process.env.PAPERCLIP_HOME = path.join(place, "home");
});

afterAll(async () => {
  if (home === undefined) delete process.env.PAPERCLIP_HOME;
  else process.env.PAPERCLIP_HOME = home;
  await rm(place, { recursive: true });
});

/** @param {string} cwd */
async function git(cwd, ...args) {
  const identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
  const local = ["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"];
  const { stdout } = await run("git", [...identity, ...local, ...args], { cwd, maxBuffer: 1e8 });
  return stdout.trimEnd();
}

/** @param {string} dir */
async function write(dir, files) {
  const writeOne = async ([name, text]) => {
    await mkdir(path.dirname(path.join(dir, name)), { recursive: true });
    await writeFile(path.join(dir, name), text);
  };
  await Promise.all(Object.entries(files).map(writeOne));
}

const read = (dir, name) => readFile(path.join(dir, name), "utf8").catch(() => undefined);

/** Every file below a folder with its text, except git's files and backups. */
async function filesOf(dir) {
  const found = {};
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    const name = path.relative(dir, path.join(entry.parentPath, entry.name));
    if (!entry.isFile() || /(^|\/)(\.git|\.paperclip-runtime)(\/|$)/.test(name)) continue;
    found[name] = await readFile(path.join(dir, name), "utf8");
  }
  return found;
}

/** The texts that a restore has backed up. */
async function keptAside(dir) {
  const conflicts = path.join(dir, ".paperclip-runtime/conflicts");
  const entries = await readdir(conflicts, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile());
  return Promise.all(files.map((file) => readFile(path.join(file.parentPath, file.name), "utf8")));
}

/** A sandbox that is a folder on this machine. */
function client() {
  const methods = {
    makeDir: (dir) => mkdir(dir, { recursive: true }),
    writeFile: async (file, bytes) => {
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, Buffer.from(bytes));
    },
    readFile: (file) => readFile(file),
    listFiles: () => [],
    remove: (file) => rm(file, { recursive: true, force: true }),
    run: (command) => run("sh", ["-c", command], { maxBuffer: 1e8 }),
    // The release requires it.
    syncIn: async (operations) => {
      for (const { files, postUploadCommands } of operations) {
        for (const file of files) await methods.writeFile(file.targetPath, await readFile(file.sourcePath));
        for (const { command } of postUploadCommands ?? []) await methods.run(command);
      }
      return { operations: [] };
    },
  };
  return methods;
}

/** A committed repository. */
async function repository(dir, files) {
  await mkdir(dir, { recursive: true });
  await git(dir, "init", "-q");
  await write(dir, files);
  await git(dir, "add", "-A");
  await git(dir, "commit", "-qm", "base");
}

/**
 * One run of a module.
 *
 * @param {keyof typeof MODULES} whose
 * @param {{ setUp: Function, act?: Function, meanwhile?: Function, input?: object }} scenario
 */
async function round(whose, { setUp, act, meanwhile, input }) {
  const dir = path.join(place, String(++count));
  const local = path.join(dir, "local");
  const remote = path.join(dir, "remote");
  await mkdir(local, { recursive: true });
  await setUp(local, dir);
  const spec = {
    transport: "sandbox",
    provider: "test",
    sandboxId: "1",
    remoteCwd: remote,
    timeoutMs: 60_000,
  };
  const prepared = await MODULES[whose]({
    spec,
    adapterKey: "test",
    client: client(),
    workspaceLocalDir: local,
    ...input,
  });
  await act?.(remote);
  await meanwhile?.(local);
  await prepared.restoreWorkspace();
  return { local, remote, prepared };
}

const OWN = Object.keys(MODULES).filter((name) => name !== "released");

/**
 * A case: what must hold, and what the release breaks.
 *
 * @param {string} name
 * @param {object} scenario
 * @param {(round: { local: string, remote: string, prepared: object }) => Promise<unknown>} look
 * @param {unknown} kept What is seen where nothing is lost.
 */
function compare(name, scenario, look, kept) {
  describe(name, () => {
    it("is lost by the release", async () => {
      const seen = await round("released", scenario)
        .then(look)
        .catch((error) => ({ rejected: error.message }));
      expect(seen).not.toEqual(kept);
    });
    it.each(OWN)("is kept: %s", async (whose) => {
      expect(await look(await round(whose, scenario))).toEqual(kept);
    });
  });
}

const change = (files) => (dir) => write(dir, files);

compare(
  "a submodule's files and its `.git`",
  {
    setUp: async (local, dir) => {
      await repository(path.join(dir, "library"), { "lib.c": "int x;" });
      await repository(local, { a: "a" });
      await git(local, "submodule", "add", "-q", path.join(dir, "library"), "sub");
      await git(local, "commit", "-qm", "submodule");
      await write(local, { "sub/edited": "not committed" });
    },
    act: change({ b: "theirs" }),
  },
  async ({ local }) => [await filesOf(local), await git(path.join(local, "sub"), "status", "--short")],
  [
    expect.objectContaining({ a: "a", b: "theirs", "sub/lib.c": "int x;", "sub/edited": "not committed" }),
    "?? edited",
  ],
);

compare(
  "what the agent changes in a submodule",
  {
    setUp: async (local, dir) => {
      await repository(path.join(dir, "library"), { "lib.c": "int x;" });
      await repository(local, { a: "a" });
      await git(local, "submodule", "add", "-q", path.join(dir, "library"), "sub");
      await git(local, "commit", "-qm", "submodule");
    },
    act: change({ "sub/lib.c": "int y;" }),
  },
  async ({ local }) => [
    await read(local, "sub/lib.c"),
    await git(path.join(local, "sub"), "log", "--format=%s"),
  ],
  ["int y;", "base"],
);

compare(
  "a nested repository with what is in it",
  {
    setUp: async (local) => {
      await repository(local, { a: "a" });
      await repository(path.join(local, "nested"), { n: "n" });
    },
    act: async (remote) => {
      await git(remote, "add", "-A");
      await write(remote, { b: "theirs" });
    },
  },
  async ({ local }) => [
    await filesOf(local),
    await git(path.join(local, "nested"), "log", "--format=%s"),
    await git(local, "ls-files"),
  ],
  [{ a: "a", b: "theirs", "nested/n": "n" }, "base", "a"],
);

compare(
  "the `.git` of a repository in a workspace that is none",
  {
    setUp: async (local) => {
      await write(local, { a: "a" });
      await repository(path.join(local, "nested"), { n: "n" });
    },
    act: change({ "nested/n": "theirs" }),
  },
  async ({ local }) => [await filesOf(local), await git(path.join(local, "nested"), "log", "--format=%s")],
  [{ a: "a", "nested/n": "theirs" }, "base"],
);

compare(
  "a tracked `src/logs/a.ts` where `/logs` is ignored",
  {
    setUp: async (local) => {
      await repository(local, { ".gitignore": "/logs\n", "src/logs/a.ts": "a" });
      await write(local, { "logs/run": "ignored" });
    },
    act: change({ "src/logs/b.ts": "theirs" }),
  },
  ({ local }) => filesOf(local),
  { ".gitignore": "/logs\n", "src/logs/a.ts": "a", "src/logs/b.ts": "theirs", "logs/run": "ignored" },
);

compare(
  "nested files that `workspaceExclude` names by a pattern",
  {
    setUp: (local) => write(local, { a: "a", "x.log": "1", "deep/er/y.log": "2" }),
    act: change({ b: "theirs" }),
    input: { workspaceExclude: ["*.log"] },
  },
  ({ local }) => filesOf(local),
  { a: "a", b: "theirs", "x.log": "1", "deep/er/y.log": "2" },
);

compare(
  "a local `._x`",
  {
    setUp: (local) => write(local, { a: "a", "._x": "fork", "deep/._y": "fork" }),
    act: change({ b: "theirs" }),
  },
  ({ local }) => filesOf(local),
  { a: "a", b: "theirs", "._x": "fork", "deep/._y": "fork" },
);

compare(
  "a local edit of a file whose mode git does not keep",
  {
    setUp: async (local) => {
      await repository(local, { a: "a" });
      await chmod(path.join(local, "a"), 0o664);
    },
    act: change({ b: "theirs" }),
    meanwhile: change({ a: "edited here" }),
  },
  async ({ local }) => [
    await read(local, "a"),
    ((await stat(path.join(local, "a"))).mode & 0o777).toString(8),
  ],
  ["edited here", "664"],
);

compare(
  "the local edit of a file that both sides changed",
  {
    setUp: (local) => write(local, { a: "a" }),
    act: change({ a: "theirs" }),
    meanwhile: change({ a: "edited here" }),
  },
  async ({ local }) => [await read(local, "a"), await keptAside(local)],
  ["theirs", ["edited here"]],
);

compare(
  "commits of both sides that cannot be merged, and the files",
  {
    setUp: (local) => repository(local, { a: "a\n" }),
    act: async (remote) => {
      await write(remote, { a: "theirs\n", b: "theirs\n" });
      await git(remote, "add", "-A");
      await git(remote, "commit", "-qm", "theirs");
    },
    meanwhile: async (local) => {
      await write(local, { a: "ours\n" });
      await git(local, "commit", "-qam", "ours");
    },
  },
  async ({ local }) => [
    await git(local, "log", "-1", "--format=%s"),
    await git(local, "log", "--all", "--glob=refs/paperclip/*", "--format=%s", "--grep=theirs"),
    await read(local, "b"),
    await keptAside(local),
  ],
  ["ours", "theirs", "theirs\n", ["ours\n"]],
);

compare(
  "what is staged here and nowhere else",
  {
    setUp: (local) => repository(local, { a: "a" }),
    act: change({ b: "theirs" }),
    meanwhile: async (local) => {
      await write(local, { a: "staged" });
      await git(local, "add", "a");
      await write(local, { a: "after that" });
    },
  },
  ({ local }) => git(local, "show", ":a"),
  "staged",
);

compare(
  "an edit of a file that is committed under `build/`",
  {
    setUp: async (local) => {
      await repository(local, { "build/rules": "a", "build/gone": "a" });
      await write(local, { "build/rules": "edited here", "node_modules/m": "m" });
    },
    act: async (remote) => {
      await write(remote, { "build/new": `after ${await read(remote, "build/rules")}` });
      await rm(path.join(remote, "build/gone"));
    },
  },
  ({ local }) => filesOf(local),
  { "build/rules": "edited here", "build/new": "after edited here", "node_modules/m": "m" },
);

compare(
  "a workspace with 3,000 ignored paths",
  {
    setUp: async (local) => {
      await repository(local, { ".gitignore": "*.ignored\n", a: "a" });
      const name = (at) => `some-folder-of-the-workspace-${at}/with-a-file-that-is-ignored-${at}`;
      const files = Array.from({ length: 3000 }, (_, at) => [
        [`${name(at)}.ignored`, String(at)],
        [`${name(at)}.kept`, ""],
      ]);
      await write(local, Object.fromEntries(files.flat()));
    },
    act: change({ a: "theirs" }),
  },
  async ({ local }) => [await read(local, "a"), Object.keys(await filesOf(local)).length],
  ["theirs", 6002],
);

compare(
  "a workspace with 4,500 deleted paths",
  {
    setUp: async (local) => {
      const files = Array.from({ length: 4500 }, (_, at) => [
        `some-folder-of-the-workspace/a-file-that-is-deleted-${at}`,
        "",
      ]);
      await repository(local, { a: "a", ...Object.fromEntries(files) });
      await rm(path.join(local, "some-folder-of-the-workspace"), { recursive: true });
    },
    act: change({ b: "theirs" }),
  },
  ({ local }) => filesOf(local),
  { a: "a", b: "theirs" },
);

compare(
  "a folder in the place of a committed file",
  {
    setUp: async (local) => {
      await repository(local, { a: "a", "was/a/folder": "x" });
      await rm(path.join(local, "a"));
      await rm(path.join(local, "was"), { recursive: true });
      await write(local, { "a/inside": "new", was: "a file" });
    },
    act: change({ b: "theirs" }),
  },
  async ({ local, remote }) => [await filesOf(local), await read(remote, "a/inside")],
  [{ "a/inside": "new", b: "theirs", was: "a file" }, "new"],
);

compare(
  "a repository without a commit",
  {
    setUp: async (local) => {
      await git(local, "init", "-q");
      await write(local, { a: "a", ".gitignore": "secret\n", secret: "s" });
    },
    act: async (remote) => write(remote, { b: `no ${await read(remote, "secret")}` }),
  },
  async ({ local }) => [await filesOf(local), await git(local, "status", "--short")],
  [{ a: "a", b: "no undefined", ".gitignore": "secret\n", secret: "s" }, "?? .gitignore\n?? a\n?? b"],
);

compare(
  "a local edit between two restores",
  {
    setUp: (local) => repository(local, { a: "a", c: "c" }),
    act: async (remote) => {
      await write(remote, { a: "theirs" });
      await git(remote, "commit", "-qam", "first");
    },
  },
  async ({ local, remote, prepared }) => {
    await write(local, { a: "edited after the first" });
    await write(remote, { c: "second" });
    await git(remote, "commit", "-qam", "second");
    await prepared.restoreWorkspace();
    return [await filesOf(local), await git(local, "log", "--format=%s"), await keptAside(local)];
  },
  [{ a: "edited after the first", c: "second" }, "second\nfirst\nbase", []],
);

describe("what a sandbox does to its repository", () => {
  const SANDBOX = /^\[paperclip\] The environment('s commits)? /;
  const lines = [];
  const input = { onLine: (line) => void lines.push(line), onProgress: (line) => void lines.push(line) };
  const told = () => lines.filter((line) => SANDBOX.test(line));
  beforeEach(() => void lines.splice(0));

  /** A workspace with two commits. */
  const setUp = async (local) => {
    await repository(local, { a: "a" });
    await write(local, { b: "b" });
    await git(local, "add", "-A");
    await git(local, "commit", "-qm", "second");
  };

  describe.each([
    ["amend a commit", ["commit", "-q", "--amend", "-am", "there"]],
    ["begin a branch without a parent", ["checkout", "-q", "--orphan", "other"], ["commit", "-qam", "there"]],
  ])("%s", (_what, ...commands) => {
    it.each([false, true])("keeps its commit and its message (local commit: %s)", async (commitsHere) => {
      const { local, remote } = await round("own", {
        setUp,
        act: async (dir) => {
          await write(dir, { a: "theirs" });
          for (const command of commands) await git(dir, ...command);
        },
        meanwhile: async (dir) => {
          if (!commitsHere) return;
          await write(dir, { c: "ours" });
          await git(dir, "add", "-A");
          await git(dir, "commit", "-qm", "here");
        },
        input,
      });
      const there = await git(remote, "rev-parse", "HEAD");
      expect(await git(local, "for-each-ref", "--contains", there, "refs/paperclip")).toContain("sandbox-");
      expect((await git(local, "log", "--format=%s")).split("\n")).toEqual(
        expect.arrayContaining(commitsHere ? ["there", "here", "second"] : ["there", "second"]),
      );
      expect(await git(local, "status", "--porcelain")).toBe("");
      expect(await filesOf(local)).toEqual({ a: "theirs", b: "b", ...(commitsHere ? { c: "ours" } : {}) });
      expect(told()).toEqual([expect.stringContaining("has rewritten its history")]);
    });
  });

  it("does not stop later commits on top of what it rewrote", async () => {
    const { local, remote, prepared } = await round("own", {
      setUp,
      act: async (dir) => {
        await write(dir, { a: "amended" });
        await git(dir, "commit", "-q", "--amend", "-am", "amended");
      },
      input,
    });
    await write(remote, { b: "later" });
    await git(remote, "commit", "-qam", "later");
    await write(local, { c: "ours" });
    await git(local, "add", "-A");
    await git(local, "commit", "-qm", "here");
    await prepared.restoreWorkspace();
    const subjects = (await git(local, "log", "--format=%s")).split("\n");
    expect(subjects).toEqual(expect.arrayContaining(["later", "here", "amended", "second", "base"]));
    expect(await git(local, "status", "--porcelain")).toBe("");
    expect(await filesOf(local)).toEqual({ a: "amended", b: "later", c: "ours" });
    // A restore of nothing new adds nothing.
    const log = await git(local, "log", "--format=%H");
    await prepared.restoreWorkspace();
    expect(await git(local, "log", "--format=%H")).toBe(log);
  });

  it("keeps its commits aside if the local repository no longer has what they are based on", async () => {
    const { local, remote } = await round("own", {
      setUp,
      act: async (dir) => {
        await write(dir, { a: "theirs" });
        await git(dir, "commit", "-qam", "there");
      },
      meanwhile: async (dir) => {
        await git(dir, "checkout", "-q", "--orphan", "anew");
        await git(dir, "commit", "-qm", "anew");
        await git(dir, "branch", "-D", "main");
        await git(dir, "reflog", "expire", "--expire=now", "--all");
        await git(dir, "gc", "-q", "--prune=now");
      },
      input,
    });
    expect((await filesOf(local)).a).toBe("theirs");
    const [line, ...more] = told();
    expect(more).toEqual([]);
    const [, bundle] = /commits are refused, .*; what came is at (.*)\n$/.exec(line) ?? [];
    // The sandbox was asked for all that it has.
    const heads = await git(local, "bundle", "list-heads", path.join(local, bundle));
    expect(heads).toContain(await git(remote, "rev-parse", "HEAD"));
  });

  it("rejects if the command that packs its commits fails for a time", async () => {
    let fails = 0;
    const failing = client();
    const { run: runs } = failing;
    failing.run = (command) => {
      if (!command.includes("bundle create") || fails++ > 0) return runs(command);
      throw Object.assign(new Error("the connection was reset"), { retryable: true });
    };
    const { local, prepared } = await round("own", { setUp, input: { ...input, client: failing } }).catch(
      (error) => {
        expect(error.message).toContain("the connection was reset");
        return {};
      },
    );
    expect([local, prepared, fails]).toEqual([undefined, undefined, 1]);
  });

  it.each([
    [
      "lacks a commit",
      async (dir) => {
        const commit = await git(dir, "rev-parse", "HEAD~1");
        await git(dir, "commit", "-q", "--allow-empty", "-m", "later");
        const before = await git(dir, "rev-parse", "HEAD~1");
        expect(commit).not.toBe(before);
        await rm(path.join(dir, ".git/objects", before.slice(0, 2), before.slice(2)));
      },
    ],
    [
      "lacks an object",
      async (dir) => {
        const blob = await git(dir, "rev-parse", "HEAD:c");
        await rm(path.join(dir, ".git/objects", blob.slice(0, 2), blob.slice(2)));
      },
    ],
    [
      "has a commit that git fsck refuses",
      async (dir) => {
        const text = (await git(dir, "cat-file", "commit", "HEAD")).replace(
          /^author .*$/m,
          "author x <x> 1 +1",
        );
        const forged = path.join(dir, ".git/forged");
        await writeFile(forged, text);
        const commit = await git(dir, "hash-object", "-t", "commit", "-w", "--literally", forged);
        await git(dir, "update-ref", "HEAD", commit);
      },
    ],
  ])("restores the files if it %s", async (_what, damage) => {
    const { local, prepared } = await round("own", {
      setUp,
      act: async (dir) => {
        await write(dir, { c: "theirs" });
        await git(dir, "add", "-A");
        await git(dir, "commit", "-qm", "there");
        await damage(dir);
      },
      input,
    });
    expect(await filesOf(local)).toEqual({ a: "a", b: "b", c: "theirs" });
    expect(await git(local, "log", "--format=%s")).toBe("second\nbase");
    expect(told()).toEqual([expect.stringMatching(/commits are refused, .*: (error|fatal): /)]);
    expect(await git(local, "status", "--porcelain")).toBe("?? c");
    await prepared.restoreWorkspace();
    const packs = await readdir(path.join(local, ".git/objects/pack"));
    expect(packs.filter((name) => name.startsWith("tmp_"))).toEqual([]);
  });

  it.each(["plain", "x=y"])(
    "runs no program of the workspace that the local configuration names (filter %s)",
    async (filter) => {
      const dir = path.join(place, String(count + 1));
      const ran = path.join(dir, "ran");
      const programs = [`filter.${filter}.clean`, `filter.${filter}.smudge`, "merge.m.driver"];
      const { local } = await round("own", {
        setUp: async (workspace) => {
          await repository(workspace, {
            a: "a",
            ".gitattributes": `a filter=${filter} merge=m\n`,
            "tool.sh": "#!/bin/sh\ncat\n",
          });
          for (const key of programs) await git(workspace, "config", key, `sh ./tool.sh ${key}`);
        },
        act: async (remote) => {
          await write(remote, { a: "theirs", "tool.sh": `#!/bin/sh\necho "$1" >> '${ran}'\ncat\n` });
          await git(remote, "commit", "-qam", "there");
        },
      });
      await expect(stat(ran)).rejects.toThrow("ENOENT");
      // The program is in the workspace by now.
      expect(await read(local, "tool.sh")).toContain(ran);
      await write(local, { a: "ours" });
      await own.prepareSandboxManagedRuntime({
        spec: {
          transport: "sandbox",
          provider: "test",
          sandboxId: "2",
          remoteCwd: `${dir}/two`,
          timeoutMs: 60_000,
        },
        adapterKey: "test",
        client: client(),
        workspaceLocalDir: local,
      });
      await expect(stat(ran)).rejects.toThrow("ENOENT");
    },
  );

  it("runs no program named git in the workspace", async () => {
    const dir = path.join(place, String(count + 1));
    const ran = path.join(dir, "ran");
    const before = process.env.PATH;
    try {
      await round("own", {
        setUp: async (local) => {
          await setUp(local);
          await write(local, { "node_modules/.bin/git": `#!/bin/sh\ntouch '${ran}'\nexit 1\n` });
          await chmod(path.join(local, "node_modules/.bin/git"), 0o755);
          // As under `npm run`.
          process.env.PATH = `${path.join(local, "node_modules/.bin")}:${before}`;
        },
        act: change({ a: "theirs" }),
        // The sandbox has a PATH of its own.
        input: {
          client: {
            ...client(),
            run: (command) => run("sh", ["-c", command], { env: { ...process.env, PATH: before } }),
          },
        },
      });
    } finally {
      process.env.PATH = before;
    }
    await expect(stat(ran)).rejects.toThrow("ENOENT");
  });
});

describe("the entry without a provider's native functions", () => {
  it("needs only the six methods", async () => {
    const dir = path.join(place, String(++count));
    const [local, remote, asset] = ["local", "remote", "asset"].map((name) => path.join(dir, name));
    await repository(local, { a: "a" });
    await write(asset, { s: "skill" });
    const { syncIn: _, ...six } = client();
    const prepared = await own.prepareSandboxManagedRuntime({
      spec: { transport: "sandbox", provider: "test", sandboxId: "1", remoteCwd: remote, timeoutMs: 60_000 },
      adapterKey: "test",
      client: six,
      workspaceLocalDir: local,
      assets: [{ key: "skills", localDir: asset }],
      additionalSources: [
        { localPath: asset, projectId: "p", ignoreResolution: { kind: "other" } },
        { localPath: path.join(dir, "gone"), projectId: "q", ignoreResolution: { kind: "other" } },
      ],
    });
    expect(await filesOf(prepared.assetDirs.skills)).toEqual({ s: "skill" });
    expect(await read(prepared.additionalSourceDirs.p, "s")).toBe("skill");
    expect(prepared.additionalSourceFailures).toEqual([{ projectId: "q", error: expect.any(String) }]);
    await rename(path.join(remote, "a"), path.join(remote, "b"));
    await prepared.restoreWorkspace();
    expect(await filesOf(local)).toEqual({ b: "a" });
  });

  it("deletes nothing if the sandbox's tar could not read everything", async () => {
    const dir = path.join(place, String(++count));
    const [local, remote, bin] = ["local", "remote", "bin"].map((name) => path.join(dir, name));
    await write(local, { a: "a", b: "b" });
    // A tar that fails after it has packed all but `b`.
    await write(bin, {
      tar: `#!/bin/sh
case "$*" in *-cf*) PATH=$REAL tar "$@" --exclude ./b; exit 2 ;; *) PATH=$REAL exec tar "$@" ;; esac`,
    });
    await chmod(path.join(bin, "tar"), 0o755);
    const env = { ...process.env, REAL: process.env.PATH, PATH: `${bin}:${process.env.PATH}` };
    const prepared = await own.prepareSandboxManagedRuntime({
      spec: { transport: "sandbox", provider: "test", sandboxId: "1", remoteCwd: remote, timeoutMs: 60_000 },
      adapterKey: "test",
      client: { ...client(), run: (command) => run("sh", ["-c", command], { env }) },
      workspaceLocalDir: local,
    });
    await write(remote, { a: "theirs" });
    await prepared.restoreWorkspace();
    expect(await filesOf(local)).toEqual({ a: "theirs", b: "b" });
  });
});
