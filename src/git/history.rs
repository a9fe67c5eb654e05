//! Finds out in which folders any commit of a repository has had a `HEAD`.
//!
//! A commit that is known here may be checked out at any time: by a person, or because the sandbox has moved a branch to it. Then
//! its `HEAD` is beside what came from the sandbox, long before or in the same restore: see [`obeyed`](super::obeyed).

use std::collections::BTreeSet;

use super::command::{Fault, Git};
use super::export::Bases;
use super::recognise::in_checkout;
use super::search::{Asked, Search, Tips};
use crate::cancel::Cancel;
use crate::error::Result;

/// The folders of a workspace, of these, in which a local commit of any of its repositories has a `HEAD` that git may accept.
pub fn with_head(git: &Git, bases: &Bases, folders: &Folders, cancel: &Cancel) -> Result<Folders> {
    of_workspace(git, bases, folders, cancel, Asked::Head)
}

/// Those in which one has what git would run.
pub fn with_run(git: &Git, bases: &Bases, folders: &Folders, cancel: &Cancel) -> Result<Folders> {
    of_workspace(git, bases, folders, cancel, Asked::Run)
}

/// Folders of a workspace.
type Folders = BTreeSet<Vec<u8>>;

/// Asks each repository about the folders in its checkout.
fn of_workspace(
    git: &Git,
    bases: &Bases,
    folders: &Folders,
    cancel: &Cancel,
    asked: Asked,
) -> Result<Folders> {
    let mut found = Folders::new();
    for (dot_git, base) in bases {
        let Some(place) = base.place.as_ref().filter(|place| place.is_there()) else { continue };
        let checkout = dot_git.parent();
        let start = checkout.as_ref().map_or(0, |checkout| checkout.as_bytes().len() + 1);
        let is_in = |folder: &&Vec<u8>| {
            checkout.as_ref().is_none_or(|checkout| {
                folder.as_slice() == checkout.as_bytes()
                    || (folder.starts_with(checkout.as_bytes()) && folder.get(start - 1) == Some(&b'/'))
            })
        };
        let inner: BTreeSet<&[u8]> =
            folders.iter().filter(is_in).map(|folder| folder.get(start..).unwrap_or_default()).collect();
        let search = Search { git, repository: &place.git_dir, cancel };
        let answer = match search.in_history(asked, Tips::All, &inner) {
            Ok(answer) => answer,
            // Git may refuse the repository now and obey it later.
            Err(Fault::Refused(_)) => inner,
            Err(Fault::Error(error)) => return Err(error),
        };
        for folder in answer {
            if let Ok(folder) = in_checkout(checkout.as_ref(), folder) {
                found.insert(folder.map_or_else(Vec::new, |folder| folder.as_bytes().to_vec()));
            }
        }
    }
    Ok(found)
}
