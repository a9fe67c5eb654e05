// Libraries for macOS that have just what the checks of release binaries read.

import { createHash } from "node:crypto";

/** The symbol by which Node registers an addon. */
export const entry = { name: "_napi_register_module_v1" };

/** A Mach-O library without any code, for macOS on Apple silicon where nothing else is said. */
export function library({
  cpu = "arm64",
  type = 6,
  symbols = [entry],
  libraries = ["/usr/lib/libSystem.B.dylib"],
  minimum = "11.0",
  signed = true,
  adHoc = true,
  padding = 0,
  text = "",
} = {}) {
  const strings = Buffer.from(`\0${symbols.map(({ name }) => `${name}\0`).join("")}`);
  const table = Buffer.alloc(symbols.length * 16);
  let name = 1;
  symbols.forEach((symbol, index) => {
    table.writeUInt32LE(name, index * 16);
    // By default defined in a section, and external.
    table[index * 16 + 4] = symbol.kind ?? 0x0f;
    name += symbol.name.length + 1;
  });

  const paths = libraries.map((file) => Buffer.from(file.padEnd(Math.ceil((file.length + 1) / 8) * 8, "\0")));
  const sizes = [24, 24, ...paths.map((file) => 24 + file.length), ...(signed ? [16] : [])];
  const content = 32 + sizes.reduce((sum, size) => sum + size, 0);
  const body = Buffer.concat([table, strings, Buffer.from(text), Buffer.alloc(padding)]);
  const end = Math.ceil((content + body.length) / 16) * 16;

  const bytes = Buffer.alloc(end);
  body.copy(bytes, content);
  const words = (at, ...values) =>
    values.forEach((value, index) => bytes.writeUInt32LE(value, at + index * 4));
  words(0, 0xfeedfacf, cpu === "arm64" ? 0x0100000c : 0x01000007, 0, type, sizes.length, content - 32);
  let at = 32;
  words(at, 0x2, 24, content, symbols.length, content + table.length, strings.length);
  const [major, minor] = minimum.split(".").map(Number);
  words((at += 24), 0x32, 24, 1, (major << 16) | (minor << 8));
  at += 24;
  for (const file of paths) {
    words(at, 0xc, 24 + file.length, 24);
    file.copy(bytes, at + 24);
    at += 24 + file.length;
  }
  if (!signed) return bytes;
  words(at, 0x1d, 16, end);
  return Buffer.concat([bytes, signature(bytes, adHoc)]);
}

/** A signature of the bytes: a list of one part, which lists the digests of pages of 4 KiB. */
function signature(bytes, adHoc) {
  const pages = Math.ceil(bytes.length / 4096);
  const directory = Buffer.alloc(48);
  const fields = [0xfade0c02, 48 + pages * 32, 0x20400, adHoc ? 2 : 0, 48, 0, 0, pages, bytes.length];
  fields.forEach((value, index) => directory.writeUInt32BE(value, index * 4));
  directory.set([32, 2, 0, 12], 36);
  const digests = Array.from({ length: pages }, (_, page) =>
    createHash("sha256")
      .update(bytes.subarray(page * 4096, (page + 1) * 4096))
      .digest(),
  );
  const list = Buffer.alloc(20);
  const head = [0xfade0cc0, 20 + directory.length + pages * 32, 1, 0, 20];
  head.forEach((value, index) => list.writeUInt32BE(value, index * 4));
  return Buffer.concat([list, directory, ...digests]);
}
