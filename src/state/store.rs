//! What is kept on this machine between calls, and may vanish or be damaged at any time at no price but a full transfer.
//!
//! A file has a version, a digest of what follows, and that. Nothing is taken of one that is not exactly as it was written.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::fs::Private;
use crate::tree::entry::Digest;

/// What the files of this version begin with. Another format of anything in them is another version.
const VERSION: &[u8; 16] = b"paperclip-ws 09\n";

/// How many files are kept, and how many bytes in all.
const FILES_MAX: usize = 512;
const BYTES_MAX: u64 = 1 << 30;

/// The folder for what is kept.
#[derive(Debug, Clone)]
pub struct Store(Private);

impl Store {
    /// The store in that directory, which is made if it is missing. `None` if nothing can be stored in it: everything works without.
    #[must_use]
    pub fn open(folder: &Path) -> Option<Self> {
        Private::open(folder).ok().flatten().map(Self)
    }

    /// What was kept under a name, as it was.
    #[must_use]
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        // One that cannot be read is as good as none.
        let bytes = self.0.read(name).ok()??;
        let (digest, content) = bytes.strip_prefix(VERSION)?.split_at_checked(32)?;
        if Sha256::digest(content)[..] != *digest {
            return None;
        }
        postcard::from_bytes(content).ok()
    }

    /// Stores something under a name, and tells whether that succeeded. If it fails, nothing is stored under the name.
    pub fn keep<T: Serialize>(&self, name: &str, what: &T) -> bool {
        let kept = postcard::to_stdvec(what).is_ok_and(|content| {
            let digest = Sha256::digest(&content);
            self.0.write(name, &[VERSION, &digest, &content]).is_ok()
        });
        if !kept {
            self.forget(name);
        }
        // What is too much now goes with the next one.
        let _later = self.0.prune(FILES_MAX, BYTES_MAX);
        kept
    }

    /// Treats what is kept under a name as if it had been kept now.
    pub fn renew(&self, name: &str) {
        // If that fails, it is removed earlier, which costs a full transfer.
        let _earlier = self.0.renew(name);
    }

    /// Keeps nothing under a name any more.
    pub fn forget(&self, name: &str) {
        // One that stays is out of date, which is found out in the sandbox at the price of a full transfer.
        let _stays = self.0.remove(name);
    }
}

/// A name for what belongs to these, of any bytes.
#[must_use]
pub fn name_for(kind: &str, of: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in of {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{kind}-{}", Digest(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.load::<Vec<u64>>("a"), None);
        store.keep("a", &vec![1_u64, 2, 3]);
        assert_eq!(store.load::<Vec<u64>>("a"), Some(vec![1, 2, 3]));
        store.forget("a");
        assert_eq!(store.load::<Vec<u64>>("a"), None);
    }

    #[test]
    fn what_is_damaged_anywhere_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.keep("a", &vec![1_u64, 2, 3]);
        let whole = std::fs::read(folder.path().join("a")).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(folder.path().join("a"), &damaged).unwrap();
            assert_eq!(store.load::<Vec<u64>>("a"), None, "at {at}");
            std::fs::write(folder.path().join("a"), &whole[..at]).unwrap();
            assert_eq!(store.load::<Vec<u64>>("a"), None, "cut at {at}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_keeps_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Store::open(&file.path().join("below")).is_none());
        assert!(Store::open(file.path()).is_none());
    }

    #[test]
    fn names_are_apart() {
        assert_ne!(name_for("a", &[b"xy", b"z"]), name_for("a", &[b"x", b"yz"]));
        assert_ne!(name_for("a", &[b"x"]), name_for("b", &[b"x"]));
    }
}
