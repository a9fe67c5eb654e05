// The packages as they will be published, and package managers that see nothing else.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdir, readFile, readdir, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { promisify } from "node:util";
import host from "../../js/host.js";
import { pack, stage } from "../../scripts/pack.mjs";
import { PLATFORMS, fileName } from "../../scripts/platforms.mjs";

export const root = path.join(import.meta.dirname, "..", "..");

/** The platform that the tests run on. */
export const hostPlatform = host.hostPlatform();

/** The addon that was built for it. */
export const builtAddon = path.join(root, fileName(hostPlatform));

/** A file of a package that the project's own tools come from. */
export const tool = (file) => path.join(root, "node_modules", file);

/** Packs all packages: the host's with the addon that was built here, the others with a placeholder for it. */
export async function packEverything(outDir) {
  const directory = path.join(outDir, "staged");
  await mkdir(directory);
  const placeholder = path.join(outDir, "placeholder.node");
  await writeFile(placeholder, "no library: this platform's addon was not built here");
  const binaryOf = (platform) => (platform === hostPlatform ? builtAddon : placeholder);
  await stage(directory, Object.fromEntries(PLATFORMS.map((name) => [name, binaryOf(name)])));
  const directories = PLATFORMS.map((name) => path.join(directory, "npm", name));
  const [main, ...others] = await pack([directory, ...directories], outDir);
  return {
    main,
    platforms: new Map(PLATFORMS.map((name, at) => [name, others[at]])),
    all: [main, ...others],
  };
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

/** Runs a program and returns its standard output. Where it fails, the error holds everything that it printed. */
export async function run([program, ...args], { cwd, env }) {
  const options = { cwd, env: { ...process.env, ...env }, maxBuffer: 64 * 1024 * 1024 };
  try {
    return (await promisify(execFile)(program, args, options)).stdout;
  } catch ({ code, stdout, stderr }) {
    throw new Error(`${[program, ...args].join(" ")} failed (${code})\n${stdout}\n${stderr}`);
  }
}

/** Runs a package manager in a project, without the machine's own settings; `home` is for what it keeps. */
export async function manage(name, words, { project, home, registry, env }) {
  const { command, settings } = MANAGERS[name];
  const directories = ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"];
  return run([...command, ...words, `--registry=${registry}`, ...settings(home)], {
    cwd: project,
    env: {
      ...Object.fromEntries(directories.map((variable) => [variable, home])),
      npm_config_userconfig: path.join(home, "none"),
      no_proxy: "127.0.0.1",
      NO_PROXY: "127.0.0.1",
      CI: "1",
      ...env,
    },
  });
}

/** Where the system's programs are. */
export const PLACES = ["/usr/bin", "/bin"];

/** Makes a directory with links to all programs of the system but Rust's, for a PATH on which none is found. */
export async function linkProgramsWithoutRust(directory) {
  await mkdir(directory);
  const linked = new Set();
  for (const place of PLACES) {
    for (const name of await readdir(place)) {
      if (/^(cargo|rust|clippy|rls)/.test(name) || linked.has(name)) continue;
      linked.add(name);
      await symlink(path.join(place, name), path.join(directory, name));
    }
  }
}

/** A registry on loopback with the given packages. `unknown`: what was asked for and is not there. */
export async function startRegistry(packages) {
  const unknown = new Set();
  const tarballs = new Map(packages.map(({ tarball }) => [`/${path.basename(tarball)}`, tarball]));
  const byName = new Map(packages.map((packed) => [`/${packed.manifest.name}`, packed]));
  const server = createServer(async (request, response) => {
    const base = `http://${request.headers.host}/`;
    const name = decodeURIComponent(new URL(request.url, base).pathname);
    if (tarballs.has(name)) return response.end(await readFile(tarballs.get(name)));
    if (byName.has(name)) return response.end(JSON.stringify(await describe(byName.get(name), base)));
    unknown.add(name);
    response.writeHead(404).end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const close = async () => {
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  };
  return { url: `http://127.0.0.1:${server.address().port}/`, unknown, close };
}

/** What a registry says of a package. */
async function describe({ manifest, tarball }, base) {
  const digest = createHash("sha512")
    .update(await readFile(tarball))
    .digest("base64");
  const dist = { tarball: new URL(path.basename(tarball), base).href, integrity: `sha512-${digest}` };
  const { name, version } = manifest;
  return { name, "dist-tags": { latest: version }, versions: { [version]: { ...manifest, dist } } };
}
