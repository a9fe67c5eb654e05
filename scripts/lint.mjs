// `npm run lint`: everything a machine can say about the sources without running them.
//
//   npm run lint               every check
//   npm run lint -- clippy     only the checks that are named
//
// The last line is the total, `N passed, N failed`.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { findBreaches } from "../__test__/architecture/rules.mjs";
import { Explained, root, run, runMain } from "./process.mjs";
import { requireRust, setUp } from "./setup.mjs";

/** A program that a dependency brings, run by this Node. */
const node = (/** @type {string} */ file, /** @type {string[]} */ ...args) => [
  process.execPath,
  path.join(root, "node_modules", file),
  ...args,
];

/** @type {Record<string, string[]>} */
const COMMANDS = {
  rustfmt: ["cargo", "fmt", "--check"],
  clippy: ["cargo", "clippy", "--locked", "--all-targets", "--", "-D", "warnings"],
  rustdoc: ["cargo", "doc", "--locked", "--no-deps", "--document-private-items"],
  tsc: node("typescript/bin/tsc", "--project", "."),
  prettier: node("prettier/bin/prettier.cjs", "--check", "--log-level", "warn", "."),
};

/**
 * Checks that are no single command: each says what is wrong, and nothing where nothing is.
 *
 * @type {Record<string, () => Promise<string>>}
 */
const OWN = {
  architecture: async () => (await findBreaches()).join("\n"),
  binding: checkBindingTypes,
};

const CHECKS = [...Object.keys(COMMANDS), ...Object.keys(OWN)];

await runMain(async () => {
  const checks = process.argv.length > 2 ? process.argv.slice(2) : CHECKS;
  const unknown = checks.find((check) => !CHECKS.includes(check));
  if (unknown) throw new Explained(`There is no check "${unknown}". There are: ${CHECKS.join(", ")}.`);
  await setUp({ addon: false });
  await requireRust();

  let failed = 0;
  const inTurn = async (/** @type {string[]} */ some) => {
    for (const check of some) {
      const complaint = await (check in OWN ? OWN[check]() : complain(COMMANDS[check]));
      console.log(`${complaint ? "FAILED" : "ok    "}  ${check}`);
      if (complaint) console.log(`\n${complaint.trimEnd()}\n`);
      if (complaint) failed += 1;
    }
  };
  // Cargo does one of these at a time; the others keep the second core busy where that has too little to do.
  const isCargo = (/** @type {string} */ check) => check === "binding" || COMMANDS[check]?.[0] === "cargo";
  await Promise.all([inTurn(checks.filter(isCargo)), inTurn(checks.filter((check) => !isCargo(check)))]);
  console.log(`\n${checks.length - failed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
});

/**
 * What a command prints when it fails; nothing where it succeeds.
 *
 * @param {string[]} command
 */
async function complain([program, ...args]) {
  const { code, output } = await run(program, args, {
    keep: "both",
    show: false,
    env: { RUSTDOCFLAGS: "-D warnings", CARGO_TERM_PROGRESS_WHEN: "never" },
  });
  return code === 0 ? "" : output || `${program} failed without a word (exit code ${code})`;
}

/** Whether `native.d.ts`, which `npm run build` writes, is what `src/node/` has now; otherwise what is wrong. */
async function checkBindingTypes() {
  // Imported only here: this script starts before the packages are installed.
  const { generateTypeDef } = await import("@napi-rs/cli");
  const folder = await mkdtemp(path.join(tmpdir(), "binding-types-"));
  try {
    const addon = ["--package", "sandbox-managed-runtime", "--lib"];
    const checked = await run("cargo", ["check", "--locked", ...addon], {
      keep: "both",
      show: false,
      // The macros write the types there.
      env: { NAPI_TYPE_DEF_TMP_FOLDER: folder, CARGO_TERM_PROGRESS_WHEN: "never" },
    });
    if (checked.code !== 0) return checked.output || "cargo check failed without a word";
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
