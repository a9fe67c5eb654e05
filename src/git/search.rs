//! Searches new commits and the index for what would make git obey the sandbox: see [`obeyed`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::command::{Call, Fault, Git, Output, short};
use super::held;
use super::index;
use super::obeyed::{self, Change, Part, Parts, is_head_path};
use super::recognise::{bare_folders, in_checkout, is_git_name};
use super::refs::{OBEYED, Oid};
use super::repository::{Types, between, lines, types};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{Cursor, Kind, Root};
use crate::path::{RelativePath, path_from};
use crate::tree::filter::Filter;
use crate::tree::scan::scan;

/// A repository that has what is to be searched. It is one of ours: the sandbox configured nothing in it.
pub struct Search<'a> {
    /// The local git.
    pub git: &'a Git,
    /// Its git directory.
    pub repository: &'a Path,
    /// Ends a search.
    pub cancel: &'a Cancel,
}

/// What the sandbox has in which git would obey it.
#[derive(Debug)]
pub struct Obeying {
    /// Commits, and what else references name.
    pub tips: BTreeSet<Oid>,
    /// Whether its index stages something like that.
    pub index: bool,
    /// Why these are held back.
    pub reason: Arc<str>,
    /// The paths that new commits or the index change.
    pub changed: BTreeSet<Vec<u8>>,
}

impl Default for Obeying {
    fn default() -> Self {
        Self { tips: BTreeSet::new(), index: false, reason: OBEYED.into(), changed: BTreeSet::new() }
    }
}

/// The reason for holding back what a checkout would write into the folder for backups, or instead of it.
const OVER_BACKUPS: &str =
    "a checkout would put its files in the place of the local backups, in .paperclip-runtime";

/// The reason for holding back what a checkout would write in the place of a local repository.
const OVER_REPOSITORY: &str =
    "a checkout would delete the local repository that is in the directory which it replaces";

/// The reason for holding back commits that cannot be searched.
const UNSEARCHED: &str = "it has more files than can be searched for what git would obey";

/// A reason, with one of the paths that give it.
fn because(reason: &str, path: Option<impl AsRef<[u8]>>) -> Arc<str> {
    path.map_or_else(|| reason.into(), |path| format!("{reason} ({})", short(path.as_ref())).into())
}

/// Answers a question about a commit of a submodule.
type OfSubmodule<'a> = dyn FnMut(&Oid) -> Result<bool, Fault> + 'a;

/// Answers a question about folders in a history.
type OfHistory<'a> = dyn FnMut(&BTreeSet<&[u8]>) -> Result<BTreeMap<Vec<u8>, Parts>, Fault> + 'a;

/// What is known of the local side where new commits would be checked out.
pub struct Locally<'a> {
    /// Whether git accepts the `HEAD` in a folder of the checkout; `None` if it has none.
    pub head: &'a mut dyn FnMut(&[u8]) -> Result<Option<bool>>,
    /// Whether a commit of a submodule is held back: git would check it out for a commit that names it, at any path.
    pub submodule: &'a mut OfSubmodule<'a>,
    /// The commit that the sandbox has checked out.
    pub commit: Option<Oid>,
    /// Whether a local repository has stored a fixture in any folder.
    pub fixture: &'a mut dyn FnMut() -> Result<bool, Fault>,
    /// The parts of a repository that any commit in the local history has had in these folders of the checkout.
    pub history: &'a mut OfHistory<'a>,
    /// The name of the checkout, which may be a part of a repository itself.
    pub name: Option<&'a [u8]>,
    /// Whether a path of the checkout is a folder that has a repository, at any depth.
    pub repository: &'a mut dyn FnMut(&[u8]) -> Result<bool>,
    /// The parts of a repository that a folder of the checkout has.
    pub parts: &'a mut dyn FnMut(&[u8]) -> Result<Parts>,
    /// Lists the index.
    pub tracked: &'a mut dyn FnMut() -> Result<Vec<u8>, Fault>,
}

