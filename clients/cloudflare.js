// @ts-check
"use strict";

const {
  checkedDuration,
  checkedPath,
  commandFailed,
  invalidArgument,
  transferIncomplete,
} = require("./errors.js");
const { keptAlive, refreshInterval } = require("./refresh.js");
const { answeredInTime, shellCommand, stoppedInTime } = require("./shell.js");
const { sortedNames } = require("./transfer.js");

/** An hour without a request: long enough for an agent to think between two commands. */
const DEFAULT_SLEEP_AFTER = "1h";

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000 };

/**
 * The most bytes that travel in one call. As base64 in JSON they stay well below the 32 MiB that a call to a
 * Durable Object may carry.
 */
const DEFAULT_CHUNK_BYTES = 4 * 1024 * 1024;

/** How long the client's own short commands may take, in milliseconds. */
const HOUSEKEEPING_MS = 60_000;

/**
 * How much longer than the command's own limit the SDK may wait, in milliseconds: this client ends the wait
 * itself.
 */
const SDK_SLACK_MS = 30_000;

/**
 * @template {object} [T={}]
 * @param {T & import("./cloudflare.js").CloudflareSleepOptions} [overrides]
 * @returns {import("./cloudflare.js").WithSleepAfter<T>}
 */
function cloudflareSandboxOptions(overrides) {
  /** @type {import("./cloudflare.js").CloudflareSleepOptions} */
  const options = { ...overrides, sleepAfter: overrides?.sleepAfter ?? DEFAULT_SLEEP_AFTER };
  if (options.keepAlive === true) delete options.sleepAfter;
  // The compiler cannot follow that what remains of the overrides is what `Omit` leaves of their type.
  return /** @type {any} */ (options);
}

/** @param {string | number} sleepAfter as the SDK takes it: seconds, or a number with a unit */
function sleepAfterMs(sleepAfter) {
  const [, count, unit] = /^(\d+)([smh])?$/.exec(String(sleepAfter)) ?? [];
  const ms = Number(count) * UNIT_MS[/** @type {keyof typeof UNIT_MS} */ (unit ?? "s")];
  if (!(ms > 0)) {
    throw invalidArgument("sleepAfter", 'must be seconds or a text like "30s", "5m" or "1h"', sleepAfter);
  }
  return ms;
}

