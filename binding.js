"use strict";

// Finds and loads the native addon, once it is needed: a program may import this package, and use what is JavaScript
// alone, on a machine that there is no binary for. A binary that was built on this machine, beside this file, comes before
// the installed package of this machine's platform. Where neither is there, or the one that is there does not load or is
// not this package's, the error has the code `ERR_SANDBOX_BINDING_NOT_FOUND`, says what was found and how to fix it.
//
// No bundler may see the binary: nothing here is named in a way that one follows. From a bundle, the binary is found in
// the package as installed.

const { askHost } = require("./js/host.js");
const {
  fs: { existsSync, realpathSync },
  module: { createRequire },
  path: { dirname, join },
} = require("./js/node.js");
const {
  LIBRARY_PATH,
  PACKAGE,
  PLATFORMS,
  fileName,
  foreignMessage,
  loadFailedMessage,
  notBesideBundleMessage,
  notInstalledMessage,
  otherVersionMessage,
  packageName,
  unsupportedMessage,
} = require("./js/platform.js");
// As it was when the program started: an update of the package while the process runs is to be noticed.
const { version } = require("./js/version.js");

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
 * @property {(archive: string, exclude: string) => Promise<Pieces>} readArchive
 * @property {(input: string, baseline: SnapshotWriter) => Promise<BegunMerge>} beginMerge
 * @property {(place: string) => Promise<HeldLock>} acquireMergeLock
 * @property {(rootDir: string, relative: string) => Promise<string | null>} readEntry
 * @property {() => Promise<void>} nextTurn Settles in another turn of the event loop.
 *
 * @typedef {{ cancel(): void }} Canceller
 * @typedef {{ write(entries: string): void }} SnapshotWriter
 * @typedef {{ read(): string | null }} Pieces
 * @typedef {{ apply(): Promise<void>, finish(wantsTheirs: boolean): Promise<Pieces | null> }} BegunMerge
 * @typedef {{ release(): Promise<void> }} HeldLock
 *
 * @typedef {object} PreparedSession
 * @property {() => string} runtimeRootDir
 * @property {() => string} prepareReport The archives of the prepare, as JSON.
 * @property {(dispatch: Dispatch, canceller: Canceller, wantsReport: boolean) => Promise<Pieces | null>} restore
 */

/**
 * A part of an archive that is transferred. All sizes are the archive's own, before anything is compressed.
 *
 * @typedef {object} RequestPart
 * @property {string} label What travels: `workspace` or the key of an asset.
 * @property {number} number Counted from 0.
 * @property {number} before How many bytes come before it.
 * @property {number} size How many it has; 0 where that is not known.
 * @property {number} total How many the archive has; 0 where that is not known.
 */

/**
 * A client call that the binding asks for.
 *
 * @typedef {object} Request
 * @property {"allocate" | "release" | "discard" | "makeDir" | "writeFile" | "readFile" | "remove" | "run"} op
 * @property {string} target The remote path or the command.
 * @property {number} upload The number of an upload's memory, for `allocate`, `release` and `writeFile`.
 * @property {number} size How many bytes are to be allocated.
 * @property {RequestPart} [part] Of a transfer of an archive.
 */

/**
 * Makes a client call for the binding. Resolves with the memory of an upload, with a function that gives what was read,
 * with nothing, or with the number of a kept failure and whether it says that it passes.
 *
 * @callback Dispatch
 * @param {Request} request
 * @returns {Promise<Uint8Array | (() => Uint8Array) | { kept: number, retryable: boolean } | undefined>}
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
  "readArchive",
  "beginMerge",
  "acquireMergeLock",
  "readEntry",
  "nextTurn",
];

/** What brings this package along without its users naming it; bundles hold both. */
const DEPENDENT = "@paperclipai/adapter-utils";

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

  const { homes, places } = lookAround();
  /** @type {unknown} */
  let cause;
  for (const home of homes) {
    const localFile = join(home, fileName(host.platform));
    if (existsSync(localFile)) return requireFile({ host, file: localFile, origin: "build" });
    try {
      return requirePackage(host, createRequire(join(home, "package.json")));
    } catch (error) {
      if (!(error instanceof NotInstalled)) throw error;
      cause ??= error.cause;
    }
  }
  const [home] = homes;
  const message =
    places === undefined
      ? notInstalledMessage({ host, version, localFile: join(home, fileName(host.platform)) })
      : notBesideBundleMessage({ host, version, places });
  throw bindingError(message, cause);
}

