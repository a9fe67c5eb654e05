// @ts-check
"use strict";

const {
  attempted,
  bestEffort,
  hasNotBegun,
  isTemporary,
  limited,
  neverSilent,
  retried,
  untilAborted,
} = require("./attempts.js");
const { createCloudflareBridgeClient } = require("./bridge.js");
const {
  checkedCount,
  checkedLimits,
  checkedObject,
  checkedOptions,
  checkedPath,
  checkedRunOptions,
  commandFailed,
  commandTimedOut,
  invalidArgument,
  invalidType,
  transferIncomplete,
} = require("./errors.js");
const { keptAlive, refreshInterval } = require("./refresh.js");
const { shellCommand, SIZE, STOP_CALL, stoppedInTime } = require("./shell.js");
const {
  acceptedSize,
  checkedContent,
  collected,
  onlyForward,
  sortedNames,
  streamOf,
} = require("./transfer.js");

/** An hour without a request: long enough for an agent to think between two commands. */
const DEFAULT_SLEEP_AFTER = "1h";

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000 };

/**
 * The most bytes that travel in one call. As base64 in JSON they stay well below the 32 MiB that a call to a
 * Durable Object may carry, and are written and read in one go without a stall.
 */
const DEFAULT_CHUNK_BYTES = 2 * 1024 * 1024;

