//! Transfers of changes only have the same result as full transfers, which serve as the oracle.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sandbox_managed_runtime::merge::report::{Conflict, Report};
use sandbox_managed_runtime::sandbox::resume::resume;
use sandbox_managed_runtime::sandbox::session::Session;
use sandbox_managed_runtime::sandbox::upload::{Asset, State, Upload};

use crate::place::{Place, look, prepare_upload, restore};
use crate::random::Random;
use crate::sandbox::LocalSandbox;
use crate::tools::Kind;
use crate::tree::{
    DIR, Node, Picture, RUNTIME, Tree, assert_same, file, link, path_of, remove, set_mode, tree, write_node,
};

/// The tools that every sandbox has.
const NEEDED: [&str; 12] =
    ["sh", "tar", "find", "mkdir", "rm", "wc", "head", "tail", "cat", "mv", "sleep", "chmod"];
/// The tools that are used if they are there.
const FURTHER: [&str; 14] = [
    "stat",
    "sort",
    "awk",
    "comm",
    "touch",
    "sha256sum",
    "cksum",
    "sed",
    "id",
    "dd",
    "gzip",
    "gunzip",
    "zcat",
    "zstd",
];

/// A folder with the tools of a sandbox, without some of them.
pub fn install(kind: Kind, into: &Path, without: &[&str]) -> PathBuf {
    let tools = into.join("tools");
    fs::create_dir_all(&tools).unwrap();
    let wanted = NEEDED.iter().chain(&FURTHER).filter(|tool| !without.contains(tool) && kind.has(tool));
    wanted.for_each(|tool| kind.install(tool, &tools));
    tools
}

/// Two places: one transfers only changes, the other everything.
struct Two {
    /// Transfers only changes.
    quick: Side,
    /// Transfers everything.
    full: Side,
}

/// A place with its sandbox.
struct Side {
    place: Place,
    client: Arc<LocalSandbox>,
    changes_only: bool,
}

impl Side {
    fn new(start: &Tree, tools: Kind, without: &[&str], changes_only: bool) -> Self {
        let place = Place::with(start);
        let tools = Some(install(tools, place.root(), without));
        Self { client: Arc::new(LocalSandbox { tools, ..LocalSandbox::default() }), place, changes_only }
    }

    fn upload(&self) -> Upload {
        Upload {
            changes_only: self.changes_only,
            exclude: vec![b"*.log".to_vec(), b"./build".to_vec()],
            ignore_files: vec![b".gitignore".to_vec()],
            preserve: vec![b"cache".to_vec()],
            compress: false,
            state: self.changes_only.then(|| State {
                folder: self.place.root().join("state"),
                sandbox: [b"local".to_vec(), b"one".to_vec()],
            }),
            ..self.place.upload()
        }
    }

    fn bytes_down(&self) -> usize {
        self.client.last_read.load(Ordering::SeqCst)
    }
}

impl Two {
    fn new(start: &Tree, tools: Kind, without: &[&str]) -> Self {
        Self { quick: Side::new(start, tools, without, true), full: Side::new(start, tools, without, false) }
    }

    /// Does the same on both sides.
    fn both(&self, mut edit: impl FnMut(&Place)) {
        edit(&self.quick.place);
        edit(&self.full.place);
    }

    /// Prepares both, and asserts that both sandboxes have the same content afterwards.
    #[track_caller]
    fn prepare(&self, what: &str) -> [Session; 2] {
        let sessions =
            [&self.quick, &self.full].map(|side| prepare_upload(&side.client, side.upload()).unwrap());
        let [quick, full] = [&self.quick, &self.full].map(|side| remote_picture(&side.place));
        for (path, expected) in &full {
            assert_eq!(quick.get(path), Some(expected), "{what}: {} in the sandbox", path.display());
        }
        for path in quick.keys() {
            assert!(full.contains_key(path), "{what}: {} is in the sandbox", path.display());
        }
        sessions
    }

    /// Restores both, and asserts that the workspaces and reports are the same afterwards.
    #[track_caller]
    fn restore(&self, sessions: &[Session; 2], what: &str) -> Report {
        let quick = restore(&sessions[0], &*self.quick.client).unwrap();
        let full = restore(&sessions[1], &*self.full.client).unwrap();
        assert_same(&self.quick.place.tree(), &self.full.place.tree(), what);
        assert_eq!(without_times(&quick), without_times(&full), "{what}");
        let kept = |place: &Place| place.kept_aside().into_iter().collect::<BTreeSet<_>>();
        assert_eq!(kept(&self.quick.place), kept(&self.full.place), "{what}: what was kept aside");
        self.quick.place.assert_no_litter();
        quick
    }
}

/// The content of a sandbox, with the first name of each file, and whether its time is that of the local
/// file.
fn remote_picture(place: &Place) -> BTreeMap<PathBuf, String> {
    let root = &place.remote();
    let mut firsts: HashMap<u64, PathBuf> = HashMap::new();
    let mut picture = BTreeMap::new();
    for (path, node) in crate::tree::read_tree(root) {
        let path = path_of(&path).to_path_buf();
        let metadata = fs::symlink_metadata(root.join(&path)).unwrap();
        let more = if metadata.is_file() {
            let first = firsts.entry(metadata.ino()).or_insert_with(|| path.clone());
            let local = fs::symlink_metadata(place.at(&path)).map(|metadata| metadata.mtime()).ok();
            format!("{} {} {}", metadata.nlink(), first.display(), local == Some(metadata.mtime()))
        } else {
            String::new()
        };
        picture.insert(path, format!("{node:?} {more}"));
    }
    picture
}

