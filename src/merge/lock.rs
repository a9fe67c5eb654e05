//! The lock that keeps two merges out of one workspace, across processes and together with the TypeScript
//! module.
//!
//! The lock is a folder beside the workspace, made with `mkdir`. It contains `owner.json`, which names the
//! process that holds it. A process holds the lock once it has put its `owner.json` into the folder at the
//! lock's path. Three facts make that safe for any number of waiting processes:
//!
//! - `owner.json` is put there by a rename that replaces nothing, so only one of two processes succeeds.
//! - Everything inside the folder is done through a handle on it, so a folder that took its place is never
//!   touched.
//! - The folder is removed with `rmdir`, which fails while another process's `owner.json` is in it. At worst
//!   this removes an empty folder that a process is about to claim, and that process starts again. (Renaming
//!   the folder away first could move a held lock off its path for a moment.)
//!
//! *Its place.* All spellings of one folder have the same lock: it is beside the folder itself, links
//! resolved. (The TypeScript module puts its lock beside the path as it was given. So the two exclude each
//! other if that path is no link and does not end in `/` or `/.`, which is true of its own callers.) If the
//! parent folder is not writable, the lock is in the workspace's `.paperclip-runtime`. Processes with
//! different rights may use different places, so each one checks the other place once it holds its own, and
//! gives up its lock if the other is held.
//!
//! *Its holder.* See [`holder`](super::holder). The lock of a dead process is taken over. A holder on another
//! host or in another pid namespace, whose process cannot be checked from here, counts as alive until its
//! lock has not been renewed for [`RENEWED_FOR`]. For that reason a holder renews its lock, by touching
//! `owner.json`, as long as it runs asynchronous code.
//!
//! *Waiting.* The asynchronous waiters of one process queue up, and only the first one polls the lock. No
//! waiter takes a thread.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::{sleep, timeout};

use super::holder::{Holder, Record};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::claim::{Folder, Inode, Site};
use crate::fs::{Root, by_path};
use crate::sync::lock;
use crate::threads::blocking;
use crate::tree::stage::{RuntimeFolder, remove_unused_runtime, runtime};

/// How long a caller waits for a lock that another process holds.
pub const WAIT: Duration = Duration::from_secs(30);
/// How old a lock folder that names no process must be to count as abandoned. The holder of a younger one may
/// be about to write its `owner.json`.
pub const ORPHAN_AGE: Duration = Duration::from_secs(30);

/// How long a holder whose process cannot be checked from here counts as alive after it renewed its lock.
pub const RENEWED_FOR: Duration = Duration::from_secs(60);
/// How often a held lock is renewed.
const RENEW: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(50);
/// How often a lock folder may vanish while it is being taken, before we wait a moment.
const ATTEMPTS: usize = 64;
const SUFFIX: &str = ".paperclip-restore.lock";
/// The lock's name in the runtime folder, before [`SUFFIX`].
const INSIDE: &str = "workspace";
const ABANDONED: &str = "this lock was left behind by a process that has ended; remove its directory by hand";

/// A workspace's merge lock, held until [`MergeLock::release`] or until dropped.
#[derive(Debug)]
pub struct MergeLock {
    /// `None` once it is released.
    held: Option<Arc<Held>>,
    /// Lets the next waiter of this process proceed once the lock is released.
    queue_guard: Option<OwnedMutexGuard<()>>,
}

#[derive(Debug)]
struct Held {
    folder: Folder,
    owner_file: Inode,
    /// The content of `owner.json`. It is compared too, because an inode number may be used again.
    record: String,
    /// The workspace, if the lock is in its runtime folder.
    inside: Option<PathBuf>,
}

/// The outcome of one attempt to take a lock.
#[derive(Debug)]
pub enum Attempt {
    /// This process has it now.
    Taken(MergeLock),
    /// Another process holds it.
    Held {
        /// The lock's folder.
        lock: PathBuf,
        /// The process named by its `owner.json`.
        holder: Option<u32>,
    },
}

impl Attempt {
    fn held(lock: &Path, holder: Option<u32>) -> Self {
        Self::Held { lock: lock.to_path_buf(), holder }
    }
}

/// Where a workspace's lock may be.
#[derive(Debug, Clone)]
struct Places {
    beside: PathBuf,
    /// The workspace, links resolved, if it exists.
    workspace: Option<PathBuf>,
}

