// Round trips of a workspace, with real shells and real tars in the sandbox.

import { lstat, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { prepareSandboxManagedRuntime } from "../index.js";
import { differences, readTree } from "./support/tree.mjs";
import {
  bytePath,
  describeTree,
  fifo,
  file,
  folder,
  identity,
  link,
  makeTree,
  temporaryFolder,
  watchTemporaryFiles,
} from "./support/folders.mjs";
import { MemorySandbox } from "./support/memory.mjs";
import { commandFolder, LocalSandbox, remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";
import { makeArchive } from "./support/tar.mjs";

const RUNTIME = ".paperclip-runtime";
/** The folder for the sandbox's own files, in a run's folder. */
const OWN = ".paperclip";

let workspace;
let reports;

beforeEach(async () => {
  workspace = path.join(await temporaryFolder(), "workspace");
  await mkdir(workspace);
  reports = [];
});

async function prepare(client, remote, more) {
  return prepareSandboxManagedRuntime({
    spec: specFor(remote),
    adapterKey: "test",
    client,
    workspaceLocalDir: workspace,
    onReport: (report) => void reports.push(report),
    ...more,
  });
}

const withoutRuntime = (root) => readTree(root, { leaveOut: (name) => name === RUNTIME });

/** Asserts that both sides have the same content, apart from our own files. */
async function expectAgreement(remote) {
  expect(differences(await withoutRuntime(workspace), await withoutRuntime(remote))).toStrictEqual([]);
}

/** A sandbox of the plain kind, and where its workspace is. */
async function plainSandbox(options) {
  return { client: new LocalSandbox(options), remote: await remoteWorkspace(options) };
}

/** The backups below `conflicts`, by the path that they were at. */
async function conflicts() {
  const root = path.join(workspace, RUNTIME, "conflicts");
  const times = await readdir(root);
  expect(times).toHaveLength(1);
  expect(times[0]).toMatch(/^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d/);
  return describeTree(path.join(root, times[0]));
}

const COMMANDS = {
  "dash and GNU tar": { sh: "dash", tar: "tar" },
  "bash and bsdtar": { sh: "bash", tar: "bsdtar" },
  "busybox and nothing else": { appletsOf: "busybox" },
  "toybox, with dash for a shell": { appletsOf: "toybox", sh: "dash" },
};
const USERS = {
  "the superuser": {},
  "another user with a closed umask": { unprivileged: true, umask: "077" },
};

const environments = Object.keys(COMMANDS).flatMap((tools) =>
  Object.keys(USERS).map((user) => [tools, user]),
);

describe.each(environments)("in a sandbox with %s, as %s", (tools, user) => {
  let client;
  let remote;

  beforeEach(async () => {
    const commands = await commandFolder(COMMANDS[tools]);
    // If only sh and tar matter, the other tools are this machine's.
    const path = COMMANDS[tools].appletsOf ? commands : `${commands}:${process.env.PATH}`;
    client = new LocalSandbox({ path, ...USERS[user] });
    remote = await remoteWorkspace(USERS[user]);
  });

  it("a workspace is uploaded as it is, and restored as the agent left it", async () => {
    await makeTree(workspace, {
      "a.txt": "a",
      "empty.txt": "",
      "stays.txt": "stays",
      "deleted.txt": "deleted",
      "bin/run": file("#!/bin/sh\n", 0o755),
      "wide-open": file("w", 0o666),
      "private/key": file("secret", 0o600),
      private: folder(0o700),
      "old/deep/er.txt": "old",
      "empty-folder": folder(0o750),
      "becomes-folder": "file",
      "becomes-file/inner": "inner",
      "becomes-link": "file",
      link: link("a.txt"),
      dangling: link("nowhere"),
      " sp ace ": "s",
      "-rf": "option",
      "*": "star",
      "new\nline": "n",
      "back\\slash": "b",
      "it's": "quoted",
      é: "accent",
      [`${"long/".repeat(30)}${"n".repeat(120)}`]: "long",
    });
    await writeFile(bytePath(workspace, "not-utf8-\xff"), "bytes");
    const prepared = await prepare(client, remote);
    await expectAgreement(remote);
    for (const [name, { kind, mode }] of await withoutRuntime(workspace)) {
      if (kind === "dir") expect((await lstat(bytePath(remote, name))).mode & 0o777, name).toBe(mode);
    }

    const stays = await identity(path.join(workspace, "stays.txt"));
    await client.agent(
      `cd '${remote}' && echo more >>a.txt && rm deleted.txt && rm -r old empty-folder && chmod 700 bin/run &&
       rm becomes-folder && mkdir becomes-folder && echo new >becomes-folder/inner &&
       rm -r becomes-file && echo new >becomes-file && rm becomes-link && ln -s stays.txt becomes-link &&
       rm link && ln -s bin link && mkdir -p new/deep && echo new >new/deep/file && ln -s ../.. new/deep/up &&
       chmod 751 private && echo edited >>'new
line' && echo edited >>'it'\\''s' && rm -- -rf && echo edited >'*'`,
    );
    await prepared.restoreWorkspace();

    await expectAgreement(remote);
    expect(await describeTree(workspace)).toMatchObject({ private: "751/", "*": "644 edited\n" });
    // Only what changed was touched, and no file of ours is left.
    expect(await identity(path.join(workspace, "stays.txt"))).toStrictEqual(stays);
    expect(await readdir(workspace)).not.toContain(RUNTIME);
    expect(reports).toMatchObject([{ tolerant: false, conflicts: [], kept: [], skipped: [] }]);
  });

  it("an empty workspace is uploaded, and restored empty or with new files", async () => {
    const prepared = await prepare(client, remote);
    expect((await readdir(remote)).sort()).toStrictEqual([RUNTIME]);
    await prepared.restoreWorkspace();
    expect(await readdir(workspace)).toStrictEqual([]);
    await client.agent(`echo new >'${remote}/.new'`);
    await prepared.restoreWorkspace();
    expect(await readdir(workspace)).toStrictEqual([".new"]);
    await client.agent(`rm '${remote}/.new'`);
    await prepared.restoreWorkspace();
    expect(await readdir(workspace)).toStrictEqual([]);
  });

  it("a workspace that the agent emptied is restored empty", async () => {
    await makeTree(workspace, { "a.txt": "a", "b/c.txt": "c", ".hidden": "h" });
    const prepared = await prepare(client, remote);
    await client.agent(`cd '${remote}' && rm -r a.txt b .hidden`);
    await prepared.restoreWorkspace();
    expect(await readdir(workspace)).toStrictEqual([]);
  });

  it("earlier content is cleared, except preserved names, which are taken literally", async () => {
    const preserved = ["*", "[x]", "keep?", "back\\slash", "it's", "-name", "keep me"];
    const cleared = [
      "star",
      "x",
      "keeps",
      "backslash",
      "back/slash",
      ".hidden",
      "..hidden",
      "keep",
      "new\nline",
    ];
    await client.agent(`mkdir -p '${remote}/${RUNTIME}/other'`);
    await makeTree(remote, Object.fromEntries([...preserved, ...cleared].map((name) => [name, "before"])));
    await client.own(remote);
    await makeTree(workspace, { "a.txt": "a" });
    await prepare(client, remote, { preserveAbsentOnRestore: preserved });
    expect((await readdir(remote)).sort()).toStrictEqual([...preserved, RUNTIME, "a.txt"].sort());
    expect(await readdir(path.join(remote, RUNTIME))).toContain("other");
  });

  it("a preserved directory that would become a file is refused before anything is cleared", async () => {
    await makeTree(remote, { "it's/kept": "theirs", other: "theirs" });
    await client.own(remote);
    await makeTree(workspace, { "it's": "a file", "a.txt": "a" });
    const preserveAbsentOnRestore = ["it's"];
    await expect(prepare(client, remote, { preserveAbsentOnRestore })).rejects.toThrow(
      /it's is preserved and a directory in the sandbox, but none in the workspace; nothing was changed/,
    );
    expect(await readFile(path.join(remote, "it's", "kept"), "utf8")).toBe("theirs");
    expect(await readFile(path.join(remote, "other"), "utf8")).toBe("theirs");
  });

  it("assets are uploaded beside the workspace, and replace earlier ones", async () => {
    const assets = path.join(await temporaryFolder(), "assets");
    await makeTree(assets, {
      "skills/one.md": file("one", 0o600),
      "skills/linked.md": link("../outside.md"),
      "skills/left.log": "log",
      "outside.md": "outside",
      empty: folder(),
    });
    await makeTree(workspace, { "a.txt": "a" });
    const before = path.join(remote, RUNTIME, "test", "skills");
    await client.agent(`mkdir -p '${before}' && echo old >'${before}/old.md'`);
    const { assetDirs } = await prepare(client, remote, {
      assets: [
        { key: "skills", localDir: path.join(assets, "skills"), followSymlinks: true, exclude: ["*.log"] },
        { key: "empty it's", localDir: path.join(assets, "empty") },
      ],
    });
    expect(assetDirs).toStrictEqual({
      skills: before,
      "empty it's": path.join(path.dirname(before), "empty it's"),
    });
    expect(await describeTree(before)).toStrictEqual({ "linked.md": "644 outside", "one.md": "600 one" });
    expect(await readdir(assetDirs["empty it's"])).toStrictEqual([]);
    expect((await readdir(path.dirname(before))).sort()).toStrictEqual([OWN, "empty it's", "skills"]);
  });

  it("what is unreadable in the sandbox stays as it is locally, and nothing is deleted by mistake", async () => {
    await makeTree(workspace, { "a.txt": "a", "b.txt": "b", "secret.txt": "s", "closed/in.txt": "in" });
    const prepared = await prepare(client, remote);
    await client.agent(
      `cd '${remote}' && echo edited >a.txt && rm b.txt && echo edited >secret.txt && chmod 000 secret.txt closed`,
    );
    await prepared.restoreWorkspace();

    const local = await describeTree(workspace, { without: RUNTIME });
    const [report] = reports;
    expect(local).toMatchObject({ "a.txt": "644 edited\n", "closed/in.txt": "644 in" });
    if (USERS[user].unprivileged) {
      expect(local).toMatchObject({ "b.txt": "644 b", "secret.txt": "644 s" });
      expect(report).toMatchObject({ tolerant: true, deleted: [], conflicts: [] });
      const skipped = report.skipped.map(({ path }) => path);
      expect(skipped).toEqual(expect.arrayContaining(["b.txt", "secret.txt"]));
      expect(skipped.some((name) => name.startsWith("closed"))).toBe(true);
      expect(report.tarMessages).toMatch(/secret\.txt/);
    } else {
      // Root may read everything.
      expect(local).not.toHaveProperty("b.txt");
      // Its mode would make the next run of an ordinary user fail.
      expect(local).toMatchObject({ "secret.txt": "644 edited\n" });
      expect(report.tolerant).toBe(false);
    }

    // Once nothing prevents it, the same call restores the rest.
    await client.agent(`cd '${remote}' && chmod 644 secret.txt && chmod 755 closed`);
    await prepared.restoreWorkspace();
    await expectAgreement(remote);
  });
});

describe("the client calls", () => {
  it("have the order, the paths and the options of the TypeScript module", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "a" });
    const root = `${remote}/${RUNTIME}/test`;
    const assets = ["one", "two"].map((key) => ({ key, localDir: workspace }));
    const prepared = await prepare(client, remote, { assets });
    const timed = { timeoutMs: 12_345 };
    const command = expect.stringMatching(/^sh -c '/);

    expect(client.calls).toStrictEqual([
      ["makeDir", root],
      // The archive, followed by the script for the sandbox.
      ["writeFile", `${root}/workspace-upload.tar`, expect.any(Number)],
      ["run", command, timed],
      ["writeFile", `${root}/one-upload.tar`, 2048],
      ["run", command, timed],
      ["writeFile", `${root}/two-upload.tar`, 2048],
      ["run", command, timed],
    ]);
    client.calls.length = 0;
    await prepared.restoreWorkspace();
    expect(client.calls).toStrictEqual([
      ["run", command, timed],
      ["readFile", `${root}/workspace-download.tar`],
      ["remove", `${root}/workspace-download.tar`],
    ]);
    // Archives do not stay there.
    expect((await readdir(root)).sort()).toStrictEqual([OWN, "one", "two"]);
  });

  it.each([
    ["/a/./b//c/", "/a/./b//c/", "/a/b/c/.paperclip-runtime/test"],
    [
      '/it\'s/a $(place) `with` "quotes"',
      undefined,
      '/it\'s/a $(place) `with` "quotes"/.paperclip-runtime/test',
    ],
  ])(
    "name the runtime folder as path.posix.join does: %j",
    async (remoteCwd, workspaceRemoteDir, runtimeRootDir) => {
      const client = new MemorySandbox(undefined);
      const prepared = await prepare(client, remoteCwd, { workspaceRemoteDir });
      expect(prepared).toMatchObject({ workspaceRemoteDir: remoteCwd, runtimeRootDir });
    },
  );

  it("use the spec's current time limit", async () => {
    const { client, remote } = await plainSandbox();
    const spec = specFor(remote);
    const prepared = await prepare(client, remote, { spec });
    spec.timeoutMs = 99;
    await prepared.restoreWorkspace();
    expect(client.calls.filter(([method]) => method === "run").map(([, , options]) => options)).toStrictEqual(
      [{ timeoutMs: 12_345 }, { timeoutMs: 99 }],
    );
  });

  it("work for a workspace path with any characters", async () => {
    const remote = path.join(
      await temporaryFolder(),
      'it\'s a $(place) `with`\n"everything" \\ *',
      "workspace",
    );
    const client = new LocalSandbox();
    await makeTree(workspace, { "a.txt": "a" });
    const prepared = await prepare(client, remote);
    await writeFile(path.join(remote, "a.txt"), "edited");
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({ "a.txt": "644 edited" });
  });

  it("clear nothing if the archive is incomplete", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(remote, { "before.txt": "before" });
    await makeTree(workspace, { "a.txt": "a" });
    const whole = client.writeFile;
    client.writeFile = (at, bytes) => whole.call(client, at, bytes.slice(0, 1024));
    await expect(prepare(client, remote)).rejects.toThrow(/1024 of the archive's \d+ bytes/);
    expect(await describeTree(remote, { without: RUNTIME })).toStrictEqual({ "before.txt": "644 before" });
  });
});

