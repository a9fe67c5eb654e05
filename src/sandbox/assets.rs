//! Further local directories → the sandbox.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{RunError, SandboxClient, Step, blocking, telling};
use super::command::{self, Places};
use super::exclusions::{EXCLUDED, OURS, always_excluded, note_special, noting, unmatched};
use super::prepare_report::{Archive, Times};
use super::send::{self, Delivered, Ready, Tail, Way};
use super::session::new_id;
use super::spec;
use super::upload::Asset;
use crate::archive::pack::{Contents, Layout};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{Root, by_path};
use crate::path::{RelativePath, bytes_of};
use crate::state::sandboxes;
use crate::transfer::parts::{Codec, Part, part_list};
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
    let in_workspace = asset.local_dir.strip_prefix(workspace.path()).ok();
    let below = in_workspace.and_then(|path| RelativePath::parse(bytes_of(path)).ok().flatten());
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

/// How assets go up.
pub(super) struct AssetTerms<'a> {
    pub(super) places: &'a Places,
    pub(super) way: &'a Way,
    pub(super) cancel: &'a Cancel,
    /// Those that the sandbox has as they were sent.
    pub(super) unchanged_assets: Vec<sandboxes::Asset>,
    /// Whether the sandbox is to keep an index of each.
    pub(super) keep_indexes: bool,
}

/// An asset that the sandbox has now, where that is to be known later.
pub(super) type OfAsset = (Archive, Option<sandboxes::Asset>);

