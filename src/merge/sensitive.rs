//! Files that tools run or obey without being asked: which of them deserve a look after a restore, and which
//! are never restored. Pure: no I/O, tested by tables.

use std::sync::Arc;

use crate::git::links::LINKS_MAX;
use crate::path::RelativePath;
use crate::tree::entry::Entry;
use crate::tree::stage::folded_name;

/// Names that make their entry, and everything below it, sensitive.
const ANYWHERE: [(&str, &str); 12] = [
    (".vscode", "an editor runs or obeys what is in it"),
    (".idea", "an editor runs or obeys what is in it"),
    (".cursor", "an editor runs or obeys what is in it"),
    (".husky", "git runs what is in it as hooks"),
    (".jj", "Jujutsu obeys the settings in it"),
    (".sl", "Sapling obeys the settings in it"),
    (".mcp.json", "an agent starts the servers that it names"),
    (".envrc", "a shell runs it on entering the directory"),
    (".pnpmfile.cjs", "a package manager runs it"),
    (".gitattributes", "git applies the filters that it names"),
    (".gitmodules", "git fetches from the addresses that it names"),
    (".lfsconfig", "git-lfs sends to the address that it names"),
];
/// A folder of which only some files are sensitive.
const CLAUDE: &str = ".claude";
const PACKAGE_MANAGER: &str = "a package manager obeys it";
const AGENT: &str = "an agent runs the hooks that it names";
/// The reason for a link that leads out of the workspace.
pub const LEADS_OUT: &str = "it is a link that leaves the workspace";
const EXECUTABLE: &str = "it has become executable";
const MERCURIAL: &str = "Mercurial runs what it names";

/// The target that a look gives once it has looked too much: the link counts as leading out of the workspace.
pub const ANYWHERE_ELSE: &[u8] = b"/";

/// Tells the target of the link at a path, if one is there.
pub type Look<'a> = &'a mut dyn FnMut(&RelativePath) -> Option<Arc<[u8]>>;

/// Why a path that was written deserves a look, if it does. `was_executable` tells whether an executable file
/// was there before, and `look` what links are there after the merge.
#[must_use]
pub fn sensitive(
    path: &RelativePath,
    entry: &Entry,
    was_executable: impl FnOnce() -> bool,
    look: Look<'_>,
) -> Option<&'static str> {
    by_name(path).or_else(|| match entry {
        Entry::Symlink { target } if leads_out(path, target, look) => Some(LEADS_OUT),
        Entry::File { mode, .. } if mode & 0o111 != 0 && !was_executable() => Some(EXECUTABLE),
        _ => None,
    })
}

/// Whether a link at a path may lead to what tools run or obey because of the link's name.
#[must_use]
pub fn is_known(path: &RelativePath) -> bool {
    by_name(path).is_some() || folded_name(path.name().as_encoded_bytes()) == CLAUDE
}

/// Why a path deserves a look by its names alone, if it does.
#[must_use]
pub fn by_name(path: &RelativePath) -> Option<&'static str> {
    let names = || path.as_bytes().split(|&byte| byte == b'/');
    // Every such name begins with a dot, before which a file system may ignore characters that are not ASCII.
    if !names().any(|name| name[0] == b'.' || !name[0].is_ascii()) {
        return None;
    }
    let names: Vec<String> = names().map(folded_name).collect();
    for (at, name) in names.iter().enumerate() {
        if let Some((_, reason)) = ANYWHERE.iter().find(|(known, _)| name == known) {
            return Some(reason);
        }
        if name == ".npmrc" || name.starts_with(".yarnrc") {
            return Some(PACKAGE_MANAGER);
        }
        let is_settings =
            || name.strip_prefix("settings").is_some_and(|rest| rest.strip_suffix(".json").is_some());
        if at > 0 && names[at - 1] == CLAUDE && is_settings() {
            return Some(AGENT);
        }
    }
    None
}

/// How many names the way of a link may have. No ordinary one has as many, and each is looked up.
const NAMES_MAX: usize = 256;

