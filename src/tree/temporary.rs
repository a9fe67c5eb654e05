//! Names of files and folders that exist only while a call runs.
//!
//! They are in folders that other calls read at the same time, and those calls ignore them. The format is
//! strict, so that a user's file is never taken for one of them: `<prefix><process id>-<16 letters or
//! digits>`.

use crate::path::RelativePath;
use crate::random;

/// The prefix of an archive that is being written, beside its final path.
pub const ARCHIVE: &str = ".sandbox-archive-";

/// The prefix of the folder in a mirror's target that holds new content until it is moved into place.
pub const MIRROR: &str = ".paperclip-mirror-";

/// How many letters or digits make a name unique.
const UNIQUE: usize = 16;

/// A new name that begins with `prefix`.
#[must_use]
pub fn name(prefix: &str) -> String {
    format!("{prefix}{}-{:0UNIQUE$x}", std::process::id(), random::bits())
}

/// Whether the last name of a path is a temporary one of an archive or mirror, by this process or another.
/// Such a file is neither archived, uploaded nor mirrored.
#[must_use]
pub fn is_temporary_name(path: &RelativePath) -> bool {
    let name = path.name().as_encoded_bytes();
    let rest = [ARCHIVE, MIRROR].iter().find_map(|prefix| name.strip_prefix(prefix.as_bytes()));
    let Some(rest) = rest else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let unique = rest[digits..].strip_prefix(b"-").unwrap_or_default();
    (1..=10).contains(&digits) && unique.len() == UNIQUE && unique.iter().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_temporary(path: &str) -> bool {
        is_temporary_name(&RelativePath::parse(path.as_bytes()).unwrap().unwrap())
    }

    #[test]
    fn every_new_name_is_recognized_as_temporary_and_unique() {
        for prefix in [ARCHIVE, MIRROR] {
            let (one, other) = (name(prefix), name(prefix));
            assert!(is_temporary(&one) && is_temporary(&format!("a/b/{other}")), "{one} {other}");
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_name_in_another_format_is_not_temporary() {
        for (name, temporary) in [
            (".sandbox-archive-1-0123456789abcdef", true),
            (".paperclip-mirror-4294967295-0123456789ABCDEF", true),
            ("deep/in/.sandbox-archive-12-aBcDeFgHiJkLmNoP", true),
            (".sandbox-archive-", false),
            (".sandbox-archive-notes", false),
            (".sandbox-archive-1", false),
            (".sandbox-archive-1-", false),
            (".sandbox-archive-1-0123456789abcde", false),
            (".sandbox-archive-1-0123456789abcdef0", false),
            (".sandbox-archive-1-0123456789abcde.", false),
            (".sandbox-archive-1-0123456789abcdef.bak", false),
            (".sandbox-archive--0123456789abcdef", false),
            (".sandbox-archive-a-0123456789abcdef", false),
            (".sandbox-archive-12345678901-0123456789abcdef", false),
            ("x.sandbox-archive-1-0123456789abcdef", false),
            (".Sandbox-Archive-1-0123456789abcdef", false),
            (".paperclip-mirror-1-0", false),
            // What is in such a folder is left out together with it.
            (".paperclip-mirror-1-0123456789abcdef/0", false),
        ] {
            assert_eq!(is_temporary(name), temporary, "{name}");
        }
    }
}
