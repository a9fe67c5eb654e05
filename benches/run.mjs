// `npm run bench`: measures this package against public tools and against the npm release that it replaces.
//
//   npm run bench                        everything, as published (about half an hour)
//   npm run bench -- --quick             smaller workloads, fewer rounds (a few minutes)
//   npm run bench -- --only prepare      only this operation; `prepare:src` for one workload; may be given repeatedly
//   npm run bench -- --rounds N          this many rounds
//   npm run bench -- --dir DIR           with all files in DIR; by default in memory, if there is such a folder
//   npm run bench -- --disk DIR          the comparison with the npm release also with all files in DIR
//   npm run bench -- --json FILE         where the figures go; by default .build/bench.json
//   npm run bench -- heartbeat           what later heartbeats cost, beside rsync (see benches/heartbeat.mjs)
//   npm run bench -- commands            what a sandbox costs that is reached by commands alone (see benches/commands.mjs)
//   npm run bench -- --ours FILE         measures the index.js of another checkout
//
// In each round every contestant runs once, each in its own process, and the medians count. In the first round the outcome is
// checked too, after the measurement.

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, realpath, statfs, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import util, { promisify } from "node:util";
import { Explained, root, runMain } from "../scripts/process.mjs";
import { setUp } from "../scripts/setup.mjs";
import { commands } from "./commands.mjs";
import { heartbeat } from "./heartbeat.mjs";
import { OPERATIONS } from "./operations.mjs";
import { Stand, remove } from "./places.mjs";
import { printResults } from "./report.mjs";
import { judge } from "./results.mjs";
import { planWorkloads } from "./workloads.mjs";

/** @typedef {import("./results.mjs").Series} Series */
/** @typedef {import("./workloads.mjs").Workload} Workload */

const ONE = fileURLToPath(new URL("one.mjs", import.meta.url));

/** A file system in memory, on Linux. */
const IN_MEMORY = "/dev/shm";

/** How much space is needed at most, as a multiple of the largest workload: for copies, archives, and what a check extracts. */
const ROOM = 9;

/** How many rounds there are, and how many of the npm release, which is so slow that a few are enough. */
const ROUNDS = {
  full: { all: 5, release: 3 },
  quick: { all: 3, release: 1 },
  tiny: { all: 1, release: 1 },
};

await runMain(async () => {
  const own = { commands, heartbeat }[process.argv[2] ?? ""];
  if (own !== undefined) {
    await setUp({ addon: true });
    await own(process.argv.slice(3));
    return;
  }
  const options = readArguments();
  if (process.platform !== "linux") {
    throw new Explained(
      "The benchmark measures memory and compares with tools as only Linux has them. Run it there.",
    );
  }
  process.umask(0o022);
  await setUp({ addon: options.ours === undefined });

  const { scale, dir, disk, json } = options;
  const workloads = planWorkloads(scale);
  for (const parent of disk ? [dir, disk] : [dir]) await requireRoom(parent, workloads);
  const series = await measurePlace("memory", dir, workloads, options);
  if (disk) series.push(...(await measurePlace("disk", disk, workloads, options)));
  if (series.length === 0) throw new Explained("There is nothing to measure: no comparison is made there.");

  const titles = Object.fromEntries(Object.entries(workloads).map(([name, { title }]) => [name, title]));
  const machine = await describeMachine();
  const results = { machine, scale, workloads: titles, series, verdicts: judge(series) };
  printResults(results);
  await save(results, json);
  console.log(`\nThe figures are in ${path.relative(process.cwd(), json)}`);
});

/**
 * The parsed arguments.
 *
 * @typedef {object} Options
 * @property {import("./workloads.mjs").Scale} scale
 * @property {number} rounds
 * @property {number} releaseRounds
 * @property {string} dir
 * @property {string | undefined} disk
 * @property {string} json
 * @property {string | undefined} ours
 * @property {(operation: string, workload: string) => boolean} isChosen
 */