/// Whether the way of a link at `path` leads out of the root, even if it comes back. Links on it are followed as the kernel does: one of
/// too many links leads nowhere. One of too many names counts as leading out, since it is not followed.
///
/// What is no link is taken for a folder, whether it exists or not, since the sandbox may make it later.
pub fn leads_out(path: &RelativePath, target: &[u8], look: Look<'_>) -> bool {
    let mut at = path.split().0.to_vec();
    // The name to be taken next is the last one.
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    let mut next: Option<Arc<[u8]>> = Some(target.into());
    for _ in 0..LINKS_MAX {
        let Some(target) = next.take() else { return false };
        if target.first() == Some(&b'/') {
            return true;
        }
        let names = target.split(|&byte| byte == b'/');
        if waiting.len() + names.clone().count() > NAMES_MAX {
            return true;
        }
        waiting.extend(names.rev().map(<[u8]>::to_vec));
        while let Some(name) = waiting.pop() {
            match &name[..] {
                b"" | b"." => {}
                b".." if at.is_empty() => return true,
                b".." => at.truncate(above(&at)),
                name => {
                    let length = at.len();
                    if length > 0 {
                        at.push(b'/');
                    }
                    at.extend_from_slice(name);
                    next = RelativePath::parse(&at).ok().flatten().and_then(|path| look(&path));
                    if next.is_some() {
                        at.truncate(length);
                        break;
                    }
                }
            }
        }
    }
    false
}

/// The length of the path above one of names.
fn above(path: &[u8]) -> usize {
    path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)
}

