//! What happens locally between an upload and its restore, or while a restore runs: local work has precedence, and
//! nothing of either side is lost.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;

use sandbox_managed_runtime::git::report::GitReport;

use crate::bench::{Bench, executable, holds, with_each_git, write};

fn reason(report: &GitReport, text: &str) -> bool {
    report.held_back.iter().any(|held| held.reason.contains(text))
}

/// Makes a commit on top of a branch that is not checked out.
fn commit_on(bench: &Bench, branch: &str, message: &str) -> String {
    let tree = bench.here(&["rev-parse", &format!("{branch}^{{tree}}")]);
    bench.here(&["commit-tree", &tree, "-p", branch, "-m", message])
}

/// Makes a branch whose history is its own, and whose commit comes before that of `main` in the order of their names.
fn unrelated_branch(bench: &Bench, name: &str) -> String {
    let main = bench.here(&["rev-parse", "main"]);
    let tree = bench.here(&["rev-parse", "main^{tree}"]);
    let mut commits = (0..).map(|at| bench.here(&["commit-tree", &tree, "-m", &format!("unrelated {at}")]));
    let commit = commits.find(|commit| *commit < main).unwrap();
    bench.here(&["update-ref", &format!("refs/heads/{name}"), &commit]);
    commit
}

/// Has git collect everything local that no reference reaches.
fn collect(bench: &Bench) {
    bench.here(&["reflog", "expire", "--expire=now", "--all"]);
    bench.here(&["gc", "-q", "--prune=now"]);
}

/// Runs a script before each call of git that has these words. In it, `@git` is git and `@root` the bench's folder.
fn before_each(bench: &mut Bench, words: &str, script: &str) {
    let (root, git) = (bench.path(), bench.program.clone());
    let (root, git) = (root.display(), git.display());
    let text = format!("#!/bin/sh\ncase \" $* \" in {words}) {script};; esac\nexec {git} \"$@\"\n")
        .replace("@git", &git.to_string())
        .replace("@root", &root.to_string());
    let program = bench.path().join("git");
    executable(&program, &text);
    bench.program = program;
}

