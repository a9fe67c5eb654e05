//! Walks a tree and follows its links.

use std::io;
use std::path::{Path, PathBuf};

use walkdir::{IntoIter, WalkDir};

/// One entry of a walk.
#[derive(Debug)]
pub struct Step {
    /// Its path, or that of the walked folder if the system did not tell.
    pub path: PathBuf,
    /// What is there, or the error. A link that leads back to a folder above it has no system error.
    pub found: Result<Walked, Option<io::Error>>,
}

/// The kind of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Walked {
    /// Whether it is a folder, through links.
    pub is_folder: bool,
    /// Whether it is a link itself.
    pub is_link: bool,
}

/// Walks everything below a folder, with links followed. A folder comes before its content.
#[derive(Debug)]
pub struct Following {
    top: PathBuf,
    steps: IntoIter,
}

impl Following {
    /// Starts a walk below a folder.
    #[must_use]
    pub fn below(top: &Path) -> Self {
        let steps = WalkDir::new(top).min_depth(1).follow_links(true).into_iter();
        Self { top: top.to_path_buf(), steps }
    }

    /// Skips the content of the folder that came last.
    pub fn skip_folder(&mut self) {
        self.steps.skip_current_dir();
    }
}

impl Iterator for Following {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        Some(match self.steps.next()? {
            Ok(entry) => {
                let found =
                    Walked { is_folder: entry.file_type().is_dir(), is_link: entry.path_is_symlink() };
                Step { path: entry.into_path(), found: Ok(found) }
            }
            Err(error) => {
                let path = error.path().unwrap_or(&self.top).to_path_buf();
                Step { path, found: Err(error.into_io_error()) }
            }
        })
    }
}
