// node --expose-gc collecting.mjs FOLDER ROUNDS: collects garbage in every client call and between, and prints "intact"
// where all bytes that went either way were the right ones.

import assert from "node:assert";
import { readFile } from "node:fs/promises";
import path from "node:path";
import * as addon from "../../index.js";
import { specFor } from "./spec.mjs";
import { markOf } from "./memory.mjs";
import { makeArchive, readArchive } from "./tar.mjs";

const [folder, rounds] = process.argv.slice(2);
const { gc } = globalThis;

/** Memory that is given back is handed out again at once. */
function churn() {
  gc();
  for (let count = 0; count < 20; count++) new Uint8Array(100_000).fill(255);
}

for (let round = 0; round < Number(rounds); round++) {
  const content = `${round}`.repeat(300_000);
  let mark;
  const client = {
    makeDir: churn,
    async writeFile(_, bytes) {
      churn();
      await new Promise(setImmediate);
      churn();
      const large = readArchive(Buffer.from(bytes)).entries.find(({ name }) => name === "large.bin");
      mark = markOf(bytes);
      assert(large.content.equals(await readFile(path.join(folder, "large.bin"))));
    },
    async run() {
      churn();
      await new Promise(setImmediate);
      churn();
    },
    // Only the binding has these bytes once they are returned.
    readFile: async () => Buffer.concat([mark, makeArchive([{ name: "large.bin", content }])]),
    remove: churn,
  };
  const prepared = await addon.prepareSandboxManagedRuntime({
    spec: specFor("/remote"),
    adapterKey: "test",
    client,
    workspaceLocalDir: folder,
    // The client looks into the archive, and is as slow as one behind a network.
    compression: "none",
  });
  const collecting = setInterval(churn, 1);
  await prepared.restoreWorkspace();
  clearInterval(collecting);
  assert.strictEqual(await readFile(path.join(folder, "large.bin"), "utf8"), content);
}
console.log("intact");
