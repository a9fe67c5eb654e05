import { readdir } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { root, runExample } from "../readme/examples.mjs";

describe("the examples folder", () => {
  /** What each example prints, in part. */
  const promises = {
    "archive.mjs": ["the same bytes twice: true", "without what is excluded: true"],
    "long-run.mjs": [
      "[paperclip] Syncing workspace to sandbox: 100% (3.0/3.0 MB)\n",
      "stopped: not now\n",
      'still here: "plan\\nour own step\\n"\n',
      "from the sandbox: plan.txt\n",
      "deleted here: data.bin\n",
      "plan.txt: the version here is now .paperclip-runtime/conflicts/",
      'and now: "plan\\nthe agent\'s step\\n"\n',
      "the lease was refreshed: true\n",
    ],
    "merge.cjs": ["plan.txt: their plan", "ours.txt: only here", "backed up: our plan"],
    "mirror.mjs": ["in the target now: new.txt, settings.json\n"],
    "round-trip.mjs": ["from the sandbox: notes.txt", "milk\nbread\n"],
  };

  it("contains only the examples that are tested", async () => {
    expect((await readdir(path.join(root, "examples"))).sort()).toEqual(Object.keys(promises));
  });

  for (const [name, prints] of Object.entries(promises)) {
    it(`has ${name}, which prints what it promises`, async () => {
      const printed = await runExample(path.join(root, "examples", name), root);
      for (const promise of prints) expect(printed).toContain(promise);
    });
  }
});
