//! The git repositories of a workspace: what of them goes up, and how what comes back is merged.
//!
//! Below a `.git` nothing travels as a file of the workspace. Up goes a folder that was made for the sandbox and takes the
//! place of `.git` there; down comes what the sandbox has below it, which waits outside the workspace until git has looked
//! at it.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::archive::pack::{Graft, Layout};
use crate::cancel::Cancel;
use crate::error::{Obstacle, Result};
use crate::fs::{Kind, Root};
use crate::git::command::{Fault, Git};
use crate::git::export::{Bases, Options, export};
use crate::git::import::{self, Checked};
use crate::git::named::Named;
use crate::git::packs::{Earlier, PackFile};
use crate::git::quarantine::{Quarantine, is_held, is_held_in_repository, is_passed_over};
use crate::git::recognise::{Checkouts, bare_folders, is_bare_marker, is_gits};
use crate::git::report::{GitReport, HeldBack};
use crate::git::work_folder::WorkFolder;
use crate::merge::conflicts::make_folder;
use crate::merge::incoming::Incoming;
use crate::merge::plan::{changed, treat_as_unchanged};
use crate::merge::report::{Noted, Report};
use crate::path::RelativePath;
use crate::time::utc_timestamp;
use crate::transfer::remote::{self, Content, Names, Remote};
use crate::tree::entry::{Entry, Snapshot};
use crate::tree::filter::Filter;
use crate::tree::scan::{Found, scan};

/// How the repositories of a workspace travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// As repositories, which are merged by their references and objects.
    #[default]
    Merge,
    /// As any other files, but for what git runs or obeys.
    Files,
    /// Not at all.
    Off,
}

/// How the repositories of a workspace travel, with all that is to be known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Travel {
    /// Whether and how.
    pub mode: Mode,
    /// Whether what authenticates goes up as well.
    pub credentials: bool,
    /// How many commits of each line of history go up; all where it is `None`.
    pub depth: Option<usize>,
}

impl Travel {
    /// Whether a path is none of the workspace's files: no scan, plan or merge of files knows it.
    #[must_use]
    pub fn is_apart(&self, path: &RelativePath) -> bool {
        self.mode != Mode::Files && is_gits(path)
    }

    /// Whether a file of a download is passed over.
    #[must_use]
    pub fn passes_over(&self, path: &RelativePath, known: &Bases) -> bool {
        match self.mode {
            Mode::Merge => is_passed_over(path, known),
            Mode::Files => false,
            Mode::Off => is_gits(path),
        }
    }
}

/// A workspace with its repositories, laid out.
#[derive(Debug)]
pub struct LaidOut {
    /// What is to be packed.
    pub layout: Layout,
    /// What belongs beside that and is not laid out, since the sandbox has it: packs of an earlier upload.
    pub unsent: remote::Contents,
    /// What both sides will share of the repositories.
    pub repositories: Shared,
}

/// What a sandbox has of an earlier upload.
#[derive(Debug)]
pub struct Former {
    /// All that it holds.
    pub remote: Remote,
    /// What was sent of the repositories.
    pub bases: Bases,
}

impl Former {
    /// What the sandbox has under the name of a pack's file.
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

/// Why something is no file of the workspace's.
const GITS: &str = "it is git's";

/// What both sides share of the repositories, and what is to be told of them.
#[derive(Debug, Default)]
pub struct Shared {
    /// What a restore starts from.
    pub bases: Bases,
    /// What did not go up, and why.
    pub left_here: Vec<HeldBack>,
    /// Where what goes up was made. It is removed with this.
    made_in: Option<WorkFolder>,
}

impl Shared {
    /// What both sides shared already.
    #[must_use]
    pub fn of(bases: Bases) -> Self {
        Self { bases, ..Self::default() }
    }

    /// Removes what was made to go up.
    pub fn sent(&mut self) {
        self.made_in = None;
    }

