//! Recognises what would make git obey the sandbox in a directory of the workspace.
//!
//! Git takes a directory for a repository, and obeys its configuration and hooks, if it has a `HEAD` beside `objects` and
//! `refs`, or beside a `commondir`. These may come one by one: some as files of the workspace, some in a commit that is checked
//! out later, some long before the others. What a checkout or a merge makes of a file in a commit is not known either. So for
//! whatever comes from a sandbox:
//!
//! - No new file named `HEAD` comes in a commit or the index, whatever it contains, and none that git accepts comes as a file of the
//!   workspace. (A merge has the files of its parents, which are not new.)
//! - Beside a local `HEAD` that git accepts, nothing comes that git runs or obeys; beside any other, nothing that would complete a
//!   repository.
//! - Where a local repository has stored a fixture in any folder, no configuration and no hook comes: see [`stored`](super::stored).
//! - A `HEAD` may come from where nobody has looked. So no folder gets all the rest either: `objects`, `refs`, and a configuration or hook,
//!   with what any commit in the local history has there. No `commondir` comes at all.

use std::collections::HashSet;
use std::str;

use super::index::kind_of;
use super::refs::{Oid, folders_of};
use crate::fs::Kind;
use crate::path::RelativePath;
use crate::tree::stage::is_in_runtime;

/// The file by which git knows a repository.
pub const HEAD: &[u8] = b"HEAD";

/// How many bytes of a `HEAD` git reads, and more.
pub const HEAD_BYTES: usize = 256;

/// Whether some volume takes a name for `HEAD`.
#[must_use]
pub fn is_head_name(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(HEAD)
}

/// Whether a path is that of a `HEAD`, in any spelling.
#[must_use]
pub fn is_head_path(path: &[u8]) -> bool {
    is_head_name(split(path).1)
}

/// Whether git accepts a file with that content as the `HEAD` of a repository (`validate_headref` in git's refs.c).
#[must_use]
pub fn is_head(content: &[u8]) -> bool {
    if let Some(named) = content.strip_prefix(b"ref:") {
        return named.trim_ascii_start().starts_with(b"refs/");
    }
    content.get(..DIGITS).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether git accepts a symbolic link with that target as the `HEAD` of a repository.
#[must_use]
pub fn is_head_link(target: &[u8]) -> bool {
    target.starts_with(b"refs/")
}

/// How many digits the shortest name of an object has.
const DIGITS: usize = 40;

/// Whether git may write a `HEAD` that it accepts when it checks out that content.
///
/// Git LFS replaces its pointers, and attributes can have text converted from UTF-8 to any encoding that iconv knows
/// (`working-tree-encoding`). Such an encoding has ASCII's printable characters where ASCII has them, or it is a variant of EBCDIC: there
/// a colon comes of a control character alone, and hexadecimal digits of those, of punctuation (`/` becomes `a`) and, in the
/// variants with katakana, of the letters `a` to `e`.
#[must_use]
pub fn may_become_head(content: &[u8]) -> bool {
    if is_head(content) || content.starts_with(b"version ") {
        return true;
    }
    let begin = &content[..content.len().min(DIGITS)];
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
    let stays_no_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'g'..=b'z');
    let may_be_converted =
        !begin.iter().all(is_plain) || (begin.len() == DIGITS && !begin.iter().any(stays_no_digit));
    // Git leaves what is not UTF-8 as it is.
    may_be_converted && str::from_utf8(content).is_ok()
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
    folders_with_rest(path).filter(|&(_, inner)| is_obeyed(inner)).map(|(folder, _)| folder)
}

/// The hooks of git (githooks(5)).
pub const HOOKS: [&[u8]; 28] = [
    b"applypatch-msg",
    b"commit-msg",
    b"fsmonitor-watchman",
    b"p4-changelist",
    b"p4-post-changelist",
    b"p4-pre-submit",
    b"p4-prepare-changelist",
    b"post-applypatch",
    b"post-checkout",
    b"post-commit",
    b"post-index-change",
    b"post-merge",
    b"post-receive",
    b"post-rewrite",
    b"post-update",
    b"pre-applypatch",
    b"pre-auto-gc",
    b"pre-commit",
    b"pre-merge-commit",
    b"pre-push",
    b"pre-rebase",
    b"pre-receive",
    b"prepare-commit-msg",
    b"proc-receive",
    b"push-to-checkout",
    b"reference-transaction",
    b"sendemail-validate",
    b"update",
];

/// Whether a name is that of a hook.
#[must_use]
pub fn is_hook(name: &[u8]) -> bool {
    HOOKS.iter().any(|hook| name.eq_ignore_ascii_case(hook))
}

