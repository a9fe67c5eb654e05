//! Runs every command that a sandbox is given, with each shell and each tar that a sandbox may have.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use sandbox_managed_runtime::archive::pack::Sent;
use sandbox_managed_runtime::exclude::PathSet;
use sandbox_managed_runtime::path::RelativePath;
use sandbox_managed_runtime::sandbox::answer::Answer;
use sandbox_managed_runtime::sandbox::command::{self, AssetUpload, Indexes, Places};
use sandbox_managed_runtime::sandbox::listing;
use sandbox_managed_runtime::transfer::parts::{
    Codec, Part, Trailer, Wish, download_part_path, part_list, part_path,
};
use tempfile::TempDir;

mod tools;

use tools::{Kind, installed};

const NONE: &[&str] = &[];
/// As one file, whatever its size, and not compressed.
const WHOLE: Wish = Wish { part_size: 1 << 40, compressed: false };
/// As if nothing had been transferred before.
const NO_INDEX: Indexes<'_> = Indexes { known: None, new: "made" };
const NOBODY: u32 = 65534;
/// The tools that every sandbox has.
const TOOLS: [&str; 10] = ["cat", "find", "head", "mkdir", "mv", "rm", "sh", "tail", "tar", "wc"];
/// The tools that are used if they are there.
const FURTHER_TOOLS: [&str; 11] =
    ["chmod", "cksum", "dd", "gunzip", "gzip", "id", "sed", "sha256sum", "sort", "stat", "zstd"];
const ID: &str = "0123456789abcdef";

fn has_gnu_tar(kind: Kind) -> bool {
    matches!(kind, Kind::Dash | Kind::Bash)
}

/// A sandbox: its tools, the user that runs its commands, and a place for its files.
struct Sandbox {
    kind: Kind,
    user: u32,
    place: TempDir,
}

impl Sandbox {
    fn new(kind: Kind, user: u32) -> Self {
        let place = tempfile::tempdir().unwrap();
        let sandbox = Self { kind, user, place };
        fs::create_dir(sandbox.tools()).unwrap();
        let further = FURTHER_TOOLS.iter().filter(|tool| kind.has(tool));
        TOOLS.iter().chain(further).for_each(|tool| sandbox.install(tool));
        sandbox.give(sandbox.place.path());
        sandbox
    }

    fn install(&self, tool: &str) {
        self.kind.install(tool, &self.tools());
    }

    /// Every kind, as root if the tests run as root, and as a user without rights.
    fn all() -> impl Iterator<Item = Self> {
        let me = rustix::process::geteuid().as_raw();
        let users = if me == 0 { vec![0, NOBODY] } else { vec![me] };
        Kind::ALL
            .into_iter()
            .flat_map(move |kind| users.clone().into_iter().map(move |user| Self::new(kind, user)))
    }

    fn all_without_rights() -> impl Iterator<Item = Self> {
        Self::all().filter(|sandbox| sandbox.user != 0)
    }

    fn tools(&self) -> PathBuf {
        self.place.path().join("tools")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn workspace(&self) -> PathBuf {
        self.path("workspace")
    }

    fn places(&self) -> Places {
        Places::new(text(&self.workspace()), "agent", ID)
    }

    fn runtime(&self) -> PathBuf {
        self.places().runtime_root().into()
    }

    fn own(&self) -> PathBuf {
        self.runtime().join(command::OWN).join(ID)
    }

    fn uploaded(&self) -> PathBuf {
        self.places().upload().into()
    }

    fn archive(&self) -> PathBuf {
        self.places().download().into()
    }

    fn give(&self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            lchown(path, Some(self.user), Some(self.user)).unwrap();
        }
    }

    fn folder(&self, path: &Path) {
        if !path.is_dir() {
            self.folder(path.parent().unwrap());
            fs::create_dir(path).unwrap();
            self.give(path);
        }
    }

    fn file(&self, path: &Path, content: impl AsRef<[u8]>) {
        self.folder(path.parent().unwrap());
        fs::write(path, content).unwrap();
        self.give(path);
    }

    fn link(&self, target: impl AsRef<Path>, path: &Path) {
        symlink(target, path).unwrap();
        self.give(path);
    }

    fn run_in(&self, prologue: &str, command: &str) -> Output {
        let mut shell = Command::new(self.tools().join("sh"));
        shell
            .arg("-c")
            .arg(format!("{prologue}\n{command}"))
            .env_clear()
            .env("PATH", self.tools())
            .current_dir("/");
        if rustix::process::geteuid().is_root() {
            shell.uid(self.user).gid(self.user);
        }
        shell.output().unwrap()
    }

    #[track_caller]
    fn succeeds_in(&self, prologue: &str, command: &str) {
        let output = self.run_in(prologue, command);
        assert!(output.status.success(), "{self}: {output:?}\n{command}");
    }

    #[track_caller]
    fn succeeds(&self, command: &str) {
        self.succeeds_in("umask 022", command);
    }

    /// The output of a failed command.
    #[track_caller]
    fn fails(&self, command: &str) -> String {
        let output = self.run_in("umask 022", command);
        assert!(!output.status.success(), "{self}: {output:?}\n{command}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Writes an upload, and returns the command for it.
    fn upload(&self, archive: &[u8], preserved: &[&str]) -> String {
        self.upload_to(&self.places(), archive, preserved, &[])
    }

    fn upload_to(&self, places: &Places, archive: &[u8], preserved: &[&str], exclude: &[&str]) -> String {
        let [preserved, exclude] =
            [preserved, exclude].map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        let upload = command::Upload {
            update: None,
            places,
            preserved: &preserved,
            preserved_files: &[],
            exclude: &exclude,
            holds_entries: archive.len() > 1024,
            expected: listing::digest(&sent(archive), &preserved),
        };
        let file = [archive, &upload.control(&[])].concat();
        self.file(Path::new(&places.upload()), &file);
        upload.command(0, Part::plain(archive.len() as u64), file.len() as u64)
    }

    /// Puts the script and its files where an upload leaves them, and returns the command for a download.
    fn download(&self, exclude: &[&str]) -> String {
        self.plant(&self.places(), exclude);
        command::download(&self.places(), NO_INDEX, WHOLE)
    }

    fn plant(&self, places: &Places, exclude: &[&str]) {
        let exclude: Vec<_> = exclude.iter().map(ToString::to_string).collect();
        let upload = command::Upload {
            update: None,
            places,
            preserved: &[],
            preserved_files: &[],
            exclude: &exclude,
            holds_entries: true,
            expected: listing::digest(&[], NONE),
        };
        let marks = Path::new(places.runtime_root()).join(command::OWN);
        self.file(&marks.join("mark"), format!("{ID}\n"));
        let own = marks.join(ID);
        // They may be others than those that an upload has noted.
        let _none = fs::remove_file(own.join("sum"));
        for (name, content) in read_bytes(&upload.control(&[])) {
            self.file(&own.join(name), content);
        }
    }

    fn status(&self) -> PathBuf {
        self.places().status().into()
    }

    fn tolerant_download(&self, exclude: &[&str]) -> String {
        self.plant(&self.places(), exclude);
        command::tolerant_download(&self.places(), NO_INDEX.new, WHOLE)
    }

    /// What the last download says about the sandbox, but for how many came before.
    fn answer(&self) -> Vec<u8> {
        let answer = self.whole_answer();
        let lines = answer.split_inclusive(|&byte| byte == b'\n').map(|line| {
            let is_count = |byte: &u8| byte.is_ascii_digit() || *byte == b'\n';
            match line.iter().rposition(|byte| !is_count(byte)) {
                Some(at) if line.starts_with(b"packed ") && line[at] == b' ' => [&line[..at], b"\n"].concat(),
                _ => line.to_vec(),
            }
        });
        lines.collect::<Vec<_>>().concat()
    }

    fn whole_answer(&self) -> Vec<u8> {
        let answer = self.places().answer();
        read_archive(&self.archive()).remove(OsStr::new(&answer)).expect("an answer")
    }

    /// The archive's entries by name without `./`, with their content.
    #[track_caller]
    fn packed(&self) -> BTreeMap<OsString, Vec<u8>> {
        self.packed_in(&self.archive())
    }

    #[track_caller]
    fn packed_in(&self, archive: &Path) -> BTreeMap<OsString, Vec<u8>> {
        let mut entries = read_archive(archive);
        let count = entries.len();
        entries.retain(|name, _| {
            !(name.as_bytes().starts_with(b".paperclip-runtime/") && name.as_bytes().ends_with(b"/answer"))
        });
        assert_eq!(entries.len() + 1, count, "{self}: no answer");
        // Toybox packs the folder itself, which counts only if it is the only entry.
        if self.kind == Kind::Toybox {
            assert!(entries.remove(OsStr::new("./")).is_some());
        }
        entries
    }

    #[track_caller]
    fn packed_names(&self) -> BTreeSet<OsString> {
        self.packed().into_keys().collect()
    }
}

impl std::fmt::Display for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} as user {}", self.kind, self.user)
    }
}

/// Writes a program of the sandbox's.
fn program(path: impl AsRef<Path>, script: impl AsRef<[u8]>) {
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn names_in(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn set<T: AsRef<OsStr>>(names: impl IntoIterator<Item = T>) -> BTreeSet<OsString> {
    names.into_iter().map(|name| name.as_ref().to_owned()).collect()
}

fn read_archive(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    read_bytes(&fs::read(path).unwrap())
}

/// The content of an archive, as a prepare knows it.
fn sent(bytes: &[u8]) -> Vec<(RelativePath, Sent)> {
    let mut archive = tar::Archive::new(bytes);
    let mut sent: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let (mode, mtime) = (header.mode().unwrap(), header.mtime().unwrap());
            let sent = match header.entry_type() {
                tar::EntryType::Directory => Sent::Folder { mode },
                tar::EntryType::Symlink => Sent::Symlink,
                _ => Sent::File { mode, size: header.size().unwrap(), mtime },
            };
            (RelativePath::parse(&entry.path_bytes()).unwrap().unwrap(), sent)
        })
        .collect();
    sent.sort_by(|a, b| a.0.cmp(&b.0));
    sent
}