/// A report in which the paths of backups do not depend on the time.
fn without_times(report: &Report) -> String {
    let mut report = report.clone();
    for conflict in report.conflicts.iter_mut().chain(&mut report.deletions_backed_up) {
        conflict.backed_up_at = conflict.path.clone();
    }
    format!("{report:#?}")
}

/// Waits for the next second, so that a file written then has another time.
fn next_second() {
    std::thread::sleep(std::time::Duration::from_millis(1001));
}

fn start() -> Tree {
    let mut start = tree([
        ("a", file("one")),
        ("b", file("two")),
        ("d", DIR),
        ("d/e", DIR),
        ("d/e/f", file("three")),
        ("d/g", file("four")),
        ("l", link("a")),
        ("x.sh", Node::File(0o755, b"#!/bin/sh\n".to_vec())),
        ("build-not", file("five")),
    ]);
    for number in 0..30 {
        start.insert(format!("many/{number}").into_bytes(), file(format!("number {number}").repeat(100)));
    }
    start.insert(b"many".to_vec(), DIR);
    start
}

/// Writes other content of the same length, and restores the modification time.
fn rewrite_in_secret(path: &Path) {
    let before = fs::metadata(path).unwrap();
    let mut content = fs::read(path).unwrap();
    content[0] ^= 1;
    fs::write(path, content).unwrap();
    put_back_time(path, &before);
}

fn put_back_time(path: &Path, before: &fs::Metadata) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    assert_eq!(fs::metadata(path).unwrap().mtime_nsec(), before.mtime_nsec());
}

