"use strict";

// Helpers around the binding for several entries of the package: they turn its errors into JavaScript's, and move snapshots
// in pieces, one in each turn of the event loop.

const { native } = require("../binding.js");
const { fromNative } = require("./errors.js");
const { nextTurn } = require("./turn.js");

/**
 * @import * as own from "../index.js"
 * @import { Pieces } from "../binding.js"
 */

/** How many entries of a snapshot are handled in one turn of the event loop: about a millisecond's worth. */
const ENTRIES_A_TURN = 1000;

/**
 * Awaits the binding, and converts its errors to JavaScript's.
 *
 * @template T
 * @param {Promise<T>} promise
 */
const awaitNative = async (promise) => {
  try {
    return await promise;
  } catch (error) {
    throw fromNative(error);
  }
};

/**
 * Reads the entries of a snapshot from the binding, in pieces.
 *
 * @param {Pieces} pieces
 * @returns {Promise<own.DirectorySnapshot["entries"]>}
 */
async function readEntries(pieces) {
  const entries = new Map();
  for (let json = pieces.read(); json !== null; json = pieces.read()) {
    for (const [name, entry] of JSON.parse(json)) entries.set(name, entry);
    await nextTurn();
  }
  return entries;
}

/**
 * Passes a baseline to the binding, one piece in each turn of the event loop.
 *
 * @param {own.DirectorySnapshot["entries"]} entries
 */
async function writeBaseline(entries) {
  const writer = new (native().SnapshotWriter)();
  /** @type {[string, own.SnapshotEntry][]} */
  let batch = [];
  const flush = () => {
    try {
      writer.write(JSON.stringify(batch));
    } catch (error) {
      throw fromNative(error);
    }
    batch = [];
  };
  for (const pair of entries) {
    batch.push(pair);
    if (batch.length === ENTRIES_A_TURN) {
      flush();
      await nextTurn();
    }
  }
  flush();
  return writer;
}

/**
 * Runs `work` and then, in any case, `release`. If both fail, the failure of `work` is thrown.
 *
 * @template T
 * @param {() => Promise<T>} work
 * @param {() => Promise<unknown>} release
 */
async function holding(work, release) {
  let result;
  try {
    result = await work();
  } catch (error) {
    await release().catch(() => undefined);
    throw error;
  }
  await release();
  return result;
}

module.exports = { awaitNative, holding, readEntries, writeBaseline };
