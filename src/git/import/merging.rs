//! Merges one repository of the sandbox into the local one.
//!
//! Objects come first, then references, then `HEAD` and the index, then stashes and settings.

mod references;
mod staging;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{GONE, Incoming, refuse, restore_base, staged_blobs};
use crate::error::Result;
use crate::fs::by_path::{self, make_folders};
use crate::git::command::{Fault, Waiting, short};
use crate::git::config;
use crate::git::export::{self, Base};
use crate::git::objects;
use crate::git::refs::{Head, Oid, RefName, Unreadable};
use crate::git::report::{GitReport, HeldBack, KeptReference};
use crate::git::repository::{Repository, Stashes};
use crate::git::unfinished::{self};
use crate::git::{index, keep};

/// The maximum number of settings that one restore adds.
const SETTINGS_MAX: usize = 1000;

/// The maximum number of commits without a reference that one restore keeps.
const COMMITS_MAX: usize = 500;

/// The reason for refusing a repository whose objects were deleted here while a restore ran.
const COLLECTED: &str = "objects were deleted locally meanwhile, as by git gc";

/// Why what the sandbox has as a stash does not become one.
const NO_STASH: &str = "it is a commit as `git stash` makes none, and `git stash pop` would refuse it";

/// Why no stash is added.
const BROKEN_STASH: &str =
    "the commit is missing that the local refs/stash names, so git could not list the stashes";

/// Why nothing moves that the local index belongs to.
const LOCKED: &str = "another git has locked the local index (index.lock), as `git commit` does while its message is written; the next \
    restore tries again (if no git runs here, delete that file)";

/// One merge in progress, with its report.
pub(super) struct Merge<'a> {
    repository: Repository<'a>,
    incoming: &'a Incoming,
    time: &'a str,
    report: &'a mut GitReport,
    /// What the next restore has to try again, so that it is not part of what both sides share.
    due: Due,
    /// The listing of the index that both sides share, if the commits tell it and not the sandbox's index.
    shared_index: Option<Vec<u8>>,
    /// What the local index has of the branch that is checked out, while the sandbox's index belongs to another one.
    followed: Option<index::Change>,
    /// The entries of the sandbox's index that the local one does not have.
    left: Vec<u8>,
    /// The local commit and the listing of the index before references moved.
    former: Former,
    /// The git that has locked the local index.
    locked: Option<Waiting>,
    /// What the index is to have once a branch has moved.
    ahead: Option<(RefName, Vec<u8>)>,
    /// Whether another git has the index locked, so that what it belongs to must not move.
    is_locked_by_another: bool,
    /// Whether the index waits until the commit that it belongs to is checked out.
    index_waits: bool,
    /// The local references that cannot be read.
    unreadable: Unreadable,
    /// The values of references that were compared.
    compared: RefCell<references::Compared>,
}

/// What was checked out and staged locally before references moved.
#[derive(Default)]
struct Former {
    commit: Option<Oid>,
    index: Vec<u8>,
}

/// The parts of a merge that could not be made yet.
#[derive(Default)]
struct Due {
    /// The index: git refused to change it, or another git had it locked, or its commit waits for what git
    /// refused or could not read.
    index: bool,
    /// `HEAD`: git refused its branch, or could not read it, or refused to set `HEAD`.
    head: bool,
    /// The references that git refused to change, or whose local value cannot be read.
    refs: BTreeSet<RefName>,
    /// Settings: git refused to add one, as while another git has `config` locked.
    settings: bool,
    /// The stashes that git refused to add, as while another git has `refs/stash` locked.
    stashes: BTreeSet<Oid>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(
        repository: Repository<'a>,
        incoming: &'a Incoming,
        time: &'a str,
        report: &'a mut GitReport,
    ) -> Self {
        let left = incoming.held_index.clone();
        Self {
            repository,
            incoming,
            time,
            report,
            due: Due::default(),
            shared_index: None,
            followed: None,
            left,
            former: Former::default(),
            locked: None,
            ahead: None,
            is_locked_by_another: false,
            index_waits: false,
            unreadable: Unreadable::default(),
            compared: RefCell::default(),
        }
    }

