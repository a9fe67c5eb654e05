// The published platforms, and how cargo compiles for one of them on another system.

import { access, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import platform from "../js/platform.js";
import { Explained, root, run } from "./process.mjs";

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
 * machine's (`rustup target add`, `rustup component add rust-src`), or else Debian's.
 *
 * @param {string} target
 * @returns {Promise<{ env: Record<string, string>, options: string[] }>} For cargo.
 */
export async function compilerFor(target) {
  const library = await ask("rustc", ["--print", "target-libdir", "--target", target]);
  if (library !== undefined && (await exists(library))) return { env: {}, options: [] };
  const sysroot = await ask("rustc", ["--print", "sysroot"]);
  const hasSource =
    sysroot !== undefined && (await exists(path.join(sysroot, "lib/rustlib/src/rust/library")));
  const env = hasSource ? {} : await debianCompiler(target);
  // Compiling the standard library is not a stable feature of cargo, and this allows it.
  return { env: { ...env, RUSTC_BOOTSTRAP: "1" }, options: BUILD_STANDARD_LIBRARY };
}

/**
 * Unpacks Debian's Rust, with the source of its standard library and the libraries that this machine lacks, into
 * `.build/`. Nothing is installed, and root is not needed.
 *
 * @param {string} target
 * @returns {Promise<Record<string, string>>} The environment in which cargo compiles with it.
 */
async function debianCompiler(target) {
  const explained = new Explained(
    `No Rust compiler here has a standard library for ${target}, and Debian's could not be downloaded.\n` +
      `Run \`rustup target add ${target}\`, or \`apt-get update\` where the system is Debian 12, and try again.`,
  );
  const folder = path.join(root, ".build", "debian-rust");
  const [archives, complete] = [`${folder}.archives`, `${folder}.complete`];
  if (!(await exists(complete))) {
    for (const old of [folder, archives]) await rm(old, { recursive: true, force: true });
    for (const made of [folder, path.join(archives, "partial")]) await mkdir(made, { recursive: true });
    // The name of the libraries holds the version. Named, they are unpacked even where the machine has them.
    const depends = await ask("apt-cache", ["depends", "libstd-rust-web-dev"]);
    const library = /Depends: (libstd-rust-web-\S+)/.exec(depends ?? "")?.[1];
    if (!library) throw explained;
    const options = ["--yes", "--quiet", "--download-only", "--reinstall", "--no-install-recommends"];
    options.push("--option=Debug::NoLocking=true", `--option=Dir::Cache::archives=${archives}`);
    const packages = ["rustc-web", "rust-web-src", "libstd-rust-web-dev", library];
    const { code } = await run("apt-get", ["install", ...options, ...packages]);
    if (code !== 0) throw explained;
    for (const file of (await readdir(archives)).filter((name) => name.endsWith(".deb"))) {
      const { code } = await run("dpkg-deb", ["--extract", path.join(archives, file), folder]);
      if (code !== 0) throw explained;
    }
    await rm(archives, { recursive: true });
    await writeFile(complete, "");
  }
  const usr = path.join(folder, "usr");
  return {
    RUSTC: path.join(usr, "bin", "rustc"),
    LD_LIBRARY_PATH: path.join(usr, "lib", "x86_64-linux-gnu"),
  };
}

/**
 * What a program answers, in English; `undefined` where there is no such program, or it fails.
 *
 * @param {string} program
 * @param {string[]} args
 */
async function ask(program, args) {
  try {
    const { code, output } = await run(program, args, { keep: "apart", show: false, env: { LC_ALL: "C" } });
    return code === 0 ? output.trim() : undefined;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return undefined;
    throw error;
  }
}

/** @param {string} file */
const exists = (file) =>
  access(file).then(
    () => true,
    () => false,
  );
