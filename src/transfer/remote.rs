//! What a sandbox has, as far as it is known locally, and which steps make it have what is wanted. Pure.
//!
//! Every name of the sandbox's workspace is either an [entry](Remote::entries) of which everything is known, or one of the
//! [others](Remote::others), of which it is only known that something exists. A mistake in this costs a full upload and
//! nothing else: after an update the sandbox compares what it received with what it is to have.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::changes::{Change, Changes, Told, Touched};
use crate::path::RelativePath;
use crate::path_map::PathMap;
use crate::tree::entry::{Digest, Entry, Snapshot};

/// The maximum number of files of which only the time is set; the content of all others is sent again.
const TOUCHED_MAX: usize = 256;

/// What is at one path, with all that a full upload would set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A directory, with its mode bits `07777`.
    #[serde(rename = "Dir")]
    Folder {
        /// The mode.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Mode bits `07777`.
        mode: u32,
        /// Bytes of content.
        size: u64,
        /// Seconds since 1970.
        mtime: u64,
        /// The digest of the content; `None` if it was not read, since the sandbox's file has another size or
        /// is not known.
        digest: Option<Digest>,
        /// Which of its names is the first, where it has several.
        names: Names,
    },
    /// A symbolic link and where it points.
    Symlink {
        /// The target.
        target: std::sync::Arc<[u8]>,
    },
}

impl Content {
    /// What both sides share of it, if its content is known.
    #[must_use]
    pub fn entry(&self) -> Option<Entry> {
        Some(match self {
            Self::Folder { mode } => Entry::Folder { mode: Some(*mode) },
            Self::File { mode, digest, .. } => Entry::File { mode: *mode, digest: (*digest)? },
            Self::Symlink { target } => Entry::Symlink { target: target.clone() },
        })
    }
}

/// The names of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Names {
    /// It has this one.
    One,
    /// It has several, of which that is the first.
    First(RelativePath),
    /// It has several, and it is not known which.
    Unknown,
}

/// Everything at its path.
pub type Contents = PathMap<Content>;

/// What a sandbox holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// What is known of it.
    pub entries: Contents,
    /// Where something is that is not known.
    pub others: BTreeSet<RelativePath>,
}

impl Remote {
    /// The entries that both sides share where the sandbox has exactly what was sent.
    pub fn shared(&self) -> impl Iterator<Item = (&RelativePath, Entry)> {
        self.entries.iter().filter_map(|(path, content)| Some((path, content.entry()?)))
    }

    /// The same as a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared().map(|(path, entry)| (path.clone(), entry)).collect()
    }
}

/// What makes a sandbox hold something else.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// What is sent.
    pub send: BTreeSet<RelativePath>,
    /// What is removed before that, with all that is below it; none of them is below another.
    pub remove: Vec<RelativePath>,
    /// Files that get another time of modification.
    pub touch: Vec<(u64, RelativePath)>,
}

impl Update {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.send.is_empty() && self.remove.is_empty() && self.touch.is_empty()
    }

    /// This update with the files sent again of which only the time would be set.
    #[must_use]
    pub fn with_touched_sent(mut self) -> Self {
        for (_, path) in std::mem::take(&mut self.touch) {
            self.remove.push(path.clone());
            self.send.insert(path);
        }
        self.remove.sort_unstable();
        self
    }
}

impl Content {
    fn is_folder(&self) -> bool {
        matches!(self, Self::Folder { .. })
    }

    fn first_name(&self) -> Option<&RelativePath> {
        match self {
            Self::File { names: Names::First(first), .. } => Some(first),
            _ => None,
        }
    }

    /// Whether nothing needs to be sent to have `other` in its place. (The time of a file can be set.)
    fn serves_as(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::File { mode, size, digest, names, .. },
                Self::File {
                    mode: other_mode, size: other_size, digest: other_digest, names: others, ..
                },
            ) => {
                (mode, size, digest) == (other_mode, other_size, other_digest)
                    && digest.is_some()
                    && names == others
                    && *names != Names::Unknown
            }
            _ => self == other,
        }
    }
}

