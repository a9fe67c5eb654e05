//! Which codec an upload uses, after what is known of other sandboxes of the provider.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sandbox_managed_runtime::sandbox::session::Session;
use sandbox_managed_runtime::sandbox::upload::{Asset, State, Upload};

use crate::heartbeats::install;
use crate::parts::{Distant, in_parts, noise, run_folder, workspace};
use crate::place::{Place, prepare_upload, restore};
use crate::sandbox::LocalSandbox;
use crate::tools::Kind;
use crate::tree::{RUNTIME, Tree, assert_same, file, read_tree, tree, write_tree};

/// Sandboxes of one provider that share the state on this machine. Each has a workspace of its own.
struct Provider {
    state: tempfile::TempDir,
    count: AtomicUsize,
}

/// A sandbox of a provider.
struct Provided {
    place: Place,
    client: Arc<Distant>,
    upload: Upload,
}

impl Provider {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap(), count: AtomicUsize::new(0) }
    }

    /// A new sandbox with these tools, of which some are missing.
    fn sandbox(&self, kind: Kind, without: &[&str]) -> Provided {
        self.sandbox_of(&workspace(), kind, without)
    }

    fn sandbox_of(&self, workspace: &Tree, kind: Kind, without: &[&str]) -> Provided {
        let place = Place::with(workspace);
        let tools = Some(install(kind, place.root(), without));
        let local = LocalSandbox { tools, ..LocalSandbox::default() };
        let client = Distant::before(local, 5);
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let state = State {
            folder: self.state.path().into(),
            sandbox: [b"p".to_vec(), vec![u8::try_from(number).unwrap()]],
        };
        let upload = Upload { state: Some(state), changes_only: true, ..in_parts(&place, 1_000_000, 1) };
        Provided { place, client, upload }
    }

    /// The codecs of the first upload of a new sandbox with all tools, which is restored.
    fn next(&self) -> String {
        let sandbox = self.sandbox(Kind::Dash, &[]);
        let (session, codecs) = sandbox.prepare("next");
        sandbox.restore(&session);
        codecs
    }
}

impl Provided {
    /// Uploads, checks what is there then, and tells how the parts were compressed, one after the other.
    #[track_caller]
    fn prepare(&self, what: &str) -> (Session, String) {
        let session = prepare_upload(&self.client, self.upload.clone()).unwrap();
        assert_same(&read_tree(&self.place.remote()), &self.place.tree(), what);
        // A known sandbox has said what has changed.
        let left: Vec<_> =
            run_folder(&self.place).into_iter().filter(|name| name != "workspace-changes.txt").collect();
        assert_eq!(left, [""; 0], "{what}");
        (session, std::mem::take(&mut *self.client.codecs.lock().unwrap()))
    }

    /// Adds an asset to what is uploaded.
    fn add_asset(&mut self, tree: &Tree) {
        let local_dir = self.place.root().join("asset");
        fs::create_dir(&local_dir).unwrap();
        write_tree(&local_dir, tree);
        let key = "asset".to_owned();
        self.upload.assets.push(Asset { key, local_dir, follow_links: false, exclude: Vec::new() });
    }

    /// Brings a change back.
    #[track_caller]
    fn restore(&self, session: &Session) {
        fs::write(self.place.remote().join("a/empty"), "changed").unwrap();
        restore(session, &*self.client).unwrap();
        assert_eq!(fs::read(self.place.at("a/empty")).unwrap(), b"changed");
    }
}

#[track_caller]
fn assert_only(codecs: &str, expected: char) {
    assert!(
        codecs.contains(expected) && !codecs.contains(|codec| codec != expected && codec != 'n'),
        "{codecs}"
    );
}

#[test]
fn a_new_sandbox_gets_zstd_where_another_of_its_provider_had_it() {
    let provider = Provider::new();
    let first = provider.sandbox(Kind::Dash, &[]);
    let (session, codecs) = first.prepare("the first one");
    assert_only(&codecs, 'g');
    let other = provider.sandbox(Kind::Dash, &[]);
    assert_only(&other.prepare("nothing was said yet").1, 'g');
    first.restore(&session);

    for part_bytes in [1_000_000, 1 << 30] {
        let mut second = provider.sandbox(Kind::Dash, &[]);
        second.upload.part_bytes = part_bytes;
        let (session, codecs) = second.prepare("the second one");
        assert_only(&codecs, 'z');
        assert_eq!(codecs.len() > 1, part_bytes < 1 << 30, "{codecs}");
        second.restore(&session);
    }
    // What a known sandbox says counts for its own updates.
    fs::write(first.place.at("text"), "another text\n".repeat(100_000)).unwrap();
    assert_only(&first.prepare("an update").1, 'z');

    let mut plain = provider.sandbox(Kind::Dash, &[]);
    plain.upload.compress = false;
    assert_only(&plain.prepare("nothing is to be compressed").1, 'n');
    let mut another = provider.sandbox(Kind::Dash, &[]);
    another.upload.adapter_key = "another".to_owned();
    let session = prepare_upload(&another.client, another.upload.clone()).unwrap();
    assert_only(&std::mem::take(&mut *another.client.codecs.lock().unwrap()), 'g');
    drop(session);
    let mut forgetful = provider.sandbox(Kind::Dash, &[]);
    forgetful.upload.state = None;
    assert_only(&forgetful.prepare("nothing is stored").1, 'g');
}

