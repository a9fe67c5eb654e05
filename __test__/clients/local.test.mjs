import { execFile } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { mkdir, open, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { describe, expect, it, vi } from "vitest";
import { createLocalClient } from "../../clients/local.js";
import {
  abortedByProgress,
  conformance,
  distinct,
  isRunning,
  pace,
  processIds,
  SLOW,
  temporaryFolder,
  until,
  withManualTime,
} from "./support.mjs";

const AMPLE = { timeoutMs: 30_000 };

describe("the local client", () => {
  it("passes every check of conformance", SLOW, async () => {
    const root = await temporaryFolder();
    const { passed, failures } = await conformance(() => createLocalClient({ root }), { workDir: root });
    expect(failures).toEqual([]);
    expect(passed).toBe(true);
  });

  it("refuses paths outside of its root, naming both", async () => {
    const root = await temporaryFolder();
    const inside = path.join(root, "inside");
    await mkdir(inside);
    const client = createLocalClient({ root: inside });
    await client.makeDir(inside);
    for (const outside of [root, `${inside}/../other`, `${inside}-not`, "/"]) {
      const calls = [
        client.makeDir(outside),
        client.writeFile(outside, new ArrayBuffer(1)),
        client.readFile(outside),
        client.listFiles(outside),
        client.remove(outside),
      ];
      for (const result of await Promise.allSettled(calls)) {
        expect(result.reason).toMatchObject({ code: "ERR_SANDBOX_UNSAFE_PATH" });
        expect(result.reason.message).toContain(outside);
        expect(result.reason.message).toContain(inside);
      }
    }
  });

  it("takes the root of the file system for its root", async () => {
    const folder = await temporaryFolder();
    await createLocalClient({ root: "/" }).writeFile(path.join(folder, "file"), new Uint8Array([7]).buffer);
    expect([...(await readFile(path.join(folder, "file")))]).toEqual([7]);
  });

  it.each(["relative/path", "", "nul\0", undefined])("refuses %j for a remote path", async (remotePath) => {
    await expect(createLocalClient().remove(remotePath)).rejects.toMatchObject({
      code: "ERR_INVALID_ARG_VALUE",
    });
  });

  it.each([0, -1, Number.NaN, "5", undefined])("refuses %j for timeoutMs", async (timeoutMs) => {
    const running = createLocalClient().run("true", { timeoutMs });
    await expect(running).rejects.toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
  });

  it.each([2 ** 31, Number.POSITIVE_INFINITY])(
    "does not stop a command early when timeoutMs is %d",
    async (timeoutMs) => {
      await createLocalClient().run("sleep 0.2", { timeoutMs });
    },
  );

  it("hands over the environment and uses the shell that it was given", async () => {
    const folder = await temporaryFolder();
    const shell = path.join(folder, "shell");
    await writeFile(shell, '#!/bin/sh\nVIA_SHELL=yes exec sh "$@"\n', { mode: 0o755 });
    const client = createLocalClient({ shell, env: { GREETING: "hello" } });
    await client.run(`printf %s "$GREETING $VIA_SHELL $HOME" > '${folder}/out'`, AMPLE);
    expect(await readFile(path.join(folder, "out"), "utf8")).toBe(`hello yes ${process.env.HOME}`);
  });

  it("tells how a command failed, with the end of its error output", async () => {
    const client = createLocalClient();
    const error = await client.run("seq 1 100000 >&2; exit 3", AMPLE).catch((reason) => reason);
    expect(error).toMatchObject({ code: "ERR_SANDBOX_COMMAND_FAILED", exitCode: 3 });
    expect(error.message).toContain("exit code 3: seq 1 100000 >&2; exit 3\nstderr: …");
    expect(error.message).toMatch(/\n99999\n100000$/);
    expect(error.message.length).toBeLessThan(5_000);

    const killed = await client.run("kill -KILL $$", AMPLE).catch((reason) => reason);
    expect(killed).toMatchObject({ code: "ERR_SANDBOX_COMMAND_FAILED", exitCode: null });
    expect(killed.message).toContain("was ended by SIGKILL");
  });

  it("rejects when the shell cannot be started", async () => {
    const running = createLocalClient({ shell: "/nowhere/sh" }).run("true", AMPLE);
    await expect(running).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("ends all that a command started when its time is up", async () => {
    const pids = path.join(await temporaryFolder(), "pids");
    withManualTime();
    const command = `exec >> '${pids}'; sh -c 'echo $$; exec sleep 1000' & echo $$; wait`;
    const running = createLocalClient().run(command, { timeoutMs: 60_000 });
    const started = await processIds(pids, 2);
    vi.advanceTimersByTime(59_999);
    expect(await Promise.all(started.map(isRunning))).toEqual([true, true]);
    vi.advanceTimersByTime(1);
    await expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT", timeoutMs: 60_000 });
    for (const pid of started) await until(async () => !(await isRunning(pid)));
  });

  it("does not wait for a process that left the group when the time is up", async () => {
    const pids = path.join(await temporaryFolder(), "pids");
    withManualTime();
    const running = createLocalClient().run(`setsid sh -c 'echo $$ > "${pids}"; exec sleep 1000'`, AMPLE);
    const [runaway] = await processIds(pids);
    vi.advanceTimersByTime(AMPLE.timeoutMs);
    await expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT" });
    process.kill(Number(runaway), "SIGKILL");
  });

  it("lists plain files only, and nothing for a folder that is missing", async () => {
    const root = await temporaryFolder();
    await writeFile(path.join(root, "file"), "");
    await symlink("file", path.join(root, "link"));
    const client = createLocalClient();
    expect(await client.listFiles(root)).toEqual(["file"]);
    expect(await client.listFiles(path.join(root, "missing"))).toEqual([]);
    await expect(client.listFiles(path.join(root, "file"))).rejects.toMatchObject({ code: "ENOTDIR" });
  });

  it("creates the folders above a file, and reports progress in order up to the end", async () => {
    const file = path.join(await temporaryFolder(), "new", "file");
    const client = createLocalClient();
    const total = 1_000_000;
    for (const transfer of ["writeFile", "readFile"]) {
      const reports = [];
      const onProgress = async (...report) => void reports.push(report);
      await (transfer === "writeFile"
        ? client.writeFile(file, new ArrayBuffer(total), { onProgress })
        : client.readFile(file, { onProgress }));
      expect(reports.length).toBeGreaterThan(2);
      expect(reports.map(([done]) => done)).toEqual(reports.map(([done]) => done).toSorted((a, b) => a - b));
      expect(new Set(reports.map(([done]) => done)).size).toBe(reports.length);
      expect(reports.every(([, of]) => of === total)).toBe(true);
      expect(reports.at(-1)).toEqual([total, total]);
    }
  });

  it("fails a transfer whose progress listener fails, with the listener's own error", async () => {
    const file = path.join(await temporaryFolder(), "file");
    const client = createLocalClient();
    await client.writeFile(file, new ArrayBuffer(1_000_000));
    const reason = new Error("no more");
    const onProgress = () => Promise.reject(reason);
    await expect(client.writeFile(file, new ArrayBuffer(1_000_000), { onProgress })).rejects.toBe(reason);
    await expect(client.readFile(file, { onProgress })).rejects.toBe(reason);
  });

  it("stops a transfer where the caller aborts, with the reason, and leaves the old file alone", async () => {
    const folder = await temporaryFolder();
    const file = path.join(folder, "file");
    const client = createLocalClient();
    await client.writeFile(file, distinct(1_000_000));
    for (const transfer of [
      (options) => client.writeFile(file, distinct(2_000_000), options),
      (options) => client.readFile(file, options),
    ]) {
      const { reason, options } = abortedByProgress();
      await expect(transfer(options)).rejects.toBe(reason);
    }
    expect((await readFile(file)).equals(Buffer.from(distinct(1_000_000)))).toBe(true);
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("ends a command, and what it started, where the caller aborts", async () => {
    const pids = path.join(await temporaryFolder(), "pids");
    const controller = new AbortController();
    const command = `sh -c 'echo $$ > "${pids}"; exec sleep 1000' & wait`;
    const running = createLocalClient().run(command, { ...AMPLE, signal: controller.signal });
    running.catch(() => {});
    const [pid] = await processIds(pids);
    controller.abort("enough");
    await expect(running).rejects.toBe("enough");
    await until(async () => !(await isRunning(pid)));
    const aborted = { ...AMPLE, signal: controller.signal };
    await expect(createLocalClient().run(`echo late >> '${pids}'`, aborted)).rejects.toBe("enough");
    expect(await readFile(pids, "utf8")).toBe(`${pid}\n`);
  });

  it("refuses a file beyond maxDownloadBytes, and what it cannot use, by name", async () => {
    const file = path.join(await temporaryFolder(), "file");
    await writeFile(file, Buffer.alloc(1_000));
    await expect(createLocalClient({ maxDownloadBytes: 999 }).readFile(file)).rejects.toMatchObject({
      code: "ERR_SANDBOX_DOWNLOAD_TOO_LARGE",
    });
    await expect(createLocalClient().writeFile(file, "text")).rejects.toMatchObject({
      code: "ERR_INVALID_ARG_TYPE",
    });
    const bad = { root: "", shell: "", env: "A=1", deadlineMs: -1, maxDownloadBytes: 0 };
    for (const [name, value] of Object.entries(bad)) {
      expect(() => createLocalClient({ [name]: value })).toThrow(`'${name}'`);
    }
    expect(() => createLocalClient(null)).toThrow("'options'");
  });

  it("refuses to read what is no regular file, and waits for no other end of a pipe", async () => {
    const folder = await temporaryFolder();
    const pipe = path.join(folder, "pipe");
    await promisify(execFile)("mkfifo", [pipe]);
    const client = createLocalClient();
    await expect(client.readFile(pipe)).rejects.toThrow(`${pipe} is not a regular file`);
    await expect(client.readFile(folder)).rejects.toMatchObject({ code: "EISDIR" });
    await expect(client.readFile("/dev/zero")).rejects.toMatchObject({ code: "EINVAL" });
  });

  it("ends every call at its deadline where the system does not answer", async () => {
    const folder = await temporaryFolder();
    const pipe = path.join(folder, "pipe");
    await promisify(execFile)("mkfifo", [pipe]);
    // Opening a pipe without another end waits, in one of the few threads that serve all such calls.
    const threads = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
    const opening = Array.from({ length: threads }, () => open(pipe, "r"));
    const { graceMs } = pace;
    pace.graceMs = 100;
    const client = createLocalClient({ deadlineMs: 100 });
    const calls = [
      client.makeDir(`${folder}/new`),
      client.writeFile(`${folder}/file`, new ArrayBuffer(1)),
      client.readFile(`${folder}/file`),
      client.listFiles(folder),
      client.remove(`${folder}/file`),
    ];
    const ended = await Promise.allSettled(calls);
    pace.graceMs = graceMs;
    const other = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
    await Promise.all(opening.map(async (opened) => (await opened).close()));
    closeSync(other);
    for (const { reason } of ended) {
      expect(reason).toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT", timeoutMs: 100 });
    }
  });
});
