//! Recognises the paths of a tree that belong to git, from the paths alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::fs::Kind;
use crate::path::{PathFault, RelativePath};
use crate::sync::lock;

/// The name of a repository's folder.
pub const DOT_GIT: &[u8] = b".git";

/// Whether some file system takes a name for `.git`: in any case, with code points that HFS+ and Linux's case
/// folding ignore, in full-width letters, with what Windows drops at the end of a name, or as its short name
/// `git~1`.
#[must_use]
pub fn is_git_name(name: &[u8]) -> bool {
    if name == DOT_GIT {
        return true;
    }
    // The shortest spelling has four characters.
    if name.len() < 4 {
        return false;
    }
    // Nearly all names are of ASCII alone, which has nothing to be ignored.
    if name.is_ascii() {
        return matches!(name[0], b'.' | b'g' | b'G') && is_plain_git_name(name);
    }
    let Ok(text) = std::str::from_utf8(name) else {
        // A volume that only accepts text has no such name, and one that accepts bytes does not change them.
        return false;
    };
    let plain: String = text.chars().filter(|&c| !is_ignored(c)).map(narrow).collect();
    is_plain_git_name(plain.as_bytes())
}

/// Whether some file system takes a name for `.git` that has no code point to be ignored.
fn is_plain_git_name(name: &[u8]) -> bool {
    // On Windows a name ends at a colon (a stream), without the dots and spaces before it, and tools take `\` for `/`.
    let mut first = name.split(|byte| matches!(byte, b'\\' | b':')).next().unwrap_or_default();
    while let [rest @ .., b'.' | b' '] = first {
        first = rest;
    }
    first.eq_ignore_ascii_case(DOT_GIT) || first.eq_ignore_ascii_case(b"git~1")
}

/// Code points that some file systems ignore when they compare names.
fn is_ignored(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The usual form of a full-width character, for which a volume with compatibility normalization takes it.
fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

/// Whether a path belongs to git: it is a `.git`, or below one.
#[must_use]
pub fn is_gits(path: &RelativePath) -> bool {
    path.as_bytes().split(|&byte| byte == b'/').any(is_git_name)
}

/// A path of a checkout as one of the workspace. `folder` is the checkout's folder, unless that is the workspace itself. An empty
/// path is that folder.
pub fn in_checkout(folder: Option<&RelativePath>, path: &[u8]) -> Result<Option<RelativePath>, PathFault> {
    match folder {
        Some(folder) => RelativePath::parse(&[folder.as_bytes(), b"/", path].concat()),
        None if path.is_empty() => Ok(None),
        None => RelativePath::parse(path),
    }
}

/// A path that belongs to git, split at its first `.git`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside<'a> {
    /// The checkout's folder; empty for the workspace itself.
    pub checkout: &'a [u8],
    /// The name that belongs to git, as it is spelled.
    pub name: &'a [u8],
    /// What follows it; empty for the repository's folder itself.
    pub inner: &'a [u8],
}

/// Splits a path that belongs to git; `None` for any other path.
#[must_use]
pub fn inside(path: &RelativePath) -> Option<Inside<'_>> {
    let bytes = path.as_bytes();
    let mut start = 0;
    for name in bytes.split(|&byte| byte == b'/') {
        let end = start + name.len();
        if is_git_name(name) {
            return Some(Inside {
                checkout: &bytes[..start.saturating_sub(1)],
                name,
                inner: bytes.get(end + 1..).unwrap_or_default(),
            });
        }
        start = end + 1;
    }
    None
}

/// The folders that git would take for bare repositories; `None` is the root of the tree itself.
pub type BareFolders = BTreeSet<Option<RelativePath>>;

/// The names that make a folder a bare repository, in any spelling that a volume may fold.
pub const MARKERS: [&[u8]; 4] = [b"HEAD", b"objects", b"refs", b"commondir"];

/// The path of a folder of the workspace in a checkout, if it is in it: empty for the checkout itself.
#[must_use]
pub fn inner<'f>(checkout: Option<&RelativePath>, folder: &'f [u8]) -> Option<&'f [u8]> {
    let Some(checkout) = checkout else { return Some(folder) };
    match folder.strip_prefix(checkout.as_bytes())? {
        [] => Some(&[]),
        [b'/', inner @ ..] => Some(inner),
        _ => None,
    }
}

