//! Locks within the process.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks also what a thread was at work on when it panicked: the panic itself is passed on to whoever waits for that
/// thread, and nothing here is left half-done in between.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
