// The trees that are measured. The same options give the same names, modes and bytes, on any machine.

import { createCipheriv } from "node:crypto";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";

/**
 * One file of a workload.
 *
 * @typedef {object} PlannedFile
 * @property {string} name Its path in the tree.
 * @property {number} size In bytes.
 */

/**
 * @typedef {object} Workload
 * @property {string} title What it is, for people.
 * @property {boolean} incompressible Whether its files hold noise; text otherwise.
 * @property {PlannedFile[]} files
 */

/** Which files differ from the workspace as it was uploaded: none, one in a hundred, or each. */
const STATES = {
  unchanged: () => false,
  few: (/** @type {number} */ index) => index % 100 === 0,
  all: () => true,
};

/** @typedef {keyof typeof STATES} State */

const MEBIBYTE = 1024 * 1024;

/** How large the workloads are: as published, for a quick look, or just large enough to show that everything runs. */
export const SCALES = {
  full: { src: 20_000, big: 64 * MEBIBYTE, mono: 100_000 },
  quick: { src: 3_000, big: 16 * MEBIBYTE, mono: 8_000 },
  tiny: { src: 120, big: MEBIBYTE, mono: 200 },
};

/** @typedef {keyof typeof SCALES} Scale */

/**
 * @param {Scale} scale
 * @returns {Record<"src" | "big" | "mono" | "mono-tenth", Workload>} `mono-tenth` is `mono` with a tenth of its files.
 */
export function planWorkloads(scale) {
  const { src, big, mono } = SCALES[scale];
  return {
    src: textTree(src),
    big: {
      title: `8 files of ${big / MEBIBYTE} MiB, incompressible`,
      incompressible: true,
      files: Array.from({ length: 8 }, (_, index) => ({ name: `model-${index}.bin`, size: big })),
    },
    mono: flatTree(mono),
    "mono-tenth": flatTree(mono / 10),
  };
}

/**
 * A source tree: many small files of different sizes, six kilobytes on average, up to five folders deep.
 *
 * @param {number} count
 * @returns {Workload}
 */
function textTree(count) {
  const random = noise(count * 4, "sizes");
  const files = Array.from({ length: count }, (_, index) => {
    const folders = [
      `package-${index % 8}`,
      `area-${(index >> 3) % 10}`,
      `topic-${(index >> 5) % 12}`,
      "inner",
    ].slice(0, 1 + (index % 4));
    const fraction = (random.readUInt32LE(index * 4) + 1) / 2 ** 32;
    const size = Math.min(200 + Math.round(-Math.log(fraction) * 5_800), 40_000);
    return { name: [...folders, `unit-${index}.ts`].join("/"), size };
  });
  return { title: `${count.toLocaleString("en")} text files in a nested tree`, incompressible: false, files };
}

/**
 * Files of one size, a thousand to a folder, or a tenth of all where there are few.
 *
 * @param {number} count
 * @returns {Workload}
 */
function flatTree(count) {
  const perFolder = Math.min(1000, Math.ceil(count / 10));
  const files = Array.from({ length: count }, (_, index) => ({
    name: `shard-${Math.floor(index / perFolder)}/item-${index}.txt`,
    size: 2048,
  }));
  return { title: `${count.toLocaleString("en")} files of 2 KiB`, incompressible: false, files };
}

/**
 * Writes a workload into a folder that does not exist yet.
 *
 * @param {Workload} workload
 * @param {string} folder
 * @param {State} [state]
 */
export async function writeTree(workload, folder, state = "unchanged") {
  const { files, incompressible } = workload;
  const differs = STATES[state];
  const text = Buffer.from(noise(MEBIBYTE, "text").toString("base64").replace(/.{7}/g, "$& "));
  const folders = new Set(files.map((file) => path.dirname(path.join(folder, file.name))));
  for (const name of folders) await mkdir(name, { recursive: true });
  for (const [index, { name, size }] of files.entries()) {
    const label = `${index}${differs(index) ? " changed" : ""}`;
    const content = incompressible ? noise(size, label) : slice(text, label, index, size);
    const file = path.join(folder, name);
    await writeFile(file, content);
    // Some programs, so that modes are not all one.
    if (index % 50 === 0) await chmod(file, 0o755);
  }
}

/**
 * Bytes without a pattern, the same for the same seed.
 *
 * @param {number} size
 * @param {string} seed
 */
function noise(size, seed) {
  const key = Buffer.alloc(16, seed.padEnd(16, "."));
  return createCipheriv("aes-128-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

/**
 * A piece of the common text that begins with a line of its own, so that no two files are the same.
 *
 * @param {Buffer} text
 * @param {string} label
 * @param {number} index
 * @param {number} size
 */
function slice(text, label, index, size) {
  const start = (index * 4099) % (text.length - size);
  const content = Buffer.from(text.subarray(start, start + size));
  content.write(`// ${label}\n`);
  return content;
}
