//! The lock that keeps two merges out of one workspace, across processes and with the TypeScript module.
//!
//! The lock is a folder beside the workspace, made with `mkdir` and holding `owner.json`, which names the
//! process. Whoever brings `owner.json` into the folder that stands at the lock's path has the lock. Three
//! facts make that safe among any number of waiters:
//!
//! - `owner.json` comes into the folder by a rename that replaces nothing, so of two only one succeeds.
//! - What is done inside a folder is done through a handle on it, so a folder that took its place meanwhile is
//!   never touched by mistake.
//! - A folder is taken away with `rmdir`, which fails where somebody's `owner.json` is inside. At worst it takes
//!   an empty folder from under a process that was about to claim it, and that one starts over. (Renaming the
//!   folder away first would lift a living lock off its path for a moment when another waiter was faster.)

use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::Deserialize;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::time::utc_timestamp;

/// How long callers wait for a lock that somebody else holds.
pub const WAIT: Duration = Duration::from_secs(30);
/// How old a lock folder that names no process must be to count as left behind. A younger one may belong to a
/// holder that is about to write its name.
pub const ORPHAN_AGE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(50);
const OWNER_FILE: &CStr = c"owner.json";
/// More than any `owner.json` needs, in bytes.
const OWNER_FILE_MAX: u64 = 4096;
const LEFT_BEHIND: &str = "this lock was left behind by a process that is gone; remove its folder by hand";

/// A workspace's merge lock, held until [`MergeLock::release`] or until dropped.
#[derive(Debug)]
pub struct MergeLock {
    /// `None` once given back.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    folder: Folder,
    owner_file: Inode,
}

impl MergeLock {
    /// Takes the lock of `target_dir`, the folder `<target_dir>.paperclip-restore.lock`, and blocks until it
    /// is free. A lock whose process is dead, or that names none and is [`ORPHAN_AGE`] old, is taken over.
    ///
    /// [`Error::LockTimeout`] after `wait`, [`Error::Aborted`] once cancelled, and [`Error::Io`] at once
    /// where a lock folder cannot be made, or one that was left behind cannot be removed.
    pub fn acquire(target_dir: &Path, wait: Duration, cancel: &Cancel) -> Result<Self> {
        let path = lock_path(target_dir);
        let since = Instant::now();
        loop {
            cancel.check()?;
            match fs::create_dir(&path) {
                Ok(()) => {
                    if let Some(lock) = Self::claim(&path)? {
                        return Ok(lock);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("mkdir", path, error)),
            }
            let holder = match Standing::at(&path)? {
                Standing::Nothing => continue,
                Standing::LeftBehind(folder, owner_file) => {
                    if folder.dismantle(owner_file).map_err(|error| error.with_hint(LEFT_BEHIND))? {
                        continue;
                    }
                    None
                }
                Standing::Held(holder) => holder,
            };
            let left = wait.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(Error::LockTimeout { lock: path, holder, waited_s: wait.as_secs() });
            }
            thread::sleep(POLL.min(left));
        }
    }

    /// Puts this process's name into the folder that was just made at `path`. `None` where somebody came
    /// between: the folder is gone, or is another's.
    fn claim(path: &Path) -> Result<Option<Self>> {
        let Some(folder) = Folder::open(path).map_err(|error| Error::io("open", path, error))? else {
            return Ok(None);
        };
        let record =
            format!("{{\"pid\":{},\"createdAt\":\"{}\"}}\n", process::id(), utc_timestamp(SystemTime::now()));
        match folder.write_owner(record.as_bytes()) {
            Ok(owner_file) => {
                let mut lock = Self { held: Some(Held { folder, owner_file }) };
                if !lock.says(record.as_bytes())? {
                    lock.held = None;
                    return Ok(None);
                }
                Ok(Some(lock))
            }
            Err(error)
                if error.is_io(io::ErrorKind::NotFound) || error.is_io(io::ErrorKind::AlreadyExists) =>
            {
                Ok(None)
            }
            Err(error) => {
                // Why no name could be written is what the caller must know. Should the folder stay after
                // all, it names nobody and is taken over once it is old enough.
                folder.dismantle(None).ok();
                Err(error)
            }
        }
    }

