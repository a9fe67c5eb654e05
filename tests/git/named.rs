//! What the local configuration, a hook, or a tool by its name would run from the workspace is reported as sensitive if the
//! sandbox has changed it, whatever links lead there.

use std::collections::BTreeSet;
use std::process::Command;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::git::held::{AtCheckout, Search};
use sandbox_managed_runtime::git::named::Outline;
use sandbox_managed_runtime::git::recognise::is_gits;
use sandbox_managed_runtime::merge::conflicts::Retention;
use sandbox_managed_runtime::merge::incoming::Incoming;
use sandbox_managed_runtime::merge::lock::{Attempt, MergeLock};
use sandbox_managed_runtime::merge::options::MergeOptions;
use sandbox_managed_runtime::merge::report::{Report, Rescued};
use sandbox_managed_runtime::merge::session::Merge;
use sandbox_managed_runtime::sandbox::repositories::{Shared, named, tell_named, tell_newly_included};
use sandbox_managed_runtime::tree::entry::Snapshot;
use sandbox_managed_runtime::tree::filter::Filter;

use crate::bench::{Bench, gits, with_each_git};

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
    let mut named = named(merge.root(), &shared, merge.outline(base), &cancel).unwrap();
    let options = MergeOptions {
        base,
        left_alone: &filter,
        search: Search::OutsideOfGit,
        written: &AtCheckout::default(),
        retention: Retention::default(),
        cancel: &cancel,
    };
    let mut report = merge.apply(&options, &mut rescued).unwrap();
    tell_named(&mut report, &mut named, &BTreeSet::new(), merge.root()).unwrap();
    merge.finish(&mut rescued).1.unwrap();
    report.sensitive.iter().map(|noted| noted.path.to_string()).collect()
}

/// Uploads, has the agent work, and compares what is reported.
fn check(bench: &mut Bench, what: &str, agent: &str, expected: &str) {
    check_while(bench, what, agent, "", expected);
}

