// @ts-check
"use strict";

/**
 * The errors that the clients of this folder share. Each carries a stable `code`, so that a caller can tell
 * them apart without reading the message.
 *
 * @internal
 */

/** How much of a failed command's error output a message repeats, in characters, counted from its end. */
const OUTPUT_TAIL_CHARS = 4_000;

/** How much of a command a message repeats, in characters, counted from its start. */
const COMMAND_HEAD_CHARS = 200;

/**
 * The longest limit a timer can hold with room to spare: Node fires a timer of 2^31 ms or more at once.
 */
const LONGEST_LIMIT_MS = 2_000_000_000;

/** @param {string} command */
function abbreviated(command) {
  return command.length <= COMMAND_HEAD_CHARS ? command : `${command.slice(0, COMMAND_HEAD_CHARS)}…`;
}

/** @param {string} text */
function tail(text) {
  const trimmed = text.trim();
  return trimmed.length <= OUTPUT_TAIL_CHARS ? trimmed : `…${trimmed.slice(-OUTPUT_TAIL_CHARS)}`;
}

/**
 * A command ended in another way than with exit code 0.
 *
 * @param {string} command
 * @param {{ exitCode: number | null, signal?: string | null, stderr: string, cause?: unknown }} ending
 */
function commandFailed(command, { exitCode, signal, stderr, cause }) {
  const how =
    exitCode === null ? `was ended by ${signal ?? "a signal"}` : `failed with exit code ${exitCode}`;
  const output = tail(stderr);
  const error = new Error(
    `the sandbox command ${how}: ${abbreviated(command)}${output === "" ? "" : `\nstderr: ${output}`}`,
    cause === undefined ? undefined : { cause },
  );
  return Object.assign(error, { code: "ERR_SANDBOX_COMMAND_FAILED", exitCode, stderr });
}

/**
 * A command was still running when its time was up.
 *
 * @param {string} command
 * @param {number} timeoutMs
 */
function commandTimedOut(command, timeoutMs) {
  const error = new Error(
    `the sandbox command was stopped after ${timeoutMs} ms: ${abbreviated(command)}\n` +
      "Raise the spec's timeoutMs if it needs longer.",
  );
  return Object.assign(error, { code: "ERR_SANDBOX_COMMAND_TIMEOUT", timeoutMs });
}

/**
 * A call other than a command took longer than its client allows.
 *
 * @param {string} call what was done, as in "write /workspace/file"
 * @param {number} deadlineMs
 */
function callTimedOut(call, deadlineMs) {
  const error = new Error(
    `the sandbox call was given up after ${deadlineMs} ms: ${abbreviated(call)}\n` +
      "Raise the client's deadlineMs if it needs longer.",
  );
  return Object.assign(error, { code: "ERR_SANDBOX_COMMAND_TIMEOUT", timeoutMs: deadlineMs });
}

/**
 * The connection to the sandbox broke or fell silent. The same call may well succeed over a new one.
 *
 * @param {string} call what was done
 * @param {string} how
 * @param {{ cause?: unknown, exitCode?: number, stderr?: string }} [details]
 */
function connectionLost(call, how, { cause, ...details } = {}) {
  const error = new Error(
    `the connection to the sandbox was lost during: ${abbreviated(call)}\n${tail(how)}`,
    cause === undefined ? undefined : { cause },
  );
  return Object.assign(error, { code: "ERR_SANDBOX_CONNECTION_LOST", retryable: true }, details);
}

/**
 * A file in the sandbox is larger than its client was told to accept.
 *
 * @param {string} remotePath
 * @param {number} size the least that it has, in bytes
 * @param {number} maxDownloadBytes
 */
function downloadTooLarge(remotePath, size, maxDownloadBytes) {
  const error = new Error(
    `${remotePath} has ${size} bytes or more, and the client's maxDownloadBytes is ${maxDownloadBytes}. ` +
      "Nothing was kept of it.",
  );
  return Object.assign(error, { code: "ERR_SANDBOX_DOWNLOAD_TOO_LARGE" });
}

