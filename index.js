"use strict";

// The package's functions. They check arguments and return promises. All work on files is done by the binding (src/), and
// js/calls.js calls the client.

const { native } = require("./binding.js");
const check = require("./js/check.js");
const { Abort } = require("./js/abort.js");
const { ClientCalls } = require("./js/calls.js");
const { invalidType } = require("./js/errors.js");
const { LeaseKeeper } = require("./js/lease.js");
const { awaitNative, holding, readEntries, writeBaseline } = require("./js/native.js");
const {
  path,
  util: { types },
} = require("./js/node.js");
const { tell } = require("./js/progress.js");
const spec = require("./js/spec.js");
const { stateDir } = require("./js/state.js");
const { nextTurn } = require("./js/turn.js");

/**
 * @import * as own from "./index.js"
 * @import { Canceller } from "./binding.js"
 */

/**
 * Runs work that a caller may abort: the promise rejects with the signal's reason at once, and the work ends as soon as it can.
 *
 * @template T
 * @param {Abort} abort
 * @param {(canceller: Canceller) => Promise<T>} work
 */
async function abortable(abort, work) {
  const canceller = new (native().Canceller)();
  return abort.until(
    () => work(canceller),
    () => canceller.cancel(),
  );
}

/** @type {typeof own.createTarballFromDirectory} */
async function createTarballFromDirectory(input) {
  check.object("input", input);
  const options = {
    localDir: check.localPath("input.localDir", input.localDir),
    archivePath: check.localPath("input.archivePath", input.archivePath),
    exclude: check.strings("input.exclude", input.exclude),
    ignoreFiles: check.strings("input.ignoreFiles", input.ignoreFiles),
    followSymlinks: Boolean(input.followSymlinks),
  };
  const abort = new Abort(check.signal("input.signal", input.signal));
  return abortable(abort, (canceller) =>
    awaitNative(native().createTarballFromDirectory(JSON.stringify(options), canceller)),
  );
}

/** @type {typeof own.mirrorDirectory} */
async function mirrorDirectory(sourceDir, targetDir, options) {
  check.object("options", options ?? {});
  const input = {
    // Like `path.join`: `..` removes the name before it, even if no such folder exists.
    sourceDir: path.normalize(check.localPath("sourceDir", sourceDir)),
    targetDir: path.normalize(check.localPath("targetDir", targetDir)),
    preserveAbsent: check.strings("options.preserveAbsent", options?.preserveAbsent),
  };
  const abort = new Abort(check.signal("options.signal", options?.signal));
  return abortable(abort, (canceller) =>
    awaitNative(native().mirrorDirectory(JSON.stringify(input), canceller)),
  );
}

/** @param {own.SandboxManagedRuntimeAsset[] | null} [assets] */
function checkAssets(assets) {
  if (assets === undefined || assets === null) return [];
  if (!Array.isArray(assets)) throw invalidType("input.assets", "an array", assets);
  return Array.from(assets, (asset, at) => {
    const argument = `input.assets[${at}]`;
    check.object(argument, asset);
    check.unserved(argument, asset, check.UNSERVED_OF_AN_ASSET);
    return {
      key: check.string(`${argument}.key`, asset.key),
      localDir: check.localPath(`${argument}.localDir`, asset.localDir),
      followSymlinks: Boolean(asset.followSymlinks),
      exclude: check.strings(`${argument}.exclude`, asset.exclude),
    };
  });
}

/** How many parts of an archive are sent at once, if the client or the caller allows several. */
const PARTS_AT_ONCE = 4;

/**
 * @param {own.SandboxManagedRuntimeClient} client
 * @param {number} [concurrency]
 */
function partsAtOnce(client, concurrency) {
  const allowed = client.allowConcurrentSyncOperations === true || (concurrency ?? 1) > 1;
  return allowed ? PARTS_AT_ONCE : 1;
}

/** @type {typeof own.prepareSandboxManagedRuntime} */
async function prepareSandboxManagedRuntime(input) {
  return inSandbox(input, ["makeDir", "writeFile", "run"], false);
}

/** @type {typeof own.resumeSandboxManagedRuntime} */
async function resumeSandboxManagedRuntime(input) {
  return inSandbox(input, ["run", "readFile", "remove"], true);
}

/**
 * Makes the `prepared` object of a workspace, after an upload or after the stored one of an earlier prepare (a resume).
 *
 * @param {own.PrepareSandboxManagedRuntimeInput} input
 * @param {(keyof own.SandboxManagedRuntimeClient)[]} methods The methods that the client must have.
 * @param {boolean} isResumed
 * @returns {Promise<own.PreparedSandboxManagedRuntime>}
 */