/// The same, with something that happens locally before the restore.
fn check_while(bench: &mut Bench, what: &str, agent: &str, meanwhile: &str, expected: &str) {
    bench.prepare();
    let (here, there) = (Root::open(&bench.here).unwrap(), Root::open(&bench.there).unwrap());
    let (filter, nothing, cancel) = (Filter::by_name(is_gits), Snapshot::default(), Cancel::default());
    let shared = || {
        let sent = Incoming::from_folder(&there, &filter, &nothing, &here, &cancel).unwrap();
        sent.stage.close(&here).unwrap();
        sent.snapshot
    };
    let sent = shared();
    shell(&bench.there, agent);
    shell(&bench.here, meanwhile);
    let told = sensitive(bench, &sent);
    assert_eq!(told.join(" "), expected, "{what}");
    assert_eq!(sensitive(bench, &shared()), [""; 0], "{what}: it is shared now");
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
    (
        "the configuration is a link",
        "mv .git/config gitcfg; ln -s ../gitcfg .git/config; echo 1 > other",
        "echo '[core]' >> gitcfg; echo 2 > other",
        "gitcfg",
    ),
    (
        "the configuration of a worktree is a link, perhaps to nothing",
        "ln -s ../cw .git/config.worktree; git worktree add -q ../wt; ln -s \"$PWD/other\" .git/worktrees/wt/config.worktree",
        "echo '[core]' > cw; echo '[core]' > other; echo 2 > unrelated",
        "cw other",
    ),
    (
        "the git directory is outside, and its configuration leads in",
        "mv .git ../gd; echo \"gitdir: ../gd\" > .git; mv ../gd/config cfg; ln -s \"$PWD/cfg\" ../gd/config",
        "echo '[core]' >> cfg",
        "cfg",
    ),
    (
        "an included file is a link outside",
        "echo '[core]' > cfg; ln -s \"$PWD/cfg\" ../linked; git config include.path ../../linked",
        "echo '[core]' >> cfg",
        "cfg",
    ),
    (
        "parts of a repository are links",
        "mkdir parts; mv .git/info parts/info; ln -s ../parts/info .git/info; touch parts/info/attributes",
        "echo '* filter=x' > parts/info/attributes; echo 1 > parts/other",
        "parts/info/attributes",
    ),
    (
        "objects are read from a folder",
        "mkdir objs; touch objs/keep; echo ../../objs > .git/objects/info/alternates",
        "mkdir objs/info; echo /x > objs/info/alternates; echo 2 > other",
        "objs/info objs/info/alternates",
    ),
    (
        "objects are read from a folder that another one names",
        "mkdir -p ../objs/info objs; touch objs/keep; printf '\"%s/objs\"\\n' \"$PWD\" > ../objs/info/alternates
         printf '# x\\n../../../objs\\n' > .git/objects/info/alternates",
        "echo 2 > objs/keep",
        "objs/keep",
    ),
    (
        "the list of further folders of objects is a link",
        "echo '#' > list; ln -s ../../../list .git/objects/info/alternates",
        "echo /x > list",
        "list",
    ),
    (
        "a link on the way to a git directory leads elsewhere",
        "mkdir real n; git init -q --separate-git-dir real/n.git n; git -C n -c user.name=a -c user.email=a@b commit -q --allow-empty -m x
         ln -s real l; echo 'gitdir: ../l/n.git' > n/.git",
        "mkdir evil; touch evil/x; ln -sfn evil l",
        "l",
    ),
    (
        "the way to a git directory leads out and back",
        "git init -q n; git -C n -c user.name=a -c user.email=a@b commit -q --allow-empty -m x; mv n/.git ../n.git
         ln -s \"$PWD/back\" ../out; ln -s .. back; echo \"gitdir: ../../out/n.git\" > n/.git",
        "mkdir evil; touch evil/x; ln -sfn evil back",
        "back",
    ),
    (
        "the folder for the files of a repository becomes a link",
        "mkdir tree; touch tree/a; git init -q n; git -C n config core.worktree ../../tree",
        "rm -r tree; mkdir evil; ln -s evil tree",
        "tree",
    ),
    (
        "the folder for the files of a repository is a link, and hooks run there",
        "mkdir t u; touch t/a u/a; ln -s t tree; git init -q n; git -C n config core.worktree ../../tree
         git -C n config core.hooksPath hk",
        "ln -sfn u tree; mkdir t/hk; echo 2 > t/hk/pre-commit; echo 2 > t/a",
        "t/hk/pre-commit tree",
    ),
    (
        "a folder that git copies is changed",
        "mkdir -p tpl/hooks; touch tpl/hooks/x; git config init.templateDir \"$PWD/tpl\"",
        "echo 2 > tpl/hooks/pre-commit",
        "tpl/hooks/pre-commit",
    ),
    (
        "a hook names a file without its extension",
        "mkdir tools; touch tools/x; echo 'exec node tools/clean && python3 -m tools.mod' > .git/hooks/pre-commit",
        "for f in clean.js other.js mod.py clean.test.js; do echo 2 > tools/$f; done; echo 2 > clean.js",
        "tools/clean.js tools/mod.py",
    ),
    (
        "a hook names a folder",
        "mkdir -p tools/clean src m; touch tools/clean/x src/b m/x; echo 'node tools/clean; npx eslint src; make -C m' > .git/hooks/pre-commit",
        "for f in tools/clean/index.js tools/clean/a.js src/a.js src/b package.json m/Makefile m/a.mk; do echo 2 > $f; done",
        "m/Makefile package.json tools/clean/index.js",
    ),
    (
        "what a hook names without its extension is a link",
        "mkdir tools; echo 1 > real; ln -s ../real tools/clean.js; echo 'exec node tools/clean' > .git/hooks/pre-commit",
        "echo 2 > real",
        "real",
    ),
    (
        "what a hook names without its extension becomes a link to a link",
        "mkdir tools; touch tools/x; echo 'exec node tools/clean' > .git/hooks/pre-commit",
        "echo 2 > real; ln -s real second; ln -s ../second tools/clean.js",
        "real second tools/clean.js",
    ),
    (
        "names with quotes, in options and behind a variable",
        r#"echo 'sh f\ a; sh "it'"'"'s" "$PWD/in this" "tools"/x $HOME' > .git/hooks/pre-commit
           git config core.sshCommand 'ssh -Fcfg/ssh @list'; mkdir cfg tools; touch cfg/x tools/y"#,
        "for f in 'f a' \"it's\" 'in this' tools/x cfg/ssh list unrelated; do echo 2 > \"$f\"; done",
        "cfg/ssh f a in this it's list tools/x",
    ),
    (
        "a link leaves the workspace by another one",
        "mkdir d2; touch d2/x",
        "ln -s .. d2/l; ln -s d2/l/../o out; ln -s d2/l/o in; ln -s d2/../o as-text",
        "out",
    ),
    (
        "a link leaves the workspace since another one on its way was changed",
        "mkdir -p a/b; ln -s a/b s; ln -s s/../../x l; ln -s s/x stays",
        "ln -sfn a s",
        "l",
    ),
    (
        "a link leaves the workspace since another one on its way was deleted",
        "mkdir -p a/b; ln -s a/b s; ln -s s/../../x l",
        "rm s",
        "l",
    ),
    ("a link leaves the workspace as before", "mkdir a; ln -s ../x l; ln -s a s", "rm s; ln -s a s2", ""),
    ("links lead in circles", "touch x", "ln -s b a; ln -s a b; ln -s a/../../x c", ""),
    (
        "a bare repository names files",
        "git init -q --bare up.git; git -C up.git config core.hooksPath ../gh; echo 'sh ../tools/x' > up.git/hooks/update
         mkdir gh tools; touch gh/x tools/x",
        "echo 2 > gh/post-checkout; echo 2 > tools/x; echo 2 > unrelated",
        "gh/post-checkout tools/x",
    ),
    (
        "a repository whose .git is a link names files",
        "git init -q n; mv n/.git ../n.git; ln -s ../../n.git n/.git; git -C n config core.hooksPath gh; mkdir n/gh; touch n/gh/x",
        "echo 2 > n/gh/pre-commit; echo 2 > n/a",
        "n/gh/pre-commit",
    ),
    (
        "a repository whose configuration is bad names files",
        "git config include.path ../inc; git config core.hooksPath gh; echo '[broken' > inc; mkdir gh; touch gh/x",
        "echo '[core]' > inc; echo 2 > gh/pre-commit",
        ".git gh/pre-commit inc",
    ),
    (
        "a repository whose own configuration is bad",
        "mkdir gh; git config core.hooksPath gh; echo '[broken' >> .git/config",
        "echo 2 > other",
        ".git",
    ),
    (
        "a repository that git does not accept",
        "git config core.hooksPath gh; mkdir gh; touch gh/x; rm .git/HEAD",
        "echo 2 > gh/pre-commit",
        "gh/pre-commit",
    ),
    (
        "a repository with an extension that git does not know",
        "git config core.hooksPath gh; mkdir gh; touch gh/x
         git config core.repositoryFormatVersion 1; git config extensions.unknown true",
        "echo 2 > gh/pre-commit",
        "gh/pre-commit",
    ),
    (
        "an included file is deleted, and a hook",
        "git config include.path ../inc; git config core.hooksPath gh; echo '[x]' > inc; mkdir gh; touch gh/pre-commit gh/x y",
        "rm inc gh/pre-commit y",
        "gh/pre-commit inc",
    ),
    (
        "a folder of another user's",
        "git config include.path \"~root/../../..$PWD/inc\"; git config core.hooksPath \"~root/../../..$PWD/gh\"
         echo '[y]' > inc; mkdir gh; touch gh/x",
        "echo '[x]' > inc; echo 2 > gh/pre-commit",
        "gh/pre-commit inc",
    ),
    (
        "an address begins with a folder",
        "mkdir m; touch m/x; git config \"url.$PWD/m/.insteadOf\" https://host.invalid/; git config url.file://$PWD/f/.pushInsteadOf x:",
        "mkdir m/up f; touch f/x; touch m/up/a y",
        "f f/x m/up m/up/a",
    ),
];

