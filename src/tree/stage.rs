//! A folder in the workspace's `.paperclip-runtime` where new content waits, complete, for its rename.
//!
//! It lies on the workspace's own file system, so that one rename puts a file in its place. It is locked as long as
//! its process lives; what a killed process left behind is found by that (see [`Stage::abandoned`]).

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::entry::PERMISSIONS;
use super::root::{Cursor, Kind, Meta, Root, set_file_mode};
use super::scan::scan;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::path::RelativePath;

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
    let mut text = crate::error::readable(name);
    if !text.is_ascii() {
        text = text.replace(is_ignorable, "");
    }
    text.make_ascii_lowercase();
    text
}

/// Whether a path is [`RUNTIME`] or lies in it, also where a file system does not tell upper from lower case, or passes
/// over characters that are not seen.
#[must_use]
pub fn is_in_runtime(path: &RelativePath) -> bool {
    let name = path.as_bytes().split(|&byte| byte == b'/').next().unwrap_or_default();
    if name.len() < RUNTIME.len() || name.is_ascii() {
        return name.eq_ignore_ascii_case(RUNTIME.as_bytes());
    }
    std::str::from_utf8(name).is_ok_and(|name| name.replace(is_ignorable, "").eq_ignore_ascii_case(RUNTIME))
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
        let mut cursor = workspace.cursor();
        let runtime = runtime();
        make_runtime(&mut cursor)?;
        let mut attempt = u64::from(std::process::id()) << 32;
        loop {
            static SERIAL: AtomicU64 = AtomicU64::new(0);
            attempt = attempt.wrapping_add(SERIAL.fetch_add(1, Ordering::Relaxed));
            let path = RelativePath::child(Some(&runtime), format!("{PREFIX}{attempt:x}").as_bytes());
            let made = match cursor.make_dir(&path, 0o700) {
                // Another process had made the folder around it, and removed it when it was done.
                Err(error) if error.is_gone() => {
                    make_runtime(&mut cursor)?;
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
                // Unless it was taken for abandoned, and removed, before it was locked.
                let held = match hold(&root) {
                    Ok(held) => held,
                    Err(error) => {
                        // That failure is the one to report, and nothing is in the folder yet.
                        let _left = cursor.remove_empty_dir(&path);
                        return Err(error);
                    }
                };
                if held != Hold::Taken && cursor.stat(&path)?.is_some() {
                    let allowed = allowed_permissions(&root)?;
                    let shares = make_shares(&root)?;
                    return Ok(Self { root, path, shares, allowed, next: AtomicU64::new(0) });
                }
            }
        }
    }

    /// The stages that dead processes left in a workspace: those that nobody holds locked. Where a file system knows no
    /// locks, nobody can tell, and they stay.
    pub fn abandoned(workspace: &Root) -> Result<Vec<Abandoned>> {
        let runtime = runtime();
        let mut abandoned = Vec::new();
        let names = workspace.cursor().list(Some(&runtime))?.unwrap_or_default();
        for name in names.into_iter().filter(|name| name.starts_with(PREFIX.as_bytes())) {
            let path = RelativePath::child(Some(&runtime), &name);
            let root = match workspace.below(&path) {
                Ok(root) => root,
                // Its owner removed it meanwhile, or it is no folder and so no stage. Or it is another user's.
                Err(error) if error.is_gone() || error.is_io(ErrorKind::PermissionDenied) => continue,
                Err(error) => return Err(error),
            };
            if hold(&root)? == Hold::Ours {
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

/// What became of a stage folder's lock, which says that its process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It is ours until the folder is closed.
    Ours,
    /// Another process has it.
    Taken,
    /// The file system knows none: some network and FUSE file systems do not.
    Unknown,
}

fn hold(stage: &Root) -> Result<Hold> {
    let answer = rustix::fs::flock(stage.handle(), FlockOperation::NonBlockingLockExclusive);
    hold_from(answer).map_err(|errno| Error::io("flock", stage.path(), errno))
}

/// By which file systems say that they know no locks. `EBADF` is that of those which make it a lock of another kind, for
/// files that are open for writing.
const NO_LOCKS: [Errno; 5] = [Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS, Errno::INVAL, Errno::BADF];

fn hold_from(answer: rustix::io::Result<()>) -> rustix::io::Result<Hold> {
    match answer {
        Ok(()) => Ok(Hold::Ours),
        Err(Errno::WOULDBLOCK) => Ok(Hold::Taken),
        Err(errno) if NO_LOCKS.contains(&errno) => Ok(Hold::Unknown),
        Err(errno) => Err(errno),
    }
}

/// What the umask, or the folder's default ACL, leaves of a new file's permission bits.
fn allowed_permissions(stage: &Root) -> Result<u32> {
    let mut cursor = stage.cursor();
    let probe = RelativePath::child(None, b"probe");
    let file = cursor.create(&probe, PERMISSIONS)?;
    let meta = Meta::of_file(&file).map_err(|error| Error::io("fstat", cursor.path_of(&probe), error))?;
    cursor.remove_file(&probe)?;
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

    /// Whether it has made a name such as [`Stage::name_elsewhere`] gives.
    #[must_use]
    pub fn has_named(&self, name: &OsStr) -> bool {
        name.as_bytes().starts_with(elsewhere(&self.path).as_bytes())
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
            cursor.make_dir(&share, 0o700)?;
            Ok(share)
        })
        .collect()
}

/// The last one to go takes the runtime folder along, whoever made it.
fn remove_stage(workspace: &Root, stage: &RelativePath) -> Result<()> {
    remove_tree(workspace, stage)?;
    workspace.cursor().remove_empty_dir(&runtime()).map(|_| ())
}

/// Makes the workspace's runtime folder where it is missing. A link in its place is never followed.
pub fn make_runtime(cursor: &mut Cursor<'_>) -> Result<()> {
    let runtime = runtime();
    if cursor.make_dir(&runtime, 0o755)? {
        return Ok(());
    }
    match cursor.stat(&runtime)? {
        Some(meta) if meta.kind == Kind::Dir => Ok(()),
        // It was there a moment ago.
        None => make_runtime(cursor),
        Some(_) => Err(Error::UnsafePath {
            path: readable_path(cursor, &runtime),
            offset: None,
            reason: "it must be a folder and not a link or file, since work in progress is kept there; \
                     move it away and try again"
                .to_owned(),
        }),
    }
}

fn readable_path(cursor: &Cursor<'_>, path: &RelativePath) -> String {
    crate::error::readable(cursor.path_of(path).as_os_str().as_bytes())
}

/// Removes whatever stands at a path, and a folder with all that is in it.
pub fn remove_tree(root: &Root, path: &RelativePath) -> Result<()> {
    let mut cursor = root.cursor();
    match cursor.stat(path)? {
        None => return Ok(()),
        Some(meta) if meta.kind != Kind::Dir => return cursor.remove_file(path).map(|_| ()),
        Some(_) => {}
    }
    let folder = root.below(path)?;
    let mut inner = folder.cursor();
    for found in scan(&folder, &|_| false, &Cancel::default())?.iter().rev() {
        if found.meta.kind == Kind::Dir {
            inner.remove_empty_dir(&found.path)?;
        } else {
            inner.remove_file(&found.path)?;
        }
    }
    if !cursor.remove_empty_dir(path)? && cursor.is_mount_point(path)? {
        return Err(Error::io("rmdir", root.path_of(path), Errno::BUSY).with_hint("it is a mount point"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
    fn a_file_system_without_locks_is_none_with_a_lock_that_is_taken() {
        assert_eq!(hold_from(Ok(())), Ok(Hold::Ours));
        assert_eq!(hold_from(Err(Errno::AGAIN)), Ok(Hold::Taken));
        for errno in NO_LOCKS {
            assert_eq!(hold_from(Err(errno)), Ok(Hold::Unknown));
        }
        for errno in [Errno::IO, Errno::INTR, Errno::NOLCK] {
            assert_eq!(hold_from(Err(errno)), Err(errno));
        }
    }

    #[test]
    fn the_last_stage_takes_the_runtime_folder_along() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Root::open(folder.path()).unwrap();
        let (first, second) = (Stage::open(&workspace).unwrap(), Stage::open(&workspace).unwrap());
        first.close(&workspace).unwrap();
        assert!(folder.path().join(RUNTIME).exists(), "somebody is at work in it");
        second.close(&workspace).unwrap();
        assert!(!folder.path().join(RUNTIME).exists());
    }
}
