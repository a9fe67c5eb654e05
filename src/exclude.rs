//! Exclude patterns with the meaning of GNU tar's `--exclude`, and sets of exact paths.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;

use crate::error::{Error, Result, readable};
use crate::path::{PathFault, RelativePath};

/// Exclude patterns. Each has the meaning that `tar -C dir --exclude=PATTERN .` has with GNU tar, which names
/// the paths `./name`:
///
/// - A pattern matches from the start of a path or of any name in it, up to the end of any name. So a pattern
///   that matches a folder matches everything below it. Case counts.
/// - A path starts with its `./`. So `./dir` matches only the top-level one, and `*/dir` every one.
/// - `*` matches any number of bytes and `?` one byte, `/` included. So `dir/*` excludes the content of
///   `dir`, but not `dir`.
/// - `[…]` matches one byte of a set: bytes, ranges, classes such as `[:digit:]`; `!` or `^` in front negates
///   it. A set without its `]` is an ordinary `[`.
/// - `\` removes the special meaning of what follows. At the end of a pattern it stands for itself if the
///   pattern has no wildcard; otherwise the pattern matches nothing.
/// - A pattern that ends in `/`, or is empty, matches nothing.
///
/// One difference: a pattern that matches `.`, the folder itself (`.`, `?`, `*`, `.*`), makes tar's archive
/// empty. Here it is matched against the path without its `./`.
///
/// A tar that gets the same patterns with names that lack the `./` excludes the same or less, never more.
///
/// This is what tar does in the C locale. There `?` and a set match one byte of a multi-byte character; in a
/// UTF-8 locale they can also match the whole character. Bytes are used because a pattern must exclude the
/// same files in every locale of the host, and names need not be UTF-8. Patterns of text and `*` mean the
/// same in both.
#[derive(Debug, Clone, Default)]
pub struct ExcludePatterns {
    /// Matched against `./path`.
    dotted: Patterns,
    /// Those that match `.`: matched against `path`.
    bare: Patterns,
}

impl ExcludePatterns {
    /// Compiles patterns. They may be any bytes.
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut compiled = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let mut alone = Patterns::default();
            alone.add(pattern);
            let set = if alone.matches(b".") { &mut compiled.bare } else { &mut compiled.dotted };
            set.add(pattern);
        }
        compiled
    }

    /// Whether a pattern matches the path or a folder above it, so the path is excluded.
    #[must_use]
    pub fn matches(&self, path: &RelativePath) -> bool {
        let path = path.as_bytes();
        self.matches_dotted(path) || self.bare.matches(path)
    }

    /// Whether a pattern matches `./path`. (Most paths fit a buffer on the stack: this is asked of every entry.)
    fn matches_dotted(&self, path: &[u8]) -> bool {
        let mut buffer = [0; 256];
        let Some(dotted) = buffer.get_mut(..path.len() + 2) else {
            return self.dotted.matches(&[b"./", path].concat());
        };
        dotted[..2].copy_from_slice(b"./");
        dotted[2..].copy_from_slice(path);
        self.dotted.matches(dotted)
    }
}

/// Patterns sorted by how they are looked up.
#[derive(Debug, Clone, Default)]
struct Patterns {
    /// `text` and `text*`, by their first byte: looked up where a name starts.
    heads: ByByte<Head>,
    /// The text of `*text`, by its last byte: looked up where a name ends.
    tails: ByByte<Box<[u8]>>,
    /// `*text*`, by the text's pivot: looked up everywhere.
    parts: ByByte<Part>,
    /// All other patterns, as they were given.
    general: Vec<Box<[u8]>>,
}

/// A pattern that begins with text, which is free of escapes.
#[derive(Debug, Clone)]
struct Head {
    text: Box<[u8]>,
    /// Whether a star follows the text.
    open: bool,
}

