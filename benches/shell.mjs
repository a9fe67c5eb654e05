// Runs the public tools.

import { spawn } from "node:child_process";

/**
 * A text as one word for `sh`.
 *
 * @param {string} text
 */
export function quote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * Runs a command line of `sh` to its end.
 *
 * @param {string} command
 * @returns {Promise<string>} What it printed. Rejects with its error output if it fails.
 */
export function shell(command) {
  return new Promise((resolve, reject) => {
    const child = spawn("sh", ["-c", command], { stdio: ["ignore", "pipe", "pipe"] });
    /** @type {Buffer[]} */
    const printed = [];
    let complaint = "";
    child.stdout.on("data", (chunk) => printed.push(chunk));
    child.stderr.setEncoding("utf8").on("data", (text) => (complaint += text));
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (code === 0) resolve(Buffer.concat(printed).toString("utf8"));
      else reject(new Error(`\`${command}\` ended with ${signal ?? `code ${code}`}: ${complaint.trim()}`));
    });
  });
}
