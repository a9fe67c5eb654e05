//! What is excluded from a transfer, and the report of it.

use std::sync::{Arc, Mutex, PoisonError};

use super::prepare_report::{LeftOut, Unmatched};
use crate::archive::pack::{Layout, patterns};
use crate::error::Result;
use crate::exclude::{ExcludePatterns, PathSet};
use crate::sync::lock;
use crate::tree::filter::{Filter, Watched};
use crate::tree::ignore_files::IgnoreRules;
use crate::tree::stage::{is_in_runtime, is_lock_name};

/// Why something is not in an archive.
pub(super) const OURS: &str = "it is this package's own";

pub(super) const EXCLUDED: &str = "a pattern excludes it";

pub(super) const IGNORED: &str = "an ignore file excludes it";

pub(super) const SPECIAL: &str = "an archive has no sockets, FIFOs or devices";

/// What a restore neither takes nor touches: what is excluded, preserved, or this package's own.
pub(super) fn left_alone(
    exclude: &[Vec<u8>],
    ignored: Arc<IgnoreRules>,
    preserve: &PathSet,
) -> Filter<'static> {
    Filter::by_name(is_in_runtime)
        .without_names(OURS, is_lock_name)
        .without(EXCLUDED, excluded_paths(exclude, preserve))
        .without(EXCLUDED, patterns(exclude))
        .without(IGNORED, ignored)
}

/// What is left alone by its path: what is preserved, and what a pattern names literally.
pub(super) fn excluded_paths(exclude: &[Vec<u8>], preserve: &PathSet) -> PathSet {
    preserve.clone().with_literal(exclude)
}

/// Scans with a filter, and notes what it leaves out.
pub(super) fn noting<T>(
    filter: &Filter<'_>,
    scan: impl FnOnce(&Filter<'_>) -> Result<T>,
) -> Result<(T, LeftOut)> {
    let left_out = Mutex::new(LeftOut::default());
    let scanned = scan(&Filter::by_kind(|path, kind| {
        let reason = filter.reason(path, kind);
        if let Some(reason) = reason {
            lock(&left_out).note(path, reason);
        }
        reason.is_some()
    }))?;
    Ok((scanned, left_out.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// What is left out whatever a caller excludes.
pub(super) fn always_excluded() -> ExcludePatterns {
    patterns(&[])
}

/// The patterns of a caller that matched nothing.
pub(super) fn unmatched(patterns: &Watched) -> Vec<Unmatched> {
    patterns.unmatched().map(|pattern| Unmatched { pattern: pattern.to_vec(), of: None }).collect()
}

pub(super) fn note_special(left_out: &mut LeftOut, layout: &Layout) {
    for path in layout.special() {
        left_out.note(path, SPECIAL);
    }
}
