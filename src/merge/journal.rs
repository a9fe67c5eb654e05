//! The journal of a merge: what it is about to displace, written before its first change.
//!
//! A displaced version is in the stage for a moment, until it has been compared. A process that is killed in
//! that moment leaves it there. The merge that finds the stage must know whether an entry in it is new
//! content that was never placed, a version that was uploaded, or a local edit that exists nowhere else.
//!
//! So a journal counts only if it is complete. Its first line tells how many displacements follow, and every
//! line begins with a checksum of the rest. Lines that are added during the merge (for mounts below the
//! workspace) are not counted, so an unfinished one is taken for damage. Nothing is displaced while the
//! journal is being written; a marker in the stage says so until [`Stage::begin`] removes it. If the marker
//! is gone and the journal is missing, damaged or of another version, nothing is known, and everything in the
//! stage is backed up.

use std::ffi::OsStr;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;

use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::conflicts::Backups;
use super::report::{Rescued, Skipped};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{Cursor, File, Kind, Meta, Root};
use crate::path::RelativePath;
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, PERMISSIONS};
use crate::tree::scan::Reader;
use crate::tree::stage::{Abandoned, Stage};

/// The journal's name in the stage. No staged entry has such a name.
const JOURNAL: &str = "journal";

/// The version of the journal's format.
const VERSION: u32 = 2;

/// How many hexadecimal digits the checksum of a line has: the first ones of its SHA-256.
const CHECKSUM: usize = 16;

/// The suffix of a displaced version in the stage, where names cannot be exchanged.
pub const DISPLACED: &str = ".displaced";

/// The suffix of a copy that is not complete.
pub const PART: &str = ".part";

/// Why an abandoned stage is still there.
const NOT_CLEARED_UP: &str = "a merge that did not finish left it, and it could not be cleared up; the next one tries \
     again, where files can be locked";

/// How many displacements one thread formats at a time.
const LINES: usize = 256;

/// How many such pieces are in memory as text.
const WINDOW: usize = 16;

/// A new version that is to be placed, by what identifies it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum NewVersion {
    /// A file or link, by its inode.
    Inode(u64),
    /// The copy of a file, by the digest of its content and its permission bits.
    Copy(String, u32),
    /// The copy of a link, by its target.
    Link(Name),
    /// A new, empty folder.
    #[serde(rename = "Dir")]
    Folder,
    /// None: the path is to be deleted.
    Nothing,
}

impl NewVersion {
    /// The copy of an entry on another file system than the stage.
    #[must_use]
    pub fn copy_of(entry: Option<&Entry>) -> Self {
        match entry {
            Some(Entry::File { mode, digest }) => Self::Copy(digest.to_string(), mode & PERMISSIONS),
            Some(Entry::Symlink { target }) => Self::Link(Name::of(target)),
            Some(Entry::Folder { .. }) => Self::Folder,
            None => Self::Nothing,
        }
    }
}

/// The first line of a journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The least number of lines that follow: those that were written before anything was displaced.
    displacements: usize,
}

/// A path in the workspace at which something may be displaced.
#[derive(Debug, Serialize, Deserialize)]
pub struct Displacement {
    /// Where the new version is first, and the displaced one afterwards: a name in the stage
    name: Name,
    /// or a path in the workspace, if `path` is on another file system.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    in_workspace: bool,
    path: Name,
    /// Whether the local version is backed up in any case.
    #[serde(rename = "aside")]
    back_up: bool,
    #[serde(rename = "arriving")]
    new_version: NewVersion,
    /// The local version when the plan was made.
    seen: Option<Identity>,
}

