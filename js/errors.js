"use strict";

const { util } = require("./node.js");

/**
 * The fields of a failure, which the binding passes as JSON in its error's message.
 *
 * @typedef {object} NativeFailure
 * @property {string} message
 * @property {string} code
 * @property {number} [errno] The system call's error number; the hint belongs to it.
 * @property {string} [syscall] The system call, or the intended one.
 * @property {string} [path]
 * @property {string} [hint]
 */

/**
 * An error with one of Node's codes or of this package's.
 *
 * @param {ErrorConstructor | TypeErrorConstructor} Base
 * @param {string} code
 * @param {string} message
 * @param {object} [fields]
 */
function codedError(Base, code, message, fields) {
  return Object.assign(new Base(message), { code }, fields);
}

/**
 * How Node shows a value of the wrong type.
 *
 * @param {unknown} value
 */
function received(value) {
  if (value == null) return `Received ${value}`;
  if (typeof value === "function") return `Received function ${value.name}`;
  if (typeof value === "object") {
    const name = value.constructor?.name;
    return name ? `Received an instance of ${name}` : `Received ${util.inspect(value, { depth: -1 })}`;
  }
  const shown = util.inspect(value, { colors: false });
  return `Received type ${typeof value} (${shown.length > 40 ? `${shown.slice(0, 40)}...` : shown})`;
}

/**
 * The error for an argument of the wrong type.
 *
 * @param {string} argument
 * @param {string} expected Continues after "must be".
 * @param {unknown} value
 */
function invalidType(argument, expected, value) {
  const message = `The "${argument}" argument must be ${expected}. ${received(value)}`;
  return codedError(TypeError, "ERR_INVALID_ARG_TYPE", message);
}

/**
 * The error for an argument of the right type that cannot be used.
 *
 * @param {string} argument
 * @param {string} reason
 * @param {unknown} value
 */
function invalidValue(argument, reason, value) {
  const message = `The argument '${argument}' is invalid: ${reason}. Received ${util.inspect(value)}`;
  return codedError(TypeError, "ERR_INVALID_ARG_VALUE", message);
}

/**
 * Converts what the binding rejected with to the error for the caller. The binding puts all fields into the message, as JSON.
 * A failed system call is named as Node does it.
 *
 * @param {unknown} error
 */
function fromNative(error) {
  const failure = failureOf(error);
  if (failure === undefined) {
    // It is not from this package: napi itself failed, and its message says why.
    const message = `internal error: ${error instanceof Error ? error.message : String(error)}; please report it`;
    return codedError(Error, "ERR_SANDBOX_INTERNAL", message, { cause: error });
  }
  const { message, code, errno, syscall, path, hint, ...rest } = failure;
  if (errno === undefined) {
    const Base = code.startsWith("ERR_INVALID_ARG") ? TypeError : Error;
    return codedError(Base, code, message, {
      ...(syscall === undefined ? {} : { syscall }),
      ...(path === undefined ? {} : { path }),
      ...rest,
    });
  }
  const [name, text] = util.getSystemErrorMap().get(-errno) ?? [`E${errno}`, "unknown error"];
  const note = hint ? ` (${hint})` : "";
  const what = path === undefined ? syscall : `${syscall} '${path}'`;
  return codedError(Error, name, `${name}: ${text}, ${what}${note}`, {
    errno: -errno,
    syscall,
    ...(path === undefined ? {} : { path }),
  });
}

/**
 * @param {unknown} error
 * @returns {NativeFailure | undefined}
 */
function failureOf(error) {
  try {
    const failure = JSON.parse(/** @type {Error} */ (error).message);
    return typeof failure.code === "string" ? failure : undefined;
  } catch {
    return undefined;
  }
}

module.exports = { codedError, fromNative, invalidType, invalidValue, received };
