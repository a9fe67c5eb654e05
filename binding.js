"use strict";

// Finds and loads the native addon, once it is needed: a program may import this package, and use what is JavaScript
// alone, on a machine that there is no binary for. A binary that was built on this machine, beside this file, comes before
// the installed package of this machine's platform. Where neither is there, or the one that is there does not load or is
// not this package's, the error has the code `ERR_SANDBOX_BINDING_NOT_FOUND`, says what was found and how to fix it.

const { existsSync } = require("node:fs");
const { join } = require("node:path");

const { askHost } = require("./js/host.js");
const {
  LIBRARY_PATH,
  PLATFORMS,
  fileName,
  foreignMessage,
  loadFailedMessage,
  notInstalledMessage,
  otherVersionMessage,
  packageName,
  unsupportedMessage,
} = require("./js/platform.js");
// Read now, not with the binary: an update of the package while the process runs is to be noticed.
const { version } = require("./package.json");

/** @import { Host } from "./js/platform.js" */

/**
 * What the binary exports; `src/node/exports.rs` has it. Arguments are JSON.
 *
 * @typedef {object} Binding
 * @property {new () => Canceller} Canceller
 * @property {new () => SnapshotWriter} SnapshotWriter
 * @property {(input: string, canceller: Canceller) => Promise<void>} createTarballFromDirectory
 * @property {(input: string, canceller: Canceller) => Promise<void>} mirrorDirectory
 * @property {(input: string, dispatch: Dispatch, canceller: Canceller) => Promise<PreparedSession>} prepareSession
 * @property {(root: string, exclude: string) => Promise<Pieces>} captureSnapshot
 * @property {(input: string, baseline: SnapshotWriter) => Promise<BegunMerge>} beginMerge
 * @property {(targetDir: string) => Promise<HeldLock>} acquireMergeLock
 * @property {(rootDir: string, relative: string) => Promise<string | null>} readEntry
 *
 * @typedef {{ cancel(): void }} Canceller
 * @typedef {{ write(entries: string): void }} SnapshotWriter
 * @typedef {{ read(): string | null }} Pieces
 * @typedef {{ apply(): Promise<void>, finish(): Promise<void> }} BegunMerge
 * @typedef {{ release(): Promise<void> }} HeldLock
 *
 * @typedef {object} PreparedSession
 * @property {() => string} runtimeRootDir
 * @property {(dispatch: Dispatch, canceller: Canceller, wantsReport: boolean) => Promise<Pieces | null>} restore
 */

/**
 * Makes a client call for the binding. `target` is a remote path, a command, or for `allocate` the number of the
 * upload; `number` is the size for `allocate` and the number of the upload for `writeFile`. Resolves with the memory of an upload,
 * with a function that gives what was read, with nothing, or with the number of a kept failure.
 *
 * @callback Dispatch
 * @param {"allocate" | "makeDir" | "writeFile" | "readFile" | "remove" | "run"} method
 * @param {string} target
 * @param {number} number
 * @returns {Promise<Uint8Array | (() => Uint8Array) | number | undefined>}
 */

/**
 * What {@link Binding} has.
 *
 * @type {(keyof Binding)[]}
 */
const EXPORTS = [
  "Canceller",
  "SnapshotWriter",
  "createTarballFromDirectory",
  "mirrorDirectory",
  "prepareSession",
  "captureSnapshot",
  "beginMerge",
  "acquireMergeLock",
  "readEntry",
];

/** @type {Binding | undefined} */
let loaded;

/**
 * The binding, loaded by the first call. Throws where that fails, and the next call tries again.
 *
 * @returns {Binding}
 */
function native() {
  return (loaded ??= load());
}

module.exports = { native };

function load() {
  const host = { ...askHost(), node: process.version };

  const named = process.env[LIBRARY_PATH];
  if (named) return requireFile({ host, file: named, origin: "variable" });

  if (!PLATFORMS.includes(host.platform)) throw bindingError(unsupportedMessage(host));

  const localFile = join(__dirname, fileName(host.platform));
  if (existsSync(localFile)) return requireFile({ host, file: localFile, origin: "build" });

  return requirePackage(host, localFile);
}

