// What holds for every ready-made client: which options it refuses, that each call ends, what it says of a failure that
// passes, and that a whole run is completed over a way that refuses at first.

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { Daytona } from "@daytonaio/sdk";
import { Sandbox } from "e2b";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { createCloudflareBridgeClient, createCloudflareClient } from "../../clients/cloudflare.js";
import { createDaytonaClient } from "../../clients/daytona.js";
import { createDockerClient } from "../../clients/docker.js";
import { createE2bClient } from "../../clients/e2b.js";
import { createLocalClient } from "../../clients/local.js";
import { createSshClient } from "../../clients/ssh.js";
import { prepareSandboxManagedRuntime } from "../../index.js";
import { startBridge } from "./bridge-server.mjs";
import { cloudflareSandbox } from "./cloudflare-sandbox.mjs";
import { containerEngine } from "./container-engine.mjs";
import { startDaytonaServer } from "./daytona-server.mjs";
import { startE2bServer } from "./e2b-server.mjs";
import { startSshd } from "./sshd.mjs";
import { distinct, pace, temporaryFolder } from "./support.mjs";

const before = { ...pace };

beforeEach(() => {
  Object.assign(pace, { firstPauseMs: 2, graceMs: 200 });
  onTestFinished(() => void Object.assign(pace, before));
});

