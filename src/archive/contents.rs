//! The content of an archive on this machine, hashed.

use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::source::{FromFile, PIECE};
use super::unpack::{Content, Sink, StreamedFile, Unpacked, unpack};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::tree::entry::{Digest, Entry, Snapshot};
use crate::tree::filter::Filter;

/// The entries of a whole archive. Devices and FIFOs are left out, as in the snapshot of a folder.
pub fn snapshot(archive: &Path, filter: &Filter<'_>, cancel: &Cancel) -> Result<Snapshot> {
    let mut hashing = Hashing { digests: HashMap::new(), large: HashMap::new(), cancel };
    let unpacked = unpack(&mut FromFile::open(archive)?, None, filter, &mut hashing)?;
    let digests = hashing.digests;
    let entry = |Unpacked { path, content, inode }| {
        let entry = match content {
            Content::Folder { mode } => Entry::Folder { mode },
            Content::Symlink { target } => Entry::Symlink { target },
            Content::File { mode } => match digests.get(&inode) {
                Some(&digest) => Entry::File { mode, digest },
                None => return Err(Error::Internal("a file of an archive was not hashed".to_owned())),
            },
            Content::Special => return Ok(None),
        };
        Ok(Some((path, entry)))
    };
    unpacked.entries.into_iter().map(entry).filter_map(Result::transpose).collect()
}

/// Hashes files while the archive is read.
struct Hashing<'a> {
    /// The digests, by the offset of each file's header.
    digests: HashMap<u64, Digest>,
    /// The large files that are being read, by the offset of their headers: how much is still to come, and the hash so
    /// far.
    large: HashMap<u64, (u64, Sha256)>,
    cancel: &'a Cancel,
}

impl Sink for Hashing<'_> {
    fn buffer(&mut self) -> Vec<u8> {
        Vec::with_capacity(PIECE)
    }

    fn files(&mut self, bytes: Vec<u8>, files: Vec<StreamedFile>) -> Result<()> {
        self.cancel.check()?;
        let hash =
            |file: &StreamedFile| (file.inode, Digest(Sha256::digest(&bytes[file.range.clone()]).into()));
        let digests: Vec<_> = files.par_iter().map(hash).collect();
        self.digests.extend(digests);
        Ok(())
    }

    fn part(&mut self, file: &StreamedFile, bytes: Vec<u8>) -> Result<()> {
        self.cancel.check()?;
        let (rest, mut hash) = self.large.remove(&file.inode).unwrap_or((file.size, Sha256::new()));
        hash.update(&bytes);
        match rest - bytes.len() as u64 {
            0 => drop(self.digests.insert(file.inode, Digest(hash.finalize().into()))),
            rest => drop(self.large.insert(file.inode, (rest, hash))),
        }
        Ok(())
    }

    fn control(&mut self, _content: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::archive::pack::create_tarball;
    use crate::fs::Root;
    use crate::tree::scan;

    #[test]
    fn the_snapshot_of_an_archive_is_that_of_the_packed_folder() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("folder");
        fs::create_dir_all(folder.join("a/empty")).unwrap();
        fs::write(folder.join("a/small"), "small").unwrap();
        fs::write(folder.join("nothing"), "").unwrap();
        fs::write(folder.join("large"), vec![7; 3 * PIECE + 5]).unwrap();
        fs::hard_link(folder.join("large"), folder.join("name")).unwrap();
        symlink("a/small", folder.join("link")).unwrap();
        let archive = place.path().join("archive.tar");
        let cancel = Cancel::default();
        create_tarball(&folder, &archive, &[], &[], None, false, &cancel).unwrap();

        let packed = snapshot(&archive, &Filter::default(), &cancel).unwrap();
        let there = scan::snapshot(&Root::open(&folder).unwrap(), &Filter::default(), &cancel).unwrap();
        assert_eq!(packed.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
        assert!(packed.values().zip(there.values()).all(|(packed, there)| packed.same_as(there)));

        let without = snapshot(&archive, &Filter::by_name(|path| path.is_or_below(b"a")), &cancel).unwrap();
        assert_eq!(without.len(), packed.len() - 3);
    }

    #[test]
    fn only_named_paths_and_the_folders_above_them_are_packed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("folder");
        fs::create_dir_all(folder.join("a/b/c")).unwrap();
        for name in ["a/b/c/in", "a/b/out", "other", "x.log"] {
            fs::write(folder.join(name), name).unwrap();
        }
        symlink("a", folder.join("link")).unwrap();
        let archive = place.path().join("archive.tar");
        let cancel = Cancel::default();
        let only = ["a/b/c/in", "a/b", "link/b/out", "gone", "../outside", "x.log"]
            .map(|name| name.as_bytes().to_vec());
        create_tarball(&folder, &archive, &[b"*.log".to_vec()], &[], Some(&only), false, &cancel).unwrap();
        let packed = snapshot(&archive, &Filter::default(), &cancel).unwrap();
        let names: Vec<_> = packed.keys().map(|path| String::from_utf8_lossy(path.as_bytes())).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/c/in"]);
    }

    #[test]
    fn a_truncated_archive_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let archive = place.path().join("archive.tar");
        fs::create_dir(place.path().join("folder")).unwrap();
        fs::write(place.path().join("folder/file"), vec![1; 4096]).unwrap();
        let cancel = Cancel::default();
        create_tarball(&place.path().join("folder"), &archive, &[], &[], None, false, &cancel).unwrap();
        File::options().write(true).open(&archive).unwrap().set_len(1024).unwrap();
        let refused = snapshot(&archive, &Filter::default(), &cancel).unwrap_err();
        assert_eq!(refused.code(), "ERR_SANDBOX_ARCHIVE_TRUNCATED");
    }
}
