// Prints results in tables, for a terminal.

import { green, heading, printTable, red } from "./terminal.mjs";
import { OPERATIONS } from "./operations.mjs";

/** @typedef {import("./results.mjs").Verdict} Verdict */

/**
 * One table: its figures, titles, and the cells of a row between the operation and the verdict.
 *
 * @typedef {object} Table
 * @property {Verdict["measure"]} measure
 * @property {string} heading
 * @property {string[]} columns
 * @property {(verdict: Verdict) => string[]} cells
 */

/**
 * A time in a readable unit: `8.3 ms`, `83 ms`, `1.24 s`.
 *
 * @param {number} ms
 */
export function duration(ms) {
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  return `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s`;
}

const mebibytes = (/** @type {number} */ bytes) => `${Math.round(bytes / 2 ** 20)} MiB`;

/**
 * A figure that a verdict may lack.
 *
 * @param {number | null} value
 * @param {(value: number) => string} show
 */
const orNothing = (value, show) => (value === null ? "" : show(value));

/** @param {boolean | null} met */
function describe(met) {
  if (met === null) return "";
  return met ? green("met") : red("not met");
}

/** The columns of figures. */
const RIGHT = new Set([
  "ours",
  "the tool's",
  "the release's",
  "ratio",
  "times as fast",
  "times as long",
  "above the archive",
  "for a tenth",
  "at most",
  "at least",
]);

/** @type {Table[]} */
const TABLES = [
  {
    measure: "tool",
    heading: "Against public tools",
    columns: ["ours", "the tool's", "ratio", "at most", "the tool"],
    cells: ({ operation, ours, other, value, target }) => [
      duration(ours),
      orNothing(other, duration),
      value.toFixed(2),
      orNothing(target, (ratio) => ratio.toFixed(1)),
      OPERATIONS[operation].toolTitle,
    ],
  },
  {
    measure: "release",
    heading: "Against the npm release",
    columns: ["ours", "the release's", "times as fast", "at least", "in"],
    cells: ({ ours, other, value, target, place }) => [
      duration(ours),
      orNothing(other, duration),
      value.toFixed(1),
      orNothing(target, String),
      place === "memory" ? "memory" : "a folder on a disk",
    ],
  },
  {
    measure: "memory",
    heading: "Memory at the peak, above an idle process",
    columns: ["ours", "the release's", "above the archive", "at most"],
    cells: ({ ours, other, value, target }) => [
      mebibytes(ours),
      orNothing(other, mebibytes),
      mebibytes(value),
      orNothing(target, mebibytes),
    ],
  },
  {
    measure: "stall",
    heading: "The longest that the event loop stood still",
    columns: ["ours", "the release's", "at most"],
    cells: ({ ours, other, target }) => [
      duration(ours),
      orNothing(other, duration),
      orNothing(target, duration),
    ],
  },
  {
    measure: "growth",
    heading: "Ten times as many files",
    columns: ["ours", "for a tenth", "times as long", "at most"],
    cells: ({ ours, other, value, target }) => [
      duration(ours),
      orNothing(other, duration),
      value.toFixed(1),
      orNothing(target, String),
    ],
  },
];

/** @param {import("./results.mjs").Results} results */
export function printResults({ machine, scale, workloads, verdicts }) {
  console.log(`\n${machine}`);
  for (const [name, title] of Object.entries(workloads)) console.log(`${name}: ${title}`);
  if (scale !== "full") console.log("The targets are for the full workloads, which are larger than these.");

  for (const { measure, heading: title, columns, cells } of TABLES) {
    const rows = verdicts
      .filter((verdict) => verdict.measure === measure)
      .map((verdict) => [
        OPERATIONS[verdict.operation].title,
        verdict.workload,
        ...cells(verdict),
        describe(verdict.met),
      ]);
    if (rows.length === 0) continue;
    heading(title);
    printTable(["operation", "workload", ...columns, "target"], rows, RIGHT);
  }
  const judged = verdicts.filter(({ met }) => met !== null);
  const isMet = judged.filter(({ met }) => met);
  console.log(`\n${isMet.length} of ${judged.length} targets are met.`);
}
