//! Finds out whether a local repository has stored a part of another one anywhere: a fixture, or what git would run in one.
//!
//! What is stored may be written into any folder at any time: a person checks out an old commit, the tree of a tag, or a stash that
//! only an operation in progress names; a merge follows renamed folders; a filter decrypts it. So neither the path nor the
//! reference counts: every tree in the store of objects is read, the index of each worktree, and the files of the other
//! worktrees, in which the sandbox's branches may be checked out. See [`obeyed`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::command::{Call, Fault, Git};
use super::export::Bases;
use super::index;
use super::named::enclosing;
use super::obeyed::{self, Part, Parts, Stored};
use super::recognise::{bare_folders, is_git_name};
use super::refs::Oid;
use super::repository::{LIST_INDEX, lines};
use super::search::{Search, accepts};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{Kind, Root, by_path};
use crate::path::path_from;
use crate::tree::filter::Filter;
use crate::tree::scan::scan;

/// What a restore knows of that: git reads whole repositories for it, so it is asked at most once, and only if it matters.
#[derive(Debug, Default)]
pub struct Known(OnceLock<Stored>);

impl Known {
    /// What the repositories of a workspace have stored, and the one around it.
    pub fn of_workspace(
        &self,
        git: &Git,
        workspace: &Path,
        bases: &Bases,
        cancel: &Cancel,
    ) -> Result<Stored> {
        if let Some(known) = self.0.get() {
            return Ok(*known);
        }
        let places = bases.values().filter_map(|base| base.place.as_ref()).filter(|place| place.is_there());
        let mut repositories: BTreeMap<PathBuf, PathBuf> =
            places.map(|place| (place.common_dir.clone(), place.checkout.clone())).collect();
        if let Some(above) = workspace.parent()
            && let Some(around) = enclosing(git, above, cancel)?
        {
            repositories.entry(around.common_dir).or_insert(around.checkout);
        }
        let mut stored = Stored::default();
        for (common, checkout) in repositories {
            match (Repository { git, common, checkout, cancel }).stored() {
                Ok(found) => stored.add(found),
                Err(Fault::Refused(_)) => stored = Stored::UNKNOWN,
                Err(Fault::Error(error)) => return Err(error),
            }
        }
        Ok(*self.0.get_or_init(|| stored))
    }
}

/// A repository that is asked.
struct Repository<'a> {
    git: &'a Git,
    /// Its directory with objects and references.
    common: PathBuf,
    /// The checkout that is the workspace, or is in or around it. What its folders have is looked at in each of them.
    checkout: PathBuf,
    cancel: &'a Cancel,
}

impl Repository<'_> {
    fn stored(&self) -> Result<Stored, Fault> {
        let Self { git, common, cancel, .. } = self;
        let search = Search { git, repository: common, cancel };
        let mut call = git.call(common);
        let listed = call.args(["cat-file", "--batch-all-objects", "--unordered"]);
        listed.arg("--batch-check=%(objecttype) %(objectname)");
        let trees = names_in(listed, |line| line.strip_prefix(b"tree "), cancel)?;
        let mut stored = search.stored_in(&trees)?;
        let own = by_path::resolve(&self.checkout)?;
        for (git_dir, checkout) in self.worktrees()? {
            let index = git_dir.join("index");
            if by_path::exists(&index) {
                let list = git.call(common).env("GIT_INDEX_FILE", index).args(LIST_INDEX).run(cancel)?;
                stored.add(search.stored_in_index(&list)?);
            }
            stored.fixture |= checkout != own && has_fixture(&checkout, cancel)?;
        }
        Ok(stored)
    }

    /// The worktrees of the repository: their git directories and checkouts.
    fn worktrees(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        let main = self.common.parent().filter(|_| self.common.ends_with(".git")).unwrap_or(&self.checkout);
        let mut found = vec![(self.common.clone(), by_path::resolve(main)?)];
        let linked = self.common.join("worktrees");
        let names = if by_path::exists(&linked) { by_path::list(&linked)? } else { Vec::new() };
        for name in names {
            let git_dir = linked.join(name);
            let file = by_path::read(&git_dir.join("gitdir"))?.unwrap_or_default();
            // (The path may be relative to the git directory.)
            let dot_git = git_dir.join(path_from(file.trim_ascii_end()));
            let checkout = dot_git.parent().map(by_path::resolve).and_then(Result::ok);
            // One that is not there has no files.
            found.extend(checkout.map(|checkout| (git_dir, checkout)));
        }
        Ok(found)
    }
}