/// Why a path is not taken over from the sandbox, whatever changed there: it would run something here.
/// `theirs` is the sandbox's entry.
#[must_use]
pub fn held_back(path: &RelativePath, theirs: Option<&Entry>) -> Option<&'static str> {
    // The names end with these letters, after which a file system may ignore characters that are not ASCII.
    let last = path.name().as_encoded_bytes().last()?;
    if !matches!(last | 0x20, b'g' | b'c' | b'd' | b'h') && last.is_ascii() {
        return None;
    }
    let name = folded_name(path.name().as_encoded_bytes());
    if name == ".hg" && theirs.is_some_and(|entry| !entry.is_folder()) {
        return Some(MERCURIAL);
    }
    let is_configuration = matches!(&*name, "hgrc" | "hgrc-not-shared" | "sharedpath");
    let folder = path.parent().filter(|_| is_configuration)?;
    (folded_name(folder.name().as_encoded_bytes()) == ".hg").then_some(MERCURIAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::entry::Digest;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    fn file(mode: u32) -> Entry {
        Entry::File { mode, digest: Digest([1; 32]) }
    }

    #[test]
    fn files_that_tools_run_unasked_are_reported_at_any_depth() {
        let plain = file(0o644);
        for (name, is_sensitive) in [
            (".vscode/tasks.json", true),
            (".vscode", true),
            (".VSCode/tasks.json", true),
            (".vs\u{200d}code/tasks.json", true),
            ("vscode/tasks.json", false),
            (".idea/workspace.xml", true),
            (".cursor/rules", true),
            (".husky/pre-commit", true),
            (".jj/repo/config.toml", true),
            (".sl/config", true),
            (".claude/settings.json", true),
            (".claude/settings.local.json", true),
            (".claude/skills/x.md", false),
            ("settings.json", false),
            (".mcp.json", true),
            ("mcp.json", false),
            (".envrc", true),
            (".env", false),
            (".npmrc", true),
            (".yarnrc", true),
            (".yarnrc.yml", true),
            (".yarn/x", false),
            (".pnpmfile.cjs", true),
            (".gitattributes", true),
            (".gitmodules", true),
            (".gitignore", false),
            ("src/main.rs", false),
        ] {
            for path_text in [name.to_owned(), format!("deep/er/{name}")] {
                let reason = sensitive(&path(&path_text), &plain, || false, &mut |_| None);
                assert_eq!(reason.is_some(), is_sensitive, "{path_text}: {reason:?}");
            }
        }
    }

    #[test]
    fn names_that_tools_know_are_told_apart() {
        for (name, known) in [
            (".envrc", true),
            ("d/.vscode", true),
            (".vscode/tasks.json", true),
            (".claude", true),
            ("d/.CLAUDE", true),
            (".claude/settings.json", true),
            (".claude/notes.md", false),
            ("envrc", false),
            ("zz", false),
        ] {
            assert_eq!(is_known(&path(name)), known, "{name}");
        }
    }

    #[test]
    fn links_that_leave_the_workspace_are_reported() {
        for (at, target, leaves) in [
            ("l", "x", false),
            ("l", "./x/../y", false),
            ("l", "..", true),
            ("l", "../x", true),
            ("l", "x/../../y", true),
            ("a/l", "../x", false),
            ("a/l", "../../x", true),
            ("a/b/l", "../../x", false),
            ("l", "/etc/passwd", true),
        ] {
            let link = Entry::Symlink { target: target.as_bytes().into() };
            let reason = sensitive(&path(at), &link, || false, &mut |_| None);
            assert_eq!(reason.is_some(), leaves, "{at} -> {target}");
        }
    }

    #[test]
    fn the_way_of_a_link_is_that_of_the_kernel() {
        let mut links = vec![
            ("up", "..".to_owned()),
            ("d/up", "..".to_owned()),
            ("d/e/top", "../..".to_owned()),
            ("deep", "a/b/".to_owned()),
            ("abs", "/etc".to_owned()),
            ("loop", "loop/x".to_owned()),
        ];
        let chain: Vec<String> = (0..=LINKS_MAX).map(|number| format!("c{number}")).collect();
        links.extend(chain.iter().zip(&chain[1..]).map(|(from, to)| (&from[..], to.clone())));
        links.push((&chain[LINKS_MAX], "..".to_owned()));
        let mut look = |at: &RelativePath| {
            let link = links.iter().find(|(link, _)| at.as_bytes() == link.as_bytes());
            link.map(|(_, target)| target.as_bytes().into())
        };
        for (at, target, leaves) in [
            ("l", "up", true),
            ("l", "up/ws/x", true),
            ("l", "d/up", false),
            ("l", "d/up/x", false),
            ("l", "d/up/../x", true),
            ("l", "d/e/top/../x", true),
            ("d/l", "e/top/x", false),
            ("d/l", "./e//top/up/x", true),
            ("l", "deep/../x", false),
            ("l", "deep/../../x", false),
            ("l", "deep/../../../x", true),
            ("l", "new/../x", false),
            ("l", "abs/x", true),
            ("l", "x/abs", false),
            ("l", "loop", false),
            ("l", "loop/../../x", false),
            ("l", "c2", true),
            ("l", "c1", false),
        ] {
            assert_eq!(leads_out(&path(at), target.as_bytes(), &mut look), leaves, "{at} -> {target}");
        }
        for (names, leaves) in [(NAMES_MAX, false), (NAMES_MAX + 1, true)] {
            let target = vec!["t"; names].join("/");
            assert_eq!(leads_out(&path("l"), target.as_bytes(), &mut |_| None), leaves, "{names} names");
        }
    }

    #[test]
    fn files_that_became_executable_are_reported() {
        for (mode, was, is_reported) in [
            (0o755, false, true),
            (0o755, true, false),
            (0o644, false, false),
            (0o644, true, false),
            (0o645, false, true),
        ] {
            assert_eq!(
                sensitive(&path("x"), &file(mode), || was, &mut |_| None).is_some(),
                is_reported,
                "{mode:o}, before: {was}"
            );
        }
        let folder = Entry::Folder { mode: Some(0o755) };
        assert_eq!(sensitive(&path("d"), &folder, || false, &mut |_| None), None);
    }

    #[test]
    fn files_that_mercurial_would_run_are_held_back() {
        let (plain, folder) = (file(0o644), Entry::Folder { mode: None });
        let link = Entry::Symlink { target: b"x".to_vec().into() };
        for (name, theirs, held) in [
            (".hg/hgrc", Some(&plain), true),
            (".hg/hgrc", None, true),
            (".HG/HGRC", Some(&plain), true),
            (".h\u{200d}g/hgrc", Some(&plain), true),
            ("deep/.hg/hgrc", Some(&plain), true),
            (".hg/hgrc-not-shared", Some(&plain), true),
            (".hg/sharedpath", Some(&plain), true),
            (".hg/store/hgrc", Some(&plain), false),
            ("hgrc", Some(&plain), false),
            (".hg", Some(&link), true),
            (".hg", Some(&plain), true),
            (".hg", Some(&folder), false),
            (".hg", None, false),
            (".hg/dirstate", Some(&plain), false),
        ] {
            assert_eq!(held_back(&path(name), theirs).is_some(), held, "{name} {theirs:?}");
        }
    }
}
