//! What a merge is about to displace, written down before the first change.
//!
//! A version that was displaced lies in the stage for a moment, until it has been looked at. A process that is killed
//! in that moment leaves it there, and whoever finds the stage must know whether it is content that never reached its
//! place, a version that was uploaded as it was, or somebody's edit that is nowhere else.

use std::io::{BufWriter, Read as _, Write as _};

use serde::{Deserialize, Serialize};

use super::conflicts::Conflicts;
use super::incoming::LazyStage;
use super::report::Conflict;
use crate::error::{Error, Result};
use crate::path::RelativePath;
use crate::tree::root::{Kind, Meta, Root};
use crate::tree::stage::{Abandoned, Stage};

/// The journal's name in the stage; no staged name looks like it.
const JOURNAL: &str = "journal";

/// What is put behind a name in the stage for the version that it displaced, where names cannot be exchanged.
pub const DISPLACED: &str = ".displaced";

/// What waits in the stage for its place.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Arriving {
    /// A file, by its inode.
    File(u64),
    /// A symbolic link.
    Symlink,
    /// A folder.
    Dir,
    /// Nothing: the path is to be deleted.
    Nothing,
}

/// One path of the workspace at which something may be displaced.
#[derive(Debug, Serialize, Deserialize)]
pub struct Displacement {
    /// Its name in the stage, before and after.
    name: String,
    path: Name,
    /// Whether the local version is kept in any case.
    aside: bool,
    arriving: Arriving,
    /// What stood at the path when the plan was made.
    seen: Option<Identity>,
}

/// A path, as text where it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes(Vec<u8>),
}

impl Name {
    fn of(path: &RelativePath) -> Self {
        match String::from_utf8(path.as_bytes().to_vec()) {
            Ok(text) => Self::Text(text),
            Err(bytes) => Self::Bytes(bytes.into_bytes()),
        }
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
    /// Of what was `seen` at `path`, by what waits as `name`.
    #[must_use]
    pub fn new(
        path: &RelativePath,
        name: &RelativePath,
        arriving: Arriving,
        seen: Option<&Meta>,
        aside: bool,
    ) -> Self {
        Self { name: name.to_string(), path: Name::of(path), aside, arriving, seen: seen.map(identity) }
    }

    /// Whether what lies in an abandoned stage under the name is to be kept: a local version that is nowhere else.
    fn is_somebodys(&self, found: &Meta) -> bool {
        let is_what_arrives = match self.arriving {
            Arriving::File(ino) => found.ino == ino,
            Arriving::Symlink => {
                found.kind == Kind::Symlink && self.seen.is_none_or(|seen| seen.0 != found.ino)
            }
            Arriving::Dir => found.kind == Kind::Dir,
            Arriving::Nothing => false,
        };
        let is_as_uploaded = !self.aside && self.seen == Some(identity(found));
        !is_what_arrives && !is_as_uploaded
    }
}

/// Writes the journal of a stage.
pub fn write(stage: &Stage, displacements: impl Iterator<Item = Displacement>) -> Result<()> {
    let mut cursor = stage.cursor();
    let name = RelativePath::child(None, JOURNAL.as_bytes());
    let mut out = BufWriter::new(cursor.create(&name, 0o600)?);
    let write_all = || {
        for displacement in displacements {
            serde_json::to_writer(&mut out, &displacement)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write_all().map_err(|error| {
        Error::io("write", cursor.path_of(&name), error).with_hint("nothing in the workspace was changed")
    })
}

/// Clears up after killed processes: local versions that they had just displaced are kept as conflicts, and all else
/// that they left is removed.
pub fn rescue(root: &Root) -> Result<Vec<Conflict>> {
    let mut kept = Vec::new();
    let conflicts = Conflicts::default();
    for abandoned in Stage::abandoned(root)? {
        rescue_from(root, &abandoned, &conflicts, &mut kept)?;
        abandoned.remove(root)?;
    }
    Ok(kept)
}

/// Closes the stage of a merge that is over. Where the merge failed, the stage may hold a local version that could not be
/// kept aside (the disk may be full): it is rescued now if that works, and by a later restore if not.
pub fn close<T>(root: &Root, stage: LazyStage, merged: Result<T>) -> Result<T> {
    match merged {
        Ok(done) => {
            // The merge is done, and that is what counts; what cannot be removed now is cleared by the next.
            let _later = stage.close(root);
            Ok(done)
        }
        Err(error) => {
            // Unlocked, it is a stage like those of killed processes.
            drop(stage);
            // The merge's own failure is what to report, and what cannot be rescued now stays for the next.
            let _later = rescue(root);
            Err(error)
        }
    }
}

fn rescue_from(
    root: &Root,
    abandoned: &Abandoned,
    conflicts: &Conflicts,
    kept: &mut Vec<Conflict>,
) -> Result<()> {
    let mut cursor = abandoned.cursor();
    let journal = RelativePath::child(None, JOURNAL.as_bytes());
    let Some((mut file, _)) = cursor.open(&journal)? else { return Ok(()) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| Error::io("read", cursor.path_of(&journal), error))?;
    // A journal that was not finished is one of a merge that had not begun.
    for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let displacement: Displacement = serde_json::from_slice(line)
            .map_err(|error| Error::Internal(format!("a journal is unreadable: {error}")))?;
        let (Ok(Some(name)), Ok(Some(path))) = (
            RelativePath::parse(displacement.name.as_bytes()),
            RelativePath::parse(displacement.path.as_bytes()),
        ) else {
            continue;
        };
        // Where names cannot be exchanged, the displaced version has one of its own for a moment.
        for name in [name.with_suffix(DISPLACED), name] {
            if cursor.stat(&name)?.is_some_and(|found| displacement.is_somebodys(&found))
                && let Some(kept_at) = conflicts.keep(root, (&mut cursor, &name), &path)?
            {
                kept.push(Conflict { path: path.clone(), kept_at });
            }
        }
    }
    Ok(())
}
