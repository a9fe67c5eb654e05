// The real SDK of E2B, against a server on loopback that does on this machine what a sandbox would.

import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { Sandbox } from "e2b";
import { describe, expect, it, onTestFinished } from "vitest";
import { createE2bClient } from "../../clients/e2b.js";
import { startE2bServer } from "./e2b-server.mjs";
import {
  abortedByProgress,
  conformance,
  deferred,
  distinct,
  isRunning,
  manualTimers,
  processIds,
  SLOW,
  temporaryFolder,
  until,
  withQuickRetries,
} from "./support.mjs";

withQuickRetries();

const AMPLE = { timeoutMs: 30_000 };
const HOUR_S = 3_600;

async function sandboxOnServer(options) {
  const server = await startE2bServer(options);
  onTestFinished(() => server.stop());
  const sandbox = await Sandbox.connect(server.sandboxId, server.connection);
  return { server, sandbox };
}

describe("the E2B client", () => {
  it("passes every check of conformance", SLOW, async () => {
    const { sandbox } = await sandboxOnServer();
    const { failures } = await conformance(createE2bClient(sandbox), { workDir: await temporaryFolder() });
    expect(failures).toEqual([]);
  });

  it("tells how a command failed, and keeps the SDK's error as the cause", async () => {
    const { sandbox } = await sandboxOnServer();
    const error = await createE2bClient(sandbox)
      .run("echo out; echo oh no >&2; exit 3", AMPLE)
      .catch((reason) => reason);
    expect(error).toMatchObject({ code: "ERR_SANDBOX_COMMAND_FAILED", exitCode: 3, stderr: "oh no\n" });
    expect(error.message).toContain("exit code 3");
    expect(error.message).toContain("oh no");
    expect(error.cause.name).toBe("CommandExitError");
  });

  it("gives up on a command when its time is up, and ends it in the sandbox", async () => {
    const { sandbox } = await sandboxOnServer();
    const pids = path.join(await temporaryFolder(), "pids");
    const command = `(sh -c 'echo $$ > "${pids}"; exec sleep 1000'); true`;
    const running = createE2bClient(sandbox).run(command, { timeoutMs: 3_000 });
    await expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT" });
    const [pid] = await processIds(pids);
    await until(async () => !(await isRunning(pid)));
  });

  it("lets a command take longer than the SDK's own minute", async () => {
    const { server, sandbox } = await sandboxOnServer();
    await createE2bClient(sandbox).run("true", { timeoutMs: 300_000 });
    expect(server.commands).toHaveLength(1);
    expect(server.commands[0].limitMs).toBeGreaterThan(300_000);
  });

  it("passes on the SDK's own errors", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const client = createE2bClient(sandbox);
    const missing = path.join(await temporaryFolder(), "missing");
    await expect(client.readFile(missing)).rejects.toMatchObject({ name: "FileNotFoundError" });
    await server.stop();
    await expect(client.run("true", AMPLE)).rejects.not.toMatchObject({ code: "ERR_SANDBOX_COMMAND_FAILED" });
  });

  it("does not run a command twice that began before the connection was lost", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const out = path.join(await temporaryFolder(), "out");
    const run = sandbox.commands.run.bind(sandbox.commands);
    const unavailable = () => new Error("Sandbox is probably not running anymore");
    let calls = 0;
    sandbox.commands.run = async (...args) => {
      calls += 1;
      if (calls === 1) await run(...args);
      if (calls < 3) throw unavailable();
      return await run(...args);
    };
    const running = createE2bClient(sandbox).run(`echo once >> '${out}'`, AMPLE);
    await expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_CONNECTION_LOST", retryable: false });
    expect(await readFile(out, "utf8")).toBe("once\n");
    expect(server.commands).toHaveLength(2);
    sandbox.commands.run = () => Promise.reject(unavailable());
    await expect(createE2bClient(sandbox).run("true", AMPLE)).rejects.toMatchObject({ retryable: false });
  });

  it("lists plain files only, and nothing for a folder that is missing", async () => {
    const { sandbox } = await sandboxOnServer();
    const folder = await temporaryFolder();
    await writeFile(path.join(folder, "file"), "");
    await symlink("file", path.join(folder, "link"));
    const client = createE2bClient(sandbox);
    expect(await client.listFiles(folder)).toEqual(["file"]);
    expect(await client.listFiles(path.join(folder, "missing"))).toEqual([]);
    await expect(client.listFiles(path.join(folder, "file"))).rejects.toThrow("ENOTDIR");
  });

  it("takes it for done when there is nothing to remove", async () => {
    const notFound = Object.assign(new Error("not there"), { name: "FileNotFoundError" });
    const sandbox = { setTimeout: async () => {}, files: { remove: () => Promise.reject(notFound) } };
    await createE2bClient(sandbox).remove("/missing");
    sandbox.files.remove = () => Promise.reject(new Error("not allowed"));
    await expect(createE2bClient(sandbox).remove("/etc")).rejects.toThrow("not allowed");
  });

  it("works as the user that it was given", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const file = path.join(await temporaryFolder(), "file");
    const client = createE2bClient(sandbox, { user: "root" });
    await client.writeFile(file, new ArrayBuffer(3));
    await client.readFile(file);
    expect(server.users).toEqual(["root", "root"]);
  });

  it("reports the progress of a download", async () => {
    const { sandbox } = await sandboxOnServer();
    const file = path.join(await temporaryFolder(), "file");
    await writeFile(file, Buffer.alloc(5_000_000));
    const reports = [];
    await createE2bClient(sandbox).readFile(file, { onProgress: (...report) => void reports.push(report) });
    expect(reports.length).toBeGreaterThan(2);
    expect(reports.at(-1)).toEqual([5_000_000, 5_000_000]);
    expect(reports.every(([, of]) => of === 5_000_000)).toBe(true);
  });

  it("reports the progress of an upload, which goes as a stream of bytes", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const folder = await temporaryFolder();
    const file = path.join(folder, "file");
    const bytes = distinct(5_000_000);
    const reports = [];
    await createE2bClient(sandbox).writeFile(file, bytes, {
      onProgress: (...report) => void reports.push(report),
    });
    expect(reports.length).toBeGreaterThan(10);
    expect(reports.at(-1)).toEqual([5_000_000, 5_000_000]);
    expect(reports).toEqual(reports.toSorted(([left], [right]) => left - right));
    expect(server.uploads).toEqual(["application/octet-stream"]);
    expect((await readFile(file)).equals(Buffer.from(bytes))).toBe(true);
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("uploads to a sandbox of an old version, which takes forms only", async () => {
    const { server, sandbox } = await sandboxOnServer({ envdVersion: "0.4.0" });
    const file = path.join(await temporaryFolder(), "file");
    await createE2bClient(sandbox).writeFile(file, distinct(1_000));
    expect((await readFile(file)).equals(Buffer.from(distinct(1_000)))).toBe(true);
    expect(server.uploads).toEqual([expect.stringMatching(/^multipart\/form-data/)]);
  });

  it("has the SDK compress both ways where it is told to", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const file = path.join(await temporaryFolder(), "file");
    const client = createE2bClient(sandbox, { gzip: true });
    await client.writeFile(file, distinct(1_000_000));
    expect((await client.readFile(file)).equals(Buffer.from(distinct(1_000_000)))).toBe(true);
    expect(server.uploads).toEqual(["application/octet-stream, gzip"]);
  });

  it("reads a file through a link, whose size is not the file's", async () => {
    const { sandbox } = await sandboxOnServer();
    const folder = await temporaryFolder();
    await writeFile(path.join(folder, "file"), Buffer.from(distinct(500_000)));
    await symlink("file", path.join(folder, "link"));
    const content = await createE2bClient(sandbox).readFile(path.join(folder, "link"));
    expect(content.equals(Buffer.from(distinct(500_000)))).toBe(true);
  });

  it("works with a version of the SDK that neither tells sizes nor renames", async () => {
    const stored = new Map();
    const files = {
      async write(file, stream) {
        stored.set(file, Buffer.from(await new Response(stream).arrayBuffer()));
      },
      async read(file) {
        return new Response(stored.get(file)).body;
      },
    };
    const client = createE2bClient({ setTimeout: async () => {}, files });
    await client.writeFile("/file", distinct(9_000_000));
    expect((await client.readFile("/file")).equals(Buffer.from(distinct(9_000_000)))).toBe(true);
  });

  it("refuses relative paths, and options that cannot be used, by name", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const invalid = { code: "ERR_INVALID_ARG_VALUE" };
    const client = createE2bClient(sandbox);
    await expect(client.readFile("file")).rejects.toMatchObject(invalid);
    await expect(client.run("true", { timeoutMs: -1 })).rejects.toMatchObject(invalid);
    await expect(client.run("true")).rejects.toMatchObject({ code: "ERR_INVALID_ARG_TYPE" });
    await expect(client.writeFile("/file", "text")).rejects.toMatchObject({ code: "ERR_INVALID_ARG_TYPE" });
    expect(server.commands).toEqual([]);
    for (const lifetimeMs of [0, 999, Number.NaN, "1h", null]) {
      expect(() => createE2bClient(sandbox, { lifetimeMs })).toThrow(expect.objectContaining(invalid));
    }
    for (const nothing of [undefined, null, "sandbox"]) {
      expect(() => createE2bClient(nothing)).toThrow(/^The argument 'sandbox' must be a Sandbox of the e2b/);
    }
    expect(() => createE2bClient(sandbox, { user: "" })).toThrow(/'user'/);
    expect(() => createE2bClient(sandbox, { gzip: "yes" })).toThrow(/'gzip'/);
    expect(() => createE2bClient(sandbox, { deadlineMs: -1 })).toThrow(/'deadlineMs'/);
    expect(() => createE2bClient(sandbox, { maxDownloadBytes: 1.5 })).toThrow(/'maxDownloadBytes'/);
    expect(() => createE2bClient(sandbox, null)).toThrow(/'options'/);
  });
});