    /// Whether the lock still stands at its path and still says `record`. The TypeScript module removes a
    /// folder that names nobody, however young, and writes its name over one that is there; whoever did so
    /// has the lock.
    fn says(&self, record: &[u8]) -> Result<bool> {
        let Some(Held { folder, .. }) = &self.held else { return Ok(false) };
        match folder.read_owner() {
            Ok(found) => Ok(found == record && folder.stands()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(folder.failed("read", error)),
        }
    }

    /// Gives the lock back. A lock that somebody else took over meanwhile is theirs and stays.
    pub fn release(mut self) -> Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<()> {
        if let Some(Held { folder, owner_file }) = self.held.take() {
            folder.dismantle(Some(owner_file))?;
        }
        Ok(())
    }
}

impl Drop for MergeLock {
    fn drop(&mut self) {
        // Nobody is left to tell. What stays names this process, and is taken over once that has ended.
        self.give_back().ok();
    }
}

fn lock_path(target_dir: &Path) -> PathBuf {
    let mut path = OsString::from(target_dir);
    path.push(".paperclip-restore.lock");
    path.into()
}

/// What stands at a lock's path.
enum Standing {
    /// Nothing, any more.
    Nothing,
    /// A lock of this living process, or of one that is not known (yet).
    Held(Option<u32>),
    /// A folder that nobody will give back, and its `owner.json` if it has one.
    LeftBehind(Folder, Option<Inode>),
}

impl Standing {
    fn at(path: &Path) -> Result<Self> {
        let folder = match Folder::open(path) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(Self::Nothing),
            // A file, a link, or a folder that we may not look into: it is not for us to judge.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(Self::Held(None)),
            Err(error) => return Err(Error::io("open", path, error)),
        };
        let owner_file = folder.owner_file()?;
        if let Some(pid) = folder.owner() {
            let dead = test_kill_process(pid) == Err(Errno::SRCH);
            let holder = pid.as_raw_nonzero().get().unsigned_abs();
            return Ok(if dead { Self::LeftBehind(folder, owner_file) } else { Self::Held(Some(holder)) });
        }
        let written = folder.handle.metadata().and_then(|metadata| metadata.modified());
        let written = written.map_err(|error| Error::io("fstat", path, error))?;
        // A folder from the future is young.
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        Ok(if age < ORPHAN_AGE { Self::Held(None) } else { Self::LeftBehind(folder, owner_file) })
    }
}

/// A file's number, which tells it from all others in its folder.
type Inode = u64;

/// A lock folder, held open: its device and number stay its own even when it is removed.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    handle: File,
}

/// The part of `owner.json` that is read.
#[derive(Deserialize)]
struct Owner {
    pid: i32,
}