/// Whether a name at the top of a folder is one of those that make it a bare repository.
#[must_use]
pub fn is_bare_marker(name: &[u8]) -> bool {
    MARKERS.iter().any(|marker| name.eq_ignore_ascii_case(marker))
}

/// The folders that git would take for bare repositories among the files at these paths.
#[must_use]
pub fn bare_folders_of_files<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> BareFolders {
    let mut entries: BTreeMap<RelativePath, Kind> = BTreeMap::new();
    for file in files {
        let mut start = 0;
        for name in file.split(|&byte| byte == b'/') {
            let end = start + name.len();
            if is_bare_marker(name)
                && let Ok(Some(path)) = RelativePath::parse(&file[..end])
            {
                let kind = if end == file.len() { Kind::File } else { Kind::Folder };
                entries.insert(path, kind);
            }
            start = end + 1;
        }
    }
    bare_folders(entries.iter().map(|(path, kind)| (path, *kind)))
}

/// Finds the folders that git would take for bare repositories, by the names in them: a `HEAD` beside `objects` and `refs`,
/// or beside a `commondir`.
///
/// Git only requires that `objects` and `refs` can be entered or executed, so files of that name count.
pub fn bare_folders<'a>(entries: impl IntoIterator<Item = (&'a RelativePath, Kind)>) -> BareFolders {
    const HEAD: u8 = 1;
    const OBJECTS: u8 = 2;
    const REFS: u8 = 4;
    const COMMONDIR: u8 = 8;
    let mut seen: BTreeMap<&[u8], u8> = BTreeMap::new();
    for (path, kind) in entries {
        let (folder, name) = path.split();
        let name = name.as_encoded_bytes();
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let part = if is(b"HEAD") && kind != Kind::Folder {
            HEAD
        } else if is(b"objects") {
            OBJECTS
        } else if is(b"refs") {
            REFS
        } else if is(b"commondir") && kind != Kind::Folder {
            COMMONDIR
        } else {
            continue;
        };
        *seen.entry(folder).or_default() |= part;
    }
    let is_bare = |parts: u8| {
        let has = |part: u8| parts & part == part;
        has(HEAD | OBJECTS | REFS) || has(HEAD | COMMONDIR)
    };
    seen.into_iter()
        .filter(|&(_, parts)| is_bare(parts))
        .map(|(folder, _)| RelativePath::parse(folder).ok().flatten())
        .collect()
}

/// Excludes paths that belong to git from a scan, and collects the paths of checkouts.
#[derive(Debug, Default)]
pub struct Checkouts(Mutex<BTreeSet<RelativePath>>);

impl Checkouts {
    /// Whether a scan excludes the path, because it belongs to git.
    pub fn leaves_out(&self, path: &RelativePath) -> bool {
        let name = path.name().as_encoded_bytes();
        if !is_git_name(name) {
            return false;
        }
        if name == DOT_GIT {
            lock(&self.0).insert(path.clone());
        }
        true
    }

