//! Files and folders that are removed automatically unless they are finished.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::error::{Error, Result};

/// A folder in the system's temporary folder. It is removed with everything in it when it is dropped.
#[derive(Debug)]
pub struct TemporaryFolder(TempDir);

impl TemporaryFolder {
    /// Creates one with a unique name that begins with `prefix`.
    pub fn new(prefix: &str) -> Result<Self> {
        let made = Builder::new().prefix(prefix).tempdir();
        made.map(Self).map_err(|error| Error::io("mkdtemp", std::env::temp_dir(), error))
    }

    /// Creates one in a folder, with that many letters and digits after the prefix.
    pub fn new_in(folder: &Path, prefix: &str, unique: usize) -> Result<Self> {
        let made = Builder::new().prefix(prefix).rand_bytes(unique).tempdir_in(folder);
        made.map(Self).map_err(|error| Error::io("mkdtemp", folder, error))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// An open file without a name that contains `bytes`, to be read from its start. It is gone once it is
/// closed.
pub fn nameless(bytes: &[u8]) -> Result<File> {
    let failed = |error| Error::io("write", std::env::temp_dir(), error);
    let mut file = tempfile::tempfile().map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}

/// A file that is being written under a temporary name. It is removed unless it is finished.
#[derive(Debug)]
pub struct Unfinished(NamedTempFile<File>);

impl Unfinished {
    /// Creates it with the permissions of any new file. Errors name `finished`, the path that it is to have
    /// in the end.
    pub fn new(folder: &Path, name: &str, finished: &Path) -> Result<Self> {
        Builder::new()
            .prefix(name)
            .rand_bytes(0)
            .make_in(folder, |path| File::options().write(true).create_new(true).open(path))
            .map(Self)
            .map_err(|error| Error::io("open", finished, error))
    }

    /// The file.
    pub fn file(&mut self) -> &mut File {
        self.0.as_file_mut()
    }

    /// Moves it to a path on the same file system, and replaces what is there.
    pub fn finish(self, path: &Path) -> Result<()> {
        self.0.persist(path).map(|_| ()).map_err(|failed| Error::io("rename", path, failed.error))
    }
}
