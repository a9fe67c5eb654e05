// Other programs, and this package in other processes.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** A user and group that own no file here. */
export const OTHER_USER = 65534;

/** How to run a process as a user who is not the superuser: another user, or the one who runs the tests. */
export const unprivilegedIds = process.getuid() === 0 ? { uid: OTHER_USER, gid: OTHER_USER } : {};

const CALL = fileURLToPath(new URL("call.mjs", import.meta.url));

/**
 * Runs a program to its end.
 *
 * @param {string} program
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, unprivileged?: boolean }} [options]
 * @returns {Promise<{ code: number | null, signal: string | null, stdout: string, stderr: string }>}
 */
export function run(program, args, { cwd, env, unprivileged = false } = {}) {
  const child = spawn(program, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    ...(unprivileged ? unprivilegedIds : {}),
  });
  const texts = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"]) {
    child[name].setEncoding("utf8").on("data", (text) => (texts[name] += text));
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, ...texts }));
  });
}

/** Runs a program that must succeed, and returns its output. */
export async function succeed(program, args, options) {
  const { code, signal, stdout, stderr } = await run(program, args, options);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: ${signal ?? code}\n${stderr}`);
  return stdout;
}

/** Runs a script of `support/` with Node. */
export const runScript = (name, args = [], { execArgv = [], ...options } = {}) =>
  run(process.execPath, [...execArgv, fileURLToPath(new URL(name, import.meta.url)), ...args], options);

/**
 * Calls an export of this package in a process of a user who is not the superuser.
 *
 * @returns {Promise<{ value?: unknown, error?: Record<string, unknown> }>}
 */
export async function callUnprivileged(name, ...args) {
  return JSON.parse(await succeed(process.execPath, [CALL, name, JSON.stringify(args)]));
}