describe("what is excluded", () => {
  it("is neither uploaded, nor restored, nor deleted, at any depth", async () => {
    const { client, remote } = await plainSandbox();
    const excluded = {
      "node_modules/a/index.js": "a",
      "packages/b/node_modules/c/index.js": "c",
      "debug.log": "log",
      "packages/b/debug.log": "log",
      "._apple": "apple",
      "packages/._apple/inner": "apple",
    };
    await makeTree(workspace, { "a.txt": "a", "packages/b/index.js": "b", ...excluded });
    const before = await describeTree(workspace);
    const workspaceExclude = ["node_modules", "*.log"];
    const prepared = await prepare(client, remote, { workspaceExclude });
    expect(Object.keys(await describeTree(remote, { without: RUNTIME }))).toStrictEqual([
      "a.txt",
      "packages",
      "packages/b",
      "packages/b/index.js",
    ]);

    await makeTree(remote, {
      "a.txt": "edited",
      "node_modules/a/index.js": "from the sandbox",
      "node_modules/z/index.js": "from the sandbox",
      "packages/b/node_modules/c/index.js": "from the sandbox",
      "debug.log": "from the sandbox",
      "packages/b/other.log": "from the sandbox",
      "._apple": "from the sandbox",
      "packages/._other": "from the sandbox",
    });
    await rm(path.join(remote, "packages/b/index.js"));
    await prepared.restoreWorkspace();
    const { "packages/b/index.js": _, ...expected } = before;
    expect(await describeTree(workspace)).toStrictEqual({ ...expected, "a.txt": "644 edited" });
  });

  it("keeps a folder that the agent deleted, because it contains files that were not uploaded", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "pkg/index.js": "i", "pkg/node_modules/x/y.js": "y" });
    const prepared = await prepare(client, remote, { workspaceExclude: ["node_modules"] });
    await rm(path.join(remote, "pkg"), { recursive: true });
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({
      pkg: "755/",
      "pkg/node_modules": "755/",
      "pkg/node_modules/x": "755/",
      "pkg/node_modules/x/y.js": "644 y",
    });
  });

  it("stays with its folder if the agent replaced that by a file", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "pkg/index.js": "i", "pkg/node_modules/x.js": "x" });
    const prepared = await prepare(client, remote, { workspaceExclude: ["node_modules"] });
    await rm(path.join(remote, "pkg"), { recursive: true });
    await writeFile(path.join(remote, "pkg"), "a file now");
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({
      pkg: "755/",
      "pkg/index.js": "644 i",
      "pkg/node_modules": "755/",
      "pkg/node_modules/x.js": "644 x",
    });
    expect(reports[0].skipped.map((skipped) => skipped.path)).toStrictEqual(["pkg"]);
  });

  it("includes the runtime folder of the workspace, and no other of that name", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { [`${RUNTIME}/mine/state`]: "local", [`sub/${RUNTIME}/file`]: "travels" });
    const prepared = await prepare(client, remote);
    expect((await readdir(path.join(remote, RUNTIME))).sort()).toStrictEqual([".gitignore", "test"]);
    await writeFile(path.join(remote, RUNTIME, "test", "from-agent"), "x");
    await writeFile(path.join(remote, "sub", RUNTIME, "file"), "edited");
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toMatchObject({
      [`${RUNTIME}/mine/state`]: "644 local",
      [`sub/${RUNTIME}/file`]: "644 edited",
    });
    expect((await readdir(path.join(workspace, RUNTIME))).sort()).toStrictEqual([".gitignore", "mine"]);
  });
});

