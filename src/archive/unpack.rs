//! Untrusted bytes → checked entries.
//!
//! The archive comes from a machine on which an agent had a shell. It is read once, front to back, as a stream that never
//! comes again, and nothing of it may be put in place before its end has been reached: a number that is not one, a name that
//! leads somewhere, an entry that some readers would take for one thing and some for another is refused, never repaired.
//! Contents are handed on as they pass, so that memory does not grow with them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::header::BLOCK;
use super::source::{PIECE, Stream};
use crate::error::{Error, Result, shown};
use crate::path::{PATH_MAX, PathFault, RelativePath};

/// One entry of an archive that is complete and free of contradictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Where.
    pub path: RelativePath,
    /// What.
    pub content: Content,
    /// Where the header stands that came with the content, which [`Sink`] knows as the same. Names that have it in common are
    /// names of one file or link (hard links).
    pub inode: u64,
}

/// What an entry of the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A folder; no mode where the archive only names what is in it.
    Folder {
        /// Mode bits `07777`.
        mode: Option<u32>,
    },
    /// A regular file, or a further name of one.
    File {
        /// Mode bits `07777`.
        mode: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Arc<[u8]>,
    },
    /// A device or FIFO, which is never restored.
    Special,
}

/// A whole archive, checked.
#[derive(Debug, Default)]
pub struct Archive {
    /// Its entries in byte order of their paths, each with all folders above it.
    pub entries: Vec<Unpacked>,
    /// Whether it held any entry at all, were it only `./`: an empty workspace says so by that one.
    pub held_anything: bool,
    /// The content of the regular file that is none of the tree's, where one was asked for and came.
    pub control: Option<Vec<u8>>,
}

impl Archive {
    /// The entry of that path.
    #[must_use]
    pub fn get(&self, path: &RelativePath) -> Option<&Unpacked> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok().map(|at| &self.entries[at])
    }

    /// Adds folders that something else has told, with their modes. One of the archive's has that mode from now on; where
    /// it has something else of that name, that stays.
    pub fn add_dirs<'p>(&mut self, dirs: impl Iterator<Item = (&'p RelativePath, u32)>) {
        let mut further = Vec::new();
        for (path, mode) in dirs {
            if let Ok(at) = self.entries.binary_search_by(|entry| entry.path.cmp(path)) {
                if let Content::Folder { mode: of_archive } = &mut self.entries[at].content {
                    *of_archive = Some(mode);
                }
            } else {
                let content = Content::Folder { mode: Some(mode) };
                further.push(Unpacked { path: path.clone(), content, inode: 0 });
            }
        }
        self.entries.append(&mut further);
        self.entries.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }
}

/// The largest size that a header tells without a PAX record or base-256: 8 GiB - 1.
const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;

/// How long the names of folders that are only implied may be in all: a few names of a thousand levels each would
/// otherwise grow into gigabytes. No tree comes near it whose archive has an entry for what is in each folder.
const IMPLIED_BYTES_PER_BYTE: u64 = 4;
/// What any archive may imply, however small: one path as long as a path can be.
const IMPLIED_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// How long a name, a link target or a record that means something to us may be in an archive. A path is much shorter;
/// longer names of it, with superfluous dots and slashes, are still told from damage up to here.
const NAME_MAX: u64 = 64 * 1024;

/// How far into a PAX record its key may reach.
const KEY_MAX: u64 = 4096;

/// How large the file may be that is none of the tree's.
pub const CONTROL_MAX: u64 = 256 * 1024 * 1024;

