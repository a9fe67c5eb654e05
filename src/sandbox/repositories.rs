//! The git repositories of a workspace: what is uploaded of them, and how what comes back is merged.
//!
//! Nothing below a `.git` is transferred as a file of the workspace. A folder that was made for the sandbox
//! is uploaded in the place of `.git`. What the sandbox has below it is downloaded to a folder outside the
//! workspace, where git checks it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::archive::pack::{Graft, Layout};
use crate::cancel::Cancel;
use crate::error::{Obstacle, Result};
use crate::fs::{Cursor, Kind, Root};
use crate::git::command::{Fault, Git};
use crate::git::export::{Bases, Mode, Options, Tree, export};
use crate::git::held::{self, AtCheckout, Search};
use crate::git::import::{self, Checked};
use crate::git::named::{AT_CHECKOUT, BY_A_RENAME, Named, Outline};
use crate::git::packs::{Earlier, PackFile};
use crate::git::quarantine::{Quarantine, is_passed_over};
use crate::git::recognise::{Checkouts, bare_folders, in_checkout, is_git_name, is_gits};
use crate::git::refs::Oid;
use crate::git::report::{GitReport, HeldBack};
use crate::git::work_folder::WorkFolder;
use crate::git::written::have_compared;
use crate::git::{committed_links, index, obeyed, stored};
use crate::merge::conflicts::make_folder;
use crate::merge::incoming::Incoming;
use crate::merge::report::{Noted, Report, Skipped};
use crate::merge::sensitive::by_name;
use crate::merge::session::Merge;
use crate::path::RelativePath;
use crate::time::utc_timestamp;
use crate::transfer::remote::{self, Content, Names, Remote};
use crate::tree::entry::{Entry, Snapshot};
use crate::tree::filter::Filter;
use crate::tree::scan::{Found, scan};

/// The settings for the transfer of repositories.
#[derive(Debug, Clone, Copy, Default)]
pub struct Travel {
    /// How they are transferred.
    pub mode: Mode,
    /// Whether credentials are uploaded too.
    pub credentials: bool,
    /// How many commits of each line of history are uploaded; `None` for all.
    pub depth: Option<usize>,
}

impl Travel {
    /// Whether a path belongs to git and so is not a file of the workspace: no scan, plan or merge of files
    /// contains it.
    #[must_use]
    pub fn is_apart(&self, path: &RelativePath) -> bool {
        self.mode != Mode::Files && is_gits(path)
    }

    /// Where directories are searched for that git would take for bare repositories.
    #[must_use]
    pub fn search(&self) -> Search {
        match self.mode {
            Mode::Files => Search::Everywhere,
            Mode::Merge | Mode::Off => Search::OutsideOfGit,
        }
    }

    /// Whether a file of a download is skipped without reading it.
    #[must_use]
    pub fn passes_over(&self, path: &RelativePath, known: &Bases) -> bool {
        match self.mode {
            Mode::Merge => is_passed_over(path, known),
            Mode::Files => false,
            Mode::Off => is_gits(path),
        }
    }
}

/// What is uploaded of a workspace with its repositories.
#[derive(Debug)]
pub struct LaidOut {
    /// What is to be packed.
    pub layout: Layout,
    /// Packs of an earlier upload, which belong to it but are not packed, because the sandbox has them.
    pub unsent: remote::Contents,
    /// What both sides will share of the repositories.
    pub repositories: Shared,
}

/// What a sandbox has of an earlier upload.
#[derive(Debug, Clone)]
pub struct Former {
    /// Everything that it has.
    pub remote: Remote,
    /// What was sent of the repositories.
    pub bases: Bases,
}

impl Former {
    /// What the sandbox has at the path of a pack's file.
    fn pack_file(&self, dot_git: &RelativePath, name: &str) -> Option<(RelativePath, &Content)> {
        let name = RelativePath::parse(format!("objects/pack/{name}").as_bytes()).ok()??;
        let path = dot_git.join(&name);
        self.remote.entries.get(&path).map(|content| (path, content))
    }

