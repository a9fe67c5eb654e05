// A run of one hour in a sandbox that lives for five minutes. The clock advances only during a call of the
// client or the agent's work. Everything else is real: the files, the shell, the addon.

import { appendFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { Sandbox } from "e2b";
import { beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { createCloudflareClient } from "../clients/cloudflare.js";
import { createE2bClient } from "../clients/e2b.js";
import { createLocalClient } from "../clients/local.js";
import { prepareSandboxManagedRuntime } from "../index.js";
import { differences, readTree } from "./support/tree.mjs";
import { cloudflareSandbox } from "./clients/cloudflare-sandbox.mjs";
import { startE2bServer } from "./clients/e2b-server.mjs";
import { describeTree, makeTree, temporaryFolder } from "./support/folders.mjs";
import { Lifetime, MINUTE, SECOND, stopClock } from "./support/lifetime.mjs";
import { remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";

const LIFE = 5 * MINUTE;
const METHODS = ["makeDir", "writeFile", "readFile", "run", "remove"];

/** A call that ends just before the first periodic refresh, so only the refresh before the call counts. */
const SHORT = 59 * SECOND;
const UPLOAD = 26 * MINUTE;
const DOWNLOAD = 28 * MINUTE;

let workspace;
let remote;
let before;
let begun;

beforeEach(async () => {
  const home = await temporaryFolder();
  workspace = path.join(home, "workspace");
  await makeTree(workspace, { "notes.md": "draft\n", "src/main.js": "main\n" });
  for (const key of ["skills", "settings"]) await makeTree(path.join(home, key), { [key]: key });
  remote = await remoteWorkspace();
  before = await readTree(home);
  stopClock();
  begun = Date.now();
});

const elapsed = () => Date.now() - begun;

/** How long an operation on a path takes: the workspace is large, and everything else is small. */
function durationOf(at, { upload = UPLOAD, download = DOWNLOAD } = {}) {
  // A client may write it under a temporary name first.
  if (at.includes("/workspace-upload.tar")) return upload;
  if (at.endsWith("/workspace-download.tar")) return download;
  return SHORT;
}

/** Wraps `client` so that its files and commands take time, as long as the sandbox lives. */
function slowed(client, life, durations) {
  const slow = { ...client };
  for (const method of METHODS) {
    slow[method] = async (target, ...rest) => {
      await life.pass(method.endsWith("File") ? durationOf(target, durations) : SHORT);
      return client[method](target, ...rest);
    };
  }
  return slow;
}

/** Passes all calls on, and records their failures. */
function watched(client) {
  const failures = [];
  const seen = { ...client };
  for (const method of METHODS) {
    seen[method] = (...args) =>
      client[method](...args).catch((failure) => {
        failures.push(failure);
        throw failure;
      });
  }
  return { client: seen, failures };
}

const prepare = (client, more) =>
  prepareSandboxManagedRuntime({
    // The long duration is that of uncompressed bytes.
    compression: "none",
    spec: specFor(remote),
    adapterKey: "test",
    client,
    workspaceLocalDir: workspace,
    assets: ["skills", "settings"].map((key) => ({ key, localDir: path.join(workspace, "..", key) })),
    ...more,
  });

/** The agent's work. It writes to the sandbox's workspace directly, because its work is not one of our calls. */
async function work() {
  await appendFile(path.join(remote, "notes.md"), "the agent's line\n");
  await writeFile(path.join(remote, "result.txt"), "done\n");
}

/** The whole run, with `pause` for the time between prepare and restore. */
async function run(client, { pause = async () => {}, ...more } = {}) {
  const prepared = await prepare(client, more);
  await work();
  await pause();
  await prepared.restoreWorkspace();
}

async function mustHaveComeBack() {
  expect(await describeTree(workspace, { without: ".paperclip-runtime" })).toStrictEqual({
    "notes.md": "644 draft\nthe agent's line\n",
    "result.txt": "644 done\n",
    src: "755/",
    "src/main.js": "644 main\n",
  });
  expect(elapsed()).toBeGreaterThanOrEqual(60 * MINUTE);
}

/** Returns what `running` rejected with, and asserts that no local file changed. */
async function failureOf(running) {
  const failure = await running.then(
    () => expect.unreachable("it succeeded"),
    (reason) => reason,
  );
  const after = await readTree(path.dirname(workspace));
  expect(differences(before, after, { exact: true })).toStrictEqual([]);
  return failure;
}

describe("a sandbox that lives for five minutes", () => {
  it("lasts for an hour of transfers by the lease alone", async () => {
    const life = new Lifetime(LIFE);
    const refresh = vi.fn(async () => life.extend());
    const onReport = vi.fn();
    await run(slowed(createLocalClient(), life), { lease: { refresh }, onReport });
    await mustHaveComeBack();
    expect(life.failures).toStrictEqual([]);
    expect(onReport.mock.calls[0][0].failedRefreshes).toBe(0);
    // Once before each of the ten calls, and once for each further minute of a call.
    expect(refresh).toHaveBeenCalledTimes(10 + 26 + 28);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("lasts although three refreshes out of four fail", async () => {
    const life = new Lifetime(LIFE);
    let count = 0;
    const refresh = async () => {
      if (++count % 4 !== 0) throw new Error("no refresh this time");
      life.extend();
    };
    const onReport = vi.fn();
    await run(slowed(createLocalClient(), life), { lease: { refresh }, onReport });
    await mustHaveComeBack();
    expect(onReport.mock.calls[0][0].failedRefreshes).toBe(count - Math.floor(count / 4));
  });

  it.each([
    ["a slow upload", undefined],
    ["a slow download", { upload: 0 }],
    ["many short calls", { upload: 0, download: 0 }],
  ])("dies in %s without a lease, and its error arrives as it is", async (_, durations) => {
    const life = new Lifetime(LIFE);
    const { client, failures } = watched(slowed(createLocalClient(), life, durations));
    const failure = await failureOf(run(client));
    expect(failure).toBe(failures[0]);
    expect(failure).toBe(life.failures[0]);
  });

  it("lasts for many short calls by the refresh before each", async () => {
    const life = new Lifetime(LIFE);
    const client = slowed(createLocalClient(), life, { upload: SHORT, download: SHORT });
    await run(client, { lease: { refresh: async () => life.extend() } });
    expect(elapsed()).toBeGreaterThan(LIFE);
    expect(life.failures).toStrictEqual([]);
  });

  it("lasts while an agent works for an hour, if the lease is kept in between", async () => {
    const life = new Lifetime(LIFE);
    const lease = { refresh: async () => life.extend(), keepAliveBetween: true };
    await run(slowed(createLocalClient(), life), { lease, pause: () => life.pass(60 * MINUTE) });
    await mustHaveComeBack();
    expect(life.failures).toStrictEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("dies while an agent works, if the lease is not kept", async () => {
    const life = new Lifetime(LIFE);
    const lease = { refresh: async () => life.extend() };
    const { client, failures } = watched(slowed(createLocalClient(), life));
    const failure = await failureOf(run(client, { lease, pause: () => life.elapse(60 * MINUTE) }));
    expect(failure).toBe(failures[0]);
    expect(life.failures).toContain(failure);
  });
});

describe("an E2B sandbox that lives for five minutes", () => {
  /** The real SDK, and a server whose answers take time, as long as the sandbox lives. */
  async function slowE2b({ refreshed = true } = {}) {
    const server = await startE2bServer();
    onTestFinished(() => server.stop());
    const sandbox = await Sandbox.connect(server.sandboxId, server.connection);
    const life = new Lifetime(LIFE);
    server.onRefresh = async () => {
      if (!refreshed) throw new Error("no refresh here");
      life.extend();
    };
    server.onRequest = (at) => life.pass(durationOf(at));
    const setTimeout = sandbox.setTimeout.bind(sandbox);
    sandbox.setTimeout = (...args) => life.awaiting(setTimeout(...args));
    return { server, life, sandbox, ...watched(createE2bClient(sandbox, { lifetimeMs: LIFE })) };
  }

  it("lasts for an hour of transfers by its client's refreshes", async () => {
    const { server, life, client, failures } = await slowE2b();
    await run(client);
    await mustHaveComeBack();
    expect(failures).toStrictEqual([]);
    expect(life.failures).toStrictEqual([]);
    expect(new Set(server.lifetimes)).toStrictEqual(new Set([LIFE / SECOND]));
    expect(vi.getTimerCount()).toBe(0);
  });

  it("dies if its lifetime is not refreshed, and the SDK's error is passed on unchanged", async () => {
    const { life, client, failures } = await slowE2b({ refreshed: false });
    let isOver = false;
    const failing = failureOf(run(client)).finally(() => (isOver = true));
    // The client pauses before each further attempt, and such a sandbox never comes back.
    while (!isOver) await vi.advanceTimersByTimeAsync(SECOND);
    const failure = await failing;
    expect(failures).toContain(failure);
    expect(failure.message).toContain(life.failures[0].message);
  });

  it("lasts while an agent works for an hour, if a lease refreshes it in between", async () => {
    const { life, sandbox, client, failures } = await slowE2b();
    const lease = { refresh: () => sandbox.setTimeout(LIFE), keepAliveBetween: true };
    await run(client, { lease, pause: () => life.pass(60 * MINUTE) });
    await mustHaveComeBack();
    expect(failures).toStrictEqual([]);
  });
});

describe("a Cloudflare sandbox that sleeps after five minutes", () => {
  /** A stand-in whose methods take time. Each call counts as activity when it begins, and not later. */
  function slowCloudflare({ renewed = true } = {}) {
    const inner = cloudflareSandbox();
    onTestFinished(() => inner.stop());
    const life = new Lifetime(LIFE);
    const sandbox = { ...inner };
    for (const method of ["exec", "mkdir", "writeFile", "readFile"]) {
      sandbox[method] = async (target, ...rest) => {
        life.extend();
        await life.pass(durationOf(target));
        return inner[method](target, ...rest);
      };
    }
    sandbox.renewActivityTimeout = async () => {
      if (!renewed) throw new Error("no renewal here");
      life.extend();
    };
    return { life, ...watched(createCloudflareClient(sandbox, { sleepAfter: "5m" })) };
  }

  it("stays awake for an hour of transfers by its client's renewals", async () => {
    const { life, client, failures } = slowCloudflare();
    await run(client);
    await mustHaveComeBack();
    expect(failures).toStrictEqual([]);
    expect(life.failures).toStrictEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("falls asleep in a slow upload if nothing renews it, and its error is passed on unchanged", async () => {
    const { life, client, failures } = slowCloudflare({ renewed: false });
    const failure = await failureOf(run(client));
    expect(failure).toBe(failures[0]);
    expect(failure).toBe(life.failures[0]);
  });
});
