//! A folder held open, and the calls on what is below it.
//!
//! A path is walked name by name from the open root, and no name on the way may be a link. So whatever takes
//! the place of a folder meanwhile, everything that is read, written or deleted is inside the root.

use std::ffi::OsStr;
pub use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::by_path::make_folders;
use super::errno::is_absent;
use super::stat::{Kind, Meta, permissions};
use crate::error::{Error, Result};
use crate::path::RelativePath;

/// Fills a buffer from a file as far as that goes. Returns how many bytes there were.
pub fn read_fully(file: &mut File, into: &mut [u8]) -> io::Result<usize> {
    fill(into, |rest, _| file.read(rest))
}

/// Fills a buffer from an offset of a file as far as that goes. Returns how many bytes there were.
pub fn read_fully_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    fill(into, |rest, read| file.read_at(rest, offset + read as u64))
}

fn fill(into: &mut [u8], mut more: impl FnMut(&mut [u8], usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match more(&mut into[read..], read) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// The flags to open a folder, but not a link to one.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The flags to open a file for reading, but never through a link, and without waiting if it has become a
/// FIFO.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// How many folders on the way to the current one are kept open: the innermost ones, so that a deep tree does
/// not use up the file descriptors.
const OPEN_FOLDERS: usize = 48;

/// A name in a folder, and its kind where the listing tells it.
pub type ListedName = (Box<[u8]>, Option<Kind>);

/// A folder held open. Its path was resolved once, links included; everything below goes through the handle.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    path: PathBuf,
    follows: bool,
}

impl Root {
    /// Opens an existing folder.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::open(path, flags, Mode::empty()).map_err(|errno| Error::io("open", path, errno))?;
        Ok(Self { folder, path: path.to_path_buf(), follows: false })
    }

    /// Opens an existing folder below which links are followed, also out of it. Only for reading what the
    /// caller asked to archive that way.
    pub fn open_following(path: &Path) -> Result<Self> {
        Ok(Self { follows: true, ..Self::open(path)? })
    }

    /// Opens an existing folder, and fails if its path is that of a link. Links above it are followed.
    pub fn open_no_link(path: &Path) -> Result<Self> {
        let folder = fs::open(path, FOLDER, Mode::empty()).map_err(|errno| Error::io("open", path, errno))?;
        Ok(Self { folder, path: path.to_path_buf(), follows: false })
    }

    /// Creates the folder, and those above it that are missing, and opens it.
    pub fn create(path: &Path) -> Result<Self> {
        make_folders(path)?;
        Self::open(path)
    }

    /// Another handle of the same folder.
    pub fn try_clone(&self) -> Result<Self> {
        let folder = self.folder.try_clone().map_err(|error| Error::io("dup", &self.path, error))?;
        Ok(Self { folder, path: self.path.clone(), follows: self.follows })
    }

    /// Opens a folder below this one as a root of its own.
    pub fn below(&self, path: &RelativePath) -> Result<Self> {
        let mut cursor = self.cursor();
        let folder = cursor.folder(path.as_bytes()).map_err(|errno| self.error("open", path, errno))?;
        let folder = folder.try_clone_to_owned().map_err(|error| self.error("open", path, error))?;
        Ok(Self { folder, path: self.path_of(path), follows: false })
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The full path of something below the root; for messages only.
    #[must_use]
    pub fn path_of(&self, path: &RelativePath) -> PathBuf {
        self.path.join(path.as_path())
    }

    /// The metadata of the root itself.
    pub fn meta(&self) -> Result<Meta> {
        fs::fstat(&self.folder)
            .map(|stat| Meta::of(&stat))
            .map_err(|errno| Error::io("fstat", &self.path, errno))
    }

    /// Sets the permission bits of the root itself.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        fs::fchmod(&self.folder, permissions(mode)).map_err(|errno| Error::io("chmod", &self.path, errno))
    }

    /// The open handle.
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Whether symbolic links below it are followed.
    #[must_use]
    pub fn follows_links(&self) -> bool {
        self.follows
    }

    /// A cursor for calls below the root. Each thread needs its own.
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

/// Makes calls below a [`Root`], and keeps the folders on its way open, because neighbours are usually used
/// one after another.
#[derive(Debug)]
pub struct Cursor<'r> {
    pub(super) root: &'r Root,
    /// The path of the last folder in `open`.
    path: Vec<u8>,
    /// The open folders on the way there, with the length of their paths.
    open: Vec<(usize, OwnedFd)>,
}

