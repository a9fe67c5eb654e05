// @ts-check
"use strict";

/**
 * Shell text, and the limit on how long a command may take.
 *
 * @internal
 */

const { commandTimedOut } = require("./errors.js");

/**
 * `text` quoted as one word of a POSIX shell command line.
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

/**
 * What has another meaning than itself between single quotes in some shell that people log in with: `'` ends
 * them everywhere, fish takes `\` for an escape, csh takes `!` for its history and allows no line break. What
 * is not ASCII is left to no locale.
 */
const UNSAFE_BYTE = /[^\x20-\x7e]|['\\!]/g;

/**
 * A command line that runs `script` in a POSIX `sh` of its own like {@link shellCommand}, whichever shell reads
 * it: csh, tcsh, fish and zsh as well, and an SDK that splits it into words by itself.
 *
 * @param {string} script
 * @param {string[]} args
 */
function portableCommand(script, ...args) {
  const whole = args.length === 0 ? script : `set -- ${args.map(quoted).join(" ")}\n${script}`;
  const encoded = Buffer.from(whole, "utf8")
    .toString("latin1")
    .replace(UNSAFE_BYTE, (byte) => `\\0${byte.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return `sh -c 'eval "$(printf %b "$1")"' sh '${encoded}'`;
}

/** The variable by which a command, and all that it starts, can be found in the sandbox. */
const CALL_VARIABLE = "PAPERCLIP_SANDBOX_CALL";

// `timeout` is tried before it is relied on: its options differ between the implementations, and small images
// lack it.
const STOPPED_IN_TIME =
  `export ${CALL_VARIABLE}="$3"; ` +
  'if timeout -s KILL 9 true 2>/dev/null; then exec timeout -s KILL "$1" sh -c "$2"; fi; exec sh -c "$2"';

/**
 * The script that runs a command and, where the sandbox has `timeout`, ends it there about a second after
 * `timeoutMs`, with its arguments. Providers give up waiting for a command at its time limit but leave its
 * processes running, so that an extraction that was given up could go on writing into the workspace.
 *
 * @param {string} command
 * @param {number} timeoutMs
 * @param {string} call by which {@link STOP_CALL} finds what is still running
 * @returns {[script: string, ...args: string[]]}
 */
function stoppedInTime(command, timeoutMs, call) {
  // One second more than the limit, so that the client, which can name the reason, gives up first.
  return [STOPPED_IN_TIME, String(Math.ceil(timeoutMs / 1000) + 1), command, call];
}

/**
 * Ends the processes of the call `$1` and all that they started. It looks again as long as it finds some, since
 * they may start others meanwhile. Where there is no `/proc`, it finds nothing.
 */
const STOP_CALL = `for round in 1 2 3 4 5; do
  found=
  for process in /proc/[0-9]*; do
    if { tr '\\0' '\\n' < "$process/environ" | grep -qx "${CALL_VARIABLE}=$1"; } 2>/dev/null; then
      kill -s KILL "\${process#/proc/}" 2>/dev/null && found=yes
    fi
  done
  [ -n "$found" ] || exit 0
done`;

/**
 * Prints the number of bytes in the file `$1`. A pipe that was put in its place would be waited for without an end.
 */
const SIZE = `if [ -e "$1" ] && [ ! -f "$1" ]; then echo "$1 is not a regular file" >&2; exit 1; fi
wc -c < "$1"`;

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

module.exports = {
  answeredInTime,
  CALL_VARIABLE,
  portableCommand,
  quoted,
  shellCommand,
  SIZE,
  STOP_CALL,
  stoppedInTime,
};
