//! What a plan may not take away: on a volume that takes `Foo` and `foo` for one name, what stands at one path may be the
//! very entry that another of the sandbox's names stands for here. Without it, that name would lose what the sandbox still
//! has, and the next merge would not bring it back.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};

use super::plan::{Local, Plan};
use crate::path::{ByPath, RelativePath};
use crate::tree::entry::Snapshot;
use crate::tree::root::{Cursor, Kind, Meta, Root};
use crate::tree::twins::{may_be_one, may_fold};

/// Changes a plan where it would take away what another of the sandbox's names stands for: a deletion is taken back, and
/// what would be replaced is kept aside if it is what the sandbox has by the other name. `local` and `seen` are what
/// stands at the paths of the plan.
pub fn spare_twins(
    root: &Root,
    plan: &mut Plan<'_>,
    theirs: &Snapshot,
    local: &ByPath<Local>,
    seen: &ByPath<Meta>,
) {
    let (mut spared, mut set_aside) = (HashSet::new(), HashSet::new());
    for (taken, held) in twins(root, plan, theirs, seen) {
        if let (Some(entry), Some(Local::Entry(ours))) = (theirs.get(held), local.get(&taken))
            && entry.same_as(ours)
        {
            set_aside.insert(taken.clone());
        }
        spared.insert(taken);
    }
    if !spared.is_empty() {
        plan.keep(|path| spared.contains(path));
        plan.keep_aside(|path| set_aside.contains(path));
    }
}

/// What a plan takes away unkept, each with a name of the sandbox's that stands for the same entry here.
fn twins<'a>(
    root: &Root,
    plan: &Plan<'_>,
    theirs: &'a Snapshot,
    seen: &ByPath<Meta>,
) -> Vec<(RelativePath, &'a RelativePath)> {
    let replaced = plan.placements().filter(|placement| !placement.aside).map(|placement| &placement.path);
    let taken: Vec<(&RelativePath, &Meta)> =
        plan.deletions.iter().chain(replaced).filter_map(|path| Some((path, seen.get(path)?))).collect();
    let Some(&(first, _)) = taken.first() else { return Vec::new() };
    let mut by_inode: HashMap<(u64, u64), Vec<&RelativePath>> = HashMap::new();
    for (path, meta) in &taken {
        by_inode.entry((meta.dev, meta.ino)).or_default().push(path);
    }
    let suspects = LazyCell::new(|| Suspects::of(taken.iter().map(|&(path, _)| path)));
    let folds = LazyCell::new(|| may_fold(&mut root.cursor(), first));
    let mut cursor = root.cursor();
    let mut known = seen.in_order();
    let mut twins = Vec::new();
    for held in theirs.keys() {
        let meta = match known.find(held) {
            Some(meta) => Some(*meta),
            None if suspects.include(held, || *folds) => entry_at(&mut cursor, held),
            None => None,
        };
        let Some(meta) = meta else { continue };
        for &path in by_inode.get(&(meta.dev, meta.ino)).into_iter().flatten() {
            if path != held && may_be_one(path, held) && are_one(&mut cursor, &meta, path, held) {
                twins.push((path.clone(), held));
            }
        }
    }
    twins
}

/// What stands at a path that may be another name of something that was looked at. Where looking fails, it is not: that
/// one could be looked at.
fn entry_at(cursor: &mut Cursor<'_>, path: &RelativePath) -> Option<Meta> {
    cursor.stat(path).unwrap_or(None)
}

/// Whether two paths of one inode are one entry, rather than hard links.
fn are_one(cursor: &mut Cursor<'_>, meta: &Meta, one: &RelativePath, other: &RelativePath) -> bool {
    if meta.kind == Kind::Dir || meta.links == 1 {
        return true;
    }
    let [folder, same_folder] = [one, other].map(RelativePath::parent);
    if !is_same_folder(cursor, folder.as_ref(), same_folder.as_ref()) {
        return false;
    }
    if one.name() == other.name() {
        return true;
    }
    // A folder that cannot be listed tells nothing, and then nothing is taken away.
    let Ok(Some(names)) = cursor.list(folder.as_ref()) else { return true };
    let is_listed = |path: &RelativePath| names.iter().any(|name| **name == *path.name().as_encoded_bytes());
    !(is_listed(one) && is_listed(other))
}

fn is_same_folder(cursor: &mut Cursor<'_>, one: Option<&RelativePath>, other: Option<&RelativePath>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one == other };
    match (entry_at(cursor, one), entry_at(cursor, other)) {
        (Some(one), Some(other)) => one.is_same_inode(&other),
        _ => false,
    }
}

