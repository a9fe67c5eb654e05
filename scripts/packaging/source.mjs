// What git says of the work tree.

import { Explained, run } from "../process.mjs";
import { must } from "./commands.mjs";

/** The branch that releases are made of. */
const MAIN = "origin/main";

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

/**
 * Throws where the work tree is not at a tag's commit, or that commit is not on the main branch as it was last fetched.
 *
 * @param {string} tag
 */
export async function requireTagOnMain(tag) {
  const { commit } = await readSource();
  const tagged = await run("git", ["rev-parse", "--verify", "--quiet", `refs/tags/${tag}^{commit}`], {
    keep: "apart",
    show: false,
  });
  if (tagged.code !== 0) {
    throw new Explained(`There is no tag ${tag} here. Make it, or fetch it: git fetch origin tag ${tag}`);
  }
  if (tagged.output.trim() !== commit) {
    throw new Explained(
      `The tag ${tag} is at ${tagged.output.trim()}, and this work tree is at ${commit}.\n` +
        `Check the tag out: git checkout ${tag}`,
    );
  }
  const { code, output } = await run("git", ["merge-base", "--is-ancestor", commit, MAIN], {
    keep: "both",
    show: false,
  });
  if (code === 0) return;
  if (code === 1) {
    throw new Explained(
      `The tag ${tag} is at ${commit}, which is not on ${MAIN}: what is released has to be there.\n` +
        `Land it, delete the tag (git push origin :${tag}), and tag what has landed.`,
    );
  }
  throw new Explained(
    `git does not say whether ${commit} is on ${MAIN}:\n${output}Fetch the whole history: git fetch origin --unshallow`,
  );
}
