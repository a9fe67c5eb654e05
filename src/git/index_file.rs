//! Checks the file of an index that is taken over as it is, with `git: "files"`.
//!
//! Git writes a file wherever an entry of its index says, also below `.git`: a hook, for example. It checks a path when that is
//! added to an index, and not when the index is read. Pure: the format is that of git's `gitformat-index`.

use super::recognise::is_gits;
use crate::path::RelativePath;

/// Names of files that git reads as an index, in lower case: `sharedindex.` begins those of a split index.
const INDEX: &[u8] = b"index";
const SHARED_INDEX: &[u8] = b"sharedindex.";

/// Whether git may read a file of that name in a git directory as an index.
#[must_use]
pub fn is_index(path: &RelativePath) -> bool {
    let name = path.name().as_encoded_bytes().to_ascii_lowercase();
    is_gits(path) && (name == INDEX || name.starts_with(SHARED_INDEX))
}

/// Whether all entries of an index are files of the workspace that belong to no repository. Not, if it does not have git's format
/// for objects of that many bytes.
#[must_use]
pub fn is_sound(index: &[u8], oid: usize) -> bool {
    let mut rest = Rest(index);
    is_sound_to_the_end(&mut rest, index, oid).unwrap_or(false)
}

/// The bytes that are not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    /// What comes before the next NUL, which is read too.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.0.iter().position(|&byte| byte == 0)?;
        let text = self.take(length)?;
        self.take(1)?;
        Some(text)
    }

    /// A number of variable length, as in the offsets of a pack.
    fn varint(&mut self) -> Option<usize> {
        let mut value = 0_usize;
        loop {
            let byte = self.take(1)?[0];
            value = value.checked_mul(128)?.checked_add(usize::from(byte & 127))?;
            if byte & 128 == 0 {
                return Some(value);
            }
            value = value.checked_add(1)?;
        }
    }
}

/// The size of what `stat` says of a file.
const STAT: usize = 40;

/// In an entry's flags: it has two bytes more, and the length of its name.
const EXTENDED: u16 = 0x4000;
const NAME: u16 = 0x0fff;

fn is_sound_to_the_end(rest: &mut Rest<'_>, index: &[u8], oid: usize) -> Option<bool> {
    let (signature, version, count) = (rest.take(4)?, rest.number()?, rest.number()?);
    if signature != b"DIRC" || !(2..=4).contains(&version) {
        return None;
    }
    let (mut name, mut begins) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let before = rest.0.len();
        begins.push(index.len() - before);
        let mode = u32::from_be_bytes(rest.take(STAT + oid)?[24..28].try_into().ok()?);
        let flags = u16::from_be_bytes(rest.take(2)?.try_into().ok()?);
        if flags & EXTENDED != 0 {
            rest.take(2)?;
        }
        if version == 4 {
            let stays = name.len().checked_sub(rest.varint()?)?;
            name.truncate(stays);
            name.extend(rest.text()?);
        } else {
            name = rest.text()?.to_vec();
            // One to eight zeros fill the entry up.
            let padding = (before - rest.0.len()).next_multiple_of(8) - (before - rest.0.len());
            if rest.take(padding)?.iter().any(|&byte| byte != 0) {
                return None;
            }
        }
        let told = usize::from(flags & NAME);
        if told != name.len().min(usize::from(NAME)) {
            return None;
        }
        // In a split index, this one replaces an entry of the shared index, and has its name.
        if name.is_empty() {
            continue;
        }
        // With a sparse index, a directory stands for all that is in it.
        let is_folder = mode & 0o170_000 == 0o040_000;
        let path = if is_folder { name.strip_suffix(b"/")? } else { &name };
        let parsed = RelativePath::parse(path).ok()??;
        if parsed.as_bytes() != path || is_gits(&parsed) {
            return Some(false);
        }
    }
    // Only the checksum is behind the last extension.
    while rest.0.len() > oid {
        let (signature, length) = (rest.take(4)?, rest.count()?);
        let mut content = Rest(rest.take(length)?);
        // Git reads the entries in blocks that this extension tells, if there are many.
        if signature == b"IEOT" && !has_these_blocks(&mut content, &begins)? {
            return None;
        }
    }
    (rest.0.len() == oid).then_some(true)
}

