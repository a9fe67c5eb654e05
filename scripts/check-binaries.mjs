// Checks the release binaries in npm/<platform>/ as far as that is possible without running them.
//
//   node scripts/check-binaries.mjs                    every platform
//   node scripts/check-binaries.mjs linux-x64-musl     only the platforms that are named
//
// The last line is the total, `N passed, N failed`, of platforms.

import { readFile } from "node:fs/promises";
import { inspectBinary } from "./packaging/inspect.mjs";
import { binaryPath, platformsFrom } from "./packaging/platforms.mjs";
import { runMain } from "./process.mjs";

await runMain(async () => {
  const platforms = platformsFrom(process.argv.slice(2));
  let failed = 0;
  for (const platform of platforms) {
    const { faults, facts } = inspectBinary(platform, await readFile(binaryPath(platform)));
    if (faults.length > 0) failed += 1;
    console.log(`${faults.length > 0 ? "FAILED" : "ok    "}  ${platform.padEnd(16)} ${facts}`);
    for (const fault of faults) console.log(`        ${fault}`);
  }
  console.log(`\n${platforms.length - failed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
});
