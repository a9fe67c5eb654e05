// `npm run demo`: takes a real workspace through a whole round trip and shows what happens.
//
//   npm run demo                 this checkout, without what was built in it
//   npm run demo -- DIR          any folder
//   npm run demo -- --keep       leave the temporary folders, to look around in them
//
// The folder is only read: all work is done on a copy. The sandbox is a folder that is reached through a client and `sh`
// alone, as a real one would be.

import { appendFile, mkdir, mkdtemp, readFile, realpath, readdir, rm, stat } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
// By its default export, so that a Node without `parseArgs` still gets to say that it is too old.
import util from "node:util";
import { chooseTasks, describeTasks, shellScript } from "./demo-agent.mjs";
import { Explained, root, run, runMain } from "./process.mjs";
import { setUp } from "./setup.mjs";
import { bold, count, dim, green, heading, oneLine, printTable, red, size } from "./terminal.mjs";
import { differences, readableName, readTree } from "./tree.mjs";

/** What a build leaves in a checkout of this repository, at its top level. */
const BUILD_OUTPUT = /^(target|node_modules|\.build|.*\.node|.*\.tgz)$/;

/** What stays on its own side, always: the run's own folder, and the companion files that macOS writes. */
const staysHere = (/** @type {string} */ name) =>
  name === ".paperclip-runtime" || name.split("/").some((part) => part.startsWith("._"));

const WIDTH = Math.min(process.stdout.columns || 110, 130);

await runMain(async () => {
  const { values, positionals } = readArguments();
  const given = await givenFolder(positionals[0]);
  await setUp({ dependencies: false });

  const temporary = await mkdtemp(path.join(await realpath(os.tmpdir()), "sandbox-demo-"));
  const stop = () => void remove(temporary).finally(() => process.exit(130));
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  try {
    const start = performance.now();
    const isGood = await demonstrate(given, temporary);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(
      `\n${isGood ? green("Everything agrees") : red("Something is wrong")} ${dim(`(${seconds} s)`)}\n`,
    );
    if (!isGood) process.exitCode = 1;
  } finally {
    if (values.keep) console.log(`Kept: ${temporary}\n`);
    else await remove(temporary);
  }
});

function readArguments() {
  const explain = (/** @type {string} */ problem) =>
    new Explained(`${problem}\nUse: npm run demo -- [DIR] [--keep]`);
  try {
    const parsed = util.parseArgs({
      allowPositionals: true,
      options: { keep: { type: "boolean", default: false } },
    });
    if (parsed.positionals.length > 1) throw explain("The demo takes one folder.");
    return parsed;
  } catch (error) {
    throw error instanceof TypeError ? explain(error.message) : error;
  }
}

/**
 * The folder to demonstrate with, and what at its top level takes part.
 *
 * @typedef {object} GivenFolder
 * @property {string} dir
 * @property {(name: string) => boolean} leaveOut Says which relative paths take no part.
 */

/**
 * @param {string | undefined} argument
 * @returns {Promise<GivenFolder>}
 */
async function givenFolder(argument) {
  if (argument === undefined) {
    return { dir: await realpath(root), leaveOut: (name) => BUILD_OUTPUT.test(name) };
  }
  // npm runs scripts in the repository and says where it was called.
  const wanted = path.resolve(process.env.INIT_CWD ?? ".", argument);
  const stats = await stat(wanted).catch((error) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR")
      throw new Explained(`There is no folder "${argument}".`);
    throw new Explained(`The folder "${argument}" cannot be used: ${error.message}`);
  });
  if (!stats.isDirectory()) throw new Explained(`"${argument}" is not a folder.`);
  const dir = await realpath(wanted);
  const temporary = await realpath(os.tmpdir());
  if (`${temporary}/`.startsWith(dir === "/" ? dir : `${dir}/`)) {
    throw new Explained(
      `"${argument}" holds the folder for temporary files, where its copy would go (${temporary}).`,
    );
  }
  return { dir, leaveOut: () => false };
}

