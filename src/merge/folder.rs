//! Merges a folder or an archive on this machine into a folder, in steps, so a caller can act while the lock
//! is held.

use std::path::{Path, PathBuf};

use super::conflicts::Retention;
use super::incoming::{Incoming, UNCHANGED};
use super::lock::{self, MergeLock};
use super::options::MergeOptions;
use super::receive::Reception;
use super::report::{Report, Rescued};
use super::session::Merge;
use crate::archive::source::FromFile;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exclude::ExcludePatterns;
use crate::fs::Root;
use crate::git::held::{self, AtCheckout, Search};
use crate::threads::blocking;
use crate::tree::entry::Snapshot;
use crate::tree::filter::Filter;
use crate::tree::stage::is_in_runtime;

/// The incoming side of the merge.
#[derive(Debug, Clone)]
pub enum Source {
    /// A folder.
    Folder(PathBuf),
    /// A tar archive.
    Archive(PathBuf),
}

/// What is merged, and how.
#[derive(Debug)]
pub struct FolderMergeInput {
    /// What both sides last shared.
    pub base: Snapshot,
    /// What the incoming side has now.
    pub source: Source,
    /// The folder to merge into.
    pub target: PathBuf,
    /// What is neither taken from the incoming side nor changed in the target.
    pub exclude: Filter<'static>,
    /// What may have been left out of the source on its way: if such a path is missing in it, it was not deleted.
    pub may_lack: ExcludePatterns,
    /// Whether anything may have been left out, so that nothing missing was deleted.
    pub may_lack_anything: bool,
    /// The lock's folder, if it is not in the usual place.
    pub lock: Option<PathBuf>,
    /// How long the backups of earlier merges stay.
    pub retention: Retention,
}

/// A merge that holds the target's lock until [`FolderMerge::finish`].
#[derive(Debug)]
pub struct FolderMerge {
    merge: Merge,
    base: Snapshot,
    left_alone: Filter<'static>,
    retention: Retention,
    /// What killed merges left.
    rescued: Rescued,
}

impl FolderMerge {
    /// Reads the source, stages in the target what differs from the base, and takes the target's lock. The
    /// target is inspected only after that. Waiting for the lock takes no thread.
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
                    // The failure that led here is the one to report. The next merge removes a stage that
                    // stays.
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
        let FolderMergeInput {
            mut base,
            source,
            target,
            exclude,
            may_lack,
            may_lack_anything,
            retention,
            ..
        } = input;
        let cancel = Cancel::default();
        // Kept local versions are not merged.
        let left_alone = exclude.without_names("", is_in_runtime);
        base.retain(|path, entry| !left_alone.leaves_out(path, entry.kind()));
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
        incoming.treat_left_out_as_unchanged(&base, &|path| may_lack.matches(path));
        incoming.treat_missing_as_unchanged(&base, may_lack_anything);
        // (This merge has no report in which it would stand.)
        held::in_git(&mut incoming, &base, &root)?;
        let merge = Merge::begin(root, incoming, &base, &mut rescued)?;
        Ok(Self { merge, base, left_alone, retention, rescued })
    }

    /// Inspects the target and merges.
    pub fn apply(&mut self) -> Result<Report> {
        let cancel = Cancel::default();
        let options = MergeOptions {
            base: &self.base,
            left_alone: &self.left_alone,
            search: Search::Everywhere,
            written: &AtCheckout::default(),
            retention: self.retention,
            cancel: &cancel,
        };
        self.merge.apply(&options, &mut self.rescued)
    }

    /// Removes the stage and releases the lock. Returns what the incoming side has, which is the base of the
    /// next merge after one that was applied.
    pub fn finish(mut self) -> Result<Snapshot> {
        let (theirs, closed) = self.merge.finish(&mut self.rescued);
        closed.map(|()| theirs)
    }
}

/// Reads an archive; a second time if the first time did not stage everything that was needed.
fn from_archive(
    archive: &Path,
    left_alone: &Filter<'_>,
    base: &Snapshot,
    workspace: &Root,
    cancel: &Cancel,
) -> Result<Incoming> {
    let read = |every_file| {
        let reception = Reception {
            base,
            workspace,
            left_alone,
            control: None,
            on_control: &|_| {},
            mode: &|_, mode| mode,
            every_file,
            is_partial: false,
            cancel,
        };
        reception.settle(reception.receive_some(&mut FromFile::open(archive)?)?)
    };
    match read(false) {
        Err(Error::NotStaged) => read(true),
        incoming => incoming,
    }
}
