//! The report of a prepare.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::send::Delivered;
use crate::path::RelativePath;
use crate::transfer::parts::Codec;
use crate::tree::ignore_files::UnmatchedLine;

/// How many of the excluded paths of an archive are named.
pub const NAMED: usize = 100;

/// What a prepare did: the workspace's archive first, then those of the assets in order.
#[derive(Debug, Default)]
pub struct PrepareReport {
    /// One report for each archive.
    pub archives: Vec<Archive>,
}

/// The report of one archive.
#[derive(Debug)]
pub struct Archive {
    /// `workspace`, or the asset's key.
    pub label: String,
    /// The number of its entries.
    pub entries: usize,
    /// Its size in bytes before compression.
    pub archive_bytes: u64,
    /// How many bytes were transferred, including what is appended to the archive.
    pub sent_bytes: u64,
    /// The number of its parts; 0 if the sandbox already had it.
    pub parts: usize,
    /// How those of the parts were compressed that were.
    pub codec: Codec,
    /// Whether it contains only what the sandbox did not have.
    pub is_changes_only: bool,
    /// How long its steps took.
    pub times: Times,
    /// What was excluded from it.
    pub left_out: LeftOut,
}

impl Archive {
    /// The report of an archive that was sent.
    #[must_use]
    pub fn new(label: &str, delivered: &Delivered, times: Times, left_out: LeftOut) -> Self {
        Self {
            label: label.to_owned(),
            entries: delivered.contents.snapshot.len(),
            archive_bytes: delivered.packed,
            sent_bytes: delivered.sent,
            parts: delivered.earlier.len() + 1,
            codec: delivered.codec(),
            is_changes_only: false,
            times,
            left_out,
        }
    }

    /// The report of an archive that the sandbox already has.
    #[must_use]
    pub fn unsent(
        label: &str,
        entries: usize,
        archive_bytes: u64,
        pack: Duration,
        left_out: LeftOut,
    ) -> Self {
        Self {
            label: label.to_owned(),
            entries,
            archive_bytes,
            sent_bytes: 0,
            parts: 0,
            codec: Codec::None,
            is_changes_only: true,
            times: Times { pack, ..Times::default() },
            left_out,
        }
    }
}

/// How long the steps of one archive took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Scanning the folder, and packing if the archive fits in one part. A larger one is packed while it is
    /// sent.
    pub pack: Duration,
    /// Sending.
    pub upload: Duration,
    /// Running the command in the sandbox.
    pub extract: Duration,
}

/// What was excluded from an archive. If there are many paths, the first ones in order are named, whatever
/// the order in which they were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The named paths, each with the reason.
    pub named: BTreeMap<RelativePath, Cow<'static, str>>,
    /// The number of all excluded paths. What is below one of them was not scanned.
    pub count: usize,
    /// The caller's patterns that matched nothing.
    pub unmatched: Vec<Unmatched>,
}

/// A pattern that matched nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// The pattern as it was given.
    pub pattern: Vec<u8>,
    /// The ignore file and the line that contain it; `None` for a pattern of the caller's.
    pub of: Option<(RelativePath, usize)>,
}

impl LeftOut {
    /// Records an excluded path.
    pub fn note(&mut self, path: &RelativePath, reason: impl Into<Cow<'static, str>>) {
        self.count += 1;
        let is_among = self.named.last_key_value().is_none_or(|(last, _)| path < last);
        if self.named.len() < NAMED || is_among {
            self.named.insert(path.clone(), reason.into());
        }
        if self.named.len() > NAMED {
            self.named.pop_last();
        }
    }
}

impl From<UnmatchedLine> for Unmatched {
    fn from(UnmatchedLine { file, line, text }: UnmatchedLine) -> Self {
        Self { pattern: text, of: Some((file, line)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_first_paths_are_named_in_whatever_order_they_come() {
        let names: Vec<_> = (0..NAMED + 50).map(|at| path(&format!("n{at:04}"))).collect();
        let note = |order: &mut dyn Iterator<Item = &RelativePath>| {
            let mut left_out = LeftOut::default();
            order.for_each(|path| left_out.note(path, "reason"));
            left_out
        };
        let ascending = note(&mut names.iter());
        assert_eq!(ascending, note(&mut names.iter().rev()));
        assert_eq!(ascending.count, NAMED + 50);
        assert!(ascending.named.keys().eq(&names[..NAMED]));
    }

    #[test]
    fn few_paths_are_all_named() {
        let mut left_out = LeftOut::default();
        left_out.note(&path("b"), "second");
        left_out.note(&path("a"), "first");
        assert_eq!(left_out.count, 2);
        assert!(left_out.named.into_iter().eq([(path("a"), "first".into()), (path("b"), "second".into())]));
    }
}
