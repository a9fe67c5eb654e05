//! The index on both sides: files that are not exchanged, checkouts that wait for a lock, what is staged and cannot be taken
//! over, and files that are written without a change of what is staged.

use std::fs;
use std::path::Path;

use sandbox_managed_runtime::exclude::ExcludePatterns;
use sandbox_managed_runtime::git::report::GitReport;

use crate::bench::{Bench, gits, holds, path, with_each_git, write};

/// A bare repository is not transferred, even where another local branch has one as a fixture and the agent checks it out.
#[test]
fn a_fixture_of_another_branch_is_not_deleted_by_the_next_commit_there() {
    with_each_git(|bench| {
        bench.here(&["checkout", "-q", "-b", "fixture"]);
        for (name, text) in [("HEAD", "ref: refs/heads/main\n"), ("objects/x", "x"), ("refs/x", "x")] {
            write(&bench.here.join("t/fix.git").join(name), text);
        }
        bench.commit_here("fixture");
        bench.here(&["checkout", "-q", "main"]);
        bench.prepare();
        bench.there(&["merge", "-q", "fixture"]);
        let report = bench.restore();
        assert!(
            bench.here(&["ls-tree", "-r", "--name-only", "main"]).contains("t/fix.git/HEAD"),
            "{report:?}"
        );
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert!(bench.here(&["ls-tree", "-r", "--name-only", "main"]).contains("t/fix.git/HEAD"));
    });
}

/// The agent commits a file that the next upload leaves out, as `git add -f` or a checkout of another branch does. Without a
/// mark it would look deleted there.
#[test]
fn a_new_file_that_is_excluded_is_not_deleted_by_the_next_commit_there() {
    with_each_git(|bench| {
        bench.here(&["checkout", "-q", "-b", "logs"]);
        write(&bench.here.join("logs/deep/y"), "y\n");
        bench.commit_here("a folder that is excluded");
        bench.here(&["checkout", "-q", "main"]);
        bench.excluded = ExcludePatterns::new(["*.log", "logs"]);
        bench.prepare();
        write(&bench.there.join("new.log"), "new\n");
        bench.there(&["add", "-f", "new.log"]);
        bench.there(&["commit", "-q", "-m", "new"]);
        bench.there(&["merge", "-q", "--no-edit", "logs"]);
        bench.restore();
        assert_eq!(bench.here(&["status", "--porcelain"]), " D logs/deep/y\n D new.log");
        bench.prepare();
        assert_eq!(bench.there(&["status", "--porcelain"]), "");
        write(&bench.there.join("a.txt"), "changed\n");
        let commit = bench.commit_there("everything");
        assert_eq!(bench.there(&["show", "--format=", "--name-status"]), "M\ta.txt");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), commit);
        let tracked = bench.here(&["ls-tree", "-r", "--name-only", "HEAD"]);
        assert_eq!(tracked.split('\n').collect::<Vec<_>>(), ["a.txt", "b.txt", "logs/deep/y", "new.log"]);
        bench.assert_sound(&bench.here, &[&commit]);
    });
}

/// Git can mark no entry of a merge in progress.
#[test]
fn an_excluded_file_in_conflict_is_uploaded_as_it_is() {
    with_each_git(|bench| {
        write(&bench.here.join("old.log"), "old\n");
        bench.commit_here("old");
        bench.here(&["checkout", "-q", "-b", "changed"]);
        write(&bench.here.join("old.log"), "changed\n");
        bench.commit_here("changed");
        bench.here(&["checkout", "-q", "main"]);
        write(&bench.here.join("old.log"), "other\n");
        bench.commit_here("other");
        bench.try_git(&bench.here, &["merge", "changed"]);
        bench.excluded = ExcludePatterns::new(["*.log"]);
        for file_exists in [true, false] {
            assert_eq!(bench.prepare(), Vec::<String>::new(), "{file_exists}");
            assert_eq!(bench.there(&["ls-files", "-u"]), bench.here(&["ls-files", "-u"]));
            drop(fs::remove_file(bench.here.join("old.log")));
        }
    });
}

#[test]
fn a_file_that_did_not_come_because_it_is_excluded_is_reported() {
    with_each_git(|bench| {
        write(&bench.here.join("old.log"), "old\n");
        bench.commit_here("a tracked file that is excluded");
        bench.excluded = ExcludePatterns::new(["*.log"]);
        bench.prepare();
        write(&bench.there.join("a.txt"), "changed\n");
        bench.commit_there("not excluded");
        let report = bench.restore();
        assert_eq!(report.held_back, [], "nothing changed at an excluded path");
        write(&bench.there.join("new.log"), "new\n");
        bench.there(&["add", "-f", "new.log"]);
        bench.there(&["commit", "-q", "-m", "new"]);
        let report = bench.restore();
        let [held] = &report.held_back[..] else { panic!("{report:?}") };
        assert_eq!((&held.path, &held.what), (&path("new.log"), &None));
        assert!(held.reason.contains("excluded"), "{held:?}");
        bench.here(&["checkout", "--", "new.log"]);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        // Once it was told, it is not told again.
        assert_eq!(bench.restore(), GitReport::default());
    });
}

