//! What git's part of an exchange did.

use crate::path::RelativePath;

/// Something of the sandbox's that stays as it was here, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldBack {
    /// Where it lies, from the workspace's root.
    pub path: RelativePath,
    /// What it is there, where the path alone does not say it (a key of the configuration, a reference).
    pub what: Option<String>,
    /// Why.
    pub reason: String,
}

/// A reference of the sandbox, or one that it replaced or deleted, that was kept under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptReference {
    /// The repository's `.git`.
    pub repository: RelativePath,
    /// Its name there.
    pub reference: String,
    /// The name under which it is kept here.
    pub kept_at: String,
}

/// What git's part of a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitReport {
    /// References, `HEAD` and indexes that are the sandbox's now: repository and name.
    pub updated: Vec<(RelativePath, String)>,
    /// References that are gone because the sandbox deleted them.
    pub deleted: Vec<(RelativePath, String)>,
    /// What both sides changed, or what the sandbox replaced, and where it is kept.
    pub kept: Vec<KeptReference>,
    /// What stayed as it was here.
    pub held_back: Vec<HeldBack>,
}
