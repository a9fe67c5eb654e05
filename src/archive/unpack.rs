//! Reads an untrusted archive into checked entries.
//!
//! The archive comes from a machine on which an agent had a shell. It is read once, front to back, as a
//! stream, and nothing of it may be restored before its end was reached. An invalid number, a name that leads
//! out of the tree, or an entry that different readers understand differently is refused, never repaired. The
//! contents of files are passed on while they are read, so memory does not grow with them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::header::BLOCK;
use super::source::{PIECE, Stream};
use crate::error::{Error, Result, shown};
use crate::fs::Kind;
use crate::path::{PATH_MAX, PathFault, RelativePath};
use crate::tree::filter::Filter;

/// An entry of an archive that is complete and free of contradictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Its path.
    pub path: RelativePath,
    /// What kind of entry it is.
    pub content: Content,
    /// The offset of the header that came with its content; [`Sink`] gets the same number. Names with the
    /// same offset are hard links to one file or link.
    pub inode: u64,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A folder; without a mode if the archive names only its content.
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

impl Content {
    /// What kind of file it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Folder { .. } => Kind::Folder,
            Self::File { .. } => Kind::File,
            Self::Symlink { .. } => Kind::Symlink,
            Self::Special => Kind::Other,
        }
    }
}

/// A whole archive that was checked.
#[derive(Debug, Default)]
pub struct Archive {
    /// Its entries in byte order of their paths, with all folders above them.
    pub entries: Vec<Unpacked>,
    /// Whether it had any entry at all, even if only `./`, which is what an empty workspace's archive has.
    pub held_anything: bool,
    /// The content of the control file, if one was asked for and the archive has it.
    pub control: Option<Vec<u8>>,
}

