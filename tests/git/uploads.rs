//! Uploads of a repository to a sandbox that has it from an earlier upload: no byte is sent twice, nothing
//! unreachable is sent, and the repository is always complete.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::git::command::Git;
use sandbox_managed_runtime::git::export::{Tree, export};
use sandbox_managed_runtime::git::packs::{Earlier, PackFile, SentPacks};
use sandbox_managed_runtime::tree::entry::Digest;
use sandbox_managed_runtime::tree::filter::Filter;
use sha2::{Digest as _, Sha256};

use crate::bench::{Bench, executable, path, with_each_git, write};

/// Uploads the repository of a bench's workspace again and again to one sandbox.
struct Uploads<'a> {
    bench: &'a mut Bench,
    former: Option<SentPacks>,
    serial: usize,
}

/// What an upload did.
struct Sent {
    /// The files below `objects/pack` that it sent.
    packs: BTreeSet<String>,
    bytes: u64,
    /// How many times it ran `git pack-objects`.
    packings: usize,
}

impl<'a> Uploads<'a> {
    fn new(bench: &'a mut Bench) -> Self {
        Self { bench, former: None, serial: 0 }
    }

    fn dot_git(&self) -> PathBuf {
        self.bench.there.join(".git")
    }

    fn digest(&self, name: &str) -> Option<Digest> {
        let content = fs::read(self.dot_git().join("objects/pack").join(name)).ok()?;
        Some(Digest(Sha256::digest(content).into()))
    }

    /// Uploads, and asserts that the sandbox has exactly what is reachable or staged locally, in a sound
    /// repository.
    fn upload(&mut self) -> Sent {
        let sent = self.upload_incomplete();
        let (here, there) = (&self.bench.here, &self.bench.there);
        let everything =
            ["rev-list", "--objects", "--all", "--reflog", "--indexed-objects", "--no-object-names"];
        let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
        let reachable = lines(self.bench.git(there, &everything));
        assert_eq!(
            lines(self.bench.git(here, &["rev-parse", "HEAD"])),
            lines(self.bench.git(there, &["rev-parse", "HEAD"]))
        );
        let depth = self.bench.options.depth;
        if depth.is_none() {
            let local = ["rev-list", "--objects", "--all", "--indexed-objects", "--no-object-names"];
            assert!(lines(self.bench.git(here, &local)).is_subset(&reachable));
            let all =
                self.bench.git(there, &["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"]);
            assert_eq!(lines(all), reachable, "the sandbox got what is not reachable here");
        }
        let (sound, text) = self.bench.try_git(there, &["fsck", "--full", "--strict", "--no-dangling"]);
        assert!(sound && !text.contains("missing"), "{text}");
        assert_eq!(
            self.bench.git(here, &["diff", "--cached", "--raw"]),
            self.bench.git(there, &["diff", "--cached", "--raw"])
        );
        sent
    }

    fn upload_incomplete(&mut self) -> Sent {
        self.serial += 1;
        let root = self.bench.path();
        let (log, program, folder) =
            (root.join("calls"), root.join("git"), root.join(format!("upload-{}", self.serial)));
        let git = self.bench.program.display();
        executable(&program, &format!("#!/bin/sh\necho \"$*\" >> {}\nexec {git} \"$@\"\n", log.display()));
        write(&log, "");
        let has = |name: &str, sent: &PackFile| sent.digest.is_some() && self.digest(name) == sent.digest;
        let earlier = self.former.as_ref().map(|packs| Earlier { packs, has: &has });
        let exported = export(
            &Git::at(program),
            Tree { root: &Root::open(&self.bench.here).unwrap(), found: &[], excluded: &Filter::default() },
            &path(".git"),
            self.bench.options,
            earlier.as_ref(),
            &folder,
            &Cancel::default(),
        )
        .unwrap();
        let made = fs::read_dir(folder.join("objects/pack")).unwrap().map(|entry| entry.unwrap());
        let made: Vec<(String, u64)> = made
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
            .collect();
        for name in &exported.unsent_packs {
            let below = |folder: &PathBuf| folder.join("objects/pack").join(name);
            fs::rename(below(&self.dot_git()), below(&folder)).expect("the sandbox has what was not sent");
        }
        if self.bench.there.exists() {
            fs::remove_dir_all(&self.bench.there).unwrap();
        }
        fs::create_dir(&self.bench.there).unwrap();
        fs::rename(&folder, self.dot_git()).unwrap();
        let mut packs = exported.base.sent_packs;
        packs.note(|name| self.digest(name));
        self.former = Some(packs);
        let calls = fs::read_to_string(&log).unwrap();
        Sent {
            bytes: made.iter().map(|(_, size)| size).sum(),
            packs: made.into_iter().map(|(name, _)| name).collect(),
            packings: calls.lines().filter(|call| call.contains(" pack-objects ")).count(),
        }
    }

