//! Archives of real tar programs, in all their formats, unusual but valid, are restored correctly.

use std::path::Path;
use std::process::Command;

use crate::place::{Place, refused, restore};
use crate::tree::{DIR, Node, Tree, assert_same, file, link, tree, write_tree};

/// A tree that every format can hold: names fit into 100 bytes.
fn plain() -> Tree {
    tree([
        ("-rf", file("a name like an option")),
        ("a b\nc", file("a name with a line end")),
        ("dir", DIR),
        ("dir/empty", file("")),
        ("dir/locked", Node::Folder(0o500)),
        ("dir/run", Node::File(0o755, b"#!/bin/sh\n".to_vec())),
        ("dir.txt", file("sorts between dir and what is in it")),
        ("hollow", Node::Folder(0o700)),
        ("large", file("0123456789".repeat(20_000))),
        ("link", link("dir/run")),
        ("outward", link("/etc/passwd")),
        ("secret", Node::File(0o600, b"s".to_vec())),
        ("setuid", Node::File(0o755, b"no longer".to_vec())),
        ("unicode-\u{e9}\u{1f980}", file("crab")),
    ])
}

/// A tree that does not fit into plain headers.
fn long() -> Tree {
    let mut tree = plain();
    let folder = vec!["f".repeat(60); 4].join("/");
    for above in 0..4 {
        tree.insert(folder.as_bytes()[..above * 61 + 60].to_vec(), DIR);
    }
    tree.insert(format!("{folder}/{}", "n".repeat(200)).into(), file("long"));
    tree.insert("m".repeat(255).into(), file("longest"));
    tree.insert(b"far".to_vec(), link("t/".repeat(400)));
    for length in [98, 99, 100, 101] {
        tree.insert("b".repeat(length).into(), link("l".repeat(length)));
    }
    tree.insert(b"not-text-\xff\xe9".to_vec(), file("bytes"));
    tree
}

/// Names of up to 255 bytes that can be split at a slash, with at most 100 bytes behind it.
fn split() -> Tree {
    let mut tree = plain();
    let folder = vec!["p".repeat(70); 2].join("/");
    tree.insert(b"p".repeat(70), DIR);
    tree.insert(folder.clone().into(), DIR);
    tree.insert(format!("{folder}/{}", "n".repeat(99)).into(), file("split"));
    tree
}

/// Has a tar program archive the tree, with hard links, and restores the archive.
#[track_caller]
fn restores(what: &str, tree: &Tree, command: &[&str]) {
    let place = Place::with(&crate::tree::tree([("gone", file("deleted in the sandbox"))]));
    let (client, session) = place.prepare_canned();
    client.answer(archive(&place, tree, command));
    restore(&session, &*client).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let mut expected = tree.clone();
    expected.insert(b"zz-hard".to_vec(), tree[&b"large"[..]].clone());
    expected.insert(b"dir/hard".to_vec(), tree[&b"dir/run"[..]].clone());
    assert_same(&place.tree(), &expected, what);
    place.assert_no_litter();
}

fn archive(place: &Place, tree: &Tree, command: &[&str]) -> Vec<u8> {
    let source = place.root().join("source");
    std::fs::create_dir(&source).unwrap();
    write_tree(&source, tree);
    std::fs::hard_link(source.join("large"), source.join("zz-hard")).unwrap();
    std::fs::hard_link(source.join("dir/run"), source.join("dir/hard")).unwrap();
    crate::tree::set_mode(&source.join("setuid"), 0o6755);
    run(&source, command)
}

/// Runs a tar program in a folder. Its output is the archive.
fn run(folder: &Path, command: &[&str]) -> Vec<u8> {
    let output = Command::new(command[0]).args(&command[1..]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn archives_of_gnu_tar_are_restored() {
    for format in ["gnu", "oldgnu", "posix"] {
        restores(format, &long(), &["tar", "-c", "--format", format, "."]);
        restores(format, &long(), &["tar", "-c", "--format", format, "-b1", "--sort=name", "--", "."]);
    }
    restores("ustar", &split(), &["tar", "-c", "--format=ustar", "."]);
    restores("v7", &plain(), &["tar", "-c", "--format=v7", "."]);
    restores(
        "huge numbers",
        &plain(),
        &["tar", "-c", "--owner=:4000000000", "--group=:4000000000", "--mtime=@-5", "."],
    );
    restores("attributes", &plain(), &["tar", "-c", "--xattrs", "--acls", "--format=posix", "."]);
    restores(
        "totals",
        &plain(),
        &["tar", "-c", "--pax-option=globexthdr.name=g,comment=hello", "--format=posix", "."],
    );
}

#[test]
fn archives_of_bsdtar_are_restored() {
    for format in ["pax", "gnutar"] {
        restores(format, &long(), &["bsdtar", "-c", "-f", "-", "--format", format, "."]);
    }
    restores("restricted", &long(), &["bsdtar", "-c", "-f", "-", "."]);
    restores("ustar", &split(), &["bsdtar", "-c", "-f", "-", "--format=ustar", "."]);
    restores("v7", &plain(), &["bsdtar", "-c", "-f", "-", "--format=v7tar", "."]);
}

#[test]
fn archives_of_busybox_and_toybox_are_restored() {
    restores("busybox", &long(), &["busybox", "tar", "-c", "-f", "-", "."]);
    restores("toybox", &long(), &["toybox", "tar", "-c", "-f", "-", "."]);
}

#[test]
fn names_without_a_leading_dot_are_restored() {
    let names = ["-rf", "a b\nc", "dir", "dir.txt", "hollow", "large", "link", "outward", "secret", "setuid"];
    let tree: Tree = plain().into_iter().filter(|(path, _)| !path.starts_with(b"unicode")).collect();
    for tar in [
        &["tar", "-c", "--"][..],
        &["bsdtar", "-c", "-f", "-", "--"],
        &["busybox", "tar", "-c", "-f", "-", "--"],
    ] {
        restores(tar[0], &tree, &[tar, &names, &["zz-hard"]].concat());
    }
}

#[test]
fn sparse_files_are_refused_or_restored_completely() {
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let place = Place::new();
        let source = place.root().join("source");
        std::fs::create_dir(&source).unwrap();
        let holes = std::fs::File::create(source.join("holes")).unwrap();
        holes.set_len(1 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&holes, b"in the middle", 1 << 19).unwrap();
        let (client, session) = place.prepare_canned();
        client.answer(run(&source, &[&["tar", "-c", "--sparse"], format, &["."]].concat()));
        let error = refused(&session, &*client);
        assert_eq!(error.code(), "ERR_SANDBOX_ARCHIVE_INVALID", "{format:?}: {error}");
        assert!(error.to_string().contains("sparse"), "{error}");
        assert!(place.tree().is_empty());
    }
}

#[test]
fn the_archives_of_the_corpus_are_restored() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let expected = tree([
        ("dir", DIR),
        ("dir/file", file("content\n")),
        ("dir/hard", file("content\n")),
        ("link", link("dir/file")),
        (&"n".repeat(97), file("")),
    ]);
    let mut archives = 0;
    for name in std::fs::read_dir(&folder).unwrap() {
        let path = name.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        archives += 1;
        let place = Place::new();
        let (client, session) = place.prepare_canned();
        client.answer(std::fs::read(&path).unwrap());
        restore(&session, &*client).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        assert_same(&place.tree(), &expected, &path.display().to_string());
    }
    assert_eq!(archives, 9);
}