impl Places {
    fn of(target: &Path) -> Self {
        let named = |folder: PathBuf| {
            let mut path = OsString::from(folder);
            path.push(SUFFIX);
            PathBuf::from(path)
        };
        if let Ok(folder) = by_path::resolve(target) {
            return Self { beside: named(folder.clone()), workspace: Some(folder) };
        }
        // A workspace that does not exist has a lock as well. If its parent does not exist either, `mkdir`
        // reports that.
        let around = target.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let folder = match (by_path::resolve(around), target.file_name()) {
            (Ok(around), Some(name)) => around.join(name),
            _ => target.components().collect(),
        };
        Self { beside: named(folder), workspace: None }
    }

    /// Makes one attempt to take the lock.
    fn attempt(&self) -> Result<Attempt> {
        let beside = Site::beside(&self.beside);
        let failure = match MergeLock::take(&beside, None) {
            Ok(Attempt::Taken(lock)) => return self.unless_held_in_workspace(lock),
            Err(failure) if failure.forbids_writing() => failure,
            held_or_failed => return held_or_failed,
        };
        // The parent folder is not writable.
        let Some(workspace) = &self.workspace else { return Err(failure) };
        let Ok(taken) = take_in_workspace(workspace) else { return Err(failure) };
        let lock = match taken {
            Attempt::Taken(lock) => lock,
            held @ Attempt::Held { .. } => return Ok(held),
        };
        // A process that may write to the parent folder has its lock there.
        match LockState::at(&beside)? {
            LockState::Held(holder) => {
                lock.release()?;
                Ok(Attempt::held(&self.beside, holder))
            }
            LockState::Free | LockState::Abandoned(..) => Ok(Attempt::Taken(lock)),
        }
    }

    /// Gives the lock up if a process that may not write to the parent folder holds the one in the workspace.
    fn unless_held_in_workspace(&self, lock: MergeLock) -> Result<Attempt> {
        let Some(workspace) = &self.workspace else { return Ok(Attempt::Taken(lock)) };
        // Without a runtime folder, or with a link in its place, no lock can be in it.
        let Ok(within) = Root::open(workspace).and_then(|root| inside(&root)) else {
            return Ok(Attempt::Taken(lock));
        };
        match LockState::at(&within) {
            Ok(LockState::Held(holder)) => {
                lock.release()?;
                Ok(Attempt::held(within.path(), holder))
            }
            Ok(LockState::Free) | Err(_) => Ok(Attempt::Taken(lock)),
            Ok(LockState::Abandoned(folder, owner_file)) => {
                // It excludes nobody any more. If it cannot be removed, it stays.
                let _stays = folder.dismantle(owner_file);
                Ok(Attempt::Taken(lock))
            }
        }
    }
}

/// Takes the lock in the workspace's runtime folder.
fn take_in_workspace(workspace: &Path) -> Result<Attempt> {
    let root = Root::open(workspace)?;
    let _in_place = RuntimeFolder::open(&root)?;
    MergeLock::take(&inside(&root)?, Some(workspace))
}

/// The lock's place in the workspace's runtime folder. Fails if that is not a folder.
fn inside(workspace: &Root) -> Result<Site> {
    Ok(Site::within(workspace.below(&runtime())?, &format!("{INSIDE}{SUFFIX}")))
}

/// The queue of those in this process that wait for one lock.
fn queue_for(lock_path: &Path) -> Arc<AsyncMutex<()>> {
    static QUEUES: Mutex<BTreeMap<PathBuf, Weak<AsyncMutex<()>>>> = Mutex::new(BTreeMap::new());
    let mut queues = lock(&QUEUES);
    if let Some(queue) = queues.get(lock_path).and_then(Weak::upgrade) {
        return queue;
    }
    queues.retain(|_, queue| queue.strong_count() > 0);
    let queue = Arc::new(AsyncMutex::new(()));
    queues.insert(lock_path.to_path_buf(), Arc::downgrade(&queue));
    queue
}

impl MergeLock {
    /// Takes the lock of `target`. Waits until it is free, without taking a thread.
    ///
    /// A lock is taken over if its process is dead, or if it names no process and is [`ORPHAN_AGE`] old. It
    /// is renewed while it is held.
    ///
    /// Fails with [`Error::LockTimeout`] after `wait`, with [`Error::Aborted`] once cancelled, and at once
    /// with [`Error::Io`] if a lock folder cannot be made, or an abandoned one cannot be removed.
    pub async fn acquire(target: &Path, wait: Duration, cancel: &Cancel) -> Result<Self> {
        let since = Instant::now();
        let target = target.to_path_buf();
        let places = blocking(move || Ok(Places::of(&target))).await?;
        Self::acquire_in(places, since, wait, cancel).await
    }

