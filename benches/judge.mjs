// Checks outcomes with independent tools: GNU tar, rsync, find and sha256sum.

import { mkdir, open, rm } from "node:fs/promises";
import path from "node:path";
import { Explained } from "../scripts/process.mjs";
import { quote, shell } from "./shell.mjs";

/** @typedef {import("./operations.mjs").Places} Places */

/** A wrong outcome. */
export class WrongOutcome extends Explained {}

/**
 * Throws if two folders differ in names, kinds, bytes, link targets or modes. The runtime folder is not compared.
 *
 * @param {string} expected
 * @param {string} actual
 */
export async function expectSameTree(expected, actual) {
  const options = "-rlpcni --delete --exclude=/.paperclip-runtime";
  const differences = await shell(`rsync ${options} ${quote(`${expected}/`)} ${quote(`${actual}/`)}`);
  if (differences === "") return;
  const lines = differences.trimEnd().split("\n");
  throw new WrongOutcome(`${lines.length} entries are not as they should be, such as ${lines[0]}`);
}

/**
 * Throws if an archive does not have exactly the workspace's content.
 *
 * @param {string} archive
 * @param {Places} at
 */
export async function expectArchive(archive, at) {
  await extract(archive, at.judged);
  await expectSameTree(at.workspace, at.judged);
}

/**
 * Throws if the contestant's copy differs from what the sandbox had.
 *
 * @param {Places} at
 * @param {import("./workloads.mjs").State} state
 */
export async function expectState(at, state) {
  await extract(at.download(state), at.judged);
  await expectSameTree(at.judged, at.copy);
}

/**
 * @param {string} archive
 * @param {string} folder Emptied first.
 */
async function extract(archive, folder) {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  // An upload over a link that was measured as slow is compressed, and what follows the archive is not: gzip reports
  // that with status 2, and zstd with status 1, as any damage. What tar then extracts is compared in any case.
  const start = (await readStart(archive, 4)).toString("hex");
  const isGzip = start.startsWith("1f8b");
  const programs = {
    gzip: `(gzip -dcq < ${quote(archive)} || [ $? = 2 ])`,
    zstd: `(zstd -dcq < ${quote(archive)} || [ $? = 1 ])`,
  };
  const read = isGzip ? programs.gzip : start === "28b52ffd" ? programs.zstd : `cat ${quote(archive)}`;
  await shell(`${read} | tar -xpf - -C ${quote(folder)}`);
}

/**
 * @param {string} file
 * @param {number} length
 */
async function readStart(file, length) {
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/**
 * Throws if a snapshot lacks an entry, has an additional one, or has a wrong digest.
 *
 * @param {import("../index.js").DirectorySnapshot | undefined} snapshot
 * @param {string} folder
 */
export async function expectSnapshot(snapshot, folder) {
  if (!snapshot) throw new WrongOutcome("there is no snapshot");
  const listed = await shell(`cd ${quote(folder)} && find . -mindepth 1 | wc -l`);
  if (snapshot.entries.size !== Number(listed)) {
    throw new WrongOutcome(
      `the snapshot has ${snapshot.entries.size} entries, and there are ${listed.trim()}`,
    );
  }
  const digests = await shell(`cd ${quote(folder)} && find . -type f -print0 | xargs -0 sha256sum`);
  for (const line of digests.trimEnd().split("\n")) {
    const [, digest, name] = /^([0-9a-f]{64}) {2}\.\/(.*)$/.exec(line) ?? [];
    const entry = snapshot.entries.get(name);
    if (entry?.kind !== "file" || entry.hash !== digest) {
      throw new WrongOutcome(`the snapshot does not have ${name} as sha256sum sees it`);
    }
  }
}

/**
 * Changes the last byte of some file in a folder and leaves its size and its modification time as they are.
 *
 * @param {string} folder
 */
export async function tamper(folder) {
  const listed = await shell(`cd ${quote(folder)} && find . -type f | head -n 1`);
  const file = await open(path.join(folder, listed.trimEnd()), "r+");
  try {
    const { size, atime, mtime } = await file.stat();
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, size - 1);
    byte[0] ^= 1;
    await file.write(byte, 0, 1, size - 1);
    await file.utimes(atime, mtime);
  } finally {
    await file.close();
  }
}
