// The compilers that build for every platform on one x64 Debian machine: public packages, put into a folder of their own
// (.build/). Nothing is installed, and root is not needed.
//
// - rustc comes from Debian, or from the rustup that is there, with the source of its standard library in the same
//   version. So the library is compiled for targets that no package has it for.
// - Zig, from PyPI, is the linker. It brings the C libraries of all targets, glibc in every version.

import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { readIfThere } from "../files.mjs";
import { Explained, root, run } from "../process.mjs";
import { must } from "./commands.mjs";

/** Everything that the scripts download or build, other than the binaries themselves. */
export const BUILD_DIR = path.join(root, ".build");

// Tried together, so they move together, and only with a full run of the checks.
export const ZIG_PACKAGES = ["ziglang==0.17.1", "cargo-zigbuild==0.24.1"];

/**
 * Does something that takes long, unless that was its last outcome already: a mark in {@link BUILD_DIR} holds what that
 * depends on.
 *
 * @param {string} name Of the mark.
 * @param {string} state What the outcome depends on, such as versions.
 * @param {() => Promise<void>} work
 */
export async function once(name, state, work) {
  const mark = path.join(BUILD_DIR, `${name}.done`);
  if ((await readIfThere(mark)) === state) return;
  await mkdir(BUILD_DIR, { recursive: true });
  // Work that does not come to its end leaves neither the old outcome nor the new one.
  await rm(mark, { force: true });
  await work();
  await writeFile(mark, state);
}

/**
 * Brings Debian packages into a folder below {@link BUILD_DIR}: again where apt would install another version by now.
 *
 * @param {string} name Of the folder.
 * @param {string[]} packages
 * @param {{ architecture?: string }} [options] As for {@link unpackDebianPackages}.
 * @returns {Promise<string>} The folder.
 */
