export {
  buildSandboxExecutionSessionIdentity,
  createTarballFromDirectory,
  mirrorDirectory,
  parseSandboxRemoteExecutionSpec,
  prepareSandboxManagedRuntime,
  sandboxExecutionSessionMatches,
} from "@paperclipai/sandbox-managed-runtime";
export type {
  PreparedSandboxManagedRuntime,
  SandboxManagedRuntimeAsset,
  SandboxManagedRuntimeClient,
  SandboxRemoteExecutionSpec,
} from "@paperclipai/sandbox-managed-runtime";
