/**
 * Uploads an AI agent's workspace to a sandbox and merges the result back.
 *
 * Every asynchronous function always returns a promise: bad arguments reject, nothing throws synchronously. Errors
 * have a stable `code` (see {@link SandboxRuntimeError}); the error of a failed system call has Node's own `code`,
 * `errno`, `syscall` and `path`. What a client method rejects with is passed on as the same value.
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
  /** The workspace's directory in the sandbox: absolute, and not `/`. */
  remoteCwd: string;
  /** How long one command in the sandbox may take, in milliseconds. Passed to every `client.run`. */
  timeoutMs: number;
  /** The provider's key, or `null`. It is part of the spec and never used by this package. */
  apiKey: string | null;
}

/** A local directory that the agent needs beside its workspace, such as its skills. */
export interface SandboxManagedRuntimeAsset {
  /**
   * The directory's name below {@link PreparedSandboxManagedRuntime.runtimeRootDir}. Unique; not empty, `.` or `..`,
   * and without `/` or NUL.
   */
  key: string;
  /** The directory to upload. It must exist. */
  localDir: string;
  /**
   * Upload what symbolic links point to instead of the links. A link that dangles or would loop stays a link.
   * Default `false`.
   */
  followSymlinks?: boolean;
  /** Exclude patterns, with the meaning of GNU tar's `--exclude`. `._*` is always excluded. Default none. */
  exclude?: string[];
}

/** The last argument of `writeFile` and `readFile`. It is passed only if it has a field. */
export interface SandboxTransferProgressOptions {
  /**
   * To be called during the transfer. `transferredBytes` and `totalBytes` count bytes of the file, not of its encoding;
   * `totalBytes` is `null` if the size is not known.
   */
  onProgress?: (transferredBytes: number, totalBytes: number | null) => void | Promise<void>;
  /** The caller's signal, if there is one: an abort may stop the transfer itself. Its outcome is ignored then. */
  signal?: AbortSignal;
}

/**
 * How the addon reaches a sandbox. Each method is looked up by name at every call and called on the client itself.
 * It may return a promise, any thenable, or the plain value. All paths are absolute POSIX paths in the sandbox. An error with
 * `retryable: true` says that the same call may succeed if it is repeated.
 */
export interface SandboxManagedRuntimeClient {
  /** Creates a directory and those above it; one that exists is fine. */
  makeDir(remotePath: string): Promise<void>;
  /** Writes a whole file, and replaces an existing one. The client may keep, transfer or detach `bytes`. */
  writeFile(remotePath: string, bytes: ArrayBuffer, options?: SandboxTransferProgressOptions): Promise<void>;
  /**
   * Reads a whole file. The bytes are copied in parts while they are checked. Memory that is transferred or resized
   * meanwhile is an error (`ERR_INVALID_RETURN_VALUE`), and nothing is changed.
   */
  readFile(
    remotePath: string,
    options?: SandboxTransferProgressOptions,
  ): Promise<Buffer | Uint8Array | ArrayBuffer>;
  /** Lists a directory's files. Not called by this package; part of the interface that clients already implement. */
  listFiles(remotePath: string): Promise<string[]>;
  /** Removes a file. A failure is ignored. */
  remove(remotePath: string): Promise<void>;
  /**
   * Runs a command line of POSIX `sh`; rejects if it fails or takes longer than `timeoutMs` milliseconds. `signal`
   * is the caller's, if there is one: an abort may stop the command. Its outcome is ignored then.
   */
  run(command: string, options: { timeoutMs: number; signal?: AbortSignal }): Promise<void>;
  /**
   * Whether several files may be written or read at once. Optional.
   */
  readonly allowConcurrentSyncOperations?: boolean;
}

/** Takes complete progress lines, newline included. A listener that throws or rejects never fails the transfer. */
export type RuntimeProgressSink = (line: string) => void | Promise<void>;

/** What a run is doing, as Paperclip names it. */
export type RuntimeStatusPhase =
  "git_sync" | "config_sync" | "adapter_startup" | "restore" | "export" | "finalize";

