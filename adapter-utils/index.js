"use strict";

// The modules `sandbox-managed-runtime` and `workspace-restore-merge` of adapter-utils' newest release, over this package's
// core. What those modules import from others of theirs can be passed in; by default it is this package's own.

const main = require("../index.js");
const excludes = require("./excludes.js");
const ownGit = require("./git.js");
const {
  REFERENCED_SOURCE_IGNORE_FAILURE_REASONS,
  createResolveReferencedSourceIgnore,
  referencedSourceIgnoreExcludeEntries,
} = require("./ignored.js");
const { createWithDirectoryMergeLock, resolveInstanceRoot: ownInstanceRoot } = require("./lock.js");
const { captureDirectorySnapshot, createMergeDirectoryWithBaseline } = require("./merge.js");
const { createPrepare } = require("./prepare.js");
const snapshots = require("./snapshots.js");
const { assertSyncOperationsConfined } = require("./transfer.js");

/** @import * as types from "./index.js" */

/** @type {typeof types.createAdapterUtils} */
function createAdapterUtils({ git = ownGit, resolveInstanceRoot = ownInstanceRoot } = {}) {
  const resolveIgnore = createResolveReferencedSourceIgnore(git);
  return {
    mergeDirectoryWithBaseline: createMergeDirectoryWithBaseline(resolveInstanceRoot),
    prepareSandboxManagedRuntime: createPrepare({ git, resolveInstanceRoot, resolveIgnore }),
    resolveReferencedSourceIgnore: resolveIgnore,
    withDirectoryMergeLock: createWithDirectoryMergeLock(resolveInstanceRoot),
  };
}

const own = createAdapterUtils();

module.exports.REFERENCED_SOURCE_IGNORE_FAILURE_REASONS = REFERENCED_SOURCE_IGNORE_FAILURE_REASONS;
module.exports.WORKSPACE_RESTORE_LOCK_TIMEOUT_CODE = snapshots.WORKSPACE_RESTORE_LOCK_TIMEOUT_CODE;
module.exports.assertSyncOperationsConfined = assertSyncOperationsConfined;
module.exports.buildSandboxExecutionSessionIdentity = main.buildSandboxExecutionSessionIdentity;
module.exports.captureDirectorySnapshot = captureDirectorySnapshot;
module.exports.classifyWorkspaceRestoreFailure = snapshots.classifyWorkspaceRestoreFailure;
module.exports.createAdapterUtils = createAdapterUtils;
module.exports.createTarballFromDirectory = main.createTarballFromDirectory;
module.exports.describeWorkspaceRestoreFailure = snapshots.describeWorkspaceRestoreFailure;
module.exports.directoryEntryMatchesBaseline = main.directoryEntryMatchesBaseline;
module.exports.directorySnapshotSha256 = snapshots.directorySnapshotSha256;
module.exports.escapeTarExcludeLiteral = excludes.escapeTarExcludeLiteral;
module.exports.mergeDirectoryWithBaseline = own.mergeDirectoryWithBaseline;
module.exports.mergeExcludes = excludes.mergeExcludes;
module.exports.mirrorDirectory = main.mirrorDirectory;
module.exports.parseDirectorySnapshot = snapshots.parseDirectorySnapshot;
module.exports.parseSandboxRemoteExecutionSpec = main.parseSandboxRemoteExecutionSpec;
module.exports.prepareSandboxManagedRuntime = own.prepareSandboxManagedRuntime;
module.exports.referencedSourceIgnoreExcludeEntries = referencedSourceIgnoreExcludeEntries;
module.exports.resolveReferencedSourceIgnore = own.resolveReferencedSourceIgnore;
module.exports.sandboxExecutionSessionMatches = main.sandboxExecutionSessionMatches;
module.exports.serializeDirectorySnapshot = snapshots.serializeDirectorySnapshot;
module.exports.withDirectoryMergeLock = own.withDirectoryMergeLock;
