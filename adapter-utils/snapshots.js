"use strict";

// Snapshots as JSON, to be kept between two processes, and the texts for a failed restore, as adapter-utils' releases have
// them. Pure JavaScript.

const { crypto, path } = require("../js/node.js");

/** @import * as own from "./index.js" */

const VERSION = 1;

/** @type {typeof own.serializeDirectorySnapshot} */
function serializeDirectorySnapshot({ exclude, entries }) {
  // The order is part of the digest, and JavaScript's own comparison of texts makes it.
  const inOrder = Array.from(entries).sort(([a], [b]) => a.localeCompare(b));
  return { version: VERSION, exclude: Array.from(exclude), entries: inOrder };
}

/** @type {typeof own.directorySnapshotSha256} */
function directorySnapshotSha256(snapshot) {
  const text = JSON.stringify(serializeDirectorySnapshot(snapshot));
  return crypto.createHash("sha256").update(text).digest("hex");
}

/** @type {typeof own.parseDirectorySnapshot} */
function parseDirectorySnapshot(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  const { version, exclude, entries } = /** @type {Record<string, unknown>} */ (value);
  if (version !== VERSION || !Array.isArray(entries)) return null;
  if (!Array.isArray(exclude) || exclude.some((pattern) => typeof pattern !== "string")) return null;
  /** @type {own.DirectorySnapshot["entries"]} */
  const parsed = new Map();
  for (const pair of entries) {
    if (!Array.isArray(pair) || pair.length !== 2) return null;
    const [name, found] = pair;
    const entry = parseEntry(found);
    if (entry === null || !isBelow(name) || parsed.has(name)) return null;
    parsed.set(name, entry);
  }
  return { exclude: [...new Set(exclude)], entries: parsed };
}

/**
 * Whether a text is a path that stays below the folder that it starts from, on any system.
 *
 * @param {unknown} name
 */
function isBelow(name) {
  if (typeof name !== "string" || name === "") return false;
  if (path.posix.isAbsolute(name) || path.win32.isAbsolute(name)) return false;
  return !name.split(/[/\\]/).includes("..");
}

/**
 * @param {unknown} value
 * @returns {own.SnapshotEntry | null}
 */
function parseEntry(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  const { kind, target, mode, hash } = /** @type {Record<string, unknown>} */ (value);
  switch (kind) {
    case "dir":
      return { kind };
    case "symlink":
      return typeof target === "string" ? { kind, target } : null;
    case "file": {
      if (typeof mode !== "number" || !Number.isInteger(mode) || mode < 0) return null;
      return typeof hash === "string" && /^[0-9a-f]{64}$/.test(hash) ? { kind, mode, hash } : null;
    }
    default:
      return null;
  }
}

const WORKSPACE_RESTORE_LOCK_TIMEOUT_CODE = "ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT";

/** Texts for a run's log, by the kind of failure. They contain no path, no process and no message of another program. */
const DIAGNOSES = {
  restore_permission_denied: "the restore could not write to the workspace (permission denied)",
  restore_lock_timeout: "the restore timed out waiting for the workspace merge lock",
  restore_failed: "the restore failed",
};

/** @type {typeof own.classifyWorkspaceRestoreFailure} */
function classifyWorkspaceRestoreFailure(error) {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  if (code === "EACCES" || code === "EPERM") return "restore_permission_denied";
  return code === WORKSPACE_RESTORE_LOCK_TIMEOUT_CODE ? "restore_lock_timeout" : "restore_failed";
}

/** @type {typeof own.describeWorkspaceRestoreFailure} */
const describeWorkspaceRestoreFailure = (code) => DIAGNOSES[code];

module.exports = {
  WORKSPACE_RESTORE_LOCK_TIMEOUT_CODE,
  classifyWorkspaceRestoreFailure,
  describeWorkspaceRestoreFailure,
  directorySnapshotSha256,
  parseDirectorySnapshot,
  serializeDirectorySnapshot,
};
