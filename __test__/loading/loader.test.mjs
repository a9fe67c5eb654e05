// The loader, as in a user's program: in its own process, from an installed package. For another kind of machine, code that
// runs first makes the process report that machine.

import { execFile, spawnSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import platform from "../../js/platform.js";
import { hostPlatform, root } from "../packaging/support.mjs";

const { LIBRARY_PATH, PACKAGE, PLATFORMS, fileName, packageName } = platform;
/** Whether the file that Node reports as its own is Node: under an emulator it may be a script. */
const isNodeItself = platform.libcOfProgram(await readFile(process.execPath)) !== undefined;
const { version } = createRequire(import.meta.url)("../../package.json");
const builtAddon = path.join(root, fileName(hostPlatform));
const [hostSystem, hostCpu] = hostPlatform.split("-");

/** A host for messages that are only formatted. */
const linux = { platform: "linux-x64-gnu", node: "v20.0.0", doubts: [] };

let project;
let installed;

beforeEach(async () => {
  // Node names files by their real paths, and the system's temporary folder may be behind a link.
  project = await mkdtemp(path.join(await realpath(os.tmpdir()), "loader-"));
  installed = path.join(project, "node_modules", PACKAGE);
  for (const file of ["index.js", "binding.js", "package.json", "cli", "clients", "js"]) {
    await cp(path.join(root, file), path.join(installed, file), { recursive: true });
  }
});

afterEach(async () => {
  await rm(project, { recursive: true });
});

/** Installs a platform's package beside the main one, with the given binary, or without its file. */
async function installPlatform(name, binary, changes = {}) {
  const folder = path.join(project, "node_modules", packageName(name));
  const manifest = { name: packageName(name), version, main: fileName(name) };
  await mkdir(folder, { recursive: true });
  await writeFile(path.join(folder, "package.json"), JSON.stringify({ ...manifest, ...changes }));
  if (binary) await writeFile(path.join(folder, fileName(name)), binary);
}

/**
 * Loads the binding in a new process.
 *
 * @param {{ disguise?: string, env?: Record<string, string>, options?: string[], start?: string[] }} [how] `disguise`:
 *   code that runs first. `options`: Node's options. `start`: the command that starts Node.
 * @returns What it exports, or its error.
 */
async function load({ disguise = "", env = {}, options = [], start = [] } = {}) {
  const program = `
    ${disguise}
    const { native } = require(${JSON.stringify(path.join(installed, "binding.js"))});
    try {
      console.log(JSON.stringify({ exported: Object.keys(native()) }));
    } catch ({ code, message, cause }) {
      console.log(JSON.stringify({ code, message, causeCode: cause?.code }));
    }`;
  return JSON.parse(await runNode(["-e", program], { env, options, start }));
}

/** Runs Node in the project, and returns what it prints. */
async function runNode(args, { env = {}, options = [], start = [] } = {}) {
  const [command, ...rest] = [...start, process.execPath, ...options, ...args];
  const { stdout } = await promisify(execFile)(command, rest, {
    cwd: project,
    env: { ...process.env, [LIBRARY_PATH]: "", ...env },
  });
  return stdout;
}

/** Code that makes a process look as if it ran on another machine. */
function disguiseAs(name) {
  const [system, cpu, libc] = name.split("-");
  const program = path.join(project, "node-of-another-system");
  const head = libc === "musl" ? "/lib/ld-musl-x86_64.so.1" : "/lib64/ld-linux-x86-64.so.2";
  return `
    require("node:fs").writeFileSync(${JSON.stringify(program)}, ${JSON.stringify(head)});
    Object.defineProperty(process, "platform", { value: ${JSON.stringify(system)} });
    Object.defineProperty(process, "arch", { value: ${JSON.stringify(cpu)} });
    process.execPath = ${JSON.stringify(program)};
    process.report.getReport = () => { throw new Error("no report is needed") };`;
}

/** Code that makes Node's own file unreadable, and sets its report. */
function disguiseWithReport(getReport, execPath = "/none/node") {
  return `
    process.execPath = ${JSON.stringify(execPath)};
    process.report.getReport = ${getReport};`;
}

describe("a binary that is installed", () => {
  test("comes from the platform's package", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const { exported } = await load();
    expect(exported).toEqual(Object.keys(createRequire(import.meta.url)(builtAddon)));
  });

  test("that was built on this machine is preferred to the package", async () => {
    await installPlatform(hostPlatform, "not a library");
    await cp(builtAddon, path.join(installed, fileName(hostPlatform)));
    expect(await load()).toHaveProperty("exported");
  });

  test("that NAPI_RS_NATIVE_LIBRARY_PATH names is preferred to both, on any platform", async () => {
    await cp(builtAddon, path.join(project, "named.node"));
    const env = { NAPI_RS_NATIVE_LIBRARY_PATH: path.join(project, "named.node") };
    expect(await load({ env })).toHaveProperty("exported");
    const disguise = `Object.defineProperty(process, "arch", { value: "riscv64" });`;
    expect(await load({ env, disguise })).toHaveProperty("exported");
  });

  test("is loaded once", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const program = `
      const { native } = require("${PACKAGE.replace("@", "./node_modules/@")}/binding.js");
      console.log(native() === native());`;
    expect(await runNode(["-e", program])).toBe("true\n");
  });

  test("is found if Node was built without reports", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const disguise = `Object.defineProperty(process, "report", { value: undefined });`;
    expect(await load({ disguise })).toHaveProperty("exported");
  });
});

