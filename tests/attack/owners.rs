//! The owner of a file after a process with root's rights has replaced it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};

use crate::child::{NOBODY, give_to};
use crate::mounts::Mount;
use crate::place::{Place, restore};
use crate::raw_tar::RawTar;
use crate::tree::{DIR, Node, Tree, file, link, set_mode, to_tar, tree};

const GROUP: u32 = 1234;

fn owner_of(path: impl AsRef<std::path::Path>) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

fn uploaded() -> Tree {
    tree([
        ("changed", file("1")),
        ("edited", file("1")),
        ("mode", file("1")),
        ("shared", file("1")),
        ("link", link("1")),
        ("becomes link", file("1")),
        ("becomes folder", file("1")),
        ("becomes file", DIR),
        ("folder", DIR),
        ("folder/changed", file("1")),
    ])
}

fn theirs() -> Tree {
    tree([
        ("changed", file("2")),
        ("edited", file("2")),
        ("mode", Node::File(0o755, b"1".to_vec())),
        ("shared", Node::File(0o755, b"1".to_vec())),
        ("link", link("2")),
        ("becomes link", link("2")),
        ("becomes folder", DIR),
        ("becomes folder/new", file("2")),
        ("becomes file", file("2")),
        ("folder", Node::Folder(0o700)),
        ("folder/changed", file("2")),
        ("new", file("2")),
    ])
}

#[test]
fn a_replaced_file_keeps_the_owner_and_group_of_the_local_one() {
    let place = Place::with(&uploaded());
    let (client, session) = place.prepare_canned();
    fs::write(place.at("edited"), "an edit").unwrap();
    fs::hard_link(place.at("shared"), place.outside().join("store")).unwrap();
    give_to(NOBODY, &place.workspace());
    for path in uploaded().keys() {
        let path = place.at(crate::tree::path_of(path));
        lchown(path, Some(NOBODY), Some(GROUP)).unwrap();
    }
    client.answer(to_tar(&theirs()).end());
    let report = restore(&session, &*client).unwrap();
    crate::tree::assert_same(&place.tree(), &theirs(), "restored");
    for path in theirs().keys() {
        // A new file belongs to the process.
        let is_new = !uploaded().contains_key(path);
        let expected = if is_new { (0, 0) } else { (NOBODY, GROUP) };
        assert_eq!(owner_of(place.at(crate::tree::path_of(path))), expected, "{}", path.escape_ascii());
    }
    assert_eq!(owner_of(place.outside().join("store")), (NOBODY, GROUP));
    // A backup keeps its owner.
    let [kept] = &report.conflicts[..] else { panic!("{:?}", report.conflicts) };
    assert_eq!(owner_of(place.at(kept.backed_up_at.as_path())), (NOBODY, GROUP));
    place.assert_no_litter();
}

#[test]
fn names_of_one_inode_each_keep_the_owner_of_the_file_that_they_replace() {
    const OTHER: u32 = 4321;
    // In each order, with a symbolic link and a new name among them.
    for owners in [[NOBODY, OTHER, 0], [OTHER, NOBODY, NOBODY], [0, NOBODY, OTHER]] {
        let names = ["a", "b", "c"];
        let place = Place::with(&tree(names.map(|name| (name, file("1")))));
        let (client, session) = place.prepare_canned();
        for (name, owner) in names.iter().zip(owners) {
            lchown(place.at(name), Some(owner), Some(GROUP)).unwrap();
        }
        let mut archive = RawTar::new().file("0 new", b"2");
        for name in names {
            archive = archive.hard_link(name, "0 new");
        }
        client.answer(archive.end());
        restore(&session, &*client).unwrap();
        for (name, owner) in names.iter().zip(owners) {
            assert_eq!(owner_of(place.at(name)), (owner, GROUP), "{name} of {owners:?}");
            assert_eq!(fs::read(place.at(name)).unwrap(), b"2");
        }
        assert_eq!(owner_of(place.at("0 new")), (0, 0), "{owners:?}");
        place.assert_no_litter();
    }
}

