//! Plan → file system, while other people work in the same tree.
//!
//! Whatever stands at a path when its turn comes is taken out in the same step in which the new version goes in, and
//! looked at then: if it is not what the plan was made for, somebody changed it meanwhile, and it is kept aside. So
//! there is no moment at which an edit could slip between a look and a rename.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::conflicts::{Conflicts, copy_across};
use super::incoming::{Incoming, LazyStage, Staged};
use super::journal::{self, Arriving, DISPLACED, Displacement};
use super::plan::{Local, Placement, Plan, plan, to_look_at};
use super::report::{Conflict, Report};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::path::RelativePath;
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
    local: BTreeMap<RelativePath, Local>,
    seen: BTreeMap<RelativePath, Meta>,
}

/// Merges what came in into the workspace. To be called under the workspace's merge lock.
///
/// Cancelling works until the first change; then the merge is completed.
pub fn merge(root: &Root, base: &Snapshot, incoming: &Incoming, cancel: &Cancel) -> Result<Report> {
    let here = look(root, base, incoming, cancel)?;
    let mut plan = plan(base, &incoming.snapshot, &here.local);
    plan.spare_what_falls_together(&incoming.snapshot, &here.seen);
    cancel.check()?;
    let apply = Apply::new(root, incoming, &plan, &here.seen)?;
    let mut lifted = lift_write_protection(root, base, &plan)?;
    let applied = apply.all(&plan);
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

struct Apply<'a> {
    root: &'a Root,
    stage: &'a LazyStage,
    seen: &'a BTreeMap<RelativePath, Meta>,
    staged: &'a BTreeMap<RelativePath, Staged>,
    /// The names in the stage of links and folders that go in, and of what is deleted.
    names: BTreeMap<RelativePath, RelativePath>,
    conflicts: Conflicts,
}

impl<'a> Apply<'a> {
    /// Gives everything its name in the stage, and writes down what is about to be displaced.
    fn new(
        root: &'a Root,
        incoming: &'a Incoming,
        plan: &Plan<'_>,
        seen: &'a BTreeMap<RelativePath, Meta>,
    ) -> Result<Self> {
        let arriving =
            plan.placements().map(|placement| (&placement.path, Some(placement.entry), placement.aside));
        let leaving = plan.deletions.iter().map(|path| (path, None, false));
        let moves = || arriving.clone().chain(leaving.clone());
        let mut apply = Self {
            root,
            stage: &incoming.stage,
            staged: &incoming.staged,
            seen,
            names: BTreeMap::new(),
            conflicts: Conflicts::default(),
        };
        if moves().next().is_none() {
            return Ok(apply);
        }
        let stage = incoming.stage.get(root)?;
        for (path, entry, _) in moves() {
            match entry {
                Some(Entry::File { .. }) if incoming.staged.contains_key(path) => {}
                Some(Entry::File { .. }) => {
                    return Err(Error::Internal(format!(
                        "{path} differs from the base and yet was not staged"
                    )));
                }
                _ => {
                    apply.names.insert(path.clone(), stage.name());
                }
            }
        }
        let displacements = moves().map(|(path, entry, aside)| {
            let arriving = match (entry, apply.staged.get(path)) {
                (Some(Entry::Dir { .. }), _) => Arriving::Dir,
                (Some(Entry::Symlink { .. }), _) => Arriving::Symlink,
                (Some(Entry::File { .. }), Some(staged)) => Arriving::File(staged.meta.ino),
                _ => Arriving::Nothing,
            };
            Displacement::new(path, apply.name(path), arriving, seen.get(path), aside)
        });
        journal::write(stage, displacements)?;
        Ok(apply)
    }

    /// The name in the stage of what goes to a path of the plan, and of what is displaced from it.
    fn name(&self, path: &RelativePath) -> &RelativePath {
        let staged = self.staged.get(path).map(|staged| &staged.name);
        self.names.get(path).or(staged).expect("every path of a plan has got its name")
    }