impl Patterns {
    fn add(&mut self, pattern: &[u8]) {
        let stars = pattern.iter().take_while(|&&byte| byte == b'*').count();
        let (mut text, mut rest) = split_text(&pattern[stars..]);
        // Tar compares a pattern without wildcards itself, and then a backslash at its end is an ordinary
        // one.
        if stars == 0 && rest == b"\\" {
            text.extend_from_slice(rest);
            rest = b"";
        }
        let open = !rest.is_empty();
        match (text.first(), text.last()) {
            (Some(&first), Some(&last)) if rest.iter().all(|&byte| byte == b'*') => match (stars > 0, open) {
                (false, _) => self.heads.add(first, Head { text: text.into(), open }),
                (true, false) => self.tails.add(last, text.into()),
                (true, true) => {
                    let part = Part::new(&text);
                    self.parts.add(text[part.pivot], part);
                }
            },
            _ => self.general.push(pattern.into()),
        }
    }

    fn matches(&self, path: &[u8]) -> bool {
        names(path).any(|(start, end)| {
            self.heads.get(path[start]).iter().any(|head| head.matches(&path[start..]))
                || self.tails.get(path[end - 1]).iter().any(|text| path[..end].ends_with(text))
        }) || (!self.parts.is_empty()
            && (0..path.len()).any(|at| self.parts.get(path[at]).iter().any(|part| part.matches(path, at))))
            || self.general.iter().any(|pattern| matches_general(pattern, path))
    }
}

impl Head {
    fn matches(&self, path: &[u8]) -> bool {
        path.strip_prefix(&*self.text).is_some_and(|rest| self.open || matches!(rest, [] | [b'/', ..]))
    }
}

/// A text that a pattern has between two stars.
#[derive(Debug, Clone)]
struct Part {
    text: Box<[u8]>,
    /// The offset of the byte in the text by which it is filed: the first one that is not `/`, because every
    /// path has those.
    pivot: usize,
}

impl Part {
    fn new(text: &[u8]) -> Self {
        Self { text: text.into(), pivot: text.iter().position(|&byte| byte != b'/').unwrap_or(0) }
    }

    /// Whether the path contains the text with its pivot at `at`.
    fn matches(&self, path: &[u8], at: usize) -> bool {
        at.checked_sub(self.pivot).is_some_and(|start| path[start..].starts_with(&self.text))
    }
}

/// Values filed by a byte, so that one lookup shows that there are none. Takes no memory while it is empty.
#[derive(Debug, Clone)]
struct ByByte<T>(Vec<Vec<T>>);

impl<T> Default for ByByte<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByByte<T> {
    fn add(&mut self, byte: u8, value: T) {
        self.0.resize_with(256, Vec::new);
        self.0[usize::from(byte)].push(value);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, byte: u8) -> &[T] {
        self.0.get(usize::from(byte)).map_or(&[], Vec::as_slice)
    }
}

/// The start and end of each name in a path.
fn names(path: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    path.split(|&byte| byte == b'/').scan(0, |next, name| {
        let start = *next;
        *next = start + name.len() + 1;
        Some((start, start + name.len()))
    })
}

/// A pattern's text up to its first wildcard, without escapes, and the rest: empty, or starting with a
/// wildcard, or the single backslash at the end of the pattern.
fn split_text(pattern: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut text = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    loop {
        rest = match rest {
            [] | [b'*' | b'?' | b'[', ..] | [b'\\'] => return (text, rest),
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        };
    }
}

/// Whether the pattern matches the path from the start of one of its names.
fn matches_general(pattern: &[u8], path: &[u8]) -> bool {
    for (start, _) in names(path) {
        match attempt(pattern, &path[start..]) {
            Attempt::Matched => return true,
            // The star could reach every later start, so those have been tried already. There is one
            // exception: from another start, an undefined set can match with another length. A set with `-[`,
            // such as `[.-^*-[:alpha:]`, may end in different places for different bytes.
            Attempt::FailedPastStar if !pattern.windows(2).any(|pair| pair == b"-[") => return false,
            Attempt::Failed | Attempt::FailedPastStar => {}
        }
    }
    false
}

/// The outcome of matching from one start.
enum Attempt {
    Matched,
    /// Failed before a star was reached.
    Failed,
    /// Failed with every length of a star.
    FailedPastStar,
}

