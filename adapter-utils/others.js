"use strict";

// The branches, tags and stashes of a sandbox beside the commits of its `HEAD`: which of them are new, and how they are kept
// in the local repository, under references that nothing else uses.

const { crypto } = require("../js/node.js");
const { quote } = require("./commands.js");
const { fetchChecked, git, keepCommit, nameOfKept, requireComplete, stamp } = require("./repository.js");

/**
 * A branch, a tag or an entry of the stash in the sandbox.
 *
 * @typedef {object} Other
 * @property {string} name Such as `heads/main`, `tags/v1` or `stash/0`.
 * @property {string} object What it names.
 * @property {boolean} [isHere] Whether that is reachable in the local repository.
 */

/** The most references that one restore takes over: each object name is an argument in a command. */
const OTHERS_MAX = 500;

/** The last line of a list that is complete. */
const END = "listed";

/**
 * Adds a list of all branches, tags and stashes to the file with the sandbox's status, after its first line. A failure of it
 * is no failure of the command: then the end is missing.
 *
 * @param {string} remoteDir
 * @param {string} statusPath
 */
const listOthers = (remoteDir, statusPath) => `{
g() { git -C ${quote(remoteDir)} "$@" 2>/dev/null; }
echo
{ g rev-parse -q --verify HEAD || echo; } &&
g for-each-ref --format='%(objectname) %(refname)' refs/heads refs/tags refs/stash && {
if g rev-parse -q --verify refs/stash >/dev/null; then g rev-list -g refs/stash -- || :; fi
echo ${END}
}
} >> ${quote(statusPath)} || :`;

/**
 * Reads such a list; `undefined` where it is not complete. What the sandbox's `HEAD` names is none of it. Names may have any
 * characters that git allows, spaces other than that of ASCII too.
 *
 * @param {string[]} lines
 * @returns {Other[] | undefined}
 */
function readOthers(lines) {
  const [head, ...listed] = lines;
  const end = listed.indexOf(END);
  if (end === -1) return undefined;
  /** @type {Other[]} */
  const others = [];
  const stashed = new Set();
  for (const text of listed.slice(0, end)) {
    const [, object, kind, name] =
      /^([0-9a-f]{40,64})(?: refs\/(heads\/|tags\/|stash$)(.*))?$/s.exec(text) ?? [];
    if (object === undefined) return undefined;
    if (kind !== undefined && kind !== "stash") {
      if (object !== head || kind === "tags/") others.push({ name: kind + name, object });
    } else if (!stashed.has(object)) {
      // The latest entry is the reference's own value, and is listed once more where there is a log of them.
      others.push({ name: `stash/${stashed.size}`, object });
      stashed.add(object);
    }
  }
  return others;
}

/**
 * Those that the local repository does not have: commits that nothing reaches here, and tags that have another value here, or
 * none. No program runs where there are none but branches at known commits.
 *
 * @param {string} dir
 * @param {Other[]} others
 * @param {string[]} known Commits that are here.
 * @returns {Promise<Other[]>}
 */
async function newOnes(dir, others, known) {
  const isTag = (/** @type {Other} */ { name }) => name.startsWith("tags/");
  const unknown = others.filter((other) => isTag(other) || !known.includes(other.object));
  if (unknown.length === 0) return [];
  const tags = unknown.some(isTag) ? await tagsOf(dir) : new Set();
  const isKept = (/** @type {Other} */ { object, name }) =>
    [name, nameOfKept(object, "sandbox")].some((taken) => tags.has(`${object} ${taken}`));
  const candidates = unknown.filter((other) => !isTag(other) || !isKept(other));
  const reached = await reachedOf(dir, candidates);
  const tagged = candidates.filter(({ object }) => known.includes(object) && !reached.has(object));
  // The sandbox cannot pack a commit that it only has from here.
  for (const { object } of tagged) {
    const isComplete = await requireComplete(dir, [object]).then(
      () => true,
      () => false,
    );
    if (isComplete) reached.add(object);
  }
  return candidates
    .map((other) => ({ ...other, isHere: reached.has(other.object) }))
    .filter((other) => !other.isHere || isTag(other));
}

/**
 * The tags of a repository and what earlier restores have kept: the value and the name of each.
 *
 * @param {string} dir
 */
