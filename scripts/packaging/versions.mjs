// The version of a release, and every file that names it.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { Explained, root } from "../process.mjs";
import { PACKAGE, PLATFORMS, packageName } from "./platforms.mjs";

/** The crate's name. */
const CRATE = "sandbox-managed-runtime";

/** The files that name the version, below the project. */
const FILES = [
  "package.json",
  "package-lock.json",
  ...PLATFORMS.map((platform) => `npm/${platform}/package.json`),
  "Cargo.toml",
  "Cargo.lock",
  "js/version.js",
  "CHANGELOG.md",
];

/**
 * Compares two versions by their numbers.
 *
 * @param {string} a
 * @param {string} b
 */
export function compareVersions(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

/**
 * Those files' contents.
 *
 * @returns {Promise<Record<string, string>>}
 */
export async function readVersionFiles() {
  const contents = FILES.map(async (file) => [file, await readFile(path.join(root, file), "utf8")]);
  return Object.fromEntries(await Promise.all(contents));
}

/**
 * The version that is to be released, and what stands in its way.
 *
 * @param {Record<string, string>} files Contents, by the names of {@link FILES}.
 * @returns {{ version: string, faults: string[], date: string | undefined }} `faults`: where another version is named, or
 *   none. `date`: what the changelog has beside the version, where it is a date.
 */
export function checkVersions(files) {
  const version = JSON.parse(files["package.json"]).version;
  /** @type {string[]} */
  const faults = [];
  const expect = (/** @type {string} */ place, /** @type {string | undefined} */ found) => {
    if (found !== version) faults.push(`${place} has ${found ?? "no version"}`);
  };

  for (const platform of PLATFORMS) {
    const file = `npm/${platform}/package.json`;
    expect(file, JSON.parse(files[file]).version);
  }
  const lock = JSON.parse(files["package-lock.json"]);
  const lockedProject = lock.packages[""];
  expect("package-lock.json", lock.version);
  expect('package-lock.json (packages, "")', lockedProject.version);
  // The project itself does not ask for the platforms' packages; only the main package does, as it is packed.
  for (const name of PLATFORMS.map(packageName)) {
    const locked = lockedProject.optionalDependencies?.[name];
    if (locked !== undefined) expect(`package-lock.json (optionalDependencies, "${name}")`, locked);
  }
  expect("js/version.js", /^module\.exports\.version = "(.*)"/m.exec(files["js/version.js"])?.[1]);
  expect("Cargo.toml", /^version = "(.*)"/m.exec(files["Cargo.toml"])?.[1]);
  expect(
    "Cargo.lock",
    new RegExp(`^name = "${CRATE}"\nversion = "(.*)"`, "m").exec(files["Cargo.lock"])?.[1],
  );

  const sections = [...files["CHANGELOG.md"].matchAll(/^## \[(.*?)\](?: - (.*))?$/gm)];
  const section = sections.find(([, name]) => name === version);
  if (!section) faults.push(`CHANGELOG.md has no section "## [${version}]"`);
  const date = section && /^\d{4}-\d{2}-\d{2}$/.test(section[2] ?? "") ? section[2] : undefined;
  return { version, faults, date };
}

/**
 * Throws where the files do not name one and the same version; a tag asks for that one, with its date.
 *
 * @param {string} [tag]
 * @returns {Promise<string>} The version.
 */
export async function requireVersion(tag) {
  const { version, faults, date } = checkVersions(await readVersionFiles());
  if (faults.length > 0) {
    throw new Explained(
      `package.json has the version ${version} of ${PACKAGE}, and not every file has it:\n` +
        `${faults.map((fault) => `  ${fault}`).join("\n")}\n` +
        "Give all of them the same one: docs/releasing.md says how.",
    );
  }
  if (tag === undefined) return version;
  if (tag !== `v${version}`) {
    throw new Explained(
      `The tag is ${tag}, and the version is ${version}.\n` +
        `Tag the commit that has the version of the tag, or name the tag v${version}.`,
    );
  }
  if (!date) {
    throw new Explained(
      `CHANGELOG.md has no date beside ${version}.\n` +
        `Its section begins with "## [${version}] - " and the day of the release, as in 2026-01-31.`,
    );
  }
  return version;
}
