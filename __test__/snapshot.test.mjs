// captureDirectorySnapshot and directoryEntryMatchesBaseline, compared with the npm release.

import * as release from "@paperclipai/adapter-utils/workspace-restore-merge";
import { createHash } from "node:crypto";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { captureDirectorySnapshot, directoryEntryMatchesBaseline } from "../index.js";
import { bytePath, fifo, file, folder, link, makeTree, temporaryFolder } from "./support/folders.mjs";
import { callUnprivileged } from "./support/processes.mjs";

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

let root;

beforeEach(async () => {
  root = path.join(await temporaryFolder(), "root");
  await mkdir(root);
});

const VARIED = {
  "a.txt": "a",
  "empty.txt": "",
  "large.bin": "x".repeat(1_000_000),
  "bin/run": file("#!/bin/sh\n", 0o755),
  "private/key": file("secret", 0o600),
  private: folder(0o700),
  setuid: file("s", 0o4755),
  sticky: folder(0o1777),
  "empty-folder": folder(),
  link: link("a.txt"),
  "folder-link": link("bin"),
  dangling: link("nowhere"),
  "new\nline": "n",
  "back\\slash": "b",
  '"quotes"': "q",
  "\u0001control": "c",
  "é/😀": "text",
  "e\u0301": "not composed",
  "\u2028": "separator",
  __proto__: "p",
  constructor: "c",
};

describe("a snapshot", () => {
  it("has the release's entries", async () => {
    await makeTree(root, { ...VARIED, ["__proto__"]: "p", pipe: fifo() });
    const ours = await captureDirectorySnapshot(root);
    const theirs = await release.captureDirectorySnapshot(root);
    expect(ours.exclude).toStrictEqual(theirs.exclude);
    expect(ours.entries).toBeInstanceOf(Map);
    expect([...ours.entries].sort()).toStrictEqual([...theirs.entries].sort());
    expect(ours.entries.has("pipe")).toBe(false);
  });

  it("has plain entries, with full modes and SHA-256 in hexadecimal", async () => {
    await makeTree(root, { "a.txt": file("text", 0o640), sub: folder(0o711), link: link("a.txt") });
    expect([...(await captureDirectorySnapshot(root)).entries]).toStrictEqual([
      ["a.txt", { kind: "file", mode: 0o100640, hash: sha256("text") }],
      ["link", { kind: "symlink", target: "a.txt" }],
      ["sub", { kind: "dir" }],
    ]);
  });

  it("has a folder before what is in it", async () => {
    await makeTree(root, { "b/c/d": "", a: "", "b-c": "" });
    const paths = [...(await captureDirectorySnapshot(root)).entries.keys()];
    for (const inner of paths.filter((at) => at.includes("/"))) {
      expect(paths.indexOf(path.dirname(inner)), inner).toBeLessThan(paths.indexOf(inner));
    }
  });

  it("of many entries is passed in pieces", async () => {
    const tree = Object.fromEntries(Array.from({ length: 2500 }, (_, at) => [`d${at % 40}/f${at}`, `${at}`]));
    await makeTree(root, tree);
    const ours = await captureDirectorySnapshot(root);
    expect(ours.entries.size).toBe(2540);
    expect(ours.entries).toEqual((await release.captureDirectorySnapshot(root)).entries);
  });

  it("of a missing folder is refused, because it would look like an emptied one", async () => {
    const missing = path.join(root, "missing");
    await expect(captureDirectorySnapshot(missing)).rejects.toMatchObject({ code: "ENOENT", path: missing });
  });

  it("of a folder behind a link is the folder's", async () => {
    await makeTree(root, { "a.txt": "a" });
    await symlink("root", `${root}-link`);
    expect([...(await captureDirectorySnapshot(`${root}-link`)).entries.keys()]).toStrictEqual(["a.txt"]);
  });

  it.each([
    ["a folder", { "closed/a.txt": "a", closed: folder(0o000) }, "closed"],
    ["a file", { "a.txt": file("a", 0o000) }, "a.txt"],
  ])("with %s that may not be read is refused", async (_, tree, name) => {
    await makeTree(root, tree);
    const { error } = await callUnprivileged("captureDirectorySnapshot", root);
    expect(error).toMatchObject({ code: "EACCES", path: path.join(root, name) });
  });

  it("of a root that may not be read is refused", async () => {
    await makeTree(root, { "a.txt": "a" });
    await chmod(root, 0o000);
    const { error } = await callUnprivileged("captureDirectorySnapshot", root);
    await chmod(root, 0o755);
    expect(error).toMatchObject({ code: "EACCES", path: root });
  });
});