/// Matches a pattern against text, from its start up to its end or a `/` in it.
///
/// Only the last star that was reached is tried with other lengths: with the shortest lengths for those
/// before it, it has as much room as any other lengths could give. So the work is at most the product of the
/// two sizes, times the size of a set.
fn attempt(pattern: &[u8], text: &[u8]) -> Attempt {
    let (mut at, mut read) = (0, 0);
    // What follows the last star in the pattern, and where the text continues after what that star has
    // matched.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let next = match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, read));
                continue;
            }
            Some(_) => text.get(read).and_then(|&byte| past_one(pattern, at, byte)),
            None if matches!(text[read..], [] | [b'/', ..]) => return Attempt::Matched,
            None => None,
        };
        match (next, &mut star) {
            (Some(next), _) => (at, read) = (next, read + 1),
            (None, None) => return Attempt::Failed,
            (None, Some((_, resume))) if *resume == text.len() => return Attempt::FailedPastStar,
            (None, Some((after, resume))) => {
                *resume += 1;
                // If text follows the star, only its first byte is tried.
                if let Some(first) = pattern.get(*after).filter(|byte| !b"?[\\".contains(byte)) {
                    *resume += text[*resume..].iter().take_while(|&byte| byte != first).count();
                }
                (at, read) = (*after, *resume);
            }
        }
    }
}

/// Matches what is at `at` in the pattern, which is not a star, against one byte. Returns what follows in the
/// pattern if it matches.
fn past_one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern[at] {
        b'?' => Some(at + 1),
        b'[' => past_set(pattern, at, byte),
        b'\\' => (pattern.get(at + 1) == Some(&byte)).then_some(at + 2),
        literal => (literal == byte).then_some(at + 1),
    }
}

/// Matches the set that begins with the `[` at `open`, as [`past_one`] does.
fn past_set(pattern: &[u8], open: usize, byte: u8) -> Option<usize> {
    match read_set(pattern, open, byte) {
        Ok(next) => next,
        Err(Flaw::Unclosed) => (byte == b'[').then_some(open + 1),
        Err(Flaw::Broken) => None,
    }
}

/// Why a `[` does not begin a set.
enum Flaw {
    /// The pattern ends before the `]`, so the `[` is an ordinary one.
    Unclosed,
    /// Something in it has no meaning, so nothing matches it.
    Broken,
}

/// Reads a set. Sets that POSIX leaves undefined are read as the C library under GNU tar reads them: members
/// up to the first one that equals the byte, and after that only what is needed to find the `]`.
fn read_set(pattern: &[u8], open: usize, byte: u8) -> Result<Option<usize>, Flaw> {
    let negated = matches!(pattern.get(open + 1), Some(b'!' | b'^'));
    let mut at = open + 1 + usize::from(negated);
    loop {
        let (is_member, end) = read_member(pattern, at, byte)?;
        if is_member {
            let after = close_set(pattern, end)?;
            return Ok((!negated).then_some(after));
        }
        // Only after a member: a `]` that comes first is a member itself.
        if pattern.get(end) == Some(&b']') {
            return Ok(negated.then_some(end + 1));
        }
        at = end;
    }
}

/// Reads the member at `at`: whether it contains the byte, and where it ends.
fn read_member(pattern: &[u8], at: usize, byte: u8) -> Result<(bool, usize), Flaw> {
    match pattern[at..] {
        [b'[', b'=', same, b'=', b']', ..] => return Ok((same == byte, at + 5)),
        [b'[', b':', ..] => {
            if let Some((name, end)) = class_name(pattern, at) {
                return Ok((is_in_class(name, byte)?, end));
            }
        }
        [b'[', b'.', ..] => {
            let (low, end) = read_symbol(pattern, at)?;
            return if pattern[end..].starts_with(b"-]") {
                // It is taken for a range, which then has no end. So the symbol is lost and the `-` is a
                // member.
                Ok((false, end))
            } else {
                read_range(pattern, low, end, byte)
            };
        }
        _ => {}
    }
    let (low, end) = read_byte(pattern, at)?;
    read_range(pattern, low, end, byte)
}

/// Continues at `at`, after a member of one byte: it is `low` alone, or the start of a range.
fn read_range(pattern: &[u8], low: u8, at: usize, byte: u8) -> Result<(bool, usize), Flaw> {
    let (high, end) = match pattern[at..] {
        [b'-'] if low != byte => return Err(Flaw::Broken),
        [b'-', b'[', b'.', ..] => read_symbol(pattern, at + 1)?,
        [b'-', next, ..] if next != b']' => read_byte(pattern, at + 1)?,
        _ => (low, at),
    };
    Ok(((low..=high).contains(&byte), end))
}

