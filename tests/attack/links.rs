//! Links in the workspace, in the archive, and appearing during the work: nothing outside is read, written or
//! deleted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::error::Error;
use sandbox_managed_runtime::exclude::PathSet;
use sandbox_managed_runtime::mirror::mirror;
use sandbox_managed_runtime::sandbox::client::RunError;

use crate::model::merge;
use crate::place::{Place, SECRET, prepare_upload, refused, restore};
use crate::raw_tar::{BLOCK, RawTar};
use crate::sandbox::CannedSandbox;
use crate::tree::{
    DIR, Node, Picture, RUNTIME, Tree, assert_same, file, link, path_of, read_tree, remove, to_tar, tree,
    write_tree,
};
use crate::{SetOnDrop, rounds};

fn uploaded() -> Tree {
    tree([
        ("d", DIR),
        ("d/gone", file("1")),
        ("d/same", file("1")),
        ("d/secret", file("1")),
        ("d/sub", DIR),
        ("d/sub/gone", file("1")),
        ("d/sub/secret", file("1")),
        ("e", DIR),
        ("e/f", DIR),
        ("e/f/gone", file("1")),
        ("top", file("1")),
    ])
}

fn theirs() -> Tree {
    tree([
        ("d", DIR),
        ("d/new", file("2")),
        ("d/same", file("1")),
        ("d/secret", file("2")),
        ("d/sub", Node::Folder(0o700)),
        ("d/sub/new", DIR),
        ("d/sub/new/new", file("2")),
        ("d/sub/secret", Node::File(0o755, b"1".to_vec())),
        ("top", file("2")),
    ])
}

/// Creates the names of the workspace's folder outside too, so whatever goes through a link could damage
/// something.
fn lay_out_outside(place: &Place) {
    let names = ["gone", "same", "secret", "new"];
    for folder in ["", "folder/", "sub/", "f/"] {
        fs::create_dir_all(place.outside().join(folder)).unwrap();
        for name in names {
            fs::write(place.outside().join(folder).join(name), SECRET).unwrap();
        }
    }
}

#[test]
fn folders_that_became_links_are_not_followed() {
    for turned in ["d", "d/sub", "d/secret", "d/gone", "d/sub/gone", "e", "e/f", "e/f/gone", "top"] {
        for target in ["", "secret", "folder", "nowhere"] {
            let what = format!("{turned} -> {target}");
            let place = Place::with(&uploaded());
            lay_out_outside(&place);
            let outside = place.outside_picture();
            let (client, session) = place.prepare_canned();
            remove(&place.at(turned));
            symlink(place.outside().join(target), place.at(turned)).unwrap();
            let ours = place.tree();
            client.answer(to_tar(&theirs()).end());
            let report = restore(&session, &*client).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            merge(&uploaded(), &theirs(), &ours).assert_is(&place.workspace(), &report, &what);
            place.assert_no_litter();
            assert_eq!(place.outside_picture(), outside, "{what}");
        }
    }
}

#[test]
fn links_that_a_restore_brought_are_not_followed_by_the_next() {
    let place = Place::with(&uploaded());
    lay_out_outside(&place);
    let outside = place.outside_picture();
    let (client, session) = place.prepare_canned();
    let hostile = tree([
        ("d", link("../outside")),
        ("e", link("../outside/folder")),
        ("top", link("../outside/secret")),
    ]);
    for download in [&hostile, &theirs(), &hostile, &uploaded()] {
        client.answer(to_tar(download).end());
        restore(&session, &*client).unwrap();
        assert_same(&place.tree(), download, "restored");
        assert_eq!(place.outside_picture(), outside);
    }
    place.assert_no_litter();
}

#[test]
fn our_own_folder_is_never_used_through_a_link() {
    // Each is a name of ours, and whether the restore can do without it.
    for (name, works) in [
        ("", false),
        ("/conflicts", false),
        ("/.gitignore", true),
        ("/stage-1", true),
        ("/stage-ffffffff00000000", true),
    ] {
        let place = Place::with(&uploaded());
        lay_out_outside(&place);
        let outside = place.outside_picture();
        let (client, session) = place.prepare_canned();
        let trap = place.at(format!("{RUNTIME}{name}"));
        fs::create_dir_all(trap.parent().unwrap()).unwrap();
        symlink(place.outside(), &trap).unwrap();
        fs::write(place.at("top"), "a local edit").unwrap();
        client.answer(to_tar(&theirs()).end());
        if !works {
            let error = refused(&session, &*client);
            assert_eq!(error.code(), "ERR_SANDBOX_UNSAFE_PATH", "{name}: {error}");
            assert!(place.still_has(b"top", &file("a local edit")) || stands_in_stage(&place), "{name}");
            fs::remove_file(&trap).unwrap();
        }
        restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &theirs(), name);
        assert!(place.still_has(b"top", &file("a local edit")), "{name}");
        assert_eq!(place.outside_picture(), outside, "{name}");
    }
}

