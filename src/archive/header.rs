//! Writes the headers of an archive: plain GNU tar, so that even the oldest tar programs can read it.

use crate::fs::Meta;

/// The size of a block. Everything in an archive fills whole blocks.
pub const BLOCK: usize = 512;

/// The size of the end-of-archive mark: two blocks of zeros.
pub const END_MARK: usize = 2 * BLOCK;

/// The longest name or link target that fits into the header itself. It fills the field, without a closing
/// NUL.
const SHORT_NAME: usize = 100;

/// The kind of an entry, for its header.
#[derive(Debug, Clone, Copy)]
pub enum Member<'a> {
    /// A folder.
    Folder,
    /// A file, with that many bytes of content after the header.
    File {
        /// Bytes of content.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: &'a [u8],
    },
    /// A further name of a file that precedes it in the archive.
    HardLink {
        /// The earlier name.
        target: &'a [u8],
    },
}

impl<'a> Member<'a> {
    fn target(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Symlink { target } | Self::HardLink { target } => Some(target),
            Self::Folder | Self::File { .. } => None,
        }
    }
}

/// `size` rounded up to whole blocks.
#[must_use]
pub fn padded(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64)
}

/// How many bytes [`write()`] writes for an entry.
#[must_use]
pub fn length(path: &[u8], member: Member<'_>) -> usize {
    let name = path.len() + usize::from(matches!(member, Member::Folder));
    let long =
        |length: usize| if length > SHORT_NAME { BLOCK + (length + 1).next_multiple_of(BLOCK) } else { 0 };
    BLOCK + long(name) + member.target().map_or(0, |target| long(target.len()))
}

/// Writes an entry's headers to the front of `out`, which must be zeroed and at least [`length`] bytes long.
///
/// The owner is 0/0 without names, because a host's users mean nothing in the sandbox. Times before 1970
/// become 0.
pub fn write(out: &mut [u8], path: &[u8], meta: &Meta, member: Member<'_>) {
    let mut rest = out;
    if let Some(target) = member.target() {
        rest = write_long(rest, tar::EntryType::GNULongLink, &[target]);
    }
    let slash: &[u8] = if matches!(member, Member::Folder) { b"/" } else { b"" };
    rest = write_long(rest, tar::EntryType::GNULongName, &[path, slash]);

    let mut header = tar::Header::new_gnu();
    let fields = header.as_old_mut();
    fill(&mut fields.name, &[path, slash]);
    if let Some(target) = member.target() {
        fill(&mut fields.linkname, &[target]);
    }
    let (kind, size) = match member {
        Member::Folder => (tar::EntryType::Directory, 0),
        Member::File { size } => (tar::EntryType::Regular, size),
        Member::Symlink { .. } => (tar::EntryType::Symlink, 0),
        Member::HardLink { .. } => (tar::EntryType::Link, 0),
    };
    // Linux gives every link this mode, and macOS applies the umask. The same tree must give the same bytes.
    let mode = if let Member::Symlink { .. } = member { 0o777 } else { meta.mode & 0o7777 };
    seal(&mut header, kind, mode, size, mtime(meta));
    rest[..BLOCK].copy_from_slice(header.as_bytes());
}

/// The time in an entry's header: seconds since 1970, or 0 for an earlier time.
#[must_use]
pub fn mtime(meta: &Meta) -> u64 {
    u64::try_from(meta.mtime.0).unwrap_or(0)
}

/// Writes a name that does not fit into the header, as the content of an entry before it.
fn write_long<'o>(out: &'o mut [u8], kind: tar::EntryType, parts: &[&[u8]]) -> &'o mut [u8] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length <= SHORT_NAME {
        return out;
    }
    let mut header = tar::Header::new_gnu();
    fill(&mut header.as_old_mut().name, &[b"././@LongLink"]);
    seal(&mut header, kind, 0o644, length as u64 + 1, 0);
    out[..BLOCK].copy_from_slice(header.as_bytes());
    fill(&mut out[BLOCK..BLOCK + length], parts);
    &mut out[BLOCK + (length + 1).next_multiple_of(BLOCK)..]
}

