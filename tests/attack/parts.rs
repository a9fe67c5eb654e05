//! Archives that are transferred in parts: what arrives, what is sent again, and what is left after a
//! failure.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sandbox_managed_runtime::archive::pack::{Layout, Sink};
use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::error::Error;
use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::sandbox::client::{Part, RunError, SandboxClient};
use sandbox_managed_runtime::sandbox::upload::{Asset, Upload};
use sandbox_managed_runtime::tree::entry::Entry;
use sandbox_managed_runtime::tree::filter::Filter;
use sha2::Digest as _;

use crate::place::{Place, prepare_upload, restore};
use crate::sandbox::{Failure, LocalSandbox};
use crate::tree::{DIR, Picture, RUNTIME, Tree, assert_same, file, link, read_tree, tree};

/// A sandbox on this machine that is as slow as one behind a network, and damages or fails a transfer.
#[derive(Default)]
pub struct Distant {
    local: LocalSandbox,
    /// How long `makeDir` takes. A slow client gets compressed parts.
    round_trip: Duration,
    /// The paths that were written and read, with their sizes.
    transfers: Mutex<Vec<(String, usize)>>,
    /// How the parts of the workspace were compressed that were written: `g`, `z`, or `n` for those that were not.
    pub codecs: Mutex<String>,
    /// The same of assets.
    pub asset_codecs: Mutex<String>,
    /// What to do to a download, by its number, counted from 0.
    damage: Mutex<Option<(usize, Damage)>>,
    reads: AtomicUsize,
    /// What happens during `makeDir`: the workspace was scanned by then, and nothing of it was packed in parts yet.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

type Damage = fn(&mut Vec<u8>);

impl Distant {
    fn new(round_trip_ms: u64) -> Arc<Self> {
        Self::before(LocalSandbox::default(), round_trip_ms)
    }

    /// One that is that far away.
    pub fn before(local: LocalSandbox, round_trip_ms: u64) -> Arc<Self> {
        Arc::new(Self { local, round_trip: Duration::from_millis(round_trip_ms), ..Self::default() })
    }

    /// Takes as long as a network with 50 bytes per microsecond.
    async fn travel(&self, bytes: &[u8]) {
        if !self.round_trip.is_zero() {
            tokio::time::sleep(Duration::from_nanos(bytes.len() as u64 * 20)).await;
        }
    }

    fn names(&self) -> Vec<String> {
        let transfers = std::mem::take(&mut *self.transfers.lock().unwrap());
        transfers.into_iter().map(|(path, _)| path.rsplit('/').next().unwrap().to_owned()).collect()
    }

    fn bytes(&self) -> usize {
        self.transfers.lock().unwrap().iter().map(|(_, size)| size).sum()
    }
}

impl SandboxClient for Distant {
    type Failure = Failure;
    type Upload = Vec<u8>;
    type Download = Vec<u8>;

    async fn allocate(&self, size: u64) -> Result<Vec<u8>, Failure> {
        self.local.allocate(size).await
    }

    async fn make_dir(&self, path: &str) -> Result<Duration, Failure> {
        let started = Instant::now();
        tokio::time::sleep(self.round_trip).await;
        if let Some(happens) = self.meanwhile.lock().unwrap().take() {
            happens();
        }
        self.local.make_dir(path).await?;
        Ok(started.elapsed())
    }

    async fn write_file(&self, path: &str, bytes: &Vec<u8>, part: Part<'_>) -> Result<Duration, Failure> {
        let started = Instant::now();
        self.travel(bytes).await;
        self.transfers.lock().unwrap().push((path.to_owned(), bytes.len()));
        if path.contains("-upload.tar") {
            let is_workspace = path.contains("/workspace-upload.tar");
            let codecs = if is_workspace { &self.codecs } else { &self.asset_codecs };
            codecs.lock().unwrap().push(match bytes[..] {
                [0x1f, 0x8b, ..] => 'g',
                [0x28, 0xb5, 0x2f, 0xfd, ..] => 'z',
                _ => 'n',
            });
        }
        self.local.write_file(path, bytes, part).await?;
        Ok(started.elapsed())
    }

