//! Has git compare the files that a restore wrote with what is staged at their paths.
//!
//! The index says of each file how large it was. Git takes a file of another size for changed without reading it, and shows a
//! change without a difference if the content, with its line ends or a filter undone, is what is staged: as after `git checkout`
//! in the sandbox of a file whose line ends differed. An entry that says nothing of its file is compared by the content. Only
//! entries of written files are made so, since all others describe the files that they were made for.

use std::collections::{BTreeMap, HashSet};

use super::command::{Fault, Git};
use super::export::{Base, Bases};
use super::index;
use super::report::{GitReport, HeldBack};
use super::repository::Repository;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::Root;
use crate::path::RelativePath;

/// Has the git of each repository compare the `written` files. Reports where it could not be told to, unless the report says
/// already that this index, or the whole repository, stays as it was: the reason is the same.
pub fn have_compared(
    git: &Git,
    workspace: &Root,
    bases: &Bases,
    written: &[RelativePath],
    report: &mut GitReport,
    cancel: &Cancel,
) -> Result<()> {
    for (dot_git, paths) in by_repository(bases, written) {
        let reason = match have_some_compared(git, workspace, dot_git, &bases[dot_git], &paths, cancel) {
            Ok(()) => continue,
            Err(Fault::Error(error)) if !error.forbids_writing() => return Err(error),
            Err(Fault::Error(error)) => format!("this process may not do that in it ({error})"),
            Err(Fault::Refused(reason) | Fault::Killed(reason)) => reason,
        };
        let what = Some("index".to_owned());
        let is_of_it = |held: &HeldBack| held.path == *dot_git && (held.what.is_none() || held.what == what);
        if !report.held_back.iter().any(is_of_it) {
            let reason = format!("it may show files as changed whose content is what is staged: {reason}");
            report.held_back.push(HeldBack { path: dot_git.clone(), what, reason });
        }
    }
    Ok(())
}

/// The paths that belong to each repository, which is the innermost one above a path, as that repository names them.
fn by_repository<'a>(
    bases: &'a Bases,
    written: &'a [RelativePath],
) -> BTreeMap<&'a RelativePath, HashSet<&'a [u8]>> {
    let repositories: BTreeMap<Option<RelativePath>, &RelativePath> =
        bases.keys().map(|dot_git| (dot_git.parent(), dot_git)).collect();
    let mut found: BTreeMap<&RelativePath, HashSet<&[u8]>> = BTreeMap::new();
    for path in written {
        // From the top down.
        let above = [None].into_iter().chain(path.ancestors().map(Some));
        let innermost = above.filter_map(|folder| repositories.get_key_value(&folder)).last();
        if let Some((folder, dot_git)) = innermost {
            let start = folder.as_ref().map_or(0, |folder| folder.as_bytes().len() + 1);
            found.entry(dot_git).or_default().insert(&path.as_bytes()[start..]);
        }
    }
    found
}

fn have_some_compared(
    git: &Git,
    workspace: &Root,
    dot_git: &RelativePath,
    base: &Base,
    paths: &HashSet<&[u8]>,
    cancel: &Cancel,
) -> Result<(), Fault> {
    let Some(place) = base.place.as_ref().filter(|place| place.is_there()) else { return Ok(()) };
    let repository = Repository { git, place, cancel };
    let checkout = dot_git.parent();
    let mut cursor = workspace.cursor();
    let mut to_compare = || -> Result<Vec<u8>, Fault> {
        let mut lines = Vec::new();
        for state in index::states(&repository.states_at(paths)?) {
            let path = index::path_in(state.line);
            let Some(path) = RelativePath::parse(path).ok().flatten().filter(|_| paths.contains(path)) else {
                continue;
            };
            let path = checkout.as_ref().map_or(path.clone(), |checkout| checkout.join(&path));
            if cursor.stat(&path)?.is_some_and(|meta| state.is_judged_by_size(&meta)) {
                lines.extend([state.line, b"\0"].concat());
            }
        }
        Ok(lines)
    };
    if to_compare()?.is_empty() {
        return Ok(());
    }
    // While it is locked, no other git changes what is read here and written back.
    let locked = repository.lock_index_soon()?;
    let lines = to_compare()?;
    if lines.is_empty() {
        return Ok(());
    }
    // A part of these lines may be taken for all of them: each is what the index has already.
    let output = repository.write_index(locked, lines)?;
    let given = repository.give_to_owner();
    if output.status != Some(0) {
        return Err(Fault::Refused(format!("git update-index failed: {}", output.complaint())));
    }
    Ok(given?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_innermost_repository() {
        let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap().unwrap();
        for (repositories, written, expected) in [
            (&[".git"][..], &["a", "d/b"][..], &[(".git", "a"), (".git", "d/b")][..]),
            (&["d/.git"], &["a", "d/b", "d", "dd/b"], &[("d/.git", "b")]),
            (
                &[".git", "d/.git", "d/e/f/.git"],
                &["a", "d", "d/b", "d/e/c", "d/e/f/g/h"],
                &[(".git", "a"), (".git", "d"), ("d/.git", "b"), ("d/.git", "e/c"), ("d/e/f/.git", "g/h")],
            ),
            (&[], &["a"], &[]),
        ] {
            let bases: Bases = repositories.iter().map(|at| (path(at), Base::default())).collect();
            let written: Vec<RelativePath> = written.iter().map(|at| path(at)).collect();
            let mut found: Vec<(String, String)> = by_repository(&bases, &written)
                .into_iter()
                .flat_map(|(dot_git, paths)| {
                    let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
                    paths.into_iter().map(move |path| (dot_git.to_string(), text(path)))
                })
                .collect();
            found.sort();
            let expected: Vec<_> =
                expected.iter().map(|(dot_git, path)| ((*dot_git).to_owned(), (*path).to_owned())).collect();
            assert_eq!(found, expected, "{repositories:?}");
        }
    }
}
