//! The exports from which `index.js` builds the package's functions.
//!
//! None of them is an `async fn`, because its future would borrow `self` and the arguments on another thread,
//! where the end of the environment (for example, of a terminated worker thread) frees them. Each export
//! reads what it needs on the calling thread, and starts a future that owns it.

use std::cell::OnceCell;
use std::sync::{Arc, Mutex, PoisonError};

use napi::Env;
use napi_derive::napi;
use serde::Deserialize;

use super::client::{Dispatch, JsClient};
use super::error::{run_to_napi, to_napi};
use super::memory::giving_back;
use super::promise::{Promised, promise};
use super::values::{self, Bytes, argument};
use crate::archive::contents;
use crate::archive::pack::create_tarball;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exclude::{ExcludePatterns, PathSet, SnapshotPatterns};
use crate::fs::{Kind, Root};
use crate::git::command::Git;
use crate::git::export::Mode;
use crate::git::refs::Oid;
use crate::git::search::Search;
use crate::merge::conflicts::Retention;
use crate::merge::folder::{FolderMerge, FolderMergeInput, Source};
use crate::merge::lock::{self, MergeLock};
use crate::mirror::{Mirror, POLL};
use crate::path::RelativePath;
use crate::sandbox::client::{Attachment, blocking};
use crate::sandbox::prepare::prepare;
use crate::sandbox::repositories::Travel;
use crate::sandbox::resume::resume;
use crate::sandbox::session::Session;
use crate::sandbox::upload::{Asset, State, Upload};
use crate::threads;
use crate::tree::entry::{Entry, Snapshot};
use crate::tree::filter::Filter;
use crate::tree::scan::{Reader, inspect, snapshot};

/// How many entries of a snapshot or report are passed in one turn of the event loop, which takes about a
/// millisecond.
const ENTRIES_A_TURN: usize = 1000;

async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> napi::Result<T> {
    blocking(work).await.map_err(|error| to_napi(&error))
}

/// Lets JavaScript cancel work, and cancels it when the environment ends.
#[napi]
pub struct Canceller {
    cancel: Cancel,
    attachment: Attachment,
}

#[napi]
impl Canceller {
    #[napi(constructor)]
    pub fn new(env: Env) -> napi::Result<Self> {
        let Environment { ending, attachment } = environment(env)?;
        Ok(Self { cancel: ending.child(), attachment })
    }

