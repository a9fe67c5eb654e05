//! An entry of a tree, and a whole tree as a sorted map.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::path::RelativePath;

/// The permission bits that two sides compare: read, write and execute of owner, group and others.
pub const PERMISSIONS: u32 = 0o777;

/// A SHA-256 digest of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
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
pub type Snapshot = BTreeMap<RelativePath, Entry>;