#[test]
fn a_reference_that_is_changed_during_the_restore_is_merged_again() {
    for branch in ["main", "feature"] {
        with_each_git(|bench| {
            bench.prepare();
            write(&bench.there.join("n.txt"), "n\n");
            let theirs = bench.commit_there("new");
            bench.there(&["branch", "-q", "-D", "feature"]);
            let ours = commit_on(bench, branch, "ours");
            let git = bench.program.clone();
            let script = format!(
                "[ -e @root/moved ] || {{ touch @root/moved; @git update-ref refs/heads/{branch} {ours}; }}"
            );
            before_each(bench, r#"*" update-ref "*" --stdin "*"#, &script);
            let report = bench.restore();
            bench.program = git;
            assert!(bench.path().join("moved").exists());
            assert_eq!(bench.here(&["rev-parse", branch]), ours, "{report:?}");
            bench.assert_sound(&bench.here, &[&ours, &theirs]);
        });
    }
}

/// What is new is reachable from nothing until references, `HEAD`, index and stash are done.
#[test]
fn a_collection_during_the_restore_deletes_nothing_that_is_new() {
    for words in [
        r#"*" index-pack "*"--keep="*"#,
        r#"*" rev-list "*" --stdin "*"#,
        r#"*" update-ref "*" --stdin "*"#,
        r#"*" update-index "*" --index-info "*"#,
        r#"*" update-ref --create-reflog "*"#,
    ] {
        for was_here in [false, true] {
            with_each_git(|bench| {
                bench.prepare();
                write(&bench.there.join("a.txt"), "stashed\n");
                bench.there(&["stash", "push", "-q", "-m", "theirs"]);
                write(&bench.there.join("n.txt"), "n\n");
                let new = bench.commit_there("new");
                write(&bench.there.join("s.txt"), "staged\n");
                bench.there(&["add", "s.txt"]);
                if was_here {
                    // All of it came once, and no reference has it any more.
                    let there = bench.there.to_str().unwrap().to_owned();
                    bench.here(&["fetch", "-q", "--no-tags", &there, "main", "refs/stash"]);
                    fs::remove_file(bench.here.join(".git/FETCH_HEAD")).unwrap();
                    bench.here(&["hash-object", "-w", bench.there.join("s.txt").to_str().unwrap()]);
                }
                write(&bench.here.join(".git/objects/pack/person.keep"), "mine\n");
                let git = bench.program.clone();
                let script = "case $GIT_DIR in @root/here/.git) touch @root/ran; \
                    env -i PATH=\"$PATH\" HOME=@root GIT_DIR=$GIT_DIR @git gc -q --prune=now;; esac";
                before_each(bench, words, script);
                let report = bench.restore();
                bench.program = git;
                let what = format!("{words}, {was_here}: {report:?}");
                assert!(bench.path().join("ran").exists(), "{what}");
                assert_eq!(bench.here(&["rev-parse", "main"]), new, "{what}");
                assert!(report.held_back.is_empty() && !report.is_incomplete, "{what}");
                assert_eq!(bench.here(&["diff", "--cached", "--name-status"]), "A\ts.txt", "{what}");
                assert_eq!(bench.here(&["stash", "list", "--format=%gs"]), "On main: theirs", "{what}");
                bench.here(&["gc", "-q", "--prune=now"]);
                bench.assert_sound(&bench.here, &[&new]);
                assert!(bench.here.join(".git/objects/pack/person.keep").exists());
            });
        }
    }
}

/// A mark does not protect a pack that is deleted by hand, or by a `git gc` that began before the mark was
/// made.
#[test]
fn objects_that_vanish_during_the_restore_are_brought_again() {
    let delete = "rm -f @root/here/.git/objects/pack/pack-*";
    for (words, is_held) in [
        (r#"*" rev-list "*" --stdin "*"#, true),
        (r#"*" update-ref "*" --stdin "*"#, true),
        (r#"*" ls-files -t "*"#, false),
    ] {
        with_each_git(|bench| {
            bench.prepare();
            write(&bench.there.join("n.txt"), "n\n");
            let new = bench.commit_there("new");
            write(&bench.there.join("s.txt"), "staged\n");
            bench.there(&["add", "s.txt"]);
            let git = bench.program.clone();
            before_each(bench, words, &format!("case $GIT_DIR in @root/here/.git) {delete};; esac"));
            let report = bench.restore();
            bench.program = git;
            assert_eq!(report.is_incomplete, is_held, "{words}: {report:?}");
            assert_eq!(!report.held_back.is_empty(), is_held, "{words}: {report:?}");
            bench.assert_sound(&bench.here, &[]);
            let report = bench.restore();
            assert_eq!(bench.here(&["rev-parse", "main"]), new, "{words}: {report:?}");
            assert_eq!(bench.here(&["diff", "--cached", "--name-status"]), "A\ts.txt", "{words}");
            bench.assert_sound(&bench.here, &[&new]);
        });
    }
}

#[test]
fn an_index_that_git_cannot_write_is_held_back_and_the_rest_comes() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("a.txt"), "stashed\n");
        bench.there(&["stash", "push", "-q", "-m", "theirs"]);
        write(&bench.there.join("s.txt"), "s\n");
        bench.there(&["add", "s.txt"]);
        let git = bench.program.clone();
        let lock = "@root/here/.git/index.lock";
        let lock = format!("touch {lock}; @git \"$@\"; failed=$?; rm {lock}; exit $failed");
        before_each(bench, r#"*" update-index "*"#, &lock);
        let report = bench.restore();
        bench.program = git;
        assert!(holds(&report, "") && reason(&report, "index.lock"), "{report:?}");
        assert_eq!(bench.here(&["stash", "list", "--format=%gs"]), "On main: theirs");
        assert!(!bench.here(&["ls-files"]).contains("s.txt"));
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn a_kept_reference_replaces_no_other() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        bench.commit_there("theirs");
        write(&bench.here.join("o.txt"), "o\n");
        let ours = bench.commit_here("ours");
        // As an earlier restore with the same time would have left it.
        let kept = "refs/paperclip/2026-11-28T12-00-01.000Z/heads/main";
        let earlier = commit_on(bench, "main", "kept before");
        bench.here(&["update-ref", kept, &earlier]);
        bench.restore();
        bench.assert_sound(&bench.here, &[&ours, &earlier]);
    });
}

#[test]
fn another_checkout_on_each_side_stays_and_its_commit_is_kept() {
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["checkout", "-q", "--detach"]);
        write(&bench.there.join("n.txt"), "n\n");
        let theirs = bench.commit_there("detached");
        bench.here(&["checkout", "-q", "feature"]);
        let report = bench.restore();
        assert!(holds(&report, "HEAD") && reason(&report, "both sides checked out"), "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/feature");
        assert_eq!(bench.here(&["rev-parse", &report.kept[0].kept_at]), theirs);
        bench.assert_sound(&bench.here, &[&theirs]);
    });
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["checkout", "-q", "-b", "topic"]);
        bench.here(&["checkout", "-q", "feature"]);
        bench.restore();
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/feature");
        assert_eq!(bench.here(&["rev-parse", "topic"]), bench.there(&["rev-parse", "topic"]));
    });
}

