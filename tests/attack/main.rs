//! Tests of a restore's promises by attack: the download is hostile, disks fill up, processes are killed, and
//! people keep working in the same folder.
//!
//! `FUZZ_SECONDS=60 cargo test --test attack fuzz` runs each fuzzer for a minute (two seconds otherwise);
//! `FUZZ_SEED` starts it at another seed, such as one that a failure names. `ATTACK_ROUNDS=10` repeats the
//! races and kills ten times as often.
//!
//! On Linux only, and as root: small disks are mounted, and restores run as another user.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, Ordering};

mod archives;
mod child;
mod client_failures;
mod company;
mod deletions;
mod disk;
mod download;
mod fuzz;
mod fuzz_parts;
mod heartbeats;
mod kill;
mod left_alone;
mod links;
mod locks;
mod model;
mod modes;
mod mounts;
mod owners;
mod partial;
mod parts;
mod permissions;
mod place;
mod random;
mod raw_tar;
mod reading;
mod real_tars;
mod receiving;
mod sandbox;
mod table;
#[path = "../tools/mod.rs"]
mod tools;
mod tree;
mod truncation;

/// Tells other threads to stop when it is dropped, also by a panic: otherwise the test would wait for them
/// forever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The factor by which tests that try to hit a certain moment are repeated more often.
fn rounds(usual: usize) -> usize {
    let factor =
        std::env::var("ATTACK_ROUNDS").map_or(1, |text| text.parse().expect("ATTACK_ROUNDS is a number"));
    usual * factor
}