/**
 * Another number of bytes arrived than were sent.
 *
 * @param {string} remotePath
 * @param {number} arrived
 * @param {number} expected
 */
function transferIncomplete(remotePath, arrived, expected) {
  const error = new Error(
    `the transfer of ${remotePath} is incomplete: ${arrived} of ${expected} bytes arrived. Try it again.`,
  );
  return Object.assign(error, { code: "ERR_SANDBOX_TRANSFER_INCOMPLETE", retryable: true });
}

/**
 * An argument that cannot be used.
 *
 * @param {string} argument
 * @param {string} expected
 * @param {unknown} received
 */
function invalidArgument(argument, expected, received) {
  const shown = typeof received === "string" ? JSON.stringify(received) : String(received);
  const error = new TypeError(`The argument '${argument}' ${expected}. Received ${shown}`);
  return Object.assign(error, { code: "ERR_INVALID_ARG_VALUE" });
}

/**
 * `value` if it is a usable duration. A longer one than a timer can hold is cut down to {@link
 * LONGEST_LIMIT_MS}.
 *
 * @param {string} argument
 * @param {unknown} value in milliseconds
 * @param {number} [least] in milliseconds
 */
function checkedDuration(argument, value, least = 1) {
  if (typeof value !== "number" || !(value >= least)) {
    throw invalidArgument(argument, `must be a number of milliseconds, at least ${least}`, value);
  }
  return Math.min(Math.ceil(value), LONGEST_LIMIT_MS);
}

/**
 * `remotePath` if it is an absolute path that a sandbox can hold.
 *
 * @param {unknown} remotePath
 */
function checkedPath(remotePath) {
  if (typeof remotePath !== "string" || !remotePath.startsWith("/") || remotePath.includes("\0")) {
    throw invalidArgument("remotePath", "must be an absolute path without a NUL", remotePath);
  }
  return remotePath;
}

/**
 * An argument of a type that cannot be used.
 *
 * @param {string} argument
 * @param {string} expected
 * @param {unknown} received
 */
function invalidType(argument, expected, received) {
  const shown = received === null ? "null" : typeof received;
  const error = new TypeError(`The argument '${argument}' ${expected}. Received ${shown}`);
  return Object.assign(error, { code: "ERR_INVALID_ARG_TYPE" });
}

/**
 * `value` if it is an object, for options and for what a provider's SDK gives.
 *
 * @template {object} T
 * @param {string} argument
 * @param {T} value
 * @param {string} [expected]
 * @returns {T}
 */
function checkedObject(argument, value, expected = "must be an object") {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalidType(argument, expected, value);
  }
  return value;
}

/**
 * `value` if it is a text that can be a word of a command line, or absent.
 *
 * @template {string | undefined} T
 * @param {string} argument
 * @param {T} value
 * @returns {T}
 */
function checkedText(argument, value) {
  if (value === undefined) return value;
  if (typeof value !== "string" || value === "" || value.includes("\0")) {
    throw invalidArgument(argument, "must be a text that is not empty, without a NUL", value);
  }
  return value;
}

/**
 * `value` if it is a list of texts.
 *
 * @param {string} argument
 * @param {readonly string[]} value
 */
function checkedTexts(argument, value) {
  if (!Array.isArray(value)) throw invalidType(argument, "must be an array of texts", value);
  for (const [index, text] of value.entries()) {
    if (text === undefined) throw invalidArgument(`${argument}[${index}]`, "must be a text", text);
    checkedText(`${argument}[${index}]`, text);
  }
  return value;
}

/**
 * `value` if it is a whole number within bounds.
 *
 * @param {string} argument
 * @param {unknown} value
 * @param {number} least
 * @param {number} [most]
 */
function checkedCount(argument, value, least, most = Number.MAX_SAFE_INTEGER) {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least || value > most) {
    const upTo = most === Number.MAX_SAFE_INTEGER ? `at least ${least}` : `from ${least} to ${most}`;
    throw invalidArgument(argument, `must be a whole number, ${upTo}`, value);
  }
  return value;
}

