//! What a merge is about to displace, written down before the first change.
//!
//! A version that was displaced lies in the stage for a moment, until it has been looked at. A process that is killed
//! in that moment leaves it there, and whoever finds the stage must know whether it is content that never reached its
//! place, a version that was uploaded as it was, or somebody's edit that is nowhere else.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;

use rayon::prelude::*;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::conflicts::Conflicts;
use super::report::{Rescued, Skipped};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::path::RelativePath;
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, PERMISSIONS};
use crate::tree::root::{Cursor, Kind, Meta, Root};
use crate::tree::scan::Reader;
use crate::tree::stage::{Abandoned, Stage};

/// The journal's name in the stage; no staged name looks like it.
const JOURNAL: &str = "journal";

/// What is put behind a name in the stage for the version that it displaced, where names cannot be exchanged.
pub const DISPLACED: &str = ".displaced";

/// What is put behind the name of a copy that is not complete.
pub const PART: &str = ".part";

/// Why an abandoned stage is still there.
const UNCLEARED: &str = "a merge that did not finish left it, and it could not be cleared up; the next one tries \
     again, where files can be locked";

/// How many displacements one thread writes down at a time.
const LINES: usize = 256;

/// How many threads' worth of them are in memory as text.
const WINDOW: usize = 16;

/// What waits for its place, by what it is known again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Arriving {
    /// A file or link, by its inode.
    Inode(u64),
    /// The copy of a file, by the digest of its content and its permission bits.
    Copy(String, u32),
    /// The copy of a link, by where it points.
    Link(Name),
    /// A new folder: nothing is in it.
    Dir,
    /// Nothing: the path is to be deleted.
    Nothing,
}

impl Arriving {
    /// The copy of an entry on another file system than the stage.
    #[must_use]
    pub fn copy_of(entry: Option<&Entry>) -> Self {
        match entry {
            Some(Entry::File { mode, digest }) => Self::Copy(digest.to_string(), mode & PERMISSIONS),
            Some(Entry::Symlink { target }) => Self::Link(Name::of(target)),
            Some(Entry::Dir { .. }) => Self::Dir,
            None => Self::Nothing,
        }
    }
}

/// One path of the workspace at which something may be displaced.
#[derive(Debug, Serialize, Deserialize)]
pub struct Displacement {
    /// Where the new version waits, and the displaced one afterwards: in the stage.
    name: Name,
    /// Or in the workspace, where the path lies on another file system.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    in_workspace: bool,
    path: Name,
    /// Whether the local version is kept in any case.
    aside: bool,
    arriving: Arriving,
    /// What stood at the path when the plan was made.
    seen: Option<Identity>,
}

/// A path or link target, as text where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    /// Text.
    Text(String),
    /// Something else.
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

/// Inode, size, time and mode: what changes when somebody touches a file.
type Identity = (u64, u64, (i64, i64), u32);

fn identity(meta: &Meta) -> Identity {
    (meta.ino, meta.size, meta.mtime, meta.mode)
}

impl Displacement {
    /// Of what was `seen` at `path`, by what waits in the stage as `name`.
    #[must_use]
    pub fn new(
        path: &RelativePath,
        name: &RelativePath,
        arriving: Arriving,
        seen: Option<&Meta>,
        aside: bool,
    ) -> Self {
        Self {
            name: Name::of(name.as_bytes()),
            in_workspace: false,
            path: Name::of(path.as_bytes()),
            aside,
            arriving,
            seen: seen.map(identity),
        }
    }

    /// The same by what waits in the workspace, beside `path`.
    #[must_use]
    pub fn beside(
        path: &RelativePath,
        name: &RelativePath,
        arriving: Arriving,
        seen: Option<&Meta>,
        aside: bool,
    ) -> Self {
        Self { in_workspace: true, ..Self::new(path, name, arriving, seen, aside) }
    }

    /// Reads a line of the journal in an abandoned stage, with its name and path. Nothing where it is not one that the
    /// stage's process can have written.
    fn read(line: &[u8], stage: &Abandoned) -> Option<(Self, RelativePath, RelativePath)> {
        let displacement: Self = serde_json::from_slice(line).ok()?;
        let [name, path] = [&displacement.name, &displacement.path].map(Name::as_path);
        let (name, path) = (name?, path?);
        let is_beside = || name.split().0 == path.split().0 && stage.has_named(name.name());
        (!displacement.in_workspace || is_beside()).then_some((displacement, name, path))
    }

