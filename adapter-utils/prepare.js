"use strict";

// Prepare and restore as adapter-utils' releases do them: uploads as tasks, then downloads as tasks.

const check = require("../js/check.js");
const { codedError, invalidValue } = require("../js/errors.js");
const { crypto, fs, os, path } = require("../js/node.js");
const {
  GIT_EXCLUDES,
  NESTED_GIT,
  RUNTIME,
  heavyExcludes,
  isOrIsBelow,
  mergeExcludes,
} = require("./excludes.js");
const { checkWorkspace, replaceFolder } = require("./commands.js");
const { referencedSourceIgnoreExcludeEntries } = require("./ignored.js");
const { restoreTree, succeeds, whereGone } = require("./incoming.js");
const { packWorkspace, readSnapshot, select } = require("./outgoing.js");
const { status, transferProgress } = require("./progress.js");
const { REPOSITORIES } = require("./repository.js");
const { finishIndex } = require("./staged.js");
const {
  assertSyncOperationsConfined,
  bytesTransferred,
  pack,
  schedule,
  send,
  toBuffer,
  withTemporaryFolder,
} = require("./transfer.js");

/**
 * @import * as own from "./index.js"
 * @import { Selection } from "./outgoing.js"
 * @import { Tree } from "./incoming.js"
 */

/** Keys that an asset may not have: its archive would have the name of the workspace's. */
const RESERVED_KEYS = ["workspace", "git-workspace"];

/** @param {string} name */
const isOneName = (name) => name !== "" && name !== "." && !/[/\\]|\.\./.test(name);

/**
 * Checks the directories in the sandbox that are emptied.
 *
 * @param {Parameters<typeof own.prepareSandboxManagedRuntime>[0]} input
 */
function checkRemoteDirs({ workspaceRemoteDir, spec, adapterKey }) {
  const isOwn = workspaceRemoteDir !== undefined && workspaceRemoteDir !== null;
  const argument = isOwn ? "input.workspaceRemoteDir" : "input.spec.remoteCwd";
  const dir = workspaceRemoteDir ?? spec.remoteCwd;
  check.string(argument, dir);
  if (path.posix.normalize(dir) === "/") {
    const root = "it is the sandbox's root, and everything in it would be deleted; pass a directory below it";
    throw invalidValue(argument, root, dir);
  }
  check.string("input.adapterKey", adapterKey);
  if (!isOneName(adapterKey)) throw invalidValue("input.adapterKey", "it must be a single name", adapterKey);
}

/** @param {own.SandboxManagedRuntimeAsset[]} assets */
function checkKeys(assets) {
  for (const { key } of assets) {
    if (!isOneName(key)) throw new Error(`sandbox runtime asset key is not a simple path segment: ${key}`);
    if (RESERVED_KEYS.includes(key)) {
      throw new Error(`sandbox runtime asset key collides with a reserved runtime archive name: ${key}`);
    }
    if (assets.filter((asset) => asset.key === key).length > 1) {
      throw new Error(`sandbox runtime asset key is given twice: ${key}`);
    }
  }
}

/**
 * Refuses a directory in the workspace that is reached through a link there: an agent may have put the link in its place, and what it
 * leads to would be uploaded. A link on the way to the workspace is no matter.
 *
 * @param {string} what
 * @param {string} dir
 * @param {string} workspace
 */
async function refuseLinked(what, dir, workspace) {
  const real = await fs.promises.realpath(workspace);
  const isWorkspace = (/** @type {string} */ above) =>
    fs.promises.realpath(above).then(
      (found) => found === real,
      // What is not there is no workspace, and packing says so.
      () => false,
    );
  let link;
  for (let at = path.resolve(dir); at !== path.dirname(at); at = path.dirname(at)) {
    if (await isLink(at)) link = at;
    if (!(await isWorkspace(path.dirname(at)))) continue;
    if (link === undefined) return;
    throw new Error(
      `${what} is refused: ${link} is a symlink in the workspace, and what it leads to would be uploaded. Name the real directory, or pass followSymlinks`,
    );
  }
}

