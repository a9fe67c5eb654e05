//! Reads a folder on disk into its entries, in byte order of their paths.

use std::collections::HashSet;
use std::sync::Mutex;

use rayon::prelude::*;

use super::entry::{Digest, Entry, Snapshot};
use super::filter::Filter;
use crate::cancel::Cancel;
use crate::error::{Error, Obstacle, Result};
use crate::fs::walk::Following;
use crate::fs::{Cursor, Kind, Meta, Root, means_gone};
use crate::path::{RelativePath, bytes_of};
use crate::sync::lock;

/// An entry that a scan found.
#[derive(Debug)]
pub struct Found {
    /// Where.
    pub path: RelativePath,
    /// Its metadata. Of a link, only the kind and target matter.
    pub meta: Meta,
    /// The target, if it is a symbolic link.
    pub target: Option<std::sync::Arc<[u8]>>,
}

/// Finds all entries below a root, in byte order of their paths.
///
/// Entries that vanish during the scan are left out. A folder that may not be read is an error. Sockets,
/// FIFOs and devices are found as [`Kind::Other`], and never opened.
pub fn scan(root: &Root, filter: &Filter<'_>, cancel: &Cancel) -> Result<Vec<Found>> {
    scan_entering(root, filter, &|_, _| Ok(()), cancel)
}

/// Called with each folder that is entered, before the filter is asked for anything in it; nothing is the root.
pub type Enter<'a> = &'a (dyn Fn(&mut Cursor<'_>, Option<&RelativePath>) -> Result<()> + Sync);

/// The same, with something to be done at each folder.
pub fn scan_entering(
    root: &Root,
    filter: &Filter<'_>,
    enter: Enter<'_>,
    cancel: &Cancel,
) -> Result<Vec<Found>> {
    let mut found = if root.follows_links() {
        scan_following(root, filter, enter, cancel)?
    } else {
        let walk = Walk { root, filter, enter, cancel, found: Mutex::default(), failure: Mutex::default() };
        rayon::scope(|scope| walk.folder(scope, None));
        if let Some(failure) = walk.failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(failure);
        }
        walk.found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    found.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

struct Walk<'a> {
    root: &'a Root,
    filter: &'a Filter<'a>,
    enter: Enter<'a>,
    cancel: &'a Cancel,
    found: Mutex<Vec<Found>>,
    failure: Mutex<Option<Error>>,
}

impl Walk<'_> {
    fn folder<'s>(&'s self, scope: &rayon::Scope<'s>, path: Option<&RelativePath>) {
        match self.read(path) {
            Ok((found, folders)) => {
                lock(&self.found).extend(found);
                for folder in folders {
                    scope.spawn(move |scope| self.folder(scope, Some(&folder)));
                }
            }
            Err(error) => {
                lock(&self.failure).get_or_insert(error);
            }
        }
    }

    /// The entries of one folder, and those of them that are folders to read next.
    fn read(&self, path: Option<&RelativePath>) -> Result<(Vec<Found>, Vec<RelativePath>)> {
        self.cancel.check()?;
        let mut cursor = self.root.cursor();
        let (mut found, mut folders) = (Vec::new(), Vec::new());
        let listed = cursor.list_kinds(path)?.unwrap_or_default();
        (self.enter)(&mut cursor, path)?;
        for (name, told) in listed {
            let path = RelativePath::child(path, &name);
            // What is left out is not looked at where its kind is known without.
            if told.is_some_and(|kind| self.filter.leaves_out(&path, kind)) {
                continue;
            }
            let Some(entry) = inspect(&mut cursor, path)? else { continue };
            let kind = entry.meta.kind;
            if told != Some(kind) && self.filter.leaves_out(&entry.path, kind) {
                continue;
            }
            if kind == Kind::Folder {
                folders.push(entry.path.clone());
            }
            found.push(entry);
        }
        Ok((found, folders))
    }
}

