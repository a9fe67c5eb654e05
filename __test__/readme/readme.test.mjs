import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { checkTypes, findExamples, root, runExample, withProject } from "./examples.mjs";

const examples = findExamples(await readFile(path.join(root, "README.md"), "utf8"));

describe("the README", () => {
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
