//! Finds the local repositories in a workspace and around it, uploaded or not, as they are now.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::command::Git;
use super::export::{Bases, path_of};
use super::held::kind_at;
use super::recognise::{DOT_GIT, MARKERS, bare_folders, is_bare_marker, is_git_name};
use super::repository::{Place, worktrees};
use super::ways::{GITDIR, named_in};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::{Cursor, Kind, Root, by_path};
use crate::path::RelativePath;

/// The location of a repository. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Around {
    pub git_dir: PathBuf,
    pub common_dir: PathBuf,
    /// The folder of its files; that of a bare repository is its git directory.
    pub checkout: PathBuf,
}

/// Where in a workspace to look.
pub(super) struct Where<'a> {
    pub root: &'a Root,
    /// Its path, without links.
    pub workspace: &'a Path,
    /// Its folders, sorted. Those that are excluded, or were made locally since, need not be among them.
    pub folders: &'a [RelativePath],
}

/// The repositories of a workspace, with those worktrees of each that are in it or have a configuration of their own.
pub(super) fn repositories(look: &Where<'_>, bases: &Bases, cancel: &Cancel) -> Result<BTreeSet<Around>> {
    let uploaded = bases.values().filter_map(|base| base.place.clone());
    let mut found: BTreeSet<Around> = uploaded
        .map(|Place { git_dir, common_dir, checkout, .. }| Around { git_dir, common_dir, checkout })
        .collect();
    found.extend(present(look, cancel)?);
    for Around { git_dir, common_dir, checkout } in found.clone() {
        for other in worktrees(&common_dir).into_iter().filter(|other| *other != git_dir) {
            let linked = checkout_of(&other).filter(|linked| linked.starts_with(look.workspace));
            if let Some(checkout) = linked {
                found.insert(Around { git_dir: other, common_dir: common_dir.clone(), checkout });
            } else if by_path::exists(&other.join("config.worktree")) {
                // Its files may have the same paths.
                let (common_dir, checkout) = (common_dir.clone(), checkout.clone());
                found.insert(Around { git_dir: other, common_dir, checkout });
            }
        }
    }
    Ok(found)
}

/// The checkouts outside of the workspace that belong to repositories with one in it, each with that one.
pub(super) fn elsewhere(repositories: &BTreeSet<Around>, workspace: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for Around { common_dir, checkout, .. } in repositories {
        let outside = checkouts(common_dir).filter(|other| !other.starts_with(workspace));
        found.extend(outside.map(|other| (other, checkout.clone())));
    }
    found
}

/// The folders of the linked worktrees of a repository, and that of its main one, as far as they exist.
pub(super) fn checkouts(common_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let linked = worktrees(common_dir).into_iter().filter(move |git_dir| git_dir != common_dir);
    let linked = linked.filter_map(|git_dir| checkout_of(&git_dir));
    let main = common_dir.parent().filter(|_| common_dir.ends_with(".git"));
    linked.chain(main.and_then(|main| by_path::resolve(main).ok()))
}

/// The folder of a linked worktree, if it exists.
fn checkout_of(git_dir: &Path) -> Option<PathBuf> {
    let dot_git = git_dir.join(named_in(&git_dir.join("gitdir"), b"")?);
    by_path::resolve(dot_git.parent()?).ok()
}

/// The repositories that are in the folders, and in folders beside them.
fn present(look: &Where<'_>, cancel: &Cancel) -> Result<Vec<Around>> {
    let all: Vec<Option<&RelativePath>> = [None].into_iter().chain(look.folders.iter().map(Some)).collect();
    let listed = all
        .par_iter()
        .map_init(|| look.root.cursor(), |cursor, folder| parts_in(cursor, *folder, look.folders, cancel))
        .collect::<Result<Vec<_>>>()?;
    let parts: Vec<(RelativePath, Kind)> = listed.into_iter().flatten().collect();
    let is_dot_git = |path: &RelativePath| path.name().as_encoded_bytes() == DOT_GIT;
    let checkouts = parts.iter().filter(|(path, _)| is_dot_git(path)).filter_map(|(path, _)| {
        let dot_git = look.workspace.join(path.as_path());
        let checkout = dot_git.parent()?.to_path_buf();
        // One that leads to nothing is no repository.
        let git_dir = if by_path::is_file(&dot_git) {
            by_path::resolve(&checkout.join(named_in(&dot_git, GITDIR)?)).ok()?
        } else {
            by_path::resolve(&dot_git).ok()?
        };
        Some((git_dir, checkout))
    });
    let bare = bare_folders(parts.iter().map(|(path, kind)| (path, *kind))).into_iter().map(|folder| {
        let git_dir = look.workspace.join(folder.as_ref().map_or(Path::new(""), RelativePath::as_path));
        (git_dir.clone(), git_dir)
    });
    let with_shared = |(git_dir, checkout): (PathBuf, PathBuf)| {
        let shared = named_in(&git_dir.join("commondir"), b"").map(|shared| git_dir.join(shared));
        let common_dir = shared.and_then(|shared| by_path::resolve(&shared).ok());
        Around { common_dir: common_dir.unwrap_or_else(|| git_dir.clone()), git_dir, checkout }
    };
    Ok(checkouts.chain(bare).map(with_shared).collect())
}

/// What may be a part of a repository in a folder, and in the folders in it that are not known.
fn parts_in(
    cursor: &mut Cursor<'_>,
    folder: Option<&RelativePath>,
    known: &[RelativePath],
    cancel: &Cancel,
) -> Result<Vec<(RelativePath, Kind)>> {
    cancel.check()?;
    let listed = match cursor.list_kinds(folder) {
        // Git does not find anything there, either.
        Err(error) if error.is_io(ErrorKind::PermissionDenied) => None,
        listed => listed?,
    };
    let mut parts = Vec::new();
    for (name, kind) in listed.unwrap_or_default() {
        let path = RelativePath::child(folder, &name);
        if &*name == DOT_GIT || is_bare_marker(&name) {
            parts.extend(kind_at(cursor, &path)?.map(|kind| (path.clone(), kind)));
        }
        let may_be_folder = kind.is_none_or(|kind| kind == Kind::Folder) && !is_git_name(&name);
        if may_be_folder && known.binary_search(&path).is_err() {
            for name in [DOT_GIT].into_iter().chain(MARKERS) {
                let path = RelativePath::child(Some(&path), name);
                parts.extend(kind_at(cursor, &path)?.map(|kind| (path, kind)));
            }
        }
    }
    Ok(parts)
}

/// The repository whose working tree contains a folder.
pub(super) fn enclosing(git: &Git, folder: &Path, cancel: &Cancel) -> Result<Option<Around>> {
    let mut call = git.outside();
    call.cwd(folder).args(["rev-parse", "--path-format=absolute"]);
    let told = match call.args(["--show-toplevel", "--absolute-git-dir", "--git-common-dir"]).output(cancel) {
        Ok(told) if told.status == Some(0) => told.stdout,
        // No working tree contains it.
        Ok(_) => return Ok(None),
        Err(fault) => return fault.without_answer().map_or(Ok(None), Err),
    };
    let lines: Vec<&[u8]> = told.trim_ascii_end().split(|&byte| byte == b'\n').collect();
    let [checkout, git_dir, common_dir] = lines[..] else { return Ok(None) };
    Ok(Some(Around {
        git_dir: path_of(git_dir),
        common_dir: path_of(common_dir),
        checkout: path_of(checkout),
    }))
}
