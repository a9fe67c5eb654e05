"use strict";

// Decides what of a workspace is uploaded: which paths, in which archives, and what the sandbox has afterwards.

const { crypto, fs, path } = require("../js/node.js");
const {
  GIT_EXCLUDES,
  NESTED_GIT,
  RUNTIME,
  anchored,
  heavyExcludes,
  isOrIsBelow,
  mergeExcludes,
} = require("./excludes.js");
const { checkOutAsHere } = require("./checkout.js");
const { addToWorkspace, removePaths, replaceWorkspace } = require("./commands.js");
const { APPLE_DOUBLE, readArchive } = require("./merge.js");
const {
  REPOSITORIES,
  filesOfNested,
  hasNoCommit,
  ignoredAnywhere,
  isInRepository,
  readIndex,
  skipInIndex,
} = require("./repository.js");
const { operationIn } = require("./staged.js");
const { pack } = require("./transfer.js");

/**
 * @import * as own from "./index.js"
 * @import { LeftOut } from "./merge.js"
 */

/**
 * What is transferred between a workspace and its sandbox, and what is not.
 *
 * @typedef {object} Selection
 * @property {own.GitWorkspaceSnapshot | null} snapshot Of its repository, where the workspace is a checkout.
 * @property {string[]} exclude As the baseline has it.
 * @property {LeftOut} leftOut The same for the core, with the caller's patterns as tar takes them.
 * @property {string[]} packExclude Patterns for the upload of a workspace that is no checkout.
 * @property {string[]} nativeExclude Patterns for a provider's own download, which may match them at any depth.
 * @property {string[]} tarExclude Patterns for a download by the sandbox' tar, which names what it packs `./name`.
 * @property {string[]} overlay What of a checkout goes up beside its last commit.
 * @property {Map<string, string | undefined>} busy Why `HEAD` and the index of each of its repositories must not be changed.
 * @property {string[]} nested Repositories in it: their files go up, and are none of the outer history's.
 */

/**
 * Reads the state of a workspace's repository; `null` where there is none, or one that has no commit to send. What cannot be
 * used of the folder with further repositories is left out.
 *
 * @param {own.GitFunctions} git
 * @param {string} dir
 * @param {(text: string) => Promise<void>} say Is told what is left out.
 */
async function readSnapshot(git, dir, say) {
  try {
    return await git.readGitWorkspaceSnapshot(dir);
  } catch (error) {
    const { repositories, unusable } = await findRepositories(git, dir);
    // Then nothing in that folder is the reason.
    if (repositories.length === 0 && unusable.length === 0 && !(await hasNoCommit(dir))) throw error;
    const outer = await git.readGitWorkspaceSnapshot(dir, false).catch(async (failure) => {
      if (await hasNoCommit(dir)) return null;
      throw failure;
    });
    const reason = "the workspace itself is no checkout with a commit";
    const left = outer
      ? unusable
      : [...repositories.map((found) => ({ path: found.path, reason })), ...unusable];
    for (const { path: at, reason: why } of left) await say(`${at} is not uploaded: ${why}`);
    return outer && withRepositories(outer, repositories);
  }
}

/** @typedef {NonNullable<own.GitWorkspaceSnapshot["repositories"]>} Repositories */

/**
 * Reads the state of each further repository in a workspace, and why anything else in their folder is none.
 *
 * @param {own.GitFunctions} git
 * @param {string} dir
 */
