// Folders for tests: made from a description, and described again for comparison.

import { execFile } from "node:child_process";
import {
  chmod,
  lstat,
  lutimes,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { onTestFinished } from "vitest";

/** What can be at a name, besides plain text for a file's content. */
export const file = (content = "", mode = 0o644) => ({ kind: "file", content, mode });
export const folder = (mode = 0o755) => ({ kind: "folder", mode });
export const link = (target) => ({ kind: "link", target });
export const fifo = () => ({ kind: "fifo" });

/** Makes a folder that every user may enter. It is removed when the test has ended, or at another `end`. */
export async function temporaryFolder(atEnd = onTestFinished) {
  const made = await realpath(await mkdtemp(path.join(os.tmpdir(), "addon-test-")));
  atEnd(() => rm(made, { recursive: true, force: true }));
  await chmod(made, 0o755);
  return made;
}

/**
 * Puts all temporary files of this process into a new folder until the test has ended, or until another `end`.
 *
 * @returns {Promise<() => Promise<string[]>>} Lists that folder.
 */
export async function watchTemporaryFiles(atEnd = onTestFinished) {
  const made = await temporaryFolder(atEnd);
  keepTemporaryFilesIn(made, atEnd);
  return () => readdir(made);
}

/** Puts all temporary files of this process into a folder until the test has ended, or until another `end`. */
export function keepTemporaryFilesIn(folder, atEnd = onTestFinished) {
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder;
  atEnd(() => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  });
}

/**
 * Fills a folder, and makes it if it is missing.
 *
 * @param {string} root
 * @param {Record<string, string | ReturnType<typeof file | typeof folder | typeof link | typeof fifo>>} tree
 *   What is at each relative path. Folders above a path need no entry of their own.
 */
export async function makeTree(root, tree) {
  await mkdir(root, { recursive: true });
  const modes = [];
  for (const [name, value] of Object.entries(tree)) {
    const entry = typeof value === "string" ? file(value) : value;
    const at = path.join(root, name);
    await mkdir(path.dirname(at), { recursive: true });
    switch (entry.kind) {
      case "file":
        await writeFile(at, entry.content);
        modes.push([at, entry.mode]);
        break;
      case "folder":
        await mkdir(at, { recursive: true });
        modes.push([at, entry.mode]);
        break;
      case "link":
        await symlink(entry.target, at);
        break;
      case "fifo":
        await promisify(execFile)("mkfifo", [at]);
        break;
    }
  }
  // Last, and innermost first, so that no mode prevents it.
  for (const [at, mode] of modes.reverse()) await chmod(at, mode);
  return root;
}

/**
 * A folder as an object for `toEqual`: by relative path `"644 content"`, `"755/"` for a folder, `"-> target"` for a
 * link and `"other"`.
 *
 * @param {string} root
 * @param {{ without?: string }} [options] `without`: a top-level name that is left out.
 */
export async function describeTree(root, { without } = {}) {
  const tree = {};
  const visit = async (folder) => {
    const names = await readdir(bytePath(root, folder), { encoding: "latin1" });
    for (const name of names.sort()) {
      const inner = folder === "" ? name : `${folder}/${name}`;
      if (inner === without) continue;
      const shown = Buffer.from(inner, "latin1").toString();
      const at = bytePath(root, inner);
      const stats = await lstat(at);
      const mode = (stats.mode & 0o7777).toString(8);
      if (stats.isDirectory()) {
        tree[shown] = `${mode}/`;
        await visit(inner);
      } else if (stats.isSymbolicLink()) {
        tree[shown] = `-> ${await readlink(at)}`;
      } else {
        tree[shown] = stats.isFile() ? `${mode} ${await readFile(at, "utf8")}` : "other";
      }
    }
  };
  await visit("");
  return tree;
}

/** The path of a name that need not be UTF-8, given with one character per byte. */
export const bytePath = (root, name) => Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, "latin1")]);

/** Sets the time of a file, folder or link, in seconds. (As a number, Node takes one before 1970 for now.) */
export const setTime = (at, seconds) => lutimes(at, new Date(seconds * 1000), new Date(seconds * 1000));

/** The metadata that shows whether a file was written again. */
export async function identity(at) {
  const { ino, mtimeNs, ctimeNs } = await lstat(at, { bigint: true });
  return { ino, mtimeNs, ctimeNs };
}
