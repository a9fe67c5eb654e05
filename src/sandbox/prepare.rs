//! A workspace and its assets → the sandbox.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinError, JoinSet};

use super::client::{RunError, SandboxClient, Step, blocking, clean_up, persist, telling};
use super::command::{self, Lists, Places};
use super::prepare_report::{Archive, LeftOut, PrepareReport, Times, Unmatched};
use super::repositories::{self, Former, LaidOut, Shared, Travel};
use super::send::{self, Delivered, Ready, Tail, Way};
use super::update::{self, Asked, Difference, Unsent};
use super::{listing, spec};
use crate::archive::header::END_MARK;
use crate::archive::pack::{self, Contents, Layout, patterns};
use crate::archive::source::copy_of;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exclude::{ExcludePatterns, PathSet};
use crate::fs::{FileId, Root, by_path};
use crate::merge::conflicts::Retention;
use crate::merge::incoming::UNCHANGED;
use crate::merge::report::Rescued;
use crate::path::{RelativePath, bytes_of};
use crate::random;
use crate::state::digests::{self, Digests, Known};
use crate::state::sandboxes;
use crate::state::store::Store;
use crate::sync::lock;
use crate::transfer::parts::{Codec, Part, part_list, part_path};
use crate::transfer::remote::Remote;
use crate::tree::entry::{Digest, Snapshot};
use crate::tree::filter::{Filter, Watched};
use crate::tree::ignore_files::IgnoreRules;
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
    /// Names of files in the workspace whose lines leave out more on both ways, with git's meaning.
    pub ignore_files: Vec<Vec<u8>>,
    /// Paths that a restore leaves alone.
    pub preserve: Vec<Vec<u8>>,
    /// Further folders.
    pub assets: Vec<Asset>,
    /// How many assets may be on their way at once.
    pub concurrency: usize,
    /// How many bytes of an archive travel in one part at most, before they are compressed.
    pub part_bytes: u64,
    /// How many parts of an archive may be on their way at once.
    pub parts_at_once: usize,
    /// Whether parts may be compressed.
    pub compress: bool,
    /// Whether changes alone travel where that is possible.
    pub changes_only: bool,
    /// What is kept on this machine between calls; nothing where there is none.
    pub state: Option<State>,
    /// For how long a restore keeps the local versions that earlier ones replaced.
    pub retention: Retention,
    /// How git repositories travel.
    pub repositories: Travel,
}

impl Upload {
    /// How archives travel; of the link nothing is known yet.
    pub(super) fn way(&self) -> Way {
        Way {
            part_bytes: self.part_bytes,
            at_once: self.parts_at_once,
            compress: self.compress,
            link: Arc::default(),
            failed: Arc::default(),
        }
    }
}

/// Where this machine keeps what both sides share.
#[derive(Debug, Clone)]
pub struct State {
    /// A folder of this package's.
    pub folder: PathBuf,
    /// What tells the sandbox from all others: its provider, and its name there.
    pub sandbox: [Vec<u8>; 2],
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
    /// What a restore neither takes nor touches.
    pub(super) left_alone: Filter<'static>,
    pub(super) repositories: Travel,
    pub(super) preserve: PathSet,
    pub(super) way: Way,
    /// Whether changes alone travel where that is possible.
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
    pub(super) snapshot: Snapshot,
    /// The sandbox's index of that, where it may have one.
    pub(super) index: Option<String>,
    /// All that the sandbox holds, where that is known.
    pub(super) remote: Option<Remote>,
    /// What was packed, until the sandbox has told what it has of that.
    pub(super) sent: Vec<(RelativePath, pack::Sent)>,
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

/// Stands for a digest where it does not matter which.
const NO_DIGEST: Digest = Digest([0; 32]);

/// Why something is not in an archive.
const OURS: &str = "it is this package's own";
const EXCLUDED: &str = "a pattern excludes it";
const IGNORED: &str = "an ignore file excludes it";
const SPECIAL: &str = "an archive has no sockets, FIFOs or devices";

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
    /// Whether something was kept of this one, and not of another that was at its path.
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

/// What a restore neither takes nor touches: what is excluded, preserved, or this package's own.
pub(super) fn left_alone(
    exclude: &[Vec<u8>],
    ignored: Arc<IgnoreRules>,
    preserve: &PathSet,
) -> Filter<'static> {
    Filter::by_name(is_in_runtime)
        .without_names(OURS, is_lock_name)
        .without(EXCLUDED, excluded_paths(exclude, preserve))
        .without(EXCLUDED, patterns(exclude))
        .without(IGNORED, ignored)
}

