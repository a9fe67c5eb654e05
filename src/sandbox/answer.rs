//! Parses what the sandbox says about itself in a download: which upload it has, and what the extraction
//! left. Pure: no I/O.
//!
//! It is text from a machine on which an agent had a shell. A false answer does no more than make a restore
//! leave alone what it would otherwise have merged.

use crate::exclude::PathSet;
use crate::tree::entry::Snapshot;

/// The answer in a download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The upload that the sandbox's mark names; `None` if the mark is gone.
    pub mark: Option<&'a [u8]>,
    /// Whether the sandbox has zstd, if it says which tools it has.
    pub has_zstd: Option<bool>,
    /// The name of the download that this answer is in.
    pub download: Option<&'a [u8]>,
    /// How many downloads the sandbox had packed before this one, since the upload; `None` where it does not know.
    pub earlier: Option<u64>,
    /// The name of the index that was made before anything was packed.
    pub index: Option<&'a [u8]>,
    /// The index that the changes are based on, and the changes: see
    /// [`Changes`](crate::transfer::changes::Changes).
    pub changes: Option<(&'a [u8], &'a [u8])>,
    /// What the extraction left, if that is not exactly what was packed. It may be empty.
    pub list: Option<&'a [u8]>,
}

impl<'a> Answer<'a> {
    /// Parses an answer. Without an answer, all fields are empty.
    #[must_use]
    pub fn parse(text: Option<&'a [u8]>) -> Self {
        let Some(text) = text else { return Self::default() };
        let (first, rest) = split_line(text);
        let mark = first.strip_prefix(b"mark ").filter(|mark| !mark.is_empty());
        let (line, after) = split_line(rest);
        let mut words = line.split(|&byte| byte == b' ');
        let tells_tools = words.next() == Some(b"tools");
        let has_zstd = tells_tools.then(|| words.any(|tool| tool == b"zstd"));
        let rest = if tells_tools { after } else { rest };
        let (line, after) = split_line(rest);
        let download = line.strip_prefix(b"packed ");
        let (download, earlier) = download.map_or((None, None), |words| {
            let mut words = words.splitn(2, |&byte| byte == b' ');
            (words.next(), words.next().and_then(|count| std::str::from_utf8(count).ok()?.parse().ok()))
        });
        let rest = if download.is_some() { after } else { rest };
        let (line, after) = split_line(rest);
        let index = line.strip_prefix(b"indexed ");
        let rest = if index.is_some() { after } else { rest };
        let (line, after) = split_line(rest);
        let changes = line.strip_prefix(b"changes ").map(|since| (since, after));
        let list = (line == b"listed" && rest.len() > line.len()).then_some(after);
        Self { mark, has_zstd, download, earlier, index, changes, list }
    }

    /// Whether the sandbox has another upload than this one: an earlier or a later one.
    #[must_use]
    pub fn names_another(&self, upload: &str) -> bool {
        self.mark.is_some_and(|mark| mark != upload.as_bytes())
    }
}

/// The first line, and the rest.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, b""),
    }
}

