//! Excluded and preserved paths, held-back files, and locks stay as they are, whatever the sandbox has in
//! their place.

use std::fs;

use crate::place::{Place, prepare_upload, refused, restore};
use crate::sandbox::CannedSandbox;
use crate::tree::{DIR, Node, RUNTIME, Tree, assert_same, file, link, to_tar, tree};
use sandbox_managed_runtime::merge::report::{Noted, Report};
use sandbox_managed_runtime::sandbox::session::Session;
use sandbox_managed_runtime::sandbox::upload::Upload;
use std::sync::Arc;

fn texts<'a>(
    paths: impl IntoIterator<Item = &'a sandbox_managed_runtime::path::RelativePath>,
) -> Vec<String> {
    paths.into_iter().map(ToString::to_string).collect()
}

fn notes(notes: &[Noted]) -> Vec<String> {
    texts(notes.iter().map(|note| &note.path))
}

#[test]
fn a_folder_with_content_that_was_not_uploaded_does_not_become_a_file() {
    for (left_alone, preserved) in [("config/.env", true), ("config/deep/x.log", false)] {
        for theirs in [file("a file"), link("elsewhere")] {
            let place = Place::with(&tree([
                ("config", DIR),
                ("config/deep", DIR),
                ("config/deep/uploaded", file("1")),
                ("other", DIR),
                ("other/uploaded", file("1")),
            ]));
            fs::write(place.at(left_alone), "only here").unwrap();
            let client = Arc::new(CannedSandbox::default());
            let mut upload = place.upload();
            if preserved {
                upload.preserve.push(left_alone.into());
            } else {
                upload.exclude.push(b"*.log".to_vec());
            }
            let session = prepare_upload(&client, upload).unwrap();
            let before = place.tree();
            let download = tree([("config", theirs.clone()), ("other", theirs.clone())]);
            client.answer(to_tar(&download).end());
            for _ in 0..2 {
                // It is reported each time, because it has not been restored.
                let report = restore(&session, &*client).unwrap();
                let mut expected = before.clone();
                expected.remove(&b"other/uploaded"[..]);
                expected.insert(b"other".to_vec(), theirs.clone());
                assert_same(&place.tree(), &expected, left_alone);
                assert_eq!(texts(report.skipped.iter().map(|skipped| &skipped.path)), ["config"]);
                assert_eq!((report.conflicts, report.left_in_place), (vec![], vec![]));
                place.assert_no_litter();
            }
            // Once the folder contains nothing excluded any more, the file is restored.
            fs::remove_file(place.at(left_alone)).unwrap();
            restore(&session, &*client).unwrap();
            assert_same(&place.tree(), &download, left_alone);
        }
    }
}

/// Uploads a tree, and restores these trees one after the other.
fn restored(uploaded: &Tree, downloads: &[Tree]) -> (Place, Vec<Report>) {
    let place = Place::with(uploaded);
    let (client, session) = place.prepare_canned();
    let reports = downloads.iter().map(|theirs| {
        client.answer(to_tar(theirs).end());
        restore(&session, &*client).unwrap()
    });
    let reports = reports.collect();
    place.assert_no_litter();
    (place, reports)
}

#[test]
fn files_that_mercurial_would_run_are_neither_taken_over_nor_deleted() {
    let uploaded =
        tree([(".hg", DIR), (".hg/hgrc", file("mine")), (".hg/store", file("1")), ("a", file("1"))]);
    let evil = |mut tree: Tree, path: &str, node: Node| {
        tree.insert(path.into(), node);
        tree
    };
    let mut without = uploaded.clone();
    without.retain(|path, _| !path.starts_with(b".hg"));
    let mut without_hgrc = uploaded.clone();
    without_hgrc.remove(&b".hg/hgrc"[..]);
    for (theirs, held) in [
        (evil(uploaded.clone(), ".hg/hgrc", file("evil")), &[".hg/hgrc"][..]),
        (evil(uploaded.clone(), ".hg/hgrc", link("../evil")), &[".hg/hgrc"]),
        (without_hgrc, &[".hg/hgrc"]),
        (evil(without.clone(), ".hg", link("evil")), &[".hg", ".hg/hgrc"]),
        (evil(evil(uploaded.clone(), "sub", DIR), "sub/.hg", link("../evil")), &["sub/.hg"]),
    ] {
        let (place, reports) = restored(&uploaded, &[theirs.clone(), theirs]);
        for report in &reports {
            assert_eq!(notes(&report.held_back), held);
        }
        let mut now = place.tree();
        now.remove(&b"sub"[..]);
        assert_same(&now, &uploaded, &format!("{held:?}"));
    }
    // If the rest of the repository is gone in the sandbox, only that file stays.
    let (place, reports) = restored(&uploaded, &[without]);
    assert_eq!(notes(&reports[0].held_back), [".hg", ".hg/hgrc"]);
    let expected = tree([(".hg", DIR), (".hg/hgrc", file("mine")), ("a", file("1"))]);
    assert_same(&place.tree(), &expected, "gone");
}