impl Archive {
    /// The entry with that path.
    #[must_use]
    pub fn get(&self, path: &RelativePath) -> Option<&Unpacked> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok().map(|at| &self.entries[at])
    }

    /// Adds folders that are known from elsewhere, with their modes. A folder that the archive has gets that
    /// mode; anything else of that name stays.
    pub fn add_folders<'p>(&mut self, folders: impl Iterator<Item = (&'p RelativePath, u32)>) {
        let mut further = Vec::new();
        for (path, mode) in folders {
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

/// The largest size that a header can tell without a PAX record or base-256: 8 GiB - 1.
const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;

/// How many bytes the names of implied folders may have per byte of the archive.
///
/// A few names with a thousand levels each could otherwise grow into gigabytes. An ordinary archive stays far
/// below, because it has an entry for the content of each folder.
const IMPLIED_BYTES_PER_BYTE: u64 = 4;
/// How many bytes any archive may imply, however small it is: enough for one path of the greatest length.
const IMPLIED_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// How long a name, a link target or a record that we use may be in an archive.
///
/// A valid path is much shorter. But a longer spelling of it, with superfluous dots and slashes, is accepted
/// up to this length.
const NAME_MAX: u64 = 64 * 1024;

/// How far into a PAX record its key may reach.
const KEY_MAX: u64 = 4096;

/// The largest size of the control file.
pub const CONTROL_MAX: u64 = 256 * 1024 * 1024;

/// Reads and checks a whole archive, and passes the contents of its files to `sink` while they are read.
///
/// Entries that `filter` leaves out are checked like all others and then dropped. What follows the
/// end-of-archive mark is read and ignored. A regular file at the path `control` does not belong to the tree:
/// its content is [`Archive::control`]. (It is not found if that path is a further name of another file.)
pub fn unpack(
    stream: &mut dyn Stream,
    control: Option<&RelativePath>,
    filter: &Filter<'_>,
    sink: &mut dyn Sink,
) -> Result<Archive> {
    let bytes = sink.buffer();
    let mut reader = Reader {
        stream,
        sink,
        filter,
        control_path: control,
        control: None,
        bytes,
        read: 0,
        start: 0,
        files: Vec::new(),
        found: Vec::new(),
        open: Vec::new(),
        by_path: None,
    };
    let mut held_anything = false;
    while let Some(header) = reader.header()? {
        held_anything |= reader.entry(&header)?;
    }
    let size = reader.drain()?;
    let Reader { mut found, control: control_file, .. } = reader;
    // The sort is stable: of two entries with one name, the last one counts.
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
    let control = match (control, control_file) {
        (Some(found), Some(control_file)) if found.entry.inode == control_file.inode => {
            Some(control_file.into_content(&found)?)
        }
        _ => None,
    };
    entries.retain(|found| !found.ignored);
    Ok(Archive { entries: with_folders(entries, size)?, held_anything, control })
}

impl Control {
    fn into_content(self, found: &Found) -> Result<Vec<u8>> {
        let Self { size, content, .. } = self;
        if size > CONTROL_MAX {
            let reason = format!("it has {size} bytes; the maximum is {CONTROL_MAX}");
            let entry = Some(shown(found.entry.path.as_bytes()));
            return Err(Error::ArchiveInvalid { offset: found.offset, entry, reason });
        }
        Ok(content)
    }
}

/// Adds the folders that the archive only implies. Refuses an entry below something that is not a folder.
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
                    // The folders above this one are checked when it is this one's turn.
                    Some(Unpacked { content: Content::Folder { .. }, .. }) => break,
                    Some(_) => {
                        return Err(Error::UnsafePath {
                            path: shown(entry.path.as_bytes()),
                            offset: Some(*offset),
                            reason: format!(
                                "the archive has it below \"{}\", which is not a folder in the same archive; \
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
                    reason: "it implies far more directories than it has entries".to_owned(),
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

/// Takes the contents of an archive's files while it is read. At that time it is not known whether the
/// archive is complete.
pub trait Sink {
    /// Whether the archive may lack files that could not be read. Busybox and toybox then still have further names of them as hard
    /// links, which are passed over.
    fn may_lack_files(&self) -> bool {
        false
    }

    /// Returns an empty buffer for the next bytes; it may be one that was passed on before.
    fn buffer(&mut self) -> Vec<u8>;

    /// Takes whole files of at most one [`PIECE`] each, whose contents are in `bytes`.
    fn files(&mut self, bytes: Vec<u8>, files: Vec<StreamedFile>) -> Result<()>;

    /// Takes the next bytes of a file that is longer than a [`PIECE`]. Those of other files may come in between. If
    /// the archive is truncated, the last ones never come.
    fn part(&mut self, file: &StreamedFile, bytes: Vec<u8>) -> Result<()>;

    /// Takes a way to read bytes of a file again that are passed on later: those behind its first `before` ones. It comes before
    /// the first [`Sink::part`] of the file.
    fn again(&mut self, _file: &StreamedFile, _before: usize, _rest: Box<dyn Stream>) {}

    /// Takes the whole content of a control file as soon as it was read. If another one follows, that one
    /// counts.
    fn control(&mut self, content: &[u8]);
}

/// A file whose content is being read.
#[derive(Debug, Clone)]
pub struct StreamedFile {
    /// The offset of its header, as in [`Unpacked::inode`].
    pub inode: u64,
    /// Its first name.
    pub path: RelativePath,
    /// Mode bits `07777`.
    pub mode: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Whether its first name is wanted, so it is not dropped.
    pub wanted: bool,
    /// Where its content is in the bytes that are passed on together with it.
    pub range: Range<usize>,
}

/// An entry that was read.
struct Found {
    /// The offset of its header.
    offset: u64,
    /// Whether it is checked like the others and then dropped.
    ignored: bool,
    entry: Unpacked,
}

/// How many files are read side by side: the pieces of one can be hashed only one after the other.
const OPEN_FILES: usize = 3;

/// Reads an archive once, from its first byte to its last. Large files that are all there are read side by side.
struct Reader<'a> {
    stream: &'a mut dyn Stream,
    sink: &'a mut dyn Sink,
    filter: &'a Filter<'a>,
    /// The path of the control file.
    control_path: Option<&'a RelativePath>,
    /// The last control file so far.
    control: Option<Control>,
    /// The bytes of the stream that came last, at most one piece.
    bytes: Vec<u8>,
    /// How many of them were read.
    read: usize,
    /// The offset of their first one in the archive.
    start: u64,
    /// The whole files among the bytes that were read.
    files: Vec<StreamedFile>,
    found: Vec<Found>,
    /// Files that are longer than a piece, with what is still to be read of them.
    open: Vec<(StreamedFile, Box<dyn Stream>)>,
    /// The last index in `found` of each path; made for the first hard link.
    by_path: Option<HashMap<RelativePath, usize>>,
}

/// A control file: a regular file that does not belong to the tree.
struct Control {
    inode: u64,
    size: u64,
    /// Its content so far, unless it is too long.
    content: Vec<u8>,
}

/// Where the content of an entry is in the archive, without its padding.
#[derive(Clone, Copy)]
struct Extent {
    at: u64,
    size: u64,
}

impl Extent {
    /// The end of its last block. If that exceeds all numbers, no archive reaches it.
    fn padded_end(self) -> u64 {
        let padded = self.size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
        self.at.saturating_add(padded)
    }
}

/// A header, with everything that precedes it and belongs to it.
struct Header {
    /// The offset of its first block, including a long name or PAX header.
    offset: u64,
    /// The offset of its own block.
    at: u64,
    block: tar::Header,
    /// The value of its size field.
    size: u64,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Pax,
}

/// The PAX records that change an entry.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link_path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Reader<'_> {
    /// Reads the next entry's header; `None` at the end-of-archive mark.
    fn header(&mut self) -> Result<Option<Header>> {
        let offset = self.at();
        let (mut long_name, mut long_link, mut pax) = (None, None, None);
        loop {
            let at = self.at();
            let block = self.block("a header or the end mark is missing")?;
            if block.iter().all(|&byte| byte == 0) {
                if long_name.is_some() || long_link.is_some() || pax.is_some() {
                    return Err(invalid(offset, None, "a long name or PAX record belongs to no entry"));
                }
                let second = self.block("the end mark is two blocks of zeros, and one is missing")?;
                if second.iter().all(|&byte| byte == 0) {
                    return Ok(None);
                }
                return Err(invalid(at, None, "a single block of zeros; the end mark is two"));
            }
            let block = tar::Header::from_byte_slice(&block);
            check(at, block)?;
            let size = number(&block.as_old().size).map_err(|fault| {
                let name = long_name.as_deref().unwrap_or_else(|| until_nul(&block.as_old().name));
                invalid(at, Some(shown(name)), &format!("its size {fault}"))
            })?;
            let twice = |what| invalid(at, None, &format!("{what} precedes one entry twice"));
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

    /// Reads an entry. Returns `false` for a volume label, which no tar restores.
    fn entry(&mut self, header: &Header) -> Result<bool> {
        let old = header.block.as_old();
        let offset = header.offset;
        if old.linkflag[0] == b'V' {
            // The name of a volume label is not a path.
            self.skip(self.extent(header.size))?;
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
            // The oldest archives mark a folder only by a slash at the end of its name.
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
            return Err(refuse("it is not a file, but has a size"));
        }
        let size = match header.pax.size {
            Some(size) if header.size != 0 && header.size != size && size <= OCTAL_SIZE_MAX => {
                return Err(refuse(&format!("its header says {} bytes, its PAX record {size}", header.size)));
            }
            Some(size) => size,
            None => header.size,
        };
        let mut inode = offset;
        let content = match kind {
            b'0' => {
                let wanted = !path.as_ref().is_some_and(|path| self.filter.leaves_out(path, Kind::File));
                let streamed = |path| StreamedFile { inode, path, mode, size, wanted, range: 0..0 };
                self.file(path.clone().map(streamed), size)?;
                Content::File { mode }
            }
            b'5' => Content::Folder { mode: Some(mode) },
            b'D' => {
                // A folder in an incremental archive. Its content lists the names that were in it, for a tar
                // that deletes all others.
                self.skip(self.extent(size))?;
                Content::Folder { mode: Some(mode) }
            }
            b'2' => {
                let target = header.link_target();
                if target.is_empty() || target.contains(&0) || target.len() > PATH_MAX {
                    return Err(refuse("a link target that no file system allows"));
                }
                Content::Symlink { target: target.into() }
            }
            b'1' => {
                let Some((content, linked)) = self.hard_link(header, &name)? else { return Ok(true) };
                inode = linked;
                content
            }
            _ => Content::Special,
        };
        match path {
            Some(path) => {
                if let Some(by_path) = &mut self.by_path {
                    by_path.insert(path.clone(), self.found.len());
                }
                let ignored = self.filter.leaves_out(&path, content.kind());
                self.found.push(Found { offset, ignored, entry: Unpacked { path, content, inode } });
            }
            None if matches!(content, Content::Folder { .. }) => {}
            None => return Err(refuse("the workspace itself as something other than a directory")),
        }
        Ok(true)
    }

    /// Resolves a hard link: its target must be a file or link that precedes it. `None` where that could not be read in the sandbox.
    fn hard_link(&mut self, header: &Header, name: &[u8]) -> Result<Option<(Content, u64)>> {
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
            Some(Unpacked { content: Content::Folder { .. }, .. }) => {
                Err(refuse("a hard link to a directory"))
            }
            Some(Unpacked { content, inode, .. }) => Ok(Some((content.clone(), *inode))),
            None if self.sink.may_lack_files() => Ok(None),
            None => Err(refuse(&format!(
                "a hard link to \"{}\", which does not precede it in the archive",
                shown(target)
            ))),
        }
    }

    /// Reads the content of a long-name entry: the name with a closing NUL.
    fn long(&mut self, at: u64, size: u64) -> Result<Vec<u8>> {
        let extent = self.extent(size);
        if size > NAME_MAX {
            self.skip(extent)?;
            return Err(too_long(at, size));
        }
        let mut name = self.next_of(extent, size)?.to_vec();
        self.skip(extent)?;
        name.pop_if(|last| *last == 0);
        Ok(name)
    }

    /// Reads PAX records: `<length> <key>=<value>\n`, where the length counts everything. Only records that
    /// we use are copied.
    fn pax(&mut self, header: u64, size: u64) -> Result<Pax> {
        let extent = self.extent(size);
        let pax = self.records(header, extent);
        // A truncation is reported rather than an error in the records.
        self.skip(extent)?;
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
                b"path" => Some(UsedRecord::Path),
                b"linkpath" => Some(UsedRecord::LinkPath),
                b"size" => Some(UsedRecord::Size),
                // Times, owners, attributes and comments are not restored.
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
                    UsedRecord::Path => pax.path = Some(value),
                    UsedRecord::LinkPath => pax.link_path = Some(value),
                    UsedRecord::Size => pax.size = Some(decimal(&value).ok_or_else(malformed)?),
                }
            }
            self.skip_to(extent, at + last)?;
            if self.next_of(extent, 1)? != b"\n" {
                return Err(malformed());
            }
            self.read += 1;
        }
        Ok(pax)
    }

    /// Reads the content of a file and passes it on. A file with the workspace's own name is only skipped; it
    /// is refused later.
    fn file(&mut self, file: Option<StreamedFile>, size: u64) -> Result<()> {
        let extent = self.extent(size);
        let Some(mut file) = file else { return self.skip(extent) };
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
        self.skip(extent)?;
        if let Some(control) = self.control.as_ref().filter(|_| is_control && size <= CONTROL_MAX) {
            self.sink.control(&control.content);
        }
        Ok(())
    }

    /// Passes on a file that is longer than a piece.
    fn parts(&mut self, extent: Extent, file: &StreamedFile, is_control: bool) -> Result<()> {
        self.pass_on()?;
        let unread = file.size - self.bytes.len() as u64;
        if !is_control && let Some(rest) = self.stream.split_off(unread) {
            self.start += file.size;
            let first = std::mem::replace(&mut self.bytes, self.sink.buffer());
            if let Some(again) = rest.again() {
                self.sink.again(file, first.len(), again);
            }
            if !first.is_empty() {
                self.sink.part(file, first)?;
            }
            self.open.push((file.clone(), rest));
            return self.read_open(OPEN_FILES);
        }
        let mut rest = file.size;
        while rest > 0 {
            let length = usize::try_from(rest).map_or(PIECE, |rest| rest.min(PIECE));
            // No bytes beyond this file are read, so the whole buffer can be passed on.
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

    /// Reads on in the files that were split off, a piece of each in turn, until no more than `most` are left.
    fn read_open(&mut self, most: usize) -> Result<()> {
        let mut next = 0;
        while self.open.len() > most {
            next %= self.open.len();
            let (file, rest) = &mut self.open[next];
            let mut bytes = self.sink.buffer();
            if rest.next(PIECE, &mut bytes)? == 0 {
                self.open.remove(next);
            } else {
                self.sink.part(file, bytes)?;
                next += 1;
            }
        }
        Ok(())
    }

    /// The offset of the next byte to be read.
    fn at(&self) -> u64 {
        self.start + self.read as u64
    }

    /// Content of that size, starting with the next byte.
    fn extent(&self, size: u64) -> Extent {
        Extent { at: self.at(), size }
    }

    /// Skips the rest of an entry's content, and its padding.
    fn skip(&mut self, extent: Extent) -> Result<()> {
        self.skip_to(extent, extent.padded_end())
    }

    /// Skips everything before that offset.
    fn skip_to(&mut self, extent: Extent, end: u64) -> Result<()> {
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

    /// The next bytes of an entry's content, at most one piece. They still count as unread.
    fn next_of(&mut self, extent: Extent, length: u64) -> Result<&[u8]> {
        let length = usize::try_from(length).expect("it is no more than a piece");
        if !self.fill(length)? {
            return Err(self.cut_off(extent));
        }
        Ok(&self.bytes[self.read..self.read + length])
    }

    /// Reads from the stream until that many unread bytes (at most one piece) are there. Returns `false` if
    /// the archive ends before.
    fn fill(&mut self, length: usize) -> Result<bool> {
        debug_assert!(length <= PIECE);
        if self.read + length > PIECE {
            self.pass_on()?;
        }
        while self.bytes.len() - self.read < length {
            if self.stream.next(PIECE - self.bytes.len(), &mut self.bytes)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes on the files that were read, and keeps the unread bytes.
    fn pass_on(&mut self) -> Result<()> {
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

    /// Reads and ignores what follows the end-of-archive mark. Returns the length of the whole archive.
    fn drain(&mut self) -> Result<u64> {
        self.pass_on()?;
        self.read_open(0)?;
        loop {
            self.start += self.bytes.len() as u64;
            self.bytes.clear();
            if self.stream.next(PIECE, &mut self.bytes)? == 0 {
                return Ok(self.start);
            }
        }
    }

    /// The error for an archive that ends within an entry's content.
    fn cut_off(&self, extent: Extent) -> Error {
        if self.start + (self.bytes.len() as u64) < extent.at.saturating_add(extent.size) {
            self.truncated("its content ends early", extent.size, extent.at)
        } else {
            let padded = extent.size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
            self.truncated("its last block is cut off", padded, extent.at)
        }
    }

    /// The error for an archive that ends less than `length` bytes after `at`.
    fn truncated(&self, missing: &str, length: u64, at: u64) -> Error {
        let size = self.start + self.bytes.len() as u64;
        Error::ArchiveTruncated {
            offset: size,
            reason: format!("{missing} ({length} bytes at byte {at}, of which {} came)", size - at),
        }
    }
}

/// A PAX record that we use.
enum UsedRecord {
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
        // Only POSIX archives have a prefix there; GNU archives have times in its place.
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

/// Checks the header's checksum: the sum of its bytes, with spaces in place of the checksum itself.
///
/// Some old tars add up signed bytes. The field may have any form of an octal number, so a flipped bit is
/// noticed only if it changes a value.
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
        "the header's checksum is wrong: these bytes are not a header, or were damaged in the transfer",
    ))
}

/// Parses octal digits, with spaces before them and spaces or NULs behind. `None` if there are none.
fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|&byte| byte != b' ')?;
    let digits = &field[start..];
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    let is_number = end > 0 && digits[end..].iter().all(|&byte| byte == 0 || byte == b' ');
    is_number.then(|| digits[..end].iter().fold(0, |value, &digit| value * 8 + u64::from(digit - b'0')))
}

/// Parses a number field: octal digits, or base-256 for larger numbers. Never negative. An empty field is 0.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    if field[0] & 0x80 != 0 {
        // The topmost bit of the first byte marks base-256; all other bits are the number.
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
    octal(field.trim_ascii_start()).ok_or("is not an octal number")
}

/// Parses a decimal number without sign, space or superfluous zero.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) || (digits.len() > 1 && digits[0] == b'0')
    {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn too_long(at: u64, size: u64) -> Error {
    invalid(at, None, &format!("a name, link target or size of {size} bytes, which is too long"))
}

fn invalid(offset: u64, entry: Option<String>, reason: &str) -> Error {
    Error::ArchiveInvalid { offset, entry, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_tars_write_them() {
        let largest = [&[0x80, 0, 0, 0][..], &u64::MAX.to_be_bytes()].concat();
        let table: &[(&[u8], Result<u64, &str>)] = &[
            (b"0000644\0", Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"644\0\0\0\0\0", Ok(0o644)),
            (b"77777777", Ok(0o7777_7777)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"        ", Ok(0)),
            (b"0000648\0", Err("is not an octal number")),
            (b"64 4\0\0\0\0", Err("is not an octal number")),
            (b"-1\0\0\0\0\0\0", Err("is not an octal number")),
            (&largest, Ok(u64::MAX)),
            (b"\x80\0\0\0\0\0\x01\0", Ok(256)),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", Err("is negative or beyond 64 bits")),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Err("is negative or beyond 64 bits")),
        ];
        for (field, expected) in table {
            assert_eq!(number(field), *expected, "{field:?}");
        }
        for (digits, expected) in [
            (&b"0"[..], Some(0)),
            (b"12", Some(12)),
            (b"", None),
            (b"012", None),
            (b"+1", None),
            (b" 1", None),
            (b"99999999999999999999", None),
        ] {
            assert_eq!(decimal(digits), expected, "{digits:?}");
        }
    }
}
