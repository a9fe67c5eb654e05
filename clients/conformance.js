// @ts-check
"use strict";

/**
 * Checks whether a client does all that preparing and restoring a workspace need of it, for authors of a client for
 * a provider that has none here, such as Modal or Vercel. A short script is enough:
 *
 *     import { checkSandboxClient } from "@paperclipai/sandbox-managed-runtime/clients/conformance";
 *     import { createMyClient } from "./my-client.js";
 *
 *     const sandbox = await provider.create();
 *     const { passed } = await checkSandboxClient(createMyClient(sandbox), { workDir: "/home/user/conformance" });
 *     await sandbox.destroy();
 *     process.exitCode = passed ? 0 : 1;
 *
 * It prints what falls short, with a hint on what to do, and a table of all checks and of the optional abilities
 * that it found. It takes about fifteen seconds on a client that is in order.
 */

const {
  crypto: { createHash },
  path,
} = require("../js/node.js");

const { checkedDuration, checkedNames, checkedPath, invalidArgument } = require("./errors.js");
const { quoted } = require("./shell.js");

/** @typedef {import("../index.js").SandboxManagedRuntimeClient} Client */

/**
 * What a check works with.
 *
 * @typedef {object} Bench
 * @property {Client} client
 * @property {string} folder a new folder of the check's own; it exists
 * @property {(command: string) => Promise<void>} run a command that is given ample time
 * @property {number} limitMs how long a check may take
 * @property {import("./conformance.js").ClientAbilities} abilities what the client can do beyond what it must; a
 *   check notes what it finds
 */

/**
 * @typedef {object} Check
 * @property {string} name what the client must do
 * @property {(bench: Bench) => Promise<void>} verify throws what is wrong
 * @property {string} advice what to do about it
 */

const DEFAULT_LIMIT_MS = 120_000;

/** How long a command may take that is expected to end by itself, in milliseconds. */
const AMPLE_MS = 60_000;

/** The size of the large file, in bytes. It is no multiple of anything that a transfer may be cut into. */
const LARGE_BYTES = 32 * 1024 * 1024 + 1_237;

/** The size of the file of which no second copy may be in memory, in bytes. */
const BULK_BYTES = 100_000_000;

/** How much memory a transfer of {@link BULK_BYTES} may take beside the file itself, in bytes. */
const BULK_SLACK_BYTES = 72_000_000;

/** How large the files are that travel at once, in bytes. */
const PART_BYTES = 8 * 1024 * 1024 + 11;

/** A folder name full of characters that are easily broken by quoting or encoding. */
const ODD_FOLDER = 'it\'s a $HOME `x` \\ "dir" * ünï-日本 #1 %41 ?';

/** File names that are allowed, and easily broken by quoting or encoding. */
const ODD_NAMES = [
  "two  spaces",
  " edge ",
  "single'quote",
  'double"quote',
  "dollar $HOME",
  "back\\slash",
  "star * [a-z] ?",
  "semi;colon & pipe|",
  "-dash",
  "ünï-日本-🙂",
  "#hash %41 +plus",
  "line\nbreak",
];

