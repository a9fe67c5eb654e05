"use strict";

// What comes back from a sandbox: its commits, and then its files.

const { codedError } = require("../js/errors.js");
const { fs, path } = require("../js/node.js");
const { COMMAND_MAX, onlyIn, packWorkspace, quote } = require("./commands.js");
const { GIT_EXCLUDES, RUNTIME } = require("./excludes.js");
const { APPLE_DOUBLE, merge, readArchive } = require("./merge.js");
const { status, transferProgress } = require("./progress.js");
const { createRemoteGitExportRef } = require("./git.js");
const {
  OTHERS_MAX,
  keepAll,
  listOthers,
  newOnes,
  packOthers,
  readOthers,
  withBundle,
} = require("./others.js");
const { OBEYED, bringsRepositories, findObeyed } = require("./held.js");
const { REPOSITORIES, git, includes, keepCommit, onTopOf } = require("./repository.js");
const {
  finishFollowing,
  finishIndex,
  lockOf,
  moveWithIndex,
  operationIn,
  otherBranchIn,
  readStaged,
  settleIndex,
  writeLeftOut,
} = require("./staged.js");
const {
  assertSyncOperationsConfined,
  bytesTransferred,
  toBuffer,
  withTemporaryFolder,
} = require("./transfer.js");

/**
 * @import * as own from "./index.js"
 * @import { Selection } from "./outgoing.js"
 * @import { LeftOut } from "./merge.js"
 * @import { Other } from "./others.js"
 * @import { Followed } from "./staged.js"
 */

/**
 * A workspace, or a repository in it, that is restored from the sandbox.
 *
 * @typedef {object} Tree
 * @property {string} localDir
 * @property {string} remoteDir
 * @property {string} runtimeRootDir
 * @property {own.GitWorkspaceSnapshot | null} snapshot
 * @property {own.DirectorySnapshot["entries"]} base What the sandbox and this side last shared; moves on.
 * @property {string | undefined} head The sandbox's commit that came last; moves on.
 * @property {string | undefined} shared The local commit that has its files; moves on.
 * @property {string | undefined} busy Why its `HEAD` and index were not to be changed when it was uploaded.
 * @property {LeftOut} leftOut
 * @property {string[]} nativeExclude
 * @property {string[]} tarExclude
 */

/**
 * What a restore works with.
 *
 * @typedef {object} Way
 * @property {own.GitFunctions} git
 * @property {own.InstanceRootResolver} resolveInstanceRoot
 * @property {own.SandboxManagedRuntimeClient} client
 * @property {number} timeoutMs
 * @property {() => string} nextOperationId
 * @property {own.RuntimeProgressSink} [onLine]
 * @property {own.RuntimeStatusSink} [onStatus]
 */

/** The sandbox's commits cannot be taken over: its repository is damaged, or git refuses what came. */
class CommitsRefused extends Error {
  /** @override */
  name = "CommitsRefused";

  /**
   * @param {unknown} cause
   * @param {string} [bundle] The file with what came.
   */
  constructor(cause, bundle) {
    super(reasonOf(cause), { cause });
    this.bundle = bundle;
  }
}

/**
 * What a failed command printed: its first error, or else its last line. Otherwise the first line of the error.
 *
 * @param {unknown} error
 */
function reasonOf(error) {
  const lines = String(Object(error).stderr ?? "")
    .split("\n")
    .filter((line) => line.trim() !== "");
  const printed = lines.find((line) => /^(error|fatal): /.test(line)) ?? lines.at(-1);
  return printable(
    printed ?? (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "",
  );
}

/** The most characters of what a sandbox prints that a line of the log has. */
const PRINTED_MAX = 200;

/**
 * A text of the sandbox's for the log, which a terminal may show.
 *
 * @param {string} text
 */
function printable(text) {
  const escaped = escape(text);
  return escaped.length > PRINTED_MAX ? `${escaped.slice(0, PRINTED_MAX)}…` : escaped;
}

/**
 * A text without the characters that change how a terminal shows others.
 *
 * @param {string} text
 */
const escape = (text) =>
  text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );

/**
 * Whether a failure may pass by itself, or is the caller's wish.
 *
 * @param {unknown} error
 */
function mayPass(error) {
  const { retryable, name, code, message } = Object(error);
  return (
    retryable === true ||
    name === "AbortError" ||
    /^(ABORT_ERR|E[A-Z]+)$/.test(code) ||
    /time.?out/i.test(message)
  );
}