async function tagsOf(dir) {
  const listed = await git(dir, [
    "for-each-ref",
    "--format=%(objectname) %(refname)",
    "refs/tags",
    "refs/paperclip",
  ]);
  return new Set(listed.split("\n").map((line) => line.replace(/ refs\/(paperclip\/[^/]*\/)?/, " ")));
}

/**
 * Which of these objects are commits that the repository's references reach. (A tag's object is not, though its commit may be.)
 *
 * @param {string} dir
 * @param {Other[]} others
 */
async function reachedOf(dir, others) {
  const lines = (/** @type {string[]} */ objects) => objects.map((object) => `${object}\n`).join("");
  const ask = { stdin: lines(others.map(({ object }) => object)) };
  const answer = await git(dir, ["cat-file", "--batch-check"], ask);
  const commits = Array.from(answer.matchAll(/^([0-9a-f]+) commit /gm), ([, object]) => object);
  if (commits.length === 0) return new Set();
  const list = { stdin: lines(commits) };
  const unreached = await git(dir, ["rev-list", "--stdin", "--not", "--all"], list);
  const isUnreached = new Set(unreached.split("\n"));
  return new Set(commits.filter((commit) => !isUnreached.has(commit)));
}

/**
 * The command that packs objects of the sandbox into a bundle, by references that it removes again.
 *
 * @param {object} input
 * @param {string} input.remoteDir
 * @param {string} input.bundlePath
 * @param {string} input.exportRef The references are below this one.
 * @param {string[]} input.objects
 * @param {string[]} input.known Commits whose history is not packed, where the sandbox has them.
 */
const packOthers = ({ remoteDir, bundlePath, exportRef, objects, known }) => `set -e
f=${quote(bundlePath)} r=${quote(exportRef)} i=0 known=
g() { git -C ${quote(remoteDir)} "$@"; }
trap 'g for-each-ref --format="delete %(refname)" "$r" | g update-ref --stdin' EXIT
mkdir -p "$(dirname "$f")"
rm -f "$f"
for o in ${known.map(quote).join(" ")}; do
  if g cat-file -e "$o^{commit}" 2>/dev/null; then known="$known $o"; fi
done
for o in ${objects.join(" ")}; do
  g update-ref "$r/$i" "$o"
  i=$((i + 1))
done
g bundle create -q "$f" --glob="$r/*" \${known:+--not $known}`;

/**
 * Takes a bundle's objects over, and calls `use` with those that the bundle's references name.
 *
 * @template T
 * @param {object} input
 * @param {string} input.localDir
 * @param {string} input.bundlePath
 * @param {string} input.exportRef
 * @param {string[]} input.known
 * @param {(objects: Set<string>) => Promise<T>} use
 */
async function withBundle({ localDir, bundlePath, exportRef, known }, use) {
  const imported = `refs/paperclip/git-sync/imported/others/${crypto.randomUUID()}`;
  const listed = (/** @type {string} */ format) =>
    git(localDir, ["for-each-ref", `--format=${format}`, `${imported}/`]);
  try {
    await fetchChecked({ localDir, bundlePath, bases: known, refspec: [`${exportRef}/*`, `${imported}/*`] });
    return await use(new Set((await listed("%(objectname)")).split("\n")));
  } finally {
    await git(localDir, ["update-ref", "--stdin"], { stdin: await listed("delete %(refname)") });
  }
}

/**
 * Creates the references. None that exists is changed: one whose name git refuses, or that exists, is named by its object.
 *
 * @param {string} dir
 * @param {Other[]} others
 * @returns {Promise<string[]>} Their names.
 */
async function keepAll(dir, others) {
  const time = stamp();
  /** @type {Set<string>} */
  const kept = new Set();
  for (const { name, object } of others) {
    const ref = `refs/paperclip/${time}/${name}`;
    const isCreated = await git(dir, ["update-ref", "--no-deref", ref, object, ""]).then(
      () => true,
      () => false,
    );
    kept.add(isCreated ? ref : await keepCommit(dir, object, "sandbox", time));
  }
  return [...kept];
}

module.exports = { OTHERS_MAX, keepAll, listOthers, newOnes, packOthers, readOthers, withBundle };
