//! A folder in the workspace's `.paperclip-runtime` where new content waits, complete, for its rename.
//!
//! It lies on the workspace's own file system, so that one rename puts a file in its place. It is locked as long as
//! its process lives; what a killed process left behind is found by that (see [`Stage::abandoned`]).

use std::ffi::OsStr;
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::entry::PERMISSIONS;
use super::scan::scan;
use crate::cancel::Cancel;
use crate::error::{Error, Obstacle, Result, readable};
use crate::fs::{
    Cursor, File, Hold, Kind, Meta, Onto, Renamed, Root, Sharing, rename, set_file_mode, try_lock,
};
use crate::path::{RelativePath, bytes_of};

/// The workspace's folder that belongs to this package; neither uploaded nor downloaded.
pub const RUNTIME: &str = ".paperclip-runtime";

/// The path of [`RUNTIME`].
#[must_use]
pub fn runtime() -> RelativePath {
    RelativePath::child(None, RUNTIME.as_bytes())
}

/// Unicode's default-ignorable characters.
fn is_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// A name as file systems may take it that do not tell upper from lower case, or pass over characters that are not seen:
/// names that differ here are not one there, as far as they are ASCII.
#[must_use]
pub fn folded_name(name: &[u8]) -> String {
    let mut text = readable(name);
    if !text.is_ascii() {
        text = text.replace(is_ignorable, "");
    }
    text.make_ascii_lowercase();
    text
}

/// What follows [`RUNTIME`] in the name of a folder that is about to become it, or was it a moment ago.
const DRAFT: &str = ".new-";

/// Whether a path is [`RUNTIME`] (or a draft of it) or lies in it, also where a file system does not tell upper from
/// lower case, or passes over characters that are not seen.
#[must_use]
pub fn is_in_runtime(path: &RelativePath) -> bool {
    let name = path.top();
    let is_ours = |name: &[u8]| {
        name.split_at_checked(RUNTIME.len()).is_some_and(|(name, rest)| {
            let is_draft =
                || rest.get(..DRAFT.len()).is_some_and(|rest| rest.eq_ignore_ascii_case(DRAFT.as_bytes()));
            name.eq_ignore_ascii_case(RUNTIME.as_bytes()) && (rest.is_empty() || is_draft())
        })
    };
    if name.len() < RUNTIME.len() || name.is_ascii() {
        return is_ours(name);
    }
    std::str::from_utf8(name).is_ok_and(|name| is_ours(name.replace(is_ignorable, "").as_bytes()))
}

/// The file by which git leaves the runtime folder alone.
const IGNORE: &str = ".gitignore";

/// What is in it.
const IGNORE_ALL: &[u8] = b"*\n";

/// How long the runtime folder may be locked by a process that removes it, in milliseconds. That takes a moment; one
/// that was stopped in the middle of it must not stop us.
const REMOVAL_MS: u32 = 1000;

/// The workspace's runtime folder, made where it was missing. It has its `.gitignore` from the moment that it exists,
/// and nobody removes it while this is held.
///
/// A stage that a kill leaves may hold the only copy of an edit, which neither `git clean` nor `git add` may take.
#[derive(Debug)]
pub struct RuntimeFolder {
    /// The lock goes with the handle.
    _locked: Root,
}

impl RuntimeFolder {
    /// Opens it. A link in its place is never followed.
    pub fn open(workspace: &Root) -> Result<Self> {
        let path = runtime();
        let mut waited_ms = 0;
        loop {
            let mut cursor = workspace.cursor();
            match cursor.stat(&path)? {
                None => make_runtime(&mut cursor)?,
                Some(meta) if meta.kind == Kind::Folder => {}
                Some(_) => return Err(must_be(&cursor, &path, "folder", "work in progress is kept there")),
            }
            let folder = match workspace.below(&path) {
                Err(error) if error.is_gone() => continue,
                folder => folder?,
            };
            if try_lock(&folder, Sharing::Shared)? == Hold::Taken && waited_ms < REMOVAL_MS {
                thread::sleep(Duration::from_millis(1));
                waited_ms += 1;
                continue;
            }
            let meta = folder.meta()?;
            if !workspace.cursor().stat(&path)?.is_some_and(|now| now.is_same_inode(&meta)) {
                continue;
            }
            match keep_out_of_git(workspace) {
                Err(error) if error.is_gone() => {}
                done => return done.map(|()| Self { _locked: folder }),
            }
        }
    }
}

