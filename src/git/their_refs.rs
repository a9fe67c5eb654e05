//! Reads the references of the sandbox from what came of its git directory. Pure: only decisions.
//!
//! A reference is deleted or moved here only where the sandbox's files say so. What git cannot read there, and what is missing
//! although git never removes it, says nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::command::short;
use super::quarantine::{NO_NAME, ONLY_WORK, PACKED_REFS};
use super::refs::{Oid, RefKind, RefName, Refs, Unreadable, folders_of};

/// The reason for holding back what names an object of another format.
pub(super) const NAMES_OTHER_FORMAT: &str =
    "it names an object of another format (SHA-1 or SHA-256) than the repository has";

const TOO_DEEP: &str = "its name has more than 31 slashes, and each part would be a directory here";

const NO_TEXT: &str = "git cannot read it";
const NO_OBJECT: &str = "a reference must name an object, and not another reference";
const MISSING: &str = "it is missing or empty, which does not say that the references in it were deleted";
const FOLDER: &str = "a directory is in its place, which does not say that it was deleted";

/// The folders that every repository has that was sent. Git never removes them, however few references are left.
const FOLDERS: [&[u8]; 3] = [b"refs", b"refs/heads", b"refs/tags"];

/// What came of the references of a git directory.
#[derive(Debug)]
pub(super) struct Files<'a> {
    /// The text of `packed-refs`, if it is a file.
    pub packed: Option<&'a [u8]>,
    /// The references that are files of their own, with their text.
    pub loose: &'a BTreeMap<RefName, Vec<u8>>,
    /// The folders of references.
    pub folders: &'a BTreeSet<Vec<u8>>,
    /// Where there is something other than a file, or than a folder. It is reported already.
    pub unreadable: &'a Unreadable,
    /// Whether it is the repository that was sent, and not one that was made anew in the sandbox.
    pub is_sent: bool,
}

/// The references of the sandbox, and those that it must not change here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Their values; that of the base where nothing says what it is.
    pub refs: Refs,
    /// What is held back, with the reason.
    pub held: Vec<(String, &'static str)>,
}

/// Reads the references. `None` if all of them name objects of another format.
pub(super) fn read(files: &Files<'_>, base: &Refs, has_format: impl Fn(&Oid) -> bool) -> Option<Read> {
    let mut held = Vec::new();
    let mut refs = Refs::new();
    match files.packed.map(packed_refs) {
        _ if files.unreadable.contains(PACKED_REFS) => refs.clone_from(base),
        None => {}
        Some(None) => {
            refs.clone_from(base);
            held.push((short(PACKED_REFS), NO_TEXT));
        }
        Some(Some(packed)) => {
            for (name, oid) in packed {
                match RefName::parse(name) {
                    Some(name) => drop(refs.insert(name, oid)),
                    None => held.push((short(name), NO_NAME)),
                }
            }
        }
    }
    let mut unreadable = files.unreadable.clone();
    for (name, text) in files.loose {
        if let Some(oid) = Oid::parse(text.trim_ascii_end()) {
            refs.insert(name.clone(), oid);
        } else {
            held.push((name.to_string(), NO_OBJECT));
            unreadable.insert(name.as_bytes());
        }
    }
    refs.retain(|name, _| {
        let may_come = base.contains_key(name) || name.may_be_new();
        if !may_come {
            held.push((name.to_string(), TOO_DEEP));
        }
        may_come
    });
    let (mut refs, others): (Refs, Refs) = refs.into_iter().partition(|(_, oid)| has_format(oid));
    if refs.is_empty() && !others.is_empty() {
        return None;
    }
    held.extend(others.keys().map(|name| (name.to_string(), NAMES_OTHER_FORMAT)));
    let hidden = base.keys().chain(refs.keys()).filter(|name| unreadable.hides(name));
    let unchanged: Vec<RefName> = hidden.chain(others.keys()).cloned().collect();
    for name in unchanged {
        match base.get(&name) {
            Some(oid) => refs.insert(name, oid.clone()),
            None => refs.remove(&name),
        };
    }
    let mut causes = BTreeSet::new();
    let missing: Refs = base
        .iter()
        .filter(|(name, _)| !refs.contains_key(*name))
        .filter_map(|(name, oid)| {
            causes.insert(files.cause(name, &refs)?);
            Some((name.clone(), oid.clone()))
        })
        .collect();
    refs.extend(missing);
    held.extend(causes.into_iter().map(|(path, reason)| (short(&path), reason)));
    for (name, oid) in &refs {
        if name.kind() == RefKind::Other && base.get(name) != Some(oid) {
            held.push((name.to_string(), ONLY_WORK));
        }
    }
    Some(Read { refs, held })
}

