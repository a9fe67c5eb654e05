//! Carries out a [`Plan`] in the workspace, while other people may work in the same tree.
//!
//! No earlier look is trusted. The version at a path is taken out in the same step in which the new version
//! goes in, and is compared then. If it is not the version that the plan was made for, it was edited in
//! between and is backed up. So no edit can be lost between a check and a rename.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::collisions::protect_colliding_names;
use super::conflicts::{ATTEMPTS, BackUp, Backups, backup_root, copy_across};
use super::incoming::{Incoming, UNCHANGED};
use super::journal::{DISPLACED, Displacement, Journal, NewVersion, PART};
use super::left_alone::must_stay;
use super::options::MergeOptions;
use super::plan::{
    DEFAULT_FOLDER_MODE, Local, Placement, Plan, changed, paths_to_inspect, plan, treat_as_unchanged,
};
use super::report::{Conflict, Noted, Report, Rescued, Skipped};
use super::sensitive::{ANYWHERE_ELSE, LEADS_OUT, Look, leads_out, sensitive};
use crate::cancel::Cancel;
use crate::error::{Error, Obstacle, Result};
use crate::fs::host::{self, is_root};
use crate::fs::{Cursor, Kind, Meta, Onto, Renamed, Root, link, rename, set_file_mode};
use crate::path::{ByPath, RelativePath};
use crate::sync::lock;
use crate::tree::entry::{Digest, Entry, PERMISSIONS, Snapshot};
use crate::tree::filter::Filter;
use crate::tree::scan::{Reader, inspect, scan};
use crate::tree::stage::Stage;

/// Write and search permission of the owner: the right to change what a folder contains.
const OWNER_WRITES: u32 = 0o300;

/// How many paths are inspected before the results are gathered.
const WINDOW: usize = 8192;

/// The hint of an error once files may have been replaced.
const BEGUN: &str = "the merge had begun: every file is complete, and once the cause is removed, the same call completes the merge";

/// Why a path is left as it is.
const MOUNT_POINT: &str = "it is a local mount point, or a mount point is in its way";

/// The local state of the paths that a plan depends on.
#[derive(Debug, Default)]
struct LocalState {
    local: ByPath<Local>,
    seen: ByPath<Meta>,
}

/// Merges the incoming side into the workspace. The caller holds the workspace's merge lock.
///
/// It can be cancelled until the first change; from then on the merge is completed. After a failure, the
/// backups made so far are added to `rescued`, for the report of the next merge.
pub fn merge(
    root: &Root,
    incoming: &mut Incoming,
    options: &MergeOptions<'_>,
    rescued: &mut Rescued,
) -> Result<Report> {
    let &MergeOptions { base, left_alone, cancel, .. } = options;
    let LocalState { local, seen } = inspect_local(root, incoming, options)?;
    treat_protected_as_unchanged(root, base, incoming, (&local, &seen), left_alone, cancel)?;
    let incoming = &*incoming;
    let mut plan = plan(base, &incoming.snapshot, &local);
    protect_colliding_names(root, &mut plan, &incoming.snapshot, &local, &seen, cancel)?;
    // After many changes this is large, and it is no longer needed.
    drop(local);
    cancel.check()?;
    let (mut lifted, conflicts) = (BTreeMap::new(), Backups::default());
    let deletions = plan.deletes_most_of(base).then(Backups::default);
    let applied = lift_write_protection(root, &plan, &mut lifted)
        .and_then(|()| apply(root, incoming, &plan, &seen, &conflicts, deletions.as_ref()));
    let backups = conflicts.into_conflicts();
    let deletions_backed_up = deletions.map(Backups::into_conflicts).unwrap_or_default();
    if applied.is_ok() {
        // These now have the sandbox's mode. After a failure their earlier modes still hold.
        for (path, _) in &plan.modes {
            lifted.remove(path);
        }
    } else {
        // New folders that were made have been writable until now; give them their final mode.
        let is_new =
            |path: &RelativePath| plan.folders.binary_search_by(|placement| placement.path.cmp(path)).is_ok();
        lifted.extend(plan.modes.iter().filter(|(path, _)| is_new(path)).cloned());
    }
    let restored = restore_write_protection(root, &lifted, &backups);
    let done = applied.and_then(|report| restored.map(|()| report));
    let mut report = match done {
        Ok(report) => report,
        Err(error) => {
            rescued.conflicts.extend(backups);
            rescued.deletions_backed_up.extend(deletions_backed_up);
            return Err(error);
        }
    };
    report.conflicts = backups;
    report.deletions_backed_up = deletions_backed_up;
    let (mut links, mut cursor, mut left) = (Links::default(), root.cursor(), LOOKS_MAX);
    let mut look = |path: &RelativePath| spent(&mut left, path).or_else(|| links.get(&mut cursor, path));
    report.sensitive = sensitive_of(&plan, (base, &incoming.snapshot), &report, &seen, &mut look);
    tell_planned(&mut report, plan, incoming);
    report.take_rescued(rescued);
    Ok(report)
}