/// Brings the folder to its path with the `.gitignore` in it. What stands there by then stays, unless it is an empty
/// folder.
fn make_runtime(cursor: &mut Cursor<'_>) -> Result<()> {
    let Some(draft) = make_draft(cursor)? else { return Ok(()) };
    let (mut from, mut to) = (cursor.another(), cursor.another());
    let renamed = rename((&mut from, &draft), (&mut to, &runtime()), Onto::Replace);
    if !matches!(renamed, Ok(Renamed::Done)) {
        remove_draft(cursor, &draft)?;
    }
    renamed.map(|_| ())
}

/// Sees to it that the runtime folder has a `.gitignore` that says something. One that somebody wrote stays as it is.
fn keep_out_of_git(workspace: &Root) -> Result<()> {
    let mut cursor = workspace.cursor();
    let path = RelativePath::child(Some(&runtime()), IGNORE.as_bytes());
    match cursor.stat(&path)? {
        Some(meta) if meta.kind == Kind::Folder => {
            return Err(must_be(&cursor, &path, "file", "it keeps work in progress out of git"));
        }
        // Git follows no link there, so one says nothing.
        Some(meta) if meta.kind == Kind::File && !says_nothing(&mut cursor, &path)? => return Ok(()),
        _ => {}
    }
    let Some(draft) = make_draft(&mut cursor)? else { return keep_out_of_git(workspace) };
    let ignore = RelativePath::child(Some(&draft), IGNORE.as_bytes());
    let replaced = rename((&mut cursor.another(), &ignore), (&mut cursor.another(), &path), Onto::Replace);
    remove_draft(&mut cursor, &draft)?;
    match replaced? {
        Renamed::Done => Ok(()),
        // Somebody was there in between.
        _ => keep_out_of_git(workspace),
    }
}

/// Whether a `.gitignore` is empty: a full disk, or a crash of the machine, left it so.
fn says_nothing(cursor: &mut Cursor<'_>, ignore: &RelativePath) -> Result<bool> {
    let Some((file, _)) = cursor.open(ignore)? else { return Ok(true) };
    let mut text = Vec::new();
    file.take(4096)
        .read_to_end(&mut text)
        .map_err(|error| Error::io("read", cursor.path_of(ignore), error))?;
    Ok(text.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()))
}

/// Makes a folder with a name of its own that has the `.gitignore` in it. Nothing where another process took it for one
/// that was left behind.
fn make_draft(cursor: &mut Cursor<'_>) -> Result<Option<RelativePath>> {
    let draft = loop {
        let draft = draft_name();
        if cursor.make_folder(&draft, 0o755)? {
            break draft;
        }
    };
    let ignore = RelativePath::child(Some(&draft), IGNORE.as_bytes());
    let written = cursor.create(&ignore, 0o644).and_then(|mut file| {
        file.write_all(IGNORE_ALL).map_err(|error| Error::io("write", cursor.path_of(&ignore), error))
    });
    match written {
        Ok(()) => Ok(Some(draft)),
        Err(error) => {
            remove_draft(cursor, &draft)?;
            if error.is_gone() { Ok(None) } else { Err(error) }
        }
    }
}

fn draft_name() -> RelativePath {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    RelativePath::child(None, format!("{RUNTIME}{DRAFT}{:x}-{serial:x}", std::process::id()).as_bytes())
}

/// Removes a draft, if there is nothing in it but the `.gitignore`.
fn remove_draft(cursor: &mut Cursor<'_>, draft: &RelativePath) -> Result<()> {
    let names = cursor.list(Some(draft))?.unwrap_or_default();
    if names.iter().all(|name| **name == *IGNORE.as_bytes()) {
        cursor.remove_file(&RelativePath::child(Some(draft), IGNORE.as_bytes()))?;
        cursor.remove_empty_folder(draft)?;
    }
    Ok(())
}

