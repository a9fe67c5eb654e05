//! Decides which entries of a folder are included and which are excluded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exclude::{ExcludePatterns, PathSet, SnapshotPatterns};
use crate::fs::Kind;
use crate::path::RelativePath;

/// Decides whether a path of a given kind is excluded. Everything below an excluded path is excluded too, so
/// a rule also checks the names above a path, each of which is a folder.
pub trait Rule: Send + Sync {
    /// Whether the path is excluded, if it is of that kind.
    fn leaves_out(&self, path: &RelativePath, kind: Kind) -> bool;
}

impl Rule for PathSet {
    fn leaves_out(&self, path: &RelativePath, _: Kind) -> bool {
        self.contains_or_covers(path)
    }
}

impl Rule for ExcludePatterns {
    fn leaves_out(&self, path: &RelativePath, _: Kind) -> bool {
        self.matches(path)
    }
}

impl Rule for SnapshotPatterns {
    fn leaves_out(&self, path: &RelativePath, _: Kind) -> bool {
        self.covers(path)
    }
}

impl<R: Rule + ?Sized> Rule for Arc<R> {
    fn leaves_out(&self, path: &RelativePath, kind: Kind) -> bool {
        (**self).leaves_out(path, kind)
    }
}

struct Where<F>(F);

impl<F: Fn(&RelativePath, Kind) -> bool + Send + Sync> Rule for Where<F> {
    fn leaves_out(&self, path: &RelativePath, kind: Kind) -> bool {
        (self.0)(path, kind)
    }
}

/// Decides which entries of a folder are included, by a list of rules with a reason each. Without rules,
/// everything is included.
///
/// The first rule that excludes a path gives the reason. A scan asks for a folder before it asks for its
/// content, and does not enter an excluded folder.
#[derive(Clone, Default)]
pub struct Filter<'a>(Vec<(&'static str, Arc<dyn Rule + 'a>)>);

impl<'a> Filter<'a> {
    /// Adds a rule.
    #[must_use]
    pub fn without(mut self, reason: &'static str, rule: impl Rule + 'a) -> Self {
        self.0.push((reason, Arc::new(rule)));
        self
    }

    /// Adds a rule that excludes paths by their name alone.
    #[must_use]
    pub fn without_names(
        self,
        reason: &'static str,
        leaves_out: impl Fn(&RelativePath) -> bool + Send + Sync + 'a,
    ) -> Self {
        self.without(reason, Where(move |path: &RelativePath, _| leaves_out(path)))
    }

    /// A filter that excludes paths by their name alone.
    #[must_use]
    pub fn by_name(leaves_out: impl Fn(&RelativePath) -> bool + Send + Sync + 'a) -> Self {
        Self::default().without_names("", leaves_out)
    }

    /// A filter that excludes paths by their name and kind.
    #[must_use]
    pub fn by_kind(leaves_out: impl Fn(&RelativePath, Kind) -> bool + Send + Sync + 'a) -> Self {
        Self::default().without("", Where(leaves_out))
    }

    /// The reason why a path of that kind is excluded; `None` if it is included.
    #[must_use]
    pub fn reason(&self, path: &RelativePath, kind: Kind) -> Option<&'static str> {
        self.0.iter().find(|(_, rule)| rule.leaves_out(path, kind)).map(|(reason, _)| *reason)
    }

    /// Whether a path of that kind is excluded.
    #[must_use]
    pub fn leaves_out(&self, path: &RelativePath, kind: Kind) -> bool {
        self.reason(path, kind).is_some()
    }
}

impl fmt::Debug for Filter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(reason, _)| reason)).finish()
    }
}

/// Exclude patterns of a caller. Remembers which of them have matched.
#[derive(Debug, Default)]
pub struct Watched {
    all: ExcludePatterns,
    each: Vec<(Vec<u8>, ExcludePatterns, AtomicBool)>,
}

impl Watched {
    /// Excludes what any of the patterns matches.
    #[must_use]
    pub fn new(patterns: &[Vec<u8>]) -> Self {
        let each =
            |pattern: &Vec<u8>| (pattern.clone(), ExcludePatterns::new([pattern]), AtomicBool::default());
        Self { all: ExcludePatterns::new(patterns), each: patterns.iter().map(each).collect() }
    }

    /// The patterns that have matched nothing so far, in order.
    pub fn unmatched(&self) -> impl Iterator<Item = &[u8]> {
        let unmatched = self.each.iter().filter(|(.., matched)| !matched.load(Ordering::Relaxed));
        unmatched.map(|(pattern, ..)| pattern.as_slice())
    }
}

impl Rule for Watched {
    fn leaves_out(&self, path: &RelativePath, _: Kind) -> bool {
        if !self.all.matches(path) {
            return false;
        }
        for (_, pattern, matched) in &self.each {
            if !matched.load(Ordering::Relaxed) && pattern.matches(path) {
                matched.store(true, Ordering::Relaxed);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_first_rule_that_excludes_a_path_gives_the_reason() {
        let filter = Filter::default()
            .without("path", PathSet::new("argument", ["cache"]).unwrap())
            .without("pattern", ExcludePatterns::new(["*.log", "cache"]))
            .without("snapshot", SnapshotPatterns::new(["*/dist", "only-below/*"]))
            .without("kind", Where(|path: &RelativePath, kind| path.top() == b"x" && kind == Kind::Folder))
            .without_names("name", |path| path.name() == "y");
        for (name, kind, reason) in [
            ("cache", Kind::Folder, Some("path")),
            ("cache/a", Kind::File, Some("path")),
            ("a/cache", Kind::Folder, Some("pattern")),
            ("a.log", Kind::Symlink, Some("pattern")),
            ("a.log/b", Kind::File, Some("pattern")),
            ("a/dist/b", Kind::File, Some("snapshot")),
            ("only-below", Kind::Folder, None),
            ("only-below/a", Kind::File, Some("snapshot")),
            ("x", Kind::Folder, Some("kind")),
            ("x", Kind::File, None),
            ("x", Kind::Symlink, None),
            ("a/y", Kind::Other, Some("name")),
            ("a", Kind::File, None),
        ] {
            assert_eq!(filter.reason(&path(name), kind), reason, "{name} as {kind:?}");
            assert_eq!(filter.leaves_out(&path(name), kind), reason.is_some());
        }
    }

    #[test]
    fn the_empty_filter_excludes_nothing() {
        for kind in [Kind::Folder, Kind::File, Kind::Symlink, Kind::Other] {
            assert!(!Filter::default().leaves_out(&path("a"), kind));
        }
    }

    #[test]
    fn a_pattern_that_matched_nothing_is_known() {
        let watched = Watched::new(&[b"*.log".to_vec(), b"dist".to_vec(), b"a.*".to_vec(), b"none".to_vec()]);
        assert_eq!(watched.unmatched().count(), 4);
        for (name, is_out) in [("b", false), ("a.log", true), ("dist/a", true), ("distance", false)] {
            assert_eq!(watched.leaves_out(&path(name), Kind::File), is_out, "{name}");
        }
        assert!(watched.unmatched().eq([b"none"]));
    }
}
