"use strict";

// Questions to a local repository, beside the functions that a caller may replace: what it tracks, which repositories are
// nested in it, and where commits are kept that must not be lost.

const { childProcess, fs, path, stream } = require("../js/node.js");
const { HEAVY_NAMES } = require("./excludes.js");

const OUTPUT_MAX = 1024 * 1024 * 1024;

/** The folder of a workspace with further repositories. */
const REPOSITORIES = ".paperclip-repositories";

/**
 * An environment in which git is controlled by its arguments alone. A program in the workspace is not found: under `npm run`,
 * `PATH` begins there, and an agent may have put a program named `git` there.
 *
 * @param {string} workspace
 */
function plainEnvironment(workspace) {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("GIT_") && name !== "PATH",
  );
  const root = realPath(workspace.split(`${path.sep}${REPOSITORIES}${path.sep}`, 1)[0] ?? workspace);
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const outside = folders.filter((folder) => path.isAbsolute(folder) && !isInside(realPath(folder), root));
  return {
    ...Object.fromEntries(inherited),
    // An empty one would mean the current folder; without any, the system's own is searched.
    ...(outside.length > 0 ? { PATH: outside.join(path.delimiter) } : {}),
    GIT_CONFIG_NOSYSTEM: "1",
    // `git fetch` hands settings that are arguments not on to the program that packs.
    GIT_CONFIG_GLOBAL: path.join(__dirname, "gitconfig"),
    // No configuration can allow what these forbid: to reach a remote, by a program that a file of the workspace may name.
    GIT_ALLOW_PROTOCOL: "",
    // Nor does git look at a remote for an object that a partial clone lacks.
    GIT_NO_LAZY_FETCH: "1",
  };
}

/** What lets a command of a repository without a configuration of the workspace's fetch from a file or a directory here. */
const FROM_FILES = { env: { GIT_ALLOW_PROTOCOL: "file" } };

/** @param {string} file */
function realPath(file) {
  try {
    return fs.realpathSync(file);
  } catch {
    // Nothing is found in a folder that does not exist.
    return path.resolve(file);
  }
}

/**
 * @param {string} at
 * @param {string} root
 */
const isInside = (at, root) => at === root || at.startsWith(root + path.sep);

/** What keeps git's configuration from running anything, and from looking into submodules. */
const SETTINGS = [
  "core.fsmonitor=false",
  "core.hooksPath=/dev/null",
  "core.sshCommand=false",
  "core.alternateRefsCommand=false",
  "core.askPass=false",
  "credential.helper=",
  // A workspace of another user's, as in a container, is as safe: nothing that its configuration names is run.
  "safe.directory=*",
  "fetch.recurseSubmodules=false",
  "gc.auto=0",
  "log.showSignature=false",
  "maintenance.auto=false",
  "submodule.recurse=false",
].flatMap((setting) => ["-c", setting]);

/**
 * The commands that run neither a filter nor a merge driver: they neither look at files nor write the index. (Whatever writes
 * it compares entries that are as new as the index with their files, `git write-tree` too.)
 */
const RUNS_NO_PROGRAM = new Set([
  "check-ignore",
  "commit-tree",
  "fetch",
  "for-each-ref",
  "index-pack",
  "init",
  "ls-files",
  "ls-tree",
  "merge-base",
  "remote",
  "rev-parse",
  "symbolic-ref",
  "update-ref",
]);

/** The commands that look at files, and how they are ignored and converted. */
const LOOKS_AT_FILES = new Set([
  "check-ignore",
  "checkout-index",
  "diff",
  "diff-index",
  "ls-files",
  "reset",
  "status",
  "update-index",
]);

/**
 * The commands that run `git status` in each submodule, where the submodule's own configuration names programs. Whether another
 * commit is checked out there is seen without it.
 */
const LOOKS_INTO_SUBMODULES = new Set(["diff", "diff-files", "diff-index", "diff-tree", "status"]);

