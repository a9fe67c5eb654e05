// What a caller writes compiles, and infers what it should.

import {
  buildSandboxExecutionSessionIdentity,
  captureDirectorySnapshot,
  prepareSandboxManagedRuntime,
  withDirectoryMergeLock,
  type RestoreReport,
  type SandboxManagedRuntimeClient,
  type SandboxRemoteExecutionSpec,
} from "@paperclipai/sandbox-managed-runtime";
import { interchangeable } from "./interchangeable.js";

/** A client as a class, with private state, that answers a Buffer. */
class Client implements SandboxManagedRuntimeClient {
  readonly #files = new Map<string, Buffer>();
  async makeDir(): Promise<void> {}
  async writeFile(remotePath: string, bytes: ArrayBuffer): Promise<void> {
    this.#files.set(remotePath, Buffer.from(bytes));
  }
  async readFile(remotePath: string): Promise<Buffer> {
    return this.#files.get(remotePath) ?? Buffer.alloc(0);
  }
  async listFiles(): Promise<string[]> {
    return [...this.#files.keys()];
  }
  async remove(remotePath: string): Promise<void> {
    this.#files.delete(remotePath);
  }
  async run(command: string, options: { timeoutMs: number }): Promise<void> {
    await Promise.resolve([command, options.timeoutMs]);
  }
}

/** Clients may answer with any of the three kinds of bytes. */
export const answers = [
  async () => Buffer.alloc(1),
  async () => new Uint8Array(1),
  async () => new ArrayBuffer(1),
] satisfies SandboxManagedRuntimeClient["readFile"][];

export async function roundTrip(spec: SandboxRemoteExecutionSpec): Promise<RestoreReport[]> {
  const reports: RestoreReport[] = [];
  const prepared = await prepareSandboxManagedRuntime({
    spec,
    adapterKey: "claude_local",
    client: new Client(),
    workspaceLocalDir: ".",
    workspaceExclude: ["node_modules"],
    preserveAbsentOnRestore: [".env"],
    assets: [{ key: "skills", localDir: "skills", followSymlinks: true }],
    onProgress: (line) => void line.trimEnd(),
    onRuntimeProgress: async ({ phase, message }) => void `${phase}: ${message}`,
    lease: { refresh: async () => "extended", keepAliveBetween: true },
    signal: AbortSignal.timeout(60_000),
    concurrency: 4,
    onReport: (report) => void reports.push(report),
  });
  const { restoreWorkspace, assetDirs } = { ...prepared };
  await restoreWorkspace();
  await restoreWorkspace((line) => void line.trimEnd(), { signal: AbortSignal.timeout(60_000) });
  interchangeable<typeof assetDirs, Record<string, string>>();
  return reports;
}

export async function results(spec: SandboxRemoteExecutionSpec) {
  const locked = await withDirectoryMergeLock(".", async () => ({ answer: 42 }));
  interchangeable<typeof locked, { answer: number }>();

  const identity = buildSandboxExecutionSessionIdentity(spec);
  interchangeable<NonNullable<typeof identity>["transport"], "sandbox">();

  const { entries } = await captureDirectorySnapshot(".");
  for (const entry of entries.values()) {
    if (entry.kind === "file") interchangeable<typeof entry.mode, number>();
    if (entry.kind === "symlink") interchangeable<typeof entry.target, string>();
  }
}
