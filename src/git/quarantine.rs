//! Stores what the sandbox has below `.git` in a directory outside the workspace, until it was checked.
//!
//! Only what is needed is written: objects, references, `HEAD`, the index, the text of the configuration. The file names
//! differ from those of a git directory, so that git never takes this directory for a repository.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::export::Bases;
use super::recognise::{DOT_GIT, inside, is_git_name};
use super::refs::{RefKind, RefName, Unreadable};
use super::report::HeldBack;
use crate::error::{Error, Result};
use crate::fs::by_path::{self, make_folders};
use crate::path::RelativePath;

/// The maximum number of bytes read of `HEAD` and of the configuration.
const TEXT_MAX: u64 = 1024 * 1024;

/// The maximum number of bytes read of a reference.
const REFERENCE_MAX: u64 = 4096;

/// How many of them are kept: the name of an object fits, and nothing else in a reference is used.
const OID_MAX: usize = 128;

/// What the sandbox has of its repositories.
#[derive(Debug)]
pub struct Quarantine {
    pub(super) folder: PathBuf,
    pub(super) repositories: BTreeMap<RelativePath, Received>,
    pub(super) held_back: BTreeSet<HeldBack>,
    known: Bases,
    /// The `.git` whose repository git has moved, by where it is now: below `modules/` of the repository above.
    absorbed: BTreeMap<RelativePath, RelativePath>,
}

/// What was received of one repository.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Its folder in the quarantine.
    pub folder: PathBuf,
    /// Packs that are stored here.
    pub new_packs: Vec<String>,
    /// Whether loose objects are stored here.
    pub loose: bool,
    /// The digest of the index file.
    pub index_digest: Option<[u8; 32]>,
    /// The references that are files of their own, with their text.
    pub references: BTreeMap<RefName, Vec<u8>>,
    /// The folders of references.
    pub folders: BTreeSet<Vec<u8>>,
    /// The paths of references, of their folders and of `packed-refs`, at which there is something other than a file, or than a
    /// folder.
    pub unreadable: Unreadable,
    /// Objects of Git LFS, by digest.
    pub large_files: BTreeSet<String>,
    /// Whether it keeps its references as a `reftable`.
    pub reftable: bool,
    /// Whether its `.git` is a file in the sandbox, as after `git submodule absorbgitdirs`.
    pub is_absorbed: bool,
    /// The text of the files that name a commit which may be on no reference, by their path in the git directory: the `HEAD`
    /// of a linked worktree, and what an operation in progress has put aside.
    pub commits: BTreeMap<String, Vec<u8>>,
}

/// Where git names the commit with the changes that it put aside when an operation began (`--autostash`).
const AUTOSTASHES: &[&[u8]] = &[b"rebase-merge/autostash", b"rebase-apply/autostash", b"MERGE_AUTOSTASH"];

/// The name of a linked worktree, if a path in the git directory is that of its `HEAD`.
fn worktree_of(inner: &[u8]) -> Option<&str> {
    let name = inner.strip_prefix(b"worktrees/")?.strip_suffix(b"/HEAD")?;
    std::str::from_utf8(name).ok().filter(|name| !name.contains('/'))
}

/// How a file below `.git` is handled.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is stored under this name.
    Waits(String),
    /// It is a loose reference, which is read immediately.
    Reference(RefName),
    /// Git generates it, and generates it again here when needed.
    Ignored,
    /// It is held back: the local one stays unchanged.
    Held(&'static str),
}

/// The file with the references that git has packed.
pub(super) const PACKED_REFS: &[u8] = b"packed-refs";

/// The reason for holding back another spelling of `.git`.
const SPELLING: &str = "some volume takes its name for .git";

/// The reason for holding back a `.git` that is not a directory.
pub(super) const LEADS_ELSEWHERE: &str = "a .git that is not a directory leads git to another repository";

/// The reason for holding back a reference with a malformed name, or one that is too long for a file.
pub(super) const NO_NAME: &str = "no reference can have that name here";

