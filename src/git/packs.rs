//! Makes the packs that an upload sends, and reuses those that the sandbox still has.
//!
//! The first upload sends one pack of the whole history. A later one adds a pack of what is new, and sends no
//! byte of the earlier packs. What is no longer reachable locally must not be uploaded (a deleted branch may
//! contain a secret). So a pack of an earlier upload is reused only while every tip that it was made from is
//! reachable from today's tips. Blobs that are only staged are in a separate pack, which is reused only while
//! exactly these blobs are staged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::command::Fault;
use super::refs::Oid;
use super::repository::{Repository, lines, quoted};
use crate::error::Obstacle;
use crate::fs::by_path::{self, write};
use crate::path::{bytes_of, path_from};
use crate::tree::entry::Digest;

/// How many packs of history a sandbox has at most. Before there would be more, those after the first are
/// combined.
const HISTORY_MAX: usize = 8;

/// One file of a pack, as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackFile {
    /// Bytes of content.
    pub size: u64,
    /// The digest of the content; known once it was sent.
    pub digest: Option<Digest>,
}

/// The files of a pack by name (`pack-….pack`, `.idx`, `.rev`), which are in `objects/pack`.
pub type PackFiles = BTreeMap<String, PackFile>;

/// A pack of history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HistoryPack {
    /// This pack and those before it contain what is reachable from these tips, and nothing else.
    tips: BTreeSet<Oid>,
    files: PackFiles,
}

/// A pack of blobs that are staged and not in a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StagedPack {
    blobs: BTreeSet<Oid>,
    files: PackFiles,
}

/// The packs of a repository that were sent to a sandbox.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentPacks {
    /// Whether the same commits will always have the same history and objects.
    is_lasting: bool,
    /// The commits that were sent without their parents.
    shallow: BTreeSet<Oid>,
    history: Vec<HistoryPack>,
    staged: Option<StagedPack>,
}

/// The packs of an earlier upload.
pub struct Earlier<'a> {
    /// What was sent.
    pub packs: &'a SentPacks,
    /// Whether the sandbox still has a file of a pack exactly as it was sent.
    pub has: &'a dyn Fn(&str, &PackFile) -> bool,
}

/// What the sandbox is to have.
pub(super) struct Wanted<'a> {
    /// The tips of the history.
    pub tips: &'a BTreeSet<Oid>,
    /// The blobs of the index that are not in the checked-out commit.
    pub staged: &'a BTreeSet<Oid>,
    /// The commits at which `gitDepth` ends the history.
    pub boundary: &'a BTreeSet<Oid>,
    /// The commits in `boundary`, and those at which the local history ends.
    pub shallow: &'a BTreeSet<Oid>,
}

impl SentPacks {
    fn all(&self) -> impl Iterator<Item = (&String, &PackFile)> {
        let history = self.history.iter().map(|pack| &pack.files);
        history.chain(self.staged.iter().map(|pack| &pack.files)).flatten()
    }

    /// The packs themselves, with their sizes.
    pub(super) fn sizes(&self) -> BTreeMap<String, u64> {
        let packs = self.all().filter(|(name, _)| Path::new(name).extension() == Some("pack".as_ref()));
        packs.map(|(name, file)| (name.clone(), file.size)).collect()
    }

    /// Records the digests of the files that were sent. `digest` returns that of a file by its name.
    pub fn note(&mut self, digest: impl Fn(&str) -> Option<Digest>) {
        let history = self.history.iter_mut().map(|pack| &mut pack.files);
        for (name, file) in history.chain(self.staged.iter_mut().map(|pack| &mut pack.files)).flatten() {
            file.digest = digest(name);
        }
    }

    /// The files that are not in a folder, because the sandbox has them.
    pub(super) fn missing_in(&self, folder: &Path) -> BTreeSet<String> {
        let packs = folder.join("objects/pack");
        self.all().map(|(name, _)| name).filter(|name| !by_path::exists(&packs.join(name))).cloned().collect()
    }
}

