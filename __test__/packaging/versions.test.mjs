// Whether every file that names the version names the same one.

import { beforeAll, describe, expect, test } from "vitest";
import { PLATFORMS, packageName } from "../../scripts/packaging/platforms.mjs";
import { checkVersions, compareVersions, readVersionFiles } from "../../scripts/packaging/versions.mjs";

let files;

beforeAll(async () => {
  files = await readVersionFiles();
});

test("all files name the version of package.json", () => {
  expect(checkVersions(files).faults).toEqual([]);
});

describe("another version is told", () => {
  const OTHER = "9.8.7";

  /** The faults where a file was changed. */
  const faultsWith = (file, change) => checkVersions({ ...files, [file]: change(files[file]) }).faults;
  const inJson = (change) => (text) => {
    const content = JSON.parse(text);
    change(content);
    return JSON.stringify(content);
  };

  test.each(PLATFORMS)("in the package of %s", (platform) => {
    const file = `npm/${platform}/package.json`;
    const change = inJson((manifest) => (manifest.version = OTHER));
    expect(faultsWith(file, change)).toEqual([`${file} has 9.8.7`]);
  });

  test.each([
    ["package-lock.json", (lock) => (lock.version = OTHER), "package-lock.json has 9.8.7"],
    [
      "package-lock.json",
      (lock) => (lock.packages[""].version = OTHER),
      'package-lock.json (packages, "") has 9.8.7',
    ],
    [
      "package-lock.json",
      (lock) => (lock.packages[""].optionalDependencies = { [packageName("linux-x64-gnu")]: OTHER }),
      `package-lock.json (optionalDependencies, "${packageName("linux-x64-gnu")}") has 9.8.7`,
    ],
  ])("in %s", (file, change, fault) => {
    expect(faultsWith(file, inJson(change))).toEqual([fault]);
  });

  test("in the code itself", () => {
    const file = "js/version.js";
    const change = (text) => text.replace(/version = ".*"/, `version = "${OTHER}"`);
    expect(faultsWith(file, change)).toEqual([`${file} has 9.8.7`]);
    expect(faultsWith(file, () => "")).toEqual([`${file} has no version`]);
  });

  test("in the crate, and in what cargo has locked", () => {
    const { version } = checkVersions(files);
    const crate = (text) => text.replace(/(name = "sandbox-managed-runtime"\nversion = ").*"/, `$1${OTHER}"`);
    expect(faultsWith("Cargo.toml", crate)).toEqual(["Cargo.toml has 9.8.7"]);
    expect(faultsWith("Cargo.lock", crate)).toEqual(["Cargo.lock has 9.8.7"]);
    const without = (text) => text.replaceAll(`version = "${version}"`, "");
    expect(faultsWith("Cargo.toml", without)).toEqual(["Cargo.toml has no version"]);
  });

  test("in the changelog, which has none of this one", () => {
    const { version } = checkVersions(files);
    const change = (text) => text.replace(`## [${version}]`, `## [${OTHER}]`);
    expect(faultsWith("CHANGELOG.md", change)).toEqual([`CHANGELOG.md has no section "## [${version}]"`]);
  });
});

test.each([
  ["- 2026-01-31", "2026-01-31"],
  ["- unreleased", undefined],
  ["", undefined],
])("the date of a section with %j is %s", (words, date) => {
  const { version } = checkVersions(files);
  const changelog = `# Changelog\n\n## [${version}] ${words}`.trimEnd();
  expect(checkVersions({ ...files, "CHANGELOG.md": changelog })).toEqual({ version, faults: [], date });
});

test("versions are compared by their numbers", () => {
  expect(["11.10.0", "2.28", "11.5.1", "2.9"].sort(compareVersions)).toEqual([
    "2.9",
    "2.28",
    "11.5.1",
    "11.10.0",
  ]);
});
