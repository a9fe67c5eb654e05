"use strict";

// The index of a local repository while a sandbox' work comes back: what is staged there stays so, unless the agent has
// committed to the same files.

const { fs, path } = require("../js/node.js");
const { HEAVY_NAMES, isOrIsBelow } = require("./excludes.js");
const {
  IDENTITY,
  LOCALLY,
  branchOf,
  git,
  headOf,
  includes,
  keepCommit,
  records,
  zeroEnded,
} = require("./repository.js");

/** @import * as own from "./index.js" */

/** What is in a repository while an operation on its commits is in progress, and how that is called. */
const OPERATIONS = {
  MERGE_HEAD: "a merge",
  "rebase-merge": "a rebase",
  "rebase-apply": "a rebase",
  CHERRY_PICK_HEAD: "a cherry-pick",
  REVERT_HEAD: "a revert",
  sequencer: "a series of cherry-picks or reverts",
  BISECT_LOG: "a bisection",
};

/** How long another process may hold the index, in milliseconds. */
const LOCK_WAIT = 3000;
const LOCK_POLL = 50;

/**
 * Why the index of a repository cannot be changed now; `undefined` if it can. A process that holds it for a moment, such as an
 * editor's `git status`, is waited for.
 *
 * @param {string} dir
 * @returns {Promise<string | undefined>}
 */
async function lockOf(dir) {
  const lock = await placeOf(dir, "index.lock");
  for (const end = Date.now() + LOCK_WAIT; await exists(lock);) {
    if (Date.now() > end) return `another git process has locked the index here (${lock})`;
    await new Promise((resolve) => setTimeout(resolve, LOCK_POLL));
  }
  return undefined;
}

/**
 * The path of a file of git's in a repository.
 *
 * @param {string} dir
 * @param {string} name
 */
const placeOf = async (dir, name) =>
  (await git(dir, ["rev-parse", "--path-format=absolute", "--git-path", name])).replace(/\n$/, "");

/**
 * The file in a repository that says what its index belongs to, while a restore changes the branch and then the index. A restore
 * that fails or is killed in between leaves it: without it, the reverse of the agent's commits would count as staged.
 */
const NOTE = "paperclip-index";

/**
 * Notes what the index belongs to, before the branch is changed.
 *
 * @param {string} dir
 * @param {Staged} staged
 */
async function noteIndex(dir, { head, differences }) {
  const staged = differences.map(({ name, now }) => [name, now]);
  await fs.promises.writeFile(await placeOf(dir, NOTE), `${JSON.stringify({ head, staged })}\n`);
}

/**
 * Forgets that, once the index belongs to `HEAD`.
 *
 * @param {string} dir
 */
async function forgetIndex(dir) {
  await fs.promises.rm(await placeOf(dir, NOTE), { force: true });
}

/**
 * What an earlier restore has left the index at; `undefined` where there is nothing, or nothing that can be used.
 *
 * @param {string} dir
 * @returns {Promise<{ head: string, staged: Map<string, string> } | undefined>}
 */