/**
 * Restores one tree.
 *
 * @param {Tree} tree
 * @param {Way} way
 */
async function restoreTree(tree, way) {
  await withTemporaryFolder("paperclip-sandbox-restore-", async (temporary) => {
    const { localDir } = tree;
    const importedRef = tree.snapshot ? way.git.createImportedGitRef("sandbox") : undefined;
    try {
      const history = importedRef ? await takeHistory(tree, way, temporary, importedRef) : undefined;
      const imported = history?.imported;
      await status(way.onStatus, "restore", "Restoring workspace from environment");
      const { source, mayLack, mayLackAnything } = await fetchFiles(tree, way, temporary);
      if (!mayLackAnything) await refuseEmpty(tree, source, history?.tips ?? []);
      /** @type {Followed | undefined} */
      let followed;
      const next = await merge({
        resolveInstanceRoot: way.resolveInstanceRoot,
        base: tree.base,
        source,
        targetDir: localDir,
        leftOut: tree.leftOut,
        mayLack,
        mayLackAnything,
        beforeApply:
          imported &&
          (async () => {
            const busy = tree.busy ?? (await busyNow(tree)) ?? (await lockOf(localDir));
            if (busy === undefined) await sayStaged(await finishIndex(localDir), way);
            followed = await integrate(tree, imported.head, way, temporary, busy);
            if (busy === undefined && !followed && (await operationIn(localDir)) === undefined) {
              followed = { staged: await readStaged(localDir), kept: undefined, failure: undefined };
            }
          }),
        // Where there is an operation in progress, the index is left to that.
        afterApply: async () => {
          if (!imported || !followed) return;
          const { staged, failure } = followed;
          if (failure !== undefined) await sayStaged(await finishFollowing(localDir, failure), way);
          await sayStaged(await settleIndex(localDir, staged), way);
          const { blocked, changed } = await writeLeftOut(localDir, staged.head, tree.leftOut);
          const say = async (/** @type {string[]} */ names, /** @type {string} */ why) => {
            const what = `${names.length} files of the environment's commits are not written`;
            if (names.length > 0) await way.onLine?.(`[paperclip] ${what}, ${why}: ${named(names)}\n`);
          };
          await say(blocked, "since above them is no directory");
          await say(changed, "since other ones are here, which are not transferred");
          if (imported.isClean && staged.differences.length === 0) await warnOfDifferences(localDir);
        },
      });
      tree.base = next;
      if (imported) tree.head = imported.head;
    } finally {
      await status(way.onStatus, "finalize", "Finalizing workspace");
      if (importedRef) await way.git.deleteLocalGitRef({ localDir, ref: importedRef });
    }
  });
}

/**
 * Whether a test succeeds in the sandbox. Where that cannot be asked at all, its failure is thrown.
 *
 * @param {string} command
 * @param {Pick<Way, "client" | "timeoutMs">} way
 */
async function succeeds(command, { client, timeoutMs }) {
  try {
    await client.run(command, { timeoutMs });
    return true;
  } catch (error) {
    if (mayPass(error)) throw error;
    await throwUnlessItRuns(error, { client, timeoutMs });
    return false;
  }
}

/**
 * Throws a failure where the sandbox does not run even the simplest command, which then is the reason.
 *
 * @param {unknown} failure
 * @param {Pick<Way, "client" | "timeoutMs">} way
 */
async function throwUnlessItRuns(failure, { client, timeoutMs }) {
  await client.run("sh -c :", { timeoutMs }).catch(() => {
    throw failure;
  });
}

/**
 * On which side a repository in the workspace no longer exists, if it does not: its agent or its owner has deleted it.
 *
 * @param {Tree} tree
 * @param {Way} way
 */
async function whereGone({ localDir, remoteDir }, way) {
  if (!fs.existsSync(localDir)) return "here";
  return (await succeeds(`[ -d ${quote(remoteDir)} ]`, way)) ? undefined : "in the environment";
}

/**
 * Takes the sandbox's history over: the commits of its `HEAD` for the merge, and what else is new as references of its own.
 *
 * @param {Tree} tree
 * @param {Way} way
 * @param {string} temporary
 * @param {string} importedRef
 */
