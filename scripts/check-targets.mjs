// Compiles the addon for macOS, on Linux, without linking it: so that the code that only macOS has cannot rot.
//
//   node scripts/check-targets.mjs                   both processors
//   node scripts/check-targets.mjs linux-arm64-musl  the platforms that are named, of any kind
//
// Needs what build-all.mjs needs. The last line is the total, `N passed, N failed`, of platforms.

import path from "node:path";
import { RUST_TARGETS, platformsFrom } from "./packaging/platforms.mjs";
import { BUILD_DIR, STANDARD_LIBRARY, debianCompiler } from "./packaging/toolchain.mjs";
import { run, runMain } from "./process.mjs";

await runMain(async () => {
  const named = process.argv.slice(2);
  const platforms = platformsFrom(named.length > 0 ? named : ["darwin-arm64", "darwin-x64"]);
  const { env } = await debianCompiler();
  let failed = 0;
  for (const platform of platforms) {
    const target = `--target=${RUST_TARGETS[platform]}`;
    const { code } = await run("cargo", ["check", "--locked", target, ...STANDARD_LIBRARY], {
      env: {
        ...env,
        CARGO_TARGET_DIR: path.join(BUILD_DIR, "target"),
        // Cargo checks the project's dependencies, but compiles the standard library: no machine code is wanted of it.
        RUSTFLAGS: "-Dwarnings -Zno-codegen",
        // Without this, much of the time would go into describing the standard library.
        CARGO_PROFILE_DEV_DEBUG: "0",
      },
    });
    if (code !== 0) failed += 1;
    console.log(`${code === 0 ? "ok    " : "FAILED"}  ${platform}`);
  }
  console.log(`\n${platforms.length - failed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
});