    fn commit(&self, name: &str, text: &str) -> String {
        write(&self.bench.here.join(name), text);
        self.bench.commit_here(name)
    }

    /// Makes a commit that is large enough to show in the size of an upload.
    fn commit_large(&self, name: &str) {
        let mut text = Vec::new();
        for number in 0..40_000_u32 {
            text.extend(Sha256::digest(number.to_le_bytes()));
        }
        write(&self.bench.here.join(name), text);
        self.bench.commit_here(name);
    }

    fn is_there(&self, oid: &str) -> bool {
        self.bench.try_git(&self.bench.there, &["cat-file", "-e", oid]).0
    }

    fn packs_there(&self) -> usize {
        let names = fs::read_dir(self.dot_git().join("objects/pack")).unwrap();
        names.filter(|entry| entry.as_ref().unwrap().path().extension() == Some("pack".as_ref())).count()
    }
}

#[test]
fn an_unchanged_repository_is_not_packed_again() {
    with_each_git(|bench| {
        write(&bench.here.join("staged.txt"), "staged\n");
        bench.here(&["add", "staged.txt"]);
        let mut uploads = Uploads::new(bench);
        let first = uploads.upload();
        assert_eq!((first.packings, uploads.packs_there()), (2, 2), "history, and what is only staged");
        for _ in 0..3 {
            let again = uploads.upload();
            assert_eq!((again.packings, again.packs.len(), again.bytes), (0, 0, 0));
        }
        // New names for the same commits, or a local `git gc`, change nothing either.
        uploads.bench.here(&["branch", "new", "main~1"]);
        uploads.bench.here(&["branch", "-D", "feature"]);
        uploads.bench.here(&["gc", "-q", "--prune=now"]);
        assert_eq!(uploads.upload().bytes, 0);
        assert_eq!(uploads.upload().packings, 0);
    });
}

#[test]
fn a_commit_sends_only_its_own_objects() {
    with_each_git(|bench| {
        let mut uploads = Uploads::new(bench);
        uploads.commit_large("large");
        assert!(uploads.upload().bytes > 1_000_000);
        uploads.commit("small", "small\n");
        let sent = uploads.upload();
        assert!(sent.packings == 1 && sent.bytes < 4096, "{} bytes", sent.bytes);
        // The same after a local `git gc`, which may store all objects with other deltas.
        uploads.commit("small", "other\n");
        uploads.bench.here(&["gc", "-q", "--prune=now"]);
        let sent = uploads.upload();
        assert!(sent.packings == 1 && sent.bytes < 4096, "{} bytes", sent.bytes);
        // And an annotated tag, a merge, a stash and a detached HEAD.
        uploads.bench.here(&["tag", "-a", "-m", "annotated", "v2"]);
        uploads.bench.here(&["checkout", "-q", "feature"]);
        uploads.commit("feature.txt", "feature\n");
        uploads.bench.here(&["merge", "-q", "-m", "merged", "main"]);
        write(&uploads.bench.here.join("a.txt"), "stashed\n");
        uploads.bench.here(&["stash"]);
        uploads.bench.here(&["checkout", "-q", "--detach", "main~1"]);
        let sent = uploads.upload();
        assert!(sent.packings == 1 && sent.bytes < 8192, "{} bytes", sent.bytes);
        assert_eq!(uploads.upload().bytes, 0);
    });
}

