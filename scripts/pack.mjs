// Packs everything that is published into .build/packages/: the main package, and a package for each platform with the
// binary that stands in npm/<platform>/ (see build-all.mjs). Packs nothing where a version or a binary is not what it
// must be (see check-binaries.mjs).
//
//   node scripts/pack.mjs                     the main package and every platform
//   node scripts/pack.mjs linux-x64-gnu       the main package and the platforms that are named

import { platformsFrom } from "./packaging/platforms.mjs";
import { packRelease } from "./packaging/release.mjs";
import { runMain } from "./process.mjs";

await runMain(async () => {
  for (const { tarball } of await packRelease(platformsFrom(process.argv.slice(2)))) console.log(tarball);
});
