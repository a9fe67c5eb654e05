//! What the local configuration, a hook, or a tool by its name would run from the workspace is reported as sensitive if the
//! sandbox has changed it, whatever links lead there.

use std::collections::BTreeSet;
use std::process::Command;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::git::held::{AtCheckout, Search};
use sandbox_managed_runtime::git::recognise::is_gits;
use sandbox_managed_runtime::merge::conflicts::Retention;
use sandbox_managed_runtime::merge::incoming::Incoming;
use sandbox_managed_runtime::merge::lock::{Attempt, MergeLock};
use sandbox_managed_runtime::merge::options::MergeOptions;
use sandbox_managed_runtime::merge::report::Rescued;
use sandbox_managed_runtime::merge::session::Merge;
use sandbox_managed_runtime::sandbox::repositories::{Shared, named, tell_named};
use sandbox_managed_runtime::tree::entry::Snapshot;
use sandbox_managed_runtime::tree::filter::Filter;

use crate::bench::{Bench, with_each_git};

fn shell(folder: &std::path::Path, script: &str) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Merges the files of the sandbox, and returns what is reported as sensitive.
fn sensitive(bench: &Bench, base: &Snapshot) -> Vec<String> {
    let cancel = Cancel::default();
    let (here, there) = (Root::open(&bench.here).unwrap(), Root::open(&bench.there).unwrap());
    let filter = Filter::by_name(is_gits);
    let incoming = Incoming::from_folder(&there, &filter, base, &here, &cancel).unwrap();
    let mut rescued = Rescued::default();
    let mut merge = Merge::begin(here, incoming, base, &mut rescued).unwrap();
    let Attempt::Taken(lock) = MergeLock::try_acquire(&bench.here).unwrap() else { panic!("it is locked") };
    merge.hold(lock);
    let shared = Shared::of(bench.bases.clone());
    let named = named(merge.root(), &shared, merge.links(base), &cancel).unwrap();
    let options = MergeOptions {
        base,
        left_alone: &filter,
        search: Search::OutsideOfGit,
        written: &AtCheckout::default(),
        retention: Retention::default(),
        cancel: &cancel,
    };
    let mut report = merge.apply(&options, &mut rescued).unwrap();
    tell_named(&mut report, named, &BTreeSet::new(), merge.root()).unwrap();
    merge.finish(&mut rescued).1.unwrap();
    report.sensitive.iter().map(|noted| noted.path.to_string()).collect()
}