    #[napi]
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// What ends with an environment: that is, with a terminated worker thread or with the process.
#[derive(Clone, Default)]
struct Environment {
    ending: Cancel,
    attachment: Attachment,
}

/// The environment of this thread. When it ends, its clean-up hook cancels the work, and waits for threads
/// that use JavaScript's memory before that is freed.
fn environment(env: Env) -> napi::Result<Environment> {
    thread_local!(static ENVIRONMENT: OnceCell<Environment> = const { OnceCell::new() });
    ENVIRONMENT.with(|environment| {
        if let Some(environment) = environment.get() {
            return Ok(environment.clone());
        }
        let new = environment.get_or_init(Environment::default).clone();
        env.add_env_cleanup_hook(new.clone(), |Environment { ending, attachment }| {
            ending.cancel();
            attachment.end();
        })?;
        Ok(new)
    })
}

fn bytes(values: Vec<Bytes>) -> Vec<Vec<u8>> {
    values.into_iter().map(|Bytes(bytes)| bytes).collect()
}

// What `index.js` sends as JSON has exactly the fields that are read here. So neither side can drift from the
// other.

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TarballInput {
    local_dir: Bytes,
    archive_path: Bytes,
    exclude: Vec<Bytes>,
    ignore_files: Vec<Bytes>,
    follow_symlinks: bool,
    only: Option<Vec<Bytes>>,
}

#[napi]
pub fn create_tarball_from_directory<'env>(
    env: &'env Env,
    input: String,
    canceller: &Canceller,
) -> Promised<'env, ()> {
    let cancel = canceller.cancel.clone();
    promise(
        env,
        off_the_loop(move || {
            let input: TarballInput = argument("input", &input)?;
            let (folder, archive) = (input.local_dir.into_path(), input.archive_path.into_path());
            let only = input.only.map(bytes);
            let (exclude, ignore_files) = (bytes(input.exclude), bytes(input.ignore_files));
            let follow_links = input.follow_symlinks;
            create_tarball(&folder, &archive, &exclude, &ignore_files, only.as_deref(), follow_links, &cancel)
        }),
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MirrorInput {
    source_dir: Bytes,
    target_dir: Bytes,
    preserve_absent: Vec<Bytes>,
}

#[napi]
pub fn mirror_directory<'env>(env: &'env Env, input: String, canceller: &Canceller) -> Promised<'env, ()> {
    let cancel = canceller.cancel.clone();
    promise(env, async move {
        let input: MirrorInput = argument("input", &input).map_err(|error| to_napi(&error))?;
        let preserve = PathSet::new("options.preserveAbsent", bytes(input.preserve_absent));
        let preserve = preserve.map_err(|error| to_napi(&error))?;
        let folders = Arc::new((input.source_dir.into_path(), input.target_dir.into_path()));
        // Waits for other mirrors without a thread.
        let mirror = loop {
            let (stop, folders) = (cancel.clone(), folders.clone());
            let begun = off_the_loop(move || {
                stop.check()?;
                Mirror::begin(&folders.0, &folders.1, &stop)
            });
            if let Some(mirror) = begun.await? {
                break mirror;
            }
            tokio::time::sleep(POLL).await;
        };
        off_the_loop(move || mirror.finish(&preserve, &cancel)).await
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PrepareInput {
    workspace_local_dir: Bytes,
    workspace_remote_dir: Option<String>,
    remote_cwd: String,
    adapter_key: String,
    workspace_exclude: Vec<Bytes>,
    ignore_files: Vec<Bytes>,
    preserve_absent_on_restore: Vec<Bytes>,
    assets: Vec<AssetInput>,
    concurrency: usize,
    part_bytes: u64,
    compress: bool,
    changes_only: bool,
    state_dir: Option<Bytes>,
    sandbox: [Bytes; 2],
    parts_at_once: usize,
    git: GitInput,
    git_credentials: bool,
    git_depth: Option<usize>,
    /// `null` is forever.
    keep_conflicts_days: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum GitInput {
    Merge,
    Files,
    Off,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AssetInput {
    key: String,
    local_dir: Bytes,
    follow_symlinks: bool,
    exclude: Vec<Bytes>,
}

impl From<PrepareInput> for Upload {
    fn from(input: PrepareInput) -> Self {
        let (remote_dir, remote_dir_argument) = match input.workspace_remote_dir {
            Some(remote_dir) => (remote_dir, "input.workspaceRemoteDir"),
            None => (input.remote_cwd, "input.spec.remoteCwd"),
        };
        let asset = |asset: AssetInput| Asset {
            key: asset.key,
            local_dir: asset.local_dir.into_path(),
            follow_links: asset.follow_symlinks,
            exclude: bytes(asset.exclude),
        };
        Self {
            workspace: input.workspace_local_dir.into_path(),
            remote_dir,
            remote_dir_argument,
            adapter_key: input.adapter_key,
            exclude: bytes(input.workspace_exclude),
            ignore_files: bytes(input.ignore_files),
            preserve: bytes(input.preserve_absent_on_restore),
            assets: input.assets.into_iter().map(asset).collect(),
            concurrency: input.concurrency,
            part_bytes: input.part_bytes,
            parts_at_once: input.parts_at_once,
            repositories: Travel {
                mode: match input.git {
                    GitInput::Merge => Mode::Merge,
                    GitInput::Files => Mode::Files,
                    GitInput::Off => Mode::Off,
                },
                credentials: input.git_credentials,
                depth: input.git_depth,
            },
            compress: input.compress,
            changes_only: input.changes_only,
            state: input.state_dir.map(|folder| State {
                folder: folder.into_path(),
                sandbox: input.sandbox.map(|Bytes(bytes)| bytes),
            }),
            retention: input.keep_conflicts_days.map_or(Retention::Forever, Retention::Days),
        }
    }
}

/// A workspace that was prepared in a sandbox.
#[napi]
pub struct PreparedSession(Option<Arc<Session>>);

impl PreparedSession {
    fn session(&self) -> &Arc<Session> {
        self.0.as_ref().expect("it is taken when this is dropped, and not before")
    }
}

impl Drop for PreparedSession {
    /// The garbage collector runs on the event loop, and freeing a base with many entries takes long.
    fn drop(&mut self) {
        let session = self.0.take();
        threads::in_background(move || drop(session));
    }
}

#[napi]
pub fn prepare_session<'env>(
    env: &'env Env,
    input: String,
    dispatch: Dispatch,
    canceller: &Canceller,
) -> Promised<'env, PreparedSession> {
    let cancel = canceller.cancel.clone();
    let client = Arc::new(JsClient::new(dispatch, canceller.attachment.clone()));
    promise(env, async move {
        let input: PrepareInput = argument("input", &input).map_err(|error| to_napi(&error))?;
        let session = giving_back(prepare(client, input.into(), cancel)).await.map_err(run_to_napi)?;
        Ok(PreparedSession(Some(Arc::new(session))))
    })
}

/// The session of an earlier prepare, possibly by another process. Makes no call to the client.
#[napi]
pub fn resume_session(env: &Env, input: String) -> Promised<'_, PreparedSession> {
    promise(
        env,
        off_the_loop(move || {
            let input: PrepareInput = argument("input", &input)?;
            resume(input.into()).map(|session| PreparedSession(Some(Arc::new(session))))
        }),
    )
}

#[napi]
impl PreparedSession {
    /// The folder of this run in the sandbox.
    #[napi]
    #[must_use]
    pub fn runtime_root_dir(&self) -> String {
        self.session().runtime_root().to_owned()
    }

    /// The report of the prepare, as JSON: see [`values::prepare_report`].
    #[napi]
    #[must_use]
    pub fn prepare_report(&self) -> String {
        values::prepare_report(self.session().report())
    }

    /// Restores. Resolves with the report in pieces, if it is wanted: see [`values::report`].
    #[napi]
    pub fn restore<'env>(
        &self,
        env: &'env Env,
        dispatch: Dispatch,
        canceller: &Canceller,
        wants_report: bool,
        dry_run: bool,
    ) -> Promised<'env, Option<Pieces>> {
        let (session, cancel) = (self.session().clone(), canceller.cancel.clone());
        let client = JsClient::new(dispatch, canceller.attachment.clone());
        promise(env, async move {
            let restored =
                giving_back(session.restore(&client, dry_run, &cancel)).await.map_err(run_to_napi)?;
            Ok(wants_report.then(|| Pieces(values::report(&restored, ENTRIES_A_TURN).into_iter())))
        })
    }
}

