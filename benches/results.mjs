// Computes verdicts from samples.

import { OPERATIONS } from "./operations.mjs";

const MEBIBYTE = 1024 * 1024;

/** The target for memory above an idle process and the archive. */
const MEMORY_TARGET = 64 * MEBIBYTE;

/** The target for the longest stall of the event loop, in milliseconds. */
const STALL_TARGET = 25;

/** The target for the growth of time with ten times as many files. */
const GROWTH_TARGET = 11;

/** @typedef {"ours" | "tool" | "release"} Contestant */

/**
 * All runs of one operation by one contestant.
 *
 * @typedef {object} Series
 * @property {"memory" | "disk"} place Where the trees and temporary files were: in the main folder, which is in memory by
 *   default, or in the one that was given as a disk.
 * @property {string} workload
 * @property {string} operation
 * @property {Contestant} contestant
 * @property {import("./one.mjs").Sample[]} samples In the order in which they were taken.
 */

/**
 * One figure with its target.
 *
 * - `tool`: our time as a multiple of the public tool's, at most `target`.
 * - `release`: the npm release's time as a multiple of ours, at least `target`; on a disk there is none.
 * - `memory`: bytes at the peak above an idle process and above the archive, at most `target`.
 * - `stall`: the longest stall of the event loop in any run, in milliseconds, at most `target`.
 * - `growth`: our time as a multiple of that for a tenth of the files, at most `target`.
 *
 * @typedef {object} Verdict
 * @property {"tool" | "release" | "memory" | "stall" | "growth"} measure
 * @property {"memory" | "disk"} place
 * @property {string} operation
 * @property {string} workload
 * @property {number} value
 * @property {number | null} target
 * @property {boolean | null} met
 * @property {number} ours This package's figure: the median in milliseconds; bytes for `memory`.
 * @property {number | null} other The figure that it is compared with, if there is one.
 */

/**
 * What `npm run bench` writes.
 *
 * @typedef {object} Results
 * @property {string} machine In general terms.
 * @property {import("./workloads.mjs").Scale} scale
 * @property {Record<string, string>} workloads What each is.
 * @property {Series[]} series
 * @property {Verdict[]} verdicts
 */

/**
 * @param {number[]} values
 */
export function median(values) {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The median time of a series, in milliseconds. */
const typicalMs = (/** @type {Series} */ series) => median(series.samples.map(({ ms }) => ms));

/**
 * The maximum of a figure that tools do not have.
 *
 * @param {Series} series
 * @param {"stallMs" | "memoryBytes" | "archiveBytes"} figure
 * @returns {number | null}
 */
function highest({ samples }, figure) {
  const values = samples.map((sample) => sample[figure]).filter((value) => value !== null);
  return values.length > 0 ? Math.max(...values) : null;
}

/**
 * @param {Series[]} all
 * @returns {Verdict[]}
 */
export function judge(all) {
  return all.filter(({ contestant }) => contestant === "ours").flatMap((ours) => judgeOne(ours, all));
}

/**
 * @param {Series} ours
 * @param {Series[]} all
 * @returns {Verdict[]}
 */
function judgeOne(ours, all) {
  const { place, operation, workload } = ours;
  const { toolTargets, releaseTargets = {}, hasMemoryTarget } = OPERATIONS[operation];
  const other = (/** @type {Contestant} */ contestant, of = workload) =>
    all.find(
      (one) =>
        one.place === place &&
        one.operation === operation &&
        one.workload === of &&
        one.contestant === contestant,
    );
  /** @type {Verdict[]} */
  const verdicts = [];
  const add = (
    /** @type {Pick<Verdict, "measure" | "value" | "target" | "met" | "ours" | "other">} */ verdict,
  ) => verdicts.push({ place, operation, workload, ...verdict });
  const atMost = (/** @type {number} */ value, /** @type {number} */ target) => ({
    value,
    target,
    met: value <= target,
  });

  const ms = typicalMs(ours);
  const tool = other("tool");
  if (tool) {
    const toolMs = typicalMs(tool);
    add({ measure: "tool", ...atMost(ms / toolMs, toolTargets[workload]), ours: ms, other: toolMs });
  }
  const tenth = other("ours", `${workload}-tenth`);
  if (tenth) {
    const tenthMs = typicalMs(tenth);
    add({ measure: "growth", ...atMost(ms / tenthMs, GROWTH_TARGET), ours: ms, other: tenthMs });
  }
  const release = other("release");
  if (release) {
    const releaseMs = typicalMs(release);
    const value = releaseMs / ms;
    const target = place === "memory" ? releaseTargets[workload] : null;
    const isMet = target === null ? null : value >= target;
    add({ measure: "release", value, target, met: isMet, ours: ms, other: releaseMs });
  }
  if (workload.endsWith("-tenth") || place === "disk") return verdicts;
  const stall = highest(ours, "stallMs");
  if (stall !== null) {
    const theirs = release ? highest(release, "stallMs") : null;
    add({ measure: "stall", ...atMost(stall, STALL_TARGET), ours: stall, other: theirs });
  }
  const memory = highest(ours, "memoryBytes");
  if (memory !== null && hasMemoryTarget) {
    const above = memory - (highest(ours, "archiveBytes") ?? 0);
    const theirs = release ? highest(release, "memoryBytes") : null;
    add({ measure: "memory", ...atMost(above, MEMORY_TARGET), ours: memory, other: theirs });
  }
  return verdicts;
}
