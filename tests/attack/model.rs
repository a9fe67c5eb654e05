//! A second implementation of the merge, on plain trees and without regard to speed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sandbox_managed_runtime::merge::report::Report;
use sandbox_managed_runtime::path::RelativePath;

use crate::tree::{Node, RUNTIME, Tree, above, assert_same, is_below, path_of, read_node, read_tree};

/// The expected result of a merge.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The workspace.
    pub tree: Tree,
    /// The backup of each local version, as a tree (of a file, at the empty path).
    pub aside: BTreeMap<Vec<u8>, Tree>,
    /// The paths reported as written.
    pub written: BTreeSet<Vec<u8>>,
    /// The paths reported as deleted.
    pub deleted: BTreeSet<Vec<u8>>,
    /// The paths reported as left in place, although the sandbox deleted them.
    pub kept: BTreeSet<Vec<u8>>,
    /// The paths reported as not restored.
    pub skipped: BTreeSet<Vec<u8>>,
    /// The base of the next merge.
    pub base: Tree,
}

/// The merge, by its table.
pub fn merge(base: &Tree, theirs: &Tree, ours: &Tree) -> Outcome {
    merge_but_for(&|_| false, base, theirs, ours)
}

/// The same if some paths are excluded or preserved.
pub fn merge_but_for(left_alone: &dyn Fn(&[u8]) -> bool, base: &Tree, theirs: &Tree, ours: &Tree) -> Outcome {
    let mut outcome = Outcome { tree: ours.clone(), base: told(base, theirs), ..Outcome::default() };
    outcome.skipped =
        theirs.iter().filter(|(_, node)| **node == Node::Fifo).map(|(path, _)| path.clone()).collect();
    // A folder that contains such a path stays.
    for (path, node) in outcome.base.clone() {
        let becomes_other = !matches!(node, Node::Folder(_)) && base.get(&path) != Some(&node);
        let is_folder = matches!(ours.get(&path), Some(Node::Folder(_)));
        if becomes_other && is_folder && ours.keys().any(|at| is_below(at, &path) && left_alone(at)) {
            outcome.base.remove(&path);
            let uploaded = base.iter().filter(|(at, _)| **at == path || is_below(at, &path));
            outcome.base.extend(uploaded.map(|(at, node)| (at.clone(), node.clone())));
            outcome.skipped.insert(path);
        }
    }
    let theirs = outcome.base.clone();

    // What the sandbox has new or changed, folders before their content.
    let mut over_folders = Vec::new();
    for (path, new) in &theirs {
        if base.get(path) == Some(new) || ours.get(path) == Some(new) {
            continue;
        }
        for folder in above(path) {
            if !matches!(outcome.tree.get(folder), Some(Node::Folder(_))) {
                outcome.replace(folder, &theirs[folder], base);
            }
        }
        match (outcome.tree.get(path), new) {
            (Some(Node::Folder(_)), Node::Folder(_)) => {
                outcome.tree.insert(path.clone(), new.clone());
                outcome.written.insert(path.clone());
            }
            (Some(Node::Folder(_)), _) => over_folders.push(path),
            (Some(Node::File(..)), Node::File(..)) => outcome.merge_file(path, new, base),
            _ => outcome.replace(path, new, base),
        }
    }

    // What the sandbox deleted, the content of folders before the folders.
    for (path, old) in base.iter().rev().filter(|(path, _)| !theirs.contains_key(*path)) {
        match ours.get(path) {
            None => {}
            // A folder that is not empty stays.
            Some(local) if local == old && !outcome.below(path).is_empty() => {}
            Some(local) if local == old => outcome.delete(path),
            Some(_) => {
                outcome.kept.insert(path.clone());
            }
        }
    }

    for path in over_folders {
        let rest = outcome.below(path);
        if !rest.is_empty() || ours.get(path) != base.get(path) {
            let mut kept = Tree::from([(Vec::new(), ours[path].clone())]);
            for below in rest {
                let node = outcome.tree.remove(&below).unwrap();
                kept.insert(below[path.len() + 1..].to_vec(), node);
            }
            outcome.aside.insert(path.clone(), kept);
        }
        outcome.tree.insert(path.clone(), theirs[path].clone());
        outcome.written.insert(path.clone());
    }
    outcome
}