async function takeHistory(tree, way, temporary, importedRef) {
  /** @type {Told} */
  const told = { isClean: false, others: undefined };
  const head = await importHistory(tree, way, temporary, importedRef, told).catch((error) =>
    goOnWithoutCommits(error, tree, way, {
      what: "commits are refused, and only its files restored",
      bundleName: "sandbox.bundle",
    }),
  );
  const what = "other branches, tags and stashes are refused";
  // Where its branch has no commit, the sandbox did not come to list the others.
  if (head === undefined && told.others === undefined) told.others = await askForOthers(tree, way);
  await takeOthers(tree, way, temporary, head, told.others).catch((error) =>
    goOnWithoutCommits(error, tree, way, { what, bundleName: "others.bundle" }),
  );
  return {
    imported: head === undefined ? undefined : { head, isClean: told.isClean },
    tips: [...(head === undefined ? [] : [head]), ...(told.others ?? []).map(({ object }) => object)],
  };
}

/**
 * What the sandbox says of its repository.
 *
 * @typedef {object} Told
 * @property {boolean} isClean
 * @property {Other[] | undefined} others `undefined` where it did not say.
 */

/**
 * Asks the sandbox for its branches, tags and stashes alone; `undefined` where it does not list them.
 *
 * @param {Tree} tree
 * @param {Way} way
 */
async function askForOthers({ remoteDir, runtimeRootDir }, { client, timeoutMs }) {
  const listPath = path.posix.join(runtimeRootDir, "workspace-status.txt");
  const list = `${onlyIn(remoteDir)}\n${listOthers(remoteDir, listPath)}`;
  const script = `mkdir -p ${quote(runtimeRootDir)}\n: > ${quote(listPath)}\n${list}`;
  const answer = await client
    .run(`sh -c ${quote(script)}`, { timeoutMs })
    .then(() => read(client, listPath))
    .catch((error) => {
      if (mayPass(error)) throw error;
      return Buffer.alloc(0);
    });
  await removeQuietly(client, listPath);
  const [, ...lines] = toBuffer(answer).toString().split("\n");
  return readOthers(lines);
}

/** @param {Tree} tree */
const baseOf = (tree) => tree.head ?? /** @type {own.GitWorkspaceSnapshot} */ (tree.snapshot).headCommit;

/**
 * Imports the commits of the sandbox's `HEAD` into the local repository, under a reference of their own.
 *
 * @param {Tree} tree
 * @param {Way} way
 * @param {string} temporary
 * @param {string} importedRef
 * @param {Told} told Is filled in.
 */
async function importHistory(tree, way, temporary, importedRef, told) {
  const { git, client } = way;
  const baseSha = baseOf(tree);
  const exportRef = git.createRemoteGitExportRef("sandbox");
  const remoteBundle = path.posix.join(tree.runtimeRootDir, "git-delta.bundle");
  const statusPath = path.posix.join(tree.runtimeRootDir, "workspace-status.txt");
  const bundlePath = path.join(temporary, "git-delta.bundle");
  await status(way.onStatus, "export", "Exporting git changes from environment");

  const attempt = async (/** @type {boolean} */ forceFullBundle) => {
    const script = git.buildRemoteGitDeltaBundleScript({
      remoteDir: tree.remoteDir,
      baseSha,
      exportRef,
      bundlePath: remoteBundle,
      statusPath: forceFullBundle ? undefined : statusPath,
      forceFullBundle,
    });
    const more = forceFullBundle ? "" : `\n${listOthers(tree.remoteDir, statusPath)}`;
    await fetchBundle(tree, way, script + more, { remoteBundle, bundlePath });
    if (!forceFullBundle) {
      // Anything but a clear answer counts as not clean.
      const answer = await read(client, statusPath).catch(() => Buffer.alloc(0));
      const [first = "", ...lines] = toBuffer(answer).toString().split("\n");
      told.isClean = first.trim() === "clean";
      told.others = readOthers(lines);
      await removeQuietly(client, statusPath);
    }
    try {
      return await git.fetchGitBundleIntoLocalRef({
        localDir: tree.localDir,
        bundlePath,
        exportRef,
        importedRef,
        baseSha,
      });
    } catch (error) {
      // The bundle without a missing base is asked for once.
      if (git.isMissingGitPrerequisiteError(error) && !forceFullBundle) throw error;
      throw new CommitsRefused(error, bundlePath);
    }
  };
  try {
    return await attempt(false);
  } catch (error) {
    // The local repository no longer has the bundle's base commit, so everything is fetched.
    if (!git.isMissingGitPrerequisiteError(error)) throw error;
    return attempt(true);
  }
}

