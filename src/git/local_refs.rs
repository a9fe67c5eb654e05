//! Finds local references that git does not list, because it cannot read them.
//!
//! Git warns of such a file, and says nothing of a folder that it cannot look into: it then lists what it has packed of that
//! folder, which may be earlier values.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;

use super::refs::{Oid, RefName, Unreadable};
use crate::error::Result;
use crate::fs::{Kind, Root, by_path};
use crate::path::RelativePath;

/// Where there are references that are uploaded.
const PLACES: [&[u8]; 5] = [b"refs/heads", b"refs/tags", b"refs/remotes", b"refs/notes", b"refs/stash"];

/// The references that cannot be read, and the folders that cannot be looked into. `listed` are those that git lists.
pub(super) fn unreadable(common_dir: &Path, listed: &HashSet<&RefName>) -> Result<Unreadable> {
    let mut unreadable = Unreadable::default();
    let root = Root::open(common_dir)?;
    let mut cursor = root.cursor();
    let places = PLACES.iter().filter_map(|place| RelativePath::parse(place).ok().flatten());
    let mut waiting: Vec<(RelativePath, Option<Kind>)> = places.map(|place| (place, None)).collect();
    while let Some((path, kind)) = waiting.pop() {
        let kind = if kind.is_some() {
            kind
        } else if let Some(meta) = unless_denied(cursor.stat(&path))? {
            meta.map(|meta| meta.kind)
        } else {
            unreadable.insert(path.as_bytes());
            None
        };
        let Some(kind) = kind else { continue };
        if kind == Kind::Folder {
            match unless_denied(cursor.list_kinds(Some(&path)))? {
                Some(names) => {
                    let below = names.unwrap_or_default().into_iter();
                    waiting.extend(below.map(|(name, kind)| (RelativePath::child(Some(&path), &name), kind)));
                }
                None => unreadable.insert(path.as_bytes()),
            }
        } else if let Some(name) = RefName::parse(path.as_bytes())
            && !listed.contains(&name)
            && !is_plain(&root.path_of(&path), kind)?
        {
            unreadable.insert(path.as_bytes());
        }
    }
    Ok(unreadable)
}

/// `None` without permission.
fn unless_denied<T>(looked: Result<T>) -> Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_io(ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a reference that git did not list has nothing wrong: it was made meanwhile, or leads to one that does not exist.
fn is_plain(file: &Path, kind: Kind) -> Result<bool> {
    match kind {
        Kind::Symlink if !by_path::is_file(file) => return Ok(true),
        // It is not opened: that could wait without end.
        Kind::Other => return Ok(false),
        _ => {}
    }
    let is_plain = |text: Vec<u8>| text.starts_with(b"ref:") || Oid::parse(text.trim_ascii_end()).is_some();
    Ok(unless_denied(by_path::read(file))?.is_some_and(|text| text.is_none_or(is_plain)))
}
