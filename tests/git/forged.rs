//! What the sandbox writes into its repository by hand: each piece that git could not use, or would obey, is left
//! out, and the rest of the agent's work comes back all the same.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use sandbox_managed_runtime::git::report::HeldBack;

use crate::bench::{Bench, holds, path, with_each_git, write};

/// An object's name that no object has, in each format.
const ABSENT: &str = "1111111111111111111111111111111111111111";
const ABSENT_SHA256: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// Forges something beside a commit of the agent. The commit arrives, and nothing is damaged.
fn forged(forge: impl Fn(&Bench, &str), told: &[&str], check: impl Fn(&Bench)) {
    with_each_git(|bench| {
        bench.prepare();
        let refs = ["for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags"];
        let before = bench.here(&refs);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        forge(bench, &new);
        let report = bench.restore();
        for told in told {
            assert!(holds(&report, told), "{told}: {report:?}");
        }
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
        assert_eq!(bench.here(&refs), before);
        bench.assert_sound(&bench.here, &[&new]);
        check(bench);
    });
}

/// Makes a stash in the sandbox, on a commit that has a parent, which no reference names yet.
fn stash_on(bench: &Bench, commit: &str) -> String {
    let parent = format!("{commit}~1");
    let made = ["commit-tree", "-p", commit, "-p", &parent, "-m", "stash", &format!("{commit}^{{tree}}")];
    let identity = ["-c", "user.name=A", "-c", "user.email=a@a"];
    bench.there(&[&identity[..], &made[..]].concat())
}