/** What of a user's own configuration says which files git ignores, and how lines end in them. It names no program. */
const ABOUT_FILES = "^core\\.(excludesfile|autocrlf|eol)$";

/**
 * Those settings as git itself has them in a folder: without the user's own, ignored files would be uploaded.
 *
 * @param {string} dir
 * @param {NodeJS.ProcessEnv} env
 * @returns {Promise<[string, string][]>}
 */
async function settingsOfFiles(dir, env) {
  const { GIT_CONFIG_NOSYSTEM, GIT_CONFIG_GLOBAL, ...rest } = env;
  const own = Object.entries(process.env).filter(([name]) =>
    ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"].includes(name),
  );
  const asked = ["config", "--null", "--type=path", "--get-regexp", ABOUT_FILES];
  const listed = await execute(dir, asked, { ...rest, ...Object.fromEntries(own) }).catch((error) => {
    // An exit code says that there are none, or that git cannot read them: then it has none of them either.
    if (typeof error.code === "number") return "";
    throw error;
  });
  // The last one counts.
  return [
    ...new Map(
      records(listed).map((record) => {
        const end = record.indexOf("\n");
        return /** @type {[string, string]} */ ([record.slice(0, end), record.slice(end + 1)]);
      }),
    ),
  ];
}

/**
 * How lines end in the files of a folder, by git's settings.
 *
 * @param {string} dir
 * @param {string} workspace
 */
async function lineEndsOf(dir, workspace) {
  const settings = await settingsOfFiles(dir, plainEnvironment(workspace));
  return settings.filter(([key]) => key !== "core.excludesfile");
}

/**
 * @typedef {object} GitOptions
 * @property {string} [stdin]
 * @property {string} [stdinFile] A file to read instead.
 * @property {boolean} [bytes] Whether each character of input and output is a byte: names need not be UTF-8.
 * @property {string} [workspace] The workspace, where the command runs outside of it.
 * @property {Record<string, string>} [env] Variables of git's.
 */

/**
 * Runs the host's git on a repository without running anything that its configuration names: a program may be a file of the
 * workspace, which the sandbox has changed.
 *
 * @param {string} dir
 * @param {string[]} args
 * @param {GitOptions} [options]
 * @returns {Promise<string>}
 */
async function git(dir, args, options = {}) {
  return (await startGit(dir, args, options)).output(options.stdin, options.stdinFile);
}

/**
 * Starts such a command.
 *
 * @param {string} dir
 * @param {string[]} args
 * @param {Omit<GitOptions, "stdin" | "stdinFile">} [options]
 */
async function startGit(dir, args, options = {}) {
  const env = plainEnvironment(options.workspace ?? dir);
  const at = args.findIndex((arg, index) => !arg.startsWith("-") && args[index - 1] !== "-c");
  const command = args[at] ?? "";
  const more = RUNS_NO_PROGRAM.has(command) ? {} : await withoutPrograms(dir, env);
  const settings = LOOKS_AT_FILES.has(command) ? await settingsOfFiles(dir, env) : [];
  const all = [
    ...settings.flatMap(([key, value]) => ["-c", `${key}=${value}`]),
    ...args.slice(0, at + 1),
    ...(LOOKS_INTO_SUBMODULES.has(command) ? ["--ignore-submodules=dirty"] : []),
    ...args.slice(at + 1),
  ];
  return start(dir, all, { ...env, ...more, ...options.env }, options.bytes);
}

/**
 * The variables that switch the filters and merge drivers of a repository off: files are taken as they are, and a merge for
 * which there is a driver fails.
 *
 * @param {string} dir
 * @param {NodeJS.ProcessEnv} env
 * @returns {Promise<NodeJS.ProcessEnv>}
 */
