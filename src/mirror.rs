//! Makes one folder equal to another.
//!
//! Everything that can fail on the source's side comes first: the source is read as a whole, and what the
//! target lacks is copied into a stage folder inside the target. Only then is anything removed or renamed.
//!
//! Both folders are locked (`flock` on the folder itself) from before the first look until the end: the
//! target exclusively, and the source against mirrors into it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;

use crate::cancel::Cancel;
use crate::error::{Error, Obstacle, Result};
use crate::exclude::PathSet;
use crate::fs::collisions::{collision_candidates, folds_names};
use crate::fs::host::{self, is_root};
use crate::fs::{
    Cursor, File, FileId, Hold, Kind, Meta, Onto, Renamed, Root, Sharing, by_path, read_fully, rename,
    set_file_mode, try_lock,
};
use crate::path::RelativePath;
use crate::tree::filter::Filter;
use crate::tree::scan::{CHUNK, Found, scan};
use crate::tree::stage::remove_tree;
use crate::tree::temporary::{self, is_temporary_name};

/// How long to wait before the next attempt if another mirror uses one of the folders.
pub const POLL: Duration = Duration::from_millis(25);

/// The hint of an error before the first change, and after it.
const UNTOUCHED: &str = "the target was left as it was";
const BEGUN: &str =
    "the target was being changed: every file in it is complete, and the same call completes the mirror";

/// Write and search permission of the owner: the right to change what a folder contains.
const OWNER_WRITES: u32 = 0o300;

/// Makes `target` equal to `source`, except what `preserve` names. Waits on this thread for other mirrors.
pub fn mirror(source: &Path, target: &Path, preserve: &PathSet, cancel: &Cancel) -> Result<()> {
    loop {
        cancel.check()?;
        if let Some(mirror) = Mirror::begin(source, target, cancel)? {
            return mirror.finish(preserve, cancel);
        }
        std::thread::sleep(POLL);
    }
}

/// Two locked folders, one of which is to be made equal to the other.
#[derive(Debug)]
pub struct Mirror {
    from: Root,
    to: Root,
    /// The folders that were made for the target, outermost first.
    made: Vec<PathBuf>,
}

impl Mirror {
    /// Opens and locks the two folders, and makes the target if it is missing. `None` if another mirror uses
    /// one of them. Never waits.
    pub fn begin(source: &Path, target: &Path, cancel: &Cancel) -> Result<Option<Self>> {
        let from = Root::open(source)?;
        refuse_overlap(source, target)?;
        let missing = missing_folders(target)?;
        if !missing.is_empty() {
            // If the source cannot be read, no target is made.
            scan(&from, &Filter::by_name(is_temporary_name), cancel)?;
        }
        let made = make_folders(missing)?;
        let mirror = Self { from, to: Root::create(target)?, made };
        // Without the lock, the folders that were made stay: another mirror may have begun to use them.
        Ok(mirror.try_lock()?.then_some(mirror))
    }

