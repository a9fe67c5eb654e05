// Runs the vitest suites against the release binaries in npm/<platform>/, on the Nodes that they are for.
//
//   node scripts/test-binaries.mjs                          everything that an x64 Debian machine can run
//   node scripts/test-binaries.mjs node20 linux-x64-musl    only the environments that are named
//   node scripts/test-binaries.mjs host                     this machine's own platform and Node
//   node scripts/test-binaries.mjs linux-arm64-gnu -- mirror    what follows `--` goes to vitest
//
// Every Node, emulator and library comes from public packages, into .build/. The last line is the total,
// `N passed, N failed`, of environments.

import { cp, rm } from "node:fs/promises";
import path from "node:path";
import { environmentsFrom, tryInEach, writeStarter } from "./packaging/nodes.mjs";
import { binaryPath, fileName } from "./packaging/platforms.mjs";
import { trackedFiles } from "./packaging/source.mjs";
import { BUILD_DIR } from "./packaging/toolchain.mjs";
import { root, run, runMain } from "./process.mjs";
import { installDependencies } from "./setup.mjs";

/**
 * Suites that do not test the addon but the project's own scripts and packages, and that start package managers and
 * compilers for it, which takes forever under emulation.
 */
const NOT_WHERE_SLOW = ["__test__/packaging/**", "__test__/scripts/**", "__test__/demo/**"];

await runMain(async () => {
  const args = process.argv.slice(2);
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const vitestArgs = args.slice(end + 1);
  await tryInEach(environmentsFrom(args.slice(0, end)), (name, environment) =>
    testIn(name, environment, vitestArgs),
  );
});

/**
 * @param {string} name
 * @param {import("./packaging/nodes.mjs").Environment} environment
 * @param {string[]} vitestArgs
 * @returns {Promise<boolean>} Whether every suite passed.
 */
async function testIn(name, environment, vitestArgs) {
  const folder = path.join(BUILD_DIR, "tested", name);
  await layOut(folder, environment.platform);
  const starter = await writeStarter(folder, environment);
  const excluded = environment.slow ? NOT_WHERE_SLOW.map((pattern) => `--exclude=${pattern}`) : [];
  const vitest = [path.join(folder, "node_modules/vitest/vitest.mjs"), "run", ...excluded, ...vitestArgs];
  const { code } = await run("sh", ["-c", 'cd "$0" && exec "$@"', folder, starter, ...vitest], {
    env: { PATH: [path.dirname(starter), process.env.PATH].join(path.delimiter) },
  });
  return code === 0;
}

/**
 * Lays the project out in a folder of its own, with the platform's release binary, and with those dependencies that have
 * binaries themselves for that platform.
 *
 * @param {string} folder
 * @param {string} platform
 */
async function layOut(folder, platform) {
  await rm(folder, { recursive: true, force: true });
  for (const file of await trackedFiles(root)) {
    await cp(path.join(root, file), path.join(folder, file));
  }
  await cp(binaryPath(platform), path.join(folder, fileName(platform)));
  const [os, cpu, libc] = platform.split("-");
  // Marked as installed, so that no script under test installs anew, for this machine, what it runs on.
  await installDependencies(folder, [
    `--os=${os}`,
    `--cpu=${cpu}`,
    ...(libc ? [`--libc=${libc === "gnu" ? "glibc" : libc}`] : []),
  ]);
}
