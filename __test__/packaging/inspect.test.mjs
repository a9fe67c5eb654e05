// The checks of release binaries, against binaries with one thing wrong. For Linux, the addon that was built here is
// bent; for macOS, a library is written that has just what the checks read (mach-o.mjs).

import { readFile } from "node:fs/promises";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { inspectBinary } from "../../scripts/packaging/inspect.mjs";
import { fileName } from "../../scripts/packaging/platforms.mjs";
import { entry, library } from "./mach-o.mjs";
import { hostPlatform, root } from "./support.mjs";

const LARGEST = 3 * 1024 * 1024;
const faultsOf = (platform, bytes) => inspectBinary(platform, bytes).faults;

describe("a library for macOS", () => {
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
      expect.stringMatching(new RegExp(`^it has \\d+ bytes, more than ${LARGEST}$`)),
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