/// Removes the drafts that killed processes left. A process that is at work on one makes another.
fn remove_drafts(workspace: &Root) -> Result<()> {
    let mut cursor = workspace.cursor();
    let prefix = format!("{RUNTIME}{DRAFT}");
    for name in cursor.list(None)?.unwrap_or_default() {
        if name.starts_with(prefix.as_bytes()) {
            // Another user's stays: nothing is in it, and it is no reason not to go on.
            let _stays = remove_draft(&mut cursor, &RelativePath::child(None, &name));
        }
    }
    Ok(())
}

/// Removes the runtime folder if nothing is in it but our `.gitignore`, and nobody is about to put something in. Where
/// a file system knows no locks, nobody can tell, and it stays.
pub fn remove_unused_runtime(workspace: &Root) -> Result<()> {
    let path = runtime();
    // Another process that found it locked by us leaves it to us: so we look again.
    while is_unused(&mut workspace.cursor())? {
        let folder = match workspace.below(&path) {
            Err(error) if error.is_gone() => return Ok(()),
            folder => folder?,
        };
        if try_lock(&folder, Sharing::Alone)? != Hold::Ours {
            return Ok(());
        }
        let mut cursor = workspace.cursor();
        let meta = folder.meta()?;
        if cursor.stat(&path)?.is_some_and(|now| now.is_same_inode(&meta)) && is_unused(&mut cursor)? {
            // In one step, so that it is nowhere without its `.gitignore`.
            let draft = draft_name();
            rename((&mut cursor.another(), &path), (&mut cursor.another(), &draft), Onto::Replace)?;
            return remove_draft(&mut cursor, &draft);
        }
    }
    Ok(())
}

/// Whether the runtime folder is there with nothing in it but our `.gitignore`.
fn is_unused(cursor: &mut Cursor<'_>) -> Result<bool> {
    let Some(names) = cursor.list(Some(&runtime()))? else { return Ok(false) };
    if names.iter().any(|name| **name != *IGNORE.as_bytes()) {
        return Ok(false);
    }
    let ignore = RelativePath::child(Some(&runtime()), IGNORE.as_bytes());
    let Some((file, _)) = cursor.open(&ignore)? else { return Ok(names.is_empty()) };
    let mut text = Vec::new();
    file.take(IGNORE_ALL.len() as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|error| Error::io("read", cursor.path_of(&ignore), error))?;
    Ok(text.is_empty() || text == IGNORE_ALL)
}

fn must_be(cursor: &Cursor<'_>, path: &RelativePath, what: &str, since: &str) -> Error {
    Error::UnsafePath {
        path: readable(bytes_of(&cursor.path_of(path))),
        offset: None,
        reason: format!("it must be a {what} and nothing else, since {since}; move it away and try again"),
    }
}

/// How the name of a workspace's lock folder ends.
const LOCK_SUFFIX: &str = ".paperclip-restore.lock";

/// Whether a path is a workspace's lock, as of a workspace in this one, or lies in it, by any name that some file system
/// takes for it. Such a path neither goes nor comes: a lock names a process of this machine.
#[must_use]
pub fn is_lock_name(path: &RelativePath) -> bool {
    let is_lock = |name: &[u8]| {
        let ends = |name: &[u8]| {
            name.len()
                .checked_sub(LOCK_SUFFIX.len())
                .is_some_and(|start| name[start..].eq_ignore_ascii_case(LOCK_SUFFIX.as_bytes()))
        };
        ends(name)
            || (!name.is_ascii()
                && std::str::from_utf8(name)
                    .is_ok_and(|name| ends(name.replace(is_ignorable, "").as_bytes())))
    };
    path.as_bytes().split(|&byte| byte == b'/').any(is_lock)
}

/// How a stage folder's name begins.
const PREFIX: &str = "stage-";

/// A file that is in a stage from the first until its journal is whole. While it is there, nothing was displaced, and
/// nothing in the stage is anybody's work.
const UNBEGUN: &str = "unbegun";

/// How many folders a stage is spread over at most: names in one are made and removed one after the other.
const SHARES: usize = 16;

/// A locked stage folder. [`Stage::close`] removes it with all that is left in it.
#[derive(Debug)]
pub struct Stage {
    root: Root,
    path: RelativePath,
    /// One folder for each thread that works in it.
    shares: Vec<RelativePath>,
    /// The permission bits that a new file gets when it asks for all.
    allowed: u32,
    next: AtomicU64,
}

