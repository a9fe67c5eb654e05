//! Protects entries that the sandbox still has under another name.
//!
//! On a volume that treats `Foo` and `foo` as one name, the entry at a path that a plan deletes or replaces
//! may also be the local entry of another of the sandbox's names. Taking it away would lose what the sandbox
//! still has under that name, and the next merge would not bring it back.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;

use super::incoming::UNCHANGED;
use super::plan::{Local, Plan};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::collisions::may_be_one;
use crate::fs::{Cursor, FileId, Kind, Meta, Root};
use crate::path::{ByPath, RelativePath};
use crate::tree::entry::Snapshot;

/// Changes a plan where it would take away the local entry of another of the sandbox's names: a deletion is
/// withdrawn, and a version that would be replaced is backed up if it is what the sandbox has under the other
/// name.
///
/// `local` and `seen` are the local entries at the paths of the plan.
pub fn protect_colliding_names(
    root: &Root,
    plan: &mut Plan<'_>,
    theirs: &Snapshot,
    local: &ByPath<Local>,
    seen: &ByPath<Meta>,
    cancel: &Cancel,
) -> Result<()> {
    let mut volume = RealVolume { cursor: root.cursor(), listings: HashMap::new() };
    let (mut spared, mut backed_up) = (HashSet::new(), HashSet::new());
    for (taken, held) in
        collisions(&mut volume, plan, theirs, seen, cancel).map_err(|error| error.with_hint(UNCHANGED))?
    {
        if let (Some(entry), Some(Local::Entry(ours))) = (theirs.get(held), local.get(&taken))
            && entry.same_as(ours)
        {
            backed_up.insert(taken.clone());
        }
        spared.insert(taken);
    }
    if !spared.is_empty() {
        plan.leave_in_place(|path| spared.contains(path));
        plan.back_up(|path| backed_up.contains(path));
    }
    Ok(())
}

/// What has to be asked of a volume.
trait Volume {
    /// The metadata of the entry at a path.
    fn look(&mut self, path: &RelativePath) -> Result<Option<Meta>>;
    /// Whether every name of the path is listed in its folder exactly as written, so the entry is not found
    /// under another spelling.
    fn is_listed(&mut self, path: &RelativePath) -> Result<bool>;
}

/// The paths that a plan takes away without a backup, each with another name of the sandbox's that has the
/// same local entry.
fn collisions<'p, 'a>(
    volume: &mut impl Volume,
    plan: &'p Plan<'p>,
    theirs: &'a Snapshot,
    seen: &'p ByPath<Meta>,
    cancel: &Cancel,
) -> Result<Vec<(RelativePath, &'a RelativePath)>> {
    let mut entries: Vec<_> = seen.iter().map(|entry| (entry.1.id, entry)).collect();
    entries.sort_unstable_by_key(|&(inode, _)| inode);

    let mut search = Search { volume, plan, taken: None, unlisted: HashMap::new(), collisions: Vec::new() };
    // First, the paths that were inspected for the plan.
    for same in entries.chunk_by(|one, other| one.0 == other.0).filter(|same| same.len() > 1) {
        for (_, (path, meta)) in same {
            cancel.check()?;
            if let Some((held, _)) = theirs.get_key_value(path) {
                search.compare(held, *meta, same)?;
            }
        }
    }
    // Then those that were not inspected, because the sandbox did not change them.
    let mut known = seen.in_order();
    let mut candidates = None;
    for held in theirs.keys() {
        cancel.check()?;
        // If everything was changed, all have been inspected.
        if candidates.is_none() && known.find(held).is_some() {
            continue;
        }
        let candidates = candidates.get_or_insert_with(|| Candidates::of(taken_by(plan)));
        if !candidates.include(held, search.volume)? || known.find(held).is_some() {
            continue;
        }
        let Some(meta) = search.volume.look(held)? else { continue };
        let from = entries.partition_point(|(at, _)| *at < meta.id);
        let to = entries.partition_point(|(at, _)| *at <= meta.id);
        search.compare(held, meta, &entries[from..to])?;
    }
    Ok(search.collisions)
}

