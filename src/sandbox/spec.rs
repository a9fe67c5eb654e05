//! Checks names and folders in the sandbox before the first call to it.

use super::command::{OWN, Places};
use crate::error::{Error, Result};

/// The paths of one adapter in a workspace. Its folder is `<remote>/.paperclip-runtime/<adapter key>`,
/// normalized as by `path.posix.join`.
pub fn places(remote_dir: &str, argument: &str, adapter_key: &str, upload_id: &str) -> Result<Places> {
    let remote_dir = remote_folder(remote_dir, argument)?;
    key(adapter_key, "input.adapterKey")?;
    Ok(Places::new(&remote_dir, adapter_key, upload_id))
}

/// Why a key cannot be an asset's: its folder or archive would have a name that this package uses.
#[must_use]
pub fn is_ours(key: &str) -> Option<&'static str> {
    let ours = [
        OWN,
        "workspace",
        "workspace-upload.tar",
        "workspace-upload.status",
        "workspace-changes.txt",
        "workspace-download.tar",
        "workspace-download.status",
    ];
    let is_ours = |own: &str| {
        // Files beside an archive, and its further parts, have its name with a suffix.
        key.eq_ignore_ascii_case(own)
            || key.len() > own.len() && own.contains('.') && own != OWN && is_prefix(own, key)
    };
    ours.into_iter().any(is_ours).then_some(
        "this package uses that name for a file or directory beside the assets; choose another one",
    )
}

/// Why two keys cannot both be assets': the folder of one is the folder or the archive of the other.
#[must_use]
pub fn collide(one: &str, other: &str) -> Option<&'static str> {
    let is_archive_of = |key: &str, other: &str| {
        let archive = key.strip_prefix(other).and_then(|rest| rest.strip_prefix("-upload.tar"));
        archive.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if one == other {
        Some("another asset has the same key, and one would overwrite the other")
    } else if is_archive_of(one, other) || is_archive_of(other, one) {
        Some("another asset's archive has this name while it is uploaded; choose another one")
    } else {
        None
    }
}

fn is_prefix(prefix: &str, text: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// A remote folder in its shortest form. It will be emptied, so it must be absolute and must not be `/`.
fn remote_folder(path: &str, argument: &str) -> Result<String> {
    let refuse = |reason: &str| {
        Err(Error::InvalidArgValue {
            argument: argument.to_owned(),
            reason: reason.to_owned(),
            received: path.to_owned(),
        })
    };
    if path.contains('\0') {
        return refuse("it contains a NUL byte, which no path can");
    }
    if !path.starts_with('/') {
        return refuse("the workspace's directory in the sandbox must be an absolute path");
    }
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            _ => names.push(name),
        }
    }
    if names.is_empty() {
        return refuse(
            "it is the sandbox's root, and everything in it would be deleted; pass a directory below it",
        );
    }
    Ok(format!("/{}", names.join("/")))
}

/// Checks a key that becomes one name in the sandbox.
pub fn key(key: &str, argument: &str) -> Result<()> {
    let reason = match key {
        "" => "it is empty; pass a single name, such as 'skills'",
        "." | ".." => "it would name another directory than its own; pass a single name, such as 'skills'",
        _ if key.contains('/') => "it contains a '/', and it must be a single name",
        _ if key.contains('\0') => "it contains a NUL byte, which no name can",
        _ => return Ok(()),
    };
    Err(Error::InvalidArgValue {
        argument: argument.to_owned(),
        reason: reason.to_owned(),
        received: key.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_its_own_folder_in_the_sandbox() {
        for (remote, expected) in [
            ("/w", Some("/w/.paperclip-runtime/k")),
            ("/home//user/./w/", Some("/home/user/w/.paperclip-runtime/k")),
            ("/a/../b", Some("/b/.paperclip-runtime/k")),
            ("/", None),
            ("//", None),
            ("/a/..", None),
            ("/../..", None),
            ("", None),
            ("w", None),
            ("./w", None),
            ("/w\0x", None),
        ] {
            let made = places(remote, "input.workspaceRemoteDir", "k", "1");
            let root = made.as_ref().ok().map(Places::runtime_root);
            assert_eq!(root, expected, "{remote:?}");
            if let Err(error) = made {
                assert_eq!(error.code(), "ERR_INVALID_ARG_VALUE");
                assert!(error.to_string().contains("input.workspaceRemoteDir"), "{error}");
            }
        }
    }

    #[test]
    fn keys_do_not_collide_with_reserved_names_or_each_other() {
        for key in [
            ".paperclip",
            ".Paperclip",
            "workspace",
            "workspace-upload.tar",
            "workspace-upload.tar.2",
            "workspace-upload.status",
            "workspace-download.tar",
            "Workspace-Download.TAR.names",
            "workspace-download.status",
        ] {
            assert!(is_ours(key).is_some(), "{key}");
        }
        for key in ["workspaces", "paperclip", ".paperclip2", "skills", "workspace-download"] {
            assert_eq!(is_ours(key), None, "{key}");
        }
        for (one, other, expected) in [
            ("a", "b", false),
            ("a", "a", true),
            ("a", "a-upload.tar", true),
            ("a-upload.tar", "a", true),
            ("a", "b-upload.tar", false),
            ("-upload.tar", "a", false),
            ("a", "a-upload.tar.2", true),
            ("a-upload.tar.parts", "a", true),
            ("a", "a-upload.tar2", false),
        ] {
            assert_eq!(collide(one, other).is_some(), expected, "{one} {other}");
        }
    }

    #[test]
    fn keys_are_single_names() {
        for good in ["claude", "a b", "...", "-x", "é"] {
            assert!(key(good, "input.adapterKey").is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "/", "a\0b"] {
            assert_eq!(key(bad, "input.adapterKey").unwrap_err().code(), "ERR_INVALID_ARG_VALUE", "{bad:?}");
        }
    }
}
