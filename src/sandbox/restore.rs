//! The sandbox's workspace → merged into the local one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

use super::answer::{Answer, is_another_without_mark};
use super::client::{RunError, SandboxClient, blocking};
use super::prepare::{Base, LeftAlone, Session};
use super::{command, listing};
use crate::archive::source::{Bytes, copy_of};
use crate::archive::unpack::{Archive, Content, Unpacked, unpack};
use crate::cancel::Cancel;
use crate::error::{Error, Result, readable};
use crate::exclude::PathSet;
use crate::merge::incoming::{Incoming, UNCHANGED};
use crate::merge::lock::{self, MergeLock};
use crate::merge::report::{Report, Rescued, Skipped};
use crate::merge::session::{Merge, Terms};
use crate::path::RelativePath;
use crate::tree::entry::{Entry, PERMISSIONS};

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

/// How a sandbox shows that it is another one.
const ANOTHER_UPLOAD: &str = "its mark is that of another upload; another prepare has replaced the workspace there, or an \
     older state of the sandbox was brought back";
const NOTHING_LEFT: &str =
    "its mark is gone, and so is all that was uploaded; the sandbox, or its disk, was replaced";

/// Why a path is left alone that the sandbox never had as it was packed.
const LOST: &str = "the sandbox did not have it as it was uploaded, right after the upload: its disk or its tar cannot hold \
     it, or a process there was faster";

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
        let archive = self.places.download();

        let started = Instant::now();
        let packed = self.pack_remotely(client).await?;
        phases.push(Phase { name: "run", took: started.elapsed(), bytes: 0 });

        let started = Instant::now();
        let download = client.read_file(&archive).await.map_err(RunError::Client)?;
        let bytes = download.size();
        phases.push(Phase { name: "download", took: started.elapsed(), bytes });
        // What stays there is overwritten by the next download, and cleared with the sandbox.
        let _left_behind = client.remove(&archive).await;

        let (workspace, left_alone, preserve, stop) =
            (self.workspace.clone(), self.left_alone.clone(), self.preserve.clone(), cancel.clone());
        let places = self.places.clone();
        let begun = blocking(move || {
            let started = Instant::now();
            let checked = check(&download, &base, &left_alone, &places.answer()).and_then(|mut archive| {
                let control = archive.control.take();
                let answer = Answer::parse(control.as_deref());
                if answer.names_another(places.upload_id()) {
                    return Err(Error::SandboxReplaced { reason: ANOTHER_UPLOAD });
                }
                base.take_in(answer, &archive, &preserve);
                base.adjust(&mut archive);
                let root = workspace.open()?;
                let partly = packed.may_lack_something(&archive, &left_alone);
                base.with_terms(&left_alone, &stop, |terms, lost, rescued| {
                    Merge::begin(root, terms, rescued, |root| {
                        let mut incoming =
                            Incoming::from_archive(archive, &download, terms.base, root, &stop)?;
                        if answer.mark.is_none() && is_another_without_mark(terms.base, &incoming.snapshot) {
                            // The refusal is what to report; the next restore clears up what stays.
                            let _stays = incoming.stage.close(root);
                            return Err(Error::SandboxReplaced { reason: NOTHING_LEFT });
                        }
                        incoming.keep_untold(terms.base, partly);
                        let lost = lost.paths().map(|path| Skipped { path: path.clone(), reason: LOST });
                        incoming.skipped.extend(lost);
                        Ok(incoming)
                    })
                })
            });
            // The bytes are the client's again, whatever comes.
            drop(download);
            phases.push(Phase { name: "check", took: started.elapsed(), bytes });
            Ok(Begun { merge: checked?, base, left_alone, packed, phases })
        });
        let mut begun = begun.await?;

        let started = Instant::now();
        // Where the sandbox changed nothing there is nothing to lock for.
        if begun.merge.needs_lock() {
            match MergeLock::acquire(begun.merge.target(), lock::WAIT, cancel).await {
                Ok(lock) => begun.merge.hold(lock),
                Err(error) => {
                    let given_up = blocking(move || {
                        let Begun { merge, mut base, .. } = begun;
                        // The failure that led here is the one to report.
                        let (_theirs, _closed) = merge.finish(&mut base.rescued);
                        Ok(())
                    });
                    given_up.await?;
                    return Err(error.with_hint(UNCHANGED).into());
                }
            }
        }
        let stop = cancel.clone();
        let restored = blocking(move || {
            let Begun { mut merge, mut base, left_alone, packed, mut phases } = begun;
            let entries = merge.entries();
            let report = base.with_terms(&left_alone, &stop, |terms, _, rescued| merge.apply(terms, rescued));
            // The merge is what counts; the next one clears up what is left of this one.
            let (theirs, _left) = merge.finish(&mut base.rescued);
            let report = report?;
            base.snapshot = theirs;
            phases.push(Phase { name: "apply", took: started.elapsed(), bytes: 0 });
            let tar_messages = match packed {
                Packed::Whole => None,
                // The first line is the exit status.
                Packed::Partly(told) => {
                    Some(told.splitn(2, |&byte| byte == b'\n').nth(1).map_or_else(String::new, readable))
                }
            };
            Ok(Restored { report, entries, tar_messages, phases })
        })
        .await?;
        Ok(restored)
    }

    /// Has the sandbox pack its workspace. Where its tar fails, a second way tolerates what could not be read, and
    /// says so; where that fails as well, the first failure is the one to report.
    async fn pack_remotely<C: SandboxClient>(&self, client: &C) -> Result<Packed, RunError<C::Failure>> {
        let Err(failure) = client.run(&command::download(&self.places)).await else {
            return Ok(Packed::Whole);
        };
        let status = self.places.status();
        if client.run(&command::tolerant_download(&self.places)).await.is_err() {
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

/// A restore whose download has been checked and staged.
struct Begun {
    merge: Merge,
    base: OwnedMutexGuard<Base>,
    left_alone: Arc<LeftAlone>,
    packed: Packed,
    phases: Vec<Phase>,
}

impl Base {
    /// Does a step of the merge by what it goes by.
    fn with_terms<T>(
        &mut self,
        left_alone: &LeftAlone,
        cancel: &Cancel,
        step: impl FnOnce(&Terms<'_>, &PathSet, &mut Rescued) -> T,
    ) -> T {
        let Self { snapshot: base, lost, rescued, keep, .. } = self;
        let keep = *keep;
        let left_alone = |path: &RelativePath| left_alone.covers(path) || lost.contains_or_covers(path);
        step(&Terms { base, left_alone: &left_alone, keep, cancel }, lost, rescued)
    }

    /// Takes over what the sandbox says of what the extraction left there. Only what the first answer says is believed: by
    /// the next one, an agent has been there.
    fn take_in(&mut self, answer: Answer<'_>, archive: &Archive, preserve: &PathSet) {
        if self.sent.is_empty() {
            return;
        }
        if answer.mark.is_none() {
            // The agent removed what the sandbox had to say. What is there is not lost.
            let is_missing = |path: &RelativePath| archive.get(path).is_none();
            self.lost = PathSet::of(listing::doubtful(&self.sent).into_iter().filter(is_missing));
        } else {
            let sent = std::mem::take(&mut self.sent);
            let Some(list) = answer.list else { return };
            let found = listing::compare(&sent, list, preserve);
            self.modes = found.modes.into_iter().collect();
            self.lost = PathSet::of(found.lost);
        }
        self.snapshot.retain(|path, _| !self.lost.contains_or_covers(path));
    }

    /// Takes from a download what the sandbox never had as it was packed, and takes the modes that the sandbox has by itself
    /// for those that were packed.
    fn adjust(&self, archive: &mut Archive) {
        archive.entries.retain(|entry| !self.lost.contains_or_covers(&entry.path));
        if self.modes.is_empty() {
            return;
        }
        for Unpacked { path, content, .. } in &mut archive.entries {
            let (Content::Dir { mode: Some(mode) } | Content::File { mode, .. }) = content else { continue };
            let base = match self.snapshot.get(path) {
                Some(Entry::Dir { mode: Some(base) } | Entry::File { mode: base, .. }) => *base,
                _ => continue,
            };
            if self.modes.get(path) == Some(&(*mode & PERMISSIONS)) {
                *mode = *mode & !PERMISSIONS | base & PERMISSIONS;
            }
        }
    }
}

/// Checks the whole download.
fn check(download: &dyn Bytes, base: &Base, left_alone: &LeftAlone, answer: &str) -> Result<Archive> {
    let base = &base.snapshot;
    // Nothing at all is how some tars write an empty archive, and read it.
    if download.size() == 0 && base.is_empty() {
        return Ok(Archive::default());
    }
    let answer = RelativePath::parse(answer.as_bytes()).ok().flatten();
    let archive = unpack(download, answer.as_ref(), &|path| left_alone.covers(path))?;
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