/// Whether a file of a repository makes git run something, by its path in it: all that is missing where the rest of a repository
/// is. Few other files have such names.
fn is_run(inner: &[u8]) -> bool {
    const RUN: [&[u8]; 4] = [b"config", b"config.worktree", b"commondir", b"hooks"];
    match inner.iter().position(|&byte| byte == b'/') {
        None => RUN.iter().any(|name| inner.eq_ignore_ascii_case(name)),
        Some(at) => inner[..at].eq_ignore_ascii_case(b"hooks") && is_hook(&inner[at + 1..]),
    }
}

/// The folders of a path in which what is there would make git run something, if they were repositories.
pub fn folders_running(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    folders_with_rest(path).filter(|&(_, inner)| is_run(inner)).map(|(folder, _)| folder)
}

/// A part of a repository, beside its `HEAD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its objects.
    Objects,
    /// Its references.
    References,
    /// A configuration or a hook.
    Run,
    /// A file that says where all of these are.
    Elsewhere,
}

/// Which parts of a repository a folder has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    objects: bool,
    references: bool,
    run: bool,
}

impl Parts {
    /// Adds a part.
    pub fn add(&mut self, part: Part) {
        match part {
            Part::Objects => self.objects = true,
            Part::References => self.references = true,
            Part::Run => self.run = true,
            Part::Elsewhere => {}
        }
    }

    /// What is in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            objects: self.objects || other.objects,
            references: self.references || other.references,
            run: self.run || other.run,
        }
    }

    /// Whether something runs.
    #[must_use]
    pub fn runs(self) -> bool {
        self.run
    }

    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self { objects: true, references: true, run: true }
    }

    /// Whether it has a part that the other lacks.
    #[must_use]
    pub fn exceeds(self, other: Self) -> bool {
        other.or(self) != other
    }

    /// The same, with what runs only if the other has it.
    #[must_use]
    pub fn with_run(self, other: Self) -> Self {
        Self { run: other.run, ..self }
    }

    /// Whether only a `HEAD`, and something that runs, is missing.
    #[must_use]
    pub fn stores(self) -> bool {
        self.objects && self.references
    }

    /// Whether a part of the sandbox's is held back where a folder has these parts with it, and had `before` locally. What the
    /// local side had may be beside its own configuration.
    #[must_use]
    pub fn is_completed_by(self, part: Part, before: Self) -> bool {
        match part {
            Part::Run => self.stores(),
            Part::Objects | Part::References => self.stores() && self.run && !before.stores(),
            Part::Elsewhere => true,
        }
    }
}

/// The parts of repositories that a path is, or is in, each with the folder that would be the repository.
pub fn parts(path: &[u8]) -> impl Iterator<Item = (&[u8], Part)> {
    folders_with_rest(path).filter_map(|(folder, inner)| {
        let first = inner.split(|&byte| byte == b'/').next().unwrap_or_default();
        let is = |name: &[u8]| first.eq_ignore_ascii_case(name);
        let part = if is(b"objects") {
            Part::Objects
        } else if is(b"refs") {
            Part::References
        } else if inner.eq_ignore_ascii_case(b"commondir") {
            Part::Elsewhere
        } else if is_run(inner) {
            Part::Run
        } else {
            return None;
        };
        Some((folder, part))
    })
}

/// The paths in a folder at which a repository has its objects and references.
#[must_use]
pub fn paths_of_stores(folder: &[u8]) -> [(Vec<u8>, Part); 2] {
    [(below(folder, b"objects"), Part::Objects), (below(folder, b"refs"), Part::References)]
}

/// The paths in a folder at which a repository has its parts.
pub fn paths_of_parts(folder: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    [&b"objects"[..], b"refs", b"config", b"config.worktree", b"hooks"]
        .into_iter()
        .map(move |name| below(folder, name))
}

/// The paths in a folder at which a repository has what makes git run something.
pub fn paths_of_runs(folder: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let hooks = HOOKS.into_iter().map(move |hook| below(folder, &[b"hooks/", hook].concat()));
    [&b"config"[..], b"config.worktree", b"hooks"]
        .into_iter()
        .map(move |name| below(folder, name))
        .chain(hooks)
}

fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// The folders of a path in which what is there would complete a repository that has a `HEAD`.
pub fn folders_completing(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    const PARTS: [&[u8]; 3] = [b"objects", b"refs", b"commondir"];
    let is_part = |inner: &[u8]| {
        let first = inner.split(|&byte| byte == b'/').next().unwrap_or_default();
        PARTS.iter().any(|part| first.eq_ignore_ascii_case(part))
    };
    folders_with_rest(path).filter(move |&(_, inner)| is_part(inner)).map(|(folder, _)| folder)
}