    /// What both sides share after the merge. What is due keeps its value from the base.
    pub(super) fn shared(self) -> Base {
        let Self {
            incoming: Incoming { base, theirs, .. },
            report,
            due,
            shared_index,
            followed,
            index_waits,
            ..
        } = self;
        let mut shared = theirs.clone();
        if let Some(index) = shared_index {
            shared.index = index;
        }
        // What the index has of a commit that is not checked out comes with the one that replaces it.
        if due.index || index_waits {
            shared.index.clone_from(&base.index);
            shared.index_digest = base.index_digest;
        }
        if due.head {
            shared.head.clone_from(&base.head);
            // Once `HEAD` follows, so does the index, from what it has of the branch that is still checked out.
            if let Some(followed) = followed {
                shared.index = index::applied(&base.index, &followed);
                // It is not the listing of any file that the sandbox had.
                shared.index_digest = None;
            }
        }
        if due.settings {
            shared.config.clone_from(&base.config);
        }
        report.is_incomplete |=
            due.index || due.head || due.settings || !due.refs.is_empty() || !due.stashes.is_empty();
        shared.stashes.retain(|oid| !due.stashes.contains(oid));
        for name in due.refs {
            restore_base(&mut shared.refs, &base.refs, name);
        }
        shared
    }
}

