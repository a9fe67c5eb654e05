//! The client's answer while it is read: it changes, or is taken away. And what an archive may cost here.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use sandbox_managed_runtime::archive::source::{Bytes, PIECE};
use sandbox_managed_runtime::archive::unpack::unpack;
use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::error::{Error, Result};
use sandbox_managed_runtime::merge::incoming::Incoming;
use sandbox_managed_runtime::tree::entry::{Digest, Entry, Snapshot};
use sandbox_managed_runtime::tree::root::Root;
use sandbox_managed_runtime::tree::scan::snapshot;
use sha2::Digest as _;

use crate::fuzz::fuzz;
use crate::place::{Place, restore};
use crate::random::Random;
use crate::raw_tar::RawTar;
use crate::tree::{Picture, RUNTIME, Tree, assert_same, file, link, to_tar, tree};

/// An answer that is another one from some copy on, and gone from another on.
struct Fickle {
    first: Vec<u8>,
    then: Vec<u8>,
    changes_at: usize,
    gone_at: usize,
    copies: AtomicUsize,
}

impl Bytes for Fickle {
    fn size(&self) -> u64 {
        self.first.size()
    }

    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()> {
        assert!(length <= PIECE, "{length} bytes at once");
        let copy = self.copies.fetch_add(1, Ordering::Relaxed);
        if copy >= self.gone_at {
            return Err(Error::InvalidReturnValue { reason: "is gone".to_owned() });
        }
        let now = if copy >= self.changes_at { &self.then } else { &self.first };
        now.copy(offset, length, into)
    }
}

fn take_in(place: &Place, base: &Snapshot, bytes: &dyn Bytes) -> Result<Incoming> {
    let archive = unpack(bytes, None, &|_| false)?;
    let root = Root::open(&place.workspace()).unwrap();
    Incoming::from_archive(archive, bytes, base, &root, &Cancel::default())
}

fn base_of(place: &Place) -> Snapshot {
    snapshot(&Root::open(&place.workspace()).unwrap(), &|_| false, &Cancel::default()).unwrap()
}

/// Asserts that what is staged is what it is said to be, and that all else is the base's.
#[track_caller]
fn assert_consistent(place: &Place, base: &Snapshot, incoming: Incoming) {
    let root = Root::open(&place.workspace()).unwrap();
    let is_empty = incoming.staged.iter().next().is_none();
    for (path, entry) in &incoming.snapshot {
        let Some(staged) = incoming.staged.get(path) else {
            let is_base = base.get(path).is_some_and(|base| base.same_as(entry));
            assert!(is_base || entry.is_dir(), "{path} was not staged");
            continue;
        };
        let mut cursor = incoming.stage.get(&root).unwrap().cursor();
        assert_eq!(cursor.stat(&staged.name).unwrap().unwrap().ino, staged.ino, "{path}");
        match entry {
            Entry::File { digest, .. } => {
                let content = fs::read(cursor.path_of(&staged.name)).unwrap();
                assert_eq!(Digest(sha2::Sha256::digest(content).into()), *digest, "{path}");
            }
            Entry::Symlink { target } => {
                assert_eq!(cursor.read_link(&staged.name).unwrap().as_ref(), Some(target), "{path}");
            }
            Entry::Dir { .. } => panic!("a directory was staged: {path}"),
        }
    }
    assert!(!is_empty || !place.at(RUNTIME).exists(), "a stage for nothing");
    incoming.stage.close(&root).unwrap();
}

/// Small and large files, some of which are the base's, with further names.
fn contents(random: &mut Random) -> Tree {
    let mut tree = Tree::new();
    for at in 0..=random.below(6) {
        let size = *random.pick(&[0, 1, 700, 60_000, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 77]);
        tree.insert(format!("f{at}").into(), file(vec![*random.pick(b"ab"); size]));
    }
    tree.insert(b"link".to_vec(), link("f0"));
    tree
}

fn archive_of(tree: &Tree) -> RawTar {
    to_tar(tree).hard_link("hard", "f0").hard_link("hard2", "hard").hard_link("soft", "link")
}

