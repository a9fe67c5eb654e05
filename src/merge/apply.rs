//! Plan → file system, while other people work in the same tree.
//!
//! Whatever stands at a path when its turn comes is taken out in the same step in which the new version goes in, and
//! looked at then: if it is not what the plan was made for, somebody changed it meanwhile, and it is kept aside. So
//! there is no moment at which an edit could slip between a look and a rename.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::conflicts::{Conflicts, copy_across};
use super::incoming::{Incoming, UNCHANGED};
use super::journal::{Arriving, DISPLACED, Displacement, Journal, PART};
use super::plan::{Local, Placement, Plan, plan, to_look_at};
use super::report::{Conflict, Report};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::path::{ByPath, RelativePath};
use crate::tree::entry::{Entry, PERMISSIONS, Snapshot};
use crate::tree::root::{Cursor, Kind, Meta, Onto, Renamed, Root, link, rename};
use crate::tree::scan::{Reader, look as look_at};
use crate::tree::stage::Stage;

/// The owner's right to change what is in a folder.
const OWNER_WRITES: u32 = 0o300;

/// How often somebody may change a path under our hands before we give up on it.
const ATTEMPTS: u32 = 64;

/// What a failure says once files may have been replaced.
const BEGUN: &str = "the merge had begun: every file is whole, and the same call completes it";

/// What stands here at the paths that a plan depends on.
#[derive(Debug, Default)]
struct Here {
    local: ByPath<Local>,
    seen: ByPath<Meta>,
}

/// Merges what came in into the workspace. To be called under the workspace's merge lock.
///
/// Cancelling works until the first change; then the merge is completed.
pub fn merge(root: &Root, base: &Snapshot, incoming: &Incoming, cancel: &Cancel) -> Result<Report> {
    let here = look(root, base, incoming, cancel)?;
    let mut plan = plan(base, &incoming.snapshot, &here.local);
    plan.spare_what_falls_together(&incoming.snapshot, &here.seen);
    cancel.check()?;
    let mut lifted = lift_write_protection(root, base, &plan)?;
    let applied = apply(root, incoming, &plan, &here.seen);
    if applied.is_ok() {
        // These have got another mode, from the sandbox; after a failure what they had before still holds.
        for (path, _) in &plan.modes {
            lifted.remove(path);
        }
    }
    let restored = restore_write_protection(root, &lifted);
    let mut report = applied?;
    restored?;
    report.kept.extend(plan.kept);
    report.skipped.extend(incoming.skipped.iter().cloned());
    report.sort();
    Ok(report)
}

/// Lets us work in folders that were uploaded as read-only, such as those of a module cache, for as long as the merge
/// takes. A folder that somebody made read-only here stays so, and a change in it fails.
fn lift_write_protection(
    root: &Root,
    base: &Snapshot,
    plan: &Plan<'_>,
) -> Result<BTreeMap<RelativePath, u32>> {
    if rustix::process::geteuid().is_root() {
        return Ok(BTreeMap::new());
    }
    let touched = plan.placements().map(|placement| &placement.path).chain(&plan.deletions);
    let folders: BTreeSet<RelativePath> = touched.filter_map(RelativePath::parent).collect();
    let mut cursor = root.cursor();
    let mut lifted = BTreeMap::new();
    for folder in folders {
        let Some(Entry::Dir { mode: Some(uploaded) }) = base.get(&folder) else { continue };
        let Some(meta) = cursor.stat(&folder)?.filter(|meta| meta.kind == Kind::Dir) else { continue };
        if meta.mode & OWNER_WRITES != OWNER_WRITES && meta.mode & PERMISSIONS == uploaded & PERMISSIONS {
            cursor.set_dir_mode(&folder, meta.mode | 0o700)?;
            lifted.insert(folder, meta.mode);
        }
    }
    Ok(lifted)
}

/// Gives the folders their modes again, innermost first.
fn restore_write_protection(root: &Root, lifted: &BTreeMap<RelativePath, u32>) -> Result<()> {
    let mut cursor = root.cursor();
    for (path, mode) in lifted.iter().rev() {
        if cursor.stat(path)?.is_some_and(|meta| meta.kind == Kind::Dir) {
            cursor.set_dir_mode(path, *mode)?;
        }
    }
    Ok(())
}

