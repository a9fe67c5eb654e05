//! Reads an archive: checks and hashes it, and stages what differs from the base, in one pass.
//!
//! The archive is a stream that can be read only once. The bytes that are hashed are the bytes that are
//! staged, and whether a file is staged is decided before the rest of the archive is known. So it takes two
//! steps. [`Reception::receive`] reads the stream to its end and stages what differs from the base as far as
//! that is known by then. [`Reception::settle`] knows the whole archive: it gives each name its file in the
//! stage, and removes what was staged without need. Neither changes anything else in the workspace.
//!
//! A name may need content that was not staged when it passed: for example, if the second name of an inode is
//! new and the first one is unchanged. That content is copied from a local file that has it. If there is
//! none, [`Error::NotStaged`] tells the caller to read the archive again and stage every file of it.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use rayon::prelude::*;
use sha2::Digest as _;

use super::incoming::{InStage, Incoming, IncomingEntry, LazyStage, Staged, Stager, Staging, differ};
use crate::archive::source::{PIECE, Stream};
use crate::archive::unpack::{Archive, Content, Sink, StreamedFile, Unpacked, unpack};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{File, Root, read_fully_at};
use crate::path::RelativePath;
use crate::path_map::Nearby;
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, PERMISSIONS, Snapshot};
use crate::tree::filter::Filter;
use crate::tree::scan::CHUNK;

/// How many pieces of an archive are in memory at most: two for each thread, so the next one is ready when
/// one is done.
const PIECES_MAX: usize = 32;

/// How many inodes a thread settles at a time, and how many entries it compares with the base.
const INODES: usize = 256;
const ENTRIES: usize = 1024;

/// How to read an archive; the same for both steps.
#[derive(Clone, Copy)]
pub struct Reception<'a> {
    /// What both sides last shared.
    pub base: &'a Snapshot,
    /// The workspace, in which the stage is made. Its files are read for comparison.
    pub workspace: &'a Root,
    /// The paths of the archive that are checked and then dropped.
    pub left_alone: &'a Filter<'a>,
    /// A file in the archive that does not belong to the tree.
    pub control: Option<&'a RelativePath>,
    /// Gets the content of that file.
    pub on_control: &'a (dyn Fn(&[u8]) + Sync),
    /// The mode of a file, as far as it is known while the archive is read. It is a guess: what counts is the
    /// mode that an entry has in [`Reception::settle`].
    pub mode: &'a (dyn Fn(&RelativePath, u32) -> u32 + Sync),
    /// Whether to stage every file, so no content is missing later.
    pub every_file: bool,
    /// Whether the archive may lack files that could not be read.
    pub is_partial: bool,
    /// Cancels the reading.
    pub cancel: &'a Cancel,
}

/// An archive that was read completely. It may have a stage, so it must be settled or given up.
#[derive(Debug, Default)]
pub struct Received {
    /// Its entries. Until they are settled, entries may be removed and their modes changed.
    pub archive: Archive,
    /// Its files, by the offset of their headers.
    taken: Vec<HashedFile>,
    stage: LazyStage,
}

/// A file of the archive that was hashed.
#[derive(Debug)]
struct HashedFile {
    /// The offset of its header.
    inode: u64,
    digest: Digest,
    /// Where it was staged, and with which mode.
    staged: Option<(Staged, u32)>,
}