#[test]
fn head_moves_to_no_branch_that_is_not_taken_over_or_is_checked_out_elsewhere() {
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["checkout", "-q", "feature"]);
        write(&bench.there.join("n.txt"), "n\n");
        let theirs = bench.commit_there("theirs");
        let ours = commit_on(bench, "feature", "ours");
        bench.here(&["update-ref", "refs/heads/feature", &ours]);
        let report = bench.restore();
        assert!(holds(&report, "HEAD"), "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main");
        bench.assert_sound(&bench.here, &[&ours, &theirs]);
    });
    with_each_git(|bench| {
        bench.here(&["worktree", "add", "-q", "../linked", "feature"]);
        bench.prepare();
        bench.there(&["checkout", "-q", "feature"]);
        let report = bench.restore();
        assert!(holds(&report, "HEAD"), "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    });
}

/// Whatever the operation is, it goes on with the branch, the `HEAD` and the index that it began with.
#[test]
fn a_local_operation_of_any_kind_is_left_alone() {
    for (marker, is_folder) in [
        ("rebase-merge", true),
        ("rebase-apply", true),
        ("MERGE_HEAD", false),
        ("CHERRY_PICK_HEAD", false),
        ("REVERT_HEAD", false),
        ("BISECT_LOG", false),
        ("sequencer", true),
    ] {
        with_each_git(|bench| {
            bench.prepare();
            let path = bench.here.join(".git").join(marker);
            let main = bench.here(&["rev-parse", "main"]);
            if is_folder {
                fs::create_dir(path).unwrap();
            } else {
                write(&path, format!("{main}\n"));
            }
            let index = bench.here(&["ls-files", "--stage"]);
            write(&bench.there.join("n.txt"), "n\n");
            let theirs = bench.commit_there("new");
            bench.there(&["checkout", "-q", "-b", "topic"]);
            write(&bench.there.join("s.txt"), "s\n");
            bench.there(&["add", "s.txt"]);
            let report = bench.restore();
            assert_eq!(bench.here(&["rev-parse", "main"]), main, "{marker}: {report:?}");
            assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main", "{marker}");
            assert_eq!(bench.here(&["ls-files", "--stage"]), index, "{marker}");
            for told in ["refs/heads/main", "HEAD", "index"] {
                assert!(holds(&report, told), "{marker}: {report:?}");
            }
            bench.assert_sound(&bench.here, &[&theirs]);
        });
    }
}

#[test]
fn what_is_staged_there_is_not_added_to_a_local_merge_in_progress() {
    with_each_git(|bench| {
        bench.prepare();
        let main = bench.here(&["rev-parse", "main"]);
        write(&bench.here.join(".git/MERGE_HEAD"), format!("{main}\n"));
        write(&bench.there.join("s.txt"), "s\n");
        bench.there(&["add", "s.txt"]);
        let report = bench.restore();
        assert!(holds(&report, "index") && reason(&report, "in progress"), "{report:?}");
        assert!(!bench.here(&["ls-files"]).contains("s.txt"));
    });
}

#[test]
fn a_local_repository_that_is_gone_is_not_made_again() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        bench.commit_there("new");
        fs::remove_dir_all(bench.here.join(".git")).unwrap();
        let report = bench.restore();
        assert!(reason(&report, "is gone"), "{report:?}");
        assert!(!bench.here.join(".git").exists());
    });
}

#[test]
fn a_broken_local_reference_does_not_prevent_a_restore() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.here.join(".git/refs/heads/broken"), format!("{}\n", "1".repeat(40)));
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
    });
}