    /// Takes the lock whose folder is `path`, as [`MergeLock::acquire`] does. For callers that agree on their
    /// own place for locks with everybody who uses the workspace.
    pub async fn acquire_at(path: PathBuf, wait: Duration, cancel: &Cancel) -> Result<Self> {
        let places = Places { beside: path, workspace: None };
        Self::acquire_in(places, Instant::now(), wait, cancel).await
    }

    async fn acquire_in(places: Places, since: Instant, wait: Duration, cancel: &Cancel) -> Result<Self> {
        let left = || wait.saturating_sub(since.elapsed());
        // Waiters of this process proceed in the order in which they asked.
        let mut queue = pin!(queue_for(&places.beside).lock_owned());
        let queue_guard = loop {
            cancel.check()?;
            match timeout(POLL.min(left()), &mut queue).await {
                Ok(queue_guard) => break Some(queue_guard),
                // It still makes one attempt, to report who holds the lock.
                Err(_) if left().is_zero() => break None,
                Err(_) => {}
            }
        };
        loop {
            cancel.check()?;
            let attempted = places.clone();
            match blocking(move || attempted.attempt()).await? {
                Attempt::Taken(mut lock) => {
                    lock.queue_guard = queue_guard;
                    lock.keep_renewed();
                    return Ok(lock);
                }
                Attempt::Held { lock, holder } if left().is_zero() => {
                    return Err(Error::LockTimeout { lock, holder, waited_s: wait.as_secs() });
                }
                Attempt::Held { .. } => sleep(POLL.min(left())).await,
            }
        }
    }

    /// Takes the lock of `target` if it is free. It is renewed automatically only if the calling thread
    /// belongs to an asynchronous runtime; other callers use [`MergeLock::renew`].
    pub fn try_acquire(target: &Path) -> Result<Attempt> {
        let attempt = Places::of(target).attempt()?;
        if let Attempt::Taken(lock) = &attempt {
            lock.keep_renewed();
        }
        Ok(attempt)
    }

    /// Makes one attempt at the lock at this place, which may be in a workspace's runtime folder.
    fn take(site: &Site, inside: Option<&Path>) -> Result<Attempt> {
        for _ in 0..ATTEMPTS {
            if site.make()?
                && let Some(lock) = Self::claim(site, inside)?
            {
                return Ok(Attempt::Taken(lock));
            }
            match LockState::at(site)? {
                LockState::Free => {}
                LockState::Held(holder) => return Ok(Attempt::held(site.path(), holder)),
                LockState::Abandoned(folder, owner_file) => {
                    if !folder.dismantle(owner_file).map_err(|error| error.with_hint(ABANDONED))? {
                        return Ok(Attempt::held(site.path(), None));
                    }
                }
            }
        }
        Ok(Attempt::held(site.path(), None))
    }

    /// Shows that the holder is alive to those that cannot check its process. Returns `false` if the lock is
    /// another's by now.
    pub fn renew(&self) -> Result<bool> {
        self.held.as_ref().map_or(Ok(false), |held| held.renew())
    }

    /// Renews the lock as long as it is held, if there is an asynchronous runtime to do so.
    fn keep_renewed(&self) {
        if let (Some(held), Ok(runtime)) = (&self.held, tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn(keep_renewed(Arc::downgrade(held))));
        }
    }

    /// Puts this process's `owner.json` into the folder that was just made. Returns `None` if another process
    /// interfered: the folder is gone, or is claimed.
    fn claim(site: &Site, inside: Option<&Path>) -> Result<Option<Self>> {
        let Some(folder) = Folder::open(site)? else { return Ok(None) };
        let record = Record::ours().text()?;
        match folder.write_owner(record.as_bytes()) {
            Ok(Some(owner_file)) => {
                let inside = inside.map(Path::to_path_buf);
                let held = Held { folder, owner_file, record, inside };
                let mut lock = Self { held: Some(Arc::new(held)), queue_guard: None };
                if !lock.is_ours()? {
                    lock.held = None;
                    return Ok(None);
                }
                Ok(Some(lock))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                // The caller must know why `owner.json` could not be written. If the folder cannot be
                // removed, it names no process and is taken over once it is old enough.
                folder.dismantle(None).ok();
                Err(error)
            }
        }
    }

    /// Whether the lock is still at its path and still names us.
    ///
    /// The TypeScript module removes a lock folder that names no process, however young it is, and overwrites
    /// an existing `owner.json`. Then it holds the lock.
    fn is_ours(&self) -> Result<bool> {
        self.held
            .as_ref()
            .map_or(Ok(false), |held| Ok(held.names_us()? == Some(true) && held.folder.is_at_its_path()?))
    }

    /// Removes the lock of a dead holder. It stays if the holder is alive, or if that is unknown.
    pub fn clear_abandoned(target: &Path) -> Result<()> {
        if !by_path::exists(&Places::of(target).beside) {
            return Ok(());
        }
        match Self::try_acquire(target)? {
            Attempt::Taken(lock) => lock.release(),
            Attempt::Held { .. } => Ok(()),
        }
    }

    /// Releases the lock. A lock that another process took over in between is left to it.
    pub fn release(mut self) -> Result<()> {
        self.release_now()
    }

    fn release_now(&mut self) -> Result<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let removed = match held.names_us() {
            Ok(Some(false)) => Ok(true),
            _ => held.folder.dismantle(Some(held.owner_file)),
        };
        drop(self.queue_guard.take());
        removed?;
        // The runtime folder was made for the lock, unless it contains something else.
        held.inside.as_ref().map_or(Ok(()), |workspace| remove_unused_runtime(&Root::open(workspace)?))
    }
}

