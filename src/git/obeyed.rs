//! Recognises what would make git obey the sandbox in a directory of the workspace.
//!
//! Git takes a directory for a repository, and obeys its configuration and hooks, if it has a `HEAD` beside `objects` and
//! `refs`, or beside a `commondir`. These may come one by one: some as files of the workspace, some in a commit that is checked
//! out later, some long before the others. So two rules hold for whatever comes from a sandbox, in files, commits and the index:
//! no `HEAD` that git accepts is taken over where there is none locally, and beside one that there is locally, nothing is
//! taken over that git runs or obeys.

use std::str;

use super::refs::Oid;

/// The file by which git knows a repository.
pub const HEAD: &[u8] = b"HEAD";

/// How many bytes of a `HEAD` git reads, and more.
pub const HEAD_BYTES: usize = 256;

/// Whether some volume takes a name for `HEAD`.
#[must_use]
pub fn is_head_name(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(HEAD)
}

/// Whether git accepts a file with that content as the `HEAD` of a repository (`validate_headref` in git's refs.c).
#[must_use]
pub fn is_head(content: &[u8]) -> bool {
    if let Some(named) = content.strip_prefix(b"ref:") {
        return named.trim_ascii_start().starts_with(b"refs/");
    }
    content.get(..40).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether git accepts a symbolic link with that target as the `HEAD` of a repository.
#[must_use]
pub fn is_head_link(target: &[u8]) -> bool {
    target.starts_with(b"refs/")
}

/// Whether git may write a `HEAD` that it accepts when it checks out that content.
///
/// The attributes of a commit can have text converted from UTF-8 (`working-tree-encoding`), and Git LFS replaces its pointers.
#[must_use]
pub fn may_become_head(content: &[u8]) -> bool {
    is_head(content)
        || content.starts_with(b"version https://")
        || (!content.is_ascii() && str::from_utf8(content).is_ok())
}

/// What git runs or obeys at the top of a repository.
const OBEYED: [&[u8]; 12] = [
    b"config",
    b"config.worktree",
    b"hooks",
    b"commondir",
    b"info",
    b"worktrees",
    b"modules",
    b"branches",
    b"remotes",
    b"rebase-merge",
    b"rebase-apply",
    b"sequencer",
];

/// Whether git runs or obeys a file of a repository, by its path in it, in any spelling that a volume may fold.
fn is_obeyed(inner: &[u8]) -> bool {
    let mut names = inner.split(|&byte| byte == b'/');
    let first = names.next().unwrap_or_default();
    OBEYED.iter().any(|name| first.eq_ignore_ascii_case(name))
        || (first.eq_ignore_ascii_case(b"objects")
            && names.next().is_some_and(|name| name.eq_ignore_ascii_case(b"info")))
}

/// The folders of a path in which git would run or obey what is there, if they were repositories. The tree itself is empty.
pub fn folders_obeying(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
    let starts = std::iter::once((0, 0)).chain(ends.map(|end| (end, end + 1)));
    starts.filter(|&(_, start)| is_obeyed(&path[start..])).map(|(end, _)| &path[..end])
}

/// The path of a `HEAD` in a folder.
#[must_use]
pub fn head_in(folder: &[u8]) -> Vec<u8> {
    if folder.is_empty() { HEAD.to_vec() } else { [folder, b"/", HEAD].concat() }
}

/// The folder and the name of a path.
#[must_use]
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|&byte| byte == b'/').map_or((&[], path), |at| (&path[..at], &path[at + 1..]))
}

/// What a commit, or the index, has that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    /// The commit; `None` for the index.
    pub commit: Option<Oid>,
    /// The path in the checkout.
    pub path: &'a [u8],
    /// Whether it is a symbolic link.
    pub is_link: bool,
    /// The content.
    pub content: Oid,
}

