// Runs the npm release's own tests unchanged. Imports of the two modules that this package replaces lead to this package, and
// `it` does not register the tests listed in left-out.mjs.

import { fileURLToPath } from "node:url";

const RELEASE = "node_modules/@paperclipai/adapter-utils/dist";

/** The release's test files, relative to the repository. */
export const RELEASE_SUITES = [
  `${RELEASE}/sandbox-managed-runtime.test.js`,
  `${RELEASE}/workspace-restore-merge.test.js`,
];

const here = (/** @type {string} */ file) => fileURLToPath(new URL(file, import.meta.url));

/** The replacements of what the tests import. */
const REPLACEMENTS = new Map([
  ["./sandbox-managed-runtime.js", here("addon.mjs")],
  ["./workspace-restore-merge.js", here("addon.mjs")],
  ["vitest", here("vitest.mjs")],
]);

/**
 * A vite plugin that resolves imports of the release's tests to their replacements.
 *
 * @returns {import("vite").Plugin}
 */
export function runAgainstAddon() {
  return {
    name: "run-release-suites-against-addon",
    enforce: "pre",
    resolveId(source, importer) {
      const isSuite = RELEASE_SUITES.some((suite) => importer?.endsWith(`/${suite}`));
      return isSuite ? REPLACEMENTS.get(source) : undefined;
    },
  };
}
