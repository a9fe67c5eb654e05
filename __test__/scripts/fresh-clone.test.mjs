// The commands of package.json start in a fresh clone, where no package is installed.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { expect, it } from "vitest";

const root = path.join(import.meta.dirname, "..", "..");

it.each(["demo", "lint", "pack", "test", "build-all"])(
  "scripts/%s.mjs imports no package at its top",
  async (name) => {
    const found = new Set();
    const foreign = [];
    const look = async (file) => {
      if (found.has(file)) return;
      found.add(file);
      const text = await readFile(file, "utf8");
      for (const [, specifier] of text.matchAll(/^(?:import\s|export\s[^"=(]*\bfrom\s)[^"=(]*"([^"]+)";/gm)) {
        if (specifier.startsWith(".")) await look(path.resolve(path.dirname(file), specifier));
        else if (!specifier.startsWith("node:")) foreign.push(`${path.relative(root, file)}: ${specifier}`);
      }
    };
    await look(path.join(root, "scripts", `${name}.mjs`));
    expect(foreign).toEqual([]);
    expect(found.size).toBeGreaterThan(2);
  },
);
