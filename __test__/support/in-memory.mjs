// Where the tests' temporary files lie.

import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { freemem } from "node:os";
import path from "node:path";

/** Where Linux has a file system in memory. */
const MEMORY = "/dev/shm";

/** How much must be free there, in bytes. The tests use up to two gigabytes at a time. */
const NEEDED_BYTES = 6 * 2 ** 30;

/**
 * Has this process and those that it starts keep temporary files in memory, unless `TMPDIR` is set or there is too little room.
 *
 * The tests make and delete very many files. Where ext4 has no journal, it looks at every inode that was deleted lately when it
 * makes one: the tests of the merge table took 161 s there, and 15 s in memory. What depends on a file system is tested on a disk
 * too (__test__/volumes/).
 */
export function keepTemporaryFilesInMemory() {
  if (process.env.TMPDIR || !existsSync(MEMORY)) return;
  const { bavail, bsize } = statfsSync(MEMORY);
  if (Math.min(bavail * bsize, freemem()) < NEEDED_BYTES) return;
  const folder = mkdtempSync(path.join(MEMORY, "tests-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
  // Some tests run as another user.
  chmodSync(folder, 0o1777);
  if (canExecuteIn(folder)) process.env.TMPDIR = folder;
}

/** Containers often forbid to run programs that lie in memory. */
function canExecuteIn(/** @type {string} */ folder) {
  const program = path.join(folder, "program");
  writeFileSync(program, "#!/bin/sh\n", { mode: 0o755 });
  return spawnSync(program).status === 0;
}
