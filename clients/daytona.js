// @ts-check
"use strict";

const {
  path,
  stream: { Readable },
} = require("../js/node.js");

const {
  attempted,
  bestEffort,
  hasNotBegun,
  leavingNothing,
  limited,
  neverSilent,
  retried,
  untilAborted,
} = require("./attempts.js");
const {
  checkedLimits,
  checkedObject,
  checkedOptions,
  checkedPath,
  checkedRunOptions,
  commandFailed,
  commandTimedOut,
  transferIncomplete,
} = require("./errors.js");
const { keptAlive } = require("./refresh.js");
const {
  LIST,
  listedNames,
  PLAIN_PATH,
  portableCommand,
  SIZE,
  STOP_CALL,
  stoppedInTime,
} = require("./shell.js");
const { acceptedSize, checkedContent, collected, onlyForward, pieces } = require("./transfer.js");

/** How often Daytona is told that the sandbox is in use, in milliseconds. */
const REFRESH_MS = 60_000;

/** How long the client's own short commands may take, in milliseconds. */
const HOUSEKEEPING_MS = 600_000;

/** How much longer than a command's own limit Daytona may wait, in seconds: this client ends the wait itself. */
const SLACK_S = 30;

/** Puts `$1` in the place of `$2` if it has `$3` bytes. */
const PLACE = `if [ -d "$2" ]; then echo "$2 is a directory"; exit 1; fi
arrived=$(($(wc -c < "$1")))
if [ "$arrived" -ne "$3" ]; then echo "arrived $arrived"; exit 75; fi
mv -f "$1" "$2"`;

/** The exit code by which {@link PLACE} says that bytes are missing. */
const INCOMPLETE = 75;

/** Daytona joins both outputs into one. Only the error output is used. */
const ERRORS_ONLY = "exec 2>&1 >/dev/null\n";

