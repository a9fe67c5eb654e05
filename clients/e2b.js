// @ts-check
"use strict";

const { checkedDuration, checkedPath, commandFailed } = require("./errors.js");
const { keptAlive, refreshInterval } = require("./refresh.js");
const { answeredInTime, stoppedInTime } = require("./shell.js");
const { collected, sortedNames } = require("./transfer.js");

/** One hour: the longest lifetime that every E2B plan allows. */
const DEFAULT_LIFETIME_MS = 3_600_000;

/** The shortest lifetime that makes sense: E2B counts in whole seconds. */
const SHORTEST_LIFETIME_MS = 1_000;

/**
 * How much longer than the command's own limit the SDK may wait, in milliseconds. This client ends the wait
 * itself; the SDK's limit, a minute unless it is told otherwise, only has to be out of the way.
 */
const SDK_SLACK_MS = 30_000;

/** How long a download may stand still, in milliseconds. */
const DOWNLOAD_IDLE_MS = 60_000;

/**
 * @param {import("./e2b.js").E2bSandbox} sandbox
 * @param {import("./e2b.js").E2bClientOptions} [options]
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createE2bClient(sandbox, { lifetimeMs = DEFAULT_LIFETIME_MS, user, timers } = {}) {
  const lifetime = checkedDuration("lifetimeMs", lifetimeMs, SHORTEST_LIFETIME_MS);
  const intervalMs = refreshInterval(lifetime);
  const alive = keptAlive({
    // Bounded by the interval, so that a refresh that hangs does not keep the next one from starting.
    refresh: () => sandbox.setTimeout(lifetime, { requestTimeoutMs: intervalMs }),
    intervalMs,
    timers,
  });
  const asUser = user === undefined ? {} : { user };
  // The SDK's own limit of a minute for a request is too short for a large archive.
  const transfer = { ...asUser, requestTimeoutMs: lifetime };

  return {
    async makeDir(remotePath) {
      await alive(() => sandbox.files.makeDir(checkedPath(remotePath), asUser));
    },

    async writeFile(remotePath, bytes, { onProgress } = {}) {
      await alive(() => sandbox.files.write(checkedPath(remotePath), bytes, transfer));
      await onProgress?.(bytes.byteLength, bytes.byteLength);
    },

    async readFile(remotePath, { onProgress } = {}) {
      const content = await alive(async () => {
        const stream = await sandbox.files.read(checkedPath(remotePath), {
          ...transfer,
          format: "stream",
          streamIdleTimeoutMs: DOWNLOAD_IDLE_MS,
        });
        return await collected(stream, null, onProgress);
      });
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const entries = await alive(() => sandbox.files.list(checkedPath(remotePath), asUser)).catch(
        (error) => {
          if (isNotFound(error)) return [];
          throw error;
        },
      );
      return sortedNames(entries.filter((entry) => entry.type === "file").map((entry) => entry.name));
    },

    async remove(remotePath) {
      await alive(() => sandbox.files.remove(checkedPath(remotePath), asUser)).catch((error) => {
        if (!isNotFound(error)) throw error;
      });
    },

    async run(command, { timeoutMs }) {
      const limit = checkedDuration("timeoutMs", timeoutMs);
      await alive(async () => {
        const answer = sandbox.commands.run(stoppedInTime(command, limit), {
          ...asUser,
          timeoutMs: limit + SDK_SLACK_MS,
        });
        await answeredInTime(answer, command, limit).catch((error) => {
          if (!isExit(error)) throw error;
          throw commandFailed(command, { exitCode: error.exitCode, stderr: error.stderr, cause: error });
        });
      });
    },
  };
}

// The SDK's errors are told by name and shape, not by class: this module does not depend on the SDK, and a
// program may hold two copies of it.

/** @param {unknown} error */
function isNotFound(error) {
  return error instanceof Error && ["FileNotFoundError", "NotFoundError"].includes(error.name);
}

/**
 * @param {unknown} error
 * @returns {error is Error & { exitCode: number, stderr: string }}
 */
function isExit(error) {
  return error instanceof Error && error.name === "CommandExitError";
}

module.exports = { createE2bClient };
