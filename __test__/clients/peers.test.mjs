// What may stand beside the package in a project. The clients take objects by what they can do, and import no SDK: a
// range with an end would only make npm refuse an install beside the SDK's next version. Before its 1.0, an SDK promises
// nothing about that one, and the range ends there.

import { createRequire } from "node:module";
import { expect, it } from "vitest";

const require = createRequire(import.meta.url);
const { devDependencies, peerDependencies, peerDependenciesMeta } = require("../../package.json");

it("is asked for only where it is used, up to 1.0 where it is younger, and without an end after", () => {
  expect(Object.keys(peerDependencies).sort()).toEqual([
    "@cloudflare/sandbox",
    "@daytonaio/sdk",
    "@types/node",
    "e2b",
  ]);
  for (const [name, range] of Object.entries(peerDependencies)) {
    expect(peerDependenciesMeta[name], name).toEqual({ optional: true });
    expect(range, name).toMatch(/^>=(0\.\d+ <1|[1-9]\d*(\.\d+)*)$/);
  }
});

it("is tested with the oldest that is allowed: its minor version before 1.0, its major one after", () => {
  for (const [name, range] of Object.entries(peerDependencies)) {
    const oldest = range.slice(">=".length).split(" ")[0].split(".");
    expect(devDependencies[name].slice(1).split(".").slice(0, oldest.length), name).toEqual(oldest);
  }
});
