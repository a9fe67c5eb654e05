//! Decides which settings of a repository are uploaded, and which may come back. Pure: works on lists that
//! git read.

use std::collections::BTreeSet;

use super::refs::RefName;
use crate::error::readable;

/// A setting: its full key (`branch.main.remote`, with the middle part as it is written) and its value;
/// `None` if it has no `=`.
pub type Setting = (Vec<u8>, Option<Vec<u8>>);

/// Settings in the order in which git reads them.
pub type Settings = Vec<Setting>;

/// Parses the output of `git config --list -z`.
#[must_use]
pub fn parse(list: &[u8]) -> Settings {
    list.split(|&byte| byte == 0)
        .filter(|item| !item.is_empty())
        .map(|item| match item.iter().position(|&byte| byte == b'\n') {
            Some(at) => (item[..at].to_vec(), Some(item[at + 1..].to_vec())),
            None => (item.to_vec(), None),
        })
        .collect()
}

/// The setting that every upload adds, so that git in the sandbox compares a file's size and time alone. A repository that
/// was made anew in the sandbox does not have it.
const ADDED: (&[u8], &[u8]) = (b"core.checkstat", b"minimal");

/// The setting that an upload adds to those of the local repository.
#[must_use]
pub fn added() -> Setting {
    (ADDED.0.to_vec(), Some(ADDED.1.to_vec()))
}

/// Whether settings have the one that every upload adds.
#[must_use]
pub fn are_marked(settings: &Settings) -> bool {
    settings.iter().any(|(key, value)| (&key[..], value.as_deref()) == (ADDED.0, Some(ADDED.1)))
}

/// A key's section, subsection and name.
type Key<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

fn split(key: &[u8]) -> Option<Key<'_>> {
    let first = key.iter().position(|&byte| byte == b'.')?;
    let last = key.iter().rposition(|&byte| byte == b'.')?;
    let middle = (first < last).then(|| &key[first + 1..last]);
    Some((&key[..first], middle, &key[last + 1..]))
}

/// The remote that has the objects which a partial clone lacks, if this setting names one.
#[must_use]
pub fn promisor((key, value): &Setting) -> Option<String> {
    let value = value.as_deref();
    let name = match split(key)? {
        (b"extensions", None, b"partialclone") => value?,
        (b"remote", Some(name), b"promisor") => {
            if !is_true(value) {
                return None;
            }
            name
        }
        _ => return None,
    };
    String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty())
}

/// Whether a setting that is true or false is true. One without a value is.
#[must_use]
pub fn is_true(value: Option<&[u8]>) -> bool {
    let is_no = |value: &[u8]| {
        [&b""[..], b"0", b"no", b"off", b"false"].iter().any(|no| value.eq_ignore_ascii_case(no))
    };
    !value.is_some_and(is_no)
}

/// Settings that change what git shows or how it merges. None of them runs a program, reads a file or opens a connection.
const HARMLESS: &[&str] = &[
    "branch.autosetupmerge",
    "branch.autosetuprebase",
    "branch.sort",
    "commit.cleanup",
    "commit.verbose",
    "core.abbrev",
    "core.autocrlf",
    "core.commentchar",
    "core.eol",
    "core.filemode",
    "core.logallrefupdates",
    "core.quotepath",
    "core.safecrlf",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.symlinks",
    "core.whitespace",
    "diff.algorithm",
    "diff.indentheuristic",
    "diff.mnemonicprefix",
    "diff.renames",
    "fetch.prune",
    "init.defaultbranch",
    "merge.conflictstyle",
    "merge.ff",
    "merge.renames",
    "pull.ff",
    "pull.rebase",
    "push.autosetupremote",
    "push.default",
    "rebase.autosquash",
    "rebase.autostash",
    "tag.sort",
    "user.email",
    "user.name",
];

/// The settings that are uploaded. With `credentials`, those that authenticate too.
#[must_use]
pub fn harmless(settings: &Settings, credentials: bool) -> Settings {
    let keep = |(key, value): &Setting| -> Option<Setting> {
        let (section, middle, name) = split(key)?;
        let value = value.clone();
        let text = value.as_deref().unwrap_or_default();
        if text.iter().any(|&byte| byte < b' ' && byte != b'\t') || middle.is_some_and(|m| m.contains(&b'\n'))
        {
            return None;
        }
        // An address may be the name of a remote, too.
        if !credentials && middle.is_some_and(|middle| without_secrets(middle).as_deref() != Some(middle)) {
            return None;
        }
        let same = || Some((key.clone(), value.clone()));
        match (section, middle, name) {
            (b"http" | b"credential", ..) if credentials => same(),
            (b"branch", Some(_), b"remote" | b"pushremote")
            | (b"remote", Some(_), b"url" | b"pushurl")
            | (b"submodule", Some(_), b"url") => {
                let url = if credentials { if_it_runs_nothing(text)? } else { without_secrets(text)? };
                Some((key.clone(), Some(url)))
            }
            (b"branch", Some(_), b"merge" | b"rebase" | b"description")
            | (b"remote", Some(_), b"fetch" | b"tagopt" | b"prune")
            | (b"submodule", Some(_), b"active") => same(),
            (_, None, _) if HARMLESS.iter().any(|harmless| key.eq_ignore_ascii_case(harmless.as_bytes())) => {
                same()
            }
            _ => None,
        }
    };
    settings.iter().filter_map(keep).collect()
}

