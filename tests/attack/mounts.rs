//! Folders of the workspace that are separate file systems, so nothing can be renamed into or out of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::merge::lock::{Attempt, MergeLock};
use sha2::Digest as _;

use crate::SetOnDrop;
use crate::kill::kill_often;
use crate::model::merge;
use crate::place::{Place, restore, restore_until};
use crate::tree::{DIR, Node, RUNTIME, Tree, assert_same, change_tree, file, link, read_tree, to_tar, tree};

/// A file system mounted on a folder, for as long as this value exists. Mounting one takes root.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts on an existing folder, with one of these sets of options.
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
        assert!(unmounted.is_ok_and(|status| status.success()) || thread::panicking());
    }
}

/// A workspace with a tree, in which the folders of these names are mounts.
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

/// A tree with all kinds of entries in a folder, the same at each of these paths.
fn versions(paths: &[String], version: usize) -> Tree {
    let kinds = [
        Some(file(format!("version {version}"))),
        Some(link(format!("to-version-{version}"))),
        Some(Node::File(0o600, format!("version {version}").into())),
        None,
    ];
    let mut found = tree([("mnt", DIR), ("mnt/deep", DIR)]);
    for (at, path) in paths.iter().enumerate() {
        // Like the digits of a number: each path has another combination over the versions.
        let digit = at / kinds.len().pow(u32::try_from(version).unwrap()) % kinds.len();
        if let Some(node) = &kinds[digit] {
            found.insert(format!("mnt/{path}").into(), node.clone());
        }
    }
    found
}

#[test]
fn every_combination_is_merged_in_a_mount() {
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
fn folders_and_files_that_change_kinds_are_merged_in_a_mount() {
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
fn a_killed_restore_in_a_mount_is_completed() {
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

#[test]
fn a_folder_in_a_mount_is_backed_up_with_its_content() {
    let before = tree([("mnt", DIR), ("mnt/d", DIR), ("mnt/d/uploaded", file("1"))]);
    let after = tree([("mnt", DIR), ("mnt/d", file("no folder any more"))]);
    let mut ours = before.clone();
    ours.extend(tree([
        ("mnt/d/mine", file("2")),
        ("mnt/d/deep", Node::Folder(0o750)),
        ("mnt/d/deep/link", link("elsewhere")),
    ]));
    let (_mounts, place) = furnish(&before, &["mnt"]);
    let (client, session) = place.prepare_canned();
    change_tree(&place.workspace(), &before, &ours);
    client.answer(to_tar(&after).end());
    let report = restore(&session, &*client).unwrap();
    merge(&before, &after, &ours).assert_is(&place.workspace(), &report, "restored");
    place.assert_no_litter();
}

/// Folders of an image's layer cannot be renamed in a container with it, so their content is moved entry by
/// entry.
#[test]
fn a_folder_in_a_lower_layer_is_backed_up_with_its_content() {
    let before = tree([("d", DIR), ("d/uploaded", file("1")), ("d/deep", DIR), ("d/deep/too", file("1"))]);
    let after = tree([("d", file("no folder any more"))]);
    let mut ours = before.clone();
    ours.extend(tree([("d/mine", file("2")), ("d/deep/mine", link("elsewhere"))]));
    let place = Place::new();
    let layers = place.root().join("layers");
    fs::create_dir(&layers).unwrap();
    let _layers = Mount::at(layers.clone(), "size=4m");
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| layers.join(name));
    for folder in [&lower, &upper, &work] {
        fs::create_dir(folder).unwrap();
    }
    crate::tree::write_tree(&lower, &before);
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(place.workspace());
    assert!(mount.status().unwrap().success());
    let _mount = Mount(place.workspace());
    let (client, session) = place.prepare_canned();
    change_tree(&place.workspace(), &before, &ours);
    client.answer(to_tar(&after).end());
    let report = restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &after, "restored");
    let kept = place.kept_aside();
    for path in ["d/mine", "d/deep/mine"] {
        let edit = (path.as_bytes().to_vec(), ours[path.as_bytes()].clone());
        assert!(kept.contains(&edit), "{path}: {:?}", report.conflicts);
    }
    place.assert_no_litter();
}

/// A mount cannot be moved or removed, whatever the sandbox did at its path: it stays, and the rest is
/// restored.
#[test]
fn mount_points_stay_and_do_not_block_a_restore() {
    let base = tree([("a", file("1")), ("mnt", DIR), ("mnt/in", file("1")), (".env", file("1"))]);
    for theirs in [
        tree([("a", file("2"))]),
        tree([("a", file("2")), ("mnt", file("2")), (".env", DIR), (".env/in", file("2"))]),
        tree([("a", file("2")), ("mnt", link("elsewhere")), (".env", file("2"))]),
    ] {
        let (_mounts, place) = furnish(&base, &["mnt"]);
        let bound = place.root().join("bound.env");
        fs::write(&bound, "1").unwrap();
        let mounted = Command::new("mount").arg("--bind").arg(&bound).arg(place.at(".env")).status().unwrap();
        assert!(mounted.success());
        let _bind = Mount(place.at(".env"));
        let (client, session) = place.prepare_canned();
        client.answer(to_tar(&theirs).end());
        let report = restore(&session, &*client).unwrap();
        assert_eq!(place.tree().get(&b"a"[..]), Some(&file("2")), "the rest is restored");
        assert_eq!(place.tree().get(&b"mnt"[..]), Some(&DIR));
        assert_eq!(place.tree().get(&b".env"[..]), Some(&file("1")));
        let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.path.to_string()).collect();
        assert!(skipped.contains(&".env".to_owned()), "{skipped:?}");
        if theirs.contains_key(&b"mnt"[..]) {
            assert!(skipped.contains(&"mnt".to_owned()), "{skipped:?}");
        }
        place.assert_no_litter();
        assert!(restore(&session, &*client).unwrap().skipped.is_empty(), "and it is told once");
    }
}

