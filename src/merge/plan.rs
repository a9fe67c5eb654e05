//! (base, theirs, ours) → what is to be done. Pure: no I/O, tested by tables.
//!
//! *base* is what both sides last shared, *theirs* what the sandbox holds now, *ours* what stands here now.

use std::collections::{BTreeMap, BTreeSet};

use crate::path::RelativePath;
use crate::tree::entry::{Entry, Snapshot};

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

/// The local paths that a plan depends on: what the sandbox changed, and the folders above what it holds new.
#[must_use]
pub fn to_look_at(base: &Snapshot, theirs: &Snapshot) -> BTreeSet<RelativePath> {
    let mut paths = BTreeSet::new();
    for (path, _, after) in changed(base, theirs) {
        if after.is_some() {
            let mut above = path.parent();
            while let Some(folder) = above {
                above = folder.parent();
                if !paths.insert(folder) {
                    break;
                }
            }
        }
        paths.insert(path.clone());
    }
    paths
}

/// Makes the plan. `ours` holds what stands at the paths of [`to_look_at`]; what it lacks is absent.
#[must_use]
pub fn plan<'a>(base: &'a Snapshot, theirs: &'a Snapshot, ours: &BTreeMap<RelativePath, Local>) -> Plan<'a> {
    let here = |path: &RelativePath| ours.get(path).unwrap_or(&Local::Absent);
    let mut plan = Plan::default();
    let mut folders = BTreeMap::new();
    let mut modes = BTreeMap::new();
    for (path, before, after) in changed(base, theirs) {
        let ours = here(path);
        let decision = decide(before, after, ours);
        let entry = match (decision, after) {
            (Decision::Leave, _) => continue,
            (Decision::Keep, _) => {
                plan.kept.push(path.clone());
                continue;
            }
            (Decision::Delete, _) => {
                plan.deletions.push(path.clone());
                continue;
            }
            (Decision::SetMode | Decision::Place { .. }, None) => continue,
            (Decision::SetMode | Decision::Place { .. }, Some(entry)) => entry,
        };
        // Whatever is new needs its folders, also those that were deleted or replaced here.
        for folder in path.ancestors() {
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
        if let Entry::Dir { mode: Some(mode) } = entry {
            modes.insert(path.clone(), *mode);
        }
        plan.folders.push(Placement { path, entry, aside });
    }
    plan.modes = modes.into_iter().rev().collect();
    plan.deletions.reverse();
    plan
}
