//! What the sandbox has right after an extraction, compared with what was packed. Pure.
//!
//! A sandbox need not hold what it was sent: its volume may fold case, its tar may strip a part of a name, a process there
//! may be faster. So the script lists what the extraction left (`control.sh`, `list`) and compares a digest of its list with
//! that of the list that was due; where they differ, the list comes along with each download and is compared here.
//!
//! A line is a name, which begins with `./`, a byte of value 1, and what `stat` says: `f <mode> <size> <mtime>` of a file,
//! `d <mode>` of a folder and `l` of a symbolic link, the mode in hexadecimal. Where there is no `stat`, the kind alone.

use std::collections::HashMap;

use rayon::prelude::*;
use sha2::Digest as _;

use crate::archive::pack::Sent;
use crate::exclude::PathSet;
use crate::path::RelativePath;
use crate::tree::entry::{Digest, PERMISSIONS};
use crate::tree::twins::may_be_one;

/// What stands between a name and what is said about it.
const SEPARATOR: u8 = 1;

/// How many entries are written down at a time.
const CHUNK: usize = 4096;

/// The digest of the list of a sandbox that has exactly what was sent. What is preserved at the top is not listed.
#[must_use]
pub fn digest(sent: &[(RelativePath, Sent)], preserved: &[impl AsRef<str>]) -> Digest {
    let is_listed = |path: &RelativePath| {
        let top = path.as_bytes().split(|&byte| byte == b'/').next();
        !preserved.iter().any(|name| Some(name.as_ref().as_bytes()) == top)
    };
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
    // The separator comes before all that a name may go on with, unless there are control characters in it.
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
        Sent::Dir { mode } => writeln!(text, "d {:x}", 0o040_000 | mode),
        Sent::File { mode, size, mtime } => writeln!(text, "f {:x} {size} {mtime}", 0o100_000 | mode),
        Sent::Symlink => writeln!(text, "l"),
    };
    written.expect("a Vec takes everything");
}

/// Where the sandbox has something else than it was sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Missing there, or otherwise there: never taken for deleted or changed by the agent.
    pub lost: Vec<RelativePath>,
    /// As it was sent but for its mode, with the permission bits that it has there.
    pub modes: Vec<(RelativePath, u32)>,
}

/// What a sandbox listed about one name.
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

/// Compares what was sent with a sandbox's list. `preserved` may be anything there and is not compared.
///
/// A name with a line break in it cannot be told from two, so it counts as lost where anything differs at all.
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
            Sent::Dir { mode } => (b'd', Some(mode)),
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
    // Where most times differ, it is the volume that does not keep them.
    if late.len() * 2 <= files {
        missing.append(&mut late);
    }
    missing.extend(overwritten(sent, &missing));
    missing.sort_unstable();
    missing.dedup();
    modes.retain(|(path, _)| missing.binary_search(path).is_err());
    Differences { lost: missing, modes }
}

/// Whether a field of a line, where it is there, is that number.
fn says(field: Option<&[u8]>, number: u64) -> bool {
    field.is_none_or(|field| field == number.to_string().as_bytes())
}

/// Other paths that a lost one may have been written over, although they look as they were sent: one that the volume may
/// take for the same name, and one that is left of it where tar strips what it takes for a drive or a root.
fn overwritten(sent: &[(RelativePath, Sent)], lost: &[RelativePath]) -> Vec<RelativePath> {
    let mut by_fold: HashMap<Vec<u8>, Vec<&RelativePath>> = HashMap::new();
    let fold = |path: &RelativePath| match path.as_bytes() {
        bytes if bytes.is_ascii() => bytes.to_ascii_lowercase(),
        // Of those, any may be one with any other in a folder of the same depth.
        bytes => bytes.iter().filter(|&&byte| byte == b'/').copied().collect(),
    };
    if lost.is_empty() {
        return Vec::new();
    }
    for (path, _) in sent {
        by_fold.entry(fold(path)).or_default().push(path);
    }
    let mut over = Vec::new();
    for path in lost {
        let others = by_fold.get(&fold(path)).into_iter().flatten();
        over.extend(
            others.filter(|other| **other != path && may_be_one(other, path)).map(|other| (*other).clone()),
        );
        if let Some(stripped) = stripped(path)
            && sent.binary_search_by(|(path, _)| path.cmp(&stripped)).is_ok()
        {
            over.push(stripped);
        }
    }
    over
}

/// What some tars leave of a name: bsdtar strips drive letters and leading slashes of both kinds.
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
            listing(&[("a b", file(0o644, 12)), ("d", Sent::Dir { mode: 0o2755 }), ("l", Sent::Symlink)]);
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

    /// What was sent, what is listed, what is lost, whose mode differs.
    #[test]
    fn every_kind_of_difference() {
        type Entries<'a> = &'a [(&'a str, Sent)];
        type Case<'a> = (&'a str, Entries<'a>, Entries<'a>, &'a [&'a str], &'a [(&'a str, u32)]);
        let (plain, dir) = (file(0o644, 5), Sent::Dir { mode: 0o755 });
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
                &[("d", Sent::Dir { mode: 0o700 })],
                &[],
                &[("d", 0o700)],
            ),
            ("a bit beyond the permissions", &[("d", dir)], &[("d", Sent::Dir { mode: 0o2755 })], &[], &[]),
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
    fn times_do_not_count_where_the_volume_does_not_keep_them() {
        let sent = listing(&[("a", file(0o644, 1)), ("b", file(0o644, 1)), ("c", file(0o644, 2))]);
        let late = |size| Sent::File { mode: 0o644, size, mtime: 1 };
        let found = listing(&[("a", late(1)), ("b", late(1)), ("c", late(1))]);
        assert_eq!(compare(&sent, &text(&found), &PathSet::default()).lost, [path("c")]);
    }

    #[test]
    fn what_is_preserved_is_not_compared() {
        let sent = listing(&[("cache", Sent::Dir { mode: 0o755 }), ("cache/a", file(0o644, 1))]);
        assert_eq!(compare(&sent, b"", &PathSet::of([path("cache")])), Differences::default());
    }

    #[test]
    fn where_there_is_no_stat_only_kinds_are_compared() {
        let sent = listing(&[("a", file(0o644, 1)), ("d", Sent::Dir { mode: 0o755 }), ("l", Sent::Symlink)]);
        let found = compare(&sent, b"./a\x01f\n./d\x01d\n./l\x01l\n", &PathSet::default());
        assert_eq!(found, Differences::default());
        let found = compare(&sent, b"./a\x01f\n./d\x01l\n", &PathSet::default());
        assert_eq!(found.lost, [path("d"), path("l")]);
    }

    #[test]
    fn a_list_that_is_no_list_is_one_of_nothing() {
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
