/**
 * Moves an AI agent's workspace into a sandbox and merges the result back, natively.
 *
 * Every function that returns a promise returns one in every case: bad arguments reject, nothing throws
 * synchronously. Errors carry a stable `code` (see {@link SandboxRuntimeError}); a failed file-system call carries
 * Node's own `code`, `errno`, `syscall` and `path`. What a client method rejects with is passed on as the very same
 * value.
 *
 * Paths are strings as Node uses them. A file name that is not UTF-8 is written with lone surrogates, one per
 * undecodable byte (byte `0xNN` is `U+DCNN`), and round-trips.
 */

/** Where a sandbox is and how to reach it. */
export interface SandboxRemoteExecutionSpec {
  transport: "sandbox";
  /** The provider's name, such as `"e2b"`. */
  provider: string;
  /** The provider's identifier of this sandbox. */
  sandboxId: string;
  /** The workspace's folder in the sandbox: absolute, and not `/`. */
  remoteCwd: string;
  /** How long one command in the sandbox may take, in milliseconds. Handed to every `client.run`. */
  timeoutMs: number;
  /** The provider's key, or `null`. It is kept in the spec and never used here. */
  apiKey: string | null;
}

/** A local folder that the agent needs beside its workspace, such as its skills. */
export interface SandboxManagedRuntimeAsset {
  /**
   * The folder's name below {@link PreparedSandboxManagedRuntime.runtimeRootDir}. Unique; not empty, `.` or `..`,
   * and without `/` or NUL.
   */
  key: string;
  /** The folder to upload. It must exist. */
  localDir: string;
  /**
   * Upload what symbolic links point to instead of the links. A link that dangles or would loop stays a link.
   * Default `false`.
   */
  followSymlinks?: boolean;
  /** Patterns to leave out, with the meaning of GNU tar's `--exclude`. `._*` is always left out. Default none. */
  exclude?: string[];
}

/** What `writeFile` and `readFile` get as a further argument, only when it says something. */
export interface SandboxTransferProgressOptions {
  /**
   * To be called while bytes move. `transferredBytes` and `totalBytes` count bytes of the file, not of its encoding;
   * `totalBytes` is `null` where the size is not known.
   */
  onProgress?: (transferredBytes: number, totalBytes: number | null) => void | Promise<void>;
  /** The caller's signal, where there is one: an abort may stop the transfer itself. Its outcome is ignored then. */
  signal?: AbortSignal;
}

/**
 * How the addon reaches a sandbox. Each method is looked up by name at every call and called on the client itself.
 * It may return a promise, any thenable, or the plain value. All paths are absolute POSIX paths in the sandbox.
 */
export interface SandboxManagedRuntimeClient {
  /** Creates a folder and those above it; one that exists is fine. */
  makeDir(remotePath: string): Promise<void>;
  /** Writes a whole file, replacing one that is there. `bytes` is the client's to keep, transfer or detach. */
  writeFile(remotePath: string, bytes: ArrayBuffer, options?: SandboxTransferProgressOptions): Promise<void>;
  /**
   * Reads a whole file. The bytes are copied in parts while they are checked: one that is transferred away or resized
   * meanwhile is an error (`ERR_INVALID_RETURN_VALUE`), and nothing is changed.
   */
  readFile(
    remotePath: string,
    options?: SandboxTransferProgressOptions,
  ): Promise<Buffer | Uint8Array | ArrayBuffer>;
  /** Lists a folder's files. Not called by this package; part of the interface that clients already implement. */
  listFiles(remotePath: string): Promise<string[]>;
  /** Removes a file. A failure is ignored. */
  remove(remotePath: string): Promise<void>;
  /**
   * Runs a command line of POSIX `sh`; rejects when it fails or takes longer than `timeoutMs` milliseconds. `signal`
   * is the caller's, where there is one: an abort may stop the command. Its outcome is ignored then.
   */
  run(command: string, options: { timeoutMs: number; signal?: AbortSignal }): Promise<void>;
  /**
   * Whether several files may be written or read at once. Optional. An error with `retryable: true` tells that the
   * same call may succeed when it is made again.
   */
  readonly allowConcurrentSyncOperations?: boolean;
}

