//! Repositories that travel, with real git on both sides: whatever the sandbox plants runs nothing here, and whatever both
//! sides do ordinarily loses no commit. Every test runs with each git that `PATH` leads to.
#![cfg(target_os = "linux")]

mod bench;
mod hostile;
mod kill;
mod sound;
mod uploads;
