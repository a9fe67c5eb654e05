import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { createLocalClient } from "@paperclipai/sandbox-managed-runtime/clients/local";
import { afterEach, beforeEach, expect, it } from "vitest";
import {
  type SandboxManagedRuntimeClient,
  type SandboxRemoteExecutionSpec,
  createTarballFromDirectory,
  parseSandboxRemoteExecutionSpec,
  prepareSandboxManagedRuntime,
} from "./sandbox-managed-runtime.js";
import { type DirectorySnapshot, captureDirectorySnapshot } from "./workspace-restore-merge.js";

let folder: string;
let workspace: string;
let sandbox: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "round-trip-"));
  workspace = path.join(folder, "workspace");
  sandbox = path.join(folder, "sandbox");
  await mkdir(workspace);
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

it("brings an agent's work back and keeps what was edited here", async () => {
  await writeFile(path.join(workspace, "agents.txt"), "before\n");
  await writeFile(path.join(workspace, "ours.txt"), "before\n");
  const client: SandboxManagedRuntimeClient = createLocalClient({ root: folder });
  const spec: SandboxRemoteExecutionSpec | null = parseSandboxRemoteExecutionSpec({
    transport: "sandbox",
    provider: "local",
    sandboxId: "1",
    remoteCwd: sandbox,
    timeoutMs: 60_000,
  });
  if (!spec) throw new Error("the spec is not one");

  const prepared = await prepareSandboxManagedRuntime({
    spec,
    adapterKey: "test",
    client,
    workspaceLocalDir: workspace,
  });
  await writeFile(path.join(sandbox, "agents.txt"), "after\n");
  await writeFile(path.join(sandbox, "new.txt"), "new\n");
  await writeFile(path.join(workspace, "ours.txt"), "edited here\n");
  await prepared.restoreWorkspace();

  const read = (name: string) => readFile(path.join(workspace, name), "utf8");
  expect(await read("agents.txt")).toBe("after\n");
  expect(await read("new.txt")).toBe("new\n");
  expect(await read("ours.txt")).toBe("edited here\n");
});

it("archives a folder and takes a snapshot of it", async () => {
  await writeFile(path.join(workspace, "file.txt"), "content\n");
  const archivePath = path.join(folder, "archive.tar");
  await createTarballFromDirectory({ localDir: workspace, archivePath });
  expect((await readFile(archivePath)).includes("content\n")).toBe(true);

  const snapshot: DirectorySnapshot = await captureDirectorySnapshot(workspace);
  expect([...snapshot.entries.keys()]).toEqual(["file.txt"]);
});
