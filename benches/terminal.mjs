// Terminal output: with bold and dim text on a terminal, plain otherwise.

export { size } from "../cli/text.js";

const isStyled = process.stdout.isTTY && !process.env.NO_COLOR && process.env.TERM !== "dumb";

const style = (/** @type {number} */ on, /** @type {number} */ off) => (/** @type {string} */ text) =>
  isStyled ? `\u001b[${on}m${text}\u001b[${off}m` : text;

export const bold = style(1, 22);
export const dim = style(2, 22);
export const green = style(32, 39);
export const red = style(31, 39);

/** @param {string} text */
export function heading(text) {
  console.log(`\n${bold(text)}\n`);
}

/**
 * A number with its noun: `1 file`, `2 files`.
 *
 * @param {number} number
 * @param {string} singular
 * @param {string} [plural]
 */
export function count(number, singular, plural = `${singular}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? singular : plural}`;
}

/**
 * Makes a text fit one line of a terminal: control characters become visible, and a text that is too long is shortened in the middle.
 *
 * @param {string} text
 * @param {number} [width] In characters; unlimited by default.
 */
export function oneLine(text, width = Infinity) {
  const visible = text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
  if (visible.length <= width) return visible;
  const kept = width - 1;
  return `${visible.slice(0, Math.ceil(kept / 2))}…${visible.slice(visible.length - Math.floor(kept / 2))}`;
}

/**
 * Prints rows in columns, each as wide as its widest cell.
 *
 * @param {string[]} titles
 * @param {string[][]} rows
 * @param {Set<string>} [right] The titles of the columns that are aligned to the right.
 */
export function printTable(titles, rows, right = new Set()) {
  const widths = titles.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column].length)),
  );
  const line = (/** @type {string[]} */ cells) =>
    cells
      .map((cell, column) => {
        return right.has(titles[column]) ? cell.padStart(widths[column]) : cell.padEnd(widths[column]);
      })
      .join("  ")
      .trimEnd();
  console.log(`  ${dim(line(titles))}`);
  for (const row of rows) console.log(`  ${line(row)}`);
}

/**
 * Prints rows as a table of Markdown, for a document.
 *
 * @param {string[][]} rows The first has the titles.
 */
export function printMarkdown([header, ...rows]) {
  for (const row of [header, header.map(() => "---"), ...rows]) console.log(`| ${row.join(" | ")} |`);
}
