//! A path below a root. It is checked once, where it comes in, and trusted afterwards.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::readable;

/// The longest file name that the hosts' file systems allow (`NAME_MAX`), in bytes.
pub const NAME_MAX: usize = 255;
/// The longest path that a system call accepts, without its closing NUL (`PATH_MAX` - 1 on Linux), in bytes.
pub const PATH_MAX: usize = 4095;

/// The bytes of a system path.
#[must_use]
pub fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A system path from its bytes.
#[must_use]
pub fn path_from(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The control character that a letter behind a backslash stands for in a quoted name, as C, git and GNU tar write it.
#[must_use]
pub fn control_of(letter: u8) -> Option<u8> {
    Some(match letter {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        _ => return None,
    })
}

/// The byte that three octal digits behind a backslash stand for, of which the first is one from `0` to `3`. `None` if the others
/// are none.
pub fn octal_of(first: u8, rest: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || rest.next().filter(|digit| (b'0'..=b'7').contains(digit)).map(|digit| digit - b'0');
    Some((first - b'0') << 6 | digit()? << 3 | digit()?)
}

/// A relative path: names joined by single `/`. No name is empty, `.` or `..`, or too long for a file system,
/// and none contains NUL. All other bytes are allowed. It is never the root itself.
///
/// A clone shares the bytes, because the same path is in many maps of one merge.
///
/// Paths are ordered by their bytes, so a folder comes before its content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Arc<[u8]>);

/// Why bytes are not a [`RelativePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It is empty.
    #[error("an empty name")]
    Empty,
    /// It begins with `/`.
    #[error("an absolute path; only paths below the workspace are accepted")]
    Absolute,
    /// One of its names is `..`.
    #[error("'..' would lead out of the workspace")]
    Parent,
    /// It contains a NUL byte.
    #[error("a NUL byte, which no file name can contain")]
    Nul,
    /// One of its names, or the whole path, is longer than a file system allows.
    #[error("longer than a file system allows (255 bytes for a name, 4095 in total)")]
    TooLong,
}

/// Whether these are the bytes of a relative path in its shortest form.
fn is_shortest(bytes: &[u8]) -> bool {
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAX;
    bytes.len() <= PATH_MAX && !bytes.contains(&0) && bytes.split(|&byte| byte == b'/').all(is_name)
}