    /// Whether what lies under the name is to be kept: a local version that is nowhere else.
    fn is_somebodys(&self, cursor: &mut Cursor<'_>, name: &RelativePath, found: &Meta) -> Result<bool> {
        if !self.aside && self.seen == Some(identity(found)) {
            return Ok(false);
        }
        let is_what_arrives = match &self.arriving {
            Arriving::Inode(ino) => found.ino == *ino,
            Arriving::Copy(digest, mode) => {
                let file = Reader::new().file(cursor, name, &Cancel::default(), |_| Ok(()))?;
                file.is_some_and(|(now, found)| {
                    now.mode & PERMISSIONS == *mode && digest.parse() == Ok::<Digest, ()>(found)
                })
            }
            Arriving::Link(target) => {
                cursor.read_link(name)?.is_some_and(|found| *found == *target.as_bytes())
            }
            Arriving::Dir => {
                found.kind == Kind::Dir && cursor.list(Some(name))?.is_none_or(|names| names.is_empty())
            }
            Arriving::Nothing => false,
        };
        Ok(!is_what_arrives)
    }
}

/// The journal of a merge that is under way.
#[derive(Debug)]
pub struct Journal {
    /// Or why a line could not be written: what came after half a line could not be read.
    file: Mutex<std::result::Result<File, Errno>>,
    path: PathBuf,
}

impl Journal {
    /// Begins the journal of a stage, before anything is displaced.
    pub fn begin<T: Sync>(
        stage: &Stage,
        items: &[T],
        displacement: impl Fn(&T) -> Displacement + Sync,
    ) -> Result<Self> {
        let mut cursor = stage.cursor();
        let name = RelativePath::child(None, JOURNAL.as_bytes());
        let file = cursor.create(&name, 0o600)?;
        let journal = Self { file: Mutex::new(Ok(file)), path: cursor.path_of(&name) };
        // A window at a time: the text of all of it would take more memory than all else that is known of them.
        for items in items.chunks(LINES * WINDOW) {
            let texts = items.par_chunks(LINES).map(|items| lines(items.iter().map(&displacement)));
            texts.collect::<Vec<_>>().iter().try_for_each(|text| journal.write(text))?;
        }
        Ok(journal)
    }

    /// Writes down one more, before it happens.
    pub fn add(&self, displacement: Displacement) -> Result<()> {
        self.write(&lines(std::iter::once(displacement)))
    }

    fn write(&self, text: &[u8]) -> Result<()> {
        let mut open = lock(&self.file);
        let failed = |error: std::io::Error| Error::io("write", &self.path, error);
        let file = open.as_mut().map_err(|errno| failed((*errno).into()))?;
        file.write_all(text).map_err(|error| {
            *open = Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
            failed(error)
        })
    }
}

fn lines(displacements: impl Iterator<Item = Displacement>) -> Vec<u8> {
    let mut text = Vec::new();
    for displacement in displacements {
        serde_json::to_writer(&mut text, &displacement)
            .expect("a displacement has nothing that JSON cannot say");
        text.push(b'\n');
    }
    text
}

/// Clears up after killed processes: local versions that they had just displaced are kept as conflicts, and all else
/// that they left is removed. What cannot be cleared up now stays, and is no reason not to go on.
pub fn rescue(root: &Root, rescued: &mut Rescued) -> Result<()> {
    let abandoned = Stage::abandoned(root)?;
    // Those are looked at anew. Others are still to be told of, for as long as they are there: without locks only the
    // merge that made a stage can clear it up.
    let mut cursor = root.cursor();
    rescued.skipped.retain(|skipped| {
        !abandoned.iter().any(|stage| *stage.path() == skipped.path)
            && cursor.stat(&skipped.path).is_ok_and(|found| found.is_some())
    });
    clear_up(root, abandoned, rescued);
    Ok(())
}

/// The same for some stages.
pub fn clear_up(root: &Root, stages: impl IntoIterator<Item = Abandoned>, rescued: &mut Rescued) {
    let conflicts = Conflicts::default();
    for abandoned in stages {
        let stage = abandoned.path().clone();
        let cleared = rescue_from(root, &abandoned, &conflicts).and_then(|known| {
            if known {
                return abandoned.remove(root);
            }
            // All of it is kept, where no later restore has to look at it again.
            conflicts.keep(root, (&mut root.cursor(), &stage), &stage, true).map(|_| ())
        });
        if cleared.is_err() {
            rescued.skipped.push(Skipped { path: stage, reason: UNCLEARED });
        }
    }
    rescued.conflicts.extend(conflicts.into_kept());
}