describe("exclude", () => {
  it.each(["keep/", "./keep", "keep//x/..", "other/../keep"])("takes %j for keep", async (spelled) => {
    await makeTree(root, { "keep/one": "1", "keeper/two": "2" });
    const { exclude, entries } = await captureDirectorySnapshot(root, { exclude: [spelled] });
    expect([...entries.keys()]).toStrictEqual(["keeper", "keeper/two"]);
    expect(exclude).toStrictEqual([spelled]);
  });

  it.each(["../keep", "/keep", "a/../../b", "."])(
    "refuses %j, which is not below the folder",
    async (spelled) => {
      await expect(captureDirectorySnapshot(root, { exclude: ["keep", spelled] })).rejects.toMatchObject({
        code: "ERR_INVALID_ARG_VALUE",
        message: expect.stringContaining("options.exclude"),
      });
    },
  );

  const TREE = {
    "keep/a": "",
    "keep/sub/b": "",
    keeper: "",
    "sub/keep": "",
    "sub/deep/c": "",
    "sub/deeper": "",
    "a*b": "",
    axb: "",
  };

  it.each([
    [[], 12],
    [["keep"], 8],
    [["sub/deep"], 10],
    [["keep/", "sub/"], 3],
    [["a*b"], 11],
    [["missing"], 12],
  ])("%j leaves out exactly these paths and all below them", async (exclude, count) => {
    await makeTree(root, TREE);
    const { entries } = await captureDirectorySnapshot(root, { exclude });
    expect(entries.size).toBe(count);
    for (const left of exclude) expect(entries.has(left)).toBe(false);
  });

  it("is returned without repetitions, as a new list", async () => {
    const exclude = ["b", "a", "b", "a"];
    const snapshot = await captureDirectorySnapshot(root, { exclude });
    expect(snapshot.exclude).toStrictEqual(["b", "a"]);
    expect(exclude).toStrictEqual(["b", "a", "b", "a"]);
  });

  it("prevents everything below from being read", async () => {
    await makeTree(root, { "closed/a.txt": "a", closed: folder(0o000) });
    const { value, error } = await callUnprivileged("captureDirectorySnapshot", root, {
      exclude: ["closed"],
    });
    expect(error).toBeUndefined();
    expect(value.exclude).toStrictEqual(["closed"]);
  });
});