impl RelativePath {
    /// Checks a path from outside. `.` and empty names between slashes have no meaning and are dropped, as
    /// every tar and file system does. `Ok(None)` is the root itself (`.`, `./`).
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, PathFault> {
        if is_shortest(bytes) {
            return Ok(Some(Self(bytes.into())));
        }
        if bytes.is_empty() {
            return Err(PathFault::Empty);
        }
        if bytes[0] == b'/' {
            return Err(PathFault::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathFault::Nul);
        }
        let mut clean = Vec::with_capacity(bytes.len());
        for name in bytes.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(PathFault::Parent),
                _ if name.len() > NAME_MAX => return Err(PathFault::TooLong),
                _ => {}
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(name);
        }
        if clean.len() > PATH_MAX {
            return Err(PathFault::TooLong);
        }
        Ok((!clean.is_empty()).then(|| Self(clean.into())))
    }

    /// The path of a name from a folder listing, below `parent` (`None`: the root).
    #[must_use]
    pub fn child(parent: Option<&Self>, name: &[u8]) -> Self {
        debug_assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0));
        match parent {
            None => Self(name.into()),
            Some(parent) => Self([&parent.0, &b"/"[..], name].concat().into()),
        }
    }

    /// The path of `below` inside this folder.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self([&self.0, &b"/"[..], &below.0].concat().into())
    }

    /// The new path after the folder `from`, or the path itself, was moved to `to`. `None` if it is not in
    /// that.
    #[must_use]
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&*from.0)?;
        (rest.is_empty() || rest[0] == b'/').then(|| Self([&to.0, rest].concat().into()))
    }

    /// The same path with `suffix` appended to its name.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        debug_assert!(!suffix.contains(['/', '\0']));
        Self([&self.0, suffix.as_bytes()].concat().into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path, for the standard library.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        path_from(&self.0)
    }

    /// Its folder; `None` is the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (folder, _) = self.split();
        (!folder.is_empty()).then(|| Self(folder.into()))
    }

    /// Its folder (empty for the root) and its last name.
    #[must_use]
    pub fn split(&self) -> (&[u8], &OsStr) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            None => (&[], OsStr::from_bytes(&self.0)),
            Some(slash) => (&self.0[..slash], OsStr::from_bytes(&self.0[slash + 1..])),
        }
    }

    /// Its first name.
    #[must_use]
    pub fn top(&self) -> &[u8] {
        self.0.split(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Its last name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        self.split().1
    }

    /// The folders above it, outermost first, without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.ancestors_beyond(&[])
    }

    /// The folders above it, outermost first, without the folder `known` and those above that.
    pub fn ancestors_beyond<'a>(&'a self, known: &'a [u8]) -> impl Iterator<Item = Self> + 'a {
        let shared = self.0.iter().zip(known).take_while(|(here, there)| here == there).count();
        let slashes = self.0.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(slash, _)| slash);
        slashes
            .filter(move |&slash| slash > shared || known.get(slash).is_some_and(|&byte| byte != b'/'))
            .map(|slash| Self(self.0[..slash].into()))
    }

    /// Whether it is `other` or is below it.
    #[must_use]
    pub fn is_or_below(&self, other: &[u8]) -> bool {
        self.0.strip_prefix(other).is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'/'))
    }

    /// Whether it is below `other`.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.len() > other.0.len() && self.is_or_below(&other.0)
    }
}

impl Serialize for RelativePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelativePath {
    /// Accepts only a relative path in its shortest form.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        if is_shortest(bytes) {
            return Ok(Self(bytes.into()));
        }
        Err(D::Error::custom("not a relative path in its shortest form"))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&readable(&self.0))
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", readable(&self.0))
    }
}

impl Borrow<[u8]> for RelativePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Values by path, sorted by the bytes of the paths. For lists that are built once and read often.
#[derive(Debug, Clone)]
pub struct ByPath<T>(Vec<(RelativePath, T)>);

impl<T> ByPath<T> {
    /// The value at a path.
    #[must_use]
    pub fn get(&self, path: &RelativePath) -> Option<&T> {
        self.in_order().find(path)
    }

    /// Finds several values, fastest if they are looked up in order of their paths.
    #[must_use]
    pub fn in_order(&self) -> InOrder<'_, T> {
        InOrder { items: &self.0, at: 0 }
    }

    /// All values in order.
    pub fn iter(&self) -> impl Iterator<Item = &(RelativePath, T)> {
        self.0.iter()
    }

    /// Keeps only the values for which `test` is true.
    pub fn retain(&mut self, mut test: impl FnMut(&RelativePath, &T) -> bool) {
        self.0.retain(|(path, value)| test(path, value));
    }
}

impl<T> Default for ByPath<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(RelativePath, T)> for ByPath<T> {
    fn from_iter<I: IntoIterator<Item = (RelativePath, T)>>(items: I) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        // They are usually sorted already, and sorting takes memory even then.
        if !items.is_sorted_by(|a, b| a.0 <= b.0) {
            items.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Self(items)
    }
}

/// A cursor into a [`ByPath`].
#[derive(Debug)]
pub struct InOrder<'a, T> {
    items: &'a [(RelativePath, T)],
    /// Where the last path was found, or would be.
    at: usize,
}

