/**
 * What other modules import from `sandbox-managed-runtime` and `workspace-restore-merge` of
 * `@paperclipai/adapter-utils@2026.916.1`, with the same names and types.
 */

import type {
  DirectorySnapshot,
  RuntimeProgressSink,
  RuntimeStatusPhase,
  RuntimeStatusSink,
  SandboxManagedRuntimeAsset as MainAsset,
  SandboxRemoteExecutionSpec,
  SnapshotEntry,
} from "../index.js";

export type {
  DirectorySnapshot,
  RuntimeProgressSink,
  RuntimeStatusPhase,
  RuntimeStatusSink,
  SandboxRemoteExecutionSpec,
  SnapshotEntry,
};
export {
  buildSandboxExecutionSessionIdentity,
  directoryEntryMatchesBaseline,
  parseSandboxRemoteExecutionSpec,
  sandboxExecutionSessionMatches,
} from "../index.js";

/** Packs a directory into a tar archive, which appears only when complete. */
export declare function createTarballFromDirectory(input: {
  localDir: string;
  archivePath: string;
  exclude?: string[];
  followSymlinks?: boolean;
}): Promise<void>;

/** Makes a directory the same as another; what `preserveAbsent` names stays. */
export declare function mirrorDirectory(
  sourceDir: string,
  targetDir: string,
  options?: { preserveAbsent?: string[] },
): Promise<void>;

/** Where an asset's archive and helper files are in the sandbox. */
export interface SandboxManagedRuntimeAssetProvisionContext {
  assetTarPath: string;
  assetDir: string;
  runtimeRootDir: string;
}

/** How an asset is installed, where extracting it is not enough. */
export interface SandboxManagedRuntimeAssetProvision {
  /** Further files, written to the run's directory before the command. Each `name` is one name. */
  stageFiles?: { name: string; contents: Buffer | string }[];
  /** The command that runs instead of the extraction. */
  postUploadCommand?: (ctx: SandboxManagedRuntimeAssetProvisionContext) => string;
}

/** What an asset's `restore` works with. */
export interface SandboxManagedRuntimeAssetRestoreContext {
  assetDir: string;
  readFile: (remotePath: string) => Promise<Buffer>;
  /** A temporary directory of this restore, removed afterwards. */
  tempDir?: string;
}

/** A local directory that the agent needs beside its workspace. */
export interface SandboxManagedRuntimeAsset extends Pick<
  MainAsset,
  "key" | "localDir" | "followSymlinks" | "exclude"
> {
  provision?: SandboxManagedRuntimeAssetProvision;
  /** Called once with each restore. */
  restore?: (ctx: SandboxManagedRuntimeAssetRestoreContext) => Promise<void>;
}

/** What git ignores in a project. If that is unknown (`failed`), the project is not uploaded. */
export type ReferencedSourceIgnoreResolution =
  { kind: "git"; ignoredPaths: string[] } | { kind: "other" } | { kind: "failed"; reason: string };

/** Why it could not be found out what git ignores. No other text is ever reported. */
export declare const REFERENCED_SOURCE_IGNORE_FAILURE_REASONS: {
  readonly scanFailed: "git-ignore-scan-failed";
  readonly limitExceeded: "git-ignore-scan-limit-exceeded";
  readonly toplevelNotDescendant: "git-toplevel-not-descendant";
};

/** A further project that the agent may read. */
export interface SandboxAdditionalSource {
  localPath: string;
  projectId: string;
  ignoreResolution: ReferencedSourceIgnoreResolution;
}

/** A path as a pattern of tar that matches just it. */
export declare function escapeTarExcludeLiteral(entry: string): string;
/** The patterns that a project's ignored paths come to. */
export declare function referencedSourceIgnoreExcludeEntries(
  resolution: ReferencedSourceIgnoreResolution,
): string[];
/** Finds out what git ignores of a project. It never rejects; three attempts where too many such scans are under way. */
export declare function resolveReferencedSourceIgnore(
  localPath: string,
): Promise<ReferencedSourceIgnoreResolution>;

