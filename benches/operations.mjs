// The measured operations: how a program does each with this package and with the npm release, the public tool that it is
// compared with, and how the outcome is checked.

import { readFile } from "node:fs/promises";
import { expectArchive, expectSameTree, expectSnapshot, expectState, tamper } from "./judge.mjs";
import { KeepingClient, specOf } from "./client.mjs";
import { forgetGarbage } from "./probe.mjs";
import { quote } from "./shell.mjs";

/**
 * The files of one contestant.
 *
 * @typedef {object} Places
 * @property {string} workspace The workload. It is not changed.
 * @property {(state: import("./workloads.mjs").State) => string} download The archive that a sandbox in that state
 *   would give.
 * @property {string} copy The contestant's own copy of the workspace.
 * @property {string} target A folder to fill.
 * @property {string} archive A file to write.
 * @property {string} judged A folder for the checks.
 */

/**
 * One measurement.
 *
 * @typedef {object} Trial
 * @property {() => Promise<unknown>} run What is timed.
 * @property {() => Promise<void>} [verify] Throws if the outcome is wrong. May `run` again.
 * @property {() => number} [archiveBytes] The size of the archive that went to or came from the client.
 */

/**
 * @typedef {object} Operation
 * @property {string} title
 * @property {Record<string, number>} toolTargets By workload: how long it may take, as a multiple of the tool's time.
 * @property {Record<string, number>} [releaseTargets] By workload: how many times as fast as the npm release it is to
 *   be.
 * @property {string} toolTitle
 * @property {"nothing" | "copy" | "target" | "empty target"} needs What must exist before a program runs: `copy`, or
 *   `target` as a copy of the workspace, or an empty one.
 * @property {"nothing" | "target" | "empty target"} toolNeeds The same for the tool.
 * @property {boolean} keeps Whether what it needs is unchanged afterwards, so it can be used again.
 * @property {import("./workloads.mjs").State[]} states The states whose downloads it reads, in a run or in its check.
 * @property {boolean} [hasMemoryTarget] Whether its memory has a target.
 * @property {(api: Api, at: Places) => Promise<Trial>} program
 * @property {(at: Places) => { command: string, verify?: () => Promise<void> }} tool
 */

/**
 * The functions that are measured, as this package exports them. The npm release has them too, except the last.
 *
 * @typedef {Pick<typeof import("../index.js"), "prepareSandboxManagedRuntime" | "mirrorDirectory" |
 *   "captureDirectorySnapshot" | "createTarballFromDirectory">} Api
 */

/** The single pass of a public tool over the workspace: read everything, archive it, drop it. */
const packAndDrop = (/** @type {Places} */ at) => ({
  command: `tar -cf - -C ${quote(at.workspace)} . | cat > /dev/null`,
});

const PACK_AND_DROP = "tar -cf - | cat > /dev/null";

/**
 * Uploads a workspace to a sandbox that keeps the bytes.
 *
 * @param {Api} api
 * @param {KeepingClient} client
 * @param {string} workspaceLocalDir
 */
function prepare(api, client, workspaceLocalDir) {
  return api.prepareSandboxManagedRuntime({
    spec: specOf("/workspace"),
    adapterKey: "bench",
    client,
    workspaceLocalDir,
  });
}

/**
 * @param {import("./workloads.mjs").State} state What the sandbox did since the upload.
 * @returns {Operation["program"]}
 */
const restore = (state) => async (api, at) => {
  const client = new KeepingClient();
  const prepared = await prepare(api, client, at.copy);
  client.parts.length = 0;
  forgetGarbage();
  client.download = await readFile(at.download(state));
  const { byteLength } = client.download;
  return {
    run: () => prepared.restoreWorkspace(),
    archiveBytes: () => byteLength,
    verify: async () => {
      await expectState(at, state);
      if (state !== "unchanged") return;
      // An operation that does nothing would look right. So the same session must restore a change, too.
      client.download = await readFile(at.download("few"));
      await prepared.restoreWorkspace();
      await expectState(at, "few");
    },
  };
};

/**
 * @param {() => Promise<unknown>} run Mirrors the workspace into the target.
 * @param {Places} at
 * @returns {() => Promise<void>}
 */
const verifyMirrorAgain = (run, at) => async () => {
  await expectSameTree(at.workspace, at.target);
  // A change that is visible only by reading the file.
  await tamper(at.target);
  await run();
  await expectSameTree(at.workspace, at.target);
};

