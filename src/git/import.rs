//! Merges the repositories of the sandbox into the local ones.
//!
//! First everything is [checked](check) and nothing here is changed; then it is [applied](Checked::apply): objects, then
//! references, then `HEAD` and the index, then settings. A kill at any point leaves a sound repository, on which the same
//! restore completes.

mod create;
mod merging;
mod read;
mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::read::{Around, read_repository, was_moved};
use self::refused::{Refused, earlier_backups};
use super::command::{Fault, Git};
use super::export::{Base, Bases};
use super::obeyed::{self, Parts};
use super::objects;
use super::quarantine::{LEADS_ELSEWHERE, Quarantine, Received};
use super::recognise::{in_checkout, inner};
use super::refs::{Head, Oid, RefKind, RefName, Refs};
use super::report::{GitReport, HeldBack};
use super::repository::Place;
use super::{index, stored};
use crate::cancel::Cancel;
use crate::error::{Result, readable};
use crate::fs::Root;
use crate::path::{RelativePath, bytes_of};

/// What was received and passed all checks. Nothing local is changed yet.
#[derive(Debug)]
pub struct Checked {
    repositories: Vec<Incoming>,
    refused: Vec<Refused>,
    bases: Bases,
    report: GitReport,
}

/// One repository of the sandbox, read and checked.
#[derive(Debug)]
struct Incoming {
    dot_git: RelativePath,
    /// The local repository; `None` for a new one.
    place: Option<Place>,
    format: String,
    base: Base,
    theirs: Base,
    /// Stash entries that are not in the base, oldest first, with messages.
    stashes: Vec<(Oid, Vec<u8>)>,
    /// The commits that may be on no reference, by the file in the git directory that names them: those of linked worktrees in
    /// which no branch is checked out, and those with the changes that an operation in progress has put aside.
    commits: BTreeMap<String, Oid>,
    pack: Option<objects::Pack>,
    /// Objects of Git LFS, by digest.
    large_files: BTreeSet<String>,
    folder: PathBuf,
    /// Whether something is left out because it names an object of the wrong type, or one that was not received.
    may_lack: bool,
    /// Whether their index is gone or cannot be read, so that only the commits tell what changed in it.
    index_is_unknown: bool,
    /// The commits there that have something in which git would obey the sandbox.
    obeyed: BTreeMap<Oid, Arc<str>>,
    /// The paths in the checkout that new commits or the index change.
    changed: BTreeSet<Vec<u8>>,
    /// The entries of their index, if it is held back as a whole.
    held_index: Vec<u8>,
    /// All references there, if some are left out since objects of their history are missing.
    with_lacking: Option<Refs>,
}

/// The reason for refusing a repository that is not the one that was sent.
const GONE: &str = "the local repository is gone or is another one than at prepare";

/// Reads and checks what is in the quarantine. Without a local git, or where git refuses, a repository is held back and
/// the restore continues.
pub fn check(
    git: Option<&Git>,
    workspace: &Root,
    bases: &Bases,
    quarantine: Quarantine,
    stored: &stored::Known,
    cancel: &Cancel,
) -> Result<Checked> {
    let mut checked = Checked {
        repositories: Vec::new(),
        refused: Vec::new(),
        bases: bases.clone(),
        report: GitReport { held_back: quarantine.held_back.into_iter().collect(), ..GitReport::default() },
    };
    // Submodules come first: what they hold back is held back above them too.
    let mut repositories: Vec<(RelativePath, Received)> = quarantine.repositories.into_iter().collect();
    repositories.sort_by_key(|(dot_git, _)| std::cmp::Reverse(dot_git.ancestors().count()));
    for (dot_git, received) in repositories {
        if received.is_absorbed && !was_moved(git, &received, cancel)? {
            let reason = LEADS_ELSEWHERE.to_owned();
            checked.report.held_back.push(HeldBack { path: dot_git, what: None, reason });
            continue;
        }
        let outcome = match git {
            None => Err(Fault::Refused("there is no git on this machine".to_owned())),
            Some(git) => {
                let around = Around { workspace, bases, read: &checked.repositories, stored };
                read_repository(git, around, &dot_git, &received, &mut checked.report, cancel)
            }
        };
        match outcome {
            Ok(incoming) => checked.repositories.push(incoming),
            Err(Fault::Error(error)) => return Err(error),
            Err(Fault::Refused(reason) | Fault::Killed(reason)) => {
                let Received { folder, references, .. } = received;
                checked.refused.push(Refused { dot_git, folder, references, reason, pack: None });
            }
        }
    }
    checked.repositories.sort_by(|one, other| one.dot_git.cmp(&other.dot_git));
    Ok(checked)
}

