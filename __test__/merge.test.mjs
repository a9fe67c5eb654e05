// mergeDirectoryWithBaseline: the table of the merge, the callbacks inside its lock, and compatibility with
// the npm release.

import * as release from "@paperclipai/adapter-utils/workspace-restore-merge";
import { spawnSync } from "node:child_process";
import { chmod, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { captureDirectorySnapshot, mergeDirectoryWithBaseline } from "../index.js";
import { differences, readTree } from "./support/tree.mjs";
import {
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
import { callUnprivileged } from "./support/processes.mjs";

const RUNTIME = ".paperclip-runtime";

let home;
let base;
let sourceDir;
let targetDir;

beforeEach(async () => {
  home = await temporaryFolder();
  base = path.join(home, "base");
  sourceDir = path.join(home, "source");
  targetDir = path.join(home, "target");
  for (const made of [base, sourceDir, targetDir]) await mkdir(made);
});

const merge = async (more) =>
  mergeDirectoryWithBaseline({
    baseline: await captureDirectorySnapshot(base),
    sourceDir,
    targetDir,
    ...more,
  });

const merged = () => describeTree(targetDir, { without: RUNTIME });

const git = (cwd, ...args) =>
  spawnSync("git", ["-c", "user.name=T", "-c", "user.email=t@t", "-c", "safe.directory=*", ...args], {
    cwd,
    encoding: "utf8",
  });

async function conflicts() {
  const root = path.join(targetDir, RUNTIME, "conflicts");
  const [time, ...others] = await readdir(root);
  expect(others).toStrictEqual([]);
  return describeTree(path.join(root, time));
}

describe("the table of the merge", () => {
  /** Every entry that may be at a path, and its description. */
  const STATES = {
    absent: [undefined, undefined],
    file: [file("text"), "644 text"],
    edited: [file("edited"), "644 edited"],
    emptied: [file(""), "644 "],
    executable: [file("text", 0o755), "755 text"],
    link: [link("somewhere"), "-> somewhere"],
    relinked: [link("elsewhere"), "-> elsewhere"],
    folder: [folder(), "755/"],
  };
  const names = Object.keys(STATES);

  /** The table of the merge, row by row: what is at the path afterwards, and what is backed up. */
  function outcome(before, theirs, ours) {
    if (theirs === before) return { stands: ours };
    if (theirs === "absent") return { stands: ours === before ? "absent" : ours };
    if (FILES[theirs] && FILES[ours]) return ofFiles(FILES[before] ?? [], FILES[theirs], FILES[ours]);
    const differs = ours !== "absent" && ours !== before && ours !== theirs;
    return { stands: theirs, aside: differs ? ours : undefined };
  }

  /** The states that are files, as mode and bytes, which are merged separately. */
  const FILES = {
    file: ["644", "text"],
    edited: ["644", "edited"],
    emptied: ["644", ""],
    executable: ["755", "text"],
  };

  function ofFiles([modeBefore, bytesBefore], [theirMode, theirBytes], [ourMode, ourBytes]) {
    const mode = theirMode === modeBefore ? ourMode : theirMode;
    const bytes = theirBytes === bytesBefore ? ourBytes : theirBytes;
    const isLost = ![bytes, bytesBefore].includes(ourBytes);
    return { described: `${mode} ${bytes}`, asideDescribed: isLost ? `${ourMode} ${ourBytes}` : undefined };
  }

  it("holds for every combination of base, source and target", async () => {
    const trees = [{}, {}, {}];
    const expected = {};
    const aside = {};
    for (const combination of names.flatMap((b) => names.flatMap((t) => names.map((o) => [b, t, o])))) {
      const name = combination.join("-");
      combination.forEach((state, at) => {
        const [entry] = STATES[state];
        if (entry) trees[at][name] = entry;
      });
      const { stands, aside: kept, described, asideDescribed } = outcome(...combination);
      if (stands !== "absent") expected[name] = described ?? STATES[stands][1];
      if (kept || asideDescribed) aside[name] = asideDescribed ?? STATES[kept][1];
    }
    for (const [at, root] of [base, sourceDir, targetDir].entries()) await makeTree(root, trees[at]);
    await merge();

    expect(await merged()).toStrictEqual(expected);
    expect(await conflicts()).toStrictEqual(aside);
    expect(Object.keys(aside).length).toBeGreaterThan(50);
    expect(await readFile(path.join(targetDir, RUNTIME, ".gitignore"), "utf8")).toBe("*\n");
  });

  it("has nothing to do in a second merge of the same", async () => {
    await makeTree(base, { "a.txt": "base", "b.txt": "base" });
    await makeTree(sourceDir, { "a.txt": "theirs", "c/d.txt": "new" });
    await makeTree(targetDir, { "a.txt": "ours", "b.txt": "base" });
    await merge();
    const before = await readTree(targetDir);
    await merge();
    const differing = differences(before, await readTree(targetDir), { exact: true });
    // Its time shows that something was staged in it.
    expect(differing.filter((name) => name !== RUNTIME)).toStrictEqual([]);
  });
});

describe("folders", () => {
  it("that contain local files stay when the source deleted them", async () => {
    await makeTree(base, { "dir/a.txt": "a", "dir/sub/b.txt": "b", "gone/c.txt": "c" });
    await makeTree(targetDir, {
      "dir/a.txt": "a",
      "dir/sub/b.txt": "b",
      "dir/sub/mine.txt": "mine",
      "gone/c.txt": "c",
    });
    await merge();
    expect(await merged()).toStrictEqual({ dir: "755/", "dir/sub": "755/", "dir/sub/mine.txt": "644 mine" });
  });

  it("with local files that became a file in the source are backed up with just these files", async () => {
    await makeTree(base, { "dir/a.txt": "a", "dir/b.txt": "b" });
    await makeTree(sourceDir, { dir: "a file now" });
    await makeTree(targetDir, { "dir/a.txt": "a", "dir/b.txt": "changed", "dir/new/mine.txt": "mine" });
    await merge();
    expect(await merged()).toStrictEqual({ dir: "644 a file now" });
    expect(await conflicts()).toStrictEqual({
      dir: "755/",
      "dir/b.txt": "644 changed",
      "dir/new": "755/",
      "dir/new/mine.txt": "644 mine",
    });
  });

  it("that were replaced by a local link are not followed, and the link is backed up", async () => {
    const outside = await makeTree(path.join(home, "outside"), { "a.txt": "outside", "b.txt": "outside" });
    await makeTree(base, { "dir/a.txt": "a", "dir/b.txt": "b", "other/c.txt": "c" });
    await makeTree(sourceDir, { "dir/a.txt": "theirs", "dir/new.txt": "theirs" });
    await makeTree(targetDir, { dir: link(outside), other: link(outside) });
    await merge();
    expect(await merged()).toStrictEqual({
      dir: "755/",
      "dir/a.txt": "644 theirs",
      "dir/new.txt": "644 theirs",
      other: `-> ${outside}`,
    });
    expect(await describeTree(outside)).toStrictEqual({ "a.txt": "644 outside", "b.txt": "644 outside" });
    expect(await conflicts()).toStrictEqual({ dir: `-> ${outside}` });
  });

  it("get the source's modes if they are new", async () => {
    await makeTree(sourceDir, {
      "open/a.txt": "a",
      open: folder(0o777),
      "shut/b.txt": "b",
      shut: folder(0o700),
    });
    await merge();
    expect(await merged()).toMatchObject({ open: "777/", shut: "700/" });
  });
});

describe("the target", () => {
  it("is created if it is missing", async () => {
    await makeTree(sourceDir, { "a.txt": "a" });
    targetDir = path.join(home, "new", "target");
    await mkdir(path.dirname(targetDir));
    await merge();
    expect(await merged()).toStrictEqual({ "a.txt": "644 a" });
  });

  it("may be reached through a link, which stays", async () => {
    await makeTree(sourceDir, { "a.txt": "a" });
    await symlink("target", path.join(home, "linked"));
    await merge({ targetDir: path.join(home, "linked") });
    expect(await merged()).toStrictEqual({ "a.txt": "644 a" });
  });

  it("keeps unchanged files as they are, without any file of ours", async () => {
    const tree = { "a.txt": "a", "b/c.txt": "c" };
    for (const root of [base, sourceDir, targetDir]) await makeTree(root, tree);
    await makeTree(sourceDir, { "new.txt": "new" });
    const before = await identity(path.join(targetDir, "a.txt"));
    const temporary = await watchTemporaryFiles();
    await merge();
    expect(await identity(path.join(targetDir, "a.txt"))).toStrictEqual(before);
    expect((await readdir(targetDir)).sort()).toStrictEqual(["a.txt", "b", "new.txt"]);
    expect((await readdir(home)).sort()).toStrictEqual(expect.arrayContaining(["base", "source", "target"]));
    expect((await readdir(home)).filter((name) => name.includes("lock"))).toStrictEqual([]);
    expect(await temporary()).toStrictEqual([]);
  });

  it("loses no privileges and gains none", async () => {
    await makeTree(sourceDir, { tool: file("t", 0o4755) });
    await merge();
    expect(await merged()).toStrictEqual({ tool: "755 t" });
  });
});

describe("what the baseline excludes", () => {
  it("is refused if it leads out of the directory, before anything changes", async () => {
    const { entries } = await captureDirectorySnapshot(base);
    for (const spelled of ["../x", "/x", "a/../../b"]) {
      await expect(merge({ baseline: { exclude: [spelled], entries } }), spelled).rejects.toMatchObject({
        code: "ERR_INVALID_ARG_VALUE",
        message: expect.stringContaining("input.baseline.exclude"),
      });
    }
  });

  it("is neither taken over nor deleted: exactly these paths and everything below them", async () => {
    await makeTree(base, { "keep/a": "a", keeper: "k", "sub/keep": "s" });
    await makeTree(sourceDir, { "keep/new": "theirs" });
    await makeTree(targetDir, { "keep/a": "a", keeper: "k", "sub/keep": "s" });
    await merge({ baseline: await captureDirectorySnapshot(base, { exclude: ["keep"] }) });
    expect(await merged()).toStrictEqual({ keep: "755/", "keep/a": "644 a" });
  });

  it("applies also if the baseline's entries contain it", async () => {
    await makeTree(base, { "keep/a": "a", "b.txt": "b" });
    await makeTree(targetDir, { "keep/a": "a", "b.txt": "b" });
    const { entries } = await captureDirectorySnapshot(base);
    await merge({ baseline: { exclude: ["keep"], entries } });
    expect(await merged()).toStrictEqual({ keep: "755/", "keep/a": "644 a" });
  });
});

describe("the baseline", () => {
  it("is interchangeable with the release's", async () => {
    const tree = {
      "a.txt": "a",
      "b/c.txt": "c",
      "d.txt": "d",
      "run.sh": file("r", 0o755),
      link: link("a.txt"),
    };
    await makeTree(base, tree);
    await makeTree(sourceDir, { ...tree, "a.txt": "theirs", "new/e.txt": "new", "run.sh": file("r", 0o644) });
    await rm(path.join(sourceDir, "d.txt"));
    await rm(path.join(sourceDir, "link"));
    const results = [];
    for (const [take, apply] of [
      [release.captureDirectorySnapshot, mergeDirectoryWithBaseline],
      [captureDirectorySnapshot, release.mergeDirectoryWithBaseline],
      [release.captureDirectorySnapshot, release.mergeDirectoryWithBaseline],
    ]) {
      const target = await makeTree(path.join(home, `target-${results.length}`), {
        ...tree,
        "b/c.txt": "ours",
      });
      await apply({ baseline: await take(base), sourceDir, targetDir: target });
      results.push(await describeTree(target));
    }
    expect(results[0]).toStrictEqual(results[2]);
    expect(results[1]).toStrictEqual(results[2]);
    expect(results[0]).toMatchObject({
      "a.txt": "644 theirs",
      "b/c.txt": "644 ours",
      "new/e.txt": "644 new",
    });
  });

  it("may be in any order, and have entries that do not exist", async () => {
    await makeTree(base, { "a/b/c": "c", d: "d" });
    await makeTree(targetDir, { "a/b/c": "c", d: "d" });
    const { exclude, entries } = await captureDirectorySnapshot(base);
    const reversed = new Map([...entries].reverse());
    reversed.set("ghost/file", { kind: "file", mode: 0o100644, hash: "0".repeat(64) });
    await merge({ baseline: { exclude, entries: reversed } });
    expect(await merged()).toStrictEqual({});
  });

  it("of thousands of entries is passed in pieces", async () => {
    const tree = Object.fromEntries(Array.from({ length: 3500 }, (_, at) => [`d${at % 50}/f${at}`, ""]));
    await makeTree(base, tree);
    await makeTree(targetDir, tree);
    await makeTree(sourceDir, { "d0/f0": "", "d49/f3499": "changed" });
    await merge();
    expect(await merged()).toStrictEqual({
      d0: "755/",
      "d0/f0": "644 ",
      d49: "755/",
      "d49/f3499": "644 changed",
    });
  });
});

describe("beforeApply and afterApply", () => {
  const lockedNow = () =>
    readdir(`${targetDir}.paperclip-restore.lock`).then(
      (names) => names.includes("owner.json"),
      () => false,
    );

  it("run inside the lock: before the target is inspected, and after the last change", async () => {
    await makeTree(base, { "a.txt": "base", "b.txt": "base" });
    await makeTree(sourceDir, { "a.txt": "theirs", "b.txt": "theirs" });
    await makeTree(targetDir, { "a.txt": "base", "b.txt": "base" });
    const seen = [];
    await merge({
      beforeApply: async () => {
        seen.push(["before", await lockedNow(), (await merged())["a.txt"]]);
        // The merge has not inspected the target yet, so this counts as a local edit.
        await writeFile(path.join(targetDir, "a.txt"), "edited before");
      },
      afterApply: async () => void seen.push(["after", await lockedNow(), (await merged())["a.txt"]]),
    });
    expect(seen).toStrictEqual([
      ["before", true, "644 base"],
      ["after", true, "644 theirs"],
    ]);
    expect(await conflicts()).toStrictEqual({ "a.txt": "644 edited before" });
    expect(await lockedNow()).toBe(false);
  });

  it("may bring the target to what the merge would make of it, as a git checkout does", async () => {
    await makeTree(base, { "a.txt": "base" });
    await makeTree(sourceDir, { "a.txt": "theirs" });
    await makeTree(targetDir, { "a.txt": "base" });
    await merge({ beforeApply: () => writeFile(path.join(targetDir, "a.txt"), "theirs") });
    expect(await describeTree(targetDir)).toStrictEqual({ "a.txt": "644 theirs" });
  });

  it("pass on what they throw, and the lock is released", async () => {
    await makeTree(sourceDir, { "a.txt": "theirs" });
    await makeTree(targetDir, { "b.txt": "ours" });
    const before = await readTree(home);
    for (const failure of [new Error("boom"), undefined, "text", Symbol("boom")]) {
      for (const fail of [
        () => {
          throw failure;
        },
        () => Promise.reject(failure),
      ]) {
        const caught = await merge({ beforeApply: fail }).then(
          () => "nothing",
          (error) => ({ error }),
        );
        expect(caught.error).toBe(failure);
        expect(await lockedNow()).toBe(false);
      }
    }
    expect(differences(before, await readTree(home))).toStrictEqual([]);

    const failure = new Error("after");
    await expect(merge({ afterApply: () => Promise.reject(failure) })).rejects.toBe(failure);
    expect(await merged()).toStrictEqual({ "a.txt": "644 theirs", "b.txt": "644 ours" });
    expect(await lockedNow()).toBe(false);
  });

  it("do not run if the source cannot be read", async () => {
    const beforeApply = () => {
      throw new Error("must not run");
    };
    const missing = path.join(home, "missing");
    await expect(merge({ sourceDir: missing, beforeApply })).rejects.toMatchObject({
      code: "ENOENT",
      path: missing,
    });
  });
});

describe("a source", () => {
  it("with an unreadable file fails the merge, and the target stays as it was", async () => {
    await makeTree(sourceDir, { "a.txt": "theirs", "z.txt": file("z", 0o000) });
    await makeTree(targetDir, { "b.txt": "ours" });
    await chmod(targetDir, 0o777);
    const before = await readTree(targetDir);
    const { error } = await callUnprivileged("mergeDirectoryWithBaseline", {
      baseline: { exclude: [], entries: { $map: [] } },
      sourceDir,
      targetDir,
    });
    expect(error).toMatchObject({ code: "EACCES", path: path.join(sourceDir, "z.txt") });
    expect(differences(before, await readTree(targetDir), { exact: true })).toStrictEqual([]);
  });

  it("with a FIFO does not block, and the local entry stays", async () => {
    await makeTree(base, { "a.txt": "base", "dir/b.txt": "base" });
    await makeTree(sourceDir, { "a.txt": fifo(), dir: fifo(), new: fifo() });
    await makeTree(targetDir, { "a.txt": "base", "dir/b.txt": "base" });
    await merge();
    expect(await merged()).toStrictEqual({ "a.txt": "644 base", dir: "755/", "dir/b.txt": "644 base" });
  });
});

describe("names that are not UTF-8", () => {
  it("are merged byte for byte", async () => {
    const at = (root, name) => Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, "latin1")]);
    for (const root of [base, targetDir]) {
      await writeFile(at(root, "deleted-\xff"), "base");
      await writeFile(at(root, "changed-\xfe"), "base");
    }
    await writeFile(at(sourceDir, "changed-\xfe"), "theirs");
    await writeFile(at(sourceDir, "new-\x80"), "theirs");
    await writeFile(at(targetDir, "changed-\xfe"), "ours");
    await merge();
    const tree = await readTree(targetDir, { leaveOut: (name) => name === RUNTIME });
    expect([...tree.keys()]).toStrictEqual(["changed-\xfe", "new-\x80"]);
    const [time] = await readdir(path.join(targetDir, RUNTIME, "conflicts"));
    const kept = await readdir(path.join(targetDir, RUNTIME, "conflicts", time), { encoding: "latin1" });
    expect(kept).toStrictEqual(["changed-\xfe"]);
  });
});

