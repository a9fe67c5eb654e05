//! Finds files of the workspace that git runs or obeys on this machine, because the local configuration or a hook names them.
//!
//! The sandbox changes neither, but it changes files of the workspace, and these come back like all work. A named path is
//! reported for every key: which keys run their value differs between releases of git.
//!
//! A configuration may itself be a file of the workspace, and so may a part of a repository. So each place where git looks for one
//! counts as named.
//!
//! Links are followed as the kernel does, and each of them is named. The same is done for links whose names tools know, such as
//! an `.envrc`. Outside of the workspace, only links on such a way are looked at, and only the text of hooks is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read as _;
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};

use super::around::{Around, Where, elsewhere, enclosing, repositories};
use super::command::{Fault, Git};
use super::export::{Bases, path_of};
use super::links::{LINKS_MAX, Looked, follow};
use super::obeyed::HOOKS;
use super::recognise::{DOT_GIT, is_gits};
use super::repository::{unquoted, worktrees};
use super::user::{USERS, User};
use super::ways::{GITDIR, TEXT_MAX, beginning, below, look, named_in};
use super::words::{WORDS_MAX, words};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{Root, by_path};
use crate::merge::report::Noted;
use crate::merge::sensitive::{by_name, is_known};
use crate::path::{RelativePath, bytes_of};

const HOOK: &str = "git runs what is in this directory as hooks: the local git configuration says so";
const LINKED_HOOK: &str =
    "git runs what is in this directory as hooks: its own directory of hooks leads there";
const NAMED_BY_HOOK: &str = "a local git hook names it";
const INCLUDED: &str = "the local git configuration includes it";
const CONFIGURED: &str = "the local git configuration names it";
const CONFIGURATION: &str = "it is a local configuration of git or ssh, or one of its places";
const PART: &str = "a local repository leads there";
const ALTERNATE: &str =
    "a local repository reads objects there, and obeys the list of further such directories";
const TEMPLATES: &str =
    "git copies the hooks in this directory to new repositories: the local git configuration says so";
const WORKTREE: &str = "the local git configuration says that the files of a repository are there";
const UNSPELLED: &str = "the local git configuration or a hook names it without its extension, or names the directory whose main file it is";
const BY_TOOL: &str = "the local git configuration or a hook names a program that obeys it";

/// The reason for a file that has the name of one that git runs or obeys elsewhere.
pub const BY_A_RENAME: &str = "git runs or obeys a file of that name in another directory, into which a merge may put this one if it follows a renamed directory";

/// The reason for a named file that is not written by a restore.
pub const AT_CHECKOUT: &str = "git runs or reads a file of that name here, and a new commit or the index has another version, which a checkout writes";

const UNREAD: &str = "git cannot read the configuration here, so not every file that it names is listed";
const UNFOLLOWED: &str = "new commits have more files or links than a restore looks at, so not every file is listed that a link in them \
                          would make git run or read";
const APPLIES_NOW: &str = "a conditional include of the local configuration applies now";
const ADDRESS: &str = "the local git configuration replaces the beginning of an address by it";

const KNOWN: &str = "a link whose name tools know leads there";

/// The maximum number of files looked at in one folder of hooks.
const HOOKS_MAX: usize = 256;

/// The maximum number of words that count in all hooks of one folder.
const HOOK_WORDS_MAX: usize = 50_000;

/// The maximum number of configurations of a repository that are read one by one.
const INCLUDES_MAX: usize = 64;

/// The maximum number of folders of objects in which lists of further ones are read.
const ALTERNATES_MAX: usize = 64;

/// Sections whose values name nothing that is run or read.
const PLAIN_SECTIONS: [&[u8]; 5] = [b"user.", b"branch.", b"color.", b"init.", b"submodule."];

/// Keys that replace the beginning of an address by what is between their first and last dot.
const REPLACING: [&[u8]; 2] = [b".insteadof", b".pushinsteadof"];

/// The folders of a repository, from its git directory, in which something may be a link.
const PARTS: [&str; 4] = ["", "info", "objects", "objects/info"];

/// Extensions that a program adds to the name of a file that it loads. (At the top of a workspace, a file with another one has
/// any word of a hook for its name.)
const LOADED: [&[u8]; 25] = [
    b"bash", b"cjs", b"class", b"cts", b"js", b"json", b"jsx", b"lua", b"mjs", b"mts", b"node", b"php",
    b"pl", b"pm", b"py", b"pyc", b"rb", b"sh", b"so", b"ts", b"tsx", b"wasm", b"yaml", b"yml", b"zsh",
];