impl Checked {
    /// What is held back, if nothing is to be merged.
    #[must_use]
    pub fn into_held_back(self) -> Vec<HeldBack> {
        let Self { refused, report: GitReport { mut held_back, .. }, .. } = self;
        held_back.extend(refused.into_iter().map(|Refused { dot_git: path, reason, .. }| HeldBack {
            path,
            what: None,
            reason,
        }));
        held_back
    }

    /// The paths of the workspace that new commits or an index change, whatever its files are.
    #[must_use]
    pub fn changed(&self) -> BTreeSet<RelativePath> {
        let paths = self.repositories.iter().flat_map(|incoming| {
            let checkout = incoming.dot_git.parent();
            // A path that no file here can have is not written.
            let in_workspace = move |path: &Vec<u8>| in_checkout(checkout.as_ref(), path).ok().flatten();
            incoming.changed.iter().filter_map(in_workspace)
        });
        paths.collect()
    }

    /// The paths of the workspace that a checkout of new commits writes, by the `.git` of each checkout in the workspace in which they can
    /// be checked out: worktrees of one repository have the same commits.
    #[must_use]
    pub fn at_checkouts(&self) -> BTreeMap<RelativePath, BTreeSet<RelativePath>> {
        let mut found: BTreeMap<RelativePath, BTreeSet<RelativePath>> = BTreeMap::new();
        for incoming in self.repositories.iter().filter(|incoming| !incoming.changed.is_empty()) {
            let is_same = |base: &Base| match (&base.place, &incoming.place) {
                (Some(one), Some(other)) => one.common_dir == other.common_dir,
                _ => false,
            };
            let worktrees = self.bases.iter().filter(|(_, base)| is_same(base)).map(|(dot_git, _)| dot_git);
            let all: BTreeSet<&RelativePath> = worktrees.chain([&incoming.dot_git]).collect();
            for dot_git in all {
                let checkout = dot_git.parent();
                let in_workspace = |path: &Vec<u8>| in_checkout(checkout.as_ref(), path).ok().flatten();
                let paths = incoming.changed.iter().filter_map(in_workspace);
                found.entry(dot_git.clone()).or_default().extend(paths);
            }
        }
        found
    }

    /// Adds the parts of a repository that what came gives some folders of the workspace, by any worktree of the repository that the
    /// folder is in.
    pub fn add_parts(&self, folders: &BTreeSet<Vec<u8>>, parts: &mut BTreeMap<Vec<u8>, Parts>) {
        let common = |dot_git: &RelativePath, place: Option<&Place>| {
            place.map_or_else(|| dot_git.as_path().to_path_buf(), |place| place.common_dir.clone())
        };
        let mut came: BTreeMap<(PathBuf, &[u8]), Parts> = BTreeMap::new();
        for incoming in &self.repositories {
            let common = common(&incoming.dot_git, incoming.place.as_ref());
            for (folder, part) in incoming.changed.iter().flat_map(|path| obeyed::parts(path)) {
                came.entry((common.clone(), folder)).or_default().add(part);
            }
        }
        if came.is_empty() {
            return;
        }
        let known = self.bases.iter().map(|(dot_git, base)| (dot_git, base.place.as_ref()));
        let new = self.repositories.iter().map(|incoming| (&incoming.dot_git, incoming.place.as_ref()));
        for (dot_git, place) in known.chain(new) {
            let (checkout, common) = (dot_git.parent(), common(dot_git, place));
            for folder in folders {
                let Some(inner) = inner(checkout.as_ref(), folder) else { continue };
                if let Some(found) = came.get(&(common.clone(), inner)) {
                    let known = parts.entry(folder.clone()).or_default();
                    *known = known.or(*found);
                }
            }
        }
    }