/// Writes a file of the sandbox's repository.
fn there(bench: &Bench, name: &str, text: impl AsRef<[u8]>) {
    write(&bench.there.join(".git").join(name), text);
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_reference_to_an_object_of_another_format_is_left_out() {
    forged(
        |bench, _| there(bench, "refs/heads/long", format!("{ABSENT_SHA256}\n")),
        &["refs/heads/long"],
        |_| (),
    );
    forged(
        |bench, _| there(bench, "HEAD", format!("{ABSENT_SHA256}\n")),
        &["HEAD"],
        |bench| {
            assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main");
        },
    );
    let entry = |oid: &str| format!("{} {oid} A <a@a> 1 +0000\tforged\n", "0".repeat(oid.len()));
    forged(
        |bench, new| {
            let stash = stash_on(bench, new);
            there(bench, "refs/stash", format!("{stash}\n"));
            there(bench, "logs/refs/stash", format!("{}{}", entry(ABSENT_SHA256), entry(&stash)));
        },
        &["refs/stash"],
        |bench| assert_eq!(bench.here(&["stash", "list", "--format=%gs"]), "forged"),
    );
}

/// The sandbox does not choose how the local repository is read.
#[test]
fn another_object_format_in_the_settings_changes_nothing() {
    forged(
        |bench, _| {
            let text = read(&bench.there.join(".git/config"));
            there(bench, "config", format!("{text}[extensions]\n\tobjectFormat = sha256\n"));
        },
        &[],
        |bench| assert!(!bench.here(&["config", "--list", "--local"]).contains("objectformat")),
    );
}

#[test]
fn what_must_name_a_commit_and_does_not_is_left_out() {
    for (name, object) in
        [("refs/heads/blob", "HEAD:a.txt"), ("refs/heads/tree", "HEAD^{tree}"), ("HEAD", "HEAD:a.txt")]
    {
        forged(
            |bench, _| {
                let oid = bench.there(&["rev-parse", object]);
                there(bench, name, format!("{oid}\n"));
            },
            &[name],
            |bench| assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main"),
        );
    }
    forged(
        |bench, new| {
            let blob = bench.there(&["rev-parse", "HEAD:a.txt"]);
            let stash = stash_on(bench, new);
            there(bench, "refs/stash", format!("{stash}\n"));
            there(
                bench,
                "logs/refs/stash",
                format!("{ABSENT} {blob} A <a@a> 1 +0000\tblob\n{ABSENT} {stash} A <a@a> 1 +0000\tcommit\n"),
            );
        },
        &["refs/stash"],
        |bench| {
            let log = read(&bench.here.join(".git/logs/refs/stash"));
            assert!(log.lines().count() == 1 && log.ends_with("\tcommit\n"), "{log}");
        },
    );
}

/// What cannot be read does not say that a reference was deleted, or moved back to an earlier packed value.
#[test]
fn references_that_cannot_be_read_are_unchanged() {
    type Forge = fn(&Bench);
    let cases: &[(&str, &str, Forge)] = &[
        ("no text", "packed-refs", |bench| there(bench, "packed-refs", b"\xff\xfe\0junk\n")),
        ("cut", "packed-refs", |bench| {
            let text = read(&bench.there.join(".git/packed-refs"));
            there(bench, "packed-refs", &text[..text.len() - 1]);
        }),
        ("other line ends", "packed-refs", |bench| {
            let text = read(&bench.there.join(".git/packed-refs"));
            there(bench, "packed-refs", text.replace('\n', "\r\n"));
        }),
        ("a link", "packed-refs", |bench| {
            let at = bench.there.join(".git/packed-refs");
            fs::rename(&at, bench.there.join(".git/refs-elsewhere")).unwrap();
            symlink("refs-elsewhere", at).unwrap();
        }),
        ("a link for a branch", "refs/heads/side", |bench| {
            let at = bench.there.join(".git/refs/heads/side");
            symlink("main", at).unwrap();
        }),
        ("a link for all tags", "refs/tags", |bench| {
            let at = bench.there.join(".git/refs/tags");
            let text = read(&bench.there.join(".git/packed-refs"));
            let heads = text.lines().filter(|line| !line.starts_with('^') && !line.contains("refs/tags/"));
            let heads: Vec<&str> = heads.collect();
            there(bench, "packed-refs", format!("{}\n", heads.join("\n")));
            fs::remove_dir(&at).unwrap();
            symlink("elsewhere", at).unwrap();
        }),
        ("a branch that is another one", "refs/heads/side", |bench| {
            there(bench, "refs/heads/side", "ref: refs/heads/main\n");
        }),
        ("a branch of another format", "refs/heads/side", |bench| {
            there(bench, "refs/heads/side", format!("{ABSENT_SHA256}\n"));
        }),
    ];
    for (what, told, forge) in cases {
        with_each_git(|bench| {
            bench.here(&["branch", "side", "main~1"]);
            bench.here(&["tag", "packed", "main~1"]);
            bench.prepare();
            bench.there(&["pack-refs", "--all"]);
            let before = bench.here(&["for-each-ref", "refs/heads/side", "refs/tags", "refs/paperclip"]);
            write(&bench.there.join("n.txt"), "n\n");
            let new = bench.commit_there("new");
            forge(bench);
            let report = bench.restore();
            assert!(holds(&report, told), "{what}: {report:?}");
            let after = bench.here(&["for-each-ref", "refs/heads/side", "refs/tags", "refs/paperclip"]);
            assert_eq!(after, before, "{what}: {report:?}");
            assert_eq!(bench.here(&["rev-parse", "main"]), new, "{what}");
            bench.assert_sound(&bench.here, &[&new]);
        });
    }
}

#[test]
fn a_head_that_names_no_branch_is_held_back() {
    forged(
        |bench, _| there(bench, "HEAD", "ref: refs/tags/v1\n"),
        &["HEAD"],
        |bench| assert_eq!(bench.here(&["symbolic-ref", "HEAD"]), "refs/heads/main"),
    );
}

/// Without a `HEAD` it is no repository, and what it lacks is not deleted here.
#[test]
fn a_git_directory_that_is_no_repository_deletes_nothing() {
    with_each_git(|bench| {
        bench.prepare();
        let before = bench.here(&["for-each-ref"]);
        fs::remove_dir_all(bench.there.join(".git")).unwrap();
        fs::create_dir(bench.there.join(".git")).unwrap();
        let report = bench.restore();
        assert!(holds(&report, ".git"), "{report:?}");
        assert_eq!(bench.here(&["for-each-ref"]), before);
        bench.assert_sound(&bench.here, &[]);
    });
    // Nor is a repository made of it locally where it is new.
    with_each_git(|bench| {
        bench.prepare();
        fs::create_dir_all(bench.there.join("nested/.git")).unwrap();
        let report = bench.restore();
        assert!(holds(&report, "nested/.git"), "{report:?}");
        assert!(!bench.here.join("nested/.git").exists());
    });
}

/// The objects of such a repository are kept, since its references are not read.
#[test]
fn a_new_repository_with_a_reftable_is_refused_and_kept() {
    with_each_git(|bench| {
        bench.prepare();
        let nested = bench.there.join("nested");
        fs::create_dir(&nested).unwrap();
        if !bench.try_git(&nested, &["init", "-q", "-b", "main", "--ref-format=reftable"]).0 {
            // An older git has no reftable, which is a folder of that name.
            bench.git(&nested, &["init", "-q", "-b", "main"]);
            write(&nested.join(".git/reftable/tables.list"), "");
        }
        write(&nested.join("x.txt"), "x\n");
        let commit = bench.commit(&nested, "nested");
        let report = bench.restore();
        assert!(report.held_back.iter().any(|held| held.what.is_none() && held.reason.contains("reftable")));
        assert!(!bench.here.join("nested/.git").exists());
        let kept = bench.here.join(".paperclip-runtime/conflicts/2026-11-28T12:00:01.000Z/nested/git");
        let object = kept.join("objects").join(&commit[..2]).join(&commit[2..]);
        assert!(object.exists(), "{report:?}");
    });
}

/// Git refuses to stage such a path, but reads an index that names it.
#[test]
fn an_index_with_a_path_below_a_dot_git_is_held_back() {
    let forge = |folder: &Path| {
        let index = folder.join(".git/index");
        let bytes = fs::read(&index).unwrap();
        let at = bytes.windows(11).position(|window| window == b"Agit/config").expect("it is staged");
        let forged = [&bytes[..at], b".git/config", &bytes[at + 11..]].concat();
        // Its checksum is read by `git fsck` alone.
        fs::write(index, forged).unwrap();
    };
    forged(
        |bench, _| {
            write(&bench.there.join("Agit/config"), "[core]\n\tfsmonitor = touch $CANARY\n");
            bench.there(&["add", "Agit"]);
            forge(&bench.there);
        },
        &["index"],
        |bench| assert!(!bench.here(&["ls-files"]).contains("git/config")),
    );
    // A local repository with such an index is not uploaded.
    with_each_git(|bench| {
        write(&bench.here.join("Agit/config"), "x");
        bench.here(&["add", "Agit"]);
        forge(&bench.here);
        let refused = bench.prepare();
        assert!(refused.iter().any(|reason| reason.contains("no index may hold")), "{refused:?}");
    });
}

/// Git lists such an index, and dies of it in `git fsck`.
#[test]
fn an_index_that_has_a_path_and_a_conflict_about_it_is_held_back() {
    for stages in [&["0", "1"][..], &["0", "2", "3"]] {
        forged(
            |bench, new| {
                let blob = bench.there(&["rev-parse", &format!("{new}:n.txt")]);
                let lines = stages.iter().map(|stage| format!("100644 {blob} {stage}\\tforged.txt\\n"));
                let lines = lines.collect::<String>();
                let alias = format!("alias.forge=!printf '{lines}' | git update-index --index-info");
                bench.there(&["-c", &alias, "forge"]);
            },
            &["index"],
            |bench| assert!(!bench.here(&["ls-files"]).contains("forged.txt")),
        );
    }
    // A conflict alone is what a merge leaves.
    with_each_git(|bench| {
        bench.prepare();
        bench.there(&["checkout", "-q", "-b", "side"]);
        write(&bench.there.join("README.md"), "one\n");
        bench.commit_there("one");
        bench.there(&["checkout", "-q", "main"]);
        write(&bench.there.join("README.md"), "two\n");
        bench.commit_there("two");
        assert!(!bench.try_git(&bench.there, &["merge", "-q", "side"]).0);
        bench.restore();
        assert_eq!(bench.here(&["ls-files", "--unmerged"]).lines().count(), 2);
    });
}

/// Committed, it would be refused by `git fsck`.
#[test]
fn settings_that_are_only_staged_are_checked_like_those_in_a_commit() {
    const HOSTILE: &str = "[submodule \"a/../../b\"]\n\tpath = b\n\turl = -u./x\n";
    const HARMLESS: &str = "[submodule \"b\"]\n\tpath = b\n\turl = https://localhost/b\n";
    for (name, text, is_taken) in [
        (".gitmodules", HOSTILE, false),
        ("below/.gitmodules", HOSTILE, false),
        (".GitModules", HOSTILE, false),
        ("gitmod~1", HOSTILE, false),
        (".gitmodules", HARMLESS, true),
        (".gitattributes", "*.txt text\n", true),
        ("other", HOSTILE, true),
    ] {
        forged(
            |bench, _| {
                write(&bench.there.join(name), text);
                bench.there(&["-c", "core.protectNTFS=false", "add", "--", name]);
            },
            if is_taken { &[] } else { &["index"] },
            |bench| assert_eq!(bench.here(&["ls-files"]).contains(name), is_taken, "{name}"),
        );
    }
}

#[test]
fn a_staged_path_that_git_ignores_here_is_named() {
    forged(
        |bench, new| {
            let blob = bench.there(&["rev-parse", &format!("{new}:n.txt")]);
            let forged = format!("100644,{blob},q\\.git\\config");
            bench.there(&["-c", "core.protectNTFS=false", "update-index", "--add", "--cacheinfo", &forged]);
        },
        &["index: q"],
        |bench| assert!(!bench.here(&["ls-files"]).contains("config")),
    );
}

/// A repository that cannot be written to keeps back no other one.
#[test]
fn what_comes_for_a_repository_that_is_read_only_here_is_kept() {
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount").args(args).status().unwrap();
        assert!(status.success(), "mount {args:?}");
    };
    with_each_git(|bench| {
        for name in ["closed", "open"] {
            bench.new_repository(&bench.here.join(name));
        }
        bench.prepare();
        for name in ["closed", "open"] {
            write(&bench.there.join(name).join("n.txt"), "n\n");
            bench.commit(&bench.there.join(name), "there");
        }
        let at = bench.here.join("closed/.git");
        let (dot_git, objects) = (at.to_str().unwrap(), at.join("objects"));
        let objects = objects.to_str().unwrap();
        mount(&["--bind", dot_git, dot_git]);
        // Objects can be added, and what is written afterwards fails.
        mount(&["--bind", objects, objects]);
        mount(&["-o", "remount,bind,ro", dot_git]);
        let report = bench.restore();
        let unmounted = std::process::Command::new("umount").args(["-R", dot_git]).status().unwrap();
        assert!(unmounted.success());
        let told = |held: &HeldBack| held.reason.starts_with("this process may not");
        assert!(report.held_back.iter().any(told), "{report:?}");
        let subject = |name: &str| bench.git(&bench.here.join(name), &["log", "-1", "--format=%s"]);
        assert_eq!(subject("open"), "there");
        assert_ne!(subject("closed"), "there");
    });
}

