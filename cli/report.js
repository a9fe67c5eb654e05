"use strict";

// `report`: a saved report of a restore or of a prepare, for people to read.

const fs = require("node:fs");
const { Explained } = require("./explained.js");
const { shown } = require("./text.js");

/** How many items of each list are shown. */
const ITEMS = 20;

/** What the lists of a report hold. Another one is shown by its own name. */
const TITLES = new Map([
  ["written", "Taken from the sandbox"],
  ["deleted", "Deleted, since the sandbox deleted it"],
  ["kept", "Deleted in the sandbox, changed here: left in place"],
  ["conflicts", "Changed on both sides: the sandbox's version is in place"],
  ["deletionsKept", "Deleted, with a backup"],
  ["skipped", "Left as it is here"],
  ["heldBack", "Held back: it would run or redirect something"],
  ["refsUpdated", "Git references taken from the sandbox"],
  ["refsDeleted", "Git references deleted"],
  ["refsKept", "Git references whose value is kept under another name"],
  ["sensitive", "Written, and worth a look"],
  ["phases", "Steps"],
  ["archives", "Archives sent"],
  ["leftOut", "Left out"],
]);

/**
 * @param {string} file `-` is the standard input.
 * @param {{ all: boolean, print: (line: string) => void }} options
 */
function report(file, { all, print }) {
  const saved = parse(file);
  printFields(saved, { indent: "", items: all ? Infinity : ITEMS, print });
}

/** @param {string} file */
function parse(file) {
  let text;
  try {
    text = fs.readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (error) {
    throw new Explained(`"${shown(file)}" cannot be read: ${shown(/** @type {Error} */ (error).message)}`);
  }
  let saved;
  try {
    saved = JSON.parse(text);
  } catch (error) {
    throw new Explained(`"${shown(file)}" is no JSON: ${shown(/** @type {Error} */ (error).message)}`);
  }
  if (!Array.isArray(saved?.written) && !Array.isArray(saved?.archives)) {
    throw new Explained(
      `"${shown(file)}" is no report: it has neither "written" nor "archives". ` +
        "Save what onReport or onPrepareReport gets, with JSON.stringify.",
    );
  }
  return saved;
}

/**
 * @typedef {object} Style
 * @property {string} indent
 * @property {number} items
 * @property {(line: string) => void} print
 */

/**
 * Prints plain values first, then each list with how many items it has.
 *
 * @param {Record<string, unknown>} fields
 * @param {Style} style
 */
function printFields(fields, { indent, items, print }) {
  const [lists, values] = [true, false].map((isList) =>
    Object.entries(fields).filter(([, value]) => Array.isArray(value) === isList),
  );
  for (const [name, value] of values) if (value !== "") print(`${indent}${shown(name)}: ${textOf(value)}`);
  for (const [name, list] of /** @type {[string, unknown[]][]} */ (lists)) {
    if (list.length === 0) continue;
    print(`${indent}${TITLES.get(name) ?? shown(name)} (${list.length})`);
    for (const item of list.slice(0, items)) printItem(item, { indent: `${indent}  `, items, print });
    if (list.length > items) print(`${indent}  … and ${list.length - items} more: --all shows them`);
  }
}

/**
 * @param {unknown} item
 * @param {Style} style
 */
function printItem(item, style) {
  if (typeof item !== "object" || item === null) return style.print(style.indent + textOf(item));
  const { path, repository, name, label, ...rest } = /** @type {Record<string, unknown>} */ (item);
  const heads = [path ?? repository, name, label].filter((head) => head !== undefined).map(textOf);
  const [lists, values] = [true, false].map((isList) =>
    Object.entries(rest).filter(([, value]) => Array.isArray(value) === isList),
  );
  const notes = values.map(([key, value]) => {
    if (key === "reason" || key === "what") return textOf(value);
    return key === "keptAt" ? `kept at ${textOf(value)}` : `${shown(key)} ${textOf(value)}`;
  });
  style.print(`${style.indent}${heads.join("  ")}${notes.length > 0 ? `: ${notes.join(", ")}` : ""}`);
  printFields(Object.fromEntries(lists), { ...style, indent: `${style.indent}  ` });
}

/** @param {unknown} value */
function textOf(value) {
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: 1 });
  return shown(typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
}

module.exports = { printFields, report };