export async function debianPackages(name, packages, options) {
  const candidates = packages.map(async (wanted) => `${wanted} ${await debianVersion(wanted)}`);
  await once(name, (await Promise.all(candidates)).join("\n"), () =>
    unpackDebianPackages(name, packages, options),
  );
  return path.join(BUILD_DIR, name);
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
async function unpackDebianPackages(name, packages, { architecture } = {}) {
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
 * Makes a Python environment with the given packages below {@link BUILD_DIR}. It has a pip of its own, which a system
 * may lack.
 *
 * @param {string} name
 * @param {string[]} packages
 * @returns {Promise<string>} Its folder.
 */
export async function pythonEnvironment(name, packages) {
  const folder = path.join(BUILD_DIR, name);
  await once(name, packages.join(" "), async () => {
    await rm(folder, { recursive: true, force: true });
    await must("python3", ["-m", "venv", folder]);
    if (packages.length === 0) return;
    const pip = path.join(folder, "bin", "pip");
    await must(pip, ["install", "--quiet", "--disable-pip-version-check", ...packages]);
  });
  return folder;
}

/** Brings Zig and cargo-zigbuild, and returns the environment in which cargo-zigbuild works. */
export async function zigEnvironment() {
  const folder = await pythonEnvironment("zig", ZIG_PACKAGES);
  return {
    PATH: [path.join(folder, "bin"), process.env.PATH].join(path.delimiter),
    ZIG_GLOBAL_CACHE_DIR: path.join(BUILD_DIR, "zig-cache"),
    CARGO_ZIGBUILD_CACHE_DIR: path.join(BUILD_DIR, "cargo-zigbuild"),
  };
}

/**
 * What `apt-cache` prints. Throws where there is no apt.
 *
 * @param {string[]} words
 */
async function askApt(words) {
  try {
    // What is read of it is not to be in the words of the machine's language.
    return await run("apt-cache", words, { keep: "stdout", show: false, env: { LC_ALL: "C" } });
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "ENOENT") throw error;
    throw new Explained("Debian's apt is needed to bring compilers and libraries, and there is none here.");
  }
}

/**
 * Where apt does not know a package.
 *
 * @param {string} name
 */
function unknownToApt(name) {
  return new Explained(
    `apt knows no package "${name}". Its lists are missing or old, or this system is another than Debian 12.\n` +
      "Run `apt-get update` as root and run the command again.",
  );
}

/**
 * The version of a package that apt would install.
 *
 * @param {string} name
 */
async function debianVersion(name) {
  const { code, output } = await askApt(["policy", name]);
  const version = candidateOf(output);
  if (code !== 0 || version === undefined) throw unknownToApt(name);
  return version;
}

/**
 * The version that `apt-cache policy` says would be installed; `undefined` where it says that there is none.
 *
 * @param {string} policy
 */
export function candidateOf(policy) {
  const version = /^ *Candidate: (.+)$/m.exec(policy)?.[1];
  return version === "(none)" ? undefined : version;
}

/**
 * What apt prints of a package's dependencies.
 *
 * @param {string} name
 */
async function debianDependencies(name) {
  const { code, output } = await askApt(["depends", name]);
  if (code !== 0) throw unknownToApt(name);
  return output;
}

/**
 * A Rust compiler, and the source of its standard library, which is compiled along.
 *
 * @typedef {object} Compiler
 * @property {string} name
 * @property {Record<string, string>} env In which cargo compiles with it.
 * @property {string} standardLibrary The folder with that source.
 */

/** Compiling the standard library is not a stable feature of cargo. */
const UNSTABLE = { RUSTC_BOOTSTRAP: "1" };

/**
 * Where the source of the standard library stands below a compiler's folder.
 *
 * @param {string} sysroot
 */
const sourceIn = (sysroot) => path.join(sysroot, "lib", "rustlib", "src", "rust");

/**
 * Brings Debian's Rust.
 *
 * @returns {Promise<Compiler>}
 */
export async function debianCompiler() {
  const dependencies = await debianDependencies("libstd-rust-web-dev");
  // Its name holds the compiler's version. Named here, it is unpacked even where the machine has it.
  const library = [...dependencies.matchAll(/Depends: (libstd-rust-web-\S+)/g)].map(([, name]) => name);
  const packages = ["rustc-web", "rust-web-src", "libstd-rust-web-dev", ...library];
  const sysroot = path.join(await debianPackages("debian-rust", packages), "usr");
  return {
    name: "debian",
    env: {
      ...UNSTABLE,
      RUSTC: path.join(sysroot, "bin", "rustc"),
      LD_LIBRARY_PATH: path.join(sysroot, "lib", "x86_64-linux-gnu"),
    },
    standardLibrary: sourceIn(sysroot),
  };
}

/**
 * Takes the Rust that rustup installed here, and has it bring the standard library's source. The library as it is
 * installed always has the code that {@link STANDARD_LIBRARY} leaves out, which is about 200 KiB.
 *
 * @returns {Promise<Compiler>}
 */
export async function rustupCompiler() {
  await must("rustup", ["component", "add", "rust-src"]);
  const sysroot = (await must("rustc", ["--print", "sysroot"], { show: false })).trim();
  return { name: "rustup", env: UNSTABLE, standardLibrary: sourceIn(sysroot) };
}

/**
 * Options by which cargo compiles the standard library along. What it can tell of a stack's functions is left out: in a
 * stripped library they have no names.
 */
export const STANDARD_LIBRARY = ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=panic-unwind"];

/**
 * Compiler flags that keep this machine's folders out of what is compiled. The crates must have been fetched.
 *
 * @param {string} standardLibrary The folder of its source.
 */
export async function pathRemapFlags(standardLibrary) {
  const registries = path.join(process.env.CARGO_HOME ?? path.join(homedir(), ".cargo"), "registry", "src");
  const renamed = [
    [root.replace(/\/$/, ""), "."],
    [standardLibrary, "/rust"],
    // Cargo hands what is below the project to the compiler by relative paths.
    [path.relative(root, standardLibrary), "/rust"],
    ...(await readdir(registries)).map((name) => [path.join(registries, name), "/crates"]),
  ];
  return renamed.map(([from, to]) => `--remap-path-prefix=${from}=${to}`);
}
