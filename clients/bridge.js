// @ts-check
"use strict";

/**
 * The client that reaches a sandbox of Cloudflare through its bridge Worker, by HTTP.
 *
 * @internal
 */

const { path } = require("../js/node.js");

const {
  atMost,
  attempted,
  bestEffort,
  hasNotBegun,
  isTemporary,
  limited,
  neverSilent,
  pace,
  retried,
  retryAfterMs,
} = require("./attempts.js");
const {
  checkedCount,
  checkedLimits,
  checkedOptions,
  checkedPath,
  checkedRunOptions,
  checkedText,
  commandFailed,
  commandTimedOut,
  connectionLost,
  invalidArgument,
  OUTPUT_TAIL_CHARS,
  transferIncomplete,
} = require("./errors.js");
const { LIST, listedNames, PLAIN_PATH, SIZE, STOP_CALL, stoppedInTime } = require("./shell.js");
const { acceptedSize, checkedContent, fairTurn, onlyForward, streamOf } = require("./transfer.js");

const DEFAULT_PART_BYTES = 4 * 1024 * 1024;

/** The most that the bridge takes in one request. */
const LONGEST_REQUEST_BYTES = 32 * 1024 * 1024;

const DEFAULT_CONCURRENCY = 4;

/** How long the client's own short commands may take in the sandbox, in milliseconds. */
const HOUSEKEEPING_MS = 600_000;

/** How much longer than the command's own limit the bridge may wait: this client ends the wait itself. */
const SLACK_MS = 30_000;

/** The most of a command's output that is kept for the client's own use, in characters. */
const LONGEST_ANSWER_CHARS = 64 * 1024 * 1024;

/** The most of an answer that refuses a request that is repeated, in characters. */
const LONGEST_REFUSAL_CHARS = 500;

/** Puts the parts `$3`, `$4`, … together as `$1`, which must then have `$2` bytes. */
const JOIN = `target=$1 size=$2 whole=$3
shift 2
if [ -d "$target" ]; then rm -f "$@"; echo "$target is a directory" >&2; exit 1; fi
mkdir -p "$(dirname "$target")" || { rm -f "$@"; exit 1; }
[ -e "$whole" ] || { echo "arrived 0" >&2; exit 75; }
for part in "$@"; do
  [ "$part" = "$whole" ] || cat "$part" >> "$whole" || { rm -f "$@"; exit 1; }
done
arrived=$(($(wc -c < "$whole")))
if [ "$arrived" -ne "$size" ]; then rm -f "$@"; echo "arrived $arrived" >&2; exit 75; fi
mv -f "$whole" "$target" || { rm -f "$@"; exit 1; }
rm -f "$@"`;

/** The exit code by which {@link JOIN} says that bytes are missing. */
const INCOMPLETE = 75;

/** Cuts the piece number `$4` of `$3` bytes out of `$1` and puts it where the bridge can name it, at `$2`. */
const CUT = 'dd if="$1" of="$2" bs="$3" skip="$4" count=1 2>/dev/null';

/**
 * Runs the script `$2` with the arguments after it, and prints a line every `$1` seconds meanwhile: the network before a
 * Worker, and Node's own `fetch`, close a connection that is silent for some minutes.
 */
const HEARD_OF = `beat=$1
shift
( trap 'kill "$sleeping"; exit' TERM
  while :; do sleep "$beat" >/dev/null & sleeping=$!; wait "$sleeping"; echo; done ) 2>/dev/null &
beating=$!
sh -c "$@" >/dev/null
status=$?
kill "$beating" && wait "$beating" 2>/dev/null
exit "$status"`;

/**
 * @param {import("./cloudflare.js").CloudflareBridgeOptions} options
 * @returns {import("../index.js").SandboxManagedRuntimeClient}
 */
