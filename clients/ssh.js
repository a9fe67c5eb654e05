// @ts-check
"use strict";

const { spawn, spawnSync } = require("node:child_process");
const { mkdtempSync, rmSync } = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { pipeline } = require("node:stream/promises");

const {
  checkedDuration,
  checkedPath,
  commandFailed,
  invalidArgument,
  transferIncomplete,
} = require("./errors.js");
const { errorOutput, exitOf } = require("./process.js");
const { answeredInTime, shellCommand } = require("./shell.js");
const { collected, pieces, sortedNames } = require("./transfer.js");

/**
 * How long the master connection stays open without a session, in seconds. The next session opens a new one.
 */
const IDLE_SECONDS = 60;

/**
 * The longest path for a socket that every system takes (104 bytes on macOS), less what ssh adds to it while
 * it opens one (a dot and 16 random characters).
 */
const LONGEST_SOCKET_PATH = 104 - 1 - 17;

/** How long closing may wait for the master to answer, in milliseconds. */
const CLOSE_LIMIT_MS = 5_000;

/** What this client relies on. */
const FIXED_OPTIONS = [
  "BatchMode=yes",
  "ControlMaster=auto",
  `ControlPersist=${IDLE_SECONDS}`,
  // What a user may have configured for interactive sessions would get in the way.
  "ClearAllForwardings=yes",
  "RemoteCommand=none",
];

/**
 * What the caller may set otherwise: a peer that is gone is noticed within a minute, also during a transfer.
 */
const DEFAULT_OPTIONS = ["ConnectTimeout=30", "ServerAliveInterval=15", "ServerAliveCountMax=4"];

/** ssh's own exit code, for when it could not do what it was asked to. */
const SSH_FAILED = 255;

/**
 * Runs `$1`, and ends it with everything it started when the connection goes: standard input, on which
 * nothing is ever sent, then ends. The server starts each session as the leader of its own process group.
 */
const SUPERVISED = `exec 3<&0 </dev/null
{ read -r line <&3; kill -s KILL -- "-$$" || kill -s KILL "$$"; } >/dev/null 2>&1 &
watcher=$!
sh -c "$1" 3<&-
status=$?
kill "$watcher" 2>/dev/null
exit "$status"`;

/** Receives `$4` bytes as `$3` in the folder `$1`, by way of `$2`, so that nobody sees a part of it there. */
const RECEIVE = `mkdir -p "$1" && if [ -d "$3" ]; then echo "$3 is a folder" >&2; exit 1; fi
cat > "$2" && size=$(wc -c < "$2") && if [ "$size" -ne "$4" ]; then
  echo "only $((size)) of $4 bytes arrived" >&2; false
fi && mv -f "$2" "$3" || { rm -f "$2"; exit 1; }`;

/** Sends the size of `$1` on a line, then its content. */
const SEND = 'size=$(wc -c < "$1") && echo "$((size))" && exec cat "$1"';

/** Sends the names of the plain files in `$1`, each followed by a NUL. */
const LIST = `[ -d "$1" ] || exit 0
cd "$1" && for name in * .*; do
  if [ -f "$name" ] && [ ! -L "$name" ]; then printf '%s\\0' "$name"; fi
done`;

/** Error codes of a pipe whose reader went away: the reader's own ending tells why. */
const READER_GONE = new Set(["EPIPE", "ECONNRESET", "ERR_STREAM_PREMATURE_CLOSE", "ERR_STREAM_DESTROYED"]);

/** What to do for the connections that are still open when the process ends. @type {Set<() => void>} */
const cleanups = new Set();

function cleanUpAll() {
  for (const cleanup of cleanups) cleanup();
}

/**
 * @param {import("./ssh.js").SshClientOptions} options
 * @returns {import("./ssh.js").SshClient}
 */
