//! Ordinary work on both sides: after each restore, `git fsck --full` has no finding and no commit is lost.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sandbox_managed_runtime::git::report::GitReport;

use crate::bench::{Bench, executable, holds, path, with_each_git, write};

#[test]
fn ten_heartbeats_in_which_nothing_happens_change_nothing() {
    with_each_git(|bench| {
        let before = bench.here(&["for-each-ref"]);
        for beat in 0..10 {
            bench.prepare();
            if beat % 2 == 1 {
                bench.there(&["status"]);
            }
            let report = bench.restore();
            assert_eq!(report, GitReport::default(), "heartbeat {beat}");
        }
        assert_eq!(bench.here(&["for-each-ref"]), before);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
    });
}

#[test]
fn the_uploaded_repository_works_and_has_no_secret() {
    with_each_git(|bench| {
        bench.here(&["config", "http.extraHeader", "AUTHORIZATION: secret"]);
        bench.here(&["config", "remote.up.url", "https://user:secret@example.com/x.git"]);
        bench.here(&["config", "user.name", "Person"]);
        write(&bench.here.join("gone.txt"), "secret\n");
        bench.commit_here("unreachable");
        let unreachable = bench.here(&["rev-parse", "HEAD:gone.txt"]);
        bench.here(&["reset", "-q", "--hard", "HEAD~1"]);
        assert_eq!(bench.prepare(), Vec::<String>::new());
        assert_eq!(
            bench.there(&["log", "--all", "--format=%H"]),
            bench.here(&["log", "--all", "--format=%H"])
        );
        assert_eq!(bench.there(&["status", "--porcelain"]), "");
        assert_eq!(bench.there(&["config", "remote.up.url"]), "https://example.com/x.git");
        assert_eq!(bench.there(&["config", "--local", "user.name"]), "Person");
        assert!(!bench.try_git(&bench.there, &["cat-file", "-e", &unreachable]).0);
        assert!(!fs::read_to_string(bench.there.join(".git/config")).unwrap().contains("secret"));
        bench.assert_sound(&bench.there, &[]);
        bench.options.credentials = true;
        bench.prepare();
        assert_eq!(bench.there(&["config", "http.extraHeader"]), "AUTHORIZATION: secret");
    });
}

#[test]
fn git_in_the_sandbox_reports_exactly_what_differs_from_the_index() {
    with_each_git(|bench| {
        let old = SystemTime::now() - Duration::from_secs(1_000_000);
        let set = |path: &Path, time| {
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        for name in ["a.txt", "b.txt"] {
            set(&bench.here.join(name), old);
        }
        bench.here(&["update-index", "--refresh"]);
        bench.prepare();
        set(&bench.there.join("a.txt"), old);
        set(&bench.there.join("b.txt"), old);
        assert_eq!(bench.there(&["diff-files"]), "", "an unchanged file has other status data there");
        // Changed after it was staged, in the same second and to the same size.
        write(&bench.here.join("a.txt"), "eno\n");
        bench.here(&["add", "a.txt"]);
        let staged = fs::metadata(bench.here.join(".git/index")).unwrap().modified().unwrap();
        write(&bench.here.join("a.txt"), "neo\n");
        set(&bench.here.join("a.txt"), staged);
        bench.prepare();
        set(&bench.there.join("a.txt"), staged);
        let index = fs::metadata(bench.there.join(".git/index")).unwrap().modified().unwrap();
        assert!(index <= staged);
        assert!(bench.there(&["status", "--porcelain"]).contains("MM a.txt"));
    });
}

#[test]
fn a_commit_of_the_agent_arrives_on_its_branch() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.there(&["checkout", "-q", "-b", "topic"]);
        write(&bench.there.join("t.txt"), "t\n");
        let topic = bench.commit_there("topic");
        // The object of an annotated tag is reached by its name alone.
        bench.there(&["tag", "-a", "-m", "annotated", "v2"]);
        bench.there(&["config", "branch.topic.remote", "origin"]);
        bench.there(&["config", "branch.topic.merge", "refs/heads/topic"]);
        bench.there(&["remote", "add", "fork", "https://example.com/fork.git"]);
        let report = bench.restore();
        assert!(report.held_back.is_empty() && report.kept.is_empty(), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), topic);
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/topic");
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        assert_eq!(bench.here(&["config", "branch.topic.remote"]), "origin");
        assert_eq!(bench.here(&["remote", "get-url", "fork"]), "https://example.com/fork.git");
        assert!(bench.here(&["reflog", "main"]).contains("restore"));
        assert_eq!(bench.here(&["cat-file", "-t", "v2"]), "tag");
        bench.assert_sound(&bench.here, &[&new, &topic]);
        assert_eq!(bench.restore(), GitReport::default(), "a second restore finds nothing new");
    });
}

#[test]
fn a_locally_staged_file_survives_a_gc_in_the_sandbox() {
    with_each_git(|bench| {
        write(&bench.here.join("staged.txt"), "staged\n");
        bench.here(&["add", "staged.txt"]);
        bench.prepare();
        bench.there(&["reset", "-q"]);
        bench.there(&["gc", "-q", "--prune=now"]);
        bench.here(&["commit", "-q", "-m", "staged"]);
        let ours = bench.here(&["rev-parse", "HEAD"]);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), ours);
        bench.assert_sound(&bench.here, &[&ours]);
    });
}

#[test]
fn new_commits_arrive_after_a_gc_in_the_sandbox() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.there(&["gc", "-q", "--aggressive", "--prune=now"]);
        bench.here(&["gc", "-q", "--prune=now"]);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        bench.assert_sound(&bench.here, &[&new]);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
    });
}

#[test]
fn commits_of_both_sides_are_there_afterwards() {
    for packed in [false, true] {
        with_each_git(|bench| {
            bench.prepare();
            write(&bench.there.join("t.txt"), "t\n");
            let theirs = bench.commit_there("theirs");
            write(&bench.here.join("o.txt"), "o\n");
            let ours = bench.commit_here("ours");
            if packed {
                bench.here(&["pack-refs", "--all"]);
                bench.there(&["pack-refs", "--all"]);
            }
            let report = bench.restore();
            assert_eq!(bench.here(&["rev-parse", "main"]), ours);
            assert_eq!(report.kept.len(), 1, "{report:?}");
            assert_eq!(bench.here(&["rev-parse", &report.kept[0].kept_at]), theirs);
            assert!(report.kept[0].kept_at.starts_with("refs/paperclip/2026-11-28T12-00-0"));
            // What their commit has is not staged on top of ours.
            assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "");
            bench.assert_sound(&bench.here, &[&ours, &theirs]);
            bench.here(&["add", "-A"]);
            bench.here(&["commit", "-q", "-m", "files"]);
            bench.here(&["merge", "-q", "--no-edit", &report.kept[0].kept_at]);
            assert_eq!(bench.restore(), GitReport::default());
        });
    }
}

#[test]
fn a_branch_deleted_or_rewound_in_the_sandbox_is_stored() {
    with_each_git(|bench| {
        bench.here(&["checkout", "-q", "feature"]);
        write(&bench.here.join("f.txt"), "f\n");
        let feature = bench.commit_here("feature");
        bench.here(&["checkout", "-q", "main"]);
        let main = bench.here(&["rev-parse", "main"]);
        bench.prepare();
        bench.there(&["branch", "-q", "-D", "feature"]);
        bench.there(&["reset", "-q", "--hard", "HEAD~1"]);
        bench.there(&["gc", "-q", "--prune=now"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["branch", "--list", "feature"]), "");
        assert_eq!(bench.here(&["rev-parse", "main"]), bench.there(&["rev-parse", "main"]));
        assert_eq!(report.kept.len(), 2, "{report:?}");
        bench.assert_sound(&bench.here, &[&feature, &main]);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
    });
}

#[test]
fn a_local_commit_survives_the_deletion_of_its_branch_in_the_sandbox() {
    with_each_git(|bench| {
        bench.prepare();
        bench.here(&["checkout", "-q", "feature"]);
        write(&bench.here.join("f.txt"), "f\n");
        let ours = bench.commit_here("ours");
        // A branch that is checked out would stay in any case.
        bench.here(&["checkout", "-q", "main"]);
        make_old(&bench.here.join(".git/objects"));
        bench.there(&["branch", "-q", "-D", "feature"]);
        bench.there(&["reflog", "expire", "--expire=now", "--all"]);
        bench.there(&["gc", "-q", "--prune=now"]);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "feature"]), ours);
        // What git itself may collect is not asserted.
        bench.here(&["gc", "-q"]);
        bench.assert_sound(&bench.here, &[&ours]);
    });
}

/// Makes every file look a month old, so that git collects what cannot be reached.
fn make_old(folder: &Path) {
    let month_ago = SystemTime::now() - Duration::from_secs(31 * 24 * 3600);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            make_old(&path);
        } else {
            fs::File::open(&path).unwrap().set_modified(month_ago).unwrap();
        }
    }
}

#[test]
fn references_packed_on_both_sides_are_all_there() {
    with_each_git(|bench| {
        bench.prepare();
        bench.here(&["branch", "ours"]);
        bench.here(&["pack-refs", "--all"]);
        bench.there(&["branch", "theirs"]);
        bench.there(&["branch", "-q", "-D", "feature"]);
        bench.there(&["pack-refs", "--all", "--prune"]);
        bench.restore();
        let names = bench.here(&["for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags"]);
        assert_eq!(names, "refs/heads/main\nrefs/heads/ours\nrefs/heads/theirs\nrefs/tags/v1");
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn another_local_worktree_survives_a_prune_in_the_sandbox() {
    with_each_git(|bench| {
        let linked = bench.here.parent().unwrap().join("linked");
        bench.here(&["worktree", "add", "-q", linked.to_str().unwrap(), "feature"]);
        let idle = bench.path().join("idle");
        bench.here(&["worktree", "add", "-q", "-b", "idle", idle.to_str().unwrap()]);
        let before = bench.git(&idle, &["rev-parse", "HEAD"]);
        bench.prepare();
        write(&linked.join("w.txt"), "w\n");
        let ours = bench.commit(&linked, "in the worktree");
        write(&linked.join("staged.txt"), "staged\n");
        bench.git(&linked, &["add", "staged.txt"]);
        bench.there(&["worktree", "prune"]);
        bench.there(&["branch", "-q", "-D", "feature", "idle"]);
        bench.there(&["gc", "-q", "--prune=now"]);
        write(&bench.there.join("n.txt"), "n\n");
        let theirs = bench.commit_there("new");
        let report = bench.restore();
        // The report says that the branch stays.
        assert!(holds(&report, "refs/heads/idle"), "{report:?}");
        bench.here(&["gc", "-q", "--prune=now"]);
        assert_eq!(bench.git(&linked, &["rev-parse", "HEAD"]), ours);
        assert_eq!(bench.git(&idle, &["rev-parse", "HEAD"]), before);
        assert_eq!(bench.git(&linked, &["status", "--porcelain"]), "A  staged.txt");
        assert_eq!(bench.here(&["rev-parse", "main"]), theirs);
        bench.assert_sound(&bench.here, &[&ours, &theirs]);
    });
}

#[test]
fn a_rebase_that_is_finished_locally_meanwhile_is_preserved() {
    with_each_git(|bench| {
        write(&bench.here.join("a.txt"), "here\n");
        let main = bench.commit_here("ours");
        bench.here(&["checkout", "-q", "feature"]);
        write(&bench.here.join("a.txt"), "feature\n");
        let before = bench.commit_here("conflicting");
        bench.try_git(&bench.here, &["rebase", "main"]);
        bench.prepare();
        // The sandbox knows of no rebase: it goes back to the branch.
        assert!(!bench.there.join(".git/rebase-merge").exists());
        bench.there(&["checkout", "-q", "-f", "feature"]);
        write(&bench.here.join("a.txt"), "both\n");
        bench.here(&["add", "a.txt"]);
        bench.here(&["-c", "core.editor=true", "rebase", "--continue"]);
        let rebased = bench.here(&["rev-parse", "feature"]);
        assert_ne!(rebased, before);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "feature"]), rebased);
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/feature");
        bench.assert_sound(&bench.here, &[&main, &rebased]);
    });
}