/// The folders of a path, beginning with the tree itself, which is empty, and the path in each.
fn folders_with_rest(path: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::once((&b""[..], path))
        .chain(folders_of(path).map(|folder| (folder, &path[folder.len() + 1..])))
}

/// The path of a `HEAD` in a folder.
#[must_use]
pub fn head_in(folder: &[u8]) -> Vec<u8> {
    below(folder, HEAD)
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
    /// What it is in the workspace. A submodule is a folder.
    pub kind: Kind,
    /// Its blob, or the commit of a submodule.
    pub content: Oid,
}

impl<'a> Change<'a> {
    /// An entry of a commit's tree, or of the index, as far as one of these rules may concern it. `replacing` are the paths at
    /// which it would replace a local repository.
    pub fn of<'r>(
        commit: Option<&'r Oid>,
        replacing: &'r HashSet<Vec<u8>>,
    ) -> impl Fn((&'a [u8], Kind, Oid)) -> Option<Self> + use<'a, 'r> {
        move |(path, kind, content)| {
            let change = Self { commit: commit.cloned(), path, kind, content };
            Some(change).filter(|change| change.may_count() || replacing.contains(path))
        }
    }

    /// Whether it has the name of the folder for backups, or is in one of that name. A merge that follows a renamed folder may put it
    /// at the top, and so may the checkout of a branch that comes for another worktree.
    #[must_use]
    pub fn is_in_runtime(&self) -> bool {
        // Most names begin otherwise.
        let names = self.path.split(|&byte| byte == b'/');
        let mut may_be =
            names.filter(|name| name.first().is_some_and(|&first| first == b'.' || !first.is_ascii()));
        may_be.any(|name| RelativePath::parse(name).ok().flatten().is_some_and(|name| is_in_runtime(&name)))
    }

    /// Whether git would run it in some folder, if that were a repository: there, or where a merge puts it that follows a renamed
    /// folder, which keeps its name. A submodule may have hooks.
    #[must_use]
    pub fn is_run(&self) -> bool {
        let (_, name) = split(self.path);
        match self.kind {
            Kind::Folder => name.eq_ignore_ascii_case(b"hooks"),
            _ => is_hook(name) || folders_running(self.path).next().is_some(),
        }
    }

    /// The parts of repositories that it is, or is in. A submodule is a directory, which runs nothing.
    pub fn parts(&self) -> impl Iterator<Item = (&'a [u8], Part)> + use<'a> {
        let is_folder = self.kind == Kind::Folder;
        parts(self.path)
            .filter(move |(_, part)| !is_folder || matches!(part, Part::Objects | Part::References))
    }

    /// Whether one of these rules may concern it.
    fn may_count(&self) -> bool {
        self.is_in_runtime()
            || self.kind == Kind::Folder
            || is_head_path(self.path)
            || self.is_run()
            || folders_obeying(self.path).chain(folders_completing(self.path)).next().is_some()
    }
}

/// Reads what `git log -c --raw -z --no-abbrev --format=%H` lists, as far as one of these rules may concern it. A file of a merge is
/// listed if it differs from those of all parents. `None` if it is malformed.
#[must_use]
#[allow(clippy::implicit_hasher, reason = "the callers make the set for this")]
pub fn changes_in_log<'a>(list: &'a [u8], replacing: &HashSet<Vec<u8>>) -> Option<Vec<Change<'a>>> {
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
        if mode == b"000000" {
            continue;
        }
        let change =
            Change { commit: commit.clone(), path, kind: kind_of(mode), content: Oid::parse(content)? };
        changes.extend(Some(change).filter(|change| change.may_count() || replacing.contains(path)));
    }
    Some(changes)
}

