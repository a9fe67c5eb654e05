//! Numbers by chance, for names and pauses; not for secrets.

use std::hash::{BuildHasher as _, RandomState};

/// 64 bits unlike any before. Each state has keys of its own, which come from the system's source of randomness; what is
/// hashed tells two of one thread apart.
#[must_use]
pub fn bits() -> u64 {
    RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()))
}
