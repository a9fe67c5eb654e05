// mirrorDirectory, checked with rsync and diff.

import {
  chmod,
  chown,
  link as hardLink,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { mirrorDirectory } from "../index.js";
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
import { OTHER_USER, callUnprivileged, run, succeed } from "./support/processes.mjs";

let home;
let source;
let target;

beforeEach(async () => {
  home = await temporaryFolder();
  source = path.join(home, "source");
  target = path.join(home, "target");
  await mkdir(source);
});

/** What rsync would still have to do, and what diff finds; both empty if the folders are equal. */
async function expectSame() {
  const options = [
    "--recursive",
    "--links",
    "--perms",
    "--checksum",
    "--delete",
    "--dry-run",
    "--itemize-changes",
  ];
  const todo = await succeed("rsync", [...options, `${source}/`, `${target}/`]);
  // The mode of the folder itself is not mirrored.
  expect(todo.split("\n").filter((line) => line && !line.endsWith(" ./"))).toStrictEqual([]);
  expect(await run("diff", ["--recursive", "--no-dereference", `${source}/`, `${target}/`])).toMatchObject({
    code: 0,
    stdout: "",
  });
  expect(differences(await readTree(source), await readTree(target))).toStrictEqual([]);
}

describe("a mirror", () => {
  it("has the source's names, kinds, bytes, modes and link targets, and nothing else", async () => {
    await makeTree(source, {
      "a.txt": "a",
      "empty.txt": "",
      "large.bin": "x".repeat(3_000_000),
      "bin/run": file("#!/bin/sh\n", 0o755),
      "read-only": file("r", 0o444),
      none: file("", 0o000),
      "closed/a.txt": "a",
      closed: folder(0o500),
      "empty-folder": folder(0o711),
      "open/to/all": folder(0o777),
      link: link("a.txt"),
      "folder-link": link("bin"),
      outside: link("/etc/passwd"),
      dangling: link("nowhere"),
      "-rf": "option",
      "new\nline": "text",
      "*": "star",
      ".hidden/.file": "hidden",
    });
    await writeFile(bytePath(source, "not-utf8-\xff"), "bytes");
    await hardLink(path.join(source, "a.txt"), path.join(source, "hard-link"));
    await makeTree(target, {
      "a.txt": "other",
      "old.txt": "old",
      "old/deep/file": "old",
      "empty.txt": file("", 0o600),
      "bin/run": file("#!/bin/sh\n", 0o644),
      dangling: link("elsewhere"),
      "empty-folder/with/content": "old",
    });
    await writeFile(bytePath(target, "old-\xfe"), "old");

    await mirrorDirectory(source, target);
    await expectSame();
  });

  it("is created with the folders above it if it does not exist", async () => {
    await makeTree(source, { "a/b.txt": "b" });
    target = path.join(home, "not", "there", "yet");
    await mirrorDirectory(source, target);
    await expectSame();
  });

  it("of an empty folder is an empty folder", async () => {
    await makeTree(target, { "a.txt": "a", "b/c": "c", link: link("a.txt") });
    await mirrorDirectory(source, target);
    expect(await readdir(target)).toStrictEqual([]);
  });

  it("keeps all mode bits of files", async () => {
    await makeTree(source, { setuid: file("s", 0o4755), setgid: file("s", 0o2711), sticky: folder(0o1777) });
    await mirrorDirectory(source, target);
    expect(await describeTree(target)).toStrictEqual({ setuid: "4755 s", setgid: "2711 s", sticky: "1777/" });
  });

  it("does not depend on the umask", async () => {
    await makeTree(source, {
      "a.txt": file("a", 0o666),
      open: folder(0o777),
      "open/b.txt": file("b", 0o777),
    });
    const before = process.umask(0o077);
    try {
      await mirrorDirectory(source, target);
    } finally {
      process.umask(before);
    }
    await expectSame();
  });

  it("of many files is complete the first time and does nothing the second", async () => {
    const names = Array.from({ length: 300 }, (_, at) => `folder-${at % 23}/file-${at}`);
    await makeTree(source, Object.fromEntries(names.map((name, at) => [name, `${at}`.repeat(at)])));
    await mirrorDirectory(source, target);
    await expectSame();
    const before = await readTree(target);
    await mirrorDirectory(source, target);
    expect(differences(before, await readTree(target), { exact: true })).toStrictEqual([]);
  });

  it("leaves no file of its own anywhere, also when it fails", async () => {
    const temporary = await watchTemporaryFiles();
    await makeTree(source, { "a.txt": "a", "b/c.txt": "c" });
    await mirrorDirectory(source, target);
    await mirrorDirectory(source, path.join(target, "a.txt")).catch(() => {});
    expect(await temporary()).toStrictEqual([]);
    expect((await readdir(home)).sort()).toStrictEqual(["source", "target"]);
    await expectSame();
  });
});

describe("a file that is already the same", () => {
  it("is not written again, and keeps its inode and time", async () => {
    const tree = { "a.txt": "a", "b/c.txt": "c", link: link("a.txt"), "b/run": file("run", 0o755) };
    await makeTree(source, { ...tree, "changed.txt": "new", "new.txt": "new" });
    await makeTree(target, { ...tree, "changed.txt": "old", "old.txt": "old" });
    const names = Object.keys(tree);
    const identities = () => Promise.all(names.map((name) => identity(path.join(target, name))));
    const before = await identities();

    await mirrorDirectory(source, target);
    await expectSame();
    expect(await identities()).toStrictEqual(before);
  });

  it("except for its mode gets that mode, and keeps its inode", async () => {
    await makeTree(source, { "a.txt": file("a", 0o600) });
    await makeTree(target, { "a.txt": file("a", 0o644) });
    const before = await identity(path.join(target, "a.txt"));
    await mirrorDirectory(source, target);
    const after = await identity(path.join(target, "a.txt"));
    expect({ ino: after.ino, mtimeNs: after.mtimeNs }).toStrictEqual({
      ino: before.ino,
      mtimeNs: before.mtimeNs,
    });
    await expectSame();
  });

  it("is recognized by its bytes, not by its size and time", async () => {
    await makeTree(source, { "a.txt": "new" });
    await makeTree(target, { "a.txt": "old" });
    await succeed("touch", ["-d", "2020-01-01", path.join(source, "a.txt"), path.join(target, "a.txt")]);
    await mirrorDirectory(source, target);
    await expectSame();
  });
});

describe("a file that changed", () => {
  it("is replaced: a process that has the old one open, and its hard links, keep it", async () => {
    await makeTree(source, { "a.txt": "new" });
    await makeTree(target, { "a.txt": "old" });
    await hardLink(path.join(target, "a.txt"), path.join(home, "other-name"));
    await mirrorDirectory(source, target);
    expect(await readFile(path.join(home, "other-name"), "utf8")).toBe("old");
    await expectSame();
  });

  it("is either old or new at each moment", async () => {
    const contents = ["a", "b"].map((letter) => letter.repeat(200_000));
    const names = Array.from({ length: 5 }, (_, at) => `file-${at}`);
    const sources = await Promise.all(
      contents.map((content) =>
        makeTree(path.join(home, content[0]), Object.fromEntries(names.map((name) => [name, content]))),
      ),
    );
    await mirrorDirectory(sources[0], target);
    let mirroring = true;
    const mirror = (async () => {
      for (let turn = 1; turn <= 20; turn++) await mirrorDirectory(sources[turn % 2], target);
      mirroring = false;
    })();
    while (mirroring) {
      for (const name of names) expect(contents).toContain(await readFile(path.join(target, name), "utf8"));
    }
    await mirror;
  });
});

describe("a file with further names", () => {
  it.each([
    ["another mode", file("same", 0o644), "same"],
    ["other bytes", file("new", 0o600), "new!"],
    ["both the same", file("same", 0o600), "same"],
  ])("that is to have %s is left as it is by its other names", async (_, wanted) => {
    await makeTree(source, { "a.txt": wanted });
    await makeTree(home, { "store/a": file("same", 0o600) });
    await mkdir(target);
    await hardLink(path.join(home, "store", "a"), path.join(target, "a.txt"));
    const before = await identity(path.join(home, "store", "a"));
    await mirrorDirectory(source, target);
    await expectSame();
    expect(await describeTree(path.join(home, "store"))).toStrictEqual({ a: "600 same" });
    const now = await identity(path.join(home, "store", "a"));
    expect({ ino: now.ino, mtimeNs: now.mtimeNs }).toStrictEqual({
      ino: before.ino,
      mtimeNs: before.mtimeNs,
    });
    const isShared = (await identity(path.join(target, "a.txt"))).ino === before.ino;
    expect(isShared).toBe(wanted.mode === 0o600 && wanted.content === "same");
  });

  it("within the target is replaced name by name", async () => {
    await makeTree(source, { "a.txt": file("same", 0o755), "b.txt": file("same", 0o644) });
    await makeTree(target, { "a.txt": file("same", 0o600) });
    await hardLink(path.join(target, "a.txt"), path.join(target, "b.txt"));
    await mirrorDirectory(source, target);
    await expectSame();
  });
});

describe.runIf(process.getuid() === 0)("the owner of a file that root replaces", () => {
  const owner = async (name) => {
    const { uid, gid } = await lstat(path.join(target, name));
    return [uid, gid];
  };

  it("is that of the replaced file", async () => {
    await makeTree(source, {
      bytes: "new",
      mode: file("same", 0o755),
      setuid: file("new", 0o4755),
      link: link("new"),
      "link-to-file": "new",
      new: "new",
      linked: file("same", 0o755),
    });
    await makeTree(target, {
      bytes: "old",
      mode: "same",
      setuid: "old",
      link: link("old"),
      "link-to-file": link("old"),
      linked: "same",
    });
    await hardLink(path.join(target, "linked"), path.join(home, "other-name"));
    for (const name of await readdir(target)) {
      await succeed("chown", ["-h", "1234:4321", path.join(target, name)]);
    }
    await mirrorDirectory(source, target);
    await expectSame();
    for (const name of ["bytes", "mode", "setuid", "link", "link-to-file", "linked"]) {
      expect(await owner(name), name).toStrictEqual([1234, 4321]);
    }
    expect(await owner("new")).toStrictEqual([0, 0]);
  });
});

describe("read-only folders in the target", () => {
  const readOnly = folder(0o555);
  const give = async (...folders) => {
    if (process.getuid() === 0) await succeed("chown", ["-R", `${OTHER_USER}:${OTHER_USER}`, ...folders]);
  };
  const mirrorUnprivileged = async (...options) => {
    const { error } = await callUnprivileged("mirrorDirectory", source, target, ...options);
    return error;
  };
  const TREE = {
    "cache/module/file": file("1", 0o444),
    "cache/module/gone": file("1", 0o444),
    "cache/module/link": link("file"),
    "cache/module/kind": file("1", 0o444),
    "cache/module/shared": file("1", 0o444),
    "cache/empty/deep/down": readOnly,
    "cache/empty/deep": readOnly,
    "cache/empty": readOnly,
    "cache/module": readOnly,
    cache: readOnly,
  };
  const CHANGED = {
    "cache/module/file": file("2", 0o444),
    "cache/module/more/deep": file("2", 0o444),
    "cache/module/more": readOnly,
    "cache/module/link": link("elsewhere"),
    "cache/module/kind": readOnly,
    "cache/module/shared": file("1", 0o400),
    "cache/module": readOnly,
    cache: readOnly,
  };
  const makeSource = async (tree) => {
    await succeed("rm", ["-rf", source]);
    await makeTree(source, tree);
    await give(source);
  };

  it("are written to, and have their modes back afterwards", async () => {
    await chmod(home, 0o777);
    await makeSource(TREE);
    expect(await mirrorUnprivileged()).toBe(undefined);
    await expectSame();
    const before = await readTree(target);
    expect(await mirrorUnprivileged()).toBe(undefined);
    expect(differences(before, await readTree(target), { exact: true })).toStrictEqual([]);
    for (const tree of [CHANGED, TREE, { cache: "a file now" }, TREE, {}]) {
      await makeSource(tree);
      expect(await mirrorUnprivileged()).toBe(undefined);
      await expectSame();
    }
  });

  it("may be the target itself", async () => {
    await makeSource(CHANGED);
    await makeTree(target, { "old/file": "old", old: readOnly });
    await give(target);
    await chmod(target, 0o555);
    expect(await mirrorUnprivileged()).toBe(undefined);
    await expectSame();
    expect((await stat(target)).mode & 0o7777).toBe(0o555);
  });

  it("stay read-only if something in them is preserved", async () => {
    await makeSource({ "a.txt": "a" });
    await makeTree(target, { "kept/keep": "1", "kept/go": "2", kept: readOnly });
    await give(target);
    expect(await mirrorUnprivileged({ preserveAbsent: ["kept/keep"] })).toBe(undefined);
    expect(await describeTree(target)).toStrictEqual({
      "a.txt": "644 a",
      kept: "555/",
      "kept/keep": "644 1",
    });
  });

  it.runIf(process.getuid() === 0)(
    "of another user stop it before it begins, and those of this one have their modes again",
    async () => {
      await makeSource({ "a/file": "new", "b/file": "new", "c/file": file("same", 0o600) });
      await makeTree(target, {
        "a/file": "old",
        "b/file": "old",
        "c/file": "same",
        a: readOnly,
        b: readOnly,
      });
      await give(target);
      await chown(path.join(target, "b"), 0, 0);
      const before = await readTree(target);
      expect(await mirrorUnprivileged()).toMatchObject({
        code: expect.stringMatching("EPERM|EACCES"),
        path: path.join(target, "b"),
        message: expect.stringContaining("the target was left as it was"),
      });
      const changes = differences(before, await readTree(target), { exact: true });
      expect(changes.filter((change) => !/ctime/.test(JSON.stringify(change)))).toStrictEqual([]);
      expect((await stat(path.join(target, "a"))).mode & 0o7777).toBe(0o555);
    },
  );

  it.runIf(process.getuid() === 0)("hold a file that its owner may not read: it is replaced", async () => {
    await makeSource({ "a/file": "same" });
    await makeTree(target, { "a/file": file("same", 0o000), a: readOnly });
    await give(target);
    expect(await mirrorUnprivileged()).toBe(undefined);
    await expectSame();
  });
});

describe("several mirrors at once", () => {
  const many = (content) =>
    Object.fromEntries(
      Array.from({ length: 60 }, (_, at) => [`folder-${at % 7}/file-${at}`, `${content} ${at}`]),
    );

  it("into one target leave the result of one of them", async () => {
    const sources = [];
    for (const name of ["one", "two", "three"]) {
      sources.push(await makeTree(path.join(home, name), { ...many(name), [`only-${name}/x`]: name }));
    }
    for (let round = 0; round < 5; round++) {
      await Promise.all([...sources, ...sources].map((from) => mirrorDirectory(from, target)));
      const found = await describeTree(target);
      const expected = await Promise.all(sources.map((from) => describeTree(from)));
      expect(expected).toContainEqual(found);
    }
  });

  it("in both directions end with both folders equal and complete", async () => {
    await makeTree(source, many("one"));
    await makeTree(target, many("two"));
    const trees = [await describeTree(source), await describeTree(target)];
    await Promise.all([mirrorDirectory(source, target), mirrorDirectory(target, source)]);
    await expectSame();
    expect(trees).toContainEqual(await describeTree(target));
  });

  it("wait for one of another process, and stop waiting when aborted", async () => {
    await makeTree(source, { "a.txt": "a" });
    await makeTree(target, { "a.txt": "old" });
    const holder = spawn("flock", [target, "sh", "-c", "echo held; cat"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    onTestFinished(() => holder.kill());
    await once(holder.stdout, "data");
    const calls = new AbortController();
    // More than there are threads for such work: none may take a thread while it waits.
    const aborted = Array.from({ length: 8 }, () =>
      mirrorDirectory(source, target, { signal: calls.signal }).catch((error) => error),
    );
    let settled = false;
    const waiting = mirrorDirectory(source, target).then(() => (settled = true));
    await mirrorDirectory(source, path.join(home, "unrelated"));
    calls.abort();
    for (const call of aborted) expect(await call).toMatchObject({ name: "AbortError" });
    expect(settled).toBe(false);
    expect(await describeTree(target)).toStrictEqual({ "a.txt": "644 old" });
    holder.stdin.end();
    await waiting;
    await expectSame();
  });
});

describe("temporary names", () => {
  const archive = ".sandbox-archive-123-0123456789abcdef";
  const stage = ".paperclip-mirror-123-0123456789abcdef";

  it("of other calls are not mirrored, and those of killed calls in the target are removed", async () => {
    await makeTree(source, {
      "a.txt": "a",
      [archive]: "half",
      [`sub/${stage}/0/1`]: "x",
      ".sandbox-archive-mine": "mine",
    });
    await makeTree(target, { [`${stage}/0/1`]: "left", [`sub/${archive}`]: "left" });
    await mirrorDirectory(source, target);
    expect(await describeTree(target)).toStrictEqual({
      ".sandbox-archive-mine": "644 mine",
      "a.txt": "644 a",
      sub: "755/",
    });
  });
});

describe("an entry of another kind in the target", () => {
  const KINDS = {
    "a file": "other",
    "an empty folder": folder(),
    "a folder with content": { "x/y": "other" },
    "a link to a file": link("../outside/file"),
    "a link to a folder": link("../outside"),
    "a dangling link": link("nowhere"),
    "a FIFO": fifo(),
  };

  it.each(
    Object.keys(KINDS).flatMap((inTheWay) => ["file", "folder", "link"].map((wanted) => [inTheWay, wanted])),
  )("%s gives way to a %s, and what a link leads to stays as it is", async (inTheWay, wanted) => {
    await makeTree(path.join(home, "outside"), { file: "outside", "sub/file": "outside" });
    await makeTree(
      source,
      {
        file: { name: "wanted" },
        folder: { "name/sub/file": "wanted" },
        link: { name: link("../outside") },
      }[wanted],
    );
    const there = KINDS[inTheWay];
    await makeTree(target, there["x/y"] ? { "name/x/y": "other" } : { name: there });
    const outside = await describeTree(path.join(home, "outside"));

    await mirrorDirectory(source, target);
    await expectSame();
    expect(await describeTree(path.join(home, "outside"))).toStrictEqual(outside);
  });

  it("a folder without permissions is replaced, too", async () => {
    await makeTree(source, { "a.txt": "a" });
    await makeTree(target, {
      "closed/inner/file": "x",
      "closed/inner": folder(0o000),
      closed: folder(0o000),
    });
    await mirrorDirectory(source, target);
    await expectSame();
  });
});

describe("preserveAbsent", () => {
  it("keeps what it names, anything below it, and the folders above it", async () => {
    await makeTree(source, { "a.txt": "a" });
    await makeTree(target, {
      "keep/one": "1",
      "keep/sub/two": "2",
      "keeper/three": "3",
      "deep/down/keep.txt": "4",
      "deep/down/go.txt": "5",
      "deep/go/six": "6",
      "keep.txt": "7",
    });
    await mirrorDirectory(source, target, { preserveAbsent: ["keep", "deep/down/keep.txt", "missing/path"] });
    expect(await describeTree(target)).toStrictEqual({
      "a.txt": "644 a",
      deep: "755/",
      "deep/down": "755/",
      "deep/down/keep.txt": "644 4",
      keep: "755/",
      "keep/one": "644 1",
      "keep/sub": "755/",
      "keep/sub/two": "644 2",
    });
  });

  it("takes names literally, whatever characters they have", async () => {
    await makeTree(target, { "*": "star", "[a]": "set", "a?b": "mark", a: "a", "a.b": "dot" });
    await mirrorDirectory(source, target, { preserveAbsent: ["*", "[a]", "a?b"] });
    expect(Object.keys(await describeTree(target)).sort()).toStrictEqual(["*", "[a]", "a?b"]);
  });

  it.each(["keep/", "./keep", "keep//x/..", "other/../keep", ".//keep/."])(
    "takes %j for keep",
    async (spelled) => {
      await makeTree(target, { "keep/one": "1", "keeper/two": "2" });
      await mirrorDirectory(source, target, { preserveAbsent: [spelled] });
      expect(await describeTree(target)).toStrictEqual({ keep: "755/", "keep/one": "644 1" });
    },
  );

  it.each(["../keep", "/keep", "a/../../b", "..", ".", "a/..", ""])(
    "refuses %j, and changes nothing",
    async (spelled) => {
      await makeTree(target, { "keep/one": "1" });
      const before = await readTree(target);
      await expect(
        mirrorDirectory(source, target, { preserveAbsent: ["keep", spelled] }),
      ).rejects.toMatchObject({
        code: "ERR_INVALID_ARG_VALUE",
        message: expect.stringContaining("options.preserveAbsent"),
      });
      expect(differences(before, await readTree(target), { exact: true })).toStrictEqual([]);
    },
  );

  it("applies only to what the source lacks", async () => {
    await makeTree(source, { "keep/one": "new" });
    await makeTree(target, { "keep/one": "old", "keep/two": "old" });
    await mirrorDirectory(source, target, { preserveAbsent: ["keep"] });
    expect(await describeTree(target)).toStrictEqual({
      keep: "755/",
      "keep/one": "644 new",
      "keep/two": "644 old",
    });
  });

  it("is refused if a file in the source is in the way, and nothing is changed", async () => {
    await makeTree(source, { deep: "now a file", "a.txt": "a" });
    await makeTree(target, { "deep/keep.txt": "kept", "old.txt": "old" });
    const before = await readTree(target);
    await expect(
      mirrorDirectory(source, target, { preserveAbsent: ["deep/keep.txt"] }),
    ).rejects.toMatchObject({
      code: "ERR_INVALID_ARG_VALUE",
      message: expect.stringContaining("options.preserveAbsent"),
    });
    expect(differences(before, await readTree(target), { exact: true })).toStrictEqual([]);
  });
});

describe("an entry in the source that is not a file, folder or link", () => {
  it("is left out and never opened, and replaces nothing that is preserved", async () => {
    await makeTree(source, { "a.txt": "a", pipe: fifo(), "sub/pipe": fifo(), kept: fifo() });
    await makeTree(target, { pipe: "was a file", kept: "kept" });
    await mirrorDirectory(source, target, { preserveAbsent: ["kept"] });
    expect(await describeTree(target)).toStrictEqual({ "a.txt": "644 a", kept: "644 kept", sub: "755/" });
  });

  it("is removed from the target", async () => {
    await makeTree(source, { "a.txt": "a" });
    await makeTree(target, { pipe: fifo(), "sub/pipe": fifo() });
    await mirrorDirectory(source, target);
    await expectSame();
  });
});

describe("a source that cannot be read", () => {
  const expectUntouched = async (failing) => {
    await makeTree(target, { "a.txt": "old", "b/c.txt": "old" });
    await chmod(target, 0o777);
    const before = await readTree(target);
    const error = await failing();
    expect(differences(before, await readTree(target), { exact: true })).toStrictEqual([]);
    return error;
  };
  const rejection = (promise) =>
    promise.then(
      () => undefined,
      (error) => error,
    );

  it("because it is missing leaves the target as it was", async () => {
    const missing = path.join(home, "missing");
    const error = await expectUntouched(() => rejection(mirrorDirectory(missing, target)));
    expect(error).toMatchObject({ code: "ENOENT", path: missing });
  });

  it("because it is missing creates no target", async () => {
    await rejection(mirrorDirectory(path.join(home, "missing"), target));
    expect(await readdir(home)).toStrictEqual(["source"]);
  });

  it("because it is a file leaves the target as it was", async () => {
    await writeFile(path.join(home, "file"), "");
    const error = await expectUntouched(() => rejection(mirrorDirectory(path.join(home, "file"), target)));
    expect(error).toMatchObject({ code: "ENOTDIR" });
  });

  it.each([
    ["a file", { "z.txt": file("z", 0o000) }, "z.txt"],
    ["a folder", { "closed/z.txt": "z", closed: folder(0o000) }, "closed"],
  ])("since the user may not read %s in it leaves the target as it was", async (_, tree, name) => {
    await makeTree(source, { "a.txt": "new", "new/file": "new", ...tree });
    const { error } = await expectUntouched(() => callUnprivileged("mirrorDirectory", source, target));
    expect(error).toMatchObject({ code: "EACCES", path: path.join(source, name) });
  });
});

describe("two folders that are not separate", () => {
  it("are refused before anything is changed, also behind links", async () => {
    await makeTree(source, { "a.txt": "a", "sub/b.txt": "b" });
    await symlink("source", path.join(home, "linked"));
    await symlink("source/sub", path.join(home, "into"));
    const before = await readTree(home);
    for (const [from, to] of [
      [source, source],
      [source, `${source}/`],
      [source, path.join(source, "sub")],
      [source, path.join(source, "not-yet")],
      [source, path.join(source, "not", "yet")],
      [source, path.join(home, "linked")],
      [source, path.join(home, "linked", "not-yet")],
      [source, path.join(home, "into")],
      [path.join(home, "linked"), source],
      [path.join(source, "sub"), source],
      [path.join(home, "into"), source],
      [source, home],
      [source, `${home}/./target/../source`],
    ]) {
      await expect(mirrorDirectory(from, to), `${from} ${to}`).rejects.toMatchObject({
        name: "TypeError",
        code: "ERR_INVALID_ARG_VALUE",
        message: expect.stringContaining("targetDir"),
      });
    }
    expect(differences(before, await readTree(home), { exact: true })).toStrictEqual([]);
  });

  it("are not two folders whose names begin alike", async () => {
    await makeTree(source, { "a.txt": "a" });
    target = path.join(home, "source-2");
    await mirrorDirectory(source, target);
    await expectSame();
  });
});

describe("a root that is reached through a link", () => {
  it("is used through the link, which stays", async () => {
    await makeTree(source, { "a.txt": "a" });
    await makeTree(path.join(home, "real"), { "old.txt": "old" });
    await symlink("real", target);
    await symlink("source", path.join(home, "from"));
    await mirrorDirectory(path.join(home, "from"), target);
    await expectSame();
    expect((await stat(path.join(home, "real"))).isDirectory()).toBe(true);
    expect(await describeTree(path.join(home, "real"))).toStrictEqual({ "a.txt": "644 a" });
  });
});

describe("a target that other processes change", () => {
  it("never leads the mirror outside when folders become links meanwhile", async () => {
    const outside = await makeTree(path.join(home, "outside"), { "file-0": "sentinel", "old-0": "sentinel" });
    await makeTree(
      source,
      Object.fromEntries(Array.from({ length: 40 }, (_, at) => [`sub/file-${at}`, `${at}`])),
    );
    await makeTree(target, { "sub/old-0": "old" });
    const before = await readTree(outside);
    let mirroring = true;
    const swap = (async () => {
      const aside = path.join(home, "aside");
      const sub = path.join(target, "sub");
      while (mirroring) {
        const moved = await rename(sub, aside).then(
          () => true,
          () => false,
        );
        await symlink(outside, sub).catch(() => {});
        await run("rm", ["-f", sub]);
        if (moved) await rename(aside, sub).catch(() => succeed("rm", ["-rf", aside]));
      }
    })();
    for (let round = 0; round < 30; round++) {
      // Whether it succeeds does not matter here.
      await mirrorDirectory(source, target).catch(() => {});
    }
    mirroring = false;
    await swap;
    expect(differences(before, await readTree(outside), { exact: true })).toStrictEqual([]);
    await mirrorDirectory(source, target);
    await expectSame();
  });
});