/// A long result in pieces of JSON, so no turn of the event loop has to parse all of it.
#[napi]
pub struct Pieces(std::vec::IntoIter<String>);

#[napi]
impl Pieces {
    /// The next piece; `null` after the last one.
    #[napi]
    pub fn read(&mut self) -> Option<String> {
        self.0.next()
    }
}

/// What a snapshot or a merge excludes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExcludeInput {
    /// Paths. An invalid one is refused.
    #[serde(default)]
    paths: Vec<Bytes>,
    /// Patterns in the form of adapter-utils' snapshots.
    #[serde(default)]
    snapshot: Vec<Bytes>,
    /// Patterns in tar's form.
    #[serde(default)]
    tar: Vec<Bytes>,
}

impl ExcludeInput {
    /// Parses them. An error names `argument`.
    fn filter(self, argument: &str) -> Result<Filter<'static>> {
        Ok(Filter::default()
            .without("", PathSet::new(argument, bytes(self.paths))?)
            .without("", SnapshotPatterns::new(bytes(self.snapshot)))
            .without("", ExcludePatterns::new(bytes(self.tar))))
    }
}

#[napi]
pub fn capture_snapshot(env: &Env, root: String, exclude: String) -> Promised<'_, Pieces> {
    promise(
        env,
        off_the_loop(move || {
            let root = Root::open(&argument::<Bytes>("rootDir", &root)?.into_path())?;
            let exclude = argument::<ExcludeInput>("options.exclude", &exclude)?;
            let exclude = exclude.filter("options.exclude")?;
            let snapshot = snapshot(&root, &exclude, &Cancel::default())?;
            Ok(Pieces(values::write_entries(&snapshot, ENTRIES_A_TURN).into_iter()))
        }),
    )
}

