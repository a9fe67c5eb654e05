//! The tools that a sandbox may have, by their origin.

use std::path::{Path, PathBuf};

/// The origin of a sandbox's tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian's: dash and GNU tools.
    Dash,
    /// The same with bash.
    Bash,
    Busybox,
    /// Dash, with all other tools from toybox, which has no shell.
    Toybox,
    /// Dash with bsdtar.
    Bsdtar,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Dash, Self::Bash, Self::Busybox, Self::Toybox, Self::Bsdtar];

    pub fn program(self, tool: &str) -> &str {
        match (self, tool) {
            (Self::Busybox, _) => "busybox",
            (Self::Bash, "sh") => "bash",
            (_, "sh") => "dash",
            // Debian's toybox has none; a sandbox has Debian's beside it.
            (Self::Toybox, "awk") => "mawk",
            (Self::Toybox, _) => "toybox",
            (Self::Bsdtar, "tar") => "bsdtar",
            _ => tool,
        }
    }

    /// Whether it has a tool at all.
    pub fn has(self, tool: &str) -> bool {
        match self {
            Self::Toybox => !matches!(tool, "dd" | "gzip" | "zstd"),
            // Debian builds it without cksum.
            Self::Busybox => !matches!(tool, "zstd" | "cksum"),
            _ => true,
        }
    }

    /// Puts a tool of this machine into a folder.
    pub fn install(self, tool: &str, into: &Path) {
        std::os::unix::fs::symlink(installed(self.program(tool)), into.join(tool)).unwrap();
    }
}

/// The path of a program of this machine.
pub fn installed(program: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is not installed"))
}
