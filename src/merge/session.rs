//! One merge from beginning to end, whatever the incoming side is. No other module runs the steps of a merge.
//!
//! 1. The caller reads the incoming side ([`Incoming`]), which stages what differs. If that fails, nothing else
//!    was touched.
//! 2. [`Merge::begin`] clears up what killed merges left.
//! 3. The caller takes the workspace's lock and hands it over ([`Merge::hold`]).
//! 4. [`Merge::apply`] inspects the workspace, plans, and changes it.
//! 5. [`Merge::finish`] removes the stage and releases the lock. It must follow every `begin` that succeeded.

use std::path::Path;
use std::time::SystemTime;

use super::apply::{merge, preview};
use super::conflicts::{check_runtime, prune};
use super::incoming::{Incoming, UNCHANGED};
use super::journal;
use super::lock::MergeLock;
use super::options::MergeOptions;
use super::plan::{changed, treat_as_unchanged};
use super::report::{Noted, Report, Rescued};
use super::sensitive;
use crate::error::{Error, Result};
use crate::fs::Root;
use crate::git::held::{self, Gained};
use crate::git::named::Outline;
use crate::path::RelativePath;
use crate::tree::entry::{Entry, Snapshot};
use crate::tree::stage::is_lock_name;

/// A merge that has begun: the incoming content is staged, and nothing else has changed.
#[derive(Debug)]
pub struct Merge {
    root: Root,
    incoming: Incoming,
    held_back: Vec<Noted>,
    bare: Vec<Noted>,
    needs_lock: bool,
    lock: Option<MergeLock>,
    /// Whether the stage holds no displaced version.
    settled: bool,
}

impl Merge {
    /// Begins the merge of an incoming side, and clears up what killed merges left. After a failure no stage
    /// is left.
    pub fn begin(root: Root, mut incoming: Incoming, base: &Snapshot, rescued: &mut Rescued) -> Result<Self> {
        if let Err(error) = journal::rescue(&root, rescued) {
            // The failure that led here is the one to report. The next merge removes a stage that stays.
            let _abandoned = incoming.stage.close(&root);
            return Err(error);
        }
        let held_back = hold_back(&mut incoming.snapshot, base);
        let needs_lock = changed(base, &incoming.snapshot).next().is_some();
        Ok(Self { root, incoming, held_back, bare: Vec::new(), needs_lock, lock: None, settled: true })
    }

    /// Whether the incoming side changed anything, so the workspace has to be locked.
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

    /// The links and folders that were there at the last merge, and those that the incoming side has.
    #[must_use]
    pub fn outline(&self, base: &Snapshot) -> Outline {
        let mut outline = Outline::default();
        for (path, entry) in base.iter().chain(self.incoming.snapshot.iter()) {
            match entry {
                Entry::Symlink { .. } => drop(outline.links.insert(path.clone())),
                Entry::Folder { .. } => outline.folders.push(path.clone()),
                Entry::File { .. } => {}
            }
        }
        outline.folders.sort_unstable();
        outline.folders.dedup();
        outline
    }

    /// What the incoming side has for which it matters what the local repositories have stored.
    pub fn gained(&self, base: &Snapshot) -> Result<Gained> {
        held::gained(&self.incoming.snapshot, base, &self.root)
    }

    /// How many entries the incoming side has.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.incoming.snapshot.len()
    }

    /// Takes over the workspace's lock until the merge is finished.
    pub fn hold(&mut self, lock: MergeLock) {
        self.lock = Some(lock);
    }

    /// Inspects the workspace and merges. If the incoming side changed nothing, nothing is inspected or written.
    pub fn apply(&mut self, options: &MergeOptions<'_>, rescued: &mut Rescued) -> Result<Report> {
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
        self.hold_bare(options)?;
        self.settled = false;
        let mut report = merge(&self.root, &mut self.incoming, options, rescued)?;
        report.held_back.clone_from(&self.held_back);
        self.settled = true;
        let backups: Vec<_> = report.conflicts.iter().chain(&report.deletions_backed_up).cloned().collect();
        report.skipped.extend(prune(&self.root, options.retention, SystemTime::now(), &backups));
        report.skipped.sort_unstable();
        Ok(report)
    }

    /// Reports what [`Merge::apply`] would do, without the workspace's lock and without a change.
    pub fn preview(&mut self, options: &MergeOptions<'_>) -> Result<Report> {
        self.hold_bare(options)?;
        let mut report = preview(&self.root, &mut self.incoming, options)?;
        report.held_back.clone_from(&self.held_back);
        Ok(report)
    }

    /// Treats as unchanged what git would take for a bare repository, or obey in one, with what is there locally by now.
    fn hold_bare(&mut self, options: &MergeOptions<'_>) -> Result<()> {
        let &MergeOptions { base, search, written, .. } = options;
        let Incoming { snapshot, staged, stage, .. } = &mut self.incoming;
        let may_be_head = |path: &RelativePath| {
            let opened = staged.get(path).and_then(|staged| {
                let mut cursor = stage.get(&self.root).ok()?.cursor();
                cursor.open(&staged.name).ok().flatten()
            });
            // What cannot be read counts as one, which is held back.
            opened.is_none_or(|(mut file, _)| held::begins_as_head(&mut file))
        };
        let bare = held::bare(snapshot, base, &self.root, search);
        let beside = bare.and_then(|mut bare| {
            bare.extend(held::beside_heads(snapshot, base, &self.root, &may_be_head, written)?);
            Ok(bare)
        });
        self.bare = beside.map_err(|error| error.with_hint(UNCHANGED))?;
        Ok(())
    }

    /// What was not taken over because git would take it for a bare repository, or obey it in one.
    #[must_use]
    pub fn bare(&self) -> &[Noted] {
        &self.bare
    }

    /// Releases the lock and removes the stage, after a merge that was applied, has failed or was given up.
    /// Returns what the incoming side has, which is the next base after a merge that did not fail, and whether
    /// the stage and the lock are gone. (The next merge clears up what is left of them.)
    ///
    /// After a failure the stage may contain a local version that could not be backed up, for example because
    /// the disk was full. It is backed up now if that works, or by a later merge.
    pub fn finish(self, rescued: &mut Rescued) -> (Snapshot, Result<()>) {
        let Incoming { snapshot, stage, .. } = self.incoming;
        // The lock first, because the stage belongs to this merge alone: the next merge clears up what a kill
        // in between leaves.
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

/// Treats what must not be taken over as unchanged, and returns what is reported as held back. (Lock files, which name
/// processes of this machine, are not even reported.)
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
    let moved = held::contents_at(theirs, base, held.iter().map(|noted: &Noted| &noted.path));
    let mut above = Vec::new();
    for Noted { path, reason } in &held {
        let folders = treat_as_unchanged(theirs, base, path);
        above.extend(folders.into_iter().map(|path| Noted { path, reason }));
    }
    for path in locks {
        treat_as_unchanged(theirs, base, &path);
    }
    held.append(&mut above);
    held.extend(held::keep_moved(theirs, base, &moved));
    held.sort_unstable();
    held.dedup();
    held
}
