// The laws of the native core's layout (docs/architecture.md) that a compiler does not check.

import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { root } from "./process.mjs";

/**
 * The rooms below src/ by floor, lowest first. A room may use its own floor and those below, never one above. Files
 * directly in src/ are rooms of their own.
 */
const FLOORS = [
  ["error", "path", "cancel", "random", "threads", "time", "sync"],
  ["exclude", "tree"],
  ["archive", "merge", "mirror", "git"],
  ["transfer"],
  ["sandbox"],
  ["node"],
];

/** The one room that may know Node and allow `unsafe`. */
const NODE_ROOM = "node";

/** The one file that decides without touching a file. */
const PURE = "merge/plan.rs";

/**
 * Reads the core's sources and says where they break a law.
 *
 * @returns {Promise<string[]>} One line per breach, `src/file.rs:line: what is wrong`; empty where there is none.
 */
export async function findBreaches() {
  const sources = path.join(root, "src");
  const files = (await readdir(sources, { recursive: true })).filter((name) => name.endsWith(".rs")).sort();
  const breaches = await Promise.all(
    files.map(async (file) => breachesOf(file, await readFile(path.join(sources, file), "utf8"))),
  );
  return breaches.flat();
}

/**
 * @param {string} file The source's path below src/.
 * @param {string} source
 */
export function breachesOf(file, source) {
  const room = file.split(/[/.]/, 1)[0];
  const code = blankOutProse(source);
  const lineOf = (/** @type {number} */ index) => code.slice(0, index).split("\n").length;
  /** @type {string[]} */
  const breaches = [];
  const forbid = (/** @type {RegExp} */ pattern, /** @type {string} */ why) => {
    for (const match of code.matchAll(pattern)) breaches.push(`src/${file}:${lineOf(match.index)}: ${why}`);
  };

  if (room !== NODE_ROOM) {
    forbid(/\bnapi(_derive|_sys)?\b/g, `only src/${NODE_ROOM}/ may name napi`);
    forbid(/\bunsafe\b/g, `only src/${NODE_ROOM}/ may use unsafe`);
  }
  if (file === PURE)
    forbid(/\b(std::fs|rustix|tempfile|tokio|File::)/g, "the plan is pure: it touches no file");

  const floor = floorOf(room);
  if (room !== "lib" && floor === -1)
    breaches.push(`src/${file}:1: "${room}" is no room that scripts/house-laws.mjs knows`);
  for (const { name, index } of roomsUsed(code)) {
    if (room !== "lib" && floorOf(name) > floor) {
      breaches.push(`src/${file}:${lineOf(index)}: "${room}" may not use "${name}", which is built on it`);
    }
  }
  return breaches;
}

/** @param {string} room */
function floorOf(room) {
  return FLOORS.findIndex((rooms) => rooms.includes(room));
}

/**
 * Where code names a room through `crate::`, also in a group such as `use crate::{error::Error, tree};`.
 *
 * @param {string} code
 */
function* roomsUsed(code) {
  for (const match of code.matchAll(/\bcrate::(\w+|\{)/g)) {
    if (match[1] !== "{") {
      yield { name: match[1], index: match.index };
      continue;
    }
    const start = match.index + match[0].length;
    let depth = 1;
    let isName = true;
    for (const { 0: token, index } of code.slice(start).matchAll(/\w+|[{},]/g)) {
      if (token === "{") depth += 1;
      else if (token === "}") depth -= 1;
      else if (token !== "," && depth === 1 && isName) yield { name: token, index: start + index };
      isName = token === ",";
      if (depth === 0) break;
    }
  }
}

/**
 * Replaces comments and the content of strings by blanks, so that what they say is not taken for code. Lines stay where
 * they are. A law is about code: `deny(unsafe_code)` and a sentence on napi break none.
 *
 * @param {string} source
 */
function blankOutProse(source) {
  const prose =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|b?r(#*)"[\s\S]*?"\1|b?"(?:\\[\s\S]|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])'/g;
  return source.replace(prose, (text) => text.replace(/[^\n]/g, " "));
}