/// Reads and checks a whole archive, and hands the contents of its files to `sink` while they pass. Entries for which
/// `ignore` holds are checked like all others and then dropped; what stands behind the end mark is read and not looked at. A
/// regular file at the path `control` is none of the tree's: its content is [`Archive::control`]. (It is not known where that
/// path is a further name of another file.)
pub fn unpack(
    stream: &mut dyn Stream,
    control: Option<&RelativePath>,
    ignore: &dyn Fn(&RelativePath) -> bool,
    sink: &mut dyn Sink,
) -> Result<Archive> {
    let bytes = sink.buffer();
    let mut reader = Reader {
        stream,
        sink,
        ignore,
        control_path: control,
        control: None,
        bytes,
        read: 0,
        start: 0,
        files: Vec::new(),
        found: Vec::new(),
        by_path: None,
    };
    let mut held_anything = false;
    while let Some(header) = reader.header()? {
        held_anything |= reader.entry(&header)?;
    }
    let size = reader.drain()?;
    let Reader { mut found, control: came, .. } = reader;
    // Stable: of two entries with one name, the last counts.
    found.par_sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    let mut entries: Vec<Found> = Vec::with_capacity(found.len());
    for found in found {
        match entries.last_mut() {
            Some(last) if last.entry.path == found.entry.path => *last = found,
            _ => entries.push(found),
        }
    }
    let control = control.and_then(|path| {
        let at = entries.binary_search_by(|found| found.entry.path.cmp(path)).ok()?;
        matches!(entries[at].entry.content, Content::File { .. }).then(|| entries.remove(at))
    });
    let control = match (control, came) {
        (Some(found), Some(came)) if found.entry.inode == came.inode => Some(came.into_content(&found)?),
        _ => None,
    };
    entries.retain(|found| !found.ignored);
    Ok(Archive { entries: with_folders(entries, size)?, held_anything, control })
}

impl Control {
    fn into_content(self, found: &Found) -> Result<Vec<u8>> {
        let Self { size, content, .. } = self;
        if size > CONTROL_MAX {
            let reason = format!("it has {size} bytes, and {CONTROL_MAX} are the most that it may have");
            let entry = Some(shown(found.entry.path.as_bytes()));
            return Err(Error::ArchiveInvalid { offset: found.offset, entry, reason });
        }
        Ok(content)
    }
}

/// Adds the folders that the archive only implies, and refuses what lies below something that is no folder.
fn with_folders(entries: Vec<Found>, archive_size: u64) -> Result<Vec<Unpacked>> {
    let mut implied = BTreeSet::new();
    let mut implied_bytes = 0;
    {
        let find = |path: &[u8]| {
            entries
                .binary_search_by(|found| found.entry.path.as_bytes().cmp(path))
                .ok()
                .map(|at| &entries[at].entry)
        };
        let mut known: &[u8] = &[];
        for Found { offset, entry, .. } in &entries {
            let (folder, _) = entry.path.split();
            if folder == known {
                continue;
            }
            known = folder;
            let mut next = entry.path.parent();
            while let Some(above) = next {
                match find(above.as_bytes()) {
                    // What is above this one is looked at on its own turn.
                    Some(Unpacked { content: Content::Folder { .. }, .. }) => break,
                    Some(_) => {
                        return Err(Error::UnsafePath {
                            path: shown(entry.path.as_bytes()),
                            offset: Some(*offset),
                            reason: format!(
                                "the archive has it below \"{}\", which is no folder in the same archive; \
                                 nothing was changed",
                                shown(above.as_bytes())
                            ),
                        });
                    }
                    None => {}
                }
                next = above.parent();
                implied_bytes += above.as_bytes().len() as u64;
                if !implied.insert(above) {
                    break;
                }
            }
            if implied_bytes > IMPLIED_BYTES_MIN + IMPLIED_BYTES_PER_BYTE * archive_size {
                return Err(Error::ArchiveInvalid {
                    offset: *offset,
                    entry: Some(shown(entry.path.as_bytes())),
                    reason: "it implies far more folders than it has entries for".to_owned(),
                });
            }
        }
    }
    let mut entries: Vec<Unpacked> = entries.into_iter().map(|found| found.entry).collect();
    if !implied.is_empty() {
        entries.extend(implied.into_iter().map(|path| Unpacked {
            path,
            content: Content::Folder { mode: None },
            inode: 0,
        }));
        entries.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(entries)
}

/// Takes the contents of an archive's files while they pass. Nothing of the archive has been found to be whole by then.
pub trait Sink {
    /// An empty buffer for the bytes that come next, such as one of those that were handed over before.
    fn buffer(&mut self) -> Vec<u8>;

    /// Whole files of at most a [`PIECE`] each. Their contents lie in `bytes`.
    fn files(&mut self, bytes: Vec<u8>, files: Vec<Passing>) -> Result<()>;

    /// The next bytes of a file that is longer than a [`PIECE`], from its first on. Of an archive that is cut off, the last
    /// ones never come.
    fn part(&mut self, file: &Passing, bytes: Vec<u8>) -> Result<()>;

    /// The whole content of the file that is none of the tree's, as soon as it has passed. Another one may follow, and then
    /// that one counts.
    fn control(&mut self, content: &[u8]);
}

/// A file whose content passes.
#[derive(Debug, Clone)]
pub struct Passing {
    /// Where its header begins, as [`Unpacked::inode`].
    pub inode: u64,
    /// Its first name.
    pub path: RelativePath,
    /// Mode bits `07777`.
    pub mode: u32,
    /// Bytes of content.
    pub size: u64,
    /// Whether its name is none of those that are dropped.
    pub wanted: bool,
    /// Where the content of a whole file lies in the bytes that come with it.
    pub range: Range<usize>,
}

/// An entry that was read.
struct Found {
    /// Where its header begins.
    offset: u64,
    /// Whether it is checked like the others and then dropped.
    ignored: bool,
    entry: Unpacked,
}

/// Reads an archive once, from its first byte to its last.
struct Reader<'a> {
    stream: &'a mut dyn Stream,
    sink: &'a mut dyn Sink,
    ignore: &'a dyn Fn(&RelativePath) -> bool,
    /// The path of the file that is none of the tree's.
    control_path: Option<&'a RelativePath>,
    /// That file, as it came last.
    control: Option<Control>,
    /// What came last, no more than a piece.
    bytes: Vec<u8>,
    /// How many of these were read.
    read: usize,
    /// Where they begin in the archive.
    start: u64,
    /// Whole files among those that were read.
    files: Vec<Passing>,
    found: Vec<Found>,
    /// Where in `found` each path was last; made when the first hard link asks.
    by_path: Option<HashMap<RelativePath, usize>>,
}