/// Whether a sandbox without a mark counts as another sandbox: it has nothing of what was uploaded. An
/// agent that only removed the mark, as `git clean -fdx` does, leaves something.
///
/// One file or link as it was uploaded is enough. If there is none, it must have half of the uploaded names,
/// because an image may contain some names that a workspace has too, such as `.gitignore`.
///
/// Paths that the sandbox may never have had (`lost`) are not counted.
#[must_use]
pub fn is_another_without_mark(base: &Snapshot, theirs: &Snapshot, lost: &PathSet) -> bool {
    let (mut leaves, mut leaves_there) = (0_usize, 0_usize);
    let (mut is_empty, mut has_folders) = (true, false);
    for (path, before, after) in base.join(theirs) {
        let Some(before) = before.filter(|_| !lost.contains_or_covers(path)) else { continue };
        is_empty = false;
        if before.is_folder() {
            has_folders |= after.is_some();
        } else if after.is_some_and(|after| before.same_as(after)) {
            return false;
        } else {
            leaves += 1;
            leaves_there += usize::from(after.is_some());
        }
    }
    if leaves == 0 { !is_empty && !has_folders } else { leaves_there * 2 < leaves }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::RelativePath;
    use crate::tree::entry::{Digest, Entry};

    #[test]
    fn an_answer_is_parsed_field_by_field() {
        let (mark, index) = (Some(&b"12"[..]), Some(&b"i"[..]));
        let list = Some(&b"./a\x01f\n"[..]);
        let nothing = Answer::default();
        let marked = Answer { mark, ..nothing };
        let cases: &[(&[u8], Answer<'_>)] = &[
            (b"", nothing),
            (b"mark \n", nothing),
            (b"mark", nothing),
            (b"mark 12\n", marked),
            (b"mark 12", marked),
            (b"mark 12\nlisted\n./a\x01f\n", Answer { list, ..marked }),
            (b"mark 12\nlisted\n", Answer { list: Some(b""), ..marked }),
            (b"mark 12\nlisted", marked),
            (b"mark 12\n./a\x01f\n", marked),
            (b"mark \nlisted\n./a\x01f\n", Answer { list, ..nothing }),
            (b"mark 12\nindexed i\n", Answer { index, ..marked }),
            (b"mark 12\nindexed i\nlisted\n./a\x01f\n", Answer { index, list, ..marked }),
            (b"mark 12\nindexed i\nchanges h\n", Answer { index, changes: Some((b"h", b"")), ..marked }),
            (
                b"mark 12\nindexed i\nchanges h\ng ./a\n",
                Answer { index, changes: Some((b"h", b"g ./a\n")), ..marked },
            ),
            (b"mark 12\ntools zstd\n", Answer { has_zstd: Some(true), ..marked }),
            (
                b"mark 12\ntools zstd\npacked p\nindexed i\n",
                Answer { has_zstd: Some(true), download: Some(b"p"), index, ..marked },
            ),
            (b"mark 12\npacked p 7\n", Answer { download: Some(b"p"), earlier: Some(7), ..marked }),
            (b"mark 12\npacked p x\n", Answer { download: Some(b"p"), ..marked }),
            (b"mark 12\npacked p 7 7\n", Answer { download: Some(b"p"), ..marked }),
            (b"mark 12\npacked p 99999999999999999999\n", Answer { download: Some(b"p"), ..marked }),
            (b"mark 12\npacked p\nlisted\n", Answer { download: Some(b"p"), list: Some(b""), ..marked }),
            (b"mark 12\nindexed i\npacked p\n", Answer { index, ..marked }),
            (b"mark 12\ntools\n", Answer { has_zstd: Some(false), ..marked }),
            (b"mark 12\ntools zstdx xzstd\tzstd\n", Answer { has_zstd: Some(false), ..marked }),
            (
                b"mark 12\ntools lz4 zstd brotli\nindexed i\n",
                Answer { has_zstd: Some(true), index, ..marked },
            ),
            (b"mark \ntools zstd\nlisted\n./a\x01f\n", Answer { has_zstd: Some(true), list, ..nothing }),
            (b"mark 12\ntoolszstd\nindexed i\n", marked),
            (b"mark 12\nindexed i\ntools zstd\n", Answer { index, ..marked }),
            (b"nonsense\nmark 12\n", nothing),
        ];
        for &(text, answer) in cases {
            assert_eq!(Answer::parse(Some(text)), answer, "{}", text.escape_ascii());
        }
        assert_eq!(Answer::parse(None), Answer::default());
    }

    #[test]
    fn a_mark_is_another_uploads_if_it_names_another_id() {
        for (text, another) in
            [("mark 12\n", false), ("mark 13\n", true), ("mark 12 \n", true), ("mark \n", false)]
        {
            assert_eq!(Answer::parse(Some(text.as_bytes())).names_another("12"), another, "{text:?}");
        }
        assert!(!Answer::default().names_another("12"));
    }

    #[test]
    fn a_sandbox_without_a_mark_is_another_one_if_nothing_uploaded_is_there() {
        // A name that ends with `/` is a folder's; the digit is the content of a file.
        type Tree = &'static [(&'static str, u8)];
        let cases: &[(&str, Tree, Tree, bool)] = &[
            ("nothing was uploaded", &[], &[], false),
            ("nothing was uploaded, and the agent made something", &[], &[("a", 1)], false),
            ("it is empty", &[("a", 1)], &[], true),
            ("as it was", &[("a", 1)], &[("a", 1)], false),
            ("one of three is left", &[("a", 1), ("b", 1), ("c", 1)], &[("c", 1)], false),
            ("the only file was changed", &[("a", 1)], &[("a", 2)], false),
            ("all were changed", &[("a", 1), ("b", 1)], &[("a", 2), ("b", 2)], false),
            ("one of two was changed, the other deleted", &[("a", 1), ("b", 1)], &[("a", 2)], false),
            ("another one with a name in common", &[("a", 1), ("b", 1), ("c", 1)], &[("a", 2)], true),
            ("another one", &[("a", 1), ("b", 1)], &[(".bashrc", 2)], true),
            ("a folder in common", &[("src/", 0), ("src/a", 1)], &[("src/", 0), ("src/b", 1)], true),
            ("only folders, and one is left", &[("src/", 0), ("lib/", 0)], &[("src/", 0)], false),
            ("only folders, and none is left", &[("src/", 0)], &[("x", 1)], true),
        ];
        let tree = |entries: Tree| -> Snapshot {
            let entry = |name: &str, content| match name.strip_suffix('/') {
                Some(name) => (name.to_owned(), Entry::Folder { mode: Some(0o755) }),
                None => (name.to_owned(), Entry::File { mode: 0o644, digest: Digest([content; 32]) }),
            };
            let entries = entries.iter().map(|&(name, content)| entry(name, content));
            entries
                .map(|(name, entry)| (RelativePath::parse(name.as_bytes()).unwrap().unwrap(), entry))
                .collect()
        };
        for &(name, base, theirs, another) in cases {
            let nothing_lost = PathSet::default();
            assert_eq!(is_another_without_mark(&tree(base), &tree(theirs), &nothing_lost), another, "{name}");
            // A path that the sandbox may never have had does not count.
            let lost = RelativePath::child(None, b"lost");
            let mut with_lost = tree(base);
            with_lost.insert(lost.clone(), Entry::Folder { mode: None });
            let file = Entry::File { mode: 0o644, digest: Digest([9; 32]) };
            with_lost.insert(RelativePath::child(Some(&lost), b"file"), file);
            let lost = PathSet::of([lost]);
            assert_eq!(is_another_without_mark(&with_lost, &tree(theirs), &lost), another, "lost: {name}");
        }
    }
}