/// Whether the blocks of an `IEOT` extension are all entries in order, which begin at these offsets.
fn has_these_blocks(content: &mut Rest<'_>, begins: &[usize]) -> Option<bool> {
    content.number()?;
    let mut entries = 0;
    while !content.0.is_empty() {
        let (offset, count) = (content.count()?, content.count()?);
        if begins.get(entries) != Some(&offset) {
            return Some(false);
        }
        entries = entries.checked_add(count)?;
    }
    Some(entries == begins.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index with one entry for each path, as git writes it.
    fn index(version: u32, oid: usize, paths: &[&str]) -> Vec<u8> {
        let mut bytes =
            [b"DIRC".as_slice(), &version.to_be_bytes(), &u32::try_from(paths.len()).unwrap().to_be_bytes()]
                .concat();
        let mut last = "";
        for path in paths {
            let begin = bytes.len();
            let mut stat = [0; STAT];
            let mode: u32 = if path.ends_with('/') { 0o040_000 } else { 0o100_644 };
            stat[24..28].copy_from_slice(&mode.to_be_bytes());
            bytes.extend(stat);
            bytes.extend(vec![7; oid]);
            bytes.extend(u16::try_from(path.len()).unwrap().to_be_bytes());
            if version == 4 {
                bytes.push(u8::try_from(last.len()).unwrap());
                bytes.extend([path.as_bytes(), b"\0"].concat());
                last = path;
            } else {
                bytes.extend(path.as_bytes());
                bytes.push(0);
                while !(bytes.len() - begin).is_multiple_of(8) {
                    bytes.push(0);
                }
            }
        }
        bytes.extend(vec![0; oid]);
        bytes
    }

    #[test]
    fn an_index_names_only_files_of_the_workspace() {
        for (version, oid) in [(2, 20), (3, 20), (4, 20), (2, 32), (4, 32)] {
            let is_sound = |paths: &[&str]| is_sound(&index(version, oid, paths), oid);
            for sound in [&[][..], &["a"], &["a/b", "b"], &["sparse/", "x"], &[".github/a", "gitignore"]] {
                assert!(is_sound(sound), "{version} {sound:?}");
            }
            for bad in [
                ".git/hooks/post-checkout",
                ".GIT/config",
                "sub/.git/config",
                "git~1/hooks/x",
                ".git",
                "../outside",
                "a/../../outside",
                "/absolute",
                "a//b",
                "./a",
                ".git/",
            ] {
                assert!(!is_sound(&["a", bad]), "{version} {bad}");
                assert!(!is_sound(&[bad]), "{version} {bad}");
            }
        }
    }

    #[test]
    fn what_is_no_index_of_that_format_is_not_sound() {
        let sound = index(2, 20, &["a", "b"]);
        assert!(is_sound(&sound, 20) && !is_sound(&sound, 32));
        for length in 0..sound.len() {
            assert!(!is_sound(&sound[..length], 20), "{length}");
        }
        let with = |extension: &[u8]| {
            let length = u32::try_from(extension.len() - 4).unwrap().to_be_bytes();
            let (name, content) = extension.split_at(4);
            let (entries, checksum) = sound.split_at(sound.len() - 20);
            [entries, name, &length, content, checksum].concat()
        };
        assert!(is_sound(&with(b"TREEanything"), 20));
        let blocks = |blocks: &[u32]| {
            let numbers = [1].iter().chain(blocks).flat_map(|number| number.to_be_bytes());
            with(&b"IEOT".iter().copied().chain(numbers).collect::<Vec<u8>>())
        };
        let second = 12 + 64;
        for (told, expected) in [
            (&[12, 2][..], true),
            (&[12, 1, second, 1], true),
            (&[12, 1], false),
            (&[second, 2], false),
            (&[12, 1, second + 8, 1], false),
            (&[12], false),
        ] {
            assert_eq!(is_sound(&blocks(told), 20), expected, "{told:?}");
        }
    }
}