/** @returns {Options} */
function readArguments() {
  const explain = (/** @type {string} */ problem) =>
    new Explained(`${problem}\nSee the head of benches/run.mjs for what there is.`);
  // npm runs scripts in the repository, and has the caller's folder in INIT_CWD.
  const resolve = (/** @type {string} */ file) => path.resolve(process.env.INIT_CWD ?? ".", file);
  /** @type {any} */
  let values;
  try {
    ({ values } = util.parseArgs({
      options: {
        quick: { type: "boolean", default: false },
        tiny: { type: "boolean", default: false },
        only: { type: "string", multiple: true, default: [] },
        rounds: { type: "string" },
        dir: { type: "string", default: existsSync(IN_MEMORY) ? IN_MEMORY : os.tmpdir() },
        disk: { type: "string" },
        json: { type: "string", default: path.join(root, ".build", "bench.json") },
        ours: { type: "string" },
      },
    }));
  } catch (error) {
    throw error instanceof TypeError ? explain(error.message) : error;
  }
  const unknown = values.only.find(
    (/** @type {string} */ only) => !Object.hasOwn(OPERATIONS, only.split(":")[0]),
  );
  if (unknown) {
    throw explain(`There is no operation "${unknown}". There are: ${Object.keys(OPERATIONS).join(", ")}.`);
  }
  const scale = values.tiny ? "tiny" : values.quick ? "quick" : "full";
  const rounds = Number(values.rounds ?? ROUNDS[scale].all);
  if (!Number.isInteger(rounds) || rounds < 1) throw explain("The rounds are a whole number from 1.");
  return {
    scale,
    rounds,
    releaseRounds: ROUNDS[scale].release,
    dir: resolve(values.dir),
    disk: values.disk && resolve(values.disk),
    json: resolve(values.json),
    ours: values.ours && resolve(values.ours),
    isChosen: (/** @type {string} */ operation, /** @type {string} */ workload) =>
      values.only.length === 0 ||
      values.only.includes(operation) ||
      values.only.includes(`${operation}:${workload}`),
  };
}

/**
 * Measures everything that is chosen in one place, a workload at a time.
 *
 * @param {Series["place"]} place
 * @param {string} parent
 * @param {Record<string, Workload>} workloads
 * @param {Options} options
 */
async function measurePlace(place, parent, workloads, options) {
  /** @type {Series[]} */
  const series = [];
  await withFolder(parent, async (folder) => {
    for (const workload of ["src", "big", "mono"]) {
      const chosen = Object.keys(OPERATIONS).filter(
        (operation) => isMeasured(operation, workload, place) && options.isChosen(operation, workload),
      );
      if (chosen.length === 0) continue;
      /** @type {Map<string, Stand>} */
      const stands = new Map();
      for (const name of workload === "mono" && place === "memory" ? ["mono", "mono-tenth"] : [workload]) {
        const stand = new Stand(path.join(folder, name), workloads[name]);
        await stand.build();
        stands.set(name, stand);
      }
      for (const operation of chosen) {
        series.push(...(await measure({ ...options, operation, workload, place, stands })));
      }
      for (const stand of stands.values()) await remove(stand.folder);
    }
  });
  return series;
}

/**
 * Whether there is anything to compare with: on a disk, that is only the npm release.
 *
 * @param {string} operation
 * @param {string} workload
 * @param {Series["place"]} place
 */
function isMeasured(operation, workload, place) {
  const { toolTargets, releaseTargets = {} } = OPERATIONS[operation];
  return Object.hasOwn(place === "memory" ? toolTargets : releaseTargets, workload);
}

/**
 * Throws if the files would not fit.
 *
 * @param {string} parent
 * @param {Record<string, Workload>} workloads
 */
async function requireRoom(parent, workloads) {
  if (!existsSync(parent)) throw new Explained(`There is no folder ${parent}.`);
  const bytes = (/** @type {Workload} */ { files }) =>
    // A file takes whole pages.
    files.reduce((sum, { size }) => sum + Math.max(size, 4096), 0);
  const needed = ROOM * Math.max(...Object.values(workloads).map(bytes));
  const { bavail, bsize } = await statfs(parent);
  if (bavail * bsize >= needed) return;
  const gigabytes = (needed / 1e9).toFixed(1);
  throw new Explained(`${gigabytes} GB are needed in ${parent}. Name a folder with room by --dir or --disk.`);
}

/**
 * Makes a folder for `work`, and removes it in any case.
 *
 * @param {string} parent
 * @param {(folder: string) => Promise<void>} work
 */
