//! Collects the objects of the sandbox in one temporary repository, checks them in another one, and only then
//! adds them.
//!
//! No git ever runs in a repository that the sandbox configured. The repository *theirs* is made here, with
//! our own configuration. It contains the sandbox's loose objects and packs, which are indexed again, and
//! finds other objects in the local repository. What is new in it is packed. That pack goes into the
//! repository *checked*, which contains nothing else and also finds other objects in the local repository. In
//! it, each object gets the name that its content has and is checked as by `git fsck --strict`, and
//! everything that the sandbox's references need must be found.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::command::{Call, Fault, Git};
use super::export::configuration;
use super::index::{self, Staged, is_empty_blob};
use super::keep;
use super::packs;
use super::quarantine::Received;
use super::refs::Oid;
use super::repository::{LIST_INDEX, Place, Types, between, lines, quoted, types};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::FileId;
use crate::fs::by_path::{self, make_folders, read, write};
use crate::path::{RelativePath, bytes_of};

/// Makes a repository that finds objects in the local one. It is made without git and without a template.
pub fn make_repository(folder: &Path, local: Option<&Place>, format: &str) -> Result<()> {
    for below in ["objects/pack", "objects/info", "refs"] {
        make_folders(&folder.join(below))?;
    }
    write(&folder.join("HEAD"), b"ref: refs/heads/none\n")?;
    let bare = Place {
        checkout: PathBuf::new(),
        id: FileId::default(),
        git_dir: PathBuf::new(),
        common_dir: PathBuf::new(),
        format: format.to_owned(),
        promisor: local.and_then(|place| place.promisor.clone()),
    };
    write(&folder.join("config"), &configuration(&bare, &Vec::new()))?;
    if let Some(place) = local {
        let objects = place.common_dir.join("objects");
        write(&folder.join("objects/info/alternates"), &[&quoted(bytes_of(&objects)), &b"\n"[..]].concat())?;
        if let Some(shallow) = read(&place.common_dir.join("shallow"))? {
            write(&folder.join("shallow"), &shallow)?;
        }
    }
    Ok(())
}

/// The repository with the sandbox's objects.
pub struct Theirs<'a> {
    pub git: &'a Git,
    pub local: Option<&'a Place>,
    pub format: String,
    pub folder: PathBuf,
    pub cancel: &'a Cancel,
}

impl<'a> Theirs<'a> {
    /// Makes this repository in the quarantine. The packs are indexed only when objects are needed.
    pub fn new(
        git: &'a Git,
        local: Option<&'a Place>,
        format: &str,
        received: &Received,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let folder = received.folder.join("theirs");
        make_repository(&folder, local, format)?;
        Ok(Self { git, local, format: format.to_owned(), folder, cancel })
    }

