//! The incoming side of a merge: checked and hashed, with the content that differs from the base staged.
//!
//! An archive is read by [`receive`](super::receive), a folder by [`Incoming::from_folder`].

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::sync::{Mutex, OnceLock};

use rayon::prelude::*;
use sha2::Digest as _;

use super::plan::mode_to_come;
use super::report::Skipped;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{Cursor, File, Kind, Meta, Renamed, Root, link};
use crate::path::{ByPath, RelativePath};
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, Snapshot};
use crate::tree::filter::Filter;
use crate::tree::scan::{CHUNK, Found, Reader, scan};
use crate::tree::stage::{Abandoned, Stage};

/// Why a device or FIFO is not restored.
const SPECIAL: &str = "it is a device, FIFO or socket on the incoming side";
/// The hint of an error before the first change.
pub const UNCHANGED: &str = "nothing in the workspace was changed";
/// Why a missing entry is not deleted after the sandbox's tar failed.
const UNREAD: &str = "the sandbox's tar failed, and this may be what it could not read";

/// The incoming side of a merge. What differs from the base is in the stage.
#[derive(Debug)]
pub struct Incoming {
    /// Everything that the incoming side has: the base of the next merge.
    pub snapshot: Snapshot,
    /// Every file and link that differs from the base, by its path.
    pub staged: ByPath<Staged>,
    /// What the incoming side has but is not restored.
    pub skipped: Vec<Skipped>,
    /// Where the staged content is.
    pub stage: LazyStage,
}

/// A file or link in the stage.
#[derive(Debug, Clone)]
pub struct Staged {
    /// Its name there.
    pub name: RelativePath,
    /// Its inode, which identifies it.
    pub ino: u64,
}

/// A stage that is made when it is first needed, so a merge without changes writes nothing.
#[derive(Debug, Default)]
pub struct LazyStage {
    stage: OnceLock<Stage>,
    making: Mutex<()>,
}

impl LazyStage {
    /// The stage; made in `workspace` if there is none yet.
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

    /// Leaves the stage, if there is one, as a killed process would.
    pub fn abandon(self) -> Option<Abandoned> {
        self.stage.into_inner().map(Stage::abandon)
    }

    /// Removes the stage, if there is one, with everything in it.
    pub fn close(self, workspace: &Root) -> Result<()> {
        self.stage.into_inner().map_or(Ok(()), |stage| stage.close(workspace))
    }
}

/// One entry of the incoming side.
pub(super) enum IncomingEntry {
    Entry(RelativePath, Entry),
    Staged(RelativePath, Entry, Staged),
    Special(RelativePath),
}

/// A thread's two cursors in the stage, once it needs them. A hard link takes both.
pub(super) struct InStage<'s>(pub(super) Option<(Cursor<'s>, Cursor<'s>)>);

/// Writes into the stage.
pub(super) struct Stager<'a> {
    pub(super) base: &'a Snapshot,
    pub(super) workspace: &'a Root,
    pub(super) stage: LazyStage,
    pub(super) cancel: &'a Cancel,
}

impl Incoming {
    /// Reads a folder, and stages what differs from the base in the same pass. After a failure no stage is
    /// left.
    pub fn from_folder(
        source: &Root,
        filter: &Filter<'_>,
        base: &Snapshot,
        workspace: &Root,
        cancel: &Cancel,
    ) -> Result<Self> {
        let found = scan(source, filter, cancel)?;
        let stager = Stager { base, workspace, stage: LazyStage::default(), cancel };
        let entries_found = found
            .into_par_iter()
            .map_init(
                || (InStage(None), Reader::new(), source.cursor()),
                |(in_stage, reader, cursor), found| stager.found(in_stage, reader, cursor, found),
            )
            .filter_map(Result::transpose)
            .collect();
        stager.gather(entries_found)
    }

