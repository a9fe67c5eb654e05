//! What runs in the sandbox: the commands, and the script that is uploaded with an archive. Pure functions: text in, text
//! out.
//!
//! An upload is the workspace's archive followed by a *control archive*, which every tar takes for bytes behind the end of
//! the first. The upload's command extracts the control archive and runs the script in it (`control.sh`). So no command
//! line grows with the number of excluded or preserved names, and an error text in which a caller repeats its command stays
//! short.
//!
//! The script has its settings in a file of its own. An update uploads only these, and uses the script of the upload before.
//!
//! An archive may be uploaded in parts ([`Part`]), each compressed by itself. The control archive follows the last part, and
//! is never compressed.
//!
//! Every path given here is absolute. It may hold any character but NUL.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

use crate::archive::header::{self, END_MARK, Member};
use crate::fs::{FileId, Kind, Meta};
use crate::transfer::parts::{Part, Wish, part_list, part_path, part_suffix};
use crate::tree::entry::Digest;
use crate::tree::stage::RUNTIME;

/// What tar says about the files it could not read is kept up to this many bytes.
pub const MESSAGES_MAX: usize = 64 * 1024;

/// How many bytes of names toybox is told to leave out: it takes them by its command line alone.
const TOYBOX_EXCLUDES_MAX: usize = 32 * 1024;

/// Shell code that succeeds unless the files in `$o` are others than the script noted when it came. Where there is no note, the
/// sandbox has nothing that makes one, or they were planted.
const INTACT: &str = r#"[ ! -f "$o/sum" ] ||
[ "$(cd "$o" && cat control.sh script.sh exclude | { cksum || sha256sum; } 2>/dev/null)" = "$(cat "$o/sum")" ]"#;

/// What [`Places::upload_status`] holds where the sandbox cannot decompress what gzip made.
pub const NO_GUNZIP: &str = "no gunzip\n";
/// The same of what zstd made.
pub const NO_ZSTD: &str = "no zstd\n";

/// The folder in a run's folder that has the mark, and a folder with control files for each upload.
pub const OWN: &str = ".paperclip";

/// The archive in an upload's folder.
const TAKEN: &str = "archive";

/// The script, without its settings.
const SCRIPT: &str = include_str!("control.sh");

/// The script as it is uploaded, and its digest.
static TRAVELLING: LazyLock<(String, Digest)> = LazyLock::new(|| {
    let script = without_comments(SCRIPT);
    let digest = Digest(Sha256::digest(&script).into());
    (script, digest)
});

/// `text` as one word of a shell command, whatever it holds.
#[must_use]
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

/// The folders and files of one run in the sandbox.
///
/// Control files are in a folder of the upload that they belong to: a later upload that fails half-way must not change what
/// an older session runs.
#[derive(Debug, Clone)]
pub struct Places {
    remote_dir: String,
    runtime_root: String,
    adapter_key: String,
    upload_id: String,
}

impl Places {
    /// The places of an adapter in the workspace `remote_dir`, which is in its shortest form. `upload_id`
    /// names the upload: a single name, without anything that a shell would take for more than itself.
    #[must_use]
    pub fn new(remote_dir: &str, adapter_key: &str, upload_id: &str) -> Self {
        Self {
            remote_dir: remote_dir.to_owned(),
            runtime_root: format!("{remote_dir}/{RUNTIME}/{adapter_key}"),
            adapter_key: adapter_key.to_owned(),
            upload_id: upload_id.to_owned(),
        }
    }

    /// The same places with another upload.
    #[must_use]
    pub fn for_upload(&self, upload_id: &str) -> Self {
        Self { upload_id: upload_id.to_owned(), ..self.clone() }
    }

    /// The run's folder.
    #[must_use]
    pub fn runtime_root(&self) -> &str {
        &self.runtime_root
    }

    /// The name of the upload.
    #[must_use]
    pub fn upload_id(&self) -> &str {
        &self.upload_id
    }

