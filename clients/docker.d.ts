import type { SandboxManagedRuntimeClient } from "../index.js";
import type { TransferLimits } from "./limits.js";

/** The programs that {@link createDockerClient} speaks to. */
export type ContainerEngine = "docker" | "podman" | "kubectl";

/** Options of {@link createDockerClient}. */
export interface DockerClientOptions extends TransferLimits {
  /**
   * The name or id of a running container. With kubectl: the pod, or, where `pod` is given, the container in
   * it.
   */
  container: string;
  /** Which program's `exec` it is. Default: `"docker"`. */
  engine?: ContainerEngine;
  /**
   * The program, and arguments of its own that come first, such as `["docker", "--context", "remote"]` or
   * `["sudo", "podman"]`. Default: the engine's name, found on the `PATH`.
   */
  command?: readonly string[];
  /** The user that commands run as and files belong to. Not with kubectl. Default: the container's. */
  user?: string;
  /** The directory that commands start in: an absolute path that exists. Default: the container's. */
  workdir?: string;
  /** With kubectl: the pod's namespace. Default: that of its context. */
  namespace?: string;
  /** With kubectl: the pod, where `container` names one of its containers. */
  pod?: string;
  /** How many `exec`s may run at once; further calls wait for their turn. Default: 8. */
  maxSessions?: number;
}

/**
 * A client over a running container, by `docker exec`, `podman exec` or `kubectl exec`. The container needs a
 * POSIX `sh` with the usual commands (busybox has them), and nothing is installed in it.
 *
 * Files travel as streams over standard input and output. No shell is used on this side. A file is written under
 * another name beside its own and renamed once all of its bytes have arrived; what a cut or an abort leaves of it
 * is removed. A connection to the engine that was lost is made again, and what was under way over it is done
 * again up to five times, except for a command that had begun.
 *
 * Its methods reject with
 * - `ERR_INVALID_ARG_VALUE` for a remote path that is not absolute, and a `timeoutMs` that is no positive
 *   number,
 * - `ERR_SANDBOX_COMMAND_FAILED` (with `exitCode` and the end of `stderr`) when a command, a transfer or the
 *   program itself fails,
 * - `ERR_SANDBOX_CONNECTION_LOST` when the program says that the connection to the container was lost,
 * - `ERR_SANDBOX_COMMAND_TIMEOUT` when a command was stopped, with everything it had started, after
 *   `timeoutMs`, or another call after `deadlineMs`,
 * - `ERR_SANDBOX_TRANSFER_INCOMPLETE` when other than all bytes of a file arrived,
 * - `ERR_SANDBOX_DOWNLOAD_TOO_LARGE` for a file beyond `maxDownloadBytes`,
 * - the reason of a `signal` that aborted,
 * - Node's own error when the program cannot be started.
 *
 * @throws `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE` for an option that cannot be used.
 */
export function createDockerClient(options: DockerClientOptions): SandboxManagedRuntimeClient;
