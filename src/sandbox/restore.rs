//! The sandbox's workspace → merged into the local one.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

use super::answer::{Answer, is_another_without_mark};
use super::client::{RunError, SandboxClient, Step, blocking, clean_up_by, persist, telling};
use super::command::{Indexes, Places};
use super::fetch::{self, Fetched};
use super::listing::Differences;
use super::repositories::{
    Arrived, Travel, at_checkout, named, take_out, tell_and_compare, tell_created, tell_held, tell_linked,
    tell_named, tell_newly_included, tell_untracked,
};
use super::session::{Base, Memory, Session, Workspace, new_id};
use super::update::contents_of;
use super::{command, listing};
use crate::archive::source::{Stream, copy_of};
use crate::archive::unpack::{Archive, Content, Unpacked};
use crate::cancel::Cancel;
use crate::error::{Error, Result, readable};
use crate::exclude::PathSet;
use crate::fs::Kind;
use crate::git::committed_links;
use crate::git::held::{AtCheckout, is_moved};
use crate::git::named::Named;
use crate::git::quarantine::is_sent_pack;
use crate::git::report::GitReport;
use crate::merge::incoming::UNCHANGED;
use crate::merge::lock::{self, MergeLock};
use crate::merge::options::MergeOptions;
use crate::merge::receive::Reception;
use crate::merge::report::{Report, Skipped};
use crate::merge::session::Merge;
use crate::path::{RelativePath, control_of, octal_of};
use crate::state::sandboxes::Trees;
use crate::threads::waiting;
use crate::transfer::changes::Changes;
use crate::transfer::parts::Wish;
use crate::transfer::remote;
use crate::tree::entry::Snapshot;
use crate::tree::entry::{Entry, PERMISSIONS};
use crate::tree::filter::Filter;

/// What a restore did, and how long its steps took.
#[derive(Debug)]
pub struct Restored {
    /// Entry by entry.
    pub report: Report,
    /// What became of the repositories.
    pub git: GitReport,
    /// How many entries the sandbox held.
    pub entries: usize,
    /// Whether only the sandbox's changes were downloaded.
    pub is_changes_only: bool,
    /// What the sandbox's tar said, where it failed and the second, tolerant way was taken.
    pub tar_messages: Option<String>,
    /// The steps in order.
    pub phases: Vec<Phase>,
}

/// One step of a restore.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// `run`, `download`, `check` or `apply`.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The bytes it read, where it read any.
    pub bytes: u64,
}

/// How a sandbox shows that it is another one.
const ANOTHER_UPLOAD: &str = "its mark is that of another upload; another prepare has replaced the workspace there, or an \
     older state of the sandbox was brought back";
const NOTHING_LEFT: &str =
    "its mark is gone, and so is all that was uploaded; the sandbox, or its disk, was replaced";

/// Why a path is left alone that the sandbox never had as it was packed.
const LOST: &str = "the sandbox did not have it as it was uploaded, right after the upload: its disk or its tar cannot hold \
     it, or a process there was faster";

/// How often a restore asks again for a download that another command has replaced.
const REPLACED_MAX: u32 = 2;

/// The most changes that are read beyond one for each entry that both sides have. Of more, everything is downloaded.
const NEW_CHANGES_MAX: usize = 500_000;

/// What a download is to bring.
#[derive(Debug, Clone, Copy)]
struct Demand {
    /// Only what has changed, where the sandbox can tell. What it tells may be refused as
    /// [`Error::ContradictoryChanges`].
    changes_only: bool,
    /// Whether all that comes is staged. Where it is not, [`Error::NotStaged`] may come of it.
    every_file: bool,
    /// Whether the packs of repositories that were sent are read too. Where they are not, [`Error::LackingObjects`] may come of it.
    sent_packs: bool,
}

/// How the sandbox's tar ended.
enum Packed {
    /// It packed everything.
    Whole,
    /// It failed on something, and packed the rest. Its exit status is in the first line, and then what it said.
    Partly(Vec<u8>),
}

impl Packed {
    /// Whether something may be missing from the archive that it made.
    fn may_lack_something(&self, archive: &Archive, left_alone: &Filter<'_>) -> bool {
        match self {
            Self::Whole => false,
            Self::Partly(told) => !complains_only_of_changes(told, archive, left_alone),
        }
    }

