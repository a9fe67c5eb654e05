//! The promises of a restore, put to the test by attack: the download is hostile, disks fill, processes die, and
//! people keep working in the same folder.
//!
//! `FUZZ_SECONDS=60 cargo test --test attack fuzz` lets each fuzzer run for a minute (two seconds otherwise);
//! `FUZZ_SEED` starts it at another seed, such as one that a failure names. `ATTACK_ROUNDS=10` makes the races and
//! kills ten times as many.
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

/// Tells other threads to stop, also when this one panics: it would wait for them for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// By how much more than usual is asked for of tests that hope to hit a moment.
fn rounds(usual: usize) -> usize {
    let factor =
        std::env::var("ATTACK_ROUNDS").map_or(1, |text| text.parse().expect("ATTACK_ROUNDS is a number"));
    usual * factor
}
