//! A workspace and its assets → the sandbox.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::client::{RunError, SandboxClient, blocking};
use super::command::{self, Places};
use super::{listing, spec};
use crate::archive::header::END_MARK;
use crate::archive::pack::{Layout, Packed, Sent, patterns};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exclude::{ExcludePatterns, PathSet};
use crate::merge::conflicts::Keep;
use crate::merge::incoming::UNCHANGED;
use crate::merge::report::Rescued;
use crate::path::RelativePath;
use crate::tree::entry::{Digest, Snapshot};
use crate::tree::root::Root;
use crate::tree::stage::{is_in_runtime, is_lock_name};
use crate::tree::temporary::is_temporary_name;

/// What is to be uploaded, and where to.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The local workspace.
    pub workspace: PathBuf,
    /// The workspace's folder in the sandbox.
    pub remote_dir: String,
    /// The argument that `remote_dir` came from, for messages.
    pub remote_dir_argument: &'static str,
    /// Names the run's folder in the sandbox.
    pub adapter_key: String,
    /// Patterns left out on both ways, with GNU tar's meaning.
    pub exclude: Vec<Vec<u8>>,
    /// Paths that a restore leaves alone.
    pub preserve: Vec<Vec<u8>>,
    /// Further folders.
    pub assets: Vec<Asset>,
    /// How many assets may be on their way at once.
    pub concurrency: usize,
    /// For how long a restore keeps the local versions that earlier ones replaced.
    pub keep: Keep,
}

/// A local folder that goes beside the workspace.
#[derive(Debug, Clone)]
pub struct Asset {
    /// Its name below the run's folder.
    pub key: String,
    /// The local folder.
    pub local_dir: PathBuf,
    /// Whether links are followed.
    pub follow_links: bool,
    /// Patterns left out.
    pub exclude: Vec<Vec<u8>>,
}

/// A workspace that is in its sandbox.
#[derive(Debug)]
pub struct Session {
    pub(super) workspace: Workspace,
    pub(super) places: Places,
    pub(super) left_alone: Arc<LeftAlone>,
    pub(super) preserve: PathSet,
    /// What both sides last shared. Held while a restore runs, so that two never mix.
    pub(super) base: Arc<Mutex<Base>>,
}

/// What a restore starts from.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) snapshot: Snapshot,
    /// What was packed, until the sandbox has told what it has of that.
    pub(super) sent: Vec<(RelativePath, Sent)>,
    /// What the sandbox never had as it was packed.
    pub(super) lost: PathSet,
    /// The permission bits that the sandbox has by itself, where they are not those that were packed.
    pub(super) modes: HashMap<RelativePath, u32>,
    /// What failed restores had to keep aside, for the report of the next one.
    pub(super) rescued: Rescued,
    /// For how long restores keep local versions.
    pub(super) keep: Keep,
}

impl Session {
    /// The run's folder in the sandbox.
    #[must_use]
    pub fn runtime_root(&self) -> &str {
        self.places.runtime_root()
    }
}

/// What is said where the workspace is not at its path.
const GONE: &str =
    "the workspace is gone, and nothing was changed; bring it back to that path and restore again";

/// The local workspace by its path and by what it was when it was packed.
#[derive(Debug, Clone)]
pub(super) struct Workspace {
    path: PathBuf,
    is_link: bool,
    identity: (u64, u64),
}

impl Workspace {
    fn of(root: &Root) -> Result<Self> {
        let meta = root.meta()?;
        Ok(Self {
            path: root.path().to_path_buf(),
            is_link: root.path().is_symlink(),
            identity: (meta.dev, meta.ino),
        })
    }

    /// Opens it again. A folder that took its place must not be taken for the workspace with everything deleted.
    pub(super) fn open(&self) -> Result<Root> {
        let root = Root::open(&self.path).map_err(|error| {
            let hint = if error.is_gone() { GONE } else { UNCHANGED };
            error.with_hint(hint)
        })?;
        let meta = root.meta()?;
        if (meta.dev, meta.ino) != self.identity || (!self.is_link && self.path.is_symlink()) {
            return Err(Error::WorkspaceReplaced { path: self.path.clone() });
        }
        Ok(root)
    }
}

