// The checks must let a good client through, and each must catch the client that gets just that wrong.

import { mkdirSync, readFileSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { checkSandboxClient } from "../../clients/conformance.js";
import { createLocalClient } from "../../clients/local.js";
import { conformance, SLOW, temporaryFolder } from "./support.mjs";

const sh = (command, options) => promisify(execFile)("sh", ["-c", command], options);

/** For each check, a client that fails it: what it does otherwise than `good`, and what is found then. */
const BROKEN = {
  "makeDir creates nested directories, and again without an error": (good) => ({
    client: {
      // The checks make their own folder first.
      makeDir: (folder) => (folder.endsWith("/c") ? mkdir(folder).then(() => {}) : good.makeDir(folder)),
    },
    problem: /ENOENT/,
  }),
  "a large file arrives and returns byte for byte": (good) => ({
    client: { writeFile: (file, bytes) => good.writeFile(file, bytes.slice(0, 16 * 1024 * 1024)) },
    problem: /wc -c/,
  }),
  "an empty file arrives and returns": (good) => ({
    client: {
      writeFile: async (file, bytes) => void (bytes.byteLength > 0 && (await good.writeFile(file, bytes))),
    },
    problem: /exit code/,
  }),
  "writeFile replaces a longer file": () => ({
    client: { writeFile: (file, bytes) => writeFile(file, new Uint8Array(bytes), { flag: "a" }) },
    problem: /wc -c/,
  }),
  "writeFile leaves the buffer that it was given as it is": (good) => ({
    client: {
      async writeFile(file, bytes) {
        await good.writeFile(file, bytes);
        structuredClone(bytes, { transfer: [bytes] });
      },
    },
    problem: /detached/,
  }),
  "odd file names survive": () => ({
    client: { writeFile: (file, bytes) => writeFile(file.replace("$HOME", "/root"), new Uint8Array(bytes)) },
    problem: /dollar/,
  }),
  "odd directory names survive": (good) => ({
    client: { makeDir: (folder) => good.makeDir(folder.replace("$HOME", "/root")) },
    problem: /test -d/,
  }),
  "a file of 100 MB takes no second copy of it in memory": (good) => ({
    client: {
      async readFile(file) {
        const first = await good.readFile(file);
        return Buffer.concat([first.subarray(0, 10), first.subarray(10)]);
      },
    },
    problem: /readFile took 2\d\d MB in buffers/,
  }),
  "readFile of a missing file rejects": () => ({
    client: { readFile: (file) => readFile(file).catch(() => Buffer.alloc(0)) },
    problem: /did not reject/,
  }),
  "remove deletes a directory with its content, and a missing one without an error": () => ({
    client: { remove: (target) => rm(target, { recursive: true }) },
    problem: /ENOENT/,
  }),
  "listFiles tells the names of plain files, sorted, without directories": () => ({
    client: { listFiles: (folder) => readdir(folder) },
    problem: /"folder"/,
  }),
  "progress, where there is any, ends with all bytes transferred": (good) => ({
    client: {
      async readFile(file, { onProgress } = {}) {
        onProgress?.(1, null);
        return await good.readFile(file);
      },
    },
    problem: /the last progress of readFile was \(1, /,
  }),
  "calls may overlap": (good) => {
    let busy = false;
    const alone = (method) =>
      async function (...args) {
        if (busy) throw new Error("busy");
        busy = true;
        return await method(...args).finally(() => (busy = false));
      };
    return { client: { readFile: alone(good.readFile), run: alone(good.run) }, problem: /busy/ };
  },
  "large files travel at once, where the client says that they may": (good) => {
    let writing = 0;
    return {
      client: {
        allowConcurrentSyncOperations: true,
        async writeFile(file, bytes) {
          writing += 1;
          if (writing > 1) throw new Error("one at a time");
          await good.writeFile(file, bytes).finally(() => (writing -= 1));
        },
      },
      problem: /one at a time/,
    };
  },
  "a transfer that is aborted rejects with the reason and leaves nothing": (good) => ({
    client: {
      async writeFile(file, bytes, { signal } = {}) {
        await good.writeFile(`${file}.part`, bytes.slice(0, 10));
        signal?.throwIfAborted();
        await good.writeFile(file, bytes);
      },
    },
    problem: /file\.part/,
  }),
  "a command that is aborted ends, and rejects with the reason": (good) => ({
    client: {
      run: (command, { timeoutMs, signal }) =>
        Promise.race([
          good.run(command, { timeoutMs }),
          new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason))),
        ]),
    },
    problem: /beat/,
  }),
  "an error that stays is not called retryable": (good) => ({
    client: {
      readFile: (file) =>
        good.readFile(file).catch((error) => Promise.reject(Object.assign(error, { retryable: true }))),
    },
    problem: /retryable: true/,
  }),
  "run rejects when the command fails, with the exit code and the error output": () => ({
    client: {
      run: async (command) => void (await sh(command).catch(() => Promise.reject(new Error("exit code 37")))),
    },
    problem: /does not hold what-went-wrong/,
  }),
  "run takes a command that prints a lot": () => ({
    client: { run: async (command) => void (await sh(command)) },
    problem: /maxBuffer/,
  }),
  "a failing part of a command fails it, and nothing carries over to the next one": () => {
    let session = "";
    return {
      client: {
        async run(command) {
          const { stdout } = await sh(`${session}\n${command}; code=$?; set; exit $code`);
          session = /^leftover=.*$/m.exec(stdout)?.[0] ?? session;
        },
      },
      problem: /leftover/,
    };
  },
  "the shell has what preparing and restoring use": (good) => ({
    client: {
      run: (command, options) => good.run(`find() { return 1; }; ${command.slice("sh -c ".length)}`, options),
    },
    problem: /exit code/,
  }),
  "run keeps modes where the umask is 0": (good) => ({
    client: {
      // As root, tar keeps modes whatever the umask is, unless it is told not to.
      run: (command, options) =>
        good.run(
          command.replace("umask 0 && tar -xpf", "umask 022 && tar --no-same-permissions -xf"),
          options,
        ),
    },
    problem: /exit code 1/,
  }),
  "run ends a command that takes too long, and rejects": (good) => ({
    client: {
      // It gives up in time, and lets the command go on.
      run: (command, { timeoutMs }) =>
        Promise.race([
          good.run(command, { timeoutMs: 60_000 }),
          new Promise((_, reject) => setTimeout(reject, timeoutMs, new Error("too long"))),
        ]),
    },
    problem: /it still goes on/,
  }),
};