describe("what is preserved", () => {
  it("is neither changed nor deleted locally, whatever the sandbox did", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, {
      "keep/one": "1",
      "keep/two": "2",
      "deep/keep/three": "3",
      "deep/go": "4",
      "a*b": "5",
      axb: "6",
    });
    const preserveAbsentOnRestore = ["keep", "deep/keep", "a*b"];
    const prepared = await prepare(client, remote, { preserveAbsentOnRestore });
    await client.agent(
      `cd '${remote}' && rm -r keep/one deep 'a*b' axb && echo new >keep/two && echo new >keep/new`,
    );
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({
      "a*b": "644 5",
      deep: "755/",
      "deep/keep": "755/",
      "deep/keep/three": "644 3",
      keep: "755/",
      "keep/one": "644 1",
      "keep/two": "644 2",
    });
  });
});

describe("local edits during the run", () => {
  it("are never lost: what the sandbox replaces is backed up, ignored by git", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, {
      "both.txt": "base",
      "only-here.txt": "base",
      "only-there.txt": "base",
      "same-edit.txt": "base",
      "deleted-there.txt": "base",
      "deleted-here.txt": "base",
      "run.sh": file("base", 0o644),
      "dir/file.txt": "base",
    });
    const prepared = await prepare(client, remote);
    await client.agent(
      `cd '${remote}' && echo theirs >both.txt && echo theirs >only-there.txt && echo same >same-edit.txt &&
       rm deleted-there.txt && echo theirs >deleted-here.txt && chmod 755 run.sh && rm -r dir && echo theirs >dir &&
       echo theirs >new.txt`,
    );
    await makeTree(workspace, {
      "both.txt": "ours",
      "only-here.txt": "ours",
      "same-edit.txt": "same\n",
      "deleted-there.txt": "ours",
      "run.sh": "ours",
      "dir/mine.txt": "ours",
      "new.txt": "ours",
    });
    await rm(path.join(workspace, "deleted-here.txt"));
    await prepared.restoreWorkspace();

    expect(await describeTree(workspace, { without: RUNTIME })).toStrictEqual({
      "both.txt": "644 theirs\n",
      "deleted-here.txt": "644 theirs\n",
      "deleted-there.txt": "644 ours",
      dir: "644 theirs\n",
      "new.txt": "644 theirs\n",
      "only-here.txt": "644 ours",
      "only-there.txt": "644 theirs\n",
      "run.sh": "755 ours",
      "same-edit.txt": "644 same\n",
    });
    expect(await conflicts()).toMatchObject({
      "both.txt": "644 ours",
      "dir/mine.txt": "644 ours",
      "new.txt": "644 ours",
    });
    expect(await readFile(path.join(workspace, RUNTIME, ".gitignore"), "utf8")).toBe("*\n");
    const [report] = reports;
    expect(report.conflicts.map((conflict) => conflict.path).sort()).toStrictEqual([
      "both.txt",
      "dir",
      "new.txt",
    ]);
    for (const { keptAt } of report.conflicts) await lstat(path.join(workspace, keptAt));
    expect(report.kept).toStrictEqual(["deleted-there.txt"]);
  });

  it("in the place of a folder with changes from the sandbox are backed up", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "folder/file": "base", "other/file": "base" });
    const outside = await makeTree(path.join(await temporaryFolder(), "outside"), { file: "outside" });
    const prepared = await prepare(client, remote);
    await client.agent(`cd '${remote}' && echo theirs >folder/file && echo theirs >other/new`);
    for (const name of ["folder", "other"]) await rm(path.join(workspace, name), { recursive: true });
    await makeTree(workspace, { folder: "a file now", other: link(outside) });
    await prepared.restoreWorkspace();

    expect(await describeTree(workspace, { without: RUNTIME })).toStrictEqual({
      folder: "755/",
      "folder/file": "644 theirs\n",
      other: "755/",
      "other/new": "644 theirs\n",
    });
    expect(await conflicts()).toStrictEqual({ folder: "644 a file now", other: `-> ${outside}` });
    expect(await describeTree(outside)).toStrictEqual({ file: "644 outside" });
  });
});

