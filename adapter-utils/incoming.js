"use strict";

// What comes back from a sandbox: its commits, and then its files.

const { fs, path } = require("../js/node.js");
const { COMMAND_MAX, packWorkspace, quote } = require("./commands.js");
const { APPLE_DOUBLE, merge } = require("./merge.js");
const { status, transferProgress } = require("./progress.js");
const { keepCommit, keepStaged } = require("./repository.js");
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
 * @property {string | undefined} head The commit that both last shared; moves on.
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
      const imported = importedRef ? await importHistory(tree, way, temporary, importedRef) : undefined;
      await status(way.onStatus, "restore", "Restoring workspace from environment");
      const { source, mayLack, mayLackAnything } = await fetchFiles(tree, way, temporary);
      const next = await merge({
        resolveInstanceRoot: way.resolveInstanceRoot,
        base: tree.base,
        source,
        targetDir: localDir,
        leftOut: tree.leftOut,
        mayLack,
        mayLackAnything,
        beforeApply: imported && (() => integrate(localDir, imported.head, way)),
        afterApply: imported && (() => resetIndex(localDir, imported.isClean, way)),
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
 * Imports the sandbox's commits into the local repository, under a reference of their own.
 *
 * @param {Tree} tree
 * @param {Way} way
 * @param {string} temporary
 * @param {string} importedRef
 */
async function importHistory(tree, way, temporary, importedRef) {
  const { git, client, timeoutMs } = way;
  const baseSha = tree.head ?? /** @type {own.GitWorkspaceSnapshot} */ (tree.snapshot).headCommit;
  const exportRef = git.createRemoteGitExportRef("sandbox");
  const remoteBundle = path.posix.join(tree.runtimeRootDir, "git-delta.bundle");
  const statusPath = path.posix.join(tree.runtimeRootDir, "workspace-status.txt");
  const bundlePath = path.join(temporary, "git-delta.bundle");
  await status(way.onStatus, "export", "Exporting git changes from environment");
  let isClean = false;

  const attempt = async (/** @type {boolean} */ forceFullBundle) => {
    const script = git.buildRemoteGitDeltaBundleScript({
      remoteDir: tree.remoteDir,
      baseSha,
      exportRef,
      bundlePath: remoteBundle,
      statusPath: forceFullBundle ? undefined : statusPath,
      forceFullBundle,
    });
    await client.run(`sh -c ${quote(script)}`, { timeoutMs });
    const progress = transferProgress({
      what: "Exporting git history from",
      phase: "export",
      onLine: way.onLine,
      onStatus: way.onStatus,
    });
    if (typeof client.syncOut === "function") {
      const roots = { sourceRoots: [tree.runtimeRootDir], targetRoots: [temporary] };
      const file = { sourcePath: remoteBundle, targetPath: bundlePath, kind: /** @type {const} */ ("file") };
      await progress.finish(await receive(client.syncOut.bind(client), way, file, roots));
    } else {
      const bytes = toBuffer(await read(client, remoteBundle, progress.options));
      await progress.finish(bytes.byteLength);
      await fs.promises.writeFile(bundlePath, bytes);
    }
    await removeQuietly(client, remoteBundle);
    if (!forceFullBundle) {
      // Anything but a clear answer counts as not clean.
      const told = await read(client, statusPath).catch(() => Buffer.alloc(0));
      isClean = toBuffer(told).toString().trim() === "clean";
      await removeQuietly(client, statusPath);
    }
    return git.fetchGitBundleIntoLocalRef({
      localDir: tree.localDir,
      bundlePath,
      exportRef,
      importedRef,
      baseSha,
    });
  };
  try {
    return { head: await attempt(false), isClean };
  } catch (error) {
    // The local repository no longer has the bundle's base commit, so everything is fetched.
    if (!git.isMissingGitPrerequisiteError(error)) throw error;
    return { head: await attempt(true), isClean };
  }
}

/**
 * Merges the sandbox's commits into the local branch. Where that fails they stay under a reference of their own, and the
 * files are restored all the same.
 *
 * @param {string} localDir
 * @param {string} importedHead
 * @param {Way} way
 */
async function integrate(localDir, importedHead, way) {
  try {
    await way.git.integrateImportedGitHead({ localDir, importedHead });
  } catch (error) {
    let ref;
    try {
      ref = await keepCommit(localDir, importedHead, "sandbox");
    } catch {
      // The reference could not be created either: the first failure is the one to report.
      throw error;
    }
    const why = error instanceof Error ? error.message.split("\n", 1)[0] : String(error);
    await way.onLine?.(
      `[paperclip] The environment's commits could not be merged and are kept as ${ref}: ${why}\n`,
    );
  }
}

/**
 * Resets the index to the branch as it is now. Staged content that exists nowhere else is kept as a commit.
 *
 * @param {string} localDir
 * @param {boolean} checkWorkingTreeClean
 * @param {Way} way
 */
async function resetIndex(localDir, checkWorkingTreeClean, way) {
  const ref = await keepStaged(localDir);
  if (ref) await way.onLine?.(`[paperclip] What was staged in the workspace is kept as ${ref}\n`);
  await way.git.resetLocalGitIndexToHead({ localDir, checkWorkingTreeClean });
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

module.exports = { restoreTree };
