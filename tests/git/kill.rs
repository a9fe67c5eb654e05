//! A kill at every step of a restore leaves a sound repository, and the next restore completes it.
//!
//! The restore runs in its own process: this test program again, which `GIT_CHILD` tells where to work. Its
//! git is a script that kills that process at a chosen call: before git runs, after it, or while it continues
//! alone. The signal goes to the group of that process, as that of a terminal does. A git that changes a local repository is
//! not in it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::bench::{Bench, executable, gits, write};

const WHERE: &str = "GIT_CHILD";

/// The calls that change a repository, by a part of their command line.
const STEPS: &str = r#"*" update-ref "*|*" update-index "*|*" unpack-objects "*|*" index-pack "*|*" symbolic-ref -m "*|*" config --local --add "*"#;

fn script(root: &Path, git: &Path) -> String {
    let (root, git) = (root.display(), git.display());
    format!(
        "#!/bin/sh\n\
         [ -e {root}/armed ] || exec {git} \"$@\"\n\
         case \" $* \" in {STEPS}) ;; *) exec {git} \"$@\" ;; esac\n\
         echo >> {root}/steps\n\
         read at how < {root}/armed\n\
         [ \"$(wc -l < {root}/steps)\" -eq \"$at\" ] || exec {git} \"$@\"\n\
         echo $$ > {root}/git-pid\n\
         case $GIT_DIR in */quarantine-*) killed=$PPID ;; *) killed=-$PPID ;; esac\n\
         [ $how = after ] || kill -9 $killed\n\
         [ $how = before ] || {git} \"$@\"\n\
         touch {root}/over\n\
         [ $how != after ] || kill -9 $killed\n"
    )
}

