//! Which tools the sandboxes of one provider and adapter have had: a new one is expected to have them too.
//!
//! Nothing can be asked of a sandbox before its first upload. Where it lacks what was expected of it, it says so and gets the
//! archive again. Where nothing is known, gzip is used, which every sandbox has, unless zstd saves so much that it is worth trying.

use serde::{Deserialize, Serialize};

use super::store::{Store, name_for};

/// How many sandboxes in a row must have had zstd, once one has lacked it. Where some have it and some do not, few uploads are
/// then made in vain.
const SIGHTINGS: u8 = 3;

/// How many bytes a trial of zstd must save at least: it may cost four calls more.
const TRIAL_SAVES: usize = 1 << 20;

/// Whether zstd is worth trying on bytes that gzip and zstd compress to these sizes, while nothing is known of such sandboxes.
///
/// In vain, the trial costs what zstd has made of them, and otherwise it saves the rest of what gzip has. So it is tried where it
/// saves more than it can cost.
#[must_use]
pub fn is_worth_trying(gzip: usize, zstd: usize) -> bool {
    gzip.saturating_sub(zstd) > zstd.max(TRIAL_SAVES)
}

/// What a new sandbox is expected to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Others have had zstd.
    Zstd,
    /// The last ones have not.
    Gzip,
    /// None has been seen.
    Unknown,
}

/// What the sandboxes of a provider have had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// How many in a row have had zstd, as far as that matters.
    with_zstd: u8,
    /// Whether any has lacked it.
    was_lacking: bool,
    /// The last one.
    sandbox: String,
}

impl Tools {
    /// What a new sandbox is expected to have.
    #[must_use]
    pub fn expected(&self) -> Expected {
        match (self.with_zstd, self.was_lacking) {
            (0, false) => Expected::Unknown,
            (SIGHTINGS.., true) | (1.., false) => Expected::Zstd,
            _ => Expected::Gzip,
        }
    }

    /// What is known once a sandbox has been seen with zstd, or without. One that is seen again and again counts once.
    #[must_use]
    pub fn seen(&self, sandbox: &str, has_zstd: bool) -> Self {
        let is_another = self.sandbox != sandbox || self.with_zstd == 0;
        let with_zstd = if has_zstd { (self.with_zstd + u8::from(is_another)).min(SIGHTINGS) } else { 0 };
        Self { with_zstd, was_lacking: self.was_lacking || !has_zstd, sandbox: sandbox.to_owned() }
    }

    /// What is kept of a provider's sandboxes; nothing where that is gone or damaged.
    #[must_use]
    pub fn load(store: &Store, name: &str) -> Self {
        store.load(name).unwrap_or_default()
    }

    /// Keeps that a sandbox has been seen with zstd, or without.
    pub fn note(store: &Store, name: &str, sandbox: &str, has_zstd: bool) {
        let known = Self::load(store, name);
        let now = known.seen(sandbox, has_zstd);
        if now == known {
            store.renew(name);
        } else {
            store.keep(name, &now);
        }
    }
}

/// The name of the file of a provider's sandboxes, as one adapter sets them up.
#[must_use]
pub fn name_of(provider: &[u8], adapter_key: &str) -> String {
    name_for("tools", &[provider, adapter_key.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_after_which_sandboxes() {
        use Expected::{Gzip, Unknown, Zstd};
        // A capital letter is a sandbox that was seen with zstd, and a small one without.
        for (history, expected) in [
            ("", Unknown),
            ("A", Zstd),
            ("AAA", Zstd),
            ("a", Gzip),
            ("Aa", Gzip),
            ("ABCa", Gzip),
            ("aA", Gzip),
            ("aB", Gzip),
            ("aBBBB", Gzip),
            ("aBC", Gzip),
            ("aBCC", Gzip),
            ("aBCD", Zstd),
            ("aABC", Zstd),
            ("aBCDDDD", Zstd),
            ("aBCDe", Gzip),
            ("aBCDeFG", Gzip),
            ("aBCDeFGH", Zstd),
            ("aBcDeFgH", Gzip),
        ] {
            let tools = history.chars().fold(Tools::default(), |tools, sandbox| {
                tools.seen(&sandbox.to_ascii_lowercase().to_string(), sandbox.is_ascii_uppercase())
            });
            assert_eq!(tools.expected(), expected, "{history}");
        }
    }

    #[test]
    fn zstd_is_tried_where_it_saves_more_than_it_can_cost() {
        const MB: usize = 1 << 20;
        for (gzip, zstd, expected) in [
            (20 * MB, 3 * MB, true),
            (20 * MB, 10 * MB - 1, true),
            (20 * MB, 10 * MB, false),
            (20 * MB, 16 * MB, false),
            (20 * MB, 21 * MB, false),
            (2 * MB, MB - 1, true),
            (MB + 100, 50, true),
            (MB + 100, 100, false),
            (MB, 50, false),
            (0, 0, false),
        ] {
            assert_eq!(is_worth_trying(gzip, zstd), expected, "gzip {gzip}, zstd {zstd}");
        }
    }

    #[test]
    fn what_is_gone_or_damaged_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let name = name_of(b"provider", "adapter");
        assert_eq!(Tools::load(&store, &name).expected(), Expected::Unknown);
        Tools::note(&store, &name, "one", true);
        assert_eq!(Tools::load(&store, &name).expected(), Expected::Zstd);
        assert_eq!(Tools::load(&store, &name_of(b"provider", "other")).expected(), Expected::Unknown);
        let file = folder.path().join(&name);
        let mut bytes = std::fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(Tools::load(&store, &name).expected(), Expected::Unknown);
        Tools::note(&store, &name, "one", true);
        assert_eq!(Tools::load(&store, &name).expected(), Expected::Zstd);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(Tools::load(&store, &name).expected(), Expected::Unknown);
    }
}