impl Drop for MergeLock {
    fn drop(&mut self) {
        // Nobody is left to report a failure to. A lock that stays names this process and is taken over once that
        // has ended.
        self.release_now().ok();
    }
}

impl Held {
    /// Whether `owner.json` is still as we wrote it; `None` if it is gone.
    fn names_us(&self) -> Result<Option<bool>> {
        match self.folder.read_owner() {
            Ok(found) => Ok(Some(found == self.record.as_bytes())),
            Err(error) if error.is_io(io::ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn renew(&self) -> Result<bool> {
        if self.names_us()? != Some(true) {
            return Ok(false);
        }
        self.folder.renew()
    }
}

async fn keep_renewed(held: Weak<Held>) {
    loop {
        sleep(RENEW).await;
        let Some(held) = held.upgrade() else { return };
        // A failure, or the loss of the lock, does not affect the holder's own work. The next round tries
        // again.
        drop(blocking(move || held.renew()).await);
    }
}

/// The state of the lock at a path.
enum LockState {
    /// There is no lock.
    Free,
    /// Held by this living process, or by one that is not known (yet).
    Held(Option<u32>),
    /// A lock that nobody will release, with its `owner.json` if it has one.
    Abandoned(Folder, Option<Inode>),
}

impl LockState {
    fn at(site: &Site) -> Result<Self> {
        let folder = match Folder::open(site) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(Self::Free),
            // A file, a link, or a folder that we may not read: we do not touch it.
            Err(error) if error.means_link() || error.is_io(io::ErrorKind::PermissionDenied) => {
                return Ok(Self::Held(None));
            }
            Err(error) => return Err(error),
        };
        let owner_file = folder.owner_file()?;
        match record(&folder).map_or(Holder::Nobody, |record| record.judge_here()) {
            Holder::Lives(pid) => return Ok(Self::Held(Some(pid))),
            Holder::Dead => return Ok(Self::Abandoned(folder, owner_file)),
            Holder::OutOfSight(pid) => {
                return Ok(if was_renewed(&folder)? {
                    Self::Held(Some(pid))
                } else {
                    Self::Abandoned(folder, owner_file)
                });
            }
            Holder::Nobody => {}
        }
        let written = folder.written()?;
        // A folder with a time in the future counts as young.
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        Ok(if age < ORPHAN_AGE { Self::Held(None) } else { Self::Abandoned(folder, owner_file) })
    }
}

/// The content of `owner.json`. One that cannot be read or parsed names no process, and then the age of the
/// folder decides.
fn record(folder: &Folder) -> Option<Record> {
    Record::read(&folder.read_owner().ok()?)
}

/// Whether `owner.json` was written or touched recently.
fn was_renewed(folder: &Folder) -> Result<bool> {
    let Some(renewed) = folder.renewed()? else { return Ok(true) };
    // A time in the future counts as recent.
    let is_recent = |now: SystemTime| now.duration_since(renewed).unwrap_or_default() < RENEWED_FOR;
    if is_recent(SystemTime::now()) {
        return Ok(true);
    }
    // The volume's clock counts, because it may differ from ours. Ours is used if nothing can be written
    // there.
    Ok(folder.clock()?.is_some_and(is_recent))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::process::CommandExt as _;
    use std::process::{self, Child, Command};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

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

        /// Makes the lock as another process does.
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
            acquire_blocking(&self.workspace(), wait, &Cancel::default())
        }

        /// The names of everything beside the workspace.
        fn leftovers(&self) -> BTreeSet<OsString> {
            let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name != "workspace").collect()
        }
    }

    /// Waits for the lock on this thread.
    fn acquire_blocking(target: &Path, wait: Duration, cancel: &Cancel) -> Result<MergeLock> {
        let since = Instant::now();
        loop {
            cancel.check()?;
            let (lock, holder) = match MergeLock::try_acquire(target)? {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Held { lock, holder } => (lock, holder),
            };
            let left = wait.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(Error::LockTimeout { lock, holder, waited_s: wait.as_secs() });
            }
            thread::sleep(POLL.min(left));
        }
    }

    /// An `owner.json` as the TypeScript module writes it.
    fn owner(pid: u32) -> String {
        let now = crate::time::utc_timestamp(SystemTime::now());
        format!("{{\"pid\":{pid},\"createdAt\":\"{now}\"}}\n")
    }

    /// The `owner.json` of a process on another host.
    fn owner_elsewhere() -> String {
        owner(7).replace('}', ",\"host\":\"elsewhere\",\"boot\":\"another\"}")
    }

    /// The number of a process that has ended.
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
    fn a_held_lock_names_this_process_in_the_typescript_modules_format() {
        let place = Place::new();
        let lock = place.acquire(PROMPTLY).unwrap();
        let text = fs::read_to_string(place.owner_file()).unwrap();
        assert!(text.starts_with(&format!("{{\"pid\":{},\"createdAt\":\"20", process::id())), "{text}");
        assert!(Record::read(text.as_bytes()).is_some(), "{text}");
        assert_eq!(fs::read_dir(place.lock()).unwrap().count(), 1);
        lock.release().unwrap();
        assert!(place.leftovers().is_empty());
    }

    #[test]
    fn all_spellings_of_a_folder_have_one_lock() {
        let place = Place::new();
        let around = place.0.path();
        symlink("workspace", around.join("link")).unwrap();
        symlink(around, around.join("workspace/up")).unwrap();
        symlink("missing", around.join("dangling")).unwrap();
        for (spelling, lock) in [
            ("workspace", "workspace"),
            ("workspace/", "workspace"),
            ("workspace//.", "workspace"),
            ("./workspace/./", "workspace"),
            ("workspace/../workspace", "workspace"),
            ("link", "workspace"),
            ("link/", "workspace"),
            ("link/up/link/.", "workspace"),
            ("missing", "missing"),
            ("missing/", "missing"),
            ("missing/.", "missing"),
            ("link/up/missing", "missing"),
            ("dangling", "dangling"),
        ] {
            let spelled = around.join(spelling);
            let held = acquire_blocking(&spelled, PROMPTLY, &Cancel::default()).unwrap();
            let beside = around.join(format!("{lock}.paperclip-restore.lock"));
            assert!(beside.join("owner.json").exists(), "{spelling}");
            if lock == "workspace" {
                assert_eq!(timed_out(place.acquire(Duration::ZERO)), Some(process::id()), "{spelling}");
            }
            held.release().unwrap();
            assert!(!beside.exists(), "{spelling}");
        }
        assert_eq!(
            fs::read_dir(place.workspace()).unwrap().count(),
            1,
            "nothing in the workspace but the link"
        );
    }

    #[test]
    fn a_holder_on_another_host_is_waited_for_while_it_renews_its_lock() {
        let touch = |place: &Place, age: Duration| {
            let file = File::options().write(true).open(place.owner_file()).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        let place = Place::new().locked_with(Some(&owner_elsewhere())).aged(Duration::from_secs(3600));
        for (age, is_held) in [(0, true), (55, true), (61, false)] {
            touch(&place, Duration::from_secs(age));
            let held = matches!(
                MergeLock::try_acquire(&place.workspace()).unwrap(),
                Attempt::Held { holder: Some(7), .. }
            );
            assert_eq!(held, is_held, "renewed {age} s ago");
        }
        assert!(place.leftovers().is_empty(), "it was taken over and released");
    }

    #[test]
    fn only_a_lock_that_is_still_held_is_renewed() {
        let place = Place::new();
        let lock = place.acquire(PROMPTLY).unwrap();
        let set_old = || {
            let file = File::options().write(true).open(place.owner_file()).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        };
        let modified = || fs::metadata(place.owner_file()).unwrap().modified().unwrap();
        set_old();
        assert!(lock.renew().unwrap());
        assert!(modified() > SystemTime::now() - RENEWED_FOR);
        fs::remove_file(place.owner_file()).unwrap();
        assert!(!lock.renew().unwrap());
        fs::write(place.lock().join("new"), owner(1)).unwrap();
        fs::rename(place.lock().join("new"), place.owner_file()).unwrap();
        set_old();
        assert!(!lock.renew().unwrap(), "it is another's now");
        assert_eq!(modified(), SystemTime::UNIX_EPOCH);
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_lock_is_renewed_automatically() {
        let place = Place::new();
        let lock = MergeLock::acquire(&place.workspace(), Duration::ZERO, &Cancel::default()).await.unwrap();
        let file = File::options().write(true).open(place.owner_file()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        while fs::metadata(place.owner_file()).unwrap().modified().unwrap() == SystemTime::UNIX_EPOCH {
            sleep(RENEW).await;
        }
        lock.release().unwrap();
        assert!(place.leftovers().is_empty());
    }

    #[tokio::test]
    async fn waiters_of_one_process_get_the_lock_in_the_order_in_which_they_asked() {
        let place = Place::new();
        let workspace = place.workspace();
        let first = MergeLock::acquire(&workspace, WAIT, &Cancel::default()).await.unwrap();
        let queue = queue_for(&Places::of(&workspace).beside);
        let came = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = tokio::task::JoinSet::new();
        for at in 0..50 {
            let (workspace, came) = (workspace.clone(), came.clone());
            waiting.spawn(async move {
                let taken = MergeLock::acquire(&workspace, WAIT, &Cancel::default()).await.unwrap();
                lock(&came).push(at);
                taken.release().unwrap();
            });
            // All tasks run on this thread, so a task that has reached the queue is waiting in it.
            while Arc::strong_count(&queue) < at + 3 {
                tokio::task::yield_now().await;
            }
        }
        first.release().unwrap();
        while waiting.join_next().await.is_some() {}
        assert_eq!(*lock(&came), (0..50).collect::<Vec<_>>());
        assert!(place.leftovers().is_empty());
    }

    #[tokio::test]
    async fn a_queued_waiter_can_be_cancelled_and_times_out() {
        let place = Place::new();
        let workspace = place.workspace();
        let first = MergeLock::acquire(&workspace, WAIT, &Cancel::default()).await.unwrap();
        for _ in 0..2 {
            let outcome = MergeLock::acquire(&workspace, PROMPTLY, &Cancel::default()).await;
            assert_eq!(timed_out(outcome), Some(process::id()));
        }
        let cancel = Cancel::default();
        let waiting = {
            let (workspace, cancel) = (workspace.clone(), cancel.clone());
            tokio::spawn(async move { MergeLock::acquire(&workspace, Duration::MAX, &cancel).await })
        };
        sleep(Duration::from_millis(20)).await;
        cancel.cancel();
        assert!(matches!(waiting.await.unwrap(), Err(Error::Aborted)));
        first.release().unwrap();
        MergeLock::acquire(&workspace, Duration::ZERO, &Cancel::default()).await.unwrap().release().unwrap();
    }

    #[test]
    fn a_lock_of_the_same_process_blocks_too() {
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
    fn a_lock_that_names_no_process_is_taken_over_only_when_old() {
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
    fn an_abandoned_lock_is_removed_with_its_content_and_no_link_is_followed() {
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
    fn a_link_or_file_at_the_locks_path_is_not_touched() {
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
    fn an_owner_file_that_is_a_link_names_no_process() {
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
    fn a_timeout_names_the_lock_and_its_holder() {
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
    fn a_lock_that_cannot_be_made_fails_at_once() {
        let place = Place::new();
        let file = place.0.path().join("file");
        fs::write(&file, "").unwrap();
        for (target, kind) in [
            (place.0.path().join("missing/workspace"), io::ErrorKind::NotFound),
            (file.join("workspace"), io::ErrorKind::NotADirectory),
        ] {
            let error = acquire_blocking(&target, WAIT, &Cancel::default()).unwrap_err();
            assert!(error.is_io(kind) && matches!(error, Error::Io { syscall: "mkdir", .. }), "{error}");
        }
    }

    #[test]
    fn another_user_gets_the_lock_only_where_it_may_write() {
        const NAME: &str = "merge::lock::tests::another_user_gets_the_lock_only_where_it_may_write";
        let Some(parent) = std::env::var_os("UNWRITABLE_PARENT").map(PathBuf::from) else {
            let place = Place::new().locked_with(Some(&owner(dead_pid())));
            let living = place.0.path().join("living.paperclip-restore.lock");
            fs::create_dir(&living).unwrap();
            fs::write(living.join("owner.json"), owner(1)).unwrap();
            for (own, holder) in
                [("own", None), ("own-with-dead-lock", Some(dead_pid())), ("own-with-living-lock", Some(1))]
            {
                let own = place.0.path().join(own);
                fs::create_dir(&own).unwrap();
                if rustix::process::geteuid().is_root() {
                    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
                }
                if let Some(pid) = holder {
                    let beside = PathBuf::from(format!("{}.paperclip-restore.lock", own.display()));
                    fs::create_dir(&beside).unwrap();
                    fs::write(beside.join("owner.json"), owner(pid)).unwrap();
                }
            }
            // Root may write anywhere, so the test runs itself again as another user, who may not be able to
            // reach the original binary.
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
        let acquire = |target, wait| acquire_blocking(&parent.join(target), wait, &Cancel::default());
        let denied = |target| {
            let error = acquire(target, WAIT).unwrap_err();
            assert!(error.is_io(io::ErrorKind::PermissionDenied), "{error}");
            error
        };
        assert!(matches!(denied("other"), Error::Io { syscall: "mkdir", .. }));
        // Nobody will release a dead process's lock, so waiting for it would be in vain.
        assert!(denied("workspace").to_string().contains("by hand"));
        // A process that may not be signalled is alive.
        assert_eq!(timed_out(acquire("living", Duration::ZERO)), Some(1));

        // In a workspace of its own the lock has a place nevertheless.
        for own in ["own", "own-with-dead-lock"] {
            let lock = acquire(own, Duration::ZERO).unwrap();
            let runtime = parent.join(own).join(".paperclip-runtime");
            assert_eq!(fs::read_to_string(runtime.join(".gitignore")).unwrap(), "*\n");
            assert!(runtime.join("workspace.paperclip-restore.lock/owner.json").exists());
            assert_eq!(timed_out(acquire(own, PROMPTLY)), Some(process::id()));
            lock.release().unwrap();
            assert_eq!(fs::read_dir(parent.join(own)).unwrap().count(), 0, "nothing is left of it");
        }
        assert_eq!(timed_out(acquire("own-with-living-lock", Duration::ZERO)), Some(1));
        assert_eq!(fs::read_dir(parent.join("own-with-living-lock")).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_in_the_workspace_excludes_processes_that_may_write_beside_it() {
        let place = Place::new();
        let Attempt::Taken(inside) = take_in_workspace(&place.workspace()).unwrap() else {
            panic!("it is held")
        };
        let error = place.acquire(PROMPTLY).unwrap_err();
        let held = place.workspace().join(".paperclip-runtime/workspace.paperclip-restore.lock");
        assert!(matches!(&error, Error::LockTimeout { lock, .. } if *lock == held), "{error}");
        assert!(place.leftovers().is_empty(), "they gave it up again");
        inside.release().unwrap();
        assert!(!place.workspace().join(".paperclip-runtime").exists());

        fs::create_dir_all(&held).unwrap();
        fs::write(held.join("owner.json"), owner(dead_pid())).unwrap();
        place.acquire(Duration::ZERO).unwrap().release().unwrap();
        assert!(!held.exists(), "a dead one excludes nobody");
    }

    #[test]
    fn a_link_in_place_of_the_runtime_folder_is_not_followed() {
        let place = Place::new();
        let outside = tempfile::tempdir().unwrap();
        let dead = outside.path().join("workspace.paperclip-restore.lock");
        symlink(outside.path(), place.workspace().join(".paperclip-runtime")).unwrap();
        for owner in [owner(dead_pid()), owner(process::id())] {
            fs::create_dir_all(&dead).unwrap();
            fs::write(dead.join("owner.json"), &owner).unwrap();
            place.acquire(Duration::ZERO).unwrap().release().unwrap();
            assert!(take_in_workspace(&place.workspace()).is_err());
            assert_eq!(fs::read_to_string(dead.join("owner.json")).unwrap(), owner);
        }
    }

    #[test]
    fn a_link_that_replaces_the_runtime_folder_of_a_held_lock_is_not_followed() {
        let place = Place::new();
        let Attempt::Taken(inside) = take_in_workspace(&place.workspace()).unwrap() else {
            panic!("it is held")
        };
        let (runtime, moved) =
            (place.workspace().join(".paperclip-runtime"), place.workspace().join("moved"));
        let outside = tempfile::tempdir().unwrap();
        let other = outside.path().join("workspace.paperclip-restore.lock");
        fs::create_dir(&other).unwrap();
        fs::rename(&runtime, &moved).unwrap();
        symlink(outside.path(), &runtime).unwrap();
        // Whether this reports a failure does not matter here.
        drop(inside);
        assert!(other.exists());
        assert!(!moved.join("workspace.paperclip-restore.lock").exists(), "it is where it was made");
    }

    #[test]
    fn waiting_ends_when_cancelled() {
        let place = Place::new();
        let _lock = place.acquire(PROMPTLY).unwrap();
        let cancel = Cancel::default();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| acquire_blocking(&place.workspace(), Duration::MAX, &cancel));
            cancel.cancel();
            assert!(matches!(waiter.join().unwrap(), Err(Error::Aborted)));
        });
    }

    #[test]
    fn a_lock_that_was_taken_over_is_not_released() {
        let theirs = owner(1);
        let place = Place::new();
        let lock = place.acquire(PROMPTLY).unwrap();
        fs::remove_dir_all(place.lock()).unwrap();
        let place = place.locked_with(Some(&theirs));
        lock.release().unwrap();
        assert_eq!(fs::read_to_string(place.owner_file()).unwrap(), theirs);

        // Also if they only put their own `owner.json` into the same folder.
        fs::remove_dir_all(place.lock()).unwrap();
        let lock = place.acquire(PROMPTLY).unwrap();
        fs::write(place.lock().join("new"), &theirs).unwrap();
        fs::rename(place.lock().join("new"), place.owner_file()).unwrap();
        drop(lock);
        assert_eq!(fs::read_to_string(place.owner_file()).unwrap(), theirs);

        fs::remove_dir_all(place.lock()).unwrap();
        let lock = place.acquire(PROMPTLY).unwrap();
        fs::remove_dir_all(place.lock()).unwrap();
        lock.release().unwrap();
    }

    fn abandoned(place: &Place) -> (Folder, Option<Inode>) {
        match LockState::at(&Site::beside(&place.lock())).unwrap() {
            LockState::Abandoned(folder, owner_file) => (folder, owner_file),
            _ => panic!("not left behind"),
        }
    }

    #[test]
    fn a_late_takeover_of_a_dead_lock_does_not_remove_the_new_one() {
        for text in [Some(owner(dead_pid())), None] {
            let place = Place::new().locked_with(text.as_deref()).aged(ORPHAN_AGE);
            let (late, owner_file) = abandoned(&place);
            let lock = place.acquire(Duration::ZERO).unwrap();
            late.dismantle(owner_file).unwrap();
            assert!(
                lock.held.as_ref().unwrap().folder.is_at_its_path().unwrap() && place.owner_file().exists()
            );
        }
    }

    #[test]
    fn a_holder_that_writes_its_owner_file_late_keeps_the_lock() {
        let place = Place::new().locked_with(None).aged(ORPHAN_AGE);
        let (judged, owner_file) = abandoned(&place);
        let late = MergeLock::claim(&Site::beside(&place.lock()), None).unwrap().unwrap();
        assert!(!judged.dismantle(owner_file).unwrap());
        assert!(late.held.as_ref().unwrap().folder.is_at_its_path().unwrap() && place.owner_file().exists());
    }

    #[test]
    fn a_claim_never_replaces_an_owner_file() {
        let theirs = owner(1);
        let place = Place::new().locked_with(Some(&theirs));
        assert!(MergeLock::claim(&Site::beside(&place.lock()), None).unwrap().is_none());
        assert_eq!(fs::read_to_string(place.owner_file()).unwrap(), theirs);
        assert_eq!(fs::read_dir(place.lock()).unwrap().count(), 1, "no draft is left");

        fs::remove_dir_all(place.lock()).unwrap();
        assert!(MergeLock::claim(&Site::beside(&place.lock()), None).unwrap().is_none());
    }

    #[test]
    fn a_lock_whose_owner_file_was_overwritten_is_not_ours() {
        let place = Place::new();
        let lock = place.acquire(PROMPTLY).unwrap();
        assert!(lock.is_ours().unwrap());
        fs::write(place.owner_file(), owner(1)).unwrap();
        assert!(!lock.is_ours().unwrap());
        fs::remove_dir_all(place.lock()).unwrap();
        assert!(!lock.is_ours().unwrap());
    }

    /// Lets `threads` threads take the lock `rounds` times each, and checks that only one holds it at a time.
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
    fn only_one_of_eight_threads_holds_the_lock() {
        contend(&Place::new(), 8, 4);
    }

    #[test]
    fn only_one_of_many_threads_takes_a_dead_lock_over() {
        let dead = owner(dead_pid());
        for round in 0..10 {
            let stale =
                Place::new().locked_with((round % 2 == 0).then_some(dead.as_str())).aged(ORPHAN_AGE * 2);
            contend(&stale, 12, 1);
        }
    }
}
