// The compilers that build for every platform on one x64 Debian machine: public packages, put into a folder of their own
// (.build/). The machine itself is left as it is, and root is not needed.
//
// - rustc comes from Debian, with the source of its standard library in the same version. So the library is compiled for
//   targets that no package has it for.
// - Zig, from PyPI, is the linker. It brings the C libraries of all targets, glibc in every version.

import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { Explained, root, run } from "../process.mjs";
import { must } from "./commands.mjs";

/** Everything that the scripts download or build, other than the binaries themselves. */
export const BUILD_DIR = path.join(root, ".build");

// Tried together, so they move together, and only with a full run of the checks.
const ZIG = "ziglang==0.17.1";
const CARGO_ZIGBUILD = "cargo-zigbuild==0.24.1";

const SYSROOT = path.join(BUILD_DIR, "debian-rust", "usr");

/**
 * Does something that takes long, unless an earlier call came to its end: that leaves a mark in {@link BUILD_DIR}.
 *
 * @param {string} name Of the mark. Holds what else the outcome depends on, such as versions.
 * @param {() => Promise<void>} work
 */
export async function once(name, work) {
  const mark = path.join(BUILD_DIR, `${name}.done`);
  if (await isThere(mark)) return;
  await mkdir(BUILD_DIR, { recursive: true });
  await work();
  await writeFile(mark, "");
}

/**
 * Downloads Debian packages, and those of their dependencies that this machine lacks, and unpacks them into a folder.
 * Nothing is installed.
 *
 * @param {string} name Of the folder, below {@link BUILD_DIR}.
 * @param {string[]} packages
 * @param {{ architecture?: string }} [options] `architecture`: Debian's name of another processor than this machine's;
 *   then all dependencies come too.
 */
export async function unpackDebianPackages(name, packages, { architecture } = {}) {
  const folder = path.join(BUILD_DIR, name);
  const apt = `${folder}.apt`;
  for (const made of [folder, apt]) await rm(made, { recursive: true, force: true });
  for (const made of ["lists", "archives"]) await mkdir(path.join(apt, made, "partial"), { recursive: true });
  await mkdir(folder, { recursive: true });

  const options = [
    // As nothing is installed, no lock is needed, nor root to take it.
    "--option=Debug::NoLocking=true",
    `--option=Dir::Cache::archives=${path.join(apt, "archives")}`,
  ];
  if (architecture) {
    // To apt, this is another machine, with nothing on it and lists of its own.
    await writeFile(path.join(apt, "status"), "");
    options.push(
      `--option=APT::Architecture=${architecture}`,
      `--option=APT::Architectures::=${architecture}`,
      `--option=Dir::State::status=${path.join(apt, "status")}`,
      `--option=Dir::State::lists=${path.join(apt, "lists")}`,
      `--option=Dir::Cache::pkgcache=`,
      `--option=Dir::Cache::srcpkgcache=`,
    );
    await must("apt-get", ["update", "--quiet", ...options]);
  } else {
    // A package that the machine happens to have is wanted here all the same.
    options.push("--reinstall");
  }
  const download = ["install", "--yes", "--quiet", "--download-only", "--no-install-recommends"];
  await must("apt-get", [...download, ...options, ...packages]);
  const archives = await readdir(path.join(apt, "archives"));
  for (const archive of archives.filter((file) => file.endsWith(".deb"))) {
    await must("dpkg-deb", ["--extract", path.join(apt, "archives", archive), folder]);
  }
  await rm(apt, { recursive: true });
}

/**
 * Makes a Python environment with the given packages below {@link BUILD_DIR}.
 *
 * @param {string} name
 * @param {string[]} packages
 * @returns {Promise<string>} Its folder.
 */
export async function pythonEnvironment(name, packages) {
  const folder = path.join(BUILD_DIR, name);
  await once([name, ...packages].join("-"), async () => {
    await rm(folder, { recursive: true, force: true });
    await must("python3", ["-m", "venv", folder]);
    const pip = path.join(folder, "bin", "pip");
    await must(pip, ["install", "--quiet", "--disable-pip-version-check", ...packages]);
  });
  return folder;
}

/** Brings Zig and cargo-zigbuild, and returns the environment in which cargo-zigbuild works. */
export async function zigEnvironment() {
  const folder = await pythonEnvironment("zig", [ZIG, CARGO_ZIGBUILD]);
  return {
    PATH: [path.join(folder, "bin"), process.env.PATH].join(path.delimiter),
    ZIG_GLOBAL_CACHE_DIR: path.join(BUILD_DIR, "zig-cache"),
    CARGO_ZIGBUILD_CACHE_DIR: path.join(BUILD_DIR, "cargo-zigbuild"),
  };
}

/**
 * What apt prints of a package's dependencies. Throws where apt does not know the package.
 *
 * @param {string} name
 */
async function debianDependencies(name) {
  try {
    const { code, output } = await run("apt-cache", ["depends", name], { keep: "stdout", show: false });
    if (code === 0) return output;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "ENOENT") throw error;
    throw new Explained("Debian's apt is needed to bring the compiler, and there is none here.");
  }
  throw new Explained(
    `apt knows no package "${name}". Its lists are missing or old, or this system is another than Debian 12.\n` +
      "Run `apt-get update` as root and run the command again.",
  );
}

/** Brings Debian's Rust, and returns the environment in which cargo compiles with it, the standard library included. */
export async function debianRustEnvironment() {
  await once("debian-rust", async () => {
    const dependencies = await debianDependencies("libstd-rust-web-dev");
    // Its name holds the compiler's version. Named here, it is unpacked even where the machine has it.
    const library = [...dependencies.matchAll(/Depends: (libstd-rust-web-\S+)/g)].map(([, name]) => name);
    await unpackDebianPackages("debian-rust", [
      "rustc-web",
      "rust-web-src",
      "libstd-rust-web-dev",
      ...library,
    ]);
  });
  return {
    RUSTC: path.join(SYSROOT, "bin", "rustc"),
    // Compiling the standard library is not a stable feature of cargo.
    RUSTC_BOOTSTRAP: "1",
    LD_LIBRARY_PATH: path.join(SYSROOT, "lib", "x86_64-linux-gnu"),
  };
}

/**
 * Options by which cargo compiles the standard library along. What it can tell of a stack's functions is left out: in a
 * stripped library they have no names.
 */
export const STANDARD_LIBRARY = ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=panic-unwind"];

/** Compiler flags that keep this machine's folders out of what is compiled. The crates must have been fetched. */
export async function pathRemapFlags() {
  const registries = path.join(process.env.CARGO_HOME ?? path.join(homedir(), ".cargo"), "registry", "src");
  const standardLibrary = path.join(SYSROOT, "lib", "rustlib", "src", "rust");
  const renamed = [
    [root.replace(/\/$/, ""), "."],
    [standardLibrary, "/rust"],
    // Cargo hands what is below the project to the compiler by relative paths.
    [path.relative(root, standardLibrary), "/rust"],
    ...(await readdir(registries)).map((name) => [path.join(registries, name), "/crates"]),
  ];
  return renamed.map(([from, to]) => `--remap-path-prefix=${from}=${to}`);
}

/** @param {string} file */
async function isThere(file) {
  try {
    await stat(file);
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return false;
    throw error;
  }
}
