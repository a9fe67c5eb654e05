// `npm run bench -- heartbeat`: what a first prepare and later heartbeats cost, beside rsync and unison.
//
//   npm run bench -- heartbeat --files 20000 --many 100000 --rounds 5
//   npm run bench -- heartbeat --tree DIR        only the first table, of a copy of that directory
//
// The sandbox is a directory on this machine with the machine's tools. Each client call takes as long as over a link of
// 100 Mbit/s and 5 ms, so that this package treats it as one; that wait is subtracted from the measured time (so what is
// packed meanwhile costs nothing). What a link would cost is computed: local time and time in the sandbox, calls × round
// trip, bytes ÷ rate. Both sides of rsync and unison run locally, through pipes; each is counted with three round trips. Unison has
// two directories of its own, and is left out where it is not installed.
//
// The second table is of `--many` files and a client that takes no time: what this package itself costs. Its last
// row is a bare walk that reads the status of each file, by one `find` for each processor.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFile, chmod, cp, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify, parseArgs } from "node:util";
import { specOf } from "./client.mjs";
import { median } from "./results.mjs";
import { quote, shell } from "./shell.mjs";
import { printMarkdown } from "./terminal.mjs";
import { planWorkloads, writeTree } from "./workloads.mjs";

/** @typedef {import("./workloads.mjs").Workload} Workload */

const execute = promisify(execFile);

/** Milliseconds that each call waits, and how many bytes travel in one of them. */
const WAIT_MS = 5;
const BYTES_PER_MS = 12_500;
/** How many round trips rsync and unison make. */
const TOOL_TRIPS = 3;
/** How many first uploads of each kind are made, each into another directory. */
const FIRST_ROUNDS = 3;
/** The first upload to a provider, and that of a new sandbox after another one has told that it has zstd. */
const FIRST = "first prepare";
const LATER_FIRST = "first prepare, zstd known";
/** How many files each side changes before a heartbeat. */
const CHANGED = 10;

/** How a directory is copied. */
const COPY = { recursive: true, verbatimSymlinks: true };

const LINKS = [
  { name: "10 Mbit/s, 50 ms", bytesPerMs: 1250, roundTripMs: 50 },
  { name: "100 Mbit/s, 20 ms", bytesPerMs: 12_500, roundTripMs: 20 },
  { name: "1,000 Mbit/s, 2 ms", bytesPerMs: 125_000, roundTripMs: 2 },
];

/**
 * What one prepare or restore has cost.
 *
 * @typedef {object} Cost
 * @property {number} hereMs
 * @property {number} thereMs In the sandbox's commands.
 * @property {number} calls
 * @property {number} bytes
 */

/** A sandbox on this machine that counts calls and bytes. */
class CountingClient {
  /** Whether calls take as long as over a link. */
  #onLink;
  calls = 0;
  bytes = 0;
  thereMs = 0;
  waitedMs = 0;

  constructor({ onLink = true } = {}) {
    this.#onLink = onLink;
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @param {number} [bytes] That are sent.
   */
  async #call(work, bytes = 0) {
    this.calls++;
    await this.#travel(WAIT_MS, bytes);
    return work();
  }

  /** Waits as long as these bytes take. */
  async #travel(/** @type {number} */ ms, /** @type {number} */ bytes) {
    this.bytes += bytes;
    if (!this.#onLink) return;
    const started = performance.now();
    await new Promise((resolve) => setTimeout(resolve, ms + bytes / BYTES_PER_MS));
    this.waitedMs += performance.now() - started;
  }

  /** @param {string} remotePath */
  makeDir(remotePath) {
    return this.#call(async () => void (await mkdir(remotePath, { recursive: true })));
  }

  /**
   * @param {string} remotePath
   * @param {ArrayBuffer} bytes
   */
  writeFile(remotePath, bytes) {
    return this.#call(() => writeFile(remotePath, Buffer.from(bytes)), bytes.byteLength);
  }