/// What is left alone by its path: what is preserved, and what a pattern names literally.
fn excluded_paths(exclude: &[Vec<u8>], preserve: &PathSet) -> PathSet {
    preserve.clone().with_literal(exclude)
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
        spec::places(&upload.remote_dir, upload.remote_dir_argument, &upload.adapter_key, &new_id())?;
    let root = Root::open(&upload.workspace)?;
    let workspace = Workspace::of(&root)?;
    let sources = check_assets(&upload.assets, &root)?;
    let preserve = PathSet::new("input.preserveAbsentOnRestore", &upload.preserve)?;
    let preserved = preserved_names(&preserve)?;
    let exclude = remote_patterns(&upload.exclude, &places.answer())?;
    let patterns = Arc::new(Watched::new(&upload.exclude));
    let filter = Filter::default()
        .without_names(OURS, |path| is_in_runtime(path) || is_temporary_name(path))
        .without(EXCLUDED, always_excluded())
        .without(EXCLUDED, patterns.clone());
    let way = upload.way();
    let (ignored, memory) = {
        let (upload, workspace, filter, cancel) =
            (upload.clone(), workspace.clone(), filter.clone(), cancel.clone());
        let read = move || {
            let travel = upload.repositories;
            let files = filter.without_names("", |path| travel.is_apart(path));
            let ignored = Arc::new(IgnoreRules::read(&root, &upload.ignore_files, &files, &cancel)?);
            let memory = Memory::of(&upload, &workspace, ignored.clone());
            Ok((ignored, Arc::new(memory)))
        };
        blocking(read).await?
    };
    let filter = filter.without(IGNORED, ignored.clone());
    let left_alone = left_alone(&upload.exclude, ignored.clone(), &preserve);
    let mut uploading = Uploading {
        client: &client,
        workspace: &workspace,
        filter,
        patterns,
        ignored,
        travel: upload.repositories,
        way,
        cancel: &cancel,
        control: Arc::new(Control { places, preserved, exclude, update: None }),
        unchanged_assets: Vec::new(),
    };
    let read_from = SystemTime::now();
    let known = if upload.changes_only { memory.usable(&upload, &workspace).await? } else { None };
    let updated = match known {
        Some(known) => uploading.update(known, &memory).await?,
        None => Updated::Doubtful(None),
    };
    let Sent { contents, mut repositories, archive } = match updated {
        Updated::Done(sent) => sent,
        Updated::Doubtful(scanned) => {
            uploading.unchanged_assets.clear();
            uploading.everything(scanned).await?
        }
    };
    let (way, control, unchanged_assets) = (uploading.way, uploading.control, uploading.unchanged_assets);
    let places = control.places.clone();
    let is_update = control.update.is_some();

    let mut report = PrepareReport { archives: vec![*archive] };
    let keep_indexes = upload.changes_only && memory.store.is_some();
    let terms = AssetTerms { places: &places, way: &way, cancel: &cancel, unchanged_assets, keep_indexes };
    let mut assets = Vec::new();
    for (archive, asset) in upload_assets(&client, sources, upload.concurrency, terms).await? {
        report.archives.push(archive);
        assets.extend(asset);
    }
    let remote = update::remote_of(&contents);
    repositories.note_packs(&contents.snapshot);
    let Contents { mut snapshot, sent, read, .. } = contents;
    // What is excluded was not even packed.
    let excluded = excluded_paths(&upload.exclude, &preserve);
    snapshot.retain(|path, _| !excluded.contains_or_covers(path) && !upload.repositories.is_apart(path));
    let base = Base {
        snapshot,
        index: upload.changes_only.then(|| places.upload_id().to_owned()),
        remote: Some(remote),
        // An update ends well only where the sandbox has exactly what it is to have.
        sent: if is_update { Vec::new() } else { sent },
        lost: PathSet::default(),
        modes: HashMap::new(),
        rescued: Rescued::default(),
        retention: upload.retention,
        repositories,
        assets,
    };
    let changes_only = upload.changes_only;
    let session = Session {
        workspace,
        places,
        left_alone,
        repositories: upload.repositories,
        preserve,
        way,
        changes_only,
        report,
        base: Arc::new(Mutex::new(base)),
        turn: Mutex::default(),
        memory,
    };
    session.remember(read, read_from).await?;
    Ok(session)
}

