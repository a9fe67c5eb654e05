// @ts-check
"use strict";

/**
 * Command lines and scripts that run in a sandbox.
 *
 * @internal
 */

const { sortedNames } = require("./transfer.js");

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
 * Characters that are special within single quotes in some login shell: `'` ends
 * them everywhere, fish takes `\` for an escape, csh takes `!` for its history and allows no line break. Characters
 * that are not ASCII depend on the locale.
 */
const UNSAFE_BYTE = /[^\x20-\x7e]|['\\!]/g;

/**
 * A command line that runs `script` in its own POSIX `sh`, as {@link shellCommand} does. Any shell may read it, csh, tcsh, fish and
 * zsh included, or an SDK that splits it into words itself.
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
 * Prints the number of bytes in the file `$1`. Fails for anything else: reading a pipe might never end.
 */
const SIZE = `if [ -e "$1" ] && [ ! -f "$1" ]; then echo "$1 is not a regular file" >&2; exit 1; fi
wc -c < "$1"`;

/** Prints the names of the plain files in `$1`, each followed by a slash, which no name can contain. */
const LIST = `[ -d "$1" ] || exit 0
cd "$1" && for name in * .*; do
  if [ -f "$name" ] && [ ! -L "$name" ]; then printf '%s/' "$name"; fi
done`;

/**
 * The names in what {@link LIST} printed, sorted.
 *
 * @param {string} output
 */
function listedNames(output) {
  return sortedNames(output.split("/").slice(0, -1));
}

/** Paths that need no encoding, neither in a URL nor in an HTTP form. */
const PLAIN_PATH = /^[\w./@+=:,-]+$/;

module.exports = {
  CALL_VARIABLE,
  LIST,
  listedNames,
  PLAIN_PATH,
  portableCommand,
  quoted,
  shellCommand,
  SIZE,
  STOP_CALL,
  stoppedInTime,
};