fn read_bytes(bytes: &[u8]) -> BTreeMap<OsString, Vec<u8>> {
    let mut entries = BTreeMap::new();
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path_bytes().into_owned();
        let name = name.strip_prefix(b"./").filter(|name| !name.is_empty()).unwrap_or(&name);
        let name = name.strip_suffix(b"/").filter(|name| *name != b".").unwrap_or(name).to_vec();
        let mut content = entry.link_name_bytes().map_or(Vec::new(), std::borrow::Cow::into_owned);
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        assert!(entries.insert(OsString::from_vec(name), content).is_none(), "packed twice");
    }
    entries
}

/// The bytes of an upload: one file or folder for each mode, with content.
fn upload_archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, content: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    };
    add("open", tar::EntryType::Directory, 0o777, "");
    add("open/run", tar::EntryType::Regular, 0o755, "#!/bin/sh\n");
    add("private", tar::EntryType::Directory, 0o700, "");
    add("private/key", tar::EntryType::Regular, 0o600, "secret");
    add("shared", tar::EntryType::Regular, 0o666, "for all");
    add("fixed", tar::EntryType::Regular, 0o444, "read only");
    archive.into_inner().unwrap()
}

const UPLOADED_MODES: [(&str, u32); 6] = [
    ("open", 0o777),
    ("open/run", 0o755),
    ("private", 0o700),
    ("private/key", 0o600),
    ("shared", 0o666),
    ("fixed", 0o444),
];

#[test]
fn a_quoted_word_is_read_unchanged_by_the_shell() {
    for kind in [Kind::Dash, Kind::Bash, Kind::Busybox] {
        let sandbox = Sandbox::new(kind, NOBODY);
        for word in
            ["", "plain", "it's", "''", " a  b\n\t", "$HOME `id` \"q\" \\ * ~ # ; & | !", "-n", "ü\u{1}"]
        {
            let output = sandbox.run_in("", &format!("printf %s {}", command::quote(word)));
            assert_eq!(output.stdout, word.as_bytes(), "{sandbox}");
            let twice = command::quote(&format!("printf %s {}", command::quote(word)));
            assert_eq!(sandbox.run_in("", &format!("sh -c {twice}")).stdout, word.as_bytes(), "{sandbox}");
        }
    }
    assert_eq!(command::quote("it's"), r#"'it'"'"'s'"#);
}

#[test]
fn an_upload_keeps_modes_whatever_the_umask() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        for umask in ["umask 077", "umask 022", "umask 0"] {
            sandbox.file(&sandbox.workspace().join("stale/file"), "goes away");
            sandbox.succeeds_in(umask, &sandbox.upload(&archive, NONE));
            for (name, expected) in UPLOADED_MODES {
                let found = mode(&sandbox.workspace().join(name));
                assert_eq!(found, expected, "{sandbox} {umask}: {name} is {found:o}");
            }
            let top = [".paperclip-runtime", "fixed", "open", "private", "shared"];
            assert_eq!(names_in(&sandbox.workspace()), set(top), "{sandbox} {umask}");
            assert_eq!(names_in(&sandbox.runtime()), set([command::OWN]), "{sandbox}: the archive goes away");
            assert_eq!(
                names_in(&sandbox.own()),
                set(["control.sh", "downloads", "exclude", "parts", "script.sh", "sum"]),
                "{sandbox}"
            );
            let marks = sandbox.runtime().join(command::OWN);
            assert_eq!(names_in(&marks), set([ID, "mark"]), "{sandbox}");
            assert_eq!(fs::read_to_string(marks.join("mark")).unwrap(), format!("{ID}\n"));
            let ignore = sandbox.workspace().join(".paperclip-runtime/.gitignore");
            assert_eq!(fs::read_to_string(ignore).unwrap(), "*\n", "{sandbox}");
        }
    }
}

#[test]
fn a_new_workspace_gets_the_users_default_modes() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let workspace = sandbox.path("new/workspace");
        let places = Places::new(text(&workspace), "agent", ID);
        let command = sandbox.upload_to(&places, &archive, &[], &[]);
        // A client that makes no folders itself.
        let elsewhere = sandbox.path("upload.tar");
        fs::rename(places.upload(), &elsewhere).unwrap();
        fs::remove_dir_all(sandbox.path("new")).unwrap();
        let root = places.runtime_root();
        let make = format!("mkdir -p {root} && cat {} > {}", text(&elsewhere), places.upload());
        sandbox.succeeds_in("umask 077", &format!("{make} && {command}"));
        assert_eq!((mode(&sandbox.path("new")), mode(&workspace)), (0o700, 0o700), "{sandbox}");
        assert_eq!(mode(&workspace.join("open")), 0o777, "{sandbox}");
    }
}

#[test]
fn a_preserved_name_is_taken_literally() {
    let archive = upload_archive();
    let preserved = ["a*", "[b]", "c?", "d\\e", "f'g $h", "-i", "!", "sub/dir", ".cache", "line\nbreak", ""];
    let kept = ["a*", "[b]", "c?", "d\\e", "f'g $h", "-i", "!", ".cache", "line\nbreak"];
    let cleared = ["a", "ab", "b", "cd", "de", "d\\\\e", "-j", "..x", "sub", "break", "*"];
    for sandbox in Sandbox::all() {
        for name in kept.iter().chain(&cleared) {
            sandbox.file(&sandbox.workspace().join(name).join("dir"), *name);
        }
        sandbox.succeeds(&sandbox.upload(&archive, &preserved));
        let uploaded = [".paperclip-runtime", "fixed", "open", "private", "shared"];
        assert_eq!(names_in(&sandbox.workspace()), set(kept.iter().chain(&uploaded)), "{sandbox}");
        for name in kept {
            let file = sandbox.workspace().join(name).join("dir");
            assert_eq!(fs::read_to_string(file).unwrap(), name, "{sandbox}");
        }
    }
}

#[test]
fn an_incomplete_upload_changes_nothing() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let old = sandbox.workspace().join("old");
        let asset = sandbox.runtime().join("asset");
        sandbox.file(&old, "work");
        sandbox.file(&asset.join("old"), "asset");
        let upload = sandbox.upload(&archive, NONE);
        let whole = fs::read(sandbox.uploaded()).unwrap();
        let upload_asset = command::upload_asset(text(&asset), text(&sandbox.uploaded()), whole.len() as u64);
        let commands = [upload, upload_asset];
        for arrived in [&whole[..0], &whole[..700], &whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
            for command in &commands {
                sandbox.file(&sandbox.uploaded(), arrived);
                let said = sandbox.fails(command);
                assert!(said.contains(&format!("{} of", arrived.len())), "{sandbox}: {said}");
                assert!(said.contains(&whole.len().to_string()), "{sandbox}: {said}");
            }
        }
        for command in &commands {
            let _missing = fs::remove_file(sandbox.uploaded());
            assert!(sandbox.fails(command).contains("workspace-upload.tar"), "{sandbox}");
            assert!(!sandbox.own().join("archive").exists(), "{sandbox}");
        }
        assert_eq!(names_in(&sandbox.workspace()), set([".paperclip-runtime", "old"]), "{sandbox}");
        assert_eq!(fs::read_to_string(&old).unwrap(), "work", "{sandbox}");
        assert_eq!(fs::read_to_string(asset.join("old")).unwrap(), "asset", "{sandbox}");
    }
}

/// Two hosts upload to one sandbox: the archive of the second replaces that of the first before its command runs.
#[test]
fn an_archive_of_another_upload_is_refused_and_left_for_that() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let old = sandbox.workspace().join("old");
        sandbox.file(&old, "work");
        let first = sandbox.upload(&archive, NONE);
        let other = sandbox.places().for_upload(&ID.replace('a', "b").replace('1', "2"));
        let second = sandbox.upload_to(&other, &archive, NONE, &[]);
        let arrived = fs::read(sandbox.uploaded()).unwrap();
        let said = sandbox.fails(&first);
        assert!(said.contains("another upload has replaced this one's archive"), "{sandbox}: {said}");
        assert_eq!(fs::read_to_string(&old).unwrap(), "work", "{sandbox}");
        assert_eq!(fs::read(sandbox.uploaded()).unwrap(), arrived, "{sandbox}");
        assert!(!sandbox.own().exists(), "{sandbox}");
        sandbox.succeeds(&second);
        assert!(!old.exists(), "{sandbox}");
        assert_eq!(sandbox.leftovers(), set(NONE), "{sandbox}");
    }
}

/// An archive that arrives under the same name while the command runs changes nothing of that.
#[test]
fn an_archive_that_arrives_during_an_upload_stays_for_its_own() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let upload = sandbox.upload(&archive, NONE);
        let moment = r#"exec sh "$o/control.sh""#;
        let during = format!("echo another > \"${{a%/.paperclip/*}}/workspace-upload.tar\" && {moment}");
        let upload = upload.replace(moment, &during);
        assert!(upload.contains("another"), "{upload}");
        sandbox.succeeds(&upload);
        for (name, expected) in UPLOADED_MODES {
            assert_eq!(mode(&sandbox.workspace().join(name)), expected, "{sandbox}: {name}");
        }
        assert_eq!(fs::read_to_string(sandbox.uploaded()).unwrap(), "another\n", "{sandbox}");
    }
}

