//! Merges references by value. Pure: only decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::readable;

/// The name of an object: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Oid(Box<str>);

impl Oid {
    /// Parses hexadecimal digits in lower case; nothing else is the name of an object.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fits = matches!(bytes.len(), 40 | 64) && bytes.iter().all(is_digit);
        let text = std::str::from_utf8(bytes).ok().filter(|_| fits)?;
        // Git writes zeros for "no object".
        text.bytes().any(|byte| byte != b'0').then(|| Self(text.into()))
    }

    /// The name in the form in which a tree has it.
    #[must_use]
    pub fn from_binary(bytes: &[u8]) -> Option<Self> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| DIGITS[usize::from(value)];
        let text: Vec<u8> = bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        Self::parse(&text)
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The most bytes between two slashes of a name: git stores it as a file, and locks it by one whose name ends in `.lock`.
const PART_MAX: usize = 255 - ".lock".len();

/// The most parts of a name that is new in the sandbox.
///
/// Each is a directory for git, and a few bytes of an archive can name very many.
const NEW_PARTS_MAX: usize = 32;

/// The full name of a reference (`refs/heads/main`), in the form that `git check-ref-format` accepts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RefName(Vec<u8>);

impl RefName {
    /// The digits of an abbreviated object that git would see in the short name of a branch or tag.
    ///
    /// They are all of it, or those after `-g`, as `git describe` prints them. Git prints at least seven.
    #[must_use]
    pub fn abbreviated(&self) -> Option<&str> {
        const LEAST: usize = 7;
        let short =
            [&b"refs/heads/"[..], b"refs/tags/"].into_iter().find_map(|kind| self.0.strip_prefix(kind))?;
        let short = std::str::from_utf8(short).ok()?;
        let digits = short.rsplit_once("-g").map_or(short, |(_, digits)| digits);
        (digits.len() >= LEAST && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digits)
    }

    /// Checks a name as git does, and whether git can store it as a file.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        let is_bad = |&byte: &u8| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte);
        let part_is_bad = |part: &[u8]| {
            part.is_empty()
                || part.len() > PART_MAX
                || part.starts_with(b".")
                || part.ends_with(b".lock")
                || part.ends_with(b".")
        };
        let holds = |what: &[u8]| name.windows(what.len()).any(|window| window == what);
        let bad = name.len() > 1000
            || !name.starts_with(b"refs/")
            || name.iter().any(is_bad)
            || holds(b"..")
            || holds(b"@{")
            || name.split(|&byte| byte == b'/').any(part_is_bad);
        (!bad).then(|| Self(name.to_vec()))
    }

    /// Whether the sandbox may bring a new reference of this name: it has at most 31 slashes.
    #[must_use]
    pub fn may_be_new(&self) -> bool {
        self.0.split(|&byte| byte == b'/').count() <= NEW_PARTS_MAX
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The kind of the reference.
    #[must_use]
    pub fn kind(&self) -> RefKind {
        if self.0.starts_with(b"refs/heads/") {
            RefKind::Branch
        } else if self.0.starts_with(b"refs/tags/") {
            RefKind::Tag
        } else if self.0 == b"refs/stash" {
            RefKind::Stash
        } else {
            RefKind::Other
        }
    }

    /// The name below `refs/heads/`, `refs/tags/` and the like.
    #[must_use]
    pub fn short(&self) -> &[u8] {
        let slashes = self.0.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
        slashes.map(|(at, _)| at).nth(1).map_or(&self.0[..], |at| &self.0[at + 1..])
    }

    /// Whether git could take the short name for something other than this reference.
    #[must_use]
    pub fn is_misleading(&self) -> bool {
        let short = self.short();
        let is_oid = matches!(short.len(), 40 | 64) && short.iter().all(u8::is_ascii_hexdigit);
        let is_pseudo =
            short.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_') && (short.ends_with(b"HEAD"));
        short.starts_with(b"-") || short == b"@" || short.starts_with(b"refs/") || is_pseudo || is_oid
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&readable(&self.0))
    }
}

impl fmt::Debug for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", readable(&self.0))
    }
}

