// The client for containers, with a stand-in for the programs: no engine runs here.

import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { createDockerClient } from "../../clients/docker.js";
import { containerEngine } from "./container-engine.mjs";
import {
  abortedByProgress,
  conformance,
  distinct,
  isRunning,
  SLOW,
  temporaryFolder,
  until,
  withQuickRetries,
} from "./support.mjs";

withQuickRetries();

const AMPLE = { timeoutMs: 60_000 };

let engine;

beforeEach(async () => {
  engine = await containerEngine(await temporaryFolder());
});

function newClient(options) {
  return createDockerClient({ container: "box", command: [engine.program], ...options });
}

/** A file of the container's, by its path here. */
const here = (file) => path.join(engine.root, file);

describe("the client for containers", () => {
  it("passes every check of conformance", SLOW, async () => {
    const { failures } = await conformance(newClient(), { workDir: "/work" });
    expect(failures).toEqual([]);
  });

  it.each([
    ["docker", {}, ["exec", "-i", "box"]],
    [
      "docker",
      { user: "1000:1000", workdir: "/work" },
      ["exec", "-i", "-u", "1000:1000", "-w", "/work", "box"],
    ],
    ["podman", { user: "0:0" }, ["exec", "-i", "-u", "0:0", "box"]],
    ["kubectl", {}, ["exec", "-i", "box", "--"]],
    ["kubectl", { namespace: "ns", pod: "pod" }, ["exec", "-i", "-n", "ns", "pod", "-c", "box", "--"]],
  ])("calls %s with %j as its users would", async (name, options, expected) => {
    await newClient({ engine: name, ...options }).makeDir("/work/it's new");
    expect(await engine.calls()).toEqual([
      [...expected, "sh", "-c", 'mkdir -p "$1"', "sh", "/work/it's new"],
    ]);
    await stat(here("work/it's new"));
  });

  it.each(["docker", "podman", "kubectl"])(
    "works in the folder and as the user that it was given: %s",
    async (name) => {
      const user = name === "kubectl" ? {} : { user: "1000:1000" };
      const client = newClient({ engine: name, workdir: "/work", ...user });
      await client.run('pwd > out; echo "$(id -u)" >> out', AMPLE);
      expect(await readFile(here("work/out"), "utf8")).toBe(`/work\n${name === "kubectl" ? 0 : 1000}\n`);
      await client.writeFile("/work/file", distinct(10));
      expect((await stat(here("work/file"))).uid).toBe(name === "kubectl" ? 0 : 1000);
    },
  );

  it("puts arguments of the program's own before all others", async () => {
    const client = newClient({ command: ["env", "DOCKER_CONTEXT=remote", engine.program] });
    await client.remove("/work/nothing");
    expect((await engine.calls())[0].slice(0, 3)).toEqual(["exec", "-i", "box"]);
  });

  it("tells how a command failed, also with codes that the programs use themselves", async () => {
    for (const exitCode of [3, 125, 126, 127, 255]) {
      const failing = newClient().run(`echo oh no >&2; exit ${exitCode}`, AMPLE);
      await expect(failing).rejects.toMatchObject({
        code: "ERR_SANDBOX_COMMAND_FAILED",
        exitCode,
        stderr: "oh no\n",
      });
    }
  });

  it("passes on what the program says when it fails, and does not try that again", async () => {
    await engine.failOnce("Error response from daemon: No such container: box");
    await expect(newClient().makeDir("/work/new")).rejects.toThrow("No such container: box");
    expect(await engine.calls()).toHaveLength(1);
  });

  it("retries a transfer when the connection to the container was lost, and no command that may have begun", async () => {
    const client = newClient();
    await engine.failOnce("error: unexpected EOF");
    await client.writeFile("/work/file", distinct(1_000_000));
    expect((await readFile(here("work/file"))).equals(Buffer.from(distinct(1_000_000)))).toBe(true);
    await engine.failOnce("error: unexpected EOF");
    expect((await client.readFile("/work/file")).equals(Buffer.from(distinct(1_000_000)))).toBe(true);
    await engine.failOnce("error: unexpected EOF");
    await expect(client.run("true", AMPLE)).rejects.toMatchObject({
      code: "ERR_SANDBOX_CONNECTION_LOST",
      retryable: false,
    });
  });

  it("stops a transfer where the caller aborts, and leaves nothing of an upload", async () => {
    const client = newClient();
    const upload = abortedByProgress();
    await expect(client.writeFile("/work/file", distinct(20_000_000), upload.options)).rejects.toBe(
      upload.reason,
    );
    await until(async () => (await readdir(here("work"))).length === 0);
    await writeFile(here("work/file"), Buffer.from(distinct(20_000_000)));
    const download = abortedByProgress();
    await expect(client.readFile("/work/file", download.options)).rejects.toBe(download.reason);
  });

  it("ends all that a command started where the caller aborts, and when its time is up", async () => {
    const controller = new AbortController();
    for (const options of [{ timeoutMs: 1_500 }, { ...AMPLE, signal: controller.signal }]) {
      const running = newClient().run("sh -c 'sleep 1000; true' & echo > /work/begun; wait", options);
      running.catch(() => {});
      await until(() =>
        stat(here("work/begun")).then(
          () => true,
          () => false,
        ),
      );
      const [leader] = await inContainer();
      if (options.signal) controller.abort("enough");
      await (options.signal
        ? expect(running).rejects.toBe("enough")
        : expect(running).rejects.toMatchObject({ code: "ERR_SANDBOX_COMMAND_TIMEOUT" }));
      await until(async () => (await inContainer()).length === 0);
      expect(await isRunning(leader)).toBe(false);
      await newClient().remove("/work/begun");
    }
  });

  it("refuses options that cannot be used, by name", () => {
    const bad = {
      container: [undefined, "", "-v", 5],
      engine: ["lxc", "toString", 5],
      command: ["docker", [], [""], [5]],
      user: ["", "-x"],
      workdir: ["", "relative"],
      namespace: ["ns"],
      pod: ["pod"],
      maxSessions: [0],
      deadlineMs: [-1],
      maxDownloadBytes: [0],
    };
    for (const [name, values] of Object.entries(bad)) {
      for (const value of values) {
        expect(() => createDockerClient({ container: "box", [name]: value }), `${name}: ${value}`).toThrow(
          expect.objectContaining({ message: expect.stringContaining(`'${name}`) }),
        );
      }
    }
    expect(() => createDockerClient({ container: "box", engine: "kubectl", user: "root" })).toThrow(/'user'/);
    expect(() => createDockerClient()).toThrow(/'options'/);
  });
});

/** The processes whose root is the container's. */
async function inContainer() {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const { readlink } = await import("node:fs/promises");
  const roots = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/root`).catch(() => "")));
  return pids.filter((_, index) => roots[index] === engine.root);
}
