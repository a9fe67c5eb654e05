// `npm test`: sets up what is missing, runs the tests and adds up what they counted.
//
//   npm test                           the quick set, of every kind
//   npm test -- all                    everything, as .ci/run and CI have it
//   npm test -- rust                   all tests of this kind; `quick rust` for the quick ones of them
//   npm test -- vitest mirror          further arguments go to the runner of the one kind that is named
//   npm test -- --verbose              a line a test, and all that is printed, instead of a line a suite
//
// The last line is the total, `N passed, N failed`. When a person runs a kind by its name, tests that need root or a
// program that this machine lacks are skipped and named. With `all`, or where `CI` is set, none is skipped: a test that
// did not run counts as failed then, since it proved nothing.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { LONGEST_SUITES } from "../__test__/longest.mjs";
import { keepTemporaryFilesInMemory } from "../__test__/support/in-memory.mjs";
import { Explained, root, run, runMain } from "./process.mjs";
import { requireRust, setUp } from "./setup.mjs";

/**
 * What one kind of test counted.
 *
 * @typedef {object} Count
 * @property {number} passed
 * @property {number} failed Tests that failed or could not be run; where none may be skipped, also those that were.
 * @property {number} skipped
 */

/** @typedef {{ quick: boolean, strict: boolean, verbose: boolean, rest: string[], leftOut: string[] }} Choice */

/** @type {Record<string, (choice: Choice) => Promise<Count>>} */
const KINDS = { rust, vitest };

/** What some tests need, and those tests: the beginnings of Rust's names, which end in `::`, and patterns of files. */
const NEEDS = [
  {
    what: "root",
    isHere: process.getuid?.() === 0,
    tests: [
      ...["disk::", "modes::", "mounts::", "owners::", "permissions::"],
      "__test__/volumes/folding*.test.mjs",
    ],
  },
  { what: "busybox", isHere: isProgram("busybox"), tests: ["real_tars::", "heartbeats::"] },
  { what: "toybox", isHere: isProgram("toybox"), tests: ["real_tars::", "heartbeats::"] },
  { what: "bsdtar", isHere: isProgram("bsdtar"), tests: ["real_tars::"] },
  { what: "FUSE 3", isHere: isProgram("fusermount3"), tests: ["__test__/volumes/folding*.test.mjs"] },
  { what: "sshd", isHere: isProgram("sshd"), tests: ["__test__/clients/ssh.test.mjs"] },
  { what: "rsync", isHere: isProgram("rsync"), tests: ["__test__/bench.test.mjs"] },
];

/** The attacks of the quick set: those that run on any system and as any user (tests/attack/main.rs). */
const QUICK_ATTACKS = ["archives::", "deletions::", "partial::", "parts::", "table::", "truncation::"];

