"use strict";

// Converts file names and contents to text: exactly for the package's functions, safely for a terminal.

/**
 * What a terminal would obey or hide: control characters, line separators, marks of direction, characters of no width,
 * and lone surrogates (the bytes of a name that are not UTF-8).
 */
const UNSAFE = /[\p{Cc}\p{Zl}\p{Zp}\p{Cf}\p{Cs}]/gu;

/** @param {string} character */
function escaped(character) {
  const code = /** @type {number} */ (character.codePointAt(0));
  const byte = code >= 0xdc80 && code <= 0xdcff ? code - 0xdc00 : code;
  return byte < 0x100 ? `\\x${byte.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}

/**
 * A name or message on one line of a terminal. A backslash is doubled, so that no two names look alike.
 *
 * @param {string} text
 */
function shown(text) {
  return text.replaceAll("\\", "\\\\").replace(UNSAFE, escaped);
}

/**
 * A line of a file for a terminal; tabs stay.
 *
 * @param {string} line
 */
function shownLine(line) {
  return line.replace(UNSAFE, (character) => (character === "\t" ? character : escaped(character)));
}

/**
 * A name's bytes as the package's functions take it: a byte `0xNN` that is not UTF-8 is the lone surrogate `U+DCNN`.
 *
 * @param {Buffer} bytes
 */
function decodeName(bytes) {
  const text = bytes.toString("utf8");
  if (Buffer.from(text).equals(bytes)) return text;
  let name = "";
  for (let at = 0; at < bytes.length;) {
    const length = [1, 2, 3, 4].find((length) => {
      const part = bytes.subarray(at, at + length);
      return part.length === length && Buffer.from(part.toString("utf8")).equals(part);
    });
    name += length
      ? bytes.toString("utf8", at, at + length)
      : String.fromCharCode(0xdc00 + /** @type {number} */ (bytes[at]));
    at += length ?? 1;
  }
  return name;
}

/**
 * A number of bytes in a readable unit: `617 B`, `4.8 kB`.
 *
 * @param {number} bytes
 */
function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = bytes;
  for (; value >= 999.95 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

module.exports = { decodeName, shown, shownLine, size };
