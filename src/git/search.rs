//! Searches new commits and the index for what would make git obey the sandbox: see [`obeyed`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::command::{Fault, Git};
use super::held;
use super::index;
use super::obeyed::{self, Change, ChangeKind};
use super::objects::between;
use super::refs::{OBEYED, Oid};
use super::repository::{Types, lines, types};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::{Cursor, Root};
use crate::path::RelativePath;

/// A repository that has what is to be searched. It is one of ours: the sandbox configured nothing in it.
pub struct Search<'a> {
    /// The local git.
    pub git: &'a Git,
    /// Its git directory.
    pub repository: &'a Path,
    /// Ends a search.
    pub cancel: &'a Cancel,
}

/// What the sandbox has in which git would obey it.
#[derive(Debug)]
pub struct Obeying {
    /// Commits, and what else references name.
    pub tips: BTreeSet<Oid>,
    /// Whether its index stages something like that.
    pub index: bool,
    /// Why these are held back.
    pub reason: &'static str,
    /// The paths that new commits or the index change.
    pub changed: BTreeSet<Vec<u8>>,
}

impl Default for Obeying {
    fn default() -> Self {
        Self { tips: BTreeSet::new(), index: false, reason: OBEYED, changed: BTreeSet::new() }
    }
}

/// The reason for holding back commits that cannot be searched.
const UNSEARCHED: &str = "it has more files than can be searched for what git would obey";

