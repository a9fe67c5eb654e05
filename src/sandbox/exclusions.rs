//! What is excluded from a transfer, and the report of it.

use std::sync::{Arc, Mutex, PoisonError};

use super::prepare_report::{LeftOut, Unmatched};
use super::repositories::{Shared, Travel};
use crate::archive::pack::{Layout, patterns};
use crate::error::Result;
use crate::exclude::{ExcludePatterns, PathSet};
use crate::fs::Kind;
use crate::git::recognise::is_gits;
use crate::git::report::HeldBack;
use crate::path::RelativePath;
use crate::sync::lock;
use crate::tree::filter::{Filter, Rule, Watched};
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
    travel: Travel,
) -> Filter<'static> {
    Filter::by_name(is_in_runtime)
        .without_names(OURS, is_lock_name)
        .without(EXCLUDED, OfWorkspace { rule: excluded_paths(exclude, preserve), travel })
        .without(EXCLUDED, OfWorkspace { rule: patterns(exclude), travel })
        .without(IGNORED, OfWorkspace { rule: ignored, travel })
}

/// A rule for the files of the workspace. What belongs to git stays or goes with its `.git`: the names below that are those of
/// branches and tags, for which a pattern such as `dist` is not meant.
struct OfWorkspace<R> {
    rule: R,
    travel: Travel,
}

impl<R: Rule> Rule for OfWorkspace<R> {
    fn leaves_out(&self, path: &RelativePath, kind: Kind) -> bool {
        if !self.rule.leaves_out(path, kind) {
            return false;
        }
        if !self.travel.is_apart(path) {
            return true;
        }
        let dot_git = path.ancestors().find(is_gits);
        dot_git.is_none_or(|dot_git| self.rule.leaves_out(&dot_git, Kind::Folder))
    }
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

/// Notes what of the repositories is not uploaded.
pub(super) fn note_left_here(left_out: &mut LeftOut, repositories: &Shared) {
    for HeldBack { path, what, reason } in &repositories.left_here {
        let below = what.as_ref().and_then(|what| RelativePath::parse(what.as_bytes()).ok().flatten());
        left_out.note(&below.map_or_else(|| path.clone(), |below| path.join(&below)), reason.clone());
    }
}

pub(super) fn note_special(left_out: &mut LeftOut, layout: &Layout) {
    for path in layout.special() {
        left_out.note(path, SPECIAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::export::Mode;

    #[test]
    fn what_of_a_repository_is_not_uploaded_is_noted_by_its_path() {
        let at = |text: &str| RelativePath::parse(text.as_bytes()).unwrap().unwrap();
        let held = |path: &str, what: Option<&str>| HeldBack {
            path: at(path),
            what: what.map(str::to_owned),
            reason: "reason".to_owned(),
        };
        let mut repositories = Shared::default();
        repositories.left_here =
            vec![held("bare", None), held("x/.git", Some("refs/heads/a")), held(".git", Some("../x"))];
        let mut left_out = LeftOut::default();
        note_left_here(&mut left_out, &repositories);
        let named: Vec<String> = left_out.named.keys().map(ToString::to_string).collect();
        assert_eq!(
            (left_out.count, named),
            (3, [".git", "bare", "x/.git/refs/heads/a"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn patterns_are_not_for_the_names_below_a_dot_git() {
        let exclude = ["dist", "*.log", "packed-refs", ".git/index", "gone/.git"].map(Into::into);
        let filter = |mode| {
            let travel = Travel { mode, ..Travel::default() };
            left_alone(&exclude, Arc::default(), &PathSet::default(), travel)
        };
        for (path, in_workspace, in_files) in [
            ("dist", true, true),
            ("src/dist/a", true, true),
            ("packed-refs", true, true),
            (".git", false, false),
            (".git/refs/heads/dist", false, true),
            (".git/refs/heads/fix/a.log", false, true),
            (".git/packed-refs", false, true),
            (".git/index", false, true),
            ("nested/.git/refs/tags/dist", false, true),
            // The whole repository is left out.
            ("dist/.git/HEAD", true, true),
            ("gone/.git/refs/heads/main", true, true),
        ] {
            let at = RelativePath::parse(path.as_bytes()).unwrap().unwrap();
            for (mode, expected) in [(Mode::Merge, in_workspace), (Mode::Files, in_files)] {
                assert_eq!(filter(mode).leaves_out(&at, Kind::File), expected, "{path} {mode:?}");
            }
        }
    }
}