function createSshClient({ host, port, user, identityFile, sshOptions = [], sshCommand = "ssh" }) {
  if (typeof host !== "string" || host === "" || host.startsWith("-")) {
    throw invalidArgument("host", "must be a host name or an alias of ssh's configuration", host);
  }
  const destination = [
    ...(port === undefined ? [] : ["-p", String(port)]),
    ...(user === undefined ? [] : ["-l", user]),
    ...(identityFile === undefined ? [] : ["-i", identityFile]),
    // ssh takes the first value that it is given for an option, so the caller's come before the defaults.
    ...options(...sshOptions, ...DEFAULT_OPTIONS),
    "--",
    host,
  ];

  /** The folder of the control socket, while there is one. @type {string | undefined} */
  let folder;
  /** Settles once the master connection is open. @type {Promise<void> | undefined} */
  let opened;
  let closed = false;

  function controlPath() {
    if (folder === undefined) {
      folder = privateFolder();
      if (cleanups.size === 0) process.once("exit", cleanUpAll);
      cleanups.add(endNow);
    }
    return ["-o", `ControlPath="${path.join(folder, "s").replaceAll("%", "%%")}"`];
  }

  function endNow() {
    if (folder === undefined) return;
    // Its answer does not matter: a master that is gone already is what is wanted.
    spawnSync(sshCommand, [...controlPath(), "-O", "exit", ...destination], {
      stdio: "ignore",
      timeout: CLOSE_LIMIT_MS,
    });
    forgetFolder();
  }

  function forgetFolder() {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    folder = undefined;
    cleanups.delete(endNow);
    if (cleanups.size === 0) process.removeListener("exit", cleanUpAll);
  }

  /** @param {string} commandLine */
  function start(commandLine) {
    if (closed) throw new Error("this ssh client is closed; create a new one");
    const fixed = ["-T", "-x", "-a", ...options(...FIXED_OPTIONS), ...controlPath()];
    return spawn(sshCommand, [...fixed, ...destination, commandLine], { stdio: ["pipe", "pipe", "pipe"] });
  }

  /**
   * One session: sends what `exchange.send` yields, hands what arrives to `exchange.receive`.
   *
   * @template [T=void]
   * @param {string} commandLine
   * @param {string} named what a failure calls it
   * @param {{
   *   send?: AsyncIterable<Uint8Array>,
   *   receive?: (output: import("node:stream").Readable) => Promise<T>,
   *   timeoutMs?: number,
   * }} [exchange]
   * @returns {Promise<T | undefined>}
   */
  async function session(commandLine, named, { send, receive, timeoutMs } = {}) {
    const child = start(commandLine);
    const stderr = errorOutput(child.stderr);
    // A failure to write shows in how the session ends, and in `sent` where there is something to send.
    child.stdin.on("error", () => {});
    if (receive === undefined) child.stdout.resume();
    const ended = exitOf(child);
    const sent = send === undefined ? undefined : pipeline(send, child.stdin);
    const received = receive?.(child.stdout).catch((error) => {
      // Nobody reads on, so the other side would wait for ever.
      child.kill("SIGKILL");
      child.stdout.destroy();
      throw error;
    });
    try {
      const outcome = Promise.allSettled([ended, sent, received]);
      const [ending, sending, receiving] = await (timeoutMs === undefined
        ? outcome
        : answeredInTime(outcome, named, timeoutMs));
      if (ending.status === "rejected") throw ending.reason;
      if (sending.status === "rejected" && !READER_GONE.has(sending.reason?.code)) throw sending.reason;
      if (receiving.status === "rejected") throw receiving.reason;
      const { exitCode, signal } = ending.value;
      if (exitCode !== 0) {
        const doing =
          exitCode === SSH_FAILED ? `${named} (255 is also ssh's own code for a failed connection)` : named;
        throw commandFailed(doing, { exitCode, signal, stderr: stderr() });
      }
      if (sending.status === "rejected") throw sending.reason;
      return receiving.value;
    } finally {
      // Does nothing to a session that has ended.
      child.kill("SIGKILL");
      for (const stream of child.stdio) stream?.destroy();
    }
  }

  /** Opens the master connection once, so that sessions that start together do not each open their own. */
  async function connected() {
    opened ??= session("exit 0", `connect to ${host}`).then(() => {});
    const opening = opened;
    await opening.catch((error) => {
      if (opened === opening) opened = undefined;
      throw error;
    });
  }

  return {
    async makeDir(remotePath) {
      const folder = checkedPath(remotePath);
      await connected();
      await session(posix('mkdir -p "$1"', folder), `mkdir -p ${folder}`);
    },

    async writeFile(remotePath, bytes, { onProgress } = {}) {
      const target = checkedPath(remotePath);
      const total = bytes.byteLength;
      const part = `${target}.${crypto.randomUUID()}.part`;
      await connected();
      await session(
        posix(RECEIVE, path.posix.dirname(target), part, target, String(total)),
        `write ${target}`,
        {
          send: pieces(bytes, onProgress),
        },
      );
      await onProgress?.(total, total);
    },

    async readFile(remotePath, { onProgress } = {}) {
      const source = checkedPath(remotePath);
      await connected();
      const answer = await session(posix(SEND, source), `read ${source}`, {
        receive: (output) => announcedContent(output, source, onProgress),
      });
      // Taken for an empty file, it would look as if the content had been deleted.
      if (answer === undefined)
        throw new Error(`the other side answered with nothing when asked for ${source}`);
      const { content, total } = answer;
      if (content.byteLength !== total) throw transferIncomplete(source, content.byteLength, total);
      await onProgress?.(total, total);
      return content;
    },

    async listFiles(remotePath) {
      const folder = checkedPath(remotePath);
      await connected();
      const names = /** @type {Buffer} */ (
        await session(posix(LIST, folder), `list ${folder}`, {
          receive: (output) => collected(output, null, undefined),
        })
      );
      return sortedNames(names.toString("utf8").split("\0").slice(0, -1));
    },

    async remove(remotePath) {
      const target = checkedPath(remotePath);
      await connected();
      await session(posix('rm -rf "$1"', target), `rm -rf ${target}`);
    },

    async run(command, { timeoutMs }) {
      const limit = checkedDuration("timeoutMs", timeoutMs);
      await connected();
      await session(posix(SUPERVISED, command), command, { timeoutMs: limit });
    },

    async close() {
      closed = true;
      if (folder === undefined) return;
      const child = spawn(sshCommand, [...controlPath(), "-O", "exit", ...destination], {
        stdio: "ignore",
        timeout: CLOSE_LIMIT_MS,
      });
      // Its answer does not matter: a master that is gone already, or that never was, is what is wanted.
      await exitOf(child).catch(() => {});
      forgetFolder();
    },
  };
}

