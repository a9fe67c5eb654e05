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
  return Object.assign(error, { code: "ERR_SANDBOX_TRANSFER_INCOMPLETE" });
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

module.exports = {
  checkedDuration,
  checkedPath,
  commandFailed,
  commandTimedOut,
  invalidArgument,
  OUTPUT_TAIL_CHARS,
  transferIncomplete,
};
