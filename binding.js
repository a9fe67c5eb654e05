"use strict";

// Finds and loads the native addon at the first call that needs it: a program can import this package, and use what needs
// only JavaScript, on a machine without a binary. A binary that was built on this machine, beside this file, is preferred to
// the installed package of the machine's platform. If there is neither, or the one found does not load or belongs to
// another package, the error has the code `ERR_SANDBOX_BINDING_NOT_FOUND` and says what was found and how to fix it.
//
// No bundler may find the binary, so no path to it is written in a form that bundlers follow. A bundle finds the binary in
// the installed package.

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
// Read when the program started, so that an update of the package while the process runs is noticed.
const { version } = require("./js/version.js");

/** @import { Host } from "./js/platform.js" */

/**
 * What the binary exports. `npm run build` generates these types from `src/node/`.
 *
 * @typedef {typeof import("./native.js")} Binding
 * @typedef {import("./native.js").Answer} Answer
 * @typedef {import("./native.js").Canceller} Canceller
 * @typedef {import("./native.js").Dispatch} Dispatch
 * @typedef {import("./native.js").Pieces} Pieces
 * @typedef {import("./native.js").Request} Request
 * @typedef {import("./native.js").RequestPart} RequestPart
 * @typedef {import("./native.js").StartedProgram} StartedProgram
 */

/**
 * The names of {@link Binding}.
 *
 * @type {(keyof Binding)[]}
 */
const EXPORTS = [
  "Canceller",
  "SnapshotWriter",
  "createTarballFromDirectory",
  "mirrorDirectory",
  "prepareSession",
  "resumeSession",
  "captureSnapshot",
  "readArchive",
  "beginMerge",
  "acquireMergeLock",
  "readEntry",
  "findLeftOut",
  "commitsToHold",
  "nextTurn",
  "startProgram",
];

/** A package that depends on this one, so that its users need not; a bundle may contain both. */
const DEPENDENT = "@paperclipai/adapter-utils";

/** @type {Binding | undefined} */
let loaded;

/**
 * The binding, loaded by the first call. Throws if that fails, and the next call tries again.
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

/** Thrown if the package of the platform is not installed. */
class NotInstalled extends Error {}

/**
 * The folders that may have the binary, or from which the platform's package may be found: usually that of this package.
 * `places`: if this code is in a bundle, the places from which the package was looked for.
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
  // A binary beside the bundle is preferred.
  if (ownFolder !== undefined) homes.add(ownFolder);
  for (const place of places) {
    const home = installedFrom(place);
    if (home !== undefined) homes.add(home);
  }
  for (const place of places) homes.add(dirname(place));
  return { homes: [...homes], places: [...places] };
}

/** The file that contains this code; `undefined` if that cannot be found out. */
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
 * The folder of this package, as a module at that place would find it, or as the package that depends on it would.
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
    // The package is not found from this place: the next one is tried.
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
 * @param {NodeJS.Require} requireThere The `require` of a module beside the main package. Throws {@link NotInstalled} if the
 *   package of the platform cannot be found from there.
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
    // Recognized by the code, which is the same for node_modules and Yarn's Plug'n'Play; the message is not.
    const isMissing = /** @type {NodeJS.ErrnoException} */ (cause).code === "MODULE_NOT_FOUND";
    if (manifest === undefined && isMissing) throw new NotInstalled("", { cause });
    failure = cause;
  }
  // If the versions differ, that is the error to report, whether or not the binary loaded.
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
