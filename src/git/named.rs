//! Finds files of the workspace that git runs or obeys on this machine, because the local configuration or a hook names them.
//!
//! The sandbox changes neither, but it changes files of the workspace, and these come back like all work. A named path is
//! reported for every key: which keys run their value differs between releases of git.
//!
//! Links are followed as the kernel does, and each of them is named. The same is done for links whose names tools know, such as
//! an `.envrc`. Outside of the workspace, only links on such a way are looked at, and only the text of hooks is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read as _;
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};

use super::command::{Fault, Git};
use super::export::{Bases, path_of};
use super::links::{Looked, follow};
use super::obeyed::HOOKS;
use super::recognise::is_gits;
use super::repository::{Place, worktrees};
use super::words::words;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{Kind, by_path};
use crate::merge::sensitive::{by_name, is_known};
use crate::path::{RelativePath, bytes_of};

const HOOK: &str = "git runs what is in this folder as hooks: the local git configuration says so";
const LINKED_HOOK: &str = "git runs what is in this folder as hooks: its own folder of hooks leads there";
const NAMED_BY_HOOK: &str = "a local git hook names it";
const INCLUDED: &str = "the local git configuration includes it";
const CONFIGURED: &str = "the local git configuration names it";

/// The reason for a file that has the name of one that git runs or obeys elsewhere.
pub const BY_A_RENAME: &str = "git runs or obeys a file of that name in another folder, into which a merge may put this one if it follows a renamed folder";

/// The reason for a named file that is not written by a restore.
pub const AT_CHECKOUT: &str = "git runs or reads a file of that name here, and a new commit or the index has another version, which a checkout writes";

const KNOWN: &str = "a link whose name tools know leads there";

/// The maximum number of bytes read of a hook.
const HOOK_MAX: u64 = 64 * 1024;

/// The maximum number of files looked at in one folder of hooks.
const HOOKS_MAX: usize = 256;

/// The maximum number of configurations read that are included on a condition.
const INCLUDES_MAX: usize = 64;

/// Sections whose values name nothing that is run or read.
const PLAIN_SECTIONS: [&[u8]; 5] = [b"user.", b"branch.", b"color.", b"init.", b"submodule."];

/// Paths of the workspace that are named, with the reason.
#[derive(Debug, Default)]
pub struct Named {
    /// The workspace's path, without links.
    workspace: PathBuf,
    files: BTreeMap<RelativePath, &'static str>,
    /// Directories whose files git runs, with the reason; `None` is the workspace itself.
    hooks: BTreeMap<Option<RelativePath>, &'static str>,
    /// The further names that files and folders have by links, if tools know such names: one for each reason to report it, since
    /// the sandbox may make any number of links. (Of a folder without a reason, some files have one.)
    names: BTreeMap<RelativePath, BTreeMap<Option<&'static str>, RelativePath>>,
    /// The links of the workspace.
    links: BTreeSet<RelativePath>,
    /// What leads into the workspace, or through it.
    starts: BTreeSet<Start>,
    /// What is at the paths that were looked at, if anything is.
    looked: HashMap<PathBuf, Looked>,
}

/// A path that git or a tool uses, before any link in it is followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Start {
    path: PathBuf,
    role: Role,
}

