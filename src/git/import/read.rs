//! Reads and checks one repository of the sandbox, of which the quarantine has the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{GONE, Incoming, refuse, restore_base, staged_blobs, stash_name, their_commit};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::by_path::{self, read, stat};
use crate::fs::{Kind, Root};
use crate::git::command::{Fault, Git, short};
use crate::git::config::{self, Settings};
use crate::git::export::{Base, Bases, locate, read_settings};
use crate::git::obeyed::{self, Parts};
use crate::git::objects::{self, Theirs};
use crate::git::quarantine::{PACKED_REFS, REFTABLE, Received};
use crate::git::recognise::{MARKERS, bare_folders};
use crate::git::refs::{Head, Oid, RefKind, RefName, Refs};
use crate::git::report::{GitReport, HeldBack};
use crate::git::repository::{Known, Place, Repository, has_format, reached};
use crate::git::search::{Locally, Search, has_repository, local_head};
use crate::git::their_refs::{self, Files, NAMES_OTHER_FORMAT, Read};
use crate::git::{held, index, stored};
use crate::path::RelativePath;

/// Whether the repository that a `.git` leads to is the one that was sent, rather than one that was cloned there anew.
pub(super) fn was_moved(git: Option<&Git>, received: &Received, cancel: &Cancel) -> Result<bool> {
    let [head, settings] = ["head", "settings"].map(|name| received.folder.join(name));
    if !by_path::exists(&head) || !by_path::exists(&settings) {
        return Ok(false);
    }
    // Without a git here, nothing of it is merged.
    let Some(git) = git else { return Ok(true) };
    match read_settings(git, &settings, cancel) {
        Ok(settings) => Ok(config::are_marked(&settings)),
        Err(fault) => fault.without_answer().map_or(Ok(false), Err),
    }
}

/// What is around a repository of the sandbox.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) workspace: &'a Root,
    pub(super) bases: &'a Bases,
    /// The repositories that were read before, all below this one among them.
    pub(super) read: &'a [Incoming],
    /// What the local repositories have stored.
    pub(super) stored: &'a stored::Known,
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

