// @ts-check
"use strict";

const {
  attempted,
  bestEffort,
  hasNotBegun,
  leavingNothing,
  limited,
  neverSilent,
  retried,
} = require("./attempts.js");
const {
  checkedDuration,
  checkedLimits,
  checkedObject,
  checkedOptions,
  checkedPath,
  checkedRunOptions,
  checkedText,
  commandFailed,
  commandTimedOut,
  connectionLost,
  invalidType,
} = require("./errors.js");
const { keptAlive, refreshInterval } = require("./refresh.js");
const { shellCommand, STOP_CALL, stoppedInTime } = require("./shell.js");
const { checkedContent, collected, onlyForward, sortedNames, streamOf } = require("./transfer.js");

/** One hour: the longest lifetime that every E2B plan allows. */
const DEFAULT_LIFETIME_MS = 3_600_000;

/** The shortest lifetime that makes sense: E2B counts in whole seconds. */
const SHORTEST_LIFETIME_MS = 1_000;

/**
 * How much longer than the command's own limit the SDK may wait, in milliseconds. This client ends the wait
 * itself; the SDK's limit, a minute unless it is told otherwise, only has to be longer.
 */
const SDK_SLACK_MS = 30_000;

/** How long a download may stand still, in milliseconds. */
const DOWNLOAD_IDLE_MS = 60_000;

/** How long ending a command may take, in milliseconds. */
const STOP_LIMIT_MS = 10_000;

/**
 * Runs the script after `$2` with its arguments, but the call `$1` only once: an attempt that is not the first
 * (`$2`) ends at once where another one has begun, or may have.
 */
const ONCE = `calls=/tmp/.paperclip-calls attempt=$2
mkdir -m 1777 "$calls" 2>/dev/null
find "$calls" -type f -mmin +120 -exec rm -f {} + 2>/dev/null
(set -C; : > "$calls/$1") 2>/dev/null || [ "$attempt" -eq 1 ] || { echo "$1 has begun" >&2; exit 76; }
shift 2
exec sh -c "$@"`;

/** The exit code by which {@link ONCE} says that the call has begun. */
const HAS_BEGUN = 76;