impl Reception<'_> {
    /// Reads a stream to its end. After a failure no stage is left.
    pub fn receive(&self, stream: &mut dyn Stream) -> Result<Received> {
        let stager = self.stager(LazyStage::default());
        let worker = Worker { reception: self, stager: &stager };
        let received = rayon::in_place_scope(|scope| {
            let mut taking = Intake::new(worker, scope);
            let archive = unpack(stream, self.control, self.left_alone, &mut taking)?;
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

    /// Reads a stream that must contain at least one entry if the base does: even an empty folder's archive
    /// has `./`, and an archive that was never written has nothing. After a failure no stage is left.
    pub fn receive_some(&self, stream: &mut dyn Stream) -> Result<Received> {
        let received = match self.receive(stream) {
            // Some tars write an empty archive as no bytes at all, and read it as well.
            Err(Error::ArchiveTruncated { offset: 0, .. }) if self.base.is_empty() => {
                return Ok(Received::default());
            }
            received => received?,
        };
        if !received.archive.held_anything && !self.base.is_empty() {
            let reason = format!(
                "it contains no entry at all, not even './', although {} entries had been uploaded",
                self.base.len()
            );
            return Err(self.give_up(received, Error::ArchiveInvalid { offset: 0, entry: None, reason }));
        }
        Ok(received)
    }

    /// Stages every file and link that differs from the base. After a failure no stage is left.
    pub fn settle(&self, received: Received) -> Result<Incoming> {
        let Received { archive, taken, stage } = received;
        let stager = self.stager(stage);
        let settling = Settling {
            stager: &stager,
            archive: archive.entries,
            taken,
            every_file: self.every_file,
            by_digest: OnceLock::new(),
        };
        let entries_found = settling.entries_found();
        stager.gather(entries_found)
    }

    /// Removes the stage because of `error`, and returns that.
    #[must_use]
    pub fn give_up(&self, received: Received, error: Error) -> Error {
        self.stager(received.stage).give_up(error)
    }

    fn stager(&self, stage: LazyStage) -> Stager<'_> {
        Stager { base: self.base, workspace: self.workspace, stage, cancel: self.cancel }
    }
}

/// The files of an archive while it is read.
///
/// Only the calling thread reads the archive and may have to wait for it. The threads that hash and stage get
/// pieces that are complete, and wait for nothing.
struct Intake<'a, 's> {
    worker: Worker<'s>,
    scope: &'a rayon::Scope<'s>,
    sender: mpsc::Sender<FinishedPiece>,
    receiver: mpsc::Receiver<FinishedPiece>,
    /// How many pieces are in memory that were handed to a thread and are not done.
    pieces: usize,
    /// Buffers that can be used again.
    spare: Vec<Vec<u8>>,
    taken: Vec<HashedFile>,
    /// The files that are longer than a piece and not complete, by the offset of their headers: how much is still to
    /// come, and their pieces.
    large: HashMap<u64, (u64, Arc<Mutex<LargeQueue>>)>,
    /// What can be read again of files of which nothing was passed on yet, by the offset of their headers.
    again: HashMap<u64, Again>,
}

/// The pieces of a large file, which one thread at a time works through in order.
struct LargeQueue {
    /// The file, unless a thread works on it; that thread then takes the next pieces too.
    large: Option<Box<Large>>,
    /// The next pieces.
    parts: VecDeque<Vec<u8>>,
}

/// A piece that a thread is done with.
struct FinishedPiece {
    bytes: Vec<u8>,
    taken: Result<Vec<HashedFile>>,
}

/// The state of a large file after one of its pieces.
enum PieceResult {
    /// More pieces follow.
    Part(Box<Large>),
    /// It was the last piece.
    Last(HashedFile),
}

impl<'a, 's> Intake<'a, 's> {
    fn new(worker: Worker<'s>, scope: &'a rayon::Scope<'s>) -> Self {
        let (sender, receiver) = mpsc::channel();
        let (spare, taken) = (Vec::new(), Vec::new());
        Self {
            worker,
            scope,
            sender,
            receiver,
            pieces: 0,
            spare,
            taken,
            large: HashMap::new(),
            again: HashMap::new(),
        }
    }

    /// Waits until another piece may be in memory.
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
        let FinishedPiece { bytes, taken } = next_finished(&self.receiver);
        self.pieces -= 1;
        self.spare.push(bytes);
        self.taken.extend(taken?);
        Ok(())
    }

    /// Waits until all pieces are done.
    fn finish(mut self) -> Result<Vec<HashedFile>> {
        while self.pieces > 0 {
            self.wait()?;
        }
        Ok(self.taken)
    }
}

impl Sink for Intake<'_, '_> {
    fn may_lack_files(&self) -> bool {
        self.worker.reception.is_partial
    }

    fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE));
        buffer.clear();
        buffer
    }

    fn files(&mut self, bytes: Vec<u8>, files: Vec<StreamedFile>) -> Result<()> {
        self.make_room()?;
        let (worker, sender) = (self.worker, self.sender.clone());
        self.scope.spawn(move |_| {
            let taken = catch_panic(|| worker.files(&files, &bytes));
            // Nobody receives it if another thread has failed.
            sender.send(FinishedPiece { bytes, taken }).unwrap_or_default();
        });
        Ok(())
    }

    fn part(&mut self, file: &StreamedFile, bytes: Vec<u8>) -> Result<()> {
        self.make_room()?;
        let (rest, queue) = self.large.entry(file.inode).or_insert_with(|| {
            let large = Some(Box::new(Large::new(file.clone(), self.again.remove(&file.inode))));
            (file.size, Arc::new(Mutex::new(LargeQueue { large, parts: VecDeque::new() })))
        });
        *rest -= bytes.len() as u64;
        let (is_last, queue) = (*rest == 0, queue.clone());
        if is_last {
            self.large.remove(&file.inode);
        }
        let idle = {
            let mut queue = lock(&queue);
            queue.parts.push_back(bytes);
            queue.large.take()
        };
        if let Some(large) = idle {
            let (worker, sender) = (self.worker, self.sender.clone());
            self.scope.spawn(move |_| worker.parts(large, &queue, &sender));
        }
        Ok(())
    }

    fn again(&mut self, file: &StreamedFile, before: usize, rest: Box<dyn Stream>) {
        self.again.insert(file.inode, Again { before, first: Vec::new(), rest });
    }

    fn control(&mut self, content: &[u8]) {
        (self.worker.reception.on_control)(content);
    }
}

/// Runs the work, and turns a panic into an error.
fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Internal("a thread panicked while it took in an archive".to_owned())))
}

/// Waits for the next piece that is done. A thread of the pool does other work meanwhile.
fn next_finished(receiver: &mpsc::Receiver<FinishedPiece>) -> FinishedPiece {
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
    file: StreamedFile,
    hash: sha2::Sha256,
    /// How many bytes were hashed.
    done: u64,
    state: State,
    again: Option<Again>,
}

/// A way to read a large file once more, if it was in the client's memory as a whole.
struct Again {
    /// How many bytes come before `rest`, and these, once they came.
    before: usize,
    first: Vec<u8>,
    rest: Box<dyn Stream>,
}

/// What is known about a large file so far.
enum State {
    /// Nothing of it was read.
    Begun,
    /// So far it equals the beginning of the local file, so it may be unchanged and nothing is staged. The buffer is used again
    /// for each piece: a new one of that size would be cleared page by page.
    AsLocal(File, Vec<u8>),
    /// It begins like the local file of the same size, so it is probably unchanged and nothing is staged. If it is not, it is
    /// read again, and must have the same digest.
    Sampled,
    /// It is written into the stage.
    Staged(RelativePath, File),
    /// It is only hashed; its digest decides whether its content is needed.
    Hashed,
}

impl Large {
    fn new(file: StreamedFile, again: Option<Again>) -> Self {
        Self { file, hash: sha2::Sha256::new(), done: 0, state: State::Begun, again }
    }
}

/// The work of one thread.
#[derive(Clone, Copy)]
struct Worker<'s> {
    reception: &'s Reception<'s>,
    stager: &'s Stager<'s>,
}

impl<'s> Worker<'s> {
    /// The entry of a file, as far as it is known by now.
    fn entry(&self, file: &StreamedFile, digest: Digest) -> Entry {
        let mode = (self.reception.mode)(&file.path, file.mode);
        self.stager.usable(&file.path, Entry::File { mode, digest })
    }

    /// Whether a file has to be staged, as far as it is known by now.
    fn is_due(&self, file: &StreamedFile, entry: &Entry, base: &mut Nearby<'_, Entry>) -> bool {
        self.reception.every_file || (file.wanted && differ(base.get(&file.path), entry))
    }