/** The options that every client has. */
const LIMITS = /** @type {const} */ (["deadlineMs", "maxDownloadBytes"]);

/** The largest edit distance between a misspelt name and the one that is suggested. */
const LARGEST_SLIP = 2;

/**
 * `options` if it is an object without names that mean nothing: a misspelt one would be ignored otherwise. The value
 * of such an option is not shown: it may be a secret.
 *
 * @template {object} T
 * @param {T} options
 * @param {readonly (keyof T & string)[]} known
 * @returns {T}
 */
function checkedNames(options, known) {
  checkedObject("options", options);
  for (const name of Object.keys(options)) {
    if (known.some((other) => other === name)) continue;
    const names = /** @type {string[]} */ ([...known]);
    const [nearest] = names
      .map((other) => ({ other, slip: editDistance(name.toLowerCase(), other.toLowerCase()) }))
      .filter(({ other, slip }) => slip <= LARGEST_SLIP && slip <= other.length / 2)
      .toSorted((left, right) => left.slip - right.slip);
    const hint = nearest
      ? `Did you mean '${nearest.other}'?`
      : `These are known: ${names.toSorted().join(", ")}.`;
    const error = new TypeError(`The argument 'options' has an unknown option '${name}'. ${hint}`);
    throw Object.assign(error, { code: "ERR_INVALID_ARG_VALUE" });
  }
  return options;
}

/**
 * The options of a client, as {@link checkedNames} has it.
 *
 * @template {import("./limits.js").TransferLimits} T
 * @param {T} options
 * @param {readonly (keyof T & string)[]} names the client's own, beside its {@link LIMITS}
 */
function checkedOptions(options, names) {
  return checkedNames(options, [...names, ...LIMITS]);
}

/**
 * How many letters must be inserted, deleted or replaced to make one text of the other.
 *
 * @param {string} from
 * @param {string} to
 */
function editDistance(from, to) {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (const [index, letter] of [...from].entries()) {
    const next = [index + 1];
    for (let column = 1; column <= to.length; column += 1) {
      const replaced = (row[column - 1] ?? 0) + (letter === to[column - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

/** How long a call may take in all, unless the caller says otherwise, in milliseconds: an hour. */
const DEFAULT_DEADLINE_MS = 3_600_000;

/** How large a download may be, unless the caller says otherwise, in bytes: what one buffer holds on Node 20. */
const DEFAULT_MAX_DOWNLOAD_BYTES = 4_294_967_296;

/**
 * The limits that every client has, checked.
 *
 * @param {import("./limits.js").TransferLimits} options
 */
function checkedLimits({ deadlineMs = DEFAULT_DEADLINE_MS, maxDownloadBytes = DEFAULT_MAX_DOWNLOAD_BYTES }) {
  return {
    deadlineMs: checkedDuration("deadlineMs", deadlineMs),
    maxDownloadBytes: checkedCount("maxDownloadBytes", maxDownloadBytes, 1),
  };
}

/**
 * The limit of a command, checked.
 *
 * @param {{ timeoutMs: number, signal?: AbortSignal } | undefined} options
 */
function checkedRunOptions(options) {
  const { timeoutMs, signal } = checkedObject(
    "options",
    /** @type {{ timeoutMs: number, signal?: AbortSignal }} */ (options),
  );
  return { limit: checkedDuration("timeoutMs", timeoutMs), signal };
}

module.exports = {
  callTimedOut,
  checkedCount,
  checkedDuration,
  checkedLimits,
  checkedNames,
  checkedObject,
  checkedOptions,
  checkedPath,
  checkedRunOptions,
  checkedText,
  checkedTexts,
  commandFailed,
  commandTimedOut,
  connectionLost,
  downloadTooLarge,
  invalidArgument,
  invalidType,
  OUTPUT_TAIL_CHARS,
  transferIncomplete,
};