    fn has_as_sent(&self, dot_git: &RelativePath, name: &str, sent: &PackFile) -> bool {
        let there = self.pack_file(dot_git, name).map(|(_, content)| content);
        matches!(there, Some(Content::File { size, digest: Some(digest), names: Names::One, .. })
            if (*size, Some(*digest)) == (sent.size, sent.digest))
    }
}

/// The reason why a path is not a file of the workspace.
const GITS: &str = "it belongs to git";

/// The reason why a reference, or a folder of references, is not uploaded.
const UNREADABLE: &str = "it was not uploaded: git cannot read it";

/// What both sides share of the repositories, and what is to be reported about them.
#[derive(Debug, Default)]
pub struct Shared {
    /// The base of the next restore.
    pub bases: Bases,
    /// What was not uploaded, and why.
    pub left_here: Vec<HeldBack>,
    /// The folder in which the upload was made. It is removed together with this value.
    made_in: Option<WorkFolder>,
}

impl Shared {
    /// Starts with what both sides already share.
    #[must_use]
    pub fn of(bases: Bases) -> Self {
        Self { bases, ..Self::default() }
    }

    /// Removes the folder in which the upload was made.
    pub fn sent(&mut self) {
        self.made_in = None;
    }

    /// Records what the sandbox has of the packs, so that the next upload can leave them out.
    pub fn note_packs(&mut self, sent: &Snapshot) {
        for (dot_git, base) in &mut self.bases {
            base.sent_packs.note(|name| {
                let path = RelativePath::parse(format!("objects/pack/{name}").as_bytes()).ok()??;
                match sent.get(&dot_git.join(&path)) {
                    Some(Entry::File { digest, .. }) => Some(*digest),
                    _ => None,
                }
            });
        }
    }
}

/// An entry of the report: a path that was not uploaded, or not taken over, and why.
fn left(path: &RelativePath, reason: impl Into<String>) -> HeldBack {
    HeldBack { path: path.clone(), what: None, reason: reason.into() }
}

/// A workspace that was scanned.
#[derive(Debug)]
pub struct Scanned {
    root: Root,
    /// Its files.
    found: Vec<Found>,
    /// The paths of its repositories.
    checkouts: Vec<RelativePath>,
    /// Its folders that git takes for bare repositories. They are not uploaded.
    bare: Vec<RelativePath>,
    repositories: Shared,
}

/// Scans a workspace, and finds its repositories.
pub fn find(root: Root, filter: &Filter<'_>, travel: Travel, cancel: &Cancel) -> Result<Scanned> {
    let checkouts = Checkouts::default();
    let is_apart = |path: &RelativePath| travel.mode != Mode::Files && checkouts.leaves_out(path);
    let files = filter.clone().without_names(GITS, is_apart);
    let mut found = scan(&root, &files, cancel)?;
    drop(files);
    let mut repositories = Shared::default();
    if travel.mode == Mode::Files {
        return Ok(Scanned { root, found, checkouts: Vec::new(), bare: Vec::new(), repositories });
    }
    let bare = bare_folders(found.iter().map(|found| (&found.path, found.meta.kind)));
    let bare: Vec<RelativePath> = bare.into_iter().flatten().collect();
    if !bare.is_empty() {
        found.retain(|found| !bare.iter().any(|folder| found.path.is_or_below(folder.as_bytes())));
        let reason = "git takes it for a bare repository, which is not transferred";
        repositories.left_here.extend(bare.iter().map(|folder| left(folder, reason)));
    }
    Ok(Scanned { root, found, checkouts: checkouts.found(), bare, repositories })
}

