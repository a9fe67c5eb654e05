// Runs the newest release's own tests unchanged. Imports of the two modules that this package replaces lead to this package,
// with what the release's server passes to them, and `it` does not register the tests listed in newest-left-out.mjs.

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

/** The replacements of the release's modules: of both, or of the merge only. */
const MODULES = {
  both: ["sandbox-managed-runtime", "workspace-restore-merge"],
  merge: ["workspace-restore-merge"],
};

/**
 * A vite plugin that resolves the release's modules to their replacements.
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
