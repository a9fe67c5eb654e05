//! All errors, with the stable code that a caller can test for.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. [`Error::code`] gives the stable name a caller can test for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed. Its code is the operating system's own (`ENOENT`, `EACCES`, …).
    #[error("{syscall} '{}': {source}{}", path.display(), advice(.hints))]
    Io {
        /// The system call's name as Node spells it (`open`, `rename`, …).
        syscall: &'static str,
        /// What it was called on.
        path: PathBuf,
        /// What the operating system answered.
        source: io::Error,
        /// What to do about it, or the state that things are in, unless the rest of the message says that.
        hints: Vec<&'static str>,
    },

    /// The state of a file or folder prevents the work. It was observed: no system call reported it. Its code
    /// is the one that Node uses for this (`ENOENT`, `EBUSY`, ).
    #[error("{}: {}, {syscall} '{}'{}", obstacle.code(), obstacle.text(), path.display(), advice(.hints))]
    Obstructed {
        /// The state.
        obstacle: Obstacle,
        /// The intended operation, as Node names it (`open`, `rename`, ).
        syscall: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What to do about it, or the state that things are in, unless the rest of the message says that.
        hints: Vec<&'static str>,
    },

    /// The downloaded archive ends before its end-of-archive mark.
    #[error(
        "the downloaded archive is cut off at byte {offset}: {reason}; nothing was changed, download it again"
    )]
    ArchiveTruncated {
        /// The byte at which more was expected.
        offset: u64,
        /// What was missing there.
        reason: String,
    },

    /// The downloaded archive violates the format, or has an entry that is never restored.
    #[error(
        "the downloaded archive is refused at byte {offset}{}: {reason}; nothing was changed. {}",
        entry_name(.entry), what_to_do(.entry.as_ref())
    )]
    ArchiveInvalid {
        /// The offset of the entry's header.
        offset: u64,
        /// The entry's name, if it has one.
        entry: Option<String>,
        /// What is wrong with it.
        reason: String,
    },

    /// A path that leads out of the folder that it belongs in, or that no file system can have.
    #[error("unsafe path {}: {reason}", quoted(path))]
    UnsafePath {
        /// The path as it was given.
        path: String,
        /// The offset of the entry in an archive, if it came from one.
        offset: Option<u64>,
        /// What makes it unsafe, and what to do.
        reason: String,
    },

    /// The sandbox is not the one that was uploaded to, or something else was uploaded to it since.
    #[error(
        "the sandbox no longer has what was uploaded to it: {reason}; nothing was changed. Prepare again to go on"
    )]
    SandboxReplaced {
        /// What shows that.
        reason: &'static str,
    },

    /// A tree that grows too large by following its links.
    #[error(
        "following links makes {names} names of {entries} files and folders, the last of them through '{}'; exclude that \
         link, or pass followSymlinks: false", link.display()
    )]
    LinksMultiply {
        /// The link that was followed last.
        link: PathBuf,
        /// How many names had been found.
        names: usize,
        /// The number of files and folders that they name.
        entries: usize,
    },

    /// Another folder, or a link, has taken the place of the local workspace.
    #[error(
        "'{}' is no longer the directory that was uploaded: another directory, or a symlink, is in its place; nothing was \
         changed. Put the workspace back and restore again", path.display()
    )]
    WorkspaceReplaced {
        /// The workspace.
        path: PathBuf,
    },

    /// No earlier prepare can be resumed.
    #[error(
        "there is nothing to resume of '{remote_dir}' in the sandbox: {reason}; nothing was changed. Check that PAPERCLIP_HOME, \
         XDG_CACHE_HOME and HOME are those of the process that prepared it. A new prepare empties that directory: copy what the \
         agent did out of it first"
    )]
    NothingToResume {
        /// The workspace's directory in the sandbox.
        remote_dir: String,
        /// Why.
        reason: &'static str,
    },

    /// Another process held the workspace's merge lock for too long.
    #[error(
        "timed out after {waited_s} s waiting for the workspace restore lock at {}{}; nothing was changed. \
         If no restore is running there, remove that folder and try again",
        lock.display(), holder.map_or(String::new(), |pid| format!(", held by process {pid}"))
    )]
    LockTimeout {
        /// The lock folder.
        lock: PathBuf,
        /// The process that its `owner.json` names.
        holder: Option<u32>,
        /// How long the caller waited, in seconds.
        waited_s: u64,
    },

    /// No thread can be created. Its code is the operating system's own (`EAGAIN`).
    #[error("no thread can be made: {0} ({NO_THREAD})")]
    NoThread(io::Error),

    /// A client's method returned something that cannot be used.
    #[error("client.readFile() {reason}; nothing was changed")]
    InvalidReturnValue {
        /// What is wrong with the answer, and what it must be.
        reason: String,
    },

    /// An argument has the wrong type.
    #[error("The \"{argument}\" argument {expected}")]
    InvalidArgType {
        /// The argument, as the caller knows it (`input.adapterKey`).
        argument: String,
        /// What it must be, and what it was.
        expected: String,
    },

    /// An argument has a value that cannot be used.
    #[error("The argument '{argument}' is invalid: {reason}. Received {received:?}")]
    InvalidArgValue {
        /// The argument, as the caller knows it (`input.adapterKey`).
        argument: String,
        /// What is wrong with it, and what to pass.
        reason: String,
        /// The value.
        received: String,
    },

    /// Content of an archive is needed that was not staged when it was read, and no local file has it.
    ///
    /// This never reaches a caller: the archive is read again, and every file of it staged.
    #[error("internal error: content is needed that was not staged; please report it")]
    NotStaged,

    /// What was downloaded was packed by another command in the sandbox, meanwhile.
    #[error(
        "the downloaded archive is not the one that this restore had packed: another restore or prepare of this sandbox has \
         replaced it; nothing was changed. Restore again once that has ended"
    )]
    OthersDownload,

    /// Objects of a repository are missing here that the upload had.
    ///
    /// This never reaches a caller: everything is downloaded again, with the packs that were sent.
    #[error("internal error: objects are missing that were sent; please report it")]
    LackingObjects,

    /// A sandbox's list of its changes does not match the archive that came with it.
    ///
    /// This never reaches a caller: everything is downloaded instead.
    #[error("internal error: the changes of a sandbox contradict each other; please report it")]
    ContradictoryChanges,

    /// The caller has cancelled the operation.
    #[error("the operation was aborted")]
    Aborted,

    /// A worker thread failed, which is a defect of this library.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