impl Remote {
    /// Takes in what the sandbox says has changed. `content` tells what a file or link is now, where that is known.
    pub fn change(&mut self, changes: &Changes, content: impl Fn(&RelativePath) -> Option<Content>) {
        for (path, change) in changes.iter() {
            let known = match change {
                Change::Content(_) => content(path),
                Change::Touched(touched) => self.touched(path, *touched),
                Change::Folder(mode) => Some(Content::Folder { mode: *mode }),
                Change::Special | Change::Apart | Change::Gone => None,
            };
            let is_other = known.is_none() && *change != Change::Gone;
            match known {
                Some(known) => self.entries.insert(path.clone(), known),
                None => self.entries.remove(path),
            }
            if is_other {
                self.others.insert(path.clone());
            } else {
                self.others.remove(path);
            }
        }
    }

    /// What a file with another time is, where it is known to have that content.
    fn touched(&self, path: &RelativePath, touched: Touched) -> Option<Content> {
        let mut content = self.entries.get(path)?.clone();
        match &mut content {
            Content::File { mtime, digest: Some(digest), .. } if *digest == touched.digest => {
                *mtime = touched.mtime;
                Some(content)
            }
            _ => None,
        }
    }

    /// Whether the sandbox is known to have a file of that size, which may be the one that is wanted.
    #[must_use]
    pub fn has_file(&self, path: &RelativePath, of_size: u64) -> bool {
        matches!(self.entries.get(path), Some(Content::File { size, .. }) if *size == of_size)
    }

    /// What makes it hold what is wanted. Of what `is_preserved` names nothing is removed.
    ///
    /// `None` where that is not certain to be possible: a name has a line break, or something preserved is in the way.
    #[must_use]
    pub fn update(&self, wanted: &Contents, is_preserved: impl Fn(&RelativePath) -> bool) -> Option<Update> {
        let mut update = Update::default();
        let mut remove = BTreeSet::new();
        let mut touch = Vec::new();
        for (path, has, want) in self.entries.join(wanted) {
            match (has, want) {
                (Some(has), Some(want)) if has.serves_as(want) => {
                    if let (Content::File { mtime: has, .. }, Content::File { mtime, size, .. }) = (has, want)
                        && has != mtime
                    {
                        touch.push((*size, *mtime, path));
                    }
                }
                (has, Some(want)) => {
                    update.send.insert(path.clone());
                    // A directory only gets its mode. A file is never written over: it may have further names in the sandbox.
                    let exists = has.is_some() || self.others.contains(path);
                    if exists && !(want.is_folder() && has.is_some_and(Content::is_folder)) {
                        remove.insert(path.clone());
                    }
                }
                (_, None) => {
                    if !is_preserved(path) {
                        remove.insert(path.clone());
                    }
                }
            }
        }
        // Where too many times differ, those of the largest files are set, and the others are sent again.
        touch.sort_unstable_by_key(|(size, ..)| std::cmp::Reverse(*size));
        for (at, (_, mtime, path)) in touch.into_iter().enumerate() {
            if at < TOUCHED_MAX {
                update.touch.push((mtime, path.clone()));
            } else {
                update.send.insert(path.clone());
                remove.insert(path.clone());
            }
        }
        let unwanted = self.others.iter().filter(|path| !wanted.contains_key(*path) && !is_preserved(path));
        remove.extend(unwanted.cloned());
        if remove.iter().any(&is_preserved) {
            return None;
        }

        // What is below a path that is removed is removed with it, and is sent again where it is wanted.
        for path in remove {
            if !update.remove.last().is_some_and(|last: &RelativePath| path.is_below(last)) {
                update.remove.push(path);
            }
        }
        for removed in &update.remove {
            let near = wanted.iter_from(removed.as_bytes()).map(|(path, _)| path);
            let near = near.take_while(|path| path.as_bytes().starts_with(removed.as_bytes()));
            update.send.extend(near.filter(|path| path.is_below(removed)).cloned());
        }
        // All names of a file are sent together, so that they are names of one file in the sandbox.
        let shared: BTreeSet<&RelativePath> =
            update.send.iter().filter_map(|path| wanted.get(path)?.first_name()).collect();
        if !shared.is_empty() {
            let of_shared = wanted
                .iter()
                .filter(|(_, want)| want.first_name().is_some_and(|first| shared.contains(first)));
            let further: Vec<_> =
                of_shared.map(|(path, _)| path.clone()).filter(|path| !update.send.contains(path)).collect();
            // Each of them serves as what is wanted, so it exists in the sandbox and nothing above it is removed.
            for path in further {
                if is_preserved(&path) {
                    return None;
                }
                update.remove.push(path.clone());
                update.send.insert(path);
            }
            update.remove.sort_unstable();
            update.remove.dedup();
        }
        update.touch.retain(|(_, path)| !update.send.contains(path));
        update.touch.sort_unstable();
        let has_line_break = |path: &RelativePath| path.as_bytes().contains(&b'\n');
        let named = update.remove.iter().chain(update.touch.iter().map(|(_, path)| path));
        (!named.chain(&update.send).any(has_line_break)).then_some(update)
    }
}

