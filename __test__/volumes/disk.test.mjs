// What depends on a file system, on a disk: the temporary files of a run may be in memory, where inodes, times and the order
// of names are others.

import { chmod, mkdtemp, rm } from "node:fs/promises";
import { afterAll, describe } from "vitest";

// Kept over a restart, so never in memory.
const folder = await mkdtemp("/var/tmp/on-disk-");
// Some tests are another user.
await chmod(folder, 0o755);
process.env.TMPDIR = folder;
afterAll(() => rm(folder, { recursive: true }));

// Each has hooks of its own.
describe("heartbeats", () => import("../heartbeats.test.mjs"));
describe("merges", () => import("../merge.test.mjs"));
describe("mirrors", () => import("../mirror.test.mjs"));
describe("snapshots", () => import("../snapshot.test.mjs"));
