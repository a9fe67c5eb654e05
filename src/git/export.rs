//! Exports a repository: makes the directory that becomes `.git` in the sandbox.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::command::{Fault, Git, short};
use super::config::{self, Settings};
use super::index;
use super::keep;
use super::packs::{self, Earlier, SentPacks, Wanted};
use super::recognise::{DOT_GIT, bare_folders_of_files};
use super::refs::{Head, Oid, RefName, Refs};
use super::repository::{Place, Repository, Stashes, lines};
use super::unfinished;
use super::ways::{GITDIR, leads_through_link, named_in};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::by_path::{self, make_folders, read, write};
use crate::fs::{Kind, Root};
use crate::merge::lock::{Attempt, MergeLock};
use crate::path::{RelativePath, path_from};
use crate::tree::filter::Filter;
use crate::tree::scan::Found;

/// The settings for the upload of repositories.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether credentials are uploaded as well.
    pub credentials: bool,
    /// How many commits of each line of history are uploaded; all of them for `None`.
    pub depth: Option<usize>,
}

/// A workspace as it was scanned.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// The workspace.
    pub root: &'a Root,
    /// What is uploaded of it, in the order of the paths.
    pub found: &'a [Found],
    /// What is not uploaded, whether it exists or not.
    pub excluded: &'a Filter<'a>,
}

/// The state of a repository that both sides last shared. The default is for one that only the sandbox has.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its local place; `None` for a repository that the sandbox made and that was refused.
    pub place: Option<Place>,
    /// Branches, tags and further references.
    pub refs: Refs,
    /// The value of `HEAD`.
    pub head: Option<Head>,
    /// What `git ls-files --stage -z` listed.
    pub index: Vec<u8>,
    /// The digest of the index file, which shows without reading it whether it is unchanged.
    pub index_digest: Option<[u8; 32]>,
    /// The settings, in git's order.
    pub config: Settings,
    /// Whether what was sent has the setting by which a repository that is made anew in the sandbox is noticed.
    pub is_marked: bool,
    /// The stash, the newest first.
    pub stashes: Vec<Oid>,
    /// Names and sizes of packs whose objects are all in the local repository.
    pub packs: BTreeMap<String, u64>,
    /// Digests of further files that were sent (`info/exclude`, `refs/remotes/origin/HEAD`), by their path in the git directory.
    pub files: BTreeMap<String, [u8; 32]>,
    /// The packs of the last upload.
    pub sent_packs: SentPacks,
}

/// The repositories that both sides share, by the path of their `.git`.
pub type Bases = BTreeMap<RelativePath, Base>;

/// A repository that is ready to be packed.
#[derive(Debug)]
pub struct Exported {
    /// The folder whose content is packed below the repository's `.git`.
    pub folder: PathBuf,
    /// Names of files that belong in `objects/pack` and are not in the folder, because the sandbox has them.
    pub unsent_packs: BTreeSet<String>,
    /// The base of the next restore.
    pub base: Base,
    /// Why the index stays as a killed restore has left it, if it does.
    pub unfinished: Option<String>,
    /// The references, and folders of references, that are not uploaded because they cannot be read.
    pub unreadable: Vec<String>,
}

pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    path_from(bytes).to_path_buf()
}

/// How the repositories of a workspace are transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Mode {
    /// As repositories, merged by their references and objects.
    #[default]
    Merge,
    /// As any other files, except what git runs or obeys.
    Files,
    /// Not at all.
    Off,
}

