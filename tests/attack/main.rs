//! Tests of a restore's promises by attack: the download is hostile, disks fill up, processes are killed, and
//! people keep working in the same folder.
//!
//! `FUZZ_SECONDS=60 cargo test --test attack fuzz` runs each fuzzer for a minute (two seconds otherwise);
//! `FUZZ_SEED` starts it at another seed, such as one that a failure names. `ATTACK_ROUNDS=10` repeats the
//! races and kills ten times as often.
//!
//! The modules below that say so run anywhere and as any user: `cargo test --test attack -- archives:: deletions::
//! partial:: parts:: table:: truncation::` names them, as `npm test` and CI on macOS do. All others are for Linux, and
//! some of them for root: small disks are mounted, and restores run as another user.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

use std::sync::atomic::{AtomicBool, Ordering};

// Attacks that need neither Linux nor root.
mod archives;
mod deletions;
mod partial;
mod parts;
mod table;
mod truncation;

// What attacks are made of.
mod model;
mod place;
mod random;
mod raw_tar;
mod reading;
mod sandbox;
mod tree;

// Attacks that need Linux, and some of them root.
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod client_failures;
#[cfg(target_os = "linux")]
mod company;
#[cfg(target_os = "linux")]
mod compression;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod download;
#[cfg(target_os = "linux")]
mod fuzz;
#[cfg(target_os = "linux")]
mod fuzz_parts;
#[cfg(target_os = "linux")]
mod heartbeats;
#[cfg(target_os = "linux")]
mod kill;
#[cfg(target_os = "linux")]
mod left_alone;
#[cfg(target_os = "linux")]
mod links;
#[cfg(target_os = "linux")]
mod locks;
#[cfg(target_os = "linux")]
mod modes;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod owners;
#[cfg(target_os = "linux")]
mod permissions;
#[cfg(target_os = "linux")]
mod real_tars;
#[cfg(target_os = "linux")]
mod receiving;
#[cfg(target_os = "linux")]
#[path = "../tools/mod.rs"]
mod tools;

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