/** @type {Check[]} */
const CHECKS = [
  {
    name: "makeDir creates nested directories, and again without an error",
    async verify({ client, folder, run }) {
      const nested = path.posix.join(folder, "a/b/c");
      await client.makeDir(nested);
      await client.makeDir(nested);
      await run(`test -d ${quoted(nested)}`);
    },
    advice: "Create the directories above as well, and take one that exists for success, like `mkdir -p`.",
  },
  {
    name: "a large file arrives and returns byte for byte",
    async verify(bench) {
      await roundTrip(bench, "large", noise(LARGE_BYTES));
    },
    advice:
      "Send and fetch bytes, not text, and all of them: look for a size limit of the provider, a decoding as " +
      "UTF-8, or a transfer in parts that loses one.",
  },
  {
    name: "an empty file arrives and returns",
    async verify(bench) {
      await roundTrip(bench, "empty", new ArrayBuffer(0));
    },
    advice: "Zero bytes are content like any other: create the file, and answer with an empty buffer.",
  },
  {
    name: "writeFile replaces a longer file",
    async verify(bench) {
      await roundTrip(bench, "replaced", noise(100_000));
      await roundTrip(bench, "replaced", noise(10));
    },
    advice: "Truncate the file, or write another one and rename it.",
  },
  {
    name: "writeFile leaves the buffer that it was given as it is",
    async verify({ client, folder }) {
      const bytes = noise(100_000);
      const before = digest(bytes);
      await client.writeFile(path.posix.join(folder, "file"), bytes);
      if (bytes.byteLength !== 100_000) throw new Error("the buffer is detached");
      if (digest(bytes) !== before) throw new Error("the buffer's content changed");
    },
    advice: "Copy the buffer before you transfer it to a worker or encode it in place.",
  },
  {
    name: "odd file names survive",
    async verify(bench) {
      const failures = [];
      for (const name of ODD_NAMES) {
        try {
          await roundTrip(bench, name, noise(100));
        } catch (error) {
          failures.push(`${JSON.stringify(name)}: ${messageOf(error)}`);
        }
      }
      if (failures.length > 0) throw new Error(failures.join("; "));
    },
    advice:
      "Put paths into single quotes in a shell command (and each ' as '\"'\"'), and encode them in a URL.",
  },
  {
    name: "odd directory names survive",
    async verify(bench) {
      const folder = path.posix.join(bench.folder, ODD_FOLDER);
      await bench.client.makeDir(folder);
      await bench.run(`test -d ${quoted(folder)}`);
      await roundTrip({ ...bench, folder }, "file", noise(100));
      const names = await bench.client.listFiles(folder);
      if (JSON.stringify(names) !== '["file"]')
        throw new Error(`listFiles answered ${JSON.stringify(names)}`);
      await bench.client.remove(folder);
      await bench.run(`test ! -e ${quoted(folder)}`);
    },
    advice: "Quote and encode the whole path, the directories above as well as the name, in every method.",
  },
  {
    name: "a file of 100 MB takes no second copy of it in memory",
    async verify({ client, folder, run }) {
      const file = path.posix.join(folder, "bulk");
      const bytes = new ArrayBuffer(BULK_BYTES);
      await mustTakeAtMost("writeFile", BULK_SLACK_BYTES, async () => client.writeFile(file, bytes));
      await run(`test "$(wc -c < ${quoted(file)})" -eq ${BULK_BYTES}`);
      const most = BULK_BYTES + BULK_SLACK_BYTES;
      const answer = await mustTakeAtMost("readFile", most, async () => client.readFile(file));
      if (answer.byteLength !== BULK_BYTES) throw new Error(`${answer.byteLength} bytes returned`);
    },
    advice:
      "Hand over views of the buffer piece by piece, and copy what arrives into one buffer of the file's size " +
      "at once instead of joining chunks at the end.",
  },
  {
    name: "readFile of a missing file rejects",
    async verify({ client, folder }) {
      await mustReject("readFile", () => client.readFile(path.posix.join(folder, "missing")));
    },
    advice: "Pass the provider's error on. An empty answer would look like a workspace that was emptied.",
  },
  {
    name: "remove deletes a directory with its content, and a missing one without an error",
    async verify({ client, folder, run }) {
      const doomed = path.posix.join(folder, "removed");
      await run(`mkdir -p ${quoted(doomed)}/deep && echo > ${quoted(doomed)}/deep/file`);
      await client.remove(doomed);
      await run(`test ! -e ${quoted(doomed)}`);
      await client.remove(doomed);
    },
    advice: "Remove recursively and ignore that something is missing, like `rm -rf`.",
  },
  {
    name: "listFiles tells the names of plain files, sorted, without directories",
    async verify({ client, folder, run }) {
      await run(`cd ${quoted(folder)} && mkdir folder && touch b a .hidden folder/inner`);
      const names = await client.listFiles(folder);
      const expected = [".hidden", "a", "b"];
      if (JSON.stringify(names) !== JSON.stringify(expected)) {
        throw new Error(`expected ${JSON.stringify(expected)}, got ${JSON.stringify(names)}`);
      }
    },
    advice: "Answer with bare names, not paths, hidden files included, in the order of `localeCompare`.",
  },
  {
    name: "progress, where there is any, ends with all bytes transferred",
    async verify({ client, folder, abilities }) {
      const file = path.posix.join(folder, "file");
      const total = 1_000_000;
      /** @type {[number, number | null][]} */
      const reports = [];
      const onProgress = (/** @type {number} */ done, /** @type {number | null} */ of) =>
        void reports.push([done, of]);
      await client.writeFile(file, noise(total), { onProgress });
      abilities.progress = reports.length > 0;
      mustEndComplete(reports.splice(0), total, "writeFile");
      await client.readFile(file, { onProgress });
      mustEndComplete(reports, total, "readFile");
    },
    advice: "Call `options.onProgress(total, total)` at the end, also after a retry.",
  },
  {
    name: "calls may overlap",
    async verify(bench) {
      const files = Array.from({ length: 6 }, (_, index) =>
        roundTrip(bench, `file-${index}`, noise(200_000 + index)),
      );
      const commands = Array.from({ length: 4 }, (_, index) => bench.run(`test ${index} -eq ${index}`));
      await allEnded([...files, ...commands]);
    },
    advice:
      "Share no temporary name between calls, and let concurrent requests wait for each other if they must.",
  },
  {
    name: "large files travel at once, where the client says that they may",
    async verify(bench) {
      if (bench.client.allowConcurrentSyncOperations !== true) return;
      bench.abilities.partsAtOnce = true;
      const bytes = noise(PART_BYTES);
      await allEnded([1, 2, 3, 4].map((part) => roundTrip(bench, `part-${part}`, bytes)));
    },
    advice: "Leave `allowConcurrentSyncOperations` out if one transfer disturbs another.",
  },
  {
    name: "a transfer that is aborted rejects with the reason and leaves nothing",
    async verify({ client, folder, run, abilities }) {
      const file = path.posix.join(folder, "file");
      const bytes = noise(LARGE_BYTES);
      const early = new AbortController();
      early.abort(new Error("no longer wanted"));
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(new Error("no longer wanted")), 20);
      for (const { signal } of [early, late]) {
        const outcome = await rejectionOf(() => client.writeFile(file, bytes.slice(0), { signal }));
        // A client may ignore the signal: the transfer then goes on, and its outcome is ignored.
        if (outcome === undefined) continue;
        mustBeReason(outcome.reason, signal, "writeFile");
        abilities.signal = true;
        await run(
          `for look in 1 2 3 4 5; do test -z "$(ls -A ${quoted(folder)})" && exit 0; sleep 1; done; ` +
            `ls -A ${quoted(folder)} >&2; exit 1`,
        );
      }
      clearTimeout(timer);
      await client.writeFile(file, noise(1_000));
      const reading = await rejectionOf(() => client.readFile(file, { signal: early.signal }));
      if (reading !== undefined) mustBeReason(reading.reason, early.signal, "readFile");
    },
    advice:
      "Hand the signal on to what transfers, write under another name that you remove after a failure, and reject " +
      "with `signal.reason` itself.",
  },
  {
    name: "a command that is aborted ends, and rejects with the reason",
    async verify({ client, folder, run, abilities }) {
      const beat = path.posix.join(folder, "beat");
      const command = `for n in 1 2 3 4 5 6 7 8; do echo "$n" > ${quoted(beat)}; sleep 1; done`;
      const controller = new AbortController();
      const timer = setTimeout(() => controller.abort(new Error("no longer wanted")), 1_500);
      const { signal } = controller;
      const outcome = await rejectionOf(() => client.run(command, { timeoutMs: AMPLE_MS, signal }));
      clearTimeout(timer);
      if (outcome === undefined) return;
      mustBeReason(outcome.reason, signal, "run");
      abilities.signal = true;
      await run(
        `sleep 1; cp ${quoted(beat)} ${quoted(`${beat}.1`)}; sleep 2; cmp ${quoted(beat)} ${quoted(`${beat}.1`)}`,
      );
    },
    advice:
      "End the command's processes in the sandbox, not only the waiting, and reject with `signal.reason` itself.",
  },
  {
    name: "an error that stays is not called retryable",
    async verify({ client, folder, abilities }) {
      const file = path.posix.join(folder, "missing");
      const error = await mustReject("readFile", () => client.readFile(file));
      const { retryable } = /** @type {{ retryable?: unknown }} */ (Object(error));
      if (retryable === true) throw new Error("the error of a missing file has `retryable: true`");
      abilities.retryable = typeof retryable === "boolean";
    },
    advice: "Set `retryable: true` only where the same call may succeed when it is made again.",
  },
  {
    name: "run rejects when the command fails, with the exit code and the error output",
    async verify({ client }) {
      const command = "echo what-went-wrong >&2; exit 37";
      const message = messageOf(await mustReject("run", () => client.run(command, { timeoutMs: AMPLE_MS })));
      for (const part of ["37", "what-went-wrong"]) {
        if (!message.includes(part)) throw new Error(`the message does not hold ${part}: ${message}`);
      }
    },
    advice: "Reject unless the exit code is 0, with it and the end of the error output in the message.",
  },
  {
    name: "run takes a command that prints a lot",
    async verify({ run }) {
      const output = "head -c 4000000 /dev/zero | tr '\\0' 'x'";
      await run(`${output} && ${output} >&2`);
    },
    advice: "Read all that a command prints and keep only the end of it. A full pipe stops the command.",
  },
  {
    name: "a failing part of a command fails it, and nothing carries over to the next one",
    async verify({ client, run }) {
      await mustReject("run", () => client.run("cd / && false && true", { timeoutMs: AMPLE_MS }));
      await client.run("umask 077; leftover=1; set -e", { timeoutMs: AMPLE_MS });
      await run('test -z "$leftover"');
    },
    advice: "Run each command in a shell of its own (`sh -c`), not in a session that all of them share.",
  },
  {
    name: "the shell has what preparing and restoring use",
    async verify({ folder, run }) {
      // Quoted twice, as the commands of prepare and restore are.
      const script = [
        `cd ${quoted(folder)}`,
        "mkdir -p tree/sub 'tree/keep me'",
        "echo content > tree/sub/file",
        "tar -cf all.tar -C tree .",
        "find tree -mindepth 1 -maxdepth 1 ! -name 'keep me' -exec rm -rf -- {} +",
        "test ! -e tree/sub",
        "test -d 'tree/keep me'",
        "(umask 0 && tar -xpf all.tar -C tree)",
        'test "$(cat tree/sub/file)" = content',
        'test "$(wc -c < tree/sub/file)" -eq 8',
        "rm -f all.tar",
      ].join(" && ");
      await run(`sh -c ${quoted(script)}`);
    },
    advice:
      "Use an image with `sh`, `tar`, `find`, `wc` and `rm` (busybox has them), and hand the command on as it is.",
  },
  {
    name: "run keeps modes where the umask is 0",
    async verify({ folder, run }) {
      await run(
        `cd ${quoted(folder)} && mkdir from to && touch from/file && chmod 0666 from/file && ` +
          "tar -cf t.tar -C from file && " +
          "(umask 0 && tar -xpf t.tar -C to) && test \"$(ls -l to/file | cut -c 1-10)\" = '-rw-rw-rw-'",
      );
    },
    advice: "Use a file system with Unix modes for the workspace, and let commands set their own umask.",
  },
  {
    name: "run ends a command that takes too long, and rejects",
    async verify({ client, folder, run, limitMs }) {
      const beat = path.posix.join(folder, "beat");
      const endless = `for n in $(seq 60); do echo "$n" > ${quoted(beat)}; sleep 1; done`;
      await run(`echo 0 > ${quoted(beat)}`);
      const graceMs = Math.min(30_000, limitMs / 2);
      const rejected = mustReject("run", () => client.run(endless, { timeoutMs: 2_000 }));
      await withLimit(
        rejected,
        graceMs,
        `it was still waiting ${graceMs / 1000} s after it was called with a limit of 2 s`,
      );
      // The loop writes each second. Once it has ended, two looks a while apart find the same. How soon that is
      // depends on the machine, and a pause that is made as the loop makes its own is as slow as those.
      const pause = "sleep 1; sleep 1; sleep 1";
      await run(
        `cd ${quoted(folder)} && for look in 1 2 3 4 5; do ${pause}; cmp -s beat before && exit 0; cp beat before; ` +
          "done; echo 'it still goes on' >&2; exit 1",
      );
    },
    advice:
      "Honour `timeoutMs`, and end the processes too (`timeout -s KILL` in the sandbox does): a command that " +
      "runs on unnoticed writes into the workspace while the next one works on it.",
  },
];