#[test]
fn a_tree_that_is_staged_as_a_file_is_held_back() {
    forged(
        |bench, _| {
            let tree = bench.there(&["rev-parse", "HEAD^{tree}"]);
            bench.there(&["update-index", "--add", "--cacheinfo", &format!("100644,{tree},forged.txt")]);
        },
        &["index"],
        |bench| assert!(!bench.here(&["ls-files"]).contains("forged.txt")),
    );
}

#[test]
fn a_stash_is_stored_once_under_a_plain_message() {
    let text = |oids: &[&str], message: &str| -> String {
        let lines = oids.iter().map(|oid| format!("{ABSENT} {oid} A <a@a> 1 +0000\t{message}\n"));
        lines.collect::<Vec<_>>().concat()
    };
    // Its log names each of two entries twice.
    forged(
        |bench, new| {
            let (new, other) = (&stash_on(bench, new), &stash_on(bench, "main~1"));
            there(bench, "refs/stash", format!("{new}\n"));
            there(bench, "logs/refs/stash", text(&[new, other, new, other, new], "\u{1b}[31mred\u{7}"));
        },
        &[],
        |bench| {
            let list = bench.here(&["stash", "list", "--format=%gs"]);
            assert_eq!(list, "\\u{1b}[31mred\\u{7}\n\\u{1b}[31mred\\u{7}");
        },
    );
}

