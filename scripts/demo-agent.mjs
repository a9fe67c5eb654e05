// The demo's stand-in for an agent: which files it works on, and what it does in the sandbox, as a shell script.

import { isText, readableName } from "../__test__/support/tree.mjs";

/** @typedef {ReturnType<typeof chooseTasks>} Tasks Relative paths; one that is `undefined` found no file. */

/**
 * Chooses what to work on: ordinary files near the top, each for one thing only. Hidden files, dependencies, names that are
 * no text and what may not be written are none that an agent would work on.
 *
 * @param {import("../__test__/support/tree.mjs").Tree} tree
 */
export function chooseTasks(tree) {
  const depth = (/** @type {string} */ name) => name.split("/").length;
  const isOrdinary = (/** @type {string} */ name) => {
    const parts = name.split("/");
    const isHidden = parts.some((part) => part.startsWith(".") || part === "node_modules");
    const above = parts.map((_, index) => tree.get(parts.slice(0, index + 1).join("/"))?.mode ?? 0);
    return isText(name) && !isHidden && above.every((mode) => (mode & 0o200) !== 0);
  };
  const files = [...tree]
    .filter(([name, { kind }]) => kind === "file" && isOrdinary(name))
    .sort(([a], [b]) => depth(a) - depth(b))
    .map(([name, { mode }]) => ({ name: readableName(name), toggle: mode & 0o100 ? "a-x" : "a+x" }));
  const edited = files.find(({ name }) => /^readme\b/i.test(name)) ?? files[0];
  const [deleted, toggled] = files.filter((file) => file !== edited);
  return {
    edited: edited?.name,
    deleted: deleted?.name,
    toggled: toggled?.name,
    toggle: toggled?.toggle,
    folder: freeName(tree, "agent-notes"),
    link: freeName(tree, "latest-notes"),
  };
}

/**
 * A name at the top level that is not taken: the one wished for, or that with a number.
 *
 * @param {import("../__test__/support/tree.mjs").Tree} tree
 * @param {string} wish
 */
function freeName(tree, wish) {
  for (let number = 1; ; number += 1) {
    const name = number === 1 ? wish : `${wish}-${number}`;
    if (!tree.has(name)) return name;
  }
}

/**
 * What the agent runs.
 *
 * @param {Tasks} tasks
 * @param {string} workspace The workspace's folder in the sandbox.
 */
export function shellScript({ edited, deleted, toggled, toggle, folder, link }, workspace) {
  return [
    `cd ${quoted(workspace)}`,
    ...(edited === undefined
      ? []
      : [`printf '\\nA line written by the agent.\\n' >> ${quoted(`./${edited}`)}`]),
    ...(deleted === undefined ? [] : [`rm -- ${quoted(`./${deleted}`)}`]),
    ...(toggled === undefined ? [] : [`chmod ${toggle} ${quoted(`./${toggled}`)}`]),
    `mkdir ${folder}`,
    `printf 'What I did, and why.\\n' > ${folder}/plan.md`,
    `ln -s ${folder} ${link}`,
  ].join(" && ");
}

/** @param {Tasks} tasks What the agent does with git afterwards, in the same folder: a commit, and a hook. */
export function commitScript({ folder }) {
  const identity = "-c user.name=agent -c user.email=agent@example.org -c commit.gpgSign=false";
  return [
    `git add --force -- ${folder}`,
    `git ${identity} -c core.hooksPath=/dev/null commit --quiet --message="Notes of the agent" -- ${folder}`,
    "mkdir -p .git/hooks",
    "printf '#!/bin/sh\\necho gotcha\\n' > .git/hooks/post-checkout",
    "chmod +x .git/hooks/post-checkout",
  ].join(" && ");
}

/**
 * What was done, for a person to read.
 *
 * @param {Tasks} tasks
 * @param {boolean} hasGit
 * @returns {[string, string][]}
 */
export function describeTasks({ edited, deleted, toggled, toggle, folder, link }, hasGit) {
  return [
    ["the agent edits", edited ?? "nothing: there is no file to edit"],
    ["        deletes", deleted ?? "nothing"],
    ["         chmods", toggled === undefined ? "nothing" : `${toggled} (${toggle})`],
    ["           adds", `${folder}/plan.md`],
    ["          links", `${link} -> ${folder}`],
    ["        commits", hasGit ? folder : "nothing: there is no git on this machine"],
    ["         plants", hasGit ? "a git hook that would run here" : "nothing"],
    ["meanwhile, here", edited === undefined ? "nothing" : `${edited} is edited, too`],
  ];
}

const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", `'\\''`)}'`;
