//! Compares what the sandbox has right after an extraction with what was packed. Pure: no I/O.
//!
//! A sandbox may not have exactly what it was sent: its volume may be case-insensitive, its tar may strip a
//! part of a name, another process may have changed something. So the script lists what the extraction left
//! (`control.sh`, `list`), and compares the checksum of its list with that of the expected list. If they
//! differ, each download contains the list, and this module compares it.
//!
//! A line is a name, which begins with `./`, a byte of value 1, and what `stat` says: `f <mode> <size>
//! <mtime>` for a file, `d <mode>` for a folder and `l` for a symbolic link, with the mode in hexadecimal.
//! Without `stat` in the sandbox, only the kind.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use sha2::Digest as _;

use crate::archive::pack::Sent;
use crate::exclude::PathSet;
use crate::path::RelativePath;
use crate::tree::entry::{Digest, PERMISSIONS};

/// The byte between a name and its description.
const SEPARATOR: u8 = 1;

/// How many entries are formatted at a time.
const CHUNK: usize = 4096;

/// The digest of the list of a sandbox that has exactly what was sent. Preserved top-level names are not
/// listed.
#[must_use]
pub fn digest(sent: &[(RelativePath, Sent)], preserved: &[impl AsRef<str>]) -> Digest {
    let is_listed =
        |path: &RelativePath| !preserved.iter().any(|name| name.as_ref().as_bytes() == path.top());
    if preserved.is_empty() {
        return digest_of(sent);
    }
    let listed: Vec<_> = sent.iter().filter(|(path, _)| is_listed(path)).cloned().collect();
    digest_of(&listed)
}

fn digest_of(sent: &[(RelativePath, Sent)]) -> Digest {
    let chunks: Vec<Vec<u8>> = sent
        .par_chunks(CHUNK)
        .map(|entries| {
            let mut text = Vec::with_capacity(entries.len() * 80);
            for (path, sent) in entries {
                push_line(&mut text, path, *sent);
            }
            text
        })
        .collect();
    let mut hash = sha2::Sha256::new();
    // The separator sorts before any byte that may continue a name, unless the name has control characters.
    if sent.iter().all(|(path, _)| path.as_bytes().iter().all(|&byte| byte >= b' ')) {
        for chunk in &chunks {
            hash.update(chunk);
        }
    } else {
        let text = chunks.concat();
        let mut lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
        lines.par_sort_unstable_by_key(|line| &line[..line.len() - 1]);
        for line in &lines {
            hash.update(line);
        }
    }
    Digest(hash.finalize().into())
}

fn push_line(text: &mut Vec<u8>, path: &RelativePath, sent: Sent) {
    use std::io::Write as _;
    text.extend_from_slice(b"./");
    text.extend_from_slice(path.as_bytes());
    text.push(SEPARATOR);
    let written = match sent {
        Sent::Folder { mode } => writeln!(text, "d {:x}", 0o040_000 | mode),
        Sent::File { mode, size, mtime } => writeln!(text, "f {:x} {size} {mtime}", 0o100_000 | mode),
        Sent::Symlink => writeln!(text, "l"),
    };
    written.expect("a Vec takes everything");
}

/// The paths at which the sandbox differs from what it was sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Missing, or different: never taken for deleted or changed by the agent.
    pub lost: Vec<RelativePath>,
    /// As it was sent except for its mode, with the permission bits that it has in the sandbox.
    pub modes: Vec<(RelativePath, u32)>,
}

/// What a sandbox listed for one name.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    kind: u8,
    mode: Option<u32>,
    size: Option<&'a [u8]>,
    mtime: Option<&'a [u8]>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<(&'a [u8], Self)> {
        let at = line.iter().position(|&byte| byte == SEPARATOR)?;
        let name = line[..at].strip_prefix(b"./")?;
        let mut fields = line[at + 1..].split(|&byte| byte == b' ');
        let &[kind] = fields.next()? else { return None };
        let mode = fields.next().and_then(|mode| std::str::from_utf8(mode).ok());
        let mode = mode.and_then(|mode| u32::from_str_radix(mode, 16).ok());
        Some((name, Self { kind, mode, size: fields.next(), mtime: fields.next() }))
    }
}

