// What a release binary must be, as far as that shows without running it.

import { homedir } from "node:os";
import { root } from "../process.mjs";
import { readElf } from "./elf.mjs";
import { readMachO } from "./mach-o.mjs";
import { MINIMUM_GLIBC, MINIMUM_MACOS } from "./platforms.mjs";
import { compareVersions } from "./versions.mjs";

/** In bytes. */
const LARGEST = 3 * 1024 * 1024;

/** By this symbol, Node registers an addon. */
const ENTRY = "napi_register_module_v1";

/**
 * What Zig exports besides from a Mach-O library: its own symbols, and some of Rust's. They clash with nobody's: on
 * macOS, a symbol is looked for in the library that it was linked from.
 */
const ZIGS_OWN = /^(_mh_dylib_header|__dso_handle|rust_eh_personality|_R\w+)$/;

/**
 * The libraries that a binary may load. All are there wherever Node runs.
 *
 * @type {Record<string, RegExp>}
 */
const ALLOWED_LIBRARIES = {
  darwin: /^\/usr\/lib\/lib(System\.B|iconv\.2|charset\.1)\.dylib$/,
  gnu: /^(lib(c|m|dl|pthread|rt|gcc_s)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+)$/,
  musl: /^(libc(\.musl-\w+)?\.so(\.1)?|libgcc_s\.so\.1)$/,
};

/**
 * @param {string} platform
 * @param {Buffer} bytes
 * @returns {{ faults: string[], facts: string }} What is wrong, and what a person may want to know.
 */
export function inspectBinary(platform, bytes) {
  const [os, cpu, libc] = platform.split("-");
  /** @type {string[]} */
  const faults = [];
  const expect = (/** @type {boolean} */ holds, /** @type {string} */ fault) => {
    if (!holds) faults.push(fault);
  };

  const size = `${(bytes.length / 1024 / 1024).toFixed(2)} MiB`;
  expect(bytes.length <= LARGEST, `it has ${bytes.length} bytes, more than ${LARGEST}`);
  const paths = machinePaths(bytes);
  expect(paths.length === 0, `it holds paths of the machine it was built on: ${paths.join(", ")}`);

  const library = os === "darwin" ? inspectMachO(platform, bytes, expect) : inspectElf(libc, bytes, expect);
  expect(library.stripped, "it is not stripped");
  expect(library.cpu === cpu, `it is for ${library.cpu}`);
  expect(library.exported.includes(ENTRY), `it does not export ${ENTRY}`);
  const others = library.exported.filter(
    (name) => name !== ENTRY && !(os === "darwin" && ZIGS_OWN.test(name)),
  );
  expect(others.length === 0, `it exports more than it must: ${others.slice(0, 5).join(", ")}`);
  const unwanted = library.needed.filter((name) => !ALLOWED_LIBRARIES[libc ?? os].test(name));
  expect(unwanted.length === 0, `it loads ${unwanted.join(", ")}`);

  return { faults, facts: `${size}, ${library.needs}, loads ${library.needed.join(" ")}` };
}

/**
 * @param {string} platform
 * @param {Buffer} bytes
 * @param {(holds: boolean, fault: string) => void} expect
 */
function inspectMachO(platform, bytes, expect) {
  const library = readMachO(bytes);
  const minimum = MINIMUM_MACOS[platform];
  expect(library.minimumOs === minimum, `it needs macOS ${library.minimumOs} instead of ${minimum}`);
  expect(library.signature !== "broken", "its signature is not that of its content");
  expect(library.signature !== "none" || library.cpu !== "arm64", "it is not signed");
  return { ...library, needs: `macOS ${library.minimumOs}, signature ${library.signature}` };
}

/**
 * @param {string} libc
 * @param {Buffer} bytes
 * @param {(holds: boolean, fault: string) => void} expect
 */
function inspectElf(libc, bytes, expect) {
  const library = readElf(bytes);
  if (libc === "musl") {
    expect(library.versions.length === 0, `it needs ${library.versions.join(", ")}`);
    return { ...library, needs: "musl" };
  }
  const newest = library.versions
    .filter((version) => version.startsWith("GLIBC_"))
    .map((version) => version.slice("GLIBC_".length))
    .sort(compareVersions)
    .at(-1);
  expect(newest !== undefined, "it does not use glibc");
  const isTooNew = newest !== undefined && compareVersions(newest, MINIMUM_GLIBC) > 0;
  expect(!isTooNew, `it needs glibc ${newest}, newer than ${MINIMUM_GLIBC}`);
  return { ...library, needs: `glibc ${newest}` };
}

/**
 * Paths in the binary that tell of the machine or the person that built it.
 *
 * @param {Buffer} bytes
 */
function machinePaths(bytes) {
  const folders = [root, `${homedir()}/`, "/home/", "/Users/", "/root/", "/tmp/", ".cargo/", ".rustup/"];
  const text = bytes.toString("latin1");
  return folders
    .map((folder) => text.indexOf(folder))
    .filter((index) => index !== -1)
    .map((index) => JSON.stringify(text.slice(index, index + 80).replace(/[^ -~].*/s, "")));
}
