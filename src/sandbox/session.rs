//! A workspace that is in its sandbox, and what this machine stores about it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Mutex;

use super::client::blocking;
use super::command::Places;
use super::prepare_report::PrepareReport;
use super::repositories::{Shared, Travel};
use super::send::Way;
use super::upload::{State, Upload};
use crate::error::{Error, Result};
use crate::exclude::PathSet;
use crate::fs::{FileId, Root, by_path};
use crate::git::export::Mode;
use crate::merge::conflicts::Retention;
use crate::merge::incoming::UNCHANGED;
use crate::merge::report::Rescued;
use crate::path::RelativePath;
use crate::random;
use crate::state::digests::Digests;
use crate::state::sandboxes::{self, Reference, Stored, Trees};
use crate::state::store::{Store, name_for};
use crate::state::tools::{self, Expected, Tools};
use crate::transfer::remote::Contents;
use crate::tree::filter::Filter;
use crate::tree::ignore_files::IgnoreRules;

/// A name for one upload or one index that no other has: 32 hexadecimal digits.
pub(super) fn new_id() -> String {
    format!("{:016x}{:016x}", random::bits(), random::bits())
}

/// A workspace that is in its sandbox.
#[derive(Debug)]
pub struct Session {
    pub(super) workspace: Workspace,
    pub(super) places: Places,
    /// What a restore neither takes nor touches.
    pub(super) left_alone: Filter<'static>,
    pub(super) repositories: Travel,
    pub(super) preserve: PathSet,
    pub(super) way: Way,
    /// Whether only changes are transferred where that is possible.
    pub(super) changes_only: bool,
    pub(super) memory: Arc<Memory>,
    pub(super) report: PrepareReport,
    /// What both sides last shared.
    pub(super) base: Arc<Mutex<Base>>,
    /// Held while a restore runs, so that two never mix.
    pub(super) turn: Mutex<()>,
}

/// What a restore starts from.
#[derive(Debug)]
pub(super) struct Base {
    /// The trees of both sides.
    pub(super) trees: Trees,
    /// The trees as they are stored, if they are.
    pub(super) stored: Option<Stored>,
    /// The sandbox's index of what both sides share, where it may have one.
    pub(super) index: Option<String>,
    /// How many downloads the sandbox had packed when it had this, as it says itself. An older state of it has fewer.
    pub(super) downloads: u64,
    /// What the sandbox never had as it was packed.
    pub(super) lost: PathSet,
    /// The permission bits that the sandbox has by itself, where they are not those that were packed.
    pub(super) modes: HashMap<RelativePath, u32>,
    /// What failed restores had to keep aside, for the report of the next one.
    pub(super) rescued: Rescued,
    /// For how long restores keep local versions.
    pub(super) retention: Retention,
    /// What both sides share of the repositories.
    pub(super) repositories: Shared,
    /// The assets that the sandbox has.
    pub(super) assets: Vec<sandboxes::Asset>,
}

impl Session {
    /// The run's folder in the sandbox.
    #[must_use]
    pub fn runtime_root(&self) -> &str {
        self.places.runtime_root()
    }

    /// What the prepare did.
    #[must_use]
    pub fn report(&self) -> &PrepareReport {
        &self.report
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
    id: FileId,
}

impl Workspace {
    /// Whether the stored state is that of this workspace, and not of another that was at its path.
    pub(super) fn is_of(&self, kept: &sandboxes::Sandbox) -> bool {
        (self.id, self.is_link) == (kept.workspace, kept.is_link)
    }

    pub(super) fn of(root: &Root) -> Result<Self> {
        let meta = root.meta()?;
        Ok(Self { path: root.path().to_path_buf(), is_link: by_path::is_link(root.path()), id: meta.id })
    }

    /// Opens it again. A folder that took its place must not be taken for the workspace with everything deleted.
    pub(super) fn open(&self) -> Result<Root> {
        let root = Root::open(&self.path).map_err(|error| {
            let hint = if error.is_gone() { GONE } else { UNCHANGED };
            error.with_hint(hint)
        })?;
        let meta = root.meta()?;
        if meta.id != self.id || (!self.is_link && by_path::is_link(&self.path)) {
            return Err(Error::WorkspaceReplaced { path: self.path.clone() });
        }
        Ok(root)
    }
}

/// What this machine stores of a sandbox.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) store: Option<Store>,
    name: String,
    /// The sandbox, in whichever workspace.
    sandbox: String,
    /// The name under which the tools of such sandboxes are stored.
    tools: String,
    pub(super) workspace: PathBuf,
    pub(super) exclude: Vec<Vec<u8>>,
    pub(super) ignored: Arc<IgnoreRules>,
    pub(super) preserve: Vec<Vec<u8>>,
    pub(super) mode: Mode,
}

impl Memory {
    /// What is stored for this upload. Nothing is stored in the workspace itself: it would be uploaded, or
    /// vanish with the workspace.
    pub(super) fn of(upload: &Upload, workspace: &Workspace, ignored: Arc<IgnoreRules>) -> Self {
        let workspace = workspace.path.clone();
        let (exclude, preserve) = (upload.exclude.clone(), upload.preserve.clone());
        let mode = upload.repositories.mode;
        let Some(State { folder, sandbox }) = &upload.state else {
            let [name, sandbox, tools] = [(); 3].map(|()| String::new());
            return Self { store: None, name, sandbox, tools, workspace, exclude, ignored, preserve, mode };
        };
        let tools = tools::name_of(&sandbox[0], &upload.adapter_key);
        let sandbox: Vec<&[u8]> = sandbox.iter().map(Vec::as_slice).collect();
        let identity = name_for("sandbox", &sandbox);
        let name = sandboxes::name_of(&sandbox, &upload.remote_dir, &upload.adapter_key, &workspace);
        // The folder may not exist yet, and may be reached through a link.
        let resolved = folder.ancestors().find_map(|above| by_path::resolve(above).ok());
        let is_inside = by_path::resolve(&workspace)
            .is_ok_and(|workspace| resolved.is_some_and(|folder| folder.starts_with(workspace)));
        let store = if is_inside { None } else { Store::open(folder) };
        Self { store, name, sandbox: identity, tools, workspace, exclude, ignored, preserve, mode }
    }

