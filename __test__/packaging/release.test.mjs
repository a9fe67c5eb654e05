// The scripts that check and pack a release, in a project whose binaries are not what they must be.

import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { fileName, packageName } from "../../scripts/packaging/platforms.mjs";
import { sha256 } from "../../scripts/packaging/stamps.mjs";
import { library } from "./mach-o.mjs";
import { layOutProject, run } from "./support.mjs";

const COMMIT = "a".repeat(40);
const MACS = ["darwin-arm64", "darwin-x64"];
const good = { "darwin-arm64": library(), "darwin-x64": library({ cpu: "x64", minimum: "10.15" }) };

let project;

beforeAll(async () => {
  project = await mkdtemp(path.join(os.tmpdir(), "release-"));
  await layOutProject(project);
});

afterAll(async () => {
  await rm(project, { recursive: true });
});

beforeEach(async () => {
  for (const platform of MACS) await putBinary(platform, good[platform]);
});

/** Puts a binary with its stamp where a build does. */
async function putBinary(platform, bytes, stamp = {}) {
  await writeFile(path.join(project, "npm", platform, fileName(platform)), bytes);
  const whole = { commit: COMMIT, dirty: true, sha256: sha256(bytes), ...stamp };
  await writeFile(stampOf(platform), JSON.stringify(whole));
}

const stampOf = (platform) => path.join(project, "npm", platform, "build.json");

/** What a script of the project prints. */
const script = (name, ...args) => run([process.execPath, `scripts/${name}.mjs`, ...args], { cwd: project });

/** How a script fails. */
async function failureOf(name, ...args) {
  const output = await script(name, ...args).catch((error) => error);
  expect(output).toBeInstanceOf(Error);
  return output.message;
}

test("binaries that are as they must be are packed, without their stamps", async () => {
  expect(await script("check-binaries", ...MACS)).toContain("2 passed, 0 failed");
  const tarballs = (await script("pack", ...MACS)).trim().split("\n");
  expect(tarballs).toHaveLength(3);
  expect((await readdir(path.dirname(tarballs[0]))).sort()).toEqual(
    tarballs.map((file) => path.basename(file)).sort(),
  );
  const content = await run(["tar", "-tzf", tarballs[0]], { cwd: project });
  expect(content).toContain(fileName("darwin-arm64"));
  expect(content).not.toContain("build.json");
});

describe("nothing is packed, and the check tells of it", () => {
  test.each([
    [
      "where a binary is none",
      () => putBinary("darwin-x64", Buffer.from("garbage")),
      "it cannot be read as a library: ",
    ],
    [
      "where a binary has a fault",
      () => putBinary("darwin-x64", library()),
      "it needs macOS 11.0 instead of 10.15",
    ],
    ["without a stamp", () => rm(stampOf("darwin-x64")), "it has no stamp (build.json)"],
    [
      "where a binary was replaced",
      () => putBinary("darwin-x64", good["darwin-x64"], { sha256: "0".repeat(64) }),
      "it is not the binary that its stamp (build.json) was made for",
    ],
    [
      "where two are of different commits",
      () => putBinary("darwin-x64", good["darwin-x64"], { commit: "b".repeat(40) }),
      `it was built from the commit ${"b".repeat(40)}, and that of darwin-arm64 is ${COMMIT}`,
    ],
  ])("%s", async (_, spoil, fault) => {
    await spoil();
    const checked = await failureOf("check-binaries", ...MACS);
    expect(checked).toContain("1 passed, 1 failed");
    expect(checked).toContain(fault);
    const refusal = await failureOf("pack", ...MACS);
    expect(refusal).toContain("These binaries are not fit to be packed:\n  darwin-x64: ");
    expect(refusal).toContain(fault);
    expect(refusal).toContain("node scripts/build-all.mjs darwin-x64");
  });

  test("where a binary is missing", async () => {
    const missing = `There is no ${path.join("npm", "linux-x64-gnu", fileName("linux-x64-gnu"))}`;
    for (const name of ["check-binaries", "pack"]) {
      const failure = await failureOf(name, "linux-x64-gnu");
      expect(failure.replaceAll(/(There is no ).*(npm\W)/g, "$1$2")).toContain(missing);
      expect(failure).toContain("node scripts/build-all.mjs linux-x64-gnu");
    }
  });

  test("where a stamp is no stamp", async () => {
    await writeFile(stampOf("darwin-x64"), "{}");
    expect(await failureOf("check-binaries", ...MACS)).toMatch(
      /darwin-x64.build\.json is no stamp of a build/,
    );
  });
});

describe("what is released is packed only", () => {
  /** Packs as publish.mjs does, of the commit that is released. */
  const packReleased = (commit) => {
    const program = `
      import { packRelease } from "./scripts/packaging/release.mjs";
      await packRelease(["darwin-arm64"], ${JSON.stringify(commit)});`;
    return run([process.execPath, "--input-type=module", "--eval", program], { cwd: project });
  };

  test("from a binary of that commit as it is", async () => {
    await putBinary("darwin-arm64", good["darwin-arm64"], { dirty: false });
    await packReleased(COMMIT);
    await expect(packReleased("b".repeat(40))).rejects.toThrow(
      `it was built from the commit ${COMMIT}, and what is released is ${"b".repeat(40)}`,
    );
  });

  test("from a binary without changes besides", async () => {
    await putBinary("darwin-arm64", good["darwin-arm64"], { dirty: true });
    await expect(packReleased(COMMIT)).rejects.toThrow("it was built with changes that were not committed");
  });
});

test("nothing is packed where a package has another version", async () => {
  const file = path.join(project, "npm", "darwin-x64", "package.json");
  const before = await readFile(file, "utf8");
  await writeFile(file, JSON.stringify({ name: packageName("darwin-x64"), version: "9.8.7" }));
  const refusal = await failureOf("pack", "darwin-arm64");
  await writeFile(file, before);
  expect(refusal).toContain("npm/darwin-x64/package.json has 9.8.7");
});
