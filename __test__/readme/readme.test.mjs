// What the README and the pages show is run, and the README stays short.

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { checkTypes, findExamples, root, runExample, withProject } from "./examples.mjs";

const PAGES = ["README.md", "docs/install.md", "docs/reference.md"];

describe.each(PAGES)("%s", async (page) => {
  const examples = findExamples(await readFile(path.join(root, page), "utf8"));

  it("has examples", () => {
    expect(examples).not.toEqual([]);
  });

  for (const { line, language, code, output } of examples) {
    it(`shows in line ${line} ${language === "js" ? "what runs" : "types that fit"}`, async () => {
      await withProject(async (folder) => {
        const file = path.join(folder, language === "js" ? "example.js" : "example.ts");
        await writeFile(file, code);
        if (language === "ts") await checkTypes(file, folder);
        else {
          const printed = await runExample(file, folder);
          if (output !== undefined) expect(printed).toBe(output);
        }
      });
    });
  }
});

describe("the README", async () => {
  const readme = await readFile(path.join(root, "README.md"), "utf8");

  it("has at most 1,200 words before the reference", () => {
    const [before] = readme.split("\n## Reference\n");
    expect(before).not.toBe(readme);
    expect(before.split(/\s+/).length).toBeLessThanOrEqual(1200);
  });

  it.each([
    ...["alpine", "bun", "case-insensitive", "compression", "conflict", "deno", "docker", "gitignore"],
    ...["macos", "proxy", "retry", "symlink", "three-way merge", "windows", "wsl"],
  ])("has the word %s, which a newcomer searches for", (word) => {
    expect(readme.toLowerCase()).toContain(word);
  });
});

describe("docs/reference.md", () => {
  it("lists every option of a prepare that the types have", async () => {
    const types = await readFile(path.join(root, "index.d.ts"), "utf8");
    const reference = await readFile(path.join(root, "docs", "reference.md"), "utf8");
    const [input] = /^export interface PrepareSandboxManagedRuntimeInput \{[^]*?^\}/m.exec(types);
    const [table] = /^\| option \| default[^]*?^$/m.exec(reference);
    const optional = [...input.matchAll(/^ {2}(\w+)\?:/gm)].map(([, name]) => name);
    const listed = [...table.matchAll(/^\| (`[^|]*`) \|/gm)].flatMap(([, names]) => names.match(/\w+/g));
    expect(optional).not.toEqual([]);
    expect(listed).toEqual(expect.arrayContaining(optional));
  });
});