/// Finds the repository whose `.git` is at a path of the workspace.
pub fn locate(git: &Git, workspace: &Root, dot_git: &RelativePath, cancel: &Cancel) -> Result<Place, Fault> {
    let refused = |reason: &str| Err(Fault::Refused(reason.to_owned()));
    let Some(meta) = workspace.cursor().stat(dot_git)? else { return refused("it is gone") };
    if !matches!(meta.kind, Kind::Folder | Kind::File) {
        return refused("a .git that is neither a directory nor a file is not followed");
    }
    let absolute = std::path::absolute(workspace.path())
        .map_err(|error| Error::io("realpath", workspace.path(), error))?;
    let absolute = by_path::resolve(&absolute)?;
    let at = absolute.join(dot_git.as_path());
    let checkout = at.parent().unwrap_or(&absolute).to_path_buf();
    // It is not searched for upwards: only this repository is meant.
    let git_dir = if meta.kind == Kind::Folder {
        at
    } else {
        let named = named_in(&at, GITDIR).unwrap_or_default();
        if leads_through_link(&absolute, &checkout.join(named)) {
            return refused("a .git whose way leads through a link of the workspace is not followed");
        }
        let found = git.outside().args(["rev-parse", "--resolve-git-dir"]).arg(&at).run(cancel)?;
        path_of(found.strip_suffix(b"\n").unwrap_or(&found))
    };
    if let Some(named) = named_in(&git_dir.join("commondir"), b"")
        && leads_through_link(&absolute, &git_dir.join(named))
    {
        return refused("a commondir whose way leads through a link of the workspace is not followed");
    }
    let mut call = git.call(&git_dir);
    call.env("GIT_WORK_TREE", &checkout).cwd(&checkout);
    let told = call.args(["rev-parse", "--show-object-format", "--git-common-dir"]).run(cancel)?;
    let mut told = told.splitn(2, |&byte| byte == b'\n');
    let format = told.next().unwrap_or_default();
    let common_dir = told.next().unwrap_or_default();
    let format = match format {
        b"sha1" => "sha1",
        b"sha256" => "sha256",
        _ => return refused("its object format is not known"),
    };
    let common_dir = checkout.join(path_of(common_dir.strip_suffix(b"\n").unwrap_or(common_dir)));
    // Older releases of git name this remote in the first way, newer ones in the second.
    let promisor = ["config", "-z", "--get-regexp", "^(extensions\\.partialclone|remote\\..*\\.promisor)$"];
    let promisor = git.call(&git_dir).args(promisor).answer(cancel)?.stdout;
    let promisor = config::parse(&promisor).iter().find_map(config::promisor);
    Ok(Place { checkout, id: meta.id, git_dir, common_dir, format: format.to_owned(), promisor })
}