/// The snapshot of an archive on this machine, in pieces.
#[napi]
pub fn read_archive(env: &Env, archive: String, exclude: String) -> Promised<'_, Pieces> {
    promise(
        env,
        off_the_loop(move || {
            let archive = argument::<Bytes>("archivePath", &archive)?.into_path();
            let exclude = argument::<ExcludeInput>("exclude", &exclude)?.filter("exclude")?;
            let snapshot = contents::snapshot(&archive, &exclude, &Cancel::default())?;
            Ok(Pieces(values::write_entries(&snapshot, ENTRIES_A_TURN).into_iter()))
        }),
    )
}

/// Which of some paths of files such a snapshot leaves out: their positions, as a JSON list.
#[napi]
pub fn find_left_out(env: &Env, paths: String, exclude: String) -> Promised<'_, String> {
    promise(
        env,
        off_the_loop(move || {
            let paths = argument::<Vec<Bytes>>("paths", &paths)?;
            let exclude = argument::<ExcludeInput>("exclude", &exclude)?.filter("exclude")?;
            let is_left_out = |Bytes(path): &Bytes| match RelativePath::parse(path) {
                Ok(Some(path)) => exclude.leaves_out(&path, Kind::File),
                // A snapshot has no such path.
                Ok(None) | Err(_) => true,
            };
            let found: Vec<usize> =
                (0..).zip(&paths).filter(|(_, path)| is_left_out(path)).map(|(at, _)| at).collect();
            serde_json::to_string(&found).map_err(|error| Error::Internal(error.to_string()))
        }),
    )
}

/// A snapshot that JavaScript passes in pieces.
#[napi]
#[derive(Default)]
pub struct SnapshotWriter(Mutex<Snapshot>);

#[napi]
impl SnapshotWriter {
    #[napi(constructor)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds entries, as JSON pairs.
    #[napi]
    pub fn write(&self, entries: String) -> napi::Result<()> {
        let mut snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values::read_entries(&entries, &mut snapshot).map_err(|error| to_napi(&error))
    }
}