/// Makes the packs of what is wanted in `folder`, except those of an earlier upload that can be reused.
pub(super) fn make(
    repository: &Repository<'_>,
    wanted: &Wanted<'_>,
    earlier: Option<&Earlier<'_>>,
    folder: &Path,
) -> Result<SentPacks, Fault> {
    // A partial clone may have tomorrow what it lacks today, and a graft changes the history of the same
    // commits.
    let place = repository.place;
    let is_lasting = place.promisor.is_none() && !by_path::exists(&place.common_dir.join("info/grafts"));
    let earlier = earlier.filter(|earlier| is_lasting && earlier.packs.is_lasting);
    let mut history = match earlier {
        Some(earlier) => reusable_history(repository, wanted, earlier)?,
        None => Vec::new(),
    };
    consolidate(&mut history);
    let already = history.last().map(|pack| pack.tips.clone()).unwrap_or_default();
    if !wanted.tips.is_subset(&already) {
        let files = pack_history(repository, wanted, &already, folder)?;
        if !files.is_empty() {
            history.push(HistoryPack { tips: BTreeSet::new(), files });
        }
    }
    // Today's tips reach exactly what all these packs contain, and the next upload has less to compare with
    // them than with the earlier tips.
    if let Some(last) = history.last_mut() {
        last.tips.clone_from(wanted.tips);
    }
    let staged = match earlier.and_then(|earlier| reusable_staged(wanted, earlier)) {
        Some(staged) => Some(staged),
        None => pack_staged(repository, wanted.staged, folder)?,
    };
    Ok(SentPacks { is_lasting, shallow: wanted.shallow.clone(), history, staged })
}

/// The packs of history that can be reused: the first ones, up to one that the sandbox lacks or that contains
/// something unreachable.
fn reusable_history(
    repository: &Repository<'_>,
    wanted: &Wanted<'_>,
    earlier: &Earlier<'_>,
) -> Result<Vec<HistoryPack>, Fault> {
    if earlier.packs.shallow != *wanted.shallow {
        return Ok(Vec::new());
    }
    let is_there = |pack: &&HistoryPack| pack.files.iter().all(|(name, file)| (earlier.has)(name, file));
    let mut packs: Vec<HistoryPack> = earlier.packs.history.iter().take_while(is_there).cloned().collect();
    while let Some(last) = packs.last() {
        if are_reachable(repository, &last.tips, wanted.tips)? {
            break;
        }
        packs.pop();
    }
    Ok(packs)
}

/// Whether everything that is reachable from some objects is reachable from others.
fn are_reachable(
    repository: &Repository<'_>,
    earlier: &BTreeSet<Oid>,
    today: &BTreeSet<Oid>,
) -> Result<bool, Fault> {
    let moved: BTreeSet<Oid> = earlier.difference(today).cloned().collect();
    if moved.is_empty() {
        return Ok(true);
    }
    // A tag object, or anything else that is not a commit, is taken to be reachable only as a tip.
    let kinds = repository.types(&moved)?;
    if moved.iter().any(|oid| kinds.get(oid).is_none_or(|kind| kind != b"commit")) {
        return Ok(false);
    }
    let mut input = lines(moved.iter().map(Oid::as_str));
    input.extend(exclusions(today));
    let unreachable = repository
        .call()
        .args(["rev-list", "--max-count=1", "--stdin"])
        .input(input)
        .run(repository.cancel)?;
    Ok(unreachable.is_empty())
}

/// Makes room for one more pack: drops the packs after the first, so that they are made again as one. If
/// together they are as large as the first, drops that too.
fn consolidate(history: &mut Vec<HistoryPack>) {
    if history.len() < HISTORY_MAX {
        return;
    }
    let size = |pack: &HistoryPack| pack.files.values().map(|file| file.size).sum::<u64>();
    let further: u64 = history[1..].iter().map(size).sum();
    history.truncate(usize::from(size(&history[0]) > further));
}

fn reusable_staged(wanted: &Wanted<'_>, earlier: &Earlier<'_>) -> Option<StagedPack> {
    let staged = earlier.packs.staged.as_ref()?;
    let is_there = staged.files.iter().all(|(name, file)| (earlier.has)(name, file));
    (is_there && staged.blobs == *wanted.staged).then(|| staged.clone())
}