/// Looks at the local paths that a plan depends on.
fn look(root: &Root, base: &Snapshot, incoming: &Incoming, cancel: &Cancel) -> Result<Here> {
    let looked = to_look_at(base, &incoming.snapshot)
        .into_par_iter()
        .map_init(
            || (root.cursor(), Reader::new()),
            |(cursor, reader), path| {
                let Some(found) = look_at(cursor, path)? else { return Ok(None) };
                let meta = found.meta;
                let local = if meta.kind == Kind::Other {
                    Local::Other
                } else {
                    reader.entry(cursor, &found, cancel)?.map_or(Local::Absent, Local::Entry)
                };
                Ok(Some((found.path, local, meta)))
            },
        )
        .filter_map(Result::transpose)
        .collect::<Result<Vec<_>>>()?;
    Ok(Here {
        seen: looked.iter().map(|(path, _, meta)| (path.clone(), *meta)).collect(),
        local: looked.into_iter().map(|(path, local, _)| (path, local)).collect(),
    })
}

/// One path of a plan, with all that is known of it.
struct Job<'a> {
    path: &'a RelativePath,
    /// What is to stand there; nothing where the path is to be deleted.
    entry: Option<&'a Entry>,
    /// Whether what stands there is kept in any case.
    aside: bool,
    /// What stood there when the plan was made.
    seen: Option<&'a Meta>,
    /// The name in the stage of the new version, and of the displaced one afterwards.
    name: RelativePath,
    /// The inode of the new version, where it is staged already.
    staged: Option<u64>,
}

impl Job<'_> {
    fn displacement(&self) -> Displacement {
        let arriving = match (self.entry, self.staged) {
            (None, _) => Arriving::Nothing,
            (Some(_), Some(ino)) => Arriving::Inode(ino),
            (Some(_), None) => Arriving::Dir,
        };
        Displacement::new(self.path, &self.name, arriving, self.seen, self.aside)
    }
}

/// Everything that the plan moves, in the order of its groups.
fn jobs<'a>(
    plan: &'a Plan<'_>,
    incoming: &'a Incoming,
    seen: &'a ByPath<Meta>,
    stage: &Stage,
) -> Result<Vec<Job<'a>>> {
    let (mut seen, mut staged) = (seen.in_order(), incoming.staged.in_order());
    let placed = |placement: &'a Placement<'_>| (&placement.path, Some(placement.entry), placement.aside);
    let before = plan.folders.iter().chain(&plan.files).map(placed);
    let deleted = plan.deletions.iter().map(|path| (path, None, false));
    let after = plan.in_place_of_folders.iter().map(placed);
    before
        .chain(deleted)
        .chain(after)
        .map(|(path, entry, aside)| {
            let (name, staged) = match entry {
                Some(Entry::File { .. } | Entry::Symlink { .. }) => {
                    let staged = staged.find(path).ok_or_else(|| {
                        Error::Internal(format!("{path} differs from the base and yet was not staged"))
                    })?;
                    (staged.name.clone(), Some(staged.ino))
                }
                Some(Entry::Dir { .. }) | None => (stage.name(), None),
            };
            Ok(Job { path, entry, aside, seen: seen.find(path), name, staged })
        })
        .collect()
}