impl Files<'_> {
    /// Why it is not known that a reference was deleted, and the path that tells. `there` is what was read.
    fn cause(&self, name: &RefName, there: &Refs) -> Option<(Vec<u8>, &'static str)> {
        let is_below = |other: &RefName| folders_of(other.as_bytes()).any(|folder| folder == name.as_bytes());
        // Where other references are below it, it had to be deleted before.
        if self.folders.contains(name.as_bytes()) && !there.keys().any(is_below) {
            return Some((name.as_bytes().to_vec(), FOLDER));
        }
        if !self.is_sent {
            return None;
        }
        // Git writes a line at its beginning, however few references are left.
        if self.packed.is_none_or(<[u8]>::is_empty) {
            return Some((PACKED_REFS.to_vec(), MISSING));
        }
        let has = |folder: &[u8]| {
            self.folders.contains(folder)
                || self.loose.keys().any(|loose| folders_of(loose.as_bytes()).any(|above| above == folder))
        };
        let mut above = folders_of(name.as_bytes()).filter(|folder| FOLDERS.contains(folder));
        above.find(|folder| !has(folder)).map(|folder| (folder.to_vec(), MISSING))
    }
}

/// Reads a `packed-refs` file: names, which may be malformed, with their objects. `None` if git could not read it.
fn packed_refs(text: &[u8]) -> Option<Vec<(&[u8], Oid)>> {
    let mut packed = Vec::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n")?;
        // Other line ends: git takes them for a part of each name.
        if line.ends_with(b"\r") {
            return None;
        }
        match line {
            [b'#', ..] => {}
            // What the tag before it names.
            [b'^', oid @ ..] => drop(Oid::parse(oid)?),
            _ => {
                let space = line.iter().position(|&byte| byte == b' ')?;
                packed.push((&line[space + 1..], Oid::parse(&line[..space])?));
            }
        }
    }
    Some(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(digit: &str) -> String {
        digit.repeat(40)
    }

    /// References by name and digit: `heads/a=1`.
    fn refs(text: &str) -> Refs {
        let parse = |item: &str| {
            let (name, digit) = item.split_once('=').unwrap();
            let name = RefName::parse(format!("refs/{name}").as_bytes()).unwrap();
            (name, Oid::parse(oid(digit).as_bytes()).unwrap())
        };
        text.split_whitespace().map(parse).collect()
    }

    /// The base, what is there (`packed:` and `loose:` values, folders with a slash at their end, and with a question mark what
    /// is unreadable), what is read, and what is held back.
    #[test]
    fn what_cannot_be_read_says_nothing() {
        const USUAL: &str = "refs/ refs/heads/ refs/tags/";
        let base = "heads/a=1 heads/b=1 tags/t=1";
        for (there, expected, held) in [
            // Git's own ways to say it.
            ("packed: packed:heads/a=1 packed:heads/b=1 packed:tags/t=1", base, ""),
            ("packed: packed:heads/a=1 loose:heads/a=2 packed:heads/b=1", "heads/a=2 heads/b=1", ""),
            ("packed: loose:heads/a=2", "heads/a=2", ""),
            ("packed: loose:heads/a/b=2 refs/heads/a/", "heads/a/b=2", ""),
            ("packed: packed:heads/a/b=2 refs/heads/a/", "heads/a/b=2", ""),
            // An empty folder may be left of a branch that git could not make.
            ("packed: packed:heads/a=2 refs/heads/a/", "heads/a=2", ""),
            ("packed: refs/heads/a/", "heads/a=1", "refs/heads/a"),
            // Something else is in the place.
            ("packed-refs? loose:heads/a=2", "heads/a=2 heads/b=1 tags/t=1", ""),
            ("loose:heads/a=2", "heads/a=2 heads/b=1 tags/t=1", "packed-refs"),
            ("empty loose:heads/a=2", "heads/a=2 heads/b=1 tags/t=1", "packed-refs"),
            ("loose:heads/a=1 loose:heads/b=1 loose:tags/t=1", base, ""),
            ("packed: refs/heads? packed:heads/a=2 packed:heads/c=2", "heads/a=1 heads/b=1", ""),
            ("packed: refs? packed:heads/a=2", base, ""),
            ("packed: refs/heads/a? loose:heads/b=2", "heads/a=1 heads/b=2", ""),
            ("packed: bad:heads/a packed:heads/a/x=2", "heads/a=1", "refs/heads/a"),
        ] {
            let folders = if there.contains("refs/heads?") { "refs/ refs/tags/" } else { USUAL };
            check(base, &format!("{there} {folders}"), true, expected, held);
        }
        for (there, expected, held) in [
            ("packed: refs/ refs/tags/ packed:heads/a=2", "heads/a=2 heads/b=1", "refs/heads"),
            ("packed: refs/ refs/heads/ packed:heads/a=2", "heads/a=2 tags/t=1", "refs/tags"),
            ("packed: loose:heads/a=2", "heads/a=2 tags/t=1", "refs/tags"),
            ("packed: packed:heads/a=2", "heads/a=2 heads/b=1 tags/t=1", "refs"),
        ] {
            check(base, there, true, expected, held);
        }
        // A repository that was made anew never had them.
        for there in ["loose:heads/a=2", "loose:heads/a=2 packed:"] {
            check(base, there, false, "heads/a=2", "");
        }
    }

    #[test]
    fn a_new_name_of_very_many_parts_does_not_come_and_a_local_one_stays() {
        let deep = |start: &str, slashes: usize| format!("heads/{start}{}", "/x".repeat(slashes - 2));
        let (most, sent, new) = (deep("a", 31), deep("b", 32), deep("c", 32));
        let base = format!("{sent}=1");
        for kind in ["packed", "loose"] {
            let there = format!(
                "packed: refs/ refs/heads/ refs/tags/ {kind}:{most}=2 {kind}:{sent}=2 {kind}:{new}=2"
            );
            check(&base, &there, true, &format!("{most}=2 {sent}=2"), &format!("refs/{new}"));
        }
    }

    fn check(base: &str, there: &str, is_sent: bool, expected: &str, held: &str) {
        let (mut packed, mut loose) = (None, BTreeMap::new());
        let (mut folders, mut unreadable) = (BTreeSet::new(), Unreadable::default());
        let name = |text: &str| RefName::parse(format!("refs/{text}").as_bytes()).unwrap();
        for item in there.split_whitespace() {
            if let Some(value) = item.strip_prefix("packed:") {
                let text = packed.get_or_insert_with(|| "# pack-refs with: sorted \n".to_owned());
                let line = |(name, digit): (&str, &str)| format!("{} refs/{name}\n", oid(digit));
                text.push_str(&value.split_once('=').map(line).unwrap_or_default());
            } else if let Some(value) = item.strip_prefix("loose:") {
                let (at, digit) = value.split_once('=').unwrap();
                loose.insert(name(at), format!("{}\n", oid(digit)).into_bytes());
            } else if let Some(at) = item.strip_prefix("bad:") {
                loose.insert(name(at), b"ref: refs/heads/x\n".to_vec());
            } else if item == "empty" {
                packed = Some(String::new());
            } else if let Some(at) = item.strip_suffix('?') {
                unreadable.insert(at.as_bytes());
            } else {
                folders.insert(item.strip_suffix('/').unwrap().as_bytes().to_vec());
            }
        }
        let files = Files {
            packed: packed.as_ref().map(String::as_bytes),
            loose: &loose,
            folders: &folders,
            unreadable: &unreadable,
            is_sent,
        };
        let read = read(&files, &refs(base), |_| true).unwrap();
        assert_eq!(read.refs, refs(expected), "{there}");
        let told: Vec<&str> = read.held.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(told.join(" "), held, "{there}");
    }
}
