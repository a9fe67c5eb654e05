//! Packs entries into archive bytes, and makes the snapshot of exactly those bytes.
//!
//! The scan determines the place of each entry in the archive. So workers read each file directly into its
//! place, in any order, and hash it there while it is in the processor's cache. A live tree may have changed
//! since the scan: what counts is what a worker finds when it opens the file. An entry that no longer fits
//! its place is packed separately, and what was packed around it is copied.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Read, Write};
use std::iter::Enumerate;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice::ChunksMut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::header::{self, END_MARK, Member, padded};
use crate::cancel::Cancel;
use crate::error::{Error, Obstacle, Result, readable};
use crate::exclude::ExcludePatterns;
use crate::fs::temporary::Unfinished;
use crate::fs::{Cursor, File, FileId, Fingerprint, Kind, Meta, Root, by_path, read_fully, read_fully_at};
use crate::path::{RelativePath, bytes_of};
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, Snapshot};
use crate::tree::filter::Filter;
use crate::tree::ignore_files::IgnoreRules;
use crate::tree::scan::{CHUNK, Found, Reader, inspect, scan};
use crate::tree::temporary::{self, is_temporary_name};

/// How many bytes of an archive one worker makes at a time.
const BATCH: u64 = 1024 * 1024;

/// How many batches are made while as many others are written.
const WINDOW_BATCHES: usize = 8;

/// How many batches are made in a sink's own memory at a time. If an entry of one has changed, all of them are copied.
const PLACED_BATCHES: usize = 2 * WINDOW_BATCHES;

/// How many entries a thread handles at a time when it computes digests.
const DIGESTS: usize = 256;

/// How much of a large file is copied between two checks for cancellation.
const LARGE_STEP: u64 = 32 * 1024 * 1024;

/// The pattern for files that macOS leaves beside others on foreign volumes. They are useless anywhere else.
pub const APPLE_DOUBLE: &str = "._*";

/// A caller's patterns, together with those that are always excluded.
#[must_use]
pub fn patterns(exclude: &[Vec<u8>]) -> ExcludePatterns {
    ExcludePatterns::new(exclude.iter().map(Vec::as_slice).chain([APPLE_DOUBLE.as_bytes()]))
}

/// A scanned folder, with the place of each entry in its archive.
#[derive(Debug)]
pub struct Layout {
    root: Root,
    grafts: Vec<Graft>,
    entries: Vec<Planned>,
    special: Vec<RelativePath>,
    size: u64,
}

/// Another folder that is packed at a path of an archive.
#[derive(Debug)]
pub struct Graft {
    /// The path. The archived folder must have nothing at it or below it.
    pub at: RelativePath,
    /// The folder.
    pub root: Root,
}

/// What is known about a file's digest before the file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownDigest {
    /// It is this one.
    Known(Digest),
    /// It is not needed.
    NotNeeded,
    /// It is not known, so the file must be read.
    Unknown,
}

/// Tells what is known about the digest of a file.
pub type DigestLookup<'a> = dyn Fn(&Found) -> KnownDigest + Sync + 'a;

/// The metadata of a file, and its digest if one is needed.
pub type Hashed = (Meta, Option<Digest>);

/// The number of a graft, and a path in it (`None` for its root).
type InGraft = (usize, Option<RelativePath>);

#[derive(Debug)]
struct Planned {
    found: Found,
    graft: Option<InGraft>,
    /// For a further name of a file: the index of its first name.
    link_to: Option<usize>,
    /// The bytes of headers, content and padding.
    size: u64,
}

impl Layout {
    /// Scans a folder and lays its archive out. Sockets, FIFOs and devices are left out.
    pub fn scan(root: Root, filter: &Filter<'_>, cancel: &Cancel) -> Result<Self> {
        let found = scan(&root, filter, cancel)?;
        Ok(Self::of(root, found.into_iter().map(|found| (found, None)).collect(), Vec::new()))
    }

    /// Lays out the result of a scan, together with grafts.
    pub fn with_grafts(root: Root, found: Vec<Found>, grafts: Vec<Graft>, cancel: &Cancel) -> Result<Self> {
        let mut all: Vec<_> = found.into_iter().map(|found| (found, None)).collect();
        for (number, Graft { at, root }) in grafts.iter().enumerate() {
            let folder = Found { path: at.clone(), meta: root.meta()?, target: None };
            all.push((folder, Some((number, None))));
            for found in scan(root, &Filter::default(), cancel)? {
                let (path, inner) = (at.join(&found.path), found.path.clone());
                all.push((Found { path, ..found }, Some((number, Some(inner)))));
            }
        }
        all.par_sort_unstable_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        Ok(Self::of(root, all, grafts))
    }

    fn of(root: Root, found: Vec<(Found, Option<InGraft>)>, grafts: Vec<Graft>) -> Self {
        let mut first_names = HashMap::new();
        let mut entries: Vec<Planned> = Vec::with_capacity(found.len());
        let mut special = Vec::new();
        for (found, graft) in found {
            if found.meta.kind == Kind::Other {
                special.push(found.path);
                continue;
            }
            let link_to = if found.meta.kind == Kind::File && found.meta.links > 1 {
                let first = *first_names.entry(found.meta.id).or_insert(entries.len());
                (first != entries.len()).then_some(first)
            } else {
                None
            };
            let mut planned = Planned { found, graft, link_to, size: 0 };
            let member = planned.member(&entries);
            planned.size = member_size(&planned.found.path, member);
            entries.push(planned);
        }
        let size = entries.iter().map(|planned| planned.size).sum::<u64>() + END_MARK as u64;
        Self { root, grafts, entries, special, size }
    }

