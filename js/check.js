"use strict";

const { invalidType, invalidValue } = require("./errors.js");
const { path } = require("./node.js");

// Checks of arguments. The types say the same; these are for callers without a type checker.

/** @import { SandboxLease, SandboxManagedRuntimeClient } from "../index.js" */

/**
 * @template T
 * @param {string} argument
 * @param {T} value
 */
function object(argument, value) {
  if (typeof value !== "object" || value === null) throw invalidType(argument, "of type object", value);
  return value;
}

/**
 * @param {string} argument
 * @param {unknown} value
 */
function string(argument, value) {
  if (typeof value !== "string") throw invalidType(argument, "of type string", value);
  return value;
}

/**
 * A local path as an absolute one, so that it names the same folder when the process changes its working directory. Nothing
 * else of its text is changed, because the name of the merge lock is derived from it.
 *
 * @param {string} argument
 * @param {string} value
 */
function localPath(argument, value) {
  string(argument, value);
  if (value === "") throw invalidValue(argument, "it is empty; pass a path", value);
  if (value.includes("\0")) throw invalidValue(argument, "it contains a NUL byte, which no path can", value);
  return path.isAbsolute(value) ? value : `${process.cwd()}/${value}`;
}

/**
 * A copy of an optional list of strings without NUL: the caller may change its own later.
 *
 * @param {string} argument
 * @param {string[] | null} [value]
 */
function strings(argument, value) {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw invalidType(argument, "an array of strings", value);
  return Array.from(value, (item, at) => {
    string(`${argument}[${at}]`, item);
    if (item.includes("\0"))
      throw invalidValue(`${argument}[${at}]`, "it contains a NUL byte, which no name can", item);
    return item;
  });
}

/**
 * @template {Function} F
 * @param {string} argument
 * @param {F | null} [value]
 */
function callback(argument, value) {
  if (value !== undefined && value !== null && typeof value !== "function") {
    throw invalidType(argument, "of type function", value);
  }
  return value ?? undefined;
}

/**
 * @param {string} argument
 * @param {AbortSignal | null} [value]
 */
function signal(argument, value) {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "object" || typeof value.addEventListener !== "function" || !("aborted" in value)) {
    throw invalidType(argument, "an instance of AbortSignal", value);
  }
  return value;
}

/**
 * Checks that a client has these methods. They are looked up again at every call; this refuses early what cannot work.
 *
 * @param {SandboxManagedRuntimeClient} value
 * @param {(keyof SandboxManagedRuntimeClient)[]} methods
 */
function client(value, methods) {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) {
    throw invalidType("input.client", "of type object", value);
  }
  for (const method of methods) {
    if (typeof value[method] !== "function") {
      throw invalidType(`input.client.${method}`, "of type function", value[method]);
    }
  }
}

/** @param {SandboxLease | null} [value] */
function lease(value) {
  if (value === undefined || value === null) return undefined;
  object("input.lease", value);
  if (typeof value.refresh !== "function") {
    throw invalidType("input.lease.refresh", "of type function", value.refresh);
  }
  const { intervalMs } = value;
  if (
    intervalMs !== undefined &&
    !(typeof intervalMs === "number" && intervalMs > 0 && intervalMs <= 0x7fffffff)
  ) {
    throw invalidValue(
      "input.lease.intervalMs",
      "it must be a number of milliseconds above 0 and at most 2147483647",
      intervalMs,
    );
  }
  return value;
}

/** @param {number | null} [value] */
function concurrency(value) {
  if (value === undefined || value === null) return 1;
  if (typeof value !== "number") throw invalidType("input.concurrency", "of type number", value);
  if (!Number.isInteger(value) || value < 1 || value > 16) {
    throw invalidValue("input.concurrency", "it must be a whole number from 1 to 16", value);
  }
  return value;
}

const PART_BYTES = 32 * 1024 * 1024;
const PART_BYTES_MIN = 64 * 1024;
const PART_BYTES_MAX = 1024 * 1024 * 1024;

/** @param {number | null} [value] */
function partBytes(value) {
  if (value === undefined || value === null) return PART_BYTES;
  if (typeof value !== "number") throw invalidType("input.partBytes", "of type number", value);
  if (!Number.isInteger(value) || value < PART_BYTES_MIN || value > PART_BYTES_MAX) {
    const range = `it must be a whole number of bytes from ${PART_BYTES_MIN} to ${PART_BYTES_MAX}`;
    throw invalidValue("input.partBytes", range, value);
  }
  return value;
}

