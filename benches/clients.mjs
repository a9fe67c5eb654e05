// Measures what a transfer by each ready-made client costs locally: memory, the longest stall of the event loop, and time.
//
//     node benches/clients.mjs [client…]
//
// Each client runs in a process of its own, and what stands for its sandbox in another one of the lowest priority, so that
// only the client and its SDK are measured. A stall is the longest that one turn of the event loop took. It is told without
// the time in which its thread was ready and had no processor, and in brackets with it. An idle process is watched meanwhile:
// what stalls it is the machine. Prints a table for docs/clients.md.

import { fork, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { closeSync, openSync, readSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { forgetGarbage } from "./probe.mjs";

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
  // Of this thread alone.
  os.setPriority(19);
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

/**
 * Watches the turns of the event loop. The function that it gives ends that, and tells of the longest one in milliseconds:
 * `stall` with and `own` without the time in which this thread waited for a processor.
 */
function watchedLoop() {
  // Nanoseconds that this thread ran and that it waited for a processor, and how often.
  const schedule = openSync("/proc/thread-self/schedstat", "r");
  const text = Buffer.alloc(100);
  const now = () => ({
    ...performance.eventLoopUtilization(),
    waited:
      Number(text.toString("latin1", 0, readSync(schedule, text, 0, text.length, 0)).split(" ")[1]) / 1e6,
  });
  const longest = { stall: 0, own: 0 };
  let last = now();
  const looking = setInterval(() => {
    const next = now();
    const stall = next.active - last.active;
    // A thread that is to be woken may wait as well, and is idle meanwhile.
    const waited = Math.max(0, next.waited - last.waited - (next.idle - last.idle));
    longest.stall = Math.max(longest.stall, stall);
    longest.own = Math.max(longest.own, stall - waited);
    last = next;
  }, 1);
  return () => {
    clearInterval(looking);
    closeSync(schedule);
    return longest;
  };
}

/**
 * What `work` costs, above the idle process and `own` bytes that it passes or returns.
 *
 * @param {number} own
 * @param {() => Promise<unknown>} work
 */
async function measured(own, work) {
  forgetGarbage();
  // Its memory is freed by another thread.
  await sleep(500);
  const idle = await memory();
  let highest = idle;
  const looking = setInterval(() => void memory().then((now) => (highest = Math.max(highest, now))), 10);
  const loop = watchedLoop();
  // A stall shows between two looks, so there is one before the work and one after it.
  await sleep(20);
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  await sleep(20);
  highest = Math.max(highest, await memory());
  clearInterval(looking);
  return { mib: Math.max(0, highest - idle - own) / MIB, ...loop(), seconds };
}

/**
 * @param {string} name
 * @param {string} folder
 */
async function serve(name, folder) {
  // It has what the client leaves of the processors.
  os.setPriority(19);
  const { told = {}, stop } = await sideOf(name).serve(folder);
  process.send?.(told);
  await once(process, "message");
  await stop?.();
  process.disconnect();
}

/** @param {Uint8Array} bytes */
function digest(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * @param {string} name
 * @param {string} folder
 * @param {unknown} told
 */
async function measure(name, folder, told) {
  const client = await sideOf(name).connect(told);
  const file = sideOf(name).file ?? path.join(folder, "file");
  /** @type {ArrayBuffer | undefined} */
  let bytes = Uint32Array.from({ length: BYTES / 4 }, (_, index) => index * 2_654_435_761).buffer;
  const expected = digest(new Uint8Array(bytes));
  // The code is loaded and the connection made before anything is measured.
  await client.writeFile(file, bytes.slice(0, MIB));
  await client.readFile(file);
  const up = await measured(0, () => client.writeFile(file, bytes));
  // Who downloads a file does not hold it already: the more memory a process has, the longer it takes to start another.
  bytes = undefined;
  let answer = Buffer.alloc(0);
  const down = await measured(BYTES, async () => (answer = await client.readFile(file)));
  if (digest(answer) !== expected) throw new Error(`${name} gave other bytes back`);
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
  /** @param {{ mib: number, stall: number, own: number, seconds: number }} cost */
  const cell = ({ mib, stall, own, seconds }) =>
    `${Math.round(mib)} MiB | ${Math.round(own)} ms (${Math.round(stall)}) | ${seconds.toFixed(1)} s`;
  console.log(
    `${BYTES / 1e6} MB, commit ${commit}, Node ${process.version}, ${os.availableParallelism()} CPUs\n`,
  );
  console.log(
    "| client | up: memory | stall (with waiting) | time | down: memory | stall (with waiting) | time | an idle process |",
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