    /// Notes what the sandbox has of the packs, so that the next upload may leave them out.
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

/// What is left here of a repository, or all of it.
fn left(path: &RelativePath, reason: impl Into<String>) -> HeldBack {
    HeldBack { path: path.clone(), what: None, reason: reason.into() }
}

/// A workspace as it was scanned.
#[derive(Debug)]
pub struct Scanned {
    root: Root,
    /// Its files.
    found: Vec<Found>,
    /// Where its repositories are.
    checkouts: Vec<RelativePath>,
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
        return Ok(Scanned { root, found, checkouts: Vec::new(), repositories });
    }
    let bare = bare_folders(found.iter().map(|found| (&found.path, found.meta.kind)));
    let bare: Vec<RelativePath> = bare.into_iter().flatten().collect();
    if !bare.is_empty() {
        found.retain(|found| !bare.iter().any(|folder| found.path.is_or_below(folder.as_bytes())));
        let reason = "git takes it for a bare repository, which does not travel";
        repositories.left_here.extend(bare.iter().map(|folder| left(folder, reason)));
    }
    Ok(Scanned { root, found, checkouts: checkouts.found(), repositories })
}

/// Makes what goes up of a workspace's repositories, but for the packs that the sandbox has, and lays out all that goes up.
pub fn lay_out(
    scanned: Scanned,
    travel: Travel,
    former: Option<&Former>,
    cancel: &Cancel,
) -> Result<LaidOut> {
    let Scanned { root, found, checkouts, mut repositories } = scanned;
    let mut grafts = Vec::new();
    let mut unsent = remote::Contents::new();
    if travel.mode == Mode::Merge && !checkouts.is_empty() {
        let made_in = WorkFolder::new()?;
        let git = Git::find(root.path());
        for (number, dot_git) in checkouts.iter().enumerate() {
            let folder = made_in.path().join(number.to_string());
            let options = Options { credentials: travel.credentials, depth: travel.depth };
            let has = |name: &str, sent: &PackFile| {
                former.is_some_and(|former| former.has_as_sent(dot_git, name, sent))
            };
            let sent = former.and_then(|former| former.bases.get(dot_git));
            let earlier = sent.map(|sent| Earlier { packs: &sent.sent_packs, has: &has });
            let exported = match &git {
                None => Err(Fault::Refused("there is no git on this machine".to_owned())),
                Some(git) => export(git, &root, dot_git, options, earlier.as_ref(), &folder, cancel),
            };
            match exported {
                Ok(exported) => {
                    let names = exported.unsent_packs.iter();
                    let there = names.filter_map(|name| former?.pack_file(dot_git, name));
                    unsent.extend(there.map(|(path, content)| (path, content.clone())));
                    grafts.push(Graft { at: dot_git.clone(), root: Root::open(&exported.folder)? });
                    repositories.bases.insert(dot_git.clone(), exported.base);
                }
                Err(Fault::Refused(reason)) => {
                    repositories.left_here.push(left(dot_git, format!("it did not go up: {reason}")));
                }
                Err(Fault::Error(error)) => return Err(error),
            }
        }
        repositories.made_in = Some(made_in);
    }
    // A folder of which nothing was found, since it vanished, has no place for a repository.
    let is_there = |graft: &Graft| {
        let above = graft.at.parent();
        above.is_none_or(|above| found.binary_search_by(|found| found.path.cmp(&above)).is_ok())
    };
    grafts.retain(is_there);
    unsent.retain(|path, _| grafts.iter().any(|graft| path.is_below(&graft.at)));
    let layout = Layout::with_grafts(root, found, grafts, cancel)?;
    Ok(LaidOut { layout, unsent, repositories })
}

/// What the local configuration of git names in the workspace. Where there is no git here, nothing runs by it.
pub fn named(workspace: &Root, shared: &Shared, cancel: &Cancel) -> Result<Named> {
    Git::find(workspace.path()).map_or_else(
        || Ok(Named::default()),
        |git| Named::read(&git, workspace.path(), &shared.bases, cancel),
    )
}

/// Tells what a merge wrote of that.
pub fn tell_named(report: &mut Report, named: &Named, workspace: &Root) -> Result<()> {
    let known: BTreeSet<RelativePath> = report.sensitive.iter().map(|noted| noted.path.clone()).collect();
    let mut cursor = workspace.cursor();
    for path in report.written.iter().filter(|path| !known.contains(*path)) {
        let mut reason = named.reason(path);
        if reason.is_none()
            && let Some(above) = named.reason_of_link(path)
            && cursor.stat(path)?.is_some_and(|meta| meta.kind == Kind::Symlink)
        {
            reason = Some(above);
        }
        report.sensitive.extend(reason.map(|reason| Noted { path: path.clone(), reason }));
    }
    report.sensitive.sort_unstable();
    Ok(())
}

/// What a sandbox has of its repositories, read and checked. Nothing here is changed yet.
#[derive(Debug)]
pub struct Arrived {
    git: Option<Git>,
    checked: Option<Checked>,
    report: GitReport,
    /// Where it waits.
    waits_in: Option<WorkFolder>,
}

/// Takes what is git's out of what came, and has git check it. `is_partial` says that the sandbox could not read everything,
/// so that what is missing means nothing.
pub fn take_out(
    incoming: &mut Incoming,
    base: &Snapshot,
    workspace: &Root,
    travel: Travel,
    shared: &Shared,
    is_partial: bool,
    cancel: &Cancel,
) -> Result<Arrived> {
    let mut arrived = Arrived { git: None, checked: None, report: GitReport::default(), waits_in: None };
    arrived.report.held_back.extend(shared.left_here.iter().cloned());
    match travel.mode {
        Mode::Off => hold_bare(incoming, base, &mut arrived.report),
        Mode::Files => {
            hold_files(incoming, base, &mut arrived.report);
            hold_bare(incoming, base, &mut arrived.report);
        }
        Mode::Merge => {
            hold_bare(incoming, base, &mut arrived.report);
            incoming.skipped.retain(|skipped| !is_gits(&skipped.path));
            if !incoming.snapshot.keys().any(is_gits) {
                return Ok(arrived);
            }
            let waits_in = WorkFolder::new()?;
            let mut quarantine = Quarantine::new(waits_in.path().join("arrived"), &shared.bases)?;
            bring(incoming, workspace, &mut quarantine)?;
            if is_partial {
                let reason = "the sandbox's tar failed, and its repositories may not have come whole";
                let partial = shared.bases.keys().map(|dot_git| left(dot_git, reason));
                arrived.report.held_back.extend(partial);
                return Ok(arrived);
            }
            arrived.git = Git::find(workspace.path());
            let checked = import::check(arrived.git.as_ref(), workspace, &shared.bases, quarantine, cancel)?;
            arrived.checked = Some(checked);
            arrived.waits_in = Some(waits_in);
        }
    }
    Ok(arrived)
}

/// Lets what git runs or obeys count as unchanged.
fn hold_files(incoming: &mut Incoming, base: &Snapshot, report: &mut GitReport) {
    let held: Vec<(RelativePath, &'static str)> = changed(base, &incoming.snapshot)
        .filter_map(|(path, _, after)| {
            // What was deleted there leads nowhere.
            let is_folder = after.is_none_or(Entry::is_folder);
            is_held(path, is_folder).map(|reason| (path.clone(), reason))
        })
        .collect();
    hold_paths(incoming, base, held, report);
}

/// Lets paths, with all that is below them, count as unchanged.
fn hold_paths<R: Into<String>>(
    incoming: &mut Incoming,
    base: &Snapshot,
    held: Vec<(RelativePath, R)>,
    report: &mut GitReport,
) {
    for (path, reason) in held {
        treat_as_unchanged(&mut incoming.snapshot, base, &path);
        report.held_back.push(left(&path, reason));
    }
}

/// Lets folders count as unchanged that git would take for bare repositories. In one that was uploaded, only what git runs or
/// obeys stays.
fn hold_bare(incoming: &mut Incoming, base: &Snapshot, report: &mut GitReport) {
    const BARE: &str = "git would take its folder for a bare repository";
    let found_in = |tree: &Snapshot| {
        let files = tree.iter().filter(|(path, _)| !is_gits(path));
        bare_folders(files.map(|(path, entry)| (path, entry.kind())))
    };
    let (uploaded, now) = (found_in(base), found_in(&incoming.snapshot));
    let mut held = Vec::new();
    for folder in &now {
        if uploaded.contains(folder) {
            let start = folder.as_ref().map_or(0, |folder| folder.as_bytes().len() + 1);
            let below = |path: &RelativePath| folder.as_ref().is_none_or(|folder| path.is_below(folder));
            let changes = changed(base, &incoming.snapshot).filter(|(path, ..)| below(path));
            held.extend(changes.filter_map(|(path, ..)| {
                let reason = is_held_in_repository(&path.as_bytes()[start..])?;
                Some((path.clone(), reason))
            }));
        } else if let Some(folder) = folder {
            held.push((folder.clone(), BARE));
        } else {
            // The workspace itself cannot stay out of itself; without these it is no repository.
            let paths = changed(base, &incoming.snapshot).map(|(path, ..)| path);
            let at_the_top = paths.filter_map(|path| path.ancestors().next().or_else(|| Some(path.clone())));
            let mut markers: Vec<RelativePath> =
                at_the_top.filter(|top| is_bare_marker(top.as_bytes())).collect();
            markers.dedup();
            held.extend(markers.into_iter().map(|marker| (marker, BARE)));
        }
    }
    hold_paths(incoming, base, held, report);
}

/// Brings what is below a `.git` to where it waits.
fn bring(incoming: &mut Incoming, workspace: &Root, quarantine: &mut Quarantine) -> Result<()> {
    for (path, entry) in incoming.snapshot.iter().filter(|(path, _)| is_gits(path)) {
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
    /// Whether objects that did not come along, since the sandbox had them before, may be what is missing.
    #[must_use]
    pub fn may_lack_objects(&self) -> bool {
        self.checked.as_ref().is_some_and(Checked::may_lack_objects)
    }

    /// Whether anything of a local repository may change, so that the workspace's lock is needed.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.checked.as_ref().is_some_and(Checked::has_news)
    }

    /// What is told of the repositories before anything is merged into them: what is held back.
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

    /// Merges what came into the local repositories, after the files of the workspace and under its lock.
    pub fn apply(self, workspace: &Root, shared: &mut Shared) -> Result<GitReport> {
        let Self { git, checked, mut report, waits_in } = self;
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