/// Compares what was sent with a sandbox's list. What is at a `preserved` path is not compared.
///
/// A name with a line break cannot be told from two names, so it counts as lost if anything differs.
#[must_use]
pub fn compare(sent: &[(RelativePath, Sent)], list: &[u8], preserved: &PathSet) -> Differences {
    let found: HashMap<&[u8], Line<'_>> = list.split(|&byte| byte == b'\n').filter_map(Line::parse).collect();
    let mut missing = Vec::new();
    let mut late = Vec::new();
    let mut modes = Vec::new();
    let mut files = 0;
    for (path, sent) in sent {
        if preserved.contains_or_covers(path) {
            continue;
        }
        let Some(line) = found.get(path.as_bytes()) else {
            missing.push(path.clone());
            continue;
        };
        let (kind, mode) = match *sent {
            Sent::Folder { mode } => (b'd', Some(mode)),
            Sent::File { mode, .. } => (b'f', Some(mode)),
            Sent::Symlink => (b'l', None),
        };
        if line.kind != kind {
            missing.push(path.clone());
            continue;
        }
        if let Sent::File { size, mtime, .. } = *sent {
            files += 1;
            if !says(line.size, size) {
                missing.push(path.clone());
                continue;
            }
            if !says(line.mtime, mtime) {
                late.push(path.clone());
                continue;
            }
        }
        if let (Some(sent), Some(there)) = (mode, line.mode)
            && sent & PERMISSIONS != there & PERMISSIONS
        {
            modes.push((path.clone(), there & PERMISSIONS));
        }
    }
    // If most times differ, the volume does not keep them.
    if late.len() * 2 <= files {
        missing.append(&mut late);
    }
    let over = overwritten(sent, &missing);
    missing.extend(over);
    missing.sort_unstable();
    missing.dedup();
    modes.retain(|(path, _)| missing.binary_search(path).is_err());
    Differences { lost: missing, modes }
}

/// Whether a field of a line, if it is present, is that number.
fn says(field: Option<&[u8]>, number: u64) -> bool {
    field.is_none_or(|field| field == number.to_string().as_bytes())
}

/// Paths that a lost path may have overwritten, although they look as they were sent: a name that a volume
/// may take for the same one, and what is left of a name if tar strips a drive letter or leading slashes.
fn overwritten(sent: &[(RelativePath, Sent)], lost: &[RelativePath]) -> HashSet<RelativePath> {
    let mut over = HashSet::new();
    if lost.is_empty() {
        return over;
    }
    let mut folded: HashMap<String, Vec<&RelativePath>> = HashMap::new();
    for (path, _) in sent {
        folded.entry(fold(path)).or_default().push(path);
    }
    // Once for each name, however many of the lost names fold to it.
    let folds: HashSet<String> = lost.iter().map(fold).collect();
    for same in folds.iter().filter_map(|name| folded.get(name)).filter(|same| same.len() > 1) {
        over.extend(same.iter().map(|path| (*path).clone()));
    }
    let stripped = lost.iter().filter_map(stripped);
    over.extend(stripped.filter(|path| sent.binary_search_by(|(sent, _)| sent.cmp(path)).is_ok()));
    over
}

/// The `missing` paths that a sandbox may have lost if it listed nothing: names of which some tar strips a part, and
/// name collisions.
#[must_use]
pub fn doubtful(sent: &[(RelativePath, Sent)], missing: &[&RelativePath]) -> Vec<RelativePath> {
    let mut folded: HashMap<String, usize> = missing.iter().map(|path| (fold(path), 0)).collect();
    if !folded.is_empty() {
        for (path, _) in sent {
            folded.entry(fold(path)).and_modify(|names| *names += 1);
        }
    }
    let is_doubtful = |path: &RelativePath| stripped(path).is_some() || folded[&fold(path)] > 1;
    missing.iter().filter(|path| is_doubtful(path)).map(|path| (*path).clone()).collect()
}

