// What agents, providers and connections do by accident: no restore may take it for the agent's work, or fail because of it.

import { randomBytes } from "node:crypto";
import { chmod, cp, mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { createLocalClient } from "../clients/local.js";
import { prepareSandboxManagedRuntime, resumeSandboxManagedRuntime } from "../index.js";
import { describeTree, makeTree, temporaryFolder } from "./support/folders.mjs";
import { commandFolder, LocalSandbox, remoteWorkspace } from "./support/sandbox.mjs";
import { specFor } from "./support/spec.mjs";

const RUNTIME = ".paperclip-runtime";

let workspace, remote, client, reports, prepares;

beforeEach(async () => {
  process.env.PAPERCLIP_HOME = path.join(await temporaryFolder(), "home");
  workspace = path.join(await temporaryFolder(), "workspace");
  await makeTree(workspace, { "a.txt": "a", "sub/b.txt": "b" });
  remote = await remoteWorkspace();
  client = new LocalSandbox();
  [reports, prepares] = [[], []];
});

const input = (more) => ({
  spec: specFor(remote),
  adapterKey: "test",
  client,
  workspaceLocalDir: workspace,
  onReport: (report) => void reports.push(report),
  onPrepareReport: (report) => void prepares.push(report),
  ...more,
});
const prepare = (more) => prepareSandboxManagedRuntime(input(more));
const here = () => describeTree(workspace, { without: RUNTIME });
const there = () => describeTree(remote, { without: RUNTIME });
const edit = (name, text) => writeFile(path.join(remote, name), text);

/** A client whose `tar` is this script, in which `$real` is the real one. */
async function withTar(script) {
  const folder = path.join(await temporaryFolder(), "bin");
  await mkdir(folder);
  await writeFile(path.join(folder, "tar"), `#!/bin/sh\nreal=/bin/tar\n${script}\n`);
  await chmod(path.join(folder, "tar"), 0o755);
  return new LocalSandbox({ path: `${folder}:${process.env.PATH}` });
}

describe("a sandbox that is rolled back within an upload", () => {
  const snapshot = () => cp(remote, `${remote}-snapshot`, { recursive: true, preserveTimestamps: true });
  const rollBack = async () => {
    await rm(remote, { recursive: true });
    await rename(`${remote}-snapshot`, remote);
  };

  it.each([
    ["", {}, false],
    [", where everything is transferred", { transfer: "full" }, false],
    [", of a session that is resumed", {}, true],
  ])("deletes nothing, and replaces nothing without a backup%s", async (_, more, isResumed) => {
    let prepared = await prepare(more);
    await edit("early.txt", "early");
    await prepared.restoreWorkspace();
    await snapshot();
    await edit("a.txt", "edited");
    await edit("new.txt", "new");
    await prepared.restoreWorkspace();
    await rollBack();
    await edit("later.txt", "later");
    if (isResumed) prepared = await resumeSandboxManagedRuntime(input(more));
    await prepared.restoreWorkspace(undefined, { dryRun: true });
    expect(reports.at(-1)).toMatchObject({ deleted: [], conflicts: [{ path: "a.txt" }] });
    await prepared.restoreWorkspace();
    expect(reports.at(-1)).toMatchObject({ deleted: [], transfer: "full" });
    expect(await here()).toMatchObject({ "a.txt": "644 a", "later.txt": "644 later", "new.txt": "644 new" });
    const [{ keptAt }] = reports.at(-1).conflicts;
    expect(await readFile(path.join(workspace, keptAt), "utf8")).toBe("edited");
    // After that it is a sandbox like any other.
    await edit("a.txt", "again");
    await rm(path.join(remote, "later.txt"));
    await prepared.restoreWorkspace();
    expect(reports.at(-1)).toMatchObject({ written: ["a.txt"], deleted: ["later.txt"], conflicts: [] });
  });

  it("to a state from before a dry run, or a restore that brought nothing, is served", async () => {
    const prepared = await prepare();
    await snapshot();
    await prepared.restoreWorkspace();
    await prepared.restoreWorkspace(undefined, { dryRun: true });
    await rollBack();
    await edit("a.txt", "edited");
    await prepared.restoreWorkspace();
    expect(await here()).toMatchObject({ "a.txt": "644 edited" });
  });
});

describe("a sandbox that is the same is served", () => {
  it("where a restore failed after the sandbox had packed", async () => {
    const prepared = await prepare();
    await edit("a.txt", "1");
    await prepared.restoreWorkspace();
    const { readFile: read } = client;
    client.readFile = () => Promise.reject(new Error("cut"));
    await edit("a.txt", "2");
    await expect(prepared.restoreWorkspace()).rejects.toThrow("cut");
    client.readFile = read;
    await prepared.restoreWorkspace();
    expect(await here()).toMatchObject({ "a.txt": "644 2" });
  });

  it("where two sessions of one upload restore by turns", async () => {
    const one = await prepare();
    const other = await resumeSandboxManagedRuntime(input());
    for (const [at, session] of [one, one, other, one, other].entries()) {
      await edit("a.txt", `${at}`);
      await session.restoreWorkspace();
      expect(await here()).toMatchObject({ "a.txt": `644 ${at}` });
    }
  });

  it("where the agent removed all that it knew, and again after that", async () => {
    const prepared = await prepare();
    for (const at of [1, 2, 3, 4]) {
      await edit("a.txt", `${at}`);
      await prepared.restoreWorkspace();
      if (at === 2) await rm(path.join(remote, RUNTIME), { recursive: true });
      expect(await here()).toMatchObject({ "a.txt": `644 ${at}` });
    }
  });
});

it("an edit of all files by the agent is not one of what a restore leaves out", async () => {
  await makeTree(workspace, { "vendor/lib.js": "lib", "cache/x": "x", "src/cache.js": "the cache" });
  const { restoreWorkspace } = await prepare({ workspaceExclude: ["cache"] });
  await client.agent(`cd '${remote}' && grep -rl cache . | xargs sed -i s/cache/vendor/g`);
  await restoreWorkspace();
  expect(await here()).toMatchObject({ "vendor/lib.js": "644 lib", "src/cache.js": "644 the vendor" });
  expect(reports.at(-1)).toMatchObject({ written: ["src/cache.js"], deleted: [] });
});

it("after a restore that tolerated a failure of tar only changes are transferred again", async () => {
  const busy = path.join(await temporaryFolder(), "busy");
  const say = `echo "tar: a.txt: file changed as we read it" >&2; exit 1`;
  client = await withTar(`$real "$@" || exit\ncase $1 in -cf) [ ! -e ${busy} ] || { ${say}; } ;; esac`);
  const { restoreWorkspace } = await prepare();
  await writeFile(busy, "");
  await edit("a.txt", "edited");
  await restoreWorkspace();
  await rm(busy);
  for (const at of [1, 2, 3]) {
    await edit("a.txt", `${at}`);
    await restoreWorkspace();
  }
  expect(reports.map(({ transfer }) => transfer)).toStrictEqual(["full", "full", "changes", "changes"]);
  expect(reports.map(({ tolerant }) => tolerant)).toStrictEqual([true, false, false, false]);
});

it.each([
  ["instead of what has changed, since a file had vanished", "one.tmp"],
  ["because there was no index", null],
])(
  "what is made while everything is packed %s is deleted once the sandbox has deleted it",
  async (_, gone) => {
    const busy = path.join(await temporaryFolder(), "busy");
    const make = `cd ${remote}/sub && mkdir -p obj && echo o >obj/x.o && echo two >two.tmp`;
    const vanish = gone ? `rm -f ${remote}/${gone};` : "";
    client = await withTar(
      `case $1 in -cf) [ ! -e ${busy} ] || { ${vanish} (${make}); } ;; esac\nexec $real "$@"`,
    );
    const prepared = await prepare();
    if (gone) await edit(gone, "one");
    else await client.agent(`rm ${remote}/${RUNTIME}/test/.paperclip/*/index.*`);
    await writeFile(busy, "");
    await prepared.restoreWorkspace();
    await rm(busy);
    expect(await here()).toStrictEqual(await there());
    await rm(path.join(remote, "sub/obj"), { recursive: true });
    await rm(path.join(remote, "sub/two.tmp"));
    await prepared.restoreWorkspace();
    expect(await here()).toStrictEqual(await there());
  },
);

describe("a command that fails for a moment is repeated", () => {
  /** @param {(command: string) => boolean} isMeant */
  function failOnce(isMeant) {
    const local = client;
    let [failures, runs] = [2, 0];
    client = Object.create(local, {});
    for (const name of ["makeDir", "writeFile", "readFile", "remove"]) client[name] = local[name].bind(local);
    client.run = async (command, options) => {
      if (!isMeant(command)) return local.run(command, options);
      runs += 1;
      if (failures-- > 0) throw Object.assign(new Error("reset"), { retryable: true });
      return local.run(command, options);
    };
    return () => runs;
  }

  it("where it packs a download", async () => {
    const runs = failOnce((command) => / download \S+ \S+ /.test(command));
    const { restoreWorkspace } = await prepare();
    await edit("a.txt", "edited");
    await restoreWorkspace();
    expect(runs()).toBe(3);
    expect(reports.at(-1)).toMatchObject({ transfer: "changes", tolerant: false, written: ["a.txt"] });
  });

  it("where it looks for changes before an upload", async () => {
    const runs = failOnce((command) => / changed \S+ \S+/.test(command));
    await prepare();
    await makeTree(workspace, { "a.txt": "local" });
    await prepare();
    expect(runs()).toBe(3);
    expect(prepares.at(-1).archives[0].transfer).toBe("changes");
    expect(await there()).toMatchObject({ "a.txt": "644 local" });
  });
});

it.each(["noclobber", "nounset", "errexit", "noclobber:nounset:noglob"])(
  "options of bash in its environment change nothing: %s",
  async (options) => {
    const bin = path.join(await temporaryFolder(), "bin");
    await mkdir(bin);
    await symlink("/bin/bash", path.join(bin, "sh"));
    const env = { SHELLOPTS: options, PATH: `${bin}:${process.env.PATH}` };
    client = createLocalClient({ shell: path.join(bin, "sh"), env });
    for (const at of [1, 2]) {
      const { restoreWorkspace } = await prepare();
      await edit("a.txt", `${at}`);
      await restoreWorkspace();
      expect(await here()).toMatchObject({ "a.txt": `644 ${at}` });
    }
    expect(prepares.at(-1).archives[0].transfer).toBe("changes");
  },
);

it("where its tar is toybox's, and other commands write in pieces, an upload in parts arrives whole", async () => {
  const applets = await commandFolder({ appletsOf: "toybox", sh: "dash" });
  const inPieces = path.join(await temporaryFolder(), "in-pieces");
  await mkdir(inPieces);
  for (const name of ["tail", "cat"]) {
    const script = `#!/bin/sh\nPATH=${process.env.PATH}\n'${applets}/${name}' "$@" | { head -c 100; sleep 0.1; cat; }\n`;
    await writeFile(path.join(inPieces, name), script, { mode: 0o755 });
  }
  client = new LocalSandbox({ path: `${inPieces}:${applets}` });
  await writeFile(path.join(workspace, "large"), randomBytes(150_000));
  await prepare({ compression: "none", partBytes: 64 * 1024 });
  expect(await there()).toStrictEqual(await here());
});
