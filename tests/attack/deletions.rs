//! A restore that would delete most of a workspace backs up what it deletes.

use crate::place::{Place, restore};
use crate::tree::{DIR, Node, Tree, assert_same, change_tree, file, link, to_tar, tree};

/// That many files in folders, a few of them links.
fn many(files: usize) -> Tree {
    let mut found = Tree::new();
    for at in 0..files {
        found.insert(format!("d{}", at % 3).into(), DIR);
        let node = if at % 5 == 0 { link(format!("{at}")) } else { file(format!("{at}")) };
        found.insert(format!("d{}/{at}", at % 3).into(), node);
    }
    found
}

/// The files of a tree, without the first ones.
fn without(tree: &Tree, deleted: usize) -> (Tree, Tree) {
    let is_file = |node: &Node| !matches!(node, Node::Folder(_));
    let gone: Tree = tree
        .iter()
        .filter(|(_, node)| is_file(node))
        .take(deleted)
        .map(|(path, node)| (path.clone(), node.clone()))
        .collect();
    let mut left = tree.clone();
    left.retain(|path, _| !gone.contains_key(path));
    (left, gone)
}

#[test]
fn deletions_of_most_of_a_workspace_are_backed_up() {
    for (files, deleted, kept) in
        [(30, 30, true), (30, 20, true), (40, 20, false), (41, 21, true), (19, 19, false)]
    {
        let what = format!("{deleted} of {files}");
        let uploaded = many(files);
        let place = Place::with(&uploaded);
        let (client, session) = place.prepare_canned();
        let (left, gone) = without(&uploaded, deleted);
        client.answer(to_tar(&left).end());
        let report = restore(&session, &*client).unwrap();
        assert_same(&place.tree(), &left, &what);
        assert_eq!(report.deleted.len(), deleted, "{what}");
        assert_eq!(report.conflicts, [], "{what}: nobody's edit");
        let mut found: Tree = place.kept_aside().into_iter().collect();
        found.retain(|_, node| !matches!(node, Node::Folder(_)));
        assert_same(&found, if kept { &gone } else { const { &Tree::new() } }, &what);
        assert_eq!(report.deletions_backed_up.len(), if kept { deleted } else { 0 }, "{what}");
        for conflict in &report.deletions_backed_up {
            let kept = crate::tree::read_node(&place.at(conflict.backed_up_at.as_path()));
            assert_eq!(kept, gone[conflict.path.as_bytes()], "{what}");
        }
        place.assert_no_litter();
        // The next restore counts from what is there now.
        let report = restore(&session, &*client).unwrap();
        assert_eq!(report.deletions_backed_up, []);
    }
}

#[test]
fn an_edited_file_is_left_in_place_and_does_not_count_as_deleted() {
    let uploaded = many(30);
    let place = Place::with(&uploaded);
    let (client, session) = place.prepare_canned();
    let mut ours = uploaded.clone();
    ours.insert(b"d1/1".to_vec(), file("an edit"));
    change_tree(&place.workspace(), &uploaded, &ours);
    client.answer(to_tar(&Tree::new()).end());
    let report = restore(&session, &*client).unwrap();
    assert_same(&place.tree(), &tree([("d1", DIR), ("d1/1", file("an edit"))]), "all but the edit");
    assert_eq!((report.deletions_backed_up.len(), report.left_in_place.len()), (29, 1));
}
