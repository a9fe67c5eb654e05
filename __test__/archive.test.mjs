// createTarballFromDirectory, checked with the programs that extract its archives.

import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmod,
  link as hardLink,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { createTarballFromDirectory } from "../index.js";
import { differences, readTree } from "./support/tree.mjs";
import {
  bytePath,
  describeTree,
  fifo,
  file,
  folder,
  link,
  makeTree,
  setTime,
  temporaryFolder,
} from "./support/folders.mjs";
import { callUnprivileged, run, succeed, unprivilegedIds } from "./support/processes.mjs";
import { TARS, extract, readArchive } from "./support/tar.mjs";

let home;
let source;
let archivePath;

beforeEach(async () => {
  home = await temporaryFolder();
  source = path.join(home, "source");
  archivePath = path.join(home, "archive.tar");
  await mkdir(source);
});

async function pack(options) {
  await createTarballFromDirectory({ localDir: source, archivePath, ...options });
  return readArchive(await readFile(archivePath));
}

const names = ({ entries }) => entries.map(({ name }) => name);

/** Extracts the archive again, expects no output from the program, and returns what was extracted. */
async function extracted(tar, options) {
  const target = path.join(await temporaryFolder(), "target");
  await mkdir(target, { mode: 0o777 });
  await chmod(target, 0o777);
  const { code, stdout, stderr } = await extract(tar, archivePath, target, options);
  expect({ code, stdout, stderr }).toStrictEqual({ code: 0, stdout: "", stderr: "" });
  return target;
}

/** A tree with an entry of every kind that is archived. */
async function makeVariedTree() {
  await makeTree(source, {
    "plain.txt": "text",
    "empty.txt": "",
    "block.bin": "x".repeat(512),
    "more.bin": "x".repeat(513),
    "bin/run": file("#!/bin/sh\n", 0o755),
    "private/key": file("secret", 0o600),
    private: folder(0o700),
    "read-only": file("r", 0o444),
    none: file("", 0o000),
    "empty-folder": folder(0o711),
    "-rf": "a name like an option",
    " leading and trailing ": "spaces",
    "new\nline": "text",
    "back\\slash": "text",
    "it's": "quoted",
    "*?[x]": "globs",
    "é/😀": "text",
    "link-to-file": link("plain.txt"),
    "link-to-folder": link("bin"),
    "link-outside": link("/etc/passwd"),
    dangling: link("nowhere"),
  });
  await hardLink(path.join(source, "plain.txt"), path.join(source, "z-hard-link"));
  await writeFile(bytePath(source, "not-utf8-\xff\xfe"), "bytes");
  await symlink(Buffer.from("target-\xff", "latin1"), bytePath(source, "link-\x80"));
  for (const name of (await readTree(source)).keys()) {
    const times = { "plain.txt": 1_500_000_000.9, "bin/run": 1 };
    await setTime(bytePath(source, name), times[name] ?? 1_600_000_000);
  }
}

