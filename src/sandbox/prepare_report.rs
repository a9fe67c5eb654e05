//! What a prepare did, for who asks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::send::Delivered;
use crate::path::RelativePath;
use crate::tree::ignore_files::UnmatchedLine;

/// How many of the paths that were left out of an archive are named.
pub const NAMED: usize = 100;

/// What a prepare did: the workspace's archive first, then those of the assets in order.
#[derive(Debug, Default)]
pub struct PrepareReport {
    /// Archive by archive.
    pub archives: Vec<Archive>,
}

/// One archive that was sent.
#[derive(Debug)]
pub struct Archive {
    /// `workspace`, or the asset's key.
    pub label: String,
    /// How many entries it has.
    pub entries: usize,
    /// How many bytes it has before it is compressed.
    pub archive_bytes: u64,
    /// How many bytes travelled, with what follows the archive.
    pub sent_bytes: u64,
    /// In how many parts: none where the sandbox had it already.
    pub parts: usize,
    /// Whether any of these was compressed.
    pub is_compressed: bool,
    /// Whether it has only what the sandbox did not have.
    pub is_changes_only: bool,
    /// How long its steps took.
    pub times: Times,
    /// What it does not have of the folder.
    pub left_out: LeftOut,
}

impl Archive {
    /// The report of what was delivered: everything.
    #[must_use]
    pub fn new(label: &str, delivered: &Delivered, times: Times, left_out: LeftOut) -> Self {
        Self {
            label: label.to_owned(),
            entries: delivered.contents.snapshot.len(),
            archive_bytes: delivered.packed,
            sent_bytes: delivered.sent,
            parts: delivered.earlier.len() + 1,
            is_compressed: delivered.is_compressed(),
            is_changes_only: false,
            times,
            left_out,
        }
    }

    /// The report of an archive that the sandbox has already.
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
            is_compressed: false,
            is_changes_only: true,
            times: Times { pack, ..Times::default() },
            left_out,
        }
    }
}

/// How long the steps of one archive took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Scanning the folder, and packing where the archive fits one part. Any other is packed while it travels.
    pub pack: Duration,
    /// Sending.
    pub upload: Duration,
    /// The command in the sandbox.
    pub extract: Duration,
}

/// What was left out of an archive. Of many paths the first in order are named, whatever the order in which they were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The paths that are named, each with the reason.
    pub named: BTreeMap<RelativePath, &'static str>,
    /// How many there are in all. What is below one of them was not looked at.
    pub count: usize,
    /// What the caller excludes and what matched nothing.
    pub unmatched: Vec<Unmatched>,
}

/// A pattern that matched nothing of what was looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// As it was given.
    pub pattern: Vec<u8>,
    /// The file that it is in, and the line there; nothing for one that the caller gave.
    pub of: Option<(RelativePath, usize)>,
}

impl LeftOut {
    /// Notes a path.
    pub fn note(&mut self, path: &RelativePath, reason: &'static str) {
        self.count += 1;
        let is_among = self.named.last_key_value().is_none_or(|(last, _)| path < last);
        if self.named.len() < NAMED || is_among {
            self.named.insert(path.clone(), reason);
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
        assert!(left_out.named.into_iter().eq([(path("a"), "first"), (path("b"), "second")]));
    }
}