/// The reason for holding back a reference that is not a branch, a tag or the stash.
pub(super) const ONLY_WORK: &str = "only branches, tags and the stash come back";

/// The reason for holding back a repository that was converted to `reftable` in the sandbox.
pub(super) const REFTABLE: &str =
    "its references were converted to a reftable in the sandbox, which is not read";

/// The reason for holding back a file in the place of a folder of references, or a folder in the place of a file.
const WRONG_KIND: &str =
    "git cannot read it, since it is a file in the place of a directory, or a directory in that of a file";

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The reason for holding back what git runs or obeys.
const EXECUTES: &str = "git runs it or obeys it; the local one stays as it is";

/// The reason for holding back a lock.
const LOCK: &str = "a lock of the sandbox means nothing on this machine";

/// Whether a path in the git directory is that of this folder, or below it.
fn is_in(inner: &[u8], folder: &[u8]) -> bool {
    inner.split(|&byte| byte == b'/').next() == Some(folder)
}

/// Decides how a file is handled, from its path in the git directory.
fn fate(inner: &[u8]) -> Fate {
    let waits = |name: &str| Fate::Waits(name.to_owned());
    let text = || String::from_utf8_lossy(inner).into_owned();
    let first = inner.split(|&byte| byte == b'/').next().unwrap_or_default();
    if inner.ends_with(b".lock") {
        return Fate::Held(LOCK);
    }
    match inner {
        b"HEAD" => return waits("head"),
        b"packed-refs" | b"index" | b"shallow" => return waits(&text()),
        b"config" => return waits("settings"),
        b"refs" | b"refs/heads" | b"refs/tags" => return Fate::Held(WRONG_KIND),
        // The larger part of an index that git has split.
        [b's', b'h', b'a', b'r', b'e', b'd', b'i', b'n', b'd', b'e', b'x', b'.', name @ ..]
            if matches!(name.len(), 40 | 64) && is_hex(name) =>
        {
            return waits(&text());
        }
        b"logs/refs/stash" => return waits("stash"),
        b"description" | b"COMMIT_EDITMSG" | b"ORIG_HEAD" | b"FETCH_HEAD" | b"AUTO_MERGE" | b"MERGE_RR"
        | b"gc.log" | b"gc.pid" | b"info/refs" | b"TAG_EDITMSG" | b"SQUASH_MSG" => return Fate::Ignored,
        _ => {}
    }
    match first {
        b"refs" => match RefName::parse(inner) {
            Some(name) => Fate::Reference(name),
            None => Fate::Held(NO_NAME),
        },
        b"logs" | b"rr-cache" => Fate::Ignored,
        b"lfs" => match large_file(inner) {
            Some(name) => Fate::Waits(format!("lfs/{name}")),
            None => Fate::Ignored,
        },
        b"objects" => object(&inner[b"objects/".len().min(inner.len())..]),
        // Git copies sample hooks into every new repository. It never runs a file with this extension.
        b"hooks" if inner.ends_with(b".sample") => Fate::Ignored,
        b"hooks" => Fate::Held("a hook of the sandbox is never taken over"),
        b"reftable" => Fate::Held(REFTABLE),
        b"info" => Fate::Held("info/ is not taken over"),
        b"modules" => Fate::Held("a submodule's repository is merged only where it is checked out"),
        b"worktrees" => Fate::Held("the worktrees of the sandbox are not those of this machine"),
        b"rebase-merge"
        | b"rebase-apply"
        | b"sequencer"
        | b"MERGE_HEAD"
        | b"MERGE_MSG"
        | b"MERGE_MODE"
        | b"MERGE_AUTOSTASH"
        | b"CHERRY_PICK_HEAD"
        | b"REVERT_HEAD"
        | b"REBASE_HEAD"
        | b"BISECT_LOG"
        | b"BISECT_START"
        | b"BISECT_RUN"
        | b"BISECT_NAMES"
        | b"BISECT_TERMS"
        | b"BISECT_EXPECTED_REV" => Fate::Held("an operation in progress does not come back"),
        _ => Fate::Held(EXECUTES),
    }
}

