// The ready-made clients, each with a sandbox of its own that can be disturbed.

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { Daytona } from "@daytonaio/sdk";
import { Sandbox } from "e2b";
import { onTestFinished } from "vitest";
import { createCloudflareBridgeClient, createCloudflareClient } from "../../clients/cloudflare.js";
import { createDaytonaClient } from "../../clients/daytona.js";
import { createDockerClient } from "../../clients/docker.js";
import { createE2bClient } from "../../clients/e2b.js";
import { createSshClient } from "../../clients/ssh.js";
import { startBridge } from "./bridge-server.mjs";
import { cloudflareSandbox } from "./cloudflare-sandbox.mjs";
import { containerEngine } from "./container-engine.mjs";
import { startCuttingProxy } from "./cutting-proxy.mjs";
import { startDaytonaServer } from "./daytona-server.mjs";
import { startE2bServer } from "./e2b-server.mjs";
import { startSshd } from "./sshd.mjs";
import { temporaryFolder } from "./support.mjs";

/**
 * A sandbox that can be disturbed. What is said of requests holds for those of clients that are created afterwards.
 *
 * @typedef {object} Side
 * @property {string} folder A folder in the sandbox.
 * @property {string} local The same folder, as this process names it.
 * @property {(options?: object) => Promise<any>} client
 * @property {(answer: (kind: string) => Promise<object | undefined>) => void} [onRequest] See {@link overHttp}.
 * @property {(status: number) => unknown} refuseFirst Has the first request of each kind fail with a status.
 * @property {() => number | Promise<number>} refused How many did.
 * @property {(status: number) => unknown} refuse Has every request fail with a status.
 * @property {() => unknown} hang Has no request answered.
 * @property {(direction: "up" | "down", bytes: number) => unknown} cut Has the connection break, once, after that number
 *   of bytes.
 * @property {() => number | Promise<number>} cuts How often it did.
 */