/// Makes the upload of a workspace's repositories, without the packs that the sandbox has, and lists
/// everything to be packed. The filter is that of the scan.
pub fn lay_out(
    scanned: Scanned,
    filter: &Filter<'_>,
    travel: Travel,
    former: Option<&Former>,
    cancel: &Cancel,
) -> Result<LaidOut> {
    let Scanned { root, found, checkouts, bare, mut repositories } = scanned;
    let is_bare = |path: &RelativePath| bare.iter().any(|folder| path.is_or_below(folder.as_bytes()));
    let excluded = filter.clone().without_names("", is_bare);
    let mut grafts = Vec::new();
    let mut unsent = remote::Contents::new();
    if travel.mode == Mode::Merge && !checkouts.is_empty() {
        let made_in = WorkFolder::new()?;
        let git = Git::find(root.path());
        // What is in a bare repository's folder is not packed, so a repository in it has no place.
        let has_place = |dot_git: &&RelativePath| {
            let above = dot_git.parent();
            above.is_none_or(|above| found.binary_search_by(|found| found.path.cmp(&above)).is_ok())
        };
        for (number, dot_git) in checkouts.iter().filter(has_place).enumerate() {
            let options = Options { credentials: travel.credentials, depth: travel.depth };
            let has = |name: &str, sent: &PackFile| {
                former.is_some_and(|former| former.has_as_sent(dot_git, name, sent))
            };
            let sent = former.and_then(|former| former.bases.get(dot_git));
            let earlier = sent.map(|sent| Earlier { packs: &sent.sent_packs, has: &has });
            let attempt = |git: &Git, attempt: &str| {
                let folder = made_in.path().join(format!("{number}{attempt}"));
                let tree = Tree { root: &root, found: &found, excluded: &excluded };
                export(git, tree, dot_git, options, earlier.as_ref(), &folder, cancel)
            };
            let exported = match &git {
                None => Err(Fault::Refused("there is no git on this machine".to_owned())),
                // What one call of git has listed may be gone by the next, as in a `git stash pop` meanwhile.
                Some(git) => match attempt(git, "") {
                    Err(Fault::Refused(_) | Fault::Killed(_)) => attempt(git, "-again"),
                    made => made,
                },
            };
            match exported {
                Ok(exported) => {
                    let index = exported.unfinished.map(|reason| ("index".to_owned(), reason));
                    let unreadable =
                        exported.unreadable.into_iter().map(|name| (name, UNREADABLE.to_owned()));
                    let held = |(what, reason)| HeldBack { path: dot_git.clone(), what: Some(what), reason };
                    repositories.left_here.extend(index.into_iter().chain(unreadable).map(held));
                    let names = exported.unsent_packs.iter();
                    let there = names.filter_map(|name| former?.pack_file(dot_git, name));
                    unsent.extend(there.map(|(path, content)| (path, content.clone())));
                    grafts.push(Graft { at: dot_git.clone(), root: Root::open(&exported.folder)? });
                    repositories.bases.insert(dot_git.clone(), exported.base);
                }
                Err(Fault::Refused(reason) | Fault::Killed(reason)) => {
                    repositories.left_here.push(left(dot_git, format!("it was not uploaded: {reason}")));
                }
                Err(Fault::Error(error)) => return Err(error),
            }
        }
        repositories.made_in = Some(made_in);
    }
    let layout = Layout::with_grafts(root, found, grafts, cancel)?;
    Ok(LaidOut { layout, unsent, repositories })
}

/// Finds the files of the workspace that the local git configuration names, and those to which links lead whose names
/// tools know. Without git on this machine, nothing runs the former.
pub fn named(workspace: &Root, shared: &Shared, outline: Outline, cancel: &Cancel) -> Result<Named> {
    let git = Git::find(workspace.path());
    Named::read(git.as_ref(), workspace, &shared.bases, outline, cancel)
}

/// Reports which local repositories include a configuration on a condition that holds only now.
pub fn tell_newly_included(report: &mut Report, named: &Named, workspace: &Root) -> Result<()> {
    if let Some(git) = Git::find(workspace.path()) {
        // Once the repositories were merged, an abort has no effect.
        report.sensitive.extend(named.newly_included(&git, &Cancel::default())?);
        report.sensitive.sort_unstable();
    }
    Ok(())
}

