//! Folders outside the workspace in which git's part of an exchange is done.
//!
//! Each is locked as long as its process lives. A later run knows by that which ones a kill has left, and removes them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::error::{Error, Result};

/// How their names begin. No other program's do.
const PREFIX: &str = "paperclip-repositories-";

/// How many letters and digits follow.
const UNIQUE: usize = 16;

const LOCK: FlockOperation = FlockOperation::NonBlockingLockExclusive;

/// How often another run may take a folder for abandoned before it is locked.
const ATTEMPTS: usize = 16;

/// A folder that goes with this, or with the next run if this process is killed.
#[derive(Debug)]
pub struct WorkFolder {
    folder: TempDir,
    /// The lock goes with the handle.
    _locked: File,
}

impl WorkFolder {
    /// Makes one where temporary files lie, and removes what killed runs left there.
    pub fn new() -> Result<Self> {
        Self::in_folder(&std::env::temp_dir())
    }

    fn in_folder(parent: &Path) -> Result<Self> {
        remove_abandoned(parent);
        for _ in 0..ATTEMPTS {
            let made = tempfile::Builder::new().prefix(PREFIX).rand_bytes(UNIQUE).tempdir_in(parent);
            let folder = made.map_err(|error| Error::io("mkdtemp", parent, error))?;
            // Where it is gone or locked by now, another run took it for abandoned, and the next one is tried.
            let Ok(handle) = open(folder.path()) else { continue };
            if flock(&handle, LOCK) == Err(Errno::WOULDBLOCK) || !is_at(&handle, folder.path()) {
                continue;
            }
            return Ok(Self { folder, _locked: handle });
        }
        Err(Error::Internal(format!("no folder could be made in {} that stays", parent.display())))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn open(folder: &Path) -> std::io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(folder)
}

/// Whether an open folder is still the one at its path.
fn is_at(handle: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    handle
        .metadata()
        .is_ok_and(|open| fs::symlink_metadata(path).is_ok_and(|there| identity(there) == identity(open)))
}

/// Removes what killed runs left. What cannot be removed stays for the next run: this one does without.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes()).unwrap_or_default();
        if rest.len() != UNIQUE || !rest.iter().all(u8::is_ascii_alphanumeric) {
            continue;
        }
        let path = entry.path();
        let Ok(handle) = open(&path) else { continue };
        let is_ours = handle.metadata().is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw());
        // A file system without locks does not tell whether its process lives.
        if is_ours && flock(&handle, LOCK).is_ok() && is_at(&handle, &path) {
            let _stays = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
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
