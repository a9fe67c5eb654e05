//! Creates a repository that is new in the sandbox.

use std::collections::BTreeSet;
use std::path::Path;

use super::merging::Merge;
use super::{Incoming, refuse};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::by_path::{self, write};
use crate::fs::{FileId, Kind, Onto, Renamed, Root, move_to, rename};
use crate::git::command::{Fault, Git, short};
use crate::git::config::{self, Settings};
use crate::git::export::{Base, configuration, locate};
use crate::git::objects;
use crate::git::refs::{Head, Refs};
use crate::git::report::{GitReport, HeldBack};
use crate::git::repository::{Place, Repository};
use crate::path::RelativePath;
use crate::tree::stage::{RuntimeFolder, remove_tree, remove_unused_runtime, runtime};

impl Incoming {
    pub(super) fn apply(
        &self,
        git: &Git,
        workspace: &Root,
        time: &str,
        report: &mut GitReport,
        cancel: &Cancel,
    ) -> Result<Base, Fault> {
        match &self.place {
            Some(place) => {
                let mut merge = Merge::new(Repository { git, place, cancel }, self, time, report);
                merge.run()?;
                Ok(merge.shared())
            }
            None => self.create(git, workspace, time, report, cancel),
        }
    }

    /// Creates a repository that is new in the sandbox: complete in the quarantine, then moved to its path.
    fn create(
        &self,
        git: &Git,
        workspace: &Root,
        time: &str,
        report: &mut GitReport,
        cancel: &Cancel,
    ) -> Result<Base, Fault> {
        let folder = self.folder.join("new");
        objects::make_repository(&folder, None, &self.format)?;
        let returned = config::come_back(&Settings::new(), &self.theirs.config, &config::Local::default());
        for (key, reason) in returned.held_back {
            report.held_back.push(HeldBack {
                path: self.dot_git.clone(),
                what: Some(key),
                reason: reason.to_owned(),
            });
        }
        let checkout = workspace.path_of(&self.dot_git);
        let mut place = Place {
            checkout: checkout.parent().unwrap_or(workspace.path()).to_path_buf(),
            id: FileId::default(),
            git_dir: folder.clone(),
            common_dir: folder.clone(),
            format: self.format.clone(),
            promisor: None,
        };
        write(&folder.join("config"), &configuration(&place, &returned.take))?;
        report.created.push(self.dot_git.clone());
        report.updated.extend(returned.take.iter().map(|(key, _)| (self.dot_git.clone(), short(key))));
        let staging = Place { checkout: self.folder.clone(), ..place.clone() };
        let repository = Repository { git, place: &staging, cancel };
        let empty = Base { refs: Refs::new(), ..self.base.clone() };
        let incoming = Incoming {
            dot_git: self.dot_git.clone(),
            place: Some(staging.clone()),
            base: empty,
            format: self.format.clone(),
            theirs: self.theirs.clone(),
            stashes: self.stashes.clone(),
            commits: self.commits.clone(),
            pack: self.pack.clone(),
            large_files: self.large_files.clone(),
            folder: self.folder.clone(),
            may_lack: false,
            index_is_unknown: self.index_is_unknown,
            obeyed: self.obeyed.clone(),
            changed: BTreeSet::new(),
            held_index: self.held_index.clone(),
            with_lacking: None,
        };
        if let Some(head) = &self.theirs.head {
            let text = match head {
                Head::Branch(name) => [b"ref: ", name.as_bytes(), b"\n"].concat(),
                Head::Detached(oid) => format!("{oid}\n").into_bytes(),
            };
            write(&folder.join("HEAD"), &text)?;
        }
        let mut merge = Merge::new(repository, &incoming, time, report);
        merge.run()?;
        let shared = merge.shared();
        let mut cursor = workspace.cursor();
        let parent = self.dot_git.parent();
        let parent_is_there = match &parent {
            None => true,
            Some(parent) => cursor.stat(parent)?.is_some_and(|meta| meta.kind == Kind::Folder),
        };
        if !parent_is_there {
            return refuse("its directory does not exist locally");
        }
        if cursor.stat(&self.dot_git)?.is_some() {
            return refuse("a local repository was made at that path as well");
        }
        move_into(&folder, workspace, &self.dot_git)?;
        let Some(meta) = cursor.stat(&self.dot_git)? else {
            return refuse("its directory does not exist locally");
        };
        place.id = meta.id;
        let place = locate(git, workspace, &self.dot_git, cancel).unwrap_or(place);
        Ok(Base { place: Some(place), ..shared })
    }
}

/// Moves one of our folders to a path of the workspace, through handles that follow no link. If it is on
/// another file system, it is first copied into this package's folder in the workspace, so that it appears at
/// its path complete.
fn move_into(folder: &Path, workspace: &Root, to: &RelativePath) -> Result<(), Fault> {
    let mut cursor = workspace.cursor();
    match move_to(folder, (&mut cursor, to))? {
        Renamed::OtherFileSystem | Renamed::Unsupported => {}
        renamed => return is_done(renamed),
    }
    let in_place = RuntimeFolder::open(workspace)?;
    let waiting = RelativePath::child(Some(&runtime()), b"new-repository");
    // A killed merge may have left one. Under the workspace's lock there is no other.
    remove_tree(workspace, &waiting)?;
    by_path::copy_folder(folder, &workspace.path_of(&waiting))?;
    let renamed = rename((&mut workspace.cursor(), &waiting), (&mut cursor, to), Onto::Nothing)?;
    if renamed != Renamed::Done {
        remove_tree(workspace, &waiting)?;
    }
    drop(in_place);
    remove_unused_runtime(workspace)?;
    is_done(renamed)
}

fn is_done(renamed: Renamed) -> Result<(), Fault> {
    match renamed {
        Renamed::Done => Ok(()),
        Renamed::Occupied => refuse("a local repository was made at that path as well"),
        Renamed::Absent => refuse("its directory does not exist locally"),
        _ => {
            refuse("its directory is on another file system than the workspace, to which it cannot be moved")
        }
    }
}
