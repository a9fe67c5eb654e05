"use strict";

// The commands that run in the sandbox: POSIX `sh`, with whichever tar the sandbox has (GNU, busybox, toybox or libarchive).

const { path } = require("../js/node.js");
const { quoted: quote } = require("../clients/shell.js");
const { RUNTIME } = require("./excludes.js");

/** The longest command, in bytes: Linux takes at most 128 KiB in one argument. */
const COMMAND_MAX = 64 * 1024;

/** Names of temporary files that other uploads keep at the top of the workspace. */
const UPLOADS = ".paperclip-upload-*";

/**
 * Extracts an archive with exactly its modes, also where the sandbox user is not root, and removes the archive.
 *
 * @param {string} archive
 * @param {string} folder
 */
const extract = (archive, folder) =>
  `(umask 0 && tar -xf ${quote(archive)} -C ${quote(folder)}) && rm -f ${quote(archive)}`;

/**
 * Extracts a workspace's archive over what is there.
 *
 * @param {string} folder
 * @param {string} archive
 */
const addToWorkspace = (folder, archive) => `mkdir -p ${quote(folder)} && ${extract(archive, folder)}`;

/**
 * The files that say which workspace was uploaded to a directory of the sandbox: one while a checkout is extracted, or for any other
 * workspace, and one of a checkout, which no `git add` takes for a file of it.
 *
 * @param {string} folder
 */
const marksOf = (folder) =>
  [path.posix.join(RUNTIME, ".uploaded-workspace"), ".git/paperclip-workspace"].map((name) =>
    quote(path.posix.join(folder, name)),
  );

/**
 * Fails if another workspace was uploaded to a directory. One without a mark passes: it went with the directory, or the sandbox has
 * removed it.
 *
 * @param {string} folder
 * @param {string} id
 */
const checkWorkspace = (folder, id) =>
  marksOf(folder)
    .map((mark) => `{ [ ! -f ${mark} ] || [ "$(cat ${mark})" = ${quote(id)} ]; }`)
    .join(" && ");

/**
 * Replaces a workspace's content with an archive's. Preserved names at the top stay. Before anything is removed, the directory is
 * marked as that of this workspace.
 *
 * @param {object} upload
 * @param {string} upload.folder
 * @param {string} upload.id Of the workspace.
 * @param {string} upload.archive
 * @param {string[]} [upload.preserved]
 * @param {boolean} [upload.isCheckout] Whether the archive has a `.git`.
 */
function replaceWorkspace({ folder, id, archive, preserved = [], isCheckout = false }) {
  // `find` reads each name as a pattern, so all but the one real pattern are escaped.
  const literal = preserved.map((name) => name.replace(/[\\*?[]/g, "\\$&"));
  const names = [RUNTIME, ...literal, UPLOADS].map((name) => `! -name ${quote(name)}`).join(" ");
  const [first, lasting] = marksOf(folder);
  const mark = (/** @type {string | undefined} */ file) => `printf %s ${quote(id)} > ${file}`;
  return [
    `mkdir -p ${quote(path.posix.join(folder, RUNTIME))}`,
    mark(first),
    `find ${quote(folder)} -mindepth 1 -maxdepth 1 ${names} -exec rm -rf -- {} +`,
    extract(archive, folder),
    ...(isCheckout ? [mark(lasting), `rm -f ${first}`] : []),
  ].join(" && ");
}

/**
 * Removes paths of a workspace, in as many commands as that takes.
 *
 * @param {string} folder
 * @param {string[]} paths
 */
function removePaths(folder, paths) {
  const commands = [];
  const start = `cd ${quote(folder)} && rm -rf --`;
  let command = start;
  for (const quoted of paths.map(quote)) {
    if (command !== start && command.length + quoted.length > COMMAND_MAX) {
      commands.push(command);
      command = start;
    }
    command += ` ${quoted}`;
  }
  return command === start ? commands : [...commands, command];
}

/**
 * Replaces an asset's folder with the content of its archive.
 *
 * @param {string} folder
 * @param {string} archive
 */
const replaceFolder = (folder, archive) =>
  `rm -rf ${quote(folder)} && mkdir -p ${quote(folder)} && ${extract(archive, folder)}`;

/** The most names that tar is given one by one. Beyond that it lists the folder itself. */
const NAMES_MAX = 1000;

/**
 * Packs a workspace by names that begin with `./`, so that a pattern can name a top-level entry exactly.
 *
 * An empty workspace is archived as an entry for the folder itself, which tells it from an archive that was never written.
 * The command fails where the workspace is gone or where tar fails. (GNU tar's exit code 1 is no failure: a file changed
 * while it was read, and is in the archive.) Where tar has no `--exclude`, everything is packed but what is never wanted.
 *
 * @param {object} download
 * @param {string} download.folder
 * @param {string} download.archive
 * @param {string[]} download.exclude Patterns of tar.
 * @param {string} [download.excludeFile] Where they are written, where they are too many for a command.
 * @param {boolean} [download.tolerant] Whether an archive that lacks something will do.
 */
function packWorkspace({ folder, archive, exclude, excludeFile, tolerant }) {
  const patterns = excludeFile
    ? `-X ${quote(excludeFile)}`
    : exclude.map((pattern) => `--exclude ${quote(pattern)}`).join(" ");
  const script = `a=${quote(archive)}
mkdir -p ${quote(path.posix.dirname(archive))} && cd ${quote(folder)} || exit
unset TAR_OPTIONS
rm -f "$a"
x=
tar --help 2>&1 | grep -q -e --exclude && x=1
set --
for e in ./* ./.[!.]* ./..?*; do
  [ -e "$e" ] || [ -L "$e" ] || continue
  case $e in ./${RUNTIME} | ./.git) ;; *) set -- "$@" "$e" ;; esac
done
if [ $# -eq 0 ]; then
  n=$a.none
  mkdir -p "$n" && tar -cf "$a" -C "$n" .; s=$?
  rm -rf "$n"
elif [ $x ]; then
  [ $# -le ${NAMES_MAX} ] || set -- .
  tar -cf "$a" ${patterns} "$@"; s=$?
else
  tar -cf "$a" "$@"; s=$?
fi
if [ $s -eq 1 ] && tar --version 2>/dev/null | grep -q 'GNU tar'; then s=0; fi
${tolerant ? '[ -s "$a" ]' : "exit $s"}`;
  return `sh -c ${quote(script)}`;
}

/**
 * Has git in a script find the repository that a folder is, and none around it.
 *
 * @param {string} folder
 */
const onlyIn = (folder) => `export GIT_CEILING_DIRECTORIES=${quote(path.posix.dirname(folder))}`;

module.exports = {
  COMMAND_MAX,
  addToWorkspace,
  checkWorkspace,
  onlyIn,
  packWorkspace,
  quote,
  removePaths,
  replaceFolder,
  replaceWorkspace,
};