#[test]
fn an_archive_that_cannot_be_extracted_fails_the_upload() {
    for sandbox in Sandbox::all() {
        let upload = sandbox.upload(&upload_archive(), NONE);
        let mut broken = fs::read(sandbox.uploaded()).unwrap();
        broken[..1024].fill(b'x');
        sandbox.file(&sandbox.uploaded(), &broken);
        sandbox.fails(&upload);
        sandbox.fails(&command::upload_asset(
            text(&sandbox.runtime().join("asset")),
            text(&sandbox.uploaded()),
            broken.len() as u64,
        ));
    }
}

#[test]
fn read_only_folders_are_cleared_and_replaced_like_others() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let asset = sandbox.runtime().join("asset");
        for folder in [sandbox.workspace().join("module"), asset.clone()] {
            for (name, bits) in [("cache/deep", 0o555), ("cache", 0o555), ("closed", 0o0), ("", 0o500)] {
                let folder = folder.join(name);
                sandbox.file(&folder.join("file"), "");
                fs::set_permissions(&folder, Permissions::from_mode(bits)).unwrap();
            }
        }
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        assert!(!sandbox.workspace().join("module").exists(), "{sandbox}");
        sandbox.file(&sandbox.uploaded(), &archive);
        let command = command::upload_asset(text(&asset), text(&sandbox.uploaded()), archive.len() as u64);
        sandbox.succeeds(&command);
        assert_eq!(names_in(&asset), set(["fixed", "open", "private", "shared"]), "{sandbox}");
    }
}

#[test]
fn a_workspace_that_cannot_be_cleared_fails_the_upload() {
    let archive = upload_archive();
    for sandbox in Sandbox::all_without_rights().filter(|_| rustix::process::geteuid().is_root()) {
        // It belongs to another user.
        let stuck = sandbox.workspace().join("stuck");
        sandbox.folder(&sandbox.workspace());
        fs::create_dir(&stuck).unwrap();
        fs::write(stuck.join("file"), "").unwrap();
        let said = sandbox.fails(&sandbox.upload(&archive, NONE));
        assert!(said.contains("denied"), "{sandbox}: {said}");
    }
}

/// The user's home, the folder above it, and folders of the system are not cleared; folders in them may be.
#[test]
fn a_folder_that_is_not_the_workspaces_own_is_refused_before_anything_is_cleared() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        for (home, workspace, refused) in [
            ("home/user", "home/user", true),
            ("home/user", "home", true),
            ("home/user", "home/user/work", false),
            ("home/user", "home/use", false),
            ("home/user", "home/user2", false),
            ("home/link", "home/real", true),
            ("home/real", "home/link", true),
        ] {
            let [home, workspace] = [home, workspace].map(|path| sandbox.path(path));
            sandbox.folder(&sandbox.path("home/real"));
            if !sandbox.path("home/link").is_symlink() {
                sandbox.link("real", &sandbox.path("home/link"));
            }
            sandbox.folder(&home);
            let precious = workspace.join("precious");
            sandbox.file(&precious, "");
            let command = sandbox.upload_to(&Places::new(text(&workspace), "agent", ID), &archive, &[], &[]);
            let set_home = format!("HOME={}; export HOME", command::quote(text(&home)));
            if refused {
                let output = sandbox.run_in(&set_home, &command);
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(!output.status.success() && said.contains("home directory"), "{sandbox}: {said}");
                assert!(said.contains("nothing was changed"), "{sandbox}: {said}");
                assert!(precious.exists(), "{sandbox}: {}", workspace.display());
            } else {
                sandbox.succeeds_in(&set_home, &command);
                assert!(!precious.exists(), "{sandbox}: {}", workspace.display());
            }
        }
    }
}

/// The script's own check, with the working folder that it would find.
#[test]
fn folders_of_the_system_are_refused() {
    let script =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../src/sandbox/control.sh")).unwrap();
    let functions = &script[..script.find("\nstep=").unwrap()];
    for kind in [Kind::Dash, Kind::Bash, Kind::Busybox] {
        let sandbox = Sandbox::new(kind, NOBODY);
        for (folder, refused) in [
            ("/", true),
            ("/etc", true),
            ("/etc/ssh", true),
            ("/usr", true),
            ("/usr/local", true),
            ("/usr/bin", true),
            ("/usr/lib/x", true),
            ("/usr/src/app", false),
            ("/var", true),
            ("/var/tmp", true),
            ("/var/www", false),
            ("/home", true),
            ("/home/user/work", false),
            ("/tmp", true),
            ("/tmp/work", false),
            ("/opt", true),
            ("/opt/app", false),
            ("/root", true),
            ("/srv", true),
            ("/mnt", true),
            ("/mnt/work", false),
            ("/dev", true),
            ("/proc/1", true),
            ("/workspace", false),
            ("/workspaces", false),
            ("/app", false),
            ("/data", false),
        ] {
            let body = format!(
                "own=/x; HOME=; {functions}\npwd() {{ printf '%s\\n' {folder}; }}\nid() {{ :; }}\ncheck_place"
            );
            let output = sandbox.run_in("", &body);
            assert_eq!(!output.status.success(), refused, "{sandbox}: {folder}: {output:?}");
        }
    }
}

#[test]
fn a_sandbox_tells_which_upload_it_has() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        let commands = [
            command::download(&sandbox.places(), NO_INDEX, WHOLE),
            command::tolerant_download(&sandbox.places(), NO_INDEX.new, WHOLE),
        ];
        for command in &commands {
            sandbox.succeeds(command);
            assert_eq!(sandbox.answer(), sandbox.says(ID), "{sandbox}");
        }
        // Another upload into the same workspace, for another adapter or the same one.
        for (adapter, id) in [("other", "1"), (".hidden", "2"), ("..x", "3"), ("agent", "4")] {
            let other = Places::new(text(&sandbox.workspace()), adapter, id);
            let command = sandbox.upload_to(&other, &archive, &[], &[]);
            sandbox.succeeds(&command);
            // The script may be gone; then the tolerant command brings it along.
            sandbox.succeeds(&format!("{} || {}", commands[0], commands[1]));
            assert_eq!(sandbox.answer(), sandbox.says(id), "{sandbox}");
        }
        // A command that fails before that changes nothing for an older session.
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        let other = Places::new(text(&sandbox.workspace()), "agent", "5");
        let command = sandbox.upload_to(&other, &archive, &[], &["open"]);
        sandbox.fails(&command.replace("exec sh \"$o/control.sh\" upload", "exit 1"));
        sandbox.succeeds(&commands[0]);
        assert_eq!(sandbox.answer(), sandbox.says(ID), "{sandbox}");
        assert_eq!(sandbox.packed_names(), set(UPLOADED_MODES.map(|(name, _)| name)), "{sandbox}");
        // As after `git clean -fdx`.
        fs::remove_dir_all(sandbox.workspace().join(".paperclip-runtime")).unwrap();
        sandbox.fails(&commands[0]);
        sandbox.succeeds(&commands[1]);
        assert_eq!(sandbox.answer(), sandbox.says(""), "{sandbox}");
        assert_eq!(fs::read_to_string(sandbox.status()).unwrap(), "0\n", "{sandbox}");
    }
}

#[test]
fn each_download_tells_how_many_came_before() {
    for sandbox in Sandbox::all() {
        sandbox.succeeds(&sandbox.upload(&upload_archive(), NONE));
        let tolerant = command::tolerant_download(&sandbox.places(), NO_INDEX.new, WHOLE);
        let commands = [command::download(&sandbox.places(), NO_INDEX, WHOLE), tolerant];
        for (at, command) in commands.iter().chain(&commands).enumerate() {
            sandbox.succeeds(command);
            assert_eq!(Answer::parse(Some(&sandbox.whole_answer())).earlier, Some(at as u64), "{sandbox}");
        }
        // Without the number it does not begin anew in silence.
        fs::remove_dir_all(sandbox.workspace().join(".paperclip-runtime")).unwrap();
        for earlier in [None, Some(1)] {
            sandbox.succeeds(&commands[1]);
            assert_eq!(Answer::parse(Some(&sandbox.whole_answer())).earlier, earlier, "{sandbox}");
        }
    }
}

#[test]
fn a_download_is_cleared_by_its_own_session_alone() {
    const CUT: Wish = Wish { part_size: 1 << 16, compressed: false };
    for sandbox in Sandbox::all() {
        sandbox.file(&sandbox.workspace().join("file"), vec![b'x'; 100_000]);
        sandbox.plant(&sandbox.places(), &[]);
        for name in ["one", "two"] {
            let indexes = Indexes { new: name, ..NO_INDEX };
            sandbox.succeeds(&command::download(&sandbox.places(), indexes, CUT));
        }
        sandbox.succeeds(&command::clear_download(&sandbox.places(), "one"));
        let parts = ["workspace-download.tar", "workspace-download.tar.2-two"];
        assert_eq!(sandbox.leftovers(), set(parts), "{sandbox}");
        sandbox.succeeds(&command::clear_download(&sandbox.places(), "two"));
        assert_eq!(sandbox.leftovers(), set(NONE), "{sandbox}");
    }
}