describe("another restore", () => {
  it("restores what changed since the first, and keeps local edits made in between", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "1", "b.txt": "1", "c.txt": "1" });
    const prepared = await prepare(client, remote);
    await client.agent(`cd '${remote}' && echo 2 >a.txt && echo 2 >b.txt`);
    await prepared.restoreWorkspace();
    await makeTree(workspace, { "a.txt": "mine", "c.txt": "mine" });
    await client.agent(`cd '${remote}' && echo 3 >b.txt && echo 3 >new.txt`);
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({
      "a.txt": "644 mine",
      "b.txt": "644 3\n",
      "c.txt": "644 mine",
      "new.txt": "644 3\n",
    });
    await client.agent(`cd '${remote}' && rm new.txt a.txt`);
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({
      "a.txt": "644 mine",
      "b.txt": "644 3\n",
      "c.txt": "644 mine",
    });
    expect(reports.map(({ written, deleted, kept }) => ({ written, deleted, kept }))).toStrictEqual([
      { written: ["a.txt", "b.txt"], deleted: [], kept: [] },
      { written: ["b.txt", "new.txt"], deleted: [], kept: [] },
      { written: [], deleted: ["new.txt"], kept: ["a.txt"] },
    ]);
  });

  it("completes what a failed one did not do", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "1", "b.txt": "1" });
    const prepared = await prepare(client, remote);
    await client.agent(`cd '${remote}' && echo 2 >a.txt && rm b.txt && echo 2 >c.txt`);
    const before = await readTree(workspace);
    const whole = client.readFile;
    const cut = (length) => async (at) => (await whole.call(client, at)).subarray(0, length);
    for (const broken of [
      () => Promise.reject(new Error("lost connection")),
      cut(0),
      cut(512),
      cut(1536),
      () => Buffer.alloc(1024),
      () => Buffer.alloc(4096, "x"),
    ]) {
      client.readFile = broken;
      await expect(prepared.restoreWorkspace()).rejects.toThrow();
      expect(differences(before, await readTree(workspace), { exact: true })).toStrictEqual([]);
    }
    client.readFile = whole;
    await prepared.restoreWorkspace();
    await expectAgreement(remote);
  });

  it("may start at the same time: they run one after another", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "1" });
    const prepared = await prepare(client, remote);
    await client.agent(`cd '${remote}' && echo 2 >a.txt && echo 2 >b.txt`);
    await Promise.all([
      prepared.restoreWorkspace(),
      prepared.restoreWorkspace(),
      prepared.restoreWorkspace(),
    ]);
    await expectAgreement(remote);
    expect(reports.map(({ written }) => written.length)).toStrictEqual([2, 0, 0]);
  });
});

