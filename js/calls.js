"use strict";

const { traced } = require("./debug.js");
const { codedError, fromNative, received } = require("./errors.js");
const { buffer, util } = require("./node.js");
const { tellStep, transferProgress } = require("./progress.js");
const { nextTurn } = require("./turn.js");

/**
 * @import {
 *   RuntimeProgressSink,
 *   RuntimeStatusPhase,
 *   RuntimeStatusSink,
 *   SandboxManagedRuntimeClient,
 *   SandboxRemoteExecutionSpec,
 * } from "../index.js"
 * @import { Answer, Dispatch, Request, RequestPart } from "../binding.js"
 * @import { Abort } from "./abort.js"
 * @import { LeaseKeeper } from "./lease.js"
 */

/**
 * The listeners of a run.
 *
 * @typedef {object} Listeners
 * @property {RuntimeProgressSink} [onLine] Takes the progress of transfers as lines.
 * @property {RuntimeStatusSink} [onStatus] Takes it as messages.
 * @property {() => Promise<void>} [beforeAsset] Called before each upload except the first, which is the workspace.
 */

/**
 * Memory for a part of an archive, and what the last attempt to write it failed with.
 *
 * @typedef {object} Upload
 * @property {ArrayBuffer} memory
 * @property {number} size
 * @property {unknown} [failure]
 */

/**
 * Answers up to this size are copied at once, which takes a few milliseconds: whatever the client does with its memory
 * then is harmless. Larger ones are copied in parts while they are checked.
 */
const SMALL = 16 * 1024 * 1024;

/** How much of a larger one is copied in one turn of the event loop, if JavaScript has to copy it. */
const PIECE = 4 * 1024 * 1024;

/** A clock that no test of the caller's replaces: how long a client takes decides whether its bytes are compressed. */
const now = performance.now.bind(performance);

/** How much is read of a file that is not an archive: the messages of a tar. */
const TEXT = 64 * 1024;

/**
 * Makes the client calls of one prepare or restore. The binding requests them by {@link dispatch}. A method is looked up by
 * name at each call and called on the client itself, its result is awaited whatever it is, and what it throws is stored, to
 * be passed on as the same value.
 */
class ClientCalls {
  #client;
  #spec;
  #lease;
  #abort;
  #listeners;
  /** @type {unknown[]} */
  #failures = [];
  /** @type {Map<number, Upload>} */
  #uploads = new Map();
  /** @type {Map<string, ReturnType<typeof transferProgress>>} */
  #transfers = new Map();
  /**
   * What was uploaded last.
   *
   * @type {string | undefined}
   */
  #label;

  /**
   * @param {object} run
   * @param {SandboxManagedRuntimeClient} run.client
   * @param {SandboxRemoteExecutionSpec} run.spec
   * @param {LeaseKeeper} run.lease
   * @param {Abort} run.abort
   * @param {Listeners} run.listeners
   */
  constructor({ client, spec, lease, abort, listeners }) {
    this.#client = client;
    this.#spec = spec;
    this.#lease = lease;
    this.#abort = abort;
    this.#listeners = listeners;
  }