/// A state of a file or folder that prevents the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It was there before, and is gone.
    Vanished,
    /// Something else is at its path.
    Occupied,
    /// It was changed at every attempt.
    KeepsChanging,
    /// It is a mount point, or contains one.
    MountPoint,
    /// It is on another file system and cannot be moved from there.
    OtherFileSystem,
    /// Something was added to a folder that had been emptied.
    NotEmpty,
    /// Only its owner may change its content, and this process runs as another user.
    NotWritable,
    /// It got a further name (hard link), whose content or mode must not change.
    FurtherName,
    /// A link leads to a link, and so on, too often.
    Links,
    /// It could not be read, and the system did not say why.
    Unreadable,
}

impl Obstacle {
    /// Node's code for it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Vanished => "ENOENT",
            Self::Occupied => "EEXIST",
            Self::KeepsChanging | Self::MountPoint => "EBUSY",
            Self::OtherFileSystem => "EXDEV",
            Self::NotEmpty => "ENOTEMPTY",
            Self::NotWritable => "EACCES",
            Self::FurtherName => "EMLINK",
            Self::Links => "ELOOP",
            Self::Unreadable => "EIO",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Vanished => "it is no longer there",
            Self::Occupied => "something else is there",
            Self::KeepsChanging => "it is changed again and again by something else",
            Self::MountPoint => "it is a mount point, or one is in it",
            Self::OtherFileSystem => "it is on another file system",
            Self::NotEmpty => "something was added to it in between",
            Self::NotWritable => "this user may not write to it",
            Self::FurtherName => "the file got a further name in between",
            Self::Links => "it leads through too many links",
            Self::Unreadable => "it could not be read",
        }
    }

    /// The failure of `syscall` on `path`.
    pub fn at(self, syscall: &'static str, path: impl AsRef<Path>) -> Error {
        Error::Obstructed { obstacle: self, syscall, path: path.as_ref().to_path_buf(), hints: Vec::new() }
    }
}

/// What to do about [`Error::NoThread`].
pub const NO_THREAD: &str = "nothing was changed; the process, its user or its container has as many threads as its \
    limit allows (ulimit -u, pids.max), or too little memory: raise the limit or end other work, and try again";

fn advice(hints: &[&'static str]) -> String {
    if hints.is_empty() { String::new() } else { format!(" ({})", hints.join("; ")) }
}

#[expect(clippy::ref_option, reason = "thiserror hands fields over by reference")]
fn entry_name(entry: &Option<String>) -> String {
    entry.as_ref().map_or(String::new(), |name| format!(", entry {}", quoted(name)))
}

/// What a caller can do about an archive that is refused.
fn what_to_do(entry: Option<&String>) -> &'static str {
    match entry {
        Some(_) => "Remove or rename that entry in the sandbox, and restore again",
        None => "Restore again; if it recurs, look for a client or a proxy that alters the file",
    }
}

