//! Holds back what git runs or obeys, where a merge takes what belongs to git like any other file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{ErrorKind, Read as _};

use super::index_file::{is_index, is_sound};
use super::obeyed::{
    HEAD, HEAD_BYTES, Part, Parts, folders_obeying, folders_running, is_head, is_head_link, is_head_name,
    parts, paths_of_runs, paths_of_stores,
};
use super::quarantine::{is_held, is_held_in_repository};
use super::recognise::{bare_folders, in_checkout, inside, is_bare_marker, is_git_name, is_gits};
use crate::error::{Error, Result};
use crate::fs::{Cursor, File, Kind, Root};
use crate::merge::incoming::Incoming;
use crate::merge::plan::{changed, treat_as_unchanged};
use crate::merge::report::Noted;
use crate::path::RelativePath;
use crate::tree::entry::{Digest, Entry, Snapshot};

/// The reason for holding back a directory that has the form of a bare repository.
const BARE: &str = "git would take its directory for a bare repository";

/// The reason for holding back a `HEAD` outside of repositories.
const NEW_HEAD: &str =
    "git would take its directory for a bare repository as soon as objects and refs are beside it";

/// The reason for holding back what is beside a `HEAD`.
const BESIDE_HEAD: &str =
    "git would obey it if it took its directory, which has a HEAD, for a bare repository";

/// The reason for holding back what git would run beside a `HEAD` that a local repository has stored.
const BESIDE_STORED: &str =
    "a local repository has stored what it would make a bare repository of, which git would then obey";

/// The reason for holding back what would be all of a repository but its `HEAD`.
const COMPLETES: &str = "with objects, refs and a configuration or hook, git would obey its directory as soon as a HEAD is beside them";

/// The reason for holding back a `commondir`.
const COMMON: &str = "git would obey the directory that it names as soon as a HEAD is beside it";

/// The reason for holding back a symbolic link below a `.git`.
const LINK: &str = "git would write through a link in a .git to where it leads";

/// The reason for keeping a repository that the sandbox has deleted.
const NO_REPOSITORY_GOES: &str =
    "the sandbox has deleted the repository; it stays, since it may have commits that nothing else has";

/// The reason for keeping what the sandbox has deleted of a git directory.
const GIT_NEEDS_IT: &str = "the sandbox has deleted it, which git never does; the repository needs it";

/// The reason for holding back all of a repository whose references are in a reftable.
const AS_REFTABLE: &str = "its references are in a reftable, which cannot be merged as a file; without `git: \"files\"`, it is merged";

/// The reason for holding back the file of an index.
const UNSOUND_INDEX: &str =
    "git would write files below a .git or outside of the workspace by it, or cannot read it";

/// Treats what git runs or obeys below a `.git`, and what leads it elsewhere, as unchanged, and returns it.
pub fn in_git(incoming: &mut Incoming, base: &Snapshot, workspace: &Root) -> Result<Vec<Noted>> {
    let unsound = unsound_indexes(incoming, workspace)?;
    let skipped = incoming.skipped.iter().map(|skipped| skipped.path.clone()).collect();
    Ok(below_git(&mut incoming.snapshot, base, &unsound, &skipped))
}

/// `skipped` is what no archive can hold, such as a FIFO.
fn below_git(
    theirs: &mut Snapshot,
    base: &Snapshot,
    unsound: &BTreeSet<RelativePath>,
    skipped: &BTreeSet<RelativePath>,
) -> Vec<Noted> {
    let (mut held, mut unchanged) = (Vec::new(), Vec::new());
    for (path, _, after) in changed(base, theirs) {
        let is_below = |above: &Noted| path.is_or_below(above.path.as_bytes());
        if let Some(git) = with_reftable(path, base, theirs) {
            if held.last().is_none_or(|last: &Noted| last.path != git) {
                held.push(Noted { path: git, reason: AS_REFTABLE });
            }
            continue;
        }
        let reason = match after {
            // It stays with what is above.
            None if held.last().is_some_and(is_below) => continue,
            // What was committed here meanwhile may need the object, and the cache may name packs that are no longer here.
            after if (after.is_none() && is_object(path)) || is_cache(path) => {
                unchanged.push(path.clone());
                continue;
            }
            Some(Entry::Symlink { .. }) if is_gits(path) => Some(LINK),
            Some(_) if unsound.contains(path) => Some(UNSOUND_INDEX),
            // The reference may be in the file that cannot be read.
            None if is_packed_elsewhere(path, theirs, skipped) => {
                unchanged.push(path.clone());
                continue;
            }
            None => is_kept(path, base).or_else(|| is_held(path, true)),
            Some(after) => is_held(path, after.is_folder()),
        };
        held.extend(reason.map(|reason| Noted { path: path.clone(), reason }));
    }
    for path in unchanged {
        treat_as_unchanged(theirs, base, &path);
    }
    hold(theirs, base, &mut held);
    held
}

