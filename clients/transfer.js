// @ts-check
"use strict";

/**
 * Moving file content in pieces, with progress.
 *
 * @internal
 */

const { setImmediate: nextTurn } = require("../js/node.js").timersPromises;

const { downloadTooLarge, invalidType, transferIncomplete } = require("./errors.js");

/** @typedef {import("../index.js").SandboxTransferProgressOptions["onProgress"]} OnProgress */

/** The size of one piece, in bytes: large enough to be fast, small enough for frequent progress. */
const PIECE_BYTES = 256 * 1024;

/** How long the transfers may work in one turn of the event loop before other work has its own, in milliseconds. */
const TURN_MS = 4;

/** When the first transfer began to work in this turn of the event loop. @type {number | undefined} */
let turnBegan;

/**
 * Lets other work have its turn where the transfers have worked for long enough in this one, all of them together.
 *
 * Awaiting a stream does not yield to the event loop as long as the stream has data: Node reads from a socket up to 32
 * times in a turn, and each time everything that waits for these bytes runs.
 */
async function fairTurn() {
  const now = performance.now();
  if (turnBegan === undefined) {
    turnBegan = now;
    void nextTurn().then(() => (turnBegan = undefined));
  } else if (now - turnBegan >= TURN_MS) {
    await nextTurn();
  }
}

/**
 * The same listener, without repeated or lower figures, which a second attempt would report.
 *
 * @param {OnProgress} onProgress
 * @returns {OnProgress}
 */
function onlyForward(onProgress) {
  if (onProgress === undefined) return undefined;
  let highest = 0;
  return async (done, total) => {
    if (done <= highest) return;
    highest = done;
    await onProgress(done, total);
  };
}

/**
 * Yields `bytes` in order, as views that share its memory. Progress is reported as each piece but the last is
 * taken; the caller reports the end once the transfer has succeeded.
 *
 * @param {ArrayBuffer | Uint8Array<ArrayBuffer>} bytes
 * @param {OnProgress} onProgress
 * @param {number} [pieceBytes]
 */
async function* pieces(bytes, onProgress, pieceBytes = PIECE_BYTES) {
  const total = bytes.byteLength;
  const { buffer, byteOffset } = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  for (let offset = 0; offset < total; offset += pieceBytes) {
    if (offset > 0) await onProgress?.(offset, total);
    await fairTurn();
    yield Buffer.from(buffer, byteOffset + offset, Math.min(pieceBytes, total - offset));
  }
}

/**
 * `bytes` as a stream of the web, as {@link pieces} yields them.
 *
 * @param {ArrayBuffer | Uint8Array<ArrayBuffer>} bytes
 * @param {OnProgress} onProgress
 * @param {(reason: unknown) => void} onFailure gets what the listener threw
 * @returns {ReadableStream<Uint8Array>}
 */
function streamOf(bytes, onProgress, onFailure) {
  const source = pieces(bytes, onProgress);
  return new ReadableStream(
    {
      async pull(controller) {
        try {
          const { done, value } = await source.next();
          if (done) controller.close();
          else controller.enqueue(value);
        } catch (reason) {
          onFailure(reason);
          controller.error(reason);
        }
      },
      async cancel() {
        await source.return();
      },
    },
    // Nothing is taken before it is asked for: progress would run ahead of what was sent.
    { highWaterMark: 0 },
  );
}

/**
 * The size of what is to be received, checked against what may be.
 *
 * @param {number} size
 * @param {string} remotePath
 * @param {number} maxDownloadBytes
 */
function acceptedSize(size, remotePath, maxDownloadBytes) {
  if (size > maxDownloadBytes) throw downloadTooLarge(remotePath, size, maxDownloadBytes);
  return size;
}

/**
 * All bytes of `source`. Progress is reported after each chunk; the caller reports the end once the transfer has
 * succeeded.
 *
 * Where the size is known, one buffer is allocated and filled as the bytes arrive. Where it is not, the chunks
 * are joined at the end, each given up as it is copied and never many at a time.
 *
 * @param {AsyncIterable<Uint8Array>} source
 * @param {object} options
 * @param {number | null} options.total how many are expected, or null when that is not known
 * @param {string} options.remotePath what a failure calls it
 * @param {number} options.maxDownloadBytes
 * @param {OnProgress} [options.onProgress]
 * @returns {Promise<Buffer>}
 */
async function collected(source, { total, remotePath, maxDownloadBytes, onProgress }) {
  if (total !== null) acceptedSize(total, remotePath, maxDownloadBytes);
  const whole = total === null ? undefined : Buffer.allocUnsafeSlow(total);
  /** @type {Uint8Array[]} */
  const chunks = [];
  let arrived = 0;
  for await (const chunk of source) {
    const start = arrived;
    arrived += chunk.byteLength;
    acceptedSize(arrived, remotePath, maxDownloadBytes);
    if (whole === undefined) chunks.push(chunk);
    else if (arrived <= whole.byteLength) whole.set(chunk, start);
    else throw transferIncomplete(remotePath, arrived, whole.byteLength);
    if (arrived !== total) await onProgress?.(arrived, total);
    await fairTurn();
  }
  if (whole === undefined) return await joined(chunks, arrived);
  if (arrived !== whole.byteLength) throw transferIncomplete(remotePath, arrived, whole.byteLength);
  return whole;
}

/**
 * `chunks` in one buffer. They are taken out of the array.
 *
 * @param {Uint8Array[]} chunks
 * @param {number} length their sum, in bytes
 */
async function joined(chunks, length) {
  const whole = Buffer.allocUnsafeSlow(length);
  let start = 0;
  chunks.reverse();
  for (let chunk = chunks.pop(); chunk !== undefined; chunk = chunks.pop()) {
    whole.set(chunk, start);
    start += chunk.byteLength;
    await fairTurn();
  }
  return whole;
}

/**
 * `bytes` if it is a buffer that can be sent.
 *
 * @param {unknown} bytes
 * @returns {ArrayBuffer}
 */
function checkedContent(bytes) {
  if (!(bytes instanceof ArrayBuffer) && Object.prototype.toString.call(bytes) !== "[object ArrayBuffer]") {
    throw invalidType("bytes", "must be an ArrayBuffer", bytes);
  }
  return /** @type {ArrayBuffer} */ (bytes);
}

/**
 * `names` in the order in which every client lists them.
 *
 * @param {string[]} names
 */
function sortedNames(names) {
  return names.sort((left, right) => left.localeCompare(right));
}

module.exports = {
  acceptedSize,
  checkedContent,
  collected,
  fairTurn,
  onlyForward,
  pieces,
  sortedNames,
  streamOf,
};
