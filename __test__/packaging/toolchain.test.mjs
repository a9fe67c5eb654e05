// How release binaries are built: what cargo is asked for, and what is brought for it. Compilers are stood in for.

import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { findLibrary } from "../../scripts/packaging/nodes.mjs";
import { RUST_TARGETS, fileName } from "../../scripts/packaging/platforms.mjs";
import { trackedFiles } from "../../scripts/packaging/source.mjs";
import { sha256 } from "../../scripts/packaging/stamps.mjs";
import {
  BUILD_DIR,
  STANDARD_LIBRARY,
  ZIG_PACKAGES,
  candidateOf,
  once,
} from "../../scripts/packaging/toolchain.mjs";
import { commitAll, hostPlatform, layOutProject, run } from "./support.mjs";

let folder;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "toolchain-"));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

describe("a build with rustup's compiler", () => {
  let project;
  let bin;
  let calls;

  beforeEach(async () => {
    project = path.join(folder, "project");
    bin = path.join(project, ".build", "zig", "bin");
    calls = path.join(folder, "calls");
    await layOutProject(project);
    await mkdir(bin, { recursive: true });
    await mkdir(path.join(folder, "cargo-home", "registry", "src", "index"), { recursive: true });
    // As if Zig had been brought already.
    await writeFile(path.join(project, ".build", "zig.done"), ZIG_PACKAGES.join(" "));
    await commitAll(project);
  });

  /** Puts a program on the path that notes how it was called, and does what the given script says. */
  async function standIn(name, script = "") {
    const file = path.join(bin, name);
    const note = `printf '%s\\n' "${name} $*" "  bootstrap=$RUSTC_BOOTSTRAP flags=$CARGO_ENCODED_RUSTFLAGS" >> '${calls}'`;
    await writeFile(file, `#!/bin/sh\n${note}\n${script}\n`);
    await chmod(file, 0o755);
  }

  async function build(version = "999.0.0") {
    const output = `$CARGO_TARGET_DIR/${RUST_TARGETS[hostPlatform]}/release`;
    const built = `mkdir -p "${output}"; for end in so dylib; do echo library > "${output}/libsandbox_managed_runtime.$end"; done`;
    const cargo = `case "$1" in --version) echo "cargo ${version}";; rustc) ${built};; esac`;
    await standIn("cargo", cargo);
    await standIn("cargo-zigbuild", cargo);
    await standIn("rustup");
    await standIn("rustc", 'echo "/rustups/sysroot"');
    await run([process.execPath, "scripts/build-all.mjs", "--rustup", hostPlatform], {
      cwd: project,
      env: {
        PATH: [bin, process.env.PATH].join(path.delimiter),
        CARGO_HOME: path.join(folder, "cargo-home"),
      },
    });
    const stamp = await readFile(path.join(project, "npm", hostPlatform, "build.json"), "utf8");
    return JSON.parse(stamp);
  }

  test("compiles the standard library along, and hides where its source stands", async () => {
    await build();
    const called = await readFile(calls, "utf8");
    expect(called).toContain("rustup component add rust-src\n");
    const [compiling, environment] = called.slice(called.search(/^cargo(-zigbuild)? rustc /m)).split("\n");
    expect(compiling).toContain(STANDARD_LIBRARY.join(" "));
    expect(compiling).toContain("--locked");
    expect(environment).toContain("bootstrap=1 ");
    expect(environment).toContain("--remap-path-prefix=/rustups/sysroot/lib/rustlib/src/rust=/rust\x1f");
  });

  test("says which commit the binary is of", async () => {
    const commit = (await run(["git", "rev-parse", "HEAD"], { cwd: project })).trim();
    const stamp = await build();
    expect(stamp).toEqual({ commit, dirty: false, sha256: sha256(Buffer.from("library\n")) });
    const binary = path.join(project, "npm", hostPlatform, fileName(hostPlatform));
    expect(sha256(await readFile(binary))).toBe(stamp.sha256);
  });

  test.each(["README.md", "unknown.rs"])("says that %s is not of that commit", async (file) => {
    await writeFile(path.join(project, file), "changed");
    expect(await build()).toHaveProperty("dirty", true);
  });

  test("refuses a Rust that is too old before it brings anything", async () => {
    await expect(build("1.50.0")).rejects.toThrow(/Rust \S+ or newer is needed.*this is Rust 1\.50\.0/);
    expect(await readFile(calls, "utf8")).toMatch(/^cargo --version\n.*\n$/);
  });
});

describe("what takes long", () => {
  const mark = `test-${process.pid}`;
  const calls = [];
  const bring = (version) => once(mark, version, async () => void calls.push(version));

  afterEach(async () => {
    await rm(path.join(BUILD_DIR, `${mark}.done`), { force: true });
  });

  test("is done once, and again for another version, be it one from before", async () => {
    for (const version of ["1", "1", "2", "2", "1"]) await bring(version);
    expect(calls).toEqual(["1", "2", "1"]);
  });

  test("is done again where it did not come to its end", async () => {
    await bring("1");
    const fail = () => once(mark, "2", () => Promise.reject(new Error("cut off")));
    await expect(fail()).rejects.toThrow("cut off");
    calls.length = 0;
    await bring("1");
    expect(calls).toEqual(["1"]);
  });
});

test.each([
  ["  Installed: (none)\n  Candidate: 1:7.2+dfsg-7~b3\n  Version table:\n", "1:7.2+dfsg-7~b3"],
  ["  Installed: (none)\n  Candidate: (none)\n", undefined],
  ["", undefined],
])("of %j, apt would install %s", (policy, version) => {
  expect(candidateOf(policy)).toBe(version);
});

test.each(["lib", "usr/lib"])("a library is found in %s", async (place) => {
  await mkdir(path.join(folder, place), { recursive: true });
  await writeFile(path.join(folder, place, "ld-musl-x86_64.so.1"), "");
  expect(await findLibrary(folder, "ld-musl-x86_64.so.1")).toBe(
    path.join(folder, place, "ld-musl-x86_64.so.1"),
  );
});

test("a library that is nowhere is named", async () => {
  await expect(findLibrary(folder, "ld-musl-x86_64.so.1")).rejects.toThrow(/have no ld-musl-x86_64\.so\.1/);
});

test("a file that was deleted is not laid out", async () => {
  for (const name of ["kept", "deleted"]) await writeFile(path.join(folder, name), "");
  await commitAll(folder);
  await rm(path.join(folder, "deleted"));
  expect(await trackedFiles(folder)).toEqual(["kept"]);
});
