//! The digests of a workspace's files, by what the file system says of them: an unchanged file is not read again.
//!
//! What is unchanged has the same inode, size, mode and times, the time of change among them, which nothing can put back. A
//! file that changed in the same tick of the clock in which it was read may look the same afterwards, so a digest counts only
//! where the file had not changed for a while when it was read (git calls others racy).

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::store::{Store, name_for};
use crate::fs::Fingerprint;
use crate::path::{RelativePath, bytes_of};
use crate::tree::entry::Digest;

/// How long a file must not have changed when it is read: more than a tick of any clock that tells fractions of a second.
const SETTLED: Duration = Duration::from_millis(100);
/// The same where the file system tells whole seconds (or two of them).
const SETTLED_COARSE: Duration = Duration::from_secs(3);

/// A file and its digest.
pub type Known = (RelativePath, Fingerprint, Digest);

/// The digests of one workspace, in byte order of the paths.
#[derive(Debug, Default)]
pub struct Digests(Vec<Known>);

impl Digests {
    /// What was kept of a workspace.
    #[must_use]
    pub fn load(store: &Store, workspace: &Path) -> Self {
        let mut known: Vec<Known> = store.load(&name_of(workspace)).unwrap_or_default();
        known.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        Self(known)
    }

    /// The digest of a file, where it is unchanged.
    #[must_use]
    pub fn get(&self, path: &RelativePath, now: &Fingerprint) -> Option<Digest> {
        let at = self.0.binary_search_by(|(known, ..)| known.cmp(path)).ok()?;
        let (_, print, digest) = &self.0[at];
        (print == now).then_some(*digest)
    }
}

/// Keeps what is known of a workspace from now on, where `before` was known. `read_from` is when the first of the files was
/// read.
pub fn keep(store: &Store, workspace: &Path, before: &Digests, mut known: Vec<Known>, read_from: SystemTime) {
    known.retain(|(_, print, _)| is_settled(print, read_from));
    known.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
    let name = name_of(workspace);
    if known == before.0 && !known.is_empty() {
        store.renew(&name);
    } else {
        store.keep(&name, &known);
    }
}

fn name_of(workspace: &Path) -> String {
    name_for("digests", &[bytes_of(workspace)])
}

/// Whether a file had not changed for a while.
fn is_settled(print: &Fingerprint, at: SystemTime) -> bool {
    let (seconds, fraction) = print.ctime;
    let needed = if fraction == 0 { SETTLED_COARSE } else { SETTLED };
    let (Ok(seconds), Ok(fraction)) = (u64::try_from(seconds), u32::try_from(fraction)) else { return false };
    let changed = UNIX_EPOCH.checked_add(Duration::new(seconds, fraction));
    changed.and_then(|changed| changed.checked_add(needed)).is_some_and(|settled| settled < at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Root;

    fn at(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    fn print(folder: &Path) -> Fingerprint {
        Root::open(folder).unwrap().cursor().stat(&at("a")).unwrap().unwrap().fingerprint()
    }

    #[test]
    fn a_digest_is_known_until_anything_happens_to_the_file() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, file) = (Store::open(kept.path()).unwrap(), folder.path().join("a"));
        std::fs::write(&file, "one").unwrap();
        let before = print(folder.path());
        let digest = Digest([7; 32]);
        let later = SystemTime::now() + Duration::from_secs(10);
        keep(&store, folder.path(), &Digests::default(), vec![(at("a"), before, digest)], later);
        let digests = Digests::load(&store, folder.path());
        assert_eq!(digests.get(&at("a"), &before), Some(digest));
        assert_eq!(digests.get(&at("b"), &before), None);
        std::thread::sleep(Duration::from_millis(20));
        // The same size, and the time of modification put back.
        let times = std::fs::FileTimes::new().set_modified(file.metadata().unwrap().modified().unwrap());
        std::fs::write(&file, "two").unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_times(times).unwrap();
        assert_eq!(digests.get(&at("a"), &print(folder.path())), None);
        assert!(Digests::load(&store, kept.path()).get(&at("a"), &before).is_none(), "another workspace");
    }

    #[test]
    fn a_file_that_changed_right_before_it_was_read_is_read_again() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(kept.path()).unwrap();
        std::fs::write(folder.path().join("a"), "one").unwrap();
        let now = print(folder.path());
        let seconds = UNIX_EPOCH + Duration::from_secs(u64::try_from(now.ctime.0).unwrap());
        for (read_after_ms, fraction, is_known) in
            [(0, 5, false), (50, 5, false), (150, 5, true), (150, 0, false), (4000, 0, true)]
        {
            let print = Fingerprint { ctime: (now.ctime.0, fraction), ..now };
            let read = seconds + Duration::from_millis(read_after_ms);
            keep(&store, folder.path(), &Digests::default(), vec![(at("a"), print, Digest([7; 32]))], read);
            let known = Digests::load(&store, folder.path()).get(&at("a"), &print).is_some();
            assert_eq!(known, is_known, "{read_after_ms} ms, {fraction}");
        }
    }
}
