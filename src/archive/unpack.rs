//! Untrusted bytes → checked entries.
//!
//! The archive comes from a machine on which an agent had a shell. All of it is read once, front to back, and
//! nothing is taken from it before its end mark has been reached: a number that is not one, a name that leads
//! somewhere, an entry that some readers would take for one thing and some for another is refused, never repaired.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use rayon::prelude::*;

use super::header::{BLOCK, padded};
use crate::error::{Error, Result, readable};
use crate::path::{PATH_MAX, PathFault, RelativePath};

/// One entry of an archive that is complete and free of contradictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Where.
    pub path: RelativePath,
    /// What.
    pub content: Content,
}

/// What an entry of the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A folder; no mode where the archive only names what is in it.
    Dir {
        /// Mode bits `07777`.
        mode: Option<u32>,
    },
    /// A regular file, or a further name of one.
    File {
        /// Mode bits `07777`.
        mode: u32,
        /// Where its content stands in the archive.
        bytes: Range<usize>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Box<[u8]>,
    },
    /// A device or FIFO, which is never restored.
    Special,
}

/// A whole archive, checked.
#[derive(Debug)]
pub struct Archive {
    /// Its entries in byte order of their paths, each with all folders above it.
    pub entries: Vec<Unpacked>,
    /// Whether it held any entry at all, were it only `./`: an empty workspace says so by that one.
    pub held_anything: bool,
    /// The content of the file that was asked for by its path, which is not one of the entries.
    pub control: Option<Vec<u8>>,
}

impl Archive {
    /// The entry of that path.
    #[must_use]
    pub fn get(&self, path: &RelativePath) -> Option<&Unpacked> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok().map(|at| &self.entries[at])
    }
}

/// The largest size that a header tells without a PAX record or base-256: 8 GiB - 1.
const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;

/// How long the names of folders that are only implied may be in all: a few names of a thousand levels each would
/// otherwise grow into gigabytes. No tree comes near it whose archive has an entry for what is in each folder.
const IMPLIED_BYTES_PER_BYTE: usize = 4;
/// What any archive may imply, however small: one path as long as a path can be.
const IMPLIED_BYTES_MIN: usize = 4 * 1024 * 1024;

/// Reads and checks a whole archive. Entries for which `ignore` holds are checked like all others and then dropped;
/// what stands behind the end mark is not looked at.
pub fn unpack(
    archive: &[u8],
    ignore: &dyn Fn(&RelativePath) -> bool,
    control: Option<&RelativePath>,
) -> Result<Archive> {
    let mut reader = Reader { archive, at: 0, found: Vec::new(), by_path: None };
    let mut held_anything = false;
    while let Some(header) = reader.header()? {
        held_anything |= reader.entry(&header)?;
    }
    let mut found = reader.found;
    // Stable: of two entries with one name, the last counts.
    found.par_sort_by(|a, b| a.1.path.cmp(&b.1.path));
    let mut entries: Vec<(u64, Unpacked)> = Vec::with_capacity(found.len());
    for entry in found {
        match entries.last_mut() {
            Some(last) if last.1.path == entry.1.path => *last = entry,
            _ => entries.push(entry),
        }
    }
    let mut content = None;
    entries.retain(|(_, entry)| {
        if Some(&entry.path) == control {
            if let Content::File { bytes, .. } = &entry.content {
                content = Some(archive[bytes.clone()].to_vec());
            }
            return false;
        }
        !ignore(&entry.path)
    });
    Ok(Archive { entries: with_folders(entries, archive.len())?, held_anything, control: content })
}