/// The fault of a git that could not list what was found complete before.
fn unanswered(output: &Output) -> Fault {
    Fault::Killed(format!("git could not list new commits: {}", output.complaint()))
}

/// How many of the paths at which git runs something are looked for in commits: the configurations.
const RUNS_OF_TIPS: usize = 2;

/// What git lists of new commits and trees.
struct Lists {
    log: Vec<u8>,
    /// The files of trees that a tag names.
    trees: Vec<(Oid, Vec<u8>)>,
}

/// Where there is a `HEAD`.
struct Heads<'a> {
    /// The folders in which one may be that git accepts.
    accepted: BTreeSet<&'a [u8]>,
    /// The folders in which the local index has one.
    tracked: BTreeSet<&'a [u8]>,
    /// The contents of those in question, but for what cannot be read.
    contents: BTreeMap<Oid, Vec<u8>>,
    /// Whether a local repository has stored a fixture, which may be written into any folder.
    is_fixture_stored: bool,
}

impl Heads<'_> {
    /// Whether git may accept a file as a `HEAD`.
    fn accepts(&self, kind: Kind, content: &Oid) -> bool {
        accepts(&self.contents, kind, content)
    }

    /// Whether one of the rules of [`obeyed`] holds a change back.
    fn holds(&self, change: &Change<'_>, locally: &mut Locally<'_>) -> Result<bool, Fault> {
        let (folder, name) = obeyed::split(change.path);
        if change.kind == Kind::Folder {
            if (locally.submodule)(&change.content)? || (self.is_fixture_stored && change.is_run()) {
                return Ok(true);
            }
        } else if is_head_path(change.path) && (locally.head)(folder)? != Some(true) {
            let is_new = if name != obeyed::HEAD {
                // Another spelling, which counts on few volumes: files named `head` are common.
                let content = self.contents.get(&change.content);
                content.is_some_and(|content| match change.kind {
                    Kind::Symlink => obeyed::is_head_link(content),
                    _ => obeyed::is_head(content),
                })
            } else if self.tracked.contains(folder) {
                self.accepts(change.kind, &change.content)
            } else {
                // (One that is here and not tracked may be the sandbox's own.)
                true
            };
            if is_new {
                return Ok(true);
            }
        }
        for folder in obeyed::folders_completing(change.path) {
            let here = (locally.head)(folder)?;
            if here == Some(false) || (here.is_none() && self.tracked.contains(folder)) {
                return Ok(true);
            }
        }
        Ok((self.is_fixture_stored && change.is_run())
            || obeyed::folders_obeying(change.path).any(|folder| self.accepted.contains(folder)))
    }
}

/// Whether git may accept a file as a `HEAD`, by the contents of blobs. One that cannot be read is accepted.
#[must_use]
pub fn accepts(contents: &BTreeMap<Oid, Vec<u8>>, kind: Kind, content: &Oid) -> bool {
    let content = contents.get(content);
    match kind {
        Kind::File => content.is_none_or(|content| obeyed::may_become_head(content)),
        Kind::Symlink => content.is_none_or(|content| obeyed::is_head_link(content)),
        Kind::Folder | Kind::Other => false,
    }
}

/// The largest number of tags of trees that are searched. No tool makes any.
const TREES_MAX: usize = 16;

/// The most folders of which git is asked by their paths.
const FOLDERS_AT_ONCE: usize = 200;

/// The call that lists what commits have changed. (Without `--full-history`, git passes over a line of history that a merge has
/// dropped.)
const LOG: [&str; 8] =
    ["log", "-c", "--raw", "-z", "--no-renames", "--no-abbrev", "--format=%H", "--full-history"];

/// The largest number of places in which commits are searched for a `HEAD`.
const PLACES_MAX: usize = 1_000_000;