/// What a restore neither takes nor touches.
#[derive(Debug)]
pub struct LeftAlone {
    patterns: ExcludePatterns,
    paths: PathSet,
}

impl LeftAlone {
    fn new(exclude: &[Vec<u8>], preserve: PathSet) -> Self {
        Self { patterns: patterns(exclude), paths: preserve.with_literal(exclude) }
    }

    /// Whether the path is left alone.
    #[must_use]
    pub fn covers(&self, path: &RelativePath) -> bool {
        is_in_runtime(path)
            || is_lock_name(path)
            || self.paths.contains_or_covers(path)
            || self.patterns.matches(path)
    }
}

/// Uploads a workspace and its assets. Everything that can be refused is refused before the first client call.
///
/// The calls come in the order of the TypeScript module. While one archive is on its way the next is packed.
pub async fn prepare<C: SandboxClient>(
    client: Arc<C>,
    upload: Upload,
    cancel: Cancel,
) -> Result<Session, RunError<C::Failure>> {
    let places =
        spec::places(&upload.remote_dir, upload.remote_dir_argument, &upload.adapter_key, &upload_id())?;
    let root = Root::open(&upload.workspace)?;
    let workspace = Workspace::of(&root)?;
    let sources = check_assets(&upload.assets, &root)?;
    let preserve = PathSet::new("input.preserveAbsentOnRestore", &upload.preserve)?;
    let left_alone = Arc::new(LeftAlone::new(&upload.exclude, preserve.clone()));

    let control = Control {
        places: places.clone(),
        preserved: preserved_names(&preserve)?,
        exclude: remote_patterns(&upload.exclude, &places.answer())?,
    };
    let uploaded = patterns(&upload.exclude);
    let leave_out =
        move |path: &RelativePath| is_in_runtime(path) || is_temporary_name(path) || uploaded.matches(path);
    let WorkspaceUpload { file, command, mut snapshot, sent } =
        pack_workspace(&*client, root, leave_out, control, &cancel).await?;
    client.make_dir(places.runtime_root()).await.map_err(RunError::Client)?;
    client.write_file(&places.upload(), file).await.map_err(RunError::Client)?;
    client.run(&command).await.map_err(RunError::Client)?;

    upload_assets(&client, places.runtime_root(), sources, upload.concurrency, &cancel).await?;
    // What is excluded was not even packed.
    snapshot.retain(|path, _| !left_alone.paths.contains_or_covers(path));
    let base = Base {
        snapshot,
        sent,
        lost: PathSet::default(),
        modes: HashMap::new(),
        rescued: Rescued::default(),
        keep: upload.keep,
    };
    Ok(Session { workspace, places, left_alone, preserve, base: Arc::new(Mutex::new(base)) })
}

/// Names that belong to calls of this package that run: merge locks, and what is not complete.
fn never_travels(path: &RelativePath) -> bool {
    is_lock_name(path) || is_temporary_name(path)
}

/// A name for one upload that no other has: 32 hexadecimal digits.
fn upload_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    // Its keys come from the system's source of randomness; what is hashed tells the uploads of one process apart.
    let half = || RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
    format!("{:016x}{:016x}", half(), half())
}

/// The names at the top of the workspace that are not cleared in the sandbox.
fn preserved_names(preserve: &PathSet) -> Result<Vec<String>> {
    let at_the_top = preserve.paths().filter(|path| path.parent().is_none());
    at_the_top.map(|path| preserved_name(path.as_bytes())).collect()
}

/// A preserved name as a script carries it: one that it cannot carry would be cleared in the sandbox.
fn preserved_name(name: &[u8]) -> Result<String> {
    String::from_utf8(name.to_vec()).map_err(|_| Error::InvalidArgValue {
        argument: "input.preserveAbsentOnRestore".to_owned(),
        reason: "a name that is not UTF-8 cannot be preserved in the sandbox; exclude it instead".to_owned(),
        received: crate::error::readable(name),
    })
}