/// The digest of an LFS object, from its path.
fn large_file(inner: &[u8]) -> Option<String> {
    let mut parts = inner.strip_prefix(b"lfs/objects/")?.split(|&byte| byte == b'/');
    let (one, two, name) = (parts.next()?, parts.next()?, parts.next()?);
    let fits =
        name.len() == 64 && is_hex(name) && one == &name[..2] && two == &name[2..4] && parts.next().is_none();
    fits.then(|| String::from_utf8_lossy(name).into_owned())
}

fn object(name: &[u8]) -> Fate {
    let mut parts = name.splitn(2, |&byte| byte == b'/');
    let (folder, file) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let text = String::from_utf8_lossy(name).into_owned();
    if folder.len() == 2 && is_hex(folder) && matches!(file.len(), 38 | 62) && is_hex(file) {
        return Fate::Waits(format!("objects/{text}"));
    }
    if folder == b"pack" {
        let stem = file.strip_prefix(b"pack-").and_then(|rest| rest.strip_suffix(b".pack"));
        return if stem.is_some_and(|stem| matches!(stem.len(), 40 | 64) && is_hex(stem)) {
            Fate::Waits(format!("packs/{}", String::from_utf8_lossy(file)))
        } else {
            Fate::Ignored
        };
    }
    match name {
        b"info/alternates" | b"info/http-alternates" => Fate::Held("objects are never read from elsewhere"),
        // Caches, and incomplete files of a git process that was killed.
        _ => Fate::Ignored,
    }
}

/// Whether a file below a `.git` is ignored without reading it: git generates it, or its objects are all here already.
#[must_use]
pub fn is_passed_over(path: &RelativePath, known: &Bases) -> bool {
    let Some(inside) = inside(path) else { return false };
    if inside.name != DOT_GIT || inside.inner.is_empty() {
        return false;
    }
    match fate(inside.inner) {
        Fate::Ignored => true,
        Fate::Waits(name) => {
            let Some(base) = known.get(&dot_git(&inside)) else { return false };
            match (name.strip_prefix("packs/"), &base.place) {
                (Some(pack), _) => base.packs.contains_key(pack),
                // The name of an object determines its content. What an earlier restore brought is used, whatever is there now.
                (None, Some(place)) if name.starts_with("objects/") => {
                    by_path::exists(&place.common_dir.join(name))
                }
                _ => false,
            }
        }
        Fate::Reference(_) | Fate::Held(_) => false,
    }
}

/// Whether a path is that of a pack of a repository that was sent. Its name is that of its content.
#[must_use]
pub fn is_sent_pack(path: &RelativePath, known: &Bases) -> bool {
    let Some(inside) = inside(path).filter(|inside| inside.name == DOT_GIT) else { return false };
    let Some(pack) = inside.inner.strip_prefix(b"objects/pack/") else { return false };
    known.get(&dot_git(&inside)).is_some_and(|base| base.packs.keys().any(|name| name.as_bytes() == pack))
}

/// Why something below a `.git`, or a `.git` itself, stays as it is locally in the mode `files`. `is_folder`
/// tells whether it is a folder in the sandbox.
#[must_use]
pub fn is_held(path: &RelativePath, is_folder: bool) -> Option<&'static str> {
    let inside = inside(path)?;
    if inside.name != DOT_GIT {
        return Some(SPELLING);
    }
    if inside.inner.is_empty() {
        return (!is_folder).then_some(LEADS_ELSEWHERE);
    }
    if inside.inner.split(|&byte| byte == b'/').any(is_git_name) {
        return Some("a repository in a .git is not taken over");
    }
    // The folders of branches and tags are none themselves.
    let is_below =
        |folder: &[u8]| inside.inner.strip_prefix(folder).is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
    if is_folder && (inside.inner == b"refs" || is_below(b"refs/heads") || is_below(b"refs/tags")) {
        return None;
    }
    is_held_in_repository(inside.inner)
}

