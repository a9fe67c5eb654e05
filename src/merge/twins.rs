//! What a plan may not take away: on a volume that takes `Foo` and `foo` for one name, what stands at one path may be the
//! very entry that another of the sandbox's names stands for here. Without it, that name would lose what the sandbox still
//! has, and the next merge would not bring it back.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;

use rustix::io::Errno;

use super::incoming::UNCHANGED;
use super::plan::{Local, Plan};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::path::{ByPath, RelativePath};
use crate::tree::entry::Snapshot;
use crate::tree::root::{Cursor, Kind, Meta, Root};
use crate::tree::twins::may_be_one;

/// Changes a plan where it would take away what another of the sandbox's names stands for: a deletion is taken back, and
/// what would be replaced is kept aside if it is what the sandbox has by the other name. `local` and `seen` are what
/// stands at the paths of the plan.
pub fn spare_twins(
    root: &Root,
    plan: &mut Plan<'_>,
    theirs: &Snapshot,
    local: &ByPath<Local>,
    seen: &ByPath<Meta>,
    cancel: &Cancel,
) -> Result<()> {
    let mut volume = Looker { cursor: root.cursor(), listings: HashMap::new() };
    let (mut spared, mut set_aside) = (HashSet::new(), HashSet::new());
    for (taken, held) in
        twins(&mut volume, plan, theirs, seen, cancel).map_err(|error| error.with_hint(UNCHANGED))?
    {
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

/// What a volume is asked.
trait Volume {
    /// What stands at a path.
    fn look(&mut self, path: &RelativePath) -> Result<Option<Meta>>;
    /// Whether each name of the path stands in its folder as it is written, rather than being found by another one.
    fn is_listed(&mut self, path: &RelativePath) -> Result<bool>;
}

/// What a plan takes away unkept, each with a name of the sandbox's that stands for the same entry here.
fn twins<'a>(
    volume: &mut impl Volume,
    plan: &Plan<'_>,
    theirs: &'a Snapshot,
    seen: &ByPath<Meta>,
    cancel: &Cancel,
) -> Result<Vec<(RelativePath, &'a RelativePath)>> {
    let replaced = plan.placements().filter(|placement| !placement.aside).map(|placement| &placement.path);
    let taken = plan.deletions.iter().chain(replaced);
    let inode = |meta: &Meta| (meta.dev, meta.ino);
    let mut by_inode: Vec<((u64, u64), &RelativePath)> =
        taken.clone().filter_map(|path| Some((inode(seen.get(path)?), path))).collect();
    by_inode.sort_unstable_by_key(|&(inode, _)| inode);
    let suspects = LazyCell::new(|| Suspects::of(taken));
    let mut unlisted = HashMap::new();
    let mut known = seen.in_order();
    let mut twins = Vec::new();
    if by_inode.is_empty() {
        return Ok(twins);
    }
    for held in theirs.keys() {
        cancel.check()?;
        let meta = match known.find(held) {
            Some(meta) => Some(*meta),
            None if suspects.include(held) => volume.look(held)?,
            None => None,
        };
        let Some(meta) = meta else { continue };
        let from = by_inode.partition_point(|(at, _)| *at < inode(&meta));
        let same: &[_] = by_inode[from..].chunk_by(|a, b| a.0 == b.0).next().unwrap_or_default();
        if same.first().is_none_or(|(at, path)| *at != inode(&meta) || (same.len() == 1 && *path == held)) {
            continue;
        }
        let same = same.iter().map(|&(_, path)| path);
        if meta.kind == Kind::Dir || meta.links == 1 || !volume.is_listed(held)? {
            twins.extend(same.filter(|path| may_be_twins(path, held)).map(|path| (path.clone(), held)));
            continue;
        }
        // One of several hard links, by its own name: only what is found by another name than its own may be it.
        let unlisted = match unlisted.entry(inode(&meta)) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let mut unlisted = Vec::new();
                for path in same {
                    if !volume.is_listed(path)? {
                        unlisted.push(path);
                    }
                }
                new.insert(unlisted)
            }
        };
        twins.extend(
            unlisted.iter().filter(|path| may_be_twins(path, held)).map(|&path| (path.clone(), held)),
        );
    }
    Ok(twins)
}