impl Stage {
    /// Makes a stage folder in a workspace.
    pub fn open(workspace: &Root) -> Result<Self> {
        let opened = Self::open_in_runtime(workspace);
        if opened.is_err() {
            // That failure is the one to report, and the folder is harmless.
            let _left = remove_unused_runtime(workspace);
        }
        opened
    }

    fn open_in_runtime(workspace: &Root) -> Result<Self> {
        let mut cursor = workspace.cursor();
        let runtime = runtime();
        let mut in_place = RuntimeFolder::open(workspace)?;
        loop {
            static SERIAL: AtomicU64 = AtomicU64::new(0);
            let attempt = (u64::from(std::process::id()) << 32) + SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = RelativePath::child(Some(&runtime), format!("{PREFIX}{attempt:x}").as_bytes());
            let made = match cursor.make_folder(&path, 0o700) {
                // Somebody removed the folder around it by hand.
                Err(error) if error.is_gone() => {
                    in_place = RuntimeFolder::open(workspace)?;
                    cursor = workspace.cursor();
                    false
                }
                made => made?,
            };
            if made {
                let root = match workspace.below(&path) {
                    Ok(root) => root,
                    // As below.
                    Err(error) if error.is_gone() => continue,
                    Err(error) => return Err(error),
                };
                let stage = Self::prepare(root, path.clone(), &mut cursor);
                match stage {
                    Ok(Some(stage)) => {
                        drop(in_place);
                        return Ok(stage);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        // That failure is the one to report, and nobody's work is in the folder yet.
                        let _left = remove_tree(workspace, &path);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Locks a new stage folder and makes what is in every stage. Nothing where it was taken for abandoned, and removed,
    /// before it was locked.
    fn prepare(root: Root, path: RelativePath, cursor: &mut Cursor<'_>) -> Result<Option<Self>> {
        if lock_at(&root, cursor, &path)? == Hold::Taken {
            return Ok(None);
        }
        let allowed = mark_unbegun(&root)?;
        let shares = make_shares(&root)?;
        Ok(Some(Self { root, path, shares, allowed, next: AtomicU64::new(0) }))
    }

    /// Notes that the journal is whole, and that local versions may be displaced into the stage from now on.
    pub fn begin(&self) -> Result<()> {
        self.cursor().remove_file(&RelativePath::child(None, UNBEGUN.as_bytes())).map(|_| ())
    }

    /// The stages that dead processes left in a workspace: those that nobody holds locked. Where a file system knows no
    /// locks, nobody can tell, and they stay.
    pub fn abandoned(workspace: &Root) -> Result<Vec<Abandoned>> {
        remove_drafts(workspace)?;
        let runtime = runtime();
        let mut abandoned = Vec::new();
        let mut cursor = workspace.cursor();
        let names = cursor.list(Some(&runtime))?.unwrap_or_default();
        for name in names.into_iter().filter(|name| name.starts_with(PREFIX.as_bytes())) {
            let path = RelativePath::child(Some(&runtime), &name);
            let root = match workspace.below(&path) {
                Ok(root) => root,
                // Its owner removed it meanwhile, or it is no folder and so no stage. Or it is another user's.
                Err(error) if error.is_gone() || error.is_io(ErrorKind::PermissionDenied) => continue,
                Err(error) => return Err(error),
            };
            if lock_at(&root, &mut cursor, &path)? == Hold::Ours {
                abandoned.push(Abandoned { root, path });
            }
        }
        Ok(abandoned)
    }

    /// A place from which to work in the stage folder.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_> {
        self.root.cursor()
    }

    /// A name that nothing in the stage has, in this thread's share of it.
    #[must_use]
    pub fn name(&self) -> RelativePath {
        let share = rayon::current_thread_index().unwrap_or(0) % self.shares.len();
        RelativePath::child(Some(&self.shares[share]), self.number().to_string().as_bytes())
    }

    /// A name to work by in a folder that lies on another file system than the stage.
    #[must_use]
    pub fn name_elsewhere(&self) -> String {
        format!("{}{}", elsewhere(&self.path), self.number())
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A new file with exactly those permission bits, and its name in the stage.
    pub fn file(&self, cursor: &mut Cursor<'_>, mode: u32) -> Result<(RelativePath, File)> {
        let name = self.name();
        let mode = mode & PERMISSIONS;
        let file = cursor.create(&name, mode)?;
        // The umask has no say in what was agreed with the other side.
        if mode & !self.allowed != 0 {
            set_file_mode(&file, mode).map_err(|error| Error::io("fchmod", cursor.path_of(&name), error))?;
        }
        Ok((name, file))
    }

    /// Leaves it as a killed process would, for what is in it to be rescued.
    #[must_use]
    pub fn abandon(self) -> Abandoned {
        Abandoned { root: self.root, path: self.path }
    }

    /// Removes the stage with all that is left in it, and the folder around it where that is empty then.
    pub fn close(self, workspace: &Root) -> Result<()> {
        remove_stage(workspace, &self.path)
    }
}

/// Locks an open stage folder for us alone, if it is still the one at its path. It may have been removed before it was
/// locked, and a process with the same id, in another container, may have made a stage of its own under that name: that
/// one is as if another had the lock.
fn lock_at(folder: &Root, cursor: &mut Cursor<'_>, path: &RelativePath) -> Result<Hold> {
    let hold = try_lock(folder, Sharing::Alone)?;
    let meta = folder.meta()?;
    let is_there = cursor.stat(path)?.is_some_and(|now| now.is_same_inode(&meta));
    Ok(if is_there { hold } else { Hold::Taken })
}

/// Makes the mark that nothing is displaced yet, and tells what the umask, or the folder's default ACL, leaves of a new
/// file's permission bits.
fn mark_unbegun(stage: &Root) -> Result<u32> {
    let mut cursor = stage.cursor();
    let mark = RelativePath::child(None, UNBEGUN.as_bytes());
    let file = cursor.create(&mark, PERMISSIONS)?;
    let meta = Meta::of_file(&file).map_err(|error| Error::io("fstat", cursor.path_of(&mark), error))?;
    Ok(meta.mode & PERMISSIONS)
}

/// A stage whose process died, locked by us now.
#[derive(Debug)]
pub struct Abandoned {
    root: Root,
    path: RelativePath,
}

impl Abandoned {
    /// A place from which to look into it.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_> {
        self.root.cursor()
    }

    /// Where it stands in the workspace.
    #[must_use]
    pub fn path(&self) -> &RelativePath {
        &self.path
    }

    /// Whether its process may have displaced something before it died.
    pub fn had_begun(&self) -> Result<bool> {
        Ok(self.cursor().stat(&RelativePath::child(None, UNBEGUN.as_bytes()))?.is_none())
    }

    /// Whether it has no file, and so nobody's work.
    pub fn holds_nothing(&self) -> Result<bool> {
        let found = scan(&self.root, &|_| false, &Cancel::default())?;
        Ok(found.iter().all(|found| found.meta.kind == Kind::Folder))
    }

    /// Whether it has made a name such as [`Stage::name_elsewhere`] gives.
    #[must_use]
    pub fn has_named(&self, name: &OsStr) -> bool {
        name.as_encoded_bytes().starts_with(elsewhere(&self.path).as_bytes())
    }

    /// Removes it with all that is in it, and the folder around it where that is empty then.
    pub fn remove(self, workspace: &Root) -> Result<()> {
        remove_stage(workspace, &self.path)
    }
}

/// How a stage's names elsewhere begin: with its own, so that nobody else has them.
fn elsewhere(stage: &RelativePath) -> String {
    format!(".paperclip-{}-", stage.name().display())
}

fn make_shares(stage: &Root) -> Result<Vec<RelativePath>> {
    let mut cursor = stage.cursor();
    (0..rayon::current_num_threads().min(SHARES))
        .map(|share| {
            let share = RelativePath::child(None, format!("{share:x}").as_bytes());
            cursor.make_folder(&share, 0o700)?;
            Ok(share)
        })
        .collect()
}

/// The last one to go takes the runtime folder along, whoever made it.
fn remove_stage(workspace: &Root, stage: &RelativePath) -> Result<()> {
    remove_tree(workspace, stage)?;
    remove_unused_runtime(workspace)
}

/// Removes whatever stands at a path, and a folder with all that is in it.
pub fn remove_tree(root: &Root, path: &RelativePath) -> Result<()> {
    let mut cursor = root.cursor();
    match cursor.stat(path)? {
        None => return Ok(()),
        Some(meta) if meta.kind != Kind::Folder => return cursor.remove_file(path).map(|_| ()),
        Some(_) => {}
    }
    let folder = root.below(path)?;
    let mut inner = folder.cursor();
    for found in scan(&folder, &|_| false, &Cancel::default())?.iter().rev() {
        if found.meta.kind == Kind::Folder {
            inner.remove_empty_folder(&found.path)?;
        } else {
            inner.remove_file(&found.path)?;
        }
    }
    if !cursor.remove_empty_folder(path)? && cursor.is_mount_point(path)? {
        return Err(Obstacle::MountPoint.at("rmdir", root.path_of(path)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn the_runtime_folder_by_any_name_that_some_file_system_takes_for_it() {
        for (name, is_runtime) in [
            (".paperclip-runtime", true),
            (".paperclip-runtime/stage-1/journal", true),
            (".Paperclip-RUNTIME/x", true),
            (".paper\u{200d}clip-runtime\u{feff}/x", true),
            (".PAPERCLIP\u{200c}-runtime", true),
            (".paperclip-run\u{ad}time\u{e0001}", true),
            (".paperclip-runtime2", false),
            (".paperclip-runtim\u{e9}", false),
            (".paperclip-runtim", false),
            (".paperclip-runtime.new-1f-0/.gitignore", true),
            (".Paperclip-runtime.NEW-1\u{200d}", true),
            (".paperclip-runtime.new", false),
            (".paperclip-runtime-new-", false),
            ("a/.paperclip-runtime", false),
        ] {
            let path = RelativePath::parse(name.as_bytes()).unwrap().unwrap();
            assert_eq!(is_in_runtime(&path), is_runtime, "{name:?}");
        }
        let path = RelativePath::parse(b".paperclip-runtime\xff").unwrap().unwrap();
        assert!(!is_in_runtime(&path));
    }

    #[test]
    fn a_lock_by_any_name_that_some_file_system_takes_for_it() {
        for (name, is_lock) in [
            ("ws.paperclip-restore.lock", true),
            (".paperclip-restore.lock", true),
            ("a/ws.paperclip-restore.lock/owner.json", true),
            ("a/WS.Paperclip-RESTORE.lock/x/y", true),
            ("ws.paper\u{200d}clip-restore.lock", true),
            ("caf\u{e9}.paperclip-restore.lock", true),
            ("ws.paperclip-restore.lock2", false),
            ("paperclip-restore.lock", false),
            ("restore.lock", false),
        ] {
            let path = RelativePath::parse(name.as_bytes()).unwrap().unwrap();
            assert_eq!(is_lock_name(&path), is_lock, "{name:?}");
        }
        let path = RelativePath::parse(b"\xff.paperclip-restore.lock").unwrap().unwrap();
        assert!(is_lock_name(&path));
    }

    #[test]
    fn the_last_stage_takes_the_runtime_folder_along() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Root::open(folder.path()).unwrap();
        let (first, second) = (Stage::open(&workspace).unwrap(), Stage::open(&workspace).unwrap());
        first.close(&workspace).unwrap();
        assert!(folder.path().join(RUNTIME).exists(), "another merge is at work in it");
        second.close(&workspace).unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_runtime_folder_stays_where_something_of_the_users_is_in_it() {
        for (name, content) in [(".gitignore", "conflicts/\n"), ("note", "")] {
            let folder = tempfile::tempdir().unwrap();
            let workspace = Root::open(folder.path()).unwrap();
            let stage = Stage::open(&workspace).unwrap();
            fs::write(folder.path().join(RUNTIME).join(name), content).unwrap();
            stage.close(&workspace).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join(RUNTIME).join(name)).unwrap(), content);
        }
    }

    #[test]
    fn the_runtime_folder_stays_while_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Root::open(folder.path()).unwrap();
        let held = RuntimeFolder::open(&workspace).unwrap();
        Stage::open(&workspace).unwrap().close(&workspace).unwrap();
        assert_eq!(names(folder.path()), [RUNTIME]);
        drop(held);
        remove_unused_runtime(&workspace).unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn whatever_was_there_the_runtime_folder_has_a_gitignore_that_says_something() {
        let ignore = |folder: &Path| folder.join(RUNTIME).join(IGNORE);
        for (what, before, after) in [
            ("none", None, IGNORE_ALL),
            ("empty", Some(&b""[..]), IGNORE_ALL),
            ("zeroed", Some(b"\0\0"), IGNORE_ALL),
            ("blank", Some(b" \n\n"), IGNORE_ALL),
            ("ours", Some(IGNORE_ALL), IGNORE_ALL),
            ("the user's", Some(b"mine"), b"mine"),
            ("a link", Some(b"->"), IGNORE_ALL),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join(RUNTIME)).unwrap();
            match before {
                Some(b"->") => symlink("nowhere", ignore(folder.path())).unwrap(),
                Some(before) => fs::write(ignore(folder.path()), before).unwrap(),
                None => {}
            }
            let workspace = Root::open(folder.path()).unwrap();
            let stage = Stage::open(&workspace).unwrap();
            assert!(!ignore(folder.path()).is_symlink(), "{what}");
            assert_eq!(fs::read(ignore(folder.path())).unwrap(), after, "{what}");
            assert_eq!(names(folder.path()), [RUNTIME], "{what}: no draft is left");
            stage.close(&workspace).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(ignore(folder.path())).unwrap();
        let error = Stage::open(&Root::open(folder.path()).unwrap()).unwrap_err();
        assert!(error.to_string().contains(".gitignore"), "{error}");
    }

    #[test]
    fn drafts_of_killed_processes_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Root::open(folder.path()).unwrap();
        for (name, file) in [
            (".paperclip-runtime.new-1-0", None),
            (".paperclip-runtime.new-1-1", Some(IGNORE)),
            (".paperclip-runtime.new-mine", Some("work")),
            (".paperclip-runtime.newer", Some(IGNORE)),
        ] {
            fs::create_dir(folder.path().join(name)).unwrap();
            if let Some(file) = file {
                fs::write(folder.path().join(name).join(file), "").unwrap();
            }
        }
        assert!(Stage::abandoned(&workspace).unwrap().is_empty());
        assert_eq!(names(folder.path()), [".paperclip-runtime.new-mine", ".paperclip-runtime.newer"]);
    }

    #[test]
    fn a_stage_under_the_name_of_one_that_is_gone_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Root::open(folder.path()).unwrap();
        let _in_place = RuntimeFolder::open(&workspace).unwrap();
        let path = RelativePath::child(Some(&runtime()), b"stage-1");
        let place = folder.path().join(path.as_path());
        fs::create_dir(&place).unwrap();
        let gone = || {
            let gone = workspace.below(&path).unwrap();
            fs::remove_dir(&place).unwrap();
            gone
        };
        let mut cursor = workspace.cursor();
        assert_eq!(lock_at(&gone(), &mut cursor, &path).unwrap(), Hold::Taken, "nothing is there");
        fs::create_dir(&place).unwrap();
        let old = gone();
        fs::create_dir(&place).unwrap();
        assert_eq!(lock_at(&old, &mut cursor, &path).unwrap(), Hold::Taken, "another is there");
        assert!(Stage::prepare(old, path.clone(), &mut cursor).unwrap().is_none());
        assert!(fs::read_dir(&place).unwrap().next().is_none());
        let new = workspace.below(&path).unwrap();
        assert_eq!(lock_at(&new, &mut cursor, &path).unwrap(), Hold::Ours);
    }

    /// Whoever looks sees no runtime folder, or one with its `.gitignore`.
    #[test]
    fn among_many_stages_the_gitignore_is_there_from_the_first_moment() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Root::open(folder.path()).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut seen = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    // The names of one folder are read by one handle, wherever it is moved meanwhile.
                    let Ok(runtime) = workspace.below(&runtime()) else { continue };
                    let names = runtime.cursor().list(None).unwrap().unwrap_or_default();
                    if names.iter().any(|name| name.starts_with(PREFIX.as_bytes())) {
                        seen += 1;
                        assert!(names.iter().any(|name| **name == *IGNORE.as_bytes()), "{names:?}");
                    }
                }
                seen
            });
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..50 {
                            Stage::open(&workspace).unwrap().close(&workspace).unwrap();
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(watcher.join().unwrap() > 0);
        });
        assert_eq!(names(folder.path()), Vec::<String>::new(), "the last one took the folder along");
    }
}
