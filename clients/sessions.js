// @ts-check
"use strict";

/**
 * The six methods over anything that runs a POSIX shell in a sandbox as a process of this machine, with its
 * standard streams: ssh, docker, podman, kubectl.
 *
 * @internal
 */

const {
  path,
  stream: {
    promises: { pipeline },
  },
} = require("../js/node.js");

const {
  atMost,
  attempted,
  bestEffort,
  hasNotBegun,
  limited,
  neverSilent,
  retried,
  untilAborted,
} = require("./attempts.js");
const {
  checkedPath,
  checkedRunOptions,
  commandFailed,
  commandTimedOut,
  connectionLost,
  transferIncomplete,
} = require("./errors.js");
const { errorOutput } = require("./process.js");
const { CALL_VARIABLE, LIST, listedNames, SIZE, STOP_CALL } = require("./shell.js");
const { acceptedSize, checkedContent, collected, onlyForward, pieces } = require("./transfer.js");

/** @import { Program } from "./program.js" */

/**
 * Runs `$1` as the call `$2`, and ends it with everything it started when the connection goes: standard input,
 * on which nothing is ever sent, then ends. Each session starts as the leader of its own process group. Its output
 * is not used. The last line tells an exit code of the command's from one of the connection's.
 */
const SUPERVISED = `export ${CALL_VARIABLE}="$2"
exec 3<&0 </dev/null 4>&1 >/dev/null
{ read -r line <&3; kill -s KILL -- "-$$" || kill -s KILL "$$"; } >/dev/null 2>&1 4>&- &
watcher=$!
sh -c "$1" 3<&- 4>&-
status=$?
kill "$watcher" 2>/dev/null
echo "ended $status" >&4
exit "$status"`;

/** What {@link SUPERVISED} says at its end. */
const ENDED = /^ended \d+$/m;

// The client may be gone when the script cleans up: writing to it must not end the script before that.
/** Receives `$4` bytes as `$3` in the folder `$1`, by way of `$2`, so that a partial file is never visible. */
const RECEIVE = `trap '' HUP PIPE
mkdir -p "$1" || exit 1
if [ -d "$3" ]; then echo "$3 is a directory" >&2; exit 1; fi
if cat > "$2" && size=$(wc -c < "$2"); then
  [ "$size" -eq "$4" ] && mv -f "$2" "$3" && exit 0
  [ "$size" -eq "$4" ] || why="only $((size)) of $4 bytes arrived"
fi
rm -f "$2"
echo "$why" >&2
exit 1`;

/** What {@link RECEIVE} says of an upload that was cut off. */
const CUT_OFF = /^only (\d+) of \d+ bytes arrived$/m;

/** Sends the size of `$1` on a line, then its content. */
const SEND = `size=$(${SIZE}) || exit 1
echo "$((size))" && exec cat "$1"`;

/** Error codes of a pipe whose reader went away: the reader's own ending tells why. */
const READER_GONE = new Set(["EPIPE", "ECONNRESET", "ERR_STREAM_PREMATURE_CLOSE", "ERR_STREAM_DESTROYED"]);

/** The most bytes of names that a folder's list may have. */
const LONGEST_LIST_BYTES = 256 * 1024 * 1024;

/** How long ending a command may take, in milliseconds. */
const STOP_LIMIT_MS = 5_000;

/**
 * How a session failed.
 *
 * @typedef {object} Ending
 * @property {string} call what was done
 * @property {number | null} exitCode
 * @property {NodeJS.Signals | null} signal
 * @property {string} stderr
 */

/**
 * @typedef {object} Transport
 * @property {(script: string, ...args: string[]) => Program} start begins a session in which a POSIX `sh` runs `script`
 * @property {(ending: Ending) => boolean} isLost whether the connection is what failed, not what was asked for
 * @property {() => Promise<void>} [connected] makes the connection ready
 * @property {() => void} [onLost] is called when a connection was lost
 * @property {number} mostSessions how many may run at once
 * @property {number} deadlineMs
 * @property {number} maxDownloadBytes
 */