/// Reports what a merge would do, and changes nothing. For a backup it names the folder that it would be in.
pub fn preview(root: &Root, incoming: &mut Incoming, options: &MergeOptions<'_>) -> Result<Report> {
    let &MergeOptions { base, left_alone, cancel, .. } = options;
    let LocalState { local, seen } = inspect_local(root, incoming, options)?;
    treat_protected_as_unchanged(root, base, incoming, (&local, &seen), left_alone, cancel)?;
    let mut plan = plan(base, &incoming.snapshot, &local);
    protect_colliding_names(root, &mut plan, &incoming.snapshot, &local, &seen, cancel)?;
    let backed_up_at = backup_root();
    let conflict = |path: &RelativePath| Conflict { path: path.clone(), backed_up_at: backed_up_at.clone() };
    let mut cursor = root.cursor();
    let mut report = Report::default();
    let mut deleted = HashSet::new();
    // The content of a folder comes before the folder, which stays if anything else is in it.
    for path in &plan.deletions {
        let is_folder = base.get(path).is_some_and(Entry::is_folder);
        let is_emptied = !is_folder
            || cursor.list(Some(path))?.is_none_or(|names| {
                names.iter().all(|name| deleted.contains(&RelativePath::child(Some(path), name)))
            });
        if is_emptied {
            deleted.insert(path.clone());
        }
    }
    for placement in plan.placements() {
        report.written.push(placement.path.clone());
        if placement.back_up {
            report.conflicts.push(conflict(&placement.path));
        }
    }
    // A folder that is replaced is backed up if anything is left in it.
    for placement in plan.in_place_of_folders.iter().filter(|placement| !placement.back_up) {
        let found = scan(&root.below(&placement.path)?, &Filter::default(), cancel)?;
        if found.iter().any(|found| !deleted.contains(&placement.path.join(&found.path))) {
            report.conflicts.push(conflict(&placement.path));
        }
    }
    for (path, mode) in plan.modes.iter().chain(&plan.file_modes) {
        let now = cursor.stat(path)?;
        if now.is_none_or(|now| now.mode & PERMISSIONS != mode & PERMISSIONS) {
            report.written.push(path.clone());
        }
    }
    if plan.deletes_most_of(base) {
        let files = plan.deletions.iter().filter(|path| !base.get(*path).is_some_and(Entry::is_folder));
        report.deletions_backed_up = files.map(conflict).collect();
    }
    report.deleted = deleted.into_iter().collect();
    let (mut links, mut left) = (Links::default(), LOOKS_MAX);
    let mut look = |path: &RelativePath| {
        spent(&mut left, path).or_else(|| match (incoming.snapshot.get(path), base.get(path)) {
            (Some(Entry::Symlink { target }), _) => Some(Arc::clone(target)),
            (None, None) => links.get(&mut cursor, path),
            _ => None,
        })
    };
    report.sensitive = sensitive_of(&plan, (base, &incoming.snapshot), &report, &seen, &mut look);
    tell_planned(&mut report, plan, incoming);
    report.take_rescued(&mut Rescued::default());
    Ok(report)
}

/// Reports what the plan left as it is.
fn tell_planned(report: &mut Report, plan: Plan<'_>, incoming: &Incoming) {
    report.already_here = plan.already_here.into_iter().map(|(path, _)| path).collect();
    report.left_in_place.extend(plan.left_in_place);
    report.skipped.extend(incoming.skipped.iter().cloned());
}

/// Treats paths that must stay as they are locally as unchanged on the incoming side.
fn treat_protected_as_unchanged(
    root: &Root,
    base: &Snapshot,
    incoming: &mut Incoming,
    (local, seen): (&ByPath<Local>, &ByPath<Meta>),
    left_alone: &Filter<'_>,
    cancel: &Cancel,
) -> Result<()> {
    let stays = must_stay(root, (base, &incoming.snapshot), (local, seen), left_alone, cancel)?;
    for skipped in stays {
        treat_as_unchanged(&mut incoming.snapshot, base, &skipped.path);
        incoming.skipped.push(skipped);
    }
    Ok(())
}

/// How many bytes the paths may have together that are looked at to follow links. Half a million links of ordinary length need less.
const LOOKS_MAX: usize = 256 << 20;

/// Counts a look. `None` while there may be more, else what a link counts as that is not followed.
fn spent(left: &mut usize, path: &RelativePath) -> Option<Arc<[u8]>> {
    *left = left.saturating_sub(path.as_bytes().len());
    (*left == 0).then(|| Arc::from(ANYWHERE_ELSE))
}

/// The targets of local links, each read once: many links have the same folders on their way.
#[derive(Default)]
struct Links(HashMap<RelativePath, Option<Arc<[u8]>>>);

impl Links {
    fn get(&mut self, cursor: &mut Cursor<'_>, path: &RelativePath) -> Option<Arc<[u8]>> {
        if let Some(target) = self.0.get(path) {
            return target.clone();
        }
        // Where this process may not look, no way can be followed.
        let target = cursor.read_link(path).ok().flatten();
        self.0.insert(path.clone(), target.clone());
        target
    }
}

/// The links that were not written, but lead out of the workspace now, since a link on their way was changed.
fn newly_leading_out(base: &Snapshot, theirs: &Snapshot, report: &Report, look: Look<'_>) -> Vec<Noted> {
    let is_link = |entry: Option<&Entry>| matches!(entry, Some(Entry::Symlink { .. }));
    let has_changed = !report.written.is_empty() || !report.deleted.is_empty();
    if !has_changed || !changed(base, theirs).any(|(_, before, after)| is_link(before) || is_link(after)) {
        return Vec::new();
    }
    let written: HashSet<&RelativePath> = report.written.iter().collect();
    let (mut found, mut left) = (Vec::new(), LOOKS_MAX);
    for (path, entry) in theirs {
        let Entry::Symlink { target } = entry else { continue };
        if written.contains(path) || !leads_out(path, target, look) {
            continue;
        }
        let mut before = |path: &RelativePath| {
            spent(&mut left, path).or_else(|| match (base.get(path), theirs.get(path)) {
                (Some(Entry::Symlink { target }), _) => Some(Arc::clone(target)),
                (None, None) => look(path),
                _ => None,
            })
        };
        if !leads_out(path, target, &mut before) {
            found.push(Noted { path: path.clone(), reason: LEADS_OUT });
        }
    }
    found
}

