//! One repository of the workspace: its location, and what git lists of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::{Call, Fault, Git, Output, Waiting};
use super::config::{self, Settings};
use super::index;
use super::local_refs;
use super::refs::{Head, Oid, RefName, Refs, Unreadable};
use crate::cancel::Cancel;
use crate::error::{Result, readable};
use crate::fs::host::is_root;
use crate::fs::{FileId, Root, by_path};
use crate::path::{RelativePath, control_of, octal_of, path_from};
use crate::tree::filter::Filter;
use crate::tree::scan::scan;

/// The location of a repository of the workspace, and its identity at prepare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The folder of the checkout.
    pub checkout: PathBuf,
    /// The identity of its `.git`, by which another repository in its place is noticed.
    pub id: FileId,
    /// Its git directory (for a linked worktree, the one below `worktrees/`).
    pub git_dir: PathBuf,
    /// The directory with objects and references.
    pub common_dir: PathBuf,
    /// `sha1` or `sha256`.
    pub format: String,
    /// The remote that has the objects which a partial clone lacks.
    pub promisor: Option<String>,
}

impl Place {
    /// Whether its directories exist. A `.git` that is a file may lead to nothing, and the git directory of a submodule or of a linked
    /// worktree stays when its checkout is deleted.
    #[must_use]
    pub fn is_there(&self) -> bool {
        by_path::exists(&self.checkout)
            && by_path::exists(&self.git_dir.join("HEAD"))
            && by_path::exists(&self.common_dir.join("objects"))
    }

    /// The name of a tree without entries, which every git knows.
    pub(super) fn empty_tree(&self) -> &'static str {
        let (sha1, sha256) = EMPTY_TREE;
        if self.format == "sha1" { sha1 } else { sha256 }
    }
}

/// Runs git for one repository of the workspace.
pub(super) struct Repository<'a> {
    pub git: &'a Git,
    pub place: &'a Place,
    pub cancel: &'a Cancel,
}

/// Whether a name is that of an object in a repository of that format.
#[must_use]
pub fn has_format(oid: &Oid, format: &str) -> bool {
    oid.as_str().len() == if format == "sha1" { 40 } else { 64 }
}

/// The git directories of a repository's worktrees, by the directory that they share.
#[must_use]
pub fn worktrees(common: &Path) -> Vec<PathBuf> {
    let linked = common.join("worktrees");
    // Most repositories have none, and git cannot use those that it cannot list.
    let names = by_path::list(&linked).unwrap_or_default();
    let git_dirs = names.into_iter().map(|name| linked.join(name));
    // Other tools may leave files there.
    git_dirs
        .filter(|git_dir| by_path::is_file(&git_dir.join("gitdir")))
        .chain([common.to_path_buf()])
        .collect()
}

/// The objects that local references name, if they exist.
#[derive(Default)]
pub struct Known {
    /// All of them.
    pub all: BTreeSet<Oid>,
    /// Those of references other than `refs/paperclip/…`, which have what was held back too.
    pub in_use: BTreeSet<Oid>,
}

/// How often, and how far apart, to check whether git has locked the index.
const LOCK_LOOKS: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// How often, and how far apart, to check whether another git process has released the index.
const UNLOCK_LOOKS: u32 = 50;
const UNLOCK_PAUSE: Duration = Duration::from_millis(20);

/// How often it is tried to lock an index that another git has just unlocked.
const LOCK_TRIES: usize = 5;

/// How often the lock of the index is seen, with a git that still runs, until it counts as that one's where the system does not tell. A
/// git that does not get the lock may run on, and says so only when it is to write.
const LOCK_SEEN: Option<u32> = if cfg!(target_os = "linux") { None } else { Some(100) };

/// The call that changes the index by what it reads.
const CHANGE_INDEX: [&str; 3] = ["update-index", "-z", "--index-info"];

/// The copy of an index that is being made.
pub(super) const INDEX_COPY: &str = "paperclip-unfinished-index";

/// The maximum number of paths on git's command line. For more, git lists all entries.
const STATES_BY_PATH: usize = 100;