describe("an archive", () => {
  describe.each(Object.entries(TARS))("extracted by %s", (_, tar) => {
    it.each([
      ["the superuser", {}],
      ["another user", { unprivileged: true }],
    ])("as %s gives the same tree, without a warning", async (_, options) => {
      await makeVariedTree();
      await pack();
      const target = await extracted(tar, options);

      const [before, after] = [await readTree(source), await readTree(target)];
      expect(differences(before, after)).toStrictEqual([]);
      for (const [name, { kind, mode, mtimeMs }] of before) {
        if (kind === "dir") expect(after.get(name).mode, name).toBe(mode);
        if (kind === "file") expect(after.get(name).mtimeMs, name).toBe(Math.floor(mtimeMs / 1000) * 1000);
      }
      const inode = async (name) => (await stat(path.join(target, name))).ino;
      expect(await inode("z-hard-link")).toBe(await inode("plain.txt"));
    });
  });

  it("has one plain header an entry, in byte order, without any trace of this machine", async () => {
    await makeVariedTree();
    const archive = await pack();

    const paths = [...(await readTree(source)).keys()].sort();
    expect(names(archive).map((name) => name.replace(/\/$/, ""))).toStrictEqual(paths);
    for (const { name, type, uid, gid, userName, groupName, magic, mode } of archive.entries) {
      expect("0125", name).toContain(type);
      expect(name.startsWith("./") || name.startsWith("/"), name).toBe(false);
      expect(name.endsWith("/"), name).toBe(type === "5");
      expect({ uid, gid, userName, groupName, magic }).toStrictEqual({
        uid: 0,
        gid: 0,
        userName: "",
        groupName: "",
        magic: "ustar  \0",
      });
      expect(mode & ~0o7777).toBe(0);
    }
  });

  it("orders entries by the bytes of their paths, whatever the locale", async () => {
    await makeTree(source, { "a/z": "", "a.b": "", "a-b": "", ab: "", "A/x": "", a0: "", é: "", "~": "" });
    await writeFile(bytePath(source, "\xff"), "");
    const ordered = ["A/", "A/x", "a/", "a-b", "a.b", "a/z", "a0", "ab", "~", "Ã©", "ÿ"];
    expect(names(await pack())).toStrictEqual(ordered);
  });

  it("is the same for the same tree, whenever and wherever it is packed", async () => {
    await makeVariedTree();
    await pack();
    const first = await readFile(archivePath);
    const copy = path.join(await temporaryFolder(), "copy");
    await succeed("cp", ["-a", source, copy]);
    await createTarballFromDirectory({ localDir: copy, archivePath });
    expect(await readFile(archivePath)).toStrictEqual(first);
  });

  it("keeps all mode bits", async () => {
    await makeTree(source, { setuid: file("", 0o4755), setgid: file("", 0o2755), sticky: folder(0o1777) });
    const { entries } = await pack();
    expect(Object.fromEntries(entries.map(({ name, mode }) => [name, mode]))).toStrictEqual({
      setuid: 0o4755,
      setgid: 0o2755,
      "sticky/": 0o1777,
    });
  });

  it("of an empty folder is two blocks of zeros", async () => {
    await pack();
    expect(await readFile(archivePath)).toStrictEqual(Buffer.alloc(1024));
    // toybox accepts no archive without an entry.
    const { toybox: _, ...others } = TARS;
    for (const tar of Object.values(others)) expect(await readdir(await extracted(tar))).toStrictEqual([]);
  });

  it("has the time of a file in whole seconds, and 0 for one before 1970", async () => {
    await makeTree(source, { old: "", half: "", far: "" });
    await setTime(path.join(source, "old"), -86_400);
    await setTime(path.join(source, "half"), 1_000_000_000.75);
    await setTime(path.join(source, "far"), 4_000_000_000);
    const { entries } = await pack();
    expect(entries.map(({ name, mtime }) => [name, mtime])).toStrictEqual([
      ["far", 4_000_000_000],
      ["half", 1_000_000_000],
      ["old", 0],
    ]);
  });

  it("may be of a folder that is reached through a link, or named relative to the working directory", async () => {
    await makeTree(source, { "a.txt": "a" });
    await symlink("source", path.join(home, "linked"));
    const throughLink = path.join(home, "linked");
    for (const localDir of [throughLink, `${source}/`, path.relative(process.cwd(), source)]) {
      expect(names(await pack({ localDir })), localDir).toStrictEqual(["a.txt"]);
    }
  });
});

