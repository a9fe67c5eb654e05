// Options of a run: lease, progress, abort signals, reports and parallel uploads.

import { createRuntimeProgressReporter } from "@paperclipai/adapter-utils/runtime-progress";
import { getEventListeners } from "node:events";
import { readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import {
  createTarballFromDirectory,
  mirrorDirectory,
  prepareSandboxManagedRuntime,
  withDirectoryMergeLock,
} from "../index.js";
import { differences, readTree } from "./support/tree.mjs";
import { bytePath, makeTree, temporaryFolder } from "./support/folders.mjs";
import { MemorySandbox } from "./support/memory.mjs";
import { LocalSandbox, remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";
import { makeArchive } from "./support/tar.mjs";

const PREPARE = ["makeDir", "writeFile", "run"];
const RESTORE = ["run", "readFile", "remove"];
const DOWNLOAD = makeArchive([
  { name: "a.txt", content: "edited" },
  { name: "new.txt", content: "new" },
]);

let home;
let workspace;
let client;

beforeEach(async () => {
  home = await temporaryFolder();
  workspace = path.join(home, "workspace");
  await makeTree(workspace, { "a.txt": "a", "b.txt": "b" });
  client = new MemorySandbox(DOWNLOAD);
});

const prepare = (more) =>
  prepareSandboxManagedRuntime({
    spec: specFor("/remote"),
    adapterKey: "test",
    client,
    workspaceLocalDir: workspace,
    ...more,
  });

function deferred() {
  let resolve, reject;
  const promise = new Promise((...settle) => ([resolve, reject] = settle));
  return { promise, resolve, reject };
}

async function until(condition) {
  while (!(await condition())) await turn();
}

/** Lets several turns of the event loop pass, after which everything due has happened. */
async function settled() {
  for (let count = 0; count < 20; count++) await turn();
}

/** Makes one method of the client hang, and tells when it was called. */
function hang(method) {
  const call = { called: deferred(), ...deferred() };
  const original = client[method];
  client[method] = () => {
    client[method] = original;
    client.methods.push(method);
    call.called.resolve();
    return call.promise.then(() => (method === "readFile" ? DOWNLOAD : undefined));
  };
  return call;
}

/** Lets time pass only when a test says so; the event loop runs as usual. */
function withManualTime() {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "Date"] });
  onTestFinished(() => void vi.useRealTimers());
}

