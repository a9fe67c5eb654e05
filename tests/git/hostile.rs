//! What the sandbox plants is held back: the local repository stays unchanged, and the report lists it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::git::command::Git;

use crate::bench::{Bench, executable, holds, path, with_each_git, write};

const RUN: &str = "touch \"$CANARY\"; cat";

/// Prepares, plants, restores, and asserts that nothing planted runs locally, that the settings are
/// unchanged, and that the report lists it.
fn planted(told: &str, plant: impl Fn(&Bench)) {
    with_each_git(|bench| {
        write(&bench.here.join(".gitattributes"), "*.txt filter=x diff=x\n");
        bench.commit_here("attributes");
        bench.prepare();
        let before = fs::read(bench.here.join(".git/config")).unwrap();
        plant(bench);
        write(&bench.there.join("new.txt"), "work\n");
        let report = bench.restore();
        assert!(holds(&report, told), "{told} is not held back: {:?}", report.held_back);
        assert_eq!(fs::read(bench.here.join(".git/config")).unwrap(), before, "{told}");
        assert_eq!(fs::read_to_string(bench.here.join("new.txt")).unwrap(), "work\n");
        let hooks = bench.here.join(".git/hooks");
        assert!(
            !hooks.exists()
                || fs::read_dir(hooks).unwrap().all(|hook| hook.unwrap().path().extension().is_some())
        );
        let outside = bench.outside();
        bench.use_here();
        assert_eq!(bench.outside(), outside, "{told}: something outside was written or redirected");
        bench.assert_sound(&bench.here, &[]);
        // Files that had existed before are not reported again.
        let again = bench.restore();
        assert!(again.updated.is_empty(), "{:?}", again.updated);
    });
}

/// Plants one setting, as [`planted`] does.
fn setting(key: &str, value: &str) {
    planted(&key.to_lowercase(), |bench| {
        executable(&bench.there.join("evil.sh"), &format!("#!/bin/sh\n{RUN}\n"));
        bench.git(&bench.there, &["config", "--file", ".git/config", "--add", key, value]);
    });
}

/// The control for all other tests: planted in the local repository itself, these do run.
#[test]
fn the_canary_sees_what_git_runs() {
    for key in [
        "core.fsmonitor",
        "core.hooksPath",
        "filter.x.clean",
        "filter.x.process",
        "diff.external",
        "diff.x.textconv",
        "diff.x.command",
    ] {
        with_each_git(|bench| {
            write(&bench.here.join(".gitattributes"), "*.txt filter=x diff=x\n");
            executable(&bench.here.join("hooks/pre-commit"), &format!("#!/bin/sh\n{RUN}\n"));
            executable(&bench.here.join("evil.sh"), &format!("#!/bin/sh\n{RUN}\n"));
            let value = if key == "core.hooksPath" { "hooks" } else { "./evil.sh" };
            bench.here(&["config", key, value]);
            let used = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.use_here()));
            assert!(used.is_err() && bench.canary.exists(), "{key} ran nothing");
        });
    }
}

#[test]
fn settings_that_run_something_stay() {
    for (key, value) in [
        ("core.fsmonitor", "./evil.sh"),
        ("core.hooksPath", "."),
        ("core.sshCommand", "./evil.sh"),
        ("core.gitProxy", "./evil.sh"),
        ("core.pager", "./evil.sh"),
        ("core.editor", "./evil.sh"),
        ("diff.external", "./evil.sh"),
        ("diff.x.textconv", "./evil.sh"),
        ("diff.x.command", "./evil.sh"),
        ("filter.x.clean", "./evil.sh"),
        ("filter.x.smudge", "./evil.sh"),
        ("filter.x.process", "./evil.sh"),
        ("merge.x.driver", "./evil.sh"),
        ("gpg.program", "./evil.sh"),
        ("credential.helper", "!./evil.sh"),
        ("alias.st", "!./evil.sh"),
    ] {
        setting(key, value);
    }
}

#[test]
fn settings_that_redirect_stay() {
    for (key, value) in [
        ("core.worktree", "../outside"),
        ("core.bare", "true"),
        ("core.attributesFile", "../evil"),
        ("include.path", "../evil.config"),
        ("includeIf.gitdir:/**.path", "../evil.config"),
        ("url.https://evil.example/.insteadOf", "https://github.com/"),
        ("remote.origin.url", "ext::sh -c ./evil.sh"),
        ("remote.origin.uploadpack", "./evil.sh"),
        ("remote.evil.url", "ext::sh -c ./evil.sh"),
        ("branch.main.remote", "ext::sh -c ./evil.sh"),
        ("extensions.worktreeConfig", "true"),
        ("submodule.x.update", "!./evil.sh"),
    ] {
        setting(key, value);
    }
}

#[test]
fn files_that_git_obeys_stay() {
    for (file, text) in [
        ("config.worktree", "[core]\n\tfsmonitor = ./evil.sh\n"),
        ("commondir", "../evil\n"),
        ("gitdir", "/tmp/x\n"),
        ("info/attributes", "* filter=evil\n"),
        ("info/grafts", "x\n"),
        ("info/exclude", "*\n"),
        ("info/sparse-checkout", "/*\n"),
        ("objects/info/alternates", "/tmp/evil\n"),
        ("objects/info/http-alternates", "http://evil\n"),
        ("branches/evil", "ext::sh -c touch% $CANARY\n"),
        ("modules/x/config", "[core]\n\tfsmonitor = ./evil.sh\n"),
        ("modules/x/hooks/post-checkout", "#!/bin/sh\ntouch $CANARY\n"),
        ("rebase-merge/git-rebase-todo", "exec touch $CANARY\n"),
        ("worktrees/x/HEAD", "ref: refs/heads/main\n"),
        ("index.lock", ""),
        ("refs/heads/main.lock", ""),
        ("refs/remotes/origin/main", "1111111111111111111111111111111111111111\n"),
        (
            "refs/replace/1111111111111111111111111111111111111111",
            "1111111111111111111111111111111111111111\n",
        ),
        ("refs/heads/link", "ref: refs/heads/main\n"),
        ("anything", "x"),
    ] {
        let told = if file.starts_with("modules") { "modules" } else { file.split("/git-").next().unwrap() };
        let told = if file.starts_with("worktrees") { "worktrees" } else { told };
        planted(told, |bench| {
            let path = bench.there.join(".git").join(file);
            if file.starts_with("info/") || !path.exists() {
                write(&path, text);
            }
        });
    }
}

#[test]
fn filters_do_not_run_by_attributes_of_the_repository() {
    planted("info/attributes", |bench| {
        executable(&bench.there.join("evil.sh"), &format!("#!/bin/sh\n{RUN}\n"));
        write(&bench.there.join(".git/info/attributes"), "* filter=evil diff=evil merge=evil\n");
        for key in ["filter.evil.clean", "filter.evil.smudge", "diff.evil.textconv", "merge.evil.driver"] {
            bench.git(&bench.there, &["config", "--file", ".git/config", key, "./evil.sh"]);
        }
    });
}