/// A merge that holds its target's lock.
#[napi]
pub struct BegunMerge(Arc<Mutex<Option<FolderMerge>>>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MergeInput {
    source: SourceInput,
    target_dir: Bytes,
    exclude: ExcludeInput,
    /// Patterns in tar's form.
    #[serde(default)]
    may_lack: Vec<Bytes>,
    #[serde(default)]
    may_lack_anything: bool,
    #[serde(default)]
    lock: Option<Bytes>,
    /// Whether no earlier backup is removed, however old it is.
    #[serde(default)]
    keep_all_conflicts: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum SourceInput {
    Folder(Bytes),
    Archive(Bytes),
}

impl MergeInput {
    fn merge(self, base: Snapshot) -> Result<FolderMergeInput> {
        Ok(FolderMergeInput {
            base,
            source: match self.source {
                SourceInput::Folder(folder) => Source::Folder(folder.into_path()),
                SourceInput::Archive(archive) => Source::Archive(archive.into_path()),
            },
            target: self.target_dir.into_path(),
            exclude: self.exclude.filter("input.baseline.exclude")?,
            may_lack: ExcludePatterns::new(bytes(self.may_lack)),
            may_lack_anything: self.may_lack_anything,
            lock: self.lock.map(Bytes::into_path),
            retention: if self.keep_all_conflicts { Retention::Forever } else { Retention::default() },
        })
    }
}

#[napi]
pub fn begin_merge<'env>(
    env: &'env Env,
    input: String,
    baseline: &SnapshotWriter,
) -> Promised<'env, BegunMerge> {
    let base = std::mem::take(&mut *baseline.0.lock().unwrap_or_else(PoisonError::into_inner));
    promise(env, async move {
        let input = argument::<MergeInput>("input", &input).and_then(|input| input.merge(base));
        let begun = FolderMerge::begin(input.map_err(|error| to_napi(&error))?).await;
        Ok(BegunMerge(Arc::new(Mutex::new(Some(begun.map_err(|error| to_napi(&error))?)))))
    })
}

#[napi]
impl BegunMerge {
    /// Inspects the target and merges.
    #[napi]
    pub fn apply<'env>(&self, env: &'env Env) -> Promised<'env, ()> {
        let merge = self.0.clone();
        promise(
            env,
            off_the_loop(move || match &mut *merge.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(merge) => merge.apply().map(|_| ()),
                None => Err(Error::Internal("a merge was applied after it had finished".to_owned())),
            }),
        )
    }

    /// Cleans up and releases the lock. Resolves with what the incoming side had, in pieces, if the caller wants
    /// it.
    #[napi]
    pub fn finish<'env>(&self, env: &'env Env, wants_theirs: bool) -> Promised<'env, Option<Pieces>> {
        let merge = self.0.clone();
        promise(
            env,
            off_the_loop(move || {
                let merge = merge.lock().unwrap_or_else(PoisonError::into_inner).take();
                let theirs = merge.map_or(Ok(Snapshot::new()), FolderMerge::finish)?;
                let pieces = || Pieces(values::write_entries(&theirs, ENTRIES_A_TURN).into_iter());
                Ok(wants_theirs.then(pieces))
            }),
        )
    }
}

/// A held merge lock.
#[napi]
pub struct HeldLock(Arc<Mutex<Option<MergeLock>>>);

/// Where a merge lock is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum LockInput {
    /// In the usual place for this folder.
    Of(Bytes),
    /// In this folder.
    At(Bytes),
}

#[napi]
pub fn acquire_merge_lock(env: &Env, input: String) -> Promised<'_, HeldLock> {
    promise(env, async move {
        let input = argument::<LockInput>("targetDir", &input).map_err(|error| to_napi(&error))?;
        let cancel = Cancel::default();
        let acquired = match input {
            LockInput::Of(target) => MergeLock::acquire(&target.into_path(), lock::WAIT, &cancel).await,
            LockInput::At(place) => MergeLock::acquire_at(place.into_path(), lock::WAIT, &cancel).await,
        };
        let lock = acquired.map_err(|error| to_napi(&error))?;
        Ok(HeldLock(Arc::new(Mutex::new(Some(lock)))))
    })
}

#[napi]
impl HeldLock {
    /// Releases the lock.
    #[napi]
    pub fn release<'env>(&self, env: &'env Env) -> Promised<'env, ()> {
        let lock = self.0.clone();
        promise(
            env,
            off_the_loop(move || {
                let lock = lock.lock().unwrap_or_else(PoisonError::into_inner).take();
                lock.map_or(Ok(()), MergeLock::release)
            }),
        )
    }
}

