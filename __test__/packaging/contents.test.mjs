// What is in the packages, down to the file, and whether the tools that judge packages are content with it.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { publint } from "publint";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PACKAGE, PLATFORMS, RUST_TARGETS, fileName, packageName } from "../../scripts/platforms.mjs";
import { packEverything, root, run, tool } from "./support.mjs";

const project = createRequire(import.meta.url)("../../package.json");

let folder;
let packed;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "packed-"));
  packed = await packEverything(folder);
}, 300_000);

afterAll(async () => {
  await rm(folder, { recursive: true });
});

describe("the main package", () => {
  test("holds exactly what is needed", () => {
    const expected = `
      CHANGELOG.md LICENSE README.md adapter-utils/checkout.js adapter-utils/commands.js adapter-utils/excludes.js
      adapter-utils/git.js adapter-utils/gitconfig adapter-utils/held.js adapter-utils/ignored.js adapter-utils/incoming.js adapter-utils/index.d.ts
      adapter-utils/index.js adapter-utils/lock.js adapter-utils/merge.js adapter-utils/others.js
      adapter-utils/outgoing.js adapter-utils/prepare.js adapter-utils/progress.js
      adapter-utils/repository.js adapter-utils/snapshots.js adapter-utils/staged.js adapter-utils/transfer.js binding.js
      cli/check.js cli/conflicts.js cli/diff.js cli/directory.js cli/explained.js cli/main.js cli/report.js cli/text.js
      clients/attempts.js clients/bridge.js clients/cloudflare.d.ts clients/cloudflare.js
      clients/conformance.d.ts clients/conformance.js clients/daytona.d.ts clients/daytona.js
      clients/docker.d.ts clients/docker.js clients/e2b.d.ts clients/e2b.js clients/errors.js
      clients/limits.d.ts clients/local.d.ts clients/local.js clients/process.js clients/program.js
      clients/refresh.js clients/sessions.js clients/shell.js clients/ssh.d.ts clients/ssh.js clients/timers.d.ts
      clients/transfer.js index.d.ts index.js js/abort.js js/calls.js js/check.js js/debug.js
      js/errors.js js/host.js js/lease.js js/native.js js/node.js js/platform.js js/progress.js
      js/spec.js js/state.js js/turn.js js/version.js package.json`;
    expect(packed.main.files).toEqual(expected.trim().split(/\s+/));
  });

  test("has no script that an install could run, and nothing of development", () => {
    for (const field of ["scripts", "devDependencies", "napi", "private"]) {
      expect(packed.main.manifest).not.toHaveProperty(field);
    }
  });

  test("asks for every platform's package in its own version, and for nothing else", () => {
    const { manifest } = packed.main;
    expect(manifest.optionalDependencies).toEqual(
      Object.fromEntries(PLATFORMS.map((platform) => [packageName(platform), project.version])),
    );
    expect(manifest).not.toHaveProperty("dependencies");
  });

  test("tells bundlers, Node and compilers what they ask", () => {
    const { manifest } = packed.main;
    expect(manifest.name).toBe(PACKAGE);
    expect(manifest.sideEffects).toBe(false);
    expect(manifest.engines).toEqual({ node: ">=20" });
    // A new package with a scope is private, unless it says otherwise.
    expect(manifest.publishConfig).toEqual({ access: "public" });
    const doors = Object.values(manifest.exports).filter((door) => typeof door === "object");
    expect(doors.length).toBeGreaterThan(0);
    for (const door of doors) expect(Object.keys(door)[0]).toBe("types");
  });

  test("leads to files that it holds", () => {
    const { bin, exports, main, types } = packed.main.manifest;
    const targets = Object.values(exports).flatMap((door) =>
      Object.values({ default: door, ...Object(door) }),
    );
    const files = targets.filter((target) => typeof target === "string" && target.length > 1);
    for (const file of [main, types, ...Object.values(bin), ...files])
      expect(packed.main.files).toContain(path.posix.normalize(file));
  });

  test("has nothing to complain about for publint", async () => {
    expect(await complaintsOfPublint(packed.main)).toEqual([]);
  });

  test("has the right types for every way of resolving it", async () => {
    const attw = tool("@arethetypeswrong/cli/dist/index.js");
    const output = await run([process.execPath, attw, packed.main.tarball, "--format=json"], { cwd: folder });
    const { analysis, problems } = JSON.parse(output);
    expect(problems ?? {}).toEqual({});
    const doors = Object.keys(packed.main.manifest.exports).filter((door) => !door.endsWith(".json"));
    expect(Object.keys(analysis.entrypoints)).toEqual(expect.arrayContaining(doors));
  });
});

describe.each(PLATFORMS)("the package of %s", (platform) => {
  const [system, cpu, libc] = platform.split("-");

  test("holds its binary, and nothing that is not needed", () => {
    const files = ["LICENSE", "README.md", "package.json", fileName(platform)];
    expect(packed.platforms.get(platform).files).toEqual(files);
  });

  test("is for that platform alone, and in step with the main package", () => {
    const { manifest } = packed.platforms.get(platform);
    // What a person reads of it: copied from the main package.
    const words = Object.fromEntries(
      ["description", "author", "keywords", "homepage", "bugs"].map((field) => [field, project[field]]),
    );
    expect(manifest).toEqual({
      ...words,
      name: packageName(platform),
      version: project.version,
      license: project.license,
      repository: project.repository,
      type: "commonjs",
      main: fileName(platform),
      files: [fileName(platform)],
      os: [system],
      cpu: [cpu],
      ...(libc && { libc: [libc === "gnu" ? "glibc" : libc] }),
      engines: project.engines,
      publishConfig: { access: "public" },
    });
  });

  test("has nothing to complain about for publint", async () => {
    expect(await complaintsOfPublint(packed.platforms.get(platform))).toEqual([]);
  });
});

test("the platforms are those that the napi tool is told of, in its names", () => {
  expect(project.napi.binaryName).toBe("sandbox-managed-runtime");
  expect([...project.napi.targets].sort()).toEqual(Object.values(RUST_TARGETS).sort());
  for (const [platform, target] of Object.entries(RUST_TARGETS)) {
    const [system, cpu, libc] = platform.split("-");
    expect(target).toMatch(cpu === "arm64" ? /^aarch64-/ : /^x86_64-/);
    expect(target).toMatch(system === "darwin" ? /-apple-darwin$/ : new RegExp(`-linux-${libc}$`));
  }
});

test("every file that names the version names the same one, and the changelog begins with a version", async () => {
  const read = (file) => readFile(path.join(root, file), "utf8");
  const lock = JSON.parse(await read("package-lock.json"));
  const found = {
    lock: lock.version,
    lockedProject: lock.packages[""].version,
    code: /^module\.exports\.version = "(.*)"/m.exec(await read("js/version.js"))?.[1],
    crate: /^version = "(.*)"/m.exec(await read("Cargo.toml"))?.[1],
    lockedCrate: /^name = "sandbox-managed-runtime"\nversion = "(.*)"/m.exec(await read("Cargo.lock"))?.[1],
  };
  expect(await read("CHANGELOG.md")).toMatch(/^## \[(Unreleased|\d)/m);
  expect(new Set(Object.values(found))).toEqual(new Set([project.version]));
});

async function complaintsOfPublint({ tarball }) {
  const bytes = await readFile(tarball);
  const { messages } = await publint({ pack: { tarball: Uint8Array.from(bytes).buffer }, strict: true });
  return messages;
}
