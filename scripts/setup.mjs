// Brings a checkout to the point where it runs: JavaScript dependencies and the native addon, each only when it is
// missing or out of date. Every script calls this first, so that none needs an install before it.
//
//   node scripts/setup.mjs                  does that alone
//   node scripts/setup.mjs dependencies     without the addon

import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { hostPlatform } from "../js/host.js";
import { fileName } from "../js/platform.js";
import { Explained, isAtLeast, readIfThere, root, run, runMain } from "./process.mjs";

/** Written into a checkout after an install: the lockfile's digest, so that a changed lockfile is noticed. */
const STAMP = path.join("node_modules", ".installed-lockfile");

/** The native addon for this platform, as the loader looks for it. */
const ADDON = path.join(root, fileName(hostPlatform()));

/**
 * Makes the checkout ready.
 *
 * @param {{ dependencies?: boolean, addon?: boolean }} [needs] What is needed; both by default. Building the addon
 *   needs the dependencies, using one that is built does not.
 */
export async function setUp({ dependencies = true, addon = true } = {}) {
  const build = addon && !(await isAddonCurrent());
  if (build) await requireRust();
  if ((dependencies || build) && !(await areDependenciesCurrent())) await installDependencies();
  if (build) await buildAddon();
}

/** Throws where Rust is missing or older than Cargo.toml asks for. */
export async function requireRust() {
  const manifest = await readFile(path.join(root, "Cargo.toml"), "utf8");
  const needed = /^rust-version = "(\d+\.\d+)"/m.exec(manifest)?.[1];
  if (!needed) throw new Error("Cargo.toml has no rust-version");
  const found = await rustVersion();
  if (!found) {
    throw new Explained(
      `Rust ${needed} or newer is needed to build the native addon, and no cargo was found.\n` +
        "Install it with rustup (https://rustup.rs), open a new terminal and run the command again.",
    );
  }
  if (isAtLeast(found, needed)) return;
  throw new Explained(
    `Rust ${needed} or newer is needed to build the native addon, and this is Rust ${found}.\n` +
      "Run `rustup update stable` and run the command again.",
  );
}

/** The version of the Rust that cargo builds with, or `undefined` where there is none. */
async function rustVersion() {
  try {
    const { output } = await run("cargo", ["--version"], { keep: "stdout", show: false });
    return /^cargo (\d+\.\d+\.\d+)/.exec(output)?.[1];
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Whether node_modules holds what the lockfile names. */
async function areDependenciesCurrent() {
  return (await readIfThere(path.join(root, STAMP))) === (await lockfileDigest());
}

/** Installs what the lockfile names. */
async function installDependencies() {
  announce("Installing JavaScript dependencies (the first time takes about half a minute)");
  // Some of the build tool's own dependencies, unused here, warn about Node 20: errors are all that matters.
  const { code } = await run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
  if (code !== 0) throw new Explained("`npm ci` failed; what it printed above says why.");
  await writeFile(path.join(root, STAMP), await lockfileDigest());
}

async function lockfileDigest() {
  const lockfile = await readFile(path.join(root, "package-lock.json"));
  return createHash("sha256").update(lockfile).digest("hex");
}

/**
 * Makes a Python environment with the given packages below `.build/`, unless it is there already.
 *
 * @param {string} name
 * @param {string[]} packages
 * @returns {Promise<string>} Its folder.
 */
export async function pythonEnvironment(name, packages) {
  const folder = path.join(root, ".build", name);
  const mark = path.join(folder, "packages");
  if ((await readIfThere(mark)) === packages.join(" ")) return folder;
  announce(`Installing ${packages.join(" and ")} into .build/${name}`);
  await rm(folder, { recursive: true, force: true });
  await mkdir(path.dirname(folder), { recursive: true });
  const pip = path.join(folder, "bin", "pip");
  const steps = [
    ["python3", "-m", "venv", folder],
    [pip, "install", "--quiet", "--disable-pip-version-check", ...packages],
  ];
  for (const [command, ...args] of steps) {
    const { code } = await run(command, args);
    if (code !== 0) throw new Explained(`This command failed: ${command} ${args.join(" ")}`);
  }
  await writeFile(mark, packages.join(" "));
  return folder;
}

/** Whether this platform's addon is built and no source is newer. */
async function isAddonCurrent() {
  const built = await modificationTime(ADDON);
  if (built === undefined) return false;
  return (await newestSource()) <= built;
}

async function buildAddon() {
  announce("Building the native addon (the first time takes about five minutes on two cores)");
  const { code, output } = await counted(
    run("npm", ["run", "--silent", "build"], { keep: "both", show: false }),
  );
  if (code !== 0)
    throw new Explained(`The native addon did not build. What was printed:\n\n${output.trimEnd()}`);
  if ((await modificationTime(ADDON)) === undefined) throw new Error(`the build left no ${ADDON}`);
}

/**
 * The newest modification time of anything the addon is built from, in milliseconds. Folders count too: a file that was
 * removed leaves its mark there.
 */
async function newestSource() {
  const sources = path.join(root, "src");
  const below = await readdir(sources, { recursive: true });
  const all = [
    ...["Cargo.toml", "Cargo.lock", "build.rs"].map((name) => path.join(root, name)),
    sources,
    ...below.map((name) => path.join(sources, name)),
  ];
  const times = await Promise.all(all.map(modificationTime));
  return Math.max(...times.map((time) => time ?? 0));
}

/** @param {string} file */
async function modificationTime(file) {
  try {
    return (await stat(file)).mtimeMs;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Shows on a terminal for how many seconds something has been going on, until it ends.
 *
 * @template T
 * @param {Promise<T>} work
 */
async function counted(work) {
  if (!process.stderr.isTTY) return work;
  let seconds = 0;
  const timer = setInterval(() => process.stderr.write(`\r  ${(seconds += 1)} s`), 1000);
  try {
    return await work;
  } finally {
    clearInterval(timer);
    process.stderr.write("\r\u001b[K");
  }
}

/** @param {string} step */
function announce(step) {
  console.error(`\n> ${step}`);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(() => setUp({ addon: process.argv[2] !== "dependencies" }));
}
