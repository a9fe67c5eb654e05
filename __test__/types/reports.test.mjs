// The reports: JSON texts that the core writes, and types that are written by hand in index.d.ts. These are the same fields.

import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import ts from "typescript";
import { afterAll, beforeAll, expect, it } from "vitest";
import { prepareSandboxManagedRuntime } from "../../index.js";
import { createLocalClient } from "../../clients/local.js";
import { makeTree, temporaryFolder } from "../support/folders.mjs";
import { specFor } from "../support/spec.mjs";

/** @typedef {Map<string, { optional: boolean, type: ts.TypeNode }>} Fields */

/** The fields of each interface of index.d.ts. */
let interfaces;

let prepared;
let restored;

beforeAll(async () => {
  const file = path.resolve(import.meta.dirname, "../../index.d.ts");
  const source = ts.createSourceFile(file, await readFile(file, "utf8"), ts.ScriptTarget.Latest, true);
  interfaces = new Map(
    source.statements
      .filter(ts.isInterfaceDeclaration)
      .map(({ name, members }) => [name.text, fieldsOf(members)]),
  );
  await roundTrip();
});

/** A round trip after which most lists of the reports have an item. */
async function roundTrip() {
  const folder = await temporaryFolder(afterAll);
  const [workspace, remote] = [path.join(folder, "workspace"), path.join(folder, "sandbox")];
  await makeTree(workspace, { both: "1", gone: "1", changed: "1", "left.log": "1" });
  await symlink("/", path.join(workspace, "left"));
  const session = await prepareSandboxManagedRuntime({
    spec: specFor(remote),
    adapterKey: "test",
    client: createLocalClient(),
    workspaceLocalDir: workspace,
    workspaceExclude: ["*.log", "matches nothing"],
    onPrepareReport: (report) => void (prepared = report),
    onReport: (report) => void (restored = report),
  });
  await writeFile(path.join(workspace, "both"), "mine");
  await writeFile(path.join(workspace, "changed"), "mine");
  await writeFile(path.join(remote, "both"), "theirs");
  await rm(path.join(remote, "gone"));
  await rm(path.join(remote, "changed"));
  await mkdir(path.join(remote, ".hg"));
  await writeFile(path.join(remote, ".hg", "hgrc"), "theirs");
  await writeFile(path.join(remote, ".envrc"), "theirs");
  await session.restoreWorkspace();
}

/** @returns {Fields} */
function fieldsOf(/** @type {ts.NodeArray<ts.TypeElement>} */ members) {
  const properties = members.filter(ts.isPropertySignature);
  return new Map(
    properties.map(({ name, questionToken, type }) => [
      name.getText(),
      { optional: questionToken !== undefined, type },
    ]),
  );
}

/** Asserts that a value has the fields that its type names, and no other; returns how many objects were compared. */
function compare(where, value, type) {
  if (ts.isArrayTypeNode(type)) {
    return value.reduce((count, item, at) => count + compare(`${where}[${at}]`, item, type.elementType), 0);
  }
  const fields = ts.isTypeLiteralNode(type)
    ? fieldsOf(type.members)
    : ts.isTypeReferenceNode(type)
      ? interfaces.get(type.typeName.getText())
      : undefined;
  if (fields === undefined) {
    if (type.kind === ts.SyntaxKind.NumberKeyword) expect(value, where).toBeTypeOf("number");
    if (type.kind === ts.SyntaxKind.StringKeyword) expect(value, where).toBeTypeOf("string");
    if (type.kind === ts.SyntaxKind.BooleanKeyword) expect(value, where).toBeTypeOf("boolean");
    return 0;
  }
  return compareFields(where, value, fields);
}

function compareFields(where, value, fields) {
  const optional = [...fields].filter(([name, field]) => field.optional && !(name in value));
  const expected = [...fields.keys()].filter((name) => !optional.some(([left]) => left === name));
  expect(Object.keys(value).sort(), where).toStrictEqual(expected.sort());
  return expected.reduce(
    (count, name) => count + compare(`${where}.${name}`, value[name], fields.get(name).type),
    1,
  );
}

it("a report of a prepare has the fields of its type", () => {
  expect(compareFields("report", prepared, interfaces.get("PrepareReport"))).toBeGreaterThanOrEqual(6);
  expect(prepared.archives[0].leftOut).not.toHaveLength(0);
  expect(prepared.archives[0].unmatchedExcludes).not.toHaveLength(0);
});

it("a report of a restore has the fields of its type", () => {
  expect(compareFields("report", restored, interfaces.get("RestoreReport"))).toBeGreaterThanOrEqual(6);
  for (const list of ["written", "deleted", "kept", "conflicts", "heldBack", "sensitive"]) {
    expect(restored[list], list).not.toHaveLength(0);
  }
});
