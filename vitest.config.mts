import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { NEWEST_SUITES, runNewestAgainstAddon } from "./__test__/release/newest.mjs";
import { RELEASE_SUITES, runAgainstAddon } from "./__test__/release/plugin.mjs";
import { LONGEST_SUITES } from "./__test__/longest.mjs";

/** Round trips run real shells and real tars, on machines with two busy cores. */
const patient = { testTimeout: 150_000, hookTimeout: 150_000 };

// What is kept between calls lies in a directory of its own while the suites run.
const kept = mkdtempSync(path.join(tmpdir(), "kept-by-tests-"));
process.env.PAPERCLIP_HOME = kept;
process.on("exit", () => rmSync(kept, { recursive: true, force: true }));

/** Starts the longest files first, so that none of them is left alone with one core at the end. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]) {
    const place = ({ moduleId }: TestSpecification) => {
      const found = LONGEST_SUITES.findIndex((name) => moduleId.endsWith(`/__test__/${name}.test.mjs`));
      return found === -1 ? LONGEST_SUITES.length : found;
    };
    return (await super.sort(files)).sort((one, other) => place(one) - place(other));
  }
}

/** By default, what is below node_modules is neither looked at nor transformed. */
const inNodeModules = {
  exclude: [],
  server: { deps: { inline: [/adapter-utils[^/]*\/dist/] } },
  pool: "forks" as const,
};

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    // Vitest would leave one core alone; suites spend much of their time waiting for processes, and for locks to be given up.
    maxWorkers: availableParallelism() + 1,
    projects: [
      {
        test: {
          ...patient,
          name: "own",
          include: ["__test__/**/*.test.{mjs,ts}"],
          // A process per file: suites change the working directory and drop privileges.
          pool: "forks",
        },
      },
      {
        plugins: [runAgainstAddon()],
        test: { ...patient, ...inNodeModules, name: "release", include: RELEASE_SUITES },
      },
      {
        plugins: [runNewestAgainstAddon("both")],
        test: { ...patient, ...inNodeModules, name: "release-newest", include: NEWEST_SUITES },
      },
      {
        // The release's own conductor over this package's merge.
        plugins: [runNewestAgainstAddon("merge")],
        test: { ...patient, ...inNodeModules, name: "release-newest-merge", include: NEWEST_SUITES },
      },
    ],
  },
});