#[test]
fn gzip_is_used_where_what_was_known_is_gone_or_damaged() {
    let provider = Provider::new();
    let files = || fs::read_dir(provider.state.path()).unwrap().map(|entry| entry.unwrap().path());
    let of_tools =
        || files().find(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b"tools-"));
    assert_only(&provider.next(), 'g');
    assert_only(&provider.next(), 'z');
    fs::write(of_tools().unwrap(), "nonsense").unwrap();
    assert_only(&provider.next(), 'g');
    assert_only(&provider.next(), 'z');
    fs::remove_file(of_tools().unwrap()).unwrap();
    assert_only(&provider.next(), 'g');
    assert_only(&provider.next(), 'z');
}

/// It says so before it changes anything, and gets all of it again. Several others with zstd are seen before zstd is
/// used again.
#[test]
fn a_sandbox_that_lacks_the_expected_zstd_gets_gzip() {
    for (kind, without) in [
        (Kind::Dash, &["zstd"][..]),
        (Kind::Busybox, &[]),
        (Kind::Toybox, &[]),
        (Kind::Dash, &["zstd", "gzip", "gunzip", "zcat"]),
    ] {
        let provider = Provider::new();
        assert_only(&provider.next(), 'g');
        let mut bare = provider.sandbox(kind, without);
        bare.add_asset(&workspace());
        let session = prepare_upload(&bare.client, bare.upload.clone()).unwrap();
        assert_same(&read_tree(&bare.place.remote()), &workspace(), "the workspace");
        let asset = bare.place.remote().join(RUNTIME).join("attack/asset");
        assert_same(&read_tree(&asset), &workspace(), "the asset");
        assert_eq!(run_folder(&bare.place), ["asset"]);
        let codecs = std::mem::take(&mut *bare.client.codecs.lock().unwrap());
        let (in_vain, again) = codecs.split_at(codecs.rfind('z').unwrap() + 1);
        assert_only(in_vain, 'z');
        if without.contains(&"gzip") {
            assert!(again.starts_with('g') && again.ends_with('n') && !again.contains('z'), "{again}");
        } else {
            assert_only(again, 'g');
        }
        bare.restore(&session);

        for _ in 0..3 {
            assert_only(&provider.next(), 'g');
        }
        assert_only(&provider.next(), 'z');
    }
}

/// Text that comes again beyond the window of gzip.
fn distant_repeats() -> Tree {
    let text: String = noise(300_000, 7).iter().map(|byte| char::from(b'a' + byte % 16)).collect();
    let mut whole = tree([("small", file("small"))]);
    for number in 0..14 {
        whole.insert(format!("copy {number}").into_bytes(), file(format!("{number}\n{text}")));
    }
    whole
}

#[test]
fn zstd_is_tried_where_it_saves_far_more_and_nothing_is_known() {
    for part_bytes in [3_000_000, 1 << 30] {
        let provider = Provider::new();
        let mut first = provider.sandbox_of(&distant_repeats(), Kind::Dash, &[]);
        first.upload.part_bytes = part_bytes;
        let (_session, codecs) = first.prepare("the first one");
        assert_only(&codecs, 'z');
        assert_eq!(codecs.len() > 1, part_bytes < 1 << 30, "{codecs}");
        assert_only(&provider.sandbox(Kind::Dash, &[]).prepare("another, whatever it saves").1, 'z');
    }
    // Nothing would be learned from it.
    let mut forgetful = Provider::new().sandbox_of(&distant_repeats(), Kind::Dash, &[]);
    forgetful.upload.state = None;
    assert_only(&forgetful.prepare("nothing is stored").1, 'g');
    let mut plain = Provider::new().sandbox_of(&distant_repeats(), Kind::Dash, &[]);
    plain.upload.compress = false;
    assert_only(&plain.prepare("nothing is to be compressed").1, 'n');
}

#[test]
fn zstd_is_tried_in_vain_once_for_a_provider() {
    for (kind, without) in [(Kind::Dash, &["zstd"][..]), (Kind::Busybox, &[]), (Kind::Toybox, &[])] {
        let provider = Provider::new();
        let mut bare = provider.sandbox_of(&distant_repeats(), kind, without);
        bare.upload.part_bytes = 1 << 30;
        assert_eq!(bare.prepare("the first one").1, "zg", "{kind:?}");
        let other = provider.sandbox_of(&distant_repeats(), Kind::Dash, &[]);
        assert_only(&other.prepare("another").1, 'g');
    }
}

/// An asset is sent once, so it never is a trial.
#[test]
fn assets_use_zstd_where_a_trial_has_shown_it() {
    for (workspace, without, asset, expected) in [
        (distant_repeats(), &[][..], workspace(), ["z", "z"]),
        (distant_repeats(), &["zstd"], workspace(), ["zg", "g"]),
        (workspace(), &[], distant_repeats(), ["g", "g"]),
    ] {
        let mut sandbox = Provider::new().sandbox_of(&workspace, Kind::Dash, without);
        sandbox.upload.part_bytes = 1 << 30;
        sandbox.add_asset(&asset);
        prepare_upload(&sandbox.client, sandbox.upload.clone()).unwrap();
        let Distant { codecs, asset_codecs, .. } = &*sandbox.client;
        assert_eq!([codecs, asset_codecs].map(|codecs| codecs.lock().unwrap().clone()), expected);
        let uploaded = sandbox.place.remote().join(RUNTIME).join("attack/asset");
        assert_same(&read_tree(&uploaded), &asset, "the asset");
    }
}
