//! Archives that are read in pieces of any size, with content that is needed again later, and beside local
//! files that change meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

use sandbox_managed_runtime::archive::source::{Bytes, PIECE, Stream, Whole};
use sandbox_managed_runtime::archive::unpack::Content;
use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::error::{Error, Result};
use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::merge::incoming::Incoming;
use sandbox_managed_runtime::merge::receive::Reception;
use sandbox_managed_runtime::path::RelativePath;
use sandbox_managed_runtime::tree::entry::{Digest, Entry, Snapshot};
use sandbox_managed_runtime::tree::filter::Filter;
use sandbox_managed_runtime::tree::scan::snapshot;
use sha2::Digest as _;

use crate::place::{Place, refused, restore};
use crate::random::Random;
use crate::raw_tar::{BLOCK, RawTar};
use crate::reading::{Dripping, read_stream};
use crate::tree::{DIR, Node, Picture, RUNTIME, Tree, assert_same, file, link, to_tar, tree};

/// The filter that leaves nothing out.
fn nothing() -> &'static Filter<'static> {
    static NOTHING: LazyLock<Filter<'static>> = LazyLock::new(Filter::default);
    &NOTHING
}

/// Reads everything as it is.
fn reception<'a>(workspace: &'a Root, base: &'a Snapshot, cancel: &'a Cancel) -> Reception<'a> {
    Reception {
        base,
        workspace,
        left_alone: nothing(),
        control: None,
        on_control: &|_| {},
        mode: &|_, mode| mode,
        every_file: false,
        is_partial: false,
        cancel,
    }
}

/// Reads an archive of which nothing is dropped.
pub fn take_in_stream(
    place: &Place,
    base: &Snapshot,
    stream: &mut dyn Stream,
    every_file: bool,
) -> Result<Incoming> {
    take_in_but_for(&[], place, base, stream, every_file)
}

/// The same, with some names dropped.
fn take_in_but_for(
    dropped: &[&str],
    place: &Place,
    base: &Snapshot,
    stream: &mut dyn Stream,
    every_file: bool,
) -> Result<Incoming> {
    let root = Root::open(&place.workspace()).unwrap();
    let left_alone = Filter::by_name(|path| dropped.contains(&path.to_string().as_str()));
    let cancel = Cancel::default();
    let reception = Reception { every_file, left_alone: &left_alone, ..reception(&root, base, &cancel) };
    let received = reception.receive(stream)?;
    reception.settle(received)
}

/// The content of the workspace, as the base of a merge.
pub fn base_of(place: &Place) -> Snapshot {
    snapshot(&Root::open(&place.workspace()).unwrap(), &Filter::default(), &Cancel::default()).unwrap()
}

/// Asserts that the staged content is as recorded, and that all other entries equal the base's.
#[track_caller]
pub fn assert_consistent(place: &Place, base: &Snapshot, incoming: Incoming) {
    let root = Root::open(&place.workspace()).unwrap();
    let is_empty = incoming.staged.iter().next().is_none();
    if !is_empty {
        let used = incoming.staged.iter().map(|(_, staged)| staged.name.to_string()).collect();
        let mut stage = incoming.stage.get(&root).unwrap().cursor();
        let shares = stage.list(None).unwrap().unwrap().into_iter().filter(|name| **name != *b"unbegun");
        let mut there = BTreeSet::new();
        for share in shares.map(|name| RelativePath::child(None, &name)) {
            let names = stage.list(Some(&share)).unwrap().unwrap();
            there.extend(names.iter().map(|name| RelativePath::child(Some(&share), name).to_string()));
        }
        assert_eq!(there, used, "something was staged for nothing");
    }
    for (path, entry) in &incoming.snapshot {
        let Some(staged) = incoming.staged.get(path) else {
            let is_base = base.get(path).is_some_and(|base| base.same_as(entry));
            assert!(is_base || entry.is_folder(), "{path} was not staged");
            continue;
        };
        let mut cursor = incoming.stage.get(&root).unwrap().cursor();
        let meta = cursor.stat(&staged.name).unwrap().unwrap();
        assert_eq!(meta.id.inode(), staged.ino, "{path}");
        match entry {
            Entry::File { mode, digest } => {
                assert_eq!(meta.mode & 0o777, mode & 0o777, "{path}");
                let content = fs::read(cursor.path_of(&staged.name)).unwrap();
                assert_eq!(Digest(sha2::Sha256::digest(content).into()), *digest, "{path}");
            }
            Entry::Symlink { target } => {
                assert_eq!(cursor.read_link(&staged.name).unwrap().as_ref(), Some(target), "{path}");
            }
            Entry::Folder { .. } => panic!("a directory was staged: {path}"),
        }
    }
    assert!(!is_empty || !place.at(RUNTIME).exists(), "a stage for nothing");
    incoming.stage.close(&root).unwrap();
}