/// What it has brought was reported by none, and may be run by a later checkout.
#[test]
fn what_a_killed_restore_brought_counts_as_changed_when_it_is_repeated() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("hooks/x"), "x\n");
        bench.commit_there("on main");
        bench.there(&["checkout", "-q", "-b", "other"]);
        write(&bench.there.join("y"), "y\n");
        bench.commit_there("on other");
        let bases = bench.bases.clone();
        bench.restore();
        let changed = bench.changed.clone();
        assert!(changed.contains(&path("hooks/x")) && changed.contains(&path("y")), "{changed:?}");
        bench.bases = bases;
        bench.restore_as(2);
        assert_eq!(bench.changed, changed);
        bench.restore_as(3);
        assert_eq!(bench.changed, BTreeSet::new());
    });
}

/// A restore that was killed is repeated from the state of the last complete one.
#[test]
fn a_repeated_restore_stores_no_stash_twice() {
    with_each_git(|bench| {
        bench.prepare();
        for text in ["one", "two", "three"] {
            write(&bench.there.join("a.txt"), text);
            bench.there(&["stash", "push", "-q", "-m", text]);
        }
        let before = bench.bases.clone();
        bench.restore();
        let list = bench.here(&["stash", "list", "--format=%gs"]);
        assert_eq!(list, "On main: three\nOn main: two\nOn main: one");
        bench.bases = before;
        bench.restore();
        assert_eq!(bench.here(&["stash", "list", "--format=%gs"]), list);
        bench.assert_sound(&bench.here, &[]);
    });
}