async function inSandbox(input, methods, isResumed) {
  check.object("input", input);
  check.object("input.spec", input.spec);
  const { client, workspaceLocalDir } = input;
  check.client(client, methods);
  check.unserved("input", input, check.UNSERVED);
  const hasRemoteDir = input.workspaceRemoteDir !== undefined && input.workspaceRemoteDir !== null;
  const workspaceRemoteDir = hasRemoteDir
    ? check.string("input.workspaceRemoteDir", input.workspaceRemoteDir)
    : check.string("input.spec.remoteCwd", input.spec.remoteCwd);
  const assets = checkAssets(input.assets);
  const options = {
    workspaceLocalDir: check.localPath("input.workspaceLocalDir", workspaceLocalDir),
    workspaceRemoteDir: hasRemoteDir ? workspaceRemoteDir : null,
    remoteCwd: workspaceRemoteDir,
    adapterKey: check.string("input.adapterKey", input.adapterKey),
    workspaceExclude: check.strings("input.workspaceExclude", input.workspaceExclude),
    ignoreFiles: check.strings("input.ignoreFiles", input.ignoreFiles),
    preserveAbsentOnRestore: check.strings("input.preserveAbsentOnRestore", input.preserveAbsentOnRestore),
    assets,
    concurrency: check.concurrency(input.concurrency),
    partBytes: check.partBytes(input.partBytes),
    compress: check.compression(input.compression),
    changesOnly: check.transfer(input.transfer),
    stateDir: stateDir(),
    sandbox: [String(input.spec.provider), String(input.spec.sandboxId)],
    partsAtOnce: partsAtOnce(client, input.concurrency),
    git: check.git(input.git),
    gitCredentials: Boolean(input.gitCredentials),
    gitDepth: check.gitDepth(input.gitDepth),
    keepConflictsDays: check.keepConflictsDays(input.keepConflictsDays),
  };
  const onLine = check.callback("input.onProgress", input.onProgress);
  const onStatus = check.callback("input.onRuntimeProgress", input.onRuntimeProgress);
  const onReport = check.callback("input.onReport", input.onReport);
  const onPrepareReport = check.callback("input.onPrepareReport", input.onPrepareReport);
  const abort = new Abort(check.signal("input.signal", input.signal));
  const lease = new LeaseKeeper(check.lease(input.lease));
  /** @type {(phase: own.RuntimeStatusPhase, message: string) => Promise<void>} */
  const status = (phase, message) => tell(onStatus, { phase, message });

  /** @param {Canceller} canceller */
  const prepare = async (canceller) => {
    await status("config_sync", "Syncing workspace to sandbox");
    const beforeAsset = () => status("config_sync", "Syncing runtime assets to sandbox");
    const listeners = { onLine, onStatus, beforeAsset };
    const calls = new ClientCalls({ client, spec: input.spec, lease, abort, listeners });
    let prepared;
    try {
      prepared = await native().prepareSession(JSON.stringify(options), calls.dispatch, canceller);
    } catch (error) {
      throw calls.failure(error);
    }
    if (onPrepareReport) {
      const archives = JSON.parse(prepared.prepareReport());
      await tell(onPrepareReport, { archives, failedRefreshes: lease.failedOrHanging });
    }
    return prepared;
  };
  const session = await abortable(abort, (canceller) =>
    isResumed ? awaitNative(native().resumeSession(JSON.stringify(options))) : prepare(canceller),
  );

  const runtimeRootDir = session.runtimeRootDir();

  /** @type {own.PreparedSandboxManagedRuntime["restoreWorkspace"]} */
  async function restoreWorkspace(onProgress, restoreOptions) {
    const restoreSink = check.callback("onProgress", onProgress) ?? onLine;
    check.object("options", restoreOptions ?? {});
    const restoreAbort = new Abort(check.signal("options.signal", restoreOptions?.signal));
    check.client(client, ["run", "readFile", "remove"]);
    try {
      await abortable(restoreAbort, async (canceller) => {
        await status("restore", "Restoring workspace from sandbox");
        const listeners = { onLine: restoreSink, onStatus };
        const calls = new ClientCalls({ client, spec: input.spec, lease, abort: restoreAbort, listeners });
        const dryRun = Boolean(restoreOptions?.dryRun);
        let pieces;
        try {
          pieces = await session.restore(calls.dispatch, canceller, onReport !== undefined, dryRun);
        } catch (error) {
          throw calls.failure(error);
        }
        if (pieces) {
          const failedRefreshes = lease.failedOrHanging;
          await tell(onReport, { ...(await readReport(pieces)), dryRun, failedRefreshes });
        }
      });
    } finally {
      lease.stop();
      const told = status("finalize", "Finalizing sandbox workspace");
      // After an abort, the restore does not wait for a listener.
      await restoreAbort.until(() => told).catch(() => undefined);
    }
  }

  lease.keepBetween(restoreWorkspace);
  return {
    spec: input.spec,
    workspaceLocalDir,
    workspaceRemoteDir,
    runtimeRootDir,
    assetDirs: Object.fromEntries(assets.map(({ key }) => [key, `${runtimeRootDir}/${key}`])),
    restoreWorkspace,
  };
}