/** What the SDK's `getSandbox` takes and this client has no use for. The same options may be given to both. */
const OPTIONS_OF_THE_SDK = /** @type {const} */ ([
  "containerTimeouts",
  "enableDefaultSession",
  "labels",
  "normalizeId",
  "transport",
]);

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
  checkedObject("sandbox", sandbox, "must be a sandbox of the @cloudflare/sandbox package");
  const {
    sleepAfter = DEFAULT_SLEEP_AFTER,
    keepAlive = false,
    chunkBytes = DEFAULT_CHUNK_BYTES,
    streams = false,
    timers,
    ...limits
  } = checkedOptions(options, [
    "sleepAfter",
    "keepAlive",
    "chunkBytes",
    "streams",
    "timers",
    ...OPTIONS_OF_THE_SDK,
  ]);
  checkedCount("chunkBytes", chunkBytes, 1);
  for (const [name, value] of Object.entries({ keepAlive, streams })) {
    if (typeof value !== "boolean") throw invalidType(name, "must be true or false", value);
  }
  const { deadlineMs, maxDownloadBytes } = checkedLimits(limits);
  const intervalMs = refreshInterval(sleepAfterMs(sleepAfter));
  /** @type {<T>(work: () => Promise<T>) => Promise<T>} */
  const alive = keepAlive
    ? (work) => work()
    : keptAlive({ refresh: () => sandbox.renewActivityTimeout?.(), intervalMs, timers });

  /**
   * @template T
   * @param {string} call
   * @param {AbortSignal | undefined} signal
   * @param {(signal: AbortSignal) => Promise<T>} attempt
   */
  function called(call, signal, attempt) {
    return alive(() => attempted({ call, deadlineMs, signal }, attempt));
  }

  /**
   * The SDK takes no signal: an abort ends the waiting.
   *
   * @param {string} commandLine
   * @param {string} named what a failure calls it
   * @param {number} limit
   * @param {AbortSignal} signal
   */
  async function execute(commandLine, named, limit, signal) {
    const answer = sandbox.exec(commandLine, { timeout: limit + SDK_SLACK_MS });
    const { exitCode, stdout, stderr } = await within(signal, answer);
    if (exitCode !== 0) throw commandFailed(named, { exitCode, stderr });
    return stdout;
  }

  /**
   * @param {AbortSignal} signal
   * @param {string} script
   * @param {string[]} args
   */
  function shell(signal, script, ...args) {
    const line = shellCommand(script, ...args);
    return neverSilent(signal, script, (heard) => execute(line, script, HOUSEKEEPING_MS, heard));
  }

  /**
   * @param {AbortSignal} signal
   * @param {string} remotePath
   */
  async function sizeOf(signal, remotePath) {
    const size = Number((await shell(signal, SIZE, remotePath)).trim());
    if (!Number.isSafeInteger(size)) throw new Error(`the sandbox did not tell the size of ${remotePath}`);
    return size;
  }

  /**
   * @param {AbortSignal} signal
   * @param {string} remotePath
   * @param {ArrayBuffer} bytes
   * @param {number} start
   * @param {number} end
   */
  async function writePart(signal, remotePath, bytes, start, end) {
    const content = Buffer.from(bytes, start, end - start).toString("base64");
    const call = `write ${remotePath}`;
    const write = () =>
      neverSilent(signal, call, async (heard) => {
        // Waited for also after an abort: what is removed before it has arrived would be there afterwards.
        await sandbox.writeFile(remotePath, content, { encoding: "base64" });
        heard.throwIfAborted();
      });
    await retried(signal, write, isAnswered, false);
  }

  /**
   * @param {AbortSignal} signal
   * @param {string} remotePath
   * @param {ArrayBuffer} bytes
   * @param {import("./transfer.js").OnProgress} onProgress
   */
  async function writeStream(signal, remotePath, bytes, onProgress) {
    await neverSilent(signal, `write ${remotePath}`, async (heard, moved, stop) => {
      const reported = async (/** @type {number} */ done, /** @type {number | null} */ total) => {
        heard.throwIfAborted();
        moved();
        await onProgress?.(done, total);
      };
      // Waited for also after an abort, as above.
      await sandbox.writeFile(remotePath, streamOf(bytes, reported, stop));
      heard.throwIfAborted();
    });
  }

  /**
   * Reads a part into `place`, which is taken again for the next one: memory that is new each time costs more than
   * the decoding.
   *
   * @param {AbortSignal} signal
   * @param {string} remotePath
   * @param {Buffer} place
   */
  async function readPart(signal, remotePath, place) {
    const read = (/** @type {AbortSignal} */ heard) =>
      within(heard, sandbox.readFile(remotePath, { encoding: "base64" }));
    return await retried(signal, async () => {
      const { content } = await neverSilent(signal, `read ${remotePath}`, read);
      const length = Buffer.byteLength(content, "base64");
      if (length > place.byteLength) throw transferIncomplete(remotePath, length, place.byteLength);
      return place.subarray(0, place.write(content, "base64"));
    });
  }

  /**
   * @param {string} source
   * @param {number} total
   * @param {AbortSignal} signal
   */
  async function* partsOf(source, total, signal) {
    const place = Buffer.allocUnsafeSlow(Math.min(total, chunkBytes));
    if (total <= chunkBytes) {
      yield await readPart(signal, source, place);
      return;
    }
    const slice = 'dd if="$1" of="$2" bs="$3" skip="$4" count=1 2>/dev/null';
    const part = `${source}.${crypto.randomUUID()}.part`;
    try {
      for (let index = 0; index * chunkBytes < total; index += 1) {
        await shell(signal, slice, source, part, String(chunkBytes), String(index));
        yield await readPart(signal, part, place);
      }
    } finally {
      await removeParts(part);
    }
  }

  /** @param {string} part */
  async function removeParts(part) {
    const { signal } = new AbortController();
    await bestEffort(() => shell(signal, 'rm -f "$1" "$1.joined"', part));
  }

  /**
   * Ends the processes of a call. The sandbox's own session runs one command after the other, and so would
   * wait for the very command that is to end.
   *
   * @param {string} call
   */
  async function stop(call) {
    const command = shellCommand(STOP_CALL, call);
    const session = await sandbox.createSession?.({ id: `stop-${call}` });
    await (session ?? sandbox).exec(command, { timeout: HOUSEKEEPING_MS });
    if (session !== undefined) await sandbox.deleteSession?.(`stop-${call}`);
  }

  return {
    async makeDir(remotePath) {
      const folder = checkedPath(remotePath);
      await called(`make the folder ${folder}`, undefined, (signal) =>
        within(signal, sandbox.mkdir(folder, { recursive: true })),
      );
    },

    async writeFile(remotePath, bytes, { onProgress, signal } = {}) {
      const target = checkedPath(remotePath);
      const content = checkedContent(bytes);
      const total = content.byteLength;
      const forward = onlyForward(onProgress);
      await called(`write ${target}`, signal, async (given) => {
        if (total <= chunkBytes) return await writePart(given, target, content, 0, total);
        const part = `${target}.${crypto.randomUUID()}.part`;
        try {
          if (streams) {
            await writeStream(given, `${part}.joined`, content, forward);
          }
          for (let start = 0; !streams && start < total; start += chunkBytes) {
            if (start > 0) await forward?.(start, total);
            await writePart(given, part, content, start, Math.min(start + chunkBytes, total));
            await shell(given, 'cat "$1" >> "$1.joined"', part);
          }
          const arrived = await sizeOf(given, `${part}.joined`);
          if (arrived !== total) throw transferIncomplete(target, arrived, total);
          await shell(given, '[ ! -d "$2" ] && mv -f "$1" "$2"', `${part}.joined`, target);
        } finally {
          await removeParts(part);
        }
      });
      await onProgress?.(total, total);
    },

    async readFile(remotePath, { onProgress, signal } = {}) {
      const source = checkedPath(remotePath);
      const forward = onlyForward(onProgress);
      const content = await called(`read ${source}`, signal, async (given) => {
        const total = acceptedSize(await sizeOf(given, source), source, maxDownloadBytes);
        const limits = { total, remotePath: source, maxDownloadBytes };
        if (!streams) {
          return await collected(partsOf(source, total, given), { ...limits, onProgress: forward });
        }
        return await neverSilent(given, `read ${source}`, async (heard, moved) => {
          const { content } = await within(heard, sandbox.readFile(source, { encoding: "none" }));
          const reported = async (/** @type {number} */ done, /** @type {number | null} */ of) => {
            moved();
            await forward?.(done, of);
          };
          return await collected(untilAbort(heard, content), { ...limits, onProgress: reported });
        });
      });
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const folder = checkedPath(remotePath);
      return await called(`list ${folder}`, undefined, async (signal) => {
        const { exists } = await within(signal, sandbox.exists(folder));
        if (!exists) return [];
        const { files } = await within(signal, sandbox.listFiles(folder, { includeHidden: true }));
        return sortedNames(files.filter((file) => file.type === "file").map((file) => file.name));
      });
    },

    async remove(remotePath) {
      const target = checkedPath(remotePath);
      // The SDK's own `deleteFile` refuses a folder.
      const line = shellCommand('rm -rf "$1"', target);
      const call = `rm -rf ${target}`;
      // A large folder takes its time.
      await called(call, undefined, (signal) => execute(line, call, deadlineMs, signal));
    },

    async run(command, options) {
      const { limit, signal } = checkedRunOptions(options);
      const call = crypto.randomUUID();
      const commandLine = shellCommand(...stoppedInTime(command, limit, call));
      const timedOut = () => commandTimedOut(command, limit);
      await alive(() =>
        limited({ limitMs: limit, signal, timedOut }, async (given) => {
          try {
            await retried(given, () => execute(commandLine, command, limit, given), hasNotBegun);
          } catch (error) {
            if (given.aborted) await bestEffort(() => stop(call));
            throw error;
          }
        }),
      );
    },
  };
}

/**
 * @template T
 * @param {AbortSignal} signal
 * @param {Promise<T>} work
 * @returns {Promise<T>}
 */
async function within(signal, work) {
  return /** @type {T} */ (await untilAborted(signal, work));
}

/**
 * Whether a part may be sent again under the same name. A request without an answer may still arrive, after the next
 * one: then the whole file is sent again under another name.
 *
 * @param {unknown} error
 */
function isAnswered(error) {
  return (
    isTemporary(error) && /** @type {{ code?: unknown }} */ (error).code !== "ERR_SANDBOX_CONNECTION_LOST"
  );
}

/**
 * The same chunks, until `signal` aborts, also where the next one never comes.
 *
 * @param {AbortSignal} signal
 * @param {AsyncIterable<Uint8Array>} source
 */
async function* untilAbort(signal, source) {
  const chunks = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await within(signal, chunks.next());
      if (done) return;
      yield value;
    }
  } finally {
    // Not awaited: an iterator whose `next` hangs would hang here as well.
    void chunks.return?.().catch(() => {});
  }
}

module.exports = { cloudflareSandboxOptions, createCloudflareBridgeClient, createCloudflareClient };