/// Before it writes the index, git compares a file that is newer than the index by its content, through the
/// filter.
#[test]
fn no_filter_runs_at_an_upload() {
    with_each_git(|bench| {
        write(&bench.here.join(".gitattributes"), "*.txt filter=x\n");
        bench.commit_here("attributes");
        // Git inherits nothing from this process, so the program must know the canary by itself.
        executable(
            &bench.path().join("evil"),
            &format!("#!/bin/sh\ntouch '{}'; cat\n", bench.canary.display()),
        );
        let file = fs::File::options().write(true).open(bench.here.join("a.txt")).unwrap();
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1_000_000)).unwrap();
        bench.here(&["update-index", "--refresh"]);
        bench.here(&["config", "filter.x.clean", bench.path().join("evil").to_str().unwrap()]);
        bench.prepare();
        assert!(!bench.canary.exists(), "an upload ran the filter");
    });
}

/// The user's own hooks and programs are for the user's own use of git.
#[test]
fn an_exchange_runs_nothing_that_the_local_repository_configures() {
    with_each_git(|bench| {
        // Before it writes the index, git compares a file that is newer than the index by its content.
        let file = fs::File::options().write(true).open(bench.here.join("b.txt")).unwrap();
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1_000_000)).unwrap();
        bench.here(&["update-index", "--refresh"]);
        let evil = bench.path().join("evil");
        executable(&evil, &format!("#!/bin/sh\necho \"$0 $*\" >> '{}'; cat\n", bench.canary.display()));
        for hook in
            ["reference-transaction", "post-index-change", "post-checkout", "post-rewrite", "pre-auto-gc"]
        {
            fs::create_dir_all(bench.here.join(".git/hooks")).unwrap();
            symlink(&evil, bench.here.join(".git/hooks").join(hook)).unwrap();
        }
        write(&bench.here.join(".git/info/attributes"), "*.txt filter=x diff=x merge=x\n");
        let evil = evil.to_str().unwrap();
        for key in [
            "core.fsmonitor",
            "core.sshCommand",
            "core.alternateRefsCommand",
            "core.pager",
            "core.editor",
            "diff.external",
            "diff.x.textconv",
            "filter.x.clean",
            "filter.x.smudge",
            "filter.x.process",
            "gpg.program",
            "credential.helper",
        ] {
            bench.here(&["config", key, &format!("{evil} {key}")]);
        }
        // The user's own git does run them.
        bench.here(&["status"]);
        fs::remove_file(&bench.canary).unwrap();
        bench.here(&["config", "--file", ".git/config", "filter.x.required", "true"]);
        let ran = |bench: &Bench| fs::read_to_string(&bench.canary).unwrap_or_default();
        bench.prepare();
        assert_eq!(ran(bench), "", "a prepare ran it");
        write(&bench.there.join("n.txt"), "n\n");
        bench.commit_there("new");
        bench.there(&["checkout", "-q", "-b", "topic"]);
        bench.there(&["branch", "-q", "-D", "feature"]);
        write(&bench.there.join("a.txt"), "stashed\n");
        bench.there(&["stash"]);
        write(&bench.there.join("s.txt"), "s\n");
        bench.there(&["add", "s.txt"]);
        bench.there(&["remote", "add", "fork", "https://example.com/fork.git"]);
        let report = bench.restore();
        assert_eq!(ran(bench), "", "a restore ran it");
        assert!(report.held_back.is_empty() && report.updated.len() > 5, "{report:?}");
    });
}

const INHERITS: &str = "GIT_CHILD_INHERITS";

/// Runs git in a process whose environment git would obey. Does nothing unless
/// [`git_inherits_no_environment`] starts it.
#[test]
fn git_runs_in_a_process_with_a_hostile_environment() {
    let Some(git_dir) = std::env::var_os(INHERITS).map(PathBuf::from) else { return };
    let (git, cancel) = (Git::find(Path::new("/nonexistent")).unwrap(), Cancel::default());
    git.call(&git_dir).args(["rev-parse", "HEAD"]).run(&cancel).unwrap();
    git.configuration(&git_dir).run(&cancel).unwrap();
}

#[test]
fn git_inherits_no_environment() {
    with_each_git(|bench| {
        let traced = bench.path().join("traced");
        let git_dir = bench.here.join(".git");
        let run = |inherited: &[(&str, &Path)]| {
            let mut other = Command::new(std::env::current_exe().unwrap());
            other.args(["--exact", "hostile::git_runs_in_a_process_with_a_hostile_environment"]);
            let output = other.env(INHERITS, &git_dir).envs(inherited.iter().copied()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            traced.exists()
        };
        let absent = bench.path().join("absent");
        assert!(!run(&[("GIT_TRACE", &traced), ("GIT_OBJECT_DIRECTORY", &absent), ("GIT_DIR", &absent)]));
    });
}

/// Git runs the `clean` of a filter, once for each file, only if the filter has no `process`.
#[test]
fn a_restore_runs_no_clean_filter() {
    with_each_git(|bench| {
        let file = fs::File::options().write(true).open(bench.here.join("b.txt")).unwrap();
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1_000_000)).unwrap();
        bench.here(&["update-index", "--refresh"]);
        write(&bench.here.join(".git/info/attributes"), "*.txt filter=x\n");
        let evil = bench.path().join("evil");
        executable(&evil, &format!("#!/bin/sh\ntouch '{}'; cat\n", bench.canary.display()));
        bench.here(&["config", "filter.x.clean", evil.to_str().unwrap()]);
        bench.prepare();
        write(&bench.there.join("s.txt"), "s\n");
        bench.there(&["add", "s.txt"]);
        let report = bench.restore();
        assert!(!bench.canary.exists(), "the restore ran it");
        assert!(report.updated.iter().any(|(_, name)| name == "index"), "{report:?}");
    });
}

/// If the user shows signatures with each log, listing the stash would verify that of a signed entry.
#[test]
fn no_program_verifies_a_signature() {
    with_each_git(|bench| {
        let evil = bench.path().join("evil");
        executable(&evil, &format!("#!/bin/sh\ntouch '{}'\n", bench.canary.display()));
        let commit = bench.here(&["cat-file", "commit", "HEAD"]);
        let signature =
            "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n c2lnbmF0dXJl\n -----END PGP SIGNATURE-----\n\n";
        write(&bench.path().join("signed"), commit.replacen("\n\n", signature, 1));
        let file = bench.path().join("signed");
        let signed = bench.here(&["hash-object", "-w", "-t", "commit", file.to_str().unwrap()]);
        bench.here(&["update-ref", "--create-reflog", "-m", "signed", "refs/stash", &signed]);
        bench.here(&["config", "gpg.program", evil.to_str().unwrap()]);
        bench.here(&["config", "log.showSignature", "true"]);
        bench.here(&["stash", "list"]);
        assert!(bench.canary.exists(), "the user's own git runs it");
        fs::remove_file(&bench.canary).unwrap();
        assert_eq!(bench.prepare(), Vec::<String>::new());
        assert!(!bench.canary.exists(), "an upload ran it");
    });
}

