// Reads archives byte by byte, makes them by hand, and extracts them with real programs.

import { run } from "./processes.mjs";

const BLOCK = 512;

const text = (bytes) => bytes.toString("latin1").replace(/\0.*$/s, "");

function number(bytes) {
  if ((bytes[0] & 0x80) === 0) return Number.parseInt(text(bytes).trim() || "0", 8);
  let value = 0n;
  for (const byte of bytes.subarray(1)) value = (value << 8n) | BigInt(byte);
  return Number(value);
}

/**
 * The headers of an archive in order, with GNU long names resolved. Names are one character per byte.
 *
 * @param {Buffer} archive
 */
export function readArchive(archive) {
  const entries = [];
  let longName;
  let longLink;
  let at = 0;
  for (; archive[at] !== 0;) {
    const header = archive.subarray(at, at + BLOCK);
    const field = (from, length) => header.subarray(from, from + length);
    const size = number(field(124, 12));
    const content = archive.subarray(at + BLOCK, at + BLOCK + size);
    const type = String.fromCharCode(header[156]);
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
    if (type === "L") longName = text(content);
    else if (type === "K") longLink = text(content);
    else {
      entries.push({
        name: longName ?? text(field(0, 100)),
        type,
        mode: number(field(100, 8)),
        uid: number(field(108, 8)),
        gid: number(field(116, 8)),
        size,
        mtime: number(field(136, 12)),
        linkName: longLink ?? text(field(157, 100)),
        magic: field(257, 8).toString("latin1"),
        userName: text(field(265, 32)),
        groupName: text(field(297, 32)),
        content,
      });
      longName = longLink = undefined;
    }
  }
  return { entries, end: archive.subarray(at) };
}

/**
 * An archive with any entries.
 *
 * @param {{ name: string, type?: string, mode?: number, content?: string, linkName?: string }[]} entries
 */
export function makeArchive(entries) {
  const blocks = [];
  for (const { name, type = "0", mode = 0o644, content = "", linkName = "" } of entries) {
    const header = Buffer.alloc(BLOCK);
    const bytes = Buffer.from(content);
    const octal = (value, length) => value.toString(8).padStart(length - 1, "0");
    header.write(name, 0, 100);
    header.write(octal(mode, 8), 100);
    header.write(octal(0, 8), 108);
    header.write(octal(0, 8), 116);
    header.write(octal(bytes.length, 12), 124);
    header.write(octal(1_700_000_000, 12), 136);
    header.write(" ".repeat(8), 148);
    header.write(type, 156);
    header.write(linkName, 157, 100);
    header.write("ustar  ", 257);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${octal(sum, 7)}\0 `, 148);
    blocks.push(header, bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK));
  }
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]);
}

/** The tar programs of real sandboxes. */
export const TARS = {
  "GNU tar": ["tar"],
  bsdtar: ["bsdtar"],
  busybox: ["busybox", "tar"],
  toybox: ["toybox", "tar"],
};

/** Extracts an archive with all modes, as any user. */
export function extract([program, ...first], archive, target, options) {
  // Programs other than GNU tar and bsdtar apply the umask even with the option that keeps modes.
  const command = 'umask 0; exec "$@"';
  return run("sh", ["-c", command, "sh", program, ...first, "-xpf", archive, "-C", target], options);
}
