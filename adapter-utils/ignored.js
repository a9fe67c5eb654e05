"use strict";

// Finds out what git ignores in a folder, which need not be the top of a checkout.

const { fs, path, timersPromises } = require("../js/node.js");
const { escapeTarExcludeLiteral } = require("./excludes.js");

/** @import * as own from "./index.js" */

const REFERENCED_SOURCE_IGNORE_FAILURE_REASONS = /** @type {const} */ ({
  scanFailed: "git-ignore-scan-failed",
  limitExceeded: "git-ignore-scan-limit-exceeded",
  toplevelNotDescendant: "git-toplevel-not-descendant",
});

/** The pauses before each further attempt where too many scans run at once, in milliseconds. */
const PAUSES_MS = [1000, 2000];

/**
 * A path with all links resolved, as git prints its own paths. One that does not exist stays as it is written.
 *
 * @param {string} dir
 */
const real = (dir) => fs.promises.realpath(dir).catch(() => path.resolve(dir));

/**
 * @param {own.GitFunctions} git
 * @returns {typeof own.resolveReferencedSourceIgnore}
 */
function createResolveReferencedSourceIgnore(git) {
  /** @param {unknown} error */
  const isSaturated = (error) => Object(error).code === git.WORKSPACE_GIT_SCAN_SATURATED_CODE;

  /** @param {string} localPath */
  async function read(localPath) {
    for (const pause of PAUSES_MS) {
      try {
        return await git.readReferencedSourceGitIgnoredPaths(localPath);
      } catch (error) {
        if (!isSaturated(error)) throw error;
        await timersPromises.setTimeout(pause);
      }
    }
    return git.readReferencedSourceGitIgnoredPaths(localPath);
  }

  return async function resolveReferencedSourceIgnore(localPath) {
    let found;
    try {
      found = await read(localPath);
    } catch (error) {
      // Git's message may contain paths of this machine, so only the kind of failure is reported.
      const isLimit = error instanceof git.ReferencedSourceIgnoreScanLimitExceededError;
      const { limitExceeded, scanFailed } = REFERENCED_SOURCE_IGNORE_FAILURE_REASONS;
      return { kind: "failed", reason: isLimit ? limitExceeded : scanFailed };
    }
    if (!found) return { kind: "other" };
    const below = path.relative(await real(found.toplevel), await real(localPath));
    if (path.isAbsolute(below) || below.split(path.sep)[0] === "..") {
      return { kind: "failed", reason: REFERENCED_SOURCE_IGNORE_FAILURE_REASONS.toplevelNotDescendant };
    }
    const prefix = below === "" ? "" : `${below.split(path.sep).join("/")}/`;
    const inside = found.ignoredPaths.filter((name) => name.startsWith(prefix) && name !== prefix);
    return { kind: "git", ignoredPaths: inside.map((name) => name.slice(prefix.length)) };
  };
}

/** @type {typeof own.referencedSourceIgnoreExcludeEntries} */
const referencedSourceIgnoreExcludeEntries = (resolution) =>
  resolution.kind === "git" ? resolution.ignoredPaths.map(escapeTarExcludeLiteral) : [];

module.exports = {
  REFERENCED_SOURCE_IGNORE_FAILURE_REASONS,
  createResolveReferencedSourceIgnore,
  referencedSourceIgnoreExcludeEntries,
};
