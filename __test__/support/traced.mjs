// node traced.mjs FOLDER: one prepare and one restore through a client with failing calls, for the output of NODE_DEBUG.

import * as addon from "../../index.js";
import { MemorySandbox } from "./memory.mjs";
import { specFor } from "./spec.mjs";
import { makeArchive } from "./tar.mjs";

const client = new MemorySandbox(makeArchive([{ name: "a.txt", content: "SECRET-DOWN" }]), { marked: true });
const prepared = await addon.prepareSandboxManagedRuntime({
  spec: specFor("/remote"),
  adapterKey: "test",
  client,
  workspaceLocalDir: process.argv[2],
});
await prepared.restoreWorkspace();
client.run = async () => {
  throw new Error("SECRET-FAILURE");
};
await prepared.restoreWorkspace().catch(() => undefined);
