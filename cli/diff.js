"use strict";

// The differences between two texts, line by line.

/** More lines that differ than this are not compared: the time grows with their square. */
const DIFFERENCES_MAX = 1000;

/** Equal lines that are shown around a difference. */
const CONTEXT = 3;

/**
 * A difference in the unified format, without the two lines that name the files. `undefined` where too much differs.
 *
 * @param {string} before
 * @param {string} after
 * @returns {string[] | undefined}
 */
function diff(before, after) {
  const [a, b] = [linesOf(before), linesOf(after)];
  const edits = compare(a, b);
  if (edits === undefined) return undefined;
  /** @type {string[]} */
  const output = [];
  for (let at = 0; at < edits.length; at += 1) {
    if (edits[at].sign === " ") continue;
    const from = Math.max(0, at - CONTEXT);
    let last = at;
    for (let next = at; next < edits.length && next <= last + 2 * CONTEXT + 1; next += 1) {
      if (edits[next].sign !== " ") last = next;
    }
    const hunk = edits.slice(from, last + CONTEXT + 1);
    const range = (/** @type {number} */ start, /** @type {string} */ other) => {
      const count = hunk.filter(({ sign }) => sign !== other).length;
      return `${count === 0 ? start : start + 1},${count}`;
    };
    output.push(`@@ -${range(hunk[0].a, "+")} +${range(hunk[0].b, "-")} @@`);
    output.push(...hunk.map(({ sign, line }) => sign + line));
    at = last + CONTEXT;
  }
  return output;
}

/**
 * A text's lines. The last one tells whether a line break is missing after it.
 *
 * @param {string} text
 */
function linesOf(text) {
  const lines = text.split("\n");
  const rest = lines.pop();
  if (rest !== "") lines.push(`${rest} (no line break at the end)`);
  return lines;
}

/**
 * Myers' algorithm. `a` and `b` are the numbers of the lines before which an edit is.
 *
 * @param {string[]} a
 * @param {string[]} b
 * @returns {{ sign: " " | "-" | "+", line: string, a: number, b: number }[] | undefined}
 */
function compare(a, b) {
  /** @type {Map<number, number>[]} How far each diagonal reached, for each number of differences. */
  const steps = [];
  let reached = new Map([[1, 0]]);
  search: for (let differences = 0; ; differences += 1) {
    if (differences > DIFFERENCES_MAX) return undefined;
    steps.push(new Map(reached));
    for (let diagonal = -differences; diagonal <= differences; diagonal += 2) {
      let x = startOf(reached, diagonal, differences);
      for (; x < a.length && x - diagonal < b.length && a[x] === b[x - diagonal]; x += 1);
      reached.set(diagonal, x);
      if (x >= a.length && x - diagonal >= b.length) break search;
    }
  }
  /** @type {ReturnType<typeof compare> & {}} */
  const edits = [];
  let [x, y] = [a.length, b.length];
  for (let differences = steps.length - 1; differences >= 0; differences -= 1) {
    reached = steps[differences];
    const diagonal = x - y;
    const isInsertion = comesFromAbove(reached, diagonal, differences);
    const beforeX = /** @type {number} */ (reached.get(isInsertion ? diagonal + 1 : diagonal - 1) ?? 0);
    const beforeY = beforeX - (isInsertion ? diagonal + 1 : diagonal - 1);
    const isFirst = differences === 0;
    while (isFirst ? x > 0 && y > 0 : x > beforeX && y > beforeY) {
      [x, y] = [x - 1, y - 1];
      edits.push({ sign: " ", line: a[x], a: x, b: y });
    }
    if (isFirst) break;
    [x, y] = [beforeX, beforeY];
    edits.push(isInsertion ? { sign: "+", line: b[y], a: x, b: y } : { sign: "-", line: a[x], a: x, b: y });
  }
  return edits.reverse();
}

/**
 * @param {Map<number, number>} reached
 * @param {number} diagonal
 * @param {number} differences
 */
function comesFromAbove(reached, diagonal, differences) {
  const [left, right] = [reached.get(diagonal - 1) ?? -1, reached.get(diagonal + 1) ?? -1];
  return diagonal === -differences || (diagonal !== differences && left < right);
}

/**
 * @param {Map<number, number>} reached
 * @param {number} diagonal
 * @param {number} differences
 */
function startOf(reached, diagonal, differences) {
  return comesFromAbove(reached, diagonal, differences)
    ? (reached.get(diagonal + 1) ?? 0)
    : (reached.get(diagonal - 1) ?? 0) + 1;
}

module.exports = { diff };
