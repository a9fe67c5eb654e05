//! Modes: they are merged separately from bytes, never taken over if the next run would fail on them, and
//! restored on folders that had to be made writable.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};

use crate::child::{NOBODY, OtherProcess, give_to};
use crate::place::{Place, restore};
use crate::raw_tar::RawTar;
use crate::tree::{DIR, Node, Picture, Tree, assert_same, file, set_mode, to_tar, tree};

fn mode_of(path: impl AsRef<std::path::Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn executable(content: &str) -> Node {
    Node::File(0o755, content.into())
}

#[test]
fn a_local_edit_is_kept_when_the_sandbox_changes_the_mode() {
    let place = Place::with(&tree([("f", file("uploaded"))]));
    let (client, session) = place.prepare_canned();
    fs::write(place.at("f"), "an edit").unwrap();
    client.answer(to_tar(&tree([("f", executable("uploaded"))])).end());
    let report = restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &tree([("f", executable("an edit"))]), "both");
    assert_eq!(report.conflicts, []);
    assert_eq!(report.written.len(), 1);
    place.assert_no_litter();

    // The edit still differs from what the sandbox has: if that changes as well, it is backed up.
    client.answer(to_tar(&tree([("f", executable("changed there"))])).end());
    let report = restore(&session, &*client).unwrap();
    assert_eq!(report.conflicts.len(), 1);
    assert!(place.still_has(b"f", &executable("an edit")));
}

#[test]
fn a_local_mode_is_kept_when_the_sandbox_changes_the_bytes() {
    let place = Place::with(&tree([("f", file("uploaded"))]));
    let (client, session) = place.prepare_canned();
    set_mode(&place.at("f"), 0o600);
    client.answer(to_tar(&tree([("f", file("changed there"))])).end());
    let report = restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &tree([("f", Node::File(0o600, b"changed there".to_vec()))]), "both");
    assert_eq!(report.conflicts, []);
    // Later changes as well.
    client.answer(to_tar(&tree([("f", file("changed again"))])).end());
    restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &tree([("f", Node::File(0o600, b"changed again".to_vec()))]), "again");
}

#[test]
fn a_mode_is_set_in_place_only_on_a_file_with_one_name() {
    for local in ["uploaded", "an edit"] {
        let place = Place::with(&tree([("alone", file("uploaded")), ("shared", file("uploaded"))]));
        let (client, session) = place.prepare_canned();
        fs::write(place.at("alone"), local).unwrap();
        fs::write(place.at("shared"), local).unwrap();
        let store = place.outside().join("store");
        fs::hard_link(place.at("shared"), &store).unwrap();
        let inode = |name: &str| fs::metadata(place.at(name)).unwrap().ino();
        let (alone, shared) = (inode("alone"), inode("shared"));

        let theirs = tree([("alone", executable("uploaded")), ("shared", executable("uploaded"))]);
        client.answer(to_tar(&theirs).end());
        let report = restore(&session, &*client).unwrap();
        let expected = tree([("alone", executable(local)), ("shared", executable(local))]);
        assert_same(&place.tree(), &expected, local);
        assert_eq!(report.conflicts, []);
        assert_eq!(report.written.len(), 2);
        assert_eq!(inode("alone"), alone, "in place");
        assert_ne!(inode("shared"), shared, "by a copy");
        assert_eq!(mode_of(&store), 0o644);
        assert_eq!(fs::read_to_string(&store).unwrap(), local);
        assert_eq!(fs::metadata(&store).unwrap().ino(), shared);
        place.assert_no_litter();
    }
}

#[test]
fn a_local_mode_is_not_given_to_hard_links() {
    let uploaded = tree([("a", file("1")), ("b", file("1")), ("c", file("1"))]);
    for changed in ["a", "b", "c"] {
        let place = Place::with(&uploaded);
        let (client, session) = place.prepare_canned();
        set_mode(&place.at(changed), 0o600);
        let download = RawTar::new().dir(".").file("a", "2").hard_link("b", "a").hard_link("c", "a").end();
        client.answer(download);
        let report = restore(&session, &*client).unwrap();
        let mut expected = tree([("a", file("2")), ("b", file("2")), ("c", file("2"))]);
        expected.insert(changed.into(), Node::File(0o600, b"2".to_vec()));
        assert_same(&place.tree(), &expected, changed);
        assert_eq!(report.conflicts, []);
        place.assert_no_litter();
    }
}

/// Entries of each kind, known on both sides and new, with every mode that excludes their owner.
fn locked_out(mode: u32) -> Tree {
    tree([
        ("known", Node::File(mode, b"1".to_vec())),
        ("changed", Node::File(mode, b"2".to_vec())),
        ("new", Node::File(mode, b"1".to_vec())),
        ("folder", Node::Folder(mode)),
        ("folder/file", file("1")),
        ("new folder", Node::Folder(mode)),
        ("new folder/file", file("1")),
    ])
}