    /// The groups of a plan, in their order.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "a method by its name is not general enough for rustc"
    )]
    fn all(&self, plan: &Plan<'_>) -> Result<Report> {
        let mut report = self.in_order(&plan.folders, |worker, placement| worker.place(placement))?;
        report.absorb(self.at_once(&plan.files, |worker, placement| worker.place(placement))?);
        report.absorb(self.in_order(&plan.deletions, |worker, path| worker.delete(path))?);
        report.absorb(self.in_order(&plan.in_place_of_folders, |worker, placement| worker.place(placement))?);
        report.absorb(self.in_order(&plan.modes, |worker, (path, mode)| worker.set_mode(path, *mode))?);
        Ok(report)
    }

    fn in_order<T>(
        &self,
        items: &[T],
        mut work: impl FnMut(&mut Worker<'_>, &T) -> Result<()>,
    ) -> Result<Report> {
        if items.is_empty() {
            return Ok(Report::default());
        }
        let stage = self.stage.get(self.root)?;
        let mut worker = Worker {
            apply: self,
            stage,
            in_stage: stage.cursor(),
            in_root: self.root.cursor(),
            beside: self.root.cursor(),
            report: Report::default(),
        };
        items.iter().try_for_each(|item| work(&mut worker, item)).map_err(|error| error.with_hint(BEGUN))?;
        Ok(worker.report)
    }

    fn at_once<T: Sync>(
        &self,
        items: &[T],
        work: impl Fn(&mut Worker<'_>, &T) -> Result<()> + Sync,
    ) -> Result<Report> {
        let reports =
            items.par_chunks(64).map(|items| self.in_order(items, &work)).collect::<Result<Vec<_>>>()?;
        let mut all = Report::default();
        for report in reports {
            all.absorb(report);
        }
        Ok(all)
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
    stage: &'a Stage,
    in_stage: Cursor<'a>,
    in_root: Cursor<'a>,
    /// A second place to work from in the workspace, for renames within it.
    beside: Cursor<'a>,
    report: Report,
}

impl Worker<'_> {
    /// Puts the sandbox's version at its path.
    fn place(&mut self, Placement { path, entry, aside }: &Placement<'_>) -> Result<()> {
        let mut seen = self.apply.seen.get(path).copied();
        if entry.is_dir() && seen.is_none() && self.make_missing_dir(path)? {
            return Ok(());
        }
        let mut waiting = self.ready(path, entry)?;
        let mut aside = *aside;
        for _ in 0..ATTEMPTS {
            let moved = match seen {
                // Somebody made it meanwhile; it gets its mode like all others.
                Some(meta) if meta.kind == Kind::Dir && entry.is_dir() => return self.discard(&waiting),
                Some(meta) if meta.kind == Kind::Dir => {
                    if aside || !self.in_root.remove_empty_dir(path)? {
                        self.keep_aside(None, path)?;
                    }
                    Renamed::Absent
                }
                Some(_) => self.exchange(&waiting, path, entry)?,
                None => self.move_in(&waiting, path)?,
            };
            match (moved, seen) {
                (Renamed::Done, displaced) => {
                    self.report.written.push(path.clone());
                    return displaced.map_or(Ok(()), |_| self.settle(&waiting, path, aside));
                }
                (Renamed::OtherFileSystem, _) => {
                    waiting = self.bring_beside(waiting, path, entry)?;
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

    /// The new version in the stage.
    fn ready(&mut self, path: &RelativePath, entry: &Entry) -> Result<Waiting> {
        let name = self.apply.name(path).clone();
        match entry {
            // It has been there since it was checked.
            Entry::File { .. } => {}
            Entry::Symlink { target } => self.in_stage.symlink(target, &name)?,
            Entry::Dir { .. } => {
                self.in_stage.make_dir(&name, 0o700)?;
            }
        }
        Ok(Waiting::Staged(name))
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
    fn exchange(&mut self, waiting: &Waiting, path: &RelativePath, entry: &Entry) -> Result<Renamed> {
        let (cursor, name) = waiting.cursor(&mut self.in_stage, &mut self.beside);
        match rename((cursor, name), (&mut self.in_root, path), Onto::Exchange)? {
            Renamed::Unsupported => {
                let again = match waiting {
                    Waiting::Staged(_) => &mut self.stage.cursor(),
                    Waiting::Beside(_) => &mut self.apply.root.cursor(),
                };
                exchange_by_link((cursor, again, name), (&mut self.in_root, path), entry.is_dir())
            }
            moved => Ok(moved),
        }
    }

    /// Deals with what was displaced: removed if it is what the plan was made for, kept aside otherwise. A later look
    /// at the path does not count: what it saw may be an edit made since.
    fn settle(&mut self, displaced: &Waiting, path: &RelativePath, aside: bool) -> Result<()> {
        let (cursor, name) = displaced.cursor(&mut self.in_stage, &mut self.beside);
        if let (false, Some(planned), Some(now)) = (aside, self.apply.seen.get(path), cursor.stat(name)?)
            && now.untouched_since(planned)
        {
            return cursor.remove_file(name).map(|_| ());
        }
        self.keep_aside(Some(displaced), path)
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

    /// Copies the new version into the folder it is to stand in: a mount below the workspace.
    fn bring_beside(&mut self, waiting: Waiting, path: &RelativePath, entry: &Entry) -> Result<Waiting> {
        let Waiting::Staged(name) = waiting else {
            return Err(Error::io("rename", self.in_root.path_of(path), rustix::io::Errno::XDEV));
        };
        let beside = path.with_suffix(&format!(".paperclip-{}-{}", std::process::id(), name));
        if entry.is_dir() {
            self.in_root.make_dir(&beside, 0o700)?;
        } else {
            match copy_across((&mut self.in_stage, &name), (&mut self.in_root, &beside))? {
                Renamed::Done => {}
                _ => {
                    return Err(Error::io(
                        "copyfile",
                        self.in_root.path_of(&beside),
                        rustix::io::Errno::EXIST,
                    ));
                }
            }
        }
        Ok(Waiting::Beside(beside))
    }

    /// Deletes what the sandbox deleted, if it is still what was uploaded.
    fn delete(&mut self, path: &RelativePath) -> Result<()> {
        let Some(expected) = self.apply.seen.get(path) else { return Ok(()) };
        if expected.kind == Kind::Dir {
            if self.in_root.remove_empty_dir(path)? {
                self.report.deleted.push(path.clone());
            }
            return Ok(());
        }
        let name = self.apply.name(path).clone();
        match rename((&mut self.in_root, path), (&mut self.in_stage, &name), Onto::Replace)? {
            Renamed::Done => {}
            Renamed::OtherFileSystem => {
                // Without a stage on its file system the last look is the one before.
                if self.in_root.stat(path)?.is_some_and(|now| now.untouched_since(expected)) {
                    self.in_root.remove_file(path)?;
                    self.report.deleted.push(path.clone());
                }
                return Ok(());
            }
            _ => return Ok(()),
        }
        if self.in_stage.stat(&name)?.is_some_and(|now| now.untouched_since(expected)) {
            self.in_stage.remove_file(&name)?;
            self.report.deleted.push(path.clone());
            return Ok(());
        }
        // Somebody changed it since the plan was made: it goes back, or aside where its place was taken.
        let waiting = Waiting::Staged(name);
        if self.move_in(&waiting, path)? == Renamed::Done {
            self.report.kept.push(path.clone());
            return Ok(());
        }
        self.keep_aside(Some(&waiting), path)
    }

    /// Gives a folder the sandbox's permission bits; what else its mode says is local.
    fn set_mode(&mut self, path: &RelativePath, mode: u32) -> Result<()> {
        let Some(meta) = self.in_root.stat(path)?.filter(|meta| meta.kind == Kind::Dir) else {
            return Ok(());
        };
        let wanted = (meta.mode & 0o7000) | (mode & PERMISSIONS);
        if meta.mode & 0o7777 != wanted {
            self.in_root.set_dir_mode(path, wanted)?;
            self.report.written.push(path.clone());
        }
        Ok(())
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

    /// Displaces `content` from a path that the plan saw as `seen`, and tells whether it is kept aside.
    fn is_kept(content: &str, seen: Option<&str>) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let path = RelativePath::parse(b"file").unwrap().unwrap();
        let mut planned = BTreeMap::new();
        if let Some(seen) = seen {
            fs::write(folder.path().join("file"), seen).unwrap();
            planned.insert(path.clone(), look_at(&mut root.cursor(), path.clone()).unwrap().unwrap().meta);
        }
        if seen != Some(content) {
            // As editors save: a new file takes the place of the old.
            fs::write(folder.path().join("new"), content).unwrap();
            fs::rename(folder.path().join("new"), folder.path().join("file")).unwrap();
        }
        let incoming = Incoming {
            snapshot: Snapshot::new(),
            staged: BTreeMap::new(),
            skipped: Vec::new(),
            stage: LazyStage::default(),
        };
        let apply = Apply::new(&root, &incoming, &Plan::default(), &planned).unwrap();
        let stage = incoming.stage.get(&root).unwrap();
        let name = stage.name();
        rename((&mut root.cursor(), &path), (&mut stage.cursor(), &name), Onto::Nothing).unwrap();
        let report = apply
            .in_order(&[()], |worker, ()| worker.settle(&Waiting::Staged(name.clone()), &path, false))
            .unwrap();
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
