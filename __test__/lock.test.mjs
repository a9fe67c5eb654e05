// withDirectoryMergeLock: with itself, with the npm release, and with locks that dead processes left.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, mkdir, readdir, readFile, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import {
  captureDirectorySnapshot,
  mergeDirectoryWithBaseline,
  prepareSandboxManagedRuntime,
  withDirectoryMergeLock,
} from "../index.js";
import { differences, readTree } from "./support/tree.mjs";
import { makeTree, temporaryFolder } from "./support/folders.mjs";
import { MemorySandbox } from "./support/memory.mjs";
import { runScript } from "./support/processes.mjs";
import { specFor } from "./support/spec.mjs";
import { makeArchive } from "./support/tar.mjs";

let target;
let lock;
let log;

beforeEach(async () => {
  target = path.join(await temporaryFolder(), "target");
  lock = `${target}.paperclip-restore.lock`;
  log = path.join(path.dirname(target), "log");
  await mkdir(target);
  await writeFile(log, "");
});

/** A wait for a lock that ends in a timeout, run beside all other tests because it takes 30 s. */
let inVain;

beforeAll(async () => {
  const home = await temporaryFolder(afterAll);
  const target = await makeTree(path.join(home, "target"), { "a.txt": "ours" });
  const sourceDir = await makeTree(path.join(home, "source"), { "a.txt": "theirs" });
  const prepared = await prepareSandboxManagedRuntime({
    spec: specFor("/remote"),
    adapterKey: "test",
    client: new MemorySandbox(makeArchive([{ name: "a.txt", content: "theirs" }])),
    workspaceLocalDir: target,
  });
  const before = await readTree(target);
  const lock = `${target}.paperclip-restore.lock`;
  await makeTree(lock, { "owner.json": JSON.stringify({ pid: process.pid, createdAt: "" }) });
  const mustNotRun = () => expect.unreachable("the lock is held");
  const baseline = { exclude: [], entries: new Map() };
  const attempts = Promise.allSettled([
    withDirectoryMergeLock(target, mustNotRun),
    mergeDirectoryWithBaseline({ baseline, sourceDir, targetDir: target, beforeApply: mustNotRun }),
    prepared.restoreWorkspace(),
  ]);
  inVain = { attempts, before, lock, prepared, target };
});

const events = async () => (await readFile(log, "utf8")).split("\n").filter(Boolean);
const exists = (at) =>
  stat(at).then(
    () => true,
    () => false,
  );

/** The number of a process that has ended. */
async function deadProcess() {
  const child = execFile("true");
  await once(child, "exit");
  return child.pid;
}

/**
 * Another process that takes the lock, with ours or with the release's function.
 *
 * @param {"ours" | "release"} whose
 */
