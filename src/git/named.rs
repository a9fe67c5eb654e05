//! Finds files of the workspace that git runs or obeys on this machine, because the local configuration or a hook names them.
//!
//! The sandbox changes neither, but it changes files of the workspace, and these come back like all work. A named path is
//! reported for every key: which keys run their value differs between releases of git.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::command::{Fault, Git};
use super::export::{Bases, path_of};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::by_path;
use crate::path::{RelativePath, bytes_of};

const HOOK: &str = "git runs what is in this folder as hooks: the local git configuration says so";
const NAMED_BY_HOOK: &str = "a local git hook names it";
const INCLUDED: &str = "the local git configuration includes it";
const CONFIGURED: &str = "the local git configuration names it";

/// The maximum number of bytes read of a hook.
const HOOK_MAX: u64 = 64 * 1024;

/// The maximum number of files looked at in one folder of hooks.
const HOOKS_MAX: usize = 256;

/// Sections whose values name nothing that is run or read.
const PLAIN_SECTIONS: [&[u8]; 5] = [b"user.", b"branch.", b"color.", b"init.", b"submodule."];

/// Paths of the workspace that are named, with the reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    files: BTreeMap<RelativePath, &'static str>,
    /// Directories whose files git runs; `None` is the workspace itself.
    hooks: BTreeSet<Option<RelativePath>>,
}

/// One setting, with the file that contains it.
#[derive(Debug)]
struct Setting<'a> {
    file: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
}

/// The location of a repository. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Around {
    git_dir: PathBuf,
    common_dir: PathBuf,
    checkout: PathBuf,
}

impl Named {
    /// The reason to report a file of the workspace, if it is named.
    #[must_use]
    pub fn reason(&self, path: &RelativePath) -> Option<&'static str> {
        let runs = |folder: &Option<RelativePath>| match folder {
            Some(folder) => path.is_below(folder),
            // All paths are below the workspace. If it is itself the folder of hooks, only files directly in
            // it can be hooks.
            None => path.parent().is_none(),
        };
        self.files.get(path).copied().or_else(|| self.hooks.iter().any(runs).then_some(HOOK))
    }

    /// The reason to report a symbolic link, if it replaces a directory above a named file, or the directory
    /// of hooks.
    #[must_use]
    pub fn reason_of_link(&self, path: &RelativePath) -> Option<&'static str> {
        let above = self.files.iter().find(|(file, _)| file.is_below(path)).map(|(_, reason)| *reason);
        let holds_hooks =
            || self.hooks.iter().flatten().any(|folder| folder.is_or_below(path.as_bytes())).then_some(HOOK);
        above.or_else(holds_hooks)
    }

    /// Finds what the repositories in a workspace name, and the repository that contains the workspace.
    pub fn read(git: &Git, workspace: &Path, bases: &Bases, cancel: &Cancel) -> Result<Self> {
        let absolute =
            std::path::absolute(workspace).map_err(|error| Error::io("realpath", workspace, error))?;
        let workspace = by_path::resolve(&absolute)?;
        let mut repositories: BTreeSet<Around> = bases
            .values()
            .filter_map(|base| base.place.clone())
            .map(|place| Around {
                git_dir: place.git_dir,
                common_dir: place.common_dir,
                checkout: place.checkout,
            })
            .collect();
        // Without a `.git` in it or above it, the workspace is in no checkout, and git is not run to find that out.
        let is_in_checkout = || workspace.ancestors().any(|above| by_path::exists(&above.join(".git")));
        if !repositories.iter().any(|around| around.checkout == workspace) && is_in_checkout() {
            repositories.extend(enclosing(git, &workspace, cancel)?);
        }
        let mut named = Self::default();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        for around in &repositories {
            let list = match git.configuration(&around.git_dir).run(cancel) {
                Ok(list) => list,
                // Git fails on a configuration that it cannot read, so nothing in it takes effect.
                Err(Fault::Refused(_)) => continue,
                Err(Fault::Error(error)) => return Err(error),
            };
            let settings = parse(&list);
            let mut finding =
                Finding { named: &mut named, workspace: &workspace, around, home: home.as_deref() };
            let folders = finding.settings(&settings);
            finding.hooks(&around.common_dir.join("hooks"), false)?;
            for folder in folders {
                finding.hooks(&folder, true)?;
            }
        }
        named.follow_links(&workspace);
        Ok(named)
    }

    /// Names the targets of named symbolic links as well.
    fn follow_links(&mut self, workspace: &Path) {
        let target = |path: &RelativePath| {
            let there = by_path::resolve(&workspace.join(path.as_path())).ok()?;
            below(workspace, &there).filter(|there| there.as_ref() != Some(path))
        };
        let files: Vec<_> = self
            .files
            .iter()
            .filter_map(|(path, reason)| target(path).flatten().map(|there| (there, *reason)))
            .collect();
        self.files.extend(files);
        let folders: Vec<_> = self.hooks.iter().flatten().filter_map(target).collect();
        self.hooks.extend(folders);
    }
}