#[test]
fn locks_are_neither_restored_nor_deleted() {
    let planted = tree([
        ("nested", DIR),
        ("nested.paperclip-restore.lock", DIR),
        ("nested.paperclip-restore.lock/owner.json", file("{\"pid\":1}")),
        ("x", DIR),
        ("x/Y.Paperclip-Restore.LOCK", file("a file")),
        ("x/new", file("2")),
    ]);
    let (place, _) = restored(&tree([("nested", DIR)]), &[planted]);
    assert_same(&place.tree(), &tree([("nested", DIR), ("x", DIR), ("x/new", file("2"))]), "planted");
}

#[test]
fn written_files_that_tools_run_unasked_are_reported() {
    let uploaded = tree([
        (".npmrc", file("same")),
        ("tool", Node::File(0o755, b"1".to_vec())),
        ("became", file("1")),
        ("mine", file("1")),
    ]);
    let theirs = tree([
        (".npmrc", file("same")),
        (".vscode", DIR),
        (".vscode/tasks.json", file("{}")),
        ("sub", DIR),
        ("sub/.envrc", file("x")),
        ("tool", Node::File(0o755, b"2".to_vec())),
        ("became", Node::File(0o755, b"1".to_vec())),
        ("mine", file("2")),
        ("in", link("sub")),
        ("out", link("../secret")),
        ("plain", file("2")),
    ]);
    let (_, reports) = restored(&uploaded, &[theirs.clone(), theirs]);
    let told = [".vscode", ".vscode/tasks.json", "became", "out", "sub/.envrc"];
    assert_eq!(notes(&reports[0].sensitive), told);
    assert_eq!(notes(&reports[1].sensitive), [""; 0], "nothing was written");
}

#[test]
fn an_obstacle_to_backups_refuses_the_merge_before_the_first_change() {
    for what in ["file", "link", "link to a folder"] {
        for at in [RUNTIME.to_owned(), format!("{RUNTIME}/conflicts")] {
            let place = Place::with(&tree([("a", file("1")), ("b", file("1")), ("gone", file("1"))]));
            let (client, session) = place.prepare_canned();
            fs::create_dir_all(place.at(&at).parent().unwrap()).unwrap();
            match what {
                "file" => fs::write(place.at(&at), "").unwrap(),
                "link" => std::os::unix::fs::symlink("nowhere", place.at(&at)).unwrap(),
                _ => std::os::unix::fs::symlink(place.outside(), place.at(&at)).unwrap(),
            }
            fs::write(place.at("a"), "an edit").unwrap();
            let (before, outside) = (place.tree(), place.outside_picture());
            client.answer(to_tar(&tree([("a", file("2")), ("b", file("2"))])).end());
            let error = refused(&session, &*client);
            assert_eq!(error.code(), "ERR_SANDBOX_UNSAFE_PATH", "{what} at {at}: {error}");
            let text = error.to_string();
            assert!(text.contains(&at) && text.contains("nothing in the workspace was changed"), "{text}");
            assert_same(&place.tree(), &before, &at);
            assert_eq!(place.outside_picture(), outside);
            fs::remove_file(place.at(&at)).unwrap();
            restore(&session, &*client).unwrap();
            assert_same(&place.tree(), &tree([("a", file("2")), ("b", file("2"))]), "mended");
        }
    }
}

#[test]
fn a_link_in_place_of_a_moved_folder_is_backed_up_and_the_folder_restored() {
    let uploaded = tree([("d", DIR), ("d/changed", file("1")), ("d/same", file("1"))]);
    for to in ["../outside/moved", "moved"] {
        let place = Place::with(&uploaded);
        let (client, session) = place.prepare_canned();
        fs::rename(place.at("d"), place.at(to)).unwrap();
        std::os::unix::fs::symlink(to, place.at("d")).unwrap();
        let outside = place.outside_picture();
        let mut theirs = uploaded.clone();
        theirs.insert(b"d/changed".to_vec(), file("2"));
        client.answer(to_tar(&theirs).end());
        let report = restore(&session, &*client).unwrap();
        // By the table: a path changed in the sandbox and deleted here is restored. One that is unchanged
        // there stays deleted.
        let mut expected = tree([("d", DIR), ("d/changed", file("2"))]);
        if to == "moved" {
            expected.extend(tree([("moved", DIR), ("moved/changed", file("1")), ("moved/same", file("1"))]));
        }
        assert_same(&place.tree(), &expected, to);
        assert_eq!(place.outside_picture(), outside, "nothing is written through the link");
        assert_eq!(texts(report.conflicts.iter().map(|conflict| &conflict.path)), ["d"]);
        assert_eq!(place.kept_aside(), [(b"d".to_vec(), link(to))]);
        place.assert_no_litter();
    }
}