    /// Where the workspace's archive is written to.
    #[must_use]
    pub fn upload(&self) -> String {
        format!("{}/workspace-upload.tar", self.runtime_root)
    }

    /// Where the workspace is packed.
    #[must_use]
    pub fn download(&self) -> String {
        format!("{}/workspace-download.tar", self.runtime_root)
    }

    /// Where the sandbox says what has changed.
    #[must_use]
    pub fn changes(&self) -> String {
        format!("{}/workspace-changes.txt", self.runtime_root)
    }

    /// Where the sandbox says what it lacks for an upload.
    #[must_use]
    pub fn upload_status(&self) -> String {
        format!("{}/workspace-upload.status", self.runtime_root)
    }

    /// Where the tolerant way says what it could not read.
    #[must_use]
    pub fn status(&self) -> String {
        format!("{}/workspace-download.status", self.runtime_root)
    }

    /// What the sandbox says about itself, by its name in the download: below the workspace.
    #[must_use]
    pub fn answer(&self) -> String {
        format!("{RUNTIME}/{}/{OWN}/{}/answer", self.adapter_key, self.upload_id)
    }

    /// The folder with the mark.
    fn marks(&self) -> String {
        format!("{}/{OWN}", self.runtime_root)
    }

    /// The folder with the upload's control files.
    fn own(&self) -> String {
        format!("{}/{}", self.marks(), self.upload_id)
    }

    /// The script.
    fn script(&self) -> String {
        format!("{}/control.sh", self.own())
    }

    /// Makes the folder for control files, `$o`, also where an agent has put something else in its place or that of one above
    /// it, or has made them read-only.
    ///
    /// What is in the marks' folder is ours alone; beside that are assets, whose modes stay.
    fn make_own(&self) -> String {
        let (root, id) = (quote(&self.runtime_root), &self.upload_id);
        format!(
            r#"r={root} p=
m=$r/{OWN} o=$r/{OWN}/{id}
[ ! -L "$m" ] || rm -f "$m"
for d in "${{r%/*}}" "$r" "$m" "$o"; do
if [ ! -d "$d" ]; then rm -rf "$d"
elif ! {{ [ -r "$d" ] && [ -w "$d" ] && [ -x "$d" ]; }}; then chmod u+rwx "$d" 2>/dev/null; p=1; fi
done
mkdir -p "$o" && {{ [ -z "$p" ] || chmod -R u+rwX "$m" 2>/dev/null || :; }}"#
        )
    }

    /// Runs a step of the script, if our own files are as they were extracted: an agent that edits all files below its
    /// workspace may have edited them too. It expects the shell's `$o`.
    fn run_step(step: &str) -> String {
        format!(
            r#"{INTACT} || {{
echo "the script in $o was changed" >&2
exit 1
}}
exec sh "$o/control.sh" {step}"#
        )
    }

    /// The settings of the script that a download needs.
    fn settings(&self) -> String {
        let [dir, marks, own, answer] =
            [&self.remote_dir, &self.marks(), &self.own(), &self.answer()].map(|text| quote(text));
        let [upload, download, status, upload_status] =
            [&self.upload(), &self.download(), &self.status(), &self.upload_status()].map(|text| quote(text));
        let changes = quote(&self.changes());
        format!(
            "dir={dir}\nmarks={marks}\nown={own}\nanswer={answer}\nupload_archive={upload}\ndownload_archive={download}\n\
             status={status}\nupload_status={upload_status}\nchanges_told={changes}\nmessages_max={MESSAGES_MAX}\n"
        )
    }
}