    /// Locks both, always in the same order, so of two mirrors in opposite directions one gets both locks.
    /// The locks last as long as the handles.
    fn try_lock(&self) -> Result<bool> {
        let mut locks = [(&self.from, Sharing::Shared), (&self.to, Sharing::Exclusive)]
            .map(|(root, sharing)| root.meta().map(|meta| (meta.id, root, sharing)));
        if let [Ok((from, ..)), Ok((to, ..))] = &locks
            && to < from
        {
            locks.reverse();
        }
        for lock in locks {
            let (id, root, sharing) = lock?;
            match try_lock(root, sharing)? {
                Hold::Taken => return Ok(false),
                // On a file system without locks, mirrors cannot wait for each other.
                Hold::Ours | Hold::Unknown => {}
            }
            // A mirror that failed may have removed the target that it had made, before it was locked here.
            if !leads_to(root.path(), id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the target equal, except what `preserve` names, and unlocks both.
    pub fn finish(self, preserve: &PathSet, cancel: &Cancel) -> Result<()> {
        let mirrored = self.make_equal(preserve, cancel);
        if mirrored.is_err() {
            for made in self.made.iter().rev() {
                // The failure is the one to report. A folder that is not empty cannot be removed, and stays.
                let _not_empty = by_path::remove_folder(made);
            }
        }
        mirrored
    }

    fn make_equal(&self, preserve: &PathSet, cancel: &Cancel) -> Result<()> {
        let Self { from, to, .. } = self;
        let mut wanted = scan(from, &Filter::by_name(is_temporary_name), cancel)?;
        wanted.retain(|found| found.meta.kind != Kind::Other);
        let present = scan(to, &Filter::default(), cancel)?;
        let plan = Plan::new(&wanted, &present, preserve, to.path())?;
        let mut lifted = Lifted::default();
        let mirrored = lifted.lift_root(to).and_then(|()| {
            let stage = make_stage(to)?;
            let mirrored = to.below(&stage).and_then(|staged| {
                self.make_equal_in(&plan, [&wanted, &present], preserve, &staged, &mut lifted, cancel)
            });
            // The first failure is the one to report.
            let cleaned = remove_tree(to, &stage);
            mirrored.and(cleaned)
        });
        let restored = lifted.restore(to);
        mirrored.and(restored)
    }

    fn make_equal_in(
        &self,
        plan: &Plan<'_>,
        [wanted, present]: [&[Found]; 2],
        preserve: &PathSet,
        stage: &Root,
        lifted: &mut Lifted,
        cancel: &Cancel,
    ) -> Result<()> {
        let Self { from, to, .. } = self;
        let prepared = refuse_collisions(wanted, present, preserve, to, stage, cancel)
            .and_then(|()| stage_all(plan, from, to, stage, cancel))
            .and_then(|pieces| {
                cancel.check()?;
                // A folder that was removed in the meantime looks like one that was emptied.
                if !leads_to(from.path(), from.meta()?.id)? {
                    return Err(Obstacle::Vanished
                        .at("lstat", from.path())
                        .with_hint("the source was removed or replaced while it was read"));
                }
                lifted.lift(plan, &pieces, present, to)?;
                Ok(pieces)
            });
        let pieces = prepared.map_err(|error| error.with_hint(UNTOUCHED))?;
        apply(plan, &pieces, to, stage).map_err(|error| error.with_hint(BEGUN))?;
        // These have the source's modes now.
        for found in &plan.modes {
            lifted.folders.remove(&found.path);
        }
        Ok(())
    }
}

/// Whether a path still leads to that file.
fn leads_to(path: &Path, id: FileId) -> Result<bool> {
    Ok(by_path::stat(path)?.is_some_and(|meta| meta.id == id))
}

/// The missing folders on the way to a path, including the path itself, outermost first.
fn missing_folders(path: &Path) -> Result<Vec<PathBuf>> {
    let absolute = std::path::absolute(path).map_err(|error| Error::io("realpath", path, error))?;
    let missing = absolute.ancestors().take_while(|folder| !by_path::exists(folder));
    let mut missing: Vec<_> = missing.map(Path::to_path_buf).collect();
    missing.reverse();
    Ok(missing)
}

/// Makes folders, outermost first, and returns those that no other process had made in between.
fn make_folders(missing: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for folder in missing {
        if by_path::make_folder(&folder)? {
            made.push(folder);
        }
    }
    Ok(made)
}

/// Makes the stage folder for new content. If a killed mirror leaves one, no source contains it, so the next
/// mirror removes it.
fn make_stage(to: &Root) -> Result<RelativePath> {
    let mut cursor = to.cursor();
    loop {
        let stage = RelativePath::child(None, temporary::name(temporary::MIRROR).as_bytes());
        if cursor.make_folder(&stage, 0o700)? {
            return Ok(stage);
        }
    }
}

/// Read-only folders that were made writable for the mirror, with the modes that they get back.
#[derive(Debug, Default)]
struct Lifted {
    root: Option<u32>,
    folders: BTreeMap<RelativePath, u32>,
}

impl Lifted {
    fn lift_root(&mut self, to: &Root) -> Result<()> {
        let mode = to.meta()?.mode;
        if mode & OWNER_WRITES != OWNER_WRITES && !to.cursor().is_writable(None)? {
            to.set_mode(mode | 0o700)?;
            self.root = Some(mode);
        }
        Ok(())
    }

    /// Makes every folder writable that the plan changes, so a missing permission is found before the first
    /// change.
    fn lift(&mut self, plan: &Plan<'_>, pieces: &[Piece], present: &[Found], to: &Root) -> Result<()> {
        if is_root() {
            return Ok(());
        }
        let modes: BTreeMap<_, _> = present
            .iter()
            .filter(|found| found.meta.kind == Kind::Folder)
            .map(|found| (&found.path, found.meta.mode))
            .collect();
        let mut cursor = to.cursor();
        for folder in plan.changes_in(pieces) {
            // Folders that the mirror makes belong to this user.
            let Some(&mode) = modes.get(&folder) else { continue };
            if cursor.is_writable(Some(&folder))? {
                continue;
            }
            if mode & OWNER_WRITES != OWNER_WRITES {
                cursor.set_folder_mode(&folder, mode | 0o700)?;
                self.folders.insert(folder.clone(), mode);
            }
            if !cursor.is_writable(Some(&folder))? {
                return Err(Obstacle::NotWritable
                    .at("access", to.path_of(&folder))
                    .with_hint("what is in it has to be changed; let this user write there"));
            }
        }
        // Only the owner may set a mode. Setting the present one changes nothing, and shows whether this user
        // may.
        for found in &plan.modes {
            if let Some(&mode) = modes.get(&found.path)
                && !self.folders.contains_key(&found.path)
            {
                cursor.set_folder_mode(&found.path, mode)?;
            }
        }
        Ok(())
    }

    /// Gives the folders their modes back, innermost first, and goes on after a failure.
    fn restore(self, to: &Root) -> Result<()> {
        let mut cursor = to.cursor();
        let mut restore = |path: &RelativePath, mode: u32| match cursor.stat(path)? {
            Some(meta) if meta.kind == Kind::Folder => cursor.set_folder_mode(path, mode),
            _ => Ok(()),
        };
        let mut outcome = Ok(());
        for (path, mode) in self.folders.iter().rev() {
            outcome = outcome.and(restore(path, *mode));
        }
        if let Some(mode) = self.root {
            outcome = outcome.and(to.set_mode(mode));
        }
        outcome
    }
}

/// Refuses folders of which one is inside the other: the mirror would copy its own copies.
fn refuse_overlap(source: &Path, target: &Path) -> Result<()> {
    let source_path = by_path::resolve(source)?;
    // The target may not exist yet. What counts is where it would be made.
    let absolute = std::path::absolute(target).map_err(|error| Error::io("realpath", target, error))?;
    let mut existing: &Path = &absolute;
    let mut missing = PathBuf::new();
    let target_path = loop {
        match by_path::resolve(existing) {
            Ok(path) => break path.join(missing),
            Err(error) if error.is_io(io::ErrorKind::NotFound) => {}
            Err(error) => return Err(error),
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            break absolute.clone();
        };
        missing = Path::new(name).join(missing);
        existing = parent;
    };
    let target_path: PathBuf = target_path.components().collect();
    let relation = if source_path == target_path {
        "it is the source directory itself"
    } else if target_path.starts_with(&source_path) {
        "it lies inside the source directory"
    } else if source_path.starts_with(&target_path) {
        "the source directory lies inside it"
    } else {
        return Ok(());
    };
    Err(Error::InvalidArgValue {
        argument: "targetDir".to_owned(),
        reason: format!("{relation}; mirror between two separate directories"),
        received: target.display().to_string(),
    })
}

/// Fails if the target's volume takes two names of the source for one, because one of the two would be lost.
/// The stage is on that volume, so empty files in it show this for the target. Exceptions are folders that
/// are mounts of their own, or that ignore case by a setting of their own.
fn refuse_collisions(
    wanted: &[Found],
    present: &[Found],
    preserve: &PathSet,
    to: &Root,
    stage: &Root,
    cancel: &Cancel,
) -> Result<()> {
    let mut cursor = stage.cursor();
    if !folds_names(&mut cursor)? {
        return Ok(());
    }
    let stays = |path: &RelativePath| preserve.contains_or_covers(path) || preserve.is_above(path);
    let mut paths: Vec<_> = wanted.iter().map(|found| &found.path).collect();
    paths.extend(present.iter().map(|found| &found.path).filter(|path| stays(path)));
    paths.sort_unstable_by_key(|path| path.split());
    paths.dedup();
    let stand: HashSet<_> = present.iter().map(|found| &found.path).collect();
    let probe = RelativePath::child(None, b"probe");
    for paths in paths.chunk_by(|one, other| one.split().0 == other.split().0) {
        // Only names in one folder can collide.
        if paths.iter().all(|path| stand.contains(path)) {
            continue;
        }
        let suspects = collision_candidates(paths);
        if suspects.is_empty() {
            continue;
        }
        cursor.make_folder(&probe, 0o700)?;
        for path in suspects {
            cancel.check()?;
            let in_probe = RelativePath::child(Some(&probe), path.name().as_encoded_bytes());
            if cursor.stat(&in_probe).map_err(|error| error.about(to.path_of(path)))?.is_some() {
                return Err(Error::InvalidArgValue {
                    argument: "targetDir".to_owned(),
                    reason: format!(
                        "its volume takes the name of '{path}' for that of another entry beside it, in the source or \
                         preserved, and cannot hold both. Rename one of the two, or mirror to another volume; {UNTOUCHED}"
                    ),
                    received: to.path().display().to_string(),
                });
            }
            cursor.create(&in_probe, 0o600).map_err(|error| error.about(to.path_of(path)))?;
        }
        remove_tree(stage, &probe)?;
    }
    Ok(())
}

/// What a mirror has to do, found by comparing two sorted lists.
struct Plan<'a> {
    /// What is in the target and is to be removed, outermost first.
    extra: Vec<&'a Found>,
    /// Folders that the target lacks, outermost first.
    folders: Vec<&'a Found>,
    /// Files and links that the target lacks, or that may differ.
    leaves: Vec<(&'a Found, Option<&'a Found>)>,
    /// Folders that are new or whose mode differs, outermost first.
    modes: Vec<&'a Found>,
}

impl<'a> Plan<'a> {
    fn new(wanted: &'a [Found], present: &'a [Found], preserve: &PathSet, target: &Path) -> Result<Self> {
        let mut plan = Self { extra: Vec::new(), folders: Vec::new(), leaves: Vec::new(), modes: Vec::new() };
        let (mut wanted, mut present) = (wanted.iter().peekable(), present.iter().peekable());
        loop {
            let order = match (wanted.peek(), present.peek()) {
                (None, None) => return Ok(plan),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(left), Some(right)) => left.path.cmp(&right.path),
            };
            let here = if order.is_ge() { present.next() } else { None };
            let there = if order.is_le() { wanted.next() } else { None };
            let is_folder =
                |found: Option<&Found>| found.is_some_and(|found| found.meta.kind == Kind::Folder);
            if let Some(here) = here {
                let gone = there.is_none() && !preserve.contains_or_covers(&here.path);
                let in_the_way = there.is_some() && is_folder(Some(here)) != is_folder(there);
                let holds_preserved = here.meta.kind == Kind::Folder && preserve.is_above(&here.path);
                if in_the_way && holds_preserved {
                    return Err(Error::InvalidArgValue {
                        argument: "options.preserveAbsent".to_owned(),
                        reason: format!(
                            "it names something below '{}', which is no folder in the source; nothing was changed. \
                             Move it away, or do not preserve it",
                            target.join(here.path.as_path()).display()
                        ),
                        received: here.path.to_string(),
                    });
                }
                if in_the_way || (gone && !holds_preserved) {
                    plan.extra.push(here);
                }
            }
            let Some(there) = there else { continue };
            match (there.meta.kind, here) {
                (Kind::Folder, Some(here)) if is_folder(Some(here)) => {
                    if here.meta.mode != there.meta.mode {
                        plan.modes.push(there);
                    }
                }
                (Kind::Folder, _) => {
                    plan.folders.push(there);
                    plan.modes.push(there);
                }
                _ => plan.leaves.push((there, here.filter(|here| here.meta.kind != Kind::Folder))),
            }
        }
    }
}

impl Plan<'_> {
    /// The folders below the target in which names are made, replaced or removed.
    fn changes_in(&self, pieces: &[Piece]) -> BTreeSet<RelativePath> {
        let staged = self.leaves.iter().zip(pieces).filter(|(_, piece)| matches!(piece, Piece::Staged(_)));
        let paths =
            self.extra.iter().chain(&self.folders).copied().chain(staged.map(|((found, _), _)| *found));
        paths.filter_map(|found| found.path.parent()).collect()
    }
}

