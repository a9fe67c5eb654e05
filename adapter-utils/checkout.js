"use strict";

// The files of a clone as they are in the local checkout, where git sees no difference.

const { fs, path } = require("../js/node.js");
const { git, lineEndsOf, records } = require("./repository.js");
const { foldersOf } = require("./staged.js");

/** How many files are looked at at once. */
const AT_ONCE = 64;

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
  const folders = new Set(names.flatMap(foldersOf));
  const all = [...names, ...folders];
  let next = 0;
  const work = async () => {
    for (let name = all[next++]; name !== undefined; name = all[next++]) {
      await giveMode(path.join(clone, name), path.join(dir, name));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

/**
 * Gives a file or directory the permission bits of another one, if git would not see a difference.
 *
 * @param {string} file
 * @param {string} other
 */
async function giveMode(file, other) {
  const [own, wanted] = await Promise.all([file, other].map(statOf));
  if (!own || !wanted || (own.mode & S_COMPARED) !== (wanted.mode & S_COMPARED)) return;
  const bits = wanted.mode & 0o7777;
  if (!(own.isFile() || own.isDirectory()) || (own.mode & 0o7777) === bits) return;
  await fs.promises.chmod(file, bits);
}

/** The bits of a mode that git compares: the type, and whether its owner may execute it. */
const S_COMPARED = 0o170100;

/** @param {string} file */
const statOf = (file) =>
  fs.promises.lstat(file).catch((error) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });

module.exports = { checkOutAsHere };