describe("long names", () => {
  /** A relative path of that many bytes, made of folders, that ends in a file. */
  function pathOf(length) {
    const parts = [];
    for (let left = length; left > 0;) {
      // Never so that only a slash is left.
      const part = left > 202 ? 200 : left;
      parts.push("n".repeat(part));
      left -= part + 1;
    }
    return parts.join("/");
  }

  it.each([99, 100, 101, 154, 155, 156, 255, 256, 257, 512, 1000, 4000])(
    "of %d bytes survive, in one name where it fits, and as a link's target",
    async (length) => {
      const long = pathOf(length);
      expect(Buffer.byteLength(long)).toBe(length);
      const tree = { [`a/${long.slice(2)}`]: "deep", "to-long": link(long) };
      if (length <= 255) tree["m".repeat(length)] = "wide";
      await makeTree(source, tree);
      const { entries } = await pack();

      expect(entries.map(({ name }) => name)).toContain(`a/${long.slice(2)}`);
      expect(entries.find(({ name }) => name === "to-long").linkName).toBe(long);
      const before = await readTree(source);
      for (const tar of Object.values(TARS)) {
        expect(differences(before, await readTree(await extracted(tar)))).toStrictEqual([]);
      }
    },
  );

  it("of hard links survive, on both ends", async () => {
    const long = pathOf(300);
    await makeTree(source, { [`a/${long}`]: "text", z: folder() });
    await hardLink(path.join(source, "a", long), path.join(source, "z", "n".repeat(200)));
    const { entries } = await pack();

    expect(entries.at(-1)).toMatchObject({ type: "1", name: `z/${"n".repeat(200)}`, linkName: `a/${long}` });
    const before = await readTree(source);
    for (const tar of Object.values(TARS)) {
      expect(differences(before, await readTree(await extracted(tar)))).toStrictEqual([]);
    }
  });
});

describe("an entry that is not a file, folder or link", () => {
  it("is left out, and a FIFO does not block", async () => {
    await makeTree(source, { "a.txt": "a", pipe: fifo(), "sub/pipe": fifo() });
    const server = createServer().listen(path.join(source, "socket"));
    onTestFinished(() => void server.close());
    await once(server, "listening");
    expect(names(await pack())).toStrictEqual(["a.txt", "sub/"]);
  });

  it("is left out also if a followed link leads to it", async () => {
    await makeTree(home, {
      pipe: fifo(),
      "source/to-pipe": link("../pipe"),
      "source/to-device": link("/dev/zero"),
    });
    expect(names(await pack({ followSymlinks: true }))).toStrictEqual([]);
  });
});

describe("hard links", () => {
  it("are link entries to their first name in the archive", async () => {
    await makeTree(source, { "b/first": "text" });
    for (const name of ["a", "c", "d"]) await hardLink(path.join(source, "b/first"), path.join(source, name));
    const { entries } = await pack();
    expect(entries.map(({ name, type, linkName, size }) => [name, type, linkName, size])).toStrictEqual([
      ["a", "0", "", 4],
      ["b/", "5", "", 0],
      ["b/first", "1", "a", 0],
      ["c", "1", "a", 0],
      ["d", "1", "a", 0],
    ]);
  });

  it("to files that are not archived are files", async () => {
    await makeTree(source, { "a.log": "text" });
    await hardLink(path.join(source, "a.log"), path.join(source, "b.txt"));
    await hardLink(path.join(source, "a.log"), path.join(home, "outside"));
    const { entries } = await pack({ exclude: ["*.log"] });
    expect(entries).toMatchObject([{ name: "b.txt", type: "0", size: 4 }]);
  });
});

describe("followSymlinks", () => {
  it("archives the targets of links, also outside the folder", async () => {
    await makeTree(home, {
      "outside/file.txt": file("outside", 0o640),
      "outside/inner/deep.txt": "deep",
      "source/file.txt": "inside",
      "source/to-file": link("file.txt"),
      "source/to-outside": link("../outside/file.txt"),
      "source/to-folder": link("../outside/inner"),
      "source/to-link": link("to-outside"),
    });
    await pack({ followSymlinks: true });
    expect(await describeTree(await extracted(TARS["GNU tar"]))).toStrictEqual({
      "file.txt": "644 inside",
      "to-file": "644 inside",
      "to-folder": "755/",
      "to-folder/deep.txt": "644 deep",
      "to-link": "640 outside",
      "to-outside": "640 outside",
    });
  });

  it("archives a link that dangles or loops as the link", async () => {
    await makeTree(home, {
      "elsewhere/back": link("../source"),
      "source/dangling": link("nowhere"),
      "source/self": link("self"),
      "source/ping": link("pong"),
      "source/pong": link("ping"),
      "source/here": link("."),
      "source/sub/up": link(".."),
      "source/sub/a.txt": "a",
      "source/to-sub": link("sub"),
      "source/to-elsewhere": link("../elsewhere"),
    });
    await pack({ followSymlinks: true });
    expect(await describeTree(await extracted(TARS["GNU tar"]))).toStrictEqual({
      dangling: "-> nowhere",
      here: "-> .",
      ping: "-> pong",
      pong: "-> ping",
      self: "-> self",
      sub: "755/",
      "sub/a.txt": "644 a",
      "sub/up": "-> ..",
      "to-elsewhere": "755/",
      "to-elsewhere/back": "-> ../source",
      "to-sub": "755/",
      "to-sub/a.txt": "644 a",
      "to-sub/up": "-> ..",
    });
  });

  it("is off by default: links are archived as they are", async () => {
    await makeTree(source, { "a.txt": "a", link: link("a.txt") });
    expect((await pack()).entries).toMatchObject([
      { name: "a.txt" },
      { name: "link", type: "2", linkName: "a.txt" },
    ]);
  });
});

