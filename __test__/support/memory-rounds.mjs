// node --expose-gc memory-rounds.mjs FOLDER ROUNDS: prepares and restores, and prints how much memory was in use after
// ROUNDS rounds to warm up, and after ROUNDS more.

import { setTimeout as pause } from "node:timers/promises";
import * as addon from "../../index.js";
import { MemorySandbox } from "./memory.mjs";
import { specFor } from "./spec.mjs";
import { makeArchive } from "./tar.mjs";

const [folder, rounds] = process.argv.slice(2);
const content = "x".repeat(2_000_000);
let archive = 0;

async function round(number) {
  const client = new MemorySandbox(makeArchive([{ name: "large.bin", content: `${content}${number}` }]), {
    marked: true,
  });
  client.writeFile = async (remotePath, bytes) => {
    archive = bytes.byteLength;
    await MemorySandbox.prototype.writeFile.call(client, remotePath, bytes);
  };
  const controller = new AbortController();
  if (number % 5 === 1) client.run = () => Promise.reject(new Error("failed"));
  if (number % 5 === 2) client.writeFile = () => new Promise(() => {});
  const preparing = addon.prepareSandboxManagedRuntime({
    spec: specFor("/remote"),
    adapterKey: "test",
    client,
    workspaceLocalDir: folder,
    signal: controller.signal,
    lease: { refresh: async () => {}, keepAliveBetween: number % 2 === 0 },
    onProgress: () => {},
  });
  if (number % 5 === 2) setImmediate(() => controller.abort());
  const prepared = await preparing.catch(() => undefined);
  if (number % 5 === 3) return;
  if (number % 5 === 4) client.readFile = () => Buffer.alloc(700_000);
  await prepared?.restoreWorkspace().catch(() => {});
}

/**
 * The memory of the process without the reserve of V8's heap: the smallest of several samples, because memory that other
 * threads are about to release is not a leak.
 */
async function memory() {
  let least = Infinity;
  for (let count = 0; count < 10; count++) {
    globalThis.gc();
    await pause(10);
    const { rss, heapTotal, heapUsed } = process.memoryUsage();
    least = Math.min(least, rss - heapTotal + heapUsed);
  }
  return least;
}

const through = async () => {
  for (let number = 0; number < Number(rounds); number++) await round(number);
  return memory();
};

const warm = await through();
const end = await through();
console.log(JSON.stringify({ warm, end, archive }));