impl<'a, T> InOrder<'a, T> {
    /// The value at a path.
    pub fn find(&mut self, path: &RelativePath) -> Option<&'a T> {
        let is_reached = |at: usize| self.items.get(at).is_some_and(|(there, _)| there <= path);
        let mut from = if is_reached(self.at) { self.at } else { 0 };
        // In growing steps, because the next path is usually near.
        let mut step = 1;
        while is_reached(from + step) {
            from += step;
            step *= 2;
        }
        let end = self.items.len().min(from + step);
        self.at = from + self.items[from..end].partition_point(|(there, _)| there < path);
        self.items.get(self.at).filter(|(there, _)| there == path).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_any_order() {
        let path = |number: usize| RelativePath::parse(format!("{number:04}").as_bytes()).unwrap().unwrap();
        for length in [0, 1, 2, 3, 7, 64, 100] {
            // Every second path has a value.
            let values: ByPath<usize> = (0..length).rev().map(|at| (path(at * 2 + 1), at * 2 + 1)).collect();
            for stride in [1, 3, 17, length * 2 + 1, length + 1] {
                let mut in_order = values.in_order();
                for step in 0..=length * 2 {
                    let number = step * stride % (length * 2 + 2);
                    let expected = (number % 2 == 1 && number < length * 2).then_some(number);
                    assert_eq!(in_order.find(&path(number)).copied(), expected, "{number} of {length}");
                    assert_eq!(values.get(&path(number)).copied(), expected);
                }
            }
        }
    }

    fn parsed(text: &str) -> Result<Option<String>, PathFault> {
        RelativePath::parse(text.as_bytes()).map(|path| path.map(|path| path.to_string()))
    }

    #[test]
    fn paths_are_normalized_and_unsafe_ones_refused() {
        let long = "x".repeat(256);
        let deep = "d/".repeat(5000);
        for (text, outcome) in [
            ("a", Ok(Some("a"))),
            ("./a//b/./c/", Ok(Some("a/b/c"))),
            ("a\\b\nc", Ok(Some("a\\b\nc"))),
            ("...", Ok(Some("..."))),
            (".", Ok(None)),
            ("./", Ok(None)),
            ("", Err(PathFault::Empty)),
            ("/", Err(PathFault::Absolute)),
            ("/etc/passwd", Err(PathFault::Absolute)),
            ("a/../b", Err(PathFault::Parent)),
            ("..", Err(PathFault::Parent)),
            ("a\0b", Err(PathFault::Nul)),
            (&long, Err(PathFault::TooLong)),
            (&deep, Err(PathFault::TooLong)),
        ] {
            assert_eq!(parsed(text), outcome.map(|path| path.map(String::from)), "{text:?}");
        }
    }

    #[test]
    fn folders_above_and_below_a_path_are_told_by_its_names() {
        let path = RelativePath::parse(b"a/b/c").unwrap().unwrap();
        assert_eq!(path.name(), "c");
        assert_eq!(path.parent().unwrap().to_string(), "a/b");
        let names = |paths: Vec<RelativePath>| paths.iter().map(RelativePath::to_string).collect::<Vec<_>>();
        assert_eq!(names(path.ancestors().collect()), ["a", "a/b"]);
        for (known, beyond) in [
            ("", &["a", "a/b"][..]),
            ("a", &["a/b"]),
            ("a/x", &["a/b"]),
            ("a/b", &[]),
            ("a/b/c", &[]),
            ("a/b2", &["a/b"]),
            ("ab", &["a", "a/b"]),
        ] {
            assert_eq!(names(path.ancestors_beyond(known.as_bytes()).collect()), beyond, "beyond {known:?}");
        }
        assert!(path.is_or_below(b"a/b") && path.is_or_below(b"a/b/c") && !path.is_or_below(b"a/bc"));
        assert!(!path.is_or_below(b"a/b/c/d") && !path.is_below(&path));
        assert!(RelativePath::parse(b"a").unwrap().unwrap().parent().is_none());
        for (from, moved) in
            [("a", Some("x/b/c")), ("a/b", Some("x/c")), ("a/b/c", Some("x")), ("a/bb", None), ("b", None)]
        {
            let [from, to] = [from, "x"].map(|text| RelativePath::parse(text.as_bytes()).unwrap().unwrap());
            assert_eq!(path.moved(&from, &to).map(|path| path.to_string()).as_deref(), moved, "from {from}");
        }
    }
}
