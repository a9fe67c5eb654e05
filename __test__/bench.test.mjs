import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { OPERATIONS } from "../benches/operations.mjs";

const inRepository = (/** @type {string} */ file) => fileURLToPath(new URL(`../${file}`, import.meta.url));

/** Every operation runs once, every workload too, and so does every kind of comparison. */
const CHOSEN = [
  ...Object.keys(OPERATIONS).map((operation) => `${operation}:src`),
  "prepare:big",
  "prepare:mono",
];

/** An addon that does nothing. */
const DO_NOTHING = `
  export const prepareSandboxManagedRuntime = async () => ({ restoreWorkspace: async () => {} });
  export const createTarballFromDirectory = async () => {};
  export const mirrorDirectory = async () => {};
  export const captureDirectorySnapshot = async () => ({ exclude: [], entries: new Map() });
`;

/** @type {string} */
let temporary;
/** @type {string} */
let trees;

beforeEach(async () => {
  temporary = await mkdtemp(path.join(os.tmpdir(), "bench-test-"));
  trees = path.join(temporary, "trees");
  await mkdir(trees);
});

afterEach(async () => {
  await rm(temporary, { recursive: true, force: true });
});

/**
 * @param {string} script
 * @param {string[]} args
 * @returns {Promise<{ code: number, output: string }>}
 */
function run(script, ...args) {
  return new Promise((resolve) => {
    execFile(process.execPath, [inRepository(script), ...args], (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr });
    });
  });
}

/**
 * @param {string} addon
 * @param {string[]} only
 */
const bench = (addon, only) =>
  run(
    "benches/run.mjs",
    "--tiny",
    ...["--dir", trees, "--json", path.join(temporary, "bench.json"), "--ours", addon],
    ...only.flatMap((choice) => ["--only", choice]),
  );

describe("the benchmark", () => {
  it("measures, checks, writes its figures and draws them", { timeout: 300_000 }, async () => {
    const { code, output } = await bench(inRepository("index.js"), CHOSEN);
    expect(output).toMatch(/\d+ of \d+ targets are met/);
    expect(code).toBe(0);
    expect(await readdir(trees)).toEqual([]);

    const results = JSON.parse(await readFile(path.join(temporary, "bench.json"), "utf8"));
    const compared = (/** @type {string} */ measure) =>
      results.verdicts
        .filter((/** @type {{ measure: string }} */ verdict) => verdict.measure === measure)
        .map((/** @type {Record<string, string>} */ { operation, workload }) => `${operation}:${workload}`);
    expect(compared("tool").sort()).toEqual([...CHOSEN].sort());
    expect(compared("release").sort()).toEqual([
      "mirror-unchanged:src",
      "prepare:big",
      "prepare:mono",
      "prepare:src",
      "restore-unchanged:src",
    ]);
    expect(compared("growth")).toEqual(["prepare:mono"]);
    for (const { value } of results.verdicts) expect(value).toSatisfy(Number.isFinite);

    const svg = path.join(temporary, "chart.svg");
    const chart = await run("benches/chart.mjs", path.join(temporary, "bench.json"), "--svg", svg);
    expect(chart.output).toMatch(
      /^\| mirrorDirectory, first time \| `cp -a` \| \d+\.\d\d \(.*\) \| – \| – \|$/m,
    );
    expect(chart.code).toBe(0);
    // A bar for each comparison, and three in the legend.
    const bars = (await readFile(svg, "utf8")).match(/<rect class="(src|big|mono)"/g);
    expect(bars).toHaveLength(CHOSEN.length + 5 + 3);
  });

  for (const operation of Object.keys(OPERATIONS)) {
    it(`fails if the addon does nothing for ${operation}`, async () => {
      const addon = path.join(temporary, "do-nothing.mjs");
      await writeFile(addon, DO_NOTHING);
      const { code, output } = await bench(addon, [`${operation}:src`]);
      expect(output).toMatch(`${operation} on src by ours is not right`);
      expect(code).toBe(1);
      expect(await readdir(trees)).toEqual([]);
    });
  }
});