  /**
   * Never rejects.
   *
   * @type {Dispatch}
   */
  dispatch = async (request) => {
    try {
      switch (request.op) {
        case "allocate": {
          const memory = allocate(request.size);
          this.#uploads.set(request.upload, { memory, size: request.size });
          return { memory: new Uint8Array(memory) };
        }
        case "release":
          this.#uploads.delete(request.upload);
          return {};
        case "step":
          // The binding does not wait for this.
          await this.#tellStep(request);
          return {};
        case "discard":
          // Also made after an abort. The binding does not wait for long.
          if (typeof this.#client.remove === "function") {
            await traced("discard", request.target, () => this.#client.remove(request.target));
          }
          return {};
        case "clear":
          // Also made after an abort, and so without the signal. The binding does not wait for long.
          await traced("clear", request.target, () => this.#client.run(request.target, this.#runOptions()));
          return {};
        default: {
          // After an abort, the sandbox need not be refreshed either.
          this.#abort.throwIfAborted();
          const call = () => this.#call(request);
          // Once the caller aborts, the outcome of the call is ignored.
          return await this.#lease.during(() => this.#abort.until(call));
        }
      }
    } catch (failure) {
      return { failure: { kept: this.#failures.push(failure) - 1, retryable: isRetryable(failure) } };
    }
  };

  /**
   * Converts what a run rejected with to the error for the caller.
   *
   * @param {unknown} error
   */
  failure(error) {
    const kept = keptOf(error);
    return kept === undefined ? fromNative(error) : this.#failures[kept];
  }

  /** @param {Request} request */
  async #tellStep({ target, part, took }) {
    // An aborted run may go on for a moment, but no longer reports progress.
    if (this.#abort.signal?.aborted) return;
    const { label = "", size = 0 } = part ?? {};
    await tellStep({ name: target, label, bytes: size, tookMs: took }, this.#listeners);
  }

  /**
   * @param {Request} request
   * @returns {Promise<Answer>}
   */
  async #call({ op, target, upload, part }) {
    const client = this.#client;
    switch (op) {
      case "writeFile": {
        // The binding allocates and fills it, and releases it once it will not be sent again.
        const { memory, size, failure } = /** @type {Upload} */ (this.#uploads.get(upload));
        // The client has detached it in the first attempt.
        if (memory.byteLength !== size) throw failure;
        if (part?.number === 0 && part.label !== this.#label) {
          if (this.#label !== undefined) await this.#listeners.beforeAsset?.();
          this.#label = part.label;
        }
        const progress = this.#progress("Syncing", "to", part, size, "config_sync");
        const options = this.#transferOptions(progress);
        const started = now();
        try {
          const write = () =>
            options ? client.writeFile(target, memory, options) : client.writeFile(target, memory);
          await traced(op, target, write, () => size);
        } catch (thrown) {
          this.#uploads.set(upload, { memory, size, failure: thrown });
          throw thrown;
        }
        const took = now() - started;
        await progress?.finish(size);
        return { took };
      }
      case "readFile": {
        const progress = part ? this.#progress("Restoring", "from", part, 0, "restore") : undefined;
        const options = this.#transferOptions(progress);
        const most = part ? Infinity : TEXT;
        const read = async () =>
          asBytes(await (options ? client.readFile(target, options) : client.readFile(target)), most);
        const answer = await traced(op, target, read, ({ byteLength }) => byteLength);
        const bytes = await inPlaceOrCopied(answer, this.#abort);
        // The first part is not the last one.
        if (progress && !isFirstOfSeveral(bytes)) await progress.finish(bytes.byteLength);
        // The binding calls this whenever it copies a part, so changes in the meantime are noticed.
        return { read: () => bytes };
      }
      case "run":
        await traced(op, target, () =>
          client.run(target, { ...this.#runOptions(), ...this.#signalOption() }),
        );
        return {};
      case "makeDir": {
        const started = now();
        await traced(op, target, () => client.makeDir(target));
        return { took: now() - started };
      }
      default:
        await traced(op, target, () => client.remove(target));
        return {};
    }
  }

  /** The options of every command. */
  #runOptions() {
    return { timeoutMs: this.#spec.timeoutMs };
  }

  /** The options of a call if the caller gave a signal, so that an abort can stop the call itself. */
  #signalOption() {
    const { signal } = this.#abort;
    return signal ? { signal } : undefined;
  }

  /**
   * The last argument of a transfer; none if it would have no field.
   *
   * @param {{ options?: object } | undefined} progress
   */
  #transferOptions(progress) {
    const signal = this.#signalOption();
    return progress || signal ? { ...progress?.options, ...signal } : undefined;
  }

  /**
   * The progress of the archive that a part belongs to.
   *
   * @param {"Syncing" | "Restoring"} phase
   * @param {"to" | "from"} direction
   * @param {RequestPart | undefined} part
   * @param {number} wire How many bytes of the part are transferred; 0 if unknown.
   * @param {RuntimeStatusPhase} statusPhase
   */
  #progress(phase, direction, part, wire, statusPhase) {
    if (!part) return undefined;
    const { onLine, onStatus } = this.#listeners;
    const key = `${direction} ${part.label}`;
    let archive = this.#transfers.get(key);
    if (!archive) {
      archive = transferProgress({ phase, direction, label: part.label, statusPhase, onLine, onStatus });
      this.#transfers.set(key, archive);
    }
    return archive?.part(part, wire);
  }
}

/**
 * Whether what a client threw is marked as temporary: the same call may succeed later.
 *
 * @param {unknown} thrown
 */
function isRetryable(thrown) {
  try {
    return (
      typeof thrown === "object" && thrown !== null && "retryable" in thrown && thrown.retryable === true
    );
  } catch {
    // It is a proxy, or has a getter, that throws.
    return false;
  }
}

/**
 * Whether bytes that were read end with the line that announces further parts.
 *
 * @param {Uint8Array} bytes
 */
function isFirstOfSeveral(bytes) {
  const end = buffer.Buffer.from(bytes.slice(-TEXT)).toString("latin1");
  return /\npaperclip-parts \d+ \d+ [ngz]{2,} \S+\n$/.test(end);
}

/**
 * The number of the failure that a run ended with, if it was the client's.
 *
 * @param {unknown} error
 * @returns {number | undefined}
 */
function keptOf(error) {
  try {
    const { kept } = JSON.parse(/** @type {Error} */ (error).message);
    return typeof kept === "number" ? kept : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Memory for one archive, which a client gets as one `ArrayBuffer`.
 *
 * @param {number} size
 */
function allocate(size) {
  const limit = buffer.constants.MAX_LENGTH;
  if (size > limit) throw tooLarge(size, `this Node's buffers end at ${limit} bytes`);
  try {
    return new ArrayBuffer(size);
  } catch (cause) {
    throw tooLarge(size, `the machine has no memory of that size for a buffer`, cause);
  }
}

/**
 * @param {number} size
 * @param {string} limit
 * @param {unknown} [cause]
 */
function tooLarge(size, limit, cause) {
  const message =
    `No buffer of ${size} bytes can be made for a part of the upload: ${limit} (Node.js ${process.version}). The upload was ` +
    "stopped, and the local workspace is as it was. Pass a smaller input.partBytes, or use a machine with more memory";
  return codedError(Error, "ERR_SANDBOX_UNSUPPORTED", message, cause === undefined ? {} : { cause });
}

/**
 * The answer of `readFile` as bytes, without a copy.
 *
 * @param {unknown} answer
 * @param {number} most How many of them are wanted.
 */
function asBytes(answer, most) {
  if (!ArrayBuffer.isView(answer) && !util.types.isAnyArrayBuffer(answer)) throw noBytes(received(answer));
  let bytes;
  try {
    bytes = ArrayBuffer.isView(answer)
      ? new Uint8Array(answer.buffer, answer.byteOffset, answer.byteLength)
      : new Uint8Array(answer);
  } catch {
    // The buffer is detached: no other reason makes this fail.
    throw noBytes("Received a buffer that was transferred");
  }
  return bytes.subarray(0, most);
}

/**
 * The bytes that the binding copies in parts. A small answer is copied here at once. Memory that threads share, or that can
 * change its size, is copied here too, in pieces. What is written to it meanwhile is checked like any other archive, because
 * only the copy is read.
 *
 * @param {Uint8Array} bytes
 * @param {Abort} abort
 */
async function inPlaceOrCopied(bytes, abort) {
  const { buffer, byteLength } = bytes;
  if (byteLength <= SMALL) return bytes.slice();
  if (!util.types.isSharedArrayBuffer(buffer) && !buffer.resizable) return bytes;
  const copy = new Uint8Array(byteLength);
  for (let at = 0; at < byteLength; at += PIECE) {
    if (at > 0) await nextTurn();
    abort.throwIfAborted();
    if (bytes.byteLength !== byteLength) {
      throw noBytes("Received a buffer that was transferred or resized while it was read");
    }
    copy.set(bytes.subarray(at, at + PIECE), at);
  }
  return copy;
}

/** @param {string} what */
function noBytes(what) {
  const message = `client.readFile() must give a Buffer, Uint8Array or ArrayBuffer. ${what}; nothing was changed locally`;
  return codedError(TypeError, "ERR_INVALID_RETURN_VALUE", message);
}

module.exports = { ClientCalls };
