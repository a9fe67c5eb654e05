// Reads what matters of a 64-bit little-endian ELF library, on any system.

/** @type {Map<number, string>} */
const CPUS = new Map([
  [62, "x64"],
  [183, "arm64"],
]);
const SHARED_LIBRARY = 3;
const SECTION = { SYMBOLS: 2, DYNAMIC: 6, DYNAMIC_SYMBOLS: 11, NEEDED_VERSIONS: 0x6ffffffe };
const NEEDED = 1n;
const LOCAL = 0;
const UNDEFINED = 0;

/**
 * @typedef {object} Section
 * @property {number} type
 * @property {number} offset
 * @property {number} size
 * @property {number} link The index of the section that holds this one's strings.
 * @property {number} info In a list of varying length, how many there are.
 */

/**
 * Throws where the bytes are no such library.
 *
 * @param {Buffer} bytes
 * @returns {{ cpu: string, needed: string[], exported: string[], versions: string[], stripped: boolean }} `needed`: the
 *   libraries that it loads. `exported`: the symbols that it has for others. `versions`: the symbol versions that it
 *   asks of other libraries, such as `GLIBC_2.28`. `stripped`: whether the symbols that nobody needs were removed.
 */
export function readElf(bytes) {
  if (bytes.subarray(0, 6).toString("latin1") !== "\x7fELF\x02\x01") throw new Error("not a 64-bit ELF file");
  if (bytes.readUInt16LE(16) !== SHARED_LIBRARY) throw new Error("not a shared library");
  const sections = readSections(bytes);

  /**
   * What a reader finds in the sections of one type.
   *
   * @param {number} type
   * @param {(bytes: Buffer, section: Section, string: (index: number) => string) => string[]} read
   */
  const collect = (type, read) =>
    sections
      .filter((section) => section.type === type)
      .flatMap((section) => {
        const strings = sections[section.link].offset;
        return read(bytes, section, (index) => readString(bytes, strings + index));
      });

  return {
    cpu: CPUS.get(bytes.readUInt16LE(18)) ?? "unknown",
    needed: collect(SECTION.DYNAMIC, readNeeded),
    exported: collect(SECTION.DYNAMIC_SYMBOLS, readExported),
    versions: collect(SECTION.NEEDED_VERSIONS, readVersions),
    stripped: !sections.some((section) => section.type === SECTION.SYMBOLS),
  };
}

/**
 * @param {Buffer} bytes
 * @returns {Section[]}
 */
function readSections(bytes) {
  const start = Number(bytes.readBigUInt64LE(40));
  const size = bytes.readUInt16LE(58);
  return Array.from({ length: bytes.readUInt16LE(60) }, (_, index) => start + index * size).map((at) => ({
    type: bytes.readUInt32LE(at + 4),
    offset: Number(bytes.readBigUInt64LE(at + 24)),
    size: Number(bytes.readBigUInt64LE(at + 32)),
    link: bytes.readUInt32LE(at + 40),
    info: bytes.readUInt32LE(at + 44),
  }));
}

/**
 * @param {Buffer} bytes
 * @param {number} start
 */
function readString(bytes, start) {
  return bytes.toString("utf8", start, bytes.indexOf(0, start));
}

/**
 * Where each entry of a section starts.
 *
 * @param {Section} section
 * @param {number} entrySize
 */
function entries({ offset, size }, entrySize) {
  return Array.from({ length: Math.floor(size / entrySize) }, (_, index) => offset + index * entrySize);
}

/**
 * @param {Buffer} bytes
 * @param {Section} section
 * @param {(index: number) => string} string
 */
function readNeeded(bytes, section, string) {
  return entries(section, 16)
    .filter((at) => bytes.readBigInt64LE(at) === NEEDED)
    .map((at) => string(Number(bytes.readBigUInt64LE(at + 8))));
}

/**
 * @param {Buffer} bytes
 * @param {Section} section
 * @param {(index: number) => string} string
 */
function readExported(bytes, section, string) {
  return entries(section, 24)
    .filter((at) => bytes[at + 4] >> 4 !== LOCAL && bytes.readUInt16LE(at + 6) !== UNDEFINED)
    .map((at) => string(bytes.readUInt32LE(at)));
}

/**
 * A list of libraries, each with a list of versions; every item says how far the next one is.
 *
 * @param {Buffer} bytes
 * @param {Section} section
 * @param {(index: number) => string} string
 */
function readVersions(bytes, section, string) {
  const versions = new Set();
  let library = section.offset;
  for (let libraries = section.info; libraries > 0; libraries--) {
    let version = library + bytes.readUInt32LE(library + 8);
    for (let count = bytes.readUInt16LE(library + 2); count > 0; count--) {
      versions.add(string(bytes.readUInt32LE(version + 8)));
      version += bytes.readUInt32LE(version + 12);
    }
    library += bytes.readUInt32LE(library + 12);
  }
  return [...versions];
}
