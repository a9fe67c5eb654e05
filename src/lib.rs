//! The tour comes with the last room.

pub mod cancel;
pub mod error;
pub mod exclude;
pub mod path;
pub mod time;
/// A tree of files.
pub mod tree {
    pub mod entry;
}
/// The merge.
pub mod merge {
    pub mod lock;
}
/// The sandbox.
pub mod sandbox {
    pub mod command;
}
