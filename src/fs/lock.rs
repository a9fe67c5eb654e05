//! Locks on folders (`flock`). A lock lasts as long as the handle on its folder, so it shows that a process
//! is alive.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::folder::Root;
use crate::error::{Error, Result};

/// Who else may hold the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Others that share it.
    Shared,
    /// Nobody.
    Exclusive,
}

/// The outcome of an attempt to lock a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is ours until the folder is closed.
    Ours,
    /// Another process has it.
    Taken,
    /// The file system has no locks, like some network and FUSE file systems.
    Unknown,
}

/// Tries to lock a folder, without waiting.
pub fn try_lock(folder: &Root, sharing: Sharing) -> Result<Hold> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    hold_from(flock(folder.handle(), operation)).map_err(|errno| Error::io("flock", folder.path(), errno))
}

/// The errors of file systems without locks. `EBADF` comes from those that implement `flock` as another kind
/// of lock, which needs a file open for writing.
const NO_LOCKS: [Errno; 5] = [Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS, Errno::INVAL, Errno::BADF];

fn hold_from(answer: rustix::io::Result<()>) -> rustix::io::Result<Hold> {
    match answer {
        Ok(()) => Ok(Hold::Ours),
        Err(Errno::WOULDBLOCK) => Ok(Hold::Taken),
        Err(errno) if NO_LOCKS.contains(&errno) => Ok(Hold::Unknown),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_locks_is_not_taken_for_a_held_lock() {
        assert_eq!(hold_from(Ok(())), Ok(Hold::Ours));
        assert_eq!(hold_from(Err(Errno::AGAIN)), Ok(Hold::Taken));
        for errno in NO_LOCKS {
            assert_eq!(hold_from(Err(errno)), Ok(Hold::Unknown));
        }
        for errno in [Errno::IO, Errno::INTR, Errno::NOLCK] {
            assert_eq!(hold_from(Err(errno)), Err(errno));
        }
    }
}
