// The suites that run on macOS, with temporary files behind a link, as they are there.

import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, describe } from "vitest";

const home = await mkdtemp(path.join(os.tmpdir(), "linked-"));
await mkdir(path.join(home, "folder"));
await symlink("folder", path.join(home, "link"));
process.env.TMPDIR = path.join(home, "link");
afterAll(() => rm(home, { recursive: true }));

// Each has hooks of its own.
describe("the examples", () => import("../examples/examples.test.mjs"));
describe("the loader", () => import("../loading/loader.test.mjs"));
describe("what is specific to macOS", () => import("../macos.test.mjs"));