/** Options of `writeFile` and `readFile`, where there is a progress listener. */
export interface SandboxTransferProgressOptions {
  onProgress?: (transferredBytes: number, totalBytes: number | null) => void | Promise<void>;
}

/** A file or directory to transfer, and where to. */
export interface SandboxSyncFileMapping {
  sourcePath: string;
  targetPath: string;
  kind: "file" | "directory";
  mode?: number;
  exclude?: string[];
  followSymlinks?: boolean;
  /** Whether the agent may write there. */
  access?: "rw" | "ro";
  /** What becomes writable, where that is not the directory of `targetPath`. */
  writablePath?: string;
}

/** A command that runs once the files of an operation are there. */
export interface SandboxPostUploadCommand {
  command: string;
  cwd?: string;
  timeoutMs?: number;
}

/** One transfer with what belongs to it. */
export interface SandboxSyncOperation {
  operationId: string;
  files: SandboxSyncFileMapping[];
  postUploadCommands?: SandboxPostUploadCommand[];
}

/** The outcome of operations. */
export interface SandboxSyncResult {
  operations: { operationId: string; filesTransferred: number; bytesTransferred: number }[];
}

/** How a sandbox is reached. Without `syncIn` and `syncOut`, the six methods do. */
export interface SandboxManagedRuntimeClient {
  makeDir(remotePath: string): Promise<void>;
  writeFile(remotePath: string, bytes: ArrayBuffer, options?: SandboxTransferProgressOptions): Promise<void>;
  readFile(
    remotePath: string,
    options?: SandboxTransferProgressOptions,
  ): Promise<Buffer | Uint8Array | ArrayBuffer>;
  listFiles(remotePath: string): Promise<string[]>;
  remove(remotePath: string): Promise<void>;
  run(command: string, options: { timeoutMs: number }): Promise<void>;
  /** Whether up to four operations may be under way at once. */
  allowConcurrentSyncOperations?: boolean;
  syncIn?(operations: SandboxSyncOperation[]): Promise<SandboxSyncResult>;
  syncOut?(operations: SandboxSyncOperation[]): Promise<SandboxSyncResult>;
}

/** Throws where an operation reads or writes outside of its roots. */
export declare function assertSyncOperationsConfined(
  operations: SandboxSyncOperation[],
  roots: { sourceRoots: string[]; targetRoots: string[] },
): void;

/** The state of a checkout, as adapter-utils' `git-workspace-sync` reads it. */
export interface GitWorkspaceSnapshot {
  headCommit: string;
  branchName: string | null;
  overlayPaths: string[];
  deletedPaths: string[];
  ignoredPaths: string[];
  /** Repositories in it that have a history of their own. */
  repositories?: Array<{ path: string; snapshot: GitWorkspaceSnapshot }>;
}

/** A workspace that is in its sandbox. */
export interface PreparedSandboxManagedRuntime {
  spec: SandboxRemoteExecutionSpec;
  workspaceLocalDir: string;
  workspaceRemoteDir: string;
  runtimeRootDir: string;
  assetDirs: Record<string, string>;
  /** The projects that are there, by their ids. */
  additionalSourceDirs: Record<string, string>;
  /** Those that are not, and why. */
  additionalSourceFailures: AdditionalSourceStagingFailure[];
  /** What a restore in another process needs. */
  workspaceSyncSnapshot: { baseline: DirectorySnapshot; gitSnapshot: GitWorkspaceSnapshot | null } | null;
  restoreWorkspace(onProgress?: RuntimeProgressSink): Promise<void>;
}

/**
 * What a prepare does with the sandbox's workspace: fill it from here, fill it from kept archives, or leave it as the sandbox
 * has it. What is adopted without a baseline shares nothing with the local workspace: then nothing is deleted here.
 */
export type WorkspaceInboundMode = "host_current" | "durable_seed" | "adopt_remote";

/** Where the archives of a workspace are kept, or come from. */
export interface WorkspaceDurableSeedPaths {
  workspaceArchivePath: string;
  workspaceArchiveSha256?: string;
  gitArchivePath?: string | null;
  gitArchiveSha256?: string | null;
}