/// Files that a program loads if its argument is their folder, beside `index` with one of these extensions.
const MAIN: [&[u8]; 6] =
    [b"package.json", b"__init__.py", b"__main__.py", b"GNUmakefile", b"Makefile", b"makefile"];

/// Files at the top of a checkout that programs obey without being told.
const TOOLS: [(&[&str], &[&str]); 7] = [
    (&["npm", "npx", "pnpm", "pnpx", "yarn", "yarnpkg", "bun", "bunx", "lint-staged"], &["package.json"]),
    (&["make", "gmake"], &["GNUmakefile", "Makefile", "makefile"]),
    (&["rake"], &["Rakefile", "rakefile", "Rakefile.rb", "rakefile.rb"]),
    (&["just"], &["justfile", "Justfile", ".justfile"]),
    (&["cargo"], &["Cargo.toml", "build.rs", ".cargo/config.toml"]),
    (&["pre-commit", "pre_commit"], &[".pre-commit-config.yaml"]),
    (&["lefthook"], &["lefthook.yml", ".lefthook.yml", "lefthook-local.yml"]),
];

/// Paths of the workspace that are named, with the reason.
#[derive(Debug, Default)]
pub struct Named {
    /// The workspace's path, without links.
    workspace: PathBuf,
    files: BTreeMap<RelativePath, &'static str>,
    /// Directories whose files git runs, with the reason; `None` is the workspace itself.
    hooks: BTreeMap<Option<RelativePath>, &'static str>,
    /// Folders that git obeys with all that is in them, with the reason.
    folders: BTreeMap<RelativePath, &'static str>,
    /// What is named by words, which may lack an extension or the name of a file in a folder. The empty path is the workspace itself.
    words: HashSet<Vec<u8>>,
    /// The further names that files and folders have by links, if tools know such names: one for each reason to report it, since
    /// the sandbox may make any number of links. (Of a folder without a reason, some files have one.)
    names: BTreeMap<RelativePath, BTreeMap<Option<&'static str>, RelativePath>>,
    /// The links of the workspace.
    links: BTreeSet<RelativePath>,
    /// What leads into the workspace, or through it.
    starts: BTreeSet<Start>,
    /// The other checkouts of the repositories, outside of the workspace, each with that in the workspace: what is committed there may
    /// be checked out here.
    elsewhere: Vec<(PathBuf, PathBuf)>,
    /// What is at the paths that were looked at, if anything is.
    looked: HashMap<PathBuf, Looked>,
    /// Repositories of which not everything is known, with the reason.
    unread: BTreeSet<(RelativePath, &'static str)>,
    /// What is included on a condition.
    conditions: Vec<Condition>,
}

/// What a search for named files has to know of a workspace.
#[derive(Debug, Default)]
pub struct Outline {
    /// Its links, before the merge and after it.
    pub links: BTreeSet<RelativePath>,
    /// Its folders before the merge and after it, sorted.
    pub folders: Vec<RelativePath>,
}

/// What a repository includes on a condition.
#[derive(Debug)]
struct Condition {
    around: Around,
    included: Vec<PathBuf>,
    /// The files in effect before the merge.
    in_effect: HashSet<PathBuf>,
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
    /// A word of a configuration or a hook: it is run or obeyed, or what a program finds by it.
    Word(&'static str),
    /// A program may find something by it, and itself it is no file.
    Module,
    /// What is in it is run.
    Hooks(&'static str),
    /// It is obeyed, with all that is in it.
    Folder(&'static str),
    /// The way to it counts, and not what is there.
    Way(&'static str),
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
        let unspelled = || self.is_found_by_word(path).then_some(UNSPELLED);
        let in_folder = || self.folder_reason(path);
        self.files.get(path).copied().or_else(hook).or_else(in_folder).or_else(known).or_else(unspelled)
    }

    /// The reason for a path in a folder that git obeys, or of that folder itself.
    fn folder_reason(&self, path: &RelativePath) -> Option<&'static str> {
        if self.folders.is_empty() {
            return None;
        }
        let ends = path.as_bytes().iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
        let mut above = ends.chain([path.as_bytes().len()]).map(|end| &path.as_bytes()[..end]);
        above.find_map(|above| self.folders.get(above)).copied()
    }

    /// Whether a program finds a file by a word that names it without its extension, or that names its folder.
    fn is_found_by_word(&self, path: &RelativePath) -> bool {
        let (folder, name) = path.split();
        let name = name.as_encoded_bytes();
        let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else {
            return MAIN.contains(&name) && self.words.contains(folder);
        };
        let is_loaded = LOADED.contains(&&name[dot + 1..]);
        let is_main = MAIN.contains(&name) || (is_loaded && &name[..dot] == b"index");
        let cut = path.as_bytes().len() - (name.len() - dot);
        (is_main && self.words.contains(folder))
            || (dot > 0 && (is_loaded || !folder.is_empty()) && self.words.contains(&path.as_bytes()[..cut]))
    }

    /// The names of files that git runs or obeys in a folder of the workspace, and those that are its configurations. (What else has no
    /// folder may be any word of a configuration or a hook. What programs know the name of has that name in many folders. What is in a
    /// `.git` comes in no commit.)
    #[must_use]
    pub fn names(&self) -> HashSet<&[u8]> {
        let hooks = HOOKS.into_iter().filter(|_| !self.hooks.is_empty());
        let is_told = |path: &RelativePath, reason: &'static str| match reason {
            INCLUDED | CONFIGURATION => !is_gits(path),
            BY_TOOL | UNSPELLED => false,
            _ => path.parent().is_some() && !is_gits(path),
        };
        let files = self.files.iter().filter(|&(path, reason)| is_told(path, reason));
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
        let folders = || {
            let below = || first_from(&self.folders, &[path.as_bytes(), b"/"].concat());
            let folder = self.folders.get_key_value(path).or_else(below);
            folder.filter(|(folder, _)| folder.is_or_below(path.as_bytes())).map(|(_, reason)| *reason)
        };
        above.or_else(hooks).or_else(folders).or_else(known)
    }

    /// Finds what the repositories in a workspace name, and the repository that contains the workspace; and where links of
    /// the workspace lead, if tools know their names.
    pub fn read(
        git: Option<&Git>,
        root: &Root,
        bases: &Bases,
        Outline { links, folders }: Outline,
        cancel: &Cancel,
    ) -> Result<Self> {
        let absolute =
            std::path::absolute(root.path()).map_err(|error| Error::io("realpath", root.path(), error))?;
        let workspace = by_path::resolve(&absolute)?;
        let mut named = Self { workspace: workspace.clone(), links, ..Self::default() };
        if let Some(git) = git {
            // Without such a list, git knows the users of a directory service at most.
            let users = by_path::read(Path::new(USERS)).ok().flatten().unwrap_or_default();
            let user = User::of_process(git.program(), users);
            named.user(&user);
            let place = Where { root, workspace: &workspace, folders: &folders };
            named.read_repositories(git, &user, &place, bases, cancel)?;
        }
        named.follow_found();
        named.follow_known();
        Ok(named)
    }

    /// Records where the configurations of the user and of the system are, or would be.
    fn user(&mut self, user: &User) {
        let workspace = self.workspace.clone();
        for file in user.files() {
            self.start(workspace.join(file), Role::File(CONFIGURATION));
        }
        if let Some(folder) = user.of_ssh() {
            self.start(workspace.join(folder), Role::Folder(CONFIGURATION));
        }
    }

    fn read_repositories(
        &mut self,
        git: &Git,
        user: &User,
        place: &Where<'_>,
        bases: &Bases,
        cancel: &Cancel,
    ) -> Result<()> {
        let workspace = place.workspace;
        let mut repositories = repositories(place, bases, cancel)?;
        self.elsewhere = elsewhere(&repositories, workspace);
        // A `.git` above may be that of the workspace, or belong to a repository around it.
        for above in workspace.ancestors().skip(1).filter(|above| by_path::exists(&above.join(".git"))) {
            repositories.extend(enclosing(git, above, cancel)?);
        }
        for around in &repositories {
            let mut finding = Finding { named: self, around, user };
            finding.repository();
            let lists = finding.lists(git, cancel)?;
            // With `core.worktree`, a relative path begins in that folder.
            let at = |checkout: PathBuf| Around { checkout, ..around.clone() };
            let elsewhere = lists.iter().flat_map(|list| worktrees_of(&parse(list), around)).map(at);
            for around in [around.clone()].into_iter().chain(elsewhere) {
                let mut finding = Finding { named: self, around: &around, user };
                let mut folders = Vec::new();
                for list in &lists {
                    folders.append(&mut finding.settings(&parse(list)));
                }
                finding.all_hooks(&folders)?;
            }
        }
        Ok(())
    }

    /// The path by which a repository is reported: that of its `.git`, as far as it is in the workspace.
    fn path_of(&self, around: &Around) -> RelativePath {
        let dot_git = [around.checkout.join(path_of(DOT_GIT)), around.git_dir.clone()];
        let is_there = |path: &&PathBuf| by_path::lstat(path).is_ok_and(|meta| meta.is_some());
        let path = dot_git.iter().find(is_there).and_then(|path| below(&self.workspace, path).flatten());
        path.unwrap_or_else(|| RelativePath::child(None, DOT_GIT))
    }

    /// Repositories of which not everything is known.
    #[must_use]
    pub fn unread(&self) -> Vec<Noted> {
        self.unread.iter().map(|(path, reason)| Noted { path: path.clone(), reason }).collect()
    }

    /// Adds a repository in which not every link was followed that new commits have at named paths.
    pub(super) fn add_unfollowed(&mut self, dot_git: &RelativePath) {
        self.unread.insert((dot_git.clone(), UNFOLLOWED));
    }

    /// Whether no file of the workspace is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.hooks.is_empty() && self.folders.is_empty()
    }

