// What git says of the work tree.

import { must } from "./commands.mjs";

/**
 * @typedef {object} Source What a binary is built from.
 * @property {string} commit
 * @property {boolean} dirty Whether the work tree differs from it.
 */

/**
 * What a work tree holds. What git ignores makes no difference; a file that it does not know does.
 *
 * @returns {Promise<Source>}
 */
export async function readSource() {
  const commit = (await must("git", ["rev-parse", "HEAD"], { show: false })).trim();
  const changes = await must("git", ["status", "--porcelain"], { show: false });
  return { commit, dirty: changes !== "" };
}

/**
 * The files of a work tree that git knows and that are there: one that was deleted stays known until that is committed.
 *
 * @param {string} folder
 * @returns {Promise<string[]>}
 */
export async function trackedFiles(folder) {
  /** @param {string[]} options */
  const list = async (...options) => {
    const output = await must("git", ["-C", folder, "ls-files", "-z", ...options], { show: false });
    return output.split("\0").filter(Boolean);
  };
  const deleted = new Set(await list("--deleted"));
  return (await list()).filter((file) => !deleted.has(file));
}
