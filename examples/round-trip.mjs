// Uploads a workspace to a sandbox, where an agent works, and restores the result. The sandbox is a folder on this machine;
// every other client is used in the same way.

import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { prepareSandboxManagedRuntime } from "@paperclipai/sandbox-managed-runtime";
import { createLocalClient } from "@paperclipai/sandbox-managed-runtime/clients/local";

const temporary = await mkdtemp(path.join(os.tmpdir(), "round-trip-"));
try {
  const workspace = path.join(temporary, "workspace");
  const sandbox = path.join(temporary, "sandbox");
  await mkdir(workspace);
  await writeFile(path.join(workspace, "notes.txt"), "milk\n");

  const client = createLocalClient();
  const prepared = await prepareSandboxManagedRuntime({
    spec: {
      transport: "sandbox",
      provider: "local",
      sandboxId: "example",
      remoteCwd: sandbox,
      timeoutMs: 60_000,
      apiKey: null,
    },
    adapterKey: "example",
    client,
    workspaceLocalDir: workspace,
    onReport: (report) => console.log("from the sandbox:", report.written.join(", ")),
  });

  // The agent's work.
  await client.run(`echo bread >> ${prepared.workspaceRemoteDir}/notes.txt`, { timeoutMs: 60_000 });

  await prepared.restoreWorkspace();
  console.log(await readFile(path.join(workspace, "notes.txt"), "utf8"));
} finally {
  await rm(temporary, { recursive: true, force: true });
}
