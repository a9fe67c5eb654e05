// The tests of the npm release that this package does not pass on purpose: all of them, each by its exact name, with
// the reason. The run fails when a name here no longer exists, so the list stays current.

const GIT_HISTORY =
  "Git history sync is not part of this package: a checkout travels as the files it consists of, `.git` included.";
const HEAVY_FOLDERS =
  "There is no default list of heavy folders: what a caller does not exclude is part of the workspace and travels.";
const COMMAND_TEXT =
  "It looks for the release's own wording of a shell command (`dd if=/dev/zero`), and so for a download without any " +
  "entry. Here an empty workspace comes back as `./` and the end mark, which tells it from a download that failed.";

/** The reason by the test's name. */
export const LEFT_OUT = {
  "syncs git-backed workspaces through a shallow standalone clone and keeps .git out of archives":
    GIT_HISTORY,
  "repairs stale host index deletions when the sandbox restores a clean git worktree": GIT_HISTORY,
  "excludes unignored dependency trees from git-backed workspace overlay archives": HEAVY_FOLDERS,
  "creates valid empty workspace tarballs when the workspace is empty": COMMAND_TEXT,
};