/**
 * @param {{ host: Host, file: string, origin: "variable" | "build" }} found
 * @returns {Binding}
 */
function requireFile({ host, file, origin }) {
  const source = origin === "variable" ? `${file}, which ${LIBRARY_PATH} names` : file;
  let binding;
  try {
    binding = require(file);
  } catch (cause) {
    throw bindingError(loadFailedMessage({ host, source, systemMessage: messageOf(cause) }), cause);
  }
  return checkExports(binding, { host, source, origin });
}

/**
 * Each package is written out, and stands in the `try` itself: so bundlers and file tracers find those that are
 * installed, and bundlers go on without the others.
 *
 * @param {Host} host
 * @param {string} localFile Where a binary was looked for before.
 * @returns {Binding}
 */
function requirePackage(host, localFile) {
  const source = packageName(host.platform);
  /** @type {unknown} */
  let manifest;
  /** @type {Binding | undefined} */
  let binding;
  /** @type {unknown} */
  let failure;
  try {
    switch (host.platform) {
      case "darwin-arm64":
        manifest = require("@paperclipai/sandbox-managed-runtime-darwin-arm64/package.json");
        binding = require("@paperclipai/sandbox-managed-runtime-darwin-arm64");
        break;
      case "darwin-x64":
        manifest = require("@paperclipai/sandbox-managed-runtime-darwin-x64/package.json");
        binding = require("@paperclipai/sandbox-managed-runtime-darwin-x64");
        break;
      case "linux-arm64-gnu":
        manifest = require("@paperclipai/sandbox-managed-runtime-linux-arm64-gnu/package.json");
        binding = require("@paperclipai/sandbox-managed-runtime-linux-arm64-gnu");
        break;
      case "linux-x64-gnu":
        manifest = require("@paperclipai/sandbox-managed-runtime-linux-x64-gnu/package.json");
        binding = require("@paperclipai/sandbox-managed-runtime-linux-x64-gnu");
        break;
      case "linux-arm64-musl":
        manifest = require("@paperclipai/sandbox-managed-runtime-linux-arm64-musl/package.json");
        binding = require("@paperclipai/sandbox-managed-runtime-linux-arm64-musl");
        break;
      case "linux-x64-musl":
        manifest = require("@paperclipai/sandbox-managed-runtime-linux-x64-musl/package.json");
        binding = require("@paperclipai/sandbox-managed-runtime-linux-x64-musl");
        break;
    }
  } catch (cause) {
    // Told by the code, which is the same for node_modules and Yarn's Plug'n'Play; the words are not.
    const isMissing = /** @type {NodeJS.ErrnoException} */ (cause).code === "MODULE_NOT_FOUND";
    if (manifest === undefined && isMissing) {
      throw bindingError(notInstalledMessage({ host, version, localFile }), cause);
    }
    failure = cause;
  }
  // Where the versions differ, that is what is wrong, whether or not the binary loaded.
  const found = /** @type {{ version: string } | undefined} */ (manifest)?.version;
  if (manifest !== undefined && found !== version) {
    throw bindingError(otherVersionMessage({ host, found: String(found), version }), failure);
  }
  if (failure !== undefined) {
    throw bindingError(loadFailedMessage({ host, source, systemMessage: messageOf(failure) }), failure);
  }
  return checkExports(binding, { host, source, origin: "package" });
}

/**
 * @param {unknown} binding
 * @param {{ host: Host, source: string, origin: "variable" | "build" | "package" }} found
 */
function checkExports(binding, found) {
  const exported = /** @type {Binding} */ (binding);
  const missing = EXPORTS.filter((name) => typeof exported?.[name] !== "function");
  if (missing.length > 0) throw bindingError(foreignMessage({ ...found, missing }));
  return exported;
}

/** @param {unknown} error */
function messageOf(error) {
  return /** @type {Error} */ (error).message;
}

/**
 * @param {string} message
 * @param {unknown} [cause]
 */
function bindingError(message, cause) {
  const options = cause === undefined ? undefined : { cause };
  return Object.assign(new Error(message, options), { code: "ERR_SANDBOX_BINDING_NOT_FOUND" });
}
