import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { ATTEMPTS } from "../../clients/attempts.js";
import { cloudflareSandboxOptions, createCloudflareClient } from "../../clients/cloudflare.js";
import { cloudflareSandbox } from "./cloudflare-sandbox.mjs";
import {
  abortedByProgress,
  conformance,
  deferred,
  distinct,
  isRunning,
  manualTimers,
  pace,
  processIds,
  SLOW,
  temporaryFolder,
  until,
  withManualTime,
  withQuickRetries,
} from "./support.mjs";

withQuickRetries();

const AMPLE = { timeoutMs: 30_000 };

function newSandbox(options) {
  const sandbox = cloudflareSandbox(options);
  onTestFinished(() => sandbox.stop());
  return sandbox;
}

describe("the Cloudflare client", () => {
  it(
    "passes every check of conformance, on a sandbox that takes no message above Cloudflare's 32 MiB",
    SLOW,
    async () => {
      const sandbox = newSandbox({ longestMessage: 32 * 1024 * 1024 });
      const { failures } = await conformance(createCloudflareClient(sandbox), {
        workDir: await temporaryFolder(),
      });
      expect(failures).toEqual([]);
    },
  );

  it.each([0, 1, 9, 10, 11, 20, 25])(
    "moves a file of %d bytes in parts of 10, and leaves nothing beside it",
    async (size) => {
      const sandbox = newSandbox();
      const folder = await temporaryFolder();
      const file = path.join(folder, "it's a file");
      await writeFile(file, "what was there before");
      const client = createCloudflareClient(sandbox, { chunkBytes: 10 });
      const bytes = distinct(size);
      const reports = [];
      const onProgress = async (...report) => void reports.push(report);

      await client.writeFile(file, bytes, { onProgress });
      expect(await readFile(file)).toEqual(Buffer.from(bytes));
      expect(sandbox.written).toBe(Math.max(1, Math.ceil(size / 10)));
      expect(await client.readFile(file, { onProgress })).toEqual(Buffer.from(bytes));
      expect(await readdir(folder)).toEqual(["it's a file"]);
      const expected = [...(size > 10 ? [[10, size]] : []), ...(size > 20 ? [[20, size]] : []), [size, size]];
      expect(reports).toEqual([...expected, ...expected]);
    },
  );

  it("removes the parts of a transfer that fails, and passes on why", async () => {
    const sandbox = newSandbox();
    const folder = await temporaryFolder();
    const client = createCloudflareClient(sandbox, { chunkBytes: 10 });
    const reason = new Error("no more");
    const onProgress = () => Promise.reject(reason);
    await expect(client.writeFile(path.join(folder, "new"), distinct(100), { onProgress })).rejects.toBe(
      reason,
    );
    expect(await readdir(folder)).toEqual([]);
    await writeFile(path.join(folder, "old"), Buffer.from(distinct(100)));
    await expect(client.readFile(path.join(folder, "old"), { onProgress })).rejects.toBe(reason);
    expect(await readdir(folder)).toEqual(["old"]);
  });

  it("notices bytes that get lost", async () => {
    const sandbox = newSandbox();
    const folder = await temporaryFolder();
    const file = path.join(folder, "file");
    const { writeFile: write, readFile: read } = sandbox;
    const incomplete = { code: "ERR_SANDBOX_TRANSFER_INCOMPLETE" };
    const client = createCloudflareClient(sandbox, { chunkBytes: 10 });

    sandbox.writeFile = (target, content, options) => write(target, content.slice(4), options);
    await expect(client.writeFile(file, distinct(100))).rejects.toMatchObject(incomplete);
    expect(await readdir(folder)).toEqual([]);

    await writeFile(file, Buffer.from(distinct(100)));
    sandbox.readFile = async (...args) => ({ content: (await read(...args)).content.slice(4) });
    await expect(client.readFile(file)).rejects.toMatchObject(incomplete);
    await writeFile(file, "short");
    await expect(client.readFile(file)).rejects.toMatchObject(incomplete);
  });

  it("refuses to write over a folder, also in parts", async () => {
    const sandbox = newSandbox();
    const folder = await temporaryFolder();
    const client = createCloudflareClient(sandbox, { chunkBytes: 10 });
    await expect(client.writeFile(folder, distinct(100))).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_FAILED",
    });
    expect(await readdir(folder)).toEqual([]);
  });

  it("tells how a command failed, and the session lives on", async () => {
    const client = createCloudflareClient(newSandbox());
    const failing = client.run("echo oh no >&2; exit 3", AMPLE);
    await expect(failing).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_FAILED",
      exitCode: 3,
      message: "the sandbox command failed with exit code 3: echo oh no >&2; exit 3\nstderr: oh no",
    });
    await client.run("true", AMPLE);
  });

  it("gives up on a command when its time is up, and ends it in the sandbox", async () => {
    const sandbox = newSandbox();
    const pids = path.join(await temporaryFolder(), "pids");
    const client = createCloudflareClient(sandbox);
    const command = `(sh -c 'echo $$ > "${pids}"; exec sleep 1000'); true`;
    const running = client.run(command, { timeoutMs: 3_000 });
    await expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT", timeoutMs: 3_000 });
    const [pid] = await processIds(pids);
    await until(async () => !(await isRunning(pid)));
    await client.run("true", AMPLE);
  });

  it("lists plain files only, and nothing for a folder that is missing", async () => {
    const folder = await temporaryFolder();
    await writeFile(path.join(folder, "file"), "");
    await symlink("file", path.join(folder, "link"));
    const client = createCloudflareClient(newSandbox());
    expect(await client.listFiles(folder)).toEqual(["file"]);
    expect(await client.listFiles(path.join(folder, "missing"))).toEqual([]);
  });

  it("tries a part again after what the SDK calls retryable", async () => {
    const sandbox = newSandbox();
    const file = path.join(await temporaryFolder(), "file");
    const client = createCloudflareClient(sandbox, { chunkBytes: 10 });
    for (const method of ["writeFile", "readFile"]) {
      const work = sandbox[method];
      let calls = 0;
      sandbox[method] = async (...args) => {
        calls += 1;
        if (calls % 2 === 0) throw Object.assign(new Error("reset"), { retryable: true });
        return await work(...args);
      };
    }
    await client.writeFile(file, distinct(35));
    expect(await client.readFile(file)).toEqual(Buffer.from(distinct(35)));
  });

  it.each(["writeFile", "readFile", "exec"])(
    "is completed although the connection is cut, at each of ten calls of %s",
    async (method) => {
      const sandbox = newSandbox();
      const folder = await temporaryFolder();
      const client = createCloudflareClient(sandbox, { chunkBytes: 100 });
      const bytes = distinct(1_000);
      const work = sandbox[method];
      let left;
      sandbox[method] = async (target, ...args) => {
        left -= 1;
        if (left !== -1) return await work(target, ...args);
        // What was asked for happens, in part where it is an upload; the answer is lost.
        if (method === "writeFile") args[0] = args[0].slice(0, 40);
        await work(target, ...args);
        throw Object.assign(new Error("Network connection lost."), { retryable: true });
      };
      for (let place = 0; place < 10; place += 1) {
        const file = path.join(folder, String(place));
        left = place;
        if (method !== "readFile") await client.writeFile(file, bytes);
        else await writeFile(file, Buffer.from(bytes));
        expect(await readFile(file)).toEqual(Buffer.from(bytes));
        if (method !== "writeFile") expect(await client.readFile(file)).toEqual(Buffer.from(bytes));
        expect(left).toBeLessThan(0);
      }
      left = Number.POSITIVE_INFINITY;
      expect(await readdir(folder)).toEqual(Array.from({ length: 10 }, (_, place) => String(place)));
    },
  );

  it.each([false, true])(
    "counts a transfer as lost when nothing has moved for a minute, and tries it again (streams: %s)",
    async (streams) => {
      withManualTime();
      const sandbox = newSandbox();
      const calls = [];
      for (const method of ["writeFile", "readFile"]) {
        sandbox[method] = () => {
          calls.push(method);
          return new Promise(() => {});
        };
      }
      sandbox.exec = async () => ({ exitCode: 0, stdout: "1000", stderr: "" });
      const client = createCloudflareClient(sandbox, { streams, chunkBytes: 100 });
      for (const [method, transfer] of [
        ["writeFile", () => client.writeFile("/work/file", distinct(1_000))],
        ["readFile", () => client.readFile("/work/file")],
      ]) {
        calls.length = 0;
        const lost = expect(transfer(), method).rejects.toMatchObject({
          code: "ERR_SANDBOX_CONNECTION_LOST",
          message: expect.stringContaining("Nothing moved for 60000 ms."),
          retryable: true,
        });
        for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
          await until(() => calls.length === attempt);
          await vi.advanceTimersByTimeAsync(59_999);
          expect(calls).toHaveLength(attempt);
          // The call that hangs has some time left to clean up.
          await vi.advanceTimersByTimeAsync(1 + pace.graceMs);
        }
        await lost;
        expect(calls).toEqual(Array(ATTEMPTS).fill(method));
      }
    },
  );

  it("does not count a slow stream as lost while something moves", async () => {
    withManualTime();
    const sandbox = newSandbox();
    sandbox.exec = async () => ({ exitCode: 0, stdout: "1000", stderr: "" });
    let given = 0;
    sandbox.readFile = async () => ({
      content: (async function* () {
        for (; given < 10; given += 1) {
          await new Promise((resolve) => setTimeout(resolve, 59_000));
          yield Buffer.alloc(100, given);
        }
      })(),
    });
    const client = createCloudflareClient(sandbox, { streams: true, chunkBytes: 100 });
    const reading = client.readFile("/work/file");
    for (let chunk = 1; chunk <= 10; chunk += 1) {
      await until(() => vi.getTimerCount() >= 3);
      await vi.advanceTimersByTimeAsync(59_000);
      await until(() => given === chunk);
    }
    expect(await reading).toHaveLength(1_000);
  });

  it("stops a transfer where the caller aborts, with the reason, and leaves nothing beside it", async () => {
    const folder = await temporaryFolder();
    const client = createCloudflareClient(newSandbox(), { chunkBytes: 10 });
    const upload = abortedByProgress();
    const file = path.join(folder, "file");
    await expect(client.writeFile(file, distinct(100), upload.options)).rejects.toBe(upload.reason);
    expect(await readdir(folder)).toEqual([]);
    await writeFile(file, Buffer.from(distinct(100)));
    const download = abortedByProgress();
    await expect(client.readFile(file, download.options)).rejects.toBe(download.reason);
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("ends a command where the caller aborts, over a session of its own where the SDK has them", async () => {
    const sandbox = newSandbox();
    const other = newSandbox();
    sandbox.createSession = async () => other;
    sandbox.deleteSession = async () => {};
    const pids = path.join(await temporaryFolder(), "pids");
    const controller = new AbortController();
    const running = createCloudflareClient(sandbox).run(
      `setsid sh -c 'echo $$ > "${pids}"; exec sleep 1000'`,
      {
        ...AMPLE,
        signal: controller.signal,
      },
    );
    running.catch(() => {});
    const [pid] = await processIds(pids);
    controller.abort("enough");
    await expect(running).rejects.toBe("enough");
    await until(async () => !(await isRunning(pid)));
  });

  it("hands over streams where it is told that the sandbox takes them", async () => {
    const sandbox = newSandbox();
    const folder = await temporaryFolder();
    const file = path.join(folder, "file");
    const client = createCloudflareClient(sandbox, { streams: true, chunkBytes: 1_000 });
    const reports = [];
    await client.writeFile(file, distinct(1_000_000), { onProgress: (done) => void reports.push(done) });
    expect(reports.length).toBeGreaterThan(2);
    expect((await client.readFile(file)).equals(Buffer.from(distinct(1_000_000)))).toBe(true);
    expect(await readdir(folder)).toEqual(["file"]);
    const reason = new Error("no more");
    const onProgress = () => Promise.reject(reason);
    await expect(client.writeFile(`${folder}/new`, distinct(1_000_000), { onProgress })).rejects.toBe(reason);
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("refuses a file beyond maxDownloadBytes, and ends a call at its deadline", async () => {
    const sandbox = newSandbox();
    const file = path.join(await temporaryFolder(), "file");
    await writeFile(file, Buffer.alloc(1_000));
    await expect(
      createCloudflareClient(sandbox, { maxDownloadBytes: 999 }).readFile(file),
    ).rejects.toMatchObject({
      code: "ERR_SANDBOX_DOWNLOAD_TOO_LARGE",
    });
    sandbox.mkdir = () => new Promise(() => {});
    await expect(
      createCloudflareClient(sandbox, { deadlineMs: 200 }).makeDir("/folder"),
    ).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_TIMEOUT",
    });
  });

  it("refuses relative paths, and options that cannot be used", async () => {
    const invalid = { code: "ERR_INVALID_ARG_VALUE" };
    const sandbox = newSandbox();
    await expect(createCloudflareClient(sandbox).readFile("file")).rejects.toMatchObject(invalid);
    await expect(createCloudflareClient(sandbox).run("true", {})).rejects.toMatchObject(invalid);
    expect(sandbox.commands).toEqual([]);
    for (const sleepAfter of ["", "0", 0, -1, "1d", "soon", null]) {
      expect(() => createCloudflareClient(sandbox, { sleepAfter })).toThrow(expect.objectContaining(invalid));
    }
    for (const chunkBytes of [0, 1.5, Number.NaN, "10"]) {
      expect(() => createCloudflareClient(sandbox, { chunkBytes })).toThrow(expect.objectContaining(invalid));
    }
    expect(() => createCloudflareClient(undefined)).toThrow(/'sandbox' must be a sandbox of the @cloudflare/);
    expect(() => createCloudflareClient(sandbox, null)).toThrow(/'options'/);
    for (const [name, value] of Object.entries({
      keepAlive: 1,
      streams: "yes",
      deadlineMs: -1,
      maxDownloadBytes: 0,
    })) {
      expect(() => createCloudflareClient(sandbox, { [name]: value })).toThrow(`'${name}'`);
    }
  });
});