/// A path as a volume may see it that ignores case and Unicode normalization: in lower case, and with each
/// letter that has a mark, whether written as one character or several, as the same sign. Bytes that are not
/// UTF-8 stay as they are.
fn fold(path: &RelativePath) -> String {
    const MARKED: char = '\u{fffd}';
    let text = crate::error::readable(path.as_bytes());
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    for character in text.chars().flat_map(char::to_lowercase) {
        match character {
            // Combining marks, including those of kana.
            '\u{300}'..='\u{36f}' | '\u{3099}' | '\u{309a}' => {
                if !folded.ends_with(MARKED) {
                    folded.pop();
                    folded.push(MARKED);
                }
            }
            other if may_be_marked(other) => folded.push(MARKED),
            // Many volumes take the kelvin and angstrom signs for letters, and so does the conversion to
            // lower case above.
            other => folded.push(other),
        }
    }
    folded
}

/// Whether a lower-case letter may also be written as another letter followed by a mark: in Latin, Greek,
/// Cyrillic and kana.
fn may_be_marked(letter: char) -> bool {
    let letter = match letter {
        // Katakana as hiragana.
        '\u{30a1}'..='\u{30f4}' => u32::from(letter) - 0x60,
        other => u32::from(other),
    };
    matches!(
        letter,
        0xe0..=0x233
            | 0x390
            | 0x3ac..=0x3b0
            | 0x3ca..=0x3ce
            | 0x439
            | 0x450
            | 0x451
            | 0x453
            | 0x457
            | 0x45c..=0x45e
            | 0x1e00..=0x1fff
            | 0x304c
            | 0x304e
            | 0x3050
            | 0x3052
            | 0x3054
            | 0x3056
            | 0x3058
            | 0x305a
            | 0x305c
            | 0x305e
            | 0x3060
            | 0x3062
            | 0x3065
            | 0x3067
            | 0x3069
            | 0x3070
            | 0x3071
            | 0x3073
            | 0x3074
            | 0x3076
            | 0x3077
            | 0x3079
            | 0x307a
            | 0x307c
            | 0x307d
            | 0x3094
    )
}