    async fn read_file(&self, path: &str, part: Option<Part<'_>>) -> Result<Vec<u8>, Failure> {
        let mut bytes = self.local.read_file(path, part).await?;
        self.travel(&bytes).await;
        self.transfers.lock().unwrap().push((path.to_owned(), bytes.len()));
        if part.is_some()
            && let Some((number, damage)) = *self.damage.lock().unwrap()
            && self.reads.fetch_add(1, Ordering::SeqCst) == number
        {
            damage(&mut bytes);
        }
        Ok(bytes)
    }

    async fn remove(&self, path: &str) -> Result<(), Failure> {
        self.local.remove(path).await
    }

    async fn run(&self, command: &str) -> Result<(), Failure> {
        self.local.run(command).await
    }

    fn is_passing(&self, failure: &Failure) -> bool {
        self.local.is_passing(failure)
    }

    async fn discard(&self, path: &str) {
        self.local.discard(path).await;
    }

    async fn clear(&self, command: &str) {
        self.local.clear(command).await;
    }
}

pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// More than a megabyte of compressible and incompressible content, in files of all sizes.
pub fn workspace() -> Tree {
    let mut whole = tree([
        ("a", DIR),
        ("a/empty", file("")),
        ("a/large text", file("a line that comes again\n".repeat(90_000))),
        ("b", link("a/empty")),
        ("noise", file(noise(400_000, 1))),
        ("z", DIR),
    ]);
    for number in 0..200 {
        whole.insert(format!("z/{number}").into_bytes(), file(format!("{number}").repeat(number * 7)));
    }
    whole
}

pub fn in_parts(place: &Place, part_bytes: u64, at_once: usize) -> Upload {
    Upload { changes_only: false, part_bytes, parts_at_once: at_once, ..place.upload() }
}

pub fn run_folder(place: &Place) -> Vec<String> {
    let names = fs::read_dir(place.remote().join(RUNTIME).join("attack")).unwrap();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != ".paperclip").collect()
}

#[test]
fn a_round_trip_in_parts_equals_one_without() {
    for (part_bytes, at_once, round_trip) in
        [(1 << 30, 1, 0), (65_536, 1, 0), (65_536, 4, 0), (200_000, 1, 5), (200_000, 4, 5), (1 << 30, 1, 5)]
    {
        let what = format!("parts of {part_bytes}, {at_once} at once, {round_trip} ms");
        let place = Place::with(&workspace());
        let client = Distant::new(round_trip);
        let session = prepare_upload(&client, in_parts(&place, part_bytes, at_once)).unwrap();
        assert_same(&read_tree(&place.remote()), &workspace(), &what);
        assert_eq!(run_folder(&place), [""; 0], "{what}");
        let sent = client.bytes();
        let mut names = client.names();
        // Several at once may arrive in any order.
        names.sort();
        assert_eq!(names[0], "workspace-upload.tar", "{what}");
        assert_eq!(names.len() > 1, part_bytes < 1 << 30, "{what}: {names:?}");
        // Two of 3 MB are text, which almost vanishes when compressed.
        assert!(sent < 1_200_000 || round_trip == 0, "{what}: {sent} bytes");

        let mut theirs = workspace();
        theirs.insert(b"a/large text".to_vec(), file("another line\n".repeat(200_000)));
        theirs.insert(b"new".to_vec(), file(noise(200_000, 9)));
        theirs.remove(&b"z/7"[..]);
        crate::tree::change_tree(&place.remote(), &workspace(), &theirs);
        let report = restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &theirs, &what);
        assert_eq!(report.conflicts, [], "{what}");
        assert_eq!(run_folder(&place), [""; 0], "{what}");
        let came = client.bytes();
        assert_eq!(client.names().len() > 1, part_bytes < 1 << 30, "{what}");
        assert!(came < 1_500_000 || round_trip == 0, "{what}: {came} bytes");

        // The restored tree is the base of the next restore.
        let report = restore(&session, &*client).unwrap();
        assert_eq!((report.written, report.deleted), (Vec::new(), Vec::new()), "{what}");
        place.assert_no_litter();
    }
}