/// An agent that edits all files below its workspace may mean `cache`, and hit the list of what is left out.
#[test]
fn a_script_or_a_list_of_patterns_that_was_edited_is_not_used() {
    for sandbox in Sandbox::all() {
        let tolerant = command::tolerant_download(&sandbox.places(), NO_INDEX.new, WHOLE);
        let download = command::download(&sandbox.places(), NO_INDEX, WHOLE);
        for name in ["control.sh", "script.sh", "exclude"] {
            let upload = sandbox.upload_to(&sandbox.places(), &upload_archive(), NONE, &["cache", "script"]);
            sandbox.succeeds(&upload);
            sandbox.succeeds(&download);
            for folder in ["cache", "vendor"] {
                sandbox.file(&sandbox.workspace().join(folder).join("file"), "");
            }
            let file = sandbox.own().join(name);
            let text = fs::read_to_string(&file).unwrap();
            let edited = text.replace("cache", "vendor").replace("script", "scrypt");
            assert_ne!(text, edited, "{sandbox}: {name}");
            fs::write(&file, edited).unwrap();
            for attempt in 0..2 {
                let said = sandbox.fails(&download);
                assert!(said.contains("was changed"), "{sandbox}: {said}");
                sandbox.succeeds(&tolerant);
                assert!(
                    sandbox.packed_names().contains(OsStr::new("vendor/file")),
                    "{sandbox}: {name}, {attempt}"
                );
            }
            sandbox.fails(&command::changed(&sandbox.places(), ID, "next", &[]));
        }
    }
}

/// The script that a tolerant download brings along knows fewer steps than that of the upload.
#[test]
fn a_tolerant_download_leaves_the_script_of_the_upload() {
    for sandbox in Sandbox::all() {
        sandbox.succeeds(&sandbox.upload(&upload_archive(), NONE));
        sandbox.succeeds(&command::tolerant_download(&sandbox.places(), NO_INDEX.new, WHOLE));
        sandbox.succeeds(&command::download(&sandbox.places(), NO_INDEX, WHOLE));
    }
}

#[test]
fn folders_of_ours_that_an_agent_made_read_only_are_used_all_the_same() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let places = sandbox.places();
        let tolerant = command::tolerant_download(&places, NO_INDEX.new, WHOLE);
        let download = command::download(&places, NO_INDEX, WHOLE);
        let next = places.for_upload("next");
        for take in ["chmod 555 .", "chmod -R a-w .", "chmod -R a-w .paperclip-runtime"] {
            sandbox.succeeds(&sandbox.upload(&archive, NONE));
            sandbox.succeeds(&download);
            let take = format!("cd {} && {take}", command::quote(text(&sandbox.workspace())));
            sandbox.succeeds(&take);
            sandbox.succeeds(&format!("{download} 2>/dev/null || {tolerant}"));
            assert_eq!(sandbox.packed_names(), set(UPLOADED_MODES.map(|(name, _)| name)), "{sandbox} {take}");
            sandbox.succeeds(&take);
            let _no_index = sandbox.run_in("umask 022", &command::changed(&places, ID, "told", &[]));
            sandbox.succeeds(&format!("echo > {}", command::quote(&places.upload())));
            sandbox.succeeds(&sandbox.upload_to(&next, &archive, NONE, &[]));
        }
    }
}

#[test]
fn what_stands_in_the_place_of_our_own_files_is_removed() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        sandbox.install("ln");
        let places = sandbox.places();
        let tolerant = command::tolerant_download(&places, NO_INDEX.new, WHOLE);
        let download = command::download(&places, NO_INDEX, WHOLE);
        let next = places.for_upload("next");
        for obstacle in [
            "rm .gitignore && ln -s nowhere/x .gitignore",
            "rm agent/.paperclip/mark && mkdir -p agent/.paperclip/mark/x",
            "rm -f agent/workspace-download.tar && mkdir -p agent/workspace-download.tar/x",
            "rm -f agent/workspace-download.tar.names && mkdir -p agent/workspace-download.tar.names/x",
            "mkdir -p agent/workspace-upload.tar/x",
            "cd agent && rm -f workspace-changes.txt && mkdir -p workspace-changes.txt/x workspace-download.status/x",
            "rm -rf agent && echo > agent",
            "rm -rf agent/.paperclip && echo > agent/.paperclip",
            "rm -rf agent/.paperclip && ln -s nowhere agent/.paperclip",
        ] {
            let runtime = sandbox.workspace().join(".paperclip-runtime");
            let obstacle = format!("cd {} && {obstacle}", command::quote(text(&runtime)));
            for is_restored in [true, false] {
                sandbox.succeeds(&sandbox.upload(&archive, NONE));
                sandbox.succeeds(&download);
                sandbox.succeeds(&obstacle);
                if is_restored {
                    sandbox.succeeds(&format!("{download} 2>/dev/null || {tolerant}"));
                    let all = set(UPLOADED_MODES.map(|(name, _)| name));
                    assert_eq!(sandbox.packed_names(), all, "{sandbox} {obstacle}");
                }
                let _no_index = sandbox.run_in("umask 022", &command::changed(&places, ID, "told", &[]));
                sandbox.succeeds(&sandbox.upload_to(&next, &archive, NONE, &[]));
                let ignore = runtime.join(".gitignore");
                assert_eq!(fs::read_to_string(ignore).unwrap(), "*\n", "{sandbox} {obstacle}");
            }
        }
    }
}

/// A program of a sandbox that waits, where its arguments match a pattern of the shell, until it is let go.
struct SlowProgram {
    path: String,
    begun: PathBuf,
    go: PathBuf,
}

impl SlowProgram {
    fn new(sandbox: &Sandbox, name: &str, pattern: &str) -> Self {
        sandbox.install("sleep");
        let [begun, go, folder] = ["begun", "go", "slow"].map(|name| sandbox.path(name));
        fs::create_dir(&folder).unwrap();
        let script = format!(
            "#!/bin/sh\ncase $* in {pattern}) : > {0}; while [ ! -e {1} ]; do sleep 0.1; done ;; esac\nexec {2}/{name} \"$@\"\n",
            text(&begun),
            text(&go),
            text(&sandbox.tools())
        );
        program(folder.join(name), script);
        Self { path: format!("PATH={}:$PATH", text(&folder)), begun, go }
    }

    /// Starts a second command while the first one is in this program. It must not end before the first one, and both must succeed.
    fn assert_waits(&self, sandbox: &Sandbox, first: &str, second: &str, what: &str) {
        for file in [&self.begun, &self.go] {
            drop(fs::remove_file(file));
        }
        thread::scope(|scope| {
            let first = scope.spawn(|| sandbox.run_in(&self.path, first));
            while !self.begun.exists() {
                thread::sleep(Duration::from_millis(5));
            }
            let second = scope.spawn(|| sandbox.run_in("", second));
            thread::sleep(Duration::from_millis(300));
            assert!(!second.is_finished(), "{sandbox}, {what}");
            fs::write(&self.go, "").unwrap();
            for command in [first, second] {
                let output = command.join().unwrap();
                assert!(output.status.success(), "{sandbox}, {what}: {output:?}");
            }
        });
    }
}

/// A command goes on where the process here that started it was killed. What it clears must not be what a later one
/// extracted, which would then look deleted.
#[test]
fn an_upload_waits_for_one_that_still_runs_and_not_for_one_that_has_ended() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        let first =
            sandbox.upload_to(&Places::new(text(&sandbox.workspace()), "other", "1"), &archive, &[], &[]);
        // Its removal takes as long as that of many files. The second one would have cleared the workspace meanwhile, and extracted
        // its own.
        let slow = SlowProgram::new(&sandbox, "rm", "*./*");
        slow.assert_waits(&sandbox, &first, &sandbox.upload(&archive, NONE), "upload");
        sandbox.succeeds(&sandbox.download(&[]));
        assert!(sandbox.answer().starts_with(format!("mark {ID}\n").as_bytes()), "{sandbox}");
        assert_eq!(sandbox.packed_names(), set(UPLOADED_MODES.map(|(name, _)| name)), "{sandbox}");

        // One that was killed has left its file, with the number of no process, of another program, or none yet.
        let uploading = sandbox.workspace().join(".paperclip-runtime/uploading");
        assert!(!uploading.exists(), "{sandbox}");
        for left in ["4194304\n".to_owned(), format!("{}\n", std::process::id()), String::new()] {
            sandbox.file(&uploading, &left);
            sandbox.succeeds(&sandbox.upload(&archive, NONE));
            assert!(!uploading.exists(), "{sandbox}: {left}");
        }
    }
}

/// A restore that was killed, or whose client gave up, leaves its command behind. The next one must not pack into its files.
#[test]
fn a_download_waits_for_one_that_still_runs_and_has_a_name_of_its_own() {
    for sandbox in Sandbox::all() {
        sandbox.file(&sandbox.workspace().join("file"), "content");
        sandbox.plant(&sandbox.places(), &[]);
        let slow = SlowProgram::new(&sandbox, "tar", "*-cf*");
        let places = sandbox.places();
        for way in ["download", "tolerant"] {
            let download = |name| match way {
                "tolerant" => command::tolerant_download(&places, name, WHOLE),
                _ => command::download(&places, Indexes { new: name, ..NO_INDEX }, WHOLE),
            };
            slow.assert_waits(&sandbox, &download("one"), &download("two"), way);
            let answer = sandbox.answer();
            assert!(answer.ends_with(b"packed two\n"), "{sandbox}, {way}: {}", answer.escape_ascii());
            let archive = fs::read(sandbox.archive()).unwrap();
            assert_eq!(Trailer::split(&archive).unwrap().unwrap().1.name, "two", "{sandbox}, {way}");
            assert_eq!(sandbox.packed_names(), set(["file"]), "{sandbox}, {way}");
            let working = sandbox.workspace().join(".paperclip-runtime/uploading");
            assert!(!working.exists(), "{sandbox}, {way}");
        }
    }
}

