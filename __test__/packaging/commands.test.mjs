// Commands that a script cannot go on without: what they print is read by a program.

import { expect, test } from "vitest";
import { must } from "../../scripts/packaging/commands.mjs";
import { run } from "../../scripts/process.mjs";

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
