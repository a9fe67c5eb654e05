//! Converts an [`Error`] to the text from which `index.js` makes a JavaScript error.

use napi::Status;
use serde::Serialize;
use serde_json::value::RawValue;

use super::client::{CallFailure, Failure};
use super::values::{TEXT, beginning, text};
use crate::error::{Error, NO_THREAD};
use crate::path::bytes_of;
use crate::sandbox::client::RunError;

/// The fields of an error. `index.js` derives the name of `errno` as the operating system has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    message: String,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

/// The error as one text, because napi's own error type has no other fields.
///
/// Text from a sandbox may have any length. A text longer than the longest JavaScript string would leave the
/// promise unsettled.
pub fn to_napi(error: &Error) -> napi::Error {
    let mut fields = Fields {
        message: bounded(error.to_string()),
        code: error.code(),
        errno: error.errno(),
        syscall: None,
        path: None,
        hint: String::new(),
        entry: None,
        offset: None,
    };
    match error {
        Error::Io { syscall, path, hints, .. } => {
            fields.syscall = Some(syscall);
            fields.path = Some(bounded_text(bytes_of(path)));
            fields.hint = bounded(hints.join("; "));
        }
        Error::Obstructed { syscall, path, .. } => {
            fields.syscall = Some(syscall);
            fields.path = Some(bounded_text(bytes_of(path)));
        }
        Error::ArchiveTruncated { offset, .. } => fields.offset = Some(*offset),
        Error::ArchiveInvalid { offset, entry, .. } => {
            fields.offset = Some(*offset);
            fields.entry = entry.as_deref().map(|name| beginning(name, TEXT));
        }
        Error::UnsafePath { path, offset, .. } => {
            fields.path = Some(bounded_text(path.as_bytes()));
            fields.offset = *offset;
        }
        Error::LockTimeout { lock: path, .. }
        | Error::LinksMultiply { link: path, .. }
        | Error::WorkspaceReplaced { path } => {
            fields.path = Some(bounded_text(bytes_of(path)));
        }
        Error::NoThread(_) => {
            fields.syscall = Some("pthread_create");
            NO_THREAD.clone_into(&mut fields.hint);
        }
        Error::SandboxReplaced { .. }
        | Error::InvalidReturnValue { .. }
        | Error::InvalidArgType { .. }
        | Error::InvalidArgValue { .. }
        | Error::NothingToResume { .. }
        | Error::OthersDownload
        | Error::NotStaged
        | Error::ContradictoryChanges
        | Error::LackingObjects
        | Error::Aborted
        | Error::Internal(_) => {}
    }
    let json = serde_json::to_string(&fields).unwrap_or_else(|failed| failed.to_string());
    napi::Error::new(Status::GenericFailure, json)
}

fn bounded(mut text: String) -> String {
    if text.len() > TEXT {
        text.truncate(beginning(&text, TEXT).len());
        text.push('…');
    }
    text
}

fn bounded_text(bytes: &[u8]) -> Box<RawValue> {
    text(&bytes[..bytes.len().min(TEXT)])
}

/// The same for a call in which the client may have failed. What it threw is named by the number under which
/// `index.js` keeps it.
pub fn run_to_napi(error: RunError<CallFailure>) -> napi::Error {
    match error {
        RunError::Own(error) => to_napi(&error),
        RunError::Client(CallFailure::Napi(error)) => error,
        RunError::Client(CallFailure::Client(Failure { kept, .. })) => {
            napi::Error::new(Status::GenericFailure, format!(r#"{{"kept":{kept}}}"#))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::error::Obstacle;

    #[test]
    fn all_texts_of_an_error_are_bounded() {
        let long = "\u{1}é\u{FFFD}".repeat(300_000);
        let io = std::io::Error::from_raw_os_error(2);
        for error in [
            Error::ArchiveInvalid { offset: 1, entry: Some(long.clone()), reason: long.clone() },
            Error::ArchiveTruncated { offset: 1, reason: long.clone() },
            Error::UnsafePath { path: long.clone(), offset: None, reason: long.clone() },
            Error::InvalidArgValue {
                argument: "a".to_owned(),
                reason: String::new(),
                received: long.clone(),
            },
            Error::Internal(long.clone()),
            Error::io("open", &long, io),
        ] {
            let made = to_napi(&error);
            // A byte may need six in JSON, and there are at most three such texts.
            assert!(made.reason.len() <= 3 * 6 * TEXT + 1000, "{}", made.reason.len());
            let fields: HashMap<String, &RawValue> = serde_json::from_str(&made.reason).unwrap();
            assert_eq!(fields["code"].get(), format!("{:?}", error.code()));
        }
    }

    #[test]
    fn an_obstacle_has_nodes_code_and_no_errno() {
        let error = Obstacle::MountPoint.at("rename", "/workspace/mount").with_hint("unmount it");
        let fields: serde_json::Value = serde_json::from_str(&to_napi(&error).reason).unwrap();
        let expected = serde_json::json!({
            "message": "EBUSY: it is a mount point, or one is in it, rename '/workspace/mount' (unmount it)",
            "code": "EBUSY",
            "syscall": "rename",
            "path": "/workspace/mount",
        });
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_short_text_is_not_cut() {
        assert_eq!(bounded("a".repeat(TEXT)), "a".repeat(TEXT));
        assert_eq!(beginning("aé", 2), "a");
    }
}