fn seal(header: &mut tar::Header, kind: tar::EntryType, mode: u32, size: u64, mtime: u64) {
    header.set_entry_type(kind);
    let fields = header.as_old_mut();
    octal(&mut fields.mode, mode.into());
    octal(&mut fields.uid, 0);
    octal(&mut fields.gid, 0);
    number(&mut fields.size, size);
    number(&mut fields.mtime, mtime);
    fields.cksum = *b"        ";
    let sum = header.as_bytes().iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut header.as_old_mut().cksum, sum);
}

/// Writes a number in octal digits, which fill the field but for its closing NUL.
fn octal(field: &mut [u8], mut number: u64) {
    let Some((end, digits)) = field.split_last_mut() else { return };
    *end = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b"01234567"[(number & 7) as usize];
        number >>= 3;
    }
}

/// Writes a number in octal digits, or, if it is too large for that, as GNU tar does: in binary, after a bit that says so.
fn number(field: &mut [u8; 12], number: u64) {
    if number >> 33 == 0 {
        octal(field, number);
    } else {
        *field = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        field[4..].copy_from_slice(&number.to_be_bytes());
    }
}

/// Copies as much of the joined parts as fits.
fn fill(field: &mut [u8], parts: &[&[u8]]) {
    for (to, from) in field.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        let file = tempfile::tempfile().unwrap();
        Meta { mode: 0o100_644, mtime: (1_700_000_000, 5), ..Meta::of_file(&file).unwrap() }
    }

    #[test]
    fn an_entry_is_as_long_as_was_said_and_reads_as_it_was_written() {
        let long: &[u8] = &[b'n'; 101];
        let fits: &[u8] = &[b'n'; 100];
        for (name, member, blocks) in [
            (&b"a"[..], Member::File { size: 5 }, 1),
            (b"a", Member::Folder, 1),
            (fits, Member::File { size: 0 }, 1),
            // The slash behind a folder's name counts.
            (fits, Member::Folder, 3),
            (long, Member::File { size: 0 }, 3),
            (b"a", Member::Symlink { target: fits }, 1),
            (b"a", Member::Symlink { target: long }, 3),
            (long, Member::HardLink { target: long }, 5),
            // A name of whole blocks takes one more for its NUL.
            (&[b'n'; 512], Member::File { size: 0 }, 4),
        ] {
            assert_eq!(length(name, member), blocks * BLOCK, "{member:?}");
            let mut bytes = vec![0; blocks * BLOCK];
            write(&mut bytes, name, &meta(), member);
            let content = if let Member::File { size } = member { padded(size) } else { 0 };
            bytes.resize(bytes.len() + usize::try_from(content).unwrap() + END_MARK, 0);
            let mut archive = tar::Archive::new(&bytes[..]);
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            let slash: &[u8] = if let Member::Folder = member { b"/" } else { b"" };
            assert_eq!(&*entry.path_bytes(), [name, slash].concat(), "{member:?}");
            assert_eq!(entry.link_name_bytes().as_deref(), member.target(), "{member:?}");
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
        }
    }

    /// The crate `tar` writes the same fields, for every size of a number.
    #[test]
    fn numbers_are_written_as_other_tars_write_them() {
        for number in [0, 7, 8, 0o7777, (1 << 33) - 1, 1 << 33, u64::from(u32::MAX) << 8, u64::MAX >> 1] {
            for mode in [0, 0o644, 0o7777] {
                let (mut ours, mut theirs) = (tar::Header::new_gnu(), tar::Header::new_gnu());
                seal(&mut ours, tar::EntryType::Regular, mode, number, number);
                theirs.set_entry_type(tar::EntryType::Regular);
                theirs.set_mode(mode);
                theirs.set_uid(0);
                theirs.set_gid(0);
                theirs.set_size(number);
                theirs.set_mtime(number);
                theirs.set_cksum();
                assert!(ours.as_bytes() == theirs.as_bytes(), "{number:o} {mode:o}");
            }
        }
    }

    #[test]
    fn what_is_whole_blocks_already_is_not_padded_and_what_is_before_1970_is_0() {
        for (size, with_padding) in [(0, 0), (1, 512), (511, 512), (512, 512), (513, 1024)] {
            assert_eq!(padded(size), with_padding);
        }
        assert_eq!(mtime(&Meta { mtime: (-1, 0), ..meta() }), 0);
    }
}