/// Adds the folders that the archive only implies, and refuses what lies below something that is no folder.
fn with_folders(entries: Vec<(u64, Unpacked)>, archive_size: usize) -> Result<Vec<Unpacked>> {
    let mut implied = BTreeSet::new();
    let mut implied_bytes = 0;
    {
        let find = |path: &[u8]| {
            entries
                .binary_search_by(|(_, entry)| entry.path.as_bytes().cmp(path))
                .ok()
                .map(|at| &entries[at].1)
        };
        let mut known: &[u8] = &[];
        for (offset, entry) in &entries {
            let (folder, _) = entry.path.split();
            if folder == known {
                continue;
            }
            known = folder;
            let mut next = entry.path.parent();
            while let Some(above) = next {
                match find(above.as_bytes()) {
                    // What is above this one is looked at on its own turn.
                    Some(Unpacked { content: Content::Dir { .. }, .. }) => break,
                    Some(_) => {
                        return Err(Error::UnsafePath {
                            path: entry.path.to_string(),
                            offset: Some(*offset),
                            reason: format!(
                                "the archive has it below {above:?}, which is no folder in the same archive; \
                                 nothing was changed"
                            ),
                        });
                    }
                    None => {}
                }
                next = above.parent();
                implied_bytes += above.as_bytes().len();
                if !implied.insert(above) {
                    break;
                }
            }
            if implied_bytes > IMPLIED_BYTES_MIN + IMPLIED_BYTES_PER_BYTE * archive_size {
                return Err(Error::ArchiveInvalid {
                    offset: *offset,
                    entry: Some(entry.path.to_string()),
                    reason: "it implies far more folders than it has entries for".to_owned(),
                });
            }
        }
    }
    let mut entries: Vec<Unpacked> = entries.into_iter().map(|(_, entry)| entry).collect();
    if !implied.is_empty() {
        entries
            .extend(implied.into_iter().map(|path| Unpacked { path, content: Content::Dir { mode: None } }));
        entries.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(entries)
}

struct Reader<'a> {
    archive: &'a [u8],
    at: usize,
    /// The entries so far, each with the offset of its header.
    found: Vec<(u64, Unpacked)>,
    /// Where in `found` each path was last; made when the first hard link asks.
    by_path: Option<HashMap<RelativePath, usize>>,
}

/// A header with all that stood before it on its behalf.
struct Header<'a> {
    /// Where its first block begins, that of a long name or PAX record included.
    offset: usize,
    block: &'a tar::Header,
    long_name: Option<&'a [u8]>,
    long_link: Option<&'a [u8]>,
    pax: Pax<'a>,
}

/// The PAX records that change what an entry is.
#[derive(Default)]
struct Pax<'a> {
    path: Option<&'a [u8]>,
    link_path: Option<&'a [u8]>,
    size: Option<u64>,
}