describe("names around the header's 100 bytes", () => {
  const LENGTHS = [98, 99, 100, 101, 102, 103];
  const name = (letter, length) => letter.repeat(length);

  const makeNames = async () => {
    await writeFile(path.join(source, "0"), "content");
    for (const length of LENGTHS) {
      await writeFile(path.join(source, name("f", length)), `${length}`);
      await mkdir(path.join(source, name("d", length)));
      await symlink(name("t", length), path.join(source, `l${length}`));
      await symlink(name("t", length), path.join(source, name("l", length)));
      await writeFile(path.join(source, name("h", length)), "linked");
      await hardLink(path.join(source, name("h", length)), path.join(source, `z${length}`));
    }
    for (const made of await readdir(source)) await setTime(path.join(source, made), 1_600_000_000);
  };

  it("are written byte for byte as GNU tar writes them", async () => {
    await makeNames();
    await pack();
    const oracle = path.join(home, "oracle.tar");
    const top = (await readdir(source)).sort();
    const plain = ["--format=gnu", "--owner=:0", "--group=:0", "--numeric-owner", "--blocking-factor=1"];
    await succeed("tar", ["-cf", oracle, ...plain, "--no-recursion", "-C", source, "--", ...top]);
    const [ours, theirs] = [await readFile(archivePath), await readFile(oracle)];
    expect(ours.length).toBe(theirs.length);
    // GNU tar gives its long-name entries an owner's name and a time of its own; their content is the same.
    const told = (archive) =>
      readArchive(archive).entries.map((entry) => ({ ...entry, content: `${entry.content}` }));
    expect(told(ours)).toStrictEqual(told(theirs));
    const kinds = (archive) => {
      const found = [];
      for (let at = 0; at < archive.length; at += 512) {
        if (archive.toString("latin1", at + 257, at + 262) !== "ustar") continue;
        found.push(archive.toString("latin1", at + 156, at + 157) + archive.toString("latin1", at, at + 100));
      }
      return found;
    };
    expect(kinds(ours)).toStrictEqual(kinds(theirs));
    expect(kinds(ours).filter((kind) => kind.startsWith("L")).length).toBeGreaterThan(0);
  });

  it.each(Object.entries(TARS))("are read by %s", async (_, tar) => {
    await makeNames();
    await pack();
    expect(differences(await readTree(source), await readTree(await extracted(tar)))).toStrictEqual([]);
  });
});