/// Settles in a later turn of the event loop, even if JavaScript's own timers were replaced.
#[napi]
pub fn next_turn(env: &Env) -> Promised<'_, ()> {
    promise(env, async { Ok(()) })
}

/// The entry at a path, as JSON; `null` if there is none that a snapshot would contain.
#[napi]
pub fn read_entry(env: &Env, root_dir: String, relative: String) -> Promised<'_, Option<String>> {
    promise(
        env,
        off_the_loop(move || {
            let root = match Root::open(&argument::<Bytes>("rootDir", &root_dir)?.into_path()) {
                Ok(root) => root,
                Err(error) if error.is_gone() => return Ok(None),
                Err(error) => return Err(error),
            };
            let Bytes(relative) = argument("relative", &relative)?;
            let fault = |reason: String| Error::UnsafePath {
                path: crate::error::readable(&relative),
                offset: None,
                reason,
            };
            // As when paths are joined, an empty path and `.` are the root itself.
            let below: &[u8] = if relative.is_empty() { b"." } else { &relative };
            let Some(path) = RelativePath::parse(below).map_err(|found| fault(found.to_string()))? else {
                return Ok(Some(values::entry(&Entry::Folder { mode: None })));
            };
            let mut cursor = root.cursor();
            let Some(found) = inspect(&mut cursor, path)? else { return Ok(None) };
            let entry = Reader::new().entry(&mut cursor, &found, &Cancel::default())?;
            Ok(entry.as_ref().map(values::entry))
        }),
    )
}

/// Which commits a repository got from a sandbox, and where they are to be merged.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SearchInput {
    repository: Bytes,
    checkout: Bytes,
    tips: Vec<String>,
    here: Vec<String>,
}

/// Those of the objects `tips` in a repository of ours that are to be held back, since git would obey something of theirs once
/// it is checked out. `here` are commits that local references name. A JSON list; all of them if they cannot be searched.
#[napi]
pub fn commits_to_hold(env: &Env, input: String) -> Promised<'_, String> {
    promise(
        env,
        off_the_loop(move || {
            let SearchInput { repository, checkout, tips, here } = argument("input", &input)?;
            let oids =
                |texts: &[String]| texts.iter().filter_map(|text| Oid::parse(text.as_bytes())).collect();
            let checkout = Root::open(&checkout.into_path())?;
            let git = Git::find(checkout.path());
            let git = git.ok_or_else(|| Error::Internal("there is no git on this machine".to_owned()))?;
            let search =
                Search { git: &git, repository: &repository.into_path(), cancel: &Cancel::default() };
            let (new, here) = (oids(&tips), oids(&here));
            let mut known = None;
            let mut fixture = || match known {
                Some(known) => Ok(known),
                None => Ok(*known.insert(search.is_fixture_below(&here)?)),
            };
            let found: Vec<String> = match search.among(&new, &here, &checkout, &mut fixture) {
                Ok(found) => found.iter().map(|oid| oid.as_str().to_owned()).collect(),
                Err(fault) => fault.without_answer().map_or(Ok(tips), Err)?,
            };
            serde_json::to_string(&found).map_err(|error| Error::Internal(error.to_string()))
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_an_unknown_or_a_missing_field_is_refused() {
        let whole = r#"{"sourceDir":"a","targetDir":"b","preserveAbsent":[]}"#;
        assert!(argument::<MirrorInput>("input", whole).is_ok());
        for (json, complaint) in [
            (r#"{"sourceDir":"a","targetDir":"b","preserveAbsent":[],"depth":1}"#, "unknown field `depth`"),
            (r#"{"sourceDir":"a","targetDir":"b"}"#, "missing field `preserveAbsent`"),
        ] {
            let Err(error) = argument::<MirrorInput>("input", json) else { panic!("{json} was taken") };
            assert!(error.to_string().contains(complaint), "{error}");
        }
    }
}
