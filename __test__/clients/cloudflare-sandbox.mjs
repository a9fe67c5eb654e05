// A stand-in for a sandbox of Cloudflare: an object with the SDK's methods, over a shell on this machine.
// Like the real one, it runs all commands one after the other in one `bash` session, leaves a command running
// when its time is up, refuses to delete a folder, and takes no message beyond a limit.

import { spawn } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";

/** @param {{ longestMessage?: number }} [options] `longestMessage` in characters */
export function cloudflareSandbox({ longestMessage = Number.POSITIVE_INFINITY } = {}) {
  const session = spawn("bash", ["--norc"], { stdio: ["pipe", "pipe", "pipe"] });
  const state = {
    commands: [],
    renewals: 0,
    written: 0,
    /** How often the connection was cut. */
    cuts: 0,
    stop: () => void session.kill("SIGKILL"),
  };
  let left = Number.POSITIVE_INFINITY;
  let last = Promise.resolve();

  function inSession(command) {
    const answer = last.then(
      () =>
        new Promise((resolve, reject) => {
          const marker = `end-${crypto.randomUUID()}`;
          const texts = { stdout: "", stderr: "" };
          const listeners = {};
          const settle = (settled, value) => {
            for (const [name, listener] of Object.entries(listeners)) session[name].off("data", listener);
            session.off("exit", onExit);
            settled(value);
          };
          const onExit = () => settle(reject, new Error("the session's shell has ended"));
          for (const name of ["stdout", "stderr"]) {
            listeners[name] = (data) => {
              texts[name] += data;
              const ends = [texts.stdout.indexOf(marker), texts.stderr.indexOf(marker)];
              if (ends.includes(-1)) return;
              const exitCode = Number(texts.stdout.slice(ends[0] + marker.length).trim());
              const [stdout, stderr] = [texts.stdout.slice(0, ends[0]), texts.stderr.slice(0, ends[1])];
              settle(resolve, { success: exitCode === 0, exitCode, stdout, stderr });
            };
            session[name].on("data", listeners[name]);
          }
          session.once("exit", onExit);
          session.stdin.write(`${command}\ncode=$?; echo ${marker} >&2; echo ${marker} $code\n`);
        }),
    );
    last = answer.catch(() => {});
    return answer;
  }

  function withinLimit(text) {
    if (text.length > longestMessage) throw new Error(`a message of ${text.length} characters is too long`);
    return text;
  }

  /** Counts bytes of files that pass the connection, and fails where it is cut among them. */
  function pass(bytes) {
    left -= bytes;
    if (left >= 0) return;
    left = Number.POSITIVE_INFINITY;
    state.cuts += 1;
    throw Object.assign(new Error("Network connection lost."), { retryable: true });
  }

  async function* passing(chunks) {
    for await (const chunk of chunks) {
      pass(chunk.byteLength);
      yield chunk;
    }
  }

  return Object.assign(state, {
    /** Cuts the connection, once, after that number of bytes of files. */
    cutAfter(bytes) {
      left = bytes;
    },
    async exec(command, { timeout }) {
      state.commands.push({ command: withinLimit(command), timeout });
      const result = await inSession(command);
      withinLimit(result.stdout);
      return result;
    },
    async writeFile(file, content, { encoding } = {}) {
      state.written += 1;
      await mkdir(path.dirname(file), { recursive: true });
      if (typeof content === "string") {
        const bytes = Buffer.from(withinLimit(content), encoding);
        // What had arrived when the connection broke is written.
        await writeFile(file, bytes.subarray(0, Math.min(left, bytes.byteLength)));
        pass(bytes.byteLength);
      } else {
        await writeFile(file, passing(content));
      }
      return { success: true, path: file };
    },
    async readFile(file, { encoding }) {
      if (encoding === "none") return { success: true, path: file, content: passing(createReadStream(file)) };
      const bytes = await readFile(file);
      pass(bytes.byteLength);
      return { success: true, path: file, content: withinLimit(bytes.toString(encoding)), encoding };
    },
    async mkdir(folder, { recursive }) {
      await mkdir(folder, { recursive });
      return { success: true, path: folder };
    },
    async exists(file) {
      const exists = await stat(file).then(
        () => true,
        () => false,
      );
      return { success: true, path: file, exists };
    },
    async listFiles(folder, { includeHidden }) {
      const entries = await readdir(folder, { withFileTypes: true });
      const files = entries
        .filter((entry) => includeHidden || !entry.name.startsWith("."))
        .map((entry) => ({ name: entry.name, type: typeOf(entry) }));
      return { success: true, path: folder, files, count: files.length };
    },
    async renewActivityTimeout() {
      state.renewals += 1;
    },
  });
}

function typeOf(entry) {
  if (entry.isSymbolicLink()) return "symlink";
  return entry.isDirectory() ? "directory" : "file";
}