describe("exclude", () => {
  const TREE = {
    "._apple": "",
    "sub/._apple": "",
    "._folder/inner": "",
    "a.log": "",
    "sub/b.log": "",
    "sub/b.log.txt": "",
    "node_modules/x/index.js": "",
    "sub/node_modules/y": "",
    "my_node_modules/z": "",
    "a*b": "",
    "a[b": "",
    "[x]": "",
    x: "",
    "dir/one/two": "",
    "back\\slash": "",
    "-dash": "",
    ".git/config": "",
  };

  it.each([
    [[]],
    [["*.log"]],
    [["node_modules"]],
    [["node_modules/*"]],
    [["sub/*"]],
    [["s*b"]],
    [["dir/one"]],
    [["one"]],
    [["/dir"]],
    [["./dir"]],
    [["dir/"]],
    [["a\\*b"]],
    [["a[*]b"]],
    [["[[]x]"]],
    [["\\[x\\]"]],
    [["a[[]b"]],
    [["a[b"]],
    [["[!a-z]*"]],
    [["?"]],
    [["*"]],
    [["back\\\\slash"]],
    [["-dash", ".git"]],
    [["*/two", "x"]],
    [["./x"]],
    [["./*.log"]],
    [["*/node_modules"]],
    [["*/.git"]],
    [["."]],
    [[".*"]],
    [["./*"]],
    [[".", "x"]],
    [[""]],
  ])("%j leaves out what GNU tar's --exclude leaves out", async (exclude) => {
    await makeTree(source, TREE);
    const archive = await pack({ exclude });
    const oracle = path.join(home, "oracle.tar");
    const patterns = ["._*", ...exclude].map((pattern) => `--exclude=${pattern}`);
    await succeed("tar", ["-cf", oracle, "-C", source, ...patterns, "."]);
    let listed = readArchive(await readFile(oracle)).entries.map(({ name }) => name.slice("./".length));
    if (listed.length === 0) {
      // A pattern that matches the folder itself is matched against names without `./`.
      const top = await readdir(source);
      await succeed("tar", ["-cf", oracle, "-C", source, ...patterns, "--", ...top]);
      listed = readArchive(await readFile(oracle)).entries.map(({ name }) => name);
    }
    listed = listed.filter((name) => name !== "");
    expect(names(archive).sort()).toStrictEqual(listed.sort());
  });
});