/** One step of a run, as text for a user. */
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
   * Also refresh between the end of prepare and the end of the first `restoreWorkspace()` (also one that fails, or is a dry run), without keeping the
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
  /** The bytes it read: those of the archive for `download` and `check`, otherwise 0. */
  bytes: number;
}

/** What one restore did. Paths are relative to the workspace, with `/`. */
export interface RestoreReport {
  /** Files, links and directories taken from the sandbox (created, replaced, or given its mode). */
  written: string[];
  /** What was deleted, because the sandbox deleted it and the local version was as uploaded. */
  deleted: string[];
  /** What the sandbox deleted, but was left in place because it was changed locally. */
  kept: string[];
  /**
   * Paths that both sides had changed: the sandbox's version is in place now. `keptAt` is the backup of
   * the local version (relative to the workspace).
   */
  conflicts: { path: string; keptAt: string }[];
  /**
   * The backups of what was deleted. A restore that deletes more than half of the files that the sandbox had, and at least
   * 20, backs up everything that it deletes; any other restore does not.
   */
  deletionsKept: { path: string; keptAt: string }[];
  /**
   * What was left as it is locally, and why: a device in the sandbox, a file that its tar could not read, what the upload
   * lost, a directory that contains something excluded.
   */
  skipped: { path: string; reason: string }[];
  /**
   * What the sandbox changed or deleted, but was left as it is locally, since it could run or redirect something: git's
   * configuration and hooks, `.hg/hgrc`. `what` says which key or reference it is, if the path does not. Also excluded files
   * that the sandbox committed or staged, which do not come. The first restore also lists what could not be uploaded of a
   * repository.
   */
  heldBack: { path: string; what?: string; reason: string }[];
  /** References, `HEAD` and indexes that have the sandbox's value now. `repository` is the path of the `.git`. */
  refsUpdated: { repository: string; name: string }[];
  /** References that were deleted because the sandbox deleted them. Their last values are in {@link refsKept}. */
  refsDeleted: { repository: string; name: string }[];
  /**
   * References of the sandbox that could not be merged, since both sides had changed them, and local ones that it
   * replaced or deleted: `keptAt` is the reference that has the value now. The name `index` stands for what was only staged
   * in the sandbox.
   */
  refsKept: { repository: string; name: string; keptAt: string }[];
  /**
   * What should be reviewed. Of the written paths: files that tools run or obey unasked (`.vscode/`, `.envrc`, `.npmrc`, …), links
   * that leave the workspace, and files that became executable. Also deleted files that the local git configuration or a hook names, and a
   * `.git` whose configuration cannot be read or includes more than before.
   */
  sensitive: { path: string; reason: string }[];
  /** Whether nothing was changed, and this is what a restore would do. */
  dryRun: boolean;
  /** How many entries the sandbox had. */
  entries: number;
  /** Whether everything was downloaded, or only what had changed in the sandbox. */
  transfer: "full" | "changes";
  /** Whether the sandbox's tar failed, and did not read everything in a second, tolerant attempt either: what it could not read stayed as
   * it was locally, and nothing was deleted. */
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
   * `pack`: scan the directory, and pack an archive that fits in one part (a larger one is packed while it is sent). `upload`:
   * all of its parts, including pauses before another attempt. `extract`: the command in the sandbox.
   */
  name: "pack" | "upload" | "extract";
  /** How long it took, in milliseconds. */
  durationMs: number;
  /** The bytes of the archive; for `upload`, the bytes that were transferred. */
  bytes: number;
}

