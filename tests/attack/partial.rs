//! Failures of the sandbox's own tar: what it could read is restored, and nothing is deleted by mistake.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sandbox_managed_runtime::error::Error;
use sandbox_managed_runtime::sandbox::client::{Part, RunError, SandboxClient};

use crate::place::{Place, prepare_upload, refused, restore};
use crate::sandbox::{Failure, mark_of};
use crate::tree::{DIR, Picture, Tree, assert_same, file, to_tar, tree};

/// A sandbox whose tar fails. The second attempt reports that, and brings what could be read.
struct Partial {
    runs: AtomicUsize,
    second_fails: AtomicBool,
    status: Mutex<Option<Vec<u8>>>,
    download: Mutex<Vec<u8>>,
    upload: Mutex<Vec<u8>>,
}

impl Partial {
    fn new() -> Self {
        Self {
            runs: AtomicUsize::new(0),
            second_fails: AtomicBool::new(false),
            status: Mutex::default(),
            download: Mutex::default(),
            upload: Mutex::default(),
        }
    }

    /// Sets the exit status of tar for the next restore, or `None` for success at once.
    fn answer(&self, status: Option<&str>, theirs: &Tree) {
        self.runs.store(0, Ordering::SeqCst);
        *self.status.lock().unwrap() = status.map(|status| status.as_bytes().to_vec());
        *self.download.lock().unwrap() = to_tar(theirs).end();
    }
}

impl SandboxClient for Partial {
    type Failure = Failure;
    type Upload = Vec<u8>;
    type Download = Vec<u8>;

    async fn allocate(&self, size: u64) -> Result<Vec<u8>, Failure> {
        Ok(vec![0; usize::try_from(size).unwrap()])
    }

    async fn make_dir(&self, _: &str) -> Result<Duration, Failure> {
        Ok(Duration::ZERO)
    }

    fn is_passing(&self, _: &Failure) -> bool {
        false
    }

    async fn discard(&self, _: &str) {}

    async fn clear(&self, _: &str) {}

    async fn write_file(&self, _: &str, bytes: &Vec<u8>, _: Part<'_>) -> Result<Duration, Failure> {
        self.upload.lock().unwrap().clone_from(bytes);
        Ok(Duration::ZERO)
    }

    async fn read_file(&self, path: &str, _: Option<Part<'_>>) -> Result<Vec<u8>, Failure> {
        let status = self.status.lock().unwrap().clone();
        if path.ends_with(".status") {
            return status.ok_or_else(|| Failure::File("there is no such file".to_owned()));
        }
        Ok([mark_of(&self.upload.lock().unwrap()), self.download.lock().unwrap().clone()].concat())
    }

    async fn remove(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn run(&self, _: &str) -> Result<(), Failure> {
        let first = self.runs.fetch_add(1, Ordering::SeqCst) == 0;
        if first && self.status.lock().unwrap().is_some() {
            return Err(Failure::Command("the first failure".to_owned()));
        }
        if self.second_fails.load(Ordering::SeqCst) {
            return Err(Failure::Command("the second failure".to_owned()));
        }
        Ok(())
    }
}

fn uploaded() -> Tree {
    tree([
        ("changed", file("1")),
        ("dir", DIR),
        ("dir/unread", file("1")),
        ("became-file", DIR),
        ("became-file/inner", file("1")),
        ("unread", file("1")),
        ("unread-dir", DIR),
        ("unread-dir/inner", file("1")),
    ])
}

/// What tar could read in the sandbox.
fn read() -> Tree {
    tree([("became-file", file("2")), ("changed", file("2")), ("dir", DIR), ("dir/new", file("2"))])
}

fn prepared() -> (Place, Arc<Partial>, sandbox_managed_runtime::sandbox::session::Session) {
    let place = Place::with(&uploaded());
    let client = Arc::new(Partial::new());
    let session = prepare_upload(&client, place.upload()).unwrap();
    (place, client, session)
}

#[test]
fn what_tar_could_not_read_is_not_deleted() {
    let (place, client, session) = prepared();
    client.answer(Some("2\ntar: unread: Cannot open: Permission denied\n"), &read());
    let report = restore(&session, &*client).unwrap();
    let mut expected = read();
    for (path, node) in uploaded() {
        if path.windows(6).any(|bytes| bytes == b"unread") {
            expected.insert(path, node);
        }
    }
    assert_same(&place.tree(), &expected, "restored");
    let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.path.to_string()).collect();
    assert_eq!(skipped, ["dir/unread", "unread", "unread-dir", "unread-dir/inner"]);
    // The content of the folder is known to be gone, because a file is there now.
    assert_eq!(report.deleted.len(), 1);