/** Takes complete progress lines, newline included. A listener that throws or rejects never fails the transfer. */
export type RuntimeProgressSink = (line: string) => void | Promise<void>;

/** What a run is doing, as Paperclip names it. */
export type RuntimeStatusPhase =
  "git_sync" | "config_sync" | "adapter_startup" | "restore" | "export" | "finalize";

/** One step of a run, for people to read. */
export interface RuntimeStatusUpdate {
  phase: RuntimeStatusPhase;
  message: string;
  currentToolName?: string | null;
  lastAssistantSnippet?: string | null;
  lastEventAt?: Date | string | null;
}

/** Takes status updates. A listener that throws or rejects never fails the run. */
export type RuntimeStatusSink = (update: RuntimeStatusUpdate) => void | Promise<void>;

/** Keeps a sandbox from expiring while it is used. */
export interface SandboxLease {
  /**
   * Extends the sandbox's life. Called before every client call and then every {@link intervalMs} while one is under
   * way, never twice at once. If it fails or hangs, the transfer goes on; the report counts it.
   */
  refresh(): Promise<unknown>;
  /** Milliseconds between two refreshes during a long call. Default 60,000. */
  intervalMs?: number;
  /**
   * Also refresh between the end of prepare and the end of the first `restoreWorkspace()`, without keeping the
   * process alive. Default `false`.
   */
  keepAliveBetween?: boolean;
}

/** One step of a restore, timed. */
export interface RestorePhase {
  /** `run`: tar in the sandbox. `download`: `readFile`. `check`: verify, hash and stage. `apply`: merge under the lock. */
  name: "run" | "download" | "check" | "apply";
  /** How long it took, in milliseconds. */
  durationMs: number;
  /** The bytes it read, where it read any: the archive for `download` and `check`. */
  bytes: number;
}

/** What one restore did. Paths are relative to the workspace, with `/`. */
export interface RestoreReport {
  /** Files, links and folders taken from the sandbox (created, replaced, or given its mode). */
  written: string[];
  /** What was deleted because the sandbox deleted it and it was as uploaded here. */
  deleted: string[];
  /** What the sandbox deleted but stays, because it was changed here. */
  kept: string[];
  /**
   * Paths that both sides had changed: the sandbox's version is in place now. `keptAt` is where the local
   * version is (relative to the workspace).
   */
  conflicts: { path: string; keptAt: string }[];
  /**
   * Where what was deleted is kept as well. A restore that deletes more than half of the files that the sandbox had, and at
   * least 20, keeps all that it deletes; any other keeps none of it.
   */
  deletionsKept: { path: string; keptAt: string }[];
  /**
   * What was left as it is here, and why: a device in the sandbox, a file it could not read, what it never had as it was
   * uploaded, a folder that holds something excluded.
   */
  skipped: { path: string; reason: string }[];
  /**
   * What the sandbox changed and yet neither comes nor is deleted here, since it would run or redirect something: git's
   * configuration and hooks, `.hg/hgrc`. `what` says which key or reference it is, where the path does not. What could not go
   * up of a repository is named here as well, by the first restore.
   */
  heldBack: { path: string; what?: string; reason: string }[];
  /** References, `HEAD` and indexes that are the sandbox's now. `repository` is the path of the `.git`. */
  refsUpdated: { repository: string; name: string }[];
  /** References that are gone since the sandbox deleted them. Their last values are among {@link refsKept}. */
  refsDeleted: { repository: string; name: string }[];
  /**
   * References of the sandbox's that could not take their place here, since both sides had changed them, and those that it
   * replaced or deleted: `keptAt` is the reference that has the value now.
   */
  refsKept: { repository: string; name: string; keptAt: string }[];
  /**
   * Of what was written, what deserves a look: files that tools run or obey unasked (`.vscode/`, `.envrc`, `.npmrc`, …), links
   * that leave the workspace, and files that became executable.
   */
  sensitive: { path: string; reason: string }[];
  /** How many entries the sandbox held. */
  entries: number;
  /** Whether all that the sandbox holds was downloaded, or what had changed there. */
  transfer: "full" | "changes";
  /** Whether the sandbox's tar failed and a second, tolerant way was taken: nothing was deleted then. */
  tolerant: boolean;
  /** What the sandbox's tar said in that case; otherwise empty. */
  tarMessages: string;
  /** Lease refreshes since prepare began that failed, or had not come back after {@link SandboxLease.intervalMs}. */
  failedRefreshes: number;
  /** The steps in order. */
  phases: RestorePhase[];
}