/// What is to be done with one file or link once everything is staged.
enum Piece {
    /// Nothing: it is already the same.
    Same,
    /// Set its mode: only that differs, and the file has no further name.
    Mode(u32),
    /// Move it from the stage, where it has that name.
    Staged(RelativePath),
}

fn stage_all(plan: &Plan<'_>, from: &Root, to: &Root, stage: &Root, cancel: &Cancel) -> Result<Vec<Piece>> {
    // Several folders, because the kernel makes names in one folder one after another.
    for bucket in 0..BUCKETS {
        stage.cursor().make_folder(&bucket_name(bucket), 0o700)?;
    }
    plan.leaves
        .par_iter()
        .enumerate()
        .map_init(
            || Copier {
                from: from.cursor(),
                to: to.cursor(),
                stage: stage.cursor(),
                buffers: Default::default(),
            },
            |copier, (at, (there, here))| {
                cancel.check()?;
                copier.piece(at, there, *here)
            },
        )
        .collect()
}

/// How many folders the stage is divided into.
const BUCKETS: usize = 16;

fn bucket_name(bucket: usize) -> RelativePath {
    RelativePath::child(None, format!("{bucket:x}").as_bytes())
}

struct Copier<'a> {
    from: Cursor<'a>,
    to: Cursor<'a>,
    stage: Cursor<'a>,
    buffers: [Vec<u8>; 2],
}