impl Search<'_> {
    /// Searches what is new of these objects, which references name, for what git would obey in a checkout. Returns those that
    /// have something.
    pub fn among(
        &self,
        tips: &BTreeSet<Oid>,
        here: &BTreeSet<Oid>,
        checkout: &Root,
    ) -> Result<BTreeSet<Oid>, Fault> {
        let kinds = types(&mut self.git.call(self.repository), tips, self.cancel)?;
        let mut cursor = checkout.cursor();
        let mut local = |folder: &[u8]| local_head(&mut cursor, None, folder);
        let (mut submodule, mut tracked) = (|_: &[u8], _: &Oid| Ok(false), || Ok(Vec::new()));
        let found = self.run((tips, &kinds), (b"", b""), here, &mut local, &mut submodule, &mut tracked)?;
        Ok(found.tips)
    }

    /// Finds which of the `tips` have something new in which git would obey the sandbox once it is checked out, in any new
    /// commit, and whether its index does: see [`obeyed`]. `here` are the commits of local references. `local` tells whether a
    /// local folder has a `HEAD` and git accepts it, and `submodule` whether a commit of the submodule at a path is held back: git would check it
    /// out for a commit that names it. `tracked` lists the local index.
    pub fn run(
        &self,
        (tips, kinds): (&BTreeSet<Oid>, &Types),
        (theirs, base): (&[u8], &[u8]),
        here: &BTreeSet<Oid>,
        local: &mut dyn FnMut(&[u8]) -> Result<Option<bool>>,
        submodule: &mut dyn FnMut(&[u8], &Oid) -> Result<bool, Fault>,
        tracked: &mut dyn FnMut() -> Result<Vec<u8>, Fault>,
    ) -> Result<Obeying, Fault> {
        let new: BTreeSet<Oid> = tips.difference(here).cloned().collect();
        let mut log = Vec::new();
        if !new.is_empty() {
            let mut call = self.git.call(self.repository);
            call.bounded();
            call.args(["log", "--stdin", "-c", "--raw", "-z", "--no-renames", "--no-abbrev", "--format=%H"]);
            let output = call.input(between(&new, here)).output(self.cancel)?;
            if output.status != Some(0) {
                return Ok(Obeying { tips: new, reason: UNSEARCHED, ..Obeying::default() });
            }
            log = output.stdout;
        }
        let malformed = || Fault::Refused("git log listed what is malformed".to_owned());
        let mut changes = obeyed::changes_in_log(&log).ok_or_else(malformed)?;
        let others = new.iter().filter(|oid| kinds.get(*oid).is_some_and(|kind| kind != b"commit"));
        let Some(trees) = self.trees(others)? else {
            return Ok(Obeying { tips: new, reason: UNSEARCHED, ..Obeying::default() });
        };
        for (tip, list) in &trees {
            changes.extend(index::entries_at(list, |_| true).filter_map(Change::of(Some(tip))));
        }
        let staged = index::beyond(theirs, base);
        changes.extend(index::entries_at(&staged, |_| true).filter_map(Change::of(None)));
        let changed = obeyed::paths_in_log(&log).chain(index::paths(&staged)).map(<[u8]>::to_vec).collect();
        let mut obeying = Obeying { changed, ..Obeying::default() };
        if changes.is_empty() {
            return Ok(obeying);
        }
        let is_head = |path: &[u8]| obeyed::is_head_name(obeyed::split(path).1);
        // Every HEAD in question: what is new, and what is beside something new that git would obey.
        let folders: BTreeSet<&[u8]> =
            changes.iter().flat_map(|change| obeyed::folders_obeying(change.path)).collect();
        let tracked = tracked()?;
        let in_indexes = [theirs, &tracked].into_iter().flat_map(|list| index::entries_at(list, is_head));
        let mut beside: Vec<(&[u8], ChangeKind, Oid)> =
            in_indexes.filter(|(path, ..)| folders.contains(obeyed::split(path).0)).collect();
        let in_trees = self.heads_in(&new, &folders)?;
        beside
            .extend(in_trees.iter().map(|(folder, oid)| (folder.as_slice(), ChangeKind::File, oid.clone())));
        let heads = changes.iter().filter(|change| is_head(change.path)).map(|change| &change.content);
        let blobs = heads.chain(beside.iter().map(|(.., oid)| oid)).cloned().collect();
        let contents = self.contents(&blobs)?;
        // What cannot be read counts as a HEAD.
        let is_one = |kind: ChangeKind, oid: &Oid| {
            let accepts = |content: &Vec<u8>| match kind {
                ChangeKind::File => obeyed::may_become_head(content),
                ChangeKind::Link => obeyed::is_head_link(content),
                ChangeKind::Submodule => false,
            };
            kind != ChangeKind::Submodule && contents.get(oid).is_none_or(accepts)
        };
        let mut with_head: BTreeSet<&[u8]> = beside
            .iter()
            // (What a commit has there may be a link too.)
            .filter(|(_, kind, oid)| is_one(*kind, oid) || is_one(ChangeKind::Link, oid))
            .map(|(path, ..)| obeyed::split(path).0)
            .collect();
        for folder in &folders {
            // Git is asked for such objects line by line.
            if folder.contains(&b'\n') || local(folder)? == Some(true) {
                with_head.insert(folder);
            }
        }
        let with_tracked: BTreeSet<&[u8]> =
            index::entries_at(&tracked, is_head).map(|(path, ..)| obeyed::split(path).0).collect();
        let mut commits: BTreeSet<&Oid> = BTreeSet::new();
        for change in &changes {
            let (folder, name) = obeyed::split(change.path);
            let is_new_head = is_head(change.path)
                && change.kind != ChangeKind::Submodule
                && match local(folder)? {
                    Some(true) => false,
                    // (One that is not tracked may be the sandbox's own.)
                    _ if name == obeyed::HEAD && !with_tracked.contains(folder) => true,
                    _ => is_one(change.kind, &change.content),
                };
            let mut completes = false;
            for folder in obeyed::folders_completing(change.path) {
                let here = local(folder)?;
                completes |= here == Some(false) || (here.is_none() && with_tracked.contains(folder));
            }
            let is_held = change.kind == ChangeKind::Submodule && submodule(change.path, &change.content)?;
            if is_held
                || completes
                || is_new_head
                || obeyed::folders_obeying(change.path).any(|folder| with_head.contains(folder))
            {
                obeying.index |= change.commit.is_none();
                commits.extend(&change.commit);
            }
        }
        if commits.is_empty() {
            return Ok(obeying);
        }
        for tip in &new {
            let mut call = self.git.call(self.repository);
            let list = call
                .args(["rev-list", "--stdin"])
                .input(between(&[tip.clone()].into(), here))
                .run(self.cancel)?;
            let has_one =
                list.split(|&byte| byte == b'\n').filter_map(Oid::parse).any(|oid| commits.contains(&oid));
            if has_one || commits.contains(tip) {
                obeying.tips.insert(tip.clone());
            }
        }
        Ok(obeying)
    }

    /// The files of those objects that are trees, or tags of one: no log lists them. `None` if there are too many.
    fn trees<'o>(&self, oids: impl Iterator<Item = &'o Oid>) -> Result<Option<Vec<(Oid, Vec<u8>)>>, Fault> {
        let oids: Vec<&Oid> = oids.collect();
        if oids.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let asked = oids.iter().flat_map(|oid| format!("{oid}^{{}}\n").into_bytes()).collect::<Vec<u8>>();
        let mut call = self.git.call(self.repository);
        let kinds = call.args(["cat-file", "--batch-check=%(objecttype)"]).input(asked).run(self.cancel)?;
        let mut found = Vec::new();
        for (oid, _) in
            oids.into_iter().zip(kinds.split(|&byte| byte == b'\n')).filter(|(_, kind)| kind == b"tree")
        {
            let mut call = self.git.call(self.repository);
            call.bounded().args(["ls-tree", "-r", "-z", "--full-tree", oid.as_str()]);
            let output = call.output(self.cancel)?;
            if output.status != Some(0) {
                return Ok(None);
            }
            found.push((oid.clone(), output.stdout));
        }
        Ok(Some(found))
    }

    /// The files named `HEAD` that commits have in these folders: their paths and blobs.
    fn heads_in(
        &self,
        commits: &BTreeSet<Oid>,
        folders: &BTreeSet<&[u8]>,
    ) -> Result<Vec<(Vec<u8>, Oid)>, Fault> {
        let mut paths = Vec::new();
        let mut asked = Vec::new();
        for commit in commits {
            for folder in folders.iter().filter(|folder| !folder.contains(&b'\n')) {
                let path = obeyed::head_in(folder);
                asked.extend([commit.as_str().as_bytes(), b":", &path, b"\n"].concat());
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.git.call(self.repository);
        let list = call
            .args(["cat-file", "--batch-check=%(objecttype) %(objectname)"])
            .input(asked)
            .run(self.cancel)?;
        let answers = list.split(|&byte| byte == b'\n').zip(paths);
        Ok(answers
            .filter_map(|(line, path)| Some((path, Oid::parse(line.strip_prefix(b"blob ")?)?)))
            .collect())
    }

    /// The contents of blobs, without those that are missing or too large for what is asked of them.
    fn contents(&self, blobs: &BTreeSet<Oid>) -> Result<BTreeMap<Oid, Vec<u8>>, Fault> {
        /// A `HEAD` has a few dozen bytes.
        const LARGE: usize = 64 * 1024;
        let size = |line: &[u8]| {
            let mut fields = line.split(|&byte| byte == b' ');
            let (oid, kind, size) = (Oid::parse(fields.next()?)?, fields.next()?, fields.next()?);
            let size: usize = std::str::from_utf8(size).ok()?.parse().ok()?;
            (kind == b"blob").then_some((oid, size))
        };
        let mut contents = BTreeMap::new();
        if blobs.is_empty() {
            return Ok(contents);
        }
        let mut call = self.git.call(self.repository);
        let sizes = call
            .args(["cat-file", "--batch-check"])
            .input(lines(blobs.iter().map(Oid::as_str)))
            .run(self.cancel)?;
        let small: Vec<(Oid, usize)> =
            sizes.split(|&byte| byte == b'\n').filter_map(size).filter(|&(_, size)| size <= LARGE).collect();
        let asked = lines(small.iter().map(|(oid, _)| oid.as_str()));
        let all =
            self.git.call(self.repository).args(["cat-file", "--batch"]).input(asked).run(self.cancel)?;
        let mut rest = &all[..];
        for (oid, size) in small {
            // A line about the blob, its content, and a line break.
            let Some(begin) = rest.iter().position(|&byte| byte == b'\n').map(|end| end + 1) else { break };
            let Some(content) = rest.get(begin..begin + size) else { break };
            contents.insert(oid, content.to_vec());
            rest = rest.get(begin + size + 1..).unwrap_or_default();
        }
        Ok(contents)
    }
}

/// Whether git accepts the local `HEAD` in a folder of a checkout, which lies in a folder of the workspace. `None` if it has none.
pub fn local_head(
    cursor: &mut Cursor<'_>,
    checkout: Option<&RelativePath>,
    folder: &[u8],
) -> Result<Option<bool>> {
    let above = checkout.map_or_else(Vec::new, |checkout| [checkout.as_bytes(), b"/"].concat());
    // A directory that cannot have that name here has no HEAD either.
    let folder = RelativePath::parse(&[&above, folder].concat());
    folder.map_or(Ok(None), |folder| held::local_head(cursor, folder.as_ref()))
}
