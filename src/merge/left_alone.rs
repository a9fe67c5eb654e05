//! What was never uploaded is neither replaced nor moved: by no other spelling that the volume takes for its name, and not
//! together with the folder that it lies in.

use std::collections::HashMap;

use super::plan::{Local, changed};
use super::report::Skipped;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::path::{ByPath, RelativePath};
use crate::tree::entry::{Entry, Snapshot};
use crate::tree::root::{Cursor, Meta, Root};
use crate::tree::scan::{LeaveOut, scan};

/// Why a path does not come that is another spelling of what is left alone.
const SPELLED_OTHERWISE: &str =
    "this volume takes its name for that of something that is excluded or preserved here";
/// Why a folder stays.
const HOLDS: &str = "a folder stands here that holds something that is excluded or preserved";

/// The paths that the sandbox changed and that yet must stay as they are, with the reason. `local` and `seen` are what stands
/// at those paths.
pub fn must_stay(
    root: &Root,
    (base, theirs): (&Snapshot, &Snapshot),
    (local, seen): (&ByPath<Local>, &ByPath<Meta>),
    left_alone: LeaveOut<'_>,
    cancel: &Cancel,
) -> Result<Vec<Skipped>> {
    let mut volume =
        Spellings { cursor: root.cursor(), folders: HashMap::new(), tells_apart: HashMap::new() };
    let (mut local, mut seen) = (local.in_order(), seen.in_order());
    let mut found: Vec<Skipped> = Vec::new();
    for (path, _, after) in changed(base, theirs) {
        cancel.check()?;
        let there = seen.find(path).copied();
        let ours = local.find(path);
        if found.last().is_some_and(|last| path.is_below(&last.path)) {
            continue;
        }
        let listed = volume.as_listed(path, there)?;
        let reason = if listed != *path && left_alone(&listed) {
            SPELLED_OTHERWISE
        } else if let (Some(after), Some(Local::Entry(Entry::Dir { .. }))) = (after, ours)
            && !after.is_dir()
            && holds_any(root, path, left_alone, cancel)?
        {
            HOLDS
        } else {
            continue;
        };
        found.push(Skipped { path: path.clone(), reason });
    }
    Ok(found)
}

/// Whether something in a folder is left alone.
fn holds_any(root: &Root, folder: &RelativePath, left_alone: LeaveOut<'_>, cancel: &Cancel) -> Result<bool> {
    let below = match root.below(folder) {
        Err(error) if error.is_gone() => return Ok(false),
        below => below?,
    };
    let found = scan(&below, &|_| false, cancel)?;
    Ok(found.iter().any(|found| left_alone(&folder.join(&found.path))))
}

/// How names are spelled on the volume.
struct Spellings<'r> {
    cursor: Cursor<'r>,
    /// Folders as they are listed, by the path that they were asked for.
    folders: HashMap<RelativePath, RelativePath>,
    /// Whether names that differ by case are two in a folder, by its path.
    tells_apart: HashMap<Option<RelativePath>, bool>,
}

impl Spellings<'_> {
    /// A path by the names that its folders list, where `there` stands at it. Most volumes tell all names apart, and then it is
    /// the same.
    fn as_listed(&mut self, path: &RelativePath, there: Option<Meta>) -> Result<RelativePath> {
        let mut folder = None;
        for above in path.ancestors() {
            if !self.folders.contains_key(&above) {
                let there = self.cursor.stat(&above)?;
                let listed = self.child(folder.as_ref(), &above, there)?;
                self.folders.insert(above.clone(), listed);
            }
            folder = self.folders.get(&above).cloned();
        }
        self.child(folder.as_ref(), path, there)
    }

    /// The same, where the folder's own listed path is known.
    fn child(
        &mut self,
        folder: Option<&RelativePath>,
        path: &RelativePath,
        there: Option<Meta>,
    ) -> Result<RelativePath> {
        let name = path.name().as_encoded_bytes();
        let as_asked = RelativePath::child(folder, name);
        let Some(there) = there else { return Ok(as_asked) };
        if self.is_told_apart(folder, &as_asked, &there)? {
            return Ok(as_asked);
        }
        let names = self.cursor.list(folder)?.unwrap_or_default();
        if names.iter().any(|listed| **listed == *name) {
            return Ok(as_asked);
        }
        for listed in names {
            let listed = RelativePath::child(folder, &listed);
            if self.cursor.stat(&listed)?.is_some_and(|meta| meta.is_same_inode(&there)) {
                return Ok(listed);
            }
        }
        // It was renamed or replaced meanwhile.
        Ok(as_asked)
    }

    /// Whether no other name in the folder can be taken for this one, as the same name in other case tells: a volume that
    /// folds names of any kind folds these. Of a name without letters, or that is not ASCII, nothing is known.
    fn is_told_apart(
        &mut self,
        folder: Option<&RelativePath>,
        path: &RelativePath,
        there: &Meta,
    ) -> Result<bool> {
        let name = path.name().as_encoded_bytes();
        if !name.is_ascii() {
            return Ok(false);
        }
        if let Some(known) = self.tells_apart.get(&folder.cloned()) {
            return Ok(*known);
        }
        let swap = |byte: &u8| match byte {
            b'a'..=b'z' => byte.to_ascii_uppercase(),
            _ => byte.to_ascii_lowercase(),
        };
        let in_other_case: Vec<u8> = name.iter().map(swap).collect();
        if in_other_case == name {
            return Ok(false);
        }
        let other = self.cursor.stat(&RelativePath::child(folder, &in_other_case))?;
        let told_apart = other.is_none_or(|other| !other.is_same_inode(there));
        self.tells_apart.insert(folder.cloned(), told_apart);
        Ok(told_apart)
    }
}
