// The packages, installed as they will be: by each package manager, from a registry, into a project that has nothing
// else; and in a pnpm workspace such as Paperclip's, where adapter-utils exports the addon in place of its own modules.

import { cp, mkdtemp, readFile, readdir, realpath, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { packLocal } from "../../scripts/pack.mjs";
import { PACKAGE, PLATFORMS, fileName, packageName } from "../../scripts/platforms.mjs";
import {
  MANAGERS,
  PLACES,
  builtAddon,
  hostPlatform,
  linkProgramsWithoutRust,
  manage,
  packEverything,
  run,
  startRegistry,
  tool,
} from "./support.mjs";

/** A package manager's or compiler's start, several times in a row, on a busy machine. */
const PATIENT = { timeout: 300_000 };

let folder;
let packed;
let registry;
let project;
/** A search path with every program of the system but Rust's. */
let env;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "install-"));
  packed = await packEverything(folder);
  registry = await startRegistry(packed.all);
  const programs = path.join(folder, "programs");
  await linkProgramsWithoutRust(programs);
  // Where Node.js is a program of the system, Rust may be in its directory.
  const ofNode = path.dirname(process.execPath);
  env = { PATH: [programs, ...(PLACES.includes(ofNode) ? [] : [ofNode])].join(path.delimiter) };
  expect(await run(["sh", "-c", "command -v cargo rustc || true"], { cwd: folder, env })).toBe("");
}, PATIENT.timeout);

afterAll(async () => {
  await registry.close();
  await rm(folder, { recursive: true });
});

beforeEach(async () => {
  project = await mkdtemp(path.join(folder, "project-"));
});

/** Runs a package manager in a project, where no Rust is found; each starts with an empty cache. */
function manageProject(manager, words, { from = registry, project: cwd = project } = {}) {
  return manage(manager, words, { project: cwd, home: path.join(cwd, ".home"), registry: from.url, env });
}

/** Loads the package in the project, both ways, and its binary, and returns what that printed. */
async function useInProject() {
  const program = `
    import { createRequire } from "node:module";
    import { directoryEntryMatchesBaseline as imported } from "${PACKAGE}";
    const { directoryEntryMatchesBaseline: required } = createRequire(import.meta.url)("${PACKAGE}");
    console.log(imported === required, await imported(".", "use.mjs", { kind: "dir" }));`;
  await writeFile(path.join(project, "use.mjs"), program);
  return run([process.execPath, "use.mjs"], { cwd: project, env });
}

/** The names of the binaries in the project. */
async function installedBinaries() {
  const entries = await readdir(path.join(project, "node_modules"), { recursive: true, withFileTypes: true });
  const binaries = entries.filter((entry) => entry.isFile() && entry.name.endsWith(".node"));
  // Node 26 comes to what links lead to as well, so once for each link of pnpm's.
  const files = await Promise.all(
    binaries.map(({ parentPath, name }) => realpath(path.join(parentPath, name))),
  );
  return [...new Set(files)].map((file) => path.basename(file));
}

