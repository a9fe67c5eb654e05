//! Two names that a volume takes for one: `Foo` and `foo`, or the two ways to write `é`.
//!
//! On such a volume, what stands at one path of a plan may be the very entry that another of the sandbox's names stands
//! for here. Where the plan takes it away, that name would lose what the sandbox still has, and the next merge would not
//! bring it back.
//!
//! No table of Unicode is asked: every volume has its own. Names are suspected generously, and the volume says whether
//! they are one.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};

use super::plan::{Local, Plan};
use crate::error::Result;
use crate::path::{ByPath, RelativePath};
use crate::tree::entry::Snapshot;
use crate::tree::root::{Cursor, Kind, Meta, Root};

/// Changes a plan where it would take away what another of the sandbox's names stands for: a deletion is taken back, and
/// what would be replaced is kept aside if it is what the sandbox has by the other name. `local` and `seen` are what
/// stands at the paths of the plan.
pub fn provide_for(
    root: &Root,
    plan: &mut Plan<'_>,
    theirs: &Snapshot,
    local: &ByPath<Local>,
    seen: &ByPath<Meta>,
) -> Result<()> {
    let (mut spared, mut set_aside) = (HashSet::new(), HashSet::new());
    for (taken, held) in twins(root, plan, theirs, seen)? {
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
    Ok(())
}

/// What a plan takes away unkept, each with a name of the sandbox's that stands for the same entry here.
fn twins<'a>(
    root: &Root,
    plan: &Plan<'_>,
    theirs: &'a Snapshot,
    seen: &ByPath<Meta>,
) -> Result<Vec<(RelativePath, &'a RelativePath)>> {
    let replaced = plan.placements().filter(|placement| !placement.aside).map(|placement| &placement.path);
    let taken = plan.deletions.iter().chain(replaced);
    let mut by_inode: HashMap<(u64, u64), Vec<&RelativePath>> = HashMap::new();
    for path in taken.clone() {
        if let Some(meta) = seen.get(path) {
            by_inode.entry((meta.dev, meta.ino)).or_default().push(path);
        }
    }
    let mut found = Vec::new();
    if by_inode.is_empty() {
        return Ok(found);
    }
    let suspects = LazyCell::new(|| Suspects::of(taken));
    let mut cursor = root.cursor();
    let mut seen = seen.in_order();
    for held in theirs.keys() {
        let meta = match seen.find(held) {
            Some(meta) => Some(*meta),
            None if suspects.include(held) => cursor.stat(held)?,
            None => None,
        };
        let Some(meta) = meta else { continue };
        for &taken in by_inode.get(&(meta.dev, meta.ino)).into_iter().flatten() {
            if taken != held && may_be_one(taken, held) && are_one(&mut cursor, &meta, taken, held)? {
                found.push((taken.clone(), held));
            }
        }
    }
    Ok(found)
}

/// Whether two paths of one inode are one entry, rather than hard links.
fn are_one(cursor: &mut Cursor<'_>, meta: &Meta, one: &RelativePath, other: &RelativePath) -> Result<bool> {
    if meta.kind == Kind::Dir || meta.links == 1 {
        return Ok(true);
    }
    let [folder, same_folder] = [one, other].map(RelativePath::parent);
    if !is_same_folder(cursor, folder.as_ref(), same_folder.as_ref())? {
        return Ok(false);
    }
    let names = cursor.list(folder.as_ref())?.unwrap_or_default();
    let is_listed = |path: &RelativePath| names.iter().any(|name| **name == *path.name().as_encoded_bytes());
    Ok(one.name() == other.name() || !is_listed(one) || !is_listed(other))
}

fn is_same_folder(
    cursor: &mut Cursor<'_>,
    one: Option<&RelativePath>,
    other: Option<&RelativePath>,
) -> Result<bool> {
    let (Some(one), Some(other)) = (one, other) else { return Ok(one == other) };
    let (one, other) = (cursor.stat(one)?, cursor.stat(other)?);
    Ok(matches!((one, other), (Some(one), Some(other)) if one.is_same_inode(&other)))
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
            } else if name.as_encoded_bytes().is_ascii() {
                suspects.folders.insert(folder.to_ascii_lowercase());
                suspects.paths.insert(path.as_bytes().to_ascii_lowercase());
            } else {
                suspects.folders.insert(folder.to_ascii_lowercase());
                suspects.folders_of_others.insert(folder.to_ascii_lowercase());
            }
        }
        suspects
    }

    fn include(&self, path: &RelativePath) -> bool {
        let (folder, name) = path.split();
        if self.anywhere {
            return true;
        }
        if !folder.is_ascii() {
            return !self.folders.is_empty();
        }
        if name.as_encoded_bytes().is_ascii() && self.paths.contains(&path.as_bytes().to_ascii_lowercase()) {
            return true;
        }
        let among = if name.as_encoded_bytes().is_ascii() { &self.folders_of_others } else { &self.folders };
        !among.is_empty() && among.contains(&folder.to_ascii_lowercase())
    }
}

/// Whether some volume may take two paths for one: as far as names are ASCII, they differ by case alone. Of other names
/// nothing is known, not even that they differ from those that are: the sign for kelvin is a `k` to many volumes.
fn may_be_one(one: &RelativePath, other: &RelativePath) -> bool {
    let [mut one, mut other] = [one, other].map(|path| path.as_bytes().split(|&byte| byte == b'/'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) => {
                if one.is_ascii() && other.is_ascii() && !one.eq_ignore_ascii_case(other) {
                    return false;
                }
            }
            _ => return false,
        }
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
    fn which_names_may_fall_together() {
        let cases = [
            ("Foo", "foo", true),
            ("Foo", "fob", false),
            ("Src/a", "src/A", true),
            ("src/a", "src/b", false),
            ("src", "src/a", false),
            ("a/src", "src", false),
            ("caf\u{e9}", "cafe\u{301}", true),
            ("\u{212a}elvin", "kelvin", true),
            ("caf\u{e9}/a", "cafe\u{301}/A", true),
            ("caf\u{e9}/a", "cafe\u{301}/b", false),
            ("[x]", "{X}", false),
        ];
        for (one, other, expected) in cases {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(may_be_one(&path(one), &path(other)), expected, "{one} and {other}");
                // A suspicion leaves none of them out.
                if expected {
                    assert!(Suspects::of([path(one)].iter()).include(&path(other)), "{one}, {other}");
                }
            }
        }
    }

    #[test]
    fn where_names_are_ascii_few_are_looked_at() {
        let suspects = Suspects::of([path("src/Foo"), path("b")].iter());
        let held = ["src/foo", "src/bar", "foo", "B", "lib/foo", "src/\u{212a}", "lib/\u{212a}", "src"];
        let looked_at: Vec<_> = held.into_iter().filter(|held| suspects.include(&path(held))).collect();
        assert_eq!(looked_at, ["src/foo", "B", "src/\u{212a}"]);
        let none = Suspects::of([].iter());
        assert!(!held.into_iter().any(|held| none.include(&path(held))));
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
        provide_for(&root, &mut plan, &theirs, &ByPath::default(), &seen).unwrap();
        assert_eq!((&*plan.deletions, &*plan.kept), (&deletions[..], &[][..]));
    }
}
