// Runs the suites of what a Mac brings along on a volume that takes `Foo` and `foo` for one name, as most Macs' do.
//
//   node scripts/test-folding.mjs            one that can let two names change places, as theirs can
//   node scripts/test-folding.mjs --plain    one that knows only plain renames
//
// Needs root, Linux with FUSE 3, and python3 with venv; what else it needs goes into .build/. The last line is the total,
// `N passed, N failed`.

import { spawn } from "node:child_process";
import { lstat, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Explained, root, run, runMain } from "./process.mjs";
import { pythonEnvironment, setUp } from "./setup.mjs";

/** How long mounting may take, in milliseconds. */
const PATIENCE = 20_000;

await runMain(async () => {
  const options = process.argv.slice(2);
  if (options.some((option) => option !== "--plain")) throw new Explained("The only option is --plain.");
  // Not on that volume: building there would take long.
  await setUp();
  const python = await pythonEnvironment("folding", ["mfusepy==3.1.1"]);
  const home = await mkdtemp(path.join(os.tmpdir(), "folding-"));
  const [folder, volume] = [path.join(home, "folder"), path.join(home, "volume")];
  for (const made of [folder, volume]) await mkdir(made);
  const program = path.join(root, "__test__", "support", "folding-volume.py");
  const mount = spawn(path.join(python, "bin", "python"), [program, folder, volume, ...options], {
    stdio: "inherit",
    // Where FUSE 2 is there as well, mfusepy takes that, which does not hand on how something is to be renamed.
    env: { ...process.env, FUSE_LIBRARY_NAME: "fuse3" },
  });
  const ended = new Promise((resolve, reject) => mount.once("error", reject).once("close", resolve));
  try {
    await untilItFolds(volume, ended);
    const suites = [path.join(root, "scripts", "test.mjs"), "vitest", "macos"];
    const { code } = await run(process.execPath, suites, { env: { TMPDIR: volume } });
    process.exitCode = code;
  } finally {
    await takeDown(mount, ended, home, volume);
  }
});

/**
 * Ends the program that makes the volume, and removes what was made for it. What fails here is told and counts as a
 * failure, but hides nothing that failed before.
 *
 * @param {import("node:child_process").ChildProcess} mount
 * @param {Promise<unknown>} ended Its end.
 * @param {string} home
 * @param {string} volume
 */
async function takeDown(mount, ended, home, volume) {
  try {
    // It may hang, and then hears nothing else. Nothing on the volume is needed any more.
    mount.kill("SIGKILL");
    // That it could not be started was told where the volume was waited for.
    await ended.catch(() => {});
    // Fails where nothing was mounted; what is still mounted for another reason, the removal stumbles over.
    await run("umount", ["--lazy", volume], { show: false });
    await rm(home, { recursive: true });
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  }
}

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
  // It may come before anybody waits for it, and comes in the end anyway.
  failed.catch(() => {});
  const around = await lstat(path.dirname(volume));
  const isMounted = async () => (await lstat(volume)).dev !== around.dev;
  for (const start = Date.now(); !(await isMounted()); await Promise.race([pause(50), failed])) {
    if (Date.now() - start > PATIENCE)
      throw new Explained(`Nothing was mounted at ${volume} for 20 seconds.`);
  }
  await writeFile(path.join(volume, "Foo"), "");
  await rm(path.join(volume, "foo"));
}