/** One archive that a prepare has sent. */
export interface PrepareReportArchive {
  /** `workspace`, or the asset's key. */
  label: string;
  /** How many entries it has. */
  entries: number;
  /** Its size in bytes before compression. */
  archiveBytes: number;
  /** How many bytes were sent, including the script that follows the archive. Failed attempts do not count. */
  sentBytes: number;
  /** In how many parts: 0 if the sandbox already had the asset, so nothing was sent. */
  parts: number;
  /** Whether the whole directory was sent, or only what the sandbox did not have. */
  transfer: "full" | "changes";
  /** How its parts were compressed, as far as they got smaller. */
  compression: "none" | "gzip" | "zstd";
  /** The steps in order. */
  phases: PreparePhase[];
  /**
   * What was left out of the archive, and why: the first 100 by path. What of a repository was not uploaded, such as a
   * reference that git cannot read, is named by its path, and is in {@link RestoreReport.heldBack} too.
   */
  leftOut: { path: string; reason: string }[];
  /** The total number of such paths. A directory counts once. */
  leftOutCount: number;
  /**
   * Patterns that matched nothing: the first 100, in the order in which they were given, and then by file and line. `file`
   * and `line` are set for a line of an ignore file; it may also be one that other lines always override. What is below an
   * excluded directory was not compared.
   */
  unmatchedExcludes: { pattern: string; file?: string; line?: number }[];
  /** The total number of such patterns. */
  unmatchedExcludesCount: number;
}

/** What one prepare did. */
export interface PrepareReport {
  /**
   * The workspace first, then the assets in the order in which they were given. If another branch or commit was checked out here
   * meanwhile, what had changed since was sent too, and its archives follow.
   */
  archives: PrepareReportArchive[];
  /** Lease refreshes that failed so far, or had not come back after {@link SandboxLease.intervalMs}. */
  failedRefreshes: number;
}

/** Input of {@link prepareSandboxManagedRuntime}. */
export interface PrepareSandboxManagedRuntimeInput {
  spec: SandboxRemoteExecutionSpec;
  /** Names this run's directory below `.paperclip-runtime`. Not empty, `.` or `..`, and without `/` or NUL. */
  adapterKey: string;
  client: SandboxManagedRuntimeClient;
  /** The workspace on this machine: an existing directory (also through a link). */
  workspaceLocalDir: string;
  /**
   * The workspace's directory in the sandbox: absolute, and not `/`. It is emptied, so the command in the sandbox refuses the
   * home directory of its user, the parents of that directory, and system directories. Default `spec.remoteCwd`.
   */
  workspaceRemoteDir?: string;
  /**
   * Patterns for what is neither uploaded nor brought back nor deleted, with the meaning that they have in
   * `tar -C dir --exclude P .` of GNU tar: names are matched as `./name`, so `./dist` is only the top-level one.
   * `._*`, `*.paperclip-restore.lock` and the top-level `.paperclip-runtime` always are. Default none.
   */
  workspaceExclude?: string[];
  /**
   * Names of ignore files in the workspace, whose lines exclude more: see {@link CreateTarballInput.ignoreFiles}. What they
   * match is treated like what {@link workspaceExclude} matches: neither uploaded nor brought back, and neither changed nor
   * deleted locally. They are read when the workspace is prepared, for the restores of that prepare too; a change on
   * either side takes effect at the next prepare. They do not apply to assets. Default none.
   */
  ignoreFiles?: string[];
  /**
   * Paths (exact, or anything below them) that a restore neither changes nor deletes locally; those at the top level
   * also survive in the sandbox when its workspace is cleared for the upload. Default none.
   */
  preserveAbsentOnRestore?: string[];
  /** Further directories to upload, each to its own directory beside the workspace. Default none. */
  assets?: SandboxManagedRuntimeAsset[];
  /**
   * Gets throttled progress lines such as `[paperclip] Syncing workspace to sandbox: 40% (4.8/12.0 MB)`, after a second
   * with the rate and the time left (`, 2.0 MB/s, 4 s left`). Other steps (packing, extracting, checking, applying) that
   * take longer than five seconds are reported every five seconds: `[paperclip] Packing workspace for sandbox (12.0 MB): 5 s so far`.
   */
  onProgress?: RuntimeProgressSink;
  /** Gets the run's steps, and the progress lines as messages. */
  onRuntimeProgress?: RuntimeStatusSink;
  /** Keeps the sandbox alive during the run. Default: nothing is refreshed. */
  lease?: SandboxLease;
  /** Stops the prepare: it rejects with the signal's reason. */
  signal?: AbortSignal;
  /**
   * How many assets may upload at once, 1 to 16. The result, and which error is reported, are those of one upload after another. Above 1, up to four parts of
   * an archive are sent at once, too. Default 1.
   */
  concurrency?: number;
  /**
   * The maximum size of a part of an archive, in bytes before compression: from 64 KiB to 1 GiB, default 32 MiB.
   * An archive that fits in one part is one file. If several parts are sent at once, each is smaller, but not below 8 MiB (or `partBytes`, if that is less).
   * Memory holds about two of these sizes, whatever the size of the workspace.
   */
  partBytes?: number;
  /**
   * `"auto"` (the default) compresses a transfer if that saves time: it gets smaller, and the client does not take bytes
   * faster than they can be compressed. An upload uses zstd if the sandbox is known or expected to have it, and gzip
   * otherwise; while nothing is known of the provider's sandboxes, zstd if it makes less than half as much. `"none"` never compresses.
   */
  compression?: "auto" | "none";
  /**
   * `"auto"` (the default) transfers only what has changed, if the sandbox can list that, and everything if it cannot or if
   * there is any doubt. `"full"` always transfers everything.
   */
  transfer?: "auto" | "full";
  /**
   * How git repositories are transferred. `"merge"` (the default) uploads each `.git` as a repository made for the sandbox, and
   * merges what comes back by git's rules: commits, branches, tags, stashes and what is staged; never configuration or hooks.
   * `"files"` treats `.git` like any directory, except what git runs or obeys. `"off"` transfers nothing that belongs to git.
   */
  git?: "merge" | "files" | "off";
  /** Whether credentials in a repository's configuration are uploaded. Default `false`. */
  gitCredentials?: boolean;
  /** How many commits of each line of history are uploaded. Default: all. */
  gitDepth?: number;
  /**
   * For how many days the backups of replaced local versions stay in `.paperclip-runtime/conflicts` (default 30).
   * A restore that writes something removes older ones, and the oldest beyond 1 GiB in total; never its own. With 0 only
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
   * Download and check as usual, change nothing on either side, and report what a restore would write, delete and back
   * up. `keptAt` is then the directory in which the backup would be; of git's references only what is held back is
   * reported. Default `false`.
   */
  dryRun?: boolean;
  /**
   * Stops the restore: it rejects with the signal's reason at once. If no local file had been changed yet, none will be;
   * otherwise the merge is completed in the background, and a later restore waits for it.
   */
  signal?: AbortSignal;
}

