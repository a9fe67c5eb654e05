// The loader, run as a user's program runs it: in a process of its own, from an installed package. What a machine of
// another kind says of itself is put into the process before.

import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import platform from "../../js/platform.js";
import { hostPlatform, root } from "./support.mjs";

const { PACKAGE, PLATFORMS, fileName, packageName } = platform;
const { version } = createRequire(import.meta.url)("../../package.json");
const builtAddon = path.join(root, fileName(hostPlatform));
const [hostSystem, hostCpu] = hostPlatform.split("-");

let project;
let installed;

beforeEach(async () => {
  project = await mkdtemp(path.join(os.tmpdir(), "loader-"));
  installed = path.join(project, "node_modules", PACKAGE);
  for (const file of ["binding.js", "package.json", "js"]) {
    await cp(path.join(root, file), path.join(installed, file), { recursive: true });
  }
});

afterEach(async () => {
  await rm(project, { recursive: true });
});

/** Puts a platform's package beside the main one, with the given binary; without one, it lacks its file. */
async function installPlatform(name, binary) {
  const folder = path.join(project, "node_modules", packageName(name));
  await cp(path.join(root, "npm", name, "package.json"), path.join(folder, "package.json"));
  if (binary) await writeFile(path.join(folder, fileName(name)), binary);
}

/**
 * Loads the binding in a new process.
 *
 * @param {{ disguise?: string, env?: Record<string, string> }} [options] `disguise`: code that runs before.
 * @returns What it exports, or how it failed.
 */
async function load({ disguise = "", env = {} } = {}) {
  const program = `
    ${disguise}
    try {
      const exported = Object.keys(require(${JSON.stringify(path.join(installed, "binding.js"))}));
      console.log(JSON.stringify({ exported }));
    } catch ({ code, message, cause }) {
      console.log(JSON.stringify({ code, message, causeCode: cause?.code }));
    }`;
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", program], {
    cwd: project,
    env: { ...process.env, NAPI_RS_NATIVE_LIBRARY_PATH: "", ...env },
  });
  return JSON.parse(stdout);
}

/** Code that makes a process look as if it ran elsewhere. */
function disguiseAs(name) {
  const [system, cpu, libc] = name.split("-");
  const header = libc === "gnu" ? { glibcVersionRuntime: "2.28" } : {};
  return `
    Object.defineProperty(process, "platform", { value: ${JSON.stringify(system)} });
    Object.defineProperty(process, "arch", { value: ${JSON.stringify(cpu)} });
    process.report.getReport = () => (${JSON.stringify({ header })});`;
}

describe("a binary that is there", () => {
  test("comes from the platform's package", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const { exported } = await load();
    expect(exported).toEqual(Object.keys(createRequire(import.meta.url)("../../binding.js")));
  });

  test("that was built on this machine comes before the package", async () => {
    await installPlatform(hostPlatform, "not a library");
    await cp(builtAddon, path.join(installed, fileName(hostPlatform)));
    expect(await load()).toHaveProperty("exported");
  });

  test("that NAPI_RS_NATIVE_LIBRARY_PATH names comes before both, on any platform", async () => {
    await cp(builtAddon, path.join(project, "named.node"));
    const env = { NAPI_RS_NATIVE_LIBRARY_PATH: path.join(project, "named.node") };
    expect(await load({ env })).toHaveProperty("exported");
    const disguise = `Object.defineProperty(process, "arch", { value: "riscv64" });`;
    expect(await load({ env, disguise })).toHaveProperty("exported");
  });

  test("is found where Node was built without reports", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const disguise = `Object.defineProperty(process, "report", { value: undefined });`;
    expect(await load({ disguise })).toHaveProperty("exported");
  });
});

describe("a binary that is missing", () => {
  test.each(PLATFORMS)("on %s: the error names what was looked for, and the way out", async (name) => {
    const { code, causeCode, message } = await load({ disguise: disguiseAs(name) });
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(causeCode).toBe("MODULE_NOT_FOUND");
    const lines = message.split("\n");
    expect(lines[0]).toBe(`The native part of ${PACKAGE} is not installed.`);
    expect(lines[1]).toBe(`Platform: ${name} (Node.js ${process.version})`);
    expect(lines[2]).toContain(`the package ${packageName(name)}, and a local build at ${installed}`);
    expect(message).toMatch(/optional dependencies were left out \(--no-optional,\n--omit=optional/);
    expect(message).toMatch(/the lockfile was made on another operating\nsystem/);
    expect(message).toContain("npm install --include=optional");
    expect(message).toContain(`pnpm add ${packageName(name)}@${version}`);
  });

  test("although its package is there", async () => {
    await installPlatform(hostPlatform);
    const { code, message } = await load();
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toContain("is installed, but it could not be loaded");
    expect(message).toContain(`Loaded from: ${packageName(hostPlatform)}`);
    expect(message).toMatch(
      new RegExp(`The system says: .*Cannot find module '.*${fileName(hostPlatform)}'`),
    );
  });
});

describe("a platform without a binary", () => {
  test("Windows is refused in plain words", async () => {
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

describe("a binary that does not load", () => {
  test("from the package: what the system says, and the way out", async () => {
    await installPlatform(hostPlatform, "not a library");
    const { code, causeCode, message } = await load();
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(causeCode).toBe("ERR_DLOPEN_FAILED");
    expect(message).toContain(`Loaded from: ${packageName(hostPlatform)}`);
    expect(message).toMatch(/The system says: .*sandbox-managed-runtime/);
    expect(message).toMatch(/\n.*Remove .*install .*$/);
  });

  test("from a local build: it is named, and nothing else is tried", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    await writeFile(path.join(installed, fileName(hostPlatform)), "not a library");
    const { code, message } = await load();
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toContain(`Loaded from: ${path.join(installed, fileName(hostPlatform))}`);
  });

  test("from NAPI_RS_NATIVE_LIBRARY_PATH: it is named, and nothing else is tried", async () => {
    await installPlatform(hostPlatform, await readFile(builtAddon));
    const missing = path.join(project, "missing.node");
    const { code, message } = await load({ env: { NAPI_RS_NATIVE_LIBRARY_PATH: missing } });
    expect(code).toBe("ERR_SANDBOX_BINDING_NOT_FOUND");
    expect(message).toContain(`Loaded from: ${missing}`);
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

  if (hostPlatform.endsWith("-gnu")) {
    test("because the system's glibc is too old", async () => {
      const newer = Buffer.from(await readFile(builtAddon));
      newer.write("GLIBC_9.", newer.lastIndexOf("GLIBC_2."));
      await installPlatform(hostPlatform, newer);
      expect((await load()).message).toContain("too old: glibc 2.28 or newer is needed");
    });
  }

  // What cannot be brought about on every machine, in the words of the system it was seen or is documented on.
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
    ["/x.node: failed to map segment from shared object", "If that does not help, report this message"],
  ])("%s", (systemMessage, advice) => {
    const failure = { platform: "linux-x64-gnu", node: "v20.0.0", source: "/x.node", systemMessage };
    const message = platform.loadFailedMessage(failure);
    expect(message).toContain(`The system says: ${systemMessage}\n`);
    expect(message.split("\n").at(-1)).toContain(advice);
  });
});
