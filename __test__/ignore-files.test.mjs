// Ignore files such as `.gitignore`, which exclude more if a caller names them.

import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createLocalClient } from "../clients/local.js";
import {
  createTarballFromDirectory,
  prepareSandboxManagedRuntime,
  resumeSandboxManagedRuntime,
} from "../index.js";
import { describeTree, makeTree } from "./support/folders.mjs";
import { callUnprivileged } from "./support/processes.mjs";
import { specFor } from "./support/spec.mjs";
import { readArchive } from "./support/tar.mjs";

const RUNTIME = ".paperclip-runtime";
const ignoreFiles = [".gitignore", ".dockerignore"];

let root, workspace, remote, reports;

beforeEach(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), "ignore-files-"));
  [workspace, remote] = ["here", "there"].map((name) => path.join(root, name));
  process.env.PAPERCLIP_HOME = path.join(root, "kept");
  await mkdir(workspace);
  reports = [];
});

afterEach(() => rm(root, { recursive: true, force: true }));

const input = (more) => ({
  spec: specFor(remote),
  adapterKey: "test",
  client: createLocalClient(),
  workspaceLocalDir: workspace,
  ignoreFiles,
  onPrepareReport: (report) => void reports.push(report),
  ...more,
});

const uploaded = async () => Object.keys(await describeTree(remote, { without: RUNTIME }));

const TREE = {
  ".gitignore": "node_modules/\n*.log\n!keep.log\nnever-there\n",
  ".dockerignore": "secret\n",
  "src/.gitignore": "/gen\n",
  "src/gen/a.js": "generated",
  "src/deep/gen": "kept",
  "src/a.js": "a",
  "src/keep.log": "kept",
  "src/drop.log": "dropped",
  "node_modules/x/index.js": "x",
  "src/node_modules/y/index.js": "y",
  secret: "secret",
  "src/secret": "no secret",
};

describe("what ignore files match", () => {
  it("is neither uploaded, nor brought back, nor changed or deleted locally", async () => {
    await makeTree(workspace, TREE);
    const before = await describeTree(workspace);
    const { restoreWorkspace } = await prepareSandboxManagedRuntime(input());
    expect(await uploaded()).toStrictEqual(
      [
        ".dockerignore",
        ".gitignore",
        "src",
        "src/.gitignore",
        "src/a.js",
        "src/deep",
        "src/deep/gen",
        "src/keep.log",
        "src/secret",
      ].toSorted(),
    );

    await makeTree(remote, {
      "node_modules/x/index.js": "theirs",
      "node_modules/new.js": "theirs",
      "src/gen/b.js": "theirs",
      "src/drop.log": "theirs",
      secret: "theirs",
      "src/a.js": "theirs",
    });
    // What the file says now does not count for this restore.
    await writeFile(path.join(remote, ".gitignore"), "src/a.js\n");
    await restoreWorkspace();
    expect(await describeTree(workspace, { without: RUNTIME })).toStrictEqual({
      ...before,
      ".gitignore": "644 src/a.js\n",
      "src/a.js": "644 theirs",
    });
  });

  it("is known to a restore that another process resumes", async () => {
    await makeTree(workspace, TREE);
    await prepareSandboxManagedRuntime(input());
    await makeTree(remote, { "src/gen/b.js": "theirs", "src/deep/gen": "theirs" });
    await rm(path.join(workspace, ".gitignore"));
    await rm(path.join(workspace, "src/.gitignore"));
    const before = await describeTree(workspace);
    // Like a caller that does not know which files were named.
    const { restoreWorkspace } = await resumeSandboxManagedRuntime(input({ ignoreFiles: undefined }));
    await restoreWorkspace();
    expect(await describeTree(workspace, { without: RUNTIME })).toStrictEqual({
      ...before,
      "src/deep/gen": "644 theirs",
    });
  });

  it("is reported, and so is a line that matches nothing", async () => {
    await makeTree(workspace, TREE);
    await prepareSandboxManagedRuntime(input({ workspaceExclude: ["src/deep", "nowhere", "*.tmp"] }));
    const [{ leftOut, unmatchedExcludes, unmatchedExcludesCount }] = reports[0].archives;
    expect(leftOut.map((left) => left.path)).toStrictEqual([
      "node_modules",
      "secret",
      "src/deep",
      "src/drop.log",
      "src/gen",
      "src/node_modules",
    ]);
    expect(leftOut[0].reason).toBe("an ignore file excludes it");
    expect(leftOut[2].reason).toBe("a pattern excludes it");
    expect(unmatchedExcludes).toStrictEqual([
      { pattern: "nowhere" },
      { pattern: "*.tmp" },
      { pattern: "never-there", file: ".gitignore", line: 4 },
    ]);
    expect(unmatchedExcludesCount).toBe(3);
  });

  it("is never git's own folder, and nothing if no file is named", async () => {
    await makeTree(workspace, { ".gitignore": "*\n!a\n", a: "a", b: "b", ".git/HEAD": "no repository" });
    await prepareSandboxManagedRuntime(input({ git: "files" }));
    expect(await uploaded()).toStrictEqual([".git", ".git/HEAD", "a"]);
    await prepareSandboxManagedRuntime(input({ git: "files", ignoreFiles: undefined }));
    expect(await uploaded()).toStrictEqual([".git", ".git/HEAD", ".gitignore", "a", "b"]);
  });

  it("is not archived, also not through links", async () => {
    await makeTree(workspace, TREE);
    await mkdir(path.join(root, "elsewhere"));
    await writeFile(path.join(root, "elsewhere/a.log"), "");
    await symlink(path.join(root, "elsewhere"), path.join(workspace, "link"));
    await symlink(path.join(root, "elsewhere"), path.join(workspace, "src/node_modules2"));
    await writeFile(path.join(workspace, "src/.gitignore"), "node_modules2/\n");
    const archivePath = path.join(root, "archive.tar");
    const names = async (more) => {
      await createTarballFromDirectory({ localDir: workspace, archivePath, ignoreFiles, ...more });
      return readArchive(await readFile(archivePath)).entries.map((entry) => entry.name.replace(/\/$/u, ""));
    };
    // To git a link is not a directory. A link that is followed counts as its target.
    expect(await names({})).toContain("src/node_modules2");
    const followed = await names({ followSymlinks: true });
    expect(followed).toContain("link");
    expect(followed).not.toContain("link/a.log");
    expect(followed).not.toContain("src/node_modules2");
    expect(followed).not.toContain("node_modules");
  });
});

