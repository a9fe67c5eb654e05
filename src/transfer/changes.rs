//! The changes that a sandbox reports since an index of its workspace, and the snapshot that they make of the base. Pure.
//!
//! The text is from a machine on which an agent had a shell. It decides only which content the sandbox has, as a full
//! download would. A report that contradicts the archive with it is refused, and everything is downloaded.

use std::collections::BTreeMap;

use crate::fs::Kind;
use crate::path::RelativePath;
use crate::tree::entry::{Digest, Entry, Snapshot};
use crate::tree::filter::Filter;

/// How a path has changed in the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A file or link is new or changed. The archive has its content.
    Content(Told),
    /// A file has another time, and nothing else of it has changed. Its content does not come along.
    Touched(Touched),
    /// A directory is new or changed; with its mode bits `07777`.
    Folder(u32),
    /// The sandbox has a device or FIFO at this path.
    Special,
    /// The sandbox has an entry that is never downloaded: it is excluded, or a socket.
    Apart,
    /// The sandbox has no entry at this path any more.
    Gone,
}

impl Change {
    /// The kind of the entry, as far as a filter can tell it apart. A deleted entry, of unknown kind, counts
    /// as a file.
    fn kind(&self) -> Kind {
        match self {
            Self::Folder(_) => Kind::Folder,
            Self::Content(_) | Self::Touched(_) | Self::Gone => Kind::File,
            Self::Special | Self::Apart => Kind::Other,
        }
    }
}

/// What a sandbox says of a file or link that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// The full mode.
    pub mode: u32,
    /// How many names it has.
    pub links: u64,
    /// Bytes of content.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// What a sandbox says of a file that has another time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// The digest of its content, which must be that of the base, if the base has the file.
    pub digest: Digest,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// What has changed since an index, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<RelativePath, Change>);

impl Changes {
    /// Parses the output of `tell_changes` in `control.sh`. `None` if any line has another form.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut changes = BTreeMap::new();
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let (change, name) = match line {
                [b'f', b' ', rest @ ..] => {
                    let mut fields = rest.splitn(5, |&byte| byte == b' ');
                    let mode = number(fields.next()?, 16)?;
                    let mut decimal = || number(fields.next()?, 10);
                    let (links, size, mtime) = (decimal()?, decimal()?, decimal()?);
                    let told = Told { mode: u32::try_from(mode).ok()?, links, size, mtime };
                    (Change::Content(told), fields.next()?)
                }
                [b't', b' ', rest @ ..] => {
                    let mut fields = rest.splitn(3, |&byte| byte == b' ');
                    let digest = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
                    (Change::Touched(Touched { digest, mtime: number(fields.next()?, 10)? }), fields.next()?)
                }
                [b's', b' ', name @ ..] => (Change::Special, name),
                [b'x', b' ', name @ ..] => (Change::Apart, name),
                [b'g', b' ', name @ ..] => (Change::Gone, name),
                [b'd', b' ', rest @ ..] => {
                    let mut fields = rest.splitn(2, |&byte| byte == b' ');
                    let mode = u32::try_from(number(fields.next()?, 16)?).ok()?;
                    (Change::Folder(mode & 0o7777), fields.next()?)
                }
                _ => return None,
            };
            let path = RelativePath::parse(name.strip_prefix(b"./")?).ok()??;
            if changes.insert(path, change).is_some() {
                return None;
            }
        }
        Some(Self(changes))
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&RelativePath, &Change)> {
        self.0.iter()
    }

    /// The files and links that are new or changed, with what the sandbox reports of each.
    pub fn contents(&self) -> impl Iterator<Item = (&RelativePath, Told)> {
        self.0.iter().filter_map(|(path, change)| match change {
            Change::Content(told) => Some((path, *told)),
            _ => None,
        })
    }

    /// The directories that are new or changed, with their modes.
    pub fn dirs(&self) -> impl Iterator<Item = (&RelativePath, u32)> {
        self.0.iter().filter_map(|(path, change)| match change {
            Change::Folder(mode) => Some((path, *mode)),
            _ => None,
        })
    }

    /// The devices and FIFOs.
    pub fn special(&self) -> impl Iterator<Item = &RelativePath> {
        self.0.iter().filter_map(|(path, change)| (*change == Change::Special).then_some(path))
    }

    /// The snapshot of the sandbox: the base with the downloaded entries. `came` has the directories above each of these,
    /// without a mode where the sandbox did not report one. What `passed_over` names may be missing.
    ///
    /// `None` where the changes, the downloaded entries and the base contradict each other.
    #[must_use]
    pub fn whole(&self, base: &Snapshot, came: Snapshot, passed_over: &Filter<'_>) -> Option<Snapshot> {
        for (path, change) in &self.0 {
            if passed_over.leaves_out(path, change.kind()) {
                continue;
            }
            let fits = match change {
                Change::Content(_) => came.get(path).is_some_and(|entry| !entry.is_folder()),
                Change::Folder(_) => came.get(path).is_some_and(Entry::is_folder),
                // A path that the base does not have, such as one that belongs to git, is ignored.
                Change::Touched(Touched { digest, .. }) => {
                    let is_it =
                        |entry: &Entry| matches!(entry, Entry::File { digest: known, .. } if known == digest);
                    !came.contains_key(path) && base.get(path).is_none_or(is_it)
                }
                Change::Special | Change::Apart | Change::Gone => !came.contains_key(path),
            };
            if !fits {
                return None;
            }
        }
        let told = |path: &RelativePath| {
            self.0.get(path).is_some_and(|change| !matches!(change, Change::Touched(_)))
        };
        let is_known = |(path, entry): (&RelativePath, &Entry)| {
            told(path) || (entry.is_folder() && base.get(path).is_some_and(Entry::is_folder))
        };
        if !came.iter().all(is_known) {
            return None;
        }
        let mut whole = base.clone();
        for path in self.0.keys().filter(|path| told(path)) {
            whole.remove(path);
        }
        // A reported entry replaces that of the base; a directory that is only the parent of one stays as in the base.
        whole.extend(came.into_iter().filter(|(path, _)| told(path)));
        let has_no_children = |path: &RelativePath| {
            let below = [path.as_bytes(), b"/"].concat();
            let next = whole.iter_from(&below).next();
            next.is_none_or(|(next, _)| !next.is_below(path))
        };
        let is_folder = |path: &RelativePath| whole.get(path).is_some_and(Entry::is_folder);
        let sound = self.0.keys().all(|path| {
            let above = path.parent();
            let placed = !whole.contains_key(path) || above.is_none_or(|above| is_folder(&above));
            placed && (is_folder(path) || has_no_children(path))
        });
        sound.then_some(whole)
    }
}