describe("archivePath", () => {
  it("is never archived, wherever it is, and however it is named", async () => {
    await makeTree(source, { "a.txt": "a", "sub/b.txt": "b" });
    await symlink(".", path.join(source, "here"));
    for (const inside of ["archive.tar", "sub/archive.tar", "here/archive.tar"]) {
      archivePath = path.join(source, inside);
      for (const where of ["where nothing is", "over the one before"]) {
        expect(names(await pack()), `${inside}, ${where}`).toStrictEqual([
          "a.txt",
          "here",
          "sub/",
          "sub/b.txt",
        ]);
      }
      await rm(archivePath);
    }
  });

  it.each([
    ["a folder", folder()],
    ["a FIFO", fifo()],
    ["a link to a folder", link("source")],
    ["a link to a FIFO", link("pipe")],
    ["a link to a device", link("/dev/null")],
  ])("that is %s is refused before anything is read, and stays", async (_, there) => {
    // It would fail for another reason if it were read.
    await makeTree(home, { pipe: fifo(), "archive.tar": there });
    const before = await readTree(home);
    const failed = createTarballFromDirectory({ localDir: path.join(home, "missing"), archivePath });
    await expect(failed).rejects.toMatchObject({
      code: "ERR_INVALID_ARG_VALUE",
      message: expect.stringContaining("input.archivePath"),
    });
    expect(differences(before, await readTree(home), { exact: true })).toStrictEqual([]);
  });

  it("that is a device or a socket is refused, and stays", async () => {
    const socket = path.join(home, "socket");
    const server = createServer().listen(socket);
    onTestFinished(() => server.close());
    await once(server, "listening");
    for (const at of ["/dev/null", "/dev/full", socket]) {
      const failed = createTarballFromDirectory({ localDir: source, archivePath: at });
      await expect(failed, at).rejects.toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
      expect((await stat(at)).isFile(), at).toBe(false);
    }
  });

  it("that is a link leads to where the archive goes, as for tar -f, and is not archived", async () => {
    await makeTree(source, { "a.txt": "a", "old.tar": "old" });
    for (const [to, at] of [
      ["source/old.tar", path.join(source, "old.tar")],
      ["source/new.tar", path.join(source, "new.tar")],
      [path.join(source, "further"), path.join(source, "old.tar")],
    ]) {
      await rm(archivePath, { force: true });
      await symlink(to, archivePath);
      if (to.endsWith("further")) {
        await symlink("old.tar", path.join(source, "further"));
        await rm(path.join(source, "new.tar"));
      }
      expect(
        names(await pack()).filter((name) => name !== "old.tar" || at.endsWith("new.tar")),
      ).toStrictEqual(at.endsWith("new.tar") ? ["a.txt", "old.tar"] : ["a.txt"]);
      expect(readArchive(await readFile(at)).entries.length).toBeGreaterThan(0);
      expect(await describeTree(home, { without: "source" })).toStrictEqual({ "archive.tar": `-> ${to}` });
    }
  });

  it("leaves out temporary names of other calls, but not a user's similar names", async () => {
    await makeTree(source, {
      "a.txt": "a",
      ".sandbox-archive-1-0123456789abcdef": "half",
      "sub/.paperclip-mirror-22-aBcDeFgHiJkLmNoP/0/1": "x",
      ".sandbox-archive-notes": "mine",
    });
    expect(names(await pack())).toStrictEqual([".sandbox-archive-notes", "a.txt", "sub/"]);
  });

  it("of several calls at once in the archived folder: none contains another's unfinished archive", async () => {
    await makeTree(source, Object.fromEntries(Array.from({ length: 200 }, (_, at) => [`f-${at}`, `${at}`])));
    const at = (number) => path.join(source, `archive-${number}.tar`);
    await Promise.all(
      Array.from({ length: 8 }, (_, number) =>
        createTarballFromDirectory({ localDir: source, archivePath: at(number), exclude: ["archive-*"] }),
      ),
    );
    for (let number = 0; number < 8; number++) {
      expect(names(readArchive(await readFile(at(number))))).toHaveLength(200);
    }
  });

  it("replaces an existing file as a whole, and leaves nothing else beside it", async () => {
    await makeTree(source, { "a.txt": "a" });
    await writeFile(archivePath, "x".repeat(100_000));
    await pack();
    expect((await stat(archivePath)).size).toBe(2048);
    expect((await readdir(home)).sort()).toStrictEqual(["archive.tar", "source"]);
  });

  it("does not appear if a file may not be read, and an earlier archive stays", async () => {
    await makeTree(home, {
      "out/archive.tar": "before",
      "source/a.txt": "a",
      "source/b.txt": file("b", 0o000),
    });
    archivePath = path.join(home, "out", "archive.tar");
    await chmod(path.join(home, "out"), 0o777);
    const { error } = await callUnprivileged("createTarballFromDirectory", { localDir: source, archivePath });

    expect(error).toMatchObject({
      code: "EACCES",
      errno: -13,
      syscall: "open",
      path: path.join(source, "b.txt"),
    });
    expect(await describeTree(path.dirname(archivePath))).toStrictEqual({ "archive.tar": "644 before" });
  });

  it("does not appear if a folder may not be read", async () => {
    await makeTree(home, { "source/closed/a.txt": "a", "source/closed": folder(0o000) });
    await mkdir(path.join(home, "out"));
    await chmod(path.join(home, "out"), 0o777);
    archivePath = path.join(home, "out", "archive.tar");
    const { error } = await callUnprivileged("createTarballFromDirectory", { localDir: source, archivePath });

    expect(error).toMatchObject({ code: "EACCES", path: path.join(source, "closed") });
    expect(await readdir(path.dirname(archivePath))).toStrictEqual([]);
    await chmod(path.join(source, "closed"), 0o755);
  });

  it("in a folder that does not exist, or that is a folder, is an error that names it", async () => {
    await makeTree(source, { "a.txt": "a" });
    for (const [at, code] of [
      [path.join(home, "missing", "archive.tar"), "ENOENT"],
      [path.join(source, "a.txt", "archive.tar"), "ENOTDIR"],
      [source, "ERR_INVALID_ARG_VALUE"],
    ]) {
      const failed = createTarballFromDirectory({ localDir: source, archivePath: at });
      await expect(failed, at).rejects.toMatchObject({ code, message: expect.stringContaining(at) });
    }
    expect(await describeTree(home)).toStrictEqual({ source: "755/", "source/a.txt": "644 a" });
  });

  it("can be replaced by another call at any moment, and is always a complete archive", async () => {
    await makeTree(
      source,
      Object.fromEntries(Array.from({ length: 50 }, (_, at) => [`file-${at}`, `${at}`])),
    );
    await Promise.all(
      Array.from({ length: 8 }, () => createTarballFromDirectory({ localDir: source, archivePath })),
    );
    expect(readArchive(await readFile(archivePath)).entries).toHaveLength(50);
    expect((await readdir(home)).sort()).toStrictEqual(["archive.tar", "source"]);
  });
});