/// A path or link target, as text if it is UTF-8.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Name {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(bytes.to_vec()),
        }
    }

    fn as_path(&self) -> Option<RelativePath> {
        RelativePath::parse(self.as_bytes()).ok().flatten()
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Inode, size, time and mode: what an edit changes.
type Identity = (u64, u64, (i64, i64), u32);

fn identity(meta: &Meta) -> Identity {
    (meta.id.inode(), meta.size, meta.mtime, meta.mode)
}

impl Displacement {
    /// The displacement of what was `seen` at `path`, by the new version that is in the stage as `name`.
    #[must_use]
    pub fn new(
        path: &RelativePath,
        name: &RelativePath,
        new_version: NewVersion,
        seen: Option<&Meta>,
        back_up: bool,
    ) -> Self {
        Self {
            name: Name::of(name.as_bytes()),
            in_workspace: false,
            path: Name::of(path.as_bytes()),
            back_up,
            new_version,
            seen: seen.map(identity),
        }
    }

    /// The same by a new version that is in the workspace, beside `path`.
    #[must_use]
    pub fn beside(
        path: &RelativePath,
        name: &RelativePath,
        new_version: NewVersion,
        seen: Option<&Meta>,
        back_up: bool,
    ) -> Self {
        Self { in_workspace: true, ..Self::new(path, name, new_version, seen, back_up) }
    }

    /// Parses a line of a journal, with its name and path. `None` if the stage's own process cannot have
    /// written it: only names that it `is_own_temporary_name` are names of its own in the workspace.
    fn read(
        line: &[u8],
        is_own_temporary_name: &impl Fn(&OsStr) -> bool,
    ) -> Option<(Self, RelativePath, RelativePath)> {
        let displacement: Self = read_line(line)?;
        let [name, path] = [&displacement.name, &displacement.path].map(Name::as_path);
        let (name, path) = (name?, path?);
        let is_beside = || name.split().0 == path.split().0 && is_own_temporary_name(name.name());
        (!displacement.in_workspace || is_beside()).then_some((displacement, name, path))
    }

    /// Whether the entry found under the name is a local edit, which exists nowhere else.
    fn is_local_edit(&self, cursor: &mut Cursor<'_>, name: &RelativePath, found: &Meta) -> Result<bool> {
        if !self.back_up && self.seen == Some(identity(found)) {
            return Ok(false);
        }
        let is_new_version = match &self.new_version {
            NewVersion::Inode(ino) => found.id.inode() == *ino,
            NewVersion::Copy(digest, mode) => {
                let file = Reader::new().file(cursor, name, &Cancel::default(), |_| Ok(()))?;
                file.is_some_and(|(now, found)| {
                    now.mode & PERMISSIONS == *mode && digest.parse() == Ok::<Digest, ()>(found)
                })
            }
            NewVersion::Link(target) => {
                cursor.read_link(name)?.is_some_and(|found| *found == *target.as_bytes())
            }
            NewVersion::Folder => {
                found.kind == Kind::Folder && cursor.list(Some(name))?.is_none_or(|names| names.is_empty())
            }
            NewVersion::Nothing => false,
        };
        Ok(!is_new_version)
    }
}

/// The journal of a merge that is under way.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<Written>,
    path: PathBuf,
}

#[derive(Debug)]
struct Written {
    file: File,
    /// The length up to which all lines are complete.
    complete: u64,
    /// Why a line could not be written, if the part that was written could not be removed.
    failure: Option<WriteFailure>,
}

/// Why nothing more can be written. (An error itself cannot be cloned.)
#[derive(Debug, Clone, Copy)]
struct WriteFailure {
    errno: Option<i32>,
    kind: io::ErrorKind,
}

impl From<WriteFailure> for io::Error {
    fn from(WriteFailure { errno, kind }: WriteFailure) -> Self {
        errno.map_or_else(|| kind.into(), Self::from_raw_os_error)
    }
}

impl Journal {
    /// Writes the journal of a stage. From then on entries may be displaced.
    pub fn begin<T: Sync>(
        stage: &Stage,
        items: &[T],
        displacement: impl Fn(&T) -> Displacement + Sync,
    ) -> Result<Self> {
        let mut cursor = stage.cursor();
        let name = RelativePath::child(None, JOURNAL.as_bytes());
        let written = Written { file: cursor.create(&name, 0o600)?, complete: 0, failure: None };
        let journal = Self { file: Mutex::new(written), path: cursor.path_of(&name) };
        journal.write(&lines(std::iter::once(Head { version: VERSION, displacements: items.len() })))?;
        // One window at a time: the text of all displacements would take more memory than the displacements
        // themselves.
        for items in items.chunks(LINES * WINDOW) {
            let texts = items.par_chunks(LINES).map(|items| lines(items.iter().map(&displacement)));
            texts.collect::<Vec<_>>().iter().try_for_each(|text| journal.write(text))?;
        }
        stage.begin()?;
        Ok(journal)
    }

