// Commands that a script cannot go on without.

import { Explained, run } from "../process.mjs";

/**
 * Runs a command that must succeed and returns what it printed on standard output.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{ show?: boolean, env?: Record<string, string> }} [options] `show`: as in {@link run}. What is not shown is in
 *   the error where the command fails, with what it printed on standard error.
 */
export async function must(command, args, { show = true, env } = {}) {
  const { code, output, errors } = await run(command, args, { keep: show ? "stdout" : "apart", show, env });
  if (code === 0) return output;
  const said = show ? "" : `\n${output}${errors}`;
  throw new Explained(`This command failed (exit code ${code}): ${[command, ...args].join(" ")}${said}`);
}
