"use strict";

const { types } = require("node:util");
const { codedError, fromNative, received } = require("./errors.js");
const { transferProgress } = require("./progress.js");

/**
 * @import {
 *   RuntimeProgressSink,
 *   RuntimeStatusPhase,
 *   RuntimeStatusSink,
 *   SandboxManagedRuntimeClient,
 *   SandboxRemoteExecutionSpec,
 * } from "../index.js"
 * @import { Dispatch } from "../binding.js"
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

/** Answers up to this size may be views into a pool that the client's runtime writes to again, so they are copied. */
const SMALL = 64 * 1024;

/**
 * The client calls of one prepare or restore. The binding asks for them by {@link dispatch}; here they are made as
 * JavaScript makes them: the method looked up by name each time, on the client itself, whatever it returns awaited,
 * and what it throws kept, to be passed on as the very same value.
 */
class ClientCalls {
  #client;
  #spec;
  #lease;
  #signal;
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
   * @param {AbortSignal} [run.signal]
   * @param {Listeners} run.listeners
   */
  constructor({ client, spec, lease, signal, listeners }) {
    this.#client = client;
    this.#spec = spec;
    this.#lease = lease;
    this.#signal = signal;
    this.#listeners = listeners;
  }

  /**
   * Never rejects: resolves with memory, with a function that gives bytes, with nothing, or with the number under which a failure is kept.
   *
   * @type {Dispatch}
   */
  dispatch = async (method, target, number) => {
    try {
      if (method === "allocate") {
        const memory = new ArrayBuffer(number);
        this.#uploads.set(Number(target), memory);
        return new Uint8Array(memory);
      }
      // A sandbox that nobody waits for any longer needs no refresh either.
      if (this.#signal?.aborted) throw this.#signal.reason;
      const call = () => this.#call(method, target, number);
      // A call is given up once the caller aborts: nobody waits for what becomes of it.
      return await this.#lease.during(() => untilAborted(this.#signal, call));
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
   * @param {Exclude<Parameters<Dispatch>[0], "allocate">} method
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
        await (progress
          ? client.writeFile(target, bytes, progress.options)
          : client.writeFile(target, bytes));
        await progress?.finish(size);
        return undefined;
      }
      case "readFile": {
        const progress = target.endsWith(".tar")
          ? this.#progress("Restoring", "from", target, "restore")
          : undefined;
        const answer = await (progress ? client.readFile(target, progress.options) : client.readFile(target));
        const bytes = asBytes(answer);
        await progress?.finish(bytes.byteLength);
        // The binding asks for them whenever it copies a part: what became of them meanwhile shows then.
        return () => bytes;
      }
      case "run":
        await client.run(target, { timeoutMs: this.#spec.timeoutMs });
        return undefined;
      default:
        await client[method](target);
        return undefined;
    }
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
 * Settles as `call` does, or rejects with the signal's reason at once when that is sooner, after `onAbort`.
 *
 * @template T
 * @param {AbortSignal | undefined} signal
 * @param {() => Promise<T>} call
 * @param {() => void} [onAbort]
 * @returns {Promise<T>}
 */
async function untilAborted(signal, call, onAbort) {
  if (!signal) return call();
  if (signal.aborted) throw signal.reason;
  return new Promise((resolve, reject) => {
    const abort = () => {
      onAbort?.();
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    call()
      .then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", abort));
  });
}

/**
 * What `readFile` answered, as bytes in place. The binding copies them in parts; a small one is copied here.
 *
 * @param {unknown} answer
 */
function asBytes(answer) {
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
  return bytes.byteLength <= SMALL ? bytes.slice() : bytes;
}

/** @param {string} what */
function noBytes(what) {
  const message = `client.readFile() must give a Buffer, Uint8Array or ArrayBuffer. ${what}`;
  return codedError(TypeError, "ERR_INVALID_RETURN_VALUE", message);
}

module.exports = { ClientCalls, untilAborted };