/// The patterns that the sandbox's tar gets. What is excluded is decided here in any case; a pattern that is not
/// text, or that would leave out the sandbox's answer, merely saves no transfer.
fn remote_patterns(exclude: &[Vec<u8>], answer: &str) -> Result<Vec<String>> {
    let answer = RelativePath::parse(answer.as_bytes())
        .map_err(|fault| Error::Internal(format!("the answer has an impossible path: {fault}")))?;
    let saves = |pattern: &&Vec<u8>| {
        let pattern = ExcludePatterns::new([pattern]);
        answer.as_ref().is_some_and(|answer| !pattern.matches(answer))
    };
    let texts = exclude.iter().filter(saves).filter_map(|pattern| String::from_utf8(pattern.clone()).ok());
    Ok(texts.collect())
}

/// Checks keys and opens the folders, so that a missing one is noticed before anything was uploaded.
fn check_assets(assets: &[Asset], workspace: &Root) -> Result<Vec<(Asset, Root)>> {
    let mut sources: Vec<(Asset, Root)> = Vec::with_capacity(assets.len());
    for (at, asset) in assets.iter().enumerate() {
        let argument = format!("input.assets[{at}].key");
        spec::key(&asset.key, &argument)?;
        let collision = sources.iter().find_map(|(earlier, _)| spec::collide(&asset.key, &earlier.key));
        if let Some(reason) = spec::is_ours(&asset.key).or(collision) {
            let reason = reason.to_owned();
            return Err(Error::InvalidArgValue { argument, reason, received: asset.key.clone() });
        }
        sources.push((asset.clone(), open_asset(asset, workspace)?));
    }
    Ok(sources)
}

/// Opens an asset's folder as what it was named. Where an agent has put a link in the place of the folder, or of one above
/// it in the workspace, the next prepare must not upload what the link points to.
fn open_asset(asset: &Asset, workspace: &Root) -> Result<Root> {
    if asset.follow_links {
        return Root::open_following(&asset.local_dir);
    }
    let in_workspace = asset.local_dir.strip_prefix(workspace.path()).ok().map(Path::as_os_str);
    let below = in_workspace.and_then(|path| RelativePath::parse(path.as_bytes()).ok().flatten());
    let opened = match &below {
        Some(path) => workspace.below(path),
        None => Root::open_no_link(&asset.local_dir),
    };
    opened.map_err(|error| {
        let is_link = error.means_link() && asset.local_dir.ancestors().any(Path::is_symlink);
        if is_link {
            return Error::UnsafePath {
                path: crate::error::readable(asset.local_dir.as_os_str().as_bytes()),
                offset: None,
                reason: format!(
                    "the folder of the asset {:?}, or one above it in the workspace, is a symbolic link, and what it \
                     points to would be uploaded; name the real folder, or pass followSymlinks",
                    asset.key
                ),
            };
        }
        error
    })
}

/// What the sandbox is to do with the workspace's archive.
struct Control {
    places: Places,
    preserved: Vec<String>,
    exclude: Vec<String>,
}

impl Control {
    fn upload(&self, holds_entries: bool, expected: Digest) -> command::Upload<'_> {
        let Self { places, preserved, exclude } = self;
        command::Upload { places, preserved, exclude, holds_entries, expected }
    }
}

/// The workspace's archive with the control archive behind it.
struct WorkspaceUpload<U> {
    file: U,
    command: String,
    snapshot: Snapshot,
    sent: Vec<(RelativePath, Sent)>,
}

/// Packs a workspace with what the sandbox is to do with it.
async fn pack_workspace<C: SandboxClient>(
    client: &C,
    root: Root,
    leave_out: impl Fn(&RelativePath) -> bool + Send + Sync + 'static,
    control: Control,
    cancel: &Cancel,
) -> Result<WorkspaceUpload<C::Upload>, RunError<C::Failure>> {
    // Its size does not depend on what is packed.
    let tail = control.upload(true, Digest([0; 32])).control().len();
    let (mut file, packed) = pack(client, root, leave_out, tail, cancel).await?;
    let attachment = client.attachment();
    let done = blocking(move || {
        let _held = attachment.hold()?;
        let bytes = file.as_mut();
        let archive_size = bytes.len() - tail;
        let expected = listing::digest(&packed.sent, &control.preserved);
        let upload = control.upload(archive_size > END_MARK, expected);
        bytes[archive_size..].copy_from_slice(&upload.control());
        let command = upload.command(archive_size as u64, bytes.len() as u64);
        Ok(WorkspaceUpload { command, file, snapshot: packed.snapshot, sent: packed.sent })
    })
    .await?;
    Ok(done)
}