#[test]
fn fuzz_answers_that_change_while_they_are_read() {
    let (accepted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    fuzz(25, |random| {
        let here = contents(random);
        let place = Place::with(&here);
        let base = base_of(&place);
        let before = Picture::inside(&place.workspace());
        let first = archive_of(&if random.once_in(2) { here } else { contents(random) }).end();
        let mut then = first.clone();
        for byte in &mut then {
            // What is content is other content, and headers are headers no longer.
            if matches!(byte, b'a' | b'b') {
                *byte ^= 3;
            }
        }
        let copies = 2 + first.len() / PIECE * 3;
        let bytes = Fickle {
            first,
            then,
            changes_at: random.below(copies),
            gone_at: if random.once_in(3) { random.below(copies) } else { usize::MAX },
            copies: AtomicUsize::new(0),
        };
        match take_in(&place, &base, &bytes) {
            Ok(incoming) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                assert_consistent(&place, &base, incoming);
            }
            Err(error) => {
                refused.fetch_add(1, Ordering::Relaxed);
                assert!(error.to_string().contains("nothing was changed"), "{error}");
                place.assert_no_litter();
                // A stage may have been made and removed.
                assert_eq!(Picture::inside(&place.workspace()), before);
            }
        }
    });
    assert!(accepted.into_inner() > 1 && refused.into_inner() > 1);
}

#[test]
fn an_answer_that_is_gone_at_any_copy() {
    let here = tree([("f0", file("old")), ("f1", file(vec![b'a'; 3 * PIECE])), ("link", link("f1"))]);
    let mut theirs = here.clone();
    theirs.insert(b"f0".to_vec(), file("new"));
    // It begins as the base does, so that it is hashed first and staged in a second pass.
    let mut changed = vec![b'a'; 3 * PIECE];
    changed[2 * PIECE] = b'b';
    theirs.insert(b"f1".to_vec(), file(changed));
    let place = Place::with(&here);
    let base = base_of(&place);
    let mut gone_at = 0;
    loop {
        let archive = archive_of(&theirs).end();
        let bytes = Fickle {
            then: archive.clone(),
            first: archive,
            changes_at: usize::MAX,
            gone_at,
            copies: AtomicUsize::new(0),
        };
        match take_in(&place, &base, &bytes) {
            Ok(incoming) => {
                assert_consistent(&place, &base, incoming);
                break;
            }
            Err(error) => {
                assert_eq!(error.code(), "ERR_INVALID_RETURN_VALUE", "{error}");
                assert!(error.to_string().contains("nothing was changed"), "{error}");
                place.assert_no_litter();
                assert_same(&place.tree(), &here, "gone");
            }
        }
        gone_at += 1;
    }
    assert!(gone_at >= 8, "two headers' windows, a run and two passes: {gone_at}");
}

#[test]
fn a_large_file_that_changes_between_two_passes_is_refused() {
    let old = vec![b'a'; 3 * PIECE];
    let place = Place::with(&tree([("large", file(old.clone()))]));
    let base = base_of(&place);
    let [first, then] = [b'b', b'c'].map(|last| {
        let mut content = old.clone();
        content.push(last);
        RawTar::new().file("large", content).end()
    });
    let copies = |changes_at| {
        let (first, then) = (first.clone(), then.clone());
        let bytes = Fickle { first, then, changes_at, gone_at: usize::MAX, copies: AtomicUsize::new(0) };
        let outcome = take_in(&place, &base, &bytes);
        (outcome, bytes.copies.into_inner())
    };
    let (outcome, all) = copies(usize::MAX);
    assert_consistent(&place, &base, outcome.unwrap());
    // The last copy is the last piece of the second pass.
    let (outcome, _) = copies(all - 1);
    assert_eq!(outcome.unwrap_err().code(), "ERR_INVALID_RETURN_VALUE");
    place.assert_no_litter();
}

fn inodes(place: &Place, names: impl IntoIterator<Item = String>) -> BTreeSet<u64> {
    names.into_iter().map(|name| fs::symlink_metadata(place.at(name)).unwrap().ino()).collect()
}

/// What a directory takes on the disk.
fn disk_use(folder: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let metadata = entry.as_ref().unwrap().metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.unwrap().path());
            } else if seen.insert(metadata.ino()) {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    bytes
}

