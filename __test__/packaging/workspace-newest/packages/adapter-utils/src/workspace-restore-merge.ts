export {
  WORKSPACE_RESTORE_LOCK_TIMEOUT_CODE,
  captureDirectorySnapshot,
  classifyWorkspaceRestoreFailure,
  describeWorkspaceRestoreFailure,
  directoryEntryMatchesBaseline,
  directorySnapshotSha256,
  mergeDirectoryWithBaseline,
  parseDirectorySnapshot,
  serializeDirectorySnapshot,
  withDirectoryMergeLock,
} from "@paperclipai/sandbox-managed-runtime/adapter-utils";
export type {
  DirectorySnapshot,
  SerializedDirectorySnapshot,
  SnapshotEntry,
  WorkspaceRestoreFailureCode,
  WorkspaceRestoreOutcome,
} from "@paperclipai/sandbox-managed-runtime/adapter-utils";