/// Nor is a mount inside a mount emptied, nor one in a folder that would have to be removed.
#[test]
fn mount_points_in_mounts_stay_with_their_content() {
    let folders = [("mnt", DIR), ("mnt/inner", DIR), ("mnt/d", DIR), ("mnt/d/deep", DIR)];
    let mut base = tree(folders.clone());
    base.extend(tree([("a", file("1")), ("mnt/inner/in", file("1")), ("mnt/d/deep/in", file("1"))]));
    let theirs = tree([
        ("a", file("2")),
        ("mnt", DIR),
        ("mnt/inner", link("elsewhere")),
        ("mnt/d", file("no folder any more")),
    ]);
    let (_mounts, place) = furnish(&tree([("mnt", DIR)]), &["mnt"]);
    for folder in ["mnt/inner", "mnt/d/deep"] {
        fs::create_dir_all(place.at(folder)).unwrap();
    }
    let _inner = ["mnt/inner", "mnt/d/deep"].map(|folder| Mount::at(place.at(folder), "size=4m,mode=755"));
    change_tree(&place.workspace(), &tree(folders), &base);
    let (client, session) = place.prepare_canned();
    for path in ["mnt/inner/in", "mnt/d/deep/in"] {
        fs::write(place.at(path), "edited").unwrap();
    }
    client.answer(to_tar(&theirs).end());
    let report = restore(&session, &*client).unwrap();
    let now = place.tree();
    assert_eq!(now.get(&b"a"[..]), Some(&file("2")), "the rest is restored");
    for path in ["mnt/inner/in", "mnt/d/deep/in"] {
        assert_eq!(now.get(path.as_bytes()), Some(&file("edited")), "{path}");
    }
    let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.path.to_string()).collect();
    assert_eq!(skipped, ["mnt/d", "mnt/inner"]);
    assert!(
        !now.keys().any(|path| path.windows(11).any(|piece| piece == b".paperclip-")),
        "{:?}",
        now.keys()
    );
}

/// A line of a journal.
fn line_of_journal(json: &str) -> String {
    let digest = sha2::Sha256::digest(json.as_bytes());
    let checksum = u64::from_be_bytes(digest[..8].try_into().unwrap());
    format!("{checksum:016x} {json}\n")
}

