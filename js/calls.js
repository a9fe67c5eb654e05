"use strict";

const { codedError, fromNative, received } = require("./errors.js");
const {
  buffer: { constants },
  util: { types },
} = require("./node.js");
const { transferProgress } = require("./progress.js");
const { nextTurn } = require("./turn.js");

/**
 * @import {
 *   RuntimeProgressSink,
 *   RuntimeStatusPhase,
 *   RuntimeStatusSink,
 *   SandboxManagedRuntimeClient,
 *   SandboxRemoteExecutionSpec,
 * } from "../index.js"
 * @import { Dispatch } from "../binding.js"
 * @import { Abort } from "./abort.js"
 * @import { LeaseKeeper } from "./lease.js"
 */

/**
 * Who is told of the calls.
 *
 * @typedef {object} Listeners
 * @property {RuntimeProgressSink} [onLine] Takes the progress of transfers as lines.
 * @property {RuntimeStatusSink} [onStatus] Takes it as messages.
 * @property {() => Promise<void>} [beforeAsset] Called before each upload but the first, which is the workspace.
 */

/**
 * Answers up to this size are copied at once, which takes a few milliseconds: whatever the client does with its memory
 * then is harmless. Larger ones are copied in parts while they are checked.
 */
const SMALL = 16 * 1024 * 1024;

/** How much of a larger one that has to be copied here is copied in one turn of the event loop. */
const PIECE = 4 * 1024 * 1024;

/** What is read of a file that is no archive: what a tar said, of which more would only be noise. */
const TEXT = 64 * 1024;

/**
 * The client calls of one prepare or restore. The binding asks for them by {@link dispatch}; here they are made as
 * JavaScript makes them: the method looked up by name each time, on the client itself, whatever it returns awaited,
 * and what it throws kept, to be passed on as the very same value.
 */
class ClientCalls {
  #client;
  #spec;
  #lease;
  #abort;
  #listeners;
  /** @type {unknown[]} */
  #failures = [];
  /** @type {Map<number, ArrayBuffer>} */
  #uploads = new Map();
  #written = 0;

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
   * Never rejects. It resolves with one of these:
   *
   * - memory for an upload (`allocate`);
   * - a function that gives the bytes that were read (`readFile`);
   * - nothing (all other methods);
   * - the number under which a failure is kept (any method, where it failed).
   *
   * @type {Dispatch}
   */
  dispatch = async (method, target, number) => {
    try {
      if (method === "allocate") {
        const memory = allocate(number);
        this.#uploads.set(Number(target), memory);
        return new Uint8Array(memory);
      }
      if (method === "release") {
        this.#uploads.delete(Number(target));
        return undefined;
      }
      // A sandbox that nobody waits for any longer needs no refresh either.
      this.#abort.throwIfAborted();
      const call = () => this.#call(method, target, number);
      // A call is given up once the caller aborts: nobody waits for what becomes of it.
      return await this.#lease.during(() => this.#abort.until(call));
    } catch (failure) {
      return this.#failures.push(failure) - 1;
    }
  };

  /**
   * What a run rejected with, as the caller is to see it.
   *
   * @param {unknown} error
   */
  failure(error) {
    const { message } = /** @type {Error} */ (error);
    const kept = /^client-failure:(\d+)$/.exec(message);
    return kept ? this.#failures[Number(kept[1])] : fromNative(error);
  }

