//! Folders of the workspace that are file systems of their own: nothing can be renamed into or out of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kill::kill_often;
use crate::model::merge;
use crate::place::{Place, restore};
use crate::tree::{DIR, Node, RUNTIME, Tree, assert_same, change_tree, file, link, read_tree, to_tar, tree};

/// A file system in a folder, for as long as this lives. It takes root to mount one.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts one of so many options on a folder that exists.
    pub fn at(folder: PathBuf, options: &str) -> Self {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&folder)
            .output()
            .unwrap();
        assert!(mounted.status.success(), "mount: {}", String::from_utf8_lossy(&mounted.stderr));
        Self(folder)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// A workspace whose folders of these names are mounts, with a tree in it.
fn furnish(tree: &Tree, mounts: &[&str]) -> (Vec<Mount>, Place) {
    let place = Place::new();
    let mounted = mounts
        .iter()
        .map(|name| {
            fs::create_dir(place.at(name)).unwrap();
            Mount::at(place.at(name), "size=4m,mode=755")
        })
        .collect();
    let there: Tree = mounts.iter().map(|name| (name.as_bytes().to_vec(), DIR)).collect();
    change_tree(&place.workspace(), &there, tree);
    (mounted, place)
}

/// A tree with all kinds of things in a folder, the same at each of these paths.
fn versions(paths: &[String], version: usize) -> Tree {
    let kinds = [
        Some(file(format!("version {version}"))),
        Some(link(format!("to-version-{version}"))),
        Some(Node::File(0o600, format!("version {version}").into())),
        None,
    ];
    let mut found = tree([("mnt", DIR), ("mnt/deep", DIR)]);
    for (at, path) in paths.iter().enumerate() {
        // As a number of the base of the kinds: each path has another combination over the versions.
        let digit = at / kinds.len().pow(u32::try_from(version).unwrap()) % kinds.len();
        if let Some(node) = &kinds[digit] {
            found.insert(format!("mnt/{path}").into(), node.clone());
        }
    }
    found
}

#[test]
fn every_combination_in_a_mount() {
    let kinds: usize = 4;
    let long = "n".repeat(250);
    let paths: Vec<String> = (0..kinds.pow(3))
        .map(|at| match at % 3 {
            0 => format!("{at}"),
            1 => format!("deep/{at}"),
            _ => format!("{long}{at:05}"),
        })
        .collect();
    let [base, theirs, ours] = [0, 1, 2].map(|version| versions(&paths, version));
    let (_mounts, place) = furnish(&base, &["mnt"]);
    let (client, session) = place.prepare_canned();
    change_tree(&place.workspace(), &base, &ours);
    client.answer(to_tar(&theirs).end());
    let report = restore(&session, &*client).unwrap();
    merge(&base, &theirs, &ours).assert_is(&place.workspace(), &report, "restored");
    place.assert_no_litter();
}

#[test]
fn folders_and_files_that_change_kinds_in_a_mount() {
    let (before, after) = (
        tree([("mnt", DIR), ("mnt/file", file("1")), ("mnt/folder", DIR), ("mnt/folder/in", file("2"))]),
        tree([("mnt", DIR), ("mnt/file", DIR), ("mnt/file/in", file("3")), ("mnt/folder", file("4"))]),
    );
    for (base, theirs) in [(&before, &after), (&after, &before)] {
        let (_mounts, place) = furnish(base, &["mnt"]);
        let (client, session) = place.prepare_canned();
        client.answer(to_tar(theirs).end());
        let report = restore(&session, &*client).unwrap();
        assert_same(&place.tree(), theirs, "restored");
        assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
        place.assert_no_litter();
    }
}

#[test]
fn a_kill_in_the_middle_of_changes_in_a_mount() {
    let (before, after) = crate::child::many_files(60);
    let mut ours = before.clone();
    let mut edits = Vec::new();
    for (number, (path, _)) in before.iter().filter(|(_, node)| matches!(node, Node::File(..))).enumerate() {
        if number % 2 == 0 {
            let edit = file(format!("local edit {number} ").repeat(30));
            ours.insert(path.clone(), edit.clone());
            edits.push((path.clone(), edit));
        }
    }
    let folders: Vec<String> = (0..10).map(|at| format!("folder-{at}")).collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let furnish = |tree: &Tree| furnish(tree, &folders);
    kill_often(furnish, &before, &after, &ours, |place, what| {
        crate::kill::complete_by_merge(place, &before, &after, what);
        let kept = place.kept_aside();
        for (path, edit) in &edits {
            let stands = place.tree().get(path) == Some(edit);
            assert!(stands || kept.iter().any(|(_, kept)| kept == edit), "{what}: {}", path.escape_ascii());
        }
        for (path, node) in kept {
            let of_the_sandbox = after.get(&path) == Some(&node) && matches!(node, Node::File(..));
            assert!(!of_the_sandbox, "{what}: what the sandbox brought is kept as if it were an edit");
        }
    });
}

/// A stage that a dead process left, with something in it that its journal does not explain.
fn leave_stage(place: &Place, journal: &str) {
    let stage = place.at(RUNTIME).join("stage-1");
    fs::create_dir_all(stage.join("0")).unwrap();
    fs::write(stage.join("0/7"), "whose is it?").unwrap();
    fs::write(stage.join("journal"), journal).unwrap();
}

#[test]
fn a_journal_that_nobody_can_read_blocks_nothing_and_loses_nothing() {
    let readable = r#"{"name":"0/8","path":"a","aside":false,"arriving":{"Inode":1},"seen":null}"#;
    for journal in [
        "of another version\n".to_owned(),
        format!("{readable}\n{{\"name\":\"0/7\"}}\n"),
        readable.replace("0/8", "../../a") + "\n",
    ] {
        let (before, after) = (tree([("a", file("1"))]), tree([("a", file("2"))]));
        let place = Place::with(&before);
        leave_stage(&place, &journal);
        let (client, session) = place.prepare_canned();
        client.answer(to_tar(&after).end());
        let report = restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &after, &journal);
        place.assert_no_litter();
        let [conflict] = &report.conflicts[..] else { panic!("{journal}: {:?}", report.conflicts) };
        let kept = read_tree(&place.at(Path::new(&conflict.kept_at.to_string())));
        assert_eq!(kept.get(&b"0/7"[..]), Some(&file("whose is it?")), "{journal}");
        assert!(restore(&session, &*client).unwrap().conflicts.is_empty(), "{journal}: it is told once");
    }
}

#[test]
fn a_refused_download_touches_not_even_what_was_abandoned() {
    let place = Place::with(&tree([("a", file("1"))]));
    let (client, session) = place.prepare_canned();
    leave_stage(&place, "");
    client.answer(to_tar(&tree([("a", file("2"))])).cut());
    crate::place::refused(&session, &*client);
    assert!(place.at(RUNTIME).join("stage-1/0/7").exists());
    fs::remove_dir_all(place.workspace()).unwrap();
    crate::place::refused(&session, &*client);
    assert!(!place.workspace().exists(), "a workspace that is gone stays gone");
}
