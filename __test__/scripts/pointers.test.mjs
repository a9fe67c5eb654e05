// Comments and documents name only files and tests that exist.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");

/** A path below one of the repository's folders, or of those in src/, that ends in the name of a source, script or document. */
const POINTER =
  /(?<![\w./@-])(?:src|tests|__test__|docs|scripts|benches|clients|js|examples|archive|fs|git|merge|node|sandbox|state|transfer|tree)\/[\w./-]*[\w-]\.(?:rs|m?js|d\.ts|ts|md|sh|json|toml|yml)\b(?!\/)/g;

/** A line that is a comment in Rust, JavaScript or TypeScript, or the continuation of one. */
const COMMENT = /^\s*(?:\/\/|\/?\*)/;

/**
 * The files that a text names, with the lines on which it does.
 *
 * @param {string} file
 * @param {string} text
 */
function pointersIn(file, text) {
  const isProse = file.endsWith(".md");
  return text.split("\n").flatMap((line, at) => {
    if (!isProse && !COMMENT.test(line)) return [];
    return [...line.matchAll(POINTER)].map(([name]) => ({ name, at: `${file}:${at + 1}` }));
  });
}

/** A name of so many words that it can only be a test's. */
const TEST_NAME = /\b[a-z0-9]+(?:_[a-z0-9]+){3,}\b/g;

/** The files that are under version control or about to be. */
async function files() {
  const list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
  const { stdout } = await promisify(execFile)("git", list, { cwd: root, maxBuffer: 1 << 24 });
  return stdout
    .split("\0")
    .filter((file) => /\.(?:rs|m?js|ts|md)$/.test(file) && existsSync(path.join(root, file)));
}

describe("a file that a comment or a document names", () => {
  it("is in the repository", async () => {
    const pointers = await Promise.all(
      (await files()).map(async (file) => pointersIn(file, await readFile(path.join(root, file), "utf8"))),
    );
    const exists = (/** @type {string} */ name) =>
      [name, `src/${name}`].some((file) => existsSync(path.join(root, file)));
    const missing = pointers.flat().filter(({ name }) => !exists(name));
    expect(missing.map(({ name, at }) => `${at}: there is no ${name}`)).toStrictEqual([]);
  });

  it("may be followed by names of tests, which are in the sources", async () => {
    const read = (/** @type {string} */ file) => readFile(path.join(root, file), "utf8");
    const list = await files();
    const sources = (await Promise.all(list.filter((file) => file.endsWith(".rs")).map(read))).join("\n");
    const documents = list.filter((file) => /^(?:docs\/.*|[A-Z]+)\.md$/.test(file));
    const missing = await Promise.all(
      documents.map(async (file) => {
        const names = (await read(file)).match(TEST_NAME) ?? [];
        // Node-API's names are not ours.
        const ours = names.filter((name) => !name.startsWith("napi_"));
        return ours.filter((name) => !sources.includes(name)).map((name) => `${file}: there is no ${name}`);
      }),
    );
    expect(missing.flat()).toStrictEqual([]);
  });

  it("is looked for in comments and documents, and not in code", () => {
    const text = "// See docs/gone.md and\n * src/lost.rs.\nconst path = 'src/in-code.rs';\n";
    expect(pointersIn("x.mjs", text)).toStrictEqual([
      { name: "docs/gone.md", at: "x.mjs:1" },
      { name: "src/lost.rs", at: "x.mjs:2" },
    ]);
    expect(pointersIn("x.md", "`src/lost.rs`; https://example.com/src/other.rs\n")).toStrictEqual([
      { name: "src/lost.rs", at: "x.md:1" },
    ]);
  });
});
