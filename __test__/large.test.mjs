// A workspace that is many times larger than the memory that a transfer may take.

import { mkdir, mkdtemp, open, rm, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runScript } from "./support/processes.mjs";

const MIB = 1024 * 1024;

/** How many times its size the test needs as free disk space: locally, in the sandbox, and for archives. */
const COPIES = 4.5;

/** A directory on a disk: temporary files may be in memory. */
const DISK = "/var/tmp";

/** `LARGE_GIB=20` makes it larger. It is smaller if the disk has too little space. */
const GIB = Number(process.env.LARGE_GIB ?? ((await freeGib(DISK)) < 3 * COPIES ? 2 : 3));

/** How much memory a transfer may take above that of the idle process. */
const CEILING = 256 * MIB;

let base;

/** @param {string} folder */
async function freeGib(folder) {
  const { bavail, bsize } = await statfs(folder);
  return (bavail * bsize) / (1024 * MIB);
}

beforeEach(async () => {
  base = await mkdtemp(path.join(DISK, "large-"));
});

afterEach(async () => {
  await rm(base, { recursive: true, force: true });
});

/**
 * Half of it is in files of 256 MiB, half in files of at most 1 MiB. No block has only zeros, or the same bytes as another.
 *
 * @param {string} folder
 */
async function fill(folder) {
  const noise = crypto.getRandomValues(new Uint8Array(65_536));
  const block = Buffer.alloc(MIB);
  for (let at = 0; at < MIB; at += noise.length) block.set(noise, at);
  let number = 0;
  const fresh = () => {
    for (let at = 0; at < MIB; at += 4096) block.writeUInt32LE(number++, at);
    return block;
  };
  await mkdir(path.join(folder, "large"), { recursive: true });
  for (let file = 0; file < GIB * 2; file++) {
    const handle = await open(path.join(folder, "large", `${file}`), "w");
    for (let written = 0; written < 256; written++) await handle.write(fresh());
    await handle.close();
  }
  for (let left = GIB * 512 * MIB, file = 0; left > 0; file++) {
    const sizes = [MIB, 100_000, 3000];
    const size = sizes[file % sizes.length];
    const below = path.join(folder, "small", `${file >> 8}`);
    if ((file & 255) === 0) await mkdir(below, { recursive: true });
    const handle = await open(path.join(below, `${file}`), "w");
    await handle.write(fresh(), 0, size);
    await handle.close();
    left -= size;
  }
}

describe.skipIf(process.platform !== "linux")(`a workspace of ${GIB} GiB`, () => {
  it("is uploaded and restored within 256 MiB of memory", { timeout: GIB * 300_000 }, async () => {
    if ((await freeGib(base)) < GIB * COPIES) {
      throw new Error(`${base} has too little free disk for this: ${GIB * COPIES} GiB are needed`);
    }
    const [folder, sandbox] = [path.join(base, "workspace"), path.join(base, "sandbox")];
    await Promise.all([mkdir(folder), mkdir(sandbox)]);
    await fill(folder);
    const { code, stdout, stderr } = await runScript("memory-peak.mjs", [folder, sandbox], {
      execArgv: ["--expose-gc"],
    });
    expect({ code, stderr }).toStrictEqual({ code: 0, stderr: "" });
    const peaks = JSON.parse(stdout);
    console.log(`at most ${Math.round(peaks.up / MIB)} MiB up and ${Math.round(peaks.down / MIB)} MiB down`);
    expect(peaks.up).toBeLessThan(CEILING);
    expect(peaks.down).toBeLessThan(CEILING);
    expect((await stat(path.join(folder, "large", "0"))).size).toBe(256 * MIB + "changed there".length);
  });
});
