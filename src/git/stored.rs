//! Finds out whether a local repository has stored a fixture of a repository.
//!
//! That is what a configuration or a hook would make one that runs it: a `HEAD` that git may accept, one of any content beside another
//! part of a repository, or objects and references.
//!
//! What is stored may be written into any folder at any time: a person checks out an old commit, the tree of a tag, or a stash that
//! only an operation in progress names; a merge follows renamed folders; a filter decrypts it. So neither the path nor the
//! reference counts: every tree in the store of objects is read, and the index of each worktree. See [`obeyed`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::around::{checkouts, enclosing};
use super::command::{Call, Fault, Git};
use super::export::Bases;
use super::index;
use super::obeyed::{self, Part, Parts};
use super::recognise::{in_checkout, inner};
use super::refs::Oid;
use super::repository::{LIST_INDEX, Place, lines, worktrees};
use super::search::{Search, accepts};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::{Kind, Root, by_path};

/// What a restore knows of that: git reads whole repositories for it, so it is asked at most once, and only if it matters.
#[derive(Debug, Default)]
pub struct Known(OnceLock<bool>);

impl Known {
    /// Whether a repository of a workspace has stored a fixture, or the one around it.
    pub fn has_fixture(&self, git: &Git, workspace: &Path, bases: &Bases, cancel: &Cancel) -> Result<bool> {
        if let Some(known) = self.0.get() {
            return Ok(*known);
        }
        let places = bases.values().filter_map(|base| base.place.as_ref()).filter(|place| place.is_there());
        let mut repositories: BTreeSet<PathBuf> = places.map(|place| place.common_dir.clone()).collect();
        // The repository of the workspace may not have been uploaded, and it may be in the checkout of another one.
        for folder in [Some(workspace), workspace.parent()].into_iter().flatten() {
            if let Some(around) = enclosing(git, folder, cancel)? {
                repositories.insert(around.common_dir);
            }
        }
        let mut has_one = false;
        for common in repositories {
            has_one = match has_fixture(git, &common, cancel) {
                Ok(found) => found,
                // Git may refuse the repository now and obey it later.
                Err(fault) => fault.without_answer().map_or(Ok(true), Err)?,
            };
            if has_one {
                break;
            }
        }
        Ok(*self.0.get_or_init(|| has_one))
    }
}