#[test]
fn a_lock_that_cannot_be_made_refuses_the_merge_before_the_first_change() {
    let place = Place::with(&tree([("a", file("1")), ("gone", file("1"))]));
    // As many bytes as a name may have, so the name of its lock is too long.
    let long = place.root().join("w".repeat(255));
    fs::rename(place.workspace(), &long).unwrap();
    let client = Arc::new(CannedSandbox::default());
    let mut upload = place.upload();
    upload.workspace.clone_from(&long);
    let session = prepare_upload(&client, upload).unwrap();
    client.answer(to_tar(&tree([("a", file("2"))])).end());
    let before = crate::tree::read_tree(&long);
    let error = refused(&session, &*client);
    assert!(error.to_string().contains("nothing in the workspace was changed"), "{error}");
    assert_same(&crate::tree::read_tree(&long), &before, "untouched");
}

/// Uploads with `.gitignore` as an ignore file.
fn prepare_ignoring(place: &Place, client: &Arc<CannedSandbox>) -> Session {
    let upload = Upload { ignore_files: vec![b".gitignore".to_vec()], ..place.upload() };
    prepare_upload(client, upload).unwrap()
}

#[test]
fn an_ignored_entry_stays_if_an_entry_of_another_kind_comes() {
    // Excluded is a directory `out`, and any name but a directory below `only-dirs`.
    let uploaded = tree([
        (".gitignore", file("out/\nonly-dirs/*\n!only-dirs/*/\n")),
        ("only-dirs", DIR),
        ("only-dirs/d", DIR),
        ("only-dirs/d/a", file("1")),
        ("a", file("1")),
    ]);
    let place = Place::with(&uploaded);
    fs::create_dir(place.at("out")).unwrap();
    fs::write(place.at("only-dirs/local"), "only here").unwrap();
    let client = Arc::new(CannedSandbox::default());
    let session = prepare_ignoring(&place, &client);
    let before = place.tree();
    let mut theirs = uploaded.clone();
    theirs.insert(b"out".to_vec(), file("a file is not excluded"));
    theirs.insert(b"only-dirs/local".to_vec(), DIR);
    theirs.insert(b"only-dirs/local/b".to_vec(), file("theirs"));
    theirs.insert(b"only-dirs/new".to_vec(), file("excluded"));
    theirs.insert(b"only-dirs/d/a".to_vec(), file("2"));
    for _ in 0..2 {
        client.answer(to_tar(&theirs).end());
        let report = restore(&session, &*client).unwrap();
        let mut expected = before.clone();
        expected.insert(b"only-dirs/d/a".to_vec(), file("2"));
        assert_same(&place.tree(), &expected, "what is excluded here stays");
        let skipped = texts(report.skipped.iter().map(|skipped| &skipped.path));
        assert_eq!(skipped, ["only-dirs/local", "out"]);
        assert_eq!((report.conflicts, report.deleted), (vec![], vec![]));
        place.assert_no_litter();
    }
    // Where nothing is in its place, it comes.
    fs::remove_dir(place.at("out")).unwrap();
    client.answer(to_tar(&theirs).end());
    restore(&session, &*client).unwrap();
    assert_eq!(fs::read(place.at("out")).unwrap(), b"a file is not excluded");
    assert_eq!(fs::read(place.at("only-dirs/local")).unwrap(), b"only here");
}

#[test]
fn an_entry_that_became_an_ignored_kind_counts_as_deleted() {
    let uploaded =
        tree([(".gitignore", file("x\n!x/\ny/\n")), ("x", DIR), ("x/a", file("1")), ("y", file("1"))]);
    let place = Place::with(&uploaded);
    let client = Arc::new(CannedSandbox::default());
    let session = prepare_ignoring(&place, &client);
    let theirs = tree([
        (".gitignore", file("x\n!x/\ny/\n")),
        ("x", file("ignored")),
        ("y", DIR),
        ("y/ignored", file("ignored")),
    ]);
    client.answer(to_tar(&theirs).end());
    restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &tree([(".gitignore", file("x\n!x/\ny/\n"))]), "deleted there");
    place.assert_no_litter();
}

#[test]
fn a_changed_ignore_file_takes_effect_at_the_next_prepare() {
    let uploaded = tree([(".gitignore", file("old\n")), ("old", file("local")), ("kept", file("1"))]);
    let place = Place::with(&uploaded);
    let client = Arc::new(CannedSandbox::default());
    let session = prepare_ignoring(&place, &client);
    fs::write(place.at(".gitignore"), "kept\n").unwrap();
    let theirs = tree([(".gitignore", file("old\n")), ("old", file("theirs"))]);
    client.answer(to_tar(&theirs).end());
    let report = restore(&session, &*client).unwrap();
    assert_eq!(texts(&report.deleted), ["kept"], "it was not ignored when it was uploaded");
    assert_eq!(fs::read(place.at("old")).unwrap(), b"local", "it was");
}
