//! A workspace and its assets → the sandbox.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::Mutex;

use super::assets::{AssetTerms, check_assets, upload_assets};
use super::client::{RunError, SandboxClient, Step, blocking, clean_up, persist, telling};
use super::command::{self, Lists, Places};
use super::exclusions::{
    EXCLUDED, IGNORED, OURS, always_excluded, excluded_paths, left_alone, note_left_here, note_special,
    noting, unmatched,
};
use super::prepare_report::{Archive, LeftOut, PrepareReport, Times, Unmatched};
use super::repositories::{self, Former, LaidOut, Shared, Travel};
use super::send::{self, Tail, Way};
use super::session::{Base, Memory, Session, Workspace, new_id};
use super::update::{self, Asked, Difference, Wanted};
use super::upload::Upload;
use super::{listing, spec};
use crate::archive::header::END_MARK;
use crate::archive::pack::{self, Contents, Layout};
use crate::archive::source::copy_of;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exclude::{ExcludePatterns, PathSet};
use crate::fs::{Kind, Root};
use crate::merge::report::Rescued;
use crate::path::RelativePath;
use crate::state::digests::{self, Digests};
use crate::state::sandboxes::{self, Stored, Trees};
use crate::sync::lock;
use crate::transfer::parts::{Codec, Part};
use crate::transfer::remote::Update;
use crate::tree::entry::Digest;
use crate::tree::filter::{Filter, Watched};
use crate::tree::ignore_files::IgnoreRules;
use crate::tree::stage::is_in_runtime;
use crate::tree::temporary::is_temporary_name;

/// Stands for a digest where it does not matter which.
const NO_DIGEST: Digest = Digest([0; 32]);

/// How often a workspace is uploaded again at most, since one of its repositories has moved meanwhile.
const AGAIN_MAX: usize = 2;

/// Uploads a workspace and its assets. Everything that can be refused is refused before the first client call.
///
/// The calls come in the order of the TypeScript module. While one archive is uploaded the next is packed.
///
/// A person may switch to another branch meanwhile, or pull. Then the sandbox has the `HEAD` and the index of before, and some files of
/// after, which an agent's next `git commit -a` would put on the wrong branch. So what has changed since is uploaded, too.
pub async fn prepare<C: SandboxClient>(
    client: Arc<C>,
    upload: Upload,
    cancel: Cancel,
) -> Result<Session, RunError<C::Failure>> {
    let mut archives = Vec::new();
    for again in 0.. {
        let began = SystemTime::now();
        // Its future is large.
        let mut session = Box::pin(prepare_once(client.clone(), upload.clone(), cancel.clone())).await?;
        archives.append(&mut session.report.archives);
        if again == AGAIN_MAX || !session.has_moved_since(began).await? {
            session.report.archives = archives;
            return Ok(session);
        }
    }
    unreachable!("the loop ends by itself")
}

async fn prepare_once<C: SandboxClient>(
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
    let (ignored, memory, way) = read_first(root, &upload, &workspace, &filter, &cancel).await?;
    let filter = filter.without(IGNORED, ignored.clone());
    let left_alone = left_alone(&upload.exclude, ignored.clone(), &preserve, upload.repositories);
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
        has_zstd: false,
        unchanged_assets: Vec::new(),
        memory: &memory,
        excluded: excluded_paths(&upload.exclude, &preserve),
        read_from: SystemTime::now(),
    };
    let known = if upload.changes_only { memory.usable(&upload, &workspace).await? } else { None };
    let updated = match known {
        // Its future is large, and most of it is needed only while it is polled.
        Some(known) => Box::pin(uploading.update(known)).await?,
        None => None,
    };
    let sent = if let Some(sent) = updated {
        sent
    } else {
        uploading.unchanged_assets.clear();
        uploading.everything().await?
    };
    let Sent { settled: Settled { trees, stored, repositories }, archive } = sent;
    uploading.settle_codec(archive.codec).await?;
    let (way, control, unchanged_assets) = (uploading.way, uploading.control, uploading.unchanged_assets);
    let places = control.places.clone();

    let mut report = PrepareReport { archives: vec![archive] };
    let terms = AssetTerms {
        places: places.clone(),
        way: way.clone(),
        cancel: cancel.clone(),
        keep: upload.changes_only && memory.store.is_some(),
        memory: memory.clone(),
    };
    let mut assets = Vec::new();
    for (archive, asset) in
        upload_assets(&client, sources, upload.concurrency, &unchanged_assets, terms).await?
    {
        report.archives.push(archive);
        assets.extend(asset);
    }
    let base = Base {
        trees,
        stored,
        index: upload.changes_only.then(|| places.upload_id().to_owned()),
        downloads: 0,
        lost: PathSet::default(),
        modes: HashMap::new(),
        rescued: Rescued::default(),
        retention: upload.retention,
        repositories,
        assets,
    };
    let session = Session {
        workspace,
        places,
        left_alone,
        repositories: upload.repositories,
        preserve,
        way,
        changes_only: upload.changes_only,
        report,
        base: Arc::new(Mutex::new(base)),
        turn: Mutex::default(),
        memory,
    };
    session.remember().await?;
    Ok(session)
}