/// What git may write into folders of the workspace at a checkout, as far as that matters for a merge.
pub fn at_checkout(
    merge: &Merge,
    base: &Snapshot,
    shared: &Shared,
    arrived: &Arrived,
    cancel: &Cancel,
) -> Result<AtCheckout> {
    let tracked = tracked(shared, obeyed::is_head_path).map(|path| obeyed::split(&path).0.to_vec()).collect();
    let mut written = AtCheckout { tracked, ..AtCheckout::default() };
    let gained = merge.gained(base)?;
    if gained.folders.is_empty() && !gained.may_complete {
        return Ok(written);
    }
    written.add_parts(self::tracked(shared, |path| obeyed::parts(path).next().is_some()));
    if let Some(git) = Git::find(merge.root().path()) {
        written.history = stored::parts_in_histories(&git, &shared.bases, &gained.folders, cancel)?;
        if let Some(checked) = &arrived.checked {
            checked.add_parts(&gained.folders, &mut written.history);
        }
        written.fixture = gained.may_complete
            && arrived.stored.has_fixture(&git, merge.root().path(), &shared.bases, cancel)?;
    }
    Ok(written)
}

/// The paths of the workspace in the shared indexes that pass a test, by their path in a checkout.
fn tracked<'a>(
    shared: &'a Shared,
    is_wanted: impl Fn(&[u8]) -> bool + Copy + 'a,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    shared.bases.iter().flat_map(move |(dot_git, base)| {
        let checkout = dot_git.parent();
        let paths = index::entries_at(&base.index, is_wanted);
        // An index has no path that a file of the workspace cannot have.
        let in_workspace = paths.filter_map(move |(path, ..)| in_checkout(checkout.as_ref(), path).ok()?);
        in_workspace.map(|path| path.as_bytes().to_vec())
    })
}

/// The reason for reporting a local file that is not in any commit.
const REPLACED_AT_CHECKOUT: &str =
    "git does not track what is here, and a checkout of the sandbox's new commits may replace it";

/// Reports what was held back, each once.
pub fn tell_held(report: &mut GitReport, held: &[Noted]) {
    report.held_back.extend(held.iter().map(|held| left(&held.path, held.reason)));
    report.held_back.sort();
    report.held_back.dedup();
}

/// Reports the repositories that are new: git's commands in their folders now work on them.
pub fn tell_created(report: &mut Report, git: &GitReport) {
    const CREATED: &str =
        "a new repository: git works on it in this directory, and no longer on one around it";
    report.sensitive.extend(git.created.iter().map(|path| Noted { path: path.clone(), reason: CREATED }));
    report.sensitive.sort_unstable();
}

/// Reports which of the `named` files a merge has written or deleted. The links on the way may be among them.
///
/// `changed` are the paths that new commits or an index change: git writes them at a checkout.
pub fn tell_named(
    report: &mut Report,
    named: &mut Named,
    changed: &BTreeSet<RelativePath>,
    workspace: &Root,
) -> Result<()> {
    let came = [&report.written, &report.already_here, &report.deleted];
    if came.iter().all(|paths| paths.is_empty()) && changed.is_empty() {
        return Ok(());
    }
    named.follow_links();
    let known: BTreeSet<RelativePath> = report.sensitive.iter().map(|noted| noted.path.clone()).collect();
    let mut cursor = workspace.cursor();
    let came = report.written.iter().chain(&report.already_here);
    for path in came.filter(|path| !known.contains(*path)) {
        let mut reason = named.reason(path);
        if reason.is_none()
            && let Some(above) = named.reason_of_link(path)
            && cursor.stat(path)?.is_some_and(|meta| meta.kind == Kind::Symlink)
        {
            reason = Some(above);
        }
        report.sensitive.extend(reason.map(|reason| Noted { path: path.clone(), reason }));
    }
    // What is no longer there has an effect, too: a check is not made, or a setting not obeyed. If a link or a file is in the place of a
    // folder above it, that is reported.
    let reported: BTreeSet<RelativePath> = report.sensitive.iter().map(|noted| noted.path.clone()).collect();
    for path in report.deleted.iter().filter(|path| !known.contains(*path)) {
        let Some(reason) = named.reason(path) else { continue };
        let mut is_replaced = false;
        for above in path.ancestors().filter(|above| reported.contains(above)) {
            is_replaced |= cursor.stat(&above)?.is_some_and(|meta| meta.kind != Kind::Folder);
        }
        if !is_replaced {
            report.sensitive.push(Noted { path: path.clone(), reason });
        }
    }
    report.sensitive.append(&mut named.unread());
    let written: BTreeSet<&RelativePath> =
        report.written.iter().chain(&report.already_here).chain(&report.deleted).collect();
    let basenames = named.names();
    let mut of_commits = Vec::new();
    for path in changed.iter().filter(|path| !known.contains(*path)) {
        let is_named = || named.reason(path).or_else(|| named.reason_of_link(path)).is_some();
        if !written.contains(path) && is_named() {
            of_commits.push(Noted { path: path.clone(), reason: AT_CHECKOUT });
        } else if let Some(reason) = by_name(path).filter(|_| !written.contains(path)) {
            of_commits.push(Noted { path: path.clone(), reason });
        } else if named.reason(path).is_none() && basenames.contains(path.name().as_encoded_bytes()) {
            of_commits.push(Noted { path: path.clone(), reason: BY_A_RENAME });
        }
    }
    report.sensitive.extend(of_commits);
    report.sensitive.sort_unstable();
    report.sensitive.dedup();
    Ok(())
}