fn wait_for(path: &Path) {
    while !path.exists() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The restore that is killed. Does nothing unless [`restore_and_kill`] starts it in another process.
#[test]
fn a_restore_in_its_own_process() {
    let Some(root) = std::env::var_os(WHERE).map(PathBuf::from) else { return };
    let mut bench = Bench::at(root.clone(), root.join("git"));
    bench.there = root.join("scratch");
    bench.prepare();
    bench.there = root.join("there");
    fs::write(root.join("ready"), "").unwrap();
    wait_for(&root.join("armed"));
    bench.restore_as(100);
    fs::write(root.join("done"), "").unwrap();
}

/// Restores in another process, which is killed at that step. Returns how many steps it reached.
fn restore_and_kill(bench: &Bench, at: usize, how: &str, meanwhile: impl FnOnce(&Bench)) -> usize {
    let root = &bench.path();
    executable(&root.join("git"), &script(root, &bench.program));
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::a_restore_in_its_own_process", "--test-threads=1"])
        .env(WHERE, root)
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !root.join("ready").exists() {
        assert!(other.try_wait().unwrap().is_none(), "the other process ended before its time");
        thread::sleep(Duration::from_millis(1));
    }
    meanwhile(bench);
    fs::write(root.join("armed-soon"), format!("{at} {how}\n")).unwrap();
    fs::rename(root.join("armed-soon"), root.join("armed")).unwrap();
    let status = other.wait().unwrap();
    let steps = fs::read_to_string(root.join("steps")).unwrap_or_default().lines().count();
    if at <= steps && at > 0 {
        assert!(!status.success(), "it was to be killed at step {at}");
        let git = fs::read_to_string(root.join("git-pid")).unwrap();
        while !root.join("over").exists() {
            let is_there = Path::new("/proc").join(git.trim()).exists() || root.join("over").exists();
            assert!(is_there, "git was killed at step {at}");
            thread::sleep(Duration::from_millis(1));
        }
        // The git that has locked the index ends by itself, once nobody can tell it anything.
        let lock = bench.here.join(".git/index.lock");
        let looks =
            (0..10_000).take_while(|_| lock.exists()).map(|_| thread::sleep(Duration::from_millis(1)));
        assert!(looks.count() < 10_000, "the index stays locked after step {at}");
    } else {
        assert!(status.success() && root.join("done").exists());
    }
    steps
}

/// Restores in another process, which is killed once references have moved, as if the git that has the index locked was killed, too: it
/// would have made the change.
fn restore_and_kill_all(bench: &Bench, meanwhile: impl FnOnce(&Bench)) {
    let index = bench.here.join(".git/index");
    let former = fs::read(&index).unwrap();
    restore_and_kill(bench, 4, "after", meanwhile);
    fs::write(index, former).unwrap();
}

/// What both sides do between prepare and restore.
struct Work {
    main: String,
    topic: String,
    feature: String,
    theirs: String,
    ours: String,
    nested: String,
}

fn prepare(bench: &mut Bench) -> (String, String) {
    bench.here(&["branch", "both"]);
    bench.here(&["checkout", "-q", "feature"]);
    write(&bench.here.join("f.txt"), "f\n");
    let feature = bench.commit_here("feature");
    bench.here(&["checkout", "-q", "main"]);
    bench.prepare();
    let there = bench.there.clone();
    let main = bench.git(&there, &["rev-parse", "main"]);
    (feature, main)
}

fn work(bench: &Bench, feature: String) -> Work {
    bench.there(&["checkout", "-q", "both"]);
    bench.there(&["commit", "-q", "--allow-empty", "-m", "theirs"]);
    let theirs = bench.there(&["rev-parse", "both"]);
    bench.there(&["checkout", "-q", "main"]);
    write(&bench.there.join("n.txt"), "n\n");
    let main = bench.commit_there("new");
    bench.there(&["checkout", "-q", "-b", "topic"]);
    write(&bench.there.join("t.txt"), "t\n");
    let topic = bench.commit_there("topic");
    bench.there(&["branch", "-q", "-D", "feature"]);
    bench.there(&["tag", "v2"]);
    write(&bench.there.join("a.txt"), "stashed\n");
    bench.there(&["stash", "push", "-q", "-m", "theirs"]);
    write(&bench.there.join("staged.txt"), "staged\n");
    bench.there(&["add", "staged.txt"]);
    bench.there(&["remote", "add", "fork", "https://example.com/fork.git"]);
    let fresh = bench.there.join("fresh");
    let nested = bench.new_repository(&fresh);
    let tree = bench.here(&["rev-parse", "both^{tree}"]);
    let ours = bench.here(&["commit-tree", &tree, "-p", "both", "-m", "ours"]);
    bench.here(&["update-ref", "refs/heads/both", &ours]);
    Work { main, topic, feature, theirs, ours, nested }
}

fn assert_complete(bench: &Bench, work: &Work, what: &str) {
    let names = ["main", "topic", "v2", "both"];
    let values: Vec<String> = names.iter().map(|name| bench.here(&["rev-parse", name])).collect();
    assert_eq!(values, [&work.main, &work.topic, &work.topic, &work.ours].map(String::clone), "{what}");
    assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/topic", "{what}");
    assert_eq!(bench.here(&["branch", "--list", "feature"]), "", "{what}");
    assert_eq!(bench.here(&["status", "--porcelain", "--", ":!fresh"]), "A  staged.txt", "{what}");
    assert_eq!(bench.here(&["stash", "list", "--format=%gs"]), "On topic: theirs", "{what}");
    assert_eq!(bench.here(&["remote", "get-url", "fork"]), "https://example.com/fork.git", "{what}");
    let mapping = bench.here(&["config", "--get-all", "remote.fork.fetch"]);
    assert_eq!(mapping, "+refs/heads/*:refs/remotes/fork/*", "{what}");
    bench.assert_sound(&bench.here, &[&work.main, &work.topic, &work.feature, &work.theirs, &work.ours]);
    let fresh = bench.here.join("fresh");
    assert_eq!(bench.git(&fresh, &["rev-parse", "HEAD"]), work.nested, "{what}");
    assert_eq!(bench.git(&fresh, &["status", "--porcelain"]), "", "{what}");
    bench.assert_sound(&fresh, &[&work.nested]);
}

#[test]
fn a_kill_at_every_step_leaves_what_the_next_restore_completes() {
    for (number, program) in gits().into_iter().rev().enumerate() {
        // The kill does not depend on git's version, so one git is enough for each way.
        let ways = if number == 0 { &["before", "after", "alone"][..] } else { &["after"] };
        let mut steps = 1;
        let mut at = 0;
        while at <= steps {
            // The first run is not killed, and counts the steps.
            for how in if at == 0 { &["never"][..] } else { ways } {
                let what = format!("{}: killed at step {at}, {how}", program.display());
                let mut bench = Bench::new(program.clone());
                let (feature, main) = prepare(&mut bench);
                let mut done = None;
                let came_to = restore_and_kill(&bench, at, how, |bench| done = Some(work(bench, feature)));
                let done = done.unwrap();
                if at == 0 {
                    steps = came_to;
                    assert!(
                        steps >= 9,
                        "objects, references, HEAD, index, stash, settings, a new repository"
                    );
                } else {
                    // Whatever is half done: nothing is damaged or lost, and no lock is left in the way.
                    bench.assert_sound(&bench.here, &[&main, &done.feature, &done.ours]);
                    bench.here(&["status"]);
                    if *how == "after" {
                        bench.here(&["gc", "-q", "--prune=now"]);
                    }
                }
                // From the state that this process knows, even a completed restore is repeated.
                bench.restore();
                assert_complete(&bench, &done, &what);
                let again = bench.restore();
                assert!(again.updated.is_empty() && again.kept.is_empty(), "{what}: {again:?}");
            }
            at += 1;
        }
    }
}

/// A prepare replaces what the sandbox has, so no later restore can complete the index.
#[test]
fn after_a_kill_a_prepare_completes_the_index() {
    let program = gits().pop().unwrap();
    for branch in ["main", "topic"] {
        let (mut steps, mut at) = (1, 0);
        let mut was_incomplete = false;
        while at <= steps {
            let mut bench = Bench::new(program.clone());
            write(&bench.here.join("d/gone.txt"), "gone\n");
            bench.commit_here("third");
            bench.prepare();
            let mut commits = Vec::new();
            let came_to = restore_and_kill(&bench, at, "after", |bench| {
                fs::remove_dir_all(bench.there.join("d")).unwrap();
                write(&bench.there.join("n.txt"), "n\n");
                write(&bench.there.join("a.txt"), "changed\n");
                commits.push(bench.commit_there("new"));
                bench.there(&["checkout", "-q", "-B", branch]);
                write(&bench.there.join("t.txt"), "t\n");
                commits.push(bench.commit_there("on the branch"));
                write(&bench.there.join("staged.txt"), "staged\n");
                bench.there(&["add", "staged.txt"]);
                write(&bench.here.join("ours.txt"), "ours\n");
                bench.here(&["add", "ours.txt"]);
            });
            if at == 0 {
                steps = came_to;
            }
            let what = format!("{branch}, killed after step {at}");
            was_incomplete |= bench.here.join(".git/paperclip-unfinished-restore").exists();
            assert_eq!(bench.prepare(), Vec::<String>::new());
            assert!(!bench.here.join(".git/paperclip-unfinished-restore").exists(), "{what}");
            assert_eq!(bench.marks(), Vec::<String>::new(), "{what}");
            let staged = bench.here(&["diff", "--cached", "--name-status"]);
            assert_eq!(staged, bench.there(&["diff", "--cached", "--name-status"]), "{what}");
            let head = bench.here(&["rev-parse", "HEAD"]);
            let is_last = commits.last() == Some(&head);
            let expected = if is_last { "A\tours.txt\nA\tstaged.txt" } else { "A\tours.txt" };
            assert_eq!(staged, expected, "{what}");
            bench.assert_sound(&bench.here, &[]);
            at += 1;
        }
        assert!(was_incomplete);
    }
}

/// The references have moved by the next restore, so only the note of the killed one knows that the index has to follow.
#[test]
fn after_a_kill_a_restore_lets_the_index_follow_where_nothing_is_staged() {
    let program = gits().pop().unwrap();
    let (mut steps, mut at) = (1, 0);
    let mut was_incomplete = false;
    while at <= steps {
        let mut bench = Bench::new(program.clone());
        write(&bench.here.join("a.txt"), "staged\n");
        bench.here(&["add", "a.txt"]);
        bench.prepare();
        let mut commit = String::new();
        let came_to = restore_and_kill(&bench, at, "after", |bench| {
            bench.there(&["checkout", "-q", "-b", "new"]);
            commit = bench.commit_there("what was staged");
            bench.here(&["reset", "-q"]);
        });
        if at == 0 {
            steps = came_to;
        }
        was_incomplete |= !bench.here(&["diff", "--cached", "--name-status"]).is_empty();
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), commit);
        let staged = bench.here(&["diff", "--cached", "--name-status"]);
        assert_eq!(staged, "", "killed after step {at}: {report:?}");
        assert!(!bench.here.join(".git/paperclip-unfinished-restore").exists());
        bench.assert_sound(&bench.here, &[&commit]);
        at += 1;
    }
    assert!(was_incomplete);
}