/// For what a path is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// It is run or obeyed.
    File(&'static str),
    /// What is in it is run.
    Hooks(&'static str),
    /// Tools may know it, or what is below it, by this name.
    Known(RelativePath),
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
pub(super) struct Around {
    git_dir: PathBuf,
    pub(super) common_dir: PathBuf,
    pub(super) checkout: PathBuf,
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
        let hook = || self.hooks.iter().find(|(folder, _)| runs(folder)).map(|(_, reason)| *reason);
        let known = || self.further_names(path).iter().find_map(by_name);
        self.files.get(path).copied().or_else(hook).or_else(known)
    }

    /// The names of files that git runs or obeys in a folder of the workspace, and those that it includes. (What has no folder may be
    /// any word of a configuration or a hook.)
    #[must_use]
    pub fn names(&self) -> HashSet<&[u8]> {
        let hooks = HOOKS.into_iter().filter(|_| !self.hooks.is_empty());
        let files =
            self.files.iter().filter(|(path, reason)| path.parent().is_some() || **reason == INCLUDED);
        files.map(|(path, _)| path.name().as_encoded_bytes()).chain(hooks).collect()
    }

    /// The reason to report a symbolic link, if it replaces a directory above a named file, or the directory
    /// of hooks.
    #[must_use]
    pub fn reason_of_link(&self, path: &RelativePath) -> Option<&'static str> {
        let above = first_from(&self.files, &[path.as_bytes(), b"/"].concat());
        let above = above.filter(|(file, _)| file.is_below(path)).map(|(_, reason)| *reason);
        let hooks = || {
            let mut hooks = self.hooks.iter();
            let is_above = |folder: &Option<RelativePath>| {
                folder.as_ref().is_some_and(|folder| folder.is_or_below(path.as_bytes()))
            };
            hooks.find(|(folder, _)| is_above(folder)).map(|(_, reason)| *reason)
        };
        let known = || {
            let below = [path.as_bytes(), b"/"].concat();
            let is_below = || first_from(&self.names, &below).is_some_and(|(file, _)| file.is_below(path));
            (self.names.contains_key(path) || is_below()).then_some(KNOWN)
        };
        above.or_else(hooks).or_else(known)
    }

    /// Finds what the repositories in a workspace name, and the repository that contains the workspace; and where `links` of
    /// the workspace lead, if tools know their names.
    pub fn read(
        git: Option<&Git>,
        workspace: &Path,
        bases: &Bases,
        links: BTreeSet<RelativePath>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let absolute =
            std::path::absolute(workspace).map_err(|error| Error::io("realpath", workspace, error))?;
        let workspace = by_path::resolve(&absolute)?;
        let mut named = Self { workspace: workspace.clone(), links, ..Self::default() };
        if let Some(git) = git {
            named.read_repositories(git, &workspace, bases, cancel)?;
        }
        named.follow_known();
        Ok(named)
    }

    fn read_repositories(
        &mut self,
        git: &Git,
        workspace: &Path,
        bases: &Bases,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut repositories: BTreeSet<Around> = BTreeSet::new();
        for place in bases.values().filter_map(|base| base.place.clone()) {
            let Place { git_dir, common_dir, checkout, .. } = place;
            // Another worktree may have a configuration of its own, for files of the same paths.
            for git_dir in worktrees(&common_dir).into_iter().filter(|other| *other != git_dir) {
                if by_path::exists(&git_dir.join("config.worktree")) {
                    let (common_dir, checkout) = (common_dir.clone(), checkout.clone());
                    repositories.insert(Around { git_dir, common_dir, checkout });
                }
            }
            repositories.insert(Around { git_dir, common_dir, checkout });
        }
        // Without a `.git` in it or above it, the workspace is in no checkout, and git is not run to find that out.
        let is_in_checkout = || workspace.ancestors().any(|above| by_path::exists(&above.join(".git")));
        if !repositories.iter().any(|around| around.checkout == workspace) && is_in_checkout() {
            repositories.extend(enclosing(git, workspace, cancel)?);
        }
        let home = std::env::var_os("HOME").map(PathBuf::from);
        for around in &repositories {
            let list = match git.configuration(&around.git_dir).run(cancel) {
                Ok(list) => list,
                // Git fails on a configuration that it cannot read, so nothing in it takes effect.
                Err(Fault::Refused(_)) => continue,
                Err(Fault::Error(error)) => return Err(error),
            };
            let settings = parse(&list);
            let mut finding = Finding { named: self, around, home: home.as_deref() };
            let mut folders = finding.settings(&settings);
            for list in finding.conditional(git, &settings, cancel)? {
                folders.extend(finding.settings(&parse(&list)));
            }
            let own = around.common_dir.join("hooks");
            finding.named.start(own.clone(), Role::Hooks(LINKED_HOOK));
            finding.hooks(&own)?;
            for folder in folders {
                finding.hooks(&folder)?;
            }
        }
        Ok(())
    }

    /// Adds where everything leads now. What was found before stays named.
    pub fn follow_links(&mut self) {
        self.looked.clear();
        for start in self.starts.clone() {
            self.record(&start);
        }
        self.follow_known();
    }

    /// Adds where links lead whose names tools know. In a folder that has such a name by a link, further links may have one.
    fn follow_known(&mut self) {
        for path in self.links.clone() {
            if is_known(&path) {
                self.start(self.workspace.join(path.as_path()), Role::Known(path));
            }
        }
        if self.names.is_empty() {
            return;
        }
        for path in self.links.clone() {
            for name in self.further_names(&path).into_iter().filter(is_known) {
                self.start(self.workspace.join(path.as_path()), Role::Known(name));
            }
        }
    }

    /// The names that a path has by the links that lead to it or above it, as far as tools may know them.
    fn further_names(&self, path: &RelativePath) -> Vec<RelativePath> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let above = path.ancestors().chain([path.clone()]);
        let named = above.filter_map(|above| Some((self.names.get(&above)?, above)));
        named
            .flat_map(|(names, above)| names.values().filter_map(move |name| path.moved(&above, name)))
            .collect()
    }

    /// Follows a path, and keeps it if it leads into the workspace or through it.
    fn start(&mut self, path: PathBuf, role: Role) {
        let start = Start { path, role };
        if !self.starts.contains(&start) && self.record(&start) {
            self.starts.insert(start);
        }
    }

    /// Names every link on the way in the workspace, and what is at its end. Returns whether there is any of these.
    fn record(&mut self, Start { path, role }: &Start) -> bool {
        let looked = &mut self.looked;
        let way = follow(path, &mut |path| look(looked, path));
        let mut leads_in = false;
        let inside = |path: &Path| below(&self.workspace, path);
        for link in &way.links {
            let Some(Some(path)) = inside(&link.path) else { continue };
            leads_in = true;
            let reason = match role {
                Role::File(reason) | Role::Hooks(reason) => reason,
                Role::Known(name) => {
                    let reason = by_name(name);
                    if link.is_last {
                        let names = self.names.entry(path.clone()).or_default();
                        names.entry(reason).or_insert_with(|| name.clone());
                    }
                    reason.unwrap_or(KNOWN)
                }
            };
            self.files.entry(path).or_insert(reason);
        }
        let Some(end) = way.end else { return leads_in };
        let Some(inside) = inside(&end) else { return leads_in };
        match (role, inside) {
            (Role::File(reason), Some(path)) => drop(self.files.entry(path).or_insert(reason)),
            (Role::Hooks(reason), folder) if !folder.as_ref().is_some_and(is_gits) => {
                self.hooks.entry(folder).or_insert(reason);
                self.linked_hooks(&end);
            }
            (Role::Known(name), Some(path)) => {
                let names = self.names.entry(path).or_default();
                names.entry(by_name(name)).or_insert_with(|| name.clone());
            }
            _ => {}
        }
        true
    }

    /// Names where links in a folder of hooks lead.
    fn linked_hooks(&mut self, folder: &Path) {
        // A folder that does not exist has none, and neither does one that git may not read.
        let Ok(names) = by_path::list(folder) else { return };
        for name in names.into_iter().take(HOOKS_MAX) {
            let path = folder.join(name);
            if by_path::is_link(&path) {
                self.start(path, Role::File(NAMED_BY_HOOK));
            }
        }
    }
}

