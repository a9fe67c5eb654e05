// What people and agents do with git, at random, and what they have then.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);

/** The files that both sides begin with. */
export const FILES = ["a.txt", "b.txt", "c.txt", "d/x.txt", "d/y.txt", "e/f/z.txt"];
const BRANCHES = ["main", "work", "topic", "x/y", "x/z"];
const TAGS = ["v1", "v2", "v3"];

/** What leaves git in the middle of an operation, which a person may end or not. */
const ABORTABLE = ["merge", "rebase", "cherry-pick", "revert"];

/** An object that has no content, which git gives to what is only intended to be added. */
const EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";

/** Numbers that look random, the same ones for each seed. */
export function randomFrom(seed) {
  let state = (seed * 2654435761) % 2 ** 32 || 1;
  /** A number from 0 up to a limit, without it. */
  const below = (limit) => {
    state = (state ^ (state << 13)) >>> 0;
    state = (state ^ (state >>> 17)) >>> 0;
    state = (state ^ (state << 5)) >>> 0;
    return state % limit;
  };
  for (let skipped = 0; skipped < 10; skipped++) below(2);
  return { below, pick: (list) => list[below(list.length)] };
}

/** One side's git, as its user calls it. Commits have times of their own, so that none has the name of another. */
export class User {
  #seconds = 1_700_000_000;
  #count = 0;
  /** What was done, in order. */
  done = [];
  /** The texts that this user has overwritten. */
  overwritten = new Set();

  /**
   * @param {string} name
   * @param {string} home
   * @param {ReturnType<typeof randomFrom>} random
   */
  constructor(name, home, random) {
    Object.assign(this, { name, home, random });
  }

  /** Runs git, which must succeed. */
  async git(folder, ...args) {
    const date = `${++this.#seconds} +0000`;
    const env = { PATH: process.env.PATH, HOME: this.home, LC_ALL: "C", GIT_CONFIG_NOSYSTEM: "1" };
    for (const who of ["AUTHOR", "COMMITTER"]) {
      Object.assign(env, { [`GIT_${who}_NAME`]: this.name, [`GIT_${who}_EMAIL`]: `${this.name}@localhost` });
      env[`GIT_${who}_DATE`] = date;
    }
    const { stdout } = await execute("git", ["-c", "core.quotePath=false", ...args], {
      cwd: folder,
      env: { ...env, GIT_EDITOR: "true" },
      maxBuffer: 1e8,
    });
    return stdout.trimEnd();
  }

  /** Runs git, which may refuse. */
  try(folder, ...args) {
    return this.git(folder, ...args).catch(() => undefined);
  }

  /** A text that nothing else has. */
  text() {
    return `${this.name} ${++this.#count}\n`;
  }

  async write(folder, name, text) {
    const at = path.join(folder, name);
    const before = await readFile(at, "utf8").catch(() => undefined);
    if (before !== undefined) this.overwritten.add(before);
    // A file may be where a folder is needed, and the other way round.
    await mkdir(path.dirname(at), { recursive: true })
      .then(() => writeFile(at, text))
      .catch(() => {});
  }

  /** Does one thing of these, at random. */
  async act(folder, operations = Object.keys(OPERATIONS)) {
    const name = this.random.pick(operations);
    this.done.push(`${this.name}: ${name}`);
    await OPERATIONS[name](this, folder);
  }

