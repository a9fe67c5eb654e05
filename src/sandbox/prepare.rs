//! A workspace and its assets → the sandbox.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::client::{RunError, SandboxClient, blocking};
use super::{command, spec};
use crate::archive::pack::{Layout, patterns};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exclude::{ExcludePatterns, PathSet};
use crate::merge::report::Rescued;
use crate::path::RelativePath;
use crate::tree::entry::Snapshot;
use crate::tree::root::Root;
use crate::tree::stage::is_in_runtime;

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

/// A workspace that stands in its sandbox.
#[derive(Debug)]
pub struct Session {
    pub(super) workspace: PathBuf,
    pub(super) remote_dir: String,
    pub(super) runtime_root: String,
    pub(super) left_alone: Arc<LeftAlone>,
    pub(super) exclude: Vec<String>,
    /// What both sides last shared. Held while a restore runs, so that two never mix.
    pub(super) base: Arc<Mutex<Base>>,
}

/// What a restore starts from.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) snapshot: Snapshot,
    /// What failed restores had to keep aside, for the report of the next one.
    pub(super) rescued: Rescued,
}

impl Session {
    /// The run's folder in the sandbox.
    #[must_use]
    pub fn runtime_root(&self) -> &str {
        &self.runtime_root
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
        is_in_runtime(path) || self.paths.contains_or_covers(path) || self.patterns.matches(path)
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
    let runtime_root =
        spec::runtime_root(&upload.remote_dir, upload.remote_dir_argument, &upload.adapter_key)?;
    let sources = check_assets(&upload.assets)?;
    let preserve = PathSet::new("input.preserveAbsentOnRestore", &upload.preserve)?;
    let preserved =
        preserve.paths().map(|path| preserved_name(path.as_bytes())).collect::<Result<Vec<_>>>()?;
    let left_alone = Arc::new(LeftAlone::new(&upload.exclude, preserve));

    let root = Root::open(&upload.workspace)?;
    let uploaded = patterns(&upload.exclude);
    let leave_out = move |path: &RelativePath| is_in_runtime(path) || uploaded.matches(path);
    let (archive, mut base) = pack(&*client, root, leave_out, &cancel).await?;
    let size = archive.as_ref().len() as u64;
    let remote_archive = format!("{runtime_root}/workspace-upload.tar");
    client.make_dir(&runtime_root).await.map_err(RunError::Client)?;
    client.write_file(&remote_archive, archive).await.map_err(RunError::Client)?;
    let extract = command::upload(&upload.remote_dir, &remote_archive, size, &preserved);
    client.run(&extract).await.map_err(RunError::Client)?;

    upload_assets(&client, &runtime_root, sources, upload.concurrency, &cancel).await?;
    // What is excluded was not even packed.
    base.retain(|path, _| !left_alone.paths.contains_or_covers(path));
    Ok(Session {
        workspace: upload.workspace,
        remote_dir: upload.remote_dir,
        runtime_root,
        left_alone,
        exclude: utf8(&upload.exclude),
        base: Arc::new(Mutex::new(Base { snapshot: base, rescued: Rescued::default() })),
    })
}

/// A preserved name as a command line carries it: one that it cannot carry would be cleared in the sandbox.
fn preserved_name(name: &[u8]) -> Result<String> {
    String::from_utf8(name.to_vec()).map_err(|_| Error::InvalidArgValue {
        argument: "input.preserveAbsentOnRestore".to_owned(),
        reason: "a name that is not UTF-8 cannot be preserved in the sandbox; exclude it instead".to_owned(),
        received: crate::error::readable(name),
    })
}

/// The strings that a command line can carry. What is excluded is decided here in any case; a pattern that is not
/// text merely saves no transfer.
fn utf8(patterns: &[Vec<u8>]) -> Vec<String> {
    patterns.iter().filter_map(|pattern| String::from_utf8(pattern.clone()).ok()).collect()
}

/// Checks keys and opens the folders, so that a missing one is noticed before anything was uploaded.
fn check_assets(assets: &[Asset]) -> Result<Vec<(Asset, Root)>> {
    let mut sources: Vec<(Asset, Root)> = Vec::with_capacity(assets.len());
    for (at, asset) in assets.iter().enumerate() {
        let argument = format!("input.assets[{at}].key");
        spec::key(&asset.key, &argument)?;
        if sources.iter().any(|(earlier, _)| earlier.key == asset.key) {
            let reason = "another asset has the same key, and one would overwrite the other".to_owned();
            return Err(Error::InvalidArgValue { argument, reason, received: asset.key.clone() });
        }
        let root = if asset.follow_links {
            Root::open_following(&asset.local_dir)?
        } else {
            Root::open(&asset.local_dir)?
        };
        sources.push((asset.clone(), root));
    }
    Ok(sources)
}

/// Packs a folder into memory of the client's, and tells what was packed.
async fn pack<C: SandboxClient>(
    client: &C,
    root: Root,
    leave_out: impl Fn(&RelativePath) -> bool + Send + Sync + 'static,
    cancel: &Cancel,
) -> Result<(C::Upload, Snapshot), RunError<C::Failure>> {
    let stop = cancel.clone();
    let layout = blocking(move || Layout::scan(root, &leave_out, &stop)).await?;
    let mut memory = client.allocate(layout.size()).await.map_err(RunError::Client)?;
    let (stop, attachment) = (cancel.clone(), client.attachment());
    let (laid_out, packed) = blocking(move || {
        let _held = attachment.hold()?;
        let packed = layout.pack(memory.as_mut(), &stop)?;
        Ok((memory, packed))
    })
    .await?;
    let Some(size) = packed.misfit() else { return Ok((laid_out, packed.snapshot)) };
    let mut memory = client.allocate(size).await.map_err(RunError::Client)?;
    let attachment = client.attachment();
    let done = blocking(move || {
        let _held = attachment.hold()?;
        packed.assemble(laid_out.as_ref(), memory.as_mut());
        Ok((memory, packed.snapshot))
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
        let packed = pack(&**client, root, move |path| uploaded.matches(path), cancel).await;
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