/**
 * @param {Client | (() => Client | Promise<Client>)} clientOrCreate
 * @param {import("./conformance.js").ConformanceOptions} options
 * @returns {Promise<import("./conformance.js").ConformanceResult>}
 */
async function checkSandboxClient(clientOrCreate, options) {
  const {
    workDir,
    only,
    log = console.log,
    limitMs = DEFAULT_LIMIT_MS,
  } = checkedNames(options, ["workDir", "only", "log", "limitMs"]);
  const base = path.posix.join(checkedPath(workDir), `conformance-${crypto.randomUUID()}`);
  const limit = checkedDuration("limitMs", limitMs);
  const unknown = only?.find((wanted) => !CHECKS.some(({ name }) => name === wanted));
  if (unknown !== undefined) throw invalidArgument("only", "must hold names of checks", unknown);
  const checks = CHECKS.filter(({ name }) => only?.includes(name) ?? true);
  const client = typeof clientOrCreate === "function" ? await clientOrCreate() : clientOrCreate;
  /** @type {import("./conformance.js").ConformanceFailure[]} */
  const failures = [];
  /** @type {import("./conformance.js").ClientAbilities} */
  const abilities = { progress: false, partsAtOnce: false, signal: false, retryable: false };
  const rows = [];

  for (const [index, { name, verify, advice }] of checks.entries()) {
    const folder = path.posix.join(base, String(index));
    const bench = {
      client,
      folder,
      limitMs: limit,
      abilities,
      run: (/** @type {string} */ script) => client.run(script, { timeoutMs: AMPLE_MS }),
    };
    const start = performance.now();
    let mark = "✓";
    try {
      await withLimit(verified(verify, bench), limit, `it did not end within ${limit / 1000} s`);
    } catch (error) {
      mark = "✗";
      failures.push({ check: name, problem: messageOf(error), advice });
      log(`✗ ${name}\n    ${messageOf(error).replaceAll("\n", "\n    ")}\n    → ${advice}`);
    }
    rows.push(`${mark} ${((performance.now() - start) / 1000).toFixed(1).padStart(6)} s  ${name}`);
  }

  try {
    await withLimit(Promise.resolve(client.remove(base)), limit, "it did not end");
  } catch (error) {
    log(`! ${base} is left over: ${messageOf(error)}`);
  }
  const found = Object.entries(abilities).map(([name, has]) => `${has ? "+" : "-"} ${ABILITIES[name]}`);
  log(`\n${rows.join("\n")}\n\nOptional abilities (+ found, - not found):\n${found.join("\n")}\n`);
  log(`${checks.length - failures.length} of ${checks.length} checks passed.`);
  return { passed: failures.length === 0, failures, abilities };
}