impl Copier<'_> {
    fn piece(&mut self, at: usize, there: &Found, here: Option<&Found>) -> Result<Piece> {
        let name = RelativePath::child(Some(&bucket_name(at / 64 % BUCKETS)), at.to_string().as_bytes());
        if let Some(target) = &there.target {
            if here.is_some_and(|here| here.target.as_ref() == Some(target)) {
                return Ok(Piece::Same);
            }
            self.stage.symlink(target, &name)?;
            self.keep_owner(&name, here)?;
            return Ok(Piece::Staged(name));
        }
        let Some((mut file, meta)) = self.from.open(&there.path)? else {
            return Err(Obstacle::Vanished
                .at("open", self.from.path_of(&there.path))
                .with_hint("it vanished while it was read"));
        };
        if here.is_some_and(|here| here.meta.kind == Kind::File && here.meta.size == meta.size)
            && let Some((mut old, old_meta)) = self.open_old(&there.path)?
        {
            if self.same_content(&mut file, &mut old, &there.path)? {
                if old_meta.mode == meta.mode {
                    return Ok(Piece::Same);
                }
                if may_set_mode(&old_meta) {
                    return Ok(Piece::Mode(meta.mode));
                }
            }
            io::Seek::rewind(&mut file)
                .map_err(|error| Error::io("lseek", self.from.path_of(&there.path), error))?;
        }
        let mut copy = self.stage.create(&name, 0o600)?;
        self.copy(&mut file, &meta, &mut copy, &there.path, &name)?;
        // Before the mode, because a change of owner removes setuid and setgid.
        self.keep_owner(&name, here)?;
        set_file_mode(&copy, meta.mode)
            .map_err(|error| Error::io("fchmod", self.stage.path_of(&name), error))?;
        Ok(Piece::Staged(name))
    }

    /// Opens a file in the target for comparison. `None` if there is none, or if this user may not read it:
    /// then it is replaced.
    fn open_old(&mut self, path: &RelativePath) -> Result<Option<(File, Meta)>> {
        match self.to.open(path) {
            Err(error) if error.is_io(io::ErrorKind::PermissionDenied) => Ok(None),
            opened => opened,
        }
    }

    /// Gives a staged file the user and group of the one that it will replace, as far as this process may.
    fn keep_owner(&mut self, name: &RelativePath, here: Option<&Found>) -> Result<()> {
        if let Some(here) = here.filter(|here| here.meta.kind != Kind::Other)
            && is_root()
        {
            // A file system without owners has none to keep.
            let _kept = self.stage.set_owner(name, here.meta.owner)?;
        }
        Ok(())
    }

    /// Compares two files byte by byte.
    fn same_content(&mut self, a: &mut File, b: &mut File, path: &RelativePath) -> Result<bool> {
        let [left, right] = &mut self.buffers;
        left.resize(CHUNK, 0);
        right.resize(CHUNK, 0);
        loop {
            let read_a =
                read_fully(a, left).map_err(|error| Error::io("read", self.from.path_of(path), error))?;
            let read_b =
                read_fully(b, right).map_err(|error| Error::io("read", self.to.path_of(path), error))?;
            if left[..read_a] != right[..read_b] {
                return Ok(false);
            }
            if read_a < left.len() {
                return Ok(true);
            }
        }
    }

    fn copy(
        &mut self,
        file: &mut File,
        meta: &Meta,
        copy: &mut File,
        path: &RelativePath,
        name: &RelativePath,
    ) -> Result<()> {
        let buffer = &mut self.buffers[0];
        buffer.resize(CHUNK, 0);
        if meta.size > buffer.len() as u64 {
            // Linux copies in the kernel, or shares the blocks, if it can; macOS reads and writes
            // (docs/releasing.md).
            return io::copy(file, copy).map(|_| ()).map_err(|error| {
                let is_of_the_copy = matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
                );
                let (cursor, path) = if is_of_the_copy { (&self.stage, name) } else { (&self.from, path) };
                Error::io("copyfile", cursor.path_of(path), error)
            });
        }
        loop {
            let read = read_fully(file, buffer)
                .map_err(|error| Error::io("read", self.from.path_of(path), error))?;
            io::Write::write_all(copy, &buffer[..read])
                .map_err(|error| Error::io("write", self.stage.path_of(name), error))?;
            if read < buffer.len() {
                return Ok(());
            }
        }
    }
}

