// @ts-check
"use strict";

const {
  checkedCount,
  checkedLimits,
  checkedOptions,
  checkedText,
  checkedTexts,
  invalidArgument,
} = require("./errors.js");
const { startProgram } = require("./program.js");
const { createSessionClient } = require("./sessions.js");

/** How many `exec`s may run at once. */
const DEFAULT_SESSIONS = 8;

/** What the programs print when the connection to the container failed, not the container. */
const LOST =
  /Cannot connect to the Docker daemon|unable to connect to (the server|Podman)|connection (reset|refused)|connection to the server|i\/o timeout|TLS handshake timeout|unexpected EOF|broken pipe|error dialing backend|lost connection|Too Many Requests|the server is currently unable|context deadline exceeded/i;

/**
 * The command line up to what runs in the container, for each of the programs.
 *
 * @type {Record<import("./docker.js").ContainerEngine, (options: Parsed) => string[]>}
 */
const PREFIX = {
  docker: containerExec,
  podman: containerExec,
  kubectl: ({ container, namespace, pod }) => [
    "exec",
    "-i",
    ...(namespace === undefined ? [] : ["-n", namespace]),
    ...(pod === undefined ? [container] : [pod, "-c", container]),
    "--",
  ],
};

/** Runs the words after the first in the folder that the first names. */
const IN_FOLDER = 'cd "$1" && shift && exec "$@"';

/**
 * @typedef {object} Parsed
 * @property {string} container
 * @property {string} [user]
 * @property {string} [workdir]
 * @property {string} [namespace]
 * @property {string} [pod]
 */

/** @param {Parsed} options */
function containerExec({ container, user, workdir }) {
  return [
    "exec",
    "-i",
    ...(user === undefined ? [] : ["-u", user]),
    ...(workdir === undefined ? [] : ["-w", workdir]),
    container,
  ];
}

/**
 * @param {import("./docker.js").DockerClientOptions} options
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createDockerClient(options) {
  const {
    container,
    engine = "docker",
    command = [engine],
    user,
    workdir,
    namespace,
    pod,
    maxSessions = DEFAULT_SESSIONS,
    ...limits
  } = checkedOptions(options, [
    "container",
    "engine",
    "command",
    "user",
    "workdir",
    "namespace",
    "pod",
    "maxSessions",
  ]);
  if (!Object.hasOwn(PREFIX, engine)) {
    throw invalidArgument("engine", `must be one of ${Object.keys(PREFIX).join(", ")}`, engine);
  }
  for (const [name, value] of Object.entries({ container, user, workdir, namespace, pod })) {
    checkedText(name, value);
    if (value?.startsWith("-")) throw invalidArgument(name, "must not begin with a dash", value);
  }
  if (container === undefined) throw invalidArgument("container", "must name a container or pod", container);
  if (workdir !== undefined && !workdir.startsWith("/")) {
    throw invalidArgument("workdir", "must be an absolute path", workdir);
  }
  const isKubectl = engine === "kubectl";
  if (isKubectl && user !== undefined) {
    throw invalidArgument("user", "must be absent: kubectl exec runs commands as the container's user", user);
  }
  for (const [name, value] of Object.entries({ namespace, pod })) {
    if (!isKubectl && value !== undefined) throw invalidArgument(name, "is for kubectl alone", value);
  }
  const [program, ...first] = checkedTexts("command", command);
  if (program === undefined) throw invalidArgument("command", "must name a program", command);
  checkedCount("maxSessions", maxSessions, 1);
  const prefix = [...first, ...PREFIX[engine]({ container, user, workdir, namespace, pod })];

  return createSessionClient({
    start: (script, ...args) => {
      // kubectl has no option for the folder.
      const shell =
        isKubectl && workdir !== undefined
          ? ["sh", "-c", IN_FOLDER, "sh", workdir, "sh", "-c", script]
          : ["sh", "-c", script];
      return startProgram(program, [...prefix, ...shell, "sh", ...args]);
    },
    isLost: ({ stderr }) => LOST.test(stderr),
    mostSessions: maxSessions,
    ...checkedLimits(limits),
  });
}

module.exports = { createDockerClient };
