//! Converts between JavaScript strings and the bytes of file names, and the JSON that carries them.
//!
//! A file name need not be UTF-8. Each byte that is not part of a character is passed as a lone surrogate
//! (byte `0xNN` is `U+DCNN`, as in Python's `surrogateescape`). JSON writes that as `\udcNN`, and JavaScript
//! strings can contain it.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result, escaped, readable, shown};
use crate::git::report::{HeldBack, KeptReference};
use crate::merge::report::{Conflict, Noted, Report, Skipped};
use crate::path::{RelativePath, path_from};
use crate::sandbox::prepare_report::{Archive, NAMED, PrepareReport, Unmatched};
use crate::sandbox::restore::Restored;
use crate::tree::entry::{Digest, Entry, Snapshot};

/// The bytes that a JavaScript string stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// The bytes as a path.
    pub fn into_path(self) -> PathBuf {
        path_from(&self.0).to_path_buf()
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, wtf8: &[u8]) -> std::result::Result<Bytes, E> {
                Ok(Bytes(unescape(wtf8)))
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }
        }
        // As bytes, because a lone surrogate is not valid text: serde_json passes it as three bytes.
        deserializer.deserialize_bytes(Text)
    }
}

/// Converts lone surrogates to the bytes that they stand for. One that stands for no byte becomes U+FFFD, as
/// in Node.
fn unescape(wtf8: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(wtf8.len());
    let mut rest = wtf8;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if let (0xED, [second @ 0xA0..=0xBF, third, after @ ..]) = (first, after) {
            rest = after;
            if let 0xB2 | 0xB3 = second {
                bytes.push((second << 6) | (third & 0x3F));
            } else {
                bytes.extend_from_slice("\u{FFFD}".as_bytes());
            }
        } else {
            bytes.push(first);
        }
    }
    bytes
}

/// Bytes as a JSON string.
pub fn text(bytes: &[u8]) -> Box<RawValue> {
    let mut json = String::with_capacity(bytes.len() + 2);
    push_text(&mut json, bytes);
    RawValue::from_string(json).expect("a JSON string was written")
}

fn push_text(json: &mut String, bytes: &[u8]) {
    use fmt::Write as _;
    json.push('"');
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\\' => json.extend(['\\', char]),
                '\0'..='\x1f' => {
                    write!(json, "\\u{:04x}", u32::from(char)).expect("a String takes everything");
                }
                _ => json.push(char),
            }
        }
        for byte in chunk.invalid() {
            write!(json, "\\udc{byte:02x}").expect("a String takes everything");
        }
    }
    json.push('"');
}

/// Parses an argument that `index.js` has serialized. An error in it is the caller's mistake.
pub fn argument<'a, T: Deserialize<'a>>(name: &str, json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::InvalidArgValue {
        argument: name.to_owned(),
        reason: error.to_string(),
        received: json.chars().take(200).collect(),
    })
}

/// An entry of a snapshot in the TypeScript module's form. (It is not an enum with the tag `kind`, because
/// serde would read its fields as text, and a link target may not be text.)
#[derive(Debug, serde::Deserialize)]
pub struct JsEntry {
    kind: String,
    mode: Option<f64>,
    hash: Option<String>,
    target: Option<Bytes>,
}

impl JsEntry {
    /// The entry in our form, or the name of the field that is wrong.
    pub fn into_entry(self) -> std::result::Result<Entry, &'static str> {
        match self.kind.as_str() {
            "dir" => Ok(Entry::Folder { mode: None }),
            "file" => {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a mode has 16 bits"
                )]
                let mode = self.mode.ok_or("mode")? as u32;
                let digest = self.hash.and_then(|hash| hash.parse::<Digest>().ok()).ok_or("hash")?;
                Ok(Entry::File { mode, digest })
            }
            "symlink" => Ok(Entry::Symlink { target: self.target.ok_or("target")?.0.into() }),
            _ => Err("kind"),
        }
    }
}

