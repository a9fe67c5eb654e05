// A stamp beside each release binary, npm/<platform>/build.json, says which commit it was built from. It is not part of
// any package, but no package is made without it.

import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { readIfThere } from "../files.mjs";
import { Explained } from "../process.mjs";
import { packageDir } from "./platforms.mjs";
import { readSource } from "./source.mjs";

/**
 * @typedef {object} Stamp
 * @property {string} commit
 * @property {boolean} dirty Whether the work tree differed from that commit.
 * @property {string} sha256 Of the binary.
 */

/** @param {string} platform */
const stampPath = (platform) => path.join(packageDir(platform), "build.json");

/** @param {Buffer} bytes */
export function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * Stamps a binary that was just built.
 *
 * @param {string} platform
 * @param {Buffer} bytes The binary.
 * @param {import("./source.mjs").Source} before The source when the build began: it must still be that one.
 */
export async function writeStamp(platform, bytes, before) {
  const now = await readSource();
  /** @type {Stamp} */
  const stamp = {
    commit: before.commit,
    dirty: before.dirty || now.dirty || now.commit !== before.commit,
    sha256: sha256(bytes),
  };
  await writeFile(stampPath(platform), `${JSON.stringify(stamp, null, 2)}\n`);
}

/**
 * @param {string} platform
 * @returns {Promise<Stamp | undefined>} `undefined` where there is none.
 */
export async function readStamp(platform) {
  const file = stampPath(platform);
  const text = await readIfThere(file);
  if (text === undefined) return undefined;
  try {
    return parseStamp(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new Explained(
      `${file} is no stamp of a build (${error.message}).\nBuild again: node scripts/build-all.mjs ${platform}`,
    );
  }
}

/**
 * Throws a `SyntaxError` where the text is no stamp.
 *
 * @param {string} text
 * @returns {Stamp}
 */
export function parseStamp(text) {
  const stamp = JSON.parse(text);
  if (!/^[0-9a-f]{40,64}$/.test(stamp?.commit)) throw new SyntaxError("it names no commit");
  if (typeof stamp.dirty !== "boolean") throw new SyntaxError('its "dirty" is neither true nor false');
  if (!/^[0-9a-f]{64}$/.test(stamp.sha256)) throw new SyntaxError("it has no sha256");
  return stamp;
}

/**
 * What a stamp says against a binary.
 *
 * @param {Stamp | undefined} stamp
 * @param {{ sha256: string, commit?: string, like?: string, clean?: boolean }} wanted `sha256`: of the binary that is
 *   there. `commit`: the one it must be built from, which is that of `like`. `clean`: whether it must be built from just
 *   that.
 * @returns {string[]}
 */
export function stampFaults(stamp, { sha256, commit, like, clean = false }) {
  if (!stamp) return ["nothing says what it was built from: it has no stamp (build.json)"];
  const faults = [];
  if (stamp.sha256 !== sha256) faults.push("it is not the binary that its stamp (build.json) was made for");
  if (commit !== undefined && stamp.commit !== commit)
    faults.push(`it was built from the commit ${stamp.commit}, and ${like} is ${commit}`);
  if (clean && stamp.dirty) faults.push("it was built with changes that were not committed");
  return faults;
}
