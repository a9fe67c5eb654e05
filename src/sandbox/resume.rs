//! Resumes the session of a prepare, which may have been made by another process.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::exclusions::left_alone;
use super::prepare_report::PrepareReport;
use super::repositories::{Shared, Travel};
use super::session::{Base, Memory, Session, Workspace, new_id};
use super::spec;
use super::upload::Upload;
use crate::error::{Error, Result};
use crate::exclude::PathSet;
use crate::fs::Root;
use crate::merge::report::Rescued;
use crate::state::tools::Expected;
use crate::tree::ignore_files::IgnoreRules;

/// Returns the session that the last prepare or restore of this sandbox has stored on this machine. Its
/// excludes, its preserved paths and its way with repositories still hold, whatever `upload` says. No client is called: the restore finds
/// out whether the sandbox still has that upload.
pub fn resume(upload: Upload) -> Result<Session> {
    let places =
        spec::places(&upload.remote_dir, upload.remote_dir_argument, &upload.adapter_key, &new_id())?;
    let root = Root::open(&upload.workspace)?;
    let workspace = Workspace::of(&root)?;
    let mut memory = Memory::of(&upload, &workspace, Arc::default());
    let nothing = |reason| Error::NothingToResume { remote_dir: upload.remote_dir.clone(), reason };
    let not_stored = "no prepare of this sandbox, remote directory, adapter key and workspace is stored in the cache directory";
    let kept = memory.load().ok_or_else(|| nothing(not_stored))?;
    if !workspace.is_of(&kept) {
        return Err(Error::WorkspaceReplaced { path: upload.workspace });
    }
    let incomplete = "what the cache directory has stored of it is incomplete";
    let (stored, trees) = memory.load_trees(&kept.trees).ok_or_else(|| nothing(incomplete))?;
    let preserve = PathSet::new("input.preserveAbsentOnRestore", kept.preserve.iter())?;
    let ignored = Arc::new(IgnoreRules::of(kept.ignore_files.into_owned())?);
    let repositories = Travel { mode: kept.mode, ..upload.repositories };
    memory.mode = kept.mode;
    let left_alone = left_alone(&kept.exclude, ignored.clone(), &preserve, repositories);
    (memory.exclude, memory.preserve) = (kept.exclude.into_owned(), kept.preserve.into_owned());
    memory.ignored = ignored;
    let base = Base {
        trees,
        stored: Some(stored),
        index: kept.index.filter(|_| upload.changes_only),
        downloads: kept.downloads,
        lost: PathSet::of(kept.lost),
        modes: kept.modes.into_iter().collect(),
        rescued: Rescued::default(),
        retention: upload.retention,
        repositories: Shared::of(kept.repositories.into_owned()),
        assets: kept.assets.into_owned(),
    };
    Ok(Session {
        workspace,
        places: places.for_upload(&kept.upload_id),
        left_alone,
        repositories,
        preserve,
        way: upload.way(Expected::Gzip),
        changes_only: upload.changes_only,
        memory: Arc::new(memory),
        report: PrepareReport::default(),
        base: Arc::new(Mutex::new(base)),
        turn: Mutex::default(),
    })
}
