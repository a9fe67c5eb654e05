//! `SIGKILL` at any moment of a restore: every file is either old or new, and another process completes the
//! restore.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::tree::filter::Filter;
use sandbox_managed_runtime::tree::scan::snapshot;

use crate::child::{OtherProcess, many_files};
use crate::model::merge;
use crate::place::{Place, begin_merge, restore};
use crate::random::Random;
use crate::rounds;
use crate::tree::{
    Node, Tree, assert_same, change_tree, file, path_of, read_node, read_tree, to_tar, write_tree,
};

const FILES: usize = 120;

/// Restores in another process, which is killed at random moments, until enough of these were in the middle
/// of the changes. `furnish` makes the place, and `complete` finishes the restore.
pub fn kill_often<Around>(
    furnish: impl Fn(&Tree) -> (Around, Place),
    before: &Tree,
    after: &Tree,
    ours: &Tree,
    complete: impl Fn(&Place, &str),
) {
    let download = to_tar(after).end();
    let expected = merge(before, after, ours).tree;
    let changes = changes_of(ours, &expected);
    let mut random = Random::new(7);
    let (mut kills, mut in_the_middle) = (0, 0);
    while in_the_middle < rounds(12) {
        kills += 1;
        assert!(kills < rounds(200), "{in_the_middle} of {kills} kills were in the middle");
        let (_around, place) = furnish(before);
        let other = OtherProcess::start(&place, &download, None);
        change_tree(&place.workspace(), before, ours);
        let change = &changes[random.below(changes.len())];
        go_until_changed(&other, &place.at(path_of(change)));
        other.kill();
        let found = place.tree();
        in_the_middle += usize::from(found != *ours && found != expected);
        for (path, node) in ours {
            let now = found.get(path);
            let gives_way =
                now.is_none() && matches!(node, Node::Folder(_)) && expected.get(path) != Some(node);
            let whole = now == Some(node) || now == expected.get(path) || is_fresh_folder(now) || gives_way;
            assert!(whole, "kill {kills}: {} is {now:?}", path.escape_ascii());
        }
        let what = format!("kill {kills}");
        complete(&place, &what);
        assert_same(&place.tree(), &expected, &what);
        place.assert_no_litter();
    }
    println!("{in_the_middle} of {kills} kills were in the middle of the changes");
}

/// The paths that a restore changes.
fn changes_of(ours: &Tree, expected: &Tree) -> Vec<Vec<u8>> {
    let paths = ours.keys().chain(expected.keys());
    paths.filter(|path| ours.get(*path) != expected.get(*path)).cloned().collect()
}

/// Lets the other process restore until a path is changed, or the restore has ended.
fn go_until_changed(other: &OtherProcess, path: &Path) {
    let identity = || fs::symlink_metadata(path).ok().map(|metadata| metadata.ino());
    let old = identity();
    other.go();
    while identity() == old && !other.is_done() {
        thread::yield_now();
    }
}

/// A place without anything special.
fn plain(tree: &Tree) -> ((), Place) {
    ((), Place::with(tree))
}

/// A folder gets its final mode once it is filled.
fn is_fresh_folder(node: Option<&Node>) -> bool {
    node == Some(&Node::Folder(0o700))
}

#[test]
fn a_new_restore_completes_a_killed_one() {
    let (before, after) = many_files(FILES);
    kill_often(plain, &before, &after, &before, |place, what| {
        let (client, session) = place.prepare_canned();
        client.answer(to_tar(&after).end());
        let report = restore(&session, &*client).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(report.conflicts.is_empty(), "{what}: nobody edited anything: {:?}", report.conflicts);
        assert!(place.kept_aside().is_empty(), "{what}");
    });
}

#[test]
fn a_new_merge_completes_a_killed_one_and_no_edit_is_lost() {
    let (before, after) = many_files(FILES);
    let (edits, ours) = edited(&before);
    kill_often(plain, &before, &after, &ours, |place, what| {
        complete_by_merge(place, &before, &after, what);
        assert_no_edit_is_lost(place, &edits, what);
        for (path, node) in place.kept_aside() {
            let of_the_sandbox = after.get(&path) == Some(&node) && matches!(node, Node::File(..));
            assert!(!of_the_sandbox, "{what}: what the sandbox brought is kept as if it were an edit");
        }
    });
}

/// Edits every second file, in the workspace and in the tree.
fn edited(before: &Tree) -> (Tree, Tree) {
    let files = before.iter().filter(|(_, node)| matches!(node, Node::File(..))).step_by(2).enumerate();
    let edits: Tree = files
        .map(|(number, (path, _))| (path.clone(), file(format!("local edit {number} ").repeat(30))))
        .collect();
    let mut ours = before.clone();
    ours.extend(edits.clone());
    (edits, ours)
}