/// Whether a repository has stored a fixture, by its directory with objects and references.
fn has_fixture(git: &Git, common: &Path, cancel: &Cancel) -> Result<bool, Fault> {
    let search = Search { git, repository: common, cancel };
    // A partial clone without trees gets them as they are needed.
    let filters = ["config", "--get-regexp", r"^remote\..*\.partialclonefilter$"];
    let filters = git.call(common).args(filters).answer(cancel)?.stdout;
    let lacks_trees = |line: &[u8]| {
        let filter = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
        !filter.is_empty() && !filter.starts_with(b"blob:")
    };
    if filters.split(|&byte| byte == b'\n').any(lacks_trees) {
        return Ok(true);
    }
    let mut call = git.call(common);
    let listed = call.args(["cat-file", "--batch-all-objects", "--unordered"]);
    listed.arg("--batch-check=%(objecttype) %(objectname)");
    let trees = names_in(listed, |line| line.strip_prefix(b"tree "), cancel)?;
    if search.is_fixture_in(&trees)? {
        return Ok(true);
    }
    for git_dir in worktrees(common) {
        let index = git_dir.join("index");
        if by_path::exists(&index) {
            let list = git.call(common).env("GIT_INDEX_FILE", index).args(LIST_INDEX).run(cancel)?;
            if search.is_fixture_in_index(&list)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The checkouts of the other worktrees of a repository, as far as they are there.
#[must_use]
pub fn other_checkouts(place: &Place) -> Vec<Root> {
    let own = by_path::resolve(&place.checkout).ok();
    checkouts(&place.common_dir)
        .filter(|checkout| Some(checkout) != own.as_ref())
        .filter_map(|checkout| Root::open(&checkout).ok())
        .collect()
}

/// The parts of a repository that any commit in the local histories has had in these folders of a workspace. All of them where git
/// cannot tell.
pub fn parts_in_histories(
    git: &Git,
    bases: &Bases,
    folders: &BTreeSet<Vec<u8>>,
    cancel: &Cancel,
) -> Result<BTreeMap<Vec<u8>, Parts>> {
    let mut all: BTreeMap<Vec<u8>, Parts> = BTreeMap::new();
    for (dot_git, base) in bases {
        let Some(place) = base.place.as_ref().filter(|place| place.is_there()) else { continue };
        let checkout = dot_git.parent();
        let inner = folders.iter().filter_map(|folder| inner(checkout.as_ref(), folder));
        let search = Search { git, repository: &place.git_dir, cancel };
        let inner: BTreeSet<&[u8]> = inner.collect();
        let found = search.parts_in_history(None, &inner).or_else(|fault| {
            let unknown = || Ok(inner.iter().map(|folder| (folder.to_vec(), Parts::all())).collect());
            fault.without_answer().map_or_else(unknown, Err)
        })?;
        for (folder, parts) in found {
            if let Ok(folder) = in_checkout(checkout.as_ref(), &folder) {
                let folder = folder.map_or_else(Vec::new, |folder| folder.as_bytes().to_vec());
                let known = all.entry(folder).or_default();
                *known = known.or(parts);
            }
        }
    }
    Ok(all)
}

/// What is before the first space of a line.
fn before_space(line: &[u8]) -> Option<&[u8]> {
    line.iter().position(|&byte| byte == b' ').map(|end| &line[..end])
}

/// The names of objects in the lines that a call prints.
fn names_in(
    call: &mut Call<'_>,
    name_in: fn(&[u8]) -> Option<&[u8]>,
    cancel: &Cancel,
) -> Result<Vec<Oid>, Fault> {
    let (mut names, mut rest) = (Vec::new(), Vec::new());
    let mut take = |piece: &[u8]| {
        rest.extend_from_slice(piece);
        let end = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines = rest[..end].split(|&byte| byte == b'\n');
        names.extend(lines.filter_map(|line| name_in(line).and_then(Oid::parse)));
        rest.drain(..end);
        true
    };
    call.pipe_to(&mut take, cancel)?;
    Ok(names)
}

impl Search<'_> {
    /// Whether a tree has a fixture that some commits reach.
    pub fn is_fixture_below(&self, tips: &BTreeSet<Oid>) -> Result<bool, Fault> {
        if tips.is_empty() {
            return Ok(false);
        }
        let mut call = self.git.call(self.repository);
        let listed = call.args(["rev-list", "--objects", "--filter=blob:none", "--stdin"]);
        listed.input(lines(tips.iter().map(Oid::as_str)));
        // Beside a commit there is no path. (Beside a tag there is its name: it is skipped when it is read.)
        let trees = names_in(listed, before_space, self.cancel)?;
        self.is_fixture_in(&trees)
    }

    fn is_fixture_in_index(&self, list: &[u8]) -> Result<bool, Fault> {
        let mut heads = Heads::default();
        for (_, kind, oid) in index::entries_at(list, |path| obeyed::split(path).1 == obeyed::HEAD) {
            heads.add(kind, oid);
        }
        self.is_any_accepted(&heads)
    }

    fn is_fixture_in(&self, trees: &[Oid]) -> Result<bool, Fault> {
        if trees.is_empty() {
            return Ok(false);
        }
        let mut found = Found::default();
        let (mut rest, mut is_sound) = (Vec::new(), true);
        let mut take = |piece: &[u8]| {
            rest.extend_from_slice(piece);
            let mut begin = 0;
            while let Some(record) = Record::first(&rest[begin..]) {
                if record.is_tree {
                    is_sound &= found.add(record.content, record.name.len() / 2);
                }
                begin += record.length;
            }
            rest.drain(..begin);
            is_sound && !found.is_fixture
        };
        let asked = lines(trees.iter().map(Oid::as_str));
        self.git
            .call(self.repository)
            .args(["cat-file", "--batch"])
            .input(asked)
            .pipe_to(&mut take, self.cancel)?;
        // What git stores is well-formed. If this is not, it is not known what it has.
        Ok(!is_sound || found.is_fixture || self.is_any_accepted(&found.heads)?)
    }

    /// Whether git may accept one of these.
    fn is_any_accepted(&self, heads: &Heads) -> Result<bool, Fault> {
        let contents = self.contents(&heads.files.union(&heads.links).cloned().collect())?;
        let is_accepted = |oids: &BTreeSet<Oid>, kind| oids.iter().any(|oid| accepts(&contents, kind, oid));
        Ok(is_accepted(&heads.files, Kind::File) || is_accepted(&heads.links, Kind::Symlink))
    }
}

/// The blobs that are named `HEAD`.
#[derive(Default)]
struct Heads {
    files: BTreeSet<Oid>,
    links: BTreeSet<Oid>,
}

impl Heads {
    fn add(&mut self, kind: Kind, blob: Oid) {
        match kind {
            Kind::File => self.files.insert(blob),
            Kind::Symlink => self.links.insert(blob),
            Kind::Folder | Kind::Other => false,
        };
    }
}

/// What `git cat-file --batch` prints of an object.
struct Record<'a> {
    name: &'a [u8],
    is_tree: bool,
    content: &'a [u8],
    length: usize,
}

impl<'a> Record<'a> {
    /// The first record, if it is whole. Of an object that is missing there is a line without its type and size.
    fn first(output: &'a [u8]) -> Option<Self> {
        let end = output.iter().position(|&byte| byte == b'\n')?;
        let mut fields = output[..end].split(|&byte| byte == b' ');
        let (name, kind) = (fields.next()?, fields.next().unwrap_or_default());
        let size = fields.next().and_then(|size| std::str::from_utf8(size).ok()?.parse::<usize>().ok());
        let Some(size) = size else {
            return Some(Self { name, is_tree: false, content: &[], length: end + 1 });
        };
        // A line break follows.
        let content = output.get(end + 1..end + 2 + size)?;
        Some(Self { name, is_tree: kind == b"tree", content: &content[..size], length: end + 2 + size })
    }
}

/// The most bytes of a name that counts.
const LONGEST: usize = b"commondir".len();

/// What was found in trees.
#[derive(Default)]
struct Found {
    is_fixture: bool,
    heads: Heads,
}

impl Found {
    /// Reads a tree, of which an object's name has so many bytes. Returns whether it is well-formed.
    fn add(&mut self, tree: &[u8], binary: usize) -> bool {
        let (mut rest, mut parts, mut has_head) = (tree, Parts::default(), false);
        let mut has_part = false;
        while !rest.is_empty() {
            let Some((mode, name, oid)) = entry(rest, binary) else { return false };
            rest = &rest[mode.len() + 1 + name.len() + 1 + binary..];
            if name.len() > LONGEST {
                continue;
            }
            if name == obeyed::HEAD && !matches!(mode, b"40000" | b"160000") {
                has_head = true;
                if let Some(blob) = Oid::from_binary(oid) {
                    self.heads.add(index::kind_of(mode), blob);
                }
            }
            for (_, part) in obeyed::parts(name).filter(|(_, part)| *part != Part::Run) {
                has_part = true;
                parts.add(part);
            }
        }
        // A filter may make anything of the content of a `HEAD`.
        self.is_fixture |= (has_head && has_part) || parts.stores();
        true
    }
}

/// The first entry of a tree: its mode, its name, and its object.
fn entry(tree: &[u8], binary: usize) -> Option<(&[u8], &[u8], &[u8])> {
    let space = tree.iter().position(|&byte| byte == b' ')?;
    let end = space + tree[space..].iter().position(|&byte| byte == 0)?;
    let oid = tree.get(end + 1..end + 1 + binary)?;
    Some((&tree[..space], &tree[space + 1..end], oid))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree, in the form in which git stores it.
    fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
        let entry =
            |&(mode, name): &(&str, &str)| [mode.as_bytes(), b" ", name.as_bytes(), b"\0", &[7; 20]].concat();
        entries.iter().flat_map(entry).collect()
    }

    #[test]
    fn a_tree_tells_whether_its_folder_would_be_a_fixture() {
        const FILE: &str = "100644";
        const FOLDER: &str = "40000";
        for (entries, expected, heads) in [
            (&[(FILE, "HEAD")][..], false, 1),
            (&[("120000", "HEAD")], false, 1),
            (&[(FILE, "HEAD"), (FOLDER, "objects")], true, 1),
            (&[("120000", "HEAD"), (FOLDER, "Refs")], true, 1),
            (&[(FILE, "HEAD"), ("160000", "refs")], true, 1),
            (&[(FILE, "HEAD"), (FILE, "commondir")], true, 1),
            (&[(FILE, "HEAD"), (FILE, "config")], false, 1),
            (&[(FOLDER, "HEAD"), (FOLDER, "objects")], false, 0),
            (&[(FILE, "head"), (FOLDER, "objects")], false, 0),
            (&[(FOLDER, "objects"), (FOLDER, "refs")], true, 0),
            (&[(FILE, "config"), (FOLDER, "hooks"), (FOLDER, "objects")], false, 0),
        ] {
            let mut found = Found::default();
            assert!(found.add(&tree(entries), 20), "{entries:?}");
            let counted = found.heads.files.len() + found.heads.links.len();
            assert_eq!((found.is_fixture, counted), (expected, heads), "{entries:?}");
        }
        for malformed in [&b"100644"[..], b"100644 HEAD", b"100644 HEAD\0\x07"] {
            assert!(!Found::default().add(malformed, 20));
        }
    }

    #[test]
    fn records_are_read_from_pieces() {
        let output = b"aa tree 3\nx\ny\nbb missing\ncc blob 0\n\n";
        let first = Record::first(output).unwrap();
        assert_eq!((first.name, first.is_tree, first.content), (&b"aa"[..], true, &b"x\ny"[..]));
        let second = Record::first(&output[first.length..]).unwrap();
        assert_eq!((second.name, second.is_tree), (&b"bb"[..], false));
        let third = Record::first(&output[first.length + second.length..]).unwrap();
        assert_eq!((third.is_tree, third.length), (false, b"cc blob 0\n\n".len()));
        for end in 0..first.length {
            assert!(Record::first(&output[..end]).is_none(), "{end}");
        }
    }
}
