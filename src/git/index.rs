//! Merges the index by value. Pure: decides on what `git ls-files --stage -z` lists.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::recognise::is_gits;
use super::refs::{Oid, folders_of};
use crate::fs::{Kind, Meta};
use crate::path::RelativePath;

/// One stage of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Staged {
    /// File mode as git writes it (`100644`).
    pub mode: Vec<u8>,
    /// The blob, or the commit of a submodule.
    pub oid: Oid,
    /// 0, or 1 to 3 for the sides of a merge in progress.
    pub stage: u8,
}

/// An index by path.
pub type Listing = BTreeMap<RelativePath, Vec<Staged>>;

/// What changes in an index: two listings, before and after. Lines that are in both may be left out.
pub type Change = (Vec<u8>, Vec<u8>);

/// Parses a listing. `None` if a line does not have git's form, or names a path that no index may contain.
#[must_use]
pub fn parse(list: &[u8]) -> Option<Listing> {
    let mut listing = Listing::new();
    for line in list.split(|&byte| byte == 0).filter(|line| !line.is_empty()) {
        let tab = line.iter().position(|&byte| byte == b'\t')?;
        let mut fields = line[..tab].split(|&byte| byte == b' ');
        let mode =
            fields.next().filter(|mode| matches!(*mode, b"100644" | b"100755" | b"120000" | b"160000"))?;
        let oid = Oid::parse(fields.next()?)?;
        let stage = match fields.next()? {
            [digit @ b'0'..=b'3'] => digit - b'0',
            _ => return None,
        };
        let path = RelativePath::parse(&line[tab + 1..]).ok()??;
        if path.as_bytes() != &line[tab + 1..] || is_gits(&path) {
            return None;
        }
        listing.entry(path).or_default().push(Staged { mode: mode.to_vec(), oid, stage });
    }
    Some(listing)
}

/// Whether each path of a listing has either one entry, or those of the sides of a merge. Git itself dies of anything else.
#[must_use]
pub fn has_sound_stages(list: &[u8]) -> bool {
    let entries: Vec<(&[u8], Option<u8>)> = lines(list).map(|line| (path_in(line), stage_in(line))).collect();
    let is_sound = |(path, stage): &(&[u8], Option<u8>), (next, further): &(&[u8], Option<u8>)| {
        path != next || (*stage > Some(b'0') && stage < further)
    };
    entries.windows(2).all(|pair| is_sound(&pair[0], &pair[1]))
}

/// The new entries of a listing that git may read as `.gitmodules` or `.gitattributes`, on any volume.
#[must_use]
pub fn new_settings(list: &[u8], base: &[u8]) -> Vec<(RelativePath, Staged)> {
    let new = parse(&beyond(list, base)).unwrap_or_default().into_iter();
    new.filter(|(path, _)| may_be_settings(path.name().as_encoded_bytes()))
        .flat_map(|(path, stages)| stages.into_iter().map(move |staged| (path.clone(), staged)))
        .filter(|(_, staged)| staged.mode != b"160000")
        .collect()
}

/// Whether some volume may take a name for `.gitmodules` or `.gitattributes`: it may ignore case and some characters beyond
/// ASCII, and have a short name such as `GITMOD~1`.
fn may_be_settings(name: &[u8]) -> bool {
    let plain: Vec<u8> = name.iter().filter(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase).collect();
    let is_short = plain.starts_with(b"gi") && plain.contains(&b'~');
    is_short || plain.starts_with(b".gitm") || plain.starts_with(b".gita")
}

fn lines(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == 0).filter(|line| !line.is_empty())
}

/// The path in a line of a listing.
#[must_use]
pub fn path_in(line: &[u8]) -> &[u8] {
    line.iter().position(|&byte| byte == b'\t').map_or(&[], |tab| &line[tab + 1..])
}

/// What an entry of that mode is in the workspace. A submodule is a folder.
#[must_use]
pub fn kind_of(mode: &[u8]) -> Kind {
    match mode {
        b"120000" => Kind::Symlink,
        b"160000" => Kind::Folder,
        _ => Kind::File,
    }
}

/// The entries of a listing, of an index or of a tree, whose path passes a test: the path, its kind, and its object.
pub fn entries_at(
    list: &[u8],
    is_wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = (&[u8], Kind, Oid)> {
    lines(list).filter(move |line| is_wanted(path_in(line))).filter_map(|line| {
        let path = path_in(line);
        // A tree tells the type of an object before it.
        let oid = line[..line.len() - path.len()].split(u8::is_ascii_whitespace).find_map(Oid::parse)?;
        Some((path, kind_of(line.get(..6)?), oid))
    })
}

/// The stage in a line of a listing, which is the digit before the path.
fn stage_in(line: &[u8]) -> Option<u8> {
    line[..line.len() - path_in(line).len()].iter().rev().nth(1).copied()
}

/// The object in a line of a listing.
fn oid_in(line: &[u8]) -> Option<Oid> {
    line.split(|&byte| byte == b' ').nth(1).and_then(Oid::parse)
}

/// The listing with these lines.
fn listing<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    lines.flat_map(|line| [line, b"\0"].concat()).collect()
}

