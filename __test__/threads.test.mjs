// A process without spare threads gets an error or slower work, never an abort, and works again once it has
// threads. The limit is RLIMIT_NPROC, which does not apply to root: the calls are made as another user, which
// no other process has.

import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chown, mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it, onTestFinished } from "vitest";
import { createLocalClient } from "../clients/local.js";
import { prepareSandboxManagedRuntime } from "../index.js";
import { file, makeTree, temporaryFolder } from "./support/folders.mjs";
import { run, succeed } from "./support/processes.mjs";
import { specFor } from "./support/spec.mjs";

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
  const text = Array.from({ length: 60_000 }, (_, at) => `line ${at * 7919} of a text\n`).join("");
  await makeTree(path.join(home, "large"), { text });
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

it("none is kept by restores that wait for their parts, however many there are", async () => {
  const root = await temporaryFolder();
  const count = 70;
  /** @type {(() => void)[]} */
  const packed = [];
  const local = createLocalClient();
  let isPacking = false;
  const client = {
    ...local,
    // All are packed at the same time.
    run: async (...args) => {
      await local.run(...args);
      if (!isPacking) return;
      await new Promise((done) => {
        packed.push(done);
        if (packed.length === count) for (const go of packed) go();
      });
    },
    readFile: async (file, options) => {
      if (isPacking && /\.tar\.\d+-/.test(file)) await new Promise((done) => setTimeout(done, 500));
      return local.readFile(file, options);
    },
  };
  const restores = [];
  for (let at = 0; at < count; at++) {
    const [workspaceLocalDir, remote] = ["local", "remote"].map((name) => path.join(root, `${at}`, name));
    await makeTree(workspaceLocalDir, { a: "a" });
    const prepared = await prepareSandboxManagedRuntime({
      spec: specFor(remote),
      adapterKey: "test",
      client,
      workspaceLocalDir,
      partBytes: 65_536,
      compression: "none",
      transfer: "full",
    });
    await makeTree(remote, { large: file(randomBytes(200_000)) });
    restores.push(() => prepared.restoreWorkspace());
  }
  isPacking = true;
  await Promise.all(restores.map((restore) => restore()));
  expect(await readdir(path.join(root, "0/local"))).toContain("large");
}, 120_000);

if (mayLimit) {
  describe("threads", () => {
    it("none is made before the first call", async () => {
      const child = await start();
      const before = await child.threads();
      expect(await child.call("one by one")).toStrictEqual(ALL_DONE);
      expect(await child.threads()).toBeGreaterThan(before);
    });

    it.each([1, 2, 3, 4, 6])("an upload in parts never hangs, with %d to spare", async (spare) => {
      const child = await start();
      await child.limit((await child.threads()) + spare);
      const { inParts } = await child.call("in parts");
      // It needs a thread that packs while others send, and these may have taken the last one.
      if (inParts !== "done") expect(inParts).toMatchObject({ code: "EAGAIN", syscall: "pthread_create" });
      await child.limit((await child.threads()) + 100);
      expect(await child.call("in parts")).toStrictEqual({ inParts: "done" });
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