describe("the options for a Cloudflare sandbox", () => {
  it("let it sleep after an hour, unless told otherwise", () => {
    expect(cloudflareSandboxOptions()).toEqual({ sleepAfter: "1h" });
    expect(cloudflareSandboxOptions({ normalizeId: true })).toEqual({ sleepAfter: "1h", normalizeId: true });
    expect(cloudflareSandboxOptions({ sleepAfter: "5m" })).toEqual({ sleepAfter: "5m" });
    expect(cloudflareSandboxOptions({ sleepAfter: undefined })).toEqual({ sleepAfter: "1h" });
    expect(cloudflareSandboxOptions({ keepAlive: false })).toEqual({ sleepAfter: "1h", keepAlive: false });
  });

  it("have no time to sleep where it is kept alive", () => {
    expect(cloudflareSandboxOptions({ keepAlive: true })).toStrictEqual({ keepAlive: true });
    expect(cloudflareSandboxOptions({ keepAlive: true, sleepAfter: "5m" })).toStrictEqual({
      keepAlive: true,
    });
  });

  it("leaves the overrides as they are", () => {
    const overrides = Object.freeze({ keepAlive: true, sleepAfter: "5m" });
    cloudflareSandboxOptions(overrides);
    expect(overrides).toEqual({ keepAlive: true, sleepAfter: "5m" });
  });
});

