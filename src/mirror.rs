//! One folder made equal to another.
//!
//! Everything that can fail on the source's side happens first: it is read as a whole, and what the target lacks is
//! copied into a folder of its own inside the target. Only then is anything removed or renamed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::exclude::PathSet;
use crate::path::RelativePath;
use crate::tree::root::{Cursor, Kind, Meta, Onto, Renamed, Root, rename, set_file_mode};
use crate::tree::scan::{CHUNK, Found, scan};
use crate::tree::stage::remove_tree;
use crate::tree::twins::{folds_names, suspects};

/// How the folder in the target is named in which new content waits.
const STAGE_PREFIX: &str = ".paperclip-mirror-";

/// What a failure says before the first change, and after it.
const UNTOUCHED: &str = "the target was left as it was";
const BEGUN: &str = "the target was being changed: every file in it is whole, and the same call completes it";

/// Makes `target` equal to `source`, but for what `preserve` names.
pub fn mirror(source: &Path, target: &Path, preserve: &PathSet, cancel: &Cancel) -> Result<()> {
    let from = Root::open(source)?;
    refuse_overlap(source, target)?;
    let wanted: Vec<Found> =
        scan(&from, &|_| false, cancel)?.into_iter().filter(|found| found.meta.kind != Kind::Other).collect();
    let is_new = !target.exists();
    let to = Root::create(target)?;
    let mirrored = make_equal(&from, &wanted, &to, preserve, cancel);
    if is_new && mirrored.is_err() {
        // The failure is what to report; a folder that is not empty shows how far it came.
        let _empty = std::fs::remove_dir(target);
    }
    mirrored
}

fn make_equal(from: &Root, wanted: &[Found], to: &Root, preserve: &PathSet, cancel: &Cancel) -> Result<()> {
    let target = to.path();
    let present = scan(to, &|_| false, cancel)?;
    let plan = Plan::new(wanted, &present, preserve, target)?;
    let stage = make_stage(to)?;
    let mirrored = to.below(&stage).and_then(|staged| {
        refuse_twins(wanted, &present, preserve, to, &staged, cancel)
            .map_err(|error| error.with_hint(UNTOUCHED))?;
        let pieces =
            stage_all(&plan, from, to, &staged, cancel).map_err(|error| error.with_hint(UNTOUCHED))?;
        cancel.check()?;
        apply(&plan, &pieces, to, &staged).map_err(|error| error.with_hint(BEGUN))
    });
    let cleaned = remove_tree(to, &stage);
    mirrored?;
    cleaned
}

/// A new folder in the target. One that a killed mirror left is in no source, and so the next one removes it.
fn make_stage(to: &Root) -> Result<RelativePath> {
    let mut cursor = to.cursor();
    for serial in 0.. {
        let name = format!("{STAGE_PREFIX}{}-{serial}", std::process::id());
        let stage = RelativePath::child(None, name.as_bytes());
        if cursor.make_dir(&stage, 0o700)? {
            return Ok(stage);
        }
    }
    unreachable!("there are more numbers than files")
}

/// Where one folder lies in the other, what is copied would be what was copied before.
fn refuse_overlap(source: &Path, target: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().map_err(|error| Error::io("realpath", path, error));
    let source_path = real(source)?;
    // The target may not exist yet; what counts is where it would be made.
    let absolute = std::path::absolute(target).map_err(|error| Error::io("realpath", target, error))?;
    let mut existing: &Path = &absolute;
    let mut missing = PathBuf::new();
    let target_path = loop {
        match existing.canonicalize() {
            Ok(path) => break path.join(missing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("realpath", existing, error)),
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            break absolute.clone();
        };
        missing = Path::new(name).join(missing);
        existing = parent;
    };
    let target_path: PathBuf = target_path.components().collect();
    let relation = if source_path == target_path {
        "it is the source folder itself"
    } else if target_path.starts_with(&source_path) {
        "it lies inside the source folder"
    } else if source_path.starts_with(&target_path) {
        "the source folder lies inside it"
    } else {
        return Ok(());
    };
    Err(Error::InvalidArgValue {
        argument: "targetDir".to_owned(),
        reason: format!("{relation}; mirror between two separate folders"),
        received: target.display().to_string(),
    })
}