fn assert_no_edit_is_lost(place: &Place, edits: &Tree, what: &str) {
    let (now, kept) = (place.tree(), place.kept_aside());
    for (path, node) in edits {
        let stands = now.get(path) == Some(node);
        let is_kept = kept.iter().any(|(_, kept)| kept == node);
        assert!(stands || is_kept, "{what}: the edit of {} is gone", path.escape_ascii());
    }
}

/// Runs git in a workspace that is the work tree of a repository beside it.
fn git(place: &Place, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test", "-c", "core.excludesFile=/dev/null"])
        .arg("--git-dir")
        .arg(place.root().join("repository"))
        .arg("--work-tree")
        .arg(place.workspace())
        .args(arguments)
        .current_dir(place.workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whenever the kill happens: neither `git clean -fd` nor `git add -A` takes what may be the only copy of an
/// edit.
#[test]
fn git_neither_removes_nor_adds_what_a_killed_restore_left() {
    let (before, after) = many_files(FILES);
    let (edits, ours) = edited(&before);
    let download = to_tar(&after).end();
    let changes = changes_of(&ours, &merge(&before, &after, &ours).tree);
    let mut stages = 0;
    for round in 0..rounds(12) {
        let what = format!("round {round}");
        let place = Place::with(&before);
        git(&place, &["init", "--quiet"]);
        git(&place, &["add", "--all"]);
        git(&place, &["commit", "--quiet", "--message=before"]);
        let other = OtherProcess::start(&place, &download, None);
        change_tree(&place.workspace(), &before, &ours);
        let runtime = place.at(crate::tree::RUNTIME);
        // At first before anything is changed, and then at another change each time.
        match round.checked_sub(rounds(3)) {
            None => go_until_changed(&other, &runtime),
            Some(later) => {
                let change = &changes[later * changes.len() / rounds(9)];
                go_until_changed(&other, &place.at(path_of(change)));
            }
        }
        other.kill();
        let left =
            |place: &Place| fs::exists(&runtime).unwrap().then(|| read_tree(&place.at(crate::tree::RUNTIME)));
        let before_git = left(&place);
        if let Some(left) = &before_git {
            assert_eq!(left.get(&b".gitignore"[..]), Some(&file("*\n")), "{what}");
            stages += usize::from(left.keys().any(|path| path.starts_with(b"stage-")));
        }
        git(&place, &["clean", "-fd", "--quiet"]);
        assert_eq!(left(&place), before_git, "{what}: git clean took something");
        git(&place, &["add", "--all"]);
        let tracked = git(&place, &["ls-files"]);
        assert!(!tracked.contains(crate::tree::RUNTIME), "{what}: {tracked}");
        complete_by_merge(&place, &before, &after, &what);
        assert_no_edit_is_lost(&place, &edits, &what);
        place.assert_no_litter();
    }
    assert!(stages >= rounds(3), "only {stages} kills left a stage");
}

/// Merges again from what was uploaded, as a process does that has stored its base.
pub fn complete_by_merge(place: &Place, before: &Tree, after: &Tree, what: &str) {
    let apart = Place::with(before);
    let base =
        snapshot(&Root::open(&apart.workspace()).unwrap(), &Filter::default(), &Cancel::default()).unwrap();
    let source = apart.root().join("source");
    fs::create_dir(&source).unwrap();
    write_tree(&source, after);
    let mut merging =
        begin_merge(base, &source, &place.workspace()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let report = merging.apply();
    merging.finish().unwrap();
    report.unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn a_kill_while_waiting_for_the_lock_leaves_nothing() {
    let (before, after) = many_files(20);
    let place = Place::with(&before);
    let lock = place.root().join("workspace.paperclip-restore.lock");
    fs::create_dir(&lock).unwrap();
    let owner = format!("{{\"pid\":{},\"createdAt\":\"\"}}", std::process::id());
    fs::write(lock.join("owner.json"), owner).unwrap();
    let other = OtherProcess::start(&place, &to_tar(&after).end(), None);
    other.go();
    // It has staged everything and waits for the lock as soon as its stage is full.
    let staged = |place: &Place| {
        let found = walkdir::WalkDir::new(place.at(crate::tree::RUNTIME)).into_iter().filter_map(Result::ok);
        found.filter(|entry| entry.file_type().is_file()).count()
    };
    while staged(&place) < 20 {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(other.kill(), "it was waiting");
    assert_same(&place.tree(), &before, "untouched");
    fs::remove_dir_all(&lock).unwrap();
    let (client, session) = place.prepare_canned();
    client.answer(to_tar(&before).end());
    restore(&session, &*client).unwrap();
    place.assert_no_litter();
    assert!(!path_exists(&place, crate::tree::RUNTIME), "not even the folder that it had made");
    assert_eq!(read_node(&place.at(path_of(b"folder-0/changed-0"))), before[&b"folder-0/changed-0"[..]]);
}

fn path_exists(place: &Place, name: &str) -> bool {
    fs::symlink_metadata(place.at(name)).is_ok()
}