#[test]
fn a_stash_that_was_dropped_locally_does_not_come_back() {
    with_each_git(|bench| {
        write(&bench.here.join("a.txt"), "zero");
        bench.here(&["stash", "push", "-q", "-m", "zero"]);
        bench.prepare();
        bench.here(&["stash", "drop", "-q"]);
        write(&bench.there.join("a.txt"), "one");
        bench.there(&["stash", "push", "-q", "-m", "one"]);
        bench.restore();
        assert_eq!(bench.here(&["stash", "list", "--format=%gs"]), "On main: one");
    });
}

#[test]
fn a_damaged_pack_is_refused_with_that_reason() {
    with_each_git(|bench| {
        bench.prepare();
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        write(&bench.there.join(format!(".git/objects/pack/pack-{ABSENT}.pack")), "rubbish");
        let report = bench.restore();
        assert!(report.held_back.iter().any(|held| held.reason.contains("a pack is damaged")), "{report:?}");
        assert_ne!(bench.here(&["rev-parse", "main"]), new);
        bench.assert_sound(&bench.here, &[]);
    });
}

/// A tip that is here already counts only together with what it needs.
#[test]
fn a_commit_that_is_here_without_its_tree_comes_with_it_or_is_refused() {
    for is_damaged in [false, true] {
        with_each_git(|bench| {
            bench.prepare();
            bench.there(&["checkout", "-q", "-b", "topic"]);
            write(&bench.there.join("n.txt"), "n\n");
            let new = bench.commit_there("new");
            bench.there(&["checkout", "-q", "main"]);
            // As a local `git gc` may leave of a commit that was reset.
            let name = |oid: &str| format!(".git/objects/{}/{}", &oid[..2], &oid[2..]);
            write(&bench.here.join(name(&new)), fs::read(bench.there.join(name(&new))).unwrap());
            if is_damaged {
                let tree = bench.there(&["rev-parse", "topic^{tree}"]);
                fs::remove_file(bench.there.join(name(&tree))).unwrap();
            }
            let report = bench.restore();
            let held = report.held_back.iter().any(|held| held.reason.contains("missing or damaged"));
            assert_eq!(held, is_damaged, "{report:?}");
            assert_eq!(bench.here(&["for-each-ref"]).contains(&new), !is_damaged, "{report:?}");
            if !is_damaged {
                bench.assert_sound(&bench.here, &[&new]);
            }
        });
    }
}