async function withoutPrograms(dir, env) {
  const asked = ["config", "--null", "--name-only", "--get-regexp", String.raw`^(filter|merge)\..*\.`];
  const listed = await execute(dir, asked, env).catch((error) => {
    // An exit code says that there are none, or that this is no repository, or not yet.
    if (typeof error.code === "number") return "";
    throw error;
  });
  const names = new Set(records(listed).map((key) => key.slice(0, key.lastIndexOf("."))));
  const settings = [...names].flatMap((name) =>
    name.startsWith("merge.")
      ? [[`${name}.driver`, "false"]]
      : [
          ...["clean", "smudge", "process"].map((key) => [`${name}.${key}`, ""]),
          [`${name}.required`, "false"],
        ],
  );
  // The names of filters may have any characters, which an argument `-c` cannot tell from its value.
  const numbered = settings.flatMap(([key, value], at) => [
    [`GIT_CONFIG_KEY_${at}`, key],
    [`GIT_CONFIG_VALUE_${at}`, value],
  ]);
  return { ...Object.fromEntries(numbered), GIT_CONFIG_COUNT: String(settings.length) };
}

/**
 * Runs git with these arguments and settings.
 *
 * @param {string} dir
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} env
 */
const execute = (dir, args, env) => start(dir, args, env).output();

/**
 * Starts git with these arguments and settings.
 *
 * @param {string} dir
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} env
 * @param {boolean} [bytes]
 */
function start(dir, args, env, bytes = false) {
  const encoding = /** @type {BufferEncoding} */ (bytes ? "latin1" : "utf8");
  const options = { maxBuffer: OUTPUT_MAX, env, encoding };
  /** @type {import("node:child_process").ChildProcess | undefined} */
  let child;
  let hasEnded = false;
  /** @type {Promise<string>} */
  const printed = new Promise((resolve, reject) => {
    child = childProcess.execFile(
      "git",
      ["-C", dir, ...SETTINGS, ...args],
      options,
      (error, stdout, stderr) => {
        hasEnded = true;
        if (error) reject(Object.assign(error, { stdout, stderr }));
        else resolve(stdout);
      },
    );
    // If git ended before it read everything, its exit code says why.
    child.stdin?.on("error", () => {});
  });
  // The failure is reported by `output`, and may come before that is called.
  printed.catch(() => {});
  return {
    hasEnded: () => hasEnded,
    /**
     * Ends the input. Resolves with what git prints.
     *
     * @param {string} [stdin]
     * @param {string} [stdinFile]
     */
    output: async (stdin = "", stdinFile = undefined) => {
      const input = child?.stdin;
      if (input && stdinFile !== undefined) {
        // Git may end before the stream does. Whether it has read all it needs, it says itself.
        await stream.promises.pipeline(fs.createReadStream(stdinFile), input).catch(() => printed);
      } else if (!input?.writableEnded) input?.end(stdin, encoding);
      return printed;
    },
  };
}

/** @param {string} text */
const records = (text) => text.split("\0").filter((record) => record !== "");

/**
 * Names as git reads them with `-z`.
 *
 * @param {string[]} names
 */
const zeroEnded = (names) => names.map((name) => `${name}\0`).join("");

/**
 * Whether a folder is in a repository that has no commit yet.
 *
 * @param {string} dir
 */
async function hasNoCommit(dir) {
  return (
    (await answers(dir, "symbolic-ref", "-q", "HEAD")) &&
    !(await answers(dir, "rev-parse", "-q", "--verify", "HEAD"))
  );
}

/**
 * Whether a folder is in a repository.
 *
 * @param {string} dir
 */
const isInRepository = (dir) => answers(dir, "rev-parse", "--git-dir");

/**
 * Whether a command succeeds: one that fails answers no.
 *
 * @param {string} dir
 * @param {string[]} args
 */
const answers = (dir, ...args) =>
  git(dir, args).then(
    () => true,
    () => false,
  );

/**
 * What the index of a repository has in a folder: submodules, and which of the names of heavy folders.
 *
 * @param {string} dir
 * @param {string} [workspace] The workspace, where it is another folder.
 */