/// Whether a path is below the `objects` of a repository.
fn is_object(path: &RelativePath) -> bool {
    inside(path).is_some_and(|inside| inside.inner.starts_with(OBJECTS))
}

/// Whether a file lists what is in other files of a repository, so that git can make it again.
fn is_cache(path: &RelativePath) -> bool {
    let is_named = |inner: &[u8]| CACHES.iter().any(|name| inner.starts_with(name));
    inside(path).is_some_and(|inside| is_named(inside.inner))
}

/// How the paths of such files begin in their repository.
const CACHES: [&[u8]; 2] = [b"objects/pack/multi-pack-index", b"objects/info/commit-graph"];

/// The `.git` directory that a path is below, if its references are in a reftable on either side.
fn with_reftable(path: &RelativePath, base: &Snapshot, theirs: &Snapshot) -> Option<RelativePath> {
    let inner = inside(path)?.inner;
    let end = path.as_bytes().len().checked_sub(inner.len() + 1).filter(|_| !inner.is_empty())?;
    let git = RelativePath::parse(&path.as_bytes()[..end]).ok().flatten()?;
    let reftable = RelativePath::child(Some(&git), b"reftable");
    let has = |tree: &Snapshot| tree.contains_key(reftable.as_bytes());
    (has(base) || has(theirs)).then_some(git)
}

/// Whether a reference may be gone because it is in a `packed-refs` that is no file.
fn is_packed_elsewhere(path: &RelativePath, theirs: &Snapshot, skipped: &BTreeSet<RelativePath>) -> bool {
    let Some(inner) = inside(path).map(|inside| inside.inner).filter(|inner| inner.starts_with(b"refs/"))
    else {
        return false;
    };
    let git = &path.as_bytes()[..path.as_bytes().len() - inner.len()];
    let packed = &[git, b"packed-refs"].concat()[..];
    let is_other = theirs.get(packed).is_some_and(|entry| !matches!(entry, Entry::File { .. }));
    is_other || skipped.iter().any(|skipped| skipped.as_bytes() == packed)
}

/// How the path of an object begins in its repository.
const OBJECTS: &[u8] = b"objects/";

/// Why something that the sandbox has deleted stays, though a file like any other would be deleted.
fn is_kept(path: &RelativePath, base: &Snapshot) -> Option<&'static str> {
    let inner = inside(path)?.inner;
    if inner.is_empty() {
        return base.get(path).is_some_and(Entry::is_folder).then_some(NO_REPOSITORY_GOES);
    }
    NEVER_DELETED.contains(&inner).then_some(GIT_NEEDS_IT)
}

/// What git itself never deletes of a git directory.
const NEVER_DELETED: [&[u8]; 7] =
    [HEAD, b"index", b"objects", b"packed-refs", b"refs", b"refs/heads", b"refs/tags"];

/// The changed files of indexes by which git would write elsewhere than in the workspace.
fn unsound_indexes(incoming: &Incoming, workspace: &Root) -> Result<BTreeSet<RelativePath>> {
    let mut unsound = BTreeSet::new();
    // What only got another mode is not staged.
    for (path, staged) in incoming.staged.iter().filter(|(path, _)| is_index(path)) {
        if !matches!(incoming.snapshot.get(path), Some(Entry::File { .. })) {
            continue;
        }
        let mut content = Vec::new();
        if let Some((file, _)) = incoming.stage.get(workspace)?.cursor().open(&staged.name)? {
            let failed = |error| Error::io("read", path.as_path(), error);
            file.take(INDEX_MAX).read_to_end(&mut content).map_err(failed)?;
        }
        if !is_sound(&content, size_of_object(&mut workspace.cursor(), path)?) {
            unsound.insert(path.clone());
        }
    }
    Ok(unsound)
}

/// The longest index that is checked, in bytes: one of some five million files.
const INDEX_MAX: u64 = 512 << 20;

/// How many bytes the name of an object has in the repository that an index belongs to, by the local configuration.
fn size_of_object(cursor: &mut Cursor<'_>, index: &RelativePath) -> Result<usize> {
    for folder in index.ancestors().filter(is_gits) {
        if let Some((file, _)) = cursor.open(&RelativePath::child(Some(&folder), b"config"))? {
            let mut text = Vec::new();
            let failed = |error| Error::io("read", folder.as_path(), error);
            file.take(CONFIG_MAX).read_to_end(&mut text).map_err(failed)?;
            text.make_ascii_lowercase();
            return Ok(if text.windows(6).any(|word| word == b"sha256") { 32 } else { 20 });
        }
    }
    Ok(20)
}

/// The longest beginning of a configuration in which the format of the objects is looked for, in bytes.
const CONFIG_MAX: u64 = 1 << 20;

