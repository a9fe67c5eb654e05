// What the compiler refuses. Each line that is expected to fail fails this test once it compiles.

import {
  captureDirectorySnapshot,
  createTarballFromDirectory,
  directoryEntryMatchesBaseline,
  mergeDirectoryWithBaseline,
  mirrorDirectory,
  parseSandboxRemoteExecutionSpec,
  prepareSandboxManagedRuntime,
  withDirectoryMergeLock,
  type PrepareSandboxManagedRuntimeInput,
  type RestoreReport,
  type SandboxManagedRuntimeClient,
  type SandboxRemoteExecutionSpec,
  type SandboxRuntimeErrorCode,
} from "@paperclipai/sandbox-managed-runtime";

declare const spec: SandboxRemoteExecutionSpec;
declare const client: SandboxManagedRuntimeClient;
declare const input: PrepareSandboxManagedRuntimeInput;
declare const report: RestoreReport;

// @ts-expect-error the archive's path is missing
void createTarballFromDirectory({ localDir: "." });
// @ts-expect-error patterns come as a list
void createTarballFromDirectory({ localDir: ".", archivePath: "a.tar", exclude: "*.log" });
// @ts-expect-error no such option
void createTarballFromDirectory({ localDir: ".", archivePath: "a.tar", followLinks: true });

// @ts-expect-error the target is missing
void mirrorDirectory("source");
// @ts-expect-error a path, not a Buffer
void mirrorDirectory(Buffer.from("source"), "target");

// @ts-expect-error the client is missing
void prepareSandboxManagedRuntime({ spec, adapterKey: "key", workspaceLocalDir: "." });
// @ts-expect-error another transport
void prepareSandboxManagedRuntime({ ...input, spec: { ...spec, transport: "ssh" } });
// @ts-expect-error milliseconds are a number
void prepareSandboxManagedRuntime({ ...input, spec: { ...spec, timeoutMs: "30000" } });
// @ts-expect-error an asset needs its key
void prepareSandboxManagedRuntime({ ...input, assets: [{ localDir: "skills" }] });
// @ts-expect-error a lease refreshes
void prepareSandboxManagedRuntime({ ...input, lease: { intervalMs: 1000 } });
// @ts-expect-error a controller is not its signal
void prepareSandboxManagedRuntime({ ...input, signal: new AbortController() });
// @ts-expect-error a client without `run`
void prepareSandboxManagedRuntime({ ...input, client: { ...client, run: undefined } });
// @ts-expect-error a downloaded file is bytes, not text
void prepareSandboxManagedRuntime({ ...input, client: { ...client, readFile: async () => "text" } });
// @ts-expect-error `writeFile` gets an ArrayBuffer, so it may not ask for a Buffer
const writeFile: SandboxManagedRuntimeClient["writeFile"] = async (_path: string, _bytes: Buffer) => {};

// @ts-expect-error an object, not the list itself
void captureDirectorySnapshot(".", ["node_modules"]);
// @ts-expect-error the baseline is missing
void mergeDirectoryWithBaseline({ sourceDir: "a", targetDir: "b" });
// @ts-expect-error a file has a hash
void directoryEntryMatchesBaseline(".", "a", { kind: "file", mode: 0o100644 });
// @ts-expect-error no such kind
void directoryEntryMatchesBaseline(".", "a", { kind: "fifo" });
// @ts-expect-error what runs under the lock is asynchronous
void withDirectoryMergeLock(".", () => 1);

// @ts-expect-error the result may be null
parseSandboxRemoteExecutionSpec({}).sandboxId;
// @ts-expect-error no such code
const code: SandboxRuntimeErrorCode = "ERR_SANDBOX_UNKNOWN";
// @ts-expect-error conflicts say where the local version was kept
const conflicts: { path: string; mergedInto: string }[] = report.conflicts;

export { code, conflicts, writeFile };
