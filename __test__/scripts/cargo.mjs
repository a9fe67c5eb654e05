// A cargo that does nothing but note how it is called.

import { chmod, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

/**
 * Puts it into a directory for the search path. Asked for its version it gives one that is new enough.
 *
 * @param {string} folder
 * @param {string} result What it prints as the result of `cargo test`.
 * @returns The calls so far, a line each.
 */
export async function putCargo(folder, result) {
  const calls = path.join(folder, "calls");
  const cargo = path.join(folder, "cargo");
  const answers = `case "$1" in --version) echo "cargo 999.0.0";; test) echo "${result}";; esac`;
  await writeFile(cargo, `#!/bin/sh\necho "$*" >> '${calls}'\n${answers}\n`);
  await chmod(cargo, 0o755);
  return async () => (await readFile(calls, "utf8")).trim().split("\n");
}
