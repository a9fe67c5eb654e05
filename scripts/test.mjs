// `npm test`: sets up what is missing, runs every kind of test and adds up what they counted.
//
//   npm test                           everything
//   npm test -- rust types             only these kinds
//   npm test -- vitest mirror          further arguments go to the runner of the one kind that is named
//
// The last line is the total, `N passed, N failed`. A test that was skipped counts as failed: it proved nothing.

import { mkdir, readdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";
import { Explained, readIfThere, root, run, runMain } from "./process.mjs";
import { requireRust, setUp } from "./setup.mjs";

/**
 * What one kind of test counted.
 *
 * @typedef {object} Count
 * @property {number} passed
 * @property {number} failed Tests that failed, were skipped, or could not be run at all.
 */

/** @type {Record<string, (args: string[]) => Promise<Count>>} */
const KINDS = { rust, vitest, types };

/** A program that a dependency brings. */
const tool = (/** @type {string} */ file) => path.join(root, "node_modules", file);

await runMain(async () => {
  const { kinds, rest } = parseArguments(process.argv.slice(2));
  await setUp({ dependencies: kinds.some((kind) => kind !== "rust"), addon: kinds.includes("vitest") });

  /** @type {(Count & { kind: string, seconds: number })[]} */
  const counts = [];
  for (const kind of kinds) {
    console.log(`\n> ${kind}`);
    const start = performance.now();
    const count = await KINDS[kind](rest);
    counts.push({ kind, ...count, seconds: (performance.now() - start) / 1000 });
  }
  report(counts);
});

/**
 * Splits the arguments into the kinds to run and what is passed on.
 *
 * @param {string[]} args
 */
function parseArguments(args) {
  const firstOther = args.findIndex((arg) => !Object.hasOwn(KINDS, arg));
  const named = firstOther === -1 ? args : args.slice(0, firstOther);
  const rest = args.slice(named.length);
  if (rest.length > 0 && named.length !== 1) {
    throw new Explained(
      `There are three kinds of test: ${Object.keys(KINDS).join(", ")}. "${rest[0]}" is none of them, and arguments ` +
        "for a runner go after the one kind they are for, as in `npm test -- vitest mirror`.",
    );
  }
  return { kinds: named.length > 0 ? [...new Set(named)] : Object.keys(KINDS), rest };
}

/**
 * The unit tests and doc examples of the native core, counted from the lines in which cargo sums up each binary.
 *
 * @param {string[]} args
 * @returns {Promise<Count>}
 */
async function rust(args) {
  await requireRust();
  const color = process.stdout.isTTY ? "always" : "auto";
  const { code, output } = await run("cargo", ["test", "--locked", "--no-fail-fast", ...args], {
    keep: "stdout",
    // Many of the tests wait for processes, so one more than there are cores keeps these busy.
    env: { CARGO_TERM_COLOR: color, RUST_TEST_THREADS: String(availableParallelism() + 1) },
  });
  const summary = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/gm;
  const count = { passed: 0, failed: 0 };
  for (const [, passed, failed, ignored] of stripVTControlCharacters(output).matchAll(summary)) {
    count.passed += Number(passed);
    count.failed += Number(failed) + Number(ignored);
  }
  return failAtLeastOnceUnless(code === 0, count);
}

/**
 * The suites that drive the addon from JavaScript, counted from vitest's JSON report.
 *
 * @param {string[]} args
 * @returns {Promise<Count>}
 */
async function vitest(args) {
  const results = path.join(root, ".build", "vitest.json");
  await mkdir(path.dirname(results), { recursive: true });
  // A report that an earlier run left must not be taken for this one's.
  await rm(results, { force: true });
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${results}`];
  const { code } = await run(process.execPath, [tool("vitest/vitest.mjs"), "run", ...reporters, ...args]);
  // Tests that are not asked for by name are reported as skipped as well.
  const isChosenByName = args.some((arg) => /^(-t|--testNamePattern)\b/.test(arg));
  const count = { passed: 0, failed: 0 };
  for (const { status, assertionResults } of await readVitestReport(results)) {
    const ran = assertionResults.filter((test) => !(isChosenByName && test.status === "skipped"));
    const passed = ran.filter((test) => test.status === "passed").length;
    count.passed += passed;
    count.failed += ran.length - passed;
    // A file that did not load, or whose hooks failed, has no failed test to show for it.
    if (status === "failed" && passed === ran.length) count.failed += 1;
  }
  return failAtLeastOnceUnless(code === 0, count);
}

/**
 * The files in a report of vitest; none where it stopped before it could write one.
 *
 * @param {string} file
 * @returns {Promise<{ status: string, assertionResults: { status: string }[] }[]>}
 */
async function readVitestReport(file) {
  const text = await readIfThere(file);
  return text === undefined ? [] : JSON.parse(text).testResults;
}

/**
 * The type tests: each file of `__test__/types` is one test, passed when the compiler has nothing to say about it.
 *
 * @param {string[]} args
 * @returns {Promise<Count>}
 */
async function types(args) {
  const folder = "__test__/types";
  const files = (await readdir(path.join(root, folder))).filter((name) => name.endsWith(".ts"));
  const compiler = [tool("typescript/bin/tsc"), "--project", folder, "--pretty", "false", ...args];
  const { code, output } = await run(process.execPath, compiler, { keep: "both" });
  const faulty = files.filter((name) => output.includes(`${folder}/${name}(`));
  for (const name of files) console.log(`${faulty.includes(name) ? "FAILED" : "ok"}  ${folder}/${name}`);
  return failAtLeastOnceUnless(code === 0, { passed: files.length - faulty.length, failed: faulty.length });
}

/**
 * A runner that failed without a failed test (it did not compile, it crashed) counts as one failure, and so does one
 * that ran no test.
 *
 * @param {boolean} succeeded
 * @param {Count} count
 * @returns {Count}
 */
function failAtLeastOnceUnless(succeeded, count) {
  const ranNothing = count.passed + count.failed === 0;
  return (succeeded && !ranNothing) || count.failed > 0 ? count : { ...count, failed: 1 };
}

/** @param {(Count & { kind: string, seconds: number })[]} counts */
function report(counts) {
  console.log();
  for (const { kind, passed, failed, seconds } of counts) {
    const cells = [kind.padEnd(8), `${passed} passed`.padStart(12), `${failed} failed`.padStart(12)];
    console.log(`${cells.join(" ")} ${seconds.toFixed(1).padStart(8)} s`);
  }
  const passed = counts.reduce((sum, count) => sum + count.passed, 0);
  const failed = counts.reduce((sum, count) => sum + count.failed, 0);
  console.log(`\n${passed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
}