    /// Adds what a link leads to that git may put at a path.
    pub(super) fn add_link(&mut self, path: &RelativePath, target: &[u8]) {
        let link = self.workspace.join(path.as_path());
        let at = link.parent().unwrap_or(&link).join(path_of(target));
        self.start(at, Role::File(AT_CHECKOUT));
    }

    /// The repositories that include a configuration now, by its condition, which they did not before.
    pub fn newly_included(&self, git: &Git, cancel: &Cancel) -> Result<Vec<Noted>> {
        let mut found = Vec::new();
        for Condition { around, included, in_effect } in &self.conditions {
            let list = match git.configuration(&around.git_dir).run(cancel) {
                Ok(list) => list,
                // Nothing of it is in effect.
                Err(Fault::Refused(_)) => continue,
                Err(Fault::Killed(_)) => {
                    found.push(Noted { path: self.path_of(around), reason: UNREAD });
                    continue;
                }
                Err(Fault::Error(error)) => return Err(error),
            };
            let now = origins(&parse(&list));
            if included.iter().any(|file| now.contains(file) && !in_effect.contains(file)) {
                found.push(Noted { path: self.path_of(around), reason: APPLIES_NOW });
            }
        }
        Ok(found)
    }

    /// Adds where everything leads now. What was found before stays named.
    pub fn follow_links(&mut self) {
        self.looked.clear();
        for start in self.starts.clone() {
            self.record(&start);
        }
        self.follow_found();
        self.follow_known();
    }