/// A commit with the former index would revert the sandbox's.
#[test]
fn a_local_commit_after_a_kill_reverts_nothing_of_the_sandbox() {
    let program = gits().pop().unwrap();
    let (mut at, mut steps, mut moved) = (0, 1, 0);
    while at <= steps {
        let mut bench = Bench::new(program.clone());
        bench.prepare();
        let before = bench.here(&["rev-parse", "HEAD"]);
        let came_to = restore_and_kill(&bench, at, "after", |bench| {
            write(&bench.there.join("a.txt"), "changed\n");
            write(&bench.there.join("new.txt"), "new\n");
            bench.commit_there("new");
        });
        steps = if at == 0 { came_to } else { steps };
        let has_moved = bench.here(&["rev-parse", "HEAD"]) != before;
        moved += usize::from(has_moved && at > 0);
        write(&bench.here.join("mine.txt"), "mine\n");
        bench.here(&["add", "mine.txt"]);
        let identity = ["-c", "user.name=A", "-c", "user.email=a@a", "commit", "-q", "-m", "mine"];
        bench.here(&identity);
        if has_moved {
            assert_eq!(
                bench.here(&["show", "--format=", "--name-only"]),
                "mine.txt",
                "killed after step {at}"
            );
        }
        bench.restore();
        bench.assert_sound(&bench.here, &[]);
        at += 1;
    }
    assert!(moved > 0);
}