/// The edits of an agent, by name.
type Edit = (&'static str, fn(&Path));

const EDITS: [Edit; 24] = [
    ("nothing", |_| {}),
    ("a file is written", |at| fs::write(at.join("a"), "changed").unwrap()),
    ("a file is changed at its old size and time", |at| rewrite_in_secret(&at.join("d/e/f"))),
    ("a file is copied over with its time", |at| {
        let before = fs::metadata(at.join("b")).unwrap();
        fs::write(at.join("b.new"), "TWO").unwrap();
        put_back_time(&at.join("b.new"), &before);
        fs::rename(at.join("b.new"), at.join("b")).unwrap();
    }),
    ("a mode alone", |at| set_mode(&at.join("a"), 0o600)),
    ("a mode of a directory alone", |at| set_mode(&at.join("d/e"), 0o700)),
    ("equal content is written anew", |at| fs::write(at.join("a"), "one").unwrap()),
    ("a directory is renamed", |at| fs::rename(at.join("many"), at.join("few")).unwrap()),
    ("a file becomes a directory", |at| {
        fs::remove_file(at.join("a")).unwrap();
        fs::create_dir(at.join("a")).unwrap();
        fs::write(at.join("a/below"), "new").unwrap();
    }),
    ("a directory becomes a file", |at| {
        fs::remove_dir_all(at.join("d")).unwrap();
        fs::write(at.join("d"), "a file").unwrap();
    }),
    ("a directory becomes a link", |at| {
        fs::remove_dir_all(at.join("d")).unwrap();
        symlink("many", at.join("d")).unwrap();
    }),
    ("a link is pointed elsewhere", |at| {
        fs::remove_file(at.join("l")).unwrap();
        symlink("b", at.join("l")).unwrap();
    }),
    ("a further name is made", |at| fs::hard_link(at.join("a"), at.join("d/hard")).unwrap()),
    ("a further name is made and changed", |at| {
        fs::hard_link(at.join("d/g"), at.join("hard")).unwrap();
        fs::write(at.join("hard"), "through a further name").unwrap();
    }),
    ("a directory is emptied", |at| fs::remove_file(at.join("d/e/f")).unwrap()),
    ("a directory is removed", |at| fs::remove_dir_all(at.join("d")).unwrap()),
    ("a directory is made", |at| fs::create_dir_all(at.join("new/er")).unwrap()),
    ("a device", |at| write_node(&at.join("fifo"), &Node::Fifo)),
    ("a device in the place of a file", |at| {
        fs::remove_file(at.join("b")).unwrap();
        write_node(&at.join("b"), &Node::Fifo);
    }),
    ("a socket in the place of a file", |at| {
        fs::remove_file(at.join("b")).unwrap();
        drop(UnixListener::bind(at.join("b")).unwrap());
    }),
    ("what is excluded", |at| {
        fs::create_dir_all(at.join("build/deep")).unwrap();
        fs::write(at.join("build/deep/out"), "built").unwrap();
        fs::write(at.join("d/new.log"), "logged").unwrap();
    }),
    ("what is preserved", |at| {
        fs::create_dir_all(at.join("cache")).unwrap();
        fs::write(at.join("cache/c"), "cached").unwrap();
    }),
    ("odd names", |at| {
        for name in
            [&b"tab\there"[..], b"back\\slash", b"-dash", b" blank ", b"not\xffutf8", b"*?[", b"'\"$`"]
        {
            fs::write(at.join(OsString::from_vec(name.to_vec())), name).unwrap();
        }
    }),
    ("a line break in a name", |at| fs::write(at.join("line\nbreak"), "odd").unwrap()),
];

/// All edits with busybox alone, whose tools differ most; some with each of the others.
fn edits(tools: Kind) -> impl Iterator<Item = Edit> {
    let step = if tools == Kind::Busybox { 1 } else { 8 };
    EDITS.into_iter().skip(Kind::ALL.iter().position(|other| *other == tools).unwrap() % step).step_by(step)
}

/// The size of a download of few changes: tar makes archives of at least 10 KiB, and a line with the download's name follows.
const SMALLEST: usize = 10_240 + 80;

#[test]
fn every_change_of_an_agent_is_restored_as_by_a_full_download() {
    for tools in Kind::ALL {
        for (name, edit) in edits(tools) {
            let two = Two::new(&start(), tools, &[]);
            let what = format!("{name}, {tools:?}");
            let sessions = two.prepare(&what);
            two.both(|place| edit(&place.remote()));
            two.restore(&sessions, &what);
            // Changes again what was there before the last index, or restores it.
            two.both(|place| {
                fs::write(place.remote().join("x.sh"), "#!/bin/bash\n").unwrap();
                fs::write(place.at("many.local"), "local").unwrap();
            });
            two.restore(&sessions, &format!("{name}, then another, {tools:?}"));
            two.restore(&sessions, &format!("{name}, then nothing, {tools:?}"));
            let sessions = two.prepare(&format!("{name}, then the next heartbeat, {tools:?}"));
            two.both(|place| fs::write(place.remote().join("x.sh"), "#!/bin/false\n").unwrap());
            two.restore(&sessions, &format!("{name}, after the next heartbeat, {tools:?}"));
        }
    }
}

/// Git sets the time of a pack when it would store an object that the pack has.
#[test]
fn a_pack_with_another_time_alone_is_not_transferred() {
    const PACK: &str = "repo/objects/pack/pack-0123456789012345678901234567890123456789.pack";
    let mut start = start();
    for dir in ["repo", "repo/objects", "repo/objects/pack"] {
        start.insert(dir.into(), DIR);
    }
    start.insert(PACK.into(), file("a pack of git".repeat(10_000)));
    let touched: Edit = ("another time", |at| {
        let pack = fs::File::options().write(true).open(at.join(PACK)).unwrap();
        let day = std::time::Duration::from_secs(86_400);
        pack.set_modified(pack.metadata().unwrap().modified().unwrap() + day).unwrap();
    });
    for tools in Kind::ALL {
        let two = Two::new(&start, tools, &[]);
        let mut sessions = two.prepare("at first");
        for round in 0..2 {
            let what = format!("{tools:?}, round {round}");
            two.both(|place| touched.1(&place.remote()));
            two.restore(&sessions, &what);
            assert!(two.quick.bytes_down() < 20_000, "{what}: {} bytes came", two.quick.bytes_down());
            two.both(|place| touched.1(&place.remote()));
            let bytes = two.quick.bytes_up(|| sessions = two.prepare(&what));
            assert!(bytes < 20_000, "{what}: {bytes} bytes");
        }
    }
    // Anything else that is done to it has the result of full transfers.
    let edits: [Edit; 6] = [
        ("other content of its size", |at| rewrite_in_secret(&at.join(PACK))),
        ("equal content", |at| {
            let content = fs::read(at.join(PACK)).unwrap();
            fs::remove_file(at.join(PACK)).unwrap();
            fs::write(at.join(PACK), content).unwrap();
        }),
        ("another size", |at| fs::write(at.join(PACK), "short").unwrap()),
        ("another mode", |at| set_mode(&at.join(PACK), 0o600)),
        ("a further name", |at| {
            remove(&at.join("further"));
            fs::hard_link(at.join(PACK), at.join("further")).unwrap();
        }),
        ("gone", |at| fs::remove_file(at.join(PACK)).unwrap()),
    ];
    for (name, edit) in edits {
        for (first, second) in [(edit, touched.1), (touched.1, edit)] {
            let two = Two::new(&start, Kind::Dash, &[]);
            let mut sessions = two.prepare("at first");
            let try_on = |edit: fn(&Path)| {
                two.both(|place| {
                    if place.remote().join(PACK).exists() {
                        edit(&place.remote());
                    }
                });
            };
            try_on(first);
            two.restore(&sessions, &format!("{name}, restored"));
            try_on(second);
            two.restore(&sessions, &format!("{name}, restored again"));
            try_on(first);
            try_on(second);
            sessions = two.prepare(&format!("{name}, uploaded"));
            two.restore(&sessions, &format!("{name}, after an upload"));
        }
    }
}

impl Side {
    /// The size of an upload.
    fn bytes_up(&self, upload: impl FnOnce()) -> usize {
        let before = self.client.written.load(Ordering::SeqCst);
        upload();
        self.client.written.load(Ordering::SeqCst) - before
    }
}

#[test]
fn every_local_change_is_uploaded_as_by_a_full_upload() {
    for tools in Kind::ALL {
        for (name, edit) in edits(tools) {
            let two = Two::new(&start(), tools, &[]);
            let what = format!("{name}, {tools:?}");
            let sessions = two.prepare(&what);
            two.both(|place| fs::write(place.remote().join("x.sh"), "#!/bin/false\n").unwrap());
            if name == "nothing" {
                next_second();
            }
            two.restore(&sessions, &what);
            two.both(|place| edit(&place.workspace()));
            let sessions = two.prepare(&format!("{what}, by an update"));
            two.both(|place| fs::write(place.remote().join("x.sh"), "#!/bin/true\n").unwrap());
            two.restore(&sessions, &format!("{what}, after an update"));
        }
    }
}

#[test]
fn an_upload_costs_what_has_changed() {
    for tools in Kind::ALL {
        let two = Two::new(&start(), tools, &[]);
        two.prepare("at first");
        for round in 0..3 {
            two.both(|place| {
                fs::write(place.at("a"), format!("round {round}")).unwrap();
                fs::remove_file(place.at(format!("many/{round}"))).unwrap();
                fs::write(place.remote().join("b"), format!("there {round}")).unwrap();
                fs::write(place.remote().join(format!("there {round}")), "new").unwrap();
            });
            let what = format!("{tools:?}, round {round}");
            let mut sessions = None;
            let bytes = two.quick.bytes_up(|| sessions = Some(two.prepare(&what)));
            // The script is there already.
            assert!(bytes < 20_000, "{what}: {bytes} bytes");
            two.restore(&sessions.unwrap(), &what);
        }
    }
}

/// Which packs are sent depends on those that the sandbox still has.
#[test]
fn packs_that_the_sandbox_replaced_are_sent_again_and_nothing_else() {
    let mut start = start();
    start.insert("large".into(), file("x".repeat(200_000)));
    let side = Side::new(&start, Kind::Dash, &[], true);
    let git = |folder: &Path, arguments: &[&str]| {
        let author = ["-c", "user.name=T", "-c", "user.email=t@t", "-c", "safe.directory=*"];
        let output = Command::new("git").args(author).args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", output.stderr.escape_ascii());
    };
    let (here, there) = (side.place.workspace(), side.place.remote());
    git(&here, &["init", "-q", "-b", "main"]);
    git(&here, &["add", "a"]);
    git(&here, &["commit", "-q", "-m", "first"]);
    let bytes = side.bytes_up(|| drop(prepare_upload(&side.client, side.upload()).unwrap()));
    assert!(bytes > 200_000, "{bytes} bytes");
    git(&there, &["commit", "-q", "--allow-empty", "-m", "there"]);
    git(&there, &["repack", "-q", "-a", "-d"]);
    let bytes = side.bytes_up(|| drop(prepare_upload(&side.client, side.upload()).unwrap()));
    assert!(bytes < 100_000, "{bytes} bytes");
    git(&there, &["fsck", "--full", "--strict"]);
    git(&there, &["diff", "--exit-code", "HEAD"]);
}

#[test]
fn a_script_that_is_gone_or_changed_in_the_sandbox_costs_a_full_upload() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 2] = [
        ("changed", |path| {
            let script = fs::read_to_string(path).unwrap();
            fs::write(path, format!("{script}# formatted\n")).unwrap();
        }),
        ("gone", |path| fs::remove_file(path).unwrap()),
    ];
    for (name, damage) in damages {
        let two = Two::new(&start(), Kind::Dash, &[]);
        two.prepare("at first");
        two.both(|place| damage(&script(place)));
        two.both(|place| fs::write(place.at("a"), "changed").unwrap());
        let mut sessions = None;
        let bytes = two.quick.bytes_up(|| sessions = Some(two.prepare(name)));
        assert!(bytes > 40_000, "{name}: {bytes} bytes");
        two.restore(&sessions.unwrap(), name);
        two.both(|place| fs::write(place.at("a"), "changed again").unwrap());
        let bytes = two.quick.bytes_up(|| drop(two.prepare(name)));
        assert!(bytes < 20_000, "{name}, the next one: {bytes} bytes");
    }
}

