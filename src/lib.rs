//! The tour comes with the last room.

pub mod cancel;
pub mod error;
pub mod exclude;
pub mod mirror;
pub mod path;
pub mod time;
/// A tree of files.
pub mod tree {
    pub mod entry;
    pub mod root;
    pub mod scan;
    pub mod stage;
}
/// Archives.
pub mod archive {
    pub mod header;
    pub mod pack;
    pub mod unpack;
}
/// The merge.
pub mod merge {
    pub mod apply;
    pub mod conflicts;
    pub mod folder;
    pub mod incoming;
    pub mod journal;
    pub mod lock;
    pub mod plan;
    pub mod report;
}
/// The sandbox.
pub mod sandbox {
    pub mod client;
    pub mod command;
    pub mod prepare;
    pub mod restore;
    pub mod spec;
}
mod node;