/// References by name.
pub type Refs = BTreeMap<RefName, Oid>;

/// Where references cannot be read: their own paths, and those of folders in which they would be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Unreadable(BTreeSet<Vec<u8>>);

impl Unreadable {
    /// Adds the path of a reference or of a folder.
    pub fn insert(&mut self, path: &[u8]) {
        self.0.insert(path.to_vec());
    }

    /// Whether exactly this path was added.
    #[must_use]
    pub fn contains(&self, path: &[u8]) -> bool {
        self.0.contains(path)
    }

    /// Whether the value of a reference is not known, since it, or a folder above it, cannot be read.
    #[must_use]
    pub fn hides(&self, name: &RefName) -> bool {
        let mut paths = folders_of(name.as_bytes()).chain([name.as_bytes()]);
        !self.0.is_empty() && paths.any(|path| self.0.contains(path))
    }

    /// The paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

/// The kinds of references that differ in what may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// `refs/heads/…`
    Branch,
    /// `refs/tags/…`
    Tag,
    /// `refs/stash`
    Stash,
    /// Everything else, which never comes back.
    Other,
}

/// The value of `HEAD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    /// The checked-out branch, which need not exist yet.
    Branch(RefName),
    /// A commit (a detached `HEAD`).
    Detached(Oid),
}

/// The relation of two commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The sandbox's commit descends from the local one.
    TheirsDescends,
    /// The local commit descends from the sandbox's.
    OursDescends,
    /// Neither, whether they share history or not.
    Apart,
}

/// What happens to one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The local value stays.
    Ours,
    /// The sandbox's value is taken: it descends from the local one, or there was none.
    Theirs,
    /// The sandbox's value is taken, and the local one, which the sandbox had before, is stored under another
    /// name.
    Replace,
    /// It is deleted, and its last value is stored under another name.
    Delete,
    /// The local value stays, and the sandbox's, if there is one, is stored under another name.
    Aside(Reason),
}

/// Why the sandbox's value of a reference is not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Both sides changed it, and neither value descends from the other.
    BothChanged,
    /// An existing tag has another value.
    TagMoved,
    /// Git would not know whether a tag or a branch is meant.
    Ambiguous,
    /// Its name collides with that of another reference.
    NameTaken,
    /// It must not move: see [`Surroundings::in_use`].
    InUse,
    /// A local symbolic reference names it.
    Named,
    /// The sandbox deleted it, and it has another local value.
    DeletedThere,
    /// The sandbox deleted it, and it is checked out locally.
    Current,
    /// Git would obey what a new commit of it has, or may. The text is for the report.
    Obeyed(Arc<str>),
    /// Nothing says whether it was changed locally.
    Unreadable,
}

/// The reason for holding back a commit or an index.
pub const OBEYED: &str =
    "where its files are written, git would take a directory for a repository and obey what it has there";

impl Reason {
    /// The text for the report.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::BothChanged => "both sides changed it",
            Self::TagMoved => "a tag that is moved is not taken over",
            Self::Ambiguous => "it is the name of another branch or tag, or means something else to git",
            Self::NameTaken => "another local reference prevents its name",
            Self::InUse => "it is checked out locally, or in use by an operation that is in progress",
            Self::Named => "a local symbolic reference names it, so it is not deleted",
            Self::DeletedThere => "it was deleted in the sandbox, and has another local value",
            Self::Obeyed(reason) => reason,
            Self::Unreadable => "the local value cannot be read",
            Self::Current => "it was deleted in the sandbox, and is checked out locally",
        }
    }
}