/// Where bare repositories are searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// In every folder but a `.git` itself.
    Everywhere,
    /// In the folders that are no `.git`, and not below one.
    OutsideOfGit,
}

impl Search {
    /// Whether a name at that path may make its folder a bare repository.
    fn includes(self, path: &RelativePath) -> bool {
        match self {
            Self::OutsideOfGit => !is_gits(path),
            Self::Everywhere => {
                let (folder, _) = path.split();
                !is_git_name(folder.rsplit(|&byte| byte == b'/').next().unwrap_or_default())
            }
        }
    }
}

/// What is at a local path. What cannot be looked at cannot be changed by the merge either, and counts as nothing.
pub fn kind_at(cursor: &mut Cursor<'_>, path: &RelativePath) -> Result<Option<Kind>> {
    match cursor.stat(path) {
        Err(error) if error.is_io(ErrorKind::PermissionDenied) || error.refuses_name() => Ok(None),
        looked => Ok(looked?.map(|meta| meta.kind)),
    }
}

/// Whether git would accept the `HEAD` of a local folder; `None` if it has none. One that cannot be read is accepted.
pub fn local_head(cursor: &mut Cursor<'_>, folder: Option<&RelativePath>) -> Result<Option<bool>> {
    let path = RelativePath::child(folder, HEAD);
    Ok(match kind_at(cursor, &path)? {
        None => None,
        Some(Kind::Folder | Kind::Other) => Some(false),
        Some(Kind::Symlink) => cursor.read_link(&path)?.map(|target| is_head_link(&target)),
        Some(Kind::File) => match cursor.open(&path) {
            Ok(opened) => opened.map(|(mut file, _)| begins_as_head(&mut file)),
            Err(_) => Some(true),
        },
    })
}

/// Whether git would accept a file as the `HEAD` of a repository. One that cannot be read is accepted.
pub fn begins_as_head(file: &mut File) -> bool {
    let mut begin = Vec::new();
    file.take(HEAD_BYTES as u64).read_to_end(&mut begin).is_err() || is_head(&begin)
}

/// Treats as unchanged what the rules of [`obeyed`](super::obeyed) do not let in, outside of each `.git`, and returns it.
///
/// `may_be_head` tells whether git would accept a new or changed file of the incoming side as a `HEAD`.
pub fn beside_heads(
    theirs: &mut Snapshot,
    base: &Snapshot,
    workspace: &Root,
    may_be_head: &dyn Fn(&RelativePath) -> bool,
    written: &AtCheckout,
) -> Result<Vec<Noted>> {
    let all_parts = parts_in(theirs, base, workspace)?;
    let mut cursor = workspace.cursor();
    let mut here =
        |folder: &[u8]| local_head(&mut cursor, RelativePath::parse(folder).ok().flatten().as_ref());
    let mut known: HashMap<&[u8], Option<bool>> = HashMap::new();
    let mut held = Vec::new();
    for (path, _, after) in changed(base, theirs) {
        let Some(after) = after.filter(|_| !is_gits(path)) else { continue };
        let completes = |(folder, part): (&[u8], Part)| {
            all_parts.get(folder).is_some_and(|&(then, before)| {
                let tracked = written.parts.get(folder).copied().unwrap_or_default();
                let before = before.or(tracked);
                let mut earlier = written.history.get(folder).copied().unwrap_or_default();
                if written.fixture {
                    earlier.add(Part::Run);
                }
                // A configuration of the same restore is held back itself.
                then.with_run(before).or(before).or(earlier).is_completed_by(part, before)
            })
        };
        if let Some((_, part)) = parts_of(path, after).find(|&part| completes(part)) {
            let reason = if part == Part::Elsewhere { COMMON } else { COMPLETES };
            held.push(Noted { path: path.clone(), reason });
            continue;
        }
        if after.is_folder() {
            continue;
        }
        let (folder, name) = path.split();
        if is_head_name(name.as_encoded_bytes()) {
            let is_one = match after {
                Entry::Symlink { target } => is_head_link(target),
                _ => may_be_head(path),
            };
            if is_one && here(folder)? != Some(true) {
                held.push(Noted { path: path.clone(), reason: NEW_HEAD });
                continue;
            }
        }
        if written.fixture && folders_running(path.as_bytes()).next().is_some() {
            held.push(Noted { path: path.clone(), reason: BESIDE_STORED });
            continue;
        }
        for folder in folders_obeying(path.as_bytes()) {
            if !known.contains_key(folder) {
                known.insert(folder, here(folder)?);
            }
            let accepted = known.get(folder).copied().flatten();
            if accepted == Some(true) || (accepted.is_none() && written.tracked.contains(folder)) {
                held.push(Noted { path: path.clone(), reason: BESIDE_HEAD });
                break;
            }
        }
    }
    hold(theirs, base, &mut held);
    Ok(held)
}