describe("an E2B transfer that is disturbed", () => {
  it.each([429, 500, 503])("is tried again after a status of %d", async (status) => {
    const { server, sandbox } = await sandboxOnServer();
    const file = path.join(await temporaryFolder(), "file");
    const client = createE2bClient(sandbox);
    const refused = new Set();
    server.onRequest = async (_, route) => {
      if (refused.has(route)) return undefined;
      refused.add(route);
      return { status, headers: { "retry-after": "0" } };
    };
    await client.writeFile(file, distinct(1_000_000));
    expect((await client.readFile(file)).equals(Buffer.from(distinct(1_000_000)))).toBe(true);
    expect(refused).toContain("POST /files");
    expect(refused).toContain("GET /files");
  });

  it("is not tried again after an error that stays", async () => {
    const { server, sandbox } = await sandboxOnServer();
    let requests = 0;
    server.onRequest = async () => {
      requests += 1;
      return { status: 507 };
    };
    const writing = createE2bClient(sandbox).writeFile("/file", distinct(1));
    await expect(writing).rejects.toMatchObject({ name: "NotEnoughSpaceError" });
    // The upload, and the removal of what may have come of it, now and at the end.
    expect(requests).toBe(3);
  });

  it("stops where the caller aborts, with the reason, and leaves nothing of an upload", async () => {
    const { sandbox } = await sandboxOnServer();
    const folder = await temporaryFolder();
    const file = path.join(folder, "file");
    const client = createE2bClient(sandbox);
    const upload = abortedByProgress();
    await expect(client.writeFile(file, distinct(20_000_000), upload.options)).rejects.toBe(upload.reason);
    await until(async () => (await readdir(folder)).length === 0);

    await writeFile(file, Buffer.from(distinct(20_000_000)));
    const download = abortedByProgress();
    await expect(client.readFile(file, download.options)).rejects.toBe(download.reason);
    const aborted = AbortSignal.abort(download.reason);
    await expect(client.readFile(file, { signal: aborted })).rejects.toBe(download.reason);
  });

  it("rejects with what its listener threw, as the very same value", async () => {
    const { sandbox } = await sandboxOnServer();
    const folder = await temporaryFolder();
    const reason = new Error("no more");
    const onProgress = () => Promise.reject(reason);
    const writing = createE2bClient(sandbox).writeFile(`${folder}/file`, distinct(1_000_000), { onProgress });
    await expect(writing).rejects.toBe(reason);
    await until(async () => (await readdir(folder)).length === 0);
  });

  it("ends at its deadline", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const hanging = deferred();
    server.onRequest = () => hanging.promise;
    const client = createE2bClient(sandbox, { deadlineMs: 300 });
    const ended = { code: "ERR_SANDBOX_COMMAND_TIMEOUT", timeoutMs: 300 };
    await expect(client.makeDir("/folder")).rejects.toMatchObject(ended);
    await expect(client.readFile("/file")).rejects.toMatchObject(ended);
    hanging.resolve();
  });

  it("refuses a file beyond maxDownloadBytes, also where the size is not told", async () => {
    const { sandbox } = await sandboxOnServer();
    const folder = await temporaryFolder();
    const file = path.join(folder, "file");
    await writeFile(file, Buffer.alloc(1_000));
    await symlink("file", path.join(folder, "link"));
    const tooLarge = { code: "ERR_SANDBOX_DOWNLOAD_TOO_LARGE" };
    const client = createE2bClient(sandbox, { maxDownloadBytes: 999 });
    await expect(client.readFile(file)).rejects.toMatchObject(tooLarge);
    await expect(client.readFile(`${folder}/link`)).rejects.toMatchObject(tooLarge);
    await createE2bClient(sandbox, { maxDownloadBytes: 1_000 }).readFile(file);
  });

  it("notices a file that is shorter or longer than was announced", async () => {
    for (const length of [9, 11]) {
      const files = {
        getInfo: async () => ({ size: 10 }),
        read: async () => new Response(new Uint8Array(length)).body,
      };
      const client = createE2bClient({ setTimeout: async () => {}, files }, { deadlineMs: 60_000 });
      await expect(client.readFile("/file")).rejects.toMatchObject({
        code: "ERR_SANDBOX_TRANSFER_INCOMPLETE",
        retryable: true,
      });
    }
  });

  it("ends a command, and what it started, where the caller aborts", async () => {
    const { sandbox } = await sandboxOnServer();
    const pids = path.join(await temporaryFolder(), "pids");
    const controller = new AbortController();
    const reason = new Error("no longer wanted");
    const command = `(setsid sh -c 'echo $$ > "${pids}"; exec sleep 1000'); true`;
    const running = createE2bClient(sandbox).run(command, { timeoutMs: 60_000, signal: controller.signal });
    const [pid] = await processIds(pids);
    controller.abort(reason);
    await expect(running).rejects.toBe(reason);
    expect(await isRunning(pid)).toBe(false);
  });
});

