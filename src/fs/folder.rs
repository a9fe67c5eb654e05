//! A folder held open, and the calls on what is below it.
//!
//! A path is walked name by name from the open root, and no name on the way may be a link: whatever takes the place of a
//! folder meanwhile, what is read, written or deleted lies inside the root.

use std::ffi::OsStr;
pub use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::by_path::make_dirs;
use super::errno::is_absent;
use super::stat::{Kind, Meta, permissions};
use crate::error::{Error, Result};
use crate::path::RelativePath;

/// How a folder is opened when it must be a folder and not a link to one.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How a file is opened for reading: never through a link, and without waiting should it have become a FIFO.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// How many folders on the way to the current one are kept open: of deep trees the innermost, so that they do not use up
/// descriptors.
const OPEN_FOLDERS: usize = 48;

/// A folder held open. It was reached by its path once, links included; everything below goes through the handle.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    path: PathBuf,
    follow: bool,
}

impl Root {
    /// Opens an existing folder.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::open(path, flags, Mode::empty()).map_err(|errno| Error::io("open", path, errno))?;
        Ok(Self { folder, path: path.to_path_buf(), follow: false })
    }

    /// Opens an existing folder whose links are followed, also out of it: only for reading what its owner asked to
    /// be archived that way.
    pub fn open_following(path: &Path) -> Result<Self> {
        Ok(Self { follow: true, ..Self::open(path)? })
    }

    /// Opens an existing folder, and fails where the path is that of a link. Links above it are followed.
    pub fn open_no_link(path: &Path) -> Result<Self> {
        let folder = fs::open(path, FOLDER, Mode::empty()).map_err(|errno| Error::io("open", path, errno))?;
        Ok(Self { folder, path: path.to_path_buf(), follow: false })
    }

    /// Creates the folder and those above it where they are missing, and opens it.
    pub fn create(path: &Path) -> Result<Self> {
        make_dirs(path)?;
        Self::open(path)
    }

    /// Opens a folder below this one as a root of its own.
    pub fn below(&self, path: &RelativePath) -> Result<Self> {
        let mut cursor = self.cursor();
        let folder = cursor.folder(path.as_bytes()).map_err(|errno| self.error("open", path, errno))?;
        let folder = folder.try_clone_to_owned().map_err(|error| self.error("open", path, error))?;
        Ok(Self { folder, path: self.path_of(path), follow: false })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The full path of something below, for messages only.
    #[must_use]
    pub fn path_of(&self, path: &RelativePath) -> PathBuf {
        self.path.join(path.as_path())
    }

    /// What the root itself is.
    pub fn meta(&self) -> Result<Meta> {
        fs::fstat(&self.folder)
            .map(|stat| Meta::of(&stat))
            .map_err(|errno| Error::io("fstat", &self.path, errno))
    }

    /// Sets the permission bits of the root itself.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        fs::fchmod(&self.folder, permissions(mode)).map_err(|errno| Error::io("chmod", &self.path, errno))
    }

    /// The handle itself.
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Whether symbolic links are followed below it.
    #[must_use]
    pub fn follows_links(&self) -> bool {
        self.follow
    }

    /// A place from which to work below the root. Each thread takes its own.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { root: self, path: Vec::new(), open: Vec::new() }
    }

    pub(super) fn error(
        &self,
        syscall: &'static str,
        path: &RelativePath,
        error: impl Into<io::Error>,
    ) -> Error {
        Error::io(syscall, self.path_of(path), error)
    }
}

/// Walks below a [`Root`] and keeps the folders on its way open, since neighbours are asked for one after the other.
#[derive(Debug)]
pub struct Cursor<'r> {
    pub(super) root: &'r Root,
    /// Where the last of `open` is.
    path: Vec<u8>,
    /// Open folders on the way there, with the length of their path.
    open: Vec<(usize, OwnedFd)>,
}

