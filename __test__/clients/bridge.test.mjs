// The client for Cloudflare's bridge, against a server on loopback that answers as its documentation and source say.

import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { createCloudflareBridgeClient } from "../../clients/cloudflare.js";
import { startBridge } from "./bridge-server.mjs";
import { startCuttingProxy } from "./cutting-proxy.mjs";
import {
  abortedByProgress,
  conformance,
  deferred,
  distinct,
  isRunning,
  pace,
  processIds,
  SLOW,
  temporaryFolder,
  until,
  withQuickRetries,
} from "./support.mjs";

withQuickRetries();

const AMPLE = { timeoutMs: 60_000 };

let workspace, bridge;

beforeEach(async () => {
  workspace = await temporaryFolder();
  bridge = await startBridge(workspace);
  onTestFinished(() => bridge.stop());
});

function newClient(options) {
  return createCloudflareBridgeClient({ ...bridge.options, ...options });
}

async function throughProxy() {
  const proxy = await startCuttingProxy(bridge.port);
  onTestFinished(() => proxy.stop());
  return { proxy, client: newClient({ url: proxy.url }) };
}

describe("the client for Cloudflare's bridge", () => {
  it("passes every check of conformance", SLOW, async () => {
    const { failures } = await conformance(newClient(), { workDir: workspace });
    expect(failures).toEqual([]);
  });

  it.each([0, 1, 9, 10, 11, 20, 25])(
    "moves %d bytes in parts of 10, and leaves nothing beside them",
    async (size) => {
      const client = newClient({ partBytes: 10 });
      for (const name of ["file", "it's #1 50% ?.tar"]) {
        const file = path.join(workspace, name);
        await writeFile(file, "what was there before");
        const reports = [];
        const onProgress = (...report) => void reports.push(report);
        await client.writeFile(file, distinct(size), { onProgress });
        expect(await readFile(file)).toEqual(Buffer.from(distinct(size)));
        expect(await client.readFile(file, { onProgress })).toEqual(Buffer.from(distinct(size)));
        expect(reports.filter(([done]) => done === size)).toHaveLength(2);
        expect(reports.every(([, total]) => total === size)).toBe(true);
      }
      expect((await readdir(workspace)).toSorted()).toEqual(["file", "it's #1 50% ?.tar"]);
      expect(bridge.requests.filter((route) => route === "PUT file")).toHaveLength(
        2 * Math.max(1, Math.ceil(size / 10)),
      );
    },
  );

  it("sends up to four parts at once", async () => {
    const release = deferred();
    let waiting = 0;
    bridge.onRequest = async (route) => {
      if (route !== "PUT file") return;
      waiting += 1;
      if (waiting === 4) release.resolve();
      await release.promise;
    };
    await newClient({ partBytes: 100_000 }).writeFile(path.join(workspace, "file"), distinct(1_000_000));
    expect(waiting).toBe(10);
    expect(bridge.mostAtOnce).toBeLessThanOrEqual(4);
  });

  it("tells how a command failed, whatever it prints", async () => {
    const failing = newClient().run("head -c 500000 /dev/zero; printf 'oh\\n\\nno: ü' >&2; exit 3", AMPLE);
    await expect(failing).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_FAILED",
      exitCode: 3,
      stderr: "oh\n\nno: ü",
    });
  });

  it("has a silent command print a sign of life, and leaves no process of that", async () => {
    const { heartbeatMs } = pace;
    onTestFinished(() => void (pace.heartbeatMs = heartbeatMs));
    pace.heartbeatMs = 321_000;
    await newClient().run("exit 0", AMPLE);
    const { stdout } = await promisify(execFile)("ps", ["-eo", "args"]);
    expect(stdout).not.toMatch(/^sleep 321$/m);
    pace.heartbeatMs = 200;
    const failing = newClient().run("echo unheard; sleep 1; exit 9", AMPLE);
    await expect(failing).rejects.toMatchObject({ exitCode: 9 });
    expect(bridge.outputs).toBeGreaterThan(1);
  });

  it("tells what the bridge refuses, and does not try that again", async () => {
    const refused = { code: "ERR_SANDBOX_REQUEST_FAILED", status: 401 };
    const client = newClient({ token: "another" });
    await expect(client.run("true", AMPLE)).rejects.toMatchObject(refused);
    await expect(client.makeDir(path.join(workspace, "new"))).rejects.toMatchObject(refused);
    expect(bridge.requests).toHaveLength(2);
  });

  it.each([429, 500, 502, 503])("tries a transfer again after a status of %d", async (status) => {
    const seen = new Set();
    bridge.onRequest = async (route) => {
      if (seen.has(route)) return undefined;
      seen.add(route);
      return { status, headers: { "retry-after": "0" } };
    };
    const client = newClient();
    const file = path.join(workspace, "file");
    await client.writeFile(file, distinct(1_000));
    expect(await client.readFile(file)).toEqual(Buffer.from(distinct(1_000)));
    expect(seen).toEqual(new Set(["PUT file", "POST exec", "GET file"]));
    expect(await readdir(workspace)).toEqual(["file"]);
  });

  it("waits as long as the bridge asks for", async () => {
    const times = [];
    bridge.onRequest = async () => {
      times.push(performance.now());
      return times.length === 1 ? { status: 429, headers: { "retry-after": "1" } } : undefined;
    };
    await newClient().run("true", AMPLE);
    expect(times).toHaveLength(2);
    expect(times[1] - times[0]).toBeGreaterThan(900);
  });

  it("tries no command again that may have begun", async () => {
    bridge.onRequest = async () => ({ status: 500 });
    await expect(newClient().run("true", AMPLE)).rejects.toMatchObject({ status: 500 });
    expect(bridge.requests).toHaveLength(1);
    const { proxy, client } = await throughProxy();
    bridge.onRequest = async () => {};
    proxy.cutAfter(0);
    await expect(client.run("true", AMPLE)).rejects.toMatchObject({ code: "ERR_SANDBOX_CONNECTION_LOST" });
  });

  it("stops where the caller aborts, with the reason, and leaves nothing of an upload", async () => {
    const client = newClient({ partBytes: 1_000_000 });
    const file = path.join(workspace, "file");
    const upload = abortedByProgress();
    await expect(client.writeFile(file, distinct(20_000_000), upload.options)).rejects.toBe(upload.reason);
    await until(async () => (await readdir(workspace)).length === 0);
    await writeFile(file, Buffer.from(distinct(20_000_000)));
    const download = abortedByProgress();
    await expect(client.readFile(file, download.options)).rejects.toBe(download.reason);
    await until(async () => (await readdir(workspace)).length === 1);
  });

  it("ends a command, and what it started, where the caller aborts and when its time is up", async () => {
    const controller = new AbortController();
    for (const options of [{ timeoutMs: 3_000 }, { ...AMPLE, signal: controller.signal }]) {
      const pids = path.join(await temporaryFolder(), "pids");
      const running = newClient().run(`setsid sh -c 'echo $$ > "${pids}"; exec sleep 1000'`, options);
      running.catch(() => {});
      const [pid] = await processIds(pids);
      if (options.signal) controller.abort("enough");
      await (options.signal
        ? expect(running).rejects.toBe("enough")
        : expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT" }));
      await until(async () => !(await isRunning(pid)));
    }
  });

  it("notices bytes that get lost", async () => {
    const client = newClient({ partBytes: 10, deadlineMs: 60_000 });
    const incomplete = { code: "ERR_SANDBOX_TRANSFER_INCOMPLETE" };
    bridge.onRequest = async (route, requests) => {
      // The last part is emptied before the parts are joined.
      if (route !== "POST exec" || requests.at(-2) !== "PUT file") return;
      for (const name of await readdir(workspace)) {
        if (name.endsWith(".2.part")) await writeFile(path.join(workspace, name), "");
      }
    };
    await expect(client.writeFile(path.join(workspace, "file"), distinct(30))).rejects.toMatchObject(
      incomplete,
    );
    expect(await readdir(workspace)).toEqual([]);
  });

  it("refuses to write over a folder, to read what is missing, and what lies elsewhere", async () => {
    const client = newClient();
    const failed = { code: "ERR_SANDBOX_COMMAND_FAILED" };
    await client.makeDir(path.join(workspace, "folder"));
    await expect(client.writeFile(path.join(workspace, "folder"), distinct(1))).rejects.toThrow(
      "is a directory",
    );
    await expect(client.readFile(path.join(workspace, "missing"))).rejects.toMatchObject(failed);
    for (const elsewhere of ["/etc/passwd", `${workspace}/../x`, `${workspace}x`]) {
      await expect(client.readFile(elsewhere)).rejects.toThrow(`must lie in ${workspace}`);
    }
    expect(await readdir(path.join(workspace, "folder"))).toEqual([]);
  });

  it("refuses a file beyond maxDownloadBytes, and ends a call at its deadline", async () => {
    const file = path.join(workspace, "file");
    await writeFile(file, Buffer.alloc(1_000));
    await expect(newClient({ maxDownloadBytes: 999 }).readFile(file)).rejects.toMatchObject({
      code: "ERR_SANDBOX_DOWNLOAD_TOO_LARGE",
    });
    const hanging = deferred();
    bridge.onRequest = () => hanging.promise;
    await expect(newClient({ deadlineMs: 300 }).makeDir(file)).rejects.toMatchObject({ timeoutMs: 300 });
    hanging.resolve();
    await stat(file);
  });

  it("refuses options that cannot be used, by name, and never shows the token", () => {
    const bad = {
      url: [undefined, "", "bridge", "ftp://x", "http://x/?y", 5],
      token: ["", "two words", "line\nbreak"],
      sandboxId: [undefined, "", "UPPER", "a/b", "0"],
      apiPrefix: ["v1", "/v1?", 5],
      workspace: ["workspace", "/", 5],
      partBytes: [0, 33_554_433, 1.5],
      concurrency: [0, 17],
      deadlineMs: [-1],
      maxDownloadBytes: [0],
    };
    for (const [name, values] of Object.entries(bad)) {
      for (const value of values) {
        let message = "";
        try {
          newClient({ [name]: value });
        } catch (error) {
          message = error.message;
        }
        expect(message, `${name}: ${value}`).toContain(`'${name}'`);
        if (name === "token" && value) expect(message).not.toContain(value);
      }
    }
    expect(() => createCloudflareBridgeClient()).toThrow(/'options'/);
  });
});
