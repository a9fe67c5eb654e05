//! The report of git's part of an exchange.

use crate::fs::Kind;
use crate::path::RelativePath;
use crate::tree::filter::Filter;

/// Something of the sandbox that was not taken over, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldBack {
    /// Its path in the workspace.
    pub path: RelativePath,
    /// What it is, if the path alone does not say that (a key of the configuration, a reference).
    pub what: Option<String>,
    /// Why.
    pub reason: String,
}

/// A reference of the sandbox, or a local one that was replaced or deleted, that was stored under another
/// name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptReference {
    /// The repository's `.git`.
    pub repository: RelativePath,
    /// Its name in the sandbox.
    pub reference: String,
    /// The local name under which it is stored.
    pub kept_at: String,
}

/// What git's part of a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitReport {
    /// References, `HEAD` and indexes that have the sandbox's value now: repository and name.
    pub updated: Vec<(RelativePath, String)>,
    /// The repositories that are new here.
    pub created: Vec<RelativePath>,
    /// References that were deleted because the sandbox deleted them.
    pub deleted: Vec<(RelativePath, String)>,
    /// What both sides changed, or what the sandbox replaced, and where it is stored.
    pub kept: Vec<KeptReference>,
    /// What stayed as it was locally.
    pub held_back: Vec<HeldBack>,
    /// Whether something failed that may succeed later, such as a step for which another git had a lock.
    pub is_incomplete: bool,
    /// The files whose entry in a local index has the sandbox's value now, by their path in the workspace.
    pub staged: Vec<RelativePath>,
}

impl GitReport {
    /// Takes back what was reported of the references and the index of a repository that was not created after all.
    pub fn take_back(&mut self, repository: &RelativePath) {
        self.updated.retain(|(of, _)| of != repository);
        self.created.retain(|created| created != repository);
        self.deleted.retain(|(of, _)| of != repository);
        self.kept.retain(|kept| kept.repository != *repository);
        if let Some(checkout) = repository.parent() {
            self.staged.retain(|path| !path.is_below(&checkout));
        }
    }

    /// Reports the staged files that are excluded: the index has what the sandbox committed or staged, and no file came with it.
    pub fn tell_excluded(&mut self, excluded: &Filter<'_>) {
        let staged = std::mem::take(&mut self.staged);
        let did_not_come = staged.into_iter().filter(|path| excluded.leaves_out(path, Kind::File));
        self.held_back.extend(did_not_come.map(|path| HeldBack {
            path,
            what: None,
            reason: "it is excluded, so the file here is as it was; git checkout of this path writes what the sandbox \
                     committed or staged"
                .to_owned(),
        }));
    }
}