describe("the package's functions, without a binary", () => {
  const spec = {
    transport: "sandbox",
    provider: "e2b",
    sandboxId: "1",
    remoteCwd: "/work",
    timeoutMs: 1,
    apiKey: null,
  };

  /** Imports names from the package in a module, and runs code that prints. */
  async function runModule(names, code) {
    const file = path.join(project, "use.mjs");
    await writeFile(file, `import { ${names} } from "${PACKAGE}";\n${code}`);
    return JSON.parse(await runNode([file]));
  }

  test("can be imported, and those of the spec work", async () => {
    const names =
      "buildSandboxExecutionSessionIdentity, parseSandboxRemoteExecutionSpec, sandboxExecutionSessionMatches";
    const printed = await runModule(
      names,
      `const spec = parseSandboxRemoteExecutionSpec(${JSON.stringify(spec)});
       const identity = buildSandboxExecutionSessionIdentity(spec);
       console.log(JSON.stringify([spec, sandboxExecutionSessionMatches(identity, spec)]));`,
    );
    expect(printed).toEqual([spec, true]);
  });

  test.each([
    ["captureDirectorySnapshot", `"/a"`],
    ["createTarballFromDirectory", `{ localDir: "/a", archivePath: "/b" }`],
    ["directoryEntryMatchesBaseline", `"/a", "b", { kind: "dir" }`],
    [
      "mergeDirectoryWithBaseline",
      `{ baseline: { exclude: [], entries: new Map() }, sourceDir: "/a", targetDir: "/b" }`,
    ],
    ["mirrorDirectory", `"/a", "/b"`],
    [
      "prepareSandboxManagedRuntime",
      `{ spec: ${JSON.stringify(spec)}, adapterKey: "a", workspaceLocalDir: "/a", client: {
        makeDir: () => calls++, writeFile: () => calls++, run: () => calls++ } }`,
    ],
    ["withDirectoryMergeLock", `"/a", () => calls++`],
  ])("%s rejects, and says why", async (name, args) => {
    const { isPromise, code, message, calls } = await runModule(
      name,
      `let calls = 0;
       const promise = ${name}(${args});
       promise.catch(({ code, message }) =>
         console.log(JSON.stringify({ isPromise: promise instanceof Promise, code, message, calls })));`,
    );
    expect(isPromise).toBe(true);
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toMatch(/^The native part of .* is not installed\.\nPlatform: /);
    expect(calls).toBe(0);
  });

  test("and clients work, also those that start programs", async () => {
    const program = `
      import { createDockerClient } from "${PACKAGE}/clients/docker";
      import { createLocalClient } from "${PACKAGE}/clients/local";
      const files = await createLocalClient().listFiles("/nowhere");
      // Runs what follows "exec -i box".
      const command = ["sh", "-c", 'shift 3; exec "$@"', "docker"];
      const inBox = await createDockerClient({ container: "box", command }).listFiles("/nowhere");
      console.log(JSON.stringify({ files, inBox }));`;
    const printed = await runNode(["--input-type=module", "-e", program]);
    expect(JSON.parse(printed)).toEqual({ files: [], inBox: [] });
  });

  test("have the same names as with a binary", async () => {
    const here = Object.keys(createRequire(import.meta.url)("../../index.js"));
    const print =
      "console.log(JSON.stringify(Object.keys(all).filter((name) => typeof all[name] === 'function')))";
    const imported = await runNode([
      "--input-type=module",
      "-e",
      `import * as all from "${PACKAGE}"; ${print}`,
    ]);
    expect(JSON.parse(imported).toSorted()).toEqual(here.toSorted());
  });
});

