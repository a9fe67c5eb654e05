// Measures what a transfer by each ready-made client costs locally: memory, the longest stall of the event loop, and time.
//
//     node benches/clients.mjs [client…]
//
// Each client runs in its own process, and the stand-in for its sandbox in another one, so only the client and its SDK are
// measured. Beside the longest stall, the most processor time of one turn of the event loop is printed: a busy machine makes
// the stall longer, but hardly that. An idle process is measured too: what stalls it is the machine. Prints a table for
// docs/clients.md.

import { fork, execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker } from "node:worker_threads";

const BYTES = 327_000_000;
const MIB = 1024 * 1024;
const self = fileURLToPath(import.meta.url);

/**
 * A module of the clients' tests.
 *
 * @param {string} name
 */
const suite = (name) => import(`../__test__/clients/${name}`);

/**
 * For each client: `serve` starts its server in another process, `connect` makes the client from what `serve` returned, and
 * `file` is where it may write, if not in the folder.
 *
 * @type {Record<string, {
 *   serve: (folder: string) => Promise<{ told?: unknown, stop?: () => Promise<void> }>,
 *   connect: (told: any) => Promise<any>,
 *   file?: string,
 * }>}
 */
const CLIENTS = {
  local: {
    serve: async () => ({}),
    connect: async () => (await import("../clients/local.js")).createLocalClient(),
  },
  ssh: {
    serve: async (folder) => {
      const { startSshd } = await suite("sshd.mjs");
      const server = await startSshd(folder);
      return { told: server.options, stop: () => server.stop() };
    },
    connect: async (options) => (await import("../clients/ssh.js")).createSshClient(options),
  },
  docker: {
    serve: async (folder) => {
      const { containerEngine } = await suite("container-engine.mjs");
      const { program } = await containerEngine(folder);
      return { told: { container: "box", command: [program] } };
    },
    connect: async (options) => (await import("../clients/docker.js")).createDockerClient(options),
    // Its root is another folder.
    file: "/work/file",
  },
  e2b: {
    serve: async () => {
      const { startE2bServer } = await suite("e2b-server.mjs");
      const { sandboxId, connection, stop } = await startE2bServer();
      return { told: { sandboxId, connection }, stop };
    },
    connect: async ({ sandboxId, connection }) => {
      const { Sandbox } = await import("e2b");
      const { createE2bClient } = await import("../clients/e2b.js");
      return createE2bClient(await Sandbox.connect(sandboxId, connection));
    },
  },
  daytona: {
    serve: async () => {
      const { startDaytonaServer } = await suite("daytona-server.mjs");
      const { sandboxId, port, stop } = await startDaytonaServer();
      return { told: { sandboxId, port }, stop };
    },
    connect: async ({ sandboxId, port }) => {
      const { Daytona } = await import("@daytonaio/sdk");
      const { createDaytonaClient } = await import("../clients/daytona.js");
      const apiUrl = `http://127.0.0.1:${port}/api`;
      const daytona = new Daytona({ apiUrl, apiKey: "key", target: "us", useDeprecatedPolling: true });
      return createDaytonaClient(await daytona.get(sandboxId));
    },
  },
  "cloudflare (bridge)": {
    serve: async (folder) => {
      const { startBridge } = await suite("bridge-server.mjs");
      const { options, stop } = await startBridge(folder);
      return { told: options, stop };
    },
    connect: async (options) =>
      (await import("../clients/cloudflare.js")).createCloudflareBridgeClient(options),
  },
  "cloudflare (object)": {
    serve: async () => ({}),
    connect: async () => {
      const sandbox = await remoteObject();
      return (await import("../clients/cloudflare.js")).createCloudflareClient(sandbox);
    },
  },
};

/**
 * A stand-in for Cloudflare's object in another thread. As with the real RPC, every call and its answer is a message, which
 * this thread writes or reads.
 */
async function remoteObject() {
  const worker = new Worker(self, { argv: ["object"] });
  await once(worker, "message");
  /** @type {Map<number, { resolve: (value: unknown) => void, reject: (reason: unknown) => void }>} */
  const calls = new Map();
  worker.on("message", ({ id, value, reason }) => {
    const { resolve, reject } = calls.get(id) ?? {};
    calls.delete(id);
    if (reason === undefined) resolve?.(value);
    else reject?.(reason);
  });
  let last = 0;
  /** @param {string} method */
  const called =
    (method) =>
    (/** @type {unknown[]} */ ...args) =>
      new Promise((resolve, reject) => {
        last += 1;
        calls.set(last, { resolve, reject });
        worker.postMessage({ id: last, method, args });
      });
  const methods = ["exec", "writeFile", "readFile", "mkdir", "exists", "listFiles", "renewActivityTimeout"];
  return /** @type {any} */ (Object.fromEntries(methods.map((method) => [method, called(method)])));
}

/** Serves {@link remoteObject} in a thread of its own. */
async function serveObject() {
  const { cloudflareSandbox } = await suite("cloudflare-sandbox.mjs");
  const sandbox = cloudflareSandbox();
  parentPort?.on("message", async ({ id, method, args }) => {
    const answer = await sandbox[method](...args).then(
      (/** @type {unknown} */ value) => ({ id, value }),
      (/** @type {unknown} */ reason) => ({ id, reason }),
    );
    parentPort?.postMessage(answer);
  });
  parentPort?.postMessage("ready");
}