describe("several sandboxes for one workspace", () => {
  it("may be restored at the same time: all changes arrive, and no local edit is lost", async () => {
    const count = 8;
    await makeTree(workspace, { "shared.txt": "base", "untouched.txt": "base" });
    const runs = await Promise.all(
      Array.from({ length: count }, async (_, at) => {
        const { client, remote } = await plainSandbox();
        const prepared = await prepare(client, remote);
        await makeTree(remote, { [`own-${at}/file`]: `${at}`, "shared.txt": `version ${at}` });
        return prepared;
      }),
    );
    await Promise.all(runs.map((prepared) => prepared.restoreWorkspace()));
    const local = await describeTree(workspace, { without: RUNTIME });
    for (let at = 0; at < count; at++) expect(local[`own-${at}/file`]).toBe(`644 ${at}`);
    expect(local["untouched.txt"]).toBe("644 base");

    const kept = path.join(workspace, RUNTIME, "conflicts");
    const versions = [local["shared.txt"]];
    for (const time of await readdir(kept)) {
      for (const name of await readdir(path.join(kept, time))) {
        versions.push(`644 ${await readFile(path.join(kept, time, name), "utf8")}`);
      }
    }
    expect(versions.sort()).toStrictEqual(Array.from({ length: count }, (_, at) => `644 version ${at}`));
  });
});

