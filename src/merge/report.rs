//! What a restore did, entry by entry.

use crate::path::RelativePath;

/// A path that was left as it is here, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Where.
    pub path: RelativePath,
    /// Why.
    pub reason: &'static str,
}

/// A path with a word on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Noted {
    /// Where.
    pub path: RelativePath,
    /// What is to be known of it.
    pub reason: &'static str,
}

/// A path that both sides had changed; the sandbox's version stands there now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Where.
    pub path: RelativePath,
    /// Where the local version is kept, from the workspace's root.
    pub backed_up_at: RelativePath,
}

/// What merges that were killed or failed left, for the report of the next.
#[derive(Debug, Default)]
pub struct Rescued {
    /// Local versions that they had displaced; they are kept now.
    pub conflicts: Vec<Conflict>,
    /// What they deleted and kept, since it was most of what there was.
    pub deletions_backed_up: Vec<Conflict>,
    /// Stages that could not be cleared up; a later restore tries again.
    pub skipped: Vec<Skipped>,
}

/// What a merge did. Each list is in byte order of the paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Created, replaced or given its mode from the sandbox.
    pub written: Vec<RelativePath>,
    /// Deleted here because the sandbox deleted it.
    pub deleted: Vec<RelativePath>,
    /// Deleted in the sandbox but changed here, and therefore kept.
    pub left_in_place: Vec<RelativePath>,
    /// Changed on both sides.
    pub conflicts: Vec<Conflict>,
    /// Where what was deleted is kept as well. Filled only by a merge that deleted more than half of what the sandbox had;
    /// then it has all of its deletions.
    pub deletions_backed_up: Vec<Conflict>,
    /// Left as it is here.
    pub skipped: Vec<Skipped>,
    /// What the sandbox changed and yet neither comes nor goes, since it would run something here.
    pub held_back: Vec<Noted>,
    /// Of what was written, what tools run or obey unasked.
    pub sensitive: Vec<Noted>,
}

impl Report {
    /// Puts every list into order, after several threads have filled them.
    fn sort(&mut self) {
        self.written.sort_unstable();
        // A new folder is made first and given its mode last.
        self.written.dedup();
        self.deleted.sort_unstable();
        self.left_in_place.sort_unstable();
        self.conflicts.sort_unstable();
        self.deletions_backed_up.sort_unstable();
        self.skipped.sort_unstable();
        self.held_back.sort_unstable();
        self.sensitive.sort_unstable();
    }

    /// Takes in what earlier merges left, and puts every list into order.
    pub fn take_rescued(&mut self, rescued: &mut Rescued) {
        self.conflicts.append(&mut rescued.conflicts);
        self.deletions_backed_up.append(&mut rescued.deletions_backed_up);
        self.skipped.append(&mut rescued.skipped);
        self.sort();
    }

    /// Takes in what another part of the same merge did.
    pub fn absorb(&mut self, other: Self) {
        self.written.extend(other.written);
        self.deleted.extend(other.deleted);
        self.left_in_place.extend(other.left_in_place);
        self.conflicts.extend(other.conflicts);
        self.deletions_backed_up.extend(other.deletions_backed_up);
        self.skipped.extend(other.skipped);
        self.held_back.extend(other.held_back);
        self.sensitive.extend(other.sensitive);
    }
}
