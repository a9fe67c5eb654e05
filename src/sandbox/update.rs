//! A sandbox that is known gets the difference to what it has, instead of everything.
//!
//! It is asked first what has changed in it since both sides last shared something. What it has then is
//! compared with the workspace, and the difference is sent: content, what to remove, which files get another
//! time. Afterwards the sandbox compares what it was sent with what it is to have; for all else, its report
//! of changes counts. If anything is in doubt, everything is uploaded.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::answer::Answer;
use super::client::{SandboxClient, blocking, persist};
use super::command::{self, Lists, Places};
use crate::archive::header;
use crate::archive::pack::{Contents, KnownDigest, Layout, Sent};
use crate::archive::source::{Bytes as _, copy_of};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::Kind;
use crate::path::RelativePath;
use crate::state::digests::{Digests, Known};
use crate::transfer::changes::{Changes, Told};
use crate::transfer::remote::{self, Content, Names, Remote, Update};
use crate::tree::entry::{Entry, Snapshot};
use crate::tree::scan::Found;

/// The most that is read of what a sandbox says.
const ANSWER_MAX: usize = 64 << 20;

/// What an update does.
#[derive(Debug)]
pub struct Difference {
    /// What is to be packed.
    pub layout: Layout,
    /// What the sandbox does beside that.
    pub lists: Lists,
    /// The files whose time is set, each as an archive's header would describe it.
    pub touched: Vec<(RelativePath, Sent)>,
    /// What the sandbox has afterwards.
    pub outcome: Outcome,
}

/// What a sandbox has after an update, once it is known what was packed.
#[derive(Debug)]
pub struct Outcome {
    wanted: remote::Contents,
    /// The paths of `wanted` that are packed.
    send: BTreeSet<RelativePath>,
    /// The files that are not packed, as they were read.
    read: Vec<Known>,
}

impl Outcome {
    /// Takes the files that are not packed, as they were read.
    pub fn take_read(&mut self) -> Vec<Known> {
        std::mem::take(&mut self.read)
    }

    /// Everything that the sandbox has.
    #[must_use]
    pub fn with(self, contents: &Contents) -> Remote {
        let Self { wanted: mut entries, send, .. } = self;
        // What has vanished since was not packed.
        for path in &send {
            entries.remove(path);
        }
        entries.extend(remote_of(contents).entries);
        Remote { entries, ..Remote::default() }
    }
}

