// Files that may not be there.

import { readFile } from "node:fs/promises";

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