#[test]
fn settings_of_both_sides_are_preserved() {
    with_each_git(|bench| {
        bench.prepare();
        bench.here(&["remote", "add", "ours", "https://example.com/ours.git"]);
        bench.here(&["remote", "add", "same", "https://example.com/here.git"]);
        bench.here(&["config", "credential.helper", "mine"]);
        bench.there(&["remote", "add", "theirs", "https://example.com/theirs.git"]);
        bench.there(&["remote", "add", "same", "https://example.com/there.git"]);
        bench.there(&["config", "user.name", "Agent"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["remote"]), "origin\nours\nsame\ntheirs");
        assert_eq!(bench.here(&["remote", "get-url", "same"]), "https://example.com/here.git");
        assert_eq!(bench.here(&["config", "credential.helper"]), "mine");
        assert!(holds(&report, "user.name") && holds(&report, "remote.same.url"), "{report:?}");
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn a_repository_that_both_sides_made_has_the_work_of_both() {
    with_each_git(|bench| {
        bench.prepare();
        let commit = |folder: &Path, text: &str| {
            fs::create_dir(folder).unwrap();
            bench.git(folder, &["init", "-q", "-b", "main"]);
            write(&folder.join("x.txt"), text);
            bench.git(folder, &["add", "x.txt"]);
            bench.git(folder, &["commit", "-q", "-m", text]);
            bench.git(folder, &["rev-parse", "HEAD"])
        };
        let ours = commit(&bench.here.join("lib"), "ours");
        let theirs = commit(&bench.there.join("lib"), "theirs");
        bench.git(&bench.there.join("lib"), &["branch", "topic"]);
        bench.git(&bench.there.join("lib"), &["config", "core.fsmonitor", "touch $CANARY"]);
        let report = bench.restore();
        let lib = bench.here.join("lib");
        assert_eq!(bench.git(&lib, &["rev-parse", "main"]), ours);
        assert_eq!(bench.git(&lib, &["rev-parse", "topic"]), theirs);
        assert!(holds(&report, "refs/heads/main") && holds(&report, "core.fsmonitor"), "{report:?}");
        bench.assert_sound(&lib, &[&ours, &theirs]);
    });
}

/// The workspace is on another file system than temporary files.
#[test]
fn a_new_repository_arrives_complete_from_another_file_system() {
    with_each_git(|bench| {
        let work = bench.on_another_file_system();
        bench.work = work.path().to_path_buf();
        bench.prepare();
        let fresh = bench.there.join("deep/fresh");
        fs::create_dir_all(&fresh).unwrap();
        bench.git(&fresh, &["init", "-q", "-b", "main"]);
        write(&fresh.join("x.txt"), "x\n");
        let theirs = bench.commit(&fresh, "fresh");
        // What a killed restore left does not prevent the next one.
        write(&bench.here.join(".paperclip-runtime/new-repository/left"), "left");
        let report = bench.restore();
        assert!(report.held_back.is_empty(), "{report:?}");
        let here = bench.here.join("deep/fresh");
        assert_eq!(bench.git(&here, &["rev-parse", "HEAD"]), theirs);
        bench.assert_sound(&here, &[&theirs]);
        assert!(!bench.here.join(".paperclip-runtime/new-repository").exists());
    });
}

#[test]
fn what_is_staged_on_either_side_is_staged_afterwards() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.here.join("o.txt"), "o\n");
        bench.here(&["add", "o.txt"]);
        write(&bench.there.join("t.txt"), "t\n");
        bench.commit_there("theirs");
        write(&bench.there.join("s.txt"), "s\n");
        bench.there(&["add", "s.txt"]);
        bench.restore();
        assert_eq!(bench.here(&["status", "--porcelain"]), "A  o.txt\nA  s.txt");
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn a_file_staged_on_both_sides_stays_as_it_is_staged_locally() {
    with_each_git(|bench| {
        bench.prepare();
        for (folder, text) in [(&bench.here, "ours"), (&bench.there, "theirs")] {
            write(&folder.join("a.txt"), text);
            bench.git(folder, &["add", "a.txt"]);
        }
        bench.restore();
        assert_eq!(bench.here(&["show", ":a.txt"]), "ours");
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn a_git_status_in_the_sandbox_is_no_change() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.here.join("o.txt"), "o\n");
        bench.here(&["add", "o.txt"]);
        bench.there(&["status"]);
        assert_eq!(bench.restore(), GitReport::default());
        assert_eq!(bench.here(&["status", "--porcelain"]), "A  o.txt");
    });
}

#[test]
fn a_linked_worktree_is_a_repository_of_its_own_in_the_sandbox() {
    with_each_git(|bench| {
        let main = bench.here.clone();
        let linked = main.parent().unwrap().join("linked");
        bench.here(&["worktree", "add", "-q", linked.to_str().unwrap(), "feature"]);
        bench.here = linked.clone();
        bench.prepare();
        assert!(bench.there.join(".git").is_dir());
        assert_eq!(bench.there(&["symbolic-ref", "HEAD"]), "refs/heads/feature");
        write(&bench.there.join("w.txt"), "w\n");
        let theirs = bench.commit_there("in the worktree");
        // The branch that the other worktree has checked out is not moved.
        bench.there(&["branch", "-f", "main", "feature"]);
        bench.there(&["worktree", "prune"]);
        let report = bench.restore();
        assert!(linked.join(".git").is_file());
        assert_eq!(bench.git(&main, &["rev-parse", "feature"]), theirs);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        assert!(holds(&report, "refs/heads/main"), "{report:?}");
        assert_eq!(bench.git(&main, &["status", "--porcelain"]), "");
        bench.assert_sound(&main, &[&theirs]);
    });
}

#[test]
fn a_submodule_and_a_nested_repository_are_transferred() {
    with_each_git(|bench| {
        let remote = bench.root.path().join("remote.git");
        bench.here(&["submodule", "--quiet", "add", remote.to_str().unwrap(), "sub"]);
        bench.commit_here("submodule");
        let nested = bench.here.join("nested");
        fs::create_dir(&nested).unwrap();
        bench.git(&nested, &["init", "-q", "-b", "main"]);
        bench.git(&nested, &["commit", "-q", "--allow-empty", "-m", "nested"]);
        assert_eq!(bench.prepare(), Vec::<String>::new());
        write(&bench.there.join("sub/s.txt"), "s\n");
        let sub = bench.commit(&bench.there.join("sub"), "in the submodule");
        write(&bench.there.join("nested/n.txt"), "n\n");
        let inner = bench.commit(&bench.there.join("nested"), "in the nested one");
        let outer = bench.git(&bench.there, &["commit", "-q", "-m", "moves", "sub"]);
        assert_eq!(outer, "");
        let report = bench.restore();
        assert!(report.held_back.is_empty(), "{report:?}");
        assert!(bench.here.join("sub/.git").is_file());
        assert_eq!(bench.git(&bench.here.join("sub"), &["rev-parse", "HEAD"]), sub);
        assert_eq!(bench.git(&nested, &["rev-parse", "HEAD"]), inner);
        assert_eq!(bench.here(&["rev-parse", "HEAD:sub"]), sub);
        for folder in [bench.here.clone(), nested, bench.here.join("sub")] {
            bench.assert_sound(&folder, &[]);
        }
        assert!(!bench.here(&["status", "--porcelain"]).contains("sub"));
    });
}

#[test]
fn a_locked_local_index_is_left_alone() {
    with_each_git(|bench| {
        write(&bench.here.join(".git/index.lock"), "");
        bench.prepare();
        write(&bench.there.join("t.txt"), "t\n");
        bench.there(&["add", "t.txt"]);
        let report = bench.restore();
        assert!(
            report.held_back.iter().any(|held| held.reason.contains("another git has locked")),
            "{report:?}"
        );
        fs::remove_file(bench.here.join(".git/index.lock")).unwrap();
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn a_local_rebase_in_progress_is_left_alone() {
    with_each_git(|bench| {
        write(&bench.here.join("a.txt"), "here\n");
        let ours = bench.commit_here("ours");
        bench.here(&["checkout", "-q", "feature"]);
        write(&bench.here.join("a.txt"), "feature\n");
        let feature = bench.commit_here("conflicting");
        bench.try_git(&bench.here, &["rebase", "main"]);
        bench.prepare();
        bench.there(&["branch", "-f", "feature", "main"]);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "feature"]), feature);
        bench.here(&["rebase", "--abort"]);
        bench.assert_sound(&bench.here, &[&ours, &feature]);
    });
}

#[test]
fn stashes_of_both_sides_are_there() {
    with_each_git(|bench| {
        let (here, there) = (bench.here.clone(), bench.there.clone());
        write(&here.join("a.txt"), "zero");
        bench.here(&["stash", "push", "-q", "-m", "zero"]);
        bench.prepare();
        assert!(bench.there(&["stash", "list"]).contains("zero"));
        for (folder, text) in [(&there, "theirs one"), (&there, "theirs two"), (&here, "ours")] {
            write(&folder.join("a.txt"), text);
            bench.git(folder, &["stash", "push", "-q", "-m", text]);
        }
        bench.restore();
        let list = bench.here(&["stash", "list"]);
        for text in ["zero", "theirs one", "theirs two", "ours"] {
            assert!(list.contains(text), "{list}");
        }
        bench.here(&["gc", "-q", "--prune=now"]);
        bench.assert_sound(&bench.here, &[]);
        assert_eq!(bench.restore(), GitReport::default());
    });
}

#[test]
fn a_stash_whose_reflog_expired_is_neither_lost_nor_left_behind() {
    with_each_git(|bench| {
        let (here, there) = (bench.here.clone(), bench.there.clone());
        let expire = ["reflog", "expire", "--expire=now", "--all"];
        write(&here.join("a.txt"), "ours");
        bench.here(&["stash", "push", "-q"]);
        let ours = bench.here(&["rev-parse", "refs/stash"]);
        bench.here(&expire);
        bench.prepare();
        assert_eq!(bench.there(&["rev-parse", "refs/stash"]), ours);
        write(&there.join("a.txt"), "theirs");
        bench.there(&["stash", "push", "-q"]);
        let theirs = bench.there(&["rev-parse", "refs/stash"]);
        bench.there(&expire);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "refs/stash"]), theirs);
        bench.here(&["gc", "-q", "--prune=now"]);
        bench.assert_sound(&here, &[&ours, &theirs]);
    });
}

#[test]
fn what_is_staged_locally_below_a_directory_stays_where_the_sandbox_has_a_file() {
    with_each_git(|bench| {
        let (here, there) = (bench.here.clone(), bench.there.clone());
        fs::create_dir(here.join("d")).unwrap();
        write(&here.join("d/in.txt"), "zero");
        bench.commit_here("a directory");
        bench.prepare();
        fs::remove_dir_all(there.join("d")).unwrap();
        write(&there.join("d"), "a file");
        bench.there(&["add", "-A"]);
        write(&here.join("d/in.txt"), "staged");
        bench.here(&["add", "d/in.txt"]);
        let staged = bench.here(&["rev-parse", ":d/in.txt"]);
        fs::remove_dir_all(here.join("d")).unwrap();
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", ":d/in.txt"]), staged);
        assert!(holds(&report, "index: d"), "{report:?}");
        bench.assert_sound(&here, &[]);
    });
}