    /// The paths of the excluded `.git`, in the order of their bytes.
    #[must_use]
    pub fn found(self) -> Vec<RelativePath> {
        let found = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn bare_repositories_are_found_among_files() {
        for (files, expected) in [
            (&["x/HEAD", "x/config", "x/objects/a", "x/refs/heads/a"][..], &["x"][..]),
            (&["a/b/head", "a/b/Objects/x", "a/b/REFS/y"], &["a/b"]),
            (&["x/HEAD", "x/commondir"], &["x"]),
            (&["x/HEAD", "x/objects/a"], &[]),
            (&["x/HEAD/a", "x/objects/a", "x/refs/a"], &[]),
            (&["x/HEAD", "y/objects/a", "y/refs/a"], &[]),
            (&["x/HEAD", "x/objects", "x/refs"], &["x"]),
        ] {
            let found = bare_folders_of_files(files.iter().map(|file| file.as_bytes()));
            let found: Vec<_> = found.into_iter().flatten().map(|path| path.to_string()).collect();
            assert_eq!(found, expected, "{files:?}");
        }
        let top = ["HEAD", "objects/a", "refs/a"].map(str::as_bytes);
        assert!(bare_folders_of_files(top).contains(&None));
    }

    #[test]
    fn every_spelling_of_the_name_is_gits() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            ".gi\u{200c}t",
            "\u{feff}.git",
            ".git\u{e0041}",
            ".git.",
            ".git ",
            ".git . .",
            ".git::$INDEX_ALLOCATION",
            ".GIT:stream",
            "git~1",
            "GIT~1",
            "GIT~1.",
            ".git\\config",
            "\u{ff0e}\u{ff47}\u{ff49}\u{ff54}",
            ".\u{ff27}it",
        ] {
            assert!(is_git_name(name.as_bytes()), "{name:?}");
        }
        for name in [
            "git",
            ".gi",
            ".gitignore",
            ".gitattributes",
            ".gitmodules",
            ".git2",
            "x.git",
            ".github",
            "git~2",
            "..git",
            ".git_",
            ".gi\u{131}t",
            "...",
            " .git",
        ] {
            assert!(!is_git_name(name.as_bytes()), "{name:?}");
        }
        assert!(!is_git_name(b".gi\xfft"));
    }

    #[test]
    fn a_path_is_split_at_its_first_dot_git() {
        let parts = |text: &str| {
            let path = path(text);
            inside(&path).map(|inside| {
                [inside.checkout, inside.name, inside.inner]
                    .map(|part| String::from_utf8(part.to_vec()).unwrap())
            })
        };
        let some = |a: &str, b: &str, c: &str| Some([a.to_owned(), b.to_owned(), c.to_owned()]);
        assert_eq!(parts(".git"), some("", ".git", ""));
        assert_eq!(parts(".git/config"), some("", ".git", "config"));
        assert_eq!(parts("a/b/.git/modules/x/.git"), some("a/b", ".git", "modules/x/.git"));
        assert_eq!(parts("a/.GIT/hooks/x"), some("a", ".GIT", "hooks/x"));
        assert_eq!(parts("a/.gitignore"), None);
        assert!(is_gits(&path("a/.git/x")) && !is_gits(&path("a/git/x")));
    }

    #[test]
    fn a_folder_is_bare_by_the_names_in_it() {
        let cases: &[(&[(&str, Kind)], bool)] = &[
            (&[("HEAD", Kind::File), ("objects", Kind::Folder), ("refs", Kind::Folder)], true),
            (&[("HEAD", Kind::Symlink), ("objects", Kind::Symlink), ("refs", Kind::Symlink)], true),
            (&[("head", Kind::File), ("Objects", Kind::Folder), ("REFS", Kind::Folder)], true),
            (&[("HEAD", Kind::File), ("commondir", Kind::File)], true),
            (&[("HEAD", Kind::File), ("objects", Kind::Folder)], false),
            (&[("HEAD", Kind::File), ("refs", Kind::Folder)], false),
            (&[("objects", Kind::Folder), ("refs", Kind::Folder)], false),
            (&[("HEAD", Kind::Folder), ("objects", Kind::Folder), ("refs", Kind::Folder)], false),
            // Git only checks that it may execute them.
            (&[("HEAD", Kind::File), ("objects", Kind::File), ("refs", Kind::File)], true),
            (&[("commondir", Kind::File), ("objects", Kind::Folder), ("refs", Kind::Folder)], false),
        ];
        for (names, bare) in cases {
            for folder in ["a/b", ""] {
                let entries: Vec<_> = names
                    .iter()
                    .map(|(name, kind)| (path(format!("{folder}/{name}").trim_start_matches('/')), *kind))
                    .collect();
                let found = bare_folders(entries.iter().map(|(path, kind)| (path, *kind)));
                let expected = RelativePath::parse(folder.as_bytes()).ok().flatten();
                assert_eq!(found.contains(&expected), *bare, "{folder:?} {names:?}");
            }
        }
    }

    #[test]
    fn a_scan_remembers_checkouts_and_leaves_every_spelling_out() {
        let checkouts = Checkouts::default();
        for (text, out) in
            [(".git", true), ("a", false), ("a/.git", true), ("b/.GIT", true), ("a/.gitignore", false)]
        {
            assert_eq!(checkouts.leaves_out(&path(text)), out, "{text}");
        }
        assert_eq!(checkouts.found(), [path(".git"), path("a/.git")]);
    }
}