/// Decides about one branch or tag by its three values. `relation` is called only if both sides have a value.
pub fn decide(
    kind: RefKind,
    base: Option<&Oid>,
    theirs: Option<&Oid>,
    ours: Option<&Oid>,
    relation: impl FnOnce(&Oid, &Oid) -> Relation,
) -> Outcome {
    if theirs == base || theirs == ours {
        return Outcome::Ours;
    }
    let Some(theirs) = theirs else {
        return if ours == base { Outcome::Delete } else { Outcome::Aside(Reason::DeletedThere) };
    };
    match (kind, ours) {
        (RefKind::Tag, None) if base.is_none() => Outcome::Theirs,
        (RefKind::Tag, _) => Outcome::Aside(Reason::TagMoved),
        (_, None) if base.is_none() => Outcome::Theirs,
        // Deleted locally, changed in the sandbox.
        (_, None) => Outcome::Aside(Reason::BothChanged),
        (_, Some(ours)) => match (relation(theirs, ours), base == Some(ours)) {
            (Relation::TheirsDescends, _) => Outcome::Theirs,
            (_, true) => Outcome::Replace,
            (Relation::OursDescends, false) => Outcome::Ours,
            (Relation::Apart, false) => Outcome::Aside(Reason::BothChanged),
        },
    }
}

/// The local state, apart from the values of the references.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Branches that must not move: another worktree has them checked out, or this one since the upload, or
    /// an operation in progress uses them.
    pub in_use: BTreeSet<RefName>,
    /// The branch that is checked out locally.
    pub current: Option<RefName>,
    /// The local symbolic references, each with the name that it leads to.
    pub symbolic: Vec<(RefName, RefName)>,
    /// The sandbox's commits that have something in which git would obey it, with the reason for the report.
    pub obeyed: BTreeMap<Oid, Arc<str>>,
    /// The sandbox's new references whose names mean something else to git, too.
    pub ambiguous: BTreeSet<RefName>,
    /// The local references that cannot be read. What git lists for them may be an earlier, packed value.
    pub unreadable: Unreadable,
}

/// Decides about all references of either side and the base, in the order of their names.
#[must_use]
pub fn plan(
    base: &Refs,
    theirs: &Refs,
    ours: &Refs,
    around: &Surroundings,
    relation: &dyn Fn(&Oid, &Oid) -> Relation,
) -> Vec<(RefName, Outcome)> {
    let names: BTreeSet<&RefName> = base.keys().chain(theirs.keys()).collect();
    let mut planned = Vec::new();
    let mut taken = Taken::by(ours.keys().chain(around.symbolic.iter().map(|(name, _)| name)));
    let targets: BTreeSet<&RefName> = around.symbolic.iter().map(|(_, target)| target).collect();
    for name in names {
        if !matches!(name.kind(), RefKind::Branch | RefKind::Tag) {
            continue;
        }
        let (theirs, ours) = (theirs.get(name), ours.get(name));
        if around.unreadable.hides(name) {
            if theirs != base.get(name) {
                planned.push((name.clone(), Outcome::Aside(Reason::Unreadable)));
            }
            continue;
        }
        let outcome = decide(name.kind(), base.get(name), theirs, ours, relation);
        let obeyed = theirs.and_then(|oid| around.obeyed.get(oid));
        let outcome = match (outcome, obeyed) {
            (Outcome::Theirs | Outcome::Replace, Some(reason)) => {
                Outcome::Aside(Reason::Obeyed(reason.clone()))
            }
            (outcome, _) => outcome,
        };
        let outcome = match outcome {
            Outcome::Theirs if ours.is_none() && around.in_use.contains(name) => {
                Outcome::Aside(Reason::InUse)
            }
            Outcome::Theirs if around.ambiguous.contains(name) => Outcome::Aside(Reason::Ambiguous),
            Outcome::Theirs if ours.is_none() => match taken.obstacle(name) {
                None => Outcome::Theirs,
                Some(reason) => Outcome::Aside(reason),
            },
            Outcome::Theirs | Outcome::Replace if around.in_use.contains(name) => {
                Outcome::Aside(Reason::InUse)
            }
            Outcome::Delete if around.current.as_ref() == Some(name) => Outcome::Aside(Reason::Current),
            Outcome::Delete if around.in_use.contains(name) => Outcome::Aside(Reason::InUse),
            Outcome::Delete if targets.contains(name) => Outcome::Aside(Reason::Named),
            other => other,
        };
        if outcome == Outcome::Theirs {
            taken.insert(name);
        }
        if outcome != Outcome::Ours {
            planned.push((name.clone(), outcome));
        }
    }
    planned
}

