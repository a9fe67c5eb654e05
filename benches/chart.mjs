// `npm run bench:chart`: draws docs/performance.svg from the figures of a benchmark and prints the tables of
// docs/performance.md.
//
//   npm run bench:chart                       from benches/chart.json
//   npm run bench:chart -- FILE [--svg FILE]  from other figures, to another place

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import util from "node:util";
import { root, runMain } from "../scripts/process.mjs";
import { OPERATIONS } from "./operations.mjs";
import { duration } from "./report.mjs";

/** @typedef {import("./results.mjs").Results} Results */
/** @typedef {import("./results.mjs").Verdict} Verdict */

const WORKLOADS = ["src", "big", "mono"];

const WIDTH = 900;
const MARGIN = 24;
/** Where bars begin, right of the operations' names. */
const BARS = 290;
/** How long the longest bar is. What remains is for its figure. */
const LONGEST = 400;
const BAR = 12;
const STEP = 15;
const GAP = 14;

// One set of colors for each background. The drawing brings its own background, as the page around it may be light while
// the system is set to dark.
const STYLE = `
  .paper { fill: #ffffff; stroke: #d1d9e0 }
  text { fill: #1f2328; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
  .title { font-size: 16px; font-weight: 600 }
  .note { fill: #59636e; font-size: 12px }
  .figure { stroke: #ffffff; stroke-width: 4px; paint-order: stroke }
  .line { stroke: #59636e; stroke-dasharray: 4 3 }
  .src { fill: #0969da } .big { fill: #8250df } .mono { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .note { fill: #9198a1 }
    .figure { stroke: #0d1117 }
    .line { stroke: #9198a1 }
    .src { fill: #4493f8 } .big { fill: #ab7df8 } .mono { fill: #3fb950 }
  }`;

await runMain(async () => {
  const { values, positionals } = util.parseArgs({
    allowPositionals: true,
    options: { svg: { type: "string", default: path.join(root, "docs", "performance.svg") } },
  });
  const from = (/** @type {string} */ file) => path.resolve(process.env.INIT_CWD ?? ".", file);
  const file = positionals.length > 0 ? from(positionals[0]) : path.join(root, "benches", "chart.json");
  /** @type {Results} */
  const results = JSON.parse(await readFile(file, "utf8"));
  await writeFile(from(values.svg), draw(results));
  console.log(describe(results));
});

/**
 * The figures of one comparison, by operation, in the order of the operations.
 *
 * @param {Results} results
 * @param {"tool" | "release"} measure
 * @returns {{ operation: string, verdicts: Verdict[] }[]}
 */
function compared({ verdicts }, measure) {
  return Object.keys(OPERATIONS)
    .map((operation) => ({
      operation,
      verdicts: WORKLOADS.flatMap((workload) =>
        verdicts.filter(
          (verdict) =>
            verdict.measure === measure &&
            verdict.place === "memory" &&
            verdict.operation === operation &&
            verdict.workload === workload,
        ),
      ),
    }))
    .filter(({ verdicts: found }) => found.length > 0);
}

/**
 * The chart.
 *
 * @param {Results} results
 */
