// `npm run lint`: everything a machine can say about the sources without running them.
//
//   npm run lint               every check; that for macOS only where `CI` is set
//   npm run lint -- clippy     only the checks that are named
//
// The check for macOS needs a compiler as `compilerFor` in scripts/platforms.mjs finds it. The last line is the total,
// `N passed, N failed`.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { findBreaches } from "../__test__/architecture/rules.mjs";
import { RUST_TARGETS, compilerFor } from "./platforms.mjs";
import { Explained, root, run, runMain } from "./process.mjs";
import { requireRust, setUp } from "./setup.mjs";

/** What cargo checks of the addon alone. */
const ADDON = ["--package", "sandbox-managed-runtime", "--lib"];

/** @type {Record<string, string[]>} */
const COMMANDS = {
  rustfmt: ["cargo", "fmt", "--check"],
  clippy: ["cargo", "clippy", "--locked", "--all-targets", "--", "-D", "warnings"],
  rustdoc: ["cargo", "doc", "--locked", "--no-deps", "--document-private-items"],
  tsc: ["npx", "tsc", "--project", "."],
  prettier: ["npx", "prettier", "--check", "--log-level", "warn", "."],
};

/**
 * Checks that are no single command: each says what is wrong, and nothing where nothing is.
 *
 * @type {Record<string, () => Promise<string>>}
 */
const OWN = {
  architecture: async () => (await findBreaches()).join("\n"),
  binding: checkBindingTypes,
  macos: compileForMac,
};

const CHECKS = [...Object.keys(COMMANDS), ...Object.keys(OWN)];

await runMain(async () => {
  const named = process.argv.slice(2);
  const checks = named.length > 0 ? named : CHECKS.filter((check) => check !== "macos" || process.env.CI);
  const unknown = checks.find((check) => !CHECKS.includes(check));
  if (unknown) throw new Explained(`There is no check "${unknown}". There are: ${CHECKS.join(", ")}.`);
  await setUp({ addon: false });
  requireRust();

  let failed = 0;
  const inTurn = async (/** @type {string[]} */ some) => {
    for (const check of some) {
      const complaint = await (check in OWN ? OWN[check]() : complain(COMMANDS[check]));
      console.log(`${complaint ? "FAILED" : "ok    "}  ${check}`);
      if (complaint) console.log(`\n${complaint.trimEnd()}\n`);
      if (complaint) failed += 1;
    }
  };
  // Cargo does one of these at a time; the others keep the second core busy where that has too little to do. What is
  // compiled for macOS lies in a directory of its own.
  const isCargo = (/** @type {string} */ check) => check === "binding" || COMMANDS[check]?.[0] === "cargo";
  const others = checks.filter((check) => check !== "macos");
  await Promise.all([
    inTurn(others.filter(isCargo)),
    inTurn(others.filter((check) => !isCargo(check))),
    inTurn(checks.filter((check) => check === "macos")),
  ]);
  console.log(`\n${checks.length - failed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
});

/**
 * What a command prints when it fails; nothing where it succeeds.
 *
 * @param {string[]} command
 * @param {Record<string, string>} [env]
 */
async function complain([program, ...args], env = {}) {
  const { code, output } = await run(program, args, {
    keep: true,
    show: false,
    env: { RUSTDOCFLAGS: "-D warnings", CARGO_TERM_PROGRESS_WHEN: "never", ...env },
  });
  return code === 0 ? "" : output || `${program} failed without a word (exit code ${code})`;
}

/** Compiles the addon for macOS without linking it: the code that only macOS has is the same for both processors. */
async function compileForMac() {
  const target = RUST_TARGETS["darwin-arm64"];
  const { env, options } = compilerFor(target);
  // Cargo checks the project, but compiles the standard library: no machine code is wanted of that.
  const noMachineCode = options.length > 0 ? " -Zno-codegen" : "";
  return complain(["cargo", "check", "--locked", ...ADDON, `--target=${target}`, ...options], {
    ...env,
    CARGO_TARGET_DIR: path.join(root, ".build", "target"),
    RUSTFLAGS: `-Dwarnings${noMachineCode}`,
    // Nothing is linked, so nothing of C is needed; and the compiler of another system has no headers of macOS.
    CC_aarch64_apple_darwin: "true",
    AR_aarch64_apple_darwin: "true",
    // Without this, much of the time would go into describing the standard library.
    CARGO_PROFILE_DEV_DEBUG: "0",
  });
}

/** Whether `native.d.ts`, which `npm run build` writes, is what `src/node/` has now; otherwise what is wrong. */
async function checkBindingTypes() {
  // Imported only here: this script starts before the packages are installed.
  const { generateTypeDef } = await import("@napi-rs/cli");
  const folder = await mkdtemp(path.join(tmpdir(), "binding-types-"));
  try {
    // The macros write the types there.
    const complaint = await complain(["cargo", "check", "--locked", ...ADDON], {
      NAPI_TYPE_DEF_TMP_FOLDER: folder,
    });
    if (complaint) return complaint;
    const { napi } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8"));
    const typesOf = { typeDefDir: folder, configDtsHeaderFile: napi.dtsHeaderFile, cwd: root };
    const { dts } = await generateTypeDef(typesOf);
    const committed = await readFile(path.join(root, "native.d.ts"), "utf8");
    return dts === committed
      ? ""
      : "native.d.ts is not what src/node/ has now: `npm run build` and commit it";
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
