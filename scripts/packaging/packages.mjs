// Makes the packages as they are published.

import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { root } from "../process.mjs";
import { must } from "./commands.mjs";
import { PLATFORMS, fileName, packageDir, packageName } from "./platforms.mjs";
import { BUILD_DIR } from "./toolchain.mjs";

/** Where the packages are put that are to be published. */
export const PACKAGES_DIR = path.join(BUILD_DIR, "packages");

/**
 * @typedef {Record<string, unknown> & { name: string, version: string }} Manifest A package.json.
 *
 * @typedef {object} Packed
 * @property {Manifest} manifest
 * @property {string} tarball Its path.
 * @property {string[]} files What is in it, sorted.
 */

/** What the project's own package.json has for those who work on it. */
const DEVELOPMENT_FIELDS = ["private", "scripts", "devDependencies", "napi"];

/**
 * The main package's manifest as it is published: without what only development needs (so there is no script that an
 * install could run), and with the platforms' packages, which the project itself could not install before they are
 * published.
 *
 * @returns {Promise<Manifest>}
 */
export async function publishedManifest() {
  const manifest = await readManifest(root);
  for (const field of DEVELOPMENT_FIELDS) delete manifest[field];
  const platformPackages = PLATFORMS.map((platform) => [packageName(platform), manifest.version]);
  return { ...manifest, optionalDependencies: Object.fromEntries(platformPackages) };
}

/**
 * Packs the main package.
 *
 * @param {string} outDir Where the tarball is put.
 * @returns {Promise<Packed>}
 */
export async function packMain(outDir) {
  const manifest = await publishedManifest();
  const content = ["README.md", "LICENSE", .../** @type {string[]} */ (manifest.files)];
  return pack(
    manifest,
    content.map((name) => [path.join(root, name), name]),
    outDir,
  );
}

/**
 * Packs a platform's package.
 *
 * @param {string} platform
 * @param {string} binary The addon's path.
 * @param {string} outDir Where the tarball is put.
 * @returns {Promise<Packed>}
 */
export async function packPlatform(platform, binary, outDir) {
  const folder = packageDir(platform);
  const content = [
    [path.join(folder, "README.md"), "README.md"],
    [path.join(root, "LICENSE"), "LICENSE"],
    [binary, fileName(platform)],
  ];
  return pack(await readManifest(folder), content, outDir);
}

/**
 * @param {string} folder
 * @returns {Promise<Manifest>}
 */
export async function readManifest(folder) {
  return JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
}

/**
 * Packs a folder that holds the manifest and the content.
 *
 * @param {Manifest} manifest
 * @param {string[][]} content Pairs: what to copy, and its name in the package.
 * @param {string} outDir
 * @returns {Promise<Packed>}
 */
async function pack(manifest, content, outDir) {
  await mkdir(outDir, { recursive: true });
  const folder = await mkdtemp(path.join(tmpdir(), "pack-"));
  try {
    await writeFile(path.join(folder, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
    for (const [from, name] of content) await cp(from, path.join(folder, name), { recursive: true });
    const output = await must(
      "npm",
      ["pack", folder, "--json", "--loglevel=error", `--pack-destination=${outDir}`],
      { show: false },
    );
    /** @type {[{ filename: string, files: { path: string }[] }]} */
    const [{ filename, files }] = JSON.parse(output);
    return {
      manifest,
      tarball: path.join(outDir, filename),
      files: files.map((file) => file.path).sort(),
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}
