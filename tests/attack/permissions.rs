//! Folders and files without permissions: a restore fails with their names, and completes once it has
//! permission.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::child::{NOBODY, OtherProcess, give_to};
use crate::model::merge;
use crate::place::Place;
use crate::tree::{DIR, Node, Tree, assert_same, change_tree, file, set_mode, to_tar, tree};

fn uploaded() -> Tree {
    tree([
        ("closed", DIR),
        ("closed/changed", file("1")),
        ("closed/gone", file("1")),
        ("closed/sub", DIR),
        ("closed/sub/x", file("1")),
        ("open", DIR),
        ("open/changed", file("1")),
        ("open/gone", file("1")),
        ("z", file("1")),
    ])
}

fn theirs() -> Tree {
    tree([
        ("closed", DIR),
        ("closed/changed", file("2")),
        ("closed/new", file("2")),
        ("closed/sub", DIR),
        ("closed/sub/x", file("2")),
        ("open", DIR),
        ("open/changed", file("2")),
        ("open/new", file("2")),
        ("z", file("2")),
    ])
}

/// Restores as another user a workspace in which `closed` is not accessible, with local edits in it.
fn without_permission(path: &str, mode: u32, fails: bool) {
    let what = format!("{path} with mode {mode:o}");
    let place = Place::with(&uploaded());
    give_to(NOBODY, &place.workspace());
    let other = OtherProcess::start(&place, &to_tar(&theirs()).end(), Some(NOBODY));
    let mut ours = uploaded();
    ours.insert(b"closed/changed".to_vec(), file("a local edit"));
    ours.insert(b"open/changed".to_vec(), file("another local edit"));
    change_tree(&place.workspace(), &uploaded(), &ours);
    give_to(NOBODY, &place.workspace());
    let usual = if place.at(path).is_dir() { 0o755 } else { 0o644 };
    set_mode(&place.at(path), mode);
    other.go();
    let outcome = other.outcome();
    let now = fs::metadata(place.at(path)).unwrap().permissions().mode() & 0o7777;
    assert!(now == mode || !place.at(path).is_dir(), "{what}: it has mode {now:o} afterwards");
    set_mode(&place.at(path), usual);
    assert_eq!(outcome != "done", fails, "{what}: {outcome}");
    if fails {
        assert!(outcome.contains("Some(13)"), "{what}: {outcome}");
        assert!(outcome.contains("/workspace/"), "{what}: it names the path: {outcome}");
    }
    let found = place.tree();
    let expected = merge(&uploaded(), &theirs(), &ours);
    for (path, node) in &ours {
        let now = found.get(path);
        assert!(
            now == Some(node) || now == expected.tree.get(path),
            "{what}: {} is {now:?}",
            path.escape_ascii()
        );
    }
    for edit in ["a local edit", "another local edit"] {
        // A backup keeps its mode.
        let is_edit = |node: &Node| matches!(node, Node::File(_, content) if content == edit.as_bytes());
        let kept = place.kept_aside();
        let found = found.values().chain(kept.iter().map(|(_, node)| node)).any(is_edit);
        assert!(found, "{what}: {edit:?} is gone: {outcome}");
    }
    // Once it is accessible, the restore completes, for root and others.
    let other = OtherProcess::start(&place, &to_tar(&theirs()).end(), Some(NOBODY));
    other.go();
    assert_eq!(other.outcome(), "done", "{what}");
    assert_same(&place.tree(), &expected.tree, &what);
    place.assert_no_litter();
}

#[test]
fn a_restore_without_permission_names_the_path_and_can_be_completed() {
    for (path, mode, fails) in [
        ("closed", 0o000, true),
        ("closed", 0o444, true),
        ("closed", 0o555, false),
        ("closed", 0o311, true),
        ("closed/sub", 0o555, false),
        ("closed/changed", 0o000, true),
        ("closed/changed", 0o444, false),
        ("z", 0o000, true),
        ("z", 0o444, false),
    ] {
        without_permission(path, mode, fails);
    }
}

#[test]
fn a_workspace_without_write_permission_is_refused() {
    let place = Place::with(&uploaded());
    let other = OtherProcess::start(&place, &to_tar(&theirs()).end(), Some(NOBODY));
    other.go();
    let outcome = other.outcome();
    assert!(outcome.contains("Some(13)"), "{outcome}");
    assert_same(&place.tree(), &uploaded(), "untouched");
    place.assert_no_litter();
    give_to(NOBODY, &place.workspace());
    let other = OtherProcess::start(&place, &to_tar(&theirs()).end(), Some(NOBODY));
    other.go();
    assert_eq!(other.outcome(), "done");
    assert_same(&place.tree(), &theirs(), "restored");
}

#[test]
fn folders_that_the_sandbox_made_read_only_are_restored_and_replaced() {
    // A module cache is like this: nobody may write into its folders, not even their owner.
    let read_only = |version: &str| {
        tree([
            ("cache", Node::Folder(0o555)),
            ("cache/module", Node::Folder(0o555)),
            ("cache/module/file", Node::File(0o444, version.into())),
        ])
    };
    let place = Place::new();
    give_to(NOBODY, &place.workspace());
    let other = OtherProcess::start(&place, &to_tar(&read_only("1")).end(), Some(NOBODY));
    other.go();
    assert_eq!(other.outcome(), "done");
    assert_same(&place.tree(), &read_only("1"), "made");

    let mut more = read_only("2");
    more.insert(b"cache/module/more".to_vec(), Node::File(0o444, b"2".to_vec()));
    for next in [more, read_only("1"), tree([("cache", file("no folder any more"))])] {
        let other = OtherProcess::start(&place, &to_tar(&next).end(), Some(NOBODY));
        other.go();
        assert_eq!(other.outcome(), "done");
        assert_same(&place.tree(), &next, "changed");
    }
    assert!(fs::metadata(place.workspace()).is_ok());
    place.assert_no_litter();
}
