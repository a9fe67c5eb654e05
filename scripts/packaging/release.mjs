// A release: its binaries, as they stand in npm/<platform>/, and its packages. Nothing is packed that was not checked.

import { readFile, rm } from "node:fs/promises";
import { Explained } from "../process.mjs";
import { inspectBinary } from "./inspect.mjs";
import { PACKAGES_DIR, packMain, packPlatform } from "./packages.mjs";
import { binaryPath } from "./platforms.mjs";
import { readStamp, sha256, stampFaults } from "./stamps.mjs";
import { requireVersion } from "./versions.mjs";

/**
 * @typedef {object} Checked
 * @property {string} platform
 * @property {string[]} faults What is wrong with its binary.
 * @property {string} facts What a person may want to know of it.
 */

/**
 * Checks binaries as far as that is possible without running them.
 *
 * @param {string[]} platforms
 * @param {string} [commit] The one that all must be built from, without any change to it; by default, they need only
 *   have the same.
 * @returns {Promise<Checked[]>}
 */
export async function checkBinaries(platforms, commit) {
  const stamps = await Promise.all(platforms.map(readStamp));
  const first = stamps.findIndex((stamp) => stamp !== undefined);
  const wanted = commit
    ? { commit, like: "what is released", clean: true }
    : { commit: stamps[first]?.commit, like: `that of ${platforms[first]}` };

  /** @type {Checked[]} */
  const checked = [];
  for (const [index, platform] of platforms.entries()) {
    const bytes = await readBinary(platform);
    const { faults, facts } = inspect(platform, bytes);
    faults.push(...stampFaults(stamps[index], { ...wanted, sha256: sha256(bytes) }));
    checked.push({ platform, faults, facts });
  }
  return checked;
}

/** @param {string} platform */
async function readBinary(platform) {
  const file = binaryPath(platform);
  try {
    return await readFile(file);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "ENOENT") throw error;
    throw new Explained(`There is no ${file}.\nBuild it first: node scripts/build-all.mjs ${platform}`);
  }
}

/**
 * @param {string} platform
 * @param {Buffer} bytes
 */
function inspect(platform, bytes) {
  try {
    return inspectBinary(platform, bytes);
  } catch (error) {
    // What is no such library, or only part of one, is read until that shows.
    const message = error instanceof Error ? error.message : String(error);
    return { faults: [`it cannot be read as a library: ${message}`], facts: `${bytes.length} bytes` };
  }
}

/**
 * Packs the platforms' packages, and the main one last, which asks for them. Throws where a version or a binary is not
 * what it must be.
 *
 * @param {string[]} platforms
 * @param {string} [commit] As for {@link checkBinaries}.
 */
export async function packRelease(platforms, commit) {
  await requireVersion();
  const faulty = (await checkBinaries(platforms, commit)).filter(({ faults }) => faults.length > 0);
  if (faulty.length > 0) {
    const lines = faulty.flatMap(({ platform, faults }) => faults.map((fault) => `  ${platform}: ${fault}`));
    throw new Explained(
      `These binaries are not fit to be packed:\n${lines.join("\n")}\n` +
        `Build them again: node scripts/build-all.mjs ${faulty.map(({ platform }) => platform).join(" ")}`,
    );
  }
  await rm(PACKAGES_DIR, { recursive: true, force: true });
  const packed = [];
  for (const platform of platforms) {
    packed.push(await packPlatform(platform, binaryPath(platform), PACKAGES_DIR));
  }
  packed.push(await packMain(PACKAGES_DIR));
  return packed;
}
