//! An archive → checked and hashed, and what differs from the base staged, while it passes.
//!
//! The archive is a stream that comes once: each file is hashed from the bytes that are staged, and which of them are staged
//! is decided without knowing what comes later. So it takes two steps. [`Reception::receive`] reads the stream to its end and
//! stages what differs from the base by what is known so far. [`Reception::settle`] goes by what is known then: it gives each
//! name its file in the stage, and drops what was staged needlessly. Nothing else of the workspace is changed by either.
//!
//! What a name needs may have passed without being staged: the second name of an inode is new, and the first was not. That
//! content is taken from a local file that has it. Where there is none, [`Error::Passed`] says that the archive has to come
//! again, and every file of it to be staged then.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use rayon::prelude::*;
use sha2::Digest as _;

use super::incoming::{Arrival, InStage, Incoming, LazyStage, Staged, Stager, Staging};
use crate::archive::source::{PIECE, Stream};
use crate::archive::unpack::{Archive, Content, Passing, Sink, Unpacked, unpack};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{File, Root};
use crate::path::RelativePath;
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, PERMISSIONS, Snapshot};
use crate::tree::scan::{CHUNK, LeaveOut};

/// How many pieces of an archive are in memory at most: two for each thread, so that the next is there when one is done.
const PIECES_MAX: usize = 32;

/// How many inodes are settled by a thread at a time.
const INODES: usize = 256;

/// What an archive is taken in by, the same in both steps.
#[derive(Clone, Copy)]
pub struct Reception<'a> {
    /// What both sides last shared.
    pub base: &'a Snapshot,
    /// The workspace that the stage is made in. Files of it are read to compare them.
    pub workspace: &'a Root,
    /// Which paths of the archive are checked and then dropped.
    pub left_alone: LeaveOut<'a>,
    /// The file of the archive that is none of the tree's.
    pub control: Option<&'a RelativePath>,
    /// Hears the content of that file when it passes.
    pub told: &'a (dyn Fn(&[u8]) + Sync),
    /// Which mode a file has, by what is known while the archive passes. It is a guess: what counts are the modes that the
    /// entries have when they are settled.
    pub mode: &'a (dyn Fn(&RelativePath, u32) -> u32 + Sync),
    /// Whether every file is staged, so that none is missing later.
    pub every_file: bool,
    /// Stops it.
    pub cancel: &'a Cancel,
}

/// An archive that has come whole. To be settled or given up, since there may be a stage.
#[derive(Debug, Default)]
pub struct Received {
    /// Its entries. Until they are settled, some may be removed, and their modes changed.
    pub archive: Archive,
    /// Its files, by where they begin.
    taken: Vec<Taken>,
    stage: LazyStage,
}

/// A file of the archive that was hashed.
#[derive(Debug)]
struct Taken {
    /// Where its header begins.
    inode: u64,
    digest: Digest,
    /// Where it was staged, and with which mode.
    staged: Option<(Staged, u32)>,
}

impl Reception<'_> {
    /// Takes in a stream to its end. On failure no stage is left.
    pub fn receive(&self, stream: &mut dyn Stream) -> Result<Received> {
        let stager = self.stager(LazyStage::default());
        let worker = Worker { reception: self, stager: &stager };
        let received = rayon::in_place_scope(|scope| {
            let mut taking = Taking::new(worker, scope);
            let archive = unpack(stream, self.control, &|path| (self.left_alone)(path), &mut taking)?;
            Ok((archive, taking.finish()?))
        });
        match received {
            Ok((archive, mut taken)) => {
                taken.par_sort_unstable_by_key(|taken| taken.inode);
                Ok(Received { archive, taken, stage: stager.stage })
            }
            Err(error) => Err(stager.give_up(error)),
        }
    }

    /// The same for one that must hold something where the base does: at least `./`, which an empty folder's archive has and
    /// one that was never written has not. On failure no stage is left.
    pub fn receive_some(&self, stream: &mut dyn Stream) -> Result<Received> {
        let received = match self.receive(stream) {
            // Nothing at all is how some tars write an empty archive, and read it.
            Err(Error::ArchiveTruncated { offset: 0, .. }) if self.base.is_empty() => {
                return Ok(Received::default());
            }
            received => received?,
        };
        if !received.archive.held_anything && !self.base.is_empty() {
            let reason = format!(
                "it holds no entry at all, not even './', although {} had been uploaded",
                self.base.len()
            );
            return Err(self.give_up(received, Error::ArchiveInvalid { offset: 0, entry: None, reason }));
        }
        Ok(received)
    }

    /// Gives every file and link that differs from the base its place in the stage. On failure no stage is left.
    pub fn settle(&self, received: Received) -> Result<Incoming> {
        let Received { archive, taken, stage } = received;
        let stager = self.stager(stage);
        let settling = Settling {
            stager: &stager,
            entries: archive.entries,
            taken,
            every_file: self.every_file,
            by_digest: OnceLock::new(),
        };
        let arrivals = settling.arrivals();
        stager.gather(arrivals)
    }

    /// Removes what was staged, since `error` has come up, which is returned.
    #[must_use]
    pub fn give_up(&self, received: Received, error: Error) -> Error {
        self.stager(received.stage).give_up(error)
    }

    fn stager(&self, stage: LazyStage) -> Stager<'_> {
        Stager { base: self.base, workspace: self.workspace, stage, cancel: self.cancel }
    }
}

