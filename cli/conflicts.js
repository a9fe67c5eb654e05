"use strict";

// `conflicts`: the local versions that restores backed up, listed, compared, taken over, dropped and pruned.

const fs = require("node:fs");
const path = require("node:path");
const { native } = require("../binding.js");
const { withDirectoryMergeLock } = require("../index.js");
const adapterUtils = require("../adapter-utils/index.js");
const { resolveInstanceRoot } = require("../adapter-utils/lock.js");
const { awaitNative, holding, writeBaseline } = require("../js/native.js");
const { diff } = require("./diff.js");
const {
  codeOf,
  encodeName,
  inDirectory,
  leaves,
  lookAt,
  namesHere,
  openRoot,
  remove,
} = require("./directory.js");
const { Explained } = require("./explained.js");
const { shown, shownLine, size } = require("./text.js");

/**
 * @import { Found, Root } from "./directory.js"
 * @import { SnapshotEntry } from "../index.js"
 */

/** Where restores keep local versions, below a directory named by the time. */
const CONFLICTS = [".paperclip-runtime", "conflicts"];

/** Larger files are compared, and their differences not shown. */
const DIFF_BYTES_MAX = 1 << 20;

/** How many lines of a difference are shown in a list. */
const DIFF_LINES = 20;

const MILLISECONDS_A_DAY = 24 * 60 * 60 * 1000;

/**
 * @typedef {object} Options
 * @property {string[]} versions
 * @property {string[]} take
 * @property {string[]} drop
 * @property {number | undefined} prune In days.
 * @property {boolean} names
 * @property {(line: string) => void} print
 */

/**
 * @param {string} dir
 * @param {Options} options
 */
async function conflicts(dir, { versions, take, drop, prune, names, print }) {
  const root = open(dir);
  const all = list(root);
  // Every name is looked up before the first change.
  const taken = take.map((version) => select(all, version));
  const dropped = drop.map((version) => select(all, version));
  if (taken.length > 0) for (const version of taken) await takeOver(root, version, print);
  else if (dropped.length > 0) {
    await locked(root, () => {
      for (const version of dropped) removeVersion(root, version, print);
    });
  } else if (prune !== undefined) await locked(root, () => pruneOlder(root, prune, print));
  else if (versions.length > 0) {
    const chosen = versions.map((version) => select(all, version));
    show(
      root,
      all.filter((one) => chosen.some((above) => isWithin(one, above))),
      Infinity,
      print,
    );
  } else if (names) for (const version of all) print(nameOf(version));
  else if (all.length === 0) print(`There are no backups in ${shown(root.dir)}.`);
  else {
    print(`Backups in ${shown(root.dir)}:`);
    show(root, all, DIFF_LINES, print);
  }
}

/** @param {string} dir */
function open(dir) {
  try {
    return openRoot(dir);
  } catch (error) {
    if (codeOf(error) === "ENOENT") throw new Explained(`There is no directory "${shown(dir)}".`);
    throw new Explained(`"${shown(dir)}" cannot be used: ${shown(String(error))}`);
  }
}

/**
 * The paths of all versions, from the directory of conflicts; the first name of each is the time.
 *
 * @param {Root} root
 */
function list(root) {
  try {
    return inDirectory(root, CONFLICTS, () => leaves()).filter((version) => version.length > 1);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    if (codeOf(error) === "ENOTDIR" || codeOf(error) === "ELOOP") {
      throw new Explained(`"${CONFLICTS.join("/")}" is not a directory of the workspace, and was not read.`);
    }
    throw error;
  }
}

/**
 * What an argument names: a version, or a directory of versions. Names are taken as they are and as they are shown, and
 * with the path that a report gives them.
 *
 * @param {string[][]} all
 * @param {string} argument
 */
