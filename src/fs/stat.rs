//! Metadata of files, and what identifies a file and a version of it.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{self, FileType, Mode};
use serde::{Deserialize, Serialize};

/// Identifies a file among all files of this machine, whatever its name: a device and an inode on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(u64, u64);

impl FileId {
    /// Of an inode on a device.
    #[must_use]
    pub const fn new(device: u64, inode: u64) -> Self {
        Self(device, inode)
    }

    /// The device, which stands for a file system.
    #[must_use]
    pub const fn device(self) -> u64 {
        self.0
    }

    /// The inode on that device.
    #[must_use]
    pub const fn inode(self) -> u64 {
        self.1
    }
}

/// Identifies a version of a file without reading it.
///
/// Two fingerprints are equal only if nothing at all was done to the file in between, not even a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The file.
    pub id: FileId,
    /// Its size in bytes.
    pub size: u64,
    /// See [`Meta::mtime`].
    pub mtime: (i64, i64),
    /// See [`Meta::ctime`].
    pub ctime: (i64, i64),
    /// The full `st_mode`.
    pub mode: u32,
}

impl Fingerprint {
    /// Whether it is the same file with the same content and mode. It may have been renamed.
    #[must_use]
    pub fn is_same_version(&self, other: &Self) -> bool {
        Self { ctime: other.ctime, ..*self } == *other
    }
}

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A socket, FIFO or device. Those are never opened and never archived.
    Other,
}

/// The metadata of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Its kind.
    pub kind: Kind,
    /// The full `st_mode`.
    pub mode: u32,
    /// Its size in bytes.
    pub size: u64,
    /// When its content was last changed: seconds since 1970, and nanoseconds.
    pub mtime: (i64, i64),
    /// When its inode was last changed, likewise. A rename or a new hard link changes this too.
    pub ctime: (i64, i64),
    /// Identifies the file.
    pub id: FileId,
    /// How many names it has.
    pub links: u64,
    /// Its user and group.
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

    /// Whether the inode may have been changed at that time or later. A file system may know times in whole seconds alone.
    #[must_use]
    pub fn is_changed_since(&self, time: SystemTime) -> bool {
        let (seconds, fraction) = self.ctime;
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let known = if fraction == 0 { Duration::from_secs(since.as_secs()) } else { since };
        let changed = u64::try_from(seconds).ok().zip(u32::try_from(fraction).ok());
        changed.is_some_and(|(seconds, fraction)| Duration::new(seconds, fraction) >= known)
    }

    /// The current metadata of an open file.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::of(&fs::fstat(file)?))
    }

    /// The fingerprint of this version.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let Self { id, size, mtime, ctime, mode, .. } = *self;
        Fingerprint { id, size, mtime, ctime, mode }
    }

    /// Whether it is the same inode, whatever happened to its content.
    #[must_use]
    pub fn is_same_inode(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether it is the same inode with the same size, time and mode, so it was not edited in between.
    #[must_use]
    pub fn untouched_since(&self, earlier: &Self) -> bool {
        self.fingerprint().is_same_version(&earlier.fingerprint())
    }

    /// Its kind, in words.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "the type differs by platform"
    )]
    pub fn in_words(&self) -> &'static str {
        match FileType::from_raw_mode(self.mode as _) {
            FileType::Directory => "a directory",
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

/// The mode bits `07777`, in the type that calls take.
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
    fn a_change_counts_from_its_very_time_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        by_path::write(&path, b"text").unwrap();
        let meta = by_path::lstat(&path).unwrap().unwrap();
        let at = |seconds, fraction| UNIX_EPOCH + Duration::new(seconds, fraction);
        for (ctime, since, expected) in [
            ((10, 5), at(10, 5), true),
            ((10, 5), at(10, 6), false),
            ((10, 5), at(9, 999), true),
            ((10, 0), at(10, 6), true),
            ((10, 0), at(11, 0), false),
            ((-1, 5), at(0, 0), false),
        ] {
            assert_eq!(Meta { ctime, ..meta }.is_changed_since(since), expected, "{ctime:?} {since:?}");
        }
    }

    #[test]
    fn a_renamed_version_is_the_same_and_a_changed_one_is_not() {
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
    fn every_kind_of_entry_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(by_path::lstat(&link).unwrap().unwrap().in_words(), "a symbolic link");
        assert_eq!(by_path::stat(&link).unwrap().unwrap().in_words(), "a device");
        assert_eq!(by_path::lstat(folder.path()).unwrap().unwrap().in_words(), "a directory");
    }
}
