//! The stage: a folder in the workspace's `.paperclip-runtime` that holds complete new content until it is
//! renamed into place.
//!
//! It is on the workspace's file system, so one rename puts a file in its place. It is locked as long as its
//! process lives, which is how the stage of a killed process is recognized (see [`Stage::abandoned`]).

use std::ffi::OsStr;
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::entry::PERMISSIONS;
use super::filter::Filter;
use super::scan::scan;
use crate::cancel::Cancel;
use crate::error::{Error, Obstacle, Result, readable};
use crate::fs::{
    Cursor, File, Hold, Kind, Meta, Onto, Renamed, Root, Sharing, rename, set_file_mode, try_lock,
};
use crate::path::{RelativePath, bytes_of};

/// This package's folder in the workspace. It is neither uploaded nor downloaded.
pub const RUNTIME: &str = ".paperclip-runtime";

/// The path of [`RUNTIME`].
#[must_use]
pub fn runtime() -> RelativePath {
    RelativePath::child(None, RUNTIME.as_bytes())
}

/// Whether a character is one of Unicode's default-ignorable ones.
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

/// A name as a file system may see it that ignores case and invisible characters. Two ASCII names are one to
/// such a file system only if this makes them equal.
#[must_use]
pub fn folded_name(name: &[u8]) -> String {
    let mut text = readable(name);
    if !text.is_ascii() {
        text = text.replace(is_ignorable, "");
    }
    text.make_ascii_lowercase();
    text
}

/// What follows [`RUNTIME`] in the name of a folder that is about to become the runtime folder, or was it a
/// moment ago.
const DRAFT: &str = ".new-";

/// Whether a path is [`RUNTIME`] or a draft of it, or is in one, in any spelling that some file system takes
/// for it.
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

/// The file that makes git ignore the runtime folder.
const IGNORE: &str = ".gitignore";

/// Its content.
const IGNORE_ALL: &[u8] = b"*\n";

/// How long to wait for a process that has locked the runtime folder to remove it, in milliseconds. Removal
/// takes a moment, but that process may have been stopped in the middle of it.
const REMOVAL_MS: u32 = 1000;

/// The workspace's runtime folder, made if it was missing. Nobody removes it while this value exists.
///
/// It has its `.gitignore` from the moment that it exists, because a stage that a killed process left may
/// hold the only copy of an edit, which neither `git clean` nor `git add` may take.
#[derive(Debug)]
pub struct RuntimeFolder {
    /// The lock lasts as long as this handle.
    _locked: Root,
}

impl RuntimeFolder {
    /// Opens or makes the folder. A link in its place is never followed.
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
            match ensure_gitignore(workspace) {
                Err(error) if error.is_gone() => {}
                done => return done.map(|()| Self { _locked: folder }),
            }
        }
    }
}

/// Moves a draft with the `.gitignore` to the folder's path. What is there by then stays, unless it is an
/// empty folder.
fn make_runtime(cursor: &mut Cursor<'_>) -> Result<()> {
    let Some(draft) = make_draft(cursor)? else { return Ok(()) };
    let (mut from, mut to) = (cursor.another(), cursor.another());
    let renamed = rename((&mut from, &draft), (&mut to, &runtime()), Onto::Replace);
    if !matches!(renamed, Ok(Renamed::Done)) {
        remove_draft(cursor, &draft)?;
    }
    renamed.map(|_| ())
}

/// Makes sure that the runtime folder has a `.gitignore` with content. An existing one is not changed.
fn ensure_gitignore(workspace: &Root) -> Result<()> {
    let mut cursor = workspace.cursor();
    let path = RelativePath::child(Some(&runtime()), IGNORE.as_bytes());
    match cursor.stat(&path)? {
        Some(meta) if meta.kind == Kind::Folder => {
            return Err(must_be(&cursor, &path, "file", "it keeps work in progress out of git"));
        }
        // Git follows no link there, so a link has no effect.
        Some(meta) if meta.kind == Kind::File && !is_blank(&mut cursor, &path)? => return Ok(()),
        _ => {}
    }
    let Some(draft) = make_draft(&mut cursor)? else { return ensure_gitignore(workspace) };
    let ignore = RelativePath::child(Some(&draft), IGNORE.as_bytes());
    let replaced = rename((&mut cursor.another(), &ignore), (&mut cursor.another(), &path), Onto::Replace);
    remove_draft(&mut cursor, &draft)?;
    match replaced? {
        Renamed::Done => Ok(()),
        // Another process put something there in between.
        _ => ensure_gitignore(workspace),
    }
}