/// Between the check and the restore itself, the history that the check found is collected here.
#[test]
fn what_was_collected_after_the_check_is_not_built_on() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.restore_while(|bench| {
            bench.here(&["checkout", "-q", "--orphan", "fresh"]);
            bench.here(&["commit", "-q", "-m", "fresh"]);
            bench.here(&["branch", "-q", "-D", "main", "feature"]);
            bench.here(&["tag", "-d", "v1"]);
            bench.here(&["remote", "remove", "origin"]);
            collect(bench);
        });
        assert!(!bench.here(&["for-each-ref", "--format=%(objectname)"]).contains(&new));
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn a_shallow_history_that_no_local_reference_reaches_is_still_complete() {
    with_each_git(|bench| {
        bench.here(&["push", "-q", "origin", "main"]);
        let root = bench.path();
        let remote = format!("file://{}", root.join("remote.git").display());
        bench.git(&root, &["clone", "-q", "--depth", "1", &remote, "shallow"]);
        bench.here = root.join("shallow");
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let theirs = bench.commit_there("new");
        bench.here(&["checkout", "-q", "--orphan", "fresh"]);
        let ours = bench.commit_here("fresh");
        bench.here(&["branch", "-q", "-D", "main"]);
        bench.here(&["symbolic-ref", "-d", "refs/remotes/origin/HEAD"]);
        bench.here(&["remote", "remove", "origin"]);
        let report = bench.restore();
        assert_eq!(report.kept.len(), 1, "{report:?}");
        assert_eq!(bench.here(&["rev-parse", &report.kept[0].kept_at]), theirs);
        bench.assert_sound(&bench.here, &[&ours, &theirs]);
    });
}

/// Of what both sides last shared, only the names of the commits are then known locally.
#[test]
fn a_branch_that_was_begun_anew_here_and_collected_prevents_no_restore() {
    with_each_git(|bench| {
        bench.prepare();
        bench.here(&["checkout", "-q", "--orphan", "fresh"]);
        write(&bench.here.join("o.txt"), "o\n");
        let ours = bench.commit_here("fresh");
        bench.here(&["branch", "-q", "-M", "fresh", "main"]);
        for name in
            [&["branch", "-q", "-D", "feature"][..], &["tag", "-d", "v1"], &["remote", "remove", "origin"]]
        {
            bench.here(name);
        }
        collect(bench);
        // Nothing of what was sent is used there either.
        bench.there(&["checkout", "-q", "--orphan", "topic"]);
        bench.there(&["rm", "-q", "-r", "-f", "."]);
        write(&bench.there.join("t.txt"), "t\n");
        let topic = bench.commit_there("topic");
        bench.there(&["branch", "-q", "-f", "main", "topic"]);
        fs::remove_file(bench.there.join(".git/index")).unwrap();
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "topic"]), topic, "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "main"]), ours);
        bench.assert_sound(&bench.here, &[&ours, &topic]);
    });
}

/// A lock that a killed git has left keeps one reference back, and not the others.
#[test]
fn of_many_references_only_the_one_that_git_refuses_is_held_back() {
    with_each_git(|bench| {
        bench.prepare();
        let feature = bench.here(&["rev-parse", "feature"]);
        let tree = bench.there(&["rev-parse", "HEAD^{tree}"]);
        let theirs = bench.there(&["commit-tree", &tree, "-p", "feature", "-m", "on feature"]);
        bench.there(&["update-ref", "refs/heads/feature", &theirs]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        for at in 0..20 {
            bench.there(&["branch", &format!("b{at}")]);
        }
        let lock = bench.here.join(".git/refs/heads/feature.lock");
        write(&lock, "");
        for round in 0..2 {
            let report = bench.restore();
            assert_eq!(report.held_back.len(), 1, "{report:?}");
            assert!(holds(&report, "refs/heads/feature") && report.is_incomplete, "{report:?}");
            assert_eq!(bench.here(&["rev-parse", "main"]), new);
            assert_eq!(bench.here(&["for-each-ref", "--format=x", "refs/heads/b*"]).lines().count(), 20);
            assert_eq!(bench.here(&["rev-parse", "feature"]), feature);
            assert_eq!(bench.here(&["status", "--porcelain"]), "");
            // It is kept once.
            assert_eq!(report.kept.len(), 1 - round, "{report:?}");
            bench.assert_sound(&bench.here, &[&new, &theirs]);
        }
        // What came is part of the base, although one reference is not: a later change is compared with it.
        bench.there(&["revert", "--no-edit", "HEAD"]);
        let reverted = bench.there(&["rev-parse", "main"]);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), reverted);
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "");
        for branch in ["b1", "main"] {
            bench.there(&["checkout", "-q", branch]);
            let report = bench.restore();
            assert_eq!(bench.here(&["symbolic-ref", "--short", "HEAD"]), branch, "{report:?}");
            assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
        }
        fs::remove_file(lock).unwrap();
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "feature"]), theirs, "{report:?}");
        assert_eq!(bench.restore(), GitReport::default());
    });
}

