//! Moves an AI agent's workspace into a sandbox and merges the result back, without losing a byte of anyone's work.
//!
//! # The flow
//!
//! ```text
//! prepare:  scan ──> pack ──(ArrayBuffer)──> client.writeFile ──> client.run(extract)
//!                      └──> base: what was uploaded, hashed in the same pass
//! restore:  client.run(tar) ──> client.readFile ──> unpack ──> incoming ──> plan ──> apply
//!                                 checks all of it,  hashes,     pure:       under the lock, through
//!                                 changes nothing    stages what base ×      directory handles, one
//!                                                    differs     theirs ×    atomic rename a file
//!                                                    from base   ours
//! ```
//!
//! # The words
//!
//! - *entry*: one name in a tree: a folder, a file or a symbolic link. *Snapshot*: a tree as a sorted map from relative
//!   path to entry. *Base*: the snapshot that both sides last shared.
//! - *scan*: a folder → its names in byte order. *Pack*: names → archive bytes, and the snapshot of exactly those.
//! - *unpack*: untrusted bytes → checked entries. *Stage*: new content, complete, on the workspace's file system, before
//!   anything is replaced. *Incoming*: the other side, checked, with what differs from the base staged.
//! - *plan*: (base, theirs, ours) → what is to be done; no I/O. *Apply*: plan → file system.
//! - *conflict*: both sides changed a path; the sandbox's version stands there, the local one is kept aside.
//! - *report*: what a merge did, entry by entry.
//!
//! # The modules
//!
//! Arrows point one way: `node → sandbox → transfer → git, mirror, merge → archive → tree → fs, exclude → path, error`.
//! Nothing but [`fs`] calls the system, nothing but `node` knows Node, and [`merge::plan`] touches no file.

pub mod cancel;
pub mod error;
pub mod exclude;
pub mod mirror;
pub mod path;
pub mod random;
pub mod threads;
pub mod time;

/// Everything that is asked of the system, and the one place that asks it.
pub mod fs {
    pub mod by_path;
    pub mod claim;
    pub mod collisions;
    mod errno;
    mod folder;
    pub mod host;
    mod lock;
    mod private;
    mod rename;
    mod stat;
    pub mod temporary;
    pub mod walk;

    pub use errno::means_gone;
    pub use folder::{Cursor, File, Root};
    pub use lock::{Hold, Sharing, try_lock};
    pub use private::Private;
    pub use rename::{Onto, Renamed, link, move_to, rename};
    pub use stat::{FileId, Fingerprint, Kind, Meta, set_file_mode};
}

/// A folder and what is in it: read and staged.
pub mod tree {
    pub mod entry;
    pub mod scan;
    pub mod stage;
    pub mod temporary;
}

/// A tree as a tar archive, and back.
pub mod archive {
    pub mod codec;
    pub mod contents;
    pub mod header;
    pub mod pack;
    pub mod source;
    pub mod unpack;
}

/// A git repository in the workspace: what of it goes up, and what may come back.
pub mod git {
    pub mod command;
    pub mod config;
    pub mod export;
    pub mod import;
    pub mod index;
    pub mod named;
    mod objects;
    pub mod quarantine;
    pub mod recognise;
    pub mod refs;
    pub mod report;
    pub mod work_folder;
}

/// Three sides made one.
pub mod merge {
    pub mod apply;
    mod collisions;
    pub mod conflicts;
    pub mod folder;
    pub mod holder;
    pub mod incoming;
    pub mod journal;
    mod left_alone;
    pub mod lock;
    pub mod plan;
    pub mod receive;
    pub mod report;
    mod sensitive;
    pub mod session;
}

/// How archives travel: in which parts, compressed or not, and what is tried again.
pub mod transfer {
    pub mod changes;
    pub mod link;
    pub mod parts;
    pub mod remote;
    pub mod retry;
}

/// What is kept on this machine between calls.
pub mod state {
    pub mod digests;
    pub mod sandboxes;
    pub mod store;
}

/// The round trip through a sandbox, whoever reaches it and however.
pub mod sandbox {
    pub mod answer;
    pub mod client;
    pub mod command;
    pub mod fetch;
    pub mod listing;
    pub mod prepare;
    pub mod prepare_report;
    pub mod repositories;
    pub mod restore;
    pub mod resume;
    pub mod send;
    pub mod spec;
    pub mod update;
}

mod node;
mod sync;
