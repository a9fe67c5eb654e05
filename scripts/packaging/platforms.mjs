// What the published platforms are to the scripts that build, check and pack them.

import path from "node:path";
import platform from "../../js/platform.js";
import { Explained, root } from "../process.mjs";

export const { PACKAGE, PLATFORMS, MINIMUM_GLIBC, fileName, packageName } = platform;

/**
 * Rust's name for each platform.
 *
 * @type {Record<string, string>}
 */
export const RUST_TARGETS = {
  "darwin-arm64": "aarch64-apple-darwin",
  "darwin-x64": "x86_64-apple-darwin",
  "linux-arm64-gnu": "aarch64-unknown-linux-gnu",
  "linux-x64-gnu": "x86_64-unknown-linux-gnu",
  "linux-arm64-musl": "aarch64-unknown-linux-musl",
  "linux-x64-musl": "x86_64-unknown-linux-musl",
};

/**
 * The oldest macOS that a binary loads on: the one that Node 20 asks for on that processor.
 *
 * @type {Record<string, string>}
 */
export const MINIMUM_MACOS = { "darwin-arm64": "11.0", "darwin-x64": "10.15" };

/** @param {string} name */
export function packageDir(name) {
  return path.join(root, "npm", name);
}

/**
 * Where a platform's binary is built to and packed from.
 *
 * @param {string} name
 */
export function binaryPath(name) {
  return path.join(packageDir(name), fileName(name));
}

/**
 * The platforms that a command line names; all of them where it names none.
 *
 * @param {string[]} args
 */
export function platformsFrom(args) {
  const unknown = args.find((name) => !PLATFORMS.includes(name));
  if (unknown) throw new Explained(`There is no platform "${unknown}". There are: ${PLATFORMS.join(", ")}.`);
  return args.length > 0 ? args : PLATFORMS;
}