/// What is kept on this machine of a sandbox.
#[derive(Debug)]
pub(super) struct Memory {
    store: Option<Store>,
    name: String,
    workspace: PathBuf,
    pub(super) exclude: Vec<Vec<u8>>,
    pub(super) ignored: Arc<IgnoreRules>,
    pub(super) preserve: Vec<Vec<u8>>,
}

impl Memory {
    /// Nothing is kept in the workspace itself: it would travel, or vanish with it.
    pub(super) fn of(upload: &Upload, workspace: &Workspace, ignored: Arc<IgnoreRules>) -> Self {
        let workspace = workspace.path.clone();
        let (exclude, preserve) = (upload.exclude.clone(), upload.preserve.clone());
        let Some(State { folder, sandbox }) = &upload.state else {
            return Self { store: None, name: String::new(), workspace, exclude, ignored, preserve };
        };
        let sandbox: Vec<&[u8]> = sandbox.iter().map(Vec::as_slice).collect();
        let name = sandboxes::name_of(&sandbox, &upload.remote_dir, &upload.adapter_key, &workspace);
        let is_inside = by_path::resolve(&workspace).is_ok_and(|workspace| folder.starts_with(workspace));
        let store = if is_inside { None } else { Store::open(folder) };
        Self { store, name, workspace, exclude, ignored, preserve }
    }

    /// What is known of the sandbox.
    pub(super) fn load(&self) -> Option<sandboxes::Sandbox<'static>> {
        self.store.as_ref()?.load(&self.name)
    }

    /// What is known of the sandbox, where all that is needed for an update is.
    async fn usable(
        self: &Arc<Self>,
        upload: &Upload,
        workspace: &Workspace,
    ) -> Result<Option<sandboxes::Sandbox<'static>>, Error> {
        let memory = self.clone();
        let kept = blocking(move || Ok(memory.load())).await?;
        Ok(kept.filter(|kept| {
            kept.index.is_some()
                && kept.remote.is_some()
                && kept.lost.is_empty()
                && kept.modes.is_empty()
                && workspace.is_of(kept)
                && *kept.preserve == upload.preserve
        }))
    }

    async fn digests(self: Arc<Self>) -> Result<Digests, Error> {
        let Some(store) = self.store.clone() else { return Ok(Digests::default()) };
        let workspace = self.workspace.clone();
        blocking(move || Ok(Digests::load(&store, &workspace))).await
    }

    /// Keeps what both sides share.
    pub(super) fn keep(&self, places: &Places, workspace: &Workspace, base: &Base) {
        let Some(store) = &self.store else { return };
        store.keep(
            &self.name,
            &sandboxes::Sandbox {
                upload_id: places.upload_id().to_owned(),
                workspace: workspace.id,
                is_link: workspace.is_link,
                exclude: Cow::Borrowed(&self.exclude),
                ignore_files: Cow::Borrowed(self.ignored.files()),
                preserve: Cow::Borrowed(&self.preserve),
                index: base.index.clone(),
                remote: base.remote.as_ref().map(Cow::Borrowed),
                snapshot: Cow::Borrowed(&base.snapshot),
                sent: Cow::Borrowed(&base.sent),
                lost: base.lost.paths().cloned().collect(),
                modes: base.modes.iter().map(|(path, mode)| (path.clone(), *mode)).collect(),
                repositories: Cow::Borrowed(&base.repositories.bases),
                assets: Cow::Borrowed(&base.assets),
            },
        );
    }
}

impl Session {
    /// Keeps what both sides share now, and what is known of the files that were read.
    async fn remember(&self, read: Vec<Known>, read_from: SystemTime) -> Result<(), Error> {
        if self.memory.store.is_none() {
            return Ok(());
        }
        let base = self.base.clone().lock_owned().await;
        let (memory, places, workspace) = (self.memory.clone(), self.places.clone(), self.workspace.clone());
        let travel = self.repositories;
        blocking(move || {
            let keep_digests = || {
                if let Some(store) = &memory.store {
                    let read = read.into_iter().filter(|(path, ..)| !travel.is_apart(path)).collect();
                    digests::keep(store, &memory.workspace, read, read_from);
                }
            };
            rayon::join(|| memory.keep(&places, &workspace, &base), keep_digests);
            Ok(())
        })
        .await
    }
}