impl Folder {
    /// The folder at `path`, which is never a link; `None` where nothing is.
    fn open(path: &Path) -> Result<Option<Self>, Errno> {
        match rustix::fs::open(path, FOLDER, Mode::empty()) {
            Ok(handle) => Ok(Some(Self { path: path.to_path_buf(), handle: handle.into() })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it is what stands at its path.
    fn stands(&self) -> Result<bool> {
        let failed = |error| Error::io("lstat", &self.path, error);
        match fs::symlink_metadata(&self.path) {
            Ok(found) => Ok(identity(&found) == identity(&self.handle.metadata().map_err(failed)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn owner_file(&self) -> Result<Option<Inode>> {
        match statat(&self.handle, OWNER_FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("lstat", error)),
        }
    }

    /// The process that `owner.json` names. One that cannot be read or understood names none, whatever the
    /// reason: then the folder's age decides.
    fn owner(&self) -> Option<Pid> {
        let record: Owner = serde_json::from_slice(&self.read_owner().ok()?).ok()?;
        if record.pid > 0 { Pid::from_raw(record.pid) } else { None }
    }

    fn read_owner(&self) -> io::Result<Vec<u8>> {
        // A FIFO must not make us wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.handle, OWNER_FILE, flags, Mode::empty())?);
        let mut record = Vec::new();
        file.take(OWNER_FILE_MAX).read_to_end(&mut record)?;
        Ok(record)
    }

    /// Brings `record` in as `owner.json`, whole or not at all. Fails with `EEXIST` where there is one, and
    /// with `ENOENT` where the folder was removed.
    fn write_owner(&self, record: &[u8]) -> Result<Inode> {
        static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        let draft = format!("owner.json.{}-{attempt}", process::id());

        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.handle, &*draft, flags, Mode::from_raw_mode(0o666));
        let mut file = File::from(file.map_err(|error| self.failed("open", error))?);
        let written = file
            .write_all(record)
            .and_then(|()| file.metadata())
            .map_err(|error| self.failed("write", error))
            .and_then(|metadata| match rename_new(self.handle.as_fd(), &draft, OWNER_FILE) {
                Ok(()) => Ok(metadata.ino()),
                Err(error) => Err(self.failed("rename", error)),
            });
        if written.is_err() {
            // The failure to report is the one that came first; a draft names nobody and goes with its
            // folder.
            unlinkat(&self.handle, &*draft, AtFlags::empty()).ok();
        }
        written
    }

    /// Takes the folder away with all that is inside, unless an `owner.json` other than `owner_file` says
    /// that it is somebody else's by now. Whether the lock's path is worth another try at once.
    fn dismantle(&self, owner_file: Option<Inode>) -> Result<bool> {
        if !self.stands()? {
            return Ok(true);
        }
        let owner_now = self.owner_file()?;
        if owner_now.is_some() && owner_now != owner_file {
            return Ok(false);
        }
        let emptied = names(self.handle.as_fd()).and_then(|names| {
            let others = names.iter().map(CString::as_c_str).filter(|&name| name != OWNER_FILE);
            // Last, so that whoever is interrupted here leaves a lock that still says whose it was.
            others.chain(owner_now.map(|_| OWNER_FILE)).try_for_each(|name| remove(self.handle.as_fd(), name))
        });
        emptied.map_err(|error| self.failed("unlink", error))?;
        if !self.stands()? {
            return Ok(true);
        }
        match fs::remove_dir(&self.path) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Ok(true),
                io::ErrorKind::DirectoryNotEmpty => Ok(false),
                _ => Err(Error::io("rmdir", &self.path, error)),
            },
        }
    }

    fn failed(&self, syscall: &'static str, error: impl Into<io::Error>) -> Error {
        Error::io(syscall, &self.path, error)
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What tells a folder from every other for as long as it is held open.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Renames within `folder`, and fails with `EEXIST` where `to` exists.
fn rename_new(folder: BorrowedFd<'_>, from: &str, to: &CStr) -> Result<(), Errno> {
    match renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        // Not every file system (NFS for one) can do both in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            match statat(folder, to, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => renameat(folder, from, folder, to),
                Err(error) => Err(error),
            }
        }
        outcome => outcome,
    }
}

fn names(folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes a file, a link, or a folder with all that is in it. What is gone already is fine.
fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let gone = |outcome| if outcome == Err(Errno::NOENT) { Ok(()) } else { outcome };
    match gone(unlinkat(parent, name, AtFlags::empty())) {
        // So Linux and macOS say that it is a folder; where it is none, this answer is what counts.
        Err(error @ (Errno::ISDIR | Errno::PERM)) => {
            let folder = openat(parent, name, FOLDER, Mode::empty()).map_err(|_| error)?;
            names(folder.as_fd())?.iter().try_for_each(|name| remove(folder.as_fd(), name))?;
            gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};
    use std::sync::Barrier;

    use rustix::fs::{Timespec, Timestamps, futimens};
    use tempfile::TempDir;

    use super::*;

    const PROMPTLY: Duration = Duration::from_millis(120);

    /// A folder with a workspace in it.
    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir(place.workspace()).unwrap();
            place
        }

        fn workspace(&self) -> PathBuf {
            self.0.path().join("workspace")
        }

        fn lock(&self) -> PathBuf {
            self.0.path().join("workspace.paperclip-restore.lock")
        }

        fn owner_file(&self) -> PathBuf {
            self.lock().join("owner.json")
        }

        /// A lock as another process makes it.
        fn locked_with(self, owner: Option<&str>) -> Self {
            fs::create_dir(self.lock()).unwrap();
            if let Some(owner) = owner {
                fs::write(self.owner_file(), owner).unwrap();
            }
            self
        }

        fn aged(self, age: Duration) -> Self {
            let then = (SystemTime::now() - age).duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let then =
                Timespec { tv_sec: then.as_secs().try_into().unwrap(), tv_nsec: then.subsec_nanos().into() };
            let folder = File::open(self.lock()).unwrap();
            futimens(&folder, &Timestamps { last_access: then, last_modification: then }).unwrap();
            self
        }

        fn acquire(&self, wait: Duration) -> Result<MergeLock> {
            MergeLock::acquire(&self.workspace(), wait, &Cancel::default())
        }

        /// Everything beside the workspace.
        fn leftovers(&self) -> BTreeSet<OsString> {
            let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name != "workspace").collect()
        }
    }