    // What tar can read the next time counts again, including deletions.
    client.answer(None, &read());
    let report = restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &read(), "restored at last");
    assert_eq!(report.deleted.len(), 4);
    place.assert_no_litter();
}

/// Busybox and toybox archive the second name of a file that they cannot read as a hard link.
#[test]
fn a_further_name_of_a_file_that_could_not_be_read_is_not_deleted() {
    let (place, client, session) = prepared();
    let archive = to_tar(&read()).hard_link("dir/unread", "unread").end();
    client.answer(Some("1\ntar: unread: Permission denied\n"), &read());
    client.download.lock().unwrap().clone_from(&archive);
    let report = restore(&session, &*client).unwrap();
    assert_eq!(place.tree().get(&b"dir/unread"[..]), uploaded().get(&b"dir/unread"[..]));
    assert_eq!(place.tree().get(&b"changed"[..]), read().get(&b"changed"[..]));
    assert!(report.skipped.iter().any(|skipped| skipped.path.to_string() == "dir/unread"), "{report:?}");
    // Where tar says that nothing was in the way, it is an archive that is damaged.
    client.answer(None, &read());
    client.download.lock().unwrap().clone_from(&archive);
    assert!(matches!(refused(&session, &*client), Error::ArchiveInvalid { .. }));
}

#[test]
fn a_second_attempt_without_errors_is_complete() {
    let (place, client, session) = prepared();
    client.answer(Some("0\n"), &read());
    let report = restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &read(), "restored");
    assert!(report.skipped.is_empty());
}

#[test]
fn a_file_that_changes_while_tar_reads_it_does_not_prevent_deletions() {
    let changed = |name: &str| format!("tar: {name}: file changed as we read it\n");
    let mut after = read();
    after.insert(b"growing.log".to_vec(), file("2"));
    after.insert("log 12:30 ü.txt".into(), file("2"));
    for (messages, whole) in [
        (changed("growing.log"), true),
        (changed("./growing.log") + &changed("changed"), true),
        (changed("log 12\\:30 \\303\\274.txt") + &changed("growing.log"), true),
        // Also a folder whose content changed while it was read.
        (changed("dir"), false),
        (changed("./"), false),
        // Messages about paths that the archive does not have, or has under another name.
        (changed("unread"), false),
        (changed("growing.log") + "tar: unread: File removed before we read it\n", false),
        (changed("growing.log") + "tar: unread: Cannot open: Permission denied\n", false),
        (String::new(), false),
    ] {
        let (place, client, session) = prepared();
        client.answer(Some(&format!("1\n{messages}")), &after);
        let report = restore(&session, &*client).unwrap();
        assert_eq!(report.skipped.is_empty(), whole, "{messages}");
        assert_eq!(place.tree() == after, whole, "{messages}");
    }
    let too_much = changed("growing.log").repeat(2000);
    for told in [format!("2\n{}", changed("growing.log")), format!("1\n{too_much}")] {
        let (place, client, session) = prepared();
        client.answer(Some(&told[..told.len().min(64 * 1024 + 2)]), &after);
        restore(&session, &*client).unwrap();
        assert!(place.tree() != after, "any other status is a failure, and so is what may be more than that");
    }
}

#[test]
fn an_unknown_exit_status_permits_no_deletions() {
    for status in ["", "\n", "00\n", "0x\n", " 0\n", "garbage"] {
        let (place, client, session) = prepared();
        client.answer(Some(status), &tree([]));
        let report = restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &uploaded(), status);
        assert_eq!(report.skipped.len(), uploaded().len());
    }
}

#[test]
fn a_second_attempt_that_fails_too_changes_nothing() {
    let (place, client, session) = prepared();
    let before = Picture::of(&place.workspace());
    client.answer(Some("1\n"), &read());
    client.second_fails.store(true, Ordering::SeqCst);
    match restore(&session, &*client) {
        Err(RunError::Client(failure)) => {
            assert_eq!(failure, Failure::Command("the first failure".to_owned()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(Picture::of(&place.workspace()), before);
    client.second_fails.store(false, Ordering::SeqCst);
    client.answer(None, &read());
    restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &read(), "restored at last");
}