describe("if the sandbox's tar fails", () => {
  it("once, a second attempt is made, and nothing is missing", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "a", "b.txt": "b" });
    const prepared = await prepare(client, remote);
    await client.agent(`cd '${remote}' && echo edited >a.txt && rm b.txt`);
    client.calls.length = 0;
    const whole = client.run;
    client.run = async () => {
      client.run = whole;
      throw new Error("a file vanished");
    };
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({ "a.txt": "644 edited\n" });
    expect(
      client.calls.map(([method, at]) => (method === "run" ? method : `${method} ${path.basename(at)}`)),
    ).toStrictEqual([
      "run",
      "readFile workspace-download.status",
      "remove workspace-download.status",
      "readFile workspace-download.tar",
      "remove workspace-download.tar",
    ]);
    expect(reports[0].deleted).toStrictEqual(["b.txt"]);
  });

  it("twice, the first failure is reported, and nothing is changed", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "a" });
    const prepared = await prepare(client, remote);
    const failures = ["first", "second"];
    client.run = () => Promise.reject(failures.shift());
    await expect(prepared.restoreWorkspace()).rejects.toBe("first");
    expect(failures).toStrictEqual([]);
    expect(await describeTree(workspace)).toStrictEqual({ "a.txt": "644 a" });
  });

  it("because the workspace is gone in the sandbox, nothing is deleted locally", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "a" });
    const prepared = await prepare(client, remote);
    await rm(remote, { recursive: true });
    await expect(prepared.restoreWorkspace()).rejects.toThrow();
    expect(await describeTree(workspace)).toStrictEqual({ "a.txt": "644 a" });
  });
});