/// The names that are in use, for finding name collisions quickly. All are case-folded, because some file
/// systems take `Main` for `main`.
#[derive(Debug, Default)]
pub struct Taken {
    /// The full names of branches and tags.
    names: HashSet<Vec<u8>>,
    /// The folders of these names.
    folders: HashSet<Vec<u8>>,
    /// What each short name may mean to git: the names of branches, of tags, of what was fetched (`origin/main`, and `origin`, which
    /// is that remote's `HEAD`), and of each reference without its `refs/` (`tags/v1`, `stash`).
    short: HashMap<Vec<u8>, BTreeSet<Namespace>>,
}

/// The places where git looks for a short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Namespace {
    Branches,
    Tags,
    Remotes,
    References,
}

impl Taken {
    /// The names that these references use.
    #[must_use]
    pub fn by<'a>(names: impl IntoIterator<Item = &'a RefName>) -> Self {
        let mut taken = Self::default();
        for name in names {
            taken.insert(name);
        }
        taken
    }

    fn insert(&mut self, name: &RefName) {
        let folded = name.as_bytes().to_ascii_lowercase();
        let short = name.short().to_ascii_lowercase();
        self.short.entry(below_refs(&folded)).or_default().insert(Namespace::References);
        let namespace = match name.kind() {
            RefKind::Branch => Namespace::Branches,
            RefKind::Tag => Namespace::Tags,
            _ if folded.starts_with(b"refs/remotes/") => {
                // A remote's `HEAD` is a symbolic reference, so it may be missing among the names.
                for folder in folders_of(&short) {
                    for meant in [folder.to_vec(), [folder, b"/head"].concat()] {
                        self.short.entry(meant).or_default().insert(Namespace::Remotes);
                    }
                }
                self.short.entry(short).or_default().insert(Namespace::Remotes);
                return;
            }
            _ => return,
        };
        self.short.entry(short).or_default().insert(namespace);
        self.folders.extend(folders_of(&folded).map(<[u8]>::to_vec));
        self.names.insert(folded);
    }

    /// What prevents a new branch or tag of that name.
    #[must_use]
    pub fn obstacle(&self, name: &RefName) -> Option<Reason> {
        if name.is_misleading() {
            return Some(Reason::Ambiguous);
        }
        let own = name.as_bytes().to_ascii_lowercase();
        let is_in_the_way = self.names.contains(&own)
            || self.folders.contains(&own)
            || folders_of(&own).any(|folder| self.names.contains(folder));
        if is_in_the_way {
            return Some(Reason::NameTaken);
        }
        let namespace = if name.kind() == RefKind::Tag { Namespace::Tags } else { Namespace::Branches };
        let short = name.short().to_ascii_lowercase();
        let is_meant = [(short, namespace), (below_refs(&own), Namespace::References)].iter().any(
            |(short, namespace)| {
                self.short.get(short).is_some_and(|meant| meant.iter().any(|other| other != namespace))
            },
        );
        is_meant.then_some(Reason::Ambiguous)
    }
}

/// The name of a reference without its `refs/`, by which git finds it, too.
fn below_refs(name: &[u8]) -> Vec<u8> {
    name.strip_prefix(b"refs/").unwrap_or(name).to_vec()
}

/// Those of the references that both sides shared and the sandbox deleted which would prevent a new name of the sandbox's: they
/// are deleted before it is made, as where a branch `a` was renamed to `a/b`, or to `A`.
#[must_use]
pub fn in_the_way(base: &Refs, theirs: &Refs) -> Refs {
    let new = Taken::by(theirs.keys().filter(|name| !base.contains_key(name)));
    let deleted = base.iter().filter(|(name, _)| !theirs.contains_key(name));
    deleted
        .filter(|(name, _)| matches!(name.kind(), RefKind::Branch | RefKind::Tag))
        .filter(|(name, _)| new.obstacle(name) == Some(Reason::NameTaken))
        .map(|(name, oid)| (name.clone(), oid.clone()))
        .collect()
}

