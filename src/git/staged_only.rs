//! Keeps what the sandbox staged and the local index does not take over.
//!
//! Its blobs are objects that nothing names, so the next `git gc` would delete them. What of them is neither in a commit, nor
//! in the local index, nor the content of a file of the workspace becomes a commit without a parent below `refs/paperclip/`. It
//! has only these files, so that it is complete whatever the local repository has.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::command::{Call, Fault};
use super::refs::Oid;
use super::repository::Repository;
use super::{index, objects, packs};
use crate::error::Result;
use crate::fs::by_path;

/// How the commit is described.
const MESSAGE: &str = "What was staged in the sandbox only";

/// Finds and keeps what is only staged.
pub struct StagedOnly<'a> {
    pub repository: &'a Repository<'a>,
    /// A path for an index of our own.
    pub index: PathBuf,
}

impl StagedOnly<'_> {
    /// The entries of `left` whose content nothing else has: neither the commit that the sandbox has checked out, nor the local
    /// index, nor the file at their path. The files came before.
    pub fn find(&self, left: &[u8], commit: Option<&Oid>) -> Result<Vec<u8>, Fault> {
        let repository = self.repository;
        let mut blobs = index::new_blobs(left, &repository.index()?);
        let there = repository.types(&blobs.iter().chain(commit).cloned().collect())?;
        blobs.retain(|oid| there.get(oid).is_some_and(|kind| kind == b"blob"));
        // A partial clone may lack the trees.
        if let Some(commit) = commit.filter(|commit| there.contains_key(commit))
            && repository.place.promisor.is_none()
            && !blobs.is_empty()
        {
            match packs::blobs_of(repository, commit) {
                Ok(committed) => blobs.retain(|oid| !committed.contains(oid)),
                // Of a tree that is too large to be listed, all that is staged is kept.
                Err(Fault::Refused(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        let left = index::keepable(left, &blobs);
        if left.is_empty() {
            return Ok(left);
        }
        self.begin(&left)?;
        // Git follows no link on the way to a file, and converts line ends as in `git status`. It fails if a file differs.
        self.call()?.args(["update-index", "-q", "--refresh"]).output(repository.cancel)?;
        let other = self.call()?.args(["diff-files", "-z", "--name-only"]).run(repository.cancel)?;
        let other: BTreeSet<&[u8]> = other.split(|&byte| byte == 0).collect();
        Ok(index::without(&left, |path| !other.contains(path)))
    }

    /// Makes a commit of these entries and names it. Returns whether it did: if an earlier restore has kept the same, it stays
    /// under the name of then.
    pub fn keep(&self, left: &[u8], kept_at: &str) -> Result<bool, Fault> {
        let repository = self.repository;
        if left.is_empty() {
            return Ok(false);
        }
        self.begin(left)?;
        let tree = oid_of(&self.call()?.arg("write-tree").run(repository.cancel)?)?;
        let kept = repository.run(["for-each-ref", "--format=%(tree) %(refname)", "refs/paperclip/"])?;
        let is_kept = |line: &[u8]| line.starts_with(tree.as_str().as_bytes()) && line.ends_with(b"/index");
        if kept.split(|&byte| byte == b'\n').any(is_kept) {
            return Ok(false);
        }
        let mut call = repository.step();
        let commit =
            oid_of(&call.args(["commit-tree", "-m", MESSAGE, tree.as_str()]).run(repository.cancel)?)?;
        let mut call = repository.step();
        call.args(["update-ref", "-m", "restore: from the sandbox", kept_at, commit.as_str()]);
        call.run(repository.cancel)?;
        // A `git gc` that began before may have deleted what was made here since.
        let (tips, none) = (BTreeSet::from([commit]), BTreeSet::new());
        let complete =
            objects::connect(&mut repository.call(), Some(repository.place), &tips, &none, repository.cancel);
        if complete.is_err() {
            repository.step().args(["update-ref", "-d", kept_at]).run(repository.cancel)?;
        }
        complete.map(|()| true)
    }

    /// Makes our own index, of these entries alone.
    fn begin(&self, entries: &[u8]) -> Result<(), Fault> {
        self.clear()?;
        let mut call = self.call()?;
        call.args(["update-index", "-z", "--index-info"]).input(entries).run(self.repository.cancel)?;
        Ok(())
    }

    /// A call of git with our own index, which runs no filter.
    fn call(&self) -> Result<Call<'_>, Fault> {
        let mut call = self.repository.index_step()?;
        call.env("GIT_INDEX_FILE", &self.index);
        Ok(call)
    }

    /// Removes our own index.
    pub fn clear(&self) -> Result<()> {
        if by_path::exists(&self.index) { by_path::remove_file(&self.index) } else { Ok(()) }
    }
}

fn oid_of(output: &[u8]) -> Result<Oid, Fault> {
    let oid = Oid::parse(output.trim_ascii_end());
    oid.ok_or_else(|| Fault::Refused("git named no object that it made".to_owned()))
}
