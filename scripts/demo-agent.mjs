// The demo's stand-in for an agent: what it does in the sandbox, as a shell script and in words.

import { isText, readableName } from "../__test__/support/tree.mjs";

/** What the agent plants, to run on the machine that takes its work over. */
export const HOOK = ".git/hooks/post-checkout";

const COMMIT =
  "git -c user.name=agent -c user.email=agent@example.org -c commit.gpgSign=false -c core.hooksPath=/dev/null " +
  "commit --quiet --message='Notes of the agent'";

/**
 * Plans the work on a workspace.
 *
 * @param {import("../__test__/support/tree.mjs").Tree} tree
 * @param {string} workspace Its folder in the sandbox.
 * @param {boolean} hasGit Whether it is a repository.
 * @returns {{ edited: string | undefined, script: string, facts: [string, string][] }} The file that is edited on both
 *   sides, what the agent runs, and all that is done, for a person to read.
 */
export function planWork(tree, workspace, hasGit) {
  const [edited, deleted, toggled] = ordinaryFiles(tree);
  const [notes, link] = ["agent-notes", "latest-notes"].map((wish) => freeName(tree, wish));
  const mode = toggled?.isExecutable ? "a-x" : "a+x";
  /** @type {[string, string | false | undefined, string][]} Each with the command, where there is something to do. */
  const tasks = [
    ["the agent edits", edited?.name, `printf '\\nA line of the agent.\\n' >> ${edited?.quoted}`],
    ["        deletes", deleted?.name, `rm ${deleted?.quoted}`],
    ["         chmods", toggled && `${toggled.name} (${mode})`, `chmod ${mode} ${toggled?.quoted}`],
    ["           adds", `${notes}/plan.md`, `mkdir ${notes} && printf 'What I did.\\n' > ${notes}/plan.md`],
    ["          links", `${link} -> ${notes}`, `ln -s ${notes} ${link}`],
    ["        commits", hasGit && notes, `git add --force ${notes} && ${COMMIT} -- ${notes}`],
    [
      "         plants",
      hasGit && HOOK,
      `mkdir -p .git/hooks && echo '#!/bin/sh' > ${HOOK} && chmod +x ${HOOK}`,
    ],
    ["meanwhile, here", edited && `${edited.name} is edited, too`, "true"],
  ];
  const commands = tasks.filter(([, what]) => what).map(([, , command]) => command);
  return {
    edited: edited?.name,
    script: [`cd ${quoted(workspace)}`, ...commands].join(" && "),
    facts: tasks.map(([label, what], at) => [
      label,
      what || (at === 0 ? "nothing: there is no file to edit" : "nothing"),
    ]),
  };
}

/**
 * The files that an agent may work on, a README first, then those near the top. Hidden files, dependencies, names that
 * are no text and what may not be written are none of them.
 *
 * @param {import("../__test__/support/tree.mjs").Tree} tree
 */
function ordinaryFiles(tree) {
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
    .map(([bytes, { mode }]) => {
      const name = readableName(bytes);
      return { name, quoted: quoted(`./${name}`), isExecutable: (mode & 0o100) !== 0 };
    });
  const first = files.find(({ name }) => /^readme\b/i.test(name)) ?? files[0];
  return first ? [first, ...files.filter((file) => file !== first)] : [];
}

/**
 * A name at the top level that is not taken: the one wished for, or that with a number.
 *
 * @param {import("../__test__/support/tree.mjs").Tree} tree
 * @param {string} wish
 */
function freeName(tree, wish) {
  let name = wish;
  for (let number = 2; tree.has(name); number += 1) name = `${wish}-${number}`;
  return name;
}

/** A text as one word of the shell's. */
const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", `'\\''`)}'`;