/**
 * What the table calls the optional abilities.
 *
 * @type {Record<string, string>}
 */
const ABILITIES = {
  progress: "reports the progress of transfers",
  partsAtOnce: "moves several files at once (allowConcurrentSyncOperations)",
  signal: "stops when its signal aborts",
  retryable: "says of an error whether the same call may succeed later (retryable)",
};

/**
 * @param {Check["verify"]} verify
 * @param {Bench} bench
 */
async function verified(verify, bench) {
  await bench.client.makeDir(bench.folder);
  await verify(bench);
}

/**
 * Writes `bytes` as `name`, and compares what the sandbox holds and what it returns with them.
 *
 * @param {Bench} bench
 * @param {string} name
 * @param {ArrayBuffer} bytes
 */
async function roundTrip({ client, folder, run }, name, bytes) {
  const file = path.posix.join(folder, name);
  await client.writeFile(file, bytes.slice(0));
  // The sandbox itself computes the digest: a client might answer from a cache.
  await run(`test "$(wc -c < ${quoted(file)})" -eq ${bytes.byteLength}`);
  const returned = await client.readFile(file);
  if (!(returned instanceof Uint8Array) && !(returned instanceof ArrayBuffer)) {
    throw new Error(`readFile answered with ${typeof returned}, not a Buffer, Uint8Array or ArrayBuffer`);
  }
  if (returned.byteLength !== bytes.byteLength) {
    throw new Error(`${returned.byteLength} of ${bytes.byteLength} bytes returned`);
  }
  if (digest(returned) !== digest(bytes)) throw new Error("other bytes returned than were written");
}

