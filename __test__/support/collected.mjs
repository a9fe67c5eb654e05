// node --expose-gc collected.mjs FOLDER WHAT: uses a client in a given way, drops all references, and prints
// "collected" once the client and its bytes were collected.

import { setTimeout as pause } from "node:timers/promises";
import * as addon from "../../index.js";
import { MemorySandbox } from "./memory.mjs";
import { specFor } from "./spec.mjs";
import { makeArchive } from "./tar.mjs";

const [folder, what] = process.argv.slice(2);
const gone = [];

async function use() {
  const client = new MemorySandbox(makeArchive([{ name: "a.txt", content: "a" }]), { marked: true });
  gone.push(new WeakRef(client));
  client.writeFile = (remotePath, bytes) => {
    gone.push(new WeakRef(bytes));
    void MemorySandbox.prototype.writeFile.call(client, remotePath, bytes);
    if (what === "failed") throw new Error("failed");
    return what === "aborted" ? new Promise(() => {}) : undefined;
  };
  const controller = new AbortController();
  const preparing = addon.prepareSandboxManagedRuntime({
    spec: specFor("/remote"),
    adapterKey: "test",
    client,
    workspaceLocalDir: folder,
    signal: controller.signal,
    lease: { refresh: async () => {}, intervalMs: 5, keepAliveBetween: what === "kept alive" },
  });
  if (what === "aborted") {
    while (gone.length < 2) await pause(1);
    controller.abort();
  }
  const prepared = await preparing.catch(() => undefined);
  if (what === "restored") await prepared.restoreWorkspace();
}

await use();
// The caller's time limit ends the process if this never happens.
while (gone.some((reference) => reference.deref() !== undefined)) {
  await pause(1);
  globalThis.gc();
}
if (gone.length === 2) console.log("collected");
