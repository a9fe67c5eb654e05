//! An [`Error`] → what `index.js` makes a JavaScript error of.

use std::os::unix::ffi::OsStrExt;

use napi::Status;
use serde::Serialize;

use super::values::text;
use crate::error::Error;
use crate::sandbox::client::RunError;

/// What an error says beside its message. `index.js` names `errno` as the operating system does.
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
    path: Option<Box<serde_json::value::RawValue>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

/// The error as one text; napi's own error has no room for more.
pub fn to_napi(error: &Error) -> napi::Error {
    let mut fields = Fields {
        message: error.to_string(),
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
            fields.path = Some(text(path.as_os_str().as_bytes()));
            fields.hint = hints.join("; ");
        }
        Error::ArchiveTruncated { offset, .. } => fields.offset = Some(*offset),
        Error::ArchiveInvalid { offset, entry, .. } => {
            fields.offset = Some(*offset);
            fields.entry = entry.as_deref();
        }
        Error::UnsafePath { path, offset, .. } => {
            fields.path = Some(text(path.as_bytes()));
            fields.offset = *offset;
        }
        Error::LockTimeout { lock, .. } => fields.path = Some(text(lock.as_os_str().as_bytes())),
        Error::InvalidReturnValue { .. }
        | Error::InvalidArgType { .. }
        | Error::InvalidArgValue { .. }
        | Error::Aborted
        | Error::Internal(_) => {}
    }
    let json = serde_json::to_string(&fields).unwrap_or_else(|failed| failed.to_string());
    napi::Error::new(Status::GenericFailure, json)
}

/// The same where the client may have failed: its failure is already napi's.
pub fn run_to_napi(error: RunError<napi::Error>) -> napi::Error {
    match error {
        RunError::Own(error) => to_napi(&error),
        RunError::Client(failure) => failure,
    }
}