/// Whether a file's mode may be set in place. A file with further names is replaced instead, because the
/// other names may be outside the target. So is a file of another user.
fn may_set_mode(meta: &Meta) -> bool {
    meta.links == 1 && (is_root() || host::user() == meta.owner.0)
}

fn apply(plan: &Plan<'_>, pieces: &[Piece], to: &Root, stage: &Root) -> Result<()> {
    let mut cursor = to.cursor();
    for found in plan.extra.iter().rev() {
        // What another process put into a folder in between is removed with it, because the source does not
        // have it.
        remove_tree(to, &found.path)?;
    }
    for found in &plan.folders {
        cursor.make_folder(&found.path, 0o700)?;
    }
    plan.leaves.par_iter().zip(pieces).try_for_each_init(
        || (to.cursor(), stage.cursor()),
        |(cursor, staged), ((found, _), piece)| match piece {
            Piece::Same => Ok(()),
            Piece::Mode(mode) => set_mode(cursor, &found.path, *mode),
            Piece::Staged(name) => match rename((staged, name), (cursor, &found.path), Onto::Replace)? {
                Renamed::Done => Ok(()),
                Renamed::OtherFileSystem => {
                    Err(Obstacle::OtherFileSystem.at("rename", cursor.path_of(&found.path)))
                }
                Renamed::MountPoint => Err(Obstacle::MountPoint.at("rename", cursor.path_of(&found.path))),
                _ => Err(Obstacle::Vanished
                    .at("rename", cursor.path_of(&found.path))
                    .with_hint("something else changed the target meanwhile")),
            },
        },
    )?;
    for found in plan.modes.iter().rev() {
        cursor.set_folder_mode(&found.path, found.meta.mode)?;
    }
    Ok(())
}

