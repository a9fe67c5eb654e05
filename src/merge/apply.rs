//! Plan → file system, while other people work in the same tree.
//!
//! Whatever stands at a path when its turn comes is taken out in the same step in which the new version goes in, and
//! looked at then: if it is not what the plan was made for, somebody changed it meanwhile, and it is kept aside. So
//! there is no moment at which an edit could slip between a look and a rename.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rayon::prelude::*;

use super::incoming::{Incoming, LazyStage};
use super::plan::{Local, Placement, plan, to_look_at};
use super::report::{Conflict, Report};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::path::RelativePath;
use crate::time::utc_timestamp;
use crate::tree::entry::{Entry, PERMISSIONS, Snapshot};
use crate::tree::root::{Cursor, Kind, Meta, Onto, Renamed, Root, link, rename};
use crate::tree::scan::{Found, Reader};
use crate::tree::stage::{RUNTIME, Stage, make_runtime};

/// The folder in the runtime folder where local versions are kept.
const CONFLICTS: &str = "conflicts";

/// How often somebody may change a path under our hands before we give up on it.
const ATTEMPTS: u32 = 64;

/// How many folders of [`Worker::keep_aside`]'s path are made by [`Apply::conflict_folder`].
const CONFLICT_DEPTH: usize = 3;

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
    let plan = plan(base, &incoming.snapshot, &here.local);
    cancel.check()?;
    let apply = Apply {
        root,
        stage: &incoming.stage,
        staged: &incoming.staged,
        seen: &here.seen,
        conflicts: Mutex::new(None),
    };
    let mut report = Report { kept: plan.kept, skipped: incoming.skipped.clone(), ..Report::default() };
    report.absorb(apply.in_order(&plan.folders, |worker, placement| worker.place(placement))?);
    report.absorb(apply.at_once(&plan.files, |worker, placement| worker.place(placement))?);
    report.absorb(apply.in_order(&plan.deletions, |worker, path| worker.delete(path))?);
    report.absorb(apply.in_order(&plan.in_place_of_folders, |worker, placement| worker.place(placement))?);
    report.absorb(apply.in_order(&plan.modes, |worker, (path, mode)| worker.set_mode(path, *mode))?);
    report.sort();
    Ok(report)
}

/// Looks at the local paths that a plan depends on.
fn look(root: &Root, base: &Snapshot, incoming: &Incoming, cancel: &Cancel) -> Result<Here> {
    let looked = to_look_at(base, &incoming.snapshot)
        .into_par_iter()
        .map_init(
            || (root.cursor(), Reader::new()),
            |(cursor, reader), path| {
                let Some(meta) = cursor.stat(&path)? else { return Ok(None) };
                let target = if meta.kind == Kind::Symlink { cursor.read_link(&path)? } else { None };
                let found = Found { path, meta, target };
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
    let mut here = Here::default();
    for (path, local, meta) in looked {
        here.seen.insert(path.clone(), meta);
        here.local.insert(path, local);
    }
    Ok(here)
}

struct Apply<'a> {
    root: &'a Root,
    stage: &'a LazyStage,
    staged: &'a BTreeMap<RelativePath, RelativePath>,
    seen: &'a BTreeMap<RelativePath, Meta>,
    /// The folder of this merge's conflicts, once there is one.
    conflicts: Mutex<Option<RelativePath>>,
}

impl Apply<'_> {
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
        let reports = items
            .par_chunks(64)
            .map(|items| self.in_order(items, &work))
            .collect::<Result<Vec<_>>>()?;
        let mut all = Report::default();
        reports.into_iter().for_each(|report| all.absorb(report));
        Ok(all)
    }

    /// The folder of this merge's conflicts, made when the first one needs it, and kept out of git.
    fn conflict_folder(&self, cursor: &mut Cursor<'_>) -> Result<RelativePath> {
        let mut folder = self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*folder {
            return Ok(folder.clone());
        }
        make_runtime(cursor)?;
        let runtime = RelativePath::child(None, RUNTIME.as_bytes());
        let ignore = RelativePath::child(Some(&runtime), b".gitignore");
        if cursor.stat(&ignore)?.is_none() {
            let mut file = cursor.create(&ignore, 0o644)?;
            file.write_all(b"*\n").map_err(|error| Error::io("write", cursor.path_of(&ignore), error))?;
        }
        let conflicts = RelativePath::child(Some(&runtime), CONFLICTS.as_bytes());
        make_folder(cursor, &conflicts)?;
        // Colons in file names trouble other systems.
        let time = utc_timestamp(SystemTime::now()).replace(':', "-");
        let mut made = RelativePath::child(Some(&conflicts), time.as_bytes());
        for serial in 2.. {
            if cursor.make_dir(&made, 0o755)? {
                break;
            }
            made = RelativePath::child(Some(&conflicts), format!("{time}~{serial}").as_bytes());
        }
        Ok(folder.insert(made).clone())
    }
}

