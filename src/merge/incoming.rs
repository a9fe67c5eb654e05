//! What the other side holds: checked and hashed, and the content that differs from the base staged.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use rayon::prelude::*;
use rustix::io::Errno;
use sha2::Digest as _;

use super::plan::mode_to_come;
use super::report::Skipped;
use crate::archive::source::{Bytes, PIECE};
use crate::archive::unpack::{Archive, Content, Unpacked};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::path::{ByPath, RelativePath};
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, Snapshot};
use crate::tree::root::{Cursor, Kind, Meta, Renamed, Root, link};
use crate::tree::scan::{Found, LeaveOut, Reader, scan};
use crate::tree::stage::{Abandoned, Stage};

/// Why a device or FIFO is not restored.
const SPECIAL: &str = "it is a device, FIFO or socket on the other side";
/// What a failure says before the first change.
pub const UNCHANGED: &str = "nothing in the workspace was changed";
/// What is wrong with a client's answer that changed while it was read.
const READ_OTHERWISE: &str =
    "gave bytes that changed while they were read; they must stay as they are until the restore is done";
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

/// A thread's places to work from in the stage, once it needs them: a hard link takes two.
struct InStage<'s>(Option<(Cursor<'s>, Cursor<'s>)>);

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
        bytes: &dyn Bytes,
        base: &Snapshot,
        workspace: &Root,
        cancel: &Cancel,
    ) -> Result<Self> {
        let stager = Stager { base, workspace, stage: LazyStage::default(), cancel };
        let entries = archive.entries;
        let taking = Taking { stager: &stager, bytes, entries: &entries };
        let arrivals = taking.everything().map(|all| {
            let mut all = all.into_iter().peekable();
            let arrival = |(at, Unpacked { path, content, .. })| {
                if let Some(taken) = all.next_if(|next| next.entry_at == at) {
                    return match taken.staged {
                        Some(file) => Arrival::Staged(path, taken.entry, file),
                        None => Arrival::Entry(path, taken.entry),
                    };
                }
                match content {
                    Content::Dir { mode } => Arrival::Entry(path, Entry::Dir { mode }),
                    Content::Special => Arrival::Special(path),
                    Content::File { .. } | Content::Symlink { .. } => {
                        unreachable!("each of them was taken")
                    }
                }
            };
            entries.into_iter().enumerate().map(arrival).collect()
        });
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
        let (cursor, _) = in_stage.0.get_or_insert_with(|| (stage.cursor(), stage.cursor()));
        Ok((stage, cursor))
    }

    /// A further name of what is staged: no content is written a second time. `None` where the file system gives it none.
    fn further_name<'s>(&'s self, in_stage: &mut InStage<'s>, staged: &Staged) -> Result<Option<Staged>> {
        let stage = self.stage.get(self.workspace)?;
        let (from, to) = in_stage.0.get_or_insert_with(|| (stage.cursor(), stage.cursor()));
        let name = stage.name();
        match link((from, &staged.name), (to, &name)) {
            Ok(Renamed::Done) => Ok(Some(Staged { name, ino: staged.ino })),
            Err(error) if !may_be_for_want_of_links(error.errno()) => Err(error),
            _ => Ok(None),
        }
    }

    fn symlink<'s>(&'s self, in_stage: &mut InStage<'s>, target: &[u8]) -> Result<Staged> {
        let (stage, cursor) = self.stage(in_stage)?;
        let name = stage.name();
        cursor.symlink(target, &name)?;
        let meta = cursor.stat(&name)?;
        // Where somebody removed it at once, nothing that is found there later is it.
        let ino = meta.map_or(0, |meta| meta.ino);
        Ok(Staged { name, ino })
    }

    /// Something that is no file: a link that differs is staged, so that one that this file system cannot hold is
    /// noticed before anything was changed.
    fn other<'s>(&'s self, in_stage: &mut InStage<'s>, path: RelativePath, entry: Entry) -> Result<Arrival> {
        let target = match &entry {
            Entry::Symlink { target } if self.differs(&path, &entry) => target,
            _ => return Ok(Arrival::Entry(path, entry)),
        };
        let staged = self.symlink(in_stage, target)?;
        Ok(Arrival::Staged(path, entry, staged))
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

    /// A second file with the content of a staged one, which has that digest.
    fn copy<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        staged: Option<&Staged>,
        mode: u32,
        digest: Digest,
    ) -> Result<Staged> {
        let copied = match staged {
            None => None,
            Some(staged) => {
                let stage = self.stage.get(self.workspace)?;
                let (copy, read) = self.file(in_stage, mode, |file| {
                    let mut cursor = stage.cursor();
                    Reader::new().file(&mut cursor, &staged.name, self.cancel, |chunk| file.write(chunk))
                })?;
                read.filter(|(_, read)| *read == digest).map(|_| copy)
            }
        };
        copied.ok_or_else(|| Error::Internal("a staged file is not what was written".to_owned()))
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

/// Whether a failed link says that the file system knows no hard links, or that the file has as many as it may have.
fn may_be_for_want_of_links(errno: Option<i32>) -> bool {
    let signs = [Errno::MLINK, Errno::PERM, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS];
    signs.map(|sign| Some(sign.raw_os_error())).contains(&errno)
}

/// How many pieces of an archive are in memory at most: two for each thread, so that the next is there when one is done.
const PIECES_MAX: usize = 32;

/// The files and links of an archive on their way in. What one inode of the archive holds is hashed and staged once,
/// whatever number of names it has.
///
/// One thread, the caller's, copies from the archive and may have to wait for that; the threads that hash and stage see
/// nothing but copies, and wait for nobody.
struct Taking<'a> {
    stager: &'a Stager<'a>,
    bytes: &'a dyn Bytes,
    entries: &'a [Unpacked],
}