#[test]
fn no_branch_is_checked_out_whose_name_is_not_accepted() {
    for branch in ["HEAD", "-f", "main/below", "MAIN", "v1", "origin/main", "origin"] {
        planted("HEAD", |bench| {
            bench.here(&["fetch", "-q", "origin"]);
            write(&bench.there.join(".git/HEAD"), format!("ref: refs/heads/{branch}\n"));
        });
    }
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["symbolic-ref", "HEAD", "refs/heads/fresh-start"]);
        bench.restore();
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/fresh-start");
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn the_cost_of_many_new_names_is_not_quadratic() {
    for is_made_anew in [false, true] {
        with_each_git(|bench| {
            bench.prepare();
            // Nothing that was sent is in the sandbox any more, and every local name is new.
            let tree = bench.there(&["rev-parse", "HEAD^{tree}"]);
            let commit = bench.there(&["commit-tree", &tree, "-m", "unrelated"]);
            let mut names = "# pack-refs with: sorted \n".to_owned();
            for at in 0..20_000 {
                writeln!(names, "{commit} refs/heads/n/{at}").unwrap();
            }
            write(&bench.there.join(".git/packed-refs"), names);
            write(&bench.there.join(".git/HEAD"), "ref: refs/heads/n/0\n");
            if is_made_anew {
                bench.there(&["config", "--unset", "core.checkStat"]);
            }
            let report = bench.restore();
            let is_refused = report.held_back.iter().any(|held| held.reason.contains("another repository"));
            assert_eq!(is_refused, is_made_anew, "{:?}", report.held_back);
            let come = bench.here(&["for-each-ref", "--format=x", "refs/heads/n"]).lines().count();
            assert_eq!(come, if is_made_anew { 0 } else { 20_000 });
            bench.assert_sound(&bench.here, &[]);
        });
    }
}

#[test]
fn hooks_of_every_name_stay() {
    for hook in [
        "pre-commit",
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "commit-msg",
        "fsmonitor-watchman",
        "new-one",
    ] {
        planted(&format!(".git/hooks/{hook}"), |bench| {
            executable(&bench.there.join(".git/hooks").join(hook), "#!/bin/sh\ntouch \"$CANARY\"\n");
        });
    }
}

#[test]
fn another_kind_of_dot_git_stays_out() {
    planted(".git", |bench| {
        fs::rename(bench.there.join(".git"), bench.there.join("elsewhere")).unwrap();
        write(&bench.there.join(".git"), "gitdir: elsewhere\n");
    });
    planted(".git", |bench| {
        fs::rename(bench.there.join(".git"), bench.there.join("elsewhere")).unwrap();
        symlink("elsewhere", bench.there.join(".git")).unwrap();
    });
    planted(".git", |bench| {
        fs::remove_dir_all(bench.there.join(".git")).unwrap();
        bench.there(&["init", "-q", "-b", "main"]);
        bench.commit_there("of another repository");
        bench.there(&["config", "core.fsmonitor", "touch $CANARY"]);
    });
}

#[test]
fn other_spellings_and_bare_folders_stay_out() {
    for name in [".GIT", ".Git", "git~1", ".git ", ".g\u{200c}it"] {
        planted(name, |bench| {
            write(
                &bench.there.join("deep").join(name).join("config"),
                "[core]\n\tfsmonitor = touch $CANARY\n",
            );
        });
    }
    // A whole repository of that name is not made here either.
    with_each_git(|bench| {
        bench.prepare();
        let nested = bench.there.join("nested");
        bench.new_repository(&nested);
        fs::rename(nested.join(".git"), nested.join(".GIT")).unwrap();
        let report = bench.restore();
        assert!(holds(&report, "nested/.GIT"), "{report:?}");
        assert!(bench.here.join("nested/x.txt").exists() && !bench.here.join("nested/.GIT").exists());
    });
    with_each_git(|bench| {
        bench.prepare();
        bench.git(&bench.there, &["init", "-q", "--bare", "folder"]);
        bench.git(&bench.there, &["config", "--file", "folder/config", "core.fsmonitor", "touch $CANARY"]);
        // Git only requires that `objects` and `refs` can be executed.
        write(&bench.there.join("files/HEAD"), "ref: refs/heads/main\n");
        executable(&bench.there.join("files/objects"), "");
        executable(&bench.there.join("files/refs"), "");
        write(
            &bench.there.join("files/config"),
            "[core]\n\tbare = false\n\tworktree = .\n\tfsmonitor = touch $CANARY\n",
        );
        let report = bench.restore();
        for folder in ["folder", "files"] {
            assert!(holds(&report, folder), "{report:?}");
            assert!(!bench.here.join(folder).exists());
        }
    });
}

#[test]
fn a_new_nested_repository_comes_without_what_runs() {
    with_each_git(|bench| {
        bench.prepare();
        let nested = bench.there.join("tools/nested");
        let commit = bench.new_repository(&nested);
        write(&nested.join("staged.txt"), "x\n");
        bench.git(&nested, &["add", "staged.txt"]);
        bench.git(&nested, &["config", "core.fsmonitor", "touch $CANARY; false"]);
        bench.git(&nested, &["config", "core.sshCommand", "touch $CANARY"]);
        bench.git(&nested, &["config", "remote.up.url", "https://example.com/x.git"]);
        executable(&nested.join(".git/hooks/pre-commit"), "#!/bin/sh\ntouch \"$CANARY\"\n");
        let report = bench.restore();
        for told in ["core.fsmonitor", "core.sshcommand", "hooks/pre-commit"] {
            assert!(holds(&report, told), "{told}: {report:?}");
        }
        let here = bench.here.join("tools/nested");
        assert_eq!(bench.git(&here, &["rev-parse", "HEAD"]), commit);
        assert_eq!(bench.git(&here, &["status", "--porcelain"]), "A  staged.txt");
        assert_eq!(bench.git(&here, &["config", "remote.up.url"]), "https://example.com/x.git");
        bench.assert_sound(&here, &[&commit]);
        // From the top folder, and from inside.
        bench.here(&["status"]);
        bench.use_folder(&here);
        // What the agent does later in that repository comes back as well.
        write(&bench.there.join("tools/nested/y.txt"), "y\n");
        let second = bench.commit(&bench.there.join("tools/nested"), "later");
        bench.restore();
        bench.assert_sound(&here, &[&second]);
    });
}

#[test]
fn forged_references_stay() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        for name in [
            "refs/remotes/origin/main",
            "refs/notes/commits",
            "refs/paperclip/x",
            "refs/tags/main",
            "refs/tags/v1",
            "refs/heads/Main",
            "refs/heads/v1",
            "refs/heads/origin/main",
            "refs/tags/origin",
        ] {
            bench.there(&["update-ref", name, &new]);
        }
        bench.there(&[
            "update-ref",
            &format!("refs/replace/{}", bench.there(&["rev-parse", "main~1"])),
            &new,
        ]);
        let before = bench.here(&["for-each-ref", "refs/remotes", "refs/tags", "refs/notes"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["for-each-ref", "refs/remotes", "refs/tags", "refs/notes"]), before);
        for told in [
            "refs/remotes/origin/main",
            "refs/notes/commits",
            "refs/paperclip/x",
            "refs/tags/main",
            "refs/tags/v1",
            "refs/heads/Main",
            "refs/heads/v1",
            "refs/heads/origin/main",
            "refs/tags/origin",
            "refs/replace/",
        ] {
            assert!(holds(&report, told), "{told}: {report:?}");
        }
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "the branch itself comes back");
        assert_eq!(bench.here(&["for-each-ref", "refs/replace"]), "");
        bench.assert_sound(&bench.here, &[&new]);
        bench.use_here();
    });
}

