//! Uploads an AI agent's workspace to a sandbox and merges the result back, without losing local work.
//!
//! # The flow
//!
//! ```text
//! prepare:  scan ──> pack ──(ArrayBuffer)──> client.writeFile ──> client.run(extract)
//!                      └──> base: what was uploaded, hashed in the same pass
//! restore:  client.run(tar) ──> client.readFile ──> unpack ──> incoming ──> plan ──> apply
//!                                 checks all of it,  hashes,     pure:       under the lock, through
//!                                 changes nothing    stages what base ×      folder handles, one
//!                                                    differs     theirs ×    atomic rename a file
//!                                                    from base   ours
//! ```
//!
//! # The terms
//!
//! - *Entry*: one name in a tree, which is a folder, a file or a symbolic link. *Snapshot*: a tree as a sorted map
//!   from relative path to entry.
//! - *Base*: the snapshot that both sides last shared, as in git's three-way merge. (Where a caller passes one in, the
//!   JavaScript API calls it `baseline`.) *Theirs*: what the sandbox has now. *Ours*: what is in the workspace now.
//! - *Scan* finds the names in a folder, sorted. *Pack* turns them into archive bytes, and makes the snapshot of exactly
//!   those bytes.
//! - *Unpack* turns untrusted bytes into checked entries. *Incoming* is *theirs*, checked.
//! - *Stage*: a folder on the workspace's file system with new content, complete, before anything is replaced.
//! - *Plan*: what a merge does, decided from base, theirs and ours without any I/O. *Apply* carries it out.
//! - *Conflict*: both sides changed a path. The sandbox's version is placed there, and the local one is *backed up*
//!   below `.paperclip-runtime/conflicts/`.
//! - *Left in place*: a local version that was changed here and deleted in the sandbox.
//! - *Name collision*: two names that a volume takes for one, such as `Foo` and `foo`.
//! - *Report*: what a merge did, entry by entry.
//!
//! # The modules
//!
//! Dependencies point one way:
//! `node → sandbox → state → transfer → git, mirror, merge → archive → tree → fs, exclude → path, error`.
//! Only [`fs`] calls the system, only `node` uses Node-API, and [`merge::plan`] touches no file.

pub mod cancel;
pub mod error;
pub mod exclude;
pub mod mirror;
pub mod path;
pub mod path_map;
pub mod random;
pub mod threads;
pub mod time;

/// All system calls on files, processes and the machine.
pub mod fs {
    pub mod by_path;
    pub mod claim;
    pub mod collisions;
    mod errno;
    mod folder;
    pub mod host;
    mod lock;
    mod private;
    pub mod program;
    mod rename;
    mod stat;
    pub mod temporary;
    pub mod walk;

    pub use errno::means_gone;
    pub use folder::{Cursor, File, Root, read_fully, read_fully_at};
    pub use lock::{Hold, Sharing, try_lock};
    pub use private::Private;
    pub use rename::{Onto, Renamed, link, move_to, rename};
    pub use stat::{FileId, Fingerprint, Kind, Meta, set_file_mode};
}

/// Trees of files: read, and staged.
pub mod tree {
    pub mod entry;
    pub mod filter;
    pub mod ignore_files;
    mod ignore_line;
    pub mod scan;
    pub mod stage;
    pub mod temporary;
}

/// Converts trees to tar archives and back.
pub mod archive {
    pub mod codec;
    pub mod contents;
    pub mod header;
    pub mod pack;
    pub mod source;
    pub mod unpack;
}

/// Git repositories in the workspace: what is uploaded, and what may be taken over from the sandbox.
pub mod git {
    mod around;
    pub mod command;
    pub mod committed_links;
    pub mod config;
    pub mod export;
    pub mod held;
    pub mod import;
    pub mod index;
    mod index_file;
    mod keep;
    pub mod links;
    mod local_refs;
    pub mod named;
    pub mod obeyed;
    mod objects;
    pub mod packs;
    pub mod quarantine;
    pub mod recognise;
    pub mod refs;
    pub mod report;
    pub mod repository;
    pub mod search;
    mod staged_only;
    pub mod stored;
    mod their_refs;
    mod unfinished;
    mod user;
    mod ways;
    mod words;
    pub mod work_folder;
    pub mod written;
}

/// The three-way merge of the sandbox's version into the workspace.
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
    pub mod options;
    pub mod plan;
    pub mod receive;
    pub mod report;
    pub mod sensitive;
    pub mod session;
}

/// How archives are transferred: parts, compression, retries, and changes only.
pub mod transfer {
    pub mod changes;
    pub mod link;
    pub mod parts;
    pub mod remote;
    pub mod retry;
}

/// State that is stored on this machine between calls.
pub mod state {
    pub mod digests;
    pub mod sandboxes;
    pub mod store;
    pub mod tools;
}

/// The round trip through a sandbox, for any client.
pub mod sandbox {
    pub mod answer;
    mod assets;
    pub mod client;
    pub mod command;
    mod exclusions;
    pub mod fetch;
    pub mod listing;
    pub mod prepare;
    pub mod prepare_report;
    pub mod repositories;
    pub mod restore;
    pub mod resume;
    pub mod send;
    pub mod session;
    pub mod spec;
    pub mod update;
    pub mod upload;
}

mod node;
mod sync;