/** `good` but for what `overrides` does. */
function but(good, overrides) {
  return { ...good, ...overrides };
}

describe("checking a client", () => {
  it("runs as many checks as there are broken clients here", async () => {
    const nothing = but(createLocalClient(), { makeDir: () => Promise.reject(new Error("no")) });
    const { passed, failures, printed } = await conformance(nothing, { workDir: await temporaryFolder() });
    expect(passed).toBe(false);
    expect(failures.map(({ check }) => check).toSorted()).toEqual(Object.keys(BROKEN).toSorted());
    for (const { check, problem, advice } of failures) {
      expect(problem).toBe("no");
      expect(printed).toContain(check);
      expect(printed).toContain(advice);
    }
    expect(printed).toContain(`0 of ${failures.length} checks passed.`);
  });

  /** It looks at the memory of the whole process. */
  const ALONE = "a file of 100 MB takes no second copy of it in memory";

  it.concurrent.for(Object.keys(BROKEN).filter((check) => check !== ALONE))(
    "finds out: %s",
    SLOW,
    async (check, { expect, onTestFinished }) => {
      const workDir = await temporaryFolder(onTestFinished);
      const good = createLocalClient();
      const { client, problem } = BROKEN[check](good);
      const broken = await conformance(but(good, client), { workDir, only: [check] });
      expect(broken.failures).toEqual([
        { check, problem: expect.stringMatching(problem), advice: expect.any(String) },
      ]);
      expect(broken.passed).toBe(false);
      const fine = await conformance(good, { workDir, only: [check] });
      expect(fine).toMatchObject({ passed: true, failures: [] });
      expect(fine.printed).toMatch(/\n✓ .*\n[^]*\n1 of 1 checks passed\.$/);
      expect(await readdir(workDir)).toEqual([]);
    },
  );

  it("notices a second copy of a file of 100 MB", SLOW, async () => {
    const good = createLocalClient();
    const { client, problem } = BROKEN[ALONE](good);
    const workDir = await temporaryFolder();
    const { failures } = await conformance(but(good, client), { workDir, only: [ALONE] });
    expect(failures).toMatchObject([{ check: ALONE, problem: expect.stringMatching(problem) }]);
    expect(await conformance(good, { workDir, only: [ALONE] })).toMatchObject({ passed: true });
  });

  it("notices another error than the reason of an abort", async () => {
    const good = createLocalClient();
    const vague = but(good, {
      writeFile: (file, bytes, options) =>
        good.writeFile(file, bytes, options).catch(() => Promise.reject(new Error("something happened"))),
    });
    const check = "a transfer that is aborted rejects with the reason and leaves nothing";
    const { failures } = await conformance(vague, { workDir: await temporaryFolder(), only: [check] });
    expect(failures).toMatchObject([{ check, problem: expect.stringContaining("something happened") }]);
  });

  it("says which optional abilities it found, and takes a client that has none", async () => {
    const good = createLocalClient();
    const plain = {
      makeDir: (folder) => good.makeDir(folder),
      writeFile: (file, bytes) => good.writeFile(file, bytes),
      readFile: (file) => good.readFile(file),
      listFiles: (folder) => good.listFiles(folder),
      remove: (target) => good.remove(target),
      run: (command, { timeoutMs }) => good.run(command, { timeoutMs }),
    };
    const only = [
      "progress, where there is any, ends with all bytes transferred",
      "large files travel at once, where the client says that they may",
      "a transfer that is aborted rejects with the reason and leaves nothing",
      "a command that is aborted ends, and rejects with the reason",
    ];
    const none = await conformance(plain, { workDir: await temporaryFolder(), only });
    expect(none).toMatchObject({ passed: true });
    expect(none.abilities).toEqual({ progress: false, partsAtOnce: false, signal: false, retryable: false });
    expect(none.printed).toContain("- stops when its signal aborts");
    const all = await conformance(good, { workDir: await temporaryFolder(), only });
    expect(all.abilities).toEqual({ progress: true, partsAtOnce: true, signal: true, retryable: false });
    expect(all.printed).toContain("+ stops when its signal aborts");
  });

  const inTime = "run ends a command that takes too long, and rejects";

  it("notices a time limit that is ignored", async () => {
    const good = createLocalClient();
    const deaf = but(good, {
      run: (command) => good.run(command.replace("sleep 1", "true"), { timeoutMs: 60_000 }),
    });
    const { failures } = await conformance(deaf, { workDir: await temporaryFolder(), only: [inTime] });
    expect(failures).toMatchObject([{ check: inTime, problem: "run did not reject" }]);
  });

  it.each([inTime, "readFile of a missing file rejects"])("does not wait for ever: %s", async (check) => {
    const pending = () => new Promise(() => {});
    const silent = but(createLocalClient(), { run: pending, readFile: pending });
    const { failures } = await conformance(silent, {
      workDir: await temporaryFolder(),
      only: [check],
      limitMs: 200,
    });
    expect(failures).toMatchObject([{ check, problem: expect.stringMatching(/did not end|still waiting/) }]);
  });

  it("notices other bytes of the right number", async () => {
    const good = createLocalClient();
    const garbling = but(good, {
      async readFile(file) {
        const bytes = await good.readFile(file);
        if (bytes.length > 5) bytes[5] ^= 1;
        return bytes;
      },
    });
    const check = "a large file arrives and returns byte for byte";
    const { failures } = await conformance(garbling, { workDir: await temporaryFolder(), only: [check] });
    expect(failures).toMatchObject([{ check, problem: "other bytes returned than were written" }]);
  });

  it("refuses text in place of bytes", async () => {
    const textual = but(createLocalClient(), { readFile: (file) => readFile(file, "latin1") });
    const check = "an empty file arrives and returns";
    const { failures } = await conformance(textual, { workDir: await temporaryFolder(), only: [check] });
    expect(failures).toMatchObject([
      { problem: "readFile answered with string, not a Buffer, Uint8Array or ArrayBuffer" },
    ]);
  });

  it("takes clients that throw or answer at once, and a function that creates one", async () => {
    const good = createLocalClient();
    const immediate = but(good, {
      makeDir: (folder) => mkdirSync(folder, { recursive: true }),
      readFile: (file) => readFileSync(file),
    });
    const { failures } = await conformance(async () => immediate, {
      workDir: await temporaryFolder(),
      only: ["readFile of a missing file rejects", "an empty file arrives and returns"],
    });
    expect(failures).toEqual([]);
  });

  it("takes a client that reports no progress", async () => {
    const good = createLocalClient();
    const silent = but(good, {
      writeFile: (file, bytes) => good.writeFile(file, bytes),
      readFile: (file) => good.readFile(file),
    });
    const { failures } = await conformance(silent, {
      workDir: await temporaryFolder(),
      only: ["progress, where there is any, ends with all bytes transferred"],
    });
    expect(failures).toEqual([]);
  });

  it.each(["calls may overlap", "large files travel at once, where the client says that they may"])(
    "removes its folder only when all that overlaps has ended: %s",
    async (check) => {
      const good = createLocalClient();
      let running = 0;
      let runningAtRemove;
      const uneven = but(good, {
        async writeFile(file, bytes) {
          running += 1;
          if (running === 1) throw new Error("busy");
          await new Promise((resolve) => setTimeout(resolve, 100));
          await good.writeFile(file, bytes);
          running -= 1;
        },
        async remove(target) {
          runningAtRemove = running;
          await good.remove(target);
        },
      });
      const { failures } = await conformance(uneven, { workDir: await temporaryFolder(), only: [check] });
      expect(failures).toMatchObject([{ check, problem: "busy" }]);
      // The first one never ends its count.
      expect(runningAtRemove).toBe(1);
    },
  );

  it("says so when it cannot remove its folder", async () => {
    const workDir = await temporaryFolder();
    const tidy = but(createLocalClient(), { remove: () => Promise.reject(new Error("stuck")) });
    const { passed, printed } = await conformance(tidy, {
      workDir,
      only: ["an empty file arrives and returns"],
    });
    expect(passed).toBe(true);
    expect(printed).toMatch(new RegExp(`^! ${workDir}/conformance-[-0-9a-f]+ is left over: stuck$`, "m"));
  });

  it("rejects what it cannot use, and passes on why there is no client", async () => {
    const client = createLocalClient();
    const invalid = { code: "ERR_INVALID_ARG_VALUE" };
    await expect(checkSandboxClient(client, { workDir: "relative" })).rejects.toMatchObject(invalid);
    await expect(checkSandboxClient(client, { workDir: "/x", limitMs: 0 })).rejects.toMatchObject(invalid);
    await expect(checkSandboxClient(client, { workDir: "/x", only: ["nothing"] })).rejects.toMatchObject(
      invalid,
    );
    const reason = new Error("no sandbox");
    await expect(checkSandboxClient(() => Promise.reject(reason), { workDir: "/x" })).rejects.toBe(reason);
  });
});