async function readIndex(dir, workspace = dir) {
  const submodules = [];
  /** @type {Set<string>} */
  const heavyNames = new Set();
  for (const record of records(await git(dir, ["ls-files", "-s", "-z"], { workspace }))) {
    const name = record.slice(record.indexOf("\t") + 1);
    if (record.startsWith("160000 ")) submodules.push(name);
    for (const heavy of HEAVY_NAMES) if (`/${name}`.includes(`/${heavy}/`)) heavyNames.add(heavy);
  }
  return { submodules, heavyNames };
}

/**
 * The files of a repository that lies in a workspace, by their paths in that: those it tracks, and those that it does not
 * ignore. Its own nested repositories are among them, and none of git's own files.
 *
 * @param {string} workspace
 * @param {string} nested
 * @returns {Promise<string[]>}
 */
async function filesOfNested(workspace, nested) {
  const dir = path.join(workspace, nested);
  const inNested = (/** @type {string[]} */ args) => git(dir, args, { workspace });
  // For a folder that is no repository, git would answer for the repository around it.
  const prefix = (await inNested(["rev-parse", "--show-prefix"])).trim();
  if (prefix !== "") return [];
  const listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const [names, { submodules }] = await Promise.all([inNested(listed), readIndex(dir, workspace)]);
  const inner = new Set(submodules);
  const files = [];
  for (const name of records(names)) {
    const at = `${nested}/${name.replace(/\/$/, "")}`;
    files.push(at);
    if (name.endsWith("/") || inner.has(name)) files.push(...(await filesOfNested(workspace, at)));
  }
  return files;
}

/**
 * Which of these ignored paths are ignored by that name anywhere, and not just where they are: a tar that leaves them out at
 * any depth then leaves out nothing else.
 *
 * @param {string} dir
 * @param {string[]} ignored
 */
async function ignoredAnywhere(dir, ignored) {
  if (ignored.length === 0) return [];
  // A folder name that does not exist.
  const elsewhere = "paperclip-elsewhere/paperclip-elsewhere";
  const asked = zeroEnded(ignored.map((name) => `${elsewhere}/${name}`));
  try {
    const answer = await git(dir, ["check-ignore", "--no-index", "-z", "--stdin"], { stdin: asked });
    const found = new Set(records(answer).map((name) => name.slice(elsewhere.length + 1)));
    return ignored.filter((name) => found.has(name));
  } catch {
    // Exit code 1 means none. Where git fails, none is assumed: more is transferred than needed.
    return [];
  }
}

/**
 * A path as git reads it between quotes.
 *
 * @param {string} name
 */
function quoted(name) {
  const escaped = [...name].map((character) => {
    if (character === '"' || character === "\\") return `\\${character}`;
    if (character >= " ") return character;
    return `\\${character.charCodeAt(0).toString(8).padStart(3, "0")}`;
  });
  return `"${escaped.join("")}"`;
}

/**
 * Makes a repository that has the objects of a local one, and nothing of its configuration.
 *
 * @param {string} localDir
 * @param {string} at
 */
async function makeBorrowing(localDir, at) {
  const ask = async (/** @type {string[]} */ ...args) =>
    (await git(localDir, ["rev-parse", "--path-format=absolute", ...args])).replace(/\n$/, "");
  const format = await ask("--show-object-format");
  const objects = await ask("--git-path", "objects");
  const shallow = await ask("--git-path", "shallow");
  // An earlier attempt may have left one.
  await fs.promises.rm(at, { recursive: true, force: true });
  await fs.promises.mkdir(at);
  await git(at, ["init", "-q", "--bare", `--object-format=${format}`], { workspace: localDir });
  await fs.promises.writeFile(path.join(at, "objects/info/alternates"), `${quoted(objects)}\n`);
  await fs.promises.copyFile(shallow, path.join(at, "shallow")).catch((error) => {
    // Nearly every repository has its whole history.
    if (error.code !== "ENOENT") throw error;
  });
}

