//! Measures the parts that touch no file, at the size of a large workspace: `cargo bench --bench pure`.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use sandbox_managed_runtime::archive::header::{self, Member};
use sandbox_managed_runtime::exclude::ExcludePatterns;
use sandbox_managed_runtime::fs::{FileId, Kind, Meta};
use sandbox_managed_runtime::merge::plan::{Local, paths_to_inspect, plan};
use sandbox_managed_runtime::path::{ByPath, RelativePath};
use sandbox_managed_runtime::tree::entry::{Digest, Entry, Snapshot};

/// How many files the workspace has.
const FILES: usize = 100_000;

fn main() {
    divan::main();
}

/// Every path against 50 typical patterns, none of which matches: that is the most work.
#[divan::bench]
fn exclude_matching(bencher: Bencher) {
    let kinds = ["absent-{}", "*.absent-{}", "absent-{}/*", "*/absent-{}/*", "absent-?[{}]"];
    let patterns = (0..50).map(|number| kinds[number % kinds.len()].replace("{}", &number.to_string()));
    let patterns = ExcludePatterns::new(patterns);
    let paths = paths();
    bencher.counter(ItemsCount::new(FILES)).bench_local(|| {
        let matched = paths.iter().filter(|path| patterns.matches(path)).count();
        assert_eq!(matched, 0);
    });
}

/// One header for each file, each at its own offset.
#[divan::bench]
fn header_writing(bencher: Bencher) {
    let meta = Meta {
        kind: Kind::File,
        mode: 0o100_644,
        size: 6_000,
        mtime: (1_700_000_000, 0),
        ctime: (1_700_000_000, 0),
        id: FileId::new(1, 1),
        links: 1,
        owner: (0, 0),
    };
    let member = Member::File { size: meta.size };
    let paths = paths();
    let places: Vec<usize> = paths.iter().map(|path| header::length(path.as_bytes(), member)).collect();
    let mut archive = vec![0; places.iter().sum()];
    bencher.counter(ItemsCount::new(FILES)).bench_local(|| {
        let mut rest = archive.as_mut_slice();
        for (path, &length) in paths.iter().zip(&places) {
            let (place, after) = rest.split_at_mut(length);
            header::write(black_box(place), path.as_bytes(), &meta, member);
            rest = after;
        }
    });
}

/// The local paths that a merge depends on.
#[divan::bench(args = [0, 1, 100])]
fn looking_up(bencher: Bencher, percent_changed: usize) {
    let base = snapshot(0);
    let theirs = snapshot(percent_changed);
    bencher.counter(ItemsCount::new(base.len())).bench_local(|| paths_to_inspect(&base, &theirs));
}

/// The plan of a merge into a workspace that is as it was uploaded.
#[divan::bench(args = [0, 1, 100])]
fn planning(bencher: Bencher, percent_changed: usize) {
    let base = snapshot(0);
    let theirs = snapshot(percent_changed);
    let ours: ByPath<Local> = paths_to_inspect(&base, &theirs)
        .into_iter()
        .map(|path| {
            let local = base.get(&path).map_or(Local::Absent, |entry| Local::Entry(entry.clone()));
            (path, local)
        })
        .collect();
    bencher.counter(ItemsCount::new(base.len())).bench_local(|| plan(&base, &theirs, &ours));
}

/// Paths as in a source tree, five folders deep.
fn paths() -> Vec<RelativePath> {
    (0..FILES)
        .map(|number| {
            let (package, area, topic) = (number % 20, number / 20 % 25, number / 500 % 10);
            path(&format!("packages/package-{package}/src/area-{area}/topic-{topic}/unit-{number}.ts"))
        })
        .collect()
}

fn path(text: &str) -> RelativePath {
    RelativePath::parse(text.as_bytes()).expect("a valid path").expect("a path below the root")
}

/// The workspace with changed content in a part of its files.
fn snapshot(percent_changed: usize) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for (number, path) in paths().into_iter().enumerate() {
        for folder in path.ancestors() {
            snapshot.insert(folder, Entry::Folder { mode: Some(0o755) });
        }
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        digest[31] = u8::from(number % 100 < percent_changed);
        snapshot.insert(path, Entry::File { mode: 0o100_644, digest: Digest(digest) });
    }
    snapshot
}