/// The repository whose working tree contains the workspace.
fn enclosing(git: &Git, workspace: &Path, cancel: &Cancel) -> Result<Option<Around>> {
    let mut call = git.outside();
    call.cwd(workspace).args(["rev-parse", "--path-format=absolute"]);
    let told = match call.args(["--show-toplevel", "--absolute-git-dir", "--git-common-dir"]).output(cancel) {
        Ok(told) if told.status == Some(0) => told.stdout,
        // No working tree contains it.
        Ok(_) => return Ok(None),
        Err(error) => return Err(error),
    };
    let lines: Vec<&[u8]> = told.trim_ascii_end().split(|&byte| byte == b'\n').collect();
    let [checkout, git_dir, common_dir] = lines[..] else { return Ok(None) };
    Ok(Some(Around {
        git_dir: path_of(git_dir),
        common_dir: path_of(common_dir),
        checkout: path_of(checkout),
    }))
}

/// Parses the output of `git config --list --show-origin -z`.
fn parse(list: &[u8]) -> Vec<Setting<'_>> {
    let mut fields = list.split(|&byte| byte == 0);
    let mut settings = Vec::new();
    while let (Some(origin), Some(item)) = (fields.next(), fields.next()) {
        let at = item.iter().position(|&byte| byte == b'\n').unwrap_or(item.len());
        settings.push(Setting {
            file: origin.strip_prefix(b"file:").unwrap_or_default(),
            key: &item[..at],
            value: item.get(at + 1..).unwrap_or_default(),
        });
    }
    settings
}

/// A search in one repository's configuration and hooks.
struct Finding<'a> {
    named: &'a mut Named,
    workspace: &'a Path,
    around: &'a Around,
    home: Option<&'a Path>,
}