function draw(results) {
  const { machine, workloads } = results;
  const tools = panel({
    top: 92,
    title: "Time next to a public tool that does the same or less (shorter is better)",
    groups: compared(results, "tool"),
    note: (operation) => OPERATIONS[operation].toolTitle,
    figure: ({ value, ours }) => `${value.toFixed(2)} (${duration(ours)})`,
    mark: { at: 1, label: "the tool" },
  });
  const release = panel({
    top: tools.bottom + 20,
    title: "Times as fast as the npm release (longer is better)",
    groups: compared(results, "release"),
    note: () => "",
    figure: ({ value, ours, other }) =>
      `${value.toFixed(value < 10 ? 1 : 0)}× (${duration(other ?? NaN)} → ${duration(ours)})`,
  });
  const height = release.bottom + MARGIN;
  const legend = WORKLOADS.map((workload, at) => {
    const x = MARGIN + at * 275;
    const label = `${workload}: ${workloads[workload]}`;
    return `<rect class="${workload}" x="${x}" y="58" width="${BAR}" height="${BAR}"/>${write(x + 18, 68, label, "note")}`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
<title>How long each operation takes</title>
<desc>For each operation and workload: the time as a multiple of a public tool's, and how many times as fast as the npm
release it is. The tables in docs/performance.md hold the same figures.</desc>
<style>${STYLE}
</style>
<rect class="paper" x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>
${write(MARGIN, 34, machine, "note")}
${legend.join("\n")}
${tools.drawing}
${release.drawing}
</svg>
`;
}

/**
 * Bars in groups, one group an operation.
 *
 * @param {{ top: number, title: string, groups: { operation: string, verdicts: Verdict[] }[],
 *   note: (operation: string) => string, figure: (verdict: Verdict) => string,
 *   mark?: { at: number, label: string } }} what `mark`: a line at this value.
 */
function panel({ top, title, groups, note, figure, mark }) {
  const highest = Math.max(
    mark?.at ?? 0,
    ...groups.flatMap(({ verdicts }) => verdicts.map(({ value }) => value)),
  );
  const scale = LONGEST / highest;
  const parts = [write(MARGIN, top + 14, title, "title")];
  const start = top + (mark ? 44 : 32);
  let y = start;
  /** @type {string[]} */
  const rows = [];
  for (const { operation, verdicts } of groups) {
    rows.push(write(MARGIN, y + 11, OPERATIONS[operation].title));
    rows.push(write(MARGIN, y + 27, note(operation), "note"));
    for (const [at, verdict] of verdicts.entries()) {
      const length = Math.max(verdict.value * scale, 1).toFixed(1);
      const barTop = y + at * STEP;
      rows.push(
        `<rect class="${verdict.workload}" x="${BARS}" y="${barTop}" width="${length}" height="${BAR}" rx="2"/>`,
        write(BARS + Number(length) + 8, barTop + 10, figure(verdict), "note figure"),
      );
    }
    y += Math.max(verdicts.length, 2) * STEP + GAP;
  }
  if (mark) {
    const x = (BARS + mark.at * scale).toFixed(1);
    // First, so that figures are drawn over it.
    parts.push(`<path class="line" d="M${x} ${start - 6}V${y - GAP + 4}"/>`);
    parts.push(write(Number(x), start - 10, mark.label, "note", "middle"));
  }
  parts.push(...rows);
  return { drawing: parts.filter((part) => part !== "").join("\n"), bottom: y };
}

/**
 * A line of text; an empty string for no text.
 *
 * @param {number} x
 * @param {number} y Of the baseline.
 * @param {string} text
 * @param {string} [style] A class.
 * @param {"start" | "middle"} [anchor]
 */
function write(x, y, text, style, anchor = "start") {
  if (text === "") return "";
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const attributes = [
    `x="${x.toFixed(1)}" y="${y.toFixed(1)}"`,
    style && `class="${style}"`,
    anchor !== "start" && `text-anchor="${anchor}"`,
  ];
  return `<text ${attributes.filter(Boolean).join(" ")}>${escaped}</text>`;
}

/**
 * The tables of docs/performance.md, in Markdown.
 *
 * @param {Results} results
 */
function describe(results) {
  const cells = (/** @type {Verdict[]} */ verdicts, /** @type {(verdict: Verdict) => string} */ show) =>
    WORKLOADS.map((workload) => {
      const verdict = verdicts.find((one) => one.workload === workload);
      return verdict ? show(verdict) : "–";
    });
  const row = (/** @type {string[]} */ columns) => `| ${columns.join(" | ")} |`;
  const rule = (/** @type {number} */ left) =>
    row([...Array(left).fill("---"), ...WORKLOADS.map(() => "---:")]);

  const tools = compared(results, "tool").map(({ operation, verdicts }) => {
    const { title, toolTitle } = OPERATIONS[operation];
    const show = (/** @type {Verdict} */ { value, ours }) => `${value.toFixed(2)} (${duration(ours)})`;
    // A pipe would end the cell, even in a code span.
    return row([title, `\`${toolTitle.replaceAll("|", "\\|")}\``, ...cells(verdicts, show)]);
  });
  const release = compared(results, "release").map(({ operation, verdicts }) => {
    const show = (/** @type {Verdict} */ { value, other }) =>
      `${value.toFixed(value < 10 ? 1 : 0)}× (from ${duration(other ?? NaN)})`;
    return row([OPERATIONS[operation].title, ...cells(verdicts, show)]);
  });
  return [
    `Measured on ${results.machine}.`,
    "",
    ...WORKLOADS.map((workload) => `- \`${workload}\`: ${results.workloads[workload]}`),
    "",
    "Time as a multiple of the tool's (and as such):",
    "",
    row(["operation", "against", ...WORKLOADS]),
    rule(2),
    ...tools,
    "",
    "Times as fast as the npm release:",
    "",
    row(["operation", ...WORKLOADS]),
    rule(1),
    ...release,
  ].join("\n");
}