/// The entry at a path, with its target if it is a link. `None` if nothing is there.
pub fn inspect(cursor: &mut Cursor<'_>, path: RelativePath) -> Result<Option<Found>> {
    let Some(meta) = cursor.stat(&path)? else { return Ok(None) };
    let target = if meta.kind == Kind::Symlink {
        let Some(target) = cursor.read_link(&path)? else { return Ok(None) };
        Some(target)
    } else {
        None
    };
    Ok(Some(Found { path, meta, target }))
}

/// Limits on how many names links may give to one inode on average, and on how many names any tree may have:
/// a few links to two siblings each, level after level, could otherwise fill a disk.
const NAMES_PER_INODE: usize = 64;
const NAMES_MIN: usize = 10_000;

/// Scans with links followed. A link that dangles, or leads back to a folder above it, is found as the link.
///
/// A tree that links multiply beyond the limits is an error, which names a link.
///
/// Of a link that is followed, the filter sees what it leads to.
fn scan_following(root: &Root, filter: &Filter<'_>, enter: Enter<'_>, cancel: &Cancel) -> Result<Vec<Found>> {
    let mut cursor = root.cursor();
    enter(&mut cursor, None)?;
    let mut found = Vec::new();
    let mut inodes = HashSet::new();
    let mut last_link = None;
    let mut walk = Following::below(root.path());
    while let Some(step) = walk.next() {
        cancel.check()?;
        let Some(path) = below(root, &step.path)? else {
            // Only the root itself is not below the root, and it is reported only if it cannot be read.
            return Err(match step.found.err().flatten() {
                Some(error) => Error::io("scandir", root.path(), error),
                None => Obstacle::Unreadable.at("scandir", root.path()),
            });
        };
        let kind = match &step.found {
            Ok(entry) if entry.is_folder => Kind::Folder,
            Ok(_) => Kind::File,
            // It may be a link that dangles or leads back, or a folder that cannot be read.
            Err(_) => cursor.stat(&path)?.map_or(Kind::File, |meta| meta.kind),
        };
        if filter.leaves_out(&path, kind) {
            if step.found.is_ok_and(|entry| entry.is_folder) {
                walk.skip_folder();
            }
            continue;
        }
        match step.found {
            Ok(entry) => {
                let Some(meta) = cursor.stat_through(&path)? else { continue };
                if entry.is_link && meta.kind == Kind::Folder {
                    last_link = Some(path.clone());
                }
                inodes.insert(meta.id);
                if meta.kind == Kind::Folder {
                    enter(&mut cursor, Some(&path))?;
                }
                found.push(Found { path, meta, target: None });
                if found.len() > NAMES_MIN + NAMES_PER_INODE * inodes.len() {
                    let link =
                        last_link.map_or_else(|| root.path().to_path_buf(), |link| root.path_of(&link));
                    return Err(Error::LinksMultiply { link, names: found.len(), entries: inodes.len() });
                }
            }
            Err(error) => {
                // A loop has either no system error or the system's own, and a dangling link leads to
                // nothing. Both stay links.
                let error = error.filter(|error| !means_gone(error.raw_os_error()));
                match (inspect(&mut cursor, path)?, error) {
                    (Some(entry), Some(error)) => {
                        return Err(Error::io("scandir", root.path_of(&entry.path), error));
                    }
                    (entry, _) => found.extend(entry.filter(|entry| entry.meta.kind == Kind::Symlink)),
                }
            }
        }
    }
    Ok(found)
}

fn below(root: &Root, full_path: &std::path::Path) -> Result<Option<RelativePath>> {
    let relative = bytes_of(full_path.strip_prefix(root.path()).unwrap_or(full_path));
    if relative.is_empty() {
        return Ok(None);
    }
    RelativePath::parse(relative).map_err(|fault| Error::UnsafePath {
        path: crate::error::readable(relative),
        offset: None,
        reason: fault.to_string(),
    })
}