impl Search<'_> {
    /// Searches what is new of these objects, which references name, for what git would obey in a checkout. Returns those that
    /// have something.
    pub fn among(
        &self,
        tips: &BTreeSet<Oid>,
        here: &BTreeSet<Oid>,
        checkout: &Root,
        fixture: &mut dyn FnMut() -> Result<bool, Fault>,
    ) -> Result<BTreeSet<Oid>, Fault> {
        let kinds = types(&mut self.call(), tips, self.cancel)?;
        let (mut cursor, mut other) = (checkout.cursor(), checkout.cursor());
        let mut looking = checkout.cursor();
        let locally = Locally {
            head: &mut |folder| local_head(&mut cursor, None, folder),
            submodule: &mut |_| Ok(false),
            commit: None,
            fixture,
            history: &mut |folders| self.parts_in_history(Some(here), folders),
            name: None,
            repository: &mut |path| has_repository(&mut looking, checkout, None, path, self.cancel),
            parts: &mut |folder| held::local_parts(&mut other, None, folder),
            tracked: &mut || Ok(Vec::new()),
        };
        Ok(self.run((tips, &kinds), (b"", b""), here, locally)?.tips)
    }

    /// Finds which of the `tips` have something new in which git would obey the sandbox once it is checked out, in any new
    /// commit, and whether its index does: see [`obeyed`]. `here` are the commits of local references.
    pub fn run(
        &self,
        (tips, kinds): (&BTreeSet<Oid>, &Types),
        (theirs, base): (&[u8], &[u8]),
        here: &BTreeSet<Oid>,
        mut locally: Locally<'_>,
    ) -> Result<Obeying, Fault> {
        let new: BTreeSet<Oid> = tips.difference(here).cloned().collect();
        let unsearched = |new| Obeying { tips: new, reason: UNSEARCHED.into(), ..Obeying::default() };
        let Some(Lists { log, trees }) = self.lists(&new, kinds, here)? else { return Ok(unsearched(new)) };
        let malformed = || Fault::Refused("git log listed what is malformed".to_owned());
        let staged = index::beyond(theirs, base);
        let in_trees = trees.iter().flat_map(|(_, list)| index::paths(list));
        let paths = obeyed::paths_in_log(&log).chain(index::paths(&staged)).chain(in_trees);
        let mut obeying = Obeying { changed: paths.map(<[u8]>::to_vec).collect(), ..Obeying::default() };
        let mut replacing: HashSet<Vec<u8>> = HashSet::new();
        for path in &obeying.changed {
            if (locally.repository)(path)? {
                replacing.insert(path.clone());
            }
        }
        let mut changes = obeyed::changes_in_log(&log, &replacing).ok_or_else(malformed)?;
        for (tip, list) in &trees {
            let entries = index::entries_at(list, |_| true);
            changes.extend(entries.filter_map(Change::of(Some(tip), &replacing)));
        }
        let entries = index::entries_at(&staged, |_| true);
        changes.extend(entries.filter_map(Change::of(None, &replacing)));
        // What the index has of its commit is judged with that.
        let of_commit = self.of_commit(locally.commit.as_ref(), &changes)?;
        let commit = locally.commit.take().filter(|_| !of_commit.is_empty());
        changes.retain(|change| change.commit.is_some() || !of_commit.contains(change.path));
        // Each checkout of a repository in a `hooks` folder writes hooks beside what that folder is in.
        let is_hooks = locally.name.is_some_and(|name| name.eq_ignore_ascii_case(b"hooks"));
        if is_hooks && obeying.changed.iter().any(|path| obeyed::is_hook(path)) && (locally.fixture)()? {
            obeying.reason = because(OBEYED, obeying.changed.iter().find(|path| obeyed::is_hook(path)));
            return Ok(Obeying { tips: new, index: true, ..obeying });
        }
        if changes.is_empty() {
            return Ok(obeying);
        }
        let folders: BTreeSet<&[u8]> =
            changes.iter().flat_map(|change| obeyed::folders_obeying(change.path)).collect();
        let gaining: BTreeSet<&[u8]> =
            changes.iter().flat_map(Change::parts).map(|(folder, _)| folder).collect();
        if new.len().saturating_mul(folders.len().max(gaining.len())) > PLACES_MAX {
            return Ok(unsearched(new));
        }
        let tracked = (locally.tracked)()?;
        // An amended commit has again what the local index has.
        let paths: HashSet<&[u8]> = changes.iter().map(|change| change.path).collect();
        let known: HashMap<&[u8], Oid> = index::entries_at(&tracked, |path| paths.contains(path))
            .map(|(path, _, oid)| (path, oid))
            .collect();
        changes.retain(|change| known.get(change.path) != Some(&change.content));
        let in_trees = self.heads_in(&new, &folders)?;
        let mut heads = self.heads(&changes, &folders, (theirs, &tracked), &in_trees, &mut locally)?;
        heads.is_fixture_stored = changes.iter().any(Change::is_run) && (locally.fixture)()?;
        let parts = self.parts(&changes, &new, &tracked, &mut locally)?;
        let (mut commits, mut first): (BTreeSet<&Oid>, _) = (BTreeSet::new(), None);
        for change in &changes {
            let is_over_backups = change.is_in_runtime();
            let completes = || {
                change.parts().any(|(folder, part)| {
                    parts.get(folder).is_some_and(|&(then, before)| then.is_completed_by(part, before))
                })
            };
            let is_over_repository = change.kind != Kind::Folder && replacing.contains(change.path);
            if is_over_backups || is_over_repository || heads.holds(change, &mut locally)? || completes() {
                let reason = match (is_over_backups, is_over_repository) {
                    (true, _) => OVER_BACKUPS,
                    (_, true) => OVER_REPOSITORY,
                    _ => OBEYED,
                };
                // What would be lost is told rather than what would be obeyed.
                if first.is_none_or(|(_, known)| known == OBEYED && reason != OBEYED) {
                    first = Some((change.path, reason));
                }
                obeying.index |= change.commit.is_none();
                commits.extend(&change.commit);
            }
        }
        if let Some((path, reason)) = first {
            obeying.reason = because(reason, Some(path));
        }
        let mut reaching = self.reaching(&commits, &new, here)?;
        // A commit may name one that is held back as that of a submodule, in the same repository.
        let linking: Vec<&Change<'_>> = changes.iter().filter(|change| change.kind == Kind::Folder).collect();
        loop {
            let before = commits.len();
            for change in linking.iter().filter(|change| reaching.contains(&change.content)) {
                obeying.index |= change.commit.is_none();
                commits.extend(&change.commit);
            }
            if commits.len() == before {
                break;
            }
            reaching = self.reaching(&commits, &new, here)?;
        }
        obeying.tips = new.intersection(&reaching).cloned().collect();
        obeying.index |= commit.is_some_and(|commit| obeying.tips.contains(&commit));
        Ok(obeying)
    }

    fn call(&self) -> Call<'_> {
        self.git.call(self.repository)
    }

    /// The paths at which the index has what a commit has too.
    fn of_commit<'a>(
        &self,
        commit: Option<&Oid>,
        changes: &[Change<'a>],
    ) -> Result<HashSet<&'a [u8]>, Fault> {
        let Some(commit) = commit else { return Ok(HashSet::new()) };
        // Git is asked for them line by line.
        let staged = changes.iter().filter(|change| change.commit.is_none() && !change.path.contains(&b'\n'));
        let names = staged.map(|change| {
            let name = [commit.as_str().as_bytes(), b":", change.path].concat();
            ((change.path, change.content.clone()), name)
        });
        let found = self.named(names.collect())?.into_iter();
        Ok(found.filter(|((_, staged), _, oid)| staged == oid).map(|((path, _), ..)| path).collect())
    }

    /// The folders that new commits, or the index, give a part of a repository: the parts that they then have anywhere, and those
    /// that they had locally. Whether the commits are ever checked out together is not known.
    fn parts<'c>(
        &self,
        changes: &[Change<'c>],
        new: &BTreeSet<Oid>,
        tracked: &[u8],
        locally: &mut Locally<'_>,
    ) -> Result<BTreeMap<&'c [u8], (Parts, Parts)>, Fault> {
        let mut found: BTreeMap<&[u8], (Parts, Parts)> = BTreeMap::new();
        for change in changes {
            for (folder, part) in change.parts() {
                found.entry(folder).or_default().0.add(part);
            }
        }
        for (path, ..) in index::entries_at(tracked, |path| obeyed::parts(path).next().is_some()) {
            for (folder, part) in obeyed::parts(path) {
                if let Some((_, before)) = found.get_mut(folder) {
                    before.add(part);
                }
            }
        }
        for (folder, (then, before)) in &mut found {
            *before = before.or((locally.parts)(folder)?);
            *then = then.or(*before);
        }
        for (folder, part) in self.parts_of_tips(new, &found)? {
            found.entry(folder).or_default().0.add(part);
        }
        let gaining = found.iter().filter(|(_, (then, before))| then.exceeds(*before));
        let gaining: BTreeSet<&[u8]> = gaining.map(|(folder, _)| *folder).collect();
        for (folder, earlier) in (locally.history)(&gaining)? {
            if let Some((then, _)) = found.get_mut(&folder[..]) {
                *then = then.or(earlier);
            }
        }
        let storing =
            found.values_mut().filter(|(then, before)| then.stores() && !then.runs() && !before.stores());
        let storing: Vec<&mut (Parts, Parts)> = storing.collect();
        if !storing.is_empty() && (locally.fixture)()? {
            for (then, _) in storing {
                then.add(Part::Run);
            }
        }
        Ok(found)
    }

    /// The parts that commits have in folders in which only some are known.
    fn parts_of_tips<'c>(
        &self,
        commits: &BTreeSet<Oid>,
        found: &BTreeMap<&'c [u8], (Parts, Parts)>,
    ) -> Result<Vec<(&'c [u8], Part)>, Fault> {
        let folders = || found.keys().copied().filter(|folder| !folder.contains(&b'\n'));
        let places = commits.iter().flat_map(|commit| folders().map(move |folder| (commit, folder)));
        let names = places.flat_map(|(commit, folder)| {
            let runs = obeyed::paths_of_runs(folder).take(RUNS_OF_TIPS).map(|path| (path, Part::Run));
            obeyed::paths_of_stores(folder)
                .into_iter()
                .chain(runs)
                .map(move |(path, part)| ((folder, part), [commit.as_str().as_bytes(), b":", &path].concat()))
        });
        let found = self.named(names.collect())?.into_iter();
        let is_there = |(_, part): &(&[u8], Part), kind: &[u8]| *part != Part::Run || kind == b"blob";
        Ok(found.filter(|(what, kind, _)| is_there(what, kind)).map(|(what, ..)| what).collect())
    }

    /// The parts of a repository that any commit has had in these folders of the checkout: one of all references and reflogs, or one
    /// that these commits reach. All parts where git cannot tell.
    ///
    /// Git reads the whole history for that.
    pub fn parts_in_history(
        &self,
        tips: Option<&BTreeSet<Oid>>,
        folders: &BTreeSet<&[u8]>,
    ) -> Result<BTreeMap<Vec<u8>, Parts>, Fault> {
        let mut found: BTreeMap<Vec<u8>, Parts> = BTreeMap::new();
        if folders.is_empty() || tips.is_some_and(BTreeSet::is_empty) {
            return Ok(found);
        }
        let mut call = self.call();
        call.bounded().args(LOG);
        match tips {
            None => call.args(["--all", "--reflog"]),
            Some(tips) => call.arg("--stdin").input(lines(tips.iter().map(Oid::as_str))),
        };
        // For more, git lists all paths.
        if folders.len() <= FOLDERS_AT_ONCE {
            let paths = folders.iter().flat_map(|folder| obeyed::paths_of_parts(folder));
            call.arg("--").args(paths.map(|path| path_from(&path).as_os_str().to_owned()));
        }
        let log = call.output(self.cancel)?;
        let changes = obeyed::changes_in_log(&log.stdout, &HashSet::new());
        let Some(changes) = changes.filter(|_| log.status == Some(0)) else {
            found.extend(folders.iter().map(|folder| (folder.to_vec(), Parts::all())));
            return Ok(found);
        };
        for (folder, part) in changes.iter().flat_map(Change::parts) {
            if folders.contains(folder) {
                found.entry(folder.to_vec()).or_default().add(part);
            }
        }
        Ok(found)
    }

    /// The paths that commits have changed since others, as far as these exist. Nothing if there are too many.
    pub fn changed(
        &self,
        (tips, kinds): (&BTreeSet<Oid>, &Types),
        since: &BTreeSet<Oid>,
    ) -> Result<BTreeSet<Vec<u8>>, Fault> {
        let since = types(&mut self.call(), since, self.cancel)?.into_keys().collect();
        let lists = self.lists(tips, kinds, &since)?;
        Ok(lists.map_or_else(BTreeSet::new, |Lists { log, trees }| {
            let in_trees = trees.iter().flat_map(|(_, list)| index::paths(list));
            obeyed::paths_in_log(&log).chain(in_trees).map(<[u8]>::to_vec).collect()
        }))
    }

    /// Lists what is new. `None` if it is too much.
    fn lists(
        &self,
        new: &BTreeSet<Oid>,
        kinds: &Types,
        here: &BTreeSet<Oid>,
    ) -> Result<Option<Lists>, Fault> {
        let mut lists = Lists { log: Vec::new(), trees: Vec::new() };
        if new.is_empty() {
            return Ok(Some(lists));
        }
        let log =
            self.call().bounded().args(LOG).arg("--stdin").input(between(new, here)).output(self.cancel)?;
        if log.status != Some(0) {
            return if log.is_over { Ok(None) } else { Err(unanswered(&log)) };
        }
        lists.log = log.stdout;
        // No log lists the files of a tree that a tag names.
        let others = new.iter().filter(|oid| kinds.get(*oid).is_some_and(|kind| kind != b"commit"));
        for (oid, kind, _) in self.peeled(others.collect(), "")? {
            if kind != b"tree" {
                continue;
            }
            // Each costs a call of git.
            if lists.trees.len() == TREES_MAX {
                return Ok(None);
            }
            let list = ["ls-tree", "-r", "-z", "--full-tree", oid.as_str()];
            let output = self.call().bounded().args(list).output(self.cancel)?;
            if output.status != Some(0) {
                return if output.is_over { Ok(None) } else { Err(unanswered(&output)) };
            }
            lists.trees.push((oid, output.stdout));
        }
        Ok(Some(lists))
    }

    /// What tags lead to, down to that type: its type and its name. Nothing for what leads to no such object.
    fn peeled(&self, oids: Vec<&Oid>, to: &str) -> Result<Vec<(Oid, Vec<u8>, Oid)>, Fault> {
        let names = oids.into_iter().map(|oid| (oid.clone(), format!("{oid}^{{{to}}}").into_bytes()));
        self.named(names.collect())
    }

    /// The types and the names of the objects that git knows by these expressions, which have no line break, each with what the
    /// caller has put beside it. Nothing for what there is not.
    fn named<T>(&self, names: Vec<(T, Vec<u8>)>) -> Result<Vec<(T, Vec<u8>, Oid)>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let asked = names.iter().flat_map(|(_, name)| [name, &b"\n"[..]].concat()).collect::<Vec<u8>>();
        let format = "--batch-check=%(objecttype) %(objectname)";
        let list = self.call().args(["cat-file", format]).input(asked).run(self.cancel)?;
        let answers = names.into_iter().zip(list.split(|&byte| byte == b'\n'));
        let parsed = answers.filter_map(|((beside, _), line)| {
            let space = line.iter().position(|&byte| byte == b' ')?;
            Some((beside, line[..space].to_vec(), Oid::parse(&line[space + 1..])?))
        });
        Ok(parsed.collect())
    }

    /// Finds every `HEAD` in question: what is new, and what is beside something new that git would obey.
    fn heads<'a>(
        &self,
        changes: &[Change<'a>],
        folders: &BTreeSet<&'a [u8]>,
        (theirs, tracked): (&'a [u8], &'a [u8]),
        in_trees: &'a [(Vec<u8>, Oid)],
        locally: &mut Locally<'_>,
    ) -> Result<Heads<'a>, Fault> {
        let in_indexes = [theirs, tracked].into_iter().flat_map(|list| index::entries_at(list, is_head_path));
        let mut beside: Vec<(&[u8], Kind, Oid)> =
            in_indexes.filter(|(path, ..)| folders.contains(obeyed::split(path).0)).collect();
        beside.extend(in_trees.iter().map(|(path, oid)| (path.as_slice(), Kind::File, oid.clone())));
        let new = changes.iter().filter(|change| is_head_path(change.path)).map(|change| &change.content);
        let blobs = new.chain(beside.iter().map(|(.., oid)| oid)).cloned().collect();
        let mut heads = Heads {
            accepted: BTreeSet::new(),
            tracked: index::entries_at(tracked, is_head_path)
                .map(|(path, ..)| obeyed::split(path).0)
                .collect(),
            contents: self.contents(&blobs)?,
            is_fixture_stored: false,
        };
        for (path, kind, oid) in &beside {
            // (What a commit has there may be a link too.)
            if heads.accepts(*kind, oid) || heads.accepts(Kind::Symlink, oid) {
                heads.accepted.insert(obeyed::split(path).0);
            }
        }
        for folder in folders {
            // Git is asked for such objects line by line.
            if folder.contains(&b'\n') || (locally.head)(folder)? == Some(true) {
                heads.accepted.insert(folder);
            }
        }
        Ok(heads)
    }

    /// These commits, or trees, and all new ones from which one can be reached, with the tags of them.
    fn reaching(
        &self,
        commits: &BTreeSet<&Oid>,
        new: &BTreeSet<Oid>,
        here: &BTreeSet<Oid>,
    ) -> Result<BTreeSet<Oid>, Fault> {
        if commits.is_empty() {
            return Ok(BTreeSet::new());
        }
        let list = ["rev-list", "--parents", "--topo-order", "--reverse", "--stdin"];
        let list = self.call().bounded().args(list).input(between(new, here)).run(self.cancel)?;
        let mut held: BTreeSet<Oid> = commits.iter().map(|&oid| oid.clone()).collect();
        // Parents come before their children.
        for line in list.split(|&byte| byte == b'\n') {
            let mut oids = line.split(|&byte| byte == b' ').filter_map(Oid::parse);
            let Some(commit) = oids.next() else { continue };
            if oids.any(|parent| held.contains(&parent)) {
                held.insert(commit);
            }
        }
        let tagged = self.peeled(new.iter().collect(), "commit")?;
        held.extend(
            tagged.into_iter().filter(|(.., to)| held.contains(to)).map(|(oid, ..)| oid).collect::<Vec<_>>(),
        );
        Ok(held)
    }

    /// The files named `HEAD` that commits have in these folders: their paths and blobs.
    fn heads_in(
        &self,
        commits: &BTreeSet<Oid>,
        folders: &BTreeSet<&[u8]>,
    ) -> Result<Vec<(Vec<u8>, Oid)>, Fault> {
        let folders = || folders.iter().filter(|folder| !folder.contains(&b'\n'));
        let places = commits.iter().flat_map(|commit| folders().map(move |folder| (commit, folder)));
        let names = places.map(|(commit, folder)| {
            let path = obeyed::head_in(folder);
            let name = [commit.as_str().as_bytes(), b":", &path].concat();
            (path, name)
        });
        let found = self.named(names.collect())?.into_iter();
        Ok(found.filter(|(_, kind, _)| kind == b"blob").map(|(path, _, oid)| (path, oid)).collect())
    }

    /// How the contents of blobs begin, without those that are missing or too large for what is asked of them.
    pub fn contents(&self, blobs: &BTreeSet<Oid>) -> Result<BTreeMap<Oid, Vec<u8>>, Fault> {
        /// A `HEAD` has a few dozen bytes.
        const LARGE: usize = 64 * 1024;
        /// The longest target that a link can have. Git reads less of a file.
        const KEPT: usize = 4096;
        /// How many are read at a time: very many of them pack to nothing.
        const AT_ONCE: usize = 256;
        let size = |line: &[u8]| {
            let mut fields = line.split(|&byte| byte == b' ');
            let (oid, kind, size) = (Oid::parse(fields.next()?)?, fields.next()?, fields.next()?);
            let size: usize = std::str::from_utf8(size).ok()?.parse().ok()?;
            (kind == b"blob").then_some((oid, size))
        };
        let mut contents = BTreeMap::new();
        if blobs.is_empty() {
            return Ok(contents);
        }
        let mut call = self.call();
        let sizes = call
            .args(["cat-file", "--batch-check"])
            .input(lines(blobs.iter().map(Oid::as_str)))
            .run(self.cancel)?;
        let small: Vec<(Oid, usize)> =
            sizes.split(|&byte| byte == b'\n').filter_map(size).filter(|&(_, size)| size <= LARGE).collect();
        for some in small.chunks(AT_ONCE) {
            let asked = lines(some.iter().map(|(oid, _)| oid.as_str()));
            let all = self.call().args(["cat-file", "--batch"]).input(asked).run(self.cancel)?;
            let mut rest = &all[..];
            for (oid, size) in some {
                // A line about the blob, its content, and a line break.
                let Some(begin) = rest.iter().position(|&byte| byte == b'\n').map(|end| end + 1) else {
                    break;
                };
                let Some(content) = rest.get(begin..begin + size) else { break };
                contents.insert(oid.clone(), content[..content.len().min(KEPT)].to_vec());
                rest = rest.get(begin + size + 1..).unwrap_or_default();
            }
        }
        Ok(contents)
    }
}