    /// What is known of the sandbox.
    pub(super) fn load(&self) -> Option<sandboxes::Sandbox<'static>> {
        self.store.as_ref()?.load(&self.name)
    }

    /// What is known of the sandbox, if that is enough for an update.
    pub(super) async fn usable(
        self: &Arc<Self>,
        upload: &Upload,
        workspace: &Workspace,
    ) -> Result<Option<sandboxes::Sandbox<'static>>, Error> {
        let memory = self.clone();
        let kept = blocking(move || Ok(memory.load())).await?;
        Ok(kept.filter(|kept| {
            kept.index.is_some()
                && kept.trees.has_remote()
                && kept.lost.is_empty()
                && kept.modes.is_empty()
                && workspace.is_of(kept)
                && *kept.preserve == upload.preserve
        }))
    }

    /// What a new sandbox of this provider is expected to have. Where nothing can be stored, nothing is tried: it would be tried
    /// each time.
    pub(super) fn expected(&self) -> Expected {
        self.store.as_ref().map_or(Expected::Gzip, |store| Tools::load(store, &self.tools).expected())
    }

    /// Stores whether the sandbox has zstd, for the first upload of another one.
    pub(super) fn note_zstd(&self, has_zstd: bool) {
        if let Some(store) = &self.store {
            Tools::note(store, &self.tools, &self.sandbox, has_zstd);
        }
    }

    /// The trees of the sandbox, as they are stored and as they are now.
    pub(super) fn load_trees(&self, reference: &Reference) -> Option<(Stored, Trees)> {
        reference.load(self.store.as_ref()?)
    }

    /// What is known of the workspace's files.
    pub(super) fn load_digests(&self) -> Digests {
        self.store.as_ref().map_or_else(Digests::default, |store| Digests::load(store, &self.workspace))
    }

    /// Stores what the sandbox has of an asset.
    pub(super) fn keep_asset(
        &self,
        key: String,
        index: String,
        contents: &Contents,
    ) -> Option<sandboxes::Asset> {
        sandboxes::Asset::write(self.store.as_ref()?, key, index, contents)
    }

    /// What the sandbox has of an asset.
    pub(super) fn load_asset(&self, asset: &sandboxes::Asset) -> Option<Contents> {
        asset.load(self.store.as_ref()?)
    }

    /// Removes stored trees that are not those of the sandbox.
    pub(super) fn discard(&self, stored: &Stored) {
        let Some(store) = &self.store else { return };
        if self.load().is_none_or(|sandbox| sandbox.trees.file() != stored.file()) {
            store.forget(stored.file());
        }
    }

    /// Stores what both sides share.
    pub(super) fn keep(&self, places: &Places, workspace: &Workspace, base: &mut Base) {
        let Some(store) = &self.store else { return };
        let former = self.load();
        let reference = base.stored.as_ref().and_then(|stored| stored.refer(&base.trees)).or_else(|| {
            base.stored = Stored::write(store, &base.trees);
            base.stored.as_ref()?.refer(&base.trees)
        });
        let Some(trees) = reference else { return store.forget(&self.name) };
        let file = trees.file().to_owned();
        store.keep(
            &self.name,
            &sandboxes::Sandbox {
                upload_id: places.upload_id().to_owned(),
                workspace: workspace.id,
                is_link: workspace.is_link,
                exclude: Cow::Borrowed(&self.exclude),
                mode: self.mode,
                ignore_files: Cow::Borrowed(self.ignored.files()),
                preserve: Cow::Borrowed(&self.preserve),
                index: base.index.clone(),
                downloads: base.downloads,
                trees,
                lost: base.lost.paths().cloned().collect(),
                modes: base.modes.iter().map(|(path, mode)| (path.clone(), *mode)).collect(),
                repositories: Cow::Borrowed(&base.repositories.bases),
                assets: Cow::Borrowed(&base.assets),
            },
        );
        let used: HashSet<&str> =
            base.assets.iter().map(|asset| asset.file.as_str()).chain([file.as_str()]).collect();
        for file in &used {
            store.renew(file);
        }
        if let Some(former) = &former {
            let files = former.assets.iter().map(|asset| asset.file.as_str()).chain([former.trees.file()]);
            for file in files.filter(|file| !used.contains(file)) {
                store.forget(file);
            }
        }
    }
}

impl Session {
    /// Whether another branch or commit may have been checked out since then in a repository that was uploaded: git has written its `HEAD`
    /// or its index.
    pub(super) async fn has_moved_since(&self, time: SystemTime) -> Result<bool, Error> {
        let base = self.base.clone().lock_owned().await;
        blocking(move || {
            let places = base.repositories.bases.values().filter_map(|base| base.place.as_ref());
            for name in places.flat_map(|place| ["HEAD", "index"].map(|name| place.git_dir.join(name))) {
                if by_path::lstat(&name)?.is_some_and(|meta| meta.is_changed_since(time)) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// Stores what both sides share now.
    pub(super) async fn remember(&self) -> Result<(), Error> {
        let mut base = self.base.clone().lock_owned().await;
        let (memory, places, workspace) = (self.memory.clone(), self.places.clone(), self.workspace.clone());
        blocking(move || {
            memory.keep(&places, &workspace, &mut base);
            Ok(())
        })
        .await
    }
}