/// An address, unless it makes git run a program.
fn if_it_runs_nothing(url: &[u8]) -> Option<Vec<u8>> {
    let runs = url.starts_with(b"-") || url.windows(2).any(|pair| pair == b"::");
    (!runs).then(|| url.to_vec())
}

/// An address without user, password and query, if they may be secret. `None` if it is malformed, so that it is not known where
/// they would be.
fn without_secrets(url: &[u8]) -> Option<Vec<u8>> {
    let url = if_it_runs_nothing(url)?;
    let Some(at) = url.windows(3).position(|window| window == b"://") else {
        let url = without_password(url);
        // In `host:path` there may be an `@` in the path; but not if the slashes of an address are only missing or turned round.
        let colon = url.iter().position(|&byte| byte == b':').unwrap_or(url.len());
        let is_scheme = |name: &[u8]| url[..colon].eq_ignore_ascii_case(name);
        let is_malformed = url.starts_with(b"//")
            || [&b"http"[..], b"https", b"ssh", b"git", b"ftp"].into_iter().any(is_scheme);
        let may_be_secret = is_malformed && url[colon..].contains(&b'@');
        return (!may_be_secret).then_some(url);
    };
    let (scheme, rest) = (&url[..at], &url[at + 3..]);
    let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let path = path.split(|byte| b"?#;".contains(byte)).next().unwrap_or_default();
    let host_at = authority.iter().rposition(|&byte| byte == b'@').map_or(0, |at| at + 1);
    let user = &authority[..host_at];
    // For ssh the user is part of the destination; for http it may be a token.
    let user = match user.iter().position(|&byte| byte == b':') {
        _ if !scheme.eq_ignore_ascii_case(b"ssh") => Vec::new(),
        Some(colon) => [&user[..colon], b"@"].concat(),
        None => user.to_vec(),
    };
    let host = &authority[host_at..];
    // (The colons of an IPv6 address are in brackets.)
    let behind = host.iter().rposition(|&byte| byte == b']').map_or(0, |at| at + 1);
    let port =
        host[behind..].iter().position(|&byte| byte == b':').map_or(&b""[..], |at| &host[behind + at + 1..]);
    port.iter().all(u8::is_ascii_digit).then(|| [scheme, b"://", &user, host, path].concat())
}

/// An address like `user@host:path` without a password behind the user: what is between the first colon and the `@`.
fn without_password(url: Vec<u8>) -> Vec<u8> {
    let Some(at) = url.iter().position(|byte| matches!(byte, b'@' | b'/')).filter(|&at| url[at] == b'@')
    else {
        return url;
    };
    // Without a further colon, the first one is that before the path.
    match url[..at].iter().position(|&byte| byte == b':').filter(|_| url[at..].contains(&b':')) {
        Some(colon) => [&url[..colon], &url[at..]].concat(),
        None => url,
    }
}

/// Writes settings as a configuration file.
#[must_use]
pub fn render(settings: &Settings) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in settings {
        let Some((section, middle, name)) = split(key) else { continue };
        text.push(b'[');
        text.extend(section);
        if let Some(middle) = middle {
            text.extend(b" \"");
            text.extend(escaped(middle));
            text.push(b'"');
        }
        text.extend(b"]\n\t");
        text.extend(name);
        if let Some(value) = value {
            text.extend(b" = \"");
            text.extend(escaped(value));
            text.push(b'"');
        }
        text.push(b'\n');
    }
    text
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if byte == b'"' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

/// What comes back of a changed configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// Settings to add to the local configuration.
    pub take: Settings,
    /// Keys that stay as they are locally, and why.
    pub held_back: Vec<(String, &'static str)>,
}

