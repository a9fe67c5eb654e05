// The lock of the entry for the newest release and the release's own lock exclude each other.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as released from "adapter-utils-2026.916.1/workspace-restore-merge";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import * as own from "../../adapter-utils/index.js";

const MODULES = { own, released };
const PAIRS = [
  ["own", "released"],
  ["released", "own"],
  ["own", "own"],
];

let place;
let target;
let env;

beforeAll(async () => {
  place = await mkdtemp(path.join(os.tmpdir(), "newest-lock-"));
});

afterAll(() => rm(place, { recursive: true }));

beforeEach(async () => {
  const dir = await mkdtemp(path.join(place, "case-"));
  target = path.join(dir, "workspace");
  env = { PAPERCLIP_HOME: path.join(dir, "home") };
  await mkdir(target);
});

const locks = () => readdir(path.join(env.PAPERCLIP_HOME, "instances/default/locks/directory-merge"));

/** Takes the lock in another process, which holds it until it is killed. */
async function holdElsewhere(whose) {
  const module = {
    own: fileURLToPath(new URL("../../adapter-utils/index.js", import.meta.url)),
    released: fileURLToPath(import.meta.resolve("adapter-utils-2026.916.1/workspace-restore-merge")),
  }[whose];
  const code = `import { withDirectoryMergeLock } from ${JSON.stringify(module)};
    withDirectoryMergeLock(${JSON.stringify(target)}, () => {
      console.log("held");
      return new Promise(() => setInterval(() => {}, 1000));
    }, ${JSON.stringify(env)});`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  return child;
}

describe.each(PAIRS)("held by %s", (holder, other) => {
  it(`is waited for by ${other} in the same process`, async () => {
    const order = [];
    let release;
    const held = new Promise((resolve) => (release = resolve));
    let begun;
    const isHeld = new Promise((resolve) => (begun = resolve));
    const first = MODULES[holder].withDirectoryMergeLock(
      target,
      async () => {
        begun();
        await held;
        order.push("first");
      },
      env,
    );
    await isHeld;
    expect(await locks()).toHaveLength(1);
    const second = MODULES[other].withDirectoryMergeLock(target, async () => void order.push("second"), env);
    // Without a lock, it would have ended long before.
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(order).toEqual([]);
    release();
    await Promise.all([first, second]);
    expect(order).toEqual(["first", "second"]);
    expect(await locks()).toEqual([]);
  });

  it(`is waited for by ${other} while its process lives, and taken over once that is killed`, async () => {
    const child = await holdElsewhere(holder);
    let isTaken = false;
    const taking = MODULES[other].withDirectoryMergeLock(target, async () => void (isTaken = true), env);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(isTaken).toBe(false);
    child.kill("SIGKILL");
    await once(child, "exit");
    await taking;
    expect(isTaken).toBe(true);
    expect(await locks()).toEqual([]);
  });
});

describe("the digest of a snapshot", () => {
  it("is the release's, byte for byte, for any names", async () => {
    const names = [
      "b",
      "a",
      "B",
      "ä",
      "a/b",
      "a-b",
      "_",
      "Z",
      "é",
      "e\u0301",
      "10",
      "9",
      "a b",
      "😀",
      "\udc80x",
    ];
    const entries = new Map(names.map((name, at) => [name, { kind: "symlink", target: `${at}` }]));
    const snapshot = { exclude: ["x", "*/y"], entries };
    expect(JSON.stringify(own.serializeDirectorySnapshot(snapshot))).toBe(
      JSON.stringify(released.serializeDirectorySnapshot(snapshot)),
    );
    expect(own.directorySnapshotSha256(snapshot)).toBe(released.directorySnapshotSha256(snapshot));
    const json = JSON.parse(JSON.stringify(own.serializeDirectorySnapshot(snapshot)));
    expect(own.parseDirectorySnapshot(json)).toEqual(released.parseDirectorySnapshot(json));
  });

  it.each([
    null,
    [],
    "text",
    {},
    { version: 2, exclude: [], entries: [] },
    { version: 1, exclude: [1], entries: [] },
    { version: 1, exclude: [], entries: {} },
    ...["", "/a", "../a", "a/../b", "C:\\a", "a\\..\\b", "..a", "a/..b", "\\a"].map((name) => ({
      version: 1,
      exclude: ["x", "x"],
      entries: [[name, { kind: "dir" }]],
    })),
    { version: 1, exclude: [], entries: [["a", { kind: "dir" }, 1]] },
    ...[
      { kind: "fifo" },
      { kind: "symlink" },
      { kind: "file", mode: -1, hash: "0".repeat(64) },
      { kind: "file", mode: 1.5, hash: "0".repeat(64) },
      { kind: "file", mode: 420, hash: "A".repeat(64) },
      { kind: "file", mode: 420, hash: "a".repeat(64), more: true },
      null,
      [],
    ].map((entry) => ({ version: 1, exclude: [], entries: [["a", entry]] })),
  ])("is of nothing that the release does not read either: %j", (value) => {
    expect(own.parseDirectorySnapshot(value)).toEqual(released.parseDirectorySnapshot(value));
  });
});