    /// Records one more displacement, before it happens.
    pub fn add(&self, displacement: Displacement) -> Result<()> {
        self.write(&lines(std::iter::once(displacement)))
    }

    fn write(&self, text: &[u8]) -> Result<()> {
        let mut written = lock(&self.file);
        let failed = |error: io::Error| Error::io("write", &self.path, error);
        if let Some(failure) = written.failure {
            return Err(failed(failure.into()));
        }
        match written.file.write_all(text) {
            Ok(()) => {
                written.complete += text.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What is not recorded does not happen. But half a line would make all others worthless.
                let complete = written.complete;
                let restored = written
                    .file
                    .set_len(complete)
                    .and_then(|()| written.file.seek(SeekFrom::Start(complete)));
                if restored.is_err() {
                    written.failure = Some(WriteFailure { errno: error.raw_os_error(), kind: error.kind() });
                }
                Err(failed(error))
            }
        }
    }
}

fn checksum(json: &[u8]) -> [u8; CHECKSUM] {
    let digits = Digest(sha2::Sha256::digest(json).into()).hexadecimal();
    std::array::from_fn(|at| digits[at])
}

fn lines<T: Serialize>(values: impl Iterator<Item = T>) -> Vec<u8> {
    let mut text = Vec::new();
    for value in values {
        let sum = text.len();
        text.extend_from_slice(&[b' '; CHECKSUM + 1]);
        let json = text.len();
        serde_json::to_writer(&mut text, &value).expect("a displacement has nothing that JSON cannot say");
        let checksum = checksum(&text[json..]);
        text[sum..sum + CHECKSUM].copy_from_slice(&checksum);
        text.push(b'\n');
    }
    text
}

