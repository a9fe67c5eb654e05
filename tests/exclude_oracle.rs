//! Random exclude patterns, compared with GNU tar itself, which defines their meaning.
//!
//! On Linux only: the meaning of a set of bytes depends on the C library, and the definition is tar with
//! glibc.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use sandbox_managed_runtime::exclude::ExcludePatterns;
use sandbox_managed_runtime::path::RelativePath;

#[path = "attack/random.rs"]
mod random;

use random::Random;

impl Random {
    /// From `least` to `most` of the choices, concatenated.
    fn text(&mut self, choices: &[&[u8]], least: usize, most: usize) -> Vec<u8> {
        let count = least + self.below(most - least + 1);
        (0..count).flat_map(|_| *self.pick(choices)).copied().collect()
    }

    /// A name with characters that are special in patterns.
    fn name(&mut self) -> Vec<u8> {
        const WHOLE: &[&[u8]] =
            &[b"a", b".a", b"a.b", b"[x]", b"a*b", b"a\\b", "é".as_bytes(), b"a b", b"-a", b"[", b"[a"];
        #[rustfmt::skip]
        const PIECES: &[&[u8]] = &[
            b"a", b"a", b"b", b"c", b".", b"[", b"]", b"-", b"!", b"^", b"\\", b"*", b"?", b":", b"=",
            b" ", b"1", b"\xc3", b"\xff", "é".as_bytes(),
        ];
        loop {
            let name = if self.once_in(3) { self.pick(WHOLE).to_vec() } else { self.text(PIECES, 1, 4) };
            if name != b"." && name != b".." {
                return name;
            }
        }
    }

    /// A pattern from everything that has a meaning in one, often built around an existing path.
    fn pattern(&mut self, paths: &[RelativePath]) -> Vec<u8> {
        #[rustfmt::skip]
        const PIECES: &[&[u8]] = &[
            b"a", b"a", b"b", b".", b"*", b"*", b"*", b"?", b"?", b"[", b"[", b"]", b"]", b"!", b"^",
            b"-", b"-", b"\\", b"\\", b"/", b"/", b":", b"[ab]", b"[a-c]", b"[!a]", b"[^b-]", b"[]a]",
            b"[!]]", b"[[:alpha:]]", b"[![:punct:].]", b"[:digit:]", b"[:", b":]", b"[=a=]", b"[.-.]",
            b"[=", b"[.", b"**", b"*/", b"/*", b" ", b"\xc3", b"\xff", "é".as_bytes(),
        ];
        const LEADS: &[&[u8]] =
            &[b"./", b"*/", b"/", b".", b"*", b"?", b"?/", b"[.]/", b"\\./", b"[", b"\\", b".*"];
        let mut pattern = if self.once_in(3) { self.pick(LEADS).to_vec() } else { Vec::new() };
        if self.once_in(2) {
            pattern.extend(self.text(PIECES, 0, 7));
            return pattern;
        }
        let path = paths[self.below(paths.len())].as_bytes();
        let from = if self.once_in(2) { 0 } else { self.below(path.len()) };
        for &byte in &path[from..] {
            match self.below(8) {
                0 => pattern.extend(*self.pick(PIECES)),
                1 => pattern.extend([b'\\', byte]),
                2 => pattern.push(b'?'),
                3 => pattern.push(b'*'),
                4 => pattern.extend([b'[', byte, b'-', byte.saturating_add(1), b']']),
                _ => pattern.push(byte),
            }
        }
        pattern
    }
}

/// Makes a random tree and returns its paths, including folders.
fn build_tree(random: &mut Random, root: &Path) -> Vec<RelativePath> {
    let mut folders = vec![None];
    let mut paths = BTreeSet::new();
    while paths.len() < 60 {
        let parent = random.below(folders.len());
        let path = RelativePath::child(folders[parent].as_ref(), &random.name());
        if !paths.insert(path.clone()) {
            continue;
        }
        if random.once_in(3) {
            fs::create_dir(root.join(path.as_path())).unwrap();
            folders.push(Some(path));
        } else {
            fs::write(root.join(path.as_path()), "").unwrap();
        }
    }
    paths.into_iter().collect()
}

