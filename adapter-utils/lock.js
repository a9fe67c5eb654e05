"use strict";

// The merge lock at the place where adapter-utils' releases have it: in the folder of Paperclip's instance, named by the
// digest of the workspace's real path. So both exclude each other.

const { native } = require("../binding.js");
const check = require("../js/check.js");
const { invalidType } = require("../js/errors.js");
const { awaitNative, holding } = require("../js/native.js");
const { crypto, fs, os, path } = require("../js/node.js");

/** @import * as own from "./index.js" */

const DEFAULT_INSTANCE = "default";

/** @type {own.InstanceRootResolver} */
function resolveInstanceRoot({ homeDir, instanceId, env = process.env } = {}) {
  const home = homeDir?.trim() || env.PAPERCLIP_HOME?.trim() || "~/.paperclip";
  const instance = instanceId?.trim() || env.PAPERCLIP_INSTANCE_ID?.trim() || DEFAULT_INSTANCE;
  if (!/^[a-zA-Z0-9_-]+$/.test(instance)) throw new Error(`Invalid PAPERCLIP_INSTANCE_ID '${instance}'.`);
  const absolute = home === "~" || home.startsWith("~/") ? path.join(os.homedir(), home.slice(1)) : home;
  return path.resolve(absolute, "instances", instance);
}

/**
 * The folder of all locks, created if it is missing. Anything else at its path is refused: through a link, a lock would
 * protect nothing.
 *
 * @param {own.InstanceRootResolver} resolve
 * @param {NodeJS.ProcessEnv} env
 */
async function lockRoot(resolve, env) {
  const homeDir = env.PAPERCLIP_HOME?.trim() || undefined;
  const instanceId = env.PAPERCLIP_INSTANCE_ID?.trim() || undefined;
  const root = path.join(resolve({ homeDir, instanceId, env }), "locks", "directory-merge");
  const isPlain = async () => {
    const found = await fs.promises.lstat(root).catch((error) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (found && !found.isDirectory()) {
      throw new Error(`Directory merge lock root at ${root} is not a plain directory.`);
    }
    return found !== undefined;
  };
  if (!(await isPlain())) {
    await fs.promises.mkdir(root, { recursive: true, mode: 0o700 });
    await isPlain();
  }
  return root;
}

/**
 * Where the lock of a folder is, and the folder with all links resolved.
 *
 * @param {own.InstanceRootResolver} resolve
 * @param {string} targetDir
 * @param {NodeJS.ProcessEnv} [env]
 */
async function placeOfLock(resolve, targetDir, env = process.env) {
  const canonical = await fs.promises.realpath(targetDir);
  const name = crypto.createHash("sha256").update(canonical).digest("hex");
  return { canonical, lock: path.join(await lockRoot(resolve, env), `${name}.lock`) };
}

/**
 * @param {own.InstanceRootResolver} resolve
 * @returns {typeof own.withDirectoryMergeLock}
 */
function createWithDirectoryMergeLock(resolve) {
  return async function withDirectoryMergeLock(targetDir, fn, env) {
    const target = check.localPath("targetDir", targetDir);
    if (typeof fn !== "function") throw invalidType("fn", "of type function", fn);
    const { canonical, lock } = await placeOfLock(resolve, target, env);
    const held = await awaitNative(native().acquireMergeLock(JSON.stringify({ at: lock })));
    return holding(
      async () => fn(canonical),
      () => awaitNative(held.release()),
    );
  };
}

module.exports = { createWithDirectoryMergeLock, placeOfLock, resolveInstanceRoot };
