// Reads folders without the addon, to check what the addon did.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, readdir, readlink } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";

/**
 * One name in a tree.
 *
 * @typedef {object} TreeEntry
 * @property {"dir" | "file" | "symlink" | "other"} kind
 * @property {number} mode The permission bits, `0777`.
 * @property {number} size In bytes; of files only.
 * @property {number} mtimeMs
 * @property {string} content A file's SHA-256 in hexadecimal, a link's target; otherwise empty.
 */

/**
 * Names are bytes, one character per byte ("latin1"), so that they need not be UTF-8. {@link readableName} converts them to
 * text.
 *
 * @typedef {Map<string, TreeEntry>} Tree
 */

/** The file-system path of a name below a folder, as bytes. */
const below = (/** @type {string} */ root, /** @type {string} */ name) =>
  Buffer.concat([Buffer.from(root + path.sep), Buffer.from(name, "latin1")]);

/**
 * Reads a folder and everything below it, in the byte order of the names.
 *
 * @param {string} root
 * @param {{ leaveOut?: (name: string) => boolean }} [options] `leaveOut` decides on paths relative to `root`.
 * @returns {Promise<Tree>}
 */
export async function readTree(root, { leaveOut = () => false } = {}) {
  /** @type {Tree} */
  const tree = new Map();
  const visit = async (/** @type {string} */ folder) => {
    const names = await readdir(folder === "" ? root : below(root, folder), { encoding: "latin1" });
    for (const name of names.sort()) {
      const relative = folder === "" ? name : `${folder}/${name}`;
      if (leaveOut(relative)) continue;
      const entry = await readEntry(below(root, relative));
      tree.set(relative, entry);
      if (entry.kind === "dir") await visit(relative);
    }
  };
  await visit("");
  return tree;
}

/**
 * @param {Buffer} file
 * @returns {Promise<TreeEntry>}
 */
async function readEntry(file) {
  const stats = await lstat(file);
  const { mtimeMs } = stats;
  const entry = { mode: stats.mode & 0o777, size: 0, mtimeMs, content: "" };
  if (stats.isDirectory()) return { ...entry, kind: "dir" };
  if (stats.isSymbolicLink()) {
    return { ...entry, kind: "symlink", content: await readlink(file, { encoding: "latin1" }) };
  }
  if (!stats.isFile()) return { ...entry, kind: "other" };
  return { ...entry, kind: "file", size: stats.size, content: await digest(file) };
}

/** @param {Buffer} file */
async function digest(file) {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return hash.digest("hex");
}

/**
 * The names at which two trees differ in kind, bytes, link target or a file's permissions.
 *
 * @param {Tree} left
 * @param {Tree} right
 * @param {{ exact?: boolean }} [options] `exact`: modification times and folders' permissions count, too.
 * @returns {string[]} The names.
 */
export function differences(left, right, { exact = false } = {}) {
  const names = new Set([...left.keys(), ...right.keys()]);
  return [...names].filter((name) => {
    const [a, b] = [left.get(name), right.get(name)];
    if (!a || !b || a.kind !== b.kind || a.content !== b.content) return true;
    const isModeMeant = a.kind === "file" || (exact && a.kind === "dir");
    return (isModeMeant && a.mode !== b.mode) || (exact && a.mtimeMs !== b.mtimeMs);
  });
}

/**
 * A name as text. Bytes that are not UTF-8 become U+FFFD.
 *
 * @param {string} name
 */
export function readableName(name) {
  return Buffer.from(name, "latin1").toString("utf8");
}

/**
 * Whether a name is valid UTF-8.
 *
 * @param {string} name
 */
export function isText(name) {
  return Buffer.from(readableName(name), "utf8").toString("latin1") === name;
}
