//! Files and folders that vanish by themselves unless they are finished.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::error::{Error, Result};

/// A folder in the system's place for such, removed with all that is in it when it is dropped.
#[derive(Debug)]
pub struct TemporaryDir(TempDir);

impl TemporaryDir {
    /// With a name of its own that begins so.
    pub fn new(prefix: &str) -> Result<Self> {
        let made = Builder::new().prefix(prefix).tempdir();
        made.map(Self).map_err(|error| Error::io("mkdtemp", std::env::temp_dir(), error))
    }

    /// The same in a folder, with as many letters and digits after what its name begins with.
    pub fn new_in(folder: &Path, prefix: &str, unique: usize) -> Result<Self> {
        let made = Builder::new().prefix(prefix).rand_bytes(unique).tempdir_in(folder);
        made.map(Self).map_err(|error| Error::io("mkdtemp", folder, error))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// An open file without a name that holds bytes, to be read from its start. It is gone when it is closed.
pub fn nameless(bytes: &[u8]) -> Result<File> {
    let failed = |error| Error::io("write", std::env::temp_dir(), error);
    let mut file = tempfile::tempfile().map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}

/// A file that is being written under a name of its own, and removed unless it is finished.
#[derive(Debug)]
pub struct Unfinished(NamedTempFile<File>);

impl Unfinished {
    /// Makes it, with the permissions that any new file gets. It is to become `finished`, of which its failures tell.
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

    /// Puts it in the place of what is at a path on the same file system.
    pub fn finish(self, path: &Path) -> Result<()> {
        self.0.persist(path).map(|_| ()).map_err(|failed| Error::io("rename", path, failed.error))
    }
}