/// Why a file in a git directory of any name stays as it is locally, by its path in that directory.
#[must_use]
pub fn is_held_in_repository(inner: &[u8]) -> Option<&'static str> {
    match fate(inner) {
        Fate::Held(reason) => Some(reason),
        Fate::Waits(name) if name == "settings" => {
            Some("git obeys its own configuration; the local one stays as it is")
        }
        Fate::Waits(name) if name == "shallow" => Some("it would hide local history"),
        Fate::Ignored if inner == b"gc.pid" => Some(LOCK),
        // The merges that git repeats unasked.
        Fate::Ignored if is_in(inner, b"rr-cache") => Some(EXECUTES),
        Fate::Reference(name) if name.kind() == RefKind::Other => Some(ONLY_WORK),
        _ => None,
    }
}

impl Quarantine {
    /// The repositories that came, if none of them is to be merged, and what was held back of them.
    #[must_use]
    pub fn refuse_all(self) -> (Vec<RelativePath>, Vec<HeldBack>) {
        (self.repositories.into_keys().collect(), self.held_back.into_iter().collect())
    }

    /// Makes an empty quarantine in a private directory outside the workspace. `known` is what both sides last shared.
    pub fn new(folder: PathBuf, known: &Bases) -> Result<Self> {
        make_folders(&folder)?;
        let (repositories, held_back) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { folder, repositories, held_back, known: known.clone(), absorbed: BTreeMap::new() })
    }

    /// Takes in a file of the sandbox's that [is git's](super::recognise::is_gits). Files that are a `.git` themselves
    /// come first.
    pub fn file(&mut self, path: &RelativePath, content: &mut dyn Read) -> Result<()> {
        let moved_from = self.place_before(path);
        let path = moved_from.as_ref().unwrap_or(path);
        let Some(inside) = inside(path) else { return Ok(()) };
        if inside.name != DOT_GIT {
            self.hold(path, SPELLING);
            return Ok(());
        }
        if inside.inner.is_empty() {
            let mut text = Vec::new();
            content
                .take(REFERENCE_MAX)
                .read_to_end(&mut text)
                .map_err(|error| Error::io("read", path.as_path(), error))?;
            match self.module_of(path, &text) {
                Some(module) => {
                    self.received(path).is_absorbed = true;
                    self.absorbed.insert(module, path.clone());
                }
                None => self.hold(path, LEADS_ELSEWHERE),
            }
            return Ok(());
        }
        let dot_git = dot_git(&inside);
        let inner = inside.inner.to_vec();
        let known = self.known.get(&dot_git);
        // Every file that was sent has a UTF-8 name.
        let sent = std::str::from_utf8(&inner)
            .ok()
            .zip(known)
            .and_then(|(name, base)| base.files.get(name).copied());
        match fate(&inner) {
            Fate::Ignored => Ok(()),
            Fate::Held(reason) => {
                if sent.is_some() || inner == b"info/exclude" {
                    let mut text = Vec::new();
                    content
                        .take(TEXT_MAX)
                        .read_to_end(&mut text)
                        .map_err(|error| Error::io("read", path.as_path(), error))?;
                    let digest: [u8; 32] = Sha256::digest(&text).into();
                    // Git makes an `info/exclude` of comments alone in every new repository.
                    let is_empty =
                        || text.split(|&byte| byte == b'\n').all(|line| line.is_empty() || line[0] == b'#');
                    if sent == Some(digest) || (sent.is_none() && is_empty()) {
                        return Ok(());
                    }
                }
                if worktree_of(&inner).is_some() || AUTOSTASHES.contains(&&inner[..]) {
                    let mut text = Vec::new();
                    content
                        .take(REFERENCE_MAX)
                        .read_to_end(&mut text)
                        .map_err(|error| Error::io("read", path.as_path(), error))?;
                    let name = String::from_utf8_lossy(&inner).into_owned();
                    text.truncate(OID_MAX);
                    text.shrink_to_fit();
                    self.received(&dot_git).commits.insert(name, text);
                }
                if reason == REFTABLE {
                    self.received(&dot_git).reftable = true;
                } else if reason == WRONG_KIND {
                    self.received(&dot_git).unreadable.insert(&inner);
                }
                self.hold_inner(&dot_git, &inner, reason);
                Ok(())
            }
            Fate::Reference(name) => {
                let mut text = Vec::new();
                content
                    .take(REFERENCE_MAX)
                    .read_to_end(&mut text)
                    .map_err(|error| Error::io("read", path.as_path(), error))?;
                if sent.is_none_or(|sent| Sha256::digest(&text)[..] != sent) {
                    // Very many of them pack to little.
                    text.truncate(OID_MAX);
                    text.shrink_to_fit();
                    self.received(&dot_git).references.insert(name, text);
                }
                Ok(())
            }
            Fate::Waits(name) => {
                let pack = name.strip_prefix("packs/");
                let received = self.received(&dot_git);
                if let Some(pack) = pack {
                    received.new_packs.push(pack.to_owned());
                }
                received.loose |= name.starts_with("objects/");
                let target = received.folder.join(&name);
                let limit = if matches!(&name[..], "head" | "settings") { TEXT_MAX } else { u64::MAX };
                let digest = store(&target, content, limit)?;
                if let Some(file) = name.strip_prefix("lfs/") {
                    if crate::tree::entry::Digest(digest).to_string() == file {
                        received.large_files.insert(file.to_owned());
                    } else {
                        self.hold(path, "its content does not match its name");
                    }
                } else if name == "index" {
                    received.index_digest = Some(digest);
                }
                Ok(())
            }
        }
    }

    /// Where a repository that was sent is now, if its `.git` became a file as by `git submodule absorbgitdirs`: below
    /// `modules/` of another repository of the workspace. What is read there is checked like anything at its former place.
    fn module_of(&self, dot_git: &RelativePath, text: &[u8]) -> Option<RelativePath> {
        self.known.get(dot_git)?.place.as_ref()?;
        let target = text.strip_prefix(b"gitdir: ")?.trim_ascii_end();
        let folder = dot_git.parent();
        let mut names: Vec<&[u8]> = match &folder {
            Some(folder) => folder.as_bytes().split(|&byte| byte == b'/').collect(),
            None => Vec::new(),
        };
        for name in target.split(|&byte| byte == b'/') {
            match name {
                // An absolute path is one of the sandbox.
                b"" => return None,
                b"." => {}
                b".." => drop(names.pop()?),
                name => names.push(name),
            }
        }
        let module = RelativePath::parse(&names.join(&b'/')).ok()??;
        let inside = inside(&module)?;
        let is_module = inside.name == DOT_GIT && inside.inner.starts_with(b"modules/");
        (is_module && !self.absorbed.contains_key(&module)).then_some(module)
    }

    /// The path that a file of a moved repository had before.
    fn place_before(&self, path: &RelativePath) -> Option<RelativePath> {
        if self.absorbed.is_empty() {
            return None;
        }
        // The innermost one counts: the module of a nested submodule lies below that of the outer one.
        let above = path.ancestors().filter_map(|above| Some((self.absorbed.get(&above)?, above))).last();
        above.and_then(|(dot_git, module)| path.moved(&module, dot_git))
    }

    /// Notes a directory of the sandbox that belongs to git. It shows that there is a repository, and where references may be.
    pub fn folder(&mut self, path: &RelativePath) {
        let moved_from = self.place_before(path);
        let path = moved_from.as_ref().unwrap_or(path);
        let Some(inside) = inside(path) else { return };
        if inside.name != DOT_GIT {
            if inside.inner.is_empty() {
                self.hold(path, SPELLING);
            }
            return;
        }
        match inside.inner {
            b"" => {
                self.received(path);
            }
            b"HEAD" => self.hold(path, WRONG_KIND),
            PACKED_REFS => {
                self.received(&dot_git(&inside)).unreadable.insert(PACKED_REFS);
                self.hold(path, WRONG_KIND);
            }
            inner if is_in(inner, b"refs") => {
                self.received(&dot_git(&inside)).folders.insert(inner.to_vec());
            }
            _ => {}
        }
    }

    /// Notes a symbolic link, device or other special file of the sandbox that belongs to git.
    pub fn other(&mut self, path: &RelativePath) {
        let moved_from = self.place_before(path);
        let path = moved_from.as_ref().unwrap_or(path);
        let is_of_references = |inner: &[u8]| is_in(inner, b"refs") || inner == PACKED_REFS;
        if let Some(inside) = inside(path)
            && inside.name == DOT_GIT
            && is_of_references(inside.inner)
        {
            self.received(&dot_git(&inside)).unreadable.insert(inside.inner);
        }
        self.hold(path, "only files and directories of a repository are taken over");
    }

    /// Notes a path that is held back, such as a directory that is a bare repository.
    pub fn hold(&mut self, path: &RelativePath, reason: &str) {
        self.held_back.insert(HeldBack { path: path.clone(), what: None, reason: reason.to_owned() });
    }

    /// Notes a file below `.git` that is held back. For many files of one directory, the directory is named
    /// once.
    fn hold_inner(&mut self, dot_git: &RelativePath, inner: &[u8], reason: &str) {
        let first = inner.split(|&byte| byte == b'/').next().unwrap_or_default();
        let one_by_one = matches!(first, b"branches" | b"hooks" | b"info" | b"objects" | b"refs");
        let named = if one_by_one { inner } else { first };
        let named = RelativePath::parse(named).ok().flatten();
        self.hold(&named.map_or_else(|| dot_git.clone(), |named| dot_git.join(&named)), reason);
    }

    fn received(&mut self, dot_git: &RelativePath) -> &mut Received {
        let number = self.repositories.len();
        let folder = self.folder.join(number.to_string());
        self.repositories.entry(dot_git.clone()).or_insert_with(|| Received { folder, ..Received::default() })
    }
}

