// A server on loopback that speaks as much of Daytona's interface as the client needs, to the real SDK, and does on this
// machine what it is asked to: its API, and what runs in each sandbox (files, commands).

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream, createWriteStream } from "node:fs";
import { stat } from "node:fs/promises";
import http from "node:http";
import { createRequire } from "node:module";
import { pipeline } from "node:stream/promises";

const SANDBOX_ID = "sandbox-of-the-test";

// The SDK's own parser of forms.
const sdk = createRequire(createRequire(import.meta.url).resolve("@daytonaio/sdk"));
const busboy = sdk("busboy");

export async function startDaytonaServer() {
  const state = {
    sandboxId: SANDBOX_ID,
    /** How often it was told that the sandbox is in use. */
    refreshes: 0,
    /** May give a status and headers with which a request to the sandbox is answered instead. */
    onRequest: async () => {},
    children: new Set(),
  };
  const server = http.createServer((request, response) => {
    answer(state, request, response).catch((error) => {
      if (response.headersSent) return response.destroy(error);
      sendJson(response, error.code === "ENOENT" ? 404 : 500, { message: error.message });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  return Object.assign(state, {
    port,
    async stop() {
      for (const child of state.children) child.kill("SIGKILL");
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  });
}

function sendJson(response, status, value, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(value));
}

async function json(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks));
}

async function answer(state, request, response) {
  const { pathname } = new URL(request.url, "http://server");
  if (request.method === "GET" && pathname === `/api/sandbox/${SANDBOX_ID}`) {
    const toolboxProxyUrl = `http://${request.headers.host}/toolbox`;
    return sendJson(response, 200, {
      id: SANDBOX_ID,
      state: "started",
      env: {},
      labels: {},
      toolboxProxyUrl,
    });
  }
  if (/\/(last-activity|activity)/.test(pathname)) {
    state.refreshes += 1;
    return sendJson(response, 200, {});
  }
  const route = `${request.method} ${pathname.replace(`/toolbox/${SANDBOX_ID}`, "")}`;
  const instead = await state.onRequest(route);
  if (instead?.status) {
    request.resume();
    return sendJson(response, instead.status, { message: "not now" }, instead.headers);
  }
  switch (route) {
    case "POST /files/bulk-upload":
      await receive(request);
      return sendJson(response, 200, {});
    case "POST /files/bulk-download":
      return await send(response, (await json(request)).paths[0]);
    case "POST /process/execute":
      return await execute(state, await json(request), response);
    default:
      return sendJson(response, 501, { message: route });
  }
}

/** Like the real one, it keeps what has arrived of an upload that breaks off. */
async function receive(request) {
  const form = busboy({ headers: request.headers, preservePath: true });
  let target;
  let written;
  form.on("field", (_, value) => (target = value));
  form.on("file", (_, file) => {
    written = pipeline(file, createWriteStream(target));
    written.catch(() => {});
  });
  await pipeline(request, form);
  await written;
}

async function send(response, file) {
  const { size } = await stat(file);
  response.writeHead(200, { "content-type": "multipart/form-data; boundary=part" });
  response.write(
    `--part\r\ncontent-disposition: form-data; name="file"; filename="${file}"\r\n` +
      `content-type: application/octet-stream\r\ncontent-length: ${size}\r\n\r\n`,
  );
  await pipeline(createReadStream(file), response, { end: false });
  response.end("\r\n--part--\r\n");
}

async function execute(state, { command }, response) {
  const child = spawn("sh", ["-c", command], { stdio: ["ignore", "pipe", "pipe"] });
  state.children.add(child);
  const output = [];
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => output.push(data));
  const [exitCode] = await once(child, "close");
  state.children.delete(child);
  sendJson(response, 200, { exitCode: exitCode ?? -1, result: Buffer.concat(output).toString("utf8") });
}