function party(whose) {
  const script = fileURLToPath(new URL("support/lock-party.mjs", import.meta.url));
  const child = spawn(process.execPath, [script, whose, target, log], { stdio: ["pipe", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const ended = once(child, "exit");
  return {
    pid: child.pid,
    /** Resolves when it is about to take the lock. */
    started: once(child.stdout.setEncoding("utf8"), "data"),
    /** Makes it release the lock, or never take it, and waits until it ends. */
    async finish() {
      child.stdin.end();
      expect(await ended).toStrictEqual([0, null]);
    },
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

async function until(condition) {
  while (!(await condition())) await pause(10);
}

describe("the lock", () => {
  it("is a folder beside the target, with its holder and the time", async () => {
    const before = Date.now();
    const result = await withDirectoryMergeLock(target, async () => {
      expect(await readdir(lock)).toStrictEqual(["owner.json"]);
      const text = await readFile(path.join(lock, "owner.json"), "utf8");
      const owner = JSON.parse(text);
      // The first two fields are those of the TypeScript module.
      expect(Object.keys(owner).slice(0, 3)).toStrictEqual(["pid", "createdAt", "host"]);
      expect(owner.host).toBe(hostname());
      expect(owner.pid).toBe(process.pid);
      expect(new Date(owner.createdAt).toISOString()).toBe(owner.createdAt);
      expect(Date.parse(owner.createdAt)).toBeGreaterThanOrEqual(before);
      return "result";
    });
    expect(result).toBe("result");
    expect(await exists(lock)).toBe(false);
  });

  it("passes on what the function returns, promise or not", async () => {
    expect(await withDirectoryMergeLock(target, () => 5)).toBe(5);
    expect(await withDirectoryMergeLock(target, () => ({ then: (resolve) => resolve(6) }))).toBe(6);
    expect(await withDirectoryMergeLock(target, async () => {})).toBeUndefined();
  });

  it("is released if the function fails, and its error is passed on unchanged", async () => {
    for (const failure of [new Error("boom"), undefined, null, "text", Symbol("boom")]) {
      for (const fail of [
        () => {
          throw failure;
        },
        () => Promise.reject(failure),
      ]) {
        const caught = await withDirectoryMergeLock(target, fail).then(
          () => "nothing",
          (error) => ({ error }),
        );
        expect(caught.error).toBe(failure);
        expect(await exists(lock)).toBe(false);
      }
    }
  });

  it("is for a target's name, which need not exist", async () => {
    const missing = path.join(path.dirname(target), "missing");
    await withDirectoryMergeLock(missing, async () => {
      expect(await exists(`${missing}.paperclip-restore.lock`)).toBe(true);
    });
    expect(await exists(missing)).toBe(false);
  });

  it("in a missing folder is an error", async () => {
    const nowhere = path.join(target, "missing", "target");
    await expect(withDirectoryMergeLock(nowhere, async () => {})).rejects.toMatchObject({
      code: "ENOENT",
      syscall: "mkdir",
      path: `${nowhere}.paperclip-restore.lock`,
    });
  });

  it.each([
    ["a slash at its end", () => `${target}/`],
    ["a dot at its end", () => `${target}/.`],
    ["a way round", () => `${target}/../target`],
    [
      "a link",
      async () => {
        const link = path.join(path.dirname(target), "link");
        await symlink(target, link);
        return link;
      },
    ],
  ])("is one for every spelling of a folder: %s", async (_, spell) => {
    const spelled = await spell();
    await withDirectoryMergeLock(spelled, async () => {
      expect(await exists(lock)).toBe(true);
      const waiting = withDirectoryMergeLock(target, () => appendFile(log, "second\n"));
      await pause(200);
      await appendFile(log, "first\n");
      waiting.catch(() => {});
    });
    await until(async () => (await events()).length === 2);
    expect(await events()).toStrictEqual(["first", "second"]);
    expect(await readdir(target)).toStrictEqual([]);
    await until(async () => !(await exists(lock)));
  });

  it("of one target does not block another's", async () => {
    const other = path.join(path.dirname(target), "other");
    const order = [];
    await withDirectoryMergeLock(target, async () => {
      await withDirectoryMergeLock(other, async () => void order.push("inner"));
      order.push("outer");
    });
    expect(order).toStrictEqual(["inner", "outer"]);
  });

  it("has one holder at a time in one process", async () => {
    let inside = 0;
    const done = [];
    await Promise.all(
      Array.from({ length: 8 }, (_, at) =>
        withDirectoryMergeLock(target, async () => {
          expect(++inside).toBe(1);
          await pause(5);
          inside--;
          done.push(at);
        }),
      ),
    );
    expect(done.sort()).toStrictEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it("is given to 600 waiters in turn, and they block nothing else", async () => {
    let inside = 0;
    let done = 0;
    let giveBack;
    const held = withDirectoryMergeLock(target, () => new Promise((resolve) => (giveBack = resolve)));
    await until(() => giveBack);
    const waiting = Array.from({ length: 600 }, () =>
      withDirectoryMergeLock(target, async () => {
        expect(++inside).toBe(1);
        await Promise.resolve();
        inside--;
        done++;
      }),
    );
    await writeFile(path.join(target, "file"), "content");
    // By then all of them wait, or are about to.
    for (let round = 0; round < 5; round++) {
      expect([...(await captureDirectorySnapshot(target)).entries.keys()]).toStrictEqual(["file"]);
    }
    expect(done).toBe(0);
    giveBack();
    await Promise.all([held, ...waiting]);
    expect(done).toBe(600);
    expect(await exists(lock)).toBe(false);
  });

  it("is waited for by 100 merges that block neither its holder nor anything else", async () => {
    const around = path.dirname(target);
    const sourceDir = await makeTree(path.join(around, "source"), { "file.txt": "theirs" });
    const baseline = { exclude: [], entries: new Map() };
    let inside = 0;
    let done = 0;
    const merges = await withDirectoryMergeLock(target, async () => {
      const merges = Array.from({ length: 100 }, () =>
        mergeDirectoryWithBaseline({
          baseline,
          sourceDir,
          targetDir: target,
          beforeApply: () => void expect(++inside).toBe(1),
          afterApply: () => {
            inside--;
            done++;
          },
        }),
      );
      // By then each has staged its content, and waits or is about to.
      const stages = async () =>
        (await readdir(path.join(target, ".paperclip-runtime")).catch(() => [])).length;
      await until(async () => (await stages()) >= 100);
      expect((await captureDirectorySnapshot(sourceDir)).entries.has("file.txt")).toBe(true);
      expect(done).toBe(0);
      return merges;
    });
    await Promise.all(merges);
    expect(done).toBe(100);
    expect(await exists(lock)).toBe(false);
    expect(await readFile(path.join(target, "file.txt"), "utf8")).toBe("theirs");
  });

  it("has one holder at a time among many processes", async () => {
    const rounds = 15;
    const ended = await Promise.all(
      Array.from({ length: 4 }, () => runScript("lock-rounds.mjs", [target, log, String(rounds)])),
    );
    for (const { code, stderr } of ended) expect({ code, stderr }).toStrictEqual({ code: 0, stderr: "" });
    expect(await events()).toHaveLength(4 * rounds);
    expect(await exists(lock)).toBe(false);
  });
});

describe.each([
  ["ours", "ours"],
  ["release", "ours"],
  ["ours", "release"],
])("while %s holds it", (holder, waiter) => {
  it(`${waiter} waits`, async () => {
    const first = party(holder);
    await first.started;
    await until(async () => (await events()).length === 1);
    const second = party(waiter);
    await second.started;
    // Long enough for several attempts. If it took the lock, it would report that.
    await pause(300);
    expect(await events()).toStrictEqual([`${first.pid} enters`]);
    await first.finish();
    await until(async () => (await events()).length === 3);
    await second.finish();
    expect(await events()).toStrictEqual([
      `${first.pid} enters`,
      `${first.pid} leaves`,
      `${second.pid} enters`,
      `${second.pid} leaves`,
    ]);
    expect(await exists(lock)).toBe(false);
  });
});

describe("a lock that was left behind", () => {
  it.each(["ours", "release"])("by a killed process is taken over from %s", async (whose) => {
    const killed = party(whose);
    await until(async () => (await events()).length === 1);
    await killed.kill();
    expect(await exists(lock)).toBe(true);
    expect(await withDirectoryMergeLock(target, async () => "mine")).toBe("mine");
    expect(await exists(lock)).toBe(false);
  });

  it.each([
    ["with other files in it", async () => writeFile(path.join(lock, "other"), "x")],
    ["with folders in it", async () => makeTree(lock, { "deep/er/file": "x" })],
  ])("is taken over %s", async (_, more) => {
    await mkdir(lock);
    await writeFile(
      path.join(lock, "owner.json"),
      JSON.stringify({ pid: await deadProcess(), createdAt: "" }),
    );
    await more();
    expect(await withDirectoryMergeLock(target, async () => "mine")).toBe("mine");
    expect(await exists(lock)).toBe(false);
  });

  it("by a process whose number another process has now is taken over", async () => {
    const living = spawn("sleep", ["600"]);
    onTestFinished(() => void living.kill());
    const owner = { pid: living.pid, createdAt: new Date(Date.now() - 60_000).toISOString() };
    await makeTree(lock, { "owner.json": JSON.stringify(owner) });
    expect(await withDirectoryMergeLock(target, async () => "mine")).toBe("mine");
  });

  it("by an earlier process with our own number is taken over, as after a crash in a container", async () => {
    const owner = { pid: process.pid, createdAt: new Date(Date.now() - 3_600_000).toISOString() };
    await makeTree(lock, { "owner.json": JSON.stringify(owner) });
    expect(await withDirectoryMergeLock(target, async () => "mine")).toBe("mine");
  });

  it("by a process on another host is taken over once it has not been renewed for a minute", async () => {
    const owner = {
      pid: process.pid,
      createdAt: new Date().toISOString(),
      host: "elsewhere",
      boot: "another",
    };
    await makeTree(lock, { "owner.json": JSON.stringify(owner) });
    const waiting = withDirectoryMergeLock(target, () => appendFile(log, "mine\n"));
    await pause(200);
    await appendFile(log, "theirs\n");
    const old = new Date(Date.now() - 61_000);
    await utimes(path.join(lock, "owner.json"), old, old);
    await waiting;
    expect(await events()).toStrictEqual(["theirs", "mine"]);
  });

  const UNREADABLE = {
    "no owner.json": undefined,
    "an empty owner.json": "",
    "one that is no JSON": "{",
    "one that is no object": "5",
    "one without a pid": "{}",
    "one with an impossible pid": '{"pid":-5}',
    "one with a pid that is no number": '{"pid":"1"}',
    "one from the future": `{"pid":${process.pid},"createdAt":"9999-12-31T00:00:00.000Z"}`,
  };

  describe.each(Object.entries(UNREADABLE))("with %s", (_, content) => {
    beforeEach(async () => {
      await mkdir(lock);
      if (content !== undefined) await writeFile(path.join(lock, "owner.json"), content);
    });

    it("is taken over once it is 30 s old", async () => {
      const old = new Date(Date.now() - 31_000);
      await utimes(lock, old, old);
      expect(await withDirectoryMergeLock(target, async () => "mine")).toBe("mine");
    });

    it("is waited for while it is young, because its holder may be about to write", async () => {
      const waiting = withDirectoryMergeLock(target, () => appendFile(log, "mine\n"));
      await pause(200);
      await appendFile(log, "theirs\n");
      await rm(lock, { recursive: true });
      await waiting;
      expect(await events()).toStrictEqual(["theirs", "mine"]);
    });
  });

  it("is not taken from a living holder, however old it is", async () => {
    await mkdir(lock);
    await writeFile(path.join(lock, "owner.json"), JSON.stringify({ pid: process.pid, createdAt: "" }));
    await utimes(lock, 0, 0);
    const waiting = withDirectoryMergeLock(target, () => appendFile(log, "mine\n"));
    await pause(200);
    await appendFile(log, "theirs\n");
    await rm(lock, { recursive: true });
    await waiting;
    expect(await events()).toStrictEqual(["theirs", "mine"]);
  });
});

describe("a restore that waits for the lock", () => {
  it("can be aborted, and changes nothing", async () => {
    await makeTree(target, { "a.txt": "ours" });
    const client = new MemorySandbox(makeArchive([{ name: "a.txt", content: "theirs" }]));
    const prepared = await prepareSandboxManagedRuntime({
      spec: specFor("/remote"),
      adapterKey: "test",
      client,
      workspaceLocalDir: target,
    });
    const reason = new Error("enough");
    await withDirectoryMergeLock(target, async () => {
      const controller = new AbortController();
      const restoring = prepared.restoreWorkspace(undefined, { signal: controller.signal });
      await until(() => client.methods.includes("remove"));
      controller.abort(reason);
      await expect(restoring).rejects.toBe(reason);
    });
    expect(await readFile(path.join(target, "a.txt"), "utf8")).toBe("ours");
    // And the next one gets the lock.
    await prepared.restoreWorkspace();
    expect(await readFile(path.join(target, "a.txt"), "utf8")).toBe("theirs");
    expect(await readdir(target)).toStrictEqual(["a.txt"]);
  });
});

describe("a lock that is held for too long", () => {
  it("makes everything that needs it fail after 30 s with a clear error, and nothing is changed", async () => {
    for (const { status, reason } of await inVain.attempts) {
      expect(status).toBe("rejected");
      expect(reason).toMatchObject({
        code: "ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT",
        path: inVain.lock,
        message: expect.stringMatching(
          /30 s .*paperclip-restore\.lock.*held by process \d+.*nothing was changed/,
        ),
      });
    }
    expect(differences(inVain.before, await readTree(inVain.target), { exact: true })).toStrictEqual([]);
    // The lock is still held.
    expect(await exists(path.join(inVain.lock, "owner.json"))).toBe(true);
    await rm(inVain.lock, { recursive: true });
    await inVain.prepared.restoreWorkspace();
    expect(await readFile(path.join(inVain.target, "a.txt"), "utf8")).toBe("theirs");
  });
});
