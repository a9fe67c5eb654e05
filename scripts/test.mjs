// `npm test`: sets up what is missing, runs the tests and adds up what they counted.
//
//   npm test                           the quick set, of every kind
//   npm test -- all                    everything, as .ci/run and CI have it
//   npm test -- rust types             all tests of these kinds; `quick rust` for the quick ones of them
//   npm test -- vitest mirror          further arguments go to the runner of the one kind that is named
//   npm test -- --verbose              a line a test, and all that is printed, instead of a line a suite
//
// The last line is the total, `N passed, N failed`. When a person runs a kind by its name, tests that need root or a
// program that this machine lacks are skipped and named. With `all`, or where `CI` is set, none is skipped: there a test
// that did not run counts as failed, since it proved nothing.

import { access, mkdir, readdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";
import { LONGEST_SUITES } from "../__test__/longest.mjs";
import { Explained, readIfThere, root, run, runMain } from "./process.mjs";
import { requireRust, setUp } from "./setup.mjs";

/**
 * What one kind of test counted.
 *
 * @typedef {object} Count
 * @property {number} passed
 * @property {number} failed Tests that failed or could not be run at all; where none may be skipped, also those that were.
 * @property {number} skipped
 */

/** @typedef {{ quick: boolean, strict: boolean, verbose: boolean, rest: string[], lacking: typeof NEEDS }} Choice */

/** @type {Record<string, (choice: Choice) => Promise<Count>>} */
const KINDS = { rust, vitest, types };

/** What some tests need, and those tests: the beginnings of Rust's names, and patterns of vitest's files. */
const NEEDS = [
  {
    what: "root",
    rust: ["disk::", "modes::", "mounts::", "owners::", "permissions::"],
    vitest: [],
    isHere: async () => process.getuid?.() === 0,
  },
  ...[
    { what: "busybox", rust: ["real_tars::", "heartbeats::"], vitest: [] },
    { what: "toybox", rust: ["real_tars::", "heartbeats::"], vitest: [] },
    { what: "bsdtar", rust: ["real_tars::"], vitest: [] },
    { what: "sshd", rust: [], vitest: ["__test__/clients/ssh.test.mjs"] },
    { what: "rsync", rust: [], vitest: ["__test__/bench.test.mjs"] },
  ].map((need) => ({ ...need, isHere: () => isProgram(need.what) })),
];

/** The attacks of the quick set: those that run on any system and as any user (tests/attack/main.rs). */
const QUICK_ATTACKS = ["archives", "deletions", "partial", "parts", "table", "truncation"];

/** A program that a dependency brings. */
const tool = (/** @type {string} */ file) => path.join(root, "node_modules", file);

await runMain(async () => {
  const { kinds, ...choice } = parseArguments(process.argv.slice(2));
  const missing = choice.quick ? [] : await missingHere();
  for (const { what, rust, vitest } of missing) {
    const consequence = choice.strict ? "these cannot pass" : "these are skipped";
    console.log(`Without ${what}, ${consequence}: ${[...rust, ...vitest].join(" ")}`);
  }
  const lacking = choice.strict ? [] : missing;
  // The Rust tests need neither packages nor the addon, and compile while these are brought.
  const others = kinds.filter((kind) => kind !== "rust");
  const ready = others.length > 0 ? setUp({ addon: others.includes("vitest") }) : undefined;

  /** @param {string} kind */
  const counted = async (kind) => {
    const start = performance.now();
    const seconds = () => (performance.now() - start) / 1000;
    try {
      if (kind !== "rust") await ready;
      console.log(`\n> ${kind}`);
      const count = await KINDS[kind]({ ...choice, lacking });
      return { kind, ...count, seconds: seconds() };
    } catch (error) {
      // The others are told of to their end.
      console.error(`\n${kind}:`, error instanceof Explained ? error.message : error);
      return { kind, passed: 0, failed: 1, skipped: 0, seconds: seconds() };
    }
  };
  // They wait for processes and locks much of the time, so they run beside one another.
  const counts = await Promise.all(kinds.map(counted));
  // The run must not pass even where no test notices.
  if (choice.all && missing.length > 0)
    counts.push({ kind: "needs", passed: 0, failed: missing.length, skipped: 0, seconds: 0 });
  report(counts);
  if (choice.quick) console.log("(the quick tests: `npm test -- all` runs everything)");
  conclude(counts);
});

/**
 * Splits the arguments into the kinds to run, how, and what is passed on.
 *
 * @param {string[]} args
 */
function parseArguments(args) {
  const words = ["all", "quick", "--verbose"];
  const firstOther = args.findIndex((arg) => !Object.hasOwn(KINDS, arg) && !words.includes(arg));
  const own = firstOther === -1 ? args : args.slice(0, firstOther);
  const rest = args.slice(own.length);
  const named = own.filter((arg) => Object.hasOwn(KINDS, arg));
  if (rest.length > 0 && named.length !== 1) {
    throw new Explained(
      `There are three kinds of test: ${Object.keys(KINDS).join(", ")}; and the words ${words.join(", ")}. ` +
        `"${rest[0]}" is none of them, and arguments for a runner go after the one kind they are for, as in ` +
        "`npm test -- vitest mirror`.",
    );
  }
  const all = own.includes("all");
  const quick = !all && (own.includes("quick") || named.length === 0);
  const strict = all || Boolean(process.env.CI);
  const kinds = named.length > 0 ? [...new Set(named)] : Object.keys(KINDS);
  return { kinds, rest, all, quick, strict, verbose: own.includes("--verbose") };
}

/** Whether a program is on the search path, or where Debian has a server's. */
async function isProgram(/** @type {string} */ name) {
  const places = [...(process.env.PATH ?? "").split(path.delimiter), "/usr/sbin"];
  const found = places.map((place) =>
    access(path.join(place, name)).then(
      () => true,
      () => false,
    ),
  );
  return (await Promise.all(found)).includes(true);
}

/** The needs that this machine does not meet. */
async function missingHere() {
  const here = await Promise.all(NEEDS.map(({ isHere }) => isHere()));
  return NEEDS.filter((_, index) => !here[index]);
}

/**
 * The tests of the native core.
 *
 * @param {Choice} choice
 * @returns {Promise<Count>}
 */
async function rust({ quick, verbose, rest, lacking }) {
  await requireRust();
  const skipped = lacking.flatMap((need) => need.rust.map((name) => `--skip=${name}`));
  if (!quick) return cargoTest(rest, rest.includes("--") ? [] : skipped, verbose);
  // None of these needs root or a program.
  const unit = await cargoTest(["--package=sandbox-managed-runtime", "--lib", ...rest], [], verbose);
  const attack = ["--package=sandbox-managed-runtime-tests", "--test=attack"];
  const attacks = await cargoTest(
    attack,
    QUICK_ATTACKS.map((name) => `${name}::`),
    verbose,
  );
  return sum([unit, attacks]);
}

/**
 * Runs `cargo test`, and counts from the lines in which it sums up each binary. Prints such a line for each as it comes,
 * and what failed.
 *
 * @param {string[]} args
 * @param {string[]} testArgs For the tests' own runner.
 * @param {boolean} verbose
 * @returns {Promise<Count>}
 */
async function cargoTest(args, testArgs, verbose) {
  const words = [
    "test",
    "--locked",
    "--no-fail-fast",
    ...args,
    ...(testArgs.length > 0 ? ["--", ...testArgs] : []),
  ];
  let suite = "";
  let unfinished = "";
  const showLine = (/** @type {string} */ line) => {
    suite =
      /^\s*(?:Running (?:unittests )?(\S+)|Doc-tests (\S+))/.exec(line)?.slice(1).find(Boolean) ?? suite;
    const [, outcome, rest] = /^test result: (\w+)\. (.*)/.exec(line) ?? [];
    if (outcome) console.log(`${outcome === "ok" ? "ok    " : "FAILED"}  ${suite}  ${rest}`);
  };
  const targets = /--lib/.test(args.join()) ? "the unit tests" : "the integration tests";
  console.log(`Compiling the native core and ${targets} (some minutes the first time)`);
  const { code, output, errors } = await run("cargo", words, {
    keep: "apart",
    show: verbose,
    // Many of the tests wait for processes, so one more than there are cores keeps these busy.
    env: { CARGO_TERM_COLOR: "never", RUST_TEST_THREADS: String(availableParallelism() + 1) },
    onOutput(text) {
      const lines = (unfinished + stripVTControlCharacters(text)).split("\n");
      unfinished = lines.pop() ?? "";
      if (!verbose) lines.forEach(showLine);
    },
  });
  if (code !== 0 && !verbose) console.log(detailsOf(`${errors}\n${output}`));
  const count = { passed: 0, failed: 0, skipped: 0 };
  const summary =
    /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;(?: \d+ measured; (\d+) filtered out)?/gm;
  for (const [, passed, failed, ignored, filtered] of stripVTControlCharacters(output).matchAll(summary)) {
    count.passed += Number(passed);
    count.failed += Number(failed) + Number(ignored);
    // Without `--skip`, these are tests that were not asked for by name.
    if (testArgs[0]?.startsWith("--skip=")) count.skipped += Number(filtered ?? 0);
  }
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
async function vitest({ quick, strict, verbose, rest, lacking }) {
  const results = path.join(root, ".build", "vitest.json");
  await mkdir(path.dirname(results), { recursive: true });
  // A report that an earlier run left must not be taken for this one's.
  await rm(results, { force: true });
  const excluded = [
    ...(quick ? LONGEST_SUITES.map((name) => `__test__/${name}.test.mjs`) : []),
    ...lacking.flatMap((need) => need.vitest),
  ];
  const args = [
    "run",
    // The releases' own suites are not in the quick set.
    ...(quick ? ["--project=own"] : []),
    ...excluded.map((pattern) => `--exclude=${pattern}`),
    // Without this, every test that takes a while has a line of its own.
    ...(verbose
      ? ["--reporter=verbose"]
      : ["--reporter=default", "--slowTestThreshold=3600000", "--silent=passed-only"]),
    "--reporter=json",
    `--outputFile.json=${results}`,
    ...rest,
  ];
  const { code } = await run(process.execPath, [tool("vitest/vitest.mjs"), ...args]);
  // Tests that are not asked for by name are reported as skipped too.
  const isChosenByName = rest.some((arg) => /^(-t|--testNamePattern)\b/.test(arg));
  const count = { passed: 0, failed: 0, skipped: 0 };
  for (const { status, assertionResults } of await readVitestReport(results)) {
    const passed = assertionResults.filter((test) => test.status === "passed");
    const failed = assertionResults.filter((test) => test.status === "failed");
    // Neither run nor failed: skipped, to do, or given up.
    const others = assertionResults.filter((test) => !passed.includes(test) && !failed.includes(test));
    const skipped = isChosenByName ? [] : others;
    for (const { fullName } of skipped) console.log(`skipped  ${fullName}`);
    count.passed += passed.length;
    count.failed += failed.length + (strict ? skipped.length : 0);
    count.skipped += strict ? 0 : skipped.length;
    // A file that did not load, or whose hooks failed, has no failed test to show for it.
    if (status === "failed" && failed.length === 0) count.failed += 1;
  }
  return failAtLeastOnceUnless(code === 0, count);
}

/**
 * The files in a report of vitest; none where it stopped before it could write one.
 *
 * @param {string} file
 * @returns {Promise<{ status: string, assertionResults: { status: string, fullName: string }[] }[]>}
 */
async function readVitestReport(file) {
  const text = await readIfThere(file);
  return text === undefined ? [] : JSON.parse(text).testResults;
}

/**
 * The type tests: each file of `__test__/types` is one test, passed when the compiler has nothing to say about it.
 *
 * @param {Choice} choice
 * @returns {Promise<Count>}
 */
async function types({ rest }) {
  const folder = "__test__/types";
  const files = (await readdir(path.join(root, folder))).filter((name) => name.endsWith(".ts"));
  const compiler = [tool("typescript/bin/tsc"), "--project", folder, "--pretty", "false", ...rest];
  const { code, output } = await run(process.execPath, compiler, { keep: "both", show: false });
  const faulty = files.filter((name) => output.includes(`${folder}/${name}(`));
  console.log(
    `${code === 0 ? "ok    " : "FAILED"}  ${folder}  ${files.length - faulty.length} of ${files.length} files\n${output}`.trim(),
  );
  const count = { passed: files.length - faulty.length, failed: faulty.length, skipped: 0 };
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

/** @param {(Count & { kind: string, seconds: number })[]} counts */
function report(counts) {
  console.log();
  for (const { kind, passed, failed, skipped, seconds } of counts) {
    const cells = [kind.padEnd(8), `${passed} passed`.padStart(12), `${failed} failed`.padStart(12)];
    const left = skipped > 0 ? `${skipped} skipped`.padStart(12) : "";
    console.log(`${cells.join(" ")} ${seconds.toFixed(1).padStart(8)} s${left}`);
  }
}

/** @param {Count[]} counts */
function conclude(counts) {
  const { passed, failed, skipped } = sum(counts);
  if (skipped > 0)
    console.log(`\n${skipped} skipped, as this machine or user lacks what they need (named above)`);
  console.log(`\n${passed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
}
