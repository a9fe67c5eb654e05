//! What a caller wants to be uploaded.

use std::path::PathBuf;
use std::sync::Arc;

use super::repositories::Travel;
use super::send::Way;
use crate::merge::conflicts::Retention;
use crate::state::tools::Expected;
use crate::transfer::parts::Codec;

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
    /// How many assets may be uploaded at once.
    pub concurrency: usize,
    /// How many bytes of an archive a part has at most, before it is compressed.
    pub part_bytes: u64,
    /// How many parts of an archive may be transferred at once.
    pub parts_at_once: usize,
    /// Whether parts may be compressed.
    pub compress: bool,
    /// Whether only changes are transferred where that is possible.
    pub changes_only: bool,
    /// Where this machine stores what both sides share between calls; `None` stores nothing.
    pub state: Option<State>,
    /// For how long a restore keeps the local versions that earlier ones replaced.
    pub retention: Retention,
    /// How git repositories are transferred.
    pub repositories: Travel,
}

impl Upload {
    /// How archives are transferred; nothing is known of the link yet.
    pub(super) fn way(&self, expected: Expected) -> Way {
        let codec = if expected == Expected::Zstd { Codec::Zstd } else { Codec::Gzip };
        Way {
            part_bytes: self.part_bytes,
            at_once: self.parts_at_once,
            codec: if self.compress { codec } else { Codec::None },
            may_try_zstd: expected == Expected::Unknown,
            link: Arc::default(),
            failed: Arc::default(),
        }
    }
}

/// Where this machine stores what both sides share.
#[derive(Debug, Clone)]
pub struct State {
    /// A directory that belongs to this package.
    pub folder: PathBuf,
    /// What identifies the sandbox: its provider, and its name at that provider.
    pub sandbox: [Vec<u8>; 2],
}

/// A local directory that is uploaded beside the workspace.
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