function select(all, argument) {
  const wanted = argument.replace(/^(\.\/)?\.paperclip-runtime\/conflicts\//, "").replace(/\/$/, "");
  /** @type {Map<string, string[]>} */
  const found = new Map();
  for (const version of all) {
    for (let length = 1; length <= version.length; length += 1) {
      const above = version.slice(0, length);
      if (above.join("/") === wanted || nameOf(above) === wanted) found.set(above.join("/"), above);
    }
  }
  const [only, another] = found.values();
  if (only === undefined) {
    throw new Explained(`There is no backup "${shown(argument)}". Run \`conflicts DIR\` for the names.`);
  }
  if (another !== undefined)
    throw new Explained(`"${shown(argument)}" may mean two versions; name a directory above.`);
  return only;
}

/** @param {string[]} version */
function nameOf(version) {
  return shown(version.join("/"));
}

/**
 * @param {string[]} version
 * @param {string[]} above
 */
function isWithin(version, above) {
  return above.every((name, at) => version[at] === name);
}

/**
 * @param {Root} root
 * @param {string[][]} versions
 * @param {number} lines
 * @param {(line: string) => void} print
 */
function show(root, versions, lines, print) {
  for (const version of versions) {
    const { note, difference } = compare(root, version);
    print(`\n${nameOf(version)}\n    ${note}`);
    if (difference.length === 0) continue;
    for (const line of ["--- in the workspace now", "+++ backup", ...difference.slice(0, lines)]) {
      print(`    ${shownLine(line)}`);
    }
    const more = difference.length - lines;
    if (more > 0) print(`    … and ${more} more lines: name the version to see them`);
  }
}

/**
 * How a version differs from what is in the workspace now.
 *
 * @param {Root} root
 * @param {string[]} version
 */
function compare(root, version) {
  const kept = lookAt(root, [...CONFLICTS, ...version]);
  const now = lookAt(root, version.slice(1));
  try {
    if (kept === undefined) return { isSame: false, note: "it is gone", difference: [] };
    if (now === undefined)
      return { isSame: false, note: `${describe(kept)}; not in the workspace now`, difference: [] };
    const isSame =
      kept.kind === now.kind &&
      kept.kind !== "other" &&
      kept.target === now.target &&
      (kept.kind !== "file" || (kept.mode === now.mode && hasSameBytes(kept, now)));
    if (isSame)
      return { isSame, note: `${describe(kept)}; the same is in the workspace now`, difference: [] };
    const difference = kept.kind === "file" && now.kind === "file" ? diffOfFiles(now, kept) : [];
    return {
      isSame,
      note: `${describe(kept)}; in the workspace now: ${describe(now)}${typeof difference === "string" ? `; ${difference}` : ""}`,
      difference: typeof difference === "string" ? [] : difference,
    };
  } finally {
    for (const found of [kept, now]) if (found?.fd !== undefined) fs.closeSync(found.fd);
  }
}

/** @param {Found} found */
function describe({ kind, size: bytes, mode, target }) {
  if (kind === "link") return `a link to ${shown(target)}`;
  return kind === "file"
    ? `a file of ${size(bytes)}, mode ${mode.toString(8)}`
    : `a ${kind === "other" ? "special file" : kind}`;
}

/**
 * @param {Found} a
 * @param {Found} b
 */
function hasSameBytes(a, b) {
  if (a.size !== b.size) return false;
  for (let at = 0; at < a.size; at += DIFF_BYTES_MAX) {
    if (!read(a, at).equals(read(b, at))) return false;
  }
  return true;
}

/**
 * Reads a part of a file, of at most {@link DIFF_BYTES_MAX}.
 *
 * @param {Found} file
 * @param {number} [from]
 */
function read({ fd }, from = 0) {
  const part = Buffer.allocUnsafe(DIFF_BYTES_MAX);
  let length = 0;
  for (let got = 1; got > 0 && length < part.length; length += got) {
    got = fs.readSync(/** @type {number} */ (fd), part, length, part.length - length, from + length);
  }
  return part.subarray(0, length);
}

/**
 * The lines of a difference, or why there are none.
 *
 * @param {Found} now
 * @param {Found} kept
 */
function diffOfFiles(now, kept) {
  if (Math.max(now.size, kept.size) > DIFF_BYTES_MAX) return "too large to show the difference";
  const [before, after] = [read(now), read(kept)];
  if (before.equals(after)) return "only the mode differs";
  if (before.includes(0) || after.includes(0)) return "the bytes differ";
  return diff(before.toString("utf8"), after.toString("utf8")) ?? "too much differs to show it";
}

/**
 * Runs `work` while nothing else merges into the workspace, by this package or by adapter-utils.
 *
 * @template T
 * @param {Root} root
 * @param {() => T | Promise<T>} work
 */
async function locked(root, work) {
  return beside(root, () => withDirectoryMergeLock(root.dir, async () => work()));
}

/**
 * Holds adapter-utils' own lock of the workspace, on a machine where that is in use.
 *
 * @template T
 * @param {Root} root
 * @param {() => Promise<T>} work
 */
function beside(root, work) {
  const { PAPERCLIP_HOME: homeDir, PAPERCLIP_INSTANCE_ID: instanceId } = process.env;
  const locks = path.join(resolveInstanceRoot({ homeDir, instanceId }), "locks", "directory-merge");
  return fs.existsSync(locks) ? adapterUtils.withDirectoryMergeLock(root.dir, work) : work();
}

/**
 * Puts a version into the workspace, as a merge does: through handles that follow no link, in one step for each file, and
 * with what it replaces backed up in its turn. The version itself goes once it is there.
 *
 * @param {Root} root
 * @param {string[]} version
 * @param {(line: string) => void} print
 */
async function takeOver(root, version, print) {
  const [time, ...names] = version;
  /** @type {string[]} */
  const exclude = [];
  /** @type {Map<string, SnapshotEntry>} */
  const baseline = new Map();
  for (let depth = 0; depth < names.length; depth += 1) {
    const above = names.slice(0, depth);
    if (depth > 0) baseline.set(above.join("/"), { kind: "dir" });
    const beside = inDirectory(root, [...CONFLICTS, time, ...above], namesHere);
    exclude.push(...beside.filter((name) => name !== names[depth]).map((name) => [...above, name].join("/")));
  }
  const input = {
    source: { folder: path.join(root.dir, ...CONFLICTS, time) },
    targetDir: root.dir,
    exclude: { paths: exclude },
    keepAllConflicts: true,
  };
  await beside(root, async () => {
    const writer = await writeBaseline(baseline);
    const merge = await awaitNative(native().beginMerge(JSON.stringify(input), writer));
    await holding(
      async () => {
        const before = list(root);
        await awaitNative(merge.apply());
        const after = list(root);
        const mine = after.filter((one) => isWithin(one, version));
        const notTaken = mine.filter((one) => !compare(root, one).isSame);
        if (mine.length === 0 || notTaken.length > 0) {
          const which = (mine.length === 0 ? [version] : notTaken).map(nameOf).join(", ");
          throw new Explained(`It could not be taken over, and stays where it is: ${which}`);
        }
        print(`Taken over: ${nameOf(names.length === 0 ? version : names)}`);
        const times = new Set(before.map(([time]) => time));
        for (const one of after.filter(([time]) => !times.has(time))) {
          print(`What was there is backed up as ${nameOf(one)}`);
        }
        removeVersion(root, version);
      },
      () => awaitNative(merge.finish(false)),
    );
  });
}

/**
 * Removes a version, and the directories that it leaves empty.
 *
 * @param {Root} root
 * @param {string[]} version
 * @param {(line: string) => void} [print]
 */
function removeVersion(root, version, print) {
  const all = [...CONFLICTS, ...version];
  for (let length = all.length; length > 1; length -= 1) {
    const [above, name] = [all.slice(0, length - 1), /** @type {string} */ (all[length - 1])];
    try {
      inDirectory(root, above, () => {
        const { mode } = fs.statSync(".");
        const isReadOnly = (mode & 0o300) !== 0o300;
        if (isReadOnly) fs.chmodSync(".", mode | 0o700);
        try {
          if (length === all.length) remove(name);
          else fs.rmdirSync(encodeName(name));
        } finally {
          if (isReadOnly) fs.chmodSync(".", mode & 0o7777);
        }
      });
    } catch (error) {
      if (length < all.length && ["ENOTEMPTY", "EEXIST"].includes(String(codeOf(error)))) break;
      throw error;
    }
  }
  print?.(`Dropped: ${nameOf(version)}`);
}

/**
 * @param {Root} root
 * @param {number} days
 * @param {(line: string) => void} print
 */
function pruneOlder(root, days, print) {
  const limit = Date.now() - days * MILLISECONDS_A_DAY;
  const times = [...new Set(list(root).map(([time]) => time))];
  const old = times.filter((time) => (timeOf(time) ?? Infinity) < limit);
  for (const time of old) removeVersion(root, [time], print);
  if (old.length === 0) print(`No backup is older than ${days} days.`);
}

/**
 * When a restore kept versions in a directory of that name; `undefined` for a name that no restore gives.
 *
 * @param {string} name
 */
function timeOf(name) {
  const match = /^(\d{4}-\d\d-\d\dT\d\d)-(\d\d)-(\d\d\.\d{3}Z)(~\d+)?$/.exec(name);
  const time = match ? Date.parse(`${match[1]}:${match[2]}:${match[3]}`) : NaN;
  return Number.isNaN(time) ? undefined : time;
}

module.exports = { conflicts };
