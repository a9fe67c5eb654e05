"use strict";

// Which binary belongs to which machine, and what to tell a user who has none. Pure: nothing is read, nothing loaded.

const PACKAGE = "@paperclipai/sandbox-managed-runtime";

/** Every platform that a binary is published for, as its package and its file name it. */
const PLATFORMS = [
  "darwin-arm64",
  "darwin-x64",
  "linux-arm64-gnu",
  "linux-x64-gnu",
  "linux-arm64-musl",
  "linux-x64-musl",
];

/** The oldest glibc that the `linux-*-gnu` binaries load on. `scripts/check-binaries.mjs` holds them to it. */
const MINIMUM_GLIBC = "2.28";

/**
 * A machine's platform by the name that the packages use, whether or not there is a package for it.
 *
 * @param {string} os `process.platform`.
 * @param {string} cpu `process.arch`.
 * @param {"gnu" | "musl"} [libc] The C library that Node runs on; only Linux has a choice.
 */
function platformName(os, cpu, libc) {
  return libc === undefined ? `${os}-${cpu}` : `${os}-${cpu}-${libc}`;
}

/** @param {string} platform */
function packageName(platform) {
  return `${PACKAGE}-${platform}`;
}

/** @param {string} platform */
function fileName(platform) {
  return `sandbox-managed-runtime.${platform}.node`;
}

/**
 * @param {string} platform
 * @param {string} node Node's version.
 */
function unsupportedMessage(platform, node) {
  const refusal = platform.startsWith("win32-")
    ? `${PACKAGE} does not support Windows yet. It runs in WSL 2 and in Linux containers.`
    : `${PACKAGE} has no binary for this platform.`;
  return lines(refusal, `Platform: ${platform} (Node.js ${node})`, `Supported: ${PLATFORMS.join(", ")}`);
}

/**
 * @param {{ platform: string, node: string, version: string, localFile: string }} search `version`: this package's own,
 *   which the platform's package shares. `localFile`: where a binary built on this machine would be.
 */
function notInstalledMessage({ platform, node, version, localFile }) {
  const name = packageName(platform);
  return lines(
    `The native part of ${PACKAGE} is not installed.`,
    `Platform: ${platform} (Node.js ${node})`,
    `Looked for: the package ${name}, and a local build at ${localFile}`,
    "It is an optional dependency. It is missing where optional dependencies were left out (--no-optional,",
    "--omit=optional, --ignore-optional), or where node_modules or the lockfile was made on another operating",
    "system, processor or C library.",
    "To fix it, remove node_modules and install on this machine, optional dependencies included:",
    "  pnpm install    or    npm install --include=optional    or    yarn install",
    "If the lockfile still leaves it out, add it by name:",
    `  pnpm add ${name}@${version}    (or npm install, or yarn add)`,
  );
}

/**
 * @param {{ platform: string, node: string, source: string, systemMessage: string }} failure `source`: the package or
 *   file that was found. `systemMessage`: what was said when it was loaded.
 */
function loadFailedMessage({ platform, node, source, systemMessage }) {
  return lines(
    `The native part of ${PACKAGE} is installed, but it could not be loaded.`,
    `Platform: ${platform} (Node.js ${node})`,
    `Loaded from: ${source}`,
    `The system says: ${systemMessage}`,
    loadFailureAdvice(systemMessage),
  );
}

const REINSTALL = "node_modules may come from another machine. Remove it and install on this machine.";

/**
 * What the loaders of Linux and macOS say, and what is behind it. The first that matches counts.
 *
 * @type {[RegExp, string][]}
 */
const LOAD_FAILURES = [
  [
    /GLIBC_[\d.]+\W+not found/,
    `This system's C library is too old: glibc ${MINIMUM_GLIBC} or newer is needed.`,
  ],
  // glibc on a library for musl, and musl on one for glibc.
  [
    /\blibc\.so\b|\bld-linux|Error relocating/,
    `The file is made for another C library than Node runs on; ${REINSTALL}`,
  ],
  // glibc says of a file for another processor that it does not exist.
  [
    /\.node: cannot open shared object file|incompatible architecture|wrong architecture/,
    `The file is made for another processor; ${REINSTALL}`,
  ],
  [
    /invalid ELF header|wrong ELF class|Exec format error|not a mach-o|slice is not valid/i,
    `The file is damaged or made for another system; ${REINSTALL}`,
  ],
];

/**
 * What the words of the system's loader mean for the user.
 *
 * @param {string} systemMessage
 */
function loadFailureAdvice(systemMessage) {
  const known = LOAD_FAILURES.find(([said]) => said.test(systemMessage));
  return known?.[1] ?? "Remove node_modules and install again. If that does not help, report this message.";
}

/** @param {string[]} all */
function lines(...all) {
  return all.join("\n");
}

module.exports = {
  PACKAGE,
  PLATFORMS,
  MINIMUM_GLIBC,
  platformName,
  packageName,
  fileName,
  unsupportedMessage,
  notInstalledMessage,
  loadFailedMessage,
};