/** One step of an upload, timed. */
export interface PreparePhase {
  /**
   * `pack`: scan the folder, and pack an archive that fits one part (a larger one is packed while it travels). `upload`: all
   * of its parts, pauses before another attempt included. `extract`: the command in the sandbox.
   */
  name: "pack" | "upload" | "extract";
  /** How long it took, in milliseconds. */
  durationMs: number;
  /** The bytes of the archive, or for `upload` those that travelled. */
  bytes: number;
}

/** One archive that a prepare has sent. */
export interface PrepareReportArchive {
  /** `workspace`, or the asset's key. */
  label: string;
  /** How many entries it has. */
  entries: number;
  /** How many bytes it has before it is compressed. */
  archiveBytes: number;
  /** How many bytes were sent, including the script behind the archive. Failed attempts do not count. */
  sentBytes: number;
  /** In how many parts: 0 where the sandbox had an asset already, so that nothing was sent. */
  parts: number;
  /** Whether all of the folder was sent, or what the sandbox did not have. Assets are always sent in full. */
  transfer: "full" | "changes";
  /** Whether any part was compressed. */
  compression: "none" | "gzip";
  /** The steps in order. */
  phases: PreparePhase[];
  /**
   * What the archive does not have of the folder, and why: the first 100 by path. What git's rules leave here is in
   * {@link RestoreReport.heldBack}.
   */
  leftOut: { path: string; reason: string }[];
  /** How many such paths there are in all. A folder counts once. */
  leftOutCount: number;
  /**
   * Patterns that left nothing out: the first 100, in the order in which they were given, and then by file and line. `file`
   * and `line` are there for a line of an ignore file, which may also be one that another line outdoes. What is in a directory
   * that is left out was not looked at.
   */
  unmatchedExcludes: { pattern: string; file?: string; line?: number }[];
  /** How many such patterns there are in all. */
  unmatchedExcludesCount: number;
}

/** What one prepare did. */
export interface PrepareReport {
  /** The workspace first, then the assets in the order in which they were given. */
  archives: PrepareReportArchive[];
  /** Lease refreshes that failed so far, or had not come back after {@link SandboxLease.intervalMs}. */
  failedRefreshes: number;
}