/// Reports what new commits change at the end of links that they have at the paths of `named` files. `before` are the commits that both
/// sides had.
pub fn tell_linked(
    report: &mut Report,
    named: &mut Named,
    changed: &BTreeSet<RelativePath>,
    before: &BTreeSet<Oid>,
    shared: &Shared,
    workspace: &Root,
) -> Result<()> {
    if changed.is_empty() || named.is_empty() {
        return Ok(());
    }
    let Some(git) = Git::find(workspace.path()) else { return Ok(()) };
    // Once the repositories were merged, an abort has no effect.
    if committed_links::follow(named, &git, &shared.bases, before, &Cancel::default())? {
        tell_named(report, named, changed, workspace)?;
    }
    Ok(())
}

/// Reports which local files a checkout of new commits may replace, since git does not track them. `at_checkouts` are the paths that each
/// checkout of the workspace may get, and `shared` is what both sides have after the restore.
pub fn tell_untracked(
    report: &mut Report,
    at_checkouts: &BTreeMap<RelativePath, BTreeSet<RelativePath>>,
    shared: &Shared,
    workspace: &Root,
) -> Result<()> {
    let known: BTreeSet<&RelativePath> =
        report.sensitive.iter().map(|noted| &noted.path).chain(&report.written).collect();
    let (mut cursor, mut told) = (workspace.cursor(), BTreeSet::new());
    for (dot_git, changed) in at_checkouts {
        let mut untracked = BTreeSet::new();
        for path in changed.iter().filter(|path| !known.contains(path)) {
            if is_replaced_at_checkout(&mut cursor, path)? {
                untracked.insert(path.clone());
            }
        }
        let checkout = dot_git.parent();
        let index = shared.bases.get(dot_git).map(|base| &base.index[..]).filter(|_| !untracked.is_empty());
        for (path, ..) in index::entries_at(index.unwrap_or_default(), |_| true) {
            // An index has no path that a file of the workspace cannot have.
            if let Ok(Some(path)) = in_checkout(checkout.as_ref(), path) {
                untracked.remove(&path);
            }
        }
        told.append(&mut untracked);
    }
    report.sensitive.extend(told.into_iter().map(|path| Noted { path, reason: REPLACED_AT_CHECKOUT }));
    report.sensitive.sort_unstable();
    Ok(())
}

/// Whether a checkout may replace what is at a path, if git does not track it. A folder may have what git ignores, unless it is a
/// checkout of its own.
fn is_replaced_at_checkout(cursor: &mut Cursor<'_>, path: &RelativePath) -> Result<bool> {
    Ok(match held::kind_at(cursor, path)? {
        None => false,
        Some(Kind::Folder) => held::kind_at(cursor, &RelativePath::child(Some(path), b".git"))?.is_none(),
        Some(_) => true,
    })
}