#[test]
fn what_is_no_longer_reachable_is_not_uploaded_again() {
    with_each_git(|bench| {
        bench.here(&["config", "gc.reflogExpire", "now"]);
        let mut uploads = Uploads::new(bench);
        uploads.upload();
        uploads.bench.here(&["checkout", "-q", "-b", "secret"]);
        let commit = uploads.commit("secret.txt", "a secret\n");
        let blob = uploads.bench.here(&["rev-parse", "HEAD:secret.txt"]);
        uploads.bench.here(&["tag", "-a", "-m", "annotated", "leak"]);
        let tag = uploads.bench.here(&["rev-parse", "leak"]);
        uploads.bench.here(&["checkout", "-q", "main"]);
        uploads.upload();
        assert!(uploads.is_there(&blob) && uploads.is_there(&tag));
        // The tag object is removed with its name, although the commit that it named is still reachable.
        uploads.bench.here(&["tag", "-d", "leak"]);
        uploads.upload();
        assert!(uploads.is_there(&blob) && !uploads.is_there(&tag));
        uploads.bench.here(&["branch", "-D", "secret"]);
        let sent = uploads.upload();
        assert!(!uploads.is_there(&blob) && !uploads.is_there(&commit));
        // The pack before it had nothing of that, and stays.
        assert_eq!(sent.bytes, 0);
        // History that was rewritten.
        let before = uploads.commit("amended.txt", "one\n");
        uploads.upload();
        write(&uploads.bench.here.join("amended.txt"), "two\n");
        uploads.bench.here(&["commit", "-q", "-a", "--amend", "-m", "amended"]);
        uploads.upload();
        assert!(!uploads.is_there(&before));
        // A stash that was dropped.
        write(&uploads.bench.here.join("a.txt"), "stashed\n");
        uploads.bench.here(&["stash"]);
        let stash = uploads.bench.here(&["rev-parse", "stash"]);
        uploads.upload();
        assert!(uploads.is_there(&stash));
        uploads.bench.here(&["stash", "drop", "-q"]);
        uploads.upload();
        assert!(!uploads.is_there(&stash));
    });
}

#[test]
fn what_is_only_staged_is_uploaded_while_it_is_staged() {
    with_each_git(|bench| {
        let mut uploads = Uploads::new(bench);
        uploads.upload();
        write(&uploads.bench.here.join("staged.txt"), "a staged secret\n");
        uploads.bench.here(&["add", "staged.txt"]);
        let blob = uploads.bench.here(&["rev-parse", ":staged.txt"]);
        let sent = uploads.upload();
        assert!(uploads.is_there(&blob) && sent.packings == 1);
        assert_eq!(uploads.upload().packings, 0);
        uploads.bench.here(&["reset", "-q"]);
        let sent = uploads.upload();
        assert!(!uploads.is_there(&blob) && sent.bytes == 0);
        // Once it is committed, it stays uploaded.
        uploads.bench.here(&["add", "staged.txt"]);
        uploads.upload();
        uploads.bench.here(&["commit", "-q", "-m", "committed"]);
        uploads.upload();
        assert!(uploads.is_there(&blob));
    });
}

#[test]
fn packs_are_combined_before_there_are_too_many() {
    with_each_git(|bench| {
        let mut uploads = Uploads::new(bench);
        uploads.commit_large("large");
        uploads.upload();
        let (mut most, mut bytes) = (0, 0);
        for number in 0..10 {
            uploads.commit("file", &format!("{number}\n"));
            let sent = uploads.upload();
            most = most.max(uploads.packs_there());
            bytes += sent.bytes;
        }
        assert_eq!(most, 8);
        assert!(bytes < 100_000, "the large pack was sent again: {bytes} bytes");
        // If those after the first are as large as the first, all are combined.
        let mut uploads = Uploads::new(uploads.bench);
        uploads.upload();
        for number in 0..7 {
            let blob: Vec<u8> =
                (0..8000_u32).flat_map(|at| Sha256::digest((at * 7 + number).to_le_bytes())).collect();
            write(&uploads.bench.here.join("blob"), blob);
            uploads.bench.commit_here("blob");
            uploads.upload();
        }
        assert_eq!(uploads.packs_there(), 8);
        uploads.commit("file", "last\n");
        uploads.upload();
        assert_eq!(uploads.packs_there(), 1);
    });
}