describe("the check of a deployment that docs/install.md shows", () => {
  /** The arguments of the shell command. */
  async function check() {
    const page = await readFile(path.join(root, "docs", "install.md"), "utf8");
    const [line] = /^node .* check$/m.exec(page);
    const env = { ...process.env, [LIBRARY_PATH]: "" };
    return spawnSync("sh", ["-c", line], { cwd: project, env, encoding: "utf8" });
  }

  test("prints which binary it found if that loads", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const { status, stdout, stderr } = await check();
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toContain(`${PACKAGE} ${version} works here.`);
    expect(stdout).toContain(
      path.join(project, "node_modules", packageName(hostPlatform), fileName(hostPlatform)),
    );
    expect(stdout).toContain(`${hostPlatform}, Node.js ${process.version}`);
  });

  test("fails without a binary, and says why", async () => {
    const { status, stderr } = await check();
    expect(status).toBe(1);
    expect(stderr).toContain(`The native part of ${PACKAGE} is not installed.`);
  });
});

describe("a binary that is missing", () => {
  test.each(PLATFORMS)("on %s: the error names what was looked for, and what to do", async (name) => {
    const { code, causeCode, message } = await load({ disguise: disguiseAs(name) });
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(causeCode).toBe("MODULE_NOT_FOUND");
    const lines = message.split("\n");
    expect(lines[0]).toBe(`The native part of ${PACKAGE} is not installed.`);
    expect(lines[1]).toBe(`Platform: ${name} (Node.js ${process.version})`);
    expect(lines[2]).toContain(`the package ${packageName(name)}, and a local build at ${installed}`);
    expect(message).toMatch(/optional dependencies were left out \(--no-optional,\n--omit=optional/);
    expect(message).toMatch(/the lockfile was made on another operating\nsystem/);
    expect(message).toContain("remove node_modules (and npm's package-lock.json, which may lack it)");
    expect(message).toContain("npm install --include=optional");
    expect(message).toContain("supportedArchitectures");
    expect(message.includes("Rosetta")).toBe(name === "darwin-x64");
  });

  test("the advice does not break an install on another system", async () => {
    const { message } = await load();
    expect(message).toContain(`pnpm add -O ${packageName(hostPlatform)}@${version}`);
    expect(message).toContain("npm install --save-optional, or yarn add --optional");
    // As a plain dependency, it would fail on every other system.
    expect(message).not.toMatch(/pnpm add (?!-O)|npm install @|yarn add (?!--optional)/);
  });

  test("in Yarn's Plug'n'Play, which has another message", async () => {
    const disguise = `
      const Module = require("node:module");
      const original = Module._resolveFilename;
      Module._resolveFilename = (request, ...rest) => {
        if (!request.startsWith("${PACKAGE}-")) return original(request, ...rest);
        const words = "Your application tried to access " + request + ", but it isn't declared in your dependencies; " +
          "this makes the require call ambiguous and unsound.";
        throw Object.assign(new Error(words), { code: "MODULE_NOT_FOUND", pnpCode: "UNDECLARED_DEPENDENCY" });
      };`;
    const { message } = await load({ disguise });
    expect(message).toMatch(/^The native part of .* is not installed\.\n/);
  });

  test("although its package is installed", async () => {
    await installPlatform(hostPlatform);
    const { code, message } = await load();
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toContain("was found, but it could not be loaded");
    expect(message).toContain(`Loaded from: ${packageName(hostPlatform)}`);
    expect(message).toMatch(
      new RegExp(`The system says: .*Cannot find module '.*${fileName(hostPlatform)}'`),
    );
  });
});

describe("a platform without a binary", () => {
  test("Windows is refused with a message that says what to do", async () => {
    const { code, message } = await load({ disguise: disguiseAs("win32-x64") });
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toMatch(/^@paperclipai\/sandbox-managed-runtime does not support Windows yet\./);
    expect(message).toContain(`Platform: win32-x64 (Node.js ${process.version})`);
  });

  test.each(["freebsd-x64", "linux-riscv64-gnu", "linux-ia32-musl"])(
    "%s is refused, with those that have one",
    async (name) => {
      const { code, message } = await load({ disguise: disguiseAs(name) });
      expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
      expect(message).toContain("has no binary for this platform");
      expect(message).toContain(`Platform: ${name} (Node.js ${process.version})`);
      expect(message).toContain(`Supported: ${PLATFORMS.join(", ")}`);
    },
  );
});

describe("a binary that cannot be loaded", () => {
  test("from the package: the error has the system's message, and what to do", async () => {
    await installPlatform(hostPlatform, "not a library");
    const { code, causeCode, message } = await load();
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(causeCode).toBe("ERR_DLOPEN_FAILED");
    expect(message).toContain(`Loaded from: ${packageName(hostPlatform)}`);
    expect(message).toMatch(/The system says: .*sandbox-managed-runtime/);
    expect(message).toMatch(/\n.*Remove .*install .*$/);
  });

  test("because it was cut off", async () => {
    await installPlatform(hostPlatform, (await readFile(builtAddon)).subarray(0, 10));
    expect((await load()).message).toMatch(/The file is damaged.*\binstall\b/);
  });

  // Node 20 has the permission model under another name.
  const permission = process.allowedNodeEnvironmentFlags.has("--permission")
    ? "--permission"
    : "--experimental-permission";
  test.each([[["--no-addons"]], [[permission, "--allow-fs-read=*"]]])(
    "because Node was told to load none: %j",
    async (options) => {
      await installPlatform(hostPlatform, await readFile(builtAddon));
      const { causeCode, message } = await load({ options });
      expect(causeCode).toBe("ERR_DLOPEN_DISABLED");
      expect(message).toContain("leave out --no-addons, and with --permission add --allow-addons");
    },
  );

  test("from a local build: the error names it, and nothing else is tried", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    await writeFile(path.join(installed, fileName(hostPlatform)), "not a library");
    const { code, message } = await load();
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toContain(`Loaded from: ${path.join(installed, fileName(hostPlatform))}`);
  });

  test("from NAPI_RS_NATIVE_LIBRARY_PATH: the error names it, and nothing else is tried", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const missing = path.join(project, "missing.node");
    const { code, message } = await load({ env: { NAPI_RS_NATIVE_LIBRARY_PATH: missing } });
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toContain(`Loaded from: ${missing}, which ${LIBRARY_PATH} names`);
  });

  if (hostSystem === "linux") {
    test("because it is for another processor", async () => {
      const other = Buffer.from(await readFile(builtAddon));
      // The field of an ELF file that names the processor: 62 is x64, 183 is arm64.
      other.writeUInt16LE(hostCpu === "x64" ? 183 : 62, 18);
      await installPlatform(hostPlatform, other);
      expect((await load()).message).toMatch(/for another processor|for another system/);
    });
  }

  // Mounting takes root, or a system that lets users be root of their own namespace.
  const apart = [
    ["unshare", "-m"],
    ["unshare", "-rm"],
  ].find((start) => mayMount(start));
  if (apart) {
    test("because its file system forbids code", async () => {
      const script = `mount -t tmpfs -o noexec none "$0" && cp "$1" "$0" && shift && exec "$@"`;
      const folder = path.join(project, "node_modules", packageName(hostPlatform));
      await installPlatform(hostPlatform);
      // The mount hides the package's manifest, so the variable names the binary.
      const start = [...apart, "sh", "-c", script, folder, builtAddon];
      const env = { [LIBRARY_PATH]: path.join(folder, path.basename(builtAddon)) };
      expect((await load({ start, env })).message).toContain("a file system that is mounted noexec");
    });
  }

  if (hostPlatform.endsWith("-gnu")) {
    test("because the system's glibc is too old", async () => {
      const newer = Buffer.from(await readFile(builtAddon));
      newer.write("GLIBC_9.", newer.lastIndexOf("GLIBC_2."));
      await installPlatform(hostPlatform, newer);
      expect((await load()).message).toContain("too old: glibc 2.28 or newer is needed");
    });
  }

  // Failures that cannot be caused on every machine, with the message of the system on which they were seen or are documented.
  test.each([
    ["/x.node: cannot open shared object file: No such file or directory", "another processor"],
    ["libc.so: cannot open shared object file: No such file or directory", "another C library"],
    ["/usr/lib/x86_64-linux-gnu/libc.so: invalid ELF header", "another C library"],
    [
      "Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by /x.node)",
      "another C library",
    ],
    ["Error relocating /x.node: gnu_get_libc_version: symbol not found", "another C library"],
    ["/lib64/libc.so.6: version `GLIBC_2.28' not found (required by /x.node)", "too old: glibc 2.28"],
    [
      "dlopen(/x.node, 0x0001): tried: '/x.node' (mach-o file, but is an incompatible architecture (have 'x86_64', need 'arm64'))",
      "another processor",
    ],
    [
      "dlopen(/x.node, 0x0001): tried: '/x.node' (slice is not valid mach-o file)",
      "damaged or made for another",
    ],
    ["/x.node: invalid ELF header", "damaged or made for another"],
    ["/x.node: file too short", "cut off"],
    ["dlopen(/x.node, 0x0001): tried: '/x.node' (file is too short)", "cut off"],
    ["/x.node: failed to map segment from shared object", "mounted noexec"],
    ["Error loading shared library /x.node: Operation not permitted", "mounted noexec"],
    [
      "dlopen(/x.node, 0x0001): tried: '/x.node' (code signature in <8F2A> '/x.node' not valid for use in process: mapping process and mapped file (non-platform) have different Team IDs)",
      "com.apple.security.cs.disable-library-validation",
    ],
    [
      "dlopen(/x.node, 0x0001): tried: '/x.node' (code signature in <8F2A> '/x.node' not valid for use in process: library validation failed)",
      "com.apple.security.cs.disable-library-validation",
    ],
    [
      "dlopen(/x.node, 0x0001): tried: '/x.node' (code signature invalid in <8F2A> '/x.node' (errno=1))",
      "changed after it was signed",
    ],
    ["Cannot load native addon because loading addons is disabled.", "leave out --no-addons"],
    ["what no system has said before", "If that does not help, report this message"],
  ])("%s", (systemMessage, advice) => {
    const failure = { host: linux, source: "/x.node", systemMessage };
    const message = platform.loadFailedMessage(failure);
    expect(message).toContain(`The system says: ${systemMessage}\n`);
    expect(message.split("\n").at(-1)).toContain(advice);
  });
});

