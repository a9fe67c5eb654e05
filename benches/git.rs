//! Measures a commit that comes back, compared with `git fetch` of the same commit, and the upload of a
//! repository.
//!
//! `cargo bench --bench git`. It measures the local work: no transfer, no merge of files. `GIT_BENCH_MB` adds
//! a repository with that many megabytes of objects: its first upload, one without a change, and one after a
//! commit.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::fs::{Kind, Root};
use sandbox_managed_runtime::git::command::Git;
use sandbox_managed_runtime::git::export::{Base, Bases, Options, Tree, export};
use sandbox_managed_runtime::git::import::check;
use sandbox_managed_runtime::git::packs::{Earlier, PackFile};
use sandbox_managed_runtime::git::quarantine::Quarantine;
use sandbox_managed_runtime::git::recognise::is_gits;
use sandbox_managed_runtime::git::stored::Known;
use sandbox_managed_runtime::path::RelativePath;
use sandbox_managed_runtime::tree::filter::Filter;
use sandbox_managed_runtime::tree::scan::scan;

const FILES: usize = 20_000;
const CHANGED: usize = 10;
const ROUNDS: usize = 15;

fn git(folder: &Path, args: &[&str]) {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@t",
            "-c",
            "gc.auto=0",
            "-c",
            "maintenance.auto=false",
        ])
        .args(args)
        .current_dir(folder)
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn dot_git() -> RelativePath {
    RelativePath::parse(b".git").ok().flatten().expect("it is a path")
}

struct Bench {
    here: PathBuf,
    there: PathBuf,
    git: Git,
    cancel: Cancel,
}

impl Bench {
    fn new(root: &Path, name: &str) -> Self {
        let here = root.join(name);
        fs::create_dir(&here).expect("it is new");
        git(&here, &["init", "-q", "-b", "main"]);
        let git = Git::find(&here).expect("git is installed");
        Self { there: root.join(format!("{name}-there")), here, git, cancel: Cancel::default() }
    }

    /// Makes an upload for a sandbox that has everything of an earlier one.
    fn export(&self, folder: &Path, earlier: Option<&Base>) -> Base {
        let workspace = Root::open(&self.here).expect("it is there");
        let has = |_: &str, _: &PackFile| true;
        let earlier = earlier.map(|base| Earlier { packs: &base.sent_packs, has: &has });
        let (options, git) = (Options::default(), &self.git);
        let filter = Filter::by_name(is_gits);
        let found = scan(&workspace, &filter, &self.cancel).expect("it is readable");
        let tree = Tree { root: &workspace, found: &found, excluded: &Filter::default() };
        let exported = export(git, tree, &dot_git(), options, earlier.as_ref(), folder, &self.cancel);
        exported.expect("nothing is refused").base
    }

    /// Does what a restore does with the content of the sandbox's `.git`, once it has arrived.
    fn restore(&self, bases: &Bases, work: PathBuf) -> Bases {
        let (here, there) =
            (Root::open(&self.here).expect("it is there"), Root::open(&self.there).expect("it is there"));
        let mut quarantine = Quarantine::new(work, bases).expect("it is new");
        let outside = Filter::by_name(|path| !path.as_bytes().starts_with(b".git"));
        for found in scan(&there, &outside, &self.cancel).expect("it is readable") {
            if found.meta.kind == Kind::Folder {
                quarantine.folder(&found.path);
            } else if !sandbox_managed_runtime::git::quarantine::is_passed_over(&found.path, bases) {
                let (mut file, _) = there.cursor().open(&found.path).expect("it opens").expect("it is there");
                quarantine.file(&found.path, &mut file).expect("it is written");
            }
        }
        let checked = check(Some(&self.git), &here, bases, quarantine, &Known::default(), &self.cancel)
            .expect("it is checked");
        let aside = || unreachable!("nothing is refused");
        let (report, bases) =
            checked.apply(Some(&self.git), &here, "2026-01-01T00:00:00.000Z", &aside).expect("it is merged");
        assert!(report.held_back.is_empty() && !report.updated.is_empty(), "{report:?}");
        bases
    }
}