impl Finding<'_> {
    /// Records what the settings name. Returns the folders of hooks.
    fn settings(&mut self, settings: &[Setting<'_>]) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for Setting { file, key, value } in settings {
            if *key == b"core.hookspath" {
                let folder = self.resolve(&self.around.checkout, value);
                if let Some(inside) = below(self.workspace, &self.without_links(&folder)) {
                    self.named.hooks.insert(inside);
                }
                folders.push(folder);
            } else if *key == b"include.path" || key.starts_with(b"includeif.") {
                let here = path_of(file);
                let included = self.resolve(here.parent().unwrap_or(Path::new("/")), value);
                self.note(&included, INCLUDED);
            } else if !PLAIN_SECTIONS.iter().any(|section| key.starts_with(section)) {
                self.words(value, CONFIGURED);
            }
        }
        folders
    }

    /// Records what a folder's hooks name, and the targets of hooks that are links.
    fn hooks(&mut self, folder: &Path, is_configured: bool) -> Result<()> {
        // A folder that does not exist has none, and neither does one that git may not read.
        let Ok(names) = by_path::list(folder) else { return Ok(()) };
        for name in names.into_iter().take(HOOKS_MAX) {
            let path = folder.join(name);
            if path.extension().is_some_and(|extension| extension == "sample") {
                continue;
            }
            // A broken link, or anything other than a file, does not run.
            let Ok(there) = by_path::resolve(&path) else { continue };
            if !by_path::is_file(&there) {
                continue;
            }
            if !is_configured {
                self.note(&there, NAMED_BY_HOOK);
            }
            let Ok(file) = by_path::open(&there) else { continue };
            let mut text = Vec::new();
            file.take(HOOK_MAX).read_to_end(&mut text).map_err(|error| Error::io("read", &there, error))?;
            self.words(&text, NAMED_BY_HOOK);
        }
        Ok(())
    }

    /// Records the files of the workspace that a command, a script or a plain value may mean.
    fn words(&mut self, text: &[u8], reason: &'static str) {
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`;|&()<>={}$!,:".contains(byte);
        let quoted = text.split(|byte| matches!(byte, b'"' | b'\'' | b'\n'));
        for word in [text].into_iter().chain(quoted).chain(text.split(is_end)) {
            if word.is_empty() || word.len() > 4096 {
                continue;
            }
            let meant = self.resolve(&self.around.checkout, word);
            self.note(&meant, reason);
            // What follows a variable or a command that gives a folder: `${dir}/../x`, `$(git …)/x`.
            let rest: PathBuf =
                meant_by(word).components().filter(|part| matches!(part, Component::Normal(_))).collect();
            let meant = normal(&self.around.checkout.join(rest));
            self.note(&meant, reason);
        }
    }

    fn note(&mut self, path: &Path, reason: &'static str) {
        if let Some(Some(path)) = below(self.workspace, &self.without_links(path)) {
            self.named.files.entry(path).or_insert(reason);
        }
    }

    /// A path without the links above it, if they lead into the workspace; otherwise as it is.
    fn without_links<'p>(&self, path: &'p Path) -> Cow<'p, Path> {
        let real = || {
            let (folder, name) = (path.parent()?, path.file_name()?);
            let mut above = folder.ancestors();
            let (above, real) = above.find_map(|above| Some((above, by_path::resolve(above).ok()?)))?;
            let there = real.join(folder.strip_prefix(above).ok()?).join(name);
            there.starts_with(self.workspace).then_some(there)
        };
        if path.starts_with(self.workspace) {
            return Cow::Borrowed(path);
        }
        real().map_or(Cow::Borrowed(path), Cow::Owned)
    }

    /// A path as git reads it: `~/` is the user's folder, and a relative path begins at `from`.
    fn resolve(&self, from: &Path, value: &[u8]) -> PathBuf {
        let path = match (value.strip_prefix(b"~/"), self.home) {
            (Some(rest), Some(home)) => home.join(path_of(rest)),
            _ => from.join(path_of(value)),
        };
        normal(&path)
    }
}

fn meant_by(word: &[u8]) -> PathBuf {
    path_of(word.trim_ascii())
}

/// A path without `.` and `..`, by its names alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// An absolute path from the workspace's root, if it is in the workspace; `Some(None)` is the workspace itself.
#[allow(clippy::option_option, reason = "outside, the workspace itself, and below it are three things")]
fn below(workspace: &Path, path: &Path) -> Option<Option<RelativePath>> {
    let rest = bytes_of(path.strip_prefix(workspace).ok()?);
    if rest.is_empty() { Some(None) } else { RelativePath::parse(rest).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    fn named_by(file: &str, key: &str, value: &str) -> Named {
        let mut named = Named::default();
        let around =
            Around { git_dir: "/ws/.git".into(), common_dir: "/ws/.git".into(), checkout: "/ws".into() };
        let home = PathBuf::from("/home/me");
        let mut finding =
            Finding { named: &mut named, workspace: Path::new("/ws"), around: &around, home: Some(&home) };
        let text = format!("file:{file}\0{key}\n{value}\0");
        finding.settings(&parse(text.as_bytes()));
        named
    }

    #[test]
    fn what_each_setting_names() {
        let local = "/ws/.git/config";
        for (file, key, value, told) in [
            (local, "core.hookspath", "hooks", "hooks/pre-commit"),
            (local, "core.hookspath", "./tools/hooks/", "tools/hooks/deep/x"),
            (local, "core.hookspath", "/ws/hooks", "hooks/pre-push"),
            (local, "core.hookspath", ".", "pre-commit"),
            (local, "include.path", "../.gitconfig", ".gitconfig"),
            (local, "include.path", "/ws/conf/git", "conf/git"),
            (local, "includeif.gitdir:/ws/.path", "../conf/git", "conf/git"),
            ("/ws/conf/git", "include.path", "more", "conf/more"),
            ("/home/me/.gitconfig", "core.hookspath", "hooks", "hooks/commit-msg"),
            (local, "filter.x.clean", "./filter.sh %f", "filter.sh"),
            (local, "filter.x.process", "node tools/filter.js --long", "tools/filter.js"),
            (local, "filter.x.smudge", "'my tools/f.sh' a", "my tools/f.sh"),
            (local, "diff.x.textconv", "\"/ws/tools/text\"", "tools/text"),
            (local, "merge.x.driver", "cd a; ./drive --x=conf/m.json", "conf/m.json"),
            (local, "alias.st", "!f() { ./bin/st; }; f", "bin/st"),
            (local, "alias.up", "!$(git rev-parse --show-toplevel)/bin/up", "bin/up"),
            (local, "core.fsmonitor", "$HOME/../ws/bin/watch", "ws/bin/watch"),
            (local, "core.attributesfile", "tools/attributes", "tools/attributes"),
            (local, "credential.helper", "!tools/secret", "tools/secret"),
            (local, "hook.x.command", "./scripts/x", "scripts/x"),
        ] {
            assert!(named_by(file, key, value).reason(&path(told)).is_some(), "{key}={value}");
        }
        for (file, key, value, not) in [
            (local, "core.hookspath", "../hooks", "hooks/x"),
            (local, "core.hookspath", "/elsewhere/hooks", "hooks/x"),
            (local, "core.hookspath", ".", "deep/x"),
            (local, "core.hookspath", "hooks", "hooks2/x"),
            (local, "include.path", "x", "x"),
            (local, "include.path", "~/x", "x"),
            (local, "branch.main.description", "x", "x"),
            (local, "user.name", "x", "x"),
            (local, "filter.x.clean", "./filter.sh", "other.sh"),
        ] {
            assert_eq!(named_by(file, key, value).reason(&path(not)), None, "{key}={value}");
        }
    }

    #[test]
    fn a_link_that_replaces_a_directory_above_a_named_file_is_reported() {
        let file = named_by("/ws/.git/config", "filter.x.clean", "a/b/run");
        let hooks = named_by("/ws/.git/config", "core.hookspath", "a/b");
        for named in [&file, &hooks] {
            assert!(named.reason_of_link(&path("a")).is_some() && named.reason_of_link(&path("b")).is_none());
        }
        assert!(hooks.reason_of_link(&path("a/b")).is_some());
    }
}
