// `npm run demo`: takes a real workspace through two round trips and shows what happens.
//
// All work is done on a copy. The sandbox is a folder that is reached through a client and `sh` only, as a real one is.

import { appendFile, lstat, mkdir, mkdtemp, readFile, readdir, realpath, rm, stat } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
// By its default export, so that a Node without `parseArgs` still gets to say that it is too old.
import util from "node:util";
import { printFields } from "../cli/report.js";
import { HOOK, planWork } from "./demo-agent.mjs";
import { Explained, root, run, runMain } from "./process.mjs";
import { setUp } from "./setup.mjs";
import { bold, count, green, heading, oneLine, printTable, red, size } from "../benches/terminal.mjs";
import { differences, readableName, readTree } from "../__test__/support/tree.mjs";

const HELP = `Usage: npm run demo -- [DIR] [--keep]

Takes a copy of DIR (of this checkout, where none is named) into a sandbox and back, twice. Meanwhile an agent works in
the sandbox: it edits, deletes, adds, commits, and plants a git hook; and the copy is edited too. DIR does not change.

  --keep   leave the temporary folders, to look around in them
  --help   show this`;

/** What a build leaves in a checkout of this repository, at its top level. */
const BUILD_OUTPUT = /^(target|node_modules|\.build|.*\.node|.*\.tgz)$/;

/**
 * What the two trees do not share: the run's own folder, the companion files that macOS writes, and repositories, whose
 * files differ although they are the same; git itself compares these.
 */
const isNotShared = (/** @type {string} */ name) =>
  name === ".paperclip-runtime" || name.split("/").some((part) => part === ".git" || part.startsWith("._"));

const WIDTH = Math.min(process.stdout.columns || 110, 130);

// A reader that has seen enough (`| head`) does not keep the demo from cleaning up.
process.stdout.on("error", (error) => {
  if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EPIPE") throw error;
});

await runMain(async () => {
  const { keep, help, positionals } = readArguments();
  if (help) return console.log(HELP);
  const given = await givenFolder(positionals[0]);
  await setUp({ dependencies: false });

  const temporary = await mkdtemp(path.join(await realpath(os.tmpdir()), "sandbox-demo-"));
  const stop = () => void remove(temporary).finally(() => process.exit(130));
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  try {
    const isGood = await demonstrate(given, temporary);
    console.log(`\n${isGood ? green("Everything agrees") : red("Something is wrong")}\n`);
    if (!isGood) process.exitCode = 1;
  } finally {
    if (keep) console.log(`Kept: ${temporary}\n`);
    else await remove(temporary);
  }
});

function readArguments() {
  try {
    const parsed = util.parseArgs({
      allowPositionals: true,
      options: { keep: { type: "boolean", default: false }, help: { type: "boolean", short: "h" } },
    });
    if (parsed.positionals.length > 1) throw new TypeError("The demo takes one folder.");
    return { ...parsed.values, positionals: parsed.positionals };
  } catch (error) {
    throw error instanceof TypeError ? new Explained(`${error.message}\n\n${HELP}`) : error;
  }
}

/**
 * The folder to demonstrate with, which relative paths take no part, and what of it is copied.
 *
 * @typedef {{ dir: string, leaveOut: (name: string) => boolean, sources: string[] }} GivenFolder
 *
 * @param {string} [argument]
 * @returns {Promise<GivenFolder>}
 */
async function givenFolder(argument) {
  if (argument === undefined) {
    const leaveOut = (/** @type {string} */ name) => BUILD_OUTPUT.test(name);
    const names = (await readdir(root)).filter((name) => !leaveOut(name));
    return { dir: root, leaveOut, sources: names.map((name) => path.join(root, name)) };
  }
  // npm runs scripts in the repository and says where it was called.
  const dir = await realpath(path.resolve(process.env.INIT_CWD ?? ".", argument)).catch(
    ({ code, message }) => {
      if (code === "ENOENT" || code === "ENOTDIR") throw new Explained(`There is no folder "${argument}".`);
      throw new Explained(`The folder "${argument}" cannot be used: ${message}`);
    },
  );
  if (!(await stat(dir)).isDirectory()) throw new Explained(`"${argument}" is not a folder.`);
  const temporary = await realpath(os.tmpdir());
  if (!path.relative(dir, temporary).startsWith("..")) {
    throw new Explained(`"${argument}" holds the folder for temporary files (${temporary}).`);
  }
  return { dir, leaveOut: () => false, sources: [`${dir}/.`] };
}

/**
 * Two round trips. Returns whether every check passed.
 *
 * @param {GivenFolder} given
 * @param {string} temporary An empty folder to work in.
 */