/** Input of {@link prepareSandboxManagedRuntime}. */
export interface PrepareSandboxManagedRuntimeInput {
  spec: SandboxRemoteExecutionSpec;
  /** Names this run's folder below `.paperclip-runtime`. Not empty, `.` or `..`, and without `/` or NUL. */
  adapterKey: string;
  client: SandboxManagedRuntimeClient;
  /** The workspace on this machine: an existing folder (also through a link). */
  workspaceLocalDir: string;
  /**
   * The workspace's folder in the sandbox: absolute, and not `/`. It is emptied, so the command in the sandbox refuses the
   * home folder of its user, what holds that, and folders of the system. Default `spec.remoteCwd`.
   */
  workspaceRemoteDir?: string;
  /**
   * Patterns that are neither uploaded nor brought back nor deleted, with the meaning that they have in
   * `tar -C dir --exclude P .` of GNU tar: names are matched as `./name`, so `./dist` is the top-level one alone.
   * `._*`, `*.paperclip-restore.lock` and the top-level `.paperclip-runtime` always are. Default none.
   */
  workspaceExclude?: string[];
  /**
   * Names of files in the workspace whose lines leave out more, as {@link CreateTarballInput.ignoreFiles} says. What they
   * match is treated as what {@link workspaceExclude} matches: neither uploaded nor brought back, and neither changed nor
   * deleted here. What counts is what they say when the workspace is prepared, for the restores of that too; a change on
   * either side counts from the next prepare on. Assets have none. Default none.
   */
  ignoreFiles?: string[];
  /**
   * Paths (exact, or anything below them) that a restore neither changes nor deletes here; those at the top level
   * also survive in the sandbox when its workspace is cleared for the upload. Default none.
   */
  preserveAbsentOnRestore?: string[];
  /** Further folders to upload, each to its own folder beside the workspace. Default none. */
  assets?: SandboxManagedRuntimeAsset[];
  /**
   * Gets throttled progress lines such as `[paperclip] Syncing workspace to sandbox: 40% (4.8/12.0 MB)`, after a second
   * with the rate and the time left (`, 2.0 MB/s, 4 s left`). Other steps (packing, extracting, checking, applying) that
   * take longer than five seconds are told of every five seconds: `[paperclip] Packing workspace for sandbox (12.0 MB): 5 s so far`.
   */
  onProgress?: RuntimeProgressSink;
  /** Gets the run's steps, and the progress lines as messages. */
  onRuntimeProgress?: RuntimeStatusSink;
  /** Keeps the sandbox alive meanwhile. Default: nothing is refreshed. */
  lease?: SandboxLease;
  /** Stops the prepare: it rejects with the signal's reason. */
  signal?: AbortSignal;
  /**
   * How many assets may upload at once, 1 to 16. Outcome and error are the same as in order. Above 1, up to four parts of
   * an archive travel at once as well. Default 1.
   */
  concurrency?: number;
  /**
   * The largest part in which an archive travels, in bytes before it is compressed: from 64 KiB to 1 GiB, default 32 MiB.
   * An archive that fits one part is one file. Where several parts travel at once, each is smaller, but for 8 MiB at least:
   * memory holds about two of these sizes, whatever the size of the workspace.
   */
  partBytes?: number;
  /**
   * `"auto"` (the default) compresses what travels where that pays: it gets smaller, and the client does not take bytes
   * faster than they can be compressed. `"none"` never does.
   */
  compression?: "auto" | "none";
  /**
   * `"auto"` (the default) transfers what has changed, where the sandbox can tell, and everything where it cannot or where
   * there is any doubt. `"full"` always transfers everything.
   */
  transfer?: "auto" | "full";
  /**
   * How git repositories travel. `"merge"` (the default) sends each `.git` as a repository made for the sandbox, and merges what
   * comes back as git does: commits, branches, tags, stashes and what is staged; never configuration or hooks. `"files"` treats
   * `.git` as any folder, but for what git runs or obeys. `"off"` neither sends nor takes anything of git's.
   */
  git?: "merge" | "files" | "off";
  /** Whether what authenticates goes up with a repository's configuration. Default `false`. */
  gitCredentials?: boolean;
  /** How many commits of each line of history go up. Default: all. */
  gitDepth?: number;
  /**
   * For how many days local versions that a restore replaced are kept under `.paperclip-runtime/conflicts` (default 30).
   * Restores that write something remove older ones, and the oldest beyond 1 GiB in all; never their own. With 0 only
   * those of the last such restore stay; with `null` or `Infinity` all stay, whatever their size.
   */
  keepConflictsDays?: number | null;
  /** Gets what each restore did. A listener that throws or rejects never fails the restore. */
  onReport?: (report: RestoreReport) => void | Promise<void>;
  /** Gets what the prepare did, before it resolves. A listener that throws or rejects never fails the prepare. */
  onPrepareReport?: (report: PrepareReport) => void | Promise<void>;
}