fn touch(file: &Path) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
}

fn replace_by_file(folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
    fs::write(folder, "a file").unwrap();
}

fn replace_by_link(file: &Path) {
    fs::remove_file(file).unwrap();
    symlink("large", file).unwrap();
}

/// Asserts that the sandbox has the asset as it is locally. How many bytes were sent for that.
#[track_caller]
fn bytes_for_asset(side: &Side, what: &str) -> usize {
    let asset = Asset {
        key: "the skills".to_owned(),
        local_dir: side.place.root().join("skills"),
        follow_links: false,
        exclude: Vec::new(),
    };
    let upload = Upload { assets: vec![asset], ..side.upload() };
    let bytes = side.bytes_up(|| drop(prepare_upload(&side.client, upload).unwrap()));
    let there = side.place.remote().join(RUNTIME).join("attack/the skills");
    let [here, there] = [side.place.root().join("skills"), there].map(|root| crate::tree::read_tree(&root));
    assert_same(&there, &here, what);
    bytes
}

#[test]
fn of_an_asset_only_the_change_is_sent_and_all_of_it_where_the_sandbox_changed_it() {
    type Edit = (&'static str, fn(&Path), fn(&Path), bool);
    let nothing: fn(&Path) = |_| {};
    let edits: [Edit; 16] = [
        ("a file changed", |local| fs::write(local.join("a/b"), "changed").unwrap(), nothing, false),
        ("a mode changed", |local| set_mode(&local.join("a"), 0o700), nothing, false),
        ("a file is gone", |local| fs::remove_file(local.join("a/b")).unwrap(), nothing, false),
        ("a new file", |local| fs::write(local.join("a/new"), "new").unwrap(), nothing, false),
        ("a time changed", |local| touch(&local.join("a/new")), nothing, false),
        ("a directory is gone", |local| fs::remove_dir_all(local.join("a")).unwrap(), nothing, false),
        ("a directory is new", |local| fs::create_dir_all(local.join("a/c/d")).unwrap(), nothing, false),
        ("a directory became a file", |local| replace_by_file(&local.join("a/c")), nothing, false),
        ("a file became a link", |local| replace_by_link(&local.join("a/c")), nothing, false),
        (
            "a second name",
            |local| fs::hard_link(local.join("large"), local.join("z")).unwrap(),
            nothing,
            true,
        ),
        (
            "a file changed in the sandbox, in secret",
            nothing,
            |remote| rewrite_in_secret(&remote.join("large")),
            true,
        ),
        ("a mode changed in the sandbox", nothing, |remote| set_mode(&remote.join("a"), 0o711), true),
        ("a new file in the sandbox", nothing, |remote| fs::write(remote.join("new"), "new").unwrap(), true),
        ("all is gone in the sandbox", nothing, |remote| fs::remove_dir_all(remote).unwrap(), true),
        (
            "it is a link to itself elsewhere",
            nothing,
            |remote| {
                let elsewhere = remote.with_file_name("elsewhere");
                fs::rename(remote, &elsewhere).unwrap();
                symlink(elsewhere, remote).unwrap();
            },
            true,
        ),
        (
            "the indexes are gone in the sandbox",
            nothing,
            |remote| {
                fs::remove_dir_all(remote.with_file_name(".paperclip").join("assets")).unwrap();
            },
            true,
        ),
    ];
    for tools in Kind::ALL {
        let side = Side::new(&start(), tools, &[], true);
        let local = side.place.root().join("skills");
        let remote = side.place.remote().join(RUNTIME).join("attack/the skills");
        fs::create_dir_all(local.join("a")).unwrap();
        fs::write(local.join("a/b"), "one").unwrap();
        fs::write(local.join("large"), vec![7; 200_000]).unwrap();
        bytes_for_asset(&side, "at first");
        for (name, edit_local, edit_remote, is_whole) in edits {
            let what = format!("{name}, {tools:?}");
            edit_local(&local);
            edit_remote(&remote);
            let bytes = bytes_for_asset(&side, &what);
            assert_eq!(bytes > 200_000, is_whole, "{what}: {bytes} bytes");
            let bytes = bytes_for_asset(&side, &what);
            assert!(bytes < 50_000, "after {what}: {bytes} bytes");
        }
    }
}

/// The script that the last upload has brought or taken over.
fn script(place: &Place) -> PathBuf {
    let own = place.remote().join(RUNTIME).join("attack/.paperclip");
    let mut uploads =
        fs::read_dir(own).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    uploads.next().unwrap().join("script.sh")
}

#[test]
fn a_download_costs_what_has_changed() {
    for tools in Kind::ALL {
        let two = Two::new(&start(), tools, &[]);
        let sessions = two.prepare("at first");
        for round in 0..3 {
            two.both(|place| fs::write(place.remote().join("a"), format!("round {round}")).unwrap());
            let report = two.restore(&sessions, &format!("{tools:?}"));
            assert_eq!(report.written.len(), 1);
            let (changes, all) = (two.quick.bytes_down(), two.full.bytes_down());
            assert!(changes <= SMALLEST && all > 30_000, "{tools:?}: {changes} of {all} bytes");
        }
    }
}

#[test]
fn missing_tools_cost_only_a_full_download() {
    let tools = Kind::Busybox;
    for missing in FURTHER {
        let two = Two::new(&start(), tools, &[missing]);
        let sessions = two.prepare("at first");
        two.both(|place| rewrite_in_secret(&place.remote().join("a")));
        let report = two.restore(&sessions, &format!("without {missing}, {tools:?}"));
        assert_eq!(report.written.len(), 1, "without {missing}, {tools:?}");
        let is_needed = ["stat", "sort", "awk"].contains(&missing);
        // (Without sha256sum, the listing of what was extracted is downloaded and compared on this side.)
        let is_full = two.quick.bytes_down() > 30_000;
        assert_eq!(is_full, is_needed || missing == "sha256sum", "without {missing}, {tools:?}");
    }
}

fn indexes(place: &Place) -> Vec<PathBuf> {
    let own = place.remote().join(RUNTIME).join("attack/.paperclip");
    let uploads = fs::read_dir(own).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = uploads.flat_map(|upload| fs::read_dir(upload).unwrap()).map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("index.")).collect()
}