async function demonstrate(given, temporary) {
  const { createLocalClient } = await import("../clients/local.js");
  const { prepareSandboxManagedRuntime } = await import("../index.js");

  const local = path.join(temporary, "workspace");
  const sandbox = path.join(temporary, "sandbox");
  const remote = path.join(sandbox, "workspace");
  const before = await readTree(given.dir, { leaveOut: given.leaveOut }).catch((error) => {
    throw new Explained(`The folder "${given.dir}" cannot be read: ${error.message}`);
  });
  for (const folder of [local, sandbox]) await mkdir(folder);
  // It knows every kind of file, keeps modes and times and follows no link.
  const copied = await run("cp", ["-a", "--", ...given.sources, local], { keep: true, show: false });
  if (copied.code !== 0) throw new Explained(`The folder could not be copied:\n${copied.output.trimEnd()}`);
  const hasGit = await makeRepository(local);

  const files = [...before.values()].filter((entry) => entry.kind === "file");
  const total = files.reduce((sum, file) => sum + file.size, 0);
  heading("Two round trips of a workspace through a sandbox");
  printFacts([
    ["workspace", `a copy of ${given.dir} (${count(files.length, "file")}, ${size(total)})`],
    ["sandbox", `${sandbox} (reached only through a client and sh)`],
  ]);

  // What both sides share is known to this machine as long as the demo runs.
  process.env.PAPERCLIP_HOME = path.join(temporary, "home");
  const { client, calls } = record(createLocalClient({ root: sandbox }));
  const printed = () => printCalls(calls.splice(0), sandbox);
  const limits = { timeoutMs: 600_000, apiKey: null };
  /** @type {import("../index.js").RestoreReport | undefined} */
  let report;
  const prepare = () =>
    prepareSandboxManagedRuntime({
      spec: { transport: "sandbox", provider: "local", sandboxId: "demo", remoteCwd: remote, ...limits },
      adapterKey: "demo",
      client,
      workspaceLocalDir: local,
      onReport: (what) => void (report = what),
    });

  heading("1  The first heartbeat: into the sandbox");
  const prepared = await prepare();
  const firstUp = printed();

  heading("2  Work on both sides");
  const { edited, script, facts } = planWork(before, remote, hasGit);
  await client.run(script, { timeoutMs: 60_000 });
  calls.length = 0;
  if (edited) await appendFile(path.join(local, edited), "\nA line written here meanwhile.\n");
  const localVersion = edited && (await readFile(path.join(local, edited)));
  printFacts(facts);

  heading("3  Back again");
  await prepared.restoreWorkspace();
  const firstDown = printed();
  const first = report;
  if (!first) throw new Error("the restore ended without a report");

  heading("4  What the restore did: its report");
  printFields({ ...first }, { indent: "  ", items: 12, print: console.log });

  heading("5  The second heartbeat");
  const noted = edited ?? "notes.md";
  await appendFile(path.join(local, noted), "\nA line written here for the next heartbeat.\n");
  const again = await prepare();
  const nextUp = printed();
  await appendFile(path.join(remote, noted), "\nAnother line of the agent's.\n");
  await again.restoreWorkspace();
  const nextDown = printed();
  printFacts([
    ["up", `${nextUp}, after ${firstUp} the first time`],
    ["down", `${nextDown}, after ${firstDown} the first time`],
  ]);

  heading("6  Compared by other means");
  const [here, there] = await Promise.all(
    [local, remote].map((dir) => readTree(dir, { leaveOut: isNotShared })),
  );
  // Sockets, FIFOs and devices stay where they are.
  for (const tree of [here, there])
    for (const [name, { kind }] of tree) if (kind === "other") tree.delete(name);
  const apart = differences(here, there).map(readableName);
  const compared = `${count(here.size, "entry", "entries")} compared by kind, bytes, link target and mode`;
  const checks = [check(apart.length === 0, `the two trees agree: ${compared}`, apart)];
  if (hasGit) {
    const [ours, theirs] = await Promise.all([local, remote].map(history));
    const isHere = await lstat(path.join(local, HOOK)).catch(() => undefined);
    const isTold = first.heldBack.some(({ path: name }) => name === HOOK);
    checks.push(
      check(ours.includes("agent"), "the agent's commit is here", [ours]),
      check(ours === theirs, "git has the same history on both sides, and finds it sound", [ours, theirs]),
      check(!isHere && isTold, `the agent's hook ${HOOK} is not here, and the report says so`),
    );
  }
  if (localVersion) {
    const kept = first.conflicts.find(({ path: name }) => name === edited);
    const isKept = kept !== undefined && localVersion.equals(await readFile(path.join(local, kept.keptAt)));
    checks.push(check(isKept, "the line written here is backed up, byte for byte, where the report says"));
  }
  const now = await readTree(given.dir, { leaveOut: given.leaveOut });
  const changed = differences(before, now, { exact: true }).map(readableName);
  checks.push(check(changed.length === 0, `${given.dir} is as it was`, changed));
  return checks.every(Boolean);
}

