// A workload's folder with everything that its measurements need.

import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { quote, shell } from "./shell.mjs";
import { writeTree } from "./workloads.mjs";

/**
 * The paths of a contestant in a workload's folder.
 *
 * @param {string} folder
 * @param {string} contestant
 * @returns {import("./operations.mjs").Places}
 */
export function placesIn(folder, contestant) {
  const own = ownFolder(folder, contestant);
  return {
    workspace: path.join(folder, "workspace"),
    download: (state) => path.join(folder, "downloads", `${state}.tar`),
    copy: path.join(own, "copy"),
    target: path.join(own, "target"),
    archive: path.join(own, "archive.tar"),
    judged: path.join(own, "judged"),
  };
}

const ownFolder = (/** @type {string} */ folder, /** @type {string} */ contestant) =>
  path.join(folder, "contestants", contestant);

/** Removes a folder with all that is in it. */
export const remove = (/** @type {string} */ folder) => rm(folder, { recursive: true, force: true });

/** One workload on a file system. */
export class Stand {
  /**
   * @param {string} folder
   * @param {import("./workloads.mjs").Workload} workload
   */
  constructor(folder, workload) {
    this.folder = folder;
    this.workload = workload;
    /** @type {Set<import("./workloads.mjs").State>} */
    this.downloads = new Set();
  }

  /** Writes the workspace. */
  async build() {
    await mkdir(path.join(this.folder, "downloads"), { recursive: true });
    await writeTree(this.workload, placesIn(this.folder, "").workspace);
  }

  /**
   * Makes sure that exactly these downloads exist.
   *
   * @param {import("./workloads.mjs").State[]} states
   */
  async provide(states) {
    const { download } = placesIn(this.folder, "");
    for (const state of this.downloads) {
      if (!states.includes(state)) await this.#withdraw(state);
    }
    for (const state of states) {
      if (this.downloads.has(state)) continue;
      const tree = path.join(this.folder, "sandbox");
      await writeTree(this.workload, tree, state);
      await shell(`cd ${quote(tree)} && ls -A | tar -cf ${quote(download(state))} -T -`);
      await remove(tree);
      this.downloads.add(state);
    }
  }

  /** @param {import("./workloads.mjs").State} state */
  async #withdraw(state) {
    await remove(placesIn(this.folder, "").download(state));
    this.downloads.delete(state);
  }

  /**
   * Makes what a contestant needs for an operation, unless it still exists from the last one.
   *
   * @param {import("./operations.mjs").Operation} operation
   * @param {string} contestant
   */
  async furnish(operation, contestant) {
    const needs = contestant === "tool" ? operation.toolNeeds : operation.needs;
    const { workspace, copy, target } = placesIn(this.folder, contestant);
    const created = await mkdir(ownFolder(this.folder, contestant), { recursive: true });
    if (created === undefined) return;
    if (needs === "copy") await shell(`cp -a ${quote(workspace)} ${quote(copy)}`);
    if (needs === "target") await shell(`cp -a ${quote(workspace)} ${quote(target)}`);
    if (needs === "empty target") await mkdir(target);
  }

  /** @param {string} contestant */
  async clear(contestant) {
    await remove(ownFolder(this.folder, contestant));
  }
}
