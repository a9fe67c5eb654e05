"use strict";

// The index of a local repository while a sandbox' work comes back: what is staged there stays so, unless the agent has
// committed to the same files.

const { fs, path } = require("../js/node.js");
const { isOrIsBelow } = require("./excludes.js");
const { findLeftOut } = require("./merge.js");
const {
  IDENTITY,
  branchOf,
  git,
  headOf,
  includes,
  keepCommit,
  records,
  startGit,
  zeroEnded,
} = require("./repository.js");
const { withTemporaryFolder } = require("./transfer.js");

/**
 * @import * as own from "./index.js"
 * @import { LeftOut } from "./merge.js"
 */

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
  const lock = await placeOfLock(dir);
  for (const end = Date.now() + LOCK_WAIT; await exists(lock);) {
    if (Date.now() > end) return `another git process has locked the index here (${lock})`;
    await new Promise((resolve) => setTimeout(resolve, LOCK_POLL));
  }
  return undefined;
}

/**
 * The path of the file by which git locks the index of a repository: beside what a link there leads to.
 *
 * @param {string} dir
 */
async function placeOfLock(dir) {
  const index = await placeOf(dir, "index");
  // Where nothing is staged, there may be no index yet.
  return `${await fs.promises.realpath(index).catch(() => index)}.lock`;
}

/** How often an index is locked anew, where another process was faster. */
const LOCK_ATTEMPTS = 5;

/**
 * An entry of an index that is to be changed.
 *
 * @typedef {object} Change
 * @property {string} name Each character is a byte.
 * @property {string} was The mode and the object that were read there; zeros where there was none.
 * @property {string} now
 */

/**
 * Holds the index of a repository locked while `use` runs, as git does it: nobody can stage or commit anything by what is about
 * to change. The lock is that of a `git update-index` that waits for its input, so it does not outlive this process.
 *
 * @template T
 * @param {string} dir
 * @param {(write: (changes: Change[]) => Promise<void>) => Promise<T>} use
 * @returns {Promise<T>}
 */
async function withLockedIndex(dir, use) {
  const held = { lock: await lockIndex(dir) };
  try {
    return await use((changes) => writeEntries(dir, changes, held));
  } finally {
    // Without input, nothing is written. After `write`, it has ended, and whether that failed was said.
    await held.lock.output().catch(() => undefined);
  }
}

/** @param {string} dir */
async function lockIndex(dir) {
  const reason = await lockOf(dir);
  if (reason !== undefined) throw new Error(`the index cannot be changed: ${reason}`);
  const lock = await placeOfLock(dir);
  const process = await startGit(dir, ["update-index", "-z", "--index-info"], { bytes: true });
  // Git has it within milliseconds, before it reads anything. (A timer may be a test's.)
  for (const end = Date.now() + LOCK_WAIT; !(await exists(lock));) {
    if (!process.hasEnded() && Date.now() < end) continue;
    await process.output();
    throw new Error(`the index cannot be changed: git cannot create ${lock}`);
  }
  return process;
}

/**
 * Changes entries of an index: those which are as they were read. What was staged since then stays.
 *
 * @param {string} dir
 * @param {Change[]} changes
 * @param {{ lock: Awaited<ReturnType<typeof lockIndex>> }} held Has the lock that was used last.
 */
async function writeEntries(dir, changes, held) {
  for (let attempt = 1; ; attempt += 1) {
    const left = possible(changes, await entriesOf(dir));
    try {
      await held.lock.output(left.map(({ name, now }) => `${now}\t${name}\0`).join(""));
      return;
    } catch (error) {
      // Another process was faster, and the one that waited for its input never had the lock.
      const isLock = String(Object(error).stderr).includes("index.lock");
      if (!isLock || attempt === LOCK_ATTEMPTS) throw error;
      held.lock = await lockIndex(dir);
    }
  }
}

/**
 * Those of some changes that replace nothing but what was read, in an order in which a file can take the place of a folder.
 *
 * @param {Change[]} changes
 * @param {Map<string, string>} entries
 */
function possible(changes, entries) {
  const isAsRead = changes.filter(({ name, was }) => (entries.get(name) ?? absent(was)) === was);
  const removed = isAsRead.filter(({ now }) => isAbsent(now));
  const stays = new Set(entries.keys());
  for (const { name } of removed) stays.delete(name);
  const folders = new Set([...stays].flatMap(foldersOf));
  const isFree = (/** @type {string} */ name) =>
    !folders.has(name) && !foldersOf(name).some((folder) => stays.has(folder));
  return [...removed, ...isAsRead.filter(({ name, now }) => !isAbsent(now) && isFree(name))];
}

/**
 * How a path is listed that is not there, beside one that is.
 *
 * @param {string} entry
 */
const absent = (entry) => entry.replace(/[^ ]/g, "0");

/** @param {string} entry */
const isAbsent = (entry) => entry === absent(entry);

/**
 * All entries of an index: the mode and the object of each, and its stage where there is a conflict.
 *
 * @param {string} dir
 * @returns {Promise<Map<string, string>>}
 */
