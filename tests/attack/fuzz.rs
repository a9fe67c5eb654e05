//! Fuzzers on stable Rust: malformed archives, and random trees with random edits on both sides.
//!
//! Each takes its seeds from a counter, so every run has the same cases, as far as it gets.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_managed_runtime::archive::source::Whole;
use sandbox_managed_runtime::archive::unpack::{Archive, Content};
use sandbox_managed_runtime::error::Error;
use sandbox_managed_runtime::exclude::ExcludePatterns;
use sandbox_managed_runtime::path::RelativePath;
use sandbox_managed_runtime::tree::filter::Filter;

use crate::model::merge_but_for;
use crate::place::{Place, prepare_upload, refused, restore};
use crate::random::Random;
use crate::raw_tar::{BLOCK, CHECKSUM, KIND, LINK, MAGIC, MODE, NAME, PREFIX, RawTar, SIZE};
use crate::reading::{Contents, Dripping, read_stream};
use crate::sandbox::{CannedSandbox, LocalSandbox};
use crate::tree::{Node, Picture, RUNTIME, Tree, assert_same, change_tree, is_below, read_tree, to_tar};

/// Runs a case with one seed after another, for the requested time, but at least that many times.
pub fn fuzz(at_least: u64, case: impl Fn(&mut Random)) {
    let number =
        |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    let until = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS", 2));
    let first = number("FUZZ_SEED", 0);
    for seed in first.. {
        if seed >= first + at_least && Instant::now() > until {
            println!("{} cases", seed - first);
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&mut Random::new(seed))));
        if let Err(panic) = outcome {
            eprintln!("to see this again: FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

// Trees

const NAMES: &[&[u8]] = &[b"a", b"b", b"a-", b"a.b", b"a b", b"x.log", b"\xff\xe9", b"-n", b"*", b"c"];
const CONTENTS: &[&str] = &["", "1", "2", "3", "the same length", "THE SAME LENGTH"];

fn leaf(random: &mut Random) -> Node {
    match random.below(6) {
        0 => Node::Link(random.pick(&[&b"a"[..], b"../outside/secret", b"b/a", b"."]).to_vec()),
        1 => Node::File(0o755, random.pick(CONTENTS).as_bytes().to_vec()),
        2 => Node::File(0o600, random.pick(CONTENTS).as_bytes().to_vec()),
        3 => Node::File(0o644, format!("unique {}", random.next()).into_bytes()),
        _ => Node::File(0o644, random.pick(CONTENTS).as_bytes().to_vec()),
    }
}

/// Puts a random entry at a path: a file, a link, or a folder with content.
fn grow(random: &mut Random, tree: &mut Tree, path: Vec<u8>, depth: usize) {
    if depth >= 4 || random.below(5) < 3 {
        tree.insert(path, leaf(random));
        return;
    }
    for _ in 0..random.below(4) {
        let child = [&path[..], b"/", *random.pick(NAMES)].concat();
        if !tree.contains_key(&child) {
            grow(random, tree, child, depth + 1);
        }
    }
    tree.insert(path, Node::Folder(*random.pick(&[0o755, 0o755, 0o700, 0o777])));
}

fn random_tree(random: &mut Random) -> Tree {
    let mut tree = Tree::new();
    for _ in 0..random.below(7) {
        let name = random.pick(NAMES).to_vec();
        if !tree.contains_key(&name) {
            grow(random, &mut tree, name, 0);
        }
    }
    tree
}

fn remove(tree: &mut Tree, path: &[u8]) {
    tree.retain(|at, _| at != path && !is_below(at, path));
}

/// A tree after random edits.
fn edited(random: &mut Random, tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for _ in 0..random.below(6) {
        let paths: Vec<_> = tree.keys().cloned().collect();
        let path = if paths.is_empty() || random.once_in(4) {
            random.pick(NAMES).to_vec()
        } else {
            random.pick(&paths).clone()
        };
        match (random.below(5), tree.get(&path)) {
            (0, _) => remove(&mut tree, &path),
            (1 | 2, Some(Node::Folder(_))) => {
                let child = [&path[..], b"/", *random.pick(NAMES)].concat();
                remove(&mut tree, &child);
                let depth = child.split(|&byte| byte == b'/').count() - 1;
                grow(random, &mut tree, child, depth);
            }
            (3, Some(Node::Folder(_))) => {
                tree.insert(path, Node::Folder(*random.pick(&[0o755, 0o700, 0o777])));
            }
            _ => {
                remove(&mut tree, &path);
                let depth = path.split(|&byte| byte == b'/').count() - 1;
                grow(random, &mut tree, path, depth);
            }
        }
    }
    tree
}

/// Paths that a restore does not touch.
fn is_left_alone(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|name| name == b"x.log") || path == b"c" || is_below(path, b"c")
}

fn shared(tree: &Tree) -> Tree {
    tree.iter()
        .filter(|(path, _)| !is_left_alone(path))
        .map(|(path, node)| (path.clone(), node.clone()))
        .collect()
}

#[test]
fn fuzz_restores_against_the_model() {
    fuzz(100, |random| {
        let mut ours = random_tree(random);
        let place = Place::with(&ours);
        let outside = place.outside_picture();
        let client = Arc::new(CannedSandbox::default());
        let mut upload = place.upload();
        upload.exclude = vec![b"*.log".to_vec()];
        upload.preserve = vec![b"c".to_vec()];
        let session = prepare_upload(&client, upload).unwrap();
        let mut base = shared(&ours);
        let mut sandbox = ours.clone();
        for round in 0..3 {
            sandbox = edited(random, &sandbox);
            let mut here = edited(random, &ours);
            change_tree(&place.workspace(), &ours, &here);
            if random.once_in(10) {
                let path = random.pick(NAMES).to_vec();
                remove(&mut sandbox, &path);
                sandbox.insert(path, Node::Fifo);
            }
            let download = to_tar(&sandbox).end();
            if random.once_in(4) {
                let before = Picture::of(&place.workspace());
                client.answer_unmarked(&download[..random.below(download.len())]);
                refused(&session, &*client);
                assert_eq!(Picture::of(&place.workspace()), before);
                // Edits continue before the restore is tried again.
                let later = edited(random, &here);
                change_tree(&place.workspace(), &here, &later);
                here = later;
            }
            client.answer(download);
            let report = restore(&session, &*client).unwrap();
            let outcome = merge_but_for(&is_left_alone, &base, &shared(&sandbox), &here);
            outcome.assert_is(&place.workspace(), &report, &format!("round {round}"));
            place.assert_no_litter();
            (base, ours) = (outcome.base, outcome.tree);
        }
        assert_eq!(place.outside_picture(), outside);
    });
}

#[test]
fn fuzz_round_trips_through_a_shell() {
    fuzz(8, |random| {
        let base = random_tree(random);
        let place = Place::with(&base);
        let outside = place.outside_picture();
        let client = Arc::new(LocalSandbox::default());
        let mut upload = place.upload();
        upload.exclude = vec![b"*.log".to_vec()];
        upload.preserve = vec![b"c".to_vec()];
        let session = prepare_upload(&client, upload).unwrap();
        let uploaded = |path: &[u8]| !path.split(|&byte| byte == b'/').any(|name| name == b"x.log");
        let expected: Tree = base.clone().into_iter().filter(|(path, _)| uploaded(path)).collect();
        let mut sandbox = read_tree(&place.remote());
        assert_same(&sandbox, &expected, "uploaded");
        let (mut base, mut ours) = (shared(&base), base);
        for round in 0..2 {
            let (there, here) = (edited(random, &sandbox), edited(random, &ours));
            change_tree(&place.remote(), &sandbox, &there);
            change_tree(&place.workspace(), &ours, &here);
            let report = restore(&session, &*client).unwrap();
            let outcome = merge_but_for(&is_left_alone, &base, &shared(&there), &here);
            outcome.assert_is(&place.workspace(), &report, &format!("round {round}"));
            (base, ours, sandbox) = (outcome.base, outcome.tree, there);
        }
        place.assert_no_litter();
        assert_eq!(place.outside_picture(), outside);
    });
}

// Archives

/// The archives of `tests/corpus`.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|name| name.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "md"));
    paths.sort();
    assert!(paths.len() >= 9);
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn seal(block: &mut [u8]) {
    block[CHECKSUM].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Changes an archive in one of the ways that matter, mostly with correct checksums.
fn bend(random: &mut Random, archive: &mut Vec<u8>, others: &[Vec<u8>]) {
    const STRANGE: &[&[u8]] = &[
        b"",
        b".",
        b"./",
        b"/",
        b"..",
        b"../x",
        b"/etc/x",
        b"dir",
        b"dir/",
        b"dir/file",
        b"./dir/file",
        b"link",
        b"link/x",
        b"a\0b",
        b"\xff\xfe",
        b".paperclip-runtime",
        b".paperclip-runtime/x",
        b"dir//file",
        b"x",
    ];
    let blocks = archive.len() / BLOCK;
    let at = random.below(blocks.max(1)) * BLOCK;
    if blocks == 0 {
        archive.extend(random.pick(others));
        return;
    }
    let block = at..at + BLOCK;
    match random.below(12) {
        0 => archive.truncate(random.below(archive.len())),
        1 => archive.drain(block).for_each(drop),
        2 => {
            let copy = archive[block].to_vec();
            archive.splice(at..at, copy);
        }
        3 => {
            let other = random.pick(others);
            let from = random.below(other.len() / BLOCK) * BLOCK;
            let length = (1 + random.below(6)) * BLOCK;
            let piece = other[from..other.len().min(from + length)].to_vec();
            archive.splice(at..at, piece);
        }
        4 => archive[at + random.below(BLOCK)] ^= 1 << random.below(8),
        5 => {
            let entry = RawTar::new()
                .pax(b'x', &[(*random.pick(&["path", "linkpath", "size", "x"]), *random.pick(STRANGE))]);
            archive.splice(at..at, entry.cut());
        }
        6 => {
            let entry = RawTar::new().long(*random.pick(b"LK"), random.pick(STRANGE));
            archive.splice(at..at, entry.cut());
        }
        7 => {
            let entry = match random.below(4) {
                0 => RawTar::new().symlink(random.pick(STRANGE), random.pick(STRANGE)),
                1 => RawTar::new().hard_link(random.pick(STRANGE), random.pick(STRANGE)),
                2 => RawTar::new().dir(random.pick(STRANGE)),
                _ => RawTar::new().file(random.pick(STRANGE), random.pick(STRANGE)),
            };
            archive.splice(at..at, entry.cut());
        }
        8 => {
            archive[at + KIND] = *random.pick(b"\x000123456 7LKxgSVDMX");
            seal(&mut archive[block]);
        }
        9 => {
            let field = random.pick(&[NAME, LINK, PREFIX, MAGIC]).clone();
            let text = random.pick(STRANGE);
            let target = &mut archive[block.clone()][field];
            target.fill(0);
            target[..text.len().min(8)].copy_from_slice(&text[..text.len().min(8)]);
            seal(&mut archive[block]);
        }
        10 => {
            let field = random.pick(&[SIZE, MODE]).clone();
            let number = match random.below(5) {
                0 => vec![0xff; field.len()],
                1 => [&[0x80], &vec![0; field.len() - 2][..], &[5]].concat(),
                2 => vec![b'7'; field.len()],
                3 => format!("{:0width$o}\0", random.below(2000), width = field.len() - 1).into_bytes(),
                _ => vec![0; field.len()],
            };
            archive[block.clone()][field].copy_from_slice(&number);
            seal(&mut archive[block]);
        }
        _ => {
            let byte = random.below(BLOCK);
            archive[at + byte] = u8::try_from(random.below(256)).unwrap();
            seal(&mut archive[block]);
        }
    }
}

#[test]
fn fuzz_unpacking() {
    let corpus = corpus();
    // A changed name may have become one that no restore accepts.
    let always_excluded = ExcludePatterns::new([b"._*"]);
    let accepted = std::cell::Cell::new(0);
    fuzz(2000, |random| {
        let mut archive = random.pick(&corpus).clone();
        for _ in 0..=random.below(4) {
            bend(random, &mut archive, &corpus);
        }
        let left_alone =
            Filter::by_name(|path| path.is_or_below(RUNTIME.as_bytes()) || always_excluded.matches(path));
        let whole = Vec::clone(&archive);
        let read = read_stream(&mut Whole::new(whole.clone()), None, &left_alone);
        // The result is the same, however the stream is divided.
        let mut pieces = Random::new(random.below(usize::MAX) as u64);
        let most = *random.pick(&[1, 7, BLOCK, 3 * BLOCK + 1, 10_000]);
        let mut dripping = Dripping { rest: &archive, length: |_| 1 + pieces.below(most) };
        let in_pieces = read_stream(&mut dripping, None, &left_alone);
        let shown = |read: &Result<(Archive, Contents), Error>| match read {
            Ok((archive, contents)) => format!("{archive:?} {contents:?}"),
            Err(error) => format!("{} {error}", error.code()),
        };
        assert_eq!(shown(&read), shown(&in_pieces), "in pieces of up to {most} bytes");
        let Ok((unpacked, mut contents)) = read else { return };
        accepted.set(accepted.get() + 1);
        let mut tree = Tree::new();
        for entry in &unpacked.entries {
            let node = match &entry.content {
                // A mode without the owner's rights is not taken over.
                Content::Folder { mode } => Node::Folder(mode.unwrap_or(0o755) & 0o777 | 0o500),
                Content::File { mode } => {
                    let content = contents.files.entry(entry.inode).or_default();
                    Node::File(mode & 0o777 | 0o400, content.clone())
                }
                Content::Symlink { target } => Node::Link(target.to_vec()),
                Content::Special => continue,
            };
            let path = entry.path.as_bytes().to_vec();
            let folders: BTreeSet<_> = crate::tree::above(&path).collect();
            assert!(
                folders.iter().all(|folder| matches!(tree.get(*folder), Some(Node::Folder(_)))),
                "{path:?}"
            );
            assert!(tree.insert(path, node).is_none(), "a name stands there twice");
        }
        // An accepted archive can be restored, with exactly this content.
        if accepted.get() % 8 == 0 {
            let place = Place::new();
            let outside = place.outside_picture();
            let (client, session) = place.prepare_canned();
            client.answer(archive);
            restore(&session, &*client).unwrap();
            assert_same(&place.tree(), &tree, "restored");
            place.assert_no_litter();
            assert_eq!(place.outside_picture(), outside);
        }
    });
    assert!(accepted.get() > 100, "most of what is bent must not be all that is tested");
}

// Patterns

#[test]
fn fuzz_patterns_that_take_other_matchers_forever() {
    const PIECES: &[&[u8]] = &[
        b"*",
        b"*",
        b"a",
        b"?",
        b"[ab]",
        b"[!a]",
        b"[",
        b"]",
        b"\\",
        b"\\*",
        b"/",
        b"**",
        b"[a-",
        b"[[:alpha:]]",
    ];
    fuzz(300, |random| {
        let pattern: Vec<u8> =
            (0..random.below(60)).flat_map(|_| random.pick(PIECES).iter().copied()).collect();
        let patterns = ExcludePatterns::new([&pattern[..]]);
        let name: Vec<u8> =
            (0..4000).map(|at| if at % 200 == 199 { b'/' } else { *random.pick(b"aaab") }).collect();
        let path = RelativePath::parse(&name).unwrap().unwrap();
        let matches = patterns.matches(&path);
        // A star on both sides can only match more.
        let wider = ExcludePatterns::new([&[b"*", &pattern[..], b"*"].concat()[..]]);
        assert!(
            !matches || pattern.is_empty() || pattern.ends_with(b"\\") || wider.matches(&path),
            "{pattern:?}"
        );
    });
}