/// Reads the workspace's ignore files, and what this machine stores of such sandboxes.
async fn read_first(
    root: Root,
    upload: &Upload,
    workspace: &Workspace,
    filter: &Filter<'static>,
    cancel: &Cancel,
) -> Result<(Arc<IgnoreRules>, Arc<Memory>, Way), Error> {
    let (upload, workspace) = (upload.clone(), workspace.clone());
    let (filter, cancel) = (filter.clone(), cancel.clone());
    blocking(move || {
        let travel = upload.repositories;
        let files = filter.without_names("", |path| travel.is_apart(path));
        let ignored = Arc::new(IgnoreRules::read(&root, &upload.ignore_files, &files, &cancel)?);
        let memory = Memory::of(&upload, &workspace, ignored.clone());
        let way = upload.way(memory.expected());
        Ok((ignored, Arc::new(memory), way))
    })
    .await
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

/// The patterns that the sandbox's tar gets. What is excluded is decided locally in any case; a pattern that is not
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

/// What the sandbox is to do with the workspace's archive.
struct Control {
    places: Places,
    preserved: Vec<String>,
    exclude: Vec<String>,
    /// What an update does, with the files whose time is set.
    update: Option<(Lists, Touched)>,
}

/// The files whose time is set, each as an archive's header would describe it.
type Touched = Vec<(RelativePath, pack::Sent)>;

impl Control {
    /// An upload of an archive that has `preserved_files` at preserved names.
    fn upload<'a>(
        &'a self,
        preserved_files: &'a [String],
        holds_entries: bool,
        expected: Digest,
    ) -> command::Upload<'a> {
        let Self { places, preserved, exclude, update } = self;
        let update = update.as_ref().map(|(lists, _)| lists);
        command::Upload { places, preserved, preserved_files, exclude, update, holds_entries, expected }
    }

    /// The same for another upload, which gets a new id.
    fn anew(&self, update: Option<(Lists, Touched)>) -> Self {
        let Self { places, preserved, exclude, .. } = self;
        let (preserved, exclude) = (preserved.clone(), exclude.clone());
        Self { places: places.for_upload(&new_id()), preserved, exclude, update }
    }
}

/// A workspace that is being uploaded.
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
    /// Whether this sandbox itself says that it has zstd.
    has_zstd: bool,
    /// The assets that the sandbox has as they were sent.
    unchanged_assets: Vec<sandboxes::Asset>,
    memory: &'a Arc<Memory>,
    /// What is not shared although it may be packed.
    excluded: PathSet,
    /// A time before any file was read.
    read_from: SystemTime,
}

/// A workspace that the sandbox has.
struct Sent {
    settled: Settled,
    archive: Archive,
}

/// What both sides share once the sandbox has extracted what was sent.
struct Settled {
    trees: Trees,
    stored: Option<Stored>,
    repositories: Shared,
}

/// What was known before an upload, and what an update comes to.
#[derive(Default)]
struct Prior {
    outcome: Option<update::Outcome>,
    stored: Option<Stored>,
    digests: Digests,
}

/// A workspace that was compared with what the sandbox has.
struct Compared {
    started: Instant,
    left_out: LeftOut,
    repositories: Shared,
    wanted: Wanted,
    /// `None` where the difference cannot be sent.
    update: Option<Update>,
}

