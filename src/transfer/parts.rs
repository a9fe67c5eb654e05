//! The parts of an archive: their names, sizes and codecs. Pure.
//!
//! The first part is the file of the archive's own name, the second has `.2` behind it, and so on. All but the last hold the
//! same number of bytes before they are compressed. A line about the parts of a download follows the
//! first one: the *trailer*. A download without one is a single part, not compressed.
//!
//! Each download has a name, which is in the trailer, in the sandbox's answer, and in the names of the parts after the first:
//! another command may replace the files while they are read.

pub use crate::archive::codec::Codec;
use crate::error::{Error, Result};

/// A part of an archive as it is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// How many bytes of its file are the archive's, as they are compressed.
    pub size: u64,
    /// How they are compressed.
    pub codec: Codec,
}

impl Part {
    /// A part that is not compressed.
    #[must_use]
    pub fn plain(size: u64) -> Self {
        Self { size, codec: Codec::None }
    }
}

/// The file of an archive's part, counted from 0.
#[must_use]
pub fn part_path(archive: &str, number: usize) -> String {
    format!("{archive}{}", part_suffix(number))
}

/// The file of a part of the download with that name, counted from 0.
#[must_use]
pub fn download_part_path(archive: &str, number: usize, name: &str) -> String {
    let path = part_path(archive, number);
    if number == 0 { path } else { format!("{path}-{name}") }
}

/// What the file of a part has behind the archive's own name.
#[must_use]
pub fn part_suffix(number: usize) -> String {
    if number == 0 { String::new() } else { format!(".{}", number + 1) }
}

/// A list of parts for the script in the sandbox.
#[must_use]
pub fn part_list(parts: &[Part]) -> String {
    let line = |part: &Part| [&part.size.to_string(), " ", part.codec.name(), "\n"].concat();
    parts.iter().map(line).collect()
}

/// The unit of a download's parts: the sandbox cuts its archive in blocks of so many bytes.
pub const PART_UNIT: u64 = 64 * 1024;

/// In which parts, and how compressed, a download is wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// How many bytes a part has at most before it is compressed: a multiple of [`PART_UNIT`].
    pub part_size: u64,
    /// Whether the sandbox is to compress what shrinks.
    pub compressed: bool,
}

impl Wish {
    /// Parts of about that size.
    #[must_use]
    pub fn new(part_bytes: u64, compressed: bool) -> Self {
        Self { part_size: (part_bytes / PART_UNIT).max(1) * PART_UNIT, compressed }
    }

    /// The script's arguments: the size, and the programs in the order in which they are tried.
    #[must_use]
    pub fn arguments(self) -> String {
        format!("{}{}", self.part_size, if self.compressed { " zstd gzip" } else { "" })
    }
}

/// What a sandbox says of a download's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// The bytes of each part but the last, before they were compressed.
    pub part_size: u64,
    /// The bytes of the whole archive.
    pub size: u64,
    /// How each part is compressed. There is at least one.
    pub codecs: Vec<Codec>,
    /// The name of the download.
    pub name: String,
}

/// The largest size of a trailer, which has a letter for each part, so it limits their number too.
pub const TRAILER_MAX: usize = 64 * 1024;

/// What a trailer begins with. It has a line of its own at the very end of the first part.
const TRAILER: &[u8] = b"\npaperclip-parts ";

impl Trailer {
    /// Takes the trailer off the end of the first part's bytes, of which the last [`TRAILER_MAX`] are enough: how many bytes
    /// precede it, and its content. `None` where there is none: archives end with zeros.
    pub fn split(end: &[u8]) -> Result<Option<(usize, Self)>> {
        let Some(line) = end.strip_suffix(b"\n") else { return Ok(None) };
        let Some(start) = line.iter().rposition(|&byte| byte == b'\n') else { return Ok(None) };
        let Some(said) = line[start..].strip_prefix(TRAILER) else { return Ok(None) };
        Self::parse(said).map(|trailer| Some((start, trailer))).ok_or_else(|| Error::ArchiveInvalid {
            offset: 0,
            entry: None,
            reason: "the line that tells its parts is malformed".to_owned(),
        })
    }

