//! Searches new commits and the index for what would make git obey the sandbox: see [`obeyed`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::command::{Fault, Git};
use super::held::has_head;
use super::index;
use super::obeyed::{self, Change};
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
}

impl Default for Obeying {
    fn default() -> Self {
        Self { tips: BTreeSet::new(), index: false, reason: OBEYED }
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
        Ok(self.run((tips, &kinds), (b"", b""), here, &mut local)?.tips)
    }

    /// Finds which of the `tips` have something new in which git would obey the sandbox once it is checked out, in any new
    /// commit, and whether its index does: see [`obeyed`]. `here` are the commits of local references.
    pub fn run(
        &self,
        (tips, kinds): (&BTreeSet<Oid>, &Types),
        (theirs, base): (&[u8], &[u8]),
        here: &BTreeSet<Oid>,
        local: &mut dyn FnMut(&[u8]) -> Result<bool>,
    ) -> Result<Obeying, Fault> {
        let new: BTreeSet<Oid> = tips.difference(here).cloned().collect();
        let mut log = Vec::new();
        if !new.is_empty() {
            let mut call = self.git.call(self.repository);
            call.bounded();
            call.args(["log", "--stdin", "-c", "--raw", "-z", "--no-renames", "--no-abbrev", "--format=%H"]);
            let output = call.input(between(&new, here)).output(self.cancel)?;
            if output.status != Some(0) {
                return Ok(Obeying { tips: new, index: false, reason: UNSEARCHED });
            }
            log = output.stdout;
        }
        let malformed = || Fault::Refused("git log listed what is malformed".to_owned());
        let mut changes = obeyed::changes_in_log(&log).ok_or_else(malformed)?;
        let trees =
            self.trees(new.iter().filter(|oid| kinds.get(*oid).is_some_and(|kind| kind != b"commit")))?;
        for (tip, list) in &trees {
            changes.extend(index::entries_at(list, |_| true).filter_map(Change::of(Some(tip))));
        }
        let staged = index::beyond(theirs, base);
        changes.extend(index::entries_at(&staged, |_| true).filter_map(Change::of(None)));
        if changes.is_empty() {
            return Ok(Obeying::default());
        }
        let is_head = |path: &[u8]| obeyed::is_head_name(obeyed::split(path).1);
        // Every HEAD in question: what is new, and what is beside something new that git would obey.
        let folders: BTreeSet<&[u8]> =
            changes.iter().flat_map(|change| obeyed::folders_obeying(change.path)).collect();
        let in_indexes = [theirs, base].into_iter().flat_map(|list| index::entries_at(list, is_head));
        let mut beside: Vec<(&[u8], bool, Oid)> =
            in_indexes.filter(|(path, ..)| folders.contains(obeyed::split(path).0)).collect();
        let in_trees = self.heads_in(&new, &folders)?;
        beside.extend(in_trees.iter().map(|(folder, oid)| (folder.as_slice(), false, oid.clone())));
        let heads = changes.iter().filter(|change| is_head(change.path)).map(|change| &change.content);
        let blobs = heads.chain(beside.iter().map(|(.., oid)| oid)).cloned().collect();
        let contents = self.contents(&blobs)?;
        // What cannot be read counts as a HEAD.
        let is_one = |is_link: bool, oid: &Oid| {
            contents.get(oid).is_none_or(|content| {
                (is_link && obeyed::is_head_link(content)) || (!is_link && obeyed::may_become_head(content))
            })
        };
        let mut with_head: BTreeSet<&[u8]> = beside
            .iter()
            .filter(|(_, is_link, oid)| is_one(*is_link, oid) || is_one(true, oid))
            .map(|(path, ..)| obeyed::split(path).0)
            .collect();
        for folder in &folders {
            // Git is asked for such objects line by line.
            if folder.contains(&b'\n') || local(folder)? {
                with_head.insert(folder);
            }
        }
        let mut obeying = Obeying::default();
        let mut commits: BTreeSet<&Oid> = BTreeSet::new();
        for change in &changes {
            let is_new_head = is_head(change.path)
                && is_one(change.is_link, &change.content)
                && !local(obeyed::split(change.path).0)?;
            if is_new_head || obeyed::folders_obeying(change.path).any(|folder| with_head.contains(folder)) {
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

    /// The files of those objects that are trees, or tags of one: no log lists them.
    fn trees<'o>(&self, oids: impl Iterator<Item = &'o Oid>) -> Result<Vec<(Oid, Vec<u8>)>, Fault> {
        let oids: Vec<&Oid> = oids.collect();
        if oids.is_empty() {
            return Ok(Vec::new());
        }
        let asked = oids.iter().flat_map(|oid| format!("{oid}^{{}}\n").into_bytes()).collect::<Vec<u8>>();
        let mut call = self.git.call(self.repository);
        let kinds = call.args(["cat-file", "--batch-check=%(objecttype)"]).input(asked).run(self.cancel)?;
        let mut found = Vec::new();
        for (oid, _) in
            oids.into_iter().zip(kinds.split(|&byte| byte == b'\n')).filter(|(_, kind)| kind == b"tree")
        {
            let mut call = self.git.call(self.repository);
            let list =
                call.bounded().args(["ls-tree", "-r", "-z", "--full-tree", oid.as_str()]).run(self.cancel)?;
            found.push((oid.clone(), list));
        }
        Ok(found)
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

/// Whether a folder of a checkout, which lies in a folder of the workspace, has a `HEAD` locally that git accepts.
pub fn local_head(cursor: &mut Cursor<'_>, checkout: Option<&RelativePath>, folder: &[u8]) -> Result<bool> {
    let above = checkout.map_or_else(Vec::new, |checkout| [checkout.as_bytes(), b"/"].concat());
    // A directory that cannot have that name here has no HEAD either.
    RelativePath::parse(&[&above, folder].concat())
        .map_or(Ok(false), |folder| has_head(cursor, folder.as_ref()))
}