async function findRepositories(git, dir) {
  /** @type {Repositories} */
  const repositories = [];
  /** @type {{ path: string, reason: string }[]} */
  const unusable = [];
  const root = path.join(dir, REPOSITORIES);
  const found = await fs.promises.lstat(root).catch((error) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (found && !found.isDirectory()) {
    unusable.push({ path: REPOSITORIES, reason: "it is no directory" });
    return { repositories, unusable };
  }
  for (const entry of found ? await fs.promises.readdir(root, { withFileTypes: true }) : []) {
    const at = `${REPOSITORIES}/${entry.name}`;
    if (!entry.isDirectory()) unusable.push({ path: at, reason: "it is no directory" });
    else if (!/^[a-zA-Z0-9_-]+$/.test(entry.name)) {
      unusable.push({ path: at, reason: "its name has other characters than letters, digits, - and _" });
    } else {
      const nested = path.join(dir, at);
      const snapshot = await git.readGitWorkspaceSnapshot(nested, false).catch(async (error) => {
        // It may be a folder in no repository at all.
        if ((await hasNoCommit(nested)) || !(await isInRepository(nested))) return null;
        throw error;
      });
      if (snapshot) repositories.push({ path: at, snapshot });
      else unusable.push({ path: at, reason: "it is no checkout with a commit" });
    }
  }
  repositories.sort((a, b) => a.path.localeCompare(b.path));
  return { repositories, unusable };
}

/**
 * The state of a workspace with those repositories, and with nothing else of their folder.
 *
 * @param {own.GitWorkspaceSnapshot} outer
 * @param {Repositories} repositories
 * @returns {own.GitWorkspaceSnapshot}
 */
function withRepositories(outer, repositories) {
  const folder = new Set([REPOSITORIES]);
  const all = (/** @type {"overlayPaths" | "deletedPaths" | "ignoredPaths"} */ kind) => [
    ...outer[kind].filter((name) => !isOrIsBelow(name.replace(/\/+$/, ""), folder)),
    ...repositories.flatMap(({ path: at, snapshot }) => snapshot[kind].map((name) => `${at}/${name}`)),
  ];
  return {
    ...outer,
    overlayPaths: all("overlayPaths"),
    deletedPaths: all("deletedPaths"),
    ignoredPaths: all("ignoredPaths"),
    ...(repositories.length > 0 ? { repositories } : {}),
  };
}

/**
 * Decides what is transferred.
 *
 * @param {object} workspace
 * @param {string} workspace.dir
 * @param {own.GitWorkspaceSnapshot | null} workspace.snapshot
 * @param {own.ReferencedSourceIgnoreResolution | null} workspace.ignore
 * @param {string[]} [workspace.exclude]
 * @param {string[]} [workspace.preserve]
 * @returns {Promise<Selection>}
 */
async function select({ dir, snapshot, ignore, exclude: callers = [], preserve = [] }) {
  const isTracked = snapshot !== null || ignore?.kind === "git";
  const { submodules, heavyNames } = isTracked
    ? await readIndex(dir)
    : { submodules: [], heavyNames: undefined };
  const heavy = heavyExcludes(heavyNames);
  const ignored = snapshot?.ignoredPaths ?? (ignore?.kind === "git" ? ignore.ignoredPaths : []);
  const repositories = (snapshot?.repositories ?? []).map((repository) => repository.path);
  const everywhere = isTracked ? await ignoredAnywhere(dir, ignored) : [];
  const exclude = mergeExcludes(heavy, GIT_EXCLUDES, [RUNTIME], preserve, callers, ignored);

  const { overlay, nested } = snapshot
    ? await overlayOf(dir, snapshot, submodules)
    : { overlay: [], nested: [] };
  return {
    snapshot,
    exclude,
    leftOut: { snapshot: [...exclude, ...NESTED_GIT], tar: [APPLE_DOUBLE, ...callers] },
    packExclude: [
      ...heavy,
      ".git",
      `./${RUNTIME}`,
      // Of a checkout, only what is named goes up.
      ...(snapshot ? [] : [anchored(REPOSITORIES)]),
      ...callers,
      ...callers.map(anchored),
      ...ignored.map(anchored),
    ],
    nativeExclude: mergeExcludes(heavy, GIT_EXCLUDES, [RUNTIME], callers, everywhere, repositories),
    tarExclude: mergeExcludes(
      [APPLE_DOUBLE, ...heavy, ".git", `./${RUNTIME}`, ...callers],
      [...callers, ...preserve, ...ignored, REPOSITORIES].map(anchored),
    ),
    overlay,
    nested,
    busy: snapshot ? await operationsIn(dir, ["", ...repositories]) : new Map(),
  };
}

/**
 * @param {string} dir
 * @param {string[]} repositories
 */
async function operationsIn(dir, repositories) {
  /** @type {Map<string, string | undefined>} */
  const found = new Map();
  for (const at of repositories) found.set(at, await operationIn(path.join(dir, at)));
  return found;
}

/**
 * The paths of a checkout that are not in its last commit; those of nested repositories file by file.
 *
 * @param {string} dir
 * @param {own.GitWorkspaceSnapshot} snapshot
 * @param {string[]} submodules
 */
async function overlayOf(dir, snapshot, submodules) {
  const untracked = snapshot.overlayPaths
    .filter((name) => name.endsWith("/"))
    .map((name) => name.slice(0, -1));
  const isManaged = (/** @type {string} */ name) =>
    snapshot.repositories?.some((repository) => repository.path === name) ?? false;
  const nested = untracked.filter((name) => !isManaged(name));
  const files = [];
  for (const at of [...nested, ...submodules]) {
    // A submodule that was never fetched is an empty folder, or missing.
    const found = await fs.promises.readdir(path.join(dir, at)).catch(() => []);
    if (found.length > 0) files.push(...(await filesOfNested(dir, at)));
  }
  return { overlay: [...snapshot.overlayPaths.filter((name) => !name.endsWith("/")), ...files], nested };
}

/**
 * An archive to upload, and the command that extracts it.
 *
 * @typedef {object} Packed
 * @property {own.SandboxSyncFileMapping[]} files
 * @property {own.SandboxPostUploadCommand[]} postUploadCommands
 * @property {number} bytes
 * @property {own.DirectorySnapshot["entries"]} entries What the sandbox has afterwards.
 */

/**
 * Packs a workspace, or takes the archives of an earlier upload.
 *
 * @param {object} upload
 * @param {own.GitFunctions} upload.git
 * @param {string} upload.dir
 * @param {string} upload.id Tells the workspace from others.
 * @param {string} upload.temporary A folder for the archives.
 * @param {string} upload.remoteDir
 * @param {string} upload.runtimeRootDir
 * @param {Selection} upload.selection
 * @param {string[]} upload.preserve
 * @param {own.WorkspaceDurableSeedPaths} [upload.seed] Where the archives are kept, or come from.
 * @param {boolean} upload.fromSeed
 * @param {() => Promise<void>} upload.beforeHistory
 * @param {() => Promise<void>} upload.beforeFiles
 * @returns {Promise<Packed>}
 */
async function packWorkspace(upload) {
  const { dir, id, temporary, remoteDir, runtimeRootDir, selection, seed, fromSeed } = upload;
  const { snapshot } = selection;
  /** @type {Packed} */
  const packed = { files: [], postUploadCommands: [], bytes: 0, entries: new Map() };
  /**
   * @param {string} archive
   * @param {string} name
   */
  const add = async (archive, name) => {
    const targetPath = path.posix.join(runtimeRootDir, name);
    packed.files.push({
      sourcePath: archive,
      targetPath,
      kind: "file",
      access: "rw",
      writablePath: remoteDir,
    });
    packed.bytes += (await fs.promises.stat(archive)).size;
    return targetPath;
  };
  const run = (/** @type {string} */ command) => void packed.postUploadCommands.push({ command });

  const filesArchive = path.join(temporary, "workspace.tar");
  if (!snapshot) {
    await upload.beforeFiles();
    if (fromSeed) await takeSeed(seed?.workspaceArchivePath, seed?.workspaceArchiveSha256, filesArchive);
    else await pack({ localDir: dir, archivePath: filesArchive, exclude: selection.packExclude });
    const target = await add(filesArchive, "workspace-upload.tar");
    run(replaceWorkspace({ folder: remoteDir, id, archive: target, preserved: upload.preserve }));
    packed.entries = await readArchive(filesArchive, selection.leftOut);
  } else {
    await upload.beforeHistory();
    const gitArchive = path.join(temporary, "git-workspace.tar");
    if (fromSeed) {
      if (!seed?.gitArchivePath) throw new Error("workspace_durable_seed_git_missing");
      await takeSeed(seed.gitArchivePath, seed.gitArchiveSha256, gitArchive);
    } else {
      await packHistory(upload.git, dir, selection, gitArchive);
    }
    const history = await add(gitArchive, "git-workspace-upload.tar");
    run(replaceWorkspace({ folder: remoteDir, id, archive: history, isCheckout: true }));

    await upload.beforeFiles();
    const excluded = { snapshot: selection.leftOut.snapshot, tar: selection.packExclude };
    if (fromSeed) await takeSeed(seed?.workspaceArchivePath, seed?.workspaceArchiveSha256, filesArchive);
    else {
      const only = selection.overlay;
      await pack({ localDir: dir, archivePath: filesArchive, exclude: selection.packExclude, only });
    }
    const overlay = await readArchive(filesArchive, excluded);
    const gone = goneFrom(snapshot, overlay);
    for (const command of removePaths(remoteDir, gone)) run(command);
    run(addToWorkspace(remoteDir, await add(filesArchive, "workspace-upload.tar")));
    const committed = await readArchive(gitArchive, selection.leftOut);
    const isGone = new Set(gone);
    packed.entries = new Map(
      [...committed].filter(([name]) => !isOrIsBelow(name, isGone)).concat([...overlay]),
    );
    if (!fromSeed && seed?.gitArchivePath) await keepSeed(gitArchive, seed.gitArchivePath);
  }
  if (!fromSeed && seed) await keepSeed(filesArchive, seed.workspaceArchivePath);
  return packed;
}

/**
 * The paths of the last commit that are removed before the rest is extracted: what is deleted locally, and folders that are
 * no longer folders.
 *
 * @param {own.GitWorkspaceSnapshot} snapshot
 * @param {own.DirectorySnapshot["entries"]} overlay
 */
function goneFrom(snapshot, overlay) {
  const replaced = new Set();
  for (const deleted of snapshot.deletedPaths) {
    for (let at = deleted.lastIndexOf("/"); at > 0; at = deleted.lastIndexOf("/", at - 1)) {
      const above = deleted.slice(0, at);
      const entry = overlay.get(above);
      if (entry && entry.kind !== "dir") replaced.add(above);
    }
  }
  return [...replaced, ...snapshot.deletedPaths.filter((name) => !isOrIsBelow(name, replaced))];
}

/**
 * Whether a path has a name that is never packed.
 *
 * @param {string} name
 */
const isAppleDouble = (name) => `/${name}`.includes("/._");

/**
 * Packs a clone of the workspace's last commit.
 *
 * @param {own.GitFunctions} git
 * @param {string} dir
 * @param {Selection} selection
 * @param {string} archivePath
 */
async function packHistory(git, dir, { snapshot, nested }, archivePath) {
  const of = { localDir: dir, snapshot: /** @type {own.GitWorkspaceSnapshot} */ (snapshot) };
  await git.withShallowGitWorkspaceClone(of, async (clone) => {
    // Files of a nested repository must not get into this one's commits, nor those of this package.
    const lines = [RUNTIME, ...nested].map((name) => `/${name.replace(/[\\*?[!#]/g, "\\$&")}/\n`).join("");
    await fs.promises.mkdir(path.join(clone, ".git/info"), { recursive: true });
    await fs.promises.appendFile(path.join(clone, ".git/info/exclude"), `\n${lines}`);
    for (const at of ["", ...(snapshot?.repositories ?? []).map((repository) => repository.path)]) {
      await checkOutAsHere(path.join(clone, at), path.join(dir, at), dir);
    }
    // Files that are not packed would look deleted there.
    await skipInIndex(clone, (name) => isAppleDouble(name) || name.startsWith(`${RUNTIME}/`), dir);
    for (const repository of snapshot?.repositories ?? []) {
      await skipInIndex(path.join(clone, repository.path), isAppleDouble, dir);
    }
    await pack({ localDir: clone, archivePath, exclude: [`./${RUNTIME}`] });
  });
}

/**
 * Copies a kept archive, and checks that it is the expected one.
 *
 * @param {string | undefined} from
 * @param {string | null | undefined} sha256
 * @param {string} to
 */
async function takeSeed(from, sha256, to) {
  const found = from === undefined ? undefined : await fs.promises.lstat(from);
  if (from === undefined || !found?.isFile()) throw new Error("workspace_durable_seed_invalid");
  await fs.promises.copyFile(from, to);
  // The copy is checked, not the original, which may change.
  if (sha256 && (await digestOf(to)) !== sha256) throw new Error("workspace_durable_seed_digest_mismatch");
}

/** @param {string} file */
async function digestOf(file) {
  const hash = crypto.createHash("sha256");
  for await (const chunk of fs.createReadStream(file)) hash.update(chunk);
  return hash.digest("hex");
}

/**
 * Keeps an archive for a later upload. It appears complete or not at all, readable by its owner alone.
 *
 * @param {string} from
 * @param {string} to
 */
async function keepSeed(from, to) {
  const folder = path.dirname(to);
  await fs.promises.mkdir(folder, { recursive: true, mode: 0o700 });
  if (!(await fs.promises.lstat(folder)).isDirectory())
    throw new Error("workspace_durable_seed_root_invalid");
  const temporary = path.join(folder, `.${path.basename(to)}.${crypto.randomUUID()}.tmp`);
  try {
    await fs.promises.copyFile(from, temporary);
    await fs.promises.chmod(temporary, 0o600);
    await fs.promises.rename(temporary, to);
  } finally {
    await fs.promises.rm(temporary, { force: true });
  }
}

module.exports = { packWorkspace, readSnapshot, select };
