// Replaces the newest release's module of that name: the shim file that docs/adapter-utils.md shows.

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
} from "../../adapter-utils/index.js";
