"use strict";

// How a workspace's history is transferred by default: a clone of one commit up, a bundle of new commits down. A caller may
// pass adapter-utils' own module `git-workspace-sync` instead; the names and types are the same.

const { crypto, fs, os, path } = require("../js/node.js");
const { quote } = require("./commands.js");
const {
  FROM_FILES,
  IDENTITY,
  REPOSITORIES,
  branchOf,
  commonAncestor,
  fetchChecked,
  git,
  records,
} = require("./repository.js");

/** @import * as own from "./index.js" */

const WORKSPACE_GIT_SCAN_SATURATED_CODE = "workspace_git_scan_saturated";
const IGNORED_MAX = 10_000;
const IGNORED_BYTES_MAX = 2 * 1024 * 1024;

class ReferencedSourceIgnoreScanLimitExceededError extends Error {
  /** @override */
  name = "ReferencedSourceIgnoreScanLimitExceededError";
}

/** @param {unknown} error */
const says = (error) => String(Object(error).stderr ?? "") + String(Object(error).message ?? error);

/** @param {unknown} error */
const isNoRepository = (error) => /not a git repository/i.test(says(error));

/**
 * @param {string} dir
 * @param {string[]} args
 */
const line = async (dir, ...args) => (await git(dir, args)).replace(/\n$/, "");

/** @param {string[]} names */
const sorted = (names) => [...new Set(names)].sort((a, b) => a.localeCompare(b));

/** @type {own.GitFunctions["readGitWorkspaceSnapshot"]} */
async function readGitWorkspaceSnapshot(localDir, includeRepositories = true) {
  const repositories = includeRepositories ? await readRepositories(localDir) : [];
  let top;
  try {
    if ((await line(localDir, "rev-parse", "--is-inside-work-tree")) !== "true") return null;
    top = await line(localDir, "rev-parse", "--show-toplevel");
  } catch (error) {
    if (repositories.length === 0 && isNoRepository(error)) return null;
    throw error;
  }
  // A folder inside another repository is not a checkout of its own.
  const [here, there] = await Promise.all([fs.promises.realpath(localDir), fs.promises.realpath(top)]);
  if (here !== there) return null;

  const list = async (/** @type {string[]} */ ...args) => records(await git(localDir, args));
  const diff = (/** @type {string} */ filter) =>
    list(
      "diff",
      "--no-ext-diff",
      "--no-renames",
      "--name-only",
      "-z",
      `--diff-filter=${filter}`,
      "HEAD",
      "--",
    );
  const others = ["ls-files", "--others", "--exclude-standard", "-z"];
  const [headCommit, branch, changed, untracked, deleted, ignored] = await Promise.all([
    line(localDir, "rev-parse", "HEAD"),
    branchOf(localDir),
    diff("ACMRTUXB"),
    list(...others),
    diff("D"),
    list(...others, "--ignored", "--directory"),
  ]);
  const below = (/** @type {"overlayPaths" | "deletedPaths" | "ignoredPaths"} */ kind) =>
    repositories.flatMap((found) => found.snapshot[kind].map((name) => `${found.path}/${name}`));
  const isRepositories = (/** @type {string} */ name) => repositories.length > 0 && name === REPOSITORIES;
  const ignoredHere = ignored.map((name) => name.replace(/\/+$/, "")).filter((name) => !isRepositories(name));
  return {
    headCommit,
    branchName: branch ?? null,
    overlayPaths: sorted([...changed, ...untracked, ...below("overlayPaths")]),
    deletedPaths: sorted([...deleted, ...below("deletedPaths")]),
    ignoredPaths: sorted([...ignoredHere, ...below("ignoredPaths")]),
    ...(repositories.length > 0 ? { repositories } : {}),
  };
}

