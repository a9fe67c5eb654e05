//! What both sides of a round trip shared last, stored so that a later process can go on from there.
//!
//! The small file of a sandbox is read and written by each prepare and restore. The trees are in a large one, which stays as
//! it is while little has changed: the small one lists the changes since then. Each asset has a file of its own.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::store::{Store, name_for};
use crate::archive::pack::Sent;
use crate::fs::FileId;
use crate::git::export::{Bases, Mode};
use crate::path::{RelativePath, bytes_of};
use crate::path_map::PathMap;
use crate::random;
use crate::transfer::remote::{Content, Contents, Remote};
use crate::tree::entry::{Entry, Snapshot};
use crate::tree::ignore_files::IgnoreFile;

/// How many changes since the trees were written are listed. With more, the trees are written again.
const CHANGES_MAX: usize = 4096;

/// What the small file of a sandbox says. What is written is borrowed, what was read is owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox<'a> {
    /// The upload that the sandbox has.
    pub upload_id: String,
    /// The local workspace, so that another one at its path is noticed.
    pub workspace: FileId,
    /// Whether the path of the workspace was that of a link.
    pub is_link: bool,
    /// The patterns that were excluded.
    pub exclude: Cow<'a, [Vec<u8>]>,
    /// How the repositories were transferred.
    pub mode: Mode,
    /// The ignore files that were read, which excluded more.
    pub ignore_files: Cow<'a, [IgnoreFile]>,
    /// The paths that a restore leaves alone.
    pub preserve: Cow<'a, [Vec<u8>]>,
    /// The name of the sandbox's index of what both sides share.
    pub index: Option<String>,
    /// How many downloads the sandbox had packed by then.
    pub downloads: u64,
    /// Where the trees are.
    pub trees: Reference,
    /// What the sandbox never had as it was packed.
    pub lost: Vec<RelativePath>,
    /// The permission bits that the sandbox has by itself.
    pub modes: Vec<(RelativePath, u32)>,
    /// What both sides share of the repositories.
    pub repositories: Cow<'a, Bases>,
    /// The assets that the sandbox has.
    pub assets: Cow<'a, [Asset]>,
}

/// An asset as a sandbox has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    /// Its key.
    pub key: String,
    /// The name of the sandbox's index of it.
    pub index: String,
    /// The name of the file that says what the sandbox has of it.
    pub file: String,
}

impl Asset {
    /// Stores what a sandbox has of an asset. `None` if that fails.
    #[must_use]
    pub fn write(store: &Store, key: String, index: String, contents: &Contents) -> Option<Self> {
        let file = file_of("asset");
        store.keep(&file, contents).then_some(Self { key, index, file })
    }

    /// What the sandbox has of it. `None` if the file is damaged or gone.
    #[must_use]
    pub fn load(&self, store: &Store) -> Option<Contents> {
        store.load(&self.file)
    }
}

/// A name that no other file has.
fn file_of(kind: &str) -> String {
    name_for(kind, &[&random::bits().to_le_bytes(), &random::bits().to_le_bytes()])
}

/// The trees of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trees {
    /// What both sides share.
    pub snapshot: Snapshot,
    /// Everything that the sandbox has, if that is known.
    pub remote: Option<Remote>,
    /// What was packed, until the sandbox has told what it has of that.
    pub sent: Vec<(RelativePath, Sent)>,
}

/// The trees in their file. What follows from what the sandbox has is left out: right after an upload that is everything.
#[derive(Serialize, Deserialize)]
struct InFile<'a> {
    remote: Option<Cow<'a, Remote>>,
    /// `None` if it is [what is shared](Remote::shared) of `remote`.
    snapshot: Option<Cow<'a, Snapshot>>,
    /// `None` if it is what packing all of `remote` would send.
    sent: Option<Cow<'a, [(RelativePath, Sent)]>>,
}

impl<'a> InFile<'a> {
    fn of(Trees { snapshot, remote, sent }: &'a Trees) -> Self {
        let (snapshot, sent) = (Cow::Borrowed(snapshot), Cow::Borrowed(&sent[..]));
        let (snapshot, sent) = match remote {
            None => (Some(snapshot), Some(sent)),
            Some(remote) => {
                let is_shared =
                    || snapshot.iter().map(|(path, entry)| (path, entry.clone())).eq(remote.shared());
                let is_all = || sent.iter().map(|(path, sent)| (path, *sent)).eq(all_of(remote));
                rayon::join(
                    || if is_shared() { None } else { Some(snapshot.clone()) },
                    || if is_all() { None } else { Some(sent.clone()) },
                )
            }
        };
        Self { remote: remote.as_ref().map(Cow::Borrowed), snapshot, sent }
    }

    /// The trees. `None` if something is left out that follows from nothing.
    fn trees(self) -> Option<Trees> {
        let remote = self.remote.map(Cow::into_owned);
        let snapshot = match (self.snapshot, &remote) {
            (Some(snapshot), _) => snapshot.into_owned(),
            (None, remote) => remote.as_ref()?.snapshot(),
        };
        let sent = match (self.sent, &remote) {
            (Some(sent), _) => sent.into_owned(),
            (None, remote) => all_of(remote.as_ref()?).map(|(path, sent)| (path.clone(), sent)).collect(),
        };
        Some(Trees { snapshot, remote, sent })
    }
}

