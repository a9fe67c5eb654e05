// @ts-check
"use strict";

const {
  childProcess: { spawn },
  fs: {
    constants,
    promises: { open, mkdir, readdir, rename, rm },
  },
  path,
} = require("../js/node.js");

const { attempted, limited, untilAborted } = require("./attempts.js");
const {
  checkedLimits,
  checkedObject,
  checkedOptions,
  checkedPath,
  checkedRunOptions,
  checkedText,
  commandFailed,
  commandTimedOut,
  transferIncomplete,
} = require("./errors.js");
const { errorOutput, exitOf } = require("./process.js");
const { acceptedSize, checkedContent, pieces, sortedNames } = require("./transfer.js");

/** How many bytes are written or read in one call of the system. */
const BLOCK_BYTES = 256 * 1024;

/**
 * @param {import("./local.js").LocalClientOptions} [options]
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createLocalClient(options = {}) {
  const { root, shell = "sh", env, ...limits } = checkedOptions(options, ["root", "shell", "env"]);
  const { deadlineMs, maxDownloadBytes } = checkedLimits(limits);
  checkedText("root", root);
  checkedText("shell", shell);
  if (env !== undefined) checkedObject("env", env);
  const base = root === undefined ? undefined : path.resolve(root);

  /** @param {string} remotePath */
  function located(remotePath) {
    const resolved = path.resolve(checkedPath(remotePath));
    if (base !== undefined && path.relative(base, resolved).split(path.sep)[0] === "..") {
      const error = new Error(
        `unsafe path ${JSON.stringify(remotePath)}: it lies outside of the client's root ${base}`,
      );
      throw Object.assign(error, { code: "ERR_SANDBOX_UNSAFE_PATH" });
    }
    return resolved;
  }

  /**
   * A system call. One that hangs, as on a network volume, cannot be ended, but the deadline ends the waiting.
   *
   * @template T
   * @param {string} call
   * @param {() => Promise<T>} work
   */
  function called(call, work) {
    return attempted(
      { call, deadlineMs },
      async (given) => /** @type {T} */ (await untilAborted(given, work())),
    );
  }

  return {
    allowConcurrentSyncOperations: true,

    async makeDir(remotePath) {
      const folder = located(remotePath);
      await called(`mkdir -p ${folder}`, () => mkdir(folder, { recursive: true }));
    },

    async writeFile(remotePath, bytes, { onProgress, signal } = {}) {
      const target = located(remotePath);
      const content = checkedContent(bytes);
      await attempted({ call: `write ${target}`, deadlineMs, signal }, async (given) => {
        await mkdir(path.dirname(target), { recursive: true });
        // Beside the file, so that a rename puts it in place at once: a partial file is never visible.
        const part = `${target}.${crypto.randomUUID()}.part`;
        try {
          const file = await open(part, "wx");
          try {
            for await (const piece of pieces(content, onProgress, BLOCK_BYTES)) {
              given.throwIfAborted();
              await file.writeFile(piece);
            }
          } finally {
            await file.close();
          }
          await rename(part, target);
        } catch (error) {
          await rm(part, { force: true });
          throw error;
        }
      });
      await onProgress?.(content.byteLength, content.byteLength);
    },

    async readFile(remotePath, { onProgress, signal } = {}) {
      const source = located(remotePath);
      const content = await attempted({ call: `read ${source}`, deadlineMs, signal }, async (given) => {
        // Opened without waiting: a pipe would have no other end.
        const file = await open(source, constants.O_RDONLY | constants.O_NONBLOCK);
        try {
          const stats = await file.stat();
          if (stats.isDirectory()) throw notRegular("EISDIR", source);
          if (!stats.isFile()) throw notRegular("EINVAL", source);
          const { size } = stats;
          const whole = Buffer.allocUnsafeSlow(acceptedSize(size, source, maxDownloadBytes));
          for (let start = 0; start < size;) {
            given.throwIfAborted();
            const length = Math.min(BLOCK_BYTES, size - start);
            const { bytesRead } = await file.read(whole, start, length, start);
            if (bytesRead === 0) throw transferIncomplete(source, start, size);
            start += bytesRead;
            if (start < size) await onProgress?.(start, size);
          }
          return whole;
        } finally {
          await file.close();
        }
      });
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const folder = located(remotePath);
      const entries = await called(`list ${folder}`, () =>
        readdir(folder, { withFileTypes: true }).catch((error) => {
          if (error.code === "ENOENT") return [];
          throw error;
        }),
      );
      return sortedNames(entries.filter((entry) => entry.isFile()).map((entry) => entry.name));
    },

    async remove(remotePath) {
      const target = located(remotePath);
      await called(`rm -rf ${target}`, () => rm(target, { recursive: true, force: true }));
    },

    async run(command, options) {
      const { limit, signal } = checkedRunOptions(options);
      const timedOut = () => commandTimedOut(command, limit);
      await limited({ limitMs: limit, signal, timedOut }, async (given) => {
        // A process group of its own, so that everything the command started can be ended with it.
        const child = spawn(shell, ["-c", command], {
          detached: true,
          env: { ...process.env, ...env },
          stdio: ["ignore", "ignore", "pipe"],
        });
        const stderr = errorOutput(child.stderr);
        const end = () => {
          endGroup(child);
          // A process that left the group may hold it open for as long as it likes.
          child.stderr.destroy();
        };
        given.addEventListener("abort", end, { once: true });
        const { exitCode, signal: endedBy } = await exitOf(child);
        if (exitCode !== 0) throw commandFailed(command, { exitCode, signal: endedBy, stderr: stderr() });
      });
    },
  };
}

/**
 * @param {string} code
 * @param {string} source
 */
function notRegular(code, source) {
  return Object.assign(new Error(`${code}: ${source} is not a regular file`), { code, path: source });
}

/** @param {import("node:child_process").ChildProcess} leader of a process group */
function endGroup({ pid }) {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    // The group has just ended by itself.
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "ESRCH") throw error;
  }
}

module.exports = { createLocalClient };
