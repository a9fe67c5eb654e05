//! Calls on whole paths: of folders of ours, where no other puts a link, and of what a caller names.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::stat::Meta;
use crate::error::{Error, Result};

/// What is at a path, through links; `None` where nothing does.
pub fn stat(path: &Path) -> Result<Option<Meta>> {
    match rustix::fs::stat(path) {
        Ok(stat) => Ok(Some(Meta::of(&stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("stat", path, errno)),
    }
}

/// What is at a path itself; `None` where nothing does.
pub fn lstat(path: &Path) -> Result<Option<Meta>> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(Meta::of(&stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("lstat", path, errno)),
    }
}

/// Whether something is at a path, through links. What cannot be looked at does not.
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

/// Where a link points.
pub fn read_link(path: &Path) -> Result<PathBuf> {
    fs::read_link(path).map_err(|error| Error::io("readlink", path, error))
}

/// What is in a file; `None` where there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path, error)),
    }
}

/// Writes a file, in the place of what was in it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|error| Error::io("write", path, error))
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Error::io("open", path, error))
}

/// Opens a file for writing, empty.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|error| Error::io("open", path, error))
}

/// Makes a folder. `false` where something is there.
pub fn make_folder(path: &Path) -> Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("mkdir", path, error)),
    }
}

/// Makes a folder and those above it where they are missing.
pub fn make_dirs(path: &Path) -> Result<()> {
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

/// Moves a name on one file system.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::io("rename", to, error))
}

/// Copies a file with its permission bits.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(|_| ()).map_err(|error| Error::io("copyfile", to, error))
}

/// Removes an empty folder.
pub fn remove_dir(path: &Path) -> Result<()> {
    fs::remove_dir(path).map_err(|error| Error::io("rmdir", path, error))
}

/// Removes a folder with all that is in it.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(|error| Error::io("rmdir", path, error))
}

/// Moves a folder of files and folders, and leaves what it was where that was on another file system.
pub fn move_folder(from: &Path, to: &Path) -> Result<()> {
    match rename(from, to) {
        Err(error) if error.is_io(ErrorKind::CrossesDevices) => copy_folder(from, to),
        renamed => renamed,
    }
}

/// Copies a folder of files and folders to where nothing is.
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