await runMain(async () => {
  const { kinds, ...choice } = parseArguments(process.argv.slice(2));
  keepTemporaryFilesInMemory();
  const missing = choice.quick ? [] : NEEDS.filter(({ isHere }) => !isHere);
  for (const { what, tests } of missing) {
    const consequence = choice.strict ? "these cannot pass" : "these are skipped";
    console.log(`Without ${what}, ${consequence}: ${tests.join(" ")}`);
  }
  const leftOut = choice.strict ? [] : missing.flatMap(({ tests }) => tests);
  // The Rust tests need neither packages nor the addon, and compile while these are brought.
  const ready = kinds.includes("vitest") ? setUp() : undefined;

  /** @param {string} kind */
  const counted = async (kind) => {
    const start = performance.now();
    let count = { passed: 0, failed: 1, skipped: 0 };
    try {
      if (kind !== "rust") await ready;
      console.log(`\n> ${kind}`);
      count = await KINDS[kind]({ ...choice, leftOut });
    } catch (error) {
      // The others are told of to their end.
      console.error(`\n${kind}:`, error instanceof Explained ? error.message : error);
    }
    return { kind, ...count, seconds: (performance.now() - start) / 1000 };
  };
  // They wait for processes and locks much of the time, so they run beside one another.
  const counts = await Promise.all(kinds.map(counted));
  // The run must not pass even where no test notices.
  if (choice.all && missing.length > 0)
    counts.push({ kind: "needs", passed: 0, failed: missing.length, skipped: 0, seconds: 0 });
  console.log();
  for (const { kind, passed, failed, skipped, seconds } of counts) {
    const cells = [kind.padEnd(8), `${passed} passed`.padStart(12), `${failed} failed`.padStart(12)];
    const left = skipped > 0 ? `${skipped} skipped`.padStart(12) : "";
    console.log(`${cells.join(" ")} ${seconds.toFixed(1).padStart(8)} s${left}`);
  }
  if (choice.quick) console.log("(the quick tests: `npm test -- all` runs everything)");
  const { passed, failed, skipped } = sum(counts);
  if (skipped > 0)
    console.log(`\n${skipped} skipped, as this machine or user lacks what they need (named above)`);
  console.log(`\n${passed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
});

/**
 * Splits the arguments into the kinds to run, how, and what is passed on.
 *
 * @param {string[]} args
 */
function parseArguments(args) {
  const words = [...Object.keys(KINDS), "all", "quick", "--verbose"];
  const end = args.findIndex((arg) => !words.includes(arg));
  const own = end === -1 ? args : args.slice(0, end);
  const rest = args.slice(own.length);
  const named = Object.keys(KINDS).filter((kind) => own.includes(kind));
  if (rest.length > 0 && named.length !== 1) {
    throw new Explained(
      `"${rest[0]}" is none of these words: ${words.join(", ")}. Arguments for a runner go after the one kind of ` +
        "test that they are for, as in `npm test -- vitest mirror`.",
    );
  }
  const all = own.includes("all");
  const quick = !all && (own.includes("quick") || named.length === 0);
  const strict = all || Boolean(process.env.CI);
  const kinds = named.length > 0 ? named : Object.keys(KINDS);
  return { kinds, rest, all, quick, strict, verbose: own.includes("--verbose") };
}

/** Whether a program is on the search path, or where Debian has a server's. */
function isProgram(/** @type {string} */ name) {
  const places = [...(process.env.PATH ?? "").split(path.delimiter), "/usr/sbin"];
  return places.some((place) => existsSync(path.join(place, name)));
}

/**
 * The tests of the native core.
 *
 * @param {Choice} choice
 * @returns {Promise<Count>}
 */
async function rust({ quick, verbose, rest, leftOut }) {
  requireRust();
  const skipped = leftOut.filter((name) => name.endsWith("::")).map((name) => `--skip=${name}`);
  if (!quick) return cargoTest(rest, rest.includes("--") ? [] : skipped, verbose);
  // None of these needs root or a program.
  const unit = await cargoTest(["--package=sandbox-managed-runtime", "--lib", ...rest], [], verbose);
  const attack = ["--package=sandbox-managed-runtime-tests", "--test=attack"];
  return sum([unit, await cargoTest(attack, QUICK_ATTACKS, verbose)]);
}

/**
 * Runs `cargo test`, and counts from the lines in which it sums up each binary. Prints these as they come, and what
 * failed.
 *
 * @param {string[]} args
 * @param {string[]} testArgs For the tests' own runner.
 * @param {boolean} verbose
 * @returns {Promise<Count>}
 */
async function cargoTest(args, testArgs, verbose) {
  const words = ["test", "--locked", "--no-fail-fast", ...args];
  if (testArgs.length > 0) words.push("--", ...testArgs);
  const targets = args.includes("--lib") ? "the unit tests" : "the integration tests";
  console.log(`Compiling the native core and ${targets} (some minutes the first time)`);
  const count = { passed: 0, failed: 0, skipped: 0 };
  let suite = "";
  const { code, output } = await run("cargo", words, {
    keep: true,
    show: verbose,
    // Many of the tests wait for processes, so one more than there are cores keeps these busy.
    env: { CARGO_TERM_COLOR: "never", RUST_TEST_THREADS: String(availableParallelism() + 1) },
    onLine(line) {
      const [, unit, documented] = /^\s*(?:Running (?:unittests )?(\S+)|Doc-tests (\S+))/.exec(line) ?? [];
      suite = unit ?? documented ?? suite;
      const [, outcome, result] = /^test result: (\w+)\. (.*)/.exec(line) ?? [];
      if (!outcome) return;
      if (!verbose) console.log(`${outcome === "ok" ? "ok    " : "FAILED"}  ${suite}  ${result}`);
      const of = (/** @type {string} */ word) => Number(new RegExp(`(\\d+) ${word}`).exec(result)?.[1] ?? 0);
      count.passed += of("passed");
      count.failed += of("failed") + of("ignored");
      // Without `--skip`, these are tests that were not asked for by name.
      if (testArgs[0]?.startsWith("--skip=")) count.skipped += of("filtered out");
    },
  });
  if (code !== 0 && !verbose) console.log(detailsOf(output));
  return failAtLeastOnceUnless(code === 0, count);
}

/** What cargo printed without a line for each test that passed. */
function detailsOf(/** @type {string} */ output) {
  return output.replace(/^test .* \.\.\. ok\n|^ *(Compiling|Checking|Fresh) .*\n/gm, "").trim();
}

/**
 * The suites that drive the addon from JavaScript, counted from vitest's JSON report.
 *
 * @param {Choice} choice
 * @returns {Promise<Count>}
 */
async function vitest({ quick, strict, verbose, rest, leftOut }) {
  const results = path.join(root, ".build", "vitest.json");
  // A report that an earlier run left must not be taken for this one's.
  rmSync(results, { force: true });
  const excluded = leftOut.filter((name) => !name.endsWith("::"));
  const args = ["run", "--reporter=json", `--outputFile.json=${results}`];
  if (verbose) args.push("--reporter=verbose");
  // Otherwise, every test that takes a while would have a line of its own.
  else args.push("--reporter=default", "--slowTestThreshold=3600000", "--silent=passed-only");
  if (quick) {
    // The releases' own suites are not in the quick set.
    args.push("--project=own");
    excluded.push(...LONGEST_SUITES.map((name) => `__test__/${name}.test.mjs`));
  }
  args.push(...excluded.map((pattern) => `--exclude=${pattern}`), ...rest);
  const { code } = await run(process.execPath, [path.join(root, "node_modules/vitest/vitest.mjs"), ...args]);
  // Tests that are not asked for by name are reported as skipped too.
  const isChosenByName = rest.some((arg) => /^(-t|--testNamePattern)\b/.test(arg));
  const count = { passed: 0, failed: 0, skipped: 0 };
  /** @type {{ status: string, assertionResults: { status: string, fullName: string }[] }[]} */
  const files = existsSync(results) ? JSON.parse(readFileSync(results, "utf8")).testResults : [];
  for (const { status, assertionResults } of files) {
    const before = count.failed;
    for (const test of assertionResults) {
      if (test.status === "passed" || test.status === "failed") count[test.status] += 1;
      // Skipped, to do, or given up.
      else if (!isChosenByName) {
        console.log(`skipped  ${test.fullName}`);
        count[strict ? "failed" : "skipped"] += 1;
      }
    }
    // A file that did not load, or whose hooks failed, has no failed test to show for it.
    if (status === "failed" && count.failed === before) count.failed += 1;
  }
  return failAtLeastOnceUnless(code === 0, count);
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

/** @param {Count[]} counts */
function sum(counts) {
  const of = (/** @type {keyof Count} */ key) => counts.reduce((total, count) => total + count[key], 0);
  return { passed: of("passed"), failed: of("failed"), skipped: of("skipped") };
}
