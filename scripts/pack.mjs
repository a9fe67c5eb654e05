// Packs everything that is published into .build/packages/: the main package, and a package for each platform with the
// binary that stands in npm/<platform>/ (see build-all.mjs).
//
//   node scripts/pack.mjs                     the main package and every platform
//   node scripts/pack.mjs linux-x64-gnu       the main package and the platforms that are named

import { rm } from "node:fs/promises";
import { PACKAGES_DIR, packMain, packPlatform } from "./packaging/packages.mjs";
import { binaryPath, platformsFrom } from "./packaging/platforms.mjs";
import { runMain } from "./process.mjs";

await runMain(async () => {
  const platforms = platformsFrom(process.argv.slice(2));
  await rm(PACKAGES_DIR, { recursive: true, force: true });
  for (const platform of platforms) {
    console.log((await packPlatform(platform, binaryPath(platform), PACKAGES_DIR)).tarball);
  }
  console.log((await packMain(PACKAGES_DIR)).tarball);
});
