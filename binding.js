"use strict";

// Finds and loads the native addon: its exports are this module's. A binary that was built on this machine, beside this
// file, comes before the installed package of this machine's platform. Where neither is there, or the one that is there
// does not load, the error has the code `ERR_SANDBOX_BINDING_NOT_FOUND`, says what was looked for and how to fix it.

const { existsSync } = require("node:fs");
const { join } = require("node:path");

const { hostPlatform } = require("./js/host.js");
const {
  PLATFORMS,
  fileName,
  loadFailedMessage,
  notInstalledMessage,
  packageName,
  unsupportedMessage,
} = require("./js/platform.js");
const { version } = require("./package.json");

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
 * upload; `number` is the size for `allocate` and the number of the upload for `writeFile`. Resolves with bytes, with
 * nothing, or with the number of a kept failure.
 *
 * @callback Dispatch
 * @param {"allocate" | "makeDir" | "writeFile" | "readFile" | "remove" | "run"} method
 * @param {string} target
 * @param {number} number
 * @returns {Promise<Uint8Array | number | undefined>}
 */

/**
 * Written out, so that bundlers and file tracers find the packages.
 *
 * @type {Record<string, () => Binding>}
 */
const requirePackage = {
  "darwin-arm64": () => require("@paperclipai/sandbox-managed-runtime-darwin-arm64"),
  "darwin-x64": () => require("@paperclipai/sandbox-managed-runtime-darwin-x64"),
  "linux-arm64-gnu": () => require("@paperclipai/sandbox-managed-runtime-linux-arm64-gnu"),
  "linux-x64-gnu": () => require("@paperclipai/sandbox-managed-runtime-linux-x64-gnu"),
  "linux-arm64-musl": () => require("@paperclipai/sandbox-managed-runtime-linux-arm64-musl"),
  "linux-x64-musl": () => require("@paperclipai/sandbox-managed-runtime-linux-x64-musl"),
};

const node = process.version;

module.exports = load();

function load() {
  const platform = hostPlatform();

  // The variable by which every addon made with napi-rs can be told its binary.
  const override = process.env.NAPI_RS_NATIVE_LIBRARY_PATH;
  if (override) return requireFile(override, platform);

  if (!PLATFORMS.includes(platform)) throw bindingError(unsupportedMessage(platform, node));

  const localFile = join(__dirname, fileName(platform));
  if (existsSync(localFile)) return requireFile(localFile, platform);

  try {
    return requirePackage[platform]();
  } catch (cause) {
    const source = packageName(platform);
    const { code, message } = /** @type {NodeJS.ErrnoException} */ (cause);
    // A package that is there but lacks its file has the same code: the message names the file then.
    const isInstalled = code !== "MODULE_NOT_FOUND" || !message.includes(`'${source}'`);
    throw bindingError(
      isInstalled
        ? loadFailedMessage({ platform, node, source, systemMessage: message })
        : notInstalledMessage({ platform, node, version, localFile }),
      cause,
    );
  }
}

/**
 * @param {string} file
 * @param {string} platform
 * @returns {Binding}
 */
function requireFile(file, platform) {
  try {
    return require(file);
  } catch (cause) {
    const systemMessage = /** @type {Error} */ (cause).message;
    throw bindingError(loadFailedMessage({ platform, node, source: file, systemMessage }), cause);
  }
}

/**
 * @param {string} message
 * @param {unknown} [cause]
 */
function bindingError(message, cause) {
  const options = cause === undefined ? undefined : { cause };
  return Object.assign(new Error(message, options), { code: "ERR_SANDBOX_BINDING_NOT_FOUND" });
}