/// Fails where the target's volume takes two names that it is to hold for one: one of the two would be lost. The stage is
/// on that volume, so what it says there of empty files holds for the target, but for folders that are mounts of their own
/// or have a mind of their own.
fn refuse_twins(
    wanted: &[Found],
    present: &[Found],
    preserve: &PathSet,
    to: &Root,
    stage: &Root,
    cancel: &Cancel,
) -> Result<()> {
    let mut cursor = stage.cursor();
    if !folds_names(&mut cursor)? {
        return Ok(());
    }
    let stays = |path: &RelativePath| preserve.contains_or_covers(path) || preserve.is_above(path);
    let mut paths: Vec<_> = wanted.iter().map(|found| &found.path).collect();
    paths.extend(present.iter().map(|found| &found.path).filter(|path| stays(path)));
    paths.sort_unstable_by_key(|path| path.split());
    paths.dedup();
    let stand: HashSet<_> = present.iter().map(|found| &found.path).collect();
    let probe = RelativePath::child(None, b"probe");
    for paths in paths.chunk_by(|one, other| one.split().0 == other.split().0) {
        // What stands side by side is told apart.
        if paths.iter().all(|path| stand.contains(path)) {
            continue;
        }
        let suspects = suspects(paths);
        if suspects.is_empty() {
            continue;
        }
        cursor.make_dir(&probe, 0o700)?;
        for path in suspects {
            cancel.check()?;
            let in_probe = RelativePath::child(Some(&probe), path.name().as_encoded_bytes());
            if cursor.stat(&in_probe).map_err(|error| error.about(to.path_of(path)))?.is_some() {
                return Err(Error::InvalidArgValue {
                    argument: "targetDir".to_owned(),
                    reason: format!(
                        "its volume takes the name of '{path}' for that of another entry beside it, in the source or \
                         preserved, and cannot hold both. Rename one of the two, or mirror to another volume; {UNTOUCHED}"
                    ),
                    received: to.path().display().to_string(),
                });
            }
            cursor.create(&in_probe, 0o600).map_err(|error| error.about(to.path_of(path)))?;
        }
        remove_tree(stage, &probe)?;
    }
    Ok(())
}

/// What a mirror has to do, found by comparing two lists in the same order.
struct Plan<'a> {
    /// What is in the target and goes, outermost first.
    extra: Vec<&'a Found>,
    /// Folders that the target lacks, outermost first.
    folders: Vec<&'a Found>,
    /// Files and links that the target lacks or may have differently.
    leaves: Vec<(&'a Found, Option<&'a Found>)>,
    /// Folders whose mode differs or that are new, outermost first.
    modes: Vec<&'a Found>,
}

