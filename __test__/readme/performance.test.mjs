// The figures that docs/performance.md shows are those of the chart.

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { root } from "./examples.mjs";

const inRepository = (/** @type {string[]} */ ...names) => path.join(root, ...names);

/** @type {string} */
let folder;
/** What `npm run bench:chart` prints. @type {string} */
let printed;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "chart-test-"));
  const args = [inRepository("benches", "chart.mjs"), "--svg", path.join(folder, "chart.svg")];
  ({ stdout: printed } = await promisify(execFile)(process.execPath, args));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe("docs/performance.md", () => {
  it("has the tables that are drawn from benches/chart.json", async () => {
    const rows = (/** @type {string} */ text) => text.split("\n").filter((line) => line.startsWith("| "));
    const page = rows(await readFile(inRepository("docs", "performance.md"), "utf8"));
    expect(rows(printed)).not.toEqual([]);
    expect(page).toEqual(expect.arrayContaining(rows(printed)));
  });

  it("shows the picture that is drawn from benches/chart.json", async () => {
    const drawn = await readFile(path.join(folder, "chart.svg"), "utf8");
    expect(drawn).toBe(await readFile(inRepository("docs", "performance.svg"), "utf8"));
  });
});