impl<'a> Change<'a> {
    /// An entry of a commit's tree, or of the index, as far as one of the two rules may concern it.
    pub fn of(commit: Option<&Oid>) -> impl Fn((&'a [u8], bool, Oid)) -> Option<Self> {
        move |(path, is_link, content)| {
            Some(Self { commit: commit.cloned(), path, is_link, content }).filter(Self::may_count)
        }
    }

    /// Whether one of the two rules may concern it.
    fn may_count(&self) -> bool {
        is_head_name(split(self.path).1) || folders_obeying(self.path).next().is_some()
    }
}

/// The mode of a symbolic link in a tree.
const LINK: &[u8] = b"120000";

/// The mode of a submodule's commit in a tree, which is no content.
const SUBMODULE: &[u8] = b"160000";

/// Reads what `git log -c --raw -z --no-abbrev --format=%H` lists, as far as one of the two rules may concern it. A file of a merge is
/// listed if it differs from those of all parents. `None` if it is malformed.
#[must_use]
pub fn changes_in_log(list: &[u8]) -> Option<Vec<Change<'_>>> {
    let mut changes = Vec::new();
    let mut commit = None;
    let mut tokens = list.split(|&byte| byte == 0);
    while let Some(token) = tokens.next() {
        let token = token.trim_ascii_start();
        if !token.starts_with(b":") {
            // An empty line separates a commit from what it changed.
            if !token.is_empty() {
                commit = Some(Oid::parse(token)?);
            }
            continue;
        }
        // One mode and one object for each parent, and those of the result.
        let parents = token.iter().take_while(|&&byte| byte == b':').count();
        let fields: Vec<&[u8]> = token[parents..].split(|&byte| byte == b' ').collect();
        let (mode, content) = (*fields.get(parents)?, *fields.get(2 * parents + 1)?);
        let path = tokens.next()?;
        // What was deleted has zeros.
        if mode == SUBMODULE || mode == b"000000" {
            continue;
        }
        let change =
            Change { commit: commit.clone(), path, is_link: mode == LINK, content: Oid::parse(content)? };
        changes.extend(Some(change).filter(Change::may_count));
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_git_accepts_as_one() {
        let oid = [b'a'; 40];
        for (content, expected) in [
            (&b"ref: refs/heads/main\n"[..], true),
            (b"ref:refs/x", true),
            (b"ref:\t \n refs/heads/main", true),
            (&oid, true),
            (b"ref: heads/main", false),
            (b"REF: refs/heads/main", false),
            (b" ref: refs/heads/main", false),
            (b"{\"method\": \"HEAD\"}", false),
            (&oid[..39], false),
            (b"", false),
        ] {
            assert_eq!(is_head(content), expected, "{content:?}");
            assert_eq!(may_become_head(content), expected, "{content:?}");
        }
        for content in ["\u{102}\u{ce}".as_bytes(), b"version https://git-lfs.github.com/spec/v1\n"] {
            assert!(may_become_head(content) && !is_head(content), "{content:?}");
        }
        // Git does not convert what is no text.
        assert!(!may_become_head(b"\x7fELF\xff\0"));
        assert!(is_head_link(b"refs/heads/main") && !is_head_link(b"../refs/heads/main"));
    }

    #[test]
    fn folders_in_which_git_would_obey_a_path() {
        for (path, expected) in [
            ("config", &[""][..]),
            ("a/b/config", &["a/b"]),
            ("a/Hooks/x", &["a"]),
            ("hooks/modules/x", &["", "hooks"]),
            ("x/objects/info/alternates", &["x", "x/objects"]),
            ("x/objects/ab/cd", &[]),
            ("x/HEAD", &[]),
            ("x/config.js", &[]),
            ("x/refs/heads/main", &[]),
        ] {
            let found: Vec<_> =
                folders_obeying(path.as_bytes()).map(|folder| str::from_utf8(folder).unwrap()).collect();
            assert_eq!(found, expected, "{path}");
        }
        assert_eq!((head_in(b""), head_in(b"a/b")), (b"HEAD".to_vec(), b"a/b/HEAD".to_vec()));
    }

    #[test]
    fn a_log_is_read_with_merges_and_odd_names() {
        let oid = |digit: char| Oid::parse(digit.to_string().repeat(40).as_bytes()).unwrap();
        let zeros = "0".repeat(40);
        let list = [
            format!(
                "{}\0\0::100644 100644 120000 {} {} {} MM\0d/HEAD\0",
                oid('a'),
                oid('1'),
                oid('2'),
                oid('3')
            ),
            format!("{}\0\n:000000 100644 {zeros} {} A\0 \nx/config\0", oid('b'), oid('4')),
            format!(":100644 000000 {} {zeros} D\0y/config\0", oid('4')),
            format!(":100644 160000 {} {} T\0HEAD\0", oid('4'), oid('5')),
            format!(":100644 100755 {} {} M\0readme\0", oid('4'), oid('5')),
            format!("{}\0", oid('c')),
        ]
        .concat();
        let change = |commit, path, is_link, content| Change {
            commit: Some(oid(commit)),
            path,
            is_link,
            content: oid(content),
        };
        let expected = vec![change('a', &b"d/HEAD"[..], true, '3'), change('b', b" \nx/config", false, '4')];
        assert_eq!(changes_in_log(list.as_bytes()), Some(expected));
        for malformed in ["x", ":100644 100644", ":100644 100644 a b M\0x/config"] {
            assert_eq!(changes_in_log(malformed.as_bytes()), None, "{malformed}");
        }
        assert_eq!(changes_in_log(b""), Some(Vec::new()));
    }
}
