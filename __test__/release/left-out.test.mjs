import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { LEFT_OUT } from "./left-out.mjs";
import { RELEASE_SUITES } from "./plugin.mjs";

describe("the list of release tests that are left out", () => {
  it("names only tests that the release has", async () => {
    const suites = await Promise.all(RELEASE_SUITES.map((suite) => readFile(suite, "utf8")));
    const names = suites.flatMap((suite) =>
      [...suite.matchAll(/^ *it\(("(?:\\.|[^"\\])*")/gm)].map(([, name]) => JSON.parse(name)),
    );

    expect(names).toEqual(expect.arrayContaining(Object.keys(LEFT_OUT)));
  });
});