/** A program of the test's own. */
async function program(script) {
  const file = path.join(await temporaryFolder(), "program");
  await writeFile(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return file;
}

/** What answers, by `server.onRequest`, the first request of each kind with a status, all of them, or none ever. */
function overHttp(server) {
  const kinds = new Set();
  return {
    /** How many requests were refused. */
    refused: () => kinds.size,
    refuseFirst(status) {
      server.onRequest = async (first, second) => {
        const kind = second ?? first;
        if (kinds.has(kind)) return undefined;
        kinds.add(kind);
        return { status, headers: { "retry-after": "0" } };
      };
    },
    refuse(status) {
      server.onRequest = async () => ({ status, headers: { "retry-after": "0" } });
    },
    hang() {
      server.onRequest = () => new Promise(() => {});
    },
  };
}

/**
 * For each client: `make` gives a client for a sandbox of its own, with ways to disturb it that apply to what is created
 * afterwards: `refuseFirst` makes the first request of each kind fail with a status, `refuse` all of them, `hang` has none
 * answered. `create` takes options alone.
 */
const CLIENTS = {
  e2b: {
    create: (options) => createE2bClient({}, options),
    async make() {
      const server = await startE2bServer();
      onTestFinished(() => server.stop());
      const sandbox = await Sandbox.connect(server.sandboxId, server.connection);
      const way = overHttp(server);
      // The path comes first in what this server tells.
      return {
        ...way,
        folder: await temporaryFolder(),
        client: async (options) => createE2bClient(sandbox, options),
      };
    },
  },
  daytona: {
    create: (options) => createDaytonaClient({}, options),
    async make() {
      const server = await startDaytonaServer();
      onTestFinished(() => server.stop());
      const apiUrl = `http://127.0.0.1:${server.port}/api`;
      const daytona = new Daytona({ apiUrl, apiKey: "key", target: "us", useDeprecatedPolling: true });
      const sandbox = await daytona.get(server.sandboxId);
      return {
        ...overHttp(server),
        folder: await temporaryFolder(),
        client: async (options) => createDaytonaClient(sandbox, options),
      };
    },
  },
  "cloudflare (bridge)": {
    create: (options) =>
      createCloudflareBridgeClient(
        typeof options === "object" && options !== null && !Array.isArray(options)
          ? { url: "http://127.0.0.1", sandboxId: "abc", ...options }
          : options,
      ),
    async make() {
      const folder = await temporaryFolder();
      const server = await startBridge(folder);
      onTestFinished(() => server.stop());
      const way = overHttp({
        set onRequest(answer) {
          server.onRequest = (route) => answer(route);
        },
      });
      const client = async (options) => createCloudflareBridgeClient({ ...server.options, ...options });
      return { ...way, folder, client };
    },
  },
  "cloudflare (object)": {
    create: (options) => createCloudflareClient({}, options),
    async make() {
      const sandbox = cloudflareSandbox();
      onTestFinished(() => sandbox.stop());
      const each = (instead) => {
        for (const method of ["exec", "writeFile", "readFile", "mkdir", "exists", "listFiles"]) {
          sandbox[method] = instead(sandbox[method], method);
        }
      };
      const passing = () => Object.assign(new Error("not now"), { retryable: true });
      let refused = 0;
      return {
        refused: () => refused,
        refuseFirst: () =>
          each((work) => {
            let calls = 0;
            return async (...args) => {
              calls += 1;
              if (calls > 1) return await work(...args);
              refused += 1;
              throw passing();
            };
          }),
        refuse: () => each(() => () => Promise.reject(passing())),
        hang: () => each(() => () => new Promise(() => {})),
        folder: await temporaryFolder(),
        client: async (options) => createCloudflareClient(sandbox, options),
      };
    },
  },
  docker: {
    create: (options) =>
      createDockerClient(
        typeof options === "object" && options !== null && !Array.isArray(options)
          ? { container: "box", ...options }
          : options,
      ),
    async make() {
      const { root, program: engine } = await containerEngine(await temporaryFolder());
      const messages = {
        429: "Error response from daemon: Too Many Requests",
        503: "Error: the server is currently unable",
      };
      let command = [engine];
      const counter = path.join(await temporaryFolder(), "refused");
      return {
        refused: async () => (await readFile(counter, "utf8").catch(() => "")).length,
        async refuseFirst(status) {
          const script = `if [ ! -e '${counter}' ]; then printf x > '${counter}'; echo '${messages[status]}' >&2; exit 1; fi`;
          command = [await program(`${script}\nexec '${engine}' "$@"`)];
        },
        async refuse(status) {
          command = [await program(`echo '${messages[status]}' >&2; exit 1`)];
        },
        async hang() {
          command = [await program("exec sleep 1000")];
        },
        folder: "/work",
        here: path.join(root, "work"),
        client: async (options) => createDockerClient({ container: "box", command, ...options }),
      };
    },
  },
  ssh: {
    create: (options) =>
      createSshClient(
        typeof options === "object" && options !== null && !Array.isArray(options)
          ? { host: "host", ...options }
          : options,
      ),
    async make() {
      const keys = await temporaryFolder();
      const server = await startSshd(keys);
      onTestFinished(() => server.stop());
      const counter = path.join(keys, "refused");
      // What ssh says where the server has too many connections, or is being restarted.
      const message = "kex_exchange_identification: read: Connection reset by peer";
      let more = {};
      return {
        refused: async () => (await readFile(counter, "utf8").catch(() => "")).length,
        async refuseFirst() {
          const script = `if [ ! -e '${counter}' ]; then printf x > '${counter}'; echo '${message}' >&2; exit 255; fi`;
          more = { sshCommand: await program(`${script}\nexec ssh "$@"`) };
        },
        async refuse() {
          more = { sshCommand: await program(`echo '${message}' >&2; exit 255`) };
        },
        async hang() {
          more = { sshCommand: await program("exec sleep 1000") };
        },
        folder: await temporaryFolder(),
        async client(options) {
          const client = createSshClient({ ...server.options, ...more, ...options });
          onTestFinished(() => client.close());
          return client;
        },
      };
    },
  },
};

const CREATE = {
  ...Object.fromEntries(Object.entries(CLIENTS).map(([name, { create }]) => [name, create])),
  local: createLocalClient,
};

describe.each(Object.entries(CREATE))("options of the %s client", (_, create) => {
  it.each([
    ["deadlineMs", [-1, 0, Number.NaN, "1h", null, {}, true]],
    ["maxDownloadBytes", [-1, 0, 1.5, Number.NaN, Number.POSITIVE_INFINITY, "1", null, 1n]],
  ])("that are a bad %s are refused by its name", (name, values) => {
    for (const value of values) {
      expect(() => create({ [name]: value }), String(value)).toThrow(
        expect.objectContaining({
          code: expect.stringMatching(/^ERR_INVALID_ARG_(TYPE|VALUE)$/),
          message: expect.stringContaining(`'${name}'`),
        }),
      );
    }
  });

  it.each([
    ["deadlinMs", "Did you mean 'deadlineMs'?"],
    ["maxdownloadbyte", "Did you mean 'maxDownloadBytes'?"],
    ["colour", "deadlineMs, "],
  ])(
    "that are unknown, as %s, are refused by name, with what may be meant, without the value",
    (name, hint) => {
      for (const value of ["a secret", undefined]) {
        expect(() => create({ [name]: value })).toThrow(
          expect.objectContaining({
            code: "ERR_INVALID_ARG_VALUE",
            message: expect.stringMatching(new RegExp(`'${name}'.*${hint.replace("?", "\\?")}`)),
          }),
        );
        expect(() => create({ [name]: value })).not.toThrow("secret");
      }
    },
  );

  it("that are no object are refused", () => {
    for (const options of [null, 5, "options", [], true]) {
      expect(() => create(options), String(options)).toThrow(
        expect.objectContaining({
          code: "ERR_INVALID_ARG_TYPE",
          message: expect.stringContaining("'options'"),
        }),
      );
    }
  });
});

it("a misspelt name is told with the name that is nearest", () => {
  expect(() => createSshClient({ hots: "host" })).toThrow("Did you mean 'host'?");
  expect(() => createDockerClient({ contaner: "box" })).toThrow("Did you mean 'container'?");
  expect(() => createLocalClient({ Root: "/" })).toThrow("Did you mean 'root'?");
  // Nothing is near to it.
  expect(() => createLocalClient({ x: 1 })).toThrow(
    "These are known: deadlineMs, env, maxDownloadBytes, root, shell.",
  );
});

it.each([
  ["sandbox", createE2bClient],
  ["sandbox", createDaytonaClient],
  ["sandbox", createCloudflareClient],
  ["options", createCloudflareBridgeClient],
  ["options", createDockerClient],
  ["options", createSshClient],
])("without a %s, nothing is created: %o", (name, create) => {
  for (const nothing of [undefined, null, "text", []]) {
    expect(() => create(nothing)).toThrow(
      expect.objectContaining({
        code: "ERR_INVALID_ARG_TYPE",
        message: expect.stringContaining(`'${name}'`),
      }),
    );
  }
});

describe.each(Object.entries(CLIENTS))("the %s client", (name, { make }) => {
  const folderOf = (side, file) => path.posix.join(side.folder, file);

  it("ends every call at its deadline where the other side does not answer", async () => {
    const side = await make();
    await side.hang();
    const client = await side.client({ deadlineMs: 300 });
    const calls = {
      makeDir: () => client.makeDir(folderOf(side, "new")),
      writeFile: () => client.writeFile(folderOf(side, "file"), distinct(1_000)),
      readFile: () => client.readFile(folderOf(side, "file")),
      listFiles: () => client.listFiles(side.folder),
      remove: () => client.remove(folderOf(side, "file")),
      run: () => client.run("true", { timeoutMs: 300 }),
    };
    const ended = Object.entries(calls).map(async ([method, call]) => {
      await expect(call(), method).rejects.toMatchObject({
        code: "ERR_SANDBOX_COMMAND_TIMEOUT",
        timeoutMs: 300,
      });
    });
    await Promise.all(ended);
  });

  it.each([429, 503])("says of what fails with %d to the last that it passes", async (status) => {
    const side = await make();
    await side.refuse(status);
    const client = await side.client();
    for (const call of [
      () => client.makeDir(folderOf(side, "new")),
      () => client.writeFile(folderOf(side, "file"), distinct(1_000)),
      () => client.readFile(folderOf(side, "file")),
      () => client.listFiles(side.folder),
      () => client.remove(folderOf(side, "file")),
    ]) {
      await expect(call(), String(call)).rejects.toMatchObject({ retryable: true });
    }
  });

  it.each([429, 503])("completes a whole run that is first refused with %d at each step", async (status) => {
    const side = await make();
    await side.refuseFirst(status);
    const client = await side.client();
    const workspaceLocalDir = path.join(await temporaryFolder(), "workspace");
    await mkdir(workspaceLocalDir);
    await writeFile(path.join(workspaceLocalDir, "sent"), Buffer.from(distinct(100_000)));
    const remoteCwd = folderOf(side, "workspace");
    const prepared = await prepareSandboxManagedRuntime({
      spec: {
        transport: "sandbox",
        provider: "test",
        sandboxId: crypto.randomUUID(),
        remoteCwd,
        timeoutMs: 60_000,
      },
      adapterKey: "test",
      client,
      workspaceLocalDir,
    });
    await client.run(`cd '${remoteCwd}' && cp sent made && rm sent`, { timeoutMs: 60_000 });
    await prepared.restoreWorkspace();
    expect((await readdir(workspaceLocalDir)).filter((file) => !file.startsWith("."))).toEqual(["made"]);
    expect(await readFile(path.join(workspaceLocalDir, "made"))).toEqual(Buffer.from(distinct(100_000)));
    expect(await side.refused()).toBeGreaterThan(0);
  });
});

it.each(["e2b", "daytona", "cloudflare (bridge)"])(
  "%s does not say of a command that may have begun that it may be made again",
  async (name) => {
    const side = await CLIENTS[name].make();
    await side.refuse(500);
    const failing = (await side.client()).run("true", { timeoutMs: 10_000 });
    const error = await failing.catch((reason) => reason);
    expect(error).toBeInstanceOf(Error);
    expect(error.retryable).not.toBe(true);
  },
);
