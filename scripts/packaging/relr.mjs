// Debian's musl (1.2.3) cannot apply packed relative relocations (RELR, known since musl 1.2.4), and skips them without a
// word. The libraries beside a newer Node have them. Unpacked, they work with both.

const LOADED = 1;
const DYNAMIC = 2;
const NOTE = 4;
const TAG = { NULL: 0n, REL: 17n, REL_SIZE: 18n, REL_ENTRY: 19n, RELR_SIZE: 35n, RELR: 36n, RELR_ENTRY: 37n };
/**
 * The relocation that adds the library's address to what is there, by the number of the processor.
 *
 * @type {Map<number, bigint>}
 */
const RELATIVE = new Map([
  [62, 8n],
  [183, 1027n],
]);
const PAGE = 4096;
const READABLE = 4;

/**
 * Unpacks the packed relocations of an ELF library for x64 or arm64.
 *
 * @param {Buffer} bytes
 * @returns {Buffer} A library that does the same; the same bytes where there is nothing to unpack.
 */
export function unpackRelocations(bytes) {
  const segments = readSegments(bytes);
  const dynamic = readDynamic(bytes, segments);
  const packed = dynamic.get(TAG.RELR);
  const packedSize = dynamic.get(TAG.RELR_SIZE);
  const packedEntry = dynamic.get(TAG.RELR_ENTRY);
  if (!packed || !packedSize || !packedEntry) return bytes;
  // A segment that only tools read gives its place to the one with the unpacked list.
  const spare = segments.find((segment) => segment.type === NOTE);
  if (!spare) throw new Error("no segment can be spared");

  const relative = RELATIVE.get(bytes.readUInt16LE(18));
  if (relative === undefined) throw new Error("an unknown processor");

  const addresses = decode(bytes, toOffset(segments, packed.value), Number(packedSize.value));
  const list = toRelocations(addresses, relative);
  const end = Math.max(...segments.map((segment) => segment.address + segment.memorySize));
  const offset = roundUp(bytes.length);
  const address = roundUp(end);
  const unpacked = Buffer.concat([bytes, Buffer.alloc(offset - bytes.length), list]);

  unpacked.writeUInt32LE(LOADED, spare.at);
  unpacked.writeUInt32LE(READABLE, spare.at + 4);
  const fields = [offset, address, address, list.length, list.length, PAGE];
  fields.forEach((field, index) => unpacked.writeBigUInt64LE(BigInt(field), spare.at + 8 + index * 8));

  /** @type {[{ at: number }, bigint, number][]} */
  const replaced = [
    [packed, TAG.REL, address],
    [packedSize, TAG.REL_SIZE, list.length],
    [packedEntry, TAG.REL_ENTRY, 16],
  ];
  for (const [{ at }, tag, value] of replaced) {
    unpacked.writeBigInt64LE(tag, at);
    unpacked.writeBigUInt64LE(BigInt(value), at + 8);
  }
  return unpacked;
}

/** @param {Buffer} bytes */
function readSegments(bytes) {
  const start = Number(bytes.readBigUInt64LE(32));
  const size = bytes.readUInt16LE(54);
  const number = (/** @type {number} */ at) => Number(bytes.readBigUInt64LE(at));
  return Array.from({ length: bytes.readUInt16LE(56) }, (_, index) => start + index * size).map((at) => ({
    at,
    type: bytes.readUInt32LE(at),
    offset: number(at + 8),
    address: number(at + 16),
    fileSize: number(at + 32),
    memorySize: number(at + 40),
  }));
}

/** @typedef {ReturnType<typeof readSegments>} Segments */

/**
 * The dynamic section's entries by their tag: where each stands, and its value.
 *
 * @param {Buffer} bytes
 * @param {Segments} segments
 */
function readDynamic(bytes, segments) {
  /** @type {Map<bigint, { at: number, value: bigint }>} */
  const entries = new Map();
  for (const { offset, fileSize } of segments.filter((segment) => segment.type === DYNAMIC)) {
    for (let at = offset; at < offset + fileSize; at += 16) {
      const tag = bytes.readBigInt64LE(at);
      if (tag === TAG.NULL) break;
      entries.set(tag, { at, value: bytes.readBigUInt64LE(at + 8) });
    }
  }
  return entries;
}

/**
 * Where an address stands in the file.
 *
 * @param {Segments} segments
 * @param {bigint} value
 */
function toOffset(segments, value) {
  const address = Number(value);
  const holder = segments.find(
    (segment) =>
      segment.type === LOADED && address >= segment.address && address < segment.address + segment.fileSize,
  );
  if (!holder) throw new Error(`no segment holds the address ${address}`);
  return holder.offset + address - holder.address;
}

/**
 * The addresses in a packed list: an even word is an address, an odd one has a bit for each of the 63 words after it.
 *
 * @param {Buffer} bytes
 * @param {number} offset
 * @param {number} size
 */
function decode(bytes, offset, size) {
  const addresses = [];
  let next = 0n;
  for (let at = offset; at < offset + size; at += 8) {
    const word = bytes.readBigUInt64LE(at);
    if ((word & 1n) === 0n) {
      addresses.push(word);
      next = word + 8n;
      continue;
    }
    for (let bit = 1n; bit < 64n; bit++) {
      if ((word >> bit) & 1n) addresses.push(next + (bit - 1n) * 8n);
    }
    next += 63n * 8n;
  }
  return addresses;
}

/**
 * @param {bigint[]} addresses
 * @param {bigint} type
 */
function toRelocations(addresses, type) {
  const list = Buffer.alloc(addresses.length * 16);
  addresses.forEach((address, index) => {
    list.writeBigUInt64LE(address, index * 16);
    list.writeBigUInt64LE(type, index * 16 + 8);
  });
  return list;
}

/** @param {number} value */
function roundUp(value) {
  return Math.ceil(value / PAGE) * PAGE;
}