    /// Handles complete files: the bytes that are hashed are the bytes that are staged.
    fn files(&self, files: &[StreamedFile], bytes: &[u8]) -> Result<Vec<HashedFile>> {
        let (mut in_stage, mut base) = (InStage(None), self.stager.base.nearby());
        let take = |file: &StreamedFile| {
            self.stager.cancel.check()?;
            let content = &bytes[file.range.clone()];
            let digest = Digest(sha2::Sha256::digest(content).into());
            let entry = self.entry(file, digest);
            let mut staged = None;
            if self.is_due(file, &entry, &mut base) {
                let mode = mode_of(&entry);
                staged = Some((self.stager.file(&mut in_stage, mode, |file| file.write(content))?.0, mode));
            }
            Ok(HashedFile { inode: file.inode, digest, staged })
        };
        files.iter().map(take).collect()
    }

    /// Handles the pieces of a large file that are there. The reading thread does not wait for that.
    fn parts(&self, mut large: Box<Large>, queue: &Mutex<LargeQueue>, sender: &mpsc::Sender<FinishedPiece>) {
        loop {
            let bytes = {
                let mut queue = lock(queue);
                let Some(bytes) = queue.parts.pop_front() else {
                    queue.large = Some(large);
                    return;
                };
                bytes
            };
            let (rest, taken) = match catch_panic(|| self.part(large, &bytes)) {
                Ok(PieceResult::Part(rest)) => (Some(rest), Ok(Vec::new())),
                Ok(PieceResult::Last(taken)) => (None, Ok(vec![taken])),
                Err(error) => (None, Err(error)),
            };
            // Nobody receives it if another thread has failed.
            sender.send(FinishedPiece { bytes, taken }).unwrap_or_default();
            let Some(rest) = rest else { return };
            large = rest;
        }
    }

    /// Handles the next piece of a large file.
    fn part(&self, mut large: Box<Large>, bytes: &[u8]) -> Result<PieceResult> {
        self.stager.cancel.check()?;
        let mut in_stage = InStage(None);
        // The mode does not depend on the digest.
        let mode = mode_of(&self.entry(&large.file, Digest([0; 32])));
        large.state = match large.state {
            State::Begun => self.begin(&mut in_stage, &large.file, large.again.as_mut(), mode, bytes)?,
            state => state,
        };
        let Large { hash, state, done, .. } = &mut *large;
        // In each case the two run at once, because the pieces of a file cannot.
        match state {
            State::AsLocal(local, buffer) => {
                let before = hash.clone();
                let ((), goes_on) = rayon::join(|| hash.update(bytes), || goes_on_with(local, bytes, buffer));
                if !goes_on {
                    let beginning = (*done, Digest(before.finalize().into()));
                    *state = self.stage_beginning(&mut in_stage, mode, local, beginning)?;
                    self.append(&mut in_stage, state, bytes)?;
                }
            }
            State::Staged(..) => {
                rayon::join(|| hash.update(bytes), || self.append(&mut in_stage, state, bytes)).1?;
            }
            State::Begun | State::Sampled | State::Hashed => hash.update(bytes),
        }
        large.done += bytes.len() as u64;
        if large.done < large.file.size {
            return Ok(PieceResult::Part(large));
        }
        let Large { file, hash, done, mut state, again } = *large;
        let digest = Digest(hash.finalize().into());
        let is_due = || self.is_due(&file, &self.entry(&file, digest), &mut self.stager.base.nearby());
        match (&mut state, again) {
            (State::AsLocal(local, _), _) if is_due() => {
                state = self.stage_beginning(&mut in_stage, mode, local, (done, digest))?;
            }
            (State::Sampled, Some(again)) if is_due() => {
                state = self.stage_again(&mut in_stage, again, mode, digest)?;
            }
            _ => {}
        }
        let staged = match state {
            State::Staged(name, content) => Some((Stager::staged(name, &content)?, mode)),
            _ => None,
        };
        Ok(PieceResult::Last(HashedFile { inode: file.inode, digest, staged }))
    }

