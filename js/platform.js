"use strict";

// Finds the binary's name for a machine, and makes the messages for a user who has none. Pure: reads and loads nothing.

const PACKAGE = "@paperclipai/sandbox-managed-runtime";

/** Every platform with a published binary, as in the names of its package and file. */
const PLATFORMS = [
  "darwin-arm64",
  "darwin-x64",
  "linux-arm64-gnu",
  "linux-x64-gnu",
  "linux-arm64-musl",
  "linux-x64-musl",
];

/** The variable that names the binary of every addon made with napi-rs. */
const LIBRARY_PATH = "NAPI_RS_NATIVE_LIBRARY_PATH";

/** The oldest glibc that the `linux-*-gnu` binaries load on. `scripts/check-binary.mjs` checks that. */
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

/**
 * Which C library a program runs on, by the loader that it asks for: the loader's path is in the first page of the
 * program's file. `undefined` where neither is named.
 *
 * @param {Buffer | undefined} head The beginning of the file.
 * @returns {"gnu" | "musl" | undefined}
 */
function libcOfProgram(head) {
  if (head?.includes("/ld-musl-")) return "musl";
  return head?.includes("/ld-linux") ? "gnu" : undefined;
}

/**
 * Which C library Node runs on, by its diagnostic report: that names glibc's version, and nothing for musl.
 *
 * @param {{ glibcVersionRuntime?: string } | undefined} header The report's; `undefined` if there is no report.
 * @returns {"gnu" | "musl" | undefined}
 */
