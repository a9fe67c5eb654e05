// A process without spare threads gets an error or slower work, never an abort, and works again once it has
// threads. The limit is RLIMIT_NPROC, which does not apply to root: the calls are made as another user, which
// no other process has.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it, onTestFinished } from "vitest";
import { makeTree, temporaryFolder } from "./support/folders.mjs";
import { run, succeed } from "./support/processes.mjs";

const SCRIPT = fileURLToPath(new URL("support/few-threads.mjs", import.meta.url));
const CALLS = ["roundTrip", "pack", "mirror", "snapshot", "merge", "lock", "entry"];
const ALL_DONE = Object.fromEntries(CALLS.map((name) => [name, "done"]));

/** A user id that no other process has. */
const users = (
  (next) => () =>
    next++
)(100_000 + (process.pid % 100_000) * 16);

/** A process in which calls are made under a limit. */
async function start() {
  const user = users();
  const home = path.join(await temporaryFolder(), "home");
  await mkdir(home);
  const workspace = path.join(home, "workspace");
  const files = Array.from({ length: 200 }, (_, at) => [`sub-${at % 5}/file-${at}`, `${at}`]);
  // One that a restore changes, and one that everything else reads.
  for (const folder of ["agent", "workspace"])
    await makeTree(path.join(home, folder), Object.fromEntries(files));
  await succeed("chown", ["-R", `${user}:${user}`, home]);
  await chown(path.dirname(home), user, user);
  const child = spawn(process.execPath, [SCRIPT, workspace, String(user)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  onTestFinished(() => child.kill("SIGKILL"));
  const ended = once(child, "close");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async () => {
    const { done, value } = await lines.next();
    if (done) throw new Error(`the process ended: ${await ended}`);
    return value;
  };
  expect(await line()).toBe("ready");
  return {
    threads: async () => (await readdir(`/proc/${child.pid}/task`)).length,
    // Its own user may; in a container, root may not.
    limit: (count) =>
      promisify(execFile)("prlimit", [`--pid=${child.pid}`, `--nproc=${count}:`], { uid: user, gid: user }),
    /** Makes each call, and returns how it settled. */
    call: async (order) => {
      child.stdin.write(`${order}\n`);
      return JSON.parse(await line());
    },
    /** Lets it end by itself. */
    end: async () => {
      child.stdin.end();
      return ended;
    },
  };
}

const mayLimit =
  process.platform === "linux" &&
  process.getuid() === 0 &&
  (await run("prlimit", ["--version"]).then(
    ({ code }) => code === 0,
    () => false,
  ));

if (mayLimit) {
  describe("threads", () => {
    it("none is made before the first call", async () => {
      const child = await start();
      const before = await child.threads();
      expect(await child.call("one by one")).toStrictEqual(ALL_DONE);
      expect(await child.threads()).toBeGreaterThan(before);
    });

    describe.each(["one by one", "all at once"])("calls %s", (order) => {
      it("fail with the system's code without a spare thread, and work once there is one", async () => {
        const child = await start();
        const before = await child.threads();
        await child.limit(before);
        const failed = await child.call(order);
        expect(Object.keys(failed).toSorted()).toStrictEqual(CALLS.toSorted());
        for (const failure of Object.values(failed)) {
          expect(failure).toStrictEqual({
            code: "EAGAIN",
            syscall: "pthread_create",
            message: expect.stringMatching(/nothing was changed; .*raise the limit/),
          });
        }
        expect(await child.threads()).toBe(before);
        await child.limit(before + 100);
        expect(await child.call(order)).toStrictEqual(ALL_DONE);
        expect(await child.end()).toStrictEqual([0, null]);
      });

      it.each([1, 2, 3, 4])("work with %d to spare, and with more afterwards", async (spare) => {
        const child = await start();
        const before = await child.threads();
        await child.limit(before + spare);
        expect(await child.call(order)).toStrictEqual(ALL_DONE);
        expect(await child.call(order)).toStrictEqual(ALL_DONE);
        expect(await child.threads()).toBeLessThanOrEqual(before + spare);
        await child.limit(before + 100);
        expect(await child.call(order)).toStrictEqual(ALL_DONE);
        expect(await child.end()).toStrictEqual([0, null]);
      });
    });
  });
} else {
  // Only root may run a process as such a user. src/threads.rs has the same cases.
  it("is not limited here", () => expect(mayLimit).toBe(false));
}
