// node --expose-gc upload-given-back.mjs FOLDER: changes the folder's `large.bin` after the size of the upload was
// computed and before it is packed, so that its memory does not fit. During the upload, prints how much memory was
// allocated, and how much of the first was collected.

import { writeFileSync } from "node:fs";
import path from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { MemorySandbox } from "./memory.mjs";
import { specFor } from "./spec.mjs";

const [folder] = process.argv.slice(2);
const made = [];
const Original = globalThis.ArrayBuffer;
let watching = false;
globalThis.ArrayBuffer = class extends Original {
  constructor(...args) {
    super(...args);
    if (!watching) return;
    if (made.length === 0) writeFileSync(path.join(folder, "large.bin"), "");
    made.push(new WeakRef(this));
  }
};
const addon = await import("../../index.js");
const client = new MemorySandbox();
client.writeFile = async () => {
  watching = false;
  // The caller's time limit ends the process if this never happens.
  while (made[0].deref() !== undefined) {
    await turn();
    globalThis.gc();
  }
  console.log(`${made.length} made, the first collected`);
};
watching = true;
await addon.prepareSandboxManagedRuntime({
  spec: specFor("/remote"),
  adapterKey: "test",
  client,
  workspaceLocalDir: folder,
});