/// Nothing that an agent does to the runtime folder keeps uploads out.
#[test]
fn an_upload_does_without_the_file_for_others_where_that_cannot_be_made() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        sandbox.install("sleep");
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        let runtime = sandbox.workspace().join(".paperclip-runtime");
        sandbox.folder(&runtime.join("uploading"));
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        assert!(!runtime.join("uploading").exists(), "{sandbox}");
        fs::set_permissions(&runtime, Permissions::from_mode(0o555)).unwrap();
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        if rustix::process::geteuid().is_root() {
            // Nor does a folder of another user.
            fs::set_permissions(&runtime, Permissions::from_mode(0o555)).unwrap();
            lchown(&runtime, Some(0), Some(0)).unwrap();
            sandbox.succeeds(&sandbox.upload(&archive, NONE));
            sandbox.give(&runtime);
        }
    }
}

/// What another upload cleared while a download was packed must not look deleted.
#[test]
fn a_download_fails_if_another_upload_begins_while_it_is_packed() {
    for sandbox in Sandbox::all() {
        sandbox.file(&sandbox.workspace().join("a"), "content");
        let commands = [sandbox.download(&[]), sandbox.tolerant_download(&[])];
        let mark = sandbox.runtime().join(command::OWN).join("mark");
        fs::create_dir(sandbox.path("late")).unwrap();
        let tar = format!(
            "#!/bin/sh\n{}/tar \"$@\" || exit\ncase $1 in -c*) echo 2 > {} ;; esac\n",
            text(&sandbox.tools()),
            text(&mark)
        );
        program(sandbox.path("late/tar"), tar);
        for command in commands {
            sandbox.file(&mark, format!("{ID}\n"));
            sandbox.succeeds(&command);
            let output = sandbox.run_in(&format!("PATH={}:$PATH", text(&sandbox.path("late"))), &command);
            assert!(!output.status.success(), "{sandbox}: {output:?}");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(told.contains("another upload into this workspace has begun"), "{sandbox}: {told}");
            assert!(!sandbox.archive().exists(), "{sandbox}");
        }
    }
}

/// What was packed is compared with what was extracted, as far as the sandbox's tools allow.
#[test]
fn a_sandbox_lists_its_content_only_if_it_differs_from_what_was_packed() {
    let archive = upload_archive();
    for mut sandbox in Sandbox::all() {
        for without in [None, Some("sha256sum"), Some("stat"), Some("sort")] {
            sandbox.place = Sandbox::new(sandbox.kind, sandbox.user).place;
            if let Some(tool) = without {
                fs::remove_file(sandbox.tools().join(tool)).unwrap();
            }
            let tools = sandbox.tools();
            // A tar that loses a file, for example because it strips a part of its name.
            for (lose, lost) in [
                ("", &[][..]),
                ("rm -f private/key &&", &["private/key"]),
                (
                    "rm -rf open private shared fixed &&",
                    &["fixed", "open", "open/run", "private", "private/key", "shared"],
                ),
            ] {
                let tar = tools.join("tar");
                fs::remove_file(&tar).unwrap();
                fs::write(&tar, format!("#!/bin/sh\ncase $1 in -xpf) ;; *) lose=no ;; esac\n{} \"$@\" && {{ [ -n \"$lose\" ] || {lose} :; }}\n", {
                    let real = installed(sandbox.kind.program("tar"));
                    match sandbox.kind {
                        Kind::Busybox | Kind::Toybox => format!("{} tar", real.display()),
                        _ => real.display().to_string(),
                    }
                })).unwrap();
                fs::set_permissions(&tar, Permissions::from_mode(0o755)).unwrap();
                sandbox.succeeds(&sandbox.upload(&archive, NONE));
                sandbox.succeeds(&command::download(&sandbox.places(), NO_INDEX, WHOLE));
                let answer = sandbox.answer();
                let list = answer.strip_prefix(&*sandbox.says(ID)).unwrap();
                let Some(list) = list.strip_prefix(b"listed\n") else {
                    assert!(
                        list.is_empty() && lost.is_empty(),
                        "{sandbox} {without:?}: {}",
                        list.escape_ascii()
                    );
                    continue;
                };
                assert!(without.is_some() || !lost.is_empty(), "{sandbox}: {}", list.escape_ascii());
                let found = listing::compare(&sent(&archive), list, &PathSet::default());
                let expected = lost;
                assert_eq!(
                    found.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    expected,
                    "{sandbox} {without:?}"
                );
                assert_eq!(found.modes, [], "{sandbox} {without:?}");
            }
        }
    }
}

#[test]
fn a_workspace_behind_a_link_stays_a_link() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let real = sandbox.path("disk");
        sandbox.file(&real.join("stale"), "");
        sandbox.link("disk", &sandbox.workspace());
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        assert!(sandbox.workspace().is_symlink(), "{sandbox}");
        assert_eq!(
            names_in(&real),
            set([".paperclip-runtime", "fixed", "open", "private", "shared"]),
            "{sandbox}"
        );
        sandbox.succeeds(&sandbox.download(NONE));
        assert_eq!(sandbox.packed_names(), set(UPLOADED_MODES.map(|(name, _)| name)), "{sandbox}");
    }
}

#[test]
fn a_link_in_the_workspace_is_cleared_and_not_followed() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let outside = sandbox.path("outside/file");
        sandbox.file(&outside, "precious");
        sandbox.folder(&sandbox.workspace());
        sandbox.link(outside.parent().unwrap(), &sandbox.workspace().join("link"));
        sandbox.succeeds(&sandbox.upload(&archive, NONE));
        assert!(!sandbox.workspace().join("link").is_symlink() && outside.exists(), "{sandbox}");

        let asset = sandbox.runtime().join("asset");
        sandbox.file(&sandbox.uploaded(), &archive);
        sandbox.link(outside.parent().unwrap(), &asset);
        let command = command::upload_asset(text(&asset), text(&sandbox.uploaded()), archive.len() as u64);
        sandbox.succeeds(&command);
        assert!(asset.is_dir() && !asset.is_symlink(), "{sandbox}");
        assert_eq!(names_in(outside.parent().unwrap()), set(["file"]), "{sandbox}");
    }
}

#[test]
fn an_asset_is_replaced() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        let asset = sandbox.runtime().join("it's an asset");
        for _ in 0..2 {
            sandbox.file(&asset.join("stale"), "");
            sandbox.file(&sandbox.uploaded(), &archive);
            let command =
                command::upload_asset(text(&asset), text(&sandbox.uploaded()), archive.len() as u64);
            sandbox.succeeds_in("umask 077", &command);
            assert_eq!(names_in(&asset), set(["fixed", "open", "private", "shared"]), "{sandbox}");
            for (name, expected) in UPLOADED_MODES {
                assert_eq!(mode(&asset.join(name)), expected, "{sandbox}: {name}");
            }
            assert!(!sandbox.uploaded().exists(), "{sandbox}");
        }
    }
}

const ODD_NAMES: [&[u8]; 23] = [
    b"plain",
    b"plain\n",
    b" spaces  ",
    b"line\nbreak",
    b"\n",
    b"-dash",
    b"--exclude=plain",
    b"-T",
    b"@at",
    b".hidden",
    b"..x",
    b"...",
    b"*",
    b"?",
    b"[a]",
    b"back\\slash",
    b"tab\\t",
    b"it's",
    b"\"q\"",
    b"$HOME",
    b"sm\xc3\xb6r",
    b"\xff\xfe",
    b"~",
];

#[test]
fn a_download_contains_every_name() {
    for sandbox in Sandbox::all() {
        let mut expected = BTreeMap::new();
        for name in ODD_NAMES {
            let name = OsStr::from_bytes(name);
            sandbox.file(&sandbox.workspace().join(name), name.as_bytes());
            expected.insert(name.to_owned(), name.as_bytes().to_vec());
            let inner = Path::new("folder").join(name);
            sandbox.file(&sandbox.workspace().join(&inner), b"inside");
            expected.insert(inner.into_os_string(), b"inside".to_vec());
        }
        sandbox.folder(&sandbox.workspace().join("folder/.paperclip-runtime"));
        sandbox.folder(&sandbox.workspace().join("empty"));
        sandbox.link("nowhere", &sandbox.workspace().join("dangling"));
        sandbox.link("folder", &sandbox.workspace().join("to-folder"));
        for (name, content) in [
            ("folder", ""),
            ("folder/.paperclip-runtime", ""),
            ("empty", ""),
            ("dangling", "nowhere"),
            ("to-folder", "folder"),
        ] {
            expected.insert(name.into(), content.into());
        }
        sandbox.file(&sandbox.runtime().join("ours"), "not packed");
        sandbox.succeeds(&sandbox.download(NONE));
        assert_eq!(sandbox.packed(), expected, "{sandbox}");
        sandbox.succeeds(&sandbox.tolerant_download(NONE));
        assert_eq!(sandbox.packed(), expected, "{sandbox}");
        // Bsdtar prints a message for names that are not UTF-8, and packs them.
        assert!(fs::read(sandbox.status()).unwrap().starts_with(b"0\n"), "{sandbox}");
        assert_eq!(
            names_in(&sandbox.runtime()),
            set([command::OWN, "ours", "workspace-download.status", "workspace-download.tar"]),
            "{sandbox}: left over"
        );
    }
}