/// By the time of the prepare, a person has put the index right, or has checked out something else.
#[test]
fn a_note_of_a_killed_restore_changes_nothing_that_a_person_did() {
    let program = gits().pop().unwrap();
    for (what, staged) in [
        ("reset", ""),
        ("checkout", ""),
        ("edit", "M\ta.txt"),
        ("rebase", "M\ta.txt"),
        ("lock", "M\ta.txt"),
        // What is only staged in the sandbox is protected from `git gc` here, unless its mark is removed.
        ("collect", "M\tb.txt"),
        ("unmark", ""),
        // A commit of one path only is on top: what it has stays, and the rest of the index follows.
        ("commit", ""),
        // After a reset, the former content is staged on purpose.
        ("restage", "M\ta.txt"),
        ("status", ""),
    ] {
        let mut bench = Bench::new(program.clone());
        bench.here(&["branch", "unlike", "main~1"]);
        bench.prepare();
        restore_and_kill_all(&bench, |bench| {
            write(&bench.there.join("a.txt"), "changed\n");
            bench.commit_there("new");
            if matches!(what, "collect" | "unmark") {
                write(&bench.there.join("b.txt"), "staged\n");
                bench.there(&["add", "b.txt"]);
            }
        });
        let note = bench.here.join(".git/paperclip-unfinished-restore");
        assert!(note.exists());
        match what {
            "reset" => drop(bench.here(&["reset", "-q", "--hard"])),
            "checkout" => drop(bench.here(&["checkout", "-q", "-f", "unlike"])),
            "edit" => {
                write(&bench.here.join("a.txt"), "edited here\n");
                bench.here(&["add", "a.txt"]);
            }
            "commit" => {
                write(&bench.here.join("only.txt"), "only\n");
                bench.here(&["add", "-N", "only.txt"]);
                bench.here(&["commit", "-q", "-m", "only", "--", "only.txt"]);
                assert_eq!(bench.here(&["diff", "--cached", "--name-status"]), "M\ta.txt");
            }
            "rebase" => fs::create_dir(bench.here.join(".git/rebase-merge")).unwrap(),
            "lock" => write(&bench.here.join(".git/index.lock"), ""),
            "restage" => {
                bench.here(&["reset", "-q", "--hard"]);
                bench.here(&["checkout", "-q", "HEAD~1", "--", "a.txt"]);
            }
            // `git status` writes the index, with the status of the files.
            "status" => drop(bench.here(&["status"])),
            "unmark" => {
                let marks = bench.marks();
                assert_eq!(marks.len(), 1);
                fs::remove_file(bench.here.join(".git/objects/pack").join(&marks[0])).unwrap();
                bench.here(&["gc", "-q", "--prune=now"]);
            }
            _ => drop(bench.here(&["gc", "-q", "--prune=now"])),
        }
        bench.prepare();
        let is_left = matches!(what, "rebase" | "lock");
        assert_eq!(bench.here(&["diff", "--cached", "--name-status"]), staged, "{what}");
        assert_eq!(note.exists(), is_left, "{what}");
        if is_left {
            // Later it is completed.
            drop(fs::remove_dir(bench.here.join(".git/rebase-merge")));
            drop(fs::remove_file(bench.here.join(".git/index.lock")));
            bench.prepare();
            assert_eq!(bench.here(&["diff", "--cached", "--name-status"]), "", "{what}");
        }
        bench.assert_sound(&bench.here, &[]);
    }
}