/// Whether the edit is where the next restore finds it.
fn stands_in_stage(place: &Place) -> bool {
    read_tree(&place.at(RUNTIME)).values().any(|node| *node == file("a local edit"))
}

#[test]
fn a_workspace_behind_a_link_is_restored() {
    let place = Place::with(&uploaded());
    let way = place.root().join("way");
    symlink("workspace", &way).unwrap();
    let client = Arc::new(CannedSandbox::default());
    let mut upload = place.upload();
    upload.workspace.clone_from(&way);
    let session = prepare_upload(&client, upload).unwrap();
    fs::write(place.at("top"), "a local edit").unwrap();
    client.answer(to_tar(&theirs()).end());
    restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &theirs(), "restored");
    assert!(place.still_has(b"top", &file("a local edit")));
    assert_eq!(fs::read_link(&way).unwrap(), Path::new("workspace"));

    let source = place.root().join("source");
    fs::create_dir(&source).unwrap();
    write_tree(&source, &uploaded());
    mirror(&source, &way, &nothing(), &Cancel::default()).unwrap();
    assert_same(&place.tree(), &uploaded(), "mirrored");
    assert_eq!(fs::read_link(&way).unwrap(), Path::new("workspace"));
}

fn nothing() -> PathSet {
    PathSet::default()
}

/// A folder of the workspace that changes places with a link to outside, again and again, on its own thread.
struct Swapping<'a> {
    folder: &'a Path,
    trap: &'a Path,
    outside: &'a Path,
}

impl Swapping<'_> {
    /// Runs until stopped. Each step may find that the other side was faster, which is intended.
    fn run(&self, stop: &AtomicBool) -> usize {
        let mut swaps = 0;
        while !stop.load(Ordering::Relaxed) {
            let is_link =
                |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
            if !is_link(self.folder) && !is_link(self.trap) {
                // The link was displaced: a new one takes its place, and the folder stays. If a restore is
                // filling the folder at this moment, the next step tries again.
                let removed = match fs::symlink_metadata(self.trap) {
                    Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(self.trap).is_ok(),
                    Ok(_) => fs::remove_file(self.trap).is_ok(),
                    Err(_) => true,
                };
                if removed {
                    swaps += usize::from(symlink(self.outside, self.trap).is_ok());
                }
            }
            swaps +=
                usize::from(renameat_with(CWD, self.folder, CWD, self.trap, RenameFlags::EXCHANGE).is_ok());
            if swaps % 7 == 0 {
                thread::yield_now();
            }
        }
        swaps
    }
}

/// Two versions of a tree, each large enough for a swap to happen during the work.
fn busy_tree(version: &str) -> Tree {
    let mut tree = tree([("d", DIR), ("d/sub", DIR), ("kept", file(version)), ("n", DIR), ("n/sub", DIR)]);
    for at in 0..30 {
        for folder in ["d", "d/sub", "n/sub"] {
            tree.insert(format!("{folder}/{at}").into(), file(format!("{version} {at}")));
            tree.insert(format!("{folder}/{version}-{at}").into(), file("only in this version"));
            tree.insert(format!("{folder}/{version}-folder-{at}").into(), Node::Folder(0o750));
        }
    }
    tree
}

/// Works beside two swapping threads until the time is over, and asserts that nothing outside has changed.
fn beside_swaps(place: &Place, mut work: impl FnMut(usize)) {
    let outside = place.outside();
    remove(&outside);
    fs::create_dir(&outside).unwrap();
    // The same tree is outside, so code that follows a link finds everything there.
    write_tree(&outside, &busy_tree("v1").into_iter().map(secret).collect());
    write_tree(
        &outside,
        &busy_tree("v2")
            .into_iter()
            .map(secret)
            .filter(|(path, _)| !outside.join(path_of(path)).exists())
            .collect(),
    );
    let before = place.outside_picture();
    let stop = AtomicBool::new(false);
    let time = Duration::from_secs(u64::try_from(rounds(2)).unwrap());
    let swaps = thread::scope(|scope| {
        let swapping: Vec<_> = ["d", "n/sub"]
            .into_iter()
            .map(|folder| {
                let (folder, outside, stop) = (place.at(folder), outside.join(folder), &stop);
                let trap = place.root().join(format!("trap-{}", folder.file_name().unwrap().display()));
                scope.spawn(move || Swapping { folder: &folder, trap: &trap, outside: &outside }.run(stop))
            })
            .collect();
        let stopping = SetOnDrop(&stop);
        let until = Instant::now() + time;
        let mut round = 0;
        while Instant::now() < until || round < 10 {
            work(round);
            round += 1;
        }
        drop(stopping);
        swapping.into_iter().map(|swapping| swapping.join().unwrap()).sum::<usize>()
    });
    assert!(swaps > 100, "hardly anything was swapped");
    assert_eq!(place.outside_picture(), before);
}