impl Cursor<'_> {
    /// Another cursor below the same root.
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
            let flags = if self.root.follows { FOLDER.difference(OFlags::NOFOLLOW) } else { FOLDER };
            let folder = fs::openat(above, &path[start..end], flags, Mode::empty())?;
            if self.open.len() == OPEN_FOLDERS {
                // The innermost folders stay open, because the walk goes on from there, downwards and
                // upwards.
                self.open.remove(0);
            }
            self.open.push((end, folder));
            self.path.truncate(0);
            self.path.extend_from_slice(&path[..end]);
            done = end;
        }
        Ok(self.open.last().map_or(self.root.folder.as_fd(), |(_, folder)| folder.as_fd()))
    }

    /// The metadata of what is at `path`, without following a link. `None` if nothing is there, or if a
    /// folder on the way is missing.
    pub fn stat(&mut self, path: &RelativePath) -> Result<Option<Meta>> {
        self.stat_with(path, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The metadata of what is at `path`, through links if the root [follows them](Root::open_following).
    pub fn stat_through(&mut self, path: &RelativePath) -> Result<Option<Meta>> {
        self.stat_with(path, if self.root.follows { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW })
    }

    fn stat_with(&mut self, path: &RelativePath, flags: AtFlags) -> Result<Option<Meta>> {
        match self.at(path, |folder, name| fs::statat(folder, name, flags)) {
            Ok(stat) => Ok(Some(Meta::of(&stat))),
            Err(errno) if is_absent(errno) => Ok(None),
            Err(errno) => Err(self.root.error("lstat", path, errno)),
        }
    }

    /// Opens a regular file for reading, and returns its metadata too. `None` if there is none (any more).
    pub fn open(&mut self, path: &RelativePath) -> Result<Option<(File, Meta)>> {
        let flags = if self.root.follows { READ.difference(OFlags::NOFOLLOW) } else { READ };
        let file = match self.at(path, |folder, name| fs::openat(folder, name, flags, Mode::empty())) {
            Ok(file) => File::from(file),
            // ENXIO is the error for a socket.
            Err(errno) if is_absent(errno) || errno == Errno::NXIO => return Ok(None),
            Err(errno) => return Err(self.root.error("open", path, errno)),
        };
        let meta = Meta::of_file(&file).map_err(|error| self.root.error("fstat", path, error))?;
        Ok((meta.kind == Kind::File).then_some((file, meta)))
    }

    /// The target of a symbolic link, byte for byte. `None` if there is no link (any more).
    pub fn read_link(&mut self, path: &RelativePath) -> Result<Option<Arc<[u8]>>> {
        match self.at(path, |folder, name| fs::readlinkat(folder, name, Vec::new())) {
            Ok(target) => Ok(Some(target.into_bytes().into())),
            Err(errno) if is_absent(errno) || errno == Errno::INVAL => Ok(None),
            Err(errno) => Err(self.root.error("readlink", path, errno)),
        }
    }

    /// Creates a folder. Returns `false` if something is there already.
    pub fn make_folder(&mut self, path: &RelativePath, mode: u32) -> Result<bool> {
        match self.at(path, |folder, name| fs::mkdirat(folder, name, permissions(mode))) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.root.error("mkdir", path, errno)),
        }
    }

    /// Creates a folder unless there is one. Returns `false` if something else is there.
    pub fn ensure_folder(&mut self, path: &RelativePath, mode: u32) -> Result<bool> {
        Ok(self.make_folder(path, mode)? || self.stat(path)?.is_some_and(|meta| meta.kind == Kind::Folder))
    }

    /// Creates a new file for writing, and fails if something is there.
    pub fn create(&mut self, path: &RelativePath, mode: u32) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.at(path, |folder, name| fs::openat(folder, name, flags, permissions(mode)))
            .map(File::from)
            .map_err(|errno| self.root.error("open", path, errno))
    }

    /// Creates a symbolic link, and fails if something is there.
    pub fn symlink(&mut self, target: &[u8], path: &RelativePath) -> Result<()> {
        self.at(path, |folder, name| fs::symlinkat(target, folder, name))
            .map_err(|errno| self.root.error("symlink", path, errno))
    }

    /// Sets the permission bits of a folder, but not of what a link in its place points to.
    pub fn set_folder_mode(&mut self, path: &RelativePath, mode: u32) -> Result<()> {
        self.folder(path.as_bytes())
            .and_then(|folder| fs::fchmod(folder, permissions(mode)))
            .map_err(|errno| self.root.error("chmod", path, errno))
    }

    /// Fails if this process may not create entries in a folder.
    pub fn check_writable(&mut self, folder: &RelativePath) -> Result<()> {
        let access = fs::Access::WRITE_OK | fs::Access::EXEC_OK;
        self.at(folder, |above, name| fs::accessat(above, name, access, AtFlags::EACCESS))
            .map_err(|errno| self.root.error("access", folder, errno))
    }

    /// Sets the permission bits of what is at `path`, through a link.
    ///
    /// Only for the stage, where no other process makes links: a file there may be one that not even its
    /// owner can open.
    pub fn set_staged_mode(&mut self, path: &RelativePath, mode: u32) -> Result<()> {
        self.at(path, |folder, name| fs::chmodat(folder, name, permissions(mode), AtFlags::empty()))
            .map_err(|errno| self.root.error("chmod", path, errno))
    }

    /// Changes the owner and group of what is at `path`, without following a link. Returns `false` if that is
    /// impossible: the file system has no owners, or this process may not set this one.
    pub fn set_owner(&mut self, path: &RelativePath, (user, group): (u32, u32)) -> Result<bool> {
        let owner = (Some(fs::Uid::from_raw(user)), Some(fs::Gid::from_raw(group)));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match self.at(path, |folder, name| fs::chownat(folder, name, owner.0, owner.1, flags)) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::OVERFLOW) => Ok(false),
            Err(errno) => Err(self.root.error("chown", path, errno)),
        }
    }

    /// Removes an entry that is not a folder. Returns `false` if there is none.
    pub fn remove_file(&mut self, path: &RelativePath) -> Result<bool> {
        match self.at(path, |folder, name| fs::unlinkat(folder, name, AtFlags::empty())) {
            Ok(()) => Ok(true),
            Err(errno) if is_absent(errno) => Ok(false),
            Err(errno) => Err(self.root.error("unlink", path, errno)),
        }
    }

    /// Removes an empty folder. Returns `false` if it is not empty, is a mount point, or is not a folder (any
    /// more).
    pub fn remove_empty_folder(&mut self, path: &RelativePath) -> Result<bool> {
        match self.at(path, |folder, name| fs::unlinkat(folder, name, AtFlags::REMOVEDIR)) {
            Ok(()) => Ok(true),
            Err(errno) if is_absent(errno) || matches!(errno, Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(Errno::BUSY) if self.is_mount_point(path)? => Ok(false),
            Err(errno) => Err(self.root.error("rmdir", path, errno)),
        }
    }

    /// Whether another file system, or a part of one, is mounted at a path.
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

    /// Whether entries may be created and removed in the folder at `path` (`None`: the root), by its
    /// permissions.
    pub fn is_writable(&mut self, path: Option<&RelativePath>) -> Result<bool> {
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

    /// Removes an entry that is not a folder, or an empty folder. Returns `false` if there is neither.
    pub fn remove(&mut self, path: &RelativePath) -> Result<bool> {
        Ok(self.remove_empty_folder(path)? || self.remove_file(path)?)
    }

    /// The names in a folder. `None` if there is no folder (any more).
    pub fn list(&mut self, path: Option<&RelativePath>) -> Result<Option<Vec<Box<[u8]>>>> {
        let listed = self.list_kinds(path)?;
        Ok(listed.map(|listed| listed.into_iter().map(|(name, _)| name).collect()))
    }

    /// The same with what each name is, where the file system says so without being asked for each.
    pub fn list_kinds(&mut self, path: Option<&RelativePath>) -> Result<Option<Vec<ListedName>>> {
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
                names.push((name.into(), kind_of(entry.file_type())));
            }
        }
        Ok(Some(names))
    }

    /// The full path of something below the root; for messages only.
    #[must_use]
    pub fn path_of(&self, path: &RelativePath) -> PathBuf {
        self.root.path_of(path)
    }

    /// Makes a call on a name in its folder.
    pub(super) fn at<T>(
        &mut self,
        path: &RelativePath,
        call: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let (folder, name) = path.split();
        call(self.folder(folder)?, name)
    }
}

