//! What a restore has begun in a repository, for the prepare that follows a kill.
//!
//! Git moves references in one step and changes the index in another one. Between the two, the index still
//! belongs to the former commit: git shows the reverse of what the new commit changed as staged. Therefore a
//! restore notes the change of the index in the repository before it moves references, and removes the note
//! once it has made the change. After a kill in between, the next restore makes the change. If a prepare
//! comes first, what the sandbox had is no longer known, and the prepare makes the change by the note.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::command::Fault;
use super::index;
use super::refs::Oid;
use super::repository::{INDEX_COPY, Place, Repository};
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
    /// What the index says about the files at the paths of `before`. An entry that was staged again since then says
    /// something else, even if it stages the same content.
    pub states: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn file(place: &Place) -> PathBuf {
    place.git_dir.join("paperclip-unfinished-restore")
}

/// Notes the changes that are about to be made. Each belongs to another commit, of which one will be checked out.
pub fn note(repository: &Repository<'_>, mut changes: Vec<Change>) -> Result<(), Fault> {
    for Change { before, states, .. } in &mut changes {
        *states = repository.file_states(&index::paths(before))?;
    }
    let bytes = postcard::to_stdvec(&changes)
        .map_err(|error| crate::error::Error::Internal(format!("a note cannot be written: {error}")))?;
    let file = file(repository.place);
    let new = file.with_extension("new");
    // Another restore that was killed may have left a note, which stays until this one is complete.
    write(&new, &bytes)?;
    Ok(by_path::rename(&new, &file)?)
}

/// Whether a restore has left a note, since it was killed.
#[must_use]
pub fn is_noted(place: &Place) -> bool {
    by_path::exists(&file(place))
}

/// Keeps the note only if the commit of one of its changes is checked out, or one on top of it.
///
/// For any other, what moved `HEAD` there later has changed the index too.
pub fn keep_if_due(repository: &Repository<'_>) -> Result<(), Fault> {
    let changes = noted(repository.place)?;
    let Some(commit) = repository.commit()? else { return Ok(forget(repository.place)?) };
    if due(repository, &changes, &commit)?.is_some() {
        return Ok(());
    }
    Ok(forget(repository.place)?)
}

/// The changes that were noted. A note that cannot be read is of another version of this package.
fn noted(place: &Place) -> Result<Vec<Change>> {
    Ok(read(&file(place))?.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default())
}

/// Removes the note, if there is one.
pub fn forget(place: &Place) -> Result<()> {
    for file in [file(place), place.git_dir.join(INDEX_COPY)] {
        if by_path::exists(&file) {
            by_path::remove_file(&file)?;
        }
    }
    Ok(())
}

/// Makes the change that was noted, if its commit is checked out, at the paths that are as they were noted. Returns why it
/// could not be made yet.
pub fn complete(repository: &Repository<'_>) -> Result<Option<String>, Fault> {
    let place = repository.place;
    let changes = noted(place)?;
    let commit = repository.commit()?;
    let due = commit.as_ref().map(|commit| due(repository, &changes, commit)).transpose()?.flatten();
    if let (Some(change), Some(commit)) = (due, commit) {
        if repository.is_busy() {
            return Ok(Some("a local operation is in progress".to_owned()));
        }
        let states = repository.file_states(&index::paths(&change.before))?;
        let collected = collected(repository, change)?;
        let collected = index::paths_with(&change.after, &collected);
        let is_as_noted = |path: &[u8]| {
            // An entry without times was not compared with its file yet. Git fills them in when it compares.
            let noted = change.states.get(path).filter(|state| !state.starts_with(b"  ctime: 0:0\n"));
            noted.is_none_or(|noted| states.get(path) == Some(noted))
        };
        // What was committed on top since then has its own content.
        let (gone, new) = repository.difference(Some(&change.commit), &commit)?;
        let since: HashSet<&[u8]> = index::paths(&gone).into_iter().chain(index::paths(&new)).collect();
        let (before, after) = index::at_paths((&change.before, &change.after), |path| {
            is_as_noted(path) && !collected.contains(path) && !since.contains(path)
        });
        if let Some(refused) = repository.stage(&before, &after, &repository.index()?, None)?.refused {
            return Ok(Some(refused));
        }
        repository.mark_left_out(&change.after)?;
    }
    forget(place)?;
    Ok(None)
}

/// The change whose commit is checked out, or is below the one that is.
fn due<'c>(
    repository: &Repository<'_>,
    changes: &'c [Change],
    commit: &Oid,
) -> Result<Option<&'c Change>, Fault> {
    if let Some(change) = changes.iter().find(|change| change.commit == *commit) {
        return Ok(Some(change));
    }
    for change in changes {
        if repository.is_ancestor(&change.commit, commit)? {
            return Ok(Some(change));
        }
    }
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
