//! Where git looks for the configuration of the user and of the system, whether it is there or not.

use std::path::{Path, PathBuf};

/// Files in a folder of the user's configuration that git reads.
const IN_FOLDER: [&str; 3] = ["git/config", "git/attributes", "git/ignore"];

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
}

impl User {
    /// That of this process, which is what the configuration is listed with.
    pub fn of_process(program: &Path) -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            home: path("HOME"),
            folder: path("XDG_CONFIG_HOME"),
            chosen: ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"].into_iter().filter_map(path).collect(),
            program: program.to_path_buf(),
        }
    }

    /// The files that git and ssh obey. Which of them count depends on variables, so all are named.
    pub fn files(&self) -> Vec<PathBuf> {
        let in_home = self.home.iter().map(|home| home.join(".config"));
        let folders = in_home.chain(self.folder.clone());
        let prefixes = self.program.ancestors().nth(2).into_iter().chain([Path::new("/")]);
        let of_system =
            prefixes.flat_map(|prefix| ["etc/gitconfig", "etc/gitattributes"].map(|file| prefix.join(file)));
        let of_user =
            self.home.iter().flat_map(|home| [".gitconfig", ".ssh/config"].map(|file| home.join(file)));
        folders
            .flat_map(|folder| IN_FOLDER.map(|file| folder.join(file)))
            .chain(of_user)
            .chain(self.chosen.iter().cloned())
            .chain(of_system)
            .collect()
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
        };
        let told = user.files();
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
}