/// Parses `[path, entry]` pairs into a snapshot.
pub fn read_entries(json: &str, into: &mut Snapshot) -> Result<()> {
    let pairs: Vec<(Bytes, JsEntry)> = argument("input.baseline.entries", json)?;
    for (path, entry) in pairs {
        let shown = readable(&path.0);
        let unsafe_path = |reason: String| Error::UnsafePath { path: shown.clone(), offset: None, reason };
        let path = RelativePath::parse(&path.0)
            .map_err(|fault| unsafe_path(format!("{fault}, as a path of the baseline")))?
            .ok_or_else(|| unsafe_path("the root itself cannot be an entry of the baseline".to_owned()))?;
        let entry = entry.into_entry().map_err(|field| Error::InvalidArgValue {
            argument: format!("input.baseline.entries.get({shown:?}).{field}"),
            reason: "it is not what a snapshot has there: a kind of dir, file (with mode and SHA-256 in hexadecimal) or \
                     symlink (with target)"
                .to_owned(),
            received: shown,
        })?;
        into.insert(path, entry);
    }
    Ok(())
}

/// A snapshot as JSON texts of at most `count` `[path, entry]` pairs each, so no turn of the event loop has
/// to parse all of it.
pub fn write_entries(snapshot: &Snapshot, count: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(snapshot.len().div_ceil(count));
    let mut entries = snapshot.iter().peekable();
    while entries.peek().is_some() {
        let mut json = String::from("[");
        for (at, (path, entry)) in entries.by_ref().take(count).enumerate() {
            json.push_str(if at == 0 { "[" } else { ",[" });
            push_text(&mut json, path.as_bytes());
            json.push(',');
            push_entry(&mut json, entry);
            json.push(']');
        }
        json.push(']');
        texts.push(json);
    }
    texts
}

/// An entry in the TypeScript module's form, as JSON.
pub fn entry(entry: &Entry) -> String {
    let mut json = String::new();
    push_entry(&mut json, entry);
    json
}