    fn call(&self, folder: &Path) -> Call<'_> {
        self.git.call(folder)
    }

    /// The listing of their index.
    pub fn index(&self, file: &Path) -> Result<Vec<u8>, Fault> {
        // Git looks for the other part of a split index in the git directory.
        let folder = file.parent().unwrap_or(file);
        let names = by_path::list(folder)?.into_iter();
        for name in names.filter(|name| bytes_of(Path::new(name)).starts_with(b"sharedindex.")) {
            by_path::rename(&folder.join(&name), &self.folder.join(&name))?;
        }
        self.list_index(file).bounded().run(self.cancel)
    }

    fn list_index(&self, file: &Path) -> Call<'_> {
        let mut call = self.call(&self.folder);
        call.env("GIT_INDEX_FILE", file).env("GIT_WORK_TREE", &self.folder).args(LIST_INDEX);
        call
    }

    /// The paths of their index among these that are only intended to be added (`git add -N`).
    pub fn intended(&self, file: &Path, paths: &HashSet<&[u8]>) -> Result<HashSet<Vec<u8>>, Fault> {
        let list = self.list_index(file).bounded().arg("--debug").run(self.cancel)?;
        Ok(index::intended(&list, paths))
    }

    /// Checks everything that is new, starting at the given tips and at the blobs of their index, and packs
    /// it. `known` are tips of the local repository, whose history is complete, and `commit` is what the
    /// sandbox has checked out.
    pub fn check(
        &self,
        received: &Received,
        tips: &BTreeSet<Oid>,
        blobs: &BTreeSet<Oid>,
        known: &BTreeSet<Oid>,
        commit: Option<&Oid>,
    ) -> Result<Checked, Fault> {
        let checked = received.folder.join("checked");
        let (mut tips, mut lacking) = (tips.clone(), BTreeSet::new());
        make_repository(&checked, self.local, &self.format)?;
        let here = types(&mut self.call(&checked), &tips.union(blobs).cloned().collect(), self.cancel)?;
        let pack = if self.is_all_here(&checked, commit, (&tips, blobs), known, &here)? {
            None
        } else {
            self.gather(received)?;
            let pack = received.folder.join("new.pack");
            let covered = self.covered(&self.folder, commit, blobs, &here)?;
            let mut blobs: BTreeSet<Oid> = blobs.difference(&covered).cloned().collect();
            let empty: BTreeSet<Oid> = blobs.iter().filter(|oid| is_empty_blob(oid)).cloned().collect();
            // An intent-to-add entry names the empty blob, which need not exist.
            let there = types(&mut self.call(&self.folder), &empty, self.cancel)?;
            blobs.retain(|oid| !empty.contains(oid) || there.contains_key(oid));
            let pack_from = |tips: &BTreeSet<Oid>| {
                let wanted = between(&tips.union(&blobs).cloned().collect(), known);
                let mut call = self.call(&self.folder);
                call.args(["pack-objects", "-q", "--revs", "--stdout", "--delta-base-offset", "--window=0"]);
                if is_partial(self.local) {
                    call.arg("--missing=allow-any");
                }
                call.input(wanted).into_file(&pack, self.cancel).map_err(|fault| because(MISSING, fault))
            };
            if let Err(fault) = pack_from(&tips) {
                // A branch that is shallow there must not keep the others back.
                let complete = self.complete(&tips, known)?;
                if !matches!(fault, Fault::Refused(_)) || complete.is_empty() || complete.len() == tips.len()
                {
                    return Err(fault);
                }
                pack_from(&complete)?;
                lacking = tips.difference(&complete).cloned().collect();
                tips = complete;
            }
            let index = |is_parsed_whole| {
                let mut call = self.call(&checked);
                if is_parsed_whole {
                    call.setting(PARSED_WHOLE);
                }
                call.args(["index-pack", "--stdin", "--fsck-objects"]).args(strict(self.local));
                call.input_file(&pack).output(self.cancel)
            };
            let mut output = index(false)?;
            let is_parsed_whole = output.stderr.windows(TOO_LARGE.len()).any(|said| said == TOO_LARGE);
            if is_parsed_whole {
                output = index(true)?;
            }
            if output.status != Some(0) {
                let said = output.complaint();
                return Err(Fault::Refused(format!("its new objects do not pass git fsck ({said})")));
            }
            Some(Pack { file: pack, is_parsed_whole })
        };
        connect(&mut self.call(&checked), self.local, &tips, known, self.cancel)
            .map_err(|fault| because("its history is not complete", fault))?;
        let kinds = types(&mut self.call(&checked), &tips.union(blobs).cloned().collect(), self.cancel)?;
        Ok(Checked { pack, kinds, lacking })
    }

    /// Those of some tips whose history is complete, down to the tips in `known`. None, if there are too many to try each.
    fn complete(&self, tips: &BTreeSet<Oid>, known: &BTreeSet<Oid>) -> Result<BTreeSet<Oid>, Fault> {
        let mut complete = BTreeSet::new();
        for tip in if tips.len() > TRIED_MAX { &complete } else { tips }.clone() {
            match connect(
                &mut self.call(&self.folder),
                self.local,
                &BTreeSet::from([tip.clone()]),
                known,
                self.cancel,
            ) {
                Ok(()) => drop(complete.insert(tip)),
                Err(Fault::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(complete)
    }

    /// Checks what is staged and may be a `.gitmodules` or `.gitattributes`. Git checks such a blob only as part of a tree, so
    /// each gets a tree of its own, which nobody keeps.
    pub fn check_settings(
        &self,
        received: &Received,
        staged: &[(RelativePath, Staged)],
    ) -> Result<(), Fault> {
        if staged.is_empty() {
            return Ok(());
        }
        let checked = received.folder.join("checked");
        let mut trees = Vec::new();
        for (path, Staged { mode, oid, .. }) in staged {
            let name = path.name().as_encoded_bytes();
            // An empty line ends a tree.
            trees.extend([mode, &b" blob "[..], oid.as_str().as_bytes(), b"\t", name, b"\0\0"].concat());
        }
        let mut objects =
            self.call(&checked).args(["mktree", "-z", "--batch"]).input(trees).run(self.cancel)?;
        objects.extend(lines(staged.iter().map(|(_, staged)| staged.oid.as_str())));
        let (folder, pack) = (received.folder.join("staged"), received.folder.join("staged.pack"));
        make_repository(&folder, self.local, &self.format)?;
        let mut call = self.call(&checked);
        call.args(["pack-objects", "-q", "--stdout", "--window=0"]).input(objects);
        call.into_file(&pack, self.cancel)?;
        let mut call = self.call(&folder);
        call.setting(PARSED_WHOLE).args(["index-pack", "--stdin", "--fsck-objects", "--strict"]);
        let checked = call.input_file(&pack).run(self.cancel).map(drop);
        // They are not part of what came, which may become a backup.
        by_path::remove_folder_all(&folder)?;
        by_path::remove_file(&pack)?;
        checked
    }

    /// Whether nothing has to be brought. What exists here and is reachable from nothing does not count, since it may be
    /// collected at any time.
    fn is_all_here(
        &self,
        checked: &Path,
        commit: Option<&Oid>,
        (tips, blobs): (&BTreeSet<Oid>, &BTreeSet<Oid>),
        known: &BTreeSet<Oid>,
        here: &Types,
    ) -> Result<bool, Fault> {
        if !tips.iter().chain(blobs).all(|oid| here.contains_key(oid)) {
            return Ok(false);
        }
        if !tips.is_subset(known) {
            let mut call = self.call(checked);
            let output = reachable(&mut call, self.local, tips, known).output(self.cancel)?;
            if output.status != Some(0) || !output.stdout.is_empty() {
                return Ok(false);
            }
        }
        Ok(blobs.is_subset(&self.covered(checked, commit, blobs, here)?))
    }

    /// The blobs that exist and need not be packed by name, since the tree of the commit has them.
    fn covered(
        &self,
        folder: &Path,
        commit: Option<&Oid>,
        blobs: &BTreeSet<Oid>,
        here: &Types,
    ) -> Result<BTreeSet<Oid>, Fault> {
        let mut covered: BTreeSet<Oid> =
            blobs.iter().filter(|oid| here.contains_key(*oid)).cloned().collect();
        // A partial clone may lack the tree.
        if covered.is_empty() || is_partial(self.local) {
            return Ok(covered);
        }
        let mut tree = BTreeSet::new();
        if let Some(commit) = commit {
            let mut call = self.call(folder);
            let list = call.bounded().args(["ls-tree", "-r", "-z", "--full-tree", commit.as_str()]);
            tree.extend(packs::blobs_in(&list.output(self.cancel)?.stdout));
        }
        covered.retain(|oid| tree.contains(oid));
        Ok(covered)
    }

    fn gather(&self, received: &Received) -> Result<(), Fault> {
        let objects = self.folder.join("objects");
        let loose = received.folder.join("objects");
        if received.loose {
            for folder in by_path::list(&loose)? {
                by_path::rename(&loose.join(&folder), &objects.join(&folder))?;
            }
        }
        for pack in &received.new_packs {
            let to = objects.join("pack").join(pack);
            let from = received.folder.join("packs").join(pack);
            if !by_path::exists(&from) {
                continue;
            }
            by_path::rename(&from, &to)?;
            let mut call = self.call(&self.folder);
            call.arg("index-pack")
                .arg(&to)
                .run(self.cancel)
                .map_err(|fault| because("a pack is damaged in the sandbox", fault))?;
        }
        Ok(())
    }
}

/// The setting for a check of a `.gitmodules` or `.gitattributes` that is larger than what git usually reads at once here.
/// Git itself accepts one of 100 MB at most.
const PARSED_WHOLE: &str = "core.bigFileThreshold=101m";

/// What git says of such a file if that setting is too small.
const TOO_LARGE: &[u8] = b"too large to parse";

/// The reason for refusing a repository whose objects are not complete.
pub(super) const MISSING: &str = "objects are missing or damaged in the sandbox";

/// The maximum number of tips of which it is tried whether they are complete.
const TRIED_MAX: usize = 200;

/// A pack of new objects.
#[derive(Debug, Clone)]
pub struct Pack {
    /// The pack.
    pub file: PathBuf,
    /// Whether [`PARSED_WHOLE`] is needed to check it.
    is_parsed_whole: bool,
}

/// Objects that passed the checks.
#[derive(Debug)]
pub struct Checked {
    /// The new objects, if there are any.
    pub pack: Option<Pack>,
    /// The types of the tips and of the index's blobs, if they exist.
    pub kinds: Types,
    /// The tips whose history has objects that are missing. Nothing of them is packed.
    pub lacking: BTreeSet<Oid>,
}

/// Adds the new objects to a repository, as a pack that is [protected](keep). Git writes it under a temporary name first.
pub fn add(git: &Git, place: &Place, pack: &Pack, cancel: &Cancel) -> Result<(), Fault> {
    let mut call = git.call(&place.git_dir);
    call.step();
    if pack.is_parsed_whole {
        call.setting(PARSED_WHOLE);
    }
    call.args(["index-pack", "--stdin"]).arg(format!("--keep={}", keep::text(place)));
    // Strict once more, since objects that the check found here may have been collected since.
    call.args(strict(Some(place))).input_file(&pack.file).run(cancel).map(|_| ())
}

/// Checks that the history of some tips is complete, down to the tips in `known`, whose history is.
pub fn connect(
    call: &mut Call<'_>,
    local: Option<&Place>,
    tips: &BTreeSet<Oid>,
    known: &BTreeSet<Oid>,
    cancel: &Cancel,
) -> Result<(), Fault> {
    if tips.is_empty() {
        return Ok(());
    }
    reachable(call, local, tips, known).arg("--quiet").run(cancel).map(|_| ())
}

/// Has git list what is reachable from some objects and not from others.
fn reachable<'c, 'g>(
    call: &'c mut Call<'g>,
    local: Option<&Place>,
    tips: &BTreeSet<Oid>,
    known: &BTreeSet<Oid>,
) -> &'c mut Call<'g> {
    call.args(["rev-list", "--objects", "--stdin"]);
    if is_partial(local) {
        call.arg("--exclude-promisor-objects");
    }
    call.input(between(tips, known))
}

/// Whether a repository is a partial clone, which lacks some objects.
fn is_partial(local: Option<&Place>) -> bool {
    local.is_some_and(|place| place.promisor.is_some())
}

/// The option by which git insists on every object that a new one names. A partial clone lacks some.
fn strict(local: Option<&Place>) -> Option<&'static str> {
    local.is_none_or(|place| place.promisor.is_none()).then_some("--strict")
}

/// Puts an explanation before the reason of a refusal.
pub fn because(what: &str, fault: Fault) -> Fault {
    match fault {
        Fault::Refused(reason) => Fault::Refused(format!("{what} ({reason})")),
        fault @ (Fault::Killed(_) | Fault::Error(_)) => fault,
    }
}