    /// The sockets, FIFOs and devices that were left out.
    #[must_use]
    pub fn special(&self) -> &[RelativePath] {
        &self.special
    }

    /// The entries in byte order of their paths, a further name of a file together with its first name.
    pub fn entries(&self) -> impl Iterator<Item = (&Found, Option<&RelativePath>)> {
        let first = |planned: &Planned| planned.link_to.map(|first| &self.entries[first].found.path);
        self.entries.iter().map(move |planned| (&planned.found, first(planned)))
    }

    /// The metadata of each file, with its digest if one is needed: either known, or from reading the file. A
    /// further name has those of the first one. `None` for what has vanished, and for other entries.
    pub fn digests(&self, known: &DigestLookup<'_>, cancel: &Cancel) -> Result<Vec<Option<Hashed>>> {
        let chunks: Vec<usize> = (0..self.entries.len()).step_by(DIGESTS).collect();
        let digests = chunks.into_par_iter().map(|start| {
            let mut worker = Worker::new(self, true, cancel);
            let mut reader = Reader::new();
            let end = self.entries.len().min(start + DIGESTS);
            (start..end).map(|at| worker.digest(at, &mut reader, known)).collect::<Result<Vec<_>>>()
        });
        let mut digests: Vec<_> = digests.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        for at in 0..self.entries.len() {
            if let Some(first) = self.entries[at].link_to {
                digests[at] = digests[first];
            }
        }
        Ok(digests)
    }

    /// Lays out again only the entries that are wanted.
    #[must_use]
    pub fn only(self, wanted: impl Fn(&RelativePath) -> bool) -> Self {
        let found = self.entries.into_iter().map(|planned| (planned.found, planned.graft));
        let laid_out =
            Self::of(self.root, found.filter(|(found, _)| wanted(&found.path)).collect(), self.grafts);
        Self { special: self.special, ..laid_out }
    }

    /// Lays out again without the names of these inodes.
    fn without(self, inodes: &[FileId]) -> Self {
        let found = self.entries.into_iter().map(|planned| (planned.found, planned.graft));
        let kept = found.filter(|(found, _)| !inodes.contains(&found.meta.id));
        let laid_out = Self::of(self.root, kept.collect(), self.grafts);
        Self { special: self.special, ..laid_out }
    }

    /// The archive's size in bytes, if nothing changes any more.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Packs into `out`, which must be zeroed and [`Layout::size`] bytes long, and hashes in the same pass.
    ///
    /// Afterwards `out` is the archive, unless the tree has changed: then [`Packed::reassembled_size`] tells
    /// that it must be [assembled](Packed::assemble) in another buffer.
    pub fn pack(&self, out: &mut [u8], cancel: &Cancel) -> Result<Packed> {
        let mut outcomes = self.pack_batches(&self.batches(), out, || Worker::new(self, true, cancel))?;
        self.repair_hard_links(0, &mut outcomes, &mut Worker::new(self, true, cancel))?;

        let mut pieces = Vec::new();
        let mut start = 0;
        for (planned, outcome) in self.entries.iter().zip(&mut outcomes) {
            let end = start + index(planned.size);
            if let Some(Replacement::Bytes(replacement)) = outcome.replacement.take() {
                pieces.push((start..end, replacement));
            }
            start = end;
        }
        Ok(Packed { contents: self.contents(&outcomes), pieces, laid_out: self.size })
    }

    /// What was packed, entry by entry.
    fn contents(&self, outcomes: &[Outcome]) -> Contents {
        let mut entries = Vec::with_capacity(self.entries.len());
        let mut sent = Vec::with_capacity(self.entries.len());
        let (mut further_names, mut read) = (Vec::new(), Vec::new());
        for (planned, outcome) in self.entries.iter().zip(outcomes) {
            let Found { path, meta, target } = &planned.found;
            if let (Some(first), Some(_)) = (outcome.first_name, outcome.file) {
                further_names.push((path.clone(), self.entries[first].found.path.clone()));
            }
            if let (None, Some(PackedFile { print, digest: Some(digest), .. })) =
                (&planned.graft, outcome.file)
            {
                read.push((path.clone(), print, digest));
            }
            let entry = match (target, outcome.file) {
                (Some(target), _) => Entry::Symlink { target: target.clone() },
                (None, Some(PackedFile { mode, digest: Some(digest), .. })) => Entry::File { mode, digest },
                (None, None) if meta.kind == Kind::Folder => Entry::Folder { mode: Some(meta.mode & 0o7777) },
                (None, _) => continue,
            };
            sent.push((path.clone(), Sent::of(&entry, outcome.file.as_ref())));
            entries.push((path.clone(), entry));
        }
        Contents { snapshot: entries.into_iter().collect(), sent, further_names, read }
    }

    /// Gives the archive to `sink`, front to back. Digests are computed only if `hash` is set.
    ///
    /// Memory does not grow with the archive: a file that is larger than a batch when it is opened is copied
    /// through in chunks.
    pub fn stream(&self, hash: bool, sink: &mut (impl Sink + Send), cancel: &Cancel) -> Result<Contents> {
        let mut outcomes = Vec::with_capacity(self.entries.len());
        if sink.room()? > 0 {
            self.make_in_place(hash, sink, &mut outcomes, cancel)?;
        } else {
            self.make_and_write(hash, sink, &mut outcomes, cancel)?;
        }
        sink.bytes(&[0; END_MARK])?;
        // When further names of a large file were packed, its digest was not known yet.
        for at in 0..outcomes.len() {
            if let Some(named) = outcomes[at].first_name {
                outcomes[at].file = outcomes[named].file;
            }
        }
        Ok(self.contents(&outcomes))
    }