/// The lines of a listing that another one does not have. An index has a line for every file, and usually few
/// lines differ.
#[must_use]
pub fn beyond(list: &[u8], other: &[u8]) -> Vec<u8> {
    let known: HashSet<&[u8]> = lines(other).collect();
    listing(lines(list).filter(|line| !known.contains(line)))
}

/// The empty blob of each format. An entry that is only intended to be added names it too, and then it may be
/// missing.
const EMPTY: [&str; 2] = [
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
];

/// Whether an object is the empty blob.
#[must_use]
pub fn is_empty_blob(oid: &Oid) -> bool {
    EMPTY.contains(&oid.as_str())
}

/// A listing without the entries at the paths for which `is_out` is true.
#[must_use]
pub fn without(list: &[u8], is_out: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    listing(lines(list).filter(|line| !is_out(path_in(line))))
}

/// The paths of the empty blobs in a listing.
#[must_use]
pub fn empty(list: &[u8]) -> HashSet<&[u8]> {
    let is_empty = |line: &[u8]| oid_in(line).is_some_and(|oid| is_empty_blob(&oid));
    lines(list).filter(|line| is_empty(line)).map(path_in).collect()
}

/// The paths among these that are only intended to be added, by what git lists with [states].
#[must_use]
pub(super) fn intended(listed: &[u8], paths: &HashSet<&[u8]>) -> HashSet<Vec<u8>> {
    let intended = states(listed).into_iter().filter(|state| state.is_intended);
    let intended = intended.map(|state| path_in(state.line)).filter(|path| paths.contains(path));
    intended.map(<[u8]>::to_vec).collect()
}

/// An entry of an index with what that says of its file, as `git ls-files --stage --debug -z` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryState<'a> {
    /// The line of a listing.
    pub line: &'a [u8],
    /// The lines with times, device and inode.
    pub told: &'a [u8],
    /// When the inode was last changed: seconds and nanoseconds, which are 0 where they are not known.
    pub ctime: (i64, i64),
    /// When the content was last changed.
    pub mtime: (i64, i64),
    /// The last 32 bits of the inode.
    pub inode: u32,
    /// The last 32 bits of the size.
    pub size: u32,
    /// Whether the entry is only intended to be added (`git add -N`), so that it stages nothing.
    pub is_intended: bool,
    /// Whether git compares the file with the entry. If not, it is marked `skip-worktree` or `assume-unchanged`.
    pub is_compared: bool,
}

/// Git's flag of an entry that is only intended to be added.
const INTENT_TO_ADD: u32 = 1 << 29;

/// Git's flags `skip-worktree` and `assume-unchanged`.
const NOT_COMPARED: u32 = 1 << 30 | 1 << 15;

/// The indented lines that a text begins with, at most so many.
fn indented(text: &[u8], most: usize) -> &[u8] {
    let lines = text.split_inclusive(|&byte| byte == b'\n').take_while(|line| line.starts_with(b"  "));
    &text[..lines.take(most).map(<[u8]>::len).sum()]
}

/// Parses such a listing.
#[must_use]
pub fn states(list: &[u8]) -> Vec<EntryState<'_>> {
    let mut states = Vec::new();
    let mut rest = list;
    while let Some(zero) = rest.iter().position(|&byte| byte == 0) {
        let line = &rest[..zero];
        rest = &rest[zero + 1..];
        // `ctime`, `mtime`, device and inode, owner, size and flags.
        let (told, all) = (indented(rest, 3), indented(rest, usize::MAX));
        rest = &rest[all.len()..];
        let mut words = all.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let mut value = || words.nth(1).map_or("", |word| std::str::from_utf8(word).unwrap_or_default());
        let time = |text: &str| {
            let (seconds, nanoseconds) = text.split_once(':')?;
            Some((seconds.parse().ok()?, nanoseconds.parse().ok()?))
        };
        let (ctime, mtime) = (time(value()).unwrap_or_default(), time(value()).unwrap_or_default());
        let [_, inode, _, _, size, flags] = [(); 6].map(|()| value());
        let flags = u32::from_str_radix(flags, 16).unwrap_or_default();
        states.push(EntryState {
            line,
            told,
            ctime,
            mtime,
            inode: inode.parse().unwrap_or_default(),
            size: size.parse().unwrap_or_default(),
            is_intended: flags & INTENT_TO_ADD != 0,
            is_compared: flags & NOT_COMPARED == 0,
        });
    }
    states
}