/// Whether a `.gitignore` is blank, as after a full disk or a crash of the machine.
fn is_blank(cursor: &mut Cursor<'_>, ignore: &RelativePath) -> Result<bool> {
    let Some((file, _)) = cursor.open(ignore)? else { return Ok(true) };
    let mut text = Vec::new();
    file.take(4096)
        .read_to_end(&mut text)
        .map_err(|error| Error::io("read", cursor.path_of(ignore), error))?;
    Ok(text.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()))
}

/// Makes a folder with a name of its own that contains the `.gitignore`. `None` if another process took it
/// for an abandoned one and removed it.
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

/// Removes a draft, unless it contains more than the `.gitignore`.
fn remove_draft(cursor: &mut Cursor<'_>, draft: &RelativePath) -> Result<()> {
    let names = cursor.list(Some(draft))?.unwrap_or_default();
    if names.iter().all(|name| **name == *IGNORE.as_bytes()) {
        cursor.remove_file(&RelativePath::child(Some(draft), IGNORE.as_bytes()))?;
        cursor.remove_empty_folder(draft)?;
    }
    Ok(())
}

/// Removes the drafts that killed processes left. A living process whose draft vanishes makes another one.
fn remove_drafts(workspace: &Root) -> Result<()> {
    let mut cursor = workspace.cursor();
    let prefix = format!("{RUNTIME}{DRAFT}");
    for name in cursor.list(None)?.unwrap_or_default() {
        if name.starts_with(prefix.as_bytes()) {
            // Another user's draft stays. There is nothing of value in it.
            let _stays = remove_draft(&mut cursor, &RelativePath::child(None, &name));
        }
    }
    Ok(())
}

/// Removes the runtime folder if it contains nothing but our `.gitignore` and no process is about to use it.
/// It stays on a file system without locks, where that is unknown.
pub fn remove_unused_runtime(workspace: &Root) -> Result<()> {
    let path = runtime();
    // A process that finds it locked by us leaves its removal to us, so we check again.
    while is_unused(&mut workspace.cursor())? {
        let folder = match workspace.below(&path) {
            Err(error) if error.is_gone() => return Ok(()),
            folder => folder?,
        };
        if try_lock(&folder, Sharing::Exclusive)? != Hold::Ours {
            return Ok(());
        }
        let mut cursor = workspace.cursor();
        let meta = folder.meta()?;
        if cursor.stat(&path)?.is_some_and(|now| now.is_same_inode(&meta)) && is_unused(&mut cursor)? {
            // In one step, so that it is never there without its `.gitignore`.
            let draft = draft_name();
            rename((&mut cursor.another(), &path), (&mut cursor.another(), &draft), Onto::Replace)?;
            return remove_draft(&mut cursor, &draft);
        }
    }
    Ok(())
}

/// Whether the runtime folder exists and contains nothing but our `.gitignore`.
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
        reason: format!("it must be a {what} and nothing else, because {since}; move it away and try again"),
    }
}

/// The suffix of a workspace's lock folder.
const LOCK_SUFFIX: &str = ".paperclip-restore.lock";

/// Whether a path is the lock of a workspace inside this one, or is in such a lock, in any spelling that some
/// file system takes for it.
///
/// Such a path is neither uploaded nor restored, because a lock names a process of this machine.
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

/// The prefix of a stage folder's name.
const PREFIX: &str = "stage-";

/// A marker file that is in the stage until its journal is complete. While it is there, nothing was
/// displaced, so the stage contains no local version.
const NOT_BEGUN: &str = "unbegun";

/// How many folders a stage is divided into at most. The kernel makes and removes the names of one folder one
/// after another.
const SHARES: usize = 16;