/// Reads one byte of a set, which may be escaped.
fn read_byte(pattern: &[u8], at: usize) -> Result<(u8, usize), Flaw> {
    match pattern[at..] {
        [] => Err(Flaw::Unclosed),
        [b'\\'] => Err(Flaw::Broken),
        [b'\\', byte, ..] => Ok((byte, at + 2)),
        [byte, ..] => Ok((byte, at + 1)),
    }
}

/// Reads the `[.x.]` at `at`. Only single bytes have such names.
fn read_symbol(pattern: &[u8], at: usize) -> Result<(u8, usize), Flaw> {
    match pattern[at..] {
        [_, _, byte, b'.', b']', ..] => Ok((byte, at + 5)),
        _ => Err(Flaw::Broken),
    }
}

/// The name in the `[:name:]` at `at`, and where that ends; `None` if the `[` is an ordinary one.
fn class_name(pattern: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = &pattern[at + 2..];
    // The C library does not include `z`, and no class has one in its name.
    let length = rest.iter().take_while(|byte| matches!(byte, b'a'..=b'y')).count();
    rest[length..].starts_with(b":]").then(|| (&rest[..length], at + 2 + length + 2))
}

/// Whether the byte is in the class of that name.
fn is_in_class(name: &[u8], byte: u8) -> Result<bool, Flaw> {
    Ok(match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte == b' ' || byte.is_ascii_graphic(),
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return Err(Flaw::Broken),
    })
}

/// Finds the end of a set from `at` on, after a member that matched.
fn close_set(pattern: &[u8], mut at: usize) -> Result<usize, Flaw> {
    loop {
        at = match pattern[at..] {
            [] => return Err(Flaw::Unclosed),
            [b']', ..] => return Ok(at + 1),
            [b'\\', _, ..] => at + 2,
            [b'[', b':', ..] => class_name(pattern, at).map_or(at + 1, |(_, end)| end),
            [b'[', b'=', _, b'=', b']', ..] => at + 5,
            [b'\\'] | [b'[', b'=', ..] => return Err(Flaw::Broken),
            [b'[', b'.', ..] => {
                let name = &pattern[at + 2..];
                let length = name.windows(2).position(|pair| pair == b".]").ok_or(Flaw::Broken)?;
                at + 2 + length + 2
            }
            _ => at + 1,
        };
    }
}

/// Paths, each of which stands for itself and everything below it.
#[derive(Debug, Clone, Default)]
pub struct PathSet(BTreeSet<RelativePath>);

impl PathSet {
    /// The set of these paths, in any spelling: `cache/`, `./cache` and `cache//x/..` are `cache`. A path
    /// that leads out of the folder, or to the folder itself, is refused; the error names `argument`.
    pub fn new(argument: &str, paths: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Self> {
        let path = |text: &[u8]| {
            normal(text).map_err(|reason| Error::InvalidArgValue {
                argument: argument.to_owned(),
                reason: format!(
                    "{reason}; pass paths below the directory, relative to it. Nothing was changed"
                ),
                received: readable(text),
            })
        };
        paths.into_iter().map(|text| path(text.as_ref())).collect::<Result<_>>().map(Self)
    }

    /// Adds the paths that patterns name when they are read as paths. A pattern that is not written like a
    /// [`RelativePath`] is ignored without an error.
    #[must_use]
    pub fn with_literal(mut self, patterns: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        self.0.extend(patterns.into_iter().filter_map(|text| {
            let text = text.as_ref();
            RelativePath::parse(text).ok().flatten().filter(|path| path.as_bytes() == text)
        }));
        self
    }

    /// The set of these paths.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = RelativePath>) -> Self {
        Self(paths.into_iter().collect())
    }

    /// Whether it has no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the path is a member or is below one.
    #[must_use]
    pub fn contains_or_covers(&self, path: &RelativePath) -> bool {
        let bytes = path.as_bytes();
        names(bytes).any(|(_, end)| self.0.contains(&bytes[..end]))
    }

    /// Whether a member is below the path.
    #[must_use]
    pub fn is_above(&self, path: &RelativePath) -> bool {
        let below = [path.as_bytes(), b"/"].concat();
        let first = self.0.range::<[u8], _>((Bound::Included(&below[..]), Bound::Unbounded)).next();
        first.is_some_and(|member| member.is_below(path))
    }