#[test]
fn options_in_the_environment_change_nothing() {
    for sandbox in Sandbox::all() {
        for name in ["a", "b", "b.log"] {
            sandbox.file(&sandbox.workspace().join(name), "");
        }
        let prologue =
            "TAR_OPTIONS='--exclude=a --transform=s/b/c/'; IFS=abc; set -f; export TAR_OPTIONS IFS";
        for set_up in [prologue, "SHELLOPTS=noglob; GLOBIGNORE='*'; export SHELLOPTS GLOBIGNORE"] {
            // Bash reads it from its environment only, and lets no script set it.
            let set_up = if sandbox.kind == Kind::Bash && set_up != prologue {
                "GLOBIGNORE='*'; export GLOBIGNORE"
            } else {
                set_up
            };
            sandbox.succeeds_in(set_up, &sandbox.download(&["*.log"]));
            let log = (!has_gnu_tar(sandbox.kind)).then_some("b.log");
            assert_eq!(sandbox.packed_names(), set(["a", "b"].into_iter().chain(log)), "{sandbox}");
        }
        let archive = upload_archive();
        sandbox
            .succeeds_in("TAR_OPTIONS=--exclude=open; export TAR_OPTIONS", &sandbox.upload(&archive, NONE));
        assert!(sandbox.workspace().join("open/run").exists(), "{sandbox}");
    }
}

#[test]
fn an_emptied_workspace_is_an_archive_with_the_control_file_alone() {
    for sandbox in Sandbox::all() {
        sandbox.folder(&sandbox.workspace());
        for command in [sandbox.download(NONE), sandbox.tolerant_download(NONE)] {
            sandbox.succeeds(&command);
            assert_eq!(sandbox.packed_names(), set(NONE), "{sandbox}");
        }
        // Everything is excluded.
        for name in ["node_modules", "target"] {
            sandbox.file(&sandbox.workspace().join(name).join("file"), "");
        }
        sandbox.succeeds(&sandbox.download(&["target", "node_modules"]));
        assert_eq!(sandbox.packed_names(), set(NONE), "{sandbox}");
        assert_eq!(
            names_in(&sandbox.runtime()),
            set([command::OWN, "workspace-download.status", "workspace-download.tar"]),
            "{sandbox}: left over"
        );
    }
}

#[test]
fn excluded_files_are_not_packed() {
    let names = [
        "node_modules/x",
        "sub/node_modules/x",
        "a.log",
        "sub/b.log",
        "sub/keep",
        "._a",
        "sub/._b",
        "c1",
        "é",
        "[d]",
        "it's",
        "-e",
        "foo*",
    ];
    let exclude =
        ["node_modules", "*.log", "c?", "?", "??", "[e-]*", "\\[d]", "it's", "sub/nothing", "", "-e"];
    for sandbox in Sandbox::all() {
        for name in names {
            sandbox.file(&sandbox.workspace().join(name), "");
        }
        sandbox.succeeds(&sandbox.download(&exclude));
        let mut expected = set(["sub", "sub/keep", "c1", "é", "[d]", "foo*"]);
        if !has_gnu_tar(sandbox.kind) {
            let more = ["sub/node_modules", "sub/node_modules/x", "a.log", "sub/b.log", "._a", "sub/._b"];
            expected.extend(set(more));
        }
        assert_eq!(sandbox.packed_names(), expected, "{sandbox}");
    }
}

#[test]
fn the_longest_name_and_a_deep_path_are_transferred() {
    for sandbox in Sandbox::all() {
        let long = "n".repeat(255);
        let deep = vec!["d".repeat(50); 12].join("/");
        sandbox.file(&sandbox.workspace().join(&long), "");
        sandbox.file(&sandbox.workspace().join(&deep).join(&long), "deep");
        sandbox.link(&deep, &sandbox.workspace().join("link"));
        sandbox.succeeds(&sandbox.download(NONE));
        let packed = sandbox.packed();
        assert_eq!(
            packed.get(OsStr::new(&format!("{deep}/{long}"))).map(Vec::as_slice),
            Some(&b"deep"[..]),
            "{sandbox}"
        );
        assert_eq!(packed.get(OsStr::new("link")).map(Vec::as_slice), Some(deep.as_bytes()), "{sandbox}");
        assert!(packed.contains_key(OsStr::new(&long)), "{sandbox}");
    }
}

#[test]
fn more_names_than_fit_into_a_command_line_are_transferred() {
    for sandbox in Sandbox::all() {
        let long = "x".repeat(200);
        let names: Vec<String> = (0..3000).map(|number| format!("{number}-{long}")).collect();
        for name in &names {
            sandbox.file(&sandbox.workspace().join(name), name);
        }
        sandbox.file(&sandbox.runtime().join("ours"), "");
        for command in [sandbox.download(NONE), sandbox.tolerant_download(NONE)] {
            sandbox.succeeds(&command);
            let mut packed = sandbox.packed_names();
            if sandbox.kind == Kind::Busybox {
                packed.retain(|name| name != "./" && !name.as_bytes().starts_with(b".paperclip-runtime"));
            }
            assert_eq!(packed, set(&names), "{sandbox}");
        }
        assert_eq!(fs::read_to_string(sandbox.status()).unwrap().lines().next(), Some("0"), "{sandbox}");
    }
}

#[test]
fn an_older_archive_is_replaced() {
    for sandbox in Sandbox::all() {
        sandbox.file(&sandbox.workspace().join("new"), "");
        for command in [sandbox.download(NONE), sandbox.tolerant_download(NONE)] {
            sandbox.file(&sandbox.archive(), vec![b'x'; 100_000]);
            for name in [
                "workspace-download.tar.names",
                "workspace-download.tar.messages",
                "workspace-download.status",
            ] {
                sandbox.file(&sandbox.runtime().join(name), "from a run that was killed");
            }
            sandbox.succeeds(&command);
            assert_eq!(sandbox.packed_names(), set(["new"]), "{sandbox}");
        }
        assert_eq!(fs::read_to_string(sandbox.status()).unwrap(), "0\n", "{sandbox}");
    }
}

#[test]
fn a_runtime_folder_that_was_removed_is_made_again_and_a_workspace_is_not() {
    for sandbox in Sandbox::all() {
        sandbox.file(&sandbox.workspace().join("file"), "");
        sandbox.fails(&command::download(&sandbox.places(), NO_INDEX, WHOLE));
        sandbox.succeeds(&command::tolerant_download(&sandbox.places(), NO_INDEX.new, WHOLE));
        assert_eq!(sandbox.packed_names(), set(["file"]), "{sandbox}");
        fs::remove_dir_all(sandbox.workspace()).unwrap();
        sandbox.fails(&command::download(&sandbox.places(), NO_INDEX, WHOLE));
        sandbox.fails(&command::tolerant_download(&sandbox.places(), NO_INDEX.new, WHOLE));
        assert!(!sandbox.workspace().exists(), "{sandbox}");
    }
}

