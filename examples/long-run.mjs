// A run that takes hours: with a lease that keeps the sandbox alive, progress, a signal to stop it, and a report of what came
// back. The sandbox is a folder on this machine; every other client is used in the same way.

import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { prepareSandboxManagedRuntime } from "@paperclipai/sandbox-managed-runtime";
import { createLocalClient } from "@paperclipai/sandbox-managed-runtime/clients/local";

const temporary = await mkdtemp(path.join(os.tmpdir(), "long-run-"));
try {
  const workspace = path.join(temporary, "workspace");
  await mkdir(workspace);
  await writeFile(path.join(workspace, "plan.txt"), "plan\n");
  await writeFile(path.join(workspace, "data.bin"), Buffer.alloc(3 * 1024 * 1024));

  let refreshes = 0;
  const controller = new AbortController();
  const prepared = await prepareSandboxManagedRuntime({
    spec: {
      transport: "sandbox",
      provider: "local",
      sandboxId: "example",
      remoteCwd: path.join(temporary, "sandbox"),
      timeoutMs: 60_000,
      apiKey: null,
    },
    adapterKey: "example",
    client: createLocalClient(),
    workspaceLocalDir: workspace,
    lease: {
      // Ask the provider for another hour, for example.
      refresh: async () => void (refreshes += 1),
      intervalMs: 30_000,
      keepAliveBetween: true,
    },
    onProgress: (line) => void process.stdout.write(line),
    // Aborted by the user, or `AbortSignal.timeout(…)`.
    signal: controller.signal,
    onReport({ written, deleted, conflicts, phases }) {
      console.log("from the sandbox:", written.join(", "));
      console.log("deleted here:", deleted.join(", "));
      for (const { path: name, keptAt } of conflicts)
        console.log(`${name}: the version here is now ${keptAt}`);
      for (const { name, bytes, durationMs } of phases) {
        console.log(`${name}: ${durationMs.toFixed(0)} ms${bytes > 0 ? `, ${bytes} bytes` : ""}`);
      }
    },
  });

  // The agent works in the sandbox, and a user in the local workspace.
  await appendFile(path.join(prepared.workspaceRemoteDir, "plan.txt"), "the agent's step\n");
  await rm(path.join(prepared.workspaceRemoteDir, "data.bin"));
  await appendFile(path.join(workspace, "plan.txt"), "our own step\n");

  // If a restore was stopped, the workspace is as it was, and a later restore completes it.
  const stopped = new AbortController();
  const restoring = prepared.restoreWorkspace(undefined, { signal: stopped.signal });
  stopped.abort(new Error("not now"));
  await restoring.catch((reason) => console.log("stopped:", reason.message));
  console.log("still here:", JSON.stringify(await readFile(path.join(workspace, "plan.txt"), "utf8")));

  await prepared.restoreWorkspace();
  console.log("and now:", JSON.stringify(await readFile(path.join(workspace, "plan.txt"), "utf8")));
  console.log("the lease was refreshed:", refreshes > 0);
} finally {
  await rm(temporary, { recursive: true, force: true });
}