    /// Makes as much of the archive as possible in the sink's own memory, several batches at a time. A batch
    /// that does not fit there, or of which an entry has changed since the scan, is made apart and copied.
    fn make_in_place(
        &self,
        hash: bool,
        sink: &mut (impl Sink + Send),
        outcomes: &mut Vec<Outcome>,
        cancel: &Cancel,
    ) -> Result<()> {
        let (batches, spare) = (self.batches(), Mutex::new(Vec::new()));
        let mut left = &batches[..];
        while let Some(first) = left.first() {
            let (window, size) = self.fitting(left, sink.room()?);
            let start = outcomes.len();
            let mut ready = Vec::new();
            if window.is_empty() {
                let made = self.piece(first.clone(), hash, &spare, cancel)?;
                left = &left[1..];
                self.add_piece(made, outcomes, &mut ready, hash, cancel)?;
            } else {
                left = &left[window.len()..];
                sink.in_place(size, &mut |memory| {
                    outcomes.extend(self.pack_batches(window, memory, || self.worker(hash, cancel))?);
                    self.repair(start, outcomes, hash, cancel)?;
                    let fits = outcomes[start..].iter().all(|outcome| outcome.replacement.is_none());
                    if !fits {
                        self.splice_replacements(start, outcomes, memory.to_vec(), &mut ready);
                    }
                    Ok(fits)
                })?;
            }
            for piece in ready {
                let digest = piece.write(hash, sink, &spare, cancel)?;
                set_digests(outcomes, digest);
            }
        }
        Ok(())
    }

    /// Writes the archive to a sink that has no memory of its own, while the next window of it is made.
    fn make_and_write(
        &self,
        hash: bool,
        sink: &mut (impl Sink + Send),
        outcomes: &mut Vec<Outcome>,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut windows = self.windows().into_iter();
        let mut ready = Vec::new();
        // The buffers of written batches: new memory would cost more than reading a file into it.
        let spare = Mutex::new(Vec::new());
        loop {
            let window = windows.next();
            let (written, made) = rayon::join(
                || {
                    let pieces = ready.drain(..).map(|piece: Piece| piece.write(hash, sink, &spare, cancel));
                    pieces.filter_map(Result::transpose).collect::<Result<Vec<_>>>()
                },
                || {
                    let Some(batches) = &window else { return Ok(Vec::new()) };
                    batches
                        .par_iter()
                        .map(|range| self.piece(range.clone(), hash, &spare, cancel))
                        .collect::<Result<Vec<_>>>()
                },
            );
            set_digests(outcomes, written?);
            let made = made?;
            if window.is_none() {
                return Ok(());
            }
            for made in made {
                self.add_piece(made, outcomes, &mut ready, hash, cancel)?;
            }
        }
    }

