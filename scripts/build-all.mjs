// Builds the addon's release binaries into npm/<platform>/, each with a stamp that says what it was built from.
//
//   node scripts/build-all.mjs                         every platform, on one x64 Debian machine
//   node scripts/build-all.mjs linux-x64-musl          only the platforms that are named
//   node scripts/build-all.mjs --rustup darwin-arm64   with the Rust that rustup installed here
//
// The first two need Node, cargo, apt and python3 with venv, and bring everything else themselves: see
// packaging/toolchain.mjs. The third is for a release's runners, each building for its own system; on Linux it needs
// python3 with venv too.

import { copyFile, readFile } from "node:fs/promises";
import path from "node:path";
import { must } from "./packaging/commands.mjs";
import {
  MINIMUM_GLIBC,
  MINIMUM_MACOS,
  RUST_TARGETS,
  binaryPath,
  fileName,
  platformsFrom,
} from "./packaging/platforms.mjs";
import { readSource } from "./packaging/source.mjs";
import { writeStamp } from "./packaging/stamps.mjs";
import {
  BUILD_DIR,
  STANDARD_LIBRARY,
  debianCompiler,
  pathRemapFlags,
  rustupCompiler,
  zigEnvironment,
} from "./packaging/toolchain.mjs";
import { runMain } from "./process.mjs";
import { requireRust } from "./setup.mjs";

await runMain(async () => {
  const args = process.argv.slice(2);
  const rustup = args.includes("--rustup");
  const platforms = platformsFrom(args.filter((arg) => arg !== "--rustup"));

  await requireRust();
  await must("cargo", ["fetch", "--locked"]);
  // On a Mac, Apple's linker is the one to use.
  const zig = process.platform === "linux" ? await zigEnvironment() : undefined;
  const compiler = await (rustup ? rustupCompiler() : debianCompiler());
  for (const platform of platforms) {
    const source = await readSource();
    const library = await build(platform, compiler, zig);
    const binary = binaryPath(platform);
    await copyFile(library, binary);
    await writeStamp(platform, await readFile(binary), source);
    console.log(`built ${binary}`);
  }
});

/**
 * Builds one platform's library and returns its path.
 *
 * @param {string} platform
 * @param {import("./packaging/toolchain.mjs").Compiler} compiler
 * @param {Record<string, string> | undefined} zig The environment for linking with Zig; `undefined` to link with the
 *   system's linker.
 */
async function build(platform, compiler, zig) {
  const target = RUST_TARGETS[platform];
  const targetDir = path.join(BUILD_DIR, compiler.name === "debian" ? "target" : `target-${compiler.name}`);
  const isMac = platform.startsWith("darwin-");
  const oldestGlibc = zig && platform.endsWith("-gnu") ? `.${MINIMUM_GLIBC}` : "";

  const flags = await pathRemapFlags(compiler.standardLibrary);
  // An addon uses the C library that Node brought into the process.
  if (platform.endsWith("-musl")) flags.push("-Ctarget-feature=-crt-static");
  // By default, the library's own name is the path that it was built at.
  if (isMac) flags.push(`-Clink-arg=-Wl,-install_name,@rpath/${fileName(platform)}`);
  // Without Apple's tools, only the linker can strip for macOS; Zig's knows this word for it.
  if (isMac && zig) flags.push("-Clink-arg=-Wl,-x");

  const options = ["--release", "--locked", "--lib", `--target=${target}${oldestGlibc}`];
  // The crate is an ordinary library too, and cargo leaves link-time optimisation out for those.
  options.push("--crate-type=cdylib", ...STANDARD_LIBRARY);
  await must(zig ? "cargo-zigbuild" : "cargo", ["rustc", ...options], {
    env: {
      ...zig,
      ...compiler.env,
      CARGO_TARGET_DIR: targetDir,
      // Unlike in RUSTFLAGS, a path may hold spaces.
      CARGO_ENCODED_RUSTFLAGS: flags.join("\x1f"),
      ...(isMac && { MACOSX_DEPLOYMENT_TARGET: MINIMUM_MACOS[platform] }),
      ...(isMac && zig && { CARGO_PROFILE_RELEASE_STRIP: "none" }),
    },
  });
  return path.join(targetDir, target, "release", `libsandbox_managed_runtime.${isMac ? "dylib" : "so"}`);
}
