// The checks of release binaries, against binaries with one thing wrong. For Linux, the addon that was built here is
// bent; for macOS, a library is written that has just what the checks read.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { inspectBinary } from "../../scripts/packaging/inspect.mjs";
import { fileName } from "../../scripts/packaging/platforms.mjs";
import { hostPlatform, root } from "./support.mjs";

const LARGEST = 2 * 1024 * 1024;
const faultsOf = (platform, bytes) => inspectBinary(platform, bytes).faults;

describe("a library for macOS", () => {
  const entry = { name: "_napi_register_module_v1" };

  /** A Mach-O library without any code. */
  function library({
    cpu = "arm64",
    type = 6,
    symbols = [entry],
    libraries = ["/usr/lib/libSystem.B.dylib"],
    minimum = "11.0",
    signed = true,
    adHoc = true,
    padding = 0,
    text = "",
  } = {}) {
    const strings = Buffer.from(`\0${symbols.map(({ name }) => `${name}\0`).join("")}`);
    const table = Buffer.alloc(symbols.length * 16);
    let name = 1;
    symbols.forEach((symbol, index) => {
      table.writeUInt32LE(name, index * 16);
      // By default defined in a section, and external.
      table[index * 16 + 4] = symbol.kind ?? 0x0f;
      name += symbol.name.length + 1;
    });

    const paths = libraries.map((file) =>
      Buffer.from(file.padEnd(Math.ceil((file.length + 1) / 8) * 8, "\0")),
    );
    const sizes = [24, 24, ...paths.map((file) => 24 + file.length), ...(signed ? [16] : [])];
    const content = 32 + sizes.reduce((sum, size) => sum + size, 0);
    const body = Buffer.concat([table, strings, Buffer.from(text), Buffer.alloc(padding)]);
    const end = Math.ceil((content + body.length) / 16) * 16;

    const bytes = Buffer.alloc(end);
    body.copy(bytes, content);
    const words = (at, ...values) =>
      values.forEach((value, index) => bytes.writeUInt32LE(value, at + index * 4));
    words(0, 0xfeedfacf, cpu === "arm64" ? 0x0100000c : 0x01000007, 0, type, sizes.length, content - 32);
    let at = 32;
    words(at, 0x2, 24, content, symbols.length, content + table.length, strings.length);
    const [major, minor] = minimum.split(".").map(Number);
    words((at += 24), 0x32, 24, 1, (major << 16) | (minor << 8));
    at += 24;
    for (const file of paths) {
      words(at, 0xc, 24 + file.length, 24);
      file.copy(bytes, at + 24);
      at += 24 + file.length;
    }
    if (!signed) return bytes;
    words(at, 0x1d, 16, end);
    return Buffer.concat([bytes, signature(bytes, adHoc)]);
  }

  /** A signature of the bytes: a list of one part, which lists the digests of pages of 4 KiB. */
  function signature(bytes, adHoc) {
    const pages = Math.ceil(bytes.length / 4096);
    const directory = Buffer.alloc(48);
    const fields = [0xfade0c02, 48 + pages * 32, 0x20400, adHoc ? 2 : 0, 48, 0, 0, pages, bytes.length];
    fields.forEach((value, index) => directory.writeUInt32BE(value, index * 4));
    directory.set([32, 2, 0, 12], 36);
    const digests = Array.from({ length: pages }, (_, page) =>
      createHash("sha256")
        .update(bytes.subarray(page * 4096, (page + 1) * 4096))
        .digest(),
    );
    const list = Buffer.alloc(20);
    const head = [0xfade0cc0, 20 + directory.length + pages * 32, 1, 0, 20];
    head.forEach((value, index) => list.writeUInt32BE(value, index * 4));
    return Buffer.concat([list, directory, ...digests]);
  }

  test("that is as it must be has no faults", () => {
    expect(faultsOf("darwin-arm64", library())).toEqual([]);
    expect(faultsOf("darwin-arm64", library({ type: 8, padding: 10_000 }))).toEqual([]);
    const thunk = { name: "_close__thunk", kind: 0x0e };
    expect(faultsOf("darwin-arm64", library({ symbols: [entry, thunk] }))).toEqual([]);
    expect(faultsOf("darwin-x64", library({ cpu: "x64", minimum: "10.15", signed: false }))).toEqual([]);
  });

  test.each([
    ["for another processor", { cpu: "x64" }, "it is for x64"],
    ["for a newer macOS", { minimum: "12.3" }, "it needs macOS 12.3 instead of 11.0"],
    ["without a signature", { signed: false }, "it is not signed"],
    [
      "with a signature that claims an identity",
      { adHoc: false },
      "its signature is not that of its content",
    ],
    [
      "that is too large",
      { padding: LARGEST },
      expect.stringMatching(/^it has \d+ bytes, more than 2097152$/),
    ],
    ["without the entry", { symbols: [] }, "it does not export napi_register_module_v1"],
    [
      "that only asks for the entry",
      { symbols: [{ ...entry, kind: 0x01 }] },
      "it does not export napi_register_module_v1",
    ],
    [
      "with a further export",
      { symbols: [entry, { name: "_malloc" }] },
      "it exports more than it must: malloc",
    ],
    ["with a local symbol", { symbols: [entry, { name: "_helper", kind: 0x0e }] }, "it is not stripped"],
    ["with debugging symbols", { symbols: [entry, { name: "/x.o", kind: 0x66 }] }, "it is not stripped"],
    [
      "that loads what not every Mac has",
      { libraries: ["/usr/lib/libSystem.B.dylib", "/opt/homebrew/lib/libz.dylib"] },
      "it loads /opt/homebrew/lib/libz.dylib",
    ],
    [
      "that names a folder of its builder",
      { text: "/Users/somebody/src/lib.rs" },
      'it holds paths of the machine it was built on: "/Users/somebody/src/lib.rs"',
    ],
  ])("%s is told", (_, options, fault) => {
    expect(faultsOf("darwin-arm64", library(options))).toEqual([fault]);
  });

  test("that was changed after it was signed is told", () => {
    const bytes = library({ padding: 10_000 });
    bytes[9_000] ^= 1;
    expect(faultsOf("darwin-arm64", bytes)).toEqual(["its signature is not that of its content"]);
  });

  test("is no library where it is something else", () => {
    expect(() => inspectBinary("darwin-arm64", library({ type: 2 }))).toThrow("not a library");
    expect(() => inspectBinary("darwin-arm64", Buffer.from("\x7fELF\x02\x01".padEnd(64)))).toThrow(
      "not a 64-bit Mach-O file",
    );
  });
});