/// The paths that a plan deletes, or replaces without a backup.
fn taken_by<'p>(plan: &'p Plan<'_>) -> impl Iterator<Item = &'p RelativePath> {
    let replaced = plan.placements().filter(|placement| !placement.back_up).map(|placement| &placement.path);
    plan.deletions.iter().chain(replaced)
}

struct Search<'v, 'p, 'a, V> {
    volume: &'v mut V,
    plan: &'p Plan<'p>,
    /// The paths that the plan takes away; collected when first needed.
    taken: Option<HashSet<&'p RelativePath>>,
    /// For each inode with several names, the paths that are found only under another spelling than their
    /// own.
    unlisted: HashMap<FileId, Vec<&'p RelativePath>>,
    collisions: Vec<(RelativePath, &'a RelativePath)>,
}

impl<'p, 'a, V: Volume> Search<'_, 'p, 'a, V> {
    /// Finds, among the paths of one inode, those whose entry is also the one that `held` is found as.
    fn compare(
        &mut self,
        held: &'a RelativePath,
        meta: Meta,
        same: &[(FileId, &'p (RelativePath, Meta))],
    ) -> Result<()> {
        let all = same.iter().map(|(_, (path, _))| path);
        let is_one_of_several = meta.kind != Kind::Folder && meta.links > 1;
        let paths = if is_one_of_several && self.volume.is_listed(held)? {
            // It is listed under its own name: only a path that is found under another spelling can be the
            // same entry.
            match self.unlisted.entry(meta.id) {
                Occupied(known) => known.into_mut(),
                Vacant(new) => {
                    let mut unlisted = Vec::new();
                    for path in all {
                        if !self.volume.is_listed(path)? {
                            unlisted.push(path);
                        }
                    }
                    new.insert(unlisted)
                }
            }
        } else {
            &mut all.collect()
        };
        let plan = self.plan;
        let taken = self.taken.get_or_insert_with(|| taken_by(plan).collect());
        let found = paths.iter().filter(|path| taken.contains(*path) && may_collide(path, held));
        self.collisions.extend(found.map(|&path| (path.clone(), held)));
        Ok(())
    }
}

fn may_collide(taken: &RelativePath, held: &RelativePath) -> bool {
    taken != held && may_be_one(taken, held)
}

/// The real volume.
struct RealVolume<'r> {
    cursor: Cursor<'r>,
    /// The names in each folder that was asked for.
    listings: HashMap<Option<RelativePath>, HashSet<Box<[u8]>>>,
}

