// The tests of the newest release that are left out: all of them, each by its exact name, with the reason. The run fails when
// a name here no longer exists, so the list stays current.

const COMMAND_TEXT =
  "It looks for the release's own wording of a shell command (`dd if=/dev/zero`), and so for a download without any " +
  "entry. Here an empty workspace comes back as `./` and the end mark, which tells it from a download that failed.";
const MOCKS_FS = "It mocks functions of `node:fs`, which the native core does not call.";
const NOT_IN_PACKAGE =
  "It reads the TypeScript source beside it, which the npm package does not have: it fails there too.";

/** The reason by the test's name, if the release's own prepare and restore use this package's merge. */
export const LEFT_OUT_OF_MERGE = {
  "keeps the sandbox runtime core free of Codex-specific string literals": NOT_IN_PACKAGE,
};

/** The same if both of its modules are replaced. */
export const LEFT_OUT = {
  ...LEFT_OUT_OF_MERGE,
  "applies file mode on a staged sibling before renaming into place": MOCKS_FS,
  "cleans up a staged sibling when chmod fails before rename": MOCKS_FS,
  "creates valid empty workspace tarballs when the workspace is empty": COMMAND_TEXT,
};