    /// The next batches that fit into so many bytes, at most [`PLACED_BATCHES`], and how many bytes they have. No batch if the
    /// next one is a large file or does not fit.
    fn fitting<'b>(&self, batches: &'b [Range<usize>], room: u64) -> (&'b [Range<usize>], usize) {
        let (mut count, mut size) = (0, 0);
        for batch in batches.iter().take(PLACED_BATCHES).take_while(|batch| !self.is_large(batch)) {
            let more = self.size_of(batch.clone());
            if (size + more) as u64 > room {
                break;
            }
            count += 1;
            size += more;
        }
        (&batches[..count], size)
    }

    /// Whether a batch is one file that is not kept in memory.
    fn is_large(&self, batch: &Range<usize>) -> bool {
        let first = &self.entries[batch.start];
        batch.len() == 1
            && first.link_to.is_none()
            && first.found.meta.kind == Kind::File
            && first.found.meta.size > BATCH
    }

    /// Packs batches into their places, each with a worker of its own.
    fn pack_batches<'a>(
        &'a self,
        batches: &[Range<usize>],
        mut memory: &mut [u8],
        worker: impl Fn() -> Worker<'a> + Sync,
    ) -> Result<Vec<Outcome>> {
        let mut places = Vec::with_capacity(batches.len());
        for range in batches {
            let (place, after) = memory.split_at_mut(self.size_of(range.clone()));
            places.push((range.clone(), place));
            memory = after;
        }
        let pack = |(range, place)| worker().pack_all(range, place);
        let outcomes = places.into_par_iter().map(pack).collect::<Result<Vec<_>>>()?;
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// A worker that keeps no large file in memory.
    fn worker<'a>(&'a self, hash: bool, cancel: &'a Cancel) -> Worker<'a> {
        Worker { in_memory: false, ..Worker::new(self, hash, cancel) }
    }

    fn repair(&self, start: usize, outcomes: &mut [Outcome], hash: bool, cancel: &Cancel) -> Result<()> {
        self.repair_hard_links(start, outcomes, &mut self.worker(hash, cancel))
    }

    /// One batch of entries: its bytes, and the outcome of each entry. A spare buffer is used if there is one.
    fn piece(
        &self,
        range: Range<usize>,
        hash: bool,
        spare: &Mutex<Vec<Vec<u8>>>,
        cancel: &Cancel,
    ) -> Result<(Vec<u8>, Vec<Outcome>)> {
        let mut worker = self.worker(hash, cancel);
        if self.is_large(&range) {
            return Ok((Vec::new(), vec![worker.pack_separately(range.start)?]));
        }
        let mut bytes = lock(spare).pop().unwrap_or_default();
        bytes.clear();
        bytes.resize(self.size_of(range.clone()), 0);
        let outcomes = worker.pack_all(range, &mut bytes)?;
        Ok((bytes, outcomes))
    }

    /// Adds a batch that was made apart to what is ready to be written.
    fn add_piece(
        &self,
        (bytes, packed): (Vec<u8>, Vec<Outcome>),
        outcomes: &mut Vec<Outcome>,
        ready: &mut Vec<Piece>,
        hash: bool,
        cancel: &Cancel,
    ) -> Result<()> {
        let start = outcomes.len();
        outcomes.extend(packed);
        self.repair(start, outcomes, hash, cancel)?;
        self.splice_replacements(start, outcomes, bytes, ready);
        Ok(())
    }

    /// Replaces the bytes of entries that no longer fit their places, and splits the batch at large files.
    fn splice_replacements(
        &self,
        start: usize,
        outcomes: &mut [Outcome],
        bytes: Vec<u8>,
        ready: &mut Vec<Piece>,
    ) {
        let mut bytes = bytes;
        let mut at = 0;
        for (number, (planned, outcome)) in
            self.entries[start..].iter().zip(&mut outcomes[start..]).enumerate()
        {
            match outcome.replacement.take() {
                None => at += index(planned.size),
                Some(Replacement::Bytes(replacement)) => {
                    let length = replacement.len();
                    // A large file that is gone never had a place among the bytes.
                    let end = bytes.len().min(at + index(planned.size));
                    bytes.splice(at..end, replacement);
                    at += length;
                }
                Some(Replacement::Large { file, now }) => {
                    let rest = bytes.split_off(bytes.len().min(at + index(planned.size)));
                    bytes.truncate(at);
                    let path = planned.found.path.clone();
                    ready.push(Piece::Bytes(std::mem::replace(&mut bytes, rest)));
                    let shown = self.shown(start + number);
                    ready.push(Piece::Large { at: start + number, path, shown, file, now });
                    at = 0;
                }
            }
        }
        ready.push(Piece::Bytes(bytes));
    }

    /// Repairs hard links whose first name vanished or was replaced since the scan: the next name takes its
    /// place. Handles the outcomes from `start` on; all before it are done.
    fn repair_hard_links(
        &self,
        start: usize,
        outcomes: &mut [Outcome],
        worker: &mut Worker<'_>,
    ) -> Result<()> {
        let mut stand_ins: HashMap<usize, usize> = HashMap::new();
        for at in start..outcomes.len() {
            let Some(first) = self.entries[at].link_to else { continue };
            if outcomes[first].same_inode {
                outcomes[at].file = outcomes[first].file;
                outcomes[at].first_name = Some(first);
                continue;
            }
            let Found { path, meta, .. } = &self.entries[at].found;
            let mut replacement = Vec::new();
            outcomes[at] = if let Some(&stand_in) = stand_ins.get(&first) {
                let target = self.entries[stand_in].found.path.as_bytes();
                push_header(&mut replacement, path, meta, Member::HardLink { target });
                let replacement = Some(Replacement::Bytes(replacement));
                let first_name = Some(stand_in);
                Outcome { file: outcomes[stand_in].file, same_inode: true, first_name, replacement }
            } else {
                let outcome = worker.pack_separately(at)?;
                if outcome.same_inode {
                    stand_ins.insert(first, at);
                }
                outcome
            };
        }
        Ok(())
    }

    /// An entry's path on this machine, for messages.
    fn shown(&self, at: usize) -> PathBuf {
        let planned = &self.entries[at];
        match &planned.graft {
            None => self.root.cursor().path_of(&planned.found.path),
            Some((graft, Some(path))) => self.grafts[*graft].root.cursor().path_of(path),
            Some((graft, None)) => self.grafts[*graft].root.path().to_path_buf(),
        }
    }

    /// Batches of entries, about [`BATCH`] bytes each. A larger file is a batch of its own.
    fn batches(&self) -> Vec<Range<usize>> {
        let mut batches = Vec::new();
        let (mut start, mut size) = (0, 0);
        for (at, planned) in self.entries.iter().enumerate() {
            if size > 0 && size + planned.size > BATCH {
                batches.push(start..at);
                (start, size) = (at, 0);
            }
            size += planned.size;
        }
        if start < self.entries.len() {
            batches.push(start..self.entries.len());
        }
        batches
    }

    /// The batches in groups; one group is made while the one before is written.
    fn windows(&self) -> Vec<Vec<Range<usize>>> {
        self.batches().chunks(WINDOW_BATCHES).map(<[_]>::to_vec).collect()
    }

    fn size_of(&self, range: Range<usize>) -> usize {
        index(self.entries[range].iter().map(|planned| planned.size).sum())
    }
}

impl Planned {
    fn member<'a>(&'a self, before: &'a [Self]) -> Member<'a> {
        match (self.found.meta.kind, &self.found.target, self.link_to) {
            (Kind::Folder, ..) => Member::Folder,
            (_, Some(target), _) => Member::Symlink { target },
            (_, _, Some(first)) => Member::HardLink { target: before[first].found.path.as_bytes() },
            _ => Member::File { size: self.found.meta.size },
        }
    }
}