describe("names that are not UTF-8", () => {
  const NAMES = {
    "bad-\xff": "bad-\udcff",
    "\x80\x81": "\udc80\udc81",
    // A truncated character, an overlong encoding, a surrogate, and a value beyond Unicode.
    "cut-\xe2\x82": "cut-\udce2\udc82",
    "\xc0\xafx": "\udcc0\udcafx",
    "\xed\xb3\xbf": "\udced\udcb3\udcbf",
    "\xf4\x90\x80\x80": "\udcf4\udc90\udc80\udc80",
    // These are valid characters.
    "\xef\xbf\xbd": "\ufffd",
    "\xf0\x9f\x98\x80": "😀",
  };

  it("are passed as lone surrogates, one for each byte, and name the same files", async () => {
    for (const [bytes, text] of Object.entries(NAMES)) {
      await writeFile(bytePath(root, bytes), text, "utf16le");
      await mkdir(bytePath(root, `folder-${bytes}`));
      await symlink(Buffer.from(bytes, "latin1"), bytePath(root, `folder-${bytes}/link`));
    }
    const { entries } = await captureDirectorySnapshot(root);
    expect(entries.size).toBe(3 * Object.keys(NAMES).length);
    for (const text of Object.values(NAMES)) {
      const { mode } = entries.get(text);
      const expected = { kind: "file", mode, hash: sha256(Buffer.from(text, "utf16le")) };
      expect(entries.get(text)).toStrictEqual(expected);
      expect(entries.get(`folder-${text}`)).toStrictEqual({ kind: "dir" });
      expect(entries.get(`folder-${text}/link`)).toStrictEqual({ kind: "symlink", target: text });
      for (const [at, entry] of [
        [text, expected],
        [`folder-${text}/link`, { kind: "symlink", target: text }],
      ]) {
        expect(await directoryEntryMatchesBaseline(root, at, entry), at).toBe(true);
      }
    }
  });

  it("can be excluded, and be the root", async () => {
    await mkdir(bytePath(root, "root-\xff"));
    await writeFile(bytePath(root, "root-\xff/bad-\xfe"), "");
    await writeFile(bytePath(root, "root-\xff/good"), "");
    const { entries } = await captureDirectorySnapshot(`${root}/root-\udcff`, { exclude: ["bad-\udcfe"] });
    expect([...entries.keys()]).toStrictEqual(["good"]);
  });
});

describe("directoryEntryMatchesBaseline", () => {
  it("answers as the release does, for every entry against every other", async () => {
    await makeTree(root, {
      "a.txt": "a",
      "same.txt": "a",
      "b.txt": "b",
      "run.sh": file("a", 0o755),
      setuid: file("a", 0o4644),
      folder: folder(),
      "closed-folder": folder(0o700),
      link: link("a.txt"),
      "other-link": link("b.txt"),
      "folder-link": link("folder"),
      dangling: link("nowhere"),
      pipe: fifo(),
    });
    const { entries } = await captureDirectorySnapshot(root);
    const baselines = [
      ...entries.values(),
      { kind: "file", mode: 0o644, hash: sha256("a") },
      { kind: "file", mode: 0o100644, hash: sha256("a").toUpperCase() },
      { kind: "file" },
      { kind: "symlink" },
      { kind: "fifo" },
      {},
      { kind: "dir", mode: 1, more: true },
    ];
    const paths = [
      ...entries.keys(),
      "pipe",
      "missing",
      "missing/below",
      "a.txt/below",
      "link/below",
      "folder-link/below",
    ];
    const results = new Set();
    for (const at of [...paths, ""]) {
      for (const entry of baselines) {
        const ours = await directoryEntryMatchesBaseline(root, at, entry);
        expect(ours, `${at} ${JSON.stringify(entry)}`).toBe(
          await release.directoryEntryMatchesBaseline(root, at, entry),
        );
        results.add(ours);
      }
    }
    expect(results).toStrictEqual(new Set([true, false]));
  });

  it("is false where the root is missing", async () => {
    expect(await directoryEntryMatchesBaseline(path.join(root, "missing"), "a", { kind: "dir" })).toBe(false);
  });

  it("never reads outside the root", async () => {
    await makeTree(path.dirname(root), { "outside/a.txt": "a" });
    await symlink("../outside", path.join(root, "link"));
    const { mode, hash } = (await captureDirectorySnapshot(path.dirname(root))).entries.get("outside/a.txt");
    const entry = { kind: "file", mode, hash };
    expect(await directoryEntryMatchesBaseline(root, "link/a.txt", entry)).toBe(false);
    for (const at of ["../outside/a.txt", path.join(path.dirname(root), "outside/a.txt")]) {
      await expect(directoryEntryMatchesBaseline(root, at, entry)).rejects.toMatchObject({
        code: "ERR_SANDBOX_UNSAFE_PATH",
        path: at,
      });
    }
  });
});