impl<'a> Reader<'a> {
    /// The next entry's header; `None` at the end mark.
    fn header(&mut self) -> Result<Option<Header<'a>>> {
        let offset = self.at;
        let (mut long_name, mut long_link, mut pax) = (None, None, None);
        loop {
            let at = self.at;
            let block = self.take(BLOCK as u64, "a header was due, and no end mark has come")?;
            if block.iter().all(|&byte| byte == 0) {
                if long_name.is_some() || long_link.is_some() || pax.is_some() {
                    return Err(invalid(offset, None, "a long name or PAX record belongs to no entry"));
                }
                let second = self.take(BLOCK as u64, "the end mark is two blocks of zeros, and one came")?;
                if second.iter().all(|&byte| byte == 0) {
                    return Ok(None);
                }
                return Err(invalid(at, None, "a lone block of zeros, where the end mark is two"));
            }
            let block = tar::Header::from_byte_slice(block);
            check(at, block)?;
            let size = number(&block.as_old().size, at, "size")?;
            let twice = |what| invalid(at, None, &format!("{what} stands twice for one entry"));
            match block.as_old().linkflag[0] {
                b'L' if long_name.is_some() => return Err(twice("a long name")),
                b'K' if long_link.is_some() => return Err(twice("a long link target")),
                b'x' if pax.is_some() => return Err(twice("a PAX header")),
                b'L' => long_name = Some(self.long(size)?),
                b'K' => long_link = Some(self.long(size)?),
                b'x' => pax = Some(read_pax(self.content(size)?, at)?),
                b'g' => {
                    let global = read_pax(self.content(size)?, at)?;
                    if global.path.is_some() || global.link_path.is_some() || global.size.is_some() {
                        return Err(invalid(
                            at,
                            None,
                            "a global PAX header gives every entry one name or size",
                        ));
                    }
                }
                _ => {
                    return Ok(Some(Header {
                        offset,
                        block,
                        long_name,
                        long_link,
                        pax: pax.unwrap_or_default(),
                    }));
                }
            }
        }
    }

    /// Takes in one entry. `false` for an entry that says nothing.
    fn entry(&mut self, header: &Header<'a>) -> Result<bool> {
        let old = header.block.as_old();
        let offset = header.offset;
        let name = header.name()?;
        let shown = readable(&name);
        let refuse = |reason: &str| invalid(offset, Some(shown.clone()), reason);
        let unsafe_path = |fault: PathFault| Error::UnsafePath {
            path: shown.clone(),
            offset: Some(offset as u64),
            reason: format!("{fault}; the archive is refused and nothing was changed"),
        };
        let path = RelativePath::parse(&name).map_err(unsafe_path)?;
        let at = self.at - BLOCK;
        let mode = u32::try_from(number(&old.mode, at, "mode")? & 0o7777).unwrap_or(0);
        let header_size = number(&old.size, at, "size")?;
        let kind = match old.linkflag[0] {
            // The oldest archives tell a folder by its slash alone.
            b'0' | 0 if name.ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            kind @ b'0'..=b'6' => kind,
            b'S' => return Err(refuse("a sparse file; archive it without --sparse")),
            other => return Err(refuse(&format!("an entry of unknown type {:?}", char::from(other)))),
        };
        if kind != b'0' && (header_size != 0 || header.pax.size.is_some_and(|size| size != 0)) {
            return Err(refuse("it is no file and yet has a size"));
        }
        let size = match header.pax.size {
            Some(size) if header_size != 0 && header_size != size && size <= OCTAL_SIZE_MAX => {
                return Err(refuse(&format!("its header says {header_size} bytes, its PAX record {size}")));
            }
            Some(size) => size,
            None => header_size,
        };
        let content = match kind {
            b'0' => {
                let start = self.at;
                self.content(size)?;
                Content::File { mode, bytes: start..start + usize::try_from(size).expect("it was taken") }
            }
            b'5' => Content::Dir { mode: Some(mode) },
            b'2' => {
                let target = header.link_target();
                if target.is_empty() || target.contains(&0) || target.len() > PATH_MAX {
                    return Err(refuse("a link target that no file system can hold"));
                }
                Content::Symlink { target: target.into() }
            }
            b'1' => self.hard_link(header, &shown)?,
            _ => Content::Special,
        };
        match path {
            Some(path) => {
                if let Some(by_path) = &mut self.by_path {
                    by_path.insert(path.clone(), self.found.len());
                }
                self.found.push((offset as u64, Unpacked { path, content }));
            }
            None if matches!(content, Content::Dir { .. }) => {}
            None => return Err(refuse("the workspace itself as something other than a folder")),
        }
        Ok(true)
    }

    /// What a hard link names: a file or link that stands before it.
    fn hard_link(&mut self, header: &Header<'a>, shown: &str) -> Result<Content> {
        let target = header.link_target();
        let refuse = |reason: &str| invalid(header.offset, Some(shown.to_owned()), reason);
        let path = RelativePath::parse(target).map_err(|fault| Error::UnsafePath {
            path: readable(target),
            offset: Some(header.offset as u64),
            reason: format!("{fault}, as the target of the hard link {shown:?}; nothing was changed"),
        })?;
        let by_path = self.by_path.get_or_insert_with(|| {
            self.found.iter().enumerate().map(|(at, (_, entry))| (entry.path.clone(), at)).collect()
        });
        match path.and_then(|path| by_path.get(&path)).map(|&at| &self.found[at].1.content) {
            Some(content @ (Content::File { .. } | Content::Symlink { .. } | Content::Special)) => {
                Ok(content.clone())
            }
            Some(Content::Dir { .. }) => Err(refuse("a hard link to a folder")),
            None => Err(refuse(&format!(
                "a hard link to {:?}, which does not stand before it in the archive",
                readable(target)
            ))),
        }
    }

    /// The content of a long-name entry: the name with a closing NUL.
    fn long(&mut self, size: u64) -> Result<&'a [u8]> {
        let content = self.content(size)?;
        Ok(content.strip_suffix(b"\0").unwrap_or(content))
    }

    /// Content of `size` bytes; the padding after it is passed over.
    fn content(&mut self, size: u64) -> Result<&'a [u8]> {
        let start = self.at;
        let content = self.take(size, "its content ends early")?;
        self.at = start;
        self.take(padded(size), "its last block is cut off")?;
        Ok(content)
    }

    fn take(&mut self, length: u64, missing: &str) -> Result<&'a [u8]> {
        let rest = &self.archive[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(Error::ArchiveTruncated {
                offset: self.archive.len() as u64,
                reason: format!(
                    "{missing} ({length} bytes at byte {}, of which {} came)",
                    self.at,
                    rest.len()
                ),
            }),
        }
    }
}

