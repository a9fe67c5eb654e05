//! Protects what was never uploaded: it is neither replaced under another spelling that the volume takes for
//! its name, nor moved together with the folder that it is in.

use std::collections::{HashMap, HashSet};

use super::plan::{Local, changed};
use super::report::Skipped;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::{Cursor, FileId, Kind, Meta, Root};
use crate::git::recognise::bare_folders;
use crate::path::{ByPath, RelativePath};
use crate::tree::entry::{Entry, Snapshot};
use crate::tree::filter::Filter;
use crate::tree::scan::scan;

/// Why a path is not restored that is another spelling of an excluded or preserved one.
const OTHER_SPELLING: &str = "this volume takes its name for that of something that is excluded or preserved";
/// Why a path does not come where something of another kind is, which is left alone.
const LEFT_OUT: &str = "the local entry is excluded, and is of another kind";
/// Why a folder stays.
const HOLDS: &str = "the local directory contains something that is excluded or preserved, a bare repository, or a socket, FIFO or device";

/// The paths that the sandbox changed but that must stay as they are, with the reason. `local` and `seen` are
/// the local entries at those paths.
pub fn must_stay(
    root: &Root,
    (base, theirs): (&Snapshot, &Snapshot),
    (local, seen): (&ByPath<Local>, &ByPath<Meta>),
    left_alone: &Filter<'_>,
    cancel: &Cancel,
) -> Result<Vec<Skipped>> {
    let mut volume = Spellings::on(root);
    let (mut local, mut seen) = (local.in_order(), seen.in_order());
    let mut found: Vec<Skipped> = Vec::new();
    for (path, before, after) in changed(base, theirs) {
        cancel.check()?;
        let there = seen.find(path).copied();
        let ours = local.find(path);
        if found.last().is_some_and(|last| path.is_below(&last.path)) {
            continue;
        }
        let listed = volume.as_listed(path, there)?;
        // What came and what the base has were filtered, so only another spelling or another kind can be left
        // alone.
        let known = [after, before].map(|entry| entry.map(Entry::kind));
        let kind = there.map(|there| there.kind).or(known[0]).or(known[1]).unwrap_or(Kind::File);
        let is_another = listed != *path || !known.contains(&Some(kind));
        let reason = if is_another && left_alone.leaves_out(&listed, kind) {
            if listed == *path { LEFT_OUT } else { OTHER_SPELLING }
        } else if let (Some(after), Some(Local::Entry(Entry::Folder { .. }))) = (after, ours)
            && !after.is_folder()
            && holds_any(root, path, left_alone, cancel)?
        {
            HOLDS
        } else {
            continue;
        };
        found.push(Skipped { path: path.clone(), reason });
    }
    Ok(found)
}

/// Whether something in a folder is not uploaded, or preserved.
fn holds_any(root: &Root, folder: &RelativePath, left_alone: &Filter<'_>, cancel: &Cancel) -> Result<bool> {
    let below = match root.below(folder) {
        Err(error) if error.is_gone() => return Ok(false),
        below => below?,
    };
    let found = scan(&below, &Filter::default(), cancel)?;
    let is_left_alone =
        |path: &RelativePath, kind| kind == Kind::Other || left_alone.leaves_out(&folder.join(path), kind);
    Ok(found.iter().any(|found| is_left_alone(&found.path, found.meta.kind))
        || !bare_folders(found.iter().map(|found| (&found.path, found.meta.kind))).is_empty())
}

/// How names are spelled on the volume.
struct Spellings<'r> {
    cursor: Cursor<'r>,
    /// Folders as they are listed, by the path that they were asked for.
    folders: HashMap<RelativePath, RelativePath>,
    /// Whether names that differ in case are different names in a folder, by its path.
    tells_apart: HashMap<Option<RelativePath>, bool>,
    /// A folder whose path is as listed, and in which names of ASCII are told apart: that of the last path, mostly.
    plain: Option<RelativePath>,
    /// The listings of folders, by path. A folder is listed once, however many of its names are asked for.
    listings: HashMap<Option<RelativePath>, Listing>,
}

/// The names in a folder.
#[derive(Default)]
struct Listing {
    names: HashSet<Box<[u8]>>,
    /// A name of each inode, once one was asked for.
    by_inode: Option<HashMap<FileId, RelativePath>>,
}

impl<'r> Spellings<'r> {
    fn on(root: &'r Root) -> Self {
        Self {
            cursor: root.cursor(),
            folders: HashMap::new(),
            tells_apart: HashMap::new(),
            plain: None,
            listings: HashMap::new(),
        }
    }

