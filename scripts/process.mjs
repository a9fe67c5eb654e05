// Running: other programs, with what they print shown as it comes or kept for reading; and the scripts themselves.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The repository's folder. */
export const root = fileURLToPath(new URL("..", import.meta.url));

/** What the build and test tools need; the installed package itself is content with any Node 20. */
const OLDEST_NODE = "20.19";

/** A problem that is explained by its message alone: shown to a person without a stack. */
export class Explained extends Error {}

/**
 * Runs a program, by default in the repository's folder.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{ show?: boolean, keep?: boolean, env?: Record<string, string>, cwd?: string,
 *   onLine?: (line: string) => void }} [options]
 *   `show`: pass on what it prints, as it comes (default `true`). `keep`: also collect it, line by line, from standard
 *   output and standard error together. `onLine`: called with each line that is kept, as it comes.
 * @returns {Promise<{ code: number, output: string }>} The exit code, which is 1 for a program that a signal ended, and
 *   what was kept. Rejects only where the program cannot be started.
 */
export function run(command, args, { show = true, keep = false, env, cwd = root, onLine } = {}) {
  return new Promise((resolve, reject) => {
    const unkept = show ? "inherit" : "ignore";
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", keep ? "pipe" : unkept, keep ? "pipe" : unkept],
    });
    let output = "";
    for (const input of [child.stdout, child.stderr]) {
      if (!input) continue;
      createInterface({ input }).on("line", (line) => {
        output += `${line}\n`;
        if (show) console.log(line);
        onLine?.(line);
      });
    }
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

/**
 * Whether a version is another one or newer.
 *
 * @param {string} version
 * @param {string} oldest
 */
export const isAtLeast = (version, oldest) =>
  version.localeCompare(oldest, undefined, { numeric: true }) >= 0;

/**
 * Runs a script's main function, if this Node is new enough: an {@link Explained} error is printed as a sentence, any
 * other with its stack, and both end the process with exit code 1.
 *
 * @param {() => Promise<void>} main
 */
export async function runMain(main) {
  try {
    if (!isAtLeast(process.versions.node, OLDEST_NODE)) {
      throw new Explained(
        `Node ${OLDEST_NODE} or newer is needed here, and this is Node ${process.versions.node}.\n` +
          "Install a current release and run the command again.",
      );
    }
    await main();
  } catch (error) {
    console.error(error instanceof Explained ? `\n${error.message}` : error);
    process.exitCode = 1;
  }
}