impl<'a> Header<'a> {
    fn name(&self) -> Result<std::borrow::Cow<'a, [u8]>> {
        if self.pax.path.is_some() && self.long_name.is_some() {
            return Err(invalid(self.offset, None, "a PAX record and a long name give the entry two names"));
        }
        if let Some(name) = self.pax.path.or(self.long_name) {
            return Ok(name.into());
        }
        let name = until_nul(&self.block.as_old().name);
        // Only POSIX archives have a prefix there; GNU's keep times in its place.
        match self.block.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
            Some(prefix) if !prefix.is_empty() => Ok([prefix, b"/", name].concat().into()),
            _ => Ok(name.into()),
        }
    }

    fn link_target(&self) -> &'a [u8] {
        self.pax.link_path.or(self.long_link).unwrap_or_else(|| until_nul(&self.block.as_old().linkname))
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The header's checksum: the sum of its bytes with its own field as spaces, in one of the forms that tars write (six
/// octal digits, then NUL and space in either order; or seven and NUL). Any flipped bit shows.
fn check(at: usize, block: &tar::Header) -> Result<()> {
    let field = &block.as_old().cksum;
    let sum = block.as_bytes().iter().map(|&byte| u32::from(byte)).sum::<u32>()
        - field.iter().map(|&byte| u32::from(byte)).sum::<u32>()
        + 8 * u32::from(b' ');
    if [format!("{sum:06o}\0 "), format!("{sum:06o} \0"), format!("{sum:07o}\0")]
        .iter()
        .any(|form| form.as_bytes() == field)
    {
        return Ok(());
    }
    Err(invalid(
        at,
        None,
        "the header's checksum is wrong: these bytes are no header, or they were damaged on the way",
    ))
}

/// A number field: octal digits, or base-256 for what octal cannot hold. Never negative.
fn number(field: &[u8], at: usize, what: &str) -> Result<u64> {
    let bad = |reason| invalid(at, None, &format!("its {what} {reason}"));
    if field[0] & 0x80 != 0 {
        // The mark is the topmost bit of the first byte; all others are the number's.
        let (&first, rest) = field.split_first().expect("a field is not empty");
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if first != 0x80 || high.iter().any(|&byte| byte != 0) {
            return Err(bad("is negative or beyond 64 bits"));
        }
        return Ok(low.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    if digits[end..].iter().any(|&byte| byte != 0 && byte != b' ') {
        return Err(bad("is no octal number"));
    }
    Ok(digits[..end].iter().fold(0, |value, &digit| value * 8 + u64::from(digit - b'0')))
}

/// PAX records: `<length> <key>=<value>\n`, the length counting all of it.
fn read_pax(records: &[u8], at: usize) -> Result<Pax<'_>> {
    let malformed = || invalid(at, None, "a malformed PAX record");
    let mut pax = Pax::default();
    let mut rest = records;
    while !rest.is_empty() {
        let space = rest.iter().position(|&byte| byte == b' ').ok_or_else(malformed)?;
        let length =
            usize::try_from(decimal(&rest[..space]).ok_or_else(malformed)?).map_err(|_| malformed())?;
        let record = rest.get(space + 1..length).ok_or_else(malformed)?;
        rest = &rest[length..];
        let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => pax.path = Some(value),
            b"linkpath" => pax.link_path = Some(value),
            b"size" => pax.size = Some(decimal(value).ok_or_else(malformed)?),
            b"" => return Err(malformed()),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(invalid(at, None, "a sparse file; archive it without --sparse"));
            }
            // Times, owners, attributes, comments: none of them is restored.
            _ => {}
        }
    }
    Ok(pax)
}

/// A decimal number without sign, space or superfluous zero.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) || (digits.len() > 1 && digits[0] == b'0')
    {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn invalid(offset: usize, entry: Option<String>, reason: &str) -> Error {
    Error::ArchiveInvalid { offset: offset as u64, entry, reason: reason.to_owned() }
}