/// Commits on `main` in the sandbox, then checks out `other` there.
fn commit_and_check_out(bench: &Bench, other: &str) -> String {
    write(&bench.there.join("x.txt"), "x\n");
    let commit = bench.commit_there("on main");
    bench.there(&["checkout", "-q", other]);
    commit
}

/// The index follows `main` while `HEAD` waits. Once `HEAD` follows too, what it has of `main` must go.
#[test]
fn the_index_follows_a_checkout_that_waited_for_a_lock() {
    for (lock, commits, staged) in [
        ("refs/heads/feature.lock", true, false),
        ("refs/heads/feature.lock", true, true),
        ("HEAD.lock", true, false),
        // The index there is again what was sent.
        ("HEAD.lock", false, false),
        ("HEAD.lock", false, true),
    ] {
        with_each_git(|bench| {
            eprintln!("{lock}, {commits}, {staged}");
            bench.here(&["branch", "-f", "feature", "main"]);
            write(&bench.here.join("local.txt"), "staged before the upload\n");
            bench.here(&["add", "local.txt"]);
            bench.prepare();
            if !staged {
                bench.there(&["reset", "-q"]);
                fs::remove_file(bench.there.join("local.txt")).unwrap();
            }
            let main = commit_and_check_out(bench, "feature");
            let mut tips = vec![main];
            if commits {
                write(&bench.there.join("feature.txt"), "feature\n");
                tips.push(bench.commit_there("on feature"));
            }
            write(&bench.there.join("a.txt"), "staged there\n");
            bench.there(&["add", "a.txt"]);
            let lock = bench.here.join(".git").join(lock);
            write(&lock, "");
            let report = bench.restore();
            assert!(holds(&report, "HEAD"), "{report:?}");
            fs::remove_file(&lock).unwrap();
            let report = bench.restore();
            assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/feature", "{report:?}");
            let status = |folder| bench.git(folder, &["status", "--porcelain"]);
            assert_eq!(status(&bench.here), status(&bench.there), "{report:?}");
            assert_eq!(bench.restore(), GitReport::default());
            let tips: Vec<&str> = tips.iter().map(String::as_str).collect();
            bench.assert_sound(&bench.here, &tips);
        });
    }
}

/// Stages something that neither a commit nor a file of the workspace has.
fn stage_and_edit(bench: &Bench) -> String {
    write(&bench.there.join("b.txt"), "staged there\n");
    bench.there(&["add", "b.txt"]);
    let blob = bench.there(&["rev-parse", ":b.txt"]);
    write(&bench.there.join("b.txt"), "edited there\n");
    blob
}

