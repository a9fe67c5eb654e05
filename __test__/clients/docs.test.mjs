// The document about the clients: its example runs, and passes every check.

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, it } from "vitest";
import { findExamples, root, runExample, withProject } from "../readme/examples.mjs";
import { SLOW } from "./support.mjs";

const examples = findExamples(await readFile(path.join(root, "docs/clients.md"), "utf8"));

it("shows a client of about forty lines that passes every check of conformance", SLOW, async () => {
  expect(examples).toHaveLength(1);
  const [{ code, output }] = examples;
  const client = /^function createMyClient[^]*?^}$/m.exec(code)[0];
  expect(client.split("\n").length).toBeLessThanOrEqual(45);
  await withProject(async (folder) => {
    const file = path.join(folder, "example.js");
    await writeFile(file, code.replace("/tmp/my-client", path.join(folder, "sandbox")));
    expect(await runExample(file, folder)).toBe(output);
  });
});