/// A locked stage folder. [`Stage::close`] removes it with everything in it.
#[derive(Debug)]
pub struct Stage {
    root: Root,
    path: RelativePath,
    /// One folder for each thread that writes.
    shares: Vec<RelativePath>,
    /// The permission bits that the umask, or a default ACL, leaves of a new file's.
    allowed: u32,
    owner: (u32, u32),
    next: AtomicU64,
}

impl Stage {
    /// Makes a stage folder in a workspace.
    pub fn open(workspace: &Root) -> Result<Self> {
        let opened = Self::open_in_runtime(workspace);
        if opened.is_err() {
            // The failure that led here is the one to report, and the folder is harmless.
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
                // The runtime folder was removed by hand.
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
                    // The same has happened.
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
                        // The failure that led here is the one to report, and there is no local version in
                        // the folder yet.
                        let _left = remove_tree(workspace, &path);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Locks a new stage folder and makes its initial content. `None` if another process took it for
    /// abandoned and removed it before it was locked.
    fn prepare(root: Root, path: RelativePath, cursor: &mut Cursor<'_>) -> Result<Option<Self>> {
        if lock_at(&root, cursor, &path)? == Hold::Taken {
            return Ok(None);
        }
        let Meta { mode, owner, .. } = mark_not_begun(&root)?;
        let shares = make_shares(&root)?;
        Ok(Some(Self { root, path, shares, allowed: mode & PERMISSIONS, owner, next: AtomicU64::new(0) }))
    }

    /// Records that the journal is complete, so local versions may be displaced into the stage from now on.
    pub fn begin(&self) -> Result<()> {
        self.cursor().remove_file(&RelativePath::child(None, NOT_BEGUN.as_bytes())).map(|_| ())
    }

    /// The stages that ended processes left in a workspace: those that nobody has locked. On a file system
    /// without locks that is unknown, and they stay.
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
                // Its owner removed it in between; or it is not a folder and so not a stage; or it is another
                // user's.
                Err(error) if error.is_gone() || error.is_io(ErrorKind::PermissionDenied) => continue,
                Err(error) => return Err(error),
            };
            if lock_at(&root, &mut cursor, &path)? == Hold::Ours {
                abandoned.push(Abandoned { root, path });
            }
        }
        Ok(abandoned)
    }

    /// A cursor in the stage folder.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_> {
        self.root.cursor()
    }

    /// The owner and group of every entry that this process makes in the stage: its folders inherit what
    /// decides about the group.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// A new name in the stage, in the folder for this thread.
    #[must_use]
    pub fn name(&self) -> RelativePath {
        let share = rayon::current_thread_index().unwrap_or(0) % self.shares.len();
        RelativePath::child(Some(&self.shares[share]), self.number().to_string().as_bytes())
    }

    /// A new name for a temporary entry in a folder on another file system than the stage.
    #[must_use]
    pub fn temporary_name(&self) -> String {
        format!("{}{}", temporary_prefix(&self.path), self.number())
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Creates a file with exactly these permission bits. Returns its name in the stage, too.
    pub fn file(&self, cursor: &mut Cursor<'_>, mode: u32) -> Result<(RelativePath, File)> {
        let name = self.name();
        let mode = mode & PERMISSIONS;
        let file = cursor.create(&name, mode)?;
        // The umask must not change the incoming mode.
        if mode & !self.allowed != 0 {
            set_file_mode(&file, mode).map_err(|error| Error::io("fchmod", cursor.path_of(&name), error))?;
        }
        Ok((name, file))
    }

    /// Leaves the stage as a killed process would, so its content can be rescued.
    #[must_use]
    pub fn abandon(self) -> Abandoned {
        Abandoned { root: self.root, path: self.path }
    }

    /// Removes the stage with everything in it, and the runtime folder if that is empty then.
    pub fn close(self, workspace: &Root) -> Result<()> {
        remove_stage(workspace, &self.path)
    }
}

/// Locks an open stage folder exclusively, if it is still the one at its path.
///
/// It may have been removed before it was locked, and a process with the same number in another container may
/// have made a stage with the same name. Then it counts as locked by another process.
fn lock_at(folder: &Root, cursor: &mut Cursor<'_>, path: &RelativePath) -> Result<Hold> {
    let hold = try_lock(folder, Sharing::Exclusive)?;
    let meta = folder.meta()?;
    let is_there = cursor.stat(path)?.is_some_and(|now| now.is_same_inode(&meta));
    Ok(if is_there { hold } else { Hold::Taken })
}