/// The paths that deserve a look after a merge of these two trees, with the reason.
fn sensitive_of(
    plan: &Plan<'_>,
    (base, theirs): (&Snapshot, &Snapshot),
    report: &Report,
    seen: &ByPath<Meta>,
    look: Look<'_>,
) -> Vec<Noted> {
    let was_executable = |path: &RelativePath| {
        seen.get(path).is_some_and(|meta| meta.kind == Kind::File && meta.mode & 0o111 != 0)
    };
    let mut noted = Vec::new();
    let mut note = |path: &RelativePath, entry: &Entry| {
        let reason = sensitive(path, entry, || was_executable(path), look);
        noted.extend(reason.map(|reason| Noted { path: path.clone(), reason }));
    };
    // Of a changed mode, nothing else is looked at.
    for (path, mode) in &plan.file_modes {
        note(path, &Entry::File { mode: *mode, digest: Digest([0; 32]) });
    }
    for placement in plan.placements() {
        match placement.mode {
            Some(mode) => note(&placement.path, &placement.entry.clone().with_mode(mode)),
            None => note(&placement.path, placement.entry),
        }
    }
    if !noted.is_empty() {
        let written: HashSet<&RelativePath> = report.written.iter().collect();
        noted.retain(|noted| written.contains(&noted.path));
    }
    // Whether these were executable before is not known.
    for (path, entry) in &plan.already_here {
        let reason = sensitive(path, entry, || true, look);
        noted.extend(reason.map(|reason| Noted { path: path.clone(), reason }));
    }
    noted.extend(newly_leading_out(base, theirs, report, look));
    noted
}

/// Makes read-only folders, such as those of a module cache, writable for as long as the merge takes. Folders
/// of other users stay as they are.
fn lift_write_protection(
    root: &Root,
    plan: &Plan<'_>,
    lifted: &mut BTreeMap<RelativePath, u32>,
) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let touched = plan.placements().map(|placement| &placement.path).chain(&plan.deletions);
    let mut folders: BTreeSet<RelativePath> = touched.filter_map(RelativePath::parent).collect();
    // To move a folder, its own `..` entry must be writable too.
    folders.extend(plan.in_place_of_folders.iter().map(|placement| placement.path.clone()));
    let mut cursor = root.cursor();
    for folder in folders {
        let Some(meta) = cursor.stat(&folder)?.filter(|meta| meta.kind == Kind::Folder) else { continue };
        if meta.mode & OWNER_WRITES != OWNER_WRITES && meta.owner.0 == host::user() {
            cursor.set_folder_mode(&folder, meta.mode | 0o700).map_err(|error| error.with_hint(UNCHANGED))?;
            lifted.insert(folder, meta.mode);
        }
    }
    Ok(())
}

/// Gives folders their modes back, innermost first, and goes on after a failure. A folder that was backed up
/// gets its mode in the backup.
fn restore_write_protection(
    root: &Root,
    lifted: &BTreeMap<RelativePath, u32>,
    backups: &[Conflict],
) -> Result<()> {
    let mut cursor = root.cursor();
    let mut restore = |path: &RelativePath, mode: u32| {
        let moved = backups.iter().filter_map(|conflict| path.moved(&conflict.path, &conflict.backed_up_at));
        for place in std::iter::once(path.clone()).chain(moved) {
            if cursor.stat(&place)?.is_some_and(|meta| meta.kind == Kind::Folder) {
                return cursor.set_folder_mode(&place, mode);
            }
        }
        Ok(())
    };
    let mut outcome = Ok(());
    for (path, mode) in lifted.iter().rev() {
        outcome = outcome.and(restore(path, *mode));
    }
    outcome.map_err(|error| error.with_hint(BEGUN))
}

/// Inspects the local paths that a plan depends on.
fn inspect_local(root: &Root, incoming: &Incoming, options: &MergeOptions<'_>) -> Result<LocalState> {
    let &MergeOptions { base, cancel, .. } = options;
    let paths = paths_to_inspect(base, &incoming.snapshot);
    let (mut local, mut seen) = (Vec::with_capacity(paths.len()), Vec::with_capacity(paths.len()));
    // One window at a time, because what the threads found is in memory twice until it is gathered.
    for paths in paths.chunks(WINDOW) {
        let looked = paths
            .par_iter()
            .map_init(
                || (root.cursor(), Reader::new()),
                |(cursor, reader), path| {
                    let Some(found) = inspect(cursor, path.clone())? else { return Ok(None) };
                    let meta = found.meta;
                    let local = if meta.kind == Kind::Other {
                        Local::Other
                    } else {
                        reader.entry(cursor, &found, cancel)?.map_or(Local::Absent, Local::Entry)
                    };
                    Ok(Some((found.path, local, meta)))
                },
            )
            .collect::<Result<Vec<_>>>()?;
        for (path, found, meta) in looked.into_iter().flatten() {
            local.push((path.clone(), found));
            seen.push((path, meta));
        }
    }
    Ok(LocalState { local: local.into_iter().collect(), seen: seen.into_iter().collect() })
}

/// One path of a plan, with all that is known about it.
struct Job<'a> {
    path: &'a RelativePath,
    /// The entry to be placed there, or `None` if the path is to be deleted.
    entry: Option<&'a Entry>,
    /// Whether the local version is backed up in any case.
    back_up: bool,
    /// The local version when the plan was made.
    seen: Option<&'a Meta>,
    /// The name in the stage: of the new version first, and of the displaced version afterwards.
    name: RelativePath,
    /// The inode of the new version, if it is staged already.
    staged: Option<u64>,
    /// The permission bits for the new version, if not those that it is staged with.
    mode: Option<u32>,
}

impl Job<'_> {
    fn is_folder(&self) -> bool {
        self.entry.is_some_and(Entry::is_folder)
    }

    /// The mode of a new folder until it is filled.
    fn first_mode(&self) -> u32 {
        match self.entry {
            Some(Entry::Folder { mode: Some(mode) }) => mode & PERMISSIONS | 0o700,
            _ => DEFAULT_FOLDER_MODE,
        }
    }

    /// The new version with its final mode.
    fn new_version(&self) -> Option<Entry> {
        let entry = self.entry.cloned()?;
        Some(if let Some(mode) = self.mode { entry.with_mode(mode) } else { entry })
    }

    fn displacement(&self) -> Displacement {
        let new_version = match (self.entry, self.staged) {
            (None, _) => NewVersion::Nothing,
            (Some(_), Some(ino)) => NewVersion::Inode(ino),
            (Some(_), None) => NewVersion::Folder,
        };
        Displacement::new(self.path, &self.name, new_version, self.seen, self.back_up)
    }
}

