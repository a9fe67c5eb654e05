// Reads what matters of a 64-bit Mach-O library, signature included, on any system.

import { createHash } from "node:crypto";

const MAGIC = 0xfeedfacf;
/** @type {Map<number, string>} */
const CPUS = new Map([
  [0x01000007, "x64"],
  [0x0100000c, "arm64"],
]);
/** A dynamic library, and a bundle: Node loads either. */
const LIBRARY_TYPES = [6, 8];
const COMMAND = {
  SYMBOLS: 0x2,
  LOAD_LIBRARY: 0xc,
  SIGNATURE: 0x1d,
  /** What linkers wrote before `BUILD_VERSION`, and still write for old systems. */
  MINIMUM_MACOS: 0x24,
  BUILD_VERSION: 0x32,
};
const SYMBOL = { DEBUG: 0xe0, TYPE: 0x0e, UNDEFINED: 0, HIDDEN: 0x10, EXTERNAL: 0x01 };
const CODE_DIRECTORY = 0xfade0c02;
const SHA256 = 2;
/** What Zig calls the jumps that it adds itself where another library's function is too far away; it keeps their names. */
const THUNK = /__thunk$/;
/** The mark of a signature without an identity. */
const AD_HOC = 0x2;

/**
 * @typedef {object} NamedSymbol
 * @property {string} name
 * @property {boolean} isExternal Whether it is for others: exported, or another library's.
 * @property {boolean} isUndefined Whether another library has it.
 */

/**
 * Throws where the bytes are no such library.
 *
 * @param {Buffer} bytes
 * @returns {{ cpu: string, needed: string[], exported: string[], stripped: boolean, minimumOs: string, signature:
 *   "valid" | "none" | "broken" }} `needed`: the libraries that it loads. `exported`: the symbols that it has for others.
 *   `stripped`: whether the symbols that nobody needs were removed. `minimumOs`: the oldest macOS that loads it.
 *   `signature`: whether it is signed, with the digests of exactly these bytes. On arm64, macOS ends a process that loads
 *   an unsigned library; a signature that nobody vouches for is enough.
 */
export function readMachO(bytes) {
  if (bytes.readUInt32LE(0) !== MAGIC) throw new Error("not a 64-bit Mach-O file");
  if (!LIBRARY_TYPES.includes(bytes.readUInt32LE(12))) throw new Error("not a library");
  const commands = readCommands(bytes);

  /** @param {number} type */
  const all = (type) => commands.filter((command) => command.type === type).map(({ at }) => at);
  const symbols = all(COMMAND.SYMBOLS).flatMap((at) => readSymbols(bytes, at));

  return {
    cpu: CPUS.get(bytes.readUInt32LE(4)) ?? "unknown",
    needed: all(COMMAND.LOAD_LIBRARY).map((at) => readString(bytes, at + bytes.readUInt32LE(at + 8))),
    exported: symbols.filter((symbol) => symbol.isExternal && !symbol.isUndefined).map(({ name }) => name),
    stripped: symbols.every((symbol) => symbol.isExternal || THUNK.test(symbol.name)),
    minimumOs: [
      ...all(COMMAND.BUILD_VERSION).map((at) => readVersion(bytes, at + 12)),
      ...all(COMMAND.MINIMUM_MACOS).map((at) => readVersion(bytes, at + 8)),
      "unknown",
    ][0],
    signature:
      all(COMMAND.SIGNATURE).map((at) => checkSignature(bytes, bytes.readUInt32LE(at + 8)))[0] ?? "none",
  };
}

/** @param {Buffer} bytes */
function readCommands(bytes) {
  const commands = [];
  let at = 32;
  for (let count = bytes.readUInt32LE(16); count > 0; count--) {
    commands.push({ type: bytes.readUInt32LE(at), at });
    at += bytes.readUInt32LE(at + 4);
  }
  return commands;
}

/**
 * @param {Buffer} bytes
 * @param {number} start
 */
function readString(bytes, start) {
  return bytes.toString("utf8", start, bytes.indexOf(0, start));
}

/**
 * @param {Buffer} bytes
 * @param {number} at
 */
function readVersion(bytes, at) {
  const packed = bytes.readUInt32LE(at);
  return `${packed >>> 16}.${(packed >>> 8) & 0xff}`;
}

/**
 * @param {Buffer} bytes
 * @param {number} command
 * @returns {NamedSymbol[]}
 */
function readSymbols(bytes, command) {
  const symbols = bytes.readUInt32LE(command + 8);
  const strings = bytes.readUInt32LE(command + 16);
  return Array.from({ length: bytes.readUInt32LE(command + 12) }, (_, index) => symbols + index * 16).map(
    (at) => {
      const kind = bytes[at + 4];
      return {
        // In Mach-O, the symbol of a C name has a `_` before it.
        name: readString(bytes, strings + bytes.readUInt32LE(at)).replace(/^_/, ""),
        isExternal: (kind & (SYMBOL.EXTERNAL | SYMBOL.HIDDEN | SYMBOL.DEBUG)) === SYMBOL.EXTERNAL,
        isUndefined: (kind & SYMBOL.TYPE) === SYMBOL.UNDEFINED,
      };
    },
  );
}

/**
 * Compares every page with its digest in the signature, where all numbers are big-endian.
 *
 * @param {Buffer} bytes
 * @param {number} start Of the signature, which is the end of what it signs.
 * @returns {"valid" | "broken"}
 */
function checkSignature(bytes, start) {
  const parts = Array.from(
    { length: bytes.readUInt32BE(start + 8) },
    (_, index) => start + bytes.readUInt32BE(start + 16 + index * 8),
  );
  const directory = parts.find((part) => bytes.readUInt32BE(part) === CODE_DIRECTORY);
  if (directory === undefined || bytes[directory + 37] !== SHA256) return "broken";
  // With an identity, there would be more to check than digests; without one and the mark, macOS refuses it.
  if ((bytes.readUInt32BE(directory + 12) & AD_HOC) === 0) return "broken";
  const digests = directory + bytes.readUInt32BE(directory + 16);
  const signedLength = bytes.readUInt32BE(directory + 32);
  const digestLength = bytes[directory + 36];
  const pageSize = 2 ** bytes[directory + 39];
  const pages = Math.ceil(start / pageSize);
  if (signedLength !== start || bytes.readUInt32BE(directory + 28) !== pages) return "broken";
  for (let page = 0; page < pages; page++) {
    const content = bytes.subarray(page * pageSize, Math.min((page + 1) * pageSize, start));
    const digest = bytes.subarray(digests + page * digestLength, digests + (page + 1) * digestLength);
    if (!createHash("sha256").update(content).digest().equals(digest)) return "broken";
  }
  return "valid";
}