impl Repository<'_> {
    pub fn call(&self) -> Call<'_> {
        let mut call = self.git.call(&self.place.git_dir);
        call.env("GIT_WORK_TREE", &self.place.checkout).cwd(&self.place.checkout);
        call
    }

    /// A call that changes the repository.
    pub fn step(&self) -> Call<'_> {
        let mut call = self.call();
        call.step();
        call
    }

    /// A call that changes the index. Before git writes one, it compares each file that is as new as that index by its
    /// content, and through its filter. The filter may be a program of the workspace, so all are switched off: git then
    /// marks such a file as one to be compared, which the user's own git does next.
    pub fn index_step(&self) -> Result<Call<'_>, Fault> {
        let mut call = self.step();
        let filters =
            ["config", "-z", "--name-only", "--get-regexp", r"^filter\..*\.(clean|process|required)$"];
        let filters = self.call().args(filters).answer(self.cancel)?.stdout;
        let mut count = 0;
        for key in filters.split(|&byte| byte == 0).filter(|key| !key.is_empty()) {
            let value = if key.ends_with(b".required") { "false" } else { "" };
            call.env(&format!("GIT_CONFIG_KEY_{count}"), path_from(key).as_os_str());
            call.env(&format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        call.env("GIT_CONFIG_COUNT", count.to_string());
        Ok(call)
    }

    pub fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Vec<u8>, Fault> {
        self.call().args(args).run(self.cancel)
    }

    /// What its references name.
    pub fn known(&self) -> Result<Known, Fault> {
        let mut known = Known::default();
        for (name, oid) in self.refs()? {
            if !name.as_bytes().starts_with(b"refs/paperclip/") {
                known.in_use.insert(oid.clone());
            }
            known.all.insert(oid);
        }
        if let Some(Head::Detached(oid)) = self.head()? {
            known.in_use.insert(oid.clone());
            known.all.insert(oid);
        }
        // A local reference may be broken. Then nothing is assumed about it.
        known.all.retain(|oid| has_format(oid, &self.place.format));
        let there = self.types(&known.all)?;
        known.all.retain(|oid| there.contains_key(oid));
        known.in_use.retain(|oid| there.contains_key(oid));
        Ok(known)
    }

    /// The commits that can be reached from these and from no reference.
    pub fn unreached(&self, commits: &BTreeSet<&Oid>) -> Result<BTreeSet<Oid>, Fault> {
        let known = self.known()?.all;
        self.beyond(commits, &known)
    }

    /// The commits that can be reached from these and not from those.
    pub fn beyond(&self, commits: &BTreeSet<&Oid>, known: &BTreeSet<Oid>) -> Result<BTreeSet<Oid>, Fault> {
        let from = commits.iter().map(|&oid| oid.clone()).collect();
        reached(&mut self.call(), &from, known, self.cancel)
    }

    /// What git writes for "no object".
    pub fn zero(&self) -> String {
        "0".repeat(if self.place.format == "sha1" { 40 } else { 64 })
    }

    /// All references, except symbolic ones.
    pub fn refs(&self) -> Result<Refs, Fault> {
        self.all_refs().map(|(refs, _)| refs)
    }

    /// All references, and beside them the symbolic ones, each with the name that it leads to. Git does not list one that
    /// leads to nothing: see [`dangling`](Self::dangling).
    pub fn all_refs(&self) -> Result<(Refs, Vec<(RefName, RefName)>), Fault> {
        let list = self.run(["for-each-ref", "--format=%(objectname) %(symref)%00%(refname)"])?;
        let (mut refs, mut symbolic) = (Refs::new(), Vec::new());
        for line in list.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let mut fields = line.split(|&byte| byte == 0);
            let value = fields.next().unwrap_or_default();
            let name = fields.next().and_then(RefName::parse);
            let Some(name) = name else { continue };
            if let Some(oid) = value.strip_suffix(b" ").and_then(Oid::parse) {
                refs.insert(name, oid);
            } else if let Some(target) = value.splitn(2, |&byte| byte == b' ').nth(1).and_then(RefName::parse)
            {
                symbolic.push((name, target));
            }
        }
        Ok((refs, symbolic))
    }

    /// The references that [cannot be read](local_refs). `refs` and `symbolic` are [those that git lists](Self::all_refs).
    pub fn unreadable(&self, refs: &Refs, symbolic: &[(RefName, RefName)]) -> Result<Unreadable> {
        if by_path::exists(&self.place.common_dir.join("reftable")) {
            return Ok(Unreadable::default());
        }
        let listed: HashSet<&RefName> = refs.keys().chain(symbolic.iter().map(|(name, _)| name)).collect();
        local_refs::unreadable(&self.place.common_dir, &listed)
    }

    /// The symbolic references among these names, each with the name that it leads to, which need not exist.
    pub fn dangling<'a>(
        &self,
        names: impl Iterator<Item = &'a RefName>,
    ) -> Result<Vec<(RefName, RefName)>, Fault> {
        let is_table = by_path::exists(&self.place.common_dir.join("reftable"));
        let mut found = Vec::new();
        for name in names {
            let target = if is_table {
                self.call()
                    .args(["symbolic-ref", "-q"])
                    .arg(path_from(name.as_bytes()))
                    .answer(self.cancel)?
                    .stdout
            } else {
                // A symbolic reference is always a file of its own.
                let file = self.place.common_dir.join(path_from(name.as_bytes()));
                let text = if by_path::is_file(&file) { by_path::read(&file)? } else { None };
                text.unwrap_or_default().strip_prefix(b"ref:").unwrap_or_default().to_vec()
            };
            if let Some(target) = RefName::parse(target.trim_ascii()) {
                found.push((name.clone(), target));
            }
        }
        Ok(found)
    }

    /// The value of `HEAD`; `None` if git cannot read it.
    pub fn head(&self) -> Result<Option<Head>, Fault> {
        let symbolic = self.call().args(["symbolic-ref", "-q", "HEAD"]).answer(self.cancel)?;
        if symbolic.status == Some(0) {
            return Ok(RefName::parse(symbolic.stdout.trim_ascii_end()).map(Head::Branch));
        }
        let commit = self.call().args(["rev-parse", "-q", "--verify", "HEAD"]).answer(self.cancel)?;
        Ok(Oid::parse(commit.stdout.trim_ascii_end()).map(Head::Detached))
    }

    pub fn index(&self) -> Result<Vec<u8>, Fault> {
        self.run(LIST_INDEX)
    }

    /// What the index says about the files at some paths: times and inode, which differ once an entry was made anew.
    pub fn file_states(&self, paths: &HashSet<&[u8]>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
        let list = self.states_at(paths)?;
        let states = index::states(&list).into_iter().map(|state| (index::path_in(state.line), state.told));
        let asked = states.filter(|(path, _)| paths.contains(path));
        Ok(asked.map(|(path, told)| (path.to_vec(), told.to_vec())).collect())
    }

    /// The listing of the index at some paths, with [what it says of the files](index::states). It may have further entries: the
    /// path of a directory also lists what is in it.
    pub fn states_at(&self, paths: &HashSet<&[u8]>) -> Result<Vec<u8>, Fault> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.call();
        call.args(LIST_INDEX).arg("--debug");
        // To list all entries takes git long.
        if paths.len() <= STATES_BY_PATH {
            call.arg("--").args(paths.iter().map(|path| path_from(path)));
        }
        call.run(self.cancel)
    }

    /// The listing of a copy of the index, with [what it says of the files](index::states).
    pub fn states_in(&self, file: &Path) -> Result<Vec<u8>, Fault> {
        self.call().env("GIT_INDEX_FILE", file).args(LIST_INDEX).arg("--debug").run(self.cancel)
    }

    /// The file by which git locks the index.
    fn index_lock(&self) -> PathBuf {
        self.place.git_dir.join("index.lock")
    }

    /// Whether a git has the index locked.
    pub fn is_index_locked(&self) -> bool {
        by_path::exists(&self.index_lock())
    }

    /// Locks the index, as git does, until it is changed or the lock is dropped. `None` if another git has it locked.
    ///
    /// Git has the lock while it waits for the changes. So it also ends if this process is killed.
    pub fn lock_index(&self) -> Result<Option<Waiting>, Fault> {
        // Git locks an index that is a link beside its target.
        if self.is_index_locked() || by_path::is_link(&self.place.git_dir.join("index")) {
            return Ok(None);
        }
        let mut locking = self.index_step()?.args(CHANGE_INDEX).start()?;
        let mut seen = 0;
        for _ in 0..LOCK_LOOKS {
            if locking.has_ended()? {
                return Ok(None);
            }
            if self.is_index_locked() {
                seen += 1;
                if locking.has_open(&self.index_lock()) || LOCK_SEEN.is_some_and(|most| seen > most) {
                    return Ok(Some(locking));
                }
            }
            thread::sleep(LOCK_PAUSE);
        }
        Ok(None)
    }

    /// Waits a while for another git to unlock the index. Most end soon, even one that a killed restore left running.
    pub fn wait_for_index(&self) {
        for _ in 0..UNLOCK_LOOKS {
            if !self.is_index_locked() {
                break;
            }
            thread::sleep(UNLOCK_PAUSE);
        }
    }

    /// [Locks](Self::lock_index) the index once no other git has it locked. `None` if one keeps it locked.
    pub fn lock_index_soon(&self) -> Result<Option<Waiting>, Fault> {
        for _ in 0..LOCK_TRIES {
            self.wait_for_index();
            let locked = self.lock_index()?;
            if locked.is_some() || self.is_index_locked() {
                return Ok(locked);
            }
        }
        Ok(None)
    }

    /// Makes the changes between two listings in the index, which is `ours`, path by path, unless something else is staged
    /// there. Returns the paths that stay because something is in their way, and what git said if it refused.
    ///
    /// `locked` is the git that has locked the index. Without one, git locks it for the change alone.
    pub fn stage(
        &self,
        before: &[u8],
        after: &[u8],
        ours: &[u8],
        locked: Option<Waiting>,
    ) -> Result<Staging, Fault> {
        let (changes, blocked) = index::merge_listings(before, after, ours);
        let mut staging = Staging { blocked, ..Staging::default() };
        if changes.is_empty() {
            return Ok(staging);
        }
        let input = index::index_info(&changes, &self.zero());
        let staged = changes.iter().filter(|(_, stages)| !stages.is_empty());
        let left_out = self.left_out(staged.map(|(path, _)| path.as_bytes()).collect())?;
        let written = if left_out.is_empty() {
            // Half of a list would be taken for the whole list if this process was killed.
            self.write_index(locked.filter(|locked| locked.can_do(&input)), input)
        } else {
            self.write_sparse_index(locked, input, left_out)
        };
        match written {
            Ok(output) if output.status == Some(0) => {
                staging.changed = changes.iter().map(|(path, _)| path.clone()).collect();
                staging.ignored = ignored_paths(&output.stderr);
            }
            Ok(output) => {
                staging.refused = Some(format!("git update-index failed: {}", output.complaint()));
            }
            Err(Fault::Refused(reason) | Fault::Killed(reason)) => staging.refused = Some(reason),
            Err(error) => return Err(error),
        }
        Ok(staging)
    }

    /// Those of some paths of the index that stay without a file, since the local sparse checkout excludes them.
    fn left_out<'p>(&self, paths: Vec<&'p [u8]>) -> Result<Vec<&'p [u8]>, Fault> {
        let marked = self.run(["ls-files", "-t", "-z", "--full-name"])?;
        let marked: HashSet<&[u8]> =
            marked.split(|&byte| byte == 0).filter_map(|line| line.strip_prefix(b"S ")).collect();
        let (known, new): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| marked.contains(path));
        Ok(known.into_iter().chain(self.outside_of_sparse(new)?).collect())
    }

    /// Marks those of some entries of the index again that the local sparse checkout excludes: a killed restore has staged them by a git
    /// that it had told so, and could not mark them.
    pub fn mark_left_out(&self, entries: &[u8]) -> Result<(), Fault> {
        let gone = index::beyond(entries, &self.index()?);
        let gone = index::paths(&gone);
        let there = index::paths(entries).into_iter().filter(|path| !gone.contains(path));
        let left_out = self.outside_of_sparse(there.collect())?;
        if !left_out.is_empty() {
            self.write_sparse_index(None, Vec::new(), left_out)?;
        }
        Ok(())
    }

    /// Has git make the changes of an input in the index and mark these paths as left out of a sparse checkout.
    ///
    /// Git has no single step for both, and what is not marked looks deleted. So both are made in a copy, which then replaces the index
    /// while that is locked.
    fn write_sparse_index(
        &self,
        locked: Option<Waiting>,
        input: Vec<u8>,
        mut left_out: Vec<&[u8]>,
    ) -> Result<Output, Fault> {
        let index = self.place.git_dir.join("index");
        let locked = match locked {
            Some(locked) => Some(locked),
            None => self.lock_index_soon()?,
        };
        // An index that is a link is written where it is.
        let copy = locked.as_ref().map(|_| self.place.git_dir.join(INDEX_COPY));
        if let (Some(copy), Some(meta)) = (&copy, by_path::stat(&index)?) {
            by_path::copy(&index, copy)?;
            // Git compares each file by its content that is as new as the index.
            by_path::set_modified(copy, meta.mtime.0)?;
        }
        let step = |args: &[&str], input: Vec<u8>| {
            let mut call = self.index_step()?;
            if let Some(copy) = &copy {
                call.env("GIT_INDEX_FILE", copy);
            }
            call.args(args).input(input).output(self.cancel)
        };
        let made = step(&CHANGE_INDEX, input)?;
        if made.status != Some(0) {
            return Ok(made);
        }
        let ignored = ignored_paths(&made.stderr);
        left_out.retain(|path| !ignored.iter().any(|ignored| ignored.as_bytes() == *path));
        let marked = left_out.iter().flat_map(|path| [path, &b"\0"[..]].concat()).collect();
        let marked = step(&["update-index", "-z", "--skip-worktree", "--stdin"], marked)?;
        if marked.status != Some(0) {
            return Ok(marked);
        }
        if let Some(copy) = &copy {
            by_path::rename(copy, &index)?;
        }
        if let Some(locked) = locked {
            locked.give_up();
        }
        Ok(made)
    }

    /// Has git make the changes of an input in the index: the one that has locked it, or another one.
    pub fn write_index(&self, locked: Option<Waiting>, input: Vec<u8>) -> Result<Output, Fault> {
        Ok(match locked {
            Some(locked) => locked.finish(&input)?,
            None => self.index_step()?.args(CHANGE_INDEX).input(input).output(self.cancel)?,
        })
    }

    /// Those of some paths without a file that the local sparse checkout excludes. None, if this git does not tell.
    fn outside_of_sparse<'p>(&self, mut paths: Vec<&'p [u8]>) -> Result<Vec<&'p [u8]>, Fault> {
        // Git leaves the rules of a sparse checkout behind that was switched off.
        let settings = self.settings_in_effect()?;
        let is_on = settings.iter().rev().find(|(key, _)| key == b"core.sparsecheckout");
        if is_on.is_none_or(|(_, value)| !config::is_true(value.as_deref()))
            || !by_path::exists(&self.place.git_dir.join("info/sparse-checkout"))
        {
            return Ok(Vec::new());
        }
        paths.retain(|path| !by_path::exists(&self.place.checkout.join(path_from(path))));
        if paths.is_empty() {
            return Ok(paths);
        }
        let mut call = self.call();
        call.args(["sparse-checkout", "check-rules", "-z"]);
        let input: Vec<u8> = paths.iter().flat_map(|path| [path, &b"\0"[..]].concat()).collect();
        // Gits before 2.41 do not know this command.
        let output = call.input(input).output(self.cancel)?;
        if output.status != Some(0) {
            return Ok(Vec::new());
        }
        let inside: HashSet<&[u8]> = output.stdout.split(|&byte| byte == 0).collect();
        paths.retain(|path| !inside.contains(path));
        Ok(paths)
    }

    /// The input that makes the changes between two listings in the index, which is `ours`.
    pub fn changes(&self, before: &[u8], after: &[u8], ours: &[u8]) -> Vec<u8> {
        let (changes, _) = index::merge_listings(before, after, ours);
        index::index_info(&changes, &self.zero())
    }

    /// Whether a commit can be reached from another one, or is the same.
    pub fn is_ancestor(&self, one: &Oid, other: &Oid) -> Result<bool, Fault> {
        let mut call = self.call();
        let output =
            call.args(["merge-base", "--is-ancestor", one.as_str(), other.as_str()]).output(self.cancel)?;
        Ok(output.status == Some(0))
    }

    /// What differs between the trees of two commits, as listings of an index. Without the first one, all of the second.
    pub fn difference(&self, before: Option<&Oid>, after: &Oid) -> Result<index::Change, Fault> {
        let before = before.map_or(self.place.empty_tree(), Oid::as_str);
        let mut call = self.call();
        // A `.gitmodules` may say that changes of a submodule are to be ignored.
        call.bounded().args(["diff-tree", "-r", "-z", "--raw", "--no-renames", "--ignore-submodules=none"]);
        call.args([before, after.as_str()]);
        let raw = call.run(self.cancel)?;
        let mut fields = raw.split(|&byte| byte == 0);
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        // `:100644 100644 <object> <object> M`, and then the path.
        while let (Some(what), Some(path)) = (fields.next(), fields.next()) {
            let what: Vec<&[u8]> =
                what.strip_prefix(b":").unwrap_or_default().split(|&byte| byte == b' ').collect();
            let [old_mode, new_mode, old, new_one, ..] = what[..] else { continue };
            for (list, mode, oid) in [(&mut gone, old_mode, old), (&mut new, new_mode, new_one)] {
                // Zeros stand for no object.
                if Oid::parse(oid).is_some() {
                    list.extend([mode, b" ", oid, b" 0\t", path, b"\0"].concat());
                }
            }
        }
        Ok((gone, new))
    }

    /// Gives what git has made as the superuser to the owner of the repository, who could not work there otherwise.
    pub fn give_to_owner(&self) -> Result<()> {
        // A repository that is gone has nothing to give.
        if !is_root() || !self.place.is_there() {
            return Ok(());
        }
        let owner = Root::open(&self.place.git_dir)?.meta()?.owner;
        if owner.0 == 0 {
            return Ok(());
        }
        for folder in BTreeSet::from([&self.place.git_dir, &self.place.common_dir]) {
            let root = Root::open(folder)?;
            let mut cursor = root.cursor();
            for found in scan(&root, &Filter::default(), self.cancel)? {
                if found.meta.owner.0 == 0 {
                    cursor.set_owner(&found.path, owner)?;
                }
            }
        }
        Ok(())
    }

    /// The commit that `HEAD` leads to.
    pub fn commit(&self) -> Result<Option<Oid>, Fault> {
        self.commit_of(b"HEAD")
    }

    /// The commit that a reference leads to.
    pub fn commit_of(&self, name: &[u8]) -> Result<Option<Oid>, Fault> {
        let mut call = self.call();
        call.args(["rev-parse", "-q", "--verify"]).arg(path_from(&[name, b"^{commit}"].concat()));
        Ok(Oid::parse(call.answer(self.cancel)?.stdout.trim_ascii_end()))
    }

    /// Whether an operation such as a rebase has begun and has not ended.
    pub fn is_busy(&self) -> bool {
        [
            "rebase-merge",
            "rebase-apply",
            "MERGE_HEAD",
            "CHERRY_PICK_HEAD",
            "REVERT_HEAD",
            "BISECT_LOG",
            "sequencer",
        ]
        .iter()
        .any(|name| by_path::exists(&self.place.git_dir.join(name)))
    }

    pub fn settings(&self) -> Result<Settings, Fault> {
        Ok(config::parse(&self.run(["config", "--list", "-z", "--local"])?))
    }

    /// The settings in effect for the user's git: with what is included, and what the user and the system have. None where that
    /// configuration cannot be read: then the user's git does nothing in this repository.
    pub fn settings_of_the_user(&self) -> Result<Settings, Fault> {
        let output = self.git.configuration(&self.place.git_dir).output(self.cancel)?;
        // Each setting follows the name of its file.
        let fields: Vec<&[u8]> = output.stdout.split(|&byte| byte == 0).collect();
        Ok(fields.chunks_exact(2).flat_map(|pair| config::parse(pair[1])).collect())
    }

    /// The names of the remotes that are defined by files, as before git had a configuration.
    pub fn remote_files(&self) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        for folder in ["remotes", "branches"] {
            let folder = self.place.common_dir.join(folder);
            if by_path::exists(&folder) {
                names.extend(by_path::list(&folder)?.into_iter().map(OsString::into_encoded_bytes));
            }
        }
        Ok(names)
    }

    /// The repository's own settings, and those of this worktree alone: `git sparse-checkout` writes some there.
    pub fn settings_in_effect(&self) -> Result<Settings, Fault> {
        let mut settings = self.settings()?;
        let is_on = settings.iter().rev().find(|(key, _)| key == b"extensions.worktreeconfig");
        if is_on.is_some_and(|(_, value)| config::is_true(value.as_deref())) {
            let own = self.call().args(["config", "--list", "-z", "--worktree"]).output(self.cancel)?;
            // Git fails where this worktree has no settings of its own.
            if own.status == Some(0) {
                settings.extend(config::parse(&own.stdout));
            }
        }
        Ok(settings)
    }

    /// The stash entries with their messages, newest first.
    pub fn stashes(&self) -> Result<Stashes, Fault> {
        let newest = self.call().args(["rev-parse", "-q", "--verify", "refs/stash"]).answer(self.cancel)?;
        if newest.status != Some(0) {
            return Ok(Stashes::default());
        }
        if self.commit_of(b"refs/stash")?.is_none() {
            return Ok(Stashes { is_broken: true, ..Stashes::default() });
        }
        let list =
            self.run(["log", "-g", "--no-show-signature", "--format=%H%x00%gs", "refs/stash", "--"])?;
        let lines = list.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let logged = lines.filter_map(|line| {
            let zero = line.iter().position(|&byte| byte == 0)?;
            Some((Oid::parse(&line[..zero])?, line[zero + 1..].to_vec()))
        });
        let mut entries: Vec<_> = logged.collect();
        let newest = Oid::parse(newest.stdout.trim_ascii_end());
        let unlogged = newest.filter(|newest| entries.first().is_none_or(|(oid, _)| oid != newest));
        if let Some(newest) = &unlogged {
            entries.insert(0, (newest.clone(), b"stash".to_vec()));
        }
        Ok(Stashes { entries, unlogged, is_broken: false })
    }

    /// Whether git takes a commit for a stash: its second parent has what was staged.
    pub fn is_stash(&self, oid: &Oid) -> Result<bool, Fault> {
        let parents = self.run(["rev-list", "--parents", "--max-count=1", oid.as_str()])?;
        Ok(matches!(parents.trim_ascii().split(|&byte| byte == b' ').count(), 3 | 4))
    }

    /// The types of those objects that exist.
    pub fn types(&self, oids: &BTreeSet<Oid>) -> Result<Types, Fault> {
        if self.place.promisor.is_none() || oids.is_empty() {
            return types(&mut self.call(), oids, self.cancel);
        }
        // Asked for one that a partial clone lacks, git would fail, since it may not fetch it.
        let all = self.run(["cat-file", "--batch-all-objects", FORMAT])?;
        Ok(parse_types(&all).filter(|(oid, _)| oids.contains(oid)).collect())
    }
}

