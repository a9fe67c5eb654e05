//! The report of a merge, entry by entry.

use crate::path::RelativePath;

/// A path that was left as it is, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Where.
    pub path: RelativePath,
    /// Why.
    pub reason: &'static str,
}

/// A path with a remark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Noted {
    /// Where.
    pub path: RelativePath,
    /// The remark.
    pub reason: &'static str,
}

/// A path that both sides had changed. The sandbox's version is there now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Where.
    pub path: RelativePath,
    /// Where the local version is backed up, relative to the workspace.
    pub backed_up_at: RelativePath,
}

/// What earlier merges left that were killed or failed, for the next report.
#[derive(Debug, Default)]
pub struct Rescued {
    /// Local versions that they had displaced; they are backed up now.
    pub conflicts: Vec<Conflict>,
    /// Versions that they deleted and backed up, because they deleted most of the workspace.
    pub deletions_backed_up: Vec<Conflict>,
    /// Stages that could not be cleared up. A later restore tries again.
    pub skipped: Vec<Skipped>,
}

/// What a merge did. Each list is in byte order of the paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Created, replaced, or given the sandbox's mode.
    pub written: Vec<RelativePath>,
    /// Changed in the sandbox and here just like that. The caller is not told of these, but of what is sensitive among them.
    pub already_here: Vec<RelativePath>,
    /// Deleted, because the sandbox deleted it.
    pub deleted: Vec<RelativePath>,
    /// Deleted in the sandbox but changed locally, and therefore left in place.
    pub left_in_place: Vec<RelativePath>,
    /// Changed on both sides.
    pub conflicts: Vec<Conflict>,
    /// All deletions, with their backups. Filled only if the merge deleted more than half of what the sandbox
    /// had.
    pub deletions_backed_up: Vec<Conflict>,
    /// Left as it is.
    pub skipped: Vec<Skipped>,
    /// Changed in the sandbox but not taken over, because it would run something here.
    pub held_back: Vec<Noted>,
    /// Written, and run or obeyed by tools without being asked.
    pub sensitive: Vec<Noted>,
}

impl Report {
    /// Sorts every list, after several threads have filled them.
    fn sort(&mut self) {
        self.written.sort_unstable();
        // A new folder is listed twice: when it is made, and when it gets its mode.
        self.written.dedup();
        self.deleted.sort_unstable();
        self.left_in_place.sort_unstable();
        self.conflicts.sort_unstable();
        self.deletions_backed_up.sort_unstable();
        self.skipped.sort_unstable();
        self.held_back.sort_unstable();
        self.sensitive.sort_unstable();
    }

    /// Adds what earlier merges left, and sorts every list.
    pub fn take_rescued(&mut self, rescued: &mut Rescued) {
        self.conflicts.append(&mut rescued.conflicts);
        self.deletions_backed_up.append(&mut rescued.deletions_backed_up);
        self.skipped.append(&mut rescued.skipped);
        self.sort();
    }

    /// Adds what another part of the same merge did.
    pub fn absorb(&mut self, other: Self) {
        self.written.extend(other.written);
        self.already_here.extend(other.already_here);
        self.deleted.extend(other.deleted);
        self.left_in_place.extend(other.left_in_place);
        self.conflicts.extend(other.conflicts);
        self.deletions_backed_up.extend(other.deletions_backed_up);
        self.skipped.extend(other.skipped);
        self.held_back.extend(other.held_back);
        self.sensitive.extend(other.sensitive);
    }
}