/**
 * Waits until all of `works` have ended, and then fails as the first of them that failed: what still ran would
 * write into a folder that the checks remove meanwhile.
 *
 * @param {Promise<unknown>[]} works
 */
async function allEnded(works) {
  const outcomes = await Promise.allSettled(works);
  const failed = outcomes.find(({ status }) => status === "rejected");
  if (failed?.status === "rejected") throw failed.reason;
}

/**
 * Content in which every byte value occurs and no two parts are alike, the same at each call.
 *
 * @param {number} length in bytes
 */
function noise(length) {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = 0x9e3779b9;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return words.buffer.slice(0, length);
}

/** @param {ArrayBuffer | Uint8Array} bytes */
function digest(bytes) {
  return createHash("sha256")
    .update(bytes instanceof ArrayBuffer ? new Uint8Array(bytes) : bytes)
    .digest("hex");
}

/**
 * What `call` fails with.
 *
 * @param {string} method
 * @param {() => unknown} call
 * @returns {Promise<unknown>}
 */
async function mustReject(method, call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error(`${method} did not reject`);
}

/**
 * What `call` fails with. Undefined where it succeeds.
 *
 * @param {() => unknown} call
 * @returns {Promise<{ reason: unknown } | undefined>}
 */
async function rejectionOf(call) {
  try {
    await call();
    return undefined;
  } catch (reason) {
    return { reason };
  }
}

