// Repeated transfers: only what has changed is sent, and the result is the same as that of full transfers.

import { mkdir, mkdtemp, readFile, readdir, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { prepareSandboxManagedRuntime, resumeSandboxManagedRuntime } from "../index.js";
import { createLocalClient } from "../clients/local.js";

const { stateDir } = createRequire(import.meta.url)("../js/state.js");

let root, workspace, remote, kept, calls, reports;

beforeEach(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), "heartbeats-"));
  [workspace, remote, kept] = ["here", "there", "kept"].map((name) => path.join(root, name));
  kept = process.env.PAPERCLIP_HOME = path.join(root, "kept");
  await mkdir(workspace);
  for (let at = 0; at < 50; at++) {
    await writeFile(path.join(workspace, `file-${at}`), `content ${at}\n`.repeat(200));
  }
  [calls, reports] = [[], []];
});

afterEach(() => rm(root, { recursive: true, force: true }));

/** A client that records its calls and the size of each. */
function client() {
  const local = createLocalClient();
  const noted = (name) => async (first, second) => {
    const answer = await local[name](first, second);
    const bytes = name === "writeFile" ? second.byteLength : (answer?.byteLength ?? 0);
    calls.push({ name, bytes });
    return answer;
  };
  const names = ["makeDir", "writeFile", "readFile", "listFiles", "remove", "run"];
  return Object.fromEntries(names.map((name) => [name, noted(name)]));
}

const input = (more) => ({
  spec: {
    transport: "sandbox",
    provider: "local",
    sandboxId: "1",
    remoteCwd: remote,
    timeoutMs: 60_000,
    apiKey: null,
  },
  adapterKey: "agent",
  client: client(),
  workspaceLocalDir: workspace,
  compression: "none",
  onReport: (report) => reports.push(report),
  ...more,
});

const names = () => calls.splice(0).map(({ name }) => name);

describe("the client calls", () => {
  it("of a first prepare are those of the TypeScript module", async () => {
    await prepareSandboxManagedRuntime(input());
    expect(names()).toStrictEqual(["makeDir", "writeFile", "run"]);
  });

  it("of a restore are the same if only changes are transferred", async () => {
    const prepared = await prepareSandboxManagedRuntime(input());
    await writeFile(path.join(remote, "file-1"), "changed\n");
    calls.length = 0;
    await prepared.restoreWorkspace();
    const bytes = calls.find(({ name }) => name === "readFile").bytes;
    expect(names()).toStrictEqual(["run", "readFile", "remove"]);
    expect(bytes).toBeLessThan(20_000);
    expect(await readFile(path.join(workspace, "file-1"), "utf8")).toBe("changed\n");
  });

  it("of a later prepare ask for changes first, and transfer what differs", async () => {
    await prepareSandboxManagedRuntime(input());
    await writeFile(path.join(workspace, "file-2"), "changed here\n");
    calls.length = 0;
    const prepared = await prepareSandboxManagedRuntime(input());
    const bytes = calls.find(({ name }) => name === "writeFile").bytes;
    expect(names()).toStrictEqual(["run", "readFile", "makeDir", "writeFile", "run"]);
    expect(bytes).toBeLessThan(50_000);
    expect(await readFile(path.join(remote, "file-2"), "utf8")).toBe("changed here\n");
    await prepared.restoreWorkspace();
  });

  it("are in the reports, each with whether everything was transferred or only changes", async () => {
    const prepares = [];
    const onPrepareReport = ({ archives: [workspace] }) => void prepares.push(workspace.transfer);
    const one = async (more) => {
      const prepared = await prepareSandboxManagedRuntime(input({ onPrepareReport, ...more }));
      await writeFile(path.join(remote, "file-1"), `changed ${prepares.length}\n`);
      await prepared.restoreWorkspace(undefined, { dryRun: true });
      await prepared.restoreWorkspace();
    };
    await one();
    await one();
    await one({ transfer: "full" });
    expect(prepares).toStrictEqual(["full", "changes", "full"]);
    const restores = reports.map(({ transfer }) => transfer);
    expect(restores).toStrictEqual(["changes", "changes", "changes", "changes", "full", "full"]);
  });

  it("transfer everything if the caller wants that", async () => {
    await prepareSandboxManagedRuntime(input({ transfer: "full" }));
    const first = calls.find(({ name }) => name === "writeFile").bytes;
    calls.length = 0;
    const prepared = await prepareSandboxManagedRuntime(input({ transfer: "full" }));
    expect(calls.find(({ name }) => name === "writeFile").bytes).toBe(first);
    calls.length = 0;
    await prepared.restoreWorkspace();
    expect(calls.find(({ name }) => name === "readFile").bytes).toBeGreaterThan(100_000);
  });

  it("refuse another value of transfer by name", async () => {
    const code = "ERR_INVALID_ARG_VALUE";
    await expect(prepareSandboxManagedRuntime(input({ transfer: "delta" }))).rejects.toMatchObject({ code });
    const type = { code: "ERR_INVALID_ARG_TYPE" };
    await expect(prepareSandboxManagedRuntime(input({ transfer: 5 }))).rejects.toMatchObject(type);
    expect(calls).toStrictEqual([]);
  });
});