#[test]
fn what_a_restore_by_root_makes_in_a_repository_belongs_to_its_owner() {
    use std::os::unix::fs::{MetadataExt as _, lchown};
    const OWNER: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    with_each_git(|bench| {
        let (here, there) = (bench.here.clone(), bench.there.clone());
        let all = |folder: &Path| -> Vec<std::path::PathBuf> {
            walkdir::WalkDir::new(folder).into_iter().map(|entry| entry.unwrap().into_path()).collect()
        };
        for path in all(&here) {
            lchown(path, Some(OWNER), Some(OWNER)).unwrap();
        }
        bench.prepare();
        write(&there.join("a.txt"), "theirs");
        let theirs = bench.commit_there("theirs");
        bench.there(&["branch", "folder/topic"]);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), theirs);
        let of_root =
            all(&here.join(".git")).into_iter().filter(|path| path.symlink_metadata().unwrap().uid() == 0);
        assert_eq!(of_root.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    });
}

#[test]
fn a_branch_that_was_checked_out_locally_since_the_upload_does_not_move() {
    with_each_git(|bench| {
        let (here, there) = (bench.here.clone(), bench.there.clone());
        bench.here(&["branch", "topic"]);
        bench.prepare();
        bench.there(&["checkout", "-q", "topic"]);
        write(&there.join("new.txt"), "the agent's");
        let theirs = bench.commit_there("on topic");
        bench.there(&["checkout", "-q", "main"]);
        bench.here(&["checkout", "-q", "topic"]);
        let ours = bench.here(&["rev-parse", "topic"]);
        let report = bench.restore();
        assert_eq!(
            bench.here(&["rev-parse", "topic"]),
            ours,
            "the index and the files are those of this commit"
        );
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "");
        assert!(holds(&report, "refs/heads/topic"), "{report:?}");
        bench.assert_sound(&here, &[&theirs]);
    });
}

#[test]
fn an_unborn_and_a_detached_head_are_transferred() {
    with_each_git(|bench| {
        let root = bench.here.clone();
        bench.here = root.parent().unwrap().join("unborn");
        fs::create_dir(&bench.here).unwrap();
        bench.here(&["init", "-q", "-b", "trunk"]);
        bench.prepare();
        assert_eq!(bench.there(&["symbolic-ref", "HEAD"]), "refs/heads/trunk");
        write(&bench.there.join("x.txt"), "x\n");
        let first = bench.commit_there("first");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "trunk"]), first);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        bench.here(&["checkout", "-q", "--detach"]);
        bench.prepare();
        write(&bench.there.join("y.txt"), "y\n");
        let detached = bench.commit_there("detached");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), detached);
        assert!(!bench.try_git(&bench.here, &["symbolic-ref", "-q", "HEAD"]).0);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        bench.assert_sound(&bench.here, &[&first]);
    });
}

#[test]
fn a_commit_in_a_worktree_without_a_branch_is_kept() {
    with_each_git(|bench| {
        bench.prepare();
        let work = |bench: &Bench, name: &str, options: &[&str]| {
            let at = bench.path().join(name);
            let add = ["worktree", "add", "-q"].iter().chain(options).copied().chain([at.to_str().unwrap()]);
            bench.there(&add.collect::<Vec<_>>());
            write(&at.join("n.txt"), name);
            bench.commit(&at, name)
        };
        let detached = work(bench, "apart", &["--detach"]);
        let on_branch = work(bench, "beside", &["-b", "beside"]);
        // One that has nothing of its own.
        let at = bench.path().join("idle");
        bench.there(&["worktree", "add", "-q", "--detach", at.to_str().unwrap()]);
        let report = bench.restore();
        let list = ["for-each-ref", "--format=%(objectname) %(refname)"];
        let refs = bench.here(&list);
        let kept = format!("{detached} refs/paperclip/2026-11-28T12-00-01.000Z/worktrees/apart");
        assert!(refs.lines().any(|line| line == kept), "{refs}");
        assert!(refs.contains(&format!("{on_branch} refs/heads/beside")), "{refs}");
        assert_eq!(report.kept.len(), 1, "{report:?}");
        assert_eq!(report.kept[0].reference, "worktrees/apart/HEAD");
        // It is kept once.
        let report = bench.restore();
        assert_eq!((&report.kept[..], bench.here(&list)), (&[][..], refs), "{report:?}");
        bench.assert_sound(&bench.here, &[&detached, &on_branch]);
        // What git would obey is kept too, and reported.
        write(&bench.path().join("apart/ev/HEAD"), "ref: refs/heads/main\n");
        let planted = bench.commit(&bench.path().join("apart"), "planted");
        let report = bench.restore();
        assert!(holds(&report, "worktrees/apart/HEAD"), "{report:?}");
        bench.assert_sound(&bench.here, &[&planted]);
        // One that names a file keeps nothing.
        let blob = bench.there(&["rev-parse", "HEAD:a.txt"]);
        write(&bench.there.join(".git/worktrees/apart/HEAD"), format!("{blob}\n"));
        let report = bench.restore();
        assert!(holds(&report, "worktrees/apart/HEAD") && report.kept.is_empty(), "{report:?}");
        bench.assert_sound(&bench.here, &[&planted]);
    });
}

#[test]
fn a_commit_that_only_head_reaches_is_stored_when_head_moves() {
    for by_branch in [true, false] {
        with_each_git(|bench| {
            bench.here(&["checkout", "-q", "--detach"]);
            write(&bench.here.join("d.txt"), "d\n");
            let ours = bench.commit_here("on no branch");
            bench.prepare();
            bench.there(&["checkout", "-q", "main"]);
            if !by_branch {
                bench.there(&["checkout", "-q", "--detach"]);
                bench.there(&["commit", "-q", "--allow-empty", "-m", "elsewhere"]);
            }
            let head = bench.there(&["rev-parse", "HEAD"]);
            let report = bench.restore();
            assert_eq!(bench.here(&["rev-parse", "HEAD"]), head);
            assert!(report.kept.iter().any(|kept| kept.kept_at.ends_with("/replaced/HEAD")), "{report:?}");
            bench.here(&["reflog", "expire", "--expire=now", "--all"]);
            bench.here(&["gc", "-q", "--prune=now"]);
            bench.assert_sound(&bench.here, &[&ours]);
            // If another reference leads to it, nothing is stored.
            bench.here(&["checkout", "-q", "--detach", "main"]);
            bench.prepare();
            bench.there(&["checkout", "-q", "feature"]);
            assert!(bench.restore().kept.is_empty());
        });
    }
}

#[test]
fn a_shallow_history_is_uploaded_and_comes_back() {
    with_each_git(|bench| {
        for at in 0..5 {
            bench.here(&["commit", "-q", "--allow-empty", "-m", &format!("more {at}")]);
        }
        bench.here(&["branch", "-D", "feature"]);
        bench.here(&["tag", "-d", "v1"]);
        bench.here(&["push", "-q", "origin", "main"]);
        bench.options.depth = Some(2);
        bench.prepare();
        assert_eq!(bench.there(&["rev-list", "--count", "HEAD"]), "2");
        bench.assert_sound(&bench.there, &[]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.restore();
        assert_eq!(bench.here(&["rev-list", "--count", "HEAD"]), "8");
        bench.assert_sound(&bench.here, &[&new]);
        // A clone that is shallow locally, and unshallowed in the sandbox.
        bench.options.depth = None;
        bench.git(
            bench.root.path(),
            &[
                "clone",
                "-q",
                "--depth",
                "1",
                &format!("file://{}", bench.root.path().join("remote.git").display()),
                "shallow",
            ],
        );
        bench.here = bench.root.path().canonicalize().unwrap().join("shallow");
        bench.prepare();
        write(&bench.there.join("s.txt"), "s\n");
        let on_top = bench.commit_there("on top of the shallow history");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), on_top);
        bench.assert_sound(&bench.here, &[&on_top]);
        bench.prepare();
        bench.there(&["fetch", "-q", "--unshallow", bench.root.path().join("remote.git").to_str().unwrap()]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), new);
        bench.assert_sound(&bench.here, &[&new]);
    });
}

#[test]
fn alternates_and_partial_clones_are_transferred() {
    with_each_git(|bench| {
        let root = bench.root.path().canonicalize().unwrap();
        let remote = format!("file://{}", root.join("remote.git").display());
        bench.git(&root.join("remote.git"), &["config", "uploadpack.allowFilter", "true"]);
        bench.git(
            &root,
            &["clone", "-q", "--reference", root.join("here").to_str().unwrap(), &remote, "alternate"],
        );
        // So that there is a blob that a partial clone does not need.
        write(&bench.here.join("b.txt"), "another\n");
        bench.commit_here("third");
        bench.here(&["push", "-q", "origin", "main"]);
        bench.git(&root, &["clone", "-q", "--filter=blob:none", &remote, "partial"]);
        bench.git(&root, &["clone", "-q", "--filter=blob:none", "--no-checkout", &remote, "sparse"]);
        let sparse = root.join("sparse");
        bench.git(&sparse, &["sparse-checkout", "set", "--no-cone", "/a.txt", "/n.txt"]);
        bench.git(&sparse, &["checkout", "-q", "main"]);
        for name in ["alternate", "partial", "sparse"] {
            bench.here = root.join(name);
            let missing = |bench: &Bench| {
                let list = bench.here(&["rev-list", "--objects", "--missing=print", "--all"]);
                list.lines().filter(|line| line.starts_with('?')).count()
            };
            let missing_before = missing(bench);
            assert_eq!(missing_before > 0, name != "alternate");
            assert_eq!(bench.prepare(), Vec::<String>::new(), "{name}");
            assert_eq!(bench.there(&["status", "--porcelain"]), "", "{name}");
            write(&bench.there.join("n.txt"), "n\n");
            let new = bench.commit_there("new");
            let report = bench.restore();
            assert_eq!(bench.here(&["rev-parse", "main"]), new, "{name}: {report:?}");
            assert!(report.held_back.is_empty(), "{name}: {report:?}");
            assert_eq!(missing(bench), missing_before, "{name}: nothing was fetched");
            bench.assert_sound(&bench.here, &[&new]);
        }
        // What it lacks may also be staged.
        bench.here(&["reset", "-q", "--soft", "main~2"]);
        assert_eq!(bench.prepare(), Vec::<String>::new());
    });
}

/// The agent goes back to an old tree, of which neither side has all files.
#[test]
fn a_commit_that_names_what_a_partial_clone_lacks_comes_back() {
    with_each_git(|bench| {
        let root = bench.path();
        let remote = format!("file://{}", root.join("remote.git").display());
        bench.git(&root.join("remote.git"), &["config", "uploadpack.allowFilter", "true"]);
        write(&bench.here.join("b.txt"), "another\n");
        bench.commit_here("third");
        bench.here(&["push", "-q", "origin", "main"]);
        bench.git(&root, &["clone", "-q", "--filter=blob:none", &remote, "partial"]);
        bench.here = root.join("partial");
        let missing = |bench: &Bench| bench.here(&["rev-list", "--objects", "--missing=print", "--all"]);
        let old = bench.here(&["rev-parse", "main~1:b.txt"]);
        bench.prepare();
        bench.assert_sound(&bench.there, &[]);
        let old_tree = bench.there(&["rev-parse", "main~1^{tree}"]);
        let new = bench.there(&["commit-tree", &old_tree, "-p", "main", "-m", "back to the second"]);
        bench.there(&["update-ref", "refs/heads/topic", &new]);
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "topic"]), new, "{report:?}");
        assert!(missing(bench).contains(&format!("?{old}")), "it was fetched");
        bench.assert_sound(&bench.here, &[&new]);
    });
}

