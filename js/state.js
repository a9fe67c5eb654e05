"use strict";

// Where this package keeps what it knows of sandboxes and files between calls.

const { os, path } = require("./node.js");

const NAME = "sandbox-managed-runtime";

/**
 * The folder for that: below `PAPERCLIP_HOME`, else the platform's folder for caches. `null` where there is none, which costs
 * nothing but full transfers.
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