/// All moves of the plan, in the order of its groups.
fn jobs<'a>(
    plan: &'a Plan<'_>,
    incoming: &'a Incoming,
    seen: &'a ByPath<Meta>,
    stage: &Stage,
    backs_up_deletions: bool,
) -> Result<Vec<Job<'a>>> {
    let (mut seen, mut staged) = (seen.in_order(), incoming.staged.in_order());
    let placed = |placement: &'a Placement<'_>| {
        (&placement.path, Some(placement.entry), placement.back_up, placement.mode)
    };
    let before = plan.folders.iter().chain(&plan.files).map(placed);
    let deleted = plan.deletions.iter().map(|path| (path, None, backs_up_deletions, None));
    let after = plan.in_place_of_folders.iter().map(placed);
    before
        .chain(deleted)
        .chain(after)
        .map(|(path, entry, back_up, mode)| {
            let (name, staged) = match entry {
                Some(Entry::File { .. } | Entry::Symlink { .. }) => {
                    let staged = staged.find(path).ok_or_else(|| {
                        Error::Internal(format!("{path} differs from the base and yet was not staged"))
                    })?;
                    (staged.name.clone(), Some(staged.ino))
                }
                Some(Entry::Folder { .. }) | None => (stage.name(), None),
            };
            Ok(Job { path, entry, back_up, seen: seen.find(path), name, staged, mode })
        })
        .collect()
}

/// Carries out the plan, group by group.
fn apply(
    root: &Root,
    incoming: &Incoming,
    plan: &Plan<'_>,
    seen: &ByPath<Meta>,
    conflicts: &Backups,
    deletions: Option<&Backups>,
) -> Result<Report> {
    let mut report = Report::default();
    if plan.moves_anything() {
        let stage = incoming.stage.get(root).map_err(|error| error.with_hint(UNCHANGED))?;
        let jobs = jobs(plan, incoming, seen, stage, deletions.is_some())?;
        let journal =
            Journal::begin(stage, &jobs, Job::displacement).map_err(|error| error.with_hint(UNCHANGED))?;
        let apply = Apply::new(root, stage, journal, conflicts, deletions);
        let (folders, rest) = jobs.split_at(plan.folders.len());
        let (files, rest) = rest.split_at(plan.files.len());
        let (deletions, in_place_of_folders) = rest.split_at(plan.deletions.len());
        report.absorb(apply.in_order(folders)?);
        report.absorb(apply.at_once(files)?);
        report.absorb(apply.at_once(&plan.file_modes)?);
        report.absorb(apply.in_order(deletions)?);
        report.absorb(apply.in_order(in_place_of_folders)?);
    }
    let mut cursor = root.cursor();
    for (path, mode) in &plan.modes {
        if set_mode(&mut cursor, path, *mode).map_err(|error| error.with_hint(BEGUN))? {
            report.written.push(path.clone());
        }
    }
    Ok(report)
}

/// Gives a folder the sandbox's permission bits and keeps its other mode bits. Returns `false` if nothing had
/// to change.
fn set_mode(cursor: &mut Cursor<'_>, path: &RelativePath, mode: u32) -> Result<bool> {
    let Some(meta) = cursor.stat(path)?.filter(|meta| meta.kind == Kind::Folder) else { return Ok(false) };
    let wanted = (meta.mode & 0o7000) | (mode & PERMISSIONS);
    if meta.mode & 0o7777 == wanted {
        return Ok(false);
    }
    cursor.set_folder_mode(path, wanted)?;
    Ok(true)
}

struct Apply<'a> {
    root: &'a Root,
    stage: &'a Stage,
    journal: Journal,
    /// Held by the thread that exchanges names by means of hard links.
    by_links: Mutex<()>,
    conflicts: &'a Backups,
    /// Where deleted versions are backed up, if they are.
    deletions: Option<&'a Backups>,
    /// Whether a new version gets the owner of the one that it replaces, which only root can do.
    preserves_owner: bool,
}

impl<'a> Apply<'a> {
    fn new(
        root: &'a Root,
        stage: &'a Stage,
        journal: Journal,
        conflicts: &'a Backups,
        deletions: Option<&'a Backups>,
    ) -> Self {
        let preserves_owner = is_root();
        Self { root, stage, journal, by_links: Mutex::default(), conflicts, deletions, preserves_owner }
    }

    fn in_order(&self, tasks: &[impl Task]) -> Result<Report> {
        let mut worker = self.worker();
        tasks.iter().try_for_each(|task| task.run(&mut worker)).map_err(|error| error.with_hint(BEGUN))?;
        Ok(worker.report)
    }

    fn at_once(&self, tasks: &[impl Task]) -> Result<Report> {
        let reports = tasks.par_chunks(64).map(|tasks| self.in_order(tasks)).collect::<Result<Vec<_>>>()?;
        let mut all = Report::default();
        for report in reports {
            all.absorb(report);
        }
        Ok(all)
    }

    fn worker(&self) -> Worker<'_> {
        Worker {
            apply: self,
            in_stage: self.stage.cursor(),
            in_root: self.root.cursor(),
            beside: self.root.cursor(),
            report: Report::default(),
        }
    }
}

/// Where a version is outside its path: the new one before it is placed, the displaced one afterwards.
enum Location {
    /// In the stage.
    Staged(RelativePath),
    /// In the folder that the path is in, because that folder is on another file system than the stage.
    Beside(RelativePath),
}

/// One thread's share of the work.
struct Worker<'a> {
    apply: &'a Apply<'a>,
    in_stage: Cursor<'a>,
    in_root: Cursor<'a>,
    /// A second cursor into the workspace, for renames within it.
    beside: Cursor<'a>,
    report: Report,
}

/// A step of a plan that any thread can run.
trait Task: Sync {
    fn run(&self, worker: &mut Worker<'_>) -> Result<()>;
}

impl Task for Job<'_> {
    fn run(&self, worker: &mut Worker<'_>) -> Result<()> {
        if self.entry.is_some() { worker.place(self) } else { worker.delete(self) }
    }
}

