// Running: other programs, with what they print shown as it comes or kept for reading; and the scripts themselves.

import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

/** The repository's folder. */
export const root = fileURLToPath(new URL("..", import.meta.url));

/** What the build and test tools need; the installed package itself is content with any Node 20. */
const OLDEST_NODE = "20.19";

/** A problem that is explained by its message alone: shown to a person without a stack. */
export class Explained extends Error {}

/**
 * @typedef {object} Outcome
 * @property {number} code The exit code; 1 for a program that was killed by a signal.
 * @property {string} output What it printed to standard output, and between that what it printed to standard error where
 *   both were kept as one.
 * @property {string} errors What it printed to standard error, where that was kept apart.
 */

/**
 * Runs a program, by default in the repository's folder.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{ show?: boolean, keep?: "stdout" | "both" | "apart", env?: Record<string, string>, cwd?: string,
 *   onOutput?: (text: string) => void }} [options]
 *   `show`: pass on what it prints, as it comes (default `true`). `keep`: also collect it; `both` is for a person to read,
 *   and `apart` for a program, since a warning may come along with what is asked for. `onOutput`: called with what is
 *   kept, as it comes.
 * @returns {Promise<Outcome>} Rejects only where the program cannot be started.
 */
export function run(command, args, { show = true, keep, env, cwd = root, onOutput } = {}) {
  return new Promise((resolve, reject) => {
    const unkept = show ? "inherit" : "ignore";
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", keep ? "pipe" : unkept, keep === "both" || keep === "apart" ? "pipe" : unkept],
    });
    const kept = { output: "", errors: "" };
    const collect = (
      /** @type {import("node:stream").Readable | null} */ from,
      /** @type {NodeJS.WriteStream} */ to,
      /** @type {keyof typeof kept} */ as,
    ) =>
      from?.setEncoding("utf8").on("data", (text) => {
        kept[as] += text;
        if (show) to.write(text);
        onOutput?.(text);
      });
    collect(child.stdout, process.stdout, "output");
    collect(child.stderr, process.stderr, keep === "apart" ? "errors" : "output");
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? 1, ...kept }));
  });
}

/**
 * Reads a text file; `undefined` where there is none.
 *
 * @param {string} file
 */
export async function readIfThere(file) {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Compares two versions by their first two numbers.
 *
 * @param {string} version
 * @param {string} oldest
 */
export function isAtLeast(version, oldest) {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [oldestMajor = 0, oldestMinor = 0] = oldest.split(".").map(Number);
  return major > oldestMajor || (major === oldestMajor && minor >= oldestMinor);
}

/** Throws where Node is too old for the tools. */
function requireNode() {
  if (isAtLeast(process.versions.node, OLDEST_NODE)) return;
  throw new Explained(
    `Node ${OLDEST_NODE} or newer is needed here, and this is Node ${process.versions.node}.\n` +
      "Install a current release and run the command again.",
  );
}

/**
 * Runs a script's main function, if this Node is new enough: an {@link Explained} error is printed as a sentence, any
 * other with its stack, and both end the process with exit code 1.
 *
 * @param {() => Promise<void>} main
 */
export async function runMain(main) {
  try {
    requireNode();
    await main();
  } catch (error) {
    console.error(error instanceof Explained ? `\n${error.message}` : error);
    process.exitCode = 1;
  }
}