/// How tar is told what to archive.
#[derive(Clone, Copy)]
enum Given {
    /// The folder, as `.`.
    Folder,
    /// The names in it, without `./`.
    Names,
}

/// What tar archives of the folder, without `./`; `None` if the pattern matches the folder itself.
fn archived_by_tar(root: &Path, given: Given, locale: &str, pattern: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let mut names: Vec<OsString> = match given {
        Given::Folder => vec![".".into()],
        Given::Names => fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect(),
    };
    names.sort();
    let output = Command::new("tar")
        .current_dir(root)
        .env("LC_ALL", locale)
        .env_remove("POSIXLY_CORRECT")
        .env_remove("TAR_OPTIONS")
        .args(["--create", "--verbose", "--file=/dev/null", "--quoting-style=literal", "--no-unquote"])
        .arg(OsString::from_vec([b"--exclude=", pattern].concat()))
        .arg("--")
        .args(names)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "tar, {}: {complaint}", pattern.escape_ascii());
    let mut archived: BTreeSet<Vec<u8>> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| line.strip_suffix(b"/").unwrap_or(line).to_vec())
        .collect();
    match given {
        Given::Names => Some(archived),
        Given::Folder => archived.remove(&b"."[..]).then(|| {
            archived
                .iter()
                .map(|name| name.strip_prefix(b"./").expect("it is below the folder").to_vec())
                .collect()
        }),
    }
}

/// What is archived by our definition: as tar does with `.`, or with the names in the folder if that would be
/// nothing.
fn archived(root: &Path, locale: &str, pattern: &[u8]) -> BTreeSet<Vec<u8>> {
    archived_by_tar(root, Given::Folder, locale, pattern)
        .or_else(|| archived_by_tar(root, Given::Names, locale, pattern))
        .expect("without the folder there are no patterns that match it")
}

/// Compares tar and `ExcludePatterns` on trees and patterns, and counts the patterns that excluded some paths
/// but not all.
fn compare(
    random: &mut Random,
    trees: usize,
    patterns: usize,
    locale: &str,
    mut next_pattern: impl FnMut(&mut Random, &[RelativePath]) -> Vec<u8>,
) -> usize {
    let mut telling = 0;
    for _ in 0..trees {
        let root = tempfile::tempdir().unwrap();
        let paths = build_tree(random, root.path());
        for _ in 0..patterns {
            let pattern = next_pattern(random, &paths);
            let archived = archived(root.path(), locale, &pattern);
            let ours = ExcludePatterns::new([&pattern]);
            for path in &paths {
                assert_eq!(
                    ours.matches(path),
                    !archived.contains(path.as_bytes()),
                    "is {path:?} left out by {} in {locale}? (ours, tar's)",
                    pattern.escape_ascii(),
                );
            }
            telling += usize::from(!archived.is_empty() && archived.len() < paths.len());
        }
    }
    telling
}

/// A number from the environment, for a longer or another run.
fn setting<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn random_patterns_exclude_what_tar_excludes() {
    let mut random = Random::new(setting("EXCLUDE_SEED", 0x5eed_0f5e_75a5_1de5));
    let trees = setting("EXCLUDE_TREES", 16);
    let telling = compare(&mut random, trees, 50, "C", Random::pattern);
    assert!(telling > trees * 50 / 5, "only {telling} patterns left out some paths and kept others");
}

/// Choosing bytes over characters makes a difference only in `?` and sets.
#[test]
fn patterns_of_text_and_stars_mean_the_same_in_a_utf_8_locale() {
    const PIECES: &[&[u8]] = &[b"*", b"*", b"a", b".", b"/", b" ", "é".as_bytes(), b"\xc3", b"\xa9", b"\xff"];
    let mut random = Random::new(setting("EXCLUDE_SEED", 0x0ff5_e7ed_5eed));
    compare(&mut random, 4, 50, "C.UTF-8", |random, _| random.text(PIECES, 1, 5));
}