/**
 * @param {Transport} transport
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createSessionClient(transport) {
  const { start, isLost, connected, onLost, mostSessions, deadlineMs, maxDownloadBytes } = transport;
  const inTurn = atMost(mostSessions);

  /**
   * One session: sends what `exchange.send` yields, hands what arrives to `exchange.receive`.
   *
   * @template [T=void]
   * @param {string} call what a failure names it
   * @param {[script: string, ...args: string[]]} script
   * @param {AbortSignal} signal
   * @param {{
   *   send?: AsyncIterable<Uint8Array>,
   *   receive?: (output: import("node:stream").Readable) => Promise<T>,
   *   isOwnEnding?: () => boolean,
   * }} [exchange] `isOwnEnding`: whether the exit code is known to be the script's, not the connection's
   * @returns {Promise<T | undefined>}
   */
  async function session(call, script, signal, { send, receive, isOwnEnding } = {}) {
    signal.throwIfAborted();
    const { stdin, stdout, stderr, ended, kill } = start(...script);
    const complaint = errorOutput(stderr);
    signal.addEventListener("abort", kill, { once: true });
    // A failure to write shows in how the session ends, and in `sent` where there is something to send.
    stdin.on("error", () => {});
    if (receive === undefined) stdout.resume();
    const sent = send === undefined ? undefined : pipeline(send, stdin);
    const received = receive?.(stdout).catch((error) => {
      // Nothing reads the output any more, so the command would wait for ever.
      kill();
      throw error;
    });
    try {
      const [ending, sending, receiving] = await Promise.allSettled([ended, sent, received]);
      if (ending.status === "rejected") throw ending.reason;
      if (sending.status === "rejected" && !READER_GONE.has(sending.reason?.code)) throw sending.reason;
      const how = { call, ...ending.value, stderr: complaint() };
      const failed = how.exitCode !== 0;
      if (failed && isOwnEnding?.() !== true && !signal.aborted && isLost(how)) {
        onLost?.();
        throw connectionLost(call, how.stderr || `The exit code is ${how.exitCode}.`, {
          exitCode: how.exitCode ?? undefined,
          stderr: how.stderr,
        });
      }
      if (receiving.status === "rejected" && receiving.reason?.code !== "ERR_STREAM_PREMATURE_CLOSE") {
        throw receiving.reason;
      }
      if (failed) throw commandFailed(call, how);
      if (sending.status === "rejected") throw sending.reason;
      if (receiving.status === "rejected") throw receiving.reason;
      return receiving.value;
    } finally {
      signal.removeEventListener("abort", kill);
      // Does nothing to a session that has ended.
      kill();
    }
  }

  /**
   * A call other than a command: when a session is free, over an open connection, and retried after a temporary failure.
   *
   * @template T
   * @param {string} call
   * @param {AbortSignal | undefined} signal
   * @param {(signal: AbortSignal) => Promise<T>} attempt
   */
  function called(call, signal, attempt) {
    return attempted({ call, deadlineMs, signal }, async (given) => {
      await untilAborted(given, connected?.());
      return await inTurn(() => attempt(given));
    });
  }

  /**
   * @param {string} source
   * @param {AbortSignal} signal
   * @param {import("./transfer.js").OnProgress} onProgress
   */
  async function download(source, signal, onProgress) {
    const content = await session(`read ${source}`, [SEND, source], signal, {
      receive: (output) => announcedContent(output, source, maxDownloadBytes, onProgress),
    });
    // As an empty file, it would look as if the content had been deleted.
    if (content === undefined) throw nothingAnswered(source);
    return content;
  }

  /**
   * @param {string} target
   * @param {number} total
   * @param {AsyncIterable<Uint8Array>} send
   * @param {AbortSignal} signal
   */
  async function upload(target, total, send, signal) {
    const part = `${target}.${crypto.randomUUID()}.part`;
    const folder = path.posix.dirname(target);
    try {
      await session(`write ${target}`, [RECEIVE, folder, part, target, String(total)], signal, { send });
    } catch (error) {
      const [, arrived] = CUT_OFF.exec(/** @type {{ stderr?: string }} */ (error)?.stderr ?? "") ?? [];
      if (arrived === undefined) throw error;
      throw Object.assign(transferIncomplete(target, Number(arrived), total), { cause: error });
    }
  }

  return {
    allowConcurrentSyncOperations: true,

    async makeDir(remotePath) {
      const folder = checkedPath(remotePath);
      const call = `mkdir -p ${folder}`;
      await called(call, undefined, (signal) => session(call, ['mkdir -p "$1"', folder], signal));
    },

    async writeFile(remotePath, bytes, { onProgress, signal } = {}) {
      const target = checkedPath(remotePath);
      const content = checkedContent(bytes);
      const total = content.byteLength;
      const forward = onlyForward(onProgress);
      const call = `write ${target}`;
      await called(call, signal, (given) =>
        neverSilent(given, call, async (heard, moved) => {
          const send = pieces(content, async (done, of) => {
            moved();
            await forward?.(done, of);
          });
          await upload(target, total, send, heard);
        }),
      );
      await onProgress?.(total, total);
    },

    async readFile(remotePath, { onProgress, signal } = {}) {
      const source = checkedPath(remotePath);
      const forward = onlyForward(onProgress);
      const call = `read ${source}`;
      const content = await called(call, signal, (given) =>
        neverSilent(given, call, (heard, moved) =>
          download(source, heard, async (done, total) => {
            moved();
            await forward?.(done, total);
          }),
        ),
      );
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const folder = checkedPath(remotePath);
      const call = `list ${folder}`;
      const limits = { total: null, remotePath: folder, maxDownloadBytes: LONGEST_LIST_BYTES };
      const names = await called(call, undefined, (signal) =>
        session(call, [LIST, folder], signal, { receive: (output) => collected(output, limits) }),
      );
      return listedNames((names ?? Buffer.alloc(0)).toString("utf8"));
    },

    async remove(remotePath) {
      const target = checkedPath(remotePath);
      const call = `rm -rf ${target}`;
      await called(call, undefined, (signal) => session(call, ['rm -rf "$1"', target], signal));
    },

    async run(command, options) {
      const { limit, signal } = checkedRunOptions(options);
      const timedOut = () => commandTimedOut(command, limit);
      await limited({ limitMs: limit, signal, timedOut }, (given) =>
        retried(
          given,
          async () => {
            await untilAborted(given, connected?.());
            await inTurn(() => supervised(command, given));
          },
          hasNotBegun,
        ),
      );
    },
  };

  /**
   * @param {string} command
   * @param {AbortSignal} signal
   */
  async function supervised(command, signal) {
    const call = crypto.randomUUID();
    let said = "";
    try {
      await session(command, [SUPERVISED, command, call], signal, {
        receive: async (output) => {
          output.setEncoding("latin1");
          for await (const text of output) said = (said + text).slice(-100);
        },
        isOwnEnding: () => ENDED.test(said),
      });
    } catch (error) {
      // The end of standard input ends it as a rule. What left its process group is found by the call's name.
      if (signal.aborted) {
        const limit = AbortSignal.timeout(STOP_LIMIT_MS);
        await bestEffort(() => session("stop a command", [STOP_CALL, call], limit), STOP_LIMIT_MS);
      }
      throw error;
    }
  }
}

