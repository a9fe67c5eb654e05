//! Trees as plain values, written to disk and read back without the code under test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::raw_tar::RawTar;

/// The library's own folder in a workspace.
pub const RUNTIME: &str = ".paperclip-runtime";

/// The entry at one path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A folder with its permission bits.
    Folder(u32),
    /// A file with its permission bits and bytes.
    File(u32, Vec<u8>),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A FIFO. Sockets are read as this too.
    Fifo,
}

/// Everything below a folder, by relative path.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// A file of mode 644.
pub fn file(content: impl AsRef<[u8]>) -> Node {
    Node::File(0o644, content.as_ref().to_vec())
}

/// A link.
pub fn link(target: impl AsRef<[u8]>) -> Node {
    Node::Link(target.as_ref().to_vec())
}

/// A folder of mode 755.
pub const DIR: Node = Node::Folder(0o755);

/// A tree of these.
pub fn tree<'a>(nodes: impl IntoIterator<Item = (&'a str, Node)>) -> Tree {
    nodes.into_iter().map(|(path, node)| (path.as_bytes().to_vec(), node)).collect()
}

/// The path of bytes.
pub fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Whether `path` lies below `folder`.
pub fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// The folders above a path, the outermost first.
pub fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(slash, _)| &path[..slash])
}

/// Reads a folder, without the library's own folder in it.
pub fn read_tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    read_below(root, b"", &mut |path| path != RUNTIME.as_bytes(), &mut |path, full| {
        found.insert(path, read_node(full));
    });
    found
}

/// Reads the entry at a path.
pub fn read_node(full: &Path) -> Node {
    let metadata = fs::symlink_metadata(full).unwrap();
    let mode = metadata.mode() & 0o7777;
    match metadata.file_type() {
        kind if kind.is_dir() => Node::Folder(mode),
        kind if kind.is_symlink() => Node::Link(fs::read_link(full).unwrap().as_os_str().as_bytes().to_vec()),
        kind if kind.is_fifo() || kind.is_socket() => Node::Fifo,
        _ => Node::File(mode, fs::read(full).unwrap()),
    }
}

fn read_below(
    root: &Path,
    folder: &[u8],
    wanted: &mut dyn FnMut(&[u8]) -> bool,
    each: &mut dyn FnMut(Vec<u8>, &Path),
) {
    for entry in fs::read_dir(root.join(path_of(folder))).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let path = if folder.is_empty() {
            name.as_bytes().to_vec()
        } else {
            [folder, b"/", name.as_bytes()].concat()
        };
        if !wanted(&path) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            read_below(root, &path, wanted, each);
        }
        each(path, &entry.path());
    }
}

/// Writes a tree into an existing folder.
pub fn write_tree(root: &Path, tree: &Tree) {
    for (path, node) in tree {
        write_node(&root.join(path_of(path)), node);
    }
    // The content of a folder with another mode has been written by now.
    for (path, node) in tree.iter().rev() {
        if let Node::Folder(mode) = node {
            set_mode(&root.join(path_of(path)), *mode);
        }
    }
}

/// Writes a node at a path where nothing is, in an existing folder.
pub fn write_node(full: &Path, node: &Node) {
    match node {
        Node::Folder(mode) => {
            fs::create_dir(full).unwrap();
            set_mode(full, *mode);
        }
        Node::File(mode, content) => {
            fs::write(full, content).unwrap();
            set_mode(full, *mode);
        }
        Node::Link(target) => symlink(path_of(target), full).unwrap(),
        Node::Fifo => {
            use rustix::fs::{CWD, FileType, Mode, mknodat};
            mknodat(CWD, full, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        }
    }
}

/// Sets permission bits, whatever the umask.
pub fn set_mode(full: &Path, mode: u32) {
    fs::set_permissions(full, fs::Permissions::from_mode(mode)).unwrap();
}

/// Removes whatever is at a path, if there is anything.
pub fn remove(full: &Path) {
    match fs::symlink_metadata(full) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(full).unwrap(),
        Ok(_) => fs::remove_file(full).unwrap(),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", full.display()),
    }
}

/// Changes the disk from one tree to another, and touches nothing that is the same in both.
pub fn change_tree(root: &Path, from: &Tree, to: &Tree) {
    for (path, node) in from.iter().rev() {
        if to.get(path) != Some(node)
            && !matches!((node, to.get(path)), (Node::Folder(_), Some(Node::Folder(_))))
        {
            remove(&root.join(path_of(path)));
        }
    }
    for (path, node) in to {
        let full = root.join(path_of(path));
        match (from.get(path), node) {
            (Some(before), now) if before == now => {}
            (Some(Node::Folder(_)), Node::Folder(mode)) => set_mode(&full, *mode),
            _ => write_node(&full, node),
        }
    }
}

/// A tree as an archive, in byte order of the paths.
pub fn to_tar(tree: &Tree) -> RawTar {
    let start = RawTar::new().dir(".");
    tree.iter().fold(start, |tar, (path, node)| match node {
        Node::Folder(mode) => tar.dir_with_mode(path, *mode),
        Node::File(mode, content) => tar.file_with_mode(path, *mode, content),
        Node::Link(target) => tar.symlink(path, target),
        Node::Fifo => tar.entry(b'6', path, ""),
    })
}

/// Everything that can be observed of a folder, including times and inodes. Two of these differ if anything
/// was done.
#[derive(PartialEq, Eq, Clone)]
pub struct Picture(BTreeMap<Vec<u8>, Sight>);

#[derive(Debug, PartialEq, Eq, Clone)]
struct Sight {
    node: Node,
    inode: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Picture {
    /// Takes a folder and everything below it.
    pub fn of(root: &Path) -> Self {
        let mut seen = BTreeMap::new();
        let mut look = |path: Vec<u8>, full: &Path| {
            let metadata = fs::symlink_metadata(full).unwrap();
            seen.insert(
                path,
                Sight {
                    node: read_node(full),
                    inode: metadata.ino(),
                    mtime: (metadata.mtime(), metadata.mtime_nsec()),
                    ctime: (metadata.ctime(), metadata.ctime_nsec()),
                },
            );
        };
        look(b".".to_vec(), root);
        read_below(root, b"", &mut |_| true, &mut look);
        Self(seen)
    }

    /// Takes everything below a folder, but not the folder itself, in which something was made and removed.
    pub fn inside(root: &Path) -> Self {
        let mut picture = Self::of(root);
        picture.0.remove(&b"."[..]);
        picture
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(path, sight)| (path.escape_ascii().to_string(), sight)))
            .finish()
    }
}

/// Asserts that two trees are equal. A failure shows only the differences.
#[track_caller]
pub fn assert_same(found: &Tree, expected: &Tree, what: &str) {
    let paths: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let differences: Vec<_> = paths
        .into_iter()
        .filter(|path| found.get(*path) != expected.get(*path))
        .map(|path| {
            let path_text = path.escape_ascii().to_string();
            format!("{path_text}: found {:?}, expected {:?}", found.get(path), expected.get(path))
        })
        .collect();
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}
