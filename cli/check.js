"use strict";

// `check`: whether this machine has what the package needs, and which files it found.

const { directoryEntryMatchesBaseline } = require("../index.js");
const { hostPlatform } = require("../js/host.js");
const { PACKAGE } = require("../js/platform.js");
const { version } = require("../js/version.js");
const { shown } = require("./text.js");

/** @param {(line: string) => void} print */
async function check(print) {
  // The call loads the binary, or says why there is none.
  await directoryEntryMatchesBaseline("/", ".", { kind: "dir" });
  const binaries = Object.keys(require.cache).filter((file) => file.endsWith(".node"));
  print(`${PACKAGE} ${version} works here.`);
  print(`  package   ${shown(require.resolve("../index.js"))}`);
  for (const binary of binaries) print(`  binary    ${shown(binary)}`);
  print(`  platform  ${hostPlatform()}, Node.js ${process.version}`);
}

module.exports = { check };