/// A file that gets another mode.
impl Task for (RelativePath, u32) {
    fn run(&self, worker: &mut Worker<'_>) -> Result<()> {
        worker.set_file_mode(&self.0, self.1)
    }
}

impl Worker<'_> {
    /// Puts the sandbox's version at its path.
    fn place(&mut self, job: &Job<'_>) -> Result<()> {
        let path = job.path;
        let mut seen = job.seen.copied();
        if job.is_folder() {
            if seen.is_none() && self.make_missing_folder(job)? {
                return Ok(());
            }
            self.in_stage.make_folder(&job.name, job.first_mode())?;
        }
        let mut location = Location::Staged(match job.mode {
            Some(mode) => self.staged_with_mode(job, mode)?,
            None => job.name.clone(),
        });
        let mut back_up = job.back_up;
        // `None` if only a look can tell it.
        let mut owner = Some(self.apply.stage.owner());
        for _ in 0..ATTEMPTS {
            if let Some(replaced) = seen.filter(|replaced| owner != Some(replaced.owner)) {
                location = self.with_owner_of(&replaced, location, job)?;
                owner = None;
            }
            let moved = match seen {
                // It was made in between. It gets its mode in the last step, like all folders.
                Some(meta) if meta.kind == Kind::Folder && job.is_folder() => return self.discard(&location),
                Some(meta) if meta.kind == Kind::Folder => {
                    if (back_up || !self.in_root.remove_empty_folder(path)?)
                        && !self.back_up_in_place(path)?
                    {
                        Renamed::MountPoint
                    } else {
                        Renamed::Absent
                    }
                }
                Some(_) => self.exchange(&location, job)?,
                None => match self.move_in(&location, path)? {
                    Renamed::Absent if !self.make_folders(path)? => Renamed::MountPoint,
                    moved => moved,
                },
            };
            match (moved, seen) {
                (Renamed::Done, displaced) => {
                    self.report.written.push(path.clone());
                    return displaced.map_or(Ok(()), |_| self.dispose(&location, job, back_up));
                }
                (Renamed::OtherFileSystem, _) => {
                    location = self.copy_beside(&location, job)?;
                    owner = None;
                    continue;
                }
                (Renamed::MountPoint, _) => {
                    self.report_mount_point(path);
                    return self.discard(&location);
                }
                // What appeared in between was not uploaded.
                (Renamed::Occupied, _) => back_up = true,
                _ => {}
            }
            seen = self.in_root.stat(path)?;
        }
        Err(Obstacle::KeepsChanging.at("rename", self.in_root.path_of(path)))
    }

    /// Gives the new version the owner and group of the one that it replaces.
    ///
    /// An entry that replaces nothing, or replaces something on a file system without owners, belongs to this
    /// process. A staged file with further names is copied first, because the other names belong at other
    /// paths.
    fn with_owner_of(&mut self, replaced: &Meta, location: Location, job: &Job<'_>) -> Result<Location> {
        if !self.apply.preserves_owner {
            return Ok(location);
        }
        let (cursor, name) = location.cursor(&mut self.in_stage, &mut self.beside);
        let Some(new) = cursor.stat(name)?.filter(|new| new.owner != replaced.owner) else {
            return Ok(location);
        };
        let location = match location {
            Location::Staged(name) if new.links > 1 && new.kind != Kind::Folder => {
                Location::Staged(self.copy_of_shared(job, &name, &new)?)
            }
            location => location,
        };
        let (cursor, name) = location.cursor(&mut self.in_stage, &mut self.beside);
        cursor.set_owner(name, replaced.owner)?;
        Ok(location)
    }

    /// Copies a staged entry that is one of several names of its inode.
    fn copy_of_shared(&mut self, job: &Job<'_>, name: &RelativePath, meta: &Meta) -> Result<RelativePath> {
        let stage = self.apply.stage;
        if meta.kind == Kind::File {
            return self.staged_copy(job, name, meta.mode & PERMISSIONS);
        }
        let copied = match self.in_stage.read_link(name)? {
            Some(target) => {
                let copy = stage.name();
                self.in_stage.symlink(&target, &copy)?;
                self.in_stage.stat(&copy)?.map(|meta| (copy, meta.id.inode()))
            }
            None => None,
        };
        self.record_copy(job, copied)
    }

    fn staged_copy(&mut self, job: &Job<'_>, name: &RelativePath, mode: u32) -> Result<RelativePath> {
        let stage = self.apply.stage;
        let copied = copy_to_stage(stage, (&mut stage.cursor(), name), &mut self.in_stage, mode)?;
        self.record_copy(job, copied.map(|copied| (copied.name, copied.ino)))
    }

    /// Records in the journal the copy that takes the place of the staged entry.
    fn record_copy(&mut self, job: &Job<'_>, copied: Option<(RelativePath, u64)>) -> Result<RelativePath> {
        let Some((name, ino)) = copied else {
            return Err(Error::Internal(format!("what was staged for {} is gone", job.path)));
        };
        let new_version = NewVersion::Inode(ino);
        self.apply.journal.add(Displacement::new(job.path, &name, new_version, job.seen, job.back_up))?;
        Ok(name)
    }

    /// Gives a local file the sandbox's permission bits, and keeps its bytes and its other mode bits.
    ///
    /// A file with further names, or of another user, is replaced by a copy instead of being changed.
    fn set_file_mode(&mut self, path: &RelativePath, mode: u32) -> Result<()> {
        // A missing file is an edit made since the plan.
        let Some((file, meta)) = self.in_root.open(path)? else { return Ok(()) };
        if meta.mode & PERMISSIONS == mode {
            return Ok(());
        }
        let set = meta.links == 1 && {
            match set_file_mode(&file, (meta.mode & 0o7000) | mode) {
                Ok(()) => true,
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => false,
                Err(error) => return Err(Error::io("fchmod", self.in_root.path_of(path), error)),
            }
        };
        if set {
            self.report.written.push(path.clone());
            return Ok(());
        }
        drop(file);
        let copied = copy_to_stage(self.apply.stage, (&mut self.in_root, path), &mut self.in_stage, mode)?;
        let Some(Copied { name, ino, meta, digest }) = copied else { return Ok(()) };
        let entry = Entry::File { mode, digest };
        let (seen, staged) = (Some(&meta), Some(ino));
        let job = Job { path, entry: Some(&entry), back_up: false, seen, name, staged, mode: None };
        self.apply.journal.add(job.displacement())?;
        self.place(&job)
    }

    /// Gives a staged version other permission bits. One with further names in the stage is copied first,
    /// because those names belong at other paths.
    fn staged_with_mode(&mut self, job: &Job<'_>, mode: u32) -> Result<RelativePath> {
        if self.in_stage.stat(&job.name)?.is_none_or(|meta| meta.links == 1) {
            self.in_stage.set_staged_mode(&job.name, mode)?;
            return Ok(job.name.clone());
        }
        self.staged_copy(job, &job.name, mode)
    }

    /// Makes a folder at a path where nothing is. Returns `false` if something is there.
    fn make_missing_folder(&mut self, job: &Job<'_>) -> Result<bool> {
        let made = match self.in_root.make_folder(job.path, job.first_mode()) {
            Err(error) if error.is_gone() => false,
            made => made?,
        };
        if made {
            self.report.written.push(job.path.clone());
        }
        Ok(made)
    }

    fn report_mount_point(&mut self, path: &RelativePath) {
        self.report.skipped.push(Skipped { path: path.clone(), reason: MOUNT_POINT });
    }

    /// Moves the new version to a path where nothing is.
    fn move_in(&mut self, location: &Location, path: &RelativePath) -> Result<Renamed> {
        let (cursor, name) = location.cursor(&mut self.in_stage, &mut self.beside);
        match rename((cursor, name), (&mut self.in_root, path), Onto::Nothing)? {
            Renamed::Unsupported => move_in_by_link((cursor, name), (&mut self.in_root, path)),
            moved => Ok(moved),
        }
    }

    /// Exchanges the new version with the one at its path. Afterwards the displaced version is at `location`.
    fn exchange(&mut self, location: &Location, job: &Job<'_>) -> Result<Renamed> {
        let (cursor, name) = location.cursor(&mut self.in_stage, &mut self.beside);
        let moved = rename((cursor, name), (&mut self.in_root, job.path), Onto::Exchange)?;
        if moved != Renamed::Unsupported {
            return Ok(moved);
        }
        let mut again = match location {
            Location::Staged(_) => self.apply.stage.cursor(),
            Location::Beside(_) => self.apply.root.cursor(),
        };
        // One thread at a time: if two jobs name the same entry, the second must find what the first has
        // placed.
        let alone = lock(&self.apply.by_links);
        let moved =
            exchange_by_link((cursor, &mut again, name), (&mut self.in_root, job.path), job.is_folder())?;
        drop(alone);
        let left = location.with_suffix(DISPLACED);
        if moved != Renamed::Done {
            // It was interrupted half-way: the old version may exist nowhere else.
            let (cursor, name) = left.cursor(&mut self.in_stage, &mut self.beside);
            match (cursor.stat(name)?, self.in_root.stat(job.path)?) {
                (Some(left), Some(now)) if now.is_same_inode(&left) => {
                    cursor.remove_file(name)?;
                }
                (Some(_), _) => self.back_up(&left, job.path)?,
                (None, _) => {}
            }
        }
        Ok(moved)
    }

    /// Removes a displaced version if it is the one that the plan was made for, and backs it up otherwise.
    ///
    /// A look taken after the plan does not count, because it may have seen a later edit.
    fn dispose(&mut self, displaced: &Location, job: &Job<'_>, back_up: bool) -> Result<()> {
        let (cursor, name) = displaced.cursor(&mut self.in_stage, &mut self.beside);
        if let (false, Some(planned), Some(now)) = (back_up, job.seen, cursor.stat(name)?)
            && now.untouched_since(planned)
        {
            return cursor.remove_file(name).map(|_| ());
        }
        self.back_up(displaced, job.path)
    }

    fn discard(&mut self, location: &Location) -> Result<()> {
        let (cursor, name) = location.cursor(&mut self.in_stage, &mut self.beside);
        cursor.remove(name).map(|_| ())
    }

    /// Backs up a displaced version of `path`.
    fn back_up(&mut self, displaced: &Location, path: &RelativePath) -> Result<()> {
        let from = displaced.cursor(&mut self.in_stage, &mut self.beside);
        self.apply.conflicts.back_up(self.apply.root, from, path, true).map(|_| ())
    }

    /// Backs up what is at `path`. Returns `false` if it is a mount point or contains one.
    fn back_up_in_place(&mut self, path: &RelativePath) -> Result<bool> {
        let apply = self.apply;
        // Without recursion, because a tree may be deeper than a thread's stack. The number is how often the
        // folder was emptied.
        let mut paths = vec![(path.clone(), 0)];
        while let Some((path, emptied)) = paths.pop() {
            if self.in_root.is_mount_point(&path)? {
                return Ok(false);
            }
            if emptied > 0 && self.in_root.remove_empty_folder(&path)? {
                continue;
            }
            let backed_up = apply.conflicts.back_up(apply.root, (&mut self.beside, &path), &path, false)?;
            if backed_up == BackUp::Done {
                continue;
            }
            if self.has_mount_point(&path)? {
                return Ok(false);
            }
            match self.back_up_from_mount(&path)? {
                Renamed::Done | Renamed::Absent => continue,
                // A folder of a lower overlay layer cannot even be renamed, so its content is moved, entry by
                // entry.
                Renamed::OtherFileSystem if emptied < ATTEMPTS => {}
                _ => return Err(Obstacle::KeepsChanging.at("rename", self.in_root.path_of(&path))),
            }
            let below = self.in_root.list(Some(&path))?.unwrap_or_default();
            let below: Vec<_> =
                below.iter().map(|name| (RelativePath::child(Some(&path), name), 0)).collect();
            paths.push((path, emptied + 1));
            paths.extend(below);
        }
        Ok(true)
    }

    /// Whether a folder has something on another file system below it.
    fn has_mount_point(&mut self, path: &RelativePath) -> Result<bool> {
        let Some(meta) = self.in_root.stat(path)?.filter(|meta| meta.kind == Kind::Folder) else {
            return Ok(false);
        };
        let folder = match self.apply.root.below(path) {
            Err(error) if error.is_gone() => return Ok(false),
            folder => folder?,
        };
        let below = scan(&folder, &Filter::default(), &Cancel::default())?;
        Ok(below
            .iter()
            .any(|found| found.meta.kind == Kind::Folder && found.meta.id.device() != meta.id.device()))
    }

    /// Backs up what is on another file system than the conflicts. It is first renamed within its folder, so
    /// that nobody else reaches it by its name.
    fn back_up_from_mount(&mut self, path: &RelativePath) -> Result<Renamed> {
        let beside = Location::Beside(self.temporary_name_beside(path, None, None, true)?);
        let taken = self.move_out(path, &beside)?;
        if taken == Renamed::Done {
            self.back_up(&beside, path)?;
        }
        Ok(taken)
    }

    /// Makes the folders above a path that vanished in between, and backs up a link or file in the place of
    /// one. Returns `false` if that is a mount point.
    fn make_folders(&mut self, path: &RelativePath) -> Result<bool> {
        for folder in path.ancestors() {
            if self.in_root.make_folder(&folder, DEFAULT_FOLDER_MODE)? {
                continue;
            }
            if self.in_root.stat(&folder)?.is_some_and(|meta| meta.kind != Kind::Folder) {
                if !self.back_up_in_place(&folder)? {
                    return Ok(false);
                }
                self.in_root.make_folder(&folder, DEFAULT_FOLDER_MODE)?;
            }
        }
        Ok(true)
    }

    /// Picks a free name beside the path, for a version that cannot be in the stage because its folder is a
    /// mount below the workspace. The journal records the name before it is used.
    fn temporary_name_beside(
        &mut self,
        path: &RelativePath,
        entry: Option<&Entry>,
        seen: Option<&Meta>,
        back_up: bool,
    ) -> Result<RelativePath> {
        let beside = loop {
            let name = self.apply.stage.temporary_name();
            let beside = RelativePath::child(path.parent().as_ref(), name.as_bytes());
            if self.in_root.stat(&beside)?.is_none() {
                break beside;
            }
        };
        self.apply.journal.add(Displacement::beside(
            path,
            &beside,
            NewVersion::copy_of(entry),
            seen,
            back_up,
        ))?;
        Ok(beside)
    }

    /// Copies the new version into the folder that it belongs in.
    fn copy_beside(&mut self, location: &Location, job: &Job<'_>) -> Result<Location> {
        let Location::Staged(name) = location else {
            return Err(Obstacle::OtherFileSystem.at("rename", self.in_root.path_of(job.path)));
        };
        let beside =
            self.temporary_name_beside(job.path, job.new_version().as_ref(), job.seen, job.back_up)?;
        let copied = if job.is_folder() {
            self.in_root.make_folder(&beside, job.first_mode())?
        } else {
            let part = beside.with_suffix(PART);
            copy_across((&mut self.in_stage, name), (&mut self.in_root, &part))? == Renamed::Done
                && rename((&mut self.in_root, &part), (&mut self.beside, &beside), Onto::Replace)?
                    == Renamed::Done
        };
        if !copied {
            return Err(Obstacle::KeepsChanging.at("copyfile", self.in_root.path_of(&beside)));
        }
        Ok(Location::Beside(beside))
    }

    /// Deletes what the sandbox deleted, if it is still the version that was uploaded.
    fn delete(&mut self, job: &Job<'_>) -> Result<()> {
        let (path, Some(expected)) = (job.path, job.seen) else { return Ok(()) };
        if expected.kind == Kind::Folder {
            if self.in_root.remove_empty_folder(path)? {
                self.report.deleted.push(path.clone());
            }
            return Ok(());
        }
        let mut location = Location::Staged(job.name.clone());
        let mut taken = self.move_out(path, &location)?;
        if taken == Renamed::OtherFileSystem {
            location = Location::Beside(self.temporary_name_beside(path, None, job.seen, job.back_up)?);
            taken = self.move_out(path, &location)?;
        }
        match taken {
            Renamed::Done => {}
            Renamed::MountPoint => {
                self.report_mount_point(path);
                return Ok(());
            }
            _ => return Ok(()),
        }
        let (cursor, name) = location.cursor(&mut self.in_stage, &mut self.beside);
        if cursor.stat(name)?.is_some_and(|now| now.untouched_since(expected)) {
            if let Some(deletions) = self.apply.deletions {
                deletions.back_up(self.apply.root, (cursor, name), path, true)?;
            } else {
                cursor.remove_file(name)?;
            }
            self.report.deleted.push(path.clone());
            return Ok(());
        }
        // It was edited since the plan: put it back, or back it up if its path is taken by now.
        if self.move_in(&location, path)? == Renamed::Done {
            self.report.left_in_place.push(path.clone());
            return Ok(());
        }
        self.back_up(&location, path)
    }

    fn move_out(&mut self, path: &RelativePath, to: &Location) -> Result<Renamed> {
        let to = to.cursor(&mut self.in_stage, &mut self.beside);
        let taken = rename((&mut self.in_root, path), to, Onto::Replace);
        taken.map_err(|error| error.about(self.in_root.path_of(path)))
    }
}

