//! Reads ignore files such as `.gitignore`, and decides with git's meaning what they exclude.
//!
//! They are read once, before anything is packed. The upload and the download both use what they said then.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Deserialize, Serialize};

use super::filter::{Filter, Rule};
use super::ignore_line::{anchored, with_gits_meaning};
use super::scan::scan_entering;
use crate::cancel::Cancel;
use crate::error::{Error, Result, readable};
use crate::fs::{Cursor, Kind, Root};
use crate::path::{RelativePath, path_from};

/// The maximum size of one ignore file, and of all in a folder together.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
const ALL_BYTES_MAX: u64 = 16 << 20;

/// The most lines with wildcards in all files, and the most bytes of these: in memory, such a line takes hundreds of times its size.
const WILDCARDS_MAX: usize = 25_000;
const WILDCARD_BYTES_MAX: usize = 512 * 1024;

/// The ignore file that is read at the root only, as by Docker.
const DOCKERIGNORE: &[u8] = b".dockerignore";

/// Git's own folder. It is never ignored by its name.
const DOT_GIT: &[u8] = b".git";

/// An ignore file as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoreFile {
    /// Where it is.
    pub path: RelativePath,
    /// Its content.
    pub text: Vec<u8>,
}

/// A line that matched nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct UnmatchedLine {
    /// The file that contains it.
    pub file: RelativePath,
    /// Its number, counted from 1.
    pub line: usize,
    /// The line as it is written.
    pub text: Vec<u8>,
}

/// What the ignore files of certain names exclude.
///
/// Files of one name work together as in git: of the files in the folders above a path, the innermost one
/// with a matching line decides, and within a file the last matching line. Everything in an excluded folder
/// is excluded, whatever other lines say. A path is excluded if the files of any of the names exclude it.
#[derive(Default)]
pub struct IgnoreRules {
    files: Vec<IgnoreFile>,
    /// By the name of the files, and then by the folder of each file; the root is empty.
    by_name: BTreeMap<Vec<u8>, HashMap<Vec<u8>, Matcher>>,
    /// How many lines have wildcards, and how many bytes these have.
    wildcards: (usize, usize),
    /// Cache: whether a folder is excluded.
    folders: RwLock<HashMap<RelativePath, bool>>,
}

/// The patterns of one file.
struct Matcher {
    patterns: Gitignore,
    /// For each line with a pattern, by its number: whether it has matched.
    lines: BTreeMap<usize, AtomicBool>,
}

impl fmt::Debug for IgnoreRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.iter().map(|file| &file.path)).finish()
    }
}