/// What happens on the local side and in the sandbox, beside what is staged there.
type Reason = (&'static str, fn(&Bench), fn(&Bench));

const REASONS: [Reason; 6] = [
    (
        "both staged it",
        |bench| {
            write(&bench.here.join("b.txt"), "staged here\n");
            bench.here(&["add", "b.txt"]);
        },
        |_| (),
    ),
    (
        "both committed",
        |bench| {
            write(&bench.here.join("h.txt"), "h\n");
            bench.commit_here("here");
        },
        |bench| {
            write(&bench.there.join("t.txt"), "t\n");
            bench.commit_there("there");
        },
    ),
    ("another commit is checked out here", |bench| drop(bench.here(&["checkout", "-q", "main~1"])), |_| ()),
    (
        "a merge is in progress here",
        |bench| {
            let head = bench.here(&["rev-parse", "HEAD"]);
            write(&bench.here.join(".git/MERGE_HEAD"), head);
        },
        |_| (),
    ),
    ("the index is locked here", |bench| write(&bench.here.join(".git/index.lock"), ""), |_| ()),
    (
        "settings that git refuses are staged too",
        |_| (),
        |bench| {
            write(&bench.there.join(".gitmodules"), "[submodule \"../x\"]\n\tpath = x\n\turl = -x\n");
            bench.there(&["add", ".gitmodules"]);
            fs::remove_file(bench.there.join(".gitmodules")).unwrap();
        },
    ),
];

#[test]
fn what_is_staged_there_and_cannot_be_staged_here_is_kept() {
    for (reason, here, there) in REASONS {
        with_each_git(|bench| {
            eprintln!("{reason}");
            bench.prepare();
            here(bench);
            there(bench);
            let blob = stage_and_edit(bench);
            let before = bench.here(&["ls-files", "--stage"]);
            let report = bench.restore();
            assert_eq!(bench.here(&["ls-files", "--stage"]), before, "{report:?}");
            let kept: Vec<_> = report.kept.iter().filter(|kept| kept.reference == "index").collect();
            let [kept] = kept[..] else { panic!("{report:?}") };
            assert_eq!(bench.here(&["rev-parse", &format!("{}:b.txt", kept.kept_at)]), blob);
            let files = bench.here(&["ls-tree", "-r", "--name-only", &kept.kept_at]);
            assert_eq!(files, "b.txt", "only what would be lost");
            let lock = bench.here.join(".git/index.lock");
            let is_locked = lock.exists();
            if is_locked {
                // For as long as it is locked, the same is kept once.
                let references = bench.here(&["for-each-ref"]);
                for _ in 0..2 {
                    assert_eq!(bench.restore().kept, []);
                    assert_eq!(bench.here(&["for-each-ref"]), references);
                }
                fs::remove_file(&lock).unwrap();
            }
            bench.here(&["reflog", "expire", "--expire=now", "--all"]);
            bench.here(&["gc", "-q", "--prune=now"]);
            assert_eq!(bench.here(&["cat-file", "-p", &blob]), "staged there");
            bench.assert_sound(&bench.here, &[]);
            let references = bench.here(&["for-each-ref"]);
            for _ in 0..10 {
                bench.prepare();
                assert_eq!(bench.restore(), GitReport::default());
            }
            assert_eq!(bench.here(&["for-each-ref"]), references);
        });
    }
}

#[test]
fn what_the_files_or_a_commit_have_is_not_kept_once_more() {
    for (reason, here, there) in REASONS {
        with_each_git(|bench| {
            eprintln!("{reason}");
            // A file that git converts is the same one.
            write(&bench.here.join(".gitattributes"), "*.crlf text eol=crlf\n");
            bench.commit_here("attributes");
            bench.here(&["branch", "-f", "feature"]);
            bench.prepare();
            here(bench);
            there(bench);
            write(&bench.there.join("b.txt"), "staged there\n");
            write(&bench.there.join("new.crlf"), "one\r\ntwo\r\n");
            bench.there(&["add", "b.txt", "new.crlf"]);
            // A blob of the commit at another path, and a path that is deleted.
            bench.there(&["rm", "-q", "--cached", "a.txt"]);
            let blob = bench.there(&["rev-parse", "HEAD:a.txt"]);
            bench.there(&["update-index", "--add", "--cacheinfo", &format!("100755,{blob},other.txt")]);
            let report = bench.restore();
            assert!(report.kept.iter().all(|kept| kept.reference != "index"), "{report:?}");
            assert_eq!(bench.here(&["for-each-ref", "refs/paperclip/**/index"]), "");
        });
    }
}

/// Git takes a file of another size for changed without reading it.
#[test]
fn a_file_that_is_written_with_other_line_ends_is_not_shown_as_changed() {
    with_each_git(|bench| {
        write(&bench.here.join(".gitattributes"), "*.txt text eol=crlf\n");
        for folder in ["", "deep/", "made/"] {
            write(&bench.here.join(folder).join("c.txt"), "one\ntwo\n");
        }
        bench.here(&["add", "--renormalize", "."]);
        bench.commit_here("line ends");
        write(&bench.here.join("staged.txt"), "staged\n");
        write(&bench.here.join("hidden.txt"), "hidden\n");
        bench.here(&["add", "staged.txt", "hidden.txt"]);
        bench.here(&["update-index", "--assume-unchanged", "hidden.txt"]);
        assert_eq!(bench.here(&["status", "--porcelain"]), "A  hidden.txt\nA  staged.txt");
        let nested = bench.here.join("nested");
        bench.new_repository(&nested);
        write(&nested.join(".gitattributes"), "* text eol=crlf\n");
        bench.commit(&nested, "line ends");
        bench.prepare();
        let untouched = bench.here(&["ls-files", "--debug", "a.txt", "b.txt"]);
        for file in ["c.txt", "deep/c.txt", "staged.txt"] {
            fs::remove_file(bench.there.join(file)).unwrap();
            bench.there(&["checkout", "-q", "--", file]);
        }
        // Files may be converted without git, too, and then nothing of git's comes back.
        write(&bench.there.join("nested/x.txt"), "x\r\n");
        write(&bench.there.join("hidden.txt"), "hidden there\n");
        write(&bench.there.join("made/c.txt"), "edited\r\n");
        bench.restore();
        assert_eq!(fs::read(bench.here.join("deep/c.txt")).unwrap(), b"one\r\ntwo\r\n");
        let status = |folder| bench.git(folder, &["status", "--porcelain", "-uno"]);
        assert_eq!(status(&bench.here), "A  hidden.txt\n M made/c.txt\nA  staged.txt");
        assert_eq!(status(&nested), "");
        assert_eq!(bench.here(&["ls-files", "-v", "hidden.txt"]), "h hidden.txt");
        assert_eq!(bench.here(&["ls-files", "--debug", "a.txt", "b.txt"]), untouched);
        bench.assert_sound(&bench.here, &[]);
        // Where the index is locked, that is told, once.
        write(&bench.there.join("c.txt"), "one\n");
        write(&bench.here.join(".git/index.lock"), "");
        let report = bench.restore();
        let [held] = &report.held_back[..] else { panic!("{report:?}") };
        assert!(held.what.as_deref() == Some("index") && held.reason.contains("index.lock"), "{held:?}");
        write(&bench.there.join("c.txt"), "one\ntwo\nthree\n");
        bench.there(&["add", "c.txt"]);
        let report = bench.restore();
        assert_eq!(report.held_back.len(), 1, "{report:?}");
        fs::remove_file(bench.here.join(".git/index.lock")).unwrap();
    });
}

/// What was held back with the commit comes with the one that replaces it, without a prepare in between.
#[test]
fn the_index_is_that_of_the_commit_that_replaces_one_that_was_held_back() {
    with_each_git(|bench| {
        write(&bench.here.join("moved.txt"), "moved\n");
        let before = bench.commit_here("files");
        bench.prepare();
        write(&bench.there.join("mocks/HEAD"), "ref: refs/heads/main\n");
        write(&bench.there.join("work.txt"), "work\n");
        write(&bench.there.join("a.txt"), "changed\n");
        bench.there(&["mv", "moved.txt", "elsewhere.txt"]);
        bench.commit_there("with a HEAD");
        let report = bench.restore();
        assert!(holds(&report, "index") && holds(&report, "refs/heads/main"), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "main"]), before);
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "");
        let report = bench.restore();
        assert!(holds(&report, "index"), "{report:?}");
        bench.there(&["mv", "mocks/HEAD", "mocks/answer.txt"]);
        bench.there(&["commit", "-q", "--amend", "-m", "without"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["log", "-1", "--format=%s"]), "without", "{report:?}");
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
        let report = bench.restore();
        assert!(report.held_back.is_empty(), "{report:?}");
    });
}