/// Whether a checkout has a bare repository among its files. One that cannot be searched may have.
fn has_fixture(checkout: &Path, cancel: &Cancel) -> Result<bool> {
    let filter = Filter::by_name(|path| is_git_name(path.name().as_encoded_bytes()));
    let found = match Root::open(checkout).and_then(|root| scan(&root, &filter, cancel)) {
        Err(Error::Aborted) => return Err(Error::Aborted),
        Err(_) => return Ok(true),
        Ok(found) => found,
    };
    Ok(!bare_folders(found.iter().map(|found| (&found.path, found.meta.kind))).is_empty())
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
    /// What the trees have that some commits reach.
    pub fn stored_by(&self, tips: &BTreeSet<Oid>) -> Result<Stored, Fault> {
        if tips.is_empty() {
            return Ok(Stored::default());
        }
        let mut call = self.git.call(self.repository);
        let listed = call.args(["rev-list", "--objects", "--filter=blob:none", "--stdin"]);
        listed.input(lines(tips.iter().map(Oid::as_str)));
        // Beside a commit there is no path. (Beside a tag there is its name: it is skipped when it is read.)
        let trees = names_in(listed, before_space, self.cancel)?;
        self.stored_in(&trees)
    }

    /// What an index has.
    fn stored_in_index(&self, list: &[u8]) -> Result<Stored, Fault> {
        let run = index::paths(list).iter().any(|path| obeyed::folders_running(path).next().is_some());
        let mut heads = Heads::default();
        for (_, kind, oid) in index::entries_at(list, |path| obeyed::split(path).1 == obeyed::HEAD) {
            heads.add(kind, oid);
        }
        Ok(Stored { fixture: self.is_any_accepted(&heads)?, run })
    }

    /// What trees have.
    fn stored_in(&self, trees: &[Oid]) -> Result<Stored, Fault> {
        if trees.is_empty() {
            return Ok(Stored::default());
        }
        let mut found = Found::default();
        let (mut rest, mut is_sound) = (Vec::new(), true);
        let mut take = |piece: &[u8]| {
            rest.extend_from_slice(piece);
            let mut begin = 0;
            while let Some(record) = Record::first(&rest[begin..]) {
                if record.is_tree {
                    is_sound &= found.add(record.name, record.content);
                }
                begin += record.length;
            }
            rest.drain(..begin);
            is_sound && !(found.stored.fixture && found.stored.run)
        };
        let asked = lines(trees.iter().map(Oid::as_str));
        self.git
            .call(self.repository)
            .args(["cat-file", "--batch"])
            .input(asked)
            .pipe_to(&mut take, self.cancel)?;
        if !is_sound {
            return Ok(Stored::UNKNOWN);
        }
        found.stored.run |= !found.named_hooks.is_disjoint(&found.having_hooks);
        found.stored.fixture |= self.is_any_accepted(&found.heads)?;
        Ok(found.stored)
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

/// The most bytes of a name that counts (`reference-transaction`), and those of the only one that has a dot (`config.worktree`).
const LONGEST: usize = 21;
const LONGEST_WITH_DOT: usize = 15;

/// What was found in trees.
#[derive(Default)]
struct Found {
    stored: Stored,
    heads: Heads,
    /// The trees that are named `hooks`.
    named_hooks: HashSet<Oid>,
    /// The trees that have a file with the name of a hook.
    having_hooks: HashSet<Oid>,
}

impl Found {
    /// Reads a tree. Returns whether it is well-formed.
    fn add(&mut self, tree: &[u8], content: &[u8]) -> bool {
        let binary = tree.len() / 2;
        let (mut rest, mut stores) = (content, Parts::default());
        let (mut has_head, mut has_part, mut has_hook) = (false, false, false);
        while !rest.is_empty() {
            let Some((mode, name, oid)) = entry(rest, binary) else { return false };
            rest = &rest[mode.len() + 1 + name.len() + 1 + binary..];
            // Most names are too long, or have an extension.
            if name.len() > LONGEST || (name.contains(&b'.') && name.len() != LONGEST_WITH_DOT) {
                continue;
            }
            let kind = if mode == b"40000" { Kind::Folder } else { index::kind_of(mode) };
            if name == obeyed::HEAD && kind != Kind::Folder {
                has_head = true;
                if let Some(blob) = Oid::from_binary(oid) {
                    self.heads.add(kind, blob);
                }
            }
            for (_, part) in obeyed::parts(name) {
                if part == Part::Run && kind == Kind::Folder {
                    continue;
                }
                has_part |= part != Part::Run;
                stores.add(part);
            }
            if kind == Kind::Folder && name.eq_ignore_ascii_case(b"hooks") {
                self.named_hooks.extend(Oid::from_binary(oid));
            }
            has_hook |= kind != Kind::Folder && obeyed::is_hook(name);
        }
        if has_hook {
            self.having_hooks.extend(Oid::parse(tree));
        }
        self.stored.run |= stores.runs();
        // A filter may make anything of the content of a `HEAD`.
        self.stored.fixture |= (has_head && has_part) || stores.stores();
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
    fn a_tree_tells_what_its_folder_would_have() {
        const FILE: &str = "100644";
        const FOLDER: &str = "40000";
        let name = "a".repeat(40);
        let nothing = Stored::default();
        let (fixture, run) = (Stored { fixture: true, ..nothing }, Stored { run: true, ..nothing });
        for (entries, expected, heads) in [
            (&[(FILE, "HEAD")][..], nothing, 1),
            (&[(FILE, "HEAD"), (FOLDER, "objects")], fixture, 1),
            (&[("120000", "HEAD"), (FOLDER, "Refs")], fixture, 1),
            (&[(FILE, "HEAD"), ("160000", "refs")], fixture, 1),
            (&[(FILE, "HEAD"), (FILE, "commondir")], fixture, 1),
            (&[(FOLDER, "HEAD"), (FOLDER, "objects")], nothing, 0),
            (&[(FILE, "head"), (FOLDER, "objects")], nothing, 0),
            (&[(FOLDER, "objects"), (FOLDER, "refs")], fixture, 0),
            (&[(FILE, "config")], run, 0),
            (&[("120000", "Config")], run, 0),
            (&[(FILE, "config.worktree")], run, 0),
            (&[("120000", "hooks")], run, 0),
            (&[(FOLDER, "config"), (FOLDER, "hooks"), (FILE, "config.json")], nothing, 0),
            (&[("100755", "pre-commit")], nothing, 0),
        ] {
            let mut found = Found::default();
            assert!(found.add(name.as_bytes(), &tree(entries)), "{entries:?}");
            let counted = found.heads.files.len() + found.heads.links.len();
            assert_eq!((found.stored, counted), (expected, heads), "{entries:?}");
        }
        let mut found = Found::default();
        assert!(found.add("07".repeat(20).as_bytes(), &tree(&[("100755", "reference-transaction")])));
        assert!(found.named_hooks.is_disjoint(&found.having_hooks));
        assert!(found.add(name.as_bytes(), &tree(&[(FOLDER, "hooks")])));
        assert!(!found.named_hooks.is_disjoint(&found.having_hooks));
        for malformed in [&b"100644"[..], b"100644 HEAD", b"100644 HEAD\0\x07"] {
            assert!(!Found::default().add(name.as_bytes(), malformed));
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