/// What the headers of an archive say that has all that is known of a sandbox.
fn all_of(remote: &Remote) -> impl Iterator<Item = (&RelativePath, Sent)> {
    remote.entries.iter().map(|(path, content)| {
        let sent = match *content {
            Content::Folder { mode } => Sent::Folder { mode },
            Content::File { mode, size, mtime, .. } => Sent::File { mode, size, mtime },
            Content::Symlink { .. } => Sent::Symlink,
        };
        (path, sent)
    })
}

/// Values by path that have changed; `None` is a path that has none any more.
type Changed<V> = Vec<(RelativePath, Option<V>)>;

/// The file with the trees, and what has changed since it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The name of the file.
    file: String,
    snapshot: Changed<Entry>,
    /// `None` if it is no longer known what the sandbox has.
    remote: Option<(Changed<Content>, BTreeSet<RelativePath>)>,
    /// Whether what was packed still counts.
    has_sent: bool,
}

/// Trees as a file has them.
#[derive(Debug, Clone)]
pub struct Stored {
    file: String,
    snapshot: Snapshot,
    remote: Option<Remote>,
    has_sent: bool,
}

impl Reference {
    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether everything that the sandbox has is known.
    #[must_use]
    pub fn has_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Reads the trees. `None` if the file is damaged or gone.
    #[must_use]
    pub fn load(&self, store: &Store) -> Option<(Stored, Trees)> {
        let Trees { snapshot, remote, sent } = store.load::<InFile<'_>>(&self.file)?.trees()?;
        let stored = Stored { file: self.file.clone(), snapshot, remote, has_sent: !sent.is_empty() };
        let mut snapshot = stored.snapshot.clone();
        apply(&mut snapshot, &self.snapshot);
        let remote = match &self.remote {
            None => None,
            Some((entries, others)) => {
                let mut remote = Remote { others: others.clone(), ..stored.remote.clone()? };
                apply(&mut remote.entries, entries);
                Some(remote)
            }
        };
        let sent = if self.has_sent { sent } else { Vec::new() };
        Some((stored, Trees { snapshot, remote, sent }))
    }
}

impl Stored {
    /// Writes trees to a file of their own. `None` if that fails.
    #[must_use]
    pub fn write(store: &Store, trees: &Trees) -> Option<Self> {
        let file = file_of("trees");
        let Trees { snapshot, remote, sent } = trees;
        let stored =
            Self { file, snapshot: snapshot.clone(), remote: remote.clone(), has_sent: !sent.is_empty() };
        store.keep(&stored.file, &InFile::of(trees)).then_some(stored)
    }

    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Tells these trees by the file and what has changed since. `None` if that is too much.
    #[must_use]
    pub fn refer(&self, trees: &Trees) -> Option<Reference> {
        if !trees.sent.is_empty() && !self.has_sent {
            return None;
        }
        let snapshot = changes(&self.snapshot, &trees.snapshot)?;
        let remote = match (&self.remote, &trees.remote) {
            (_, None) => None,
            (None, Some(_)) => return None,
            (Some(before), Some(now)) => {
                let few = now.others.len() <= CHANGES_MAX;
                Some((changes(&before.entries, &now.entries)?, few.then(|| now.others.clone())?))
            }
        };
        Some(Reference { file: self.file.clone(), snapshot, remote, has_sent: !trees.sent.is_empty() })
    }

    /// Makes trees share with these what is equal in both, so that comparing them takes little time.
    pub fn share(&self, trees: &mut Trees) {
        let Trees { snapshot, remote, .. } = trees;
        let mut shared = self.snapshot.clone();
        shared.become_equal(snapshot);
        *snapshot = shared;
        if let (Some(before), Some(now)) = (&self.remote, remote) {
            let mut shared = before.entries.clone();
            shared.become_equal(&now.entries);
            now.entries = shared;
        }
    }
}

/// What has changed from one map to another. `None` if that is too much.
fn changes<V: Clone + PartialEq>(before: &PathMap<V>, now: &PathMap<V>) -> Option<Changed<V>> {
    let differences = before.differences(now).filter(|(_, before, now)| before != now);
    let changed: Vec<_> =
        differences.take(CHANGES_MAX + 1).map(|(path, _, now)| (path.clone(), now.cloned())).collect();
    (changed.len() <= CHANGES_MAX).then_some(changed)
}

fn apply<V: Clone>(map: &mut PathMap<V>, changed: &Changed<V>) {
    for (path, value) in changed {
        match value {
            Some(value) => map.insert(path.clone(), value.clone()),
            None => map.remove(path),
        }
    }
}

