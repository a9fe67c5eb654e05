// Finds and runs the examples in a Markdown file.

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const execute = promisify(execFile);

/** The repository's folder. */
export const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * A fenced block of code in a Markdown file.
 *
 * @typedef {object} Example
 * @property {number} line The line of its opening fence, from 1.
 * @property {string} language
 * @property {string} code
 * @property {string | undefined} output What it prints: a `text` block that directly follows.
 */

/**
 * The `js` and `ts` blocks of a Markdown file, in order.
 *
 * @param {string} markdown
 * @returns {Example[]}
 */
export function findExamples(markdown) {
  const fence = /^```(\w+)\n([\s\S]*?)^```$(?:\n+```text\n([\s\S]*?)^```$)?/gm;
  return [...markdown.matchAll(fence)]
    .map(({ 1: language, 2: code, 3: output, index }) => {
      return { line: markdown.slice(0, index).split("\n").length, language, code, output };
    })
    .filter(({ language }) => language === "js" || language === "ts");
}

/**
 * Gives `use` an empty folder in which this package is installed, as a user's project would have it.
 *
 * @template T
 * @param {(folder: string) => Promise<T>} use
 */
export async function withProject(use) {
  const folder = await mkdtemp(path.join(os.tmpdir(), "example-"));
  try {
    const modules = path.join(folder, "node_modules");
    await mkdir(path.join(modules, "@paperclipai"), { recursive: true });
    await symlink(root, path.join(modules, "@paperclipai", "sandbox-managed-runtime"));
    await symlink(path.join(root, "node_modules", "@types"), path.join(modules, "@types"));
    await writeFile(path.join(folder, "package.json"), JSON.stringify({ type: "module" }));
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Runs a file and returns what it prints. Rejects, with what it says on standard error, where it fails.
 *
 * @param {string} file
 * @param {string} folder The working directory.
 */
export async function runExample(file, folder) {
  const { stdout } = await execute(process.execPath, [file], { cwd: folder });
  return stdout;
}

/**
 * Checks the types in a TypeScript file. Rejects, with what the compiler says, where they do not fit.
 *
 * @param {string} file
 * @param {string} folder The project that it is in.
 */
export async function checkTypes(file, folder) {
  const compiler = path.join(root, "node_modules", "typescript", "bin", "tsc");
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext"];
  await execute(process.execPath, [compiler, ...options, "--types", "node", file], { cwd: folder }).catch(
    (error) => {
      throw new Error(error.stdout);
    },
  );
}