/// A file of the sandbox, from what the sandbox says of it and from the digest of what was downloaded.
#[must_use]
pub fn file(told: Told, digest: Digest) -> Content {
    let Told { mode, size, mtime, links } = told;
    let names = if links == 1 { Names::One } else { Names::Unknown };
    Content::File { mode: mode & 0o7777, size, mtime, digest: Some(digest), names }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    /// `d` is a directory, `D` one with another mode, `l` a link, a digit what a file holds, with its time
    /// behind a `@` and its first name behind a `=`.
    fn contents(text: &str) -> Contents {
        let content = |said: &str| {
            let (said, first) =
                said.split_once('=').map_or((said, None), |(said, first)| (said, Some(first)));
            let (said, mtime) =
                said.split_once('@').map_or((said, 7), |(said, time)| (said, time.parse().unwrap()));
            let names = match first {
                None => Names::One,
                Some("?") => Names::Unknown,
                Some(first) => Names::First(path(first)),
            };
            match said {
                "d" => Content::Folder { mode: 0o755 },
                "D" => Content::Folder { mode: 0o700 },
                "l" => Content::Symlink { target: b"target"[..].into() },
                digit => {
                    let size = digit.parse().unwrap();
                    Content::File {
                        mode: 0o644,
                        size,
                        mtime,
                        digest: Some(Digest([digit.as_bytes()[0]; 32])),
                        names,
                    }
                }
            }
        };
        let items = text.split_whitespace().map(|item| item.split_once(':').unwrap());
        items.map(|(name, said)| (path(name), content(said))).collect()
    }

    fn paths(text: &str) -> Vec<RelativePath> {
        text.split_whitespace().map(path).collect()
    }

    /// What the sandbox has, what else exists in it, what is wanted; what is sent, removed and touched.
    #[test]
    fn what_makes_a_sandbox_hold_what_is_wanted() {
        type Case<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, &'a str);
        let cases: &[Case<'_>] = &[
            ("nothing changed", "a:1 d:d d/b:2 l:l", "", "a:1 d:d d/b:2 l:l", "", "", ""),
            ("a new file", "a:1", "", "a:1 b:2", "b", "", ""),
            ("another content", "a:1", "", "a:2", "a", "a", ""),
            ("another time", "a:1@5", "", "a:1@6", "", "", "a"),
            ("a file that is not wanted", "a:1 b:2", "", "a:1", "", "b", ""),
            ("a directory that is not wanted", "a:1 d:d d/b:2 d/e:d", "", "a:1", "", "d", ""),
            ("a directory with another mode", "d:d d/b:2", "", "d:D d/b:2", "d", "", ""),
            ("a file in the place of a directory", "d:d d/b:2", "", "d:1", "d", "d", ""),
            ("a directory in the place of a file", "d:1", "", "d:d d/b:2", "d d/b", "d", ""),
            ("a link in the place of a directory", "d:d d/b:2", "", "d:l", "d", "d", ""),
            ("something unknown that is not wanted", "a:1", "x x/y", "a:1", "", "x", ""),
            ("something unknown where a file is wanted", "", "a", "a:1", "a", "a", ""),
            ("something unknown where a directory is wanted", "", "d", "d:d d/b:1", "d d/b", "d", ""),
            ("a name that another begins with", "a:d a/b:1 a-b:2", "", "a-b:2", "", "a", ""),
            ("names of one file as they were", "a:1=a b:1=a", "", "a:1=a b:1=a", "", "", ""),
            ("a further name", "a:1 b:2", "", "a:1=a b:2 c:1=a", "a c", "a", ""),
            ("one name less", "a:1=a b:1=a", "", "a:1", "a", "a b", ""),
            ("names that became files of their own", "a:1=a b:1=a", "", "a:1 b:1", "a b", "a b", ""),
            ("names that are not known", "a:1=?", "", "a:1", "a", "a", ""),
            ("one of several names was changed there", "b:1=a", "a", "a:1=a b:1=a", "a b", "a b", ""),
            ("what is preserved is not removed", "keep:d", "keep/x", "", "", "", ""),
        ];
        for &(name, has, others, wanted, send, remove, touch) in cases {
            let remote = Remote { entries: contents(has), others: paths(others).into_iter().collect() };
            let update = remote.update(&contents(wanted), |path| path.is_or_below(b"keep")).expect(name);
            assert_eq!(update.send.iter().cloned().collect::<Vec<_>>(), paths(send), "{name}: sent");
            assert_eq!(update.remove, paths(remove), "{name}: removed");
            let touched: Vec<_> = update.touch.into_iter().map(|(_, path)| path).collect();
            assert_eq!(touched, paths(touch), "{name}: touched");
        }
    }

    #[test]
    fn a_file_that_was_not_read_is_sent() {
        let mut wanted = contents("a:1 b:1");
        let unread = Content::File { mode: 0o644, size: 1, mtime: 7, digest: None, names: Names::One };
        wanted.insert(path("a"), unread);
        for has in [contents("a:1 b:1"), wanted.clone()] {
            let remote = Remote { entries: has, others: BTreeSet::new() };
            let update = remote.update(&wanted, |_| false).unwrap();
            assert_eq!((update.send.into_iter().collect(), update.remove), (paths("a"), paths("a")));
        }
        let remote = Remote { entries: contents("a:1 d:d"), others: paths("o").into_iter().collect() };
        let has = |name: &str, size| remote.has_file(&path(name), size);
        assert!(has("a", 1) && !has("a", 2) && !has("b", 1) && !has("d", 1) && !has("o", 1));
    }

    #[test]
    fn no_update_where_it_is_not_certain() {
        let update = |has: &Contents, wanted: &Contents| {
            let remote = Remote { entries: has.clone(), others: BTreeSet::new() };
            remote.update(wanted, |path| path.is_or_below(b"keep"))
        };
        assert_eq!(update(&contents("keep:1"), &contents("keep:2")), None);
        assert_eq!(update(&contents(""), &[(path("a\nb"), Content::Folder { mode: 0 })].into()), None);
        assert_eq!(update(&[(path("a\nb"), Content::Folder { mode: 0 })].into(), &contents("")), None);
    }

    #[test]
    fn of_many_times_those_of_large_files_are_set_and_the_others_are_sent() {
        let has: Vec<_> = (0..300).map(|number| format!("f{number:03}:{number}@1")).collect();
        let has = has.join(" ");
        let wanted = has.replace("@1", "@2");
        let remote = Remote { entries: contents(&has), others: BTreeSet::new() };
        let update = remote.update(&contents(&wanted), |_| false).unwrap();
        assert_eq!((update.touch.len(), update.send.len(), update.remove.len()), (256, 44, 44));
        assert!(update.send.contains(&path("f000")) && !update.send.contains(&path("f299")));
    }

    #[test]
    fn what_a_sandbox_says_is_what_is_known_of_it() {
        let mut remote = Remote {
            entries: contents("a:1 b:2 d:d d/c:3 d/t:4 e:4"),
            others: paths("o p").into_iter().collect(),
        };
        let text = "f 81a4 1 5 9 ./a\nf 81a4 2 6 9 ./n\nd 41c0 ./d\ng ./b\ng ./o\nx ./e\ns ./fifo\nf 81a4 1 1 1 ./q\n";
        let is_three = "33".repeat(32);
        let text = format!("{text}t {is_three} 8 ./d/c\nt {is_three} 8 ./d/t\nt {is_three} 8 ./u\n");
        let changes = Changes::parse(text.as_bytes()).unwrap();
        let digest = Digest([b'5'; 32]);
        let told: BTreeMap<_, _> = changes.contents().collect();
        remote.change(&changes, |path| (path.as_bytes() != b"q").then(|| file(told[path], digest)));
        let mut expected = contents("a:5@9 d:D d/c:3@8 n:6@9=?");
        expected.insert(path("n"), file(told[&path("n")], digest));
        assert_eq!(remote.entries, expected);
        assert_eq!(remote.others, paths("d/t e fifo p q u").into_iter().collect());
    }
}