/** A program of the test's own. */
async function program(script) {
  const file = path.join(await temporaryFolder(), "program");
  await writeFile(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return file;
}

/**
 * Ways to disturb a server of HTTP.
 *
 * @param {(answer: (kind: string) => Promise<object | undefined>) => void} answerBy Has the server ask, of each kind of
 *   request, for what it is to be answered with in place of the usual.
 */
function overHttp(answerBy) {
  const kinds = new Set();
  return {
    onRequest: answerBy,
    refused: () => kinds.size,
    refuseFirst(status) {
      answerBy(async (kind) => {
        if (kinds.has(kind)) return undefined;
        kinds.add(kind);
        return { status, headers: { "retry-after": "0" } };
      });
    },
    refuse: (status) => answerBy(async () => ({ status, headers: { "retry-after": "0" } })),
    hang: () => answerBy(() => new Promise(() => {})),
  };
}

/** Ways to cut the connections to a port of this machine, and the port to reach it by then. */
async function byProxy(targetPort) {
  const proxy = await startCuttingProxy(targetPort);
  onTestFinished(() => proxy.stop());
  return { port: proxy.port, cut: (_direction, bytes) => proxy.cutAfter(bytes), cuts: proxy.cuts };
}

/** A new folder, in a sandbox that has the file system of this machine. */
async function sharedFolder() {
  const folder = await temporaryFolder();
  return { folder, local: folder };
}

/** `options` with what a client needs, unless they are no options at all. */
function withNeeded(needed, options) {
  const isObject = typeof options === "object" && options !== null && !Array.isArray(options);
  return isObject ? { ...needed, ...options } : options;
}

/** How a program counts the calls that it refuses: in a file, by a letter each. */
async function refusedOnce() {
  const counter = path.join(await temporaryFolder(), "refused");
  return {
    refused: async () => (await readFile(counter, "utf8").catch(() => "")).length,
    /** A program that fails once and is `next` from then on. */
    failingFirst: (message, exitCode, next) =>
      program(
        `if [ ! -e '${counter}' ]; then printf x > '${counter}'; echo '${message}' >&2; exit ${exitCode}; fi\nexec ${next} "$@"`,
      ),
  };
}

/** @param {boolean} streams Whether files travel as streams, and not in parts of base64. */
function cloudflareObject(streams) {
  return {
    create: (options) => createCloudflareClient({}, options),
    async make() {
      const sandbox = cloudflareSandbox();
      onTestFinished(() => sandbox.stop());
      const each = (changed) => {
        for (const method of ["exec", "writeFile", "readFile", "mkdir", "exists", "listFiles"]) {
          sandbox[method] = changed(sandbox[method]);
        }
      };
      const passing = () => Object.assign(new Error("not now"), { retryable: true });
      let refused = 0;
      return {
        ...(await sharedFolder()),
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
        cut: (_direction, bytes) => sandbox.cutAfter(bytes),
        cuts: () => sandbox.cuts,
        client: async (options) =>
          createCloudflareClient(sandbox, { streams, chunkBytes: 100_000, ...options }),
      };
    },
  };
}

/**
 * For each client: `create` creates one from options alone, and `make` a sandbox with ways to disturb it.
 *
 * @type {Record<string, { create: (options: any) => unknown, make: () => Promise<Side> }>}
 */
export const CLIENTS = {
  e2b: {
    create: (options) => createE2bClient({}, options),
    async make() {
      const server = await startE2bServer();
      onTestFinished(() => server.stop());
      const { port, ...cutting } = await byProxy(Number(new URL(server.url).port));
      const url = `http://127.0.0.1:${port}`;
      const connection = { ...server.connection, apiUrl: url, sandboxUrl: url };
      const sandbox = await Sandbox.connect(server.sandboxId, connection);
      return {
        ...(await sharedFolder()),
        // It tells the path before the kind of request.
        ...overHttp((answer) => (server.onRequest = (_, kind) => answer(kind))),
        ...cutting,
        client: async (options) => createE2bClient(sandbox, options),
      };
    },
  },
  daytona: {
    create: (options) => createDaytonaClient({}, options),
    async make() {
      const server = await startDaytonaServer();
      onTestFinished(() => server.stop());
      const { port, ...cutting } = await byProxy(server.port);
      const apiUrl = `http://127.0.0.1:${port}/api`;
      const daytona = new Daytona({ apiUrl, apiKey: "key", target: "us", useDeprecatedPolling: true });
      const sandbox = await daytona.get(server.sandboxId);
      return {
        ...(await sharedFolder()),
        ...overHttp((answer) => (server.onRequest = answer)),
        ...cutting,
        client: async (options) => createDaytonaClient(sandbox, options),
      };
    },
  },
  "cloudflare (bridge)": {
    create: (options) =>
      createCloudflareBridgeClient(withNeeded({ url: "http://127.0.0.1", sandboxId: "abc" }, options)),
    async make() {
      const shared = await sharedFolder();
      const server = await startBridge(shared.folder);
      onTestFinished(() => server.stop());
      const { port, ...cutting } = await byProxy(server.port);
      const bridge = { ...server.options, url: `http://127.0.0.1:${port}`, partBytes: 300_000 };
      return {
        ...shared,
        ...overHttp((answer) => (server.onRequest = (kind) => answer(kind))),
        ...cutting,
        client: async (options) => createCloudflareBridgeClient({ ...bridge, ...options }),
      };
    },
  },
  "cloudflare (object)": cloudflareObject(false),
  "cloudflare (object, streams)": cloudflareObject(true),
  docker: {
    create: (options) => createDockerClient(withNeeded({ container: "box" }, options)),
    async make() {
      const engine = await containerEngine(await temporaryFolder());
      const messages = {
        429: "Error response from daemon: Too Many Requests",
        503: "Error: the server is currently unable",
      };
      const { refused, failingFirst } = await refusedOnce();
      let command = [engine.program];
      return {
        folder: "/work",
        local: path.join(engine.root, "work"),
        refused,
        async refuseFirst(status) {
          command = [await failingFirst(messages[status], 1, `'${engine.program}'`)];
        },
        async refuse(status) {
          command = [await program(`echo '${messages[status]}' >&2; exit 1`)];
        },
        async hang() {
          command = [await program("exec sleep 1000")];
        },
        cut: engine.cutOnce,
        cuts: engine.cuts,
        client: async (options) => createDockerClient({ container: "box", command, ...options }),
      };
    },
  },
  ssh: {
    create: (options) => createSshClient(withNeeded({ host: "host" }, options)),
    async make() {
      const server = await startSshd(await temporaryFolder());
      onTestFinished(() => server.stop());
      const { port, ...cutting } = await byProxy(server.port);
      // What ssh says where the server has too many connections, or is being restarted.
      const message = "kex_exchange_identification: read: Connection reset by peer";
      const { refused, failingFirst } = await refusedOnce();
      let more = {};
      return {
        ...(await sharedFolder()),
        refused,
        async refuseFirst() {
          more = { sshCommand: await failingFirst(message, 255, "ssh") };
        },
        async refuse() {
          more = { sshCommand: await program(`echo '${message}' >&2; exit 255`) };
        },
        async hang() {
          more = { sshCommand: await program("exec sleep 1000") };
        },
        ...cutting,
        async client(options) {
          const client = createSshClient({ ...server.optionsBy(port), ...more, ...options });
          onTestFinished(() => client.close());
          return client;
        },
      };
    },
  },
};