#[test]
fn a_partial_clone_without_trees_is_refused() {
    with_each_git(|bench| {
        let root = bench.path();
        let remote = format!("file://{}", root.join("remote.git").display());
        bench.git(&root.join("remote.git"), &["config", "uploadpack.allowFilter", "true"]);
        bench.git(&root, &["clone", "-q", "--filter=tree:0", "--no-checkout", &remote, "treeless"]);
        bench.here = root.join("treeless");
        let refused = bench.prepare();
        let [reason] = &refused[..] else { panic!("{refused:?}") };
        let command = reason.split('`').find(|part| part.starts_with("git fetch")).unwrap();
        assert!(reason.contains("lacks trees"), "{reason}");
        let words: Vec<&str> = command.split(' ').collect();
        bench.here(&words[1..]);
        assert_eq!(bench.prepare(), Vec::<String>::new(), "after {command}");
        bench.there(&["log", "--stat"]);
    });
}

#[test]
fn what_the_local_sparse_checkout_excludes_stays_excluded() {
    with_each_git(|bench| {
        write(&bench.here.join("dir/out.txt"), "out\n");
        write(&bench.here.join("dir/gone.txt"), "gone\n");
        bench.commit_here("more");
        bench.here(&["sparse-checkout", "set", "--no-cone", "/*.txt"]);
        bench.prepare();
        write(&bench.path().join("changed"), "changed\n");
        let changed = bench.path().join("changed");
        let blob = bench.there(&["hash-object", "-w", changed.to_str().unwrap()]);
        bench.there(&["update-index", "--cacheinfo", &format!("100644,{blob},dir/out.txt")]);
        bench.there(&["update-index", "--force-remove", "dir/gone.txt"]);
        bench.there(&["commit", "-q", "-m", "out of sight"]);
        let new = bench.there(&["rev-parse", "HEAD"]);
        let report = bench.restore();
        assert!(report.held_back.is_empty(), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert_eq!(bench.here(&["ls-files", "-t", "dir"]), "S dir/out.txt");
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
    });
}

#[test]
fn what_is_only_intended_to_be_added_prevents_nothing() {
    with_each_git(|bench| {
        write(&bench.here.join("intended.txt"), "later\n");
        bench.here(&["add", "-N", "intended.txt"]);
        assert_eq!(bench.prepare(), Vec::<String>::new());
        bench.there(&["status"]);
    });
    // Git stores the empty blob for such an entry, and may do without.
    for stored in [true, false] {
        with_each_git(|bench| {
            bench.prepare();
            write(&bench.there.join("more.txt"), "later\n");
            bench.there(&["add", "-N", "more.txt"]);
            write(&bench.there.join("s.txt"), "s\n");
            bench.there(&["add", "s.txt"]);
            if !stored {
                fs::remove_dir_all(bench.there.join(".git/objects/e6")).unwrap();
            }
            let report = bench.restore();
            assert!(report.held_back.is_empty(), "{report:?}");
            let mut told: Vec<String> =
                bench.here(&["status", "--porcelain"]).lines().map(str::to_owned).collect();
            told.sort();
            assert_eq!(told.join("\n"), "?? more.txt\nA  s.txt");
            bench.assert_sound(&bench.here, &[]);
        });
    }
}

#[test]
fn an_empty_file_that_is_staged_comes_with_its_object() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("empty.txt"), "");
        bench.there(&["add", "empty.txt"]);
        bench.restore();
        assert_eq!(bench.here(&["status", "--porcelain"]), "A  empty.txt");
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn an_unmerged_index_and_a_folder_in_place_of_a_file_come_back_as_they_are() {
    with_each_git(|bench| {
        bench.prepare();
        let [one, two] = ["a.txt", "b.txt"].map(|name| bench.there(&["rev-parse", &format!("HEAD:{name}")]));
        let zero = "0".repeat(40);
        let info = format!(
            "0 {zero}\ta.txt\n100644 {one} 1\ta.txt\n100644 {two} 2\ta.txt\n0 {zero}\tb.txt\n100644 {one} 0\tb.txt/x\n"
        );
        write(&bench.path().join("info"), info);
        let there = bench.there.display().to_string();
        let given = format!("cd '{there}' && git update-index --index-info < ../info");
        bench.there(&["-c", &format!("alias.x=!{given}"), "x"]);
        let index = bench.there(&["ls-files", "--stage"]);
        assert!(index.contains(" 2\ta.txt") && index.contains("b.txt/x"), "{index}");
        let report = bench.restore();
        assert!(report.held_back.is_empty(), "{report:?}");
        assert_eq!(bench.here(&["ls-files", "--stage"]), index);
    });
}

#[test]
fn a_file_staged_locally_stays_if_it_is_a_folder_in_the_sandbox() {
    with_each_git(|bench| {
        bench.prepare();
        let blob = bench.here(&["rev-parse", "HEAD:a.txt"]);
        bench.here(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},x")]);
        bench.there(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},x/y.txt")]);
        bench.there(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},z.txt")]);
        bench.restore();
        let names = bench.here(&["ls-files"]);
        assert!(names.lines().any(|name| name == "x"), "{names}");
        bench.assert_sound(&bench.here, &[]);
    });
}

/// Even if the former commits were collected in the sandbox, its repository is the one that was sent.
#[test]
fn a_history_that_was_rewritten_as_a_whole_comes_back() {
    for way in ["amend", "root", "filter", "orphan"] {
        for is_collected in [false, true] {
            with_each_git(|bench| {
                bench.here(&["branch", "-q", "-D", "feature"]);
                bench.here(&["tag", "-d", "v1"]);
                bench.here(&["remote", "remove", "origin"]);
                if way == "amend" {
                    bench.here(&["checkout", "-q", "--orphan", "only"]);
                    bench.commit_here("the only one");
                    bench.here(&["branch", "-q", "-M", "only", "main"]);
                }
                let before = bench.here(&["rev-parse", "main"]);
                bench.prepare();
                write(&bench.there.join("n.txt"), "n\n");
                bench.there(&["add", "n.txt"]);
                match way {
                    "amend" => drop(bench.there(&["commit", "-q", "--amend", "-m", "amended"])),
                    "root" => {
                        bench.there(&["commit", "-q", "-m", "new"]);
                        let amend = "git commit -q --amend -m rebased";
                        bench.there(&["rebase", "-q", "--root", "--exec", amend]);
                    }
                    "filter" => {
                        bench.there(&["commit", "-q", "-m", "new"]);
                        let filter = "sed s/^/filtered:/";
                        bench.there(&["filter-branch", "-f", "--msg-filter", filter, "--", "main"]);
                        bench.there(&["update-ref", "-d", "refs/original/refs/heads/main"]);
                    }
                    _ => {
                        bench.there(&["checkout", "-q", "--orphan", "fresh"]);
                        bench.there(&["commit", "-q", "-m", "fresh"]);
                        bench.there(&["branch", "-q", "-M", "fresh", "main"]);
                    }
                }
                if is_collected {
                    bench.there(&["reflog", "expire", "--expire=now", "--all"]);
                    bench.there(&["gc", "-q", "--prune=now"]);
                    assert!(!bench.try_git(&bench.there, &["cat-file", "-e", &before]).0);
                }
                let theirs = bench.there(&["rev-parse", "main"]);
                let report = bench.restore();
                assert_eq!(bench.here(&["rev-parse", "main"]), theirs, "{way}: {report:?}");
                assert!(report.held_back.is_empty(), "{way}: {report:?}");
                assert_eq!(report.kept.len(), 1, "{way}: {report:?}");
                assert!(report.kept[0].kept_at.ends_with("/replaced/heads/main"), "{report:?}");
                assert_eq!(bench.here(&["rev-parse", &report.kept[0].kept_at]), before, "{way}");
                assert_eq!(bench.here(&["status", "--porcelain"]), "", "{way}");
                bench.assert_sound(&bench.here, &[&before, &theirs]);
                assert_eq!(bench.restore(), GitReport::default(), "{way}");
            });
        }
    }
}