#[test]
fn a_missing_truncated_or_edited_index_costs_only_a_full_download() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 6] = [
        ("gone", |path| fs::remove_file(path).unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("cut", |path| {
            let text = fs::read(path).unwrap();
            fs::write(path, &text[..text.len() / 2]).unwrap();
        }),
        ("without a line", |path| {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.split_once('\n').unwrap().1).unwrap();
        }),
        ("edited", |path| {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.replace("./a\u{1}", "./z\u{1}")).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let two = Two::new(&start(), Kind::Dash, &[]);
        let sessions = two.prepare("at first");
        two.both(|place| fs::write(place.remote().join("a"), "changed").unwrap());
        let index = indexes(&two.quick.place);
        let index = index.iter().find(|path| path.extension().unwrap() != "sum").unwrap();
        damage(index);
        let report = two.restore(&sessions, name);
        assert_eq!(report.written.len(), 1, "{name}");
        assert!(two.quick.bytes_down() > 30_000, "{name}");
        // The next restore has an index again.
        two.both(|place| fs::write(place.remote().join("a"), "changed again").unwrap());
        two.restore(&sessions, name);
        assert!(two.quick.bytes_down() <= SMALLEST, "{name}");
    }
}

#[test]
fn no_more_than_two_indexes_are_kept_in_a_sandbox() {
    let two = Two::new(&start(), Kind::Dash, &[]);
    let sessions = two.prepare("at first");
    for round in 0..5 {
        two.restore(&sessions, &round.to_string());
        assert!(indexes(&two.quick.place).len() <= 4, "{:?}", indexes(&two.quick.place));
    }
}

