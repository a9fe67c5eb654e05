// Sandboxes for tests: folders on this machine that are reached only as a provider's would be.

import { execFile } from "node:child_process";
import { chown, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { temporaryFolder } from "./folders.mjs";
import { run, unprivilegedIds } from "./processes.mjs";

const execute = promisify(execFile);

/** A client as a provider's SDK would have it: a class, with state of its own that only its methods see. */
export class LocalSandbox {
  #shell;
  #path;
  #unprivileged;
  #umask;
  /** Each call: the method's name, the path or command, and what else there was of interest. */
  calls = [];

  /**
   * @param {object} [options]
   * @param {string[]} [options.shell] What runs a command that is given to it with `-c`.
   * @param {string} [options.path] The folders in which commands are found.
   * @param {boolean} [options.unprivileged] Whether commands run as a user who is not the superuser.
   * @param {string} [options.umask]
   */
  constructor({ shell = ["sh"], path = process.env.PATH, unprivileged = false, umask = "022" } = {}) {
    this.#shell = shell;
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
    if (this.#unprivileged && unprivilegedIds.uid) {
      await chown(remotePath, unprivilegedIds.uid, unprivilegedIds.gid);
    }
  }

  async readFile(remotePath) {
    this.calls.push(["readFile", remotePath]);
    return readFile(remotePath);
  }

  async listFiles() {
    throw new Error("nobody asks for a list of files");
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

  async #execute(command, ...args) {
    const [shell, ...first] = this.#shell;
    const { code, stderr } = await run(
      "/bin/sh",
      [
        "-c",
        `umask ${this.#umask}; PATH=$0; exec "$@"`,
        this.#path,
        shell,
        ...first,
        "-c",
        command,
        "sh",
        ...args,
      ],
      { unprivileged: this.#unprivileged },
    );
    if (code !== 0) throw new Error(`the command ended with ${code}: ${stderr}`);
  }
}

/** Where a sandbox has a workspace; the folder does not exist yet. */
export async function remoteWorkspace({ unprivileged = false } = {}) {
  const home = path.join(await temporaryFolder(), "home");
  await mkdir(home);
  if (unprivileged && unprivilegedIds.uid) await chown(home, unprivilegedIds.uid, unprivilegedIds.gid);
  return path.join(home, "workspace");
}

/** A folder with nothing but the applets of busybox or toybox. */
export async function appletsOf(program) {
  const folder = path.join(await temporaryFolder(), "bin");
  await mkdir(folder);
  const listed = await execute(program, program === "busybox" ? ["--list"] : []);
  const binary = (await execute("sh", ["-c", `command -v ${program}`])).stdout.trim();
  for (const applet of listed.stdout.split(/\s+/).filter(Boolean)) {
    await symlink(binary, path.join(folder, path.basename(applet))).catch((error) => {
      // Some are listed twice.
      if (error.code !== "EEXIST") throw error;
    });
  }
  return folder;
}