fn dot_git(inside: &super::recognise::Inside<'_>) -> RelativePath {
    let checkout = RelativePath::parse(inside.checkout).ok().flatten();
    RelativePath::child(checkout.as_ref(), inside.name)
}

/// Writes a file and returns its digest. A later file of the same name replaces an earlier one, as in an archive.
fn store(target: &Path, content: &mut dyn Read, limit: u64) -> Result<[u8; 32]> {
    if let Some(folder) = target.parent() {
        make_folders(folder)?;
    }
    let failed = |error| Error::io("write", target, error);
    let mut file = by_path::create(target)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut content = content.take(limit);
    loop {
        let read = content.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..read]);
        io::Write::write_all(&mut file, &buffer[..read]).map_err(failed)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_of_a_git_directory_has_its_fate() {
        let a40 = "a".repeat(40);
        for (inner, waits) in [
            ("HEAD".to_owned(), "head"),
            ("packed-refs".to_owned(), "packed-refs"),
            ("index".to_owned(), "index"),
            ("config".to_owned(), "settings"),
            ("shallow".to_owned(), "shallow"),
            ("logs/refs/stash".to_owned(), "stash"),
            (format!("objects/aa/{}", "a".repeat(38)), &format!("objects/aa/{}", "a".repeat(38))),
            (format!("objects/pack/pack-{a40}.pack"), &format!("packs/pack-{a40}.pack")),
        ] {
            assert_eq!(fate(inner.as_bytes()), Fate::Waits(waits.to_owned()), "{inner}");
        }
        for inner in [
            "logs/HEAD",
            "COMMIT_EDITMSG",
            "FETCH_HEAD",
            "objects/info/packs",
            "objects/info/commit-graph",
            "description",
            "objects/pack/pack-aa.idx",
            "objects/pack/tmp_pack_x",
            "objects/pack/multi-pack-index",
            "objects/pack/pack-x.pack",
            "lfs/tmp/x",
        ] {
            assert_eq!(fate(inner.as_bytes()), Fate::Ignored, "{inner}");
        }
        // Objects whose names do not have the form.
        let (a38, a62) = ("a".repeat(38), "a".repeat(62));
        for inner in [
            format!("objects/xx/{a38}"),
            format!("objects/aa/{}", &a38[1..]),
            format!("objects/aa/{}x", &a38[1..]),
            format!("objects/aa/{}/x", &a38[2..]),
            format!("lfs/objects/aa/aa/aa{}xx", &a62[2..]),
            format!("lfs/objects/aa/bb/aa{a62}"),
            format!("lfs/objects/bb/aa/aa{a62}"),
            format!("lfs/objects/aa/aa/aa{a62}/x"),
        ] {
            assert_eq!(fate(inner.as_bytes()), Fate::Ignored, "{inner}");
        }
        for inner in [
            "config.worktree",
            "hooks/pre-commit",
            "hooks/any",
            "info/attributes",
            "info/exclude",
            "info/grafts",
            "commondir",
            "gitdir",
            "objects/info/alternates",
            "objects/info/http-alternates",
            "worktrees/x/HEAD",
            "modules/x/config",
            "index.lock",
            "refs/heads/x.lock",
            "rebase-merge/git-rebase-todo",
            "MERGE_HEAD",
            "sequencer/todo",
            "anything",
            "sharedindex.x",
            "remotes/origin",
            "refs/heads/../x",
        ] {
            assert!(matches!(fate(inner.as_bytes()), Fate::Held(_)), "{inner}");
        }
    }

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn what_git_runs_or_obeys_is_held_among_files_too() {
        for (text, is_folder, held) in [
            (".git", true, false),
            (".git", false, true),
            (".GIT", true, true),
            (".GIT/index", false, true),
            (".git/config", false, true),
            (".git/hooks/x", false, true),
            (".git/refs/heads/main", false, false),
            (".git/refs/stash", false, false),
            (".git/refs/replace/x", false, true),
            (".git/refs/remotes/origin/main", false, true),
            (".git/index", false, false),
            ("a.txt", false, false),
        ] {
            assert_eq!(is_held(&path(text), is_folder).is_some(), held, "{text}");
        }
    }

    #[test]
    fn what_is_reported_is_not_passed_over() {
        for (text, passed) in [
            (".git/logs/HEAD", true),
            (".git/COMMIT_EDITMSG", true),
            (".GIT/logs/HEAD", false),
            (".git", false),
            (".git/hooks/x", false),
            (".git/index", false),
            ("a.txt", false),
        ] {
            assert_eq!(is_passed_over(&path(text), &Bases::new()), passed, "{text}");
        }
    }

    /// A file without an end.
    struct Endless(u64);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += buffer.len() as u64;
            assert!(self.0 < 100 * TEXT_MAX, "it is read without end");
            buffer.fill(b'a');
            Ok(buffer.len())
        }
    }

    #[test]
    fn only_the_beginning_is_read_of_head_settings_and_references() {
        let folder = tempfile::tempdir().unwrap();
        let mut quarantine = Quarantine::new(folder.path().join("arrived"), &Bases::new()).unwrap();
        for name in ["HEAD", "config", "info/exclude", "refs/heads/main"] {
            quarantine.file(&path(&format!(".git/{name}")), &mut Endless(0)).unwrap();
        }
        let received = &quarantine.repositories[&path(".git")];
        let longest = received.references.values().map(Vec::len).max();
        assert_eq!(longest, Some(OID_MAX));
        assert_eq!(std::fs::metadata(received.folder.join("head")).unwrap().len(), TEXT_MAX);
    }
}