/// The folders of a name.
pub(super) fn folders_of(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = name.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
    slashes.map(|(at, _)| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(digit: char) -> Oid {
        Oid::parse(digit.to_string().repeat(40).as_bytes()).unwrap()
    }

    fn name(text: &str) -> RefName {
        RefName::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn what_was_deleted_there_makes_way_for_a_new_name() {
        let refs =
            |names: &str| names.split_whitespace().map(|text| (name(text), oid('a'))).collect::<Refs>();
        for (base, theirs, expected) in [
            ("refs/heads/a", "refs/heads/a/b", "refs/heads/a"),
            ("refs/heads/a/b refs/heads/a/c", "refs/heads/a", "refs/heads/a/b refs/heads/a/c"),
            ("refs/heads/a/b refs/heads/a/c", "refs/heads/a refs/heads/a/c", "refs/heads/a/b"),
            ("refs/heads/foo", "refs/heads/Foo", "refs/heads/foo"),
            ("refs/tags/a", "refs/tags/a/b", "refs/tags/a"),
            ("refs/heads/a", "refs/heads/b", ""),
            ("refs/heads/a", "refs/tags/a/b", ""),
            ("refs/heads/a refs/heads/x", "refs/heads/x refs/heads/ab", ""),
            ("refs/heads/a", "refs/heads/a refs/heads/a/b", ""),
        ] {
            assert_eq!(in_the_way(&refs(base), &refs(theirs)), refs(expected), "{base} -> {theirs}");
        }
    }

    /// Every combination of base, theirs and ours (absent, or one of three values), of kinds and of
    /// relations. The decision must follow each rule of the merge.
    #[test]
    fn every_combination_of_base_theirs_and_ours() {
        let values = [None, Some(oid('a')), Some(oid('b')), Some(oid('c'))];
        let mut seen = 0;
        for kind in [RefKind::Branch, RefKind::Tag] {
            for relation in [Relation::TheirsDescends, Relation::OursDescends, Relation::Apart] {
                for base in &values {
                    for theirs in &values {
                        for ours in &values {
                            let outcome =
                                decide(kind, base.as_ref(), theirs.as_ref(), ours.as_ref(), |_, _| relation);
                            let theirs_differs = theirs != base;
                            let ours_differs = ours != base;
                            let case =
                                format!("{kind:?} {base:?} {theirs:?} {ours:?} {relation:?}: {outcome:?}");
                            seen += 1;
                            // What the sandbox did not change, or what both changed in the same way, stays.
                            if !theirs_differs || theirs == ours {
                                assert_eq!(outcome, Outcome::Ours, "{case}");
                                continue;
                            }
                            match (theirs, ours_differs, kind) {
                                (None, false, _) => assert_eq!(outcome, Outcome::Delete, "{case}"),
                                (None, true, _) => {
                                    assert_eq!(outcome, Outcome::Aside(Reason::DeletedThere), "{case}");
                                }
                                (Some(_), _, RefKind::Tag) if base.is_none() && ours.is_none() => {
                                    assert_eq!(outcome, Outcome::Theirs, "{case}");
                                }
                                (Some(_), _, RefKind::Tag) => {
                                    assert_eq!(outcome, Outcome::Aside(Reason::TagMoved), "{case}");
                                }
                                (Some(_), false, _) if ours.is_none() => {
                                    assert_eq!(outcome, Outcome::Theirs, "{case}");
                                }
                                (Some(_), false, _) => assert_eq!(
                                    outcome,
                                    if relation == Relation::TheirsDescends {
                                        Outcome::Theirs
                                    } else {
                                        Outcome::Replace
                                    },
                                    "{case}"
                                ),
                                (Some(_), true, _) if ours.is_none() => {
                                    assert_eq!(outcome, Outcome::Aside(Reason::BothChanged), "{case}");
                                }
                                (Some(_), true, _) => assert_eq!(
                                    outcome,
                                    match relation {
                                        Relation::TheirsDescends => Outcome::Theirs,
                                        Relation::OursDescends => Outcome::Ours,
                                        Relation::Apart => Outcome::Aside(Reason::BothChanged),
                                    },
                                    "{case}"
                                ),
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(seen, 2 * 3 * 64);
    }

    #[test]
    fn a_new_name_must_be_free_and_mean_one_thing() {
        let ours: Refs = [
            "refs/heads/main",
            "refs/heads/dir/one",
            "refs/tags/v1",
            "refs/remotes/origin/next",
            "refs/stash",
            "refs/heads/tags/t",
        ]
        .map(|text| (name(text), oid('a')))
        .into();
        for (new, outcome) in [
            ("refs/heads/topic", Outcome::Theirs),
            ("refs/heads/dir/two", Outcome::Theirs),
            ("refs/tags/v2", Outcome::Theirs),
            ("refs/tags/main", Outcome::Aside(Reason::Ambiguous)),
            ("refs/tags/MAIN", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/v1", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/Main", Outcome::Aside(Reason::NameTaken)),
            ("refs/heads/dir", Outcome::Aside(Reason::NameTaken)),
            ("refs/heads/main/x", Outcome::Aside(Reason::NameTaken)),
            ("refs/heads/main-2", Outcome::Theirs),
            // Git would take these for what was fetched, or the other way round.
            ("refs/heads/origin/next", Outcome::Aside(Reason::Ambiguous)),
            ("refs/tags/Origin/Next", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/origin", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/origin/HEAD", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/origin/other", Outcome::Theirs),
            ("refs/heads/-f", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/@", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/HEAD", Outcome::Aside(Reason::Ambiguous)),
            ("refs/tags/FETCH_HEAD", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/refs/heads/main", Outcome::Aside(Reason::Ambiguous)),
            // Git finds each reference without its `refs/`, too.
            ("refs/heads/tags/v1", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/heads/main", Outcome::Aside(Reason::Ambiguous)),
            ("refs/tags/Heads/Main", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/remotes/origin/next", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/stash", Outcome::Aside(Reason::Ambiguous)),
            ("refs/tags/t", Outcome::Aside(Reason::Ambiguous)),
            ("refs/heads/tags/v2", Outcome::Theirs),
            ("refs/heads/t", Outcome::Theirs),
            ("refs/tags/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Outcome::Aside(Reason::Ambiguous)),
        ] {
            let mut theirs = ours.clone();
            theirs.insert(name(new), oid('b'));
            let planned = plan(&ours, &theirs, &ours, &Surroundings::default(), &|_, _| Relation::Apart);
            assert_eq!(planned, [(name(new), outcome)], "{new}");
        }
    }

    #[test]
    fn of_two_new_names_that_exclude_each_other_one_arrives() {
        let theirs: Refs = ["refs/heads/a", "refs/heads/a/b", "refs/heads/A", "refs/tags/a", "refs/heads/c"]
            .map(|text| (name(text), oid('b')))
            .into();
        let planned =
            plan(&Refs::new(), &theirs, &Refs::new(), &Surroundings::default(), &|_, _| Relation::Apart);
        let arrive: Vec<_> =
            planned.iter().filter(|(_, outcome)| *outcome == Outcome::Theirs).map(|(name, _)| name).collect();
        assert_eq!(arrive, [&name("refs/heads/A"), &name("refs/heads/c")]);
        assert_eq!(planned.len(), theirs.len(), "the others are kept");
    }

    #[test]
    fn references_of_other_kinds_are_not_planned() {
        let theirs: Refs =
            ["refs/replace/x", "refs/remotes/origin/main", "refs/notes/x", "refs/stash", "refs/paperclip/x"]
                .map(|text| (name(text), oid('b')))
                .into();
        assert!(
            plan(&Refs::new(), &theirs, &Refs::new(), &Surroundings::default(), &|_, _| Relation::Apart)
                .is_empty()
        );
    }

    #[test]
    fn what_is_in_use_locally_stays() {
        let base: Refs = [(name("refs/heads/a"), oid('a')), (name("refs/heads/b"), oid('a'))].into();
        let theirs: Refs = [(name("refs/heads/a"), oid('b'))].into();
        let around = Surroundings { in_use: base.keys().cloned().collect(), ..Surroundings::default() };
        let planned = plan(&base, &theirs, &base, &around, &|_, _| Relation::TheirsDescends);
        let in_use = |text| (name(text), Outcome::Aside(Reason::InUse));
        assert_eq!(planned, [in_use("refs/heads/a"), in_use("refs/heads/b")]);
        let around = Surroundings { current: Some(name("refs/heads/b")), ..Surroundings::default() };
        let planned = plan(&base, &theirs, &base, &around, &|_, _| Relation::TheirsDescends);
        let current = (name("refs/heads/b"), Outcome::Aside(Reason::Current));
        assert_eq!(planned, [(name("refs/heads/a"), Outcome::Theirs), current]);
        let symbolic = vec![(name("refs/heads/alias"), name("refs/heads/b"))];
        let around = Surroundings { symbolic, ..Surroundings::default() };
        let theirs: Refs = [(name("refs/heads/a"), oid('a')), (name("refs/heads/alias"), oid('a'))].into();
        let planned = plan(&base, &theirs, &base, &around, &|_, _| Relation::Apart);
        let aside = |text, reason| (name(text), Outcome::Aside(reason));
        assert_eq!(
            planned,
            [aside("refs/heads/alias", Reason::NameTaken), aside("refs/heads/b", Reason::Named)]
        );
    }

    /// What git lists for it, if anything, is a packed value, to which nothing is compared.
    #[test]
    fn what_cannot_be_read_locally_is_neither_moved_nor_made_nor_deleted() {
        let (at, other) = (name("refs/heads/dir/a"), name("refs/heads/b"));
        let one = |oid: Option<Oid>| -> Refs {
            let hidden = oid.map(|oid| (at.clone(), oid));
            hidden.into_iter().chain([(other.clone(), self::oid('a'))]).collect()
        };
        let values = [None, Some(oid('a')), Some(oid('b'))];
        for path in ["refs", "refs/heads/dir", "refs/heads/dir/a"] {
            let mut around = Surroundings::default();
            around.unreadable.insert(path.as_bytes());
            for base in &values {
                for theirs in &values {
                    for ours in &values {
                        let [was, there, here] = [base, theirs, ours].map(|oid| one(oid.clone()));
                        let planned = plan(&was, &there, &here, &around, &|_, _| Relation::TheirsDescends);
                        let waits = (at.clone(), Outcome::Aside(Reason::Unreadable));
                        let expected = if base == theirs { vec![] } else { vec![waits] };
                        assert_eq!(planned, expected, "{path} {base:?} {theirs:?} {ours:?}");
                    }
                }
            }
        }
        let mut around = Surroundings::default();
        around.unreadable.insert(b"refs/heads/dir/a/b");
        let planned = plan(&one(None), &one(Some(oid('b'))), &one(None), &around, &|_, _| Relation::Apart);
        assert_eq!(planned, [(at.clone(), Outcome::Theirs)]);
    }

    #[test]
    fn names_that_git_refuses_are_refused() {
        for bad in [
            "HEAD",
            "refs/",
            "refs/heads/../x",
            "refs/heads/a..b",
            "refs/heads/.x",
            "refs/heads/x.lock",
            "refs/heads/a b",
            "refs/heads/a\nb",
            "refs/heads/a@{b",
            "refs//x",
            "refs/heads/x.",
            "refs/heads/a~b",
            "refs/heads/a:b",
            "refs/heads/a\\b",
        ] {
            assert!(RefName::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        let parts = |length| format!("refs/heads/{}/b", "a".repeat(length));
        assert!(RefName::parse(parts(251).as_bytes()).is_none());
        assert!(RefName::parse(parts(250).as_bytes()).is_some());
        assert!(RefName::parse(parts(250).repeat(4).as_bytes()).is_none());
        assert_eq!(name("refs/heads/a/b").short(), b"a/b");
        for bad in [
            "",
            "0000000000000000000000000000000000000000",
            "abc",
            "ABCDEFABCDABCDEFABCDABCDEFABCDABCDEFABCD",
        ] {
            assert!(Oid::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