#[test]
fn a_failed_restore_does_not_make_the_next_one_full() {
    let two = Two::new(&start(), Kind::Dash, &[]);
    let sessions = two.prepare("at first");
    for fail_at in 0..2 {
        two.both(|place| {
            fs::write(place.remote().join("a"), format!("before {fail_at}")).unwrap();
            fs::remove_file(place.remote().join(format!("many/{fail_at}"))).unwrap();
        });
        two.quick.client.calls.fail_at(Some(fail_at));
        // The first call of a restore may fail and be followed by a second attempt.
        let failed = restore(&sessions[0], &*two.quick.client);
        two.quick.client.calls.fail_at(None);
        if fail_at == 1 {
            failed.unwrap_err();
            two.both(|place| fs::write(place.remote().join("b"), "after the failure").unwrap());
            two.restore(&sessions, "after a failure");
        } else {
            restore(&sessions[1], &*two.full.client).unwrap();
            assert_same(&two.quick.place.tree(), &two.full.place.tree(), "after a second way");
        }
    }
}

/// A random edit of a tree, the same for the same seed and tree.
fn random_edit(random: &mut Random, root: &Path) {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    let mut at = 0;
    while at < folders.len() {
        let mut names: Vec<_> =
            fs::read_dir(&folders[at]).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.file_name().unwrap() != RUNTIME);
        names.sort();
        for path in names {
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                folders.push(path.clone());
            }
            paths.push(path);
        }
        at += 1;
    }
    let folder = random.pick(&folders).clone();
    let fresh = ["n1", "n2", "n3", "n 4", "-n5", "n.log", "build", "cache", "n\t6"];
    let new = folder.join(random.pick(&fresh));
    let content = format!("content {}", random.below(1000)).repeat(1 + random.below(50));
    let any = (!paths.is_empty()).then(|| random.pick(&paths).clone());
    let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    match (random.below(14), any) {
        (0 | 1, _) if !new.is_dir() => fs::write(&new, content).unwrap_or(()),
        (2, _) => fs::create_dir_all(&new).unwrap_or(()),
        (3, Some(path)) if is_file(&path) => rewrite_in_secret(&path),
        (4, Some(path)) if is_file(&path) => fs::write(&path, content).unwrap(),
        (5, Some(path)) if is_file(&path) => set_mode(&path, *random.pick(&[0o600, 0o644, 0o755, 0o640])),
        (6, Some(path)) => remove(&path),
        (7, Some(path)) if !new.starts_with(&path) && !new.exists() => fs::rename(&path, &new).unwrap_or(()),
        (8, Some(path)) if is_file(&path) && !new.exists() => fs::hard_link(&path, &new).unwrap_or(()),
        (9, _) if fs::symlink_metadata(&new).is_err() => symlink("a", &new).unwrap(),
        (10, Some(path)) => {
            remove(&path);
            fs::create_dir(&path).unwrap();
        }
        (11, Some(path)) => {
            remove(&path);
            fs::write(&path, content).unwrap();
        }
        (12, Some(path)) if is_file(&path) => {
            let same = fs::read(&path).unwrap();
            fs::write(&path, same).unwrap();
        }
        (13, Some(path)) if path.is_dir() && !path.is_symlink() => {
            set_mode(&path, *random.pick(&[0o700, 0o755, 0o750]));
        }
        _ => {}
    }
}