/// Parses a line, if it is complete.
fn read_line<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(CHECKSUM)?;
    let json = json.strip_prefix(b" ")?;
    if *sum != checksum(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Clears up after killed processes: backs up the local versions that they had just displaced, and removes
/// everything else that they left. What cannot be cleared up now stays, and is no failure.
pub fn rescue(root: &Root, rescued: &mut Rescued) -> Result<()> {
    let abandoned = Stage::abandoned(root)?;
    // These are inspected again. Others are reported as long as they exist: without file locks, only the
    // merge that made a stage can clear it up.
    let mut cursor = root.cursor();
    rescued.skipped.retain(|skipped| {
        !abandoned.iter().any(|stage| *stage.path() == skipped.path)
            && cursor.stat(&skipped.path).is_ok_and(|found| found.is_some())
    });
    clear_up(root, abandoned, rescued);
    Ok(())
}

/// Does the same for the given stages.
pub fn clear_up(root: &Root, stages: impl IntoIterator<Item = Abandoned>, rescued: &mut Rescued) {
    let conflicts = Backups::default();
    for abandoned in stages {
        let stage = abandoned.path().clone();
        let cleared = rescue_from(root, &abandoned, &conflicts).and_then(|known| {
            if known {
                return abandoned.remove(root);
            }
            // All of it is backed up, so no later restore has to inspect it again.
            conflicts.back_up(root, (&mut root.cursor(), &stage), &stage, true).map(|_| ())
        });
        if cleared.is_err() {
            rescued.skipped.push(Skipped { path: stage, reason: NOT_CLEARED_UP });
        }
    }
    rescued.conflicts.extend(conflicts.into_conflicts());
}

/// Backs up the local versions in an abandoned stage. Returns `false` if its journal is not complete, so what
/// else is in it is unknown.
fn rescue_from(root: &Root, abandoned: &Abandoned, conflicts: &Backups) -> Result<bool> {
    if !abandoned.had_begun()? || abandoned.has_no_file()? {
        return Ok(true);
    }
    let (mut in_stage, mut in_root) = (abandoned.cursor(), root.cursor());
    let journal = RelativePath::child(None, JOURNAL.as_bytes());
    let mut bytes = Vec::new();
    if let Some((mut file, _)) = in_stage.open(&journal)? {
        file.read_to_end(&mut bytes).map_err(|error| Error::io("read", in_stage.path_of(&journal), error))?;
    }
    let (displacements, is_complete) = read_journal(&bytes, &|name| abandoned.is_own_temporary_name(name));
    for (displacement, name, path) in displacements {
        let cursor = if displacement.in_workspace {
            in_root.remove_file(&name.with_suffix(PART))?;
            &mut in_root
        } else {
            &mut in_stage
        };
        // Where names cannot be exchanged, the displaced version has a name of its own for a moment.
        for name in [name.with_suffix(DISPLACED), name] {
            let Some(found) = cursor.stat(&name)? else { continue };
            if displacement.is_local_edit(cursor, &name, &found)? {
                conflicts.back_up(root, (&mut *cursor, &name), &path, true)?;
            } else if displacement.in_workspace {
                cursor.remove(&name)?;
            }
        }
    }
    Ok(is_complete)
}

/// Parses a journal into its displacements, each with its name and path, and tells whether it is complete. A
/// complete line is valid even if others are damaged.
fn read_journal(
    bytes: &[u8],
    is_own_temporary_name: &impl Fn(&OsStr) -> bool,
) -> (Vec<(Displacement, RelativePath, RelativePath)>, bool) {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let head = lines.next().and_then(read_line::<Head>).filter(|head| head.version == VERSION);
    let mut displacements = Vec::new();
    let mut is_complete = true;
    for line in lines {
        match Displacement::read(line, is_own_temporary_name) {
            Some(displacement) => displacements.push(displacement),
            None => is_complete = false,
        }
    }
    let has_all = head.is_some_and(|head| head.displacements <= displacements.len());
    (displacements, is_complete && has_all)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::fs::FileId;
    use rustix::io::Errno;

    /// Whether what `make` puts at the name is a local edit, given the new version that was to be placed.
    fn is_local_edit(new_version: NewVersion, make: impl Fn(&std::path::Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let name = RelativePath::parse(b"name").unwrap().unwrap();
        make(&folder.path().join("name"));
        let mut cursor = root.cursor();
        let found = cursor.stat(&name).unwrap().unwrap();
        let text = lines(std::iter::once(Displacement::new(&name, &name, new_version, None, false)));
        let read: Displacement = read_line(&text).unwrap();
        read.is_local_edit(&mut cursor, &name, &found).unwrap()
    }

    #[test]
    fn a_new_version_is_recognized_and_everything_else_is_a_local_edit() {
        let write = |content: &'static str, mode: u32| {
            move |at: &std::path::Path| {
                fs::write(at, content).unwrap();
                fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
            }
        };
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
        let copy = || NewVersion::copy_of(Some(&Entry::File { mode: 0o100_644, digest }));
        assert!(!is_local_edit(copy(), write("abc", 0o644)), "the copy");
        assert!(is_local_edit(copy(), write("abd", 0o644)), "other content");
        assert!(is_local_edit(copy(), write("abc", 0o600)), "another mode");
        assert!(is_local_edit(copy(), |at| symlink("abc", at).unwrap()), "another kind");
        // macOS may refuse names and targets that are not UTF-8.
        let target: &[u8] = if cfg!(target_os = "linux") { b"to\xff" } else { b"to" };
        let link = || NewVersion::copy_of(Some(&Entry::Symlink { target: target.into() }));
        assert!(!is_local_edit(link(), |at| symlink(OsStr::from_bytes(target), at).unwrap()), "the link");
        assert!(is_local_edit(link(), |at| symlink("elsewhere", at).unwrap()), "another target");
        assert!(is_local_edit(link(), write("to", 0o644)), "a file");
        let dir = || NewVersion::copy_of(Some(&Entry::Folder { mode: None }));
        assert!(!is_local_edit(dir(), |at| fs::create_dir(at).unwrap()), "the folder");
        assert!(
            is_local_edit(dir(), |at| fs::create_dir_all(at.join("in")).unwrap()),
            "a folder with something in it"
        );
        assert!(is_local_edit(dir(), write("", 0o644)), "a file");
        assert!(
            is_local_edit(NewVersion::copy_of(None), write("", 0o644)),
            "a deleted path has no new version"
        );
        assert!(is_local_edit(NewVersion::Inode(0), write("", 0o644)), "another inode");
    }

    #[test]
    fn an_uploaded_version_is_not_a_local_edit_unless_it_is_to_be_backed_up() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let name = RelativePath::parse(b"name").unwrap().unwrap();
        fs::write(folder.path().join("name"), "uploaded").unwrap();
        let mut cursor = root.cursor();
        let seen = cursor.stat(&name).unwrap().unwrap();
        let mut is_local_edit = |seen: &Meta, new_version: NewVersion, back_up: bool| {
            let found = cursor.stat(&name).unwrap().unwrap();
            let displacement = Displacement::new(&name, &name, new_version, Some(seen), back_up);
            displacement.is_local_edit(&mut cursor, &name, &found).unwrap()
        };
        assert!(!is_local_edit(&seen, NewVersion::Nothing, false));
        assert!(is_local_edit(&seen, NewVersion::Nothing, true));
        assert!(is_local_edit(&Meta { size: 9, ..seen }, NewVersion::Nothing, false), "touched since");
        assert!(
            !is_local_edit(&seen, NewVersion::Inode(seen.id.inode()), true),
            "the new version is in its place"
        );
    }

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    /// The stage of a process that was killed in the middle of a merge. It contains an edit, displaced from
    /// `edited`; a version that was uploaded, displaced from `uploaded`; and content that was never placed at
    /// `new`.
    fn killed(workspace: &std::path::Path) -> (Root, Abandoned, PathBuf) {
        let root = Root::open(workspace).unwrap();
        let stage = Stage::open(&root).unwrap();
        let mut cursor = stage.cursor();
        let mut put = |content: &str| {
            let (name, mut file) = stage.file(&mut cursor, 0o644).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            let meta = cursor.stat(&name).unwrap().unwrap();
            (name, meta)
        };
        let (edited, uploaded, new) = (put("edit"), put("uploaded"), put("new"));
        let other = Meta { id: FileId::default(), ..edited.1 };
        let items = [
            ("edited", &edited.0, NewVersion::Inode(0), Some(&other)),
            ("uploaded", &uploaded.0, NewVersion::Inode(0), Some(&uploaded.1)),
            ("new", &new.0, NewVersion::Inode(new.1.id.inode()), None),
        ];
        Journal::begin(&stage, &items, |(at, name, new_version, seen)| {
            Displacement::new(&path(at), name, new_version.clone(), *seen, false)
        })
        .unwrap();
        let abandoned = stage.abandon();
        let journal = workspace.join(abandoned.path().as_path()).join(JOURNAL);
        (root, abandoned, journal)
    }

    /// Clears up after the killed merge, and returns the content of every backup.
    fn cleared_up(root: &Root, abandoned: Abandoned) -> Vec<String> {
        let mut rescued = Rescued::default();
        let stage = root.path_of(abandoned.path());
        clear_up(root, [abandoned], &mut rescued);
        assert!(rescued.skipped.is_empty(), "{rescued:?}");
        assert!(!stage.exists());
        let conflicts = root.path().join(".paperclip-runtime/conflicts");
        let files = walkdir::WalkDir::new(conflicts).into_iter().map(|entry| entry.unwrap().into_path());
        let mut texts: Vec<_> = files
            .filter(|path| path.is_file())
            .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
            .collect();
        texts.sort_unstable();
        texts
    }

    #[test]
    fn with_a_complete_journal_only_the_edit_is_backed_up() {
        let folder = tempfile::tempdir().unwrap();
        let (root, abandoned, _) = killed(folder.path());
        assert_eq!(cleared_up(&root, abandoned), ["edit"]);
    }

    /// Everything that may be wrong with a journal of three displacements, with its content.
    fn damages(complete: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
        let lines_of = || complete.split_inclusive(|&byte| byte == b'\n');
        let ends = lines_of().scan(0, |end, line| {
            *end += line.len();
            Some(*end)
        });
        let mut damages = Vec::new();
        // At the end of each line, and one byte before and after it.
        for length in ends.flat_map(|end| [end - 1, end, end + 1]).filter(|&length| length < complete.len()) {
            damages.push((format!("cut to {length} bytes"), Some(complete[..length].to_vec())));
            let mut zeroed = complete.to_vec();
            zeroed[length..].fill(0);
            damages.push((format!("zeroed from byte {length}"), Some(zeroed)));
        }
        for line in 0..4 {
            let others =
                lines_of().enumerate().filter(|(at, _)| *at != line).flat_map(|(_, line)| line.to_vec());
            damages.push((format!("without line {line}"), Some(others.collect())));
        }
        let other = Head { version: VERSION + 1, displacements: 3 };
        let rest = || lines_of().skip(1);
        damages.extend([
            ("gone".to_owned(), None),
            ("empty".to_owned(), Some(Vec::new())),
            ("garbage".to_owned(), Some(b"\xff{}[]\n\n \nnull\n".to_vec())),
            (
                "without checksums, as the first version wrote it".to_owned(),
                Some(rest().flat_map(|line| line[CHECKSUM + 1..].to_vec()).collect()),
            ),
            (
                "of another version".to_owned(),
                Some(lines(std::iter::once(other)).into_iter().chain(rest().flatten().copied()).collect()),
            ),
            ("with half a line more".to_owned(), Some([complete, &b"0123456789abcdef {"[..]].concat())),
        ]);
        damages
    }

    #[test]
    fn with_an_incomplete_journal_everything_is_backed_up() {
        let complete = |journal: &std::path::Path| fs::read(journal).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (_root, _abandoned, journal) = killed(folder.path());
        let count = damages(&complete(&journal)).len();
        for at in 0..count {
            let folder = tempfile::tempdir().unwrap();
            let (root, abandoned, journal) = killed(folder.path());
            let (what, damaged) = damages(&complete(&journal)).swap_remove(at);
            match damaged {
                Some(damaged) => fs::write(&journal, damaged).unwrap(),
                None => fs::remove_file(&journal).unwrap(),
            }
            let texts = cleared_up(&root, abandoned);
            for text in ["edit", "uploaded", "new"] {
                assert!(texts.iter().any(|found| found == text), "{what}: {text} is not among {texts:?}");
            }
        }
    }

    #[test]
    fn a_journal_that_is_cut_or_changed_anywhere_is_incomplete() {
        let folder = tempfile::tempdir().unwrap();
        let (_root, _abandoned, journal) = killed(folder.path());
        let complete = fs::read(journal).unwrap();
        let is_complete = |bytes: &[u8]| read_journal(bytes, &|_| true).1;
        assert!(is_complete(&complete));
        for at in 0..complete.len() {
            assert!(!is_complete(&complete[..at]), "cut to {at} bytes");
            for bit in 0..8 {
                let mut other = complete.clone();
                other[at] ^= 1 << bit;
                assert!(!is_complete(&other), "bit {bit} of byte {at}");
            }
            let mut zeroed = complete.clone();
            zeroed[at..].fill(0);
            assert!(!is_complete(&zeroed), "zeroed from byte {at}");
        }
    }

    #[test]
    fn nothing_is_backed_up_from_before_the_first_displacement() {
        for written in [None, Some(""), Some("0123456789abcdef {\"version\":2")] {
            let folder = tempfile::tempdir().unwrap();
            let root = Root::open(folder.path()).unwrap();
            let stage = Stage::open(&root).unwrap();
            stage.file(&mut stage.cursor(), 0o644).unwrap();
            let abandoned = stage.abandon();
            if let Some(written) = written {
                fs::write(root.path_of(abandoned.path()).join(JOURNAL), written).unwrap();
            }
            clear_up(&root, [abandoned], &mut Rescued::default());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{written:?}");
        }
    }

    #[test]
    fn a_stage_without_a_single_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let stage = Stage::open(&root).unwrap();
        stage.begin().unwrap();
        clear_up(&root, [stage.abandon()], &mut Rescued::default());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nothing_is_written_after_half_a_line_that_could_not_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let stage = Stage::open(&root).unwrap();
        let journal = Journal::begin(&stage, &[(); 0], |()| unreachable!()).unwrap();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = std::mem::replace(&mut lock(&journal.file).file, full);
        let displacement = || Displacement::new(&path("a"), &path("0"), NewVersion::Nothing, None, false);
        let error = journal.add(displacement()).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::NOSPC.raw_os_error()));
        lock(&journal.file).file = file;
        let error = journal.add(displacement()).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::NOSPC.raw_os_error()), "a writable file makes no difference");
    }
}
