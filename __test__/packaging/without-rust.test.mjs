// The path on which the packages are tried: a Rust that is among the system's programs would hide that one is needed.

import { mkdir, mkdtemp, readdir, realpath, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { linkProgramsWithoutRust } from "../../scripts/packaging/without-rust.mjs";
import { run } from "./support.mjs";

let folder;

beforeEach(async () => {
  folder = await realpath(await mkdtemp(path.join(os.tmpdir(), "without-rust-")));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

test("has all programs but Rust's, the first of a name", async () => {
  const places = ["first", "second"].map((name) => path.join(folder, name));
  for (const place of places) {
    await mkdir(place);
    for (const name of ["cargo", "cargo-clippy", "rustc", "rustup", "clippy-driver", "tar", "sh"]) {
      await writeFile(path.join(place, name), "");
    }
  }
  await writeFile(path.join(places[1], "truncate"), "");
  const made = path.join(folder, "made");
  await linkProgramsWithoutRust(made, places);
  expect((await readdir(made)).sort()).toEqual(["sh", "tar", "truncate"]);
  expect(await realpath(path.join(made, "tar"))).toBe(path.join(places[0], "tar"));
});

test("works with this system's programs", async () => {
  const made = path.join(folder, "made");
  await linkProgramsWithoutRust(made);
  const said = await run(["sh", "-c", "echo it works; command -v cargo rustc || true"], {
    cwd: folder,
    env: { PATH: made },
  });
  expect(said).toBe("it works\n");
});