    fn parse(said: &[u8]) -> Option<Self> {
        let mut words = said.split(|&byte| byte == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<u64>().ok();
        let (part_size, size) = (number()?, number()?);
        let codecs =
            words.next()?.iter().map(|&letter| Codec::of(letter.into())).collect::<Option<Vec<_>>>()?;
        let name = String::from_utf8(words.next()?.to_vec()).ok()?;
        let is_whole = words.next().is_none() && part_size > 0 && !codecs.is_empty();
        let fits = size.div_ceil(part_size.max(1)).max(1) == codecs.len() as u64;
        (is_whole && fits).then_some(Self { part_size, size, codecs, name })
    }

    /// How many bytes a part has before it is compressed.
    #[must_use]
    pub fn size_of(&self, number: usize) -> u64 {
        let before = self.part_size.saturating_mul(number as u64);
        self.size.saturating_sub(before).min(self.part_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        assert_eq!([0, 1, 9].map(|number| part_path("/a.tar", number)), ["/a.tar", "/a.tar.2", "/a.tar.10"]);
        let of_download = [0, 1].map(|number| download_part_path("/a.tar", number, "1f"));
        assert_eq!(of_download, ["/a.tar", "/a.tar.2-1f"]);
    }

    #[test]
    fn what_a_trailer_says() {
        type Said = (u64, u64, &'static [Codec]);
        use Codec::{Gzip, None as Plain, Zstd};
        let cases: &[(&[u8], Option<Said>)] = &[
            (b"\npaperclip-parts 65536 65536 g 1f\n", Some((65536, 65536, &[Gzip]))),
            (b"\npaperclip-parts 65536 65537 gn 1f\n", Some((65536, 65537, &[Gzip, Plain]))),
            (b"\npaperclip-parts 100 250 znz 1f\n", Some((100, 250, &[Zstd, Plain, Zstd]))),
            (b"\npaperclip-parts 100 0 n 1f\n", Some((100, 0, &[Plain]))),
            (b"\npaperclip-parts 100 300 znzn 1f\n", None),
            (b"\npaperclip-parts 100 301 znz 1f\n", None),
            (b"\npaperclip-parts 0 0 n 1f\n", None),
            (b"\npaperclip-parts 100 100 \n", None),
            (b"\npaperclip-parts 100 100 n\n", None),
            (b"\npaperclip-parts 100 100 x 1f\n", None),
            (b"\npaperclip-parts 100 100 n 1f n\n", None),
            (b"\npaperclip-parts 100 -1 n 1f\n", None),
            (b"\npaperclip-parts 100 99999999999999999999999 n 1f\n", None),
            (b"\npaperclip-parts\n", None),
        ];
        for &(text, expected) in cases {
            let text = [b"bytes", text].concat();
            let found = Trailer::split(&text);
            match expected {
                Some((part_size, size, codecs)) => {
                    let trailer = Trailer { part_size, size, codecs: codecs.to_vec(), name: "1f".to_owned() };
                    assert_eq!(found.unwrap(), Some((5, trailer)), "{}", text.escape_ascii());
                }
                None if text.ends_with(b"parts\n") => assert_eq!(found.unwrap(), None),
                None => assert!(found.is_err(), "{}", text.escape_ascii()),
            }
        }
        for none in [&b""[..], b"\n", b"paperclip-parts 100 100 n\n", b"\npaperclip-parts 100 100 n", b"\0\0"]
        {
            assert_eq!(Trailer::split(none).unwrap(), None, "{}", none.escape_ascii());
        }
    }

    #[test]
    fn how_many_bytes_each_part_has() {
        let trailer =
            Trailer { part_size: 100, size: 250, codecs: vec![Codec::None; 3], name: String::new() };
        assert_eq!([0, 1, 2].map(|number| trailer.size_of(number)), [100, 100, 50]);
        let exact = Trailer { part_size: 100, size: 200, codecs: vec![Codec::None; 2], name: String::new() };
        assert_eq!([0, 1].map(|number| exact.size_of(number)), [100, 100]);
    }

    #[test]
    fn a_wish_is_for_whole_units() {
        for (bytes, size) in [(1, 65536), (65536, 65536), (100_000, 65536), (32 << 20, 32 << 20)] {
            assert_eq!(Wish::new(bytes, false).part_size, size);
        }
        assert_eq!(Wish::new(1, false).arguments(), "65536");
        assert_eq!(Wish::new(1, true).arguments(), "65536 zstd gzip");
    }
}
