// What ties a release binary to the commit that it was built from.

import { describe, expect, test } from "vitest";
import { parseStamp, stampFaults } from "../../scripts/packaging/stamps.mjs";

const COMMIT = "a".repeat(40);
const OTHER = "b".repeat(40);
const DIGEST = "1".repeat(64);
const stamp = { commit: COMMIT, dirty: false, sha256: DIGEST };
const like = "that of linux-x64-gnu";

describe("a stamp", () => {
  test.each([
    ["that fits", stamp, { sha256: DIGEST, commit: COMMIT, like, clean: true }, []],
    ["of changed sources, which are not released", { ...stamp, dirty: true }, { sha256: DIGEST }, []],
    [
      "that is missing",
      undefined,
      { sha256: DIGEST },
      ["nothing says what it was built from: it has no stamp (build.json)"],
    ],
    [
      "of another binary",
      stamp,
      { sha256: "2".repeat(64) },
      ["it is not the binary that its stamp (build.json) was made for"],
    ],
    [
      "of another commit",
      { ...stamp, commit: OTHER },
      { sha256: DIGEST, commit: COMMIT, like },
      [`it was built from the commit ${OTHER}, and that of linux-x64-gnu is ${COMMIT}`],
    ],
    [
      "of changed sources, which are released",
      { ...stamp, dirty: true },
      { sha256: DIGEST, commit: COMMIT, like, clean: true },
      ["it was built with changes that were not committed"],
    ],
  ])("%s", (_, found, wanted, faults) => {
    expect(stampFaults(found, wanted)).toEqual(faults);
  });

  test.each([
    ["", /JSON/],
    ["null", "it names no commit"],
    [JSON.stringify({ ...stamp, commit: "main" }), "it names no commit"],
    [JSON.stringify({ ...stamp, dirty: "no" }), 'its "dirty" is neither true nor false'],
    [JSON.stringify({ ...stamp, sha256: undefined }), "it has no sha256"],
  ])("is not %j", (text, message) => {
    expect(() => parseStamp(text)).toThrow(message);
    expect(() => parseStamp(text)).toThrow(SyntaxError);
  });

  test("is read as it was written", () => {
    expect(parseStamp(JSON.stringify(stamp))).toEqual(stamp);
  });
});