/// A file or link of the archive that was hashed, and staged where it differs from the base.
struct Taken {
    /// Which of the entries it is.
    entry_at: usize,
    entry: Entry,
    staged: Option<Staged>,
}

/// What is taken in at a time: the names of each inode, as places in the entries.
enum Share<'a> {
    /// Files that stand together in the archive, within one piece of it.
    Run(&'a [&'a [usize]]),
    /// A file that is longer than a piece.
    Large(Large<'a>),
    /// Symbolic links.
    Links(&'a [&'a [usize]]),
}

/// A file that is taken in piece by piece. Where it is likely to differ from the base it is staged at once; otherwise it
/// is hashed first, and staged in a second pass if need be. What counts is what was written.
struct Large<'a> {
    names: &'a [usize],
    hash: sha2::Sha256,
    /// How much of it was hashed in this pass.
    done: u64,
    /// Where it is written to in this pass, if it is.
    file: Option<(RelativePath, File)>,
    /// What the first pass found, where this is the second.
    found: Option<Digest>,
}

impl Large<'_> {
    fn start_again(&mut self, found: Digest) {
        (self.hash, self.done, self.found) = (sha2::Sha256::new(), 0, Some(found));
    }
}

/// A share that a thread has worked on, or what it failed with.
struct Done<'a> {
    /// What is left of the share.
    rest: Option<Share<'a>>,
    piece: Vec<u8>,
    taken: Result<Vec<Taken>>,
}

