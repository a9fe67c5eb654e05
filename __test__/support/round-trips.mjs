// A worker thread that makes round trips of a workspace, and reports when it has finished.

import { parentPort, workerData } from "node:worker_threads";
import * as addon from "../../index.js";
import { MemorySandbox } from "./memory.mjs";
import { specFor } from "./spec.mjs";
import { makeArchive } from "./tar.mjs";

const { folder, rounds } = workerData;

for (let round = 0; round < rounds; round++) {
  const prepared = await addon.prepareSandboxManagedRuntime({
    spec: specFor("/remote"),
    adapterKey: "test",
    client: new MemorySandbox(makeArchive([{ name: "a.txt", content: `round ${round}` }])),
    workspaceLocalDir: folder,
  });
  await prepared.restoreWorkspace();
}
parentPort.postMessage(`${rounds} rounds`);