describe("the lifetime of an E2B sandbox", () => {
  it("is set to an hour by each call, whatever it is", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const folder = await temporaryFolder();
    const client = createE2bClient(sandbox);
    const calls = [
      () => client.makeDir(`${folder}/sub`),
      () => client.writeFile(`${folder}/file`, new ArrayBuffer(1)),
      () => client.readFile(`${folder}/file`),
      () => client.listFiles(folder),
      () => client.run("true", AMPLE),
      () => client.run("true", AMPLE),
      () => client.remove(`${folder}/file`),
    ];
    for (const [index, call] of calls.entries()) {
      await call();
      await until(() => server.lifetimes.length === index + 1);
    }
    expect(server.lifetimes).toEqual(calls.map(() => HOUR_S));
  });

  it("is what the caller says", async () => {
    const { server, sandbox } = await sandboxOnServer();
    await createE2bClient(sandbox, { lifetimeMs: 7_200_000 }).run("true", AMPLE);
    await until(() => server.lifetimes.length > 0);
    expect(server.lifetimes).toEqual([7_200]);
  });

  it("does not fail the call when a refresh fails", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const file = path.join(await temporaryFolder(), "out");
    server.onRefresh = () => Promise.reject(new Error());
    const client = createE2bClient(sandbox);
    await client.run(`echo done > '${file}'`, AMPLE);
    expect(String(await client.readFile(file))).toBe("done\n");
    expect(server.lifetimes.length).toBeGreaterThan(0);

    const throwing = {
      setTimeout: () => {
        throw new Error("at once");
      },
      files: { makeDir: async () => true },
    };
    await createE2bClient(throwing).makeDir("/folder");
  });

  it("does not delay the call when a refresh hangs, and no second one starts meanwhile", async () => {
    const { server, sandbox } = await sandboxOnServer();
    const hanging = deferred();
    server.onRefresh = () => hanging.promise;
    const client = createE2bClient(sandbox);
    await client.run("true", AMPLE);
    await client.run("true", AMPLE);
    expect(server.commands).toHaveLength(2);
    expect(server.lifetimes).toHaveLength(1);
    hanging.resolve();
  });

  it("ends a refresh that hangs before the next one is due", async () => {
    const options = [];
    const sandbox = {
      setTimeout: async (_, given) => void options.push(given),
      files: { makeDir: async () => true },
    };
    await createE2bClient(sandbox, { lifetimeMs: 8_000 }).makeDir("/folder");
    await createE2bClient(sandbox).makeDir("/folder");
    expect(options).toEqual([{ requestTimeoutMs: 2_000 }, { requestTimeoutMs: 60_000 }]);
  });

  it("is refreshed at intervals during a long call, by a timer that is gone after it", async () => {
    const timers = manualTimers();
    const work = deferred();
    let refreshes = 0;
    const sandbox = {
      setTimeout: async () => void (refreshes += 1),
      commands: { run: () => work.promise },
      files: { makeDir: () => Promise.reject(new Error("full")), list: () => work.promise },
    };
    const client = createE2bClient(sandbox, { timers });
    const running = client.run("long", AMPLE);
    const listing = client.listFiles("/");
    expect(timers.running()).toBe(1);
    expect(timers.held()).toBe(0);
    for (let minute = 1; minute <= 5; minute += 1) {
      await until(() => refreshes === minute);
      timers.fire();
    }
    await until(() => refreshes === 6);
    work.resolve([]);
    await Promise.all([running, listing]);
    expect(timers.running()).toBe(0);
    await expect(client.makeDir("/folder")).rejects.toThrow("full");
    expect(timers.running()).toBe(0);
    expect(timers.intervals).toEqual([60_000, 60_000]);

    await createE2bClient(sandbox, { timers, lifetimeMs: 20_000 }).listFiles("/");
    expect(timers.intervals.at(-1)).toBe(5_000);
  });
});