fn may_be_twins(taken: &RelativePath, held: &RelativePath) -> bool {
    taken != held && may_be_one(taken, held)
}

/// The real volume.
struct Looker<'r> {
    cursor: Cursor<'r>,
    /// The names in each folder that was asked about.
    listings: HashMap<Option<RelativePath>, HashSet<Box<[u8]>>>,
}

impl Volume for Looker<'_> {
    fn look(&mut self, path: &RelativePath) -> Result<Option<Meta>> {
        match self.cursor.stat(path) {
            // Whoever may not look there, or may not even name it, was not there when what is taken was looked at: so it
            // is not that.
            Err(error)
                if error.is_io(ErrorKind::PermissionDenied)
                    || [Errno::ILSEQ, Errno::INVAL, Errno::NAMETOOLONG]
                        .map(|errno| Some(errno.raw_os_error()))
                        .contains(&error.errno()) =>
            {
                Ok(None)
            }
            looked => looked,
        }
    }

    fn is_listed(&mut self, path: &RelativePath) -> Result<bool> {
        for path in path.ancestors().chain([path.clone()]) {
            let folder = path.parent();
            if !self.listings.contains_key(&folder) {
                let names = match self.cursor.list(folder.as_ref()) {
                    // It tells nothing of its names, and then nothing in it is taken away.
                    Err(error) if error.is_io(ErrorKind::PermissionDenied) => None,
                    listed => listed?,
                };
                self.listings.insert(folder.clone(), names.into_iter().flatten().collect());
            }
            if !self.listings[&folder].contains(path.name().as_encoded_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
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

    fn include(&self, path: &RelativePath) -> bool {
        let (folder, name) = path.split();
        if self.anywhere {
            return true;
        }
        if !folder.is_ascii() {
            return !self.folders.is_empty();
        }
        if name.is_ascii() && self.paths.contains(&path.as_bytes().to_ascii_lowercase()) {
            return true;
        }
        let among = if name.is_ascii() { &self.folders_of_others } else { &self.folders };
        !among.is_empty() && among.contains(&folder.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::merge::plan::Placement;
    use crate::tree::entry::{Digest, Entry};

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
                assert!(Suspects::of([path(one)].iter()).include(&path(other)), "{one} and {other}");
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

    /// A volume by a table: each path with the name that it is found by, its inode, kind and links.
    struct Table(BTreeMap<RelativePath, (&'static str, Meta)>);

    impl Table {
        fn of(rows: &[(&str, &'static str, u64, Kind, u64)]) -> Self {
            let meta = |ino, kind, links| Meta { kind, mode: 0, size: 0, mtime: (0, 0), dev: 1, ino, links };
            let row = |&(name, found, ino, kind, links): &(&str, _, _, _, _)| {
                (path(name), (found, meta(ino, kind, links)))
            };
            Self(rows.iter().map(row).collect())
        }
    }

    impl Volume for Table {
        fn look(&mut self, path: &RelativePath) -> Result<Option<Meta>> {
            Ok(self.0.get(path).map(|&(_, meta)| meta))
        }

        fn is_listed(&mut self, at: &RelativePath) -> Result<bool> {
            Ok(self.0.get(at).is_some_and(|(found, _)| path(found) == *at))
        }
    }

    #[test]
    fn what_stands_for_another_name_of_theirs() {
        use Kind::{Dir, File};
        type Rows = &'static [(&'static str, &'static str, u64, Kind, u64)];
        /// What is tried; the volume; what the plan takes; what theirs hold; what is found.
        type Case = (&'static str, Rows, Names, Names, Names);
        type Names = &'static [&'static str];
        let cases: &[Case] = &[
            ("two files", &[("Foo", "Foo", 1, File, 1), ("foo", "foo", 2, File, 1)], &["foo"], &["Foo"], &[]),
            (
                "one file",
                &[("Foo", "Foo", 1, File, 1), ("foo", "Foo", 1, File, 1)],
                &["foo"],
                &["Foo"],
                &["foo"],
            ),
            (
                "by its own name",
                &[("Foo", "Foo", 1, File, 1), ("foo", "Foo", 1, File, 1)],
                &["Foo"],
                &["foo"],
                &["Foo"],
            ),
            (
                "another name",
                &[("Foo", "Foo", 1, File, 1), ("bar", "bar", 1, File, 1)],
                &["Foo"],
                &["bar"],
                &[],
            ),
            ("a folder", &[("D", "D", 1, Dir, 2), ("d", "D", 1, Dir, 2)], &["d"], &["D"], &["d"]),
            (
                "below it",
                &[("D/a", "D/a", 1, File, 1), ("d/a", "D/a", 1, File, 1)],
                &["d/a"],
                &["D/a"],
                &["d/a"],
            ),
            (
                "hard links",
                &[("Foo", "Foo", 1, File, 2), ("foo", "foo", 1, File, 2)],
                &["foo"],
                &["Foo"],
                &[],
            ),
            (
                "a name of a hard link",
                &[("Foo", "Foo", 1, File, 2), ("foo", "Foo", 1, File, 2), ("bar", "bar", 1, File, 2)],
                &["Foo"],
                &["bar", "foo"],
                &["Foo"],
            ),
            (
                "the same, the other way",
                &[("Foo", "Foo", 1, File, 2), ("foo", "Foo", 1, File, 2), ("bar", "bar", 1, File, 2)],
                &["bar", "foo"],
                &["Foo"],
                &["foo"],
            ),
            ("nothing there", &[("foo", "foo", 1, File, 1)], &["foo"], &["Foo"], &[]),
            ("itself", &[("foo", "foo", 1, File, 1)], &["foo"], &["foo"], &[]),
        ];
        let entry = Entry::File { mode: 0o644, digest: Digest([1; 32]) };
        for (name, rows, taken, held, expected) in cases {
            let theirs: Snapshot = held.iter().map(|held| (path(held), entry.clone())).collect();
            let table = Table::of(rows);
            let seen: ByPath<Meta> =
                taken.iter().filter_map(|at| Some((path(at), table.0.get(&path(at))?.1))).collect();
            let taken = || taken.iter().map(|taken| path(taken));
            let place = |path| Placement { path, entry: &entry, aside: false };
            let plans = [
                Plan { deletions: taken().collect(), ..Plan::default() },
                Plan { files: taken().map(place).collect(), ..Plan::default() },
            ];
            for plan in plans {
                let mut table = Table::of(rows);
                let found = twins(&mut table, &plan, &theirs, &seen, &Cancel::default()).unwrap();
                let found: Vec<_> = found.into_iter().map(|(taken, _)| taken).collect();
                let expected: Vec<_> = expected.iter().map(|expected| path(expected)).collect();
                assert_eq!(found, expected, "{name}");
            }
            let kept = Plan {
                files: taken().map(|path| Placement { path, entry: &entry, aside: true }).collect(),
                ..Plan::default()
            };
            let found = twins(&mut Table::of(rows), &kept, &theirs, &seen, &Cancel::default()).unwrap();
            assert_eq!(found, [], "{name}: it is kept anyway");
        }
    }

    /// On a volume that tells them apart; `__test__/macos.test.mjs` has the others.
    #[cfg(target_os = "linux")]
    #[test]
    fn thousands_of_hard_links_are_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..3000).map(|number| format!("d/\u{6587}{number}")).collect();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("first"), "x").unwrap();
        for name in &names {
            std::fs::hard_link(folder.path().join("first"), folder.path().join(name)).unwrap();
        }
        let root = Root::open(folder.path()).unwrap();
        let seen: ByPath<Meta> = names
            .iter()
            .map(|name| (path(name), root.cursor().stat(&path(name)).unwrap().unwrap()))
            .collect();
        let entry = Entry::File { mode: 0o644, digest: Digest([1; 32]) };
        let theirs: Snapshot = names.iter().map(|name| (path(name), entry.clone())).collect();
        let files = names.iter().map(|name| Placement { path: path(name), entry: &entry, aside: false });
        let mut plan = Plan { files: files.collect(), ..Plan::default() };
        let local = names.iter().map(|name| (path(name), Local::Entry(entry.clone()))).collect();
        spare_twins(&root, &mut plan, &theirs, &local, &seen, &Cancel::default()).unwrap();
        assert!(!plan.files.iter().any(|placement| placement.aside));
    }
}