#[test]
fn flags_of_the_index_stay_out() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("new.txt"), "new\n");
        bench.there(&["add", "new.txt"]);
        bench.there(&["update-index", "--skip-worktree", "a.txt", "new.txt"]);
        bench.there(&["update-index", "--assume-unchanged", "b.txt"]);
        bench.restore();
        let list = bench.here(&["ls-files", "-v"]);
        assert_eq!(list, "H a.txt\nH b.txt\nH new.txt");
        write(&bench.here.join("a.txt"), "edited\n");
        assert!(bench.here(&["status", "--porcelain"]).contains(" M a.txt"));
    });
}

#[test]
fn objects_overwritten_in_the_sandbox_change_nothing_locally() {
    with_each_git(|bench| {
        bench.here(&["commit", "-q", "--allow-empty", "-m", "third"]);
        bench.prepare();
        let blob = bench.there(&["rev-parse", "HEAD:a.txt"]);
        // The pack that was sent is replaced by garbage, and a known object by another one under its name.
        let other = bench.git(&bench.here, &["hash-object", "-w", "b.txt"]);
        let loose = |oid: &str| format!(".git/objects/{}/{}", &oid[..2], &oid[2..]);
        let from = bench.here.join(loose(&other));
        write(&bench.there.join(loose(&blob)), fs::read(from).unwrap());
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        for pack in fs::read_dir(bench.there.join(".git/objects/pack")).unwrap() {
            fs::write(pack.unwrap().path(), "rubbish").unwrap_or_default();
        }
        bench.restore();
        assert_eq!(bench.here(&["cat-file", "-p", &blob]), "one");
        assert_eq!(bench.here(&["rev-parse", "main"]), new);
        bench.assert_sound(&bench.here, &[&new]);
    });
}

#[test]
fn new_objects_that_fsck_refuses_are_refused() {
    with_each_git(|bench| {
        bench.prepare();
        let before = bench.here(&["rev-parse", "main"]);
        // A tree that would write into .git, made by hand because git refuses to.
        let blob = bench.there(&["hash-object", "-w", "a.txt"]);
        let raw: Vec<u8> =
            (0..20).map(|at| u8::from_str_radix(&blob[at * 2..at * 2 + 2], 16).unwrap()).collect();
        write(&bench.there.join("raw"), [b"100644 config\0".to_vec(), raw].concat());
        let inner = bench.there(&["hash-object", "-w", "-t", "tree", "--literally", "raw"]);
        let raw: Vec<u8> =
            (0..20).map(|at| u8::from_str_radix(&inner[at * 2..at * 2 + 2], 16).unwrap()).collect();
        write(&bench.there.join("raw"), [b"40000 .GIT\0".to_vec(), raw].concat());
        let tree = bench.there(&["hash-object", "-w", "-t", "tree", "--literally", "raw"]);
        let commit = bench.there(&["commit-tree", &tree, "-p", "main", "-m", "evil"]);
        bench.there(&["update-ref", "refs/heads/main", &commit]);
        write(&bench.there.join("work.txt"), "work\n");
        let report = bench.restore();
        assert!(
            report.held_back.iter().any(|held| held.reason.contains("do not pass git fsck")),
            "{report:?}"
        );
        assert_eq!(bench.here(&["rev-parse", "main"]), before);
        assert!(bench.here.join("work.txt").exists(), "the files come back all the same");
        assert!(!bench.try_git(&bench.here, &["cat-file", "-e", &commit]).0, "nothing of it was added");
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn a_history_with_missing_objects_is_refused() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        let blob = bench.there(&["rev-parse", "HEAD:n.txt"]);
        fs::remove_file(bench.there.join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).unwrap();
        let report = bench.restore();
        assert!(report.held_back.iter().any(|held| held.reason.contains("missing")), "{report:?}");
        assert_ne!(bench.here(&["rev-parse", "main"]), new);
        bench.assert_sound(&bench.here, &[]);
    });
}

/// Git would write it from the commit or the index, as `git stash` does, and obey its configuration there.
#[test]
fn a_commit_that_has_a_bare_repository_is_held_back() {
    type Do = fn(&Bench);
    let commit: Do = |bench| {
        bench.there(&["add", "-A", "-f"]);
        bench.there(&["commit", "-q", "-m", "planted"]);
    };
    let cases: &[(&str, Do, Do)] = &[
        ("refs/heads/main", |_| (), commit),
        ("refs/heads/side", |bench| drop(bench.there(&["checkout", "-q", "-b", "side"])), commit),
        ("HEAD", |bench| drop(bench.there(&["checkout", "-q", "--detach"])), commit),
        (
            "refs/tags/planted",
            |bench| drop(bench.there(&["checkout", "-q", "--detach"])),
            |bench| {
                bench.there(&["add", "-A", "-f"]);
                bench.there(&["commit", "-q", "-m", "planted"]);
                bench.there(&["tag", "planted"]);
                bench.there(&["checkout", "-q", "main"]);
            },
        ),
        ("index", |_| (), |bench| drop(bench.there(&["add", "-A", "-f"]))),
    ];
    for (told, before, after) in cases {
        with_each_git(|bench| {
            bench.prepare();
            before(bench);
            let planted = bench.there.join("ev");
            write(&planted.join("HEAD"), "ref: refs/heads/main\n");
            write(
                &planted.join("config"),
                "[core]\n\tfsmonitor = touch $CANARY\n\tbare = false\n\tworktree = .\n",
            );
            write(&planted.join("objects/x"), "");
            write(&planted.join("refs/heads/x"), "");
            write(&bench.there.join("new.txt"), "work\n");
            after(bench);
            let report = bench.restore();
            assert!(holds(&report, told), "{told}: {report:?}");
            let is_checked_out = bench.there.join("new.txt").exists();
            assert_eq!(bench.here.join("new.txt").exists(), is_checked_out, "{told}");
            let refs = bench.here(&["for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags"]);
            for name in refs.lines().chain(["HEAD"]) {
                assert!(
                    !bench.here(&["ls-tree", "-r", "--name-only", name]).contains("ev/"),
                    "{told}: {name}"
                );
            }
            assert!(!bench.here(&["ls-files"]).contains("ev/"), "{told}");
            let kept = bench.here(&["for-each-ref", "--format=%(subject)", "refs/paperclip"]);
            assert_eq!(kept.contains("planted"), *told != "index", "{told}: {kept}");
            bench.use_here();
            bench.assert_sound(&bench.here, &[]);
        });
    }
}