/// The files of an archive on their way in.
///
/// One thread, the caller's, reads the archive and may have to wait for that; the threads that hash and stage see nothing but
/// pieces that are there, and wait for nobody.
struct Taking<'a, 's> {
    worker: Worker<'s>,
    scope: &'a rayon::Scope<'s>,
    sender: mpsc::Sender<Done>,
    receiver: mpsc::Receiver<Done>,
    /// How many pieces are in memory that were handed over and are not done.
    pieces: usize,
    /// Buffers of those that are.
    spare: Vec<Vec<u8>>,
    taken: Vec<Taken>,
    /// The file longer than a piece that is passing or has passed last, by where it begins.
    large: Option<(u64, Arc<Mutex<LargeQueue>>)>,
}

/// A file that is taken in one piece after the other, by one thread at a time.
struct LargeQueue {
    /// The file, unless a thread is at work on it: that one goes on with what comes.
    large: Option<Box<Large>>,
    /// What comes next of it.
    parts: VecDeque<Vec<u8>>,
}

/// What a thread has done with a piece.
struct Done {
    bytes: Vec<u8>,
    taken: Result<Vec<Taken>>,
}

/// What a part of a large file comes to.
enum Worked {
    /// More of it is to come.
    Part(Box<Large>),
    /// It was the last.
    Last(Taken),
}

impl<'a, 's> Taking<'a, 's> {
    fn new(worker: Worker<'s>, scope: &'a rayon::Scope<'s>) -> Self {
        let (sender, receiver) = mpsc::channel();
        let (spare, taken) = (Vec::new(), Vec::new());
        Self { worker, scope, sender, receiver, pieces: 0, spare, taken, large: None }
    }

    /// Waits until a further piece may be in memory.
    fn make_room(&mut self) -> Result<()> {
        self.worker.stager.cancel.check()?;
        let most = (2 * rayon::current_num_threads()).min(PIECES_MAX);
        while self.pieces >= most {
            self.wait()?;
        }
        self.pieces += 1;
        Ok(())
    }

    /// Waits until a piece is done.
    fn wait(&mut self) -> Result<()> {
        let Done { bytes, taken } = next(&self.receiver);
        self.pieces -= 1;
        self.spare.push(bytes);
        self.taken.extend(taken?);
        Ok(())
    }

    /// Waits until everything is done.
    fn finish(mut self) -> Result<Vec<Taken>> {
        while self.pieces > 0 {
            self.wait()?;
        }
        Ok(self.taken)
    }
}