/// A person takes the kept commits over and undoes a part of them: the index waits for the commit, and does not bring that part back.
#[test]
fn what_a_person_undid_of_a_commit_that_was_taken_over_by_hand_is_not_staged_again() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("a.txt"), "theirs\n");
        write(&bench.there.join("work.txt"), "work\n");
        bench.commit_there("there");
        write(&bench.there.join("staged.txt"), "staged\n");
        bench.there(&["add", "staged.txt"]);
        write(&bench.here.join("b.txt"), "ours\n");
        bench.commit_here("here");
        let report = bench.restore();
        assert!(holds(&report, "index"), "{report:?}");
        let before = bench.here(&["rev-parse", "HEAD:a.txt"]);
        let kept = bench.here(&["for-each-ref", "--format=%(refname)", "refs/paperclip/*/heads/main"]);
        bench.here(&["reset", "-q", "--hard"]);
        bench.here(&["clean", "-q", "-f", "-d"]);
        bench.here(&["merge", "-q", "-m", "taken over", &kept]);
        bench.here(&["checkout", "-q", "HEAD~1", "--", "a.txt"]);
        bench.commit_here("undone");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", ":a.txt"]), before);
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "staged.txt");
    });
}

const STAGE: &str = "echo staged >> a.txt; git add a.txt";
const MERGE: &str = "git checkout -q -b side; echo side > a.txt; git commit -q -a -m side; \
    git checkout -q -b other HEAD~1; echo other > a.txt; git commit -q -a -m other; git merge -q side || true";