#[test]
fn what_links_lead_to_is_reported_before_and_after() {
    for (what, local, agent, expected) in CASES {
        with_each_git(|bench| {
            shell(&bench.here, "mkdir scripts; echo 1 > scripts/pre-commit; chmod +x scripts/pre-commit");
            shell(&bench.here, local);
            check(bench, what, agent, expected);
        });
    }
}

/// What the local side has, what the agent does, what happens locally meanwhile, and what is reported.
const MEANWHILE: &[(&str, &str, &str, &str, &str)] = &[
    (
        "a nested repository appears in a folder",
        "mkdir -p n/gh; touch n/gh/pre-commit",
        "echo 2 > n/gh/pre-commit",
        "git init -q n; git -C n config core.hooksPath gh",
        "n/gh/pre-commit",
    ),
    (
        "a repository appears in a new folder",
        "mkdir gh; touch gh/pre-commit",
        "echo 2 > gh/pre-commit",
        "git init -q n; git -C n config core.hooksPath ../gh",
        "gh/pre-commit",
    ),
    (
        "a worktree appears",
        "git config core.hooksPath gh",
        "mkdir -p wt/gh; echo 2 > wt/gh/pre-commit",
        "git worktree add -q --detach wt",
        "wt/gh/pre-commit",
    ),
    (
        "a worktree appears in a deep folder that the sandbox does not have",
        "git config core.hooksPath ../../gh; mkdir gh; touch gh/pre-commit",
        "echo 2 > gh/pre-commit",
        "git worktree add -q --detach other/deep",
        "gh/pre-commit",
    ),
    (
        "a bare repository appears",
        "mkdir gh; touch gh/update",
        "echo 2 > gh/update",
        "git init -q --bare up.git; git -C up.git config core.hooksPath ../gh",
        "gh/update",
    ),
    (
        "the configuration gets another folder of hooks",
        "mkdir gh; touch gh/update",
        "echo 2 > gh/update",
        "git config core.hooksPath gh",
        "gh/update",
    ),
];

