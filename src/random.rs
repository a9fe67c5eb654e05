//! Random numbers for names and delays. Not for secrets.

use std::hash::{BuildHasher as _, RandomState};

/// 64 random bits. Each `RandomState` has its own keys from the system's source of randomness; the hashed
/// value makes two of one thread differ.
#[must_use]
pub fn bits() -> u64 {
    RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()))
}
