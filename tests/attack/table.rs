//! The table of the merge, for every combination of entries in base, sandbox and workspace at one path.

use sandbox_managed_runtime::cancel::Cancel;
use sandbox_managed_runtime::fs::Root;
use sandbox_managed_runtime::tree::filter::Filter;
use sandbox_managed_runtime::tree::scan::snapshot;

use crate::model::merge;
use crate::place::{Place, begin_merge, restore};
use crate::tree::{DIR, Node, Picture, Tree, change_tree, file, link, to_tar, tree, write_tree};

/// Every entry that may be at the path `p`, by name.
fn states() -> Vec<(&'static str, Tree)> {
    vec![
        ("absent", Tree::new()),
        ("v1", tree([("p", file("one"))])),
        ("v2", tree([("p", file("two"))])),
        ("v3", tree([("p", file("three, and longer"))])),
        ("v1 executable", tree([("p", Node::File(0o755, b"one".to_vec()))])),
        ("v1 private", tree([("p", Node::File(0o600, b"one".to_vec()))])),
        ("v2 executable", tree([("p", Node::File(0o755, b"two".to_vec()))])),
        ("link", tree([("p", link("elsewhere"))])),
        ("other link", tree([("p", link("somewhere"))])),
        ("folder", tree([("p", DIR)])),
        ("private folder", tree([("p", Node::Folder(0o700))])),
        ("full folder", tree([("p", DIR), ("p/x", file("x")), ("p/y", DIR), ("p/y/z", link("x"))])),
        ("fuller folder", tree([("p", DIR), ("p/w", file("w")), ("p/x", file("xx")), ("p/y", file("y"))])),
        ("FIFO", tree([("p", Node::Fifo)])),
    ]
}

/// Names around `p` that sort between a folder and its content, and that nobody changes.
fn around() -> Tree {
    tree([("o", file("o")), ("p-", file("p-")), ("p.x", DIR), ("p.x/x", file("x")), ("q", link("p"))])
}

/// Every combination, in a folder of its own, as (base, sandbox, workspace); one set of trees for each base.
fn combinations() -> Vec<[Tree; 3]> {
    let mut sets = Vec::new();
    for (base_name, base) in states().into_iter().filter(|(name, _)| *name != "FIFO") {
        let mut set = [Tree::new(), Tree::new(), Tree::new()];
        for (theirs_name, theirs) in states() {
            for (ours_name, ours) in states() {
                let folder = format!("base {base_name}, sandbox {theirs_name}, here {ours_name}");
                for (tree, state) in set.iter_mut().zip([&base, &theirs, &ours]) {
                    tree.insert(folder.clone().into(), DIR);
                    for (path, node) in around().iter().chain(state) {
                        tree.insert([folder.as_bytes(), b"/", path].concat(), node.clone());
                    }
                }
            }
        }
        sets.push(set);
    }
    assert_eq!(sets.len(), 13);
    sets
}

#[test]
fn every_combination_is_restored_by_the_table() {
    for [base, theirs, ours] in combinations() {
        let place = Place::with(&base);
        let (client, session) = place.prepare_canned();
        change_tree(&place.workspace(), &base, &ours);
        client.answer(to_tar(&theirs).end());
        let report = restore(&session, &*client).unwrap();
        let outcome = merge(&base, &theirs, &ours);
        outcome.assert_is(&place.workspace(), &report, "first");
        place.assert_no_litter();

        // The base has moved on: the same download changes nothing any more.
        let before = Picture::of(&place.workspace());
        restore(&session, &*client).unwrap();
        assert_eq!(Picture::of(&place.workspace()), before);

        // The next download is compared with what the sandbox had, not with what was uploaded.
        let again = merge(&outcome.base, &base, &outcome.tree);
        client.answer(to_tar(&base).end());
        let report = restore(&session, &*client).unwrap();
        again.assert_is(&place.workspace(), &report, "second");
    }
}

#[test]
fn every_combination_is_merged_from_a_folder_by_the_table() {
    for [base, theirs, ours] in combinations() {
        let place = Place::with(&base);
        let source = place.root().join("source");
        std::fs::create_dir(&source).unwrap();
        write_tree(&source, &theirs);
        let workspace = Root::open(&place.workspace()).unwrap();
        let baseline = snapshot(&workspace, &Filter::default(), &Cancel::default()).unwrap();
        change_tree(&place.workspace(), &base, &ours);
        let mut merging = begin_merge(baseline, &source, &place.workspace()).unwrap();
        let report = merging.apply();
        merging.finish().unwrap();
        merge(&base, &theirs, &ours).assert_is(&place.workspace(), &report.unwrap(), "merged");
        place.assert_no_litter();
    }
}