/// What is known of some paths, by which to tell others that no volume takes for one of them.
#[derive(Debug, Default)]
struct Suspects {
    /// The paths, and the folders that they lie in, in lower case; those that are ASCII.
    paths: HashSet<Vec<u8>>,
    folders: HashSet<Vec<u8>>,
    /// The folders with names that are not ASCII, which may fall together with any other.
    folders_of_others: HashSet<Vec<u8>>,
    /// Whether there are folders whose own paths are not ASCII.
    anywhere: bool,
}

impl Suspects {
    fn of<'a>(paths: impl Iterator<Item = &'a RelativePath>) -> Self {
        let mut suspects = Self::default();
        for path in paths {
            let (folder, name) = path.split();
            if !folder.is_ascii() {
                suspects.anywhere = true;
            } else if name.is_ascii() {
                suspects.folders.insert(folder.to_ascii_lowercase());
                suspects.paths.insert(path.as_bytes().to_ascii_lowercase());
            } else {
                suspects.folders.insert(folder.to_ascii_lowercase());
                suspects.folders_of_others.insert(folder.to_ascii_lowercase());
            }
        }
        suspects
    }

    /// Whether a path may be one of them. `folds` is asked where names are not all ASCII.
    fn include(&self, path: &RelativePath, folds: impl FnOnce() -> bool) -> bool {
        let (folder, name) = path.split();
        let is_ascii = path.as_bytes().is_ascii();
        if is_ascii && self.paths.contains(&path.as_bytes().to_ascii_lowercase()) {
            return true;
        }
        if (is_ascii && self.folders_of_others.is_empty() && !self.anywhere) || !folds() {
            return false;
        }
        if self.anywhere {
            return true;
        }
        if !folder.is_ascii() {
            return !self.folders.is_empty();
        }
        let among = if name.is_ascii() { &self.folders_of_others } else { &self.folders };
        among.contains(&folder.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::entry::Entry;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn whatever_may_fall_together_is_looked_at() {
        for (one, other) in [
            ("Foo", "foo"),
            ("Src/a", "src/A"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("\u{212a}elvin", "kelvin"),
            ("caf\u{e9}/a", "cafe\u{301}/A"),
            ("src/caf\u{e9}/a", "Src/cafe\u{301}/A"),
            ("\u{17f}rc/a", "src/a"),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                assert!(may_be_one(&path(one), &path(other)), "{one} and {other}");
                let suspects = Suspects::of([path(one)].iter());
                assert!(suspects.include(&path(other), || true), "{one} and {other}");
                let is_ascii = one.is_ascii() && other.is_ascii();
                assert_eq!(suspects.include(&path(other), || false), is_ascii, "{one} and {other}");
            }
        }
    }

    #[test]
    fn where_names_are_ascii_few_are_looked_at() {
        let suspects = Suspects::of([path("src/Foo"), path("b")].iter());
        let held = ["src/foo", "src/bar", "foo", "B", "lib/foo", "src/\u{212a}", "lib/\u{212a}", "src"];
        let looked_at: Vec<_> =
            held.into_iter().filter(|held| suspects.include(&path(held), || true)).collect();
        assert_eq!(looked_at, ["src/foo", "B", "src/\u{212a}"]);
        let none = Suspects::of([].iter());
        assert!(!held.into_iter().any(|held| none.include(&path(held), || true)));
    }

    /// On a volume that tells them apart; `__test__/macos.test.mjs` has the others.
    #[cfg(target_os = "linux")]
    #[test]
    fn hard_links_are_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("Dir")).unwrap();
        std::fs::create_dir(folder.path().join("dir")).unwrap();
        std::fs::write(folder.path().join("Foo"), "x").unwrap();
        for name in ["foo", "Dir/a", "dir/a"] {
            std::fs::hard_link(folder.path().join("Foo"), folder.path().join(name)).unwrap();
        }
        let root = Root::open(folder.path()).unwrap();
        let deletions = [path("Foo"), path("Dir/a")];
        let seen = deletions.iter().map(|path| (path.clone(), root.cursor().stat(path).unwrap().unwrap()));
        let seen: ByPath<Meta> = seen.collect();
        let entry = Entry::Symlink { target: [].into() };
        let theirs: Snapshot = [path("foo"), path("dir/a")].map(|path| (path, entry.clone())).into();
        let mut plan = Plan { deletions: deletions.to_vec(), ..Plan::default() };
        spare_twins(&root, &mut plan, &theirs, &ByPath::default(), &seen);
        assert_eq!((&*plan.deletions, &*plan.kept), (&deletions[..], &[][..]));
    }
}
