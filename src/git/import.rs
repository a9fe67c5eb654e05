//! Merges the repositories of the sandbox into the local ones.
//!
//! First everything is [checked](check) and nothing here is changed; then it is [applied](Checked::apply): objects, then
//! references, then `HEAD` and the index, then settings. A kill at any point leaves a sound repository, on which the same
//! restore completes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::command::{Call, Fault, Git, Waiting, short};
use super::config::{self, Settings};
use super::export::{Base, Bases, configuration, locate, read_settings};
use super::held;
use super::index;
use super::keep;
use super::obeyed::{self, Parts};
use super::objects::{self, Theirs};
use super::quarantine::{LEADS_ELSEWHERE, Quarantine, REFTABLE, Received};
use super::recognise::{MARKERS, bare_folders, in_checkout, inner};
use super::refs::{
    Head, Oid, Outcome, Reason, RefKind, RefName, Refs, Relation, Surroundings, Taken, Unreadable,
    folders_of, in_the_way, plan,
};
use super::report::{GitReport, HeldBack, KeptReference};
use super::repository::{Known, Place, Repository, Stashes, has_format, lines, worktrees};
use super::search::{Locally, Search, has_repository, local_head};
use super::staged_only::StagedOnly;
use super::stored;
use super::their_refs::{self, Files, NAMES_OTHER_FORMAT, Read};
use super::unfinished::{self, Change};
use crate::cancel::Cancel;
use crate::error::{Result, readable};
use crate::fs::by_path::{self, make_folders, read, write};
use crate::fs::{FileId, Kind, Onto, Renamed, Root, move_to, rename};
use crate::merge::conflicts::backup_root;
use crate::path::{RelativePath, bytes_of};
use crate::tree::stage::{RuntimeFolder, remove_tree, remove_unused_runtime, runtime};

/// How often, and how far apart, to check whether another git process has released the index.
const LOCK_LOOKS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The maximum number of calls of git to find the references that it refuses.
const PARTS_MAX: usize = 64;

/// The maximum number of settings that one restore adds.
const SETTINGS_MAX: usize = 1000;

/// What was received and passed all checks. Nothing local is changed yet.
#[derive(Debug)]
pub struct Checked {
    repositories: Vec<Incoming>,
    refused: Vec<Refused>,
    bases: Bases,
    report: GitReport,
}

/// One repository of the sandbox that is not merged.
#[derive(Debug)]
struct Refused {
    dot_git: RelativePath,
    /// Its folder in the quarantine.
    folder: PathBuf,
    references: BTreeMap<RefName, Vec<u8>>,
    reason: String,
    /// The pack of its new objects, if they passed the checks.
    pack: Option<PathBuf>,
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
}

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
            Err(Fault::Refused(reason)) => {
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

    /// Whether something was refused or held back because an object is missing, or may be.
    #[must_use]
    pub fn may_lack_objects(&self) -> bool {
        !self.refused.is_empty() || self.repositories.iter().any(|repository| repository.may_lack)
    }
}

fn refuse<T>(reason: &str) -> Result<T, Fault> {
    Err(Fault::Refused(reason.to_owned()))
}

/// Whether the repository that a `.git` leads to is the one that was sent, rather than one that was cloned there anew.
fn was_moved(git: Option<&Git>, received: &Received, cancel: &Cancel) -> Result<bool> {
    let [head, settings] = ["head", "settings"].map(|name| received.folder.join(name));
    if !by_path::exists(&head) || !by_path::exists(&settings) {
        return Ok(false);
    }
    // Without a git here, nothing of it is merged.
    let Some(git) = git else { return Ok(true) };
    match read_settings(git, &settings, cancel) {
        Ok(settings) => Ok(config::are_marked(&settings)),
        Err(Fault::Refused(_)) => Ok(false),
        Err(Fault::Error(error)) => Err(error),
    }
}

/// What is around a repository of the sandbox.
#[derive(Clone, Copy)]
struct Around<'a> {
    workspace: &'a Root,
    bases: &'a Bases,
    /// The repositories that were read before, all below this one among them.
    read: &'a [Incoming],
    /// What the local repositories have stored.
    stored: &'a stored::Known,
}

/// The git directories of all submodules, which may not be checked out now.
fn modules_of(common_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![common_dir.join("modules")];
    while let Some(folder) = waiting.pop() {
        if by_path::is_link(&folder) || !by_path::exists(&folder) {
            continue;
        }
        let is_repository =
            by_path::is_file(&folder.join("HEAD")) && by_path::exists(&folder.join("objects"));
        if is_repository {
            waiting.push(folder.join("modules"));
            found.push(folder);
            continue;
        }
        // The name of a submodule may have several parts.
        for name in by_path::list(&folder)? {
            let below = folder.join(name);
            if by_path::lstat(&below)?.is_some_and(|meta| meta.kind == Kind::Folder) {
                waiting.push(below);
            }
        }
    }
    Ok(found)
}

/// The commits that a repository keeps below `refs/paperclip`, and nothing else of it reaches. Nothing where git refuses it: it
/// checks nothing out there either.
fn kept_in(git: &Git, git_dir: &Path, cancel: &Cancel) -> Result<BTreeSet<Oid>, Fault> {
    let list = ["for-each-ref", "--format=%(objectname) %(refname)"];
    let output = git.call(git_dir).args(list).output(cancel)?;
    if output.status != Some(0) {
        return Ok(BTreeSet::new());
    }
    let (mut kept, mut in_use) = (BTreeSet::new(), BTreeSet::new());
    for line in output.stdout.split(|&byte| byte == b'\n') {
        let mut fields = line.splitn(2, |&byte| byte == b' ');
        let (Some(oid), Some(name)) = (fields.next().and_then(Oid::parse), fields.next()) else { continue };
        if name.starts_with(b"refs/paperclip/") {
            kept.insert(oid)
        } else {
            in_use.insert(oid)
        };
    }
    if kept.is_empty() {
        return Ok(kept);
    }
    reached(&mut git.call(git_dir), &kept, &in_use, cancel)
}

