//! A client that fails at every single call.

use std::sync::Arc;
use std::time::Duration;

use sandbox_managed_runtime::sandbox::client::{Part, RunError};
use sandbox_managed_runtime::sandbox::upload::{Asset, Upload};

use crate::model::merge;
use crate::place::{Place, prepare_upload, restore};
use crate::sandbox::{Failure, LocalSandbox};
use crate::tree::{DIR, Node, Picture, RUNTIME, Tree, assert_same, change_tree, file, link, read_tree, tree};

fn uploaded() -> Tree {
    tree([("a", DIR), ("a/one", file("1")), ("b", file("2")), ("c", link("b"))])
}

fn theirs() -> Tree {
    tree([("a", file("no folder any more")), ("b", Node::File(0o755, b"3".to_vec())), ("new", file("4"))])
}

fn ours() -> Tree {
    tree([
        ("a", DIR),
        ("a/mine", file("5")),
        ("a/one", file("1")),
        ("b", file("6")),
        ("c", link("elsewhere")),
    ])
}

fn upload(place: &Place) -> Upload {
    let mut upload = place.upload();
    let asset = |key: &str| Asset {
        key: key.to_owned(),
        local_dir: place.outside(),
        follow_links: false,
        exclude: Vec::new(),
    };
    upload.assets = vec![asset("first"), asset("second")];
    upload
}

#[test]
fn a_prepare_that_failed_at_any_call_can_be_repeated() {
    let place = Place::with(&uploaded());
    let client = Arc::new(LocalSandbox::default());
    prepare_upload(&client, upload(&place)).unwrap();
    let calls = client.calls.count();
    assert_eq!(calls, 7, "makeDir, and a writeFile and a run for the workspace and each asset");
    for call in 0..calls {
        let place = Place::with(&uploaded());
        let before = Picture::of(&place.workspace());
        let client = Arc::new(LocalSandbox::default());
        client.calls.fail_at(Some(call));
        match prepare_upload(&client, upload(&place)) {
            Err(RunError::Client(failure)) => assert_eq!(failure, Failure::Wanted(call)),
            other => panic!("call {call}: {other:?}"),
        }
        assert_eq!(Picture::of(&place.workspace()), before, "call {call}");

        client.calls.fail_at(None);
        let session = prepare_upload(&client, upload(&place)).unwrap();
        assert_same(&read_tree(&place.remote()), &uploaded(), &format!("uploaded after call {call}"));
        let assets = place.remote().join(RUNTIME).join("attack");
        for key in ["first", "second"] {
            assert_same(&read_tree(&assets.join(key)), &read_tree(&place.outside()), key);
        }
        change_tree(&place.remote(), &uploaded(), &theirs());
        restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &theirs(), &format!("restored after call {call}"));
    }
}

#[test]
fn a_restore_that_failed_at_any_call_can_be_repeated() {
    let mut call = 0;
    loop {
        let place = Place::with(&uploaded());
        let client = Arc::new(LocalSandbox::default());
        let session = prepare_upload(&client, place.upload()).unwrap();
        change_tree(&place.remote(), &uploaded(), &theirs());
        change_tree(&place.workspace(), &uploaded(), &ours());
        let before = Picture::of(&place.workspace());
        client.calls.fail_at(Some(call));
        let outcome = restore(&session, &*client);
        let reached = client.calls.count() > call;
        client.calls.fail_at(None);
        let what = format!("call {call}");
        let report = match outcome {
            // The second attempt succeeded, or it was the removal, which may fail.
            Ok(report) => report,
            Err(RunError::Client(failure)) => {
                assert_eq!(failure, Failure::Wanted(call));
                assert_eq!(Picture::of(&place.workspace()), before, "{what}");
                restore(&session, &*client).unwrap()
            }
            Err(error) => panic!("{what}: {error:?}"),
        };
        merge(&uploaded(), &theirs(), &ours()).assert_is(&place.workspace(), &report, &what);
        place.assert_no_litter();
        if !reached {
            break;
        }
        call += 1;
    }
    assert_eq!(call, 3, "run, readFile and remove");
}

#[test]
fn a_truncated_upload_does_not_clear_the_sandbox() {
    let place = Place::with(&uploaded());
    let client = Arc::new(LocalSandbox::default());
    prepare_upload(&client, place.upload()).unwrap();
    change_tree(&place.remote(), &uploaded(), &theirs());
    let cut = CutShort(LocalSandbox::default());
    match prepare_upload(&Arc::new(cut), place.upload()) {
        Err(RunError::Client(Failure::Command(said))) => {
            assert!(said.contains("nothing was changed"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    assert_same(&read_tree(&place.remote()), &theirs(), "the sandbox");
}

/// A sandbox that silently loses the last byte of what is written to it.
struct CutShort(LocalSandbox);

impl sandbox_managed_runtime::sandbox::client::SandboxClient for CutShort {
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
        let cut = bytes[..bytes.len() - 1].to_vec();
        self.0.write_file(path, &cut, part).await
    }

    async fn read_file(&self, path: &str, part: Option<Part<'_>>) -> Result<Vec<u8>, Failure> {
        self.0.read_file(path, part).await
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

    async fn remove(&self, path: &str) -> Result<(), Failure> {
        self.0.remove(path).await
    }

    async fn run(&self, command: &str) -> Result<(), Failure> {
        self.0.run(command).await
    }
}
