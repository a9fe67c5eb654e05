//! The merge of a folder into another, in steps, so that a caller can have a word inside the lock.

use std::path::{Path, PathBuf};

use super::conflicts::Keep;
use super::incoming::{Incoming, UNCHANGED};
use super::lock::{self, MergeLock};
use super::report::{Report, Rescued};
use super::session::{Merge, Terms};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::exclude::PathSet;
use crate::fs::Root;
use crate::path::RelativePath;
use crate::threads::blocking;
use crate::tree::entry::Snapshot;
use crate::tree::stage::is_in_runtime;

/// A merge that holds the target's lock. [`FolderMerge::finish`] gives it back.
#[derive(Debug)]
pub struct FolderMerge {
    merge: Merge,
    base: Snapshot,
    exclude: PathSet,
    /// What was found of killed merges.
    rescued: Rescued,
}

/// What is not merged. Kept local versions are nobody's to merge.
fn is_left_alone(exclude: &PathSet, path: &RelativePath) -> bool {
    is_in_runtime(path) || exclude.contains_or_covers(path)
}

impl FolderMerge {
    /// Reads the source, stages in the target what differs from the base, and takes the target's lock. The target has
    /// not been looked at by then. No thread is taken by waiting for the lock.
    pub async fn begin(base: Snapshot, exclude: PathSet, source: PathBuf, target: PathBuf) -> Result<Self> {
        let mut begun = blocking(move || Self::stage(base, exclude, &source, &target)).await?;
        match MergeLock::acquire(begun.merge.target(), lock::WAIT, &Cancel::default()).await {
            Ok(lock) => {
                begun.merge.hold(lock);
                Ok(begun)
            }
            Err(error) => {
                blocking(move || {
                    // The failure that led here is the one to report; the next merge removes an abandoned stage.
                    let _abandoned = begun.finish();
                    Ok(())
                })
                .await?;
                Err(error.with_hint(UNCHANGED))
            }
        }
    }

    /// The part of [`FolderMerge::begin`] that needs no lock.
    fn stage(mut base: Snapshot, exclude: PathSet, source: &Path, target: &Path) -> Result<Self> {
        let cancel = Cancel::default();
        let source = Root::open(source)?;
        let root = Root::create(target)?;
        let left_alone = |path: &RelativePath| is_left_alone(&exclude, path);
        base.retain(|path, _| !left_alone(path));
        let mut rescued = Rescued::default();
        let mut incoming = Incoming::from_folder(&source, &left_alone, &base, &root, &cancel)?;
        incoming.keep_untold(&base, false);
        let merge = Merge::begin(root, incoming, &base, &mut rescued)?;
        Ok(Self { merge, base, exclude, rescued })
    }

    /// Looks at the target and merges.
    pub fn apply(&mut self) -> Result<Report> {
        let left_alone = |path: &RelativePath| is_left_alone(&self.exclude, path);
        let cancel = Cancel::default();
        let terms =
            Terms { base: &self.base, left_alone: &left_alone, keep: Keep::default(), cancel: &cancel };
        self.merge.apply(&terms, &mut self.rescued)
    }

    /// Removes what is left in the stage and releases the lock.
    pub fn finish(mut self) -> Result<()> {
        let (_theirs, closed) = self.merge.finish(&mut self.rescued);
        closed
    }
}