    fn owner(pid: u32) -> String {
        format!("{{\"pid\":{pid},\"createdAt\":\"2026-01-01T00:00:00.000Z\"}}\n")
    }

    /// A process number that was in use and is no more.
    fn dead_pid() -> u32 {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    struct Living(Child);

    impl Living {
        fn new() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }
    }

    impl Drop for Living {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn timed_out(outcome: Result<MergeLock>) -> Option<u32> {
        match outcome {
            Err(Error::LockTimeout { holder, .. }) => holder,
            other => panic!("not a timeout: {other:?}"),
        }
    }

    #[test]
    fn a_held_lock_names_this_process_as_the_typescript_module_does() {
        let place = Place::new();
        let lock = place.acquire(PROMPTLY).unwrap();
        let text = fs::read_to_string(place.owner_file()).unwrap();
        assert!(text.starts_with(&format!("{{\"pid\":{},\"createdAt\":\"20", process::id())), "{text}");
        assert!(text.ends_with("Z\"}\n"), "{text}");
        assert_eq!(fs::read_dir(place.lock()).unwrap().count(), 1);
        lock.release().unwrap();
        assert!(place.leftovers().is_empty());
    }

    #[test]
    fn the_name_is_appended_to_the_path_as_given() {
        let place = Place::new();
        let lock = MergeLock::acquire(&place.workspace().join(""), PROMPTLY, &Cancel::default()).unwrap();
        assert!(place.workspace().join(".paperclip-restore.lock/owner.json").exists());
        drop(lock);
        assert_eq!(fs::read_dir(place.workspace()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_of_this_very_process_blocks_too() {
        let place = Place::new();
        let lock = place.acquire(PROMPTLY).unwrap();
        assert_eq!(timed_out(place.acquire(PROMPTLY)), Some(process::id()));
        drop(lock);
        place.acquire(Duration::ZERO).unwrap().release().unwrap();
    }

    #[test]
    fn a_living_holder_is_waited_for_and_a_dead_one_taken_over() {
        let living = Living::new();
        let place = Place::new().locked_with(Some(&owner(living.0.id()))).aged(Duration::from_secs(3600));
        assert_eq!(timed_out(place.acquire(PROMPTLY)), Some(living.0.id()));

        let place = Place::new().locked_with(Some(&owner(dead_pid())));
        let lock = place.acquire(Duration::ZERO).unwrap();
        assert!(fs::read_to_string(place.owner_file()).unwrap().contains(&process::id().to_string()));
        lock.release().unwrap();
        assert!(place.leftovers().is_empty());
    }

    #[test]
    fn a_lock_that_names_nobody_is_taken_over_only_when_old() {
        let nobody = [
            "",
            "{\"pid\":",
            "null",
            "{\"pid\":0}",
            "{\"pid\":-5}",
            "{\"pid\":\"7\"}",
            "{\"pid\":1.5}",
            "{}",
        ];
        for text in nobody.map(Some).into_iter().chain([None]) {
            let young = Place::new().locked_with(text);
            assert_eq!(timed_out(young.acquire(PROMPTLY)), None, "{text:?}");
            assert_eq!(fs::read_to_string(young.owner_file()).ok().as_deref(), text, "untouched");

            let old = Place::new().locked_with(text).aged(ORPHAN_AGE);
            old.acquire(Duration::ZERO).unwrap().release().unwrap();
            assert!(old.leftovers().is_empty(), "{text:?}");
        }
        let future = Place::new().locked_with(None);
        let folder = File::open(future.lock()).unwrap();
        let later = Timespec { tv_sec: 32_503_680_000, tv_nsec: 0 };
        futimens(&folder, &Timestamps { last_access: later, last_modification: later }).unwrap();
        assert_eq!(timed_out(future.acquire(PROMPTLY)), None);
    }

    #[test]
    fn whatever_lies_in_an_old_lock_goes_with_it() {
        let place = Place::new().locked_with(None);
        let outside = place.workspace().join("keep");
        fs::write(&outside, "precious").unwrap();
        fs::create_dir_all(place.owner_file().join("deeper")).unwrap();
        symlink(&outside, place.lock().join("link")).unwrap();
        symlink(place.workspace(), place.owner_file().join("deeper/link")).unwrap();
        let place = place.aged(ORPHAN_AGE);
        place.acquire(Duration::ZERO).unwrap().release().unwrap();
        assert!(place.leftovers().is_empty());
        assert_eq!(fs::read_to_string(outside).unwrap(), "precious");
    }

    #[test]
    fn a_link_or_file_at_the_locks_path_is_left_alone() {
        let place = Place::new();
        let elsewhere = place.0.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("owner.json"), owner(dead_pid())).unwrap();
        symlink(&elsewhere, place.lock()).unwrap();
        assert_eq!(timed_out(place.acquire(PROMPTLY)), None);
        assert!(place.lock().is_symlink() && elsewhere.join("owner.json").exists());

        fs::remove_file(place.lock()).unwrap();
        symlink("nowhere", place.lock()).unwrap();
        assert_eq!(timed_out(place.acquire(PROMPTLY)), None);

        fs::remove_file(place.lock()).unwrap();
        fs::write(place.lock(), "a file").unwrap();
        assert_eq!(timed_out(place.acquire(PROMPTLY)), None);
        assert_eq!(fs::read_to_string(place.lock()).unwrap(), "a file");
    }

    #[test]
    fn a_link_for_an_owner_names_nobody() {
        let place = Place::new().locked_with(None);
        let record = place.workspace().join("record");
        fs::write(&record, owner(dead_pid())).unwrap();
        symlink(&record, place.owner_file()).unwrap();
        assert_eq!(timed_out(place.acquire(PROMPTLY)), None);
        let place = place.aged(ORPHAN_AGE);
        place.acquire(Duration::ZERO).unwrap().release().unwrap();
        assert!(record.exists());
    }

    #[test]
    fn a_timeout_says_where_and_who() {
        let place = Place::new().locked_with(Some(&owner(process::id())));
        let error = place.acquire(Duration::ZERO).unwrap_err();
        assert_eq!(error.code(), "ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT");
        let text = error.to_string();
        assert!(
            text.contains(place.lock().to_str().unwrap()) && text.contains(&process::id().to_string()),
            "{text}"
        );
    }

    #[test]
    fn no_place_for_a_lock_rejects_at_once() {
        let place = Place::new();
        let file = place.0.path().join("file");
        fs::write(&file, "").unwrap();
        for (target, kind) in [
            (place.0.path().join("missing/workspace"), io::ErrorKind::NotFound),
            (file.join("workspace"), io::ErrorKind::NotADirectory),
        ] {
            let error = MergeLock::acquire(&target, WAIT, &Cancel::default()).unwrap_err();
            assert!(error.is_io(kind) && matches!(error, Error::Io { syscall: "mkdir", .. }), "{error}");
        }
    }

    #[test]
    fn what_another_user_meets() {
        const NAME: &str = "merge::lock::tests::what_another_user_meets";
        let Some(parent) = std::env::var_os("UNWRITABLE_PARENT").map(PathBuf::from) else {
            let place = Place::new().locked_with(Some(&owner(dead_pid())));
            let living = place.0.path().join("living.paperclip-restore.lock");
            fs::create_dir(&living).unwrap();
            fs::write(living.join("owner.json"), owner(1)).unwrap();
            // Root may write anywhere, so the test runs itself again as somebody else, who may not be let in
            // to where its binary lies.
            let binary = place.0.path().join("test-binary");
            fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
            let set_mode = |mode| {
                for folder in [place.0.path(), &place.lock()] {
                    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
                }
            };
            let mut again = Command::new(&binary);
            again.args(["--exact", NAME]).env("UNWRITABLE_PARENT", place.0.path());
            if rustix::process::geteuid().is_root() {
                again.uid(65534).gid(65534);
            }
            set_mode(0o555);
            let outcome = again.output();
            set_mode(0o755);
            let text = String::from_utf8(outcome.unwrap().stdout).unwrap();
            assert!(text.contains("1 passed; 0 failed"), "{text}");
            return;
        };
        let acquire = |target, wait| MergeLock::acquire(&parent.join(target), wait, &Cancel::default());
        let denied = |target| {
            let error = acquire(target, WAIT).unwrap_err();
            assert!(error.is_io(io::ErrorKind::PermissionDenied), "{error}");
            error
        };
        assert!(matches!(denied("other"), Error::Io { syscall: "mkdir", .. }));
        // Nobody will ever give a dead process's lock back, so waiting for it would be in vain.
        assert!(denied("workspace").to_string().contains("by hand"));
        // That a process may not be signalled says that it lives.
        assert_eq!(timed_out(acquire("living", Duration::ZERO)), Some(1));
    }

    #[test]
    fn waiting_ends_when_cancelled() {
        let place = Place::new();
        let _lock = place.acquire(PROMPTLY).unwrap();
        let cancel = Cancel::default();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| MergeLock::acquire(&place.workspace(), Duration::MAX, &cancel));
            cancel.cancel();
            assert!(matches!(waiter.join().unwrap(), Err(Error::Aborted)));
        });
    }

