// A volume that takes `Foo` and `foo` for one name, as most Macs' do. Needs root, Linux with FUSE 3, and python3 with venv.

import { spawn, spawnSync } from "node:child_process";
import { lstat, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll } from "vitest";
import { pythonEnvironment } from "../../scripts/setup.mjs";

/** How long mounting may take, in milliseconds. */
const PATIENCE = 60_000;

/**
 * Mounts such a volume for the temporary files of this process, until the tests of the file have ended.
 *
 * @param {string[]} options `--plain`: it knows only plain renames. Otherwise it lets two names change places, as a Mac's.
 */
export async function useFoldingVolume(...options) {
  // Files run beside one another, so each kind of volume has its own.
  const programs = await pythonEnvironment(`folding${options.join("")}`, ["mfusepy==3.1.1"]);
  const home = await mkdtemp(path.join(os.tmpdir(), "folding-"));
  const [folder, volume] = [path.join(home, "folder"), path.join(home, "volume")];
  for (const made of [folder, volume]) await mkdir(made);
  const program = path.join(import.meta.dirname, "folding-volume.py");
  const mount = spawn(path.join(programs, "python"), [program, folder, volume, ...options], {
    stdio: "inherit",
    // Where FUSE 2 is there as well, mfusepy takes that, which does not hand on how something is to be renamed.
    env: { ...process.env, FUSE_LIBRARY_NAME: "fuse3" },
  });
  const ended = new Promise((resolve) => mount.once("error", resolve).once("close", resolve));
  const takeDown = async () => {
    // It may hang, and then hears nothing else. Nothing on the volume is needed any more.
    mount.kill("SIGKILL");
    await ended;
    // Fails where nothing was mounted; what is still mounted for another reason, the removal stumbles over.
    spawnSync("umount", ["--lazy", volume]);
    await rm(home, { recursive: true });
  };
  try {
    await untilItFolds(volume, ended);
  } catch (error) {
    await takeDown();
    throw error;
  }
  process.env.TMPDIR = volume;
  afterAll(takeDown);
}

/**
 * Waits until the volume is mounted, and finds a file by another name than it was given.
 *
 * @param {string} volume
 * @param {Promise<unknown>} ended The end of the program that makes it.
 */
async function untilItFolds(volume, ended) {
  const failed = ended.then(() => {
    throw new Error("The volume could not be mounted: root and FUSE 3 (Debian's fuse3) are needed for it.");
  });
  // It ends in any case, and then nothing waits for it any more.
  failed.catch(() => {});
  const around = await lstat(path.dirname(volume));
  const isMounted = async () => (await lstat(volume)).dev !== around.dev;
  for (const start = Date.now(); !(await isMounted()); await Promise.race([pause(50), failed])) {
    if (Date.now() - start > PATIENCE) throw new Error(`Nothing was mounted at ${volume} for a minute.`);
  }
  await writeFile(path.join(volume, "Foo"), "");
  await rm(path.join(volume, "foo"));
}