function createCloudflareBridgeClient(options) {
  const {
    url,
    token,
    sandboxId,
    apiPrefix = "/v1",
    workspace = "/workspace",
    partBytes = DEFAULT_PART_BYTES,
    concurrency = DEFAULT_CONCURRENCY,
    ...limits
  } = checkedOptions(options, [
    "url",
    "token",
    "sandboxId",
    "apiPrefix",
    "workspace",
    "partBytes",
    "concurrency",
  ]);
  const base = checkedUrl(url);
  checkedText("token", token);
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    // Not shown: it is a secret.
    throw invalidArgument("token", "must be printable ASCII without spaces", "another text");
  }
  // The bridge's own rule.
  if (typeof sandboxId !== "string" || !/^[a-z2-7]{1,128}$/.test(sandboxId)) {
    throw invalidArgument("sandboxId", "must be an id that the bridge gave (a-z and 2-7)", sandboxId);
  }
  if (typeof apiPrefix !== "string" || !/^(\/[\w.-]+)*$/.test(apiPrefix)) {
    throw invalidArgument("apiPrefix", 'must be a path such as "/v1"', apiPrefix);
  }
  if (typeof workspace !== "string" || !/^(\/[\w.-]+)+$/.test(workspace)) {
    throw invalidArgument("workspace", "must be an absolute path of plain characters", workspace);
  }
  checkedCount("partBytes", partBytes, 1, LONGEST_REQUEST_BYTES);
  checkedCount("concurrency", concurrency, 1, 16);
  const { deadlineMs, maxDownloadBytes } = checkedLimits(limits);
  const root = `${base}${apiPrefix}/sandbox/${sandboxId}`;
  /** @type {Record<string, string>} */
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const inTurn = atMost(concurrency);

  /** @param {unknown} remotePath */
  function located(remotePath) {
    const located = path.posix.normalize(checkedPath(remotePath));
    if (located !== workspace && !located.startsWith(`${workspace}/`)) {
      throw invalidArgument(
        "remotePath",
        `must lie in ${workspace}: the bridge serves nothing else`,
        remotePath,
      );
    }
    return located;
  }

  /**
   * One request. Rejects unless it is answered with a success.
   *
   * @param {string} call what a failure names it
   * @param {string} route
   * @param {Omit<RequestInit, "headers"> & { headers?: Record<string, string> }} init
   * @param {AbortSignal} signal
   */
  async function request(call, route, init, signal) {
    const headers = { ...init.headers, ...authorization };
    const response = await reached(call, () => fetch(`${root}${route}`, { ...init, headers, signal }));
    if (response.ok) return response;
    throw await refused(call, response);
  }

  /**
   * Runs a script in the sandbox.
   *
   * @param {string} call what a failure names it
   * @param {[script: string, ...args: string[]]} script
   * @param {number} limit
   * @param {AbortSignal} signal
   */
  async function execute(call, [script, ...args], limit, signal) {
    const body = JSON.stringify({ argv: ["sh", "-c", script, "sh", ...args], timeout_ms: limit + SLACK_MS });
    const headers = { "content-type": "application/json" };
    const response = await request(call, "/exec", { method: "POST", body, headers }, signal);
    const ending = await reached(call, () => endingOf(response));
    if (ending.exitCode === undefined) {
      throw connectionLost(call, ending.failure ?? "The answer ended before the command did.");
    }
    if (ending.exitCode !== 0)
      throw commandFailed(call, { exitCode: ending.exitCode, stderr: ending.stderr });
    return ending.stdout;
  }

  /**
   * @param {string} call
   * @param {AbortSignal} signal
   * @param {string} script
   * @param {string[]} args
   */
  function shell(call, signal, script, ...args) {
    return execute(call, [script, ...args], HOUSEKEEPING_MS, signal);
  }

  /**
   * @template T
   * @param {string} call
   * @param {AbortSignal | undefined} signal
   * @param {(signal: AbortSignal) => Promise<T>} attempt
   */
  function called(call, signal, attempt) {
    return attempted({ call, deadlineMs, signal }, attempt);
  }

  /**
   * The nearest folder above `target` that the bridge can name, as a rule on the same volume. It takes its paths from the
   * URL without decoding all of it: a file whose name contains `%`, `#` or `?` cannot be named there.
   *
   * @param {string} target
   */
  function nameableFolder(target) {
    let folder = path.posix.dirname(target);
    while (!PLAIN_PATH.test(folder)) folder = path.posix.dirname(folder);
    return folder.startsWith(workspace) ? folder : workspace;
  }

  /**
   * @param {string} call
   * @param {string} file
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @param {AbortSignal} signal
   */
  async function put(call, file, bytes, signal) {
    const headers = {
      "content-type": "application/octet-stream",
      // Not known of a stream otherwise.
      "content-length": String(bytes.byteLength),
    };
    await retried(signal, () =>
      neverSilent(signal, call, async (heard, moved, stop) => {
        // `fetch` would copy bytes that it is given in one piece. An empty stream is no body to it.
        const body = bytes.byteLength === 0 ? bytes : streamOf(bytes, moved, stop);
        /** @type {RequestInit & { headers: Record<string, string>, duplex: "half" }} */
        const init = { method: "PUT", body, headers, duplex: "half" };
        const response = await request(call, `/file${file}`, init, heard);
        await reached(call, () => response.arrayBuffer());
      }),
    );
  }

  /**
   * Fetches a file that the bridge can name into `place`, and says how many bytes there were.
   *
   * @param {string} call
   * @param {string} file
   * @param {Buffer} place
   * @param {AbortSignal} signal
   */
  async function get(call, file, place, signal) {
    await retried(signal, () =>
      neverSilent(signal, call, async (heard, moved) => {
        const response = await request(call, `/file${file}`, {}, heard);
        let arrived = 0;
        await reached(call, async () => {
          for await (const chunk of response.body ?? []) {
            moved();
            if (arrived + chunk.byteLength <= place.byteLength) place.set(chunk, arrived);
            arrived += chunk.byteLength;
            await fairTurn();
          }
        });
        if (arrived !== place.byteLength) throw transferIncomplete(file, arrived, place.byteLength);
      }),
    );
  }

  /** @param {string[]} parts */
  async function removeParts(parts) {
    const { signal } = new AbortController();
    await bestEffort(() => shell("remove parts", signal, 'rm -f "$@"', ...parts));
  }

  /**
   * Does `work` for each index, with at most `concurrency` at once. After a failure no further one begins, and
   * those under way are waited for.
   *
   * @param {number} count
   * @param {AbortSignal} signal
   * @param {(index: number, signal: AbortSignal) => Promise<void>} work
   */
  async function eachPart(count, signal, work) {
    const controller = new AbortController();
    const stop = () => controller.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    /** @type {{ reason: unknown } | undefined} */
    let failure;
    const works = Array.from({ length: count }, (_, index) =>
      inTurn(async () => {
        if (controller.signal.aborted) return;
        await work(index, controller.signal);
      }).catch((reason) => {
        failure ??= { reason };
        controller.abort(reason);
      }),
    );
    await Promise.all(works);
    signal.removeEventListener("abort", stop);
    signal.throwIfAborted();
    if (failure !== undefined) throw failure.reason;
  }

  return {
    allowConcurrentSyncOperations: true,

    async makeDir(remotePath) {
      const folder = located(remotePath);
      const call = `mkdir -p ${folder}`;
      await called(call, undefined, (signal) => shell(call, signal, 'mkdir -p "$1"', folder));
    },

    async writeFile(remotePath, bytes, { onProgress, signal } = {}) {
      const target = located(remotePath);
      const content = checkedContent(bytes);
      const total = content.byteLength;
      const forward = onlyForward(onProgress);
      const call = `write ${target}`;
      const count = Math.max(1, Math.ceil(total / partBytes));
      await called(call, signal, async (given) => {
        const name = path.posix.join(nameableFolder(target), `.${crypto.randomUUID()}`);
        const parts = Array.from({ length: count }, (_, index) => `${name}.${index}.part`);
        let sent = 0;
        try {
          await eachPart(count, given, async (index, going) => {
            const start = index * partBytes;
            const length = Math.min(partBytes, total - start);
            await put(call, parts[index] ?? "", new Uint8Array(content, start, length), going);
            sent += length;
            if (sent < total) await forward?.(sent, total);
          });
          await shell(call, given, JOIN, target, String(total), ...parts);
        } catch (error) {
          await removeParts(parts);
          const { exitCode, stderr } = /** @type {{ exitCode?: number, stderr?: string }} */ (error) ?? {};
          const arrived = /^arrived (\d+)$/m.exec(stderr ?? "")?.[1];
          if (exitCode !== INCOMPLETE || arrived === undefined) throw error;
          throw transferIncomplete(target, Number(arrived), total);
        }
      });
      await onProgress?.(total, total);
    },

    async readFile(remotePath, { onProgress, signal } = {}) {
      const source = located(remotePath);
      const forward = onlyForward(onProgress);
      const call = `read ${source}`;
      const content = await called(call, signal, async (given) => {
        const announced = Number((await shell(call, given, SIZE, source)).trim());
        if (!Number.isSafeInteger(announced))
          throw new Error(`the sandbox did not tell the size of ${source}`);
        const whole = Buffer.allocUnsafeSlow(acceptedSize(announced, source, maxDownloadBytes));
        const count = Math.max(1, Math.ceil(announced / partBytes));
        let arrived = 0;
        await eachPart(count, given, async (index, going) => {
          const place = whole.subarray(index * partBytes, (index + 1) * partBytes);
          if (count === 1 && PLAIN_PATH.test(source)) {
            await get(call, source, place, going);
          } else {
            const part = path.posix.join(nameableFolder(source), `.${crypto.randomUUID()}.part`);
            try {
              await retried(going, () =>
                shell(call, going, CUT, source, part, String(partBytes), String(index)),
              );
              await get(call, part, place, going);
            } finally {
              await removeParts([part]);
            }
          }
          arrived += place.byteLength;
          if (arrived < announced) await forward?.(arrived, announced);
        });
        return whole;
      });
      await onProgress?.(content.byteLength, content.byteLength);
      return content;
    },

    async listFiles(remotePath) {
      const folder = located(remotePath);
      const call = `list ${folder}`;
      const names = await called(call, undefined, (signal) => shell(call, signal, LIST, folder));
      return listedNames(names);
    },

    async remove(remotePath) {
      const target = located(remotePath);
      const call = `rm -rf ${target}`;
      await called(call, undefined, (signal) => shell(call, signal, 'rm -rf "$1"', target));
    },

    async run(command, runOptions) {
      const { limit, signal } = checkedRunOptions(runOptions);
      const id = crypto.randomUUID();
      const timedOut = () => commandTimedOut(command, limit);
      await limited({ limitMs: limit, signal, timedOut }, async (given) => {
        try {
          const [stopped, ...args] = stoppedInTime(command, limit, id);
          /** @type {[string, ...string[]]} */
          const script = [HEARD_OF, String(pace.heartbeatMs / 1000), stopped, "sh", ...args];
          await retried(given, () => execute(command, script, limit, given), hasNotBegun);
        } catch (error) {
          // The bridge only stops listening: what was started runs on.
          if (given.aborted) {
            const { signal: unaborted } = new AbortController();
            await bestEffort(() => shell("stop a command", unaborted, STOP_CALL, id));
          }
          throw error;
        }
      });
    },
  };
}