/** @param {string} localDir */
async function readRepositories(localDir) {
  const root = path.join(localDir, REPOSITORIES);
  const found = await fs.promises.lstat(root).catch((error) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (!found) return [];
  if (!found.isDirectory()) throw new Error("Invalid project repositories directory");
  const repositories = [];
  for (const entry of await fs.promises.readdir(root, { withFileTypes: true })) {
    if (!entry.isDirectory() || !/^[a-zA-Z0-9_-]+$/.test(entry.name)) {
      throw new Error("Invalid project repository directory");
    }
    const at = `${REPOSITORIES}/${entry.name}`;
    const snapshot = await readGitWorkspaceSnapshot(path.join(localDir, at), false);
    if (!snapshot) throw new Error(`Project repository is not a Git checkout: ${at}`);
    repositories.push({ path: at, snapshot });
  }
  return repositories.sort((a, b) => a.path.localeCompare(b.path));
}

/** @type {own.GitFunctions["readReferencedSourceGitIgnoredPaths"]} */
async function readReferencedSourceGitIgnoredPaths(localDir) {
  let toplevel;
  try {
    toplevel = await line(localDir, "--no-optional-locks", "rev-parse", "--show-toplevel");
  } catch (error) {
    if (isNoRepository(error)) return null;
    throw error;
  }
  const args = ["--no-optional-locks", "ls-files", "--others", "--ignored", "--exclude-standard"];
  const listed = records(await git(localDir, [...args, "--directory", "--full-name", "-z"]));
  const names = listed.map((name) => name.replace(/\/+$/, "")).filter((name) => name !== "");
  const bytes = names.reduce((sum, name) => sum + Buffer.byteLength(name), 0);
  if (names.length > IGNORED_MAX || bytes > IGNORED_BYTES_MAX) {
    throw new ReferencedSourceIgnoreScanLimitExceededError(
      `${names.length} paths are ignored in ${localDir}`,
    );
  }
  return { toplevel, ignoredPaths: sorted(names) };
}

/**
 * A remote's address without credentials; `null` where it is not certain that none are left.
 *
 * @param {string} address
 */
function harmlessAddress(address) {
  if (/^[^@:/\s]+@[^@:/\s]+:\S+$/.test(address)) return address;
  const url = URL.canParse(address) ? new URL(address) : undefined;
  const isWeb = ["http:", "https:"].includes(url?.protocol ?? "");
  if (!url || (!isWeb && !["ssh:", "git:", "git+ssh:"].includes(url.protocol))) return null;
  if (isWeb) url.username = "";
  url.password = url.search = url.hash = "";
  return url.toString();
}

/** @type {own.GitFunctions["withShallowGitWorkspaceClone"]} */
async function withShallowGitWorkspaceClone({ localDir, snapshot }, fn) {
  const cloneDir = await fs.promises.mkdtemp(path.join(os.tmpdir(), "paperclip-git-workspace-"));
  const ref = `refs/paperclip/git-sync/import/${crypto.randomUUID()}`;
  try {
    await git(localDir, ["update-ref", ref, snapshot.headCommit]);
    const ofClone = { workspace: localDir };
    const inClone = (/** @type {string[]} */ ...args) => git(cloneDir, args, ofClone);
    const format = await line(localDir, "rev-parse", "--show-object-format");
    await inClone("init", "-q", `--object-format=${format}`);
    // There may be no remote, and an address that may hold credentials is not sent.
    const address = await line(localDir, "remote", "get-url", "origin").catch(() => "");
    const harmless = address && harmlessAddress(address);
    if (harmless) await inClone("remote", "add", "origin", harmless);
    // In an address, git reads `%20` as a space. In a plain path, it would not heed the depth.
    const encoded = (await fs.promises.realpath(localDir)).replaceAll("%", "%25");
    const fetch = ["fetch", "-q", "--depth=1", `file://${encoded}`, ref];
    await git(cloneDir, fetch, { ...ofClone, ...FROM_FILES });
    const branch = snapshot.branchName ? ["-B", snapshot.branchName] : ["--detach"];
    await inClone("checkout", "-q", "--force", ...branch, "FETCH_HEAD");
    // The commit may have a link there, and what is copied must not leave the clone.
    const repositories = path.join(cloneDir, REPOSITORIES);
    const tracked = await fs.promises.lstat(repositories).catch((error) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (snapshot.repositories?.length && tracked && !tracked.isDirectory())
      await fs.promises.rm(repositories);
    for (const nested of snapshot.repositories ?? []) {
      const from = { localDir: path.join(localDir, nested.path), snapshot: nested.snapshot };
      await withShallowGitWorkspaceClone(from, (dir) =>
        fs.promises.cp(dir, path.join(cloneDir, nested.path), { recursive: true }),
      );
    }
    if (snapshot.repositories?.length) {
      await fs.promises.appendFile(path.join(cloneDir, ".git/info/exclude"), `\n/${REPOSITORIES}/\n`);
    }
    return await fn(cloneDir);
  } finally {
    await deleteLocalGitRef({ localDir, ref });
    await fs.promises.rm(cloneDir, { recursive: true, force: true });
  }
}

/** @type {own.GitFunctions["createImportedGitRef"]} */
const createImportedGitRef = (scope = "remote") =>
  `refs/paperclip/git-sync/imported/${scope}/${crypto.randomUUID()}`;
/** @type {own.GitFunctions["createRemoteGitExportRef"]} */
const createRemoteGitExportRef = (scope = "remote") =>
  `refs/paperclip/git-sync/export/${scope}/${crypto.randomUUID()}`;

/** @type {own.GitFunctions["deleteLocalGitRef"]} */
async function deleteLocalGitRef({ localDir, ref }) {
  // If the reference stays, it names a commit that is kept in any case.
  await git(localDir, ["update-ref", "-d", ref]).catch(() => undefined);
}

/** @type {own.GitFunctions["fetchGitBundleIntoLocalRef"]} */
async function fetchGitBundleIntoLocalRef({ localDir, bundlePath, exportRef, importedRef, baseSha }) {
  // An empty bundle brings nothing new.
  if ((await fs.promises.stat(bundlePath)).size === 0) return baseSha;
  await fetchChecked({ localDir, bundlePath, bases: [baseSha], refspec: [exportRef, importedRef] });
  return line(localDir, "rev-parse", importedRef);
}

/** @type {own.GitFunctions["isMissingGitPrerequisiteError"]} */
const isMissingGitPrerequisiteError = (error) =>
  [
    "did not send all necessary objects",
    "lacks these prerequisite commits",
    "revision walk setup failed",
  ].some((text) => says(error).includes(text));

/** @type {own.GitFunctions["buildRemoteGitDeltaBundleScript"]} */
function buildRemoteGitDeltaBundleScript(input) {
  const base = input.forceFullBundle
    ? ""
    : `g cat-file -e "$b^{commit}" 2>/dev/null && base=$(g merge-base "$b" HEAD 2>/dev/null) || base=`;
  const status = input.statusPath
    ? `if [ -z "$(g status --porcelain)" ]; then s=clean; else s=dirty; fi
printf %s "$s" > ${quote(input.statusPath)}`
    : "";
  return `set -e
b=${quote(input.baseSha)} f=${quote(input.bundlePath)} r=${quote(input.exportRef)} base=
g() { git -C ${quote(input.remoteDir)} "$@"; }
mkdir -p "$(dirname "$f")"
rm -f "$f"
${base}
g rev-parse -q --verify HEAD >/dev/null || {
  s=$?
  [ $s -ne 1 ] || echo 'fatal: its branch has no commit' >&2
  exit $s
}
n=$(g rev-list --count HEAD \${base:+--not "$base"} --)
if [ "$n" -gt 0 ]; then
  g update-ref "$r" HEAD
  g bundle create -q "$f" "$r" \${base:+--not "$base"} --
  g update-ref -d "$r"
else
  : > "$f"
fi
${status}`;
}

/** @type {own.GitFunctions["integrateImportedGitHead"]} */
async function integrateImportedGitHead({ localDir, importedHead }) {
  const ours = await line(localDir, "rev-parse", "HEAD");
  if (ours === importedHead) return;
  const onBranch = await line(localDir, "symbolic-ref", "-q", "HEAD").catch(() => "HEAD");
  const shared = await commonAncestor(localDir, ours, importedHead);
  if (shared === importedHead) return;
  let head = importedHead;
  if (shared !== ours) {
    // Without a common ancestor, the commit is placed on top of ours; with one, the two are merged.
    const [tree] = shared
      ? (await line(localDir, "merge-tree", "--write-tree", ours, importedHead)).split("\n")
      : [await line(localDir, "rev-parse", `${importedHead}^{tree}`)];
    const message = `Paperclip remote git sync merge ${importedHead.slice(0, 12)}`;
    const parents = ["-p", ours, ...(shared ? ["-p", importedHead] : [])];
    head = await line(localDir, ...IDENTITY, "commit-tree", tree, ...parents, "-m", message);
  }
  await git(localDir, ["update-ref", "-m", "paperclip: restore", onBranch, head, ours]);
}

module.exports = {
  ReferencedSourceIgnoreScanLimitExceededError,
  WORKSPACE_GIT_SCAN_SATURATED_CODE,
  buildRemoteGitDeltaBundleScript,
  createImportedGitRef,
  createRemoteGitExportRef,
  deleteLocalGitRef,
  fetchGitBundleIntoLocalRef,
  integrateImportedGitHead,
  isMissingGitPrerequisiteError,
  readGitWorkspaceSnapshot,
  readReferencedSourceGitIgnoredPaths,
  withShallowGitWorkspaceClone,
};
