// What holds for every ready-made client: which options it refuses, that each call ends, and what it says of a temporary
// failure.

import path from "node:path";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { createCloudflareBridgeClient, createCloudflareClient } from "../../clients/cloudflare.js";
import { createDaytonaClient } from "../../clients/daytona.js";
import { createDockerClient } from "../../clients/docker.js";
import { createE2bClient } from "../../clients/e2b.js";
import { createLocalClient } from "../../clients/local.js";
import { createSshClient } from "../../clients/ssh.js";
import { distinct, pace } from "./support.mjs";
import { CLIENTS } from "./table.mjs";

const before = { ...pace };

beforeEach(() => {
  Object.assign(pace, { firstPauseMs: 2, graceMs: 200 });
  onTestFinished(() => void Object.assign(pace, before));
});

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

describe.each(Object.entries(CLIENTS))("the %s client", (_, { make }) => {
  const folderOf = (side, file) => path.posix.join(side.folder, file);

  it("ends every call at its deadline where the sandbox does not answer", async () => {
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

  it.each([429, 503])("marks an error as retryable where every attempt failed with %d", async (status) => {
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
