//! A disk that fills up while content is staged, and while it is put into place.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::exclude::PathSet;
use sandbox_managed_runtime::mirror::mirror;

use crate::model::merge;
use crate::place::{Place, prepare_upload, refused, restore};
use crate::sandbox::CannedSandbox;
use crate::tree::{
    DIR, Node, Picture, RUNTIME, Tree, assert_same, change_tree, file, read_tree, to_tar, tree, write_tree,
};

/// A small file system of its own, for as long as this value exists. Mounting one takes root.
struct SmallDisk {
    place: Place,
    at: PathBuf,
}

impl SmallDisk {
    fn new(options: &str) -> Self {
        let place = Place::new();
        let at = place.workspace();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).output().unwrap();
        assert!(mounted.status.success(), "mount: {}", String::from_utf8_lossy(&mounted.stderr));
        // The workspace is a folder on it, so its lock folder is on it too.
        Self { at: at.join("workspace"), place }
    }

    fn with(options: &str, tree: &Tree) -> Self {
        let disk = Self::new(options);
        fs::create_dir(&disk.at).unwrap();
        write_tree(&disk.at, tree);
        disk
    }

    /// Uses up all inodes but that many.
    fn leave_inodes(&self, left: usize) {
        let folder = self.place.workspace().join("filler");
        fs::create_dir(&folder).unwrap();
        let mut taken: usize = 0;
        while fs::File::create(folder.join(taken.to_string())).is_ok() {
            taken += 1;
        }
        assert!(taken >= left, "there were not that many");
        for number in taken - left..taken {
            fs::remove_file(folder.join(number.to_string())).unwrap();
        }
    }

    /// Uses up all pages but that many.
    fn leave_pages(&self, left: u64) {
        let filler = self.place.workspace().join("filler");
        let mut bytes = 0;
        let mut file = fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {
            bytes += 4096;
        }
        assert!(bytes >= left * 4096, "there were not that many");
        file.set_len(bytes - left * 4096).unwrap();
    }

    fn make_room(&self) {
        crate::tree::remove(&self.place.workspace().join("filler"));
    }

    fn assert_no_litter(&self) {
        if let Ok(names) = fs::read_dir(self.at.join(RUNTIME)) {
            let names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
            assert!(
                names.iter().all(|name| name == "conflicts" || name == ".gitignore"),
                "litter: {names:?}"
            );
        }
        assert!(!self.place.workspace().join("workspace.paperclip-restore.lock").exists());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.place.workspace()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn uploaded() -> Tree {
    let mut base = tree([("d", DIR), ("e", DIR)]);
    for at in 0..8 {
        base.insert(format!("d/{at}").into(), file("uploaded"));
        base.insert(format!("e/{at}").into(), file("uploaded"));
        base.insert(format!("gone-{at}").into(), file("uploaded"));
    }
    base
}

fn theirs() -> Tree {
    let mut theirs = tree([("d", DIR), ("e", file("no folder any more")), ("new", DIR), ("new/new", DIR)]);
    for at in 0..8 {
        theirs.insert(format!("d/{at}").into(), file(format!("of the sandbox {at}")));
        theirs.insert(format!("new/new/{at}").into(), file("new"));
    }
    theirs
}

fn ours() -> Tree {
    let mut ours = uploaded();
    for at in 0..4 {
        ours.insert(format!("d/{at}").into(), file(format!("local edit {at}")));
        ours.insert(format!("gone-{at}").into(), file(format!("local edit of what is gone {at}")));
    }
    ours.insert(b"e/mine".to_vec(), file("local edit in the folder"));
    ours
}

#[test]
fn a_disk_that_fills_up_during_staging_changes_nothing() {
    for left in [0, 1, 2, 5] {
        let disk = SmallDisk::with("size=1m", &uploaded());
        let client = Arc::new(CannedSandbox::default());
        let mut upload = disk.place.upload();
        upload.workspace.clone_from(&disk.at);
        let session = prepare_upload(&client, upload).unwrap();
        let mut big = theirs();
        for at in 0..8 {
            big.insert(format!("d/{at}").into(), Node::File(0o644, vec![b'x'; 20_000]));
        }
        change_tree(&disk.at, &uploaded(), &ours());
        disk.leave_pages(left);
        let before = Picture::inside(&disk.at);
        client.answer(to_tar(&big).end());
        let error = refused(&session, &*client);
        assert_eq!(error.errno(), Some(rustix::io::Errno::NOSPC.raw_os_error()), "{error}");
        assert!(error.to_string().contains("nothing in the workspace was changed"), "{error}");
        assert_eq!(Picture::inside(&disk.at), before, "{left} pages were left");
        disk.assert_no_litter();
        disk.make_room();
        let report = restore(&session, &*client).unwrap();
        merge(&uploaded(), &big, &ours()).assert_is(&disk.at, &report, "with room");
        disk.assert_no_litter();
    }
}

/// Restores onto a disk with limited space, and again with enough of it. No edit may be lost in between.
fn restore_with(what: &str, options: &str, leave: impl Fn(&SmallDisk)) -> bool {
    let disk = SmallDisk::with(options, &uploaded());
    let client = Arc::new(CannedSandbox::default());
    let mut upload = disk.place.upload();
    upload.workspace.clone_from(&disk.at);
    let session = prepare_upload(&client, upload).unwrap();
    change_tree(&disk.at, &uploaded(), &ours());
    leave(&disk);
    client.answer(to_tar(&theirs()).end());
    let first = restore(&session, &*client);
    let everywhere: Vec<Node> = read_everything(&disk);
    for edit in edits() {
        assert!(everywhere.contains(&edit), "{what}: {edit:?} is gone after {first:?}");
    }
    disk.make_room();
    if let Err(error) = &first {
        let text = format!("{error:?}");
        assert!(
            text.contains("StorageFull") || text.contains("NoSpace") || text.contains("code: 28"),
            "{what}: {text}"
        );
        restore(&session, &*client).unwrap_or_else(|error| panic!("{what}, with room: {error:?}"));
    }
    assert_same(&read_tree(&disk.at), &merge(&uploaded(), &theirs(), &ours()).tree, what);
    let kept = read_everything(&disk);
    let in_conflicts = read_tree(&disk.at.join(RUNTIME));
    assert!(
        !in_conflicts.values().any(|node| theirs().values().any(|new| new == node && *new != DIR)),
        "{what}"
    );
    for edit in edits() {
        assert!(kept.contains(&edit), "{what}: {edit:?} is gone after the second");
    }
    disk.assert_no_litter();
    first.is_ok()
}

/// Every file in the workspace, including our own folder.
fn read_everything(disk: &SmallDisk) -> Vec<Node> {
    let runtime = disk.at.join(RUNTIME);
    let mut nodes: Vec<Node> = read_tree(&disk.at).into_values().collect();
    if runtime.exists() {
        nodes.extend(read_tree(&runtime).into_values());
    }
    nodes
}

fn edits() -> impl Iterator<Item = Node> {
    ours().into_iter().filter(|(path, node)| uploaded().get(path) != Some(node)).map(|(_, node)| node)
}

#[test]
fn no_edit_is_lost_when_inodes_run_out_at_any_point() {
    let mut left = 0;
    while !restore_with(&format!("{left} inodes left"), "size=4m,nr_inodes=200", |disk| {
        disk.leave_inodes(left);
    }) {
        left += 1;
        assert!(left < 100, "it never worked");
    }
    assert!(left > 20, "the new files alone take as many");
}

#[test]
fn no_edit_is_lost_when_space_runs_out_at_any_point() {
    let mut left = 0;
    while !restore_with(&format!("{left} pages left"), "size=1m", |disk| disk.leave_pages(left)) {
        left += 1;
        assert!(left < 100, "it never worked");
    }
    assert!(left > 8, "the new files alone take as many");
}

#[test]
fn a_mirror_into_a_full_disk_leaves_the_target_as_it_was() {
    let old = tree([("a", file("old")), ("gone", file("old")), ("folder", DIR), ("folder/x", file("old"))]);
    let mut new =
        tree([("a", file("new")), ("folder", file("a file now")), ("large", file("x".repeat(400_000)))]);
    for at in 0..40 {
        new.insert(format!("file-{at}").into(), file("new"));
    }
    for (options, pages, inodes) in [("size=2m", Some(20), None), ("size=8m,nr_inodes=200", None, Some(30))] {
        let disk = SmallDisk::with(options, &old);
        let source = disk.place.root().join("source");
        fs::create_dir(&source).unwrap();
        write_tree(&source, &new);
        if let Some(left) = pages {
            disk.leave_pages(left);
        }
        if let Some(left) = inodes {
            disk.leave_inodes(left);
        }
        let into = || mirror(&source, &disk.at, &PathSet::default(), &Cancel::default());
        let error = into().unwrap_err().to_string();
        assert!(
            error.contains("No space left") && error.contains("the target was left as it was"),
            "{error}"
        );
        assert_same(&read_tree(&disk.at), &old, options);
        assert_eq!(fs::read_dir(&disk.at).unwrap().count(), 3, "nothing of the mirror's own is left");
        disk.make_room();
        into().unwrap();
        assert_same(&read_tree(&disk.at), &new, options);
    }
}
