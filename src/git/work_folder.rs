//! Folders outside the workspace for git's part of an exchange.
//!
//! Each is locked as long as its process lives. A later run knows by that which ones a killed process left,
//! and removes them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::fs::temporary::TemporaryFolder;
use crate::fs::{Hold, Root, Sharing, by_path, host, try_lock};

/// The prefix of their names, which no other program uses.
const PREFIX: &str = "paperclip-repositories-";

/// How many letters and digits follow the prefix.
const UNIQUE: usize = 16;

/// How many times a new folder may be taken for abandoned before it is locked.
const ATTEMPTS: usize = 16;

/// A folder that is removed when it is dropped, or by the next run if this process is killed.
#[derive(Debug)]
pub struct WorkFolder {
    folder: TemporaryFolder,
    /// The lock lasts as long as the handle.
    _locked: Box<Root>,
}

impl WorkFolder {
    /// Makes one in the system's temporary folder, and removes those that killed runs left.
    pub fn new() -> Result<Self> {
        Self::in_folder(&std::env::temp_dir())
    }

    fn in_folder(parent: &Path) -> Result<Self> {
        remove_abandoned(parent);
        for _ in 0..ATTEMPTS {
            let folder = TemporaryFolder::new_in(parent, PREFIX, UNIQUE)?;
            // If it is gone or locked by now, another run took it for abandoned, and the next attempt
            // follows.
            let Ok(handle) = Root::open_no_link(folder.path()) else { continue };
            // On a file system without locks it is used without one.
            if matches!(try_lock(&handle, Sharing::Exclusive), Ok(Hold::Taken)) || !is_at(&handle) {
                continue;
            }
            return Ok(Self { folder, _locked: Box::new(handle) });
        }
        Err(Error::Internal(format!("no folder could be made in {} that stays", parent.display())))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Whether an open folder is still the one at its path.
fn is_at(handle: &Root) -> bool {
    let there = by_path::lstat(handle.path());
    handle.meta().is_ok_and(|open| there.is_ok_and(|there| there.is_some_and(|there| there.id == open.id)))
}

/// Removes what killed runs left. What cannot be removed is left for the next run.
fn remove_abandoned(parent: &Path) {
    let Ok(names) = by_path::list(parent) else { return };
    for name in names {
        let rest = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes()).unwrap_or_default();
        if rest.len() != UNIQUE || !rest.iter().all(u8::is_ascii_alphanumeric) {
            continue;
        }
        let path = parent.join(&name);
        let Ok(handle) = Root::open_no_link(&path) else { continue };
        let is_ours = handle.meta().is_ok_and(|meta| meta.owner.0 == host::user());
        // A file system without locks does not tell whether its process lives.
        if is_ours && matches!(try_lock(&handle, Sharing::Exclusive), Ok(Hold::Ours)) && is_at(&handle) {
            let _stays = by_path::remove_folder_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let living = WorkFolder::in_folder(parent.path()).unwrap();
        fs::write(living.path().join("file"), "in use").unwrap();
        let abandoned = at("paperclip-repositories-0123456789abcdef");
        fs::create_dir_all(abandoned.join("deep/er")).unwrap();
        fs::write(abandoned.join("deep/file"), "left").unwrap();
        let kept = [
            "paperclip-repositories-",
            "paperclip-repositories-0123456789abcde",
            "paperclip-git-workspace-x",
        ];
        for name in kept {
            fs::create_dir(at(name)).unwrap();
        }
        fs::create_dir(at("elsewhere")).unwrap();
        fs::write(at("elsewhere/file"), "kept").unwrap();
        std::os::unix::fs::symlink("elsewhere", at("paperclip-repositories-aaaaaaaaaaaaaaaa")).unwrap();

        let next = WorkFolder::in_folder(parent.path()).unwrap();
        assert!(!abandoned.exists(), "it was left by a kill");
        assert!(living.path().join("file").exists() && next.path().exists());
        assert!(kept.iter().all(|name| at(name).exists()) && at("elsewhere/file").exists());
        let (one, other) = (living.path().to_path_buf(), next.path().to_path_buf());
        drop((living, next));
        assert!(!one.exists() && !other.exists());
    }
}
