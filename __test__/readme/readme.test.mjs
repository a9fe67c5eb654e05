import { readFile, readdir, writeFile } from "node:fs/promises";
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

describe("the examples folder", async () => {
  /** What each example prints, in part. */
  const promises = {
    "archive.mjs": ["the same bytes twice: true", "without what is excluded: true"],
    "merge.cjs": ["plan.txt: their plan", "ours.txt: only here", "kept aside: our plan"],
    "mirror.mjs": ["in the target now: new.txt, settings.json\n"],
    "round-trip.mjs": ["from the sandbox: notes.txt", "milk\nbread\n"],
  };

  it("holds what is tested here", async () => {
    expect((await readdir(path.join(root, "examples"))).sort()).toEqual(Object.keys(promises));
  });

  for (const [name, prints] of Object.entries(promises)) {
    it(`has ${name}, which prints what it promises`, async () => {
      const printed = await runExample(path.join(root, "examples", name), root);
      for (const promise of prints) expect(printed).toContain(promise);
    });
  }
});