#[test]
fn the_backup_of_a_refused_repository_is_no_repository() {
    with_each_git(|bench| {
        bench.prepare();
        for folder in [bench.there.clone(), bench.there.join("git")] {
            if folder.join(".git").exists() {
                fs::remove_dir_all(folder.join(".git")).unwrap();
            }
            fs::create_dir_all(&folder).unwrap();
            bench.git(&folder, &["init", "-q", "-b", "main"]);
            write(&folder.join("x.txt"), "x\n");
            bench.commit(&folder, "of another repository");
        }
        // What is new in the sandbox collides with what is made here meanwhile.
        let report = bench.restore_while(|bench| {
            fs::create_dir(bench.here.join("git")).unwrap();
            bench.git(&bench.here.join("git"), &["init", "-q", "-b", "main"]);
        });
        assert_eq!(report.held_back.len(), 2, "{report:?}");
        let kept = bench.here.join(".paperclip-runtime/conflicts/2026-11-28T12:00:01.000Z");
        assert!(read(&kept.join("git/references.txt")).contains("refs/heads/main"));
        assert!(read(&kept.join("git/git/references.txt")).contains("refs/heads/main"));
        let mut folders = vec![kept];
        while let Some(folder) = folders.pop() {
            let dir = format!("--git-dir={}", folder.display());
            assert!(!bench.try_git(&bench.here, &[&dir, "rev-parse"]).0, "{}", folder.display());
            let below = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            folders.extend(below.filter(|path| path.is_dir()));
        }
    });
}

/// Each restore reports it, and the first one keeps it, with everything that is needed to use it.
#[test]
fn a_refused_repository_is_kept_once_and_whole() {
    with_each_git(|bench| {
        bench.prepare();
        fs::remove_dir_all(bench.there.join(".git")).unwrap();
        bench.there(&["init", "-q", "-b", "main"]);
        bench.commit_there("of another repository");
        bench.there(&["gc", "-q"]);
        write(&bench.there.join("x.txt"), "x\n");
        let mut commit = bench.commit_there("loose");
        let backups = bench.here.join(".paperclip-runtime/conflicts");
        let mut reasons = Vec::new();
        for round in 0..5 {
            // As `keepConflictsDays: 0` does.
            if round == 2 {
                fs::remove_dir_all(&backups).unwrap();
            }
            if round == 4 {
                write(&bench.there.join("y.txt"), "y\n");
                commit = bench.commit_there("more");
            }
            // A backup of a file of the workspace with the same name.
            write(&backups.join("1/git"), "");
            let report = bench.restore();
            assert!(!bench.here.join(".git/paperclip-unfinished-restore").exists());
            let mut kept: Vec<_> =
                fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().path()).collect();
            kept.sort();
            kept.retain(|kept| kept.join("git").is_dir());
            assert_eq!(kept.len(), if round == 4 { 2 } else { 1 }, "{round}: {report:?}");
            let kept = kept.pop().unwrap().join("git");
            let at = kept.strip_prefix(&bench.here).unwrap().to_str().unwrap().to_owned();
            let reason = &report.held_back[0].reason;
            assert!(reason.ends_with(&format!("is at {at}")), "{reason}");
            reasons.push(reason.clone());
            assert!(read(&kept.join("references.txt")).contains(&commit));
            let names =
                fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            let plain = ["head", "index", "objects", "packs", "references.txt", "settings"];
            names.retain(|name| !plain.contains(&&name[..]) && name != "packed-refs");
            assert_eq!(names, Vec::<String>::new());
            // The backup has all objects that its references need.
            let whole = bench.path().join(format!("whole-{round}"));
            bench.git(&bench.path(), &["init", "-q", "--bare", whole.to_str().unwrap()]);
            let script = r#"for pack in "$1"/packs/*; do "$2" index-pack --stdin < "$pack" || exit; done; cp -r "$1"/objects/. objects"#;
            let mut copy = std::process::Command::new("sh");
            copy.args(["-c", script, "sh"]).arg(&kept).arg(&bench.program).current_dir(&whole);
            assert!(copy.output().unwrap().status.success());
            bench.git(&whole, &["update-ref", "refs/heads/main", &commit]);
            bench.git(&whole, &["fsck", "--full"]);
        }
        assert_eq!(reasons[0], reasons[1]);
        assert_eq!(reasons[2], reasons[3]);
    });
}