/**
 * @param {import("./cloudflare.js").CloudflareSandbox} sandbox
 * @param {import("./cloudflare.js").CloudflareClientOptions} [options]
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createCloudflareClient(sandbox, options = {}) {
  const {
    sleepAfter = DEFAULT_SLEEP_AFTER,
    keepAlive = false,
    chunkBytes = DEFAULT_CHUNK_BYTES,
    timers,
  } = options;
  if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 1) {
    throw invalidArgument("chunkBytes", "must be a whole number of bytes, at least 1", chunkBytes);
  }
  const intervalMs = refreshInterval(sleepAfterMs(sleepAfter));
  /** @type {<T>(work: () => Promise<T>) => Promise<T>} */
  const alive = keepAlive
    ? (work) => work()
    : keptAlive({ refresh: () => sandbox.renewActivityTimeout?.(), intervalMs, timers });

  /**
   * @param {string} commandLine
   * @param {string} named what a failure calls it
   * @param {number} limit
   */
  async function execute(commandLine, named, limit) {
    const answer = sandbox.exec(commandLine, { timeout: limit + SDK_SLACK_MS });
    const { exitCode, stdout, stderr } = await answeredInTime(answer, named, limit);
    if (exitCode !== 0) throw commandFailed(named, { exitCode, stderr });
    return stdout;
  }

  /**
   * @param {string} script
   * @param {string[]} args
   */
  function shell(script, ...args) {
    return execute(shellCommand(script, ...args), script, HOUSEKEEPING_MS);
  }

  /** @param {string} remotePath */
  async function sizeOf(remotePath) {
    const size = Number((await shell('wc -c < "$1"', remotePath)).trim());
    if (!Number.isSafeInteger(size)) throw new Error(`the sandbox did not tell the size of ${remotePath}`);
    return size;
  }

  /**
   * @param {string} remotePath
   * @param {ArrayBuffer} bytes
   * @param {number} start
   * @param {number} end
   */
  async function writePart(remotePath, bytes, start, end) {
    const content = Buffer.from(bytes, start, end - start).toString("base64");
    await sandbox.writeFile(remotePath, content, { encoding: "base64" });
  }

  /** @param {string} remotePath */
  async function readPart(remotePath) {
    const { content } = await sandbox.readFile(remotePath, { encoding: "base64" });
    return Buffer.from(content, "base64");
  }

  /**
   * Runs `work` with the name of a new file beside `remotePath`, for content on its way, and removes the file
   * after.
   *
   * @template T
   * @param {string} remotePath
   * @param {(part: string) => Promise<T>} work
   */
  async function withPart(remotePath, work) {
    const part = `${remotePath}.${crypto.randomUUID()}.part`;
    try {
      return await work(part);
    } finally {
      await shell('rm -f "$1" "$1.joined"', part).catch(() => {
        // What went wrong before, if anything did, matters more than a left-over file.
      });
    }
  }

  return {
    async makeDir(remotePath) {
      await alive(() => sandbox.mkdir(checkedPath(remotePath), { recursive: true }));
    },

    async writeFile(remotePath, bytes, { onProgress } = {}) {
      const target = checkedPath(remotePath);
      const total = bytes.byteLength;
      await alive(async () => {
        if (total <= chunkBytes) return await writePart(target, bytes, 0, total);
        await withPart(target, async (part) => {
          for (let start = 0; start < total; start += chunkBytes) {
            if (start > 0) await onProgress?.(start, total);
            await writePart(part, bytes, start, Math.min(start + chunkBytes, total));
            await shell('cat "$1" >> "$1.joined"', part);
          }
          const arrived = await sizeOf(`${part}.joined`);
          if (arrived !== total) throw transferIncomplete(target, arrived, total);
          await shell('[ ! -d "$2" ] && mv -f "$1" "$2"', `${part}.joined`, target);
        });
      });
      await onProgress?.(total, total);
    },

    async readFile(remotePath, { onProgress } = {}) {
      const source = checkedPath(remotePath);
      const content = await alive(async () => {
        const total = await sizeOf(source);
        const chunks = [];
        let arrived = 0;
        if (total <= chunkBytes) {
          const chunk = await readPart(source);
          chunks.push(chunk);
          arrived = chunk.byteLength;
        } else {
          await withPart(source, async (part) => {
            for (let index = 0; index * chunkBytes < total; index += 1) {
              if (index > 0) await onProgress?.(arrived, total);
              const slice = 'dd if="$1" of="$2" bs="$3" skip="$4" count=1 2>/dev/null';
              await shell(slice, source, part, String(chunkBytes), String(index));
              const chunk = await readPart(part);
              chunks.push(chunk);
              arrived += chunk.byteLength;
            }
          });
        }
        if (arrived !== total) throw transferIncomplete(source, arrived, total);
        return Buffer.concat(chunks, arrived);
      });
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const folder = checkedPath(remotePath);
      return await alive(async () => {
        const { exists } = await sandbox.exists(folder);
        if (!exists) return [];
        const { files } = await sandbox.listFiles(folder, { includeHidden: true });
        return sortedNames(files.filter((file) => file.type === "file").map((file) => file.name));
      });
    },

    async remove(remotePath) {
      // The SDK's own `deleteFile` refuses a folder.
      await alive(() => shell('rm -rf "$1"', checkedPath(remotePath)));
    },

    async run(command, { timeoutMs }) {
      const limit = checkedDuration("timeoutMs", timeoutMs);
      await alive(() => execute(stoppedInTime(command, limit), command, limit));
    },
  };
}

module.exports = { cloudflareSandboxOptions, createCloudflareClient };
