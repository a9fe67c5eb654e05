// Sandboxes for tests: folders on this machine that are reached only through a client.

import { execFile } from "node:child_process";
import { chown, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { temporaryFolder } from "./folders.mjs";
import { run, unprivilegedIds } from "./processes.mjs";

const execute = promisify(execFile);

/** A client like one of a provider's SDK: a class with private state. */
export class LocalSandbox {
  #path;
  #unprivileged;
  #umask;
  /** Each call: the method's name, the path or command, and further details. */
  calls = [];

  /**
   * @param {object} [options]
   * @param {string} [options.path] Where `sh` and all other commands are found.
   * @param {boolean} [options.unprivileged] Whether commands run as a user who is not the superuser.
   * @param {string} [options.umask]
   */
  constructor({ path = process.env.PATH, unprivileged = false, umask = "022" } = {}) {
    this.#path = path;
    this.#unprivileged = unprivileged;
    this.#umask = umask;
  }

  async makeDir(remotePath) {
    this.calls.push(["makeDir", remotePath]);
    await this.#execute(`mkdir -p "$1"`, remotePath);
  }

  async writeFile(remotePath, bytes) {
    this.calls.push(["writeFile", remotePath, bytes.byteLength]);
    await writeFile(remotePath, Buffer.from(bytes));
    await this.own(remotePath);
  }

  async readFile(remotePath) {
    this.calls.push(["readFile", remotePath]);
    return readFile(remotePath);
  }

  async listFiles() {
    throw new Error("no list of files is expected");
  }

  async remove(remotePath) {
    this.calls.push(["remove", remotePath]);
    await rm(remotePath);
  }

  async run(command, options) {
    this.calls.push(["run", command, options]);
    await this.#execute(command);
  }

  /** What an agent does in the sandbox. */
  async agent(command) {
    await this.#execute(command);
  }

  /** Gives everything that the test put there to the sandbox's user. */
  async own(folder) {
    const { uid, gid } = this.#unprivileged ? unprivilegedIds : {};
    if (uid !== undefined) await execute("chown", ["-R", `${uid}:${gid}`, folder]);
  }

  async #execute(command, ...args) {
    const { code, stderr } = await run(
      "/bin/sh",
      ["-c", `umask ${this.#umask}; PATH=$0; exec sh -c "$@"`, this.#path, command, "sh", ...args],
      { unprivileged: this.#unprivileged },
    );
    if (code !== 0) throw new Error(`the command ended with ${code}: ${stderr}`);
  }
}

/** The path of a workspace in a sandbox; the folder does not exist yet. */
export async function remoteWorkspace({ unprivileged = false } = {}) {
  const home = path.join(await temporaryFolder(), "home");
  await mkdir(home);
  if (unprivileged && unprivilegedIds.uid) await chown(home, unprivilegedIds.uid, unprivilegedIds.gid);
  return path.join(home, "workspace");
}

/** The path of a program. */
const located = async (program) => (await execute("sh", ["-c", `command -v ${program}`])).stdout.trim();

/**
 * A folder of commands: the applets of a program, and others by name.
 *
 * @param {{ appletsOf?: "busybox" | "toybox", [name: string]: string | undefined }} commands
 */
export async function commandFolder({ appletsOf, ...commands }) {
  const made = path.join(await temporaryFolder(), "bin");
  await mkdir(made);
  if (appletsOf) {
    const listed = await execute(appletsOf, appletsOf === "busybox" ? ["--list"] : []);
    const applets = listed.stdout
      .split(/\s+/)
      .filter((name) => name !== "" && !Object.hasOwn(commands, name));
    for (const name of new Set(applets)) commands[name] = appletsOf;
  }
  for (const [name, program] of Object.entries(commands))
    await symlink(await cachedPath(program), path.join(made, name));
  return made;
}

const paths = new Map();

function cachedPath(program) {
  if (!paths.has(program)) paths.set(program, located(program));
  return paths.get(program);
}