/// The local configuration.
#[derive(Debug, Default)]
pub struct Local {
    /// The settings of the repository's own file.
    pub own: Settings,
    /// Those in effect for the user's git: with what is included, and what the user and the system have.
    pub in_effect: Settings,
    /// The names of the remotes that files in the git directory define (`remotes/`, `branches/`).
    pub files: BTreeSet<Vec<u8>>,
    /// The names of the branches that did not come from the sandbox.
    pub branches: BTreeSet<Vec<u8>>,
}

impl Local {
    fn has(&self, key: &[u8]) -> bool {
        self.own.iter().chain(&self.in_effect).any(|(here, _)| here == key)
    }

    fn remotes(&self) -> BTreeSet<&[u8]> {
        let named = [&self.own, &self.in_effect].into_iter().flat_map(remotes);
        named.chain(self.files.iter().map(Vec::as_slice)).collect()
    }
}

/// Why a new remote would change what git does for the other ones. `None` if it would not. `local` are the remotes that are
/// set here, and `settings` what is set here by others than the sandbox.
fn redirects(name: &[u8], local: &BTreeSet<&[u8]>, settings: &[&Setting]) -> Option<&'static str> {
    let is_named = settings.iter().any(|(key, value)| {
        let value = value.as_deref().unwrap_or_default();
        match split(key) {
            Some((b"branch", Some(_), b"remote" | b"pushremote") | (b"remote", None, b"pushdefault")) => {
                value == name
            }
            // The remotes of a group.
            Some((b"remotes", Some(_) | None, _)) => {
                value.split(u8::is_ascii_whitespace).any(|word| word == name)
            }
            _ => false,
        }
    });
    let tracks = [b"refs/remotes/", name, b"/"].concat();
    let is_tracked = settings.iter().any(|(key, value)| {
        let maps_to = |value: &Vec<u8>| {
            let to = value.rsplit(|&byte| byte == b':').next().unwrap_or_default();
            to.len() >= tracks.len() && to[..tracks.len()].eq_ignore_ascii_case(&tracks)
        };
        matches!(split(key), Some((b"remote", Some(_), b"fetch"))) && value.as_ref().is_some_and(maps_to)
    });
    if is_named {
        Some("a local setting has that name for something else")
    } else if is_tracked {
        Some("its remote-tracking branches would be among those of another remote")
    } else if local.contains(&b"origin"[..]) || local.is_empty() {
        None
    } else if name == b"origin" {
        Some("git would fetch from it by default, and not from a local remote")
    } else if local.len() == 1 {
        Some("git fetches from the only remote by default, and there would be two")
    } else {
        None
    }
}

/// The most new remotes of which any comes back: each is compared with all of the others.
const NEW_REMOTES_MAX: usize = 500;