    /// What the sandbox's tar said, where it failed. (Its exit status comes before that, in the first line.)
    fn into_messages(self) -> Option<String> {
        let Self::Partly(told) = self else { return None };
        Some(told.splitn(2, |&byte| byte == b'\n').nth(1).map_or_else(String::new, readable))
    }
}

/// What GNU tar says of a file that is written while it is read, such as a log. Its exit status is 1 then, as if
/// something were missing. It says the same of a directory, in which something may be missing.
const CHANGED: &[u8] = b": file changed as we read it";

fn complains_only_of_changes(told: &[u8], archive: &Archive, left_alone: &Filter<'_>) -> bool {
    let mut lines = told.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).peekable();
    let status = lines.next();
    let is_whole = |line: &[u8]| {
        let name = line.strip_prefix(b"tar: ").and_then(|line| line.strip_suffix(CHANGED));
        let path = name.and_then(unquote).and_then(|name| RelativePath::parse(&name).ok().flatten());
        path.is_some_and(|path| {
            left_alone.leaves_out(&path, Kind::File)
                || matches!(archive.get(&path), Some(Unpacked { content: Content::File { .. }, .. }))
        })
    };
    // Where the messages were cut off, the rest is not known.
    let is_all = told.len() < command::MESSAGES_MAX;
    is_all && status == Some(b"1") && lines.peek().is_some() && lines.all(is_whole)
}

/// Undoes the quoting of a name in a message of GNU tar. `None` if it is malformed.
fn unquote(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = name.iter().copied();
    let mut plain = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        plain.push(match bytes.next()? {
            quoted @ (b'\\' | b':') => quoted,
            first @ b'0'..=b'3' => octal_of(first, &mut bytes)?,
            letter => control_of(letter)?,
        });
    }
    Some(plain)
}

/// The refusal of changes that come where everything was asked for.
fn never_asked_for() -> Error {
    let reason = "the sandbox answers with changes, although everything was asked for".to_owned();
    Error::ArchiveInvalid { offset: 0, entry: None, reason }
}

impl Session {
    /// Brings the sandbox's workspace back. Nothing local is changed before the whole download has been checked, and
    /// on success what the sandbox held becomes the base of the next restore.
    ///
    /// Where `look_only` says so, it tells what it would do, and nothing is changed on either side.
    pub async fn restore<C: SandboxClient>(
        &self,
        client: &C,
        look_only: bool,
        cancel: &Cancel,
    ) -> Result<Restored, RunError<C::Failure>> {
        let _turn = self.turn.lock().await;
        let mut phases = Vec::new();
        let mut demand = Demand { changes_only: self.changes_only, every_file: false, sent_packs: false };
        let mut replaced = 0;
        loop {
            // What the sandbox's new index is to be called, and the download.
            let new = new_id();
            match self.collect(client, cancel, demand, &new, &mut phases).await {
                Ok(begun) => return self.merge(client, cancel, look_only, phases, begun).await,
                // Everything is downloaded again, and this time all of it is staged.
                Err(RunError::Own(Error::NotStaged)) if !demand.every_file => demand.every_file = true,
                Err(RunError::Own(Error::ContradictoryChanges)) if demand.changes_only => {
                    demand.changes_only = false;
                }
                Err(RunError::Own(Error::LackingObjects)) if !demand.sent_packs => {
                    (demand.changes_only, demand.sent_packs) = (false, true);
                }
                // The other command has had its turn, and mostly it is the only other one.
                Err(RunError::Own(Error::OthersDownload)) if replaced < REPLACED_MAX => {
                    replaced += 1;
                    cancel.check()?;
                }
                Err(error) => {
                    clean_up_by(client, &command::clear_download(&self.places, &new)).await;
                    return Err(match error {
                        RunError::Own(Error::ContradictoryChanges) => RunError::Own(never_asked_for()),
                        error => error,
                    });
                }
            }
        }
    }

