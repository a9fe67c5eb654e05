// Checks the release binaries in npm/<platform>/ as far as that is possible without running them, and the stamps beside
// them, which say what they were built from.
//
//   node scripts/check-binaries.mjs                    every platform
//   node scripts/check-binaries.mjs linux-x64-musl     only the platforms that are named
//
// The last line is the total, `N passed, N failed`, of platforms.

import { platformsFrom } from "./packaging/platforms.mjs";
import { checkBinaries } from "./packaging/release.mjs";
import { runMain } from "./process.mjs";

await runMain(async () => {
  const checked = await checkBinaries(platformsFrom(process.argv.slice(2)));
  for (const { platform, faults, facts } of checked) {
    console.log(`${faults.length > 0 ? "FAILED" : "ok    "}  ${platform.padEnd(16)} ${facts}`);
    for (const fault of faults) console.log(`        ${fault}`);
  }
  const failed = checked.filter(({ faults }) => faults.length > 0).length;
  console.log(`\n${checked.length - failed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
});