/// One pattern of each kind that `ExcludePatterns` handles separately: what any of them matches is excluded.
#[test]
fn several_patterns_exclude_what_each_of_them_excludes() {
    let mut random = Random::new(0x00b5_e55e_d5e7);
    let root = tempfile::tempdir().unwrap();
    let paths = build_tree(&mut random, root.path());
    let patterns: [&[u8]; 8] = [b"a.b", b".*", b"*]", b"*-*", b"[!a-c]?*1", b"a\\", b"./a", b"*/[x]"];
    let archived = patterns
        .iter()
        .map(|pattern| archived(root.path(), "C", pattern))
        .reduce(|left, right| &left & &right)
        .unwrap();
    let ours = ExcludePatterns::new(patterns);
    let kept: BTreeSet<_> =
        paths.iter().filter(|path| !ours.matches(path)).map(|path| path.as_bytes().to_vec()).collect();
    assert_eq!(kept, archived);
    assert!(!archived.is_empty() && archived.len() < paths.len());
}

/// A sandbox's tar gets names without `./`. It must never exclude what is not excluded here.
#[test]
fn tar_with_bare_names_excludes_no_more_than_we_do() {
    let mut random = Random::new(setting("EXCLUDE_SEED", 0xba5e_4a3e));
    let mut fewer = 0;
    for _ in 0..4 {
        let root = tempfile::tempdir().unwrap();
        let paths = build_tree(&mut random, root.path());
        for _ in 0..50 {
            let pattern = random.pattern(&paths);
            let sent = archived_by_tar(root.path(), Given::Names, "C", &pattern).unwrap();
            let ours = ExcludePatterns::new([&pattern]);
            let kept = paths.iter().filter(|path| !ours.matches(path)).count();
            for path in paths.iter().filter(|path| !ours.matches(path)) {
                assert!(sent.contains(path.as_bytes()), "{path:?} is lost to {}", pattern.escape_ascii());
            }
            fewer += usize::from(kept < sent.len());
        }
    }
    assert!(fewer > 0, "no pattern told the two ways apart");
}

/// Common patterns, each with what it excludes from one tree.
#[test]
fn common_patterns_mean_the_same_as_in_tar() {
    let root = tempfile::tempdir().unwrap();
    let paths: Vec<RelativePath> = [
        "dist",
        "dist/a",
        "app/dist",
        "app/dist/a",
        "node_modules",
        "node_modules/x",
        "app/node_modules",
        ".git",
        ".git/HEAD",
        "app/.git",
        "a.log",
        "app/b.log",
        "a",
        "app/a",
        ".env",
    ]
    .iter()
    .flat_map(|name| {
        let path = RelativePath::parse(name.as_bytes()).unwrap().unwrap();
        std::iter::successors(Some(path), RelativePath::parent)
    })
    .collect::<BTreeSet<_>>()
    .into_iter()
    .collect();
    for path in &paths {
        fs::create_dir_all(root.path().join(path.as_path())).unwrap();
    }
    for pattern in [
        ".",
        "./",
        "./.",
        "?",
        "*",
        "**",
        ".*",
        "./dist",
        "./dist/",
        "./dist/*",
        "*/dist",
        "*/node_modules",
        "*/.git",
        "/dist",
        "//dist",
        "dist/",
        "./*.log",
        "*/*.log",
        "*.log",
        "./a",
        "*/a",
        "././a",
        ".//a",
        "./*/a",
        "[.]/a",
        "\\./a",
        "?/a",
        "./.*",
        "./?",
        "*/",
        "",
        "..",
        "../a",
        "app/../dist",
    ] {
        let archived = archived(root.path(), "C", pattern.as_bytes());
        let ours = ExcludePatterns::new([pattern]);
        let kept: BTreeSet<_> =
            paths.iter().filter(|path| !ours.matches(path)).map(|path| path.as_bytes().to_vec()).collect();
        assert_eq!(kept, archived, "{pattern:?}");
    }
}