/** Options of {@link PreparedSandboxManagedRuntime.restoreWorkspace}. */
export interface RestoreWorkspaceOptions {
  /**
   * Transfer and check as usual, change nothing on either side, and report what a restore would write, delete and keep. Of
   * what it would keep, `keptAt` is the directory that this would be in; of git's references nothing is told but what is
   * held back. Default `false`.
   */
  dryRun?: boolean;
  /**
   * Stops the restore: it rejects with the signal's reason, and the workspace is untouched. If the merge had begun
   * to change files, it is completed in the background.
   */
  signal?: AbortSignal;
}

/** A workspace that is in its sandbox. A plain object: it can be spread, and its methods work detached. */
export interface PreparedSandboxManagedRuntime {
  /** The very `spec` that was passed in. */
  spec: SandboxRemoteExecutionSpec;
  workspaceLocalDir: string;
  workspaceRemoteDir: string;
  /** The run's own folder in the sandbox: `<workspaceRemoteDir>/.paperclip-runtime/<adapterKey>`. */
  runtimeRootDir: string;
  /** Each asset's folder in the sandbox, by its key. */
  assetDirs: Record<string, string>;
  /**
   * Brings the sandbox's workspace back and merges it, three ways, into the local one. May be called again, after
   * success (it brings what changed since) and after failure (it completes the job).
   *
   * @param onProgress Gets progress lines instead of the `onProgress` given to prepare.
   */
  restoreWorkspace(onProgress?: RuntimeProgressSink, options?: RestoreWorkspaceOptions): Promise<void>;
}

/**
 * Reads a sandbox spec from unknown data, such as a database column. Strings are trimmed, `timeoutMs` may be a numeric
 * string. `null` where anything that is needed is missing or not usable.
 */
export declare function parseSandboxRemoteExecutionSpec(value: unknown): SandboxRemoteExecutionSpec | null;

/** What identifies a sandbox session across runs: the spec without its key and timeout. `null` for `null`. */
export declare function buildSandboxExecutionSessionIdentity(spec: SandboxRemoteExecutionSpec | null): {
  readonly transport: "sandbox";
  readonly provider: string;
  readonly sandboxId: string;
  readonly remoteCwd: string;
} | null;

/** Whether a stored identity names the same sandbox session as `current`. `false` where `current` is `null`. */
export declare function sandboxExecutionSessionMatches(
  saved: unknown,
  current: SandboxRemoteExecutionSpec | null,
): boolean;

/** Input of {@link createTarballFromDirectory}. */
export interface CreateTarballInput {
  /** The folder to archive. */
  localDir: string;
  /** The archive's path. It appears only when complete, replacing a file that is there, and is never archived itself. */
  archivePath: string;
  /** Patterns to leave out, with the meaning of GNU tar's `--exclude`. `._*` is always left out. Default none. */
  exclude?: string[];
  /**
   * Names of files in the folder, such as `[".gitignore", ".dockerignore"]`, whose lines leave out more. They are read in
   * every directory that is not left out itself, with the meaning that git gives a `.gitignore`: `!` takes back, a final `/`
   * is for directories alone, the innermost file decides. A `.dockerignore` is read at the top alone, and its patterns begin
   * there, as for Docker; unlike there, nothing comes back from a directory that is left out. Files of different names each
   * leave out what they match. `.git` itself is never left out by them. Lines alone count, as for
   * `git check-ignore --no-index`: a tracked file that a line matches is left out too. A symbolic link of such a name is not
   * followed. One that may not be read, holds more than 1 MiB or is not UTF-8 rejects, by name. With
   * `followSymlinks`, what a link leads to is matched as what it is. Default none.
   */
  ignoreFiles?: string[];
  /** Archive what symbolic links point to. A link that dangles or would loop stays a link. Default `false`. */
  followSymlinks?: boolean;
  /** Stops the work: it rejects with the signal's reason and leaves no archive. */
  signal?: AbortSignal;
}

/**
 * Archives a folder as a plain GNU tar that GNU tar, bsdtar, busybox and toybox extract without a warning: entries by
 * relative name in byte order, owner 0/0, no extended attributes. The same tree gives the same bytes.
 *
 * Rejects where a file may not be read (`EACCES`, with its `path`). A tree that changes meanwhile does not fail it.
 */
