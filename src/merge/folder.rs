//! The merge of a folder into another, in steps, so that a caller can have a word inside the lock.

use std::path::Path;

use super::apply::merge;
use super::incoming::Incoming;
use super::journal;
use super::lock::{self, MergeLock};
use super::report::{Report, Rescued};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::exclude::PathSet;
use crate::path::RelativePath;
use crate::tree::entry::Snapshot;
use crate::tree::root::Root;
use crate::tree::stage::is_in_runtime;

/// A merge that holds the target's lock. [`FolderMerge::finish`] gives it back.
#[derive(Debug)]
pub struct FolderMerge {
    /// Whether what was displaced has all been dealt with.
    settled: bool,
    /// What was found of killed merges.
    rescued: Rescued,
    root: Root,
    base: Snapshot,
    incoming: Incoming,
    lock: MergeLock,
}

impl FolderMerge {
    /// Reads the source, stages in the target what differs from the base, and takes the target's lock. The target has
    /// not been looked at by then.
    pub fn begin(mut base: Snapshot, exclude: &PathSet, source: &Path, target: &Path) -> Result<Self> {
        let cancel = Cancel::default();
        let source = Root::open(source)?;
        let root = Root::create(target)?;
        let mut rescued = Rescued::default();
        journal::rescue(&root, &mut rescued)?;
        // Kept local versions are nobody's to merge.
        let left_out = |path: &RelativePath| is_in_runtime(path) || exclude.contains_or_covers(path);
        base.retain(|path, _| !left_out(path));
        let mut incoming = Incoming::from_folder(&source, &left_out, &base, &root, &cancel)?;
        incoming.keep_untold(&base, false);
        match MergeLock::acquire_blocking(target, lock::WAIT, &cancel) {
            Ok(lock) => Ok(Self { settled: true, rescued, root, base, incoming, lock }),
            Err(error) => {
                // The failure that led here is the one to report; the next stage removes an abandoned one.
                let _abandoned = incoming.stage.close(&root);
                Err(error)
            }
        }
    }

    /// Looks at the target and merges.
    pub fn apply(&mut self) -> Result<Report> {
        self.settled = false;
        let report = merge(&self.root, &self.base, &self.incoming, &mut self.rescued, &Cancel::default())?;
        self.settled = true;
        Ok(report)
    }

    /// Removes what is left in the stage and releases the lock.
    pub fn finish(mut self) -> Result<()> {
        let closed = if self.settled {
            self.incoming.stage.close(&self.root)
        } else {
            // It may hold a local version that could not be kept aside.
            journal::clear_up(&self.root, self.incoming.stage.abandon(), &mut self.rescued);
            Ok(())
        };
        self.lock.release()?;
        closed
    }
}