/** A workspace that was uploaded to its sandbox. A plain object: it can be spread, and its methods work detached. */
export interface PreparedSandboxManagedRuntime {
  /** The same `spec` object that was passed in. */
  spec: SandboxRemoteExecutionSpec;
  workspaceLocalDir: string;
  workspaceRemoteDir: string;
  /** The run's own directory in the sandbox: `<workspaceRemoteDir>/.paperclip-runtime/<adapterKey>`. */
  runtimeRootDir: string;
  /** Each asset's directory in the sandbox, by its key. */
  assetDirs: Record<string, string>;
  /**
   * Brings the sandbox's workspace back and merges it into the local one (a three-way merge). May be called again, after
   * success (it brings what changed since) and after a failure (it completes the restore).
   *
   * @param onProgress Gets progress lines instead of the `onProgress` given to prepare.
   */
  restoreWorkspace(onProgress?: RuntimeProgressSink, options?: RestoreWorkspaceOptions): Promise<void>;
}

/**
 * Reads a sandbox spec from unknown data, such as a database column. Strings are trimmed, `timeoutMs` may be a numeric
 * string. `null` if anything required is missing or invalid.
 */
export declare function parseSandboxRemoteExecutionSpec(value: unknown): SandboxRemoteExecutionSpec | null;

/** What identifies a sandbox session across runs: the spec without its key and timeout. `null` for `null`. */
export declare function buildSandboxExecutionSessionIdentity(spec: SandboxRemoteExecutionSpec | null): {
  readonly transport: "sandbox";
  readonly provider: string;
  readonly sandboxId: string;
  readonly remoteCwd: string;
} | null;

/** Whether a stored identity names the same sandbox session as `current`. `false` if `current` is `null`. */
export declare function sandboxExecutionSessionMatches(
  saved: unknown,
  current: SandboxRemoteExecutionSpec | null,
): boolean;