/** @param {string} temporary */
async function remove(temporary) {
  // A copy of read-only folders is read-only as well.
  await run("chmod", ["-R", "u+rwX", temporary], { show: false });
  await rm(temporary, { recursive: true, force: true });
}

/**
 * A client that passes every call on and writes it down: its method, subject, bytes and milliseconds.
 *
 * @param {import("../index.js").SandboxManagedRuntimeClient} inner
 */
function record(inner) {
  /** @type {[string, string, number | undefined, number][]} */
  const calls = [];
  const client = new Proxy(inner, {
    get(target, method) {
      const value = Reflect.get(target, method);
      if (typeof value !== "function") return value;
      return async (/** @type {[string, ...any]} */ ...args) => {
        const start = performance.now();
        // Taken before the call: a client may detach what it is given to write.
        const written = method === "writeFile" ? args[1].byteLength : undefined;
        const result = await value.apply(target, args);
        const bytes = method === "readFile" ? result.byteLength : written;
        calls.push([String(method), args[0], bytes, performance.now() - start]);
        return result;
      };
    },
  });
  return { client, calls };
}

/**
 * Prints calls, and says how many bytes they carried.
 *
 * @param {ReturnType<typeof record>["calls"]} calls
 * @param {string} sandbox
 */
function printCalls(calls, sandbox) {
  const rows = calls.map(([method, subject, bytes, milliseconds]) => {
    // Without what only the shell needs: the way to write a quote inside of quotes, and indentation.
    const command = subject.replaceAll(`${sandbox}/`, "").replaceAll(`'"'"'`, "'").replace(/\s+/g, " ");
    return [method, bytes?.toLocaleString("en") ?? "", milliseconds.toFixed(1), oneLine(command, WIDTH - 40)];
  });
  const titles = ["call", "bytes", "ms", "path or command, below the sandbox's folder"];
  printTable(titles, rows, new Set(["bytes", "ms"]));
  return `${calls.reduce((sum, [, , bytes]) => sum + (bytes ?? 0), 0).toLocaleString("en")} bytes`;
}

/** @param {[string, string][]} facts */
function printFacts(facts) {
  const width = Math.max(...facts.map(([label]) => label.length));
  for (const [label, fact] of facts) {
    console.log(`  ${bold(label.padEnd(width))}  ${oneLine(fact)}`);
  }
}

/**
 * Calls git with a folder's own repository, and nothing of the user's that runs or asks.
 *
 * @param {string} dir
 * @param {string[]} args
 */
async function git(dir, ...args) {
  const options = "-c safe.directory=* -c core.hooksPath=/dev/null -c init.defaultBranch=main".split(" ");
  return run("git", ["-C", dir, `--git-dir=${dir}/.git`, ...options, ...args], { keep: true, show: false });
}

/**
 * Makes a folder a repository, where it is none; `false` where there is no git. A `.git` that leads elsewhere (that of a
 * linked worktree) goes first: a commit in the copy would be one in the original.
 *
 * @param {string} dir
 */
async function makeRepository(dir) {
  const dotGit = await lstat(path.join(dir, ".git")).catch(() => undefined);
  if (dotGit?.isFile()) await rm(path.join(dir, ".git"));
  return git(dir, "init", "--quiet").then(
    ({ code }) => code === 0,
    () => false,
  );
}

/**
 * What git says of a folder: its last commit, its references, and whether all is there.
 *
 * @param {string} dir
 */
async function history(dir) {
  let said = "";
  const references = "for-each-ref refs/heads refs/tags";
  for (const question of ["log -1 --format=%H:%s", references, "fsck --no-dangling --no-progress"]) {
    said += (await git(dir, ...question.split(" "))).output;
  }
  return said;
}

/**
 * Prints how a check came out, and returns it.
 *
 * @param {boolean} isGood
 * @param {string} claim
 * @param {string[]} details What contradicts it.
 */
function check(isGood, claim, details = []) {
  if (isGood) console.log(`  ${green("✓")} ${claim}`);
  else console.log(`  ${red("✗ this does not hold:")} ${claim}: ${oneLine(details.join(", "))}`);
  return isGood;
}
