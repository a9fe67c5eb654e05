// A path on which a program finds what the system has, but no Rust, wherever that was installed.

import { mkdir, readdir, symlink } from "node:fs/promises";
import path from "node:path";

/** Rust's programs: the compiler, cargo and its subcommands, and those beside them. */
const RUSTS = /^(cargo|rust|clippy|rls)/;

/**
 * Makes a folder with links to all programs of the system but Rust's.
 *
 * @param {string} folder
 * @param {string[]} [places] Where they are; the first one of a name counts.
 */
export async function linkProgramsWithoutRust(folder, places = ["/usr/bin", "/bin"]) {
  await mkdir(folder);
  /** @type {Set<string>} */
  const linked = new Set();
  for (const place of places) {
    for (const name of await readdir(place)) {
      if (RUSTS.test(name) || linked.has(name)) continue;
      linked.add(name);
      await symlink(path.join(place, name), path.join(folder, name));
    }
  }
}
