// Builds the addon's release binaries into .build/binaries/ and checks each. A release builds on a runner of each kind
// (.github/workflows/binaries.yml); on a Debian x64 machine, all six can be built for a check before a tag.
//
//   node scripts/build-all.mjs                         every platform, linked by Zig
//   node scripts/build-all.mjs linux-x64-musl          only the platforms that are named
//   node scripts/build-all.mjs --native darwin-arm64   with the linker of this system, as a release's runners do
//
// Without --native it needs python3 with venv (for Zig, from PyPI) and a compiler as `compilerFor` finds it. Everything
// goes into .build/. The last line is the total, `N passed, N failed`, of platforms.

import { readdir } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { checkFile } from "./check-binary.mjs";
import { MINIMUM_GLIBC, RUST_TARGETS, compilerFor, fileName, platformsFrom } from "./platforms.mjs";
import { Explained, root, run, runMain } from "./process.mjs";
import { pythonEnvironment, requireRust, setUp } from "./setup.mjs";

const BUILD = path.join(root, ".build");
const BINARIES = path.join(BUILD, "binaries");

/** Tried together, so they are updated together. */
const ZIG_PACKAGES = ["ziglang==0.17.1", "cargo-zigbuild==0.24.1"];

/**
 * The oldest macOS that a binary loads on: the one that Node 20 asks for on that processor.
 *
 * @type {Record<string, string>}
 */
const MINIMUM_MACOS = { "darwin-arm64": "11.0", "darwin-x64": "10.15" };

await runMain(async () => {
  const args = process.argv.slice(2);
  const native = args.includes("--native");
  const platforms = platformsFrom(args.filter((arg) => arg !== "--native"));
  await setUp({ addon: false });
  requireRust();
  const { code } = await run("cargo", ["fetch", "--locked"]);
  if (code !== 0) throw new Explained("`cargo fetch` failed; what it printed above says why.");

  let failed = 0;
  for (const platform of platforms) {
    const isBuilt = await build(platform, native);
    const file = path.join(BINARIES, fileName(platform));
    if (!isBuilt || !(await checkFile(file))) failed += 1;
  }
  console.log(`\n${platforms.length - failed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
});

/**
 * Builds one platform's binary; whether that succeeded.
 *
 * @param {string} platform
 * @param {boolean} native
 */
async function build(platform, native) {
  const target = RUST_TARGETS[platform];
  const isGnu = platform.endsWith("-gnu");
  const isMac = platform.startsWith("darwin-");
  const compiler = native ? { env: {}, options: [] } : compilerFor(target);

  const flags = await pathRemapFlags();
  // An addon uses the C library that Node brought into the process.
  if (platform.endsWith("-musl")) flags.push("-Ctarget-feature=-crt-static");
  // By default, the library's own name is the path that it was built at.
  if (isMac) flags.push(`-Clink-arg=-Wl,-install_name,@rpath/${fileName(platform)}`);
  // Without Apple's tools only the linker can strip for macOS, and Zig's knows this option for it.
  if (isMac && !native) flags.push("-Clink-arg=-Wl,-x");

  const words = ["build", "--package=sandbox-managed-runtime", "--platform", "--release", "--no-js"];
  words.push(`--output-dir=${BINARIES}`, `--dts=${path.join(BUILD, "native.d.ts")}`);
  words.push(`--target=${target}${isGnu && !native ? `.${MINIMUM_GLIBC}` : ""}`);
  if (!native) words.push("--cross-compile");
  if (native && isGnu) words.push("--use-napi-cross");
  const napi = path.join(root, "node_modules/@napi-rs/cli/dist/cli.js");
  const { code } = await run(process.execPath, [napi, ...words, "--", "--locked", ...compiler.options], {
    env: {
      ...compiler.env,
      ...(!native && (await zigEnvironment())),
      CARGO_TARGET_DIR: path.join(BUILD, "target"),
      // Unlike in RUSTFLAGS, a path may hold spaces.
      CARGO_ENCODED_RUSTFLAGS: flags.join("\x1f"),
      ...(isMac && { MACOSX_DEPLOYMENT_TARGET: MINIMUM_MACOS[platform] }),
      ...(isMac && !native && { CARGO_PROFILE_RELEASE_STRIP: "none" }),
    },
  });
  return code === 0;
}

/** Brings Zig and cargo-zigbuild, and returns the environment in which cargo finds them. */
async function zigEnvironment() {
  return {
    PATH: [await pythonEnvironment("zig", ZIG_PACKAGES), process.env.PATH].join(path.delimiter),
    ZIG_GLOBAL_CACHE_DIR: path.join(BUILD, "zig-cache"),
    CARGO_ZIGBUILD_CACHE_DIR: path.join(BUILD, "cargo-zigbuild"),
  };
}

/** Compiler flags that keep the paths of this machine out of the binary. The crates must have been fetched. */
async function pathRemapFlags() {
  const registries = path.join(process.env.CARGO_HOME ?? path.join(homedir(), ".cargo"), "registry", "src");
  const renamed = [
    [root.replace(/\/$/, ""), "."],
    ...(await readdir(registries)).map((name) => [path.join(registries, name), "/crates"]),
  ];
  return renamed.map(([from, to]) => `--remap-path-prefix=${from}=${to}`);
}