/** A project that did not get to the sandbox. */
export interface AdditionalSourceStagingFailure {
  projectId: string;
  error: string;
}

/** Runs work under a name, to be timed. */
export type RuntimeSpanRunner = <T>(name: string, work: () => Promise<T>) => Promise<T>;

/** All patterns of these lists, each once. */
export declare function mergeExcludes(...groups: Array<string[] | undefined>): string[];

/**
 * Uploads a workspace with its history, its assets and further projects.
 *
 * Rejects before the first client call with `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` if the input is invalid. A restore
 * rejects with `ERR_SANDBOX_REPLACED` if the sandbox's workspace is empty or another one, and with `ERR_WORKSPACE_REPLACED` if
 * another directory is in the place of the local one.
 */
export declare function prepareSandboxManagedRuntime(input: {
  spec: SandboxRemoteExecutionSpec;
  /** The name of the run's directory below `.paperclip-runtime` in the sandbox. A single name. */
  adapterKey: string;
  client: SandboxManagedRuntimeClient;
  workspaceLocalDir: string;
  /** The workspace's directory in the sandbox, which is emptied. Default `spec.remoteCwd`; never `/`. */
  workspaceRemoteDir?: string;
  /** Whether the workspace is uploaded and restored, beside the assets. Default `true`. */
  syncWorkspace?: boolean;
  /** Default `"host_current"`. */
  workspaceInboundMode?: WorkspaceInboundMode;
  /** Where the upload's archives are kept, or with `"durable_seed"` taken from. */
  workspaceDurableSeed?: WorkspaceDurableSeedPaths;
  /** What both sides shared last, from an earlier {@link PreparedSandboxManagedRuntime.workspaceSyncSnapshot}. */
  workspaceBaseline?: DirectorySnapshot;
  /** The state of the checkout from there. It is read anew if absent. */
  workspaceGitSnapshot?: GitWorkspaceSnapshot | null;
  /** Patterns of GNU tar for what is neither uploaded, brought back nor deleted. Default none. */
  workspaceExclude?: string[];
  /** Paths that a restore neither changes nor deletes locally. Default none. */
  preserveAbsentOnRestore?: string[];
  /** Further directories for the agent. */
  assets?: SandboxManagedRuntimeAsset[];
  /** Further projects, which the agent may read. One that fails is reported and does not fail the prepare. */
  additionalSources?: SandboxAdditionalSource[];
  /** Gets lines about progress. */
  onProgress?: RuntimeProgressSink;
  /** Gets the phases of the run. */
  onRuntimeProgress?: RuntimeStatusSink;
  /** Times the steps. */
  runtimeSpan?: RuntimeSpanRunner;
}): Promise<PreparedSandboxManagedRuntime>;

/** A snapshot as JSON can hold it. */
export interface SerializedDirectorySnapshot {
  version: 1;
  exclude: string[];
  entries: Array<[string, SnapshotEntry]>;
}

/** A snapshot as JSON can hold it, in the order from which its digest is made. */
export declare function serializeDirectorySnapshot(snapshot: DirectorySnapshot): SerializedDirectorySnapshot;
/** A snapshot from JSON; `null` where it is none, or has a path that leads out of its directory. */
export declare function parseDirectorySnapshot(value: unknown): DirectorySnapshot | null;
/** The digest of a snapshot's JSON. */
export declare function directorySnapshotSha256(snapshot: DirectorySnapshot): string;

/** The code of the error where another process held the merge lock for 30 s. */
export declare const WORKSPACE_RESTORE_LOCK_TIMEOUT_CODE = "ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT";
/** What may be published about a failed restore. */
export type WorkspaceRestoreFailureCode =
  "restore_permission_denied" | "restore_lock_timeout" | "restore_failed";
/** How a restore ended. */
export type WorkspaceRestoreOutcome =
  { readonly ok: true } | { readonly ok: false; readonly code: WorkspaceRestoreFailureCode };