/// A journal that is complete, or at least has its first line.
fn journal_of(lines: &[&str]) -> String {
    let head = format!(r#"{{"version":2,"displacements":{}}}"#, lines.len());
    std::iter::once(&*head).chain(lines.iter().copied()).map(line_of_journal).collect()
}

/// The stage of a dead process, with an entry that its journal does not explain.
fn leave_stage(place: &Place, journal: &str) {
    let stage = place.at(RUNTIME).join("stage-1");
    fs::create_dir_all(stage.join("0")).unwrap();
    fs::write(stage.join("0/7"), "whose is it?").unwrap();
    fs::write(stage.join("journal"), journal).unwrap();
}

#[test]
fn an_unreadable_journal_blocks_nothing_and_loses_nothing() {
    let readable = r#"{"name":"0/8","path":"a","aside":false,"arriving":{"Inode":1},"seen":null}"#;
    for journal in [
        "of another version\n".to_owned(),
        String::new(),
        format!("{readable}\n"),
        journal_of(&[readable, r#"{"name":"0/7"}"#]),
        journal_of(&[&readable.replace("0/8", "../../a")]),
        // A name in the workspace, beside the path, that is not one of this stage's own.
        journal_of(&[&readable.replace(r#""path""#, r#""in_workspace":true,"path""#).replace("0/8", "b")]),
        journal_of(&[&readable
            .replace(r#""path""#, r#""in_workspace":true,"path""#)
            .replace("0/8", "c/.paperclip-stage-1-7")]),
    ] {
        let before =
            tree([("a", file("1")), ("b", file("")), ("c", DIR), ("c/.paperclip-stage-1-7", file(""))]);
        let mut after = before.clone();
        after.insert(b"a".to_vec(), file("2"));
        let place = Place::with(&before);
        leave_stage(&place, &journal);
        let (client, session) = place.prepare_canned();
        client.answer(to_tar(&after).end());
        let report = restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &after, &journal);
        place.assert_no_litter();
        let [conflict] = &report.conflicts[..] else { panic!("{journal}: {:?}", report.conflicts) };
        let kept = read_tree(&place.at(Path::new(&conflict.backed_up_at.to_string())));
        assert_eq!(kept.get(&b"0/7"[..]), Some(&file("whose is it?")), "{journal}");
        assert!(restore(&session, &*client).unwrap().conflicts.is_empty(), "{journal}: it is told once");
    }
}

/// An edit in a mount is found even if an earlier line of the journal is damaged.
#[test]
fn an_edit_in_a_mount_is_found_after_a_damaged_line() {
    let tree = tree([("a", file("1")), ("mnt", DIR)]);
    let (_mounts, place) = furnish(&tree, &["mnt"]);
    let (client, session) = place.prepare_canned();
    let beside = "mnt/.paperclip-stage-1-5";
    let known = format!(
        r#"{{"name":"{beside}","in_workspace":true,"path":"mnt/b","aside":true,"arriving":"Nothing","seen":null}}"#
    );
    leave_stage(&place, &format!("{{\"name\":\"mnt/.pap{known}\n{}", line_of_journal(&known)));
    fs::write(place.at(beside), "an edit").unwrap();
    client.answer(to_tar(&tree).end());
    let report = restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &tree, "cleared up");
    assert!(place.kept_aside().contains(&(b"mnt/b".to_vec(), file("an edit"))), "{:?}", report.conflicts);
    assert_eq!(report.conflicts.len(), 2, "that edit, and all of the stage");
}

#[test]
fn the_backups_of_a_failed_restore_are_reported_by_the_next() {
    let (before, after) = (tree([("a", file("1"))]), tree([("a", file("2"))]));
    let place = Place::with(&before);
    let (client, session) = place.prepare_canned();
    let line = r#"{"name":"0/7","path":"b","aside":true,"arriving":"Nothing","seen":null}"#;
    leave_stage(&place, &journal_of(&[line]));
    client.answer(to_tar(&after).end());
    let Attempt::Taken(lock) = MergeLock::try_acquire(&place.workspace()).unwrap() else {
        panic!("it is free");
    };
    // It is rescued before the lock is waited for.
    let (stopped, ended) = (Cancel::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while place.at(RUNTIME).join("stage-1").exists() && !ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            stopped.cancel();
        });
        let _ended = SetOnDrop(&ended);
        assert!(restore_until(&stopped, &session, &*client).is_err());
    });
    assert!(!place.at(RUNTIME).join("stage-1").exists(), "it was rescued");
    lock.release().unwrap();
    assert_same(&place.tree(), &before, "nothing was merged");
    let report = restore(&session, &*client).unwrap();
    let told: Vec<_> = report.conflicts.iter().map(|conflict| conflict.path.to_string()).collect();
    assert_eq!(told, ["b"]);
    assert!(restore(&session, &*client).unwrap().conflicts.is_empty());
}

#[test]
fn a_refused_download_does_not_touch_abandoned_stages() {
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