#[test]
fn in_a_workspace_that_gives_its_group_to_new_files_each_file_keeps_its_own() {
    let place = Place::with(&tree([("of root", file("1")), ("of the group", file("1"))]));
    let (client, session) = place.prepare_canned();
    lchown(place.workspace(), Some(0), Some(GROUP)).unwrap();
    set_mode(&place.workspace(), 0o2755);
    lchown(place.at("of root"), Some(0), Some(0)).unwrap();
    lchown(place.at("of the group"), Some(0), Some(GROUP)).unwrap();
    client.answer(
        to_tar(&tree([("of root", file("2")), ("of the group", file("2")), ("new", file("2"))])).end(),
    );
    restore(&session, &*client).unwrap();
    assert_eq!(owner_of(place.at("of root")), (0, 0));
    assert_eq!(owner_of(place.at("of the group")), (0, GROUP));
    assert_eq!(owner_of(place.at("new")), (0, GROUP));
    place.assert_no_litter();
}

#[test]
fn an_owner_gives_no_privileges() {
    let place = Place::with(&tree([("tool", file("1"))]));
    let (client, session) = place.prepare_canned();
    lchown(place.at("tool"), Some(NOBODY), Some(GROUP)).unwrap();
    client.answer(to_tar(&tree([("tool", Node::File(0o6755, b"2".to_vec()))])).end());
    restore(&session, &*client).unwrap();
    assert_eq!(fs::symlink_metadata(place.at("tool")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(owner_of(place.at("tool")), (NOBODY, GROUP));
    set_mode(&place.at("tool"), 0o644);
}

#[test]
fn a_backup_that_is_copied_keeps_its_owner_and_group() {
    let place = Place::new();
    fs::create_dir(place.at("mnt")).unwrap();
    let _mount = Mount::at(place.at("mnt"), "size=4m,mode=755");
    let uploaded = tree([
        ("edited", file("1")),
        ("link", link("1")),
        ("folder", DIR),
        ("folder/x", file("1")),
        ("changed", file("1")),
    ]);
    crate::tree::write_tree(&place.at("mnt"), &uploaded);
    let (client, session) = place.prepare_canned();
    fs::write(place.at("mnt/edited"), "an edit").unwrap();
    fs::remove_file(place.at("mnt/link")).unwrap();
    std::os::unix::fs::symlink("mine", place.at("mnt/link")).unwrap();
    fs::write(place.at("mnt/folder/x"), "an edit").unwrap();
    for path in uploaded.keys() {
        lchown(place.at("mnt").join(crate::tree::path_of(path)), Some(NOBODY), Some(GROUP)).unwrap();
    }
    let theirs = tree([
        ("mnt", DIR),
        ("mnt/edited", file("2")),
        ("mnt/link", link("2")),
        ("mnt/folder", file("2")),
        ("mnt/changed", file("2")),
    ]);
    client.answer(to_tar(&theirs).end());
    let report = restore(&session, &*client).unwrap();
    crate::tree::assert_same(&place.tree(), &theirs, "restored");
    for path in theirs.keys().filter(|path| *path != b"mnt") {
        assert_eq!(
            owner_of(place.at(crate::tree::path_of(path))),
            (NOBODY, GROUP),
            "{}",
            path.escape_ascii()
        );
    }
    assert_eq!(report.conflicts.len(), 3, "{:?}", report.conflicts);
    for kept in &report.conflicts {
        assert_eq!(owner_of(place.at(kept.backed_up_at.as_path())), (NOBODY, GROUP), "{kept:?}");
    }
    let inner = report.conflicts.iter().find(|kept| kept.path.as_bytes() == b"mnt/folder").unwrap();
    assert_eq!(owner_of(place.at(inner.backed_up_at.as_path()).join("x")), (NOBODY, GROUP));
}