/**
 * @param {import("./e2b.js").E2bSandbox} sandbox
 * @param {import("./e2b.js").E2bClientOptions} [options]
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createE2bClient(sandbox, options = {}) {
  checkedObject("sandbox", sandbox, "must be a Sandbox of the e2b package");
  const {
    lifetimeMs = DEFAULT_LIFETIME_MS,
    user,
    gzip = false,
    timers,
    ...limits
  } = checkedOptions(options, ["lifetimeMs", "user", "gzip", "timers"]);
  const lifetime = checkedDuration("lifetimeMs", lifetimeMs, SHORTEST_LIFETIME_MS);
  checkedText("user", user);
  if (typeof gzip !== "boolean") throw invalidType("gzip", "must be true or false", gzip);
  const { deadlineMs, maxDownloadBytes } = checkedLimits(limits);
  const intervalMs = refreshInterval(lifetime);
  const alive = keptAlive({
    // Bounded by the interval, so that a refresh that hangs does not keep the next one from starting.
    refresh: () => sandbox.setTimeout(lifetime, { requestTimeoutMs: intervalMs }),
    intervalMs,
    timers,
  });
  const asUser = user === undefined ? {} : { user };
  // The SDK's own limit of a minute for a request is too short for a large archive.
  const transfer = { ...asUser, requestTimeoutMs: deadlineMs, ...(gzip && { gzip }) };

  /**
   * @template T
   * @param {string} call
   * @param {AbortSignal | undefined} signal
   * @param {(signal: AbortSignal) => Promise<T>} attempt
   */
  function kept(call, signal, attempt) {
    return alive(() => attempted({ call, deadlineMs, signal }, attempt));
  }

  /**
   * Sends a file under another name and renames it once it is complete: the sandbox keeps what had arrived of
   * an upload that broke off.
   *
   * @param {string} target
   * @param {ArrayBuffer} bytes
   * @param {AbortSignal} signal
   * @param {import("./transfer.js").OnProgress} onProgress
   * @param {string[]} left gets what may be left of it when it fails
   */
  async function send(target, bytes, signal, onProgress, left) {
    const { files } = sandbox;
    const part = files.rename === undefined ? target : `${target}.${crypto.randomUUID()}.part`;
    try {
      await neverSilent(signal, `write ${target}`, async (given, moved, stop) => {
        const reported = async (/** @type {number} */ done, /** @type {number | null} */ total) => {
          moved();
          await onProgress?.(done, total);
        };
        // An empty stream is no body to some versions of `fetch`.
        const content = bytes.byteLength === 0 ? bytes : streamOf(bytes, reported, stop);
        await files.write(part, content, { ...transfer, useOctetStream: true, signal: given });
      });
      signal.throwIfAborted();
      if (part !== target) await files.rename?.(part, target, { ...asUser, signal });
    } catch (error) {
      // Where the SDK renames nothing, a later attempt puts the file in the same place.
      if (part !== target) left.push(part);
      await bestEffort(() => files.remove(part, asUser));
      throw error;
    }
  }

  /**
   * The size of a file, where the SDK tells it. That of a link says nothing about what it leads to.
   *
   * @param {string} source
   * @param {AbortSignal} signal
   */
  async function sizeOf(source, signal) {
    const info = await sandbox.files.getInfo?.(source, { ...asUser, signal });
    return info === undefined || info.symlinkTarget !== undefined ? null : info.size;
  }

  /**
   * @param {string} command
   * @param {number} limit
   * @param {string} call
   * @param {number} attempt from 1
   * @param {AbortSignal} signal
   */
  async function execute(command, limit, call, attempt, signal) {
    const [stopped, ...args] = stoppedInTime(command, limit, call);
    const commandLine = shellCommand(ONCE, call, String(attempt), stopped, "sh", ...args);
    const answer = sandbox.commands.run(commandLine, { ...asUser, timeoutMs: limit + SDK_SLACK_MS, signal });
    await answer.catch((error) => {
      if (!isExit(error)) throw error;
      if (attempt > 1 && error.exitCode === HAS_BEGUN && error.stderr === `${call} has begun\n`) {
        throw connectionLost(command, "It had begun when the connection was lost.", { cause: error });
      }
      throw commandFailed(command, { exitCode: error.exitCode, stderr: error.stderr, cause: error });
    });
  }

  return {
    allowConcurrentSyncOperations: true,

    async makeDir(remotePath) {
      const folder = checkedPath(remotePath);
      await kept(`make the folder ${folder}`, undefined, (signal) =>
        sandbox.files.makeDir(folder, { ...asUser, signal }),
      );
    },

    async writeFile(remotePath, bytes, { onProgress, signal } = {}) {
      const target = checkedPath(remotePath);
      const content = checkedContent(bytes);
      const forward = onlyForward(onProgress);
      await leavingNothing(
        (left) => kept(`write ${target}`, signal, (given) => send(target, content, given, forward, left)),
        (left) => Promise.all(left.map((part) => sandbox.files.remove(part, asUser))),
      );
      await onProgress?.(content.byteLength, content.byteLength);
    },

    async readFile(remotePath, { onProgress, signal } = {}) {
      const source = checkedPath(remotePath);
      const forward = onlyForward(onProgress);
      const content = await kept(`read ${source}`, signal, async (given) => {
        const total = await sizeOf(source, given);
        return await neverSilent(given, `read ${source}`, async (heard, moved) => {
          const stream = await sandbox.files.read(source, {
            ...transfer,
            signal: heard,
            format: "stream",
            streamIdleTimeoutMs: DOWNLOAD_IDLE_MS,
          });
          const reported = async (/** @type {number} */ done, /** @type {number | null} */ of) => {
            moved();
            await forward?.(done, of);
          };
          return await collected(stream, {
            total,
            remotePath: source,
            maxDownloadBytes,
            onProgress: reported,
          });
        });
      });
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const folder = checkedPath(remotePath);
      const entries = await kept(`list ${folder}`, undefined, (signal) =>
        sandbox.files.list(folder, { ...asUser, signal }).catch((error) => {
          if (isNotFound(error)) return [];
          throw error;
        }),
      );
      return sortedNames(entries.filter((entry) => entry.type === "file").map((entry) => entry.name));
    },

    async remove(remotePath) {
      const target = checkedPath(remotePath);
      await kept(`remove ${target}`, undefined, (signal) =>
        sandbox.files.remove(target, { ...asUser, signal }).catch((error) => {
          if (!isNotFound(error)) throw error;
        }),
      );
    },

    async run(command, options) {
      const { limit, signal } = checkedRunOptions(options);
      const call = crypto.randomUUID();
      const timedOut = () => commandTimedOut(command, limit);
      await alive(() =>
        limited({ limitMs: limit, signal, timedOut }, async (given) => {
          try {
            let attempts = 0;
            const attempt = () => execute(command, limit, call, (attempts += 1), given);
            await retried(given, attempt, (error) => hasNotBegun(error) || isUnavailable(error));
          } catch (error) {
            // Only attempts of this call know of each other.
            if (isUnavailable(error)) Object.assign(/** @type {object} */ (error), { retryable: false });
            // The SDK only stops waiting: what was started runs on.
            if (given.aborted) {
              const stop = shellCommand(STOP_CALL, call);
              await bestEffort(() => sandbox.commands.run(stop, { ...asUser, timeoutMs: STOP_LIMIT_MS }));
            }
            throw error;
          }
        }),
      );
    },
  };
}

// The SDK's errors are told by name and shape, not by class: this module does not depend on the SDK, and a
// program may hold two copies of it.

/**
 * Whether a command was refused before it reached the sandbox. The SDK does not tell a 429 or 503, with which nothing began, from a 502 or
 * 504, with which it may have.
 *
 * @param {unknown} error
 */
function isUnavailable(error) {
  return error instanceof Error && /^Sandbox is probably not running/.test(error.message);
}

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
