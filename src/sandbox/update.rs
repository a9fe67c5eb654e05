//! A sandbox that is known here gets what differs from what it holds, instead of everything.
//!
//! It is asked first what has changed there since both sides last shared something. What it holds then is compared with
//! what is here, and the difference is sent: content, what to remove, which files get another time. Afterwards the sandbox
//! compares what it was sent with what it is to have; of all else it has told that it has it. Whatever is in doubt anywhere,
//! everything is uploaded.

use std::collections::{HashMap, HashSet};

use super::answer::Answer;
use super::client::{SandboxClient, blocking};
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

/// What differs from what a sandbox holds.
#[derive(Debug)]
pub struct Difference {
    /// What is to be packed.
    pub layout: Layout,
    /// What the sandbox does beside that.
    pub lists: Lists,
    /// What is not packed, since the sandbox has it.
    pub unsent: Unsent,
}

/// What a sandbox has already.
#[derive(Debug, Default, Clone)]
pub struct Unsent {
    /// In byte order of the paths.
    snapshot: Vec<(RelativePath, Entry)>,
    sent: Vec<(RelativePath, Sent)>,
    /// What of that gets another time.
    touched: Vec<(RelativePath, Sent)>,
    further_names: Vec<(RelativePath, RelativePath)>,
    read: Vec<Known>,
}

impl Unsent {
    /// Whether the sandbox has that already.
    #[must_use]
    pub fn has(&self, path: &RelativePath) -> bool {
        self.snapshot.binary_search_by(|(unsent, _)| unsent.cmp(path)).is_ok()
    }

    /// All that an update changes in the sandbox, as headers would say it.
    #[must_use]
    pub fn listed(&self, contents: &Contents) -> Vec<(RelativePath, Sent)> {
        let mut all: Vec<_> = self.touched.iter().chain(&contents.sent).cloned().collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// As if all had been packed.
    #[must_use]
    pub fn with(mut self, contents: Contents) -> Contents {
        let mut sent = self.sent;
        sent.extend(contents.sent);
        sent.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut snapshot = contents.snapshot;
        snapshot.extend(self.snapshot);
        self.further_names.extend(contents.further_names);
        self.read.extend(contents.read);
        Contents { snapshot, sent, further_names: self.further_names, read: self.read }
    }
}

/// What a sandbox says before an update.
#[derive(Debug)]
pub struct Asked {
    /// What has changed in the workspace.
    pub changes: Changes,
    /// The indexes of the assets that have not.
    pub assets: HashSet<Vec<u8>>,
}

/// Asks a sandbox what has changed since an index, and which of the assets have not, each by its folder and its index. Nothing
/// where it cannot tell, for whatever reason.
pub async fn ask<C: SandboxClient>(
    client: &C,
    places: &Places,
    known: &str,
    new: &str,
    assets: &[(String, String)],
) -> Option<Asked> {
    client.run(&command::changed(places, known, new, assets)).await.ok()?;
    let told = client.read_file(&places.changes(), None).await.ok()?;
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
    if is_ours { Some(Asked { changes: Changes::parse(changes)?, assets }) } else { None }
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

/// What a laid out workspace comes to in a sandbox that holds `remote`, with the digests of its files. What is sent in any case
/// is not read for its digest: packing it tells that.
pub fn wanted(
    layout: &Layout,
    remote: &Remote,
    digests: &Digests,
    cancel: &Cancel,
) -> Result<(remote::Contents, Vec<Known>)> {
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
    Ok((wanted.into_iter().collect(), read))
}

/// What differs of a workspace from what a sandbox holds. Nothing where that is not certain.
#[must_use]
pub fn difference(
    layout: Layout,
    wanted: &remote::Contents,
    read: Vec<Known>,
    remote: &Remote,
    is_preserved: impl Fn(&RelativePath) -> bool,
) -> Option<Difference> {
    let Update { send, remove, touch } = remote.update(wanted, is_preserved)?;
    let mut unsent = Unsent::default();
    for (path, content) in wanted.iter().filter(|(path, _)| !send.contains(*path)) {
        let (entry, sent) = match content {
            Content::Folder { mode } => (Entry::Folder { mode: Some(*mode) }, Sent::Folder { mode: *mode }),
            Content::Symlink { target } => (Entry::Symlink { target: target.clone() }, Sent::Symlink),
            // What was not read is sent.
            Content::File { digest: None, .. } => return None,
            Content::File { mode, size, mtime, digest: Some(digest), names } => {
                if let Names::First(first) = names
                    && first != path
                {
                    unsent.further_names.push((path.clone(), first.clone()));
                }
                let sent = Sent::File { mode: *mode, size: *size, mtime: *mtime };
                (Entry::File { mode: *mode, digest: *digest }, sent)
            }
        };
        unsent.snapshot.push((path.clone(), entry));
        unsent.sent.push((path.clone(), sent));
    }
    unsent.read = read.into_iter().filter(|(path, ..)| !send.contains(path)).collect();
    let mut lists = Lists::default();
    for path in &remove {
        lists.remove.extend([b"./", path.as_bytes(), b"\n"].concat());
    }
    for path in &send {
        lists.sent.extend([b"./", path.as_bytes(), b"\n"].concat());
    }
    for (mtime, path) in &touch {
        lists.touch.extend([mtime.to_string().as_bytes(), b" ./", path.as_bytes(), b"\n"].concat());
        let at = unsent.sent.binary_search_by(|(unsent, _)| unsent.cmp(path)).ok()?;
        unsent.touched.push(unsent.sent[at].clone());
    }
    Some(Difference { layout: layout.only(|path| send.contains(path)), lists, unsent })
}

/// What a sandbox holds once all of that was extracted there.
#[must_use]
pub fn remote_of(contents: &Contents) -> Remote {
    let first_names: HashMap<&RelativePath, &RelativePath> = contents
        .further_names
        .iter()
        .flat_map(|(further, first)| [(further, first), (first, first)])
        .collect();
    let content = |(path, sent): &(RelativePath, Sent)| {
        let content = match (sent, contents.snapshot.get(path)?) {
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
    Remote { entries: contents.sent.iter().filter_map(content).collect(), ..Remote::default() }
}

/// What files and links are that came with changes.
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