/**
 * The round trip. Returns whether every check passed.
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
  await copy(given, local);
  await mkdir(sandbox);

  const files = [...before.values()].filter((entry) => entry.kind === "file");
  const total = files.reduce((sum, file) => sum + file.size, 0);
  heading("A workspace's round trip through a sandbox");
  printFacts([
    ["workspace", `a copy of ${given.dir}`],
    ["", `${count(files.length, "file")}, ${size(total)}`],
    ["sandbox", `${sandbox} (reached only through a client and sh)`],
  ]);

  // What both sides share is known to this machine as long as the demo runs.
  process.env.PAPERCLIP_HOME = path.join(temporary, "home");
  const { client, calls } = record(createLocalClient({ root: sandbox }));
  /** Prints the calls so far, and says how many bytes they carried. */
  const printCalls = () => {
    const bytes = calls.reduce((sum, call) => sum + (call.bytes ?? 0), 0);
    printClientCalls(calls.splice(0), sandbox);
    return bytes;
  };

  heading("1  Into the sandbox");
  /** @type {import("../index.js").RestoreReport | undefined} */
  let report;
  const prepare = () =>
    prepareSandboxManagedRuntime({
      spec: {
        transport: "sandbox",
        provider: "local",
        sandboxId: "demo",
        remoteCwd: remote,
        timeoutMs: 600_000,
        apiKey: null,
      },
      adapterKey: "demo",
      client,
      workspaceLocalDir: local,
      onReport: (what) => void (report = what),
    });
  const prepared = await prepare();
  const firstUp = printCalls();

  heading("2  Work on both sides");
  const tasks = chooseTasks(before);
  await client.run(shellScript(tasks, remote), { timeoutMs: 60_000 });
  calls.length = 0;
  const { edited } = tasks;
  if (edited !== undefined) await appendFile(path.join(local, edited), "\nA line written here meanwhile.\n");
  const localVersion = edited === undefined ? undefined : await readFile(path.join(local, edited));
  printFacts(describeTasks(tasks));

  heading("3  Back again");
  await prepared.restoreWorkspace();
  const firstDown = printCalls();
  if (!report) throw new Error("the restore ended without a report");

  heading("4  What the restore did");
  printReport(report);

  heading("5  The next heartbeat");
  const first = report;
  const noted = edited ?? "notes.md";
  await appendFile(path.join(local, noted), "\nA line written here for the next heartbeat.\n");
  const again = await prepare();
  const nextUp = printCalls();
  await appendFile(path.join(remote, noted), "\nAnother line of the agent's.\n");
  await again.restoreWorkspace();
  const nextDown = printCalls();
  const bytes = (/** @type {number} */ count) => `${count.toLocaleString("en")} bytes`;
  printFacts([
    ["up", `${bytes(nextUp)}, after ${bytes(firstUp)} the first time`],
    ["down", `${bytes(nextDown)}, after ${bytes(firstDown)} the first time`],
  ]);

  heading("6  Looked at independently");
  const [here, there] = await Promise.all(
    [local, remote].map((dir) => readTree(dir, { leaveOut: (name) => staysHere(name) || isGits(name) })),
  );
  for (const tree of [here, there]) forgetSpecialFiles(tree);
  const apart = differences(here, there);
  const checks = [
    check(
      apart.length === 0,
      `the two trees agree: ${count(here.size, "entry", "entries")} compared by kind, bytes, link target and mode`,
      `the two trees differ: ${apart.map(readableName).join(", ")}`,
    ),
  ];
  const [historyHere, historyThere] = await Promise.all([local, remote].map(history));
  if (historyHere !== undefined) {
    checks.push(
      check(
        historyHere === historyThere,
        "git has the same commits, branches and tags on both sides, and finds this side sound",
        `git differs: ${oneLine(historyHere)} here, ${oneLine(historyThere ?? "no repository")} there`,
      ),
    );
  }
  if (localVersion !== undefined) {
    const kept = first.conflicts.find(({ path: name }) => name === edited);
    const isKept = kept !== undefined && localVersion.equals(await readFile(path.join(local, kept.keptAt)));
    checks.push(
      check(
        isKept,
        "the line written here is not lost: byte for byte where the report says",
        "the line written here is lost",
      ),
    );
  }
  const changed = differences(before, await readTree(given.dir, { leaveOut: given.leaveOut }), {
    exact: true,
  });
  checks.push(
    check(
      changed.length === 0,
      `${given.dir} is as it was`,
      `${given.dir} was changed while this ran: ${changed.map(readableName).join(", ")}`,
    ),
  );
  return checks.every(Boolean);
}

/**
 * Copies a folder with `cp`, which knows every kind of file, keeps modes and times and follows no link.
 *
 * @param {GivenFolder} given
 * @param {string} target
 */
async function copy({ dir, leaveOut }, target) {
  await mkdir(target);
  const names = (await readdir(dir, { encoding: "latin1" })).filter((name) => !leaveOut(name));
  if (names.length === 0) return;
  const isWhole = names.length === (await readdir(dir)).length;
  const sources = isWhole ? [`${dir}/.`] : names.map((name) => path.join(dir, readableName(name)));
  const { code, output } = await run("cp", ["-a", "--", ...sources, target], { keep: "both", show: false });
  if (code !== 0) throw new Explained(`The folder could not be copied:\n${output.trimEnd()}`);
}

/** @param {string} temporary */
async function remove(temporary) {
  // A copy of read-only folders is read-only as well.
  await run("chmod", ["-R", "u+rwX", temporary], { show: false });
  await rm(temporary, { recursive: true, force: true });
}