/// A regular file that is none of the tree's.
struct Control {
    inode: u64,
    size: u64,
    /// Its content, as far as it came, unless it is too long.
    content: Vec<u8>,
}

/// Where content of an entry stands in the archive, its padding not counted.
#[derive(Clone, Copy)]
struct Extent {
    at: u64,
    size: u64,
}

impl Extent {
    /// Where the block ends in which it ends. No archive reaches as far where that is beyond all numbers.
    fn padded_end(self) -> u64 {
        let padded = self.size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
        self.at.saturating_add(padded)
    }
}

/// A header with all that stood before it on its behalf.
struct Header {
    /// Where its first block begins, that of a long name or PAX record included.
    offset: u64,
    /// Where its own block begins.
    at: u64,
    block: tar::Header,
    /// What its size field says.
    size: u64,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Pax,
}

/// The PAX records that change what an entry is.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link_path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Reader<'_> {
    /// The next entry's header; `None` at the end mark.
    fn header(&mut self) -> Result<Option<Header>> {
        let offset = self.at();
        let (mut long_name, mut long_link, mut pax) = (None, None, None);
        loop {
            let at = self.at();
            let block = self.block("a header was due, and no end mark has come")?;
            if block.iter().all(|&byte| byte == 0) {
                if long_name.is_some() || long_link.is_some() || pax.is_some() {
                    return Err(invalid(offset, None, "a long name or PAX record belongs to no entry"));
                }
                let second = self.block("the end mark is two blocks of zeros, and one came")?;
                if second.iter().all(|&byte| byte == 0) {
                    return Ok(None);
                }
                return Err(invalid(at, None, "a lone block of zeros, where the end mark is two"));
            }
            let block = tar::Header::from_byte_slice(&block);
            check(at, block)?;
            let size = number(&block.as_old().size).map_err(|fault| {
                let name = long_name.as_deref().unwrap_or_else(|| until_nul(&block.as_old().name));
                invalid(at, Some(shown(name)), &format!("its size {fault}"))
            })?;
            let twice = |what| invalid(at, None, &format!("{what} stands twice for one entry"));
            match block.as_old().linkflag[0] {
                b'L' if long_name.is_some() => return Err(twice("a long name")),
                b'K' if long_link.is_some() => return Err(twice("a long link target")),
                b'x' if pax.is_some() => return Err(twice("a PAX header")),
                b'L' => long_name = Some(self.long(at, size)?),
                b'K' => long_link = Some(self.long(at, size)?),
                b'x' => pax = Some(self.pax(at, size)?),
                b'g' => {
                    let global = self.pax(at, size)?;
                    if global.path.is_some() || global.link_path.is_some() || global.size.is_some() {
                        return Err(invalid(
                            at,
                            None,
                            "a global PAX header gives every entry one name or size",
                        ));
                    }
                }
                _ => {
                    let (block, pax) = (block.clone(), pax.unwrap_or_default());
                    return Ok(Some(Header { offset, at, block, size, long_name, long_link, pax }));
                }
            }
        }
    }

    /// Takes in one entry. `false` for an entry that says nothing.
    fn entry(&mut self, header: &Header) -> Result<bool> {
        let old = header.block.as_old();
        let offset = header.offset;
        if old.linkflag[0] == b'V' {
            // The label of a volume: its name is no path, and no reader makes anything of it.
            self.pass(self.extent(header.size))?;
            return Ok(false);
        }
        let name = header.name()?;
        let refuse = |reason: &str| invalid(offset, Some(shown(&name)), reason);
        let unsafe_path = |fault: PathFault| Error::UnsafePath {
            path: shown(&name),
            offset: Some(offset),
            reason: format!("{fault}; the archive is refused and nothing was changed"),
        };
        let path = RelativePath::parse(&name).map_err(unsafe_path)?;
        let mode = number(&old.mode)
            .map_err(|fault| invalid(header.at, Some(shown(&name)), &format!("its mode {fault}")))?;
        let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
        let kind = match old.linkflag[0] {
            // The oldest archives tell a folder by its slash alone.
            b'0' | 0 if name.ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            kind @ (b'0'..=b'6' | b'D') => kind,
            b'S' => return Err(refuse("a sparse file; archive it without --sparse")),
            b'M' => {
                return Err(refuse(
                    "a piece of what began on another volume; archive it without --multi-volume",
                ));
            }
            other => return Err(refuse(&format!("an entry of unknown type {:?}", char::from(other)))),
        };
        let has_size = header.size != 0 || header.pax.size.is_some_and(|size| size != 0);
        if has_size && !matches!(kind, b'0' | b'D') {
            return Err(refuse("it is no file and yet has a size"));
        }
        let size = match header.pax.size {
            Some(size) if header.size != 0 && header.size != size && size <= OCTAL_SIZE_MAX => {
                return Err(refuse(&format!("its header says {} bytes, its PAX record {size}", header.size)));
            }
            Some(size) => size,
            None => header.size,
        };
        let mut inode = offset;
        let ignored = path.as_ref().is_some_and(self.ignore);
        let content = match kind {
            b'0' => {
                let wanted = !ignored;
                let passing = |path| Passing { inode, path, mode, size, wanted, range: 0..0 };
                self.file(path.clone().map(passing), size)?;
                Content::File { mode }
            }
            b'5' => Content::Folder { mode: Some(mode) },
            b'D' => {
                // An incremental archive's folder. The names that were in it are its content, for those who delete
                // what is not among them.
                self.pass(self.extent(size))?;
                Content::Folder { mode: Some(mode) }
            }
            b'2' => {
                let target = header.link_target();
                if target.is_empty() || target.contains(&0) || target.len() > PATH_MAX {
                    return Err(refuse("a link target that no file system can hold"));
                }
                Content::Symlink { target: target.into() }
            }
            b'1' => {
                let content;
                (content, inode) = self.hard_link(header, &name)?;
                content
            }
            _ => Content::Special,
        };
        match path {
            Some(path) => {
                if let Some(by_path) = &mut self.by_path {
                    by_path.insert(path.clone(), self.found.len());
                }
                self.found.push(Found { offset, ignored, entry: Unpacked { path, content, inode } });
            }
            None if matches!(content, Content::Folder { .. }) => {}
            None => return Err(refuse("the workspace itself as something other than a folder")),
        }
        Ok(true)
    }

    /// What a hard link names: a file or link that stands before it.
    fn hard_link(&mut self, header: &Header, name: &[u8]) -> Result<(Content, u64)> {
        let target = header.link_target();
        let refuse = |reason: &str| invalid(header.offset, Some(shown(name)), reason);
        let path = RelativePath::parse(target).map_err(|fault| Error::UnsafePath {
            path: shown(target),
            offset: Some(header.offset),
            reason: format!(
                "{fault}, as the target of the hard link \"{}\"; nothing was changed",
                shown(name)
            ),
        })?;
        let by_path = self.by_path.get_or_insert_with(|| {
            self.found.iter().enumerate().map(|(at, found)| (found.entry.path.clone(), at)).collect()
        });
        match path.and_then(|path| by_path.get(&path)).map(|&at| &self.found[at].entry) {
            Some(Unpacked { content: Content::Folder { .. }, .. }) => Err(refuse("a hard link to a folder")),
            Some(Unpacked { content, inode, .. }) => Ok((content.clone(), *inode)),
            None => Err(refuse(&format!(
                "a hard link to \"{}\", which does not stand before it in the archive",
                shown(target)
            ))),
        }
    }

    /// The content of a long-name entry: the name with a closing NUL.
    fn long(&mut self, at: u64, size: u64) -> Result<Vec<u8>> {
        let extent = self.extent(size);
        if size > NAME_MAX {
            self.pass(extent)?;
            return Err(too_long(at, size));
        }
        let mut name = self.next_of(extent, size)?.to_vec();
        self.pass(extent)?;
        name.pop_if(|last| *last == 0);
        Ok(name)
    }

    /// PAX records: `<length> <key>=<value>\n`, the length counting all of it. Only what means something is copied.
    fn pax(&mut self, header: u64, size: u64) -> Result<Pax> {
        let extent = self.extent(size);
        let pax = self.records(header, extent);
        // That the records are cut off is told before what is wrong in them.
        self.pass(extent)?;
        pax
    }

    fn records(&mut self, header: u64, extent: Extent) -> Result<Pax> {
        let malformed = || invalid(header, None, "a malformed PAX record");
        let end = extent.at.saturating_add(extent.size);
        let mut pax = Pax::default();
        while self.at() < end {
            let at = self.at();
            let begins = self.next_of(extent, (end - at).min(KEY_MAX))?;
            let space = begins.iter().position(|&byte| byte == b' ').ok_or_else(malformed)?;
            let length = decimal(&begins[..space]).ok_or_else(malformed)?;
            if length > end - at || length <= space as u64 + 1 {
                return Err(malformed());
            }
            let record =
                &begins[..usize::try_from(length).map_or(begins.len(), |length| length.min(begins.len()))];
            let equals =
                space + record[space..].iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
            let key = &record[space + 1..equals];
            if key.is_empty() {
                return Err(malformed());
            }
            if key.starts_with(b"GNU.sparse.") {
                return Err(invalid(header, None, "a sparse file; archive it without --sparse"));
            }
            let known = match key {
                b"path" => Some(Known::Path),
                b"linkpath" => Some(Known::LinkPath),
                b"size" => Some(Known::Size),
                // Times, owners, attributes, comments: none of them is restored.
                _ => None,
            };
            let value = equals as u64 + 1;
            let last = length - 1;
            if value > last {
                return Err(malformed());
            }
            if let Some(known) = known {
                if last - value > NAME_MAX {
                    return Err(too_long(header, last - value));
                }
                let value = self.next_of(extent, last)?[equals + 1..].to_vec();
                match known {
                    Known::Path => pax.path = Some(value),
                    Known::LinkPath => pax.link_path = Some(value),
                    Known::Size => pax.size = Some(decimal(&value).ok_or_else(malformed)?),
                }
            }
            self.pass_to(extent, at + last)?;
            if self.next_of(extent, 1)? != b"\n" {
                return Err(malformed());
            }
            self.read += 1;
        }
        Ok(pax)
    }

    /// The content of a file, which is handed on. It is none that can be where its name is the workspace's own.
    fn file(&mut self, file: Option<Passing>, size: u64) -> Result<()> {
        let extent = self.extent(size);
        let Some(mut file) = file else { return self.pass(extent) };
        let is_control = self.control_path == Some(&file.path);
        if is_control {
            self.control = Some(Control { inode: file.inode, size, content: Vec::new() });
        }
        if size <= PIECE as u64 {
            let length = self.next_of(extent, size)?.len();
            file.range = self.read..self.read + length;
            if let Some(control) = self.control.as_mut().filter(|_| is_control) {
                control.content.extend_from_slice(&self.bytes[file.range.clone()]);
            }
            self.read = file.range.end;
            self.files.push(file);
        } else {
            self.parts(extent, &file, is_control)?;
        }
        self.pass(extent)?;
        if let Some(control) = self.control.as_ref().filter(|_| is_control && size <= CONTROL_MAX) {
            self.sink.control(&control.content);
        }
        Ok(())
    }

    /// Hands on a file that is longer than a piece.
    fn parts(&mut self, extent: Extent, file: &Passing, is_control: bool) -> Result<()> {
        self.hand_over()?;
        let mut rest = file.size;
        while rest > 0 {
            let length = usize::try_from(rest).map_or(PIECE, |rest| rest.min(PIECE));
            // Nothing but this file's is asked for, so that all of it can be handed on.
            while self.bytes.len() < length {
                if self.stream.next(length - self.bytes.len(), &mut self.bytes)? == 0 {
                    return Err(self.cut_off(extent));
                }
            }
            if let Some(control) = self.control.as_mut().filter(|_| is_control && file.size <= CONTROL_MAX) {
                control.content.extend_from_slice(&self.bytes);
            }
            rest -= length as u64;
            self.start += length as u64;
            let bytes = std::mem::replace(&mut self.bytes, self.sink.buffer());
            self.sink.part(file, bytes)?;
        }
        Ok(())
    }

    /// Where the next byte to be read stands in the archive.
    fn at(&self) -> u64 {
        self.start + self.read as u64
    }

    /// Content of that size, from the next byte on.
    fn extent(&self, size: u64) -> Extent {
        Extent { at: self.at(), size }
    }

    /// Passes over what is left of an entry's content, and its padding.
    fn pass(&mut self, extent: Extent) -> Result<()> {
        self.pass_to(extent, extent.padded_end())
    }

    /// Passes over what stands before that byte of the archive.
    fn pass_to(&mut self, extent: Extent, end: u64) -> Result<()> {
        while self.at() < end {
            if !self.fill(1)? {
                return Err(self.cut_off(extent));
            }
            let there = self.bytes.len() - self.read;
            self.read += usize::try_from(end - self.at()).map_or(there, |wanted| wanted.min(there));
        }
        Ok(())
    }

    fn block(&mut self, missing: &str) -> Result<[u8; BLOCK]> {
        if !self.fill(BLOCK)? {
            return Err(self.truncated(missing, BLOCK as u64, self.at()));
        }
        let block = self.bytes[self.read..self.read + BLOCK].try_into().expect("it has a block's length");
        self.read += BLOCK;
        Ok(block)
    }

    /// The next bytes of an entry's content, no more than a piece. They are not read by that.
    fn next_of(&mut self, extent: Extent, length: u64) -> Result<&[u8]> {
        let length = usize::try_from(length).expect("it is no more than a piece");
        if !self.fill(length)? {
            return Err(self.cut_off(extent));
        }
        Ok(&self.bytes[self.read..self.read + length])
    }

    /// Sees to it that so many bytes, no more than a piece, are there to be read. `false` where the archive ends before.
    fn fill(&mut self, length: usize) -> Result<bool> {
        debug_assert!(length <= PIECE);
        if self.read + length > PIECE {
            self.hand_over()?;
        }
        while self.bytes.len() - self.read < length {
            if self.stream.next(PIECE - self.bytes.len(), &mut self.bytes)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands on the files that were read, and keeps what comes after.
    fn hand_over(&mut self) -> Result<()> {
        self.start += self.read as u64;
        let read = std::mem::take(&mut self.read);
        if self.files.is_empty() {
            self.bytes.drain(..read);
            return Ok(());
        }
        let mut next = self.sink.buffer();
        next.extend_from_slice(&self.bytes[read..]);
        let bytes = std::mem::replace(&mut self.bytes, next);
        self.sink.files(bytes, std::mem::take(&mut self.files))
    }

    /// Reads what stands behind the end mark, which nothing is made of. Returns how long the whole archive is.
    fn drain(&mut self) -> Result<u64> {
        self.hand_over()?;
        loop {
            self.start += self.bytes.len() as u64;
            self.bytes.clear();
            if self.stream.next(PIECE, &mut self.bytes)? == 0 {
                return Ok(self.start);
            }
        }
    }

    /// That the archive has ended within an entry's content.
    fn cut_off(&self, extent: Extent) -> Error {
        if self.start + (self.bytes.len() as u64) < extent.at.saturating_add(extent.size) {
            self.truncated("its content ends early", extent.size, extent.at)
        } else {
            let padded = extent.size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
            self.truncated("its last block is cut off", padded, extent.at)
        }
    }

    /// That the archive has ended, and less than that many bytes came from `at` on.
    fn truncated(&self, missing: &str, length: u64, at: u64) -> Error {
        let size = self.start + self.bytes.len() as u64;
        Error::ArchiveTruncated {
            offset: size,
            reason: format!("{missing} ({length} bytes at byte {at}, of which {} came)", size - at),
        }
    }
}

/// A PAX record that means something to us.
enum Known {
    Path,
    LinkPath,
    Size,
}

impl Header {
    fn name(&self) -> Result<Cow<'_, [u8]>> {
        if self.pax.path.is_some() && self.long_name.is_some() {
            return Err(invalid(self.offset, None, "a PAX record and a long name give the entry two names"));
        }
        if let Some(name) = self.pax.path.as_ref().or(self.long_name.as_ref()) {
            return Ok(name.into());
        }
        let name = until_nul(&self.block.as_old().name);
        // Only POSIX archives have a prefix there; GNU's keep times in its place.
        match self.block.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
            Some(prefix) if !prefix.is_empty() => Ok([prefix, b"/", name].concat().into()),
            _ => Ok(name.into()),
        }
    }

    fn link_target(&self) -> &[u8] {
        let long = self.pax.link_path.as_deref().or(self.long_link.as_deref());
        long.unwrap_or_else(|| until_nul(&self.block.as_old().linkname))
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The header's checksum: the sum of its bytes with its own field as spaces. Some old tars summed signed bytes. It may be
/// written like any octal number, so that only a bit shows whose flip changes what the header says.
fn check(at: u64, block: &tar::Header) -> Result<()> {
    let field = &block.as_old().cksum;
    let sum_of = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte)).sum::<i64>();
    let signed_sum_of = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte.cast_signed())).sum::<i64>();
    let spaces = 8 * i64::from(b' ');
    let told = octal(field).and_then(|told| i64::try_from(told).ok());
    let is_sum = |sum: &dyn Fn(&[u8]) -> i64| told == Some(sum(block.as_bytes()) - sum(field) + spaces);
    if is_sum(&sum_of) || is_sum(&signed_sum_of) {
        return Ok(());
    }
    Err(invalid(
        at,
        None,
        "the header's checksum is wrong: these bytes are no header, or they were damaged on the way",
    ))
}

