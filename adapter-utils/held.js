"use strict";

// Which objects of a sandbox are not merged, though git takes them: checked out, they would make git obey the sandbox.

const { native } = require("../binding.js");
const { awaitNative } = require("../js/native.js");
const { path } = require("../js/node.js");
const { REPOSITORIES, git, headOf, makeBorrowing } = require("./repository.js");

/** Why they are not merged. */
const OBEYED =
  "where its files are written, they would be in .paperclip-runtime, or git would take a directory for a repository and obey what it has there";

/**
 * Those of some objects that git would obey something of, once it is checked out. The local repository has them already.
 *
 * @param {object} input
 * @param {string} input.localDir
 * @param {string} input.temporary A folder for a repository in which nothing is configured.
 * @param {string[]} input.objects
 * @param {string | undefined} input.known A commit that the workspace was uploaded with.
 * @returns {Promise<Set<string>>}
 */
async function findObeyed({ localDir, temporary, objects, known }) {
  const tips = [...new Set(objects)];
  if (tips.length === 0) return new Set();
  const repository = path.join(temporary, "search.git");
  await makeBorrowing(localDir, repository);
  const here = await objectsHere(localDir, known);
  const input = { repository, checkout: localDir, tips, here };
  return new Set(JSON.parse(await awaitNative(native().commitsToHold(JSON.stringify(input)))));
}

/**
 * What local references name, without those of this package: what these name has come from a sandbox.
 *
 * @param {string} dir
 * @param {string | undefined} known
 */
async function objectsHere(dir, known) {
  const listed = await git(dir, ["for-each-ref", "--format=%(objectname) %(refname)"]);
  const named = listed
    .split("\n")
    .filter((line) => line !== "" && !line.includes(" refs/paperclip/"))
    .map((line) => line.slice(0, line.indexOf(" ")));
  const all = new Set([...named, (await headOf(dir)) ?? "", known ?? ""]);
  all.delete("");
  if (all.size === 0) return [];
  // A reference may name what was deleted, and the commit of the upload may be gone.
  const stdin = [...all].map((object) => `${object}\n`).join("");
  const answer = await git(dir, ["cat-file", "--batch-check"], { stdin });
  return Array.from(
    answer.matchAll(/^([0-9a-f]+) (?!missing)/gm),
    ([, object]) => /** @type {string} */ (object),
  );
}

/**
 * Whether a commit has something where repositories of the workspace are that `HEAD` does not have there.
 *
 * @param {string} dir
 * @param {string} commit
 */
async function bringsRepositories(dir, commit) {
  const entryIn = (/** @type {string} */ tree) => git(dir, ["ls-tree", "-z", tree, "--", REPOSITORIES]);
  const theirs = await entryIn(commit);
  return theirs !== "" && theirs !== (await entryIn("HEAD"));
}

module.exports = { OBEYED, bringsRepositories, findObeyed };