/// Reads a whole tree with the digests of its files. Entries that vanish during the scan are left out, and so
/// are sockets, FIFOs and devices.
pub fn snapshot(root: &Root, filter: &Filter<'_>, cancel: &Cancel) -> Result<Snapshot> {
    let found = scan(root, filter, cancel)?;
    let entries = found
        .par_chunks(64)
        .map(|chunk| {
            let mut cursor = root.cursor();
            let mut reader = Reader::new();
            chunk
                .iter()
                .map(|found| Ok((found.path.clone(), reader.entry(&mut cursor, found, cancel)?)))
                .collect::<Result<Vec<_>>>()
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(entries.into_iter().flatten().filter_map(|(path, entry)| Some((path, entry?))).collect())
}

/// How much of a file is read at once: what stays in the processor's cache while it is hashed.
pub const CHUNK: usize = 256 * 1024;

/// Reads and hashes files with one buffer.
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Makes a reader with a buffer of [`CHUNK`] bytes.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it allocates; `default()` would hide that")]
    pub fn new() -> Self {
        Self { buffer: vec![0; CHUNK] }
    }

    /// The entry at `found.path`, with its digest if it is a file. `None` if the file vanished, or for a
    /// socket, FIFO or device.
    pub fn entry(
        &mut self,
        cursor: &mut Cursor<'_>,
        found: &Found,
        cancel: &Cancel,
    ) -> Result<Option<Entry>> {
        Ok(match (found.meta.kind, &found.target) {
            (Kind::Folder, _) => Some(Entry::Folder { mode: Some(found.meta.mode & 0o7777) }),
            (Kind::Symlink, Some(target)) => Some(Entry::Symlink { target: target.clone() }),
            (Kind::File, _) => self
                .file(cursor, &found.path, cancel, |_| Ok(()))?
                .map(|(meta, digest)| Entry::File { mode: meta.mode, digest }),
            _ => None,
        })
    }

    /// Reads a file to its end and passes each chunk to `each`. Returns its metadata when it was opened, and
    /// its digest.
    pub fn file(
        &mut self,
        cursor: &mut Cursor<'_>,
        path: &RelativePath,
        cancel: &Cancel,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Option<(Meta, Digest)>> {
        use sha2::Digest as _;
        use std::io::Read as _;
        let Some((mut file, meta)) = cursor.open(path)? else { return Ok(None) };
        let mut hash = sha2::Sha256::new();
        let mut length = 0_u64;
        loop {
            cancel.check()?;
            match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&self.buffer[..read]);
                    each(&self.buffer[..read])?;
                    length += read as u64;
                    // A short read at the size that the file had when opened is its end, so no further call
                    // is needed to learn that.
                    if length == meta.size && read < self.buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", cursor.path_of(path), error)),
            }
        }
        Ok(Some((meta, Digest(hash.finalize().into()))))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree in which each level has two links to the next one.
    fn doubling(levels: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for level in 0..=levels {
            let level_folder = folder.path().join(format!("levels/{level}"));
            std::fs::create_dir_all(&level_folder).unwrap();
            std::fs::write(level_folder.join("file"), "content").unwrap();
            if level < levels {
                for side in ["left", "right"] {
                    symlink(format!("../{}", level + 1), level_folder.join(side)).unwrap();
                }
            }
        }
        folder
    }

    fn scan_through_links(folder: &tempfile::TempDir) -> Result<usize> {
        let root = Root::open_following(&folder.path().join("levels/0"))?;
        scan(&root, &Filter::default(), &Cancel::default()).map(|found| found.len())
    }

    #[test]
    fn links_that_double_a_tree_are_followed_up_to_a_limit() {
        assert_eq!(scan_through_links(&doubling(5)).unwrap(), 2 * (2 << 5) - 3);
        let error = scan_through_links(&doubling(20)).unwrap_err();
        assert_eq!(error.code(), "ERR_SANDBOX_UNSUPPORTED");
        assert!(error.to_string().contains("levels/0/"), "{error}");
    }

    #[test]
    fn a_folder_with_many_links_to_it_is_followed_through_each() {
        let folder = doubling(0);
        std::fs::create_dir(folder.path().join("shared")).unwrap();
        for name in 0..40 {
            std::fs::write(folder.path().join(format!("shared/{name}")), "").unwrap();
            symlink("../../shared", folder.path().join(format!("levels/0/{name}"))).unwrap();
        }
        assert_eq!(scan_through_links(&folder).unwrap(), 1 + 40 * 41);
    }
}