/** @param {string} source */
function nothingAnswered(source) {
  return new Error(`the sandbox answered with nothing when asked for ${source}`);
}

/**
 * The content that follows a line with its size. Undefined where there is no such line.
 *
 * @param {import("node:stream").Readable} output
 * @param {string} remotePath
 * @param {number} maxDownloadBytes
 * @param {import("./transfer.js").OnProgress} onProgress
 */
async function announcedContent(output, remotePath, maxDownloadBytes, onProgress) {
  const chunks = output[Symbol.asyncIterator]();
  let head = Buffer.alloc(0);
  while (!head.includes("\n")) {
    const { done, value } = await chunks.next();
    if (done) return undefined;
    head = Buffer.concat([head, value]);
  }
  const end = head.indexOf("\n");
  const announcement = head.toString("latin1", 0, end);
  if (!/^\d+$/.test(announcement)) {
    throw new Error(
      `expected the size of ${remotePath}, but the sandbox printed ${JSON.stringify(announcement)}: ` +
        "the start-up files of a login shell must print nothing for commands",
    );
  }
  const total = acceptedSize(Number(announcement), remotePath, maxDownloadBytes);

  async function* rest() {
    if (head.byteLength > end + 1) yield head.subarray(end + 1);
    yield* { [Symbol.asyncIterator]: () => chunks };
  }
  return await collected(rest(), { total, remotePath, maxDownloadBytes, onProgress });
}

module.exports = { createSessionClient };