    /// Records devices and FIFOs of the incoming side, which are not restored.
    pub fn note_special<'p>(&mut self, paths: impl Iterator<Item = &'p RelativePath>) {
        self.skipped.extend(paths.map(|path| Skipped { path: path.clone(), reason: SPECIAL }));
    }

    /// Treats as unchanged what the incoming side could not tell, so it is not deleted.
    ///
    /// That is what became a device or FIFO, with everything that was below it. If `all` is set, it is
    /// everything that is missing.
    pub fn treat_missing_as_unchanged(&mut self, base: &Snapshot, all: bool) {
        let special: HashSet<RelativePath> =
            self.skipped.iter().map(|skipped| skipped.path.clone()).collect();
        let theirs = self.snapshot.clone();
        for (path, entry) in missing(base, &theirs) {
            let under_special =
                special.contains(path) || path.ancestors().any(|above| special.contains(&above));
            let under_file =
                path.ancestors().any(|above| self.snapshot.get(&above).is_some_and(|e| !e.is_folder()));
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

/// What the base has and the incoming side has not.
fn missing<'a>(
    base: &'a Snapshot,
    theirs: &'a Snapshot,
) -> impl Iterator<Item = (&'a RelativePath, &'a Entry)> {
    base.differences(theirs).filter_map(|(path, before, after)| match (before, after) {
        (Some(before), None) => Some((path, before)),
        _ => None,
    })
}

impl Incoming {
    /// Treats a missing entry as unchanged, with the folders above it, if `may_lack` says that it may have
    /// been left out on the way.
    pub fn treat_left_out_as_unchanged(&mut self, base: &Snapshot, may_lack: &dyn Fn(&RelativePath) -> bool) {
        let theirs = self.snapshot.clone();
        for (path, entry) in missing(base, &theirs) {
            // A folder may have been added for what is below it.
            if self.snapshot.contains_key(path) || !may_lack(path) {
                continue;
            }
            let under_file =
                path.ancestors().any(|above| self.snapshot.get(&above).is_some_and(|e| !e.is_folder()));
            if under_file {
                continue;
            }
            for folder in path.ancestors() {
                if let (false, Some(folder_entry)) = (self.snapshot.contains_key(&folder), base.get(&folder))
                {
                    self.snapshot.insert(folder, folder_entry.clone());
                }
            }
            self.snapshot.insert(path.clone(), entry.clone());
        }
    }
}

impl Stager<'_> {
    /// The entry with a mode that the next merge does not fail on. See [`mode_to_come`].
    pub(super) fn usable(&self, path: &RelativePath, entry: Entry) -> Entry {
        // Most entries have one, whatever the base has.
        if mode_to_come(None, &entry).is_none() {
            return entry;
        }
        match mode_to_come(self.base.get(path), &entry) {
            Some(mode) => entry.with_mode(mode),
            None => entry,
        }
    }

    pub(super) fn stage<'s, 'c>(
        &'s self,
        in_stage: &'c mut InStage<'s>,
    ) -> Result<(&'s Stage, &'c mut Cursor<'s>)> {
        let stage = self.stage.get(self.workspace)?;
        let (cursor, _) = in_stage.0.get_or_insert_with(|| (stage.cursor(), stage.cursor()));
        Ok((stage, cursor))
    }

    /// Makes a hard link to what is staged, so no content is written twice. `None` if the file system cannot.
    pub(super) fn further_name<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        staged: &Staged,
    ) -> Result<Option<Staged>> {
        let stage = self.stage.get(self.workspace)?;
        let (from, to) = in_stage.0.get_or_insert_with(|| (stage.cursor(), stage.cursor()));
        let name = stage.name();
        match link((from, &staged.name), (to, &name)) {
            Ok(Renamed::Done) => Ok(Some(Staged { name, ino: staged.ino })),
            Err(error) if !error.may_be_lack_of_hard_links() => Err(error),
            _ => Ok(None),
        }
    }

    pub(super) fn symlink<'s>(&'s self, in_stage: &mut InStage<'s>, target: &[u8]) -> Result<Staged> {
        let (stage, cursor) = self.stage(in_stage)?;
        let name = stage.name();
        cursor.symlink(target, &name)?;
        let meta = cursor.stat(&name)?;
        // If another process removed it at once, what is found there later is not it.
        let ino = meta.map_or(0, |meta| meta.id.inode());
        Ok(Staged { name, ino })
    }

    /// Writes a file into the stage. Of the mode, only the permission bits are used.
    pub(super) fn file<'s, T>(
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
        Ok((Staged { name, ino: meta.id.inode() }, filled))
    }

    /// Copies a staged file that has that digest.
    pub(super) fn copy<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        staged: &Staged,
        mode: u32,
        digest: Digest,
    ) -> Result<Staged> {
        let stage = self.stage.get(self.workspace)?;
        let (copy, read) = self.file(in_stage, mode, |file| {
            let mut cursor = stage.cursor();
            Reader::new().file(&mut cursor, &staged.name, self.cancel, |chunk| file.write(chunk))
        })?;
        if read.is_some_and(|(_, read)| read == digest) {
            Ok(copy)
        } else {
            Err(Error::Internal("a staged file is not what was written".to_owned()))
        }
    }

    /// Copies the beginning of a local file into the stage. Returns `None`, and leaves no file, if that does
    /// not have exactly this digest or cannot be read.
    pub(super) fn copy_local<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        mode: u32,
        local: &mut File,
        (length, digest): (u64, Digest),
    ) -> Result<Option<(RelativePath, File)>> {
        let (stage, cursor) = self.stage(in_stage)?;
        let (name, mut file) = stage.file(cursor, mode)?;
        let mut hash = sha2::Sha256::new();
        let mut buffer = vec![0; usize::try_from(length).map_or(CHUNK, |length| length.min(CHUNK))];
        let mut is_read = local.rewind().is_ok();
        let mut rest = local.take(length);
        while is_read && rest.limit() > 0 {
            self.cancel.check()?;
            match rest.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    Staging { file: &mut file, path: &cursor.path_of(&name) }.write(&buffer[..read])?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => is_read = false,
            }
        }
        if is_read && rest.limit() == 0 && Digest(hash.finalize().into()) == digest {
            return Ok(Some((name, file)));
        }
        cursor.remove_file(&name)?;
        Ok(None)
    }

    /// The record of a file that was written into the stage.
    pub(super) fn staged(name: RelativePath, file: &File) -> Result<Staged> {
        let ino = Meta::of_file(file).map_err(|error| Error::io("fstat", name.as_path(), error))?.id.inode();
        Ok(Staged { name, ino })
    }

    fn found<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        reader: &mut Reader,
        cursor: &mut Cursor<'_>,
        found: Found,
    ) -> Result<Option<IncomingEntry>> {
        if found.meta.kind == Kind::Other {
            return Ok(Some(IncomingEntry::Special(found.path)));
        }
        let Some(entry) = reader.entry(cursor, &found, self.cancel)? else { return Ok(None) };
        let entry = self.usable(&found.path, entry);
        if !differ(self.base.get(&found.path), &entry) {
            return Ok(Some(IncomingEntry::Entry(found.path, entry)));
        }
        let mode = match entry {
            Entry::Folder { .. } => return Ok(Some(IncomingEntry::Entry(found.path, entry))),
            Entry::Symlink { ref target } => {
                let staged = self.symlink(in_stage, target)?;
                return Ok(Some(IncomingEntry::Staged(found.path, entry, staged)));
            }
            Entry::File { mode, .. } => mode,
        };
        // If the file changes between the two reads, the copied content counts.
        let (staged, copied) = self.file(in_stage, mode, |file| {
            reader.file(cursor, &found.path, self.cancel, |chunk| file.write(chunk))
        })?;
        Ok(copied.map(|(_, digest)| IncomingEntry::Staged(found.path, Entry::File { mode, digest }, staged)))
    }

    /// Removes the stage after a failure, which is the one to report. (The next merge removes a stage that
    /// stays.)
    pub(super) fn give_up(self, error: Error) -> Error {
        let _abandoned = self.stage.close(self.workspace);
        error.with_hint(UNCHANGED)
    }

    /// Collects all entries. If none of them is staged, no stage is left.
    pub(super) fn gather(mut self, entries_found: Result<Vec<IncomingEntry>>) -> Result<Incoming> {
        let entries_found = match entries_found {
            Ok(entries_found) => entries_found,
            Err(error) => return Err(self.give_up(error)),
        };
        let (mut staged, mut skipped) = (Vec::new(), Vec::new());
        let mut entries = Vec::with_capacity(entries_found.len());
        for arrival in entries_found {
            match arrival {
                IncomingEntry::Entry(path, entry) => entries.push((path, entry)),
                IncomingEntry::Staged(path, entry, file) => {
                    staged.push((path.clone(), file));
                    entries.push((path, entry));
                }
                IncomingEntry::Special(path) => skipped.push(Skipped { path, reason: SPECIAL }),
            }
        }
        if staged.is_empty() {
            let unneeded = std::mem::take(&mut self.stage);
            unneeded.close(self.workspace).map_err(|error| error.with_hint(UNCHANGED))?;
        }
        // Both are sorted, so the maps are built in one go.
        let (snapshot, staged) = (entries.into_iter().collect(), staged.into_iter().collect());
        Ok(Incoming { snapshot, staged, skipped, stage: self.stage })
    }
}

/// Whether an entry is another one than that of the base.
pub(super) fn differ(base: Option<&Entry>, entry: &Entry) -> bool {
    !base.is_some_and(|base| base.same_as(entry))
}

/// A file in the stage while it is written.
pub(super) struct Staging<'a> {
    pub(super) file: &'a mut File,
    pub(super) path: &'a std::path::Path,
}

impl Staging<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", self.path, error))
    }
}