/** @param {string} name */
function sideOf(name) {
  const side = CLIENTS[name];
  if (side === undefined) throw new Error(`there is no client ${name}: ${Object.keys(CLIENTS).join(", ")}`);
  return side;
}

/** This process's own memory in bytes, without mapped files. */
async function memory() {
  const status = await readFile("/proc/self/status", "latin1");
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

/** The processor time of this thread, in milliseconds. */
function processorTime() {
  return Number(readFileSync("/proc/thread-self/schedstat", "latin1").split(" ")[0]) / 1e6;
}

/**
 * Measures the most processor time that one turn of the event loop takes, in milliseconds. The returned function ends the
 * measurement and returns it.
 */
function watchedTurns() {
  let most = 0;
  let last = processorTime();
  const look = () => {
    const now = processorTime();
    most = Math.max(most, now - last);
    last = now;
    timer = setTimeout(look, 1);
  };
  let timer = setTimeout(look, 1);
  return () => {
    look();
    clearTimeout(timer);
    return most;
  };
}

/**
 * What `work` costs, above the idle process and `own` bytes that it passes or returns.
 *
 * @param {number} own
 * @param {() => Promise<unknown>} work
 */
async function measured(own, work) {
  globalThis.gc?.();
  const idle = await memory();
  let highest = idle;
  const looking = setInterval(() => void memory().then((now) => (highest = Math.max(highest, now))), 10);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const turns = watchedTurns();
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  const worked = turns();
  highest = Math.max(highest, await memory());
  delay.disable();
  clearInterval(looking);
  return { mib: Math.max(0, highest - idle - own) / MIB, stall: delay.max / 1e6, worked, seconds };
}

/**
 * @param {string} name
 * @param {string} folder
 */
async function serve(name, folder) {
  const { told = {}, stop } = await sideOf(name).serve(folder);
  process.send?.(told);
  await once(process, "message");
  await stop?.();
  process.disconnect();
}

/**
 * @param {string} name
 * @param {string} folder
 * @param {unknown} told
 */
async function measure(name, folder, told) {
  const client = await sideOf(name).connect(told);
  const file = sideOf(name).file ?? path.join(folder, "file");
  const words = Uint32Array.from({ length: BYTES / 4 }, (_, index) => index * 2_654_435_761);
  // The code is loaded and the connection opened before the measurement.
  await client.writeFile(file, words.buffer.slice(0, MIB));
  await client.readFile(file);
  const up = await measured(0, () => client.writeFile(file, words.buffer));
  let answer = Buffer.alloc(0);
  const down = await measured(BYTES, async () => (answer = await client.readFile(file)));
  if (!Buffer.from(words.buffer).equals(answer)) throw new Error(`${name} gave other bytes back`);
  await client.remove(file);
  await client.close?.();
  process.send?.({ up, down });
  // The stand-in for Cloudflare's object keeps a shell running.
  process.disconnect();
  process.exit();
}

/** @param {string[]} args */
async function started(...args) {
  const child = fork(self, args, { execArgv: ["--expose-gc"] });
  const [answer] = await Promise.race([
    once(child, "message"),
    once(child, "exit").then(([code]) => Promise.reject(new Error(`${args[1]} ended with ${code}`))),
  ]);
  return { child, answer };
}

/** @param {string[]} names */
async function main(names) {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  /** @param {{ mib: number, stall: number, worked: number, seconds: number }} cost */
  const cell = ({ mib, stall, worked, seconds }) =>
    `${Math.round(mib)} MiB | ${Math.round(stall)} ms (${Math.round(worked)}) | ${seconds.toFixed(1)} s`;
  console.log(
    `${BYTES / 1e6} MB, commit ${commit}, Node ${process.version}, ${os.availableParallelism()} CPUs\n`,
  );
  console.log(
    "| client | up: memory | stall (worked) | time | down: memory | stall (worked) | time | an idle process |",
  );
  console.log("| --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const name of names) {
    const folder = await mkdtemp(path.join(os.tmpdir(), "bench-clients-"));
    try {
      const server = await started("serve", name, folder);
      const idle = monitorEventLoopDelay({ resolution: 1 });
      idle.enable();
      const { answer } = await started("measure", name, folder, JSON.stringify(server.answer));
      idle.disable();
      server.child.send("enough");
      await once(server.child, "exit");
      console.log(
        `| ${name} | ${cell(answer.up)} | ${cell(answer.down)} | ${Math.round(idle.max / 1e6)} ms |`,
      );
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}

const [role, name = "", folder = "", told = "{}"] = process.argv.slice(2);
if (!isMainThread) await serveObject();
else if (process.send && role === "serve") await serve(name, folder);
else if (process.send && role === "measure") await measure(name, folder, JSON.parse(told));
else await main(process.argv.length > 2 ? process.argv.slice(2) : Object.keys(CLIENTS));