#[test]
fn assets_are_transferred_in_parts_too() {
    for round_trip in [0, 5] {
        let place = Place::with(&tree([("one", file("1"))]));
        let asset = place.root().join("asset");
        fs::create_dir(&asset).unwrap();
        crate::tree::write_tree(&asset, &workspace());
        let mut upload = in_parts(&place, 300_000, 2);
        upload.assets = ["first", "second"]
            .map(|key| Asset {
                key: key.to_owned(),
                local_dir: asset.clone(),
                follow_links: false,
                exclude: Vec::new(),
            })
            .to_vec();
        upload.concurrency = 2;
        let client = Distant::new(round_trip);
        prepare_upload(&client, upload).unwrap();
        let run = place.remote().join(RUNTIME).join("attack");
        for key in ["first", "second"] {
            assert_same(&read_tree(&run.join(key)), &workspace(), key);
        }
        let mut left = run_folder(&place);
        left.sort();
        assert_eq!(left, ["first", "second"]);
    }
}

/// Every call fails once with a temporary error. The run fails only if that was a command that must not be
/// repeated.
#[test]
fn transfers_are_repeated_after_a_temporary_failure() {
    let place = Place::with(&workspace());
    let client = Distant::new(5);
    let upload = || in_parts(&place, 1_000_000, 1);
    prepare_upload(&client, upload()).unwrap();
    let calls = client.local.calls.count();
    assert!(calls >= 5, "{calls}");
    client.local.calls.passes.store(true, Ordering::SeqCst);
    for call in 0..calls {
        client.local.calls.fail_at(Some(call));
        let prepared = prepare_upload(&client, upload());
        match prepared {
            Ok(session) => {
                assert_same(&read_tree(&place.remote()), &workspace(), &format!("call {call}"));
                client.local.calls.fail_at(Some(1));
                restore(&session, &*client).unwrap();
            }
            Err(RunError::Client(failure)) => {
                assert_eq!(failure, Failure::Temporary(call));
                assert_eq!(call, calls - 1, "only the command is not made again");
            }
            Err(RunError::Own(error)) => panic!("call {call}: {error}"),
        }
        assert_eq!(run_folder(&place), [""; 0], "call {call}");
    }
}

/// After a permanent failure nothing of an archive is left in the sandbox.
#[test]
fn nothing_of_an_archive_is_left_in_the_sandbox_after_a_failure() {
    let place = Place::with(&workspace());
    let client = Distant::new(5);
    let upload = || in_parts(&place, 1_000_000, 1);
    let session = prepare_upload(&client, upload()).unwrap();
    let before = Picture::inside(&place.workspace());
    for call in 0..client.local.calls.count() {
        client.local.calls.fail_at(Some(call));
        assert!(matches!(prepare_upload(&client, upload()), Err(RunError::Client(Failure::Wanted(_)))));
        assert_eq!(run_folder(&place), [""; 0], "prepare, call {call}");
    }
    client.local.calls.fail_at(None);
    drop(session);
    let session = prepare_upload(&client, upload()).unwrap();
    for call in [1, 3, 5] {
        client.local.calls.fail_at(Some(call));
        match restore(&session, &*client) {
            Err(RunError::Client(failure)) => assert_eq!(failure, Failure::Wanted(call)),
            Ok(_) => panic!("call {call} was to fail"),
            Err(RunError::Own(error)) => panic!("call {call}: {error}"),
        }
        assert_eq!(run_folder(&place), [""; 0], "restore, call {call}");
        assert_eq!(Picture::inside(&place.workspace()), before, "call {call}");
    }
    client.local.calls.fail_at(None);
    restore(&session, &*client).unwrap();
    place.assert_no_litter();
}