impl IgnoreRules {
    /// Reads the files of these names in all folders that are included by `filter` and by the files
    /// themselves. A symbolic link of such a name is not followed; git does not follow it either.
    pub fn read(root: &Root, names: &[Vec<u8>], filter: &Filter<'_>, cancel: &Cancel) -> Result<Self> {
        let names = names.iter().map(|name| checked_name(name)).collect::<Result<Vec<_>>>()?;
        let rules = RwLock::new(Self::default());
        if !names.is_empty() {
            let so_far = filter.clone().without("", Growing(&rules));
            let enter = |cursor: &mut Cursor<'_>, folder: Option<&RelativePath>| {
                for name in &names {
                    if folder.is_some() && name.name().as_encoded_bytes() == DOCKERIGNORE {
                        continue;
                    }
                    let path = folder.map_or_else(|| name.clone(), |folder| folder.join(name));
                    if let Some(text) = read_file(cursor, &path)? {
                        let mut rules = rules.write().unwrap_or_else(PoisonError::into_inner);
                        rules.add(IgnoreFile { path, text })?;
                    }
                }
                Ok(())
            };
            scan_entering(root, &so_far, &enter, cancel)?;
        }
        let mut rules = rules.into_inner().unwrap_or_else(PoisonError::into_inner);
        rules.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(rules)
    }

    /// The rules of files that were read before.
    pub fn of(files: impl IntoIterator<Item = IgnoreFile>) -> Result<Self> {
        let mut rules = Self::default();
        files.into_iter().try_for_each(|file| rules.add(file))?;
        Ok(rules)
    }

    /// The files, in byte order of their paths.
    #[must_use]
    pub fn files(&self) -> &[IgnoreFile] {
        &self.files
    }

    /// The lines that have matched nothing so far.
    #[must_use]
    pub fn unmatched(&self) -> Vec<UnmatchedLine> {
        let mut found = Vec::new();
        for file in &self.files {
            let (folder, name) = file.path.split();
            let Some(matcher) = self.by_name.get(name.as_encoded_bytes()).and_then(|all| all.get(folder))
            else {
                continue;
            };
            let lines: Vec<_> = file.text.split(|&byte| byte == b'\n').collect();
            let unused = matcher.lines.iter().filter(|(_, used)| !used.load(Ordering::Relaxed));
            found.extend(unused.map(|(&line, _)| UnmatchedLine {
                file: file.path.clone(),
                line,
                text: lines.get(line - 1).copied().unwrap_or_default().trim_ascii_end().to_vec(),
            }));
        }
        found
    }

    fn add(&mut self, file: IgnoreFile) -> Result<()> {
        let all: usize = self.files.iter().map(|file| file.text.len()).sum();
        if (all + file.text.len()) as u64 > ALL_BYTES_MAX {
            let limit = ALL_BYTES_MAX >> 20;
            return Err(refused(&file.path, &format!("with it the ignore files have more than {limit} MiB")));
        }
        let has_wildcard =
            |line: &&[u8]| !line.starts_with(b"#") && line.iter().any(|byte| b"*?[".contains(byte));
        for line in file.text.split(|&byte| byte == b'\n').filter(has_wildcard) {
            self.wildcards.0 += 1;
            self.wildcards.1 += line.len();
        }
        if self.wildcards.0 > WILDCARDS_MAX || self.wildcards.1 > WILDCARD_BYTES_MAX {
            let kilobytes = WILDCARD_BYTES_MAX / 1024;
            let reason = format!(
                "with it the ignore files have more than {WILDCARDS_MAX} lines with wildcards, or {kilobytes} KiB of them"
            );
            return Err(refused(&file.path, &reason));
        }
        let matcher = Matcher::new(&file)?;
        let (folder, name) = file.path.split();
        let of_name = self.by_name.entry(name.as_encoded_bytes().to_vec()).or_default();
        of_name.insert(folder.to_vec(), matcher);
        self.files.push(file);
        Ok(())
    }

    /// Whether a folder, or one above it, is excluded.
    fn is_folder_out(&self, folder: &RelativePath) -> bool {
        let known = self.folders.read().unwrap_or_else(PoisonError::into_inner).get(folder).copied();
        known.unwrap_or_else(|| {
            let is_out = self.is_out(folder, true);
            self.folders.write().unwrap_or_else(PoisonError::into_inner).insert(folder.clone(), is_out);
            is_out
        })
    }

    fn is_out(&self, path: &RelativePath, is_dir: bool) -> bool {
        path.parent().is_some_and(|folder| self.is_folder_out(&folder))
            || self.by_name.values().any(|files| decide(files, path, is_dir))
    }
}

impl Rule for IgnoreRules {
    fn leaves_out(&self, path: &RelativePath, kind: Kind) -> bool {
        if self.by_name.is_empty() {
            return false;
        }
        let is_gits = path.as_bytes().split(|&byte| byte == b'/').any(|name| name == DOT_GIT);
        if !is_gits {
            return self.is_out(path, kind == Kind::Folder);
        }
        // A repository stays or goes with the folder that it is in.
        let is_dot_git = |path: &RelativePath| path.name().as_encoded_bytes() == DOT_GIT;
        let dot_git = path.ancestors().find(is_dot_git).unwrap_or_else(|| path.clone());
        dot_git.parent().is_some_and(|folder| self.is_out(&folder, true))
    }
}

/// The rules while their files are being read: a file decides only about what is read after it.
struct Growing<'a>(&'a RwLock<IgnoreRules>);

impl Rule for Growing<'_> {
    fn leaves_out(&self, path: &RelativePath, kind: Kind) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).leaves_out(path, kind)
    }
}

/// Whether the files of one name exclude a path. Its folders must be included.
fn decide(files: &HashMap<Vec<u8>, Matcher>, path: &RelativePath, is_dir: bool) -> bool {
    let bytes = path.as_bytes();
    let slashes = (0..bytes.len()).rev().filter(|&at| bytes[at] == b'/');
    let folders = slashes.map(|at| (&bytes[..at], &bytes[at + 1..])).chain([(&bytes[..0], bytes)]);
    for (folder, below) in folders {
        if let Some(is_out) = files.get(folder).and_then(|file| file.decide(below, is_dir)) {
            return is_out;
        }
    }
    false
}