  /** @param {string} remotePath */
  readFile(remotePath) {
    return this.#call(async () => {
      const content = await readFile(remotePath);
      await this.#travel(0, content.byteLength);
      return content;
    });
  }

  async listFiles() {
    return [];
  }

  /** @param {string} remotePath */
  remove(remotePath) {
    return this.#call(() => rm(remotePath));
  }

  /** @param {string} command */
  run(command) {
    return this.#call(async () => {
      const started = performance.now();
      await execute("sh", ["-c", command], { maxBuffer: 1 << 26 });
      this.thereMs += performance.now() - started;
    }, command.length);
  }

  /**
   * @param {() => Promise<unknown>} work
   * @returns {Promise<Cost>}
   */
  async cost(work) {
    Object.assign(this, { calls: 0, bytes: 0, thereMs: 0, waitedMs: 0 });
    const started = performance.now();
    await work();
    const { calls, bytes, thereMs, waitedMs } = this;
    const hereMs = Math.max(0, performance.now() - started - thereMs - waitedMs);
    return { hereMs, thereMs, calls, bytes };
  }
}

/**
 * @param {string} root
 * @param {string} side
 * @param {number} round
 */
async function edit(root, side, round) {
  const listed = await shell(`cd ${quote(root)} && find . -type f ! -path './.paperclip-runtime/*' | sort`);
  const files = listed.trimEnd().split("\n");
  const first = createHash("sha256").update(`${side}${round}`).digest().readUInt32LE(0) % files.length;
  const step = Math.floor(files.length / CHANGED);
  for (let at = 0; at < CHANGED; at++) {
    await appendFile(path.join(root, files[(first + at * step) % files.length]), `// ${side} ${round}\n`);
  }
}

/**
 * Makes rsync copy one directory to another, through its protocol.
 *
 * @param {string} from
 * @param {string} to
 * @param {string} remoteShell
 * @returns {Promise<Cost>}
 */
async function rsync(from, to, remoteShell) {
  const started = performance.now();
  const said = await shell(
    `rsync -az --delete --stats --exclude=/.paperclip-runtime -e ${quote(remoteShell)} ${quote(`${from}/`)} there:${quote(to)}`,
  );
  const count = (/** @type {string} */ label) =>
    Number((new RegExp(`Total bytes ${label}: ([\\d,.]+)`).exec(said)?.[1] ?? "0").replace(/[,.]/g, ""));
  return {
    hereMs: performance.now() - started,
    thereMs: 0,
    calls: TOOL_TRIPS,
    bytes: count("sent") + count("received"),
  };
}

/**
 * Two directories that unison keeps the same, through its protocol.
 *
 * @param {string} dir Where its own files lie.
 * @param {string} here
 * @param {string} there
 * @returns {Promise<() => Promise<Cost>>} Synchronizes them.
 */
async function unison(dir, here, there) {
  await mkdir(dir);
  const [sent, received, connection] = ["sent", "received", "connection"].map((name) => path.join(dir, name));
  await writeFile(
    connection,
    `#!/bin/sh\ntee ${quote(sent)} | unison -server __new-rpc-mode | tee ${quote(received)}\n`,
  );
  await chmod(connection, 0o755);
  const options = "-ui text -batch -silent -times -fastcheck true -confirmbigdel=false";
  const command = `UNISON=${quote(dir)} unison ${quote(here)} ${quote(`ssh://there/${there}`)} -sshcmd ${quote(connection)} ${options}`;
  return async () => {
    const started = performance.now();
    await shell(command);
    const hereMs = performance.now() - started;
    const sizes = await Promise.all([sent, received].map(async (file) => (await stat(file)).size));
    return { hereMs, thereMs: 0, calls: TOOL_TRIPS, bytes: sizes[0] + sizes[1] };
  };
}

/**
 * Walks a directory and asks for the status of each file.
 *
 * @param {string} dir
 * @returns {Promise<number>} How many milliseconds that takes.
 */
async function bareWalk(dir) {
  const started = performance.now();
  await shell(
    `cd ${quote(dir)} && find . -mindepth 1 -maxdepth 1 -print0 | xargs -0 -n 16 -P ${os.availableParallelism()} sh -c 'exec find "$@" -size -1c' sh`,
  );
  return performance.now() - started;
}