/// A workspace's upload, as the sandbox is to deal with it.
#[derive(Debug, Clone)]
pub struct Upload<'a> {
    /// Its paths in the sandbox.
    pub places: &'a Places,
    /// Names at the top of the workspace that are not cleared.
    pub preserved: &'a [String],
    /// The preserved names that the archive has, and not as directories.
    pub preserved_files: &'a [String],
    /// Patterns that are left out of the download as far as the sandbox's tar can. The local filter decides in
    /// any case.
    pub exclude: &'a [String],
    /// What the sandbox does beside extracting, where the archive has only what differs.
    pub update: Option<&'a Lists>,
    /// Whether the archive holds any entry: toybox refuses one without.
    pub holds_entries: bool,
    /// The digest of what the script lists where the extraction left exactly what was packed; after an update, of what that
    /// sent or gave another time.
    pub expected: Digest,
}

/// What an update does beside its archive.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// The name of the upload that the sandbox has.
    pub former: String,
    /// The index that it made when it reported its changes.
    pub told: String,
    /// What is removed, a line a name.
    pub remove: Vec<u8>,
    /// What is extracted, a line a name.
    pub sent: Vec<u8>,
    /// The files whose time is set: a line with the time and the name for each.
    pub touch: Vec<u8>,
}

impl Upload<'_> {
    /// The control archive, where these parts come before the last one. Its size does not depend on [`Upload::expected`] and
    /// [`Upload::holds_entries`].
    #[must_use]
    pub fn control(&self, earlier: &[Part]) -> Vec<u8> {
        let Self { places, preserved, preserved_files, exclude, update, holds_entries, expected } = self;
        let id = &places.upload_id;
        let holds_entries = u8::from(*holds_entries);
        let (script, digest) = &*TRAVELLING;
        let settings = format!(
            "{}{OF_ANOTHER_UPLOAD}upload={id}\nformer={}\ntold={}\nexpected={expected}\nholds_entries={holds_entries}\n\
             preserved_count={}\n{}{}{}{}. \"$own/script.sh\"\n",
            places.settings(),
            update.map_or("", |update| &update.former),
            update.map_or("", |update| &update.told),
            preserved.len(),
            name_test("is_preserved", preserved.iter()),
            preserved_check(preserved_files),
            exclusions(exclude),
            if update.is_some() { take_over_script(digest) } else { String::new() },
        );
        let patterns =
            exclude.iter().filter(|pattern| is_plain(pattern)).map(|pattern| format!("{pattern}\n"));
        let exclude: String = ["._*\n".to_owned()].into_iter().chain(patterns).collect();
        let mut archive = Vec::new();
        push_file(&mut archive, "control.sh", settings.as_bytes());
        if update.is_none() {
            push_file(&mut archive, "script.sh", script.as_bytes());
        }
        push_file(&mut archive, "exclude", exclude.as_bytes());
        push_file(&mut archive, "parts", part_list(earlier).as_bytes());
        if let Some(update) = update {
            push_file(&mut archive, "remove", &update.remove);
            push_file(&mut archive, "sent", &update.sent);
            push_file(&mut archive, "touch", &update.touch);
        }
        archive.resize(archive.len() + END_MARK, 0);
        archive
    }

    /// Replaces the content of the workspace by that of the archive, which is removed. Preserved names stay at the top
    /// of the workspace, and so does `.paperclip-runtime`. `number` is that of the last part, behind which the control
    /// archive begins, and `size` that of its whole file.
    ///
    /// A part that did not arrive whole fails the command before anything is cleared; so does a folder that must not be
    /// emptied. The archive is taken away first, to where no other upload writes: whatever arrives under its name from then on
    /// is another one. The control archive tells whether it is this upload's.
    #[must_use]
    pub fn command(&self, number: usize, last: Part, size: u64) -> String {
        let archive = quote(&part_path(&self.places.upload(), number));
        let taken = format!("$o/{TAKEN}{}", part_suffix(number));
        let (check_size, make_own) = (check_size(size), self.places.make_own());
        let (start, last) = (last.size + 1, last_part(number, last));
        // Toybox' tar takes what its first read gives for a whole header, and from a pipe that may be a part of one.
        in_shell(&format!(
            r#"a={archive}
unset TAR_OPTIONS
{make_own} && mv -f "$a" "{taken}" && a={taken} || exit
({check_size}) || {{ rm -f "$a"; exit 1; }}
tail -c +{start} "$a" >"$o/c" && (cd "$o" && tar -xf c && rm c) && exec sh "$o/control.sh" upload {last}"#
        ))
    }
}