#[test]
fn a_history_that_was_rewritten_there_does_not_replace_one_that_was_changed_here() {
    with_each_git(|bench| {
        bench.here(&["branch", "-q", "-D", "feature"]);
        bench.here(&["tag", "-d", "v1"]);
        bench.here(&["remote", "remove", "origin"]);
        bench.prepare();
        write(&bench.here.join("o.txt"), "o\n");
        let ours = bench.commit_here("ours");
        bench.there(&["checkout", "-q", "--orphan", "fresh"]);
        write(&bench.there.join("n.txt"), "n\n");
        let theirs = bench.commit_there("fresh");
        bench.there(&["branch", "-q", "-M", "fresh", "main"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/main"), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "main"]), ours);
        assert_eq!(report.kept.len(), 1, "{report:?}");
        assert!(report.kept[0].kept_at.ends_with("Z/heads/main"), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", &report.kept[0].kept_at]), theirs);
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "");
        bench.assert_sound(&bench.here, &[&ours, &theirs]);
    });
}

/// A name that leads to another branch belongs to this machine alone.
#[test]
fn a_symbolic_branch_stays_and_is_not_uploaded() {
    with_each_git(|bench| {
        bench.here(&["symbolic-ref", "refs/heads/alias", "refs/heads/feature"]);
        bench.prepare();
        assert!(!bench.there(&["for-each-ref"]).contains("alias"));
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.restore();
        assert_eq!(bench.here(&["symbolic-ref", "refs/heads/alias"]), "refs/heads/feature");
        bench.assert_sound(&bench.here, &[&new]);
    });
}

#[test]
fn a_symbolic_branch_does_not_lose_what_it_leads_to() {
    with_each_git(|bench| {
        let feature = bench.here(&["rev-parse", "feature"]);
        bench.here(&["symbolic-ref", "refs/heads/alias", "refs/heads/feature"]);
        bench.prepare();
        bench.there(&["branch", "-q", "-D", "feature"]);
        // A name that seems free there.
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.there(&["branch", "alias"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/feature") && holds(&report, "refs/heads/alias"), "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", "refs/heads/alias"]), "refs/heads/feature");
        assert_eq!(bench.here(&["rev-parse", "alias", "feature"]), format!("{feature}\n{feature}"));
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert!(bench.here(&["for-each-ref", "refs/paperclip"]).contains(&new));
        bench.assert_sound(&bench.here, &[&new]);
    });
}

/// Git does not list such a reference, and would write through it.
#[test]
fn a_symbolic_branch_that_leads_to_nothing_stays() {
    with_each_git(|bench| {
        bench.here(&["symbolic-ref", "refs/heads/alias", "refs/heads/absent"]);
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.there(&["branch", "alias"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/alias"), "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", "refs/heads/alias"]), "refs/heads/absent");
        assert!(!bench.try_git(&bench.here, &["rev-parse", "-q", "--verify", "refs/heads/absent"]).0);
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert!(bench.here(&["for-each-ref", "refs/paperclip"]).contains(&new));
    });
}

/// Has the agent commit a change, a new file and the deletion of a folder, and lose the index. Returns the commit.
fn commit_and_lose_index(bench: &mut Bench) -> String {
    write(&bench.here.join("d/gone.txt"), "gone\n");
    bench.commit_here("third");
    bench.prepare();
    fs::remove_dir_all(bench.there.join("d")).unwrap();
    write(&bench.there.join("n.txt"), "n\n");
    write(&bench.there.join("a.txt"), "changed\n");
    let new = bench.commit_there("new");
    fs::remove_file(bench.there.join(".git/index")).unwrap();
    new
}

/// Without the index, only the commits tell what the agent has changed in it.
#[test]
fn if_the_index_there_cannot_be_read_the_reverse_of_a_commit_is_not_staged() {
    for is_staged_here in [false, true] {
        for index in [Some(&b"DIRC\0\0\0\x02\0\0\0\x05garbage"[..]), Some(b""), None] {
            with_each_git(|bench| {
                let new = commit_and_lose_index(bench);
                if let Some(bytes) = index {
                    write(&bench.there.join(".git/index"), bytes);
                }
                if is_staged_here {
                    write(&bench.here.join("staged.txt"), "staged\n");
                    bench.here(&["add", "staged.txt"]);
                }
                let report = bench.restore();
                assert_eq!(holds(&report, "index"), index.is_some(), "{report:?}");
                assert_eq!(bench.here(&["rev-parse", "main"]), new);
                let staged = if is_staged_here { "A  staged.txt" } else { "" };
                assert_eq!(bench.here(&["status", "--porcelain"]), staged, "{report:?}");
                bench.assert_sound(&bench.here, &[&new]);
                // Once git there has made another one, nothing is staged again.
                if index.is_some() {
                    fs::remove_file(bench.there.join(".git/index")).unwrap();
                }
                bench.there(&["reset", "-q"]);
                bench.restore();
                assert_eq!(bench.here(&["status", "--porcelain"]), staged);
            });
        }
    }
}

/// After the revert, the index in the sandbox equals the one that was sent.
#[test]
fn what_came_without_its_index_is_shared_and_can_be_reverted() {
    with_each_git(|bench| {
        let new = commit_and_lose_index(bench);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        bench.there(&["reset", "-q"]);
        bench.there(&["revert", "--no-edit", "HEAD"]);
        let reverted = bench.there(&["rev-parse", "main"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), reverted);
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
    });
}

#[test]
fn a_repository_that_is_new_without_its_index_can_be_changed() {
    with_each_git(|bench| {
        bench.prepare();
        let nested = bench.there.join("nested");
        bench.new_repository(&nested);
        fs::remove_file(nested.join(".git/index")).unwrap();
        let here = bench.here.join("nested");
        for text in ["x\n", "y\n"] {
            write(&nested.join("x.txt"), text);
            if text == "y\n" {
                bench.commit(&nested, "changed");
            }
            let report = bench.restore();
            assert_eq!(bench.git(&here, &["status", "--porcelain"]), "", "{report:?}");
        }
    });
}

/// A file of zeros costs the sandbox next to nothing to send.
#[test]
fn a_large_file_that_compresses_well_is_not_read_into_memory() {
    with_each_git(|bench| {
        bench.prepare();
        let zeros = bench.path().join("zeros");
        fs::File::create(&zeros).unwrap().set_len(300_000_000).unwrap();
        let blob = bench.there(&["hash-object", "-w", zeros.to_str().unwrap()]);
        let entry = format!("100644,{blob},zeros");
        bench.there(&["update-index", "--add", "--cacheinfo", &entry]);
        bench.there(&["commit", "-q", "-m", "zeros"]);
        let new = bench.there(&["rev-parse", "main"]);
        let program = bench.program.clone();
        let limited = bench.path().join("git");
        // In units of 1024 bytes.
        let script = format!("#!/bin/sh\nulimit -v 200000\nexec {} \"$@\"\n", program.display());
        executable(&limited, &script);
        bench.program = limited;
        let report = bench.restore();
        bench.program = program;
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
        assert_eq!(bench.here(&["cat-file", "-s", "main:zeros"]), "300000000");
    });
}

#[test]
fn commits_of_a_submodule_come_back_after_absorbgitdirs() {
    with_each_git(|bench| {
        let remote = bench.root.path().join("remote.git");
        let remote = remote.to_str().unwrap();
        bench.here(&["submodule", "--quiet", "add", remote, "deep/sub"]);
        let outer = bench.here.join("deep/sub");
        bench.git(&outer, &["submodule", "--quiet", "add", remote, "inner"]);
        bench.commit(&outer, "a submodule of a submodule");
        bench.commit_here("submodule");
        assert_eq!(bench.prepare(), Vec::<String>::new());
        bench.there(&["submodule", "--quiet", "absorbgitdirs"]);
        assert!(bench.there.join("deep/sub/.git").is_file());
        assert!(bench.there.join("deep/sub/inner/.git").is_file());
        let folders = ["deep/sub/inner", "deep/sub"];
        for round in ["one", "two"] {
            let mut commits = Vec::new();
            for folder in folders {
                let there = bench.there.join(folder);
                write(&there.join("s.txt"), round);
                bench.git(&there, &["branch", round]);
                commits.push(bench.commit(&there, round));
            }
            let report = bench.restore();
            assert!(report.held_back.is_empty(), "{round}: {report:?}");
            for (folder, commit) in folders.iter().zip(&commits) {
                let here = bench.here.join(folder);
                assert_eq!(bench.git(&here, &["rev-parse", "HEAD"]), *commit, "{round}: {report:?}");
                bench.git(&here, &["rev-parse", round]);
                bench.assert_sound(&here, &[commit]);
            }
        }
        // It may lead nowhere else.
        for text in [
            "gitdir: ../../.git",
            "gitdir: ../../../outside",
            "gitdir: ../../.git/modules/../hooks",
            "gitdir: ../../.git/modules/absent",
        ] {
            write(&bench.there.join("deep/sub/.git"), text);
            let report = bench.restore();
            let mut held = report.held_back.iter().filter(|held| held.path == path("deep/sub/.git"));
            assert!(held.any(|held| held.reason.contains("leads git to another")), "{text}: {report:?}");
            assert!(!report.is_incomplete, "{text}: {report:?}");
            assert!(!bench.here.join(".paperclip-runtime").exists(), "{text}");
        }
    });
}

/// The new clone lacks branches of the repository that was sent, and they are not deleted for that.
#[test]
fn a_submodule_that_was_cloned_there_anew_is_held_back() {
    with_each_git(|bench| {
        let remote = bench.root.path().join("remote.git");
        bench.here(&["submodule", "--quiet", "add", remote.to_str().unwrap(), "sub"]);
        bench.commit_here("submodule");
        let sub = bench.here.join("sub");
        bench.git(&sub, &["checkout", "-q", "-b", "local"]);
        write(&sub.join("l.txt"), "l\n");
        let local = bench.commit(&sub, "local");
        bench.git(&sub, &["checkout", "-q", "main"]);
        let before = bench.git(&sub, &["for-each-ref"]);
        bench.prepare();
        fs::remove_dir_all(bench.there.join("sub")).unwrap();
        bench.there(&["submodule", "--quiet", "update", "--init"]);
        assert!(bench.there.join("sub/.git").is_file());
        let report = bench.restore();
        assert_eq!(bench.git(&sub, &["for-each-ref"]), before, "{report:?}");
        let mut held = report.held_back.iter().filter(|held| held.path == path("sub/.git"));
        assert!(held.any(|held| held.reason.contains("leads git to another")), "{report:?}");
        bench.assert_sound(&sub, &[&local]);
    });
}

/// Git checks the content of these files, which it does not if it takes them for large ones.
#[test]
fn files_that_git_checks_come_back_if_they_are_large() {
    for count in [1, 150] {
        with_each_git(|bench| {
            bench.prepare();
            write(&bench.there.join(".gitattributes"), "*.x -text\n".repeat(500_000));
            let module = "[submodule \"x\"]\n\tpath = x\n\turl = https://example.com/x\n";
            write(&bench.there.join(".gitmodules"), format!("{module}{}", "# comment\n".repeat(500_000)));
            for at in 0..count {
                write(&bench.there.join(format!("n{at}.txt")), format!("{at}\n"));
            }
            let new = bench.commit_there("large files");
            let report = bench.restore();
            assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
            bench.assert_sound(&bench.here, &[&new]);
        });
    }
    with_each_git(|bench| {
        bench.prepare();
        let module = "[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=x\n";
        write(&bench.there.join(".gitmodules"), format!("{module}{}", "# comment\n".repeat(500_000)));
        let new = bench.commit_there("a hidden option");
        let report = bench.restore();
        assert!(holds(&report, ".git"), "{report:?}");
        assert!(!bench.try_git(&bench.here, &["cat-file", "-e", &new]).0);
    });
}

#[test]
fn references_that_were_kept_and_settings_of_our_own_calls_are_not_uploaded() {
    with_each_git(|bench| {
        let tree = bench.here(&["rev-parse", "HEAD^{tree}"]);
        let kept = bench.here(&["commit-tree", &tree, "-m", "kept"]);
        bench.here(&["update-ref", "refs/paperclip/x/heads/main", &kept]);
        bench.prepare();
        assert!(!bench.there(&["for-each-ref"]).contains("paperclip"));
        assert!(!bench.try_git(&bench.there, &["cat-file", "-e", &kept]).0);
        bench.options.credentials = true;
        bench.prepare();
        let config = bench.there(&["config", "--local", "--list"]);
        assert!(!config.contains("credential"), "{config}");
    });
}

/// An example is a checkout whose pages are a submodule of itself.
#[test]
fn the_commit_of_a_submodule_is_not_uploaded_without_its_tree() {
    with_each_git(|bench| {
        write(&bench.here.join("gone.txt"), "gone\n");
        let commit = bench.commit_here("unreachable");
        bench.here(&["reset", "-q", "--hard", "HEAD~1"]);
        bench.here(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},pages")]);
        assert_eq!(bench.prepare(), Vec::<String>::new());
        assert!(!bench.try_git(&bench.there, &["cat-file", "-e", &commit]).0);
        bench.assert_sound(&bench.there, &[]);
    });
}

/// The index of the upload has nothing that only this machine has.
#[test]
fn an_index_in_parts_and_with_caches_is_uploaded_whole() {
    with_each_git(|bench| {
        write(&bench.here.join("dir/out/x.txt"), "x\n");
        bench.commit_here("more");
        bench.here(&["sparse-checkout", "set", "--cone", "--sparse-index", "none"]);
        assert!(bench.here(&["ls-files", "--sparse"]).ends_with("dir/"), "the index is sparse");
        assert_eq!(bench.prepare(), Vec::<String>::new());
        let index = fs::read(bench.there.join(".git/index")).unwrap();
        assert!(!index.windows(4).any(|window| window == b"sdir"));
        assert_eq!(bench.there(&["status", "--porcelain"]), "");
        bench.here(&["sparse-checkout", "disable"]);
        bench.here(&["update-index", "--untracked-cache"]);
        bench.here(&["status"]);
        bench.here(&["update-index", "--split-index"]);
        assert_eq!(bench.prepare(), Vec::<String>::new());
        assert_eq!(bench.there(&["status", "--porcelain"]), "");
        let index = fs::read(bench.there.join(".git/index")).unwrap();
        for part in [&b"link"[..], b"UNTR", b"FSMN"] {
            assert!(!index.windows(4).any(|window| window == part), "{}", String::from_utf8_lossy(part));
        }
        write(&bench.there.join("s.txt"), "s\n");
        bench.there(&["add", "s.txt"]);
        bench.restore();
        assert_eq!(bench.here(&["status", "--porcelain"]), "A  s.txt");
    });
}

#[test]
fn a_local_git_directory_that_is_a_link_is_not_followed() {
    with_each_git(|bench| {
        let elsewhere = bench.path().join("elsewhere");
        fs::rename(bench.here.join(".git"), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, bench.here.join(".git")).unwrap();
        let refused = bench.prepare();
        assert!(refused.iter().any(|reason| reason.contains("not followed")), "{refused:?}");
        assert!(!bench.there.join(".git").exists());
    });
}

/// A folder `n` whose `.git` is a file, how its way leads, and whether it is followed.
const WAYS: &[(&str, &str, bool)] = &[
    ("a plain way", "mkdir r; mv n.git r; echo 'gitdir: ../r/n.git' > n/.git", true),
    ("through a link", "mkdir r; mv n.git r; ln -s r l; echo 'gitdir: ../l/n.git' > n/.git", false),
    ("to a link", "mv n.git r.git; ln -s r.git l; printf 'gitdir: ../l' > n/.git", false),
    (
        "out through links that look as if they stayed",
        "mkdir -p d1/d2 ../rr; mv n.git ../rr; ln -s ../.. d1/d2/l; ln -s d1/d2/l/../rr l; echo 'gitdir: ../l/n.git' > n/.git",
        false,
    ),
    (
        "out, and back through a link",
        "mkdir ../rr; ln -s \"$PWD/b\" ../rr/in; ln -s . b; echo \"gitdir: $PWD/../rr/in/n.git\" > n/.git",
        false,
    ),
    ("a link outside", "mkdir ../rr; mv n.git ../rr; ln -s rr ../l; echo 'gitdir: ../../l/n.git' > n/.git", true),
    (
        "a link in a .git",
        "mkdir ../rr; mv n.git ../rr; ln -s ../../rr .git/modules; echo 'gitdir: ../.git/modules/n.git' > n/.git",
        true,
    ),
    (
        "a worktree",
        "rm -r n; git -C n.git worktree add -q --detach ../n; mv n.git ../r.git
         echo \"gitdir: $PWD/../r.git/worktrees/n\" > n/.git",
        true,
    ),
    (
        "a worktree whose shared directory is behind a link",
        "rm -r n; git -C n.git worktree add -q --detach ../n; mv n.git/worktrees/n ../gd; rm -r n.git/worktrees
         ln -s n.git l; echo \"$PWD/l\" > ../gd/commondir; echo 'gitdir: ../../gd' > n/.git",
        false,
    ),
    (
        "a shared directory without a link",
        "rm -r n; git -C n.git worktree add -q --detach ../n; mv n.git/worktrees/n ../gd; rm -r n.git/worktrees
         echo \"$PWD/n.git\" > ../gd/commondir; echo 'gitdir: ../../gd' > n/.git",
        true,
    ),
    (
        "a folder with a shared directory behind a link",
        "mv n.git c.git; ln -s c.git l; mkdir n/.git; cp c.git/HEAD n/.git; echo ../../l > n/.git/commondir",
        false,
    ),
];

/// The sandbox could lead it to another repository, which would then be uploaded and changed.
#[test]
fn a_git_directory_is_not_reached_through_a_link_of_the_workspace() {
    for (what, way, is_followed) in WAYS {
        with_each_git(|bench| {
            bench.new_repository(&bench.here.join("n"));
            bench.shell(&bench.here, &format!("set -e; mv n/.git n.git; {way}"));
            assert!(bench.try_git(&bench.here.join("n"), &["rev-parse", "HEAD"]).0, "{what}");
            let refused = bench.prepare();
            let expected: &[&str] = if *is_followed { &[] } else { &["not followed"] };
            assert_eq!(refused.len(), expected.len(), "{what}: {refused:?}");
            assert!(refused.iter().zip(expected).all(|(told, reason)| told.contains(reason)), "{refused:?}");
            assert_eq!(bench.there.join("n/.git").exists(), *is_followed, "{what}");
            // One that the sandbox makes there does not come, either.
            if !is_followed {
                bench.new_repository(&bench.there.join("n"));
                let head = bench.git(&bench.here.join("n"), &["rev-parse", "HEAD"]);
                let report = bench.restore();
                assert!(holds(&report, "n/.git"), "{what}: {report:?}");
                assert_eq!(bench.git(&bench.here.join("n"), &["rev-parse", "HEAD"]), head, "{what}");
            }
        });
    }
}

#[test]
fn a_repository_of_an_unknown_object_format_is_refused() {
    with_each_git(|bench| {
        let git = bench.program.clone();
        let program = bench.path().join("git");
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *--show-object-format*) printf 'sha3\\n.git\\n';; *) exec {} \"$@\";; esac\n",
            git.display()
        );
        executable(&program, &text);
        bench.program = program;
        let refused = bench.prepare();
        assert!(refused.iter().any(|reason| reason.contains("object format")), "{refused:?}");
    });
}

/// The path of the local objects is a line of a file that git reads.
#[test]
fn a_workspace_at_an_odd_path_is_transferred() {
    with_each_git(|bench| {
        let odd = bench.path().join("a \"quoted\"\nline # with \\ and \u{e4}");
        fs::rename(&bench.here, &odd).unwrap();
        bench.here = odd;
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        let report = bench.restore();
        assert!(report.held_back.is_empty(), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        bench.assert_sound(&bench.here, &[&new]);
    });
}

#[test]
fn a_local_replacement_of_a_commit_does_not_change_what_is_transferred() {
    with_each_git(|bench| {
        bench.here(&["commit", "-q", "--allow-empty", "-m", "third"]);
        bench.here(&["branch", "-D", "feature"]);
        bench.here(&["tag", "-d", "v1"]);
        bench.here(&["push", "-q", "origin", "main"]);
        bench.here(&["replace", "--graft", "main"]);
        assert_eq!(bench.here(&["rev-list", "--count", "main"]), "1");
        bench.options.depth = Some(2);
        bench.prepare();
        assert_eq!(bench.there(&["rev-list", "--count", "main"]), "2");
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert_eq!(bench.here(&["--no-replace-objects", "rev-list", "--count", "main"]), "4");
        bench.assert_sound(&bench.here, &[&new]);
    });
}

#[test]
fn sha256_repositories_are_transferred() {
    with_each_git(|bench| {
        bench.here = bench.root.path().canonicalize().unwrap().join("sha256");
        fs::create_dir(&bench.here).unwrap();
        bench.here(&["init", "-q", "-b", "main", "--object-format=sha256"]);
        write(&bench.here.join("x.txt"), "x\n");
        bench.commit_here("first");
        bench.prepare();
        write(&bench.there.join("y.txt"), "y\n");
        let new = bench.commit_there("second");
        assert_eq!(new.len(), 64);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        bench.assert_sound(&bench.here, &[&new]);
    });
}

/// Indexes that name more than their entries, and that a `git fsck` in the sandbox must not miss.
const INDEXES: [(&str, &str); 3] = [
    ("no entries, and the name of the tree of none", "git rm -rq --cached . && git write-tree"),
    ("no entries", "git read-tree --empty"),
    (
        "what a resolved conflict was between",
        "git config user.name n && git config user.email e && git checkout -q -b theirs &&
            echo 1 > c.txt && git add . && git commit -qm theirs && git checkout -q -b ours HEAD~1 &&
            echo 2 > c.txt && git add . && git commit -qm ours && ! git merge -q theirs > /dev/null &&
            echo 3 > c.txt && git add c.txt && git commit -qm merged && git branch -qD theirs && git reset -q --soft HEAD~1 &&
            git ls-files --resolve-undo | grep -q .",
    ),
];

#[test]
fn an_index_names_nothing_in_the_sandbox_that_was_not_sent() {
    for format in ["sha1", "sha256"] {
        for (what, script) in INDEXES {
            with_each_git(|bench| {
                bench.here = bench.root.path().canonicalize().unwrap().join("other");
                fs::create_dir(&bench.here).unwrap();
                bench.here(&["init", "-q", "-b", "main", &format!("--object-format={format}")]);
                write(&bench.here.join("x.txt"), "x\n");
                bench.commit_here("first");
                bench.shell(&bench.here, script);
                assert_eq!(bench.prepare(), [""; 0], "{what}");
                bench.assert_sound(&bench.there, &[]);
                bench.there(&["gc", "-q", "--prune=now"]);
                write(&bench.there.join("y.txt"), "y\n");
                let new = bench.commit_there("second");
                bench.restore();
                bench.assert_sound(&bench.here, &[&new]);
            });
        }
    }
}

#[test]
fn a_local_reftable_is_transferred_and_one_made_in_the_sandbox_is_refused() {
    with_each_git(|bench| {
        let folder = bench.root.path().canonicalize().unwrap().join("reftable");
        fs::create_dir(&folder).unwrap();
        if !bench.try_git(&folder, &["init", "-q", "-b", "main", "--ref-format=reftable"]).0 {
            // This git does not support reftables, and refuses one.
            write(&folder.join(".git/HEAD"), "ref: refs/heads/.invalid\n");
            bench.git(&folder, &["init", "-q", "-b", "main"]);
            bench.git(&folder, &["config", "core.repositoryformatversion", "1"]);
            bench.git(&folder, &["config", "extensions.refStorage", "reftable"]);
            bench.here = folder;
            assert_eq!(bench.prepare().len(), 1);
            return;
        }
        bench.here = folder;
        write(&bench.here.join("x.txt"), "x\n");
        bench.commit_here("first");
        bench.here(&["branch", "other"]);
        bench.prepare();
        write(&bench.there.join("y.txt"), "y\n");
        let new = bench.commit_there("second");
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        bench.assert_sound(&bench.here, &[&new]);
        if bench.try_git(&bench.there, &["refs", "migrate", "--ref-format=reftable"]).0 {
            let before = bench.here(&["for-each-ref"]);
            let report = bench.restore();
            assert!(report.held_back.iter().any(|held| held.reason.contains("reftable")), "{report:?}");
            assert_eq!(bench.here(&["for-each-ref"]), before);
            bench.assert_sound(&bench.here, &[&new]);
        }
    });
}

#[test]
fn large_files_and_sparse_checkouts_are_transferred() {
    with_each_git(|bench| {
        write(&bench.here.join("dir/out.txt"), "out\n");
        bench.commit_here("more");
        bench.here(&["sparse-checkout", "set", "--no-cone", "/*.txt"]);
        assert!(!bench.here.join("dir").exists());
        bench.prepare();
        assert_eq!(bench.there(&["status", "--porcelain"]), "");
        write(&bench.there.join("n.txt"), "n\n");
        let digest = "5f1afc6e3a1f3ac4d8ca3dbb8a1b2d5d9ffabc4a7a4ad9e4d9b2b1d8a1b2c3d4";
        let text = "large\n";
        let right = sha256(text);
        write(&bench.there.join(format!(".git/lfs/objects/{}/{}/{right}", &right[..2], &right[2..4])), text);
        write(
            &bench.there.join(format!(".git/lfs/objects/{}/{}/{digest}", &digest[..2], &digest[2..4])),
            "forged",
        );
        let new = bench.commit_there("new");
        let report = bench.restore();
        assert!(holds(&report, digest), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        let large = bench.here.join(format!(".git/lfs/objects/{}/{}/{right}", &right[..2], &right[2..4]));
        assert_eq!(fs::read_to_string(large).unwrap(), text);
        assert!(!bench.here.join(".git/lfs/objects").join(&digest[..2]).exists());
        bench.assert_sound(&bench.here, &[&new]);
    });
}

pub fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    sandbox_managed_runtime::tree::entry::Digest(sha2::Sha256::digest(text).into()).to_string()
}

#[test]
fn a_sandbox_without_git_leaves_the_local_repository_alone() {
    with_each_git(|bench| {
        let before = bench.here(&["for-each-ref"]);
        bench.prepare();
        fs::remove_dir_all(bench.there.join(".git")).unwrap();
        assert_eq!(bench.restore(), GitReport::default());
        assert_eq!(bench.here(&["for-each-ref"]), before);
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn without_local_git_what_came_is_backed_up() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        bench.without_git = true;
        let report = bench.restore();
        assert!(holds(&report, ".git"), "{report:?}");
        let kept = bench.here.join(".paperclip-runtime/conflicts/2026-11-28T12:00:01.000Z/git");
        assert!(kept.join(format!("objects/{}/{}", &new[..2], &new[2..])).exists());
        assert!(fs::read_to_string(kept.join("references.txt")).unwrap().contains(&new));
        // The next restore, with git again, takes it over.
        bench.without_git = false;
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
    });
}

/// Git deletes a reflog with its branch, and a commit that only the reflog names would be collected.
#[test]
fn the_reflog_of_a_deleted_branch_stays() {
    with_each_git(|bench| {
        bench.here(&["checkout", "-q", "-b", "side"]);
        write(&bench.here.join("s.txt"), "s\n");
        let lost = bench.commit_here("amended away");
        bench.here(&["reset", "-q", "--hard", "main"]);
        bench.here(&["checkout", "-q", "main"]);
        fs::remove_file(bench.here.join(".git/logs/HEAD")).unwrap();
        bench.prepare();
        bench.there(&["branch", "-D", "side"]);
        let report = bench.restore();
        let kept = &report.kept.iter().find(|kept| kept.reference == "refs/heads/side").unwrap().kept_at;
        assert!(bench.here(&["reflog", "show", "--format=%H", kept]).contains(&lost));
        bench.here(&["gc", "-q", "--prune=now"]);
        bench.here(&["cat-file", "-e", &lost]);
        bench.assert_sound(&bench.here, &[]);
    });
}

/// What git refused may be passing, so the restore does not count as complete: the next one downloads everything.
#[test]
fn a_repository_that_was_refused_is_tried_again() {
    type Do = fn(&Bench);
    let cases: &[(&str, Do, Do)] = &[
        (
            "a local packed-refs that git cannot read",
            |bench| write(&bench.here.join(".git/packed-refs"), "junk\n"),
            |bench| fs::remove_file(bench.here.join(".git/packed-refs")).unwrap(),
        ),
        (
            "a local repository that was moved away",
            |bench| fs::rename(bench.here.join(".git"), bench.path().join("moved")).unwrap(),
            |bench| fs::rename(bench.path().join("moved"), bench.here.join(".git")).unwrap(),
        ),
    ];
    for (what, obstruct, clear) in cases {
        with_each_git(|bench| {
            bench.prepare();
            write(&bench.there.join("n.txt"), "n\n");
            let new = bench.commit_there("new");
            obstruct(bench);
            let report = bench.restore();
            assert!(report.is_incomplete && holds(&report, ".git"), "{what}: {report:?}");
            clear(bench);
            let report = bench.restore();
            assert!(!report.is_incomplete, "{what}: {report:?}");
            assert_eq!(bench.here(&["rev-parse", "main"]), new, "{what}");
        });
    }
}

#[test]
fn a_repository_that_replaced_the_local_one_is_left_alone() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        bench.commit_there("new");
        fs::rename(bench.here.join(".git"), bench.root.path().join("moved")).unwrap();
        bench.here(&["init", "-q", "-b", "main"]);
        let report = bench.restore();
        assert!(
            report
                .held_back
                .iter()
                .any(|held| held.path == path(".git") && held.reason.contains("another one")),
            "{report:?}"
        );
        assert_eq!(bench.here(&["for-each-ref"]), "");
    });
}

/// The former name must be gone before git can make the new one.
#[test]
fn a_branch_that_was_renamed_to_a_name_below_its_own_is_renamed() {
    for (before, there, after) in [
        (&["a"][..], &[&["branch", "-m", "a", "a/b"][..]][..], &["a/b"][..]),
        (
            &["a/b", "a/c"],
            &[&["branch", "-D", "a/c"], &["branch", "-m", "a/b", "x"], &["branch", "-m", "x", "a"]],
            &["a"],
        ),
        (&["foo"], &[&["branch", "-m", "foo", "Foo"]], &["Foo"]),
    ] {
        with_each_git(|bench| {
            for name in before {
                bench.here(&["branch", name]);
            }
            bench.prepare();
            bench.there(&["checkout", "-q", before[0]]);
            write(&bench.there.join("n.txt"), "n\n");
            let new = bench.commit_there("new");
            bench.there(&["checkout", "-q", "main"]);
            for command in there {
                bench.there(command);
            }
            let report = bench.restore();
            for name in after {
                assert_eq!(bench.here(&["rev-parse", &format!("refs/heads/{name}")]), new, "{report:?}");
            }
            let branches = bench.here(&["branch", "--format=%(refname:short)"]);
            let branches: Vec<_> = branches.lines().collect();
            for name in before.iter().filter(|name| !after.contains(name)) {
                assert!(!branches.contains(name), "{name}: {branches:?}");
            }
            bench.assert_sound(&bench.here, &[&new]);
            let again = bench.restore();
            assert!(again.updated.is_empty() && again.held_back.is_empty(), "{again:?}");
        });
    }
}

/// The branch that is checked out here is deleted once `HEAD` has left it.
#[test]
fn a_branch_that_was_renamed_in_the_sandbox_is_renamed() {
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["branch", "-m", "renamed"]);
        let report = bench.restore();
        let branches = bench.here(&["branch", "--format=%(refname:short)"]);
        assert_eq!(branches, "feature\nrenamed", "{report:?}");
        assert_eq!(report.deleted, [(path(".git"), "refs/heads/main".to_owned())]);
        assert_eq!(report.kept.len(), 1, "its last value is kept: {report:?}");
        assert_eq!(report.held_back, []);
        bench.assert_sound(&bench.here, &[]);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        bench.prepare();
        assert_eq!(bench.restore(), GitReport::default());
    });
}