/** Which failure an error is. Its message is not looked at. */
export declare function classifyWorkspaceRestoreFailure(error: unknown): WorkspaceRestoreFailureCode;
/** A failure in words, without a path or a process. */
export declare function describeWorkspaceRestoreFailure(code: WorkspaceRestoreFailureCode): string;

/**
 * Runs `fn` under the lock of a directory, which is an existing one. The lock is in the directory of Paperclip's instance, as `env`
 * names it (`PAPERCLIP_HOME`, `PAPERCLIP_INSTANCE_ID`). `fn` gets the directory with all links resolved.
 */
export declare function withDirectoryMergeLock<T>(
  targetDir: string,
  fn: (canonicalTargetDir: string) => Promise<T>,
  env?: NodeJS.ProcessEnv,
): Promise<T>;

/** The entries of a directory. `exclude` lists paths. A `*` and a slash before a path match it at any depth; a slash and `*`
 * behind it match only what is below it. */
export declare function captureDirectorySnapshot(
  rootDir: string,
  options?: { exclude?: string[] },
): Promise<DirectorySnapshot>;

/** Merges a directory into another under the lock of that one; both callbacks run inside the lock. */
export declare function mergeDirectoryWithBaseline(input: {
  baseline: DirectorySnapshot;
  sourceDir: string;
  targetDir: string;
  beforeApply?: () => Promise<void>;
  afterApply?: () => Promise<void>;
}): Promise<void>;

/** Of adapter-utils' `git-workspace-sync`, what a run calls. That module itself may be passed. */
export interface GitFunctions {
  readonly WORKSPACE_GIT_SCAN_SATURATED_CODE: string;
  readonly ReferencedSourceIgnoreScanLimitExceededError: new (message: string) => Error;
  readGitWorkspaceSnapshot(
    localDir: string,
    includeRepositories?: boolean,
  ): Promise<GitWorkspaceSnapshot | null>;
  readReferencedSourceGitIgnoredPaths(
    localDir: string,
  ): Promise<{ toplevel: string; ignoredPaths: string[] } | null>;
  withShallowGitWorkspaceClone<T>(
    input: { localDir: string; snapshot: GitWorkspaceSnapshot },
    fn: (cloneDir: string) => Promise<T>,
  ): Promise<T>;
  createImportedGitRef(scope?: string): string;
  createRemoteGitExportRef(scope?: string): string;
  deleteLocalGitRef(input: { localDir: string; ref: string }): Promise<void>;
  fetchGitBundleIntoLocalRef(input: {
    localDir: string;
    bundlePath: string;
    exportRef: string;
    importedRef: string;
    baseSha: string;
  }): Promise<string>;
  isMissingGitPrerequisiteError(error: unknown): boolean;
  buildRemoteGitDeltaBundleScript(input: {
    remoteDir: string;
    baseSha: string;
    exportRef: string;
    bundlePath: string;
    statusPath?: string;
    forceFullBundle?: boolean;
  }): string;
  integrateImportedGitHead(input: { localDir: string; importedHead: string }): Promise<void>;
}

/** The directory of a Paperclip instance; adapter-utils' `resolvePaperclipInstanceRootForAdapter` is one. */
export type InstanceRootResolver = (input?: {
  homeDir?: string;
  instanceId?: string;
  env?: NodeJS.ProcessEnv;
}) => string;

/** Functions of adapter-utils' other modules that a run uses. By default they are this package's own. */
export interface AdapterUtilsSurroundings {
  git?: GitFunctions;
  resolveInstanceRoot?: InstanceRootResolver;
}

/** The functions of this module that depend on functions that can be passed in. */
export interface AdapterUtils {
  mergeDirectoryWithBaseline: typeof mergeDirectoryWithBaseline;
  prepareSandboxManagedRuntime: typeof prepareSandboxManagedRuntime;
  resolveReferencedSourceIgnore: typeof resolveReferencedSourceIgnore;
  withDirectoryMergeLock: typeof withDirectoryMergeLock;
}

/** The same functions, with those that are passed in. */
export declare function createAdapterUtils(surroundings?: AdapterUtilsSurroundings): AdapterUtils;