    /// Has the sandbox pack, and downloads and checks what it packed. Whatever fails, something may stay in the sandbox.
    async fn collect<C: SandboxClient>(
        &self,
        client: &C,
        cancel: &Cancel,
        demand: Demand,
        new: &str,
        phases: &mut Vec<Phase>,
    ) -> Result<Begun, RunError<C::Failure>> {
        let base = self.base.clone().lock_owned().await;
        let archive = self.places.download();

        let started = Instant::now();
        let wish = Wish::new(self.way.cut_bytes(), self.way.compression().is_some());
        let known = base.index.as_deref().filter(|_| demand.changes_only);
        let packing = self.pack_remotely(client, Indexes { known, new }, wish);
        let packed = telling(client, Step::of_workspace("collect", 0), packing).await?;
        phases.push(Phase { name: "run", took: started.elapsed(), bytes: 0 });

        let started = Instant::now();
        let Fetched { stream, size, rest, is_named } =
            fetch::fetch(client, &archive, new, wish, &self.way).await?;
        phases.push(Phase { name: "download", took: started.elapsed(), bytes: size });

        let started = Instant::now();
        let receiving = Receiving {
            base,
            packed,
            demand,
            new_index: new.to_owned(),
            is_named,
            news: None,
            workspace: self.workspace.clone(),
            left_alone: self.left_alone.clone(),
            travel: self.repositories,
            preserve: self.preserve.clone(),
            places: self.places.clone(),
            memory: self.memory.clone(),
            cancel: cancel.clone(),
        };
        // Further parts come while earlier ones are worked on, and that work waits for them.
        let receive = move || receiving.receive(stream);
        let received =
            if rest.is_some() { tokio::spawn(waiting(receive)) } else { tokio::spawn(blocking(receive)) };
        let brought = match rest {
            Some(rest) => rest.bring(client, &archive, &self.way).await,
            None => Ok(()),
        };
        // The parts have a progress report of their own while they come.
        let received = telling(client, Step::of_workspace("check", size), received).await;
        let received = received.unwrap_or_else(|panicked| Err(Error::Internal(panicked.to_string())));
        // If a part did not come, that failure is the cause of the other. After an abort, parts may still be
        // in the sandbox, so this fails and they are removed.
        if let Err(failure) = brought.and_then(|()| Ok(cancel.check()?)) {
            if let Ok(begun) = received {
                blocking(move || Ok(begun.give_up(Error::Aborted))).await?;
            }
            return Err(failure);
        }
        let begun = received?;
        phases.push(Phase { name: "check", took: started.elapsed(), bytes: size });
        Ok(begun)
    }

    /// Merges what was downloaded, or tells what that would do.
    async fn merge<C: SandboxClient>(
        &self,
        client: &C,
        cancel: &Cancel,
        look_only: bool,
        mut phases: Vec<Phase>,
        mut begun: Begun,
    ) -> Result<Restored, RunError<C::Failure>> {
        let started = Instant::now();
        let applying = Step::of_workspace("apply", 0);
        if look_only {
            let stop = cancel.clone();
            let foreseen = telling(client, applying, blocking(move || begun.foresee(&stop))).await?;
            phases.push(Phase { name: "apply", took: started.elapsed(), bytes: 0 });
            return Ok(Restored { phases, ..foreseen });
        }
        // Where the sandbox changed nothing, no lock is needed.
        if begun.merge.needs_lock() || begun.repositories.has_news() {
            match telling(client, applying, MergeLock::acquire(begun.merge.target(), lock::WAIT, cancel))
                .await
            {
                Ok(lock) => begun.merge.hold(lock),
                Err(error) => return Err(blocking(move || Ok(begun.give_up(error))).await?.into()),
            }
        }
        let stop = cancel.clone();
        let (memory, places, workspace) = (self.memory.clone(), self.places.clone(), self.workspace.clone());
        let applied = blocking(move || {
            let (restored, mut base, has_news) = begun.apply(&stop)?;
            if has_news {
                memory.keep(&places, &workspace, &mut base);
            }
            Ok(restored)
        });
        let mut restored = telling(client, applying, applied).await?;
        phases.push(Phase { name: "apply", took: started.elapsed(), bytes: 0 });
        restored.phases = phases;
        Ok(restored)
    }