/// Names that belong to calls of this package that run: merge locks, and what is not complete.
fn never_travels(path: &RelativePath) -> bool {
    is_lock_name(path) || is_temporary_name(path)
}

/// A name for one upload or one index that no other has: 32 hexadecimal digits.
pub(super) fn new_id() -> String {
    format!("{:016x}{:016x}", random::bits(), random::bits())
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

/// What the sandbox is to do with the workspace's archive.
struct Control {
    places: Places,
    preserved: Vec<String>,
    exclude: Vec<String>,
    update: Option<(Lists, Unsent)>,
}

impl Control {
    fn upload(&self, holds_entries: bool, expected: Digest) -> command::Upload<'_> {
        let Self { places, preserved, exclude, update } = self;
        let update = update.as_ref().map(|(lists, _)| lists);
        command::Upload { places, preserved, exclude, update, holds_entries, expected }
    }

    /// Again, for another upload.
    fn anew(&self, update: Option<(Lists, Unsent)>) -> Self {
        let Self { places, preserved, exclude, .. } = self;
        let (preserved, exclude) = (preserved.clone(), exclude.clone());
        Self { places: places.for_upload(&new_id()), preserved, exclude, update }
    }
}

impl Delivered {
    /// Removes the files of an archive from the sandbox, where the command that would have done so has failed.
    async fn discard<C: SandboxClient>(&self, client: &C, archive: &str) {
        clean_up(client, (0..=self.earlier.len()).map(|number| part_path(archive, number))).await;
    }

    /// Whether any part is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.earlier.iter().chain([&self.last]).any(|part| part.codec != Codec::None)
    }
}

/// A workspace on its way up.
struct Uploading<'a, C> {
    client: &'a Arc<C>,
    workspace: &'a Workspace,
    filter: Filter<'static>,
    patterns: Arc<Watched>,
    ignored: Arc<IgnoreRules>,
    travel: Travel,
    way: Way,
    cancel: &'a Cancel,
    control: Arc<Control>,
    /// The assets that the sandbox has as they were sent.
    unchanged_assets: Vec<sandboxes::Asset>,
}

/// A workspace that the sandbox has.
struct Sent {
    contents: Contents,
    repositories: Shared,
    archive: Box<Archive>,
}

