// node terminated-holder.mjs FOLDER: terminates a worker thread that holds the merge lock, and prints "free" once this
// thread has it.

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { withDirectoryMergeLock } from "../../index.js";

const [folder] = process.argv.slice(2);
const index = new URL("../../index.js", import.meta.url).pathname;

const holder = new Worker(
  `const { parentPort, workerData } = require("node:worker_threads");
   const { withDirectoryMergeLock } = require(workerData.index);
   withDirectoryMergeLock(workerData.folder, () => {
     parentPort.postMessage("held");
     return new Promise((resolve) => setInterval(() => {}, 1000));
   });`,
  { eval: true, workerData: { folder, index } },
);
await once(holder, "message");
await holder.terminate();
await withDirectoryMergeLock(folder, async () => console.log("free"));