/// What a listing says that a name is.
fn kind_of(told: fs::FileType) -> Option<Kind> {
    match told {
        fs::FileType::Directory => Some(Kind::Folder),
        fs::FileType::RegularFile => Some(Kind::File),
        fs::FileType::Symlink => Some(Kind::Symlink),
        fs::FileType::Unknown => None,
        _ => Some(Kind::Other),
    }
}

/// Whether a part of the same file system is mounted there, such as a single file.
#[cfg(target_os = "linux")]
fn is_root_of_mount(folder: BorrowedFd<'_>, name: &OsStr) -> bool {
    use rustix::fs::{StatxAttributes, StatxFlags};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    // An old kernel without this call or attribute does not tell; then a later call fails.
    fs::statx(folder, name, flags, StatxFlags::BASIC_STATS)
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Other systems mount only whole file systems, on folders.
#[cfg(not(target_os = "linux"))]
fn is_root_of_mount(_folder: BorrowedFd<'_>, _name: &OsStr) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_in_a_deep_tree_opens_no_folder_twice() {
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
            "open folders stayed open, and none was opened again"
        );
        for levels in (1..=200).rev() {
            assert_eq!(cursor.stat(&deep(levels)).unwrap().map(|meta| meta.kind), Some(Kind::Folder));
        }
    }
}