impl<'a> Plan<'a> {
    fn new(wanted: &'a [Found], present: &'a [Found], preserve: &PathSet, target: &Path) -> Result<Self> {
        let mut plan = Self { extra: Vec::new(), folders: Vec::new(), leaves: Vec::new(), modes: Vec::new() };
        let (mut wanted, mut present) = (wanted.iter().peekable(), present.iter().peekable());
        loop {
            let order = match (wanted.peek(), present.peek()) {
                (None, None) => return Ok(plan),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(left), Some(right)) => left.path.cmp(&right.path),
            };
            let here = if order.is_ge() { present.next() } else { None };
            let there = if order.is_le() { wanted.next() } else { None };
            let is_dir = |found: Option<&Found>| found.is_some_and(|found| found.meta.kind == Kind::Dir);
            if let Some(here) = here {
                let gone = there.is_none() && !preserve.contains_or_covers(&here.path);
                let in_the_way = there.is_some() && is_dir(Some(here)) != is_dir(there);
                let holds_preserved = here.meta.kind == Kind::Dir && preserve.is_above(&here.path);
                if in_the_way && holds_preserved {
                    return Err(Error::InvalidArgValue {
                        argument: "options.preserveAbsent".to_owned(),
                        reason: format!(
                            "it names something below '{}', which is no folder in the source; nothing was changed. \
                             Move it away, or do not preserve it",
                            target.join(here.path.as_path()).display()
                        ),
                        received: here.path.to_string(),
                    });
                }
                if in_the_way || (gone && !holds_preserved) {
                    plan.extra.push(here);
                }
            }
            let Some(there) = there else { continue };
            match (there.meta.kind, here) {
                (Kind::Dir, Some(here)) if is_dir(Some(here)) => {
                    if here.meta.mode != there.meta.mode {
                        plan.modes.push(there);
                    }
                }
                (Kind::Dir, _) => {
                    plan.folders.push(there);
                    plan.modes.push(there);
                }
                _ => plan.leaves.push((there, here.filter(|here| here.meta.kind != Kind::Dir))),
            }
        }
    }
}

/// What is to be done with one file or link once everything is staged.
enum Piece {
    /// It is the same already.
    Same,
    /// Only its mode differs.
    Mode(u32),
    /// It waits in the stage by that name.
    Staged(RelativePath),
}

fn stage_all(plan: &Plan<'_>, from: &Root, to: &Root, stage: &Root, cancel: &Cancel) -> Result<Vec<Piece>> {
    // Some folders, since names in one are made one after the other.
    for bucket in 0..BUCKETS {
        stage.cursor().make_dir(&bucket_name(bucket), 0o700)?;
    }
    plan.leaves
        .par_iter()
        .enumerate()
        .map_init(
            || Copier {
                from: from.cursor(),
                to: to.cursor(),
                stage: stage.cursor(),
                buffers: Default::default(),
            },
            |copier, (at, (there, here))| {
                cancel.check()?;
                copier.piece(at, there, *here)
            },
        )
        .collect()
}

/// How many folders the stage is spread over.
const BUCKETS: usize = 16;

fn bucket_name(bucket: usize) -> RelativePath {
    RelativePath::child(None, format!("{bucket:x}").as_bytes())
}

struct Copier<'a> {
    from: Cursor<'a>,
    to: Cursor<'a>,
    stage: Cursor<'a>,
    buffers: [Vec<u8>; 2],
}