/// The tree without an entry, in each format. Git knows it without having it.
const EMPTY_TREE: (&str, &str) = (
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
);

/// What became of changes of the index.
#[derive(Debug, Default)]
pub struct Staging {
    /// The paths at which the index was changed.
    pub changed: Vec<RelativePath>,
    /// The paths that stay because something else is staged above or below them.
    pub blocked: Vec<RelativePath>,
    /// The paths that git does not stage here, such as one that some volume takes for a `.git`.
    pub ignored: Vec<String>,
    /// What git said if it refused.
    pub refused: Option<String>,
}

/// The paths that `git update-index` says it has ignored.
fn ignored_paths(said: &[u8]) -> Vec<String> {
    let lines = said.split(|&byte| byte == b'\n');
    lines.filter_map(|line| line.strip_prefix(b"Ignoring path ")).map(readable).collect()
}

/// The stash of a repository.
#[derive(Debug, Default)]
pub struct Stashes {
    /// Its entries with their messages, newest first.
    pub entries: Vec<(Oid, Vec<u8>)>,
    /// The newest, if the reflog lacks it, which may have expired.
    pub unlogged: Option<Oid>,
    /// Whether the commit of the newest is missing. Git lists none of the others then.
    pub is_broken: bool,
}

/// Objects with their types. Sorted, because the same repository must always give the same pack.
pub(super) type Types = BTreeMap<Oid, Vec<u8>>;