/// What happens, as shell commands: here before the upload, there, and here meanwhile; and what is staged after it.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const FOLLOWING: &[Row] = &[
    ("unstaged, committed there", STAGE, "git commit -q -m there", "git reset -q", ""),
    (
        "unstaged and committed on",
        STAGE,
        "echo more >> a.txt; git commit -q -a -m there",
        "git reset -q --hard",
        "",
    ),
    (
        "unstaged, staged there",
        STAGE,
        "git commit -q -m there; echo s > b.txt; git add b.txt",
        "git reset -q",
        "M\tb.txt",
    ),
    ("staged still", STAGE, "git commit -q -m there", "true", ""),
    ("staged otherwise", STAGE, "git commit -q -m there", "echo else > a.txt; git add a.txt", "M\ta.txt"),
    ("unstaged, reset there", STAGE, "git reset -q --soft HEAD~1", "git reset -q", "A\tb.txt"),
    ("unstaged, nothing there", STAGE, "true", "git reset -q", ""),
    (
        "a merge aborted here, made there",
        MERGE,
        "echo both > a.txt; git add a.txt; git commit -q -m merged",
        "git merge --abort",
        "",
    ),
    (
        "a merge aborted here, another branch there",
        MERGE,
        "git checkout -q -f main; echo w >> b.txt; git commit -q -a -m w",
        "git merge --abort",
        "",
    ),
    (
        "both committed, on a new branch there",
        "true",
        "git checkout -q -b new; echo there > a.txt; git commit -q -a -m there",
        "echo here > a.txt; git commit -q -a -m here",
        "",
    ),
    (
        "deleted there on a new branch",
        "true",
        "git checkout -q -b new; git rm -q b.txt; git commit -q -m there",
        "echo here > b.txt; git commit -q -a -m here",
        "",
    ),
    (
        "committed here alone",
        "true",
        "git checkout -q -b new; echo n > n.txt; git add n.txt; git commit -q -m there",
        "echo here > b.txt; git commit -q -a -m here",
        "",
    ),
    (
        "both made a file",
        "true",
        "git checkout -q -b new; echo there > n.txt; git add n.txt; git commit -q -m there",
        "echo here > n.txt; git add n.txt; git commit -q -m here",
        "",
    ),
    (
        "both committed, detached there",
        "true",
        "git checkout -q --detach; echo there > a.txt; git commit -q -a -m there",
        "echo here > a.txt; git commit -q -a -m here",
        "",
    ),
    (
        "both committed, staged there",
        "true",
        "git checkout -q -b new; echo there > a.txt; git commit -q -a -m there; echo s > a.txt; git add a.txt",
        "echo here > a.txt; git commit -q -a -m here",
        "M\ta.txt",
    ),
    (
        "committed here, staged there",
        "true",
        "echo s > a.txt; git add a.txt",
        "echo here > a.txt; git commit -q -a -m here",
        "",
    ),
];

/// What was staged at the upload and is not any more, or was committed since, would otherwise be staged as the reverse of the
/// sandbox's commits.
#[test]
fn where_nothing_is_staged_the_index_follows_the_sandboxs_commits() {
    let run = |bench: &Bench, folder: &Path, script: &str| {
        let person =
            "export GIT_AUTHOR_NAME=T GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=T GIT_COMMITTER_EMAIL=t@t";
        bench.shell(folder, &format!("set -e; {person}; {script}"));
    };
    for (program, row) in
        gits().into_iter().flat_map(|program| FOLLOWING.iter().map(move |row| (program.clone(), row)))
    {
        let (what, before, there, meanwhile, staged) = row;
        let mut bench = Bench::new(program);
        run(&bench, &bench.here, before);
        bench.prepare();
        run(&bench, &bench.there, there);
        run(&bench, &bench.here, meanwhile);
        let head = bench.there(&["rev-parse", "HEAD"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["diff", "--cached", "--name-status"]), *staged, "{what}: {report:?}");
        // What the next commit here would undo is told.
        let is_told = report.held_back.iter().any(|held| held.reason.contains("would undo"));
        assert_eq!(is_told, *what == "staged otherwise", "{what}: {report:?}");
        bench.assert_sound(&bench.here, &[&head]);
    }
}

/// Otherwise the next commit here would delete the file from the branch.
#[test]
fn what_is_only_intended_to_be_added_here_is_as_the_sandbox_commits_it() {
    for text in ["mine\n", "theirs\n"] {
        with_each_git(|bench| {
            bench.prepare();
            write(&bench.there.join("new.txt"), "theirs\n");
            let commit = bench.commit_there("the agent's");
            for name in ["new.txt", "only-here.txt"] {
                write(&bench.here.join(name), text);
                bench.here(&["add", "-N", name]);
            }
            let report = bench.restore();
            assert_eq!(bench.here(&["rev-parse", "HEAD"]), commit, "{report:?}");
            assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
            assert!(bench.here(&["ls-files"]).contains("only-here.txt"), "{report:?}");
            bench.assert_sound(&bench.here, &[&commit]);
        });
    }
}