/** Thrown where there is no package for the platform. */
class NotInstalled extends Error {}

/**
 * The folders that may have the binary, or see the platform's package: that of this package, as a rule. `places`: from
 * where that was looked for, where this code is not in the package itself but in a bundle.
 *
 * @returns {{ homes: string[], places?: string[] }}
 */
function lookAround() {
  const own = ownFile();
  const ownFolder = own === undefined ? undefined : dirname(own);
  if (ownFolder !== undefined && isPackage(ownFolder)) return { homes: [ownFolder] };

  const [, main] = process.argv;
  const places = new Set(
    [own, main, realPath(main), join(process.cwd(), "package.json")].filter((place) => place !== undefined),
  );
  const homes = new Set();
  // What lies beside the bundle counts first.
  if (ownFolder !== undefined) homes.add(ownFolder);
  for (const place of places) {
    const home = installedFrom(place);
    if (home !== undefined) homes.add(home);
  }
  for (const place of places) homes.add(dirname(place));
  return { homes: [...homes], places: [...places] };
}

/** The file that this code is in; `undefined` where that is not to be found out. */
function ownFile() {
  // An ES module that a bundler made has no such name.
  if (typeof __filename === "string") return __filename;
  const { prepareStackTrace } = Error;
  try {
    Error.prepareStackTrace = (_, [here]) => here?.getFileName();
    const { stack } = new Error("where");
    return typeof stack === "string" ? pathOf(stack) : undefined;
  } finally {
    Error.prepareStackTrace = prepareStackTrace;
  }
}

/** @param {string} name A path, or a URL as ES modules have it. */
function pathOf(name) {
  if (!name.startsWith("file:")) return name;
  try {
    return decodeURIComponent(new URL(name).pathname);
  } catch {
    return undefined;
  }
}

/** @param {string | undefined} file */
function realPath(file) {
  try {
    return file === undefined ? undefined : realpathSync(file);
  } catch {
    // Node may have been started with something other than a file.
    return undefined;
  }
}

/** @param {string} folder */
function isPackage(folder) {
  try {
    return createRequire(join(folder, "package.json"))("./package.json").name === PACKAGE;
  } catch {
    // A bundle need not have a package.json beside it.
    return false;
  }
}

/**
 * The folder of this package, as a module at that place would find it, or as the package would that the bundle has it
 * from.
 *
 * @param {string} place
 * @returns {string | undefined}
 */
function installedFrom(place) {
  const seen = seenFrom(place);
  if (seen !== undefined) return seen;
  for (let folder = dirname(place); folder !== dirname(folder); folder = dirname(folder)) {
    const dependent = realPath(join(folder, "node_modules", DEPENDENT));
    if (dependent !== undefined) return seenFrom(join(dependent, "package.json"));
  }
  return undefined;
}

/** @param {string} place */
function seenFrom(place) {
  try {
    return dirname(createRequire(place).resolve(`${PACKAGE}/package.json`));
  } catch {
    // Not there, or the place is none: the next one is asked.
    return undefined;
  }
}

/**
 * @param {{ host: Host, file: string, origin: "variable" | "build" }} found
 * @returns {Binding}
 */
function requireFile({ host, file, origin }) {
  const source = origin === "variable" ? `${file}, which ${LIBRARY_PATH} names` : file;
  let binding;
  try {
    binding = createRequire(join(process.cwd(), "package.json"))(file);
  } catch (cause) {
    throw bindingError(loadFailedMessage({ host, source, systemMessage: messageOf(cause) }), cause);
  }
  return checkExports(binding, { host, source, origin });
}

/**
 * @param {Host} host
 * @param {NodeJS.Require} requireThere As a module beside the main package would call it. Throws {@link NotInstalled}
 *   where that sees no package for the platform.
 * @returns {Binding}
 */
function requirePackage(host, requireThere) {
  const source = packageName(host.platform);
  /** @type {unknown} */
  let manifest;
  /** @type {Binding | undefined} */
  let binding;
  /** @type {unknown} */
  let failure;
  try {
    manifest = requireThere(`${source}/package.json`);
    binding = requireThere(source);
  } catch (cause) {
    // Told by the code, which is the same for node_modules and Yarn's Plug'n'Play; the words are not.
    const isMissing = /** @type {NodeJS.ErrnoException} */ (cause).code === "MODULE_NOT_FOUND";
    if (manifest === undefined && isMissing) throw new NotInstalled("", { cause });
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
