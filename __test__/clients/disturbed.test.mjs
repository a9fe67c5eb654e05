// Whole runs by every ready-made client, over a way that is disturbed: each is completed or ends with the reason, and
// nothing is left in the sandbox.

import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { createLocalClient } from "../../clients/local.js";
import { prepareSandboxManagedRuntime } from "../../index.js";
import { deferred, pace, SLOW, temporaryFolder, until } from "./support.mjs";
import { CLIENTS } from "./table.mjs";

const before = { ...pace };

beforeEach(() => {
  Object.assign(pace, { firstPauseMs: 2 });
  onTestFinished(() => void Object.assign(pace, before));
});

/** What travels each way: no archiver makes less of it. */
const BYTES = 2_000_000;

/** The ten places of a transfer at which its connection is cut. */
const PLACES = Array.from({ length: 10 }, (_, index) => (index + 0.5) / 10);

/** A workspace with one file, and what a run of it is told. */
async function newRun(side, client) {
  const workspaceLocalDir = path.join(await temporaryFolder(), "workspace");
  await mkdir(workspaceLocalDir);
  await writeFile(path.join(workspaceLocalDir, "sent"), randomBytes(BYTES));
  const id = crypto.randomUUID();
  const made = randomBytes(BYTES);
  const spec = {
    transport: "sandbox",
    provider: "test",
    sandboxId: id,
    remoteCwd: path.posix.join(side.folder, id),
    timeoutMs: 60_000,
  };
  const remote = path.join(side.local, id);
  return {
    input: { spec, adapterKey: "test", client, workspaceLocalDir },
    /** What an agent does: it puts a file in the place of another. */
    async work() {
      expect(await readdir(remote)).toContain("sent");
      await rm(path.join(remote, "sent"));
      await writeFile(path.join(remote, "made"), made);
    },
    async expectCompleted() {
      expect((await readdir(workspaceLocalDir)).filter((file) => !file.startsWith("."))).toEqual(["made"]);
      expect((await readFile(path.join(workspaceLocalDir, "made"))).equals(made)).toBe(true);
    },
    /** The names of all files of the run in the sandbox. */
    async remoteFiles() {
      const entries = await readdir(remote, { recursive: true, withFileTypes: true });
      return entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
    },
  };
}

/** The same client. It tells of each archive that begins to travel, and what that gives are further options. */
function watched(client, begins) {
  return {
    ...client,
    async writeFile(file, bytes, options) {
      const more = bytes.byteLength >= BYTES ? await begins("up") : {};
      await client.writeFile(file, bytes, { ...options, ...more });
    },
    readFile: async (file, options) => await client.readFile(file, { ...options, ...(await begins("down")) }),
  };
}

/** Names that only a transfer gives, and that must be gone after it. */
const OF_A_TRANSFER = /\.part\b|^workspace-(upload|download)/;

/** Waits until no file of a transfer is left: some sandboxes remove theirs only when they notice that the caller has gone. */
async function nothingLeft(run) {
  await until(async () => !(await run.remoteFiles()).some((name) => OF_A_TRANSFER.test(name)));
}

describe.each(Object.entries(CLIENTS))("a whole run by the %s client", (_, { make }) => {
  it("is completed although each transfer is cut, at ten places of either", SLOW, async () => {
    const side = await make();
    for (const place of PLACES) {
      const client = watched(await side.client(), async (direction) => {
        await side.cut(direction, place * BYTES);
        return {};
      });
      const run = await newRun(side, client);
      const cuts = await side.cuts();
      const prepared = await prepareSandboxManagedRuntime(run.input);
      expect(await side.cuts(), `upload, ${place}`).toBe(cuts + 1);
      await run.work();
      await prepared.restoreWorkspace();
      expect(await side.cuts(), `download, ${place}`).toBe(cuts + 2);
      await run.expectCompleted();
      await nothingLeft(run);
    }
  });

  it.each([429, 503])("is completed although it is refused with %d at each step at first", async (status) => {
    const side = await make();
    await side.refuseFirst(status);
    const run = await newRun(side, await side.client());
    const prepared = await prepareSandboxManagedRuntime(run.input);
    await run.work();
    await prepared.restoreWorkspace();
    await run.expectCompleted();
    expect(await side.refused()).toBeGreaterThan(0);
    await nothingLeft(run);
  });
});

const local = {
  async make() {
    const folder = await temporaryFolder();
    return { folder, local: folder, client: async () => createLocalClient() };
  },
};

describe.each(Object.entries({ ...CLIENTS, local }))("a whole run by the %s client", (_, { make }) => {
  it("ends with the reason where the caller aborts a transfer, and leaves nothing of it", async () => {
    const side = await make();
    const reason = new Error("no longer wanted");
    let controller = new AbortController();
    let isWanted = false;
    const client = watched(await side.client(), async () => {
      if (isWanted) return {};
      return { onProgress: () => controller.abort(reason) };
    });
    const run = await newRun(side, client);
    await expect(prepareSandboxManagedRuntime({ ...run.input, signal: controller.signal })).rejects.toBe(
      reason,
    );
    await until(async () => (await run.remoteFiles()).length === 0);

    isWanted = true;
    const prepared = await prepareSandboxManagedRuntime(run.input);
    await run.work();
    isWanted = false;
    controller = new AbortController();
    await expect(prepared.restoreWorkspace(undefined, { signal: controller.signal })).rejects.toBe(reason);
    await nothingLeft(run);

    isWanted = true;
    await prepared.restoreWorkspace();
    await run.expectCompleted();
    await nothingLeft(run);
  });
});

it.each([
  ["e2b", "POST /files"],
  ["daytona", "POST /files/bulk-upload"],
])(
  "%s: nothing is left of an upload that the sandbox takes up after it was given up",
  async (name, upload) => {
    const side = await CLIENTS[name].make();
    const file = path.join(side.folder, "file");
    const takenUp = deferred();
    let uploads = 0;
    side.onRequest(async (kind) => {
      if (kind !== upload) return;
      uploads += 1;
      if (uploads === 1) {
        await takenUp.promise;
      } else {
        takenUp.resolve();
        await until(async () => (await readdir(side.folder)).length > 0);
      }
    });
    await side.cut("up", BYTES / 2);
    await (await side.client()).writeFile(file, randomBytes(BYTES).buffer);
    expect(uploads).toBe(2);
    expect(await readdir(side.folder)).toEqual(["file"]);
  },
);