impl<C: SandboxClient> Uploading<'_, C> {
    /// Sends what differs from what is known of the sandbox. `None` where something is in doubt, so that everything is to be
    /// sent.
    ///
    /// While the sandbox looks for changes, the workspace is compared with what the sandbox had before.
    async fn update(
        &mut self,
        known: sandboxes::Sandbox<'static>,
    ) -> Result<Option<Sent>, RunError<C::Failure>> {
        let Some(index) = known.index else { return Ok(None) };
        let former = self.control.places.for_upload(&known.upload_id);
        let told = new_id();
        let folder = |asset: &sandboxes::Asset| format!("{}/{}", former.runtime_root(), asset.key);
        let assets: Vec<_> = known.assets.iter().map(|asset| (folder(asset), asset.index.clone())).collect();
        let ask = update::ask(&**self.client, &former, &index, &told, &assets);
        let asking = telling(&**self.client, Step::of_workspace("compare", 0), ask);
        let (reference, bases) = (known.trees, known.repositories.into_owned());
        let early = async {
            let memory = self.memory.clone();
            let load = blocking(move || Ok((memory.load_trees(&reference), memory.load_digests())));
            let (scanned, (trees, digests)) = tokio::try_join!(self.scan(), load)?;
            let Some((stored, Trees { remote: Some(remote), .. })) = trees else { return Ok(None) };
            let (former, digests) = (Arc::new(Former { remote, bases }), Arc::new(digests));
            let compared = self.compare(scanned, former.clone(), digests.clone()).await?;
            Ok::<_, Error>(Some((compared, former, digests, stored)))
        };
        let (asked, early) = tokio::join!(asking, early);
        let early = early?;
        if let Some(Asked { has_zstd: Some(has_zstd), .. }) = asked {
            self.learn(has_zstd).await?;
        }
        let (Some(Asked { changes, assets, .. }), Some((mut compared, former, digests, stored))) =
            (asked, early)
        else {
            self.cancel.check()?;
            return Ok(None);
        };
        self.unchanged_assets = known.assets.into_owned();
        self.unchanged_assets.retain(|asset| assets.contains(asset.index.as_bytes()));
        if !changes.is_empty() {
            let Former { mut remote, bases } = Arc::unwrap_or_clone(former);
            remote.change(&changes, |_| None);
            // What is uploaded of the repositories depends on what the sandbox has of them.
            if changes.iter().any(|(path, _)| self.travel.is_apart(path)) {
                let scanned = self.scan().await?;
                let former = Arc::new(Former { remote, bases });
                compared = self.compare(scanned, former, digests.clone()).await?;
            } else {
                let preserved = self.control.preserved.clone();
                let planning = blocking(move || {
                    let update = compared.wanted.plan(&remote, |path| is_preserved(&preserved, path));
                    Ok(Compared { update, ..compared })
                });
                compared = planning.await?;
            }
        }
        let Compared { started, left_out, repositories, wanted, update: Some(update) } = compared else {
            return Ok(None);
        };
        let Difference { layout, lists, touched, outcome } =
            blocking(move || Ok(wanted.difference(update))).await?;
        let lists = Lists { former: known.upload_id, told, ..lists };
        let everything = self.control.clone();
        self.control = Arc::new(everything.anew(Some((lists, touched))));
        let digests = Arc::into_inner(digests).unwrap_or_default();
        let prior = Prior { outcome: Some(outcome), stored: Some(stored), digests };
        match self.send(started, layout, repositories, left_out, prior).await? {
            Uploaded::Done(sent) => Ok(Some(*sent)),
            refused => {
                if let Uploaded::CannotDecompress(codec) = refused {
                    self.compress_otherwise(codec).await?;
                }
                self.cancel.check()?;
                self.control = everything;
                Ok(None)
            }
        }
    }

    /// Sends everything.
    async fn everything(&mut self) -> Result<Sent, RunError<C::Failure>> {
        loop {
            let scan = telling(&**self.client, Step::of_workspace("pack", 0), self.scan());
            let Scanned { started, found, left_out } = scan.await?;
            let LaidOut { layout, repositories, .. } = self.lay_out(found, None).await?;
            match self.send(started, layout, repositories, left_out, Prior::default()).await? {
                Uploaded::Done(sent) => return Ok(*sent),
                Uploaded::Refused(failure) => return Err(RunError::Client(failure)),
                Uploaded::CannotDecompress(codec) => self.compress_otherwise(codec).await?,
            }
        }
    }

    /// Uses zstd if the sandbox says that it has it, and remembers that for others.
    async fn learn(&mut self, has_zstd: bool) -> Result<(), Error> {
        self.has_zstd = has_zstd;
        if self.way.codec != Codec::None {
            self.way.codec = if has_zstd { Codec::Zstd } else { Codec::Gzip };
        }
        self.remember_zstd(has_zstd).await
    }

    /// Makes the next upload one that needs less of the sandbox, after one that it could not decompress.
    async fn compress_otherwise(&mut self, failed: Codec) -> Result<(), Error> {
        self.way.codec = failed.instead();
        self.way.may_try_zstd = false;
        if failed == Codec::Zstd { self.remember_zstd(false).await } else { Ok(()) }
    }

    async fn remember_zstd(&self, has_zstd: bool) -> Result<(), Error> {
        let memory = self.memory.clone();
        blocking(move || {
            memory.note_zstd(has_zstd);
            Ok(())
        })
        .await
    }

    /// Does without zstd for what follows the workspace, unless the sandbox has said or shown that it has it: an asset is
    /// not sent again.
    async fn settle_codec(&mut self, shown: Codec) -> Result<(), Error> {
        self.way.may_try_zstd = false;
        if shown == Codec::Zstd {
            return self.learn(true).await;
        }
        if self.way.codec == Codec::Zstd && !self.has_zstd {
            self.way.codec = Codec::Gzip;
        }
        Ok(())
    }

    /// Compares a workspace with what the sandbox has.
    async fn compare(
        &self,
        scanned: Scanned,
        former: Arc<Former>,
        digests: Arc<Digests>,
    ) -> Result<Compared, Error> {
        let Scanned { started, found, left_out } = scanned;
        let LaidOut { layout, unsent, repositories } = self.lay_out(found, Some(former.clone())).await?;
        let (preserved, stop) = (self.control.preserved.clone(), self.cancel.clone());
        let comparing = blocking(move || {
            let wanted = update::wanted(layout, unsent, &former.remote, &digests, &stop)?;
            let update = wanted.plan(&former.remote, |path| is_preserved(&preserved, path));
            Ok((wanted, update))
        });
        let (wanted, update) = telling(&**self.client, Step::of_workspace("pack", 0), comparing).await?;
        Ok(Compared { started, left_out, repositories, wanted, update })
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

    /// Makes the upload of the workspace's repositories, and lays it out with the files.
    async fn lay_out(
        &self,
        found: repositories::Scanned,
        former: Option<Arc<Former>>,
    ) -> Result<LaidOut, Error> {
        let (filter, travel, stop) = (self.filter.clone(), self.travel, self.cancel.clone());
        let laid_out =
            blocking(move || repositories::lay_out(found, &filter, travel, former.as_deref(), &stop));
        telling(&**self.client, Step::of_workspace("pack", 0), laid_out).await
    }

    /// Packs what is laid out, sends it, and has the sandbox extract it.
    async fn send(
        &self,
        started: Instant,
        layout: Layout,
        mut repositories: Shared,
        mut left_out: LeftOut,
        prior: Prior,
    ) -> Result<Uploaded<C::Failure>, RunError<C::Failure>> {
        let Self { client, way, cancel, control, .. } = self;
        let places = &control.places;
        let tail = {
            let control = control.clone();
            let preserved_files = preserved_files(&layout, &control.preserved);
            move |earlier: &[Part], contents: Option<&Contents>, size: u64| {
                let expected = contents.map(|contents| match &control.update {
                    None => listing::digest(&contents.sent, &control.preserved),
                    Some((_, touched)) => {
                        listing::digest(&update::listed(touched, contents), &control.preserved)
                    }
                });
                let expected = expected.unwrap_or(NO_DIGEST);
                control.upload(&preserved_files, size > END_MARK as u64, expected).control(earlier)
            }
        };
        let tail: Tail = Arc::new(tail);
        let mut times = Times::default();
        note_special(&mut left_out, &layout);
        note_left_here(&mut left_out, &repositories);
        let step = Step::of_workspace("pack", layout.size());
        let ready = telling(&***client, step, send::pack(&***client, layout, &tail, way, cancel)).await?;
        times.pack = started.elapsed();
        persist(&***client, || async {
            let took = client.make_dir(places.runtime_root()).await?;
            lock(&way.link).answered(took);
            Ok(())
        })
        .await?;
        let archive = places.upload();
        let started = Instant::now();
        let mut delivered = send::send(client, "workspace", &archive, ready, tail, way, cancel).await?;
        times.upload = started.elapsed();
        let number = delivered.earlier.len();
        let command =
            control.upload(&[], true, NO_DIGEST).command(number, delivered.last, delivered.last_file);
        repositories.sent();
        let mut report = Archive::new("workspace", &delivered, times, left_out);
        report.is_changes_only = control.update.is_some();
        let contents = std::mem::take(&mut delivered.contents);
        let settling = self.settle(contents, repositories, prior);
        let started = Instant::now();
        let step = Step::of_workspace("extract", delivered.packed);
        let extracting = async {
            let extracted = telling(&***client, step, client.run(&command)).await;
            (extracted, started.elapsed())
        };
        // What both sides share afterwards is worked out, and mostly stored, while the sandbox is busy.
        let ((extracted, took), settled) = tokio::join!(extracting, settling);
        report.times.extract = took;
        let Err(failure) = extracted else {
            let sent = Sent { settled: settled?, archive: report };
            return Ok(Uploaded::Done(Box::new(sent)));
        };
        if let Ok(Settled { stored: Some(stored), .. }) = settled {
            let memory = self.memory.clone();
            blocking(move || {
                memory.discard(&stored);
                Ok(())
            })
            .await?;
        }
        delivered.discard(&***client, &archive).await;
        let codec = delivered.codec();
        if codec != Codec::None && lacks_decompressor(&***client, places).await {
            return Ok(Uploaded::CannotDecompress(codec));
        }
        Ok(Uploaded::Refused(failure))
    }

    /// Works out what both sides share once the sandbox has extracted what was packed, and stores what is large of it.
    fn settle(
        &self,
        mut contents: Contents,
        mut repositories: Shared,
        prior: Prior,
    ) -> impl Future<Output = Result<Settled, Error>> + Send + use<C> {
        let (memory, travel, excluded) = (self.memory.clone(), self.travel, self.excluded.clone());
        let read_from = self.read_from;
        let Prior { mut outcome, stored, digests } = prior;
        blocking(move || {
            let mut read = std::mem::take(&mut contents.read);
            read.extend(outcome.iter_mut().flat_map(update::Outcome::take_read));
            let keep_trees = || {
                let (remote, snapshot, sent) = match outcome {
                    None => (update::remote_of(&contents), contents.snapshot, contents.sent),
                    // After an update the sandbox has exactly what it is to have.
                    Some(outcome) => {
                        let remote = outcome.with(&contents);
                        let snapshot = remote.snapshot();
                        (remote, snapshot, Vec::new())
                    }
                };
                repositories.note_packs(&snapshot);
                let mut trees = Trees { snapshot, remote: Some(remote), sent };
                // Preserved paths may be packed, but are not shared. What patterns exclude was not packed.
                trees.snapshot.retain(|path, _| !excluded.contains_or_covers(path) && !travel.is_apart(path));
                let Some(store) = &memory.store else { return (trees, None) };
                if let Some(stored) = &stored {
                    stored.share(&mut trees);
                }
                let stored = stored.filter(|stored| stored.refer(&trees).is_some());
                let stored = stored.or_else(|| Stored::write(store, &trees));
                (trees, stored)
            };
            let keep_digests = || {
                let Some(store) = &memory.store else { return };
                let read = read.into_iter().filter(|(path, ..)| !travel.is_apart(path)).collect();
                digests::keep(store, &memory.workspace, &digests, read, read_from);
            };
            let ((trees, stored), ()) = rayon::join(keep_trees, keep_digests);
            Ok(Settled { trees, stored, repositories })
        })
    }
}

