//! Further local directories → the sandbox.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{RunError, SandboxClient, Step, blocking, telling};
use super::command::{self, Lists, Places};
use super::exclusions::{EXCLUDED, OURS, always_excluded, note_special, noting, unmatched};
use super::prepare_report::{Archive, LeftOut, Times};
use super::send::{self, Delivered, Ready, Tail, Way};
use super::session::{Memory, new_id};
use super::spec;
use super::update::{self, Difference, Outcome};
use super::upload::Asset;
use crate::archive::pack::{Contents, Layout};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{Root, by_path};
use crate::path::{RelativePath, bytes_of};
use crate::state::digests::Digests;
use crate::state::sandboxes;
use crate::transfer::parts::{Codec, Part, part_list};
use crate::transfer::remote::{self, Remote, Update};
use crate::tree::entry::Digest;
use crate::tree::filter::{Filter, Watched};
use crate::tree::stage::{is_in_runtime, is_lock_name};
use crate::tree::temporary::is_temporary_name;

/// Names that belong to calls of this package that run: merge locks, and what is not complete.
fn never_travels(path: &RelativePath) -> bool {
    is_lock_name(path) || is_temporary_name(path)
}

/// Checks keys and opens the folders, so that a missing one is noticed before anything was uploaded.
pub(super) fn check_assets(assets: &[Asset], workspace: &Root) -> Result<Vec<(Asset, Root)>> {
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
    let workspace_path = by_path::resolve(workspace.path())?;
    // The workspace may be spelled in another way, through a link above it or with `..`.
    let is_workspace = |above: &&Path| by_path::resolve(above).is_ok_and(|path| path == workspace_path);
    let above = asset.local_dir.ancestors().skip(1).find(is_workspace);
    let inner = above.and_then(|above| asset.local_dir.strip_prefix(above).ok());
    let below = inner.and_then(|path| RelativePath::parse(bytes_of(path)).ok().flatten());
    let opened = match &below {
        Some(path) => workspace.below(path),
        None => Root::open_no_link(&asset.local_dir),
    };
    opened.map_err(|error| {
        let is_link = error.means_link() && asset.local_dir.ancestors().any(by_path::is_link);
        if is_link {
            return Error::UnsafePath {
                path: crate::error::readable(bytes_of(&asset.local_dir)),
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

/// How assets are uploaded.
#[derive(Clone)]
pub(super) struct AssetTerms {
    pub(super) places: Places,
    pub(super) way: Way,
    pub(super) cancel: Cancel,
    /// Whether the sandbox is to keep an index of each, and this machine what it sent.
    pub(super) keep: bool,
    pub(super) memory: Arc<Memory>,
}

/// The report of an asset, and what the sandbox has of it, where that is to be known later.
pub(super) type OfAsset = (Archive, Option<sandboxes::Asset>);

/// Uploads the assets, up to `concurrency` at once, and packs one ahead. The failure that is reported is that of the
/// first asset in order, as if they had gone one after the other.
///
/// Of an asset that is among `unchanged` only the difference is sent: the sandbox has it as it was sent then.
pub(super) async fn upload_assets<C: SandboxClient>(
    client: &Arc<C>,
    sources: Vec<(Asset, Root)>,
    concurrency: usize,
    unchanged: &[sandboxes::Asset],
    terms: AssetTerms,
) -> Result<Vec<OfAsset>, RunError<C::Failure>> {
    let places = Arc::new(Semaphore::new(concurrency.max(1)));
    let mut uploads = JoinSet::new();
    let mut done: Vec<(usize, OfAsset)> = Vec::new();
    for (at, (asset, root)) in sources.into_iter().enumerate() {
        let former = unchanged.iter().find(|former| former.key == asset.key).cloned();
        let uploading = Uploading { client: client.clone(), asset, root, terms: terms.clone() };
        let ready = match uploading.make_ready(former).await {
            Ok(Made::Unchanged(report, kept)) => {
                done.push((at, (*report, Some(kept))));
                continue;
            }
            Ok(Made::Ready(ready)) => Ok(ready),
            Err(error) => Err(error),
        };
        let place = places.clone().acquire_owned().await;
        if terms.way.failed.load(Ordering::Acquire) {
            break;
        }
        uploads.spawn(async move {
            let uploaded = match ready {
                Ok(ready) => uploading.upload(*ready).await,
                Err(error) => Err(error),
            };
            // The failure is noted before the place is free, so that no further upload begins.
            uploading.terms.way.failed.fetch_or(uploaded.is_err(), Ordering::Release);
            drop(place);
            (at, uploaded)
        });
    }
    let mut first_failure: Option<(usize, RunError<C::Failure>)> = None;
    while let Some(ended) = uploads.join_next().await {
        let (at, uploaded) = ended.map_err(|panicked| Error::Internal(panicked.to_string()))?;
        match uploaded {
            Ok(archive) => done.push((at, archive)),
            Err(error) if first_failure.as_ref().is_none_or(|(earlier, _)| at < *earlier) => {
                first_failure = Some((at, error));
            }
            Err(_) => {}
        }
    }
    if let Some((_, error)) = first_failure {
        return Err(error);
    }
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, archive)| archive).collect())
}

/// An asset that is being uploaded.
struct Uploading<C> {
    client: Arc<C>,
    asset: Asset,
    root: Root,
    terms: AssetTerms,
}

/// An asset that can be uploaded.
struct ReadyAsset<U> {
    archive: Ready<U>,
    /// What changes the one that the sandbox has, if the archive is not all of it.
    change: Option<Change>,
    left_out: LeftOut,
    /// How long it took to pack it.
    pack: Duration,
}

/// What changes an asset that the sandbox has.
struct Change {
    /// The name of the sandbox's index of it.
    former: String,
    lists: Lists,
    outcome: Outcome,
}

/// What became of an asset before it is uploaded.
enum Made<U> {
    Unchanged(Box<Archive>, sandboxes::Asset),
    Ready(Box<ReadyAsset<U>>),
}

impl<U> Made<U> {
    fn ready(ready: ReadyAsset<U>) -> Self {
        Self::Ready(Box::new(ready))
    }
}

impl<C: SandboxClient> Uploading<C> {
    /// Packs what is to be sent of the asset.
    async fn make_ready(
        &self,
        former: Option<sandboxes::Asset>,
    ) -> Result<Made<C::Upload>, RunError<C::Failure>> {
        let started = Instant::now();
        let step = Step { name: "pack", label: &self.asset.key, bytes: 0 };
        let (layout, left_out) = telling(&*self.client, step, self.scan()).await?;
        let Some(former) = former else {
            return self.pack(layout, None, left_out, started).await.map(Made::ready);
        };
        let (memory, cancel, known) = (self.terms.memory.clone(), self.terms.cancel.clone(), former.clone());
        let comparing = blocking(move || {
            let Some(entries) = memory.load_asset(&known) else { return Ok(Err(layout)) };
            let remote = Remote { entries, ..Remote::default() };
            let nothing = remote::Contents::new();
            let wanted = update::wanted(layout, nothing, &remote, &Digests::default(), &cancel)?;
            let update = wanted.plan(&remote, |_| false).map(Update::with_touched_sent);
            Ok(match update {
                Some(update) => Ok((wanted, update)),
                None => Err(wanted.layout),
            })
        });
        let (layout, change) = match telling(&*self.client, step, comparing).await? {
            Ok((wanted, update)) if update.is_empty() => {
                let (entries, size) = (wanted.contents.len(), wanted.layout.size());
                let report = Archive::unsent(&self.asset.key, entries, size, started.elapsed(), left_out);
                return Ok(Made::Unchanged(Box::new(report), former));
            }
            Ok((wanted, update)) => {
                let differing = blocking(move || Ok(wanted.difference(update)));
                let Difference { layout, lists, outcome, .. } = differing.await?;
                (layout, Some(Change { former: former.index, lists, outcome }))
            }
            Err(layout) => (layout, None),
        };
        self.pack(layout, change, left_out, started).await.map(Made::ready)
    }

    /// Lists what is to be uploaded of the asset's folder.
    fn scan(&self) -> impl Future<Output = Result<(Layout, LeftOut), Error>> + Send + use<C> {
        let patterns = Arc::new(Watched::new(&self.asset.exclude));
        let filter = Filter::default()
            .without_names(OURS, never_travels)
            .without(EXCLUDED, always_excluded())
            .without(EXCLUDED, patterns.clone());
        let (root, stop) = (self.root.try_clone(), self.terms.cancel.clone());
        blocking(move || {
            let root = root?;
            let (layout, mut left_out) = noting(&filter, |filter| Layout::scan(root, filter, &stop))?;
            note_special(&mut left_out, &layout);
            left_out.unmatched = unmatched(&patterns);
            Ok((layout, left_out))
        })
    }

    async fn pack(
        &self,
        layout: Layout,
        change: Option<Change>,
        left_out: LeftOut,
        started: Instant,
    ) -> Result<ReadyAsset<C::Upload>, RunError<C::Failure>> {
        let AssetTerms { way, cancel, .. } = &self.terms;
        let step = Step { name: "pack", label: &self.asset.key, bytes: layout.size() };
        let tail = asset_tail(change.as_ref());
        let archive =
            telling(&*self.client, step, send::pack(&*self.client, layout, &tail, way, cancel)).await?;
        Ok(ReadyAsset { archive, change, left_out, pack: started.elapsed() })
    }

    /// Uploads the asset. Where the sandbox cannot change the one that it has, it gets all of it.
    async fn upload(&self, ready: ReadyAsset<C::Upload>) -> Result<OfAsset, RunError<C::Failure>> {
        let is_change = ready.change.is_some();
        let failure = match self.send(ready).await? {
            Ok(uploaded) => return Ok(uploaded),
            Err(failure) => failure,
        };
        if !is_change || self.terms.cancel.check().is_err() {
            return Err(RunError::Client(failure));
        }
        let started = Instant::now();
        let (layout, left_out) = self.scan().await?;
        let whole = self.pack(layout, None, left_out, started).await?;
        self.send(whole).await?.map_err(RunError::Client)
    }

    /// Sends what is packed, and has the sandbox extract it. The inner failure is that of the command.
    async fn send(
        &self,
        ready: ReadyAsset<C::Upload>,
    ) -> Result<Result<OfAsset, C::Failure>, RunError<C::Failure>> {
        let ReadyAsset { archive, change, left_out, pack } = ready;
        let AssetTerms { places, way, cancel, keep, .. } = &self.terms;
        let (client, key) = (&self.client, &self.asset.key);
        let runtime_root = places.runtime_root();
        let remote_archive = format!("{runtime_root}/{key}-upload.tar");
        let folder = format!("{runtime_root}/{key}");
        let started = Instant::now();
        let tail = asset_tail(change.as_ref());
        let mut delivered = send::send(client, key, &remote_archive, archive, tail, way, cancel).await?;
        let upload = started.elapsed();
        let mut report = Archive::new(key, &delivered, Times { pack, upload, ..Times::default() }, left_out);
        let contents = std::mem::take(&mut delivered.contents);
        report.is_changes_only = change.is_some();
        let former = change.as_ref().map(|change| change.former.clone());
        let entries = match change {
            None => update::remote_of(&contents).entries,
            Some(change) => change.outcome.with(&contents).entries,
        };
        // No index covers a directory of this package's own name.
        let is_kept = *keep && !entries.keys().any(is_in_runtime);
        let index = if is_kept { format!("{}.{}", index_slot(key), new_id()) } else { String::new() };
        let Delivered { earlier, last, last_file, .. } = &delivered;
        let number = earlier.len();
        let extract = if number == 0 && last.codec == Codec::None && index.is_empty() && former.is_none() {
            command::upload_asset(&folder, &remote_archive, last.size)
        } else {
            let asset = command::AssetUpload {
                places,
                folder: &folder,
                archive: &remote_archive,
                former: former.as_deref(),
                index: &index,
            };
            asset.command(number, *last, *last_file)
        };
        let started = Instant::now();
        let step = Step { name: "extract", label: key, bytes: delivered.packed };
        if let Err(failure) = telling(&**client, step, client.run(&extract)).await {
            way.failed.fetch_or(former.is_none(), Ordering::Release);
            delivered.discard(&**client, &remote_archive).await;
            return Ok(Err(failure));
        }
        report.times.extract = started.elapsed();
        let (memory, key) = (self.terms.memory.clone(), key.clone());
        let kept = blocking(move || Ok(if is_kept { memory.keep_asset(key, index, &entries) } else { None }));
        Ok(Ok((report, kept.await?)))
    }
}

/// What the names of all indexes of an asset in the sandbox begin with.
fn index_slot(key: &str) -> String {
    Digest(Sha256::digest(key).into()).to_string()[..16].to_owned()
}

/// What follows an asset's archive: the list of its parts but the last, which is empty where there is one; and for a change
/// the names that are removed before and those that the archive has.
fn asset_tail(change: Option<&Change>) -> Tail {
    let named = |sign: &str, names: &[u8]| -> Vec<u8> {
        let names = names.split_inclusive(|&byte| byte == b'\n');
        names.flat_map(|name| [sign.as_bytes(), name].concat()).collect()
    };
    let lists = change.map_or_else(Vec::new, |Change { lists, .. }| {
        [named("- ", &lists.remove), named("+ ", &lists.sent)].concat()
    });
    Arc::new(move |earlier: &[Part], _: Option<&Contents>, _| {
        [part_list(earlier).as_bytes(), lists.as_slice()].concat()
    })
}