#[test]
fn a_branch_that_was_deleted_there_and_stays_here_is_reported() {
    with_each_git(|bench| {
        bench.here(&["branch", "other"]);
        bench.prepare();
        bench.there(&["update-ref", "-d", "refs/heads/main"]);
        bench.there(&["branch", "-D", "other"]);
        bench.here(&["checkout", "-q", "other"]);
        bench.here(&["commit", "-q", "--allow-empty", "-m", "local work"]);
        bench.here(&["checkout", "-q", "main"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/main") && holds(&report, "refs/heads/other"), "{report:?}");
        assert_eq!(bench.here(&["branch", "--format=%(refname:short)"]), "feature\nmain\nother");
        assert_eq!(report.deleted, []);
    });
}

/// Makes a repository in which another local worktree has the branch `elsewhere`, and in the sandbox a commit on `main` and then
/// a checkout of `elsewhere`. Returns the commit.
fn commit_and_leave(bench: &mut Bench) -> String {
    let worktree = bench.path().join("worktree");
    bench.here(&["worktree", "add", "-q", worktree.to_str().unwrap(), "-b", "elsewhere"]);
    bench.prepare();
    write(&bench.there.join("new.txt"), "new\n");
    write(&bench.there.join("a.txt"), "changed\n");
    let commit = bench.commit_there("the agent's");
    bench.there(&["checkout", "-q", "elsewhere"]);
    commit
}

/// The agent's commits must not look like a reverse that was staged.
#[test]
fn the_index_follows_a_branch_that_the_sandbox_moved_and_left() {
    with_each_git(|bench| {
        let commit = commit_and_leave(bench);
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), commit, "{report:?}");
        assert!(holds(&report, "HEAD"), "another worktree has that branch: {report:?}");
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
        bench.assert_sound(&bench.here, &[&commit]);
    });
}

