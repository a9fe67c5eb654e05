// The packages as they will be published, and package managers that see nothing else.

import { execFile } from "node:child_process";
import { cp, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import host from "../../js/host.js";
import { packMain, packPlatform } from "../../scripts/packaging/packages.mjs";
import { PLATFORMS, fileName } from "../../scripts/packaging/platforms.mjs";

export const root = path.join(import.meta.dirname, "..", "..");

/** The platform that the tests run on. */
export const hostPlatform = host.hostPlatform();

/** A file of a package that the project's own tools come from. */
export const tool = (file) => path.join(root, "node_modules", file);

/**
 * Packs the main package, and the host's with the addon that was built here. In the other platforms' packages, a
 * placeholder stands for the binary.
 *
 * @param {string} outDir
 */
export async function packEverything(outDir) {
  const placeholder = path.join(outDir, "placeholder.node");
  await writeFile(placeholder, "no library: this platform's addon was not built here");
  const main = await packMain(outDir);
  const platforms = new Map();
  for (const platform of PLATFORMS) {
    const binary = platform === hostPlatform ? path.join(root, fileName(platform)) : placeholder;
    platforms.set(platform, await packPlatform(platform, binary, outDir));
  }
  return { main, platforms, all: [main, ...platforms.values()] };
}

/**
 * Each package manager: its command, and its words for installing what package.json names, adding a package, and
 * leaving optional dependencies out. None keeps anything outside of the `home` it is given.
 */
export const MANAGERS = {
  pnpm: {
    command: [process.execPath, tool("pnpm/bin/pnpm.cjs")],
    install: ["install", "--no-frozen-lockfile"],
    add: ["add"],
    withoutOptional: ["--no-optional"],
    settings: (home) => [`--store-dir=${home}/store`, "--reporter=append-only"],
  },
  npm: {
    command: ["npm"],
    install: ["install"],
    add: ["install"],
    withoutOptional: ["--omit=optional"],
    settings: (home) => [`--cache=${home}/cache`, "--no-audit", "--no-fund", "--no-update-notifier"],
  },
  yarn: {
    command: [process.execPath, tool("yarn/bin/yarn.js")],
    install: ["install", "--non-interactive"],
    add: ["add", "--non-interactive"],
    withoutOptional: ["--ignore-optional"],
    settings: (home) => [`--cache-folder=${home}/cache`, "--no-default-rc"],
  },
};

/**
 * Runs a program. Where it fails, the error holds everything that it printed.
 *
 * @param {string[]} command
 * @param {{ cwd: string, env?: Record<string, string> }} options
 * @returns {Promise<string>} What it printed on standard output.
 */
export async function run([program, ...args], { cwd, env }) {
  const options = { cwd, env: { ...process.env, ...env }, maxBuffer: 64 * 1024 * 1024 };
  try {
    return (await promisify(execFile)(program, args, options)).stdout;
  } catch ({ code, stdout, stderr }) {
    throw new Error(`${[program, ...args].join(" ")} failed (${code})\n${stdout}\n${stderr}`);
  }
}

/**
 * Runs a package manager in a project, by the words of {@link MANAGERS}.
 *
 * @param {string} name
 * @param {string[]} words
 * @param {{ project: string, home: string, registry: string }} where `home`: for what the manager keeps.
 */
export async function manage(name, words, { project, home, registry }) {
  const { command, settings } = MANAGERS[name];
  return run([...command, ...words, `--registry=${registry}`, ...settings(home)], {
    cwd: project,
    env: {
      // The machine's own settings are for its own registry.
      npm_config_userconfig: path.join(home, "none"),
      HOME: home,
      XDG_CONFIG_HOME: home,
      XDG_CACHE_HOME: home,
      XDG_DATA_HOME: home,
      XDG_STATE_HOME: home,
      no_proxy: "127.0.0.1",
      NO_PROXY: "127.0.0.1",
      CI: "1",
    },
  });
}

/**
 * Lays out what the scripts that check, pack and publish read of the project, so that binaries and versions can be put
 * there that this one must not have.
 *
 * @param {string} folder
 */
export async function layOutProject(folder) {
  const { files } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8"));
  const others = ["package.json", "package-lock.json", "Cargo.toml", "Cargo.lock", ".gitignore", "scripts"];
  const documents = ["README.md", "LICENSE", "CHANGELOG.md"];
  for (const name of [...files, ...others, ...documents]) {
    await cp(path.join(root, name), path.join(folder, name), { recursive: true });
  }
  for (const platform of PLATFORMS) {
    for (const name of ["README.md", "package.json"].map((file) => path.join("npm", platform, file))) {
      await cp(path.join(root, name), path.join(folder, name));
    }
  }
}

/**
 * Makes a folder a git repository with one commit of all it holds.
 *
 * @param {string} folder
 */
export async function commitAll(folder) {
  const git = (...words) => run(["git", ...words], { cwd: folder });
  await git("init", "--quiet", "--initial-branch=main");
  await git("add", "--all");
  const author = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.invalid"];
  await git(...author, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message=everything");
}