fn a_commit(root: &Path) {
    let bench = Bench::new(root, "commit");
    for at in 0..FILES {
        let folder = bench.here.join(format!("folder-{}", at % 200));
        fs::create_dir_all(&folder).expect("it is made");
        fs::write(folder.join(format!("file-{at}")), format!("{at} ").repeat(200)).expect("it is written");
    }
    git(&bench.here, &["add", "-A"]);
    git(&bench.here, &["commit", "-q", "-m", "first"]);
    git(&bench.here, &["repack", "-q", "-a", "-d"]);
    git(root, &["clone", "-q", "--bare", "--no-local", "commit", "fetching"]);
    let mut exports = Vec::new();
    let mut base = None;
    for round in 0..ROUNDS {
        let folder = root.join(format!("export-{round}"));
        let started = Instant::now();
        let exported = bench.export(&folder, None);
        exports.push(started.elapsed());
        base.get_or_insert(exported);
        if round == 0 {
            fs::create_dir(&bench.there).expect("it is new");
            fs::rename(&folder, bench.there.join(".git")).expect("it is moved");
        }
    }
    git(&bench.there, &["checkout", "-q", "-f", "main"]);
    let mut bases = Bases::from([(dot_git(), base.expect("there was a round"))]);
    let (mut ours, mut fetches) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for at in 0..CHANGED {
            let at = (round * CHANGED + at) * 7 % FILES;
            let file = bench.there.join(format!("folder-{}/file-{at}", at % 200));
            fs::write(file, format!("round {round} ").repeat(200)).expect("it is written");
        }
        git(&bench.there, &["commit", "-q", "-a", "-m", "changed"]);
        let started = Instant::now();
        bases = bench.restore(&bases, root.join(format!("work-{round}")));
        ours.push(started.elapsed());
        let started = Instant::now();
        git(&root.join("fetching"), &["fetch", "-q", "../commit-there", "main:main"]);
        fetches.push(started.elapsed());
    }
    let (ours, fetch) = (median(ours), median(fetches));
    println!("a commit of {CHANGED} files on {FILES} comes back: {ours:.0} ms");
    println!("git fetch of the same commit: {fetch:.0} ms; ratio {:.1}", ours / fetch);
    println!("that repository goes up: {:.0} ms", median(exports));
}

/// Makes a repository with that many megabytes of objects, in one pack.
fn an_export(root: &Path, megabytes: usize) {
    let bench = Bench::new(root, "large");
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(&bench.here)
        .stdin(Stdio::piped())
        .spawn()
        .expect("git is installed");
    let mut into = std::io::BufWriter::new(import.stdin.take().expect("it is a pipe"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = vec![0; 10 * 1024];
    for commit in 0..megabytes {
        write!(into, "commit refs/heads/main\ncommitter T <t@t> {} +0000\ndata 1\nx\n", commit + 1)
            .expect("it reads");
        for file in 0..100 {
            for chunk in content.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.copy_from_slice(&state.to_ne_bytes()[..chunk.len()]);
            }
            write!(into, "M 644 inline f{}/{file}\ndata {}\n", commit % 50, content.len()).expect("it reads");
            into.write_all(&content).expect("it reads");
            into.write_all(b"\n").expect("it reads");
        }
    }
    drop(into);
    assert!(import.wait().expect("it ends").success());
    git(&bench.here, &["reset", "-q", "--hard"]);
    let time = |name: &str, earlier: Option<&Base>| {
        let folder = root.join(name);
        let started = Instant::now();
        let base = bench.export(&folder, earlier);
        let took = started.elapsed();
        fs::remove_dir_all(&folder).expect("it is removed");
        (took, base)
    };
    let (first, base) = time("first", None);
    println!("a repository of {megabytes} MB goes up for the first time: {:.0} ms", median(vec![first]));
    let unchanged = (0..ROUNDS).map(|_| time("unchanged", Some(&base)).0).collect();
    println!("it did not change and goes up again: {:.0} ms", median(unchanged));
    let mut bases = vec![base];
    let mut commits = Vec::new();
    // No more than the packs that are kept apart.
    for round in 0..7 {
        fs::write(bench.here.join("f0/0"), format!("round {round}")).expect("it is written");
        git(&bench.here, &["commit", "-q", "-a", "-m", "changed"]);
        let (took, base) = time("commit", bases.last());
        commits.push(took);
        bases.push(base);
    }
    println!("it has a new commit and goes up again: {:.0} ms", median(commits));
}

fn main() {
    let root = tempfile::tempdir().expect("a folder is made");
    let path = root.path().canonicalize().expect("it is there");
    a_commit(&path);
    if let Some(megabytes) = std::env::var("GIT_BENCH_MB").ok().and_then(|text| text.parse().ok()) {
        an_export(&path, megabytes);
    }
}