/// What some tars leave of a name: bsdtar strips drive letters, and leading slashes and backslashes.
fn stripped(path: &RelativePath) -> Option<RelativePath> {
    let mut rest = path.as_bytes();
    loop {
        rest = match rest {
            [letter, b':', after @ ..] if letter.is_ascii_alphabetic() => after,
            [b'\\' | b'/' | b'?', after @ ..] | [b'.', b'\\' | b'/', after @ ..] => after,
            _ => break,
        };
    }
    if rest.len() == path.as_bytes().len() {
        return None;
    }
    RelativePath::parse(rest).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    fn file(mode: u32, size: u64) -> Sent {
        Sent::File { mode, size, mtime: 1_700_000_000 }
    }

    fn listing(entries: &[(&str, Sent)]) -> Vec<(RelativePath, Sent)> {
        let mut listing: Vec<_> = entries.iter().map(|&(name, sent)| (path(name), sent)).collect();
        listing.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        listing
    }

    fn text(listing: &[(RelativePath, Sent)]) -> Vec<u8> {
        let mut text = Vec::new();
        for (path, sent) in listing {
            push_line(&mut text, path, *sent);
        }
        text
    }

    #[test]
    fn a_line_has_what_stat_says() {
        let sent =
            listing(&[("a b", file(0o644, 12)), ("d", Sent::Folder { mode: 0o2755 }), ("l", Sent::Symlink)]);
        assert_eq!(text(&sent), b"./a b\x01f 81a4 12 1700000000\n./d\x01d 45ed\n./l\x01l\n");
    }

    #[test]
    fn the_digest_is_that_of_the_sorted_lines() {
        for names in [
            &["a", "a-b", "a/b", "a/b/c", "b"][..],
            &["a", "a\nb", "a\u{0}1b", "z\nf"],
            &["\u{1}", "\u{1}\u{1}"],
        ] {
            let names = names.iter().map(|name| name.replace('\0', "\u{1}"));
            let sent: Vec<_> = names.map(|name| (path(&name), file(0o644, 1))).collect();
            let mut lines: Vec<_> = text(&sent).split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
            lines.pop();
            lines.sort_unstable();
            let mut sorted = lines.join(&b'\n');
            sorted.push(b'\n');
            assert_eq!(digest(&sent, &["other"]), Digest(sha2::Sha256::digest(&sorted).into()));
        }
    }

    /// What was sent, what is listed, what is lost, and whose mode differs.
    #[test]
    fn every_kind_of_difference() {
        type Entries<'a> = &'a [(&'a str, Sent)];
        type Case<'a> = (&'a str, Entries<'a>, Entries<'a>, &'a [&'a str], &'a [(&'a str, u32)]);
        let (plain, dir) = (file(0o644, 5), Sent::Folder { mode: 0o755 });
        let later = Sent::File { mode: 0o644, size: 5, mtime: 1_700_000_001 };
        let others = [("o1", plain), ("o2", plain), ("o3", plain)];
        let cases: &[Case<'_>] = &[
            ("the same", &[("a", plain)], &[("a", plain)], &[], &[]),
            ("missing", &[("a", plain)], &[], &["a"], &[]),
            ("more", &[("a", plain)], &[("a", plain), ("b", plain)], &[], &[]),
            ("another size", &[("a", plain)], &[("a", file(0o644, 6))], &["a"], &[]),
            ("another time", &[("a", plain)], &[("a", later)], &["a"], &[]),
            ("another mode", &[("a", plain)], &[("a", file(0o755, 5))], &[], &[("a", 0o755)]),
            (
                "another mode of a folder",
                &[("d", dir)],
                &[("d", Sent::Folder { mode: 0o700 })],
                &[],
                &[("d", 0o700)],
            ),
            (
                "a bit beyond the permissions",
                &[("d", dir)],
                &[("d", Sent::Folder { mode: 0o2755 })],
                &[],
                &[],
            ),
            ("another kind", &[("a", plain)], &[("a", Sent::Symlink)], &["a"], &[]),
            ("a folder that is a file", &[("d", dir), ("d/a", plain)], &[("d", plain)], &["d", "d/a"], &[]),
            (
                "case",
                &[("xt_M.h", plain), ("xt_m.h", plain)],
                &[("xt_M.h", plain)],
                &["xt_M.h", "xt_m.h"],
                &[],
            ),
            (
                "folders that differ by case",
                &[("S/a", plain), ("s/a", plain), ("s/b", plain)],
                &[("S/a", plain), ("S/b", plain)],
                &["S/a", "s/a", "s/b"],
                &[],
            ),
            (
                "two ways to write a letter",
                &[("\u{e9}", plain), ("e\u{301}", plain)],
                &[("e\u{301}", plain)],
                &["e\u{301}", "\u{e9}"],
                &[],
            ),
            (
                "one of many names that are not ASCII",
                &[("\u{4e00}", plain), ("\u{4e01}", plain), ("\u{4e02}", plain)],
                &[("\u{4e01}", plain), ("\u{4e02}", plain)],
                &["\u{4e00}"],
                &[],
            ),
            (
                "the sign for kelvin",
                &[("\u{212a}", plain), ("k", plain)],
                &[("k", plain)],
                &["k", "\u{212a}"],
                &[],
            ),
            ("a drive", &[("c:n", plain), ("n", plain)], &[("n", plain)], &["c:n", "n"], &[]),
            ("a backslash", &[("\\n", plain), ("n", plain)], &[("n", plain)], &["\\n", "n"], &[]),
            (
                "a drive and a root",
                &[("c:\\\\n", plain), ("n", plain)],
                &[("n", plain)],
                &["c:\\\\n", "n"],
                &[],
            ),
            ("a line break", &[("a\nb", plain)], &[("a\nb", plain)], &["a\nb"], &[]),
        ];
        for (name, sent, found, lost, modes) in cases {
            let with_others = |entries: Entries<'_>| listing(&[entries, &others].concat());
            let found = compare(&with_others(sent), &text(&with_others(found)), &PathSet::default());
            let lost = lost.iter().map(|lost| path(lost)).collect();
            let modes = modes.iter().map(|&(name, mode)| (path(name), mode)).collect();
            assert_eq!(found, Differences { lost, modes }, "{name}");
        }
    }

    #[test]
    fn names_that_some_tar_or_volume_changes_may_have_been_lost() {
        let names = ["A", "a", "b", "c:x", "d/\\y", "\\z", "e\u{301}", "\u{e9}"];
        let sent: Vec<_> = names.iter().map(|name| (*name, file(0o644, 1))).collect();
        let sent = listing(&sent);
        let doubtful = |missing: &[&str]| -> Vec<String> {
            let missing: Vec<_> = sent
                .iter()
                .map(|(path, _)| path)
                .filter(|path| missing.contains(&&*path.to_string()))
                .collect();
            doubtful(&sent, &missing).iter().map(ToString::to_string).collect()
        };
        assert_eq!(doubtful(&names), ["A", "\\z", "a", "c:x", "e\u{301}", "\u{e9}"]);
        // The other spelling came, and may have overwritten it.
        assert_eq!(doubtful(&["a", "b"]), ["a"]);
        assert_eq!(doubtful(&["b", "d/\\y"]), [""; 0]);
        assert_eq!(doubtful(&[]), [""; 0]);
    }

    #[test]
    fn times_do_not_count_where_the_volume_does_not_keep_them() {
        let sent = listing(&[("a", file(0o644, 1)), ("b", file(0o644, 1)), ("c", file(0o644, 2))]);
        let late = |size| Sent::File { mode: 0o644, size, mtime: 1 };
        let found = listing(&[("a", late(1)), ("b", late(1)), ("c", late(1))]);
        assert_eq!(compare(&sent, &text(&found), &PathSet::default()).lost, [path("c")]);
    }

    #[test]
    fn a_list_of_nothing_is_compared_in_time_that_grows_with_the_names() {
        let names: Vec<String> = (0..20_000).map(|at| format!("\u{e9}{at}")).collect();
        let sent: Vec<_> = names.iter().map(|name| (&**name, file(0o644, 1))).collect();
        assert_eq!(compare(&listing(&sent), b"", &PathSet::default()).lost.len(), sent.len());
    }

    #[test]
    fn what_is_preserved_is_not_compared() {
        let sent = listing(&[("cache", Sent::Folder { mode: 0o755 }), ("cache/a", file(0o644, 1))]);
        assert_eq!(compare(&sent, b"", &PathSet::of([path("cache")])), Differences::default());
    }

    #[test]
    fn without_stat_only_kinds_are_compared() {
        let sent =
            listing(&[("a", file(0o644, 1)), ("d", Sent::Folder { mode: 0o755 }), ("l", Sent::Symlink)]);
        let found = compare(&sent, b"./a\x01f\n./d\x01d\n./l\x01l\n", &PathSet::default());
        assert_eq!(found, Differences::default());
        let found = compare(&sent, b"./a\x01f\n./d\x01l\n", &PathSet::default());
        assert_eq!(found.lost, [path("d"), path("l")]);
    }

    #[test]
    fn a_malformed_list_counts_as_empty() {
        let sent = listing(&[("a", file(0o644, 1))]);
        for list in
            [&b""[..], b"\n\n", b"./a", b"./a\x01", b"a\x01f 81a4 1 1700000000", b"\x01f", b"./a\x01ff 1"]
        {
            assert_eq!(
                compare(&sent, list, &PathSet::default()).lost,
                [path("a")],
                "{}",
                list.escape_ascii()
            );
        }
    }
}