    #[test]
    fn what_others_took_over_stays_theirs() {
        let place = Place::new();
        let lock = place.acquire(PROMPTLY).unwrap();
        fs::remove_dir_all(place.lock()).unwrap();
        let place = place.locked_with(Some(&owner(1)));
        lock.release().unwrap();
        assert_eq!(fs::read_to_string(place.owner_file()).unwrap(), owner(1));

        // Also when they only put their own name into the same folder.
        fs::remove_dir_all(place.lock()).unwrap();
        let lock = place.acquire(PROMPTLY).unwrap();
        fs::write(place.lock().join("new"), owner(1)).unwrap();
        fs::rename(place.lock().join("new"), place.owner_file()).unwrap();
        drop(lock);
        assert_eq!(fs::read_to_string(place.owner_file()).unwrap(), owner(1));

        fs::remove_dir_all(place.lock()).unwrap();
        let lock = place.acquire(PROMPTLY).unwrap();
        fs::remove_dir_all(place.lock()).unwrap();
        lock.release().unwrap();
    }

    fn left_behind(place: &Place) -> (Folder, Option<Inode>) {
        match Standing::at(&place.lock()).unwrap() {
            Standing::LeftBehind(folder, owner_file) => (folder, owner_file),
            _ => panic!("not left behind"),
        }
    }