/** The most references that a line of the log names. */
const NAMED_MAX = 20;

/**
 * Keeps what is new of the sandbox's other branches, tags and stashes. Only where there is something new, the sandbox is asked
 * for its objects.
 *
 * @param {Tree} tree
 * @param {Way} way
 * @param {string} temporary
 * @param {string | undefined} head The commit of its `HEAD`, if that was taken over.
 * @param {Other[] | undefined} others
 */
async function takeOthers(tree, way, temporary, head, others) {
  const { localDir, remoteDir, runtimeRootDir } = tree;
  const say = async (/** @type {string} */ text) => {
    await way.onLine?.(`[paperclip] The environment's other branches, tags and stashes ${text}\n`);
  };
  if (others === undefined) {
    // Without its commits, it was said that only files are restored.
    if (head !== undefined) await say("could not be listed, and are not taken over");
    return;
  }
  const known = head === undefined ? [baseOf(tree)] : [baseOf(tree), head];
  const refuse =
    (/** @type {string | undefined} */ bundle = undefined) =>
    (/** @type {unknown} */ error) => {
      throw new CommitsRefused(error, bundle);
    };
  const news = await newOnes(localDir, others, known).catch(refuse());
  const taken = news.slice(0, OTHERS_MAX);
  if (news.length > taken.length) {
    await say(`are more than ${OTHERS_MAX}: ${news.length - taken.length} of them are not taken over`);
  }
  const missing = taken.filter((other) => !other.isHere).map((other) => other.object);
  const keep = async () => {
    const objects = taken.map(({ object }) => object);
    const obeyed = await findObeyed({ localDir, temporary, objects, known: tree.snapshot?.headCommit });
    const refs = await keepAll(localDir, taken);
    const isHeld = (/** @type {string} */ _ref, /** @type {number} */ at) => obeyed.has(objects[at] ?? "");
    return { held: refs.filter(isHeld), kept: refs.filter((ref, at) => !isHeld(ref, at)) };
  };
  /** @type {Awaited<ReturnType<typeof keep>>} */
  let found;
  if (missing.length === 0) {
    found = await keep().catch(refuse());
  } else {
    const exportRef = createRemoteGitExportRef("others");
    const remoteBundle = path.posix.join(runtimeRootDir, "git-others.bundle");
    const bundlePath = path.join(temporary, "git-others.bundle");
    const script = packOthers({ remoteDir, bundlePath: remoteBundle, exportRef, objects: missing, known });
    await fetchBundle(tree, way, script, { remoteBundle, bundlePath });
    const use = (/** @type {Set<string>} */ came) => {
      const lacking = missing.find((object) => !came.has(object));
      if (lacking !== undefined) throw new Error(`the environment did not send ${lacking}`);
      return keep();
    };
    found = await withBundle({ localDir, bundlePath, exportRef, known }, use).catch(refuse(bundlePath));
  }
  if (found.kept.length > 0) await say(`are kept as ${named(found.kept)}`);
  if (found.held.length > 0) {
    await say(`that are kept as ${named(found.held)} are not to be checked out: ${OBEYED}`);
  }
}

/** @param {string[]} refs */
function named(refs) {
  const more = refs.length > NAMED_MAX ? `, and ${refs.length - NAMED_MAX} more` : "";
  return refs.slice(0, NAMED_MAX).map(escape).join(", ") + more;
}

/** How a bundle begins (gitformat-bundle). */
const BUNDLE = /^# v[23] git bundle\n/;

/**
 * Refuses a file that is no bundle: git would follow a `gitdir:` in it to a repository of this machine.
 *
 * @param {string} bundlePath
 */
async function requireBundle(bundlePath) {
  const file = await fs.promises.open(bundlePath);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(32), 0, 32, 0);
    // If nothing is new, it is empty.
    if (bytesRead === 0 || BUNDLE.test(buffer.toString("latin1", 0, bytesRead))) return;
  } finally {
    await file.close();
  }
  throw new CommitsRefused(new Error("what came is no git bundle"), bundlePath);
}

/**
 * Has the sandbox make a bundle, and downloads it.
 *
 * @param {Tree} tree
 * @param {Way} way
 * @param {string} script
 * @param {{ remoteBundle: string, bundlePath: string }} places Of the bundle, there and here.
 */
