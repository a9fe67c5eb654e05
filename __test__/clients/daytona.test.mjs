// The real SDK of Daytona, against a server on loopback that does on this machine what a sandbox would.

import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { Daytona } from "@daytonaio/sdk";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { createDaytonaClient } from "../../clients/daytona.js";
import { startDaytonaServer } from "./daytona-server.mjs";
import {
  abortedByProgress,
  conformance,
  distinct,
  isRunning,
  processIds,
  SLOW,
  temporaryFolder,
  until,
  withQuickRetries,
} from "./support.mjs";

withQuickRetries();

const AMPLE = { timeoutMs: 60_000 };

let server;

beforeEach(async () => {
  server = await startDaytonaServer();
  onTestFinished(() => server.stop());
});

async function sandboxBy(port) {
  const daytona = new Daytona({
    apiUrl: `http://127.0.0.1:${port}/api`,
    apiKey: "key",
    target: "us",
    useDeprecatedPolling: true,
  });
  return await daytona.get(server.sandboxId);
}

async function newClient(options) {
  return createDaytonaClient(await sandboxBy(server.port), options);
}

describe("the Daytona client", () => {
  it("passes every check of conformance", SLOW, async () => {
    const { failures } = await conformance(await newClient(), { workDir: await temporaryFolder() });
    expect(failures).toEqual([]);
  });

  it("moves files as streams, with progress, and tells that the sandbox is in use", async () => {
    const folder = await temporaryFolder();
    const client = await newClient();
    const bytes = distinct(5_000_000);
    for (const name of ["file", 'it"s\n#1 ü']) {
      const file = path.join(folder, name);
      const reports = [];
      const onProgress = (...report) => void reports.push(report);
      await client.writeFile(file, bytes, { onProgress });
      expect(reports.length).toBeGreaterThan(10);
      expect((await readFile(file)).equals(Buffer.from(bytes))).toBe(true);
      reports.length = 0;
      expect((await client.readFile(file, { onProgress })).equals(Buffer.from(bytes))).toBe(true);
      expect(reports.length).toBeGreaterThan(10);
      expect(reports.at(-1)).toEqual([5_000_000, 5_000_000]);
    }
    expect(await readdir(folder)).toHaveLength(2);
    await until(() => server.refreshes > 0);
  });

  it("tells how a command failed, with its error output alone", async () => {
    const failing = (await newClient()).run("echo out; echo oh no >&2; exit 3", AMPLE);
    await expect(failing).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_FAILED",
      exitCode: 3,
      stderr: "oh no\n",
    });
  });

  it.each([429, 500, 503])("tries a transfer again after a status of %d", async (status) => {
    const seen = new Set();
    server.onRequest = async (route) => {
      if (seen.has(route)) return undefined;
      seen.add(route);
      return { status, headers: { "retry-after": "0" } };
    };
    const folder = await temporaryFolder();
    const client = await newClient();
    await client.writeFile(`${folder}/file`, distinct(1_000_000));
    expect((await client.readFile(`${folder}/file`)).equals(Buffer.from(distinct(1_000_000)))).toBe(true);
    expect(seen).toContain("POST /files/bulk-upload");
    expect(seen).toContain("POST /files/bulk-download");
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("stops where the caller aborts, with the reason, and leaves nothing of an upload", async () => {
    const folder = await temporaryFolder();
    const file = path.join(folder, "file");
    const client = await newClient();
    const upload = abortedByProgress();
    await expect(client.writeFile(file, distinct(20_000_000), upload.options)).rejects.toBe(upload.reason);
    await until(async () => (await readdir(folder)).length === 0);
    await writeFile(file, Buffer.from(distinct(20_000_000)));
    const download = abortedByProgress();
    await expect(client.readFile(file, download.options)).rejects.toBe(download.reason);
  });

  it("rejects with what its listener threw, as the very same value", async () => {
    const folder = await temporaryFolder();
    const reason = new Error("no more");
    const onProgress = () => Promise.reject(reason);
    const client = await newClient();
    await expect(client.writeFile(`${folder}/file`, distinct(1_000_000), { onProgress })).rejects.toBe(
      reason,
    );
    await until(async () => (await readdir(folder)).length === 0);
  });

  it("ends a command, and what it started, where the caller aborts and when its time is up", async () => {
    const controller = new AbortController();
    for (const options of [{ timeoutMs: 3_000 }, { ...AMPLE, signal: controller.signal }]) {
      const pids = path.join(await temporaryFolder(), "pids");
      const running = (await newClient()).run(`setsid sh -c 'echo $$ > "${pids}"; exec sleep 1000'`, options);
      running.catch(() => {});
      const [pid] = await processIds(pids);
      if (options.signal) controller.abort("enough");
      await (options.signal
        ? expect(running).rejects.toBe("enough")
        : expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT" }));
      await until(async () => !(await isRunning(pid)));
    }
  });

  it("refuses a file beyond maxDownloadBytes, a missing one, and a folder's place", async () => {
    const folder = await temporaryFolder();
    await writeFile(`${folder}/file`, Buffer.alloc(1_000));
    await expect(
      (await newClient({ maxDownloadBytes: 999 })).readFile(`${folder}/file`),
    ).rejects.toMatchObject({
      code: "ERR_SANDBOX_DOWNLOAD_TOO_LARGE",
    });
    const client = await newClient();
    await expect(client.readFile(`${folder}/missing`)).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_FAILED",
    });
    await expect(client.writeFile(folder, distinct(1))).rejects.toThrow("is a directory");
  });

  it("refuses what it cannot use, by name", async () => {
    const client = await newClient();
    await expect(client.readFile("file")).rejects.toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
    await expect(client.run("true", { timeoutMs: -1 })).rejects.toMatchObject({
      code: "ERR_INVALID_ARG_VALUE",
    });
    expect(() => createDaytonaClient(undefined)).toThrow(
      /'sandbox' must be a Sandbox of the @daytonaio\/sdk/,
    );
    expect(() => createDaytonaClient({}, null)).toThrow(/'options'/);
    expect(() => createDaytonaClient({}, { deadlineMs: -1 })).toThrow(/'deadlineMs'/);
    expect(() => createDaytonaClient({}, { maxDownloadBytes: "1" })).toThrow(/'maxDownloadBytes'/);
  });
});