impl Sink for Taking<'_, '_> {
    fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE));
        buffer.clear();
        buffer
    }

    fn files(&mut self, bytes: Vec<u8>, files: Vec<Passing>) -> Result<()> {
        self.make_room()?;
        let (worker, sender) = (self.worker, self.sender.clone());
        self.scope.spawn(move |_| {
            let taken = caught(|| worker.files(&files, &bytes));
            // Nobody waits for it where another one has failed.
            sender.send(Done { bytes, taken }).unwrap_or_default();
        });
        Ok(())
    }

    fn part(&mut self, file: &Passing, bytes: Vec<u8>) -> Result<()> {
        self.make_room()?;
        let waiting = match &self.large {
            Some((inode, waiting)) if *inode == file.inode => waiting.clone(),
            _ => {
                let large = Some(Box::new(Large::new(file.clone())));
                let waiting = Arc::new(Mutex::new(LargeQueue { large, parts: VecDeque::new() }));
                self.large = Some((file.inode, waiting.clone()));
                waiting
            }
        };
        let idle = {
            let mut waiting = lock(&waiting);
            waiting.parts.push_back(bytes);
            waiting.large.take()
        };
        if let Some(large) = idle {
            let (worker, sender) = (self.worker, self.sender.clone());
            self.scope.spawn(move |_| worker.parts(large, &waiting, &sender));
        }
        Ok(())
    }

    fn control(&mut self, content: &[u8]) {
        (self.worker.reception.told)(content);
    }
}

/// What a thread's work comes to, a panic included.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Internal("a thread panicked while it took in an archive".to_owned())))
}

/// The next piece that is done. Other work is done meanwhile where this thread is one of those that the work is for.
fn next(receiver: &mpsc::Receiver<Done>) -> Done {
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

/// A file that is longer than a piece.
struct Large {
    file: Passing,
    hash: sha2::Sha256,
    /// How much of it was hashed.
    done: u64,
    state: State,
}

/// What is known of a large file so far.
enum State {
    /// It has just begun.
    Begun,
    /// So far it is what the local file begins with, which the base may have as well. So nothing of it is staged.
    AsLocal(File),
    /// It is written into the stage.
    Staged(RelativePath, File),
    /// It is only hashed: what it is decides whether it is needed.
    Hashed,
}

impl Large {
    fn new(file: Passing) -> Self {
        Self { file, hash: sha2::Sha256::new(), done: 0, state: State::Begun }
    }
}

/// One thread's work.
#[derive(Clone, Copy)]
struct Worker<'s> {
    reception: &'s Reception<'s>,
    stager: &'s Stager<'s>,
}

impl<'s> Worker<'s> {
    /// A file as it comes in, by what is known so far.
    fn entry(&self, file: &Passing, digest: Digest) -> Entry {
        let mode = (self.reception.mode)(&file.path, file.mode);
        self.stager.usable(&file.path, Entry::File { mode, digest })
    }

    /// Whether a file is staged, by what is known so far.
    fn is_due(&self, file: &Passing, entry: &Entry) -> bool {
        self.reception.every_file || (file.wanted && self.stager.differs(&file.path, entry))
    }

    /// Whole files: what is hashed are the bytes that are staged.
    fn files(&self, files: &[Passing], bytes: &[u8]) -> Result<Vec<Taken>> {
        let mut in_stage = InStage(None);
        let take = |file: &Passing| {
            self.stager.cancel.check()?;
            let content = &bytes[file.range.clone()];
            let digest = Digest(sha2::Sha256::digest(content).into());
            let entry = self.entry(file, digest);
            let mut staged = None;
            if self.is_due(file, &entry) {
                let mode = mode_of(&entry);
                staged = Some((self.stager.file(&mut in_stage, mode, |file| file.write(content))?.0, mode));
            }
            Ok(Taken { inode: file.inode, digest, staged })
        };
        files.iter().map(take).collect()
    }

    /// The parts of a large file, as far as they are there. The thread that reads need not wait for that to go on.
    fn parts(&self, mut large: Box<Large>, waiting: &Mutex<LargeQueue>, sender: &mpsc::Sender<Done>) {
        loop {
            let bytes = {
                let mut waiting = lock(waiting);
                let Some(bytes) = waiting.parts.pop_front() else {
                    waiting.large = Some(large);
                    return;
                };
                bytes
            };
            let (rest, taken) = match caught(|| self.part(large, &bytes)) {
                Ok(Worked::Part(rest)) => (Some(rest), Ok(Vec::new())),
                Ok(Worked::Last(taken)) => (None, Ok(vec![taken])),
                Err(error) => (None, Err(error)),
            };
            // Nobody waits for it where another one has failed.
            sender.send(Done { bytes, taken }).unwrap_or_default();
            let Some(rest) = rest else { return };
            large = rest;
        }
    }