async function fetchBundle(tree, way, script, { remoteBundle, bundlePath }) {
  const { client } = way;
  await runOrRefuse(`${onlyIn(tree.remoteDir)}\n${script}`, way);
  const progress = transferProgress({
    what: "Exporting git history from",
    phase: "export",
    onLine: way.onLine,
    onStatus: way.onStatus,
  });
  if (typeof client.syncOut === "function") {
    const roots = { sourceRoots: [tree.runtimeRootDir], targetRoots: [path.dirname(bundlePath)] };
    const file = { sourcePath: remoteBundle, targetPath: bundlePath, kind: /** @type {const} */ ("file") };
    await progress.finish(await receive(client.syncOut.bind(client), way, file, roots));
  } else {
    const bytes = toBuffer(await read(client, remoteBundle, progress.options));
    await progress.finish(bytes.byteLength);
    await fs.promises.writeFile(bundlePath, bytes);
  }
  await removeQuietly(client, remoteBundle);
  await requireBundle(bundlePath);
}

/**
 * Runs the script that packs the sandbox's commits. Where that fails twice, but the sandbox still runs commands, its repository
 * is the reason.
 *
 * @param {string} script
 * @param {Way} way
 */
async function runOrRefuse(script, { client, timeoutMs }) {
  const command = `sh -c ${quote(script)}`;
  try {
    await client.run(command, { timeoutMs });
  } catch (first) {
    if (mayPass(first)) throw first;
    try {
      await client.run(command, { timeoutMs });
    } catch (error) {
      if (mayPass(error)) throw error;
      await throwUnlessItRuns(first, { client, timeoutMs });
      throw new CommitsRefused(error);
    }
  }
}

/**
 * Says that commits of the sandbox are refused, and keeps what came of them beside the workspace's backups: its files are
 * restored all the same. Any other failure is passed on.
 *
 * @param {unknown} error
 * @param {Tree} tree
 * @param {Way} way
 * @param {{ what: string, bundleName: string }} refused
 */
async function goOnWithoutCommits(error, { localDir }, way, { what, bundleName }) {
  if (!(error instanceof CommitsRefused)) throw error;
  let kept = "";
  if (error.bundle !== undefined) {
    const at = path.join(".paperclip-runtime", "conflicts", new Date().toISOString(), bundleName);
    await makeBackupFolder(localDir, path.dirname(at));
    await fs.promises.copyFile(error.bundle, path.join(localDir, at), fs.constants.COPYFILE_EXCL);
    kept = `; what came is at ${at}`;
  }
  await way.onLine?.(`[paperclip] The environment's ${what}: ${error.message}${kept}\n`);
  return undefined;
}

/**
 * Makes a folder for backups, none of whose parents is a link. Git does not list it.
 *
 * @param {string} localDir
 * @param {string} folder
 */
async function makeBackupFolder(localDir, folder) {
  let at = localDir;
  for (const name of folder.split(path.sep)) {
    at = path.join(at, name);
    await fs.promises.mkdir(at).catch(async (error) => {
      if (error.code !== "EEXIST" || !(await fs.promises.lstat(at)).isDirectory()) throw error;
    });
  }
  const ignore = path.join(localDir, ".paperclip-runtime", ".gitignore");
  await fs.promises.writeFile(ignore, "*\n", { flag: "wx" }).catch((error) => {
    if (error.code !== "EEXIST") throw error;
  });
}

/**
 * Why neither the branch nor the index of a tree must be changed now; `undefined` if they may be.
 *
 * @param {Tree} tree
 */
const busyNow = async ({ localDir, snapshot }) =>
  (await operationIn(localDir)) ?? (await otherBranchIn(localDir, snapshot?.branchName ?? null));

/**
 * Merges the sandbox's commits into the local branch. Where that must not be or fails, or the sandbox has rewritten its
 * history, they stay under a reference of their own, and the files are restored all the same.
 *
 * @param {Tree} tree
 * @param {string} imported
 * @param {Way} way
 * @param {string} temporary
 * @param {string | undefined} busy Why the local branch must not be changed.
 * @returns {Promise<Followed | undefined>} What became of the index, if the branch was to be moved.
 */