describe("an ignore file", () => {
  it("that is a link is not followed, and one that cannot be read is named in the error", async () => {
    await makeTree(workspace, { a: "a", "b/.gitignore": "a" });
    await symlink("b/.gitignore", path.join(workspace, ".gitignore"));
    const archivePath = path.join(root, "out/archive.tar");
    await mkdir(path.join(root, "out"), { mode: 0o777 });
    const archive = { localDir: workspace, archivePath, ignoreFiles };
    await createTarballFromDirectory(archive);
    expect(readArchive(await readFile(archivePath)).entries.map((entry) => entry.name)).toContain("a");
    await rm(archivePath);

    for (const open of [root, workspace, path.join(workspace, "b"), path.join(root, "out")])
      await chmod(open, 0o777);
    await chmod(path.join(workspace, "b/.gitignore"), 0);
    const { error } = await callUnprivileged("createTarballFromDirectory", archive);
    expect(error).toMatchObject({ code: "EACCES", path: path.join(workspace, "b/.gitignore") });
  });

  it("is refused by name if it is too large or not UTF-8, before the client is called", async () => {
    for (const [content, complaint] of [
      [Buffer.alloc(1_048_577, "a"), "larger than 1 MiB"],
      [Buffer.from([0x61, 0xff]), "line 1 is not UTF-8"],
    ]) {
      await writeFile(path.join(workspace, ".gitignore"), content);
      const client = new Proxy(createLocalClient(), {
        get: (target, name) =>
          typeof target[name] === "function" ? () => expect.fail(`${String(name)} was called`) : target[name],
      });
      await expect(prepareSandboxManagedRuntime(input({ client }))).rejects.toMatchObject({
        code: "ERR_INVALID_ARG_VALUE",
        message: expect.stringContaining(complaint),
      });
    }
  });

  it("is given by its name, without a folder", async () => {
    for (const name of ["", ".", "a/.gitignore", "/etc/passwd", ".."]) {
      const refused = prepareSandboxManagedRuntime(input({ ignoreFiles: [name] }));
      await expect(refused).rejects.toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
    }
    const refused = prepareSandboxManagedRuntime(input({ ignoreFiles: ".gitignore" }));
    await expect(refused).rejects.toMatchObject({ code: "ERR_INVALID_ARG_TYPE" });
  });
});