    /// Has the sandbox pack its workspace. Where its tar fails, a second way tolerates what could not be read, and
    /// says so; where that fails as well, the first failure is the one to report.
    async fn pack_remotely<C: SandboxClient>(
        &self,
        client: &C,
        indexes: Indexes<'_>,
        wish: Wish,
    ) -> Result<Packed, RunError<C::Failure>> {
        let download = command::download(&self.places, indexes, wish);
        // A second time it packs anew, once the first has ended.
        let Err(failure) = persist(client, || client.run(&download)).await else {
            return Ok(Packed::Whole);
        };
        let status = self.places.status();
        let tolerant = command::tolerant_download(&self.places, indexes.new, wish);
        if persist(client, || client.run(&tolerant)).await.is_err() {
            return Err(failure);
        }
        let Ok(told) = persist(client, || client.read_file(&status, None)).await else { return Err(failure) };
        let told = blocking(move || copy_of(&told, command::MESSAGES_MAX)).await?;
        let packed = match told.split(|&byte| byte == b'\n').next() {
            // This time nothing was in the way.
            Some(b"0") => Packed::Whole,
            _ => Packed::Partly(told),
        };
        // It lies in the run's own folder and is overwritten by the next one.
        let _left_behind = client.remove(&status).await;
        Ok(packed)
    }
}

/// A restore whose sandbox has packed: all that is needed to receive its archive.
struct Receiving {
    base: OwnedMutexGuard<Base>,
    packed: Packed,
    demand: Demand,
    /// The name that the sandbox was given for its new index and for the download.
    new_index: String,
    /// See [`Fetched::is_named`].
    is_named: bool,
    /// What is known to have changed in the sandbox.
    news: Option<News>,
    workspace: Workspace,
    left_alone: Filter<'static>,
    travel: Travel,
    preserve: PathSet,
    places: Places,
    memory: Arc<Memory>,
    cancel: Cancel,
}