/// A git that is ended while it writes the index leaves its lock behind.
#[test]
fn a_cancelled_prepare_leaves_no_lock_where_it_completes_the_index() {
    let program = gits().pop().unwrap();
    let mut bench = Bench::new(program.clone());
    bench.prepare();
    restore_and_kill_all(&bench, |bench| {
        write(&bench.there.join("a.txt"), "changed\n");
        bench.commit_there("new");
    });
    assert!(bench.here.join(".git/paperclip-unfinished-restore").exists());
    let (begun, lock) = (bench.path().join("begun"), bench.here.join(".git/index.lock"));
    let (begun, lock, git) = (begun.display(), lock.display(), program.display());
    let steps = format!("touch {lock} {begun}; sleep 1; rm {lock}");
    let text = format!("#!/bin/sh\ncase \" $* \" in *--index-info*) {steps};; esac\nexec {git} \"$@\"\n");
    bench.program = bench.path().join("git");
    executable(&bench.program, &text);
    let (cancel, begun) = (bench.cancel.clone(), bench.path().join("begun"));
    let other = thread::spawn(move || {
        wait_for(&begun);
        cancel.cancel();
    });
    assert_eq!(bench.prepare(), ["aborted"]);
    other.join().unwrap();
    bench.program = program;
    assert!(!bench.here.join(".git/index.lock").exists());
    assert_eq!(bench.here(&["diff", "--cached", "--name-status"]), "");
}
