//! Which tools the sandboxes of one provider and adapter have had: a new one is expected to have them too.
//!
//! Nothing can be asked of a sandbox before its first upload. Where it lacks what was expected of it, it says so and gets the
//! archive again; where what is kept here is gone, gzip is used, which every sandbox has.

use serde::{Deserialize, Serialize};

use super::store::{Store, name_for};

/// How many sandboxes in a row must have had zstd, once one has lacked it. Where some have it and some do not, few uploads are
/// then made in vain.
const SIGHTINGS: u8 = 3;

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
    /// Whether a new sandbox is expected to have zstd.
    #[must_use]
    pub fn has_zstd(&self) -> bool {
        self.with_zstd >= if self.was_lacking { SIGHTINGS } else { 1 }
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
        // A capital letter is a sandbox that was seen with zstd, and a small one without.
        for (history, expected) in [
            ("", false),
            ("A", true),
            ("AAA", true),
            ("a", false),
            ("Aa", false),
            ("ABCa", false),
            ("aA", false),
            ("aB", false),
            ("aBBBB", false),
            ("aBC", false),
            ("aBCC", false),
            ("aBCD", true),
            ("aABC", true),
            ("aBCDDDD", true),
            ("aBCDe", false),
            ("aBCDeFG", false),
            ("aBCDeFGH", true),
            ("aBcDeFgH", false),
        ] {
            let tools = history.chars().fold(Tools::default(), |tools, sandbox| {
                tools.seen(&sandbox.to_ascii_lowercase().to_string(), sandbox.is_ascii_uppercase())
            });
            assert_eq!(tools.has_zstd(), expected, "{history}");
        }
    }

    #[test]
    fn what_is_gone_or_damaged_expects_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let name = name_of(b"provider", "adapter");
        assert!(!Tools::load(&store, &name).has_zstd());
        Tools::note(&store, &name, "one", true);
        assert!(Tools::load(&store, &name).has_zstd());
        assert!(!Tools::load(&store, &name_of(b"provider", "other")).has_zstd());
        let file = folder.path().join(&name);
        let mut bytes = std::fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(!Tools::load(&store, &name).has_zstd());
        Tools::note(&store, &name, "one", true);
        assert!(Tools::load(&store, &name).has_zstd());
        std::fs::remove_file(&file).unwrap();
        assert!(!Tools::load(&store, &name).has_zstd());
    }
}