  /**
   * @param {Exclude<Parameters<Dispatch>[0], "allocate" | "release">} method
   * @param {string} target
   * @param {number} number
   */
  async #call(method, target, number) {
    const client = this.#client;
    switch (method) {
      case "writeFile": {
        // The binding has allocated and filled it. From here on the client alone has it.
        const bytes = /** @type {ArrayBuffer} */ (this.#uploads.get(number));
        this.#uploads.delete(number);
        const size = bytes.byteLength;
        if (this.#written++ > 0) await this.#listeners.beforeAsset?.();
        const progress = this.#progress("Syncing", "to", target, "config_sync");
        const options = this.#transferOptions(progress);
        await (options ? client.writeFile(target, bytes, options) : client.writeFile(target, bytes));
        await progress?.finish(size);
        return undefined;
      }
      case "readFile": {
        const isArchive = target.endsWith(".tar");
        const progress = isArchive ? this.#progress("Restoring", "from", target, "restore") : undefined;
        const options = this.#transferOptions(progress);
        const answer = await (options ? client.readFile(target, options) : client.readFile(target));
        const bytes = await inPlaceOrCopied(asBytes(answer, isArchive ? Infinity : TEXT), this.#abort);
        await progress?.finish(bytes.byteLength);
        // The binding asks for them whenever it copies a part: what became of them meanwhile shows then.
        return () => bytes;
      }
      case "run":
        await client.run(target, { timeoutMs: this.#spec.timeoutMs, ...this.#signalOption() });
        return undefined;
      default:
        await client[method](target);
        return undefined;
    }
  }

  /** What a call gets where the caller gave a signal, so that an abort can stop the call itself. */
  #signalOption() {
    const { signal } = this.#abort;
    return signal ? { signal } : undefined;
  }

  /**
   * The further argument of a transfer; none where it would say nothing.
   *
   * @param {ReturnType<typeof transferProgress>} progress
   */
  #transferOptions(progress) {
    const signal = this.#signalOption();
    return progress || signal ? { ...progress?.options, ...signal } : undefined;
  }

  /**
   * @param {"Syncing" | "Restoring"} phase
   * @param {"to" | "from"} direction
   * @param {string} target
   * @param {RuntimeStatusPhase} statusPhase
   */
  #progress(phase, direction, target, statusPhase) {
    // "…/workspace-upload.tar", "…/<asset key>-upload.tar" or "…/workspace-download.tar".
    const label = target.slice(target.lastIndexOf("/") + 1).replace(/-(upload|download)\.tar$/, "");
    const { onLine, onStatus } = this.#listeners;
    return transferProgress({ phase, direction, label, statusPhase, onLine, onStatus });
  }
}

/**
 * Memory for one archive, which a client is handed as one `ArrayBuffer`.
 *
 * @param {number} size
 */
function allocate(size) {
  const limit = constants.MAX_LENGTH;
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
    `The folder's archive would have ${size} bytes, and ${limit} (Node.js ${process.version}). The folder was not ` +
    "uploaded. Exclude what the sandbox does not need (workspaceExclude, an asset's exclude), or use a newer Node.js " +
    "or a machine with more memory";
  return codedError(Error, "ERR_SANDBOX_UNSUPPORTED", message, cause === undefined ? {} : { cause });
}

/**
 * What `readFile` answered, as bytes in place.
 *
 * @param {unknown} answer
 * @param {number} most How many of them are wanted.
 */
function asBytes(answer, most) {
  if (!ArrayBuffer.isView(answer) && !types.isAnyArrayBuffer(answer)) throw noBytes(received(answer));
  let bytes;
  try {
    bytes = ArrayBuffer.isView(answer)
      ? new Uint8Array(answer.buffer, answer.byteOffset, answer.byteLength)
      : new Uint8Array(answer);
  } catch {
    // Nothing else keeps a buffer from being looked at.
    throw noBytes("Received one that was transferred away");
  }
  return bytes.subarray(0, most);
}

/**
 * The bytes in place, which the binding copies in parts. A small one is copied here before anything else happens, and
 * so is, in pieces, memory that several threads share or that changes its size. What is written to that meanwhile is
 * checked as any other archive, since only the copy is ever read.
 *
 * @param {Uint8Array} bytes
 * @param {Abort} abort
 */
async function inPlaceOrCopied(bytes, abort) {
  const { buffer, byteLength } = bytes;
  if (byteLength <= SMALL) return bytes.slice();
  if (!types.isSharedArrayBuffer(buffer) && !buffer.resizable) return bytes;
  const copy = new Uint8Array(byteLength);
  for (let at = 0; at < byteLength; at += PIECE) {
    if (at > 0) await nextTurn();
    abort.throwIfAborted();
    if (bytes.byteLength !== byteLength) {
      throw noBytes("Received one that was transferred away or resized while it was read");
    }
    copy.set(bytes.subarray(at, at + PIECE), at);
  }
  return copy;
}

/** @param {string} what */
function noBytes(what) {
  const message = `client.readFile() must give a Buffer, Uint8Array or ArrayBuffer. ${what}`;
  return codedError(TypeError, "ERR_INVALID_RETURN_VALUE", message);
}

module.exports = { ClientCalls };
