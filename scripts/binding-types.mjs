// Whether the types that JavaScript has of the native addon are those that it has.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { root, run } from "./process.mjs";

/** The types as they are committed; `npm run build` writes them. */
const TYPES = "native.d.ts";

/**
 * Compiles `src/node/` far enough to tell its types, and compares.
 *
 * @returns {Promise<string>} What is wrong; empty where nothing is.
 */
export async function complainOfBindingTypes() {
  // Not before this is called: what imports this file may have yet to install the packages.
  const { generateTypeDef } = await import("@napi-rs/cli");
  const folder = await mkdtemp(path.join(tmpdir(), "binding-types-"));
  try {
    const addon = ["--package", "sandbox-managed-runtime", "--lib"];
    const checked = await run("cargo", ["check", "--locked", ...addon], {
      keep: "both",
      show: false,
      // The macros write what they see there.
      env: { NAPI_TYPE_DEF_TMP_FOLDER: folder, CARGO_TERM_PROGRESS_WHEN: "never" },
    });
    if (checked.code !== 0) return checked.output || "cargo check failed without a word";
    const { napi } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8"));
    const { dts } = await generateTypeDef({
      typeDefDir: folder,
      configDtsHeaderFile: napi.dtsHeaderFile,
      cwd: root,
    });
    const committed = await readFile(path.join(root, TYPES), "utf8");
    return dts === committed ? "" : `${TYPES} is not what src/node/ has now: \`npm run build\` and commit it`;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
