// @ts-check
"use strict";

const { spawn } = require("node:child_process");
const { createReadStream, createWriteStream } = require("node:fs");
const { mkdir, readdir, rm, stat } = require("node:fs/promises");
const path = require("node:path");
const { pipeline } = require("node:stream/promises");

const { checkedDuration, checkedPath, commandFailed } = require("./errors.js");
const { errorOutput, exitOf } = require("./process.js");
const { answeredInTime } = require("./shell.js");
const { collected, pieces, sortedNames } = require("./transfer.js");

/**
 * @param {import("./local.js").LocalClientOptions} [options]
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createLocalClient({ root, shell = "sh", env } = {}) {
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

  return {
    async makeDir(remotePath) {
      await mkdir(located(remotePath), { recursive: true });
    },

    async writeFile(remotePath, bytes, { onProgress } = {}) {
      const target = located(remotePath);
      await mkdir(path.dirname(target), { recursive: true });
      await pipeline(pieces(bytes, onProgress), createWriteStream(target));
      await onProgress?.(bytes.byteLength, bytes.byteLength);
    },

    async readFile(remotePath, { onProgress } = {}) {
      const source = located(remotePath);
      const { size } = await stat(source);
      const content = await collected(createReadStream(source), size, onProgress);
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const entries = await readdir(located(remotePath), { withFileTypes: true }).catch((error) => {
        if (error.code === "ENOENT") return [];
        throw error;
      });
      return sortedNames(entries.filter((entry) => entry.isFile()).map((entry) => entry.name));
    },

    async remove(remotePath) {
      await rm(located(remotePath), { recursive: true, force: true });
    },

    async run(command, { timeoutMs }) {
      const limit = checkedDuration("timeoutMs", timeoutMs);
      // A process group of its own, so that everything the command started can be ended with it.
      const child = spawn(shell, ["-c", command], {
        detached: true,
        env: { ...process.env, ...env },
        stdio: ["ignore", "ignore", "pipe"],
      });
      const stderr = errorOutput(child.stderr);
      const { exitCode, signal } = await answeredInTime(exitOf(child), command, limit).catch((error) => {
        endGroup(child);
        // A process that left the group may hold it open for as long as it likes.
        child.stderr.destroy();
        throw error;
      });
      if (exitCode !== 0) throw commandFailed(command, { exitCode, signal, stderr: stderr() });
    },
  };
}

/** @param {import("node:child_process").ChildProcess} leader of a process group */
function endGroup({ pid }) {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    // The group ended by itself just now, and that is all that was wanted.
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "ESRCH") throw error;
  }
}

module.exports = { createLocalClient };