    /// Whether something was refused or held back because an object is missing that the sandbox may have.
    #[must_use]
    pub fn lacks_objects(&self) -> bool {
        self.refused.iter().any(|refused| refused.reason.starts_with(objects::MISSING))
            || self.repositories.iter().any(|repository| repository.may_lack)
    }

    /// Whether something was refused or held back because an object is missing, or may be.
    #[must_use]
    pub fn may_lack_objects(&self) -> bool {
        !self.refused.is_empty() || self.repositories.iter().any(|repository| repository.may_lack)
    }

    /// Whether there is anything to merge or to keep.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.refused.is_empty() || self.repositories.iter().any(Incoming::has_news)
    }

    /// Merges what was checked into the local repositories, after the files of the workspace. `time` is part
    /// of the names of references that are stored (`refs/paperclip/<time>/…`). `aside` makes the folder for
    /// the objects and references that git cannot take, if there are any. Afterwards, what both sides share
    /// is the base of the next restore. This cannot be cancelled, because a git that is ended while it works
    /// leaves its locks behind.
    pub fn apply(
        self,
        git: Option<&Git>,
        workspace: &Root,
        time: &str,
        aside: &dyn Fn() -> Result<PathBuf>,
    ) -> Result<(GitReport, Bases)> {
        let cancel = &Cancel::default();
        let (mut report, mut bases) = (self.report, self.bases);
        let mut refused = self.refused;
        // What was refused may pass the next time: there was no git here, memory was short, or the local repository could not be read.
        report.is_incomplete |= !refused.is_empty();
        let mut merged: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for mut incoming in self.repositories {
            let outcome = match git {
                None => refuse("there is no git on this machine"),
                Some(git) => {
                    let mut time = time.replace(':', "-");
                    // Worktrees of one repository in this workspace have the same references.
                    if let Some(place) = &incoming.place {
                        let number = merged.entry(place.common_dir.clone()).or_default();
                        *number += 1;
                        if *number > 1 {
                            time = format!("{time}-{number}");
                        }
                    }
                    incoming.apply(git, workspace, &time, &mut report, cancel)
                }
            };
            match outcome {
                Ok(base) => {
                    bases.insert(incoming.dot_git.clone(), base);
                    if let Some(refs) = incoming.with_lacking.take() {
                        // A `git fetch --unshallow` here may bring them.
                        report.is_incomplete = true;
                        let reason = "objects of some of its references are missing in the sandbox";
                        refused.push(incoming.into_refused(refs, reason.to_owned()));
                    }
                }
                Err(Fault::Error(error)) if !error.forbids_writing() => return Err(error),
                Err(fault) => {
                    let reason = match fault {
                        Fault::Refused(reason) | Fault::Killed(reason) => reason,
                        // The other repositories are merged all the same.
                        Fault::Error(error) => format!("this process may not do that in it ({error})"),
                    };
                    report.is_incomplete = true;
                    // Nothing of a new one is there.
                    if incoming.place.is_none() {
                        report.take_back(&incoming.dot_git);
                    }
                    let refs = std::mem::take(&mut incoming.theirs.refs);
                    refused.push(incoming.into_refused(refs, reason));
                }
            }
        }
        // The backup of `git/.git` lies inside that of `.git`, which must be moved there first.
        refused.sort_by(|one, other| one.dot_git.cmp(&other.dot_git));
        let earlier = if refused.is_empty() { Vec::new() } else { earlier_backups(workspace)? };
        let mut made: Option<PathBuf> = None;
        for one in refused {
            one.complete()?;
            let below = one.dot_git.as_path().parent().unwrap_or(Path::new("")).join("git");
            let mut kept_at = None;
            for folder in &earlier {
                if one.is_kept_in(&folder.join(&below))? {
                    kept_at = Some(folder.join(&below));
                    break;
                }
            }
            let kept_at = match (kept_at, &made) {
                (Some(kept_at), _) => kept_at,
                (None, Some(made)) => one.back_up(made, &below)?,
                (None, None) => one.back_up(made.insert(aside()?), &below)?,
            };
            let kept_at = kept_at.strip_prefix(workspace.path()).unwrap_or(&kept_at);
            let reason = format!("{}; what came is at {}", one.reason, readable(bytes_of(kept_at)));
            report.held_back.push(HeldBack { path: one.dot_git, what: None, reason });
        }
        report.held_back.sort();
        report.held_back.dedup();
        Ok((report, bases))
    }
}