fn number(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::entry::Digest;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    /// `d` is a directory, `?` one whose mode is not known, any other letter a file that holds that letter.
    fn tree(text: &str) -> Snapshot {
        let entry = |kind: &str| match kind {
            "d" => Entry::Folder { mode: Some(0o755) },
            "?" => Entry::Folder { mode: None },
            "l" => Entry::Symlink { target: b"target"[..].into() },
            letter => Entry::File { mode: 0o644, digest: Digest([letter.as_bytes()[0]; 32]) },
        };
        let entries = text.split_whitespace().map(|item| item.split_once(':').unwrap());
        entries.map(|(name, kind)| (path(name), entry(kind))).collect()
    }

    fn changes(text: &str) -> Changes {
        let text = text.replace("f ./", "f 81a4 1 5 9 ./").replace(", ", "\n");
        let touched = |letter: &str| format!("t {} 9 ./", letter.repeat(32));
        let text = text.replace("t1 ./", &touched("31")).replace("t2 ./", &touched("32"));
        Changes::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let read = changes("f ./a b, d 41ed ./d, s ./fifo, x ./node_modules, g ./old, f ./-x, t1 ./p q");
        let touched = Touched { digest: Digest([b'1'; 32]), mtime: 9 };
        let told = Told { mode: 0o100_644, links: 1, size: 5, mtime: 9 };
        let expected = [
            ("-x", Change::Content(told)),
            ("a b", Change::Content(told)),
            ("d", Change::Folder(0o755)),
            ("fifo", Change::Special),
            ("node_modules", Change::Apart),
            ("old", Change::Gone),
            ("p q", Change::Touched(touched)),
        ];
        assert_eq!(
            read.0.into_iter().collect::<Vec<_>>(),
            expected.map(|(name, change)| (path(name), change))
        );
    }

    #[test]
    fn one_malformed_line_refuses_all_of_them() {
        for text in [
            "q ./a",
            "f a",
            "f ./",
            "f ./../a",
            "f .//etc",
            "d ./a",
            "d 41ed",
            "d zz ./a",
            "f",
            "f ./a\ng ./a",
            "f ./a\0b",
            "t 9 ./a",
            "t 31 9 ./a",
            &format!("t {} ./a", "31".repeat(32)),
            &format!("t {} 9", "31".repeat(32)),
        ] {
            assert_eq!(Changes::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    /// The base, the changes, the downloaded entries, and the snapshot; `None` where these contradict each other.
    #[test]
    fn the_whole_is_the_base_with_what_changed() {
        type Case<'a> = (&'a str, &'a str, &'a str, &'a str, Option<&'a str>);
        let cases: &[Case<'_>] = &[
            ("nothing changed", "a:1 d:d d/b:2", "", "", Some("a:1 d:d d/b:2")),
            ("a file changed", "a:1 d:d d/b:2", "f ./d/b", "d:? d/b:3", Some("a:1 d:d d/b:3")),
            ("a new file", "a:1", "f ./b", "b:2", Some("a:1 b:2")),
            ("a new directory", "a:1", "d 41ed ./d, f ./d/b", "d:d d/b:2", Some("a:1 d:d d/b:2")),
            ("a file is gone", "a:1 b:2", "g ./a", "", Some("b:2")),
            ("a directory is gone", "d:d d/b:2 e:3", "g ./d, g ./d/b", "", Some("e:3")),
            ("a mode of a directory", "d:? d/b:2", "d 41ed ./d", "d:d", Some("d:d d/b:2")),
            ("a file became a directory", "a:1", "d 41ed ./a, f ./a/b", "a:d a/b:2", Some("a:d a/b:2")),
            ("a directory became a file", "d:d d/b:2", "f ./d, g ./d/b", "d:3", Some("d:3")),
            ("a directory became a link", "d:d d/b:2", "f ./d, g ./d/b", "d:l", Some("d:l")),
            ("a file became a device", "a:1 b:2", "s ./a", "", Some("b:2")),
            ("a file became a socket", "a:1 b:2", "x ./a", "", Some("b:2")),
            ("what is excluded is there", "a:1", "x ./node_modules", "", Some("a:1")),
            ("what is passed over did not come", "a:1", "f ./over", "", Some("a:1")),
            ("a name that another begins with", "a:d a/b:1 a-b:2", "g ./a, g ./a/b", "", Some("a-b:2")),
            ("a file has another time", "a:1 d:d d/b:2", "t2 ./d/b", "", Some("a:1 d:d d/b:2")),
            ("another time of what is not known here", "a:1", "t2 ./d/b", "", Some("a:1")),
            ("another time of what is passed over", "over:1", "t2 ./over", "", Some("over:1")),
            ("another time, but another content", "a:1", "t2 ./a", "", None),
            ("another time of a directory", "a:d", "t1 ./a", "", None),
            ("another time, but content came", "a:1", "t1 ./a", "a:1", None),
            (
                "a directory became a file and its file got another time",
                "d:d d/b:2",
                "f ./d, t2 ./d/b",
                "d:3",
                None,
            ),
            ("content that did not come", "a:1", "f ./b", "", None),
            ("content that came as a directory", "a:1", "f ./b", "b:d", None),
            ("a directory that did not come", "a:1", "d 41ed ./d", "", None),
            ("something came that was not told", "a:1", "", "b:2", None),
            ("something came that is told to be gone", "a:1", "g ./a", "a:2", None),
            ("a change of what was not told to be one", "a:1", "", "a:2", None),
            ("a directory that was not told", "a:1", "f ./d/b", "d:? d/b:2", None),
            ("a directory that is a file in the base", "d:1", "f ./d/b", "d:? d/b:2", None),
            ("a directory is gone and its file is not", "d:d d/b:2", "g ./d", "", None),
            ("a directory became a file and its file stays", "d:d d/b:2", "f ./d", "d:3", None),
            ("a directory became a device and its file stays", "d:d d/b:2", "s ./d", "", None),
        ];
        for (name, base, told, came, expected) in cases {
            let whole = changes(told).whole(
                &tree(base),
                tree(came),
                &Filter::by_name(|path| path.as_bytes() == b"over"),
            );
            assert_eq!(whole, expected.map(tree), "{name}");
        }
    }
}