impl Around<'_> {
    /// Adds the parts of a repository that what came for other worktrees of the same repository gives these folders.
    fn add_parts_of_worktrees(
        &self,
        place: &Place,
        folders: &BTreeSet<&[u8]>,
        parts: &mut BTreeMap<Vec<u8>, Parts>,
    ) {
        let is_of_same = |other: &&Incoming| {
            other.place.as_ref().is_some_and(|other| other.common_dir == place.common_dir)
        };
        for path in self.read.iter().filter(is_of_same).flat_map(|other| &other.changed) {
            for (folder, part) in obeyed::parts(path).filter(|(folder, _)| folders.contains(folder)) {
                parts.entry(folder.to_vec()).or_default().add(part);
            }
        }
    }

    /// The commits of the repositories below that are held back, now or since an earlier restore.
    fn held_below(&self, git: &Git, dot_git: &RelativePath, cancel: &Cancel) -> Result<BTreeSet<Oid>, Fault> {
        let read = self.read.iter().map(|incoming| &incoming.dot_git);
        // What the repository itself has held back may be named as that of a submodule, too.
        let all: BTreeSet<&RelativePath> = self.bases.keys().chain(read).collect();
        let mut held = BTreeSet::new();
        let own = self.bases.get(dot_git).and_then(|base| base.place.as_ref());
        for git_dir in own.map(|place| modules_of(&place.common_dir)).transpose()?.unwrap_or_default() {
            held.append(&mut kept_in(git, &git_dir, cancel)?);
        }
        for dot_git in all {
            let read = self.read.iter().find(|incoming| incoming.dot_git == *dot_git);
            let place = match read {
                Some(incoming) => incoming.place.as_ref(),
                None => self.bases.get(dot_git).and_then(|base| base.place.as_ref()),
            };
            let mut here = BTreeSet::new();
            if let Some(place) = place.filter(|place| place.is_there()) {
                let repository = Repository { git, place, cancel };
                let known = repository.known()?;
                let kept: BTreeSet<Oid> = known.all.difference(&known.in_use).cloned().collect();
                held.append(&mut reached(&mut repository.call(), &kept, &known.in_use, cancel)?);
                here = known.in_use;
            }
            if let Some(incoming) = read {
                let tips = incoming.obeyed.keys().cloned().collect();
                let mut call = git.call(&incoming.folder.join("checked"));
                held.append(&mut reached(&mut call, &tips, &here, cancel)?);
            }
        }
        Ok(held)
    }
}

/// The commits that can be reached from some objects and not from others.
fn reached(
    call: &mut Call<'_>,
    from: &BTreeSet<Oid>,
    not: &BTreeSet<Oid>,
    cancel: &Cancel,
) -> Result<BTreeSet<Oid>, Fault> {
    if from.is_empty() {
        return Ok(BTreeSet::new());
    }
    let list = call.args(["rev-list", "--stdin"]).input(objects::between(from, not)).run(cancel)?;
    Ok(list.split(|&byte| byte == b'\n').filter_map(Oid::parse).collect())
}

/// Reads and checks one repository of the sandbox.
fn read_repository(
    git: &Git,
    around: Around<'_>,
    dot_git: &RelativePath,
    received: &Received,
    report: &mut GitReport,
    cancel: &Cancel,
) -> Result<Incoming, Fault> {
    let Around { workspace, bases, .. } = around;
    let mut base = bases.get(dot_git).cloned().unwrap_or_default();
    match (&base.place, workspace.cursor().stat(dot_git)?) {
        (Some(place), Some(meta)) if place.id == meta.id && place.is_there() => {}
        (Some(_), _) => return refuse(GONE),
        // Made on both sides, or by a restore that was killed: nothing was shared yet.
        (None, Some(_)) => base.place = Some(locate(git, workspace, dot_git, cancel)?),
        (None, None) => may_be_new(git, dot_git, &around, cancel)?,
    }
    if received.reftable {
        return refuse(REFTABLE);
    }
    let place = base.place.clone();
    let mut reading =
        Reading { git, dot_git, received, report, may_lack: false, index_is_unknown: false, cancel };
    let Some(head) = reading.text("head")? else { return refuse("it has no HEAD, so it is no repository") };
    let config = reading.settings(&base)?;
    let format = match &place {
        Some(place) => place.format.clone(),
        None => format_of(&config).to_owned(),
    };
    // The format of a repository that was sent is known, whatever its settings say now.
    let is_made_on_both_sides = bases.get(dot_git).is_none_or(|base| base.place.is_none());
    if is_made_on_both_sides && format_of(&config) != format {
        return refuse(OTHER_FORMAT);
    }
    let theirs_repository = Theirs::new(git, place.as_ref(), &format, received, cancel)?;
    let refs = reading.refs(&base, &config, &format)?;
    let log = if refs.contains_key(&stash_name()) { reading.text("stash")? } else { None };
    let mut log = stash_log(&log.unwrap_or_default());
    // The reflog of the stash may have expired.
    if let Some(newest) = refs.get(&stash_name())
        && log.last().is_none_or(|(oid, _)| oid != newest)
    {
        log.push((newest.clone(), b"a stash of the sandbox".to_vec()));
    }
    let entries = log.len();
    log.retain(|(oid, _)| has_format(oid, &format));
    if log.len() < entries {
        reading.hold("refs/stash", NAMES_OTHER_FORMAT);
    }
    let theirs = Base {
        refs,
        head: reading.head(&head, &format),
        index: reading.index(&base, &theirs_repository)?,
        index_digest: received.index_digest,
        config,
        stashes: log.iter().rev().map(|(oid, _)| oid.clone()).collect(),
        ..base.clone()
    };
    // Each new entry costs a call of git, and a log may repeat an entry any number of times.
    let mut seen: BTreeSet<Oid> = base.stashes.iter().cloned().collect();
    log.retain(|(oid, _)| seen.insert(oid.clone()));
    let commits = detached(&received.commits, &format);
    let mut incoming = Incoming {
        dot_git: dot_git.clone(),
        place: place.clone(),
        format,
        base,
        theirs,
        stashes: log,
        commits,
        pack: None,
        large_files: received.large_files.clone(),
        folder: received.folder.clone(),
        may_lack: false,
        index_is_unknown: false,
        obeyed: BTreeMap::new(),
        changed: BTreeSet::new(),
        held_index: Vec::new(),
    };
    if incoming.has_news() {
        let known = match &place {
            None => Known::default(),
            Some(place) => Repository { git, place, cancel }.known()?,
        };
        let checked = check_objects(&theirs_repository, &incoming, received, &known.all)?;
        reading.leave_out_unusable(&mut incoming, &checked);
        reading.leave_out_settings(&mut incoming, &theirs_repository)?;
        reading.leave_out_obeyed(&mut incoming, &checked, &known.in_use, around)?;
        incoming.pack = checked.pack;
    }
    incoming.may_lack = reading.may_lack;
    incoming.index_is_unknown = reading.index_is_unknown;
    Ok(incoming)
}