/// What git may write into folders of the workspace at a checkout.
#[derive(Debug, Default)]
pub struct AtCheckout {
    /// The folders in which the index of a repository has a `HEAD`.
    pub tracked: BTreeSet<Vec<u8>>,
    /// What the index of a repository has of one, as far as that matters.
    pub parts: BTreeMap<Vec<u8>, Parts>,
    /// What any commit in the local history has had of one, as far as that matters.
    pub history: BTreeMap<Vec<u8>, Parts>,
    /// Whether a repository has stored a fixture in any folder, as far as that matters.
    pub fixture: bool,
}

impl AtCheckout {
    /// Adds what indexes have of repositories.
    pub fn add_parts(&mut self, paths: impl Iterator<Item = Vec<u8>>) {
        for path in paths {
            for (folder, part) in parts(&path) {
                self.parts.entry(folder.to_vec()).or_default().add(part);
            }
        }
    }
}

/// What the incoming side has for which it matters what the local repositories have stored.
#[derive(Debug, Default)]
pub struct Gained {
    /// The folders that get a part of a repository which they did not have.
    pub folders: BTreeSet<Vec<u8>>,
    /// Whether one of them gets what git would run, or has both objects and references then.
    pub may_complete: bool,
}

/// Finds out for which of its entries it matters what the local repositories have stored.
pub fn gained(theirs: &Snapshot, base: &Snapshot, workspace: &Root) -> Result<Gained> {
    let is_run = |(path, _, after): (&RelativePath, _, Option<&Entry>)| {
        let is_new = after.is_some_and(|after| !after.is_folder()) && !is_gits(path);
        is_new && folders_running(path.as_bytes()).next().is_some()
    };
    let mut gained = Gained { may_complete: changed(base, theirs).any(is_run), ..Gained::default() };
    for (folder, (then, before)) in parts_in(theirs, base, workspace)? {
        gained.may_complete |= then.stores() && !before.stores();
        if then.exceeds(before) {
            gained.folders.insert(folder);
        }
    }
    Ok(gained)
}

/// For each folder in which the incoming side changes a part of a repository: the parts that it then has, with those that are there
/// locally; and those that are there locally.
fn parts_in(
    theirs: &Snapshot,
    base: &Snapshot,
    workspace: &Root,
) -> Result<BTreeMap<Vec<u8>, (Parts, Parts)>> {
    let mut found: BTreeMap<Vec<u8>, (Parts, Parts)> = BTreeMap::new();
    for (path, _, after) in changed(base, theirs) {
        if let Some(after) = after.filter(|_| !is_gits(path)) {
            let parts = parts_of(path, after).map(|(folder, _)| (folder.to_vec(), Default::default()));
            found.extend(parts);
        }
    }
    if found.is_empty() {
        return Ok(found);
    }
    for (path, entry) in theirs {
        for (folder, part) in parts_of(path, entry) {
            if let Some((then, _)) = found.get_mut(folder) {
                then.add(part);
            }
        }
    }
    let mut cursor = workspace.cursor();
    for (folder, (then, before)) in &mut found {
        *before = local_parts(&mut cursor, None, folder)?;
        *then = then.or(*before);
    }
    Ok(found)
}

/// The parts that an entry is, or is in. A folder runs nothing.
fn parts_of<'a>(path: &'a RelativePath, entry: &Entry) -> impl Iterator<Item = (&'a [u8], Part)> {
    let is_folder = entry.is_folder();
    parts(path.as_bytes())
        .filter(move |&(_, part)| !is_folder || matches!(part, Part::Objects | Part::References))
}

/// The parts of a repository that a folder of a checkout has locally, which lies in a folder of the workspace.
pub fn local_parts(cursor: &mut Cursor<'_>, checkout: Option<&RelativePath>, folder: &[u8]) -> Result<Parts> {
    let mut found = Parts::default();
    let mut kind_of = |path: &[u8]| match in_checkout(checkout, path) {
        Ok(Some(path)) => kind_at(cursor, &path),
        // Nothing can have that name here.
        _ => Ok(None),
    };
    for (path, part) in paths_of_stores(folder) {
        if kind_of(&path)?.is_some() {
            found.add(part);
        }
    }
    for path in paths_of_runs(folder) {
        // A folder of that name is one of other files.
        if matches!(kind_of(&path)?, Some(Kind::File | Kind::Symlink)) {
            found.add(Part::Run);
        }
    }
    Ok(found)
}

/// Treats paths, and everything below them, as unchanged.
fn hold(theirs: &mut Snapshot, base: &Snapshot, held: &mut Vec<Noted>) {
    let moved = contents_at(theirs, base, held.iter().map(|noted| &noted.path));
    for Noted { path, .. } in held.iter() {
        treat_as_unchanged(theirs, base, path);
    }
    held.extend(keep_moved(theirs, base, &moved));
}

