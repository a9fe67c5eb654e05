import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { createLocalClient } from "@paperclipai/sandbox-managed-runtime/clients/local";
import { expect, it } from "vitest";
import { prepareSandboxManagedRuntime } from "./sandbox-managed-runtime.js";
import { withDirectoryMergeLock } from "./workspace-restore-merge.js";

it("brings an agent's commits back", async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), "history-"));
  const [workspace, sandbox] = [path.join(folder, "workspace"), path.join(folder, "sandbox")];
  const git = (cwd: string, ...args: string[]) => {
    const identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
    return execFileSync("git", [...identity, ...args], { cwd, encoding: "utf8" });
  };
  await mkdir(workspace);
  await writeFile(path.join(workspace, "file.txt"), "before\n");
  git(workspace, "init", "-q");
  git(workspace, "add", "-A");
  git(workspace, "commit", "-qm", "base");

  const prepared = await prepareSandboxManagedRuntime({
    spec: {
      transport: "sandbox",
      provider: "local",
      sandboxId: "1",
      remoteCwd: sandbox,
      timeoutMs: 60_000,
      apiKey: null,
    },
    adapterKey: "test",
    client: createLocalClient({ root: folder }),
    workspaceLocalDir: workspace,
  });
  await writeFile(path.join(sandbox, "file.txt"), "after\n");
  git(sandbox, "commit", "-qam", "an agent's");
  await prepared.restoreWorkspace();
  expect(await readFile(path.join(workspace, "file.txt"), "utf8")).toBe("after\n");
  expect(git(workspace, "log", "--format=%s")).toBe("an agent's\nbase\n");
  expect(git(workspace, "status", "--short", "--", "file.txt")).toBe("");

  const lock = path.join(folder, "home/instances/test/locks/directory-merge");
  const env = { PAPERCLIP_HOME: path.join(folder, "home"), PAPERCLIP_INSTANCE_ID: "test" };
  const at = await withDirectoryMergeLock(workspace, async (canonical) => `${canonical} ${lock}`, env);
  expect(at.endsWith(lock)).toBe(true);
  await rm(folder, { recursive: true });
});