export declare function createTarballFromDirectory(input: CreateTarballInput): Promise<void>;

/** Options of {@link mirrorDirectory}. */
export interface MirrorDirectoryOptions {
  /** Paths (exact, or anything below them) that stay in the target although the source lacks them. Default none. */
  preserveAbsent?: string[];
  /** Stops the work before the next file: it rejects with the signal's reason. */
  signal?: AbortSignal;
}

/**
 * Makes `targetDir` equal to `sourceDir`: names, types, bytes, modes and link targets, and nothing else but what
 * `preserveAbsent` names. Files that are already the same are not written; changed ones are replaced atomically.
 *
 * Rejects before anything is touched where the source is missing or unreadable, or where one folder holds the other.
 */
export declare function mirrorDirectory(
  sourceDir: string,
  targetDir: string,
  options?: MirrorDirectoryOptions,
): Promise<void>;

/**
 * Uploads a workspace (and assets) to a sandbox, and remembers exactly what was uploaded as the base of the merge that
 * `restoreWorkspace()` makes.
 *
 * Rejects before the first client call with `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` where the input cannot be
 * used, and with Node's own codes where the workspace or an asset cannot be read.
 */
export declare function prepareSandboxManagedRuntime(
  input: PrepareSandboxManagedRuntimeInput,
): Promise<PreparedSandboxManagedRuntime>;

/**
 * Takes up a prepare that an earlier process made, or an earlier call in this one: the same `prepared` object again, without a
 * call to the client. What was excluded and preserved then is so still. What both sides share is kept in a directory of
 * caches (below `PAPERCLIP_HOME`, else the platform's), by provider, sandbox id, remote directory, adapter key and workspace.
 *
 * Rejects with `ERR_SANDBOX_NOTHING_TO_RESUME` where nothing is known of that, and with `ERR_WORKSPACE_REPLACED` where another
 * directory is in the workspace's place. That the sandbox itself was replaced is found out by `restoreWorkspace()`.
 *
 * @param input As it was given to prepare.
 */
export declare function resumeSandboxManagedRuntime(
  input: PrepareSandboxManagedRuntimeInput,
): Promise<PreparedSandboxManagedRuntime>;

/** One path of a {@link DirectorySnapshot}. */
export type SnapshotEntry =
  | { kind: "dir" }
  /** `mode` is the full `st_mode`; `hash` is the content's SHA-256 in hexadecimal. */
  | { kind: "file"; mode: number; hash: string }
  | { kind: "symlink"; target: string };

/** A folder's content at one moment. */
export interface DirectorySnapshot {
  /** The paths that were left out, each exact or anything below it. */
  exclude: string[];
  /** Entries by relative path with `/`, a folder before what is in it. */
  entries: Map<string, SnapshotEntry>;
}

/**
 * Reads a folder and hashes its files. Sockets, FIFOs and devices are left out. Rejects where a folder or file cannot be
 * read, and where the root is missing: what could not be read must not look like what was deleted.
 */
export declare function captureDirectorySnapshot(
  rootDir: string,
  options?: { exclude?: string[] },
): Promise<DirectorySnapshot>;

/**
 * Merges a folder into another, three ways: what changed from `baseline` to `sourceDir` is brought into `targetDir`,
 * under its merge lock. A local version that differs from both is kept under `.paperclip-runtime/conflicts/`.
 */
export declare function mergeDirectoryWithBaseline(input: {
  baseline: DirectorySnapshot;
  sourceDir: string;
  targetDir: string;
  /** Runs inside the lock, before the target is looked at. What it rejects with is passed on, and nothing is changed. */
  beforeApply?: () => Promise<void>;
  /** Runs inside the lock, after the last change. */
  afterApply?: () => Promise<void>;
}): Promise<void>;

/**
 * Runs `fn` while no other process merges into `targetDir`: the lock is the folder
 * `<targetDir>.paperclip-restore.lock`, shared with the TypeScript module. Rejects with
 * `ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT` after 30 s of waiting. Released also when `fn` fails. Not reentrant.
 */
