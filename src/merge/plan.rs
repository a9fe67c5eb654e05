//! (base, theirs, ours) → what is to be done. Pure: no I/O, tested by tables.
//!
//! *base* is what both sides last shared, *theirs* what the sandbox holds now, *ours* what stands here now.

use std::collections::BTreeMap;

use crate::path::{ByPath, RelativePath};
use crate::tree::entry::{Entry, Snapshot};

/// The mode of a new folder where nobody said it: an archive that names only what is in it.
pub const UNTOLD_MODE: u32 = 0o755;

/// What stands at a path here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// Nothing.
    Absent,
    /// A socket, FIFO or device.
    Other,
    /// A folder, file or link.
    Entry(Entry),
}

/// What is to be done at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the sandbox changed nothing, or both sides agree.
    Leave,
    /// Nothing: the sandbox deleted what was changed here.
    Keep,
    /// Delete what stands here (a folder only once it is empty).
    Delete,
    /// Put the sandbox's version here. Where `aside` says so, what stands here was not uploaded as it is and is kept
    /// aside. (A folder that gives way to something else is kept aside if anything is left in it.)
    Place {
        /// Whether to keep the local version.
        aside: bool,
    },
    /// Give the folder the sandbox's mode.
    SetMode,
}

/// The table of the merge, for one path.
#[must_use]
pub fn decide(base: Option<&Entry>, theirs: Option<&Entry>, ours: &Local) -> Decision {
    let unchanged_there = match (base, theirs) {
        (Some(base), Some(theirs)) => base.same_as(theirs),
        (None, None) => true,
        _ => false,
    };
    if unchanged_there {
        return Decision::Leave;
    }
    let as_uploaded = |ours: &Entry| base.is_some_and(|base| base.same_as(ours));
    match (theirs, ours) {
        (None, Local::Absent) => Decision::Leave,
        (None, Local::Entry(ours)) if as_uploaded(ours) => Decision::Delete,
        (None, _) => Decision::Keep,
        (Some(theirs), Local::Entry(ours)) if theirs.same_as(ours) => Decision::Leave,
        (Some(Entry::Dir { .. }), Local::Entry(Entry::Dir { .. })) => Decision::SetMode,
        (Some(_), Local::Absent) => Decision::Place { aside: false },
        (Some(_), Local::Entry(ours)) => Decision::Place { aside: !as_uploaded(ours) },
        (Some(_), Local::Other) => Decision::Place { aside: true },
    }
}

/// Something from the sandbox that is to stand at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement<'a> {
    /// Where.
    pub path: RelativePath,
    /// What.
    pub entry: &'a Entry,
    /// Whether what stands there is kept.
    pub aside: bool,
}

/// A merge as a list of things to do, group by group in the order of the fields. What is new stands before anything
/// is deleted, so that a crash in between loses nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Folders, outermost first; a file or link in the place of one gives way.
    pub folders: Vec<Placement<'a>>,
    /// Files and links where no folder stands now.
    pub files: Vec<Placement<'a>>,
    /// What is to be deleted, innermost first.
    pub deletions: Vec<RelativePath>,
    /// Files and links where a folder stands now: what was to be deleted in it is gone by then.
    pub in_place_of_folders: Vec<Placement<'a>>,
    /// Folders that get the sandbox's mode, innermost first: those made here too, now that they are filled.
    pub modes: Vec<(RelativePath, u32)>,
    /// Deleted there, changed here.
    pub kept: Vec<RelativePath>,
}

/// The paths that the sandbox changed: all others need not be looked at.
pub fn changed<'a>(
    base: &'a Snapshot,
    theirs: &'a Snapshot,
) -> impl Iterator<Item = (&'a RelativePath, Option<&'a Entry>, Option<&'a Entry>)> {
    let mut base = base.iter().peekable();
    let mut theirs = theirs.iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let order = match (base.peek(), theirs.peek()) {
                (None, None) => return None,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((left, _)), Some((right, _))) => left.cmp(right),
            };
            let left = if order.is_le() { base.next() } else { None };
            let right = if order.is_ge() { theirs.next() } else { None };
            match (left, right) {
                (Some((_, before)), Some((_, after))) if before.same_as(after) => {}
                (left, right) => {
                    let path = left.or(right)?.0;
                    return Some((path, left.map(|(_, entry)| entry), right.map(|(_, entry)| entry)));
                }
            }
        }
    })
}

