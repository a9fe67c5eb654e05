//! The sandbox's workspace → merged into the local one.

use std::time::{Duration, Instant};

use super::client::{RunError, SandboxClient, blocking};
use super::command;
use super::prepare::{Base, LeftAlone, Session};
use crate::archive::source::{Bytes, copy_of};
use crate::archive::unpack::{Archive, Content, Unpacked, unpack};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::merge::apply::merge;
use crate::merge::incoming::Incoming;
use crate::merge::journal;
use crate::merge::lock::{self, MergeLock};
use crate::merge::plan::changed;
use crate::merge::report::{Report, Rescued};
use crate::path::RelativePath;
use crate::tree::entry::Snapshot;
use crate::tree::root::Root;

/// What a restore did, and how long its steps took.
#[derive(Debug)]
pub struct Restored {
    /// Entry by entry.
    pub report: Report,
    /// How many entries the sandbox held.
    pub entries: usize,
    /// What the sandbox's tar said, where it failed and the second, tolerant way was taken.
    pub tar_messages: Option<String>,
    /// The steps in order.
    pub phases: Vec<Phase>,
}

/// One step of a restore.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// `run`, `download`, `check` or `apply`.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The bytes it read, where it read any.
    pub bytes: u64,
}

/// How the sandbox's tar ended.
enum Packed {
    /// It packed everything.
    Whole,
    /// It failed on something; the rest is there. With its exit status in the first line and what it said after that.
    Partly(Vec<u8>),
}

impl Packed {
    /// Whether something may be missing from the archive that it made.
    fn may_lack_something(&self, archive: &Archive, left_alone: &LeftAlone) -> bool {
        match self {
            Self::Whole => false,
            Self::Partly(told) => !complains_only_of_changes(told, archive, left_alone),
        }
    }
}

/// What GNU tar says of a file that somebody writes while it is read, such as a log. Its exit status is 1 then, as if
/// something were missing. It says the same of a folder, and there something may be.
const CHANGED: &[u8] = b": file changed as we read it";

fn complains_only_of_changes(told: &[u8], archive: &Archive, left_alone: &LeftAlone) -> bool {
    let mut lines = told.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).peekable();
    let status = lines.next();
    let is_whole = |line: &[u8]| {
        let name = line.strip_prefix(b"tar: ").and_then(|line| line.strip_suffix(CHANGED));
        let path = name.and_then(unquote).and_then(|name| RelativePath::parse(&name).ok().flatten());
        path.is_some_and(|path| {
            left_alone.covers(&path)
                || matches!(archive.get(&path), Some(Unpacked { content: Content::File { .. }, .. }))
        })
    };
    // What was said beyond what is kept of it is not known.
    let is_all = told.len() < command::MESSAGES_MAX;
    is_all && status == Some(b"1") && lines.peek().is_some() && lines.all(is_whole)
}

/// A name as GNU tar writes it in a message, with what it quotes as itself again. Nothing where that is no such name.
fn unquote(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = name.iter().copied();
    let mut plain = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        plain.push(match bytes.next()? {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            quoted @ (b'\\' | b':') => quoted,
            first @ b'0'..=b'3' => {
                let mut digit =
                    || bytes.next().filter(|digit| (b'0'..=b'7').contains(digit)).map(|digit| digit - b'0');
                (first - b'0') << 6 | digit()? << 3 | digit()?
            }
            _ => return None,
        });
    }
    Some(plain)
}

impl Session {
    /// Brings the sandbox's workspace back. Nothing here is changed before the whole download has been checked, and
    /// on success what the sandbox held becomes the base of the next restore.
    pub async fn restore<C: SandboxClient>(
        &self,
        client: &C,
        cancel: &Cancel,
    ) -> Result<Restored, RunError<C::Failure>> {
        let mut base = self.base.clone().lock_owned().await;
        let mut phases = Vec::new();
        let archive = format!("{}/workspace-download.tar", self.runtime_root);

        let started = Instant::now();
        let packed = self.pack_remotely(client, &archive).await?;
        phases.push(Phase { name: "run", took: started.elapsed(), bytes: 0 });

        let started = Instant::now();
        let download = client.read_file(&archive).await.map_err(RunError::Client)?;
        let bytes = download.size();
        phases.push(Phase { name: "download", took: started.elapsed(), bytes });
        // What stays there is overwritten by the next download, and cleared with the sandbox.
        let _left_behind = client.remove(&archive).await;

        let (workspace, left_alone, cancel) =
            (self.workspace.clone(), self.left_alone.clone(), cancel.clone());
        let restored = blocking(move || {
            let started = Instant::now();
            let Base { snapshot: base, rescued } = &mut *base;
            let checked = check(&download, base, &left_alone).and_then(|archive| {
                let root = Root::create(&workspace)?;
                journal::rescue(&root, rescued)?;
                let partly = packed.may_lack_something(&archive, &left_alone);
                let mut incoming = Incoming::from_archive(archive, &download, base, &root, &cancel)?;
                incoming.keep_untold(base, partly);
                Ok((root, incoming))
            });
            // The bytes are the client's again, whatever comes.
            drop(download);
            let (root, incoming) = checked?;
            phases.push(Phase { name: "check", took: started.elapsed(), bytes });

            let started = Instant::now();
            let entries = incoming.snapshot.len();
            let report = apply(&root, base, &incoming, rescued, &cancel);
            let Incoming { snapshot, stage, .. } = incoming;
            let report = journal::close(&root, stage, report, rescued)?;
            *base = snapshot;
            phases.push(Phase { name: "apply", took: started.elapsed(), bytes: 0 });
            let tar_messages = match packed {
                Packed::Whole => None,
                Packed::Partly(told) => Some(crate::error::readable(&told)),
            };
            Ok(Restored { report, entries, tar_messages, phases })
        })
        .await?;
        Ok(restored)
    }

