// The newest release's own suites, run untouched: whatever of its modules imports the two that this package replaces gets
// this package, with what the release's surroundings pass to them; and their `it` leaves out what is listed in
// newest-left-out.mjs.

import { fileURLToPath } from "node:url";

const RELEASE = "node_modules/adapter-utils-2026.916.1/dist";

/** The release's test files, relative to the repository. */
export const NEWEST_SUITES = [
  "command-managed-runtime",
  "git-workspace-sync",
  "remote-managed-runtime",
  "sandbox-file-sync",
  "sandbox-managed-runtime",
  "workspace-restore-merge",
].map((name) => `${RELEASE}/${name}.test.js`);

const here = (/** @type {string} */ file) => fileURLToPath(new URL(file, import.meta.url));

/** The modules that take the place of the release's, by how much of it stays: nothing of the two, or all but the merge. */
const MODULES = {
  both: ["sandbox-managed-runtime", "workspace-restore-merge"],
  merge: ["workspace-restore-merge"],
};

/**
 * A vite plugin that leads the release's modules to their replacements.
 *
 * @param {keyof typeof MODULES} way
 * @returns {import("vite").Plugin}
 */
export function runNewestAgainstAddon(way) {
  const replacements = new Map(MODULES[way].map((name) => [`${name}.js`, here(`newest-${name}.mjs`)]));
  return {
    name: `run-newest-release-suites-against-addon-${way}`,
    enforce: "pre",
    resolveId(source, importer) {
      if (!importer?.includes(`/${RELEASE}/`)) return undefined;
      if (source === "vitest" && importer.endsWith(".test.js")) return here(`newest-vitest-${way}.mjs`);
      // Beside the suites, or one folder above the importer.
      return replacements.get(source.replace(/^\.\.?\//, ""));
    },
  };
}