/**
 * Checks `compression`: whether transfers may be compressed.
 *
 * @param {string | null} [value]
 */
function compression(value) {
  if (value === undefined || value === null || value === "auto") return true;
  if (value === "none") return false;
  if (typeof value !== "string") throw invalidType("input.compression", "of type string", value);
  throw invalidValue("input.compression", `it must be "auto" or "none"`, value);
}

/**
 * Checks `transfer`: whether only changes may be transferred.
 *
 * @param {string | null} [value]
 */
function transfer(value) {
  if (value === undefined || value === null || value === "auto") return true;
  if (value === "full") return false;
  if (typeof value !== "string") throw invalidType("input.transfer", "of type string", value);
  throw invalidValue("input.transfer", `it must be "auto" or "full"`, value);
}

/**
 * Checks `git`: how git repositories are transferred.
 *
 * @param {string | null} [value]
 */
function git(value) {
  if (value === undefined || value === null) return "merge";
  if (typeof value !== "string") throw invalidType("input.git", "of type string", value);
  if (!["merge", "files", "off"].includes(value)) {
    throw invalidValue("input.git", `it must be "merge", "files" or "off"`, value);
  }
  return value;
}

/** @param {number | null} [value] */
function gitDepth(value) {
  if (value === undefined || value === null) return null;
  if (typeof value !== "number") throw invalidType("input.gitDepth", "of type number", value);
  if (!Number.isSafeInteger(value) || value < 1) {
    throw invalidValue("input.gitDepth", "it must be a whole number of commits from 1 on", value);
  }
  return value;
}

/**
 * Checks `keepConflictsDays`: how many days backups stay; `null` means forever, for which JSON has no number.
 *
 * @param {number | null} [value]
 */
function keepConflictsDays(value) {
  if (value === undefined) return 30;
  if (value === null || value === Infinity) return null;
  if (typeof value !== "number") throw invalidType("input.keepConflictsDays", "of type number", value);
  if (!(value >= 0)) {
    throw invalidValue("input.keepConflictsDays", "it must be a number of days from 0 on, or null", value);
  }
  return value;
}

/** @type {(...values: unknown[]) => (value: unknown) => boolean} */
const oneOf =
  (...values) =>
  (value) =>
    values.includes(value);
const isEmptyList = (/** @type {unknown} */ value) => Array.isArray(value) && value.length === 0;
const isNothing = () => false;

/** @param {unknown} value */
function provisionsNothing(value) {
  if (typeof value !== "object" || value === null) return false;
  const { stageFiles, postUploadCommand } = /** @type {Record<string, unknown>} */ (value);
  return (stageFiles == null || isEmptyList(stageFiles)) && postUploadCommand == null;
}

/**
 * Fields of adapter-utils' newer releases that change what happens to files, each with the values that change nothing here.
 * If they were ignored, files would be deleted that a caller asked to keep.
 *
 * @type {Record<string, (value: unknown) => boolean>}
 */
const UNSERVED = {
  syncWorkspace: oneOf(true),
  workspaceInboundMode: oneOf("host_current"),
  workspaceBaseline: isNothing,
  workspaceDurableSeed: isNothing,
  workspaceGitSnapshot: isNothing,
  additionalSources: isEmptyList,
};

/** The same for an asset. */
const UNSERVED_OF_AN_ASSET = { provision: provisionsNothing, restore: isNothing };

/**
 * Refuses fields that would change the meaning of a call and are not supported.
 *
 * @param {string} argument
 * @param {object} value
 * @param {Record<string, (value: unknown) => boolean>} fields
 */
function unserved(argument, value, fields) {
  for (const [name, asksForNoMore] of Object.entries(fields)) {
    const given = /** @type {Record<string, unknown>} */ (value)[name];
    if (given === undefined || given === null || asksForNoMore(given)) continue;
    const reason =
      "the main entry does not support it, and to ignore it could delete files that it is meant to keep. Import " +
      "'@paperclipai/sandbox-managed-runtime/adapter-utils', which supports it, or leave the field out";
    throw invalidValue(`${argument}.${name}`, reason, given);
  }
}

module.exports = {
  UNSERVED,
  UNSERVED_OF_AN_ASSET,
  callback,
  client,
  compression,
  concurrency,
  git,
  gitDepth,
  keepConflictsDays,
  lease,
  localPath,
  object,
  partBytes,
  signal,
  string,
  strings,
  transfer,
  unserved,
};
