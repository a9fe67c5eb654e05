//! Where local versions are kept that the sandbox's version replaced.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::report::Conflict;
use crate::error::{Error, Result, readable};
use crate::path::RelativePath;
use crate::sync::lock;
use crate::time::utc_timestamp;
use crate::tree::entry::PERMISSIONS;
use crate::tree::root::{Cursor, Kind, Meta, Onto, Renamed, Root, rename, set_file_mode};
use crate::tree::stage::{make_runtime, runtime};

/// The folder in the runtime folder.
const CONFLICTS: &str = "conflicts";

/// How many folders of a kept version's path are there before the first is kept: `.paperclip-runtime`, `conflicts` and
/// that of the time.
const DEPTH: usize = 3;

/// How many versions of one path a merge may keep.
const VERSIONS: usize = 64;

/// How often somebody may change a path under our hands before we give up on it.
pub(super) const ATTEMPTS: usize = 64;

/// The kept versions of one merge.
#[derive(Debug, Default)]
pub struct Conflicts {
    /// A folder named by the time, made when the first one needs it, and a further one for each version of a path beyond
    /// the first.
    folders: Mutex<Vec<RelativePath>>,
    kept: Mutex<Vec<Conflict>>,
}

/// What became of a version that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is kept, or it was gone, so that there is nothing to keep.
    Done,
    /// It is still where it was: in a file system of its own, from which it can only be copied.
    Elsewhere,
}