/// Reports what came of the repositories without their files, and has git compare the files that a merge has written.
pub fn tell_and_compare(
    report: &mut GitReport,
    written: &[RelativePath],
    excluded: &Filter<'_>,
    workspace: &Root,
    shared: &Shared,
) -> Result<()> {
    report.tell_excluded(excluded);
    if !written.is_empty()
        && !shared.bases.is_empty()
        && let Some(git) = Git::find(workspace.path())
    {
        // Once files were merged, an abort has no effect.
        let never = Cancel::default();
        have_compared(&git, workspace, &shared.bases, written, report, &never)?;
    }
    report.held_back.sort();
    Ok(())
}

/// The repositories of a sandbox, read and checked. Nothing local is changed yet.
#[derive(Debug)]
pub struct Arrived {
    git: Option<Git>,
    checked: Option<Checked>,
    report: GitReport,
    /// The folder that they are in.
    waits_in: Option<WorkFolder>,
    /// What the local repositories have stored.
    stored: stored::Known,
}

/// Separates what belongs to git from the rest of a download, and has git check it. With `is_partial`, the
/// sandbox could not read everything, so a missing entry does not count as deleted.
pub fn take_out(
    incoming: &mut Incoming,
    base: &Snapshot,
    workspace: &Root,
    travel: Travel,
    shared: &Shared,
    is_partial: bool,
    cancel: &Cancel,
) -> Result<Arrived> {
    let stored = stored::Known::default();
    let mut arrived =
        Arrived { git: None, checked: None, report: GitReport::default(), waits_in: None, stored };
    arrived.report.held_back.extend(shared.left_here.iter().cloned());
    match travel.mode {
        Mode::Off => {}
        Mode::Files => tell_held(&mut arrived.report, &held::in_git(incoming, base, workspace)?),
        Mode::Merge => {
            let (special, skipped): (Vec<Skipped>, Vec<Skipped>) =
                std::mem::take(&mut incoming.skipped).into_iter().partition(|skipped| is_gits(&skipped.path));
            incoming.skipped = skipped;
            // The base has nothing of git's, so what came of it is among the differences.
            let came = |incoming: &Incoming| {
                let mut came = base.differences(&incoming.snapshot);
                came.any(|(path, _, came)| came.is_some() && is_gits(path))
            };
            if special.is_empty() && !came(incoming) {
                return Ok(arrived);
            }
            let waits_in = WorkFolder::new()?;
            let mut quarantine = Quarantine::new(waits_in.path().join("arrived"), &shared.bases)?;
            bring(incoming, workspace, &mut quarantine)?;
            // What no archive can hold looks like something that was deleted, unless it is told.
            for skipped in &special {
                quarantine.other(&skipped.path);
            }
            if is_partial {
                let reason = "the sandbox's tar failed, and its repositories may be incomplete";
                let (came, held) = quarantine.refuse_all();
                let all: BTreeSet<RelativePath> = shared.bases.keys().cloned().chain(came).collect();
                arrived.report.held_back.extend(all.iter().map(|dot_git| left(dot_git, reason)).chain(held));
                return Ok(arrived);
            }
            arrived.git = Git::find(workspace.path());
            let checked = import::check(
                arrived.git.as_ref(),
                workspace,
                &shared.bases,
                quarantine,
                &arrived.stored,
                cancel,
            )?;
            arrived.checked = Some(checked);
            arrived.waits_in = Some(waits_in);
        }
    }
    Ok(arrived)
}

/// Moves what is below a `.git` to the quarantine.
fn bring(incoming: &mut Incoming, workspace: &Root, quarantine: &mut Quarantine) -> Result<()> {
    let gits = incoming.snapshot.iter().filter(|(path, _)| is_gits(path));
    // A `.git` that is a file comes first: it tells whose repository is in a folder below `modules/`.
    let leads = |(path, entry): &(&RelativePath, &Entry)| {
        matches!(entry, Entry::File { .. }) && is_git_name(path.name().as_encoded_bytes())
    };
    let (first, others): (Vec<_>, Vec<_>) = gits.partition(leads);
    for (path, entry) in first.into_iter().chain(others) {
        match (entry, incoming.staged.get(path)) {
            (Entry::Folder { .. }, _) => quarantine.folder(path),
            (Entry::File { .. }, Some(staged)) => {
                let mut cursor = incoming.stage.get(workspace)?.cursor();
                let opened = cursor.open(&staged.name)?;
                let gone = || Obstacle::Vanished.at("open", staged.name.as_path());
                let (mut file, _) = opened.ok_or_else(gone)?;
                quarantine.file(path, &mut file)?;
                drop(file);
                cursor.remove_file(&staged.name)?;
            }
            _ => quarantine.other(path),
        }
    }
    incoming.snapshot.retain(|path, _| !is_gits(path));
    incoming.staged.retain(|path, _| !is_gits(path));
    Ok(())
}