/// Octal digits, spaces before them and spaces or NULs behind; nothing where there are none.
fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|&byte| byte != b' ')?;
    let digits = &field[start..];
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    let is_number = end > 0 && digits[end..].iter().all(|&byte| byte == 0 || byte == b' ');
    is_number.then(|| digits[..end].iter().fold(0, |value, &digit| value * 8 + u64::from(digit - b'0')))
}

/// A number field: octal digits, or base-256 for what octal cannot hold. Never negative. An empty one is 0.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    if field[0] & 0x80 != 0 {
        // The mark is the topmost bit of the first byte; all others are the number's.
        let (&first, rest) = field.split_first().expect("a field is not empty");
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if first != 0x80 || high.iter().any(|&byte| byte != 0) {
            return Err("is negative or beyond 64 bits");
        }
        return Ok(low.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)));
    }
    if field.iter().all(|&byte| byte == 0 || byte == b' ') {
        return Ok(0);
    }
    octal(field.trim_ascii_start()).ok_or("is no octal number")
}

/// A decimal number without sign, space or superfluous zero.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) || (digits.len() > 1 && digits[0] == b'0')
    {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn too_long(at: u64, size: u64) -> Error {
    invalid(at, None, &format!("a name, link target or size of {size} bytes, longer than any can be"))
}

fn invalid(offset: u64, entry: Option<String>, reason: &str) -> Error {
    Error::ArchiveInvalid { offset, entry, reason: reason.to_owned() }
}