/**
 * Takes a bundle's references over, after `git fsck` of all that is new. It is fetched into another repository, which borrows
 * the local one's objects: git leaves what it refuses where it fetches to, and a local configuration may give any path another
 * meaning. What is then added to the local repository are the very packs that were checked.
 *
 * @param {object} input
 * @param {string} input.localDir
 * @param {string} input.bundlePath The other repository is made beside it.
 * @param {string[]} input.bases Commits that the bundle may need.
 * @param {[string, string]} input.refspec The bundle's reference and the local one, or patterns of them.
 */
async function fetchChecked({ localDir, bundlePath, bases, refspec: [from, to] }) {
  const check = `${bundlePath}.git`;
  const inCheck = (/** @type {string[]} */ args, /** @type {GitOptions} */ options = {}) =>
    git(check, args, { workspace: localDir, ...options });
  await makeBorrowing(localDir, check);
  for (const [at, base] of bases.entries()) {
    await inCheck(["update-ref", `refs/heads/base-${at}`, base]).catch(() => {
      // Without the base, git says that it lacks what the bundle needs.
    });
  }
  const [checked, end] = from.endsWith("/*") ? ["refs/checked/", "*"] : ["refs/checked", ""];
  const options = ["-q", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"];
  const fetch = ["-c", "fetch.fsckObjects=true", "fetch", ...options, bundlePath, `${from}:${checked}${end}`];
  await inCheck(fetch, FROM_FILES);

  const packs = path.join(check, "objects/pack");
  for (const name of await fs.promises.readdir(packs)) {
    if (!name.endsWith(".pack")) continue;
    await git(localDir, ["index-pack", "--stdin"], { stdinFile: path.join(packs, name) });
  }
  const listed = await inCheck(["for-each-ref", "--format=%(objectname) %(refname)", checked], {
    bytes: true,
  });
  const came = listed
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [object = "", ref = ""] = line.split(" ");
      return { object, ref: to.replace(/\*$/, "") + ref.slice(checked.length) };
    });
  // The local references may lack what the other repository's base has.
  await requireComplete(
    localDir,
    came.map(({ object }) => object),
  ).catch((error) => {
    throw new Error(`${bundlePath} did not send all necessary objects`, { cause: error });
  });
  const updates = came.map(({ ref, object }) => `update ${ref} ${object}\n`).join("");
  await git(localDir, ["update-ref", "--stdin"], { stdin: updates, bytes: true });
}

/**
 * Rejects if something that these objects need is missing here, whether or not a reference names them.
 *
 * @param {string} dir
 * @param {string[]} objects
 */
async function requireComplete(dir, objects) {
  const list = [
    "rev-list",
    "--objects",
    "--quiet",
    "--exclude-promisor-objects",
    "--stdin",
    "--not",
    "--all",
  ];
  await git(dir, list, { stdin: objects.map((object) => `${object}\n`).join("") });
}

/** A reference name for what is kept now. */
const stamp = () => new Date().toISOString().replace(/[-:]/g, "").replace(/\..*/, "Z");

/**
 * The last part of the name of a reference to what is kept.
 *
 * @param {string} object
 * @param {string} what
 */
const nameOfKept = (object, what) => `${what}-${object.slice(0, 12)}`;

/**
 * Creates a reference to a commit, so that git's garbage collection does not remove it.
 *
 * @param {string} dir
 * @param {string} commit
 * @param {string} what
 * @param {string} time As `stamp` makes it: all that one restore keeps has the same.
 */
async function keepCommit(dir, commit, what, time = stamp()) {
  const ref = `refs/paperclip/${time}/${nameOfKept(commit, what)}`;
  await git(dir, ["update-ref", ref, commit]);
  return ref;
}

/**
 * Whether a commit is another one, or is in its history.
 *
 * @param {string} dir
 * @param {string} tip
 * @param {string} commit
 */