/// `HEAD` and index follow once git accepts the branch.
#[test]
fn head_and_index_wait_for_a_branch_that_git_refuses() {
    for branch in ["main", "feature"] {
        with_each_git(|bench| {
            bench.prepare();
            bench.there(&["checkout", "-q", branch]);
            write(&bench.there.join("n.txt"), "n\n");
            write(&bench.there.join("a.txt"), "changed\n");
            let new = bench.commit_there("new");
            let lock = bench.here.join(".git/refs/heads").join(format!("{branch}.lock"));
            write(&lock, "");
            for round in 0..2 {
                let report = bench.restore();
                assert!(report.is_incomplete, "{report:?}");
                assert_eq!(bench.here(&["symbolic-ref", "--short", "HEAD"]), "main", "{report:?}");
                assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
                assert_eq!(report.kept.len(), 1 - round, "{report:?}");
            }
            fs::remove_file(lock).unwrap();
            let report = bench.restore();
            assert!(!report.is_incomplete, "{report:?}");
            assert_eq!(bench.here(&["symbolic-ref", "--short", "HEAD"]), branch, "{report:?}");
            assert_eq!(bench.here(&["rev-parse", "HEAD"]), new, "{report:?}");
            assert_eq!(bench.here(&["status", "--porcelain"]), "", "{report:?}");
            bench.assert_sound(&bench.here, &[&new]);
        });
    }
}

/// No reference reaches the commit, so after a later prepare `git gc` would delete it.
#[test]
fn a_detached_commit_is_kept_where_head_cannot_be_set() {
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["checkout", "-q", "--detach"]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        let lock = bench.here.join(".git/HEAD.lock");
        write(&lock, "");
        for round in 0..2 {
            let report = bench.restore();
            assert!(report.is_incomplete && holds(&report, "HEAD"), "{report:?}");
            assert_eq!(report.kept.len(), 1 - round, "{report:?}");
            assert_eq!(bench.here(&["symbolic-ref", "--short", "HEAD"]), "main", "{report:?}");
            assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
            bench.assert_sound(&bench.here, &[&new]);
        }
        fs::remove_file(lock).unwrap();
        let report = bench.restore();
        assert!(!report.is_incomplete, "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), new, "{report:?}");
        assert_eq!(bench.here(&["status", "--porcelain"]), "", "{report:?}");
    });
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["checkout", "-q", "--detach"]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        write(&bench.here.join(".git/HEAD.lock"), "");
        bench.restore();
        bench.prepare();
        bench.restore();
        fs::remove_file(bench.here.join(".git/HEAD.lock")).unwrap();
        bench.here(&["gc", "-q", "--prune=now"]);
        bench.assert_sound(&bench.here, &[&new]);
    });
}

/// Its `.git` is a file, which stays when the directory that it leads to is gone.
#[test]
fn a_submodule_whose_repository_is_gone_is_held_back_and_the_rest_comes() {
    for (what, is_late) in
        ["gone", "file", "moved"].into_iter().flat_map(|what| [(what, false), (what, true)])
    {
        with_each_git(|bench| {
            let remote = bench.path().join("remote.git");
            let remote = remote.to_str().unwrap();
            bench.here(&["submodule", "--quiet", "add", remote, "sub"]);
            let sub = bench.here.join("sub");
            bench.git(&sub, &["submodule", "--quiet", "add", remote, "inner"]);
            bench.commit(&sub, "a submodule of a submodule");
            bench.commit_here("submodule");
            bench.here(&["submodule", "--quiet", "absorbgitdirs"]);
            assert_eq!(bench.prepare(), Vec::<String>::new());
            write(&bench.there.join("n.txt"), "n\n");
            let new = bench.commit_there("new");
            if is_late {
                write(&bench.there.join("sub/s.txt"), "s\n");
                bench.commit(&bench.there.join("sub"), "in the submodule");
            }
            let change = |bench: &Bench| {
                let modules = bench.here.join(".git/modules");
                let dot_git = bench.here.join("sub/.git");
                match what {
                    "gone" => fs::remove_dir_all(&modules).unwrap(),
                    "file" => {
                        fs::remove_dir_all(modules.join("sub")).unwrap();
                        write(&modules.join("sub"), "");
                    }
                    _ => {
                        fs::remove_file(&dot_git).unwrap();
                        fs::rename(modules.join("sub"), &dot_git).unwrap();
                        let config = dot_git.join("config");
                        let config = config.to_str().unwrap();
                        bench.git(&bench.path(), &["config", "--file", config, "--unset", "core.worktree"]);
                    }
                }
            };
            let report = if is_late {
                bench.restore_while(change)
            } else {
                change(bench);
                bench.restore()
            };
            assert_eq!(bench.here(&["rev-parse", "main"]), new, "{what}: {report:?}");
            for held in ["sub/.git", "sub/inner/.git"] {
                let mut held_back = report.held_back.iter();
                assert!(held_back.any(|other| other.path.to_string() == held), "{what}: {report:?}");
            }
            bench.restore();
        });
    }
}

