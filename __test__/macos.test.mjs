// Specifics of macOS, as far as they can be tested on any system: the Finder's files, temporary folders
// behind a link, and extended attributes. On a volume that treats `Foo` and `foo` as one name, also name
// collisions.

import { link, lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import {
  captureDirectorySnapshot,
  createTarballFromDirectory,
  mirrorDirectory,
  prepareSandboxManagedRuntime,
} from "../index.js";
import { describeTree, makeTree, temporaryFolder } from "./support/folders.mjs";
import { succeed } from "./support/processes.mjs";
import { MemorySandbox } from "./support/memory.mjs";
import { LocalSandbox, remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";
import { makeArchive, readArchive } from "./support/tar.mjs";

const RUNTIME = ".paperclip-runtime";

/** The names in an archive. */
const namesIn = async (archive) => readArchive(await readFile(archive)).entries.map(({ name }) => name);

async function prepare(workspace) {
  const client = new LocalSandbox();
  const remote = await remoteWorkspace();
  const input = { spec: specFor(remote), adapterKey: "test", client, workspaceLocalDir: workspace };
  return { client, remote, prepared: await prepareSandboxManagedRuntime(input) };
}

/** Whether the volume of temporary folders treats both names as one. */
async function fallsTogether(name, other) {
  const folder = await mkdtemp(path.join(os.tmpdir(), "folding-"));
  try {
    await writeFile(path.join(folder, name), "");
    return await lstat(path.join(folder, other)).then(
      () => true,
      () => false,
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe("a .DS_Store", () => {
  it("is uploaded and restored like any file", async () => {
    const workspace = await makeTree(path.join(await temporaryFolder(), "workspace"), {
      ".DS_Store": "Bud1",
      "src/.DS_Store": "Bud1 too",
    });
    const { client, remote, prepared } = await prepare(workspace);
    expect(await describeTree(remote, { without: RUNTIME })).toEqual({
      ".DS_Store": "644 Bud1",
      src: "755/",
      "src/.DS_Store": "644 Bud1 too",
    });
    await client.agent(
      `cd ${remote} && printf changed > .DS_Store && rm src/.DS_Store && printf new > src/new`,
    );
    await prepared.restoreWorkspace();
    expect(await describeTree(workspace, { without: RUNTIME })).toEqual({
      ".DS_Store": "644 changed",
      src: "755/",
      "src/new": "644 new",
    });
  });

  it("is in archives, snapshots and mirrors, unlike AppleDouble files", async () => {
    const home = await temporaryFolder();
    const source = await makeTree(path.join(home, "source"), { ".DS_Store": "Bud1", "._a": "companion" });
    await createTarballFromDirectory({ localDir: source, archivePath: path.join(home, "a.tar") });
    expect(await namesIn(path.join(home, "a.tar"))).toEqual([".DS_Store"]);
    const { entries } = await captureDirectorySnapshot(source);
    expect([...entries.keys()]).toContain(".DS_Store");
    await mirrorDirectory(source, path.join(home, "mirror"));
    expect(await describeTree(path.join(home, "mirror"))).toHaveProperty([".DS_Store"], "644 Bud1");
  });
});

// On a Mac, os.tmpdir() is below /var, which is a link to /private/var.
describe("a folder whose path leads through a link", () => {
  async function linked() {
    const home = await temporaryFolder();
    await makeTree(path.join(home, "private", "var", "workspace"), { file: "here" });
    await symlink("private/var", path.join(home, "var"));
    return { given: path.join(home, "var"), real: path.join(home, "private", "var") };
  }

  it("is uploaded and restored as a workspace", async () => {
    const { given, real } = await linked();
    const { client, remote, prepared } = await prepare(path.join(given, "workspace"));
    await client.agent(`cd ${remote} && printf changed > file && printf new > new`);
    await prepared.restoreWorkspace();
    const tree = await describeTree(path.join(real, "workspace"), { without: RUNTIME });
    expect(tree).toEqual({ file: "644 changed", new: "644 new" });
  });

  it("is archived, and may contain archives", async () => {
    const { given, real } = await linked();
    const archivePath = path.join(given, "workspace", "a.tar");
    await createTarballFromDirectory({ localDir: path.join(given, "workspace"), archivePath });
    expect(await namesIn(path.join(real, "workspace", "a.tar"))).toEqual(["file"]);
  });

  it("does not archive its archive by the other path", async () => {
    const { given, real } = await linked();
    const archivePath = path.join(given, "workspace", "a.tar");
    await writeFile(archivePath, "of the last time");
    await createTarballFromDirectory({ localDir: path.join(real, "workspace"), archivePath });
    expect(await namesIn(archivePath)).toEqual(["file"]);
  });

  it("is mirrored from and to, and recognized as one folder by either path", async () => {
    const { given, real } = await linked();
    await mirrorDirectory(path.join(given, "workspace"), path.join(given, "mirror"));
    expect(await describeTree(path.join(real, "mirror"))).toEqual({ file: "644 here" });
    const itself = mirrorDirectory(path.join(given, "workspace"), path.join(real, "workspace"));
    await expect(itself).rejects.toThrow("it is the source directory itself");
    const inside = mirrorDirectory(path.join(real, "workspace"), path.join(given, "workspace", "inside"));
    await expect(inside).rejects.toThrow("it lies inside the source directory");
  });
});

describe("extended attributes", () => {
  const isMac = process.platform === "darwin";

  /** The names of a file's attributes; on Linux, those that GNU tar would archive. */
  async function attributes(file) {
    if (isMac) return (await succeed("xattr", [file])).split("\n").filter((name) => name.startsWith("user."));
    const words = ["--xattrs", "--format=posix", "-cf", "-", "-C", path.dirname(file), path.basename(file)];
    const archive = await succeed("tar", words);
    return [...archive.matchAll(/SCHILY\.xattr\.(user\.[^=]*)=/g)].map(([, name]) => name);
  }

  /** Gives a file an attribute; on Linux, by extracting an archive of GNU tar that contains it. */
  async function mark(file) {
    if (isMac) return succeed("xattr", ["-w", "user.origin", "web", file]);
    const archive = `${file}.tar`;
    const place = ["-C", path.dirname(file)];
    const words = ["--format=posix", "--pax-option=SCHILY.xattr.user.origin:=web", "-cf", archive];
    await succeed("tar", [...words, ...place, path.basename(file)]);
    await succeed("tar", ["--xattrs", "-xf", archive, ...place]);
    await rm(archive);
  }

  /** A folder with a file that has an extended attribute. */
  async function marked() {
    const source = await makeTree(path.join(await temporaryFolder(), "source"), { file: "content" });
    await mark(path.join(source, "file"));
    expect(await attributes(path.join(source, "file"))).toEqual(["user.origin"]);
    return source;
  }

  it("are in no archive", async () => {
    const source = await marked();
    await createTarballFromDirectory({ localDir: source, archivePath: `${source}.tar` });
    expect((await readFile(`${source}.tar`)).includes("xattr")).toBe(false);
  });

  it("are on no copy", async () => {
    const source = await marked();
    await mirrorDirectory(source, `${source}-mirror`);
    expect(await readFile(path.join(`${source}-mirror`, "file"), "utf8")).toBe("content");
    expect(await attributes(path.join(`${source}-mirror`, "file"))).toEqual([]);
  });

  it("stay with a version that is backed up", async () => {
    const workspace = await marked();
    const { client, remote, prepared } = await prepare(workspace);
    await client.agent(`printf changed > ${remote}/file`);
    await prepared.restoreWorkspace();
    expect(await attributes(path.join(workspace, "file"))).toEqual([]);
  });
});

// The usual volumes of macOS treat such names as one. Elsewhere, TMPDIR can name a folder on a volume that
// does.
if (await fallsTogether("Foo", "foo")) {
  describe("two names that collide", () => {
    let report;

    /** The content of a workspace after a restore, by names folded as the volume does. */
    async function restored(uploaded, downloaded, edits = {}) {
      const workspace = await makeTree(path.join(await temporaryFolder(), "workspace"), uploaded);
      return restoredInto(workspace, [downloaded], () => makeTree(workspace, edits));
    }

    /** The same after several restores of one run, and after `edit` before the first. */
    async function restoredInto(workspace, downloads, edit = async () => {}) {
      const client = new MemorySandbox(undefined, { marked: true });
      const prepared = await prepareSandboxManagedRuntime({
        spec: specFor("/sandbox/workspace"),
        adapterKey: "test",
        client,
        workspaceLocalDir: workspace,
        onReport: (got) => (report = got),
      });
      await edit();
      for (const downloaded of downloads) {
        const entries = Object.entries(downloaded).map(([name, content]) => ({ name, content }));
        client.download = makeArchive(entries);
        await prepared.restoreWorkspace();
      }
      const tree = Object.entries(await describeTree(workspace, { without: RUNTIME }));
      const kept = await Promise.all(
        report.conflicts.map(async ({ path: name, keptAt }) => {
          const kept = path.join(workspace, keptAt);
          const isFolder = (await lstat(kept)).isDirectory();
          return [`kept of ${name}`, await (isFolder ? describeTree(kept) : readFile(kept, "utf8"))];
        }),
      );
      return Object.fromEntries([...tree.map(([name, value]) => [folded(name), value]), ...kept]);
    }

    const folded = (name) => name.normalize("NFC").toLowerCase();

    describe("of which one was never uploaded", () => {
      /** A workspace after restores, in which something is excluded or preserved. */
      async function withLeftAlone(here, left, downloads) {
        const workspace = await makeTree(path.join(await temporaryFolder(), "workspace"), here);
        const client = new MemorySandbox(undefined, { marked: true });
        const reports = [];
        const prepared = await prepareSandboxManagedRuntime({
          spec: specFor("/sandbox/workspace"),
          adapterKey: "test",
          client,
          workspaceLocalDir: workspace,
          onReport: (got) => void reports.push(got),
          ...left,
        });
        for (const entries of downloads) {
          client.download = makeArchive(entries);
          await prepared.restoreWorkspace();
        }
        const tree = await describeTree(workspace, { without: RUNTIME });
        const skipped = reports.map((got) => got.skipped.map(({ path: name }) => name));
        return { tree, skipped, conflicts: reports.flatMap((got) => got.conflicts) };
      }

      const file = (name, content = "theirs") => ({ name, content });
      const [preserved, excluded] = ["preserveAbsentOnRestore", "workspaceExclude"];
      const rows = [
        ["a preserved file", { ".env": "s" }, { [preserved]: [".env"] }, [".ENV"], [".ENV"]],
        ["an excluded file", { "x.log": "s" }, { [excluded]: ["*.log"] }, ["X.LOG"], ["X.LOG"]],
        ["a folder", { "cache/x": "s" }, { [preserved]: ["cache"] }, ["Cache/x", "Cache/new"], ["Cache"]],
        ["a folder, by a file", { "cache/x": "s" }, { [excluded]: ["cache"] }, ["CACHE"], ["CACHE"]],
        ["a file deep down", { "a/b/.env": "s" }, { [preserved]: ["a/b/.env"] }, ["A/B/.Env"], ["A/B/.Env"]],
        [
          "a letter written otherwise",
          { "caf\u00e9": "s" },
          { [preserved]: ["caf\u00e9"] },
          ["cafe\u0301"],
          ["cafe\u0301"],
        ],
        [
          "letters that are no ASCII",
          { "\u00e9.LOG": "s" },
          { [excluded]: ["*.LOG"] },
          ["\u00c9.log"],
          ["\u00c9.log"],
        ],
      ];
      it.each(rows)("leave it as it is: %s", async (_, here, left, names, skipped) => {
        const workspace = { ...here, other: "1" };
        const untouched = await withLeftAlone(workspace, left, []);
        const theirs = [file("other", "1"), ...names.map((name) => file(name))];
        // Restored, restored again, deleted; with exactly the local bytes, and deleted.
        const same = [file("other", "1"), ...names.map((name) => file(name, "s"))];
        const gone = [file("other", "1")];
        const got = await withLeftAlone(workspace, left, [theirs, theirs, gone, same, gone]);
        expect(got.tree).toEqual(untouched.tree);
        expect(got.conflicts).toEqual([]);
        expect(got.skipped).toEqual([skipped, skipped, [], skipped, []]);
      });

      it("are both restored on a volume with distinct names", async () => {
        const left = { [preserved]: [".env"] };
        const got = await withLeftAlone({ ".env": "s" }, left, [[file(".ENVRC"), file("ENV"), file(".en")]]);
        expect(Object.keys(got.tree).sort()).toEqual([".ENVRC", ".en", ".env", "ENV"].sort());
        expect(got.skipped).toEqual([[]]);
      });
    });

    it("are a conflict if both are new", async () => {
      expect(await restored({ a: "1" }, { a: "1", Foo: "upper", foo: "lower" })).toEqual({
        a: "644 1",
        foo: "644 lower",
        "kept of foo": "upper",
      });
    });

    it("are a conflict if one exists locally", async () => {
      expect(await restored({ Foo: "upper" }, { Foo: "upper", foo: "lower" })).toEqual({
        foo: "644 lower",
        "kept of foo": "upper",
      });
    });

    it("are one renamed file if the sandbox has only the other one", async () => {
      expect(await restored({ Foo: "same" }, { foo: "same" })).toEqual({ foo: "644 same" });
      expect(report).toMatchObject({ written: [], deleted: [], conflicts: [] });
      expect(await restored({ Foo: "old" }, { foo: "new" }, { Foo: "edited" })).toEqual({
        foo: "644 new",
        "kept of foo": "edited",
      });
      expect(report).toMatchObject({ written: ["foo"], deleted: [] });
    });

    it("are one renamed folder with its content", async () => {
      const tree = await restored({ "src/a": "1", "src/b": "2" }, { "Src/a": "1", "Src/b": "2" });
      expect(tree).toEqual({ src: "755/", "src/a": "644 1", "src/b": "644 2" });
      expect(report).toMatchObject({ written: [], deleted: [], conflicts: [] });
    });

    it("are both deleted only if the sandbox has neither", async () => {
      const rows = [
        [{ Foo: "x" }, { Foo: "x", foo: "x" }, { Foo: "x" }, { foo: "644 x" }],
        [{ Foo: "x" }, { Foo: "x", foo: "x" }, { foo: "x" }, { foo: "644 x" }],
        [{ Foo: "x" }, { Foo: "x", foo: "x" }, {}, {}],
        [{ Foo: "upper" }, { Foo: "upper", foo: "lower" }, { Foo: "upper" }, { foo: "644 lower" }],
        [
          { "src/a": "x" },
          { "src/a": "x", "Src/a": "x" },
          { "src/a": "x" },
          { src: "755/", "src/a": "644 x" },
        ],
        [
          { "src/a": "x" },
          { "src/a": "x", "Src/a": "x", "Src/b": "y" },
          { "src/a": "x" },
          { src: "755/", "src/a": "644 x" },
        ],
      ];
      for (const [uploaded, first, second, expected] of rows) {
        const workspace = await makeTree(path.join(await temporaryFolder(), "workspace"), {
          other: "here",
          ...uploaded,
        });
        const downloads = [first, second].map((download) => ({ ...download, other: "here" }));
        const tree = await restoredInto(workspace, downloads);
        expect(tree, JSON.stringify([uploaded, first, second])).toEqual({ ...expected, other: "644 here" });
      }
    });

    it("lose nothing that the sandbox has under either name, however many there are", async () => {
      const rows = [
        [{ Foo: "1" }, [{ Foo: "2", foo: "3", FOO: "1" }]],
        [
          { Foo: "1" },
          [
            { Foo: "1", foo: "1" },
            { Foo: "2", foo: "1" },
          ],
        ],
        [
          { Foo: "1" },
          [
            { foo: "1", FOO: "1" },
            { Foo: "1", foo: "2", FOO: "2" },
          ],
        ],
        [
          { Foo: "1" },
          [
            { Foo: "1", foo: "1" },
            { "Foo/a": "2", foo: "1" },
          ],
        ],
        [
          { "Foo/a": "1" },
          [
            { "Foo/a": "1", "foo/a": "1" },
            { Foo: "2", "foo/a": "1" },
          ],
        ],
      ];
      for (const [uploaded, downloads] of rows) {
        const workspace = await makeTree(path.join(await temporaryFolder(), "workspace"), uploaded);
        await restoredInto(workspace, downloads);
        const found = Object.values(await describeTree(workspace)).map((value) => value.slice(-1));
        const expected = [...new Set(Object.values(downloads.at(-1)))];
        expect(found, JSON.stringify([uploaded, ...downloads])).toEqual(expect.arrayContaining(expected));
      }
    });

    it("are found also among names that are not ASCII", async () => {
      const folder = "priv\u00e9";
      const workspace = await makeTree(path.join(await temporaryFolder(), "workspace"), {
        [`${folder}/x`]: "1",
        [`${folder}/\u00fc`]: "2",
        old: "3",
      });
      const twice = { [`${folder}/x`]: "1", [`${folder}/\u00fc`]: "2", "prive\u0301/u\u0308": "2" };
      const once = { [`${folder}/x`]: "1", "prive\u0301/u\u0308": "2" };
      const tree = { [folder]: "755/", [`${folder}/x`]: "644 1", [`${folder}/\u00fc`]: "644 2" };
      expect(await restoredInto(workspace, [twice, once])).toEqual(tree);
    });

    it("may be one name of a file with hard links", async () => {
      const workspace = await makeTree(path.join(await temporaryFolder(), "workspace"), { "src/Foo": "x" });
      await link(path.join(workspace, "src/Foo"), path.join(workspace, "src/other"));
      await link(path.join(workspace, "src/Foo"), path.join(workspace, "more"));
      const renamed = { "Src/foo": "x", "Src/other": "x", more: "x" };
      const all = { src: "755/", "src/foo": "644 x", "src/other": "644 x", more: "644 x" };
      expect(await restoredInto(workspace, [renamed])).toEqual(all);
      const { more, ...fewer } = all;
      expect(more).toBeDefined();
      expect(await restoredInto(workspace, [renamed, { "Src/foo": "x", "Src/other": "x" }])).toEqual(fewer);
    });

    // The source must be able to hold both names.
    if (process.platform === "linux") {
      it("cannot both be mirrored, which is an error and changes nothing", async () => {
        const home = await mkdtemp("/var/tmp/mirror-");
        try {
          const target = path.join(await temporaryFolder(), "mirror");
          const before = { kept: "1", "sub/a": "2", "Sub2/b": "3" };
          await makeTree(target, before);
          const described = await describeTree(target);
          const sources = [
            [{ Foo: "1", foo: "2", other: "3" }],
            [{ "Src/a": "1", "src/b": "2" }],
            [{ "sub/caf\u00e9": "1", "sub/cafe\u0301": "2" }],
            [{ KEPT: "1" }, { preserveAbsent: ["kept"] }],
            [{ "SUB/A": "1" }, { preserveAbsent: ["sub/a"] }],
          ];
          for (const [at, [tree, options]] of sources.entries()) {
            const source = await makeTree(path.join(home, String(at)), tree);
            const mirrored = mirrorDirectory(source, target, options);
            await expect(mirrored).rejects.toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
            await expect(mirrored).rejects.toThrow("cannot hold both");
            expect(await describeTree(target)).toEqual(described);
          }
          const source = await makeTree(path.join(home, "plain"), {
            KEPT: "4",
            "SUB/a": "2",
            "caf\u00e9": "5",
          });
          await mirrorDirectory(source, target);
          const tree = { KEPT: "644 4", SUB: "755/", "SUB/a": "644 2", "caf\u00e9": "644 5" };
          expect(await describeTree(target)).toEqual(tree);
        } finally {
          await rm(home, { recursive: true });
        }
      });
    }

    const [composed, decomposed] = ["caf\u00e9", "cafe\u0301"];
    it("may be two encodings of a letter, of which the sandbox deletes one", async () => {
      const workspace = await makeTree(path.join(await temporaryFolder(), "workspace"), {
        [decomposed]: "1",
      });
      const both = { [decomposed]: "1", [composed]: "1" };
      expect(await restoredInto(workspace, [both, { [decomposed]: "1" }])).toEqual({ [composed]: "644 1" });
    });

    it("may be two encodings of a letter", async () => {
      expect(await restored({ [decomposed]: "1" }, { [decomposed]: "1", [composed]: "2" })).toEqual({
        [composed]: "644 2",
        [`kept of ${composed}`]: "1",
      });
    });
  });
}
