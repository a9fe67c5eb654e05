"use strict";

// The patterns of what is not transferred, as adapter-utils' releases write them.

/** Names of folders whose content can be generated again, such as `node_modules`. */
const HEAVY_NAMES = [
  "node_modules",
  "vendor",
  "dist",
  "build",
  "out",
  "coverage",
  ".next",
  ".turbo",
  ".cache",
];

/**
 * The patterns for a folder of this name at any depth: one for a snapshot, one for tar.
 *
 * @param {string} name
 */
const anywhere = (name) => [name, `${name}/*`, `*/${name}`, `*/${name}/*`];

/**
 * The patterns of all heavy folders, except those in which the repository tracks files: their content is work too.
 *
 * @param {Set<string>} [tracked]
 */
const heavyExcludes = (tracked) => HEAVY_NAMES.filter((name) => !tracked?.has(name)).flatMap(anywhere);

const GIT_EXCLUDES = [".git", ".git/*"];
/** The pattern of nested repositories' `.git`, for a snapshot. For tar, {@link GIT_EXCLUDES} cover it already. */
const NESTED_GIT = ["*/.git"];
const RUNTIME = ".paperclip-runtime";

/**
 * @param {(string[] | undefined)[]} groups
 * @returns {string[]}
 */
function mergeExcludes(...groups) {
  return [...new Set(groups.flatMap((group) => group ?? []))];
}

/**
 * A path as a pattern of tar that matches just it, at whatever depth.
 *
 * @param {string} entry
 */
const escapeTarExcludeLiteral = (entry) => entry.replace(/[\\*?[]/g, "\\$&");

/**
 * A path as a pattern of tar that matches it alone, where tar names what it packs `./name`.
 *
 * @param {string} entry
 */
const anchored = (entry) => `./${escapeTarExcludeLiteral(entry)}`;

/**
 * Whether a path is one of these or below one.
 *
 * @param {string} entry
 * @param {Set<string>} paths
 */
function isOrIsBelow(entry, paths) {
  for (let end = entry.length; end > 0; end = entry.lastIndexOf("/", end - 1)) {
    if (paths.has(entry.slice(0, end))) return true;
  }
  return false;
}

module.exports = {
  GIT_EXCLUDES,
  HEAVY_NAMES,
  NESTED_GIT,
  RUNTIME,
  anchored,
  escapeTarExcludeLiteral,
  heavyExcludes,
  isOrIsBelow,
  mergeExcludes,
};
