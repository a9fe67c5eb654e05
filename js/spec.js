"use strict";

// Reads a spec from unknown data, with the meaning that JavaScript's `trim` and `Number` give to odd values.

/** @import * as own from "../index.js" */

/**
 * @param {unknown} value
 * @returns {Record<string, unknown>}
 */
function asObject(value) {
  if (!value || typeof value !== "object" || Array.isArray(value)) return {};
  return /** @type {Record<string, unknown>} */ (value);
}

const asString = (/** @type {unknown} */ value) => (typeof value === "string" ? value : "");

/** @type {typeof own.parseSandboxRemoteExecutionSpec} */
function parseSandboxRemoteExecutionSpec(value) {
  const parsed = asObject(value);
  const transport = asString(parsed.transport).trim();
  const provider = asString(parsed.provider).trim();
  const sandboxId = asString(parsed.sandboxId).trim();
  const remoteCwd = asString(parsed.remoteCwd).trim();
  const timeoutMs = typeof parsed.timeoutMs === "number" ? parsed.timeoutMs : Number(parsed.timeoutMs);
  const complete = transport === "sandbox" && provider && sandboxId && remoteCwd;
  if (!complete || !Number.isFinite(timeoutMs) || timeoutMs <= 0) return null;
  const apiKey = asString(parsed.apiKey).trim() || null;
  return { transport: "sandbox", provider, sandboxId, remoteCwd, timeoutMs, apiKey };
}

/** @type {typeof own.buildSandboxExecutionSessionIdentity} */
function buildSandboxExecutionSessionIdentity(spec) {
  if (!spec) return null;
  const { provider, sandboxId, remoteCwd } = spec;
  return { transport: "sandbox", provider, sandboxId, remoteCwd };
}

/** @type {typeof own.sandboxExecutionSessionMatches} */
function sandboxExecutionSessionMatches(saved, current) {
  const identity = buildSandboxExecutionSessionIdentity(current);
  if (!identity) return false;
  const parsed = asObject(saved);
  return Object.entries(identity).every(([key, value]) => asString(parsed[key]) === value);
}

module.exports = {
  buildSandboxExecutionSessionIdentity,
  parseSandboxRemoteExecutionSpec,
  sandboxExecutionSessionMatches,
};
