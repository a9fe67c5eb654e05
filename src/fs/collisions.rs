//! Name collisions: names that some volumes take for one, such as `Foo` and `foo`, or the two ways to write
//! `é`.
//!
//! No Unicode table is used, because every volume has its own. Any two names that might collide are
//! candidates, and the volume tells whether they do.

use super::folder::Cursor;
use crate::error::Result;
use crate::path::RelativePath;

/// Whether some volume may take two paths for one.
///
/// Two ASCII names may collide only if they differ in nothing but case. Nothing is known about other names,
/// not even that they differ from ASCII ones: to many volumes, the kelvin sign is a `k`.
#[must_use]
pub fn may_be_one(one: &RelativePath, other: &RelativePath) -> bool {
    let [mut one, mut other] = [one, other].map(|path| path.as_bytes().split(|&byte| byte == b'/'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) => {
                if one.is_ascii() && other.is_ascii() && !one.eq_ignore_ascii_case(other) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// Whether a volume takes any two names for one. Tried in an empty folder on it, which is left empty.
pub fn folds_names(folder: &mut Cursor<'_>) -> Result<bool> {
    let [given, in_other_case, decomposed] =
        ["a\u{e9}", "A\u{e9}", "ae\u{301}"].map(|name| RelativePath::child(None, name.as_bytes()));
    match folder.create(&given, 0o600) {
        Ok(_) => {}
        // A volume that does not allow such a name does not tell, so it may.
        Err(error) if error.refuses_name() => return Ok(true),
        Err(error) => return Err(error),
    }
    let folds = folder.stat(&in_other_case)?.is_some() || folder.stat(&decomposed)?.is_some();
    folder.remove_file(&given)?;
    Ok(folds)
}

/// The paths, all in one folder, that a volume may take for another one of them.
#[must_use]
pub fn collision_candidates<'a>(paths: &[&'a RelativePath]) -> Vec<&'a RelativePath> {
    if !paths.iter().all(|path| path.name().is_ascii()) {
        return paths.to_vec();
    }
    let mut folded: Vec<(Vec<u8>, &RelativePath)> =
        paths.iter().map(|&path| (path.name().as_encoded_bytes().to_ascii_lowercase(), path)).collect();
    folded.sort_unstable();
    folded
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|same| same.len() > 1)
        .flatten()
        .map(|&(_, path)| path)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn names_that_may_collide_are_those_that_some_volume_takes_for_one() {
        let cases = [
            ("Foo", "foo", true),
            ("Foo", "fob", false),
            ("Src/a", "src/A", true),
            ("src/a", "src/b", false),
            ("src", "src/a", false),
            ("a/src", "src", false),
            ("caf\u{e9}", "cafe\u{301}", true),
            ("\u{212a}elvin", "kelvin", true),
            ("caf\u{e9}/a", "cafe\u{301}/A", true),
            ("caf\u{e9}/a", "cafe\u{301}/b", false),
            ("[x]", "{X}", false),
        ];
        for (one, other, expected) in cases {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(may_be_one(&path(one), &path(other)), expected, "{one} and {other}");
            }
        }
    }

    #[test]
    fn names_in_a_folder_that_may_collide_are_candidates() {
        let candidates = |names: &[&str]| {
            let paths: Vec<_> = names.iter().map(|name| path(name)).collect();
            let paths: Vec<_> = paths.iter().collect();
            collision_candidates(&paths)
                .into_iter()
                .map(|path| path.name().to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(candidates(&["a", "b", "[", "{"]), [""; 0]);
        assert_eq!(candidates(&["b", "foo", "Foo", "FOO", "c"]), ["FOO", "Foo", "foo"]);
        assert_eq!(candidates(&["b", "\u{e9}"]), ["b", "\u{e9}"]);
    }

    /// `__test__/macos.test.mjs` covers volumes that fold names.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_volume_with_distinct_names_folds_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = crate::fs::Root::open(folder.path()).unwrap();
        assert!(!folds_names(&mut root.cursor()).unwrap());
        assert_eq!(root.cursor().list(None).unwrap().unwrap(), [] as [Box<[u8]>; 0]);
    }
}