/// Decides about settings: `base` was sent, `theirs` is in the sandbox now, `local` is what is set here now.
#[must_use]
pub fn come_back(base: &Settings, theirs: &Settings, local: &Local) -> Returned {
    let mut returned = Returned::default();
    let (base_set, theirs_set): (BTreeSet<_>, BTreeSet<_>) = (base.iter().collect(), theirs.iter().collect());
    let remotes_here = local.remotes();
    // A remote counts as new also if a killed restore has added a part of it locally.
    let is_part = |name: &&[u8]| {
        let of_remote =
            |(key, _): &&Setting| matches!(split(key), Some((b"remote", Some(of), _)) if of == *name);
        let mut here = local.own.iter().chain(&local.in_effect).filter(of_remote);
        let is_new = here.all(|setting| theirs_set.contains(setting)) && !local.files.contains(*name);
        is_new && !base.iter().any(|setting| of_remote(&setting))
    };
    let new_remotes: BTreeSet<&[u8]> = remotes(theirs).into_iter().filter(is_part).collect();
    let all_remotes: BTreeSet<&[u8]> = remotes_here.union(&remotes(theirs)).copied().collect();
    // Git does not count what a file defines when it looks for the only remote.
    let set = [&local.own, &local.in_effect].into_iter().flat_map(remotes);
    let former: BTreeSet<&[u8]> = set.filter(|name| !new_remotes.contains(name)).collect();
    // A killed restore may have added what the sandbox has set.
    let set_here: Vec<&Setting> = local
        .own
        .iter()
        .chain(&local.in_effect)
        .filter(|setting| base_set.contains(setting) || !theirs_set.contains(setting))
        .collect();
    let are_too_many = new_remotes.len() > NEW_REMOTES_MAX;
    let plain_remotes: BTreeSet<&[u8]> = new_remotes
        .iter()
        .copied()
        .filter(|_| !are_too_many)
        .filter(|name| plain_remote(name, theirs) && !shares_references(name, &all_remotes))
        .filter(|name| redirects(name, &former, &set_here).is_none())
        .collect();
    let mut taken = BTreeSet::new();
    for setting in theirs.iter().filter(|setting| !base_set.contains(setting)) {
        let (key, value) = setting;
        let value = value.as_deref().unwrap_or_default();
        let shown = || crate::git::command::short(key);
        let verdict = match split(key) {
            _ if is_gits_own(key, value) || local.own.contains(setting) => continue,
            Some((b"branch", Some(branch), b"remote")) => {
                if RefName::parse(&[b"refs/heads/", branch].concat()).is_none() {
                    Err("no branch can have that name")
                } else if local.has(key) {
                    Err("it has another local value")
                } else if new_remotes.contains(value) && !former.is_empty() && local.branches.contains(branch)
                {
                    Err(
                        "it names a new remote, and plain git fetch and git push of a local branch would go there",
                    )
                } else if local.branches.contains(branch)
                    && (value == b"." && !remotes_here.is_empty()
                        || remotes_here.contains(value) && remotes_here.len() > 1 && value != b"origin")
                {
                    Err("plain git fetch and git push of a local branch would go to another remote than now")
                } else if value == b"." || remotes_here.contains(value) || plain_remotes.contains(value) {
                    Ok(())
                } else {
                    Err("it names no remote of this repository")
                }
            }
            Some((b"branch", Some(branch), b"merge")) => {
                let names_branch =
                    RefName::parse(value).is_some_and(|name| name.as_bytes().starts_with(b"refs/heads/"));
                if RefName::parse(&[b"refs/heads/", branch].concat()).is_none() || !names_branch {
                    Err("it names no branch")
                } else if local.has(key) {
                    Err("it has another local value")
                } else {
                    Ok(())
                }
            }
            Some((b"remote", Some(name), b"url" | b"fetch")) if plain_remotes.contains(name) => Ok(()),
            Some((b"remote", Some(name), b"url")) if new_remotes.contains(name) => {
                if are_too_many {
                    Err("more than 500 remotes are new")
                } else if shares_references(name, &all_remotes) {
                    Err("its remote-tracking branches would be among those of another remote")
                } else if let Some(reason) = redirects(name, &former, &set_here) {
                    Err(reason)
                } else {
                    Err("only a new remote with one plain https, ssh or git@ address comes back")
                }
            }
            _ => Err("configuration of the sandbox is not taken over"),
        };
        match verdict {
            Ok(()) if !taken.insert(setting) => {}
            Ok(()) => returned.take.push(setting.clone()),
            Err(reason) => returned.held_back.push((shown(), reason)),
        }
    }
    for (key, _) in base.iter().filter(|setting| !theirs_set.contains(setting)) {
        if !theirs.iter().any(|(there, _)| there == key) {
            returned.held_back.push((readable(key), "it was removed in the sandbox; the local one stays"));
        }
    }
    returned
}

/// Settings that git writes into every new repository, with values that mean nothing to another one.
fn is_gits_own(key: &[u8], value: &[u8]) -> bool {
    match key {
        b"core.repositoryformatversion" => matches!(value, b"0" | b"1"),
        b"core.filemode"
        | b"core.symlinks"
        | b"core.ignorecase"
        | b"core.precomposeunicode"
        | b"core.logallrefupdates" => true,
        b"core.bare" => value == b"false",
        b"extensions.objectformat" => matches!(value, b"sha1" | b"sha256"),
        _ => false,
    }
}

/// The names of the remotes that settings have.
#[must_use]
pub fn remotes(settings: &Settings) -> BTreeSet<&[u8]> {
    settings
        .iter()
        .filter_map(|(key, _)| match split(key) {
            Some((b"remote", Some(name), _)) => Some(name),
            _ => None,
        })
        .collect()
}

/// Whether the remote-tracking branches of a remote are among those of another one, or the other way round: their names
/// differ in case alone, or one begins with the other and a slash.
fn shares_references(name: &[u8], remotes: &BTreeSet<&[u8]>) -> bool {
    let is_in = |inner: &[u8], outer: &[u8]| {
        let begins = inner.get(..outer.len()).is_some_and(|start| start.eq_ignore_ascii_case(outer));
        begins && matches!(inner.get(outer.len()), None | Some(b'/'))
    };
    remotes.iter().any(|other| *other != name && (is_in(name, other) || is_in(other, name)))
}