/// Makes a folder of ours; a link or file in its place is never followed or replaced.
fn make_folder(cursor: &mut Cursor<'_>, path: &RelativePath) -> Result<()> {
    if cursor.make_dir(path, 0o755)? || cursor.stat(path)?.is_some_and(|meta| meta.kind == Kind::Dir) {
        return Ok(());
    }
    Err(Error::UnsafePath {
        path: cursor.path_of(path).display().to_string(),
        offset: None,
        reason: "it must be a folder, since local versions are kept there; move it away and try again".to_owned(),
    })
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
                    if !self.in_root.remove_empty_dir(path)? {
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
                    return displaced.map_or(Ok(()), |expected| self.settle(&waiting, path, &expected, aside));
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
        let name = match entry {
            Entry::File { .. } => self.apply.staged.get(path).cloned().ok_or_else(|| {
                Error::Internal(format!("{path} differs from the base and yet was not staged"))
            })?,
            Entry::Symlink { target } => {
                let name = self.stage.name();
                self.in_stage.symlink(target, &name)?;
                name
            }
            Entry::Dir { .. } => {
                let name = self.stage.name();
                self.in_stage.make_dir(&name, 0o700)?;
                name
            }
        };
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

    /// Deals with what was displaced: removed if it is what the plan was made for, kept aside otherwise.
    fn settle(&mut self, displaced: &Waiting, path: &RelativePath, expected: &Meta, aside: bool) -> Result<()> {
        let (cursor, name) = displaced.cursor(&mut self.in_stage, &mut self.beside);
        if !aside && cursor.stat(name)?.is_some_and(|now| now.untouched_since(expected)) {
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
        let folder = self.apply.conflict_folder(&mut self.in_root)?;
        for serial in 1..=ATTEMPTS {
            let mut kept_at = folder.join(path);
            if serial > 1 {
                kept_at = kept_at.with_suffix(&format!("~{serial}"));
            }
            for above in kept_at.ancestors().skip(CONFLICT_DEPTH) {
                // A file kept earlier may stand where a folder is needed now.
                self.in_root.make_dir(&above, 0o755)?;
            }
            let mut third = self.apply.root.cursor();
            let (from, name) = match displaced {
                Some(displaced) => displaced.cursor(&mut self.in_stage, &mut self.beside),
                None => (&mut self.beside, path),
            };
            let moved = match rename((from, name), (&mut third, &kept_at), Onto::Nothing)? {
                Renamed::Unsupported if third.stat(&kept_at)?.is_some() => Renamed::Occupied,
                // Nobody else writes into this merge's own folder.
                Renamed::Unsupported => rename((from, name), (&mut third, &kept_at), Onto::Replace)?,
                Renamed::OtherFileSystem => copy_across((from, name), (&mut third, &kept_at))?,
                moved => moved,
            };
            match moved {
                Renamed::Done => {
                    self.report.conflicts.push(Conflict { path: path.clone(), kept_at });
                    return Ok(());
                }
                // It is gone, so there is nothing to keep.
                Renamed::Absent if from.stat(name)?.is_none() => return Ok(()),
                _ => {}
            }
        }
        Err(Error::io("rename", self.in_root.path_of(path), rustix::io::Errno::EXIST))
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
            copy_across((&mut self.in_stage, &name), (&mut self.in_root, &beside))?;
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
        let name = self.stage.name();
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
        let Some(meta) = self.in_root.stat(path)?.filter(|meta| meta.kind == Kind::Dir) else { return Ok(()) };
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
    let displaced = &name.with_suffix(".displaced");
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

/// Copies a file or link to a new name on another file system, and removes it here.
fn copy_across(
    (from, name): (&mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    let Some(meta) = from.stat(name)? else { return Ok(Renamed::Absent) };
    if to.stat(path)?.is_some() {
        return Ok(Renamed::Occupied);
    }
    match meta.kind {
        Kind::Symlink => {
            let Some(target) = from.read_link(name)? else { return Ok(Renamed::Absent) };
            to.symlink(&target, path)?;
        }
        Kind::File => {
            let Some((mut file, _)) = from.open(name)? else { return Ok(Renamed::Absent) };
            let mut copy = to.create(path, 0o600)?;
            std::io::copy(&mut file, &mut copy)
                .and_then(|_| copy.set_permissions(std::fs::Permissions::from_mode(meta.mode & PERMISSIONS)))
                .map_err(|error| Error::io("copyfile", to.path_of(path), error))?;
        }
        Kind::Dir | Kind::Other => {
            return Err(Error::io("rename", from.path_of(name), rustix::io::Errno::XDEV));
        }
    }
    from.remove_file(name)?;
    Ok(Renamed::Done)
}
