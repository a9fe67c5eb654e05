//! A restore in its own process, which may be killed or run as another user.
//!
//! The process is this test program again. The variable `ATTACK_CHILD` tells it where to work, and it runs
//! only the test [`a_restore_in_its_own_process`].

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sandbox_managed_runtime::sandbox::client::RunError;

use crate::place::{Place, prepare_upload, restore};
use crate::sandbox::CannedSandbox;
use crate::tree::{Tree, assert_same, file, to_tar, tree};

const WHERE: &str = "ATTACK_CHILD";

/// A user who is not root.
pub const NOBODY: u32 = 65534;

/// The files through which the two processes communicate.
struct Signals {
    download: PathBuf,
    ready: PathBuf,
    go: PathBuf,
    outcome: PathBuf,
}

impl Signals {
    fn of(root: &Path) -> Self {
        let [download, ready, go, outcome] =
            ["download.tar", "ready", "go", "outcome"].map(|name| root.join(name));
        Self { download, ready, go, outcome }
    }
}

fn wait_for(path: &Path) {
    while !path.exists() {
        thread::sleep(Duration::from_micros(200));
    }
}

/// A process that has uploaded the workspace and waits for the request to restore it.
pub struct OtherProcess {
    process: Child,
    signals: Signals,
}

impl OtherProcess {
    /// Starts it, and returns once the workspace is uploaded.
    pub fn start(place: &Place, download: &[u8], user: Option<u32>) -> Self {
        let signals = Signals::of(place.root());
        fs::write(&signals.download, download).unwrap();
        // Its user may not be able to reach the folder in which this program was built.
        let program = place.root().join("program");
        if !program.exists() {
            let built = std::env::current_exe().unwrap();
            if user.is_some() {
                fs::copy(built, &program).unwrap();
                fs::set_permissions(place.root(), fs::Permissions::from_mode(0o777)).unwrap();
            } else {
                std::os::unix::fs::symlink(built, &program).unwrap();
            }
        }
        let mut command = Command::new(program);
        command.args(["--exact", "child::a_restore_in_its_own_process", "--test-threads=1"]);
        command.env(WHERE, place.root()).env("TMPDIR", place.root()).stdout(Stdio::null());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut process = loop {
            match command.spawn() {
                // Another test's process, between its fork and its exec, still has the new copy open for
                // writing.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    thread::sleep(Duration::from_millis(1));
                }
                spawned => break spawned.unwrap(),
            }
        };
        while !signals.ready.exists() {
            assert!(process.try_wait().unwrap().is_none(), "the other process ended before its time");
            thread::sleep(Duration::from_micros(200));
        }
        Self { process, signals }
    }

    /// Lets it restore.
    pub fn go(&self) {
        fs::write(&self.signals.go, "").unwrap();
    }

    /// Whether it has finished, successfully or not.
    pub fn is_done(&self) -> bool {
        self.signals.outcome.exists()
    }

    /// Waits until it ends. Returns its outcome: `done`, or the error.
    pub fn outcome(mut self) -> String {
        assert!(self.process.wait().unwrap().success());
        self.clean_up();
        fs::read_to_string(&self.signals.outcome).unwrap()
    }

    /// Kills it, and returns whether it was still running.
    pub fn kill(mut self) -> bool {
        self.process.kill().unwrap();
        let killed = !self.process.wait().unwrap().success();
        self.clean_up();
        killed
    }

    fn clean_up(&self) {
        fs::remove_file(&self.signals.ready).unwrap();
        fs::remove_file(&self.signals.go).unwrap();
    }
}

/// Gives a folder and everything in it to another user.
pub fn give_to(user: u32, folder: &Path) {
    lchown(folder, Some(user), Some(user)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            give_to(user, &entry.path());
        } else {
            lchown(entry.path(), Some(user), Some(user)).unwrap();
        }
    }
}

/// The work of the other process. In an ordinary test run this does nothing.
#[test]
fn a_restore_in_its_own_process() {
    if let Some(root) = std::env::var_os(WHERE) {
        return work_in(Path::new(&root));
    }
    let (before, after) = (tree([("a", file("1"))]), tree([("b", file("2"))]));
    let place = Place::with(&before);
    let other = OtherProcess::start(&place, &to_tar(&after).end(), None);
    other.go();
    assert_eq!(other.outcome(), "done");
    assert_same(&place.tree(), &after, "restored");
    place.assert_no_litter();
}

fn work_in(root: &Path) {
    let signals = Signals::of(root);
    let client = Arc::new(CannedSandbox::default());
    client.answer(fs::read(&signals.download).unwrap());
    let session = prepare_upload(&client, Place::upload_of(root)).unwrap();
    fs::write(&signals.ready, "").unwrap();
    wait_for(&signals.go);
    let outcome = match restore(&session, &*client) {
        Ok(_) => "done".to_owned(),
        Err(RunError::Own(error)) => format!("{} {:?} {error}", error.code(), error.errno()),
        Err(RunError::Client(failure)) => panic!("{failure:?}"),
    };
    fs::write(&signals.outcome, outcome).unwrap();
}

/// A workspace in which that many files are changed, deleted and added.
pub fn many_files(count: usize) -> (Tree, Tree) {
    let (mut before, mut after) = (Tree::new(), Tree::new());
    for at in 0..count {
        let folder = format!("folder-{}", at % 10);
        before.insert(folder.clone().into(), crate::tree::DIR);
        after.insert(folder.clone().into(), crate::tree::DIR);
        let path = |name: &str| format!("{folder}/{name}-{at}").into_bytes();
        let content = |version: &str| file(format!("{version} {at} ").repeat(60));
        before.insert(path("same"), content("same"));
        after.insert(path("same"), content("same"));
        before.insert(path("changed"), content("old"));
        after.insert(path("changed"), content("new"));
        match at % 4 {
            0 => drop(before.insert(path("gone"), content("old"))),
            1 => drop(after.insert(path("added"), content("new"))),
            2 => {
                before.insert(path("link"), crate::tree::link("old"));
                after.insert(path("link"), crate::tree::link("new"));
            }
            _ => {
                before.insert(path("folder"), crate::tree::DIR);
                before.insert([&path("folder")[..], b"/inner"].concat(), content("old"));
                after.insert(path("folder"), content("new"));
            }
        }
    }
    (before, after)
}