impl Cursor<'_> {
    /// A further place to work from below the same root.
    #[must_use]
    pub fn another(&self) -> Self {
        self.root.cursor()
    }

    /// The folder at `path` (empty: the root), opened without following a link.
    pub(super) fn folder(&mut self, path: &[u8]) -> rustix::io::Result<BorrowedFd<'_>> {
        while self.open.last().is_some_and(|&(length, _)| {
            path.get(..length) != Some(&self.path[..length])
                || path.get(length).is_some_and(|&byte| byte != b'/')
        }) {
            self.open.pop();
        }
        let mut done = self.open.last().map_or(0, |&(length, _)| length);
        self.path.truncate(done);
        while done < path.len() {
            let start = if done == 0 { 0 } else { done + 1 };
            let end = path[start..].iter().position(|&byte| byte == b'/').map_or(path.len(), |at| start + at);
            let above = self.open.last().map_or(self.root.folder.as_fd(), |(_, folder)| folder.as_fd());
            let flags = if self.root.follow { FOLDER.difference(OFlags::NOFOLLOW) } else { FOLDER };
            let folder = fs::openat(above, &path[start..end], flags, Mode::empty())?;
            if self.open.len() == OPEN_FOLDERS {
                // The innermost stay: from there it goes on, downwards and upwards.
                self.open.remove(0);
            }
            self.open.push((end, folder));
            self.path.truncate(0);
            self.path.extend_from_slice(&path[..end]);
            done = end;
        }
        Ok(self.open.last().map_or(self.root.folder.as_fd(), |(_, folder)| folder.as_fd()))
    }

    /// What is at `path`, itself and not what it points to; `None` where nothing does, or no folder on the way.
    pub fn stat(&mut self, path: &RelativePath) -> Result<Option<Meta>> {
        self.stat_with(path, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// What is at `path`, through links where the root [follows them](Root::open_following).
    pub fn stat_through(&mut self, path: &RelativePath) -> Result<Option<Meta>> {
        self.stat_with(path, if self.root.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW })
    }

    fn stat_with(&mut self, path: &RelativePath, flags: AtFlags) -> Result<Option<Meta>> {
        match self.at(path, |folder, name| fs::statat(folder, name, flags)) {
            Ok(stat) => Ok(Some(Meta::of(&stat))),
            Err(errno) if is_absent(errno) => Ok(None),
            Err(errno) => Err(self.root.error("lstat", path, errno)),
        }
    }

    /// Opens a regular file for reading, with what it is now; `None` where none is there (any more).
    pub fn open(&mut self, path: &RelativePath) -> Result<Option<(File, Meta)>> {
        let flags = if self.root.follow { READ.difference(OFlags::NOFOLLOW) } else { READ };
        let file = match self.at(path, |folder, name| fs::openat(folder, name, flags, Mode::empty())) {
            Ok(file) => File::from(file),
            // ENXIO is what a socket answers.
            Err(errno) if is_absent(errno) || errno == Errno::NXIO => return Ok(None),
            Err(errno) => return Err(self.root.error("open", path, errno)),
        };
        let meta = Meta::of_file(&file).map_err(|error| self.root.error("fstat", path, error))?;
        Ok((meta.kind == Kind::File).then_some((file, meta)))
    }

    /// Where a symbolic link points, byte for byte; `None` where no link is there (any more).
    pub fn read_link(&mut self, path: &RelativePath) -> Result<Option<Arc<[u8]>>> {
        match self.at(path, |folder, name| fs::readlinkat(folder, name, Vec::new())) {
            Ok(target) => Ok(Some(target.into_bytes().into())),
            Err(errno) if is_absent(errno) || errno == Errno::INVAL => Ok(None),
            Err(errno) => Err(self.root.error("readlink", path, errno)),
        }
    }

    /// Creates a folder. `false` where something is there already.
    pub fn make_folder(&mut self, path: &RelativePath, mode: u32) -> Result<bool> {
        match self.at(path, |folder, name| fs::mkdirat(folder, name, permissions(mode))) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.root.error("mkdir", path, errno)),
        }
    }

    /// Creates a folder where none is yet. `false` where something other than a folder does.
    pub fn ensure_folder(&mut self, path: &RelativePath, mode: u32) -> Result<bool> {
        Ok(self.make_folder(path, mode)? || self.stat(path)?.is_some_and(|meta| meta.kind == Kind::Folder))
    }

    /// Creates a new file for writing; fails where something is there.
    pub fn create(&mut self, path: &RelativePath, mode: u32) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.at(path, |folder, name| fs::openat(folder, name, flags, permissions(mode)))
            .map(File::from)
            .map_err(|errno| self.root.error("open", path, errno))
    }

    /// Creates a symbolic link; fails where something is there.
    pub fn symlink(&mut self, target: &[u8], path: &RelativePath) -> Result<()> {
        self.at(path, |folder, name| fs::symlinkat(target, folder, name))
            .map_err(|errno| self.root.error("symlink", path, errno))
    }

    /// Sets the permission bits of a folder, not those of what a link in its place points to.
    pub fn set_folder_mode(&mut self, path: &RelativePath, mode: u32) -> Result<()> {
        self.folder(path.as_bytes())
            .and_then(|folder| fs::fchmod(folder, permissions(mode)))
            .map_err(|errno| self.root.error("chmod", path, errno))
    }

    /// Fails where this process may not make a name in a folder.
    pub fn check_writable(&mut self, folder: &RelativePath) -> Result<()> {
        let access = fs::Access::WRITE_OK | fs::Access::EXEC_OK;
        self.at(folder, |above, name| fs::accessat(above, name, access, AtFlags::EACCESS))
            .map_err(|errno| self.root.error("access", folder, errno))
    }

    /// Sets the permission bits of what is at `path`, through a link. For the stage alone, where no other process puts one:
    /// a file there may be one that not even its owner can open.
    pub fn set_staged_mode(&mut self, path: &RelativePath, mode: u32) -> Result<()> {
        self.at(path, |folder, name| fs::chmodat(folder, name, permissions(mode), AtFlags::empty()))
            .map_err(|errno| self.root.error("chmod", path, errno))
    }

    /// Gives what is at `path`, and not what it points to, to a user and a group. `false` where that cannot be: the
    /// file system keeps no owners, or this process may not name that one.
    pub fn set_owner(&mut self, path: &RelativePath, (user, group): (u32, u32)) -> Result<bool> {
        let owner = (Some(fs::Uid::from_raw(user)), Some(fs::Gid::from_raw(group)));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match self.at(path, |folder, name| fs::chownat(folder, name, owner.0, owner.1, flags)) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::OVERFLOW) => Ok(false),
            Err(errno) => Err(self.root.error("chown", path, errno)),
        }
    }

    /// Removes a name that is no folder. `false` where there is none.
    pub fn remove_file(&mut self, path: &RelativePath) -> Result<bool> {
        match self.at(path, |folder, name| fs::unlinkat(folder, name, AtFlags::empty())) {
            Ok(()) => Ok(true),
            Err(errno) if is_absent(errno) => Ok(false),
            Err(errno) => Err(self.root.error("unlink", path, errno)),
        }
    }

    /// Removes an empty folder. `false` where it is not empty, a mount point, or no folder (any more).
    pub fn remove_empty_folder(&mut self, path: &RelativePath) -> Result<bool> {
        match self.at(path, |folder, name| fs::unlinkat(folder, name, AtFlags::REMOVEDIR)) {
            Ok(()) => Ok(true),
            Err(errno) if is_absent(errno) || matches!(errno, Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(Errno::BUSY) if self.is_mount_point(path)? => Ok(false),
            Err(errno) => Err(self.root.error("rmdir", path, errno)),
        }
    }

    /// Whether another file system, or part of one, is mounted at a path.
    pub fn is_mount_point(&mut self, path: &RelativePath) -> Result<bool> {
        let Some(meta) = self.stat(path)? else { return Ok(false) };
        let (folder, name) = path.split();
        let folder = match self.folder(folder) {
            Ok(folder) => folder,
            Err(errno) if is_absent(errno) => return Ok(false),
            Err(errno) => return Err(self.root.error("open", path, errno)),
        };
        let around = fs::fstat(folder).map_err(|errno| Error::io("fstat", path.as_path(), errno))?;
        Ok(Meta::of(&around).id.device() != meta.id.device() || is_root_of_mount(folder, name))
    }

    /// Whether names may be made and removed in the folder at `path` (`None`: the root), as far as its mode says.
    pub fn may_change(&mut self, path: Option<&RelativePath>) -> Result<bool> {
        let root = self.root;
        let flags = fs::Access::WRITE_OK | fs::Access::EXEC_OK;
        let may = self
            .folder(path.map_or(&[], RelativePath::as_bytes))
            .and_then(|folder| fs::accessat(folder, ".", flags, AtFlags::empty()));
        match (may, path) {
            (Ok(()), _) => Ok(true),
            (Err(Errno::ACCESS), _) => Ok(false),
            (Err(errno), None) => Err(Error::io("access", root.path(), errno)),
            (Err(errno), Some(path)) => Err(root.error("access", path, errno)),
        }
    }

    /// Removes a name that is no folder, or an empty folder. `false` where neither is there.
    pub fn remove(&mut self, path: &RelativePath) -> Result<bool> {
        Ok(self.remove_empty_folder(path)? || self.remove_file(path)?)
    }

    /// Lists a folder's names; `None` where no folder is there (any more).
    pub fn list(&mut self, path: Option<&RelativePath>) -> Result<Option<Vec<Box<[u8]>>>> {
        let root = self.root;
        let failed = |syscall, errno: Errno| match path {
            None => Error::io(syscall, root.path(), errno),
            Some(path) => root.error(syscall, path, errno),
        };
        let folder = match self.folder(path.map_or(&[], RelativePath::as_bytes)) {
            Ok(folder) => folder,
            Err(errno) if is_absent(errno) => return Ok(None),
            Err(errno) => return Err(failed("scandir", errno)),
        };
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(folder).map_err(|errno| failed("scandir", errno))? {
            let entry = entry.map_err(|errno| failed("scandir", errno))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.into());
            }
        }
        Ok(Some(names))
    }

    /// The full path of something below the root, for messages only.
    #[must_use]
    pub fn path_of(&self, path: &RelativePath) -> PathBuf {
        self.root.path_of(path)
    }

    /// A call on a name in the folder that it lies in.
    pub(super) fn at<T>(
        &mut self,
        path: &RelativePath,
        call: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let (folder, name) = path.split();
        call(self.folder(folder)?, name)
    }
}