fn secret((path, node): (Vec<u8>, Node)) -> (Vec<u8>, Node) {
    let node = if let Node::File(mode, _) = node { Node::File(mode, SECRET.into()) } else { node };
    (path, node)
}

/// The outcomes that a merge may have while folders are swapped: success, or a failed system call.
#[track_caller]
fn assert_sane<T>(outcome: Result<T, RunError<crate::sandbox::Failure>>) {
    if let Err(error) = outcome {
        assert!(
            matches!(&error, RunError::Own(own) if own.errno().is_some() || matches!(own, Error::Obstructed { .. })),
            "{error:?}"
        );
    }
}

#[test]
fn restores_change_nothing_outside_while_folders_are_swapped_for_links() {
    let place = Place::with(&busy_tree("v1"));
    let (client, session) = place.prepare_canned();
    let downloads = ["v1", "v2"].map(|version| to_tar(&busy_tree(version)).end());
    beside_swaps(&place, |round| {
        client.answer(&downloads[(round + 1) % 2][..]);
        assert_sane(restore(&session, &*client));
    });
    assert!(!holds_secret(&read_tree(&place.workspace())));
    // After the swapping, everything is as in the sandbox.
    for name in ["d", "n/sub"] {
        if fs::symlink_metadata(place.at(name)).is_ok_and(|metadata| metadata.is_symlink()) {
            remove(&place.at(name));
        }
    }
    for download in &downloads {
        client.answer(&download[..]);
        restore(&session, &*client).unwrap();
    }
    let found = place.tree();
    for (path, node) in busy_tree("v2").iter().filter(|(path, _)| path.windows(2).any(|bytes| bytes == b"v2"))
    {
        assert_eq!(found.get(path), Some(node), "{}", path.escape_ascii());
    }
    place.assert_no_litter();
}

#[test]
fn uploads_read_nothing_outside_while_folders_are_swapped_for_links() {
    let place = Place::with(&busy_tree("v1"));
    let client = Arc::new(CannedSandbox::default());
    beside_swaps(&place, |_| {
        assert_sane(place.prepare(&client));
        let upload = client.upload.lock().unwrap();
        assert!(
            !upload.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()),
            "a secret was uploaded"
        );
    });
}

#[test]
fn mirrors_change_nothing_outside_while_folders_are_swapped_for_links() {
    let place = Place::with(&busy_tree("v1"));
    let [one, two, copy] = ["one", "two", "copy"].map(|name| place.root().join(name));
    for (folder, version) in [(&one, "v1"), (&two, "v2")] {
        fs::create_dir(folder).unwrap();
        write_tree(folder, &busy_tree(version));
    }
    beside_swaps(&place, |round| {
        let source = if round % 2 == 0 { &two } else { &one };
        let into = mirror(source, &place.workspace(), &nothing(), &Cancel::default());
        assert_sane(into.map_err(RunError::Own));
        let out_of = mirror(&place.workspace(), &copy, &nothing(), &Cancel::default());
        assert_sane(out_of.map_err(RunError::Own));
        assert!(!copy.exists() || !holds_secret(&read_tree(&copy)), "a secret was copied");
    });
    let quiet = mirror(&two, &place.workspace(), &nothing(), &Cancel::default());
    quiet.unwrap();
    assert_same(&place.tree(), &busy_tree("v2"), "mirrored");
    assert_eq!(fs::read_dir(place.workspace()).unwrap().count(), 3, "nothing of the mirror's own is left");
}

fn holds_secret(tree: &Tree) -> bool {
    tree.values().any(|node| matches!(node, Node::File(_, content) if content == SECRET.as_bytes()))
}

#[test]
fn a_link_that_points_out_is_uploaded_as_a_link() {
    let place = Place::with(&tree([("out", link("../outside")), ("file", link("../outside/secret"))]));
    let (client, _) = place.prepare_canned();
    let expected = RawTar::new().symlink("file", "../outside/secret").symlink("out", "../outside").end();
    let upload = client.upload.lock().unwrap();
    // The script follows the end-of-archive mark.
    assert_eq!(upload[..expected.len()][expected.len() - 2 * BLOCK..], [0; 2 * BLOCK]);
    assert!(!upload.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()));
    assert_eq!(Picture::of(&place.outside()), place.outside_picture());
}