impl Receiving {
    /// Takes in the archive as it passes, and then decides what of it counts. What the session knows is changed only where
    /// nothing is refused.
    fn receive(mut self, mut stream: Box<dyn Stream>) -> Result<Begun> {
        let root = self.workspace.open()?;
        let control = RelativePath::parse(self.places.answer().as_bytes()).ok().flatten();
        let base = &*self.base;
        // The answer mostly comes first, and then nothing is staged for the sandbox's own modes.
        let modes_told = OnceLock::new();
        let told = |control: &[u8]| {
            if let Some(found) = base.differences(Answer::parse(Some(control)), &self.preserve) {
                modes_told.get_or_init(|| found.modes.into_iter().collect());
            }
        };
        let (travel, known) = (self.travel, &base.repositories.bases);
        let has_sent_pack = AtomicBool::new(false);
        let passed_over = self.left_alone.clone().without_names("", |path| {
            let is_passed_over = travel.passes_over(path, known);
            let is_sent = is_passed_over && is_sent_pack(path, known);
            if is_sent {
                has_sent_pack.store(true, Ordering::Relaxed);
            }
            is_passed_over && !(is_sent && self.demand.sent_packs)
        });
        let reception = Reception {
            base: &base.trees.snapshot,
            workspace: &root,
            left_alone: &passed_over,
            control: control.as_ref(),
            on_control: &told,
            mode: &|path, mode| base.as_sent(modes_told.get().unwrap_or(&base.modes), path, mode),
            every_file: self.demand.every_file,
            is_partial: matches!(self.packed, Packed::Partly(_)),
            cancel: &self.cancel,
        };
        let mut received = reception.receive_some(&mut *stream)?;
        // The bytes are the client's again.
        drop(stream);

        let control = received.archive.control.take();
        let answer = Answer::parse(control.as_deref());
        let has_new_index = answer.index == Some(self.new_index.as_bytes());
        let downloads = answer.earlier.map_or(1, |earlier| earlier.saturating_add(1));
        if let Some(error) = self.refusal(answer) {
            return Err(reception.give_up(received, error));
        }
        if let Some(has_zstd) = answer.has_zstd {
            self.memory.note_zstd(has_zstd);
        }
        let changes = match self.changes(answer) {
            Ok(changes) => changes,
            Err(error) => return Err(reception.give_up(received, error)),
        };
        if let Some(changes) = &changes {
            let dirs = changes.dirs().filter(|(path, _)| !passed_over.leaves_out(path, Kind::Folder));
            received.archive.add_folders(dirs);
        }
        let learned = base.learn(answer, &received.archive, &self.preserve);
        base.adjust(&mut received.archive, &learned);
        let partly = self.packed.may_lack_something(&received.archive, &self.left_alone);
        let mut incoming = reception.settle(received)?;
        if let Some(changes) = &changes {
            let passed_over =
                passed_over.clone().without_names("", |path| learned.lost.contains_or_covers(path));
            let came = std::mem::take(&mut incoming.snapshot);
            let Some(whole) = changes.whole(&base.trees.snapshot, came, &passed_over) else {
                // The next exchange clears up what stays.
                let _stays = incoming.stage.close(&root);
                return Err(Error::ContradictoryChanges);
            };
            incoming.snapshot = whole;
            self.news =
                Some(News { contents: contents_of(changes, &incoming.snapshot), changes: changes.clone() });
            incoming
                .note_special(changes.special().filter(|path| !passed_over.leaves_out(path, Kind::Other)));
        }
        // The agent may have removed the mark with all that git does not track, and moved all files.
        if answer.mark.is_none()
            && !has_sent_pack.load(Ordering::Relaxed)
            && is_another_without_mark(&base.trees.snapshot, &incoming.snapshot, &learned.lost)
        {
            // The refusal is what to report; the next restore clears up what stays.
            let _stays = incoming.stage.close(&root);
            return Err(Error::SandboxReplaced { reason: NOTHING_LEFT });
        }
        drop(passed_over);
        self.base.take_over(learned);

        let Base { trees: Trees { snapshot, .. }, repositories, .. } = &*self.base;
        let taken = take_out(&mut incoming, snapshot, &root, travel, repositories, partly, &self.cancel);
        let taken = taken.map_err(|error| error.with_hint(UNCHANGED));
        let repositories = match taken.and_then(|taken| self.complete(taken, changes.is_some())) {
            Ok(repositories) => repositories,
            Err(error) => {
                // The failure is what to report; the next restore clears up what stays.
                let _stays = incoming.stage.close(&root);
                return Err(error);
            }
        };
        incoming.treat_missing_as_unchanged(&self.base.trees.snapshot, partly);
        if answer.earlier.is_some_and(|earlier| earlier < self.base.downloads) {
            self.base.share_only(&incoming.snapshot);
        }
        let lost = self.base.lost.paths().map(|path| Skipped { path: path.clone(), reason: LOST });
        incoming.skipped.extend(lost);
        let base_index = self.base.index.clone();
        let Base { trees: Trees { snapshot, .. }, rescued, .. } = &mut *self.base;
        let merge = Merge::begin(root, incoming, snapshot, rescued)?;
        // Where nothing changed, the former index still holds.
        let is_as_before = changes.is_some_and(|changes| changes.is_empty());
        let new_index = if is_as_before { base_index } else { has_new_index.then_some(self.new_index) };
        let Self { base, left_alone, travel, packed, news, .. } = self;
        Ok(Begun { merge, repositories, base, left_alone, travel, packed, new_index, downloads, news })
    }

    /// Refuses repositories that lack objects which another download may bring.
    fn complete(&self, taken: Arrived, is_changes_only: bool) -> Result<Arrived> {
        if !self.demand.sent_packs && taken.lacks_objects() {
            Err(Error::LackingObjects)
        } else if is_changes_only && taken.may_lack_objects() {
            Err(Error::ContradictoryChanges)
        } else {
            Ok(taken)
        }
    }

    /// Why nothing of this download counts. It may be another one than was asked for, at its beginning or at its end: another
    /// command may have replaced the file while it was read. Or the sandbox has another upload.
    fn refusal(&self, answer: Answer<'_>) -> Option<Error> {
        let is_anothers = |name| name != self.new_index.as_bytes() || !self.is_named;
        if answer.download.is_some_and(is_anothers) {
            return Some(Error::OthersDownload);
        }
        let has_another = answer.names_another(self.places.upload_id());
        has_another.then_some(Error::SandboxReplaced { reason: ANOTHER_UPLOAD })
    }