describe("what is restored without privileges", () => {
  it("are files with setuid, setgid or sticky bits", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "a" });
    const prepared = await prepare(client, remote);
    await makeTree(remote, { setuid: file("s", 0o4755), setgid: file("g", 0o2755), sticky: folder(0o1777) });
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({
      "a.txt": "644 a",
      setgid: "755 g",
      setuid: "755 s",
      sticky: "777/",
    });
  });

  it("are owners: all files belong to the restoring user", async () => {
    const { client, remote } = await plainSandbox({ unprivileged: true });
    await makeTree(workspace, { "a.txt": "a" });
    const prepared = await prepare(client, remote);
    await client.agent(`cd '${remote}' && echo edited >a.txt && mkdir sub && echo new >sub/new.txt`);
    await prepared.restoreWorkspace();
    for (const name of ["a.txt", "sub", "sub/new.txt"]) {
      expect(await lstat(path.join(workspace, name))).toMatchObject({
        uid: process.getuid(),
        gid: process.getgid(),
      });
    }
  });
});

describe("devices and FIFOs", () => {
  it("in the sandbox are skipped, and the uploaded entry stays locally", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "a", "b/c.txt": "c" });
    const prepared = await prepare(client, remote);
    await client.agent(`cd '${remote}' && rm -r a.txt b && mkfifo a.txt b new-pipe`);
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({ "a.txt": "644 a", b: "755/", "b/c.txt": "644 c" });
    expect(reports[0].skipped.map((skipped) => skipped.path)).toStrictEqual(["a.txt", "b", "new-pipe"]);
  });

  it.each([
    ["character device", "3"],
    ["block device", "4"],
    ["FIFO", "6"],
  ])("in an archive are skipped: a %s", async (_, type) => {
    await makeTree(workspace, { "a.txt": "a" });
    const download = makeArchive([
      { name: "a.txt", content: "edited" },
      { name: "special", type },
    ]);
    const prepared = await prepare(new MemorySandbox(download), "/remote");
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({ "a.txt": "644 edited" });
    expect(reports[0].skipped).toStrictEqual([
      { path: "special", reason: expect.stringMatching(/device|FIFO/) },
    ]);
  });

  it("in the workspace are not uploaded, never opened, and stay", async () => {
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "a", pipe: fifo() });
    const prepared = await prepare(client, remote);
    expect(await readdir(remote)).not.toContain("pipe");
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace)).toStrictEqual({ "a.txt": "644 a", pipe: "other" });
  });
});

