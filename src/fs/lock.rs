//! A folder locked as long as its handle is open (`flock`), which says that its process lives.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::folder::Root;
use crate::error::{Error, Result};

/// Who else may have a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Any number of those that share it.
    Shared,
    /// Nobody.
    Alone,
}

/// What became of an attempt to lock a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is ours until the folder is closed.
    Ours,
    /// Another has it.
    Taken,
    /// The file system knows none: some network and FUSE file systems do not.
    Unknown,
}

/// Locks a folder, and never waits for that.
pub fn try_lock(folder: &Root, sharing: Sharing) -> Result<Hold> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Alone => FlockOperation::NonBlockingLockExclusive,
    };
    hold_from(flock(folder.handle(), operation)).map_err(|errno| Error::io("flock", folder.path(), errno))
}

/// By which file systems say that they know no locks. `EBADF` is that of those which make it a lock of another kind, for
/// files that are open for writing.
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
    fn a_file_system_without_locks_is_none_with_a_lock_that_is_taken() {
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