fn member_size(path: &RelativePath, member: Member<'_>) -> u64 {
    let content = if let Member::File { size } = member { padded(size) } else { 0 };
    header::length(path.as_bytes(), member) as u64 + content
}

/// What the header of an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sent {
    /// A folder.
    #[serde(rename = "Dir")]
    Folder {
        /// Mode bits `07777`.
        mode: u32,
    },
    /// A regular file, or a further name of one.
    File {
        /// Mode bits `07777`.
        mode: u32,
        /// Its size in bytes.
        size: u64,
        /// Seconds since 1970.
        mtime: u64,
    },
    /// A symbolic link.
    Symlink,
}

impl Sent {
    fn of(entry: &Entry, file: Option<&PackedFile>) -> Self {
        match (entry, file) {
            (Entry::Folder { mode }, _) => Self::Folder { mode: mode.unwrap_or(0) & 0o7777 },
            (Entry::File { mode, .. }, Some(&PackedFile { size, mtime, .. })) => {
                Self::File { mode: mode & 0o7777, size, mtime }
            }
            _ => Self::Symlink,
        }
    }
}

/// What was packed: the base of the merge that follows.
#[derive(Debug, Default)]
pub struct Contents {
    /// The entries in the archive, with their digests.
    pub snapshot: Snapshot,
    /// What their headers say, in byte order of the paths: the same ones.
    pub sent: Vec<(RelativePath, Sent)>,
    /// Further names of files, each with the first name of its file.
    pub further_names: Vec<(RelativePath, RelativePath)>,
    /// The files of the folder itself (not of grafts), as they were when they were read.
    pub read: Vec<(RelativePath, Fingerprint, Digest)>,
}

/// An archive that was packed into memory, and the changes that it needs.
#[derive(Debug)]
pub struct Packed {
    /// What was packed.
    pub contents: Contents,
    /// The places of entries that no longer fit, with the bytes to put there instead.
    pieces: Vec<(Range<usize>, Vec<u8>)>,
    laid_out: u64,
}

impl Packed {
    /// The size of the archive if it must be assembled again; `None` if it is complete as it was laid out.
    #[must_use]
    pub fn reassembled_size(&self) -> Option<u64> {
        if self.pieces.is_empty() {
            return None;
        }
        let (removed, added) = self.pieces.iter().fold((0, 0), |(removed, added), (place, replacement)| {
            (removed + place.len(), added + replacement.len())
        });
        Some(self.laid_out - removed as u64 + added as u64)
    }

    /// Assembles the archive in `out` ([`Packed::reassembled_size`] bytes) from what was laid out and its
    /// replacements.
    pub fn assemble(&self, laid_out: &[u8], out: &mut [u8]) {
        let (mut from, mut to) = (0, 0);
        let mut copy = |bytes: &[u8]| {
            out[to..to + bytes.len()].copy_from_slice(bytes);
            to += bytes.len();
        };
        for (place, replacement) in &self.pieces {
            copy(&laid_out[from..place.start]);
            copy(replacement);
            from = place.end;
        }
        copy(&laid_out[from..]);
    }
}

/// Archives a folder to a file, which appears only when it is complete.
///
/// `ignore_files` names files whose lines leave out more. If `only` names paths, only these and the folders above
/// them are archived.
pub fn create_tarball(
    folder: &Path,
    archive: &Path,
    exclude: &[Vec<u8>],
    ignore_files: &[Vec<u8>],
    only: Option<&[Vec<u8>]>,
    follow_links: bool,
    cancel: &Cancel,
) -> Result<()> {
    let Destination { path: destination, earlier } = Destination::of(archive)?;
    let root = if follow_links { Root::open_following(folder)? } else { Root::open(folder)? };
    let filter = Filter::by_name(is_temporary_name).without("", patterns(exclude));
    let ignored = IgnoreRules::read(&root, ignore_files, &filter, cancel)?;
    let filter = filter.without("", ignored);
    let mut layout = match only {
        None => Layout::scan(root, &filter, cancel)?,
        Some(paths) => {
            let found = find_named(&root, paths, &filter, cancel)?;
            Layout::with_grafts(root, found, Vec::new(), cancel)?
        }
    };
    if !earlier.is_empty() {
        layout = layout.without(&earlier);
    }
    let parent = match destination.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // With the permissions of any new file, and with the system's own error if it cannot be created.
    let mut out = Unfinished::new(parent, &temporary::name(temporary::ARCHIVE), archive)?;
    layout.stream(false, &mut ToFile { file: out.file(), path: archive }, cancel)?;
    out.finish(&destination).map_err(|error| error.about(archive.to_owned()))
}

/// The entries at these paths, with the folders above them and without their content. A path with something
/// other than a folder above it names nothing.
fn find_named(root: &Root, paths: &[Vec<u8>], filter: &Filter<'_>, cancel: &Cancel) -> Result<Vec<Found>> {
    let named: BTreeSet<_> =
        paths.iter().filter_map(|text| RelativePath::parse(text).ok().flatten()).collect();
    let above: Vec<_> = named.iter().flat_map(RelativePath::ancestors).collect();
    let wanted: BTreeSet<_> = named.iter().cloned().chain(above).collect();
    let mut cursor = root.cursor();
    let mut found = Vec::new();
    let mut folders = HashSet::new();
    // A folder comes before its content.
    for path in wanted {
        cancel.check()?;
        let is_reached = path.parent().is_none_or(|parent| folders.contains(&parent));
        if !is_reached {
            continue;
        }
        let Some(entry) = inspect(&mut cursor, path)? else { continue };
        if filter.leaves_out(&entry.path, entry.meta.kind) {
            continue;
        }
        if entry.meta.kind == Kind::Folder {
            folders.insert(entry.path.clone());
        } else if !named.contains(&entry.path) {
            continue;
        }
        found.push(entry);
    }
    Ok(found)
}