/// Packs a folder into memory of the client's, with room for a tail behind the archive, and tells what was packed.
async fn pack<C: SandboxClient>(
    client: &C,
    root: Root,
    leave_out: impl Fn(&RelativePath) -> bool + Send + Sync + 'static,
    tail: usize,
    cancel: &Cancel,
) -> Result<(C::Upload, Packed), RunError<C::Failure>> {
    let stop = cancel.clone();
    let layout = blocking(move || Layout::scan(root, &leave_out, &stop)).await?;
    let mut memory = client.allocate(layout.size() + tail as u64).await.map_err(RunError::Client)?;
    let (stop, attachment) = (cancel.clone(), client.attachment());
    let (laid_out, packed) = blocking(move || {
        let _held = attachment.hold()?;
        let bytes = memory.as_mut();
        let end = bytes.len() - tail;
        let packed = layout.pack(&mut bytes[..end], &stop)?;
        Ok((memory, packed))
    })
    .await?;
    let Some(size) = packed.misfit() else { return Ok((laid_out, packed)) };
    let mut memory = client.allocate(size + tail as u64).await.map_err(RunError::Client)?;
    let attachment = client.attachment();
    let done = blocking(move || {
        let _held = attachment.hold()?;
        let from = laid_out.as_ref();
        packed.assemble(&from[..from.len() - tail], memory.as_mut());
        Ok((memory, packed))
    })
    .await?;
    Ok(done)
}

/// Uploads the assets, up to `concurrency` at once, and packs one ahead. The failure that is reported is that of the
/// first asset in order, as if they had gone one after the other.
async fn upload_assets<C: SandboxClient>(
    client: &Arc<C>,
    runtime_root: &str,
    sources: Vec<(Asset, Root)>,
    concurrency: usize,
    cancel: &Cancel,
) -> Result<(), RunError<C::Failure>> {
    let places = Arc::new(Semaphore::new(concurrency.max(1)));
    let mut uploads = JoinSet::new();
    let failed = Arc::new(AtomicBool::new(false));
    for (at, (asset, root)) in sources.into_iter().enumerate() {
        let uploaded = patterns(&asset.exclude);
        let packed =
            pack(&**client, root, move |path| never_travels(path) || uploaded.matches(path), 0, cancel).await;
        let place = places.clone().acquire_owned().await;
        if failed.load(Ordering::Acquire) {
            break;
        }
        let (client, runtime_root, failed) = (client.clone(), runtime_root.to_owned(), failed.clone());
        uploads.spawn(async move {
            let uploaded = match packed {
                Ok((archive, _)) => upload_asset(&*client, &runtime_root, &asset.key, archive).await,
                Err(error) => Err(error),
            };
            // Told before the place is free, so that no further upload begins.
            failed.fetch_or(uploaded.is_err(), Ordering::Release);
            drop(place);
            (at, uploaded)
        });
    }
    let mut first_failure: Option<(usize, RunError<C::Failure>)> = None;
    while let Some(done) = uploads.join_next().await {
        let (at, uploaded) = done.map_err(|panicked| Error::Internal(panicked.to_string()))?;
        if let Err(error) = uploaded
            && first_failure.as_ref().is_none_or(|(earlier, _)| at < *earlier)
        {
            first_failure = Some((at, error));
        }
    }
    first_failure.map_or(Ok(()), |(_, error)| Err(error))
}

async fn upload_asset<C: SandboxClient>(
    client: &C,
    runtime_root: &str,
    key: &str,
    archive: C::Upload,
) -> Result<(), RunError<C::Failure>> {
    let size = archive.as_ref().len() as u64;
    let remote_archive = format!("{runtime_root}/{key}-upload.tar");
    client.write_file(&remote_archive, archive).await.map_err(RunError::Client)?;
    let extract = command::upload_asset(&format!("{runtime_root}/{key}"), &remote_archive, size);
    client.run(&extract).await.map_err(RunError::Client)
}