/**
 * @param {import("./daytona.js").DaytonaSandbox} sandbox
 * @param {import("./daytona.js").DaytonaClientOptions} [options]
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createDaytonaClient(sandbox, options = {}) {
  checkedObject("sandbox", sandbox, "must be a Sandbox of the @daytonaio/sdk package");
  const { timers, ...limits } = checkedOptions(options, ["timers"]);
  const { deadlineMs, maxDownloadBytes } = checkedLimits(limits);
  const alive = keptAlive({ refresh: () => sandbox.refreshActivity?.(), intervalMs: REFRESH_MS, timers });
  const transferSeconds = Math.ceil(deadlineMs / 1000) + SLACK_S;

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
   * @param {string} call what a failure names it
   * @param {[script: string, ...args: string[]]} script
   * @param {number} limit
   * @param {AbortSignal} signal an abort ends the waiting: the SDK takes no signal here
   */
  async function execute(call, script, limit, signal) {
    const seconds = Math.ceil(limit / 1000) + SLACK_S;
    const answer = sandbox.process.executeCommand(portableCommand(...script), undefined, undefined, seconds);
    const ending = await untilAborted(signal, answer);
    const { exitCode, result = "" } = /** @type {NonNullable<typeof ending>} */ (ending);
    if (exitCode !== 0) throw commandFailed(call, { exitCode, stderr: result });
    return result;
  }

  /**
   * @param {string} call
   * @param {AbortSignal} signal
   * @param {string} script
   * @param {string[]} args
   */
  function shell(call, signal, script, ...args) {
    return execute(call, [script, ...args], HOUSEKEEPING_MS, signal);
  }

  /**
   * @param {string} call
   * @param {string} target
   * @param {ArrayBuffer} bytes
   * @param {AbortSignal} signal
   * @param {import("./transfer.js").OnProgress} onProgress
   * @param {string[]} left gets what may be left of it when it fails
   */
  async function send(call, target, bytes, signal, onProgress, left) {
    const part = nameableBeside(target);
    try {
      await neverSilent(signal, call, async (heard, moved, stop) => {
        const source = pieces(bytes, async (done, total) => {
          moved();
          await onProgress?.(done, total);
        });
        const stream = Readable.from(source, { objectMode: false });
        stream.once("error", stop);
        await sandbox.fs.uploadFileStream(stream, part, { timeout: transferSeconds, signal: heard });
      });
      await shell(call, signal, PLACE, part, target, String(bytes.byteLength));
    } catch (error) {
      left.push(part);
      await bestEffort(() => removed(part));
      const { exitCode, stderr } = /** @type {{ exitCode?: number, stderr?: string }} */ (error) ?? {};
      const arrived = /^arrived (\d+)$/m.exec(stderr ?? "")?.[1];
      if (exitCode !== INCOMPLETE || arrived === undefined) throw error;
      throw transferIncomplete(target, Number(arrived), bytes.byteLength);
    }
  }

  /**
   * @param {string} call
   * @param {string} source what a failure names
   * @param {string} named the same file, by a path that the SDK can ask for
   * @param {AbortSignal} signal
   * @param {import("./transfer.js").OnProgress} onProgress
   */
  async function download(call, source, named, signal, onProgress) {
    const size = Number((await shell(call, signal, `exec 2>&1\n${SIZE}`, named)).trim());
    if (!Number.isSafeInteger(size)) throw new Error(`the sandbox did not tell the size of ${source}`);
    const total = acceptedSize(size, source, maxDownloadBytes);
    // The SDK finds no file in an answer without a byte.
    if (total === 0) return Buffer.alloc(0);
    return await neverSilent(signal, call, async (heard, moved) => {
      const stream = await sandbox.fs.downloadFileStream(named, { timeout: transferSeconds, signal: heard });
      const reported = async (/** @type {number} */ done, /** @type {number | null} */ of) => {
        moved();
        await onProgress?.(done, of);
      };
      return await collected(stream, { total, remotePath: source, maxDownloadBytes, onProgress: reported });
    });
  }

  /** @param {string[]} files */
  async function removed(...files) {
    await shell("remove parts", new AbortController().signal, 'rm -f "$@"', ...files);
  }

  return {
    allowConcurrentSyncOperations: true,

    async makeDir(remotePath) {
      const folder = checkedPath(remotePath);
      const call = `mkdir -p ${folder}`;
      await called(call, undefined, (signal) => shell(call, signal, 'mkdir -p "$1" 2>&1', folder));
    },

    async writeFile(remotePath, bytes, { onProgress, signal } = {}) {
      const target = checkedPath(remotePath);
      const content = checkedContent(bytes);
      const forward = onlyForward(onProgress);
      const call = `write ${target}`;
      await leavingNothing(
        (left) =>
          called(call, signal, async (given) => {
            await shell(call, given, 'mkdir -p "$1" 2>&1', path.posix.dirname(target));
            await send(call, target, content, given, forward, left);
          }),
        (left) => removed(...left),
      );
      await onProgress?.(content.byteLength, content.byteLength);
    },

    async readFile(remotePath, { onProgress, signal } = {}) {
      const source = checkedPath(remotePath);
      const forward = onlyForward(onProgress);
      const call = `read ${source}`;
      const content = await called(call, signal, async (given) => {
        const named = PLAIN_PATH.test(source) ? source : nameableBeside(source);
        try {
          if (named !== source) await shell(call, given, 'ln -s "$1" "$2" 2>&1', source, named);
          return await download(call, source, named, given, forward);
        } finally {
          if (named !== source) await bestEffort(() => removed(named));
        }
      });
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const folder = checkedPath(remotePath);
      const call = `list ${folder}`;
      const names = await called(call, undefined, (signal) => shell(call, signal, LIST, folder));
      return listedNames(names);
    },

    async remove(remotePath) {
      const target = checkedPath(remotePath);
      const call = `rm -rf ${target}`;
      await called(call, undefined, (signal) => shell(call, signal, 'rm -rf "$1" 2>&1', target));
    },

    async run(command, runOptions) {
      const { limit, signal } = checkedRunOptions(runOptions);
      const id = crypto.randomUUID();
      const [script, ...args] = stoppedInTime(command, limit, id);
      const timedOut = () => commandTimedOut(command, limit);
      await alive(() =>
        limited({ limitMs: limit, signal, timedOut }, async (given) => {
          try {
            const whole = /** @type {[string]} */ ([ERRORS_ONLY + script, ...args]);
            await retried(given, () => execute(command, whole, limit, given), hasNotBegun);
          } catch (error) {
            if (given.aborted) {
              const { signal: unaborted } = new AbortController();
              await bestEffort(() => shell("stop a command", unaborted, STOP_CALL, id));
            }
            throw error;
          }
        }),
      );
    },
  };
}

/**
 * A new name in the nearest folder above `file` whose path an HTTP form carries unchanged.
 *
 * @param {string} file
 */
function nameableBeside(file) {
  let folder = path.posix.dirname(file);
  while (!PLAIN_PATH.test(folder)) folder = path.posix.dirname(folder);
  return path.posix.join(folder, `.${crypto.randomUUID()}.part`);
}

module.exports = { createDaytonaClient };
