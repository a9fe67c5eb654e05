// Archives in parts: the calls that a client gets, the reports, and what is repeated.

import { randomBytes } from "node:crypto";
import { readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { prepareSandboxManagedRuntime } from "../index.js";
import { describeTree, makeTree, temporaryFolder } from "./support/folders.mjs";
import { LocalSandbox, remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";

const PART = 64 * 1024;
const RUNTIME = ".paperclip-runtime";

let home;
let workspace;
let remote;
let client;

beforeEach(async () => {
  home = await temporaryFolder();
  workspace = path.join(home, "workspace");
  await makeTree(workspace, {
    "a.txt": "a\n",
    "text.txt": "a line that comes again\n".repeat(20_000),
  });
  await writeFile(path.join(workspace, "noise.bin"), randomBytes(300_000));
  remote = await remoteWorkspace();
  client = new LocalSandbox();
});

const prepare = (more) =>
  prepareSandboxManagedRuntime({
    spec: specFor(remote),
    adapterKey: "test",
    client,
    workspaceLocalDir: workspace,
    partBytes: PART,
    // Changes alone would fit into one part.
    transfer: "full",
    ...more,
  });

const here = () => describeTree(workspace, { without: RUNTIME });
const names = (method) => client.calls.filter(([name]) => name === method).map(([, at]) => path.basename(at));
const left = async () =>
  (await readdir(path.join(remote, RUNTIME, "test"))).filter((name) => name !== ".paperclip");

/** Makes a client as slow as one behind a network, so that parts are compressed. */
function behindNetwork(sandbox) {
  const makeDir = sandbox.makeDir.bind(sandbox);
  sandbox.makeDir = async (at) => {
    await new Promise((resolve) => setTimeout(resolve, 10));
    return makeDir(at);
  };
  return sandbox;
}

/** An error of a client that is marked as temporary. */
const passing = () => Object.assign(new Error("try again"), { retryable: true });

describe("parts", () => {
  it("are separate files of limited size, and are removed in both directions", async () => {
    const before = await here();
    const { restoreWorkspace } = await prepare({ compression: "none" });
    const written = client.calls.filter(([name]) => name === "writeFile");
    expect(names("writeFile").slice(0, 3)).toStrictEqual([
      "workspace-upload.tar",
      "workspace-upload.tar.2",
      "workspace-upload.tar.3",
    ]);
    for (const [, at, size] of written) expect(size, at).toBeLessThanOrEqual(PART);
    expect(await describeTree(remote, { without: RUNTIME })).toStrictEqual(before);
    expect(await left()).toStrictEqual([]);
    await writeFile(path.join(remote, "new.bin"), randomBytes(100_000));
    await restoreWorkspace();
    expect(names("readFile").slice(0, 2)).toStrictEqual([
      "workspace-download.tar",
      expect.stringMatching(/^workspace-download\.tar\.2-[0-9a-z]+$/),
    ]);
    expect(names("remove")).toStrictEqual(names("readFile"));
    expect(await here()).toStrictEqual(await describeTree(remote, { without: RUNTIME }));
    expect(await left()).toStrictEqual([]);
  });

  it("are one file with the usual name if the archive fits", async () => {
    const { restoreWorkspace } = await prepare({ partBytes: undefined });
    await restoreWorkspace();
    expect(client.calls.map(([method]) => method)).toStrictEqual([
      "makeDir",
      "writeFile",
      "run",
      "run",
      "readFile",
      "remove",
    ]);
  });

  it.each([
    ["as the client allows it", { allowConcurrentSyncOperations: true }, {}, 4],
    ["as the caller allows it", {}, { concurrency: 2 }, 4],
    ["otherwise one after the other", {}, {}, 1],
  ])("travel several at once %s", async (_, fields, options, most) => {
    Object.assign(client, fields);
    let now = 0;
    let seen = 0;
    for (const method of ["writeFile", "readFile"]) {
      const call = client[method].bind(client);
      client[method] = async (...args) => {
        seen = Math.max(seen, ++now);
        await new Promise((resolve) => setTimeout(resolve, 5));
        return call(...args).finally(() => now--);
      };
    }
    const { restoreWorkspace } = await prepare({ ...options, compression: "none" });
    expect(seen).toBe(most);
    seen = 0;
    await restoreWorkspace();
    expect(seen).toBe(most);
    expect(await describeTree(remote, { without: RUNTIME })).toStrictEqual(await here());
  });

  it("are compressed for a client behind a network, unless that is disabled", async () => {
    behindNetwork(client);
    const sent = async (options) => {
      client.calls.length = 0;
      await prepare(options);
      return client.calls.filter(([name]) => name === "writeFile").reduce((sum, [, , size]) => sum + size, 0);
    };
    expect(await sent({ compression: "none" })).toBeGreaterThan(780_000);
    expect(await sent({})).toBeLessThan(400_000);
    expect(await describeTree(remote, { without: RUNTIME })).toStrictEqual(await here());
  });

  describe("for a new sandbox", () => {
    const PROGRAMS = { "1f8b": "gzip", "28b5": "zstd" };
    let state;

    beforeEach(() => {
      state = path.join(home, "kept");
      vi.stubEnv("PAPERCLIP_HOME", state);
    });
    afterEach(() => vi.unstubAllEnvs());

    /** Prepares a new sandbox, checks what it has, restores it, and tells how its parts and the report say it was compressed. */
    async function compressionOf(options) {
      client = behindNetwork(new LocalSandbox());
      remote = await remoteWorkspace();
      const used = new Set();
      const write = client.writeFile.bind(client);
      client.writeFile = async (at, bytes) => {
        const program = PROGRAMS[Buffer.from(bytes, 0, 2).toString("hex")];
        if (program) used.add(program);
        return write(at, bytes);
      };
      let told;
      const onPrepareReport = ({ archives }) => (told = archives[0].compression);
      const { restoreWorkspace } = await prepare({ onPrepareReport, ...options });
      expect(await describeTree(remote, { without: RUNTIME })).toStrictEqual(await here());
      await writeFile(path.join(remote, "a.txt"), `${remote}\n`);
      await restoreWorkspace();
      expect(await here()).toStrictEqual(await describeTree(remote, { without: RUNTIME }));
      return [told, ...used];
    }

    it("are compressed by zstd if another of its provider had that, until this is forgotten", async () => {
      expect(await compressionOf()).toStrictEqual(["gzip", "gzip"]);
      expect(await compressionOf()).toStrictEqual(["zstd", "zstd"]);
      expect(await compressionOf({ partBytes: undefined })).toStrictEqual(["zstd", "zstd"]);
      expect(await compressionOf({ compression: "none" })).toStrictEqual(["none"]);
      expect(await compressionOf({ adapterKey: "another" })).toStrictEqual(["gzip", "gzip"]);
      await rm(state, { recursive: true });
      expect(await compressionOf()).toStrictEqual(["gzip", "gzip"]);
      vi.stubEnv("PAPERCLIP_HOME", path.join(workspace, "a.txt"));
      expect(await compressionOf()).toStrictEqual(["gzip", "gzip"]);
    });
  });

  it.each([
    [{ partBytes: 1 }, "input.partBytes", "ERR_INVALID_ARG_VALUE"],
    [{ partBytes: 2 ** 31 }, "input.partBytes", "ERR_INVALID_ARG_VALUE"],
    [{ partBytes: "32" }, "input.partBytes", "ERR_INVALID_ARG_TYPE"],
    [{ compression: "best" }, "input.compression", "ERR_INVALID_ARG_VALUE"],
    [{ compression: true }, "input.compression", "ERR_INVALID_ARG_TYPE"],
  ])("%j is refused by name", async (options, name, code) => {
    await expect(prepare(options)).rejects.toMatchObject({ code, message: expect.stringContaining(name) });
    expect(client.calls).toStrictEqual([]);
  });
});

describe("a temporary failure", () => {
  it.each(["makeDir", "writeFile", "readFile"])(
    "of %s is tried again, and the round trip completes",
    async (method) => {
      const call = client[method].bind(client);
      let failures = 2;
      client[method] = async (...args) => {
        if (failures-- > 0) throw passing();
        return call(...args);
      };
      const { restoreWorkspace } = await prepare();
      await writeFile(path.join(remote, "a.txt"), "changed\n");
      await restoreWorkspace();
      expect(failures).toBeLessThan(0);
      expect(await here()).toStrictEqual(await describeTree(remote, { without: RUNTIME }));
    },
  );

  it.each(["none", "auto"])(
    "is final if the client has taken the bytes away (compression %s)",
    async (compression) => {
      behindNetwork(client);
      let attempts = 0;
      client.writeFile = async (_, bytes) => {
        attempts += 1;
        structuredClone(bytes, { transfer: [bytes] });
        throw passing();
      };
      await expect(prepare({ compression, partBytes: undefined })).rejects.toThrow("try again");
      expect(attempts).toBe(1);
    },
  );

  it("is reported if five attempts fail", async () => {
    let attempts = 0;
    const failure = passing();
    client.writeFile = async () => {
      attempts += 1;
      throw failure;
    };
    await expect(prepare()).rejects.toBe(failure);
    expect(attempts).toBe(5);
  });

  it.each([
    ["says nothing of it", new Error("boom")],
    ["says so other than by true", Object.assign(new Error("boom"), { retryable: 1 })],
    ["is no object", "boom"],
    [
      "throws when it is asked",
      Object.defineProperty(new Error("boom"), "retryable", {
        get() {
          throw new Error("no answer");
        },
      }),
    ],
  ])("is none where what was thrown %s", async (_, failure) => {
    let attempts = 0;
    client.writeFile = async () => {
      attempts += 1;
      throw failure;
    };
    await expect(prepare()).rejects.toBe(failure);
    expect(attempts).toBe(1);
  });
});

describe("the files of a failed transfer", () => {
  it("are removed, and a remove that fails or is missing does not change the error", async () => {
    const failure = new Error("boom");
    for (const remove of [
      undefined,
      async () => Promise.reject(new Error("no")),
      client.remove.bind(client),
    ]) {
      client.remove = remove;
      const writeFile = LocalSandbox.prototype.writeFile.bind(client);
      let count = 0;
      client.writeFile = async (...args) => {
        if (++count === 4) throw failure;
        return writeFile(...args);
      };
      await expect(prepare()).rejects.toBe(failure);
    }
    expect(await left()).toStrictEqual([]);
  });
});

describe("progress", () => {
  it("is that of the whole archive, and never decreases", async () => {
    const lines = [];
    client.allowConcurrentSyncOperations = true;
    const writeFile = client.writeFile.bind(client);
    client.writeFile = async (at, bytes, options) => {
      const size = bytes.byteLength;
      for (const share of [0.25, 0.5, 1]) options.onProgress(size * share, size);
      return writeFile(at, bytes, options);
    };
    const { restoreWorkspace } = await prepare({ onProgress: (line) => void lines.push(line) });
    const percents = lines.map((line) => Number(/: (\d+)% \(/.exec(line)[1]));
    expect(percents.length).toBeGreaterThan(5);
    expect(percents).toStrictEqual([...percents].sort((a, b) => a - b));
    expect(lines.filter((line) => line.includes("100%"))).toHaveLength(1);
    for (const line of lines)
      expect(line).toMatch(/^\[paperclip\] Syncing workspace to sandbox: .*\/0\.[78] MB\)/);
    lines.length = 0;
    await restoreWorkspace();
    expect(lines.at(-1)).toMatch(
      /^\[paperclip\] Restoring workspace from sandbox: 100% \(0\.[78]\/0\.[78] MB\)/,
    );
  });
});
