//! Names and folders in the sandbox, checked before the first call to it.

use crate::error::{Error, Result};
use crate::tree::stage::RUNTIME;

/// The runtime folder of one adapter in a workspace: `<remote>/.paperclip-runtime/<adapter key>`, as
/// `path.posix.join` makes it.
pub fn runtime_root(remote_dir: &str, argument: &str, adapter_key: &str) -> Result<String> {
    let remote_dir = remote_folder(remote_dir, argument)?;
    key(adapter_key, "input.adapterKey")?;
    Ok(format!("{remote_dir}/{RUNTIME}/{adapter_key}"))
}

/// A remote folder in its shortest form. It is emptied, so it must be absolute and must not be `/`.
fn remote_folder(path: &str, argument: &str) -> Result<String> {
    let refuse = |reason: &str| {
        Err(Error::InvalidArgValue {
            argument: argument.to_owned(),
            reason: reason.to_owned(),
            received: path.to_owned(),
        })
    };
    if path.contains('\0') {
        return refuse("it holds a NUL byte, which no path can");
    }
    if !path.starts_with('/') {
        return refuse("the workspace's folder in the sandbox must be an absolute path");
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
            "it is the sandbox's root, and everything in it would be deleted; pass a folder below it",
        );
    }
    Ok(format!("/{}", names.join("/")))
}

/// A key that becomes one name in the sandbox.
pub fn key(key: &str, argument: &str) -> Result<()> {
    let reason = match key {
        "" => "it is empty",
        "." | ".." => "it would name another folder than its own",
        _ if key.contains('/') => "it holds a '/', and it must be a single name",
        _ if key.contains('\0') => "it holds a NUL byte, which no name can",
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
    fn where_a_run_lives_in_the_sandbox() {
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
            let made = runtime_root(remote, "input.workspaceRemoteDir", "k");
            assert_eq!(made.as_deref().ok(), expected, "{remote:?}");
            if let Err(error) = made {
                assert_eq!(error.code(), "ERR_INVALID_ARG_VALUE");
                assert!(error.to_string().contains("input.workspaceRemoteDir"), "{error}");
            }
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
