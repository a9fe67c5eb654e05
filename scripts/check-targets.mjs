// Compiles the addon for macOS on Linux without linking it, so that the code that only macOS has stays sound.
//
//   node scripts/check-targets.mjs                   both processors
//   node scripts/check-targets.mjs linux-arm64-musl  the platforms that are named, of any kind
//
// Needs a compiler as `compilerFor` in platforms.mjs finds it. The last line is the total, `N passed, N failed`.

import path from "node:path";
import { RUST_TARGETS, compilerFor, platformsFrom } from "./platforms.mjs";
import { root, run, runMain } from "./process.mjs";

await runMain(async () => {
  const named = process.argv.slice(2);
  const platforms = platformsFrom(named.length > 0 ? named : ["darwin-arm64", "darwin-x64"]);
  let failed = 0;
  for (const platform of platforms) {
    const target = RUST_TARGETS[platform];
    const { env, options } = await compilerFor(target);
    // Cargo checks the project, but compiles the standard library: no machine code is wanted of that.
    const noMachineCode = options.length > 0 ? " -Zno-codegen" : "";
    const { code } = await run("cargo", ["check", "--locked", `--target=${target}`, ...options], {
      env: {
        ...env,
        CARGO_TARGET_DIR: path.join(root, ".build", "target"),
        RUSTFLAGS: `-Dwarnings${noMachineCode}`,
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