/// Shell code that fails where these settings are not of the upload whose folder they are in: its archive was replaced by that
/// of another one, which gets it back.
const OF_ANOTHER_UPLOAD: &str = r#"[ "$0" = "$own/control.sh" ] || {
taken=${0%/*}
[ -e "$upload_archive$2" ] || mv -f "$taken/archive$2" "$upload_archive$2"
rm -rf "$taken"
echo "another upload has replaced this one's archive; nothing was changed, prepare again" >&2
exit 1
}
"#;

/// The script's arguments about an archive's last part.
fn last_part(number: usize, Part { size, codec }: Part) -> String {
    format!("'{}' {size} {}", part_suffix(number), codec.name())
}

/// Makes `asset_dir` anew with the content of `archive`, which is removed. An archive that did not arrive with
/// all its `archive_size` bytes fails the command and leaves the folder as it was.
#[must_use]
pub fn upload_asset(asset_dir: &str, archive: &str, archive_size: u64) -> String {
    let (dir, archive) = (quote(asset_dir), quote(archive));
    let check_size = check_size(archive_size);
    // Toybox refuses an archive without an entry.
    let extract = if archive_size <= END_MARK as u64 { "" } else { r#"(umask 0 && tar -xpf "$a") && "# };
    in_shell(&format!(
        r#"a={archive} d={dir}
unset TAR_OPTIONS
{check_size} &&
{{ rm -rf "$d" 2>/dev/null || {{ find "$d" -type d ! -perm -0700 -exec chmod u+rwx {{}} \; ; rm -rf "$d"; }}; }} &&
mkdir -p "$d" && cd "$d" && {extract}rm -f "$a""#
    ))
}

/// An asset's upload by the script that came with the workspace, not by [`upload_asset`]: for an archive in
/// parts or compressed, for one that changes the asset that the sandbox has, or where an index of the asset
/// is to be kept.
#[derive(Debug, Clone, Copy)]
pub struct AssetUpload<'a> {
    /// Where the script is.
    pub places: &'a Places,
    /// The asset's directory.
    pub folder: &'a str,
    /// The archive.
    pub archive: &'a str,
    /// The index of the asset that the archive changes; `None` for one that has all of it.
    pub former: Option<&'a str>,
    /// The name of the index that is to be kept; empty for none.
    pub index: &'a str,
}

impl AssetUpload<'_> {
    /// The command. The last part is followed, in its file of `size` bytes, by the [list](part_list) of the others, and by the
    /// names that a change removes and brings.
    #[must_use]
    pub fn command(&self, number: usize, last: Part, size: u64) -> String {
        let Self { places, folder, archive, former, index } = *self;
        let [file, folder, archive, script] =
            [&part_path(archive, number), folder, archive, &places.script()].map(quote);
        let (check_size, last) = (check_size(size), last_part(number, last));
        let former = former.map_or_else(String::new, |former| format!(" '{former}'"));
        let step = if former.is_empty() { "asset" } else { "asset_change" };
        in_shell(&format!(
            "a={file}\n{check_size} && exec sh {script} {step} {folder} {archive} '{index}' {last}{former}"
        ))
    }
}

/// Has the sandbox say what has changed since an index, in [`Places::changes`]; and which of the assets have not, each by its
/// folder and its index.
///
/// It fails where that cannot be determined, also where the script is gone. What would keep the next upload from being written
/// is removed before.
#[must_use]
pub fn changed(places: &Places, known: &str, new: &str, assets: &[(String, String)]) -> String {
    let assets: String = assets.iter().map(|(dir, index)| [" ", &quote(dir), " ", index].concat()).collect();
    let (dir, make_own) = (quote(&places.remote_dir), places.make_own());
    let look = Places::run_step(&format!("changed {known} {new}{assets}"));
    in_shell(&format!("cd {dir} && {{ {make_own}; }} || exit\n{look}"))
}

/// What a download is compared with. Each name is of letters and digits.
#[derive(Debug, Clone, Copy)]
pub struct Indexes<'a> {
    /// The index of what both sides last shared; all is packed where there is none.
    pub known: Option<&'a str>,
    /// How the one is to be called that is made now, and the download with it.
    pub new: &'a str,
}

/// The name that is given where there is no index.
const NO_INDEX: &str = "none";

/// Packs all of the workspace but its `.paperclip-runtime`, or what has changed since an index, together with what the
/// sandbox has to say ([`Places::answer`]). The archive replaces an older one.
///
/// A failure of tar fails the command and leaves no archive behind. So does a workspace that is missing or
/// cannot be listed: it must not look like an emptied one. And so does a script that is gone.
#[must_use]
pub fn download(places: &Places, indexes: Indexes<'_>, wish: Wish) -> String {
    let Indexes { known, new } = indexes;
    let known = known.unwrap_or(NO_INDEX);
    let pack = Places::run_step(&format!("download {known} {new} {}", wish.arguments()));
    in_shell(&format!("o={}\n{pack}", quote(&places.own())))
}

/// As [`download`], but what tar could not read is left out, and the command fails only where there is no
/// archive at all. The first line of [`Places::status`] is then tar's exit status in decimal digits, 0 if
/// nothing was in the way, and the rest is what was said about it, at most 64 KiB.
///
/// It contains the script, in case that the uploaded one is gone, and puts it beside that, which knows more steps. A list of
/// patterns that was changed would leave out what it must not.
#[must_use]
pub fn tolerant_download(places: &Places, name: &str, wish: Wish) -> String {
    let none: [&str; 0] = [];
    let script = without_comments(&without_parts(SCRIPT));
    let script =
        format!("{}{}{}{script}", places.settings(), name_test("is_preserved", none), exclusions(&[]));
    let (dir, make_own) = (quote(&places.remote_dir), places.make_own());
    // Enters the workspace first: `mkdir -p` would make a missing one again, which would look like an emptied
    // one.
    let plant = format!(
        r#"cd {dir} || exit
{make_own} || exit
{INTACT} || rm -rf "$o/exclude"
s=$o/tolerant-control.sh
rm -rf "$s" && printf %s "$1" > "$s" && exec sh "$s" tolerant {name} {}"#,
        wish.arguments()
    );
    format!("{} sh {}", in_shell(&plant), quote(&script))
}

/// The script without its parts between two comments, which a tolerant download does not need.
fn without_parts(script: &str) -> String {
    let mut kept = String::new();
    let mut rest = script;
    while let Some((before, after)) = rest.split_once("# From this line to the end of this part:") {
        kept.push_str(before);
        rest = after.split_once("# The end of that part.\n").map_or("", |(_, rest)| rest);
    }
    kept + rest
}

/// The script without comments, empty lines and indentation, as it is uploaded.
fn without_comments(script: &str) -> String {
    let lines = script.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Removes the download of that name with all its parts, however many there are, and what else the script has beside it while
/// it packs. That of another session, which has taken its place meanwhile, stays.
#[must_use]
pub fn clear_download(places: &Places, name: &str) -> String {
    let [archive, status, marks] =
        [&places.download(), &places.status(), &places.marks()].map(|path| quote(path));
    in_shell(&format!(
        r#"a={archive} n=
{{ read -r n < {marks}/download; }} 2>/dev/null
case $n in
'' | {name}) rm -rf "$a" "$a".* {status} ;;
*) rm -rf "$a".*-{name}* ;;
esac"#
    ))
}

fn in_shell(script: &str) -> String {
    format!("sh -c {}", quote(script))
}

/// Fails, and says by how much, where the file `$a` has other than `size` bytes.
fn check_size(size: u64) -> String {
    format!(
        r#"n=$(wc -c < "$a") && {{ [ "$n" -eq {size} ] || {{
echo "$n of the archive's {size} bytes arrived; nothing was changed, upload it again" >&2
exit 1; }}; }}"#
    )
}

/// A function that tells whether `$1` is our own folder or one of `names`, each taken literally, at the top of the
/// current folder.
fn name_test(function: &str, names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut test = format!("{function}() {{\n    case $1 in\n    ./{RUNTIME}");
    for name in names {
        let name = name.as_ref();
        // No entry of a folder has a name with a slash or a NUL in it.
        if !name.is_empty() && !name.contains(['/', '\0']) {
            test.push_str(" | \\\n        ./");
            test.push_str(&quote(name));
        }
    }
    test.push_str(") ;;\n    *) return 1 ;;\n    esac\n}\n");
    test
}

/// The script's function that refuses an upload which has files where the sandbox preserves directories.
fn preserved_check(preserved_files: &[String]) -> String {
    let checks = preserved_files.iter().map(|name| format!("    is_no_directory ./{}\n", quote(name)));
    format!("check_preserved() {{\n    :\n{}}}\n", checks.collect::<String>())
}

/// Shell code that takes the script of the upload before, and fails if that is not as it was uploaded.
fn take_over_script(digest: &Digest) -> String {
    format!(
        r#"[ -f "$own/script.sh" ] || {{
cat "$marks/$former/script.sh" > "$own/script.sh" && case $(sha256sum < "$own/script.sh") in
{digest}*) ;;
*) false ;;
esac
}} || {{
rm -f "$own/script.sh"
echo "the script of the upload before is gone or changed; everything is to be uploaded" >&2
exit 1
}}
"#
    )
}

/// The script's functions for what a download leaves out at the top of the workspace.
fn exclusions(exclude: &[String]) -> String {
    let names = || exclude.iter().filter_map(|pattern| top_level_name(pattern));
    let mut left = TOYBOX_EXCLUDES_MAX;
    let fitting = names().take_while(|name| {
        let fits = name.len() < left;
        left = left.saturating_sub(name.len() + 16);
        fits
    });
    let options: Vec<String> =
        [RUNTIME].into_iter().chain(fitting).map(|name| format!("--exclude=./{}", quote(name))).collect();
    let options = options.join(" ");
    let test = name_test("is_excluded", names());
    let count = names().count();
    format!(
        "excluded_count={count}\n{test}toybox_pack() {{\n    tar -cf \"$archive\" {options} \"$answer\" \"$@\"\n}}\n"
    )
}

/// The name at the top of the workspace that a pattern matches, if it is a plain name.
fn top_level_name(pattern: &str) -> Option<&str> {
    let name = pattern.strip_prefix("./").unwrap_or(pattern);
    (is_plain(name) && !name.contains(['*', '/'])).then_some(name)
}

/// Whether GNU tar of any version gives the pattern, as a line of a file, the meaning that it has in this package: it is text
/// and `*`. Tar takes blanks off the end of a line, and a line break ends the pattern.
fn is_plain(pattern: &str) -> bool {
    !pattern.is_empty() && !pattern.contains(['?', '[', '\\', '\n', '\0']) && pattern.trim_end() == pattern
}

/// Adds a regular file to an archive.
fn push_file(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    let size = content.len() as u64;
    let meta = Meta {
        kind: Kind::File,
        mode: 0o644,
        size,
        mtime: (0, 0),
        ctime: (0, 0),
        id: FileId::default(),
        links: 1,
        owner: (0, 0),
    };
    let start = archive.len();
    let member = Member::File { size };
    archive.resize(start + header::length(name.as_bytes(), member), 0);
    header::write(&mut archive[start..], name.as_bytes(), &meta, member);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(header::BLOCK), 0);
}