describe("a lease", () => {
  it("is refreshed before every client call", async () => {
    const events = [];
    for (const method of [...PREPARE, "readFile", "remove"]) {
      const original = client[method];
      client[method] = function (...args) {
        events.push(method);
        return original.apply(this, args);
      };
    }
    const lease = { refresh: async () => void events.push("refresh") };
    const prepared = await prepare({ lease });
    await prepared.restoreWorkspace();
    expect(events).toStrictEqual([...PREPARE, ...RESTORE].flatMap((method) => ["refresh", method]));
  });

  it("is refreshed by a call on the lease, whatever that returns", async () => {
    const lease = {
      count: 0,
      refresh() {
        this.count++;
      },
    };
    await prepare({ lease });
    expect(lease.count).toBe(3);
  });

  it.each([
    ["every minute", undefined, 60_000],
    ["at the interval it asks for", 250, 250],
  ])("is refreshed %s while a call is under way, and not after it", async (_, intervalMs, interval) => {
    withManualTime();
    const refresh = vi.fn(async () => {});
    const call = hang("run");
    const preparing = prepare({ lease: { refresh, intervalMs } });
    await call.called.promise;
    await settled();
    expect(refresh).toHaveBeenCalledTimes(3);
    for (let passed = 1; passed <= 4; passed++) {
      await vi.advanceTimersByTimeAsync(interval - 1);
      expect(refresh).toHaveBeenCalledTimes(2 + passed);
      await vi.advanceTimersByTimeAsync(1);
      expect(refresh).toHaveBeenCalledTimes(3 + passed);
    }
    call.resolve();
    await preparing;
    expect(vi.getTimerCount()).toBe(0);
  });

  it("is never refreshed twice at once, and a refresh that hangs blocks nothing", async () => {
    withManualTime();
    const refresh = vi.fn(() => new Promise(() => {}));
    const onReport = vi.fn();
    const call = hang("run");
    const preparing = prepare({ lease: { refresh }, onReport });
    await call.called.promise;
    await vi.advanceTimersByTimeAsync(600_000);
    call.resolve();
    await (await preparing).restoreWorkspace();
    expect(refresh).toHaveBeenCalledTimes(1);
    expect(onReport.mock.calls[0][0].failedRefreshes).toBe(1);
  });

  it("reports no failure while the last refresh has just begun", async () => {
    const onReport = vi.fn();
    const prepared = await prepare({ lease: { refresh: () => new Promise(() => {}) }, onReport });
    await prepared.restoreWorkspace();
    expect(onReport.mock.calls[0][0].failedRefreshes).toBe(0);
  });

  it("is not refreshed for a restore that was stopped", async () => {
    const refresh = vi.fn(async () => {});
    const prepared = await prepare({ lease: { refresh } });
    refresh.mockClear();
    const controller = new AbortController();
    const call = hang("run");
    const restoring = prepared.restoreWorkspace(undefined, { signal: controller.signal });
    await call.called.promise;
    expect(refresh).toHaveBeenCalledTimes(1);
    controller.abort();
    await expect(restoring).rejects.toBe(controller.signal.reason);
    // The next restore begins when the first one has ended completely.
    await prepared.restoreWorkspace();
    expect(refresh).toHaveBeenCalledTimes(1 + RESTORE.length);
  });

  it("is refreshed again after a slow refresh has ended", async () => {
    const first = deferred();
    const refresh = vi.fn(async () => {}).mockReturnValueOnce(first.promise);
    const call = hang("writeFile");
    const preparing = prepare({ lease: { refresh } });
    await call.called.promise;
    expect(refresh).toHaveBeenCalledTimes(1);
    first.resolve();
    await settled();
    call.resolve();
    await preparing;
    expect(refresh).toHaveBeenCalledTimes(2);
  });

  it.each([
    [
      "throws",
      () => {
        throw new Error("expired");
      },
    ],
    ["rejects", () => Promise.reject(undefined)],
  ])("that %s is only counted", async (_, refresh) => {
    const onReport = vi.fn();
    const prepared = await prepare({ lease: { refresh }, onReport });
    await prepared.restoreWorkspace();
    expect(onReport.mock.calls[0][0].failedRefreshes).toBe(6);
  });

  it("is not refreshed between prepare and restore, unless asked for", async () => {
    withManualTime();
    const refresh = vi.fn(async () => {});
    await prepare({ lease: { refresh } });
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each([
    ["succeeds", DOWNLOAD, true],
    ["fails", Buffer.alloc(0), false],
  ])(
    "is refreshed in between with keepAliveBetween, until the first restore %s",
    async (_, download, succeeds) => {
      withManualTime();
      client = new MemorySandbox(download);
      const refresh = vi.fn(async () => {});
      const prepared = await prepare({ lease: { refresh, intervalMs: 1000, keepAliveBetween: true } });
      expect(refresh).toHaveBeenCalledTimes(3);
      await vi.advanceTimersByTimeAsync(5000);
      expect(refresh).toHaveBeenCalledTimes(8);
      const restored = await prepared.restoreWorkspace().then(
        () => true,
        () => false,
      );
      expect(restored).toBe(succeeds);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it("of a failed prepare is no longer refreshed", async () => {
    withManualTime();
    client.run = () => Promise.reject(new Error("boom"));
    const lease = { refresh: async () => {}, keepAliveBetween: true };
    await expect(prepare({ lease })).rejects.toThrow("boom");
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("progress", () => {
  const MB = 1024 * 1024;

  it("is reported as lines and as statuses, step by step", async () => {
    const lines = [];
    const statuses = [];
    const assets = ["skills", "home"].map((key) => ({ key, localDir: workspace }));
    const prepared = await prepare({
      assets,
      onProgress: (line) => void lines.push(line),
      onRuntimeProgress: (status) => void statuses.push(status),
    });
    const later = [];
    await prepared.restoreWorkspace((line) => void later.push(line));

    const upload = (label) => `Syncing ${label} to sandbox: 100% (0.0/0.0 MB)`;
    const download = "Restoring workspace from sandbox: 100% (0.0/0.0 MB)";
    const line = (text) => `[paperclip] ${text}\n`;
    expect(lines).toStrictEqual(["workspace", "skills", "home"].map((label) => line(upload(label))));
    expect(later).toStrictEqual([line(download)]);
    expect(statuses).toStrictEqual([
      { phase: "config_sync", message: "Syncing workspace to sandbox" },
      { phase: "config_sync", message: upload("workspace") },
      { phase: "config_sync", message: "Syncing runtime assets to sandbox" },
      { phase: "config_sync", message: upload("skills") },
      { phase: "config_sync", message: "Syncing runtime assets to sandbox" },
      { phase: "config_sync", message: upload("home") },
      { phase: "restore", message: "Restoring workspace from sandbox" },
      { phase: "restore", message: download },
      { phase: "finalize", message: "Finalizing sandbox workspace" },
    ]);
  });

  it("reports steps that take long while they run", async () => {
    const lines = [];
    const heard = (text) => until(() => lines.some((line) => line.startsWith(`[paperclip] ${text}`)));
    const onProgress = (line) => void lines.push(line);
    client.run = () => heard("Extracting workspace in sandbox (");
    const prepared = await prepare({ onProgress });
    client.run = () => heard("Packing workspace in sandbox: ");
    // It waits for the lock when it is to change something.
    const holding = withDirectoryMergeLock(workspace, () =>
      heard("Applying changes of workspace from sandbox: "),
    );
    await prepared.restoreWorkspace();
    await holding;
    expect(await readdir(workspace)).toContain("new.txt");
  });

  it("is finalized also if a restore fails", async () => {
    const messages = [];
    client = new MemorySandbox(Buffer.alloc(0));
    const prepared = await prepare({ onRuntimeProgress: ({ message }) => void messages.push(message) });
    await expect(prepared.restoreWorkspace()).rejects.toThrow();
    expect(messages.at(-1)).toBe("Finalizing sandbox workspace");
  });

  it("is reported to prepare's listener if the restore has none", async () => {
    const onProgress = vi.fn();
    const prepared = await prepare({ onProgress });
    await prepared.restoreWorkspace();
    expect(onProgress).toHaveBeenCalledTimes(2);
  });

  it.each([
    [
      "throws",
      () => {
        throw new Error("boom");
      },
    ],
    ["rejects", () => Promise.reject(new Error("boom"))],
  ])("fails nothing where a listener %s", async (_, listener) => {
    client.writeFile = (_, bytes, { onProgress }) => onProgress(1, bytes.byteLength);
    const prepared = await prepare({ onProgress: listener, onRuntimeProgress: listener, onReport: listener });
    await prepared.restoreWorkspace();
    expect(await readdir(workspace)).toContain("new.txt");
  });

  it("is reported in the lines, and at the times, of the release", async () => {
    withManualTime();
    const random = () => Math.random();
    for (let series = 0; series < 60; series++) {
      const total = [null, 3 * MB, 31.4 * MB, 7, 0][series % 5];
      const steps = Array.from({ length: 40 }, (_, at) => [
        random() < 0.5 ? 0 : Math.floor(random() * 3000),
        ((total ?? 10 * MB) * (at + random())) / (random() < 0.3 ? 30 : 45),
      ]);
      const [ours, theirs] = [[], []];
      const reporter = createRuntimeProgressReporter({
        sink: (line) => void theirs.push(line),
        phase: "Syncing",
        label: "workspace",
        direction: "to",
        target: "sandbox",
      });
      client.writeFile = async (_, bytes, { onProgress }) => {
        for (const [passed, done] of steps) {
          vi.setSystemTime(Date.now() + passed);
          await onProgress(done, total);
          await reporter.report(done, total);
        }
        await reporter.complete(bytes.byteLength, bytes.byteLength);
      };
      const rate = /, \d+\.\d MB\/s(, \d+ s left)?(?=\n$)/;
      await prepare({ onProgress: (line) => void ours.push(line.replace(rate, "")) });
      expect(ours).toStrictEqual(theirs);
    }
  });

  it("is requested from the client only if there is a listener", async () => {
    const counts = async (more, onProgress) => {
      const seen = [];
      for (const method of ["makeDir", "writeFile", "run", "readFile", "remove"]) {
        client[method] = (...args) => {
          seen.push([method, args.length]);
          return method === "readFile" ? DOWNLOAD : undefined;
        };
      }
      await (await prepare(more)).restoreWorkspace(onProgress);
      return Object.fromEntries(seen);
    };
    const alone = { makeDir: 1, writeFile: 2, run: 2, readFile: 1, remove: 1 };
    const accompanied = { ...alone, writeFile: 3, readFile: 2 };
    expect(await counts()).toStrictEqual(alone);
    expect(await counts({ onProgress: () => {} })).toStrictEqual(accompanied);
    expect(await counts({ onRuntimeProgress: () => {} })).toStrictEqual(accompanied);
    expect(await counts(undefined, () => {})).toStrictEqual({ ...alone, readFile: 2 });
  });
});

describe("a signal", () => {
  const REASONS = [new Error("enough"), undefined, null, "text", 0, Symbol("enough"), {}];

  const caught = (promise) =>
    promise.then(
      () => "nothing",
      (error) => ({ error }),
    );

  /** Aborts, and returns what the promise rejects with. An undefined reason becomes an AbortError, as everywhere. */
  async function abortWith(controller, reason, promise) {
    controller.abort(reason);
    const { error } = await caught(promise);
    if (reason === undefined) expect(error).toMatchObject({ name: "AbortError" });
    else expect(error).toBe(reason);
    expect(error).toBe(controller.signal.reason);
  }

  it("that is already aborted stops everything before it begins", async () => {
    const prepared = await prepare();
    client.methods.length = 0;
    const before = await readTree(home);
    for (const reason of REASONS) {
      const signal = AbortSignal.abort(reason);
      const archivePath = path.join(home, "x.tar");
      for (const call of [
        () => prepare({ signal }),
        () => prepared.restoreWorkspace(undefined, { signal }),
        () => createTarballFromDirectory({ localDir: workspace, archivePath, signal }),
        () => mirrorDirectory(workspace, path.join(home, "mirror"), { signal }),
      ]) {
        expect((await caught(call())).error).toBe(signal.reason);
      }
    }
    expect(client.methods).toStrictEqual([]);
    expect(differences(before, await readTree(home), { exact: true })).toStrictEqual([]);
  });

  it("stops the packing, and the sandbox is not called", async () => {
    await makeTree(
      workspace,
      Object.fromEntries(Array.from({ length: 200 }, (_, at) => [`f${at}`, "x".repeat(50_000)])),
    );
    for (const reason of REASONS) {
      const controller = new AbortController();
      await abortWith(controller, reason, prepare({ signal: controller.signal }));
    }
    await settled();
    expect(client.methods).toStrictEqual([]);
  });

  it.each(PREPARE)("stops a prepare during %s, and removes only what was written", async (method) => {
    const written = method === "makeDir" ? [] : ["remove"];
    for (const late of ["resolve", "reject"]) {
      for (const reason of REASONS) {
        client.methods.length = 0;
        const controller = new AbortController();
        const call = hang(method);
        const preparing = prepare({ signal: controller.signal });
        await call.called.promise;
        await abortWith(controller, reason, preparing);
        // The outcome of the call does not matter, and is no unhandled rejection.
        call[late](new Error("too late"));
        await until(() => client.methods.length === PREPARE.indexOf(method) + 1 + written.length);
        await settled();
        expect(client.methods).toStrictEqual([...PREPARE.slice(0, PREPARE.indexOf(method) + 1), ...written]);
      }
    }
  });

  it.each(RESTORE)(
    "stops a restore during %s: nothing is changed, what it packed is removed, and another one completes",
    async (method) => {
      const prepared = await prepare();
      const before = await readTree(workspace);
      for (const reason of REASONS) {
        client.methods.length = 0;
        const controller = new AbortController();
        const call = hang(method);
        const restoring = prepared.restoreWorkspace(undefined, { signal: controller.signal });
        await call.called.promise;
        await abortWith(controller, reason, restoring);
        call.reject(new Error("too late"));
        await settled();
        const made = [...RESTORE.slice(0, RESTORE.indexOf(method) + 1), "run"];
        await until(() => client.methods.length === made.length);
        await settled();
        expect(client.methods).toStrictEqual(made);
        expect(differences(before, await readTree(workspace), { exact: true })).toStrictEqual([]);
      }
      await prepared.restoreWorkspace();
      expect((await readdir(workspace)).sort()).toStrictEqual(["a.txt", "new.txt"]);
    },
  );

  it("works although a listener blocks the restore", async () => {
    const heard = deferred();
    const prepared = await prepare({
      onRuntimeProgress: ({ phase }) => {
        if (phase === "finalize") heard.resolve();
        return phase === "config_sync" ? undefined : new Promise(() => {});
      },
    });
    const controller = new AbortController();
    const restoring = prepared.restoreWorkspace(undefined, { signal: controller.signal });
    await abortWith(controller, new Error("enough"), restoring);
    await heard.promise;
  });

  it("stops a restore while it checks the download or waits for the lock, and nothing is changed", async () => {
    const names = Array.from({ length: 500 }, (_, at) => `new-${at}.txt`);
    client = new MemorySandbox(makeArchive(names.map((name) => ({ name, content: name }))), {
      marked: true,
    });
    const prepared = await prepare();
    const before = await readTree(workspace);
    const [entered, leave] = [deferred(), deferred()];
    const holding = withDirectoryMergeLock(workspace, () => {
      entered.resolve();
      return leave.promise;
    });
    await entered.promise;
    const controller = new AbortController();
    const restoring = prepared.restoreWorkspace(undefined, { signal: controller.signal });
    await until(async () => (await readdir(workspace)).includes(".paperclip-runtime"));
    await abortWith(controller, new Error("enough"), restoring);
    // The next one begins when the first one has cleaned up.
    const call = hang("run");
    const next = prepared.restoreWorkspace();
    await call.called.promise;
    expect(differences(before, await readTree(workspace), { exact: true })).toStrictEqual([]);
    leave.resolve();
    await holding;
    call.resolve();
    await next;
    expect(await readdir(workspace)).toEqual(expect.arrayContaining(names));
  });

  it("during the changes of a restore lets it complete", async () => {
    const names = Array.from({ length: 500 }, (_, at) => `new-${at}.txt`);
    client = new MemorySandbox(makeArchive(names.map((name) => ({ name, content: name }))), {
      marked: true,
    });
    const prepared = await prepare();
    const controller = new AbortController();
    const reason = new Error("enough");
    const restoring = caught(prepared.restoreWorkspace(undefined, { signal: controller.signal }));
    await until(async () => (await readdir(workspace)).some((name) => name.startsWith("new-")));
    controller.abort(reason);
    // The restore may have been faster than this test.
    expect([{ error: reason }, "nothing"]).toContainEqual(await restoring);
    await until(async () => (await readdir(workspace)).length >= names.length);
    await until(async () => !(await readdir(workspace)).includes("b.txt"));
  });

  it("stops an archive, which is never created", async () => {
    const archivePath = path.join(home, "archive.tar");
    await makeTree(
      workspace,
      Object.fromEntries(Array.from({ length: 300 }, (_, at) => [`f${at}`, "x".repeat(50_000)])),
    );
    for (const reason of REASONS) {
      const controller = new AbortController();
      const { signal } = controller;
      await abortWith(
        controller,
        reason,
        createTarballFromDirectory({ localDir: workspace, archivePath, signal }),
      );
    }
    await until(async () => (await readdir(home)).length === 1);
    expect(await readdir(home)).toStrictEqual(["workspace"]);
  });

  it("stops a mirror, which leaves no temporary file", async () => {
    const target = path.join(home, "target");
    await makeTree(
      workspace,
      Object.fromEntries(Array.from({ length: 300 }, (_, at) => [`f${at}`, "x".repeat(50_000)])),
    );
    await makeTree(target, { "old.txt": "old" });
    for (const reason of REASONS) {
      const controller = new AbortController();
      await abortWith(controller, reason, mirrorDirectory(workspace, target, { signal: controller.signal }));
    }
    await until(async () => !(await readdir(target)).some((name) => name.startsWith(".")));
    // And the next one is not blocked by it.
    await mirrorDirectory(workspace, target);
    expect(differences(await readTree(workspace), await readTree(target))).toStrictEqual([]);
  });

  it("that is never aborted leaves no listener behind", async () => {
    const { signal } = new AbortController();
    const prepared = await prepare({ signal });
    await prepared.restoreWorkspace(undefined, { signal });
    await createTarballFromDirectory({ localDir: workspace, archivePath: path.join(home, "x.tar"), signal });
    await mirrorDirectory(workspace, path.join(home, "mirror"), { signal });
    await caught(mirrorDirectory(path.join(home, "missing"), path.join(home, "mirror"), { signal }));
    expect(getEventListeners(signal, "abort")).toStrictEqual([]);
  });

  it("of prepare does not affect the restore", async () => {
    const controller = new AbortController();
    const prepared = await prepare({ signal: controller.signal });
    controller.abort();
    await prepared.restoreWorkspace();
    expect(await readdir(workspace)).toContain("new.txt");
  });
});

describe("the report", () => {
  it("names each of thousands of paths once and sorted, and is read in several turns", async () => {
    const names = Array.from({ length: 2500 }, (_, at) => `file-${String(at).padStart(4, "0")}`);
    await makeTree(workspace, Object.fromEntries(names.map((name) => [name, "1"])));
    const local = new LocalSandbox();
    const remote = await remoteWorkspace();
    let report;
    const prepared = await prepare({
      spec: specFor(remote),
      client: local,
      onReport: (told) => void (report = told),
    });
    await local.agent(`cd '${remote}' && for name in file-*; do echo 2 >$name; done`);
    const parse = vi.spyOn(JSON, "parse");
    await prepared.restoreWorkspace();
    const pieces = parse.mock.calls.map(([json]) => json).filter((json) => json.startsWith('["written"'));
    parse.mockRestore();
    expect(report.written).toStrictEqual(names);
    expect(pieces.map((json) => JSON.parse(json)[1].length)).toStrictEqual([1000, 1000, 500]);
  });

  it("says what a restore did, entry by entry and step by step", async () => {
    const local = new LocalSandbox();
    const remote = await remoteWorkspace();
    await makeTree(workspace, {
      "deleted.txt": "d",
      "kept.txt": "k",
      "conflict.txt": "c",
      "sub/gone.txt": "g",
    });
    const reports = [];
    const prepared = await prepare({
      spec: specFor(remote),
      client: local,
      onReport: (report) => void reports.push(report),
    });
    await local.agent(
      `cd '${remote}' && echo edited >a.txt && rm -r deleted.txt kept.txt sub && echo theirs >conflict.txt &&
       mkdir -p new/dir && ln -s a.txt new/link && chmod 755 b.txt && mkfifo pipe`,
    );
    await makeTree(workspace, { "kept.txt": "changed", "conflict.txt": "ours" });
    await prepared.restoreWorkspace();

    const [report, ...more] = reports;
    expect(more).toStrictEqual([]);
    expect(report).toStrictEqual({
      written: ["a.txt", "b.txt", "conflict.txt", "new", "new/dir", "new/link"],
      deleted: ["deleted.txt", "sub", "sub/gone.txt"],
      kept: ["kept.txt"],
      conflicts: [
        {
          path: "conflict.txt",
          keptAt: expect.stringMatching(/^\.paperclip-runtime\/conflicts\/[^/]+\/conflict\.txt$/),
        },
      ],
      skipped: [{ path: "pipe", reason: expect.stringContaining("FIFO") }],
      deletionsKept: [],
      heldBack: [],
      refsUpdated: [],
      refsDeleted: [],
      refsKept: [],
      sensitive: [{ path: "b.txt", reason: expect.stringContaining("executable") }],
      entries: 6,
      transfer: "changes",
      tolerant: false,
      tarMessages: "",
      dryRun: false,
      failedRefreshes: 0,
      phases: ["run", "download", "check", "apply"].map((name) => ({
        name,
        durationMs: expect.any(Number),
        bytes: expect.any(Number),
      })),
    });
    const bytes = Object.fromEntries(report.phases.map((phase) => [phase.name, phase.bytes]));
    expect(bytes).toStrictEqual({ run: 0, download: expect.any(Number), check: bytes.download, apply: 0 });
    expect(bytes.download).toBeGreaterThan(2048);
    for (const { durationMs } of report.phases) expect(durationMs).toBeGreaterThanOrEqual(0);
  });

  it("comes before the restore resolves, and not for one that failed", async () => {
    const events = [];
    const prepared = await prepare({
      onReport: async () => {
        await turn();
        events.push("report");
      },
    });
    const whole = client.readFile;
    client.readFile = () => Buffer.alloc(10);
    await expect(prepared.restoreWorkspace()).rejects.toThrow();
    client.readFile = whole;
    await prepared.restoreWorkspace().then(() => events.push("restored"));
    expect(events).toStrictEqual(["report", "restored"]);
  });

  it("of a prepare says what was sent, archive by archive, and what was excluded", async () => {
    await makeTree(workspace, { "logs/a.log": "l", "._a.txt": "m", "big.txt": "text ".repeat(100_000) });
    await makeTree(path.join(home, "tools"), { "t.txt": "t", "skip/x": "x" });
    const assets = [
      { key: "tools", localDir: path.join(home, "tools"), exclude: ["skip"] },
      { key: "again", localDir: path.join(home, "tools") },
    ];
    // Other tests have told that sandboxes of this provider have zstd.
    vi.stubEnv("PAPERCLIP_HOME", path.join(home, "kept"));
    onTestFinished(() => vi.unstubAllEnvs());
    // A call that takes longer than within one machine makes the following archives compressed.
    client.makeDir = () => new Promise((resolve) => void setTimeout(resolve, 50));
    const onPrepareReport = vi.fn();
    await prepare({ onPrepareReport, workspaceExclude: ["logs"], assets, concurrency: 2, partBytes: 65_536 });
    expect(onPrepareReport).toHaveBeenCalledTimes(1);
    const [{ archives, failedRefreshes }] = onPrepareReport.mock.calls[0];
    expect(failedRefreshes).toBe(0);
    expect(
      archives.map(({ label, entries, leftOut, leftOutCount }) => [label, entries, leftOut, leftOutCount]),
    ).toStrictEqual([
      [
        "workspace",
        3,
        ["._a.txt", "logs"].map((path) => ({ path, reason: expect.stringContaining("excludes") })),
        2,
      ],
      ["tools", 1, [{ path: "skip", reason: expect.stringContaining("excludes") }], 1],
      ["again", 3, [], 0],
    ]);
    const [large, small] = archives;
    expect(large).toMatchObject({
      compression: "gzip",
      transfer: "full",
      phases: [{ name: "pack" }, { name: "upload" }, { name: "extract" }],
    });
    expect(large.parts).toBeGreaterThan(1);
    expect(large.archiveBytes).toBeGreaterThan(500_000);
    expect(large.sentBytes).toBeLessThan(large.archiveBytes / 10);
    expect(large.phases[1].bytes).toBe(large.sentBytes);
    expect(small).toMatchObject({ compression: "none", parts: 1 });
    expect(small.sentBytes).toBeGreaterThanOrEqual(small.archiveBytes);
    for (const { durationMs } of archives.flatMap(({ phases }) => phases))
      expect(durationMs).toBeGreaterThanOrEqual(0);
  });

  it("of a prepare comes before it resolves, not for one that failed, and its listener fails nothing", async () => {
    const events = [];
    const onPrepareReport = async () => {
      await turn();
      events.push("report");
      throw new Error("no");
    };
    await prepare({ onPrepareReport }).then(() => events.push("prepared"));
    client.run = async () => Promise.reject(new Error("failed"));
    await expect(prepare({ onPrepareReport })).rejects.toThrow("failed");
    expect(events).toStrictEqual(["report", "prepared"]);
  });

  it("is not even read without a listener", async () => {
    const [silent, heard] = [await prepare(), await prepare({ onReport: () => {} })];
    const read = vi.spyOn(JSON, "parse");
    onTestFinished(() => read.mockRestore());
    await silent.restoreWorkspace();
    expect(read).not.toHaveBeenCalled();
    await heard.restoreWorkspace();
    expect(read).toHaveBeenCalledTimes(1);
  });

  it("of a restore that found nothing to do is empty, and nothing was written", async () => {
    client = new MemorySandbox(
      makeArchive([
        { name: "a.txt", content: "a" },
        { name: "b.txt", content: "b" },
      ]),
    );
    const onReport = vi.fn();
    const prepared = await prepare({ onReport });
    const before = await readTree(home);
    await prepared.restoreWorkspace();
    expect(onReport.mock.calls[0][0]).toMatchObject({
      written: [],
      deleted: [],
      kept: [],
      conflicts: [],
      entries: 2,
    });
    expect(differences(before, await readTree(home), { exact: true })).toStrictEqual([]);
  });

  it("has names that are not UTF-8 as lone surrogates", async () => {
    const local = new LocalSandbox();
    const remote = await remoteWorkspace();
    const onReport = vi.fn();
    const prepared = await prepare({ spec: specFor(remote), client: local, onReport });
    await writeFile(bytePath(remote, "bad-\xff"), "x");
    await prepared.restoreWorkspace();
    expect(onReport.mock.calls[0][0].written).toStrictEqual(["bad-\udcff"]);
  });
});

describe("concurrency", () => {
  const KEYS = ["a", "b", "c", "d", "e", "f"];
  let assets;

  beforeEach(async () => {
    assets = [];
    for (const key of KEYS) {
      const localDir = path.join(home, "assets", key);
      await makeTree(localDir, { [`${key}.txt`]: key });
      assets.push({ key, localDir });
    }
  });

  /** Blocks the uploads of assets, by key, until they are released. */
  function holdUploads() {
    const held = new Map();
    const begun = [];
    client.writeFile = (at) => {
      const key = path.basename(at, "-upload.tar");
      if (key === "workspace") return undefined;
      begun.push(key);
      const upload = deferred();
      held.set(key, upload);
      return upload.promise.finally(() => held.delete(key));
    };
    return { held, begun };
  }

  it.each([
    [undefined, 1],
    [1, 1],
    [3, 3],
    [16, 6],
  ])("of %s has as many uploads under way, in order: %d", async (concurrency, expected) => {
    const { held, begun } = holdUploads();
    const preparing = prepare({ assets, concurrency });
    await until(() => held.size === expected);
    await settled();
    let most = held.size;
    while (begun.length < KEYS.length || held.size > 0) {
      most = Math.max(most, held.size);
      held.values().next().value?.resolve();
      await turn();
    }
    const { assetDirs } = await preparing;
    expect(most).toBe(expected);
    expect(begun).toStrictEqual(KEYS);
    expect(Object.keys(assetDirs)).toStrictEqual(KEYS);
  });

  it("packs the next asset while one uploads, and no further one", async () => {
    const { held } = holdUploads();
    const made = [];
    const { ArrayBuffer } = globalThis;
    vi.stubGlobal(
      "ArrayBuffer",
      class extends ArrayBuffer {
        constructor(size) {
          super(size);
          made.push(size);
        }
      },
    );
    onTestFinished(() => void vi.unstubAllGlobals());
    const preparing = prepare({ assets });
    // The workspace, the asset that is being uploaded, and the next one.
    await until(() => held.has("a") && made.length === 3);
    await settled();
    expect(made.length).toBe(3);
    for (const key of KEYS) {
      await until(() => held.has(key));
      held.get(key).resolve();
    }
    await preparing;
    expect(made.length).toBe(1 + KEYS.length);
  });

  it("gives the sandbox the same as sequential uploads", async () => {
    const trees = [];
    for (const concurrency of [1, 4]) {
      const remote = await remoteWorkspace();
      await prepare({ spec: specFor(remote), client: new LocalSandbox(), assets, concurrency });
      // The names of the uploads differ.
      await rm(path.join(remote, ".paperclip-runtime/test/.paperclip"), { recursive: true });
      trees.push(await readTree(remote));
    }
    expect(differences(...trees)).toStrictEqual([]);
    expect(trees[0].size).toBeGreaterThan(2 * KEYS.length);
  });

  it("reports the failure of the first asset in order, not of the first in time", async () => {
    const { held } = holdUploads();
    const preparing = prepare({ assets, concurrency: 6 });
    await until(() => held.size === 6);
    const failures = Object.fromEntries(KEYS.map((key) => [key, new Error(key)]));
    held.get("f").reject(failures.f);
    held.get("c").reject(failures.c);
    await settled();
    held.get("a").resolve();
    held.get("b").reject(failures.b);
    for (const key of ["d", "e"]) held.get(key).resolve();
    await expect(preparing).rejects.toBe(failures.b);
  });

  it("starts no further upload after a failure", async () => {
    const { held, begun } = holdUploads();
    const preparing = prepare({ assets, concurrency: 2 });
    await until(() => held.size === 2);
    const failure = new Error("boom");
    held.get("a").reject(failure);
    await settled();
    held.get("b").resolve();
    await expect(preparing).rejects.toBe(failure);
    await settled();
    expect(begun.length).toBeLessThanOrEqual(3);
  });
});