/// A program that tells that it ran, as a configuration.
const PLANTED: &str = "[core]\n\tfsmonitor = touch $CANARY\n\tbare = false\n\tworktree = .\n";

fn plant(bench: &Bench) {
    write(&bench.there.join("ev/HEAD"), "ref: refs/heads/main\n");
    write(&bench.there.join("ev/config"), PLANTED);
}

/// Makes a tree of a billion files in the sandbox: each tree has the one before it ten times.
fn bomb(bench: &Bench) -> String {
    let list = bench.path().join("tree.txt");
    let make = |tree: &str| {
        write(&list, tree);
        let made = bench.shell(&bench.there, "git mktree -z < ../tree.txt");
        fs::remove_file(&list).unwrap();
        made
    };
    let blob = bench.there(&["rev-parse", "HEAD:a.txt"]);
    let mut tree = make(&format!("100644 blob {blob}\tf\0"));
    for _ in 0..9 {
        let entries: Vec<String> = (0..10).map(|name| format!("040000 tree {tree}\t{name}\0")).collect();
        tree = make(&entries.concat());
    }
    tree
}

/// Something that a side does.
type Do = fn(&Bench);

/// Has a bare repository as a fixture of a test.
fn fixture(bench: &Bench) {
    for (name, text) in [
        ("HEAD", "ref: refs/heads/main\n"),
        ("config", "[core]\n\tbare = true\n"),
        ("objects/x", ""),
        ("refs/x", ""),
    ] {
        write(&bench.here.join("ev").join(name), text);
    }
    bench.here(&["add", "-A", "-f"]);
    bench.commit_here("fixture");
}

/// What the local side has and the agent does, and what of it is held back.
const PLANTED_IN_GIT: &[(&str, &str, Do, Do)] = &[
    ("no objects and refs", "refs/heads/main", nothing, |bench| {
        plant(bench);
        bench.commit_there("planted");
    }),
    ("on another branch", "refs/heads/side", nothing, |bench| {
        bench.there(&["checkout", "-q", "-b", "side"]);
        plant(bench);
        bench.commit_there("planted");
        bench.there(&["checkout", "-q", "main"]);
    }),
    ("in an earlier commit", "refs/heads/main", nothing, |bench| {
        plant(bench);
        bench.commit_there("planted");
        bench.there(&["rm", "-q", "-r", "ev"]);
        bench.there(&["commit", "-q", "-m", "removed"]);
    }),
    ("in a merge alone", "refs/heads/main", nothing, |bench| {
        bench.there(&["checkout", "-q", "-b", "side"]);
        write(&bench.there.join("s.txt"), "s\n");
        bench.commit_there("side");
        bench.there(&["checkout", "-q", "main"]);
        bench.there(&["merge", "-q", "--no-ff", "--no-commit", "side"]);
        plant(bench);
        bench.commit_there("planted");
    }),
    ("in the stash", "refs/stash", nothing, |bench| {
        plant(bench);
        bench.there(&["stash", "-u"]);
    }),
    ("in a tag of a tree", "refs/tags/tree", nothing, |bench| {
        plant(bench);
        bench.there(&["add", "-A"]);
        let tree = bench.there(&["write-tree"]);
        bench.there(&["reset", "-q"]);
        bench.there(&["tag", "-a", "-m", "tree", "tree", &tree]);
    }),
    ("a link", "refs/heads/main", nothing, |bench| {
        plant(bench);
        fs::remove_file(bench.there.join("ev/HEAD")).unwrap();
        symlink("refs/heads/main", bench.there.join("ev/HEAD")).unwrap();
        bench.commit_there("planted");
    }),
    ("in another encoding", "refs/heads/main", nothing, |bench| {
        plant(bench);
        write(&bench.there.join(".gitattributes"), "HEAD working-tree-encoding=IBM037\n");
        bench.there(&["add", "-A"]);
        bench.there(&["commit", "-q", "-m", "planted"]);
        let blob = bench.there(&["cat-file", "blob", "HEAD:ev/HEAD"]);
        assert!(!blob.starts_with("ref:"), "{blob}");
    }),
    ("in another encoding, without a character beyond ASCII", "refs/heads/main", nothing, |bench| {
        plant(bench);
        write(&bench.there.join(".gitattributes"), "HEAD working-tree-encoding=IBM037\n");
        write(&bench.there.join("ev/HEAD"), "2".repeat(40));
        bench.there(&["add", "-A"]);
        bench.there(&["commit", "-q", "-m", "planted"]);
        assert!(bench.there(&["cat-file", "blob", "HEAD:ev/HEAD"]).bytes().all(|byte| byte == 0x16));
    }),
    ("a file of that name, whatever it contains", "refs/heads/main", nothing, |bench| {
        write(&bench.there.join("mocks/HEAD"), "HTTP/1.1 200 OK\n");
        write(&bench.there.join("ev/readme"), "");
        bench.commit_there("planted");
    }),
    (
        "beside a local file of that name that is no HEAD",
        "refs/heads/main",
        |bench| {
            write(&bench.here.join("ev/HEAD"), "@NONE@ref: refs/heads/main\n");
            bench.commit_here("a template");
        },
        |bench| {
            write(&bench.there.join("ev/objects/x"), "");
            write(&bench.there.join("ev/refs/x"), "");
            bench.commit_there("planted");
        },
    ),
    ("more files than can be searched", "refs/heads/bomb", nothing, |bench| {
        let made = bomb(bench);
        let commit = bench.there(&["commit-tree", "-m", "bomb", &made]);
        bench.there(&["branch", "bomb", &commit]);
    }),
    ("a tag of a tree with more files than can be searched", "refs/tags/bomb", nothing, |bench| {
        let tree = bomb(bench);
        bench.there(&["tag", "-a", "-m", "bomb", "bomb", &tree]);
    }),
    ("staged", "index", nothing, |bench| {
        plant(bench);
        bench.there(&["add", "-A"]);
    }),
    ("the configuration of a fixture", "refs/heads/main", fixture, |bench| {
        write(&bench.there.join("ev/config"), PLANTED);
        bench.there(&[
            "update-index",
            "--no-skip-worktree",
            "ev/HEAD",
            "ev/config",
            "ev/objects/x",
            "ev/refs/x",
        ]);
        bench.there(&["add", "ev/config"]);
        bench.there(&["commit", "-q", "-m", "planted"]);
    }),
    ("a hook of a fixture, on another branch", "refs/heads/side", fixture, |bench| {
        bench.there(&["checkout", "-q", "-b", "side"]);
        write(&bench.there.join("ev/hooks/post-checkout"), "#!/bin/sh\n");
        bench.there(&["add", "-f", "--sparse", "ev/hooks"]);
        bench.there(&["commit", "-q", "-m", "planted"]);
        bench.there(&["checkout", "-q", "main"]);
    }),
    (
        "beside a HEAD that only another branch has",
        "refs/heads/old",
        |bench| {
            bench.here(&["checkout", "-q", "-b", "old"]);
            write(&bench.here.join("ev/HEAD"), "ref: refs/heads/main\n");
            bench.commit_here("old");
            bench.here(&["checkout", "-q", "main"]);
        },
        |bench| {
            bench.there(&["checkout", "-q", "old"]);
            write(&bench.there.join("ev/config"), PLANTED);
            bench.there(&["add", "-f", "ev/config"]);
            bench.there(&["commit", "-q", "-m", "planted"]);
            bench.there(&["checkout", "-q", "main"]);
        },
    ),
    (
        "beside a local HEAD that no commit has",
        "refs/heads/main",
        |bench| write(&bench.here.join("ev/HEAD"), "ref: refs/heads/main\n"),
        |bench| {
            write(&bench.there.join("ev/config"), PLANTED);
            write(&bench.there.join("ev/objects/x"), "");
            write(&bench.there.join("ev/refs/x"), "");
            bench.there(&["add", "-f", "ev/config", "ev/objects", "ev/refs"]);
            bench.there(&["commit", "-q", "-m", "planted"]);
        },
    ),
];

