// A server on loopback that speaks the HTTP interface of Cloudflare's bridge Worker as its documentation and source
// (@cloudflare/sandbox 0.12.10) have it, and does on this machine what it is asked to.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { pipeline } from "node:stream/promises";

const TOKEN = "a-secret";
const LONGEST_BYTES = 32 * 1024 * 1024;

/** @param {string} workspace stands for the bridge's `/workspace` */
export async function startBridge(workspace) {
  const state = {
    /** The requests so far, as method and route. */
    requests: [],
    /** The most uploads that were under way at once. */
    mostAtOnce: 0,
    atOnce: 0,
    /** May give a status and headers with which a request is answered instead. */
    onRequest: async () => {},
    /** How many pieces of output were sent. */
    outputs: 0,
    children: new Set(),
  };
  const server = http.createServer((request, response) => {
    answer(state, workspace, request, response).catch((error) => {
      if (response.headersSent) return response.destroy(error);
      refuse(response, 502, error.message, "exec_transport_error");
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  return Object.assign(state, {
    port,
    options: { url: `http://127.0.0.1:${port}`, token: TOKEN, sandboxId: "mzxw6ytboi", workspace },
    async stop() {
      for (const child of state.children) child.kill("SIGKILL");
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  });
}

function refuse(response, status, error, code, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify({ error, code }));
}

async function answer(state, workspace, request, response) {
  const [, id, kind, rest] = /^\/v1\/sandbox\/([^/]+)\/(exec|file)(.*)$/s.exec(request.url) ?? [];
  const route = `${request.method} ${kind}`;
  state.requests.push(route);
  const instead = await state.onRequest(route, state.requests);
  if (instead?.status) {
    request.resume();
    return refuse(response, instead.status, "not now", "test", instead.headers);
  }
  if (!/^[a-z2-7]{1,128}$/.test(id))
    return refuse(response, 400, "Invalid sandbox ID format", "invalid_request");
  if (request.headers.authorization !== `Bearer ${TOKEN}`) {
    return refuse(response, 401, "Unauthorized", "unauthorized");
  }
  if (route === "POST exec") return await execute(state, request, response);
  // What the bridge's router makes of a path: an escaped `%`, `#` or `?` stays as it is.
  const file = path.posix.normalize(decodeURI(rest.replaceAll("%25", "%2525")));
  if (!file.startsWith(`${workspace}/`)) {
    return refuse(response, 403, "path must resolve to a location within /workspace", "invalid_request");
  }
  if (route === "GET file") {
    const found = await stat(file).catch(() => undefined);
    if (!found) return refuse(response, 404, `File not found: ${file}`, "workspace_read_not_found");
    // Its length is not told.
    response.writeHead(200, { "content-type": "application/octet-stream" });
    return await pipeline(createReadStream(file), response);
  }
  if (Number(request.headers["content-length"]) > LONGEST_BYTES) {
    request.resume();
    return refuse(response, 413, "payload too large", "payload_too_large");
  }
  state.atOnce += 1;
  state.mostAtOnce = Math.max(state.mostAtOnce, state.atOnce);
  try {
    await mkdir(path.dirname(file), { recursive: true });
    await pipeline(request, createWriteStream(file));
  } finally {
    state.atOnce -= 1;
  }
  response.writeHead(200, { "content-type": "application/json" });
  response.end('{"ok":true}');
}

/** As the bridge quotes each word for the sandbox's bash. */
function shellQuote(word) {
  if (/^[A-Za-z0-9@%+=:,./-]+$/.test(word)) return word;
  const escaped = word.replaceAll("\\", "\\\\").replaceAll("'", "\\'");
  return `$'${escaped.replaceAll("\n", "\\n").replaceAll("\r", "\\r").replaceAll("\t", "\\t")}'`;
}

async function execute(state, request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { argv } = JSON.parse(Buffer.concat(chunks));
  // Like the real one, it leaves what runs alone when the caller goes away.
  const child = spawn("bash", ["--norc", "-c", argv.map(shellQuote).join(" ")], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  state.children.add(child);
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (event, data) => response.write(`event: ${event}\ndata: ${data}\n\n`);
  for (const name of ["stdout", "stderr"]) {
    child[name].on("data", (data) => {
      state.outputs += 1;
      // Its output is text by then: what is no UTF-8 does not survive.
      send(name, Buffer.from(data.toString("utf8")).toString("base64"));
    });
  }
  const [exitCode] = await once(child, "close");
  state.children.delete(child);
  send("exit", JSON.stringify({ exit_code: exitCode ?? 137 }));
  response.end();
}
