// The demo's stand-in for an agent: which files it works on, and what it does in the sandbox, as a shell script.

import { isText, readableName } from "./tree.mjs";

/**
 * What is done to a workspace. Names are relative paths; one that is `undefined` found no file to be done to.
 *
 * @typedef {object} Tasks
 * @property {string | undefined} edited Edited on both sides.
 * @property {string | undefined} deleted
 * @property {string | undefined} toggled Has its executable bit changed.
 * @property {"+x" | "-x"} toggle
 * @property {string} folder A new folder, for a new file.
 * @property {string} link A new link to that folder.
 */

/**
 * Chooses what to work on: ordinary files near the top, each for one thing only.
 *
 * @param {import("./tree.mjs").Tree} tree
 * @returns {Tasks}
 */
export function chooseTasks(tree) {
  const depth = (/** @type {string} */ name) => name.split("/").length;
  const files = [...tree]
    .filter(([name, entry]) => entry.kind === "file" && isOrdinary(name, tree))
    .map(([name]) => readableName(name))
    .sort((a, b) => depth(a) - depth(b));
  const edited = files.find((name) => /^readme\b/i.test(name)) ?? files[0];
  const [deleted, toggled] = files.filter((name) => name !== edited);
  const isExecutable = toggled !== undefined && (tree.get(bytesOf(toggled))?.mode ?? 0) & 0o100;
  const folder = freeName(tree, "agent-notes");
  return {
    edited,
    deleted,
    toggled,
    toggle: isExecutable ? "-x" : "+x",
    folder,
    link: freeName(tree, "latest-notes"),
  };
}

/**
 * Whether a file is one that an agent would work on: outside of hidden and dependency folders, with a name that is text,
 * and writable together with the folders above it.
 *
 * @param {string} name
 * @param {import("./tree.mjs").Tree} tree
 */
function isOrdinary(name, tree) {
  const parts = name.split("/");
  if (!isText(name) || parts.some((part) => part.startsWith(".") || part === "node_modules")) return false;
  return parts.every((_, index) => {
    const mode = tree.get(parts.slice(0, index + 1).join("/"))?.mode ?? 0;
    return (mode & 0o200) !== 0;
  });
}

/**
 * A name at the top level that is not taken: the one wished for, or that with a number.
 *
 * @param {import("./tree.mjs").Tree} tree
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
    ...(toggled === undefined ? [] : [`chmod a${toggle} ${quoted(`./${toggled}`)}`]),
    `mkdir ${folder}`,
    `printf 'What I did, and why.\\n' > ${folder}/plan.md`,
    `ln -s ${folder} ${link}`,
  ].join(" && ");
}

/**
 * What was done, for a person to read.
 *
 * @param {Tasks} tasks
 * @returns {[string, string][]}
 */
export function describeTasks({ edited, deleted, toggled, toggle, folder, link }) {
  return [
    ["the agent edits", edited ?? "nothing: there is no file to edit"],
    ["        deletes", deleted ?? "nothing"],
    ["         chmods", toggled === undefined ? "nothing" : `${toggled} (a${toggle})`],
    ["           adds", `${folder}/plan.md`],
    ["          links", `${link} -> ${folder}`],
    ["meanwhile, here", edited === undefined ? "nothing" : `${edited} is edited, too`],
  ];
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {string} name */
function bytesOf(name) {
  return Buffer.from(name, "utf8").toString("latin1");
}