#[test]
fn a_branch_without_common_history_replaces_one_that_is_unchanged_here() {
    for is_changed_here in [false, true] {
        with_each_git(|bench| {
            bench.prepare();
            let tree = bench.there(&["rev-parse", "HEAD^{tree}"]);
            if is_changed_here {
                let ours = bench.here(&["commit-tree", &tree, "-p", "feature", "-m", "ours"]);
                bench.here(&["update-ref", "refs/heads/feature", &ours]);
            }
            let before = bench.here(&["rev-parse", "feature"]);
            let orphan = bench.there(&["commit-tree", &tree, "-m", "unrelated"]);
            bench.there(&["update-ref", "refs/heads/feature", &orphan]);
            let report = bench.restore();
            assert_eq!(holds(&report, "refs/heads/feature"), is_changed_here, "{report:?}");
            let (branch, kept) = if is_changed_here { (&before, &orphan) } else { (&orphan, &before) };
            assert_eq!(bench.here(&["rev-parse", "feature"]), *branch);
            assert_eq!(bench.here(&["rev-parse", &report.kept[0].kept_at]), *kept);
            bench.assert_sound(&bench.here, &[&before, &orphan]);
        });
    }
}

/// A name of this length can be packed, and git cannot make a file of it.
#[test]
fn a_name_that_git_cannot_store_is_held_back_and_the_others_come() {
    for name in [
        format!("refs/heads/{}", "n".repeat(251)),
        format!("refs/heads/{}/x", "n".repeat(255)),
        format!("refs/tags/{}", "n/".repeat(500)),
        "refs/heads/a..b".to_owned(),
        "refs/heads/a\u{7f}b".to_owned(),
    ] {
        with_each_git(|bench| {
            bench.prepare();
            write(&bench.there.join("n.txt"), "n\n");
            let new = bench.commit_there("new");
            let text = read(&bench.there.join(".git/packed-refs"));
            there(bench, "packed-refs", format!("{text}{new} refs/tags/other\n{new} {name}\n"));
            let report = bench.restore();
            assert_eq!(report.held_back.len(), 1, "{name}: {report:?}");
            assert!(holds(&report, &name[..12]), "{name}: {report:?}");
            assert_eq!(bench.here(&["rev-parse", "main", "other"]), format!("{new}\n{new}"), "{name}");
            bench.assert_sound(&bench.here, &[&new]);
        });
    }
}

#[test]
fn a_repository_that_both_sides_made_in_different_formats_is_kept_and_reported() {
    for (format_here, format_there) in [("sha1", "sha256"), ("sha256", "sha1")] {
        for is_packed in [false, true] {
            with_each_git(|bench| {
                bench.prepare();
                let make = |folder: &Path, format: &str| {
                    fs::create_dir_all(folder).unwrap();
                    let format = format!("--object-format={format}");
                    bench.git(folder, &["init", "-q", "-b", "main", &format]);
                    write(&folder.join("x.txt"), "x\n");
                    bench.commit(folder, "made")
                };
                let ours = make(&bench.here.join("nested"), format_here);
                let theirs = make(&bench.there.join("nested"), format_there);
                if is_packed {
                    bench.git(&bench.there.join("nested"), &["pack-refs", "--all"]);
                }
                let report = bench.restore();
                let is_told = |reason: &str| {
                    let mut held = report.held_back.iter();
                    held.any(|held| held.path == path("nested/.git") && held.reason.contains(reason))
                };
                assert!(is_told("another format (SHA-1 or SHA-256)"), "{report:?}");
                let nested = bench.here.join("nested");
                assert_eq!(bench.git(&nested, &["rev-parse", "main"]), ours);
                bench.assert_sound(&nested, &[&ours]);
                let kept =
                    bench.here.join(".paperclip-runtime/conflicts/2026-11-28T12:00:01.000Z/nested/git");
                let references = ["references.txt", "packed-refs"].map(|name| kept.join(name));
                let references = references.map(|file| fs::read_to_string(file).unwrap_or_default());
                assert!(references.concat().contains(&theirs), "{references:?}");
                assert!(kept.join(format!("objects/{}/{}", &theirs[..2], &theirs[2..])).exists());
            });
        }
    }
}

