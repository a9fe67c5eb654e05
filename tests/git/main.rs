//! Transfers of repositories, with real git on both sides: nothing that the sandbox plants is run locally,
//! and ordinary work on both sides loses no commit. Every test runs with each git that `PATH` leads to.
#![cfg(target_os = "linux")]

mod bench;
mod forged;
mod hostile;
mod index;
mod kill;
mod meanwhile;
mod named;
mod sound;
mod unreadable;
mod uploads;
