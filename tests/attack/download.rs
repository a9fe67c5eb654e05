//! Downloads that change or are taken away while they are read, and the cost of an archive on this machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sandbox_managed_runtime::archive::source::{Bytes, PIECE, Whole};
use sandbox_managed_runtime::error::{Error, Result};
use sandbox_managed_runtime::merge::incoming::Incoming;
use sandbox_managed_runtime::tree::entry::Snapshot;

use crate::fuzz::fuzz;
use crate::place::{Place, restore};
use crate::random::Random;
use crate::raw_tar::RawTar;
use crate::receiving::{assert_consistent, base_of, take_in_stream};
use crate::tree::{Picture, RUNTIME, Tree, assert_same, file, link, to_tar, tree};

/// An answer that changes at a certain copy, and is gone at a later one.
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

fn take_in(place: &Place, base: &Snapshot, bytes: impl Bytes + 'static) -> Result<Incoming> {
    take_in_stream(place, base, &mut Whole::new(bytes), false)
}

/// Small and large files, with hard links; some are in the base.
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
            // Content is other content then, and headers are no longer headers.
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
        match take_in(&place, &base, bytes) {
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
fn an_answer_that_is_taken_away_at_any_copy_changes_nothing() {
    let here = tree([("f0", file("old")), ("f1", file(vec![b'a'; 3 * PIECE])), ("link", link("f1"))]);
    let mut theirs = here.clone();
    theirs.insert(b"f0".to_vec(), file("new"));
    // It begins like the base's file, so its beginning is copied from that.
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
        match take_in(&place, &base, bytes) {
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
    assert!(gone_at >= 4, "a piece, and the parts of a large file: {gone_at}");
}

/// An answer of which each byte can be read only once. (Only a large file that begins like the local one of its size, and is
/// another, is read again.)
struct Once {
    bytes: Vec<u8>,
    read: Arc<Mutex<Vec<bool>>>,
}

impl Bytes for Once {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = usize::try_from(offset).unwrap();
        let mut read = self.read.lock().unwrap();
        for (at, read) in (start..).zip(&mut read[start..start + length]) {
            assert!(!std::mem::replace(read, true), "byte {at} is read again");
        }
        self.bytes.copy(offset, length, into)
    }
}

#[test]
fn every_byte_of_an_answer_is_read_once() {
    let old = vec![b'a'; 3 * PIECE];
    let place = Place::with(&tree([("large", file(old.clone())), ("small", file("1"))]));
    let base = base_of(&place);
    for end in [Vec::new(), b"longer".to_vec(), vec![b'z'; 3 * PIECE]] {
        let content = [&old[..], &end].concat();
        let bytes = archive_of(&tree([("f0", file("new")), ("large", file(content)), ("link", link("f0"))]));
        // What follows the end-of-archive mark is read as well, because a truncated stream shows only there.
        let bytes = [bytes.end(), vec![1; 2 * PIECE]].concat();
        let read = Arc::new(Mutex::new(vec![false; bytes.len()]));
        let answer = Once { bytes, read: read.clone() };
        assert_consistent(&place, &base, take_in(&place, &base, answer).unwrap());
        assert!(read.lock().unwrap().iter().all(|&read| read));
    }
}

fn inodes(place: &Place, names: impl IntoIterator<Item = String>) -> BTreeSet<u64> {
    names.into_iter().map(|name| fs::symlink_metadata(place.at(name)).unwrap().ino()).collect()
}

/// The disk space that a folder takes.
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
fn hard_links_take_the_space_of_one_file() {
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

    // One name is another file in the sandbox now, and one is edited here: the others stay as they are.
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

    // All of them change in the sandbox: the local edit is backed up, once.
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
fn hard_links_to_a_symbolic_link_are_names_of_one_link() {
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

/// Links to a long name do not cost its length each: tested in a process with little more memory than their
/// archive.
#[test]
fn links_to_one_long_name_take_little_memory() {
    if std::env::var_os(LINKS).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "download::links_to_one_long_name_take_little_memory", "--test-threads=1"]);
        // The address space for each thread's heap would count.
        let output = command.env(LINKS, "1").env("MALLOC_ARENA_MAX", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let place = Place::new();
    let (client, session) = place.prepare_canned();
    // The first restore makes the threads, which take address space.
    client.answer(to_tar(&Tree::new()).dir(".").end());
    restore(&session, &*client).unwrap();
    let tar = RawTar::new().symlink("first", "t/".repeat(2040));
    let archive = (0..COUNT).fold(tar, |tar, at| tar.hard_link(format!("l{at}"), "first")).end();
    let length = archive.len() as u64;
    client.answer(archive);
    let pages: u64 =
        fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    // A copy of the answer, and three times as much for the paths. The targets alone would be 80 MB.
    let limit = Some(pages * 4096 + 4 * length);
    rustix::process::setrlimit(
        rustix::process::Resource::As,
        rustix::process::Rlimit { current: limit, maximum: limit },
    )
    .unwrap();
    restore(&session, &*client).unwrap();
    assert_eq!(fs::read_dir(place.workspace()).unwrap().count(), COUNT + 1);
}
