// @ts-check
"use strict";

/**
 * Programs that run on this machine with pipes as their standard streams.
 *
 * The binding starts them: `child_process` does so by `fork`, for which the system copies the page tables of this whole
 * process, on the event loop's thread. With a large archive in memory, that is a stall of tens of milliseconds.
 *
 * @internal
 */

const { native } = require("../binding.js");
const { fromNative } = require("../js/errors.js");
const { awaitNative } = require("../js/native.js");
const {
  childProcess: { spawn },
  net: { Socket },
  os,
} = require("../js/node.js");
const { exitOf } = require("./process.js");

/** @import { StartedProgram } from "../binding.js" */

/**
 * @typedef {object} Program
 * @property {import("node:stream").Writable} stdin
 * @property {import("node:stream").Readable} stdout
 * @property {import("node:stream").Readable} stderr
 * @property {Promise<{ exitCode: number | null, signal: NodeJS.Signals | null }>} ended how the program ended, once it has
 *   and all holders of its output have closed it; rejects if it cannot be started
 * @property {() => void} kill kills the program, unless it has ended, and closes its streams: a process that outlives it may
 *   hold them open for as long as it likes
 */

/**
 * Starts a program in the working directory and with the environment of this process.
 *
 * @param {string} name its path, or a name to be found by `PATH`
 * @param {string[]} args
 * @returns {Program}
 */
function startProgram(name, args) {
  const start = starter();
  if (start === undefined) return startByRuntime(name, args);
  /** @type {StartedProgram} */
  let program;
  try {
    program = start(JSON.stringify({ name, args, env: Object.entries(process.env) }));
  } catch (error) {
    throw fromNative(error);
  }
  const [input, output, errors] = program.takeStreams();
  const stdin = new Socket({ fd: input, readable: false, writable: true });
  const stdout = new Socket({ fd: output, readable: true, writable: false });
  const stderr = new Socket({ fd: errors, readable: true, writable: false });
  const streams = [stdin, stdout, stderr];

  async function end() {
    const closed = Promise.all(streams.map(untilClosed));
    let ending;
    try {
      ending = await awaitNative(program.ended());
    } finally {
      // Nobody reads what is still to be written. Without an error it would look written.
      stdin.destroy(stdin.writableLength > 0 ? brokenPipe() : undefined);
    }
    await closed;
    const { exitCode = null, signal } = ending;
    return { exitCode, signal: signal === undefined ? null : nameOfSignal(signal) };
  }

  return {
    stdin,
    stdout,
    stderr,
    ended: end(),
    kill() {
      program.kill();
      for (const stream of streams) stream.destroy();
    },
  };
}

/** The system's error for what is written to a program that does not read it any more. */
const brokenPipe = () => Object.assign(new Error("write EPIPE"), { code: "EPIPE", syscall: "write" });

/** The binding's function, unless the runtime is to start programs. */
function starter() {
  // Bun makes no copy itself, and its sockets cannot read from a file descriptor.
  if (process.versions.bun) return undefined;
  try {
    return native().startProgram;
  } catch {
    // Clients also work where there is no binary for the platform, such as on Windows.
    return undefined;
  }
}

/**
 * Starts a program as the runtime does.
 *
 * @param {string} name
 * @param {string[]} args
 * @returns {Program}
 */
function startByRuntime(name, args) {
  const child = spawn(name, args, { stdio: ["pipe", "pipe", "pipe"] });
  const { stdin, stdout, stderr } = child;
  return {
    stdin,
    stdout,
    stderr,
    ended: exitOf(child),
    kill() {
      child.kill("SIGKILL");
      for (const stream of [stdin, stdout, stderr]) stream?.destroy();
    },
  };
}

/** @param {import("node:stream").Duplex} stream */
function untilClosed(stream) {
  return new Promise((resolve) => stream.once("close", () => resolve(undefined)));
}

/** @param {number} number */
function nameOfSignal(number) {
  const [name] = Object.entries(os.constants.signals).find(([, other]) => other === number) ?? [
    `SIG${number}`,
  ];
  return /** @type {NodeJS.Signals} */ (name);
}

module.exports = { startByRuntime, startProgram };