impl EntryState<'_> {
    /// Whether a file that is here now, of that size, times and inode, may be another one than this entry was made for,
    /// although its size and its time in whole seconds are the same. Git tells that by what an archive does not keep.
    #[must_use]
    pub fn hides(&self, meta: &Meta) -> bool {
        let is_same = |told: (i64, i64), now: (i64, i64)| told.0 == now.0 && (told.1 == 0 || told.1 == now.1);
        let looks_same = self.size == low(meta.size) && self.mtime.0 == meta.mtime.0;
        let is_same_file = is_same(self.mtime, meta.mtime)
            && is_same(self.ctime, meta.ctime)
            && self.inode == low(meta.id.inode());
        looks_same && !is_same_file && !self.is_intended
    }

    /// Whether git takes a file for changed without reading it, because it has another size than the entry says.
    ///
    /// Its content may be what is staged all the same, with other line ends or as a filter made it.
    #[must_use]
    pub fn is_judged_by_size(&self, meta: &Meta) -> bool {
        let is_plain = self.is_compared && !self.is_intended && !self.is_unmerged();
        // Git does not trust a size of 0, which an entry has that was not compared yet.
        let is_other = self.size != 0 && self.size != low(meta.size);
        is_plain && is_other && self.kind() == Kind::File && meta.kind == Kind::File
    }

    /// Whether the entry is that of one side of a merge in progress.
    #[must_use]
    pub fn is_unmerged(&self) -> bool {
        stage_in(self.line) != Some(b'0')
    }

    /// What the entry is in the workspace.
    #[must_use]
    pub fn kind(&self) -> Kind {
        kind_of(self.line.split(|&byte| byte == b' ').next().unwrap_or_default())
    }
}

/// The last 32 bits of a number, which are all that an index has of it.
fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}

/// What makes git compare the files at these lines of a listing by their content, and forget the trees that it has noted for
/// the folders of a listing: input for `git update-index -z --index-info`.
///
/// Such a tree may be reachable from nothing but the index, and then it is not uploaded.
#[must_use]
pub fn forgetting(list: &[u8], compared: &[&[u8]], zero: &str) -> Vec<u8> {
    let folders: HashSet<&[u8]> = lines(list)
        .map(path_in)
        .flat_map(|path| {
            let slashes = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
            slashes.map(|(at, _)| &path[..=at]).chain([&b""[..]])
        })
        .collect();
    // Git forgets a folder's tree where a name in it is removed, even one that is not there.
    let mut name = b"none".to_vec();
    while lines(list).any(|line| path_in(line).rsplit(|&byte| byte == b'/').next() == Some(&name)) {
        name.push(b'-');
    }
    let mut text = Vec::new();
    for folder in folders {
        text.extend([b"0 ", zero.as_bytes(), b"\t", folder, &name, b"\0"].concat());
    }
    text.extend(listing(compared.iter().copied()));
    text
}

/// The paths at which a listing has one of these blobs.
#[must_use]
pub fn paths_with<'a>(list: &'a [u8], blobs: &BTreeSet<Oid>) -> HashSet<&'a [u8]> {
    let names_one = |line: &&[u8]| oid_in(line).is_some_and(|oid| blobs.contains(&oid));
    lines(list).filter(names_one).map(path_in).collect()
}

/// The paths of a listing.
#[must_use]
pub fn paths(list: &[u8]) -> HashSet<&[u8]> {
    lines(list).map(path_in).collect()
}

/// The part of a change at the paths for which `stays` is true.
#[must_use]
pub fn at_paths((before, after): (&[u8], &[u8]), stays: impl Fn(&[u8]) -> bool) -> Change {
    let only = |list| listing(lines(list).filter(|line| stays(path_in(line))));
    (only(before), only(after))
}

/// The part of a change at the paths that another change concerns, and at those above and below them.
#[must_use]
pub fn touching((before, after): &Change, (from, to): (&[u8], &[u8])) -> Change {
    let (gone, new) = (beyond(from, to), beyond(to, from));
    let concerned: BTreeSet<&[u8]> = paths(&gone).into_iter().chain(paths(&new)).collect();
    let above: HashSet<&[u8]> = concerned.iter().flat_map(|path| folders_of(path)).collect();
    at_paths((before, after), |path| {
        concerned.contains(path)
            || above.contains(path)
            || folders_of(path).any(|folder| concerned.contains(folder))
    })
}

/// The change of an index that is merged while `HEAD` moves: `head` has what differs between the two commits.
///
/// Where ours has what the former commit has, nothing is staged there, although it may differ from the base: it was
/// staged at the upload and is not any more, or it was committed since. Such a path follows the commit, as in a
/// checkout. Otherwise the reverse of what the new commit changed would be staged.
#[must_use]
pub fn following((before, after): (&[u8], &[u8]), (left, reached): &Change, ours: &[u8]) -> Change {
    let moved: HashSet<&[u8]> = lines(left).chain(lines(reached)).map(path_in).collect();
    let [of_before, of_after, of_left, of_ours] = [before, after, left, ours].map(|list| at(list, &moved));
    let follows = |path: &[u8]| {
        moved.contains(path)
            && of_ours.get(path) == of_left.get(path)
            && of_ours.get(path) != of_before.get(path)
    };
    let has_theirs = |path: &[u8]| of_before.get(path) != of_after.get(path);
    let old = lines(left)
        .filter(|line| follows(path_in(line)))
        .chain(lines(before).filter(|line| !follows(path_in(line))));
    let new = lines(reached)
        .filter(|line| follows(path_in(line)) && !has_theirs(path_in(line)))
        .chain(lines(after).filter(|line| !follows(path_in(line)) || has_theirs(path_in(line))));
    (listing(old), listing(new))
}