/// The types of those objects that a repository has.
pub(super) fn types(call: &mut Call<'_>, oids: &BTreeSet<Oid>, cancel: &Cancel) -> Result<Types, Fault> {
    if oids.is_empty() {
        return Ok(Types::new());
    }
    let list = call.args(["cat-file", FORMAT]).input(lines(oids.iter().map(Oid::as_str))).run(cancel)?;
    Ok(parse_types(&list).collect())
}

/// How git lists an index.
pub(super) const LIST_INDEX: [&str; 4] = ["ls-files", "--stage", "-z", "--full-name"];

/// How git lists objects with their types.
const FORMAT: &str = "--batch-check=%(objectname) %(objecttype)";

fn parse_types(list: &[u8]) -> impl Iterator<Item = (Oid, Vec<u8>)> {
    list.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let oid = fields.next().and_then(Oid::parse)?;
        let kind = fields.next()?;
        matches!(kind, b"commit" | b"tree" | b"blob" | b"tag").then(|| (oid, kind.to_vec()))
    })
}

/// The commits that can be reached from some objects and not from others.
pub fn reached(
    call: &mut Call<'_>,
    from: &BTreeSet<Oid>,
    not: &BTreeSet<Oid>,
    cancel: &Cancel,
) -> Result<BTreeSet<Oid>, Fault> {
    if from.is_empty() {
        return Ok(BTreeSet::new());
    }
    let list = call.args(["rev-list", "--stdin"]).input(between(from, not)).run(cancel)?;
    Ok(list.split(|&byte| byte == b'\n').filter_map(Oid::parse).collect())
}