#[test]
fn named_files_are_those_of_the_moment_of_the_restore() {
    for (what, local, agent, meanwhile, expected) in MEANWHILE {
        with_each_git(|bench| {
            shell(&bench.here, local);
            check_while(bench, what, agent, meanwhile, expected);
        });
    }
}

/// A condition of the local configuration, what the agent does, and whether the condition is then newly met.
const CONDITIONS: &[(&str, &str, bool)] = &[
    ("hasconfig:remote.*.url:https://corp.invalid/**", "git remote add corp https://corp.invalid/x", true),
    ("hasconfig:remote.*.url:https://corp.invalid/**", "git remote add corp https://other.invalid/x", false),
    ("onbranch:work/**", "git checkout -q -b work/x", true),
    ("onbranch:work/**", "git checkout -q -b other", false),
    ("onbranch:main", "git checkout -q -b other", false),
    ("onbranch:**", "git checkout -q -b other", false),
];

#[test]
fn a_conditional_include_that_applies_only_now_is_reported() {
    for (condition, agent, is_met) in CONDITIONS {
        with_each_git(|bench| {
            std::fs::write(bench.path().join("inc"), "[x]\n\ty = z\n").unwrap();
            bench.here(&["config", &format!("includeIf.{condition}.path"), "../../inc"]);
            bench.prepare();
            shell(&bench.there, agent);
            let (root, shared) = (Root::open(&bench.here).unwrap(), Shared::of(bench.bases.clone()));
            let named = named(&root, &shared, Outline::default(), &Cancel::default()).unwrap();
            let mut report = Report::default();
            tell_newly_included(&mut report, &named, &root).unwrap();
            assert_eq!(report, Report::default(), "{condition}");
            bench.restore();
            tell_newly_included(&mut report, &named, &root).unwrap();
            let told: Vec<String> = report.sensitive.iter().map(|noted| noted.path.to_string()).collect();
            let expected: &[&str] = if *is_met { &[".git"] } else { &[] };
            assert_eq!(told, expected, "{condition}: {agent}");
        });
    }
}

