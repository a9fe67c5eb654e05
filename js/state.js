"use strict";

// The folder in which this package stores what it knows of sandboxes and files between calls.

const { os, path } = require("./node.js");

const NAME = "sandbox-managed-runtime";

/**
 * The state folder: below `PAPERCLIP_HOME`, else the platform's cache folder. `null` if there is none; then all transfers are
 * full ones.
 *
 * @param {NodeJS.ProcessEnv} [env]
 * @param {NodeJS.Platform} [platform]
 * @returns {string | null}
 */
function stateDir(env = process.env, platform = process.platform) {
  const paperclip = env.PAPERCLIP_HOME;
  if (paperclip && path.isAbsolute(paperclip)) return path.join(paperclip, "cache", NAME);
  const caches = env.XDG_CACHE_HOME;
  if (caches && path.isAbsolute(caches)) return path.join(caches, "paperclip", NAME);
  const home = homeDir(env);
  if (home === null) return null;
  const folder = platform === "darwin" ? path.join(home, "Library", "Caches") : path.join(home, ".cache");
  return path.join(folder, "paperclip", NAME);
}

/**
 * @param {NodeJS.ProcessEnv} env
 * @returns {string | null}
 */
function homeDir(env) {
  if (env.HOME && path.isAbsolute(env.HOME)) return env.HOME;
  try {
    const home = os.homedir();
    return path.isAbsolute(home) ? home : null;
  } catch {
    // The user has no entry in the system's list, as in some containers.
    return null;
  }
}

module.exports = { stateDir };