impl Copier<'_> {
    fn piece(&mut self, at: usize, there: &Found, here: Option<&Found>) -> Result<Piece> {
        let name = RelativePath::child(Some(&bucket_name(at / 64 % BUCKETS)), at.to_string().as_bytes());
        if let Some(target) = &there.target {
            if here.is_some_and(|here| here.target.as_ref() == Some(target)) {
                return Ok(Piece::Same);
            }
            self.stage.symlink(target, &name)?;
            return Ok(Piece::Staged(name));
        }
        let Some((mut file, meta)) = self.from.open(&there.path)? else {
            return Err(Error::io("open", self.from.path_of(&there.path), rustix::io::Errno::NOENT)
                .with_hint("it vanished while it was read"));
        };
        if here.is_some_and(|here| here.meta.kind == Kind::File && here.meta.size == meta.size)
            && let Some((mut old, old_meta)) = self.to.open(&there.path)?
        {
            if self.same_content(&mut file, &mut old, &there.path)? {
                let same_mode = old_meta.mode == meta.mode;
                return Ok(if same_mode { Piece::Same } else { Piece::Mode(meta.mode) });
            }
            io::Seek::rewind(&mut file)
                .map_err(|error| Error::io("lseek", self.from.path_of(&there.path), error))?;
        }
        let mut copy = self.stage.create(&name, 0o600)?;
        self.copy(&mut file, &meta, &mut copy, &there.path, &name)?;
        set_file_mode(&copy, meta.mode)
            .map_err(|error| Error::io("fchmod", self.stage.path_of(&name), error))?;
        Ok(Piece::Staged(name))
    }

    /// Compares two files byte by byte: no digest is needed where both are at hand.
    fn same_content(&mut self, a: &mut File, b: &mut File, path: &RelativePath) -> Result<bool> {
        let [left, right] = &mut self.buffers;
        left.resize(CHUNK, 0);
        right.resize(CHUNK, 0);
        loop {
            let read_a =
                read_full(a, left).map_err(|error| Error::io("read", self.from.path_of(path), error))?;
            let read_b =
                read_full(b, right).map_err(|error| Error::io("read", self.to.path_of(path), error))?;
            if left[..read_a] != right[..read_b] {
                return Ok(false);
            }
            if read_a < left.len() {
                return Ok(true);
            }
        }
    }

    fn copy(
        &mut self,
        file: &mut File,
        meta: &Meta,
        copy: &mut File,
        path: &RelativePath,
        name: &RelativePath,
    ) -> Result<()> {
        let buffer = &mut self.buffers[0];
        buffer.resize(CHUNK, 0);
        if meta.size > buffer.len() as u64 {
            // Linux copies in the kernel, or shares the blocks, where it can; macOS reads and writes (docs/releasing.md).
            return io::copy(file, copy).map(|_| ()).map_err(|error| {
                let is_of_the_copy = matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
                );
                let (cursor, path) = if is_of_the_copy { (&self.stage, name) } else { (&self.from, path) };
                Error::io("copyfile", cursor.path_of(path), error)
            });
        }
        loop {
            let read =
                read_full(file, buffer).map_err(|error| Error::io("read", self.from.path_of(path), error))?;
            io::Write::write_all(copy, &buffer[..read])
                .map_err(|error| Error::io("write", self.stage.path_of(name), error))?;
            if read < buffer.len() {
                return Ok(());
            }
        }
    }
}

/// Fills the buffer as far as the file reaches.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn apply(plan: &Plan<'_>, pieces: &[Piece], to: &Root, stage: &Root) -> Result<()> {
    let mut cursor = to.cursor();
    for found in plan.extra.iter().rev() {
        // What somebody put into a folder meanwhile goes with it, as the source does not have it.
        remove_tree(to, &found.path)?;
    }
    for found in &plan.folders {
        cursor.make_dir(&found.path, 0o700)?;
    }
    plan.leaves.par_iter().zip(pieces).try_for_each_init(
        || (to.cursor(), stage.cursor()),
        |(cursor, staged), ((found, _), piece)| match piece {
            Piece::Same => Ok(()),
            Piece::Mode(mode) => match cursor.open(&found.path)? {
                Some((file, _)) => set_file_mode(&file, *mode)
                    .map_err(|error| Error::io("fchmod", cursor.path_of(&found.path), error)),
                None => Err(Error::io("open", cursor.path_of(&found.path), rustix::io::Errno::NOENT)),
            },
            Piece::Staged(name) => match rename((staged, name), (cursor, &found.path), Onto::Replace)? {
                Renamed::Done => Ok(()),
                Renamed::OtherFileSystem => {
                    Err(Error::io("rename", cursor.path_of(&found.path), rustix::io::Errno::XDEV))
                }
                Renamed::MountPoint => {
                    Err(Error::io("rename", cursor.path_of(&found.path), rustix::io::Errno::BUSY)
                        .with_hint("it is a mount point"))
                }
                _ => Err(Error::io("rename", cursor.path_of(&found.path), rustix::io::Errno::NOENT)
                    .with_hint("something else changed the target meanwhile")),
            },
        },
    )?;
    for found in plan.modes.iter().rev() {
        cursor.set_dir_mode(&found.path, found.meta.mode)?;
    }
    Ok(())
}
