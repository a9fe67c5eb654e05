// The commands of package.json, and those that a script cannot go on without: what they print is read by a program.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { must } from "../../scripts/packaging/commands.mjs";
import { root, run } from "../../scripts/process.mjs";

const script = (code) => ["sh", ["-c", `echo said; echo warned >&2; exit ${code}`]];

test("a warning is not taken for what was asked for", async () => {
  expect(await must(...script(0), { show: false })).toBe("said\n");
});

test("where one fails, all that it printed is told", async () => {
  await expect(must(...script(3), { show: false })).rejects.toThrow(
    /\(exit code 3\): sh .*\nsaid\nwarned\n$/,
  );
});

test.each([
  [undefined, { output: "", errors: "" }],
  ["stdout", { output: "said\n", errors: "" }],
  ["apart", { output: "said\n", errors: "warned\n" }],
])("what is kept as %s", async (keep, kept) => {
  expect(await run(...script(0), { keep, show: false })).toEqual({ code: 0, ...kept });
});

test("what is kept as one", async () => {
  const { output, errors } = await run(...script(0), { keep: "both", show: false });
  expect(output.split("\n").sort()).toEqual(["", "said", "warned"]);
  expect(errors).toBe("");
});

test.each(["demo", "lint", "test", "test-folding", "check-targets"])(
  "scripts/%s.mjs starts in a fresh clone, where no package is installed",
  async (name) => {
    const found = new Set();
    const foreign = [];
    const look = async (file) => {
      if (found.has(file)) return;
      found.add(file);
      const text = await readFile(file, "utf8");
      for (const [, specifier] of text.matchAll(/^(?:import|export)\b[^"]*?"([^"]+)";/gm)) {
        if (specifier.startsWith(".")) await look(path.resolve(path.dirname(file), specifier));
        else if (!specifier.startsWith("node:")) foreign.push(`${path.relative(root, file)}: ${specifier}`);
      }
    };
    await look(path.join(root, "scripts", `${name}.mjs`));
    expect(foreign).toEqual([]);
    expect(found.size).toBeGreaterThan(2);
  },
);