impl Matcher {
    fn new(file: &IgnoreFile) -> Result<Self> {
        let is_anchored = file.path.as_bytes() == DOCKERIGNORE;
        let mut builder = GitignoreBuilder::new("");
        let mut lines = BTreeMap::new();
        let text = file.text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&file.text);
        for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                continue;
            }
            let number = at + 1;
            let Ok(line) = std::str::from_utf8(line) else {
                let reason = format!("its line {number} is not UTF-8, so it cannot be matched");
                return Err(refused(&file.path, &reason));
            };
            lines.insert(number, AtomicBool::default());
            let line = if is_anchored { anchored(line) } else { Some(line.to_owned()) };
            // A line that is no pattern to git, or that the matcher cannot parse, matches nothing.
            let Some(line) = line.as_deref().and_then(with_gits_meaning) else { continue };
            let _no_pattern = builder.add_line(Some(PathBuf::from(number.to_string())), &line).is_err();
        }
        let patterns = builder.build().map_err(|error| refused(&file.path, &error.to_string()))?;
        Ok(Self { patterns, lines })
    }

    /// Whether a path below the file's folder is excluded; `None` if no line matches it.
    fn decide(&self, below: &[u8], is_dir: bool) -> Option<bool> {
        let (glob, is_out) = match self.patterns.matched(path_from(below), is_dir) {
            Match::None => return None,
            Match::Ignore(glob) => (glob, true),
            Match::Whitelist(glob) => (glob, false),
        };
        let line = glob.from().and_then(|line| line.to_str()).and_then(|line| line.parse().ok());
        if let Some(used) = line.and_then(|line: usize| self.lines.get(&line)) {
            used.store(true, Ordering::Relaxed);
        }
        Some(is_out)
    }
}

/// Checks a name that is to be searched in every folder.
fn checked_name(name: &[u8]) -> Result<RelativePath> {
    let path = RelativePath::parse(name).ok().flatten();
    path.filter(|path| path.as_bytes() == name && path.parent().is_none()).ok_or_else(|| {
        Error::InvalidArgValue {
            argument: "input.ignoreFiles".to_owned(),
            reason: "it must name files such as '.gitignore', without a directory".to_owned(),
            received: readable(name),
        }
    })
}

fn refused(path: &RelativePath, reason: &str) -> Error {
    Error::InvalidArgValue {
        argument: "input.ignoreFiles".to_owned(),
        reason: format!("{reason}; fix '{path}', or do not name it. Nothing was changed"),
        received: path.to_string(),
    }
}