impl Taking<'_> {
    /// Takes in every file and link, in the order of the entries.
    fn everything(&self) -> Result<Vec<Taken>> {
        // All names of an inode stand together then, and contents in the order of the archive.
        let mut names: Vec<usize> = (0..self.entries.len())
            .filter(|&at| matches!(self.entries[at].content, Content::File { .. } | Content::Symlink { .. }))
            .collect();
        names.sort_by_key(|&at| self.entries[at].inode);
        let inodes: Vec<&[usize]> =
            names.chunk_by(|&one, &next| self.entries[one].inode == self.entries[next].inode).collect();
        let mut taken = rayon::in_place_scope(|scope| self.conduct(scope, self.shares(&inodes)))?;
        taken.par_sort_unstable_by_key(|taken| taken.entry_at);
        Ok(taken)
    }

    /// Copies what the shares need, and has other threads work on that.
    fn conduct<'s>(&'s self, scope: &rayon::Scope<'s>, shares: Vec<Share<'s>>) -> Result<Vec<Taken>> {
        let most = (2 * rayon::current_num_threads()).min(PIECES_MAX);
        let (sender, receiver) = mpsc::channel::<Done<'s>>();
        let (mut shares, mut all, mut at_work) = (shares.into_iter(), Vec::new(), 0);
        let mut pieces = Vec::new();
        loop {
            while at_work < most {
                let Some(share) = shares.next() else { break };
                self.start(scope, share, pieces.pop().unwrap_or_default(), &sender)?;
                at_work += 1;
            }
            if at_work == 0 {
                return Ok(all);
            }
            let Done { rest, piece, taken } = next(&receiver);
            all.extend(taken?);
            if let Some(share) = rest {
                self.start(scope, share, piece, &sender)?;
            } else {
                at_work -= 1;
                pieces.push(piece);
            }
        }
    }

    /// Copies the next piece of a share, and has a thread work on it.
    fn start<'s>(
        &'s self,
        scope: &rayon::Scope<'s>,
        share: Share<'s>,
        mut piece: Vec<u8>,
        sender: &mpsc::Sender<Done<'s>>,
    ) -> Result<()> {
        self.stager.cancel.check()?;
        if let Some((offset, length)) = self.place(&share) {
            self.bytes.copy(offset, length, &mut piece)?;
        }
        let sender = sender.clone();
        scope.spawn(move |_| {
            let work = AssertUnwindSafe(|| self.work(share, &piece));
            let worked = catch_unwind(work).unwrap_or_else(|_| {
                Err(Error::Internal("a thread panicked while it took in an archive".to_owned()))
            });
            let (rest, taken) = match worked {
                Ok((rest, taken)) => (rest, Ok(taken)),
                Err(error) => (None, Err(error)),
            };
            // Nobody waits for it where another one has failed.
            sender.send(Done { rest, piece, taken }).unwrap_or_default();
        });
        Ok(())
    }

    /// Where the piece stands that a share needs next, and how long it is.
    fn place(&self, share: &Share<'_>) -> Option<(u64, usize)> {
        let length = |length: u64| usize::try_from(length).map_or(PIECE, |length| length.min(PIECE));
        match share {
            Share::Links(_) => None,
            Share::Large(large) => {
                let (_, offset, size) = self.content(large.names)?;
                Some((offset + large.done, length(size - large.done)))
            }
            Share::Run(inodes) => {
                let (_, from, _) = self.content(inodes.first()?)?;
                let (_, last, size) = self.content(inodes.last()?)?;
                Some((from, length(last + size - from)))
            }
        }
    }

    /// The mode of a file, where its content stands, and its size; nothing for a link.
    fn content(&self, names: &[usize]) -> Option<(u32, u64, u64)> {
        match self.entries[names[0]].content {
            Content::File { mode, offset, size } => Some((mode, offset, size)),
            _ => None,
        }
    }

    fn shares<'s>(&self, inodes: &'s [&'s [usize]]) -> Vec<Share<'s>> {
        /// Links need no piece; so many of them are worth a thread's while.
        const LINKS: usize = 256;
        let is_link = |names: &[usize]| self.content(names).is_none();
        let mut shares = Vec::new();
        let mut rest = inodes;
        while let Some(&first) = rest.first() {
            let length = match self.content(first) {
                None => rest.iter().take(LINKS).take_while(|names| is_link(names)).count(),
                Some((_, from, _)) => {
                    let fits = |names: &&&[usize]| {
                        self.content(names)
                            .is_some_and(|(_, offset, size)| offset - from + size <= PIECE as u64)
                    };
                    rest.iter().take_while(fits).count()
                }
            };
            let (share, after) = rest.split_at(length.max(1));
            rest = after;
            shares.push(match length {
                0 => Share::Large(Large {
                    names: first,
                    hash: sha2::Sha256::new(),
                    done: 0,
                    file: None,
                    found: None,
                }),
                _ if is_link(first) => Share::Links(share),
                _ => Share::Run(share),
            });
        }
        shares
    }

    /// One thread's work on one piece: what is left of the share, and what was taken in.
    fn work<'s>(&self, share: Share<'s>, piece: &[u8]) -> Result<(Option<Share<'s>>, Vec<Taken>)> {
        let (mut in_stage, mut taken) = (InStage(None), Vec::new());
        match share {
            Share::Links(inodes) => {
                for names in inodes {
                    self.take_link(&mut in_stage, names, &mut taken)?;
                }
            }
            Share::Run(inodes) => self.take_run(&mut in_stage, inodes, piece, &mut taken)?,
            Share::Large(large) => {
                let rest = self.take_large(&mut in_stage, large, piece, &mut taken)?;
                return Ok((rest.map(Share::Large), taken));
            }
        }
        Ok((None, taken))
    }

    /// Files that lie within one piece: what is hashed is the copy that is staged.
    fn take_run<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        inodes: &[&[usize]],
        piece: &[u8],
        taken: &mut Vec<Taken>,
    ) -> Result<()> {
        let mut start = None;
        for names in inodes {
            let Some((mode, offset, size)) = self.content(names) else { continue };
            self.stager.cancel.check()?;
            let start = *start.get_or_insert(offset);
            let place = |at: u64| usize::try_from(at - start).expect("it lies within a piece");
            let content = &piece[place(offset)..place(offset + size)];
            let entry = Entry::File { mode, digest: Digest(sha2::Sha256::digest(content).into()) };
            self.stage_names(in_stage, names, &entry, taken, |in_stage, _| {
                Ok(self.stager.file(in_stage, mode, |file| file.write(content))?.0)
            })?;
        }
        Ok(())
    }

    /// The next piece of a large file. What is left is the file again, for its next piece.
    fn take_large<'s, 'l>(
        &'s self,
        in_stage: &mut InStage<'s>,
        mut large: Large<'l>,
        piece: &[u8],
        taken: &mut Vec<Taken>,
    ) -> Result<Option<Large<'l>>> {
        let Some((mode, _, size)) = self.content(large.names) else { return Ok(None) };
        self.stager.cancel.check()?;
        if large.done == 0 && (large.found.is_some() || self.is_likely_to_differ(large.names, piece)) {
            let (stage, cursor) = self.stager.stage(in_stage)?;
            large.file = Some(stage.file(cursor, mode)?);
        }
        large.hash.update(piece);
        large.done += piece.len() as u64;
        if let Some((name, file)) = &mut large.file {
            let (_, cursor) = self.stager.stage(in_stage)?;
            Staging { file, path: &cursor.path_of(name) }.write(piece)?;
        }
        if large.done < size {
            return Ok(Some(large));
        }
        let digest = Digest(large.hash.finalize_reset().into());
        let entry = Entry::File { mode, digest };
        let Some((name, file)) = large.file.take() else {
            if large.names.iter().any(|&at| self.stager.differs(&self.entries[at].path, &entry)) {
                large.start_again(digest);
                return Ok(Some(large));
            }
            let unchanged = |&entry_at: &usize| Taken { entry_at, entry: entry.clone(), staged: None };
            taken.extend(large.names.iter().map(unchanged));
            return Ok(None);
        };
        if large.found.is_some_and(|found| found != digest) {
            return Err(Error::InvalidReturnValue { reason: READ_OTHERWISE.to_owned() });
        }
        let ino = Meta::of_file(&file).map_err(|error| Error::io("fstat", name.as_path(), error))?.ino;
        let mut staged = Some(Staged { name, ino });
        self.stage_names(in_stage, large.names, &entry, taken, |in_stage, first| match staged.take() {
            Some(staged) => Ok(staged),
            None => self.stager.copy(in_stage, first, mode, digest),
        })?;
        if let Some(unneeded) = staged {
            // It is what the base has after all.
            self.stager.stage(in_stage)?.1.remove_file(&unneeded.name)?;
        }
        Ok(None)
    }

    /// A guess, which decides nothing but what is done first: whether none of the names is in the base, or the file that
    /// stands here under the first of those begins with other bytes. One that cannot be read says nothing.
    fn is_likely_to_differ(&self, names: &[usize], piece: &[u8]) -> bool {
        const BEGINNING: usize = 4096;
        let path = |&name: &usize| &self.entries[name].path;
        let Some(path) = names.iter().map(path).find(|path| self.stager.base.contains_key(*path)) else {
            return true;
        };
        let Ok(Some((file, _))) = self.stager.workspace.cursor().open(path) else { return false };
        let mut here = Vec::with_capacity(BEGINNING);
        let read = file.take(BEGINNING as u64).read_to_end(&mut here);
        read.is_ok() && here != piece[..piece.len().min(BEGINNING)]
    }

    fn take_link<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        names: &[usize],
        taken: &mut Vec<Taken>,
    ) -> Result<()> {
        let Content::Symlink { target } = &self.entries[names[0]].content else { return Ok(()) };
        let entry = Entry::Symlink { target: target.clone() };
        self.stage_names(in_stage, names, &entry, taken, |in_stage, _| self.stager.symlink(in_stage, target))
    }

    /// Stages those names of an inode that differ from the base: the first with its content, the others as further names
    /// of that. Where a file system gives no further name, `stage` is asked again, with what it staged before.
    fn stage_names<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        names: &[usize],
        entry: &Entry,
        taken: &mut Vec<Taken>,
        mut stage: impl FnMut(&mut InStage<'s>, Option<&Staged>) -> Result<Staged>,
    ) -> Result<()> {
        let mut first: Option<Staged> = None;
        for &entry_at in names {
            let mut staged = None;
            if self.stager.differs(&self.entries[entry_at].path, entry) {
                let further = match &first {
                    Some(first) => self.stager.further_name(in_stage, first)?,
                    None => None,
                };
                staged = Some(if let Some(further) = further {
                    further
                } else {
                    let anew = stage(in_stage, first.as_ref())?;
                    first.insert(anew).clone()
                });
            }
            taken.push(Taken { entry_at, entry: entry.clone(), staged });
        }
        Ok(())
    }
}

/// The next share that is done. Other work is done meanwhile where this thread is one of those that the work is for.
fn next<'a>(receiver: &mpsc::Receiver<Done<'a>>) -> Done<'a> {
    loop {
        if let Ok(done) = receiver.try_recv() {
            return done;
        }
        let done = match rayon::yield_now() {
            Some(rayon::Yield::Executed) => continue,
            Some(rayon::Yield::Idle) => receiver.recv_timeout(Duration::from_millis(1)).ok(),
            None => receiver.recv().ok(),
        };
        if let Some(done) = done {
            return done;
        }
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
