//! A temporary place with a workspace, a sandbox beside it, and a tree outside that must never change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::error::Error;
use sandbox_managed_runtime::exclude::ExcludePatterns;
use sandbox_managed_runtime::merge::conflicts::Retention;
use sandbox_managed_runtime::merge::folder::{FolderMerge, FolderMergeInput, Source};
use sandbox_managed_runtime::merge::report::Report;
use sandbox_managed_runtime::sandbox::client::{RunError, SandboxClient};
use sandbox_managed_runtime::sandbox::prepare::prepare;
use sandbox_managed_runtime::sandbox::repositories::Travel;
use sandbox_managed_runtime::sandbox::session::Session;
use sandbox_managed_runtime::sandbox::upload::Upload;
use sandbox_managed_runtime::tree::entry::Snapshot;
use sandbox_managed_runtime::tree::filter::Filter;
use tempfile::TempDir;

use crate::sandbox::{CannedSandbox, Failure};
use crate::tree::{DIR, Node, Picture, RUNTIME, Tree, file, path_of, read_node, read_tree, tree, write_tree};

static RUNTIME_THREADS: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

/// The content outside the workspace. No archive, link or race may reveal or change it.
pub const SECRET: &str = "nobody's business";

/// The place of one test.
pub struct Place {
    temp: TempDir,
}

impl Place {
    /// An empty workspace.
    pub fn new() -> Self {
        let place = Self { temp: tempfile::tempdir().unwrap() };
        fs::create_dir(place.workspace()).unwrap();
        fs::create_dir(place.outside()).unwrap();
        write_tree(
            &place.outside(),
            &tree([("secret", file(SECRET)), ("folder", DIR), ("folder/secret", file(SECRET))]),
        );
        place
    }

    /// A workspace that holds a tree.
    pub fn with(tree: &Tree) -> Self {
        let place = Self::new();
        write_tree(&place.workspace(), tree);
        place
    }

    /// The folder around everything.
    pub fn root(&self) -> &Path {
        self.temp.path()
    }

    /// The local workspace.
    pub fn workspace(&self) -> PathBuf {
        self.root().join("workspace")
    }

    /// A path in the workspace.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.workspace().join(path)
    }

    /// The tree that must never change.
    pub fn outside(&self) -> PathBuf {
        self.root().join("outside")
    }

    /// The workspace's folder in the sandbox, if that is a folder.
    pub fn remote(&self) -> PathBuf {
        self.root().join("sandbox/workspace")
    }

    /// The content of the workspace, without the library's own folder.
    pub fn tree(&self) -> Tree {
        read_tree(&self.workspace())
    }

    /// The input of a prepare.
    pub fn upload(&self) -> Upload {
        Self::upload_of(self.root())
    }

    /// The input of a prepare in the place with that root.
    pub fn upload_of(root: &Path) -> Upload {
        Upload {
            workspace: root.join("workspace"),
            remote_dir: root.join("sandbox/workspace").to_str().unwrap().to_owned(),
            remote_dir_argument: "input.workspaceRemoteDir",
            adapter_key: "attack".to_owned(),
            exclude: Vec::new(),
            ignore_files: Vec::new(),
            preserve: Vec::new(),
            assets: Vec::new(),
            concurrency: 1,
            part_bytes: 32 << 20,
            parts_at_once: 1,
            compress: true,
            changes_only: true,
            state: None,
            retention: Retention::default(),
            repositories: Travel::default(),
        }
    }

    /// Uploads the workspace.
    pub fn prepare<C: SandboxClient<Failure = Failure>>(&self, client: &Arc<C>) -> Result<Session, Failed> {
        prepare_upload(client, self.upload())
    }

    /// Uploads the workspace to a sandbox that answers with given bytes.
    pub fn prepare_canned(&self) -> (Arc<CannedSandbox>, Session) {
        let client = Arc::new(CannedSandbox::default());
        let session = self.prepare(&client).unwrap();
        (client, session)
    }

    /// The local versions that were backed up, by the path that they were at.
    pub fn kept_aside(&self) -> Vec<(Vec<u8>, Node)> {
        let conflicts = self.at(RUNTIME).join("conflicts");
        if !fs::symlink_metadata(&conflicts).is_ok_and(|metadata| metadata.is_dir()) {
            return Vec::new();
        }
        let times = fs::read_dir(&conflicts).unwrap();
        times.flat_map(|time| read_tree(&time.unwrap().path())).collect()
    }

    /// Whether given bytes still exist: at that path in the workspace, or backed up.
    pub fn still_has(&self, path: &[u8], node: &Node) -> bool {
        let full = self.at(path_of(path));
        (fs::symlink_metadata(&full).is_ok() && read_node(&full) == *node)
            || self.kept_aside().iter().any(|(_, kept)| kept == node)
    }

    /// Asserts that only backups are left in the library's folder, and no lock beside the workspace.
    #[track_caller]
    pub fn assert_no_litter(&self) {
        if let Ok(names) = fs::read_dir(self.at(RUNTIME)) {
            let names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
            assert!(
                names.iter().all(|name| name == "conflicts" || name == ".gitignore"),
                "litter: {names:?}"
            );
        }
        assert!(!self.root().join("workspace.paperclip-restore.lock").exists(), "the lock was left behind");
    }

    /// An observation of what must never change.
    pub fn outside_picture(&self) -> Picture {
        Picture::of(&self.outside())
    }
}

/// Why a prepare or restore failed.
pub type Failed = RunError<Failure>;

/// Uploads.
pub fn prepare_upload<C: SandboxClient<Failure = Failure>>(
    client: &Arc<C>,
    upload: Upload,
) -> Result<Session, Failed> {
    RUNTIME_THREADS.block_on(prepare(client.clone(), upload, Cancel::default()))
}

/// Restores.
pub fn restore<C: SandboxClient<Failure = Failure>>(session: &Session, client: &C) -> Result<Report, Failed> {
    restore_until(&Cancel::default(), session, client)
}

/// Previews a restore.
pub fn look<C: SandboxClient<Failure = Failure>>(session: &Session, client: &C) -> Result<Report, Failed> {
    let looked = RUNTIME_THREADS.block_on(session.restore(client, true, &Cancel::default()));
    looked.map(|restored| restored.report)
}

/// Restores, unless cancelled.
pub fn restore_until<C: SandboxClient<Failure = Failure>>(
    cancel: &Cancel,
    session: &Session,
    client: &C,
) -> Result<Report, Failed> {
    RUNTIME_THREADS.block_on(session.restore(client, false, cancel)).map(|restored| restored.report)
}

/// Begins a merge of the folder `source` into `target`.
pub fn begin_merge(base: Snapshot, source: &Path, target: &Path) -> Result<FolderMerge, Error> {
    let (source, target) = (source.to_path_buf(), target.to_path_buf());
    RUNTIME_THREADS.block_on(FolderMerge::begin(FolderMergeInput {
        base,
        source: Source::Folder(source),
        target,
        exclude: Filter::default(),
        may_lack: ExcludePatterns::default(),
        may_lack_anything: false,
        lock: None,
        retention: Retention::default(),
    }))
}

/// Restores, and expects an error of our own.
#[track_caller]
pub fn refused<C: SandboxClient<Failure = Failure>>(session: &Session, client: &C) -> Error {
    match restore(session, client) {
        Err(RunError::Own(error)) => error,
        other => panic!("not refused by us: {other:?}"),
    }
}
