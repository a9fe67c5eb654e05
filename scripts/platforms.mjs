// The published platforms, and how cargo compiles for one of them on another system.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import platform from "../js/platform.js";
import { Explained, root } from "./process.mjs";

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
 * The platforms that a command line names; all of them where it names none.
 *
 * @param {string[]} args
 */
export function platformsFrom(args) {
  const unknown = args.find((name) => !PLATFORMS.includes(name));
  if (unknown) throw new Explained(`There is no platform "${unknown}". There are: ${PLATFORMS.join(", ")}.`);
  return args.length > 0 ? args : PLATFORMS;
}

/** Options by which cargo compiles the standard library too, without the code that names the functions of a stack. */
const BUILD_STANDARD_LIBRARY = ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=panic-unwind"];

/**
 * A compiler that has the standard library for a target, or at least its source, which cargo then compiles too: this
 * machine's (`rustup target add`, `rustup component add rust-src`), or else Debian's (scripts/system-packages.txt).
 *
 * @param {string} target
 * @returns {{ env: Record<string, string>, options: string[] }} For cargo.
 */
export function compilerFor(target) {
  const library = ask("rustc", "target-libdir", "--target", target);
  if (library !== undefined && existsSync(library)) return { env: {}, options: [] };
  for (const rustc of ["rustc", "/usr/bin/rustc"]) {
    const sysroot = ask(rustc, "sysroot");
    if (sysroot === undefined || !existsSync(path.join(sysroot, "lib/rustlib/src/rust/library"))) continue;
    // Compiling the standard library is not a stable feature of cargo, and this allows it.
    return { env: { RUSTC: rustc, RUSTC_BOOTSTRAP: "1" }, options: BUILD_STANDARD_LIBRARY };
  }
  throw new Explained(
    `No Rust compiler here has a standard library for ${target}.\n` +
      `Run \`rustup target add ${target}\`, or install the packages of scripts/system-packages.txt, and try again.`,
  );
}

/**
 * The path that a compiler answers with; `undefined` where there is no such compiler, or it does not know.
 *
 * @param {string} compiler
 * @param {string[]} words
 */
function ask(compiler, ...words) {
  const { status, stdout } = spawnSync(compiler, ["--print", ...words], { cwd: root, encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
}
