//! A folder that at most one process can claim, by putting its `owner.json` into it.
//!
//! Everything inside is done through a handle on the folder, so another folder that took its place meanwhile
//! is never touched.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, mkdirat, openat, renameat,
    renameat_with, statat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::folder::Root;
use super::stat::Meta;
use crate::error::{Error, Result};

const OWNER_FILE: &CStr = c"owner.json";
/// More bytes than any `owner.json` needs.
const OWNER_FILE_MAX: u64 = 4096;

/// The place of such a folder.
#[derive(Debug, Clone)]
pub struct Site {
    path: PathBuf,
    /// The folder around it, held open, so whatever takes that one's place, such as a link, leads nowhere
    /// else.
    within: Option<Arc<Root>>,
}

impl Site {
    /// A place by its path, with links followed.
    #[must_use]
    pub fn beside(path: &Path) -> Self {
        Self { path: path.to_path_buf(), within: None }
    }

    /// A name in a folder that is held open.
    #[must_use]
    pub fn within(folder: Root, name: &str) -> Self {
        Self { path: folder.path().join(name), within: Some(Arc::new(folder)) }
    }

    /// The path of the place.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the folder. Returns `false` if something is there.
    pub fn make(&self) -> Result<bool> {
        let (around, name) = self.at();
        match mkdirat(around, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.failed("mkdir", errno)),
        }
    }

    /// The place as system calls take it.
    fn at(&self) -> (BorrowedFd<'_>, &Path) {
        match (&self.within, self.path.file_name()) {
            (Some(folder), Some(name)) => (folder.handle(), Path::new(name)),
            _ => (CWD, &self.path),
        }
    }

    fn failed(&self, syscall: &'static str, error: impl Into<io::Error>) -> Error {
        Error::io(syscall, &self.path, error)
    }
}

/// The inode number of a file, which identifies it in its folder.
pub type Inode = u64;

/// Such a folder, held open. Its device and inode number are not used again while it is, even if it is
/// removed.
#[derive(Debug)]
pub struct Folder {
    site: Site,
    handle: File,
}

impl Folder {
    /// Opens the folder, unless it is a link. `None` if nothing is there.
    pub fn open(site: &Site) -> Result<Option<Self>> {
        let (around, name) = site.at();
        match openat(around, name, FOLDER, Mode::empty()) {
            Ok(handle) => Ok(Some(Self { site: site.clone(), handle: handle.into() })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(site.failed("open", errno)),
        }
    }

    /// Whether this folder is still the one at its path.
    pub fn is_at_its_path(&self) -> Result<bool> {
        let (around, name) = self.site.at();
        let here = match statat(around, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Meta::of(&found),
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(self.failed("lstat", error)),
        };
        let ours = Meta::of_file(&self.handle).map_err(|error| self.failed("fstat", error))?;
        Ok(here.is_same_inode(&ours))
    }

    /// The inode of its `owner.json`.
    pub fn owner_file(&self) -> Result<Option<Inode>> {
        Ok(self.owner()?.map(|meta| meta.id.inode()))
    }

    /// When its `owner.json` was last written or touched, in whole seconds. `None` if it is gone.
    pub fn renewed(&self) -> Result<Option<SystemTime>> {
        Ok(self.owner()?.map(|meta| {
            let seconds = Duration::from_secs(meta.mtime.0.try_into().unwrap_or(0));
            SystemTime::UNIX_EPOCH + seconds
        }))
    }

    fn owner(&self) -> Result<Option<Meta>> {
        match statat(&self.handle, OWNER_FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(Meta::of(&found))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("lstat", error)),
        }
    }

