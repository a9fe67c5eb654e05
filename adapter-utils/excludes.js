"use strict";

// What does not travel: patterns, as adapter-utils' releases write them.

/** Folders that can be made again. */
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
 * A folder of that name at any depth, for a snapshot and for tar.
 *
 * @param {string} name
 */
const anywhere = (name) => [name, `${name}/*`, `*/${name}`, `*/${name}/*`];

/**
 * The patterns of all heavy folders but those of names that the repository has files under: these are work like any other.
 *
 * @param {Set<string>} [tracked]
 */
const heavyExcludes = (tracked) => HEAVY_NAMES.filter((name) => !tracked?.has(name)).flatMap(anywhere);

const GIT_EXCLUDES = [".git", ".git/*"];
/** A nested repository is never a snapshot's, nor does a tar take it that was given {@link GIT_EXCLUDES}. */
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
