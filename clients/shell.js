// @ts-check
"use strict";

/**
 * Shell text, and the limit on how long a command may take.
 *
 * @internal
 */

const { commandTimedOut } = require("./errors.js");

/**
 * One word of a POSIX shell command line that stands for exactly `text`.
 *
 * @param {string} text
 */
function quoted(text) {
  return `'${text.replaceAll("'", `'"'"'`)}'`;
}

/**
 * A command line that runs `script` in its own `sh`, with `args` as `$1`, `$2`, … It is independent of the
 * shell that reads it, and an `exit` in the script ends only the script.
 *
 * @param {string} script
 * @param {string[]} args
 */
function shellCommand(script, ...args) {
  return ["sh", "-c", script, "sh", ...args]
    .map((word) => (/^[\w-]+$/.test(word) ? word : quoted(word)))
    .join(" ");
}

// `timeout` is tried before it is relied on: its options differ between the implementations, and small images
// lack it.
const STOPPED_IN_TIME =
  'if timeout -s KILL 9 true 2>/dev/null; then exec timeout -s KILL "$1" sh -c "$2"; fi; exec sh -c "$2"';

/**
 * A command line that runs `command` and, where the sandbox has `timeout`, ends it there about a second after
 * `timeoutMs`. Providers give up waiting for a command at its time limit but leave its processes running, so
 * that an extraction that was given up could go on writing into the workspace.
 *
 * @param {string} command
 * @param {number} timeoutMs
 */
function stoppedInTime(command, timeoutMs) {
  // One second more than the limit, so that the client, which can name the reason, gives up first.
  return shellCommand(STOPPED_IN_TIME, String(Math.ceil(timeoutMs / 1000) + 1), command);
}

/**
 * What `answer` settles with, or a rejection once `timeoutMs` have passed.
 *
 * @template T
 * @param {Promise<T>} answer
 * @param {string} command
 * @param {number} timeoutMs
 * @returns {Promise<T>}
 */
async function answeredInTime(answer, command, timeoutMs) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(commandTimedOut(command, timeoutMs)), timeoutMs);
  });
  try {
    return await Promise.race([answer, /** @type {Promise<never>} */ (limit)]);
  } finally {
    clearTimeout(timer);
  }
}

module.exports = { answeredInTime, quoted, shellCommand, stoppedInTime };