#[test]
fn a_pack_that_the_sandbox_lacks_or_changed_is_made_again() {
    with_each_git(|bench| {
        let mut uploads = Uploads::new(bench);
        uploads.upload();
        uploads.commit("second-pack", "x\n");
        uploads.upload();
        for harm in ["gone", "changed", "index"] {
            let packs = uploads.dot_git().join("objects/pack");
            let wanted = if harm == "index" { "idx" } else { "pack" };
            let names = fs::read_dir(&packs).unwrap().map(|entry| entry.unwrap().path());
            let first = names.filter(|path| path.extension() == Some(wanted.as_ref())).min().unwrap();
            if harm == "gone" {
                fs::remove_file(&first).unwrap();
            } else {
                fs::remove_file(&first).unwrap();
                write(&first, "planted");
            }
            assert!(uploads.upload().packings > 0, "{harm}");
            assert_eq!(uploads.upload().packings, 0);
        }
        // Each of them, also that of what is only staged.
        write(&uploads.bench.here.join("staged.txt"), "staged\n");
        uploads.bench.here(&["add", "staged.txt"]);
        uploads.upload();
        for number in 0.. {
            let names = fs::read_dir(uploads.dot_git().join("objects/pack")).unwrap();
            let mut names: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
            names.retain(|path| path.extension() == Some("pack".as_ref()));
            names.sort();
            // Packs that are made again may be combined.
            let Some(name) = names.get(number) else { break };
            fs::remove_file(name).unwrap();
            assert!(uploads.upload().packings > 0, "{}", name.display());
        }
        // Another sandbox, of which nothing is known.
        uploads.former = None;
        assert!(uploads.upload().packings > 0);
        // One whose digests were never recorded, for example after a failed upload.
        uploads.former.as_mut().unwrap().note(|_| None);
        assert!(uploads.upload().packings > 0);
    });
}

#[test]
fn a_history_with_another_end_is_packed_again() {
    with_each_git(|bench| {
        let mut uploads = Uploads::new(bench);
        for number in 0..4 {
            uploads.commit("a.txt", &format!("{number}\n"));
        }
        uploads.upload();
        let count = |uploads: &Uploads<'_>| uploads.bench.there(&["rev-list", "--count", "main"]);
        assert_eq!(count(&uploads), "6");
        uploads.bench.options.depth = Some(2);
        assert_eq!((uploads.upload().packings, count(&uploads)), (1, "2".to_owned()));
        assert_eq!(uploads.upload().packings, 0);
        uploads.bench.options.depth = Some(3);
        assert_eq!((uploads.upload().packings, count(&uploads)), (1, "3".to_owned()));
        // A branch that starts from a commit beyond that end.
        uploads.bench.here(&["checkout", "-q", "-b", "old", "main~5"]);
        uploads.commit("old.txt", "old\n");
        uploads.upload();
        assert_eq!(uploads.bench.there(&["rev-list", "--count", "old"]), "2");
        uploads.bench.options.depth = None;
        uploads.upload();
        assert_eq!(count(&uploads), "6");
    });
}

#[test]
fn grafts_and_partial_clones_are_packed_each_time() {
    with_each_git(|bench| {
        let mut uploads = Uploads::new(bench);
        uploads.upload();
        let tip = uploads.bench.here(&["rev-parse", "main"]);
        let grafts = uploads.bench.here.join(".git/info/grafts");
        write(&grafts, format!("{tip}\n"));
        assert!(uploads.upload_incomplete().packings > 0);
        assert!(uploads.upload_incomplete().packings > 0);
        fs::remove_file(&grafts).unwrap();
        // What was sent under the graft lacks what is reachable without it.
        assert!(uploads.upload().packings > 0);
        assert_eq!(uploads.upload().packings, 0);
        uploads.bench.here(&["config", "core.repositoryFormatVersion", "1"]);
        uploads.bench.here(&["config", "extensions.partialClone", "origin"]);
        assert!(uploads.upload_incomplete().packings > 0);
        assert!(uploads.upload_incomplete().packings > 0);
    });
}