function libcOfReport(header) {
  if (header === undefined) return undefined;
  return header.glibcVersionRuntime ? "gnu" : "musl";
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
 * The machine that the package runs on.
 *
 * @typedef {object} Host
 * @property {string} platform
 * @property {string} node Node's version.
 * @property {string[]} doubts The failures on the way to the platform; usually empty.
 */

/** @param {Host} host */
function hostLines({ platform, node, doubts }) {
  return [`Platform: ${platform} (Node.js ${node})`, ...doubts.map((doubt) => `Not certain: ${doubt}`)];
}

/** @param {Host} host */
function unsupportedMessage(host) {
  const refusal = host.platform.startsWith("win32-")
    ? `${PACKAGE} does not support Windows yet. It runs in WSL 2 and in Linux containers.`
    : `${PACKAGE} has no binary for this platform.`;
  return lines(refusal, ...hostLines(host), `Supported: ${PLATFORMS.join(", ")}`);
}

/**
 * @param {{ host: Host, version: string, localFile: string }} search `version`: this package's own, which the
 *   platform's package shares. `localFile`: where a binary built on this machine would be.
 * @returns {string} The message if the package is installed without that of its platform.
 */
function notInstalledMessage({ host, version, localFile }) {
  const name = packageName(host.platform);
  return lines(
    `The native part of ${PACKAGE} is not installed.`,
    ...hostLines(host),
    `Looked for: the package ${name}, and a local build at ${localFile}`,
    "It is an optional dependency. It is missing where optional dependencies were left out (--no-optional,",
    "--omit=optional, --ignore-optional), or where node_modules or the lockfile was made on another operating",
    "system, processor or C library.",
    ...(host.platform === "darwin-x64"
      ? [
          "On a Mac with an Apple processor, this Node runs under Rosetta: install with it too, or use one for arm64.",
        ]
      : []),
    "To fix it, remove node_modules (and npm's package-lock.json, which may lack it) and install on this machine:",
    "  pnpm install    or    npm install --include=optional    or    yarn install",
    "To install here for another system, name it in pnpm's or yarn's supportedArchitectures, or to npm install by",
    "--os, --cpu and --libc.",
    // As a plain dependency it would break the install on every other system.
    "If it is still missing, add it by name, as an optional dependency:",
    `  pnpm add -O ${name}@${version}`,
    "  (or npm install --save-optional, or yarn add --optional)",
  );
}

/**
 * @param {{ host: Host, version: string, places: string[] }} search `places`: the files and folders from which the
 *   package was looked for.
 * @returns {string} The message if a bundle cannot find the package.
 */
function notBesideBundleMessage({ host, version, places }) {
  return lines(
    `The native part of ${PACKAGE} is not installed.`,
    ...hostLines(host),
    `${PACKAGE} is part of a bundle here. Its native part cannot be: it is loaded from the package as`,
    "installed, which was looked for from:",
    ...places.map((place) => `  ${place}`),
    "To fix it, install the package where the bundle runs, in a node_modules directory beside the bundle or above it (in",
    "the package.json of what the bundle is published in, it is a dependency):",
    `  npm install ${PACKAGE}@${version}    or    pnpm add    or    yarn add`,
    `Or name the folder that has it in NODE_PATH, or the binary itself in ${LIBRARY_PATH}.`,
  );
}

/**
 * @param {{ host: Host, source: string, systemMessage: string }} failure `source`: the package or file that was found.
 *   `systemMessage`: the error of loading it.
 */
function loadFailedMessage({ host, source, systemMessage }) {
  return lines(
    `The native part of ${PACKAGE} was found, but it could not be loaded.`,
    ...hostLines(host),
    `Loaded from: ${source}`,
    `The system says: ${systemMessage}`,
    loadFailureAdvice(systemMessage),
  );
}

/**
 * @param {{ host: Host, found: string, version: string }} versions `found`: that of the platform's package. `version`:
 *   this package's own.
 */
function otherVersionMessage({ host, found, version }) {
  const name = packageName(host.platform);
  return lines(
    `The native part of ${PACKAGE} has another version than the package itself.`,
    ...hostLines(host),
    `Found: ${name} ${found}, with ${PACKAGE} ${version}`,
    `Where package.json names ${name} (as a dependency, in overrides or resolutions), take`,
    `it out there or give it the version ${version}; then remove node_modules and install again. If the package was`,
    "updated while this process ran, restart it.",
  );
}

/**
 * What to do with a binary of another package, by its origin.
 *
 * @type {Record<"variable" | "build" | "package", string>}
 */
const FOREIGN = {
  variable:
    `Every addon made with napi-rs reads the variable ${LIBRARY_PATH}, so the file is probably\n` +
    "another package's. Unset the variable, or set it to this package's file.",
  build: "It was built from other sources than those of this package. Build it again, or remove it.",
  package: "Remove node_modules and install again.",
};

/**
 * @param {{ host: Host, source: string, origin: keyof typeof FOREIGN, missing: string[] }} failure `missing`: the
 *   exports that the binary lacks.
 */
function foreignMessage({ host, source, origin, missing }) {
  return lines(
    `What was loaded is not the native part of this ${PACKAGE}.`,
    ...hostLines(host),
    `Loaded from: ${source}`,
    `It lacks: ${missing.join(", ")}`,
    FOREIGN[origin],
  );
}

const REINSTALL = "node_modules may come from another machine. Remove it and install on this machine.";

/**
 * Messages of Node and of the loaders of Linux and macOS, and their causes. The first that matches counts.
 *
 * @type {[RegExp, string][]}
 */
const LOAD_FAILURES = [
  [
    /loading addons is disabled/,
    "Node was started so that it loads no addons: leave out --no-addons, and with --permission add --allow-addons.",
  ],
  [
    /GLIBC_[\d.]+\W+not found/,
    `This system's C library is too old: glibc ${MINIMUM_GLIBC} or newer is needed.`,
  ],
  // glibc, and musl, of a file system that is mounted noexec.
  [
    /failed to map segment|\.node: Operation not permitted/,
    "The system does not let code run from where the file lies, probably a file system that is mounted noexec. Move " +
      "the project to another one, or mount it with exec.",
  ],
  [
    /different Team IDs|library validation/i,
    "This Node, or the app that it is part of, is signed to load only its own maker's libraries. Use a Node from " +
      "nodejs.org, or sign the app with the entitlement com.apple.security.cs.disable-library-validation.",
  ],
  [
    /code signature/i,
    "The file was changed after it was signed, or macOS does not trust it. Remove node_modules and install again.",
  ],
  [
    /file (is )?too short/,
    "The file is damaged, probably by an install or a copy that was cut off. Remove node_modules and install again.",
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
 * The cause of a loader's message, for the user.
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
  LIBRARY_PATH,
  MINIMUM_GLIBC,
  platformName,
  libcOfProgram,
  libcOfReport,
  packageName,
  fileName,
  unsupportedMessage,
  notBesideBundleMessage,
  notInstalledMessage,
  loadFailedMessage,
  otherVersionMessage,
  foreignMessage,
};
