"use strict";

// Snapshots and merges by the rules of adapter-utils' releases, done by the native core.

const { native } = require("../binding.js");
const check = require("../js/check.js");
const { invalidType } = require("../js/errors.js");
const { awaitNative, holding, readEntries, writeBaseline } = require("../js/native.js");
const { util } = require("../js/node.js");
const { placeOfLock } = require("./lock.js");

/** @import * as own from "./index.js" */

/**
 * What is left out of a snapshot or of a merge.
 *
 * @typedef {object} LeftOut
 * @property {string[]} snapshot In the four forms of a snapshot's patterns.
 * @property {string[]} [tar] Patterns of tar.
 */

/** Patterns of what is never packed here. */
const APPLE_DOUBLE = "._*";

/** @type {typeof own.captureDirectorySnapshot} */
async function captureDirectorySnapshot(rootDir, options) {
  const root = check.localPath("rootDir", rootDir);
  check.object("options", options ?? {});
  const exclude = [...new Set(check.strings("options.exclude", options?.exclude))];
  return { exclude, entries: await capture(root, { snapshot: exclude }) };
}

/**
 * @param {string} root
 * @param {LeftOut} leftOut
 */
async function capture(root, leftOut) {
  return readEntries(
    await awaitNative(native().captureSnapshot(JSON.stringify(root), JSON.stringify(leftOut))),
  );
}

/**
 * The snapshot of an archive on this machine, which is that of the sandbox into which it was extracted.
 *
 * @param {string} archive
 * @param {LeftOut} leftOut
 */
async function readArchive(archive, leftOut) {
  return readEntries(
    await awaitNative(native().readArchive(JSON.stringify(archive), JSON.stringify(leftOut))),
  );
}

/**
 * Those of some paths of files that are left out.
 *
 * @param {string[]} paths
 * @param {LeftOut} leftOut
 * @returns {Promise<Set<string>>}
 */
async function findLeftOut(paths, leftOut) {
  const found = await awaitNative(native().findLeftOut(JSON.stringify(paths), JSON.stringify(leftOut)));
  return new Set(/** @type {number[]} */ (JSON.parse(found)).map((at) => /** @type {string} */ (paths[at])));
}

/**
 * Merges a sandbox's files into a workspace. Resolves with their snapshot: the base of the next merge.
 *
 * @param {object} merge
 * @param {own.InstanceRootResolver} merge.resolveInstanceRoot
 * @param {own.DirectorySnapshot["entries"]} merge.base
 * @param {{ folder: string } | { archive: string }} merge.source
 * @param {string} merge.targetDir
 * @param {LeftOut} merge.leftOut Neither taken from the sandbox nor touched here.
 * @param {string[]} merge.mayLack Patterns of tar: what is missing of these was left out on the way, and not deleted.
 * @param {boolean} [merge.mayLackAnything]
 * @param {() => Promise<void>} [merge.beforeApply]
 * @param {() => Promise<void>} [merge.afterApply]
 */
async function merge({ resolveInstanceRoot, base, beforeApply, afterApply, ...terms }) {
  const { canonical, lock } = await placeOfLock(resolveInstanceRoot, terms.targetDir);
  const input = {
    source: terms.source,
    targetDir: canonical,
    exclude: terms.leftOut,
    mayLack: terms.mayLack,
    mayLackAnything: terms.mayLackAnything ?? false,
    lock,
  };
  const begun = await awaitNative(native().beginMerge(JSON.stringify(input), await writeBaseline(base)));
  let isApplied = false;
  const finish = async () => {
    const pieces = await awaitNative(begun.finish(isApplied));
    return pieces ? readEntries(pieces) : base;
  };
  let next = base;
  await holding(
    async () => {
      await beforeApply?.();
      await awaitNative(begun.apply());
      isApplied = true;
      await afterApply?.();
    },
    async () => {
      next = await finish();
    },
  );
  return next;
}

/**
 * @param {own.InstanceRootResolver} resolveInstanceRoot
 * @returns {typeof own.mergeDirectoryWithBaseline}
 */
function createMergeDirectoryWithBaseline(resolveInstanceRoot) {
  return async function mergeDirectoryWithBaseline(input) {
    check.object("input", input);
    const baseline = check.object("input.baseline", input.baseline);
    if (!util.types.isMap(baseline.entries)) {
      throw invalidType("input.baseline.entries", "an instance of Map", baseline.entries);
    }
    const exclude = check.strings("input.baseline.exclude", baseline.exclude);
    await merge({
      resolveInstanceRoot,
      base: baseline.entries,
      source: { folder: check.localPath("input.sourceDir", input.sourceDir) },
      targetDir: check.localPath("input.targetDir", input.targetDir),
      leftOut: { snapshot: exclude },
      // The patterns were given to tar, which understands them in its own way: the folder may lack files of the snapshot.
      mayLack: [APPLE_DOUBLE, ...exclude],
      beforeApply: check.callback("input.beforeApply", input.beforeApply),
      afterApply: check.callback("input.afterApply", input.afterApply),
    });
  };
}

module.exports = {
  APPLE_DOUBLE,
  capture,
  captureDirectorySnapshot,
  createMergeDirectoryWithBaseline,
  findLeftOut,
  merge,
  readArchive,
};
