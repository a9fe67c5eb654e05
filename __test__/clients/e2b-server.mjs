// A server on loopback that speaks as much of E2B's protocol as the client needs, to the real SDK, and does
// on this machine what it is asked to: E2B's own API (the lifetime), and what runs in each sandbox (files,
// folders, commands).

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream, createWriteStream } from "node:fs";
import { lstat, mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createGzip } from "node:zlib";

const SANDBOX_ID = "sandbox-of-the-test";

/** The version of envd that a sandbox has, unless the test says otherwise. */
const ENVD_VERSION = "0.6.4";

/** An error as the Connect protocol tells it. */
class ConnectError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const STATUS = {
  already_exists: 409,
  not_found: 404,
  invalid_argument: 400,
  unimplemented: 501,
  internal: 500,
};

/**
 * Starts the server.
 *
 * `onRefresh` decides what a refresh of the lifetime is answered with: it may wait, or throw to have it fail. So does
 * `onRequest` for every request to the sandbox itself, whose file it is told, where the request is for one. It may also
 * give a status and headers, and the request is answered with these instead.
 */
export async function startE2bServer({ envdVersion = ENVD_VERSION } = {}) {
  const state = {
    sandboxId: SANDBOX_ID,
    envdVersion,
    /** How the content of each upload was encoded: its type, and its encoding where it has one. */
    uploads: [],
    /** The lifetimes asked for, in seconds, in order. */
    lifetimes: [],
    /** The commands started, in order, with the limit that the SDK announced, in milliseconds. */
    commands: [],
    /** The sandbox user that each request for a file named. */
    users: [],
    onRefresh: async () => {},
    onRequest: async () => {},
    children: new Set(),
  };
  const server = http.createServer((request, response) => {
    answer(state, request, response).catch((error) => {
      if (response.headersSent) return response.destroy(error);
      const code =
        error instanceof ConnectError ? error.code : error.code === "ENOENT" ? "not_found" : "internal";
      sendJson(response, STATUS[code], {
        code: request.url.startsWith("/files?") ? STATUS[code] : code,
        message: error.message,
      });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}`;
  return Object.assign(state, {
    url,
    /** What points the SDK at this server. */
    connection: { apiUrl: url, sandboxUrl: url, apiKey: "e2b_0000000000000000000000000000000000000000" },
    async stop() {
      for (const child of state.children) child.kill("SIGKILL");
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  });
}

async function answer(state, request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://server");
  const route = `${request.method} ${pathname}`;
  const isForSandbox = /^\/(files$|filesystem\.|process\.)/.test(pathname);
  const instead = isForSandbox ? await state.onRequest(searchParams.get("path") ?? "", route) : undefined;
  if (instead?.status) {
    request.resume();
    return sendJson(response, instead.status, { code: instead.status, message: "not now" }, instead.headers);
  }
  switch (route) {
    case `POST /sandboxes/${SANDBOX_ID}/connect`:
    case `POST /v2/sandboxes/${SANDBOX_ID}/connect`:
      return sendJson(response, 200, {
        sandboxID: SANDBOX_ID,
        templateID: "base",
        clientID: "c",
        envdVersion: state.envdVersion,
      });
    case `POST /sandboxes/${SANDBOX_ID}/timeout`: {
      state.lifetimes.push((await json(request)).timeout);
      try {
        await state.onRefresh();
      } catch {
        return sendJson(response, 500, { code: 500, message: "no refresh today" });
      }
      response.writeHead(204);
      return response.end();
    }
    case "GET /health":
      response.writeHead(204);
      return response.end();
    case "GET /files":
      state.users.push(searchParams.get("username"));
      return await sendFile(request, response, searchParams.get("path"));
    case "POST /files":
      state.users.push(searchParams.get("username"));
      return sendJson(response, 200, [await receiveFile(state, request, searchParams.get("path"))]);
    case "POST /filesystem.Filesystem/Stat": {
      const { path: file } = await json(request);
      const { size } = await stat(file);
      const link = (await lstat(file)).isSymbolicLink() ? { symlinkTarget: "elsewhere" } : {};
      return sendJson(response, 200, {
        entry: { ...entryInfo(file, "FILE_TYPE_FILE"), size: String(size), ...link },
      });
    }
    case "POST /filesystem.Filesystem/Move": {
      const { source, destination } = await json(request);
      await rename(source, destination);
      return sendJson(response, 200, { entry: entryInfo(destination, "FILE_TYPE_FILE") });
    }
    case "POST /filesystem.Filesystem/MakeDir": {
      const { path: folder } = await json(request);
      const existing = await stat(folder).catch(() => undefined);
      if (existing?.isDirectory())
        throw new ConnectError("already_exists", `directory already exists: ${folder}`);
      if (existing) throw new ConnectError("invalid_argument", `not a directory: ${folder}`);
      await mkdir(folder, { recursive: true });
      return sendJson(response, 200, { entry: entryInfo(folder, "FILE_TYPE_DIRECTORY") });
    }
    case "POST /filesystem.Filesystem/ListDir": {
      const { path: folder } = await json(request);
      const entries = await readdir(folder, { withFileTypes: true });
      return sendJson(response, 200, {
        entries: entries.map((entry) => entryInfo(path.join(folder, entry.name), fileType(entry))),
      });
    }
    case "POST /filesystem.Filesystem/Remove":
      await rm((await json(request)).path, { recursive: true, force: true });
      return sendJson(response, 200, {});
    case "POST /process.Process/Start":
      return await runProcess(state, request, response);
    default:
      throw new ConnectError("unimplemented", route);
  }
}

function fileType(entry) {
  if (entry.isSymbolicLink()) return "FILE_TYPE_SYMLINK";
  return entry.isDirectory() ? "FILE_TYPE_DIRECTORY" : "FILE_TYPE_FILE";
}

function entryInfo(file, type) {
  return { name: path.basename(file), path: file, type };
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function json(request) {
  return JSON.parse(await body(request));
}

function sendJson(response, status, value, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(value));
}

async function sendFile(request, response, file) {
  const { size } = await stat(file);
  const type = { "content-type": "application/octet-stream" };
  if (request.headers["accept-encoding"] === "gzip") {
    response.writeHead(200, { ...type, "content-encoding": "gzip" });
    return await pipeline(createReadStream(file), createGzip(), response);
  }
  response.writeHead(200, { ...type, "content-length": size });
  await pipeline(createReadStream(file), response);
}

/** Like the real one, it keeps what has arrived of an upload that breaks off. */
async function receiveFile(state, request, file) {
  const { "content-type": type, "content-encoding": encoding } = request.headers;
  state.uploads.push(encoding === undefined ? type : `${type}, ${encoding}`);
  await mkdir(path.dirname(file), { recursive: true });
  if (type === "application/octet-stream") {
    const unpacked = encoding === "gzip" ? [createGunzip()] : [];
    await pipeline(request, ...unpacked, createWriteStream(file));
  } else {
    const form = await new Response(Readable.toWeb(request), { headers: request.headers }).formData();
    await writeFile(file, Buffer.from(await form.get("file").arrayBuffer()));
  }
  return { name: path.basename(file), path: file, type: "file" };
}

/** One message of a stream of the Connect protocol: flags, length, JSON. */
function envelope(message, flags = 0) {
  const content = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(5);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(content.length, 1);
  return Buffer.concat([head, content]);
}

const END_OF_STREAM = 2;

async function runProcess(state, request, response) {
  const { process: command } = JSON.parse((await body(request)).subarray(5));
  const limitMs = Number(request.headers["connect-timeout-ms"]);
  state.commands.push({ text: command.args.at(-1), limitMs });
  // Like the real one, it leaves what runs alone when the caller goes away.
  const child = spawn(command.cmd, command.args, { stdio: ["ignore", "pipe", "pipe"] });
  state.children.add(child);
  response.writeHead(200, { "content-type": "application/connect+json" });
  const send = (event) => response.write(envelope({ event }));
  send({ start: { pid: child.pid } });
  for (const name of ["stdout", "stderr"]) {
    child[name].on("data", (data) => send({ data: { [name]: data.toString("base64") } }));
  }
  const [exitCode, signal] = await once(child, "close");
  state.children.delete(child);
  const status = signal === null ? `exit status ${exitCode}` : `signal: ${signal}`;
  send({
    end: {
      exitCode: exitCode ?? -1,
      exited: signal === null,
      status,
      ...(exitCode === 0 ? {} : { error: status }),
    },
  });
  response.end(envelope({}, END_OF_STREAM));
}