/// The name of a sandbox's small file. It stands for a provider's sandbox with the workspace's folder in it, one adapter, and
/// the local workspace.
#[must_use]
pub fn name_of(sandbox: &[&[u8]], remote_dir: &str, adapter_key: &str, workspace: &Path) -> String {
    let place = [remote_dir.as_bytes(), adapter_key.as_bytes(), bytes_of(workspace)];
    name_for("sandbox", &[sandbox, &place].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::remote::Names;
    use crate::tree::entry::Digest;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    fn entry(content: u8) -> Entry {
        Entry::File { mode: 0o644, digest: Digest([content; 32]) }
    }

    fn content(content: u8) -> Content {
        let digest = Some(Digest([content; 32]));
        Content::File { mode: 0o644, size: 1, mtime: 7, digest, names: Names::One }
    }

    fn trees(files: usize) -> Trees {
        let paths = || (0..files).map(|number| path(&format!("{:02}/{number}", number % 17)));
        let remote =
            Remote { entries: paths().map(|path| (path, content(1))).collect(), ..Remote::default() };
        Trees {
            snapshot: paths().map(|path| (path, entry(1))).collect(),
            remote: Some(remote),
            sent: paths().map(|path| (path, Sent::Symlink)).collect(),
        }
    }

    /// What is read by a reference after it was stored itself.
    fn read(store: &Store, reference: &Reference) -> Trees {
        store.keep("reference", reference);
        store.load::<Reference>("reference").unwrap().load(store).unwrap().1
    }

    #[test]
    fn trees_are_read_as_they_were_referred_to() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let first = trees(2000);
        let stored = Stored::write(&store, &first).unwrap();
        assert_eq!(read(&store, &stored.refer(&first).unwrap()), first);

        let mut changed = first.clone();
        changed.sent.clear();
        changed.snapshot.insert(path("new"), entry(2));
        changed.snapshot.remove(&path("03/3"));
        let remote = changed.remote.as_mut().unwrap();
        remote.entries.insert(path("new"), content(2));
        remote.entries.insert(path("04/4"), content(3));
        remote.entries.remove(&path("05/5"));
        remote.others.insert(path("fifo"));
        let reference = stored.refer(&changed).unwrap();
        assert_eq!((reference.snapshot.len(), reference.remote.as_ref().unwrap().0.len()), (2, 3));
        assert_eq!(read(&store, &reference), changed);

        let unknown = Trees { remote: None, ..changed };
        let reference = stored.refer(&unknown).unwrap();
        assert!(!reference.has_remote());
        assert_eq!(read(&store, &reference), unknown);
    }

    #[test]
    fn what_follows_from_what_the_sandbox_has_is_not_stored_and_read_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut uploaded = trees(2000);
        uploaded.sent =
            all_of(uploaded.remote.as_ref().unwrap()).map(|(path, sent)| (path.clone(), sent)).collect();
        let size = |trees: &Trees| {
            let stored = Stored::write(&store, trees).unwrap();
            assert_eq!(read(&store, &stored.refer(trees).unwrap()), *trees);
            std::fs::metadata(folder.path().join(stored.file())).unwrap().len()
        };
        let whole = size(&uploaded);
        let entries = uploaded.remote.as_ref().unwrap().entries.len() as u64;
        for (what, change) in [
            ("one entry is not shared", (|trees| trees.snapshot.remove(&path("03/3"))) as fn(&mut Trees)),
            ("one entry differs", |trees| trees.snapshot.insert(path("03/3"), entry(2))),
            ("one entry was not packed", |trees| drop(trees.sent.pop())),
            ("one entry was packed otherwise", |trees| trees.sent[7].1 = Sent::Symlink),
            ("nothing was packed", |trees| trees.sent.clear()),
            ("nothing is known of the sandbox", |trees| trees.remote = None),
        ] {
            let mut changed = uploaded.clone();
            change(&mut changed);
            let size = size(&changed);
            assert!(size > whole + entries || changed.sent.is_empty() || changed.remote.is_none(), "{what}");
        }
    }

    #[test]
    fn trees_that_a_file_does_not_tell_are_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let few = trees(10);
        let many = trees(10 + CHANGES_MAX + 1);
        let stored = Stored::write(&store, &few).unwrap();
        assert!(stored.refer(&many).is_none(), "too many changes");
        let without_remote = Trees { remote: None, ..few.clone() };
        assert!(
            Stored::write(&store, &without_remote).unwrap().refer(&few).is_none(),
            "what the sandbox has"
        );
        let without_sent = Trees { sent: Vec::new(), ..few.clone() };
        assert!(Stored::write(&store, &without_sent).unwrap().refer(&few).is_none(), "what was packed");
        store.forget(stored.file());
        assert!(stored.refer(&few).unwrap().load(&store).is_none(), "the file is gone");
    }

    #[test]
    fn trees_that_share_with_a_file_are_equal_to_what_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let stored = Stored::write(&store, &trees(2000)).unwrap();
        let mut other = trees(2001);
        other.remote.as_mut().unwrap().others.insert(path("fifo"));
        let before = other.clone();
        assert!(stored.snapshot.differences(&other.snapshot).count() > 2000);
        stored.share(&mut other);
        assert_eq!(other, before);
        assert!(stored.snapshot.differences(&other.snapshot).count() < 300);
    }
}
