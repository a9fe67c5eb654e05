//! Random ignore files, compared with git itself, which defines their meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandbox_managed_runtime::fs::Kind;
use sandbox_managed_runtime::path::RelativePath;
use sandbox_managed_runtime::tree::filter::Rule as _;
use sandbox_managed_runtime::tree::ignore_files::{IgnoreFile, IgnoreRules};

#[path = "attack/random.rs"]
mod random;

use random::Random;

impl Random {
    /// A line from everything that has a meaning in one, often built around an existing path.
    fn line(&mut self, path: Option<&str>) -> String {
        #[rustfmt::skip]
        const PIECES: &[&str] = &[
            "a", "a", "b", ".", "*", "*", "**", "?", "[ab]", "[a-c]", "[!a]", "[^b-]", "[]a]", "[!]]",
            "[[:alpha:]]", "[![:punct:].]", "[[:digit:]x]", "[[:foo:]]", "[z-a]", "[--0]", "[a\\-c]", "[a\\]]",
            "[\\\\]", "[^^]", "[\\!^]", "[aé]", "[!é.]", "[a", "[", "]", "!", "-", "\\", "\\\\", "\\*", "\\[",
            "/", "/", "/", "**/", "/**", "{", "}", ",", "{a,b}", " ", "\\ ", "#", "é", "x.log", "*.log", "1",
        ];
        let mut line = String::new();
        if self.once_in(4) {
            line.push('!');
        }
        if self.once_in(5) {
            line.push('/');
        }
        match path {
            Some(path) if self.once_in(2) => {
                for letter in path.chars() {
                    match self.below(9) {
                        0 => line.push_str(self.pick::<&str>(PIECES)),
                        1 => line.extend(['\\', letter]),
                        2 => line.push('*'),
                        3 if letter.is_ascii() => line.push('?'),
                        _ => line.push(letter),
                    }
                }
            }
            _ => (0..=self.below(4)).for_each(|_| line.push_str(self.pick::<&str>(PIECES))),
        }
        for ending in ["/", " ", "\r"] {
            if self.once_in(8) {
                line.push_str(ending);
            }
        }
        line
    }
}

/// The paths below a folder, each with whether it is a folder.
type Paths = BTreeMap<Vec<u8>, bool>;

fn full(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsString::from_vec(path.to_vec()))
}

fn make_tree(random: &mut Random, root: &Path) -> Paths {
    #[rustfmt::skip]
    const NAMES: &[&[u8]] = &[
        b"a", b"b", b"ab", b"a.b", b".a", b"x.log", b"[x]", b"a b", b"a{b}", b"a]", b"a-", b"1", b"a\\b", b"!a",
        b"#a", "é".as_bytes(), b"\xff", b"a*b", b"^", b"a ",
    ];
    let mut paths = Paths::new();
    let mut folders = vec![Vec::new()];
    for _ in 0..14 {
        let folder: Vec<u8> = folders[random.below(folders.len())].clone();
        let name = random.pick(NAMES);
        let path = if folder.is_empty() { name.to_vec() } else { [&folder[..], b"/", name].concat() };
        if paths.contains_key(&path) {
            continue;
        }
        let is_dir = random.once_in(2);
        if is_dir {
            fs::create_dir(full(root, &path)).unwrap();
            folders.push(path.clone());
        } else {
            fs::write(full(root, &path), "").unwrap();
        }
        paths.insert(path, is_dir);
    }
    paths
}

fn make_files(random: &mut Random, root: &Path, paths: &Paths) -> Vec<IgnoreFile> {
    let folders = paths.iter().filter(|(_, is_dir)| **is_dir).map(|(path, _)| path.clone());
    let mut files = Vec::new();
    for folder in std::iter::once(Vec::new()).chain(folders) {
        if !folder.is_empty() && random.below(3) != 0 {
            continue;
        }
        let prefix = if folder.is_empty() { Vec::new() } else { [&folder[..], b"/"].concat() };
        let below: Vec<_> = paths.keys().filter_map(|path| path.strip_prefix(&prefix[..])).collect();
        let mut text = String::new();
        for _ in 0..=random.below(4) {
            let path = if below.is_empty() { None } else { Some(below[random.below(below.len())]) };
            text.push_str(&random.line(path.and_then(|path| std::str::from_utf8(path).ok())));
            text.push('\n');
        }
        let path = [&prefix[..], b".gitignore"].concat();
        fs::write(full(root, &path), &text).unwrap();
        files.push(IgnoreFile { path: RelativePath::parse(&path).unwrap().unwrap(), text: text.into() });
    }
    files
}

/// The paths of these that git excludes.
fn ignored_by_git(root: &Path, paths: &Paths) -> BTreeSet<Vec<u8>> {
    let mut git = Command::new("git")
        .args(["-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked: Vec<u8> = paths.keys().flat_map(|path| [b"./", &path[..], b"\0"].concat()).collect();
    git.stdin.take().unwrap().write_all(&asked).unwrap();
    let told = git.wait_with_output().unwrap().stdout;
    let told = told.split(|&byte| byte == 0).filter_map(|path| path.strip_prefix(b"./"));
    told.map(<[u8]>::to_vec).collect()
}

#[test]
fn ignore_files_exclude_what_git_excludes() {
    let mut random = Random::new(0x5eed_0f19);
    let (mut out, mut kept) = (0, 0);
    for number in 0..150 {
        let root = tempfile::tempdir().unwrap();
        assert!(
            Command::new("git").args(["init", "-q"]).current_dir(root.path()).status().unwrap().success()
        );
        let paths = make_tree(&mut random, root.path());
        let files = make_files(&mut random, root.path(), &paths);
        let rules = IgnoreRules::of(files.clone()).unwrap();
        let ignored = ignored_by_git(root.path(), &paths);
        for (path, &is_dir) in &paths {
            let kind = if is_dir { Kind::Folder } else { Kind::File };
            let is_out = rules.leaves_out(&RelativePath::parse(path).unwrap().unwrap(), kind);
            let shown = || {
                let texts = files.iter().map(|file| (&file.path, String::from_utf8_lossy(&file.text)));
                format!(
                    "tree {number}: {:?} by {:?}",
                    String::from_utf8_lossy(path),
                    texts.collect::<Vec<_>>()
                )
            };
            assert_eq!(is_out, ignored.contains(path), "{}", shown());
            *(if is_out { &mut out } else { &mut kept }) += 1;
        }
    }
    assert!(out > 200 && kept > 200, "{out} left out, {kept} kept");
}
