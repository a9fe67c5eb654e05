//! Merges references and `HEAD`, and keeps aside what they cannot take.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{LOCKED, Merge};
use crate::error::{Result, readable};
use crate::fs::by_path::{self, make_folders, read, write};
use crate::git::command::Fault;
use crate::git::export::Base;
use crate::git::import::their_commit;
use crate::git::refs::{
    Head, Oid, Outcome, Reason, RefKind, RefName, Refs, Relation, Surroundings, Taken, folders_of,
    in_the_way, plan,
};
use crate::git::report::{GitReport, HeldBack, KeptReference};
use crate::git::repository::{lines, worktrees};
use crate::git::{config, export};

/// The maximum number of calls of git to find the references that it refuses.
const PARTS_MAX: usize = 64;

/// The most time in which the values of references are compared.
const COMPARING_MAX: Duration = Duration::from_secs(20);

/// How values of references relate, and how long it took to find that out.
#[derive(Default)]
pub(super) struct Compared {
    known: HashMap<(Oid, Oid), Relation>,
    took: Duration,
}

/// What git is to do for one reference, as `git update-ref --stdin -z` reads it, and what is reported once it is done.
struct PlannedUpdate {
    name: RefName,
    input: Vec<u8>,
    told: GitReport,
}

/// How long git waits for a lock of references that another git has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// As usual: a second at most.
    OfGit,
    /// Not at all, since it has waited before.
    None,
}

/// Adds a command for `git update-ref --stdin -z`.
fn command(input: &mut Vec<u8>, verb: &[u8], name: &[u8], values: &[&str]) {
    input.extend([verb, b" ", name, b"\0"].concat());
    for value in values {
        input.extend([value.as_bytes(), b"\0"].concat());
    }
}

/// The branches that operations in progress in a worktree use, by its git directory: one that is rebased, those that follow it
/// (`git rebase --update-refs`), and one from which a bisection was started.
fn branches_of_operations(git_dir: &Path) -> Result<Vec<RefName>> {
    let mut branches = Vec::new();
    for file in ["rebase-merge/head-name", "rebase-apply/head-name", "rebase-merge/update-refs"] {
        let text = read(&git_dir.join(file))?.unwrap_or_default();
        branches.extend(text.split(|&byte| byte == b'\n').filter_map(RefName::parse));
    }
    let start = read(&git_dir.join("BISECT_START"))?.unwrap_or_default();
    branches.extend(RefName::parse(&[b"refs/heads/", start.trim_ascii_end()].concat()));
    Ok(branches)
}