/**
 * One call of a client's method.
 *
 * @typedef {object} Call
 * @property {string} method
 * @property {string} subject The remote path or the command.
 * @property {number | undefined} bytes What a file transfer moved.
 * @property {number} milliseconds
 */

/**
 * A client that passes every call on and writes it down.
 *
 * @param {import("../index.js").SandboxManagedRuntimeClient} inner
 */
function record(inner) {
  /** @type {Call[]} */
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
        const milliseconds = performance.now() - start;
        const bytes = method === "readFile" ? result.byteLength : written;
        calls.push({ method: String(method), subject: args[0], bytes, milliseconds });
        return result;
      };
    },
  });
  return { client, calls };
}

/**
 * @param {Call[]} calls
 * @param {string} sandbox
 */
function printClientCalls(calls, sandbox) {
  const titles = ["call", "bytes", "ms", "path or command, below the sandbox's folder"];
  const rows = calls.map(({ method, subject, bytes, milliseconds }) => [
    method,
    bytes === undefined ? "" : bytes.toLocaleString("en"),
    milliseconds.toFixed(1),
    oneLine(readableCommand(subject.replaceAll(`${sandbox}/`, "")), WIDTH - 40),
  ]);
  printTable(titles, rows, new Set(["bytes", "ms"]));
}

/**
 * A shell command without what only the shell needs: the way to write a quote inside of quotes, and indentation.
 *
 * @param {string} command
 */
function readableCommand(command) {
  return command.replaceAll(`'"'"'`, "'").replace(/\s+/g, " ");
}

/** @param {import("../index.js").RestoreReport} report */
function printReport(report) {
  printFacts([
    ...listed("from the sandbox", report.written),
    ...listed("deleted here", report.deleted),
    ...listed("kept here", report.kept),
    ...listed(
      "conflicts",
      report.conflicts.flatMap(({ path: name, keptAt }) => [
        `${name}: the sandbox's version stands,`,
        `  the one from here is kept at ${keptAt}`,
      ]),
    ),
    ...listed(
      "left alone",
      report.skipped.map(({ path: name, reason }) => `${name}: ${reason}`),
    ),
  ]);
  const times = report.phases.map(({ name, durationMs }) => `${name} ${durationMs.toFixed(1)}`);
  console.log(
    `\n  ${dim(`${count(report.entries, "entry", "entries")} in the sandbox; ms: ${times.join(", ")}`)}`,
  );
}

/**
 * Lines under one label, the first with the label.
 *
 * @param {string} label
 * @param {string[]} lines
 * @returns {[string, string][]}
 */
function listed(label, lines) {
  const most = 12;
  const shown = lines.length > most ? [...lines.slice(0, most), `and ${lines.length - most} more`] : lines;
  return (shown.length > 0 ? shown : ["none"]).map((line, index) => [index === 0 ? label : "", line]);
}

/** @param {[string, string][]} facts */
function printFacts(facts) {
  const width = Math.max(...facts.map(([label]) => label.length));
  for (const [label, fact] of facts) {
    console.log(`  ${bold(label.padEnd(width))}  ${oneLine(fact)}`);
  }
}

/**
 * What is below a `.git` travels as a repository, whose files differ although it is the same; git itself compares it.
 *
 * @param {string} name
 */
function isGits(name) {
  return /(^|\/)\.git$/.test(name);
}

/**
 * What git says of a folder: its references, and whether all is there. `undefined` where it is no checkout, or there is no git.
 *
 * @param {string} dir
 */
async function history(dir) {
  const git = (/** @type {string[]} */ ...args) =>
    run("git", ["-C", dir, `--git-dir=${dir}/.git`, "-c", "safe.directory=*", ...args], {
      keep: "both",
      show: false,
    });
  const inside = await git("rev-parse", "--git-dir").catch(() => undefined);
  if (inside?.code !== 0) return undefined;
  const [head, references, sound] = [
    await git("rev-parse", "--verify", "--quiet", "HEAD"),
    await git("for-each-ref", "refs/heads", "refs/tags"),
    await git("fsck", "--no-dangling", "--no-progress"),
  ];
  return `${head.output}${references.output}${sound.output}`;
}

/**
 * Sockets, FIFOs and devices stay where they are and are compared with nothing.
 *
 * @param {import("./tree.mjs").Tree} tree
 */
function forgetSpecialFiles(tree) {
  for (const [name, { kind }] of tree) if (kind === "other") tree.delete(name);
}

/**
 * Prints how a check came out, and returns it.
 *
 * @param {boolean} isGood
 * @param {string} good
 * @param {string} bad
 */
function check(isGood, good, bad) {
  console.log(isGood ? `  ${green("✓")} ${good}` : `  ${red("✗")} ${bad}`);
  return isGood;
}