// The addon as it was built here is an ELF library there, for one of these C libraries.
if (hostPlatform.startsWith("linux-")) {
  const [, cpu, libc] = hostPlatform.split("-");

  describe("a library for Linux", () => {
    /** Of the addon as it is. A build for this machine alone may be larger than a release, or hold its paths. */
    let faults;
    let addon;

    beforeAll(async () => {
      addon = await readFile(path.join(root, fileName(hostPlatform)));
      faults = faultsOf(hostPlatform, addon);
    });

    /** The faults that a change of the addon's bytes adds. */
    function addedBy(change) {
      const bytes = Buffer.from(addon);
      change(bytes);
      return faultsOf(hostPlatform, bytes).filter((fault) => !faults.includes(fault));
    }

    test("that was built here exports its entry alone, and is stripped", () => {
      expect(faults.filter((fault) => /export|stripped|it is for|it loads/.test(fault))).toEqual([]);
    });

    test("for another processor is told", () => {
      const [number, other] = cpu === "x64" ? [183, "arm64"] : [62, "x64"];
      expect(addedBy((bytes) => bytes.writeUInt16LE(number, 18))).toEqual([`it is for ${other}`]);
    });

    test("without its entry is told, and so is what it exports instead", () => {
      const fault = [
        "it does not export napi_register_module_v1",
        "it exports more than it must: napi_register",
      ];
      const added = addedBy((bytes) => bytes.write("\0", bytes.indexOf("napi_register_module_v1") + 13));
      expect(added).toEqual(fault);
    });

    if (libc === "gnu") {
      test("that asks for a newer glibc is told", () => {
        const added = addedBy((bytes) => bytes.write("GLIBC_9.", bytes.lastIndexOf("GLIBC_2.")));
        expect(added).toEqual([expect.stringMatching(/^it needs glibc 9\.[\d.]+, newer than 2\.28$/)]);
      });
    }

    test("is no library where it is something else", () => {
      expect(() => addedBy((bytes) => bytes.writeUInt16LE(2, 16))).toThrow("not a shared library");
      expect(() => addedBy((bytes) => bytes.write("MZ"))).toThrow("not a 64-bit ELF file");
    });
  });
}
