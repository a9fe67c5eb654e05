//! What a restore has begun in a repository, for the prepare that follows a kill.
//!
//! Git moves references in one step and changes the index in another one. Between the two, the index belongs to the former
//! commit, and git takes what the new one changed for staged the other way round. So the change of the index is noted in
//! the repository before its references move. A restore makes the change, and removes the note. Where it was killed in
//! between, the next restore does that, or else the next prepare, by the note: only there the sandbox's state is no longer
//! known.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::command::Fault;
use super::index;
use super::refs::Oid;
use super::repository::{Place, Repository};
use crate::error::Result;
use crate::fs::by_path::{self, read, write};

/// A change of the index, as the lines of two listings that differ.
#[derive(Debug, Serialize, Deserialize)]
pub struct Change {
    /// It belongs to the index only while this commit is checked out.
    pub commit: Oid,
    /// What it replaces.
    pub before: Vec<u8>,
    /// What comes in its place.
    pub after: Vec<u8>,
}

fn file(place: &Place) -> PathBuf {
    place.git_dir.join("paperclip-unfinished-restore")
}

/// Notes the changes that are about to be made. Each belongs to another commit, of which one will be checked out.
pub fn note(place: &Place, changes: &[Change]) -> Result<()> {
    let bytes = postcard::to_stdvec(changes)
        .map_err(|error| crate::error::Error::Internal(format!("a note cannot be written: {error}")))?;
    write(&file(place), &bytes)
}

/// Whether a restore has not ended.
#[must_use]
pub fn is_noted(place: &Place) -> bool {
    by_path::exists(&file(place))
}

/// Removes the note, if there is one.
pub fn forget(place: &Place) -> Result<()> {
    let file = file(place);
    if by_path::exists(&file) { by_path::remove_file(&file) } else { Ok(()) }
}

/// Makes the change that was noted, if its commit is checked out. What else is staged stays. Returns why it could not be made
/// yet.
pub fn complete(repository: &Repository<'_>) -> Result<Option<String>, Fault> {
    let place = repository.place;
    // A note that was half written was followed by no change.
    let changes: Vec<Change> =
        read(&file(place))?.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
    let commit = repository.commit()?;
    if let Some(change) = changes.into_iter().find(|change| Some(&change.commit) == commit.as_ref()) {
        if repository.is_busy() {
            return Ok(Some("a local operation is in progress".to_owned()));
        }
        let (before, after) =
            index::without_paths((&change.before, &change.after), &collected(repository, &change)?);
        if let Some(refused) = repository.stage(&before, &after)?.refused {
            return Ok(Some(refused));
        }
    }
    forget(place)?;
    Ok(None)
}

/// The blobs of a change that no longer exist: what was only staged may have been collected since.
fn collected(repository: &Repository<'_>, change: &Change) -> Result<BTreeSet<Oid>, Fault> {
    // A partial clone lacks some in any case.
    if repository.place.promisor.is_some() {
        return Ok(BTreeSet::new());
    }
    let mut blobs = index::new_blobs(&change.after, &change.before);
    let there = repository.types(&blobs)?;
    // An entry that is only intended to be added names the empty blob.
    blobs.retain(|oid| !there.contains_key(oid) && !index::is_empty_blob(oid));
    Ok(blobs)
}
