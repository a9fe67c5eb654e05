//! A local workspace, a sandbox, and real git on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::error::Error;
use sandbox_managed_runtime::exclude::ExcludePatterns;
use sandbox_managed_runtime::fs::{Kind, Root};
use sandbox_managed_runtime::git::command::{Fault, Git};
use sandbox_managed_runtime::git::export::{Bases, Options, Tree, export};
use sandbox_managed_runtime::git::import::check;
use sandbox_managed_runtime::git::quarantine::{Quarantine, is_passed_over};
use sandbox_managed_runtime::git::recognise::{Checkouts, bare_folders, is_gits};
use sandbox_managed_runtime::git::report::GitReport;
use sandbox_managed_runtime::git::stored::Known;
use sandbox_managed_runtime::git::written::have_compared;
use sandbox_managed_runtime::path::RelativePath;
use sandbox_managed_runtime::tree::filter::Filter;
use sandbox_managed_runtime::tree::scan::scan;
use tempfile::TempDir;

/// The gits on this machine, one of each version. Every test runs with each of them.
pub fn gits() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").expect("PATH is set");
    let mut by_version = BTreeMap::new();
    for folder in std::env::split_paths(&path) {
        let program = folder.join("git");
        if let Ok(output) = Command::new(&program).arg("version").output() {
            by_version.entry(output.stdout).or_insert(program);
        }
    }
    by_version.into_values().collect()
}

/// Runs a test with every git of this machine.
pub fn with_each_git(test: impl Fn(&mut Bench)) {
    let gits = gits();
    assert!(!gits.is_empty(), "git is installed");
    for program in gits {
        eprintln!("with {}", program.display());
        test(&mut Bench::new(program));
    }
}

pub struct Bench {
    pub root: Folder,
    pub program: PathBuf,
    /// The local workspace.
    pub here: PathBuf,
    /// The sandbox's workspace.
    pub there: PathBuf,
    pub canary: PathBuf,
    /// The folder for quarantines.
    pub work: PathBuf,
    pub bases: Bases,
    pub options: Options,
    pub without_git: bool,
    /// What is exchanged in neither direction.
    pub excluded: ExcludePatterns,
    /// Cancels the next prepare.
    pub cancel: Cancel,
    /// The paths that the sandbox's commits changed at the last restore.
    pub changed: BTreeSet<RelativePath>,
    sent: Vec<PathBuf>,
    serial: usize,
}

/// A temporary directory that is removed on drop, unless it belongs to another process.
pub struct Folder {
    path: PathBuf,
    owned: Option<TempDir>,
}

impl Folder {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Bench {
    /// Opens a bench that another process has set up.
    pub fn at(path: PathBuf, program: PathBuf) -> Self {
        Self {
            here: path.join("here"),
            there: path.join("there"),
            canary: path.join("canary"),
            work: path.clone(),
            bases: Bases::new(),
            options: Options::default(),
            without_git: false,
            excluded: ExcludePatterns::default(),
            cancel: Cancel::default(),
            sent: Vec::new(),
            serial: 0,
            changed: BTreeSet::new(),
            program,
            root: Folder { path, owned: None },
        }
    }

    /// The folder of the whole bench.
    pub fn path(&self) -> PathBuf {
        self.root.path.clone()
    }

    /// Makes a workspace with two commits on `main` and one on `feature`, and a remote beside it.
    pub fn new(program: PathBuf) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let mut bench = Self::at(path.clone(), program);
        bench.root.owned = Some(root);
        fs::create_dir(&bench.here).unwrap();
        bench.git(&path, &["init", "-q", "--bare", "-b", "main", "remote.git"]);
        bench.git(&bench.here, &["init", "-q", "-b", "main"]);
        write(&bench.here.join("a.txt"), "one\n");
        bench.commit_here("first");
        write(&bench.here.join("b.txt"), "two\n");
        bench.commit_here("second");
        bench.here(&["branch", "feature"]);
        bench.here(&["tag", "v1"]);
        bench.here(&["remote", "add", "origin", path.join("remote.git").to_str().unwrap()]);
        bench.here(&["push", "-q", "origin", "main"]);
        bench
    }

    fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.root.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("CANARY", &self.canary)
            .args([
                "-c",
                "user.name=T",
                "-c",
                "user.email=t@t",
                "-c",
                "protocol.file.allow=always",
                "-c",
                "safe.directory=*",
            ])
            .args(["-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(folder);
        command
    }

    /// Runs git in a folder. It must succeed.
    pub fn git(&self, folder: &Path, args: &[&str]) -> String {
        let output = self.command(folder, args).output().unwrap();
        assert!(
            output.status.success(),
            "git {args:?} in {}: {}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs git in a folder, whatever its outcome.
    pub fn try_git(&self, folder: &Path, args: &[&str]) -> (bool, String) {
        let output = self.command(folder, args).output().unwrap();
        let text = [&output.stdout[..], &output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs a shell command that calls git in a folder. It must succeed.
    pub fn shell(&self, folder: &Path, script: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).env("HOME", self.root.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        let output = shell.current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub fn here(&self, args: &[&str]) -> String {
        self.git(&self.here, args)
    }

    pub fn there(&self, args: &[&str]) -> String {
        self.git(&self.there, args)
    }

    /// Adds a local worktree outside of the workspace, in which no branch is checked out.
    pub fn other_worktree(&self) -> PathBuf {
        let other = self.path().join("other");
        self.here(&["worktree", "add", "-q", "--detach", other.to_str().unwrap()]);
        other
    }

    pub fn commit_here(&self, message: &str) -> String {
        self.commit(&self.here, message)
    }

    pub fn commit_there(&self, message: &str) -> String {
        self.commit(&self.there, message)
    }

    /// Commits everything in a folder.
    pub fn commit(&self, folder: &Path, message: &str) -> String {
        self.git(folder, &["add", "-A"]);
        self.git(folder, &["commit", "-q", "--no-verify", "-m", message]);
        self.git(folder, &["rev-parse", "HEAD"])
    }

    /// Makes a repository with one commit, whose id it returns.
    pub fn new_repository(&self, folder: &Path) -> String {
        fs::create_dir_all(folder).unwrap();
        self.git(folder, &["init", "-q", "-b", "main"]);
        write(&folder.join("x.txt"), "x\n");
        self.commit(folder, "nested")
    }

    /// Uploads the files, and what is exported of each repository. Returns what was refused.
    pub fn prepare(&mut self) -> Vec<String> {
        let cancel = self.cancel.clone();
        let workspace = Root::open(&self.here).unwrap();
        let checkouts = Checkouts::default();
        let excluded = Filter::by_name(|path| self.excluded.matches(path));
        let files = excluded.clone().without_names("", |path| checkouts.leaves_out(path));
        let found = scan(&workspace, &files, &cancel).unwrap();
        drop(files);
        let bare: Vec<RelativePath> = bare_folders(found.iter().map(|found| (&found.path, found.meta.kind)))
            .into_iter()
            .flatten()
            .collect();
        if self.there.exists() {
            fs::remove_dir_all(&self.there).unwrap();
        }
        fs::create_dir(&self.there).unwrap();
        self.sent.clear();
        for entry in &found {
            if bare.iter().any(|folder| entry.path.is_or_below(folder.as_bytes())) {
                continue;
            }
            put(&self.here.join(entry.path.as_path()), &self.there.join(entry.path.as_path()));
            self.sent.push(entry.path.as_path().to_path_buf());
        }
        self.bases.clear();
        let mut refused = Vec::new();
        let git = Git::at(self.program.clone());
        for dot_git in checkouts.found() {
            let folder = self.there.join(dot_git.as_path());
            let tree = Tree { root: &workspace, found: &found, excluded: &excluded };
            match export(&git, tree, &dot_git, self.options, None, &folder, &cancel) {
                Ok(exported) => drop(self.bases.insert(dot_git, exported.base)),
                Err(Fault::Refused(reason) | Fault::Killed(reason)) => refused.push(reason),
                Err(Fault::Error(Error::Aborted)) => refused.push("aborted".to_owned()),
                Err(Fault::Error(error)) => panic!("{error}"),
            }
        }
        refused
    }

    /// Restores the sandbox's state. The files are merged in the simplest way: the sandbox's version wins.
    pub fn restore(&mut self) -> GitReport {
        self.restore_while(|_| ())
    }

    /// Restores with that serial number, which is part of the names of what is kept.
    pub fn restore_as(&mut self, serial: usize) -> GitReport {
        self.serial = serial - 1;
        self.restore()
    }

    /// Restores, with something that happens locally after the check and before anything is changed.
    pub fn restore_while(&mut self, between: impl FnOnce(&Self)) -> GitReport {
        self.serial += 1;
        let cancel = Cancel::default();
        let work = self.work.join(format!("quarantine-{}", self.serial));
        let workspace = Root::open(&self.here).unwrap();
        let there = Root::open(&self.there).unwrap();
        let mut found = scan(&there, &Filter::default(), &cancel).unwrap();
        // A `.git` that is a file comes first.
        found.sort_by_key(|found| found.meta.kind != Kind::File || !found.path.as_path().ends_with(".git"));
        let mut quarantine = Quarantine::new(work, &self.bases).unwrap();
        let bare: Vec<RelativePath> = bare_folders(
            found.iter().filter(|found| !is_gits(&found.path)).map(|found| (&found.path, found.meta.kind)),
        )
        .into_iter()
        .flatten()
        .collect();
        for folder in &bare {
            quarantine.hold(folder, "git would take this folder for a bare repository");
        }
        let mut files = Vec::new();
        for entry in found {
            if is_gits(&entry.path) {
                match entry.meta.kind {
                    Kind::Folder => quarantine.folder(&entry.path),
                    Kind::File if is_passed_over(&entry.path, &self.bases) => {}
                    Kind::File => {
                        let (mut file, _) = there.cursor().open(&entry.path).unwrap().unwrap();
                        quarantine.file(&entry.path, &mut file).unwrap();
                    }
                    _ => quarantine.other(&entry.path),
                }
            } else if !bare.iter().any(|folder| entry.path.is_or_below(folder.as_bytes()))
                && !self.excluded.matches(&entry.path)
            {
                files.push(entry.path.as_path().to_path_buf());
            }
        }
        let git = Git::at(self.program.clone());
        let git = (!self.without_git).then_some(&git);
        let stored = Known::default();
        let checked = check(git, &workspace, &self.bases, quarantine, &stored, &cancel).unwrap();
        self.changed = checked.changed();
        between(self);
        let mut written = Vec::new();
        for file in &files {
            if put(&self.there.join(file), &self.here.join(file)) {
                written.extend(RelativePath::parse(file.as_os_str().as_encoded_bytes()).unwrap());
            }
        }
        for gone in self.sent.iter().rev().filter(|path| !self.there.join(path).exists()) {
            let gone = self.here.join(gone);
            if gone.is_dir() { drop(fs::remove_dir(&gone)) } else { drop(fs::remove_file(&gone)) }
        }
        let time = format!("2026-11-28T12:00:0{}.000Z", self.serial);
        let aside = self.here.join(".paperclip-runtime/conflicts").join(&time);
        let (mut report, bases) = checked.apply(git, &workspace, &time, &|| Ok(aside.clone())).unwrap();
        report.tell_excluded(&Filter::by_name(|path| self.excluded.matches(path)));
        if let Some(git) = git {
            have_compared(git, &workspace, &bases, &written, &mut report, &cancel).unwrap();
        }
        self.bases = bases;
        assert_eq!(self.marks(), Vec::<String>::new());
        report
    }

    /// The marks on local packs that protect them from a collection.
    pub fn marks(&self) -> Vec<String> {
        let Ok(packs) = fs::read_dir(self.here.join(".git/objects/pack")) else { return Vec::new() };
        let names = packs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".keep") && name != "person.keep").collect()
    }

    /// A temporary folder on another file system than the local workspace.
    pub fn on_another_file_system(&self) -> TempDir {
        use std::os::unix::fs::MetadataExt as _;
        let of = |path: &Path| fs::metadata(path).unwrap().dev();
        let elsewhere =
            ["/dev/shm", "/var/tmp"].map(Path::new).into_iter().find(|path| of(path) != of(&self.here));
        tempfile::tempdir_in(elsewhere.expect("this machine has one file system for everything")).unwrap()
    }

    /// Asserts that the repository in a folder is sound, and that commits can be reached from a reference.
    pub fn assert_sound(&self, folder: &Path, commits: &[&str]) {
        let (ok, text) = self.try_git(folder, &["fsck", "--full", "--strict", "--no-dangling"]);
        assert!(ok && !text.contains("error") && !text.contains("missing"), "{text}");
        let all = self.git(folder, &["log", "--all", "--format=%H"]);
        for commit in commits {
            assert!(all.contains(commit), "{commit} can be reached from no reference");
        }
        assert!(!folder.join(".git/index.lock").exists());
    }

    /// What is outside the workspace, and what the remote has. No test changes it, except by adding a
    /// worktree.
    pub fn outside(&self) -> (Vec<String>, String) {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name != "worktree");
        names.sort();
        (names, self.git(&self.path().join("remote.git"), &["for-each-ref"]))
    }

    /// Does locally what users do with git, and asserts that nothing of the sandbox's was run.
    pub fn use_here(&self) {
        self.use_folder(&self.here);
    }

    pub fn use_folder(&self, folder: &Path) {
        write(&folder.join("local.txt"), "local\n");
        // A tracked file is changed, so that commands that show or filter changes have some.
        let (_, tracked) = self.try_git(folder, &["ls-files", "--", "*.txt"]);
        if let Some(name) = tracked.lines().next() {
            write(&folder.join(name), "edited here\n");
        }
        for args in [
            &["status"][..],
            &["diff"],
            &["diff", "HEAD"],
            &["add", "-A"],
            &["commit", "-m", "local"],
            &["checkout", "-b", "another"],
            &["log", "-p", "-2"],
            &["show"],
            &["fetch", "--all"],
            &["worktree", "add", "../worktree", "-b", "third"],
        ] {
            let (_, text) = self.try_git(folder, args);
            assert!(!self.canary.exists(), "git {args:?} ran the sandbox's command: {text}");
        }
        write(&folder.join("local.txt"), "stash\n");
        self.try_git(folder, &["stash"]);
        self.try_git(folder, &["stash", "pop"]);
        assert!(!self.canary.exists(), "git stash ran the sandbox's command");
    }
}

pub fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Writes a program, by a process of its own: a file that is open for writing cannot be run, and a process
/// that another thread starts inherits for a moment what this one has open.
pub fn executable(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let script = r#"printf %s "$2" > "$1" && chmod 755 "$1""#;
    let written = Command::new("sh").args(["-c", script, "sh"]).arg(path).arg(text).status().unwrap();
    assert!(written.success(), "{}", path.display());
}

/// Copies one entry. Returns whether it is a file that was not the same.
fn put(from: &Path, to: &Path) -> bool {
    let meta = from.symlink_metadata().unwrap();
    if meta.is_dir() {
        fs::create_dir_all(to).unwrap();
    } else if meta.is_symlink() {
        if to.symlink_metadata().is_ok() {
            fs::remove_file(to).unwrap();
        }
        symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else if meta.is_file() && fs::read(to).ok() != Some(fs::read(from).unwrap()) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
        return true;
    }
    false
}

pub fn path(text: &str) -> RelativePath {
    RelativePath::parse(text.as_bytes()).unwrap().unwrap()
}

/// Whether a report holds back something whose path or name contains the text.
pub fn holds(report: &GitReport, text: &str) -> bool {
    report.held_back.iter().any(|held| {
        held.path.to_string().contains(text) || held.what.as_ref().is_some_and(|what| what.contains(text))
    })
}
