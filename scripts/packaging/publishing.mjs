// What npm has of a release, and whether the rest may be published.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { Explained, run } from "../process.mjs";
import { must } from "./commands.mjs";
import { compareVersions } from "./versions.mjs";

/** The first npm that a registry takes for the workflow that runs it ("trusted publishing"). */
const OLDEST_NPM = "11.5.1";

/**
 * @typedef {object} Release One package of a release, as it was packed.
 * @property {string} name
 * @property {string} version
 * @property {string} integrity Of its tarball.
 *
 * @typedef {object} Published What npm has of a package.
 * @property {string} [latest] The version that people get who ask for none.
 * @property {string} [integrity] Of the tarball of the version in question; `undefined` where that is not there.
 */

/** Throws where npm is too old to publish from a workflow. */
export async function requireNpm() {
  const version = (await must("npm", ["--version"], { show: false })).trim();
  if (compareVersions(version, OLDEST_NPM) >= 0) return;
  throw new Explained(
    `npm ${OLDEST_NPM} or newer is needed to publish without a token, and this is npm ${version}.\n` +
      "Use a current Node 24, which brings one, or run `npm install --global npm@11`.",
  );
}

/**
 * Whether this runs in a workflow of GitHub's.
 *
 * @param {Record<string, string | undefined>} env
 */
export const inWorkflow = (env) => env.GITHUB_ACTIONS === "true";

/**
 * Tells of what is not as it will have to be; a workflow's page shows it on top.
 *
 * @param {string} warning
 * @param {Record<string, string | undefined>} env
 */
export function warn(warning, env) {
  // GitHub takes one line for a warning, and this for the end of one in it.
  console.log(inWorkflow(env) ? `::warning::${warning.replaceAll("\n", "%0A")}` : `Warning: ${warning}`);
}

/**
 * Throws where this is not the release's workflow: only there can npm find out who publishes, and from what.
 *
 * @param {Record<string, string | undefined>} env
 */
export function requireWorkflow(env) {
  if (!inWorkflow(env)) {
    throw new Explained(
      "A release is published by its workflow (.github/workflows/release.yml), which npm trusts, and not from here.\n" +
        "Push the tag, and it does the rest. To rehearse it here: node scripts/publish.mjs --dry-run\n" +
        "The very first release is made by hand; docs/releasing.md says how.",
    );
  }
  if (!env.ACTIONS_ID_TOKEN_REQUEST_URL) {
    throw new Explained(
      "This job cannot prove to npm which workflow it is. Give it `permissions: id-token: write`.",
    );
  }
}

/**
 * The tag under which npm offers a version.
 *
 * @param {string} version
 * @param {string | undefined} latest What people get now who ask for none.
 */
export function channelOf(version, latest) {
  // A version such as 1.0.0-beta.1 must not be what people get who ask for none.
  if (version.includes("-")) return "next";
  if (latest === undefined || compareVersions(version, latest.split("-")[0]) >= 0) return "latest";
  // Nor may a late mend of an old line, which would take them back.
  return `latest-${version.split(".").slice(0, 2).join(".")}`;
}

/**
 * What of a release is to be published, and what speaks against it. A release that stopped half-way is there in part.
 *
 * @param {{ release: Release, published: Published | undefined }[]} packages `published`: `undefined` where npm does not
 *   know the package.
 * @param {{ dryRun?: boolean }} [options] Packages that npm does not know end a release; a rehearsal before the very first
 *   one goes on without them.
 * @returns {{ left: string[], faults: string[], warnings: string[] }} `left`: the names of those that are not there.
 */
export function planPublishing(packages, { dryRun = false } = {}) {
  /** @type {string[]} */
  const left = [];
  /** @type {string[]} */
  const faults = [];
  /** @type {string[]} */
  const warnings = [];
  for (const { release, published } of packages) {
    const { name, version, integrity } = release;
    if (!published) {
      (dryRun ? warnings : faults).push(
        `npm has no package ${name}, and a workflow cannot create one.\n` +
          "  Create it by hand, once: docs/releasing.md says how.",
      );
    } else if (published.integrity !== undefined && published.integrity !== integrity) {
      faults.push(
        `${name}@${version} is published already, with other content: ${published.integrity} there, ${integrity} here.\n` +
          "  To complete a release that stopped half-way, run only its failed jobs again, which takes the binaries that\n" +
          "  the first run built. Where those are gone, release a new version.",
      );
    }
    if (published?.integrity === undefined) left.push(name);
  }
  return { left, faults, warnings };
}

/**
 * What npm calls the integrity of a tarball.
 *
 * @param {string} tarball Its path.
 */
export async function integrityOf(tarball) {
  const digest = createHash("sha512")
    .update(await readFile(tarball))
    .digest("base64");
  return `sha512-${digest}`;
}

/**
 * Asks the registry for a package.
 *
 * @param {string} name
 * @param {string} version
 * @returns {Promise<Published | undefined>} `undefined` where it does not know the package.
 */
export async function lookUp(name, version) {
  const tags = await view(name, "dist-tags");
  if (tags === undefined) return undefined;
  return { latest: tags.latest, integrity: await view(`${name}@${version}`, "dist.integrity") };
}

/**
 * A field of what the registry says; `undefined` where it does not know of it.
 *
 * @param {string} specifier
 * @param {string} field
 */
async function view(specifier, field) {
  const words = ["view", specifier, field, "--json", "--loglevel=error"];
  const { code, output, errors } = await run("npm", words, { keep: "apart", show: false });
  if (code === 0) return output.trim() === "" ? undefined : JSON.parse(output);
  // Which of the two it is told on differs between versions of npm.
  const answer = output + errors;
  if (answer.includes("E404")) return undefined;
  throw new Explained(`The registry was asked for ${specifier}, and answered:\n${answer}`);
}
