// @ts-check
"use strict";

const {
  childProcess: { spawnSync },
  fs: { mkdtempSync, rmSync },
  os,
  path,
} = require("../js/node.js");

const { bestEffort, limited, retried } = require("./attempts.js");
const {
  callTimedOut,
  checkedCount,
  checkedLimits,
  checkedOptions,
  checkedText,
  checkedTexts,
  commandFailed,
  connectionLost,
  invalidArgument,
} = require("./errors.js");
const { errorOutput } = require("./process.js");
const { startProgram } = require("./program.js");
const { createSessionClient } = require("./sessions.js");
const { portableCommand } = require("./shell.js");

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
 * What the caller may set otherwise: a server that no longer answers is noticed within 20 seconds, also during a transfer: 9 for
 * the connection that is shared, and 10 for the one that ssh opens when that fails.
 */
const DEFAULT_OPTIONS = ["ConnectTimeout=10", "ServerAliveInterval=3", "ServerAliveCountMax=2"];

/** How many sessions a server allows over one connection unless it is told otherwise, less two for others. */
const DEFAULT_SESSIONS = 8;

/** ssh's own exit code, for when it could not do what it was asked to. */
const SSH_FAILED = 255;

/** What ssh says of a connection that another attempt would not get either. */
const REFUSED =
  /Permission denied|Host key verification failed|Bad configuration|Could not resolve hostname(?!.*Temporary)/;

/** What to do for the connections that are still open when the process ends. @type {Set<() => void>} */
const cleanups = new Set();

function cleanUpAll() {
  for (const cleanup of cleanups) cleanup();
}

/**
 * @param {import("./ssh.js").SshClientOptions} options
 * @returns {import("./ssh.js").SshClient}
 */
function createSshClient(options) {
  const {
    host,
    port,
    user,
    identityFile,
    sshOptions = [],
    sshCommand = "ssh",
    maxSessions = DEFAULT_SESSIONS,
    ...limits
  } = checkedOptions(options, [
    "host",
    "port",
    "user",
    "identityFile",
    "sshOptions",
    "sshCommand",
    "maxSessions",
  ]);
  if (typeof host !== "string" || host === "" || host.startsWith("-") || host.includes("\0")) {
    throw invalidArgument("host", "must be a host name or an alias of ssh's configuration", host);
  }
  if (port !== undefined) checkedCount("port", port, 1, 65_535);
  checkedText("user", user);
  checkedText("identityFile", identityFile);
  checkedText("sshCommand", sshCommand);
  checkedTexts("sshOptions", sshOptions);
  checkedCount("maxSessions", maxSessions, 1);
  const { deadlineMs, maxDownloadBytes } = checkedLimits(limits);
  const destination = [
    ...(port === undefined ? [] : ["-p", String(port)]),
    ...(user === undefined ? [] : ["-l", user]),
    ...(identityFile === undefined ? [] : ["-i", identityFile]),
    // ssh takes the first value that it is given for an option, so the caller's come before the defaults.
    ...asOptions(...sshOptions, ...DEFAULT_OPTIONS),
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
    spawnSync(sshCommand, masterExit(), { stdio: "ignore", timeout: CLOSE_LIMIT_MS });
    forgetFolder();
  }

  function forgetFolder() {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    folder = undefined;
    cleanups.delete(endNow);
    if (cleanups.size === 0) process.removeListener("exit", cleanUpAll);
  }

  /** @param {string} commandLine for the user's login shell, whichever that is */
  function sessionOf(commandLine) {
    if (closed) throw new Error("this ssh client is closed; create a new one");
    const fixed = ["-T", "-x", "-a", ...asOptions(...FIXED_OPTIONS), ...controlPath()];
    return [...fixed, ...destination, commandLine];
  }

  function masterExit() {
    return [...controlPath(), "-O", "exit", ...destination];
  }

  /**
   * Runs ssh without input, and tells how it ended.
   *
   * @param {string[]} args
   * @param {AbortSignal} signal
   */
  async function finished(args, signal) {
    const { stdin, stdout, stderr, ended, kill } = startProgram(sshCommand, args);
    signal.addEventListener("abort", kill, { once: true });
    const complaint = errorOutput(stderr);
    stdin.on("error", () => {});
    stdin.end();
    stdout.resume();
    try {
      return { ...(await ended), stderr: complaint() };
    } finally {
      signal.removeEventListener("abort", kill);
    }
  }

  /** @param {AbortSignal} signal */
  async function open(signal) {
    const call = `connect to ${host}`;
    const how = { call, ...(await finished(sessionOf("exit 0"), signal)) };
    if (how.exitCode === 0) return;
    if (!isLost(how)) throw commandFailed(`${call} (255 is ssh's own code for a failed connection)`, how);
    throw connectionLost(call, how.stderr, { exitCode: SSH_FAILED, stderr: how.stderr });
  }

  /** Opens the master connection once, so that sessions that start together do not each open their own. */
  async function connected() {
    const timedOut = () => callTimedOut(`connect to ${host}`, deadlineMs);
    opened ??= limited({ limitMs: deadlineMs, timedOut }, (signal) => retried(signal, () => open(signal)));
    const opening = opened;
    await opening.catch((error) => {
      if (opened === opening) opened = undefined;
      throw error;
    });
  }

  const client = createSessionClient({
    // `exec` replaces the login shell, so that the session's processes are those of the script.
    start: (script, ...args) =>
      startProgram(sshCommand, sessionOf(`exec ${portableCommand(script, ...args)}`)),
    isLost,
    connected,
    onLost: () => {
      opened = undefined;
    },
    mostSessions: maxSessions,
    deadlineMs,
    maxDownloadBytes,
  });

  return {
    ...client,

    async close() {
      closed = true;
      if (folder === undefined) return;
      // Its answer does not matter: a master that is gone already, or that never was, is what is wanted.
      const limit = AbortSignal.timeout(CLOSE_LIMIT_MS);
      await bestEffort(() => finished(masterExit(), limit), CLOSE_LIMIT_MS);
      forgetFolder();
    },
  };
}

/**
 * Whether a session ended because of the connection, and another one may serve. What a script exits with is told
 * apart by what the script says.
 *
 * @param {{ exitCode: number | null, stderr: string }} ending
 */
function isLost({ exitCode, stderr }) {
  return exitCode === SSH_FAILED && !REFUSED.test(stderr);
}

/** @param {string[]} values */
function asOptions(...values) {
  return values.flatMap((value) => ["-o", value]);
}

/** A new folder for the control socket that only this user can enter. */
function privateFolder() {
  const name = "ssh-";
  const inTemp = path.join(os.tmpdir(), name);
  const fits = Buffer.byteLength(`${inTemp}XXXXXX/s`) <= LONGEST_SOCKET_PATH;
  return mkdtempSync(fits ? inTemp : path.join("/tmp", name));
}

module.exports = { createSshClient };