    /// The changes, if only these were downloaded.
    fn changes(&self, answer: Answer<'_>) -> Result<Option<Changes>> {
        let Some((since, changes)) = answer.changes else { return Ok(None) };
        let known = self.base.index.as_ref().filter(|_| self.demand.changes_only);
        let is_asked_for = known.is_some_and(|known| known.as_bytes() == since) && answer.mark.is_some();
        // Each line takes far more memory than it has bytes, and very many of them pack to nothing.
        let lines = changes.split(|&byte| byte == b'\n').count();
        let is_likely = lines <= self.base.trees.snapshot.len().saturating_add(NEW_CHANGES_MAX);
        if !is_asked_for || !is_likely {
            return Err(Error::ContradictoryChanges);
        }
        Changes::parse(changes).map(Some).ok_or(Error::ContradictoryChanges)
    }
}

/// A restore whose download has been checked and staged.
struct Begun {
    merge: Merge,
    repositories: Arrived,
    base: OwnedMutexGuard<Base>,
    left_alone: Filter<'static>,
    travel: Travel,
    packed: Packed,
    /// The sandbox's index of what is the next base.
    new_index: Option<String>,
    /// See [`Base::downloads`].
    downloads: u64,
    news: Option<News>,
}

/// What has changed in a sandbox, and what its files and links are now.
struct News {
    changes: Changes,
    contents: HashMap<RelativePath, remote::Content>,
}

impl Begun {
    /// Merges. What the sandbox held is the next base.
    fn apply(self, cancel: &Cancel) -> Result<(Restored, OwnedMutexGuard<Base>, bool)> {
        let Self {
            mut merge,
            repositories,
            mut base,
            left_alone,
            travel,
            packed,
            new_index,
            downloads,
            news,
        } = self;
        let excluded = left_alone.clone();
        let (entries, is_changes_only) = (merge.entries(), news.is_some());
        let Base { trees, lost, rescued, retention, repositories: shared, .. } = &mut *base;
        let snapshot = &mut trees.snapshot;
        let left_alone = left_alone
            .without_names("", |path| travel.is_apart(path))
            .without_names("", |path| lost.contains_or_covers(path));
        // Without a change there is nothing to hold back.
        let written = if merge.needs_lock() {
            &at_checkout(&merge, snapshot, shared, &repositories, cancel)?
        } else {
            &AtCheckout::default()
        };
        let (search, retention) = (travel.search(), *retention);
        let options =
            MergeOptions { base: snapshot, left_alone: &left_alone, search, written, retention, cancel };
        // Which files git runs is found out before the merge: it may change a configuration that is included.
        let changed = repositories.changed();
        let at_checkouts = repositories.at_checkouts();
        let named = if merge.needs_lock() || !changed.is_empty() || repositories.has_news() {
            named(merge.root(), shared, merge.outline(snapshot), cancel)
        } else {
            Ok(Named::default())
        };
        let report = named.and_then(|mut named| {
            let mut report = merge.apply(&options, rescued)?;
            tell_named(&mut report, &mut named, &changed, merge.root())?;
            // Once files were merged, an abort has no effect: the repositories are merged too.
            if !merge.needs_lock() {
                cancel.check()?;
            }
            let before: BTreeSet<RelativePath> = shared.bases.keys().cloned().collect();
            let commits_before =
                if changed.is_empty() { BTreeSet::new() } else { committed_links::tips(&shared.bases) };
            let mut git = repositories.apply(merge.root(), shared)?;
            tell_linked(&mut report, &mut named, &changed, &commits_before, shared, merge.root())?;
            tell_newly_included(&mut report, &named, merge.root())?;
            // The configuration of the user counts in a new repository, too. (What cannot be read is not obeyed.)
            if shared.bases.keys().any(|dot_git| !before.contains(dot_git))
                && let Ok(mut named) =
                    self::named(merge.root(), shared, merge.outline(snapshot), &Cancel::default())
            {
                tell_named(&mut report, &mut named, &changed, merge.root())?;
            }
            tell_untracked(&mut report, &at_checkouts, shared, merge.root())?;
            tell_created(&mut report, &git);
            tell_and_compare(&mut git, &report.written, &excluded, merge.root(), shared)?;
            tell_held(&mut git, merge.bare());
            Ok((report, git))
        });
        drop(left_alone);
        let has_moved = merge.bare().iter().any(is_moved);
        let target = merge.target().to_path_buf();
        // The merge is what counts; the next one clears up what is left of this one.
        let (theirs, _left) = merge.finish(rescued);
        // A merge that needed no lock leaves that of a killed process; if it cannot be removed here, it
        // stays.
        let _stays = MergeLock::clear_abandoned(&target);
        let (report, git) = report?;
        *snapshot = theirs;
        // What is not taken over as the sandbox has it is reported by each restore, which needs a full download for that. And
        // what git could not do is tried again with all of the repository.
        let is_plain = report.held_back.is_empty()
            && report.skipped.iter().all(|skipped| skipped.reason == LOST)
            && !git.is_incomplete
            && !has_moved;
        base.index = new_index.filter(|_| is_plain);
        let has_news = news.as_ref().is_none_or(|news| !news.changes.is_empty());
        // A state from before this restore is as good where that brought nothing.
        if has_news {
            base.downloads = downloads;
        }
        // After a full download it is not known what else the sandbox has, such as what is excluded.
        base.trees.remote =
            base.trees.remote.take().zip(news).map(|(mut remote, News { changes, contents })| {
                remote.change(&changes, |path| contents.get(path).cloned());
                remote
            });
        let (tar_messages, phases) = (packed.into_messages(), Vec::new());
        let restored = Restored { report, git, entries, is_changes_only, tar_messages, phases };
        Ok((restored, base, has_news))
    }