impl Merge<'_> {
    fn hold(&mut self, what: impl Into<String>, reason: &str) {
        self.report.held_back.push(HeldBack {
            path: self.incoming.dot_git.clone(),
            what: Some(what.into()),
            reason: reason.to_owned(),
        });
    }

    pub(super) fn run(&mut self) -> Result<(), Fault> {
        if !self.repository.place.is_there() {
            return refuse(GONE);
        }
        // A restore that was killed may have left marks.
        keep::release(self.repository.place)?;
        let merged = self.merge();
        let released = keep::release(self.repository.place);
        let given = self.repository.give_to_owner();
        merged.and(released.and(given).map_err(Fault::from))
    }

    fn merge(&mut self) -> Result<(), Fault> {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        let cancel = self.repository.cancel;
        if let Some(pack) = &self.incoming.pack {
            objects::add(self.repository.git, self.repository.place, pack, cancel)?;
        }
        let tips = self.incoming.tips();
        if !tips.is_empty() {
            let place = self.repository.place;
            // What was here at the check may have been collected since.
            let known = self.repository.known()?.all;
            objects::connect(&mut self.repository.call(), Some(place), &tips, &known, cancel)
                .map_err(|fault| objects::because(COLLECTED, fault))?;
        }
        self.add_large_files()?;
        let has_changed = theirs.refs != base.refs
            || theirs.head != base.head
            || theirs.index != base.index
            || !self.left.is_empty();
        if has_changed {
            let mut busy = self.repository.is_busy();
            let mut head_here = self.repository.head()?;
            if self.is_another()? {
                return refuse("it is another repository than the one that was sent");
            }
            let change = self.index_change()?;
            if let Some(change) = &change
                && self.incoming.index_is_unknown
            {
                self.shared_index = Some(index::applied(&base.index, change));
            }
            if self.incoming.base.place.is_some() {
                self.complete_noted()?;
                // A local commit between the steps would be made with the former index, and so revert the sandbox's commits.
                if change.is_some() || self.moves(head_here.as_ref()) || theirs.head != base.head {
                    self.lock_index()?;
                    // The git that had it locked may have begun an operation, or switched to another branch.
                    busy |= self.repository.is_busy();
                    head_here = self.repository.head()?;
                }
                self.former = Former { commit: self.repository.commit()?, index: self.local_index()? };
                self.note_changes(head_here.as_ref(), busy, change.as_ref())?;
            }
            self.move_references(head_here.as_ref(), busy)?;
            let followed = self.follow_branch(head_here.as_ref());
            let followed = followed.and_then(|()| self.merge_index(busy, change));
            self.locked = None;
            let followed = followed.and_then(|()| self.keep_staged());
            self.or_later("index", followed, |due| due.index = true)?;
            // What is not done yet remains noted for a prepare.
            if self.due.index {
                unfinished::keep_if_due(&self.repository)?;
            } else {
                unfinished::forget(self.repository.place)?;
            }
        }
        let stashes = self.incoming.stashes.iter().map(|(oid, _)| oid.clone()).collect();
        let added = self.add_stashes();
        self.or_later("refs/stash", added, |due| due.stashes = stashes)?;
        let kept = self.keep_commits();
        self.report.is_incomplete |= kept.is_err();
        self.or_later("worktrees", kept, |_| {})?;
        self.make_sure_of_objects(tips)?;
        let added = self.add_settings();
        self.or_later("config", added, |due| due.settings = true)
    }

    /// Has the next restore try what git refused in a step after references have moved.
    ///
    /// If the repository was refused as a whole then, the base would stay, and each restore would move the references again that a
    /// person has moved back since.
    fn or_later(
        &mut self,
        what: &str,
        outcome: Result<(), Fault>,
        mark: impl FnOnce(&mut Due),
    ) -> Result<(), Fault> {
        match outcome {
            Err(Fault::Refused(reason) | Fault::Killed(reason)) => {
                mark(&mut self.due);
                self.hold(what, &reason);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Makes sure that what references and the index name now exists.
    ///
    /// A `git gc` that began before the restore may delete a pack that existed by then, and its new `.keep`
    /// with it.
    fn make_sure_of_objects(&self, mut named: BTreeSet<Oid>) -> Result<(), Fault> {
        let Some(pack) = &self.incoming.pack else { return Ok(()) };
        let repository = &self.repository;
        named.extend(staged_blobs(&self.incoming.theirs, &self.incoming.base));
        let is_gone = || -> Result<bool, Fault> {
            let there = repository.types(&named)?;
            Ok(named.iter().any(|oid| !there.contains_key(oid) && !index::is_empty_blob(oid)))
        };
        if is_gone()? {
            objects::add(repository.git, repository.place, pack, repository.cancel)?;
            if is_gone()? {
                return refuse(COLLECTED);
            }
        }
        Ok(())
    }

    fn git_path(&self, name: &str) -> PathBuf {
        self.repository.place.git_dir.join(name)
    }

    /// Stores the value of a reference under another name.
    fn keep(&mut self, reference: &str, commit: &Oid, kept: String) -> Result<(), Fault> {
        let mut call = self.repository.step();
        call.args(["update-ref", "-m", "restore: from the sandbox", &kept, commit.as_str()])
            .run(self.repository.cancel)?;
        self.report.kept.push(KeptReference {
            repository: self.incoming.dot_git.clone(),
            reference: reference.to_owned(),
            kept_at: kept,
        });
        Ok(())
    }

    /// Adds LFS objects under the digest of their content. An existing one is never replaced.
    fn add_large_files(&self) -> Result<()> {
        for name in &self.incoming.large_files {
            let to = self
                .repository
                .place
                .common_dir
                .join("lfs/objects")
                .join(&name[..2])
                .join(&name[2..4])
                .join(name);
            if by_path::exists(&to) {
                continue;
            }
            if let Some(folder) = to.parent() {
                make_folders(folder)?;
            }
            let from = self.incoming.folder.join("lfs").join(name);
            let temporary = to.with_extension("restore");
            by_path::copy(&from, &temporary).map_err(|error| error.about(to.clone()))?;
            by_path::rename(&temporary, &to)?;
        }
        Ok(())
    }

    fn add_stashes(&mut self) -> Result<(), Fault> {
        if self.incoming.stashes.is_empty() {
            return Ok(());
        }
        let Stashes { entries, unlogged, is_broken } = self.repository.stashes()?;
        // A stash that no reflog names would be on no reference once another one is the newest.
        if let Some(newest) = unlogged {
            let kept = format!("refs/paperclip/{}/replaced/stash", self.time);
            self.keep("refs/stash", &newest, kept)?;
        }
        let here: BTreeSet<Oid> = entries.into_iter().map(|(oid, _)| oid).collect();
        for (oid, message) in &self.incoming.stashes {
            if here.contains(oid) {
                continue;
            }
            let reason = match self.incoming.obeyed.get(oid) {
                Some(reason) => Some(&**reason),
                None if is_broken => Some(BROKEN_STASH),
                None => (!self.repository.is_stash(oid)?).then_some(NO_STASH),
            };
            if let Some(reason) = reason {
                self.keep("refs/stash", oid, format!("refs/paperclip/{}/stash/{oid}", self.time))?;
                self.hold("refs/stash", reason);
                continue;
            }
            let message = String::from_utf8_lossy(message).into_owned();
            let mut call = self.repository.step();
            call.args(["update-ref", "--create-reflog", "-m", &message, "refs/stash", oid.as_str()]);
            match call.run(self.repository.cancel) {
                Ok(_) => self.report.updated.push((self.incoming.dot_git.clone(), "refs/stash".to_owned())),
                // References have moved by now, and the rest must follow them.
                Err(Fault::Refused(reason) | Fault::Killed(reason)) => {
                    self.due.stashes.insert(oid.clone());
                    // The next restore tries again, and one name for it is enough.
                    if self.repository.unreached(&BTreeSet::from([oid]))?.contains(oid) {
                        self.keep("refs/stash", oid, format!("refs/paperclip/{}/stash/{oid}", self.time))?;
                    }
                    self.hold("refs/stash", &format!("git refuses it: {reason}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Keeps the commits of linked worktrees, and those of an operation in progress, that no reference reaches. (Most are on a
    /// branch, which comes back by itself.)
    fn keep_commits(&mut self) -> Result<(), Fault> {
        let all: BTreeSet<&Oid> = self.incoming.commits.values().collect();
        if all.is_empty() {
            return Ok(());
        }
        let unreached = self.repository.unreached(&all)?;
        let mut kept = BTreeSet::new();
        for (name, commit) in &self.incoming.commits {
            // One name for a commit is enough.
            if !unreached.contains(commit) || kept.contains(commit) {
                continue;
            }
            if kept.len() == COMMITS_MAX {
                self.hold(
                    name.clone(),
                    "more commits that no reference has are new than a restore keeps at once",
                );
                self.report.is_incomplete = true;
                break;
            }
            kept.insert(commit);
            let named = name.strip_suffix("/HEAD").unwrap_or(name);
            let kept_at = format!("refs/paperclip/{}/{named}", self.time);
            // Git takes most names, and this one any.
            let kept_at = match RefName::parse(kept_at.as_bytes()).filter(RefName::may_be_new) {
                Some(_) => kept_at,
                None => format!("refs/paperclip/{}/worktrees/{commit}", self.time),
            };
            self.keep(name, commit, kept_at)?;
            if let Some(reason) = self.incoming.obeyed.get(commit) {
                self.hold(name.clone(), reason);
            }
        }
        Ok(())
    }

    fn add_settings(&mut self) -> Result<(), Fault> {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        if theirs.config == base.config || base.place.is_none() {
            return Ok(());
        }
        // A branch that was made here meanwhile has another commit, and one without a commit is no reference.
        let here = self.repository.refs()?;
        let made_here = here.iter().filter(|(name, oid)| theirs.refs.get(*name) != Some(*oid));
        let unborn = match &base.head {
            Some(Head::Branch(name)) => Some(name),
            _ => None,
        };
        let branches = base.refs.keys().chain(made_here.map(|(name, _)| name)).chain(unborn);
        let local = config::Local {
            own: self.repository.settings()?,
            in_effect: self.repository.settings_of_the_user()?,
            files: self.repository.remote_files()?,
            branches: branches
                .filter_map(|name| name.as_bytes().strip_prefix(b"refs/heads/"))
                .map(<[u8]>::to_vec)
                .collect(),
        };
        let returned = config::come_back(&base.config, &theirs.config, &local);
        for (number, (key, value)) in returned.take.iter().enumerate() {
            // Each setting costs a call of git, which writes the whole file.
            if number >= SETTINGS_MAX {
                self.hold(short(key), "more settings are new than a restore takes over at once");
                continue;
            }
            let mut call = self.repository.step();
            call.args(["config", "--local", "--add"])
                .arg(export::path_of(key))
                .arg(export::path_of(value.as_deref().unwrap_or_default()));
            match call.run(self.repository.cancel) {
                Ok(_) => self.report.updated.push((self.incoming.dot_git.clone(), short(key))),
                Err(Fault::Refused(reason) | Fault::Killed(reason)) => {
                    self.due.settings = true;
                    self.hold(short(key), &format!("git refuses it: {reason}"));
                }
                Err(error) => return Err(error),
            }
        }
        for (key, reason) in returned.held_back {
            self.hold(key, reason);
        }
        Ok(())
    }
}