/** Input of {@link createTarballFromDirectory}. */
export interface CreateTarballInput {
  /** The directory to archive. */
  localDir: string;
  /** The archive's path. It appears only when complete, replacing an existing file, and is never archived itself. A
   * directory, device or FIFO at that path is refused (`ERR_INVALID_ARG_VALUE`).
   */
  archivePath: string;
  /** Exclude patterns, with the meaning of GNU tar's `--exclude`. `._*` is always excluded. Default none. */
  exclude?: string[];
  /**
   * Names of ignore files in the directory, such as `[".gitignore", ".dockerignore"]`, whose lines exclude more. They are
   * read in every directory that is not excluded itself, with the meaning that git gives a `.gitignore`: `!` includes again,
   * a final `/` matches directories only, and the innermost file decides. As for Docker, a `.dockerignore` is read at the
   * top level only, and its patterns begin there; unlike for Docker, nothing in an excluded directory can be included again.
   * Files of different names each exclude what they match. They never exclude `.git` itself. As for
   * `git check-ignore --no-index`, a file that a line matches is excluded even if git tracks it. A symbolic link of such a
   * name is not followed. If a file cannot be read, is larger than 1 MiB or is not UTF-8, or if all
   * of them have more than 16 MiB, or more than 25,000 lines or 512 KiB with wildcards, the call rejects and names it.
   * With `followSymlinks`, the target of a link is matched as the kind that it has. Default none.
   */
  ignoreFiles?: string[];
  /** Archive what symbolic links point to. A link that dangles or would loop stays a link. Default `false`. */
  followSymlinks?: boolean;
  /** Stops the work: it rejects with the signal's reason and leaves no archive. */
  signal?: AbortSignal;
}

/**
 * Archives a directory as a plain GNU tar that GNU tar, bsdtar, busybox and toybox extract without a warning: entries by
 * relative name in byte order, owner 0/0, no extended attributes. The same tree gives the same bytes.
 *
 * Rejects if a file may not be read (`EACCES`, with its `path`). A tree that changes meanwhile is no error.
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
 * Makes `targetDir` equal to `sourceDir`: names, types, bytes, modes and link targets. Everything else is removed, except
 * what `preserveAbsent` names. Files that are already the same are not written; changed ones are replaced atomically.
 *
 * Rejects before anything is changed if the source is missing or unreadable, or if one directory is inside the other.
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
 * Rejects before the first client call with `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` if the input is
 * invalid, and with Node's own codes if the workspace or an asset cannot be read.
 */
export declare function prepareSandboxManagedRuntime(
  input: PrepareSandboxManagedRuntimeInput,
): Promise<PreparedSandboxManagedRuntime>;

/**
 * Resumes a prepare of an earlier process, or of an earlier call in this one: resolves with an equivalent `prepared` object, without a
 * call to the client; `onPrepareReport` is not called. What was excluded and preserved then still is, and `git` is what it was then. The base is stored in a cache directory (below
 * `PAPERCLIP_HOME`, else the platform's), by provider, sandbox id, remote directory, adapter key and workspace.
 *
 * Rejects with `ERR_SANDBOX_NOTHING_TO_RESUME` if no such prepare is stored, and with `ERR_WORKSPACE_REPLACED` if another
 * directory is in the workspace's place. Whether the sandbox itself was replaced is found out by `restoreWorkspace()`.
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

/** A directory's content at one moment. */
export interface DirectorySnapshot {
  /** The excluded paths; each stands for itself and everything below it. */
  exclude: string[];
  /** Entries by relative path with `/`, a directory before what is in it. */
  entries: Map<string, SnapshotEntry>;
}

/**
 * Reads a directory and hashes its files. Sockets, FIFOs and devices are left out. Rejects if a directory or file cannot be
 * read, or if the root is missing: what could not be read must not look like what was deleted.
 */
export declare function captureDirectorySnapshot(
  rootDir: string,
  options?: { exclude?: string[] },
): Promise<DirectorySnapshot>;

/**
 * Three-way merge of one directory into another: what changed from `baseline` to `sourceDir` is brought into `targetDir`,
 * under its merge lock. A local version that differs from both is backed up under `.paperclip-runtime/conflicts/`. What git
 * runs or obeys (its configuration and hooks, bare repositories, links in a `.git`) stays as it is in `targetDir`.
 */
