//! An entry of a tree, and a whole tree as a sorted map.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fs::Kind;
use crate::path_map::PathMap;

/// The permission bits that two sides compare: read, write and execute of owner, group and others.
pub const PERMISSIONS: u32 = 0o777;

/// A SHA-256 digest of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("a digest of SHA-256 has 32 bytes"))
    }
}

impl Digest {
    /// Its 64 hexadecimal digits, as text.
    #[must_use]
    pub fn hexadecimal(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.hexadecimal()).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = ();

    /// Reads 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(());
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).map_err(|_| ())?;
        }
        Ok(Self(bytes))
    }
}

/// The entry at one path of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A folder. Its mode is `None` if it is unknown (an archive that names only files, a snapshot of the
    /// TypeScript module).
    #[serde(rename = "Dir")]
    Folder {
        /// Mode bits `07777`.
        mode: Option<u32>,
    },
    /// A regular file.
    File {
        /// Mode bits; the kind of file may be among them.
        mode: u32,
        /// SHA-256 of the content.
        digest: Digest,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, byte for byte.
        target: Arc<[u8]>,
    },
}

impl Entry {
    /// What kind of file it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Folder { .. } => Kind::Folder,
            Self::File { .. } => Kind::File,
            Self::Symlink { .. } => Kind::Symlink,
        }
    }

    /// Whether two sides have the same entry: kind, content, link target and the permission bits `0777`.
    /// A folder with an unknown mode equals any folder.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder { mode: Some(a) }, Self::Folder { mode: Some(b) }) => {
                a & PERMISSIONS == b & PERMISSIONS
            }
            (Self::Folder { .. }, Self::Folder { .. }) => true,
            (Self::File { mode: a, digest: left }, Self::File { mode: b, digest: right }) => {
                a & PERMISSIONS == b & PERMISSIONS && left == right
            }
            (Self::Symlink { target: a }, Self::Symlink { target: b }) => a == b,
            _ => false,
        }
    }

    /// The same entry with that mode, if it can have one.
    #[must_use]
    pub fn with_mode(self, mode: u32) -> Self {
        match self {
            Self::Folder { .. } => Self::Folder { mode: Some(mode) },
            Self::File { digest, .. } => Self::File { mode, digest },
            link @ Self::Symlink { .. } => link,
        }
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        matches!(self, Self::Folder { .. })
    }
}

/// A tree: every entry below a root, by path.
pub type Snapshot = PathMap<Entry>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_the_same_by_what_two_sides_can_both_have() {
        let dir = |mode| Entry::Folder { mode };
        let file = |mode, digest| Entry::File { mode, digest: Digest([digest; 32]) };
        let link = |target: &[u8]| Entry::Symlink { target: target.into() };
        for (one, other, same) in [
            (dir(Some(0o755)), dir(Some(0o755)), true),
            (dir(Some(0o755)), dir(Some(0o2755)), true),
            (dir(Some(0o755)), dir(Some(0o700)), false),
            (dir(Some(0o755)), dir(None), true),
            (dir(None), dir(None), true),
            (file(0o644, 1), file(0o100_644, 1), true),
            (file(0o644, 1), file(0o4644, 1), true),
            (file(0o644, 1), file(0o755, 1), false),
            (file(0o644, 1), file(0o644, 2), false),
            (link(b"a"), link(b"a"), true),
            (link(b"a"), link(b"b"), false),
            (dir(None), file(0o755, 1), false),
            (file(0o644, 1), link(b"a"), false),
        ] {
            assert_eq!(one.same_as(&other), same, "{one:?} {other:?}");
            assert_eq!(other.same_as(&one), same, "{other:?} {one:?}");
        }
        assert_eq!(dir(None).with_mode(0o700), dir(Some(0o700)));
        assert_eq!(file(0o644, 1).with_mode(0o700), file(0o700, 1));
        assert_eq!(link(b"a").with_mode(0o700), link(b"a"));
        assert_eq!(
            [dir(None), file(0, 0), link(b"")].map(|entry| entry.kind()),
            [Kind::Folder, Kind::File, Kind::Symlink]
        );
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = Digest(std::array::from_fn(|at| u8::try_from(at * 7).unwrap()));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for text in
            ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &format!("+{}", "0".repeat(63))]
        {
            assert_eq!(text.parse::<Digest>(), Err(()), "{text}");
        }
    }
}