/** @param {unknown} url */
function checkedUrl(url) {
  const parsed = typeof url === "string" && URL.canParse(url) ? new URL(url) : undefined;
  if (
    parsed === undefined ||
    !/^https?:$/.test(parsed.protocol) ||
    parsed.search !== "" ||
    parsed.hash !== ""
  ) {
    throw invalidArgument("url", "must be the http or https address of a bridge Worker", url);
  }
  return parsed.href.replace(/\/+$/, "");
}

/**
 * What `work` gives, with a connection that fails meanwhile told as such.
 *
 * @template T
 * @param {string} call
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function reached(call, work) {
  try {
    return await work();
  } catch (error) {
    if (!isTemporary(error)) throw error;
    // `fetch` says what happened in the cause of its error.
    const { message, cause } = /** @type {Error & { cause?: Error }} */ (error);
    const how = cause?.message ? `${message}: ${cause.message}` : message;
    throw connectionLost(call, how, { cause: error });
  }
}

/**
 * @param {string} call
 * @param {Response} response
 */
async function refused(call, response) {
  const text = (await response.text().catch(() => "")).slice(0, LONGEST_REFUSAL_CHARS);
  const wait = retryAfterMs(response.headers.get("retry-after"));
  const error = new Error(`the bridge refused a request (${response.status}) during: ${call}\n${text}`);
  return Object.assign(
    error,
    { code: "ERR_SANDBOX_REQUEST_FAILED", status: response.status },
    wait === undefined ? {} : { retryAfterMs: wait },
  );
}