impl Merge<'_> {
    fn surroundings(&self, head: Option<&Head>, busy: bool) -> Result<Surroundings, Fault> {
        let list = self.repository.run(["worktree", "list", "--porcelain"])?;
        let mut branches: Vec<RefName> = list
            .split(|&byte| byte == b'\n')
            .filter_map(|line| line.strip_prefix(b"branch ").and_then(RefName::parse))
            .collect();
        let current = match head {
            Some(Head::Branch(name)) => Some(name.clone()),
            _ => None,
        };
        // The entry of this worktree itself is not another worktree's.
        if let Some(at) = branches.iter().position(|name| Some(name) == current.as_ref()) {
            branches.remove(at);
        }
        let mut in_use: BTreeSet<RefName> = branches.into_iter().collect();
        if busy {
            in_use.extend(current.clone());
        }
        for git_dir in worktrees(&self.repository.place.common_dir) {
            in_use.extend(branches_of_operations(&git_dir)?);
        }
        let obeyed = self.incoming.obeyed.clone();
        Ok(Surroundings { in_use, current, obeyed, ..Surroundings::default() })
    }

    /// Those of some new names that mean something else to git, too: an abbreviated object, or a branch of a remote once it is
    /// fetched. A person who gives such a name would be led to the sandbox's commit instead.
    fn ambiguous<'n>(&self, names: impl Iterator<Item = &'n RefName>) -> Result<BTreeSet<RefName>, Fault> {
        let names: Vec<&RefName> = names.collect();
        let mut found = BTreeSet::new();
        if names.is_empty() {
            return Ok(found);
        }
        let ours = self.repository.settings()?;
        let remotes = config::remotes(&ours).into_iter().chain(config::remotes(&self.incoming.theirs.config));
        let remotes: Vec<Vec<u8>> = remotes.map(<[u8]>::to_ascii_lowercase).collect();
        for name in &names {
            let short = name.short().to_ascii_lowercase();
            if folders_of(&short).any(|folder| remotes.iter().any(|remote| remote == folder)) {
                found.insert((*name).clone());
            }
        }
        let abbreviated = names.iter().filter_map(|name| Some((*name, name.abbreviated()?)));
        let (names, asked): (Vec<&RefName>, Vec<&str>) = abbreviated.unzip();
        if !asked.is_empty() {
            let mut call = self.repository.call();
            let told = call.args(["cat-file", "--batch-check"]).input(lines(asked));
            let told = told.run(self.repository.cancel)?;
            let is_known = |line: &[u8]| !line.ends_with(b" missing");
            let known =
                names.into_iter().zip(told.split(|&byte| byte == b'\n')).filter(|(_, line)| is_known(line));
            found.extend(known.map(|(name, _)| name.clone()));
        }
        Ok(found)
    }

    /// The [relation](Self::relation) of two values of a reference. Comparing two of very different histories takes git long, and the
    /// index is locked meanwhile: once that has taken long enough, values count as apart, and then both are kept.
    fn relation_of_values(&self, theirs: &Oid, ours: &Oid) -> Relation {
        let mut compared = self.compared.borrow_mut();
        let pair = (theirs.clone(), ours.clone());
        if let Some(known) = compared.known.get(&pair) {
            return *known;
        }
        if compared.took > COMPARING_MAX {
            return Relation::Apart;
        }
        let began = Instant::now();
        let relation = self.relation(theirs, ours);
        compared.took += began.elapsed();
        compared.known.insert(pair, relation);
        relation
    }

    pub(super) fn relation(&self, theirs: &Oid, ours: &Oid) -> Relation {
        // Where git cannot tell, neither descends from the other.
        let is_ancestor =
            |one: &Oid, other: &Oid| self.repository.is_ancestor(one, other).is_ok_and(|is_one| is_one);
        if is_ancestor(ours, theirs) {
            Relation::TheirsDescends
        } else if is_ancestor(theirs, ours) {
            Relation::OursDescends
        } else {
            Relation::Apart
        }
    }

    /// Whether the repository in the sandbox is another one than was sent.
    ///
    /// It is if it was made anew, and the branches share no root commit. That objects are missing there proves nothing: after
    /// history was rewritten and collected, those that were sent are gone from the same repository too.
    pub(super) fn is_another(&self) -> Result<bool, Fault> {
        if config::are_marked(&self.incoming.theirs.config) || !self.incoming.base.is_marked {
            return Ok(false);
        }
        let branches = |refs: &Refs| -> BTreeSet<Oid> {
            refs.iter()
                .filter(|(name, _)| name.kind() == RefKind::Branch)
                .map(|(_, oid)| oid.clone())
                .collect()
        };
        // A checkout of a continuous integration has no branch.
        let tips = |side: &Base| -> BTreeSet<Oid> {
            let mut tips = branches(&side.refs);
            if let Some(Head::Detached(oid)) = &side.head {
                tips.insert(oid.clone());
            }
            tips
        };
        let (sent, there) = (tips(&self.incoming.base), tips(&self.incoming.theirs));
        if sent.is_empty() || sent.intersection(&there).next().is_some() {
            return Ok(false);
        }
        // The first two that are compared usually share history, which git finds at once.
        let (sent_tip, their_tip) = (sent.first(), their_commit(&self.incoming.theirs));
        if let (Some(sent), Some(there)) = (sent_tip, &their_tip) {
            let mut call = self.repository.call();
            let found =
                call.args(["merge-base", sent.as_str(), there.as_str()]).output(self.repository.cancel)?;
            if found.status == Some(0) {
                return Ok(false);
            }
        }
        let first = |of: BTreeSet<Oid>| -> Result<BTreeSet<Oid>, Fault> {
            // A commit that no longer exists here shares history with nothing.
            let present = self.repository.types(&of)?;
            let tips = lines(of.iter().filter(|oid| present.contains_key(oid)).map(Oid::as_str));
            let mut call = self.repository.call();
            let list = call
                .args(["rev-list", "--max-parents=0", "--stdin"])
                .input(tips)
                .run(self.repository.cancel)?;
            Ok(list.split(|&byte| byte == b'\n').filter_map(Oid::parse).collect())
        };
        Ok(first(sent)?.is_disjoint(&first(there)?))
    }

    /// Merges references, of which `base` has the values that both sides share, and `theirs` those of the sandbox.
    fn merge_refs(
        &mut self,
        base: &Refs,
        theirs: &Refs,
        head: Option<&Head>,
        busy: bool,
    ) -> Result<(), Fault> {
        let mut around = self.surroundings(head, busy)?;
        // A branch that was checked out here since the upload stays: index and files would not follow it.
        let heads = [&self.incoming.base.head, &self.incoming.theirs.head];
        if let Some(checked_out @ Head::Branch(name)) = head
            && !heads.into_iter().flatten().any(|other| other == checked_out)
        {
            around.in_use.insert(name.clone());
        }
        // The local references may be changed meanwhile. Git's own locks detect that.
        for attempt in 0.. {
            let (ours, symbolic) = self.repository.all_refs()?;
            around.unreadable = self.repository.unreadable(&ours, &symbolic)?;
            self.unreadable.clone_from(&around.unreadable);
            around.symbolic = symbolic;
            let unreadable = &self.unreadable;
            let new = theirs.keys().filter(|name| !ours.contains_key(name) && !unreadable.hides(name));
            around.symbolic.extend(self.repository.dangling(new)?);
            around.ambiguous = self.ambiguous(theirs.keys().filter(|name| !ours.contains_key(name)))?;
            let planned =
                plan(base, theirs, &ours, &around, &|theirs, ours| self.relation_of_values(theirs, ours));
            let planned = self.postpone_what_cannot_move(planned, head, &ours)?;
            if planned.is_empty() {
                return Ok(());
            }
            let updates: Vec<PlannedUpdate> = planned
                .into_iter()
                .map(|(name, outcome)| self.planned_update(name, &outcome, &ours))
                .collect();
            match self.make(&updates, Patience::OfGit)? {
                None => return Ok(()),
                Some(_) if attempt < 2 => {}
                Some(complaint) => return self.bisect_refused(&updates, complaint, &ours),
            }
        }
        Ok(())
    }

    /// Postpones the references that cannot be read, and the branch that is checked out while another git has its index locked. Returns
    /// the rest.
    fn postpone_what_cannot_move(
        &mut self,
        planned: Vec<(RefName, Outcome)>,
        head: Option<&Head>,
        ours: &Refs,
    ) -> Result<Vec<(RefName, Outcome)>, Fault> {
        let cannot_move = |name: &RefName, outcome: &Outcome| match outcome {
            Outcome::Aside(Reason::Unreadable) => Some(Reason::Unreadable.as_str()),
            Outcome::Theirs | Outcome::Replace | Outcome::Delete => {
                let is_checked_out = matches!(head, Some(Head::Branch(branch)) if branch == name);
                (is_checked_out && self.is_locked_by_another).then_some(LOCKED)
            }
            _ => None,
        };
        let (mut postponed, mut rest) = (BTreeMap::<&str, Vec<RefName>>::new(), Vec::new());
        for (name, outcome) in planned {
            match cannot_move(&name, &outcome) {
                Some(_) if self.due.refs.contains(&name) => {}
                Some(reason) => postponed.entry(reason).or_default().push(name),
                None => rest.push((name, outcome)),
            }
        }
        let postponed: Vec<_> =
            postponed.into_iter().map(|(reason, names)| (names, reason.to_owned())).collect();
        self.postpone(&postponed, ours)?;
        Ok(rest)
    }

    /// What git is to do for the outcome of one reference.
    fn planned_update(&self, name: RefName, outcome: &Outcome, ours: &Refs) -> PlannedUpdate {
        let (theirs, ours) = (self.incoming.theirs.refs.get(&name), ours.get(&name));
        let repository = &self.incoming.dot_git;
        let zero = self.repository.zero();
        let (text, below) = (name.to_string(), name.as_bytes().strip_prefix(b"refs/").unwrap_or_default());
        let kept =
            |under: &str| [b"refs/paperclip/", self.time.as_bytes(), b"/", under.as_bytes(), below].concat();
        let (mut input, mut told) = (Vec::new(), GitReport::default());
        let mut keep = |input: &mut Vec<u8>, kept: &[u8], oid: &Oid| {
            command(input, b"update", kept, &[oid.as_str(), &zero]);
            told.kept.push(KeptReference {
                repository: repository.clone(),
                reference: text.clone(),
                kept_at: readable(kept),
            });
        };
        match (outcome, theirs, ours) {
            (Outcome::Aside(reason), theirs, _) => {
                if let Some(theirs) = theirs {
                    keep(&mut input, &kept(""), theirs);
                }
                let reason = reason.as_str().to_owned();
                told.held_back.push(HeldBack { path: repository.clone(), what: Some(text), reason });
            }
            (Outcome::Delete, _, Some(ours)) => {
                keep(&mut input, &kept("deleted/"), ours);
                command(&mut input, b"delete", name.as_bytes(), &[ours.as_str()]);
                told.deleted.push((repository.clone(), text));
            }
            (Outcome::Theirs | Outcome::Replace, Some(theirs), ours) => {
                if let (Outcome::Replace, Some(ours)) = (outcome, ours) {
                    keep(&mut input, &kept("replaced/"), ours);
                }
                let before = ours.map_or(&zero[..], Oid::as_str);
                command(&mut input, b"update", name.as_bytes(), &[theirs.as_str(), before]);
                told.updated.push((repository.clone(), text));
            }
            _ => {}
        }
        PlannedUpdate { name, input, told }
    }

    /// Has git make all these updates or none of them. Returns what it says if it makes none.
    fn make(&mut self, updates: &[PlannedUpdate], patience: Patience) -> Result<Option<String>, Fault> {
        let input = updates.iter().flat_map(|update| update.input.iter().copied()).collect();
        let logs = updates.iter().map(|update| self.log_to_keep(&update.told)).collect::<Result<Vec<_>>>()?;
        for PlannedUpdate { name, .. } in updates {
            self.stage_ahead(name)?;
        }
        let complaint = self.transact(input, patience)?;
        if complaint.is_none() {
            for (log, text) in logs.into_iter().flatten() {
                if let Some(folder) = log.parent() {
                    make_folders(folder)?;
                }
                write(&log, &text)?;
            }
            for PlannedUpdate { told, .. } in updates {
                self.report.updated.extend(told.updated.iter().cloned());
                self.report.deleted.extend(told.deleted.iter().cloned());
                self.report.kept.extend(told.kept.iter().cloned());
                self.report.held_back.extend(told.held_back.iter().cloned());
            }
        }
        Ok(complaint)
    }

    /// The reflog of a reference that is deleted, which git deletes with it, and the file of the one that is kept in its stead.
    /// What only the reflog names would otherwise be collected sooner than its owner expects.
    fn log_to_keep(&self, told: &GitReport) -> Result<Option<(PathBuf, Vec<u8>)>> {
        let [(_, name)] = &told.deleted[..] else { return Ok(None) };
        let Some(KeptReference { kept_at, .. }) = told.kept.first() else { return Ok(None) };
        let logs = self.repository.place.common_dir.join("logs");
        let file = logs.join(name);
        // A repository with reftables has its reflogs elsewhere.
        if !by_path::is_file(&file) {
            return Ok(None);
        }
        Ok(read(&file)?.map(|text| (logs.join(kept_at), text)))
    }

    /// Has git obey all these commands or none of them. Returns what it says if it obeys none.
    fn transact(&self, input: Vec<u8>, patience: Patience) -> Result<Option<String>, Fault> {
        let mut call = self.repository.step();
        if patience == Patience::None {
            for (number, key) in
                ["core.packedRefsTimeout", "core.filesRefLockTimeout"].into_iter().enumerate()
            {
                call.env(&format!("GIT_CONFIG_KEY_{number}"), key);
                call.env(&format!("GIT_CONFIG_VALUE_{number}"), "0");
            }
            call.env("GIT_CONFIG_COUNT", "2");
        }
        call.args(["update-ref", "-m", "restore: from the sandbox", "--stdin", "-z"]).input(input);
        match call.output(self.repository.cancel) {
            Ok(output) => Ok((output.status != Some(0)).then(|| output.complaint())),
            Err(Fault::Killed(reason)) => Ok(Some(reason)),
            Err(fault) => Err(fault),
        }
    }

    /// Makes those updates that git accepts, after it refused all of them together because of some. Each part
    /// that it refuses is divided.
    fn bisect_refused(
        &mut self,
        updates: &[PlannedUpdate],
        complaint: String,
        ours: &Refs,
    ) -> Result<(), Fault> {
        let mut parts = vec![(updates, complaint)];
        let mut refused = Vec::new();
        let mut calls = 0;
        while let Some((part, complaint)) = parts.pop() {
            if part.len() == 1 || calls >= PARTS_MAX {
                refused.push((part, complaint));
                continue;
            }
            let (first, second) = part.split_at(part.len() / 2);
            for half in [second, first] {
                calls += 1;
                if let Some(complaint) = self.make(half, Patience::None)? {
                    parts.push((half, complaint));
                }
            }
        }
        let told = |(part, complaint): (&[PlannedUpdate], String)| {
            let reason = match part {
                [_] => format!("git refuses it: {complaint}"),
                _ => format!("git refused it together with others: {complaint}"),
            };
            (part.iter().map(|update| update.name.clone()).collect(), reason)
        };
        let refused: Vec<(Vec<RefName>, String)> = refused.into_iter().map(told).collect();
        self.postpone(&refused, ours)
    }

    /// Leaves references to the next restore, for the reasons given, and keeps what they have in the sandbox.
    fn postpone(&mut self, refused: &[(Vec<RefName>, String)], ours: &Refs) -> Result<(), Fault> {
        let zero = self.repository.zero();
        // A value that no local reference names is kept, unless an earlier restore has kept it.
        let mut named: BTreeSet<&Oid> = ours.values().collect();
        let (mut input, mut kept) = (Vec::new(), Vec::new());
        for (names, reason) in refused {
            for name in names {
                self.hold(name.to_string(), reason);
                self.due.refs.insert(name.clone());
                let Some(theirs) = self.incoming.theirs.refs.get(name) else { continue };
                if named.insert(theirs) {
                    let kept_at = format!("refs/paperclip/{}/refused/{theirs}", self.time);
                    command(&mut input, b"update", kept_at.as_bytes(), &[theirs.as_str(), &zero]);
                    let (repository, reference) = (self.incoming.dot_git.clone(), name.to_string());
                    kept.push(KeptReference { repository, reference, kept_at });
                }
            }
        }
        if input.is_empty() {
            return Ok(());
        }
        match self.transact(input, Patience::None)? {
            None => self.report.kept.extend(kept),
            // Not an error: `HEAD` and index must follow the references that moved. The next restore brings
            // the others again.
            Some(complaint) => {
                let what = format!("refs/paperclip/{}/refused", self.time);
                self.hold(
                    what,
                    &format!("what waits for the next restore could not be kept there: {complaint}"),
                );
            }
        }
        Ok(())
    }

    /// Whether a `HEAD` names a branch that git has refused to change, or cannot read.
    pub(super) fn is_refused(&self, head: Option<&Head>) -> bool {
        let waits = |name| self.due.refs.contains(name) || self.unreadable.hides(name);
        matches!(head, Some(Head::Branch(name)) if waits(name))
    }

    fn merge_head(&mut self, ours: Option<&Head>, busy: bool) -> Result<(), Fault> {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        if theirs.head == base.head || theirs.head.as_ref() == ours {
            return Ok(());
        }
        let Some(head) = &theirs.head else { return Ok(()) };
        let unreadable = match (head, ours) {
            _ if self.is_locked_by_another => Some(LOCKED),
            (Head::Branch(name), _) if self.unreadable.hides(name) => Some("its local branch cannot be read"),
            // Git does not tell which branch is checked out if it cannot look for it.
            (_, None) if base.head.is_some() => Some("the local HEAD, or its branch, cannot be read"),
            _ => None,
        };
        if let Some(reason) = unreadable {
            self.due.head = true;
            self.keep_refused(head)?;
            self.hold("HEAD", reason);
            return Ok(());
        }
        let reason = if ours != base.head.as_ref() {
            Some("both sides checked out something else")
        } else if busy {
            Some("a local operation is in progress")
        } else if let Head::Detached(oid) = head
            && let Some(reason) = self.incoming.obeyed.get(oid)
        {
            Some(&**reason)
        } else if let Head::Branch(name) = head {
            let here = self.repository.commit_of(name.as_bytes())?;
            let there = theirs.refs.get(name);
            let follows = match (&here, there) {
                // A branch without a commit: the next commit creates it, so its name must be acceptable.
                (None, None) => {
                    base.refs.contains_key(name)
                        || Taken::by(self.repository.refs()?.keys()).obstacle(name).is_none()
                            && self.ambiguous([name].into_iter())?.is_empty()
                }
                // If it has more commits here, the files and the index of these did not come.
                (here, there) => here.as_ref() == there,
            };
            let used = self.surroundings(ours, false)?.in_use.contains(name);
            (!follows || used)
                .then_some("its branch is not taken over, or another worktree has it checked out")
        } else {
            None
        };
        if let Some(reason) = reason {
            self.due.head = self.is_refused(Some(head));
            // The commit of a branch that git refused is kept already.
            if let Some(oid) = their_commit(theirs).filter(|_| !self.due.head) {
                self.keep("HEAD", &oid, format!("refs/paperclip/{}/HEAD", self.time))?;
            }
            self.hold("HEAD", reason);
            return Ok(());
        }
        self.keep_detached(ours, head)?;
        let mut call = self.repository.step();
        match head {
            Head::Branch(name) => {
                call.args(["symbolic-ref", "-m", "restore: from the sandbox", "HEAD"])
                    .arg(export::path_of(name.as_bytes()));
            }
            Head::Detached(oid) => {
                call.args([
                    "update-ref",
                    "--no-deref",
                    "-m",
                    "restore: from the sandbox",
                    "HEAD",
                    oid.as_str(),
                ]);
            }
        }
        match call.run(self.repository.cancel) {
            Ok(_) => self.report.updated.push((self.incoming.dot_git.clone(), "HEAD".to_owned())),
            Err(Fault::Refused(reason) | Fault::Killed(reason)) => {
                self.due.head = true;
                self.keep_refused(head)?;
                self.hold("HEAD", &reason);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Keeps the commit of a detached `HEAD` that git refuses to set, unless a reference reaches it.
    fn keep_refused(&mut self, head: &Head) -> Result<(), Fault> {
        let Head::Detached(commit) = head else { return Ok(()) };
        if !self.repository.unreached(&BTreeSet::from([commit]))?.contains(commit) {
            return Ok(());
        }
        self.keep("HEAD", commit, format!("refs/paperclip/{}/refused/{commit}", self.time))
    }

    /// Keeps the commit of a detached local `HEAD` under a reference, if it would be unreachable once `HEAD` moves.
    fn keep_detached(&mut self, ours: Option<&Head>, theirs: &Head) -> Result<(), Fault> {
        let Some(Head::Detached(commit)) = ours else { return Ok(()) };
        // Git never deletes these by itself. A stash is dropped, and what a restore has kept is deleted some day.
        let mut refs = self.repository.refs()?;
        refs.retain(|name, _| {
            matches!(name.kind(), RefKind::Branch | RefKind::Tag)
                || name.as_bytes().starts_with(b"refs/remotes/")
        });
        let mut others: BTreeSet<Oid> = refs.into_values().collect();
        if let Head::Detached(theirs) = theirs {
            others.insert(theirs.clone());
        }
        // A local reference may be broken.
        let others: BTreeSet<Oid> = self.repository.types(&others)?.into_keys().collect();
        if !self.repository.beyond(&BTreeSet::from([commit]), &others)?.contains(commit) {
            return Ok(());
        }
        let kept = format!("refs/paperclip/{}/replaced/HEAD", self.time);
        self.keep("HEAD", commit, kept)
    }

    /// Merges the references and `HEAD`. A branch that was deleted there is left first, if it is checked out here.
    pub(super) fn move_references(&mut self, head: Option<&Head>, busy: bool) -> Result<(), Fault> {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        let left = match head {
            Some(Head::Branch(name)) if !theirs.refs.contains_key(name) => base.refs.get_key_value(name),
            _ => None,
        };
        let mut way = in_the_way(&base.refs, &theirs.refs);
        if let Some((name, _)) = left {
            way.remove(name);
        }
        if !way.is_empty() {
            self.merge_refs(&way, &Refs::new(), head, busy)?;
        }
        let Some((name, oid)) = left else {
            self.merge_refs(&base.refs, &theirs.refs, head, busy)?;
            return self.merge_head(head, busy);
        };
        let mut others = base.refs.clone();
        others.remove(name);
        self.merge_refs(&others, &theirs.refs, head, busy)?;
        self.merge_head(head, busy)?;
        if self.due.head {
            // It can be left once git sets `HEAD`.
            self.due.refs.insert(name.clone());
            return Ok(());
        }
        let (left, head) = (Refs::from([(name.clone(), oid.clone())]), self.repository.head()?);
        self.merge_refs(&left, &Refs::new(), head.as_ref(), busy)
    }
}