/// Sets the mode of a file that had no further name when it was compared.
fn set_mode(cursor: &mut Cursor<'_>, path: &RelativePath, mode: u32) -> Result<()> {
    let Some((file, meta)) = cursor.open(path)? else {
        return Err(Obstacle::Vanished.at("open", cursor.path_of(path)));
    };
    if meta.links != 1 {
        return Err(Obstacle::FurtherName
            .at("fchmod", cursor.path_of(path))
            .with_hint("its mode must not change"));
    }
    set_file_mode(&file, mode).map_err(|error| Error::io("fchmod", cursor.path_of(path), error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    /// A source with `new`, and a target with `old`.
    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let (source, target) = (home.path().join("source"), home.path().join("target"));
        for (folder, name) in [(&source, "new"), (&target, "old")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(name), name).unwrap();
        }
        (home, source, target)
    }

    fn begin(source: &Path, target: &Path) -> Option<Mirror> {
        Mirror::begin(source, target, &Cancel::default()).unwrap()
    }

    fn finish(mirror: Mirror) -> Result<()> {
        mirror.finish(&PathSet::default(), &Cancel::default())
    }

    /// `d` is a folder, any other letter a file; the mode follows.
    fn tree(text: &str) -> Vec<Found> {
        let meta = Meta::of_file(&tempfile::tempfile().unwrap()).unwrap();
        let found = |item: &str| {
            let (name, kind) = item.split_once(':').unwrap();
            let (kind, mode) = kind.split_at(1);
            let kind = if kind == "d" { Kind::Folder } else { Kind::File };
            let path = RelativePath::parse(name.as_bytes()).unwrap().unwrap();
            Found { path, meta: Meta { kind, mode: mode.parse().unwrap(), ..meta }, target: None }
        };
        text.split_whitespace().map(found).collect()
    }

    #[test]
    fn a_mirror_is_planned_from_two_lists() {
        let paths = |found: &[&Found]| {
            let paths: Vec<_> = found.iter().map(|found| found.path.to_string()).collect();
            paths.join(" ")
        };
        for (wanted, present, preserve, extra, folders, leaves, modes) in [
            ("", "", &[][..], "", "", "", ""),
            ("a:f1 b:d1 b/c:f1", "", &[], "", "b", "a b/c", "b"),
            ("", "a:f1 b:d1 b/c:f1", &[], "a b b/c", "", "", ""),
            ("a:f1 b:d1", "a:f1 b:d1", &[], "", "", "a", ""),
            ("b:d2", "b:d1", &[], "", "", "", "b"),
            // What is preserved stays, and so do the folders above it.
            ("", "a:f1 b:d1 b/c:f1 b/e:f1", &["b/c"], "a b/e", "", "", ""),
            ("a:f2", "a:f1", &["a"], "", "", "a", ""),
            // An entry of one kind in the place of another kind.
            ("a:d1 a/b:f1", "a:f1", &[], "a", "a", "a/b", "a"),
            ("a:f1", "a:d1 a/b:f1", &[], "a a/b", "", "a", ""),
        ] {
            let (wanted, present) = (tree(wanted), tree(present));
            let preserve = PathSet::new("preserve", preserve).unwrap();
            let plan = Plan::new(&wanted, &present, &preserve, Path::new("/target")).unwrap();
            let leaf_paths: Vec<_> = plan.leaves.iter().map(|(found, _)| *found).collect();
            let planned = [&plan.extra, &plan.folders, &leaf_paths, &plan.modes].map(|found| paths(found));
            assert_eq!(planned, [extra, folders, leaves, modes], "{wanted:?} {present:?}");
        }
        let (wanted, present) = (tree("a:f1"), tree("a:d1 a/b:f1"));
        let preserve = PathSet::new("preserve", ["a/b"]).unwrap();
        let refused = Plan::new(&wanted, &present, &preserve, Path::new("/target")).err().unwrap();
        assert_eq!(refused.code(), "ERR_INVALID_ARG_VALUE");
    }

    #[test]
    fn a_source_that_vanishes_is_not_taken_for_an_empty_one() {
        for how in ["removed", "moved", "replaced by a folder", "replaced by a link"] {
            let (home, source, target) = folders();
            let mirror = begin(&source, &target).unwrap();
            let elsewhere = home.path().join("elsewhere");
            if how == "removed" {
                fs::remove_dir_all(&source).unwrap();
            } else {
                fs::rename(&source, &elsewhere).unwrap();
            }
            match how {
                "replaced by a folder" => fs::create_dir(&source).unwrap(),
                "replaced by a link" => {
                    fs::create_dir(home.path().join("other")).unwrap();
                    symlink("other", &source).unwrap();
                }
                _ => {}
            }
            let error = finish(mirror).unwrap_err();
            assert!(error.is_gone() && error.to_string().contains(UNTOUCHED), "{how}: {error}");
            assert_eq!(names(&target), ["old"], "{how}");
        }
    }

    #[test]
    fn a_target_has_one_mirror_and_a_source_may_have_many() {
        let (home, source, target) = folders();
        let other = home.path().join("other");
        fs::create_dir(&other).unwrap();
        let first = begin(&source, &target).unwrap();
        for (from, to, may_begin) in [
            (&source, &target, false),
            (&other, &target, false),
            (&other, &source, false),
            (&target, &other, false),
            (&target, &source, false),
            (&source, &other, true),
        ] {
            assert_eq!(begin(from, to).is_some(), may_begin, "{} to {}", from.display(), to.display());
        }
        finish(first).unwrap();
        assert_eq!(names(&target), ["new"]);
        assert!(begin(&other, &target).is_some(), "the locks are gone");
    }

    #[test]
    fn a_target_that_another_mirror_removed_is_not_used() {
        let (_home, source, target) = folders();
        let (from, to) = (Root::open(&source).unwrap(), Root::open(&target).unwrap());
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir(&target).unwrap();
        assert!(!Mirror { from, to, made: Vec::new() }.try_lock().unwrap());
    }

    #[test]
    fn a_failed_mirror_removes_only_the_folders_that_it_made() {
        let (home, source, _) = folders();
        fs::create_dir(home.path().join("there")).unwrap();
        let target = home.path().join("there/not/yet");
        let mirror = begin(&source, &target).unwrap();
        assert!(target.exists());
        let stop = Cancel::default();
        stop.cancel();
        mirror.finish(&PathSet::default(), &stop).unwrap_err();
        assert_eq!(names(&home.path().join("there")), Vec::<String>::new());

        fs::create_dir_all(&target).unwrap();
        begin(&source, &target).unwrap().finish(&PathSet::default(), &stop).unwrap_err();
        assert!(target.exists());
    }

    #[test]
    fn only_a_file_with_one_name_gets_another_mode_in_place() {
        let (_home, _, target) = folders();
        let root = Root::open(&target).unwrap();
        let old = RelativePath::child(None, b"old");
        set_mode(&mut root.cursor(), &old, 0o600).unwrap();
        fs::hard_link(target.join("old"), target.join("more")).unwrap();
        let error = set_mode(&mut root.cursor(), &old, 0o640).unwrap_err();
        assert_eq!(error.code(), "EMLINK");
        assert_eq!(root.cursor().stat(&old).unwrap().unwrap().mode & 0o7777, 0o600);
    }
}