/** @param {string} at */
async function isLink(at) {
  const found = await fs.promises.lstat(at).catch((/** @type {NodeJS.ErrnoException} */ error) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  return found?.isSymbolicLink() ?? false;
}

/**
 * Whether a path exists. Any failure but a missing path is thrown.
 *
 * @param {string} dir
 */
async function exists(dir) {
  try {
    await fs.promises.access(dir);
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return false;
    throw error;
  }
}

/**
 * Tells a workspace from others that may be uploaded to the same sandbox.
 *
 * @param {string} dir
 */
async function idOf(dir) {
  const name = `${os.hostname()}\0${await fs.promises.realpath(dir)}`;
  return crypto.createHash("sha256").update(name).digest("hex");
}

/**
 * The changed paths of a checkout whose names a string cannot have.
 *
 * @param {string} dir
 * @param {own.GitWorkspaceSnapshot} snapshot
 */
async function withoutName(dir, { overlayPaths, deletedPaths }) {
  const found = [];
  for (const name of [...overlayPaths, ...deletedPaths].filter((each) => each.includes("\ufffd"))) {
    if (!(await exists(path.join(dir, name)))) found.push(name);
  }
  return found;
}

/**
 * @param {object} parts
 * @param {own.GitFunctions} parts.git
 * @param {own.InstanceRootResolver} parts.resolveInstanceRoot
 * @param {typeof own.resolveReferencedSourceIgnore} parts.resolveIgnore
 * @returns {typeof own.prepareSandboxManagedRuntime}
 */
function createPrepare({ git, resolveInstanceRoot, resolveIgnore }) {
  return async function prepareSandboxManagedRuntime(input) {
    check.object("input", input);
    check.object("input.spec", input.spec);
    check.client(input.client, ["makeDir", "writeFile", "run", "readFile", "remove"]);
    const { client, spec, onProgress: onLine, onRuntimeProgress: onStatus } = input;
    const { timeoutMs } = spec;
    const dir = check.localPath("input.workspaceLocalDir", input.workspaceLocalDir);
    checkRemoteDirs(input);
    const workspaceRemoteDir = input.workspaceRemoteDir ?? spec.remoteCwd;
    const runtimeRootDir = path.posix.join(workspaceRemoteDir, RUNTIME, input.adapterKey);
    const assets = input.assets ?? [];
    const sources = input.additionalSources ?? [];
    const mode = input.workspaceInboundMode ?? "host_current";
    const seed = input.workspaceDurableSeed;
    const preserve = check.strings("input.preserveAbsentOnRestore", input.preserveAbsentOnRestore);

    // A caller that wants neither an upload nor a restore of the workspace has only assets transferred.
    const syncsWorkspace = input.syncWorkspace !== false && (await exists(dir));
    const uploaded = syncsWorkspace ? await fs.promises.stat(dir) : undefined;
    const id = syncsWorkspace ? await idOf(dir) : "";
    const sends = syncsWorkspace && mode !== "adopt_remote";
    const packs = sends || (syncsWorkspace && seed !== undefined);
    if (mode === "durable_seed" && !seed) throw new Error("workspace_durable_seed_missing");
    checkKeys(assets);
    for (const { key, localDir, followSymlinks } of syncsWorkspace ? assets : []) {
      const what = `asset ${key}`;
      if (!followSymlinks) await refuseLinked(what, check.localPath(what, localDir), dir);
    }

    /** @type {own.RuntimeSpanRunner} */
    const span = (name, work) => (input.runtimeSpan ? input.runtimeSpan(name, work) : work());
    let operations = 0;
    const nextOperationId = () => `sync-op-${++operations}`;

    /** @type {Selection | undefined} */
    let selection;
    /**
     * What is sent, or was by an earlier run. Where nothing is, and nobody says what was, nothing is known to be shared.
     *
     * @type {own.DirectorySnapshot["entries"]}
     */
    let base = input.workspaceBaseline?.entries ?? new Map();
    if (syncsWorkspace) {
      const say = async (/** @type {string} */ text) => void (await onLine?.(`[paperclip] ${text}\n`));
      const given = input.workspaceGitSnapshot;
      const snapshot =
        given === undefined ? await span("snapshot.git", () => readSnapshot(git, dir, say)) : given;
      const ignore = snapshot ? null : await resolveIgnore(dir);
      if (ignore?.kind === "failed") throw new Error(`Workspace ignore scan failed: ${ignore.reason}`);
      const unreadable = snapshot ? await withoutName(dir, snapshot) : [];
      if (unreadable.length > 0) {
        await say(`Not uploaded as they are now, since their names are not UTF-8: ${unreadable.join(", ")}`);
      }
      for (const at of snapshot ? ["", ...(snapshot.repositories ?? []).map((inner) => inner.path)] : []) {
        const ref = await finishIndex(path.join(dir, at));
        if (ref) await say(`What was staged in the workspace is kept as ${ref}`);
      }
      const choose = async () => {
        selection = await select({ dir, snapshot, ignore, exclude: input.workspaceExclude, preserve });
      };
      await (input.workspaceBaseline ? choose() : span("snapshot.baseline", choose));
    }

    /**
     * @param {object} staging
     * @param {own.SandboxSyncFileMapping[]} staging.files
     * @param {own.SandboxPostUploadCommand[]} [staging.postUploadCommands]
     * @param {string[]} staging.sourceRoots
     * @param {string[]} staging.targetRoots
     * @param {string} staging.label
     * @param {number} staging.bytes How many are known to travel.
     */
    const stage = async ({ files, postUploadCommands, sourceRoots, targetRoots, label, bytes }) => {
      const operation = {
        operationId: nextOperationId(),
        files,
        ...(postUploadCommands && {
          postUploadCommands: postUploadCommands.map((command) => ({ timeoutMs, ...command })),
        }),
      };
      assertSyncOperationsConfined([operation], { sourceRoots, targetRoots });
      const what = `Syncing ${label} to`;
      const progress = transferProgress({ what, phase: "config_sync", onLine, onStatus });
      const result = await send(client, [operation], timeoutMs, progress.options);
      await progress.finish(bytesTransferred(result) || bytes);
    };

    /** @param {string} temporary */
    const stageWorkspace = async (temporary) => {
      const chosen = /** @type {Selection} */ (selection);
      const packed = await span("pack", () =>
        packWorkspace({
          git,
          dir,
          id,
          temporary,
          remoteDir: workspaceRemoteDir,
          runtimeRootDir,
          selection: chosen,
          preserve,
          seed,
          fromSeed: mode === "durable_seed",
          beforeHistory: () => status(onStatus, "git_sync", "Syncing git history to environment"),
          beforeFiles: () => status(onStatus, "config_sync", "Syncing workspace to environment"),
        }),
      );
      if (!sends) return;
      if (!input.workspaceBaseline) base = packed.entries;
      const { files, postUploadCommands, bytes } = packed;
      const roots = { sourceRoots: [temporary], targetRoots: [runtimeRootDir] };
      await stage({ files, postUploadCommands, bytes, label: "workspace", ...roots });
    };

    /**
     * @param {string} temporary
     * @param {own.SandboxManagedRuntimeAsset} asset
     */
    const stageAsset = async (temporary, { key, localDir, followSymlinks, exclude, provision }) => {
      await status(onStatus, "config_sync", "Syncing runtime assets to environment");
      const assetDir = path.posix.join(runtimeRootDir, key);
      const assetTarPath = path.posix.join(runtimeRootDir, `${key}-upload.tar`);
      const archivePath = path.join(temporary, `${key}.tar`);
      await pack({
        localDir: check.localPath(`asset ${key}`, localDir),
        archivePath,
        exclude,
        followSymlinks,
      });
      /** @type {own.SandboxSyncFileMapping[]} */
      const files = [
        {
          sourcePath: archivePath,
          targetPath: assetTarPath,
          kind: "file",
          access: "rw",
          writablePath: assetDir,
        },
      ];
      for (const { name, contents } of provision?.stageFiles ?? []) {
        if (!isOneName(name))
          throw new Error(`provision stageFile.name must be a simple basename, got: ${name}`);
        const sourcePath = path.join(temporary, `${key}.stage.${name}`);
        await fs.promises.writeFile(sourcePath, contents);
        files.push({
          sourcePath,
          targetPath: path.posix.join(runtimeRootDir, name),
          kind: "file",
          access: "ro",
        });
      }
      const command =
        provision?.postUploadCommand?.({ assetTarPath, assetDir, runtimeRootDir }) ??
        replaceFolder(assetDir, assetTarPath);
      await stage({
        files,
        postUploadCommands: [{ command }],
        sourceRoots: [temporary],
        targetRoots: [runtimeRootDir],
        label: key,
        bytes: (await fs.promises.stat(archivePath)).size,
      });
    };

    /** @type {Record<string, string>} */
    const additionalSourceDirs = {};
    /** @param {own.SandboxAdditionalSource} source */
    const stageSource = async ({ localPath, projectId, ignoreResolution }) => {
      if (!path.posix.isAbsolute(localPath)) {
        throw new Error(`additional source localPath is not an absolute path: ${localPath}`);
      }
      if (!isOneName(projectId)) {
        throw new Error(`additional source projectId is not a simple path segment: ${projectId}`);
      }
      // It is not known what git ignores, and that may be secret.
      if (ignoreResolution.kind === "failed") {
        throw new Error(`referenced project ignore resolution failed: ${ignoreResolution.reason}`);
      }
      const label = `project-${projectId}`;
      const targetPath = path.posix.join(runtimeRootDir, label);
      const ignored = referencedSourceIgnoreExcludeEntries(ignoreResolution);
      const exclude = mergeExcludes(heavyExcludes(), [".git"], ignored);
      await status(onStatus, "config_sync", "Syncing referenced project to environment");
      await stage({
        files: [{ sourcePath: localPath, targetPath, kind: "directory", exclude, access: "ro" }],
        sourceRoots: [localPath],
        targetRoots: [targetPath],
        label,
        bytes: 0,
      });
      additionalSourceDirs[projectId] = targetPath;
    };

    const atOnce = client.allowConcurrentSyncOperations === true;
    const additionalSourceFailures = await withTemporaryFolder(
      "paperclip-sandbox-sync-",
      async (temporary) => {
        const required = assets.map((asset) => ({
          name: `stage.asset.${asset.key}`,
          work: () => stageAsset(temporary, asset),
        }));
        if (packs) required.unshift({ name: "stage.workspace", work: () => stageWorkspace(temporary) });
        /** @type {(string | undefined)[]} */
        const failures = [];
        const optional = sources.map((source, at) => ({
          name: `stage.project.${source.projectId}`,
          // The failure of one project is reported, and does not fail the others.
          work: () =>
            stageSource(source).catch((error) => {
              failures[at] = error instanceof Error ? error.message : String(error);
            }),
        }));
        const tasks = [...required, ...optional].map(
          ({ name, work }) =>
            () =>
              span(name, work),
        );
        throwFirst(await schedule(tasks, atOnce), required.length);
        return sources.flatMap(({ projectId }, at) => {
          const error = failures[at];
          return error === undefined ? [] : [{ projectId, error }];
        });
      },
    );

    const trees = selection ? treesOf(selection) : [];

    /**
     * The workspace, with the repositories in it that have histories of their own before it.
     *
     * @param {Selection} chosen
     * @returns {Tree[]}
     */
    function treesOf(chosen) {
      const repositories = chosen.snapshot?.repositories ?? [];
      const paths = repositories.map((repository) => repository.path);
      const isInner = new Set(paths);
      const given = input.workspaceBaseline?.exclude ?? [];
      const outer = {
        localDir: dir,
        remoteDir: workspaceRemoteDir,
        runtimeRootDir,
        snapshot: chosen.snapshot,
        base: new Map([...base].filter(([name]) => !isOrIsBelow(name, isInner))),
        head: undefined,
        shared: undefined,
        busy: chosen.busy.get(""),
        leftOut: { ...chosen.leftOut, snapshot: [...chosen.leftOut.snapshot, ...given, REPOSITORIES] },
        nativeExclude: chosen.nativeExclude,
        tarExclude: chosen.tarExclude,
      };
      const inner = repositories.map(({ path: at, snapshot }, number) => {
        const below = (/** @type {string[]} */ patterns) =>
          patterns.flatMap((pattern) => {
            if (pattern.startsWith(`${at}/`)) return [pattern.slice(at.length + 1)];
            return pattern.startsWith("*/") ? [pattern] : [];
          });
        const exclude = mergeExcludes(
          heavyExcludes(),
          GIT_EXCLUDES,
          [RUNTIME],
          snapshot.ignoredPaths,
          below([...chosen.exclude, ...given]),
        );
        const prefix = `${at}/`;
        return {
          localDir: path.join(dir, at),
          remoteDir: path.posix.join(workspaceRemoteDir, at),
          runtimeRootDir: path.posix.join(runtimeRootDir, `repository-${number}`),
          snapshot,
          base: new Map(
            [...base].flatMap(([name, entry]) =>
              name.startsWith(prefix) ? [[name.slice(prefix.length), entry]] : [],
            ),
          ),
          head: undefined,
          shared: undefined,
          busy: chosen.busy.get(at),
          leftOut: { snapshot: [...exclude, ...NESTED_GIT], tar: chosen.leftOut.tar },
          nativeExclude: mergeExcludes(heavyExcludes(), GIT_EXCLUDES, input.workspaceExclude),
          tarExclude: mergeExcludes(chosen.leftOut.tar, heavyExcludes(), [".git"]),
        };
      });
      return [...inner, outer];
    }

    /** @param {own.RuntimeProgressSink} [onRestoreLine] */
    const restoreWorkspace = async (onRestoreLine) => {
      const way = {
        git,
        resolveInstanceRoot,
        client,
        timeoutMs,
        nextOperationId,
        onLine: onRestoreLine ?? onLine,
        onStatus,
      };
      const restoreFiles = async () => {
        const [now, workspace] = await Promise.all([fs.promises.stat(dir), fs.promises.realpath(dir)]);
        if (now.dev !== uploaded?.dev || now.ino !== uploaded.ino) {
          const why = `'${dir}' is no longer the directory that was uploaded: another one, or a link, is in its place`;
          const message = `${why}; nothing was changed. Put the workspace back and restore again`;
          throw codedError(Error, "ERR_WORKSPACE_REPLACED", message, { path: dir });
        }
        if (sends && !(await succeeds(checkWorkspace(workspaceRemoteDir, id), way))) {
          const why = `another workspace than '${dir}' was uploaded to the environment's ${workspaceRemoteDir} since`;
          const message = `${why}; nothing was changed. Prepare again, with a remote directory of its own for each workspace`;
          throw codedError(Error, "ERR_SANDBOX_REPLACED", message);
        }
        for (const tree of trees) {
          const below = path.relative(dir, tree.localDir);
          const gone = below === "" ? undefined : await whereGone(tree, way);
          if (gone !== undefined) {
            const left = `the repository ${below} is gone ${gone}, and stays as it is on the other side`;
            await way.onLine?.(`[paperclip] ${left}\n`);
            continue;
          }
          if ((await fs.promises.realpath(tree.localDir)) !== path.join(workspace, below)) {
            throw new Error("Project repository escaped its workspace");
          }
          await restoreTree(tree, way);
        }
      };
      const tasks = assets.flatMap(({ key, restore }) =>
        restore
          ? [
              () =>
                span(`restore.asset.${key}`, () =>
                  withTemporaryFolder("paperclip-sandbox-restore-", (tempDir) =>
                    restore({
                      assetDir: path.posix.join(runtimeRootDir, key),
                      readFile: async (remotePath) => toBuffer(await client.readFile(remotePath)),
                      tempDir,
                    }),
                  ),
                ),
            ]
          : [],
      );
      if (trees.length > 0) tasks.unshift(() => span("restore.workspace", restoreFiles));
      throwFirst(await schedule(tasks, atOnce));
    };

    return {
      spec,
      workspaceLocalDir: input.workspaceLocalDir,
      workspaceRemoteDir,
      runtimeRootDir,
      assetDirs: Object.fromEntries(assets.map(({ key }) => [key, path.posix.join(runtimeRootDir, key)])),
      additionalSourceDirs,
      additionalSourceFailures,
      workspaceSyncSnapshot: selection
        ? {
            baseline: input.workspaceBaseline ?? { exclude: selection.exclude, entries: base },
            gitSnapshot: selection.snapshot,
          }
        : null,
      restoreWorkspace,
    };
  };
}

/**
 * Throws the failure of the first task in order that failed, whichever failed first in time.
 *
 * @param {PromiseSettledResult<unknown>[]} results
 * @param {number} [count] How many of them must not fail.
 */
function throwFirst(results, count = results.length) {
  const failed = results.slice(0, count).find((result) => result.status === "rejected");
  if (failed?.status === "rejected") throw failed.reason;
}

module.exports = { createPrepare };