impl<C: SandboxClient> Uploading<'_, C> {
    /// Sends what differs from what is known of the sandbox. The workspace is scanned while the sandbox looks at its own.
    async fn update(
        &mut self,
        known: sandboxes::Sandbox<'static>,
        memory: &Arc<Memory>,
    ) -> Result<Updated, RunError<C::Failure>> {
        let (Some(index), Some(remote)) = (known.index, known.remote) else {
            return Ok(Updated::Doubtful(None));
        };
        let mut remote = remote.into_owned();
        let former = self.control.places.for_upload(&known.upload_id);
        let told = new_id();
        let scanning = tokio::spawn(self.scan());
        let loading = tokio::spawn(memory.clone().digests());
        let folder = |asset: &sandboxes::Asset| format!("{}/{}", former.runtime_root(), asset.key);
        let assets: Vec<_> = known.assets.iter().map(|asset| (folder(asset), asset.index.clone())).collect();
        let comparing = Step::of_workspace("compare", 0);
        let ask = update::ask(&**self.client, &former, &index, &told, &assets);
        let asked = telling(&**self.client, comparing, ask).await;
        let panicked = |panicked: JoinError| Error::Internal(panicked.to_string());
        let (scanned, digests) = (scanning.await.map_err(panicked)??, loading.await.map_err(panicked)??);
        let Some(Asked { changes, assets }) = asked else {
            self.cancel.check()?;
            return Ok(Updated::Doubtful(Some(scanned)));
        };
        remote.change(&changes, |_| None);
        let former = Arc::new(Former { remote, bases: known.repositories.into_owned() });
        self.unchanged_assets = known.assets.into_owned();
        self.unchanged_assets.retain(|asset| assets.contains(asset.index.as_bytes()));
        let Scanned { started, found, left_out } = scanned;
        let LaidOut { layout, unsent, repositories } = self.lay_out(found, Some(former.clone())).await?;
        let (preserved, stop) = (self.control.preserved.clone(), self.cancel.clone());
        let difference = blocking(move || {
            let (mut wanted, read) = update::wanted(&layout, &former.remote, &digests, &stop)?;
            wanted.extend(unsent.clone());
            let is_preserved =
                |path: &RelativePath| preserved.iter().any(|name| name.as_bytes() == path.top());
            let difference = update::difference(layout, &wanted, read, &former.remote, is_preserved);
            // What is not laid out cannot be sent.
            Ok(difference.filter(|difference| unsent.keys().all(|path| difference.unsent.has(path))))
        });
        let difference = telling(&**self.client, Step::of_workspace("pack", 0), difference);
        let Some(Difference { layout, lists, unsent }) = difference.await? else {
            return Ok(Updated::Doubtful(None));
        };
        let lists = Lists { former: known.upload_id, told, ..lists };
        let everything = self.control.clone();
        self.control = Arc::new(everything.anew(Some((lists, unsent))));
        match self.send(started, layout, repositories, left_out).await? {
            Uploaded::Done(sent) => Ok(Updated::Done(sent)),
            Uploaded::Refused(_) | Uploaded::CannotDecompress => {
                self.cancel.check()?;
                self.control = everything;
                Ok(Updated::Doubtful(None))
            }
        }
    }

    /// Sends everything, as it was scanned, or as it is scanned now.
    async fn everything(&mut self, mut scanned: Option<Scanned>) -> Result<Sent, RunError<C::Failure>> {
        loop {
            let Scanned { started, found, left_out } = match scanned.take() {
                Some(scanned) => scanned,
                None => telling(&**self.client, Step::of_workspace("pack", 0), self.scan()).await?,
            };
            let LaidOut { layout, repositories, .. } = self.lay_out(found, None).await?;
            match self.send(started, layout, repositories, left_out).await? {
                Uploaded::Done(sent) => return Ok(sent),
                Uploaded::Refused(failure) => return Err(RunError::Client(failure)),
                Uploaded::CannotDecompress if self.way.compress => self.way.compress = false,
                Uploaded::CannotDecompress => {
                    return Err(Error::Internal("a plain upload was to be decompressed".to_owned()).into());
                }
            }
        }
    }

    /// Scans the workspace.
    fn scan(&self) -> impl Future<Output = Result<Scanned, Error>> + Send + use<C> {
        let started = Instant::now();
        let (workspace, stop) = (self.workspace.clone(), self.cancel.clone());
        let (filter, travel) = (self.filter.clone(), self.travel);
        let (patterns, ignored) = (self.patterns.clone(), self.ignored.clone());
        blocking(move || {
            let root = workspace.open()?;
            let (found, mut left_out) =
                noting(&filter, |filter| repositories::find(root, filter, travel, &stop))?;
            left_out.unmatched = unmatched(&patterns);
            left_out.unmatched.extend(ignored.unmatched().into_iter().map(Unmatched::from));
            Ok(Scanned { started, found, left_out })
        })
    }

    /// Makes what goes up of the workspace's repositories, and lays it out with the files.
    async fn lay_out(
        &self,
        found: repositories::Scanned,
        former: Option<Arc<Former>>,
    ) -> Result<LaidOut, Error> {
        let (travel, stop) = (self.travel, self.cancel.clone());
        let laid_out = blocking(move || repositories::lay_out(found, travel, former.as_deref(), &stop));
        telling(&**self.client, Step::of_workspace("pack", 0), laid_out).await
    }

    /// Packs what is laid out, sends it, and has the sandbox put it in its place.
    async fn send(
        &self,
        started: Instant,
        layout: Layout,
        mut repositories: Shared,
        mut left_out: LeftOut,
    ) -> Result<Uploaded<C::Failure>, RunError<C::Failure>> {
        let Self { client, way, cancel, control, .. } = self;
        let places = &control.places;
        let tail = {
            let control = control.clone();
            move |earlier: &[Part], contents: Option<&Contents>, size: u64| {
                let expected = contents.map(|contents| match &control.update {
                    None => listing::digest(&contents.sent, &control.preserved),
                    Some((_, unsent)) => listing::digest(&unsent.listed(contents), &control.preserved),
                });
                let expected = expected.unwrap_or(NO_DIGEST);
                control.upload(size > END_MARK as u64, expected).control(earlier)
            }
        };
        let tail: Tail = Arc::new(tail);
        let mut times = Times::default();
        note_special(&mut left_out, &layout);
        let step = Step::of_workspace("pack", layout.size());
        let ready = telling(&***client, step, send::pack(&***client, layout, &tail, way, cancel)).await?;
        times.pack = started.elapsed();
        persist(&***client, || async {
            let started = Instant::now();
            client.make_dir(places.runtime_root()).await?;
            lock(&way.link).answered(started.elapsed());
            Ok(())
        })
        .await?;
        let archive = places.upload();
        let started = Instant::now();
        let delivered = send::send(client, "workspace", &archive, ready, tail, way, cancel).await?;
        times.upload = started.elapsed();
        let number = delivered.earlier.len();
        let command = control.upload(true, NO_DIGEST).command(number, delivered.last, delivered.last_file);
        repositories.sent();
        let started = Instant::now();
        let step = Step::of_workspace("extract", delivered.packed);
        let Err(failure) = telling(&***client, step, client.run(&command)).await else {
            times.extract = started.elapsed();
            let archive = Archive::new("workspace", &delivered, times, left_out);
            let archive = Box::new(Archive { is_changes_only: control.update.is_some(), ..archive });
            let contents = match &control.update {
                None => delivered.contents,
                Some((_, unsent)) => unsent.clone().with(delivered.contents),
            };
            return Ok(Uploaded::Done(Sent { contents, repositories, archive }));
        };
        delivered.discard(&***client, &archive).await;
        if delivered.is_compressed() && lacks_decompressor(&***client, places).await {
            return Ok(Uploaded::CannotDecompress);
        }
        Ok(Uploaded::Refused(failure))
    }
}