describe("the state that is stored on this machine", () => {
  it("is in a private folder outside the workspace", async () => {
    await prepareSandboxManagedRuntime(input());
    const folder = path.join(kept, "cache/sandbox-managed-runtime");
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
    expect((await readdir(folder)).map((name) => name.split("-")[0]).toSorted()).toStrictEqual([
      "digests",
      "sandbox",
      "trees",
    ]);
  });

  it("has one file with the trees of a sandbox, which stays while little changes", async () => {
    const folder = path.join(kept, "cache/sandbox-managed-runtime");
    const trees = async () => (await readdir(folder)).filter((name) => name.startsWith("trees-"));
    await prepareSandboxManagedRuntime(input());
    const first = await trees();
    expect(first).toHaveLength(1);
    await writeFile(path.join(workspace, "file-1"), "local\n");
    const prepared = await prepareSandboxManagedRuntime(input());
    await writeFile(path.join(remote, "file-2"), "the agent's\n");
    await prepared.restoreWorkspace();
    expect(await trees()).toStrictEqual(first);
    const resumed = await resumeSandboxManagedRuntime(input());
    await resumed.restoreWorkspace();
    expect(reports.at(-1)).toMatchObject({ transfer: "changes", written: [], conflicts: [] });
    await prepareSandboxManagedRuntime(input({ transfer: "full" }));
    expect(await trees()).toHaveLength(1);
    expect(await trees()).not.toStrictEqual(first);
  });

  it.each([
    ["digests", "changes"],
    ["sandbox", "full"],
    ["trees", "full"],
  ])("costs no more than a transfer where its file %s is damaged or gone", async (kind, transfer) => {
    const folder = path.join(kept, "cache/sandbox-managed-runtime");
    let last = "";
    const onPrepareReport = ({ archives: [workspace] }) => (last = workspace.transfer);
    for (const damage of [
      (file) => writeFile(file, "x", { flag: "a" }),
      (file) => writeFile(file, ""),
      (file) => rm(file),
    ]) {
      await prepareSandboxManagedRuntime(input());
      const name = (await readdir(folder)).find((name) => name.startsWith(kind));
      await damage(path.join(folder, name));
      await writeFile(path.join(workspace, "file-1"), `local ${damage}\n`);
      const prepared = await prepareSandboxManagedRuntime(input({ onPrepareReport }));
      expect(last).toBe(transfer);
      expect(await readFile(path.join(remote, "file-1"), "utf8")).toBe(`local ${damage}\n`);
      await prepared.restoreWorkspace();
      expect(reports.at(-1)).toMatchObject({ written: [], deleted: [], conflicts: [] });
    }
  });

  it("is not stored if its folder would be in the workspace", async () => {
    process.env.PAPERCLIP_HOME = workspace;
    await prepareSandboxManagedRuntime(input());
    await prepareSandboxManagedRuntime(input());
    expect(names()).toStrictEqual(["makeDir", "writeFile", "run", "makeDir", "writeFile", "run"]);
    expect(await readdir(workspace)).not.toContain("cache");
  });

  it.each([
    [{ PAPERCLIP_HOME: "/p", XDG_CACHE_HOME: "/x", HOME: "/h" }, "linux", "/p/cache/sandbox-managed-runtime"],
    [{ XDG_CACHE_HOME: "/x", HOME: "/h" }, "linux", "/x/paperclip/sandbox-managed-runtime"],
    [{ HOME: "/h" }, "linux", "/h/.cache/paperclip/sandbox-managed-runtime"],
    [{ HOME: "/h" }, "darwin", "/h/Library/Caches/paperclip/sandbox-managed-runtime"],
    [{ PAPERCLIP_HOME: "relative", HOME: "/h" }, "linux", "/h/.cache/paperclip/sandbox-managed-runtime"],
  ])("lies where the environment says: %o on %s", (env, platform, expected) => {
    expect(stateDir(env, platform)).toBe(expected);
  });
});