async function integrate(tree, imported, way, temporary, busy) {
  const { localDir } = tree;
  // Nothing has come since the upload or the restore before.
  if (imported === baseOf(tree)) return undefined;
  let why;
  let failure;
  /** @type {string | undefined} */
  let mergeable;
  try {
    const known = tree.snapshot?.headCommit;
    const commit = busy === undefined ? await onTopOf(localDir, tree.shared ?? known, imported) : imported;
    const obeyed = await findObeyed({ localDir, temporary, objects: [commit], known });
    if (obeyed.has(commit)) why = OBEYED;
    else if (busy !== undefined) why = busy;
    else if (await bringsRepositories(localDir, commit)) {
      why = `they have ${REPOSITORIES}, which is not taken over`;
    } else mergeable = commit;
  } catch (error) {
    failure = error;
  }
  /** @type {Followed | undefined} */
  let followed;
  if (mergeable !== undefined) {
    const importedHead = mergeable;
    const moved = await moveWithIndex(localDir, {
      busyWith: () => busyNow(tree),
      move: async () => {
        try {
          await way.git.integrateImportedGitHead({ localDir, importedHead });
        } catch (error) {
          failure = error;
        }
      },
    });
    if (typeof moved === "string") why = moved;
    else {
      followed = moved;
      await sayStaged(followed.kept, way);
      if (failure === undefined) {
        tree.shared = mergeable;
        if (await includes(localDir, "HEAD", imported)) return followed;
      }
    }
  }
  let ref;
  try {
    ref = await keepCommit(localDir, imported, "sandbox");
  } catch (error) {
    // The reference could not be created either: the first failure is the one to report.
    throw failure ?? error;
  }
  const told =
    failure !== undefined
      ? `'s commits could not be merged and are kept as ${ref}: ${reasonOf(failure)}`
      : why !== undefined
        ? `'s commits are kept as ${ref} and not merged: ${why}`
        : ` has rewritten its history, which is kept as ${ref}`;
  await way.onLine?.(`[paperclip] The environment${told}\n`);
  return followed;
}

/**
 * Warns, with the words of adapter-utils' releases, where files differ from the last commit though in the sandbox none did.
 *
 * @param {string} localDir
 */
async function warnOfDifferences(localDir) {
  if ((await git(localDir, ["diff", "--name-only", "HEAD", "--"])) === "") return;
  console.warn(
    "[paperclip] Workspace restore preserved local working tree changes after clean sandbox restore.",
  );
}

/**
 * @param {string | undefined} ref To what was staged.
 * @param {Way} way
 */
async function sayStaged(ref, { onLine }) {
  if (ref) await onLine?.(`[paperclip] What was staged in the workspace is kept as ${ref}\n`);
}

/**
 * Downloads a tree's files: into a folder where the provider can, otherwise as an archive.
 *
 * @param {Tree} tree
 * @param {Way} way
 * @param {string} temporary
 */
async function fetchFiles(tree, way, temporary) {
  const { client } = way;
  const progress = transferProgress({
    what: "Restoring workspace from",
    phase: "restore",
    onLine: way.onLine,
    onStatus: way.onStatus,
  });
  if (typeof client.syncOut === "function") {
    const folder = path.join(temporary, "workspace");
    await fs.promises.mkdir(folder);
    const exclude = tree.nativeExclude;
    const kind = /** @type {const} */ ("directory");
    const file = { sourcePath: tree.remoteDir, targetPath: folder, kind, exclude };
    const roots = { sourceRoots: [tree.remoteDir], targetRoots: [folder] };
    await progress.finish(await receive(client.syncOut.bind(client), way, file, roots));
    return { source: { folder }, mayLack: [APPLE_DOUBLE, ...exclude], mayLackAnything: false };
  }
  const archive = path.posix.join(tree.runtimeRootDir, "workspace-download.tar");
  const mayLackAnything = await packRemotely(tree, way, archive);
  const bytes = toBuffer(await read(client, archive, progress.options));
  await progress.finish(bytes.byteLength);
  await removeQuietly(client, archive);
  const here = path.join(temporary, "workspace.tar");
  await fs.promises.writeFile(here, bytes);
  return { source: { archive: here }, mayLack: tree.tarExclude, mayLackAnything };
}

/** The longest archive that may have no entry, in bytes: tar fills its last block up, and one of them is twenty times smaller. */
const EMPTY_MAX = 64 * 1024;