/// Refuses a new repository where git has another use for its folder: a bare repository, in which git would take it instead, or
/// a submodule that is not checked out, which the repository around it would fetch from then on.
fn may_be_new(git: &Git, dot_git: &RelativePath, around: &Around<'_>, cancel: &Cancel) -> Result<(), Fault> {
    let Some(checkout) = dot_git.parent() else { return Ok(()) };
    let mut cursor = around.workspace.cursor();
    let mut parts = Vec::new();
    for path in MARKERS.map(|name| RelativePath::child(Some(&checkout), name)) {
        // What has such a name counts, whatever it is.
        parts.extend(cursor.stat(&path)?.map(|_| path));
    }
    if !bare_folders(parts.iter().map(|path| (path, Kind::File))).is_empty() {
        return refuse("its folder is a local bare repository");
    }
    let outer = around.bases.iter().filter_map(|(of, base)| {
        let inner = match of.parent() {
            Some(folder) => checkout.as_bytes().strip_prefix(folder.as_bytes())?.strip_prefix(b"/")?,
            None => checkout.as_bytes(),
        };
        Some((base.place.as_ref()?, inner))
    });
    for (place, inner) in outer {
        let index = Repository { git, place, cancel }.index()?;
        let is_it = |path: &[u8]| path == inner;
        if index::entries_at(&index, is_it).any(|(_, kind, _)| kind == Kind::Folder) {
            return refuse("a submodule that was first checked out in the sandbox comes back as files");
        }
    }
    Ok(())
}

/// The commits that these `HEAD`s name, without those that name a branch.
fn detached(heads: &BTreeMap<String, Vec<u8>>, format: &str) -> BTreeMap<String, Oid> {
    let commits =
        heads.iter().filter_map(|(name, text)| Some((name.clone(), Oid::parse(text.trim_ascii_end())?)));
    commits.filter(|(_, oid)| has_format(oid, format)).collect()
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

/// The reason for refusing a repository that is not the one that was sent.
const GONE: &str = "the local repository is gone or is another one than at prepare";

/// The reason for refusing a repository of another format.
const OTHER_FORMAT: &str =
    "its objects have another format (SHA-1 or SHA-256) than those of the local repository";

/// The reason for refusing a repository whose objects were deleted here while a restore ran.
const COLLECTED: &str = "objects were deleted locally meanwhile, as by git gc";

/// Reads the files of one repository in the quarantine.
struct Reading<'a> {
    git: &'a Git,
    dot_git: &'a RelativePath,
    received: &'a Received,
    report: &'a mut GitReport,
    /// See [`Incoming::may_lack`].
    may_lack: bool,
    /// See [`Incoming::index_is_unknown`].
    index_is_unknown: bool,
    cancel: &'a Cancel,
}

