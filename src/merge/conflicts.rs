//! Backups of local versions that a merge replaced, and how long they are kept.
//!
//! They are below `.paperclip-runtime/conflicts/<UTC time>/`, at the path that they had in the workspace.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::report::{Conflict, Skipped};
use crate::cancel::Cancel;
use crate::error::{Error, Obstacle, Result, readable};
use crate::fs::host::is_root;
use crate::fs::{Cursor, File, Kind, Meta, Onto, Renamed, Root, rename, set_file_mode};
use crate::path::RelativePath;
use crate::sync::lock;
use crate::time::{unix_millis, utc_timestamp};
use crate::tree::entry::PERMISSIONS;
use crate::tree::filter::Filter;
use crate::tree::scan::scan;
use crate::tree::stage::{RuntimeFolder, remove_tree, runtime};

/// The name of the folder for backups, in the runtime folder.
const CONFLICTS_FOLDER: &str = "conflicts";

/// How many folders come before the first of a backup's own path: `.paperclip-runtime`, `conflicts` and the
/// one named by the time.
const DEPTH: usize = 3;

/// How many versions of one path a merge can back up.
const VERSIONS: usize = 64;

/// How often a path may change while we work on it before we give up.
pub(super) const ATTEMPTS: usize = 64;

/// The backups of one merge.
#[derive(Debug, Default)]
pub struct Backups {
    /// One folder named by the time, made for the first backup, and another one for each further version of
    /// the same path.
    folders: Mutex<Vec<RelativePath>>,
    made: Mutex<Vec<Conflict>>,
}

/// The outcome of backing up a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackUp {
    /// It is backed up, or it was gone already.
    Done,
    /// It is still where it was: on another file system, from which it can only be copied.
    Elsewhere,
}