/// Whether a part of the same file system is mounted there: a single file may be.
#[cfg(target_os = "linux")]
fn is_root_of_mount(folder: BorrowedFd<'_>, name: &OsStr) -> bool {
    use rustix::fs::{StatxAttributes, StatxFlags};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    // A kernel that does not know this call or attribute says nothing, and another call fails then.
    fs::statx(folder, name, flags, StatxFlags::BASIC_STATS)
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Only whole file systems are mounted, and on folders.
#[cfg(not(target_os = "linux"))]
fn is_root_of_mount(_folder: BorrowedFd<'_>, _name: &OsStr) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_tree_is_climbed_without_starting_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let names = vec!["d"; 200];
        let deep =
            |levels: usize| RelativePath::parse(names[..levels].join("/").as_bytes()).unwrap().unwrap();
        let mut cursor = root.cursor();
        for levels in 1..=200 {
            cursor.make_folder(&deep(levels), 0o700).unwrap();
            assert!(cursor.open.len() <= OPEN_FOLDERS);
        }
        cursor.folder(deep(200).as_bytes()).unwrap();
        assert_eq!(cursor.open.len(), OPEN_FOLDERS);
        cursor.folder(deep(190).as_bytes()).unwrap();
        assert_eq!(
            cursor.open.len(),
            OPEN_FOLDERS - 10,
            "what was open stayed so, and nothing was opened anew"
        );
        for levels in (1..=200).rev() {
            assert_eq!(cursor.stat(&deep(levels)).unwrap().map(|meta| meta.kind), Some(Kind::Folder));
        }
    }
}