describe("a binary that is not this package's", () => {
  /** Looks like an addon of another package to the loader: a module that exports something else. */
  const foreign = "module.exports = { transform() {} };";

  test("from NAPI_RS_NATIVE_LIBRARY_PATH: the file and the variable are named", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const file = path.join(project, "another.cjs");
    await writeFile(file, foreign);
    const { code, message } = await load({ env: { [LIBRARY_PATH]: file } });
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toMatch(/^What was loaded is not the native part of this @paperclipai\/.*\.$/m);
    expect(message).toContain(`Loaded from: ${file}, which ${LIBRARY_PATH} names`);
    expect(message).toContain("It lacks: Canceller, ");
    expect(message).toContain("Unset the variable");
  });

  test("as a real addon of another package", async () => {
    // It is rolldown's, and this project may not be able to import it.
    const rolldownFile = createRequire(import.meta.url).resolve("rolldown");
    const other = createRequire(rolldownFile).resolve(`@rolldown/binding-${hostPlatform}`);
    const { message } = await load({ env: { [LIBRARY_PATH]: other } });
    expect(message).toContain("It lacks: Canceller, ");
  });

  test.each([
    ["build", "Build it again, or remove it"],
    ["package", "Remove node_modules and install again"],
  ])("from a %s", (origin, advice) => {
    const message = platform.foreignMessage({
      host: linux,
      source: "/x.node",
      origin,
      missing: ["readEntry"],
    });
    expect(message).toContain("Loaded from: /x.node\nIt lacks: readEntry\n");
    expect(message).toContain(advice);
  });

  test("is the error of every function that is called", async () => {
    const sources = await Promise.all(
      [
        "index.js",
        "js/native.js",
        "js/turn.js",
        "adapter-utils/held.js",
        "adapter-utils/lock.js",
        "adapter-utils/merge.js",
        "adapter-utils/transfer.js",
        "clients/program.js",
      ].map((name) => readFile(path.join(root, name), "utf8")),
    );
    const used = [...sources.join("\n").matchAll(/native\(\)\)?\.(\w+)/g)];
    const file = path.join(project, "empty.cjs");
    await writeFile(file, "");
    const { message } = await load({ env: { [LIBRARY_PATH]: file } });
    const lacks = /It lacks: (.*)/.exec(message)[1].split(", ");
    expect(lacks.toSorted()).toEqual([...new Set(used.map(([, name]) => name))].toSorted());
  });

  test.each([["a binary that loads"], ["one that does not"]])("has another version: %s", async (which) => {
    const binary = which === "a binary that loads" ? await readFile(builtAddon) : "not a library";
    await installPlatform(hostPlatform, binary, { version: "0.0.9" });
    const { code, message } = await load();
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toContain("has another version than the package itself");
    expect(message).toContain(`Found: ${packageName(hostPlatform)} 0.0.9, with ${PACKAGE} ${version}`);
    expect(message).toContain(`give it the version ${version}`);
  });

  test("is noticed if the package was updated while the process ran", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon), { version: "9.0.0" });
    const manifest = path.join(installed, "package.json");
    const program = `
      const { native } = require(${JSON.stringify(path.join(installed, "binding.js"))});
      require("node:fs").writeFileSync(${JSON.stringify(manifest)}, '{ "version": "9.0.0" }');
      try { native() } catch ({ message }) { console.log(message) }`;
    expect(await runNode(["-e", program])).toContain("restart it");
  });
});