/// What the sandbox has, as far as it can be restored: a path with a device counts as unchanged.
fn told(base: &Tree, theirs: &Tree) -> Tree {
    let mut told = theirs.clone();
    for (path, _) in theirs.iter().filter(|(_, node)| **node == Node::Fifo) {
        told.remove(path);
        for (at, node) in base.iter().filter(|(at, _)| *at == path || is_below(at, path)) {
            told.insert(at.clone(), node.clone());
        }
    }
    told
}

impl Outcome {
    fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        self.tree.keys().filter(|below| is_below(below, path)).cloned().collect()
    }

    fn delete(&mut self, path: &[u8]) {
        self.tree.remove(path);
        self.deleted.insert(path.to_vec());
    }

    /// Merges a file into a file: its bytes and its mode separately.
    fn merge_file(&mut self, path: &[u8], new: &Node, base: &Tree) {
        let (Node::File(mode, bytes), Node::File(our_mode, our_bytes)) = (new, &self.tree[path].clone())
        else {
            panic!("two files")
        };
        let (base_mode, base_bytes) = match base.get(path) {
            Some(Node::File(mode, bytes)) => (Some(mode), Some(bytes)),
            _ => (None, None),
        };
        let changed_bytes = base_bytes != Some(bytes);
        let merged = Node::File(
            *if base_mode == Some(mode) { our_mode } else { mode },
            if changed_bytes { bytes } else { our_bytes }.clone(),
        );
        if changed_bytes && our_bytes != bytes && base_bytes != Some(our_bytes) {
            let local = Node::File(*our_mode, our_bytes.clone());
            self.aside.insert(path.to_vec(), Tree::from([(Vec::new(), local)]));
        }
        if merged != self.tree[path] {
            self.tree.insert(path.to_vec(), merged);
            self.written.insert(path.to_vec());
        }
    }

    /// Places an entry where no folder is.
    fn replace(&mut self, path: &[u8], new: &Node, base: &Tree) {
        let local = self.tree.insert(path.to_vec(), new.clone());
        self.written.insert(path.to_vec());
        if let Some(local) = local.filter(|local| base.get(path) != Some(local)) {
            self.aside.insert(path.to_vec(), Tree::from([(Vec::new(), local)]));
        }
    }

    /// Asserts that the workspace and the report are as expected.
    #[track_caller]
    pub fn assert_is(&self, workspace: &Path, report: &Report, what: &str) {
        assert_same(&read_tree(workspace), &self.tree, what);
        assert_paths(&report.written, &self.written, &format!("{what}: written"));
        assert_paths(&report.deleted, &self.deleted, &format!("{what}: deleted"));
        assert_paths(&report.left_in_place, &self.kept, &format!("{what}: kept"));
        let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.path.clone()).collect();
        assert_paths(&skipped, &self.skipped, &format!("{what}: skipped"));
        let conflicts: Vec<_> = report.conflicts.iter().map(|conflict| conflict.path.clone()).collect();
        assert_paths(&conflicts, &self.aside.keys().cloned().collect(), &format!("{what}: conflicts"));
        for conflict in &report.conflicts {
            let folder = format!("{RUNTIME}/conflicts/");
            assert!(conflict.backed_up_at.as_bytes().starts_with(folder.as_bytes()), "{what}: {conflict:?}");
            let kept_at = workspace.join(path_of(conflict.backed_up_at.as_bytes()));
            let node = read_node(&kept_at);
            let mut kept = if matches!(node, Node::Folder(_)) { read_tree(&kept_at) } else { Tree::new() };
            kept.insert(Vec::new(), node);
            assert_same(
                &kept,
                &self.aside[conflict.path.as_bytes()],
                &format!("{what}: kept at {}", kept_at.display()),
            );
        }
        if !report.conflicts.is_empty() {
            let ignored = std::fs::read(workspace.join(RUNTIME).join(".gitignore")).unwrap();
            assert_eq!(ignored, b"*\n", "{what}: what is kept aside stays out of git");
        }
    }
}

/// Asserts that a list of the report has exactly these paths, each once and sorted.
#[track_caller]
fn assert_paths(found: &[RelativePath], expected: &BTreeSet<Vec<u8>>, what: &str) {
    let show = |path: &[u8]| path.escape_ascii().to_string();
    let found: Vec<_> = found.iter().map(|path| show(path.as_bytes())).collect();
    let expected: Vec<_> = expected.iter().map(|path| show(path)).collect();
    assert_eq!(found, expected, "{what}");
}
