// Bundles that contain this package: every bundler makes one without a setting or a warning, none includes the addon, and
// the bundle finds it in the installed package. The project has pnpm's layout, so a package can import only its own
// dependencies.

import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, readdir, realpath, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import commonjs from "@rollup/plugin-commonjs";
import nodeResolve from "@rollup/plugin-node-resolve";
import * as esbuild from "esbuild";
import { rolldown } from "rolldown";
import { rollup } from "rollup";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import webpack from "webpack";
import platform from "../../js/platform.js";
import { hostPlatform, root } from "../packaging/support.mjs";

const { LIBRARY_PATH, PACKAGE, fileName, packageName } = platform;
const DEPENDENT = "@paperclipai/adapter-utils";

/** Each makes one file from `input`, and returns its warnings. */
const BUNDLERS = {
  esbuild: async (input, outfile, format) => {
    const options = { entryPoints: [input], outfile, bundle: true, platform: "node", logLevel: "silent" };
    return (await esbuild.build({ ...options, format })).warnings;
  },
  rollup: async (input, file, format) => {
    const warnings = [];
    const onwarn = (warning) => warnings.push(warning);
    const bundle = await rollup({ input, plugins: [nodeResolve(), commonjs()], onwarn });
    await bundle.write({ file, format });
    return warnings;
  },
  rolldown: async (input, file, format) => {
    const warnings = [];
    const onLog = (_level, { message }) => warnings.push(message);
    const bundle = await rolldown({ input, platform: "node", onLog });
    await bundle.write({ file, format });
    return warnings;
  },
  webpack: async (entry, file, format) => {
    const output = { path: path.dirname(file), filename: path.basename(file) };
    const esm =
      format === "esm"
        ? { experiments: { outputModule: true }, output: { ...output, module: true } }
        : { output };
    const stats = await promisify(webpack)({ entry, target: "node", mode: "production", ...esm });
    const { errors, warnings } = stats.compilation;
    return [...errors, ...warnings];
  },
};

const CASES = Object.keys(BUNDLERS).flatMap((name) =>
  [PACKAGE, DEPENDENT].flatMap((imported) => ["cjs", "esm"].map((format) => [name, format, imported])),
);

let project;
let elsewhere;

/** A package in pnpm's store of a project, with its dependencies beside it. */
const stored = (name) =>
  path.join(project, "node_modules", ".pnpm", `${name.replace("/", "+")}@1.0.0`, "node_modules", name);

async function link(target, place) {
  await mkdir(path.dirname(place), { recursive: true });
  await symlink(target, place);
}

/** The project's own dependencies are linked into it. */
const name = (...names) =>
  Promise.all(names.map((each) => link(stored(each), path.join(project, "node_modules", each))));

beforeAll(async () => {
  // Node names files by their real paths, and the system's temporary folder may be behind a link.
  const home = await mkdtemp(path.join(await realpath(os.tmpdir()), "bundlers-"));
  afterAll(() => rm(home, { recursive: true }));
  project = path.join(home, "project");
  elsewhere = path.join(home, "elsewhere");
  await mkdir(elsewhere);
  for (const file of ["index.js", "binding.js", "package.json", "js", "clients"]) {
    await cp(path.join(root, file), path.join(stored(PACKAGE), file), { recursive: true });
  }
  const platformPackage = packageName(hostPlatform);
  await mkdir(stored(platformPackage), { recursive: true });
  const { version } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8"));
  await writeFile(
    path.join(stored(platformPackage), "package.json"),
    JSON.stringify({ name: platformPackage, version, main: fileName(hostPlatform) }),
  );
  await cp(
    path.join(root, fileName(hostPlatform)),
    path.join(stored(platformPackage), fileName(hostPlatform)),
  );
  await link(stored(platformPackage), path.join(stored(PACKAGE), "..", path.basename(platformPackage)));
  await mkdir(path.join(stored(DEPENDENT), "dist"), { recursive: true });
  await writeFile(
    path.join(stored(DEPENDENT), "package.json"),
    JSON.stringify({
      name: DEPENDENT,
      type: "module",
      exports: { ".": { import: "./dist/index.js" }, "./*": { import: "./dist/*.js" } },
    }),
  );
  await writeFile(path.join(stored(DEPENDENT), "dist", "index.js"), `export * from "${PACKAGE}";\n`);
  await link(stored(PACKAGE), path.join(stored(DEPENDENT), "..", path.basename(PACKAGE)));
});

beforeEach(async () => {
  for (const each of ["src", "dist"]) {
    await rm(path.join(project, each), { recursive: true, force: true });
    await mkdir(path.join(project, each));
  }
  await rm(path.join(project, "node_modules", "@paperclipai"), { recursive: true, force: true });
});

/** A program that prints a folder's snapshot. */
const listing = (imported) =>
  `import { captureDirectorySnapshot, parseSandboxRemoteExecutionSpec } from "${imported}";
   if (parseSandboxRemoteExecutionSpec({}) !== null) throw new Error("there is no such spec");
   captureDirectorySnapshot(process.argv[2]).then(
     ({ entries }) => console.log([...entries.keys()].join()),
     ({ code, message }) => console.log(code + "\\n" + message),
   );`;

