//! What the other side holds: checked and hashed, and the content that differs from the base staged.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

use rayon::prelude::*;
use sha2::Digest as _;

use super::plan::mode_to_come;
use super::report::Skipped;
use crate::archive::unpack::{Archive, Content, Unpacked};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::path::{ByPath, RelativePath};
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, Snapshot};
use crate::tree::root::{Cursor, Kind, Meta, Root};
use crate::tree::scan::{CHUNK, Found, LeaveOut, Reader, scan};
use crate::tree::stage::{Abandoned, Stage};

/// Why a device or FIFO is not restored.
const SPECIAL: &str = "it is a device, FIFO or socket on the other side";
/// What a failure says before the first change.
pub const UNCHANGED: &str = "nothing in the workspace was changed";
/// Why what is missing is not deleted when the sandbox's tar failed.
const UNREAD: &str = "the sandbox's tar failed, and this may be what it could not read";

/// The other side of a merge. What equals the base needs nothing; what differs waits in the stage.
#[derive(Debug)]
pub struct Incoming {
    /// Everything the other side holds; the base of the next merge.
    pub snapshot: Snapshot,
    /// Each file and link that differs from the base, in the stage.
    pub staged: ByPath<Staged>,
    /// What the other side has but is not brought.
    pub skipped: Vec<Skipped>,
    /// Where the content waits.
    pub stage: LazyStage,
}

/// A file or link that waits in the stage.
#[derive(Debug, Clone)]
pub struct Staged {
    /// Its name there.
    pub name: RelativePath,
    /// Its inode, by which it is known again.
    pub ino: u64,
}

/// A stage that is made when it is first needed: a merge that changes nothing writes nothing.
#[derive(Debug, Default)]
pub struct LazyStage {
    stage: OnceLock<Stage>,
    making: Mutex<()>,
}

impl LazyStage {
    /// The stage, made in `workspace` where there is none yet.
    pub fn get(&self, workspace: &Root) -> Result<&Stage> {
        if let Some(stage) = self.stage.get() {
            return Ok(stage);
        }
        let _making = lock(&self.making);
        if let Some(stage) = self.stage.get() {
            return Ok(stage);
        }
        let stage = Stage::open(workspace)?;
        Ok(self.stage.get_or_init(|| stage))
    }

    /// Leaves the stage, where one was made, as a killed process would.
    pub fn abandon(self) -> Option<Abandoned> {
        self.stage.into_inner().map(Stage::abandon)
    }

    /// Removes the stage, where one was made, with all that is left in it.
    pub fn close(self, workspace: &Root) -> Result<()> {
        self.stage.into_inner().map_or(Ok(()), |stage| stage.close(workspace))
    }
}

/// One entry on its way in.
enum Arrival {
    Entry(RelativePath, Entry),
    Staged(RelativePath, Entry, Staged),
    Special(RelativePath),
}

/// A thread's place to work from in the stage, once it needs one.
struct InStage<'s>(Option<Cursor<'s>>);

struct Stager<'a> {
    base: &'a Snapshot,
    workspace: &'a Root,
    stage: LazyStage,
    cancel: &'a Cancel,
}

impl Incoming {
    /// Hashes the files of a checked archive and stages those that differ from the base, in the same pass.
    /// On failure no stage is left.
    pub fn from_archive(
        archive: Archive,
        bytes: &[u8],
        base: &Snapshot,
        workspace: &Root,
        cancel: &Cancel,
    ) -> Result<Self> {
        let stager = Stager { base, workspace, stage: LazyStage::default(), cancel };
        let arrivals = archive
            .entries
            .into_par_iter()
            .map_init(|| InStage(None), |in_stage, entry| stager.unpacked(in_stage, entry, bytes))
            .collect();
        stager.gather(arrivals)
    }

    /// The same from a folder.
    pub fn from_folder(
        source: &Root,
        leave_out: LeaveOut<'_>,
        base: &Snapshot,
        workspace: &Root,
        cancel: &Cancel,
    ) -> Result<Self> {
        let found = scan(source, leave_out, cancel)?;
        let stager = Stager { base, workspace, stage: LazyStage::default(), cancel };
        let arrivals = found
            .into_par_iter()
            .map_init(
                || (InStage(None), Reader::new(), source.cursor()),
                |(in_stage, reader, cursor), found| stager.found(in_stage, reader, cursor, found),
            )
            .filter_map(Result::transpose)
            .collect();
        stager.gather(arrivals)
    }

    /// Takes what the other side could not tell for unchanged: the base goes on there, and nothing is deleted.
    /// That is what became a device, with all that was below it; and where `all` says so, whatever is missing.
    pub fn keep_untold(&mut self, base: &Snapshot, all: bool) {
        let special: HashSet<RelativePath> =
            self.skipped.iter().map(|skipped| skipped.path.clone()).collect();
        for (path, entry) in base {
            if self.snapshot.contains_key(path) {
                continue;
            }
            let under_special =
                special.contains(path) || path.ancestors().any(|above| special.contains(&above));
            let under_file =
                path.ancestors().any(|above| self.snapshot.get(&above).is_some_and(|e| !e.is_dir()));
            if under_special || (all && !under_file) {
                if !under_special {
                    self.skipped.push(Skipped { path: path.clone(), reason: UNREAD });
                }
                self.snapshot.insert(path.clone(), entry.clone());
            }
        }
        self.skipped.sort_unstable();
    }
}