    /// The members, in byte order.
    pub fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        self.0.iter()
    }
}

/// What adapter-utils' releases since 2026.916 exclude from a snapshot. The pattern `x` names a path and
/// everything below it, `x/*` only what is below it, and `*/x` and `*/x/*` that path at any depth, the top
/// level included. Every other character stands for itself, a further star too.
#[derive(Debug, Clone, Default)]
pub struct SnapshotPatterns {
    paths: PathSet,
    /// Folders whose content is excluded.
    contents: PathSet,
    /// Single names that are excluded at any depth.
    names: HashSet<Box<[u8]>>,
    /// The same for several names in a row, with a `/` before and after.
    runs: Vec<Box<[u8]>>,
}

impl SnapshotPatterns {
    /// Sorts patterns by their form. A pattern that cannot be the path of an entry below a folder excludes
    /// nothing.
    #[must_use]
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut sorted = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            if let Some(anywhere) = pattern.strip_prefix(b"*/") {
                let run = anywhere.strip_suffix(b"/*").unwrap_or(anywhere);
                if run.contains(&b'/') {
                    sorted.runs.push([b"/", run, b"/"].concat().into());
                } else {
                    sorted.names.insert(run.into());
                }
            } else if let Some(folder) = pattern.strip_suffix(b"/*") {
                sorted.contents = sorted.contents.with_literal([folder]);
            } else {
                sorted.paths = sorted.paths.with_literal([pattern]);
            }
        }
        sorted
    }

    /// Whether the path is excluded.
    #[must_use]
    pub fn covers(&self, path: &RelativePath) -> bool {
        let bytes = path.as_bytes();
        names(bytes).any(|(start, end)| self.names.contains(&bytes[start..end]))
            || self.paths.contains_or_covers(path)
            || path.parent().is_some_and(|folder| self.contents.contains_or_covers(&folder))
            || (!self.runs.is_empty() && {
                let framed = [b"/", bytes, b"/"].concat();
                self.runs.iter().any(|run| framed.windows(run.len()).any(|part| part == &**run))
            })
    }
}