describe("a tree that other processes change", () => {
  it("gives a complete archive, whatever happens to its files meanwhile", async () => {
    const count = 40;
    const script = path.join(home, "company.sh");
    await writeFile(
      script,
      `cd "$1" || exit
       while :; do
         for n in $(seq 0 ${count - 1}); do
           case $((n % 5)) in
             0) head -c 200000 /dev/zero >>"file-$n"; head -c 1000 /dev/zero >"file-$n" ;;
             1) rm -f "file-$n"; echo again >"file-$n" ;;
             2) rm -rf "folder-$n"; mkdir -p "folder-$n/inner"; echo text >"folder-$n/inner/file" ;;
             3) rm -rf "turn-$n"; mkdir "turn-$n"; rmdir "turn-$n"; echo text >"turn-$n" ;;
             4) rm -f "link-$n"; ln -s file-0 "link-$n"; ln -f file-1 "hard-$n" ;;
           esac
         done
       done 2>"$2"`,
    );
    await makeTree(source, { steady: "text" });
    const company = spawn("sh", [script, source, path.join(home, "errors")], { stdio: "ignore" });
    const gone = once(company, "exit");
    try {
      for (let round = 0; round < 12; round++) {
        await pack();
        expect([...(await readTree(await extracted(TARS["GNU tar"]))).keys()]).toContain("steady");
        expect(await run("bsdtar", ["-tf", archivePath])).toMatchObject({ code: 0, stderr: "" });
      }
      expect(company.exitCode).toBeNull();
    } finally {
      company.kill("SIGKILL");
      await gone;
    }
  });

  it("gives a growing file at the size it had when it was opened", async () => {
    const log = path.join(source, "growing.log");
    const writer = await open(log, "a");
    onTestFinished(() => writer.close());
    let growing = true;
    const grow = (async () => {
      const line = Buffer.alloc(65_536, "x");
      while (growing) await writer.write(line);
    })();
    try {
      for (let round = 0; round < 10; round++) {
        const before = (await stat(log)).size;
        const { entries, end } = await pack();
        const after = (await stat(log)).size;
        expect(entries).toHaveLength(1);
        expect(entries[0].size).toBeGreaterThanOrEqual(before);
        expect(entries[0].size).toBeLessThanOrEqual(after);
        expect(entries[0].content.every((byte) => byte === 120)).toBe(true);
        expect(end).toStrictEqual(Buffer.alloc(1024));
        await writer.truncate(0);
      }
    } finally {
      growing = false;
      await grow;
    }
  });

  it("never mixes two files that replace each other", async () => {
    const contents = ["a", "b"].map((letter) => letter.repeat(300_000));
    await writeFile(path.join(source, "file"), contents[0]);
    let replacing = true;
    const replace = (async () => {
      for (let turn = 0; replacing; turn++) {
        await writeFile(path.join(home, "next"), contents[turn % 2]);
        await rename(path.join(home, "next"), path.join(source, "file"));
      }
    })();
    try {
      for (let round = 0; round < 30; round++) {
        const { entries } = await pack();
        expect(contents).toContain(entries[0].content.toString());
      }
    } finally {
      replacing = false;
      await replace;
    }
  });
});

it("archives a folder that the user may not write to", async () => {
  await makeTree(home, { "source/a.txt": file("a", 0o444), source: folder(0o555), out: folder(0o777) });
  archivePath = path.join(home, "out", "archive.tar");
  const { error } = await callUnprivileged("createTarballFromDirectory", { localDir: source, archivePath });
  expect(error).toBeUndefined();
  const { entries } = readArchive(await readFile(archivePath));
  expect(entries).toMatchObject([{ name: "a.txt", uid: 0, gid: 0, mode: 0o444 }]);
  expect((await stat(archivePath)).uid).toBe(unprivilegedIds.uid ?? process.getuid());
});
