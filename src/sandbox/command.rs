//! The `sh` text that runs in the sandbox. Pure functions: text in, text out.
//!
//! A sandbox may hold any of dash, bash and busybox as its `sh`, and any of GNU tar, bsdtar, busybox and
//! toybox as its `tar`; Debian's busybox knows neither `--exclude` nor `-T`. So the commands use what all of
//! them share, and more only where `tar --version` says whose it is. Besides `sh` and `tar` they need `find`,
//! `mkdir`, `rm`, `rmdir`, `wc`, `head` and `cat`.
//!
//! Every path given here is absolute. It may hold any character but NUL.

use crate::archive::header::END_MARK;
use crate::tree::stage::RUNTIME;

/// What tar says about the files it could not read is kept up to this many bytes.
pub const MESSAGES_MAX: usize = 64 * 1024;
/// The largest archive without an entry that any tar writes, in bytes: one full record.
const EMPTY_ARCHIVE_MAX: u32 = 10_240;

/// `text` as one word of a shell command, whatever it holds.
#[must_use]
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

/// Replaces the content of the workspace `remote_dir` by that of `archive`, which goes away. What is named in
/// `preserved` stays where it stands at the top of the workspace, and so does `.paperclip-runtime`.
///
/// An archive that did not arrive with all its `archive_size` bytes fails the command before anything is
/// cleared.
#[must_use]
pub fn upload(remote_dir: &str, archive: &str, archive_size: u64, preserved: &[impl AsRef<str>]) -> String {
    let dir = quote(remote_dir);
    let check_size = check_size(archive, archive_size);
    let find = find_top_level_but(preserved.iter().map(AsRef::as_ref));
    let extract = extract(archive, archive_size);
    in_shell(&format!(
        "mkdir -p {dir} &&
         {check_size} &&
         cd {dir} &&
         {find} -exec rm -rf -- {{}} + &&
         {extract}"
    ))
}

/// Makes `asset_dir` anew with the content of `archive`, which goes away. An archive that did not arrive with
/// all its `archive_size` bytes fails the command and leaves the folder as it was.
#[must_use]
pub fn upload_asset(asset_dir: &str, archive: &str, archive_size: u64) -> String {
    let dir = quote(asset_dir);
    let check_size = check_size(archive, archive_size);
    let extract = extract(archive, archive_size);
    in_shell(&format!(
        "{check_size} &&
         rm -rf {dir} &&
         mkdir -p {dir} &&
         cd {dir} &&
         {extract}"
    ))
}

/// Packs all of the workspace `remote_dir` but its `.paperclip-runtime` into `archive`, which replaces an
/// older one. Where there is nothing to pack the archive holds `./` alone, which tells it from one that went
/// wrong.
///
/// `exclude` are patterns of GNU tar's `--exclude`. They only spare the transfer of what is left out
/// afterwards in any case, as far as the sandbox's tar can.
///
/// A failure of tar fails the command and leaves no archive behind. So does a workspace that is missing or
/// cannot be listed: it must not look like an emptied one.
#[must_use]
pub fn download(runtime_root: &str, remote_dir: &str, archive: &str, exclude: &[impl AsRef<str>]) -> String {
    let begin = begin_packing(runtime_root, remote_dir, archive);
    let pack = pack(exclude);
    in_shell(&format!(
        r#"{begin}
         {pack}
         [ "$code" -eq 0 ] || rm -f "$archive"
         exit "$code""#
    ))
}

/// As [`download`], but what tar could not read is left out, and the command fails only where there is no
/// archive at all. The first line of the file `status` is then tar's exit status in decimal digits, 0 if
/// nothing was in the way, and the rest is what was said about it, at most 64 KiB.
#[must_use]
pub fn tolerant_download(
    runtime_root: &str,
    remote_dir: &str,
    archive: &str,
    status: &str,
    exclude: &[impl AsRef<str>],
) -> String {
    let begin = begin_packing(runtime_root, remote_dir, archive);
    let pack = pack(exclude);
    let status = quote(status);
    in_shell(&format!(
        r#"{begin}
         messages="$archive.messages"
         {{
         {pack}
         }} 2> "$messages"
         if [ -f "$archive" ]; then
             {{ echo "$code" && head -c {MESSAGES_MAX} "$messages"; }} > {status} && rm -f "$messages"
         else
             cat "$messages" >&2
             rm -f "$messages"
             exit 1
         fi"#
    ))
}

fn in_shell(script: &str) -> String {
    format!("sh -c {}", quote(script))
}

/// Fails, and says by how much, where other than `size` bytes arrived.
fn check_size(archive: &str, size: u64) -> String {
    let archive = quote(archive);
    format!(
        r#"size=$(wc -c < {archive}) &&
         {{ [ "$size" -eq {size} ] || {{
             echo "$size of the archive's {size} bytes arrived; nothing was changed, upload it again" >&2
             exit 1
         }}; }}"#
    )
}

/// Extracts into the current folder with exactly the archive's modes, whatever the sandbox user's umask is:
/// busybox ignores `-p` for everybody but root. The open umask is for the extraction alone.
fn extract(archive: &str, size: u64) -> String {
    let archive = quote(archive);
    if size <= END_MARK as u64 {
        // Nothing is in it, and toybox refuses an archive without an entry.
        return format!("rm -f {archive}");
    }
    format!("(unset TAR_OPTIONS; umask 0 && tar -xpf {archive}) && rm -f {archive}")
}