describe.each(Object.keys(MANAGERS))("%s", (manager) => {
  const { add, install, withoutOptional } = MANAGERS[manager];

  beforeEach(async () => {
    await writeFile(path.join(project, "package.json"), JSON.stringify({ name: "project", private: true }));
  });

  test("installs it without running a script", PATIENT, async () => {
    registry.unknown.clear();
    await manageProject(manager, [...add, PACKAGE, "--ignore-scripts"]);
    expect(await useInProject()).toBe("true false\n");
    // npm looks at optional peers too, which only a project that uses one has installed.
    const peers = Object.keys(packed.main.manifest.peerDependencies).map((name) => `/${name}`);
    expect(peers).toEqual(expect.arrayContaining([...registry.unknown]));
  });

  test("installs this platform's binary and no other", PATIENT, async () => {
    await manageProject(manager, [...add, PACKAGE]);
    const [system, cpu] = hostPlatform.split("-");
    // yarn 1 does not know of C libraries, and brings the binaries for both.
    const fits = (platform) =>
      platform === hostPlatform || (manager === "yarn" && platform.startsWith(`${system}-${cpu}`));
    expect((await installedBinaries()).sort()).toEqual(PLATFORMS.filter(fits).map(fileName).sort());
  });

  test("leaves optional dependencies out, which is explained, and the way out works", PATIENT, async () => {
    await manageProject(manager, [...add, PACKAGE, ...withoutOptional]);
    const failure = await useInProject().catch((error) => error.message);
    expect(failure).toContain("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(failure).toContain(`the package ${packageName(hostPlatform)}`);

    await rm(path.join(project, "node_modules"), { recursive: true });
    await manageProject(manager, install);
    expect(await useInProject()).toBe("true false\n");
  });
});

describe("the two tarballs of npm run pack:local", () => {
  let tarballs;
  let empty;

  beforeAll(async () => {
    const outDir = await mkdtemp(path.join(folder, "local-"));
    tarballs = await packLocal(outDir, builtAddon);
    empty = await startRegistry([]);
  }, PATIENT.timeout);

  afterAll(() => empty.close());

  test.each(Object.keys(MANAGERS))("install by %s where no registry has any", PATIENT, async (manager) => {
    await writeFile(path.join(project, "package.json"), JSON.stringify({ name: "project", private: true }));
    const files = tarballs.map(({ tarball }) => tarball);
    await manageProject(manager, [...MANAGERS[manager].add, ...files], { from: empty });
    expect(await useInProject()).toBe("true false\n");
    expect(await installedBinaries()).toEqual([fileName(hostPlatform)]);
    expect([...empty.unknown].filter((name) => name.includes("sandbox-managed-runtime"))).toEqual([]);
  });
});

describe.each([
  ["2026.707.0", ["workspace"], 2],
  ["2026.916.1", ["workspace", "workspace-newest"], 3],
])("a pnpm workspace whose adapter-utils is that of %s and exports the addon", (_release, folders, tests) => {
  let workspace;
  let adapterUtils;

  // None of its tests changes it.
  beforeAll(async () => {
    workspace = await mkdtemp(path.join(folder, "workspace-"));
    for (const name of folders)
      await cp(path.join(import.meta.dirname, name), workspace, { recursive: true });
    adapterUtils = path.join(workspace, "packages", "adapter-utils");
    const manifestPath = path.join(adapterUtils, "package.json");
    const manifest = JSON.parse(await readFile(manifestPath, "utf8"));
    manifest.dependencies = { [PACKAGE]: packed.main.manifest.version };
    // The tools that are here already, so that nothing else has to be downloaded; and the modules that stay as they are.
    manifest.devDependencies = Object.fromEntries(
      ["@types/node", "typescript", "vitest"].map((name) => [name, `link:${tool(name)}`]),
    );
    manifest.devDependencies.released = `link:${tool("adapter-utils-2026.916.1")}`;
    await writeFile(manifestPath, JSON.stringify(manifest));
    await manageProject("pnpm", MANAGERS.pnpm.install, { project: workspace });
  }, PATIENT.timeout);

  test.each([
    ["bundler", "esnext"],
    ["nodenext", "nodenext"],
  ])("compiles when modules are resolved as by %s", PATIENT, async (moduleResolution, module) => {
    const tsc = [process.execPath, tool("typescript/bin/tsc"), "--project", adapterUtils];
    await run([...tsc, "--moduleResolution", moduleResolution, "--module", module], { cwd: workspace });
  });

  test("runs a workspace's round trip from the installed packages", PATIENT, async () => {
    const vitest = [
      process.execPath,
      tool("vitest/vitest.mjs"),
      "run",
      "--root",
      adapterUtils,
      "--testTimeout=120000",
    ];
    // Of the run that this test is part of, the inner one must know nothing.
    const home = path.join(workspace, ".paperclip");
    const env = { VITEST: "", VITEST_POOL_ID: "", VITEST_WORKER_ID: "", PAPERCLIP_HOME: home };
    const output = await run([...vitest, "--reporter=json"], { cwd: adapterUtils, env });
    const { numPassedTests, numTotalTests } = JSON.parse(output);
    expect([numPassedTests, numTotalTests]).toEqual([tests, tests]);
  });
});
