//! The settings of a merge.

use super::conflicts::Retention;
use crate::cancel::Cancel;
use crate::fs::Fingerprint;
use crate::git::held::Search;
use crate::path::RelativePath;
use crate::tree::entry::{Digest, Snapshot};
use crate::tree::filter::Filter;

/// Tells the digests of local files that are known not to have changed since they were read.
pub trait KnownDigests: Sync {
    /// The digest of a file, if the file that was read there had that fingerprint.
    fn get(&self, path: &RelativePath, now: &Fingerprint) -> Option<Digest>;
}

/// Knows nothing, so each file is read.
impl KnownDigests for () {
    fn get(&self, _: &RelativePath, _: &Fingerprint) -> Option<Digest> {
        None
    }
}

/// The settings of a merge.
#[derive(Clone, Copy)]
pub struct MergeOptions<'a> {
    /// What both sides last shared.
    pub base: &'a Snapshot,
    /// The paths that are neither taken from the incoming side nor changed locally: what is excluded or preserved,
    /// with everything below it, and this package's own folder.
    pub left_alone: &'a Filter<'a>,
    /// Where directories are searched for that git would take for bare repositories, once more under the lock.
    pub search: Search,
    /// What is known of the local files. It is asked for only where there are many.
    pub known: &'a dyn KnownDigests,
    /// How long the backups of earlier merges are kept.
    pub retention: Retention,
    /// Cancels the merge until its first change.
    pub cancel: &'a Cancel,
}