    /// The next part of a large file.
    fn part(&self, mut large: Box<Large>, bytes: &[u8]) -> Result<Worked> {
        self.stager.cancel.check()?;
        let mut in_stage = InStage(None);
        // Whatever the digest is, the mode is the same.
        let mode = mode_of(&self.entry(&large.file, Digest([0; 32])));
        large.state = match large.state {
            State::Begun => self.begin(&mut in_stage, &large.file, mode)?,
            state => state,
        };
        let Large { hash, state, done, .. } = &mut *large;
        if let State::AsLocal(local) = state {
            let before = hash.clone();
            // Neither waits for the other, since a file is one piece after the other.
            let ((), goes_on) = rayon::join(|| hash.update(bytes), || goes_on_with(local, bytes));
            if !goes_on {
                let beginning = (*done, Digest(before.finalize().into()));
                *state = self.stage_beginning(&mut in_stage, mode, local, beginning)?;
            }
        } else {
            hash.update(bytes);
        }
        large.done += bytes.len() as u64;
        if let State::Staged(name, file) = &mut large.state {
            let (_, cursor) = self.stager.stage(&mut in_stage)?;
            Staging { file, path: &cursor.path_of(name) }.write(bytes)?;
        }
        if large.done < large.file.size {
            return Ok(Worked::Part(large));
        }
        let Large { file, hash, done, mut state } = *large;
        let digest = Digest(hash.finalize().into());
        if let State::AsLocal(local) = &mut state
            && self.is_due(&file, &self.entry(&file, digest))
        {
            state = self.stage_beginning(&mut in_stage, mode, local, (done, digest))?;
        }
        let staged = match state {
            State::Staged(name, content) => Some((Stager::staged(name, &content)?, mode)),
            _ => None,
        };
        Ok(Worked::Last(Taken { inode: file.inode, digest, staged }))
    }

    /// What is done with a large file, before anything of it was read: only where the base has a file of that path and mode
    /// may it be unchanged.
    fn begin(&self, in_stage: &mut InStage<'s>, file: &Passing, mode: u32) -> Result<State> {
        if !file.wanted && !self.reception.every_file {
            return Ok(State::Hashed);
        }
        let may_be_unchanged = match self.stager.base.get(&file.path) {
            Some(Entry::File { mode: base, .. }) => base & PERMISSIONS == mode & PERMISSIONS,
            _ => false,
        };
        if may_be_unchanged && !self.reception.every_file {
            // One that cannot be read says nothing.
            if let Ok(Some((local, _))) = self.stager.workspace.cursor().open(&file.path) {
                return Ok(State::AsLocal(local));
            }
        }
        let (stage, cursor) = self.stager.stage(in_stage)?;
        let (name, content) = stage.file(cursor, mode)?;
        Ok(State::Staged(name, content))
    }

    /// Stages what a large file has in common with the local one. Where that has changed meanwhile, the file is only hashed.
    fn stage_beginning(
        &self,
        in_stage: &mut InStage<'s>,
        mode: u32,
        local: &mut File,
        beginning: (u64, Digest),
    ) -> Result<State> {
        let staged = self.stager.copy_local(in_stage, mode, local, beginning)?;
        Ok(staged.map_or(State::Hashed, |(name, file)| State::Staged(name, file)))
    }
}

/// Whether a file goes on with exactly these bytes. One that cannot be read does not.
fn goes_on_with(file: &mut File, mut bytes: &[u8]) -> bool {
    let mut buffer = vec![0; bytes.len().min(CHUNK)];
    while !bytes.is_empty() {
        let most = bytes.len().min(CHUNK);
        match file.read(&mut buffer[..most]) {
            Ok(read) if read > 0 && buffer[..read] == bytes[..read] => bytes = &bytes[read..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return false,
        }
    }
    true
}

fn mode_of(entry: &Entry) -> u32 {
    match entry {
        Entry::File { mode, .. } => mode & PERMISSIONS,
        _ => 0,
    }
}

/// An archive that has come whole, and of which it is known what counts.
struct Settling<'a> {
    stager: &'a Stager<'a>,
    entries: Vec<Unpacked>,
    taken: Vec<Taken>,
    every_file: bool,
    /// The files of the base by what they hold; made when the first is looked for.
    by_digest: OnceLock<HashMap<Digest, Vec<&'a RelativePath>>>,
}

