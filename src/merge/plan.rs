//! Decides what a merge does: (base, theirs, ours) → [`Plan`]. Pure: no I/O, tested by tables.
//!
//! *base* is what both sides last shared, *theirs* what the sandbox has now, *ours* what is in the workspace
//! now.

use std::collections::BTreeMap;

use crate::path::{ByPath, RelativePath};
use crate::tree::entry::{Digest, Entry, PERMISSIONS, Snapshot};

/// The mode of a new folder that an archive does not name itself, but only its content.
pub const DEFAULT_FOLDER_MODE: u32 = 0o755;

/// How many deletions of files are needed at least before all of them are backed up.
const MIN_MASS_DELETION: usize = 20;

/// What is at a local path.
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
    /// Nothing: the sandbox deleted what was changed locally.
    LeaveInPlace,
    /// Delete the local entry (a folder only once it is empty).
    Delete,
    /// Put the sandbox's version here.
    ///
    /// A folder that is replaced by something else is backed up if anything is left in it, whatever `back_up`
    /// says.
    Place {
        /// Whether the local version is backed up, because it is not the one that was uploaded.
        back_up: bool,
        /// The permission bits to use instead of the sandbox's, if only the local side changed them.
        mode: Option<u32>,
    },
    /// Give a folder or file these permission bits, and keep its content.
    SetMode {
        /// The bits.
        mode: u32,
    },
}

/// Decides for one path, by the table of the merge. A file's bytes and its mode are merged separately.
#[must_use]
pub fn decide(base: Option<&Entry>, theirs: Option<&Entry>, ours: &Local) -> Decision {
    let is_unchanged_in_sandbox = match (base, theirs) {
        (Some(base), Some(theirs)) => base.same_as(theirs),
        (None, None) => true,
        _ => false,
    };
    if is_unchanged_in_sandbox {
        return Decision::Leave;
    }
    let is_uploaded = |ours: &Entry| base.is_some_and(|base| base.same_as(ours));
    let place = |back_up: bool| Decision::Place { back_up, mode: None };
    match (theirs, ours) {
        (None, Local::Absent) => Decision::Leave,
        (None, Local::Entry(ours)) if is_uploaded(ours) => Decision::Delete,
        (None, _) => Decision::LeaveInPlace,
        (Some(theirs), Local::Entry(ours)) if theirs.same_as(ours) => Decision::Leave,
        (Some(Entry::Folder { mode: Some(mode) }), Local::Entry(Entry::Folder { .. })) => {
            Decision::SetMode { mode: *mode }
        }
        (
            Some(Entry::File { mode, digest }),
            Local::Entry(Entry::File { mode: ours_mode, digest: ours_digest }),
        ) => decide_file(base, (*mode & PERMISSIONS, digest), (*ours_mode & PERMISSIONS, ours_digest)),
        (Some(_), Local::Absent) => place(false),
        (Some(_), Local::Entry(ours)) => place(!is_uploaded(ours)),
        (Some(_), Local::Other) => place(true),
    }
}

/// Decides for a file on both sides: bytes and mode each come from the side that changed them, or from the
/// sandbox if both did.
fn decide_file(
    base: Option<&Entry>,
    (theirs_mode, theirs): (u32, &Digest),
    (ours_mode, ours): (u32, &Digest),
) -> Decision {
    let (base_mode, base) = match base {
        Some(Entry::File { mode, digest }) => (Some(mode & PERMISSIONS), Some(digest)),
        _ => (None, None),
    };
    let mode = if base_mode == Some(theirs_mode) { ours_mode } else { theirs_mode };
    if base != Some(theirs) && ours != theirs {
        return Decision::Place { back_up: base != Some(ours), mode: (mode != theirs_mode).then_some(mode) };
    }
    if mode == ours_mode { Decision::Leave } else { Decision::SetMode { mode } }
}

/// The permission bits to use for an entry of the sandbox instead of its own, if any.
///
/// A mode without the owner's right to read a file, or to read and enter a folder, is not taken over, because
/// the next merge would fail on it. The entry gets its mode in the base instead, or, if it is new, the
/// missing right.
///
/// This is applied before anything is compared, so the next base has the mode that the local entry has, and
/// the sandbox's mode never counts as a change.
#[must_use]
pub fn mode_to_come(base: Option<&Entry>, theirs: &Entry) -> Option<u32> {
    let (needed, mode) = match theirs {
        Entry::File { mode, .. } => (0o400, *mode),
        Entry::Folder { mode: Some(mode) } => (0o500, *mode),
        Entry::Folder { mode: None } | Entry::Symlink { .. } => return None,
    };
    if mode & needed == needed {
        return None;
    }
    let shared = match (base, theirs) {
        (Some(Entry::File { mode, .. }), Entry::File { .. })
        | (Some(Entry::Folder { mode: Some(mode) }), Entry::Folder { .. }) => *mode,
        _ => mode | needed,
    };
    (shared & PERMISSIONS != mode & PERMISSIONS).then_some(shared & PERMISSIONS)
}