/// Where an archive is written.
struct Destination {
    /// The path itself, or the target of a link at it, as for `tar -f`.
    path: PathBuf,
    /// The inodes at these paths now: an earlier archive in the archived folder is not part of its content,
    /// nor is a link to it.
    earlier: Vec<FileId>,
}

/// How many links to the archive's path are followed: as many as on Linux.
const MAX_LINKS: usize = 40;

impl Destination {
    /// Checks the entry at the path. Anything but a regular file is refused, because it would be replaced.
    fn of(archive: &Path) -> Result<Self> {
        let mut destination = Self { path: archive.to_owned(), earlier: Vec::new() };
        let path = &mut destination.path;
        for _ in 0..=MAX_LINKS {
            let about = |error: Error| error.about(archive.to_owned());
            let Some(meta) = by_path::lstat(path).map_err(about)? else { return Ok(destination) };
            destination.earlier.push(meta.id);
            if meta.kind == Kind::File {
                return Ok(destination);
            }
            if meta.kind != Kind::Symlink {
                return Err(Error::InvalidArgValue {
                    argument: "input.archivePath".to_owned(),
                    reason: format!(
                        "{} is there, which an archive must not replace; nothing was changed. Pass the path of \
                         a regular file, or one where nothing is",
                        meta.in_words()
                    ),
                    received: readable(bytes_of(archive)),
                });
            }
            let target = by_path::read_link(path).map_err(about)?;
            *path = path.parent().unwrap_or(Path::new("")).join(target);
        }
        Err(Obstacle::Links.at("open", archive))
    }
}

/// Takes an archive that is not kept in memory as a whole.
pub trait Sink {
    /// Takes the next bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()>;

    /// How many of the next bytes can be made in the sink's own memory. A sink that has none always says 0.
    fn room(&mut self) -> Result<u64> {
        Ok(0)
    }

    /// Has the next `size` bytes made in the sink's own memory, which is zeroed. There must be room for them. If `make`
    /// returns `false`, they are not taken.
    fn in_place(
        &mut self,
        _size: usize,
        _make: &mut (dyn FnMut(&mut [u8]) -> Result<bool> + Send),
    ) -> Result<()> {
        Err(Error::Internal("this sink has no memory of its own".to_owned()))
    }

    /// Copies the next `size` bytes of a file if it can do so by itself, and returns how many there were.
    /// `None` if it needs them through [`Sink::bytes`].
    fn file(&mut self, _file: &mut File, _size: u64, _cancel: &Cancel) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// An archive that is written to a file.
struct ToFile<'a> {
    file: &'a mut File,
    path: &'a Path,
}

impl Sink for ToFile<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", self.path, error))
    }

    fn file(&mut self, file: &mut File, size: u64, cancel: &Cancel) -> Result<Option<u64>> {
        let mut copied = 0;
        while copied < size {
            cancel.check()?;
            let mut next = (&mut *file).take((size - copied).min(LARGE_STEP));
            match io::copy(&mut next, self.file).map_err(|error| Error::io("write", self.path, error))? {
                0 => break,
                more => copied += more,
            }
        }
        Ok(Some(copied))
    }
}

/// Notes the digests of large files, which are known only once they were written.
fn set_digests(outcomes: &mut [Outcome], digests: impl IntoIterator<Item = (usize, Digest)>) {
    for (at, digest) in digests {
        if let Some(file) = &mut outcomes[at].file {
            file.digest = Some(digest);
        }
    }
}

/// A piece of the archive for a sink.
enum Piece {
    Bytes(Vec<u8>),
    /// A file that is too large to be kept in memory.
    Large {
        /// The index of its entry.
        at: usize,
        path: RelativePath,
        /// Its path on this machine, for messages.
        shown: PathBuf,
        file: File,
        now: Meta,
    },
}

impl Piece {
    /// Writes it to the sink, and returns the digest of a large file if `hash` is set. A buffer becomes a spare one.
    fn write(
        self,
        hash: bool,
        sink: &mut (impl Sink + Send),
        spare: &Mutex<Vec<Vec<u8>>>,
        cancel: &Cancel,
    ) -> Result<Option<(usize, Digest)>> {
        let (at, path, shown, mut file, now) = match self {
            Self::Bytes(bytes) => {
                sink.bytes(&bytes)?;
                let mut spare = lock(spare);
                if bytes.capacity() > 0 && spare.len() < WINDOW_BATCHES {
                    spare.push(bytes);
                }
                return Ok(None);
            }
            Self::Large { at, path, shown, file, now } => (at, path, shown, file, now),
        };
        let mut buffer = Vec::new();
        push_header(&mut buffer, &path, &now, Member::File { size: now.size });
        sink.bytes(&buffer)?;
        let mut done = if hash { 0 } else { sink.file(&mut file, now.size, cancel)?.unwrap_or(0) };
        let mut digest = sha2::Sha256::new();
        let has_ended = AtomicBool::new(false);
        let read = |into: &mut [u8], offset| {
            cancel.check()?;
            // Once an end was found, nothing behind it is read any more.
            if !has_ended.load(Ordering::Relaxed) {
                let read = read_fully_at(&file, into, offset);
                let read = read.map_err(|error| Error::io("read", &shown, error))?;
                has_ended.fetch_or(read < into.len(), Ordering::Relaxed);
            }
            Ok(())
        };
        // If the file has shrunk, the rest stays zeros, and the digest is that of the bytes in the archive.
        while done < now.size {
            let room = sink.room()?;
            let size = index(if room > 0 { room } else { BATCH }.min(now.size - done));
            let mut make = |memory: &mut [u8]| {
                let read = |piece: &mut [u8], offset: usize| read(piece, done + offset as u64);
                read_and_hash(memory, &read, hash.then_some(&mut digest)).map(|()| true)
            };
            if room > 0 {
                sink.in_place(size, &mut make)?;
            } else {
                buffer.clear();
                buffer.resize(size, 0);
                make(&mut buffer)?;
                sink.bytes(&buffer)?;
            }
            done += size as u64;
        }
        sink.bytes(&[0; header::BLOCK][..index(padded(now.size) - now.size)])?;
        Ok(hash.then(|| (at, Digest(digest.finalize().into()))))
    }
}

