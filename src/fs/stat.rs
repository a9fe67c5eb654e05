//! What the file system says about a name, and by what a file is known again.

use std::fs::File;
use std::io;

use rustix::fs::{self, FileType, Mode};
use serde::{Deserialize, Serialize};

/// Which of all files of this machine something is, by whatever name: a device and an inode in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(u64, u64);

impl FileId {
    /// Of an inode on a device.
    #[must_use]
    pub const fn new(device: u64, inode: u64) -> Self {
        Self(device, inode)
    }

    /// The file system.
    #[must_use]
    pub const fn device(self) -> u64 {
        self.0
    }

    /// The inode in it.
    #[must_use]
    pub const fn inode(self) -> u64 {
        self.1
    }
}

/// By what a version of a file is known again without reading it. Two are equal where nothing at all was done to the
/// file in between, not even a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Which file.
    pub id: FileId,
    /// Bytes of content.
    pub size: u64,
    /// See [`Meta::mtime`].
    pub mtime: (i64, i64),
    /// See [`Meta::ctime`].
    pub ctime: (i64, i64),
    /// The full `st_mode`.
    pub mode: u32,
}

impl Fingerprint {
    /// Whether it is the same file with the same content and mode, renamed perhaps.
    #[must_use]
    pub fn is_same_version(&self, other: &Self) -> bool {
        Self { ctime: other.ctime, ..*self } == *other
    }
}

/// What kind of thing is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A socket, FIFO or device: never opened, never archived.
    Other,
}

/// What the file system says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// The full `st_mode`.
    pub mode: u32,
    /// Bytes of content.
    pub size: u64,
    /// Time of the last change of the content: seconds since 1970, and nanoseconds.
    pub mtime: (i64, i64),
    /// Time of the last change of the inode, in the same way. A rename or a further name changes it as well.
    pub ctime: (i64, i64),
    /// Which of all files it is.
    pub id: FileId,
    /// How many names it has.
    pub links: u64,
    /// The user and the group that it belongs to.
    pub owner: (u32, u32),
}

impl Meta {
    /// The fields' types differ between platforms.
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        reason = "the fields' types differ by platform"
    )]
    pub(super) fn of(stat: &fs::Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Other,
        };
        Self {
            kind,
            mode: stat.st_mode as u32,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            id: FileId(stat.st_dev as u64, stat.st_ino as u64),
            links: stat.st_nlink as u64,
            owner: (stat.st_uid, stat.st_gid),
        }
    }

    /// What `file` is now.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::of(&fs::fstat(file)?))
    }

    /// What a later look is compared with.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let Self { id, size, mtime, ctime, mode, .. } = *self;
        Fingerprint { id, size, mtime, ctime, mode }
    }

    /// Whether it is the same inode, whatever became of its content.
    #[must_use]
    pub fn is_same_inode(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether it is the same inode with the same size, time and mode: it was not touched between two looks.
    #[must_use]
    pub fn untouched_since(&self, earlier: &Self) -> bool {
        self.fingerprint().is_same_version(&earlier.fingerprint())
    }

    /// What it is, in words.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "the type differs by platform"
    )]
    pub fn in_words(&self) -> &'static str {
        match FileType::from_raw_mode(self.mode as _) {
            FileType::Directory => "a folder",
            FileType::RegularFile => "a file",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            _ => "a device",
        }
    }
}

/// Sets a file's mode bits `07777`, whatever the umask.
pub fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, permissions(mode))?)
}

/// The mode bits `07777` as a call takes them.
pub(super) fn permissions(mode: u32) -> Mode {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "the type differs by platform"
    )]
    Mode::from_bits_truncate((mode & 0o7777) as _)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::by_path;

    #[test]
    fn a_version_is_known_again_when_it_was_renamed_and_not_when_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        let look = |path: &std::path::Path| by_path::lstat(path).unwrap().unwrap();
        by_path::write(&one, b"text").unwrap();
        let written = look(&one);
        let renamed = Meta { ctime: (written.ctime.0 + 1, 0), ..written };
        assert!(renamed.untouched_since(&written), "a rename sets the ctime");
        assert_ne!(renamed.fingerprint(), written.fingerprint());
        by_path::rename(&one, &other).unwrap();
        assert!(look(&other).untouched_since(&written));
        by_path::write(&other, b"longer text").unwrap();
        assert!(!look(&other).untouched_since(&written));
        assert!(look(&other).is_same_inode(&written));
        let elsewhere = Meta { id: FileId::new(written.id.device() + 1, written.id.inode()), ..written };
        assert!(!elsewhere.untouched_since(&written), "on another file system");
    }

    #[test]
    fn what_is_not_a_file_has_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(by_path::lstat(&link).unwrap().unwrap().in_words(), "a symbolic link");
        assert_eq!(by_path::stat(&link).unwrap().unwrap().in_words(), "a device");
        assert_eq!(by_path::lstat(folder.path()).unwrap().unwrap().in_words(), "a folder");
    }
}