/**
 * Refuses a download without any file or directory where something was uploaded: it would delete everything here. A transfer that
 * did nothing looks like that, and a sandbox that was replaced. Only where the sandbox itself has packed it, and has commits on
 * top of those that were uploaded, has its agent deleted everything.
 *
 * @param {Tree} tree
 * @param {{ folder: string } | { archive: string }} source
 * @param {string[]} tips What the sandbox' branches, tags and stashes name.
 */
async function refuseEmpty(tree, source, tips) {
  const { localDir, remoteDir, base } = tree;
  if (base.size === 0 || !(await isEmpty(source))) return;
  if ("archive" in source) {
    for (const tip of tips.slice(0, OTHERS_MAX)) {
      // What was not taken over, or is no commit, proves nothing.
      if (await includes(localDir, tip, baseOf(tree)).catch(() => false)) return;
    }
  }
  const message =
    `the environment's ${remoteDir} came back without any file, though ${base.size} files and directories were there; ` +
    `nothing was changed in ${localDir}. If the environment was emptied or replaced, or its transfer failed, prepare it ` +
    "again. If everything in it was to be deleted, delete it here, or leave one file there";
  throw codedError(Error, "ERR_SANDBOX_REPLACED", message);
}

/**
 * Whether a download has nothing but what is never transferred.
 *
 * @param {{ folder: string } | { archive: string }} source
 */
async function isEmpty(source) {
  if ("folder" in source) {
    const names = await fs.promises.readdir(source.folder);
    return names.every((name) => [".git", RUNTIME].includes(name));
  }
  if ((await fs.promises.stat(source.archive)).size > EMPTY_MAX) return false;
  return (await readArchive(source.archive, { snapshot: [...GIT_EXCLUDES, RUNTIME] })).size === 0;
}

/**
 * Has the sandbox pack a tree. Returns whether the archive may be incomplete: where tar fails, a second command packs what
 * can be read, and nothing that is missing then counts as deleted.
 *
 * @param {Tree} tree
 * @param {Way} way
 * @param {string} archive
 */
async function packRemotely(tree, way, archive) {
  const { client, timeoutMs } = way;
  const download = { folder: tree.remoteDir, archive, exclude: tree.tarExclude };
  const isLong = download.exclude.join(" ").length > COMMAND_MAX / 4;
  const excludeFile = isLong ? path.posix.join(tree.runtimeRootDir, "workspace-download.exclude") : undefined;
  if (excludeFile) {
    // A name with a line break cannot be written in that file: it is transferred, and left out on this side.
    const lines = download.exclude.filter((pattern) => !pattern.includes("\n"));
    const text = new TextEncoder().encode(`${lines.join("\n")}\n`);
    await client.makeDir(tree.runtimeRootDir);
    await client.writeFile(excludeFile, text.slice().buffer);
  }
  try {
    await client.run(packWorkspace({ ...download, excludeFile }), { timeoutMs });
    return false;
  } catch (error) {
    try {
      await client.run(packWorkspace({ ...download, excludeFile, tolerant: true }), { timeoutMs });
    } catch {
      // The first failure is the one to report.
      throw error;
    }
    return true;
  } finally {
    if (excludeFile) await removeQuietly(client, excludeFile);
  }
}

/**
 * One native transfer from the sandbox. Returns how many bytes the provider says were transferred.
 *
 * @param {NonNullable<own.SandboxManagedRuntimeClient["syncOut"]>} syncOut
 * @param {Way} way
 * @param {own.SandboxSyncFileMapping} file
 * @param {{ sourceRoots: string[], targetRoots: string[] }} roots
 */
async function receive(syncOut, way, file, roots) {
  const operations = [{ operationId: way.nextOperationId(), files: [file] }];
  assertSyncOperationsConfined(operations, roots);
  return bytesTransferred(await syncOut(operations));
}

/**
 * @param {own.SandboxManagedRuntimeClient} client
 * @param {string} file
 * @param {own.SandboxTransferProgressOptions} [progress]
 */
const read = async (client, file, progress) =>
  progress ? client.readFile(file, progress) : client.readFile(file);

/**
 * Removes files that are no longer needed. A failure is ignored: the next run overwrites them.
 *
 * @param {own.SandboxManagedRuntimeClient} client
 * @param {string} file
 */
async function removeQuietly(client, file) {
  try {
    await client.remove(file);
  } catch {
    // As said above.
  }
}

module.exports = { restoreTree, succeeds, whereGone };