/// `ROUND_TRIP_SECONDS`, or else `FUZZ_SECONDS`, makes it longer, and `FUZZ_SEED` starts it at another seed.
#[test]
fn random_round_trips_equal_full_transfers() {
    let seed = std::env::var("FUZZ_SEED").map_or(1, |text| text.parse().expect("FUZZ_SEED is a number"));
    let given = std::env::var("ROUND_TRIP_SECONDS").or_else(|_| std::env::var("FUZZ_SECONDS"));
    let seconds = given.map_or(10, |text| text.parse().expect("a number of seconds"));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    for seed in seed.. {
        if std::time::Instant::now() > until {
            return;
        }
        let mut random = Random::new(seed);
        let tools = *random.pick(&Kind::ALL);
        let without: Vec<&str> = if random.once_in(3) { vec![*random.pick(&FURTHER)] } else { Vec::new() };
        let two = Two::new(&start(), tools, &without);
        let what = format!("seed {seed}, {tools:?} without {without:?}");
        for heartbeat in 0..3 {
            two.both(|place| {
                let [here, there] = [place.workspace(), place.remote()].map(|root| root.join("cache"));
                // A prepare refuses a file where the sandbox preserves a directory.
                if there.is_dir()
                    && !there.is_symlink()
                    && fs::symlink_metadata(&here).is_ok_and(|meta| !meta.is_dir())
                {
                    remove(&there);
                }
            });
            let sessions = two.prepare(&format!("{what}: prepare {heartbeat}"));
            for restored in 0..=random.below(3) {
                let edits = random.next();
                two.both(|place| {
                    let mut random = Random::new(edits);
                    for _ in 0..random.below(8) {
                        random_edit(&mut random, &place.remote());
                    }
                    for _ in 0..random.below(3) {
                        random_edit(&mut random, &place.workspace());
                    }
                });
                two.restore(&sessions, &format!("{what}: restore {restored} of heartbeat {heartbeat}"));
            }
        }
    }
}

#[test]
fn a_change_in_the_clock_tick_of_an_index_is_restored_by_the_next_download() {
    let two = Two::new(&start(), Kind::Dash, &[]);
    let sessions = two.prepare("at first");
    for round in 0..8 {
        two.both(|place| fs::write(place.remote().join("a"), format!("round {round:04}")).unwrap());
        two.restore(&sessions, "a change right before the index");
        two.both(|place| rewrite_in_secret(&place.remote().join("a")));
        two.restore(&sessions, "a change right after it");
    }
}

#[test]
fn a_sandbox_that_was_rolled_back_is_transferred_in_full() {
    let two = Two::new(&start(), Kind::Dash, &[]);
    let sessions = two.prepare("at first");
    let copy = |place: &Place, from: &str, to: &str| {
        let at = |name: &str| place.root().join("sandbox").join(name);
        if at(to).exists() {
            fs::remove_dir_all(at(to)).unwrap();
        }
        let status = Command::new("cp").arg("-a").arg(at(from)).arg(at(to)).status().unwrap();
        assert!(status.success());
    };
    two.both(|place| copy(place, "workspace", "snapshot"));
    two.both(|place| fs::write(place.remote().join("a"), "changed").unwrap());
    two.restore(&sessions, "before the snapshot is brought back");
    two.both(|place| copy(place, "snapshot", "workspace"));
    two.both(|place| fs::write(place.remote().join("b"), "after that").unwrap());
    two.restore(&sessions, "after the snapshot is brought back");
    two.restore(&sessions, "and once more");
}

fn restored(report: &Report) -> String {
    let mut report = report.clone();
    report.conflicts.clear();
    report.deletions_backed_up.clear();
    format!("{report:#?}")
}

#[test]
fn a_dry_run_reports_what_a_restore_does_and_changes_nothing() {
    for (name, edit) in edits(Kind::Dash) {
        let two = Two::new(&start(), Kind::Dash, &[]);
        let sessions = two.prepare(name);
        two.both(|place| {
            edit(&place.remote());
            fs::write(place.at("a"), "local").unwrap();
            fs::write(place.at("d/g"), "local too").unwrap();
        });
        let before = Picture::inside(&two.quick.place.workspace());
        let foreseen = look(&sessions[0], &*two.quick.client).unwrap();
        assert_eq!(Picture::inside(&two.quick.place.workspace()), before, "{name}");
        let done = two.restore(&sessions, name);
        assert_eq!(restored(&foreseen), restored(&done), "{name}");
        let paths =
            |conflicts: &[Conflict]| conflicts.iter().map(|c| c.path.clone()).collect::<BTreeSet<_>>();
        assert_eq!(paths(&foreseen.conflicts), paths(&done.conflicts), "{name}");
    }
}

#[test]
fn a_prepare_is_resumed_by_another_process() {
    for restores_before in 0..3 {
        let two = Two::new(&start(), Kind::Dash, &[]);
        let [quick, full] = two.prepare("at first");
        let mut sessions = [quick, full];
        for round in 0..restores_before {
            two.both(|place| fs::write(place.remote().join("a"), format!("round {round}")).unwrap());
            two.restore(&sessions, "before");
        }
        two.both(|place| {
            rewrite_in_secret(&place.remote().join("d/g"));
            fs::remove_file(place.remote().join("b")).unwrap();
            fs::write(place.at("x.sh"), "local").unwrap();
        });
        sessions[0] = resume(two.quick.upload()).unwrap();
        two.restore(&sessions, &format!("resumed after {restores_before}"));
        assert!(two.quick.bytes_down() <= SMALLEST);
        two.restore(&sessions, "and once more");
    }
}