/// A damaged part is an error, and nothing is changed.
#[test]
fn a_damaged_part_changes_nothing() {
    let damages: &[(&str, Damage)] = &[
        ("cut", |bytes| bytes.truncate(bytes.len() - 1)),
        ("cut by a block", |bytes| bytes.truncate(bytes.len().saturating_sub(512))),
        ("longer", |bytes| bytes.push(0)),
        ("empty", Vec::clear),
    ];
    for (round_trip, parts) in [(0, [0, 2]), (5, [0, 1])] {
        for part in parts {
            for &(name, damage) in damages {
                let what = format!("part {part} {name}, {round_trip} ms");
                let place = Place::with(&workspace());
                let client = Distant::new(round_trip);
                let session = prepare_upload(&client, in_parts(&place, 1_000_000, 1)).unwrap();
                fs::write(place.remote().join("a/empty"), "changed").unwrap();
                fs::write(place.remote().join("text"), "much of it\n".repeat(100_000)).unwrap();
                let before = Picture::inside(&place.workspace());
                *client.damage.lock().unwrap() = Some((part, damage));
                match restore(&session, &*client) {
                    Err(RunError::Own(Error::ArchiveInvalid { .. } | Error::ArchiveTruncated { .. })) => {}
                    Err(RunError::Own(error)) => panic!("{what}: {error}"),
                    Err(RunError::Client(failure)) => panic!("{what}: {failure:?}"),
                    Ok(_) => panic!("{what}: it was taken"),
                }
                assert_eq!(Picture::inside(&place.workspace()), before, "{what}");
                assert_eq!(run_folder(&place), [""; 0], "{what}");
                *client.damage.lock().unwrap() = None;
                restore(&session, &*client).unwrap();
                assert_eq!(fs::read(place.at("a/empty")).unwrap(), b"changed", "{what}");
            }
        }
    }
}

/// A sandbox that cannot decompress gets the archive again, uncompressed.
#[test]
fn a_sandbox_without_gunzip_gets_plain_parts() {
    struct Bare(Distant);
    impl SandboxClient for Bare {
        type Failure = Failure;
        type Upload = Vec<u8>;
        type Download = Vec<u8>;
        async fn allocate(&self, size: u64) -> Result<Vec<u8>, Failure> {
            self.0.allocate(size).await
        }
        async fn make_dir(&self, path: &str) -> Result<Duration, Failure> {
            self.0.make_dir(path).await
        }
        async fn write_file(&self, path: &str, bytes: &Vec<u8>, part: Part<'_>) -> Result<Duration, Failure> {
            self.0.write_file(path, bytes, part).await
        }
        async fn read_file(&self, path: &str, part: Option<Part<'_>>) -> Result<Vec<u8>, Failure> {
            self.0.read_file(path, part).await
        }
        async fn remove(&self, path: &str) -> Result<(), Failure> {
            self.0.remove(path).await
        }
        async fn run(&self, command: &str) -> Result<(), Failure> {
            let tools = Path::new("/tmp").join(format!("bare-tools-{}", std::process::id()));
            fs::create_dir_all(&tools)?;
            for tool in ["sh", "tar", "find", "mkdir", "rm", "wc", "head", "tail", "cat", "mv"] {
                let from = [Path::new("/usr/bin"), Path::new("/bin")].map(|folder| folder.join(tool));
                let from = from.iter().find(|path| path.exists()).unwrap();
                // An earlier command has made it.
                let _made = std::os::unix::fs::symlink(from, tools.join(tool));
            }
            let command = format!("PATH='{}'; export PATH; {command}", tools.display());
            let outcome = self.0.run(&command).await;
            fs::remove_dir_all(&tools)?;
            outcome
        }
        fn is_passing(&self, failure: &Failure) -> bool {
            self.0.is_passing(failure)
        }
        async fn discard(&self, path: &str) {
            self.0.discard(path).await;
        }
        async fn clear(&self, command: &str) {
            self.0.clear(command).await;
        }
    }
    let place = Place::with(&workspace());
    let client = Arc::new(Bare(Arc::into_inner(Distant::new(5)).unwrap()));
    let session = prepare_upload(&client, in_parts(&place, 1_000_000, 1)).unwrap();
    assert_same(&read_tree(&place.remote()), &workspace(), "uploaded");
    fs::write(place.remote().join("a/empty"), "changed").unwrap();
    restore(&session, &*client).unwrap();
    assert_eq!(fs::read(place.at("a/empty")).unwrap(), b"changed");
    assert_eq!(run_folder(&place), [""; 0]);
}

/// Keeps an archive, in parts of a size if it is to be made in place.
#[derive(Default)]
struct Kept {
    archive: Vec<u8>,
    part: Option<usize>,
    /// Called after each time that bytes came.
    after: Option<Box<dyn FnMut(usize) + Send>>,
}

impl Kept {
    fn came(&mut self) {
        if let Some(after) = &mut self.after {
            after(self.archive.len());
        }
    }
}

