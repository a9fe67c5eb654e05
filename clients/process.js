// @ts-check
"use strict";

/**
 * What the clients that start processes on this machine share.
 *
 * @internal
 */

const { OUTPUT_TAIL_CHARS } = require("./errors.js");

/**
 * Reads `stream` to its end so that its writer never blocks, and keeps the last part.
 *
 * @param {import("node:stream").Readable} stream
 * @returns {() => string} what was kept so far
 */
function errorOutput(stream) {
  let kept = "";
  stream.setEncoding("utf8");
  stream.on("data", (text) => {
    // Twice what a message shows, so that it can drop blank space at the end and tell that something was cut.
    kept = (kept + text).slice(-2 * OUTPUT_TAIL_CHARS);
  });
  return () => kept;
}

/**
 * How `child` ended, once it has and all holders of its output have closed it. Rejects when it cannot be
 * started.
 *
 * @param {import("node:child_process").ChildProcess} child
 * @returns {Promise<{ exitCode: number | null, signal: NodeJS.Signals | null }>}
 */
function exitOf(child) {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exitCode, signal) => resolve({ exitCode, signal }));
  });
}

module.exports = { errorOutput, exitOf };