/** @type {Record<string, Operation>} */
export const OPERATIONS = {
  prepare: {
    title: "prepare (hashing included)",
    toolTargets: { src: 0.9, big: 1.5, mono: 0.9 },
    releaseTargets: { src: 12, big: 6, mono: 12 },
    toolTitle: PACK_AND_DROP,
    needs: "nothing",
    toolNeeds: "nothing",
    keeps: true,
    states: [],
    hasMemoryTarget: true,
    program: async (api, at) => {
      const client = new KeepingClient();
      return {
        run: () => prepare(api, client, at.workspace),
        archiveBytes: () => client.uploadedBytes(),
        verify: () => expectArchive(client.uploadedBytesOnDisk(at.archive), at),
      };
    },
    tool: packAndDrop,
  },
  "restore-unchanged": {
    title: "restore, nothing changed",
    toolTargets: { src: 0.5, big: 1.0, mono: 0.5 },
    releaseTargets: { src: 60, big: 6, mono: 60 },
    toolTitle: PACK_AND_DROP,
    needs: "copy",
    toolNeeds: "nothing",
    keeps: true,
    states: ["unchanged", "few"],
    hasMemoryTarget: true,
    program: restore("unchanged"),
    tool: packAndDrop,
  },
  "restore-few": {
    title: "restore, 1 % of files changed",
    toolTargets: { src: 0.7, mono: 0.7 },
    toolTitle: PACK_AND_DROP,
    needs: "copy",
    toolNeeds: "nothing",
    keeps: false,
    states: ["few"],
    hasMemoryTarget: true,
    program: restore("few"),
    tool: packAndDrop,
  },
  "restore-all": {
    title: "restore, everything changed",
    toolTargets: { src: 1.3, big: 1.3, mono: 1.3 },
    toolTitle: "tar -xf FILE -C EMPTY",
    needs: "copy",
    toolNeeds: "empty target",
    keeps: false,
    states: ["all"],
    hasMemoryTarget: true,
    program: restore("all"),
    tool: (at) => ({ command: `tar -xf ${quote(at.download("all"))} -C ${quote(at.target)}` }),
  },
  tarball: {
    title: "createTarballFromDirectory",
    toolTargets: { src: 0.9, big: 1.1, mono: 0.9 },
    toolTitle: "tar -cf FILE",
    needs: "nothing",
    toolNeeds: "nothing",
    keeps: false,
    states: [],
    program: async (api, at) => ({
      run: () => api.createTarballFromDirectory({ localDir: at.workspace, archivePath: at.archive }),
      verify: () => expectArchive(at.archive, at),
    }),
    tool: (at) => ({
      command: `tar -cf ${quote(at.archive)} -C ${quote(at.workspace)} .`,
      verify: () => expectArchive(at.archive, at),
    }),
  },
  snapshot: {
    title: "captureDirectorySnapshot",
    toolTargets: { src: 0.6, big: 1.0, mono: 0.6 },
    toolTitle: "find -print0 | xargs -0 -P2 sha256sum",
    needs: "nothing",
    toolNeeds: "nothing",
    keeps: true,
    states: [],
    program: async (api, at) => {
      /** @type {import("../index.js").DirectorySnapshot | undefined} */
      let snapshot;
      return {
        run: async () => (snapshot = await api.captureDirectorySnapshot(at.workspace)),
        verify: () => expectSnapshot(snapshot, at.workspace),
      };
    },
    tool: (at) => ({
      command: `find ${quote(at.workspace)} -type f -print0 | xargs -0 -P2 sha256sum > /dev/null`,
    }),
  },
  "mirror-first": {
    title: "mirrorDirectory, first time",
    toolTargets: { src: 1.0, big: 1.0, mono: 1.0 },
    toolTitle: "cp -a",
    needs: "nothing",
    toolNeeds: "nothing",
    keeps: false,
    states: [],
    program: async (api, at) => ({
      run: () => api.mirrorDirectory(at.workspace, at.target),
      verify: () => expectSameTree(at.workspace, at.target),
    }),
    tool: (at) => ({
      command: `cp -a ${quote(at.workspace)} ${quote(at.target)}`,
      verify: () => expectSameTree(at.workspace, at.target),
    }),
  },
  "mirror-unchanged": {
    title: "mirrorDirectory, nothing changed",
    toolTargets: { src: 0.7, big: 0.7, mono: 0.7 },
    releaseTargets: { src: 12, mono: 12 },
    toolTitle: "rsync -a --checksum --delete",
    needs: "target",
    toolNeeds: "target",
    keeps: true,
    states: [],
    program: async (api, at) => {
      const run = () => api.mirrorDirectory(at.workspace, at.target);
      return { run, verify: verifyMirrorAgain(run, at) };
    },
    tool: (at) => ({
      command: `rsync -a --checksum --delete ${quote(`${at.workspace}/`)} ${quote(`${at.target}/`)}`,
      verify: () => expectSameTree(at.workspace, at.target),
    }),
  },
};