impl Reading<'_> {
    fn text(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read(&self.received.folder.join(name))
    }

    fn hold(&mut self, what: impl Into<String>, reason: &str) {
        self.report.held_back.push(HeldBack {
            path: self.dot_git.clone(),
            what: Some(what.into()),
            reason: reason.to_owned(),
        });
    }

    /// Holds back what names an object of the wrong type, or one that was not received.
    ///
    /// A full download may have that object.
    fn hold_unusable(&mut self, what: impl Into<String>, reason: &str) {
        self.may_lack = true;
        self.hold(what, reason);
    }

    fn settings(&mut self, base: &Base) -> Result<Settings, Fault> {
        let file = self.received.folder.join("settings");
        if !by_path::exists(&file) {
            return Ok(Settings::new());
        }
        match read_settings(self.git, &file, self.cancel) {
            Err(Fault::Refused(reason)) => {
                self.hold("config", &reason);
                Ok(base.config.clone())
            }
            // `git submodule absorbgitdirs` has written this setting.
            Ok(mut settings) if self.received.is_absorbed => {
                settings.retain(|(key, _)| key != b"core.worktree");
                Ok(settings)
            }
            read => read,
        }
    }

    fn refs(&mut self, base: &Base, settings: &Settings, format: &str) -> Result<Refs, Fault> {
        let packed = self.text("packed-refs")?;
        let files = Files {
            packed: packed.as_deref(),
            loose: &self.received.references,
            folders: &self.received.folders,
            unreadable: &self.received.unreadable,
            is_sent: base.is_marked && config::are_marked(settings),
        };
        let read = their_refs::read(&files, &base.refs, |oid| has_format(oid, format));
        let Some(Read { refs, held }) = read else { return refuse(OTHER_FORMAT) };
        for (what, reason) in held {
            self.hold(what, reason);
        }
        Ok(refs)
    }

    fn head(&mut self, text: &[u8], format: &str) -> Option<Head> {
        let head = match text.strip_prefix(b"ref: ") {
            Some(name) => RefName::parse(name.trim_ascii())
                .filter(|name| name.kind() == RefKind::Branch)
                .map(Head::Branch),
            None => {
                Oid::parse(text.trim_ascii_end()).filter(|oid| has_format(oid, format)).map(Head::Detached)
            }
        };
        if head.is_none() {
            self.hold("HEAD", "it names neither a branch nor a commit");
        }
        head
    }

    /// The listing of their index. The base's listing is used if the index is the one that was sent, or
    /// cannot be read.
    fn index(&mut self, base: &Base, theirs: &Theirs<'_>) -> Result<Vec<u8>, Fault> {
        let digest = self.received.index_digest;
        if digest.is_none() || digest == base.index_digest {
            self.index_is_unknown = digest.is_none();
            return Ok(base.index.clone());
        }
        let file = self.received.folder.join("index");
        match theirs.index(&file) {
            Ok(listing)
                if index::has_sound_stages(&listing)
                    && index::parse(&index::beyond(&listing, &base.index)).is_some() =>
            {
                // An entry that is only intended to be added stages nothing, although it names the empty blob.
                let new = index::beyond(&listing, &base.index);
                let empty = index::empty(&new);
                if empty.is_empty() {
                    return Ok(listing);
                }
                let intended = theirs.intended(&file, &empty)?;
                return Ok(index::without(&listing, |path| intended.contains(path)));
            }
            Ok(_) => self.hold("index", "it names what no index may hold"),
            // A sparse index names folders by their objects. If one is missing, git cannot list it.
            Err(Fault::Refused(reason)) => self.hold_unusable("index", &reason),
            Err(error) => return Err(error),
        }
        self.index_is_unknown = true;
        Ok(base.index.clone())
    }

    /// Treats what names an object of the wrong type, or a missing one, as unchanged.
    fn leave_out_unusable(&mut self, incoming: &mut Incoming, checked: &objects::Checked) {
        let kind = |oid: &Oid| checked.kinds.get(oid).map(Vec::as_slice);
        let (base, theirs) = (&incoming.base, &mut incoming.theirs);
        let is_unusable = |(name, oid): &(&RefName, &Oid)| {
            name.kind() == RefKind::Branch
                && base.refs.get(*name) != Some(*oid)
                && kind(oid).is_some_and(|kind| kind != b"commit")
        };
        let unusable: Vec<RefName> =
            theirs.refs.iter().filter(is_unusable).map(|(name, _)| name.clone()).collect();
        for name in unusable {
            self.hold_unusable(name.to_string(), "a branch must name a commit");
            match base.refs.get(&name) {
                Some(oid) => theirs.refs.insert(name, oid.clone()),
                None => theirs.refs.remove(&name),
            };
        }
        if let Some(Head::Detached(oid)) = &theirs.head
            && theirs.head != base.head
            && kind(oid) != Some(b"commit")
        {
            self.hold_unusable("HEAD", "it names no commit");
            theirs.head.clone_from(&base.head);
        }
        let stashes = incoming.stashes.len();
        incoming.stashes.retain(|(oid, _)| kind(oid) == Some(b"commit"));
        if incoming.stashes.len() < stashes {
            self.hold_unusable("refs/stash", "an entry of it names no commit");
        }
        let is_commit = |oid: &Oid| kind(oid) == Some(b"commit");
        let (usable, unusable): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut incoming.commits).into_iter().partition(|(_, oid)| is_commit(oid));
        incoming.commits = usable;
        for name in unusable.into_keys() {
            self.hold_unusable(name, "it names no commit");
        }
        if staged_blobs(theirs, base).iter().any(|oid| kind(oid) != Some(b"blob")) {
            self.hold_unusable("index", "what it stages is missing in the sandbox");
            self.leave_out_index(incoming);
        }
    }

    /// Treats the index as unchanged. It is held back for a reason that was told.
    fn leave_out_index(&mut self, incoming: &mut Incoming) {
        self.index_is_unknown = true;
        let (base, theirs) = (&incoming.base.index, &mut incoming.theirs.index);
        // Settings that git would not take in a commit cannot be kept in one either.
        let settings: BTreeSet<RelativePath> =
            index::new_settings(theirs, base).into_iter().map(|(path, _)| path).collect();
        let new = index::not_taken((base, theirs), &[], &[]);
        incoming.held_index = index::without(&new, |path| settings.contains(path));
        theirs.clone_from(base);
    }

    /// Treats the index as unchanged if it stages a `.gitmodules` or `.gitattributes` that git would not take in a commit.
    fn leave_out_settings(&mut self, incoming: &mut Incoming, theirs: &Theirs<'_>) -> Result<(), Fault> {
        let staged = index::new_settings(&incoming.theirs.index, &incoming.base.index);
        match theirs.check_settings(self.received, &staged) {
            Err(Fault::Refused(reason)) => {
                self.hold("index", &format!("what it stages does not pass git fsck ({reason})"));
                self.leave_out_index(incoming);
                Ok(())
            }
            checked => checked,
        }
    }

    /// Finds the commits with something in which git would obey the sandbox. Treats the index as unchanged if it stages
    /// something like that.
    fn leave_out_obeyed(
        &mut self,
        incoming: &mut Incoming,
        checked: &objects::Checked,
        here: &BTreeSet<Oid>,
        around: Around<'_>,
    ) -> Result<(), Fault> {
        let checkout = self.dot_git.parent();
        let (mut cursor, mut other) = (around.workspace.cursor(), around.workspace.cursor());
        let mut looking = around.workspace.cursor();
        let others = incoming.place.as_ref().map(stored::other_checkouts).unwrap_or_default();
        let mut held_below = None;
        let locally = Locally {
            head: &mut |folder| {
                let here = local_head(&mut cursor, checkout.as_ref(), folder)?;
                // The sandbox's branches may be checked out in another worktree.
                let mut heads = others.iter().map(|other| local_head(&mut other.cursor(), None, folder));
                let is_elsewhere = here != Some(true) && heads.any(|head| matches!(head, Ok(Some(true))));
                Ok(if is_elsewhere { Some(true) } else { here })
            },
            submodule: &mut |commit| {
                if held_below.is_none() {
                    held_below = Some(around.held_below(self.git, self.dot_git, self.cancel)?);
                }
                Ok(held_below.as_ref().is_some_and(|held| held.contains(commit)))
            },
            commit: their_commit(&incoming.theirs),
            fixture: &mut || {
                let (workspace, bases) = (around.workspace.path(), around.bases);
                Ok(around.stored.has_fixture(self.git, workspace, bases, self.cancel)?)
            },
            history: &mut |folders| match &incoming.place {
                Some(place) if !folders.is_empty() => {
                    let search = Search { git: self.git, repository: &place.git_dir, cancel: self.cancel };
                    let mut parts = search.parts_in_history(None, folders)?;
                    around.add_parts_of_worktrees(place, folders, &mut parts);
                    Ok(parts)
                }
                _ => Ok(BTreeMap::new()),
            },
            name: checkout.as_ref().map(|checkout| checkout.name().as_encoded_bytes()),
            repository: &mut |path| {
                has_repository(&mut looking, around.workspace, checkout.as_ref(), path, self.cancel)
            },
            parts: &mut |folder| held::local_parts(&mut other, checkout.as_ref(), folder),
            tracked: &mut || match &incoming.place {
                Some(place) => Repository { git: self.git, place, cancel: self.cancel }.index(),
                None => Ok(Vec::new()),
            },
        };
        let indexes = (&incoming.theirs.index[..], &incoming.base.index[..]);
        let repository = &self.received.folder.join("checked");
        let search = Search { git: self.git, repository, cancel: self.cancel };
        let found = search.run((&incoming.tips(), &checked.kinds), indexes, here, locally)?;
        incoming.changed = found.changed;
        // What a killed restore has brought was reported by none, and git lists it no more as new.
        let tips = incoming.tips();
        if checked.pack.is_none() && !tips.is_empty() {
            let shared: BTreeSet<Oid> = incoming.base.refs.values().cloned().collect();
            incoming.changed.extend(search.changed((&tips, &checked.kinds), &shared)?);
        }
        incoming.obeyed = found.tips.into_iter().map(|oid| (oid, found.reason.clone())).collect();
        if found.index {
            self.hold("index", &found.reason);
            self.leave_out_index(incoming);
        }
        Ok(())
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

fn check_objects(
    theirs_repository: &Theirs<'_>,
    incoming: &Incoming,
    received: &Received,
    known: &BTreeSet<Oid>,
) -> Result<objects::Checked, Fault> {
    let blobs = staged_blobs(&incoming.theirs, &incoming.base);
    let commit = their_commit(&incoming.theirs);
    theirs_repository.check(received, &incoming.tips(), &blobs, known, commit.as_ref())
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

fn format_of(settings: &Settings) -> &'static str {
    let sha256 = settings
        .iter()
        .any(|(key, value)| key == b"extensions.objectformat" && value.as_deref() == Some(&b"sha256"[..]));
    if sha256 { "sha256" } else { "sha1" }
}

/// Reads the reflog of the stash, the oldest entry first.
fn stash_log(text: &[u8]) -> Vec<(Oid, Vec<u8>)> {
    let entry = |line: &[u8]| {
        let mut fields = line.splitn(3, |&byte| byte == b' ');
        let oid = fields.nth(1).and_then(Oid::parse)?;
        let rest = fields.next()?;
        let message = rest.iter().position(|&byte| byte == b'\t').map_or(&[][..], |tab| &rest[tab + 1..]);
        Some((oid, short(message).into_bytes()))
    };
    text.split(|&byte| byte == b'\n').filter_map(entry).collect()
}

impl Checked {
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
        // What git refused may pass the next time: memory was short, or the local repository could not be read. Without a
        // git, it cannot.
        report.is_incomplete |= git.is_some() && !refused.is_empty();
        let mut merged: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for incoming in self.repositories {
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
                    bases.insert(incoming.dot_git, base);
                }
                Err(Fault::Error(error)) if !error.forbids_writing() => return Err(error),
                Err(fault) => {
                    let reason = match fault {
                        Fault::Refused(reason) => reason,
                        // The other repositories are merged all the same.
                        Fault::Error(error) => format!("this process may not do that in it ({error})"),
                    };
                    report.is_incomplete = true;
                    // Nothing of a new one is there.
                    if incoming.place.is_none() {
                        report.take_back(&incoming.dot_git);
                    }
                    let Incoming { dot_git, folder, theirs: Base { refs, .. }, pack, .. } = incoming;
                    let references = refs.into_iter().map(|(name, oid)| (name, oid.to_string().into_bytes()));
                    let (references, pack) = (references.collect(), pack.map(|pack| pack.file));
                    refused.push(Refused { dot_git, folder, references, reason, pack });
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

/// The folders of the backups that earlier restores made, the newest first.
fn earlier_backups(workspace: &Root) -> Result<Vec<PathBuf>> {
    let backups = workspace.path().join(backup_root().as_path());
    if !by_path::exists(&backups) {
        return Ok(Vec::new());
    }
    let mut names = by_path::list(&backups)?;
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names.into_iter().map(|name| backups.join(name)).collect())
}

/// The files in a backup that tell which state of a repository it has.
const STATE_FILES: [&str; 6] = ["references.txt", "packed-refs", "head", "index", "stash", "settings"];

impl Refused {
    /// Turns the folder in the quarantine into the backup: what was received, and nothing that was made here.
    fn complete(&self) -> Result<()> {
        let folder = &self.folder;
        make_folders(folder)?;
        let entry = |(name, value): (&RefName, &Vec<u8>)| {
            [value.trim_ascii_end(), b" ", name.as_bytes(), b"\n"].concat()
        };
        let list: Vec<u8> = self.references.iter().flat_map(entry).collect();
        write(&folder.join("references.txt"), &list)?;
        let (theirs, packs) = (folder.join("theirs"), folder.join("packs"));
        let gathered = theirs.join("objects");
        if by_path::exists(&gathered) {
            make_folders(&folder.join("objects"))?;
            make_folders(&packs)?;
            for name in by_path::list(&gathered)?.into_iter().filter(|name| name.len() == 2) {
                by_path::rename(&gathered.join(&name), &folder.join("objects").join(&name))?;
            }
            for name in by_path::list(&gathered.join("pack"))? {
                if Path::new(&name).extension() == Some(OsStr::new("pack")) {
                    by_path::rename(&gathered.join("pack").join(&name), &packs.join(&name))?;
                }
            }
        }
        let new = folder.join("new.pack");
        if let Some(pack) = &self.pack {
            make_folders(&packs)?;
            by_path::rename(pack, &packs.join("new.pack"))?;
        } else if by_path::exists(&new) {
            by_path::remove_file(&new)?;
        }
        for made in [theirs, folder.join("checked"), folder.join("new")] {
            if by_path::exists(&made) {
                by_path::remove_folder_all(&made)?;
            }
        }
        Ok(())
    }

    /// Whether an earlier restore kept the same state in that folder.
    fn is_kept_in(&self, folder: &Path) -> Result<bool> {
        // A file or a folder of the workspace may have been backed up under the same name.
        if !by_path::is_file(&folder.join(STATE_FILES[0])) {
            return Ok(false);
        }
        let content = |file: PathBuf| if by_path::is_file(&file) { read(&file) } else { Ok(None) };
        for name in STATE_FILES {
            if content(self.folder.join(name))? != content(folder.join(name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves it to a folder of backups, in a form that git does not take for a repository. Returns where it is.
    fn back_up(&self, backups: &Path, below: &Path) -> Result<PathBuf> {
        let target = backups.join(below);
        if let Some(parent) = target.parent() {
            make_folders(parent)?;
        }
        by_path::move_folder(&self.folder, &target)?;
        Ok(target)
    }
}

/// What git is to do for one reference, as `git update-ref --stdin -z` reads it, and what is reported once it is done.
struct PlannedUpdate {
    name: RefName,
    input: Vec<u8>,
    told: GitReport,
}

/// Why nothing moves that the local index belongs to.
const LOCKED: &str = "another git has locked the local index (index.lock), as `git commit` does while its message is written; the next \
    restore tries again (if no git runs here, delete that file)";

/// Why what the sandbox has as a stash does not become one.
const NO_STASH: &str = "it is a commit as `git stash` makes none, and `git stash pop` would refuse it";

/// How often it is tried to lock an index that another git has just unlocked.
const LOCK_TRIES: usize = 2;

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

/// One merge in progress, with its report.
struct Merge<'a> {
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
    /// Whether another git has the index locked, so that what it belongs to must not move.
    is_locked_by_another: bool,
    /// Whether the index waits until the commit that it belongs to is checked out.
    index_waits: bool,
    /// The local references that cannot be read.
    unreadable: Unreadable,
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
}

impl<'a> Merge<'a> {
    fn new(
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
            is_locked_by_another: false,
            index_waits: false,
            unreadable: Unreadable::default(),
        }
    }

    /// What both sides share after the merge. What is due keeps its value from the base.
    fn shared(self) -> Base {
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
        report.is_incomplete |= due.index || due.head || !due.refs.is_empty();
        for name in due.refs {
            match base.refs.get(&name) {
                Some(oid) => shared.refs.insert(name, oid.clone()),
                None => shared.refs.remove(&name),
            };
        }
        shared
    }
}

impl Incoming {
    fn apply(
        &self,
        git: &Git,
        workspace: &Root,
        time: &str,
        report: &mut GitReport,
        cancel: &Cancel,
    ) -> Result<Base, Fault> {
        match &self.place {
            Some(place) => {
                let mut merge = Merge::new(Repository { git, place, cancel }, self, time, report);
                merge.run()?;
                Ok(merge.shared())
            }
            None => self.create(git, workspace, time, report, cancel),
        }
    }

    /// Creates a repository that is new in the sandbox: complete in the quarantine, then moved to its path.
    fn create(
        &self,
        git: &Git,
        workspace: &Root,
        time: &str,
        report: &mut GitReport,
        cancel: &Cancel,
    ) -> Result<Base, Fault> {
        let folder = self.folder.join("new");
        objects::make_repository(&folder, None, &self.format)?;
        let returned = config::come_back(&Settings::new(), &self.theirs.config, &config::Local::default());
        for (key, reason) in returned.held_back {
            report.held_back.push(HeldBack {
                path: self.dot_git.clone(),
                what: Some(key),
                reason: reason.to_owned(),
            });
        }
        let checkout = workspace.path_of(&self.dot_git);
        let mut place = Place {
            checkout: checkout.parent().unwrap_or(workspace.path()).to_path_buf(),
            id: FileId::default(),
            git_dir: folder.clone(),
            common_dir: folder.clone(),
            format: self.format.clone(),
            promisor: None,
        };
        write(&folder.join("config"), &configuration(&place, &returned.take))?;
        report.created.push(self.dot_git.clone());
        report.updated.extend(returned.take.iter().map(|(key, _)| (self.dot_git.clone(), short(key))));
        let staging = Place { checkout: self.folder.clone(), ..place.clone() };
        let repository = Repository { git, place: &staging, cancel };
        let empty = Base { refs: Refs::new(), ..self.base.clone() };
        let incoming = Incoming {
            dot_git: self.dot_git.clone(),
            place: Some(staging.clone()),
            base: empty,
            format: self.format.clone(),
            theirs: self.theirs.clone(),
            stashes: self.stashes.clone(),
            commits: self.commits.clone(),
            pack: self.pack.clone(),
            large_files: self.large_files.clone(),
            folder: self.folder.clone(),
            may_lack: false,
            index_is_unknown: self.index_is_unknown,
            obeyed: self.obeyed.clone(),
            changed: BTreeSet::new(),
            held_index: self.held_index.clone(),
        };
        if let Some(head) = &self.theirs.head {
            let text = match head {
                Head::Branch(name) => [b"ref: ", name.as_bytes(), b"\n"].concat(),
                Head::Detached(oid) => format!("{oid}\n").into_bytes(),
            };
            write(&folder.join("HEAD"), &text)?;
        }
        let mut merge = Merge::new(repository, &incoming, time, report);
        merge.run()?;
        let shared = merge.shared();
        let mut cursor = workspace.cursor();
        let parent = self.dot_git.parent();
        let parent_is_there = match &parent {
            None => true,
            Some(parent) => cursor.stat(parent)?.is_some_and(|meta| meta.kind == Kind::Folder),
        };
        if !parent_is_there {
            return refuse("its folder does not exist locally");
        }
        if cursor.stat(&self.dot_git)?.is_some() {
            return refuse("a local repository was made at that path as well");
        }
        move_into(&folder, workspace, &self.dot_git)?;
        let Some(meta) = cursor.stat(&self.dot_git)? else {
            return refuse("its folder does not exist locally");
        };
        place.id = meta.id;
        let place = locate(git, workspace, &self.dot_git, cancel).unwrap_or(place);
        Ok(Base { place: Some(place), ..shared })
    }
}

/// Moves one of our folders to a path of the workspace, through handles that follow no link. If it is on
/// another file system, it is first copied into this package's folder in the workspace, so that it appears at
/// its path complete.
fn move_into(folder: &Path, workspace: &Root, to: &RelativePath) -> Result<(), Fault> {
    let mut cursor = workspace.cursor();
    match move_to(folder, (&mut cursor, to))? {
        Renamed::OtherFileSystem | Renamed::Unsupported => {}
        renamed => return is_done(renamed),
    }
    let in_place = RuntimeFolder::open(workspace)?;
    let waiting = RelativePath::child(Some(&runtime()), b"new-repository");
    // A killed merge may have left one. Under the workspace's lock there is no other.
    remove_tree(workspace, &waiting)?;
    by_path::copy_folder(folder, &workspace.path_of(&waiting))?;
    let renamed = rename((&mut workspace.cursor(), &waiting), (&mut cursor, to), Onto::Nothing)?;
    if renamed != Renamed::Done {
        remove_tree(workspace, &waiting)?;
    }
    drop(in_place);
    remove_unused_runtime(workspace)?;
    is_done(renamed)
}

fn is_done(renamed: Renamed) -> Result<(), Fault> {
    match renamed {
        Renamed::Done => Ok(()),
        Renamed::Occupied => refuse("a local repository was made at that path as well"),
        Renamed::Absent => refuse("its folder does not exist locally"),
        _ => refuse("its folder is on another file system than the workspace, to which it cannot be moved"),
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

    fn run(&mut self) -> Result<(), Fault> {
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
            let busy = self.repository.is_busy();
            let head_here = self.repository.head()?;
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
                }
                self.former = Former { commit: self.repository.commit()?, index: self.local_index()? };
                self.note_changes(head_here.as_ref(), busy, change.as_ref())?;
            }
            self.move_references(head_here.as_ref(), busy)?;
            self.follow_branch(head_here.as_ref())?;
            self.merge_index(busy, change)?;
            self.locked = None;
            self.keep_staged()?;
            // What is not done yet remains noted for a prepare.
            if self.due.index {
                unfinished::keep_if_due(&self.repository)?;
            } else {
                unfinished::forget(self.repository.place)?;
            }
        }
        self.add_stashes()?;
        self.keep_commits()?;
        self.make_sure_of_objects(tips)?;
        self.add_settings()
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

    fn relation(&self, theirs: &Oid, ours: &Oid) -> Relation {
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
    fn is_another(&self) -> Result<bool, Fault> {
        if config::are_marked(&self.incoming.theirs.config) || !self.incoming.base.is_marked {
            return Ok(false);
        }
        let branches = |refs: &Refs| -> BTreeSet<Oid> {
            refs.iter()
                .filter(|(name, _)| name.kind() == RefKind::Branch)
                .map(|(_, oid)| oid.clone())
                .collect()
        };
        let (sent, mut there) = (branches(&self.incoming.base.refs), branches(&self.incoming.theirs.refs));
        if sent.is_empty() || sent.intersection(&there).next().is_some() {
            return Ok(false);
        }
        if let Some(Head::Detached(oid)) = &self.incoming.theirs.head {
            there.insert(oid.clone());
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
            let planned = plan(base, theirs, &ours, &around, &|theirs, ours| self.relation(theirs, ours));
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
        let output = call.output(self.repository.cancel)?;
        Ok((output.status != Some(0)).then(|| output.complaint()))
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
    fn is_refused(&self, head: Option<&Head>) -> bool {
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
                }
                (Some(here), Some(there)) => {
                    here == there || self.relation(there, here) == Relation::OursDescends
                }
                _ => false,
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
                    .arg(super::export::path_of(name.as_bytes()));
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
            Err(Fault::Refused(reason)) => {
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
        if self.repository.run(["rev-list", "--max-count=1", commit.as_str(), "--not", "--all"])?.is_empty() {
            return Ok(());
        }
        self.keep("HEAD", commit, format!("refs/paperclip/{}/refused/{commit}", self.time))
    }

    /// Keeps the commit of a detached local `HEAD` under a reference, if it would be unreachable once `HEAD` moves.
    fn keep_detached(&mut self, ours: Option<&Head>, theirs: &Head) -> Result<(), Fault> {
        let Some(Head::Detached(commit)) = ours else { return Ok(()) };
        let mut call = self.repository.call();
        call.args([
            "rev-list",
            "--max-count=1",
            commit.as_str(),
            "--not",
            "--branches",
            "--tags",
            "--remotes",
        ]);
        if let Head::Detached(theirs) = theirs {
            call.arg(theirs.as_str());
        }
        if call.run(self.repository.cancel)?.is_empty() {
            return Ok(());
        }
        let kept = format!("refs/paperclip/{}/replaced/HEAD", self.time);
        self.keep("HEAD", commit, kept)
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

    /// What their index has instead of the base's, as listings. `None` if it has the same.
    fn index_change(&self) -> Result<Option<index::Change>, Fault> {
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
    fn complete_noted(&mut self) -> Result<(), Fault> {
        if !unfinished::is_noted(self.repository.place) {
            return Ok(());
        }
        self.wait_for_index();
        if let Some(reason) = unfinished::complete(&self.repository)? {
            self.due.index = true;
            self.hold("index", &reason);
        }
        Ok(())
    }

    /// The [change that follows](index::following) `HEAD` from the former local commit to this one.
    fn following(
        &self,
        (before, after): (&[u8], &[u8]),
        reached: Option<&Oid>,
        ours: &[u8],
    ) -> Result<index::Change, Fault> {
        let head = match reached {
            Some(reached)
                if ours != self.incoming.base.index && self.former.commit.as_ref() != Some(reached) =>
            {
                self.difference(self.former.commit.as_ref(), reached)?
            }
            // Each path has what the base has.
            _ => None,
        };
        Ok(index::following((before, after), &head.unwrap_or_default(), ours))
    }

    /// Notes how the index changes once references have moved, for the case that this process is killed in between.
    fn note_changes(
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
            let (before, after) = self.following((before, after), Some(&commit), &self.former.index)?;
            // If the sandbox only added commits, the references will move, and a local commit with the former index would revert these.
            if !busy
                && their_commit(base).is_some_and(|before| Some(before) == self.former.commit)
                && theirs.head == base.head
                && theirs.head.as_ref() == head
                && let Some(locked) = &mut self.locked
            {
                self.repository.stage_ahead(&before, &after, &self.former.index, locked)?;
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

    /// Merges the references and `HEAD`. A branch that was deleted there is left first, if it is checked out here.
    fn move_references(&mut self, head: Option<&Head>, busy: bool) -> Result<(), Fault> {
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

    /// Makes the [change of a branch](Self::change_of_branch) in the index.
    fn follow_branch(&mut self, head: Option<&Head>) -> Result<(), Fault> {
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
    fn moves(&self, head: Option<&Head>) -> bool {
        let (base, theirs) = (&self.incoming.base, &self.incoming.theirs);
        matches!(head, Some(Head::Branch(name)) if base.refs.get(name) != theirs.refs.get(name))
    }

    /// The listing of the local index, without what is only intended to be added (`git add -N`) and was not uploaded: nothing is staged
    /// there, and what the sandbox has committed takes its place.
    fn local_index(&self) -> Result<Vec<u8>, Fault> {
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
    fn lock_index(&mut self) -> Result<(), Fault> {
        for _ in 0..LOCK_TRIES {
            self.wait_for_index();
            self.locked = self.repository.lock_index()?;
            self.is_locked_by_another =
                self.locked.is_none() && by_path::exists(&self.git_path("index.lock"));
            if self.locked.is_some() || self.is_locked_by_another {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits a while for another git to unlock the index. Most end soon, even one that a killed restore left running.
    fn wait_for_index(&self) {
        let index_lock = self.git_path("index.lock");
        for _ in 0..LOCK_LOOKS {
            if !by_path::exists(&index_lock) {
                break;
            }
            thread::sleep(LOCK_PAUSE);
        }
    }

    /// Merges the index. Without a `change`, the sandbox's is the base's, and the local one only follows `HEAD`.
    fn merge_index(&mut self, busy: bool, change: Option<index::Change>) -> Result<(), Fault> {
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
                self.wait_for_index();
                by_path::exists(&self.git_path("index.lock"))
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
                if is_older {
                    newer = self.difference(Some(&there), here)?;
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
        let (before, after) = self.following((before, after), commit.as_ref(), &ours)?;
        let changed = self.stage(&before, &after, &ours)?;
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
    fn keep_staged(&mut self) -> Result<(), Fault> {
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
            Err(Fault::Refused(reason)) => {
                self.due.index = true;
                self.hold("index", &format!("what is only staged there could not be kept: {reason}"));
            }
            Err(error) => return Err(error),
        }
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
        let Stashes { entries, unlogged } = self.repository.stashes()?;
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
                None => (!self.repository.is_stash(oid)?).then_some(NO_STASH),
            };
            if let Some(reason) = reason {
                self.keep("refs/stash", oid, format!("refs/paperclip/{}/stash/{oid}", self.time))?;
                self.hold("refs/stash", reason);
                continue;
            }
            let message = String::from_utf8_lossy(message).into_owned();
            let mut call = self.repository.step();
            call.args(["update-ref", "--create-reflog", "-m", &message, "refs/stash", oid.as_str()])
                .run(self.repository.cancel)?;
            self.report.updated.push((self.incoming.dot_git.clone(), "refs/stash".to_owned()));
        }
        Ok(())
    }

    /// Keeps the commits of linked worktrees, and those of an operation in progress, that no reference reaches. (Most are on a
    /// branch, which comes back by itself.)
    fn keep_commits(&mut self) -> Result<(), Fault> {
        for (name, commit) in &self.incoming.commits {
            let list = ["rev-list", "--max-count=1", commit.as_str(), "--not", "--all"];
            if self.repository.run(list)?.is_empty() {
                continue;
            }
            let named = name.strip_suffix("/HEAD").unwrap_or(name);
            let kept = format!("refs/paperclip/{}/{named}", self.time);
            // Git takes most names, and this one any.
            let kept = match RefName::parse(kept.as_bytes()) {
                Some(_) => kept,
                None => format!("refs/paperclip/{}/worktrees/{commit}", self.time),
            };
            self.keep(name, commit, kept)?;
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
        let local = config::Local {
            own: self.repository.settings()?,
            in_effect: self.repository.settings_of_the_user()?,
            files: self.repository.remote_files()?,
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
                .arg(super::export::path_of(key))
                .arg(super::export::path_of(value.as_deref().unwrap_or_default()));
            call.run(self.repository.cancel)?;
            self.report.updated.push((self.incoming.dot_git.clone(), short(key)));
        }
        for (key, reason) in returned.held_back {
            self.hold(key, reason);
        }
        Ok(())
    }
}