#[test]
fn unreadable_files_fail_and_are_then_tolerated() {
    for sandbox in Sandbox::all_without_rights() {
        let secret = sandbox.workspace().join("sub/secret");
        let closed = sandbox.workspace().join("closed");
        sandbox.file(&secret, "not empty, which bsdtar would not have to open");
        sandbox.file(&closed.join("inside"), "");
        // Not beside the secret, because bsdtar gives up on a folder at the first file that it may not read.
        sandbox.file(&sandbox.workspace().join("other/open"), "read");
        for path in [&secret, &closed] {
            fs::set_permissions(path, Permissions::from_mode(0o0)).unwrap();
        }
        let said = sandbox.fails(&sandbox.download(NONE));
        assert!(said.contains("secret"), "{sandbox}: {said}");
        assert_eq!(names_in(&sandbox.runtime()), set([command::OWN]), "{sandbox}: left over");

        sandbox.succeeds(&sandbox.tolerant_download(NONE));
        let packed = sandbox.packed();
        assert_eq!(packed.get(OsStr::new("other/open")).map(Vec::as_slice), Some(&b"read"[..]), "{sandbox}");
        assert!(!packed.contains_key(OsStr::new("sub/secret")), "{sandbox}");
        let status = fs::read_to_string(sandbox.status()).unwrap();
        let (code, said) = status.split_once('\n').unwrap();
        assert!(code.parse::<u8>().unwrap() > 0, "{sandbox}: {status}");
        assert!(said.contains("secret") && said.contains("closed"), "{sandbox}: {status}");
        assert_eq!(
            names_in(&sandbox.runtime()),
            set([command::OWN, "workspace-download.status", "workspace-download.tar"]),
            "{sandbox}: left over"
        );

        // Nothing could be read: still an archive, and not an emptied workspace.
        fs::remove_dir_all(sandbox.workspace().join("other")).unwrap();
        fs::rename(&secret, sandbox.workspace().join("secret")).unwrap();
        fs::remove_dir(sandbox.workspace().join("sub")).unwrap();
        sandbox.fails(&sandbox.download(NONE));
        sandbox.succeeds(&sandbox.tolerant_download(NONE));
        assert!(!fs::read_to_string(sandbox.status()).unwrap().starts_with("0\n"), "{sandbox}");
        fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_workspace_that_cannot_be_listed_is_not_an_emptied_one() {
    for sandbox in Sandbox::all_without_rights() {
        sandbox.file(&sandbox.workspace().join("file"), "");
        sandbox.folder(&sandbox.runtime());
        fs::set_permissions(sandbox.workspace(), Permissions::from_mode(0o300)).unwrap();
        let said = sandbox.fails(&sandbox.download(NONE));
        assert!(said.contains("denied"), "{sandbox}: {said}");
        let said = sandbox.fails(&sandbox.tolerant_download(NONE));
        assert!(said.contains("denied"), "{sandbox}: {said}");
        fs::set_permissions(sandbox.workspace(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(names_in(&sandbox.runtime()), set([command::OWN]), "{sandbox}");
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    // A folder of another user stands for it.
    for sandbox in Sandbox::all_without_rights().filter(|_| rustix::process::geteuid().is_root()) {
        sandbox.file(&sandbox.workspace().join("file"), "");
        let commands = [sandbox.download(NONE), sandbox.tolerant_download(NONE)];
        lchown(sandbox.runtime(), Some(0), Some(0)).unwrap();
        for command in commands {
            sandbox.fails(&command);
        }
        assert_eq!(names_in(&sandbox.runtime()), set([command::OWN]), "{sandbox}");
    }
}

#[test]
fn a_long_list_of_messages_is_cut() {
    for sandbox in Sandbox::all_without_rights() {
        for number in 0..800 {
            let file = sandbox.workspace().join(format!("{number}-{}", "x".repeat(150)));
            // Not empty, because bsdtar does not open an empty file.
            sandbox.file(&file, "secret");
            fs::set_permissions(&file, Permissions::from_mode(0o0)).unwrap();
        }
        sandbox.succeeds(&sandbox.tolerant_download(NONE));
        let status = fs::read(sandbox.status()).unwrap();
        let first_line = status.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        assert_eq!(status.len(), first_line + 64 * 1024, "{sandbox}");
    }
}

#[test]
fn unusual_remote_paths_are_quoted_correctly() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        for odd in [
            " it's",
            "-$HOME `id`",
            "line\nbreak\n",
            "{} +",
            "\"*\" ? [a]",
            "a:b",
            "back\\slash",
            "-",
            "sm\u{f6}r",
        ] {
            let workspace = sandbox.path(odd);
            let places = Places::new(text(&workspace), odd, ID);
            let upload = sandbox.upload_to(&places, &archive, &[], &[]);
            sandbox.file(&workspace.join("stale"), "");
            sandbox.succeeds(&upload);
            assert!(!workspace.join("stale").exists(), "{sandbox}: {odd:?}");
            assert!(!Path::new(&places.upload()).exists(), "{sandbox}: {odd:?}");

            let asset = Path::new(places.runtime_root()).join("asset").join(odd);
            let tar = Path::new(places.runtime_root()).join(format!("{odd}-upload.tar"));
            sandbox.file(&tar, &archive);
            sandbox.succeeds(&command::upload_asset(text(&asset), text(&tar), archive.len() as u64));
            assert!(asset.join("private/key").exists(), "{sandbox}: {odd:?}");

            for command in [
                command::download(&places, NO_INDEX, WHOLE),
                command::tolerant_download(&places, NO_INDEX.new, WHOLE),
            ] {
                sandbox.succeeds(&command);
                let names =
                    sandbox.packed_in(Path::new(&places.download())).into_keys().collect::<BTreeSet<_>>();
                assert_eq!(names, set(UPLOADED_MODES.map(|(name, _)| name)), "{sandbox}: {odd:?}");
            }
        }
    }
}

/// No command line grows with what is excluded or preserved.
#[test]
fn thousands_of_names_and_patterns_are_transferred_as_files() {
    let archive = upload_archive();
    let many: Vec<String> = (0..5000).map(|number| format!("some-name-that-is-not-short-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for sandbox in Sandbox::all() {
        for name in [many[0], many[4999], "other"] {
            sandbox.file(&sandbox.workspace().join(name).join("file"), "");
        }
        let command = sandbox.upload_to(&sandbox.places(), &archive, &many, &many);
        assert!(command.len() < 1024, "{}", command.len());
        sandbox.succeeds(&command);
        assert!(sandbox.workspace().join(many[4999]).join("file").exists(), "{sandbox}");
        assert!(!sandbox.workspace().join("other").exists(), "{sandbox}");
        let command = command::download(&sandbox.places(), NO_INDEX, WHOLE);
        assert!(command.len() < 512, "{command}");
        sandbox.succeeds(&command);
        // Toybox gets only the first ones.
        let more = (sandbox.kind == Kind::Toybox).then_some(many[4999]).into_iter();
        let more: Vec<_> = more.flat_map(|name| [name.to_owned(), format!("{name}/file")]).collect();
        let expected = UPLOADED_MODES.iter().map(|(name, _)| (*name).to_owned()).chain(more);
        assert_eq!(sandbox.packed_names(), set(expected), "{sandbox}");
        assert!(command::tolerant_download(&sandbox.places(), NO_INDEX.new, WHOLE).len() < 16 * 1024);
    }
}

/// A socket is not a failure, whatever the sandbox's tar says about it.
#[test]
fn sockets_are_ignored_with_every_tar() {
    for sandbox in Sandbox::all() {
        sandbox.file(&sandbox.workspace().join("folder/file"), "");
        for name in ["socket", "folder/so[ck]et*", "folder/b\\s", "line\nbreak"] {
            let path = sandbox.workspace().join(name);
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            sandbox.give(&path);
        }
        for command in [sandbox.download(NONE), sandbox.tolerant_download(NONE)] {
            sandbox.succeeds(&command);
            assert_eq!(sandbox.packed_names(), set(["folder", "folder/file"]), "{sandbox}");
        }
        assert!(fs::read_to_string(sandbox.status()).unwrap().starts_with("0\n"), "{sandbox}");
    }
}

/// Cuts an archive into parts, and compresses each as its letter in `codecs` says.
fn in_parts(archive: &[u8], size: usize, codecs: &str) -> Vec<(Part, Vec<u8>)> {
    let press = |program: &str, bytes: &[u8]| {
        let mut child = Command::new(program)
            .arg("-c")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
        let writing = thread::spawn(move || std::io::Write::write_all(&mut stdin, &bytes).unwrap());
        let pressed = child.wait_with_output().unwrap().stdout;
        writing.join().unwrap();
        pressed
    };
    let parts = archive.chunks(size).zip(codecs.chars());
    parts
        .map(|(bytes, codec)| match codec {
            'g' | 'z' => {
                let codec = Codec::of(codec).unwrap();
                let pressed = press(codec.name(), bytes);
                (Part { size: pressed.len() as u64, codec }, pressed)
            }
            _ => (Part::plain(bytes.len() as u64), bytes.to_vec()),
        })
        .collect()
}

impl Sandbox {
    /// Writes an upload in parts, and returns the command for it.
    fn upload_parts(&self, archive: &[u8], parts: &[(Part, Vec<u8>)]) -> String {
        let places = self.places();
        let upload = command::Upload {
            update: None,
            places: &places,
            preserved: &[],
            preserved_files: &[],
            exclude: &[],
            holds_entries: true,
            expected: listing::digest(&sent(archive), NONE),
        };
        let earlier: Vec<Part> = parts[..parts.len() - 1].iter().map(|(part, _)| *part).collect();
        let mut size = 0;
        for (number, (_, bytes)) in parts.iter().enumerate() {
            let mut file = bytes.clone();
            if number == earlier.len() {
                file.extend(upload.control(&earlier));
            }
            size = file.len() as u64;
            self.file(Path::new(&part_path(&places.upload(), number)), file);
        }
        upload.command(earlier.len(), parts[earlier.len()].0, size)
    }

    /// What it says first in an answer.
    fn says(&self, mark: &str) -> Vec<u8> {
        let tools = if self.tools().join("zstd").exists() { "tools zstd" } else { "tools" };
        format!("mark {mark}\n{tools}\npacked {}\n", NO_INDEX.new).into_bytes()
    }

    fn leftovers(&self) -> BTreeSet<OsString> {
        names_in(&self.runtime()).into_iter().filter(|name| name != command::OWN).collect()
    }
}

#[test]
fn an_upload_in_parts_equals_the_whole_one() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        for (size, codecs) in
            [(512, "nnnnnnnnnnnnnnnnnnnnnnnn"), (1500, "gggggggg"), (1 << 20, "g"), (700, "gngnngngnngn")]
                .into_iter()
                .chain([(1500, "zzzzzzzz"), (1 << 20, "z"), (700, "znznnznznnzn")])
                .filter(|(_, codecs)| !codecs.contains('z') || sandbox.kind.has("zstd"))
        {
            sandbox.file(&sandbox.workspace().join("stale"), "");
            // The rest of an upload that was interrupted.
            sandbox.file(Path::new(&part_path(&sandbox.places().upload(), 70)), "stale");
            let command = sandbox.upload_parts(&archive, &in_parts(&archive, size, codecs));
            assert!(command.len() < 1024, "{command}");
            sandbox.succeeds(&command);
            for (name, expected) in UPLOADED_MODES {
                assert_eq!(mode(&sandbox.workspace().join(name)), expected, "{sandbox}: {name} {codecs}");
            }
            assert_eq!(fs::read(sandbox.workspace().join("private/key")).unwrap(), b"secret");
            assert!(!sandbox.workspace().join("stale").exists(), "{sandbox}");
            assert_eq!(sandbox.leftovers(), set(NONE), "{sandbox}: {codecs}");
            assert!(!sandbox.own().join("found").exists(), "{sandbox}: exactly what was packed is there");
        }
    }
}

#[test]
fn an_incomplete_part_changes_nothing() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        for (number, codecs) in [(0, "nnnn"), (1, "nnnn"), (2, "nnnn"), (1, "gggg"), (3, "gggg")] {
            sandbox.file(&sandbox.workspace().join("mine"), "");
            let parts = in_parts(&archive, archive.len().div_ceil(4), codecs);
            let command = sandbox.upload_parts(&archive, &parts);
            let path = PathBuf::from(part_path(&sandbox.places().upload(), number));
            let mut bytes = fs::read(&path).unwrap();
            bytes.pop();
            sandbox.file(&path, bytes);
            let said = sandbox.fails(&command);
            assert!(said.contains("nothing was changed"), "{sandbox}: {said}");
            assert!(sandbox.workspace().join("mine").exists(), "{sandbox}");
        }
    }
}