/// The paths that differ between the two commits of `head`, and at which an index stages something that neither of them has.
#[must_use]
pub fn staged_otherwise<'a>((left, reached): &'a Change, ours: &[u8]) -> BTreeSet<&'a [u8]> {
    let moved: HashSet<&[u8]> = lines(left).chain(lines(reached)).map(path_in).collect();
    let [of_left, of_reached] = [left, reached].map(|list| at(list, &moved));
    let of_ours = at(ours, &moved);
    let is_other = |path: &&[u8]| {
        let staged = of_ours.get(path);
        staged != of_left.get(path) && staged != of_reached.get(path)
    };
    moved.iter().copied().filter(is_other).collect()
}

/// The lines of a listing at these paths, by path.
fn at<'l>(list: &'l [u8], paths: &HashSet<&[u8]>) -> HashMap<&'l [u8], Vec<&'l [u8]>> {
    let mut entries: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
    for line in lines(list).filter(|line| paths.contains(path_in(line))) {
        entries.entry(path_in(line)).or_default().push(line);
    }
    entries
}

/// A listing with a change made in it, at the paths that have what the change replaces.
#[must_use]
pub fn applied(list: &[u8], (before, after): &Change) -> Vec<u8> {
    let (changes, _) = merge_listings(before, after, list);
    let paths: HashSet<&[u8]> = changes.iter().map(|(path, _)| path.as_bytes()).collect();
    let new = lines(after).filter(|line| paths.contains(path_in(line)));
    let stay = lines(list).filter(|line| !paths.contains(path_in(line)));
    let mut all: Vec<&[u8]> = stay.chain(new).collect();
    // Git's order: by path, and then by stage.
    all.sort_by_key(|line| (path_in(line), stage_in(line)));
    listing(all.into_iter())
}

/// The blobs that a listing names and another one does not.
#[must_use]
pub fn new_blobs(list: &[u8], other: &[u8]) -> BTreeSet<Oid> {
    let named = |line: &[u8]| line.split(|&byte| byte == b' ').nth(1).map(<[u8]>::to_vec);
    let known: HashSet<Vec<u8>> = lines(other).filter_map(named).collect();
    let new = parse(&beyond(list, other)).unwrap_or_default().into_values().flatten();
    new.filter(|staged| staged.mode != b"160000" && !known.contains(staged.oid.as_str().as_bytes()))
        .map(|staged| staged.oid)
        .collect()
}

/// The entries of files that a change brings and an index does not have, except at the paths at which the change was made in
/// it. Those of a merge in progress are left out: their content is that of commits.
#[must_use]
pub fn not_taken((before, after): (&[u8], &[u8]), ours: &[u8], made: &[RelativePath]) -> Vec<u8> {
    let made: HashSet<&[u8]> = made.iter().map(RelativePath::as_bytes).collect();
    let new = beyond(&beyond(after, before), ours);
    let is_kept = |line: &&[u8]| stage_in(line) == Some(b'0') && !made.contains(path_in(line));
    listing(lines(&new).filter(is_kept))
}

/// The maximum length of a name in the entries that are [kept](keepable). `git fsck` warns of a longer one in a tree, and no
/// file system has any.
const NAME_MAX: usize = 255;

/// The lines of a listing that name one of these blobs at a path that a tree may have.
#[must_use]
pub fn keepable(list: &[u8], blobs: &BTreeSet<Oid>) -> Vec<u8> {
    let fits = |path: &[u8]| path.split(|&byte| byte == b'/').all(|name| name.len() <= NAME_MAX);
    let names_one = |line: &&[u8]| oid_in(line).is_some_and(|oid| blobs.contains(&oid));
    listing(lines(list).filter(names_one).filter(|line| fits(path_in(line))))
}

/// Like [`merge`], for whole listings: only paths that differ between the first two are parsed. Also returns the paths that stay
/// as they are because ours has a file above or below them, which git would drop.
#[must_use]
pub fn merge_listings(
    base: &[u8],
    theirs: &[u8],
    ours: &[u8],
) -> (Vec<(RelativePath, Vec<Staged>)>, Vec<RelativePath>) {
    let staged: BTreeSet<&[u8]> = lines(ours).map(path_in).collect();
    let (there, gone) = (beyond(theirs, base), beyond(base, theirs));
    let paths: HashSet<&[u8]> = lines(&there).chain(lines(&gone)).map(path_in).collect();
    let [base, theirs, ours] = [base, theirs, ours].map(|list| {
        let of_them: Vec<u8> = lines(list)
            .filter(|line| paths.contains(path_in(line)))
            .flat_map(|line| [line, b"\0"].concat())
            .collect();
        parse(&of_them).unwrap_or_default()
    });
    let mut changes = merge(&base, &theirs, &ours);
    let removed: HashSet<Vec<u8>> = changes
        .iter()
        .filter(|(_, stages)| stages.is_empty())
        .map(|(path, _)| path.as_bytes().to_vec())
        .collect();
    let stays = |path: &[u8]| staged.contains(path) && !removed.contains(path);
    let is_blocked = |(path, stages): &(RelativePath, Vec<Staged>)| {
        let below = [path.as_bytes(), b"/"].concat();
        !stages.is_empty()
            && (path.ancestors().any(|above| stays(above.as_bytes()))
                || staged
                    .range(&below[..]..)
                    .take_while(|path| path.starts_with(&below))
                    .any(|path| stays(path)))
    };
    let blocked: Vec<RelativePath> =
        changes.iter().filter(|change| is_blocked(change)).map(|(path, _)| path.clone()).collect();
    changes.retain(|(path, _)| blocked.binary_search(path).is_err());
    (changes, blocked)
}