#[test]
fn a_repository_made_anew_in_another_format_deletes_no_branch() {
    with_each_git(|bench| {
        bench.prepare();
        let before = bench.here(&["for-each-ref"]);
        fs::remove_dir_all(bench.there.join(".git")).unwrap();
        bench.there(&["init", "-q", "-b", "main", "--object-format=sha256"]);
        bench.commit_there("of another repository");
        let report = bench.restore();
        assert!(holds(&report, ".git"), "{report:?}");
        assert_eq!(bench.here(&["for-each-ref"]), before);
    });
}

/// A repository that was made anew with the same history is accepted, and a later one without that history is
/// not.
#[test]
fn another_repository_is_noticed_after_one_with_the_same_history() {
    with_each_git(|bench| {
        bench.prepare();
        let again = |bench: &Bench| {
            fs::remove_dir_all(bench.there.join(".git")).unwrap();
            bench.there(&["init", "-q", "-b", "main"]);
        };
        again(bench);
        let remote = bench.path().join("remote.git");
        bench.there(&["fetch", "-q", remote.to_str().unwrap(), "main"]);
        bench.there(&["reset", "-q", "FETCH_HEAD"]);
        write(&bench.there.join("n.txt"), "n\n");
        let new = bench.commit_there("new");
        let report = bench.restore();
        assert_eq!(bench.here(&["rev-parse", "main"]), new, "{report:?}");
        let before = bench.here(&["for-each-ref"]);
        again(bench);
        write(&bench.there.join("m.txt"), "m\n");
        bench.commit_there("of another repository");
        let report = bench.restore();
        assert!(holds(&report, ".git") && report.updated.is_empty(), "{report:?}");
        assert_eq!(bench.here(&["for-each-ref"]), before);
        // Nothing is noted for a prepare, since nothing was begun.
        assert!(!bench.here.join(".git/paperclip-unfinished-restore").exists());
    });
}

/// Each setting costs a call of git.
#[test]
fn at_most_a_thousand_settings_come_back_at_once() {
    with_each_git(|bench| {
        bench.prepare();
        let more = (0..1001).map(|at| format!("[branch \"b{at}\"]\n\tmerge = refs/heads/main\n"));
        let more = more.collect::<Vec<_>>().concat();
        let text = read(&bench.there.join(".git/config"));
        there(bench, "config", format!("{text}{more}"));
        let report = bench.restore();
        assert_eq!(report.held_back.len(), 1, "{report:?}");
        assert!(holds(&report, "branch.b1000.merge"), "{report:?}");
        assert_eq!(bench.here(&["config", "branch.b999.merge"]), "refs/heads/main");
    });
}

#[test]
fn an_object_of_git_lfs_is_never_replaced() {
    with_each_git(|bench| {
        bench.prepare();
        let digest = crate::sound::sha256("large\n");
        let large = format!(".git/lfs/objects/{}/{}/{digest}", &digest[..2], &digest[2..4]);
        write(&bench.here.join(&large), "damaged here");
        write(&bench.there.join(&large), "large\n");
        bench.restore();
        assert_eq!(read(&bench.here.join(&large)), "damaged here");
    });
}

#[test]
fn an_empty_folder_of_another_spelling_is_reported() {
    with_each_git(|bench| {
        bench.prepare();
        fs::create_dir(bench.there.join(".GIT")).unwrap();
        symlink("elsewhere", bench.there.join(".git/link")).unwrap();
        let report = bench.restore();
        assert!(holds(&report, ".GIT") && holds(&report, ".git/link"), "{report:?}");
        assert!(!bench.here.join(".GIT").exists());
    });
}
