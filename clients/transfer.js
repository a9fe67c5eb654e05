// @ts-check
"use strict";

/**
 * Moving file content in pieces, with progress.
 *
 * @internal
 */

/** The size of one piece, in bytes: large enough to be quick, small enough for smooth progress. */
const PIECE_BYTES = 256 * 1024;

/**
 * Yields `bytes` in order, as views that share its memory. Progress is reported as each piece but the last is
 * taken; the caller reports the end, once it is sure of it.
 *
 * @param {ArrayBuffer} bytes
 * @param {import("../index.js").SandboxTransferProgressOptions["onProgress"]} onProgress
 */
async function* pieces(bytes, onProgress) {
  const total = bytes.byteLength;
  for (let offset = 0; offset < total; offset += PIECE_BYTES) {
    if (offset > 0) await onProgress?.(offset, total);
    yield Buffer.from(bytes, offset, Math.min(PIECE_BYTES, total - offset));
  }
}

/**
 * All bytes of `source`. Progress is reported after each chunk; the caller reports the end, once it is sure
 * of it.
 *
 * @param {AsyncIterable<Uint8Array>} source
 * @param {number | null} total how many are expected, or null when that is not known
 * @param {import("../index.js").SandboxTransferProgressOptions["onProgress"]} onProgress
 * @returns {Promise<Buffer>}
 */
async function collected(source, total, onProgress) {
  const chunks = [];
  let arrived = 0;
  for await (const chunk of source) {
    chunks.push(chunk);
    arrived += chunk.byteLength;
    if (arrived !== total) await onProgress?.(arrived, total);
  }
  return Buffer.concat(chunks, arrived);
}

/**
 * `names` in the order in which every client lists them.
 *
 * @param {string[]} names
 */
function sortedNames(names) {
  return names.sort((left, right) => left.localeCompare(right));
}

module.exports = { collected, pieces, sortedNames };