impl Arrived {
    /// Whether missing objects may be ones that were not sent, because the sandbox had them before.
    #[must_use]
    pub fn may_lack_objects(&self) -> bool {
        self.checked.as_ref().is_some_and(Checked::may_lack_objects)
    }

    /// Whether objects are missing that may be in what was sent: it was not reachable here, and was collected since.
    #[must_use]
    pub fn lacks_objects(&self) -> bool {
        self.checked.as_ref().is_some_and(Checked::lacks_objects)
    }

    /// The paths of the workspace that new commits or an index change.
    #[must_use]
    pub fn changed(&self) -> BTreeSet<RelativePath> {
        self.checked.as_ref().map(Checked::changed).unwrap_or_default()
    }

    /// The paths of the workspace that a checkout of new commits writes, by the `.git` of each checkout.
    #[must_use]
    pub fn at_checkouts(&self) -> BTreeMap<RelativePath, BTreeSet<RelativePath>> {
        self.checked.as_ref().map(Checked::at_checkouts).unwrap_or_default()
    }

    /// Whether any local repository may change, so the workspace's lock is needed.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.checked.as_ref().is_some_and(Checked::has_news)
    }

    /// What a dry run reports about the repositories: what is held back.
    #[must_use]
    pub fn foresee(self) -> GitReport {
        let mut report = self.report;
        if let Some(checked) = self.checked {
            report.held_back.extend(checked.into_held_back());
        }
        report.held_back.sort();
        report.held_back.dedup();
        report
    }

    /// Merges the received repositories into the local ones, after the files of the workspace and under its
    /// lock.
    pub fn apply(self, workspace: &Root, shared: &mut Shared) -> Result<GitReport> {
        let Self { git, checked, mut report, waits_in, stored: _ } = self;
        if let Some(checked) = checked {
            let time = utc_timestamp(SystemTime::now());
            let aside = || Ok(workspace.path().join(make_folder(workspace)?.as_path()));
            let (mut merged, bases) = checked.apply(git.as_ref(), workspace, &time, &aside)?;
            shared.bases = bases;
            merged.held_back.append(&mut report.held_back);
            report = merged;
        }
        drop(waits_in);
        shared.left_here.clear();
        report.held_back.sort();
        report.held_back.dedup();
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::entry::Digest;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    /// What the sandbox may have changed is sent again, and so is what could change together with another file.
    #[test]
    fn a_pack_counts_as_there_only_exactly_as_it_was_sent() {
        let file = |size, digest, names| Content::File { mode: 0o444, size, mtime: 7, digest, names };
        let (as_sent, other) = (Some(Digest([1; 32])), Some(Digest([2; 32])));
        let sent = PackFile { size: 5, digest: as_sent };
        for (there, counts) in [
            (Some(file(5, as_sent, Names::One)), true),
            (Some(file(6, as_sent, Names::One)), false),
            (Some(file(5, other, Names::One)), false),
            (Some(file(5, None, Names::One)), false),
            (Some(file(5, as_sent, Names::First(path("x")))), false),
            (Some(file(5, as_sent, Names::Unknown)), false),
            (Some(Content::Folder { mode: 0o755 }), false),
            (None, false),
        ] {
            let mut former = Former { remote: Remote::default(), bases: Bases::new() };
            let at = path(".git/objects/pack/pack-x.pack");
            former.remote.entries.extend(there.clone().map(|there| (at, there)));
            assert_eq!(former.has_as_sent(&path(".git"), "pack-x.pack", &sent), counts, "{there:?}");
        }
    }
}