it("takes nothing over that git runs or obeys", async () => {
  const ran = path.join(home, "ran");
  await makeTree(sourceDir, {
    "run.sh": file(`#!/bin/sh\ntouch ${ran}\n`, 0o755),
    "bare/objects/": folder(),
    "bare/refs/": folder(),
  });
  git(sourceDir, "init", "-q");
  git(sourceDir, "add", "run.sh");
  git(sourceDir, "commit", "-qm", "one");
  for (const [from, to] of [
    [sourceDir, base],
    [sourceDir, targetDir],
  ])
    await cp(from, to, { recursive: true });
  const config = await readFile(path.join(targetDir, ".git/config"), "utf8");
  const planted = `[core]\n\trepositoryformatversion = 0\n\tworktree = ..\n\tfsmonitor = ${path.join(sourceDir, "run.sh")}\n`;
  await writeFile(
    path.join(sourceDir, ".git/config"),
    `${config}\tfsmonitor = ${path.join(sourceDir, "run.sh")}\n`,
  );
  for (const bare of ["bare", ".git/lfs/.git"]) {
    await makeTree(path.join(sourceDir, bare), {
      HEAD: file("ref: refs/heads/main\n"),
      config: file(planted),
      "objects/": folder(),
      "refs/": folder(),
    });
  }
  await symlink(ran, path.join(sourceDir, ".git/FETCH_HEAD"));
  await writeFile(path.join(sourceDir, "new.txt"), "work\n");
  await merge();
  for (const place of [".", "bare", ".git/lfs/.git"]) {
    await mkdir(path.join(targetDir, place), { recursive: true });
    git(path.join(targetDir, place), "status");
  }
  git(targetDir, "fetch", ".");
  await expect(readFile(ran)).rejects.toThrow("ENOENT");
  expect(await readFile(path.join(targetDir, ".git/config"), "utf8")).toBe(config);
  expect(await readFile(path.join(targetDir, "new.txt"), "utf8")).toBe("work\n");
});
