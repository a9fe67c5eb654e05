"use strict";

const { util } = require("./node.js");

/** How much of a path or a command is printed. */
const TEXT = 200;

/** Prints if the environment variable `NODE_DEBUG` names this section, like Node's own modules. */
const log = util.debuglog("paperclip-sandbox");

/**
 * Makes a client call, and prints it with its time and bytes if `NODE_DEBUG` asks for that; never the content of a file.
 * Otherwise nothing is printed or computed.
 *
 * @template T
 * @param {string} op
 * @param {string} target A remote path or a command.
 * @param {() => T | Promise<T>} call
 * @param {(answer: T) => number} [bytesOf] How many bytes were transferred.
 * @returns {Promise<T>}
 */
async function traced(op, target, call, bytesOf) {
  if (!log.enabled) return call();
  const started = performance.now();
  /** @param {string} outcome */
  const print = (outcome) => {
    const took = (performance.now() - started).toFixed(1);
    const text = target.length > TEXT ? `${target.slice(0, TEXT)}…` : target;
    // On one line, whatever the text contains.
    log("%s %s: %s in %s ms", op, JSON.stringify(text), outcome, took);
  };
  try {
    const answer = await call();
    print(bytesOf ? `${bytesOf(answer)} bytes` : "done");
    return answer;
  } catch (error) {
    // The client's error may contain anything.
    print("failed");
    throw error;
  }
}

module.exports = { traced };