/// Scans with a filter, and notes what it leaves out.
fn noting<T>(filter: &Filter<'_>, scan: impl FnOnce(&Filter<'_>) -> Result<T>) -> Result<(T, LeftOut)> {
    let left_out = std::sync::Mutex::new(LeftOut::default());
    let scanned = scan(&Filter::by_kind(|path, kind| {
        let reason = filter.reason(path, kind);
        if let Some(reason) = reason {
            lock(&left_out).note(path, reason);
        }
        reason.is_some()
    }))?;
    Ok((scanned, left_out.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// What is left out whatever a caller excludes.
fn always_excluded() -> ExcludePatterns {
    patterns(&[])
}

/// The patterns of a caller that matched nothing.
fn unmatched(patterns: &Watched) -> Vec<Unmatched> {
    patterns.unmatched().map(|pattern| Unmatched { pattern: pattern.to_vec(), of: None }).collect()
}

fn note_special(left_out: &mut LeftOut, layout: &Layout) {
    for path in layout.special() {
        left_out.note(path, SPECIAL);
    }
}

/// A workspace as it was scanned, and when that began.
struct Scanned {
    started: Instant,
    found: repositories::Scanned,
    left_out: LeftOut,
}

/// What became of an update.
enum Updated {
    Done(Sent),
    /// Something was in doubt, so that everything is to be sent.
    Doubtful(Option<Scanned>),
}

/// What became of an upload.
enum Uploaded<F> {
    Done(Sent),
    /// The sandbox has nothing that decompresses.
    CannotDecompress,
    /// The command in the sandbox has failed.
    Refused(F),
}

/// Whether the sandbox has said so. One that does not answer has not.
async fn lacks_decompressor<C: SandboxClient>(client: &C, places: &Places) -> bool {
    let status = places.upload_status();
    let Ok(told) = client.read_file(&status, None).await else { return false };
    clean_up(client, [status]).await;
    let told = blocking(move || copy_of(&told, command::NO_DECOMPRESSOR.len())).await;
    told.is_ok_and(|told| told == command::NO_DECOMPRESSOR.as_bytes())
}

/// How assets go up.
struct AssetTerms<'a> {
    places: &'a Places,
    way: &'a Way,
    cancel: &'a Cancel,
    /// Those that the sandbox has as they were sent.
    unchanged_assets: Vec<sandboxes::Asset>,
    /// Whether the sandbox is to keep an index of each.
    keep_indexes: bool,
}

/// An asset that the sandbox has now, where that is to be known later.
type OfAsset = (Archive, Option<sandboxes::Asset>);

/// Uploads the assets, up to `concurrency` at once, and packs one ahead. The failure that is reported is that of the
/// first asset in order, as if they had gone one after the other.
///
/// An asset that fits one part, and of which the sandbox has this very archive, is not sent.
async fn upload_assets<C: SandboxClient>(
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