/// An entry of the sandbox that is to be placed at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement<'a> {
    /// Where it goes.
    pub path: RelativePath,
    /// What it is.
    pub entry: &'a Entry,
    /// Whether the local version at this path is backed up.
    pub back_up: bool,
    /// The permission bits to use for a file instead of its own.
    pub mode: Option<u32>,
}

/// What a merge does, group by group in the order of the fields. New entries are placed before anything is
/// deleted, so a crash in between loses nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Folders, outermost first. They replace files and links.
    pub folders: Vec<Placement<'a>>,
    /// Files and links at paths where no folder is now.
    pub files: Vec<Placement<'a>>,
    /// Local files that get the sandbox's mode and keep their bytes.
    pub file_modes: Vec<(RelativePath, u32)>,
    /// Paths to delete, innermost first.
    pub deletions: Vec<RelativePath>,
    /// Files and links at paths where a folder is now. What was to be deleted in it is gone by then.
    pub in_place_of_folders: Vec<Placement<'a>>,
    /// Folders that get the sandbox's mode, innermost first. New folders are among them, because they are
    /// filled by now.
    pub modes: Vec<(RelativePath, u32)>,
    /// Paths that the sandbox deleted and that were changed locally.
    pub left_in_place: Vec<RelativePath>,
    /// Files and links that the sandbox changed and that are here just like that: a merge that was killed or has failed may
    /// have placed them.
    pub already_here: Vec<(RelativePath, &'a Entry)>,
}

/// The paths that the sandbox changed, with both entries. No other path has to be inspected.
pub fn changed<'a>(
    base: &'a Snapshot,
    theirs: &'a Snapshot,
) -> impl Iterator<Item = (&'a RelativePath, Option<&'a Entry>, Option<&'a Entry>)> {
    base.differences(theirs).filter(|(_, before, after)| match (before, after) {
        (Some(before), Some(after)) => !before.same_as(after),
        _ => true,
    })
}

/// Treats a path and everything below it as unchanged in the sandbox.
///
/// If the sandbox has something else than a folder above it, that is treated as unchanged as well, and
/// returned.
pub fn treat_as_unchanged(theirs: &mut Snapshot, base: &Snapshot, path: &RelativePath) -> Vec<RelativePath> {
    let is_at = |at: &RelativePath| at.is_or_below(path.as_bytes());
    let below = |tree: &Snapshot| {
        let from = tree.iter_from(path.as_bytes());
        let in_reach = from.take_while(|(at, _)| at.as_bytes().starts_with(path.as_bytes()));
        let found = in_reach.filter(|(at, _)| is_at(at));
        found.map(|(at, entry)| (at.clone(), entry.clone())).collect::<Vec<_>>()
    };
    for (at, _) in below(theirs) {
        theirs.remove(&at);
    }
    let uploaded = below(base);
    let mut replaced = Vec::new();
    if !uploaded.is_empty() {
        for folder in path.ancestors() {
            let Some(entry) =
                base.get(&folder).filter(|_| !theirs.get(&folder).is_some_and(Entry::is_folder))
            else {
                continue;
            };
            theirs.insert(folder.clone(), entry.clone());
            replaced.push(folder);
        }
    }
    theirs.extend(uploaded);
    replaced
}

/// The local paths that a plan depends on, sorted: those that the sandbox changed, and the folders above its
/// new and changed entries.
#[must_use]
pub fn paths_to_inspect(base: &Snapshot, theirs: &Snapshot) -> Vec<RelativePath> {
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

/// Yields the folders above one path after another, without those that the path before had too.
#[derive(Default)]
struct NewFolders<'a>(&'a [u8]);