/// The changes to make in ours: each path with its entries afterwards (none: it is removed from the index).
#[must_use]
pub fn merge(base: &Listing, theirs: &Listing, ours: &Listing) -> Vec<(RelativePath, Vec<Staged>)> {
    let paths: BTreeSet<&RelativePath> = base.keys().chain(theirs.keys()).collect();
    paths
        .into_iter()
        .filter(|path| {
            let (base, theirs, ours) = (base.get(*path), theirs.get(*path), ours.get(*path));
            theirs != base && theirs != ours && ours == base
        })
        .map(|path| (path.clone(), theirs.get(path).cloned().unwrap_or_default()))
        .collect()
}

/// The changes as `git update-index -z --index-info` reads them.
#[must_use]
pub fn index_info(changes: &[(RelativePath, Vec<Staged>)], zero: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let mut line = |head: String, path: &RelativePath| {
        text.extend(head.into_bytes());
        text.push(b'\t');
        text.extend(path.as_bytes());
        text.push(0);
    };
    // Removals come first, so that a directory can replace a file.
    for (path, _) in changes {
        line(format!("0 {zero}"), path);
    }
    for (path, stages) in changes {
        for staged in stages {
            line(format!("{} {} {}", String::from_utf8_lossy(&staged.mode), staged.oid, staged.stage), path);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_touches_the_paths_of_another_one_and_those_above_and_below() {
        let list = |entries: &str| -> Vec<u8> {
            let line = |entry: &str| {
                let (path, digit) = entry.split_once('=').unwrap();
                format!("100644 {} 0\t{path}\0", digit.repeat(40)).into_bytes()
            };
            entries.split_whitespace().flat_map(line).collect()
        };
        for (change, of, expected) in [
            (("a=1 b=1", "a=2 b=2"), ("b=1 c=1", "b=3 c=1"), ("b=1", "b=2")),
            (("a=1", ""), ("a=1", "a=3"), ("a=1", "")),
            (("", "a=2"), ("b=1", "b=3"), ("", "")),
            (("a=1", "a/b=2"), ("a=1", ""), ("a=1", "a/b=2")),
            (("a/b=1", "a=2"), ("", "a/b/c=3"), ("a/b=1", "a=2")),
            (("ab=1", "ab=2"), ("a=1", "a=3"), ("", "")),
            (("a=1", "a=2"), ("a=1", "a=1"), ("", "")),
        ] {
            let (from, to) = (list(of.0), list(of.1));
            let found = touching(&(list(change.0), list(change.1)), (&from, &to));
            assert_eq!(found, (list(expected.0), list(expected.1)), "{change:?} {of:?}");
        }
    }

    fn listing(entries: &[(&str, char)]) -> Listing {
        let line =
            |(path, digit): &(&str, char)| format!("100644 {} 0\t{path}\0", digit.to_string().repeat(40));
        let text = entries.iter().map(line).collect::<Vec<_>>().concat();
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_combination_of_base_theirs_and_ours() {
        let values = [None, Some('a'), Some('b'), Some('c')];
        let of = |value: Option<char>| value.map_or(Listing::new(), |digit| listing(&[("f", digit)]));
        for base in values {
            for theirs in values {
                for ours in values {
                    let changes = merge(&of(base), &of(theirs), &of(ours));
                    // The same with whole listings, with other entries before and after.
                    let list = |value: Option<char>| {
                        let line = |(path, digit): (&str, char)| {
                            format!("100644 {} 0\t{path}\0", digit.to_string().repeat(40))
                        };
                        let all = [Some(("a", 'd')), value.map(|digit| ("f", digit)), Some(("z", 'e'))];
                        all.into_iter().flatten().map(line).collect::<String>().into_bytes()
                    };
                    let listings = merge_listings(&list(base), &list(theirs), &list(ours));
                    assert_eq!(listings, (changes.clone(), Vec::new()));
                    let new = new_blobs(&list(theirs), &list(base)).into_iter().next();
                    let expected =
                        theirs.filter(|_| theirs != base).map(|digit| digit.to_string().repeat(40));
                    assert_eq!(new.map(|oid| oid.to_string()), expected);
                    let taken = theirs != base && ours == base;
                    let after = if taken { theirs } else { ours };
                    let mut merged = of(ours);
                    for (path, stages) in changes {
                        if stages.is_empty() {
                            merged.remove(&path);
                        } else {
                            merged.insert(path, stages);
                        }
                    }
                    assert_eq!(merged, of(after), "{base:?} {theirs:?} {ours:?}");
                }
            }
        }
    }

    /// Values of a path in the base, in the sandbox's index, in the commits that `HEAD` named and names, and in ours.
    #[test]
    fn a_path_at_which_nothing_is_staged_follows_the_commit() {
        let values = [None, Some('a'), Some('b'), Some('c')];
        let list = |value: Option<char>| {
            let line = |digit: char| format!("100644 {} 0\tf\0", digit.to_string().repeat(40));
            value.map(line).unwrap_or_default().into_bytes()
        };
        let other = "100644 dddddddddddddddddddddddddddddddddddddddd 0\tg\0".as_bytes();
        let all = values.iter().flat_map(|base| values.map(|theirs| (*base, theirs)));
        for (base, theirs) in all {
            for (left, reached) in values.iter().flat_map(|left| values.map(|reached| (*left, reached))) {
                for ours in values {
                    // A difference between commits has no line for what is the same in both.
                    let head = if left == reached { <_>::default() } else { (list(left), list(reached)) };
                    let [base_list, theirs_list, ours_list] =
                        [base, theirs, ours].map(|value| [&list(value)[..], other].concat());
                    let (before, after) = following((&base_list, &theirs_list), &head, &ours_list);
                    let (changes, _) = merge_listings(&before, &after, &ours_list);
                    let merged = changes.first().map_or(ours, |(_, stages)| {
                        stages.first().map(|staged| staged.oid.as_str().chars().next().unwrap())
                    });
                    let expected = if ours == base {
                        theirs
                    } else if ours == left && left != reached {
                        if theirs == base { reached } else { theirs }
                    } else {
                        ours
                    };
                    assert_eq!(merged, expected, "{base:?} {theirs:?}, {left:?} {reached:?}, {ours:?}");
                    assert!(changes.len() <= 1);
                }
            }
        }
    }

    #[test]
    fn what_is_staged_locally_above_or_below_a_path_stays() {
        let list = |entries: &[(&str, char)]| {
            let line =
                |(path, digit): &(&str, char)| format!("100644 {} 0\t{path}\0", digit.to_string().repeat(40));
            entries.iter().map(line).collect::<String>().into_bytes()
        };
        let paths = |text: &str| -> Vec<RelativePath> {
            text.split_whitespace()
                .map(|name| RelativePath::parse(name.as_bytes()).unwrap().unwrap())
                .collect()
        };
        for (base, theirs, ours, changed, blocked) in [
            // A directory became a file in the sandbox, and something in it is staged locally.
            (&[("d/x", 'a')][..], &[("d", 'b')][..], &[("d/new", 'c'), ("d/x", 'a')][..], "d/x", "d"),
            (&[("d/in", 'a'), ("d/x", 'a')], &[("d", 'b')], &[("d/in", 'c'), ("d/x", 'a')], "d/x", "d"),
            (&[("d/x", 'a')], &[("d", 'b')], &[("d/x", 'a')], "d d/x", ""),
            // The other way round.
            (&[("d", 'a')], &[("d/in", 'b')], &[("d", 'c')], "", "d/in"),
            (&[("d", 'a')], &[("d/in", 'b')], &[("d", 'a')], "d d/in", ""),
            // Both sides added something.
            (&[], &[("x/y", 'b')], &[("x", 'c')], "", "x/y"),
            (&[], &[("x", 'b')], &[("x/y", 'c')], "", "x"),
            (&[], &[("x.txt", 'b'), ("x/y/z", 'b'), ("xx", 'b')], &[("x", 'c')], "x.txt xx", "x/y/z"),
            // Names that only begin alike.
            (&[], &[("d", 'b')], &[("d-", 'c'), ("d.x", 'c'), ("dx/y", 'c')], "d", ""),
        ] {
            let (changes, kept) = merge_listings(&list(base), &list(theirs), &list(ours));
            let changes: Vec<_> = changes.into_iter().map(|(path, _)| path).collect();
            assert_eq!((changes, kept), (paths(changed), paths(blocked)), "{base:?} {theirs:?} {ours:?}");
        }
    }

    #[test]
    fn a_change_is_made_in_a_listing_in_gits_order() {
        let entry = |path: &str, digit: &str, stage| format!("100644 {} {stage}\t{path}\0", digit.repeat(40));
        let list = ["a", "b/c", "d"].map(|path| entry(path, "1", 0)).concat();
        let before = ["a", "b/c"].map(|path| entry(path, "1", 0)).concat();
        let after = [entry("a", "2", 1), entry("a", "3", 2), entry("b", "2", 0), entry("c", "2", 0)].concat();
        let expected = [after.clone(), entry("d", "1", 0)].concat();
        let change = (before.into_bytes(), after.into_bytes());
        assert_eq!(applied(list.as_bytes(), &change), expected.as_bytes());
        // A path that has something else than the change replaces stays.
        let other = entry("d", "4", 0);
        assert_eq!(
            applied(other.as_bytes(), &(entry("d", "1", 0).into_bytes(), Vec::new())),
            other.as_bytes()
        );
    }

    const DEBUG: &str = "100644 7898192261 0\ta\0  ctime: 1700000002:7\n  mtime: 1700000001:5\n  dev: 65024\tino: 12\n  \
        uid: 0\tgid: 0\n  size: 3\tflags: 0\n100644 e69de29bb2 0\tb c\0  ctime: 0:0\n  mtime: 0:0\n  dev: 0\tino: 0\n  \
        uid: 0\tgid: 0\n  size: 0\tflags: 20004000\n";

    #[test]
    fn what_an_index_says_of_files_is_parsed() {
        let [a, b] = *states(DEBUG.as_bytes()) else { panic!("two entries") };
        assert_eq!((path_in(a.line), path_in(b.line)), (&b"a"[..], &b"b c"[..]));
        assert_eq!((a.ctime, a.mtime, a.inode, a.size), ((1_700_000_002, 7), (1_700_000_001, 5), 12, 3));
        assert_eq!((a.is_intended, b.is_intended), (false, true));
        assert!(a.told.starts_with(b"  ctime: ") && a.told.ends_with(b"ino: 12\n"));
        assert!(states(b"").is_empty());
        assert_eq!(states(b"100644 x 0\ta\0  nonsense\n")[0].inode, 0);
    }

    /// Only what an archive does not keep tells the two files apart.
    #[test]
    fn a_file_is_compared_by_content_if_only_time_and_size_say_that_it_is_unchanged() {
        let [entry, _] = *states(DEBUG.as_bytes()) else { panic!("two entries") };
        let file = tempfile::tempfile().unwrap();
        let meta = Meta::of_file(&file).unwrap();
        let same = Meta { size: 3, mtime: (1_700_000_001, 5), ctime: (1_700_000_002, 7), ..meta };
        let same_inode = EntryState { inode: u32::try_from(meta.id.inode() & 0xffff_ffff).unwrap(), ..entry };
        for (what, entry, meta, hides) in [
            ("the same file", same_inode, same, false),
            ("another inode", entry, same, true),
            ("a later nanosecond", same_inode, Meta { mtime: (1_700_000_001, 6), ..same }, true),
            ("a later status change", same_inode, Meta { ctime: (1_700_000_003, 7), ..same }, true),
            ("another size", same_inode, Meta { size: 4, ..same }, false),
            ("another second", same_inode, Meta { mtime: (1_700_000_002, 5), ..same }, false),
            ("no nanoseconds", EntryState { mtime: (1_700_000_001, 0), ..same_inode }, same, false),
            ("intended only", EntryState { is_intended: true, ..entry }, same, false),
        ] {
            assert_eq!(entry.hides(&meta), hides, "{what}");
        }
    }

    #[test]
    fn a_file_of_another_size_is_compared_by_its_content_where_git_would_not_do_so() {
        let [entry, intended] = *states(DEBUG.as_bytes()) else { panic!("two entries") };
        let meta = Meta::of_file(&tempfile::tempfile().unwrap()).unwrap();
        let other = Meta { size: 4, ..meta };
        let flagged = |flags: &str| DEBUG.replace("flags: 0", &format!("flags: {flags}"));
        let (assumed, skipped) = (flagged("8000"), flagged("40004000"));
        let [assumed, skipped] = [&assumed, &skipped].map(|text| states(text.as_bytes())[0]);
        for (what, entry, meta, is_judged) in [
            ("another size", entry, other, true),
            ("the same size", entry, Meta { size: 3, ..meta }, false),
            ("the same last 32 bits", entry, Meta { size: (1 << 32) + 3, ..meta }, false),
            ("an entry that was not compared yet", EntryState { size: 0, ..entry }, other, false),
            ("assume-unchanged", assumed, other, false),
            ("skip-worktree", skipped, other, false),
            ("intended only", EntryState { size: 1, ..intended }, other, false),
            ("a merge in progress", EntryState { line: b"100644 7898192261 2\ta", ..entry }, other, false),
            ("a link is staged", EntryState { line: b"120000 7898192261 0\ta", ..entry }, other, false),
            ("a submodule is staged", EntryState { line: b"160000 7898192261 0\ta", ..entry }, other, false),
            ("a folder is there", entry, Meta { kind: Kind::Folder, ..other }, false),
            ("a link is there", entry, Meta { kind: Kind::Symlink, ..other }, false),
        ] {
            assert_eq!(entry.is_judged_by_size(&meta), is_judged, "{what}");
        }
    }

    #[test]
    fn what_a_change_brings_and_an_index_does_not_have_is_left() {
        let entry = |(path, digit): &(&str, char), stage: u8| {
            format!("100644 {} {stage}\t{path}\0", digit.to_string().repeat(40))
        };
        let list = |entries: &[(&str, char)]| {
            entries.iter().map(|one| entry(one, 0)).collect::<String>().into_bytes()
        };
        for (what, before, after, ours, made, left) in [
            ("nothing changed", &[("f", 'a')][..], &[("f", 'a')][..], &[][..], &[][..], &[][..]),
            ("changed on both sides", &[("f", 'a')], &[("f", 'b')], &[("f", 'c')], &[], &[("f", 'b')]),
            ("changed alike", &[("f", 'a')], &[("f", 'b')], &[("f", 'b')], &[], &[]),
            ("taken over", &[("f", 'a')], &[("f", 'b')], &[("f", 'a')], &["f"], &[]),
            ("another path was taken over", &[], &[("f", 'b'), ("g", 'b')], &[], &["f"], &[("g", 'b')]),
            ("deleted there", &[("f", 'a')], &[], &[("f", 'c')], &[], &[]),
        ] {
            let made: Vec<_> =
                made.iter().map(|path| RelativePath::parse(path.as_bytes()).unwrap().unwrap()).collect();
            let found = not_taken((&list(before), &list(after)), &list(ours), &made);
            assert_eq!(found, list(left), "{what}");
        }
        let unmerged = [entry(&("f", 'b'), 1), entry(&("f", 'c'), 2), entry(&("g", 'd'), 0)].concat();
        assert_eq!(not_taken((b"", unmerged.as_bytes()), b"", &[]), list(&[("g", 'd')]));
    }

    #[test]
    fn what_a_tree_may_have_is_kept() {
        let [blob, other] = ["a", "b"].map(|digit| digit.repeat(40));
        let (fits, long) = ("n".repeat(NAME_MAX), "n".repeat(NAME_MAX + 1));
        let blobs = BTreeSet::from([Oid::parse(blob.as_bytes()).unwrap()]);
        for (oid, path, is_kept) in [
            (&blob, "f", true),
            (&other, "f", false),
            (&blob, &format!("d/{fits}/f")[..], true),
            (&blob, &format!("d/{long}/f"), false),
            (&blob, &long, false),
        ] {
            let line = format!("100644 {oid} 0\t{path}\0");
            assert_eq!(!keepable(line.as_bytes(), &blobs).is_empty(), is_kept, "{oid} {path}");
        }
    }

    #[test]
    fn the_trees_of_all_folders_are_forgotten() {
        let list = ["a", "d/e/none", "d/x"].map(|path| format!("100644 1 0\t{path}\0")).concat();
        let text = forgetting(list.as_bytes(), &[b"100644 1 0\ta"], "000");
        let mut lines: Vec<_> = lines(&text).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
        assert_eq!(lines.pop().unwrap(), "100644 1 0\ta");
        lines.sort();
        assert_eq!(lines, ["0 000\td/e/none-", "0 000\td/none-", "0 000\tnone-"]);
    }

    #[test]
    fn a_path_has_one_entry_or_those_of_a_merge() {
        let list = |entries: &[(&str, u8)]| {
            let line = |(path, stage): &(&str, u8)| format!("100644 {} {stage}\t{path}\0", "a".repeat(40));
            entries.iter().map(line).collect::<String>().into_bytes()
        };
        for (entries, is_sound) in [
            (&[][..], true),
            (&[("a", 0), ("b", 0)], true),
            (&[("a", 1), ("a", 2), ("a", 3), ("b", 0)], true),
            (&[("a", 2), ("a", 3), ("ab", 1)], true),
            (&[("a", 0), ("a", 1)], false),
            (&[("a", 0), ("a", 0)], false),
            (&[("a", 2), ("a", 2)], false),
            (&[("x", 0), ("y", 3), ("y", 1)], false),
        ] {
            assert_eq!(has_sound_stages(&list(entries)), is_sound, "{entries:?}");
        }
    }

    #[test]
    fn what_some_volume_takes_for_gits_settings_is_found() {
        for (name, is_settings) in [
            (".gitmodules", true),
            (".GitModules", true),
            (".git\u{200c}modules", true),
            ("gitmod~1", true),
            ("GI7EBA~1", true),
            (".gitattributes", true),
            (".gitignore", false),
            ("gitmodules", false),
            ("git", false),
            ("a~1", false),
        ] {
            assert_eq!(may_be_settings(name.as_bytes()), is_settings, "{name}");
        }
    }

    #[test]
    fn a_listing_that_names_what_no_index_may_hold_is_refused() {
        let oid = "a".repeat(40);
        for bad in [
            format!("100644 {oid} 0\t.git/config\0"),
            format!("100644 {oid} 0\ta/.GIT/x\0"),
            format!("100644 {oid} 0\t../x\0"),
            format!("100644 {oid} 0\t/x\0"),
            format!("100644 {oid} 4\tx\0"),
            format!("040000 {oid} 0\tx\0"),
            "100644 x 0\tx\0".to_owned(),
            format!("100644 {oid} 0\ta//b\0"),
            "x\0".to_owned(),
        ] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }
}
