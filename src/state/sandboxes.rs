//! What both sides of a round trip shared last, kept so that a later process can go on from there.

use std::borrow::Cow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::store::name_for;
use crate::archive::pack::Sent;
use crate::fs::FileId;
use crate::git::export::Bases;
use crate::path::{RelativePath, bytes_of};
use crate::transfer::remote::Remote;
use crate::tree::entry::{Digest, Snapshot};
use crate::tree::ignore_files::IgnoreFile;

/// A sandbox as this side knows it. What is kept is borrowed, what is loaded is owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox<'a> {
    /// The upload that it has.
    pub upload_id: String,
    /// The local workspace, so that another one at its path is noticed.
    pub workspace: FileId,
    /// Whether the path of the workspace was that of a link.
    pub is_link: bool,
    /// Patterns that were left out.
    pub exclude: Cow<'a, [Vec<u8>]>,
    /// The ignore files that were read, which left out more.
    pub ignore_files: Cow<'a, [IgnoreFile]>,
    /// Paths that a restore leaves alone.
    pub preserve: Cow<'a, [Vec<u8>]>,
    /// The sandbox's index of what both sides share.
    pub index: Option<String>,
    /// All that it holds, where that is known.
    pub remote: Option<Cow<'a, Remote>>,
    /// What both sides share.
    pub snapshot: Cow<'a, Snapshot>,
    /// What was packed, until the sandbox has told what it has of that.
    pub sent: Cow<'a, [(RelativePath, Sent)]>,
    /// What the sandbox never had as it was packed.
    pub lost: Vec<RelativePath>,
    /// The permission bits that the sandbox has by itself.
    pub modes: Vec<(RelativePath, u32)>,
    /// What both sides share of the repositories.
    pub repositories: Cow<'a, Bases>,
    /// The assets that it has.
    pub assets: Cow<'a, [Asset]>,
}

/// An asset as a sandbox has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    /// Its key.
    pub key: String,
    /// The sandbox's index of it.
    pub index: String,
    /// The digest of its archive.
    pub archive: Digest,
}

/// The name under which one is kept: that of a provider's sandbox with a workspace's folder in it, one adapter, and the local
/// workspace.
#[must_use]
pub fn name_of(sandbox: &[&[u8]], remote_dir: &str, adapter_key: &str, workspace: &Path) -> String {
    let place = [remote_dir.as_bytes(), adapter_key.as_bytes(), bytes_of(workspace)];
    name_for("sandbox", &[sandbox, &place].concat())
}