impl Conflicts {
    /// Moves a local version of `path` from where it is to the kept ones. Where it can only be copied, that is done if
    /// it is out of everybody's sight by now, as `is_hidden` says; otherwise somebody might save to it in between.
    pub fn keep(
        &self,
        root: &Root,
        (from, name): (&mut Cursor<'_>, &RelativePath),
        path: &RelativePath,
        is_hidden: bool,
    ) -> Result<Kept> {
        let mut cursor = root.cursor();
        for version in 0..VERSIONS {
            let kept_at = self.folder(&mut cursor, version)?.join(path);
            if !make_folders(&mut cursor, &kept_at)? {
                continue;
            }
            let moved = match rename((from, name), (&mut cursor, &kept_at), Onto::Nothing)? {
                Renamed::Unsupported if cursor.stat(&kept_at)?.is_some() => Renamed::Occupied,
                // Nobody else writes into this merge's own folder.
                Renamed::Unsupported => rename((from, name), (&mut cursor, &kept_at), Onto::Replace)?,
                Renamed::OtherFileSystem if is_hidden => copy_across((from, name), (&mut cursor, &kept_at))?,
                moved => moved,
            };
            match moved {
                Renamed::Done => {
                    lock(&self.kept).push(Conflict { path: path.clone(), kept_at });
                    return Ok(Kept::Done);
                }
                Renamed::Absent if from.stat(name)?.is_none() => return Ok(Kept::Done),
                Renamed::OtherFileSystem if !is_hidden => return Ok(Kept::Elsewhere),
                // Whoever takes an outcome for done removes what is left.
                Renamed::OtherFileSystem | Renamed::MountPoint => {
                    return Err(Error::io("rename", from.path_of(name), rustix::io::Errno::BUSY)
                        .with_hint("its local version could not be kept aside"));
                }
                _ => {}
            }
        }
        Err(Error::io("rename", root.path_of(path), rustix::io::Errno::EXIST)
            .with_hint("its local version could not be kept aside"))
    }

    /// Everything that was kept.
    #[must_use]
    pub fn into_kept(self) -> Vec<Conflict> {
        self.kept.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of so many versions before.
    fn folder(&self, cursor: &mut Cursor<'_>, version: usize) -> Result<RelativePath> {
        let mut folders = lock(&self.folders);
        while folders.len() <= version {
            folders.push(make_folder(cursor)?);
        }
        Ok(folders[version].clone())
    }
}

/// Makes the folders above a kept version. `false` where a version that was kept before stands in the place of one.
fn make_folders(cursor: &mut Cursor<'_>, kept_at: &RelativePath) -> Result<bool> {
    for above in kept_at.ancestors().skip(DEPTH) {
        if !cursor.ensure_dir(&above, 0o755)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a new folder for kept versions.
fn make_folder(cursor: &mut Cursor<'_>) -> Result<RelativePath> {
    make_runtime(cursor)?;
    let runtime = runtime();
    keep_out_of_git(cursor, &RelativePath::child(Some(&runtime), b".gitignore"))?;
    let conflicts = RelativePath::child(Some(&runtime), CONFLICTS.as_bytes());
    if !cursor.ensure_dir(&conflicts, 0o755)? {
        return Err(Error::UnsafePath {
            path: readable(conflicts.as_bytes()),
            offset: None,
            reason: "it must be a folder, since local versions are kept there; move it away and try again"
                .to_owned(),
        });
    }
    // Colons in file names trouble other systems.
    let time = utc_timestamp(SystemTime::now()).replace(':', "-");
    let mut made = RelativePath::child(Some(&conflicts), time.as_bytes());
    for serial in 2.. {
        if cursor.make_dir(&made, 0o755)? {
            break;
        }
        made = RelativePath::child(Some(&conflicts), format!("{time}~{serial}").as_bytes());
    }
    Ok(made)
}

fn keep_out_of_git(cursor: &mut Cursor<'_>, ignore: &RelativePath) -> Result<()> {
    match cursor.stat(ignore)? {
        // A full disk, or a kill, left it empty.
        Some(meta) if meta.kind == Kind::File && meta.size == 0 => {
            cursor.remove_file(ignore)?;
        }
        Some(_) => return Ok(()),
        None => {}
    }
    match cursor.create(ignore, 0o644) {
        Ok(mut file) => {
            file.write_all(b"*\n").map_err(|error| Error::io("write", cursor.path_of(ignore), error))
        }
        // Another restore was faster.
        Err(error) if error.is_io(std::io::ErrorKind::AlreadyExists) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses a workspace in which no local version could be kept, before anything in it is changed.
pub fn check_runtime(root: &Root) -> Result<()> {
    let mut cursor = root.cursor();
    let runtime = runtime();
    for folder in [runtime.clone(), RelativePath::child(Some(&runtime), CONFLICTS.as_bytes())] {
        let Some(meta) = cursor.stat(&folder)? else { return Ok(()) };
        if meta.kind != Kind::Dir {
            return Err(Error::UnsafePath {
                path: readable(folder.as_bytes()),
                offset: None,
                reason: "it must be a folder and not a link or file, since local versions are kept there; \
                         move it away and try again"
                    .to_owned(),
            });
        }
        cursor.check_writable(&folder)?;
    }
    Ok(())
}

/// Moves what cannot be renamed, to a new name on another file system: copies it, and removes it here once the copy is
/// whole. For what nobody else reaches by its name. What fails in the middle of a folder leaves each of its files on one
/// side or the other.
pub fn copy_across(
    (from, name): (&mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    let Some(meta) = from.stat(name)? else { return Ok(Renamed::Absent) };
    if meta.kind != Kind::Dir {
        return copy_leaf((from, name), (to, path));
    }
    if !to.make_dir(path, 0o700)? {
        return Ok(Renamed::Occupied);
    }
    // With no recursion: a tree may be deeper than a thread's stack.
    let mut folders = vec![(name.clone(), path.clone(), meta)];
    let mut at = 0;
    while let Some((source, destination, _)) = folders.get(at).cloned() {
        for below in from.list(Some(&source))?.unwrap_or_default() {
            let [inner, copy] =
                [&source, &destination].map(|folder| RelativePath::child(Some(folder), &below));
            match from.stat(&inner)? {
                Some(meta) if meta.kind == Kind::Dir => {
                    to.make_dir(&copy, 0o700)?;
                    folders.push((inner, copy, meta));
                }
                _ if copy_leaf((from, &inner), (to, &copy))? == Renamed::Occupied => {
                    return Err(Error::io("copyfile", to.path_of(&copy), rustix::io::Errno::EXIST));
                }
                _ => {}
            }
        }
        at += 1;
    }
    for (source, destination, meta) in folders.iter().rev() {
        keep_owner(to, destination, meta)?;
        to.set_dir_mode(destination, meta.mode & PERMISSIONS)?;
        if !from.remove_empty_dir(source)? {
            return Err(Error::io("rmdir", from.path_of(source), rustix::io::Errno::NOTEMPTY));
        }
    }
    Ok(Renamed::Done)
}

fn copy_leaf(
    (from, name): (&mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    if to.stat(path)?.is_some() {
        return Ok(Renamed::Occupied);
    }
    for _ in 0..ATTEMPTS {
        let Some(meta) = from.stat(name)? else { return Ok(Renamed::Absent) };
        match meta.kind {
            Kind::Symlink => {
                let Some(target) = from.read_link(name)? else { continue };
                to.symlink(&target, path)?;
            }
            Kind::File => {
                let Some((mut file, _)) = from.open(name)? else { continue };
                copy_file(&mut file, &meta, (to, path))?;
            }
            Kind::Dir | Kind::Other => {
                return Err(Error::io("rename", from.path_of(name), rustix::io::Errno::XDEV));
            }
        }
        keep_owner(to, path, &meta)?;
        if from.stat(name)?.is_some_and(|now| now.untouched_since(&meta)) {
            from.remove_file(name)?;
            return Ok(Renamed::Done);
        }
        // Somebody who has it open wrote to it, and the copy is worth nothing.
        to.remove_file(path)?;
    }
    Err(Error::io("copyfile", from.path_of(name), rustix::io::Errno::BUSY))
}

/// Gives a copy the owner and the group of the original, which only root can do. On a file system that keeps no owners there
/// is none to keep.
fn keep_owner(to: &mut Cursor<'_>, path: &RelativePath, original: &Meta) -> Result<()> {
    if rustix::process::geteuid().is_root() && to.stat(path)?.is_some_and(|copy| copy.owner != original.owner)
    {
        to.set_owner(path, original.owner)?;
    }
    Ok(())
}

fn copy_file(file: &mut File, meta: &Meta, (to, path): (&mut Cursor<'_>, &RelativePath)) -> Result<()> {
    let mut copy = to.create(path, 0o600)?;
    let copied = std::io::copy(file, &mut copy).and_then(|_| set_file_mode(&copy, meta.mode & PERMISSIONS));
    copied.map_err(|error| {
        let failed = Error::io("copyfile", to.path_of(path), error);
        // A part of a file must not be taken for the whole; the failure that led here is the one to report.
        let _part = to.remove_file(path);
        failed
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn versions_of_one_path_and_of_what_is_below_it_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let conflicts = Conflicts::default();
        for (at, place) in ["a", "a", "a/b", "a/b/c", "a"].into_iter().enumerate() {
            fs::write(folder.path().join("edit"), at.to_string()).unwrap();
            let kept =
                conflicts.keep(&root, (&mut root.cursor(), &path("edit")), &path(place), false).unwrap();
            assert_eq!(kept, Kept::Done);
        }
        let kept = conflicts.into_kept();
        assert_eq!(kept.len(), 5);
        for (at, conflict) in kept.iter().enumerate() {
            let kept_at = folder.path().join(conflict.kept_at.as_path());
            assert_eq!(fs::read_to_string(kept_at).unwrap(), at.to_string());
        }
    }

    #[test]
    fn an_empty_gitignore_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let ignore = folder.path().join(".paperclip-runtime/.gitignore");
        fs::create_dir(ignore.parent().unwrap()).unwrap();
        for (before, after) in [("", "*\n"), ("mine", "mine")] {
            fs::write(&ignore, before).unwrap();
            fs::write(folder.path().join("edit"), "").unwrap();
            let conflicts = Conflicts::default();
            conflicts.keep(&root, (&mut root.cursor(), &path("edit")), &path("edit"), false).unwrap();
            assert_eq!(fs::read_to_string(&ignore).unwrap(), after);
        }
    }
}
