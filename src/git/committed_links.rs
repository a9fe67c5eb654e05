//! Follows links that commits have at the paths of files that git runs, and that need not be in the workspace yet.
//!
//! A checkout of such a commit would put the link there, and the file at its end would be run.

use std::collections::BTreeSet;

use super::command::{Fault, Git};
use super::export::{Base, Bases};
use super::named::Named;
use super::recognise::in_checkout;
use super::refs::{Head, Oid};
use super::repository::Repository;
use super::search::Search;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::path::RelativePath;

/// The maximum number of new commits whose links are looked at, in one repository.
const TIPS_MAX: usize = 64;

/// The maximum number of links that are followed, in one repository.
const LINKS_MAX: usize = 256;

/// A target of so many bytes is too long for any link.
const TARGET_MAX: usize = 4096;

/// How git's listing of a tree begins for a link.
const LINK: &[u8] = b"120000 blob ";

/// The commits that the references, the stashes and `HEAD` of repositories name.
#[must_use]
pub fn tips(bases: &Bases) -> BTreeSet<Oid> {
    bases.values().flat_map(tips_of).cloned().collect()
}

fn tips_of(base: &Base) -> impl Iterator<Item = &Oid> {
    let detached = match &base.head {
        Some(Head::Detached(oid)) => Some(oid),
        _ => None,
    };
    base.refs.values().chain(&base.stashes).chain(detached)
}

/// Adds what is at the end of the links that new commits have at named paths: `known` are the commits from before. Returns whether there
/// is anything to tell: such links, or a repository in which not all could be looked at.
pub fn follow(
    named: &mut Named,
    git: &Git,
    shared: &Bases,
    known: &BTreeSet<Oid>,
    cancel: &Cancel,
) -> Result<bool> {
    let mut has_any = false;
    for (dot_git, base) in shared {
        let Some(place) = &base.place else { continue };
        let repository = Repository { git, place, cancel };
        let new: BTreeSet<Oid> = tips_of(base).filter(|oid| !known.contains(*oid)).cloned().collect();
        let checkout = dot_git.parent();
        match links_at_named(named, &repository, &new, checkout.as_ref()) {
            Ok(Links { links, is_all }) => {
                has_any |= !links.is_empty() || !is_all;
                for (path, target) in &links {
                    named.add_link(path, target);
                }
                if !is_all {
                    named.add_unfollowed(dot_git);
                }
            }
            Err(Fault::Refused(_) | Fault::Killed(_)) => {
                has_any = true;
                named.add_unfollowed(dot_git);
            }
            Err(Fault::Error(error)) => return Err(error),
        }
    }
    Ok(has_any)
}

/// The links at named paths.
struct Links {
    /// Their paths in the workspace, with their targets.
    links: BTreeSet<(RelativePath, Vec<u8>)>,
    /// Whether these are all.
    is_all: bool,
}

/// The links at named paths in these commits.
fn links_at_named(
    named: &Named,
    repository: &Repository<'_>,
    tips: &BTreeSet<Oid>,
    checkout: Option<&RelativePath>,
) -> Result<Links, Fault> {
    let mut found = BTreeSet::new();
    // A tag may name something that is no commit, and has no tree.
    let commits = repository.types(tips)?;
    let commits = commits.into_iter().filter(|(_, kind)| matches!(&kind[..], b"commit" | b"tag"));
    let mut is_all = tips.len() <= TIPS_MAX;
    for (tip, kind) in commits.take(TIPS_MAX) {
        let listed = repository
            .call()
            .bounded()
            .args(["ls-tree", "-r", "-z", "--full-tree", tip.as_str()])
            .output(repository.cancel)?;
        is_all &= listed.status == Some(0) || kind == b"tag";
        for line in listed.stdout.split(|&byte| byte == 0).filter_map(|line| line.strip_prefix(LINK)) {
            let mut fields = line.splitn(2, |&byte| byte == b'\t');
            let (oid, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let Ok(Some(path)) = in_checkout(checkout, path) else { continue };
            if named.reason(&path).or_else(|| named.reason_of_link(&path)).is_some()
                && let Some(oid) = Oid::parse(oid)
            {
                found.insert((path, oid));
            }
        }
    }
    is_all &= found.len() <= LINKS_MAX;
    let found: Vec<(RelativePath, Oid)> = found.into_iter().take(LINKS_MAX).collect();
    let search =
        Search { git: repository.git, repository: &repository.place.git_dir, cancel: repository.cancel };
    let contents = search.contents(&found.iter().map(|(_, oid)| oid.clone()).collect())?;
    // A link cannot be made of what is longer.
    let target = |oid: &Oid| contents.get(oid).filter(|target| target.len() < TARGET_MAX).cloned();
    let links = found.into_iter().filter_map(|(path, oid)| Some((path, target(&oid)?))).collect();
    Ok(Links { links, is_all })
}