#[test]
fn what_git_refuses_prevents_nothing_else_even_if_it_cannot_be_kept() {
    with_each_git(|bench| {
        bench.prepare();
        let tree = bench.there(&["rev-parse", "HEAD^{tree}"]);
        let theirs = bench.there(&["commit-tree", &tree, "-p", "feature", "-m", "on feature"]);
        bench.there(&["update-ref", "refs/heads/feature", &theirs]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        let lock = bench.here.join(".git/refs/heads/feature.lock");
        write(&lock, "");
        // No reference can be made below this one.
        bench.here(&["update-ref", "refs/paperclip", "main"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/feature") && holds(&report, "/refused"), "{report:?}");
        assert!(report.kept.is_empty() && report.is_incomplete, "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), new);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        bench.here(&["update-ref", "-d", "refs/paperclip"]);
        fs::remove_file(lock).unwrap();
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "feature"]), theirs);
        bench.assert_sound(&bench.here, &[&new, &theirs]);
    });
}

/// Git is not called for each of them, so some are reported only together with others.
#[test]
fn of_very_many_references_that_git_refuses_each_is_reported() {
    with_each_git(|bench| {
        bench.prepare();
        let main = bench.there(&["rev-parse", "main"]);
        let mut packed = fs::read_to_string(bench.there.join(".git/packed-refs")).unwrap();
        for at in 0..200 {
            writeln!(packed, "{main} refs/heads/n{at:03}").unwrap();
            write(&bench.here.join(format!(".git/refs/heads/n{at:03}.lock")), "");
        }
        write(&bench.there.join(".git/packed-refs"), packed);
        let report = bench.restore();
        assert_eq!(report.held_back.len(), 200, "{report:?}");
        assert!(reason(&report, "together with others"), "{report:?}");
        for held in &report.held_back {
            let is_own = held.reason.contains(held.what.as_deref().unwrap());
            assert!(is_own || held.reason.contains("together with others"), "{held:?}");
        }
    });
}

#[test]
fn a_repository_is_the_same_after_a_branch_was_deleted_and_collected_here() {
    with_each_git(|bench| {
        bench.here(&["branch", "-q", "-D", "feature"]);
        unrelated_branch(bench, "pages");
        bench.prepare();
        bench.here(&["branch", "-q", "-D", "pages"]);
        collect(bench);
        bench.there(&["branch", "-q", "-D", "pages"]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
        bench.assert_sound(&bench.here, &[&new]);
    });
}

#[test]
fn a_repository_is_the_same_with_a_detached_head_and_no_branches() {
    with_each_git(|bench| {
        let pages = unrelated_branch(bench, "pages");
        bench.prepare();
        bench.there(&["checkout", "-q", "--detach"]);
        bench.there(&["branch", "-q", "-D", "pages", "main", "feature"]);
        let report = bench.restore();
        assert!(report.held_back.is_empty(), "{report:?}");
        assert!(!bench.try_git(&bench.here, &["symbolic-ref", "-q", "HEAD"]).0);
        assert_eq!(bench.here(&["for-each-ref", "--format=%(refname)", "refs/heads"]), "");
        bench.assert_sound(&bench.here, &[&pages]);
    });
}

/// Makes a repository that is new in the sandbox, in a folder that both sides have.
fn new_there(bench: &mut Bench) -> String {
    write(&bench.here.join("tools/keep.txt"), "keep\n");
    bench.commit_here("tools");
    bench.prepare();
    let nested = bench.there.join("tools/nested");
    bench.new_repository(&nested)
}

#[test]
fn a_new_repository_does_not_replace_one_that_is_made_here_meanwhile() {
    for other_file_system in [false, true] {
        with_each_git(|bench| {
            let work = bench.on_another_file_system();
            if other_file_system {
                bench.work = work.path().to_path_buf();
            }
            let theirs = new_there(bench);
            let report = bench.restore_while(|bench| {
                let nested = bench.here.join("tools/nested");
                fs::create_dir_all(&nested).unwrap();
                bench.git(&nested, &["init", "-q", "-b", "ours"]);
            });
            assert!(holds(&report, "tools/nested/.git"), "{report:?}");
            assert!(reason(&report, "was made at that path as well"), "{report:?}");
            let nested = bench.here.join("tools/nested");
            assert_eq!(bench.git(&nested, &["symbolic-ref", "HEAD"]), "refs/heads/ours");
            let kept =
                bench.here.join(".paperclip-runtime/conflicts/2026-11-28T12:00:01.000Z/tools/nested/git");
            assert!(fs::read_to_string(kept.join("references.txt")).unwrap().contains(&theirs));
            assert!(!bench.here.join(".paperclip-runtime/new-repository").exists());
        });
    }
}

#[test]
fn a_new_repository_does_not_replace_an_empty_folder() {
    for other_file_system in [false, true] {
        with_each_git(|bench| {
            let work = bench.on_another_file_system();
            if other_file_system {
                bench.work = work.path().to_path_buf();
            }
            new_there(bench);
            let dot_git = bench.here.join("tools/nested/.git");
            let report = bench.restore_while(|_| fs::create_dir_all(&dot_git).unwrap());
            assert!(reason(&report, "was made at that path as well"), "{report:?}");
            assert_eq!(fs::read_dir(&dot_git).unwrap().count(), 0);
        });
    }
}

#[test]
fn a_new_repository_is_not_made_through_a_link() {
    for above in ["tools", "tools/nested"] {
        with_each_git(|bench| {
            new_there(bench);
            let outside = bench.path().join("outside");
            fs::create_dir_all(outside.join("nested")).unwrap();
            let report = bench.restore_while(|bench| {
                let at = bench.here.join(above);
                if at.exists() {
                    fs::remove_dir_all(&at).unwrap();
                }
                symlink(&outside, at).unwrap();
            });
            assert!(holds(&report, "tools/nested/.git"), "{report:?}");
            assert!(!outside.join(".git").exists() && !outside.join("nested/.git").exists());
        });
    }
}

/// Git locks the index before it moves a branch. So does a restore: a commit in between would have the former index, which is the
/// reverse of what the sandbox committed.
#[test]
fn a_local_commit_during_the_restore_reverts_nothing_of_the_sandbox() {
    for is_large in [false, true] {
        with_each_git(|bench| {
            write(&bench.here.join("l.txt"), "l\n");
            bench.commit_here("l");
            bench.prepare();
            write(&bench.there.join("a.txt"), "theirs\n");
            // More changes than a pipe takes at once.
            for number in 0..if is_large { 6000 } else { 1 } {
                write(&bench.there.join("new").join(format!("{number:0>100}")), "new\n");
            }
            let theirs = bench.commit_there("theirs");
            let git = bench.program.clone();
            let script = format!(
                "[ -e @root/did ] || [ \"$(@git rev-parse main)\" != {theirs} ] || {{ touch @root/did; (\n\
                 cd @root/here; unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE\n\
                 echo ours > l.txt; @git add l.txt && @git -c user.name=T -c user.email=t@t commit -q -m ours\n\
                 ) >@root/said 2>&1; }}"
            );
            before_each(bench, "*", &script);
            let report = bench.restore();
            bench.program = git;
            let said = fs::read_to_string(bench.path().join("said")).unwrap();
            assert!(is_large || said.contains("index.lock"), "{said}");
            let changed = bench.here(&["log", "--format=", "--name-only", &format!("{theirs}..main")]);
            assert!(["", "l.txt"].contains(&changed.as_str()), "{changed}: {report:?}");
            let staged = bench.here(&["diff", "--cached", "--name-only"]);
            assert!(["", "l.txt"].contains(&staged.as_str()), "{staged}: {report:?}");
            bench.assert_sound(&bench.here, &[&theirs]);
        });
    }
}

/// `git rebase --update-refs` moves further branches once it ends, and a bisection returns to its branch.
#[test]
fn branches_that_a_local_operation_uses_in_any_worktree_stay() {
    with_each_git(|bench| {
        for branch in ["followed", "bisected", "elsewhere"] {
            bench.here(&["branch", branch]);
        }
        bench.other_worktree();
        bench.prepare();
        let before = bench.here(&["for-each-ref", "refs/heads"]);
        for branch in ["bisected", "elsewhere"] {
            let commit = bench.there(&["commit-tree", "main^{tree}", "-p", "main", "-m", "theirs"]);
            bench.there(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        }
        bench.there(&["branch", "-D", "followed"]);
        let (here, there) = (bench.here.join(".git"), bench.here.join(".git/worktrees/other"));
        let main = bench.here(&["rev-parse", "main"]);
        write(&here.join("rebase-merge/update-refs"), format!("refs/heads/followed\n{main}\n{main}\n"));
        write(&here.join("BISECT_START"), "bisected\n");
        write(&there.join("rebase-merge/head-name"), "refs/heads/elsewhere\n");
        let report = bench.restore();
        assert_eq!(bench.here(&["for-each-ref", "refs/heads"]), before, "{report:?}");
        for branch in ["followed", "bisected", "elsewhere"] {
            assert!(holds(&report, &format!("refs/heads/{branch}")), "{report:?}");
        }
    });
}

/// `git status` there would show all of its files as deleted, and the next commit would delete them.
#[test]
fn a_new_branch_is_not_made_where_another_worktree_is_about_to_begin_it() {
    with_each_git(|bench| {
        let other = bench.other_worktree();
        bench.git(&other, &["checkout", "-q", "--orphan", "begun"]);
        bench.git(&other, &["rm", "-q", "-r", "-f", "."]);
        bench.prepare();
        bench.there(&["branch", "begun"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/begun"), "{report:?}");
        assert_eq!(bench.here(&["for-each-ref", "refs/heads/begun"]), "", "{report:?}");
        assert_eq!(bench.git(&other, &["status", "--porcelain"]), "");
    });
}

/// It leads a person elsewhere who gives git the beginning of a commit's name, or the name of a branch of a remote.
#[test]
fn a_new_branch_whose_name_means_something_else_to_git_is_kept_aside() {
    with_each_git(|bench| {
        bench.prepare();
        let short = bench.here(&["rev-parse", "--short", "HEAD"]);
        let described = format!("v1-0-g{short}");
        bench.there(&["config", "remote.Up.url", "https://example.org/x"]);
        for name in [&short[..], &described, "20261130", "feature-green", "up/next"] {
            bench.there(&["branch", name]);
        }
        let report = bench.restore();
        for (name, is_held) in [
            (&short[..], true),
            (&described, true),
            ("20261130", false),
            ("feature-green", false),
            ("up/next", true),
        ] {
            let name = format!("refs/heads/{name}");
            assert_eq!(holds(&report, &name), is_held, "{name}: {report:?}");
            assert_eq!(bench.here(&["for-each-ref", &name]).is_empty(), is_held, "{name}");
        }
    });
}

#[test]
fn head_does_not_come_to_a_branch_without_a_commit_whose_name_means_something_else_to_git() {
    with_each_git(|bench| {
        bench.prepare();
        let short = bench.here(&["rev-parse", "--short", "HEAD"]);
        bench.there(&["symbolic-ref", "HEAD", &format!("refs/heads/{short}")]);
        let report = bench.restore();
        assert!(holds(&report, "HEAD"), "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    });
}

/// The lock may be another git's, although the git that was to lock the index still runs: it has not tried yet.
#[test]
fn the_branch_stays_if_another_git_locks_the_index_just_before() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let before = bench.here(&["rev-parse", "main"]);
        let theirs = bench.commit_there("theirs");
        let git = bench.program.clone();
        let script = "[ -e @root/did ] || { touch @root/did @root/here/.git/index.lock
            (sleep 3; rm @root/here/.git/index.lock) >/dev/null 2>&1 </dev/null & sleep 0.5; }";
        before_each(bench, r#"*" update-index "*" --index-info "*"#, script);
        let report = bench.restore();
        bench.program = git;
        while bench.here.join(".git/index.lock").exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let now = bench.here(&["rev-parse", "main"]);
        assert!([before, theirs.clone()].contains(&now), "{report:?}");
        // Wherever it is now, a commit here reverts nothing.
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), theirs);
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "");
    });
}
