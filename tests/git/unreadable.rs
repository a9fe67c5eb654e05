//! What cannot be read, on either side: nothing is deleted or replaced because of it, it is reported, and what was only out of
//! reach comes with the next restore.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::git::report::{GitReport, HeldBack};
use sandbox_managed_runtime::merge::incoming::Incoming;
use sandbox_managed_runtime::sandbox::repositories::{Shared, Travel, find, lay_out, take_out};
use sandbox_managed_runtime::tree::entry::Snapshot;
use sandbox_managed_runtime::tree::filter::Filter;

use crate::bench::{Bench, holds, with_each_git, write};

/// A user who is not root.
const NOBODY: u32 = 65534;

/// Runs a test as a user for whom permissions count. `name` is its name in this test program.
fn as_another_user(name: &str, test: impl Fn(&mut Bench)) {
    if !rustix::process::geteuid().is_root() {
        return with_each_git(test);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // That user may not be able to reach the folder in which this program was built. It is copied by another process, since a
    // file that is open for writing cannot be run.
    let program = folder.path().join("program");
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap();
    assert!(copied.success());
    let output = Command::new(&program)
        .args(["--exact", &format!("unreadable::{name}"), "--test-threads=1"])
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Removes whatever is at a path.
fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Restores git's part of a download of all that the sandbox has. What an archive cannot hold is told as it is by a download.
fn download(bench: &mut Bench) -> GitReport {
    let cancel = Cancel::default();
    let (here, there) = (Root::open(&bench.here).unwrap(), Root::open(&bench.there).unwrap());
    let nothing = Snapshot::default();
    let mut incoming = Incoming::from_folder(&there, &Filter::default(), &nothing, &here, &cancel).unwrap();
    let mut shared = Shared::of(std::mem::take(&mut bench.bases));
    let arrived =
        take_out(&mut incoming, &nothing, &here, Travel::default(), &shared, false, &cancel).unwrap();
    let report = arrived.apply(&here, &mut shared).unwrap();
    incoming.stage.close(&here).unwrap();
    bench.bases = shared.bases;
    report
}

const ALL: [&str; 4] = ["for-each-ref", "refs/heads", "refs/tags", "refs/paperclip"];

/// Whatever is in the place of references there. (A socket looks like something that is gone: tar passes it over.)
#[test]
fn references_of_the_sandbox_that_cannot_be_read_are_not_deleted() {
    type Forge = fn(&Path);
    let cases: &[(&str, &str, Forge)] = &[
        ("packed-refs", "a folder", |at| fs::create_dir(at).unwrap()),
        ("packed-refs", "a folder with files", |at| write(&at.join("x"), "x\n")),
        ("packed-refs", "a pipe", make_pipe),
        ("packed-refs", "a link", |at| symlink("config", at).unwrap()),
        ("packed-refs", "gone", |_| ()),
        ("packed-refs", "an empty file", |at| write(at, "")),
        ("refs", "a file", |at| write(at, "x\n")),
        ("refs", "a pipe", make_pipe),
        ("refs", "a link", |at| symlink("objects", at).unwrap()),
        ("refs", "gone", |_| ()),
        ("refs/heads", "a file", |at| write(at, "x\n")),
        ("refs/heads", "a pipe", make_pipe),
        ("refs/heads", "a link", |at| symlink("tags", at).unwrap()),
        ("refs/heads", "gone", |_| ()),
        ("refs/tags", "a file", |at| write(at, "x\n")),
        ("refs/tags", "gone", |_| ()),
        ("refs/heads/fresh", "a folder", |at| fs::create_dir(at).unwrap()),
        ("refs/heads/fresh", "a pipe", make_pipe),
        ("refs/heads/deep", "a file", |at| write(at, "x\n")),
        ("refs/heads/deep", "a pipe", make_pipe),
    ];
    for (name, what, forge) in cases {
        with_each_git(|bench| {
            bench.here(&["branch", "side", "main~1"]);
            bench.prepare();
            bench.there(&["branch", "-f", "side", "main"]);
            bench.there(&["branch", "fresh"]);
            bench.there(&["branch", "deep/er"]);
            bench.there(&["tag", "mark"]);
            download(bench);
            let before = bench.here(&ALL);
            assert!(before.contains("refs/heads/fresh") && before.contains("refs/tags/mark"), "{before}");
            let at = bench.there.join(".git").join(name);
            remove(&at);
            forge(&at);
            let report = download(bench);
            let what = format!("{name} is {what}: {report:?}");
            assert!(holds(&report, name), "{what}");
            let after = bench.here(&ALL);
            // What is packed is an earlier value of this branch, and the value that it had here is kept.
            let is_rewound = after.contains("/replaced/heads/side");
            let without_side = |text: &str| -> Vec<String> {
                text.lines().filter(|line| !line.contains("heads/side")).map(str::to_owned).collect()
            };
            assert!(
                after == before || (is_rewound && without_side(&after) == without_side(&before)),
                "{what}\n{before}\n\n{after}"
            );
            assert!(!is_rewound || what.contains("gone"), "{what}");
            bench.assert_sound(&bench.here, &[]);
        });
    }
}

/// What git deletes there by itself is deleted here, also where a folder was in the way of a branch before.
#[test]
fn references_that_were_deleted_there_are_deleted_here() {
    with_each_git(|bench| {
        for name in ["one", "two", "three"] {
            bench.here(&["branch", name]);
        }
        bench.prepare();
        bench.there(&["branch", "-D", "one"]);
        bench.there(&["branch", "-m", "two", "two/deeper"]);
        bench.there(&["pack-refs", "--all"]);
        bench.there(&["branch", "-D", "three"]);
        bench.there(&["tag", "-d", "v1"]);
        let report = download(bench);
        let mut deleted: Vec<&str> = report.deleted.iter().map(|(_, name)| name.as_str()).collect();
        deleted.sort_unstable();
        assert_eq!(
            deleted,
            ["refs/heads/one", "refs/heads/three", "refs/heads/two", "refs/tags/v1"],
            "{report:?}"
        );
        assert_eq!(report.held_back, []);
        assert_eq!(bench.here(&["rev-parse", "two/deeper"]), bench.here(&["rev-parse", "main"]));
    });
}

#[test]
fn a_head_of_the_sandbox_that_cannot_be_read_changes_nothing() {
    type Forge = fn(&Path);
    let cases: &[(&str, Forge)] = &[
        ("a folder", |at| fs::create_dir(at).unwrap()),
        ("a pipe", make_pipe),
        ("a link", |at| symlink("refs/heads/side", at).unwrap()),
        ("gone", |_| ()),
    ];
    for (what, forge) in cases {
        with_each_git(|bench| {
            bench.prepare();
            bench.there(&["branch", "-D", "feature"]);
            let before = bench.here(&["for-each-ref"]);
            let at = bench.there.join(".git/HEAD");
            remove(&at);
            forge(&at);
            let report = download(bench);
            assert!(holds(&report, ".git"), "{what}: {report:?}");
            assert!(*what == "gone" || holds(&report, "HEAD"), "{what}: {report:?}");
            assert_eq!(bench.here(&["for-each-ref"]), before, "{what}");
            bench.assert_sound(&bench.here, &[]);
        });
    }
    // Nor does a pipe in the place of the whole directory.
    with_each_git(|bench| {
        bench.prepare();
        let before = bench.here(&["for-each-ref"]);
        remove(&bench.there.join(".git"));
        make_pipe(&bench.there.join(".git"));
        let report = download(bench);
        assert!(holds(&report, ".git"), "{report:?}");
        assert_eq!(bench.here(&["for-each-ref"]), before);
    });
}

/// What a prepare reports of the repositories.
fn left_here(bench: &Bench) -> Vec<HeldBack> {
    let cancel = Cancel::default();
    let travel = Travel::default();
    let root = Root::open(&bench.here).unwrap();
    let scanned = find(root, &Filter::default(), travel, &cancel).unwrap();
    lay_out(scanned, &Filter::default(), travel, None, &cancel).unwrap().repositories.left_here
}

fn names(held: &[HeldBack]) -> Vec<&str> {
    held.iter().filter_map(|held| held.what.as_deref()).collect()
}

#[test]
fn a_local_reference_that_git_cannot_read_is_reported_by_the_prepare() {
    with_each_git(|bench| {
        bench.here(&["branch", "packed", "main~1"]);
        bench.here(&["pack-refs", "--all"]);
        bench.here(&["branch", "empty"]);
        for (name, text) in [
            ("heads/feature", "garbage\n"),
            ("heads/packed", "garbage\n"),
            ("heads/empty", ""),
            ("remotes/origin/HEAD", "ref: refs/remotes/origin/gone\n"),
            ("heads/left.lock", ""),
        ] {
            write(&bench.here.join(".git/refs").join(name), text);
        }
        let left = left_here(bench);
        assert_eq!(names(&left), ["refs/heads/empty", "refs/heads/feature", "refs/heads/packed"], "{left:?}");
        assert_eq!(bench.prepare(), [""; 0]);
        let there = bench.there(&["for-each-ref", "--format=%(refname)", "refs/heads"]);
        assert_eq!(there, "refs/heads/main");
    });
    with_each_git(|bench| assert_eq!(left_here(bench), []));
}

#[test]
fn a_local_reference_whose_object_is_gone_is_left_out_alone() {
    with_each_git(|bench| {
        let gone = ["refs/heads/gone", "refs/notes/gone", "refs/remotes/origin/gone", "refs/tags/gone"];
        for name in gone {
            write(&bench.here.join(".git").join(name), format!("{}\n", "1".repeat(40)));
        }
        let left = left_here(bench);
        assert_eq!(names(&left), gone, "{left:?}");
        assert_eq!(bench.prepare(), [""; 0]);
        bench.assert_sound(&bench.there, &[]);
        write(&bench.there.join("new.txt"), "work\n");
        let new = bench.commit_there("work");
        bench.there(&["branch", "-f", "gone"]);
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
        for name in gone {
            let value = fs::read_to_string(bench.here.join(".git").join(name)).unwrap();
            assert_eq!(value.trim(), "1".repeat(40), "{report:?}");
        }
        // What came for such a branch is beside it.
        assert_eq!(
            bench.here(&["for-each-ref", "--format=%(objectname)", "refs/paperclip"]),
            new,
            "{report:?}"
        );
    });
    // The branch that is checked out is not left out: the agent would begin a history of its own.
    with_each_git(|bench| {
        write(&bench.here.join(".git/refs/heads/main"), format!("{}\n", "1".repeat(40)));
        let refused = bench.prepare();
        assert_eq!(refused.len(), 1, "{refused:?}");
    });
}

#[test]
fn a_local_reference_without_permission_is_reported_by_the_prepare() {
    as_another_user("a_local_reference_without_permission_is_reported_by_the_prepare", |bench| {
        bench.here(&["branch", "in/a/folder"]);
        bench.here(&["branch", "stale/one", "main~1"]);
        bench.here(&["pack-refs", "--all"]);
        // Its packed value is not its value.
        bench.here(&["branch", "-f", "stale/one", "main"]);
        bench.here(&["branch", "other"]);
        bench.here(&["branch", "below/it"]);
        let refs = bench.here.join(".git/refs/heads");
        set_mode(&refs.join("other"), 0);
        set_mode(&refs.join("below"), 0);
        set_mode(&refs.join("stale"), 0);
        let left = left_here(bench);
        assert_eq!(names(&left), ["refs/heads/below", "refs/heads/other", "refs/heads/stale"], "{left:?}");
        bench.prepare();
        let there = bench.there(&["for-each-ref", "--format=%(refname)", "refs/heads"]);
        assert_eq!(there, "refs/heads/feature\nrefs/heads/in/a/folder\nrefs/heads/main");
        set_mode(&refs.join("below"), 0o755);
        set_mode(&refs.join("stale"), 0o755);
    });
}

/// The next restore brings what is kept meanwhile.
#[test]
fn what_comes_for_local_references_without_permission_waits_for_the_next_restore() {
    as_another_user(
        "what_comes_for_local_references_without_permission_waits_for_the_next_restore",
        |bench| {
            for name in ["dir/moved", "dir/deleted", "plain", "alone", "checked/out"] {
                bench.here(&["branch", name]);
            }
            bench.here(&["pack-refs", "--all"]);
            bench.here(&["branch", "-f", "dir/loose", "main~1"]);
            bench.prepare();
            for name in ["dir/moved", "dir/loose", "plain", "alone", "checked/out"] {
                bench.there(&["checkout", "-q", name]);
                write(&bench.there.join("n.txt"), name);
                bench.commit_there(name);
            }
            bench.there(&["branch", "-D", "dir/deleted"]);
            let value = |bench: &Bench, name: &str| bench.there(&["rev-parse", name]);
            let refs = bench.here.join(".git/refs/heads");
            for name in ["dir/moved", "checked/out", "alone"] {
                // They are files of their own here, too.
                bench.here(&["branch", "-f", name, "main"]);
            }
            fs::create_dir_all(refs.join("dir")).unwrap();
            let oid = bench.here(&["rev-parse", "main"]);
            write(&refs.join("dir/deleted"), format!("{oid}\n"));
            for name in ["checked/out", "alone"] {
                write(&refs.join(name), format!("{oid}\n"));
            }
            for name in ["dir", "checked", "alone"] {
                set_mode(&refs.join(name), 0);
            }
            for round in ["first", "second"] {
                let report = bench.restore();
                assert!(report.is_incomplete, "{round}: {report:?}");
                for name in ["dir/moved", "dir/loose", "dir/deleted", "alone", "checked/out"] {
                    let what = format!("refs/heads/{name}");
                    let mut held = report.held_back.iter().filter(|held| held.what.as_ref() == Some(&what));
                    let reason = held.next().map(|held| held.reason.as_str()).unwrap_or_default();
                    assert!(reason.contains("cannot be read"), "{round}, {name}: {report:?}");
                }
                let head = report.held_back.iter().find(|held| held.what.as_deref() == Some("HEAD"));
                let reason = head.map(|held| held.reason.as_str()).unwrap_or_default();
                assert!(reason.contains("cannot be read"), "{round}: {report:?}");
                assert_eq!(report.deleted, [], "{round}");
                assert_eq!(bench.here(&["rev-parse", "plain"]), value(bench, "plain"), "{round}");
            }
            let kept = bench.here(&["for-each-ref", "--format=%(objectname)", "refs/paperclip"]);
            assert_eq!(kept.lines().count(), 4, "each value is kept once: {kept}");
            for name in ["dir/moved", "dir/loose", "alone", "checked/out"] {
                assert!(kept.contains(&value(bench, name)), "{name}: {kept}");
            }
            for name in ["dir", "checked", "alone"] {
                set_mode(&refs.join(name), 0o755);
            }
            let report = bench.restore();
            assert!(!report.is_incomplete && report.held_back.is_empty(), "{report:?}");
            for name in ["dir/moved", "dir/loose", "plain", "alone", "checked/out"] {
                assert_eq!(bench.here(&["rev-parse", name]), value(bench, name), "{name}");
            }
            assert_eq!(report.deleted.len(), 1, "{report:?}");
            assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/checked/out");
            assert_eq!(bench.here(&["status", "--porcelain"]), "");
            bench.assert_sound(&bench.here, &[]);
        },
    );
}

/// Another branch is checked out there, and the one that is checked out here cannot be read.
#[test]
fn a_checkout_waits_while_the_local_branch_is_without_permission() {
    as_another_user("a_checkout_waits_while_the_local_branch_is_without_permission", |bench| {
        bench.here(&["checkout", "-q", "-b", "in/work"]);
        bench.prepare();
        bench.there(&["checkout", "-q", "feature"]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        for closed in ["heads/in", "heads"] {
            let closed = bench.here.join(".git/refs").join(closed);
            set_mode(&closed, 0);
            let report = bench.restore();
            set_mode(&closed, 0o755);
            assert!(report.is_incomplete, "{}: {report:?}", closed.display());
            let head = report.held_back.iter().find(|held| held.what.as_deref() == Some("HEAD"));
            assert!(head.is_some_and(|held| held.reason.contains("cannot be read")), "{report:?}");
            assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/in/work");
        }
        let report = bench.restore();
        assert!(!report.is_incomplete && report.held_back.is_empty(), "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/feature");
        assert_eq!(bench.here(&["rev-parse", "feature"]), new);
        assert_eq!(bench.here(&["status", "--porcelain"]), "");
        bench.assert_sound(&bench.here, &[&new]);
    });
}

/// Agents ask `origin/HEAD` for the branch that their work belongs to.
#[test]
fn the_default_branch_of_a_remote_is_known_in_the_sandbox_and_never_changed_here() {
    let head = "refs/remotes/origin/HEAD";
    with_each_git(|bench| {
        bench.here(&["push", "-q", "origin", "main", "main:other"]);
        bench.here(&["fetch", "-q", "origin"]);
        bench.here(&["remote", "set-head", "origin", "main"]);
        // These lead elsewhere, or to nothing that is uploaded.
        bench.here(&["symbolic-ref", "refs/remotes/other/HEAD", "refs/heads/main"]);
        bench.here(&["symbolic-ref", "refs/remotes/gone/HEAD", "refs/remotes/gone/main"]);
        bench.here(&["symbolic-ref", "refs/remotes/origin/alias", "refs/remotes/origin/main"]);
        assert_eq!(bench.prepare(), [""; 0]);
        assert_eq!(bench.there(&["symbolic-ref", head]), "refs/remotes/origin/main");
        assert_eq!(bench.there(&["rev-parse", "origin"]), bench.here(&["rev-parse", "main"]));
        let symbolic = bench.there(&["for-each-ref", "--format=%(symref)", "refs/remotes"]);
        assert_eq!(symbolic.split_whitespace().collect::<Vec<_>>(), ["refs/remotes/origin/main"]);
        bench.assert_sound(&bench.there, &[]);

        write(&bench.there.join("new.txt"), "work\n");
        bench.commit_there("work");
        let report = bench.restore();
        assert_eq!(names(&report.held_back), [""; 0], "{report:?}");

        bench.there(&["remote", "set-head", "origin", "other"]);
        let report = bench.restore();
        assert_eq!(names(&report.held_back), [head], "{report:?}");
        assert_eq!(bench.here(&["symbolic-ref", head]), "refs/remotes/origin/main");
    });
}