    /// Touches its `owner.json`. Returns `false` if it is gone.
    pub fn renew(&self) -> Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        match utimensat(&self.handle, OWNER_FILE, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed("utime", error)),
        }
    }

    /// When an entry was last created or removed in it.
    pub fn written(&self) -> Result<SystemTime> {
        let written = self.handle.metadata().and_then(|metadata| metadata.modified());
        written.map_err(|error| self.failed("fstat", error))
    }

    /// The current time by the clock of its volume. `None` if nothing can be written in it.
    pub fn clock(&self) -> Result<Option<SystemTime>> {
        let Ok((draft, probe)) = self.create_draft() else { return Ok(None) };
        let now = probe.metadata().and_then(|metadata| metadata.modified());
        let removed = unlinkat(&self.handle, &*draft, AtFlags::empty());
        let now = now.map_err(|error| self.failed("fstat", error))?;
        removed.map_err(|error| self.failed("unlink", error))?;
        Ok(Some(now))
    }

    /// Creates a file with a name that no other process uses.
    fn create_draft(&self) -> Result<(String, File)> {
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        // A process in another pid namespace may have the same number.
        let nonce = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let draft = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = format!("owner.json.{}-{nonce:x}-{draft}", process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.handle, &*draft, flags, Mode::from_raw_mode(0o666));
        Ok((draft, File::from(file.map_err(|error| self.failed("open", error))?)))
    }

    /// The content of its `owner.json`, up to `OWNER_FILE_MAX` bytes.
    pub fn read_owner(&self) -> Result<Vec<u8>> {
        // Opening a FIFO must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.handle, OWNER_FILE, flags, Mode::empty());
        let file = File::from(file.map_err(|errno| self.failed("read", errno))?);
        let mut record = Vec::new();
        file.take(OWNER_FILE_MAX).read_to_end(&mut record).map_err(|error| self.failed("read", error))?;
        Ok(record)
    }

    /// Creates `owner.json` with this content, completely or not at all. `None` if there is one already, or
    /// if the folder was removed.
    pub fn write_owner(&self, record: &[u8]) -> Result<Option<Inode>> {
        let (draft, mut file) = match self.create_draft() {
            Err(error)
                if error.is_io(io::ErrorKind::NotFound) || error.is_io(io::ErrorKind::AlreadyExists) =>
            {
                return Ok(None);
            }
            draft => draft?,
        };
        let written = file
            .write_all(record)
            .and_then(|()| Meta::of_file(&file))
            .map_err(|error| self.failed("write", error))
            .and_then(|meta| match rename_new(self.handle.as_fd(), &draft, OWNER_FILE) {
                Ok(is_new) => Ok(is_new.then(|| meta.id.inode())),
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(self.failed("rename", error)),
            });
        if !matches!(written, Ok(Some(_))) {
            // The first failure is the one to report. A draft names no owner, and is removed together with
            // its folder.
            unlinkat(&self.handle, &*draft, AtFlags::empty()).ok();
        }
        written
    }

    /// Removes the folder with everything in it, unless it has an `owner.json` other than `owner_file`, so
    /// another process has claimed it by now. Returns whether it makes sense to try the lock again at once.
    pub fn dismantle(&self, owner_file: Option<Inode>) -> Result<bool> {
        if !self.is_at_its_path()? {
            return Ok(true);
        }
        let owner_now = self.owner_file()?;
        if owner_now.is_some() && owner_now != owner_file {
            return Ok(false);
        }
        let emptied = names(self.handle.as_fd()).and_then(|names| {
            let others = names.iter().map(CString::as_c_str).filter(|&name| name != OWNER_FILE);
            // `owner.json` last, so a lock whose removal is interrupted still names its owner.
            others.chain(owner_now.map(|_| OWNER_FILE)).try_for_each(|name| remove(self.handle.as_fd(), name))
        });
        emptied.map_err(|error| self.failed("unlink", error))?;
        if !self.is_at_its_path()? {
            return Ok(true);
        }
        let (around, name) = self.site.at();
        match unlinkat(around, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            // Some systems report a folder that is not empty as existing.
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(self.failed("rmdir", error)),
        }
    }

    fn failed(&self, syscall: &'static str, error: impl Into<io::Error>) -> Error {
        self.site.failed(syscall, error)
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Renames within `folder`. Returns `false` if `to` exists.
fn rename_new(folder: BorrowedFd<'_>, from: &str, to: &CStr) -> Result<bool, Errno> {
    match renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // Not every file system can do both in one step; NFS cannot.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            match statat(folder, to, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Ok(false),
                Err(Errno::NOENT) => renameat(folder, from, folder, to).map(|()| true),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

fn names(folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes a file, a link, or a folder with everything in it. It may be gone already.
fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let gone = |outcome| if outcome == Err(Errno::NOENT) { Ok(()) } else { outcome };
    match gone(unlinkat(parent, name, AtFlags::empty())) {
        // This is how Linux and macOS report a folder. If it is none, this is the error to report.
        Err(error @ (Errno::ISDIR | Errno::PERM)) => {
            let folder = openat(parent, name, FOLDER, Mode::empty()).map_err(|_| error)?;
            names(folder.as_fd())?.iter().try_for_each(|name| remove(folder.as_fd(), name))?;
            gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
        }
        outcome => outcome,
    }
}
