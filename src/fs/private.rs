//! A folder that only this user can read, with files that are written atomically and may vanish at any time.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::Builder;

use super::by_path;
use super::host::user;
use crate::error::{Error, Result};

/// The permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Such a folder.
#[derive(Debug, Clone)]
pub struct Private(PathBuf);

impl Private {
    /// Creates the folder, and those above it that are missing, and makes it private. `None` if it is a link
    /// or another user's.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| Error::io("mkdir", path, error))?;
        let failed = |error| Error::io("lstat", path, error);
        let metadata = path.symlink_metadata().map_err(failed)?;
        if !metadata.is_dir() || metadata.uid() != user() {
            return Ok(None);
        }
        if metadata.mode() & OTHERS != 0 {
            let closed = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
            closed.map_err(|error| Error::io("chmod", path, error))?;
        }
        Ok(Some(Self(path.to_path_buf())))
    }

    /// The content of a file. `None` if there is none, or if it is another user's.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.0.join(name);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_file() && metadata.uid() == user() => by_path::read(&path),
            _ => Ok(None),
        }
    }

    /// Writes a file, which has either the old or the new content at any time.
    pub fn write(&self, name: &str, pieces: &[&[u8]]) -> Result<()> {
        let path = self.0.join(name);
        let failed = |error| Error::io("write", &path, error);
        let mut file = Builder::new().prefix(TEMPORARY).tempfile_in(&self.0).map_err(failed)?;
        for piece in pieces {
            file.write_all(piece).map_err(failed)?;
        }
        let _file: File = file.persist(&path).map_err(|error| Error::io("rename", &path, error.error))?;
        Ok(())
    }

    /// Gives a file, if there is one, the time of now, so that it is pruned last.
    pub fn renew(&self, name: &str) -> Result<()> {
        let path = self.0.join(name);
        match File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("utimens", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a file, if there is one.
    pub fn remove(&self, name: &str) -> Result<()> {
        remove(&self.0.join(name))
    }

    /// Removes the files that were written longest ago, until at most `files_max` files and `bytes_max` bytes
    /// are left. Also removes what a killed process was writing.
    pub fn prune(&self, files_max: usize, bytes_max: u64) -> Result<()> {
        let failed = |error| Error::io("scandir", &self.0, error);
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A file that has vanished in between need not be removed.
            let Ok(metadata) = entry.metadata() else { continue };
            let Ok(written) = metadata.modified() else { continue };
            if metadata.is_file() {
                files.push((written, metadata.len(), entry.path()));
            }
        }
        files.sort_unstable();
        let (mut count, mut bytes) = (files.len(), files.iter().map(|(_, size, _)| size).sum::<u64>());
        for (written, size, path) in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_abandoned =
                name.starts_with(TEMPORARY) && written.elapsed().is_ok_and(|age| age.as_secs() > ABANDONED_S);
            if !is_abandoned && count <= files_max && bytes <= bytes_max {
                continue;
            }
            remove(&path)?;
            count -= 1;
            bytes -= size;
        }
        Ok(())
    }
}

/// Removes a file that may have vanished.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("unlink", path, error)),
        _ => Ok(()),
    }
}

/// The prefix of a file that is being written.
const TEMPORARY: &str = ".new-";
/// After how many seconds such a file is abandoned.
const ABANDONED_S: u64 = 3600;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_private_folder_is_closed_to_other_users() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        assert!(Private::open(&path).unwrap().is_some());
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Private::open(&path).unwrap().is_some());
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_and_a_folder_of_another_user_are_not_used() {
        let place = tempfile::tempdir().unwrap();
        symlink(place.path(), place.path().join("link")).unwrap();
        assert!(Private::open(&place.path().join("link")).unwrap().is_none());
        let theirs = place.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
        assert!(Private::open(&theirs).unwrap().is_none());
    }

    #[test]
    fn a_file_is_written_replaced_read_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let folder = Private::open(place.path()).unwrap().unwrap();
        assert_eq!(folder.read("a").unwrap(), None);
        folder.write("a", &[b"one", b"two"]).unwrap();
        folder.write("a", &[b"three"]).unwrap();
        assert_eq!(folder.read("a").unwrap().unwrap(), b"three");
        folder.remove("a").unwrap();
        folder.remove("a").unwrap();
        symlink("/etc/passwd", place.path().join("a")).unwrap();
        assert_eq!(folder.read("a").unwrap(), None);
    }

    #[test]
    fn pruning_removes_the_oldest_files_first() {
        let place = tempfile::tempdir().unwrap();
        let folder = Private::open(place.path()).unwrap().unwrap();
        for (name, age) in [("old", 300), ("new", 100), ("older", 400), (".new-x", 7200), (".new-y", 10)] {
            folder.write(name, &[b"12345"]).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age);
            let file = File::options().write(true).open(place.path().join(name)).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
        }
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        folder.renew("older").unwrap();
        folder.renew("missing").unwrap();
        folder.prune(3, 100).unwrap();
        assert_eq!(names(), [".new-y", "new", "older"]);
        folder.prune(3, 10).unwrap();
        assert_eq!(names(), [".new-y", "older"]);
    }
}