/** @param {string[]} values */
function options(...values) {
  return values.flatMap((value) => ["-o", value]);
}

/**
 * A command line for the user's login shell, whichever that is, that becomes a POSIX shell with `script`.
 *
 * @param {string} script
 * @param {string[]} args
 */
function posix(script, ...args) {
  return `exec ${shellCommand(script, ...args)}`;
}

/** A new folder for the control socket that only this user can enter. */
function privateFolder() {
  const name = "ssh-";
  const inTemp = path.join(os.tmpdir(), name);
  const fits = Buffer.byteLength(`${inTemp}XXXXXX/s`) <= LONGEST_SOCKET_PATH;
  return mkdtempSync(fits ? inTemp : path.join("/tmp", name));
}

/**
 * The content that follows a line with its size, and that size. Undefined where there is no such line.
 *
 * @param {import("node:stream").Readable} output
 * @param {string} remotePath
 * @param {import("../index.js").SandboxTransferProgressOptions["onProgress"]} onProgress
 */
async function announcedContent(output, remotePath, onProgress) {
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
      `expected the size of ${remotePath}, but the remote login shell printed ${JSON.stringify(announcement)}: ` +
        "its start-up files must print nothing for commands that ssh runs",
    );
  }
  const total = Number(announcement);

  async function* rest() {
    if (head.byteLength > end + 1) yield head.subarray(end + 1);
    yield* { [Symbol.asyncIterator]: () => chunks };
  }
  return { content: await collected(rest(), total, onProgress), total };
}

module.exports = { createSshClient };