    /// Has the sandbox pack its workspace. Where its tar fails, a second way tolerates what could not be read, and
    /// says so; where that fails as well, the first failure is the one to report.
    async fn pack_remotely<C: SandboxClient>(
        &self,
        client: &C,
        archive: &str,
    ) -> Result<Packed, RunError<C::Failure>> {
        let command = command::download(&self.runtime_root, &self.remote_dir, archive, &self.exclude);
        let Err(failure) = client.run(&command).await else { return Ok(Packed::Whole) };
        let status = format!("{}/workspace-download.status", self.runtime_root);
        let command =
            command::tolerant_download(&self.runtime_root, &self.remote_dir, archive, &status, &self.exclude);
        if client.run(&command).await.is_err() {
            return Err(RunError::Client(failure));
        }
        let Ok(told) = client.read_file(&status).await else { return Err(RunError::Client(failure)) };
        let told = blocking(move || copy_of(&told, command::MESSAGES_MAX)).await?;
        let packed = match told.split(|&byte| byte == b'\n').next() {
            // This time nothing was in the way.
            Some(b"0") => Packed::Whole,
            _ => Packed::Partly(told),
        };
        // It lies in the run's own folder and is overwritten by the next one.
        let _left_behind = client.remove(&status).await;
        Ok(packed)
    }
}

/// Checks the whole download.
fn check(download: &dyn Bytes, base: &Snapshot, left_alone: &LeftAlone) -> Result<Archive> {
    // Nothing at all is how some tars write an empty archive, and read it.
    if download.size() == 0 && base.is_empty() {
        return Ok(Archive::default());
    }
    let archive = unpack(download, None, &|path| left_alone.covers(path))?;
    if !archive.held_anything && !base.is_empty() {
        return Err(Error::ArchiveInvalid {
            offset: 0,
            entry: None,
            reason: format!(
                "it holds no entry at all, not even './', although {} had been uploaded",
                base.len()
            ),
        });
    }
    Ok(archive)
}

/// Merges under the workspace's lock. Where the sandbox changed nothing there is nothing to lock for.
fn apply(
    root: &Root,
    base: &Snapshot,
    incoming: &Incoming,
    rescued: &mut Rescued,
    cancel: &Cancel,
) -> Result<Report> {
    if changed(base, &incoming.snapshot).next().is_none() {
        let mut report = Report { skipped: incoming.skipped.clone(), ..Report::default() };
        report.take_rescued(rescued);
        return Ok(report);
    }
    let lock = MergeLock::acquire(root.path(), lock::WAIT, cancel)?;
    let merged = merge(root, base, incoming, rescued, cancel);
    // The merge is what counts. A lock that stays is taken over once this process is gone.
    let _stays = lock.release();
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GNU tar is asked how it writes these names in a message.
    #[test]
    #[cfg(target_os = "linux")]
    fn every_name_that_tar_quotes_is_read_as_it_is() {
        use std::os::unix::ffi::OsStrExt as _;
        let every_byte: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
        for name in [
            &b"plain"[..],
            b"12:30",
            b"back\\slash",
            b"\\",
            b"a\\n",
            b" blank ",
            "\u{fc}".as_bytes(),
            &every_byte,
        ] {
            let output = std::process::Command::new("tar")
                .env("LC_ALL", "C")
                .args(["--create", "--file=/dev/null", "--no-unquote", "--"])
                .arg(std::ffi::OsStr::from_bytes(name))
                .output()
                .unwrap();
            let line = output.stderr.split(|&byte| byte == b'\n').next().unwrap();
            let line = line.strip_prefix(b"tar: ").unwrap();
            let quoted =
                line.windows(14).position(|piece| piece == b": Cannot stat:").map(|end| &line[..end]);
            assert_eq!(unquote(quoted.unwrap()).as_deref(), Some(name), "{}", output.stderr.escape_ascii());
        }
        for malformed in [&b"\\"[..], b"a\\x", b"\\1", b"\\18x", b"\\400"] {
            assert_eq!(unquote(malformed), None, "{}", malformed.escape_ascii());
        }
    }
}