/// The pieces of a file that is read into memory: what is still to be done, and by nobody yet.
struct Pieces<'a> {
    /// Those that are not read, with their numbers.
    unread: Enumerate<ChunksMut<'a, u8>>,
    /// Those that are read and not hashed, by their numbers.
    read: BTreeMap<usize, &'a [u8]>,
    /// How many are hashed, and the hash of these unless a thread works on it.
    hashed: usize,
    digest: Option<&'a mut sha2::Sha256>,
}

/// What one thread does next.
enum Work<'a> {
    Read(usize, &'a mut [u8]),
    Hash(&'a mut sha2::Sha256, &'a [u8]),
}

impl<'a> Pieces<'a> {
    /// The next piece is hashed if it is read and no other thread hashes; otherwise one more is read.
    fn next(&mut self) -> Option<Work<'a>> {
        if self.digest.is_some()
            && let Some(piece) = self.read.remove(&self.hashed)
        {
            return self.digest.take().map(|digest| Work::Hash(digest, piece));
        }
        self.unread.next().map(|(number, piece)| Work::Read(number, piece))
    }
}

/// Reads a file into memory and hashes it, on two threads: pieces are hashed one after the other, so each thread reads whenever
/// there is none to hash for it. `read` gets a piece of the memory, and how many bytes come before it.
fn read_and_hash(
    memory: &mut [u8],
    read: &(impl Fn(&mut [u8], usize) -> Result<()> + Sync),
    digest: Option<&mut sha2::Sha256>,
) -> Result<()> {
    let size = index(BATCH);
    if memory.len() <= size {
        read(memory, 0)?;
        if let Some(digest) = digest {
            digest.update(&*memory);
        }
        return Ok(());
    }
    let mut unread = memory.chunks_mut(size).enumerate();
    let Some(digest) = digest else {
        return unread.try_for_each(|(number, piece)| read(piece, number * size));
    };
    let pieces = Mutex::new(Pieces { unread, read: BTreeMap::new(), hashed: 0, digest: Some(digest) });
    let take_turns = || {
        loop {
            let Some(work) = lock(&pieces).next() else { return Ok(()) };
            match work {
                Work::Read(number, piece) => {
                    read(piece, number * size)?;
                    lock(&pieces).read.insert(number, piece);
                }
                Work::Hash(digest, piece) => {
                    digest.update(piece);
                    let mut pieces = lock(&pieces);
                    pieces.hashed += 1;
                    pieces.digest = Some(digest);
                }
            }
        }
    };
    let (one, other) = rayon::join(take_turns, take_turns);
    one.and(other)
}

/// The outcome of one entry.
#[derive(Debug)]
struct Outcome {
    /// The file as it was packed; `None` if it vanished, and for other entries.
    file: Option<PackedFile>,
    /// Whether it was still the inode that the scan found.
    same_inode: bool,
    /// For a further name of a file: the index of the entry with its content.
    first_name: Option<usize>,
    /// What replaces its place, if it does not fit into that; no bytes if it vanished.
    replacement: Option<Replacement>,
}

/// What goes into the archive instead of what was laid out.
#[derive(Debug)]
enum Replacement {
    Bytes(Vec<u8>),
    /// A file that is too large to be kept in memory.
    Large {
        file: File,
        now: Meta,
    },
}

/// A file as it was packed.
#[derive(Debug, Clone, Copy)]
struct PackedFile {
    mode: u32,
    size: u64,
    mtime: u64,
    /// Its fingerprint when it was opened.
    print: Fingerprint,
    /// Its digest, if digests are computed.
    digest: Option<Digest>,
}

impl PackedFile {
    fn of(now: &Meta, digest: Option<Digest>) -> Self {
        let mtime = header::mtime(now);
        Self { mode: now.mode & 0o7777, size: now.size, mtime, print: now.fingerprint(), digest }
    }
}

struct Worker<'a> {
    layout: &'a Layout,
    cursor: Cursor<'a>,
    /// Cursors in the grafts, by their numbers.
    grafts: Vec<Cursor<'a>>,
    hash: bool,
    /// Whether the archive is kept in memory, so there is space for a file of any size.
    in_memory: bool,
    cancel: &'a Cancel,
}

