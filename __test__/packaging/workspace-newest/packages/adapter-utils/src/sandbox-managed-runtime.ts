import { createAdapterUtils } from "@paperclipai/sandbox-managed-runtime/adapter-utils";
import * as git from "./git-workspace-sync.js";
import { resolvePaperclipInstanceRootForAdapter as resolveInstanceRoot } from "./server-utils.js";

export const { prepareSandboxManagedRuntime, resolveReferencedSourceIgnore } = createAdapterUtils({
  git,
  resolveInstanceRoot,
});
export {
  REFERENCED_SOURCE_IGNORE_FAILURE_REASONS,
  assertSyncOperationsConfined,
  buildSandboxExecutionSessionIdentity,
  createTarballFromDirectory,
  escapeTarExcludeLiteral,
  mergeExcludes,
  mirrorDirectory,
  parseSandboxRemoteExecutionSpec,
  referencedSourceIgnoreExcludeEntries,
  sandboxExecutionSessionMatches,
} from "@paperclipai/sandbox-managed-runtime/adapter-utils";
export type {
  AdditionalSourceStagingFailure,
  PreparedSandboxManagedRuntime,
  ReferencedSourceIgnoreResolution,
  SandboxAdditionalSource,
  SandboxManagedRuntimeAsset,
  SandboxManagedRuntimeAssetProvision,
  SandboxManagedRuntimeAssetProvisionContext,
  SandboxManagedRuntimeAssetRestoreContext,
  SandboxManagedRuntimeClient,
  SandboxPostUploadCommand,
  SandboxRemoteExecutionSpec,
  SandboxSyncFileMapping,
  SandboxSyncOperation,
  SandboxSyncResult,
  SandboxTransferProgressOptions,
  WorkspaceDurableSeedPaths,
  WorkspaceInboundMode,
} from "@paperclipai/sandbox-managed-runtime/adapter-utils";
