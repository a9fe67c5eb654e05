// Packs and publishes what `napi build` built: the main package, which is JavaScript alone, and one package for each
// platform with nothing but the addon in it. @napi-rs/cli makes the platforms' packages and names them in the main one.
//
//   npm run pack:local                              the main package and this platform's, to install from files
//   node scripts/pack.mjs --publish DIR             publishes all seven, from the six binaries in DIR
//   node scripts/pack.mjs --publish DIR --dry-run   a rehearsal, which publishes nothing

import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { hostPlatform } from "../js/host.js";
import { checkFile } from "./check-binary.mjs";
import { PACKAGE, PLATFORMS, fileName, packageName } from "./platforms.mjs";
import { Explained, root, runMain } from "./process.mjs";
import { setUp } from "./setup.mjs";

/**
 * Runs a program that must succeed in a directory, and returns what it printed.
 *
 * @param {string} cwd
 * @param {string} command
 * @param {string[]} args
 */
const must = (cwd, command, ...args) =>
  promisify(execFile)(command, args, { cwd, maxBuffer: 1 << 26 }).then(
    ({ stdout }) => stdout,
    // The message names the command, and has what it printed as errors.
    ({ message, stdout }) => Promise.reject(new Explained(`${message}\n${stdout}`)),
  );

/**
 * Runs @napi-rs/cli in a directory.
 *
 * @param {string} directory
 * @param {string[]} words
 */
const napi = (directory, ...words) =>
  must(directory, process.execPath, path.join(root, "node_modules/@napi-rs/cli/dist/cli.js"), ...words);

/**
 * Lays out all packages in an empty directory: the main one there, each platform's in `npm/<platform>/`.
 *
 * @param {string} directory
 * @param {Record<string, string>} binaries The file of each platform's addon.
 * @param {{ publish?: boolean }} [options] `publish`: also publish the platforms' packages.
 */
export async function stage(directory, binaries, { publish = false } = {}) {
  const { files } = await readManifest(root);
  for (const name of ["package.json", "README.md", "LICENSE", ...files]) {
    await cp(path.join(root, name), path.join(directory, name), { recursive: true });
  }
  await napi(directory, "create-npm-dirs");
  for (const platform of PLATFORMS) {
    const folder = path.join(directory, "npm", platform);
    await cp(path.join(root, "LICENSE"), path.join(folder, "LICENSE"));
    await cp(binaries[platform], path.join(folder, fileName(platform)));
    await writeManifest(folder, { ...(await readManifest(folder)), type: "commonjs" });
  }
  if (publish) await napi(directory, "pre-publish", "--tag-style=npm", "--no-gh-release");
  // What is for those who work on the project stays behind.
  const { scripts, devDependencies, napi: settings, ...manifest } = await readManifest(directory);
  // As pre-publish writes them.
  const platforms = PLATFORMS.map((name) => [packageName(name), manifest.version]);
  await writeManifest(directory, { ...manifest, optionalDependencies: Object.fromEntries(platforms) });
}

/**
 * Packs the packages in directories.
 *
 * @param {string[]} directories
 * @param {string} outDir Where the tarballs are put.
 * @returns {Promise<{ manifest: any, tarball: string, files: string[] }[]>} `files`: what is in each, sorted.
 */
export async function pack(directories, outDir) {
  const options = ["--json", "--loglevel=error", "--ignore-scripts", `--pack-destination=${outDir}`];
  /** @type {{ filename: string, files: { path: string }[] }[]} */
  const packed = JSON.parse(await must(root, "npm", "pack", ...directories, ...options));
  const manifests = await Promise.all(directories.map(readManifest));
  return packed.map(({ filename, files }, index) => ({
    manifest: manifests[index],
    tarball: path.join(outDir, filename),
    files: files.map((file) => file.path).sort(),
  }));
}

const manifestOf = (/** @type {string} */ directory) => path.join(directory, "package.json");

const readManifest = async (/** @type {string} */ directory) =>
  JSON.parse(await readFile(manifestOf(directory), "utf8"));

const writeManifest = (/** @type {string} */ directory, /** @type {object} */ manifest) =>
  writeFile(manifestOf(directory), `${JSON.stringify(manifest, null, 2)}\n`);

/**
 * Packs the main package and this platform's so that both install from files alone: the main one asks for the other as
 * a peer, and not for packages that no registry has yet.
 *
 * @param {string} outDir
 * @param {string} addon The file of this platform's addon.
 */
export async function packLocal(outDir, addon) {
  const host = hostPlatform();
  const directory = await mkdtemp(path.join(tmpdir(), "pack-"));
  try {
    await stage(directory, Object.fromEntries(PLATFORMS.map((platform) => [platform, addon])));
    const { optionalDependencies, ...manifest } = await readManifest(directory);
    manifest.peerDependencies[packageName(host)] = manifest.version;
    await writeManifest(directory, manifest);
    return await pack([directory, path.join(directory, "npm", host)], outDir);
  } finally {
    await rm(directory, { recursive: true });
  }
}

/**
 * @param {string} from The directory of the binaries.
 * @param {boolean} dryRun
 */
async function publishAll(from, dryRun) {
  const binaries = Object.fromEntries(
    PLATFORMS.map((name) => [name, path.join(path.resolve(from), fileName(name))]),
  );
  for (const file of Object.values(binaries)) {
    if (!(await checkFile(file))) throw new Explained("Nothing was published: a binary is not fit for it.");
  }
  const directory = await mkdtemp(path.join(await realpath(tmpdir()), "publish-"));
  try {
    await stage(directory, binaries, { publish: !dryRun });
    const rehearsed = dryRun ? PLATFORMS.map((name) => path.join(directory, "npm", name)) : [];
    for (const folder of [...rehearsed, directory]) {
      console.log(await must(folder, "npm", "publish", "--ignore-scripts", ...(dryRun ? ["--dry-run"] : [])));
    }
  } finally {
    await rm(directory, { recursive: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    const args = process.argv.slice(2);
    await setUp({ addon: args[0] !== "--publish" });
    if (args[0] === "--publish" && args.length > 1) return publishAll(args[1], args.includes("--dry-run"));
    if (args.length > 0) throw new Explained("See the first lines of scripts/pack.mjs for what it takes.");
    const outDir = path.join(root, ".build", "packages");
    await rm(outDir, { recursive: true, force: true });
    await mkdir(outDir, { recursive: true });
    const packed = await packLocal(outDir, path.join(root, fileName(hostPlatform())));
    const tarballs = packed.map(({ tarball }) => JSON.stringify(tarball)).join(" ");
    console.log(`Packed ${PACKAGE} ${packed[0].manifest.version}. To install it, in any project:\n`);
    console.log(["pnpm add", "npm install", "yarn add"].map((words) => `  ${words} ${tarballs}\n`).join(""));
  });
}
