// Packs and publishes a version, with a signed statement of where it was built (npm provenance). Runs on the release's
// runner (.github/workflows/release.yml), for the tag of that version.
//
//   node scripts/publish.mjs v1.2.3               publish
//   node scripts/publish.mjs v1.2.3 --dry-run     everything but the publishing
//
// A version that is partly published already is completed: what the registry has is left out.

import { must } from "./packaging/commands.mjs";
import { PACKAGES_DIR, packMain, packPlatform, readManifest } from "./packaging/packages.mjs";
import { PLATFORMS, binaryPath, packageDir } from "./packaging/platforms.mjs";
import { Explained, root, run, runMain } from "./process.mjs";

await runMain(async () => {
  const [tag, ...options] = process.argv.slice(2);
  await requireVersion(tag);
  const packed = [];
  for (const platform of PLATFORMS)
    packed.push(await packPlatform(platform, binaryPath(platform), PACKAGES_DIR));
  // The main package asks for the others, so it comes last.
  packed.push(await packMain(PACKAGES_DIR));

  // A version such as 1.0.0-beta.1 must not be what people get who ask for none.
  const channel = tag.includes("-") ? "next" : "latest";
  for (const { manifest, tarball } of packed) {
    if (await isPublished(manifest)) {
      console.log(`${manifest.name}@${manifest.version} is published already`);
      continue;
    }
    await must("npm", [
      "publish",
      tarball,
      "--access=public",
      "--provenance",
      `--tag=${channel}`,
      ...options,
    ]);
  }
});

/**
 * Throws where a package has another version than the tag.
 *
 * @param {string | undefined} tag
 */
async function requireVersion(tag) {
  if (!tag) throw new Explained("Name the tag that is published, as in `node scripts/publish.mjs v1.2.3`.");
  for (const folder of [root, ...PLATFORMS.map(packageDir)]) {
    const { name, version } = await readManifest(folder);
    if (tag !== `v${version}`)
      throw new Explained(`The tag is ${tag}, and ${name} has the version ${version}.`);
  }
}

/** @param {{ name: string, version: string }} manifest */
async function isPublished({ name, version }) {
  const { code, output } = await run("npm", ["view", `${name}@${version}`, "version", "--json"], {
    keep: "both",
    show: false,
  });
  if (code === 0) return output.trim() !== "";
  if (output.includes("E404")) return false;
  throw new Explained(`The registry was asked for ${name}@${version}, and answered:\n${output}`);
}