/**
 * How a command ended, by the events that the bridge sends.
 *
 * @param {Response} response
 */
async function endingOf(response) {
  /** @type {{ exitCode: number | undefined, failure: string | undefined, stdout: string, stderr: string }} */
  const ending = { exitCode: undefined, failure: undefined, stdout: "", stderr: "" };
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  for await (const { event, data } of eventsOf(response)) {
    if (event === "stdout" || event === "stderr") {
      const text = decoders[event].decode(Buffer.from(data, "base64"), { stream: true });
      const longest = event === "stdout" ? LONGEST_ANSWER_CHARS : 2 * OUTPUT_TAIL_CHARS;
      ending[event] = (ending[event] + text).slice(-longest);
    } else if (event === "exit") {
      ending.exitCode = JSON.parse(data).exit_code;
    } else if (event === "error") {
      ending.failure = String(JSON.parse(data).error);
    }
  }
  return ending;
}

/**
 * The events of a stream of server-sent events.
 *
 * @param {Response} response
 */
async function* eventsOf(response) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of response.body ?? []) {
    rest += decoder.decode(chunk, { stream: true });
    const blocks = rest.split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const fields = block
        .split("\n")
        .map((line) => /** @type {[string, string]} */ (line.split(/: ?(.*)/s, 2)));
      const event = fields.find(([name]) => name === "event")?.[1] ?? "message";
      const data = fields.filter(([name]) => name === "data").map(([, value]) => value);
      yield { event, data: data.join("\n") };
    }
  }
}

module.exports = { createCloudflareBridgeClient };