/// The reason for holding back the deletion of a file that was moved.
const MOVED: &str = "it was moved to a path that is held back, so it stays where it was";

/// Whether something stays only because it was moved to a path that is held back. Its deletion counts once that is no longer so,
/// which a list of changes does not tell.
#[must_use]
pub fn is_moved(noted: &Noted) -> bool {
    noted.reason == MOVED
}

/// The contents of the new or changed files at these paths, and below them.
pub fn contents_at<'a>(
    theirs: &Snapshot,
    base: &Snapshot,
    paths: impl Iterator<Item = &'a RelativePath>,
) -> HashSet<Digest> {
    let mut found = HashSet::new();
    for path in paths {
        let from = theirs.iter_from(path.as_bytes());
        let below = from.take_while(|(at, _)| at.as_bytes().starts_with(path.as_bytes()));
        for (at, entry) in below.filter(|(at, _)| at.is_or_below(path.as_bytes())) {
            if let Entry::File { digest, .. } = entry
                && base.get(at) != Some(entry)
            {
                found.insert(*digest);
            }
        }
    }
    found
}

/// Treats files as unchanged that the sandbox has deleted and that have one of these contents: those were held back at other
/// paths, so that nothing else would have them. Returns them.
#[allow(
    clippy::implicit_hasher,
    reason = "there is one caller beside this module, which gets the set from it"
)]
pub fn keep_moved(theirs: &mut Snapshot, base: &Snapshot, moved: &HashSet<Digest>) -> Vec<Noted> {
    if moved.is_empty() {
        return Vec::new();
    }
    let is_moved = |entry: &Entry| matches!(entry, Entry::File { digest, .. } if moved.contains(digest));
    let gone = base.iter().filter(|(path, entry)| is_moved(entry) && !theirs.contains_key(path.as_bytes()));
    let gone: Vec<RelativePath> = gone.map(|(path, _)| path.clone()).collect();
    for path in &gone {
        treat_as_unchanged(theirs, base, path);
    }
    gone.into_iter().map(|path| Noted { path, reason: MOVED }).collect()
}

/// Treats folders as unchanged that git would take for bare repositories, by what the sandbox has and what is there locally
/// together: what was excluded, or made since the upload, counts too. Of one that was uploaded, only what git runs or obeys
/// stays as it is locally, and what git never deletes is not deleted.
pub fn bare(theirs: &mut Snapshot, base: &Snapshot, workspace: &Root, search: Search) -> Result<Vec<Noted>> {
    if changed(base, theirs).next().is_none() {
        return Ok(Vec::new());
    }
    let markers = |tree: &Snapshot| -> Vec<(RelativePath, Kind)> {
        let is_marker = |path: &RelativePath| is_bare_marker(path.name().as_encoded_bytes());
        let files = tree.iter().filter(|(path, _)| is_marker(path) && search.includes(path));
        files.map(|(path, entry)| (path.clone(), entry.kind())).collect()
    };
    let folders_of =
        |markers: &[(RelativePath, Kind)]| bare_folders(markers.iter().map(|(path, kind)| (path, *kind)));
    let uploaded = folders_of(&markers(base));
    let mut now = markers(theirs);
    let local = local_markers(&now, base, theirs, workspace, search)?;
    let is_bare_locally = folders_of(&local).contains(&None);
    now.extend(local);
    let (mut held, mut collected) = (Vec::new(), Vec::new());
    for folder in folders_of(&now).union(&uploaded) {
        let start = folder.as_ref().map_or(0, |folder| folder.as_bytes().len() + 1);
        let below = |path: &RelativePath| folder.as_ref().is_none_or(|folder| path.is_below(folder));
        let mut changes = changed(base, theirs).map(|(path, ..)| path).filter(|path| below(path));
        let gone = folder.as_ref().filter(|folder| !theirs.contains_key(folder.as_bytes()));
        if let (Some(folder), true) = (gone, uploaded.contains(folder)) {
            held.push(Noted { path: folder.clone(), reason: NO_REPOSITORY_GOES });
        } else if uploaded.contains(folder) {
            for path in changes {
                let inner = &path.as_bytes()[start..];
                let is_gone = !theirs.contains_key(path.as_bytes());
                if is_gone && inner.starts_with(OBJECTS) {
                    collected.push(path.clone());
                    continue;
                }
                let is_needed = is_gone && NEVER_DELETED.contains(&inner);
                let reason = if is_needed { Some(GIT_NEEDS_IT) } else { is_held_in_repository(inner) };
                held.extend(reason.map(|reason| Noted { path: path.clone(), reason }));
            }
        } else if let Some(folder) = folder {
            if changes.next().is_some() {
                held.push(Noted { path: folder.clone(), reason: BARE });
            }
        } else {
            // The workspace itself cannot be left out. Without these entries it is no repository, or not one that obeys the
            // sandbox.
            let is_gits = |path: &RelativePath| {
                let is_obeyed = || is_held_in_repository(path.as_bytes()).is_some();
                is_bare_marker(path.top()) || (is_bare_locally && is_obeyed())
            };
            let tops = changes.filter(|path| is_gits(path));
            let mut tops: Vec<RelativePath> =
                tops.filter_map(|path| path.ancestors().next().or_else(|| Some(path.clone()))).collect();
            tops.dedup();
            held.extend(tops.into_iter().map(|path| Noted { path, reason: BARE }));
        }
    }
    for path in collected {
        treat_as_unchanged(theirs, base, &path);
    }
    hold(theirs, base, &mut held);
    Ok(held)
}