describe("keeping a Cloudflare sandbox awake", () => {
  it("renews its activity with each call", async () => {
    const sandbox = newSandbox();
    const folder = await temporaryFolder();
    const client = createCloudflareClient(sandbox);
    const calls = [
      () => client.makeDir(`${folder}/sub`),
      () => client.writeFile(`${folder}/file`, distinct(1)),
      () => client.readFile(`${folder}/file`),
      () => client.listFiles(folder),
      () => client.run("true", AMPLE),
      () => client.remove(`${folder}/file`),
    ];
    for (const [index, call] of calls.entries()) {
      await call();
      expect(sandbox.renewals).toBe(index + 1);
    }
  });

  it("runs the command although a renewal fails, or cannot be done", async () => {
    const sandbox = newSandbox();
    const file = path.join(await temporaryFolder(), "out");
    const client = createCloudflareClient(sandbox);
    const ways = [
      () => Promise.reject(new Error("gone")),
      () => {
        throw new Error("at once");
      },
      undefined,
    ];
    for (const [index, way] of ways.entries()) {
      sandbox.renewActivityTimeout = way;
      await client.run(`echo ${index} > '${file}'`, AMPLE);
      expect(await readFile(file, "utf8")).toBe(`${index}\n`);
    }
  });

  it("does not wait for a renewal that hangs, and starts no second one meanwhile", async () => {
    const sandbox = newSandbox();
    const hanging = deferred();
    let renewals = 0;
    sandbox.renewActivityTimeout = () => {
      renewals += 1;
      return hanging.promise;
    };
    const client = createCloudflareClient(sandbox);
    await client.run("true", AMPLE);
    await client.run("true", AMPLE);
    expect(renewals).toBe(1);
    hanging.resolve();
    await until(async () => {
      await client.run("true", AMPLE);
      return renewals > 1;
    });
  });

  it.each([
    [{}, 60_000],
    [{ sleepAfter: "1h" }, 60_000],
    [{ sleepAfter: "2m" }, 30_000],
    [{ sleepAfter: "20s" }, 5_000],
    [{ sleepAfter: 8 }, 2_000],
    [cloudflareSandboxOptions(), 60_000],
  ])("renews it at intervals during a long call: %j each %d ms", async (options, intervalMs) => {
    const timers = manualTimers();
    const work = deferred();
    let renewals = 0;
    const sandbox = { exec: () => work.promise, renewActivityTimeout: async () => void (renewals += 1) };
    const running = createCloudflareClient(sandbox, { ...options, timers }).run("long", AMPLE);
    expect(timers.intervals).toEqual([intervalMs]);
    expect(timers.held()).toBe(0);
    for (let time = 1; time <= 5; time += 1) {
      await until(() => renewals === time);
      timers.fire();
    }
    await until(() => renewals === 6);
    work.resolve({ exitCode: 0, stdout: "", stderr: "" });
    await running;
    expect(timers.running()).toBe(0);
  });

  it("has nothing to do where it is kept alive", async () => {
    const timers = manualTimers();
    const sandbox = newSandbox();
    const options = cloudflareSandboxOptions({ keepAlive: true });
    await createCloudflareClient(sandbox, { ...options, timers }).run("true", AMPLE);
    expect(sandbox.renewals).toBe(0);
    expect(timers.intervals).toEqual([]);
  });
});