/// Whether a remote has one plain address, at most the usual mapping, and a plain name.
fn plain_remote(name: &[u8], settings: &Settings) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./".contains(byte);
    let name_is_plain = name.first().is_some_and(u8::is_ascii_alphanumeric)
        && name.iter().all(is_plain)
        && RefName::parse(&[b"refs/remotes/", name].concat()).is_some();
    let usual = [b"+refs/heads/*:refs/remotes/", name, b"/*"].concat();
    let (mut addresses, mut others) = (0, 0);
    for (key, value) in settings {
        let Some((b"remote", Some(of), what)) = split(key) else { continue };
        if of != name {
            continue;
        }
        let value = value.as_deref().unwrap_or_default();
        match what {
            b"url" if is_plain_address(value) => addresses += 1,
            b"fetch" if value == usual => {}
            _ => others += 1,
        }
    }
    name_is_plain && addresses == 1 && others == 0
}

/// Whether an address is `https://host/path`, `ssh://[user@]host[:port]/path` or `git@host:path`, of plain characters and
/// without a password.
#[must_use]
pub fn is_plain_address(url: &[u8]) -> bool {
    let Ok(url) = std::str::from_utf8(url) else { return false };
    let plain = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let host = |text: &str| {
        let (host, port) = text.split_once(':').unwrap_or((text, "1"));
        plain(host, ".-") && !port.is_empty() && port.chars().all(|c| c.is_ascii_digit())
    };
    let path = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/~+@%".contains(c))
            && !text.starts_with('-')
            && !text.contains("..")
    };
    if let Some(rest) = url.strip_prefix("https://") {
        rest.split_once('/').is_some_and(|(authority, rest)| host(authority) && path(rest))
    } else if let Some(rest) = url.strip_prefix("ssh://") {
        rest.split_once('/').is_some_and(|(authority, rest)| {
            let at_host = authority.split_once('@');
            let (user, name) = at_host.map_or(("git", authority), |(user, name)| (user, name));
            plain(user, "._-") && host(name) && path(rest)
        })
    } else if let Some(rest) = url.strip_prefix("git@") {
        rest.split_once(':').is_some_and(|(name, rest)| plain(name, ".-") && path(rest))
    } else {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(list: &[(&str, &str)]) -> Settings {
        list.iter().map(|(key, value)| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))).collect()
    }

    fn own(settings: &Settings) -> Local {
        Local { own: settings.clone(), ..Local::default() }
    }

    #[test]
    fn the_remote_of_a_partial_clone_is_named_in_two_ways() {
        for (key, value, name) in [
            ("extensions.partialclone", Some("origin"), Some("origin")),
            ("extensions.partialclone", Some(""), None),
            ("remote.up.stream.promisor", Some("true"), Some("up.stream")),
            ("remote.origin.promisor", None, Some("origin")),
            ("remote.origin.promisor", Some("False"), None),
            ("remote.promisor", Some("true"), None),
            ("remote.origin.url", Some("x"), None),
        ] {
            let setting = (key.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()));
            assert_eq!(promisor(&setting).as_deref(), name, "{key} = {value:?}");
        }
    }

    #[test]
    fn no_setting_that_runs_or_authenticates_is_uploaded() {
        let all = settings(&[
            ("user.name", "A"),
            ("core.fsmonitor", "./x"),
            ("core.hookspath", "h"),
            ("core.sshcommand", "x"),
            ("core.editor", "x"),
            ("core.worktree", "/x"),
            ("include.path", "x"),
            ("includeif.gitdir:/.path", "x"),
            ("alias.st", "!x"),
            ("filter.x.clean", "x"),
            ("diff.external", "x"),
            ("diff.x.textconv", "x"),
            ("gpg.program", "x"),
            ("http.extraheader", "AUTH"),
            ("http.https://x/.extraheader", "AUTH"),
            ("credential.helper", "store"),
            ("url.https://token@x/.insteadof", "gh:"),
            ("remote.o.uploadpack", "x"),
            ("remote.o.proxy", "x"),
            ("remote.o.url", "https://user:pw@host/p?token=1"),
            ("remote.e.url", "ext::sh -c x"),
            ("remote.d.url", "--upload-pack=x"),
            ("user.email", "a\u{1b}b"),
            ("branch.a\nb.merge", "refs/heads/main"),
            ("remote.s.url", "ssh://me:pw@host/p"),
            ("branch.main.merge", "refs/heads/main"),
            ("branch.main.remote", "https://tok@h/p"),
        ]);
        let up = harmless(&all, false);
        assert_eq!(
            up,
            settings(&[
                ("user.name", "A"),
                ("remote.o.url", "https://host/p"),
                ("remote.s.url", "ssh://me@host/p"),
                ("branch.main.merge", "refs/heads/main"),
                ("branch.main.remote", "https://h/p"),
            ])
        );
        let with = harmless(&all, true);
        assert!(with.contains(&(b"http.extraheader".to_vec(), Some(b"AUTH".to_vec()))));
        assert!(with.contains(&(b"remote.o.url".to_vec(), Some(b"https://user:pw@host/p?token=1".to_vec()))));
        assert!(!with.iter().any(|(key, _)| key.starts_with(b"core.")
            || key.starts_with(b"alias")
            || key.starts_with(b"remote.e")
            || key.starts_with(b"remote.d")));
    }

    #[test]
    fn an_address_is_uploaded_without_what_may_be_secret() {
        for (url, expected) in [
            ("https://h/p", Some("https://h/p")),
            ("https://u:S@h:8443/p?token=S", Some("https://h:8443/p")),
            ("https://h/p;token=S", Some("https://h/p")),
            ("https://h/@scope/p", Some("https://h/@scope/p")),
            ("ssh://git@[1:2:3:4:5:6:7:8]:22/p", Some("ssh://git@[1:2:3:4:5:6:7:8]:22/p")),
            ("https://u:S/@h", None),
            ("git@h:p", Some("git@h:p")),
            ("u:S@h:p", Some("u@h:p")),
            ("/srv/p.git", Some("/srv/p.git")),
            ("../p@2", Some("../p@2")),
            ("h:p", Some("h:p")),
            ("h:team@x/p.git", Some("h:team@x/p.git")),
            ("//u:S@h/p", None),
            ("https:u:S@h/p", None),
            ("https:\\\\u:S@h/p", None),
        ] {
            let found = without_secrets(url.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{url}");
        }
    }

    #[test]
    fn only_harmless_settings_come_back() {
        let base = settings(&[("remote.origin.url", "https://h/p")]);
        let ours = settings(&[
            ("remote.origin.url", "https://tok@h/p"),
            ("branch.old.remote", "origin"),
            ("branch.old.merge", "refs/heads/main"),
            ("core.bare", "false"),
        ]);
        for (list, taken) in [
            (vec![("branch.new.remote", "origin")], true),
            (vec![("branch.new.remote", ".")], true),
            (vec![("branch.new.remote", "ext::sh -c x")], false),
            (vec![("branch.new.remote", "/srv/x")], false),
            (vec![("branch.old.remote", ".")], false),
            (vec![("branch.a..b.remote", "origin")], false),
            (vec![("branch.new.merge", "refs/heads/main")], true),
            (vec![("branch.new.merge", "main")], false),
            (vec![("branch.new.rebase", "true")], false),
            (vec![("remote.up.url", "https://github.com/a/b.git")], true),
            (
                vec![
                    ("remote.up.url", "git@github.com:a/b.git"),
                    ("remote.up.fetch", "+refs/heads/*:refs/remotes/up/*"),
                ],
                true,
            ),
            (vec![("remote.up.url", "ssh://git@h:22/a")], true),
            (vec![("remote.up.url", "https://u:p@h/a")], false),
            (vec![("remote.up.url", "http://h/a")], false),
            (vec![("remote.up.url", "file:///etc")], false),
            (vec![("remote.up.url", "ext::sh")], false),
            (vec![("remote.up.url", "ssh://-oProxyCommand=x/a")], false),
            (vec![("remote.up.url", "git@-oProxyCommand=x:a")], false),
            (vec![("remote.up.url", "git@h:-x")], false),
            (vec![("remote.up.url", "git@h:../a")], false),
            (vec![("remote.up.url", "git@h:a b")], false),
            (vec![("remote.up.url", "https://h:x/a")], false),
            (vec![("remote.up.url", "https://h:/a")], false),
            (vec![("remote.up.url", "ssh://-h/a")], false),
            (vec![("remote.up.url", "https://u@h/a")], false),
            (vec![("remote.up.url", "https://h/a"), ("remote.up.url", "https://h/b")], false),
            (vec![("remote.a b.url", "https://h/a")], false),
            (vec![("remote.up/stream.url", "https://h/a")], true),
            (vec![("remote.origin/main.url", "https://h/a")], false),
            (vec![("remote.Origin.url", "https://h/a")], false),
            (vec![("remote.ORIGIN/x.url", "https://h/a")], false),
            (vec![("remote.origin-2.url", "https://h/a")], true),
            (vec![("remote.up.url", "https://h/a"), ("remote.up/x.url", "https://h/b")], false),
            (vec![("branch.old.merge", "refs/heads/other")], false),
            (vec![("branch.a..b.merge", "refs/heads/main")], false),
            (vec![("core.repositoryformatversion", "2")], false),
            (vec![("extensions.objectformat", "sha3")], false),
            (vec![("remote.up.url", "https://h/a"), ("remote.up.uploadpack", "x")], false),
            (
                vec![("remote.up.url", "https://h/a"), ("remote.up.fetch", "+refs/heads/*:refs/heads/*")],
                false,
            ),
            (vec![("remote.-x.url", "https://h/a")], false),
            (vec![("remote.origin.url", "https://evil/p")], false),
            (vec![("remote.origin.pushurl", "https://evil/p")], false),
            (vec![("url.https://evil/.insteadof", "https://h/")], false),
            (vec![("core.fsmonitor", "./x")], false),
            (vec![("core.worktree", "/")], false),
            (vec![("core.bare", "true")], false),
            (vec![("include.path", "../x")], false),
            (vec![("alias.status", "!x")], false),
        ] {
            let added = settings(&list);
            let theirs: Settings = base.iter().cloned().chain(added.clone()).collect();
            let returned = come_back(&base, &theirs, &own(&ours));
            assert_eq!(returned.take, if taken { added } else { vec![] }, "{list:?}");
            assert_eq!(returned.held_back.is_empty(), taken, "{list:?}");
        }
        // If a killed restore added a part of a remote, it is completed; a different local remote of that
        // name is not changed.
        let fork = settings(&[
            ("remote.up.url", "https://h/a"),
            ("remote.up.fetch", "+refs/heads/*:refs/remotes/up/*"),
        ]);
        for (here, taken) in [(&fork[..1], &fork[1..]), (&fork[1..], &fork[..1]), (&fork[..], &[][..])] {
            let theirs: Settings = base.iter().chain(&fork).cloned().collect();
            let ours: Settings = ours.iter().chain(here).cloned().collect();
            assert_eq!(come_back(&base, &theirs, &own(&ours)).take, taken, "{here:?}");
            let ours = [&ours[..], &settings(&[("remote.up.url", "https://other/a")])].concat();
            let returned = come_back(&base, &theirs, &own(&ours));
            assert_eq!((returned.take.len(), returned.held_back.len()), (0, fork.len() - here.len()));
        }
        // A remote that was sent, and was removed locally since, is not added again.
        let moved = settings(&[("remote.origin.url", "https://evil/p")]);
        assert_eq!(come_back(&base, &moved, &Local::default()).take, Settings::new());
        let unchanged = come_back(&base, &base, &own(&ours));
        assert_eq!(unchanged, Returned::default());
    }

    type List = &'static [(&'static str, &'static str)];

    const UPSTREAM: List = &[("remote.upstream.url", "https://h/u")];
    const ORIGIN: List = &[("remote.origin.url", "https://h/o")];

    /// What it is; the repository's own settings, others in effect, and remotes that files define; what is new in the sandbox, and
    /// whether that comes.
    type NewRemote = (&'static str, List, List, &'static [&'static str], List, bool);

    const NEW_REMOTES: &[NewRemote] = &[
        ("no remote yet", &[], &[], &[], &[("remote.origin.url", "https://h/a")], true),
        ("beside origin", ORIGIN, &[], &[], &[("remote.up.url", "https://h/a")], true),
        (
            "the default, beside another one",
            UPSTREAM,
            &[],
            &[],
            &[("remote.origin.url", "https://h/a")],
            false,
        ),
        ("beside the only one", UPSTREAM, &[], &[], &[("remote.up.url", "https://h/a")], false),
        (
            "beside two, of which none is the default",
            &[UPSTREAM[0], ("remote.other.url", "https://h/b")],
            &[],
            &[],
            &[("remote.up.url", "https://h/a")],
            true,
        ),
        (
            "named as a path",
            ORIGIN,
            &[("branch.main.remote", "up")],
            &[],
            &[("remote.up.url", "https://h/a")],
            false,
        ),
        (
            "named for a push",
            ORIGIN,
            &[("remote.pushdefault", "up")],
            &[],
            &[("remote.up.url", "https://h/a")],
            false,
        ),
        (
            "named for a branch's push",
            ORIGIN,
            &[("branch.main.pushremote", "up")],
            &[],
            &[("remote.up.url", "https://h/a")],
            false,
        ),
        (
            "named in a group",
            ORIGIN,
            &[("remotes.all", "x up")],
            &[],
            &[("remote.up.url", "https://h/a")],
            false,
        ),
        (
            "named by another value",
            ORIGIN,
            &[("user.name", "up")],
            &[],
            &[("remote.up.url", "https://h/a")],
            true,
        ),
        ("defined by a file", ORIGIN, &[], &["up"], &[("remote.up.url", "https://h/a")], false),
        (
            "beside the only one but for a file",
            UPSTREAM,
            &[],
            &["old"],
            &[("remote.up.url", "https://h/a")],
            false,
        ),
        (
            "defined by the user",
            ORIGIN,
            &[("remote.up.url", "https://h/u")],
            &[],
            &[("remote.up.url", "https://h/a")],
            false,
        ),
        (
            "tracked by another one",
            ORIGIN,
            &[("remote.origin.fetch", "+refs/heads/*:refs/remotes/Up/*")],
            &[],
            &[("remote.up.url", "https://h/a")],
            false,
        ),
        (
            "a branch's remote that the user has set",
            ORIGIN,
            &[("branch.main.remote", "good")],
            &[],
            &[("branch.main.remote", "origin")],
            false,
        ),
        (
            "both are new",
            ORIGIN,
            &[],
            &[],
            &[("remote.up.url", "https://h/a"), ("branch.x.remote", "up")],
            true,
        ),
    ];

    /// What git does by itself for the other remotes must stay as it is.
    #[test]
    fn a_new_remote_changes_nothing_for_the_others() {
        for (what, own, in_effect, files, added, taken) in NEW_REMOTES {
            let own = settings(own);
            let added = settings(added);
            let theirs: Settings = own.iter().chain(&added).cloned().collect();
            let in_effect: Settings = own.iter().cloned().chain(settings(in_effect)).collect();
            let files = files.iter().map(|name| name.as_bytes().to_vec()).collect();
            let local = Local { own: own.clone(), in_effect, files, ..Local::default() };
            let returned = come_back(&own, &theirs, &local);
            assert_eq!(returned.take, if *taken { added.clone() } else { vec![] }, "{what}");
            assert_eq!(returned.held_back.is_empty(), *taken, "{what}");
            // A killed restore may have added a part of it.
            if *taken && added.len() > 1 {
                for part in &added {
                    let own: Settings = own.iter().chain([part]).cloned().collect();
                    let local = Local { in_effect: own.clone(), own, ..Local::default() };
                    let rest: Settings = added.iter().filter(|setting| *setting != part).cloned().collect();
                    assert_eq!(come_back(&settings(ORIGIN), &theirs, &local).take, rest, "{what}");
                }
            }
        }
    }

    #[test]
    fn of_very_many_new_remotes_none_comes() {
        for (count, comes) in [(NEW_REMOTES_MAX, true), (NEW_REMOTES_MAX + 1, false)] {
            let name = |number| (format!("remote.r{number:04}.url"), "https://h/a");
            let list: Vec<(String, &str)> = (0..count).map(name).collect();
            let theirs = settings(&list.iter().map(|(key, value)| (&**key, *value)).collect::<Vec<_>>());
            let returned = come_back(&Settings::new(), &theirs, &Local::default());
            assert_eq!((returned.take.len() == count, returned.held_back.is_empty()), (comes, comes));
        }
    }

    #[test]
    fn a_branch_that_was_sent_gets_no_other_remote_than_git_would_use() {
        let own = settings(&[("remote.origin.url", "https://h/o"), ("remote.fork.url", "https://h/f")]);
        let alone = settings(&[("remote.fork.url", "https://h/f")]);
        for (own, branch, remote, taken) in [
            (&own, "main", "origin", true),
            (&own, "main", "fork", false),
            (&own, "main", ".", false),
            (&own, "new", ".", true),
            (&own, "new", "fork", true),
            (&alone, "main", "fork", true),
        ] {
            let added = settings(&[(&*format!("branch.{branch}.remote"), remote)]);
            let theirs: Settings = own.iter().chain(&added).cloned().collect();
            let branches = [b"main".to_vec()].into();
            let local = Local { own: own.clone(), in_effect: own.clone(), branches, ..Local::default() };
            let returned = come_back(own, &theirs, &local);
            assert_eq!(!returned.take.is_empty(), taken, "{branch} {remote}");
            assert_eq!(returned.held_back.is_empty(), taken, "{branch} {remote}");
        }
    }

    #[test]
    fn git_reads_the_rendered_settings_unchanged() {
        use crate::{cancel::Cancel, git::command::Git};
        let folder = tempfile::tempdir().unwrap();
        let all = settings(&[
            ("user.name", "a \"q\" \\ # ; b"),
            ("branch.a.b\"\\ c.merge", " x "),
            ("push.default", ""),
        ]);
        let file = folder.path().join("config");
        std::fs::write(&file, render(&all)).unwrap();
        let git = Git::find(folder.path()).expect("git is installed");
        let list = git
            .outside()
            .args(["config", "--no-includes", "--list", "-z", "--file"])
            .arg(&file)
            .run(&Cancel::default());
        assert_eq!(parse(&list.map_err(drop).unwrap()), all);
    }
}