    /// The path as its folders list it, given that `there` is at it. On most volumes, which tell all names
    /// apart, that is the same path.
    fn as_listed(&mut self, path: &RelativePath, there: Option<Meta>) -> Result<RelativePath> {
        let (above, name) = path.split();
        if name.is_ascii() && self.plain.as_ref().is_some_and(|plain| plain.as_bytes() == above) {
            return Ok(path.clone());
        }
        let mut folder = None;
        for above in path.ancestors() {
            if !self.folders.contains_key(&above) {
                let there = self.cursor.stat(&above)?;
                let listed = self.child(folder.as_ref(), &above, there)?;
                self.folders.insert(above.clone(), listed);
            }
            folder = self.folders.get(&above).cloned();
        }
        let listed = self.child(folder.as_ref(), path, there)?;
        self.plain = path
            .parent()
            .filter(|above| folder.as_ref() == Some(above) && self.tells_apart.get(&folder) == Some(&true));
        Ok(listed)
    }

    /// The same, if the listed path of the folder is known.
    fn child(
        &mut self,
        folder: Option<&RelativePath>,
        path: &RelativePath,
        there: Option<Meta>,
    ) -> Result<RelativePath> {
        let name = path.name().as_encoded_bytes();
        let as_asked = RelativePath::child(folder, name);
        let Some(there) = there else { return Ok(as_asked) };
        if self.is_told_apart(folder, &as_asked, &there)? {
            return Ok(as_asked);
        }
        let key = folder.cloned();
        if !self.listings.contains_key(&key) {
            let names = self.cursor.list(folder)?.unwrap_or_default().into_iter().collect();
            self.listings.insert(key.clone(), Listing { names, by_inode: None });
        }
        let listing = self.listings.entry(key).or_default();
        if listing.names.contains(name) {
            return Ok(as_asked);
        }
        let by_inode = if let Some(known) = &listing.by_inode {
            known
        } else {
            let mut found = HashMap::new();
            for name in &listing.names {
                let listed = RelativePath::child(folder, name);
                if let Some(meta) = self.cursor.stat(&listed)? {
                    found.insert(meta.id, listed);
                }
            }
            listing.by_inode.insert(found)
        };
        // If the inode is not listed, the entry was renamed or replaced in between.
        Ok(by_inode.get(&there.id).cloned().unwrap_or(as_asked))
    }

    /// Whether no other name in the folder can be taken for this one.
    ///
    /// The same name in the other case tells that: a volume that folds names in any way folds these. Nothing
    /// is known for a name without letters, or one that is not ASCII.
    fn is_told_apart(
        &mut self,
        folder: Option<&RelativePath>,
        path: &RelativePath,
        there: &Meta,
    ) -> Result<bool> {
        let name = path.name().as_encoded_bytes();
        if !name.is_ascii() {
            return Ok(false);
        }
        if let Some(known) = self.tells_apart.get(&folder.cloned()) {
            return Ok(*known);
        }
        let swap = |byte: &u8| match byte {
            b'a'..=b'z' => byte.to_ascii_uppercase(),
            _ => byte.to_ascii_lowercase(),
        };
        let in_other_case: Vec<u8> = name.iter().map(swap).collect();
        if in_other_case == name {
            return Ok(false);
        }
        let other = self.cursor.stat(&RelativePath::child(folder, &in_other_case))?;
        let told_apart = other.is_none_or(|other| !other.is_same_inode(there));
        self.tells_apart.insert(folder.cloned(), told_apart);
        Ok(told_apart)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_listed_once_however_many_of_its_names_are_asked_for() {
        let temp = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..50).map(|number| format!("文書{number}")).collect();
        for name in &names {
            fs::write(temp.path().join(name), "").unwrap();
        }
        let root = Root::open(temp.path()).unwrap();
        let mut volume = Spellings::on(&root);
        let ask = |volume: &mut Spellings<'_>, name: &str| {
            let path = RelativePath::child(None, name.as_bytes());
            let there = root.cursor().stat(&path).unwrap();
            (volume.as_listed(&path, there).unwrap(), path)
        };
        let (listed, first) = ask(&mut volume, &names[0]);
        assert_eq!(listed, first);
        // From here on the listing is known: a later rename is not in it.
        fs::rename(temp.path().join(&names[1]), temp.path().join("éa")).unwrap();
        let (listed, _) = ask(&mut volume, "éa");
        assert_eq!(listed, RelativePath::child(None, "éa".as_bytes()));
        for name in &names[2..] {
            let (listed, path) = ask(&mut volume, name);
            assert_eq!(listed, path);
        }
        assert_eq!(volume.listings.len(), 1);
        assert!(volume.listings[&None].names.contains(names[1].as_bytes()), "it was not listed again");
    }

    #[test]
    fn another_spelling_is_recognized_by_the_inode() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("é1"), "").unwrap();
        fs::write(temp.path().join("é2"), "").unwrap();
        let root = Root::open(temp.path()).unwrap();
        let (asked, listed) =
            (RelativePath::child(None, "É2".as_bytes()), RelativePath::child(None, "é2".as_bytes()));
        // The answer of a volume that takes both names for one.
        let there = root.cursor().stat(&listed).unwrap();
        assert_eq!(Spellings::on(&root).as_listed(&asked, there).unwrap(), listed);
    }
}
