//! Moving, exchanging and adding names, in one step each.

use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, RenameFlags};
use rustix::io::Errno;

use super::errno::is_absent;
use super::folder::Cursor;
use crate::error::Result;
use crate::path::RelativePath;

/// What [`rename`] does with an entry at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onto {
    /// Fails: nothing may be there.
    Nothing,
    /// Exchanges it with the entry that is moved.
    Exchange,
    /// Replaces it (a file by a file).
    Replace,
}

/// The outcome of a [`rename`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renamed {
    /// It was done.
    Done,
    /// Something is at the destination of [`Onto::Nothing`].
    Occupied,
    /// The source, or the destination of [`Onto::Exchange`], or a folder on the way is missing (by now).
    Absent,
    /// The two are on different file systems (a mount below the workspace).
    OtherFileSystem,
    /// One of the two is a mount point, which cannot be moved.
    MountPoint,
    /// The file system cannot do it in one step.
    Unsupported,
}

/// Moves an entry from below one root to below another, in one step.
pub fn rename(
    from: (&mut Cursor<'_>, &RelativePath),
    to: (&mut Cursor<'_>, &RelativePath),
    onto: Onto,
) -> Result<Renamed> {
    let flags = match onto {
        Onto::Nothing => RenameFlags::NOREPLACE,
        Onto::Exchange => RenameFlags::EXCHANGE,
        Onto::Replace => RenameFlags::empty(),
    };
    let (source, from_path) = from;
    let (destination, to_path) = to;
    let done = source.at(from_path, |from_folder, from_name| {
        destination.at(to_path, |to_folder, to_name| {
            if flags.is_empty() {
                fs::renameat(from_folder, from_name, to_folder, to_name)
            } else {
                fs::renameat_with(from_folder, from_name, to_folder, to_name, flags)
            }
        })
    });
    match done {
        Ok(()) => Ok(Renamed::Done),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(Renamed::Occupied),
        Err(errno) if is_absent(errno) => Ok(Renamed::Absent),
        Err(Errno::XDEV) => Ok(Renamed::OtherFileSystem),
        // Some file systems also report an entry as busy that is open elsewhere.
        Err(Errno::BUSY) if source.is_mount_point(from_path)? || destination.is_mount_point(to_path)? => {
            Ok(Renamed::MountPoint)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if !flags.is_empty() => Ok(Renamed::Unsupported),
        Err(errno) => Err(destination.root.error("rename", to_path, errno)),
    }
}

/// Gives an entry below one root a further name below another; [`Renamed::Occupied`] if something has that
/// name already.
///
/// For file systems whose rename always replaces what is at the destination.
pub fn link(from: (&mut Cursor<'_>, &RelativePath), to: (&mut Cursor<'_>, &RelativePath)) -> Result<Renamed> {
    let (source, from_path) = from;
    let (destination, to_path) = to;
    let done = source.at(from_path, |from_folder, from_name| {
        destination.at(to_path, |to_folder, to_name| {
            fs::linkat(from_folder, from_name, to_folder, to_name, AtFlags::empty())
        })
    });
    match done {
        Ok(()) => Ok(Renamed::Done),
        Err(Errno::EXIST) => Ok(Renamed::Occupied),
        Err(errno) if is_absent(errno) => Ok(Renamed::Absent),
        Err(Errno::XDEV) => Ok(Renamed::OtherFileSystem),
        Err(errno) => Err(destination.root.error("link", to_path, errno)),
    }
}

/// Moves an entry at a path of ours to a path where nothing is. The destination is reached through handles
/// that follow no link.
pub fn move_to(from: &Path, (cursor, to): (&mut Cursor<'_>, &RelativePath)) -> Result<Renamed> {
    let done =
        cursor.at(to, |parent, name| fs::renameat_with(CWD, from, parent, name, RenameFlags::NOREPLACE));
    match done {
        Ok(()) => Ok(Renamed::Done),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(Renamed::Occupied),
        Err(errno) if is_absent(errno) => Ok(Renamed::Absent),
        Err(Errno::XDEV) => Ok(Renamed::OtherFileSystem),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(Renamed::Unsupported),
        Err(errno) => Err(cursor.root.error("rename", to, errno)),
    }
}
