// Checks release binaries without running them: the processor, the size, the exported names, the glibc that they need,
// and that no path of the machine that built them is inside. build-all.mjs checks what it built, and pack.mjs what it
// publishes.

import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { MINIMUM_GLIBC, PLATFORMS, fileName } from "./platforms.mjs";
import { Explained, isAtLeast, root } from "./process.mjs";

/** In bytes: linux-x64-gnu has 7.4 MB, optimised for speed (Cargo.toml says why), and others may need a little more. */
const LARGEST = 8 * 1024 * 1024;

/** The symbol by which Node registers an addon. */
const ENTRY = "napi_register_module_v1";

/** What linkers for macOS export too. There a symbol is looked for in its own library, so these clash with none. */
const MACH_O_EXTRAS = /^(_mh_dylib_header|__dso_handle|rust_eh_personality|_R\w+)$/;

/** The field of an ELF and of a Mach-O header that names the processor. */
const CPUS = { x64: { elf: 62, machO: 0x01000007 }, arm64: { elf: 183, machO: 0x0100000c } };

/**
 * Prints what is wrong with a binary, which must be named as it is published; whether nothing is.
 *
 * @param {string} file
 */
export async function checkFile(file) {
  const platform = PLATFORMS.find((name) => fileName(name) === path.basename(file));
  if (!platform) throw new Explained(`${file} is not named as a published binary is.`);
  const bytes = await readFile(file);
  const faults = faultsOf(platform, bytes);
  console.log(`${faults.length > 0 ? "FAILED" : "ok    "}  ${platform.padEnd(16)} ${bytes.length} bytes`);
  for (const fault of faults) console.log(`        ${fault}`);
  return faults.length === 0;
}

/**
 * What is wrong with a binary.
 *
 * @param {string} platform
 * @param {Buffer} bytes
 * @returns {string[]}
 */
export function faultsOf(platform, bytes) {
  const [os, cpu, libc] = platform.split("-");
  const library = os === "darwin" ? readMachO(bytes) : readElf(bytes);
  if (!library) return [`it is not a 64-bit ${os === "darwin" ? "Mach-O" : "ELF"} library`];
  const text = bytes.toString("latin1");
  const others = library.exported.filter(
    (name) => name !== ENTRY && !(os === "darwin" && MACH_O_EXTRAS.test(name)),
  );
  const needed = [...text.matchAll(/\bGLIBC_(\d+\.\d+)/g)].map(([, version]) => version);
  const tooNew = needed.filter((version) => version !== MINIMUM_GLIBC && isAtLeast(version, MINIMUM_GLIBC));
  const folders = [root, `${homedir()}/`, "/home/", "/Users/", "/root/", "/tmp/", ".cargo/", ".rustup/"];
  const inside = folders.filter((folder) => text.includes(folder));
  /** @type {[boolean, string][]} */
  const rules = [
    [bytes.length <= LARGEST, `it has ${bytes.length} bytes, more than ${LARGEST}`],
    [
      library.cpu === CPUS[/** @type {"x64" | "arm64"} */ (cpu)][os === "darwin" ? "machO" : "elf"],
      "it is for another processor",
    ],
    [library.exported.includes(ENTRY), `it does not export ${ENTRY}`],
    [others.length === 0, `it exports more than ${ENTRY}: ${others.slice(0, 5).join(", ")}`],
    [library.signed || cpu !== "arm64", "it is not signed, and macOS on arm64 loads no unsigned library"],
    [libc !== "gnu" || needed.length > 0, "it does not use glibc"],
    [libc !== "musl" || needed.length === 0, "it needs glibc"],
    [libc !== "gnu" || tooNew.length === 0, `it needs glibc ${tooNew.at(-1)}, newer than ${MINIMUM_GLIBC}`],
    [inside.length === 0, `it holds paths of the machine that built it, with ${inside.join(", ")}`],
  ];
  return rules.filter(([holds]) => !holds).map(([, fault]) => fault);
}

/** @typedef {{ cpu: number, exported: string[], signed: boolean }} Library */

/**
 * The text at a place, up to its zero byte.
 *
 * @param {Buffer} bytes
 * @param {number} at
 */
const textAt = (bytes, at) => bytes.toString("latin1", at, bytes.indexOf(0, at));

/**
 * @param {Buffer} bytes
 * @returns {Library | undefined} `undefined` where it is no such library.
 */
function readElf(bytes) {
  if (bytes.length < 64 || textAt(bytes, 0).slice(0, 6) !== "\x7fELF\x02\x01") return undefined;
  const sectionAt = (/** @type {number} */ index) =>
    Number(bytes.readBigUInt64LE(40)) + index * bytes.readUInt16LE(58);
  const offsetOf = (/** @type {number} */ section) => Number(bytes.readBigUInt64LE(section + 24));
  /** @type {string[]} */
  const exported = [];
  for (let index = 0; index < bytes.readUInt16LE(60); index++) {
    const section = sectionAt(index);
    // Type 11 is the table of symbols that matter when the library is loaded.
    if (bytes.readUInt32LE(section + 4) !== 11) continue;
    const names = offsetOf(sectionAt(bytes.readUInt32LE(section + 40)));
    const end = offsetOf(section) + Number(bytes.readBigUInt64LE(section + 32));
    for (let at = offsetOf(section); at < end; at += 24) {
      const isLocal = bytes[at + 4] >> 4 === 0;
      const isUndefined = bytes.readUInt16LE(at + 6) === 0;
      if (!isLocal && !isUndefined) exported.push(textAt(bytes, names + bytes.readUInt32LE(at)));
    }
  }
  return { cpu: bytes.readUInt16LE(18), exported, signed: true };
}

/**
 * @param {Buffer} bytes
 * @returns {Library | undefined} `undefined` where it is no such library.
 */
function readMachO(bytes) {
  if (bytes.length < 32 || bytes.readUInt32LE(0) !== 0xfeedfacf) return undefined;
  const library = { cpu: bytes.readUInt32LE(4), exported: /** @type {string[]} */ ([]), signed: false };
  let command = 32;
  for (let left = bytes.readUInt32LE(16); left > 0; left--, command += bytes.readUInt32LE(command + 4)) {
    const type = bytes.readUInt32LE(command);
    // 0x1d is the signature, 2 the table of symbols.
    if (type === 0x1d) library.signed = true;
    if (type !== 2) continue;
    const [first, count, names] = [8, 12, 16].map((at) => bytes.readUInt32LE(command + at));
    for (let at = first; at < first + count * 16; at += 16) {
      const kind = bytes[at + 4];
      // External, neither hidden nor for a debugger, and defined here. The name of a C symbol begins with a `_`.
      const isExported = (kind & 0xf1) === 1 && (kind & 0x0e) !== 0;
      if (isExported) library.exported.push(textAt(bytes, names + bytes.readUInt32LE(at)).replace(/^_/, ""));
    }
  }
  return library;
}