describe("a prepare that is resumed", () => {
  it("restores what the agent has changed", async () => {
    await prepareSandboxManagedRuntime(input());
    await writeFile(path.join(remote, "file-3"), "the agent's\n");
    calls.length = 0;
    const prepared = await resumeSandboxManagedRuntime(input());
    expect(calls).toStrictEqual([]);
    expect(prepared).toMatchObject({ workspaceLocalDir: workspace, workspaceRemoteDir: remote });
    await prepared.restoreWorkspace();
    expect(await readFile(path.join(workspace, "file-3"), "utf8")).toBe("the agent's\n");
    expect(reports.at(-1).written).toStrictEqual(["file-3"]);
  });

  it("is refused if there was none, or for another workspace", async () => {
    await expect(resumeSandboxManagedRuntime(input())).rejects.toMatchObject({
      code: "ERR_SANDBOX_NOTHING_TO_RESUME",
      message: expect.stringContaining("Check that PAPERCLIP_HOME"),
    });
    await prepareSandboxManagedRuntime(input());
    await rename(workspace, path.join(root, "moved"));
    await mkdir(workspace);
    await expect(resumeSandboxManagedRuntime(input())).rejects.toMatchObject({
      code: "ERR_WORKSPACE_REPLACED",
    });
  });

  it("needs a usable input", async () => {
    await expect(resumeSandboxManagedRuntime(undefined)).rejects.toMatchObject({
      code: "ERR_INVALID_ARG_TYPE",
    });
  });
});

describe("a dry run", () => {
  it("reports what a restore would do, and changes nothing", async () => {
    const prepared = await prepareSandboxManagedRuntime(input());
    await writeFile(path.join(remote, "file-4"), "theirs\n");
    await writeFile(path.join(workspace, "file-4"), "ours\n");
    await rm(path.join(remote, "file-5"));
    await prepared.restoreWorkspace(undefined, { dryRun: true });
    expect(reports.at(-1)).toMatchObject({
      dryRun: true,
      written: ["file-4"],
      deleted: ["file-5"],
      conflicts: [{ path: "file-4", keptAt: ".paperclip-runtime/conflicts" }],
    });
    expect(await readFile(path.join(workspace, "file-4"), "utf8")).toBe("ours\n");
    await prepared.restoreWorkspace();
    expect(await readFile(path.join(workspace, "file-4"), "utf8")).toBe("theirs\n");
    expect(reports.at(-1)).toMatchObject({ dryRun: false, written: ["file-4"], deleted: ["file-5"] });
  });
});

// Whatever a prepare has stored of local files, a restore reads them.
it("backs up local edits of any kind where the sandbox has changed all of many files", async () => {
  const files = Array.from({ length: 400 }, (_, at) => `many-${at}`);
  const old = new Date(Date.now() - 1_000_000);
  for (const file of files) {
    await writeFile(path.join(workspace, file), `content ${file}\n`);
    await utimes(path.join(workspace, file), old, old);
  }
  // So long ago that a stored digest counts.
  await new Promise((done) => setTimeout(done, 200));
  await prepareSandboxManagedRuntime(input());
  const prepared = await prepareSandboxManagedRuntime(input());
  for (const file of files) await writeFile(path.join(remote, file), `the agent's ${file}\n`);
  const edited = { "many-1": "CONTENT many-1\n", "many-2": "other\n" };
  // The first with its size and time as before; the second saved as editors do, by a rename.
  await writeFile(path.join(workspace, "many-1"), edited["many-1"]);
  await utimes(path.join(workspace, "many-1"), old, old);
  await writeFile(path.join(workspace, "new"), edited["many-2"]);
  await rename(path.join(workspace, "new"), path.join(workspace, "many-2"));
  await rm(path.join(workspace, "many-3"));
  await prepared.restoreWorkspace();
  const { conflicts } = reports.at(-1);
  expect(conflicts.map(({ path: at }) => at).sort()).toStrictEqual(Object.keys(edited));
  for (const { path: at, keptAt } of conflicts) {
    expect(await readFile(path.join(workspace, keptAt), "utf8")).toBe(edited[at]);
  }
  for (const file of files) {
    expect(await readFile(path.join(workspace, file), "utf8")).toBe(`the agent's ${file}\n`);
  }
});