/// What one inode of the archive is: which of the entries are its names, and what it holds, for a file.
struct Inode<'n> {
    names: &'n [(u64, usize)],
    file: Option<usize>,
}

impl Settling<'_> {
    fn arrivals(self) -> Result<Vec<Arrival>> {
        let is_leaf = |content: &Content| matches!(content, Content::File { .. } | Content::Symlink { .. });
        let leaves = self.entries.iter().enumerate().filter(|(_, entry)| is_leaf(&entry.content));
        let mut names: Vec<(u64, usize)> = leaves.map(|(at, entry)| (entry.inode, at)).collect();
        names.par_sort_unstable();
        let (inodes, needless) = self.inodes(&names)?;
        let mut staged: Vec<(usize, Staged)> = inodes
            .par_chunks(INODES)
            .map(|inodes| {
                let (mut in_stage, mut staged) = (InStage(None), Vec::new());
                for inode in inodes {
                    self.stager.cancel.check()?;
                    self.settle(&mut in_stage, inode, &mut staged)?;
                }
                Ok(staged)
            })
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        for staged in needless {
            self.remove(&mut InStage(None), staged)?;
        }
        staged.par_sort_unstable_by_key(|(at, _)| *at);
        let mut staged = staged.into_iter().peekable();
        let mut arrivals = Vec::with_capacity(self.entries.len());
        for at in 0..self.entries.len() {
            let path = self.entries[at].path.clone();
            arrivals.push(match self.entry(at)? {
                None => Arrival::Special(path),
                Some(entry) => match staged.next_if(|(next, _)| *next == at) {
                    Some((_, staged)) => Arrival::Staged(path, entry, staged),
                    None => Arrival::Entry(path, entry),
                },
            });
        }
        Ok(arrivals)
    }

    /// The inodes that these names are of, and what was staged for a file of which no name counts.
    fn inodes<'n>(&'n self, names: &'n [(u64, usize)]) -> Result<(Vec<Inode<'n>>, Vec<&'n Staged>)> {
        let (mut inodes, mut needless) = (Vec::new(), Vec::new());
        let mut next = 0;
        for names in names.chunk_by(|one, other| one.0 == other.0) {
            let (inode, at) = names[0];
            while let Some(taken) = self.taken.get(next).filter(|taken| taken.inode < inode) {
                needless.extend(taken.staged.as_ref().map(|(staged, _)| staged));
                next += 1;
            }
            let mut file = None;
            if matches!(self.entries[at].content, Content::File { .. }) {
                file = Some(self.taken_at(inode)?);
                next += 1;
            }
            inodes.push(Inode { names, file });
        }
        let rest = self.taken[next.min(self.taken.len())..].iter();
        needless.extend(rest.filter_map(|taken| Some(&taken.staged.as_ref()?.0)));
        Ok((inodes, needless))
    }

    fn taken_at(&self, inode: u64) -> Result<usize> {
        self.taken
            .binary_search_by_key(&inode, |taken| taken.inode)
            .map_err(|_| Error::Internal("a file of the archive was not taken in".to_owned()))
    }

    /// An entry as it comes in; nothing for what never does.
    fn entry(&self, at: usize) -> Result<Option<Entry>> {
        let Unpacked { path, content, inode } = &self.entries[at];
        let entry = match content {
            Content::Folder { mode } => Entry::Folder { mode: *mode },
            Content::File { mode } => {
                Entry::File { mode: *mode, digest: self.taken[self.taken_at(*inode)?].digest }
            }
            Content::Symlink { target } => Entry::Symlink { target: target.clone() },
            Content::Special => return Ok(None),
        };
        Ok(Some(self.stager.usable(path, entry)))
    }

    /// Stages those names of an inode that differ from the base: the first with its content, the others as further names of
    /// that, each mode by itself.
    fn settle<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        inode: &Inode<'_>,
        staged: &mut Vec<(usize, Staged)>,
    ) -> Result<()> {
        let mut passed = inode.file.and_then(|file| self.taken[file].staged.as_ref());
        let mut by_mode: Vec<(u32, Staged)> = Vec::new();
        for &(_, at) in inode.names {
            let Some(entry) = self.entry(at)? else { continue };
            if !self.stager.differs(&self.entries[at].path, &entry) {
                continue;
            }
            let mode = mode_of(&entry);
            let like = by_mode.iter().position(|(other, _)| *other == mode);
            let further = match like {
                Some(like) => self.stager.further_name(in_stage, &by_mode[like].1)?,
                None => None,
            };
            let file = if let Some(further) = further {
                further
            } else {
                // It is the first of that mode, or this file system gives it no further name.
                let file = self.make(in_stage, inode, &entry, passed.take(), by_mode.first())?;
                match like {
                    Some(like) => by_mode[like].1 = file.clone(),
                    None => by_mode.push((mode, file.clone())),
                }
                file
            };
            staged.push((at, file));
        }
        passed.map_or(Ok(()), |(needless, _)| self.remove(in_stage, needless))
    }

    /// What is staged for a name that is no further name of another: what was staged when the content passed, or a copy of what
    /// was made of it, or of a local file that has it.
    fn make<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        inode: &Inode<'_>,
        entry: &Entry,
        passed: Option<&(Staged, u32)>,
        earlier: Option<&(u32, Staged)>,
    ) -> Result<Staged> {
        match entry {
            Entry::Symlink { target } => self.stager.symlink(in_stage, target),
            Entry::Folder { .. } => Err(Error::Internal("a directory was to be staged".to_owned())),
            Entry::File { mode, digest } => match (passed, earlier) {
                (Some((staged, as_staged)), _) => {
                    if as_staged & PERMISSIONS != mode & PERMISSIONS {
                        let (_, cursor) = self.stager.stage(in_stage)?;
                        cursor.set_staged_mode(&staged.name, mode & PERMISSIONS)?;
                    }
                    Ok(staged.clone())
                }
                (None, Some((_, earlier))) => self.stager.copy(in_stage, earlier, *mode, *digest),
                (None, None) => self.find_here(in_stage, inode, *mode, *digest),
            },
        }
    }

    /// Content that has passed, from a local file that has it: most likely that of another name, which is unchanged.
    fn find_here<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        inode: &Inode<'_>,
        mode: u32,
        digest: Digest,
    ) -> Result<Staged> {
        let has_it = |entry: &Entry| matches!(entry, Entry::File { digest: base, .. } if *base == digest);
        for &(_, at) in inode.names {
            let path = &self.entries[at].path;
            if self.stager.base.get(path).is_some_and(has_it)
                && let Some(found) = self.copy_of_local(in_stage, path, mode, digest)?
            {
                return Ok(found);
            }
        }
        let by_digest = self.by_digest.get_or_init(|| {
            let mut by_digest: HashMap<_, Vec<_>> = HashMap::new();
            for (path, entry) in self.stager.base {
                if let Entry::File { digest, .. } = entry {
                    by_digest.entry(*digest).or_default().push(path);
                }
            }
            by_digest
        });
        for path in by_digest.get(&digest).into_iter().flatten() {
            if let Some(found) = self.copy_of_local(in_stage, path, mode, digest)? {
                return Ok(found);
            }
        }
        if self.every_file {
            return Err(Error::Internal("a file of the archive was not staged".to_owned()));
        }
        Err(Error::Passed)
    }

    fn copy_of_local<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        path: &RelativePath,
        mode: u32,
        digest: Digest,
    ) -> Result<Option<Staged>> {
        // One that cannot be read says nothing.
        let Ok(Some((mut local, meta))) = self.stager.workspace.cursor().open(path) else { return Ok(None) };
        let copied = self.stager.copy_local(in_stage, mode, &mut local, (meta.size, digest))?;
        copied.map(|(name, file)| Stager::staged(name, &file)).transpose()
    }

    fn remove<'s>(&'s self, in_stage: &mut InStage<'s>, needless: &Staged) -> Result<()> {
        self.stager.stage(in_stage)?.1.remove_file(&needless.name).map(|_| ())
    }
}
