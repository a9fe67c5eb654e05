//! Where local versions are kept that the sandbox's version replaced.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::error::{Error, Result, readable};
use crate::path::RelativePath;
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
const VERSIONS: u32 = 64;

/// The kept versions of one merge: a folder named by the time, made when the first one needs it.
#[derive(Debug, Default)]
pub struct Conflicts(Mutex<Option<RelativePath>>);

impl Conflicts {
    /// Moves a local version of `path` from where it is to the kept ones, and tells where it is now; `None` where it
    /// is gone, so that there is nothing to keep.
    pub fn keep(
        &self,
        root: &Root,
        (from, name): (&mut Cursor<'_>, &RelativePath),
        path: &RelativePath,
    ) -> Result<Option<RelativePath>> {
        let mut cursor = root.cursor();
        let folder = self.folder(&mut cursor)?;
        for version in 1..=VERSIONS {
            let mut kept_at = folder.join(path);
            if version > 1 {
                kept_at = kept_at.with_suffix(&format!("~{version}"));
            }
            for above in kept_at.ancestors().skip(DEPTH) {
                // What was kept before may stand where a folder is needed now; then the next name is tried.
                cursor.make_dir(&above, 0o755)?;
            }
            let moved = match rename((from, name), (&mut cursor, &kept_at), Onto::Nothing)? {
                Renamed::Unsupported if cursor.stat(&kept_at)?.is_some() => Renamed::Occupied,
                // Nobody else writes into this merge's own folder.
                Renamed::Unsupported => rename((from, name), (&mut cursor, &kept_at), Onto::Replace)?,
                Renamed::OtherFileSystem => copy_across((from, name), (&mut cursor, &kept_at))?,
                moved => moved,
            };
            match moved {
                Renamed::Done => return Ok(Some(kept_at)),
                Renamed::Absent if from.stat(name)?.is_none() => return Ok(None),
                _ => {}
            }
        }
        Err(Error::io("rename", root.path_of(path), rustix::io::Errno::EXIST)
            .with_hint("its local version could not be kept aside"))
    }

    fn folder(&self, cursor: &mut Cursor<'_>) -> Result<RelativePath> {
        let mut folder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*folder {
            return Ok(folder.clone());
        }
        make_runtime(cursor)?;
        let runtime = runtime();
        keep_out_of_git(cursor, &RelativePath::child(Some(&runtime), b".gitignore"))?;
        let conflicts = RelativePath::child(Some(&runtime), CONFLICTS.as_bytes());
        if !cursor.make_dir(&conflicts, 0o755)?
            && cursor.stat(&conflicts)?.is_none_or(|meta| meta.kind != Kind::Dir)
        {
            return Err(Error::UnsafePath {
                path: readable(conflicts.as_bytes()),
                offset: None,
                reason:
                    "it must be a folder, since local versions are kept there; move it away and try again"
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
        Ok(folder.insert(made).clone())
    }
}

fn keep_out_of_git(cursor: &mut Cursor<'_>, ignore: &RelativePath) -> Result<()> {
    if cursor.stat(ignore)?.is_some() {
        return Ok(());
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

/// Moves what cannot be renamed, to a new name on another file system: copies it, and removes it here once the copy is
/// whole. What fails in the middle of a folder leaves each of its files on one side or the other.
pub fn copy_across(
    (from, name): (&mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    if to.stat(path)?.is_some() {
        return Ok(Renamed::Occupied);
    }
    for _ in 0..VERSIONS {
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
            Kind::Dir => return copy_folder_across((from, name, &meta), (to, path)),
            Kind::Other => {
                return Err(Error::io("rename", from.path_of(name), rustix::io::Errno::XDEV));
            }
        }
        if from.stat(name)?.is_some_and(|now| now.untouched_since(&meta)) {
            from.remove_file(name)?;
            return Ok(Renamed::Done);
        }
        // Somebody changed it meanwhile, and the copy is worth nothing.
        to.remove_file(path)?;
    }
    Err(Error::io("copyfile", from.path_of(name), rustix::io::Errno::BUSY))
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

fn copy_folder_across(
    (from, name, meta): (&mut Cursor<'_>, &RelativePath, &Meta),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    to.make_dir(path, 0o700)?;
    // Once, unless somebody puts something into it meanwhile.
    for _ in 0..VERSIONS {
        for below in from.list(Some(name))?.unwrap_or_default() {
            let [source, destination] = [name, path].map(|folder| RelativePath::child(Some(folder), &below));
            copy_across((from, &source), (to, &destination))?;
        }
        if from.remove_empty_dir(name)? {
            to.set_dir_mode(path, meta.mode & PERMISSIONS)?;
            return Ok(Renamed::Done);
        }
    }
    Err(Error::io("copyfile", from.path_of(name), rustix::io::Errno::BUSY))
}