fn digest(content: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(content).into())
}

fn at(path: &str) -> RelativePath {
    RelativePath::child(None, path.as_bytes())
}

#[track_caller]
fn assert_holds(incoming: &Incoming, path: &str, content: &[u8]) {
    match incoming.snapshot.get(&at(path)) {
        Some(Entry::File { digest: found, .. }) => assert_eq!(*found, digest(content), "{path}"),
        other => panic!("{path} is no file: {other:?}"),
    }
}

fn uploaded() -> Tree {
    tree([("a", DIR), ("a/one", file("1")), ("b", file("2")), ("c", link("b")), ("empty", file(""))])
}

/// An archive with every kind of entry.
fn of_everything() -> RawTar {
    to_tar(&uploaded())
        .file("b", "changed")
        .file("n".repeat(150), vec![b'n'; BLOCK])
        .symlink("long", "t".repeat(180))
        .pax(b'g', &[("comment", &[b'c'; 5000])])
        .pax(b'x', &[("mtime", b"1.5"), ("path", &[b'p'; 120])])
        .file("x", "named by PAX")
        .hard_link("hard", "b")
        .entry(b'V', "label", vec![b'v'; 700])
        .entry(b'D', "dumped", "Yfile\0\0")
        .entry(b'6', "fifo", "")
}

#[test]
fn an_archive_in_pieces_of_any_size_is_read_equally() {
    let large = vec![b'l'; 2 * PIECE + 77];
    let nearly = vec![b'n'; PIECE - 100];
    let archives = [
        of_everything().end(),
        of_everything().file("large", large).file("p", "after").file("q", &nearly).file("r", nearly).end(),
        [of_everything().end(), vec![1; 3 * BLOCK + 5]].concat(),
        RawTar::new().dir(".").end(),
    ];
    let control = at("b");
    let ignored = Filter::by_name(|path| *path == at("empty"));
    for (number, archive) in archives.iter().enumerate() {
        let whole = read_stream(&mut Whole::new(archive.clone()), Some(&control), &ignored).unwrap();
        for size in [1, 2, 7, 13, BLOCK - 1, BLOCK, BLOCK + 1, 1009, 65_537] {
            if archive.len() / size > 1_000_000 {
                continue;
            }
            let mut stream = Dripping { rest: archive, length: |_| size };
            let (found, contents) = read_stream(&mut stream, Some(&control), &ignored).unwrap();
            assert_eq!(found.entries, whole.0.entries, "archive {number} by {size}");
            assert_eq!(found.control, whole.0.control, "archive {number} by {size}");
            assert!(contents == whole.1, "archive {number} by {size}: other contents");
        }
    }
}

#[test]
fn an_archive_in_pieces_of_any_size_is_staged_equally() {
    let large = vec![b'l'; 2 * PIECE + 77];
    let archive = of_everything().file("large", &large).hard_link("large2", "large").file("z", "last").end();
    let place = Place::with(&uploaded());
    let base = base_of(&place);
    let whole = take_in_stream(&place, &base, &mut Whole::new(archive.clone()), false).unwrap();
    let expected = whole.snapshot.clone();
    assert_consistent(&place, &base, whole);
    let mut random = Random::new(3);
    for most in [113, 4099, 1_000_003] {
        let mut stream = Dripping { rest: &archive, length: |_| 1 + random.below(most) };
        let incoming = take_in_stream(&place, &base, &mut stream, false).unwrap();
        assert_eq!(incoming.snapshot, expected);
        assert_consistent(&place, &base, incoming);
    }
}