/// The local entries by which git knows a bare repository, in the folders in or below which the sandbox changed anything.
fn local_markers(
    theirs: &[(RelativePath, Kind)],
    base: &Snapshot,
    incoming: &Snapshot,
    workspace: &Root,
    search: Search,
) -> Result<Vec<(RelativePath, Kind)>> {
    const HEAD: &[u8] = b"HEAD";
    let has_head: BTreeSet<&[u8]> = theirs
        .iter()
        .filter(|(path, _)| path.name().as_encoded_bytes().eq_ignore_ascii_case(HEAD))
        .map(|(path, _)| path.split().0)
        .collect();
    let mut folders: BTreeSet<Option<RelativePath>> = [None].into();
    for (path, _, after) in changed(base, incoming) {
        // Folders come before what is below them, so those above a known one are known.
        if after.is_none() || (search == Search::OutsideOfGit && is_gits(path)) {
            continue;
        }
        if !path.parent().is_none_or(|folder| folders.contains(&Some(folder))) {
            folders.extend(path.ancestors().map(Some));
        }
    }
    let mut cursor = workspace.cursor();
    let mut found = Vec::new();
    let is_searched = |folder: &Option<RelativePath>| {
        let name = folder.as_ref().map(|folder| folder.name().as_encoded_bytes());
        search == Search::OutsideOfGit || !name.is_some_and(is_git_name)
    };
    for folder in folders.into_iter().filter(is_searched) {
        let mut local = |name: &[u8]| -> Result<bool> {
            let path = RelativePath::child(folder.as_ref(), name);
            let kind = kind_at(&mut cursor, &path)?;
            let exists = kind.is_some();
            found.extend(kind.map(|kind| (path, kind)));
            Ok(exists)
        };
        let bytes = folder.as_ref().map_or(&b""[..], RelativePath::as_bytes);
        if local(HEAD)? || has_head.contains(bytes) {
            for name in [&b"objects"[..], b"refs", b"commondir"] {
                local(name)?;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files (`a`), folders (`a/`) and links (`a@`), with the folders above them.
    fn tree(names: &[&str]) -> Snapshot {
        let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap().unwrap();
        let entry = |name: &&str| match name.strip_suffix('@') {
            Some(link) => (path(link), Entry::Symlink { target: b"/elsewhere".to_vec().into() }),
            None if name.ends_with('/') => (path(name), Entry::Folder { mode: Some(0o755) }),
            None => (path(name), Entry::File { mode: 0o644, digest: Digest([1; 32]) }),
        };
        let mut entries: Vec<_> = names.iter().map(entry).collect();
        let above: Vec<_> = entries.iter().flat_map(|(path, _)| path.ancestors()).collect();
        entries.splice(0..0, above.into_iter().map(|path| (path, Entry::Folder { mode: Some(0o755) })));
        entries.into_iter().collect()
    }

    #[test]
    fn what_git_runs_or_obeys_is_held_back_at_any_depth() {
        let sent = [".git/HEAD", ".git/config", ".git/objects/pack/", ".git/refs/heads/main", "file"];
        let repository = |folder: &str| ["HEAD", "objects/", "refs/"].map(|name| format!("{folder}/{name}"));
        let cases: Vec<(Vec<String>, Option<&str>)> = [
            (&[".git/hooks/post-commit"][..], Some(".git/hooks/post-commit")),
            (&[".git/COMMIT_EDITMSG@"], Some(".git/COMMIT_EDITMSG")),
            (&[".git/logs@"], Some(".git/logs")),
            (&[".git/refs/heads/next@"], Some(".git/refs/heads/next")),
            (&[".git/lfs/.git/config"], Some(".git/lfs/.git/config")),
            (&[".git/logs/.git@"], Some(".git/logs/.git")),
            (&[".git/objects/.GIT/config"], Some(".git/objects/.GIT/config")),
            (&[".git/branches/origin"], Some(".git/branches/origin")),
            (&[".git/remotes/origin"], Some(".git/remotes/origin")),
            (&[".git/rr-cache/1/postimage"], Some(".git/rr-cache/1/postimage")),
            (&[".git/shallow"], Some(".git/shallow")),
            (&[".git/gc.pid"], Some(".git/gc.pid")),
            (&["n/.git/HEAD", "n/.git/objects/", "n/.git/refs/heads/", "n/.git/refs/tags/"], None),
            (&[".git/refs/replace/"], Some(".git/refs/replace")),
            (&[".git/refs/headstrong/"], Some(".git/refs/headstrong")),
            (&[".git/refs/heads/feature/one", ".git/refs/tags/v1/a", ".git/refs/stash"], None),
            (&["x/.git@"], Some("x/.git")),
            (&["x/.git"], Some("x/.git")),
            (&["link@"], None),
            (&[".git/refs/heads/next"], None),
            (&["HEAD"], None),
        ]
        .into_iter()
        .map(|(names, held)| (names.iter().map(ToString::to_string).collect(), held))
        .chain(
            [
                "x",
                "x/y",
                ".git/lfs",
                ".git/objects/x",
                ".git/branches/x",
                ".git/modules/x",
                ".git/refs/heads",
            ]
            .map(|folder| (repository(folder).to_vec(), Some(folder))),
        )
        .collect();
        let workspace = tempfile::tempdir().unwrap();
        let root = Root::open(workspace.path()).unwrap();
        let base = tree(&sent);
        for (names, expected) in cases {
            let came: Vec<&str> = sent.into_iter().chain(names.iter().map(String::as_str)).collect();
            let mut theirs = tree(&came);
            let mut held = below_git(&mut theirs, &base, &BTreeSet::new(), &BTreeSet::new());
            held.extend(bare(&mut theirs, &base, &root, Search::Everywhere).unwrap());
            let paths: Vec<_> = held.iter().map(|noted| noted.path.to_string()).collect();
            let is_told = expected.is_none_or(|expected| paths.iter().any(|path| path == expected));
            assert!(is_told && paths.is_empty() == expected.is_none(), "{names:?}: {held:?}");
            let is_taken =
                names.iter().all(|name| theirs.contains_key(name.trim_end_matches(['@', '/']).as_bytes()));
            assert_eq!(is_taken, expected.is_none(), "{names:?}: {held:?}");
        }
    }

    #[test]
    fn what_git_never_deletes_stays_with_all_that_is_below() {
        let sent = [
            ".git/HEAD",
            ".git/index",
            ".git/packed-refs",
            ".git/objects/12/3",
            ".git/refs/heads/main",
            ".git/refs/heads/objects/one",
            ".git/refs/tags/v1",
            ".git/modules/m/objects/12/3",
            "nested/.git/HEAD",
            "nested/.git/objects/12/3",
            "nested/file",
        ];
        let base = tree(&sent);
        for (deleted, held, stays) in [
            (".git", Some(".git"), true),
            ("nested", Some("nested/.git"), true),
            ("nested/file", None, false),
            (".git/HEAD", Some(".git/HEAD"), true),
            (".git/index", Some(".git/index"), true),
            (".git/packed-refs", Some(".git/packed-refs"), true),
            (".git/objects", Some(".git/objects"), true),
            (".git/objects/12", None, true),
            (".git/modules/m/objects", Some(".git/modules/m/objects"), true),
            (".git/refs", Some(".git/refs"), true),
            (".git/refs/heads", Some(".git/refs/heads"), true),
            (".git/refs/heads/main", None, false),
            (".git/refs/heads/objects", None, false),
            (".git/refs/tags", Some(".git/refs/tags"), true),
        ] {
            let mut theirs = base.clone();
            let gone = base.iter().filter(|(path, _)| path.is_or_below(deleted.as_bytes()));
            let gone: Vec<_> = gone.map(|(path, _)| path.clone()).collect();
            for path in &gone {
                theirs.remove(path);
            }
            let noted = below_git(&mut theirs, &base, &BTreeSet::new(), &BTreeSet::new());
            let paths: Vec<_> = noted.iter().map(|noted| noted.path.to_string()).collect();
            assert!(paths.iter().map(String::as_str).eq(held), "{deleted}: {noted:?}");
            let are_there =
                gone.iter().filter(|path| is_gits(path)).all(|path| theirs.contains_key(path.as_bytes()));
            assert_eq!(are_there && deleted != "nested/file", stays, "{deleted}");
        }
    }

    #[test]
    fn references_stay_if_no_file_is_in_the_place_of_those_that_are_packed() {
        let base = tree(&[".git/HEAD", ".git/refs/heads/main"]);
        let packed = RelativePath::parse(b".git/packed-refs").unwrap().unwrap();
        for (came, skipped, stays) in [
            (&[".git/HEAD", ".git/packed-refs@"][..], None, true),
            (&[".git/HEAD"], Some(packed), true),
            (&[".git/HEAD", ".git/packed-refs"], None, false),
        ] {
            let mut theirs = tree(came);
            theirs.extend(tree(&[".git/refs/heads/"]));
            let skipped: BTreeSet<RelativePath> = skipped.into_iter().collect();
            below_git(&mut theirs, &base, &BTreeSet::new(), &skipped);
            assert_eq!(theirs.contains_key(&b".git/refs/heads/main"[..]), stays, "{came:?} {skipped:?}");
        }
    }

    #[test]
    fn no_new_head_comes_and_nothing_beside_one_that_git_obeys() {
        let workspace = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = workspace.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("fixture/HEAD", "ref: refs/heads/main\n");
        put("mocks/HEAD", "HTTP/1.1 200 OK\n");
        for path in [
            "stored/objects/x",
            "stored/refs/x",
            "half/objects/x",
            "runs/objects/x",
            "runs/config",
            "ran/objects/x",
        ] {
            put(path, "");
        }
        let root = Root::open(workspace.path()).unwrap();
        let written = AtCheckout {
            tracked: BTreeSet::from([b"deleted".to_vec(), b"mocks".to_vec()]),
            ..AtCheckout::default()
        };
        let base = tree(&["file", "fixture/HEAD", "mocks/HEAD", "fixture/objects/x", "fixture/refs/x"]);
        for (came, may_be_head, held) in [
            ("new/HEAD", true, true),
            ("HEAD", true, true),
            ("new/head", true, true),
            ("new/HEAD", false, false),
            ("new/HEAD@", true, false),
            ("new/config", true, false),
            ("fixture/config", true, true),
            ("fixture/hooks/post-checkout", true, true),
            ("fixture/Info/attributes", true, true),
            ("fixture/objects/info/alternates", true, true),
            ("fixture/objects/y", true, false),
            ("fixture/readme", true, false),
            ("mocks/config", true, false),
            ("deleted/config", true, true),
            ("deleted/readme", true, false),
            ("new/commondir", true, true),
            ("stored/config", true, true),
            ("stored/hooks/pre-commit", true, true),
            ("stored/Hooks@", true, true),
            ("stored/hooks/use.ts", true, false),
            ("stored/objects/y", true, false),
            ("half/config", true, false),
            ("half/refs/x", true, false),
            ("runs/refs/x", true, true),
            ("config", true, false),
            ("x/.git/HEAD", true, false),
        ] {
            let names: Vec<String> = base
                .iter()
                .filter(|(_, entry)| !entry.is_folder())
                .map(|(path, _)| path.to_string())
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).chain([came]).collect();
            let mut theirs = tree(&names);
            let found = beside_heads(&mut theirs, &base, &root, &|_| may_be_head, &written).unwrap();
            assert_eq!(!found.is_empty(), held, "{came}: {found:?}");
            assert_eq!(theirs.contains_key(came.trim_end_matches('@').as_bytes()), !held, "{came}");
        }
        // What only the index has is written by a checkout, submodules among it.
        let mut written = AtCheckout::default();
        written.add_parts(["sub/objects", "sub/refs", "sub/readme"].into_iter().map(Vec::from));
        for (came, held) in [("sub/config", true), ("sub/readme", false), ("other/config", false)] {
            let found = beside_heads(&mut tree(&[came]), &tree(&[]), &root, &|_| false, &written).unwrap();
            assert_eq!(!found.is_empty(), held, "{came}: {found:?}");
        }
        // What any commit in the local history has may be checked out again.
        let stores = ["past/objects", "past/refs", "gone/config", "gone/refs"];
        let mut past = AtCheckout::default();
        past.add_parts(stores.into_iter().map(Vec::from));
        let past = AtCheckout { history: past.parts, ..AtCheckout::default() };
        let fixture = AtCheckout { fixture: true, ..AtCheckout::default() };
        for (written, came, held) in [
            (&past, "past/config", true),
            (&past, "past/hooks/update", true),
            (&past, "past/objects/x", false),
            (&past, "new/config", false),
            (&past, "gone/objects/x", true),
            (&past, "gone/readme", false),
            // A fixture may be written into any folder.
            (&fixture, "new/config", true),
            (&fixture, "a/b/hooks/pre-commit", true),
            (&fixture, "new/Hooks@", true),
            (&fixture, "new/hooks/use.ts", false),
            (&fixture, "new/info/attributes", false),
            (&fixture, "new/config/", false),
            (&fixture, "new/refs/x", false),
            (&fixture, "half/refs/x", true),
        ] {
            let mut theirs = tree(&["file", came]);
            let base = tree(&["file"]);
            let found = beside_heads(&mut theirs, &base, &root, &|_| false, written).unwrap();
            assert_eq!(!found.is_empty(), held, "{came}: {found:?}");
            let gained = gained(&tree(&["file", came]), &base, &root).unwrap();
            assert!(!held || gained.may_complete || !gained.folders.is_empty(), "{came}: {gained:?}");
        }
    }
}