/// Says that the local side is that of a user with the environment of this process.
const IS_USER: &str = "TEST_OF_NAMED_FILES_OF_A_USER";

/// What the local side has, what the agent does, and what is reported of it. `$HOME` is outside, unless it is made a link.
const OF_THE_USER: &[(&str, &str, &str, &str)] = &[
    (
        "the user's configuration is a link",
        "mkdir \"$HOME\"; echo '[core]' > dot; ln -s \"$PWD/dot\" \"$HOME/.gitconfig\"",
        "echo '[x]' >> dot; echo 2 > other",
        "dot",
    ),
    (
        "the user's configuration is a link to nothing",
        "mkdir -p \"$HOME/.config/git\"; ln -s \"$PWD/dot\" \"$HOME/.config/git/config\"",
        "echo '[x]' >> dot",
        "dot",
    ),
    (
        "the folder of configurations is a link",
        "mkdir \"$HOME\" cfg; touch cfg/x; ln -s \"$PWD/cfg\" \"$HOME/.config\"",
        "mkdir cfg/git; for f in config attributes other; do echo '#' > cfg/git/$f; done",
        "cfg/git/attributes cfg/git/config",
    ),
    (
        "the folder of the user is in the workspace",
        "mkdir h; touch h/x; ln -s \"$PWD/h\" \"$HOME\"",
        "mkdir h/.ssh; echo '#' > h/.ssh/config; echo '#' > h/.gitconfig; echo 2 > h/x",
        "h/.gitconfig h/.ssh h/.ssh/config",
    ),
    (
        "what variables name is a link",
        "mkdir \"$HOME\" xdg; touch xdg/x; ln -s \"$PWD/xdg\" \"$HOME/xdg\"; ln -s \"$PWD/global\" \"$HOME/global\"",
        "mkdir xdg/git; echo '#' > xdg/git/config; echo '#' > global",
        "global xdg/git/config",
    ),
    (
        "the configuration of ssh is a link",
        "mkdir -p \"$HOME/.ssh\" ssh; ln -s \"$PWD/ssh/config\" \"$HOME/.ssh/config\"; touch ssh/x",
        "echo '#' > ssh/config; echo '#' > ssh/x",
        "ssh/config",
    ),
    (
        "a setting is in a variable",
        "mkdir -p \"$HOME\" hooks tools; touch hooks/x tools/x tools/y",
        "for f in hooks/pre-commit tools/x tools/y; do echo 2 > $f; done",
        "hooks/pre-commit tools/x",
    ),
];

/// Settings in variables of that environment.
const SETTINGS: [(&str, &str); 6] = [
    ("GIT_CONFIG_COUNT", "1"),
    ("GIT_CONFIG_KEY_0", "core.hooksPath"),
    ("GIT_CONFIG_VALUE_0", "hooks"),
    ("GIT_CONFIG_KEY_1", "diff.external"),
    ("GIT_CONFIG_VALUE_1", "tools/y"),
    ("GIT_CONFIG_PARAMETERS", "'diff.external'='tools/x'"),
];

#[test]
fn in_a_process_with_the_environment_of_a_user() {
    let Some(number) = std::env::var_os(IS_USER) else { return };
    let (what, local, agent, expected) = OF_THE_USER[number.to_str().unwrap().parse::<usize>().unwrap()];
    let mut bench = Bench::new(gits().remove(0));
    shell(&bench.here, local);
    check(&mut bench, what, agent, expected);
}

#[test]
fn the_configurations_of_the_user_may_be_in_the_workspace() {
    for (number, (what, ..)) in OF_THE_USER.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", "named::in_a_process_with_the_environment_of_a_user"]);
        other.env("HOME", &home).env("XDG_CONFIG_HOME", home.join("xdg"));
        other.env("GIT_CONFIG_GLOBAL", home.join("global")).env(IS_USER, number.to_string());
        if *what == "a setting is in a variable" {
            other.envs(SETTINGS);
        }
        let output = other.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