describe("which C library Node runs on", () => {
  test.each([
    ["glibc's loader", "\x7fELF /lib64/ld-linux-x86-64.so.2\0", "gnu"],
    ["glibc's on arm64", "\x7fELF /lib/ld-linux-aarch64.so.1\0", "gnu"],
    ["glibc's in a folder of Nix", "/nix/store/a-glibc-2.40/lib/ld-linux-x86-64.so.2", "gnu"],
    ["musl's", "\x7fELF /lib/ld-musl-x86_64.so.1\0", "musl"],
    ["musl's, in a script that starts Node", "#!/bin/sh\nexec '/opt/lib/ld-musl-aarch64.so.1' node", "musl"],
    ["none", "\x7fELF", undefined],
  ])("its file asks for %s", (_, head, libc) => {
    expect(platform.libcOfProgram(Buffer.from(head))).toBe(libc);
  });

  test("its file could not be read", () => {
    expect(platform.libcOfProgram(undefined)).toBeUndefined();
  });

  test.each([
    [{ glibcVersionRuntime: "2.28" }, "gnu"],
    [{}, "musl"],
    [undefined, undefined],
  ])("its report has the header %o", (header, libc) => {
    expect(platform.libcOfReport(header)).toBe(libc);
  });

  if (isNodeItself) {
    test("makes no report if the file tells it, because that takes long on a busy server", async () => {
      const disguise = `process.report.getReport = () => { throw new Error("made") };`;
      const { message } = await load({ disguise });
      expect(message).toContain(`Platform: ${hostPlatform} `);
      expect(message).not.toContain("Not certain");
    });
  }

  if (hostSystem === "linux") {
    test.each([
      [`{ header: { glibcVersionRuntime: "2.36" } }`, "gnu"],
      ["{ header: {} }", "musl"],
    ])("the report is asked where the file cannot be read, and the reason told: %s", async (report, libc) => {
      const { code, message } = await load({ disguise: disguiseWithReport(`() => (${report})`) });
      expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
      expect(message).toContain(`Platform: linux-${hostCpu}-${libc} `);
      expect(message).toContain("Not certain: Node's own file did not say which C library this is: ENOENT");
    });

    test("glibc is assumed if neither can be read, and the message has both reasons", async () => {
      const disguise = disguiseWithReport(`() => { throw new Error("no reports here") }`);
      const { code, message } = await load({ disguise });
      expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
      expect(message).toContain(`Platform: linux-${hostCpu}-gnu `);
      expect(message).toMatch(/^Not certain: Node's own file did not say .*ENOENT/m);
      expect(message).toMatch(/^Not certain: Node's report did not say .*: no reports here$/m);
    });
  }
});

/** Whether a program that is started in this way may mount something. */
function mayMount(start) {
  const [command, ...args] = [...start, "sh", "-c", "mount -t tmpfs none /mnt"];
  return hostSystem === "linux" && spawnSync(command, args).status === 0;
}
