//! Merges the index, which is locked before references move.

use std::collections::{BTreeMap, BTreeSet};

use super::{LOCKED, Merge};
use crate::error::{Result, readable};
use crate::git::command::Fault;
use crate::git::import::their_commit;
use crate::git::index;
use crate::git::refs::{Head, Oid, RefName, Relation};
use crate::git::report::{HeldBack, KeptReference};
use crate::git::staged_only::StagedOnly;
use crate::git::unfinished::{self, Change};
use crate::path::RelativePath;

/// Why what is staged here at a path that the sandbox committed to is reported.
const REVERTS: &str = "what is staged locally was staged before the commit that came, and the next local commit would undo what that \
    one changed in this file: stage the file again";

impl Merge<'_> {
    /// What their index has instead of the base's, as listings. `None` if it has the same.
    pub(super) fn index_change(&self) -> Result<Option<index::Change>, Fault> {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        if theirs.index != base.index {
            return Ok(Some((base.index.clone(), theirs.index.clone())));
        }
        match their_commit(theirs) {
            // The commit's changes are made in the index too: else it would show their reverse as staged.
            Some(commit) if self.incoming.index_is_unknown => {
                self.difference(their_commit(base).as_ref(), &commit)
            }
            _ => Ok(None),
        }
    }

    /// What differs between two commits, as listings of an index. `None` if nothing does, or if the first one is no longer here.
    fn difference(&self, before: Option<&Oid>, after: &Oid) -> Result<Option<index::Change>, Fault> {
        if let Some(before) = before
            && self.repository.types(&BTreeSet::from([before.clone()]))?.is_empty()
        {
            return Ok(None);
        }
        let (gone, new) = self.repository.difference(before, after)?;
        Ok((gone != new).then_some((gone, new)))
    }

    /// Makes the change of the index that an earlier restore has noted, if it was killed before it could. What that restore moved
    /// is moved by now, so this one would not know that the index has to follow.
    pub(super) fn complete_noted(&mut self) -> Result<(), Fault> {
        if !unfinished::is_noted(self.repository.place) {
            return Ok(());
        }
        self.repository.wait_for_index();
        if let Some(reason) = unfinished::complete(&self.repository)? {
            self.due.index = true;
            self.hold("index", &reason);
        }
        Ok(())
    }

    /// What differs between the former local commit and this one, if it matters to what is staged here.
    fn reaching(&self, reached: Option<&Oid>, ours: &[u8]) -> Result<index::Change, Fault> {
        let head = match reached {
            Some(reached)
                if ours != self.incoming.base.index && self.former.commit.as_ref() != Some(reached) =>
            {
                self.difference(self.former.commit.as_ref(), reached)?
            }
            // Each path has what the base has.
            _ => None,
        };
        Ok(head.unwrap_or_default())
    }

    /// Notes how the index changes once references have moved, for the case that this process is killed in between.
    pub(super) fn note_changes(
        &mut self,
        head: Option<&Head>,
        busy: bool,
        change: Option<&index::Change>,
    ) -> Result<(), Fault> {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        let mut changes = Vec::new();
        if let Some(commit) = their_commit(theirs) {
            let (before, after) =
                change.map_or((&base.index, &base.index), |(before, after)| (before, after));
            let moved = self.reaching(Some(&commit), &self.former.index)?;
            // The change follows `HEAD` from the former local commit to this one.
            let (before, after) = index::following((before, after), &moved, &self.former.index);
            // If the sandbox only added commits, the references will move, and a local commit with the former index would revert these.
            if !busy
                && their_commit(base).is_some_and(|before| Some(before) == self.former.commit)
                && theirs.head == base.head
                && theirs.head.as_ref() == head
                && let Some(Head::Branch(name)) = head
            {
                let input = self.repository.changes(&before, &after, &self.former.index);
                self.ahead = Some((name.clone(), input));
            }
            let (before, after) = (index::beyond(&before, &after), index::beyond(&after, &before));
            if !(before.is_empty() && after.is_empty()) {
                changes.push(Change { commit, before, after, states: BTreeMap::new() });
            }
        }
        // The branch that is checked out moves before another one is checked out.
        if let Some(Head::Branch(name)) = head
            && let Some(commit) = theirs.refs.get(name).filter(|commit| base.refs.get(name) != Some(*commit))
            && their_commit(theirs).as_ref() != Some(commit)
            && let Some((before, after)) = self.difference(self.former.commit.as_ref(), commit)?
        {
            changes.push(Change { commit: commit.clone(), before, after, states: BTreeMap::new() });
        }
        if !changes.is_empty() {
            unfinished::note(&self.repository, changes)?;
        }
        Ok(())
    }

    /// Makes the [change of a branch](Self::change_of_branch) in the index.
    pub(super) fn follow_branch(&mut self, head: Option<&Head>) -> Result<(), Fault> {
        let Some((before, after)) = self.change_of_branch(head)? else { return Ok(()) };
        let ours = self.local_index()?;
        self.stage(&before, &after, &ours)?;
        if !self.due.index {
            self.followed = Some((before, after));
        } else if let Some(Head::Branch(name)) = head {
            // Git refused, and the next restore must see the branch as moved again.
            self.due.refs.insert(name.clone());
        }
        Ok(())
    }

    /// What the commits of the branch that is checked out change, if the sandbox had left that branch and `HEAD` stays here: the
    /// sandbox's index then belongs to another branch, and without this change the reverse of the commits would be staged.
    fn change_of_branch(&self, head: Option<&Head>) -> Result<Option<index::Change>, Fault> {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        let Some(Head::Branch(name)) = head else { return Ok(None) };
        let moved = theirs.refs.get(name).filter(|commit| base.refs.get(name) != Some(*commit));
        let Some(commit) = moved.filter(|commit| their_commit(theirs).as_ref() != Some(*commit)) else {
            return Ok(None);
        };
        if self.repository.head()?.as_ref() != head || self.repository.commit()?.as_ref() != Some(commit) {
            return Ok(None);
        }
        self.difference(self.former.commit.as_ref(), commit)
    }

    /// Whether the branch moves that is checked out here.
    pub(super) fn moves(&self, head: Option<&Head>) -> bool {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        matches!(head, Some(Head::Branch(name)) if base.refs.get(name) != theirs.refs.get(name))
    }

    /// Tells the git that has the index locked the changes that belong to a branch, just before that moves: then they are made even
    /// if this process is killed. [`stage`](super::Repository::stage) makes others instead, if these are not the right ones.
    pub(super) fn stage_ahead(&mut self, branch: &RefName) -> Result<(), Fault> {
        if let Some((_, input)) = self.ahead.take_if(|(name, _)| name == branch)
            && let Some(locked) = &mut self.locked
            && locked.can_do(&input)
        {
            locked.tell(&input)?;
        }
        Ok(())
    }

    /// The listing of the local index, without what is only intended to be added (`git add -N`) and was not uploaded: nothing is staged
    /// there, and what the sandbox has committed takes its place.
    pub(super) fn local_index(&self) -> Result<Vec<u8>, Fault> {
        let listing = self.repository.index()?;
        let new = index::beyond(&listing, &self.incoming.base.index);
        let empty = index::empty(&new);
        if empty.is_empty() {
            return Ok(listing);
        }
        let states = self.repository.states_in(&self.git_path("index"))?;
        let intended = index::intended(&states, &empty);
        Ok(index::without(&listing, |path| intended.contains(path)))
    }

    /// Locks the index, or notes that another git has it locked.
    ///
    /// That may be a `git commit` whose message is being written. With the former index, the commit after that one would revert what
    /// the sandbox committed.
    pub(super) fn lock_index(&mut self) -> Result<(), Fault> {
        self.locked = self.repository.lock_index_soon()?;
        self.is_locked_by_another = self.locked.is_none() && self.repository.is_index_locked();
        Ok(())
    }

    /// Merges the index. Without a `change`, the sandbox's is the base's, and the local one only follows `HEAD`.
    pub(super) fn merge_index(&mut self, busy: bool, change: Option<index::Change>) -> Result<(), Fault> {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        let commit = self.repository.commit()?;
        let has_changed = change.is_some();
        if !has_changed && (commit == self.former.commit || self.former.index == base.index) {
            return Ok(());
        }
        let (before, after) = change.unwrap_or_else(|| (base.index.clone(), base.index.clone()));
        let (before, after) = (&before[..], &after[..]);
        let is_locked = self.is_locked_by_another
            || self.locked.is_none() && {
                self.repository.wait_for_index();
                self.repository.is_index_locked()
            };
        // While it is locked, no other git changes it.
        let ours = match self.locked {
            Some(_) => std::mem::take(&mut self.former.index),
            None => self.local_index()?,
        };
        if ours == after {
            return Ok(());
        }
        let mut newer = None;
        let included = match (their_commit(theirs), &commit) {
            (None, None) => true,
            (Some(there), Some(here)) if there == *here => true,
            (Some(there), Some(here)) => {
                // Where the sandbox checked out something else, its index says what that changes, too.
                let is_same_branch = theirs.head == base.head || theirs.head == self.repository.head()?;
                let is_older = is_same_branch && self.relation(&there, here) == Relation::OursDescends;
                // At other paths, what is staged here may be a person's return to what the base has.
                if is_older && let Some(on_top) = self.difference(Some(&there), here)? {
                    newer = Some(index::touching(&on_top, (before, after)));
                }
                is_older
            }
            _ => false,
        };
        if !has_changed && (busy || !included) {
            return Ok(());
        }
        let reason = if busy {
            Some("a local operation is in progress")
        } else if is_locked {
            Some(LOCKED)
        } else if !included {
            Some("the commit that it belongs to is not checked out locally")
        } else {
            None
        };
        if let Some(reason) = reason {
            let is_refused = self.due.head || self.is_refused(theirs.head.as_ref());
            self.due.index |= (!included && is_refused) || is_locked;
            self.index_waits = !included;
            // What is held back for what it has waits, too.
            let is_told =
                |held: &HeldBack| held.path == self.incoming.dot_git && held.what.as_deref() == Some("index");
            if !self.report.held_back.iter().any(is_told) {
                self.hold("index", reason);
            }
            self.left.extend(index::not_taken((before, after), &ours, &[]));
            return Ok(());
        }
        // What their index has of their commit is now as the local commit on top of it has it.
        let on_top = newer.map(|newer| index::applied(after, &newer));
        let after = on_top.as_deref().unwrap_or(after);
        let moved = self.reaching(commit.as_ref(), &ours)?;
        let (before, after) = index::following((before, after), &moved, &ours);
        let changed = self.stage(&before, &after, &ours)?;
        for path in index::staged_otherwise(&moved, &ours) {
            self.hold(format!("index: {}", readable(path)), REVERTS);
        }
        self.left.extend(index::not_taken((&before, &after), &ours, &changed));
        Ok(())
    }

    /// Makes a change in the local index, which is `ours`. Returns the paths at which it was made.
    fn stage(&mut self, before: &[u8], after: &[u8], ours: &[u8]) -> Result<Vec<RelativePath>, Fault> {
        let staging = self.repository.stage(before, after, ours, self.locked.take())?;
        for path in staging.blocked {
            self.hold(
                format!("index: {path}"),
                "what is staged locally has a directory or a file in its way",
            );
        }
        for path in staging.ignored {
            self.hold(format!("index: {path}"), "git does not stage such a path here");
        }
        if !staging.changed.is_empty() {
            self.report.updated.push((self.incoming.dot_git.clone(), "index".to_owned()));
        }
        let checkout = self.incoming.dot_git.parent();
        let has_entry = index::paths(after);
        let staged = staging.changed.iter().filter(|path| has_entry.contains(path.as_bytes()));
        self.report.staged.extend(staged.map(|path| match &checkout {
            Some(checkout) => checkout.join(path),
            None => path.clone(),
        }));
        if let Some(reason) = staging.refused {
            self.due.index = true;
            self.hold("index", &reason);
        }
        Ok(staging.changed)
    }

    /// Keeps what the sandbox staged and nothing else has, so that `git gc` does not delete it.
    pub(super) fn keep_staged(&mut self) -> Result<(), Fault> {
        let left = std::mem::take(&mut self.left);
        if left.is_empty() {
            return Ok(());
        }
        let kept_at = format!("refs/paperclip/{}/index", self.time);
        let index = self.incoming.folder.join("staged-index");
        let staged = StagedOnly { repository: &self.repository, index };
        let kept = staged.find(&left, their_commit(&self.incoming.theirs).as_ref());
        let kept = kept.and_then(|left| staged.keep(&left, &kept_at));
        staged.clear()?;
        match kept {
            Ok(true) => self.report.kept.push(KeptReference {
                repository: self.incoming.dot_git.clone(),
                reference: "index".to_owned(),
                kept_at,
            }),
            Ok(false) => {}
            // Not a reason to refuse the rest, of which much is done. The next restore sees the index as changed again.
            Err(Fault::Refused(reason) | Fault::Killed(reason)) => {
                self.due.index = true;
                self.hold("index", &format!("what is only staged there could not be kept: {reason}"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