    /// Writes the next piece of a large file into the stage, if the file is there.
    fn append(&self, in_stage: &mut InStage<'s>, state: &mut State, bytes: &[u8]) -> Result<()> {
        let State::Staged(name, file) = state else { return Ok(()) };
        let (_, cursor) = self.stager.stage(in_stage)?;
        Staging { file, path: &cursor.path_of(name) }.write(bytes)
    }

    /// Decides what to do with a large file that begins with `bytes`: it may be unchanged only if the base has a file of that
    /// path and mode.
    fn begin(
        &self,
        in_stage: &mut InStage<'s>,
        file: &StreamedFile,
        again: Option<&mut Again>,
        mode: u32,
        bytes: &[u8],
    ) -> Result<State> {
        if !file.wanted && !self.reception.every_file {
            return Ok(State::Hashed);
        }
        let may_be_unchanged = match self.stager.base.get(&file.path) {
            Some(Entry::File { mode: base, .. }) => base & PERMISSIONS == mode & PERMISSIONS,
            _ => false,
        };
        if may_be_unchanged && !self.reception.every_file {
            // A local file that cannot be read is not compared.
            let local = self.stager.workspace.cursor().open(&file.path).ok().flatten();
            match (local, again) {
                (Some((local, _)), None) => return Ok(State::AsLocal(local, vec![0; CHUNK])),
                (Some((local, meta)), Some(again)) => {
                    if meta.size == file.size && again.begins_as(&local, bytes) {
                        return Ok(State::Sampled);
                    }
                }
                (None, _) => {}
            }
        }
        let (stage, cursor) = self.stager.stage(in_stage)?;
        let (name, content) = stage.file(cursor, mode)?;
        Ok(State::Staged(name, content))
    }

    /// Stages a large file that was hashed, by reading it once more.
    fn stage_again(
        &self,
        in_stage: &mut InStage<'s>,
        again: Again,
        mode: u32,
        digest: Digest,
    ) -> Result<State> {
        let (folder, cursor) = self.stager.stage(in_stage)?;
        let (name, content) = folder.file(cursor, mode)?;
        let mut staged = State::Staged(name, content);
        let Again { first, mut rest, .. } = again;
        let (mut hash, mut bytes) = (sha2::Sha256::new(), first);
        loop {
            self.stager.cancel.check()?;
            rayon::join(|| hash.update(&bytes), || self.append(in_stage, &mut staged, &bytes)).1?;
            bytes.clear();
            if rest.next(PIECE, &mut bytes)? == 0 {
                break;
            }
        }
        if Digest(hash.finalize().into()) != digest {
            let reason = "gave bytes that were changed while they were read; they must stay as they are until the restore is done";
            return Err(Error::InvalidReturnValue { reason: reason.to_owned() });
        }
        Ok(staged)
    }