/// The first entry at a path or behind it, in the order of their bytes.
fn first_from<'m, T>(map: &'m BTreeMap<RelativePath, T>, path: &[u8]) -> Option<(&'m RelativePath, &'m T)> {
    map.range::<[u8], _>((Bound::Included(path), Bound::Unbounded)).next()
}

/// What is at a path. What is there is remembered: most paths share those above them.
fn look(looked: &mut HashMap<PathBuf, Looked>, path: &Path) -> Looked {
    if let Some(looked) = looked.get(path) {
        return looked.clone();
    }
    // What cannot be looked at leads nowhere.
    let found = match by_path::lstat(path) {
        Ok(Some(meta)) if meta.kind == Kind::Symlink => {
            by_path::read_link(path).map_or(Looked::Nothing, Looked::Link)
        }
        Ok(Some(_)) => Looked::Other,
        Ok(None) | Err(_) => return Looked::Nothing,
    };
    looked.insert(path.to_path_buf(), found.clone());
    found
}

/// The repository whose working tree contains a folder.
pub(super) fn enclosing(git: &Git, folder: &Path, cancel: &Cancel) -> Result<Option<Around>> {
    let mut call = git.outside();
    call.cwd(folder).args(["rev-parse", "--path-format=absolute"]);
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
                self.named.start(folder.clone(), Role::Hooks(HOOK));
                folders.push(folder);
            } else if *key == b"include.path" || key.starts_with(b"includeif.") {
                let here = path_of(file);
                let included = self.resolve(here.parent().unwrap_or(Path::new("/")), value);
                self.named.start(included, Role::File(INCLUDED));
            } else if !PLAIN_SECTIONS.iter().any(|section| key.starts_with(section)) {
                self.words(value, CONFIGURED);
            }
        }
        folders
    }

    /// The configurations that are included on a condition, which may hold later: another branch is checked out, or a remote is
    /// added. They may include further ones.
    fn conditional(&self, git: &Git, settings: &[Setting<'_>], cancel: &Cancel) -> Result<Vec<Vec<u8>>> {
        let included = |settings: &[Setting<'_>]| -> Vec<PathBuf> {
            let includes = settings.iter().filter(|setting| setting.key.starts_with(b"includeif."));
            let file = |setting: &Setting<'_>| {
                let here = path_of(setting.file);
                self.resolve(here.parent().unwrap_or(Path::new("/")), setting.value)
            };
            includes.map(file).collect()
        };
        let (mut waiting, mut seen, mut found) = (included(settings), BTreeSet::new(), Vec::new());
        while let Some(file) = waiting.pop() {
            if seen.len() == INCLUDES_MAX || !by_path::exists(&file) || !seen.insert(file.clone()) {
                continue;
            }
            let mut call = git.configuration(&self.around.git_dir);
            match call.arg("--file").arg(&file).run(cancel) {
                Ok(list) => {
                    waiting.extend(included(&parse(&list)));
                    found.push(list);
                }
                // What git cannot read does not take effect.
                Err(Fault::Refused(_)) => {}
                Err(Fault::Error(error)) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Records what a folder's hooks name, and where hooks lead that are links.
    fn hooks(&mut self, folder: &Path) -> Result<()> {
        // A folder that does not exist has none, and neither does one that git may not read.
        let Ok(names) = by_path::list(folder) else { return Ok(()) };
        for name in names.into_iter().take(HOOKS_MAX) {
            let path = folder.join(name);
            if path.extension().is_some_and(|extension| extension == "sample") {
                continue;
            }
            if by_path::is_link(&path) {
                self.named.start(path.clone(), Role::File(NAMED_BY_HOOK));
            }
            // A broken link, or anything other than a file, does not run.
            let Ok(there) = by_path::resolve(&path) else { continue };
            if !by_path::is_file(&there) {
                continue;
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
        let checkout = &self.around.checkout;
        for word in words(text, self.home.map(bytes_of)).paths {
            let meant = self.resolve(checkout, &word);
            // What follows a variable or a command that gives a folder: `${dir}/../x`, `$(git …)/x`.
            let names = |part: &Component<'_>| matches!(part, Component::Normal(_));
            let rest: PathBuf = path_of(&word).components().filter(names).collect();
            self.named.start(meant, Role::File(reason));
            self.named.start(checkout.join(rest), Role::File(reason));
        }
    }

    /// A path as git reads it: `~/` is the user's folder, and a relative path begins at `from`.
    fn resolve(&self, from: &Path, value: &[u8]) -> PathBuf {
        match (value.strip_prefix(b"~/"), self.home) {
            (Some(rest), Some(home)) => home.join(path_of(rest)),
            _ => from.join(path_of(value)),
        }
    }
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
        let mut named = Named { workspace: "/ws".into(), ..Named::default() };
        let around =
            Around { git_dir: "/ws/.git".into(), common_dir: "/ws/.git".into(), checkout: "/ws".into() };
        let home = PathBuf::from("/home/me");
        let mut finding = Finding { named: &mut named, around: &around, home: Some(&home) };
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
            (local, "core.sshcommand", "ssh -Fcfg/ssh", "cfg/ssh"),
            (local, "filter.x.clean", "curl file://$PWD/f", "f"),
            (local, "filter.x.clean", r"sh f\ a", "f a"),
            (local, "filter.x.clean", r#"sh "f18'a""#, "f18'a"),
            (local, "filter.x.clean", r#"sh "tools"/x"#, "tools/x"),
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

    /// The sandbox may make any number of links.
    #[test]
    fn many_names_of_one_folder_count_once() {
        const COUNT: usize = 300;
        let workspace = tempfile::tempdir().unwrap();
        let at = |name: &str| workspace.path().join(name);
        std::fs::create_dir(at("z")).unwrap();
        let mut links = BTreeSet::new();
        for number in 0..COUNT {
            std::fs::create_dir(at(&format!("{number}"))).unwrap();
            for (name, target) in [
                (format!("{number}/.vscode"), "../z"),
                (format!("{number}/.claude"), "../z"),
                (format!("z/settings-{number}.json"), "../real"),
            ] {
                std::os::unix::fs::symlink(target, at(&name)).unwrap();
                links.insert(path(&name));
            }
        }
        let mut named =
            Named::read(None, workspace.path(), &Bases::new(), links, &Cancel::default()).unwrap();
        named.follow_links();
        assert!(named.starts.len() <= 5 * COUNT, "{}", named.starts.len());
        for told in ["z/settings-1.json", "z/tasks.json", "z/deep/x", "real"] {
            assert!(named.reason(&path(told)).is_some(), "{told}");
        }
        assert_eq!(named.reason(&path("other")), None);
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
