//! The merge of what a folder or an archive on this machine holds into a folder, in steps, so that a caller can have a word
//! inside the lock.

use std::path::{Path, PathBuf};

use super::conflicts::Retention;
use super::incoming::{Incoming, UNCHANGED};
use super::lock::{self, MergeLock};
use super::receive::Reception;
use super::report::{Report, Rescued};
use super::session::{Merge, Terms};
use crate::archive::source::FromFile;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exclude::{ExcludePatterns, LeftOut};
use crate::fs::Root;
use crate::path::RelativePath;
use crate::threads::blocking;
use crate::tree::entry::Snapshot;
use crate::tree::scan::LeaveOut;
use crate::tree::stage::is_in_runtime;

/// Where the other side is.
#[derive(Debug, Clone)]
pub enum Source {
    /// A folder.
    Folder(PathBuf),
    /// A tar archive.
    Archive(PathBuf),
}

/// What is merged, and by what rules.
#[derive(Debug)]
pub struct FolderMergeInput {
    /// What both sides last shared.
    pub base: Snapshot,
    /// What the other side has now.
    pub source: Source,
    /// The folder that is merged into.
    pub target: PathBuf,
    /// What is neither taken from the other side nor touched here.
    pub exclude: LeftOut,
    /// What whoever brought the other side here may have left out: what is missing of it there was not deleted.
    pub may_lack: ExcludePatterns,
    /// Whether that may be anything, so that nothing that is missing was deleted.
    pub may_lack_anything: bool,
    /// The folder of the lock, where it is not in its usual place.
    pub lock: Option<PathBuf>,
}

/// A merge that holds the target's lock. [`FolderMerge::finish`] gives it back.
#[derive(Debug)]
pub struct FolderMerge {
    merge: Merge,
    base: Snapshot,
    exclude: LeftOut,
    /// What was found of killed merges.
    rescued: Rescued,
}

/// What is not merged. Kept local versions are nobody's to merge.
fn is_left_alone(exclude: &LeftOut, path: &RelativePath) -> bool {
    is_in_runtime(path) || exclude.covers(path)
}

impl FolderMerge {
    /// Reads the source, stages in the target what differs from the base, and takes the target's lock. The target has
    /// not been looked at by then. No thread is taken by waiting for the lock.
    pub async fn begin(mut input: FolderMergeInput) -> Result<Self> {
        let lock = input.lock.take();
        let mut begun = blocking(move || Self::stage(input)).await?;
        let cancel = Cancel::default();
        let acquired = match lock {
            Some(place) => MergeLock::acquire_at(place, lock::WAIT, &cancel).await,
            None => MergeLock::acquire(begun.merge.target(), lock::WAIT, &cancel).await,
        };
        match acquired {
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
    fn stage(input: FolderMergeInput) -> Result<Self> {
        let FolderMergeInput { mut base, source, target, exclude, may_lack, may_lack_anything, .. } = input;
        let cancel = Cancel::default();
        let left_alone = |path: &RelativePath| is_left_alone(&exclude, path);
        base.retain(|path, _| !left_alone(path));
        let mut rescued = Rescued::default();
        let (root, mut incoming) = match source {
            Source::Folder(folder) => {
                let folder = Root::open(&folder)?;
                let root = Root::create(&target)?;
                let incoming = Incoming::from_folder(&folder, &left_alone, &base, &root, &cancel)?;
                (root, incoming)
            }
            Source::Archive(archive) => {
                let root = Root::create(&target)?;
                let incoming = from_archive(&archive, &left_alone, &base, &root, &cancel)?;
                (root, incoming)
            }
        };
        incoming.keep_lacking(&base, &|path| may_lack.matches(path));
        incoming.treat_missing_as_unchanged(&base, may_lack_anything);
        let merge = Merge::begin(root, incoming, &base, &mut rescued)?;
        Ok(Self { merge, base, exclude, rescued })
    }

    /// Looks at the target and merges.
    pub fn apply(&mut self) -> Result<Report> {
        let left_alone = |path: &RelativePath| is_left_alone(&self.exclude, path);
        let cancel = Cancel::default();
        let terms = Terms {
            base: &self.base,
            left_alone: &left_alone,
            retention: Retention::default(),
            cancel: &cancel,
        };
        self.merge.apply(&terms, &mut self.rescued)
    }

    /// Removes what is left in the stage and releases the lock. Returns what the other side holds: the base of the next merge
    /// after one that was applied.
    pub fn finish(mut self) -> Result<Snapshot> {
        let (theirs, closed) = self.merge.finish(&mut self.rescued);
        closed.map(|()| theirs)
    }
}

/// Takes in an archive; a second time where the first did not stage all that turned out to be needed.
fn from_archive(
    archive: &Path,
    left_alone: LeaveOut<'_>,
    base: &Snapshot,
    workspace: &Root,
    cancel: &Cancel,
) -> Result<Incoming> {
    let take_in = |every_file| {
        let reception = Reception {
            base,
            workspace,
            left_alone,
            control: None,
            told: &|_| {},
            mode: &|_, mode| mode,
            every_file,
            cancel,
        };
        reception.settle(reception.receive_some(&mut FromFile::open(archive)?)?)
    };
    match take_in(false) {
        Err(Error::Passed) => take_in(true),
        taken => taken,
    }
}
