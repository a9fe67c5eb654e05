// Programs as the binding starts them, in each case beside the same program as Node's child_process starts it.

import { createHash } from "node:crypto";
import { readdir, readFile, readlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { buffer, text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { describe, expect, it, onTestFinished } from "vitest";
import { run } from "../support/processes.mjs";
import { distinct, isRunning, processIds, temporaryFolder, until } from "./support.mjs";

const require = createRequire(import.meta.url);
const { startByRuntime, startProgram } = require("../../clients/program.js");
const module = fileURLToPath(new URL("../../clients/program.js", import.meta.url));

/** Runs a program to its end, and returns all that can be seen of it. */
async function outcome(start, name, args) {
  const failed = ({ code, errno }) => ({ code, errno });
  try {
    const { stdin, stdout, stderr, ended } = start(name, args);
    stdin.end();
    const [ending, output, errors] = await Promise.all([ended.catch(failed), text(stdout), text(stderr)]);
    return { ending, output, errors };
  } catch (error) {
    // Node throws some failures.
    return { ending: failed(error), output: "", errors: "" };
  }
}

/** The outcome of a program, which is the same by `child_process`. */
async function bothOutcomes(name, args = []) {
  const ours = await outcome(startProgram, name, args);
  expect(ours).toEqual(await outcome(startByRuntime, name, args));
  return ours;
}

const shell = (script, ...args) => ["sh", ["-c", script, "sh", ...args]];

/** Sets a variable of this process until the test has ended; `undefined` removes it. */
function setVariable(name, value) {
  const before = process.env[name];
  const set = (to) => {
    if (to === undefined) delete process.env[name];
    else process.env[name] = to;
  };
  set(value);
  onTestFinished(() => set(before));
}

async function script(folder, name, content, mode = 0o755) {
  const file = path.join(folder, name);
  await writeFile(file, content, { mode });
  return file;
}

const openFiles = async () => {
  const names = await readdir("/proc/self/fd");
  const targets = names.map((name) => readlink(`/proc/self/fd/${name}`).catch(() => undefined));
  return (await Promise.all(targets)).filter((target) => target?.startsWith("pipe:"));
};

/** The children of this process that have ended, and are not forgotten. */
async function zombies() {
  const ids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const states = ids.map((id) => readFile(`/proc/${id}/stat`, "latin1").catch(() => ""));
  return (await Promise.all(states)).filter((stat) => stat.includes(`) Z ${process.pid} `));
}

describe("a program", () => {
  it.each([0, 1, 7, 126, 127, 255])("ends with its exit code: %d", async (code) => {
    const { ending } = await bothOutcomes(...shell(`exit ${code}`));
    expect(ending).toEqual({ exitCode: code, signal: null });
  });

  it.each(["SIGTERM", "SIGKILL", "SIGABRT", "SIGUSR1", "SIGPIPE"])("may end by %s", async (signal) => {
    const { ending } = await bothOutcomes(...shell(`kill -s ${signal.slice(3)} $$`));
    expect(ending).toEqual({ exitCode: null, signal });
  });

  it("has the arguments, the working directory and the process group that it is given", async () => {
    const args = ["", "a b", "$x 'y' \"z\"", "ünï", "\\", "\n"];
    const { output } = await bothOutcomes(
      ...shell('pwd; cut -d " " -f 5 /proc/$$/stat; printf "<%s>" "$@"', ...args),
    );
    expect(output).toContain(args.map((arg) => `<${arg}>`).join(""));
  });

  it("is called by the name that it was started by", async () => {
    const folder = await temporaryFolder();
    const file = await script(folder, "named", "#!/bin/sh\necho called\n");
    setVariable("PATH", `${folder}:${process.env.PATH}`);
    for (const name of [file, "named"]) expect((await bothOutcomes(name)).output).toBe("called\n");
    // Of a program that is no script, the name is that which it was started by, not its path.
    const { output } = await bothOutcomes(...shell("tr '\\0' ' ' < /proc/$$/cmdline"));
    expect(output).toMatch(/^sh -c /);
  });

  it("has the variables that this process has now, also those that JavaScript has changed", async () => {
    setVariable("PROGRAM_TEST", "new: ü");
    setVariable("HOME", undefined);
    const all = shell("env | sort");
    const { output } = await bothOutcomes(...all);
    expect(output).toContain("PROGRAM_TEST=new: ü\n");
    expect(output).not.toMatch(/^HOME=/m);
    setVariable("PROGRAM_TEST", undefined);
    expect((await bothOutcomes(...all)).output).not.toContain("PROGRAM_TEST");
  });

  it("has no other open files, and blocks no signal", async () => {
    const { output } = await bothOutcomes(...shell("ls /proc/self/fd; grep SigBlk /proc/self/status"));
    expect(output).toMatch(/^0\n1\n2\n/);
  });

  it("reads and writes any number of bytes", async () => {
    const sent = Buffer.from(distinct(5_000_000));
    const copy = path.join(await temporaryFolder(), "copy");
    for (const start of [startProgram, startByRuntime]) {
      const { stdin, stdout, stderr, ended } = start(...shell('tee "$1" && cat "$1" >&2', copy));
      const [, output, errors, ending] = await Promise.all([
        pipeline(
          Readable.from([sent.subarray(0, 1), sent.subarray(1, 100_000), sent.subarray(100_000)]),
          stdin,
        ),
        buffer(stdout),
        buffer(stderr),
        ended,
      ]);
      expect(ending).toEqual({ exitCode: 0, signal: null });
      expect([output, errors].map(digest)).toEqual([digest(sent), digest(sent)]);
    }
  });

  it("that does not read holds up who writes to it", async () => {
    for (const start of [startProgram, startByRuntime]) {
      const { stdin, stdout, stderr, ended } = start(...shell("read -r line; echo $line; wc -c"));
      stderr.resume();
      expect(stdin.write(Buffer.alloc(1_000_000))).toBe(false);
      expect(stdin.writableNeedDrain).toBe(true);
      stdin.end("\n12");
      expect(await text(stdout)).toMatch(/^\s*2\n$/m);
      await ended;
    }
  });

  it("may stop reading: what is still written fails, and the program's ending tells why", async () => {
    for (const start of [startProgram, startByRuntime]) {
      const { stdin, stdout, stderr, ended } = start(...shell("head -c 10; exit 4"));
      const sending = pipeline(Readable.from([Buffer.alloc(5_000_000, "x")]), stdin);
      const [sent, output, , ending] = await Promise.allSettled([sending, text(stdout), text(stderr), ended]);
      expect(sent.reason.code).toMatch(/^(EPIPE|ECONNRESET|ERR_STREAM_PREMATURE_CLOSE)$/);
      expect(output.value).toBe("xxxxxxxxxx");
      expect(ending.value).toEqual({ exitCode: 4, signal: null });
    }
  });

  it("may close its output before it ends", async () => {
    const go = path.join(await temporaryFolder(), "go");
    for (const start of [startProgram, startByRuntime]) {
      const { stdin, stdout, stderr, ended } = start(
        ...shell('exec 1>&-; while [ ! -e "$1" ]; do sleep 0.01; done; cat >&2; exit 5', go),
      );
      expect(await text(stdout)).toBe("");
      await writeFile(go, "");
      stdin.end("still here");
      expect(await text(stderr)).toBe("still here");
      expect(await ended).toEqual({ exitCode: 5, signal: null });
    }
  });

  it("has ended when nobody holds its output any more", async () => {
    const folder = await temporaryFolder();
    for (const start of [startProgram, startByRuntime]) {
      const go = path.join(folder, start.name);
      const { stdin, stdout, stderr, ended } = start(
        ...shell('(while [ ! -e "$1" ]; do sleep 0.01; done; echo late) & echo $$; exit 3', go),
      );
      stdin.end();
      stderr.resume();
      let said = "";
      stdout.setEncoding("utf8").on("data", (more) => (said += more));
      await until(() => said !== "");
      await until(async () => !(await isRunning(said.trim())));
      await writeFile(go, "");
      expect(await ended).toEqual({ exitCode: 3, signal: null });
      expect(said).toMatch(/^\d+\nlate\n$/);
    }
  });

  it("works in a worker thread, with the variables of that", async () => {
    const source = `
      const { parentPort, workerData } = require("node:worker_threads");
      const { startProgram } = require(workerData);
      process.env.PROGRAM_TEST = "of the worker";
      const { stdin, stdout, stderr, ended } = startProgram("sh", ["-c", 'echo "$PROGRAM_TEST"; cat']);
      stdin.end("and its input");
      stderr.resume();
      let said = "";
      stdout.setEncoding("utf8").on("data", (more) => (said += more));
      ended.then((ending) => parentPort.postMessage({ said, ending }));`;
    const worker = new Worker(source, { eval: true, workerData: module });
    const answer = await new Promise((resolve, reject) =>
      worker.once("message", resolve).once("error", reject),
    );
    expect(answer).toEqual({
      said: "of the worker\nand its input",
      ending: { exitCode: 0, signal: null },
    });
    expect(process.env.PROGRAM_TEST).toBe(undefined);
  });
});

describe("a program that cannot be started", () => {
  it.each([
    ["no-such-program", "ENOENT"],
    ["/nowhere/program", "ENOENT"],
    ["/etc", "EACCES"],
    [fileURLToPath(import.meta.url), "EACCES"],
    [`${fileURLToPath(import.meta.url)}/program`, "ENOTDIR"],
  ])("rejects as Node does: %s", async (name, code) => {
    expect(await bothOutcomes(name)).toMatchObject({ ending: { code }, output: "", errors: "" });
    const program = startProgram(name, []);
    await expect(program.ended).rejects.toMatchObject({ code, syscall: "spawn", path: name });
    program.kill();
  });

  it("is looked for in all of PATH", async () => {
    const [one, two, three] = await Promise.all([temporaryFolder(), temporaryFolder(), temporaryFolder()]);
    await script(one, "tool", "#!/bin/sh\necho one\n", 0o644);
    await script(one, "denied", "#!/bin/sh\necho one\n", 0o644);
    const file = await script(two, "file", "");
    await script(two, "bad", "#!/nowhere/interpreter\n");
    await script(three, "tool", "#!/bin/sh\necho three\n");
    await script(three, "plain", "echo plain $1\n");
    setVariable("PATH", [one, "/nowhere", file, two, three, "/bin", "/usr/bin"].join(":"));
    expect((await bothOutcomes("tool")).output).toBe("three\n");
    expect((await bothOutcomes("plain", ["script"])).output).toBe("plain script\n");
    expect((await bothOutcomes("denied")).ending).toMatchObject({ code: "EACCES" });
    expect((await bothOutcomes("bad")).ending).toMatchObject({ code: "ENOENT" });
    setVariable("PATH", `${two}:${three}:`);
    expect((await bothOutcomes("sh", ["-c", "true"])).ending).toMatchObject({ code: "ENOENT" });
    setVariable("PATH", undefined);
    expect((await bothOutcomes("sh", ["-c", "echo found"])).output).toBe("found\n");
  });

  it("is refused by the argument that no program can have", () => {
    for (const start of [startProgram, startByRuntime]) {
      expect(() => start("sh", ["-c", "a\0b"])).toThrow(
        expect.objectContaining({ code: "ERR_INVALID_ARG_VALUE" }),
      );
    }
  });

  it("says so where there are too many arguments", async () => {
    const { ended, ...program } = startProgram("true", ["x".repeat(20_000_000)]);
    await expect(ended).rejects.toMatchObject({ code: "E2BIG" });
    program.kill();
  });
});

describe("killing a program", () => {
  it("ends it, and closes its streams although another process holds them", async () => {
    const pids = path.join(await temporaryFolder(), "pids");
    for (const start of [startProgram, startByRuntime]) {
      await writeFile(pids, "");
      const { stdin, stdout, stderr, ended, kill } = start(
        ...shell('sleep 1000 & echo $! >> "$1"; wait', pids),
      );
      const [sleeping] = await processIds(pids);
      onTestFinished(() => void process.kill(Number(sleeping), "SIGKILL"));
      kill();
      expect(await ended).toEqual({ exitCode: null, signal: "SIGKILL" });
      expect([stdin, stdout, stderr].map(({ closed }) => closed)).toEqual([true, true, true]);
      expect(await isRunning(sleeping)).toBe(true);
    }
  });

  it("works at any moment from its start on", async () => {
    for (const turns of [0, 1, 2, 5, 10, 20, 50]) {
      const { ended, kill } = startProgram("sleep", ["1000"]);
      for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
      kill();
      expect(await ended).toEqual({ exitCode: null, signal: "SIGKILL" });
    }
  });

  it("does nothing to one that has ended", async () => {
    const { stdout, stderr, ended, kill } = startProgram(...shell("exit 2"));
    stdout.resume();
    stderr.resume();
    expect(await ended).toEqual({ exitCode: 2, signal: null });
    kill();
    kill();
    expect(await ended).toEqual({ exitCode: 2, signal: null });
  });
});

describe("what a program leaves behind", () => {
  it("is nothing: no open file and no zombie after 200, also of those that failed or were killed", async () => {
    await outcome(startProgram, "true", []);
    const before = (await openFiles()).length;
    for (let round = 0; round < 50; round += 1) {
      await outcome(startProgram, "cat", []);
      await outcome(startProgram, "/nowhere/program", []);
      const killed = startProgram("cat", []);
      const abandoned = startProgram("true", []);
      killed.kill();
      abandoned.kill();
      await Promise.all([killed.ended, abandoned.ended]);
    }
    expect((await openFiles()).length).toBe(before);
    expect(await zombies()).toEqual([]);
  });

  it("is nothing where a worker thread is terminated meanwhile", async () => {
    const pids = path.join(await temporaryFolder(), "pids");
    const source = `
      const { startProgram } = require(${JSON.stringify(module)});
      startProgram("sh", ["-c", 'echo $$ >> "$1"; exec cat', "sh", ${JSON.stringify(pids)}]);`;
    const before = (await openFiles()).length;
    const worker = new Worker(source, { eval: true });
    const [pid] = await processIds(pids);
    await worker.terminate();
    // It sees the end of its input.
    await until(async () => !(await isRunning(pid)));
    await until(async () => (await zombies()).length === 0);
    await until(async () => (await openFiles()).length === before);
  });

  it("is no process that cannot end: it may exit with its own code, and ends once the program has", async () => {
    const begin = `const { startProgram } = require(${JSON.stringify(module)});`;
    const exits = `${begin} startProgram("cat", []); process.exit(7);`;
    expect(await run(process.execPath, ["-e", exits])).toMatchObject({ code: 7, signal: null, stderr: "" });
    const waits = `${begin} const { stdin, stdout, ended } = startProgram("cat", []);
      stdin.end("done"); stdout.pipe(process.stdout); ended.then(({ exitCode }) => (process.exitCode = exitCode + 3));`;
    expect(await run(process.execPath, ["-e", waits])).toMatchObject({ code: 3, stdout: "done", stderr: "" });
  });
});

it("starting a program does not copy the page tables of this process", async () => {
  const memory = new Uint8Array(256 * 1024 * 1024);
  /** How often the system has to step in while each page is written to: always after a copy, which shares the pages. */
  const faults = () => {
    const before = process.resourceUsage().minorPageFault;
    for (let at = 0; at < memory.length; at += 4096) memory[at] += 1;
    return process.resourceUsage().minorPageFault - before;
  };
  const fresh = faults();
  expect(fresh).toBeGreaterThanOrEqual(128);
  const { ended, kill } = startProgram("cat", []);
  const { stdin, stdout, ended: other } = startProgram("cat", []);
  stdin.write("x");
  await new Promise((resolve) => stdout.once("data", resolve));
  expect(faults()).toBeLessThan(fresh / 4);
  kill();
  stdin.end();
  await Promise.all([ended, other]);
});

function digest(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}