impl Sink for Kept {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.archive.extend_from_slice(bytes);
        self.came();
        Ok(())
    }

    fn room(&mut self) -> Result<u64, Error> {
        Ok(self.part.map_or(0, |part| part - self.archive.len() % part) as u64)
    }

    fn in_place(
        &mut self,
        size: usize,
        make: &mut (dyn FnMut(&mut [u8]) -> Result<bool, Error> + Send),
    ) -> Result<(), Error> {
        let start = self.archive.len();
        self.archive.resize(start + size, 0);
        if !make(&mut self.archive[start..])? {
            self.archive.truncate(start);
        }
        self.came();
        Ok(())
    }
}

fn scanned(place: &Place) -> Layout {
    Layout::scan(Root::open(&place.workspace()).unwrap(), &Filter::default(), &Cancel::default()).unwrap()
}

#[test]
fn an_archive_made_in_place_equals_one_that_is_copied() {
    let place = Place::with(&workspace());
    fs::write(place.at("exactly a mebibyte"), noise(1 << 20, 4)).unwrap();
    fs::write(place.at("a byte more"), noise((1 << 20) + 1, 5)).unwrap();
    fs::hard_link(place.at("a byte more"), place.at("z further name")).unwrap();
    let (layout, cancel) = (scanned(&place), Cancel::default());
    let mut copied = Kept::default();
    let expected = layout.stream(true, &mut copied, &cancel).unwrap();
    for part in [1, 511, 4096, 1_000_003, 1 << 30] {
        let mut made = Kept { part: Some(part), ..Kept::default() };
        let contents = layout.stream(true, &mut made, &cancel).unwrap();
        assert!(made.archive == copied.archive, "{part}");
        assert_eq!(contents.sent, expected.sent, "{part}");
        assert_eq!(contents.snapshot, expected.snapshot, "{part}");
    }
}

/// Two threads read the pieces of a large file and hash them in turns.
#[test]
fn a_file_of_many_pieces_is_packed_and_hashed_as_it_is() {
    let content = noise((9 << 20) + 3, 11);
    let place = Place::with(&tree([("large", file(content.clone()))]));
    let layout = scanned(&place);
    for part in [None, Some(1 << 20), Some((3 << 20) + 5), Some(1 << 30)] {
        for _ in 0..10 {
            let mut kept = Kept { part, ..Kept::default() };
            let contents = layout.stream(true, &mut kept, &Cancel::default()).unwrap();
            let Some(Entry::File { digest, .. }) = contents.snapshot.get(b"large") else {
                panic!("{part:?}")
            };
            assert_eq!(digest.0[..], sha2::Sha256::digest(&content)[..], "{part:?}");
            assert!(kept.archive[512..].starts_with(&content), "{part:?}");
        }
    }
}

/// What is appended to a file after its end was found would be at another offset in the archive.
#[test]
fn a_file_that_shrinks_and_grows_while_it_is_packed_ends_with_zeros() {
    const PIECE: usize = 1 << 20;
    for part in [None, Some(PIECE)] {
        let place = Place::with(&tree([("log", file(vec![b'a'; 4 * PIECE]))]));
        let (layout, at) = (scanned(&place), place.at("log"));
        let open = move || fs::File::options().write(true).open(&at).unwrap();
        let mut changes = 0;
        let after = move |length: usize| match (changes, length / PIECE) {
            (0, 1) => {
                open().set_len(3 * PIECE as u64 / 2).unwrap();
                changes = 1;
            }
            (1, 2) => {
                open().write_all_at(&vec![b'b'; PIECE], 3 * PIECE as u64 / 2).unwrap();
                changes = 2;
            }
            _ => {}
        };
        let mut kept = Kept { part, after: Some(Box::new(after)), ..Kept::default() };
        let contents = layout.stream(true, &mut kept, &Cancel::default()).unwrap();
        let mut content = Vec::new();
        let mut archive = tar::Archive::new(&kept.archive[..]);
        archive.entries().unwrap().next().unwrap().unwrap().read_to_end(&mut content).unwrap();
        let end = content.iter().position(|&byte| byte != b'a').unwrap();
        assert!(end < 2 * PIECE && content[end..].iter().all(|&byte| byte == 0), "{part:?}: {end}");
        let Some(Entry::File { digest, .. }) = contents.snapshot.get(b"log") else { panic!("{part:?}") };
        assert_eq!(digest.0[..], sha2::Sha256::digest(&content)[..], "{part:?}");
    }
}