impl Volume for RealVolume<'_> {
    fn look(&mut self, path: &RelativePath) -> Result<Option<Meta>> {
        match self.cursor.stat(path) {
            // A path that we may not inspect, or whose name is not allowed here, was not found when the
            // plan's paths were inspected either. So it is none of them.
            Err(error) if error.is_io(ErrorKind::PermissionDenied) || error.refuses_name() => Ok(None),
            looked => looked,
        }
    }

    fn is_listed(&mut self, path: &RelativePath) -> Result<bool> {
        for path in path.ancestors().chain([path.clone()]) {
            let folder = path.parent();
            if !self.listings.contains_key(&folder) {
                let names = match self.cursor.list(folder.as_ref()) {
                    // An unreadable folder does not tell its names. Then nothing in it is taken away.
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

/// Filters out the names that no volume takes for one of the paths that a plan takes away. Most trees are
/// ASCII and mostly lower case, and then this costs almost nothing.
#[derive(Debug, Default)]
struct Candidates<'p> {
    /// The ASCII paths among them, in lower case: those that were lower case already, and those that were
    /// not.
    lower: HashSet<Vec<u8>>,
    mixed: HashSet<Vec<u8>>,
    /// What is taken away in each folder. The key is in lower case if it is ASCII.
    folders: HashMap<Vec<u8>, Taken>,
    /// The folders as they were given.
    given: HashSet<&'p [u8]>,
    /// Whether one of the folders is not ASCII, and whether a name in one of them is not.
    anywhere: bool,
    others: bool,
    /// The same folders by inode, once they were asked for.
    by_inode: Option<HashMap<FileId, Vec<&'p [u8]>>>,
    /// The folder that was asked for last, and whether it is one of them under another name.
    last: Option<(Vec<u8>, bool)>,
}

/// The names that are taken away in one folder.
#[derive(Debug, Default)]
struct Taken {
    /// The ASCII names in lower case; filled only if the folder's path is not ASCII.
    names: HashSet<Vec<u8>>,
    /// Whether there are names that are not ASCII.
    others: bool,
}

impl<'p> Candidates<'p> {
    fn of(paths: impl Iterator<Item = &'p RelativePath>) -> Self {
        let mut candidates = Self::default();
        for path in paths {
            let (folder, name) = path.split();
            candidates.given.insert(folder);
            candidates.anywhere |= !folder.is_ascii();
            let taken = candidates.folders.entry(folder_key(folder)).or_default();
            taken.others |= !name.is_ascii();
            candidates.others |= !name.is_ascii();
            if path.as_bytes().is_ascii() {
                let paths = if is_mixed(path) { &mut candidates.mixed } else { &mut candidates.lower };
                paths.insert(path.as_bytes().to_ascii_lowercase());
            } else if name.is_ascii() {
                taken.names.insert(name.as_encoded_bytes().to_ascii_lowercase());
            }
        }
        candidates
    }

    /// Whether a path may be one of them, under its own or another name.
    fn include(&mut self, path: &RelativePath, volume: &mut impl Volume) -> Result<bool> {
        let (folder, name) = path.split();
        if path.as_bytes().is_ascii() {
            let mixed = is_mixed(path);
            let is_taken = |paths: &HashSet<Vec<u8>>| {
                !paths.is_empty() && paths.contains(&path.as_bytes().to_ascii_lowercase())
            };
            if is_taken(&self.mixed) || (mixed && is_taken(&self.lower)) {
                return Ok(true);
            }
            if !self.anywhere && !self.others {
                return Ok(false);
            }
        }
        if let Some(taken) = self.folders.get(&folder_key(folder)) {
            let lower = || name.as_encoded_bytes().to_ascii_lowercase();
            if taken.others || !name.is_ascii() || (!folder.is_ascii() && taken.names.contains(&lower())) {
                return Ok(true);
            }
        }
        if folder.is_ascii() && !self.anywhere {
            return Ok(false);
        }
        if self.last.as_ref().is_none_or(|(last, _)| *last != folder) {
            self.last = Some((folder.to_vec(), self.is_another_name(folder, volume)?));
        }
        Ok(self.last.as_ref().is_some_and(|&(_, is)| is))
    }

    /// Whether a folder is, under another name, one in which something is taken away.
    fn is_another_name(&mut self, folder: &[u8], volume: &mut impl Volume) -> Result<bool> {
        let mut inode_of = |folder: &[u8]| {
            // The root is not a path below itself, and has no other name.
            let folder = RelativePath::parse(folder).ok().flatten();
            let meta = folder.map_or(Ok(None), |folder| volume.look(&folder))?;
            Ok(meta.as_ref().map(|meta| meta.id))
        };
        if self.by_inode.is_none() {
            let mut by_inode: HashMap<_, Vec<_>> = HashMap::new();
            for &given in &self.given {
                if let Some(inode) = inode_of(given)? {
                    by_inode.entry(inode).or_default().push(given);
                }
            }
            self.by_inode = Some(by_inode);
        }
        let Some(inode) = inode_of(folder)? else { return Ok(false) };
        let same = self.by_inode.as_ref().and_then(|by_inode| by_inode.get(&inode));
        Ok(same.is_some_and(|same| same.iter().any(|&given| given != folder)))
    }
}

fn folder_key(folder: &[u8]) -> Vec<u8> {
    if folder.is_ascii() { folder.to_ascii_lowercase() } else { folder.to_vec() }
}

fn is_mixed(path: &RelativePath) -> bool {
    path.as_bytes().iter().any(u8::is_ascii_uppercase)
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
    fn all_names_that_some_volume_takes_for_one_are_candidates() {
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
                let (one, other) = (path(one), path(other));
                let folder = |path: &RelativePath| path.split().0.to_vec();
                // Two different folder names are one folder on such a volume.
                let names: Vec<_> = [folder(&one), folder(&other)]
                    .into_iter()
                    .filter(|folder| !folder.is_empty())
                    .map(|folder| String::from_utf8(folder).unwrap())
                    .collect();
                let rows: Vec<_> = names.iter().map(|name| (&**name, "", 1, Kind::Folder, 2)).collect();
                let mut candidates = Candidates::of([&one].into_iter());
                assert!(candidates.include(&other, &mut Table::of(&rows)).unwrap(), "{one} and {other}");
            }
        }
    }

    #[test]
    fn other_names_are_not_candidates() {
        let taken = [path("src/Foo"), path("b"), path("caf\u{e9}/a")];
        let held = [
            "src/foo",
            "src/bar",
            "foo",
            "B",
            "lib/foo",
            "src/\u{212a}",
            "lib/\u{212a}",
            "src",
            "caf\u{e9}/A",
            "caf\u{e9}/b",
            "caf\u{e9}/\u{e9}",
            "cafe\u{301}/c",
            "th\u{e9}/a",
        ];
        let mut volume = Table::of(&[
            ("caf\u{e9}", "", 1, Kind::Folder, 2),
            ("cafe\u{301}", "", 1, Kind::Folder, 2),
            ("th\u{e9}", "", 2, Kind::Folder, 2),
        ]);
        let mut candidates = Candidates::of(taken.iter());
        let looked_at: Vec<_> =
            held.into_iter().filter(|held| candidates.include(&path(held), &mut volume).unwrap()).collect();
        assert_eq!(
            looked_at,
            ["src/foo", "B", "src/\u{212a}", "caf\u{e9}/A", "caf\u{e9}/\u{e9}", "cafe\u{301}/c"]
        );
        let mut none = Candidates::of([].iter());
        assert!(!held.into_iter().any(|held| none.include(&path(held), &mut volume).unwrap()));
    }

    /// A volume as a table: each path with the name that it is found under, its inode, kind and number of
    /// links.
    struct Table(BTreeMap<RelativePath, (&'static str, Meta)>);

    impl Table {
        fn of(rows: &[(&str, &'static str, u64, Kind, u64)]) -> Self {
            let meta = |ino, kind, links| Meta {
                kind,
                mode: 0,
                size: 0,
                mtime: (0, 0),
                ctime: (0, 0),
                id: FileId::new(1, ino),
                links,
                owner: (0, 0),
            };
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
    fn entries_that_the_sandbox_has_under_another_name_are_found() {
        use Kind::{File, Folder};
        type Rows = &'static [(&'static str, &'static str, u64, Kind, u64)];
        /// What is tried; the volume; what the plan takes away; what the sandbox has; what is found.
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
            ("a folder", &[("D", "D", 1, Folder, 2), ("d", "D", 1, Folder, 2)], &["d"], &["D"], &["d"]),
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
            let place = |path| Placement { path, entry: &entry, back_up: false, mode: None };
            let plans = [
                Plan { deletions: taken().collect(), ..Plan::default() },
                Plan { files: taken().map(place).collect(), ..Plan::default() },
            ];
            for plan in plans {
                let mut table = Table::of(rows);
                let found = collisions(&mut table, &plan, &theirs, &seen, &Cancel::default()).unwrap();
                let found: Vec<_> = found.into_iter().map(|(taken, _)| taken).collect();
                let expected: Vec<_> = expected.iter().map(|expected| path(expected)).collect();
                assert_eq!(found, expected, "{name}");
            }
            let backups = Plan {
                files: taken()
                    .map(|path| Placement { path, entry: &entry, back_up: true, mode: None })
                    .collect(),
                ..Plan::default()
            };
            let found =
                collisions(&mut Table::of(rows), &backups, &theirs, &seen, &Cancel::default()).unwrap();
            assert_eq!(found, [], "{name}: it is backed up anyway");
        }
    }

    /// On a volume that tells the names apart. `__test__/macos.test.mjs` covers the others.
    #[cfg(target_os = "linux")]
    #[test]
    fn thousands_of_hard_links_are_separate_names() {
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
        let files = names.iter().map(|name| Placement {
            path: path(name),
            entry: &entry,
            back_up: false,
            mode: None,
        });
        let mut plan = Plan { files: files.collect(), ..Plan::default() };
        let local = names.iter().map(|name| (path(name), Local::Entry(entry.clone()))).collect();
        protect_colliding_names(&root, &mut plan, &theirs, &local, &seen, &Cancel::default()).unwrap();
        assert!(!plan.files.iter().any(|placement| placement.back_up));
    }
}
