// `npm run bench -- commands`: counts what a sandbox costs that can only be reached by running commands in it.
//
//   npm run bench -- commands --files 10200
//
// Counts, through Paperclip's own client for such sandboxes (adapter-utils 2026.707.0), the commands of a prepare and a
// restore and the bytes that they carry, for the release's module and for this package. The counts do not depend on
// the machine. Each command waits five milliseconds, as over a network, so that parts are compressed.

import { spawn } from "node:child_process";
import { appendFile, mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { specOf } from "./client.mjs";
import { printMarkdown } from "./terminal.mjs";
import { planWorkloads, writeTree } from "./workloads.mjs";

const WAIT_MS = 5;
/** How many files each side changes before a prepare or a restore. */
const CHANGED = 10;
/** How many bytes of base64 the client's earlier releases put on a command line: one more command for each. */
const EARLIER_WORD_BYTES = 32 * 1024;

/**
 * @typedef {object} Count
 * @property {number} commands
 * @property {number} words Bytes on their command lines.
 * @property {number} input Bytes on their standard inputs.
 * @property {number} output Bytes that they printed.
 */

/** Runs commands on this machine, and counts. */
class CountingRunner {
  /** @type {Count} */
  #count = { commands: 0, words: 0, input: 0, output: 0 };

  /** @param {{ command: string, args?: string[], cwd?: string, stdin?: string }} call */
  async execute({ command, args = [], cwd, stdin = "" }) {
    await pause(WAIT_MS);
    const child = spawn(command, args, { cwd, stdio: ["pipe", "pipe", "pipe"] });
    // A command that does not read its input may have ended already.
    child.stdin.on("error", () => {});
    child.stdin.end(stdin);
    const texts = { stdout: "", stderr: "" };
    for (const name of /** @type {const} */ (["stdout", "stderr"])) {
      child[name].setEncoding("utf8").on("data", (text) => (texts[name] += text));
    }
    /** @type {number | null} */
    const exitCode = await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    this.#count.commands += 1;
    this.#count.words += [command, ...args].reduce((sum, word) => sum + Buffer.byteLength(word), 0);
    this.#count.input += Buffer.byteLength(stdin);
    this.#count.output += Buffer.byteLength(texts.stdout);
    return {
      exitCode,
      signal: null,
      timedOut: false,
      ...texts,
      pid: null,
      startedAt: new Date().toISOString(),
    };
  }

  /**
   * What `work` has cost.
   *
   * @param {() => Promise<unknown>} work
   */
  async count(work) {
    const before = { ...this.#count };
    await work();
    const keys = /** @type {(keyof Count)[]} */ (Object.keys(before));
    return /** @type {Count} */ (
      Object.fromEntries(keys.map((key) => [key, this.#count[key] - before[key]]))
    );
  }
}

/**
 * @param {string} root
 * @param {{ name: string }[]} files
 * @param {number} round
 */
async function edit(root, files, round) {
  const step = Math.floor(files.length / CHANGED);
  for (let at = 0; at < CHANGED; at++) {
    const { name } = files[(round * 7 + at * step) % files.length] ?? { name: "" };
    await appendFile(path.join(root, name), `// ${round}\n`);
  }
}

/**
 * @param {string} dir
 * @param {typeof import("../index.js").prepareSandboxManagedRuntime} prepareSandboxManagedRuntime
 * @param {import("./workloads.mjs").Workload} workload
 */
async function measure(dir, prepareSandboxManagedRuntime, workload) {
  const { createCommandManagedRuntimeClient } =
    await import("@paperclipai/adapter-utils/command-managed-runtime");
  const [workspace, remote] = [path.join(dir, "here"), path.join(dir, "there")];
  await writeTree(workload, workspace);
  const runner = new CountingRunner();
  const client = createCommandManagedRuntimeClient({
    runner: /** @type {any} */ (runner),
    commandCwd: "/",
    timeoutMs: 600_000,
    shellCommand: "sh",
  });
  const spec = specOf(remote);
  const prepare = () =>
    prepareSandboxManagedRuntime({ spec, client, adapterKey: "bench", workspaceLocalDir: workspace });
  /** @type {Record<string, Count>} */
  const counts = {};
  let prepared = /** @type {Awaited<ReturnType<typeof prepare>> | undefined} */ (undefined);
  for (const [round, prefix] of ["first ", ""].entries()) {
    if (round > 0) await edit(workspace, workload.files, round);
    counts[`${prefix}prepare`] = await runner.count(async () => (prepared = await prepare()));
    await edit(remote, workload.files, round + 10);
    counts[`${prefix}restore`] = await runner.count(async () => prepared?.restoreWorkspace());
  }
  return counts;
}

/** Counts and prints the table. */
export async function commands(/** @type {string[]} */ args) {
  const { values } = parseArgs({ args, options: { files: { type: "string", default: "10200" } } });
  const { src } = planWorkloads("full");
  const workload = { ...src, files: src.files.slice(0, Number(values.files)) };
  const bytes = workload.files.reduce((sum, { size }) => sum + size, 0);
  const modules = {
    release: await import("@paperclipai/adapter-utils/sandbox-managed-runtime"),
    "this package": await import("../index.js"),
  };
  console.log(`${workload.files.length.toLocaleString("en")} text files, ${(bytes / 1e6).toFixed(1)} MB\n`);
  const header = [
    "",
    "module",
    "commands",
    "earlier clients",
    "bytes in arguments",
    "in inputs",
    "in outputs",
  ];
  /** @type {string[][]} */
  const rows = [];
  for (const [name, { prepareSandboxManagedRuntime }] of Object.entries(modules)) {
    const dir = await mkdtemp(path.join(os.tmpdir(), "commands-"));
    process.env.PAPERCLIP_HOME = path.join(dir, "home");
    try {
      const counts = await measure(dir, /** @type {any} */ (prepareSandboxManagedRuntime), workload);
      for (const [operation, { commands, words, input, output }] of Object.entries(counts)) {
        const earlier = commands + Math.ceil(input / EARLIER_WORD_BYTES);
        const figures = [commands, earlier, words, input, output].map((count) => count.toLocaleString("en"));
        rows.push([operation, name, ...figures]);
      }
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }
  printMarkdown([header, ...rows]);
}