#[test]
fn an_archive_cut_at_any_block_is_truncated_there() {
    let archive = of_everything().end();
    let place = Place::with(&uploaded());
    let base = base_of(&place);
    let before = Picture::inside(&place.workspace());
    for cut in (0..archive.len()).step_by(BLOCK).chain([1, 700, archive.len() - 1]) {
        for size in [PIECE, 509, 1] {
            let mut stream = Dripping { rest: &archive[..cut], length: |_| size };
            match take_in_stream(&place, &base, &mut stream, false) {
                Err(Error::ArchiveTruncated { offset, .. }) => assert_eq!(offset, cut as u64),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }
    assert_eq!(Picture::inside(&place.workspace()), before);
    place.assert_no_litter();
}

#[test]
fn a_truncated_large_file_leaves_no_stage() {
    let archive = RawTar::new().file("large", vec![b'x'; 3 * PIECE]).end();
    let place = Place::with(&uploaded());
    let base = base_of(&place);
    for cut in [PIECE, 2 * PIECE + 5, 3 * PIECE + BLOCK, 3 * PIECE + BLOCK + 1] {
        let error =
            take_in_stream(&place, &base, &mut Whole::new(archive[..cut].to_vec()), false).unwrap_err();
        assert_eq!(error.code(), "ERR_SANDBOX_ARCHIVE_TRUNCATED", "{error}");
        place.assert_no_litter();
    }
}

#[test]
fn of_two_entries_with_one_name_only_the_last_stays_in_the_stage() {
    let large = |byte| vec![byte; PIECE + 1];
    let place = Place::with(&tree([("x", file("base")), ("large", file(large(b'b')))]));
    let base = base_of(&place);
    let cases: [(&str, RawTar, &[u8]); 5] = [
        ("both new", RawTar::new().file("x", "1").file("x", "2"), b"2"),
        ("the last as it was", RawTar::new().file("x", "1").file("x", "base"), b"base"),
        ("the first as it was", RawTar::new().file("x", "base").file("x", "2"), b"2"),
        ("a large one first", RawTar::new().file("x", large(b'1')).file("x", "2"), b"2"),
        ("three", RawTar::new().file("x", "1").file("x", "base").file("x", "3"), b"3"),
    ];
    for (name, tar, content) in cases {
        let archive = tar.end();
        for every_file in [false, true] {
            let incoming =
                take_in_stream(&place, &base, &mut Whole::new(archive.clone()), every_file).unwrap();
            assert_holds(&incoming, "x", content);
            assert_eq!(incoming.staged.get(&at("x")).is_some(), content != b"base", "{name}");
            assert_consistent(&place, &base, incoming);
        }
    }
    // A hard link to the first one keeps its content.
    let archive = RawTar::new().file("x", "1").hard_link("y", "x").file("x", "base").end();
    let incoming = take_in_stream(&place, &base, &mut Whole::new(archive.clone()), false).unwrap();
    assert_holds(&incoming, "x", b"base");
    assert_holds(&incoming, "y", b"1");
    assert_consistent(&place, &base, incoming);
}

/// A change to the workspace before the download.
type Change = fn(&Place);

/// The first name is unchanged, so its content passes without being staged, but a new hard link needs it.
#[test]
fn content_that_was_not_staged_is_copied_from_a_local_file() {
    for content in [b"content".to_vec(), vec![b'x'; 2 * PIECE + 5]] {
        let uploaded =
            tree([("a", file(content.clone())), ("other", file(content.clone())), ("z", file("z"))]);
        let archive = to_tar(&uploaded).hard_link("new", "a").hard_link("z", "a").end();
        let edit: Change = |place| fs::write(place.at("a"), "edited").unwrap();
        let remove: Change = |place| fs::remove_file(place.at("a")).unwrap();
        let replace: Change = |place| {
            fs::remove_file(place.at("a")).unwrap();
            symlink("other", place.at("a")).unwrap();
        };
        let edit_all: Change = |place| {
            fs::write(place.at("a"), "edited").unwrap();
            // With the same length.
            let mut content = fs::read(place.at("other")).unwrap();
            content[0] ^= 1;
            fs::write(place.at("other"), content).unwrap();
        };
        let cases: [(&str, Option<Change>, bool); 5] = [
            ("it is here", None, true),
            ("it is here by another name", Some(edit), true),
            ("it is gone, and here by another name", Some(remove), true),
            ("a link is in its place", Some(replace), true),
            ("it is nowhere", Some(edit_all), false),
        ];
        for (name, change, is_found) in cases {
            let place = Place::with(&uploaded);
            let base = base_of(&place);
            if let Some(change) = change {
                change(&place);
            }
            let before = Picture::inside(&place.workspace());
            let taken = take_in_stream(&place, &base, &mut Whole::new(archive.clone()), false);
            // A large file that differs here is staged while it is read.
            if is_found || content.len() > PIECE {
                let incoming = taken.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_holds(&incoming, "new", &content);
                assert_holds(&incoming, "z", &content);
                let staged = |name: &str| incoming.staged.get(&at(name)).map(|staged| staged.ino);
                assert_eq!((staged("a"), staged("z")), (None, staged("new")), "{name}");
                assert_consistent(&place, &base, incoming);
            } else {
                assert!(matches!(taken, Err(Error::NotStaged)), "{name}: {taken:?}");
            }
            place.assert_no_litter();
            let incoming = take_in_stream(&place, &base, &mut Whole::new(archive.clone()), true).unwrap();
            assert_holds(&incoming, "new", &content);
            assert_eq!(incoming.staged.iter().count(), 2, "{name}");
            assert_consistent(&place, &base, incoming);
            assert_eq!(Picture::inside(&place.workspace()), before, "{name}");
        }
    }
}

#[test]
fn hard_links_to_a_dropped_file_are_separate_files() {
    let uploaded = tree([("a", file("content")), ("b", file("content"))]);
    let place = Place::with(&uploaded);
    let base = base_of(&place);
    let take_in = |archive: Vec<u8>, every_file| {
        take_in_but_for(&["dropped"], &place, &base, &mut Whole::new(archive.clone()), every_file)
    };
    let tar = |content: &str| RawTar::new().file("dropped", content).hard_link("a", "dropped");
    let incoming = take_in(tar("content").hard_link("new", "dropped").end(), false).unwrap();
    assert_eq!(incoming.staged.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["new"]);
    assert!(!incoming.snapshot.contains_key(&at("dropped")));
    assert_consistent(&place, &base, incoming);
    assert!(matches!(take_in(tar("changed").end(), false), Err(Error::NotStaged)));
    let incoming = take_in(tar("changed").end(), true).unwrap();
    assert_holds(&incoming, "a", b"changed");
    assert_consistent(&place, &base, incoming);
}

#[test]
fn each_name_of_an_inode_gets_the_mode_that_it_can_have() {
    let node = |mode, content: &str| Node::File(mode, content.into());
    let uploaded = tree([("a", node(0o640, "1")), ("b", node(0o600, "1")), ("c", node(0o640, "1"))]);
    let archive = |first: &str| {
        let names = ["a", "b", "c", "new"].into_iter().filter(|name| *name != first);
        let tar = RawTar::new().dir(".").file_with_mode(first, 0o044, "2");
        names.fold(tar, |tar, name| tar.hard_link(name, first)).end()
    };
    let expected = tree([
        ("a", node(0o640, "2")),
        ("b", node(0o600, "2")),
        ("c", node(0o640, "2")),
        ("new", node(0o444, "2")),
    ]);
    for first in ["a", "b", "c", "new"] {
        let place = Place::with(&uploaded);
        let base = base_of(&place);
        for every_file in [false, true] {
            let incoming =
                take_in_stream(&place, &base, &mut Whole::new(archive(first)), every_file).unwrap();
            let staged = |name: &str| incoming.staged.get(&at(name)).unwrap().ino;
            assert_eq!(staged("a"), staged("c"));
            assert_eq!(BTreeSet::from(["a", "b", "new"].map(staged)).len(), 3);
            assert_consistent(&place, &base, incoming);
        }
        let (client, session) = place.prepare_canned();
        client.answer(archive(first));
        restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &expected, first);
        place.assert_no_litter();
    }
}

/// A file of several pieces, with one other byte at an offset.
fn large(length: usize, other: Option<usize>) -> Vec<u8> {
    let mut content: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
    if let Some(at) = other {
        content[at] ^= 0xff;
    }
    content
}

/// A way to stream an archive.
type Streaming = fn(&[u8]) -> Box<dyn Stream + '_>;

/// A large file here and in the sandbox.
type Versions = (&'static str, Option<Vec<u8>>, Vec<u8>);

#[test]
fn a_large_file_is_staged_only_where_it_differs_from_the_local_one() {
    const LENGTH: usize = 2 * PIECE + 100;
    let same = || large(LENGTH, None);
    let cases: [Versions; 15] = [
        ("nothing changed", Some(same()), same()),
        ("its first byte", Some(same()), large(LENGTH, Some(0))),
        ("the end of its first piece", Some(same()), large(LENGTH, Some(PIECE - 1))),
        ("the middle", Some(same()), large(LENGTH, Some(PIECE + 7))),
        ("its last piece", Some(same()), large(LENGTH, Some(2 * PIECE))),
        ("its last byte", Some(same()), large(LENGTH, Some(LENGTH - 1))),
        ("it grew", Some(same()), large(LENGTH + PIECE, None)),
        ("it shrank", Some(same()), large(PIECE + 1, None)),
        ("the local one is shorter", Some(large(PIECE + 3, None)), same()),
        ("the local one is empty", Some(Vec::new()), same()),
        ("the local one is longer", Some(large(LENGTH + 9, None)), same()),
        ("the local one is gone", None, same()),
        ("the local one is another", Some(large(LENGTH, Some(2 * PIECE))), same()),
        ("both changed alike", Some(large(LENGTH, Some(5))), large(LENGTH, Some(5))),
        ("both changed otherwise", Some(large(LENGTH, Some(5))), large(LENGTH, Some(2 * PIECE))),
    ];
    for (name, local, theirs) in cases {
        let place = Place::with(&tree([("large", file(same()))]));
        let base = base_of(&place);
        match &local {
            Some(local) => fs::write(place.at("large"), local).unwrap(),
            None => fs::remove_file(place.at("large")).unwrap(),
        }
        let before = Picture::inside(&place.workspace());
        let tar = || RawTar::new().dir(".").file("large", &theirs);
        // One that can be read once, and one that can be read again.
        let streams: [Streaming; 2] =
            [|bytes| Box::new(Meddling::new(bytes, 0, || ())), |bytes| Box::new(Whole::new(bytes.to_vec()))];
        for (is_again, stream) in streams.into_iter().enumerate() {
            for every_file in [false, true] {
                let archive = tar().hard_link("further", "large").file("z", "after").end();
                let incoming = take_in_stream(&place, &base, &mut *stream(&archive), every_file);
                let seems_unchanged = ["the local one is longer", "the local one is another"][is_again];
                if !every_file && name == seems_unchanged {
                    // It began like the local file, which is not what its hard link needs.
                    assert!(matches!(incoming, Err(Error::NotStaged)), "{incoming:?}");
                    continue;
                }
                let incoming = incoming.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_holds(&incoming, "large", &theirs);
                assert_eq!(incoming.staged.get(&at("large")).is_some(), theirs != same(), "{name}");
                assert_consistent(&place, &base, incoming);
            }
            let archive = tar().end();
            let incoming = take_in_stream(&place, &base, &mut *stream(&archive), false).unwrap();
            assert_holds(&incoming, "large", &theirs);
            assert_eq!(incoming.staged.iter().next().is_some(), theirs != same(), "{name}");
            assert_consistent(&place, &base, incoming);
        }
        assert_eq!(Picture::inside(&place.workspace()), before, "{name}");
    }
}

/// Memory of a client that has other bytes in its middle the second time.
struct Changing(Vec<u8>, AtomicUsize);

impl Bytes for Changing {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn copy(&self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = usize::try_from(offset).unwrap();
        into.extend_from_slice(&self.0[start..start + length]);
        let middle = self.0.len() / 2;
        if (start..start + length).contains(&middle) && self.1.fetch_add(1, Ordering::SeqCst) > 0 {
            let at = into.len() - length + middle - start;
            into[at] ^= 0xff;
        }
        Ok(())
    }
}

#[test]
fn a_large_file_that_is_not_the_same_when_it_is_read_again_is_refused() {
    let place = Place::with(&tree([("large", file(large(5 * PIECE, None)))]));
    let base = base_of(&place);
    let before = Picture::inside(&place.workspace());
    let theirs = large(5 * PIECE, Some(3 * PIECE));
    let archive = Changing(RawTar::new().file("large", &theirs).end(), AtomicUsize::new(0));
    let incoming = take_in_stream(&place, &base, &mut Whole::new(archive), false);
    let Err(Error::InvalidReturnValue { reason }) = incoming else { panic!("{incoming:?}") };
    assert!(reason.contains("changed while they were read"), "{reason}");
    assert_eq!(Picture::inside(&place.workspace()), before);
    place.assert_no_litter();
}

#[test]
fn a_large_file_is_not_compared_through_a_link() {
    let content = large(4 * PIECE, None);
    let place = Place::with(&tree([("large", file(content.clone()))]));
    let base = base_of(&place);
    let outside = place.outside().join("large");
    fs::write(&outside, &content).unwrap();
    fs::remove_file(place.at("large")).unwrap();
    symlink(&outside, place.at("large")).unwrap();
    let theirs = large(4 * PIECE, Some(4 * PIECE - 1));
    let archive = RawTar::new().file("large", &theirs).end();
    let (root, cancel, parts) =
        (Root::open(&place.workspace()).unwrap(), Cancel::default(), AtomicUsize::new(0));
    let count = |_: &RelativePath, mode| {
        parts.fetch_add(1, Ordering::SeqCst);
        mode
    };
    let reception = Reception { mode: &count, ..reception(&root, &base, &cancel) };
    // If the link were followed, the beginning would be needed, and has changed by then.
    let change = || {
        while parts.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
        fs::write(&outside, "changed").unwrap();
    };
    let mut stream = Meddling::new(&archive, 3 * PIECE, change);
    let incoming = reception.receive(&mut stream).and_then(|received| reception.settle(received)).unwrap();
    assert_holds(&incoming, "large", &theirs);
    assert_consistent(&place, &base, incoming);
}

/// A stream that runs an action once that many bytes have been requested.
struct Meddling<'a, F> {
    bytes: &'a [u8],
    given: usize,
    at: usize,
    act: Option<F>,
}

impl<'a, F: FnOnce()> Meddling<'a, F> {
    fn new(bytes: &'a [u8], at: usize, act: F) -> Self {
        Self { bytes, given: 0, at, act: Some(act) }
    }
}

impl<F: FnOnce() + Send> Stream for Meddling<'_, F> {
    fn next(&mut self, most: usize, into: &mut Vec<u8>) -> Result<usize> {
        if self.given >= self.at
            && let Some(act) = self.act.take()
        {
            act();
        }
        let length = most.min(self.bytes.len() - self.given);
        into.extend_from_slice(&self.bytes[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

#[test]
fn a_large_file_is_staged_correctly_if_the_local_one_changes_meanwhile() {
    const LENGTH: usize = 4 * PIECE;
    let theirs = large(LENGTH, Some(LENGTH - 1));
    for is_elsewhere in [false, true] {
        for truncates in [false, true] {
            let mut uploaded = tree([("large", file(large(LENGTH, None)))]);
            let mut tar = RawTar::new().file("large", &theirs);
            if is_elsewhere {
                uploaded.insert(b"elsewhere".to_vec(), file(theirs.clone()));
                tar = tar.file("elsewhere", &theirs);
            }
            let archive = tar.end();
            let place = Place::with(&uploaded);
            let base = base_of(&place);
            let root = Root::open(&place.workspace()).unwrap();
            let (cancel, parts) = (Cancel::default(), AtomicUsize::new(0));
            let count = |path: &RelativePath, mode| {
                // The mode is requested once for each part.
                parts.fetch_add(usize::from(*path == at("large")), Ordering::SeqCst);
                mode
            };
            let reception = Reception { mode: &count, ..reception(&root, &base, &cancel) };
            let change = || {
                while parts.load(Ordering::SeqCst) < 2 {
                    thread::yield_now();
                }
                let local = fs::OpenOptions::new().write(true).truncate(truncates).open(place.at("large"));
                local.unwrap().write_all_at(b"edited", 7).unwrap();
            };
            let mut stream = Meddling::new(&archive, 3 * PIECE, change);
            let taken = reception.receive(&mut stream).and_then(|received| reception.settle(received));
            if is_elsewhere {
                let incoming = taken.unwrap();
                assert_holds(&incoming, "large", &theirs);
                assert_consistent(&place, &base, incoming);
            } else {
                assert!(matches!(taken, Err(Error::NotStaged)), "{taken:?}");
            }
            place.assert_no_litter();
            let incoming = take_in_stream(&place, &base, &mut Whole::new(archive.clone()), true).unwrap();
            assert_holds(&incoming, "large", &theirs);
            assert_consistent(&place, &base, incoming);
        }
    }
}

/// An archive is requested again, once, if its content is needed again, and the restore is like any other.
#[test]
fn a_restore_that_lacks_content_downloads_again_and_stages_every_file() {
    let uploaded = tree([("a", file("content")), ("b", file("1"))]);
    let archive = to_tar(&uploaded).hard_link("new", "a").file("b", "2").end();
    for is_edited in [false, true] {
        let place = Place::with(&uploaded);
        let (client, session) = place.prepare_canned();
        let mut expected = tree([("a", file("content")), ("b", file("2")), ("new", file("content"))]);
        if is_edited {
            fs::write(place.at("a"), "edited").unwrap();
            expected.insert(b"a".to_vec(), file("edited"));
        }
        client.answer(&*archive);
        let report = restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &expected, "restored");
        assert_eq!(report.written.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b", "new"]);
        assert_eq!(report.conflicts, []);
        assert_eq!(client.downloads.load(Ordering::SeqCst), 1 + usize::from(is_edited));
        place.assert_no_litter();
    }
}

#[test]
fn modes_of_the_sandboxs_own_leave_nothing_in_the_stage() {
    // The local side is a sandbox that has only one mode for all files.
    let place = Place::with(&tree([("a", file("1")), ("b", file("2"))]));
    let base = base_of(&place);
    let archive = RawTar::new().file_with_mode("a", 0o777, "1").file_with_mode("b", 0o777, "changed").end();
    let root = Root::open(&place.workspace()).unwrap();
    let cancel = Cancel::default();
    let reception = reception(&root, &base, &cancel);
    let mut received = reception.receive(&mut Whole::new(archive.clone())).unwrap();
    // The modes are known only after the archive was read.
    for entry in &mut received.archive.entries {
        entry.content = Content::File { mode: 0o644 };
    }
    let incoming = reception.settle(received).unwrap();
    assert_eq!(incoming.staged.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["b"]);
    assert_consistent(&place, &base, incoming);
}

#[test]
fn modes_that_are_known_before_a_file_apply_to_it() {
    let place = Place::with(&tree([("a", file("1"))]));
    let base = base_of(&place);
    let before = Picture::of(&place.workspace());
    let (root, cancel) = (Root::open(&place.workspace()).unwrap(), Cancel::default());
    // Without known modes it differs.
    let (control, mode) = (at("control"), AtomicU32::new(0o777));
    let left_alone = Filter::by_name(|path| *path == at("control"));
    let reception = Reception {
        left_alone: &left_alone,
        control: Some(&control),
        on_control: &|content| {
            mode.store(u32::from_str_radix(str::from_utf8(content).unwrap(), 8).unwrap(), Ordering::SeqCst);
        },
        mode: &|_, _| mode.load(Ordering::SeqCst),
        ..reception(&root, &base, &cancel)
    };
    let archive = RawTar::new().file("control", "644").file_with_mode("a", 0o777, "1").end();
    let received = reception.receive(&mut Whole::new(archive.clone())).unwrap();
    assert_eq!(received.archive.control.as_deref(), Some(&b"644"[..]));
    assert_eq!(Picture::of(&place.workspace()), before, "nothing was staged");
}

#[test]
fn a_sandbox_that_was_replaced_does_not_change_the_session() {
    // Names that a sandbox may have lost.
    let uploaded = tree([("A", file("1")), ("a", file("2")), ("b", file("3"))]);
    let place = Place::with(&uploaded);
    let (client, session) = place.prepare_canned();
    client.answer_unmarked(RawTar::new().dir(".").file("unrelated", "1").end());
    let error = refused(&session, &*client);
    assert_eq!(error.code(), "ERR_SANDBOX_REPLACED", "{error}");
    assert_same(&place.tree(), &uploaded, "refused");
    place.assert_no_litter();

    // The right sandbox is back, and an agent has removed one of these names in it.
    let left = tree([("a", file("2")), ("b", file("3"))]);
    client.answer(to_tar(&left).end());
    let report = restore(&session, &*client).unwrap();
    assert_eq!(report.deleted.iter().map(ToString::to_string).collect::<Vec<_>>(), ["A"]);
    assert_eq!(report.skipped, []);
    assert_same(&place.tree(), &left, "restored");
}
