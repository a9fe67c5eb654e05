//! Several restores into one workspace at the same time, and people who keep working in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::tree::stage::Stage;

use crate::place::{Place, prepare_upload, restore};
use crate::random::Random;
use crate::sandbox::CannedSandbox;
use crate::tree::{DIR, Node, RUNTIME, Tree, file, path_of, read_node, remove, to_tar, tree, write_node};
use crate::{SetOnDrop, rounds};

const SANDBOXES: usize = 8;

/// A tree in which each sandbox has files of its own, and all share one file.
fn common(files: usize) -> Tree {
    let mut base = tree([("shared", DIR), ("shared/all", file("uploaded"))]);
    for at in 0..SANDBOXES {
        base.insert(format!("own-{at}").into(), DIR);
        for number in 0..files {
            base.insert(format!("own-{at}/{number}").into(), file("uploaded"));
        }
        base.insert(format!("shared/{at}").into(), file("uploaded"));
        base.insert(format!("gone-{at}").into(), file("uploaded"));
    }
    base
}

/// One sandbox's version: its own files changed, one deleted, one new, and the shared file changed.
fn changed(base: &Tree, at: usize, version: usize) -> Tree {
    let mut theirs = base.clone();
    let own = format!("own-{at}/");
    for (path, node) in &mut theirs {
        if path.starts_with(own.as_bytes()) {
            *node = file(format!("of {at}, {version}"));
        }
    }
    theirs.insert(format!("shared/{at}").into(), file(format!("of {at}, {version}")));
    theirs.insert(b"shared/all".to_vec(), file(format!("of {at}, {version}")));
    theirs.insert(format!("shared/new-{at}").into(), file(format!("of {at}, {version}")));
    theirs.remove(format!("gone-{at}").as_bytes());
    theirs
}

#[test]
fn eight_sandboxes_are_merged_into_one_workspace_without_loss() {
    for round in 0..rounds(3) {
        let base = common(20);
        let place = Place::with(&base);
        let sessions: Vec<_> = (0..SANDBOXES).map(|_| place.prepare_canned()).collect();
        for version in 0..2 {
            thread::scope(|scope| {
                for (at, (client, session)) in sessions.iter().enumerate() {
                    client.answer(to_tar(&changed(&base, at, version)).end());
                    scope.spawn(move || {
                        restore(session, &**client).unwrap_or_else(|error| panic!("{at}: {error:?}"));
                    });
                }
            });
        }
        let mut expected = base.clone();
        for at in 0..SANDBOXES {
            for (path, node) in changed(&base, at, 1) {
                if base.get(&path) != Some(&node) && path != b"shared/all" {
                    expected.insert(path, node);
                }
            }
            expected.remove(format!("gone-{at}").as_bytes());
        }
        let mut found = place.tree();
        let all = found.remove(&b"shared/all"[..]).unwrap();
        expected.remove(&b"shared/all"[..]);
        crate::tree::assert_same(&found, &expected, &format!("round {round}"));
        // Every sandbox has changed the shared file differently, and no version is lost.
        assert!((0..SANDBOXES).any(|at| all == file(format!("of {at}, 1"))));
        for at in 0..SANDBOXES {
            assert!(
                place.still_has(b"shared/all", &file(format!("of {at}, 1"))),
                "round {round}, sandbox {at}"
            );
        }
        place.assert_no_litter();
    }
}

#[test]
fn parallel_restores_do_not_remove_each_others_folders() {
    // Each makes and removes its stage, and the last one removes the folder around it.
    let base = common(1);
    let place = Place::with(&base);
    thread::scope(|scope| {
        for at in 0..SANDBOXES {
            let (place, base) = (&place, &base);
            scope.spawn(move || {
                let (client, session) = place.prepare_canned();
                for version in 0..rounds(10) {
                    let mut theirs = base.clone();
                    theirs.insert(format!("own-{at}/0").into(), file(format!("version {version}")));
                    client.answer(to_tar(&theirs).end());
                    restore(&session, &*client).unwrap_or_else(|error| panic!("{at}, {version}: {error:?}"));
                }
            });
        }
    });
    place.assert_no_litter();
}

