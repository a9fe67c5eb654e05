"use strict";

// Asks the system which platform this Node runs on.

const {
  fs: { closeSync, openSync, readSync },
} = require("./node.js");
const { libcOfProgram, libcOfReport, platformName } = require("./platform.js");

/** This machine's platform, such as `linux-x64-gnu`, whether or not there is a package for it. */
function hostPlatform() {
  return askHost().platform;
}

/**
 * This machine's platform, and the failures on the way to it.
 *
 * A system may have both C libraries: what counts is the one that Node itself runs on. Node's own file is asked first,
 * because a report takes the longer the more connections a process has, up to tenths of a second on a busy server.
 */
function askHost() {
  /** @type {string[]} */
  const doubts = [];
  if (process.platform !== "linux") return { platform: platformName(process.platform, process.arch), doubts };

  /**
   * @template T
   * @param {string} whom
   * @param {() => T} question
   */
  const ask = (whom, question) => {
    try {
      return question();
    } catch (error) {
      doubts.push(`${whom} did not say which C library this is: ${/** @type {Error} */ (error).message}`);
      return undefined;
    }
  };
  const libc =
    libcOfProgram(ask("Node's own file", readOwnHead)) ??
    libcOfReport(ask("Node's report", readReportHeader)) ??
    // Most systems have glibc.
    "gnu";
  return { platform: platformName(process.platform, process.arch, libc), doubts };
}

/** The first page of Node's own file. */
function readOwnHead() {
  const file = openSync(process.execPath, "r");
  try {
    const page = Buffer.alloc(4096);
    return page.subarray(0, readSync(file, page, 0, page.length, 0));
  } finally {
    closeSync(file);
  }
}

/**
 * The header of Node's diagnostic report; `undefined` if Node was built without reports.
 *
 * @returns {{ glibcVersionRuntime?: string } | undefined}
 */
function readReportHeader() {
  if (!process.report) return undefined;
  // Node 20's types lack the property. Without it, the report looks up the names of all connected peers, which can
  // take seconds.
  const report = /** @type {NodeJS.ProcessReport & { excludeNetwork?: boolean }} */ (process.report);
  const { excludeNetwork } = report;
  report.excludeNetwork = true;
  try {
    return /** @type {{ header: { glibcVersionRuntime?: string } }} */ (report.getReport()).header;
  } finally {
    report.excludeNetwork = excludeNetwork;
  }
}

module.exports = { askHost, hostPlatform };