/** A program in which each client refuses bad options, and one lists a folder. */
const CLIENTS = `
  import { createCloudflareClient } from "${PACKAGE}/clients/cloudflare";
  import { checkSandboxClient } from "${PACKAGE}/clients/conformance";
  import { createDaytonaClient } from "${PACKAGE}/clients/daytona";
  import { createDockerClient } from "${PACKAGE}/clients/docker";
  import { createE2bClient } from "${PACKAGE}/clients/e2b";
  import { createLocalClient } from "${PACKAGE}/clients/local";
  import { createSshClient } from "${PACKAGE}/clients/ssh";
  const all = [createCloudflareClient, createDaytonaClient, createDockerClient, createE2bClient, createSshClient];
  const refused = all.filter((create) => {
    try {
      create();
    } catch ({ code }) {
      return code.startsWith("ERR_INVALID_ARG_");
    }
  });
  const check = { workDir: process.argv[2], only: ["an empty file arrives and returns"], log() {} };
  checkSandboxClient(createLocalClient(), check)
    .then(({ passed }) => console.log(passed, refused.length))
    .then(() => createLocalClient().listFiles(process.argv[2]))
    .then((files) => console.log(files.join()));`;

/** Bundles a program, and returns the file that was made. */
async function bundle(bundler, format, imported, program = listing(imported)) {
  const input = path.join(project, "src", "program.mjs");
  await writeFile(input, program);
  const file = path.join(project, "dist", format === "esm" ? "program.mjs" : "program.cjs");
  const warnings = await BUNDLERS[bundler](input, file, format);
  expect(warnings.map(String)).toEqual([]);
  expect(await readdir(path.dirname(file))).toEqual([path.basename(file)]);
  expect(await readFile(file, "utf8")).not.toContain(root);
  return file;
}

/** Runs a program on a folder, with another working directory than its own. */
async function run(file, { args = [], env = {}, folder = path.dirname(file), cwd = elsewhere } = {}) {
  const options = { cwd, env: { ...process.env, [LIBRARY_PATH]: "", ...env } };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [...args, file, folder], options);
  expect(stderr).toBe("");
  return stdout;
}

describe.each(CASES)("a bundle by %s, as %s, of a program that imports %s", (bundler, format, imported) => {
  test("finds the addon in the installed package, and says what to install if it is missing", async () => {
    await name(imported);
    const file = await bundle(bundler, format, imported);
    expect(await run(file)).toBe(`${path.basename(file)}\n`);

    await cp(file, path.join(elsewhere, path.basename(file)));
    const moved = path.join(elsewhere, path.basename(file));
    const told = await run(moved);
    expect(told).toMatch(/^ERR_SANDBOX_BINDING_NOT_FOUND\nThe native part of .* is not installed\.\n/);
    expect(told).toContain(`  ${moved}\n`);
    expect(told).toContain(`npm install ${PACKAGE}@`);
    // A bundle that was not moved is found by its own folder.
    await name(...(imported === PACKAGE ? [] : [PACKAGE]));
    expect(await run(moved, { cwd: project, folder: path.dirname(file) })).toBe(`${path.basename(file)}\n`);
    expect(
      await run(moved, {
        env: { NODE_PATH: path.join(project, "node_modules") },
        folder: path.dirname(file),
      }),
    ).toBe(`${path.basename(file)}\n`);
  });
});

describe.each(["cjs", "esm"])("a bundle as %s", (format) => {
  test.each(Object.keys(BUNDLERS))("of the ready-made clients works, by %s", async (bundler) => {
    await name(PACKAGE);
    const file = await bundle(bundler, format, PACKAGE, CLIENTS);
    expect(await run(file)).toBe(`true 5\n${path.basename(file)}\n`);
  });

  test("that another program loads finds the addon by its own path", async () => {
    await name(PACKAGE);
    const file = await bundle("esbuild", format, PACKAGE);
    const other = path.join(elsewhere, "other.mjs");
    await writeFile(other, `await import(${JSON.stringify(file)});`);
    const args = ["--enable-source-maps"];
    expect(await run(other, { args, folder: path.dirname(file) })).toBe(`${path.basename(file)}\n`);
  });

  test("that is started through a link finds the addon by its real path", async () => {
    await name(PACKAGE);
    const file = await bundle("esbuild", format, PACKAGE);
    const linked = path.join(elsewhere, `linked-${path.basename(file)}`);
    await symlink(file, linked);
    const args = ["--preserve-symlinks-main"];
    expect(await run(linked, { args, folder: path.dirname(file) })).toBe(`${path.basename(file)}\n`);
  });

  test("loads the addon beside it", async () => {
    await name(PACKAGE);
    const file = await bundle("esbuild", format, PACKAGE);
    const alone = path.join(elsewhere, `alone-${format}`);
    await mkdir(alone);
    await cp(file, path.join(alone, path.basename(file)));
    await cp(path.join(root, fileName(hostPlatform)), path.join(alone, fileName(hostPlatform)));
    expect(await run(path.join(alone, path.basename(file)), { folder: path.dirname(file) })).toBe(
      `${path.basename(file)}\n`,
    );
  });

  test("of another version than the package that is installed says so", async () => {
    await name(PACKAGE);
    const file = await bundle("esbuild", format, PACKAGE);
    const code = await readFile(file, "utf8");
    const { version } = JSON.parse(await readFile(path.join(root, "package.json"), "utf8"));
    await writeFile(file, code.replace(`version = "${version}"`, 'version = "0.0.9"'));
    expect(await run(file)).toMatch(
      /^ERR_SANDBOX_BINDING_NOT_FOUND\n.* has another version than the package/,
    );
  });
});