    /// Tells what a merge would do, and ends without one.
    fn foresee(self, cancel: &Cancel) -> Result<Restored> {
        let Self { mut merge, repositories, mut base, left_alone, travel, packed, news, .. } = self;
        let (entries, is_changes_only) = (merge.entries(), news.is_some());
        let Base { trees: Trees { snapshot, .. }, lost, retention, repositories: shared, .. } = &*base;
        let left_alone = left_alone
            .without_names("", |path| travel.is_apart(path))
            .without_names("", |path| lost.contains_or_covers(path));
        let (search, retention) = (travel.search(), *retention);
        let written = &at_checkout(&merge, snapshot, shared, &repositories, cancel)?;
        let options =
            MergeOptions { base: snapshot, left_alone: &left_alone, search, written, retention, cancel };
        let report = merge.preview(&options);
        let mut git = repositories.foresee();
        tell_held(&mut git, merge.bare());
        drop(left_alone);
        // The next restore clears up what is left of it.
        let (_theirs, _left) = merge.finish(&mut base.rescued);
        let report = report?;
        let (tar_messages, phases) = (packed.into_messages(), Vec::new());
        Ok(Restored { report, git, entries, is_changes_only, tar_messages, phases })
    }

    /// Ends without a merge, since `error` has come up, which is returned.
    fn give_up(self, error: Error) -> Error {
        let Self { merge, mut base, .. } = self;
        // The failure that came first is the one to report.
        let (_theirs, _closed) = merge.finish(&mut base.rescued);
        error.with_hint(UNCHANGED)
    }
}

/// What is known of what the extraction left in the sandbox.
struct Learned {
    /// What the sandbox never had as it was packed.
    lost: PathSet,
    /// The permission bits that it has by itself, where they are not those that were packed.
    modes: HashMap<RelativePath, u32>,
    /// Whether nothing that the sandbox says later is believed.
    is_final: bool,
}

impl Base {
    /// Counts as shared only what an older state of the sandbox has as well. What it has otherwise is not what the agent did, and
    /// neither deletes nor replaces anything without a backup.
    fn share_only(&mut self, older: &Snapshot) {
        self.trees.snapshot.retain(|path, entry| older.get(path) == Some(entry));
    }