    #[test]
    fn who_comes_late_to_a_dead_lock_leaves_the_new_one() {
        for text in [Some(owner(dead_pid())), None] {
            let place = Place::new().locked_with(text.as_deref()).aged(ORPHAN_AGE);
            let (late, owner_file) = left_behind(&place);
            let lock = place.acquire(Duration::ZERO).unwrap();
            late.dismantle(owner_file).unwrap();
            assert!(lock.held.as_ref().unwrap().folder.stands().unwrap() && place.owner_file().exists());
        }
    }

    #[test]
    fn a_holder_that_writes_its_name_late_keeps_the_lock() {
        let place = Place::new().locked_with(None).aged(ORPHAN_AGE);
        let (judged, owner_file) = left_behind(&place);
        let late = MergeLock::claim(&place.lock()).unwrap().unwrap();
        assert!(!judged.dismantle(owner_file).unwrap());
        assert!(late.held.as_ref().unwrap().folder.stands().unwrap() && place.owner_file().exists());
    }

    #[test]
    fn a_claim_never_replaces_a_name() {
        let place = Place::new().locked_with(Some(&owner(1)));
        assert!(MergeLock::claim(&place.lock()).unwrap().is_none());
        assert_eq!(fs::read_to_string(place.owner_file()).unwrap(), owner(1));
        assert_eq!(fs::read_dir(place.lock()).unwrap().count(), 1, "no draft is left");

        fs::remove_dir_all(place.lock()).unwrap();
        assert!(MergeLock::claim(&place.lock()).unwrap().is_none());
    }

    #[test]
    fn a_name_written_over_ours_is_the_holders() {
        let place = Place::new();
        let lock = place.acquire(PROMPTLY).unwrap();
        let record = fs::read(place.owner_file()).unwrap();
        assert!(lock.says(&record).unwrap());
        fs::write(place.owner_file(), owner(1)).unwrap();
        assert!(!lock.says(&record).unwrap());
        fs::remove_dir_all(place.lock()).unwrap();
        assert!(!lock.says(&record).unwrap());
    }

    /// Lets `threads` take the lock `rounds` times each and looks for two inside at once.
    fn contend(place: &Place, threads: usize, rounds: usize) {
        let inside = AtomicU64::new(0);
        let start = Barrier::new(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..rounds {
                        let lock = place.acquire(WAIT).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        lock.release().unwrap();
                    }
                });
            }
        });
        assert!(place.leftovers().is_empty());
    }

    #[test]
    fn of_eight_threads_one_is_inside() {
        contend(&Place::new(), 8, 4);
    }

    #[test]
    fn of_many_that_find_one_dead_lock_one_takes_it_over() {
        let dead = owner(dead_pid());
        for round in 0..10 {
            let stale =
                Place::new().locked_with((round % 2 == 0).then_some(dead.as_str())).aged(ORPHAN_AGE * 2);
            contend(&stale, 12, 1);
        }
    }
}