/// Makes the upload of one repository in `folder`, which must not exist yet. Packs of an earlier upload are
/// left out if the sandbox still has them and they can be reused.
pub fn export(
    git: &Git,
    tree: Tree<'_>,
    dot_git: &RelativePath,
    options: Options,
    earlier: Option<&Earlier<'_>>,
    folder: &Path,
    cancel: &Cancel,
) -> Result<Exported, Fault> {
    let workspace = tree.root;
    let place = locate(git, workspace, dot_git, cancel)?;
    let repository = Repository { git, place: &place, cancel };
    for below in ["objects/pack", "objects/info", "refs/heads", "refs/tags", "info"] {
        make_folders(&folder.join(below))?;
    }
    let State { unfinished, refs, symbolic, head, stashes, is_stash_broken, copied } =
        State::settled(&repository, tree, dot_git, folder)?;
    let mut unreadable = repository.unreadable(&refs, &symbolic)?;
    if is_stash_broken {
        unreadable.insert(b"refs/stash");
    }
    let mut refs: Refs =
        refs.into_iter().filter(|(name, _)| goes_up(name) && !unreadable.hides(name)).collect();
    for name in without_object(&repository, &refs, head.as_ref())? {
        unreadable.insert(name.as_bytes());
        refs.remove(&name);
    }
    // What is staged meanwhile is not uploaded: the objects are those of this index.
    let (index_digest, listing) = match copied {
        Some(CopiedIndex { digest, listing }) => (Some(digest), listing),
        None => (None, Vec::new()),
    };
    let mut settings = config::harmless(&repository.settings_in_effect()?, options.credentials);
    // An index also has the inode and the status-change time of each file, which an archive does not keep. By
    // these every file would look changed in the sandbox, and `git add -A` would read and store all of them.
    settings.push(config::added());

    let mut tips: BTreeSet<Oid> =
        refs.values().cloned().chain(stashes.iter().map(|(oid, _)| oid.clone())).collect();
    if let Some(Head::Detached(oid)) = &head {
        tips.insert(oid.clone());
    }
    let mut staged: BTreeSet<Oid> = index::parse(&listing)
        .ok_or_else(|| Fault::Refused("its index names what no index may hold".to_owned()))?
        .into_values()
        .flatten()
        .filter(|staged| staged.mode != b"160000")
        .map(|staged| staged.oid)
        .collect();
    let checked_out = match &head {
        Some(Head::Branch(name)) => refs.get(name),
        Some(Head::Detached(oid)) => Some(oid),
        None => None,
    };
    // A partial clone may lack the tree.
    if let (Some(commit), None) = (checked_out, &place.promisor) {
        match packs::blobs_of(&repository, commit) {
            Ok(committed) => staged.retain(|oid| !committed.contains(oid)),
            // What both have is named twice then, which costs time alone.
            Err(Fault::Refused(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    // An entry that is only intended to be added has no blob, and a partial clone lacks some.
    let mut staged: BTreeSet<Oid> = repository.types(&staged)?.into_keys().collect();
    // Git notes the tree of an index without entries in it, and `git fsck` there misses it.
    if index_digest.is_some() && listing.is_empty() {
        staged.extend(Oid::parse(place.empty_tree().as_bytes()));
    }
    let boundary = match options.depth {
        Some(depth) => boundary(&repository, &tips, depth.max(1))?,
        None => BTreeSet::new(),
    };
    let shallow: BTreeSet<Oid> = read(&place.common_dir.join("shallow"))?
        .unwrap_or_default()
        .split(|&byte| byte == b'\n')
        .filter_map(Oid::parse)
        .chain(boundary.iter().cloned())
        .collect();
    let wanted = Wanted { tips: &tips, staged: &staged, boundary: &boundary, shallow: &shallow };
    let sent_packs = packs::make(&repository, &wanted, earlier, folder).map_err(|fault| match fault {
        Fault::Refused(reason) if place.promisor.is_some() && reason.contains("bad tree object") => {
            Fault::Refused(format!("{LACKS_TREES} ({reason})"))
        }
        other => other,
    })?;
    if !shallow.is_empty() {
        write(&folder.join("shallow"), &lines(shallow.iter().map(Oid::as_str)))?;
    }
    write_refs(folder, &refs, head.as_ref(), &stashes, repository.zero())?;
    write(&folder.join("config"), &configuration(&place, &settings))?;
    let mut files = write_default_branches(folder, &symbolic, &refs)?;
    files.extend(write_info(&repository, folder)?);
    Ok(Exported {
        folder: folder.to_path_buf(),
        unsent_packs: sent_packs.missing_in(folder),
        unfinished,
        unreadable: unreadable.paths().map(short).collect(),
        base: Base {
            place: Some(place),
            refs,
            head,
            index: listing,
            index_digest,
            config: sent_settings(git, folder, cancel)?,
            is_marked: true,
            stashes: stashes.into_iter().map(|(oid, _)| oid).collect(),
            packs: sent_packs.sizes(),
            files,
            sent_packs,
        },
    })
}

/// Writes the files of `info/` that are uploaded. Returns their digests.
fn write_info(repository: &Repository<'_>, folder: &Path) -> Result<Vec<(String, [u8; 32])>, Fault> {
    let mut files = Vec::new();
    for name in ["info/exclude", "info/sparse-checkout"] {
        // Some files are per repository and others per worktree; git knows where.
        let found = repository.run(["rev-parse", "--git-path", name])?;
        let found = repository.place.checkout.join(path_of(found.strip_suffix(b"\n").unwrap_or(&found)));
        if let Some(text) = read(&found)? {
            write(&folder.join(name), &text)?;
            files.push((name.to_owned(), Sha256::digest(&text).into()));
        }
    }
    Ok(files)
}

/// The reason for refusing a partial clone without trees, from which git can make no pack.
const LACKS_TREES: &str = "it is a partial clone that lacks trees, as `git clone --filter=tree:0` makes it; \
    `git fetch --refetch --filter=blob:none` brings them";

/// How often the state of a repository is read that changes meanwhile.
const ATTEMPTS: u32 = 20;

/// What is read of a repository before its objects are packed.
struct State {
    /// Why the index does not belong to the commit that is checked out, if it does not.
    unfinished: Option<String>,
    refs: Refs,
    symbolic: Vec<(RefName, RefName)>,
    head: Option<Head>,
    stashes: Vec<(Oid, Vec<u8>)>,
    is_stash_broken: bool,
    copied: Option<CopiedIndex>,
}

impl State {
    /// Reads the state until nothing moves meanwhile, or for the last time.
    fn settled(
        repository: &Repository<'_>,
        tree: Tree<'_>,
        dot_git: &RelativePath,
        folder: &Path,
    ) -> Result<Self, Fault> {
        for _ in 1..ATTEMPTS {
            if let (state, true) = Self::read(repository, tree, dot_git, folder)? {
                return Ok(state);
            }
        }
        Ok(Self::read(repository, tree, dot_git, folder)?.0)
    }

    /// Reads the state, copies the index, and returns whether the index belongs to the commit that is checked out.
    ///
    /// A restore from another sandbox moves the branch first, and the index after that. An agent that got the one without the other would
    /// revert what was restored with its next commit.
    fn read(
        repository: &Repository<'_>,
        tree: Tree<'_>,
        dot_git: &RelativePath,
        folder: &Path,
    ) -> Result<(Self, bool), Fault> {
        let place = repository.place;
        let was_begun = unfinished::is_noted(place) || keep::is_left(place)?;
        let unfinished = if was_begun { complete(repository, tree.root)? } else { None };
        let (head, commit) = (repository.head()?, repository.commit()?);
        let (refs, symbolic) = repository.all_refs()?;
        let Stashes { entries: stashes, is_broken: is_stash_broken, .. } = repository.stashes()?;
        let copied = copy_index(repository, tree, dot_git, folder)?;
        let is_between = unfinished.is_none() && unfinished::is_noted(place);
        let is_settled = !is_between && repository.head()? == head && repository.commit()? == commit;
        Ok((Self { unfinished, refs, symbolic, head, stashes, is_stash_broken, copied }, is_settled))
    }
}

/// How long a prepare waits for a restore that has moved a branch and not yet the index, which takes milliseconds.
const WAIT: Duration = Duration::from_secs(60);

/// Completes the index that a killed restore has left, and removes its marks on packs. Waits for a restore that still runs and is between
/// the two. Returns why the index stays as it is.
fn complete(repository: &Repository<'_>, workspace: &Root) -> Result<Option<String>, Fault> {
    let Repository { git, place, cancel } = *repository;
    let begun = Instant::now();
    let lock = loop {
        cancel.check()?;
        match MergeLock::try_acquire(workspace.path()) {
            Ok(Attempt::Taken(lock)) => break lock,
            Ok(Attempt::Held { .. }) if !unfinished::is_noted(place) => return Ok(None),
            Ok(Attempt::Held { .. }) if begun.elapsed() < WAIT => thread::sleep(Duration::from_millis(20)),
            Ok(Attempt::Held { .. }) => {
                return Ok(Some("another restore has moved the branch and not yet the index".to_owned()));
            }
            // The upload goes on without the lock.
            Err(error) => return Ok(Some(error.to_string())),
        }
    };
    cancel.check()?;
    // Not cancelled, since a git that is ended while it writes the index leaves its lock behind.
    let repository = Repository { git, place, cancel: &Cancel::default() };
    let mut completed = unfinished::complete(&repository);
    // While the index is incomplete, the marks stay: the objects that it lacks may be reachable from nothing
    // else.
    if let Ok(None) = completed {
        completed = keep::release(place).map(|()| None).map_err(Fault::from);
    }
    let given = repository.give_to_owner();
    lock.release()?;
    given?;
    completed
}

/// The references whose objects are gone: git lists them, and packs nothing for them. (A partial clone may lack objects.) That of the
/// branch that is checked out is none of them: without it, the agent would begin a new history.
fn without_object(
    repository: &Repository<'_>,
    refs: &Refs,
    head: Option<&Head>,
) -> Result<Vec<RefName>, Fault> {
    if repository.place.promisor.is_some() {
        return Ok(Vec::new());
    }
    let there = repository.types(&refs.values().cloned().collect())?;
    let is_lost = |(name, oid): &(&RefName, &Oid)| {
        !there.contains_key(*oid) && !matches!(head, Some(Head::Branch(branch)) if branch == *name)
    };
    Ok(refs.iter().filter(is_lost).map(|(name, _)| name.clone()).collect())
}

/// Whether a reference is uploaded.
fn goes_up(name: &RefName) -> bool {
    [&b"refs/heads/"[..], b"refs/tags/", b"refs/remotes/", b"refs/notes/"]
        .iter()
        .any(|start| name.as_bytes().starts_with(start))
}

/// The settings as git reads them from the file that was written, so that both sides are read in the same
/// way.
fn sent_settings(git: &Git, folder: &Path, cancel: &Cancel) -> Result<Settings, Fault> {
    read_settings(git, &folder.join("config"), cancel)
}

/// Reads one configuration file. What it includes is not followed.
pub(super) fn read_settings(git: &Git, file: &Path, cancel: &Cancel) -> Result<Settings, Fault> {
    let list =
        git.outside().args(["config", "--no-includes", "--list", "-z", "--file"]).arg(file).run(cancel)?;
    Ok(config::parse(&list))
}

/// The settings that a repository of this format needs, and those given.
pub(super) fn configuration(place: &Place, settings: &Settings) -> Vec<u8> {
    let newer = place.format != "sha1" || place.promisor.is_some();
    let mut text = format!(
        "[core]\n\trepositoryformatversion = {}\n\tbare = false\n\tfilemode = true\n",
        u8::from(newer)
    )
    .into_bytes();
    let mut more = Settings::new();
    let mut set = |key: String, value: &str| more.push((key.into_bytes(), Some(value.as_bytes().to_vec())));
    if place.format != "sha1" {
        set("extensions.objectformat".to_owned(), &place.format);
    }
    if let Some(remote) = &place.promisor {
        set("extensions.partialclone".to_owned(), remote);
        set(format!("remote.{remote}.promisor"), "true");
    }
    text.extend(config::render(&more));
    text.extend(config::render(settings));
    text
}

/// The commits at a depth whose parents are left out.
fn boundary(repository: &Repository<'_>, tips: &BTreeSet<Oid>, depth: usize) -> Result<BTreeSet<Oid>, Fault> {
    let list = repository
        .call()
        .args(["rev-list", "--parents", "--stdin"])
        .input(lines(tips.iter().map(Oid::as_str)))
        .run(repository.cancel)?;
    let mut parents: HashMap<Oid, Vec<Oid>> = HashMap::new();
    for line in list.split(|&byte| byte == b'\n') {
        let mut oids = line.split(|&byte| byte == b' ').filter_map(Oid::parse);
        if let Some(commit) = oids.next() {
            parents.insert(commit, oids.collect());
        }
    }
    let starts = repository
        .call()
        .args(["rev-list", "--no-walk", "--stdin"])
        .input(lines(tips.iter().map(Oid::as_str)))
        .run(repository.cancel)?;
    let mut waiting: VecDeque<(Oid, usize)> =
        starts.split(|&byte| byte == b'\n').filter_map(Oid::parse).map(|oid| (oid, 1)).collect();
    let mut seen: BTreeSet<Oid> = BTreeSet::new();
    let mut edge = BTreeSet::new();
    // Breadth first, so that a commit is found at its smallest depth.
    while let Some((commit, at)) = waiting.pop_front() {
        let above = parents.get(&commit).cloned().unwrap_or_default();
        if !seen.insert(commit.clone()) {
            continue;
        }
        if at < depth {
            waiting.extend(above.into_iter().map(|parent| (parent, at + 1)));
        } else if !above.is_empty() {
            edge.insert(commit);
        }
    }
    Ok(edge)
}

fn write_refs(
    folder: &Path,
    refs: &Refs,
    head: Option<&Head>,
    stashes: &[(Oid, Vec<u8>)],
    zero: String,
) -> Result<()> {
    let mut packed = b"# pack-refs with: sorted \n".to_vec();
    let mut line = |oid: &Oid, name: &[u8]| {
        packed.extend_from_slice(oid.as_str().as_bytes());
        packed.push(b' ');
        packed.extend_from_slice(name);
        packed.push(b'\n');
    };
    let stash = stashes.first().map(|(newest, _)| (&b"refs/stash"[..], newest));
    // Git searches the file by bisection, so the stash must be in order among the others.
    let sorted: BTreeMap<&[u8], &Oid> =
        refs.iter().map(|(name, oid)| (name.as_bytes(), oid)).chain(stash).collect();
    for (name, oid) in sorted {
        line(oid, name);
    }
    if !stashes.is_empty() {
        make_folders(&folder.join("logs/refs"))?;
        let mut before = zero;
        // Each entry is at second 1, since git does not count one at second 0.
        let mut log = Vec::new();
        for (oid, message) in stashes.iter().rev() {
            log.extend(format!("{before} {oid} stash <stash@localhost> 1 +0000\t").into_bytes());
            log.extend(message);
            log.push(b'\n');
            before = oid.to_string();
        }
        write(&folder.join("logs/refs/stash"), &log)?;
    }
    write(&folder.join("packed-refs"), &packed)?;
    let head = match head {
        Some(Head::Branch(name)) => [b"ref: ", name.as_bytes(), b"\n"].concat(),
        Some(Head::Detached(oid)) => format!("{oid}\n").into_bytes(),
        None => b"ref: refs/heads/main\n".to_vec(),
    };
    write(&folder.join("HEAD"), &head)
}

/// Writes which branch of each remote is its default one, by which git knows what `origin` alone means. Returns the digests of the files.
fn write_default_branches(
    folder: &Path,
    symbolic: &[(RefName, RefName)],
    refs: &Refs,
) -> Result<BTreeMap<String, [u8; 32]>> {
    let mut files = BTreeMap::new();
    for (name, target) in symbolic {
        let remote = name.as_bytes().strip_suffix(b"HEAD").filter(|remote| is_remotes(remote));
        let is_own = remote.is_some_and(|remote| target.as_bytes().starts_with(remote));
        // Every file that is sent has a UTF-8 name.
        let Ok(name) = std::str::from_utf8(name.as_bytes()) else { continue };
        if !is_own || !refs.contains_key(target) {
            continue;
        }
        let file = folder.join(name);
        make_folders(file.parent().unwrap_or(folder))?;
        let text = [b"ref: ", target.as_bytes(), b"\n"].concat();
        write(&file, &text)?;
        files.insert(name.to_owned(), Sha256::digest(&text).into());
    }
    Ok(files)
}

/// Whether a path is the folder of a remote's references, with a slash at its end.
fn is_remotes(folder: &[u8]) -> bool {
    let name = folder.strip_prefix(b"refs/remotes/").and_then(|rest| rest.strip_suffix(b"/"));
    name.is_some_and(|name| !name.is_empty())
}

/// An index that was copied for an upload.
struct CopiedIndex {
    digest: [u8; 32],
    /// What `git ls-files --stage -z` lists of it.
    listing: Vec<u8>,
}

/// Copies the index without what only this machine can use (a split or sparse index, the state of a file watcher).
fn copy_index(
    repository: &Repository<'_>,
    tree: Tree<'_>,
    dot_git: &RelativePath,
    folder: &Path,
) -> Result<Option<CopiedIndex>, Fault> {
    let here = repository.place.git_dir.join("index");
    let there = folder.join("index");
    if by_path::exists(&there) {
        by_path::remove_file(&there)?;
    }
    // The time is read before the content: if the index changes in between, git in the sandbox only compares
    // more files than it needs to.
    let (Some(meta), Some(bytes)) = (by_path::stat(&here)?, read(&here)?) else { return Ok(None) };
    write(&there, &bytes)?;
    let states = repository.states_in(&there)?;
    let states = index::states(&states);
    let listing: Vec<u8> = states.iter().flat_map(|state| [state.line, b"\0"].concat()).collect();
    let checkout = dot_git.as_bytes().strip_suffix(DOT_GIT).unwrap_or_default();
    let mut cursor = tree.root.cursor();
    let (mut hidden, mut left_out) = (Vec::new(), Vec::new());
    // What is held back of these does not exist here either, if a commit of another branch has brought them.
    let bare = LazyCell::new(|| bare_folders_of_files(states.iter().map(|state| index::path_in(state.line))));
    let is_in_bare = |name: &[u8]| {
        let is_below = |folder: &RelativePath| {
            name.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
        };
        bare.iter().flatten().any(is_below)
    };
    for state in &states {
        let name = index::path_in(state.line);
        let path = [checkout, name].concat();
        let found = tree.found.binary_search_by(|found| found.path.as_bytes().cmp(&path[..]));
        if let Ok(at) = found {
            let meta = &tree.found[at].meta;
            // In the sandbox, git compares sizes and times in whole seconds alone.
            if matches!(meta.kind, Kind::File | Kind::Symlink) && state.hides(meta) {
                hidden.push(state.line);
            }
        } else if let Ok(Some(path)) = RelativePath::parse(&path)
            && !state.is_unmerged()
            // One that is excluded need not exist: if the agent has committed it, it did not come.
            && (matches!(cursor.stat(&path), Ok(Some(_)))
                || tree.excluded.leaves_out(&path, state.kind())
                || is_in_bare(name))
        {
            // A file that is left out looks deleted there, and `git add -A` would delete it from the history.
            left_out.extend([name, b"\0"].concat());
        }
    }
    // Git may read a file through its filter before it writes the index, if the file's time is in the future.
    // In this folder it finds no file.
    let change = |options: &[&str], input: Vec<u8>| {
        let mut call = repository.call();
        call.env("GIT_INDEX_FILE", &there).env("GIT_WORK_TREE", folder).cwd(folder);
        call.arg("update-index").args(options).input(input).run(repository.cancel)
    };
    // What resolved conflicts were between is not uploaded either.
    let plain = [
        "--no-split-index",
        "--no-untracked-cache",
        "--no-fsmonitor",
        "--clear-resolve-undo",
        "--force-write-index",
    ];
    let forgetting = index::forgetting(&listing, &hidden, &repository.zero());
    change(&[&plain[..], &["-z", "--index-info"]].concat(), forgetting)?;
    if !left_out.is_empty() {
        change(&["-z", "--skip-worktree", "--stdin"], left_out)?;
    }
    let digest = Sha256::digest(read(&there)?.unwrap_or_default()).into();
    // Git in the sandbox reads each file that is not older than the index, because it may have been changed
    // after it was staged without a change of size or time.
    by_path::set_modified(&there, meta.mtime.0)?;
    Ok(Some(CopiedIndex { digest, listing }))
}