/// Does what is planned, group by group.
fn apply(root: &Root, incoming: &Incoming, plan: &Plan<'_>, seen: &ByPath<Meta>) -> Result<Report> {
    let mut report = Report::default();
    if plan.moves_anything() {
        let stage = incoming.stage.get(root)?;
        let jobs = jobs(plan, incoming, seen, stage)?;
        let journal =
            Journal::begin(stage, &jobs, Job::displacement).map_err(|error| error.with_hint(UNCHANGED))?;
        let apply = Apply { root, stage, journal, conflicts: Conflicts::default() };
        let (folders, rest) = jobs.split_at(plan.folders.len());
        let (files, rest) = rest.split_at(plan.files.len());
        let (deletions, in_place_of_folders) = rest.split_at(plan.deletions.len());
        report.absorb(apply.in_order(folders)?);
        report.absorb(apply.at_once(files)?);
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

/// Gives a folder the sandbox's permission bits; what else its mode says is local. `false` where it has them.
fn set_mode(cursor: &mut Cursor<'_>, path: &RelativePath, mode: u32) -> Result<bool> {
    let Some(meta) = cursor.stat(path)?.filter(|meta| meta.kind == Kind::Dir) else { return Ok(false) };
    let wanted = (meta.mode & 0o7000) | (mode & PERMISSIONS);
    if meta.mode & 0o7777 == wanted {
        return Ok(false);
    }
    cursor.set_dir_mode(path, wanted)?;
    Ok(true)
}

struct Apply<'a> {
    root: &'a Root,
    stage: &'a Stage,
    journal: Journal,
    conflicts: Conflicts,
}

impl Apply<'_> {
    fn in_order(&self, jobs: &[Job<'_>]) -> Result<Report> {
        let mut worker = self.worker();
        jobs.iter().try_for_each(|job| worker.work(job)).map_err(|error| error.with_hint(BEGUN))?;
        Ok(worker.report)
    }

    fn at_once(&self, jobs: &[Job<'_>]) -> Result<Report> {
        let reports = jobs.par_chunks(64).map(|jobs| self.in_order(jobs)).collect::<Result<Vec<_>>>()?;
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

/// Where a version waits: the new one before it is put in place, the displaced one after.
enum Waiting {
    /// In the stage.
    Staged(RelativePath),
    /// In the folder it is to stand in, because that one is on another file system than the stage.
    Beside(RelativePath),
}

/// One thread's share of the work.
struct Worker<'a> {
    apply: &'a Apply<'a>,
    in_stage: Cursor<'a>,
    in_root: Cursor<'a>,
    /// A second place to work from in the workspace, for renames within it.
    beside: Cursor<'a>,
    report: Report,
}

impl Worker<'_> {
    fn work(&mut self, job: &Job<'_>) -> Result<()> {
        if job.entry.is_some() { self.place(job) } else { self.delete(job) }
    }

    /// Puts the sandbox's version at its path.
    fn place(&mut self, job: &Job<'_>) -> Result<()> {
        let path = job.path;
        let is_dir = job.staged.is_none();
        let mut seen = job.seen.copied();
        if is_dir && seen.is_none() && self.make_missing_dir(path)? {
            return Ok(());
        }
        let mut waiting = Waiting::Staged(job.name.clone());
        if is_dir {
            self.in_stage.make_dir(&job.name, 0o700)?;
        }
        let mut aside = job.aside;
        for _ in 0..ATTEMPTS {
            let moved = match seen {
                // Somebody made it meanwhile; it gets its mode like all others.
                Some(meta) if meta.kind == Kind::Dir && is_dir => return self.discard(&waiting),
                Some(meta) if meta.kind == Kind::Dir => {
                    if aside || !self.in_root.remove_empty_dir(path)? {
                        self.keep_aside(None, path)?;
                    }
                    Renamed::Absent
                }
                Some(_) => self.exchange(&waiting, path, is_dir)?,
                None => self.move_in(&waiting, path)?,
            };
            match (moved, seen) {
                (Renamed::Done, displaced) => {
                    self.report.written.push(path.clone());
                    return displaced.map_or(Ok(()), |_| self.settle(&waiting, job, aside));
                }
                (Renamed::OtherFileSystem, _) => {
                    waiting = self.bring_beside(&waiting, job)?;
                    continue;
                }
                // What appeared meanwhile is nobody's upload.
                (Renamed::Occupied, _) => aside = true,
                (Renamed::Absent, None) => self.make_folders(path)?,
                _ => {}
            }
            seen = self.in_root.stat(path)?;
        }
        Err(Error::io("rename", self.in_root.path_of(path), rustix::io::Errno::BUSY))
    }

    /// Makes a folder where nothing stands. `false` where something does.
    fn make_missing_dir(&mut self, path: &RelativePath) -> Result<bool> {
        let made = match self.in_root.make_dir(path, 0o700) {
            Err(error) if error.is_gone() => false,
            made => made?,
        };
        if made {
            self.report.written.push(path.clone());
        }
        Ok(made)
    }

    /// Moves the new version to where nothing stands.
    fn move_in(&mut self, waiting: &Waiting, path: &RelativePath) -> Result<Renamed> {
        let (cursor, name) = waiting.cursor(&mut self.in_stage, &mut self.beside);
        match rename((cursor, name), (&mut self.in_root, path), Onto::Nothing)? {
            Renamed::Unsupported => move_in_by_link((cursor, name), (&mut self.in_root, path)),
            moved => Ok(moved),
        }
    }

    /// Puts the new version in the place of what stands at `path`, which waits in its stead afterwards.
    fn exchange(&mut self, waiting: &Waiting, path: &RelativePath, is_dir: bool) -> Result<Renamed> {
        let (cursor, name) = waiting.cursor(&mut self.in_stage, &mut self.beside);
        match rename((cursor, name), (&mut self.in_root, path), Onto::Exchange)? {
            Renamed::Unsupported => {
                let again = match waiting {
                    Waiting::Staged(_) => &mut self.apply.stage.cursor(),
                    Waiting::Beside(_) => &mut self.apply.root.cursor(),
                };
                exchange_by_link((cursor, again, name), (&mut self.in_root, path), is_dir)
            }
            moved => Ok(moved),
        }
    }

    /// Deals with what was displaced: removed if it is what the plan was made for, kept aside otherwise. A later look
    /// at the path does not count: what it saw may be an edit made since.
    fn settle(&mut self, displaced: &Waiting, job: &Job<'_>, aside: bool) -> Result<()> {
        let (cursor, name) = displaced.cursor(&mut self.in_stage, &mut self.beside);
        if let (false, Some(planned), Some(now)) = (aside, job.seen, cursor.stat(name)?)
            && now.untouched_since(planned)
        {
            return cursor.remove_file(name).map(|_| ());
        }
        self.keep_aside(Some(displaced), job.path)
    }

    fn discard(&mut self, waiting: &Waiting) -> Result<()> {
        let (cursor, name) = waiting.cursor(&mut self.in_stage, &mut self.beside);
        if !cursor.remove_empty_dir(name)? {
            cursor.remove_file(name)?;
        }
        Ok(())
    }

    /// Keeps a local version of `path` under the conflicts: the displaced one, or (`None`) what stands there.
    fn keep_aside(&mut self, displaced: Option<&Waiting>, path: &RelativePath) -> Result<()> {
        let from = match displaced {
            Some(displaced) => displaced.cursor(&mut self.in_stage, &mut self.beside),
            None => (&mut self.beside, path),
        };
        let kept_at = self.apply.conflicts.keep(self.apply.root, from, path)?;
        self.report.conflicts.extend(kept_at.map(|kept_at| Conflict { path: path.clone(), kept_at }));
        Ok(())
    }

    /// Makes the folders above a path that vanished meanwhile; a link or file in the place of one is kept aside.
    fn make_folders(&mut self, path: &RelativePath) -> Result<()> {
        for folder in path.ancestors() {
            if self.in_root.make_dir(&folder, 0o755)? {
                continue;
            }
            if self.in_root.stat(&folder)?.is_some_and(|meta| meta.kind != Kind::Dir) {
                self.keep_aside(None, &folder)?;
                self.in_root.make_dir(&folder, 0o755)?;
            }
        }
        Ok(())
    }

    /// A name in the folder that the path lies in, for what cannot wait in the stage: the folder is a mount below the
    /// workspace. The journal knows of it before it is there.
    fn name_beside(&self, job: &Job<'_>) -> Result<RelativePath> {
        let name = self.apply.stage.name_elsewhere();
        let beside = RelativePath::child(job.path.parent().as_ref(), name.as_bytes());
        let arriving = Arriving::copy_of(job.entry);
        let displacement = Displacement::new(job.path, &beside, arriving, job.seen, job.aside);
        self.apply.journal.add(displacement.in_workspace())?;
        Ok(beside)
    }

    /// Copies the new version into the folder it is to stand in.
    fn bring_beside(&mut self, waiting: &Waiting, job: &Job<'_>) -> Result<Waiting> {
        let Waiting::Staged(name) = waiting else {
            return Err(Error::io("rename", self.in_root.path_of(job.path), rustix::io::Errno::XDEV));
        };
        let beside = self.name_beside(job)?;
        let copied = if job.staged.is_none() {
            self.in_root.make_dir(&beside, 0o700)?
        } else {
            let part = beside.with_suffix(PART);
            copy_across((&mut self.in_stage, name), (&mut self.in_root, &part))? == Renamed::Done
                && rename((&mut self.in_root, &part), (&mut self.beside, &beside), Onto::Replace)?
                    == Renamed::Done
        };
        if !copied {
            return Err(Error::io("copyfile", self.in_root.path_of(&beside), rustix::io::Errno::BUSY));
        }
        Ok(Waiting::Beside(beside))
    }

    /// Deletes what the sandbox deleted, if it is still what was uploaded.
    fn delete(&mut self, job: &Job<'_>) -> Result<()> {
        let (path, Some(expected)) = (job.path, job.seen) else { return Ok(()) };
        if expected.kind == Kind::Dir {
            if self.in_root.remove_empty_dir(path)? {
                self.report.deleted.push(path.clone());
            }
            return Ok(());
        }
        let mut waiting = Waiting::Staged(job.name.clone());
        let mut taken = self.take_out(path, &waiting)?;
        if taken == Renamed::OtherFileSystem {
            waiting = Waiting::Beside(self.name_beside(job)?);
            taken = self.take_out(path, &waiting)?;
        }
        if taken != Renamed::Done {
            return Ok(());
        }
        let (cursor, name) = waiting.cursor(&mut self.in_stage, &mut self.beside);
        if cursor.stat(name)?.is_some_and(|now| now.untouched_since(expected)) {
            cursor.remove_file(name)?;
            self.report.deleted.push(path.clone());
            return Ok(());
        }
        // Somebody changed it since the plan was made: it goes back, or aside where its place was taken.
        if self.move_in(&waiting, path)? == Renamed::Done {
            self.report.kept.push(path.clone());
            return Ok(());
        }
        self.keep_aside(Some(&waiting), path)
    }

    fn take_out(&mut self, path: &RelativePath, to: &Waiting) -> Result<Renamed> {
        rename((&mut self.in_root, path), to.cursor(&mut self.in_stage, &mut self.beside), Onto::Replace)
    }
}

impl Waiting {
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

/// [`Onto::Nothing`] for file systems that know only plain renames: a further name never replaces anything.
fn move_in_by_link(
    (from, name): (&mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    if from.stat(name)?.is_some_and(|meta| meta.kind == Kind::Dir) {
        if !to.make_dir(path, 0o700)? {
            return Ok(Renamed::Occupied);
        }
        from.remove_empty_dir(name)?;
        return Ok(Renamed::Done);
    }
    let linked = link((from, name), (to, path))?;
    if linked == Renamed::Done {
        from.remove_file(name)?;
    }
    Ok(linked)
}

/// [`Onto::Exchange`] for file systems that know only plain renames: the old version gets a second name before the
/// new one takes its place. An edit that replaces the file between the two steps is lost; no edit in place is.
fn exchange_by_link(
    (from, again, name): (&mut Cursor<'_>, &mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
    is_dir: bool,
) -> Result<Renamed> {
    let displaced = &name.with_suffix(DISPLACED);
    let kept = if is_dir {
        // No rename puts a folder in the place of a file: this is the one change in two steps.
        rename((to, path), (from, displaced), Onto::Replace)?
    } else {
        link((to, path), (from, displaced))?
    };
    if kept != Renamed::Done {
        return Ok(kept);
    }
    let moved = rename((from, name), (to, path), Onto::Replace)?;
    if moved == Renamed::Done {
        rename((from, displaced), (again, name), Onto::Replace)?;
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::merge::incoming::LazyStage;

    /// Displaces `content` from a path that the plan saw as `seen`, and tells whether it is kept aside.
    fn is_kept(content: &str, seen: Option<&str>) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let path = RelativePath::parse(b"file").unwrap().unwrap();
        let mut planned = None;
        if let Some(seen) = seen {
            fs::write(folder.path().join("file"), seen).unwrap();
            planned = root.cursor().stat(&path).unwrap();
        }
        if seen != Some(content) {
            // As editors save: a new file takes the place of the old.
            fs::write(folder.path().join("new"), content).unwrap();
            fs::rename(folder.path().join("new"), folder.path().join("file")).unwrap();
        }
        let lazy = LazyStage::default();
        let stage = lazy.get(&root).unwrap();
        let journal = Journal::begin(stage, &[], Job::displacement).unwrap();
        let apply = Apply { root: &root, stage, journal, conflicts: Conflicts::default() };
        let name = stage.name();
        rename((&mut root.cursor(), &path), (&mut stage.cursor(), &name), Onto::Nothing).unwrap();
        let job = Job {
            path: &path,
            entry: None,
            aside: false,
            seen: planned.as_ref(),
            name: name.clone(),
            staged: None,
        };
        let mut worker = apply.worker();
        worker.settle(&Waiting::Staged(name), &job, false).unwrap();
        let report = worker.report;
        let kept = report
            .conflicts
            .iter()
            .map(|conflict| fs::read_to_string(folder.path().join(conflict.kept_at.as_path())).unwrap());
        assert!(kept.clone().all(|kept| kept == content));
        kept.count() == 1
    }

    #[test]
    fn only_what_the_plan_was_made_for_is_removed() {
        assert!(!is_kept("uploaded", Some("uploaded")));
        assert!(is_kept("edited since", Some("uploaded")), "an edit after the plan was made");
        assert!(is_kept("appeared since", None), "a file where the plan saw none");
    }
}