/// All that an update changes in the sandbox, each as an archive's header would describe it.
#[must_use]
pub fn listed(touched: &[(RelativePath, Sent)], contents: &Contents) -> Vec<(RelativePath, Sent)> {
    let mut all: Vec<_> = touched.iter().chain(&contents.sent).cloned().collect();
    all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// What a sandbox says before an update.
#[derive(Debug)]
pub struct Asked {
    /// What has changed in the workspace.
    pub changes: Changes,
    /// The indexes of the assets that have not.
    pub assets: HashSet<Vec<u8>>,
    /// Whether the sandbox has zstd, if it says so.
    pub has_zstd: Option<bool>,
}

/// Asks a sandbox what has changed since an index, and which of the assets have not, each by its folder and
/// its index. `None` where it cannot tell, for whatever reason.
pub async fn ask<C: SandboxClient>(
    client: &C,
    places: &Places,
    known: &str,
    new: &str,
    assets: &[(String, String)],
) -> Option<Asked> {
    let look = command::changed(places, known, new, assets);
    persist(client, || client.run(&look)).await.ok()?;
    let path = places.changes();
    let told = persist(client, || client.read_file(&path, None)).await.ok()?;
    if told.size() > ANSWER_MAX as u64 {
        return None;
    }
    let told = blocking(move || copy_of(&told, ANSWER_MAX)).await.ok()?;
    let (assets, told) = split_assets(&told);
    let answer = Answer::parse(Some(told));
    let (since, changes) = answer.changes?;
    let is_ours = answer.mark == Some(places.upload_id().as_bytes())
        && answer.index == Some(new.as_bytes())
        && since == known.as_bytes();
    let changes = Changes::parse(changes).filter(|_| is_ours)?;
    Some(Asked { changes, assets, has_zstd: answer.has_zstd })
}

/// The lines with assets at the beginning of what a sandbox says, and the rest.
fn split_assets(mut told: &[u8]) -> (HashSet<Vec<u8>>, &[u8]) {
    let mut assets = HashSet::new();
    while let Some(rest) = told.strip_prefix(b"asset ") {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { break };
        assets.insert(rest[..end].to_vec());
        told = &rest[end + 1..];
    }
    (assets, told)
}

/// What a sandbox that has `remote` is to have of a laid out workspace, with the digests of its files, and `unsent`, which the
/// sandbox has and which is not laid out. A file that is packed in any case is not read for its digest, which packing tells.
pub fn wanted(
    layout: Layout,
    unsent: remote::Contents,
    remote: &Remote,
    digests: &Digests,
    cancel: &Cancel,
) -> Result<Wanted> {
    let known = |found: &Found| match digests.get(&found.path, &found.meta.fingerprint()) {
        Some(digest) => KnownDigest::Known(digest),
        None if remote.has_file(&found.path, found.meta.size) => KnownDigest::Unknown,
        None => KnownDigest::NotNeeded,
    };
    let known = layout.digests(&known, cancel)?;
    let firsts: HashSet<&RelativePath> = layout.entries().filter_map(|(_, first)| first).collect();
    let mut read = Vec::new();
    let mut wanted = Vec::with_capacity(known.len());
    for ((found, first), known) in layout.entries().zip(known) {
        let content = match (&found.target, found.meta.kind, known) {
            (Some(target), ..) => Content::Symlink { target: target.clone() },
            (None, Kind::Folder, _) => Content::Folder { mode: found.meta.mode & 0o7777 },
            (None, _, Some((meta, digest))) => {
                if let (None, Some(digest)) = (first, digest) {
                    read.push((found.path.clone(), meta.fingerprint(), digest));
                }
                let names = match first {
                    Some(first) => Names::First(first.clone()),
                    None if firsts.contains(&found.path) => Names::First(found.path.clone()),
                    None => Names::One,
                };
                let (mode, size, mtime) = (meta.mode & 0o7777, meta.size, header::mtime(&meta));
                Content::File { mode, size, mtime, digest, names }
            }
            (None, _, None) => continue,
        };
        wanted.push((found.path.clone(), content));
    }
    let (mut contents, not_laid_out) =
        (wanted.into_iter().collect::<remote::Contents>(), unsent.keys().cloned().collect());
    contents.extend(unsent);
    drop(firsts);
    Ok(Wanted { layout, contents, unsent: not_laid_out, read })
}

/// A workspace that was laid out, and what of it the sandbox is to have.
#[derive(Debug)]
pub struct Wanted {
    /// Everything that could be packed.
    pub layout: Layout,
    /// What the sandbox is to have.
    pub contents: remote::Contents,
    /// The paths of `contents` that are not laid out and so cannot be packed.
    pub unsent: Vec<RelativePath>,
    /// The files as they were read.
    pub read: Vec<Known>,
}

impl Wanted {
    /// What makes a sandbox have all of it. `None` where that is not certain to be possible.
    #[must_use]
    pub fn plan(&self, remote: &Remote, is_preserved: impl Fn(&RelativePath) -> bool) -> Option<Update> {
        let update = remote.update(&self.contents, is_preserved)?;
        (!self.unsent.iter().any(|path| update.send.contains(path))).then_some(update)
    }

    /// Lays out what an update packs, and lists the rest of it for the sandbox.
    #[must_use]
    pub fn difference(self, update: Update) -> Difference {
        let Self { layout, contents: wanted, mut read, .. } = self;
        let Update { send, remove, touch } = update;
        let mut lists = Lists::default();
        for path in &remove {
            lists.remove.extend([b"./", path.as_bytes(), b"\n"].concat());
        }
        for path in &send {
            lists.sent.extend([b"./", path.as_bytes(), b"\n"].concat());
        }
        let mut touched = Vec::new();
        for (time, path) in touch {
            lists.touch.extend([time.to_string().as_bytes(), b" ./", path.as_bytes(), b"\n"].concat());
            if let Some(Content::File { mode, size, mtime, .. }) = wanted.get(&path) {
                touched.push((path, Sent::File { mode: *mode, size: *size, mtime: *mtime }));
            }
        }
        read.retain(|(path, ..)| !send.contains(path));
        let layout = layout.only(|path| send.contains(path));
        Difference { layout, lists, touched, outcome: Outcome { wanted, send, read } }
    }
}

/// What a sandbox has once these contents were extracted in it.
#[must_use]
pub fn remote_of(contents: &Contents) -> Remote {
    let first_names: HashMap<&RelativePath, &RelativePath> = contents
        .further_names
        .iter()
        .flat_map(|(further, first)| [(further, first), (first, first)])
        .collect();
    let content = |((path, sent), (packed, entry)): (&(RelativePath, Sent), (&RelativePath, &Entry))| {
        debug_assert_eq!(path, packed, "both have the entries of one archive");
        let content = match (sent, entry) {
            (Sent::Folder { mode }, _) => Content::Folder { mode: *mode },
            (Sent::File { mode, size, mtime }, Entry::File { digest, .. }) => {
                let names = first_names.get(path).map_or(Names::One, |first| Names::First((*first).clone()));
                Content::File { mode: *mode, size: *size, mtime: *mtime, digest: Some(*digest), names }
            }
            (_, Entry::Symlink { target }) => Content::Symlink { target: target.clone() },
            _ => return None,
        };
        Some((path.clone(), content))
    };
    let entries = contents.sent.iter().zip(&contents.snapshot).filter_map(content).collect();
    Remote { entries, ..Remote::default() }
}

/// The files and links that came with changes.
#[must_use]
pub fn contents_of(changes: &Changes, came: &Snapshot) -> HashMap<RelativePath, Content> {
    let content = |(path, told): (&RelativePath, Told)| {
        let content = match came.get(path)? {
            Entry::File { digest, .. } => remote::file(told, *digest),
            Entry::Symlink { target } => Content::Symlink { target: target.clone() },
            Entry::Folder { .. } => return None,
        };
        Some((path.clone(), content))
    };
    changes.contents().filter_map(content).collect()
}