impl<'a> Worker<'a> {
    fn new(layout: &'a Layout, hash: bool, cancel: &'a Cancel) -> Self {
        let grafts = layout.grafts.iter().map(|graft| graft.root.cursor()).collect();
        Self { layout, cursor: layout.root.cursor(), grafts, hash, in_memory: true, cancel }
    }

    /// Packs a batch of entries into its place.
    fn pack_all(&mut self, range: Range<usize>, mut batch: &mut [u8]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(range.len());
        for at in range {
            self.cancel.check()?;
            let (place, after) = batch.split_at_mut(index(self.layout.entries[at].size));
            outcomes.push(self.pack(at, place)?);
            batch = after;
        }
        Ok(outcomes)
    }

    fn pack(&mut self, at: usize, place: &mut [u8]) -> Result<Outcome> {
        let planned = &self.layout.entries[at];
        let Found { path, meta, .. } = &planned.found;
        let member = planned.member(&self.layout.entries);
        let Member::File { size } = member else {
            // The digest of a further name is set once its first name was read.
            header::write(place, path.as_bytes(), meta, member);
            return Ok(Outcome { file: None, same_inode: true, first_name: None, replacement: None });
        };
        match self.open(at)? {
            Some((mut file, now)) if now.size == size => {
                header::write(place, path.as_bytes(), &now, member);
                let content = header::length(path.as_bytes(), member);
                let digest = self.read_content(&mut file, &mut place[content..][..index(size)], at)?;
                let file = Some(PackedFile::of(&now, digest));
                Ok(Outcome { file, same_inode: now.is_same_inode(meta), first_name: None, replacement: None })
            }
            opened => self.append(at, opened),
        }
    }

    /// The metadata of a file, with its digest.
    fn digest(&mut self, at: usize, reader: &mut Reader, known: &DigestLookup<'_>) -> Result<Option<Hashed>> {
        let Planned { found, graft, link_to, .. } = &self.layout.entries[at];
        if found.meta.kind != Kind::File || link_to.is_some() {
            return Ok(None);
        }
        match known(found) {
            KnownDigest::Known(digest) => return Ok(Some((found.meta, Some(digest)))),
            KnownDigest::NotNeeded => return Ok(Some((found.meta, None))),
            KnownDigest::Unknown => {}
        }
        let read = match graft {
            None => reader.file(&mut self.cursor, &found.path, self.cancel, |_| Ok(()))?,
            Some((graft, Some(path))) => {
                reader.file(&mut self.grafts[*graft], path, self.cancel, |_| Ok(()))?
            }
            // The root of a graft is a folder.
            Some((_, None)) => None,
        };
        Ok(read.map(|(meta, digest)| (meta, Some(digest))))
    }

    fn open(&mut self, at: usize) -> Result<Option<(File, Meta)>> {
        let planned = &self.layout.entries[at];
        match &planned.graft {
            None => self.cursor.open(&planned.found.path),
            Some((graft, Some(path))) => self.grafts[*graft].open(path),
            // The root of a graft is a folder.
            Some((_, None)) => Ok(None),
        }
    }

    /// Packs a file separately, whatever its size is now.
    fn pack_separately(&mut self, at: usize) -> Result<Outcome> {
        let opened = self.open(at)?;
        self.append(at, opened)
    }

    fn append(&self, at: usize, opened: Option<(File, Meta)>) -> Result<Outcome> {
        let Found { path, meta, .. } = &self.layout.entries[at].found;
        let mut replacement = Vec::new();
        let Some((mut file, now)) = opened else {
            let replacement = Some(Replacement::Bytes(replacement));
            return Ok(Outcome { file: None, same_inode: false, first_name: None, replacement });
        };
        let same_inode = now.is_same_inode(meta);
        if !self.in_memory && now.size > BATCH {
            let packed = Some(PackedFile::of(&now, None));
            let replacement = Some(Replacement::Large { file, now });
            return Ok(Outcome { file: packed, same_inode, first_name: None, replacement });
        }
        push_header(&mut replacement, path, &now, Member::File { size: now.size });
        let start = replacement.len();
        replacement.resize(start + index(padded(now.size)), 0);
        let digest = self.read_content(&mut file, &mut replacement[start..][..index(now.size)], at)?;
        let file = Some(PackedFile::of(&now, digest));
        Ok(Outcome { file, same_inode, first_name: None, replacement: Some(Replacement::Bytes(replacement)) })
    }

    /// Fills `content` from the file. If the file has shrunk, the rest stays zero, and the digest is that of
    /// the bytes in the archive.
    fn read_content(&self, file: &mut File, content: &mut [u8], at: usize) -> Result<Option<Digest>> {
        let mut hash = self.hash.then(sha2::Sha256::new);
        let mut has_ended = false;
        for chunk in content.chunks_mut(CHUNK) {
            if !has_ended {
                let read = read_fully(file, chunk);
                let read = read.map_err(|error| Error::io("read", self.layout.shown(at), error))?;
                has_ended = read < chunk.len();
            }
            if let Some(hash) = &mut hash {
                hash.update(chunk);
            }
            self.cancel.check()?;
        }
        Ok(hash.map(|hash| Digest(hash.finalize().into())))
    }
}

fn push_header(out: &mut Vec<u8>, path: &RelativePath, meta: &Meta, member: Member<'_>) {
    let start = out.len();
    out.resize(start + header::length(path.as_bytes(), member), 0);
    header::write(&mut out[start..], path.as_bytes(), meta, member);
}

/// Sizes of what is held in memory fit its indices.
fn index(size: u64) -> usize {
    usize::try_from(size).expect("what is held in memory is no larger than memory")
}