#[test]
fn parallel_stages_do_not_remove_each_others_folders() {
    let place = Place::new();
    for _ in 0..rounds(300) {
        // The first one makes the folder around the stages, and removes it if it is the last.
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let root = Root::open(&place.workspace()).unwrap();
                    start.wait();
                    for _ in 0..4 {
                        Stage::open(&root).unwrap().close(&root).unwrap();
                    }
                });
            }
        });
        place.assert_no_litter();
        remove(&place.at(RUNTIME));
    }
}

/// A person who works in the workspace while restores run, and remembers the last edit at each path.
struct Person<'a> {
    workspace: &'a Path,
    /// Where files are written before they are renamed into place, as editors do.
    desk: &'a Path,
    random: Random,
    last: BTreeMap<Vec<u8>, Node>,
    edits: usize,
}

impl Person<'_> {
    /// Makes one edit. It may fail if a restore was faster, and then nothing was done.
    fn edit(&mut self, path: &[u8]) {
        self.edits += 1;
        let full = self.workspace.join(path_of(path));
        let draft = self.desk.join(self.edits.to_string());
        let node = match self.random.below(6) {
            0 => {
                // The earlier content is given up, no matter which side wrote it.
                if fs::remove_file(&full).is_ok() {
                    self.last.remove(path);
                }
                return;
            }
            1 => Node::Link(format!("edit {}", self.edits).into()),
            2 => Node::File(0o755, format!("edit {}", self.edits).into()),
            3 if fs::symlink_metadata(&full).is_err() => {
                // A new folder with a file in it.
                write_node(&draft, &DIR);
                let inner = file(format!("edit {}", self.edits));
                write_node(&draft.join("inner"), &inner);
                if fs::rename(&draft, &full).is_ok() {
                    self.last.insert([path, b"/inner"].concat(), inner);
                    self.last.remove(path);
                }
                return;
            }
            _ => file(format!("edit {}", self.edits)),
        };
        write_node(&draft, &node);
        if fs::rename(&draft, &full).is_ok() {
            self.last.insert(path.to_vec(), node);
        }
    }
}

#[test]
fn no_edit_during_restores_is_lost() {
    for round in 0..rounds(3) {
        let base = common(12);
        let place = Place::with(&base);
        let desk = place.root().join("desk");
        fs::create_dir(&desk).unwrap();
        let client = Arc::new(CannedSandbox::default());
        let session = prepare_upload(&client, place.upload()).unwrap();
        let done = AtomicBool::new(false);
        let (workspace, paths) = (place.workspace(), edited_paths(&base));
        let last = thread::scope(|scope| {
            let editing = scope.spawn(|| {
                let seed = u64::try_from(round).unwrap();
                let (workspace, desk, random) = (&workspace, &desk, Random::new(seed));
                let mut person = Person { workspace, desk, random, last: BTreeMap::new(), edits: 0 };
                while !done.load(Ordering::Relaxed) || person.edits < 100 {
                    let path = person.random.pick(&paths).clone();
                    person.edit(&path);
                }
                person.last
            });
            let stopping = SetOnDrop(&done);
            for version in 0..12 {
                let mut theirs = changed(&base, version % SANDBOXES, version);
                if version % 3 == 2 {
                    // Everything is deleted, and restored by the next restore.
                    theirs = tree([("shared", file("no folder any more"))]);
                }
                client.answer(to_tar(&theirs).end());
                restore(&session, &*client).unwrap_or_else(|error| panic!("{version}: {error:?}"));
            }
            drop(stopping);
            editing.join().unwrap()
        });
        assert!(!last.is_empty());
        let kept = place.kept_aside();
        for (path, node) in last {
            let full = place.at(path_of(&path));
            let stands = fs::symlink_metadata(&full).is_ok() && read_node(&full) == node;
            let is_kept = kept.iter().any(|(_, kept)| *kept == node);
            assert!(stands || is_kept, "round {round}: {node:?} at {} is gone", path.escape_ascii());
        }
        place.assert_no_litter();
    }
}

/// The paths of the edits: some changed, deleted, unchanged and new in the sandbox.
fn edited_paths(base: &Tree) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        base.iter().filter(|(_, node)| **node != DIR).map(|(path, _)| path.clone()).collect();
    paths.extend((0..SANDBOXES).map(|at| format!("shared/new-{at}").into_bytes()));
    paths.extend((0..SANDBOXES).map(|at| format!("own-{at}/mine").into_bytes()));
    paths
}