impl<'a> NewFolders<'a> {
    fn above(&mut self, path: &'a RelativePath) -> impl Iterator<Item = RelativePath> + 'a {
        let known = std::mem::replace(&mut self.0, path.split().0);
        path.ancestors_beyond(known)
    }
}

/// Makes the plan. `ours` has the local entries at [`paths_to_inspect`]; a path that it lacks is absent.
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
            (Decision::Leave, Some(entry)) if !entry.is_folder() => {
                if matches!(ours, Local::Entry(here) if here.same_as(entry)) {
                    plan.already_here.push((path.clone(), entry));
                }
                continue;
            }
            (Decision::Leave, _) | (Decision::SetMode { .. } | Decision::Place { .. }, None) => continue,
            (Decision::LeaveInPlace, _) => {
                plan.left_in_place.push(path.clone());
                continue;
            }
            (Decision::Delete, _) => {
                plan.deletions.push(path.clone());
                continue;
            }
            (Decision::SetMode { .. } | Decision::Place { .. }, Some(entry)) => entry,
        };
        // A new entry needs its folders, also those that were deleted or replaced locally.
        for folder in new_folders.above(path) {
            let is_folder_here = matches!(here(&folder), Local::Entry(Entry::Folder { .. }));
            if let (false, Some(entry @ Entry::Folder { .. })) = (is_folder_here, theirs.get(&folder)) {
                let back_up = match here(&folder) {
                    Local::Absent => false,
                    Local::Other => true,
                    Local::Entry(ours) => !base.get(&folder).is_some_and(|base| base.same_as(ours)),
                };
                folders.entry(folder).or_insert((entry, back_up));
            }
        }
        match (decision, entry) {
            (Decision::SetMode { mode }, Entry::Folder { .. }) => {
                modes.insert(path.clone(), mode);
            }
            (Decision::SetMode { mode }, _) => plan.file_modes.push((path.clone(), mode)),
            (Decision::Place { back_up, .. }, Entry::Folder { .. }) => {
                folders.insert(path.clone(), (entry, back_up));
            }
            (Decision::Place { back_up, mode }, _) => {
                let placement = Placement { path: path.clone(), entry, back_up, mode };
                if matches!(ours, Local::Entry(Entry::Folder { .. })) {
                    plan.in_place_of_folders.push(placement);
                } else {
                    plan.files.push(placement);
                }
            }
            _ => {}
        }
    }
    for (path, (entry, back_up)) in folders {
        if let Entry::Folder { mode } = entry {
            modes.insert(path.clone(), mode.unwrap_or(DEFAULT_FOLDER_MODE));
        }
        plan.folders.push(Placement { path, entry, back_up, mode: None });
    }
    plan.modes = modes.into_iter().rev().collect();
    plan.deletions.reverse();
    plan
}

impl<'p> Plan<'p> {
    /// Whether the plan needs a stage. Giving folders a mode is all that does not.
    #[must_use]
    pub fn moves_anything(&self) -> bool {
        self.placements().next().is_some() || !self.deletions.is_empty() || !self.file_modes.is_empty()
    }

