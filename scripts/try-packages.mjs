// Installs the packages as a user's pnpm will, and takes a workspace through a round trip with what was installed: in a
// folder that has nothing else, on a path without Rust, from the release binaries in npm/<platform>/.
//
//   node scripts/try-packages.mjs                    everything that an x64 Debian machine can run
//   node scripts/try-packages.mjs linux-arm64-gnu    only the environments that are named: see test-binaries.mjs
//
// A registry on loopback has all seven packages, so that all six binaries must be there. The last line is the total,
// `N passed, N failed`, of environments.

import { cp, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { environmentsFrom, tryInEach, writeStarter } from "./packaging/nodes.mjs";
import { PACKAGE, PLATFORMS, fileName } from "./packaging/platforms.mjs";
import { startRegistry } from "./packaging/registry.mjs";
import { packRelease } from "./packaging/release.mjs";
import { linkProgramsWithoutRust } from "./packaging/without-rust.mjs";
import { root, run, runMain } from "./process.mjs";
import { setUp } from "./setup.mjs";

await runMain(async () => {
  const environments = environmentsFrom(process.argv.slice(2));
  // The pnpm that installs is one of the project's own dependencies.
  await setUp({ addon: false });
  const registry = await startRegistry(await packRelease(PLATFORMS));
  try {
    await tryInEach(environments, (_, environment) => roundTripIn(environment, registry.url));
  } finally {
    await registry.close();
  }
});

/**
 * @param {import("./packaging/nodes.mjs").Environment} environment
 * @param {string} registry Its URL.
 * @returns {Promise<boolean>} Whether that platform's binary alone was installed, and the round trip printed what it
 *   promises.
 */
async function roundTripIn(environment, registry) {
  const project = await mkdtemp(path.join(os.tmpdir(), "installed-"));
  try {
    const starter = await writeStarter(project, environment);
    const programs = path.join(project, ".programs");
    await linkProgramsWithoutRust(programs);
    await writeFile(path.join(project, "package.json"), JSON.stringify({ name: "project", private: true }));
    await cp(path.join(root, "examples", "round-trip.mjs"), path.join(project, "round-trip.mjs"));

    const pnpm = path.join(root, "node_modules", "pnpm", "bin", "pnpm.cjs");
    const home = path.join(project, ".home");
    const env = {
      PATH: [path.dirname(starter), programs].join(path.delimiter),
      HOME: home,
      npm_config_userconfig: path.join(home, "none"),
      no_proxy: "127.0.0.1",
      NO_PROXY: "127.0.0.1",
      CI: "1",
    };
    /** @param {string[]} words */
    const inProject = (...words) =>
      run("sh", ["-c", 'cd "$0" && exec "$@"', project, starter, ...words], { keep: "both", env });

    const settings = [`--registry=${registry}`, `--store-dir=${home}/store`, "--reporter=append-only"];
    const installed = await inProject(pnpm, "add", PACKAGE, ...settings);
    if (installed.code !== 0) return false;
    const files = await readdir(path.join(project, "node_modules"), { recursive: true, withFileTypes: true });
    const binaries = files.filter((file) => file.isFile() && file.name.endsWith(".node"));
    const names = binaries.map(({ name }) => name);
    console.log(`installed: ${names.join(", ")}`);
    if (names.join() !== fileName(environment.platform)) return false;

    const { code, output } = await inProject(path.join(project, "round-trip.mjs"));
    return code === 0 && output.includes("from the sandbox: notes.txt") && output.includes("milk\nbread\n");
  } finally {
    await rm(project, { recursive: true, force: true });
  }
}