  /** A branch that there is, or at least could be. */
  async branch(folder) {
    const list = await this.try(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads");
    return this.random.pick([...linesOf(list), "main"]);
  }

  /** Runs what may stop in the middle, and sometimes leaves it there. */
  async mayStop(folder, ...args) {
    const stopped = (await this.try(folder, ...args)) === undefined;
    if (stopped && this.random.below(3) > 0) await OPERATIONS.abort(this, folder);
  }
}

/** What may be done, by name. None of these deletes on purpose what nothing else has, except by `reset --hard` and `rm`. */
const OPERATIONS = {
  edit: (user, folder) => user.write(folder, user.random.pick(FILES), user.text()),
  newFile: (user, folder) => user.write(folder, `${user.text().trim()}.new`, user.text()),
  remove: (user, folder) => rm(path.join(folder, user.random.pick(FILES)), { force: true }),
  addAll: (user, folder) => user.try(folder, "add", "-A"),
  addOne: (user, folder) => user.try(folder, "add", user.random.pick(FILES)),
  intend: async (user, folder) => {
    const name = `${user.text().trim()}.intended`;
    await user.write(folder, name, user.text());
    await user.try(folder, "add", "-N", name);
  },
  unstage: (user, folder) => user.try(folder, "rm", "-q", "--cached", user.random.pick(FILES)),
  unstageAll: (user, folder) => user.try(folder, "reset", "-q"),
  rename: (user, folder) => user.try(folder, "mv", "-f", user.random.pick(FILES), user.random.pick(FILES)),
  commit: (user, folder) => user.try(folder, "commit", "-qm", user.text()),
  commitAll: async (user, folder) => {
    await user.try(folder, "add", "-A");
    await user.try(folder, "commit", "-qm", user.text());
  },
  commitOne: async (user, folder) => {
    const name = user.random.pick(FILES);
    await user.write(folder, name, user.text());
    await user.try(folder, "add", name);
    await user.try(folder, "commit", "-qm", user.text(), "--", name);
  },
  amend: (user, folder) => user.try(folder, "commit", "-q", "--amend", "-am", user.text()),
  branch: (user, folder) => user.try(folder, "branch", user.random.pick(BRANCHES)),
  renameBranch: (user, folder) =>
    user.try(folder, "branch", "-M", user.random.pick(BRANCHES), user.random.pick(BRANCHES)),
  deleteBranch: (user, folder) => user.try(folder, "branch", "-qD", user.random.pick(BRANCHES)),
  checkoutNew: (user, folder) => user.try(folder, "checkout", "-qb", user.random.pick(BRANCHES)),
  checkout: async (user, folder) => user.try(folder, "checkout", "-q", await user.branch(folder)),
  checkoutFile: (user, folder) => user.try(folder, "checkout", "-q", "HEAD~1", "--", user.random.pick(FILES)),
  detach: (user, folder) => user.try(folder, "checkout", "-q", "--detach"),
  orphan: async (user, folder) => {
    await user.try(folder, "checkout", "-q", "--orphan", user.random.pick(BRANCHES));
    await user.try(folder, "commit", "-qm", user.text());
  },
  merge: async (user, folder) => user.mayStop(folder, "merge", "-q", "--no-edit", await user.branch(folder)),
  rebase: async (user, folder) => user.mayStop(folder, "rebase", "-q", await user.branch(folder)),
  pick: async (user, folder) => user.mayStop(folder, "cherry-pick", await user.branch(folder)),
  revert: (user, folder) => user.mayStop(folder, "revert", "--no-edit", "HEAD"),
  abort: async (user, folder) => {
    for (const operation of ABORTABLE) await user.try(folder, operation, "--abort");
  },
  stash: (user, folder) => user.try(folder, "stash", "push", "-q"),
  stashAll: (user, folder) => user.try(folder, "stash", "push", "-qu"),
  unstash: (user, folder) => user.try(folder, "stash", "pop", "-q", "--index"),
  tag: (user, folder) => user.try(folder, "tag", user.random.pick(TAGS)),
  annotate: (user, folder) => user.try(folder, "tag", "-am", user.text(), user.random.pick(TAGS)),
  soft: (user, folder) => user.try(folder, "reset", "-q", "--soft", "HEAD~1"),
  mixed: (user, folder) => user.try(folder, "reset", "-q", "HEAD~1"),
  hard: (user, folder) => user.try(folder, "reset", "-q", "--hard", "HEAD~1"),
  status: (user, folder) => user.try(folder, "status"),
  pack: (user, folder) => user.try(folder, "pack-refs", "--all"),
  collect: (user, folder) => user.try(folder, "gc", "-q", "--prune=now"),
};

/** What a person may do while a restore runs, and that deletes nothing. */
export const HARMLESS = [
  ...[
    "edit",
    "newFile",
    "addAll",
    "addOne",
    "commit",
    "commitAll",
    "commitOne",
    "amend",
    "branch",
    "annotate",
  ],
  ...["checkoutNew", "checkout", "stash", "soft", "unstageAll", "status"],
];

const linesOf = (text) => (text ?? "").split("\n").filter((line) => line !== "");

/** The files of a folder with their texts, without what git and this package keep there. */
export async function textsOf(folder) {
  const texts = {};
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const name = path.relative(folder, path.join(entry.parentPath, entry.name));
    if (!entry.isFile() || /^(\.git|\.paperclip-runtime)\//.test(name)) continue;
    texts[name] = await readFile(path.join(folder, name), "utf8");
  }
  return texts;
}

/** The texts of the backups in a workspace. */
export async function backupsIn(folder) {
  const conflicts = path.join(folder, ".paperclip-runtime/conflicts");
  if (!existsSync(conflicts)) return [];
  const entries = await readdir(conflicts, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return Promise.all(files.map((file) => readFile(path.join(file.parentPath, file.name), "utf8")));
}

/** What a checkout has. Each set has the names of objects. */
export async function stateOf(user, folder) {
  const head = await user.try(folder, "rev-parse", "-q", "--verify", "HEAD^{commit}");
  const tips = ["--all", ...(head === undefined ? [] : ["HEAD"])];
  const list = async (...args) => linesOf(await user.git(folder, ...args));
  const [commits, known, named, index, tree] = await Promise.all([
    list("rev-list", ...tips),
    list("rev-list", "--reflog", ...tips),
    list("rev-list", "--objects", "--no-object-names", "--reflog", "--indexed-objects", ...tips),
    list("ls-files", "--stage"),
    head === undefined ? [] : list("ls-tree", "-r", "HEAD"),
  ]);
  const staged = new Map();
  const unmerged = new Set();
  for (const line of index) {
    const [, mode, oid, stage, name] = /^(\d+) (\w+) (\d)\t(.*)$/.exec(line);
    if (stage === "0") staged.set(name, `${mode} ${oid}`);
    else unmerged.add(name);
  }
  const committed = new Map(
    tree
      .map((line) => /^(\d+) \w+ (\w+)\t(.*)$/.exec(line))
      .map(([, mode, oid, name]) => [name, `${mode} ${oid}`]),
  );
  const differing = [...new Set([...staged.keys(), ...committed.keys()])].filter(
    (name) => staged.get(name) !== committed.get(name),
  );
  return {
    head,
    /** Those that a reference reaches. */
    commits: new Set(commits),
    /** Those that a log of a reference reaches, too. */
    known: new Set(known),
    /** All objects that anything names. */
    named: new Set(named),
    index: staged,
    unmerged,
    /** The paths at which the next commit would change something, with what it would have there. */
    staged: new Map(differing.map((name) => [name, staged.get(name)])),
    isBusy: isBusy(folder),
  };
}

function isBusy(folder) {
  const marks = [
    "rebase-merge",
    "rebase-apply",
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "sequencer",
  ];
  return marks.some((name) => existsSync(path.join(folder, ".git", name)));
}

/** The texts of those of the objects that are files. */
export async function blobsOf(user, folder, oids) {
  const texts = new Map();
  for (const oid of oids) {
    if (oid === EMPTY_BLOB || (await user.git(folder, "cat-file", "-t", oid)) !== "blob") continue;
    texts.set(oid, `${await user.git(folder, "cat-file", "-p", oid)}\n`);
  }
  return texts;
}
