//! Marks that protect new objects until references lead to them.
//!
//! No reference reaches new objects at first, so `git gc --prune=now` would delete them. As `git fetch` does, a restore brings
//! them as a pack with a `.keep` file, which git writes before the pack can be seen, and which every collection respects. The
//! restore removes it once references, `HEAD`, index and stash are done. A kill leaves it to the next restore or prepare.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::repository::Place;
use crate::error::Result;
use crate::fs::by_path::{self, list, read, remove_file};
use crate::path::bytes_of;
use crate::tree::entry::Digest;

/// The text of a mark. It names the git directory, since linked worktrees share their packs and may be restored at the same time.
#[must_use]
pub fn text(place: &Place) -> String {
    let git_dir = Digest(Sha256::digest(bytes_of(&place.git_dir)).into());
    format!("paperclip restore {git_dir}")
}

/// The marks of restores of this repository.
fn marks(place: &Place) -> Result<Vec<PathBuf>> {
    let packs = place.common_dir.join("objects/pack");
    let text = format!("{}\n", text(place)).into_bytes();
    let mut found = Vec::new();
    if !by_path::exists(&packs) {
        return Ok(found);
    }
    for name in list(&packs)? {
        let file = packs.join(name);
        if file.extension() != Some(OsStr::new("keep")) || !by_path::is_file(&file) {
            continue;
        }
        match read(&file) {
            Ok(there) if there.as_ref() == Some(&text) => found.push(file),
            Ok(_) => {}
            // A mark can be read by its owner alone, so this one is another user's.
            Err(error) if error.is_io(ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether a restore of this repository has left marks, since it was killed.
pub fn is_left(place: &Place) -> Result<bool> {
    Ok(!marks(place)?.is_empty())
}

/// Removes the marks of restores of this repository. Those of other programs stay.
pub fn release(place: &Place) -> Result<()> {
    marks(place)?.iter().try_for_each(|mark| remove_file(mark))
}
