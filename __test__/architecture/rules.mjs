// The rules of the native core's layout (docs/architecture.md) that a compiler does not check.

import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { root } from "../../scripts/process.mjs";

/**
 * The modules below src/ in layers, lowest first. A module may use its own layer and those below, never one above. Files
 * directly in src/ are modules of their own.
 */
const LAYERS = [
  ["error", "path", "path_map", "cancel", "random", "threads", "time", "sync"],
  ["exclude", "fs"],
  ["tree"],
  ["archive"],
  ["merge", "mirror", "git"],
  ["transfer"],
  ["state"],
  ["sandbox"],
  ["node"],
];

/** The one module that may know Node and allow `unsafe`. */
const NODE_MODULE = "node";

/** The one module that calls the system. */
const SYSTEM_MODULE = "fs";

/** The file that converts a system path to bytes and back, which is not a call. */
const BYTES = { file: "path.rs", allowed: "std::os::unix::ffi" };

/** The file that takes and returns memory, which is not a system call on files. */
const ALLOCATOR = {
  file: "node/memory.rs",
  allowed: /\blibc::(?:c_int|mallopt|M_MMAP_THRESHOLD|malloc_trim|madvise|MADV_HUGEPAGE)\b/g,
};

/** Crates that call the system, or are bindings to it. */
const SYSTEM_CRATES = /\b(?:rustix|libc|nix|walkdir|tempfile)\b/g;

/** The methods of a standard path that call the system and whose names nothing else has. */
const SYSTEM_METHODS =
  /(?:\.|\bPath::)(?:exists|try_exists|canonicalize|metadata|symlink_metadata|read_link|read_dir|is_file|is_symlink)(?:\(\)|\))/g;

/** Calls that open a file by its path. */
const OPENING = /\bFile::(?:open|create|create_new|options)\b/g;

/** The one file that makes no I/O at all. */
const PURE = "merge/plan.rs";

/**
 * Reads the core's sources and reports where they break a rule.
 *
 * @returns {Promise<string[]>} One line for each violation, `src/<file>:<line>: what is wrong`; empty where there is none.
 */
export async function findBreaches() {
  const folder = path.join(root, "src");
  const files = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith(".rs")).sort();
  /** @type {Record<string, string>} */
  const sources = {};
  await Promise.all(
    files.map(async (file) => {
      sources[file] = await readFile(path.join(folder, file), "utf8");
    }),
  );
  return [...files.flatMap((file) => breachesOf(file, sources[file])), ...circlesOf(sources)];
}

/**
 * @param {string} file The source's path below src/.
 * @param {string} source
 */
export function breachesOf(file, source) {
  const module = file.split(/[/.]/, 1)[0];
  const code = blankOutProse(source);
  const lineOf = (/** @type {number} */ index) => code.slice(0, index).split("\n").length;
  /** @type {string[]} */
  const breaches = [];
  const breach = (/** @type {number} */ index, /** @type {string} */ why) => {
    const line = `src/${file}:${lineOf(index)}: ${why}`;
    if (!breaches.includes(line)) breaches.push(line);
  };
  const forbid = (/** @type {RegExp} */ pattern, /** @type {string} */ why) => {
    for (const match of code.matchAll(pattern)) breach(match.index, why);
  };

  if (module !== NODE_MODULE) {
    forbid(/\bnapi(_derive|_sys)?\b/g, `only src/${NODE_MODULE}/ may name napi`);
    forbid(/\bunsafe\b/g, `only src/${NODE_MODULE}/ may use unsafe`);
  }
  if (file === PURE) forbid(/\b(tokio|crate::fs)\b/g, "the plan is pure: it touches no file");
  if (module !== SYSTEM_MODULE) {
    for (const index of systemCalls(file, withoutTests(code))) {
      breach(index, `only src/${SYSTEM_MODULE}/ calls the system; add what is missing there`);
    }
  }

  const layer = layerOf(module);
  if (module !== "lib" && layer === -1)
    breaches.push(`src/${file}:1: "${module}" is no module that __test__/architecture/rules.mjs knows`);
  for (const { names, index } of pathsUsed(code, "crate")) {
    if (module !== "lib" && layerOf(names[0]) > layer) {
      breach(index, `"${module}" may not use "${names[0]}", which is built on it`);
    }
  }
  return breaches;
}

/**
 * Finds files of the core that use each other in a circle, tests aside.
 *
 * @param {Record<string, string>} sources By path below src/.
 * @returns {string[]} One line for each file in a circle, with the way back to it.
 */
