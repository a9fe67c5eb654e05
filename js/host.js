"use strict";

// Asks the system which platform this Node runs on.

const { closeSync, openSync, readSync } = require("node:fs");

const { platformName } = require("./platform.js");

/** This machine's platform, such as `linux-x64-gnu`, whether or not there is a package for it. */
function hostPlatform() {
  const libc = process.platform === "linux" ? (libcFromReport() ?? libcFromInterpreter()) : undefined;
  return platformName(process.platform, process.arch, libc);
}

/**
 * What Node's diagnostic report says of the C library that Node itself runs on: a system may have both. `undefined`
 * where Node was built without reports.
 *
 * @returns {"gnu" | "musl" | undefined}
 */
function libcFromReport() {
  if (!process.report) return undefined;
  // Node 20's types lack the property. Without it, the report looks up the names of all connected peers, which can
  // take seconds.
  const report = /** @type {NodeJS.ProcessReport & { excludeNetwork?: boolean }} */ (process.report);
  const { excludeNetwork } = report;
  report.excludeNetwork = true;
  try {
    const { header } = /** @type {{ header: { glibcVersionRuntime?: string } }} */ (report.getReport());
    return header.glibcVersionRuntime ? "gnu" : "musl";
  } finally {
    report.excludeNetwork = excludeNetwork;
  }
}

/**
 * Which C library's loader Node's own file asks for. Its path stands in the first page of the file, and musl's is
 * called `ld-musl-*`.
 *
 * @returns {"gnu" | "musl"}
 */
function libcFromInterpreter() {
  const file = openSync(process.execPath, "r");
  try {
    const page = Buffer.alloc(4096);
    const length = readSync(file, page, 0, page.length, 0);
    return page.subarray(0, length).includes("/ld-musl-") ? "musl" : "gnu";
  } finally {
    closeSync(file);
  }
}

module.exports = { hostPlatform };