async function entriesOf(dir) {
  const listed = records(await git(dir, ["ls-files", "--stage", "-z"], { bytes: true }));
  return new Map(
    listed.map((record) => {
      const end = record.indexOf("\t");
      return [record.slice(end + 1), record.slice(0, end).replace(/ 0$/, "")];
    }),
  );
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
  const isHere = await git(dir, ["cat-file", "-e", `${head}^{commit}`]).then(
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
 * @returns {Promise<string | undefined>} The reference to what was staged.
 */
async function finishIndex(dir) {
  const noted = await notedIndex(dir);
  if (!noted) return undefined;
  if ((await operationIn(dir)) ?? (await lockOf(dir))) return undefined;
  return withLockedIndex(dir, async (write) => {
    const [differences, since] = await Promise.all([stagedOn(dir, "HEAD"), stagedOn(dir, noted.head)]);
    const moved = new Set((await movedSince(dir, noted.head)).map(({ name }) => name));
    const isSince = new Set(since.map(({ name }) => name));
    const wasStaged = differences.filter(
      ({ name, now }) => isSince.has(name) && moved.has(name) && noted.staged.get(name) === now,
    );
    const ref = await keepStaged(dir, noted.head, wasStaged);
    const followed = [...differences.filter(({ name }) => !isSince.has(name)), ...wasStaged];
    await write(followed.map(({ name, was, now }) => ({ name, was: now, now: was })));
    await forgetIndex(dir);
    return ref;
  });
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
 * @property {string} was Its mode and object in the first; zeros where it is not there.
 * @property {string} now The same in the second.
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
    const [formerMode = "", mode, formerObject, object] = /** @type {string} */ (fields[at]).split(" ");
    found.push({
      name: /** @type {string} */ (fields[at + 1]),
      was: `${formerMode.slice(1)} ${formerObject}`,
      now: `${mode} ${object}`,
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
  for (const { name, now } of differences) {
    if (isAbsent(now) && !(await exists(inDir(dir, name)))) missing.add(name);
  }
  return { head, differences, missing };
}

/**
 * What became of the index while a sandbox' commits came back.
 *
 * @typedef {object} Followed
 * @property {Staged} staged What was staged before.
 * @property {string | undefined} kept The reference to what was staged and is not any more.
 * @property {unknown} failure Why it could not follow.
 */

/**
 * Moves the branch that is checked out, and has the index follow it, except for what is staged: from the first look at the index
 * on until it is written, it is locked. Where the agent has committed to the same files, these follow too, and what was staged
 * is kept as a commit. Where the index cannot follow, `finishFollowing` tries again: the files are to be restored before that.
 *
 * @param {string} dir
 * @param {object} branch
 * @param {() => Promise<string | undefined>} branch.busyWith Why it must not be moved, now that nobody can stage or check out.
 * @param {() => Promise<void>} branch.move Does not fail.
 * @returns {Promise<Followed | string>} That reason, or what became of the index.
 */
async function moveWithIndex(dir, { busyWith, move }) {
  const locked = await lockOf(dir);
  if (locked !== undefined) return locked;
  return withLockedIndex(dir, async (write) => {
    const busy = await busyWith();
    if (busy !== undefined) return busy;
    const staged = await readStaged(dir);
    await noteIndex(dir, staged);
    await move();
    try {
      return { staged, kept: await followHead(dir, staged, write), failure: undefined };
    } catch (failure) {
      return { staged, kept: undefined, failure };
    }
  });
}

/**
 * @param {string} dir
 * @param {Staged} staged
 * @param {(changes: Change[]) => Promise<void>} write
 */
async function followHead(dir, { head, differences }, write) {
  const stagedAs = new Map(differences.map(({ name, now }) => [name, now]));
  const follows = (await movedSince(dir, head)).filter(({ name, now }) => stagedAs.get(name) !== now);
  const kept = await replaceStaged(dir, head, { follows, staged: differences, write });
  await forgetIndex(dir);
  return kept;
}

/**
 * Has an index follow that could not be written when the branch was moved.
 *
 * @param {string} dir
 * @param {unknown} failure What it failed with.
 * @returns {Promise<string | undefined>} The reference to what was staged and is not any more.
 */
async function finishFollowing(dir, failure) {
  const kept = await finishIndex(dir);
  if (await notedIndex(dir)) throw failure;
  return kept;
}

/**
 * Has the index agree with the files once they are restored: staged deletions of files that the restore has brought back are
 * dropped, and git is spared to compare unchanged files.
 *
 * @param {string} dir
 * @param {Staged} staged What was staged before.
 * @returns {Promise<string | undefined>} The reference to what was staged and is not any more.
 */
async function settleIndex(dir, { missing }) {
  const brought = new Set();
  for (const name of missing) if (await exists(inDir(dir, name))) brought.add(name);
  let kept;
  if (brought.size > 0) {
    kept = await withLockedIndex(dir, async (write) => {
      const { head, differences } = await readStaged(dir);
      const follows = differences
        .filter(({ name, now }) => brought.has(name) && isAbsent(now))
        .map(({ name, was, now }) => ({ name, was: now, now: was }));
      return replaceStaged(dir, head, { follows, staged: differences, write });
    });
  }
  await git(dir, ["update-index", "-q", "--refresh"]).catch((error) => {
    // An exit code says that files differ from the index, or that it is locked: then the next `git status` compares them.
    if (typeof error.code !== "number") throw error;
  });
  return kept;
}

/**
 * Gives paths of the index what they are to have. What is staged there, or is a file in the place of a folder of theirs, or the
 * reverse, is kept as a commit.
 *
 * @param {string} dir
 * @param {string} head The commit that it was staged on.
 * @param {{ follows: Difference[], staged: Difference[], write: (changes: Change[]) => Promise<void> }} what
 * @returns {Promise<string | undefined>} The reference to that commit.
 */
async function replaceStaged(dir, head, { follows, staged, write }) {
  const came = new Set(follows.filter(({ now }) => !isAbsent(now)).map(({ name }) => name));
  const folders = new Set([...came].flatMap(foldersOf));
  const replaced = new Set(follows.map(({ name }) => name));
  const inTheWay = staged.filter(
    ({ name }) => !replaced.has(name) && (folders.has(name) || isOrIsBelow(name, came)),
  );
  const ref = await keepStaged(dir, head, [...inTheWay, ...staged.filter(({ name }) => replaced.has(name))]);
  const stagedAs = new Map(staged.map(({ name, now }) => [name, now]));
  await write([
    ...follows.map(({ name, was, now }) => ({ name, was: stagedAs.get(name) ?? was, now })),
    ...inTheWay.map(({ name, now }) => ({ name, was: now, now: absent(now) })),
  ]);
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
 * Keeps all that is staged as a commit, if some of it is content and is to be replaced.
 *
 * @param {string} dir
 * @param {string} head The commit that it was staged on.
 * @param {Difference[]} replaced
 * @returns {Promise<string | undefined>} The reference to that commit.
 */
async function keepStaged(dir, head, replaced) {
  if (replaced.every(({ now }) => isAbsent(now))) return undefined;
  const tree = await withTemporaryFolder("paperclip-index-", async (temporary) => {
    // Git writes no tree from an index that is locked.
    const copy = path.join(temporary, "index");
    await fs.promises.copyFile(await placeOf(dir, "index"), copy);
    return (await git(dir, ["write-tree"], { env: { GIT_INDEX_FILE: copy } })).trim();
  });
  const message = "What was staged when a sandbox' work came back";
  const commit = await git(dir, [...IDENTITY, "commit-tree", tree, "-p", head, "-m", message]);
  return keepCommit(dir, commit.trim(), "staged");
}

/**
 * Writes the files of the new commits that a transfer leaves out, such as those with the name of a heavy folder above them, and that are
 * missing here: otherwise they would look deleted.
 *
 * @param {string} dir
 * @param {string} before The former commit of `HEAD`.
 * @param {LeftOut} leftOut
 * @returns {Promise<{ blocked: string[], changed: string[] }>} Those that are not written: above them is something else than a
 * folder, or there is something else here.
 */
async function writeLeftOut(dir, before, leftOut) {
  const readable = (/** @type {string} */ name) => Buffer.from(name, "latin1").toString();
  const came = (await movedSince(dir, before)).filter(({ now }) => !isAbsent(now));
  if (came.length === 0) return { blocked: [], changed: [] };
  const isLeftOut = await findLeftOut(
    came.map(({ name }) => readable(name)),
    leftOut,
  );
  const left = came.filter(({ name }) => isLeftOut.has(readable(name)));
  if (left.length === 0) return { blocked: [], changed: [] };
  const listed = ["diff", "--no-renames", "--name-only", "-z", "HEAD", "--"];
  const differs = new Set(records(await git(dir, listed, { bytes: true })));
  /** @type {string[]} */
  const missing = [];
  /** @type {string[]} */
  const blocked = [];
  /** @type {string[]} */
  const changed = [];
  for (const { name, was } of left.filter((difference) => differs.has(difference.name))) {
    const kinds = await Promise.all(foldersOf(name).map((folder) => kindOf(inDir(dir, folder))));
    if (kinds.includes("other")) blocked.push(name);
    else if (await exists(inDir(dir, name))) changed.push(name);
    // One that was here and was deleted stays so.
    else if (isAbsent(was)) missing.push(name);
  }
  if (missing.length > 0) {
    const stdin = zeroEnded(missing);
    await git(dir, ["checkout-index", "-q", "-u", "-z", "--stdin"], { stdin, bytes: true });
  }
  return { blocked: blocked.map(readable), changed: changed.map(readable) };
}

module.exports = {
  finishFollowing,
  finishIndex,
  foldersOf,
  lockOf,
  moveWithIndex,
  operationIn,
  otherBranchIn,
  readStaged,
  settleIndex,
  writeLeftOut,
};