/// The local paths that a plan depends on, in order: what the sandbox changed, and the folders above what it holds new.
#[must_use]
pub fn to_look_at(base: &Snapshot, theirs: &Snapshot) -> Vec<RelativePath> {
    let mut paths = Vec::new();
    let mut folders = NewFolders::default();
    for (path, _, after) in changed(base, theirs) {
        if after.is_some() {
            paths.extend(folders.above(path));
        }
        paths.push(path.clone());
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// The folders above one path after the other, without those that are above the path before as well.
#[derive(Default)]
struct NewFolders<'a>(&'a [u8]);

impl<'a> NewFolders<'a> {
    fn above(&mut self, path: &'a RelativePath) -> impl Iterator<Item = RelativePath> + 'a {
        let known = std::mem::replace(&mut self.0, path.split().0);
        path.ancestors_beyond(known)
    }
}

/// Makes the plan. `ours` holds what stands at the paths of [`to_look_at`]; what it lacks is absent.
#[must_use]
pub fn plan<'a>(base: &'a Snapshot, theirs: &'a Snapshot, ours: &ByPath<Local>) -> Plan<'a> {
    let here = |path: &RelativePath| ours.get(path).unwrap_or(&Local::Absent);
    let mut in_order = ours.in_order();
    let mut plan = Plan::default();
    let mut folders = BTreeMap::new();
    let mut modes = BTreeMap::new();
    let mut new_folders = NewFolders::default();
    for (path, before, after) in changed(base, theirs) {
        let ours = in_order.find(path).unwrap_or(&Local::Absent);
        let decision = decide(before, after, ours);
        let entry = match (decision, after) {
            (Decision::Leave, _) | (Decision::SetMode | Decision::Place { .. }, None) => continue,
            (Decision::Keep, _) => {
                plan.kept.push(path.clone());
                continue;
            }
            (Decision::Delete, _) => {
                plan.deletions.push(path.clone());
                continue;
            }
            (Decision::SetMode | Decision::Place { .. }, Some(entry)) => entry,
        };
        // Whatever is new needs its folders, also those that were deleted or replaced here.
        for folder in new_folders.above(path) {
            let stands = matches!(here(&folder), Local::Entry(Entry::Dir { .. }));
            if let (false, Some(entry @ Entry::Dir { .. })) = (stands, theirs.get(&folder)) {
                let aside = match here(&folder) {
                    Local::Absent => false,
                    Local::Other => true,
                    Local::Entry(ours) => !base.get(&folder).is_some_and(|base| base.same_as(ours)),
                };
                folders.entry(folder).or_insert((entry, aside));
            }
        }
        match (decision, entry) {
            (Decision::SetMode, Entry::Dir { mode: Some(mode) }) => {
                modes.insert(path.clone(), *mode);
            }
            (Decision::Place { aside }, Entry::Dir { .. }) => {
                folders.insert(path.clone(), (entry, aside));
            }
            (Decision::Place { aside }, _) => {
                let placement = Placement { path: path.clone(), entry, aside };
                if matches!(ours, Local::Entry(Entry::Dir { .. })) {
                    plan.in_place_of_folders.push(placement);
                } else {
                    plan.files.push(placement);
                }
            }
            _ => {}
        }
    }
    for (path, (entry, aside)) in folders {
        if let Entry::Dir { mode } = entry {
            modes.insert(path.clone(), mode.unwrap_or(UNTOLD_MODE));
        }
        plan.folders.push(Placement { path, entry, aside });
    }
    plan.modes = modes.into_iter().rev().collect();
    plan.deletions.reverse();
    plan
}

impl<'p> Plan<'p> {
    /// Whether anything is put in place or taken away, rather than given a mode at most.
    #[must_use]
    pub fn moves_anything(&self) -> bool {
        self.placements().next().is_some() || !self.deletions.is_empty()
    }

    /// Everything that is to stand at a path, group by group.
    pub fn placements(&self) -> impl Iterator<Item = &Placement<'p>> + Clone {
        [&self.folders, &self.files, &self.in_place_of_folders].into_iter().flatten()
    }

    fn placements_mut(&mut self) -> impl Iterator<Item = &mut Placement<'p>> {
        [&mut self.folders, &mut self.files, &mut self.in_place_of_folders].into_iter().flatten()
    }

    /// Takes back deletions: what stands at those paths is kept.
    pub fn keep(&mut self, spared: impl Fn(&RelativePath) -> bool) {
        let (kept, deletions): (Vec<_>, _) =
            std::mem::take(&mut self.deletions).into_iter().partition(spared);
        self.deletions = deletions;
        self.kept.extend(kept);
    }

    /// Keeps what gives way at those paths, although it was uploaded as it is.
    pub fn keep_aside(&mut self, kept: impl Fn(&RelativePath) -> bool) {
        for placement in self.placements_mut() {
            placement.aside |= kept(&placement.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::entry::Digest;

    fn dir(mode: u32) -> Entry {
        Entry::Dir { mode: Some(mode) }
    }

    fn file(content: u8, mode: u32) -> Entry {
        Entry::File { mode, digest: Digest([content; 32]) }
    }

    fn link(target: &str) -> Entry {
        Entry::Symlink { target: target.as_bytes().into() }
    }

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    fn tree(entries: &[(&str, Entry)]) -> Snapshot {
        entries.iter().map(|(name, entry)| (path(name), entry.clone())).collect()
    }

    /// Every entry that differs from the others in one thing that counts.
    fn kinds() -> Vec<Entry> {
        vec![
            dir(0o755),
            dir(0o700),
            file(1, 0o644),
            file(2, 0o644),
            file(3, 0o644),
            file(1, 0o755),
            link("x"),
            link("y"),
        ]
    }

    /// The outcomes of the contract's table, row by row, in its own words.
    fn table(base: Option<&Entry>, theirs: Option<&Entry>, ours: &Local) -> Decision {
        let ours_entry = if let Local::Entry(entry) = ours { Some(entry) } else { None };
        let unchanged_in_the_sandbox = base == theirs;
        let unchanged_locally = ours_entry == base && *ours != Local::Other;
        let the_same_change = ours_entry == theirs && *ours != Local::Other;
        let folder_stays_folder =
            theirs.is_some_and(Entry::is_dir) && ours_entry.is_some_and(Entry::is_dir) && !the_same_change;
        let in_the_sandbox = if theirs.is_some() { "changed or new" } else { "deleted" };
        match in_the_sandbox {
            _ if unchanged_in_the_sandbox => Decision::Leave,
            "changed or new" if the_same_change => Decision::Leave,
            // A folder has no content of its own to keep.
            "changed or new" if folder_stays_folder => Decision::SetMode,
            "changed or new" if unchanged_locally => Decision::Place { aside: false },
            "changed or new" if *ours == Local::Absent => Decision::Place { aside: false },
            "changed or new" => Decision::Place { aside: true },
            "deleted" if *ours == Local::Absent => Decision::Leave,
            "deleted" if unchanged_locally => Decision::Delete,
            _ => Decision::Keep,
        }
    }

    #[test]
    fn every_combination_of_base_theirs_and_ours() {
        let kinds = kinds();
        let sides = || std::iter::once(None).chain(kinds.iter().map(Some));
        let mut seen = 0;
        for base in sides() {
            for theirs in sides() {
                let locals = [Local::Absent, Local::Other].into_iter();
                for ours in locals.chain(kinds.iter().cloned().map(Local::Entry)) {
                    assert_eq!(
                        decide(base, theirs, &ours),
                        table(base, theirs, &ours),
                        "base {base:?}, theirs {theirs:?}, ours {ours:?}"
                    );
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 9 * 9 * 10);
    }

    #[test]
    fn what_counts_as_a_change() {
        assert!(file(1, 0o100_644).same_as(&file(1, 0o644)), "the kind in a mode does not count");
        assert!(file(1, 0o4755).same_as(&file(1, 0o755)), "nor do setuid, setgid and sticky");
        assert!(Entry::Dir { mode: None }.same_as(&dir(0o700)), "nor a mode that nobody said");
        assert!(!file(1, 0o644).same_as(&file(1, 0o640)));
        assert!(!link("a").same_as(&file(1, 0o777)));
    }

    /// A whole plan in short: what is done, in order.
    fn planned(base: &Snapshot, theirs: &Snapshot, ours: &Snapshot) -> Vec<String> {
        let locals = ours.iter().map(|(path, entry)| (path.clone(), Local::Entry(entry.clone())));
        let looked_at = to_look_at(base, theirs);
        let locals: ByPath<_> = locals.filter(|(path, _)| looked_at.contains(path)).collect();
        let plan = plan(base, theirs, &locals);
        let placed = |what: &str, placement: &Placement<'_>| {
            format!("{what} {}{}", placement.path, if placement.aside { " aside" } else { "" })
        };
        let mut steps: Vec<String> =
            plan.folders.iter().map(|placement| placed("folder", placement)).collect();
        steps.extend(plan.files.iter().map(|placement| placed("file", placement)));
        steps.extend(plan.deletions.iter().map(|path| format!("delete {path}")));
        steps.extend(plan.in_place_of_folders.iter().map(|placement| placed("instead", placement)));
        steps.extend(plan.modes.iter().map(|(path, mode)| format!("mode {path} {mode:o}")));
        steps.extend(plan.kept.iter().map(|path| format!("keep {path}")));
        steps
    }

    #[test]
    fn nothing_changed_there_plans_nothing_whatever_stands_here() {
        let base = tree(&[("a", dir(0o755)), ("a/b", file(1, 0o644))]);
        assert_eq!(planned(&base, &base, &Snapshot::new()), [""; 0]);
        assert!(to_look_at(&base, &base).is_empty());
    }

    #[test]
    fn new_content_brings_the_folders_that_were_deleted_here() {
        let base = tree(&[
            ("a", dir(0o755)),
            ("a/b", dir(0o750)),
            ("a/b/c", file(1, 0o644)),
            ("a/b/d", file(1, 0o644)),
        ]);
        let mut theirs = base.clone();
        theirs.insert(path("a/b/c"), file(2, 0o644));
        assert_eq!(
            planned(&base, &theirs, &Snapshot::new()),
            ["folder a", "folder a/b", "file a/b/c", "mode a/b 750", "mode a 755"],
            "but not the file that is unchanged there"
        );
    }

    #[test]
    fn a_file_or_link_in_the_way_of_a_folder_is_kept_aside() {
        let base = tree(&[("a", dir(0o755)), ("a/b", file(1, 0o644))]);
        let mut theirs = base.clone();
        theirs.insert(path("a/new"), file(2, 0o644));
        for ours in [file(9, 0o644), link("/elsewhere")] {
            assert_eq!(
                planned(&base, &theirs, &tree(&[("a", ours)])),
                ["folder a aside", "file a/new", "mode a 755"]
            );
        }
        let uploaded_file = tree(&[("a", file(1, 0o644))]);
        let became_folder = tree(&[("a", dir(0o755)), ("a/new", file(2, 0o644))]);
        assert_eq!(
            planned(&uploaded_file, &became_folder, &uploaded_file),
            ["folder a", "file a/new", "mode a 755"],
            "what was uploaded as it is needs no keeping"
        );
    }

    #[test]
    fn a_folder_that_became_a_file_is_emptied_first() {
        let base = tree(&[("a", dir(0o755)), ("a/b", file(1, 0o644)), ("a/c", file(1, 0o644))]);
        let theirs = tree(&[("a", file(2, 0o644))]);
        let mut ours = base.clone();
        ours.insert(path("a/c"), file(9, 0o644));
        assert_eq!(planned(&base, &theirs, &ours), ["delete a/b", "instead a", "keep a/c"]);
    }

    #[test]
    fn what_is_new_stands_before_anything_is_deleted() {
        let base = tree(&[("old", dir(0o755)), ("old/x", file(1, 0o644))]);
        let theirs = tree(&[("new", dir(0o755)), ("new/x", file(1, 0o644))]);
        assert_eq!(
            planned(&base, &theirs, &base),
            ["folder new", "file new/x", "delete old/x", "delete old", "mode new 755"]
        );
    }
}
