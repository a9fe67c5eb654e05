//! Calls on whole paths: in this package's own folders, where no other process makes links, and on paths that
//! a caller names.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::stat::Meta;
use crate::error::{Error, Result};

/// The metadata of what is at a path, through links. `None` if nothing is there.
pub fn stat(path: &Path) -> Result<Option<Meta>> {
    match rustix::fs::stat(path) {
        Ok(stat) => Ok(Some(Meta::of(&stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("stat", path, errno)),
    }
}

/// The metadata of what is at a path, without following a link. `None` if nothing is there.
pub fn lstat(path: &Path) -> Result<Option<Meta>> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(Meta::of(&stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("lstat", path, errno)),
    }
}

/// Whether something is at a path, through links. `false` if that is unknown.
#[must_use]
pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// Whether a regular file is at a path, through links.
#[must_use]
pub fn is_file(path: &Path) -> bool {
    path.is_file()
}

/// Whether a link is at a path.
#[must_use]
pub fn is_link(path: &Path) -> bool {
    path.is_symlink()
}

/// A path with its links resolved.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|error| Error::io("realpath", path, error))
}

/// The target of a link.
pub fn read_link(path: &Path) -> Result<PathBuf> {
    fs::read_link(path).map_err(|error| Error::io("readlink", path, error))
}

/// The content of a file. `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path, error)),
    }
}

/// Writes a file, and replaces its content.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|error| Error::io("write", path, error))
}

/// Sets a file's time of modification, in whole seconds since 1970.
pub fn set_modified(path: &Path, seconds: i64) -> Result<()> {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let set = File::options().write(true).open(path).and_then(|file| file.set_modified(UNIX_EPOCH + seconds));
    set.map_err(|error| Error::io("utimensat", path, error))
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Error::io("open", path, error))
}

/// Creates a file for writing, or empties an existing one.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|error| Error::io("open", path, error))
}

/// Creates a folder. Returns `false` if something is there.
pub fn make_folder(path: &Path) -> Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("mkdir", path, error)),
    }
}

/// Creates a folder, and those above it that are missing.
pub fn make_folders(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io("mkdir", path, error))
}

/// The names in a folder.
pub fn list(folder: &Path) -> Result<Vec<OsString>> {
    let failed = |error| Error::io("scandir", folder, error);
    fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.file_name()).map_err(failed))
        .collect()
}

/// Moves an entry within one file system.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::io("rename", to, error))
}

/// Copies a file with its permission bits.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(|_| ()).map_err(|error| Error::io("copyfile", to, error))
}

/// Removes a file.
pub fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|error| Error::io("unlink", path, error))
}

/// Removes an empty folder.
pub fn remove_folder(path: &Path) -> Result<()> {
    fs::remove_dir(path).map_err(|error| Error::io("rmdir", path, error))
}

/// Removes a folder with everything in it.
pub fn remove_folder_all(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(|error| Error::io("rmdir", path, error))
}

/// Moves a folder of files and folders. If it is on another file system, it is copied and the original stays.
pub fn move_folder(from: &Path, to: &Path) -> Result<()> {
    match rename(from, to) {
        Err(error) if error.is_io(ErrorKind::CrossesDevices) => copy_folder(from, to),
        renamed => renamed,
    }
}

/// Copies a folder of files and folders to a path where nothing is.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).map_err(|error| Error::io("mkdir", to, error))?;
    for name in list(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            copy(&from, &to)?;
        }
    }
    Ok(())
}