/// Keeps what is somebody's in an abandoned stage. `false` where something in its journal is not ours, so that nobody
/// knows what else lies there.
fn rescue_from(root: &Root, abandoned: &Abandoned, conflicts: &Conflicts) -> Result<bool> {
    let (mut in_stage, mut in_root) = (abandoned.cursor(), root.cursor());
    let journal = RelativePath::child(None, JOURNAL.as_bytes());
    let Some((mut file, _)) = in_stage.open(&journal)? else { return Ok(true) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| Error::io("read", in_stage.path_of(&journal), error))?;
    let mut all_known = true;
    // A line that was not finished is of something that had not begun.
    for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let Some((displacement, name, path)) = Displacement::read(line, abandoned) else {
            all_known = false;
            continue;
        };
        let cursor = if displacement.in_workspace {
            in_root.remove_file(&name.with_suffix(PART))?;
            &mut in_root
        } else {
            &mut in_stage
        };
        // Where names cannot be exchanged, the displaced version has one of its own for a moment.
        for name in [name.with_suffix(DISPLACED), name] {
            let Some(found) = cursor.stat(&name)? else { continue };
            if displacement.is_somebodys(cursor, &name, &found)? {
                conflicts.keep(root, (&mut *cursor, &name), &path, true)?;
            } else if displacement.in_workspace {
                cursor.remove(&name)?;
            }
        }
    }
    Ok(all_known)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Whether what `make` puts at the name is somebody's, for what was to arrive there.
    fn is_kept(arriving: Arriving, make: impl Fn(&std::path::Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let name = RelativePath::parse(b"name").unwrap().unwrap();
        make(&folder.path().join("name"));
        let mut cursor = root.cursor();
        let found = cursor.stat(&name).unwrap().unwrap();
        let text = lines(std::iter::once(Displacement::new(&name, &name, arriving, None, false)));
        let read: Displacement = serde_json::from_slice(&text).unwrap();
        read.is_somebodys(&mut cursor, &name, &found).unwrap()
    }

    #[test]
    fn what_arrives_is_known_again_and_all_else_is_somebodys() {
        let write = |content: &'static str, mode: u32| {
            move |at: &std::path::Path| {
                fs::write(at, content).unwrap();
                fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
            }
        };
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
        let copy = || Arriving::copy_of(Some(&Entry::File { mode: 0o100_644, digest }));
        assert!(!is_kept(copy(), write("abc", 0o644)), "the copy");
        assert!(is_kept(copy(), write("abd", 0o644)), "other content");
        assert!(is_kept(copy(), write("abc", 0o600)), "another mode");
        assert!(is_kept(copy(), |at| symlink("abc", at).unwrap()), "another kind");
        // macOS's volumes may refuse bytes that are no text.
        let target: &[u8] = if cfg!(target_os = "linux") { b"to\xff" } else { b"to" };
        let link = || Arriving::copy_of(Some(&Entry::Symlink { target: target.into() }));
        assert!(!is_kept(link(), |at| symlink(std::ffi::OsStr::from_bytes(target), at).unwrap()), "the link");
        assert!(is_kept(link(), |at| symlink("elsewhere", at).unwrap()), "another target");
        assert!(is_kept(link(), write("to", 0o644)), "a file");
        let dir = || Arriving::copy_of(Some(&Entry::Dir { mode: None }));
        assert!(!is_kept(dir(), |at| fs::create_dir(at).unwrap()), "the folder");
        assert!(
            is_kept(dir(), |at| fs::create_dir_all(at.join("in")).unwrap()),
            "a folder with something in it"
        );
        assert!(is_kept(dir(), write("", 0o644)), "a file");
        assert!(
            is_kept(Arriving::copy_of(None), write("", 0o644)),
            "nothing arrives where a path is deleted"
        );
        assert!(is_kept(Arriving::Inode(0), write("", 0o644)), "another inode");
    }

    #[test]
    fn what_was_uploaded_is_nobodys_unless_it_is_kept_in_any_case() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let name = RelativePath::parse(b"name").unwrap().unwrap();
        fs::write(folder.path().join("name"), "uploaded").unwrap();
        let mut cursor = root.cursor();
        let seen = cursor.stat(&name).unwrap().unwrap();
        let mut is_kept = |seen: &Meta, arriving: Arriving, aside: bool| {
            let found = cursor.stat(&name).unwrap().unwrap();
            let displacement = Displacement::new(&name, &name, arriving, Some(seen), aside);
            displacement.is_somebodys(&mut cursor, &name, &found).unwrap()
        };
        assert!(!is_kept(&seen, Arriving::Nothing, false));
        assert!(is_kept(&seen, Arriving::Nothing, true));
        assert!(is_kept(&Meta { size: 9, ..seen }, Arriving::Nothing, false), "touched since");
        assert!(!is_kept(&seen, Arriving::Inode(seen.ino), true), "what arrives is what stands there");
    }
}