    /// Adds where links lead that are found in named folders, or by words. There may be further ones at the end of a link.
    fn follow_found(&mut self) {
        // A way of more links than the kernel follows leads nowhere.
        for _ in 0..LINKS_MAX {
            let before = self.starts.len();
            for path in self.links.clone() {
                let hooks = || {
                    let mut hooks = self.hooks.iter();
                    let is_in = |folder: &Option<RelativePath>| {
                        folder.as_ref().is_some_and(|folder| path.is_below(folder))
                    };
                    hooks.find(|(folder, _)| is_in(folder)).map(|(_, reason)| *reason)
                };
                let role = match self.folder_reason(&path).or_else(hooks) {
                    Some(reason) => Role::Folder(reason),
                    None if self.is_found_by_word(&path) => Role::File(UNSPELLED),
                    None => continue,
                };
                self.start(self.workspace.join(path.as_path()), role);
            }
            if self.starts.len() == before {
                return;
            }
        }
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

    /// Follows a path, and what it means in this checkout where it is in another one, and keeps what leads into the workspace or through it.
    fn start(&mut self, path: PathBuf, role: Role) {
        let in_other = |(other, own): &(PathBuf, PathBuf)| Some(own.join(path.strip_prefix(other).ok()?));
        let here: Vec<PathBuf> = self.elsewhere.iter().filter_map(in_other).collect();
        for path in here {
            self.begin(Start { path, role: role.clone() });
        }
        self.begin(Start { path, role });
    }

    fn begin(&mut self, start: Start) {
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
                Role::File(reason)
                | Role::Word(reason)
                | Role::Hooks(reason)
                | Role::Folder(reason)
                | Role::Way(reason) => reason,
                Role::Module => UNSPELLED,
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
            (Role::Word(reason), path) => {
                self.words.insert(path.as_ref().map_or_else(Vec::new, |path| path.as_bytes().to_vec()));
                if let Some(path) = path {
                    self.files.entry(path).or_insert(reason);
                }
            }
            (Role::Module, Some(path)) => drop(self.words.insert(path.as_bytes().to_vec())),
            (Role::Folder(reason), Some(path)) if !is_gits(&path) => {
                self.folders.entry(path).or_insert(reason);
            }
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
    user: &'a User,
}

/// The files that settings are from.
fn origins(settings: &[Setting<'_>]) -> HashSet<PathBuf> {
    let files: HashSet<&[u8]> = settings.iter().map(|setting| setting.file).collect();
    files.into_iter().map(path_of).collect()
}

impl Finding<'_> {
    /// Records where the parts of the repository are, if they are elsewhere: what leads there may be in the workspace.
    fn repository(&mut self) {
        let Around { git_dir, common_dir, checkout } = self.around;
        let dot_git = checkout.join(".git");
        self.named.start(dot_git.clone(), Role::Folder(PART));
        self.leads_to(&dot_git, checkout, GITDIR);
        self.leads_to(&git_dir.join("commondir"), git_dir, b"");
        let all: BTreeSet<PathBuf> = worktrees(common_dir).into_iter().chain([git_dir.clone()]).collect();
        for folder in all {
            self.named.start(folder.clone(), Role::Folder(PART));
            for file in ["config", "config.worktree"] {
                self.named.start(folder.join(file), Role::File(CONFIGURATION));
            }
            for part in PARTS {
                self.links_in(&folder.join(part));
            }
        }
        self.alternates(&common_dir.join("objects"));
    }

    /// Records the path that a file of git's has, if that file has one.
    fn leads_to(&mut self, file: &Path, from: &Path, prefix: &[u8]) {
        if let Some(path) = named_in(file, prefix) {
            self.named.start(from.join(path), Role::Folder(PART));
        }
    }

    /// Records where the links in a folder of the repository lead. (Hooks have their own reasons.)
    fn links_in(&mut self, folder: &Path) {
        // Most repositories lack some of these folders, and what cannot be listed cannot be used.
        for name in by_path::list(folder).unwrap_or_default() {
            let path = folder.join(&name);
            if name != "hooks" && by_path::is_link(&path) {
                self.named.start(path, Role::Folder(PART));
            }
        }
    }

    /// Records the further folders in which git looks for objects.
    fn alternates(&mut self, objects: &Path) {
        let (mut waiting, mut seen) = (vec![objects.to_path_buf()], BTreeSet::new());
        while let Some(objects) = waiting.pop() {
            // Git begins where the folder is, without links. One that does not exist has no list.
            let Ok(objects) = by_path::resolve(&objects) else { continue };
            if seen.len() == ALTERNATES_MAX || !seen.insert(objects.clone()) {
                continue;
            }
            let text = beginning(&objects.join("info/alternates")).unwrap_or_default();
            for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#') {
                let further = objects.join(path_of(&unquoted(line)));
                self.named.start(further.clone(), Role::Folder(ALTERNATE));
                self.named.start(further.join("info/alternates"), Role::File(ALTERNATE));
                waiting.push(further);
            }
        }
    }

    /// Records what the settings name. Returns the folders of hooks.
    fn settings(&mut self, settings: &[Setting<'_>]) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        let mut last: &[u8] = b"";
        for Setting { file, key, value } in settings {
            if *file != last {
                last = file;
                self.named.start(path_of(file), Role::File(CONFIGURATION));
            }
            if *key == b"core.hookspath" {
                let folder = self.resolve(&self.around.checkout, value);
                self.named.start(folder.clone(), Role::Hooks(HOOK));
                folders.push(folder);
            } else if is_include(key) {
                let included = self.included(file, value);
                self.named.start(included, Role::File(INCLUDED));
            } else if *key == b"init.templatedir" {
                let folder = self.resolve(&self.around.checkout, value);
                self.named.start(folder, Role::Folder(TEMPLATES));
            } else if *key == b"core.worktree" {
                self.named.start(self.around.git_dir.join(path_of(value)), Role::Way(WORKTREE));
            } else if let Some(address) = replacing(key) {
                let folder = self.resolve(&self.around.checkout, address);
                self.named.start(folder, Role::Folder(ADDRESS));
            } else if !PLAIN_SECTIONS.iter().any(|section| key.starts_with(section)) || is_command(key) {
                self.words(value, CONFIGURED, WORDS_MAX);
            }
        }
        folders
    }

    /// Lists the configuration: what is in effect, and each file that is included on a condition, which may hold later: another branch is
    /// checked out, or a remote is added. Of one that git cannot read, each file is listed that it can.
    fn lists(&mut self, git: &Git, cancel: &Cancel) -> Result<Vec<Vec<u8>>> {
        let Around { git_dir, common_dir, .. } = self.around;
        match git.configuration(git_dir).run(cancel) {
            Ok(list) => {
                let settings = parse(&list);
                let conditional = settings.iter().filter(|setting| setting.key.starts_with(b"includeif."));
                let included: Vec<PathBuf> =
                    conditional.map(|setting| self.included(setting.file, setting.value)).collect();
                let in_effect = origins(&settings);
                // Where git accepts no repository, only the configurations of the user and the system are in effect.
                let own = Some(common_dir.join("config")).filter(|own| !in_effect.contains(own));
                let mut lists =
                    self.each_file(git, own.into_iter().chain(included.clone()).collect(), cancel)?;
                if !included.is_empty() {
                    self.named.conditions.push(Condition {
                        around: self.around.clone(),
                        included,
                        in_effect,
                    });
                }
                lists.insert(0, list);
                Ok(lists)
            }
            Err(Fault::Refused(_)) => {
                let path = self.named.path_of(self.around);
                self.named.unread.insert((path, UNREAD));
                let own = [common_dir.join("config"), git_dir.join("config.worktree")];
                self.each_file(git, own.into_iter().chain(self.user.configurations()).collect(), cancel)
            }
            Err(fault) => fault.without_answer().map_or_else(|| Ok(Vec::new()), Err),
        }
    }

    /// Lists configurations one by one, with those that they include.
    fn each_file(&self, git: &Git, mut waiting: Vec<PathBuf>, cancel: &Cancel) -> Result<Vec<Vec<u8>>> {
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        while let Some(file) = waiting.pop() {
            if seen.len() == INCLUDES_MAX || !by_path::exists(&file) || !seen.insert(file.clone()) {
                continue;
            }
            let mut call = git.outside();
            call.args(["config", "--no-includes", "--show-origin", "--list", "-z", "--file"]).arg(&file);
            match call.run(cancel) {
                Ok(list) => {
                    let settings = parse(&list);
                    let includes = settings.iter().filter(|setting| is_include(setting.key));
                    waiting.extend(includes.map(|setting| self.included(setting.file, setting.value)));
                    found.push(list);
                }
                // What git cannot read does not take effect.
                Err(fault) => fault.without_answer().map_or(Ok(()), Err)?,
            }
        }
        Ok(found)
    }

    /// The file that a setting of a file includes.
    fn included(&self, file: &[u8], value: &[u8]) -> PathBuf {
        self.resolve(path_of(file).parent().unwrap_or(Path::new("/")), value)
    }

    /// Records what a folder's hooks name, and where hooks lead that are links.
    fn hooks(&mut self, folder: &Path) -> Result<()> {
        // A folder that does not exist has none, and neither does one that git may not read.
        let Ok(names) = by_path::list(folder) else { return Ok(()) };
        let mut left = HOOK_WORDS_MAX;
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
            file.take(TEXT_MAX).read_to_end(&mut text).map_err(|error| Error::io("read", &there, error))?;
            left -= self.words(&text, NAMED_BY_HOOK, left.min(WORDS_MAX));
        }
        Ok(())
    }

    /// Records git's own folder of hooks, and what the hooks in all folders name.
    fn all_hooks(&mut self, folders: &[PathBuf]) -> Result<()> {
        let own = self.around.common_dir.join("hooks");
        self.named.start(own.clone(), Role::Hooks(LINKED_HOOK));
        [own].iter().chain(folders).try_for_each(|folder| self.hooks(folder))
    }

    /// Records the files of the workspace that a command, a script or a plain value may mean. Returns the number of words, of which
    /// at most `max` count.
    fn words(&mut self, text: &[u8], reason: &'static str, max: usize) -> usize {
        let checkout = &self.around.checkout;
        let words = words(text, self.user.home.as_deref().map(bytes_of), max);
        let count = words.paths.len();
        for word in words.paths {
            let meant = self.resolve(checkout, &word);
            // What follows a variable or a command that gives a folder: `${dir}/../x`, `$(git …)/x`.
            let names = |part: &Component<'_>| matches!(part, Component::Normal(_));
            let rest: PathBuf = path_of(&word).components().filter(names).collect();
            self.tool(&rest);
            if !rest.as_os_str().is_empty() {
                self.named.start(checkout.join(rest), Role::Word(reason));
            }
            self.named.start(meant, Role::Word(reason));
        }
        for module in words.modules {
            // The packages that a module is in are loaded before it.
            let slashes = module.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
            for package in slashes.map(|at| [&module[..at], b"/__init__"].concat()) {
                self.named.start(checkout.join(path_of(&package)), Role::Module);
            }
            self.named.start(checkout.join(path_of(&module)), Role::Module);
        }
        count
    }

    /// Records the files that a program obeys without being told, if a word is the name of one.
    fn tool(&mut self, word: &Path) {
        let Some(name) = word.file_name() else { return };
        let is_tool = |(tools, _): &&(&[&str], &[&str])| tools.iter().any(|tool| name == *tool);
        for file in TOOLS.iter().filter(is_tool).flat_map(|(_, files)| *files) {
            self.named.start(self.around.checkout.join(file), Role::File(BY_TOOL));
        }
    }

    /// A path as git reads it: `~/` and `~user/` are folders of users, and a relative path begins at `from`.
    fn resolve(&self, from: &Path, value: &[u8]) -> PathBuf {
        self.user.in_home(value).unwrap_or_else(|| from.join(path_of(value)))
    }
}

/// Whether the value of a key is a file that git includes, on a condition or without one.
fn is_include(key: &[u8]) -> bool {
    key == b"include.path" || key.starts_with(b"includeif.")
}

/// The address, or the path, that a key puts in the place of another one.
fn replacing(key: &[u8]) -> Option<&[u8]> {
    let key = key.strip_prefix(b"url.")?;
    let address = REPLACING.iter().find_map(|end| key.strip_suffix(*end))?;
    Some(address.strip_prefix(b"file://").unwrap_or(address))
}

/// Whether the value of a key in a plain section is a command.
fn is_command(key: &[u8]) -> bool {
    key.starts_with(b"submodule.") && key.ends_with(b".update")
}

/// The folders for the files of a repository that settings name, other than its checkout.
fn worktrees_of(settings: &[Setting<'_>], around: &Around) -> Vec<PathBuf> {
    let named = settings.iter().filter(|setting| setting.key == b"core.worktree");
    // Nothing runs in a folder that does not exist.
    let there =
        named.filter_map(|setting| by_path::resolve(&around.git_dir.join(path_of(setting.value))).ok());
    there.filter(|folder| *folder != around.checkout).collect()
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
        let user = User { home: Some("/home/me".into()), ..User::default() };
        let mut finding = Finding { named: &mut named, around: &around, user: &user };
        if key == "hook" {
            finding.words(value.as_bytes(), NAMED_BY_HOOK, WORDS_MAX);
            return named;
        }
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
            ("/ws/cfg/git/config", "user.name", "x", "cfg/git/config"),
            (local, "init.templatedir", "tools/template", "tools/template/hooks/pre-commit"),
            (local, "submodule.x.update", "!./tools/update", "tools/update"),
            (local, "url./ws/m/.insteadof", "https://host/", "m/up"),
            (local, "url.m.x/.insteadof", "https://host/", "m.x/up/a"),
            (local, "url.file:///ws/m.pushinsteadof", "https://host/", "m/up"),
            (local, "core.sshcommand", "ssh -Fcfg/ssh", "cfg/ssh"),
            (local, "filter.x.clean", "curl file://$PWD/f", "f"),
            (local, "filter.x.clean", r"sh f\ a", "f a"),
            (local, "filter.x.clean", r#"sh "f18'a""#, "f18'a"),
            (local, "filter.x.clean", r#"sh "tools"/x"#, "tools/x"),
            (local, "filter.x.clean", "node tools/clean", "tools/clean.js"),
            (local, "filter.x.clean", "node tools/clean", "tools/clean.any"),
            (local, "filter.x.clean", "node clean", "clean.cjs"),
            (local, "filter.x.clean", "node .", "index.js"),
            ("", "hook", "node tools/clean", "tools/clean/index.mjs"),
            ("", "hook", "node tools/clean", "tools/clean/package.json"),
            ("", "hook", "python3 tools/clean", "tools/clean/__main__.py"),
            ("", "hook", "python3 -m tools.clean", "tools/clean.py"),
            ("", "hook", "python3 -m tools.clean", "tools/clean/__init__.py"),
            ("", "hook", "python3 -m tools.clean", "tools/__init__.py"),
            ("", "hook", "python3 -m tools.deep.clean", "tools/deep/__init__.py"),
            ("", "hook", "make -C tools", "tools/GNUmakefile"),
            ("", "hook", "make -C tools", "Makefile"),
            ("", "hook", "/usr/bin/make x", "makefile"),
            ("", "hook", "npx eslint src", "package.json"),
            ("", "hook", "pnpm run x", "package.json"),
            ("", "hook", "exec ./node_modules/.bin/lefthook run", "lefthook.yml"),
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
            (local, "init.defaultbranch", "x", "x"),
            (local, "submodule.x.branch", "x", "x"),
            (local, "filter.x.clean", "node tools/clean", "tools/clean.test.js"),
            (local, "filter.x.clean", "node tools/clean", "tools/index.js"),
            (local, "filter.x.clean", "node clean", "clean.md"),
            (local, "filter.x.clean", "node .", "main.js"),
            (local, "core.worktree", "../tree", "tree"),
            (local, "url./ws/m/.insteadof", "https://host/", "other"),
            (local, "url./ws/m/.other", "x", "m/up"),
            ("", "hook", "npx eslint src", "src/a.js"),
            ("", "hook", "npx eslint src", "src/package.jsonc"),
            ("", "hook", "npx eslint src", "Makefile"),
            ("", "hook", "python3 -m tools.clean", "tools/other.py"),
        ] {
            assert_eq!(named_by(file, key, value).reason(&path(not)), None, "{key}={value}");
        }
    }

    #[test]
    fn where_the_user_has_configurations() {
        let workspace = tempfile::tempdir().unwrap();
        let root = workspace.path().canonicalize().unwrap();
        let user = User {
            home: Some(root.join("home")),
            folder: Some(root.join("xdg")),
            chosen: vec!["chosen".into()],
            program: root.join("bin/git"),
            users: Vec::new(),
        };
        let mut named = Named { workspace: root, ..Named::default() };
        named.user(&user);
        for told in [
            "home/.gitconfig",
            "home/.config/git/config",
            "home/.ssh/config",
            "home/.ssh/conf.d/x",
            "xdg/git/attributes",
            "chosen",
            "etc/gitconfig",
        ] {
            assert!(named.reason(&path(told)).is_some(), "{told}");
        }
        for not in ["home/.bashrc", "xdg/git/other", "xdg/config"] {
            assert_eq!(named.reason(&path(not)), None, "{not}");
        }
        let told = named.names();
        assert!(told.contains(&b"chosen"[..]) && told.contains(&b".gitconfig"[..]), "{told:?}");
    }

    #[test]
    fn a_folder_that_git_obeys_counts_with_all_in_it() {
        let mut named = Named { workspace: "/ws".into(), ..Named::default() };
        named.start("/ws/a-b".into(), Role::Folder(ALTERNATE));
        named.start("/ws/a/b".into(), Role::Folder(ALTERNATE));
        named.start("/ws".into(), Role::Folder(ALTERNATE));
        for told in ["a/b", "a/b/info/alternates"] {
            assert_eq!(named.reason(&path(told)), Some(ALTERNATE), "{told}");
        }
        for not in ["a", "a/bc", "a/c"] {
            assert_eq!(named.reason(&path(not)), None, "{not}");
        }
        assert!(named.reason_of_link(&path("a")).is_some() && named.reason_of_link(&path("b")).is_none());
        assert!(named.names().is_empty());
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
        let (root, outline) =
            (Root::open(workspace.path()).unwrap(), Outline { links, ..Outline::default() });
        let mut named = Named::read(None, &root, &Bases::new(), outline, &Cancel::default()).unwrap();
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