impl Backups {
    /// Moves a local version of `path` to the backups.
    ///
    /// A version on another file system has to be copied. That is done only if `is_unreachable` says that nobody
    /// else reaches it by its name any more, because another process could write to it during the copy.
    pub fn back_up(
        &self,
        root: &Root,
        (from, name): (&mut Cursor<'_>, &RelativePath),
        path: &RelativePath,
        is_unreachable: bool,
    ) -> Result<BackUp> {
        let mut cursor = root.cursor();
        for version in 0..VERSIONS {
            let backed_up_at = self.folder(root, version)?.join(path);
            if !make_folders(&mut cursor, &backed_up_at)? {
                continue;
            }
            let moved = match rename((from, name), (&mut cursor, &backed_up_at), Onto::Nothing)? {
                Renamed::Unsupported if cursor.stat(&backed_up_at)?.is_some() => Renamed::Occupied,
                // Nobody else writes into this merge's folder.
                Renamed::Unsupported => rename((from, name), (&mut cursor, &backed_up_at), Onto::Replace)?,
                Renamed::OtherFileSystem if is_unreachable => {
                    copy_across((from, name), (&mut cursor, &backed_up_at))?
                }
                moved => moved,
            };
            match moved {
                Renamed::Done => {
                    lock(&self.made).push(Conflict { path: path.clone(), backed_up_at });
                    return Ok(BackUp::Done);
                }
                Renamed::Absent if from.stat(name)?.is_none() => return Ok(BackUp::Done),
                Renamed::OtherFileSystem if !is_unreachable => return Ok(BackUp::Elsewhere),
                // Where the caller takes the outcome for done, it removes what is left.
                Renamed::OtherFileSystem | Renamed::MountPoint => {
                    return Err(Obstacle::MountPoint
                        .at("rename", from.path_of(name))
                        .with_hint("its local version could not be backed up"));
                }
                _ => {}
            }
        }
        Err(Obstacle::Occupied
            .at("rename", root.path_of(path))
            .with_hint("its local version could not be backed up"))
    }

    /// The backups that were made.
    #[must_use]
    pub fn into_conflicts(self) -> Vec<Conflict> {
        self.made.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder for the nth version of a path.
    fn folder(&self, root: &Root, version: usize) -> Result<RelativePath> {
        let mut folders = lock(&self.folders);
        while folders.len() <= version {
            folders.push(make_folder(root)?);
        }
        Ok(folders[version].clone())
    }
}

/// Makes the folders above a backup. Returns `false` if an earlier backup is in the place of one of them.
fn make_folders(cursor: &mut Cursor<'_>, backed_up_at: &RelativePath) -> Result<bool> {
    for above in backed_up_at.ancestors().skip(DEPTH) {
        if !cursor.ensure_folder(&above, 0o755)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a new folder for backups, named by the time.
pub fn make_folder(root: &Root) -> Result<RelativePath> {
    let _in_place = RuntimeFolder::open(root)?;
    let conflicts = backup_root();
    let time = folder_name(SystemTime::now());
    let mut made = RelativePath::child(Some(&conflicts), time.as_bytes());
    for serial in 2.. {
        let mut cursor = root.cursor();
        if !cursor.ensure_folder(&conflicts, 0o755)? {
            return Err(Error::UnsafePath {
                path: readable(conflicts.as_bytes()),
                offset: None,
                reason:
                    "it must be a directory, because local versions are backed up there; move it away and try again"
                        .to_owned(),
            });
        }
        match cursor.make_folder(&made, 0o755) {
            Ok(true) => break,
            // Another merge removed the empty folder that it was to be made in.
            Err(error) if error.is_gone() => continue,
            taken => taken?,
        };
        made = RelativePath::child(Some(&conflicts), format!("{time}~{serial}").as_bytes());
    }
    Ok(made)
}

/// The folder with the backups of all merges.
#[must_use]
pub fn backup_root() -> RelativePath {
    RelativePath::child(Some(&runtime()), CONFLICTS_FOLDER.as_bytes())
}

/// The name of a backup folder for that time. It has no colons, because other systems do not allow them.
fn folder_name(time: SystemTime) -> String {
    utc_timestamp(time).replace(':', "-")
}

/// The time in a backup folder's name, in milliseconds since 1970. `None` if no merge gives such a name.
fn parse_folder_name(name: &[u8]) -> Option<i64> {
    let name = std::str::from_utf8(name).ok()?;
    let (time, serial) = name.split_once('~').map_or((name, None), |(time, serial)| (time, Some(serial)));
    let is_serial =
        |serial: &str| serial.parse::<u32>().is_ok_and(|number| number > 1 && number.to_string() == serial);
    if serial.is_some_and(|serial| !is_serial(serial)) || time.contains(':') {
        return None;
    }
    let (date, of_day) = time.split_once('T')?;
    crate::time::parse_utc_timestamp(&format!("{date}T{}", of_day.replace('-', ":")))
}

/// How many bytes of backups are kept in total.
const MAX_BACKUP_BYTES: u64 = 1 << 30;

/// Why backups that are too old, or too many, are still there.
const NOT_REMOVED: &str = "these backups have expired, but could not be removed; remove them by hand";

/// How long backups are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Retention {
    /// Forever, however many there are.
    Forever,
    /// For that many days, and one gibibyte at most. With 0 days only those of the last merge are kept.
    Days(f64),
}

impl Default for Retention {
    fn default() -> Self {
        Self::Days(30.0)
    }
}

/// The age of one merge's backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Age {
    /// In milliseconds since 1970.
    time: i64,
    /// Whether they belong to the merge that runs now.
    is_ours: bool,
}

/// Which backups are too old. One with a time in the future is not.
fn too_old(backups: &[Age], retention: Retention, now: i64) -> Vec<bool> {
    let Retention::Days(days) = retention else { return vec![false; backups.len()] };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact in it for 285,000 years")]
    let is_old =
        |age: &Age| (now.saturating_sub(age.time)) as f64 > days * crate::time::MILLIS_PER_DAY as f64;
    backups.iter().map(|age| !age.is_ours && is_old(age)).collect()
}

/// Which backups exceed the limit on their total size: the oldest.
fn too_many(backups: &[(Age, u64)], limit: u64) -> Vec<bool> {
    let mut newest_first: Vec<usize> = (0..backups.len()).collect();
    newest_first.sort_by_key(|&at| std::cmp::Reverse((backups[at].0.is_ours, backups[at].0.time)));
    let mut too_many = vec![false; backups.len()];
    let mut total: u64 = 0;
    for at in newest_first {
        let (age, size) = backups[at];
        total = total.saturating_add(size);
        too_many[at] = total > limit && !age.is_ours;
    }
    too_many
}

/// Removes backups of earlier merges that have expired.
///
/// Called under the workspace's merge lock, by a merge that wrote something, with the backups that it made.
/// If it made none, the total size has not grown and is not measured.
///
/// Only folders named as a merge names them are removed, and no link is followed. What cannot be removed is
/// reported, and is no failure.
#[must_use]
pub fn prune(root: &Root, retention: Retention, now: SystemTime, new_conflicts: &[Conflict]) -> Vec<Skipped> {
    let all = backup_root();
    let skip = |path: &RelativePath| Skipped { path: path.clone(), reason: NOT_REMOVED };
    if retention == Retention::Forever {
        return Vec::new();
    }
    let Ok(names) = root.cursor().list(Some(&all)) else { return vec![skip(&all)] };
    let mut backups: Vec<(RelativePath, Age)> = Vec::new();
    let mut cursor = root.cursor();
    for name in names.unwrap_or_default() {
        let path = RelativePath::child(Some(&all), &name);
        let Some(time) = parse_folder_name(&name) else { continue };
        // What cannot be inspected could not be removed either.
        if matches!(cursor.stat(&path), Ok(Some(meta)) if meta.kind == Kind::Folder) {
            let is_ours = new_conflicts.iter().any(|conflict| conflict.backed_up_at.is_below(&path));
            backups.push((path, Age { time, is_ours }));
        }
    }
    let ages: Vec<Age> = backups.iter().map(|(_, age)| *age).collect();
    let (mut removed, mut skipped) = (false, Vec::new());
    let mut remove = |path: &RelativePath| match remove_backups(root, path) {
        Ok(()) => removed = true,
        Err(_) => skipped.push(skip(path)),
    };
    let mut left = Vec::new();
    for ((path, age), is_old) in backups.into_iter().zip(too_old(&ages, retention, unix_millis(now))) {
        if is_old { remove(&path) } else { left.push((path, age)) }
    }
    if !new_conflicts.is_empty() {
        // What cannot be measured counts as empty: it could not be removed either.
        let sizes: Vec<(Age, u64)> =
            left.iter().map(|(path, age)| (*age, size_of(root, path).unwrap_or(0))).collect();
        for ((path, _), is_too_many) in left.iter().zip(too_many(&sizes, MAX_BACKUP_BYTES)) {
            if is_too_many {
                remove(path);
            }
        }
    }
    if removed {
        // It stays if it is not empty, and it may be gone.
        let _stays = cursor.remove_empty_folder(&all);
    }
    skipped
}

fn size_of(root: &Root, path: &RelativePath) -> Result<u64> {
    let found = scan(&root.below(path)?, &Filter::default(), &Cancel::default())?;
    let files = found.iter().filter(|found| found.meta.kind == Kind::File);
    Ok(files.map(|found| found.meta.size).fold(0, u64::saturating_add))
}

/// Removes one merge's backups, including read-only folders.
fn remove_backups(root: &Root, path: &RelativePath) -> Result<()> {
    let folder = root.below(path)?;
    let mut cursor = folder.cursor();
    for found in scan(&folder, &Filter::default(), &Cancel::default())? {
        if found.meta.kind == Kind::Folder && found.meta.mode & 0o300 != 0o300 {
            cursor.set_folder_mode(&found.path, found.meta.mode | 0o700)?;
        }
    }
    remove_tree(root, path)
}

/// Refuses a workspace in which no backup could be made, before anything in it is changed.
pub fn check_runtime(root: &Root) -> Result<()> {
    let mut cursor = root.cursor();
    let runtime = runtime();
    for folder in [runtime.clone(), RelativePath::child(Some(&runtime), CONFLICTS_FOLDER.as_bytes())] {
        let Some(meta) = cursor.stat(&folder)? else { return Ok(()) };
        if meta.kind != Kind::Folder {
            return Err(Error::UnsafePath {
                path: readable(folder.as_bytes()),
                offset: None,
                reason:
                    "it must be a folder and not a link or file, because local versions are backed up there; \
                         move it away and try again"
                        .to_owned(),
            });
        }
        cursor.check_writable(&folder)?;
    }
    Ok(())
}

/// Moves an entry to another file system: copies it, and removes the original once the copy is complete.
///
/// Only for what nobody else reaches by its name. After a failure in the middle of a folder, each of its
/// files is on one side or the other.
pub fn copy_across(
    (from, name): (&mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    let Some(meta) = from.stat(name)? else { return Ok(Renamed::Absent) };
    if meta.kind != Kind::Folder {
        return copy_leaf((from, name), (to, path));
    }
    if !to.make_folder(path, 0o700)? {
        return Ok(Renamed::Occupied);
    }
    // Without recursion, because a tree may be deeper than a thread's stack.
    let mut folders = vec![(name.clone(), path.clone(), meta)];
    let mut at = 0;
    while let Some((source, destination, _)) = folders.get(at).cloned() {
        for below in from.list(Some(&source))?.unwrap_or_default() {
            let [inner, copy] =
                [&source, &destination].map(|folder| RelativePath::child(Some(folder), &below));
            match from.stat(&inner)? {
                Some(meta) if meta.kind == Kind::Folder => {
                    to.make_folder(&copy, 0o700)?;
                    folders.push((inner, copy, meta));
                }
                _ if copy_leaf((from, &inner), (to, &copy))? == Renamed::Occupied => {
                    return Err(Obstacle::Occupied.at("copyfile", to.path_of(&copy)));
                }
                _ => {}
            }
        }
        at += 1;
    }
    for (source, destination, meta) in folders.iter().rev() {
        keep_owner(to, destination, meta)?;
        to.set_folder_mode(destination, meta.mode & PERMISSIONS)?;
        if !from.remove_empty_folder(source)? {
            return Err(Obstacle::NotEmpty.at("rmdir", from.path_of(source)));
        }
    }
    Ok(Renamed::Done)
}

fn copy_leaf(
    (from, name): (&mut Cursor<'_>, &RelativePath),
    (to, path): (&mut Cursor<'_>, &RelativePath),
) -> Result<Renamed> {
    if to.stat(path)?.is_some() {
        return Ok(Renamed::Occupied);
    }
    for _ in 0..ATTEMPTS {
        let Some(meta) = from.stat(name)? else { return Ok(Renamed::Absent) };
        match meta.kind {
            Kind::Symlink => {
                let Some(target) = from.read_link(name)? else { continue };
                to.symlink(&target, path)?;
            }
            Kind::File => {
                let Some((mut file, _)) = from.open(name)? else { continue };
                copy_file(&mut file, &meta, (to, path))?;
            }
            Kind::Folder | Kind::Other => {
                return Err(Obstacle::OtherFileSystem.at("rename", from.path_of(name)));
            }
        }
        keep_owner(to, path, &meta)?;
        if from.stat(name)?.is_some_and(|now| now.untouched_since(&meta)) {
            from.remove_file(name)?;
            return Ok(Renamed::Done);
        }
        // It was written to by a process that has it open, so the copy is stale.
        to.remove_file(path)?;
    }
    Err(Obstacle::KeepsChanging.at("copyfile", from.path_of(name)))
}

/// Gives a copy the owner and group of the original, which only root can do. Does nothing on a file system
/// without owners.
fn keep_owner(to: &mut Cursor<'_>, path: &RelativePath, original: &Meta) -> Result<()> {
    if is_root() && to.stat(path)?.is_some_and(|copy| copy.owner != original.owner) {
        to.set_owner(path, original.owner)?;
    }
    Ok(())
}

fn copy_file(file: &mut File, meta: &Meta, (to, path): (&mut Cursor<'_>, &RelativePath)) -> Result<()> {
    let mut copy = to.create(path, 0o600)?;
    let copied = std::io::copy(file, &mut copy).and_then(|_| set_file_mode(&copy, meta.mode & PERMISSIONS));
    copied.map_err(|error| {
        let failed = Error::io("copyfile", to.path_of(path), error);
        // An incomplete file must not look complete. The failure that led here is the one to report.
        let _part = to.remove_file(path);
        failed
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::process::CommandExt as _;

    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn all_versions_of_a_path_and_of_paths_below_it_are_backed_up() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let conflicts = Backups::default();
        for (at, place) in ["a", "a", "a/b", "a/b/c", "a"].into_iter().enumerate() {
            fs::write(folder.path().join("edit"), at.to_string()).unwrap();
            let backups =
                conflicts.back_up(&root, (&mut root.cursor(), &path("edit")), &path(place), false).unwrap();
            assert_eq!(backups, BackUp::Done);
        }
        let backups = conflicts.into_conflicts();
        assert_eq!(backups.len(), 5);
        for (at, conflict) in backups.iter().enumerate() {
            let backed_up_at = folder.path().join(conflict.backed_up_at.as_path());
            assert_eq!(fs::read_to_string(backed_up_at).unwrap(), at.to_string());
        }
    }

    #[test]
    fn an_empty_gitignore_is_written_again_and_another_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let ignore = folder.path().join(".paperclip-runtime/.gitignore");
        fs::create_dir(ignore.parent().unwrap()).unwrap();
        for (before, after) in [("", "*\n"), ("mine", "mine")] {
            fs::write(&ignore, before).unwrap();
            fs::write(folder.path().join("edit"), "").unwrap();
            let conflicts = Backups::default();
            conflicts.back_up(&root, (&mut root.cursor(), &path("edit")), &path("edit"), false).unwrap();
            assert_eq!(fs::read_to_string(&ignore).unwrap(), after);
        }
    }

    #[test]
    fn a_backup_folders_name_tells_its_time_and_other_names_tell_none() {
        let now = SystemTime::now();
        let name = folder_name(now);
        assert_eq!(parse_folder_name(name.as_bytes()), Some(unix_millis(now)));
        assert_eq!(parse_folder_name(format!("{name}~2").as_bytes()), Some(unix_millis(now)));
        for name in [
            "",
            "mine",
            "2026-01-01",
            "2026-01-01T00:00:00.000Z",
            "2026-01-01T00-00-00.000Z~",
            "2026-01-01T00-00-00.000Z~1",
            "2026-01-01T00-00-00.000Z~02",
            "2026-01-01T00-00-00.000Z~2~2",
            "2026-01-01T00-00-00.000Z.old",
            "2026-02-30T00-00-00.000Z",
            "2026-01-01t00-00-00.000Z",
        ] {
            assert_eq!(parse_folder_name(name.as_bytes()), None, "{name}");
        }
        assert_eq!(parse_folder_name(b"2026-01-01T00-00-00.000\xff"), None);
    }

    #[test]
    fn expired_backups_are_too_old_and_those_of_this_merge_never_are() {
        const DAY: i64 = crate::time::MILLIS_PER_DAY;
        let now = 100 * DAY;
        for (keep, time, is_ours, goes) in [
            (Retention::default(), now, false, false),
            (Retention::default(), now - 30 * DAY, false, false),
            (Retention::default(), now - 30 * DAY - 1, false, true),
            (Retention::default(), now - 30 * DAY - 1, true, false),
            (Retention::default(), now + 1000 * DAY, false, false),
            (Retention::default(), i64::MIN, false, true),
            (Retention::Days(0.0), now - 1, false, true),
            (Retention::Days(0.0), now - 1, true, false),
            (Retention::Days(0.5), now - DAY / 2, false, false),
            (Retention::Days(0.5), now - DAY / 2 - 1, false, true),
            (Retention::Days(f64::INFINITY), i64::MIN, false, false),
            (Retention::Forever, i64::MIN, false, false),
        ] {
            assert_eq!(too_old(&[Age { time, is_ours }], keep, now), [goes], "{keep:?} {time} {is_ours}");
        }
        assert_eq!(too_old(&[], Retention::default(), now), [false; 0]);
    }

    #[test]
    fn the_oldest_backups_go_first_when_they_are_too_large() {
        let other = |time, size| (Age { time, is_ours: false }, size);
        let ours = |time, size| (Age { time, is_ours: true }, size);
        for (backups, goes) in [
            (vec![], vec![]),
            (vec![other(1, 10), other(2, 0)], vec![false, false]),
            (vec![other(1, 11)], vec![true]),
            (vec![other(3, 5), other(1, 5), other(2, 5)], vec![false, true, false]),
            (vec![other(1, 1), other(2, 9), other(3, 2)], vec![true, true, false]),
            (vec![ours(1, 20), other(2, 0), other(3, 1)], vec![false, true, true]),
            (vec![ours(1, 9), other(3, 1), other(2, 1)], vec![false, false, true]),
            (vec![other(1, u64::MAX), other(2, u64::MAX)], vec![true, true]),
        ] {
            assert_eq!(too_many(&backups, 10), goes, "{backups:?}");
        }
    }

    /// Prunes a workspace with backup folders of these names, and returns the names that are left.
    fn pruned(names: &[&str], retention: Retention, ours: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let all = root.path_of(&backup_root());
        fs::create_dir_all(&all).unwrap();
        for name in names {
            fs::create_dir_all(all.join(name).join("deep/er")).unwrap();
            fs::write(all.join(name).join("deep/er/edit"), "edit").unwrap();
        }
        let backed_up_at = |name: &str| path(&format!(".paperclip-runtime/conflicts/{name}/deep/er/edit"));
        let ours: Vec<_> = ours
            .iter()
            .map(|name| Conflict { path: path("deep/er/edit"), backed_up_at: backed_up_at(name) })
            .collect();
        assert_eq!(prune(&root, retention, SystemTime::now(), &ours), []);
        let mut left: Vec<_> = match fs::read_dir(&all) {
            Ok(names) => names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect(),
            Err(_) => vec!["not even the folder".to_owned()],
        };
        left.sort_unstable();
        left
    }

    #[test]
    fn pruning_removes_expired_backups_and_nothing_else() {
        let old = "2020-01-01T00-00-00.000Z";
        let older = "2020-01-01T00-00-00.000Z~2";
        assert_eq!(pruned(&[old, older], Retention::default(), &[]), ["not even the folder"]);
        assert_eq!(pruned(&[old, older], Retention::default(), &[older]), [older]);
        assert_eq!(pruned(&[old, older], Retention::Forever, &[]), [old, older]);
        let now = folder_name(SystemTime::now());
        assert_eq!(pruned(&[old, &now], Retention::default(), &[]), [&*now]);
        assert_eq!(pruned(&[old, "mine", "2020"], Retention::Days(0.0), &[]), ["2020", "mine"]);
    }

    #[test]
    fn pruning_follows_no_link_out_of_the_conflicts() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let old = "2020-01-01T00-00-00.000Z";
        let outside = folder.path().join("outside");
        fs::create_dir_all(outside.join(old)).unwrap();
        fs::write(outside.join(old).join("precious"), "precious").unwrap();
        let all = root.path_of(&backup_root());
        fs::create_dir_all(&all).unwrap();
        symlink(outside.join(old), all.join(old)).unwrap();
        let inner = "2020-01-02T00-00-00.000Z";
        fs::create_dir(all.join(inner)).unwrap();
        symlink(&outside, all.join(inner).join("link")).unwrap();
        assert_eq!(prune(&root, Retention::default(), SystemTime::now(), &[]), []);
        assert!(all.join(old).is_symlink(), "we make no links of that name");
        assert!(!all.join(inner).exists());
        fs::remove_dir_all(&all).unwrap();
        symlink(&outside, &all).unwrap();
        assert_eq!(prune(&root, Retention::default(), SystemTime::now(), &[]), []);
        assert_eq!(fs::read_to_string(outside.join(old).join("precious")).unwrap(), "precious");
    }

    #[test]
    fn backups_that_cannot_be_removed_are_reported() {
        const NAME: &str = "merge::conflicts::tests::backups_that_cannot_be_removed_are_reported";
        let Some(workspace) = std::env::var_os("UNPRUNABLE") else {
            let folder = tempfile::tempdir().unwrap();
            let old = folder.path().join(backup_root().as_path()).join("2020-01-01T00-00-00.000Z");
            fs::create_dir_all(&old).unwrap();
            // Root may remove anything, so the test runs itself again as another user, who needs access to
            // its binary.
            let binary = folder.path().join("test-binary");
            fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let mut again = std::process::Command::new(binary);
            again.args(["--exact", NAME]).env("UNPRUNABLE", folder.path());
            if is_root() {
                again.uid(65534).gid(65534);
            } else {
                fs::set_permissions(old.parent().unwrap(), fs::Permissions::from_mode(0o555)).unwrap();
            }
            let output = loop {
                match again.output() {
                    // A child that another test has just started may still have the copy open for writing.
                    Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                    ended => break ended.unwrap(),
                }
            };
            let text = String::from_utf8(output.stdout).unwrap();
            fs::set_permissions(old.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
            assert!(text.contains("1 passed; 0 failed"), "{text}");
            assert!(old.exists());
            return;
        };
        let root = Root::open(std::path::Path::new(&workspace)).unwrap();
        let skipped = prune(&root, Retention::default(), SystemTime::now(), &[]);
        let skip: Vec<_> = skipped.iter().map(|skipped| skipped.path.to_string()).collect();
        assert_eq!(skip, [".paperclip-runtime/conflicts/2020-01-01T00-00-00.000Z"]);
    }
}
