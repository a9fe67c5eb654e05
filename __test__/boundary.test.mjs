// The boundary between native code and Node: no leak, crash or hang, whatever happens to the client, the
// thread or the process. Each case runs in its own process, so a crash is recognized.
//
// STRESS=500 runs that many rounds of each, instead of the few that usually suffice.

import path from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { makeTree, temporaryFolder } from "./support/folders.mjs";
import { runScript } from "./support/processes.mjs";

const rounds = (few) => String(process.env.STRESS ?? few);

let folder;

beforeEach(async () => {
  folder = path.join(await temporaryFolder(), "workspace");
  await makeTree(folder, {
    "large.bin": "x".repeat(2_000_000),
    ...Object.fromEntries(Array.from({ length: 30 }, (_, at) => [`sub-${at % 5}/file-${at}`, `${at}`])),
  });
});

async function runToTheEnd(script, args, options) {
  const ended = await runScript(script, args, options);
  expect({ ...ended, stdout: "" }).toStrictEqual({ code: 0, signal: null, stdout: "", stderr: "" });
  return ended.stdout;
}

describe("memory", () => {
  it("does not grow over rounds of prepare and restore, finished, failed, aborted and given up", async () => {
    const count = rounds(100);
    // With a heap for each thread, glibc keeps freed memory, in amounts that vary.
    const options = { execArgv: ["--expose-gc"], env: { MALLOC_ARENA_MAX: "1" } };
    const { warm, end, archive } = JSON.parse(
      await runToTheEnd("memory-rounds.mjs", [folder, count], options),
    );
    // One archive that stays in memory in each round would be many times as much.
    expect(archive * Number(count)).toBeGreaterThan(100_000_000);
    expect(end - warm).toBeLessThan(40_000_000);
  });

  it.each(["restored", "prepared", "failed", "aborted", "kept alive"])(
    "of a client is given back once nobody has it any more: %s",
    async (what) => {
      const stdout = await runToTheEnd("collected.mjs", [folder, what], { execArgv: ["--expose-gc"] });
      expect(stdout).toBe("collected\n");
    },
  );

  it("is intact, although the garbage collector runs at every moment of a round", async () => {
    const stdout = await runToTheEnd("collecting.mjs", [folder, rounds(10)], { execArgv: ["--expose-gc"] });
    expect(stdout).toBe("intact\n");
  });
});

describe("a worker thread", () => {
  it("may be terminated at any moment, and others continue", async () => {
    expect(await runToTheEnd("terminated.mjs", [folder, rounds(12)])).toBe("done\n");
  });

  it("that is terminated while it holds the merge lock releases it", async () => {
    expect(await runToTheEnd("terminated-holder.mjs", [folder])).toBe("free\n");
  });
});

describe("process.exit", () => {
  it.each(Array.from({ length: process.env.STRESS ?? 10 }, (_, at) => [at * 2]))(
    "with everything under way ends the process with its code: after %d ms",
    async (delay) => {
      const { code, signal, stderr } = await runScript("exits-midway.mjs", [folder, String(delay)]);
      expect({ code, signal, stderr }).toStrictEqual({ code: 7, signal: null, stderr: "" });
    },
  );
});