impl Location {
    fn with_suffix(&self, suffix: &str) -> Self {
        match self {
            Self::Staged(name) => Self::Staged(name.with_suffix(suffix)),
            Self::Beside(name) => Self::Beside(name.with_suffix(suffix)),
        }
    }

    fn cursor<'c, 'r>(
        &self,
        in_stage: &'c mut Cursor<'r>,
        beside: &'c mut Cursor<'r>,
    ) -> (&'c mut Cursor<'r>, &RelativePath) {
        match self {
            Self::Staged(name) => (in_stage, name),
            Self::Beside(name) => (beside, name),
        }
    }
}

/// A file that was copied into the stage.
struct Copied {
    /// Its name there.
    name: RelativePath,
    /// The inode of the copy.
    ino: u64,
    /// The original's metadata when it was opened.
    meta: Meta,
    /// The digest of the copied bytes.
    digest: Digest,
}

/// Copies a file into the stage with other permission bits. Returns `None` if there is no file.
fn copy_to_stage(
    stage: &Stage,
    (from, path): (&mut Cursor<'_>, &RelativePath),
    in_stage: &mut Cursor<'_>,
    mode: u32,
) -> Result<Option<Copied>> {
    let (name, mut copy) = stage.file(in_stage, mode)?;
    let copy_path = in_stage.path_of(&name);
    let failed = |error| Error::io("write", &copy_path, error);
    let copied =
        Reader::new().file(from, path, &Cancel::default(), |bytes| copy.write_all(bytes).map_err(failed))?;
    let Some((meta, digest)) = copied else { return Ok(None) };
    let ino = Meta::of_file(&copy).map_err(failed)?.id.inode();
    Ok(Some(Copied { name, ino, meta, digest }))
}

/// [`Onto::Nothing`] for file systems with plain renames only: making a hard link never replaces anything.
fn move_in_by_link(
    (from, name): (&mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    if from.stat(name)?.is_some_and(|meta| meta.kind == Kind::Folder) {
        // A rename can put a folder in the place of an empty one, with all its content, in one step.
        let is_free = to.make_folder(path, 0o700)?;
        return if is_free { rename((from, name), (to, path), Onto::Replace) } else { Ok(Renamed::Occupied) };
    }
    let linked = link((from, name), (to, path))?;
    if linked == Renamed::Done {
        from.remove_file(name)?;
    }
    Ok(linked)
}

/// [`Onto::Exchange`] for file systems with plain renames only: the old version gets a second name before the
/// new one takes its place.
///
/// An edit that replaces the file between the two steps is lost; an edit in place is not.
fn exchange_by_link(
    (from, again, name): (&mut Cursor<'_>, &mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
    is_folder: bool,
) -> Result<Renamed> {
    let displaced = &name.with_suffix(DISPLACED);
    let second_name = if is_folder {
        // No rename puts a folder in the place of a file, so this is the one change that takes two steps.
        rename((to, path), (from, displaced), Onto::Replace)?
    } else {
        match link((to, path), (from, displaced)) {
            // A folder cannot have a second name: it was put there after the plan.
            Err(_) if to.stat(path)?.is_some_and(|meta| meta.kind == Kind::Folder) => Renamed::Absent,
            linked => linked?,
        }
    };
    if second_name != Renamed::Done {
        return Ok(second_name);
    }
    let moved = rename((from, name), (to, path), Onto::Replace)?;
    if moved == Renamed::Done && rename((from, displaced), (again, name), Onto::Replace)? != Renamed::Done {
        // The old version keeps a name that the journal knows.
        return Err(Obstacle::KeepsChanging.at("rename", to.path_of(path)));
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::merge::incoming::LazyStage;

    /// Displaces `content` from a path where the plan saw `seen`, and returns whether it is backed up.
    fn is_backed_up(content: &str, seen: Option<&str>) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let path = RelativePath::parse(b"file").unwrap().unwrap();
        let mut planned = None;
        if let Some(seen) = seen {
            fs::write(folder.path().join("file"), seen).unwrap();
            planned = root.cursor().stat(&path).unwrap();
        }
        if seen != Some(content) {
            // An editor saves by putting a new file in the place of the old one.
            fs::write(folder.path().join("new"), content).unwrap();
            fs::rename(folder.path().join("new"), folder.path().join("file")).unwrap();
        }
        let lazy = LazyStage::default();
        let stage = lazy.get(&root).unwrap();
        let journal = Journal::begin(stage, &[], Job::displacement).unwrap();
        let conflicts = Backups::default();
        let apply = Apply::new(&root, stage, journal, &conflicts, None);
        let name = stage.name();
        rename((&mut root.cursor(), &path), (&mut stage.cursor(), &name), Onto::Nothing).unwrap();
        let job = Job {
            path: &path,
            entry: None,
            back_up: false,
            seen: planned.as_ref(),
            name: name.clone(),
            staged: None,
            mode: None,
        };
        let mut worker = apply.worker();
        worker.dispose(&Location::Staged(name), &job, false).unwrap();
        let backups = conflicts.into_conflicts();
        let texts = backups
            .iter()
            .map(|conflict| fs::read_to_string(folder.path().join(conflict.backed_up_at.as_path())).unwrap());
        assert!(texts.clone().all(|text| text == content));
        texts.count() == 1
    }

    /// The fallback for file systems with plain renames only.
    #[test]
    fn a_folder_is_moved_with_its_content_where_only_plain_renames_work() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let [from, to] = [&b"from"[..], b"to"].map(|name| RelativePath::parse(name).unwrap().unwrap());
        fs::create_dir(folder.path().join("from")).unwrap();
        fs::write(folder.path().join("from/edit"), "edit").unwrap();
        let move_in = || move_in_by_link((&mut root.cursor(), &from), (&mut root.cursor(), &to)).unwrap();
        assert_eq!(move_in(), Renamed::Done);
        assert_eq!(fs::read_to_string(folder.path().join("to/edit")).unwrap(), "edit");
        fs::create_dir(folder.path().join("from")).unwrap();
        assert_eq!(move_in(), Renamed::Occupied);
        assert!(folder.path().join("from").exists());
    }

    #[test]
    fn a_displaced_version_is_removed_only_if_it_is_unchanged_since_the_plan() {
        assert!(!is_backed_up("uploaded", Some("uploaded")));
        assert!(is_backed_up("edited since", Some("uploaded")), "an edit after the plan was made");
        assert!(is_backed_up("appeared since", None), "a file where the plan saw none");
    }
}