/// Finds what is at the top of the current folder but for our own folder and `names`, each taken literally.
/// What it finds begins with `./`, so no name is taken for an option.
fn find_top_level_but<'a>(names: impl Iterator<Item = &'a str>) -> String {
    // A name with a slash or a NUL in it is not the name of anything there.
    let names = [RUNTIME].into_iter().chain(names.filter(|name| !name.contains(['/', '\0'])));
    let tests: Vec<String> = names
        .map(|name| {
            name.chars().flat_map(|character| escape(character).chain([character])).collect::<String>()
        })
        .map(|literal| format!("! -name {}", quote(&literal)))
        .collect();
    format!("find . -mindepth 1 -maxdepth 1 {}", tests.join(" "))
}

/// A backslash where `find -name` would take the character for more than itself.
fn escape(character: char) -> impl Iterator<Item = char> {
    matches!(character, '*' | '?' | '[' | '\\').then_some('\\').into_iter()
}

/// Enters the workspace and makes room for the archive. Enters it first: to make the folder below it would
/// bring back a workspace that is gone, emptied.
fn begin_packing(runtime_root: &str, remote_dir: &str, archive: &str) -> String {
    let (root, dir, archive) = (quote(runtime_root), quote(remote_dir), quote(archive));
    format!(
        r#"archive={archive}
         export archive
         cd {dir} && mkdir -p {root} && rm -f "$archive" || exit"#
    )
}

/// Packs the current folder into `$archive`. The exit status of what failed first ends up in `$code`, or else 0; that of
/// `find` as 2, since 1 is what tar says of a file that changed.
///
/// The names come from `find`, because a shell's own patterns can be switched off from outside, and a name
/// that is missed looks like one that was deleted. GNU tar and bsdtar read them from a file: in a pipe a
/// failure of `find` would be lost, and a command line has an end. (Bsdtar's own format needs PAX records for
/// names that are not text in the C locale.) Toybox is left to look for itself, as it cuts a line break off
/// the end of a name that it is given. All others get the names as arguments, and where these are too many
/// for one command line, the whole folder with the archive inside, which they pass over.
///
/// Options for tar from outside are taken away, and in the C locale a name is its bytes.
fn pack(exclude: &[impl AsRef<str>]) -> String {
    let plain: Vec<&str> = exclude.iter().map(AsRef::as_ref).filter(|pattern| is_plain(pattern)).collect();
    let names = || plain.iter().copied().filter(|pattern| !pattern.contains(['*', '/']));
    let find = find_top_level_but(names());
    let gnu_excludes = exclude_options(["._*"].into_iter().chain(plain.iter().copied()), "");
    let toybox_excludes = exclude_options([RUNTIME].into_iter().chain(names()), "./");
    let print_names = quote(r#"for name do printf "%s\000" "${name#./}"; done"#);
    // A second call would replace what the first one packed.
    let pack_once = quote(r#"[ ! -e "$archive" ] && exec tar -cf "$archive" "$@""#);
    format!(
        r#"unset TAR_OPTIONS
         LC_ALL=C
         export LC_ALL
         code=0
         failed() {{ [ "$code" -ne 0 ] || code=$1; }}
         names="$archive.names"
         {find} -exec sh -c {print_names} sh {{}} + > "$names" || failed 2
         if [ -s "$names" ]; then
             case $(tar --version 2>&1) in
             *"GNU tar"*)
                 tar -cf "$archive" --no-unquote {gnu_excludes} --null -T "$names" || failed $? ;;
             *bsdtar*)
                 tar -cf "$archive" --format gnutar --null -T "$names" || failed $? ;;
             *toybox*)
                 tar -cf "$archive" {toybox_excludes} . || failed $? ;;
             *)
                 case $({find} -exec sh -c 'echo batch' {pack_once} sh {{}} +) in
                 batch) {find} -exec sh -c {pack_once} sh {{}} + || failed $? ;;
                 *) tar -cf "$archive" . || failed $? ;;
                 esac ;;
             esac
             [ -f "$archive" ] && [ "$(wc -c < "$archive")" -le {EMPTY_ARCHIVE_MAX} ] &&
                 listed=$(tar -tf "$archive") && [ -z "$listed" ]
         else
             [ "$code" -eq 0 ]
         fi && {{
             nothing="$archive.nothing"
             mkdir -p "$nothing" && tar -cf "$archive" -C "$nothing" . && rmdir "$nothing" || failed $?
         }}
         rm -f "$names""#
    )
}

/// Whether every tar of any version gives the pattern the meaning that it has here: it is text and `*`.
/// Toybox would read a line break at the end as nothing.
fn is_plain(pattern: &str) -> bool {
    !pattern.is_empty() && !pattern.contains(['?', '[', '\\', '\n', '\0'])
}

fn exclude_options<'a>(patterns: impl Iterator<Item = &'a str>, prefix: &str) -> String {
    patterns
        .map(|pattern| format!("--exclude={}", quote(&format!("{prefix}{pattern}"))))
        .collect::<Vec<_>>()
        .join(" ")
}
