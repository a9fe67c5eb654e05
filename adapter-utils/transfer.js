"use strict";

// How files reach a sandbox and come back: by what its client can do natively, and by the six methods of any client.

const { native } = require("../binding.js");
const { awaitNative } = require("../js/native.js");
const { fs, os, path } = require("../js/node.js");
const { quote, replaceFolder } = require("./commands.js");

/** @import * as own from "./index.js" */

/** @type {typeof own.assertSyncOperationsConfined} */
function assertSyncOperationsConfined(operations, { sourceRoots, targetRoots }) {
  /**
   * @param {string} place
   * @param {string[]} roots
   * @param {string} label
   */
  const confine = (place, roots, label) => {
    const { isAbsolute, normalize } = path.posix;
    const plain = normalize(place);
    // `normalize` has removed every `..` of an absolute path.
    if (!isAbsolute(plain)) {
      throw new Error(`sync operation ${label} path is not a confined absolute path: ${place}`);
    }
    const isIn = (/** @type {string} */ root) => {
      const folder = normalize(root).replace(/\/$/, "");
      return plain === folder || plain.startsWith(`${folder}/`);
    };
    if (!roots.some(isIn)) {
      throw new Error(`sync operation ${label} path escapes its confinement root: ${place}`);
    }
  };
  for (const { sourcePath, targetPath } of operations.flatMap((operation) => operation.files)) {
    confine(sourcePath, sourceRoots, "source");
    confine(targetPath, targetRoots, "target");
  }
}

/**
 * Packs a folder into a file.
 *
 * @param {object} input
 * @param {string} input.localDir
 * @param {string} input.archivePath
 * @param {string[]} [input.exclude]
 * @param {boolean} [input.followSymlinks]
 * @param {string[]} [input.only] Nothing but these paths and the folders above them.
 */
async function pack({ localDir, archivePath, exclude = [], followSymlinks = false, only }) {
  const input = { localDir, archivePath, exclude, ignoreFiles: [], followSymlinks, only };
  const canceller = new (native().Canceller)();
  await awaitNative(native().createTarballFromDirectory(JSON.stringify(input), canceller));
}

/**
 * Calls `work` with a temporary folder, which is removed afterwards.
 *
 * @template T
 * @param {string} prefix
 * @param {(dir: string) => Promise<T>} fn
 */
async function withTemporaryFolder(prefix, fn) {
  const dir = await fs.promises.mkdtemp(path.join(os.tmpdir(), prefix));
  try {
    return await fn(dir);
  } finally {
    // If it cannot be removed, the system's clean-up of temporary files does.
    await fs.promises.rm(dir, { recursive: true, force: true }).catch(() => undefined);
  }
}

/**
 * A file's bytes in memory of their own, which a client may transfer.
 *
 * @param {string} file
 */
async function bytesOf(file) {
  const { buffer, byteOffset, byteLength } = await fs.promises.readFile(file);
  return /** @type {ArrayBuffer} */ (buffer).slice(byteOffset, byteOffset + byteLength);
}

/**
 * @param {Buffer | Uint8Array | ArrayBuffer} bytes
 * @returns {Buffer}
 */
const toBuffer = (bytes) =>
  ArrayBuffer.isView(bytes)
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : Buffer.from(bytes);

/**
 * Uploads: natively where the client can, otherwise by its six methods.
 *
 * @param {own.SandboxManagedRuntimeClient} client
 * @param {own.SandboxSyncOperation[]} operations
 * @param {number} timeoutMs Of a command that has no limit of its own.
 * @param {own.SandboxTransferProgressOptions} [progress]
 * @returns {Promise<own.SandboxSyncResult>}
 */
async function send(client, operations, timeoutMs, progress) {
  if (typeof client.syncIn === "function") return client.syncIn(operations);
  const done = [];
  for (const { operationId, files, postUploadCommands = [] } of operations) {
    let bytesTransferred = 0;
    for (const file of files) bytesTransferred += await sendOne(client, file, timeoutMs, progress);
    for (const { command, cwd, timeoutMs: limit = timeoutMs } of postUploadCommands) {
      const there = cwd === undefined ? command : `cd ${quote(cwd)} && ${command}`;
      await client.run(there, { timeoutMs: limit });
    }
    done.push({ operationId, filesTransferred: files.length, bytesTransferred });
  }
  return { operations: done };
}

/**
 * @param {own.SandboxManagedRuntimeClient} client
 * @param {own.SandboxSyncFileMapping} file
 * @param {number} timeoutMs
 * @param {own.SandboxTransferProgressOptions} [progress]
 */
async function sendOne(client, file, timeoutMs, progress) {
  const { sourcePath, targetPath } = file;
  const write = async (/** @type {string} */ from, /** @type {string} */ to) => {
    await client.makeDir(path.posix.dirname(to));
    const bytes = await bytesOf(from);
    // The client may detach the buffer.
    const size = bytes.byteLength;
    await (progress ? client.writeFile(to, bytes, progress) : client.writeFile(to, bytes));
    return size;
  };
  if (file.kind === "directory") {
    return withTemporaryFolder("paperclip-sandbox-sync-", async (dir) => {
      const archivePath = path.join(dir, "folder.tar");
      const { exclude, followSymlinks } = file;
      await pack({ localDir: sourcePath, archivePath, exclude, followSymlinks });
      const archive = `${targetPath}-upload.tar`;
      const size = await write(archivePath, archive);
      await client.run(replaceFolder(targetPath, archive), { timeoutMs });
      return size;
    });
  }
  const size = await write(sourcePath, targetPath);
  if (file.mode !== undefined) {
    const mode = (file.mode & 0o7777).toString(8);
    await client.run(`chmod ${mode} ${quote(targetPath)}`, { timeoutMs });
  }
  return size;
}

/**
 * How many bytes an answer says were transferred. A provider may answer anything.
 *
 * @param {own.SandboxSyncResult} result
 */
function bytesTransferred(result) {
  const counts = result.operations.map(({ bytesTransferred: count }) => count);
  return counts.filter((count) => Number.isFinite(count) && count > 0).reduce((sum, count) => sum + count, 0);
}

const ACTIVE_MAX = 4;

/**
 * Runs tasks in their order: one at a time, or up to four where that is allowed. All that have begun have ended when this
 * does.
 *
 * @template T
 * @param {(() => Promise<T>)[]} tasks
 * @param {boolean} atOnce
 * @returns {Promise<PromiseSettledResult<T>[]>}
 */
async function schedule(tasks, atOnce) {
  /** @type {PromiseSettledResult<T>[]} */
  const results = [];
  let next = 0;
  const work = async () => {
    while (next < tasks.length) {
      const at = next++;
      [results[at]] = await Promise.allSettled([tasks[at]()]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce ? ACTIVE_MAX : 1, tasks.length) }, work));
  return results;
}

module.exports = {
  assertSyncOperationsConfined,
  bytesTransferred,
  pack,
  schedule,
  send,
  toBuffer,
  withTemporaryFolder,
};
