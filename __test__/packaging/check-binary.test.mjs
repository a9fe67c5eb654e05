// The check of release binaries, against binaries with one thing wrong: the addon that was built here, changed; and for
// macOS a library with just what the check reads.

import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { faultsOf } from "../../scripts/check-binary.mjs";
import { builtAddon, hostPlatform, root } from "./support.mjs";

const ENTRY = "napi_register_module_v1";
const CPU = { x64: 0x01000007, arm64: 0x0100000c };

/** A Mach-O library with a table of symbols, and a signature unless told otherwise. */
function machO({ cpu = "arm64", names = [`_${ENTRY}`, "__mh_dylib_header"], signed = true, more = "" } = {}) {
  const texts = names.map((name) => `${name}\0`);
  const bytes = Buffer.alloc(72 + names.length * 16);
  bytes.writeUInt32LE(0xfeedfacf, 0);
  bytes.writeUInt32LE(CPU[cpu], 4);
  bytes.writeUInt32LE(2, 16);
  const table = [2, 24, 72, names.length, bytes.length, 0];
  const signature = [signed ? 0x1d : 0x1b, 16, 0, 0];
  [...table, ...signature].forEach((word, index) => bytes.writeUInt32LE(word, 32 + index * 4));
  texts.forEach((_, index) => {
    bytes.writeUInt32LE(texts.slice(0, index).join("").length, 72 + index * 16);
    // External, and defined in a section.
    bytes[72 + index * 16 + 4] = 0x0f;
  });
  return Buffer.concat([bytes, Buffer.from(texts.join("") + more)]);
}

describe("a library for macOS", () => {
  test("without a fault has none", () => {
    expect(faultsOf("darwin-arm64", machO())).toEqual([]);
    expect(faultsOf("darwin-x64", machO({ cpu: "x64", signed: false }))).toEqual([]);
  });

  test.each([
    [{ cpu: "x64" }, "it is for another processor"],
    [{ signed: false }, "it is not signed, and macOS on arm64 loads no unsigned library"],
    [{ names: ["_other"] }, `it does not export ${ENTRY}`],
    [{ names: [`_${ENTRY}`, "_other"] }, `it exports more than ${ENTRY}: other`],
    [{ more: "/Users/me/project" }, "it holds paths of the machine that built it, with /Users/"],
    [{ more: `${root}/src` }, `it holds paths of the machine that built it, with ${root}`],
    [{ more: "x".repeat(8 * 1024 * 1024) }, "more than 8388608"],
  ])("with %j has a fault", (change, fault) => {
    expect(faultsOf("darwin-arm64", machO(change)).join("\n")).toContain(fault);
  });
});

test.each(["darwin-arm64", "linux-x64-gnu"])("what is no library is none for %s", (platform) => {
  for (const text of ["", "no library at all, but as long as a header: ".repeat(3)]) {
    expect(faultsOf(platform, Buffer.from(text))).toEqual([expect.stringMatching(/^it is not a 64-bit /)]);
  }
});

if (hostPlatform.endsWith("-gnu")) {
  describe("the addon that was built here", () => {
    let addon;
    // A build for this machine alone may use its own paths and its own glibc; one by hand, also be of any size.
    const own = process.env.CI ? /holds paths/ : /holds paths|bytes/;
    const ofRelease = (/** @type {string[]} */ faults) => faults.filter((fault) => !own.test(fault));

    beforeAll(async () => {
      addon = Buffer.from(
        (await readFile(builtAddon)).toString("latin1").replace(/GLIBC_2\.(29|[3-9]\d)/g, "GLIBC_2.17"),
        "latin1",
      );
    });

    test("exports nothing but its entry", () => {
      expect(ofRelease(faultsOf(hostPlatform, addon))).toEqual([]);
    });

    test("is told from one for another processor", () => {
      const other = hostPlatform.includes("x64") ? "linux-arm64-gnu" : "linux-x64-gnu";
      expect(ofRelease(faultsOf(other, addon))).toEqual(["it is for another processor"]);
    });

    test("is told from one for musl", () => {
      expect(ofRelease(faultsOf(hostPlatform.replace("gnu", "musl"), addon))).toEqual(["it needs glibc"]);
    });

    test("is refused with a newer glibc, and with another name exported", () => {
      const change = (from, to) => Buffer.from(addon.toString("latin1").replaceAll(from, to), "latin1");
      expect(ofRelease(faultsOf(hostPlatform, change("GLIBC_2.17", "GLIBC_2.99")))).toEqual([
        "it needs glibc 2.99, newer than 2.28",
      ]);
      expect(ofRelease(faultsOf(hostPlatform, change(ENTRY, ENTRY.replace("v1", "v9"))))).toEqual([
        `it does not export ${ENTRY}`,
        `it exports more than ${ENTRY}: napi_register_module_v9`,
      ]);
    });
  });
}