export declare function withDirectoryMergeLock<T>(targetDir: string, fn: () => Promise<T>): Promise<T>;

/** Whether `relative` below `rootDir` is now what `baselineEntry` says: kind, full mode and content, or link target. */
export declare function directoryEntryMatchesBaseline(
  rootDir: string,
  relative: string,
  baselineEntry: SnapshotEntry,
): Promise<boolean>;

/** The codes of this package's own errors. */
export type SandboxRuntimeErrorCode =
  /** The download ends before its end mark. Nothing was changed. */
  | "ERR_SANDBOX_ARCHIVE_TRUNCATED"
  /** The download breaks the format or holds what is never restored. Nothing was changed. */
  | "ERR_SANDBOX_ARCHIVE_INVALID"
  /**
   * A path leads out of its folder, or a link stands where a folder of ours must be. From the local client: a path
   * outside of its root.
   */
  | "ERR_SANDBOX_UNSAFE_PATH"
  /**
   * The sandbox no longer has what was uploaded to it: it was replaced or rolled back, or another prepare has replaced the
   * workspace there. Nothing was changed; prepare again.
   */
  | "ERR_SANDBOX_REPLACED"
  /** Another folder, or a link, is in the place of the local workspace (`path`). Nothing was changed; put it back. */
  | "ERR_WORKSPACE_REPLACED"
  /** Nothing is known on this machine of a prepare that could be resumed. Nothing was changed; prepare again. */
  | "ERR_SANDBOX_NOTHING_TO_RESUME"
  /** Another process held the merge lock for 30 s. Nothing was changed. */
  | "ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT"
  /** An argument has the wrong type. */
  | "ERR_INVALID_ARG_TYPE"
  /** An argument has a value that cannot be used. */
  | "ERR_INVALID_ARG_VALUE"
  /** `client.readFile` gave something other than bytes, or took them away while they were read. Nothing was changed. */
  | "ERR_INVALID_RETURN_VALUE"
  /**
   * What was asked for cannot be done here: an archive beyond the size of this Node's buffers, or a tree that multiplies
   * itself through links that are followed. Nothing was sent of it.
   */
  | "ERR_SANDBOX_UNSUPPORTED"
  /** No binary for this machine; the message says what to do. From each call that needs one, never from the import. */
  | "ERR_SANDBOX_BINDING_NOT_FOUND"
  /** From a ready-made client: a command in the sandbox failed (`exitCode`, `stderr`). */
  | "ERR_SANDBOX_COMMAND_FAILED"
  /** From a ready-made client: a command was stopped after `timeoutMs`. */
  | "ERR_SANDBOX_COMMAND_TIMEOUT"
  /** From a ready-made client: other than all bytes of a file arrived. */
  | "ERR_SANDBOX_TRANSFER_INCOMPLETE"
  /** From a ready-made client: the connection broke or fell silent, also after it had been tried again. */
  | "ERR_SANDBOX_CONNECTION_LOST"
  /** From a ready-made client: a file is larger than its `maxDownloadBytes`. */
  | "ERR_SANDBOX_DOWNLOAD_TOO_LARGE"
  /** From the client of Cloudflare's bridge: it refused a request (`status`). */
  | "ERR_SANDBOX_REQUEST_FAILED"
  /** A defect of this package. */
  | "ERR_SANDBOX_INTERNAL";

/** The shape of this package's own errors. */
export interface SandboxRuntimeError extends Error {
  code: SandboxRuntimeErrorCode;
  /** The archive's entry that is at fault, where there is one. */
  entry?: string;
  /** The byte of the archive at which it stands. */
  offset?: number;
  /** The path at fault, where there is one. */
  path?: string;
  /** How a command ended; `null` where a signal ended it. */
  exitCode?: number | null;
  /** The end of what a command that failed said on its error output. */
  stderr?: string;
  /** How long a command could take, in milliseconds. */
  timeoutMs?: number;
}