/// Those of the preserved names that are packed, and not as directories.
fn preserved_files(layout: &Layout, preserved: &[String]) -> Vec<String> {
    let is_packed = |name: &&String| {
        layout
            .entries()
            .any(|(found, _)| found.path.as_bytes() == name.as_bytes() && found.meta.kind != Kind::Folder)
    };
    preserved.iter().filter(is_packed).cloned().collect()
}

/// Whether a path is preserved in the sandbox: its name at the top of the workspace is one of these.
fn is_preserved(preserved: &[String], path: &RelativePath) -> bool {
    preserved.iter().any(|name| name.as_bytes() == path.top())
}

/// A workspace as it was scanned, and when that began.
struct Scanned {
    started: Instant,
    found: repositories::Scanned,
    left_out: LeftOut,
}

/// What became of an upload.
enum Uploaded<F> {
    Done(Box<Sent>),
    /// The sandbox has nothing that decompresses it, as it was compressed.
    CannotDecompress(Codec),
    /// The command in the sandbox has failed.
    Refused(F),
}

/// Whether the sandbox has said that it cannot decompress what was sent. `false` if it does not answer.
async fn lacks_decompressor<C: SandboxClient>(client: &C, places: &Places) -> bool {
    let status = places.upload_status();
    let Ok(told) = client.read_file(&status, None).await else { return false };
    clean_up(client, [status]).await;
    let told = blocking(move || copy_of(&told, command::NO_GUNZIP.len())).await;
    told.is_ok_and(|told| [command::NO_GUNZIP, command::NO_ZSTD].map(str::as_bytes).contains(&&*told))
}