async function includes(dir, tip, commit) {
  try {
    await git(dir, ["merge-base", "--is-ancestor", commit, tip]);
    return true;
  } catch (error) {
    // Exit code 1 says no.
    if (/** @type {{ code?: unknown }} */ (error).code === 1) return false;
    throw error;
  }
}

/**
 * The best common ancestor of two commits; empty if there is none.
 *
 * @param {string} dir
 * @param {string} one
 * @param {string} other
 */
async function commonAncestor(dir, one, other) {
  try {
    return (await git(dir, ["merge-base", one, other])).trim();
  } catch (error) {
    // Exit code 1 says that there is none.
    if (/** @type {{ code?: unknown }} */ (error).code === 1) return "";
    throw error;
  }
}

/**
 * A commit that can be merged with the local branch: the sandbox's own, or, if the two have no common ancestor, one with its
 * files, message and author on top of what both sides shared. The sandbox's clone has a single commit, so one that is amended
 * there has no parent.
 *
 * @param {string} dir
 * @param {string | undefined} shared
 * @param {string} imported
 */
async function onTopOf(dir, shared, imported) {
  const related = await commonAncestor(dir, "HEAD", imported);
  if (related !== "" || shared === undefined) return imported;
  const [name = "", email = "", ...message] = (
    await git(dir, ["show", "-s", "--no-show-signature", "--format=%an%n%ae%n%B", imported])
  ).split("\n");
  const author = ["-c", `author.name=${name || "unknown"}`, "-c", `author.email=${email || "unknown"}`];
  const tree = ["commit-tree", `${imported}^{tree}`, "-p", shared, "-F", "-"];
  return (await git(dir, [...IDENTITY, ...author, ...tree], { stdin: message.join("\n") })).trim();
}

const IDENTITY = ["-c", "user.name=Paperclip", "-c", "user.email=noreply@paperclip.ing"];

/**
 * The branch that is checked out; `undefined` where `HEAD` is detached.
 *
 * @param {string} dir
 */
async function branchOf(dir) {
  const name = await git(dir, ["symbolic-ref", "-q", "HEAD"]).catch((error) => {
    // Exit code 1 says that it is detached.
    if (error.code !== 1) throw error;
    return "";
  });
  return /^refs\/heads\/(.+)\n$/s.exec(name)?.[1];
}

/**
 * The commit of `HEAD`; `undefined` on a branch without one.
 *
 * @param {string} dir
 */
async function headOf(dir) {
  try {
    return (await git(dir, ["rev-parse", "-q", "--verify", "HEAD"])).trim();
  } catch (error) {
    // Exit code 1 says that there is none.
    if (/** @type {{ code?: unknown }} */ (error).code === 1) return undefined;
    throw error;
  }
}

/**
 * Marks tracked files of a repository as not to be looked for in its folder, so that `git add -A` does not delete them from the
 * history where they are missing.
 *
 * @param {string} dir
 * @param {(name: string) => boolean} isMissing
 * @param {string} workspace
 */
async function skipInIndex(dir, isMissing, workspace) {
  const missing = records(await git(dir, ["ls-files", "-z"], { workspace })).filter(isMissing);
  if (missing.length === 0) return;
  const stdin = zeroEnded(missing);
  await git(dir, ["update-index", "-z", "--skip-worktree", "--stdin"], { workspace, stdin });
}

module.exports = {
  FROM_FILES,
  IDENTITY,
  REPOSITORIES,
  branchOf,
  commonAncestor,
  fetchChecked,
  filesOfNested,
  git,
  hasNoCommit,
  headOf,
  ignoredAnywhere,
  includes,
  isInRepository,
  keepCommit,
  lineEndsOf,
  makeBorrowing,
  nameOfKept,
  onTopOf,
  readIndex,
  records,
  requireComplete,
  skipInIndex,
  stamp,
  startGit,
  zeroEnded,
};