#[test]
fn the_index_follows_it_later_if_it_was_locked() {
    with_each_git(|bench| {
        let before = bench.here(&["rev-parse", "HEAD"]);
        let commit = commit_and_leave(bench);
        write(&bench.here.join(".git/index.lock"), "");
        let report = bench.restore();
        // Until then the branch stays, since a local commit with the former index would revert the sandbox's.
        assert!(holds(&report, "refs/heads/main"), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), before, "{report:?}");
        fs::remove_file(bench.here.join(".git/index.lock")).unwrap();
        // Something else changes there, too.
        bench.there(&["branch", "another"]);
        bench.restore();
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), commit);
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "");
        bench.assert_sound(&bench.here, &[&commit]);
    });
}

#[test]
fn a_branch_is_renamed_later_if_head_was_locked() {
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["branch", "-m", "renamed"]);
        write(&bench.here.join(".git/HEAD.lock"), "");
        let report = bench.restore();
        assert!(holds(&report, "HEAD"), "{report:?}");
        fs::remove_file(bench.here.join(".git/HEAD.lock")).unwrap();
        let report = bench.restore();
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/renamed", "{report:?}");
        assert_eq!(bench.here(&["branch", "--format=%(refname:short)"]), "feature\nrenamed", "{report:?}");
        bench.assert_sound(&bench.here, &[]);
    });
}

/// Git fails to list the settings of a worktree that has none.
#[test]
fn a_repository_is_uploaded_if_only_other_worktrees_have_settings_of_their_own() {
    with_each_git(|bench| {
        for value in ["true", "false"] {
            bench.here(&["config", "extensions.worktreeConfig", value]);
            assert_eq!(bench.prepare(), Vec::<String>::new(), "{value}");
            assert_eq!(bench.there(&["config", "--get-all", "remote.origin.fetch"]).lines().count(), 1);
            let worktree = bench.path().join(format!("worktree-{value}"));
            bench.here(&["worktree", "add", "-q", worktree.to_str().unwrap(), "-b", value]);
            assert_eq!(bench.prepare(), Vec::<String>::new(), "{value}, with another worktree");
        }
    });
}

#[test]
fn settings_of_the_worktree_and_of_file_modes_are_uploaded() {
    with_each_git(|bench| {
        bench.here(&["config", "core.fileMode", "false"]);
        let mut permissions = fs::metadata(bench.here.join("a.txt")).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        fs::set_permissions(bench.here.join("a.txt"), permissions).unwrap();
        write(&bench.here.join("in/x.txt"), "x\n");
        write(&bench.here.join("out/y.txt"), "y\n");
        bench.here(&["add", "-A"]);
        bench.commit_here("folders");
        bench.here(&["sparse-checkout", "set", "in"]);
        write(&bench.here.join("out/y.txt"), "an edit outside of the cone\n");
        bench.prepare();
        assert_eq!(bench.there(&["config", "core.sparseCheckout"]), "true");
        assert_eq!(bench.there(&["status", "--porcelain"]), bench.here(&["status", "--porcelain"]));
        assert_eq!(bench.restore(), GitReport::default());
    });
}

/// Where one file is saved over another in the second in which that was staged, with the same size, only what an archive does
/// not keep tells the two apart.
#[test]
fn an_edit_of_the_second_of_a_commit_is_one_in_the_sandbox_too() {
    with_each_git(|bench| {
        let file = bench.here.join("version.txt");
        let time = SystemTime::now() - Duration::from_secs(100);
        let save = |text: &str| {
            write(&bench.here.join("new"), text);
            fs::File::options().write(true).open(bench.here.join("new")).unwrap().set_modified(time).unwrap();
            fs::rename(bench.here.join("new"), &file).unwrap();
        };
        save("1.2.3\n");
        bench.here(&["add", "version.txt"]);
        bench.commit_here("release");
        save("1.2.4\n");
        // The index is written later, and then is newer than the file.
        write(&bench.here.join("z.txt"), "z\n");
        bench.here(&["add", "z.txt"]);
        bench.prepare();
        let there = bench.there(&["status", "--porcelain", "version.txt"]);
        assert_eq!(there.trim(), "M version.txt");
    });
}

#[test]
fn an_entry_that_is_only_intended_to_be_added_there_stages_nothing_here() {
    with_each_git(|bench| {
        // With that blob, the entry looks like one of an empty file.
        write(&bench.here.join("empty.txt"), "");
        bench.here(&["add", "-A"]);
        bench.commit_here("an empty file");
        bench.prepare();
        write(&bench.there.join("intended.txt"), "content\n");
        write(&bench.there.join("really-empty.txt"), "");
        bench.there(&["add", "really-empty.txt"]);
        bench.there(&["add", "-N", "intended.txt"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "really-empty.txt", "{report:?}");
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn no_address_with_a_password_is_uploaded_as_the_name_of_a_remote() {
    with_each_git(|bench| {
        bench.here(&["config", "remote.https://user:secret@host/x.url", "https://host/x"]);
        bench.here(&["config", "branch.main.remote", "https://user:secret@host/x"]);
        bench.here(&["config", "remote.scp.url", "user:secret@host:x"]);
        bench.here(&["config", "remote.plain.url", "host:team@x/app.git"]);
        bench.prepare();
        let config = fs::read_to_string(bench.there.join(".git/config")).unwrap();
        assert!(!config.contains("secret"), "{config}");
        assert_eq!(bench.there(&["config", "branch.main.remote"]), "https://host/x");
        assert_eq!(bench.there(&["config", "remote.scp.url"]), "user@host:x");
        assert_eq!(bench.there(&["config", "remote.plain.url"]), "host:team@x/app.git");
    });
}

/// An index notes the trees of its folders. After `reset --soft`, no reference reaches them.
#[test]
fn the_sandbox_has_a_sound_repository_after_a_soft_reset_here() {
    with_each_git(|bench| {
        write(&bench.here.join("d/c.txt"), "c\n");
        bench.here(&["add", "-A"]);
        bench.commit_here("to be undone");
        bench.here(&["reset", "-q", "--soft", "HEAD~1"]);
        bench.prepare();
        bench.assert_sound(&bench.there, &[]);
        bench.there(&["gc", "-q", "--prune=now"]);
        assert_eq!(bench.there(&["diff", "--cached", "--name-only"]), "d/c.txt");
    });
}

/// Git stores most of a split index in a file of its own.
#[test]
fn what_is_staged_in_a_split_index_there_comes_back() {
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["update-index", "--split-index"]);
        write(&bench.there.join("staged.txt"), "staged\n");
        write(&bench.there.join("a.txt"), "changed\n");
        bench.there(&["add", "-A"]);
        let report = bench.restore();
        assert_eq!(report.held_back, []);
        assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "a.txt\nstaged.txt", "{report:?}");
        bench.assert_sound(&bench.here, &[]);
    });
}