/// Creates the marker for a journal that is not complete. Returns what a new file has in this folder: its
/// owner, and the permission bits that the umask, or the folder's default ACL, leaves.
fn mark_not_begun(stage: &Root) -> Result<Meta> {
    let mut cursor = stage.cursor();
    let mark = RelativePath::child(None, NOT_BEGUN.as_bytes());
    let file = cursor.create(&mark, PERMISSIONS)?;
    Meta::of_file(&file).map_err(|error| Error::io("fstat", cursor.path_of(&mark), error))
}

/// The stage of a process that has ended, locked by us.
#[derive(Debug)]
pub struct Abandoned {
    root: Root,
    path: RelativePath,
}

impl Abandoned {
    /// A cursor in it.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_> {
        self.root.cursor()
    }

    /// Its path in the workspace.
    #[must_use]
    pub fn path(&self) -> &RelativePath {
        &self.path
    }

    /// Whether its process may have displaced something before it ended.
    pub fn had_begun(&self) -> Result<bool> {
        Ok(self.cursor().stat(&RelativePath::child(None, NOT_BEGUN.as_bytes()))?.is_none())
    }

    /// Whether it contains no file, so no local version is in it.
    pub fn has_no_file(&self) -> Result<bool> {
        let found = scan(&self.root, &Filter::default(), &Cancel::default())?;
        Ok(found.iter().all(|found| found.meta.kind == Kind::Folder))
    }

    /// Whether it may have made a name, as [`Stage::temporary_name`] does.
    #[must_use]
    pub fn is_own_temporary_name(&self, name: &OsStr) -> bool {
        name.as_encoded_bytes().starts_with(temporary_prefix(&self.path).as_bytes())
    }

    /// Removes it with everything in it, and the runtime folder if that is empty then.
    pub fn remove(self, workspace: &Root) -> Result<()> {
        remove_stage(workspace, &self.path)
    }
}

/// The prefix of a stage's names elsewhere. It contains the name of the stage, so no other stage uses it.
fn temporary_prefix(stage: &RelativePath) -> String {
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

/// The last stage that is removed takes the runtime folder with it, whichever process made that.
fn remove_stage(workspace: &Root, stage: &RelativePath) -> Result<()> {
    remove_tree(workspace, stage)?;
    remove_unused_runtime(workspace)
}

/// Removes whatever is at a path, and a folder with everything in it.
pub fn remove_tree(root: &Root, path: &RelativePath) -> Result<()> {
    let mut cursor = root.cursor();
    match cursor.stat(path)? {
        None => return Ok(()),
        Some(meta) if meta.kind != Kind::Folder => return cursor.remove_file(path).map(|_| ()),
        Some(_) => {}
    }
    let folder = root.below(path)?;
    let mut inner = folder.cursor();
    for found in scan(&folder, &Filter::default(), &Cancel::default())?.iter().rev() {
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
    fn every_spelling_of_the_runtime_folder_is_recognized() {
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
    fn every_spelling_of_a_lock_is_recognized() {
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
    fn removing_the_last_stage_removes_the_runtime_folder() {
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
    fn the_runtime_folder_stays_if_it_contains_a_users_file() {
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
    fn the_runtime_folder_stays_while_it_is_in_use() {
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
    fn the_runtime_folder_always_has_a_gitignore_with_content() {
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
    fn only_drafts_of_killed_processes_are_removed() {
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
    fn a_new_stage_with_the_name_of_a_removed_one_is_not_touched() {
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

    /// An observer sees either no runtime folder, or one with its `.gitignore`.
    #[test]
    fn the_gitignore_is_there_as_soon_as_a_stage_is() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Root::open(folder.path()).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut seen = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    // The names are read through one handle, so they are those of one folder, even if it is
                    // moved meanwhile.
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
        assert_eq!(names(folder.path()), Vec::<String>::new(), "the last one removed the folder");
    }
}