/** @type {typeof own.captureDirectorySnapshot} */
async function captureDirectorySnapshot(rootDir, options) {
  const root = check.localPath("rootDir", rootDir);
  check.object("options", options ?? {});
  const exclude = [...new Set(check.strings("options.exclude", options?.exclude))];
  const left = JSON.stringify({ paths: exclude });
  const pieces = await awaitNative(native().captureSnapshot(JSON.stringify(root), left));
  return { exclude, entries: await readEntries(pieces) };
}

/**
 * Reads a report. It may name every path of a workspace, so its lists are read in pieces, one in each turn of the event loop.
 *
 * @param {import("./binding.js").Pieces} pieces
 */
async function readReport(pieces) {
  const report = JSON.parse(/** @type {string} */ (pieces.read()));
  for (let json = pieces.read(); json !== null; json = pieces.read()) {
    const [list, items] = JSON.parse(json);
    report[list].push(...items);
    await nextTurn();
  }
  return report;
}

/** @type {typeof own.mergeDirectoryWithBaseline} */
async function mergeDirectoryWithBaseline(input) {
  check.object("input", input);
  const baseline = check.object("input.baseline", input.baseline);
  if (!types.isMap(baseline.entries)) {
    throw invalidType("input.baseline.entries", "an instance of Map", baseline.entries);
  }
  const options = {
    source: { folder: check.localPath("input.sourceDir", input.sourceDir) },
    targetDir: check.localPath("input.targetDir", input.targetDir),
    exclude: { paths: check.strings("input.baseline.exclude", baseline.exclude) },
  };
  const beforeApply = check.callback("input.beforeApply", input.beforeApply);
  const afterApply = check.callback("input.afterApply", input.afterApply);
  const writer = await writeBaseline(baseline.entries);
  const merge = await awaitNative(native().beginMerge(JSON.stringify(options), writer));
  await holding(
    async () => {
      await beforeApply?.();
      await awaitNative(merge.apply());
      await afterApply?.();
    },
    () => awaitNative(merge.finish(false)),
  );
}

/** @type {typeof own.withDirectoryMergeLock} */
async function withDirectoryMergeLock(targetDir, fn) {
  const target = check.localPath("targetDir", targetDir);
  if (typeof fn !== "function") throw invalidType("fn", "of type function", fn);
  const lock = await awaitNative(native().acquireMergeLock(JSON.stringify({ of: target })));
  return holding(fn, () => awaitNative(lock.release()));
}

/** @type {typeof own.directoryEntryMatchesBaseline} */
async function directoryEntryMatchesBaseline(rootDir, relative, baselineEntry) {
  const root = check.localPath("rootDir", rootDir);
  check.string("relative", relative);
  // A missing entry matches nothing.
  if (baselineEntry === undefined || baselineEntry === null) return false;
  check.object("baselineEntry", baselineEntry);
  const expected = /** @type {Record<string, unknown>} */ (baselineEntry);
  const json = await awaitNative(native().readEntry(JSON.stringify(root), JSON.stringify(relative)));
  if (typeof json !== "string") return false;
  const entry = JSON.parse(json);
  return Object.keys(entry).every((key) => entry[key] === expected[key]);
}

module.exports.buildSandboxExecutionSessionIdentity = spec.buildSandboxExecutionSessionIdentity;
module.exports.captureDirectorySnapshot = captureDirectorySnapshot;
module.exports.createTarballFromDirectory = createTarballFromDirectory;
module.exports.directoryEntryMatchesBaseline = directoryEntryMatchesBaseline;
module.exports.mergeDirectoryWithBaseline = mergeDirectoryWithBaseline;
module.exports.mirrorDirectory = mirrorDirectory;
module.exports.parseSandboxRemoteExecutionSpec = spec.parseSandboxRemoteExecutionSpec;
module.exports.prepareSandboxManagedRuntime = prepareSandboxManagedRuntime;
module.exports.resumeSandboxManagedRuntime = resumeSandboxManagedRuntime;
module.exports.sandboxExecutionSessionMatches = spec.sandboxExecutionSessionMatches;
module.exports.withDirectoryMergeLock = withDirectoryMergeLock;