async function notedIndex(dir) {
  const text = await fs.promises.readFile(await placeOf(dir, NOTE), "utf8").catch((error) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  let noted;
  try {
    noted = JSON.parse(text);
  } catch {
    // It was cut short, before the branch was changed.
    return undefined;
  }
  const { head, staged } = Object(noted);
  if (!/^[0-9a-f]{40,64}$/.test(head) || !Array.isArray(staged)) return undefined;
  const isHere = await git(dir, ["cat-file", "-e", `${head}^{commit}`], LOCALLY).then(
    () => true,
    () => false,
  );
  return isHere && (await includes(dir, "HEAD", head)) ? { head, staged: new Map(staged) } : undefined;
}

/**
 * Has the index follow `HEAD` where an earlier restore was stopped before that: at the paths that are as they were then. What was
 * staged anew since then stays.
 *
 * @param {string} dir
 * @returns {Promise<string | undefined>} The reference to what was staged, and is nowhere else.
 */
async function finishIndex(dir) {
  const noted = await notedIndex(dir);
  if (!noted) return undefined;
  if ((await operationIn(dir)) ?? (await lockOf(dir))) return undefined;
  const [differences, since] = await Promise.all([stagedOn(dir, "HEAD"), stagedOn(dir, noted.head)]);
  const moved = new Set((await movedSince(dir, noted.head)).map(({ name }) => name));
  const isSince = new Set(since.map(({ name }) => name));
  const wasStaged = differences.filter(
    ({ name, now }) => isSince.has(name) && moved.has(name) && noted.staged.get(name) === now,
  );
  const lost = wasStaged.filter(({ isGone }) => !isGone);
  const ref = lost.length > 0 ? await keepStaged(dir, noted.head, lost) : undefined;
  const followed = [...differences.filter(({ name }) => !isSince.has(name)), ...wasStaged];
  await unstage(
    dir,
    "HEAD",
    followed.map(({ name }) => name),
  );
  await forgetIndex(dir);
  return ref;
}

/**
 * Gives paths in the index what a commit has there.
 *
 * @param {string} dir
 * @param {string} commit
 * @param {string[]} names
 */
async function unstage(dir, commit, names) {
  if (names.length === 0) return;
  const stdin = zeroEnded(names);
  const reset = ["reset", "-q", "--pathspec-from-file=-", "--pathspec-file-nul", commit];
  await git(dir, reset, { stdin, bytes: true, env: { GIT_LITERAL_PATHSPECS: "1" } });
}

/**
 * What the index has otherwise than a commit.
 *
 * @param {string} dir
 * @param {string} commit
 */
async function stagedOn(dir, commit) {
  const listed = ["diff-index", "--cached", "--ita-visible-in-index", ...RAW, commit, "--"];
  return readRaw(await git(dir, listed, { bytes: true }));
}

/**
 * What `HEAD` has otherwise than an earlier commit.
 *
 * @param {string} dir
 * @param {string} commit
 */
const movedSince = async (dir, commit) =>
  readRaw(await git(dir, ["diff-tree", "-r", ...RAW, commit, "HEAD", "--"], { bytes: true }));

/**
 * Why another branch must not be moved; `undefined` if the one of the upload is checked out.
 *
 * @param {string} dir
 * @param {string | null} uploaded
 * @returns {Promise<string | undefined>}
 */
async function otherBranchIn(dir, uploaded) {
  const branch = await branchOf(dir);
  // Git writes `heads/` before a name that a tag has too.
  if ([branch, branch && `heads/${branch}`].includes(uploaded ?? undefined)) return undefined;
  const [now, then] = [branch, uploaded].map((name) => name ?? "no branch");
  return `${now} is checked out here, and ${then} was when the workspace was uploaded`;
}

/**
 * Why neither `HEAD` nor the index of a repository may be changed now; `undefined` if they may.
 *
 * @param {string} dir
 * @returns {Promise<string | undefined>}
 */
async function operationIn(dir) {
  const gitDir = (await git(dir, ["rev-parse", "--absolute-git-dir"])).replace(/\n$/, "");
  for (const [name, operation] of Object.entries(OPERATIONS)) {
    if (await exists(path.join(gitDir, name))) return `${operation} is in progress here`;
  }
  if ((await git(dir, ["ls-files", "-u", "-z"])) !== "") return "files have conflicts here";
  return (await headOf(dir)) === undefined ? "the branch has no commit here" : undefined;
}

/**
 * A file in a folder, by a name of which each character is a byte.
 *
 * @param {string} dir
 * @param {string} name
 */
const inDir = (dir, name) => Buffer.concat([Buffer.from(dir + path.sep), Buffer.from(name, "latin1")]);

/**
 * @param {string | Buffer} file
 * @returns {Promise<"folder" | "other" | undefined>}
 */
async function kindOf(file) {
  const found = await fs.promises.lstat(file).catch((error) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  return found && (found.isDirectory() ? "folder" : "other");
}

/** @param {string | Buffer} file */
const exists = async (file) => (await kindOf(file)) !== undefined;

/**
 * A path that differs between two trees, or between a tree and the index.
 *
 * @typedef {object} Difference
 * @property {string} name Each character is a byte.
 * @property {string} now Its mode and object in the second; zeros where it is not there.
 * @property {boolean} isGone Whether it is not there.
 */

/**
 * Reads what git lists with `--raw -z`.
 *
 * @param {string} listed
 * @returns {Difference[]}
 */
function readRaw(listed) {
  const fields = records(listed);
  const found = [];
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const [, mode = "", , object = ""] = /** @type {string} */ (fields[at]).split(" ");
    found.push({
      name: /** @type {string} */ (fields[at + 1]),
      now: `${mode} ${object}`,
      isGone: mode === "000000",
    });
  }
  return found;
}

const RAW = ["--raw", "-z", "--no-renames", "--no-abbrev"];

/**
 * What is staged in a repository.
 *
 * @typedef {object} Staged
 * @property {string} head The commit that it is staged on.
 * @property {Difference[]} differences
 * @property {Set<string>} missing Those of them that are deleted, in the workspace too.
 */

/**
 * Reads what is staged, and what is only marked to be added.
 *
 * @param {string} dir
 * @returns {Promise<Staged>}
 */
async function readStaged(dir) {
  const head = /** @type {string} */ (await headOf(dir));
  const differences = await stagedOn(dir, head);
  const missing = new Set();
  for (const { name, isGone } of differences) {
    if (isGone && !(await exists(inDir(dir, name)))) missing.add(name);
  }
  return { head, differences, missing };
}

/**
 * Has the index follow `HEAD`, except for what is staged. Where the agent has committed to the same files, these follow too,
 * and what was staged is kept as a commit, if it is nowhere else.
 *
 * @param {string} dir
 * @param {Staged} staged
 * @returns {Promise<string | undefined>} The reference to that commit.
 */
async function followHead(dir, { head, differences, missing }) {
  const stagedAs = new Map(differences.map(({ name, now }) => [name, now]));
  const follows = (await movedSince(dir, head)).filter(({ name, now }) => stagedAs.get(name) !== now);
  // The restore has brought these files back.
  const brought = [];
  for (const name of missing) if (await exists(inDir(dir, name))) brought.push(name);
  // A file in the place of a folder, or the reverse, replaces it in the index.
  const came = new Set([...follows.filter(({ isGone }) => !isGone).map(({ name }) => name), ...brought]);
  const folders = new Set([...came].flatMap(foldersOf));
  const replaced = new Set([...follows.map(({ name }) => name), ...brought]);
  const dropped = differences.filter(
    ({ name }) => replaced.has(name) || folders.has(name) || isOrIsBelow(name, came),
  );
  const lost = dropped.filter(({ isGone }) => !isGone);
  const ref = lost.length > 0 ? await keepStaged(dir, head, lost) : undefined;
  await unstage(
    dir,
    head,
    dropped.map(({ name }) => name),
  );
  if (follows.length > 0) {
    // Where the two commits are equal, this leaves the index as it is.
    await git(dir, ["read-tree", "-i", "-m", head, "HEAD"]);
    await git(dir, ["update-index", "-q", "--refresh"]).catch((error) => {
      // Exit code 1 says that files differ from the index.
      if (error.code !== 1) throw error;
    });
  }
  return ref;
}

/**
 * The folders above a path.
 *
 * @param {string} name
 */
function foldersOf(name) {
  const found = [];
  for (let end = name.lastIndexOf("/"); end > 0; end = name.lastIndexOf("/", end - 1)) {
    found.push(name.slice(0, end));
  }
  return found;
}

/**
 * Keeps what is staged as a commit, if the workspace has something else for any of the paths that are to follow `HEAD`.
 *
 * @param {string} dir
 * @param {string} head The commit that it was staged on.
 * @param {Difference[]} lost
 */
async function keepStaged(dir, head, lost) {
  const differsHere = new Set(records(await git(dir, ["diff", "--name-only", "-z"], { bytes: true })));
  if (!lost.some(({ name }) => differsHere.has(name))) return undefined;
  const tree = (await git(dir, ["write-tree"])).trim();
  const message = "What was staged when a sandbox' work came back";
  const commit = await git(dir, [...IDENTITY, "commit-tree", tree, "-p", head, "-m", message]);
  return keepCommit(dir, commit.trim(), "staged");
}

/**
 * Writes the files of the new commits that a transfer leaves out by the name of a folder, and that are missing here: otherwise
 * they would look deleted.
 *
 * @param {string} dir
 * @param {string} before The former commit of `HEAD`.
 * @returns {Promise<string[]>} Those that cannot be written: above them is something else than a folder.
 */
async function writeHeavy(dir, before) {
  const added = ["diff-tree", "-r", "-z", "--no-renames", "--name-only", "--diff-filter=A"];
  const names = records(await git(dir, [...added, before, "HEAD", "--"], { bytes: true }));
  /** @type {string[]} */
  const missing = [];
  /** @type {string[]} */
  const blocked = [];
  for (const name of names) {
    const folders = foldersOf(name);
    const isHeavy = folders.some((folder) => HEAVY_NAMES.includes(path.posix.basename(folder)));
    if (!isHeavy || (await exists(inDir(dir, name)))) continue;
    const kinds = await Promise.all(folders.map((folder) => kindOf(inDir(dir, folder))));
    (kinds.includes("other") ? blocked : missing).push(name);
  }
  if (missing.length > 0) {
    const stdin = zeroEnded(missing);
    await git(dir, ["checkout-index", "-q", "-u", "-z", "--stdin"], { stdin, bytes: true });
  }
  return blocked.map((name) => Buffer.from(name, "latin1").toString());
}

module.exports = {
  finishIndex,
  foldersOf,
  followHead,
  forgetIndex,
  lockOf,
  noteIndex,
  operationIn,
  otherBranchIn,
  readStaged,
  writeHeavy,
};