/// Whether a path of a checkout, which lies in a folder of the workspace, is a local folder that has a repository at any depth.
pub fn has_repository(
    cursor: &mut Cursor<'_>,
    workspace: &Root,
    checkout: Option<&RelativePath>,
    path: &[u8],
    cancel: &Cancel,
) -> Result<bool> {
    // A path that nothing can have here replaces nothing.
    let Ok(Some(path)) = in_checkout(checkout, path) else { return Ok(false) };
    if held::kind_at(cursor, &path)? != Some(Kind::Folder) {
        return Ok(false);
    }
    if held::kind_at(cursor, &RelativePath::child(Some(&path), b".git"))?.is_some() {
        return Ok(true);
    }
    let folder = Root::open_no_link(&workspace.path_of(&path));
    match folder.and_then(|folder| scan(&folder, &Filter::default(), cancel)) {
        Ok(found) => Ok(found.iter().any(|found| is_git_name(found.path.name().as_encoded_bytes()))
            || !bare_folders(found.iter().map(|found| (&found.path, found.meta.kind))).is_empty()),
        Err(Error::Aborted) => Err(Error::Aborted),
        // What cannot be looked through may have one.
        Err(_) => Ok(true),
    }
}

/// Whether git accepts the local `HEAD` in a folder of a checkout, which lies in a folder of the workspace. `None` if it has none.
pub fn local_head(
    cursor: &mut Cursor<'_>,
    checkout: Option<&RelativePath>,
    folder: &[u8],
) -> Result<Option<bool>> {
    // A directory that cannot have that name here has no HEAD either.
    in_checkout(checkout, folder).map_or(Ok(None), |folder| held::local_head(cursor, folder.as_ref()))
}