#[test]
fn a_damaged_part_fails_the_upload() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        for codecs in ["ggg", "zzz"].into_iter().take(1 + usize::from(sandbox.kind.has("zstd"))) {
            let parts = in_parts(&archive, archive.len().div_ceil(3), codecs);
            let command = sandbox.upload_parts(&archive, &parts);
            let path = PathBuf::from(part_path(&sandbox.places().upload(), 1));
            let mut bytes = fs::read(&path).unwrap();
            let at = bytes.len() - 6;
            bytes[at] ^= 1;
            sandbox.file(&path, bytes);
            sandbox.fails(&command);
        }
    }
}

impl Sandbox {
    /// An upload in parts that are compressed like that fails, says what is missing, and changes nothing.
    #[track_caller]
    fn refuses_for_lack(&self, codecs: &str, status: &str) {
        self.file(&self.workspace().join("mine"), "");
        let archive = upload_archive();
        let said = self.fails(&self.upload_parts(&archive, &in_parts(&archive, 2000, codecs)));
        assert!(said.contains("nothing was changed"), "{self}: {said}");
        assert!(self.workspace().join("mine").exists(), "{self}");
        assert_eq!(fs::read_to_string(self.places().upload_status()).unwrap(), status, "{self}");
    }
}

#[test]
fn a_sandbox_that_cannot_decompress_says_so_and_changes_nothing() {
    for sandbox in Sandbox::all() {
        for tool in ["gzip", "gunzip", "zcat"].into_iter().filter(|tool| sandbox.tools().join(tool).exists())
        {
            fs::remove_file(sandbox.tools().join(tool)).unwrap();
        }
        sandbox.refuses_for_lack("gggggg", command::NO_GUNZIP);
    }
}

/// One that is there and does not work is as good as none.
#[test]
fn a_sandbox_without_a_zstd_that_works_says_so_and_changes_nothing() {
    for sandbox in Sandbox::all() {
        let zstd = sandbox.tools().join("zstd");
        for fails in [false, true] {
            if sandbox.kind.has("zstd") || fails {
                // It is missing in some.
                let _missing = fs::remove_file(&zstd);
            }
            if fails {
                program(&zstd, "#!/bin/sh\nexit 1\n");
            }
            sandbox.refuses_for_lack("nzznzz", command::NO_ZSTD);
        }
    }
}

/// One that reads a small frame, and fails with a large one: the archive then comes again in another way.
#[test]
fn a_sandbox_whose_zstd_fails_with_an_archive_says_so() {
    let archive = upload_archive();
    for sandbox in Sandbox::all().filter(|sandbox| sandbox.kind.has("zstd")) {
        let zstd = sandbox.tools().join("zstd");
        fs::rename(&zstd, sandbox.path("zstd")).unwrap();
        for ends_well in [true, false] {
            let status = if ends_well { "" } else { "; exit 1" };
            let cut = format!("#!/bin/sh\n{} \"$@\" | head -c 700{status}\n", text(&sandbox.path("zstd")));
            program(&zstd, cut);
            let command = sandbox.upload_parts(&archive, &in_parts(&archive, 2000, "zzzzzz"));
            sandbox.fails(&command);
            let status = fs::read_to_string(sandbox.places().upload_status()).unwrap();
            assert_eq!(status, command::NO_ZSTD, "{sandbox}");
            fs::remove_file(sandbox.places().upload_status()).unwrap();
        }
        sandbox.succeeds(&sandbox.upload_parts(&archive, &in_parts(&archive, 2000, "gggggg")));
    }
}

#[test]
fn a_download_tells_whether_there_is_zstd() {
    for sandbox in Sandbox::all() {
        let answer = OsString::from(sandbox.places().answer());
        for has_zstd in [true, false] {
            if has_zstd && !sandbox.kind.has("zstd") {
                continue;
            }
            if !has_zstd {
                // It is missing in some.
                let _missing = fs::remove_file(sandbox.tools().join("zstd"));
            }
            for command in [
                command::download(&sandbox.places(), NO_INDEX, WHOLE),
                command::tolerant_download(&sandbox.places(), NO_INDEX.new, WHOLE),
            ] {
                sandbox.plant(&sandbox.places(), &[]);
                sandbox.succeeds(&command);
                let entries = read_bytes(&fs::read(sandbox.archive()).unwrap());
                let answer = Answer::parse(Some(&entries[&answer]));
                assert_eq!(answer.has_zstd, Some(has_zstd), "{sandbox}");
            }
        }
    }
}

#[test]
fn an_asset_in_parts_is_replaced() {
    let archive = upload_archive();
    for sandbox in Sandbox::all() {
        sandbox.plant(&sandbox.places(), &[]);
        let asset = sandbox.runtime().join("it's an asset");
        let file = sandbox.runtime().join("it's an asset-upload.tar");
        for (size, codecs) in [(600, "nnnnnnnnnnnnnnnnn"), (2000, "ggggg"), (1 << 20, "g")] {
            sandbox.file(&asset.join("stale"), "");
            let parts = in_parts(&archive, size, codecs);
            let earlier: Vec<Part> = parts[..parts.len() - 1].iter().map(|(part, _)| *part).collect();
            let mut last_size = 0;
            for (number, (_, bytes)) in parts.iter().enumerate() {
                let list = part_list(&earlier);
                let tail = if number == earlier.len() { list.as_bytes() } else { b"" };
                let bytes = [bytes, tail].concat();
                last_size = bytes.len() as u64;
                sandbox.file(Path::new(&part_path(text(&file), number)), bytes);
            }
            let upload = AssetUpload {
                places: &sandbox.places(),
                folder: text(&asset),
                archive: text(&file),
                former: None,
                index: "",
            };
            let command = upload.command(earlier.len(), parts[earlier.len()].0, last_size);
            assert!(command.len() < 1024, "{command}");
            sandbox.succeeds_in("umask 077", &command);
            assert_eq!(names_in(&asset), set(["fixed", "open", "private", "shared"]), "{sandbox}");
            for (name, expected) in UPLOADED_MODES {
                assert_eq!(mode(&asset.join(name)), expected, "{sandbox}: {name}");
            }
            assert_eq!(sandbox.leftovers(), set(["it's an asset"]), "{sandbox}");
        }
    }
}

/// The content of a download, joined as its trailer says.
fn put_together(sandbox: &Sandbox, wish: Wish) -> (Vec<u8>, String) {
    let first = fs::read(sandbox.archive()).unwrap();
    let Some((bytes, trailer)) = Trailer::split(&first).unwrap() else { return (first, String::new()) };
    assert_eq!((trailer.part_size, &*trailer.name), (wish.part_size, NO_INDEX.new));
    let mut whole = Vec::new();
    for (number, codec) in trailer.codecs.iter().enumerate() {
        let path = download_part_path(text(&sandbox.archive()), number, NO_INDEX.new);
        let bytes = if number == 0 { first[..bytes].to_vec() } else { fs::read(path).unwrap() };
        let program = match codec {
            Codec::None => None,
            Codec::Gzip => Some("gzip"),
            Codec::Zstd => Some("zstd"),
        };
        let plain = program.map_or(bytes.clone(), |program| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &bytes).unwrap();
            let output = Command::new(program).arg("-dc").stdin(file.reopen().unwrap()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            output.stdout
        });
        if number + 1 < trailer.codecs.len() {
            assert_eq!(plain.len() as u64, wish.part_size);
        }
        whole.extend(plain);
    }
    assert_eq!(whole.len() as u64, trailer.size);
    (whole, trailer.codecs.iter().map(|codec| codec.letter()).collect())
}

#[test]
fn a_download_in_parts_equals_the_whole_one() {
    for sandbox in Sandbox::all() {
        let text_file = "what shrinks\n".repeat(30_000);
        let mut noise = vec![0; 200_000];
        let mut state = 1_u64;
        noise.fill_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        sandbox.file(&sandbox.workspace().join("a text"), &text_file);
        sandbox.file(&sandbox.workspace().join("noise"), &noise);
        let best = match sandbox.kind {
            Kind::Toybox => 'n',
            Kind::Busybox => 'g',
            _ => 'z',
        };
        for (part_size, compressed) in [(65536, false), (131_072, true), (1 << 20, true), (1 << 20, false)] {
            let wish = Wish { part_size, compressed };
            sandbox.plant(&sandbox.places(), &[]);
            // The rest of an earlier download.
            sandbox.file(Path::new(&part_path(text(&sandbox.archive()), 90)), "stale");
            for (way, command) in [
                ("", command::download(&sandbox.places(), NO_INDEX, wish)),
                ("tolerant", command::tolerant_download(&sandbox.places(), NO_INDEX.new, wish)),
            ] {
                sandbox.succeeds(&command);
                let (whole, codecs) = put_together(&sandbox, wish);
                let entries = read_bytes(&whole);
                assert_eq!(entries[OsStr::new("a text")], text_file.as_bytes(), "{sandbox} {way} {codecs}");
                assert_eq!(entries[OsStr::new("noise")], noise, "{sandbox} {way} {codecs}");
                let parts = whole.len().div_ceil(usize::try_from(part_size).unwrap());
                let files = sandbox.leftovers().len() - usize::from(sandbox.status().exists());
                assert_eq!(files, parts, "{sandbox}: {:?}", sandbox.leftovers());
                let expected = if compressed { best } else { 'n' };
                if parts > 1 {
                    assert_eq!(codecs.len(), parts);
                    assert!(codecs.contains(expected), "{sandbox}: {codecs}");
                    assert!(part_size > 200_000 || codecs.contains('n'), "noise does not shrink: {codecs}");
                } else {
                    assert_eq!(codecs, String::from(expected), "{sandbox}");
                }
            }
        }
    }
}