/// A path below a folder in its shortest spelling.
fn normal(text: &[u8]) -> Result<RelativePath, String> {
    if text.starts_with(b"/") {
        return Err(PathFault::Absolute.to_string());
    }
    let mut names = Vec::new();
    for name in text.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop().ok_or("it leads out of the directory")?;
            }
            name => names.push(name),
        }
    }
    if names.is_empty() {
        return Err("it names the directory itself".to_owned());
    }
    let path = RelativePath::parse(&names.join(&b'/')).map_err(|fault| fault.to_string())?;
    path.ok_or_else(|| unreachable!("there are names in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &[u8]) -> RelativePath {
        RelativePath::parse(text).unwrap().unwrap()
    }

    #[test]
    fn the_four_forms_of_a_snapshots_patterns() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("dist", &["dist", "dist/a", "dist/a/b"], &["dist2", "src/dist", "src/dist/a"]),
            ("a/b", &["a/b", "a/b/c"], &["a", "x/a/b"]),
            ("dist/*", &["dist/a", "dist/a/b"], &["dist", "src/dist/a"]),
            ("*/dist", &["dist", "dist/a", "src/dist", "a/b/dist/c"], &["dist2", "src/adist"]),
            ("*/dist/*", &["dist", "src/dist", "src/dist/a"], &["distance"]),
            ("*/a/b", &["a/b", "x/a/b", "x/a/b/c"], &["a", "xa/b", "a/bc", "a/x/b"]),
            ("*.log", &["*.log", "*.log/a"], &["x.log", "a/x.log"]),
            ("*", &["*"], &["a"]),
            ("cache/", &[], &["cache", "cache/a"]),
            ("./cache", &[], &["cache"]),
            ("../x", &[], &["x"]),
            ("", &[], &["a"]),
        ];
        for (pattern, covered, not_covered) in table {
            let patterns = SnapshotPatterns::new([pattern]);
            for name in *covered {
                assert!(patterns.covers(&path(name.as_bytes())), "{pattern} leaves out {name}");
            }
            for name in *not_covered {
                assert!(!patterns.covers(&path(name.as_bytes())), "{pattern} does not leave out {name}");
            }
        }
    }

    #[test]
    fn what_a_pattern_excludes_and_what_it_does_not() {
        let table: &[(&str, &[&str], &[&str])] = &[
            // Text: one whole name or several, anywhere, and what is below it.
            ("dist", &["dist", "dist/a", "a/dist", "a/dist/b/c"], &["dists", "adist", "a/dist2/b", "DIST"]),
            ("a/b", &["a/b", "a/b/c", "x/a/b/c"], &["a", "xa/b", "a/bc", "a/x/b"]),
            ("", &[], &["a", "a/b"]),
            ("dir/", &[], &["dir", "dir/a"]),
            ("/dir", &[], &["dir", "a/dir"]),
            // A path starts with its `./`.
            ("./x", &["x", "x/a"], &["a/x", "xa"]),
            ("./a/b", &["a/b", "a/b/c"], &["x/a/b", "b"]),
            ("./*", &["a", "a/b", ".a"], &[]),
            ("./*.log", &[".log", "a.log", "a/b.log"], &["log"]),
            ("./", &[], &["a", "a/b"]),
            ("./.", &[], &["a", ".a"]),
            ("././x", &[], &["x", "a/x"]),
            ("?/x", &["x", "a/x", "b/a/x"], &["ab/x"]),
            ("[.]/x", &["x"], &["a/x", "ax"]),
            ("\\./x", &["x"], &["a/x"]),
            (".*x", &["x", "ax", "a/x", ".x"], &["xa", "a"]),
            ("*.*x", &["x", "ax", "a/x"], &["a"]),
            // A pattern that matches the folder itself is matched against the path without its `./`.
            (".", &[], &["a", ".a", "a/b"]),
            (".*", &[".a", ".a/b", "a/.b"], &["a", "a.b"]),
            ("*.", &["a.", "a./b"], &["a", ".a"]),
            ("[.]", &[], &["a", ".a"]),
            ("[!a]", &["b", "b/c", "a/b"], &["a", "bb"]),
            // A star matches slashes and nothing as well.
            ("*", &["a", ".a", "a/b"], &[]),
            ("**", &["a", "a/b"], &[]),
            ("*/", &[], &["a", "a/b"]),
            ("*.log", &[".log", "a.log", "a/b.log", "a.log/b"], &["a.log2", "log", "a.logs/b"]),
            ("._*", &["._", "._a", "a/._b/c"], &["_a", "a._b", "a/b._"]),
            ("dir/*", &["dir/a", "x/dir/a", "dir/a/b"], &["dir", "x/dir", "xdir/a"]),
            ("*/dir", &["dir", "dir/a", "a/dir", "a/b/dir/c"], &["a/xdir", "xdir"]),
            ("*/dir/*", &["dir/b", "a/dir/b", "a/b/dir/c/d"], &["dir", "a/dir"]),
            ("*/*", &["a", "a/b"], &[]),
            ("*a//*", &[], &["a/b", "xa/b"]),
            ("*ab*", &["ab", "xaby", "x/yab/z"], &["a/b", "ba"]),
            ("a*c", &["ac", "abc", "a/b/c", "a/c/d", "x/ac"], &["a/cd", "xac", "a"]),
            ("*a*b", &["ab", "a/b", "xayb", "xab/c"], &["ba", "abc"]),
            ("a?c", &["abc", "a/c", "x/a.c/d"], &["ac", "abbc", "a"]),
            ("?", &["a", "a/bc", "ab/c"], &["ab", "ab/cd"]),
            ("*?", &["a", "a/b"], &[]),
            ("??*", &["a", "ab", "a/b"], &[]),
            // Sets.
            ("[ab]", &["a", "b/c", "x/a"], &["c", "ab", "[ab]"]),
            ("[a-c]x", &["ax", "bx", "cx"], &["dx", "-x", "x"]),
            ("[!a-c]", &["d", "-", "!"], &["a", "b", "dd"]),
            ("[^a]", &["b", "^"], &["a"]),
            ("a[/]b", &["a/b", "a/b/c"], &["ab"]),
            ("[]a]x", &["]x", "ax"], &["[]a]x"]),
            ("[!]a]x", &["bx", "!x"], &["]x", "ax"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[--0]x", &["-x", ".x", "0x"], &["ax", "1x"]),
            ("[c-a]", &[], &["a", "b", "c"]),
            ("[a!]", &["a", "!"], &["b"]),
            ("[a\\]b]", &["a", "]", "b"], &["\\", "c"]),
            ("[\\!a]", &["!", "a"], &["b", "\\"]),
            ("[a\\-c]", &["a", "-", "c"], &["b"]),
            ("[a-\\c]", &["a", "b", "c"], &["\\", "-"]),
            ("[[:digit:]]x", &["0x", "9x"], &["ax", ":x", "dx"]),
            ("[x[:upper:]_]", &["A", "Z", "x", "_"], &["a", ":", "["]),
            ("[![:space:]]", &["a"], &[" ", "\t", "\u{b}"]),
            ("[[:word:]a]", &[], &["a", "w", ":"]),
            ("[a[:word:]]", &["a"], &["w", ":]", "b"]),
            ("[x[:]", &["x", "[", ":"], &["a"]),
            ("[[=a=]b]", &["a", "b"], &["=", "c"]),
            ("[a[=b]", &["[", "=", "b"], &["a"]),
            ("[[.a.]-c]", &["a", "b", "c"], &["-", "["]),
            ("[a-[.c.]]", &["a", "b", "c"], &["-", "["]),
            ("[[.ab.]]", &[], &["a", "b", "ab"]),
            ("[[.a.]-]", &["-"], &["a"]),
            ("[xa-[:y:]z]", &["x", "yz]", ":z]"], &["a", "y", "xz]"]),
            ("[.-^*-[:alpha:]", &["a", "[.-^-x/a", "[.-^-a"], &["[.-^-x", "x"]),
            // What looks like a set but is not one.
            ("[", &["[", "[/a", "a/["], &["a"]),
            ("[ab", &["[ab", "x/[ab/c"], &["a", "b"]),
            ("[[a", &["[[a"], &["a", "[a", "["]),
            ("[]", &["[]"], &["]", "["]),
            ("[!]", &["[!]"], &["a", "!"]),
            ("*[", &["[", "a["], &["a", "[a"]),
            ("[a-", &[], &["[a-", "a", "-"]),
            ("[[.a", &[], &["[[.a", "a"]),
            // Backslashes.
            ("\\*", &["*", "*/a"], &["a", "\\*"]),
            ("\\a\\b", &["ab"], &["\\a\\b"]),
            ("a\\[b]", &["a[b]"], &["ab"]),
            ("a\\", &["a\\", "a\\/b"], &["a"]),
            ("a\\\\", &["a\\"], &["a\\\\"]),
            ("*\\", &[], &["a\\", "\\", "a"]),
            ("[a]\\", &[], &["a\\", "a"]),
            ("[a\\", &[], &["[a\\", "a"]),
            ("\\\\*", &["\\", "\\a"], &["a"]),
            ("*\\*", &["*", "a*"], &["a", "*a"]),
            // Bytes, not characters.
            ("?", &["a"], &["é"]),
            ("??", &["é"], &["éa"]),
            ("*é*", &["é", "aéb"], &["e"]),
        ];
        for &(pattern, left_out, kept) in table {
            let patterns = ExcludePatterns::new([pattern]);
            for name in left_out {
                assert!(patterns.matches(&path(name.as_bytes())), "{pattern:?} leaves out {name:?}");
            }
            for name in kept {
                assert!(!patterns.matches(&path(name.as_bytes())), "{pattern:?} keeps {name:?}");
            }
        }
    }

    #[test]
    fn patterns_and_names_are_any_bytes() {
        let patterns = ExcludePatterns::new([&b"\xff*"[..], b"*\xfe", b"[\x80-\x8f]"]);
        for left_out in [&b"\xffa"[..], b"a/\xff", b"a\xfe/b", b"\x85"] {
            assert!(patterns.matches(&path(left_out)), "{left_out:?}");
        }
        for kept in [&b"a\xff"[..], b"\xfea", b"\x90"] {
            assert!(!patterns.matches(&path(kept)), "{kept:?}");
        }
    }

    #[test]
    fn any_of_several_patterns_is_enough_and_none_matches_nothing() {
        let patterns = ExcludePatterns::new(["tmp", "*.o", "x*", "*/y/*", "[0-9]?z"]);
        for left_out in ["a/tmp", "b.o/c", "xa", "a/y/b", "17/1az"] {
            assert!(patterns.matches(&path(left_out.as_bytes())), "{left_out:?}");
        }
        assert!(!patterns.matches(&path(b"tmp2/b.c/y")));
        assert!(!ExcludePatterns::new([""; 0]).matches(&path(b"a")));
    }

    /// With a retry for each star, the first of these alone would never end.
    #[test]
    fn patterns_made_to_be_slow_are_fast() {
        let long = path(vec!["a".repeat(250); 16].join("/").as_bytes());
        for pattern in [
            "*a".repeat(40) + "*b",
            "a*".repeat(40) + "b",
            "*?[a-z]".repeat(40) + "b",
            "[!/]*".repeat(40) + "[b]",
            "*".repeat(4000) + "b",
            format!("*{}b", "[".repeat(250)),
        ] {
            assert!(!ExcludePatterns::new([&pattern]).matches(&long), "{pattern}");
        }
    }

    #[test]
    fn a_set_of_paths_covers_what_is_in_it_and_below() {
        let set = paths(&["a/b", "a-b", "z"]);
        for covered in ["a/b", "a/b/c/d", "a-b", "z/y"] {
            assert!(set.contains_or_covers(&path(covered.as_bytes())), "{covered:?}");
        }
        for other in ["a", "a/bc", "a/c", "a-b2", "b", "x/z"] {
            assert!(!set.contains_or_covers(&path(other.as_bytes())), "{other:?}");
        }
    }

    #[test]
    fn only_the_folders_of_a_members_path_are_above_it() {
        // `a-b` and `a.` sort between `a` and `a/b/c` by their bytes.
        let set = paths(&["a-b", "a.", "a/b/c", "d"]);
        for above in ["a", "a/b"] {
            assert!(set.is_above(&path(above.as_bytes())), "{above:?}");
        }
        for other in ["a-b", "a/b/c", "a/b/c/d", "a/c", "b", "d", "e"] {
            assert!(!set.is_above(&path(other.as_bytes())), "{other:?}");
        }
    }

    fn paths(texts: &[&str]) -> PathSet {
        PathSet::new("argument", texts).unwrap()
    }

    #[test]
    fn every_spelling_of_a_path_is_that_path() {
        for (text, is) in [
            ("cache", "cache"),
            ("cache/", "cache"),
            ("cache//", "cache"),
            ("./cache", "cache"),
            (".//./cache/.", "cache"),
            ("cache/x/..", "cache"),
            ("cache//x/..", "cache"),
            ("x/../cache", "cache"),
            ("x/y/../../cache/", "cache"),
            ("a/./b", "a/b"),
            ("a//b", "a/b"),
            ("..a", "..a"),
            ("*", "*"),
            ("a\\", "a\\"),
            (" ", " "),
        ] {
            let set = paths(&[text]);
            assert_eq!(set.paths().map(ToString::to_string).collect::<Vec<_>>(), [is], "{text:?}");
        }
        let set = PathSet::new("argument", [&b"./\xff/"[..]]).unwrap();
        assert!(set.contains_or_covers(&path(b"\xff/a")));
    }

    #[test]
    fn a_path_that_is_not_below_the_folder_is_refused() {
        let long = "a".repeat(256);
        for text in
            ["..", "../x", "/x", "/", "a/../..", "a/../../b", "./..", "", ".", "./", "a/..", "a\0b", &long]
        {
            match PathSet::new("options.exclude", ["fine", text]) {
                Err(error @ Error::InvalidArgValue { .. }) => {
                    assert!(error.to_string().contains("'options.exclude'"), "{error}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_pattern_that_is_not_a_path_names_nothing() {
        let set = paths(&["p"]).with_literal(["a/", "./a", "/a", "a//b", "../a", "", ".", "*", "c"]);
        assert_eq!(set.paths().map(ToString::to_string).collect::<Vec<_>>(), ["*", "c", "p"]);
        assert!(!set.contains_or_covers(&path(b"a/b")) && !set.is_above(&path(b"a")));
    }
}