/// Reads and checks one repository of the sandbox.
pub(super) fn read_repository(
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
        log.push((newest.clone(), UNNAMED_STASH.to_vec()));
    }
    let entries = log.len();
    log.retain(|(oid, _)| has_format(oid, &format));
    if log.len() < entries {
        reading.hold("refs/stash", NAMES_OTHER_FORMAT);
    }
    let mut theirs = Base {
        refs,
        head: reading.head(&head, &base, &format),
        index: reading.index(&base, &theirs_repository)?,
        index_digest: received.index_digest,
        config,
        stashes: log.iter().rev().map(|(oid, _)| oid.clone()).collect(),
        ..base.clone()
    };
    // Each new entry costs a call of git, and a log may repeat an entry any number of times.
    let mut seen: BTreeSet<Oid> = base.stashes.iter().cloned().collect();
    log.retain(|(oid, _)| seen.insert(oid.clone()));
    if log.len() > STASHES_MAX {
        reading.hold("refs/stash", "more stashes are new than a restore takes over at once");
        reading.report.is_incomplete = true;
        let later: BTreeSet<Oid> = log.drain(STASHES_MAX..).map(|(oid, _)| oid).collect();
        theirs.stashes.retain(|oid| !later.contains(oid));
    }
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
        with_lacking: None,
    };
    if incoming.has_news() {
        let known = match &place {
            None => Known::default(),
            Some(place) => Repository { git, place, cancel }.known()?,
        };
        let checked = check_objects(&theirs_repository, &incoming, received, &known.all)?;
        reading.leave_out_lacking(&mut incoming, &checked.lacking);
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
        return refuse("its directory is a local bare repository");
    }
    let outer = around.bases.iter().filter_map(|(of, base)| {
        let inner = match of.parent() {
            Some(folder) => checkout.as_bytes().strip_prefix(folder.as_bytes())?.strip_prefix(b"/")?,
            None => checkout.as_bytes(),
        };
        Some((base.place.as_ref()?, inner))
    });
    for (place, inner) in outer.filter(|(place, _)| place.is_there()) {
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

/// The largest file of references or of stashes that is read, in bytes.
const TEXT_MAX: u64 = 64 << 20;

/// The reason for holding back what names a commit with missing objects.
const LACKING: &str = "objects of its history are neither here nor in the sandbox, as with a shallow clone";

/// The maximum number of stashes that one restore adds.
const STASHES_MAX: usize = 500;

/// The message of a stash that has none.
const UNNAMED_STASH: &[u8] = b"a stash of the sandbox";

/// The reason for refusing a repository of another format.
const OTHER_FORMAT: &str =
    "its objects have another format (SHA-1 or SHA-256) than those of the local repository";

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
    /// The content of a file that came. One that is too large to be read is held back.
    fn text(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = self.received.folder.join(name);
        if stat(&file)?.is_some_and(|meta| meta.size > TEXT_MAX) {
            self.hold(name, "it is larger than 64 MiB");
            return Ok(None);
        }
        read(&file)
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
        let mut unreadable = self.received.unreadable.clone();
        if packed.is_none() && by_path::exists(&self.received.folder.join("packed-refs")) {
            unreadable.insert(PACKED_REFS);
        }
        let files = Files {
            packed: packed.as_deref(),
            loose: &self.received.references,
            folders: &self.received.folders,
            unreadable: &unreadable,
            is_sent: base.is_marked && config::are_marked(settings),
        };
        let read = their_refs::read(&files, &base.refs, |oid| has_format(oid, format));
        let Some(Read { refs, held }) = read else { return refuse(OTHER_FORMAT) };
        for (what, reason) in held {
            self.hold(what, reason);
        }
        Ok(refs)
    }

    fn head(&mut self, text: &[u8], base: &Base, format: &str) -> Option<Head> {
        let head = match text.strip_prefix(b"ref: ") {
            Some(name) => RefName::parse(name.trim_ascii())
                .filter(|name| name.kind() == RefKind::Branch)
                .map(Head::Branch)
                .filter(|head| may_be_checked_out(head, base)),
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
            restore_base(&mut theirs.refs, &base.refs, name);
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

    /// Treats what names a commit with missing objects as unchanged. What came of the repository is kept beside the backups.
    fn leave_out_lacking(&mut self, incoming: &mut Incoming, lacking: &BTreeSet<Oid>) {
        if lacking.is_empty() {
            return;
        }
        self.may_lack = true;
        incoming.with_lacking = Some(incoming.theirs.refs.clone());
        let is_index_lacking = their_commit(&incoming.theirs).is_some_and(|commit| lacking.contains(&commit));
        let (base, theirs) = (&incoming.base, &mut incoming.theirs);
        let is_lacking = |(_, oid): &(&RefName, &Oid)| lacking.contains(*oid);
        let left_out: Vec<RefName> =
            theirs.refs.iter().filter(is_lacking).map(|(name, _)| name.clone()).collect();
        for name in left_out {
            self.hold(name.to_string(), LACKING);
            restore_base(&mut theirs.refs, &base.refs, name);
        }
        if is_index_lacking {
            if theirs.head != base.head {
                self.hold("HEAD", LACKING);
                theirs.head.clone_from(&base.head);
            }
            self.hold("index", LACKING);
            self.leave_out_index(incoming);
        }
        let stashes = incoming.stashes.len();
        incoming.stashes.retain(|(oid, _)| !lacking.contains(oid));
        if incoming.stashes.len() < stashes {
            self.hold("refs/stash", LACKING);
        }
        for (name, oid) in std::mem::take(&mut incoming.commits) {
            if lacking.contains(&oid) {
                self.hold(name, LACKING);
            } else {
                incoming.commits.insert(name, oid);
            }
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
                if has_repository(&mut looking, around.workspace, checkout.as_ref(), path, self.cancel)? {
                    return Ok(true);
                }
                // A checkout of the sandbox's commit in another worktree would delete a repository there.
                for other in &others {
                    if has_repository(&mut other.cursor(), other, None, path, self.cancel)? {
                        return Ok(true);
                    }
                }
                Ok(false)
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

/// Whether the sandbox may have this checked out: a branch that was sent, or one that it may make.
fn may_be_checked_out(head: &Head, base: &Base) -> bool {
    match head {
        Head::Branch(name) => {
            base.head.as_ref() == Some(head) || base.refs.contains_key(name) || name.may_be_new()
        }
        Head::Detached(_) => true,
    }
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
        // Git refuses an entry without a message.
        let message = if message.trim_ascii().is_empty() { UNNAMED_STASH } else { message };
        Some((oid, short(message).into_bytes()))
    };
    text.split(|&byte| byte == b'\n').filter_map(entry).collect()
}