#[test]
fn hard_links_take_what_one_file_takes() {
    let content = b"0123456789abcdef".repeat(PIECE / 16 + 1);
    let names = || (0..60).map(|at| format!("l{at}"));
    let place = Place::with(&tree([("l7", file("edited in the sandbox")), ("l9", file(content.clone()))]));
    let (client, session) = place.prepare_canned();
    let archive = |changed: &str, with: &str| {
        let tar = RawTar::new().file("first", &content);
        let tar = names().fold(tar, |tar, name| tar.hard_link(name, "first"));
        if changed.is_empty() { tar.end() } else { tar.file(changed, with).end() }
    };
    client.answer(archive("", ""));
    restore(&session, &*client).unwrap();
    assert!(disk_use(&place.workspace()) < 3 << 20);
    assert_eq!(inodes(&place, names().filter(|name| name != "l9")).len(), 1);
    assert_ne!(inodes(&place, ["l9".to_owned()]), inodes(&place, ["l8".to_owned()]), "it was here already");
    assert!(names().all(|name| fs::metadata(place.at(name)).unwrap().len() == content.len() as u64));
    place.assert_no_litter();

    // One of the names is another file there now, and one is edited here: the others stay as they are.
    let edit = place.at("l3");
    fs::remove_file(&edit).unwrap();
    fs::write(&edit, "edited here").unwrap();
    client.answer(archive("l5", "changed"));
    let report = restore(&session, &*client).unwrap();
    assert_eq!(report.written.iter().map(ToString::to_string).collect::<Vec<_>>(), ["l5"]);
    assert_eq!(fs::read(place.at("l5")).unwrap(), b"changed");
    assert_eq!(fs::read(edit).unwrap(), b"edited here");
    assert_eq!(fs::read(place.at("l4")).unwrap(), content);
    assert!(report.conflicts.is_empty());

    // All of them change there: the edit here is kept aside, once.
    client.answer(
        names().fold(RawTar::new().file("first", "all new"), |tar, name| tar.hard_link(name, "first")).end(),
    );
    let report = restore(&session, &*client).unwrap();
    assert_eq!(report.conflicts.len(), 1);
    assert!(names().all(|name| fs::read(place.at(name)).unwrap() == b"all new"));
    assert_eq!(inodes(&place, names()).len(), 1);
    assert_eq!(place.kept_aside(), [(b"l3".to_vec(), file("edited here"))]);
}

#[test]
fn further_names_of_a_link_are_names_of_one_link() {
    let names = || (0..2000).map(|at| format!("d{}/l{at}", at % 40));
    let place = Place::new();
    let (client, session) = place.prepare_canned();
    let tar = RawTar::new().symlink("first", "t/".repeat(1000));
    client.answer(names().fold(tar, |tar, name| tar.hard_link(name, "first")).end());
    restore(&session, &*client).unwrap();
    assert_eq!(inodes(&place, names()).len(), 1);
    assert!(names().all(|name| fs::read_link(place.at(name)).unwrap().as_os_str().len() == 2000));
    assert!(!place.at(RUNTIME).exists());
}

const LINKS: &str = "ATTACK_LINKS";
const COUNT: usize = 20_000;

/// Links to a name do not cost what it costs: in a process that may not have much more memory than their archive.
#[test]
fn links_to_one_long_name_in_little_memory() {
    if std::env::var_os(LINKS).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "download::links_to_one_long_name_in_little_memory", "--test-threads=1"]);
        // Address space that is set aside for each thread's heap would count.
        let output = command.env(LINKS, "1").env("MALLOC_ARENA_MAX", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let place = Place::new();
    let (client, session) = place.prepare_canned();
    // Threads are made by the first restore, and take their address space.
    client.answer(to_tar(&Tree::new()).dir(".").end());
    restore(&session, &*client).unwrap();
    let tar = RawTar::new().symlink("first", "t/".repeat(2040));
    let archive = (0..COUNT).fold(tar, |tar, at| tar.hard_link(format!("l{at}"), "first")).end();
    let length = archive.len() as u64;
    client.answer(archive);
    let pages: u64 =
        fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    // The answer's copy, and three times as much again for the paths. Their targets would be 80 MB.
    let limit = Some(pages * 4096 + 4 * length);
    rustix::process::setrlimit(
        rustix::process::Resource::As,
        rustix::process::Rlimit { current: limit, maximum: limit },
    )
    .unwrap();
    restore(&session, &*client).unwrap();
    assert_eq!(fs::read_dir(place.workspace()).unwrap().count(), COUNT + 1);
}