/// What `git rev-list --stdin` reads for all that is reachable from some objects and not from others.
pub(super) fn between(tips: &BTreeSet<Oid>, known: &BTreeSet<Oid>) -> Vec<u8> {
    let mut text = lines(tips.iter().map(Oid::as_str));
    text.extend(known.iter().flat_map(|oid| format!("^{oid}\n").into_bytes()));
    text
}

pub(super) fn lines<'a>(items: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    items.into_iter().flat_map(|item| [item.as_bytes(), b"\n"].concat()).collect()
}

/// A path as git reads it in a list of object directories. It may contain any bytes: a line break in it must not begin another
/// path.
pub(super) fn quoted(path: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut line = b"\"".to_vec();
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            line.push(byte);
        } else {
            // Writing to memory does not fail.
            let _always = write!(line, "\\{byte:03o}");
        }
    }
    line.push(b'"');
    line
}

/// A line of such a list as git reads it. One whose quotes are malformed is taken as it is.
pub(super) fn unquoted(line: &[u8]) -> Vec<u8> {
    let read = || {
        let mut bytes = line.strip_prefix(b"\"")?.iter().copied();
        let mut path = Vec::new();
        loop {
            let byte = match bytes.next()? {
                b'"' => return Some(path),
                b'\\' => match bytes.next()? {
                    first @ b'0'..=b'3' => octal_of(first, &mut bytes)?,
                    other => control_of(other).unwrap_or(other),
                },
                byte => byte,
            };
            path.push(byte);
        }
    };
    read().unwrap_or_else(|| line.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_path_is_read_as_it_was() {
        for path in [&b"/a/b"[..], b"a b\n\"\\c", b"\xff\x00\x01"] {
            assert_eq!(unquoted(&quoted(path)), path);
        }
        for (line, path) in [
            (&b"../x y"[..], &b"../x y"[..]),
            (br#""a\tb" rest"#, b"a\tb"),
            (br#""a"#, br#""a"#),
            (br#""\9""#, b"9"),
            (br#""\19""#, br#""\19""#),
        ] {
            assert_eq!(unquoted(line), path);
        }
    }
}