export declare function mergeDirectoryWithBaseline(input: {
  baseline: DirectorySnapshot;
  sourceDir: string;
  targetDir: string;
  /** Runs inside the lock, before the target is inspected. What it rejects with is passed on, and nothing is changed. */
  beforeApply?: () => Promise<void>;
  /** Runs inside the lock, after the last change. */
  afterApply?: () => Promise<void>;
}): Promise<void>;

/**
 * Runs `fn` while no other process merges into `targetDir`: the lock is the directory
 * `<targetDir>.paperclip-restore.lock`, shared with the TypeScript module. Rejects with
 * `ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT` after 30 s of waiting. Released also when `fn` fails. Not reentrant. Where the directory
 * above is not writable, the lock is in the `.paperclip-runtime` of `targetDir`.
 */
export declare function withDirectoryMergeLock<T>(targetDir: string, fn: () => Promise<T>): Promise<T>;

/** Whether `relative` below `rootDir` still equals `baselineEntry`: kind, full mode and content, or link target. */
export declare function directoryEntryMatchesBaseline(
  rootDir: string,
  relative: string,
  baselineEntry: SnapshotEntry,
): Promise<boolean>;

/** The codes of this package's own errors. */
export type SandboxRuntimeErrorCode =
  /** The download ends before its end mark. Nothing was changed. */
  | "ERR_SANDBOX_ARCHIVE_TRUNCATED"
  /** The download is not a valid archive, or contains what is never restored. Nothing was changed. */
  | "ERR_SANDBOX_ARCHIVE_INVALID"
  /**
   * A path leads out of its directory, or a symlink is where this package needs a directory. From the local client: a path
   * outside of its root.
   */
  | "ERR_SANDBOX_UNSAFE_PATH"
  /**
   * The sandbox no longer has what was uploaded to it: it was replaced or rolled back, or another prepare has replaced the
   * workspace in it. Nothing was changed; prepare again.
   */
  | "ERR_SANDBOX_REPLACED"
  /** Another directory, or a link, is in the place of the local workspace (`path`). Nothing was changed; put it back. */
  | "ERR_WORKSPACE_REPLACED"
  /** The cache directory has no prepare that could be resumed. Nothing was changed; the message says what to check. */
  | "ERR_SANDBOX_NOTHING_TO_RESUME"
  /** Another process held the merge lock for 30 s. Nothing was changed. */
  | "ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT"
  /** An argument has the wrong type. */
  | "ERR_INVALID_ARG_TYPE"
  /** An argument has a value that cannot be used. */
  | "ERR_INVALID_ARG_VALUE"
  /** `client.readFile` returned something other than bytes, or detached the buffer while it was read. Nothing was changed. */
  | "ERR_INVALID_RETURN_VALUE"
  /**
   * Not supported: a part larger than this Node's buffers, or a tree that grows too large through symlinks that are
   * followed. The upload was stopped.
   */
  | "ERR_SANDBOX_UNSUPPORTED"
  /** No binary for this machine; the message says what to do. Thrown by each call that needs one, never by the import. */
  | "ERR_SANDBOX_BINDING_NOT_FOUND"
  /** From a ready-made client: a command in the sandbox failed (`exitCode`, `stderr`). */
  | "ERR_SANDBOX_COMMAND_FAILED"
  /** From a ready-made client: a command was stopped after `timeoutMs`, or another call after the client's `deadlineMs`. */
  | "ERR_SANDBOX_COMMAND_TIMEOUT"
  /** From a ready-made client: not all bytes of a file arrived. */
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
  /** The failed system call, where there was one. */
  syscall?: string;
  /** From a ready-made client: whether the same call may succeed later. */
  retryable?: boolean;
  /** The HTTP status with which Cloudflare's bridge refused. */
  status?: number;
  /** How a command ended; `null` where a signal ended it. */
  exitCode?: number | null;
  /** The end of what a command that failed said on its error output. */
  stderr?: string;
  /** How long a command could take, in milliseconds. */
  timeoutMs?: number;
}
