// node terminated.mjs FOLDER ROUNDS: terminates worker threads that make every kind of call, at another moment each time,
// and prints "done" if this thread can still work afterwards.

import { once } from "node:events";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import * as addon from "../../index.js";

const [folder, rounds] = process.argv.slice(2);

for (let round = 0; round < Number(rounds); round++) {
  const workers = Array.from({ length: 2 }, () => {
    return new Worker(new URL("everything-worker.mjs", import.meta.url), { workerData: folder });
  });
  await Promise.all(workers.map((worker) => once(worker, "message")));
  await pause((round * 3) % 40);
  await Promise.all(workers.map((worker) => worker.terminate()));
}

await addon.createTarballFromDirectory({
  localDir: folder,
  archivePath: path.join(path.dirname(folder), "last.tar"),
});
await addon.mirrorDirectory(folder, path.join(path.dirname(folder), "last"));
console.log("done");
