export {
  captureDirectorySnapshot,
  directoryEntryMatchesBaseline,
  mergeDirectoryWithBaseline,
  withDirectoryMergeLock,
} from "@paperclipai/sandbox-managed-runtime";
export type { DirectorySnapshot } from "@paperclipai/sandbox-managed-runtime";
