//! A tree walked through its links.

use std::io;
use std::path::{Path, PathBuf};

use walkdir::{IntoIter, WalkDir};

/// One name that a walk came to.
#[derive(Debug)]
pub struct Step {
    /// Its path; that of the folder walked where the system did not say.
    pub path: PathBuf,
    /// What is there, or what failed: nothing is said of a link that leads back to a folder on the way to it.
    pub found: Result<Walked, Option<io::Error>>,
}

/// What is at a name.
#[derive(Debug, Clone, Copy)]
pub struct Walked {
    /// Whether it is a folder, through links.
    pub is_folder: bool,
    /// Whether it is a link itself.
    pub is_link: bool,
}

/// Everything below a folder, links followed. A folder comes before what is in it.
#[derive(Debug)]
pub struct Following {
    top: PathBuf,
    steps: IntoIter,
}

impl Following {
    /// From a folder on.
    #[must_use]
    pub fn below(top: &Path) -> Self {
        let steps = WalkDir::new(top).min_depth(1).follow_links(true).into_iter();
        Self { top: top.to_path_buf(), steps }
    }

    /// Leaves out what is in the folder that came last.
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
