//! Keeps what came of a repository that is not merged.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fs::Root;
use crate::fs::by_path::{self, make_folders, read, write};
use crate::git::refs::RefName;
use crate::merge::conflicts::backup_root;
use crate::path::RelativePath;

/// One repository of the sandbox that is not merged.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) dot_git: RelativePath,
    /// Its folder in the quarantine.
    pub(super) folder: PathBuf,
    pub(super) references: BTreeMap<RefName, Vec<u8>>,
    pub(super) reason: String,
    /// The pack of its new objects, if they passed the checks.
    pub(super) pack: Option<PathBuf>,
}

/// The folders of the backups that earlier restores made, the newest first.
pub(super) fn earlier_backups(workspace: &Root) -> Result<Vec<PathBuf>> {
    let backups = workspace.path().join(backup_root().as_path());
    if !by_path::exists(&backups) {
        return Ok(Vec::new());
    }
    let mut names = by_path::list(&backups)?;
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names.into_iter().map(|name| backups.join(name)).collect())
}

/// The files in a backup that tell which state of a repository it has.
const STATE_FILES: [&str; 6] = ["references.txt", "packed-refs", "head", "index", "stash", "settings"];

impl Refused {
    /// Turns the folder in the quarantine into the backup: what was received, and nothing that was made here.
    pub(super) fn complete(&self) -> Result<()> {
        let folder = &self.folder;
        make_folders(folder)?;
        let entry = |(name, value): (&RefName, &Vec<u8>)| {
            [value.trim_ascii_end(), b" ", name.as_bytes(), b"\n"].concat()
        };
        let list: Vec<u8> = self.references.iter().flat_map(entry).collect();
        write(&folder.join("references.txt"), &list)?;
        let (theirs, packs) = (folder.join("theirs"), folder.join("packs"));
        let gathered = theirs.join("objects");
        if by_path::exists(&gathered) {
            make_folders(&folder.join("objects"))?;
            make_folders(&packs)?;
            for name in by_path::list(&gathered)?.into_iter().filter(|name| name.len() == 2) {
                by_path::rename(&gathered.join(&name), &folder.join("objects").join(&name))?;
            }
            for name in by_path::list(&gathered.join("pack"))? {
                if Path::new(&name).extension() == Some(OsStr::new("pack")) {
                    by_path::rename(&gathered.join("pack").join(&name), &packs.join(&name))?;
                }
            }
        }
        let new = folder.join("new.pack");
        if let Some(pack) = &self.pack {
            make_folders(&packs)?;
            by_path::rename(pack, &packs.join("new.pack"))?;
        } else if by_path::exists(&new) {
            by_path::remove_file(&new)?;
        }
        for made in [theirs, folder.join("checked"), folder.join("new")] {
            if by_path::exists(&made) {
                by_path::remove_folder_all(&made)?;
            }
        }
        Ok(())
    }

    /// Whether an earlier restore kept the same state in that folder.
    pub(super) fn is_kept_in(&self, folder: &Path) -> Result<bool> {
        // A file or a folder of the workspace may have been backed up under the same name.
        if !by_path::is_file(&folder.join(STATE_FILES[0])) {
            return Ok(false);
        }
        let content = |file: PathBuf| if by_path::is_file(&file) { read(&file) } else { Ok(None) };
        for name in STATE_FILES {
            if content(self.folder.join(name))? != content(folder.join(name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves it to a folder of backups, in a form that git does not take for a repository. Returns where it is.
    pub(super) fn back_up(&self, backups: &Path, below: &Path) -> Result<PathBuf> {
        let target = backups.join(below);
        if let Some(parent) = target.parent() {
            make_folders(parent)?;
        }
        by_path::move_folder(&self.folder, &target)?;
        Ok(target)
    }
}
