//! Where git looks for the configuration of the user and of the system, whether it is there or not.

use std::path::{Path, PathBuf};

use crate::path::path_from;

/// Files in a folder of the user's configuration that git reads, beside the configuration itself.
const IN_FOLDER: [&str; 2] = ["git/attributes", "git/ignore"];

/// What says where these files are.
#[derive(Debug, Default)]
pub(super) struct User {
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub folder: Option<PathBuf>,
    /// `GIT_CONFIG_GLOBAL` and `GIT_CONFIG_SYSTEM`.
    pub chosen: Vec<PathBuf>,
    /// The program that is git. Its release reads the system's configuration in a folder beside it.
    pub program: PathBuf,
    /// The list of users, in which git looks up `~user`.
    pub users: Vec<u8>,
}

/// The list of users of this machine. (A directory service may know further ones.)
pub(super) const USERS: &str = "/etc/passwd";

impl User {
    /// That of this process, which is what the configuration is listed with.
    pub fn of_process(program: &Path, users: Vec<u8>) -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            home: path("HOME"),
            folder: path("XDG_CONFIG_HOME"),
            chosen: ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"].into_iter().filter_map(path).collect(),
            program: program.to_path_buf(),
            users,
        }
    }

    /// A path that begins with `~/` or `~user/`, as git reads it; `None` for any other path.
    pub fn in_home(&self, path: &[u8]) -> Option<PathBuf> {
        let rest = path.strip_prefix(b"~")?;
        let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (name, below) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        let home = if name.is_empty() { self.home.clone()? } else { self.home_of(name)? };
        Some(if below.is_empty() { home } else { home.join(path_from(below)) })
    }

    fn home_of(&self, name: &[u8]) -> Option<PathBuf> {
        let lines = self.users.split(|&byte| byte == b'\n');
        let mut fields = lines.map(|line| line.split(|&byte| byte == b':'));
        // The name, the password, two numbers, a remark, and the folder.
        fields.find_map(|mut fields| {
            let is_of_user = fields.next() == Some(name);
            fields.nth(4).filter(|_| is_of_user).map(|home| path_from(home).to_path_buf())
        })
    }

    /// The files that git and ssh obey. Which of them count depends on variables, so all are named.
    pub fn files(&self) -> Vec<PathBuf> {
        let of_system = self.prefixes().map(|prefix| prefix.join("etc/gitattributes"));
        let of_ssh = self.home.iter().map(|home| home.join(".ssh/config"));
        let others = self.folders().flat_map(|folder| IN_FOLDER.map(|file| folder.join(file)));
        self.configurations().into_iter().chain(others).chain(of_system).chain(of_ssh).collect()
    }

    /// Those of them that are configurations of git.
    pub fn configurations(&self) -> Vec<PathBuf> {
        let of_system = self.prefixes().map(|prefix| prefix.join("etc/gitconfig"));
        let of_user = self.home.iter().map(|home| home.join(".gitconfig"));
        let in_folders = self.folders().map(|folder| folder.join("git/config"));
        in_folders.chain(of_user).chain(self.chosen.iter().cloned()).chain(of_system).collect()
    }

    /// The folders of the user's configurations.
    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let in_home = self.home.iter().map(|home| home.join(".config"));
        in_home.chain(self.folder.clone())
    }

    fn prefixes(&self) -> impl Iterator<Item = &Path> {
        self.program.ancestors().nth(2).into_iter().chain([Path::new("/")])
    }

    /// The folder whose files the user's ssh obeys, or that these include.
    pub fn of_ssh(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".ssh"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_configuration_is_told() {
        let user = User {
            home: Some("/home/me".into()),
            folder: Some("/xdg".into()),
            chosen: vec!["/chosen".into()],
            program: "/opt/git/bin/git".into(),
            users: Vec::new(),
        };
        let told = user.files();
        assert!(user.configurations().iter().all(|file| told.contains(file)));
        for file in [
            "/home/me/.gitconfig",
            "/home/me/.config/git/config",
            "/home/me/.config/git/attributes",
            "/home/me/.ssh/config",
            "/xdg/git/config",
            "/xdg/git/ignore",
            "/chosen",
            "/etc/gitconfig",
            "/opt/git/etc/gitconfig",
            "/opt/git/etc/gitattributes",
        ] {
            assert!(told.contains(&file.into()), "{file}: {told:?}");
        }
    }

    #[test]
    fn a_path_may_begin_in_the_folder_of_a_user() {
        let users = b"root:x:0:0:root:/root:/bin/sh\nme2:x:1::: \nshort:x\nmel:x:1:1::/h/mel:\n".to_vec();
        let user = User { home: Some("/home/me".into()), users, ..User::default() };
        for (path, meant) in [
            ("~/x", Some("/home/me/x")),
            ("~", Some("/home/me")),
            ("~root/x", Some("/root/x")),
            ("~root", Some("/root")),
            ("~root/../x", Some("/root/../x")),
            ("~mel/", Some("/h/mel")),
            ("~short/x", None),
            ("~me/x", None),
            ("x", None),
            ("./~root/x", None),
        ] {
            assert_eq!(user.in_home(path.as_bytes()).as_deref(), meant.map(Path::new), "{path}");
        }
        assert_eq!(User::default().in_home(b"~/x"), None);
    }
}
