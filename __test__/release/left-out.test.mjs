import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { LEFT_OUT } from "./left-out.mjs";
import { LEFT_OUT as NEWEST_LEFT_OUT, LEFT_OUT_OF_MERGE } from "./newest-left-out.mjs";
import { NEWEST_SUITES } from "./newest.mjs";
import { RELEASE_SUITES } from "./plugin.mjs";

/** @param {string[]} suites */
async function namesIn(suites) {
  const texts = await Promise.all(suites.map((suite) => readFile(suite, "utf8")));
  return texts.flatMap((text) =>
    [...text.matchAll(/^ *it\(("(?:\\.|[^"\\])*")/gm)].map(([, name]) => JSON.parse(name)),
  );
}

describe("the list of release tests that are left out", () => {
  it.each([
    ["2026.707.0", RELEASE_SUITES, LEFT_OUT],
    ["2026.916.1", NEWEST_SUITES, NEWEST_LEFT_OUT],
    ["2026.916.1, over the merge alone", NEWEST_SUITES, LEFT_OUT_OF_MERGE],
  ])("names only tests that the release has: %s", async (_release, suites, leftOut) => {
    expect(await namesIn(suites)).toEqual(expect.arrayContaining(Object.keys(leftOut)));
  });
});
