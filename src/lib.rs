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
//! # The rooms
//!
//! Arrows point one way: `node → sandbox → merge, mirror, archive → tree, exclude → path, error`. Nothing but [`tree::root`]
//! turns a relative path into a system call, nothing but `node` knows Node, and [`merge::plan`] touches no file.

pub mod cancel;
pub mod error;
pub mod exclude;
pub mod mirror;
pub mod path;
pub mod random;
pub mod threads;
pub mod time;

/// A folder and what is in it: read, held open, staged.
pub mod tree {
    pub mod entry;
    pub mod root;
    pub mod scan;
    pub mod stage;
    pub mod temporary;
    pub mod twins;
}

/// A tree as a tar archive, and back.
pub mod archive {
    pub mod codec;
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
    mod twins;
}

/// How archives travel: in which parts, compressed or not, and what is tried again.
pub mod transfer {
    pub mod link;
    pub mod parts;
    pub mod retry;
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
    pub mod send;
    pub mod spec;
}

mod node;
mod sync;