fn push_entry(json: &mut String, entry: &Entry) {
    use fmt::Write as _;
    match entry {
        Entry::Folder { .. } => json.push_str(r#"{"kind":"dir"}"#),
        Entry::File { mode, digest } => {
            write!(json, r#"{{"kind":"file","mode":{mode},"hash":"{digest}"}}"#)
                .expect("a String takes everything");
        }
        Entry::Symlink { target } => {
            json.push_str(r#"{"kind":"symlink","target":"#);
            push_text(json, target);
            json.push('}');
        }
    }
}

/// What a restore did, as `RestoreReport`, with empty lists and without what only `index.js` knows.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct JsReport {
    written: [(); 0],
    deleted: [(); 0],
    kept: [(); 0],
    conflicts: [(); 0],
    deletions_kept: [(); 0],
    skipped: [(); 0],
    held_back: [(); 0],
    sensitive: [(); 0],
    refs_updated: [(); 0],
    refs_deleted: [(); 0],
    refs_kept: [(); 0],
    entries: usize,
    transfer: &'static str,
    tolerant: bool,
    tar_messages: String,
    phases: Vec<JsPhase>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct JsConflict {
    path: Box<RawValue>,
    kept_at: Box<RawValue>,
}

/// Something of a repository that stays as it is locally.
#[derive(serde::Serialize)]
struct JsHeldBack {
    path: Box<RawValue>,
    /// What is meant, for example a key of the configuration or a reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    reason: String,
}

/// A reference of a repository, and where its value is kept, if it is.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct JsReference {
    repository: Box<RawValue>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_at: Option<String>,
}

#[derive(serde::Serialize)]
struct JsSkipped<'a> {
    path: Box<RawValue>,
    reason: &'a str,
}

#[derive(serde::Serialize)]
struct JsUnmatched {
    pattern: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

impl JsUnmatched {
    fn of(unmatched: &Unmatched) -> Self {
        let of = unmatched.of.as_ref();
        Self {
            pattern: text(&unmatched.pattern),
            file: of.map(|(file, _)| text(file.as_bytes())),
            line: of.map(|(_, line)| *line),
        }
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct JsPhase {
    name: &'static str,
    duration_ms: f64,
    bytes: u64,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct JsArchive<'a> {
    label: &'a str,
    entries: usize,
    archive_bytes: u64,
    sent_bytes: u64,
    parts: usize,
    transfer: &'static str,
    compression: &'static str,
    phases: [JsPhase; 3],
    left_out: Vec<JsSkipped<'a>>,
    left_out_count: usize,
    unmatched_excludes: Vec<JsUnmatched>,
    unmatched_excludes_count: usize,
}

/// How an archive was transferred, for a report.
fn transfer(is_changes_only: bool) -> &'static str {
    if is_changes_only { "changes" } else { "full" }
}

/// What a prepare did, as JSON: a list of its archives.
pub fn prepare_report(report: &PrepareReport) -> String {
    let phase = |name, took: std::time::Duration, bytes| JsPhase {
        name,
        duration_ms: took.as_secs_f64() * 1000.0,
        bytes,
    };
    let archive = |archive: &'_ Archive| {
        json(&JsArchive {
            label: &archive.label,
            entries: archive.entries,
            archive_bytes: archive.archive_bytes,
            sent_bytes: archive.sent_bytes,
            parts: archive.parts,
            transfer: transfer(archive.is_changes_only),
            compression: archive.codec.name(),
            phases: [
                phase("pack", archive.times.pack, archive.archive_bytes),
                phase("upload", archive.times.upload, archive.sent_bytes),
                phase("extract", archive.times.extract, archive.archive_bytes),
            ],
            left_out: (archive.left_out.named.iter())
                .map(|(path, reason)| JsSkipped { path: text(path.as_bytes()), reason })
                .collect(),
            left_out_count: archive.left_out.count,
            unmatched_excludes: archive.left_out.unmatched.iter().take(NAMED).map(JsUnmatched::of).collect(),
            unmatched_excludes_count: archive.left_out.unmatched.len(),
        })
    };
    format!("[{}]", report.archives.iter().map(archive).collect::<Vec<_>>().join(","))
}

/// The report as JSON texts: first the report with empty lists, then the lists in pieces of at most `count`
/// items. Each piece is a pair of the list's name and the items.
pub fn report(
    Restored { report, git, entries, is_changes_only, tar_messages, phases }: &Restored,
    count: usize,
) -> Vec<String> {
    let Report {
        written,
        already_here: _,
        deleted,
        left_in_place,
        conflicts,
        deletions_backed_up,
        skipped,
        held_back,
        sensitive,
    } = report;
    let summary = JsReport {
        written: [],
        deleted: [],
        kept: [],
        conflicts: [],
        deletions_kept: [],
        skipped: [],
        held_back: [],
        sensitive: [],
        refs_updated: [],
        refs_deleted: [],
        refs_kept: [],
        entries: *entries,
        transfer: transfer(*is_changes_only),
        tolerant: tar_messages.is_some(),
        tar_messages: lines(tar_messages.as_deref().unwrap_or_default()),
        phases: phases
            .iter()
            .map(|phase| JsPhase {
                name: phase.name,
                duration_ms: phase.took.as_secs_f64() * 1000.0,
                bytes: phase.bytes,
            })
            .collect(),
    };
    let path = |path: &RelativePath| text(path.as_bytes());
    let conflict = |Conflict { path, backed_up_at }: &Conflict| JsConflict {
        path: text(path.as_bytes()),
        kept_at: text(backed_up_at.as_bytes()),
    };
    let skip = |Skipped { path, reason }: &Skipped| JsSkipped { path: text(path.as_bytes()), reason };
    let note = |Noted { path, reason }: &Noted| JsSkipped { path: text(path.as_bytes()), reason };
    let mut texts = vec![json(&summary)];
    texts.extend(pieces("written", written, count, path));
    texts.extend(pieces("deleted", deleted, count, path));
    texts.extend(pieces("kept", left_in_place, count, path));
    texts.extend(pieces("conflicts", conflicts, count, conflict));
    texts.extend(pieces("deletionsKept", deletions_backed_up, count, conflict));
    texts.extend(pieces("skipped", skipped, count, skip));
    texts.extend(pieces("heldBack", held_back, count, note));
    texts.extend(pieces("sensitive", sensitive, count, note));
    texts.extend(pieces("heldBack", &git.held_back, count, |held: &HeldBack| JsHeldBack {
        path: text(held.path.as_bytes()),
        what: held.what.as_ref().map(|what| shown(what.as_bytes())),
        reason: shown(held.reason.as_bytes()),
    }));
    let reference = |(repository, name): &(RelativePath, String)| JsReference {
        repository: text(repository.as_bytes()),
        name: shown(name.as_bytes()),
        kept_at: None,
    };
    texts.extend(pieces("refsUpdated", &git.updated, count, reference));
    texts.extend(pieces("refsDeleted", &git.deleted, count, reference));
    texts.extend(pieces("refsKept", &git.kept, count, |kept: &KeptReference| JsReference {
        repository: text(kept.repository.as_bytes()),
        name: shown(kept.reference.as_bytes()),
        kept_at: Some(kept.kept_at.clone()),
    }));
    texts
}

/// The beginning of a program's messages, with all control characters escaped except line ends, because a
/// terminal obeys them.
fn lines(messages: &str) -> String {
    let mut shown = String::new();
    for character in beginning(messages, TEXT).chars() {
        match character {
            '\n' => shown.push('\n'),
            _ => shown.push_str(&escaped(character)),
        }
    }
    // Escaping has made the text longer.
    shown.truncate(beginning(&shown, TEXT).len());
    shown
}

fn pieces<T, J: serde::Serialize>(
    list: &str,
    items: &[T],
    count: usize,
    item: impl Fn(&T) -> J,
) -> impl Iterator<Item = String> {
    items.chunks(count).map(move |items| json(&(list, items.iter().map(&item).collect::<Vec<_>>())))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("it has nothing that JSON cannot say")
}

/// The longest text that is passed to JavaScript, in bytes.
pub const TEXT: usize = 64 * 1024;

/// The beginning of a text, cut between characters.
pub fn beginning(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_name_round_trips() {
        for name in
            [&b"plain"[..], b"caf\xc3\xa9", b"\xff\xfe", b"a\x80b", b"\xed\xa0\x80", b"q\"\\\n\x01", b""]
        {
            let json = text(name);
            let back: Bytes = serde_json::from_str(json.get()).unwrap();
            assert_eq!(back.0, name, "{json}");
        }
        assert_eq!(text(b"a\xff").get(), r#""a\udcff""#);
        // A surrogate that stands for no byte.
        assert_eq!(serde_json::from_str::<Bytes>(r#""\ud800""#).unwrap().0, "\u{FFFD}".as_bytes());
    }

    #[test]
    fn messages_of_a_sandbox_keep_their_line_ends_and_no_other_control_character() {
        for (messages, shown) in [
            ("", ""),
            ("tar: a: denied\ntar: caf\u{e9}: denied\n", "tar: a: denied\ntar: caf\u{e9}: denied\n"),
            ("tar: '\\033[2J \"b\"'\n", "tar: '\\033[2J \"b\"'\n"),
            ("a\x1b[2Jb\x07\r\n", "a\\u{1b}[2Jb\\u{7}\\r\n"),
            ("\t\0\x7f\u{9b}31m", "\\t\\0\\u{7f}\\u{9b}31m"),
            ("\u{202e}txt\u{2028}", "\\u{202e}txt\\u{2028}"),
        ] {
            assert_eq!(lines(messages), shown);
        }
        assert_eq!(lines(&"\x1b".repeat(TEXT)).len(), TEXT);
        assert_eq!(lines(&"a".repeat(TEXT + 1)).len(), TEXT);
    }

    #[test]
    fn a_snapshot_round_trips_in_pieces() {
        let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap().unwrap();
        let snapshot = Snapshot::from([
            (path("a"), Entry::Folder { mode: None }),
            (path("a/b"), Entry::File { mode: 0o100_644, digest: Digest([7; 32]) }),
            (path("l"), Entry::Symlink { target: b"\xff/x".to_vec().into() }),
        ]);
        let texts = write_entries(&snapshot, 2);
        assert_eq!(texts.len(), 2);
        let mut back = Snapshot::new();
        for json in &texts {
            read_entries(json, &mut back).unwrap();
        }
        assert_eq!(back, snapshot);
    }
}
