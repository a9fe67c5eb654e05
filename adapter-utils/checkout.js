"use strict";

// The files of a clone as they are in the local checkout, where git sees no difference.

const { fs, path } = require("../js/node.js");
const { git, lineEndsOf, records } = require("./repository.js");
const { foldersOf } = require("./staged.js");

/** How many files are looked at before anything else may run. A call that waits takes ten times as long for each. */
const AT_ONCE = 200;

/** The bits of a mode that git compares: the type, and whether its owner may execute it. */
const COMPARED = 0o170100;

/**
 * Gives the files of a clone what git does not look at: line ends and permission bits as they are here. What the sandbox has is
 * the base of the merge, so a file that differs from the local one would count as changed here, and not be deleted by a deletion.
 *
 * @param {string} clone
 * @param {string} dir
 * @param {string} workspace
 */
async function checkOutAsHere(clone, dir, workspace) {
  const inClone = (/** @type {string[]} */ ...args) => git(clone, args, { workspace });
  const lineEnds = await lineEndsOf(dir, workspace);
  for (const [key, value] of lineEnds) await inClone("config", key, value);
  if (lineEnds.length > 0) {
    // Git writes no file that is as the index says.
    await inClone("read-tree", "--empty");
    await inClone("reset", "--quiet", "--hard");
  }
  const names = records(await inClone("ls-files", "-z"));
  const all = [...names, ...new Set(names.flatMap(foldersOf))];
  /** @type {Map<number, number>} What git has given the first file of each kind. */
  const given = new Map();
  for (let at = 0; at < all.length; at += AT_ONCE) {
    for (const name of all.slice(at, at + AT_ONCE)) {
      const wanted = statOf(path.join(dir, name));
      if (wanted && given.get(wanted.mode & COMPARED) !== wanted.mode) {
        giveMode(path.join(clone, name), wanted.mode, given);
      }
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/**
 * Gives a file or directory of a clone a mode, if git would not see a difference.
 *
 * @param {string} file
 * @param {number} mode
 * @param {Map<number, number>} given
 */
function giveMode(file, mode, given) {
  const own = statOf(file);
  if (!own || !(own.isFile() || own.isDirectory()) || (own.mode & COMPARED) !== (mode & COMPARED)) return;
  if (!given.has(own.mode & COMPARED)) given.set(own.mode & COMPARED, own.mode);
  if (own.mode !== mode) fs.chmodSync(file, mode & 0o7777);
}

/** @param {string} file */
function statOf(file) {
  try {
    return fs.lstatSync(file, { throwIfNoEntry: false });
  } catch (error) {
    const { code } = /** @type {NodeJS.ErrnoException} */ (error);
    // Above it is a file, or a link that leads to itself.
    if (code === "ENOTDIR" || code === "ELOOP") return undefined;
    throw error;
  }
}

module.exports = { checkOutAsHere };