async function withFolder(parent, work) {
  const folder = await mkdtemp(path.join(await realpath(parent), "sandbox-bench-"));
  const stop = () => void remove(folder).finally(() => process.exit(130));
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  try {
    await mkdir(path.join(folder, "tmp"));
    await work(folder);
  } finally {
    process.removeListener("SIGINT", stop);
    process.removeListener("SIGTERM", stop);
    await remove(folder);
  }
}

/**
 * Runs one operation on one workload with every contestant in turn.
 *
 * @param {Pick<Options, "rounds" | "releaseRounds" | "ours"> & { operation: string, workload: string,
 *   place: Series["place"], stands: Map<string, Stand> }} what
 * @returns {Promise<Series[]>}
 */
async function measure({ operation, workload, place, stands, rounds, releaseRounds, ours }) {
  const { keeps, states, releaseTargets = {} } = OPERATIONS[operation];
  /** @type {Series[]} */
  const series = [];
  const enter = (/** @type {Series["contestant"]} */ contestant, of = workload) =>
    series.push({ place, workload: of, operation, contestant, samples: [] });
  enter("ours");
  if (place === "memory") enter("tool");
  if (Object.hasOwn(releaseTargets, workload)) enter("release");
  if (stands.has(`${workload}-tenth`)) enter("ours", `${workload}-tenth`);

  for (const stand of stands.values()) await stand.provide(states);
  for (let round = 0; round < rounds; round += 1) {
    process.stderr.write(`> ${place} ${workload} ${operation}, round ${round + 1} of ${rounds}\n`);
    for (const { workload: of, contestant, samples } of series) {
      if (contestant === "release" && round >= releaseRounds) continue;
      const stand = /** @type {Stand} */ (stands.get(of));
      await stand.furnish(OPERATIONS[operation], contestant);
      const isFirst = round === 0;
      samples.push(await measureOne({ stand, contestant, operation, verify: isFirst, ours }));
      // A check may run the operation again.
      if (isFirst || !keeps) await stand.clear(contestant);
    }
  }
  for (const { workload: of, contestant } of series) await stands.get(of)?.clear(contestant);
  return series;
}

/**
 * @param {{ stand: Stand, contestant: string, operation: string, verify: boolean, ours?: string }} what
 * @returns {Promise<import("./one.mjs").Sample>}
 */
async function measureOne({ stand, contestant, operation, verify, ours }) {
  const { folder } = stand;
  const args = ["--expose-gc", ONE, contestant, operation, folder];
  if (verify) args.push("--verify");
  if (ours) args.push("--ours", ours);
  const env = {
    ...process.env,
    // Wherever the folder is, it is not in a git checkout.
    GIT_CEILING_DIRECTORIES: path.dirname(folder),
    NODE_OPTIONS: "",
    TMPDIR: path.join(path.dirname(folder), "tmp"),
  };
  try {
    const { stdout } = await promisify(execFile)(process.execPath, args, { env });
    return JSON.parse(stdout);
  } catch (error) {
    const { stderr } = /** @type {{ stderr?: string }} */ (error);
    if (stderr === undefined) throw error;
    throw new Explained(
      `${operation} on ${path.basename(folder)} by ${contestant} is not right:\n${stderr.trim()}`,
    );
  }
}

/**
 * Writes the figures, formatted like the repository's other files, so that they can be committed.
 *
 * @param {import("./results.mjs").Results} results
 * @param {string} file
 */
async function save(results, file) {
  // Imported late, because the dependencies may not be installed before.
  const { format, resolveConfig } = await import("prettier");
  const style = { ...(await resolveConfig(file)), parser: "json" };
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, await format(JSON.stringify(results), style));
}

/** The machine, as far as it matters for the figures. */
async function describeMachine() {
  const { stdout } = await promisify(execFile)("tar", ["--version"]);
  const tar = stdout.split("\n", 1)[0].replace("tar (GNU tar)", "GNU tar");
  const cores = os.availableParallelism();
  const hasShaInstructions = / (sha_ni|sha2) /.test(await readFile("/proc/cpuinfo", "utf8"));
  return [
    `${cores} ${cores === 1 ? "core" : "cores"} (${os.arch()}${hasShaInstructions ? ", with SHA instructions" : ""})`,
    `${Math.round(os.totalmem() / 2 ** 30)} GiB of memory`,
    `Linux ${os.release().split(".", 2).join(".")}`,
    `Node ${process.versions.node}`,
    tar,
  ].join(", ");
}
