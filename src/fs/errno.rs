//! The meaning of the system's error numbers.

use rustix::io::Errno;

use crate::error::{Error, Obstacle};

impl Error {
    /// Whether the file system cannot have such a name at all.
    #[must_use]
    pub fn refuses_name(&self) -> bool {
        is_one_of(self.errno(), &[Errno::ILSEQ, Errno::INVAL, Errno::NAMETOOLONG])
    }

    /// Whether a link may be where a folder must be.
    #[must_use]
    pub fn means_link(&self) -> bool {
        is_one_of(self.errno(), &[Errno::NOTDIR, Errno::LOOP])
    }

    /// Whether nothing is at the path, or something other than a folder is on the way to it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Obstructed { obstacle: Obstacle::Vanished, .. }) || means_gone(self.errno())
    }

    /// Whether this process may not write there.
    #[must_use]
    pub fn forbids_writing(&self) -> bool {
        is_one_of(self.errno(), &[Errno::ACCESS, Errno::PERM, Errno::ROFS])
    }

    /// Whether a hard link failed possibly because the file system has none, or because the file has as many
    /// as it may have.
    #[must_use]
    pub fn may_be_lack_of_hard_links(&self) -> bool {
        is_one_of(self.errno(), &[Errno::MLINK, Errno::PERM, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS])
    }
}

/// Whether an error number means that nothing is at a path, or something other than a folder is on the way to
/// it.
#[must_use]
pub fn means_gone(errno: Option<i32>) -> bool {
    is_one_of(errno, &[Errno::NOENT, Errno::NOTDIR, Errno::LOOP])
}

/// The same for the error of a call.
pub(super) fn is_absent(errno: Errno) -> bool {
    means_gone(Some(errno.raw_os_error()))
}

fn is_one_of(errno: Option<i32>, meant: &[Errno]) -> bool {
    meant.iter().any(|meant| errno == Some(meant.raw_os_error()))
}
