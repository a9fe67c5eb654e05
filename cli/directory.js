"use strict";

// Access to files below a directory without following a link, whatever another process does meanwhile: each directory is
// opened by its single name, without following a link, and becomes the working directory; then only single names are used.
// All of this is synchronous, so no other code of this process sees the changed working directory.

const fs = require("node:fs");
const { decodeName } = require("./text.js");

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;

/**
 * What is at a path. For a file, `fd` is open, and the caller closes it.
 *
 * @typedef {object} Found
 * @property {"file" | "link" | "directory" | "other"} kind
 * @property {number} size
 * @property {number} mode
 * @property {string} target A link's.
 * @property {number | undefined} fd
 */

/**
 * The top directory, which is opened once.
 *
 * @typedef {{ dir: string, fd: number }} Root
 */

/**
 * @param {string} dir
 * @returns {Root}
 */
function openRoot(dir) {
  const real = fs.realpathSync(dir);
  return { dir: real, fd: fs.openSync(real, O_RDONLY | O_DIRECTORY) };
}

/**
 * Runs `work` in a directory named by its path from the root. Fails with `ENOTDIR` or `ELOOP` if a link is in the
 * place of one of its directories.
 *
 * @template T
 * @param {Root} root
 * @param {string[]} names As {@link decodeName} gives them.
 * @param {() => T} work
 * @returns {T}
 */
function inDirectory(root, names, work) {
  changeTo(root.fd, root.dir);
  for (const name of names) enter(name);
  return work();
}

/**
 * Makes a directory in the working directory the working directory.
 *
 * @param {string} name
 */
function enter(name) {
  const fd = fs.openSync(encodeName(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    changeTo(fd, name);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Makes an open directory the working directory. Node has no `fchdir`: Linux has a path for an open directory, and
 * elsewhere it is compared after it was entered by its name.
 *
 * @param {number} fd
 * @param {string} name
 */
function changeTo(fd, name) {
  process.chdir(process.platform === "linux" ? `/proc/self/fd/${fd}` : name);
  const [is, wanted] = [fs.statSync(".", { bigint: true }), fs.fstatSync(fd, { bigint: true })];
  if (is.ino !== wanted.ino || is.dev !== wanted.dev) {
    throw Object.assign(new Error("it was replaced while it was looked at"), { code: "ENOTDIR" });
  }
}

/**
 * A name's bytes.
 *
 * @param {string} name As {@link decodeName} gives it.
 */
function encodeName(name) {
  const parts = Array.from(name, (character) => {
    const code = /** @type {number} */ (character.codePointAt(0));
    return code >= 0xdc80 && code <= 0xdcff ? Buffer.of(code - 0xdc00) : Buffer.from(character);
  });
  return Buffer.concat(parts);
}

/** The names in the working directory, in order. */
function namesHere() {
  return fs.readdirSync(".", { encoding: "buffer" }).map(decodeName).sort();
}

/**
 * What is at a name in the working directory; `undefined` if nothing is there.
 *
 * @param {string} name
 * @returns {Found | undefined}
 */
function look(name) {
  const bytes = encodeName(name);
  const stats = fs.lstatSync(bytes, { throwIfNoEntry: false });
  if (stats === undefined) return undefined;
  const found = { size: stats.size, mode: stats.mode & 0o777, target: "", fd: undefined };
  if (stats.isDirectory()) return { ...found, kind: "directory" };
  if (stats.isSymbolicLink()) {
    return { ...found, kind: "link", target: decodeName(fs.readlinkSync(bytes, { encoding: "buffer" })) };
  }
  if (!stats.isFile()) return { ...found, kind: "other" };
  const fd = fs.openSync(bytes, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  return { ...found, kind: "file", size: fs.fstatSync(fd).size, fd };
}

/**
 * What is at a path below the root; `undefined` if nothing is there, or if something else is in the place of a
 * directory above it.
 *
 * @param {Root} root
 * @param {string[]} names
 */
function lookAt(root, names) {
  try {
    return inDirectory(root, names.slice(0, -1), () => look(/** @type {string} */ (names.at(-1))));
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ELOOP"].includes(String(codeOf(error)))) return undefined;
    throw error;
  }
}

/**
 * The paths of all files, links and empty directories below the working directory.
 *
 * @param {string[]} [above]
 * @param {string[][]} [found]
 */
function leaves(above = [], found = []) {
  const here = fs.openSync(".", O_RDONLY | O_DIRECTORY);
  try {
    const names = namesHere();
    if (names.length === 0 && above.length > 0) found.push(above);
    for (const name of names) {
      if (fs.lstatSync(encodeName(name)).isDirectory()) {
        enter(name);
        leaves([...above, name], found);
        changeTo(here, "..");
      } else found.push([...above, name]);
    }
  } finally {
    fs.closeSync(here);
  }
  return found;
}

/**
 * Removes a name in the working directory and everything below it, even in read-only directories.
 *
 * @param {string} name
 */
function remove(name) {
  const bytes = encodeName(name);
  if (!fs.lstatSync(bytes).isDirectory()) return fs.unlinkSync(bytes);
  const here = fs.openSync(".", O_RDONLY | O_DIRECTORY);
  try {
    enter(name);
    fs.chmodSync(".", 0o700);
    for (const below of namesHere()) remove(below);
    changeTo(here, "..");
  } finally {
    fs.closeSync(here);
  }
  fs.rmdirSync(bytes);
}

/** @param {unknown} error */
function codeOf(error) {
  return /** @type {NodeJS.ErrnoException} */ (error).code;
}

module.exports = { codeOf, encodeName, inDirectory, leaves, lookAt, namesHere, openRoot, remove };
