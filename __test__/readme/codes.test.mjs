// The codes of errors are listed in three places: docs/reference.md, the types, and the sources that make them.

import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { expect, it } from "vitest";
import { root } from "./examples.mjs";

const text = (...names) => readFile(path.join(root, ...names), "utf8");

/** Our codes in a text, and those of Node's that we use. */
const codesIn = (text, code = /\bERR_(SANDBOX|WORKSPACE|INVALID)_\w+/g) =>
  [...new Set(text.match(code))].toSorted();

/** The files of a folder whose names end so, as one text. */
async function folder(name, ending) {
  const files = (await readdir(path.join(root, name))).filter((file) => file.endsWith(ending));
  return (await Promise.all(files.map((file) => text(name, file)))).join("\n");
}

const types = await text("index.d.ts");
const [declared] = types.match(/export type SandboxRuntimeErrorCode =[^]*?;$/m);

it("docs/reference.md lists the codes that the types declare, each once and with what to do", async () => {
  const [table] = (await text("docs", "reference.md")).match(
    /^\| `code` \| meaning \| what to do \|[^]*?^$/m,
  );
  expect(codesIn(table)).toStrictEqual(codesIn(declared));
  expect(table.match(/ERR_\w+/g).toSorted()).toStrictEqual(codesIn(table));
});

it("the README's table has only codes that the types declare", async () => {
  const [table] = (await text("README.md")).match(/^\| `code` \| first thing to do \|[^]*?^$/m);
  expect(codesIn(declared)).toEqual(expect.arrayContaining(codesIn(table)));
  expect(codesIn(table)).not.toEqual([]);
});

it("the sources make the errors that the types declare", async () => {
  const sources = [
    await text("index.js"),
    await text("binding.js"),
    await folder("js", ".js"),
    await folder("clients", ".js"),
    await text("src", "error.rs"),
  ].join("\n");
  // As a whole value, not as the beginning of one.
  expect(codesIn(sources, /(?<= ")ERR_(SANDBOX|WORKSPACE|INVALID)_\w+(?=")/g)).toStrictEqual(
    codesIn(declared),
  );
});

it("the clients' types name no other", async () => {
  const named = codesIn(await folder("clients", ".d.ts"));
  expect(codesIn(declared)).toEqual(expect.arrayContaining(named));
  expect(named).not.toStrictEqual([]);
});