/// Has a `HEAD`, with objects and references beside it, in a place that no branch or tag of commits reaches, and not as files.
const STORED: &[(&str, Do)] = &[
    ("a tag of a tree", |bench| {
        let tree = bench.here(&["rev-parse", "FIXTURE^{tree}"]);
        bench.here(&["tag", "tree", &tree]);
    }),
    ("an autostash", |bench| {
        let git_dir = bench.here.join(".git");
        let stash = bench.here(&["rev-parse", "FIXTURE"]);
        write(&git_dir.join("rebase-merge/autostash"), format!("{stash}\n"));
    }),
    ("what was reset", |bench| drop(bench.here(&["update-ref", "ORIG_HEAD", "FIXTURE"]))),
    ("another worktree", |bench| {
        let other = bench.other_worktree();
        let fixture = bench.here(&["rev-parse", "FIXTURE"]);
        bench.git(&other, &["checkout", &fixture, "--", "."]);
    }),
    ("another folder of an old commit", |bench| {
        bench.here(&["branch", "old", "FIXTURE"]);
    }),
];

/// Stores a commit with a fixture that nothing names but the pseudo-reference `FIXTURE`, in whose folder the content of `HEAD` is as given.
fn store_fixture(bench: &Bench, head: &str) {
    let fixture = bench.here.join("deep/fixture");
    for (name, text) in [("HEAD", head), ("objects/x", ""), ("refs/x", "")] {
        write(&fixture.join(name), text);
    }
    bench.here(&["add", "-A", "-f"]);
    let tree = bench.here(&["write-tree"]);
    let commit = bench.here(&["commit-tree", "-m", "fixture", &tree]);
    bench.here(&["update-ref", "FIXTURE", &commit]);
    bench.here(&["reset", "-q", "--hard"]);
    fs::remove_dir_all(bench.here.join("deep")).ok();
}

/// A person may have a fixture written from anywhere, into any folder: by a checkout of files, by an operation that ends, by a merge
/// that follows a renamed folder, through a filter that makes a `HEAD` of it.
#[test]
fn where_a_head_is_stored_anywhere_nothing_comes_that_git_would_run_beside_it() {
    for (what, name_it) in STORED {
        for head in ["ref: refs/heads/main\n", "encrypted\n"] {
            with_each_git(|bench| {
                store_fixture(bench, head);
                name_it(bench);
                bench.here(&["update-ref", "-d", "FIXTURE"]);
                let before = bench.here(&["rev-parse", "main"]);
                bench.prepare();
                write(&bench.there.join("ev/config"), PLANTED);
                write(&bench.there.join("work.txt"), "work\n");
                bench.commit_there("planted");
                let report = bench.restore();
                assert!(holds(&report, "refs/heads/main"), "{what}: {report:?}");
                assert_eq!(bench.here(&["rev-parse", "main"]), before, "{what}");
            });
        }
    }
}

