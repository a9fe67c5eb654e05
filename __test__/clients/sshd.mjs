// A real OpenSSH server on loopback, with its own configuration, and a key for this user.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { promisify } from "node:util";
import { isRunning } from "./support.mjs";

const execute = promisify(execFile);

/** Where Debian has it. It insists on being called by its full path. */
const SSHD = "/usr/sbin/sshd";

/** Where the server wants an empty folder of its own; the system's service creates it at start. */
const PRIVILEGE_SEPARATION = "/run/sshd";

/**
 * @param {string} folder where keys and configuration may be kept
 * @param {string[]} [more] further options of the server's
 */
export async function startSshd(folder, more = []) {
  const file = (name) => path.join(folder, name);
  await mkdir(PRIVILEGE_SEPARATION, { recursive: true });
  for (const name of ["host", "user"]) {
    await execute("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file(name)]);
  }
  const port = await freePort();
  const hostKey = await readFile(file("host.pub"), "utf8");
  await writeFile(file("known_hosts"), `[127.0.0.1]:${port} ${hostKey}`);
  await writeFile(file("authorized_keys"), await readFile(file("user.pub")), { mode: 0o600 });
  const options = [
    `Port=${port}`,
    "ListenAddress=127.0.0.1",
    `HostKey=${file("host")}`,
    `AuthorizedKeysFile=${file("authorized_keys")}`,
    "AuthenticationMethods=publickey",
    "PermitRootLogin=prohibit-password",
    "PidFile=none",
    "StrictModes=no",
    "UsePAM=no",
    ...more,
  ];
  const server = spawn(
    SSHD,
    ["-D", "-e", "-f", "/dev/null", ...options.flatMap((option) => ["-o", option])],
    {
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  const log = [];
  const listening = new Promise((resolve, reject) => {
    readline.createInterface(server.stderr).on("line", (line) => {
      log.push(line);
      if (line.startsWith("Server listening")) resolve();
    });
    server.once("error", reject);
    server.once("exit", () => reject(new Error(`sshd ended:\n${log.join("\n")}`)));
  });
  await listening;

  return {
    /** The options of a client for this server. */
    options: {
      host: "127.0.0.1",
      port,
      user: os.userInfo().username,
      identityFile: file("user"),
      sshOptions: [
        `UserKnownHostsFile=${file("known_hosts")}`,
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
      ],
    },
    knownHosts: file("known_hosts"),
    port,
    /** The options of a client that reaches this server by another port of this machine. */
    optionsBy(otherPort) {
      const sshOptions = [...this.options.sshOptions, `HostKeyAlias=[127.0.0.1]:${port}`];
      return { ...this.options, port: otherPort, sshOptions };
    },
    /** How many connections were opened so far. */
    logins: () => log.filter((line) => line.startsWith("Accepted publickey")).length,
    /** The processes that serve the connections that are open now. */
    async connections() {
      const children = await readFile(`/proc/${server.pid}/task/${server.pid}/children`, "utf8");
      const running = await Promise.all(
        children
          .split(" ")
          .filter(Boolean)
          .map(async (pid) => ((await isRunning(pid)) ? Number(pid) : undefined)),
      );
      return running.filter((pid) => pid !== undefined);
    },
    async stop() {
      for (const pid of await this.connections()) process.kill(pid);
      server.kill();
      if (server.exitCode === null && server.signalCode === null) await once(server, "exit");
    },
  };
}

async function freePort() {
  const probe = net.createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}