describe("a download that leads out of the workspace", () => {
  const evil = {
    "an absolute name": [{ name: "/evil", content: "x" }],
    "a name that climbs": [{ name: "../evil", content: "x" }],
    "a name that climbs inside": [{ name: "a/../../evil", content: "x" }],
    "an empty name": [{ name: "", content: "x" }],
    "a hard link to outside": [{ name: "evil", type: "1", linkName: "/etc/passwd" }],
    "a hard link to what comes later": [
      { name: "evil", type: "1", linkName: "later" },
      { name: "later", content: "x" },
    ],
    "an unknown type": [{ name: "evil", type: "Z" }],
  };

  it.each(Object.entries(evil))("by %s is refused, and nothing is changed", async (_, entries) => {
    const temporary = await watchTemporaryFiles();
    await makeTree(workspace, { "a.txt": "a" });
    const before = await readTree(path.dirname(workspace));
    const download = makeArchive([{ name: "a.txt", content: "edited" }, ...entries]);
    const prepared = await prepare(new MemorySandbox(download), "/remote");
    await expect(prepared.restoreWorkspace()).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_SANDBOX_(ARCHIVE_INVALID|UNSAFE_PATH)$/),
      offset: expect.any(Number),
    });
    expect(differences(before, await readTree(path.dirname(workspace)), { exact: true })).toStrictEqual([]);
    expect(await temporary()).toStrictEqual([]);
  });

  it("by a link with a file below it never writes through the link", async () => {
    const outside = await makeTree(path.join(await temporaryFolder(), "outside"), { file: "outside" });
    await makeTree(workspace, { "a.txt": "a" });
    const download = makeArchive([
      { name: "a.txt", content: "a" },
      { name: "link", type: "2", linkName: outside },
      { name: "link/file", content: "evil" },
    ]);
    const prepared = await prepare(new MemorySandbox(download), "/remote");
    await prepared.restoreWorkspace().catch(() => {});
    expect(await describeTree(outside)).toStrictEqual({ file: "644 outside" });
  });
});

describe("temporary files", () => {
  it("are not left, neither in the workspace nor in the system's temporary folder", async () => {
    const temporary = await watchTemporaryFiles();
    const { client, remote } = await plainSandbox();
    await makeTree(workspace, { "a.txt": "a" });
    const already = (await temporary()).length;
    const prepared = await prepare(client, remote, { assets: [{ key: "k", localDir: workspace }] });
    await client.agent(`cd '${remote}' && echo edited >a.txt`);
    await prepared.restoreWorkspace();
    expect((await temporary()).length).toBe(already);
    expect(await readdir(path.dirname(workspace))).toStrictEqual(["workspace"]);
    expect(await readdir(workspace)).toStrictEqual(["a.txt"]);
  });
});
