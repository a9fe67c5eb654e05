//! The paths that files of git's name, and what is on the way there.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::links::{Looked, follow};
use super::recognise::is_gits;
use crate::fs::{Kind, by_path};
use crate::path::{RelativePath, bytes_of, path_from};

/// The maximum number of bytes read of a file.
pub(super) const TEXT_MAX: u64 = 64 * 1024;

/// What precedes the path in a `.git` that is a file.
pub(super) const GITDIR: &[u8] = b"gitdir: ";

/// The path that a file of git's has after a prefix, if it has one.
pub(super) fn named_in(file: &Path, prefix: &[u8]) -> Option<PathBuf> {
    let text = beginning(file)?;
    let mut path = text.strip_prefix(prefix)?;
    while let [rest @ .., b'\n' | b'\r'] = path {
        path = rest;
    }
    (!path.is_empty()).then(|| path_from(path).to_path_buf())
}

/// The beginning of a file. `None` if there is none, or it cannot be read: then git cannot read it either.
pub(super) fn beginning(path: &Path) -> Option<Vec<u8>> {
    let file = if by_path::is_file(path) { by_path::open(path).ok()? } else { return None };
    let mut text = Vec::new();
    file.take(TEXT_MAX).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Whether a way leads through a link of the workspace, with which the sandbox could lead it elsewhere. (What is in a `.git` it
/// cannot change.)
pub(super) fn leads_through_link(workspace: &Path, path: &Path) -> bool {
    let mut looked = HashMap::new();
    let way = follow(path, &mut |path| look(&mut looked, path));
    way.links.iter().any(|link| matches!(below(workspace, &link.path), Some(Some(path)) if !is_gits(&path)))
}

/// What is at a path. What is there is remembered: most paths share those above them.
pub(super) fn look(looked: &mut HashMap<PathBuf, Looked>, path: &Path) -> Looked {
    if let Some(looked) = looked.get(path) {
        return looked.clone();
    }
    // What cannot be looked at leads nowhere.
    let found = match by_path::lstat(path) {
        Ok(Some(meta)) if meta.kind == Kind::Symlink => {
            by_path::read_link(path).map_or(Looked::Nothing, Looked::Link)
        }
        Ok(Some(_)) => Looked::Other,
        Ok(None) | Err(_) => return Looked::Nothing,
    };
    looked.insert(path.to_path_buf(), found.clone());
    found
}

/// An absolute path from the workspace's root, if it is in the workspace; `Some(None)` is the workspace itself.
#[allow(clippy::option_option, reason = "outside, the workspace itself, and below it are three things")]
pub(super) fn below(workspace: &Path, path: &Path) -> Option<Option<RelativePath>> {
    let rest = bytes_of(path.strip_prefix(workspace).ok()?);
    if rest.is_empty() { Some(None) } else { RelativePath::parse(rest).ok() }
}