#[test]
fn modes_that_would_make_the_next_run_fail_are_not_taken_over() {
    let uploaded = tree([
        ("known", Node::File(0o640, b"1".to_vec())),
        ("changed", Node::File(0o640, b"1".to_vec())),
        ("folder", Node::Folder(0o750)),
        ("folder/file", file("1")),
    ]);
    for mode in [0o000, 0o111, 0o222, 0o333, 0o077, 0o177] {
        let what = format!("mode {mode:o}");
        let expected = tree([
            ("known", Node::File(0o640, b"1".to_vec())),
            ("changed", Node::File(0o640, b"2".to_vec())),
            ("new", Node::File(mode | 0o400, b"1".to_vec())),
            ("folder", Node::Folder(0o750)),
            ("folder/file", file("1")),
            ("new folder", Node::Folder(mode | 0o500)),
            ("new folder/file", file("1")),
        ]);
        // An ordinary user can continue: with the same tree, with more, and after deleting everything.
        let place = Place::with(&uploaded);
        give_to(NOBODY, &place.workspace());
        let mut emptied_folders = locked_out(mode);
        emptied_folders.retain(|path, node| !path.contains(&b'/') && matches!(node, Node::Folder(_)));
        let mut without_files = expected.clone();
        without_files.retain(|path, _| emptied_folders.contains_key(path));
        for (theirs, expected) in [
            (locked_out(mode), expected.clone()),
            (locked_out(mode), expected.clone()),
            (emptied_folders, without_files),
            (Tree::new(), Tree::new()),
        ] {
            let other = OtherProcess::start(&place, &to_tar(&theirs).end(), Some(NOBODY));
            other.go();
            assert_eq!(other.outcome(), "done", "{what}");
            assert_same(&place.tree(), &expected, &what);
        }
        place.assert_no_litter();

        // Within one session, the same is not a change in either direction.
        let place = Place::with(&uploaded);
        let (client, session) = place.prepare_canned();
        client.answer(to_tar(&locked_out(mode)).end());
        restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &expected, &what);
        let picture = Picture::of(&place.workspace());
        let report = restore(&session, &*client).unwrap();
        assert_eq!(report.written, [], "{what}");
        assert_eq!(Picture::of(&place.workspace()), picture, "{what}");
        client.answer(to_tar(&Tree::new()).end());
        let report = restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &Tree::new(), &what);
        assert_eq!((report.left_in_place, report.conflicts), (vec![], vec![]), "{what}");
    }
}

#[test]
fn read_only_folders_are_merged_into_whichever_side_made_them_so() {
    let read_only = Node::Folder(0o555);
    let uploaded = tree([
        ("same", read_only.clone()),
        ("same/changed", file("1")),
        ("same/gone", file("1")),
        ("closed there", DIR),
        ("closed there/gone", file("1")),
        ("opened there", read_only.clone()),
        ("opened there/gone", file("1")),
        ("becomes a file", read_only.clone()),
        ("becomes a file/deep", read_only.clone()),
        ("becomes a file/deep/gone", file("1")),
        ("closed here", DIR),
        ("closed here/gone", file("1")),
    ]);
    let theirs = tree([
        ("same", read_only.clone()),
        ("same/changed", file("2")),
        ("closed there", read_only.clone()),
        ("closed there/new", file("2")),
        ("opened there", DIR),
        ("opened there/new", file("2")),
        ("becomes a file", file("2")),
        ("closed here", DIR),
        ("closed here/new", file("2")),
        ("new", read_only.clone()),
        ("new/deep", Node::Folder(0o500)),
        ("new/deep/file", Node::File(0o444, b"2".to_vec())),
    ]);
    let place = Place::with(&uploaded);
    give_to(NOBODY, &place.workspace());
    let other = OtherProcess::start(&place, &to_tar(&theirs).end(), Some(NOBODY));
    set_mode(&place.at("closed here"), 0o555);
    let edited = place.at("becomes a file/deep/edit");
    fs::write(&edited, "an edit").unwrap();
    lchown(&edited, Some(NOBODY), Some(NOBODY)).unwrap();
    other.go();
    assert_eq!(other.outcome(), "done");
    let mut expected = theirs;
    expected.insert(b"closed here".to_vec(), read_only);
    assert_same(&place.tree(), &expected, "restored");
    let kept = place.kept_aside();
    for path in ["becomes a file", "becomes a file/deep"] {
        let kept = kept.iter().find(|(kept, _)| kept == path.as_bytes());
        assert_eq!(kept.map(|(_, node)| node), Some(&Node::Folder(0o555)), "{path} kept its mode");
    }
    place.assert_no_litter();
}

#[test]
fn read_only_folders_have_their_mode_back_after_a_failure() {
    let uploaded = tree([
        ("closed", Node::Folder(0o555)),
        ("closed/file", file("1")),
        ("not ours", DIR),
        ("not ours/file", file("1")),
    ]);
    let mut theirs = uploaded.clone();
    for (path, node) in [
        ("closed/file", file("2")),
        ("new", Node::Folder(0o555)),
        ("new/deep", Node::Folder(0o555)),
        ("not ours/file", file("2")),
    ] {
        theirs.insert(path.into(), node);
    }
    let place = Place::with(&uploaded);
    give_to(NOBODY, &place.workspace());
    let other = OtherProcess::start(&place, &to_tar(&theirs).end(), Some(NOBODY));
    lchown(place.at("not ours"), Some(0), Some(0)).unwrap();
    other.go();
    let outcome = other.outcome();
    assert!(outcome.contains("Some(13)") && outcome.contains("not ours"), "{outcome}");
    for folder in ["closed", "new", "new/deep"] {
        assert_eq!(mode_of(place.at(folder)), 0o555, "{folder}");
    }
    lchown(place.at("not ours"), Some(NOBODY), Some(NOBODY)).unwrap();
    let other = OtherProcess::start(&place, &to_tar(&theirs).end(), Some(NOBODY));
    other.go();
    assert_eq!(other.outcome(), "done");
    assert_same(&place.tree(), &theirs, "completed");
    place.assert_no_litter();
}