/// What the local side has, what the agent does, and what is reported of it.
const CASES: &[(&str, &str, &str, &str)] = &[
    (
        "a link on the way to a hook leads elsewhere",
        "ln -s pre-commit scripts/pc2; ln -s ../../scripts/pc2 .git/hooks/pre-commit; echo 1 > other",
        "ln -sfn ../other scripts/pc2; echo 2 > other",
        "other scripts/pc2",
    ),
    (
        "a link on the way to a hook becomes the hook",
        "ln -s pre-commit scripts/pc2; ln -s ../../scripts/pc2 .git/hooks/pre-commit",
        "rm scripts/pc2; echo 2 > scripts/pc2; echo 2 > unrelated",
        "scripts/pc2",
    ),
    (
        "the file at the end changes",
        "ln -s pre-commit scripts/pc2; ln -s ../../scripts/pc2 .git/hooks/pre-commit",
        "echo 2 > scripts/pre-commit",
        "scripts/pre-commit",
    ),
    (
        "a hook that is a link to nothing gets its file",
        "ln -s ../../later .git/hooks/pre-push",
        "echo 2 > later; echo 2 > other",
        "later",
    ),
    (
        "git's own folder of hooks is a link",
        "rm -rf .git/hooks; ln -s ../scripts .git/hooks",
        "echo 2 > scripts/post-merge",
        "scripts/post-merge",
    ),
    (
        "the folder of hooks is another one",
        "ln -s scripts hh; git config core.hooksPath hh",
        "mkdir zz; ln -sfn zz hh; echo 2 > zz/pre-push; echo 2 > scripts/pre-commit",
        "hh scripts/pre-commit zz/pre-push",
    ),
    (
        "the folder of hooks is reached by a link outside",
        "mkdir .githooks; echo 1 > .githooks/pre-commit; ln -s \"$PWD/.githooks\" ../outl; git config core.hooksPath ../outl",
        "echo 2 > .githooks/pre-commit",
        ".githooks/pre-commit",
    ),
    (
        "a configured hook is a link",
        "mkdir .githooks; ln -s ../scripts/pre-commit .githooks/pre-commit; git config core.hooksPath .githooks",
        "echo 2 > scripts/pre-commit",
        "scripts/pre-commit",
    ),
    (
        "a configured hook becomes a link",
        "mkdir .githooks; echo 1 > .githooks/pre-commit; git config core.hooksPath .githooks",
        "ln -sf ../scripts/new .githooks/pre-commit; echo 2 > scripts/new",
        ".githooks/pre-commit scripts/new",
    ),
    (
        "an included file is a link to a link",
        "mkdir c; echo '[user]' > c/real; ln -s real c/l; ln -s c/l .gitcfg; git config include.path ../.gitcfg",
        "echo '[core]' > c/real",
        "c/real",
    ),
    (
        "a folder above a filter is a link",
        "mkdir e f; echo 1 > e/run; echo 1 > f/run; ln -s e d; git config filter.x.clean d/run",
        "echo 2 > e/run",
        "e/run",
    ),
    (
        "a folder above a filter is another one",
        "mkdir e f; echo 1 > e/run; echo 1 > f/run; ln -s e d; git config filter.x.clean d/run",
        "ln -sfn f d; echo 2 > f/run",
        "d f/run",
    ),
    (
        "links leave the workspace and come back",
        "echo 1 > real; ln -s \"$PWD/back\" ../out; ln -s real back; ln -s ../out go; git config filter.x.clean ./go",
        "echo 2 > real; ln -sfn scripts/pre-commit back",
        "back real",
    ),
    ("links lead nowhere", "ln -s b a; ln -s a b; git config core.hooksPath a/c", "echo 2 > c", ""),
    ("a known name is a link", "echo 1 > real; ln -s real .envrc", "echo 2 > real; echo 2 > other", "real"),
    (
        "a known name is a link to a link",
        "echo 1 > real; echo 1 > other; ln -s real l2; ln -s l2 .envrc",
        "ln -sfn other l2; echo 2 > other",
        "l2 other",
    ),
    (
        "a known folder is a link",
        "mkdir zz; touch zz/a; ln -s zz .vscode",
        "echo 2 > zz/tasks.json; echo 2 > z; mkdir zz/deep; echo 2 > zz/deep/x",
        "zz/deep zz/deep/x zz/tasks.json",
    ),
    (
        "a file in a known folder is a link",
        "mkdir .vscode sub; echo 1 > sub/t; ln -s ../sub/t .vscode/tasks.json",
        "echo 2 > sub/t",
        "sub/t",
    ),
    (
        "a folder with some known files is a link",
        "mkdir cl; echo 1 > cl/settings.json; ln -s cl .claude",
        "echo 2 > cl/settings.json; echo 2 > cl/settings.local.json; echo 2 > cl/notes.md",
        "cl/settings.json cl/settings.local.json",
    ),
    (
        "a known folder becomes a link",
        "mkdir zz; echo 1 > zz/tasks.json",
        "ln -s zz .vscode; echo 2 > zz/tasks.json",
        ".vscode zz/tasks.json",
    ),
    ("a known name in a folder is a link", "mkdir d; echo 1 > r; ln -s ../r d/.envrc", "echo 2 > r", "r"),
    ("a known name leads to nothing", "ln -s later .envrc", "echo 2 > later", "later"),
];

#[test]
fn what_links_lead_to_is_reported_before_and_after() {
    for (what, local, agent, expected) in CASES {
        with_each_git(|bench| {
            shell(&bench.here, "mkdir scripts; echo 1 > scripts/pre-commit; chmod +x scripts/pre-commit");
            shell(&bench.here, local);
            bench.prepare();
            let (here, there) = (Root::open(&bench.here).unwrap(), Root::open(&bench.there).unwrap());
            let (filter, nothing, cancel) =
                (Filter::by_name(is_gits), Snapshot::default(), Cancel::default());
            let sent = Incoming::from_folder(&there, &filter, &nothing, &here, &cancel).unwrap();
            sent.stage.close(&here).unwrap();
            shell(&bench.there, agent);
            let told = sensitive(bench, &sent.snapshot);
            assert_eq!(told.join(" "), *expected, "{what}");
            assert_eq!(sensitive(bench, &sent.snapshot), [""; 0], "{what}: nothing is written again");
        });
    }
}
