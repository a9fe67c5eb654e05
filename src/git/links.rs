//! Follows a path as the kernel does, and tells every link on the way. Pure: what is at a path is told by the caller.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// The maximum number of links that are followed: that of Linux.
pub const LINKS_MAX: usize = 40;

/// What is at a path, without following a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Looked {
    /// A link with this target.
    Link(PathBuf),
    /// Something else.
    Other,
    /// Nothing, or it is not known.
    Nothing,
}

/// How a path is resolved.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// The links on the way. Their own folders are not reached by links.
    pub links: Vec<Link>,
    /// Where it ends. Names that do not exist are taken as they are. `None` if there are too many links.
    pub end: Option<PathBuf>,
}

/// A link on the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the whole path leads to it, and not only a folder above.
    pub is_last: bool,
}

/// Follows an absolute path.
pub(super) fn follow(path: &Path, look: &mut dyn FnMut(&Path) -> Looked) -> Way {
    let mut way = Way::default();
    let mut at = PathBuf::from("/");
    let mut waiting: Vec<OsString> = Vec::new();
    let mut exists = true;
    push(&mut waiting, path);
    while let Some(name) = waiting.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(name);
        let looked = if exists { look(&at) } else { Looked::Nothing };
        exists = looked != Looked::Nothing;
        let Looked::Link(target) = looked else { continue };
        way.links.push(Link { path: at.clone(), is_last: waiting.is_empty() });
        if way.links.len() > LINKS_MAX {
            return way;
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        } else {
            at.pop();
        }
        push(&mut waiting, &target);
    }
    way.end = Some(at);
    way
}

/// Adds the names of a path, of which the first is taken next.
fn push(waiting: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    waiting.extend(names);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_on_the_way_is_told() {
        let links = [
            ("/ws/a", "b"),
            ("/ws/b", "c"),
            ("/ws/d", "/ws/e/"),
            ("/ws/e/up", "../c/./x"),
            ("/ws/out", "../elsewhere/back"),
            ("/elsewhere/back", "/ws/c"),
            ("/ws/loop", "loop"),
            ("/ws/one", "two/x"),
            ("/ws/two", "one/y"),
            ("/ws/gone", "not/../there"),
        ];
        let files = ["/", "/ws", "/ws/c", "/ws/e", "/elsewhere"].map(Path::new);
        for (path, on_the_way, end) in [
            ("/ws/c", "", Some("/ws/c")),
            ("/ws/./e/../c/", "", Some("/ws/c")),
            ("/ws/a", "/ws/a! /ws/b!", Some("/ws/c")),
            ("/ws/a/x", "/ws/a /ws/b", Some("/ws/c/x")),
            ("/ws/d/up", "/ws/d /ws/e/up!", Some("/ws/c/x")),
            // `..` is that of where the link leads.
            ("/ws/d/../a", "/ws/d /ws/a! /ws/b!", Some("/ws/c")),
            ("/ws/out", "/ws/out! /elsewhere/back!", Some("/ws/c")),
            ("/ws/gone", "/ws/gone!", Some("/ws/there")),
            ("/ws/new/a", "", Some("/ws/new/a")),
            ("/../ws/a/../../..", "/ws/a /ws/b", Some("/")),
        ] {
            let mut look = |at: &Path| match links.iter().find(|(link, _)| at == Path::new(link)) {
                Some((_, target)) => Looked::Link(target.into()),
                None if files.contains(&at) => Looked::Other,
                None => Looked::Nothing,
            };
            let way = follow(Path::new(path), &mut look);
            let told =
                |link: &Link| format!("{}{}", link.path.display(), if link.is_last { "!" } else { "" });
            let told: Vec<String> = way.links.iter().map(told).collect();
            assert_eq!(told.join(" "), on_the_way, "{path}");
            assert_eq!(way.end.as_deref(), end.map(Path::new), "{path}");
            for endless in ["/ws/loop", "/ws/one", "/ws/loop/x"] {
                let way = follow(Path::new(endless), &mut look);
                assert_eq!((way.links.len(), way.end), (LINKS_MAX + 1, None), "{endless}");
            }
        }
    }
}
