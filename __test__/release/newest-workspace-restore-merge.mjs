// Stands where the newest release's module of that name stands: the shim file that the README shows.

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