    /// Stages the beginning that a large file shares with the local one. If the local file has changed in
    /// between, the large file is only hashed.
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

impl Again {
    /// Whether a file may be unchanged that begins with `bytes`, since the local file does.
    fn begins_as(&mut self, local: &File, bytes: &[u8]) -> bool {
        if self.before > 0 {
            self.first.extend_from_slice(bytes);
        }
        let mut begin = vec![0; bytes.len()];
        read_fully_at(local, &mut begin, 0).is_ok_and(|read| read == bytes.len()) && begin == bytes
    }
}

/// Whether a file continues with exactly these bytes. One that cannot be read does not.
fn goes_on_with(file: &mut File, mut bytes: &[u8], buffer: &mut [u8]) -> bool {
    while !bytes.is_empty() {
        let most = bytes.len().min(buffer.len());
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

/// Step two: an archive that was read completely, so it is known which entries count.
struct Settling<'a> {
    stager: &'a Stager<'a>,
    archive: Vec<Unpacked>,
    taken: Vec<HashedFile>,
    every_file: bool,
    /// The files of the base by their content; filled when first needed.
    by_digest: OnceLock<HashMap<Digest, Vec<&'a RelativePath>>>,
}

/// An inode of the archive: the entries that are its names, and for a file its content.
struct Inode<'n> {
    names: &'n [(u64, usize)],
    file: Option<usize>,
}

/// What an entry of the archive comes to.
struct Settled {
    /// `None` for a device or FIFO, which is not restored.
    entry: Option<Entry>,
    /// Whether the base has another one, or none.
    differs: bool,
}

impl Settling<'_> {
    fn entries_found(self) -> Result<Vec<IncomingEntry>> {
        let is_leaf = |content: &Content| matches!(content, Content::File { .. } | Content::Symlink { .. });
        let leaves = self.archive.iter().enumerate().filter(|(_, entry)| is_leaf(&entry.content));
        let mut names: Vec<(u64, usize)> = leaves.map(|(at, entry)| (entry.inode, at)).collect();
        names.par_sort_unstable();
        let (inodes, needless) = self.inodes(&names)?;
        let settled = self.settled(&inodes)?;
        let mut staged: Vec<(usize, Staged)> = inodes
            .par_chunks(INODES)
            .map(|inodes| {
                let (mut in_stage, mut staged) = (InStage(None), Vec::new());
                for inode in inodes {
                    self.stager.cancel.check()?;
                    self.settle(&mut in_stage, inode, &settled, &mut staged)?;
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
        let found = self.archive.into_iter().zip(settled).enumerate().map(|(at, (unpacked, settled))| {
            let (path, staged) = (unpacked.path, staged.next_if(|(next, _)| *next == at));
            match (settled.entry, staged) {
                (None, _) => IncomingEntry::Special(path),
                (Some(entry), Some((_, staged))) => IncomingEntry::Staged(path, entry, staged),
                (Some(entry), None) => IncomingEntry::Entry(path, entry),
            }
        });
        Ok(found.collect())
    }

    /// Groups names by inode. Also returns what was staged for files without any name that counts.
    fn inodes<'n>(&'n self, names: &'n [(u64, usize)]) -> Result<(Vec<Inode<'n>>, Vec<&'n Staged>)> {
        let (mut inodes, mut needless) = (Vec::new(), Vec::new());
        let mut next_finished = 0;
        for names in names.chunk_by(|one, other| one.0 == other.0) {
            let (inode, at) = names[0];
            while let Some(taken) = self.taken.get(next_finished).filter(|taken| taken.inode < inode) {
                needless.extend(taken.staged.as_ref().map(|(staged, _)| staged));
                next_finished += 1;
            }
            let mut file = None;
            if matches!(self.archive[at].content, Content::File { .. }) {
                if self.taken.get(next_finished).is_none_or(|taken| taken.inode != inode) {
                    return Err(Error::Internal("a file of the archive was not taken in".to_owned()));
                }
                file = Some(next_finished);
                next_finished += 1;
            }
            inodes.push(Inode { names, file });
        }
        let rest = self.taken[next_finished.min(self.taken.len())..].iter();
        needless.extend(rest.filter_map(|taken| Some(&taken.staged.as_ref()?.0)));
        Ok((inodes, needless))
    }

    /// What each entry of the archive comes to. The base is read beside them, since both are in the order of their paths.
    fn settled(&self, inodes: &[Inode<'_>]) -> Result<Vec<Settled>> {
        let mut files = vec![None; self.archive.len()];
        for inode in inodes {
            for &(_, at) in inode.names {
                files[at] = inode.file;
            }
        }
        let settle = |(entries, files): (&[Unpacked], &[Option<usize>])| {
            self.stager.cancel.check()?;
            let first = entries.first().map_or(&b""[..], |entry| entry.path.as_bytes());
            let mut base = self.stager.base.iter_from(first).peekable();
            let settle = |(unpacked, file): (&Unpacked, &Option<usize>)| {
                while base.next_if(|(path, _)| **path < unpacked.path).is_some() {}
                let before = base.next_if(|(path, _)| **path == unpacked.path).map(|(_, entry)| entry);
                let entry = self.entry(unpacked, *file);
                let differs = entry.as_ref().is_some_and(|entry| differ(before, entry));
                Settled { entry, differs }
            };
            Ok(entries.iter().zip(files).map(settle).collect::<Vec<_>>())
        };
        let settled = self.archive.par_chunks(ENTRIES).zip(files.par_chunks(ENTRIES)).map(settle);
        Ok(settled.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// What an entry of the archive is, with its file's content; `None` for a device or FIFO.
    fn entry(&self, unpacked: &Unpacked, file: Option<usize>) -> Option<Entry> {
        let entry = match (&unpacked.content, file) {
            (Content::Folder { mode }, _) => Entry::Folder { mode: *mode },
            (Content::File { mode }, Some(file)) => {
                Entry::File { mode: *mode, digest: self.taken[file].digest }
            }
            (Content::Symlink { target }, _) => Entry::Symlink { target: target.clone() },
            (Content::Special | Content::File { .. }, _) => return None,
        };
        Some(self.stager.usable(&unpacked.path, entry))
    }

    /// Stages the names of an inode that differ from the base: the first name of each mode with content, the
    /// others as hard links to it.
    fn settle<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        inode: &Inode<'_>,
        settled: &[Settled],
        staged: &mut Vec<(usize, Staged)>,
    ) -> Result<()> {
        let mut passed = inode.file.and_then(|file| self.taken[file].staged.as_ref());
        let mut by_mode: Vec<(u32, Staged)> = Vec::new();
        for &(_, at) in inode.names {
            let Settled { entry: Some(entry), differs: true } = &settled[at] else { continue };
            let mode = mode_of(entry);
            let like = by_mode.iter().position(|(other, _)| *other == mode);
            let further = match like {
                Some(like) => self.stager.further_name(in_stage, &by_mode[like].1)?,
                None => None,
            };
            let file = if let Some(further) = further {
                further
            } else {
                // It is the first name of that mode, or the file system cannot link it.
                let file = self.make(in_stage, inode, entry, passed.take(), by_mode.first())?;
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

    /// Stages a name that is not a hard link to another: as what was staged when the content passed, as a
    /// copy of an earlier name, or as a copy of a local file with that content.
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
            Entry::Folder { .. } => Err(Error::Internal("a folder was to be staged".to_owned())),
            Entry::File { mode, digest } => match (passed, earlier) {
                (Some((staged, as_staged)), _) => {
                    if as_staged & PERMISSIONS != mode & PERMISSIONS {
                        let (_, cursor) = self.stager.stage(in_stage)?;
                        cursor.set_staged_mode(&staged.name, mode & PERMISSIONS)?;
                    }
                    Ok(staged.clone())
                }
                (None, Some((_, earlier))) => self.stager.copy(in_stage, earlier, *mode, *digest),
                (None, None) => self.copy_from_local(in_stage, inode, *mode, *digest),
            },
        }
    }

    /// Copies content that was not staged when it passed from a local file that has it: most likely from
    /// another name of the inode, which is unchanged.
    fn copy_from_local<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        inode: &Inode<'_>,
        mode: u32,
        digest: Digest,
    ) -> Result<Staged> {
        let has_it = |entry: &Entry| matches!(entry, Entry::File { digest: base, .. } if *base == digest);
        for &(_, at) in inode.names {
            let path = &self.archive[at].path;
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
        Err(Error::NotStaged)
    }

    fn copy_of_local<'s>(
        &'s self,
        in_stage: &mut InStage<'s>,
        path: &RelativePath,
        mode: u32,
        digest: Digest,
    ) -> Result<Option<Staged>> {
        // A local file that cannot be read is not used.
        let Ok(Some((mut local, meta))) = self.stager.workspace.cursor().open(path) else { return Ok(None) };
        let copied = self.stager.copy_local(in_stage, mode, &mut local, (meta.size, digest))?;
        copied.map(|(name, file)| Stager::staged(name, &file)).transpose()
    }

    fn remove<'s>(&'s self, in_stage: &mut InStage<'s>, needless: &Staged) -> Result<()> {
        self.stager.stage(in_stage)?.1.remove_file(&needless.name).map(|_| ())
    }
}
