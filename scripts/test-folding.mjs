// Runs the suites of what a Mac brings along on a volume that takes `Foo` and `foo` for one name, as most Macs' do.
//
//   node scripts/test-folding.mjs
//
// Needs root, Linux with FUSE 3, and python3 with venv; what else it needs goes into .build/. The last line is the total,
// `N passed, N failed`.

import { spawn } from "node:child_process";
import { lstat, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { must } from "./packaging/commands.mjs";
import { pythonEnvironment } from "./packaging/toolchain.mjs";
import { Explained, root, run, runMain } from "./process.mjs";
import { setUp } from "./setup.mjs";

/** How long mounting may take, in milliseconds. */
const PATIENCE = 20_000;

await runMain(async () => {
  // Not on that volume: building there would take long.
  await setUp();
  const python = await pythonEnvironment("folding", ["mfusepy==3.1.1"]);
  const home = await mkdtemp(path.join(os.tmpdir(), "folding-"));
  const [folder, volume] = [path.join(home, "folder"), path.join(home, "volume")];
  for (const made of [folder, volume]) await mkdir(made);
  const program = path.join(root, "scripts", "folding-volume.py");
  const mount = spawn(path.join(python, "bin", "python"), [program, folder, volume], { stdio: "inherit" });
  const ended = new Promise((resolve, reject) => mount.once("error", reject).once("close", resolve));
  try {
    await untilItFolds(volume, ended);
    const suites = [path.join(root, "scripts", "test.mjs"), "vitest", "macos"];
    const { code } = await run(process.execPath, suites, { env: { TMPDIR: volume } });
    process.exitCode = code;
  } finally {
    if (mount.exitCode === null) await must("umount", [volume]);
    await ended;
    await rm(home, { recursive: true });
  }
});

/**
 * Waits until the volume stands, and finds a file by another name than it was given.
 *
 * @param {string} volume
 * @param {Promise<unknown>} ended The end of the program that makes it.
 */
async function untilItFolds(volume, ended) {
  const failed = ended.then(() => {
    throw new Explained(
      "The volume could not be mounted: root and FUSE 3 (Debian's fuse3) are needed for it.",
    );
  });
  const around = await lstat(path.dirname(volume));
  const isMounted = async () => (await lstat(volume)).dev !== around.dev;
  for (const start = Date.now(); !(await isMounted()); await Promise.race([pause(50), failed])) {
    if (Date.now() - start > PATIENCE)
      throw new Explained(`Nothing was mounted at ${volume} for 20 seconds.`);
  }
  failed.catch(() => {});
  await writeFile(path.join(volume, "Foo"), "");
  await rm(path.join(volume, "foo"));
}