/// Packs what is reachable from the tips and not in `already`. Existing deltas are reused, and no new ones
/// are searched for.
fn pack_history(
    repository: &Repository<'_>,
    wanted: &Wanted<'_>,
    already: &BTreeSet<Oid>,
    folder: &Path,
) -> Result<PackFiles, Fault> {
    let shallow: Vec<String> = wanted.boundary.iter().map(|oid| format!("--shallow {oid}")).collect();
    let mut input = lines(shallow.iter().map(String::as_str));
    input.extend(lines(wanted.tips.iter().map(Oid::as_str)));
    input.extend(exclusions(already));
    let mut options = vec!["--revs"];
    if !wanted.boundary.is_empty() {
        options.push("--shallow");
    }
    if repository.place.promisor.is_some() {
        options.push("--missing=allow-any");
    }
    pack(repository, &options, input, folder)
}

fn pack_staged(
    repository: &Repository<'_>,
    blobs: &BTreeSet<Oid>,
    folder: &Path,
) -> Result<Option<StagedPack>, Fault> {
    if blobs.is_empty() {
        return Ok(None);
    }
    let files = pack(repository, &[], lines(blobs.iter().map(Oid::as_str)), folder)?;
    Ok(Some(StagedPack { blobs: blobs.clone(), files }))
}

/// Makes a pack, or several if `pack.packSizeLimit` says so, and none if there is nothing to pack.
fn pack(
    repository: &Repository<'_>,
    options: &[&str],
    input: Vec<u8>,
    folder: &Path,
) -> Result<PackFiles, Fault> {
    let packs = folder.join("objects/pack");
    let mut call = repository.call();
    // Git makes a pack in its object directory and then renames it, which fails between file systems. So the
    // object directory is the upload's, and the local one is an alternate.
    let objects = repository.place.common_dir.join("objects");
    call.env("GIT_OBJECT_DIRECTORY", folder.join("objects"));
    call.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", path_from(&quoted(bytes_of(&objects))));
    call.args(["pack-objects", "-q", "--non-empty", "--delta-base-offset", "--window=0"]);
    call.arg("--no-write-bitmap-index").args(options);
    let names = call.arg(packs.join("pack")).input(input).run(repository.cancel)?;
    let mut files = PackFiles::new();
    for name in names.split(|&byte| byte == b'\n').filter_map(Oid::parse) {
        let start = format!("pack-{name}.");
        if repository.place.promisor.is_some() {
            write(&packs.join(format!("{start}promisor")), b"")?;
        }
        for file in by_path::list(&packs)? {
            let Some(file) = file.to_str().filter(|file| file.starts_with(&start)) else { continue };
            let path = packs.join(file);
            let Some(meta) = by_path::stat(&path)? else {
                return Err(Obstacle::Vanished.at("stat", &path).into());
            };
            files.insert(file.to_owned(), PackFile { size: meta.size, digest: None });
        }
        if !files.contains_key(&format!("{start}pack")) {
            return Err(Obstacle::Vanished.at("stat", packs.join(format!("{start}pack"))).into());
        }
    }
    Ok(files)
}

fn exclusions(oids: &BTreeSet<Oid>) -> Vec<u8> {
    oids.iter().flat_map(|oid| format!("^{oid}\n").into_bytes()).collect()
}

/// The blobs of a commit's tree, without submodules. Refuses a tree that has more than any repository of people.
pub(super) fn blobs_of(repository: &Repository<'_>, commit: &Oid) -> Result<BTreeSet<Oid>, Fault> {
    let mut call = repository.call();
    let list = call
        .bounded()
        .args(["ls-tree", "-r", "-z", "--full-tree", commit.as_str()])
        .run(repository.cancel)?;
    Ok(blobs_in(&list).collect())
}

/// The blobs in the output of `git ls-tree -z`.
pub(super) fn blobs_in(list: &[u8]) -> impl Iterator<Item = Oid> {
    let of_line = |line: &[u8]| {
        let mut fields = line.split(|&byte| byte == b'\t').next()?.split(|&byte| byte == b' ');
        (fields.nth(1)? == b"blob").then(|| fields.next().and_then(Oid::parse))?
    };
    list.split(|&byte| byte == 0).filter_map(of_line)
}