/**
 * @param {Cost[]} costs
 * @returns {Cost}
 */
const medians = (costs) => ({
  hereMs: median(costs.map((cost) => cost.hereMs)),
  thereMs: median(costs.map((cost) => cost.thereMs)),
  calls: median(costs.map((cost) => cost.calls)),
  bytes: median(costs.map((cost) => cost.bytes)),
});

/** @typedef {typeof import("../index.js").prepareSandboxManagedRuntime} Prepare */

/**
 * What a sandbox in a directory needs for a prepare.
 *
 * @param {Prepare} prepare
 * @param {CountingClient} client
 * @param {string} workspace
 * @param {string} remote
 */
function preparing(prepare, client, workspace, remote) {
  const spec = specOf(remote);
  return () => prepare({ spec, client, adapterKey: "bench", workspaceLocalDir: workspace });
}

/** @param {number} value */
const inMs = (value) => `${Math.round(value)} ms`;

/** Measures and prints the tables. */
export async function heartbeat(/** @type {string[]} */ args) {
  const { values } = parseArgs({
    args,
    options: {
      files: { type: "string", default: "20000" },
      many: { type: "string", default: "100000" },
      rounds: { type: "string", default: "5" },
      tree: { type: "string" },
    },
  });
  const { prepareSandboxManagedRuntime } = await import("../index.js");
  const dir = await mkdtemp(path.join(os.tmpdir(), "heartbeat-"));
  process.env.PAPERCLIP_HOME = path.join(dir, "home");
  try {
    const { src, mono } = planWorkloads("full");
    const [files, many] = [
      src.files.slice(0, Number(values.files)),
      mono.files.slice(0, Number(values.many)),
    ];
    const rounds = Number(values.rounds);
    const { tree } = values;
    const fill = (/** @type {string} */ at) =>
      tree === undefined ? writeTree({ ...src, files }, at) : cp(tree, at, COPY);
    await onLinks(prepareSandboxManagedRuntime, path.join(dir, "links"), fill, rounds);
    if (tree !== undefined) return;
    console.log();
    await inMemory(prepareSandboxManagedRuntime, path.join(dir, "memory"), { ...mono, files: many }, rounds);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/**
 * @param {Prepare} prepareSandbox
 * @param {string} dir
 * @param {(at: string) => Promise<unknown>} fill Makes a workspace.
 * @param {number} rounds
 */
async function onLinks(prepareSandbox, dir, fill, rounds) {
  const [workspace, remote, copy, uHere, uThere] = [
    "here",
    "there",
    "rsync",
    "unison-here",
    "unison-there",
  ].map((name) => path.join(dir, name));
  await fill(workspace);
  const remoteShell = path.join(dir, "remote-shell");
  await writeFile(remoteShell, '#!/bin/sh\nshift\nexec sh -c "$*"\n');
  await chmod(remoteShell, 0o755);
  const client = new CountingClient();
  const prepare = preparing(prepareSandbox, client, workspace, remote);
  /** @type {Record<string, Cost[]>} */
  const costs = {};
  const note = (/** @type {string} */ name, /** @type {Cost} */ cost) => (costs[name] ??= []).push(cost);

  const noteFirst = async (/** @type {string} */ name, /** @type {string} */ once) =>
    note(name, await client.cost(preparing(prepareSandbox, client, workspace, once)));
  // Rows come in the order of their names here.
  Object.assign(costs, { [FIRST]: [], [LATER_FIRST]: [] });
  for (let round = 1; round < FIRST_ROUNDS; round++) {
    const [once, onceCopy] = [`${remote}-${round}`, `${copy}-${round}`];
    await noteFirst(FIRST, once);
    await mkdir(onceCopy);
    note("first prepare, rsync", await rsync(workspace, onceCopy, remoteShell));
    for (const made of [once, onceCopy]) await rm(made, { recursive: true });
  }
  let prepared = /** @type {Awaited<ReturnType<typeof prepare>> | undefined} */ (undefined);
  const first = await client.cost(async () => (prepared = await prepare()));
  note(FIRST, first);
  await mkdir(copy);
  note("first prepare, rsync", await rsync(workspace, copy, remoteShell));
  const hasUnison = await shell("command -v unison").catch(() => "");
  const syncing = hasUnison ? await unison(path.join(dir, "unison"), uHere, uThere) : undefined;
  if (syncing) {
    await shell(`cp -a ${quote(workspace)} ${quote(uHere)} && mkdir ${quote(uThere)}`);
    note("first prepare, unison", await syncing());
  }
  // The first heartbeat after the upload is not measured.
  await client.cost(async () => prepared?.restoreWorkspace());
  for (let round = 0; round < FIRST_ROUNDS; round++) {
    const once = `${remote}-later-${round}`;
    await noteFirst(LATER_FIRST, once);
    await rm(once, { recursive: true });
  }
  for (let round = 0; round < rounds; round++) {
    await edit(workspace, "here", round);
    note("prepare", await client.cost(async () => (prepared = await prepare())));
    note("prepare, rsync", await rsync(workspace, copy, remoteShell));
    if (syncing) {
      await edit(uHere, "here", round);
      note("prepare, unison", await syncing());
    }
    await edit(remote, "there", round);
    note("restore", await client.cost(async () => prepared?.restoreWorkspace()));
    // In the other direction rsync costs the same: a list of names, and the changes.
    await edit(copy, "there", round);
    note("restore, rsync", await rsync(copy, workspace, remoteShell));
    if (syncing) {
      await edit(uThere, "there", round);
      note("restore, unison", await syncing());
    }
    await rsync(remote, workspace, remoteShell);
  }

  const rows = Object.entries(costs).map(([name, all]) => {
    const cost = medians(all);
    const onLink = LINKS.map(({ bytesPerMs, roundTripMs }) => {
      const ms = cost.hereMs + cost.thereMs + cost.calls * roundTripMs + cost.bytes / bytesPerMs;
      return `${(ms / 1000).toFixed(2)} s`;
    });
    const ms = [cost.hereMs, cost.thereMs].map(inMs);
    return [name, ...ms, String(cost.calls), cost.bytes.toLocaleString("en"), ...onLink];
  });
  printMarkdown([["", "local", "sandbox", "calls", "bytes", ...LINKS.map(({ name }) => name)], ...rows]);
}

/**
 * @param {Prepare} prepareSandbox
 * @param {string} dir
 * @param {Workload} workload
 * @param {number} rounds
 */
async function inMemory(prepareSandbox, dir, workload, rounds) {
  const [workspace, remote] = ["here", "there"].map((name) => path.join(dir, name));
  await writeTree(workload, workspace);
  const client = new CountingClient({ onLink: false });
  const prepare = preparing(prepareSandbox, client, workspace, remote);
  /** @type {Record<string, Cost[]>} */
  const costs = {};
  const note = (/** @type {string} */ name, /** @type {Cost} */ cost) => (costs[name] ??= []).push(cost);
  /** @type {number[]} */
  const walks = [];

  let prepared = /** @type {Awaited<ReturnType<typeof prepare>> | undefined} */ (undefined);
  await client.cost(async () => (prepared = await prepare()));
  await client.cost(async () => prepared?.restoreWorkspace());
  for (let round = 0; round < rounds; round++) {
    await edit(workspace, "here", round);
    note("prepare", await client.cost(async () => (prepared = await prepare())));
    note("prepare, nothing changed", await client.cost(async () => (prepared = await prepare())));
    walks.push(await bareWalk(workspace));
    await edit(remote, "there", round);
    note("restore", await client.cost(async () => prepared?.restoreWorkspace()));
  }

  const rows = Object.entries(costs).map(([name, all]) => {
    const cost = medians(all);
    return [name, inMs(cost.hereMs), inMs(cost.thereMs), cost.bytes.toLocaleString("en")];
  });
  rows.push(["a bare walk with lstat", inMs(median(walks)), "", ""]);
  printMarkdown([
    [`${workload.files.length.toLocaleString("en")} files`, "local", "sandbox", "bytes"],
    ...rows,
  ]);
}