/// The paths that such a list has. They follow the tokens that begin with a colon.
pub fn paths_in_log(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut tokens = list.split(|&byte| byte == 0);
    std::iter::from_fn(move || {
        loop {
            if tokens.next()?.trim_ascii_start().starts_with(b":") {
                return tokens.next();
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_and_hooks_run_in_the_folder_that_would_be_the_repository() {
        let cases: &[(&str, &[&str])] = &[
            ("config", &[""]),
            ("a/b/config", &["a/b"]),
            ("a/Config.Worktree", &["a"]),
            ("a/commondir", &["a"]),
            ("a/hooks", &["a"]),
            ("a/hooks/post-checkout", &["a"]),
            ("Hooks/PRE-COMMIT", &[""]),
            ("hooks/config", &["hooks"]),
            ("hooks/use.ts", &[]),
            ("hooks/deep/post-checkout", &[]),
            ("a/config/b", &[]),
            ("a/objects/x", &[]),
            ("a/config.js", &[]),
        ];
        for (path, expected) in cases {
            let found: Vec<_> = folders_running(path.as_bytes()).collect();
            assert_eq!(found, expected.iter().map(|folder| folder.as_bytes()).collect::<Vec<_>>(), "{path}");
        }
    }

    #[test]
    fn no_folder_gets_all_of_a_repository_but_its_head() {
        use Part::{Elsewhere, Objects, References, Run};
        let all = |list: &[Part]| {
            let mut parts = Parts::default();
            for &part in list {
                parts.add(part);
            }
            parts
        };
        let cases: &[(Part, &[Part], &[Part], bool)] = &[
            (Run, &[Run], &[], false),
            (Run, &[Run, Objects], &[], false),
            (Run, &[Run, Objects, References], &[], true),
            (Run, &[Run, Objects, References], &[Objects, References], true),
            (Run, &[Run, Objects, References], &[Run, Objects, References], true),
            (References, &[Objects, References], &[Objects], false),
            (References, &[Run, Objects, References], &[Run, Objects], true),
            (Objects, &[Run, Objects, References], &[], true),
            (Objects, &[Run, Objects], &[Run], false),
            (Objects, &[Run, Objects, References], &[Run, Objects, References], false),
            (Elsewhere, &[], &[], true),
        ];
        for (part, then, before, expected) in cases {
            assert_eq!(
                all(then).is_completed_by(*part, all(before)),
                *expected,
                "{part:?} {then:?} {before:?}"
            );
        }
    }

    #[test]
    fn the_parts_of_a_path() {
        use Part::{Elsewhere, Objects, References, Run};
        let cases: &[(&str, &[(&str, Part)])] = &[
            ("a/objects", &[("a", Objects)]),
            ("a/Objects/pack/x", &[("a", Objects)]),
            ("refs/objects/x", &[("", References), ("refs", Objects)]),
            ("a/config", &[("a", Run)]),
            ("a/hooks/update", &[("a", Run)]),
            ("a/commondir", &[("a", Elsewhere)]),
            ("a/commondir/x", &[]),
            ("a/HEAD", &[]),
        ];
        for (path, expected) in cases {
            let found: Vec<_> = parts(path.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|(folder, part)| (folder.as_bytes(), *part)).collect();
            assert_eq!(found, expected, "{path}");
        }
    }

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
        for content in [
            "\u{102}\u{ce}".as_bytes(),
            "re\u{444}: refs/heads/main".as_bytes(),
            "\u{440}ef: refs/heads/main".as_bytes(),
            b"version https://git-lfs.github.com/spec/v1\n",
            &[0x16; 40],
            &[b'/'; 40],
            &[b'{'; 41],
            b"/abcdeabcdeabcdeabcdeabcdeabcdeabcdeabcdeabcde",
        ] {
            assert!(may_become_head(content) && !is_head(content), "{content:?}");
        }
        for content in [
            &b"{\"method\": \"HEAD\", \"status\": 200, \"body\": null}"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"#!/bin/sh\nhead -n 1 \"$@\"\n",
            &[b'/'; 39],
        ] {
            assert!(!may_become_head(content), "{content:?}");
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
        let completing = |path: &'static str| {
            folders_completing(path.as_bytes())
                .map(|folder| str::from_utf8(folder).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(completing("a/objects/refs/x"), ["a", "a/objects"]);
        assert_eq!(completing("COMMONDIR"), [""]);
        assert!(completing("a/object/x").is_empty());
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
        let change = |commit, path, kind, content| Change {
            commit: Some(oid(commit)),
            path,
            kind,
            content: oid(content),
        };
        let expected = vec![
            change('a', &b"d/HEAD"[..], Kind::Symlink, '3'),
            change('b', b" \nx/config", Kind::File, '4'),
            change('b', b"HEAD", Kind::Folder, '5'),
        ];
        assert_eq!(changes_in_log(list.as_bytes(), &HashSet::new()), Some(expected));
        for malformed in ["x", ":100644 100644", ":100644 100644 a b M\0x/config"] {
            assert_eq!(changes_in_log(malformed.as_bytes(), &HashSet::new()), None, "{malformed}");
        }
        assert_eq!(changes_in_log(b"", &HashSet::new()), Some(Vec::new()));
        let paths: Vec<_> = paths_in_log(list.as_bytes()).map(|path| str::from_utf8(path).unwrap()).collect();
        assert_eq!(paths, ["d/HEAD", " \nx/config", "y/config", "HEAD", "readme"]);
    }
}