/// What an operation of the agent has put aside when it began is in a commit that only a file of the operation names.
#[test]
fn what_an_operation_there_has_put_aside_is_kept() {
    with_each_git(|bench| {
        for (operation, kept_as) in [("rebase", "rebase-merge/autostash"), ("merge", "MERGE_AUTOSTASH")] {
            let mut bench = Bench::new(bench.program.clone());
            bench.here(&["checkout", "-q", "-b", "side", "main"]);
            write(&bench.here.join("a.txt"), "side\n");
            bench.commit_here("side");
            bench.here(&["checkout", "-q", "main"]);
            write(&bench.here.join("a.txt"), "main\n");
            bench.commit_here("main");
            bench.prepare();
            write(&bench.there.join("b.txt"), "put aside\n");
            let (done, said) = bench.try_git(&bench.there, &[operation, "--autostash", "side"]);
            assert!(!done, "{said}");
            let report = bench.restore();
            let kept = report.kept.iter().find(|kept| kept.reference == kept_as).unwrap();
            assert_eq!(bench.here(&["show", &format!("{}:b.txt", kept.kept_at)]), "put aside");
            let again = bench.restore();
            assert!(again.kept.is_empty(), "{again:?}");
            bench.assert_sound(&bench.here, &[]);
        }
    });
}

/// Its files and its index would not follow: the next commit would revert what the branch has here.
#[test]
fn head_does_not_follow_to_a_branch_that_has_more_commits_here() {
    with_each_git(|bench| {
        bench.here(&["branch", "-f", "feature", "main"]);
        bench.prepare();
        write(&bench.here.join("n.txt"), "n\n");
        bench.here(&["add", "n.txt"]);
        let tree = bench.here(&["write-tree"]);
        bench.here(&["rm", "-q", "-f", "n.txt"]);
        let ahead = bench.here(&["commit-tree", &tree, "-p", "main", "-m", "ahead"]);
        bench.here(&["update-ref", "refs/heads/feature", &ahead]);
        bench.there(&["checkout", "-q", "feature"]);
        let report = bench.restore();
        assert!(holds(&report, "HEAD"), "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main");
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        bench.assert_sound(&bench.here, &[&ahead]);
    });
}

#[test]
fn a_submodule_whose_folder_is_deleted_here_holds_up_nothing_else() {
    with_each_git(|bench| {
        let remote = bench.root.path().join("remote.git");
        for name in ["one", "two"] {
            bench.here(&["submodule", "--quiet", "add", remote.to_str().unwrap(), name]);
        }
        bench.commit_here("submodules");
        bench.prepare();
        fs::remove_dir_all(bench.here.join("one")).unwrap();
        write(&bench.there.join("two/t.txt"), "t\n");
        let two = bench.commit(&bench.there.join("two"), "in a submodule");
        write(&bench.there.join("one/o.txt"), "o\n");
        bench.commit(&bench.there.join("one"), "in the other");
        let outer = bench.commit_there("moves");
        let report = bench.restore();
        assert!(holds(&report, "one/.git"), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), outer, "{report:?}");
        assert_eq!(bench.git(&bench.here.join("two"), &["rev-parse", "HEAD"]), two, "{report:?}");
    });
}

#[test]
fn a_stash_without_a_message_comes_back() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("a.txt"), "stashed\n");
        bench.shell(&bench.there, "git update-ref --create-reflog refs/stash $(git stash create)");
        bench.there(&["checkout", "-q", "--", "."]);
        bench.there(&["config", "branch.main.remote", "origin"]);
        let report = bench.restore();
        assert!(report.held_back.is_empty(), "{report:?}");
        assert!(bench.here(&["show", "stash@{0}:a.txt"]).contains("stashed"));
        assert_eq!(bench.here(&["config", "branch.main.remote"]), "origin");
    });
}

#[test]
fn stashes_beyond_a_limit_come_with_the_next_restore() {
    with_each_git(|bench| {
        bench.prepare();
        bench.shell(
            &bench.there,
            "p=$(git rev-parse HEAD); t=$(git rev-parse HEAD^{tree}); i=0; : >input
             while [ $i -lt 520 ]; do i=$((i + 1)); printf 'commit refs/x/%s\nmark :%s\ncommitter T <t@t> %s +0000\ndata 1\ni\nfrom %s\n\n' $i $i $i $p; \
             printf 'commit refs/stash\nmark :%s\ncommitter T <t@t> %s +0000\ndata 1\nw\nfrom %s\nmerge :%s\n\n' $((i + 1000)) $i $p $i; done | \
             git fast-import --quiet --force --export-marks=marks
             rm -f input; mkdir -p .git/logs/refs; sed -n 's/^:1\\([0-9]\\{3\\}\\) //p' marks | sort | \
             while read c; do echo \"$p $c T <t@t> 1 +0000\tw\"; done >.git/logs/refs/stash
             rm marks; git for-each-ref --format='delete %(refname)' refs/x | git update-ref --stdin",
        );
        let count = |bench: &Bench, folder: &Path| {
            bench.git(folder, &["rev-list", "-g", "refs/stash"]).lines().count()
        };
        assert_eq!(count(bench, &bench.there), 520);
        let report = bench.restore();
        assert!(holds(&report, "refs/stash") && report.is_incomplete, "{report:?}");
        assert_eq!(count(bench, &bench.here), 500);
        bench.restore();
        assert_eq!(count(bench, &bench.here), 520);
    });
}

#[test]
fn a_lock_that_was_left_refuses_a_stash_or_a_setting_alone() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.here.join(".git/refs/stash.lock"), "");
        write(&bench.here.join(".git/config.lock"), "");
        write(&bench.there.join("a.txt"), "stashed\n");
        bench.there(&["stash", "--quiet"]);
        let stash = bench.there(&["rev-parse", "stash"]);
        bench.there(&["config", "branch.main.remote", "origin"]);
        bench.there(&["config", "branch.main.merge", "refs/heads/main"]);
        bench.there(&["checkout", "-q", "--detach"]);
        write(&bench.there.join("n.txt"), "n\n");
        let detached = bench.commit_there("detached");
        let report = bench.restore();
        for what in ["refs/stash", "branch.main.remote", "branch.main.merge"] {
            assert!(holds(&report, what), "{what}: {report:?}");
        }
        assert!(report.is_incomplete, "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "HEAD"]), detached, "{report:?}");
        fs::remove_file(bench.here.join(".git/refs/stash.lock")).unwrap();
        fs::remove_file(bench.here.join(".git/config.lock")).unwrap();
        bench.assert_sound(&bench.here, &[&stash, &detached]);
        bench.restore();
        assert_eq!(bench.here(&["config", "branch.main.merge"]), "refs/heads/main");
    });
}

#[test]
fn a_repository_made_anew_does_not_replace_one_without_branches() {
    for anew in [
        "git init -q -b main",
        "git init -q -b main; git add -A; git -c user.name=T -c user.email=t@t commit -q -m anew",
    ] {
        with_each_git(|bench| {
            bench.shell(
                &bench.here,
                "git checkout -q --detach; git tag one; for b in $(git for-each-ref --format='%(refname)' refs/heads); do git update-ref -d $b; done",
            );
            let (head, tags) = (bench.here(&["rev-parse", "HEAD"]), bench.here(&["tag"]));
            bench.prepare();
            bench.shell(&bench.there, &format!("rm -rf .git; {anew}"));
            let report = bench.restore();
            assert!(holds(&report, ".git"), "{report:?}");
            assert_eq!(bench.here(&["rev-parse", "HEAD"]), head, "{report:?}");
            assert_eq!(bench.here(&["tag"]), tags, "{report:?}");
            assert_eq!(bench.here(&["status", "--porcelain", "-uno"]), "");
        });
    }
}

#[test]
fn a_new_file_outside_of_the_local_sparse_checkout_is_not_shown_as_deleted() {
    with_each_git(|bench| {
        if !bench.try_git(&bench.here, &["sparse-checkout", "check-rules", "-h"]).1.contains("rules-file") {
            return;
        }
        bench.here(&["sparse-checkout", "set", "--cone", "in"]);
        bench.prepare();
        bench.shell(
            &bench.there,
            "mkdir -p out in; echo o >out/new; echo i >in/new; git add --sparse out in; git -c user.name=T -c user.email=t@t commit -q -m new
             git update-index --skip-worktree out/new; rm -r out",
        );
        let report = bench.restore();
        assert_eq!(bench.here(&["status", "--porcelain", "-uno"]), "", "{report:?}");
        assert!(bench.here(&["ls-files", "-t"]).contains("S out/new"), "{report:?}");
    });
}

#[test]
fn a_branch_that_is_shallow_there_keeps_no_other_back() {
    for at in ["try", "main"] {
        with_each_git(|bench| {
            let remote = bench.root.path().join("remote.git");
            let other = bench.root.path().join("other");
            fs::create_dir(&other).unwrap();
            bench.new_repository(&other);
            write(&other.join("o.txt"), "o\n");
            bench.commit(&other, "second");
            assert!(remote.exists());
            bench.prepare();
            write(&bench.there.join("n.txt"), "n\n");
            let theirs = bench.commit_there("theirs");
            let address = format!("file://{}", other.display());
            bench.there(&["fetch", "-q", "--depth=1", &address, "HEAD"]);
            bench.there(&["checkout", "-q", "-b", "try", "FETCH_HEAD"]);
            write(&bench.there.join("t.txt"), "t\n");
            let shallow = bench.commit_there("on a shallow one");
            bench.there(&["checkout", "-q", at]);
            let report = bench.restore();
            assert_eq!(bench.here(&["rev-parse", "main"]), theirs, "{report:?}");
            assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main", "{report:?}");
            assert_eq!(bench.here(&["diff", "--cached", "--name-only"]), "", "{report:?}");
            assert!(holds(&report, "refs/heads/try"), "{report:?}");
            bench.assert_sound(&bench.here, &[&theirs]);
            // What came of it is kept.
            let kept = report.held_back.iter().find(|held| held.reason.contains("what came is at")).unwrap();
            let at = bench.here.join(kept.reason.split("what came is at ").nth(1).unwrap());
            assert!(fs::read_to_string(at.join("references.txt")).unwrap().contains(&shallow), "{report:?}");
            let objects = bench.root.path().join("objects");
            fs::create_dir_all(objects.join("objects")).unwrap();
            bench.git(&objects, &["init", "-q", "--bare"]);
            bench.shell(&objects, &format!("cp -r '{}'/objects/. objects; for p in '{0}'/packs/*.pack; do [ ! -e \"$p\" ] || git unpack-objects -q <\"$p\"; done", at.display()));
            bench.git(&objects, &["cat-file", "-e", &shallow]);
        });
    }
}