/// Uploads the assets, up to `concurrency` at once, and packs one ahead. The failure that is reported is that of the
/// first asset in order, as if they had gone one after the other.
///
/// An asset that fits one part, and of which the sandbox has this very archive, is not sent.
pub(super) async fn upload_assets<C: SandboxClient>(
    client: &Arc<C>,
    sources: Vec<(Asset, Root)>,
    concurrency: usize,
    terms: AssetTerms<'_>,
) -> Result<Vec<OfAsset>, RunError<C::Failure>> {
    let AssetTerms { places: sandbox, way, cancel, unchanged_assets, keep_indexes } = terms;
    let places = Arc::new(Semaphore::new(concurrency.max(1)));
    let mut uploads = JoinSet::new();
    let mut done: Vec<(usize, OfAsset)> = Vec::new();
    for (at, (asset, root)) in sources.into_iter().enumerate() {
        let patterns = Arc::new(Watched::new(&asset.exclude));
        let filter = Filter::default()
            .without_names(OURS, never_travels)
            .without(EXCLUDED, always_excluded())
            .without(EXCLUDED, patterns.clone());
        let stop = cancel.clone();
        let started = Instant::now();
        let packing = Step { name: "pack", label: &asset.key, bytes: 0 };
        let scanned = blocking(move || noting(&filter, |filter| Layout::scan(root, filter, &stop)));
        let packed = match telling(&**client, packing, scanned).await {
            Ok((layout, mut left_out)) => {
                note_special(&mut left_out, &layout);
                left_out.unmatched = unmatched(&patterns);
                let packing = Step { bytes: layout.size(), ..packing };
                let pack = pack_asset(&**client, layout, way, cancel, keep_indexes);
                let packed = telling(&**client, packing, pack).await;
                packed.map(|(ready, digest)| (ready, digest, started.elapsed(), left_out))
            }
            Err(error) => Err(error.into()),
        };
        let is_it = |known: &&sandboxes::Asset, digest| known.key == asset.key && known.archive == digest;
        let known = match &packed {
            Ok((_, Some(digest), ..)) => unchanged_assets.iter().find(|known| is_it(known, *digest)),
            _ => None,
        };
        let packed = match (known, packed) {
            (Some(known), Ok((Ready::Packed { size, contents, .. }, _, pack, left_out))) => {
                let entries = contents.snapshot.len();
                let archive = Archive::unsent(&asset.key, entries, size as u64, pack, left_out);
                done.push((at, (archive, Some(known.clone()))));
                continue;
            }
            (_, packed) => packed,
        };
        let place = places.clone().acquire_owned().await;
        if way.failed.load(Ordering::Acquire) {
            break;
        }
        let (client, sandbox) = (client.clone(), sandbox.clone());
        let (way, cancel) = (way.clone(), cancel.clone());
        uploads.spawn(async move {
            let uploaded = match packed {
                Ok((ready, digest, pack, left_out)) => {
                    let kept = digest.map(|archive| sandboxes::Asset {
                        key: asset.key.clone(),
                        index: format!("{}.{}", index_slot(&asset.key), new_id()),
                        archive,
                    });
                    let index = kept.as_ref().map_or("", |kept| &kept.index);
                    let uploaded =
                        upload_asset(&client, &sandbox, &asset.key, index, ready, &way, &cancel).await;
                    uploaded.map(|(delivered, times)| {
                        (Archive::new(&asset.key, &delivered, Times { pack, ..times }, left_out), kept)
                    })
                }
                Err(error) => Err(error),
            };
            // Told before the place is free, so that no further upload begins.
            way.failed.fetch_or(uploaded.is_err(), Ordering::Release);
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

/// The name of an asset's indexes in the sandbox, but for what tells them apart.
fn index_slot(key: &str) -> String {
    Digest(Sha256::digest(key).into()).to_string()[..16].to_owned()
}

/// Packs an asset that fits one part, with the digest of its archive where that is `wanted`. No index covers a directory of
/// this package's own name, so there is none for an asset with one.
async fn pack_asset<C: SandboxClient>(
    client: &C,
    layout: Layout,
    way: &Way,
    cancel: &Cancel,
    wanted: bool,
) -> Result<(Ready<C::Upload>, Option<Digest>), RunError<C::Failure>> {
    let ready = send::pack(client, layout, &asset_tail(), way, cancel).await?;
    let Ready::Packed { memory, size, contents } = ready else { return Ok((ready, None)) };
    if !wanted || contents.snapshot.keys().any(is_in_runtime) {
        return Ok((Ready::Packed { memory, size, contents }, None));
    }
    let attachment = client.attachment();
    let (memory, digest) = blocking(move || {
        let _held = attachment.hold()?;
        let digest = Digest(Sha256::digest(&memory.as_ref()[..size]).into());
        Ok((memory, digest))
    })
    .await?;
    Ok((Ready::Packed { memory, size, contents }, Some(digest)))
}

/// What follows an asset's archive: the list of its parts but the last, which is empty where there is one.
fn asset_tail() -> Tail {
    Arc::new(|earlier: &[Part], _: Option<&Contents>, _| part_list(earlier).into_bytes())
}

async fn upload_asset<C: SandboxClient>(
    client: &Arc<C>,
    places: &Places,
    key: &str,
    index: &str,
    archive: Ready<C::Upload>,
    way: &Way,
    cancel: &Cancel,
) -> Result<(Delivered, Times), RunError<C::Failure>> {
    let runtime_root = places.runtime_root();
    let (remote_archive, folder) =
        (format!("{runtime_root}/{key}-upload.tar"), format!("{runtime_root}/{key}"));
    let started = Instant::now();
    let delivered = send::send(client, key, &remote_archive, archive, asset_tail(), way, cancel).await?;
    let upload = started.elapsed();
    let Delivered { earlier, last, last_file, .. } = &delivered;
    let extract = if earlier.is_empty() && last.codec == Codec::None && index.is_empty() {
        command::upload_asset(&folder, &remote_archive, last.size)
    } else {
        let number = earlier.len();
        command::upload_asset_by_script(places, &folder, &remote_archive, index, number, *last, *last_file)
    };
    let started = Instant::now();
    let step = Step { name: "extract", label: key, bytes: delivered.packed };
    let extracted = telling(&**client, step, client.run(&extract)).await.map_err(RunError::Client);
    if extracted.is_err() {
        way.failed.store(true, Ordering::Release);
        delivered.discard(&**client, &remote_archive).await;
    }
    extracted.map(|()| (delivered, Times { upload, extract: started.elapsed(), ..Times::default() }))
}