export function circlesOf(sources) {
  const uses = new Map(
    Object.entries(sources).map(([file, source]) => [file, filesUsed(file, source, sources)]),
  );
  /** @type {string[]} */
  const circles = [];
  for (const start of uses.keys()) {
    // The shortest way back, reported only for the circle's first file.
    /** @type {string[][]} */
    const ways = [[start]];
    const seen = new Set();
    for (const way of ways) {
      for (const next of uses.get(way[way.length - 1]) ?? []) {
        if (next === start && [...way].sort()[0] === start) {
          circles.push(`src/${start}:1: a circle: ${[...way, start].join(" uses ")}`);
        } else if (!seen.has(next)) {
          ways.push([...way, next]);
          seen.add(next);
        }
      }
    }
  }
  return circles;
}

/**
 * @param {string} file
 * @param {string} source
 * @param {Record<string, string>} sources
 */
function filesUsed(file, source, sources) {
  const code = withoutTests(blankOutProse(source));
  const folder = file.split("/").slice(0, -1);
  const used = [
    ...[...pathsUsed(code, "crate")].map(({ names }) => names),
    ...[...pathsUsed(code, "super")].map(({ names }) => [...folder, ...names]),
  ];
  const files = used.flatMap((names) =>
    [names.slice(0, 2).join("/"), names[0]]
      .map((name) => `${name}.rs`)
      .filter((name) => name in sources)
      .slice(0, 1),
  );
  return new Set(files.filter((other) => other !== file));
}

/** @param {string} module */
function layerOf(module) {
  return LAYERS.findIndex((modules) => modules.includes(module));
}

/**
 * Finds code outside tests that calls the system, or names something that does.
 *
 * @param {string} file
 * @param {string} source
 */
function* systemCalls(file, source) {
  const code = file === ALLOCATOR.file ? source.replace(ALLOCATOR.allowed, blank) : source;
  for (const pattern of [SYSTEM_CRATES, SYSTEM_METHODS, OPENING]) {
    for (const match of code.matchAll(pattern)) yield match.index;
  }
  for (const { names, index } of pathsUsed(code, "std")) {
    const name = ["std", ...names].join("::");
    const isBytes = file === BYTES.file && name.startsWith(BYTES.allowed);
    if (["fs", "os"].includes(names[0]) && !isBytes) yield index;
  }
}

/**
 * The paths that code uses below a root such as `crate::`, also in groups: `use crate::{error::Error, tree};`.
 *
 * @param {string} code
 * @param {string} from
 */
function* pathsUsed(code, from) {
  for (const match of code.matchAll(new RegExp(`(?<![\\w:])${from}::(?=[\\w{])`, "g"))) {
    yield* pathsAt(code, match.index + match[0].length, []);
  }
}

/**
 * The path at a place, or the paths of the group there.
 *
 * @param {string} code
 * @param {number} at
 * @param {string[]} names The names before it.
 * @returns {Generator<{ names: string[], index: number }, number>} Returns where it ends.
 */
function* pathsAt(code, at, names) {
  const read = (/** @type {RegExp} */ pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(code);
    if (found) at = pattern.lastIndex;
    return found;
  };
  read(/\s*/y);
  const index = at;
  if (read(/\{\s*/y)) {
    while (!read(/\s*\}/y) && at < code.length) {
      at = yield* pathsAt(code, at, names);
      read(/[^,}]*,?/y);
    }
    return at;
  }
  const word = read(/\w+/y);
  const all = word ? [...names, word[0]] : names;
  if (word && read(/\s*::\s*(?=[\w{*])/y)) return yield* pathsAt(code, at, all);
  yield { names: all, index };
  return at;
}

/**
 * Code without its tests, which come last in every file.
 *
 * @param {string} code
 */
function withoutTests(code) {
  const tests = code.search(/^#\[cfg\(test\)\]\s*mod tests/m);
  return tests === -1 ? code : code.slice(0, tests);
}

/**
 * Replaces comments and the content of strings by blanks, so that they are not taken for code. Line numbers stay the same.
 * Rules are about code: `deny(unsafe_code)` and a sentence about napi break none.
 *
 * @param {string} source
 */
function blankOutProse(source) {
  const prose =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|b?r(#*)"[\s\S]*?"\1|b?"(?:\\[\s\S]|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])'/g;
  return source.replace(prose, blank);
}

/** As many blanks as a text has characters, with its line breaks. */
const blank = (/** @type {string} */ text) => text.replace(/[^\n]/g, " ");