impl Error {
    /// The stable code. Empty for a failed system call: Node derives the name from [`Error::errno`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::NoThread(_) => "",
            Self::Obstructed { obstacle, .. } => obstacle.code(),
            Self::ArchiveTruncated { .. } => "ERR_SANDBOX_ARCHIVE_TRUNCATED",
            Self::ArchiveInvalid { .. } | Self::OthersDownload => "ERR_SANDBOX_ARCHIVE_INVALID",
            Self::UnsafePath { .. } => "ERR_SANDBOX_UNSAFE_PATH",
            Self::SandboxReplaced { .. } => "ERR_SANDBOX_REPLACED",
            Self::LinksMultiply { .. } => "ERR_SANDBOX_UNSUPPORTED",
            Self::WorkspaceReplaced { .. } => "ERR_WORKSPACE_REPLACED",
            Self::NothingToResume { .. } => "ERR_SANDBOX_NOTHING_TO_RESUME",
            Self::LockTimeout { .. } => "ERR_WORKSPACE_RESTORE_LOCK_TIMEOUT",
            Self::InvalidReturnValue { .. } => "ERR_INVALID_RETURN_VALUE",
            Self::InvalidArgType { .. } => "ERR_INVALID_ARG_TYPE",
            Self::InvalidArgValue { .. } => "ERR_INVALID_ARG_VALUE",
            Self::Aborted => "ABORT_ERR",
            Self::NotStaged | Self::ContradictoryChanges | Self::LackingObjects | Self::Internal(_) => {
                "ERR_SANDBOX_INTERNAL"
            }
        }
    }

    /// The operating system's error number, for a failed system call.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::NoThread(source) => source.raw_os_error(),
            _ => None,
        }
    }

    /// The failure of `syscall` on `path`.
    pub fn io(syscall: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io { syscall, path: path.as_ref().to_path_buf(), source: source.into(), hints: Vec::new() }
    }

    /// The same error with a hint on what was changed or what to do. Hints are in the order in which they
    /// were added.
    #[must_use]
    pub fn with_hint(mut self, text: &'static str) -> Self {
        match &mut self {
            Self::Io { hints, .. } | Self::Obstructed { hints, .. } => hints.push(text),
            Self::UnsafePath { reason, .. } => {
                reason.push_str("; ");
                reason.push_str(text);
            }
            _ => {}
        }
        self
    }

    /// The same error, reported for another path: the one that the caller knows.
    #[must_use]
    pub fn about(mut self, other: PathBuf) -> Self {
        if let Self::Io { path, .. } | Self::Obstructed { path, .. } = &mut self {
            *path = other;
        }
        self
    }

    /// Whether this is a failed system call of that kind.
    #[must_use]
    pub fn is_io(&self, kind: io::ErrorKind) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == kind)
    }
}

/// Shows bytes that should be text: as text if they are, with `\xNN` for other bytes.
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")
                .unwrap_or_else(|fmt::Error| unreachable!("a String takes everything"));
        }
    }
    out
}

/// How many characters of what a sandbox sent a message shows at most.
const SHOWN_MAX: usize = 200;

/// Shows bytes that came from a sandbox: like [`readable`], but with control characters escaped, and
/// shortened. Every message that quotes a sandbox uses this, because the bytes may be gigabytes, and a
/// terminal obeys control characters.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    // A character has at most four bytes; one more character shows that the text goes on.
    let begins = &bytes[..bytes.len().min((SHOWN_MAX + 1) * 4)];
    let mut out = String::new();
    let mut count = 0;
    for chunk in begins.utf8_chunks() {
        let valid = chunk.valid().chars().map(escaped);
        for piece in valid.chain(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"))) {
            count += piece.chars().count();
            if count > SHOWN_MAX {
                out.push('\u{2026}');
                return out;
            }
            out.push_str(&piece);
        }
    }
    out
}

/// A character for a message, escaped if it is not printable.
#[must_use]
pub fn escaped(character: char) -> String {
    match character {
        '"' | '\'' | '\\' => character.into(),
        _ => character.escape_debug().to_string(),
    }
}

/// A name in quotation marks, on one line.
fn quoted(name: &str) -> String {
    let name: String = name.chars().map(escaped).collect();
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_from_a_sandbox_are_shortened_and_escaped() {
        for (bytes, text) in [
            (&b"plain"[..], "plain"),
            ("caf\u{e9} \"\u{1f980}\" it's".as_bytes(), "caf\u{e9} \"\u{1f980}\" it's"),
            (b"caf\xe9", "caf\\xe9"),
            (b"a\nb\x1b[2J\x07", "a\\nb\\u{1b}[2J\\u{7}"),
            ("\u{202e}txt.exe\u{200b}".as_bytes(), "\\u{202e}txt.exe\\u{200b}"),
            (b"back\\slash", "back\\slash"),
            (b"", ""),
        ] {
            assert_eq!(shown(bytes), text);
        }
        for byte in [b'x', 0xff, b'\n', 0xf0] {
            let long = shown(&vec![byte; 1_000_000]);
            let length = long.chars().count();
            assert!(long.ends_with('\u{2026}') && (190..=SHOWN_MAX + 1).contains(&length), "{long}");
        }
        let exact = "\u{1f980}".repeat(SHOWN_MAX);
        assert_eq!(shown(exact.as_bytes()), exact);
        assert_eq!(shown((exact.clone() + "x").as_bytes()), exact + "\u{2026}");
    }

    #[test]
    fn a_name_in_a_message_is_on_one_line() {
        let error =
            Error::UnsafePath { path: "a\nb \\xff".to_owned(), offset: None, reason: "so".to_owned() };
        assert_eq!(error.to_string(), "unsafe path \"a\\nb \\xff\": so");
    }
}