impl Incoming {
    /// Whether anything differs from what both sides last shared.
    fn has_news(&self) -> bool {
        let without_stash = |refs: &Refs| -> Refs {
            refs.iter()
                .filter(|(name, _)| name.kind() != RefKind::Stash)
                .map(|(name, oid)| (name.clone(), oid.clone()))
                .collect()
        };
        let (base, theirs) = (&self.base, &self.theirs);
        self.place.is_none()
            || without_stash(&base.refs) != without_stash(&theirs.refs)
            || (&theirs.head, &theirs.index, &theirs.config) != (&base.head, &base.index, &base.config)
            || !self.stashes.is_empty()
            || !self.commits.is_empty()
            || !self.large_files.is_empty()
            || !self.held_index.is_empty()
    }

    /// The objects that references, `HEAD` and stash name there, and did not name when they were last shared.
    fn tips(&self) -> BTreeSet<Oid> {
        let (base, theirs) = (&self.base, &self.theirs);
        let is_new = |(name, oid): &(&RefName, &Oid)| {
            matches!(name.kind(), RefKind::Branch | RefKind::Tag) && base.refs.get(*name) != Some(*oid)
        };
        let mut tips: BTreeSet<Oid> = theirs.refs.iter().filter(is_new).map(|(_, oid)| oid.clone()).collect();
        if let Some(Head::Detached(oid)) = &theirs.head
            && theirs.head != base.head
        {
            tips.insert(oid.clone());
        }
        tips.extend(self.stashes.iter().map(|(oid, _)| oid.clone()));
        tips.extend(self.commits.values().cloned());
        tips
    }
}

impl Incoming {
    /// What is kept of it with these references, if not all of it is merged.
    fn into_refused(self, refs: Refs, reason: String) -> Refused {
        let Self { dot_git, folder, pack, .. } = self;
        let references = refs.into_iter().map(|(name, oid)| (name, oid.to_string().into_bytes())).collect();
        Refused { dot_git, folder, references, reason, pack: pack.map(|pack| pack.file) }
    }
}

/// Gives a reference the value that it has in the base, or removes it if it has none there.
fn restore_base(refs: &mut Refs, base: &Refs, name: RefName) {
    match base.get(&name) {
        Some(oid) => refs.insert(name, oid.clone()),
        None => refs.remove(&name),
    };
}

fn refuse<T>(reason: &str) -> Result<T, Fault> {
    Err(Fault::Refused(reason.to_owned()))
}

/// The commit that the sandbox has checked out.
fn their_commit(theirs: &Base) -> Option<Oid> {
    match theirs.head.as_ref()? {
        Head::Branch(name) => theirs.refs.get(name).cloned(),
        Head::Detached(oid) => Some(oid.clone()),
    }
}

/// The blobs in their index that are not in the base's.
fn staged_blobs(theirs: &Base, base: &Base) -> BTreeSet<Oid> {
    if theirs.index == base.index {
        return BTreeSet::new();
    }
    index::new_blobs(&theirs.index, &base.index)
}

fn stash_name() -> RefName {
    RefName::parse(b"refs/stash").unwrap_or_else(|| unreachable!("it is a reference's name"))
}