impl Stager<'_> {
    fn differs(&self, path: &RelativePath, entry: &Entry) -> bool {
        let base = self.base.get(path);
        let same = |entry: &Entry| base.is_some_and(|base| base.same_as(entry));
        match mode_to_come(base, entry) {
            None => !same(entry),
            Some(mode) => !same(&entry.clone().with_mode(mode)),
        }
    }

    fn stage<'s, 'c>(&'s self, in_stage: &'c mut InStage<'s>) -> Result<(&'s Stage, &'c mut Cursor<'s>)> {
        let stage = self.stage.get(self.workspace)?;
        Ok((stage, in_stage.0.get_or_insert_with(|| stage.cursor())))
    }

    /// Something that is no file: a link that differs is staged, so that one that this file system cannot hold is
    /// noticed before anything was changed.
    fn other<'s>(&'s self, in_stage: &mut InStage<'s>, path: RelativePath, entry: Entry) -> Result<Arrival> {
        let target = match &entry {
            Entry::Symlink { target } if self.differs(&path, &entry) => target,
            _ => return Ok(Arrival::Entry(path, entry)),
        };
        let (stage, cursor) = self.stage(in_stage)?;
        let name = stage.name();
        cursor.symlink(target, &name)?;
        let meta = cursor.stat(&name)?;
        // Where somebody removed it at once, nothing that is found there later is it.
        let ino = meta.map_or(0, |meta| meta.ino);
        Ok(Arrival::Staged(path, entry, Staged { name, ino }))
    }

    /// Writes a file into the stage. Nothing but its permission bits comes from the other side.
    fn file<'s, T>(
        &'s self,
        in_stage: &mut InStage<'s>,
        mode: u32,
        fill: impl FnOnce(&mut Staging<'_>) -> Result<T>,
    ) -> Result<(Staged, T)> {
        let (stage, cursor) = self.stage(in_stage)?;
        let (name, mut content) = stage.file(cursor, mode)?;
        let path = cursor.path_of(&name);
        let filled = fill(&mut Staging { file: &mut content, path: &path })?;
        let meta = Meta::of_file(&content).map_err(|error| Error::io("fstat", path, error))?;
        Ok((Staged { name, ino: meta.ino }, filled))
    }

    fn unpacked<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        Unpacked { path, content }: Unpacked,
        bytes: &[u8],
    ) -> Result<Arrival> {
        self.cancel.check()?;
        let (mode, content) = match content {
            Content::Special => return Ok(Arrival::Special(path)),
            Content::Dir { mode } => return Ok(Arrival::Entry(path, Entry::Dir { mode })),
            Content::Symlink { target } => return self.other(in_stage, path, Entry::Symlink { target }),
            Content::File { mode, bytes: range } => (mode, &bytes[range]),
        };
        let mut hash = sha2::Sha256::new();
        for chunk in content.chunks(CHUNK) {
            hash.update(chunk);
            self.cancel.check()?;
        }
        let entry = Entry::File { mode, digest: Digest(hash.finalize().into()) };
        if !self.differs(&path, &entry) {
            return Ok(Arrival::Entry(path, entry));
        }
        let (staged, ()) = self.file(in_stage, mode, |file| {
            content.chunks(CHUNK * 16).try_for_each(|chunk| {
                self.cancel.check()?;
                file.write(chunk)
            })
        })?;
        Ok(Arrival::Staged(path, entry, staged))
    }

    fn found<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        reader: &mut Reader,
        cursor: &mut Cursor<'_>,
        found: Found,
    ) -> Result<Option<Arrival>> {
        if found.meta.kind == Kind::Other {
            return Ok(Some(Arrival::Special(found.path)));
        }
        let Some(entry) = reader.entry(cursor, &found, self.cancel)? else { return Ok(None) };
        let Entry::File { mode, .. } = entry else {
            return self.other(in_stage, found.path, entry).map(Some);
        };
        if !self.differs(&found.path, &entry) {
            return Ok(Some(Arrival::Entry(found.path, entry)));
        }
        // What counts is what is copied, should the file change between the two reads.
        let (staged, copied) = self.file(in_stage, mode, |file| {
            reader.file(cursor, &found.path, self.cancel, |chunk| file.write(chunk))
        })?;
        Ok(copied.map(|(_, digest)| Arrival::Staged(found.path, Entry::File { mode, digest }, staged)))
    }

    fn gather(self, arrivals: Result<Vec<Arrival>>) -> Result<Incoming> {
        let arrivals = match arrivals {
            Ok(arrivals) => arrivals,
            Err(error) => {
                // The failure that led here is the one to report; an abandoned stage is removed by the next.
                let _abandoned = self.stage.close(self.workspace);
                return Err(error.with_hint(UNCHANGED));
            }
        };
        let (mut staged, mut skipped) = (Vec::new(), Vec::new());
        let mut entries = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            match arrival {
                Arrival::Entry(path, entry) => entries.push((path, entry)),
                Arrival::Staged(path, entry, file) => {
                    staged.push((path.clone(), file));
                    entries.push((path, entry));
                }
                Arrival::Special(path) => skipped.push(Skipped { path, reason: SPECIAL }),
            }
        }
        // Both come in order, and a map is made of that in one go.
        let (snapshot, staged) = (entries.into_iter().collect(), staged.into_iter().collect());
        Ok(Incoming { snapshot, staged, skipped, stage: self.stage })
    }
}

/// A file in the stage while it is filled.
struct Staging<'a> {
    file: &'a mut File,
    path: &'a std::path::Path,
}

impl Staging<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", self.path, error))
    }
}