    /// All entries that are to be placed, group by group.
    pub fn placements(&self) -> impl Iterator<Item = &Placement<'p>> + Clone {
        [&self.folders, &self.files, &self.in_place_of_folders].into_iter().flatten()
    }

    fn placements_mut(&mut self) -> impl Iterator<Item = &mut Placement<'p>> {
        [&mut self.folders, &mut self.files, &mut self.in_place_of_folders].into_iter().flatten()
    }

    /// Whether the plan deletes more than half of the base's files, and at least `MIN_MASS_DELETION`. Then
    /// its deletions are backed up: an agent's mistake must not cost a workspace.
    #[must_use]
    pub fn deletes_most_of(&self, base: &Snapshot) -> bool {
        let is_file = |entry: &Entry| !entry.is_folder();
        let deleted = self.deletions.iter().filter(|path| base.get(*path).is_some_and(is_file)).count();
        // Deletions are counted first, because most merges have few.
        deleted >= MIN_MASS_DELETION && deleted * 2 > base.values().filter(|entry| is_file(entry)).count()
    }

    /// Withdraws deletions: the local entries at those paths are left in place.
    pub fn leave_in_place(&mut self, is_spared: impl Fn(&RelativePath) -> bool) {
        let (spared, deletions): (Vec<_>, _) =
            std::mem::take(&mut self.deletions).into_iter().partition(is_spared);
        self.deletions = deletions;
        self.left_in_place.extend(spared);
    }

    /// Backs up what is replaced at those paths, even if it is the version that was uploaded.
    pub fn back_up(&mut self, is_chosen: impl Fn(&RelativePath) -> bool) {
        for placement in self.placements_mut() {
            placement.back_up |= is_chosen(&placement.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(mode: u32) -> Entry {
        Entry::Folder { mode: Some(mode) }
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

    /// Entries of every kind; for files and folders, each content with each mode.
    fn kinds() -> Vec<Entry> {
        let modes = [0o644, 0o755, 0o600];
        let files = [1, 2, 3].into_iter().flat_map(|content| modes.map(|mode| file(content, mode)));
        files.chain([dir(0o755), dir(0o700), dir(0o555), link("x"), link("y")]).collect()
    }

    /// The merge of one value: the side that changed it wins, the sandbox if both did.
    fn merged<T: PartialEq + Copy>(base: Option<T>, theirs: T, ours: T) -> T {
        if base == Some(theirs) { ours } else { theirs }
    }

    /// The outcomes of the merge's table, row by row.
    fn table(base: Option<&Entry>, theirs: Option<&Entry>, ours: &Local) -> Decision {
        let ours_entry = if let Local::Entry(entry) = ours { Some(entry) } else { None };
        let unchanged_in_the_sandbox = base == theirs;
        let unchanged_locally = ours_entry == base && *ours != Local::Other;
        let the_same_change = ours_entry == theirs && *ours != Local::Other;
        if unchanged_in_the_sandbox {
            return Decision::Leave;
        }
        let Some(theirs) = theirs else {
            return match ours {
                Local::Absent => Decision::Leave,
                _ if unchanged_locally => Decision::Delete,
                _ => Decision::LeaveInPlace,
            };
        };
        match (theirs, ours_entry) {
            _ if the_same_change => Decision::Leave,
            // A folder has no content of its own.
            (Entry::Folder { mode }, Some(Entry::Folder { .. })) => Decision::SetMode { mode: mode.unwrap() },
            (Entry::File { .. }, Some(Entry::File { .. })) => {
                let parts = |entry: &Entry| match entry {
                    Entry::File { mode, digest } => Some((*digest, *mode)),
                    _ => None,
                };
                let base = base.and_then(parts);
                let ((content, mode), (our_content, our_mode)) =
                    (parts(theirs).unwrap(), parts(ours_entry.unwrap()).unwrap());
                let result_content = merged(base.map(|base| base.0), content, our_content);
                let result_mode = merged(base.map(|base| base.1), mode, our_mode);
                if result_content == our_content {
                    return if result_mode == our_mode {
                        Decision::Leave
                    } else {
                        Decision::SetMode { mode: result_mode }
                    };
                }
                Decision::Place {
                    // Only what was uploaded is replaced without a backup.
                    back_up: base.map(|base| base.0) != Some(our_content),
                    mode: (result_mode != mode).then_some(result_mode),
                }
            }
            _ if unchanged_locally || *ours == Local::Absent => {
                Decision::Place { back_up: false, mode: None }
            }
            _ => Decision::Place { back_up: true, mode: None },
        }
    }

    #[test]
    fn every_combination_of_base_theirs_and_ours_follows_the_table() {
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
        assert_eq!(seen, 15 * 15 * 16);
    }

    /// The rows whose outcome a person can tell without the table.
    #[test]
    fn bytes_and_mode_are_merged_separately() {
        let place = |back_up, mode| Decision::Place { back_up, mode };
        let base = file(1, 0o644);
        for (theirs, ours, expected, why) in [
            (
                file(1, 0o755),
                file(2, 0o644),
                Decision::SetMode { mode: 0o755 },
                "mode in the sandbox, bytes locally",
            ),
            (file(2, 0o644), file(1, 0o755), place(false, Some(0o755)), "bytes in the sandbox, mode locally"),
            (file(1, 0o755), file(1, 0o600), Decision::SetMode { mode: 0o755 }, "mode on both sides"),
            (file(2, 0o755), file(3, 0o600), place(true, None), "both on both sides"),
            (file(2, 0o644), file(3, 0o600), place(true, Some(0o600)), "bytes on both sides, mode locally"),
            (file(2, 0o755), file(3, 0o644), place(true, None), "bytes on both sides, mode in the sandbox"),
            (
                file(2, 0o755),
                file(2, 0o644),
                Decision::SetMode { mode: 0o755 },
                "the same bytes, mode in the sandbox",
            ),
            (file(2, 0o644), file(2, 0o755), Decision::Leave, "the same bytes, mode locally"),
        ] {
            assert_eq!(decide(Some(&base), Some(&theirs), &Local::Entry(ours)), expected, "{why}");
        }
        assert_eq!(
            decide(None, Some(&file(1, 0o755)), &Local::Entry(file(1, 0o644))),
            Decision::SetMode { mode: 0o755 },
            "new on both sides with the same bytes"
        );
    }

    #[test]
    fn a_mode_that_would_make_the_next_merge_fail_is_not_taken_over() {
        for mode in 0..=0o777 {
            for (theirs, base, needed) in
                [(file(1, mode), file(2, 0o640), 0o400), (dir(mode), dir(0o750), 0o500)]
            {
                let (Entry::File { mode: shared, .. } | Entry::Folder { mode: Some(shared) }) = base else {
                    panic!()
                };
                let usable = mode & needed == needed;
                let expected = |replacement: u32| (!usable).then_some(replacement);
                assert_eq!(mode_to_come(None, &theirs), expected(mode | needed), "new {theirs:?}");
                assert_eq!(mode_to_come(Some(&link("x")), &theirs), expected(mode | needed), "{theirs:?}");
                assert_eq!(mode_to_come(Some(&base), &theirs), expected(shared), "{theirs:?}");
                // Root may have uploaded such a mode; then it is no change.
                assert_eq!(mode_to_come(Some(&theirs), &theirs), None, "{theirs:?}");
            }
        }
        assert_eq!(mode_to_come(Some(&dir(0o750)), &Entry::Folder { mode: None }), None);
        assert_eq!(mode_to_come(None, &link("x")), None);
    }

    #[test]
    fn only_kind_content_target_and_permission_bits_count_as_a_change() {
        assert!(file(1, 0o100_644).same_as(&file(1, 0o644)), "the kind in a mode does not count");
        assert!(file(1, 0o4755).same_as(&file(1, 0o755)), "nor do setuid, setgid and sticky");
        assert!(Entry::Folder { mode: None }.same_as(&dir(0o700)), "nor an unknown mode");
        assert!(!file(1, 0o644).same_as(&file(1, 0o640)));
        assert!(!link("a").same_as(&file(1, 0o777)));
    }

    /// A plan as text: its steps, in order.
    fn planned(base: &Snapshot, theirs: &Snapshot, ours: &Snapshot) -> Vec<String> {
        let locals = ours.iter().map(|(path, entry)| (path.clone(), Local::Entry(entry.clone())));
        let inspected = paths_to_inspect(base, theirs);
        let locals: ByPath<_> = locals.filter(|(path, _)| inspected.contains(path)).collect();
        let plan = plan(base, theirs, &locals);
        let placed = |what: &str, placement: &Placement<'_>| {
            format!("{what} {}{}", placement.path, if placement.back_up { " with backup" } else { "" })
        };
        let mut steps: Vec<String> =
            plan.folders.iter().map(|placement| placed("folder", placement)).collect();
        steps.extend(plan.files.iter().map(|placement| placed("file", placement)));
        steps.extend(plan.file_modes.iter().map(|(path, mode)| format!("mode of file {path} {mode:o}")));
        steps.extend(plan.deletions.iter().map(|path| format!("delete {path}")));
        steps.extend(plan.in_place_of_folders.iter().map(|placement| placed("replace folder", placement)));
        steps.extend(plan.modes.iter().map(|(path, mode)| format!("mode {path} {mode:o}")));
        steps.extend(plan.left_in_place.iter().map(|path| format!("leave {path}")));
        steps
    }

    #[test]
    fn nothing_is_planned_where_the_sandbox_changed_nothing() {
        let base = tree(&[("a", dir(0o755)), ("a/b", file(1, 0o644))]);
        assert_eq!(planned(&base, &base, &Snapshot::new()), [""; 0]);
        assert!(paths_to_inspect(&base, &base).is_empty());
    }

    #[test]
    fn folders_deleted_locally_are_made_again_for_new_content() {
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
            "but not the file that the sandbox did not change"
        );
    }

    #[test]
    fn a_file_or_link_in_the_way_of_a_folder_is_backed_up() {
        let base = tree(&[("a", dir(0o755)), ("a/b", file(1, 0o644))]);
        let mut theirs = base.clone();
        theirs.insert(path("a/new"), file(2, 0o644));
        for ours in [file(9, 0o644), link("/elsewhere")] {
            assert_eq!(
                planned(&base, &theirs, &tree(&[("a", ours)])),
                ["folder a with backup", "file a/new", "mode a 755"]
            );
        }
        let uploaded_file = tree(&[("a", file(1, 0o644))]);
        let became_folder = tree(&[("a", dir(0o755)), ("a/new", file(2, 0o644))]);
        assert_eq!(
            planned(&uploaded_file, &became_folder, &uploaded_file),
            ["folder a", "file a/new", "mode a 755"],
            "a version that was uploaded as it is needs no backup"
        );
    }

    #[test]
    fn a_folder_that_became_a_file_is_emptied_first() {
        let base = tree(&[("a", dir(0o755)), ("a/b", file(1, 0o644)), ("a/c", file(1, 0o644))]);
        let theirs = tree(&[("a", file(2, 0o644))]);
        let mut ours = base.clone();
        ours.insert(path("a/c"), file(9, 0o644));
        assert_eq!(planned(&base, &theirs, &ours), ["delete a/b", "replace folder a", "leave a/c"]);
    }

    #[test]
    fn a_path_treated_as_unchanged_is_not_a_change() {
        let base = tree(&[
            ("a", dir(0o755)),
            ("a-", file(1, 0o644)),
            ("a/b", dir(0o755)),
            ("a/b/c", file(1, 0o644)),
            ("a/d", file(1, 0o644)),
        ]);
        let names = |paths: Vec<RelativePath>| paths.iter().map(RelativePath::to_string).collect::<Vec<_>>();
        // Deleted; replaced by a folder; and with a file in the place of the folder above.
        for (theirs, at, replaced, after) in [
            (tree(&[]), "a/b/c", &["a", "a/b"][..], &["a", "a/b", "a/b/c"][..]),
            (tree(&[]), "a/b", &["a"], &["a", "a/b", "a/b/c"]),
            (tree(&[("a", file(2, 0o644))]), "a/d", &["a"], &["a", "a/d"]),
            (
                tree(&[("a", dir(0o700)), ("a/d", dir(0o755)), ("a/d/x", file(2, 0o644))]),
                "a/d",
                &[],
                &["a", "a/d"],
            ),
            (tree(&[("n", dir(0o755)), ("n/x", file(2, 0o644)), ("n-", file(2, 0o644))]), "n", &[], &["n-"]),
            (tree(&[("n", file(2, 0o644))]), "n/x", &[], &["n"]),
        ] {
            let mut now = theirs.clone();
            assert_eq!(names(treat_as_unchanged(&mut now, &base, &path(at))), replaced, "{at} of {theirs:?}");
            assert_eq!(names(now.keys().cloned().collect()), after, "{at} of {theirs:?}");
            assert!(changed(&base, &now).all(|(changed, ..)| !changed.is_or_below(at.as_bytes())));
        }
    }

    #[test]
    fn deleting_more_than_half_of_the_files_and_at_least_twenty_counts_as_most() {
        for (files, links, deleted, most) in [
            (20, 0, 20, true),
            (19, 0, 19, false),
            (39, 0, 20, true),
            (40, 0, 20, false),
            (41, 0, 21, true),
            (1000, 0, 500, false),
            (1000, 0, 501, true),
            (10, 10, 20, true),
            (10, 30, 20, false),
        ] {
            let mut base = tree(&[]);
            for at in 0..files + links {
                let entry = if at < files { file(1, 0o644) } else { link("x") };
                // Folders do not count.
                base.insert(path(&format!("d{at}")), dir(0o755));
                base.insert(path(&format!("d{at}/x")), entry);
            }
            let mut theirs = base.clone();
            for at in 0..deleted {
                theirs.remove(&path(&format!("d{at}")));
                theirs.remove(&path(&format!("d{at}/x")));
            }
            let locals =
                base.iter().map(|(path, entry)| (path.clone(), Local::Entry(entry.clone()))).collect();
            let plan = plan(&base, &theirs, &locals);
            assert_eq!(plan.deletes_most_of(&base), most, "{deleted} of {files} and {links}");
            // What is already gone locally is not deleted.
            let none = super::plan(&base, &theirs, &ByPath::default());
            assert!(!none.deletes_most_of(&base));
        }
    }

    #[test]
    fn new_entries_are_placed_before_anything_is_deleted() {
        let base = tree(&[("old", dir(0o755)), ("old/x", file(1, 0o644))]);
        let theirs = tree(&[("new", dir(0o755)), ("new/x", file(1, 0o644))]);
        assert_eq!(
            planned(&base, &theirs, &base),
            ["folder new", "file new/x", "delete old/x", "delete old", "mode new 755"]
        );
    }
}