/// The sandbox's branch may be checked out where a repository lies among the files that git does not track.
#[test]
fn beside_a_head_in_another_worktree_nothing_comes_that_git_would_run() {
    with_each_git(|bench| {
        let other = bench.other_worktree();
        bench.git(&other, &["init", "-q", "--bare", "ev"]);
        // What other tools leave among the worktrees is none.
        write(&bench.here.join(".git/worktrees/.DS_Store"), "");
        bench.prepare();
        write(&bench.there.join("ev/hooks/post-checkout"), "#!/bin/sh\n");
        bench.there(&["add", "-f", "ev"]);
        bench.there(&["commit", "-q", "-m", "hook"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/main"), "{report:?}");
        bench.there(&["mv", "ev", "elsewhere"]);
        bench.there(&["commit", "-q", "--amend", "-m", "elsewhere"]);
        let report = bench.restore();
        assert!(!holds(&report, "refs/heads/main"), "{report:?}");
    });
}

/// A merge that follows a renamed folder keeps the names of files, and a submodule may be one of hooks.
#[test]
fn where_a_fixture_is_stored_no_commit_has_the_name_of_a_hook_in_any_folder() {
    with_each_git(|bench| {
        store_fixture(bench, "ref: refs/heads/main\n");
        bench.here(&["branch", "old", "FIXTURE"]);
        bench.prepare();
        let commit = bench.there(&["rev-parse", "HEAD"]);
        for (branch, path) in [("file", "scripts/reference-transaction"), ("script", "scripts/clean")] {
            bench.there(&["checkout", "-q", "-b", branch, "main"]);
            write(&bench.there.join(path), "#!/bin/sh\n");
            bench.commit_there(branch);
        }
        bench.there(&["checkout", "-q", "-b", "link", "main"]);
        bench.there(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},ev/hooks")]);
        bench.there(&["commit", "-q", "-m", "link"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/file") && holds(&report, "refs/heads/link"), "{report:?}");
        assert!(!holds(&report, "refs/heads/script"), "{report:?}");
    });
}

/// The parts of a repository may come on several branches, in several restores, and be deleted in between.
#[test]
fn no_folder_gets_all_parts_of_a_repository_one_after_the_other() {
    const PARTS: [(&str, &str); 3] = [("ev/objects/x", ""), ("ev/config", PLANTED), ("ev/refs/x", "")];
    for on_branches in [true, false] {
        for first in 0..3 {
            with_each_git(|bench| {
                for at in 0..3 {
                    let (path, text) = PARTS[(first + at) % 3];
                    bench.prepare();
                    let branch = format!("part-{at}");
                    if on_branches {
                        bench.there(&["checkout", "-q", "-b", &branch, "main"]);
                    }
                    write(&bench.there.join(path), text);
                    bench.there(&["add", "-f", path]);
                    bench.there(&["commit", "-q", "-m", "part"]);
                    bench.there(&["rm", "-q", path]);
                    bench.there(&["commit", "-q", "-m", "gone"]);
                    let report = bench.restore();
                    let told = if on_branches {
                        format!("refs/heads/{branch}")
                    } else {
                        "refs/heads/main".to_owned()
                    };
                    assert_eq!(holds(&report, &told), at == 2, "{path}, {at}, {on_branches}: {report:?}");
                }
            });
        }
    }
}

/// What a nested repository checks out in a folder `hooks` would be hooks of what that folder is in.
#[test]
fn a_nested_repository_brings_no_hooks_for_the_folder_above_it() {
    with_each_git(|bench| {
        store_fixture(bench, "ref: refs/heads/main\n");
        bench.here(&["branch", "old", "FIXTURE"]);
        bench.new_repository(&bench.here.join("ev/hooks"));
        bench.prepare();
        let nested = bench.there.join("ev/hooks");
        bench.git(&nested, &["checkout", "-q", "-b", "side"]);
        write(&nested.join("reference-transaction"), "#!/bin/sh\n");
        bench.commit(&nested, "planted");
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/side"), "{report:?}");
        assert!(!bench.git(&bench.here.join("ev/hooks"), &["branch"]).contains("side"), "{report:?}");
    });
}

/// Does nothing.
fn nothing(_: &Bench) {}

/// What makes a directory a repository may come in several commits, or in part as files of the workspace, and be completed by
/// any later checkout. So no new commit may have a `HEAD` that git accepts, or change what git obeys beside one.
#[test]
fn a_commit_in_which_git_would_obey_the_sandbox_is_held_back() {
    for (what, told, before, after) in PLANTED_IN_GIT {
        with_each_git(|bench| {
            before(bench);
            let values = bench.here(&["for-each-ref", "refs/heads", "refs/tags", "refs/stash"]);
            bench.prepare();
            after(bench);
            let report = bench.restore();
            assert!(holds(&report, told), "{what}: {report:?}");
            let now = bench.here(&["for-each-ref", "refs/heads", "refs/tags", "refs/stash"]);
            let planted: Vec<_> = now
                .lines()
                .filter(|line| !values.contains(line))
                .filter(|line| {
                    let name = line.split_whitespace().last().unwrap();
                    let listed = bench.here(&["log", "-m", "--name-only", "--format=", name, "--", "ev"]);
                    !listed.is_empty()
                })
                .collect();
            assert!(planted.is_empty(), "{what}: {planted:?}");
            assert!(!bench.here(&["diff", "--cached", "--name-only"]).contains("ev/"), "{what}");
            bench.restore();
            assert_eq!(bench.here(&["for-each-ref", "refs/heads", "refs/tags", "refs/stash"]), now, "{what}");
            // A second branch at a commit that was held back is held back as well.
            let kept = bench.here(&["for-each-ref", "--format=%(objectname)", "refs/paperclip"]);
            if let Some(commit) = kept.lines().next().filter(|_| told.starts_with("refs/heads/")) {
                bench.there(&["branch", "further", commit]);
                let report = bench.restore();
                assert!(holds(&report, "refs/heads/further"), "{what}: {report:?}");
            }
            bench.assert_sound(&bench.here, &[]);
        });
    }
}

/// `git submodule update` checks out whatever commit the one above names, if the submodule has it.
#[test]
fn a_commit_that_names_what_a_submodule_holds_back_is_held_back() {
    with_each_git(|bench| {
        let library = bench.path().join("library");
        bench.new_repository(&library);
        bench.here(&["submodule", "--quiet", "add", library.to_str().unwrap(), "sm"]);
        bench.commit_here("submodule");
        let before = bench.here(&["rev-parse", "HEAD:sm"]);
        bench.prepare();
        let inner = bench.there.join("sm");
        write(&inner.join("ev/HEAD"), "ref: refs/heads/main\n");
        write(&inner.join("ev/config"), PLANTED);
        let planted = bench.commit(&inner, "planted");
        fs::remove_dir_all(inner.join("ev")).unwrap();
        let named = bench.commit_there("names it");
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/main"), "{report:?}");
        assert_eq!(bench.here(&["rev-parse", "main:sm"]), before, "{report:?}");
        bench.there(&["branch", "further"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/further"), "{report:?}");
        // Nor may another path name it.
        bench.there(&["checkout", "-q", "-b", "elsewhere", &format!("{named}~1")]);
        bench.there(&["update-index", "--add", "--cacheinfo", &format!("160000,{planted},other")]);
        bench.there(&["commit", "-q", "-m", "elsewhere"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/elsewhere"), "{report:?}");
        let all = bench.here(&["log", "--branches", "--format=%H"]);
        assert!(!all.contains(&named), "{planted}: {all}");
    });
}

/// Git checks a commit out for the path of a submodule wherever it has it: in the same repository, too, and in that of a submodule
/// that is not checked out now.
#[test]
fn a_held_commit_is_named_by_no_other_repository_either() {
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["checkout", "-q", "-b", "ev"]);
        plant(bench);
        let planted = bench.commit_there("planted");
        bench.there(&["checkout", "-q", "main"]);
        bench.there(&["update-index", "--add", "--cacheinfo", &format!("160000,{planted},wt")]);
        bench.there(&["commit", "-q", "-m", "names it"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/ev") && holds(&report, "refs/heads/main"), "{report:?}");
        bench.there(&["branch", "-D", "ev"]);
        bench.there(&["commit", "-q", "--amend", "-m", "names it later"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/main"), "{report:?}");
        bench.assert_sound(&bench.here, &[]);
    });
    with_each_git(|bench| {
        let library = bench.path().join("library");
        bench.new_repository(&library);
        bench.here(&["submodule", "--quiet", "add", library.to_str().unwrap(), "sm"]);
        bench.commit_here("submodule");
        bench.prepare();
        let inner = bench.there.join("sm");
        write(&inner.join("ev/HEAD"), "ref: refs/heads/main\n");
        write(&inner.join("ev/config"), PLANTED);
        let planted = bench.commit(&inner, "planted");
        bench.git(&inner, &["reset", "-q", "--hard", "HEAD~1"]);
        bench.git(&inner, &["branch", "ev", &planted]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/ev"), "{report:?}");
        bench.here(&["submodule", "--quiet", "deinit", "-f", "sm"]);
        bench.prepare();
        bench.there(&["update-index", "--add", "--cacheinfo", &format!("160000,{planted},sm")]);
        bench.there(&["commit", "-q", "-m", "names it"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/main"), "{report:?}");
    });
}

/// Git makes a directory for a submodule at a checkout.
#[test]
fn submodules_are_parts_of_a_repository_too() {
    with_each_git(|bench| {
        bench.prepare();
        let commit = bench.there(&["rev-parse", "HEAD"]);
        write(&bench.there.join("ev/config"), PLANTED);
        bench.there(&["add", "-f", "ev/config"]);
        for part in ["objects", "refs"] {
            let link = format!("160000,{commit},ev/{part}");
            bench.there(&["update-index", "--add", "--cacheinfo", &link]);
        }
        bench.there(&["commit", "-q", "-m", "planted"]);
        let report = bench.restore();
        assert!(holds(&report, "refs/heads/main"), "{report:?}");
    });
}

#[test]
fn a_file_named_head_that_git_does_not_accept_comes_back() {
    with_each_git(|bench| {
        write(&bench.here.join("mocks/HEAD"), "HTTP/1.1 200 OK\n");
        bench.commit_here("mocks");
        bench.prepare();
        write(&bench.there.join("mocks/config"), "answer = 200\n");
        write(&bench.there.join("mocks/HEAD"), "HTTP/1.1 204 No Content\n");
        write(&bench.there.join("bin/head"), b"\x7fELF\xff\x00");
        write(&bench.there.join("www/head"), "<!-- \u{2014} -->\n");
        write(&bench.there.join("large/head"), "0".repeat(100_000));
        write(&bench.there.join("src/hooks/use.js"), "hook\n");
        let new = bench.commit_there("work");
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
        assert!(report.held_back.is_empty(), "{report:?}");
    });
}

#[test]
fn a_bare_repository_that_was_tracked_before_holds_nothing_back() {
    with_each_git(|bench| {
        for (name, text) in
            [("HEAD", "ref: refs/heads/main\n"), ("config", "[core]\n"), ("objects/x", ""), ("refs/x", "")]
        {
            write(&bench.here.join("fixture").join(name), text);
        }
        bench.here(&["add", "-A", "-f"]);
        bench.commit_here("fixture");
        bench.prepare();
        write(&bench.there.join("HEAD.md"), "work\n");
        write(&bench.there.join("objects/x"), "work\n");
        let new = bench.commit_there("work");
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
        bench.assert_sound(&bench.here, &[&new]);
        // Nor does it if its own commit is amended.
        bench.there(&["reset", "-q", "--soft", "HEAD~2"]);
        bench.there(&["commit", "-q", "-m", "squashed"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["log", "-1", "--format=%s", "main"]), "squashed", "{report:?}");
    });
}

/// Git deletes a folder that a commit replaces by a file, with what is ignored in it: a nested repository and its commits.
#[test]
fn no_commit_has_a_file_in_the_place_of_a_local_repository() {
    for nested in ["ev", "ev/deep/inner"] {
        with_each_git(|bench| {
            fs::write(bench.here.join(".gitignore"), "ev/\n").unwrap();
            bench.commit_here("ignored");
            bench.new_repository(&bench.here.join(nested));
            let before = bench.here(&["rev-parse", "main"]);
            bench.prepare();
            bench.there(&["checkout", "-q", "-b", "side"]);
            let blob = bench.there(&["rev-parse", "HEAD:a.txt"]);
            bench.there(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},ev")]);
            bench.there(&["commit", "-q", "-m", "file"]);
            let commit = bench.there(&["rev-parse", "HEAD"]);
            bench.there(&["update-ref", "refs/heads/main", &commit]);
            let report = bench.restore();
            assert!(holds(&report, "refs/heads/side") && holds(&report, "refs/heads/main"), "{report:?}");
            assert!(
                report.held_back.iter().any(|held| held.reason.contains("local repository")),
                "{report:?}"
            );
            assert_eq!(bench.here(&["rev-parse", "main"]), before);
        });
    }
}

/// Two worktrees of one repository in the workspace may each bring a part, in one restore.
#[test]
fn no_folder_gets_all_parts_of_a_repository_by_two_worktrees() {
    with_each_git(|bench| {
        bench.here(&["worktree", "add", "-q", "-b", "side", "wt"]);
        bench.prepare();
        write(&bench.there.join("ev/objects/x"), "");
        write(&bench.there.join("ev/refs/x"), "");
        bench.there(&["add", "-f", "ev"]);
        bench.there(&["commit", "-q", "-m", "stores"]);
        let other = bench.there.join("wt");
        write(&other.join("ev/config"), PLANTED);
        bench.git(&other, &["add", "-f", "ev"]);
        bench.git(&other, &["commit", "-q", "-m", "config"]);
        let report = bench.restore();
        let held = ["refs/heads/main", "refs/heads/side"].map(|name| holds(&report, name));
        assert!(held != [false, false], "{report:?}");
    });
}

/// Git prefers a `.git` in the folder of a bare repository, and fetches in a submodule once it has one.
#[test]
fn no_new_repository_takes_the_place_of_a_local_one() {
    with_each_git(|bench| {
        bench.git(&bench.here, &["init", "-q", "--bare", "up.git"]);
        let upstream = bench.path().join("upstream");
        bench.new_repository(&upstream);
        bench.here(&["submodule", "--quiet", "add", "-f", upstream.to_str().unwrap(), "sub"]);
        bench.commit_here("submodule");
        bench.here(&["submodule", "--quiet", "deinit", "-f", "sub"]);
        bench.prepare();
        for folder in ["up.git", "sub", "deep/new"] {
            bench.new_repository(&bench.there.join(folder));
            let folder = bench.there.join(folder);
            bench.git(&folder, &["remote", "add", "origin", "https://example.com/fork.git"]);
        }
        let report = bench.restore();
        for (folder, reason) in [
            ("up.git/.git", "its directory is a local bare repository"),
            ("sub/.git", "a submodule that was first checked out in the sandbox comes back as files"),
        ] {
            assert!(!bench.here.join(folder).exists(), "{folder}");
            let held = report.held_back.iter().find(|held| held.path == path(folder)).unwrap();
            assert!(held.reason.contains(reason), "{held:?}");
        }
        assert_eq!(report.created, [path("deep/new/.git")]);
        let address = (path("deep/new/.git"), "remote.origin.url".to_owned());
        assert!(report.updated.contains(&address), "{report:?}");
    });
}

/// A plain `git fetch` goes where it went before.
#[test]
fn a_new_remote_does_not_become_the_one_that_git_fetches_from() {
    with_each_git(|bench| {
        bench.here(&["remote", "rename", "origin", "upstream"]);
        write(&bench.here.join(".git/remotes/old"), "URL: https://example.com/old\n");
        write(&bench.here.join("included"), "[branch \"feature\"]\n\tremote = upstream\n");
        bench.here(&["config", "include.path", "../included"]);
        bench.prepare();
        for name in ["origin", "old", "fork"] {
            bench.there(&["remote", "add", name, &format!("https://example.com/evil/{name}")]);
        }
        bench.there(&["config", "branch.feature.remote", "."]);
        let report = bench.restore();
        assert_eq!(bench.here(&["remote"]), "upstream");
        assert_eq!(bench.here(&["config", "branch.feature.remote"]), "upstream");
        for key in ["remote.origin.url", "remote.old.url", "remote.fork.url", "branch.feature.remote"] {
            assert!(holds(&report, key), "{key}: {report:?}");
        }
    });
}

/// Plain `git fetch` and `git push` go where the branch says.
#[test]
fn a_branch_that_was_sent_gets_no_new_remote_beside_others() {
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["remote", "add", "evil", "https://evil.example/x.git"]);
        bench.there(&["branch", "own"]);
        for branch in ["main", "own"] {
            bench.there(&["config", &format!("branch.{branch}.remote"), "evil"]);
        }
        let report = bench.restore();
        assert!(holds(&report, "branch.main.remote"), "{report:?}");
        assert!(!bench.try_git(&bench.here, &["config", "branch.main.remote"]).0, "{report:?}");
        assert_eq!(bench.here(&["config", "branch.own.remote"]), "evil");
    });
}