    /// What is known once an answer has come. Only what the first one says is believed: before the next one, an agent has had
    /// access.
    fn learn(&self, answer: Answer<'_>, archive: &Archive, preserve: &PathSet) -> Learned {
        let known = |is_final| Learned { lost: self.lost.clone(), modes: self.modes.clone(), is_final };
        if self.trees.sent.is_empty() {
            return known(true);
        }
        if answer.mark.is_none() {
            // The agent removed what the sandbox would have told. What came is not lost.
            let sent = &self.trees.sent;
            // Both are in the order of their paths.
            let mut came = archive.entries.iter().map(|entry| &entry.path).peekable();
            let mut is_missing = |path: &RelativePath| {
                while came.next_if(|came| *came < path).is_some() {}
                came.peek().is_none_or(|came| *came != path)
            };
            let missing: Vec<_> = sent.iter().map(|(path, _)| path).filter(|path| is_missing(path)).collect();
            let lost = PathSet::of(listing::doubtful(sent, &missing));
            return Learned { lost, ..known(false) };
        }
        let Some(found) = self.differences(answer, preserve) else { return known(true) };
        Learned { lost: PathSet::of(found.lost), modes: found.modes.into_iter().collect(), is_final: true }
    }

    /// Where the sandbox has something else than it was sent, if this is its first answer and it says so.
    fn differences(&self, answer: Answer<'_>, preserve: &PathSet) -> Option<Differences> {
        if self.trees.sent.is_empty() {
            return None;
        }
        answer.mark.and(answer.list).map(|list| listing::compare(&self.trees.sent, list, preserve))
    }

    /// Uses what was learned from now on.
    fn take_over(&mut self, learned: Learned) {
        if learned.is_final {
            self.trees.sent = Vec::new();
        }
        (self.lost, self.modes) = (learned.lost, learned.modes);
        if !self.lost.is_empty() {
            self.trees.snapshot.retain(|path, _| !self.lost.contains_or_covers(path));
        }
    }

    /// Removes from a download what the sandbox never had as it was packed, and replaces modes that the
    /// sandbox has by itself by those that were packed.
    fn adjust(&self, archive: &mut Archive, learned: &Learned) {
        archive.entries.retain(|entry| !learned.lost.contains_or_covers(&entry.path));
        for Unpacked { path, content, .. } in &mut archive.entries {
            if let Content::Folder { mode: Some(mode) } | Content::File { mode, .. } = content {
                *mode = self.as_sent(&learned.modes, path, *mode);
            }
        }
    }

    /// The mode that was packed, where the sandbox has this one by itself; otherwise this one.
    fn as_sent(&self, modes: &HashMap<RelativePath, u32>, path: &RelativePath, mode: u32) -> u32 {
        if modes.get(path) != Some(&(mode & PERMISSIONS)) {
            return mode;
        }
        match self.trees.snapshot.get(path) {
            Some(Entry::Folder { mode: Some(base) } | Entry::File { mode: base, .. }) => {
                mode & !PERMISSIONS | base & PERMISSIONS
            }
            _ => mode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GNU tar is asked how it writes these names in a message.
    #[test]
    #[cfg(target_os = "linux")]
    fn every_name_that_tar_quotes_is_read_as_it_is() {
        use std::os::unix::ffi::OsStrExt as _;
        let every_byte: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
        for name in [
            &b"plain"[..],
            b"12:30",
            b"back\\slash",
            b"\\",
            b"a\\n",
            b" blank ",
            "\u{fc}".as_bytes(),
            &every_byte,
        ] {
            let output = std::process::Command::new("tar")
                .env("LC_ALL", "C")
                .args(["--create", "--file=/dev/null", "--no-unquote", "--"])
                .arg(std::ffi::OsStr::from_bytes(name))
                .output()
                .unwrap();
            let line = output.stderr.split(|&byte| byte == b'\n').next().unwrap();
            let line = line.strip_prefix(b"tar: ").unwrap();
            let quoted =
                line.windows(14).position(|piece| piece == b": Cannot stat:").map(|end| &line[..end]);
            assert_eq!(unquote(quoted.unwrap()).as_deref(), Some(name), "{}", output.stderr.escape_ascii());
        }
        for malformed in [&b"\\"[..], b"a\\x", b"\\1", b"\\18x", b"\\400"] {
            assert_eq!(unquote(malformed), None, "{}", malformed.escape_ascii());
        }
    }
}