/// If the first name of a large file is gone when it is packed, its other names are packed and reported.
#[test]
fn further_names_of_a_large_file_are_packed_if_the_first_is_gone() {
    let place = Place::with(&tree([("a", file(noise(1_500_000, 3)))]));
    for name in ["b", "c", "d"] {
        fs::hard_link(place.at("a"), place.at(name)).unwrap();
    }
    let cancel = Cancel::default();
    let layout = scanned(&place);
    fs::remove_file(place.at("a")).unwrap();
    let mut kept = Kept::default();
    let contents = layout.stream(true, &mut kept, &cancel).unwrap();
    let names: Vec<_> = contents.sent.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(names, ["b", "c", "d"]);
    assert_eq!(contents.snapshot.len(), 3);
    let mut archive = tar::Archive::new(&kept.archive[..]);
    let archived: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(archived, ["b", "c", "d"].map(std::path::PathBuf::from));
}

/// The sandbox gets each file as it is when it is packed, whatever happened to it since the scan.
#[test]
fn files_that_change_between_the_scan_and_packing_in_parts_arrive_as_they_are_then() {
    type Change = fn(&Path);
    let changes: &[(&str, Change)] = &[
        ("nothing", |_| {}),
        ("the last one grows by a byte", |at| fs::write(at.join("z"), "12345678").unwrap()),
        ("the last one grows by more than a part", |at| fs::write(at.join("z"), noise(400_000, 9)).unwrap()),
        ("a small one becomes a large one", |at| fs::write(at.join("a/b"), noise(3_000_000, 8)).unwrap()),
        ("a large one grows", |at| fs::write(at.join("large"), noise(4_200_000, 7)).unwrap()),
        ("a large one shrinks", |at| fs::write(at.join("large"), noise(1_100_000, 6)).unwrap()),
        ("a large one becomes a small one", |at| fs::write(at.join("large"), "little").unwrap()),
        ("a large one is empty", |at| fs::write(at.join("large"), "").unwrap()),
        ("a large one is gone", |at| fs::remove_file(at.join("large")).unwrap()),
        ("a small one is gone", |at| fs::remove_file(at.join("a/b")).unwrap()),
        ("the first name of a file is gone", |at| fs::remove_file(at.join("m1")).unwrap()),
        ("all change", |at| {
            fs::write(at.join("a/b"), noise(90_000, 5)).unwrap();
            fs::write(at.join("large"), noise(700_000, 5)).unwrap();
            fs::write(at.join("z"), noise(2_000_000, 5)).unwrap();
        }),
    ];
    for &(name, change) in changes {
        for (part_bytes, at_once, round_trip) in [(65_536, 4, 0), (1_000_000, 1, 0), (1_000_000, 1, 5)] {
            let what = format!("{name}, parts of {part_bytes}, {at_once} at once, {round_trip} ms");
            let text = "a line of text\n".repeat(20_000);
            let place = Place::with(&tree([
                ("a", DIR),
                ("a/b", file("little")),
                ("large", file(noise(2_500_000, 3))),
                ("m1", file("two names")),
                ("text", file(text)),
                ("z", file("1234567")),
            ]));
            fs::hard_link(place.at("m1"), place.at("m2")).unwrap();
            let client = Distant::new(round_trip);
            let workspace = place.workspace();
            *client.meanwhile.lock().unwrap() = Some(Box::new(move || change(&workspace)));
            let session = prepare_upload(&client, in_parts(&place, part_bytes, at_once)).unwrap();
            assert_same(&read_tree(&place.remote()), &place.tree(), &what);
            assert_eq!(run_folder(&place), [""; 0], "{what}");
            // The base of the merge is what arrived.
            fs::write(place.remote().join("text"), "changed").unwrap();
            let mut expected = place.tree();
            expected.insert(b"text".to_vec(), file("changed"));
            restore(&session, &*client).unwrap();
            assert_same(&place.tree(), &expected, &what);
        }
    }
}