/**
 * @param {unknown} reason
 * @param {AbortSignal} signal
 * @param {string} method
 */
function mustBeReason(reason, signal, method) {
  if (!signal.aborted) throw reason;
  if (reason !== signal.reason) {
    throw new Error(`${method} rejected with something else than the signal's reason: ${messageOf(reason)}`);
  }
}

/**
 * What `call` answers, unless buffers took more memory meanwhile, above what they took before.
 *
 * @template T
 * @param {string} method
 * @param {number} most in bytes
 * @param {() => Promise<T>} call
 * @returns {Promise<T>}
 */
async function mustTakeAtMost(method, most, call) {
  const before = process.memoryUsage().arrayBuffers;
  let highest = 0;
  const look = () => {
    highest = Math.max(highest, process.memoryUsage().arrayBuffers - before);
  };
  const timer = setInterval(look, 5);
  try {
    const answer = await call();
    look();
    if (highest > most) {
      throw new Error(
        `${method} took ${Math.round(highest / 1e6)} MB in buffers, more than ${Math.round(most / 1e6)}`,
      );
    }
    return answer;
  } finally {
    clearInterval(timer);
  }
}

/**
 * @param {[number, number | null][]} reports
 * @param {number} total
 * @param {string} method
 */
function mustEndComplete(reports, total, method) {
  const last = reports.at(-1);
  // A client may do without progress: it is for people to look at.
  if (last !== undefined && (last[0] !== total || last[1] !== total)) {
    throw new Error(`the last progress of ${method} was (${last.join(", ")}), not (${total}, ${total})`);
  }
}

/**
 * @template T
 * @param {Promise<T>} work
 * @param {number} limitMs
 * @param {string} problem
 * @returns {Promise<T>}
 */
async function withLimit(work, limitMs, problem) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(problem)), limitMs);
  });
  try {
    return await Promise.race([work, /** @type {Promise<never>} */ (limit)]);
  } finally {
    clearTimeout(timer);
  }
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

module.exports = { checkSandboxClient };
