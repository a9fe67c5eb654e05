// Brings a checkout to the point where it runs: JavaScript dependencies and the native addon, each only when it is
// missing or out of date. Every script calls this first, so that none needs an install before it.
//
//   node scripts/setup.mjs                  does that alone
//   node scripts/setup.mjs dependencies     without the addon

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { hostPlatform } from "../js/host.js";
import { fileName } from "../js/platform.js";
import { Explained, isAtLeast, root, run, runMain } from "./process.mjs";

const LOCKFILE = path.join(root, "package-lock.json");

/** The lockfile of the last install, so that another one is noticed. */
const INSTALLED = path.join(root, "node_modules", ".installed-lockfile");

/** The native addon for this platform, as the loader looks for it. */
const ADDON = path.join(root, fileName(hostPlatform()));

/**
 * Makes the checkout ready.
 *
 * @param {{ dependencies?: boolean, addon?: boolean }} [needs] What is needed; both by default. Building the addon
 *   needs the dependencies, using one that is built does not.
 */
export async function setUp({ dependencies = true, addon = true } = {}) {
  const build = addon && !isAddonCurrent();
  if (build) requireRust();
  if ((dependencies || build) && !hasContent(INSTALLED, fs.readFileSync(LOCKFILE, "utf8"))) {
    await installDependencies();
  }
  if (build) await buildAddon();
}

/** Throws where Rust is missing or older than Cargo.toml asks for. */
export function requireRust() {
  const manifest = fs.readFileSync(path.join(root, "Cargo.toml"), "utf8");
  const needed = /^rust-version = "(\d+\.\d+)"/m.exec(manifest)?.[1];
  if (!needed) throw new Error("Cargo.toml has no rust-version");
  const { stdout } = spawnSync("cargo", ["--version"], { cwd: root, encoding: "utf8" });
  const found = /^cargo (\d+\.\d+\.\d+)/.exec(stdout ?? "")?.[1];
  if (found && isAtLeast(found, needed)) return;
  throw new Explained(
    `Rust ${needed} or newer is needed to build the native addon, and ` +
      (found
        ? `this is Rust ${found}.\nRun \`rustup update stable\` and run the command again.`
        : "no cargo was found.\nInstall it with rustup (https://rustup.rs), open a new terminal and run this again."),
  );
}

/** Installs what the lockfile names. */
async function installDependencies() {
  console.error("\n> Installing JavaScript dependencies (the first time takes about half a minute)");
  // Some of the build tool's own dependencies, unused here, warn about Node 20: errors are all that matters.
  const { code } = await run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
  if (code !== 0) throw new Explained("`npm ci` failed; what it printed above says why.");
  fs.copyFileSync(LOCKFILE, INSTALLED);
}

/**
 * Makes a Python environment with the given packages below `.build/`, unless it is there already.
 *
 * @param {string} name
 * @param {string[]} packages
 * @returns {Promise<string>} The folder of its programs.
 */
export async function pythonEnvironment(name, packages) {
  const folder = path.join(root, ".build", name);
  const programs = path.join(folder, "bin");
  const mark = path.join(folder, "packages");
  if (hasContent(mark, packages.join(" "))) return programs;
  console.error(`\n> Installing ${packages.join(" and ")} into .build/${name}`);
  fs.rmSync(folder, { recursive: true, force: true });
  for (const [command, ...args] of [
    ["python3", "-m", "venv", folder],
    [path.join(programs, "pip"), "install", "--quiet", "--disable-pip-version-check", ...packages],
  ]) {
    const { code } = await run(command, args);
    if (code !== 0) throw new Explained(`This command failed: ${command} ${args.join(" ")}`);
  }
  fs.writeFileSync(mark, packages.join(" "));
  return programs;
}

/**
 * Whether this platform's addon is built and no source is newer. Folders count too: a file that was removed leaves its
 * mark there.
 */
function isAddonCurrent() {
  const below = fs.readdirSync(path.join(root, "src"), { recursive: true }).map((name) => `src/${name}`);
  const sources = ["Cargo.toml", "Cargo.lock", "build.rs", "src", ...below];
  return (
    modificationTime(ADDON) >= Math.max(...sources.map((name) => modificationTime(path.join(root, name))))
  );
}

async function buildAddon() {
  console.error("\n> Building the native addon (the first time takes about five minutes on two cores)");
  let seconds = 0;
  const count = () => process.stderr.isTTY && process.stderr.write(`\r  ${(seconds += 1)} s`);
  const timer = setInterval(count, 1000).unref();
  const { code, output } = await run("npm", ["run", "--silent", "build"], { keep: true, show: false });
  clearInterval(timer);
  if (seconds > 0) process.stderr.write("\r\u001b[K");
  if (code !== 0)
    throw new Explained(`The native addon did not build. What was printed:\n\n${output.trimEnd()}`);
  if (!fs.existsSync(ADDON)) throw new Error(`the build left no ${ADDON}`);
}

const hasContent = (/** @type {string} */ file, /** @type {string} */ content) =>
  fs.existsSync(file) && fs.readFileSync(file, "utf8") === content;

/**
 * When a file was last changed, in milliseconds; 0 where there is none.
 *
 * @param {string} file
 */
const modificationTime = (file) => fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(() => setUp({ addon: process.argv[2] !== "dependencies" }));
}