/// The content of a regular file; `None` if there is none.
fn read_file(cursor: &mut Cursor<'_>, path: &RelativePath) -> Result<Option<Vec<u8>>> {
    if !cursor.stat(path)?.is_some_and(|meta| meta.kind == Kind::File) {
        return Ok(None);
    }
    let opened = cursor.open(path).map_err(|error| {
        error
            .with_hint("what it excludes is unknown; let this user read it, or do not name it in ignoreFiles")
    })?;
    let Some((file, _)) = opened else { return Ok(None) };
    let mut text = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| Error::io("read", cursor.path_of(path), error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(path, &format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(name: impl AsRef<[u8]>) -> RelativePath {
        RelativePath::parse(name.as_ref()).unwrap().unwrap()
    }

    fn rules(files: &[(&str, &str)]) -> IgnoreRules {
        let file = |&(name, text): &(&str, &str)| IgnoreFile { path: path(name), text: text.into() };
        IgnoreRules::of(files.iter().map(file)).unwrap()
    }

    fn leaves_out(rules: &IgnoreRules, name: &str) -> bool {
        let kind = if name.ends_with('/') { Kind::Folder } else { Kind::File };
        rules.leaves_out(&path(name.trim_end_matches('/')), kind)
    }

    #[test]
    fn each_path_is_excluded_by_the_right_files() {
        let git = |text| vec![(".gitignore", text)];
        for (files, out, kept) in [
            (
                git("dist/\n*.log"),
                &["dist/", "dist/a", "a/dist/b", "a.log", "a/b.log"][..],
                &["dist", "a"][..],
            ),
            (git("/a"), &["a", "a/b"], &["b/a"]),
            (git("*\n!*/\n!*.rs"), &["a", "b/a"], &["b/", "b/a.rs", "a.rs"]),
            (git("x\n!x/"), &["x"], &["x/", "x/a"]),
            // Nothing comes back from what is left out.
            (git("a/\n!a/b"), &["a/", "a/b"], &[]),
            (git("a/*\n!a/b"), &["a/c"], &["a/", "a/b"]),
            (git("\u{feff}bom\r\n# not this\n\\#that\n\\!so"), &["bom", "#that", "!so"], &["not this"]),
            (git("*"), &["a", "a/.git", "a/.git/x"], &[".git/", ".git/config"]),
            (git("/b\nx"), &["b/.git/HEAD", "x/.git"], &["a/.git/", ".git/b", "a/.git/refs/heads/x"]),
            (
                vec![(".gitignore", "*.log\nb"), ("a/.gitignore", "!keep.log\n/b\n!c")],
                &["keep.log", "a/other.log", "a/b", "a/c/b"],
                &["a/keep.log", "a/c/keep.log", "a/c"],
            ),
            // Each name by itself.
            (vec![(".gitignore", "a\nb"), (".other", "!a\nc")], &["a", "b", "c"], &["d"]),
            (vec![(".dockerignore", "a\nb/c/\n**/d")], &["a", "b/c", "d", "x/d"], &["x/a", "b", "x/b/c"]),
            (vec![], &[], &["a"]),
        ] {
            let rules = rules(&files);
            for name in out {
                assert!(leaves_out(&rules, name), "{files:?} leave out {name}");
            }
            for name in kept {
                assert!(!leaves_out(&rules, name), "{files:?} keep {name}");
            }
        }
    }

    #[test]
    fn names_that_are_not_utf_8_are_matched_by_their_bytes() {
        let rules = rules(&[(".gitignore", "*.log\n???")]);
        assert!(rules.leaves_out(&path(b"\xff.log"), Kind::File));
        assert!(rules.leaves_out(&path(b"a\xff\xfe"), Kind::File));
        assert!(!rules.leaves_out(&path(b"\xff.txt"), Kind::File));
    }

    #[test]
    fn a_line_that_matches_nothing_is_reported_with_its_number() {
        let rules =
            rules(&[("a/.gitignore", "# comment\n\nnone  \nb\n[broken"), (".gitignore", "*.log\r\n")]);
        assert!(leaves_out(&rules, "a/b"));
        let unmatched: Vec<_> = rules.unmatched().into_iter().map(|line| (line.line, line.text)).collect();
        assert_eq!(unmatched, [(3, b"none".to_vec()), (5, b"[broken".to_vec()), (1, b"*.log".to_vec())]);
        assert!(leaves_out(&rules, "a/x.log"));
        assert_eq!(rules.unmatched().len(), 2);
    }

    fn read(root: &std::path::Path, names: &[&str]) -> Result<IgnoreRules> {
        let names: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let filter = Filter::by_name(|path| path.top() == b"excluded");
        IgnoreRules::read(&Root::open(root)?, &names, &filter, &Cancel::default())
    }

    #[test]
    fn files_are_read_in_every_included_folder() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["a/b", "excluded", "ignored/deep", "docker", "a/.dockerignore"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in [".gitignore", "a/b/.gitignore", "excluded/.gitignore", "ignored/deep/.gitignore"] {
            fs::write(at(file), "ignored").unwrap();
        }
        fs::write(at(".dockerignore"), "").unwrap();
        fs::write(at("docker/.dockerignore"), "").unwrap();
        symlink("../.gitignore", at("docker/.gitignore")).unwrap();
        let rules = read(root.path(), &[".gitignore", ".dockerignore"]).unwrap();
        let read_files: Vec<_> = rules.files().iter().map(|file| file.path.to_string()).collect();
        assert_eq!(read_files, [".dockerignore", ".gitignore", "a/b/.gitignore"]);
        assert!(read(root.path(), &[]).unwrap().files().is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_or_parsed_is_refused_by_name() {
        for (text, complaint) in [
            (b"a\n\xff".to_vec(), "its line 2 is not UTF-8"),
            (vec![b'a'; (1 << 20) + 1], "it is larger than 1 MiB"),
        ] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("a")).unwrap();
            fs::write(root.path().join("a/.gitignore"), text).unwrap();
            let error = read(root.path(), &[".gitignore"]).unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_ARG_VALUE");
            assert!(error.to_string().contains(complaint), "{error}");
            assert!(error.to_string().contains("a/.gitignore"), "{error}");
        }
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".gitignore"), b"# \xff\na").unwrap();
        assert!(read(root.path(), &[".gitignore"]).is_ok(), "a comment is no pattern");
        for name in ["", ".", "..", "a/b", "/a", "a/"] {
            let error = read(root.path(), &[name]).unwrap_err();
            assert!(error.to_string().contains("without a directory"), "{name:?}: {error}");
        }
        // Many that are small each.
        for number in 0..17 {
            let folder = root.path().join(number.to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(".gitignore"), "# a\n".repeat(260_000)).unwrap();
        }
        let error = read(root.path(), &[".gitignore"]).unwrap_err();
        assert!(error.to_string().contains("have more than 16 MiB"), "{error}");
        let root = tempfile::tempdir().unwrap();
        let lines = |count: usize| format!("*.o\n{}", "# *\na\n".repeat(count));
        fs::write(root.path().join(".gitignore"), lines(30_000)).unwrap();
        assert!(read(root.path(), &[".gitignore"]).is_ok(), "others cost little");
        for text in ["*.o\n".repeat(WILDCARDS_MAX + 1), format!("*{}\n", "x".repeat(1023)).repeat(513)] {
            fs::write(root.path().join(".gitignore"), text).unwrap();
            let error = read(root.path(), &[".gitignore"]).unwrap_err();
            assert!(error.to_string().contains("25000 lines with wildcards, or 512 KiB of them"), "{error}");
        }
    }
}
