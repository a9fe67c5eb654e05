// The system's ssh, against a real server on loopback. Without sshd, these tests fail.

import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { createSshClient } from "../../clients/ssh.js";
import { startCuttingProxy } from "./cutting-proxy.mjs";
import { startSshd } from "./sshd.mjs";
import {
  abortedByProgress,
  conformance,
  distinct,
  isRunning,
  processIds,
  SLOW,
  temporaryFolder,
  until,
  withManualTime,
  withQuickRetries,
} from "./support.mjs";
import { keepTemporaryFilesIn } from "../support/folders.mjs";

withQuickRetries();

const AMPLE = { timeoutMs: 60_000 };

let folder, sshd;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "sshd-test-"));
  sshd = await startSshd(folder);
});

afterAll(async () => {
  await sshd?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A client that is closed when the test has ended. */
function newClient(overrides) {
  const client = createSshClient({ ...sshd.options, ...overrides });
  onTestFinished(() => client.close());
  return client;
}

/** A temporary folder of the test's own, in which clients create theirs. */
async function ownTemporaryFolder(name = "t") {
  const own = path.join(await temporaryFolder(), name);
  await mkdir(own);
  keepTemporaryFilesIn(own);
  return own;
}

/** A replacement for ssh: a script that may call it as `ssh "$@"`. */
async function sshScript(script) {
  const program = path.join(await temporaryFolder(), "ssh");
  await writeFile(program, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return program;
}

describe("the ssh client", () => {
  it("passes every check of conformance", SLOW, async () => {
    const { failures } = await conformance(newClient(), { workDir: await temporaryFolder() });
    expect(failures).toEqual([]);
  });

  it("opens one connection for all its sessions, also when several start together", async () => {
    const before = sshd.logins();
    const client = newClient();
    await Promise.all(Array.from({ length: 5 }, () => client.run("true", AMPLE)));
    await client.listFiles(await temporaryFolder());
    expect(sshd.logins() - before).toBe(1);
  });

  it("opens a new connection when the old one is lost", async () => {
    const before = sshd.logins();
    const client = newClient();
    await client.run("true", AMPLE);
    for (const pid of await sshd.connections()) process.kill(pid, "SIGKILL");
    await until(async () => (await sshd.connections()).length === 0);
    await until(() =>
      client.run("true", AMPLE).then(
        () => true,
        () => false,
      ),
    );
    expect(sshd.logins() - before).toBe(2);
  });

  it("tells how a command failed", async () => {
    const failing = newClient().run("echo oh no >&2; exit 3", AMPLE);
    await expect(failing).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_FAILED",
      exitCode: 3,
      message: "the sandbox command failed with exit code 3: echo oh no >&2; exit 3\nstderr: oh no",
    });
  });

  it("ends all that a command started when its time is up", async () => {
    const pids = path.join(await temporaryFolder(), "pids");
    withManualTime();
    const command = `exec >> '${pids}'; sh -c 'echo $$; exec sleep 1000' & echo $$; wait`;
    const running = newClient().run(command, AMPLE);
    const started = await processIds(pids, 2);
    vi.advanceTimersByTime(AMPLE.timeoutMs);
    await expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT" });
    for (const pid of started) await until(async () => !(await isRunning(pid)));
  });

  it("gives commands an empty standard input", async () => {
    const out = path.join(await temporaryFolder(), "out");
    await newClient().run(`cat > '${out}'; echo end >> '${out}'`, AMPLE);
    expect(await readFile(out, "utf8")).toBe("end\n");
  });

  it("reports the progress of a transfer up to the end", async () => {
    const file = path.join(await temporaryFolder(), "new", "file");
    const client = newClient();
    const total = 5_000_000;
    for (const transfer of ["writeFile", "readFile"]) {
      const reports = [];
      const onProgress = async (...report) => void reports.push(report);
      await (transfer === "writeFile"
        ? client.writeFile(file, new ArrayBuffer(total), { onProgress })
        : client.readFile(file, { onProgress }));
      expect(reports.length).toBeGreaterThan(2);
      expect(reports.every(([, of]) => of === total)).toBe(true);
      expect(reports.filter(([done]) => done === total)).toHaveLength(1);
      expect(reports.at(-1)).toEqual([total, total]);
    }
  });

  it("leaves the old file, and nothing beside it, when an upload is cut off", async () => {
    const target = await temporaryFolder();
    const file = path.join(target, "file");
    await writeFile(file, "old");
    const reason = new Error("no more");
    const onProgress = () => Promise.reject(reason);
    const writing = newClient().writeFile(file, new ArrayBuffer(5_000_000), { onProgress });
    await expect(writing).rejects.toBe(reason);
    expect(await readFile(file, "utf8")).toBe("old");
    await until(async () => (await readdir(target)).length === 1);
  });

  it("ends a download whose progress listener fails, with the listener's own error", async () => {
    const file = path.join(await temporaryFolder(), "file");
    await writeFile(file, Buffer.alloc(5_000_000));
    const reason = new Error("no more");
    const client = newClient();
    await expect(client.readFile(file, { onProgress: () => Promise.reject(reason) })).rejects.toBe(reason);
    expect((await client.readFile(file)).byteLength).toBe(5_000_000);
  });

  it("refuses to write over a folder, and what the server cannot do", async () => {
    const target = await temporaryFolder();
    const client = newClient();
    await expect(client.writeFile(target, new ArrayBuffer(1))).rejects.toThrow(`${target} is a directory`);
    expect(await readdir(target)).toEqual([]);
    const failed = { code: "ERR_SANDBOX_COMMAND_FAILED" };
    await expect(client.writeFile("/proc/nowhere/file", new ArrayBuffer(1_000_000))).rejects.toMatchObject(
      failed,
    );
    await expect(client.readFile(target)).rejects.toMatchObject(failed);
    await expect(client.makeDir("/proc/nowhere")).rejects.toMatchObject(failed);
  });

  it("notices a download that is cut off", async () => {
    const file = path.join(await temporaryFolder(), "file");
    await writeFile(file, Buffer.alloc(10_000));
    const sshCommand = await sshScript('ssh "$@" | head -c 1000');
    const reading = newClient({ sshCommand }).readFile(file);
    await expect(reading).rejects.toMatchObject({
      code: "ERR_SANDBOX_TRANSFER_INCOMPLETE",
      message: expect.stringContaining("994 of 10000 bytes"),
    });
  });

  it("does not take a missing answer for an empty file", async () => {
    const file = path.join(await temporaryFolder(), "file");
    await writeFile(file, "content");
    const sshCommand = await sshScript('exec ssh "$@" >/dev/null');
    await expect(newClient({ sshCommand }).readFile(file)).rejects.toThrow("answered with nothing");
  });

  it("notices an upload that is cut off", async () => {
    const target = await temporaryFolder();
    const sshCommand = await sshScript(
      `case "$*" in *'cat >'*) head -c 1000 | ssh "$@" ;; *) exec ssh "$@" ;; esac`,
    );
    const writing = newClient({ sshCommand }).writeFile(path.join(target, "file"), new ArrayBuffer(10_000));
    await expect(writing).rejects.toMatchObject({
      code: "ERR_SANDBOX_TRANSFER_INCOMPLETE",
      message: expect.stringContaining("1000 of 10000 bytes"),
    });
    expect(await readdir(target)).toEqual([]);
  });

  it("reports a login shell that prints something by itself", async () => {
    const file = path.join(await temporaryFolder(), "file");
    await writeFile(file, "content");
    const sshCommand = await sshScript('echo "Welcome!"; exec ssh "$@"');
    await expect(newClient({ sshCommand }).readFile(file)).rejects.toThrow('printed "Welcome!"');
  });

  it("says why there is no connection, and tries again with the next call", async () => {
    const client = newClient();
    const away = `${sshd.knownHosts}.away`;
    await rename(sshd.knownHosts, away);
    const failing = client.run("true", AMPLE);
    await expect(failing).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_FAILED", exitCode: 255 });
    await expect(failing).rejects.toThrow(/connect to 127\.0\.0\.1[^]*Host key verification failed/);
    await rename(away, sshd.knownHosts);
    await client.run("true", AMPLE);
  });

  it("rejects when there is no ssh", async () => {
    const client = newClient({ sshCommand: "/nowhere/ssh" });
    await expect(client.run("true", AMPLE)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it.each([
    ["host", ["", "-oProxyCommand=touch owned", undefined, 5]],
    ["port", ["abc", "22", 0, 65_536, 1.5, null]],
    ["user", ["", 5]],
    ["identityFile", ["", 5]],
    ["sshOptions", ["-v", [5], [undefined], null]],
    ["sshCommand", ["", 5]],
    ["maxSessions", [0, 1.5, "8"]],
    ["deadlineMs", [-1, 0, "1h"]],
    ["maxDownloadBytes", [-1, 0, "1"]],
  ])("refuses a bad %s by its name", (name, values) => {
    for (const value of values) {
      expect(() => createSshClient({ host: "host", [name]: value })).toThrow(
        expect.objectContaining({
          code: expect.stringMatching(/^ERR_INVALID_ARG_(TYPE|VALUE)$/),
          message: expect.stringContaining(`'${name}`),
        }),
      );
    }
    expect(() => createSshClient()).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARG_TYPE" }));
  });

  it("refuses relative paths, and a time limit that is none, without connecting", async () => {
    const client = newClient({ sshCommand: "/nowhere/ssh" });
    const invalid = { code: "ERR_INVALID_ARG_VALUE" };
    await expect(client.readFile("file")).rejects.toMatchObject(invalid);
    await expect(client.run("true", { timeoutMs: 0 })).rejects.toMatchObject(invalid);
  });
});

describe("the connection of an ssh client", () => {
  it("is private, and ends with close", async () => {
    const temporary = await ownTemporaryFolder();
    const client = newClient();
    expect(await readdir(temporary)).toEqual([]);
    await client.run("true", AMPLE);
    const [control] = await readdir(temporary);
    const { stdout } = await promisify(execFile)("stat", ["-c", "%a", path.join(temporary, control)]);
    expect(stdout).toBe("700\n");
    expect(await sshd.connections()).toHaveLength(1);

    await client.close();
    expect(await readdir(temporary)).toEqual([]);
    await until(async () => (await sshd.connections()).length === 0);
    await client.close();
    await expect(client.run("true", AMPLE)).rejects.toThrow("closed");
    expect(await readdir(temporary)).toEqual([]);
  });

  it("takes what runs over it along when it is closed", async () => {
    const pids = path.join(await temporaryFolder(), "pids");
    const client = newClient();
    const running = client.run(`echo $$ > '${pids}'; exec sleep 1000`, AMPLE);
    const [pid] = await processIds(pids);
    await Promise.all([client.close(), expect(running).rejects.toMatchObject({ exitCode: 255 })]);
    await until(async () => !(await isRunning(pid)));
  });

  it("ends with the process", async () => {
    const temporary = await ownTemporaryFolder();
    const module = fileURLToPath(new URL("../../clients/ssh.js", import.meta.url));
    const source = `
      const { createSshClient } = require(${JSON.stringify(module)});
      const clients = [1, 2].map(() => createSshClient(${JSON.stringify(sshd.options)}));
      Promise.all(clients.map((client) => client.run("true", { timeoutMs: 60_000 }))).then(async () => {
        console.log(require("node:fs").readdirSync(process.env.TMPDIR).length);
      });`;
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=commonjs", "-e", source]);
    expect(stdout).toBe("2\n");
    expect(await readdir(temporary)).toEqual([]);
    await until(async () => (await sshd.connections()).length === 0);
  });

  it("finds a place for its socket where the temporary folder's path is too long", async () => {
    const temporary = await ownTemporaryFolder("long".repeat(25));
    await newClient().run("true", AMPLE);
    expect(await readdir(temporary)).toEqual([]);
  });

  it("takes a temporary folder with characters that mean something to ssh", async () => {
    const temporary = await ownTemporaryFolder("a %h b");
    const before = sshd.logins();
    const client = newClient();
    await client.run("true", AMPLE);
    await client.run("true", AMPLE);
    expect(sshd.logins() - before).toBe(1);
    const [control] = await readdir(temporary);
    await access(path.join(temporary, control, "s"));
  });
});

describe("a login shell", () => {
  /** Each is a package in scripts/system-packages.txt. Without it, its test fails. */
  const shells = ["sh", "bash", "dash", "zsh", "fish", "tcsh", "csh"];
  let keys, server;

  beforeAll(async () => {
    keys = await mkdtemp(path.join(os.tmpdir(), "sshd-shells-"));
    // What sshd does with the user's login shell, with one that each test chooses.
    server = await startSshd(keys, [`ForceCommand=exec "$(cat '${keys}/shell')" -c "$SSH_ORIGINAL_COMMAND"`]);
  });

  afterAll(async () => {
    await server?.stop();
    await rm(keys, { recursive: true, force: true });
  });

  it.each(shells)("may be %s", async (shell) => {
    await writeFile(path.join(keys, "shell"), `${shell}\n`);
    const client = createSshClient(server.options);
    onTestFinished(() => client.close());
    const folder = path.join(await temporaryFolder(), "it's !1 $HOME \\n `x` *\nünï");
    const file = path.join(folder, "file");
    await client.makeDir(folder);
    await client.writeFile(file, distinct(300_000));
    expect((await client.readFile(file)).equals(Buffer.from(distinct(300_000)))).toBe(true);
    expect(await client.listFiles(folder)).toEqual(["file"]);
    const failing = client.run("cat <<'END' >&2\nwhat! \\ 'went' wrong\nEND\nexit 7", AMPLE);
    await expect(failing).rejects.toMatchObject({ exitCode: 7, stderr: "what! \\ 'went' wrong\n" });
    await client.remove(folder);
    await expect(client.readFile(file)).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_FAILED" });
  });
});

describe("an ssh connection that is disturbed", () => {
  /** A client whose connection can be cut. */
  async function behindProxy() {
    const proxy = await startCuttingProxy(sshd.port);
    onTestFinished(() => proxy.stop());
    const client = createSshClient(sshd.optionsBy(proxy.port));
    onTestFinished(() => client.close());
    await client.run("true", AMPLE);
    return { proxy, client };
  }

  it("fails a command that had begun, which is not run twice, and serves the next", async () => {
    const out = path.join(await temporaryFolder(), "out");
    const client = newClient();
    const running = client.run(`echo begun >> '${out}'; exec sleep 1000`, AMPLE);
    running.catch(() => {});
    await processIds(out);
    for (const pid of await sshd.connections()) process.kill(pid, "SIGKILL");
    await expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_CONNECTION_LOST", retryable: false });
    await client.run(`echo next >> '${out}'`, AMPLE);
    expect(await readFile(out, "utf8")).toBe("begun\nnext\n");
  });

  it("is not confused with a command that ends with ssh's own exit code", async () => {
    await expect(newClient().run("exit 255", AMPLE)).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_FAILED",
      exitCode: 255,
    });
  });

  it("is noticed as lost when the server no longer answers", async () => {
    const { proxy, client } = await behindProxy();
    proxy.freeze();
    await expect(client.run("true", AMPLE)).rejects.toMatchObject({ code: "ERR_SANDBOX_CONNECTION_LOST" });
  });

  it("stops a transfer where the caller aborts, with the reason, and leaves nothing of an upload", async () => {
    const target = await temporaryFolder();
    const file = path.join(target, "file");
    const client = newClient();
    const upload = abortedByProgress();
    await expect(client.writeFile(file, distinct(20_000_000), upload.options)).rejects.toBe(upload.reason);
    await until(async () => (await readdir(target)).length === 0);
    await writeFile(file, Buffer.from(distinct(20_000_000)));
    const download = abortedByProgress();
    await expect(client.readFile(file, download.options)).rejects.toBe(download.reason);
    await client.run("true", AMPLE);
  });

  it("ends a command, and what it started, where the caller aborts", async () => {
    const pids = path.join(await temporaryFolder(), "pids");
    const controller = new AbortController();
    const command = `setsid sh -c 'echo $$ > "${pids}"; exec sleep 1000'`;
    const running = newClient().run(command, { ...AMPLE, signal: controller.signal });
    running.catch(() => {});
    const [pid] = await processIds(pids);
    controller.abort("enough");
    await expect(running).rejects.toBe("enough");
    await until(async () => !(await isRunning(pid)));
  });

  it("ends a call at its deadline", async () => {
    const sshCommand = await sshScript('case "$*" in *"exit 0") exec ssh "$@" ;; *) exec sleep 1000 ;; esac');
    const client = newClient({ sshCommand, deadlineMs: 2_000 });
    await expect(client.makeDir("/folder")).rejects.toMatchObject({
      code: "ERR_SANDBOX_COMMAND_TIMEOUT",
      timeoutMs: 2_000,
    });
  });

  it("refuses a file beyond maxDownloadBytes", async () => {
    const file = path.join(await temporaryFolder(), "file");
    await writeFile(file, Buffer.alloc(1_000));
    await expect(newClient({ maxDownloadBytes: 999 }).readFile(file)).rejects.toMatchObject({
      code: "ERR_SANDBOX_DOWNLOAD_TOO_LARGE",
    });
    await newClient({ maxDownloadBytes: 1_000 }).readFile(file);
  });

  it("shares a connection among no more sessions than it is told, and serves a server that takes fewer", async () => {
    const keys = await temporaryFolder();
    // One more than the smaller number: a busy server counts a session for a while after its command has ended.
    const server = await startSshd(keys, ["MaxSessions=3"]);
    onTestFinished(() => server.stop());
    const file = path.join(keys, "file");
    for (const maxSessions of [2, 8]) {
      const client = createSshClient({ ...server.options, maxSessions });
      onTestFinished(() => client.close());
      const before = server.logins();
      const command = (index) => `echo ${index} >> '${file}'; sleep 0.2`;
      await Promise.all([1, 2, 3, 4, 5, 6].map((index) => client.run(command(index), AMPLE)));
      // Where the server refuses a session, ssh opens another connection for it.
      if (maxSessions === 2) expect(server.logins() - before).toBe(1);
    }
    expect((await readFile(file, "utf8")).trim().split("\n")).toHaveLength(12);
  });
});
