//! The settings of a merge.

use super::conflicts::Retention;
use crate::cancel::Cancel;
use crate::git::held::{AtCheckout, Search};
use crate::tree::entry::Snapshot;
use crate::tree::filter::Filter;

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
    /// What git may write outside of a `.git` at a checkout.
    pub written: &'a AtCheckout,
    /// How long the backups of earlier merges are kept.
    pub retention: Retention,
    /// Cancels the merge until its first change.
    pub cancel: &'a Cancel,
}
