//! One merge from beginning to end. This is the only place that conducts one, whatever the other side is.
//!
//! The caller takes in the other side ([`Incoming`]), which stages what differs; where that is refused, not even what killed
//! merges left is touched. With it [`Merge::begin`] begins, and clears up after those. The caller takes the workspace's lock,
//! in its own way, and hands it over ([`Merge::hold`]). [`Merge::apply`] looks at the workspace, plans and changes it.
//! [`Merge::finish`] closes the stage and gives the lock back, and belongs to every merge that has begun.

use std::path::Path;
use std::time::SystemTime;

use super::apply::{merge, preview};
use super::conflicts::{Retention, check_runtime, prune};
use super::incoming::{Incoming, UNCHANGED};
use super::journal;
use super::lock::MergeLock;
use super::plan::{changed, put_back};
use super::report::{Noted, Report, Rescued};
use super::sensitive;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::Root;
use crate::tree::entry::Snapshot;
use crate::tree::scan::LeaveOut;
use crate::tree::stage::is_lock_name;

/// What a merge goes by.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// What both sides last shared.
    pub base: &'a Snapshot,
    /// Which paths are neither taken from the other side nor touched here: what is excluded or preserved, with all that
    /// is below it, and this package's own folder.
    pub left_alone: LeaveOut<'a>,
    /// For how long the versions stay that earlier merges kept.
    pub retention: Retention,
    /// Stops the merge until its first change.
    pub cancel: &'a Cancel,
}

/// A merge that has begun: what comes in is staged, and nothing else has changed.
#[derive(Debug)]
pub struct Merge {
    root: Root,
    incoming: Incoming,
    held_back: Vec<Noted>,
    needs_lock: bool,
    lock: Option<MergeLock>,
    /// Whether nothing that the merge displaced waits in the stage.
    settled: bool,
}

impl Merge {
    /// Begins with what the other side holds, as it was taken in, and clears up what killed merges left. On failure no stage
    /// is left.
    pub fn begin(root: Root, mut incoming: Incoming, base: &Snapshot, rescued: &mut Rescued) -> Result<Self> {
        if let Err(error) = journal::rescue(&root, rescued) {
            // The failure that led here is the one to report; the next merge removes an abandoned stage.
            let _abandoned = incoming.stage.close(&root);
            return Err(error);
        }
        let held_back = hold_back(&mut incoming.snapshot, base);
        let needs_lock = changed(base, &incoming.snapshot).next().is_some();
        Ok(Self { root, incoming, held_back, needs_lock, lock: None, settled: true })
    }

    /// Whether the other side changed anything, so that there is something to lock the workspace for.
    #[must_use]
    pub fn needs_lock(&self) -> bool {
        self.needs_lock
    }

    /// The workspace whose lock is needed.
    #[must_use]
    pub fn target(&self) -> &Path {
        self.root.path()
    }

    /// The workspace.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// How many entries the other side holds.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.incoming.snapshot.len()
    }

    /// Takes the workspace's lock over, until the merge is finished.
    pub fn hold(&mut self, lock: MergeLock) {
        self.lock = Some(lock);
    }

    /// Looks at the workspace and merges. Where the other side changed nothing, nothing is looked at or written.
    pub fn apply(&mut self, terms: &Terms<'_>, rescued: &mut Rescued) -> Result<Report> {
        if !self.needs_lock {
            let mut report = Report {
                skipped: self.incoming.skipped.clone(),
                held_back: self.held_back.clone(),
                ..Report::default()
            };
            report.take_rescued(rescued);
            return Ok(report);
        }
        if self.lock.is_none() {
            return Err(Error::Internal("a merge was applied without the workspace's lock".to_owned()));
        }
        check_runtime(&self.root).map_err(|error| error.with_hint(UNCHANGED))?;
        self.settled = false;
        let mut report =
            merge(&self.root, terms.base, &mut self.incoming, terms.left_alone, rescued, terms.cancel)?;
        report.held_back.clone_from(&self.held_back);
        self.settled = true;
        let kept: Vec<_> = report.conflicts.iter().chain(&report.deletions_backed_up).cloned().collect();
        report.skipped.extend(prune(&self.root, terms.retention, SystemTime::now(), &kept));
        report.skipped.sort_unstable();
        Ok(report)
    }

    /// Tells what [`Merge::apply`] would do, without the workspace's lock and without a change.
    pub fn preview(&mut self, terms: &Terms<'_>) -> Result<Report> {
        let mut report = preview(&self.root, terms.base, &mut self.incoming, terms.left_alone, terms.cancel)?;
        report.held_back.clone_from(&self.held_back);
        Ok(report)
    }

    /// Gives the lock back and closes the stage, whether the merge was applied, has failed or was given up. Returns what the
    /// other side holds, which is the next base after a merge that did not fail; and whether the stage and the lock are
    /// gone. (What stays of them is cleared up by the next merge.)
    ///
    /// After a failure the stage may hold a local version that could not be kept aside, since the disk may be full: it is
    /// rescued now if that works, and by a later merge if not.
    pub fn finish(self, rescued: &mut Rescued) -> (Snapshot, Result<()>) {
        let Incoming { snapshot, stage, .. } = self.incoming;
        // First, since the stage is this merge's own: a kill in between leaves what every next merge clears up.
        let released = self.lock.map_or(Ok(()), MergeLock::release);
        let closed = if self.settled {
            stage.close(&self.root)
        } else {
            journal::clear_up(&self.root, stage.abandon(), rescued);
            Ok(())
        };
        (snapshot, released.and(closed))
    }
}

/// Takes for unchanged what neither comes nor goes, and tells what of that is held back. (Locks name processes of this machine,
/// and are not even told.)
fn hold_back(theirs: &mut Snapshot, base: &Snapshot) -> Vec<Noted> {
    let mut held = Vec::new();
    let mut locks = Vec::new();
    for (path, _, after) in changed(base, theirs) {
        if let Some(reason) = sensitive::held_back(path, after) {
            held.push(Noted { path: path.clone(), reason });
        } else if is_lock_name(path) {
            locks.push(path.clone());
        }
    }
    let mut above = Vec::new();
    for Noted { path, reason } in &held {
        let folders = put_back(theirs, base, path);
        above.extend(folders.into_iter().map(|path| Noted { path, reason }));
    }
    for path in locks {
        put_back(theirs, base, &path);
    }
    held.append(&mut above);
    held.sort_unstable();
    held.dedup();
    held
}