#[test]
fn a_prepare_that_cannot_be_resumed_is_an_error_with_the_reason() {
    let two = Two::new(&start(), Kind::Dash, &[]);
    let upload = || two.quick.upload();
    assert_eq!(resume(upload()).unwrap_err().code(), "ERR_SANDBOX_NOTHING_TO_RESUME");
    let _sessions = two.prepare("at first");
    assert!(resume(upload()).is_ok());
    let other = Upload { adapter_key: "other".to_owned(), ..upload() };
    assert_eq!(resume(other).unwrap_err().code(), "ERR_SANDBOX_NOTHING_TO_RESUME");
    let moved = two.quick.place.root().join("moved");
    fs::rename(two.quick.place.workspace(), &moved).unwrap();
    fs::create_dir(two.quick.place.workspace()).unwrap();
    assert_eq!(resume(upload()).unwrap_err().code(), "ERR_WORKSPACE_REPLACED");
}

#[test]
fn the_stored_state_of_a_sandbox_may_be_damaged_or_gone() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 4] = [
        ("gone", |folder| fs::remove_dir_all(folder).unwrap()),
        ("cut", |folder| each_file(folder, |bytes| bytes.truncate(bytes.len() / 2))),
        ("changed", |folder| each_file(folder, |bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("of another user", |folder| std::os::unix::fs::chown(folder, Some(65534), None).unwrap()),
    ];
    for (name, damage) in damages {
        let two = Two::new(&start(), Kind::Dash, &[]);
        let sessions = two.prepare("at first");
        damage(&two.quick.place.root().join("state"));
        two.both(|place| {
            fs::write(place.remote().join("a"), "changed").unwrap();
            fs::write(place.at("b"), "changed here").unwrap();
        });
        two.restore(&sessions, name);
        let sessions = two.prepare(name);
        two.restore(&sessions, name);
    }
}

fn each_file(folder: &Path, damage: impl Fn(&mut Vec<u8>)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_change_of_an_ignore_file_has_the_result_of_full_transfers() {
    let mut start = start();
    start.insert(b".gitignore".to_vec(), file("made/\n*.tmp\n"));
    start.insert(b"d/x.tmp".to_vec(), file("not uploaded"));
    let two = Two::new(&start, Kind::Busybox, &[]);
    let sessions = two.prepare("first");
    two.both(|place| {
        let remote = place.remote();
        fs::create_dir(remote.join("made")).unwrap();
        fs::write(remote.join("made/there"), "ignored").unwrap();
        fs::write(remote.join("d/x.tmp"), "theirs").unwrap();
        fs::write(remote.join("a"), "theirs").unwrap();
        // It counts from the next prepare on.
        fs::write(remote.join(".gitignore"), "/d/\n").unwrap();
    });
    two.restore(&sessions, "what was ignored then");
    assert_eq!(fs::read(two.quick.place.at("d/x.tmp")).unwrap(), b"not uploaded");
    assert!(!two.quick.place.at("made").exists());

    let sessions = two.prepare("with other lines");
    assert!(!two.quick.place.remote().join("d").exists());
    two.both(|place| {
        fs::create_dir(place.remote().join("d")).unwrap();
        fs::write(place.remote().join("d/g"), "theirs").unwrap();
        fs::write(place.remote().join("b"), "theirs").unwrap();
    });
    two.restore(&sessions, "a directory that is ignored now");
    assert_eq!(fs::read(two.quick.place.at("d/g")).unwrap(), b"four");

    two.both(|place| fs::remove_file(place.at(".gitignore")).unwrap());
    let sessions = two.prepare("without it");
    assert_eq!(fs::read(two.quick.place.remote().join("d/x.tmp")).unwrap(), b"not uploaded");
    two.both(|place| fs::remove_file(place.remote().join("d/g")).unwrap());
    two.restore(&sessions, "nothing is ignored any more");
    assert!(!two.quick.place.at("d/g").exists());
}

/// The sandbox looks at all its names once for an update. What changes there after that look is no part of the update.
#[test]
fn a_change_between_the_look_and_the_update_comes_back_with_the_next_restore() {
    for tools in Kind::ALL {
        let quick = Side::new(&start(), tools, &[], true);
        let session = prepare_upload(&quick.client, quick.upload()).unwrap();
        restore(&session, &*quick.client).unwrap();
        fs::write(quick.place.at("mine"), "local").unwrap();
        let remote = quick.place.remote();
        let (changed, _) = start().into_iter().find(|(_, node)| matches!(node, Node::File(..))).unwrap();
        let in_between = path_of(&changed).to_owned();
        let looked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (looks, meanwhile) = (looked.clone(), in_between.clone());
        *quick.client.after_read.lock().unwrap() = Some(Box::new(move |path| {
            if path.ends_with("/workspace-changes.txt") {
                looks.fetch_add(1, Ordering::SeqCst);
                fs::write(remote.join(&meanwhile), "meanwhile").unwrap();
                fs::write(remote.join("made"), "meanwhile").unwrap();
            }
        }));
        let session = prepare_upload(&quick.client, quick.upload()).unwrap();
        *quick.client.after_read.lock().unwrap() = None;
        assert_eq!(looked.load(Ordering::SeqCst), 1, "{tools:?}");
        assert!(session.report().archives[0].is_changes_only, "{tools:?}: everything was sent");
        restore(&session, &*quick.client).unwrap();
        let read = |path: &Path| fs::read_to_string(quick.place.at(path)).unwrap();
        assert_eq!(read(&in_between), "meanwhile", "{tools:?}");
        assert_eq!(read(Path::new("made")), "meanwhile", "{tools:?}");
        assert_eq!(read(Path::new("mine")), "local", "{tools:?}");
    }
}
